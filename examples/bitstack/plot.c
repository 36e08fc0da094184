/* bitstack plot: what each byte of a stack buys, and which matrices a budget gives how many planes, as a picture or as
 * text. Only tables are read: the errors are those that the compressor wrote beside the blocks. */
#include "cli.h"
#include "../../bench/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack plot FILE [-o OUT.svg|OUT.html] [--text] [--budget SIZE]\n\n"
    "Two pictures of a stack, from its own tables: the loss that is left at each memory size, by the order of its blocks\n"
    "and the errors that the compressor wrote there; and the planes of each matrix, by layer and kind, at a budget.\n"
    "The loss is a sum over matrices, each error weighted with its sensitivity, as the compressor predicted it: the shape\n"
    "of the curve means something, bitstack perplexity measures the model.\n\n"
    "  -o OUT         an SVG file, or a page with it\n"
    "  --text         on the terminal; so without -o\n"
    "  --budget SIZE  of the second picture; half way from nothing to all\n";

enum { MOST_KINDS = 12, MOST_LAYERS = 512, POINTS = 400 };

typedef struct plot {
    const bitstack *stack;
    char name[256];
    uint64_t budget, resident; /* resident: with what the budget loads */
    int blocks, known;         /* of the budget; whether errors are known */
    double *x, *y;             /* megabytes and loss: where blocks end, at most POINTS of them */
    int points;
    char kinds[MOST_KINDS][32];
    int kind_count, layer_count;
    int levels[MOST_KINDS][MOST_LAYERS]; /* -1: there is no such matrix */
    int most;                            /* levels */
} plot;

/* ---- what is in the file ---- */

/* "blk.7.attn_q.weight" is of layer 7 and kind "attn_q"; others stand in the column of layer 0. */
static int kind_of(plot *p, const bitstack_matrix *m, int *layer) {
    char name[80], *kind = name, *end;
    snprintf(name, sizeof name, "%s", cli_plain(m->name, m->name_bytes < 70 ? m->name_bytes : 70));
    *layer = 0;
    if (strncmp(name, "blk.", 4) == 0) {
        *layer = (int)strtol(name + 4, &end, 10);
        if (*end == '.' && *layer >= 0 && *layer < MOST_LAYERS) kind = end + 1;
        else *layer = 0;
    }
    if ((end = strrchr(kind, '.')) && strcmp(end, ".weight") == 0) *end = 0;
    kind[31 < strlen(kind) ? 31 : strlen(kind)] = 0;
    for (int k = 0; k < p->kind_count; k++)
        if (strcmp(p->kinds[k], kind) == 0) return k;
    if (p->kind_count == MOST_KINDS) return -1;
    strcpy(p->kinds[p->kind_count], kind);
    return p->kind_count++;
}

static void gather_levels(plot *p) {
    uint32_t *loaded = calloc((size_t)bitstack_matrix_count(p->stack) + 1, sizeof *loaded);
    memset(p->levels, -1, sizeof p->levels);
    p->resident = bitstack_base_bytes(p->stack);
    for (bitstack_block b; loaded && bitstack_get_block(p->stack, p->blocks, &b) == BITSTACK_OK &&
                           b.resident_after <= p->budget;
         p->blocks++) {
        loaded[b.matrix] = b.level;
        p->resident = b.resident_after;
    }
    for (int i = 0; loaded && i < bitstack_matrix_count(p->stack); i++) {
        bitstack_matrix m;
        int layer, kind;
        if (bitstack_get_matrix(p->stack, i, &m) != BITSTACK_OK || (kind = kind_of(p, &m, &layer)) < 0)
            continue;
        p->levels[kind][layer] = (int)loaded[i];
        if (layer >= p->layer_count) p->layer_count = layer + 1;
        if ((int)m.shape.levels > p->most) p->most = (int)m.shape.levels;
    }
    free(loaded);
}

