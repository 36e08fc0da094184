/* bitstack plot: what each byte of a stack buys, and which matrices a budget gives how many planes, as a picture or as
 * text. Without a text to measure on only tables are read: the errors are those that the compressor wrote beside the
 * blocks. */
#include "cli.h"
#include "measure.h"
#include "../../bench/svg.h"
#include "../llm/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack plot FILE [-o OUT.svg|OUT.html] [--terminal] [--budget SIZE]\n"
    "                     [--text T [--against MODEL] [--budgets 3MB,4MB,...] [--length TOKENS] [--threads N]]\n\n"
    "Two pictures of a stack, from its own tables: the loss that is left at each memory size, by the order of its blocks\n"
    "and the errors that the compressor wrote there; and the planes of each matrix, by layer and kind, at a budget.\n"
    "The loss is a sum over matrices, each error weighted with its sensitivity, as the compressor predicted it: the shape\n"
    "of the curve means something; with a text to measure on, that is drawn first.\n\n"
    "  -o OUT             an SVG file, or a page with it\n"
    "  --terminal         on the terminal, too; alone without -o\n"
    "  --budget SIZE      of the planes; half way from nothing to all\n"
    "  --text T           measures the model on this text, at some sizes: perplexity\n"
    "  --against MODEL    with --text: divergence from this model (nats a token), not perplexity\n"
    "  --budgets A,B,...  with --text: the sizes, at most 24; else six down to a third of all\n"
    "  --length TOKENS    with --text: so many of it, in rows of 256; 4096\n"
    "  --threads N        with --text\n";

enum { MOST_KINDS = 12, MOST_LAYERS = 512, POINTS = 400, MEASURED = 24, SIZES = 6, ROW = 256 };

