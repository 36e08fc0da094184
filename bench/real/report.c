/* report.c - tables and plots from what bench/real/run.sh wrote, and from nothing else.
 *
 *     build/bench/real_report [--check] RESULTS README.md BENCH_README.md
 *
 * Reads RESULTS/real.csv; writes RESULTS/real-TEXT.svg, the part of README.md between "<!-- real" and "<!-- /real -->"
 * (whole models, at the bytes of llama.cpp's files) and that of BENCH_README.md (layer matrices alone, speed). With
 * --check nothing is written; exit status 1 where a part or a plot is not what the file says, byte for byte. */
#include "../svg.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4000, MOST_TEXTS = 6, MOST_METHODS = 12 };

typedef struct row {
    int quality, file, any_size; /* of quality, or of speed; of whole files, or of layer matrices */
    char method[40], setting[48], on[24];
    double bits, disk, memory, perplexity, kl, threads, speed; /* NAN: empty */
    int count;
} row;

static row rows[MOST];
static int count, text_count;
static int shown; /* how many of the texts the table at hand has */
static char texts[MOST_TEXTS][24];

static char *next_field(char **at) {
    char *from = *at, *end = from + strcspn(from, ",\n");
    *at = *end ? end + 1 : end;
    *end = 0;
    return from;
}

static double number(char **at) {
    const char *field = next_field(at);
    return *field ? atof(field) : NAN;
}

static int load(const char *path) {
    char line[1024];
    FILE *f = fopen(path, "r");
    if (!f) return perror(path), 0;
    while (fgets(line, sizeof line, f) && count < MOST) {
        row *r = &rows[count];
        char *at = line;
        const char *kind = next_field(&at);
        r->quality = !strcmp(kind, "quality");
        if (!r->quality && strcmp(kind, "speed") != 0) continue;
        r->file = !strcmp(next_field(&at), "file");
        snprintf(r->method, sizeof r->method, "%s", next_field(&at));
        snprintf(r->setting, sizeof r->setting, "%s", next_field(&at));
        r->any_size = atoi(next_field(&at));
        r->bits = number(&at), r->disk = number(&at), r->memory = number(&at);
        snprintf(r->on, sizeof r->on, "%s", next_field(&at));
        r->count = atoi(next_field(&at));
        r->perplexity = number(&at), r->kl = number(&at), r->threads = number(&at), r->speed = number(&at);
        int known = !r->quality;
        for (int i = 0; i < text_count; i++) known |= !strcmp(texts[i], r->on);
        if (!known && text_count < MOST_TEXTS) snprintf(texts[text_count++], sizeof texts[0], "%s", r->on);
        count++;
    }
    fclose(f);
    return 1;
}

static const row *quality_of(int file, const char *setting, const char *on) {
    for (int i = 0; i < count; i++)
        if (rows[i].quality && rows[i].file == file && !strcmp(rows[i].setting, setting) &&
            !strcmp(rows[i].on, on))
            return &rows[i];
    return NULL;
}

static int ours(const row *r) { return !strcmp(r->method, "BitStack"); }

/* Texts that every run has, first: the others come from ../shared. */
enum { EVERYWHERE = 2 };
static int ranked(void) { return text_count < EVERYWHERE ? text_count : EVERYWHERE; }

/* Product of the divergences on these texts: what a setting is ranked by. NAN where one is missing. */
static double merit(const row *r) {
    double product = 1;
    for (int t = 0; t < ranked(); t++) {
        const row *q = quality_of(r->file, r->setting, texts[t]);
        product *= q ? q->kl : NAN;
    }
    return product;
}

/* Budgets and settings rarely meet to the byte: so much more still counts as the same size. */
static const double SAME = 1.005;

/* The best setting of as many bytes at most among the peers; NULL: there is none. */
static const row *best(int file, double bytes) {
    const row *found = NULL;
    double least = HUGE_VAL;
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i];
        if (!r->quality || r->file != file || ours(r) || r->memory > SAME * bytes ||
            strcmp(r->on, texts[0]) != 0)
            continue;
        double m = merit(r);
        if (m < least) least = m, found = r;
    }
    return found;
}

/* ---- text ---- */
static char text[1 << 17];
static size_t used;
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int more = vsnprintf(text + used, sizeof text - used, format, list);
    va_end(list);
    if (more > 0 && used + (size_t)more < sizeof text) used += (size_t)more;
}

