/* compare.c - BitStack beside what people would use instead, on the same matrices, machine and bytes.
 *
 *     build/bench/compare demo OUT.csv [SHARED] [NAME]      the demo model: perplexity, KL, output error, tokens/s
 *     build/bench/compare stack OUT.csv SHARED FILE         the same of a stack file of the demo model, at many budgets
 *     build/bench/compare 4096 OUT.csv [NAME]               a synthetic 4096 x 4096 matrix: error, encode and GEMV time
 *
 * NAME: only settings whose name begins so. Rows that OUT.csv has already are kept and not measured again, so
 * a run can be cut off and go on. bench/report.c makes plots and tables of it, bench/peers/README.md explains. */
#include "bench.h"
#include "demo.h"
#include "llm/parallel.h"
#include "peers/peer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char header[] = "where,method,setting,any_size,bits,bytes,perplexity,kl,output_error,encode_cpu_s,gemv_ms,tokens_s\n";
static FILE *csv;
static char *before; /* what the file held */
static int threads;

/* One row; NAN is left empty. */
typedef struct result {
    double bits, perplexity, kl, error, encode, gemv, tokens;
    uint64_t bytes;
} result;

static void field(double value) {
    if (isnan(value)) fprintf(csv, ",");
    else fprintf(csv, ",%.6g", value);
}
static void write_row(const char *where, const char *method, const char *setting, int any_size, const result *r) {
    fprintf(csv, "%s,\"%s\",%s,%d,%.4f,%llu", where, method, setting, any_size, r->bits, (unsigned long long)r->bytes);
    field(r->perplexity), field(r->kl), field(r->error), field(r->encode), field(r->gemv), field(r->tokens);
    fprintf(csv, "\n");
    fflush(csv);
    printf("%-8s %-34s %-20s %6.3f bits  ppl %8.3f  KL %.5f  error %.6f  encode %.1f s  gemv %.3f ms  %.0f tokens/s\n", where, method,
           setting, r->bits, r->perplexity, r->kl, r->error, r->encode, r->gemv, r->tokens);
    fflush(stdout);
}
static int known(const char *where, const char *setting) {
    char text[128];
    size_t length = strlen(where);
    snprintf(text, sizeof text, "\",%s,", setting);
    for (const char *at = before; at && (at = strstr(at, text)) != NULL; at++) { /* in a line that begins with `where` */
        const char *line = at;
        while (line > before && line[-1] != '\n') line--;
        if (!strncmp(line, where, length) && line[length] == ',') return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------ demo model */
typedef struct runner {
    const peer_coded *coded;
    uint32_t level;
} runner;

static void run_peer(const void *user, const float *x, float *y) {
    const runner *r = user;
    r->coded->peer->gemv(r->coded, r->level, x, y);
}
static void run_view(const void *user, const float *x, float *y) {
    const bitstack_view *view = user;
    bitstack_view_gemv(view, BITSTACK_FAST, x, y, 0, view->rows);
}

/* Tokens a second of processor time of one thread, one token at a time: the best of five. */
static double decode_speed(const demo *d, const llm_model *model) {
    enum { TOKENS = 48 };
    llm_state state;
    float *logits = peer_alloc(d->model.config.vocabulary, sizeof *logits);
    double best = HUGE_VAL;
    if (llm_state_init(&state, model, TOKENS, 1)) return NAN;
    for (int run = 0; run < 5; run++) {
        double start = demo_cpu(1);
        state.position = 0;
        for (int t = 0; t < TOKENS; t++) {
            llm_forward(model, &state, d->heldout.rows.ids + t, 1);
            llm_logits(model, &state, 0, 1, logits);
        }
        best = fmin(best, (demo_cpu(1) - start) / TOKENS);
    }
    llm_state_free(&state);
    free(logits);
    return 1 / best;
}
static void evaluate(const demo *d, result *r) {
    double nll;
    demo_evaluate(d, &d->heldout, 0, &nll, &r->kl);
    r->perplexity = exp(nll);
}

static void demo_peer(demo *d, const peer *method) {
    peer_coded *coded = peer_alloc(d->count, sizeof *coded);
    float **dense = peer_alloc(d->count, sizeof *dense);
    runner *runners = peer_alloc(d->count, sizeof *runners);
    double seconds = 0;
    uint32_t done = 0, levels = PEER_LEVELS;
    for (; done < d->count; done++) {
        const demo_matrix *m = &d->matrices[done];
        double start = demo_cpu(0);
        bitstack_result code = peer_encode(method, &coded[done], m->w, m->rows, m->cols, m->moments, threads);
        seconds += demo_cpu(0) - start;
        if (code != BITSTACK_OK) { /* AQLM's larger books on small matrices */
            printf("demo     %-34s %-20s left out: %s\n", method->method, method->name,
                   code == BITSTACK_ERROR_UNSUPPORTED ? "its code books would be larger than the codes" : bitstack_result_string(code));
            break;
        }
        dense[done] = peer_alloc((size_t)m->rows * m->cols, sizeof(float));
        if (coded[done].levels < levels) levels = coded[done].levels;
    }
    for (uint32_t l = 1; done == d->count && l <= levels; l++) {
        result r = {.encode = seconds, .gemv = NAN, .tokens = NAN};
        char setting[64];
        double error = 0, norm = 0;
        for (uint32_t i = 0; i < d->count; i++) {
            const demo_matrix *m = &d->matrices[i];
            method->dequantize(&coded[i], l, dense[i]);
            r.bytes += coded[i].bytes[l - 1];
            error += peer_error(m->w, dense[i], m->rows, m->cols, m->moments, threads) * m->norm2, norm += m->norm2;
            m->linear->dense = dense[i];
            runners[i] = (runner){&coded[i], l};
            m->linear->gemv = method->gemv ? run_peer : NULL, m->linear->gemv_user = &runners[i];
        }
        r.error = error / norm;
        r.bits = 8.0 * (double)r.bytes / (double)d->weights;
        r.bytes += d->base_bytes;
        evaluate(d, &r);
        if (method->gemv) r.tokens = decode_speed(d, &d->model);
        if (levels > 1) snprintf(setting, sizeof setting, "%s:%u", method->name, l);
        else snprintf(setting, sizeof setting, "%s", method->name);
        write_row("demo", method->method, setting, 0, &r);
    }
    for (uint32_t i = 0; i < d->count; i++) {
        d->matrices[i].linear->gemv = NULL;
        peer_free(&coded[i]);
        free(dense[i]);
    }
    demo_restore(d);
    free(coded), free(dense), free(runners);
}

/* A stack at many budgets along its predicted order. */
static void demo_any_size(demo *d, const char *method, const char *name, const bitstack_encode_options *options) {
    bitstack_result result_code;
    size_t blocks;
    demo_stack *s = demo_encode(d, options, 1, &result_code);
    if (!s) {
        printf("demo     %-34s left out: %s\n", method, bitstack_result_string(result_code));
        return;
    }
    bitstack_order_entry *order = peer_alloc((size_t)d->count * BITSTACK_MAX_LEVELS, sizeof *order);
    uint32_t *levels = peer_alloc(d->count, sizeof *levels);
    bitstack_view *views = peer_alloc(d->count, sizeof *views);
    bitstack_plane(*planes)[BITSTACK_MAX_LEVELS] = peer_alloc(d->count, sizeof *planes);
    if (demo_order(s, DEMO_PREDICTED, 4, order, &blocks) != BITSTACK_OK) exit(1);
    uint64_t last = 0;
    for (double bits = 1.0; bits < 7.6; bits += bits < 3 ? 0.125 : 0.25) {
        result r = {.encode = s->seconds, .gemv = NAN};
        char setting[64];
        r.bytes = demo_budget(s, order, blocks, (uint64_t)(bits / 8 * (double)d->weights), levels);
        if (r.bytes == last) continue;
        last = r.bytes;
        demo_set_levels(s, levels);
        for (uint32_t i = 0; i < d->count; i++) {
            bitstack_coded_view(&s->coded[i], levels[i], planes[i], &views[i]);
            d->matrices[i].linear->gemv = run_view, d->matrices[i].linear->gemv_user = &views[i];
        }
        r.bits = 8.0 * (double)r.bytes / (double)d->weights;
        r.bytes += d->base_bytes;
        r.error = demo_output_error(s, levels);
        evaluate(d, &r);
        r.tokens = decode_speed(d, &d->model);
        snprintf(setting, sizeof setting, "%s@%.3f", name, bits);
        write_row("demo", method, setting, 1, &r);
    }
    for (uint32_t i = 0; i < d->count; i++) d->matrices[i].linear->gemv = NULL;
    free(order), free(levels), free(views), free(planes);
    demo_stack_free(s);
}

static int wanted(const char *name, const char *filter) { return !filter || !strncmp(name, filter, strlen(filter)); }

static int compare_demo(const char *shared, const char *filter) {
    const char *reason;
    demo *d = demo_open(shared, threads, &reason);
    if (!d) return fprintf(stderr, "compare: %s; its results are left as they are\n", reason), 1;
    if (!known("demo", "f32") && wanted("f32", filter)) {
        result r = {.bits = 32, .bytes = d->base_bytes + 4 * d->weights, .encode = NAN, .gemv = NAN, .tokens = decode_speed(d, &d->model)};
        evaluate(d, &r);
        write_row("demo", "full precision, f32", "f32", 0, &r);
    }
    for (int k = 0; peer_at(k); k++) {
        char first[64];
        snprintf(first, sizeof first, "%s:1", peer_at(k)->name);
        if (peer_at(k)->encode == peer_stack_encode && peer_at(k)->group < 2) continue; /* at any size, below */
        if (wanted(peer_at(k)->name, filter) && !known("demo", peer_at(k)->name) && !known("demo", first)) demo_peer(d, peer_at(k));
    }
    bitstack_encode_options nested = {.levels = 6}, iabs = {.method = BITSTACK_IABS, .rank = 1, .levels = 8};
    if (wanted("bitstack", filter) && !known("demo", "bitstack@2.000")) demo_any_size(d, "BitStack nested", "bitstack", &nested);
    if (wanted("iabs-1", filter) && !known("demo", "iabs-1@2.000")) demo_any_size(d, "BitStack as published, rank 1", "iabs-1", &iabs);
    demo_close(d);
    return 0;
}

/* What a user gets: the file that bitstack compress made, through the runtime, embeddings coded too. */
static int compare_stack(const char *shared, const char *path) {
    const char *reason;
    demo *d = demo_open(shared, threads, &reason);
    llm_model model;
    llm_error why;
    if (!d) return fprintf(stderr, "compare: %s; its results are left as they are\n", reason), 1;
    if (llm_model_open(&model, path, NULL, &why)) return fprintf(stderr, "%s\n", why.message), 1;
    bitstack *stack = model.source.stack;
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack), last = 0;
    double weights = 0;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_matrix m;
        bitstack_get_matrix(stack, i, &m);
        weights += (double)m.shape.rows * m.shape.cols;
    }
    for (double budget = (double)base + weights / 8; last < total; budget *= 1.08) {
        result r = {.error = NAN, .encode = NAN, .gemv = NAN};
        char setting[64];
        double nll;
        if (bitstack_set_budget(stack, (uint64_t)budget, NULL) != BITSTACK_OK) return 1;
        r.bytes = bitstack_resident_bytes(stack);
        if (r.bytes == last) continue;
        last = r.bytes;
        snprintf(setting, sizeof setting, "file@%llu", (unsigned long long)r.bytes);
        if (known("demo", setting)) continue;
        r.bits = 8.0 * (double)(r.bytes - base) / weights;
        demo_evaluate_model(d, &model, &d->heldout, 0, &nll, &r.kl);
        r.perplexity = exp(nll);
        r.tokens = decode_speed(d, &model);
        write_row("demo", "BitStack, embeddings coded too", setting, 1, &r);
    }
    llm_model_close(&model);
    demo_close(d);
    return 0;
}

