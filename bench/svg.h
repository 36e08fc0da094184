/* svg.h - line charts on logarithmic axes as SVG text, without libraries. The ground is transparent and the
 * colours follow the viewer's light or dark scheme. One file writes one chart at a time. */
#ifndef BENCH_SVG_H
#define BENCH_SVG_H

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SVG_LEFT = 78, SVG_TOP = 44, SVG_WIDTH = 640, SVG_HEIGHT = 420, SVG_RIGHT = 290, SVG_COLOURS = 12, SVG_LABELS = 16 };
enum { SVG_DOTS, SVG_THICK, SVG_FRONTIER }; /* a line's look: dashed with dots, thick, grey behind all */

typedef struct svg_chart {
    FILE *to;
    double x_low, x_high, y_low, y_high;
    int series, colours;
    double label_x[SVG_LABELS], label_y[SVG_LABELS], label_width[SVG_LABELS]; /* of the names at the lines */
    int labels;
} svg_chart;

static inline double svg_x(const svg_chart *c, double v) {
    return SVG_LEFT + SVG_WIDTH * log(v / c->x_low) / log(c->x_high / c->x_low);
}
static inline double svg_y(const svg_chart *c, double v) {
    return SVG_TOP + SVG_HEIGHT * (1 - log(v / c->y_low) / log(c->y_high / c->y_low));
}

static inline void svg_number(char *out, size_t size, double v) {
    if (v >= 1e6) snprintf(out, size, "%gM", v / 1e6);
    else if (v >= 1e4) snprintf(out, size, "%gk", v / 1e3);
    else snprintf(out, size, "%g", v);
}

