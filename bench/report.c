/* report.c - plots and tables from what compare wrote.
 *
 *     build/bench/report [--check] RESULTS BENCH_README.md PEERS_README.md
 *
 * Reads RESULTS/compare-demo.csv and RESULTS/compare-4096.csv, writes RESULTS/compare-*.svg, and puts tables
 * between the marks "<!-- table" and "<!-- /table -->" of both files. With --check nothing is written; exit
 * status 1 if a file's table differs in structure (lines, columns, first column), whatever its figures. */
#include "svg.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 600, MOST_METHODS = 40 };

typedef struct entry {
    int large, any_size, method; /* method: index into names */
    char setting[40];
    double bits, bytes, perplexity, kl, error, encode, gemv, tokens; /* NAN: empty */
} entry;

static entry entries[MOST];
static int count, methods;
static char names[MOST_METHODS][64];

/* The next field of a CSV line; quotes are taken off. */
static const char *next_field(char **at) {
    char *from = *at, *end;
    if (*from == '"') {
        end = strchr(++from, '"');
        *end++ = 0;
    } else end = from + strcspn(from, ",\n");
    *at = *end ? end + 1 : end;
    *end = 0;
    return from;
}
static double number(char **at) {
    const char *text = next_field(at);
    return *text ? atof(text) : NAN;
}
static int load(const char *path) {
    char line[1024];
    FILE *file = fopen(path, "r");
    if (!file) return perror(path), 0;
    while (fgets(line, sizeof line, file) && count < MOST) {
        entry *e = &entries[count];
        char *at = line;
        if (*line == '#' || !strncmp(line, "where,", 6)) continue;
        e->large = !strcmp(next_field(&at), "4096");
        const char *method = next_field(&at);
        for (e->method = 0; e->method < methods && strcmp(names[e->method], method) != 0; e->method++) {}
        if (e->method == methods && methods < MOST_METHODS) snprintf(names[methods++], sizeof names[0], "%s", method);
        snprintf(e->setting, sizeof e->setting, "%s", next_field(&at));
        e->any_size = (int)number(&at);
        e->bits = number(&at), e->bytes = number(&at), e->perplexity = number(&at), e->kl = number(&at), e->error = number(&at);
        e->encode = number(&at), e->gemv = number(&at), e->tokens = number(&at);
        count++;
    }
    fclose(file);
    return 1;
}

/* --------------------------------------------------------------------------------------- charts */
typedef double measure(const entry *e);
static double kl_of(const entry *e) { return e->kl; }
static double perplexity_of(const entry *e) { return e->perplexity; }
static double error_of(const entry *e) { return e->error; }
static double encode_of(const entry *e) { return e->encode; }

static int ours(int method) { return !strcmp(names[method], "BitStack nested"); }
static int file(int method) { return !strcmp(names[method], "BitStack, embeddings coded too"); } /* other weights, too */
static int by_bytes(const void *a, const void *b) {
    const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Lines of a chart: with the frontier, no more than seven. */
static const char *const shown[] = {"BitStack nested", "BitStack, embeddings coded too", "BitStack as published, rank 1",
                                    "GPTQ g128 act-order, searched grid", "GPTQ g32", "llama.cpp K types"};

/* Points of a method (-1: of every one that is not ours) in order of size. */
static int points_of(int method, int large, measure *value, double most, double *x, double *y) {
    const entry *line[MOST];
    int points = 0;
    for (int i = 0; i < count; i++) {
        const entry *e = &entries[i];
        double v = value(e);
        if ((method < 0 ? !ours(e->method) && !file(e->method) : e->method == method) && e->large == large && v > 0 && !(most > 0 && v > most) &&
            e->bits <= 9) line[points++] = e;
    }
    qsort(line, (size_t)points, sizeof *line, by_bytes);
    for (int i = 0; i < points; i++) x[i] = line[i]->bytes, y[i] = value(line[i]);
    return points;
}

/* One chart of what has a value; y values above `most` are left out (0: none). Ours first, but for the frontier: what
 * no other of no more bytes beats. */
static int chart(const char *directory, const char *name, int large, measure *value, double most, const char *title, const char *y_title) {
    svg_chart c;
    char path[600];
    double x[MOST], y[MOST], x_low = HUGE_VAL, x_high = 0, y_low = HUGE_VAL, y_high = 0, least = HUGE_VAL;
    for (int m = -1; m < methods; m++)
        for (int i = 0, n = points_of(m, large, value, most, x, y); i < n; i++) {
            x_low = fmin(x_low, x[i]), x_high = fmax(x_high, x[i]);
            y_low = fmin(y_low, y[i]), y_high = fmax(y_high, y[i]);
        }
    if (!(x_high > x_low)) return 1;
    c.x_low = x_low / 1.03, c.x_high = x_high * 1.03, c.y_low = y_low / 1.08, c.y_high = y_high * 1.08;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (!svg_open(&c, path, title, large ? "bytes of the matrix" : "bytes of the whole model in memory", y_title)) return perror(path), 0;
    int all = points_of(-1, large, value, most, x, y), kept = 0;
    for (int i = 0; i < all; i++)
        if (y[i] < least) least = y[i], x[kept] = x[i], y[kept++] = y[i];
    svg_series(&c, "best of the others", x, y, kept, SVG_FRONTIER);
    for (size_t k = 0; k < sizeof shown / sizeof *shown; k++)
        for (int m = 0; m < methods; m++) {
            int n = strcmp(names[m], shown[k]) ? 0 : points_of(m, large, value, most, x, y);
            if (n) svg_series(&c, names[m], x, y, n, (ours(m) || file(m)) && !large ? SVG_THICK : SVG_DOTS);
        }
    return svg_close(&c);
}

/* --------------------------------------------------------------------------------------- tables */
static char text[1 << 16];
static size_t used;
static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int more = vsnprintf(text + used, sizeof text - used, format, list);
    va_end(list);
    if (more > 0 && used + (size_t)more < sizeof text) used += (size_t)more;
}