/* -------------------------------------------------------------------------- a synthetic 4096 x 4096
 * W = G1 diag(s) G2 with G1, G2 normal, s_k = (k + 20)^-0.4 (a flat power-law spectrum, as trained weights
 * have), rows scaled log-normally (0.25). H = A diag(t) A^T with A normal, t_k = 1 / (k + 5) (few directions
 * carry most of the inputs), plus a thousandth of its mean diagonal, channels scaled log-normally (0.5), and
 * 16 outlier channels 20 times as large. All seeded. */
enum { N = 4096, MEASURED = 512 }; /* rows are alike: the error is measured on some */

typedef struct product {
    float *c;
    const float *a, *b;
} product;
static void product_rows(void *user, size_t block) {
    const product *p = user;
    peer_gemm(p->c + block * 64 * N, N, p->a + block * 64 * N, N, p->b, N, 64, N, N, 1);
}

static float *synthetic(bitstack_moments *moments) {
    size_t n = N;
    uint64_t seed = 4096;
    float *a = peer_alloc(n * n, sizeof *a), *b = peer_alloc(n * n, sizeof *b), *w = peer_alloc(n * n, sizeof *w);
    float *h = peer_alloc(n * n, sizeof *h), *size = peer_alloc(n, sizeof *size);
    for (size_t i = 0; i < n * n; i++) a[i] = bench_normal(&seed) * powf((float)(i % n + 20), -0.4f), b[i] = bench_normal(&seed);
    product p = {w, a, b};
    peer_parallel(threads, n / 64, product_rows, &p);
    for (size_t i = 0; i < n; i++) {
        float scale = expf(0.25f * bench_normal(&seed)) / N;
        for (size_t j = 0; j < n; j++) w[i * n + j] *= scale;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            a[i * n + j] = bench_normal(&seed) / sqrtf((float)j + 5);
            b[j * n + i] = a[i * n + j];
        }
    p.c = h;
    peer_parallel(threads, n / 64, product_rows, &p);
    for (size_t j = 0; j < n; j++) size[j] = expf(0.5f * bench_normal(&seed)) * (bench_random(&seed) % 256 == 0 ? 20 : 1);
    if (bitstack_moments_init(moments, N, 1) != BITSTACK_OK) exit(1);
    double mean = 0;
    for (size_t i = 0; i < n; i++) mean += (double)h[i * n + i] / N;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double value = i < j ? (double)h[j * n + i] : (double)h[i * n + j]; /* symmetric to the last bit */
            moments->h[i * n + j] = (value + (i == j ? 1e-3 * mean : 0)) * (double)size[i] * (double)size[j];
        }
    for (size_t j = 0; j < n; j++) moments->norms[j] = sqrt(moments->h[j * n + j]);
    moments->count = moments->samples = 1;
    free(a), free(b), free(h), free(size);
    return w;
}

