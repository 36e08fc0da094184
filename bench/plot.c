/* plot.c - a roofline as SVG from what gemv wrote.
 *
 *     build/bench/plot GEMV.csv OUT.svg
 *
 * 4096 x 4096, cold, one thread. Across: weights per byte read. Up: weights multiplied per second. A kernel
 * that reads as fast as the machine can lies on the line; what lies below computes too long. Readable on
 * light and dark: the ground is transparent and the colours follow the viewer's scheme. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 70, TOP = 40, WIDTH = 620, HEIGHT = 400 };
static const double x_low = 0.18, x_high = 20, y_low = 0.8,
                    y_high = 300; /* weights a byte, 1e9 weights a second */

static double x_of(double v) { return LEFT + WIDTH * log(v / x_low) / log(x_high / x_low); }
static double y_of(double v) { return TOP + HEIGHT * (1 - log(v / y_low) / log(y_high / y_low)); }

/* Field number k (from 0) of a CSV line, into `out`. */
static const char *field(const char *line, int k, char *out, size_t size) {
    while (k-- && line) {
        line = strchr(line, ',');
        if (line) line++;
    }
    snprintf(out, size, "%.*s", line ? (int)strcspn(line, ",\n") : 0, line ? line : "");
    return out;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: plot GEMV.csv OUT.svg\n"), 2;
    FILE *in = fopen(argv[1], "r"), *out = fopen(argv[2], "w");
    if (!in || !out) return fprintf(stderr, "plot: cannot open %s\n", in ? argv[2] : argv[1]), 1;
    fprintf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 500\" font-family=\"sans-serif\" "
        "font-size=\"12\">\n"
        "<style>\n"
        "text{fill:#24292f} .grid{stroke:#888;stroke-opacity:.25} "
        ".roof{stroke:#57606a;stroke-width:2;fill:none}\n"
        ".ours{fill:#0969da} .other{fill:#bc4c00} .muted{fill:#57606a}\n"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3} .roof{stroke:#9ea7b3} .ours{fill:#58a6ff}\n"
        ".other{fill:#f0883e} .muted{fill:#9ea7b3}}\n"
        "</style>\n"
        "<text x=\"70\" y=\"22\" font-size=\"15\">One core, 4096 x 4096, cold: how near each kernel comes to "
        "the speed of memory</text>\n");
    for (double decade = 0.1; decade < 1000; decade *= 10)
        for (int digit = 1; digit < 10; digit++) {
            double v = decade * digit;
            int named = digit == 1 || digit == 2 || digit == 5;
            if (v >= x_low && v <= x_high && named) {
                fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x_of(v),
                        x_of(v), TOP, TOP + HEIGHT);
                fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n", x_of(v),
                        TOP + HEIGHT + 18, v);
            }
            if (v >= y_low && v <= y_high && named) {
                fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT,
                        LEFT + WIDTH, y_of(v), y_of(v));
                fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT - 8,
                        y_of(v) + 4, v);
            }
        }
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">weights per byte read</text>\n",
            LEFT + WIDTH / 2, TOP + HEIGHT + 40);
    fprintf(out,
            "<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">10\xe2\x81\xb9 weights "
            "multiplied per second</text>\n",
            TOP + HEIGHT / 2);

    char line[1024], text[32], isa[32], name[32], method[32], precision[32];
    double roof = 0, label_x = 0, label_y = 0;
    int points = 0;
    while (fgets(line, sizeof line, in)) {
        if (strcmp(field(line, 6, text, sizeof text), "4096") ||
            strcmp(field(line, 7, text, sizeof text), "4096") ||
            strcmp(field(line, 8, text, sizeof text), "cold") ||
            strcmp(field(line, 9, text, sizeof text), "1"))
            continue;
        field(line, 0, name, sizeof name), field(line, 1, isa, sizeof isa),
            field(line, 2, method, sizeof method);
        field(line, 5, precision, sizeof precision);
        double bits = atof(field(line, 11, text, sizeof text)), ms = atof(field(line, 12, text, sizeof text));
        double gbps = atof(field(line, 15, text, sizeof text));
        int level = atoi(field(line, 4, text, sizeof text)), ours = !strcmp(name, "bitstack");
        if (!strcmp(name, "read")) {
            if (gbps > roof) roof = gbps;
            continue;
        }
        if (!strcmp(isa, "scalar") || !strcmp(precision, "exact") || (!strcmp(method, "iabs") && level != 3))
            continue;
        double x = 8 / bits, y = 4096.0 * 4096.0 / ms / 1e6;
        if (x < x_low || x > x_high || y < y_low || y > y_high) continue;
        int first = ours && !strcmp(method, "nested");
        if (first) {
            fprintf(out,
                    "<circle class=\"ours\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%d planes, %s: %.3f "
                    "ms</title></circle>",
                    x_of(x), y_of(y), level, isa, ms);
            if (strcmp(isa, "avx2"))
                fprintf(out, "<text class=\"ours\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%d</text>",
                        x_of(x) - 7, y_of(y) - 4, level);
        } else {
            fprintf(out,
                    "<rect class=\"other\" x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\"><title>%.3f "
                    "ms</title></rect>",
                    x_of(x) - 3.5, y_of(y) - 3.5, ms);
            if (fabs(x_of(x) - label_x) > 3 || fabs(y_of(y) - label_y) > 11) /* no label on another */
                fprintf(out, "<text class=\"other\" x=\"%.1f\" y=\"%.1f\" font-size=\"11\">%s %s</text>",
                        x_of(x) + 7, y_of(y) + 11, ours ? "iabs rank 16, 3 blocks," : name,
                        !strcmp(method, "ggml") ? "(ggml)" : strcmp(isa, "-") ? isa : "");
            label_x = x_of(x), label_y = y_of(y);
        }
        fprintf(out, "\n");
        points++;
    }
    if (roof > 0) {
        double left = fmax(x_low, y_low / roof), right = fmin(x_high, y_high / roof);
        fprintf(out, "<path class=\"roof\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", x_of(left), y_of(left * roof),
                x_of(right), y_of(right * roof));
        fprintf(out,
                "<text class=\"muted\" x=\"%d\" y=\"%d\">line: fastest pure read of the same bytes, %.1f "
                "GB/s</text>\n",
                LEFT + 12, TOP + 20, roof);
    }
    fprintf(out,
            "<circle class=\"ours\" cx=\"%d\" cy=\"%d\" r=\"4\"/><text class=\"ours\" x=\"%d\" "
            "y=\"%d\">BitStack, 1 to 6 planes, each ISA</text>\n",
            LEFT + 18, TOP + 38, LEFT + 30, TOP + 42);
    fprintf(out,
            "<rect class=\"other\" x=\"%d\" y=\"%d\" width=\"7\" height=\"7\"/><text class=\"other\" "
            "x=\"%d\" y=\"%d\">others</text>\n</svg>\n",
            LEFT + 14, TOP + 54, LEFT + 30, TOP + 62);
    fclose(in);
    if (fclose(out) || !points)
        return fprintf(stderr, "plot: no points of 4096 x 4096, cold, one thread\n"), 1;
    return 0;
}