/* The loss left after each block. -1 for lack of memory. */
static int gather_curve(plot *p) {
    int matrices = bitstack_matrix_count(p->stack), blocks = bitstack_block_count(p->stack),
        step = blocks / POINTS + 1;
    double *weight = calloc((size_t)matrices + 1, sizeof *weight),
           *left = calloc((size_t)matrices + 1, sizeof *left), sum = 0, all = 0, size = 0;
    p->x = malloc(((size_t)blocks / (size_t)step + 2) * sizeof *p->x);
    p->y = malloc(((size_t)blocks / (size_t)step + 2) * sizeof *p->y);
    int good = weight && left && p->x && p->y;
    for (int pass = 0; pass < 2 && good && !(all > 0); pass++) /* by size where no sensitivity is known */
        for (int i = 0; i < matrices; i++) {
            bitstack_matrix m;
            if (bitstack_get_matrix(p->stack, i, &m) != BITSTACK_OK) continue;
            weight[i] = pass                ? (double)m.shape.rows * m.shape.cols
                        : m.sensitivity > 0 ? (double)m.sensitivity
                                            : 0;
            left[i] = 1;
            all += weight[i];
        }
    for (sum = all; good && p->points * step < blocks; ) {
        bitstack_block b;
        for (int k = 0; k < step && p->points * step + k < blocks &&
                        bitstack_get_block(p->stack, p->points * step + k, &b) == BITSTACK_OK;
             k++) {
            if (b.rel_err2 > 0)
                sum += weight[b.matrix] * ((double)b.rel_err2 - left[b.matrix]),
                    left[b.matrix] = (double)b.rel_err2, p->known = 1;
            size = (double)b.resident_after / 1e6;
        }
        p->x[p->points] = size;
        p->y[p->points++] = sum / all;
    }
    free(weight), free(left);
    return good ? 0 : -1;
}

/* ---- text ---- */

static void text_curve(const plot *p) {
    enum { WIDE = 72, HIGH = 16 };
    char rows[HIGH][WIDE + 1];
    double low = p->x[0], high = p->x[p->points - 1], top = p->y[0], bottom = p->y[p->points - 1];
    if (!(high > low) || !(top > bottom) || !(bottom > 0)) return;
    for (int r = 0; r < HIGH; r++) memset(rows[r], ' ', WIDE), rows[r][WIDE] = 0;
    int mark = (int)((WIDE - 1) * log((double)p->resident / 1e6 / low) / log(high / low));
    for (int r = 0; r < HIGH && mark >= 0 && mark < WIDE; r++) rows[r][mark] = ':';
    for (int i = 0; i < p->points; i++) {
        int column = (int)((WIDE - 1) * log(p->x[i] / low) / log(high / low)),
            row = (int)((HIGH - 1) * log(top / p->y[i]) / log(top / bottom));
        if (column >= 0 && column < WIDE && row >= 0 && row < HIGH) rows[row][column] = '*';
    }
    printf("loss left of that without any block, and memory; both axes logarithmic\n\n");
    for (int r = 0; r < HIGH; r++) {
        double loss = top * pow(bottom / top, r / (HIGH - 1.0));
        if (r % 5 == 0) printf("%9.2g |%s\n", loss, rows[r]);
        else printf("          |%s\n", rows[r]);
    }
    char left[32], right[32];
    snprintf(left, sizeof left, "%.3g MB", low), snprintf(right, sizeof right, "%.3g MB", high);
    printf("          +%.*s\n           %s%*s\n\n", WIDE,
           "------------------------------------------------------------------------", left,
           WIDE - (int)strlen(left), right);
}

static char level_sign(int level) {
    return level < 0    ? ' '
           : level == 0 ? '.'
           : level < 10 ? (char)('0' + level)
                        : (char)('a' + (level - 10 < 25 ? level - 10 : 25));
}

static void text_map(const plot *p) {
    enum { AT_ONCE = 64 };
    printf("planes at %s (:), %d of %d blocks; columns are layers, . is none\n\n", cli_bytes(p->resident),
           p->blocks, bitstack_block_count(p->stack));
    for (int from = 0; from < p->layer_count; from += AT_ONCE) {
        if (p->layer_count > AT_ONCE)
            printf("%16s layers %d to %d\n", "", from,
                   from + AT_ONCE < p->layer_count ? from + AT_ONCE - 1 : p->layer_count - 1);
        for (int k = 0; k < p->kind_count; k++) {
            printf("%16.16s ", p->kinds[k]);
            for (int l = from; l < p->layer_count && l < from + AT_ONCE; l++)
                putchar(level_sign(p->levels[k][l]));
            putchar('\n');
        }
    }
}

