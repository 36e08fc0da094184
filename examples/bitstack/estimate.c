#include "estimate.h"
#include "tune.h"
#include "../llm/dense.h"
#include "../llm/evaluate.h"
#include "../llm/parallel.h"
#include "../llm/platform.h"

#include <stdlib.h>

machine machine_assumed(int threads) { return (machine){threads, 1e11 * threads, 2e-7, 7e-10, 0.8}; }

/* ---- measuring ---- */

enum { ROWS = 512, COLS = 1024, TOKENS = 256, TURNS = 2 };

typedef struct sample {
    const float *w, *x;
    float *y;
} sample;

static void multiply(void *user, size_t index, int thread) {
    const sample *s = user;
    (void)thread;
    llm_gemm(s->w, ROWS, COLS, s->x, COLS, s->y + index * ROWS * TOKENS, ROWS, TOKENS);
}

static void fill(float *to, size_t count) { /* any numbers will do, but for the encoder no two columns alike */
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = (float)(int32_t)state * 0x1p-31f;
    }
}

static double measure_products(int threads) {
    size_t count = (size_t)threads * TURNS;
    float *w = malloc((size_t)ROWS * COLS * sizeof *w), *x = malloc((size_t)TOKENS * COLS * sizeof *x), *y = malloc(count * ROWS * TOKENS * sizeof *y);
    double best = 0;
    sample s = {w, x, y};
    if (w && x && y) {
        fill(w, (size_t)ROWS * COLS), fill(x, (size_t)TOKENS * COLS);
        for (int turn = 0; turn < 5; turn++) { /* the first ones wake the processors up */
            double start = llm_seconds();
            llm_parallel(threads, count, multiply, &s);
            double speed = 2.0 * ROWS * COLS * TOKENS * (double)count / (llm_seconds() - start + 1e-9);
            if (speed > best) best = speed;
        }
    }
    free(w), free(x), free(y);
    return best;
}

/* Seconds to encode a matrix of random numbers. */
static double measure_encoding(const bitstack_encode_options *options, uint32_t rows, uint32_t cols) {
    bitstack_encode_options one = *options;
    bitstack_moments moments;
    bitstack_coded coded;
    double seconds = 0;
    float *w = malloc((size_t)rows * cols * sizeof *w), *x = malloc((size_t)2 * cols * cols * sizeof *x);
    one.threads = 1;
    if (w && x && bitstack_moments_init(&moments, cols, 1) == BITSTACK_OK) {
        fill(w, (size_t)rows * cols), fill(x, (size_t)2 * cols * cols);
        bitstack_moments_add(&moments, x, 2 * (size_t)cols, cols);
        double start = platform_thread_seconds();
        if (bitstack_encode_matrix(&coded, w, rows, cols, cols, &moments, &one) == BITSTACK_OK) {
            seconds = platform_thread_seconds() - start;
            bitstack_coded_free(&coded);
        }
        bitstack_moments_free(&moments);
    }
    free(w), free(x);
    return seconds;
}

/* Nested coding fits its tables on so many rows at most, which takes most of what coding them does. */
enum { FITTED_ROWS = 256 };
static double fits(const machine *m, double rows) { return 1 + m->fitting * (rows < FITTED_ROWS ? 1 : FITTED_ROWS / rows); }

machine machine_measured(int threads, const bitstack_encode_options *options) {
    enum { HIGH = FITTED_ROWS, NARROW = 128, WIDE = 384 };
    machine m = machine_assumed(threads);
    double products = measure_products(threads), narrow = measure_encoding(options, HIGH, NARROW), wide = measure_encoding(options, HIGH, WIDE);
    if (products > 0) m.products = products;
    if (options->method == BITSTACK_IABS) m.fitting = 0;
    if (narrow > 0 && wide > 0) { /* a weight = fixed + columns * slope */
        double a = narrow / ((double)HIGH * NARROW) / fits(&m, HIGH), b = wide / ((double)HIGH * WIDE) / fits(&m, HIGH);
        m.encode_column = b > a ? (b - a) / (WIDE - NARROW) : 0;
        m.encode_weight = b > a ? a - m.encode_column * NARROW : b;
        if (m.encode_weight < 0) m.encode_weight = 0;
    }
    return m;
}

/* ---- counting ---- */

/* Second moments are factored in double precision: some 40 times the speed of coding, a multiplication. */
static double factoring(const machine *m, double cols) { return cols * cols * cols * m->encode_column / 40; }

estimate estimate_time(const llm_model *model, const machine *m, double tokens, double own, double steps) {
    const llm_config *c = &model->config;
    const double cols[LLM_INPUTS] = {c->width, (double)c->heads * c->head_width, c->width, c->hidden};
    const double head = (double)c->vocabulary * c->width;
    double layer = 0, squares = 0, encoding = 0;
    estimate e;
    for (int i = 0; i < LLM_LINEARS; i++) {
        const llm_linear *linear = &model->layers[0].linears[i];
        double weights = (double)linear->rows * linear->cols;
        layer += weights;
        encoding += weights * (m->encode_weight + m->encode_column * linear->cols) * fits(m, linear->rows) + factoring(m, linear->cols);
    }
    for (int i = 0; i < LLM_INPUTS; i++) squares += cols[i] * cols[i];
    double layers = layer * c->layers;
    /* Writing takes few vectors at a time. Learning goes forward, forward again but for the last matrix, and back. */
    e.writing = own * 2 * (layers + head) / (0.4 * m->products);
    e.learning = tokens * 2 * (2.75 * layers + 2 * head) / (0.7 * m->products);
    double gathering = tokens * (2 * layers + squares * c->layers) / (0.7 * m->products);
    double probes = 5.0 * LLM_LINEARS * 900 * 2 * (layers / 2 + head) / (0.5 * m->products);
    double vocabulary = (model->head.tensor == model->embedding.tensor ? 1 : 2) * head * (m->encode_weight + m->encode_column * c->width);
    e.encoding = gathering + probes + (encoding * c->layers + vocabulary) / m->threads;
    /* Forward with the model; forward twice, back and with respect to the weights with the stack. */
    e.tuning = steps * TUNE_TEXTS * (MIX_LENGTH - 1) * 2 * (4.75 * layers + 3 * head) / (0.5 * m->products);
    e.all = e.writing + e.learning + e.encoding + e.tuning;
    return e;
}