/* Sizes that methods really have: 2, 3 ... bits and a scale and zero point a group of 128. */
static const double sizes[] = {1.2, 1.7, 2.15, 2.65, 3.17, 3.6, 4.17, 4.6, 5.18, 6.2};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* The best in no more bits, `kind` 0 all, 1 ours, 2 all but ours; NULL: nobody. */
static const entry *best(int large, double bits, measure *value, int kind) {
    const entry *found = NULL;
    for (int i = 0; i < count; i++) {
        const entry *e = &entries[i];
        double v = value(e);
        if (e->large != large || isnan(v) || file(e->method) || e->bits > bits + 1e-6 || (kind == 1 && !ours(e->method)) || (kind == 2 && ours(e->method))) continue;
        if (!found || v < value(found)) found = e;
    }
    return found;
}

static void size_table(int large) {
    measure *quality = large ? error_of : kl_of;
    const char *format = large ? "%.2g" : "%.4f";
    say("| bits a weight | BitStack nested, %s | bits | best of the others in no more bits | its bits | |\n|---|---|---|---|---|---|\n",
        large ? "output error" : "KL (nats a token)");
    for (int s = 0; s < SIZES; s++) {
        const entry *us = best(large, sizes[s], quality, 1), *them = us ? best(large, us->bits, quality, 2) : NULL;
        if (!us) continue;
        say("| %g | ", sizes[s]), say(format, quality(us)), say(" | %.2f |", us->bits);
        if (them) say(" %s: ", names[them->method]), say(format, quality(them)), say(" | %.2f | %s |\n", them->bits, quality(them) < quality(us) ? "**behind**" : "ahead");
        else say(" | | |\n");
    }
}

/* Tokens a second are told of BitStack's kernels only: the peers' here are stand-ins for their makers' own. */
static int own_kernels(const entry *e) { return !strncmp(names[e->method], "BitStack", 8) || !strncmp(names[e->method], "full", 4); }

static void every_setting(int large) {
    say(large ? "| setting | method | bits | output error | encode, processor s | GEMV ms, cold |\n|---|---|---|---|---|---|\n"
              : "| setting | method | bits | bytes of the model | perplexity | KL | output error | encode, processor s | tokens/s |\n"
                "|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < count; i++) {
        const entry *e = &entries[i];
        if (e->large != large || (e->any_size && !large && i % 4)) continue; /* every fourth of the many budgets */
        say("| %s | %s | %.3f |", e->setting, names[e->method], e->bits);
        if (!large) say(" %.0f | %.2f | %.5f |", e->bytes, e->perplexity, e->kl);
        if (isnan(e->error)) say(" |");
        else say(" %.5f |", e->error);
        if (isnan(e->encode)) say(" |");
        else say(" %.1f |", e->encode);
        if (isnan(large ? e->gemv : e->tokens) || !own_kernels(e)) say(" |\n");
        else say(large ? " %.3f |\n" : " %.0f |\n", large ? e->gemv : e->tokens);
    }
}

