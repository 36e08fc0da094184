#include "demo.h"
#include "llm/gguf.h"
#include "llm/parallel.h"
#include "llm/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKENS = 256, CALIBRATION = 64, PROBED = 8, AT_ONCE = 32 };

double demo_now(void) { return llm_seconds(); }
double demo_cpu(int this_thread) {
    struct timespec now;
    clock_gettime(this_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *need(void *p) {
    if (!p) fprintf(stderr, "out of memory\n"), exit(1);
    return p;
}

/* ---- calibration and evaluation ---- */

typedef struct evaluating {
    const llm_model *model;
    const demo_text *text;
    float *reference; /* to be filled, or NULL */
    llm_state *states;
    float *logits; /* AT_ONCE x vocabulary a thread */
    double *sums;  /* two a row */
} evaluating;

static void evaluate_row(void *user, size_t row, int thread) {
    evaluating *e = user;
    const llm_model *m = e->model;
    size_t vocabulary = m->config.vocabulary, tokens = e->text->rows.length - 1;
    const uint32_t *ids = e->text->rows.ids + row * e->text->rows.length;
    llm_state *state = &e->states[thread];
    float *logits = e->logits + (size_t)thread * AT_ONCE * vocabulary;
    state->position = 0;
    llm_forward(m, state, ids, (uint32_t)tokens);
    for (size_t t = 0; t < tokens; t += AT_ONCE) {
        size_t some = tokens - t < AT_ONCE ? tokens - t : AT_ONCE;
        llm_logits(m, state, (uint32_t)t, (uint32_t)some, logits);
        if (e->reference) memcpy(e->reference + (row * tokens + t) * vocabulary, logits, some * vocabulary * sizeof *logits);
        else
            for (size_t k = 0; k < some; k++)
                llm_score(logits + k * vocabulary, e->text->reference + (row * tokens + t + k) * vocabulary,
                          (uint32_t)vocabulary, ids[t + k + 1], &e->sums[2 * row], &e->sums[2 * row + 1]);
    }
}

static void evaluate(const demo *d, const llm_model *model, const demo_text *text, size_t rows, float *reference,
                     double *nll, double *kl) {
    evaluating e = {model, text, reference, NULL, NULL, NULL};
    if (!rows || rows > text->rows.count) rows = text->rows.count;
    e.states = need(calloc((size_t)d->threads, sizeof *e.states));
    e.logits = need(malloc((size_t)d->threads * AT_ONCE * d->model.config.vocabulary * sizeof *e.logits));
    e.sums = need(calloc(2 * rows, sizeof *e.sums));
    for (int i = 0; i < d->threads; i++)
        if (llm_state_init(&e.states[i], model, (uint32_t)text->rows.length, 0)) need(NULL);
    llm_parallel(d->threads, rows, evaluate_row, &e);
    double total = (double)(rows * (text->rows.length - 1));
    if (nll) {
        *nll = *kl = 0;
        for (size_t r = 0; r < rows; r++) *nll += e.sums[2 * r] / total, *kl += e.sums[2 * r + 1] / total;
    }
    for (int i = 0; i < d->threads; i++) llm_state_free(&e.states[i]);
    free(e.states), free(e.logits), free(e.sums);
}
void demo_evaluate(const demo *d, const demo_text *text, size_t rows, double *nll, double *kl) {
    evaluate(d, &d->model, text, rows, NULL, nll, kl);
}
void demo_evaluate_model(const demo *d, const llm_model *model, const demo_text *text, size_t rows, double *nll, double *kl) {
    evaluate(d, model, text, rows, NULL, nll, kl);
}
static void refer(const demo *d, demo_text *text) {
    text->reference = need(malloc(text->rows.count * (text->rows.length - 1) * d->model.config.vocabulary * sizeof(float)));
    evaluate(d, &d->model, text, 0, text->reference, NULL, NULL);
}

/* ---- opening ---- */

static void *read_all(const char *directory, const char *name, size_t *bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/models/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *data = need(malloc((size_t)size + 1));
    *bytes = fread(data, 1, (size_t)size, file);
    fclose(file);
    return data;
}

/* Rows of text: ids as they follow each other, no mark in front. */
static int cut(const demo *d, const char *text, size_t bytes, size_t length, size_t most, llm_rows *rows) {
    llm_tokenizer tokenizer;
    uint32_t *ids;
    if (llm_tokenizer_load(&tokenizer, &d->model.source, NULL)) return -1;
    int64_t count = llm_encode(&tokenizer, text, bytes, &ids);
    llm_tokenizer_free(&tokenizer);
    if (count < 0) return -1;
    int failed = llm_rows_cut(rows, ids, (size_t)count, length, most);
    free(ids);
    return failed;
}

/* Threads gather on their own, rows by turns, and are added up in order. */
typedef struct calibrating {
    demo *d;
    const llm_rows *rows;
    bitstack_moments *moments; /* layers x LLM_INPUTS a part */
    size_t parts;
} calibrating;

typedef struct observing {
    bitstack_moments *moments;
} observing;

static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    observing *o = user;
    bitstack_moments *moments = &o->moments[layer * LLM_INPUTS + (uint32_t)input];
    if (!moments->h && bitstack_moments_init(moments, cols, 1) != BITSTACK_OK) need(NULL);
    bitstack_moments_add(moments, x, tokens, cols);
}

static void calibrate_part(void *user, size_t part, int thread) {
    calibrating *c = user;
    llm_state state;
    observing o = {c->moments + part * c->d->model.config.layers * LLM_INPUTS};
    (void)thread;
    if (llm_state_init(&state, &c->d->model, TOKENS, 0)) need(NULL);
    state.observe = observe, state.observe_user = &o;
    for (size_t r = part; r < c->rows->count; r += c->parts) {
        state.position = 0;
        llm_forward(&c->d->model, &state, c->rows->ids + r * c->rows->length, TOKENS);
    }
    llm_state_free(&state);
}

static void calibrate(demo *d, const llm_rows *rows) {
    size_t inputs = (size_t)d->model.config.layers * LLM_INPUTS, parts = (size_t)d->threads < rows->count ? (size_t)d->threads : rows->count;
    calibrating c = {d, rows, need(calloc(parts * inputs, sizeof *c.moments)), parts};
    llm_parallel(d->threads, parts, calibrate_part, &c);
    for (size_t i = 0; i < inputs; i++) {
        d->moments[i] = c.moments[i];
        for (size_t p = 1; p < parts; p++) {
            bitstack_moments_merge(&d->moments[i], &c.moments[p * inputs + i]);
            bitstack_moments_free(&c.moments[p * inputs + i]);
        }
    }
    free(c.moments);
}

static double weighted_norm2(const demo_matrix *m) {
    size_t n = m->cols;
    double total = 0;
    for (size_t i = 0; i < m->rows; i++)
        for (size_t j = 0; j < n; j++) {
            const double *h = m->moments->h + j * n;
            double s = 0;
            for (size_t k = 0; k < n; k++) s += h[k] * (double)m->w[i * n + k];
            total += s * (double)m->w[i * n + j];
        }
    return total;
}

demo *demo_open(const char *shared, int threads, const char **reason) {
    static char message[600];
    char path[600];
    llm_error error;
    size_t bytes = 0;
    demo *d = need(calloc(1, sizeof *d));
    d->threads = threads;
    *reason = message;
    snprintf(path, sizeof path, "%s/models/books-6m-f16.gguf", shared);
    if (llm_model_open(&d->model, path, NULL, &error)) {
        snprintf(message, sizeof message, "%s", error.message);
        free(d);
        return NULL;
    }
    char *text = read_all(shared, "calibration.txt", &bytes);
    llm_rows calibration = {0};
    if (!text || cut(d, text, bytes, TOKENS, CALIBRATION, &calibration) ||
        cut(d, text, bytes, TOKENS + 1, PROBED, &d->calibration.rows)) {
        snprintf(message, sizeof message, "%s/models/calibration.txt is absent", shared);
        free(text);
        demo_close(d);
        return NULL;
    }
    free(text);
    unsigned char *held = read_all(shared, "heldout.u16", &bytes);
    if (!held) {
        snprintf(message, sizeof message, "%s/models/heldout.u16 is absent", shared);
        llm_rows_free(&calibration);
        demo_close(d);
        return NULL;
    }
    d->heldout.rows.length = TOKENS + 1, d->heldout.rows.count = bytes / 2 / (TOKENS + 1);
    d->heldout.rows.ids = need(malloc(bytes / 2 * sizeof(uint32_t)));
    for (size_t i = 0; i < bytes / 2; i++) d->heldout.rows.ids[i] = (uint32_t)held[2 * i] | (uint32_t)held[2 * i + 1] << 8;
    free(held);

    uint32_t layers = d->model.config.layers;
    d->count = layers * LLM_LINEARS;
    d->matrices = need(calloc(d->count, sizeof *d->matrices));
    d->moments = need(calloc((size_t)layers * LLM_INPUTS, sizeof *d->moments));
    for (size_t t = 0; t < d->model.source.tensor_count; t++) d->base_bytes += d->model.source.tensors[t].bytes;
    for (uint32_t i = 0; i < d->count; i++) {
        demo_matrix *m = &d->matrices[i];
        bitstack_moments *moments = &d->moments[i / LLM_LINEARS * LLM_INPUTS + (uint32_t)llm_linear_inputs[i % LLM_LINEARS]];
        m->linear = &d->model.layers[i / LLM_LINEARS].linears[i % LLM_LINEARS];
        snprintf(m->name, sizeof m->name, "blk.%u.%s.weight", i / LLM_LINEARS, llm_linear_names[i % LLM_LINEARS]);
        m->rows = m->linear->rows, m->cols = m->linear->cols, m->w = m->linear->dense, m->moments = moments;
        d->weights += (uint64_t)m->rows * m->cols;
        d->base_bytes -= m->linear->tensor->bytes;
    }
    calibrate(d, &calibration);
    llm_rows_free(&calibration);
    for (uint32_t i = 0; i < d->count; i++) d->matrices[i].norm2 = weighted_norm2(&d->matrices[i]);
    refer(d, &d->heldout);
    refer(d, &d->calibration);
    return d;
}

void demo_close(demo *d) {
    if (!d) return;
    for (uint32_t i = 0; d->moments && i < d->model.config.layers * LLM_INPUTS; i++) bitstack_moments_free(&d->moments[i]);
    llm_rows_free(&d->heldout.rows), llm_rows_free(&d->calibration.rows);
    free(d->heldout.reference), free(d->calibration.reference);
    demo_restore(d);
    llm_model_close(&d->model);
    free(d->moments), free(d->matrices), free(d);
}

void demo_restore(demo *d) {
    for (uint32_t i = 0; i < d->count; i++) d->matrices[i].linear->dense = d->matrices[i].w;
}

/* ---- stacks ---- */

demo_stack *demo_encode(demo *d, const bitstack_encode_options *options, int with_moments, bitstack_result *result) {
    demo_stack *s = need(calloc(1, sizeof *s));
    bitstack_encode_options o = *options;
    s->d = d;
    s->coded = need(calloc(d->count, sizeof *s->coded));
    s->dense = need(calloc(d->count, sizeof *s->dense));
    s->levels = need(calloc(d->count, sizeof *s->levels));
    s->most = need(calloc(d->count, sizeof *s->most));
    o.threads = d->threads;
    double start = demo_cpu(0);
    for (uint32_t i = 0; i < d->count; i++) {
        const demo_matrix *m = &d->matrices[i];
        *result = bitstack_encode_matrix(&s->coded[i], m->w, m->rows, m->cols, m->cols, with_moments ? m->moments : NULL, &o);
        if (*result != BITSTACK_OK) {
            demo_stack_free(s);
            return NULL;
        }
        s->most[i] = s->coded[i].shape.levels;
        s->levels[i] = UINT32_MAX;
        s->dense[i] = need(malloc((size_t)m->rows * m->cols * sizeof(float)));
    }
    s->seconds = demo_cpu(0) - start;
    return s;
}

void demo_stack_free(demo_stack *s) {
    if (!s) return;
    for (uint32_t i = 0; i < s->d->count; i++) bitstack_coded_free(&s->coded[i]), free(s->dense[i]);
    demo_restore(s->d);
    free(s->coded), free(s->dense), free(s->levels), free(s->most), free(s);
}

void demo_set_levels(demo_stack *s, const uint32_t *levels) {
    for (uint32_t i = 0; i < s->d->count; i++) {
        const demo_matrix *m = &s->d->matrices[i];
        if (s->levels[i] != levels[i]) {
            bitstack_plane planes[BITSTACK_MAX_LEVELS];
            bitstack_view view;
            if (levels[i]) {
                bitstack_coded_view(&s->coded[i], levels[i], planes, &view);
                bitstack_view_dequantize(&view, 0, m->rows, s->dense[i], m->cols);
            } else memset(s->dense[i], 0, (size_t)m->rows * m->cols * sizeof(float));
            s->levels[i] = levels[i];
        }
        m->linear->dense = s->dense[i];
    }
}

uint64_t demo_bytes(const demo_stack *s, const uint32_t *levels) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->d->count; i++)
        if (levels[i]) bytes += bitstack_live_bytes(&s->coded[i].shape, levels[i]);
    return bytes;
}
double demo_output_error(const demo_stack *s, const uint32_t *levels) {
    double error = 0, norm = 0;
    for (uint32_t i = 0; i < s->d->count; i++) {
        error += s->coded[i].out_err2[levels[i]] * s->d->matrices[i].norm2;
        norm += s->d->matrices[i].norm2;
    }
    return error / norm;
}