/* Grid lines at 1, 2 and 5 times powers of ten; at every digit where the span is less than two decades' half. */
static inline void svg_axes(const svg_chart *c, const char *title, const char *x_title, const char *y_title) {
    fprintf(c->to, "<text x=\"%d\" y=\"22\" font-size=\"15\">%s</text>\n", SVG_LEFT, title);
    for (int vertical = 0; vertical < 2; vertical++) {
        double low = vertical ? c->y_low : c->x_low, high = vertical ? c->y_high : c->x_high;
        int fine = high / low < 6;
        for (int decade = (int)floor(log10(low)); decade <= (int)ceil(log10(high)); decade++)
            for (int tenths = 10; tenths < 100; tenths += fine ? 5 : 10) {
                double v = tenths / 10.0 * pow(10, decade);
                int named = fine || tenths == 10 || tenths == 20 || tenths == 50;
                char text[32];
                if (v < low * 0.999 || v > high * 1.001 || !named) continue;
                svg_number(text, sizeof text, v);
                if (vertical)
                    fprintf(c->to, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                            SVG_LEFT, SVG_LEFT + SVG_WIDTH, svg_y(c, v), svg_y(c, v), SVG_LEFT - 8, svg_y(c, v) + 4, text);
                else
                    fprintf(c->to, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                            svg_x(c, v), svg_x(c, v), SVG_TOP, SVG_TOP + SVG_HEIGHT, svg_x(c, v), SVG_TOP + SVG_HEIGHT + 18, text);
            }
    }
    fprintf(c->to, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", SVG_LEFT + SVG_WIDTH / 2, SVG_TOP + SVG_HEIGHT + 40, x_title);
    fprintf(c->to, "<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", SVG_TOP + SVG_HEIGHT / 2, y_title);
}

/* Ranges must be positive and not empty. `below`: room under the chart for something else. */
static inline void svg_begin(svg_chart *c, FILE *to, int below, const char *title, const char *x_title, const char *y_title) {
    static const char *const light[SVG_COLOURS] = {"#0969da", "#cf222e", "#1a7f37", "#8250df", "#bc4c00", "#0e7490",
                                                   "#bf3989", "#6e7781", "#9a6700", "#2da44e", "#57606a", "#d4a72c"};
    static const char *const dark[SVG_COLOURS] = {"#58a6ff", "#ff7b72", "#3fb950", "#bc8cff", "#f0883e", "#39c5cf",
                                                  "#f778ba", "#b1bac4", "#e3b341", "#7ee787", "#8b949e", "#f2cc60"};
    c->to = to;
    c->series = c->colours = c->labels = 0;
    fprintf(c->to, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n<style>\n"
                   "text{fill:#24292f} .grid{stroke:#888;stroke-opacity:.25} path{fill:none;stroke-width:1.6;stroke-dasharray:5 3} .any{stroke-width:3;stroke-dasharray:none} .best{stroke:#8888;stroke-width:7;stroke-dasharray:none} .name{font-size:11px}\n",
            SVG_LEFT + SVG_WIDTH + SVG_RIGHT, SVG_TOP + SVG_HEIGHT + 56 + below);
    for (int i = 0; i < SVG_COLOURS; i++) fprintf(c->to, ".s%d{stroke:%s} .f%d{fill:%s}\n", i, light[i], i, light[i]);
    fprintf(c->to, "@media (prefers-color-scheme:dark){text{fill:#e6edf3}\n");
    for (int i = 0; i < SVG_COLOURS; i++) fprintf(c->to, ".s%d{stroke:%s} .f%d{fill:%s}\n", i, dark[i], i, dark[i]);
    fprintf(c->to, "}\n</style>\n");
    svg_axes(c, title, x_title, y_title);
}

/* 0 if the file cannot be written. */
static inline int svg_open(svg_chart *c, const char *path, const char *title, const char *x_title, const char *y_title) {
    FILE *to = fopen(path, "w");
    if (to) svg_begin(c, to, 0, title, x_title, y_title);
    return to != NULL;
}

/* A name beside one of the line's points, the last first, where no other name is; nowhere if all are taken. */
static inline void svg_label(svg_chart *c, const char *name, int colour, const double *x, const double *y, int count) {
    double width = 6.0 * (double)strlen(name);
    for (int i = count - 1; i >= 0 && c->labels < SVG_LABELS; i--) {
        double left = svg_x(c, x[i]) + 7, base = svg_y(c, y[i]) - 6;
        int taken = left + width > SVG_LEFT + SVG_WIDTH + 4 || base < SVG_TOP + 10 || y[i] < c->y_low || x[i] < c->x_low;
        for (int k = 0; k < c->labels && !taken; k++)
            taken = left < c->label_x[k] + c->label_width[k] && c->label_x[k] < left + width && fabs(base - c->label_y[k]) < 13;
        if (taken) continue;
        fprintf(c->to, "<text class=\"name f%d\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", colour, left, base, name);
        c->label_x[c->labels] = left, c->label_y[c->labels] = base, c->label_width[c->labels++] = width;
        return;
    }
}

/* One method. Points in order of x; those outside the ranges are left out. Named at the line and in a legend at the
 * right. */
static inline void svg_series(svg_chart *c, const char *name, const double *x, const double *y, int count, int look) {
    int colour = look == SVG_FRONTIER ? -1 : c->colours++ % SVG_COLOURS, drawn = 0;
    double at = SVG_TOP + 12 + 20 * c->series++, right = SVG_LEFT + SVG_WIDTH + 16;
    char style[16] = "best";
    if (colour >= 0) snprintf(style, sizeof style, "s%d%s", colour, look == SVG_THICK ? " any" : "");
    fprintf(c->to, "<path class=\"%s\" d=\"", style);
    for (int i = 0; i < count; i++)
        if (x[i] >= c->x_low && x[i] <= c->x_high && y[i] >= c->y_low && y[i] <= c->y_high)
            fprintf(c->to, "%s%.1f %.1f", drawn++ ? "L" : "M", svg_x(c, x[i]), svg_y(c, y[i]));
    fprintf(c->to, "\"/>");
    for (int i = 0; i < count; i++)
        if (look == SVG_DOTS && x[i] >= c->x_low && x[i] <= c->x_high && y[i] >= c->y_low && y[i] <= c->y_high)
            fprintf(c->to, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s: %g, %g</title></circle>", colour,
                    svg_x(c, x[i]), svg_y(c, y[i]), name, x[i], y[i]);
    if (look != SVG_FRONTIER) svg_label(c, name, colour, x, y, count);
    fprintf(c->to, "\n<path class=\"%s\" d=\"M%.0f %.0fh22\"/><text x=\"%.0f\" y=\"%.0f\">%s</text>\n", style,
            right, at - 4, right + 28, at, name);
}

/* Nonzero on success. */
static inline int svg_close(svg_chart *c) {
    fprintf(c->to, "</svg>\n");
    return fclose(c->to) == 0;
}
#endif