static void say_quality(const row *r) {
    for (int t = 0; t < shown; t++) {
        const row *q = r ? quality_of(r->file, r->setting, texts[t]) : NULL;
        if (!q) say(" |");
        else say(" %.4f (%.1f) |", q->kl, q->perplexity);
    }
}

static int by_memory(const void *a, const void *b) {
    const row *x = *(const row *const *)a, *y = *(const row *const *)b;
    return x->memory < y->memory ? -1 : x->memory > y->memory;
}

/* Rows of a scope on the first text whose method is `method` (NULL: every peer), by memory. */
static int list(const row **out, int file, const char *method) {
    int n = 0;
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i];
        if (!r->quality || r->file != file || strcmp(r->on, texts[0]) != 0 || !strcmp(r->setting, "F16"))
            continue;
        if (method ? !strcmp(r->method, method) : !ours(r)) out[n++] = r;
    }
    qsort(out, (size_t)n, sizeof *out, by_memory);
    return n;
}

/* Where a peer of as many bytes at most is better, by text: any of them, not only the one that is best on the whole. */
static void say_verdict(const row *a) {
    const row *line[MOST];
    int worse = 0, any = 0, n = list(line, a->file, NULL);
    for (int t = 0; t < shown; t++) {
        const row *own = quality_of(a->file, a->setting, texts[t]), *least = NULL;
        for (int i = 0; i < n && line[i]->memory <= SAME * a->memory; i++) {
            const row *q = quality_of(a->file, line[i]->setting, texts[t]);
            if (q && (!least || q->kl < least->kl)) least = q;
        }
        any |= least != NULL;
        if (own && least && own->kl > least->kl)
            say("%s%s (%s)", worse++ ? ", " : " **behind** on ", texts[t], least->setting);
    }
    say(worse ? " |" : any ? " ahead |" : " |");
}

static void say_texts(const char *whose) {
    for (int t = 0; t < shown; t++) say(" %s, %s |", whose, texts[t]);
}

static void say_rule(int columns) {
    say("\n|");
    for (int i = 0; i < columns; i++) say("---|");
    say("\n");
}

static double speed_of(const char *method, const char *setting, const char *what, double threads) {
    for (int i = 0; i < count; i++)
        if (!rows[i].quality && !strcmp(rows[i].method, method) && !strcmp(rows[i].setting, setting) &&
            !strcmp(rows[i].on, what) && rows[i].threads == threads)
            return rows[i].speed;
    return NAN;
}

static double most_threads(void) {
    double most = 1;
    for (int i = 0; i < count; i++)
        if (!rows[i].quality && rows[i].threads > most) most = rows[i].threads;
    return most;
}

static void say_speed(double value) {
    if (isnan(value)) say(" |");
    else say(" %.0f |", value);
}

static void files_table(void) {
    const row *line[MOST];
    double threads = most_threads();
    int n = list(line, 1, "BitStack");
    const row *full = quality_of(1, "F16", texts[0]);
    say("| in memory | bits a weight |"), say_texts("KL (perplexity)"),
        say(" tokens/s | best fixed size in as many bytes |");
    say_texts("its KL (perplexity)"), say(" tokens/s | |"), say_rule(2 * shown + 6);
    for (int i = 0; i < n; i++) {
        if (i && line[i]->memory == line[i - 1]->memory) continue; /* two budgets, the same blocks */
        const row *peer = best(1, line[i]->memory);
        char at[64];
        snprintf(at, sizeof at, "stack-at-%s", peer ? peer->setting : "");
        double own = speed_of("BitStack", line[i]->setting, "decode", threads);
        if (!strncmp(line[i]->setting, "stack-at-", 9))
            snprintf(at, sizeof at, "%s", line[i]->setting),
                own = speed_of("BitStack", at, "decode", threads);
        say("| %.1f MB | %.2f |", line[i]->memory / 1e6, line[i]->bits), say_quality(line[i]), say_speed(own);
        if (peer) say(" %s %s, %.1f MB |", peer->method, peer->setting, peer->memory / 1e6);
        else say(" |");
        say_quality(peer);
        say_speed(peer ? speed_of(peer->method, peer->setting, "decode", threads) : NAN),
            say_verdict(line[i]), say("\n");
    }
    if (full)
        say("| %.1f MB | 16 |", full->memory / 1e6), say_quality(full), say(" | full precision |"),
            say_quality(NULL), say(" | |\n");
    say("\n");
    if (n) say("One file of %.1f MB on disk is all sizes of BitStack. ", line[0]->disk / 1e6);
    say("%d tokens a text; KL in nats a token from full precision; tokens/s: decoding with %.0f thread%s, empty where that "
        "was not measured or the method's kernels are not ours to run.\n",
        full ? full->count : 0, threads, threads > 1 ? "s" : "");
}