/* ---- orders ---- */

/* The divergence with matrix i at levels[i]; UINT32_MAX is full precision. */
typedef struct probing {
    demo_stack *s;
    size_t rows;
} probing;

static double probe(const probing *p, uint32_t matrix, uint32_t level) {
    demo_stack *s = p->s;
    double nll, kl;
    uint32_t *levels = need(malloc(s->d->count * sizeof *levels));
    memcpy(levels, s->levels, s->d->count * sizeof *levels);
    for (uint32_t i = 0; i < s->d->count; i++)
        if (levels[i] == UINT32_MAX) levels[i] = 0;
    levels[matrix] = level;
    demo_set_levels(s, levels);
    free(levels);
    for (uint32_t i = 0; i < s->d->count; i++)
        if (i != matrix) s->d->matrices[i].linear->dense = s->d->matrices[i].w;
    demo_evaluate(s->d, &s->d->calibration, p->rows, &nll, &kl);
    return kl;
}

static int paper_loss(void *user, const uint32_t *levels, uint32_t matrices, double *loss) {
    probing *p = user;
    double kl;
    (void)matrices;
    demo_set_levels(p->s, levels);
    demo_evaluate(p->s->d, &p->s->d->calibration, p->rows, loss, &kl);
    return 0;
}

bitstack_result demo_order(demo_stack *s, demo_ordering ordering, size_t rows, bitstack_order_entry *out, size_t *count) {
    uint32_t n = s->d->count;
    probing p = {s, rows};
    double **loss = need(calloc(n, sizeof *loss));
    uint64_t **bytes = need(calloc(n, sizeof *bytes));
    bitstack_result result;
    *count = 0;
    for (uint32_t i = 0; i < n; i++) {
        double scale = s->d->matrices[i].norm2;
        *count += s->most[i];
        loss[i] = need(calloc(BITSTACK_MAX_LEVELS + 1, sizeof **loss));
        bytes[i] = need(calloc(BITSTACK_MAX_LEVELS + 1, sizeof **bytes));
        for (uint32_t l = 0; l <= s->most[i]; l++) {
            int measured = ordering == DEMO_LOSS || (ordering == DEMO_PREDICTED && l <= 2);
            loss[i][l] = measured ? probe(&p, i, l) : scale * s->coded[i].out_err2[l];
            bytes[i][l] = l ? bitstack_live_bytes(&s->coded[i].shape, l) : 0;
            if (measured && l == 2) scale = loss[i][l] / s->coded[i].out_err2[l];
        }
    }
    if (ordering == DEMO_PAPER) result = bitstack_order_paper(s->most, n, paper_loss, &p, out);
    else
        result = bitstack_order_predicted(s->most, n, (const double *const *)loss, (const uint64_t *const *)bytes, out);
    for (uint32_t i = 0; i < n; i++) free(loss[i]), free(bytes[i]);
    free(loss), free(bytes);
    return result;
}

uint64_t demo_budget(const demo_stack *s, const bitstack_order_entry *order, size_t count, uint64_t budget, uint32_t *levels) {
    uint64_t used = 0;
    memset(levels, 0, s->d->count * sizeof *levels);
    for (size_t e = 0; e < count; e++) {
        const bitstack_shape *shape = &s->coded[order[e].matrix].shape;
        uint32_t *level = &levels[order[e].matrix];
        uint64_t more = bitstack_live_bytes(shape, order[e].level) - (*level ? bitstack_live_bytes(shape, *level) : 0);
        if (used + more > budget) break;
        used += more;
        *level = order[e].level;
    }
    return used;
}