typedef struct plot {
    const bitstack *stack;
    char name[256];
    uint64_t budget, resident; /* resident: with what the budget loads */
    int blocks, known;         /* of the budget; whether errors are known */
    double *x, *y;             /* megabytes and loss: where blocks end, at most POINTS of them */
    int points;
    const char *measure;               /* what was measured, NULL: nothing */
    double size[MEASURED], quality[MEASURED]; /* megabytes and that, in order of size */
    int measured;
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

/* A line of signs through points in order of x, all positive; `mark` is a memory size. */
static void text_curve(const char *title, const double *x, const double *y, int points, double mark) {
    enum { WIDE = 72, HIGH = 16 };
    char rows[HIGH][WIDE + 1];
    double low = x[0], high = x[points - 1], top = y[0], bottom = y[0];
    for (int i = 0; i < points; i++) top = fmax(top, y[i]), bottom = fmin(bottom, y[i]);
    if (!(high > low) || !(top > bottom) || !(bottom > 0)) return;
    for (int r = 0; r < HIGH; r++) memset(rows[r], ' ', WIDE), rows[r][WIDE] = 0;
    int at = (int)((WIDE - 1) * log(mark / low) / log(high / low));
    for (int r = 0; r < HIGH && mark >= low && at < WIDE; r++) rows[r][at] = ':';
    for (int pass = 0; pass < 2; pass++) /* lines between points, then points */
        for (int i = pass ? 0 : 1; i < points; i++)
            for (int k = 1; k <= (pass ? 1 : WIDE); k++) {
                double part = pass ? 1 : (double)k / WIDE, from = i ? log(x[i - 1]) : 0, before = i ? log(y[i - 1]) : 0;
                double right = pass ? log(x[i]) : from + part * (log(x[i]) - from),
                       up = pass ? log(y[i]) : before + part * (log(y[i]) - before);
                int column = (int)((WIDE - 1) * (right - log(low)) / log(high / low) + 1e-9),
                    row = (int)((HIGH - 1) * (log(top) - up) / log(top / bottom) + 1e-9);
                if (column >= 0 && column < WIDE && row >= 0 && row < HIGH) rows[row][column] = pass ? '*' : '.';
            }
    printf("%s, and memory; both axes logarithmic\n\n", title);
    for (int r = 0; r < HIGH; r++) {
        double value = top * pow(bottom / top, r / (HIGH - 1.0));
        if (r % 5 == 0) printf("%9.2g |%s\n", value, rows[r]);
        else printf("          |%s\n", rows[r]);
    }
    char left[32], right[32];
    snprintf(left, sizeof left, "%.3g MB", low), snprintf(right, sizeof right, "%.3g MB", high);
    printf("          +%.*s\n           %s%*s\n\n", WIDE,
           "------------------------------------------------------------------------", left,
           WIDE - (int)strlen(left), right);
}

static void text_measured(const plot *p) {
    text_curve(p->measure, p->size, p->quality, p->measured, (double)p->resident / 1e6);
    for (int i = 0; i < p->measured; i++) printf("%10.2f MB %12.4f\n", p->size[i], p->quality[i]);
    putchar('\n');
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

enum { CELL_HIGH = 22, MAP_LEFT = 130, MAP_TOP = SVG_TOP + SVG_HEIGHT + 100, MAP_WIDTH = 820, CHART_HIGH = SVG_TOP + SVG_HEIGHT + 70 };

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

static void draw_mark(const plot *p, const svg_chart *c) {
    double mark = (double)p->resident / 1e6;
    if (mark >= c->x_low && mark <= c->x_high)
        fprintf(
            c->to,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#cf222e\" stroke-dasharray=\"4 3\"/><text x=\"%.1f\" y=\"%d\">%s</text>\n",
            svg_x(c, mark), svg_x(c, mark), SVG_TOP, SVG_TOP + SVG_HEIGHT, svg_x(c, mark) + 5,
            SVG_TOP + SVG_HEIGHT - 8, cli_bytes(p->resident));
}

/* The first chart of a file begins it, with room for `below` more; others stand where the group around them is. */
static void begin_chart(svg_chart *c, FILE *to, int below, const char *title, const char *y_title) {
    if (below) svg_begin(c, to, below, title, "MB in memory", y_title);
    else {
        c->to = to, c->series = c->colours = c->labels = 0;
        svg_axes(c, title, "MB in memory", y_title);
    }
}

static void draw_measured(plot *p, FILE *to, int below) {
    svg_chart c;
    char title[80];
    double low = p->quality[0], high = low;
    for (int i = 0; i < p->measured; i++) low = fmin(low, p->quality[i]), high = fmax(high, p->quality[i]);
    memset(&c, 0, sizeof c);
    c.x_low = p->size[0] * 0.96, c.x_high = p->size[p->measured - 1] * 1.04;
    c.y_low = low * 0.95, c.y_high = high * 1.05;
    snprintf(title, sizeof title, "%s on the text given", p->measure);
    begin_chart(&c, to, below, title, p->measure);
    svg_series(&c, "this stack", p->size, p->quality, p->measured, SVG_DOTS);
    draw_mark(p, &c);
}

static void draw_loss(plot *p, FILE *to, int below) {
    svg_chart c;
    memset(&c, 0, sizeof c);
    c.x_low = p->x[0] * 0.98, c.x_high = p->x[p->points - 1] * 1.02;
    c.y_low = p->y[p->points - 1] * 0.9, c.y_high = p->y[0] * 1.1;
    if (!p->known || !(c.y_low > 0)) c.y_low = 0.1, c.y_high = 1; /* an empty chart; its title says why */
    begin_chart(&c, to, below,
                p->known ? "what the order of blocks leaves of the predicted loss"
                         : "the file does not tell its errors",
                "loss left of that without any block");
    if (p->known) svg_series(&c, "this stack", p->x, p->y, p->points, SVG_THICK);
    draw_mark(p, &c);
}

static void draw(plot *p, FILE *to) {
    if (p->measured) {
        draw_measured(p, to, map_height(p) + CHART_HIGH);
        fprintf(to, "<g transform=\"translate(0 %d)\">\n", CHART_HIGH);
        draw_loss(p, to, 0);
    } else draw_loss(p, to, map_height(p));
    draw_map(p, to);
    fputs(p->measured ? "</g>\n</svg>\n" : "</svg>\n", to);
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

/* ---- what is measured ---- */

typedef struct measuring {
    const char *text, *against, *budgets;
    uint32_t length, threads;
    llm_model model, full;
    llm_reference reference;
    llm_rows rows;
    int compares;
} measuring;

/* The sizes that were asked for, or from all down to a third of it by equal factors; in order. */
static int choose_sizes(uint64_t *sizes, const measuring *m, uint64_t least, uint64_t all) {
    int count = 0;
    for (const char *at = m->budgets; at && count < MEASURED; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        cli_size(at, strcspn(at, ","), &sizes[count++]);
    for (int i = 0; !m->budgets && i < SIZES; i++) {
        uint64_t size = (uint64_t)((double)all * pow(3, -(SIZES - 1.0 - i) / (SIZES - 1)));
        if (size > least) sizes[count++] = size;
    }
    for (int i = 1; i < count; i++)
        for (int k = i; k > 0 && sizes[k] < sizes[k - 1]; k--) {
            uint64_t size = sizes[k];
            sizes[k] = sizes[k - 1], sizes[k - 1] = size;
        }
    return count;
}

static int measure_at(plot *p, measuring *m, const char *path, uint64_t budget) {
    bitstack *stack = m->model.source.stack;
    bitstack_error error;
    llm_quality q;
    cli_progress progress = {"measuring", 0, 0, 0, 0};
    memset(&error, 0, sizeof error);
    bitstack_result result = bitstack_set_budget(stack, budget, &error);
    if (result != BITSTACK_OK) return cli_failed_at(path, result, &error);
    double size = (double)bitstack_resident_bytes(stack) / 1e6;
    if (p->measured && size <= p->size[p->measured - 1]) return CLI_OK; /* the same blocks */
    if (llm_evaluate(&m->model, m->compares ? &m->reference : NULL, &m->rows, (int)m->threads, cli_show, &progress, &q) != 0)
        return cli_failed("%s: out of memory", path);
    cli_progress_end(&progress);
    p->size[p->measured] = size;
    p->quality[p->measured++] = m->compares ? fmax(q.kl, 1e-9) : exp(q.nll); /* of an axis that has no zero */
    return CLI_OK;
}

/* Fills in what was measured of the model in `path`. */
static int measure(plot *p, measuring *m, const char *path) {
    uint64_t sizes[MEASURED];
    llm_error error;
    llm_model_options load;
    memset(&load, 0, sizeof load);
    load.threads = m->threads ? (int)m->threads : 1;
    load.unpack_bytes = (uint64_t)2 << 30;
    if (llm_model_open(&m->model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    const uint32_t context = m->model.config.context < ROW ? m->model.config.context : ROW;
    int status = measure_rows(&m->rows, &m->model, m->text, 0, NULL, context, (m->length + context - 1) / context);
    if (status == CLI_OK && m->against) {
        m->compares = llm_model_open(&m->full, m->against, &load, &error) == 0;
        if (!m->compares) status = cli_failed("%s", error.message);
        else if (m->full.config.vocabulary != m->model.config.vocabulary)
            status = cli_failed("%s: expected %u tokens, it has %u", m->against, m->model.config.vocabulary,
                                m->full.config.vocabulary);
    }
    m->reference.model = &m->full;
    int count = choose_sizes(sizes, m, bitstack_base_bytes(p->stack), bitstack_total_bytes(p->stack));
    for (int i = 0; i < count && status == CLI_OK; i++) status = measure_at(p, m, path, sizes[i]);
    p->measure = m->compares ? "divergence from full precision, nats a token" : "perplexity";
    llm_rows_free(&m->rows);
    free(m->reference.logits);
    if (m->compares) llm_model_close(&m->full);
    llm_model_close(&m->model);
    return status;
}

/* ---- the command ---- */

static int check_measuring(const measuring *m) {
    int count = 0;
    if (!m->text && (m->against || m->budgets)) return cli_usage("plot", "--against and --budgets need --text");
    if (m->length < 2 || m->length > 1 << 24) return cli_usage("plot", "--length: expected 2 to 16777216");
    for (const char *at = m->budgets; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL, count++) {
        uint64_t bytes;
        if (cli_size(at, strcspn(at, ","), &bytes) != 0 || count == MEASURED)
            return cli_usage("plot", "--budgets: expected at most %d sizes such as 3MB,4MB, got '%s'", (int)MEASURED,
                             m->budgets);
    }
    return CLI_OK;
}

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
    static measuring m;
    const char *path, *to = NULL;
    int terminal = 0;
    m.length = 4096, m.threads = (uint32_t)llm_processors();
    const cli_option table[] = {{"-o", CLI_TEXT, &to},
                                {"--terminal", CLI_FLAG, &terminal},
                                {"--budget", CLI_SIZE, &p.budget},
                                {"--text", CLI_TEXT, &m.text},
                                {"--against", CLI_TEXT, &m.against},
                                {"--budgets", CLI_TEXT, &m.budgets},
                                {"--length", CLI_WHOLE, &m.length},
                                {"--threads", CLI_WHOLE, &m.threads},
                                {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "plot", help, table, &path, 1);
    if (stop) return stop - 1;
    if (check_measuring(&m) != CLI_OK) return CLI_USAGE;
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
    if (status == CLI_OK && m.text) status = measure(&p, &m, path);
    if (status == CLI_OK && (terminal || !to)) {
        if (p.measured) text_measured(&p);
        if (p.known) text_curve("loss left of that without any block", p.x, p.y, p.points, (double)p.resident / 1e6);
        else printf("the file does not tell its errors\n\n");
        text_map(&p);
    }
    if (status == CLI_OK && to) status = write_picture(&p, to);
    free(p.x), free(p.y);
    bitstack_close(stack);
    return status;
}