/* For bench/README.md: the model at some sizes, and the best fixed-size coding in no more bytes. */
static void front_table(void) {
    const entry *full = NULL;
    for (int i = 0; i < count; i++)
        if (!strcmp(entries[i].setting, "f32")) full = entries[i].large ? full : &entries[i];
    say("| bits a weight | bytes | BitStack, one file: perplexity / KL | best other in no more bytes: perplexity / KL | |\n|---|---|---|---|---|\n");
    for (int s = 0; s < SIZES; s++) {
        const entry *us = best(0, sizes[s], kl_of, 1), *them = us ? best(0, us->bits, kl_of, 2) : NULL;
        if (!us) continue;
        say("| %.2f | %.2f MB | %.1f / %.4f |", us->bits, us->bytes / 1e6, us->perplexity, us->kl);
        if (them) say(" %s: %.1f / %.4f | %s |\n", names[them->method], them->perplexity, them->kl, them->kl < us->kl ? "**behind**" : "ahead");
        else say(" | |\n");
    }
    if (full) say("| 32 (full) | %.2f MB | %.1f / 0 | | |\n", full->bytes / 1e6, full->perplexity);
}

/* ------------------------------------------------------------------------------------ into files */
static char *read_all(const char *path) {
    FILE *file = fopen(path, "r");
    char *data = calloc(1, 1 << 18);
    if (!file || !data) return perror(path), exit(1), NULL;
    if (fread(data, 1, (1 << 18) - 1, file) == 0) data[0] = 0;
    fclose(file);
    return data;
}
/* Lines, columns, and the first column are the structure. */
static int same_structure(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    size_t i = 0, j = 0;
    while (i < a_bytes && j < b_bytes) {
        const char *p = a + i, *q = b + j;
        size_t n = strcspn(p, "\n"), m = strcspn(q, "\n"), bars = 0;
        if ((*p == '|') != (*q == '|')) return 0;
        for (size_t k = 0; k < n && *p == '|'; k++) bars += p[k] == '|';
        for (size_t k = 0; k < m && *q == '|'; k++) bars -= q[k] == '|';
        if (bars) return 0;
        if (*p == '|' && (strcspn(p + 1, "|") != strcspn(q + 1, "|") || strncmp(p, q, 1 + strcspn(p + 1, "|")) != 0)) return 0;
        i += n + 1, j += m + 1;
    }
    return (i >= a_bytes) == (j >= b_bytes);
}
static int place(const char *path, int check) {
    char *data = read_all(path), *begin = strstr(data, "<!-- table"), *end = begin ? strstr(begin, "<!-- /table -->") : NULL;
    int good = 1;
    if (!end) return fprintf(stderr, "report: %s has no marks for a table\n", path), free(data), 0;
    begin += strcspn(begin, "\n") + 1;
    if (check) {
        good = same_structure(begin, (size_t)(end - begin), text, used);
        if (!good) fprintf(stderr, "report: the table in %s is not what the results give; run make readme\n", path);
    } else {
        FILE *file = fopen(path, "w");
        good = file && fwrite(data, 1, (size_t)(begin - data), file) == (size_t)(begin - data) && fwrite(text, 1, used, file) == used &&
               fputs(end, file) >= 0;
        if (!file || fclose(file) || !good) perror(path), good = 0;
    }
    free(data);
    return good;
}

int main(int argc, char **argv) {
    int check = argc > 1 && !strcmp(argv[1], "--check");
    char path[600];
    if (argc != 4 + check) return fprintf(stderr, "usage: report [--check] RESULTS BENCH_README.md PEERS_README.md\n"), 2;
    argv += check;
    for (int large = 0; large < 2; large++) {
        snprintf(path, sizeof path, "%s/compare-%s.csv", argv[1], large ? "4096" : "demo");
        if (!load(path)) return 1;
    }
    if (!check &&
        (!chart(argv[1], "compare-kl.svg", 0, kl_of, 1, "Demo model: divergence from full precision on held-out text", "KL, nats a token") ||
         !chart(argv[1], "compare-perplexity.svg", 0, perplexity_of, 130, "Demo model: perplexity on held-out text", "perplexity") ||
         !chart(argv[1], "compare-error.svg", 0, error_of, 1, "Demo model: output error of its matrices", "tr(D H D') / tr(W H W')") ||
         !chart(argv[1], "compare-4096-error.svg", 1, error_of, 1, "4096 x 4096: output error", "tr(D H D') / tr(W H W')") ||
         !chart(argv[1], "compare-4096-encode.svg", 1, encode_of, 0, "4096 x 4096: encoding", "seconds of processor time")))
        return 1;
    front_table();
    int good = place(argv[2], check);
    used = 0;
    say("\n### Who is best at which size: the demo model\n\n"), size_table(0);
    say("\n### The same on a synthetic 4096 x 4096 matrix\n\n"), size_table(1);
    say("\n### Every setting: the demo model\n\n"), every_setting(0);
    say("\n### Every setting: 4096 x 4096\n\n"), every_setting(1);
    say("\n");
    return good & place(argv[3], check) ? 0 : 1;
}