static unsigned char *sweeper;
static size_t sweeper_bytes;
static volatile uint64_t seen;

/* Cold: more than the last-level cache has gone by since the weights were last used. */
static double cold_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    enum { ROUNDS = 9 };
    double times[ROUNDS];
    if (!sweeper) sweeper_bytes = bench_cold_bytes(), sweeper = bench_alloc(sweeper_bytes);
    for (int k = 0; k < ROUNDS; k++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < sweeper_bytes; i += 64) sum += ++sweeper[i];
        seen = sum;
        for (size_t j = 0; j < N; j++) sum += (uint64_t)(x[j] > 0);
        double start = demo_cpu(1);
        coded->peer->gemv(coded, level, x, y);
        times[k] = 1e3 * (demo_cpu(1) - start);
        seen = sum;
    }
    return bench_summarise(times, ROUNDS).median;
}

static bitstack_result dense_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int count) {
    (void)moments, (void)count;
    out->levels = 1;
    out->bytes[0] = 4ull * out->rows * out->cols;
    out->data = peer_alloc((size_t)out->rows * out->cols, sizeof(float));
    memcpy(out->data, w, (size_t)out->bytes[0]);
    return BITSTACK_OK;
}
static void dense_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    (void)level;
    memcpy(out, coded->data, (size_t)coded->bytes[0]);
}
static void dense_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    (void)level;
    const bench_baseline *f32 = bench_f32;
    for (const bench_baseline *b = bench_f32; b->name; b++)
        if (b->available() && !strcmp(b->isa, "avx2")) f32 = b;
    bench_problem p = {.rows = coded->rows, .cols = coded->cols, .x = x, .y = y};
    f32->multiply(&p, coded->data, 0, coded->rows, 0);
}
static void dense_release(peer_coded *coded) { free(coded->data); }