static void layers_table(void) {
    const row *line[MOST];
    int n = list(line, 0, "BitStack");
    say("Layer matrices alone, embeddings in half precision; every byte that belongs to the matrices "
        "counted:\n\n");
    say("| bits a weight |"), say_texts("KL (perplexity)"), say(" best fixed size in as many bytes | bits |"),
        say_texts("its KL (perplexity)"), say(" |");
    say_rule(2 * shown + 4);
    for (int i = 0; i < n; i++) {
        const row *peer = best(0, line[i]->memory);
        say("| %.2f |", line[i]->bits), say_quality(line[i]);
        if (peer) say(" %s %s | %.2f |", peer->method, peer->setting, peer->bits);
        else say(" | |");
        say_quality(peer), say_verdict(line[i]), say("\n");
    }
    say("\nEvery fixed size that was measured:\n\n| method | setting | bits a weight |"),
        say_texts("KL (perplexity)"), say_rule(shown + 3);
    for (int i = 0, all = list(line, 0, NULL); i < all; i++)
        say("| %s | %s | %.2f |", line[i]->method, line[i]->setting, line[i]->bits), say_quality(line[i]),
            say("\n");
    say("\nWhole files:\n\n| method | setting | in memory |"), say_texts("KL (perplexity)"),
        say_rule(shown + 3);
    for (int i = 0, all = list(line, 1, NULL); i < all; i++)
        say("| %s | %s | %.1f MB |", line[i]->method, line[i]->setting, line[i]->memory / 1e6),
            say_quality(line[i]), say("\n");
}

static void speed_table(void) {
    static const char *const what[] = {"decode", "prompt-128", "prompt-512", "prompt-2048"};
    int any = 0;
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i];
        if (r->quality || strcmp(r->method, "llama.cpp") != 0 || strcmp(r->on, "decode") != 0) continue;
        if (!any++) {
            say("\nTokens a second at equal bytes, BitStack / llama.cpp's own bench, by turns on one "
                "machine:\n\n| llama.cpp's file | bytes | threads |");
            for (int w = 0; w < 4; w++) say(" %s |", what[w]);
            say_rule(7);
        }
        char at[64];
        snprintf(at, sizeof at, "stack-at-%.48s", r->setting);
        say("| %s | %.1f MB | %.0f |", r->setting, r->memory / 1e6, r->threads);
        for (int w = 0; w < 4; w++) {
            double a = speed_of("BitStack", at, what[w], r->threads),
                   b = speed_of("llama.cpp", r->setting, what[w], r->threads);
            if (isnan(a) || isnan(b)) say(" |");
            else say(" %.0f / %.0f |", a, b);
        }
        say("\n");
    }
}

/* ---- plots: at most seven lines ---- */
static int has_chart(int file, const char *on) {
    int points = 0;
    for (int i = 0; i < count; i++)
        points += rows[i].quality && rows[i].file == file && !strcmp(rows[i].on, on) && rows[i].kl > 0;
    return points > 1;
}

static void say_chart(const char *where, int file, const char *on) {
    if (has_chart(file, on))
        say("\n![divergence from full precision, %s](%sreal-%s-%s.svg)\n", on, where,
            file ? "file" : "layers", on);
}