/* ---- pictures ---- */

static void put_escaped(FILE *to, const char *text) {
    for (; *text; text++)
        if (*text == '<') fputs("&lt;", to);
        else if (*text == '&') fputs("&amp;", to);
        else if (*text == '"') fputs("&quot;", to);
        else fputc(*text, to);
}

/* From pale to dark, in hue too, so that neighbours differ on paper and on a screen. */
static void colour_of(int level, int most, char out[8]) {
    static const int stops[5][3] = {
        {238, 241, 245}, {173, 209, 236}, {84, 158, 210}, {34, 96, 166}, {12, 36, 84}};
    double at = most > 0 ? 4.0 * level / most : 0;
    int i = at >= 4 ? 3 : (int)at, rgb[3];
    for (int c = 0; c < 3; c++)
        rgb[c] = (int)(stops[i][c] + (at - i) * (stops[i + 1][c] - stops[i][c]) + 0.5);
    snprintf(out, 8, "#%02x%02x%02x", (unsigned)rgb[0] & 255, (unsigned)rgb[1] & 255, (unsigned)rgb[2] & 255);
}

enum { CELL_HIGH = 22, MAP_LEFT = 130, MAP_TOP = SVG_TOP + SVG_HEIGHT + 100, MAP_WIDTH = 820 };

static int map_height(const plot *p) { return 100 + CELL_HIGH * p->kind_count + 50; }

static void draw_cell(const plot *p, FILE *to, double x, double y, double width, int level) {
    char colour[8];
    colour_of(level, p->most, colour);
    fprintf(
        to,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\" stroke=\"#888\" stroke-width=\".3\"/>",
        x, y, width, CELL_HIGH, colour);
    if (width >= 12)
        fprintf(
            to,
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"11\" style=\"fill:%s\">%d</text>",
            x + width / 2, y + 15, 2 * level > p->most ? "#fff" : "#24292f", level);
}