static void compare_large(const char *filter) {
    static const peer dense = {"f32", "full precision, f32", 32, 0, 0, dense_encode, dense_dequantize, dense_gemv, dense_release};
    bitstack_moments moments;
    float *w = NULL, *back = peer_alloc((size_t)N * N, sizeof *back), *x = peer_alloc(N + 256, sizeof *x), *y = peer_alloc(N + 64, sizeof *y);
    uint64_t seed = 5;
    for (size_t j = 0; j < N; j++) x[j] = bench_normal(&seed);
    for (int k = -1; k < 0 || peer_at(k); k++) {
        const peer *method = k < 0 ? &dense : peer_at(k);
        char setting[64];
        peer_coded coded;
        snprintf(setting, sizeof setting, "%s:1", method->name);
        if (strstr(method->name, "g32") || strstr(method->name, "-5-") || strstr(method->name, "-6-")) continue; /* time */
        if (!wanted(method->name, filter) || known("4096", method->name) || known("4096", setting)) continue;
        if (!w) w = synthetic(&moments);
        double start = demo_cpu(0);
        bitstack_result code = peer_encode(method, &coded, w, N, N, &moments, threads);
        double seconds = demo_cpu(0) - start;
        if (code != BITSTACK_OK) {
            printf("4096     %-34s %-20s left out: %s\n", method->method, method->name, bitstack_result_string(code));
            continue;
        }
        for (uint32_t l = 1; l <= coded.levels; l++) {
            result r = {.perplexity = NAN, .kl = NAN, .tokens = NAN, .gemv = NAN, .encode = seconds, .bytes = coded.bytes[l - 1]};
            r.bits = 8.0 * (double)r.bytes / N / N;
            if (k >= 0) {
                method->dequantize(&coded, l, back);
                r.error = peer_error(w, back, MEASURED, N, &moments, threads);
            }
            if (method->gemv) r.gemv = cold_gemv(&coded, l, x, y);
            if (coded.levels > 1) snprintf(setting, sizeof setting, "%s:%u", method->name, l);
            else snprintf(setting, sizeof setting, "%s", method->name);
            write_row("4096", method->method, setting, coded.levels > 1, &r);
        }
        peer_free(&coded);
    }
    if (w) bitstack_moments_free(&moments);
    free(w), free(back), free(x), free(y), free(sweeper);
}

int main(int argc, char **argv) {
    int large = argc > 1 && !strcmp(argv[1], "4096"), file = argc == 5 && !strcmp(argv[1], "stack"), failed = 0;
    if (argc < 3 || (!large && !file && strcmp(argv[1], "demo"))) return fprintf(stderr, "usage: compare demo OUT.csv [SHARED] [NAME] | stack OUT.csv SHARED FILE | 4096 OUT.csv [NAME]\n"), 2;
    threads = llm_processors();
    FILE *old = fopen(argv[2], "r");
    if (old) {
        before = peer_alloc(1 << 20, 1);
        before[fread(before, 1, (1 << 20) - 1, old)] = 0;
        fclose(old);
    }
    csv = fopen(argv[2], "a");
    if (!csv) return perror(argv[2]), 1;
    if (!before || !*before) {
        bench_describe(csv);
        fputs(header, csv);
    }
    if (large) compare_large(argc > 3 ? argv[3] : NULL);
    else if (file) failed = compare_stack(argv[3], argv[4]);
    else failed = compare_demo(argc > 3 ? argv[3] : "../shared", argc > 4 ? argv[4] : NULL);
    free(before);
    return fclose(csv) ? 1 : failed;
}