static int chart(const char *path, int file, const char *on) {
    static const char *const methods[] = {"BitStack",
                                          "llama.cpp",
                                          "ggml K types",
                                          "ggml IQ types",
                                          "GPTQ g128 act-order",
                                          "GPTQ mixed bits",
                                          "BitStack as published"};
    const row *line[MOST];
    svg_chart c;
    double low = HUGE_VAL, high = 0, y_low = HUGE_VAL, y_high = 0, x[MOST], y[MOST];
    char title[120];
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i];
        if (!r->quality || r->file != file || strcmp(r->on, on) != 0 || !(r->kl > 0)) continue;
        double v = file ? r->memory / 1e6 : r->bits;
        low = fmin(low, v), high = fmax(high, v), y_low = fmin(y_low, r->kl), y_high = fmax(y_high, r->kl);
    }
    c.x_low = low / 1.02, c.x_high = high * 1.02, c.y_low = y_low / 1.15, c.y_high = fmin(y_high, 4) * 1.15;
    snprintf(title, sizeof title, "Divergence from full precision on \"%s\", %s", on,
             file ? "whole model" : "layer matrices alone");
    if (!svg_open(&c, path, title, file ? "MB in memory" : "bits a weight", "KL, nats a token"))
        return perror(path), 0;
    /* the frontier: what no other peer of no more bytes beats */
    int n = list(line, file, NULL), points = 0;
    double least = HUGE_VAL;
    for (int i = 0; i < n; i++) {
        const row *q = quality_of(file, line[i]->setting, on);
        if (q && q->kl > 0 && q->kl < least)
            least = q->kl, x[points] = file ? q->memory / 1e6 : q->bits, y[points++] = q->kl;
    }
    svg_series(&c, "best of the fixed sizes", x, y, points, SVG_FRONTIER);
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        n = list(line, file, methods[m]), points = 0;
        for (int i = 0; i < n; i++) {
            const row *q = quality_of(file, line[i]->setting, on);
            if (q && q->kl > 0) x[points] = file ? q->memory / 1e6 : q->bits, y[points++] = q->kl;
        }
        if (points)
            svg_series(&c, m ? methods[m] : "BitStack, one file", x, y, points, m ? SVG_DOTS : SVG_THICK);
    }
    return svg_close(&c);
}

/* ---- files ---- */
static char *slurp(const char *path) {
    FILE *f = fopen(path, "rb");
    char *all = calloc(1, 1 << 20);
    if (!f || !all || !fread(all, 1, (1 << 20) - 1, f)) return perror(path), NULL;
    fclose(f);
    return all;
}

/* Puts `text` between the marks, or compares. */
static int place(const char *path, int check) {
    char *page = slurp(path), *from = page ? strstr(page, "<!-- real") : NULL,
         *to = from ? strstr(from, "<!-- /real -->") : NULL;
    int good = 0;
    if (!to) fprintf(stderr, "%s: expected the marks \"<!-- real\" and \"<!-- /real -->\"\n", path);
    else {
        from = strchr(from, '\n') + 1;
        good = (size_t)(to - from) == used && !memcmp(from, text, used);
        if (check && !good)
            fprintf(stderr, "%s: the part of the real model is not what real.csv says: make readme\n", path);
        if (!check) {
            FILE *f = fopen(path, "wb");
            good = f && fwrite(page, 1, (size_t)(from - page), f) == (size_t)(from - page) &&
                   fwrite(text, 1, used, f) == used && fputs(to, f) >= 0;
            if (f) fclose(f);
        }
    }
    free(page);
    return good;
}

static int same_files(const char *a, const char *b) {
    char *x = slurp(a), *y = slurp(b);
    int same = x && y && !strcmp(x, y);
    free(x), free(y);
    return same;
}

int main(int argc, char **argv) {
    int check = argc > 1 && !strcmp(argv[1], "--check"), good = 1;
    char path[512], trial[520];
    if (argc - check != 4)
        return fprintf(stderr, "usage: real_report [--check] RESULTS README.md BENCH_README.md\n"), 2;
    argv += check;
    snprintf(path, sizeof path, "%s/real.csv", argv[1]);
    if (!load(path)) return 1;
    if (!text_count) return fprintf(stderr, "%s: no rows\n", path), 1;
    shown = ranked();
    files_table();
    for (int t = 0; t < shown; t++) say_chart("bench/results/", 1, texts[t]);
    good &= place(argv[2], check);
    used = 0, shown = text_count;
    layers_table(), speed_table();
    for (int t = 0; t < text_count; t++) say_chart("results/", 0, texts[t]);
    good &= place(argv[3], check);
    for (int t = 0; t < text_count; t++)
        for (int file = 0; file < 2; file++) {
            if (!has_chart(file, texts[t])) continue;
            snprintf(path, sizeof path, "%s/real-%s-%s.svg", argv[1], file ? "file" : "layers", texts[t]);
            snprintf(trial, sizeof trial, "%s.new", path);
            if (!chart(check ? trial : path, file, texts[t])) good = 0;
            else if (check && !same_files(trial, path))
                good = 0, fprintf(stderr, "%s: not what real.csv says: make readme\n", path);
            if (check) remove(trial);
        }
    return !good;
}