static void draw_map(const plot *p, FILE *to) {
    double width = (double)MAP_WIDTH / (p->layer_count > 1 ? p->layer_count : 1);
    if (width > 40) width = 40;
    fprintf(to,
            "<text x=\"%d\" y=\"%d\" font-size=\"15\">planes of each matrix at %s, %d of %d blocks</text>\n",
            MAP_LEFT, MAP_TOP - 26, cli_bytes(p->resident), p->blocks, bitstack_block_count(p->stack));
    int every = (int)ceil(26 / width);
    for (int l = 0; l < p->layer_count; l += every)
        fprintf(to, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" font-size=\"10\">%d</text>",
                MAP_LEFT + (l + 0.5) * width, MAP_TOP - 6, l);
    fprintf(to, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-size=\"10\">layer</text>\n", MAP_LEFT - 8,
            MAP_TOP - 6);
    for (int k = 0; k < p->kind_count; k++) {
        double y = MAP_TOP + (double)CELL_HIGH * k;
        fprintf(to, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", MAP_LEFT - 8, y + 15);
        put_escaped(to, p->kinds[k]);
        fputs("</text>", to);
        for (int l = 0; l < p->layer_count; l++)
            if (p->levels[k][l] >= 0) draw_cell(p, to, MAP_LEFT + l * width, y, width, p->levels[k][l]);
        fputc('\n', to);
    }
    double y = MAP_TOP + CELL_HIGH * p->kind_count + 16.0;
    fprintf(to, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">planes</text>", MAP_LEFT - 8, y + 15);
    for (int l = 0; l <= p->most && l < 24; l++) draw_cell(p, to, MAP_LEFT + 24.0 * l, y, 24, l);
    fputc('\n', to);
}

static void draw(plot *p, FILE *to) {
    svg_chart c;
    memset(&c, 0, sizeof c);
    c.x_low = p->x[0] * 0.98, c.x_high = p->x[p->points - 1] * 1.02;
    c.y_low = p->y[p->points - 1] * 0.9, c.y_high = p->y[0] * 1.1;
    if (!p->known || !(c.y_low > 0)) c.y_low = 0.1, c.y_high = 1; /* an empty chart; its title says why */
    svg_begin(&c, to, map_height(p),
              p->known ? "what the order of blocks leaves of the predicted loss"
                       : "the file does not tell its errors",
              "MB in memory", "loss left of that without any block");
    if (p->known) svg_series(&c, "this stack", p->x, p->y, p->points, SVG_THICK);
    double mark = (double)p->resident / 1e6;
    if (mark >= c.x_low && mark <= c.x_high)
        fprintf(
            to,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#cf222e\" stroke-dasharray=\"4 3\"/><text x=\"%.1f\" y=\"%d\">%s</text>\n",
            svg_x(&c, mark), svg_x(&c, mark), SVG_TOP, SVG_TOP + SVG_HEIGHT, svg_x(&c, mark) + 5,
            SVG_TOP + SVG_HEIGHT - 8, cli_bytes(p->resident));
    draw_map(p, to);
    fputs("</svg>\n", to);
}

static void draw_page(plot *p, FILE *to) {
    fputs(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\"><title>",
        to);
    put_escaped(to, p->name);
    fputs(
        "</title>\n<style>body{font-family:sans-serif;max-width:64em;margin:2em auto;padding:0 1em}</style></head>\n<body><h1>",
        to);
    put_escaped(to, p->name);
    fprintf(to, "</h1>\n<p>%d matrices, %d blocks; in memory from %s to %s.</p>\n",
            bitstack_matrix_count(p->stack), bitstack_block_count(p->stack),
            cli_bytes(bitstack_base_bytes(p->stack)), cli_bytes(bitstack_total_bytes(p->stack)));
    draw(p, to);
    fputs("</body></html>\n", to);
}

/* ---- the command ---- */

static int write_picture(plot *p, const char *to) {
    char *part;
    size_t length = strlen(to);
    FILE *file = cli_begin(to, &part);
    if (!file) return CLI_FAILED;
    (length > 5 && strcmp(to + length - 5, ".html") == 0 ? draw_page : draw)(p, file);
    return cli_end(file, part, to);
}

int command_plot(int argc, char **argv) {
    static plot p;
    const char *path, *to = NULL;
    int text = 0;
    const cli_option table[] = {{"-o", CLI_TEXT, &to},
                                {"--text", CLI_FLAG, &text},
                                {"--budget", CLI_SIZE, &p.budget},
                                {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "plot", help, table, &path, 1);
    if (stop) return stop - 1;
    size_t length = to ? strlen(to) : 0;
    if (to && !(length > 4 && strcmp(to + length - 4, ".svg") == 0) &&
        !(length > 5 && strcmp(to + length - 5, ".html") == 0))
        return cli_usage("plot", "-o: expected a name that ends in .svg or .html, got '%s'", to);
    bitstack *stack;
    int status = to ? cli_output(&to) : CLI_OK;
    if (status == CLI_OK && to) status = cli_same_file(path, to);
    if (status == CLI_OK) status = cli_open_unloaded(&stack, path);
    if (status != CLI_OK) return status;
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);
    p.stack = stack;
    snprintf(p.name, sizeof p.name, "%s", cli_plain(path, strlen(path)));
    if (!p.budget) p.budget = base + (total - base) / 2;
    if (bitstack_block_count(stack) == 0) status = cli_failed("%s: there are no blocks to plot", path);
    else if (p.budget < base)
        status = cli_failed("%s: expected --budget of at least %llu bytes, its resident part", path,
                            (unsigned long long)base);
    else if (gather_curve(&p) != 0) status = cli_failed("%s: out of memory", path);
    if (status == CLI_OK) gather_levels(&p);
    if (status == CLI_OK && (text || !to)) {
        if (p.known) text_curve(&p);
        else printf("the file does not tell its errors\n\n");
        text_map(&p);
    }
    if (status == CLI_OK && to) status = write_picture(&p, to);
    free(p.x), free(p.y);
    bitstack_close(stack);
    return status;
}
