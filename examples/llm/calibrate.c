#define BITSTACK_POOL
#include "calibrate.h"
#include "dense.h"
#include "parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 32, SIDE_BY_SIDE = 4096 };
/* No token counts more than so many times the mean: the first ones of a text, where attention heads park what they do
 * not use, would otherwise outweigh all others. */
static const double MOST_WEIGHT = 8;

static size_t row_floats(const llm_calibration *c, const llm_rows *rows) {
    return (rows->length - 1) * c->model->config.width;
}

/* Row `row` of the residual stream goes through the layer at hand. */
static void advance(llm_calibration *c, const llm_rows *rows, float *x, size_t row, llm_state *state) {
    state->position = 0;
    llm_layer_forward(c->model, state, c->layer, x + row * row_floats(c, rows), (uint32_t)rows->length - 1);
}

/* From the stream at layer `layer`'s input (changed in place) to logits, a few tokens at a time; returns the
 * row's divergence from the reference, or fills the reference where `to` is given. */
static double finish_row(llm_calibration *c, float *x, size_t row, int thread, float *to) {
    const llm_model *m = c->model;
    llm_state *state = &c->states[thread];
    uint32_t tokens = (uint32_t)c->probe->length - 1, vocabulary = m->config.vocabulary, layers = m->config.layers;
    const uint32_t *ids = c->probe->ids + row * c->probe->length;
    double nll = 0, kl = 0;
    for (uint32_t l = c->layer; l < layers; l++) {
        state->position = 0;
        llm_layer_forward(m, state, l, x, tokens);
    }
    llm_final_norm(m, x, tokens);
    memcpy(state->x, x, row_floats(c, c->probe) * sizeof *x);
    for (uint32_t first = 0; first < tokens; first += AT_ONCE) {
        uint32_t some = tokens - first < AT_ONCE ? tokens - first : AT_ONCE;
        size_t at = (row * tokens + first) * vocabulary;
        float *logits = to ? to + at : c->logits + (size_t)thread * AT_ONCE * vocabulary;
        llm_logits(m, state, first, some, logits);
        for (uint32_t t = 0; t < some && !to; t++)
            llm_score(logits + (size_t)t * vocabulary, c->reference + at + (size_t)t * vocabulary, vocabulary,
                      ids[first + t + 1], &nll, &kl);
    }
    return kl;
}

/* One row after another with all threads on each, or, where there are enough, each with a thread of its own. */
static void each_probe_row(llm_calibration *c, size_t rows, void (*work)(void *, size_t, int), void *user) {
    if (!c->pool || rows >= (size_t)c->threads) {
        llm_parallel(c->threads, rows, work, user);
        return;
    }
    c->model->pool = c->pool;
    c->model->parallel = bitstack_pool_parallel(c->pool);
    for (size_t row = 0; row < rows; row++) work(user, row, 0);
    c->model->pool = NULL;
}

typedef struct job {
    llm_calibration *c;
    float *copies;  /* one a row: streams that are used up */
    double *losses; /* one a row */
} job;

static void embed_row(void *user, size_t row, int thread) {
    llm_calibration *c = ((job *)user)->c;
    (void)thread;
    llm_embed(c->model, c->rows->ids + row * c->rows->length, (uint32_t)c->rows->length - 1, c->x + row * row_floats(c, c->rows));
}

static void reference_row(void *user, size_t row, int thread) {
    job *j = user;
    llm_calibration *c = j->c;
    size_t floats = row_floats(c, c->probe);
    llm_embed(c->model, c->probe->ids + row * c->probe->length, (uint32_t)c->probe->length - 1, c->probe_x + row * floats);
    memcpy(j->copies + row * floats, c->probe_x + row * floats, floats * sizeof(float));
    finish_row(c, j->copies + row * floats, row, thread, c->reference);
}

static void loss_row(void *user, size_t row, int thread) {
    job *j = user;
    size_t floats = row_floats(j->c, j->c->probe);
    memcpy(j->copies + row * floats, j->c->probe_x + row * floats, floats * sizeof(float));
    j->losses[row] = finish_row(j->c, j->copies + row * floats, row, thread, NULL);
}

/* The same from the tokens on. */
static void loss_row_from_tokens(void *user, size_t row, int thread) {
    job *j = user;
    float *x = j->copies + row * row_floats(j->c, j->c->probe);
    llm_embed(j->c->model, j->c->probe->ids + row * j->c->probe->length, (uint32_t)j->c->probe->length - 1, x);
    j->losses[row] = finish_row(j->c, x, row, thread, NULL);
}

/* Token weights of an input of a layer; those of the head's stand behind all layers'. */
static float *weights_of(const llm_calibration *c, uint32_t layer, int input) {
    return c->token_weights + ((size_t)layer * LLM_INPUTS + (size_t)input) * c->rows->count * (c->rows->length - 1);
}

static void advance_probe(void *user, size_t row, int thread) {
    llm_calibration *c = ((job *)user)->c;
    advance(c, c->probe, c->probe_x, row, &c->states[thread]);
}

int llm_calibration_init(llm_calibration *c, llm_model *m, const llm_rows *rows, const llm_rows *probe, uint64_t bytes, int threads) {
    size_t vocabulary = m->config.vocabulary, longest = probe->length;
    memset(c, 0, sizeof *c);
    c->model = m;
    c->rows = rows;
    c->probe = probe;
    c->bytes = bytes;
    c->threads = threads < 1 ? 1 : threads;
    if (rows) c->x = malloc(rows->count * row_floats(c, rows) * sizeof *c->x);
    c->probe_x = malloc(probe->count * row_floats(c, probe) * sizeof *c->probe_x);
    c->reference = malloc(probe->count * (probe->length - 1) * vocabulary * sizeof *c->reference);
    c->states = calloc((size_t)c->threads, sizeof *c->states);
    c->logits = malloc((size_t)c->threads * AT_ONCE * vocabulary * sizeof *c->logits);
    job j = {c, malloc(probe->count * row_floats(c, probe) * sizeof *j.copies), NULL};
    int failed = (rows && !c->x) || !c->probe_x || !c->reference || !c->states || !c->logits || !j.copies;
    if (c->threads > 1 && !m->pool && bitstack_pool_open(&c->pool, c->threads, NULL) != BITSTACK_OK) c->pool = NULL;
    for (int i = 0; i < c->threads && !failed; i++) {
        if (i == 0 && c->pool) m->pool = c->pool, m->parallel = bitstack_pool_parallel(c->pool); /* room for all threads */
        failed = llm_state_init(&c->states[i], m, (uint32_t)longest, (uint32_t)longest) != 0;
        if (c->pool) m->pool = NULL;
    }
    if (!failed) {
        if (rows) llm_parallel(c->threads, rows->count, embed_row, &j);
        each_probe_row(c, probe->count, reference_row, &j);
    }
    free(j.copies);
    if (failed) llm_calibration_free(c);
    return failed ? -1 : 0;
}

static void drop_moments(llm_calibration *c) {
    for (int i = 0; i < LLM_INPUTS && c->has_moments; i++) bitstack_moments_free(&c->moments[i]);
    c->has_moments = 0;
}

void llm_calibration_free(llm_calibration *c) {
    drop_moments(c);
    for (int i = 0; c->states && i < c->threads; i++) llm_state_free(&c->states[i]);
    free(c->token_weights), free(c->row_squares), free(c->row_squares_at), free(c->input_squares), free(c->input_squares_at);
    free(c->x), free(c->probe_x), free(c->reference), free(c->states), free(c->logits);
    bitstack_pool_close(c->pool);
    memset(c, 0, sizeof *c);
}

/* ---- backward ---- */

typedef struct sums {
    llm_calibration *c;
    double *rows, *inputs; /* where row_squares_at and input_squares_at say */
    float *tokens;         /* squares of g: a matrix of all layers and the head, times the tokens; or NULL */
    size_t first, all;     /* the first token of those side by side; of all */
    llm_progress progress;
    void *user;
    double begin, end, steps; /* of the progress: those side by side; layers gone through, going back counts as two */
    /* What one call adds up: squares of g, tokens x rows, a token (added to `to`, unless NULL) and a row. */
    const float *g;
    size_t count, width;
    float *to;
    double *to_rows;
} sums;

enum { PIECE = 64, ROWS_PIECE = 512 };

static void sum_piece(void *user, size_t index, int thread) {
    const sums *s = user;
    size_t token_pieces = s->to ? (s->count + PIECE - 1) / PIECE : 0;
    (void)thread;
    if (index < token_pieces) {
        for (size_t t = index * PIECE; t < s->count && t < (index + 1) * PIECE; t++) s->to[t] += llm_square_sum(s->g + t * s->width, s->width);
        return;
    }
    size_t begin = (index - token_pieces) * ROWS_PIECE, end = begin + ROWS_PIECE < s->width ? begin + ROWS_PIECE : s->width;
    for (size_t t0 = 0; t0 < s->count; t0 += PIECE) { /* in float for a while, then in double */
        float parts[ROWS_PIECE] = {0};
        for (size_t t = t0; t < s->count && t < t0 + PIECE; t++) llm_add_squares(parts, s->g + t * s->width + begin, end - begin);
        for (size_t i = begin; i < end; i++) s->to_rows[i] += (double)parts[i - begin];
    }
}

static void sum_squares(sums *s, const float *g, size_t count, size_t width, float *to, double *to_rows) {
    s->g = g, s->count = count, s->width = width, s->to = to, s->to_rows = to_rows;
    llm_parallel(s->c->threads, (to ? (count + PIECE - 1) / PIECE : 0) + (width + ROWS_PIECE - 1) / ROWS_PIECE, sum_piece, s);
}

static void gone_through(sums *s, double steps) {
    s->steps += steps;
    if (s->progress) s->progress(s->user, s->begin + (s->end - s->begin) * s->steps / (3.0 * s->c->model->config.layers));
}

static void take_gradient(void *user, uint32_t layer, int place, const float *g, const float *x, size_t first, size_t tokens, uint32_t rows) {
    sums *s = user;
    (void)x;
    llm_calibration *c = s->c;
    if (place == LLM_AT_EMBEDDING) return;
    size_t matrix = layer * LLM_LINEARS + (size_t)(place == LLM_AT_HEAD ? 0 : place);
    float *to = s->tokens ? s->tokens + matrix * s->all + s->first + first : NULL;
    sum_squares(s, g, tokens, rows, to, s->rows + c->row_squares_at[matrix]);
    if (place == LLM_Q) gone_through(s, 2);
}

static void take_input(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    sums *s = user;
    sum_squares(s, x, tokens, cols, NULL, s->inputs + s->c->input_squares_at[layer * LLM_INPUTS + (uint32_t)input]);
    if (input == LLM_IN_DOWN) gone_through(s, 1);
}

/* Weights of mean 1, none above MOST_WEIGHT: what is cut off goes to all alike. Returns what they were divided by. */
static double even_out(float *weights, size_t count) {
    double mean = 0, kept = 0;
    for (size_t t = 0; t < count; t++) mean += (double)weights[t] / (double)count;
    for (int turn = 0; turn < 4 && mean > 0; turn++) { /* outliers raise the mean: after them the limit is lower */
        kept = 0;
        for (size_t t = 0; t < count; t++) kept += fmin((double)weights[t], MOST_WEIGHT * mean) / (double)count;
        for (size_t t = 0; t < count; t++) weights[t] = (float)fmin((double)weights[t], MOST_WEIGHT * mean);
        mean = kept;
    }
    for (size_t t = 0; t < count; t++) weights[t] = mean > 0 ? (float)((double)weights[t] / mean) : 1;
    return mean;
}

/* Weights for the moments of an input: squared gradients of all matrices that read it, evened out. A token that is
 * held to the cap is told by the moments as less than it is; so that both agree, it is as much less in the matrices'
 * own mean squares. (Without this the values of late layers, whose gradients are nearly all the first token's, would
 * seem several times as sensitive as measured.) */
static void weigh_input(llm_calibration *c, const sums *s, size_t layer, int input) {
    const size_t all = s->all, layers = c->model->config.layers;
    float *weights = c->token_weights + (layer * LLM_INPUTS + (size_t)input) * all;
    size_t readers[LLM_LINEARS], count = 0;
    double raw[LLM_LINEARS] = {0}, held[LLM_LINEARS] = {0};
    for (size_t i = 0; i < (layer < layers ? LLM_LINEARS : 1); i++)
        if (layer == layers || llm_linear_inputs[i] == input) readers[count++] = layer * LLM_LINEARS + i;
    for (size_t k = 0; k < count; k++)
        for (size_t t = 0; t < all; t++) weights[t] += s->tokens[readers[k] * all + t];
    const double mean = even_out(weights, all);
    if (layer == layers) return; /* the head's loss is measured */
    for (size_t t = 0; t < all; t++) {
        double sum = 0;
        for (size_t k = 0; k < count; k++) sum += (double)s->tokens[readers[k] * all + t];
        for (size_t k = 0; k < count && sum > 0; k++) {
            double square = (double)s->tokens[readers[k] * all + t];
            raw[k] += square, held[k] += square * fmin(1, (double)weights[t] * mean / sum);
        }
    }
    for (size_t k = 0; k < count; k++) {
        float *squares = c->row_squares + c->row_squares_at[readers[k]];
        uint32_t rows = raw[k] > 0 ? c->model->layers[layer].linears[readers[k] % LLM_LINEARS].rows : 0;
        for (uint32_t r = 0; r < rows; r++) squares[r] *= (float)(held[k] / raw[k]);
    }
}

static int place_sums(llm_calibration *c, sums *s, size_t *rows, size_t *inputs) {
    const llm_model *m = c->model;
    size_t layers = m->config.layers;
    *rows = *inputs = 0;
    c->row_squares_at = malloc((layers * LLM_LINEARS + 1) * sizeof *c->row_squares_at);
    c->input_squares_at = malloc((layers * LLM_INPUTS + 1) * sizeof *c->input_squares_at);
    if (!c->row_squares_at || !c->input_squares_at) return -1;
    for (size_t i = 0; i < layers * LLM_LINEARS; i++) {
        const llm_linear *linear = &m->layers[i / LLM_LINEARS].linears[i % LLM_LINEARS];
        size_t input = i / LLM_LINEARS * LLM_INPUTS + (size_t)llm_linear_inputs[i % LLM_LINEARS];
        c->row_squares_at[i] = *rows, *rows += linear->rows;
        c->input_squares_at[input] = linear->cols; /* for now */
    }
    c->row_squares_at[layers * LLM_LINEARS] = *rows, *rows += m->config.vocabulary;
    for (size_t i = 0; i < layers * LLM_INPUTS; i++) {
        size_t cols = c->input_squares_at[i];
        c->input_squares_at[i] = *inputs, *inputs += cols;
    }
    s->rows = calloc(*rows, sizeof *s->rows);
    s->inputs = calloc(*inputs, sizeof *s->inputs);
    c->row_squares = malloc(*rows * sizeof *c->row_squares);
    c->input_squares = malloc(*inputs * sizeof *c->input_squares);
    return s->rows && s->inputs && c->row_squares && c->input_squares ? 0 : -1;
}

int llm_calibration_backward(llm_calibration *c, int weighted, llm_labels labels, uint64_t seed, llm_progress progress, void *user) {
    const llm_rows *over = c->rows ? c->rows : c->probe;
    size_t length = over->length - 1, texts = over->count, rows, inputs, layers = c->model->config.layers;
    sums s;
    llm_backward b;
    memset(&s, 0, sizeof s);
    s.c = c;
    s.all = over->count * length;
    s.progress = progress, s.user = user;
    if (texts * length > SIDE_BY_SIDE) texts = SIDE_BY_SIDE / length ? SIDE_BY_SIDE / length : 1;
    while (texts > 1 && llm_backward_bytes(c->model, texts, length, 1, 1) > c->bytes) texts--;
    int failed = place_sums(c, &s, &rows, &inputs);
    if (!failed && weighted && c->rows) {
        s.tokens = calloc((layers * LLM_LINEARS + 1) * s.all, sizeof *s.tokens);
        c->token_weights = calloc((layers * LLM_INPUTS + 1) * s.all, sizeof *c->token_weights);
        failed = !s.tokens || !c->token_weights;
    }
    if (!failed && !(failed = llm_backward_init(&b, c->model, texts, length, 1, c->threads))) {
        b.observe = take_input;
        b.observe_user = &s;
        for (size_t row = 0; row < over->count; row += texts) {
            size_t some = over->count - row < texts ? over->count - row : texts;
            s.first = row * length;
            s.begin = (double)row / (double)over->count, s.end = (double)(row + some) / (double)over->count, s.steps = 0;
            c->loss += llm_backward_run(&b, over->ids + row * over->length, some, over->length, labels, seed + s.first * 0x9E3779B97F4A7C15u, take_gradient, &s) *
                       (double)some / (double)over->count;
        }
        llm_backward_free(&b);
        for (size_t i = 0; i < rows; i++) c->row_squares[i] = (float)(s.rows[i] / (double)s.all);
        for (size_t i = 0; i < inputs; i++) c->input_squares[i] = (float)(s.inputs[i] / (double)s.all);
        for (size_t i = 0; s.tokens && i <= layers * LLM_INPUTS; i++) weigh_input(c, &s, i / LLM_INPUTS, (int)(i % LLM_INPUTS));
    }
    free(s.rows), free(s.inputs), free(s.tokens);
    return failed ? -1 : 0;
}

double llm_calibration_sensitivity(const llm_calibration *c, uint32_t layer, int linear) {
    uint32_t rows = c->model->layers[layer].linears[linear].rows;
    const float *squares = c->row_squares + c->row_squares_at[layer * LLM_LINEARS + (uint32_t)linear];
    double sum = 0;
    for (uint32_t i = 0; i < rows; i++) sum += (double)squares[i];
    return sum / rows / 2;
}

double llm_calibration_output_square(const llm_calibration *c, uint32_t layer, int linear, const float *w) {
    const llm_linear *l = &c->model->layers[layer].linears[linear];
    const float *squares = c->input_squares + c->input_squares_at[layer * LLM_INPUTS + (uint32_t)llm_linear_inputs[linear]];
    double sum = 0;
    for (size_t i = 0; i < l->rows; i++)
        for (size_t j = 0; j < l->cols; j++) sum += (double)w[i * l->cols + j] * (double)w[i * l->cols + j] * (double)squares[j];
    return sum;
}

/* ---- moments ---- */

/* Products of a few hundred tokens at a time in float, their sum in double: far below the noise of what texts there are. */
enum { MOMENT_TOKENS = 512, BLOCK = 256 };

typedef struct gathering {
    llm_calibration *c;
    bitstack_moments *moments; /* one an input */
    size_t first;              /* token of those side by side */
    float *turned, *sums;      /* cols x tokens of a piece; BLOCK x BLOCK a thread */
    /* One piece: whole texts. */
    bitstack_moments *to;
    const float *x, *weights;
    size_t tokens, length, cols;
    unsigned char *finite; /* a token */
} gathering;

static void check_token(void *user, size_t t, int thread) {
    gathering *g = user;
    int finite = 1;
    (void)thread;
    for (size_t i = 0; i < g->cols; i++) finite &= isfinite(g->x[t * g->cols + i]) != 0;
    g->finite[t] = (unsigned char)finite;
}

/* Some channels of all tokens: turned, times the root of the token's weight, and each text's norm of them. */
static void turn_channels(void *user, size_t index, int thread) {
    const gathering *g = user;
    size_t begin = index * 16, end = begin + 16 < g->cols ? begin + 16 : g->cols;
    (void)thread;
    for (size_t t = 0; t < g->tokens; t++) {
        float root = !g->finite[t] ? 0 : g->weights ? sqrtf(g->weights[t]) : 1;
        for (size_t i = begin; i < end; i++) g->turned[i * g->tokens + t] = g->finite[t] ? root * g->x[t * g->cols + i] : 0;
    }
    for (size_t i = begin; i < end; i++)
        for (size_t from = 0; from < g->tokens; from += g->length) {
            double sum = 0;
            for (size_t t = from; t < from + g->length; t++) sum += (double)g->turned[i * g->tokens + t] * (double)g->turned[i * g->tokens + t];
            g->to->norms[i] += sqrt(sum);
        }
}

/* A block of the lower triangle and its mirror image. */
static void add_block(void *user, size_t index, int thread) {
    const gathering *g = user;
    size_t row = 0, n = g->cols;
    while ((row + 1) * (row + 2) / 2 <= index) row++;
    size_t i0 = row * BLOCK, j0 = (index - row * (row + 1) / 2) * BLOCK;
    size_t high = n - i0 < BLOCK ? n - i0 : BLOCK, wide = n - j0 < BLOCK ? n - j0 : BLOCK;
    float *block = g->sums + (size_t)thread * BLOCK * BLOCK;
    llm_gemm(g->turned + j0 * g->tokens, wide, g->tokens, g->turned + i0 * g->tokens, g->tokens, block, BLOCK, high);
    for (size_t i = 0; i < high; i++)
        for (size_t j = 0; j < wide; j++) g->to->h[(i0 + i) * n + j0 + j] += (double)block[i * BLOCK + j];
}

static void mirror_rows(void *user, size_t index, int thread) {
    bitstack_moments *m = user;
    size_t n = m->cols, end = (index + 1) * 16 < n ? (index + 1) * 16 : n;
    (void)thread;
    for (size_t j0 = 0; j0 < end; j0 += 16)
        for (size_t i = index * 16; i < end; i++)
            for (size_t j = j0; j < j0 + 16 && j < i; j++) m->h[j * n + i] = m->h[i * n + j];
}

static void add_moments(gathering *g, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    int threads = g->c->threads;
    size_t length = g->c->rows->length - 1, piece = length < MOMENT_TOKENS ? MOMENT_TOKENS / length * length : length, blocks = (cols + BLOCK - 1) / BLOCK;
    g->to = &g->moments[input], g->cols = cols, g->length = length;
    for (size_t at = 0; at < tokens; at += piece) {
        g->x = x + at * cols;
        g->tokens = tokens - at < piece ? tokens - at : piece;
        g->weights = g->c->token_weights ? weights_of(g->c, layer, input) + g->first + at : NULL;
        llm_parallel(threads, g->tokens, check_token, g);
        llm_parallel(threads, (cols + 15) / 16, turn_channels, g);
        if (g->to->h) llm_parallel(threads, blocks * (blocks + 1) / 2, add_block, g);
        for (size_t t = 0; t < g->tokens; t++) g->to->count += g->finite[t];
        g->to->samples += g->tokens / length;
    }
}

static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    add_moments(user, layer, input, x, tokens, cols);
}

/* Room to add what is up to `widest` wide. */
static int gathering_init(gathering *g, llm_calibration *c, bitstack_moments *moments, size_t widest) {
    size_t length = c->rows->length - 1, tokens = length < MOMENT_TOKENS ? MOMENT_TOKENS : length;
    memset(g, 0, sizeof *g);
    g->c = c;
    g->moments = moments;
    g->turned = malloc(tokens * widest * sizeof *g->turned);
    g->sums = malloc((size_t)c->threads * BLOCK * BLOCK * sizeof *g->sums);
    g->finite = malloc(tokens);
    return g->turned && g->sums && g->finite ? 0 : -1;
}

static void gathering_free(gathering *g) { free(g->turned), free(g->sums), free(g->finite); }

/* Texts side by side when only going forward: as many with any number of threads, as sums depend on it. */
static size_t texts_at_once(const llm_calibration *c) {
    size_t length = c->rows->length - 1, texts = SIDE_BY_SIDE / length ? SIDE_BY_SIDE / length : 1;
    if (texts > c->rows->count) texts = c->rows->count;
    while (texts > 1 && llm_backward_bytes(c->model, texts, length, 0, 1) > c->bytes) texts--;
    return texts;
}

int llm_calibration_gather(llm_calibration *c, int wanted) {
    const llm_config *config = &c->model->config;
    const uint32_t cols[LLM_INPUTS] = {config->width, config->heads * config->head_width, config->width, config->hidden};
    llm_backward b;
    gathering g;
    size_t widest = 0;
    if (!c->rows) return 0;
    size_t texts = texts_at_once(c);
    drop_moments(c);
    memset(c->moments, 0, sizeof c->moments);
    for (int i = 0; i < LLM_INPUTS; i++)
        if (cols[i] > widest) widest = cols[i];
    if (llm_backward_init(&b, c->model, texts, c->rows->length - 1, 0, c->threads) != 0) return -1;
    int failed = gathering_init(&g, c, c->moments, widest);
    for (int i = 0; i < LLM_INPUTS && !failed && wanted; i++) failed = bitstack_moments_init(&c->moments[i], cols[i], !c->diagonal[i]) != BITSTACK_OK;
    c->has_moments = wanted;
    if (wanted) b.observe = observe, b.observe_user = &g;
    for (size_t row = 0; row < c->rows->count && !failed; row += texts) {
        g.first = row * (c->rows->length - 1);
        llm_backward_layer(&b, c->layer, c->x + row * row_floats(c, c->rows), c->rows->count - row < texts ? c->rows->count - row : texts);
    }
    for (int i = 0; i < LLM_INPUTS && !failed && wanted; i++)
        if (c->moments[i].h) llm_parallel(c->threads, (cols[i] + 15) / 16, mirror_rows, &c->moments[i]);
    gathering_free(&g);
    llm_backward_free(&b);
    return failed ? -1 : 0;
}

int llm_calibration_gather_head(llm_calibration *c, bitstack_moments *moments) {
    size_t width = c->model->config.width, tokens = c->rows ? c->rows->length - 1 : 0;
    gathering g;
    if (!c->rows) return -1;
    float *x = malloc(tokens * width * sizeof *x);
    int failed = gathering_init(&g, c, moments, width) || !x || bitstack_moments_init(moments, (uint32_t)width, 1) != BITSTACK_OK;
    for (size_t row = 0; row < c->rows->count && !failed; row++) {
        memcpy(x, c->x + row * tokens * width, tokens * width * sizeof *x);
        llm_final_norm(c->model, x, (uint32_t)tokens);
        g.first = row * tokens;
        add_moments(&g, c->model->config.layers, 0, x, tokens, (uint32_t)width);
    }
    if (!failed) llm_parallel(c->threads, (width + 15) / 16, mirror_rows, moments);
    gathering_free(&g);
    free(x);
    return failed ? -1 : 0;
}

/* Mean loss over the first rows of the probe, each by `row`; a negative number for lack of memory. */
static double mean_loss(llm_calibration *c, size_t rows, void (*row)(void *, size_t, int)) {
    double sum = 0;
    if (rows > c->probe->count) rows = c->probe->count;
    job j = {c, malloc(rows * row_floats(c, c->probe) * sizeof *j.copies), malloc(rows * sizeof *j.losses)};
    int failed = !j.copies || !j.losses;
    if (!failed) {
        each_probe_row(c, rows, row, &j);
        for (size_t r = 0; r < rows; r++) sum += j.losses[r];
    }
    free(j.copies), free(j.losses);
    return failed ? -1 : sum / (double)(rows * (c->probe->length - 1));
}

double llm_calibration_loss(llm_calibration *c, int linear, const float *dense, size_t rows) {
    llm_linear *replaced = &c->model->layers[c->layer].linears[linear];
    const float *original = replaced->dense;
    replaced->dense = dense;
    double loss = mean_loss(c, rows, loss_row);
    replaced->dense = original;
    return loss;
}

double llm_calibration_vocabulary_loss(llm_calibration *c, int parts, const float *dense, size_t rows) {
    llm_model *m = c->model;
    const float *embedding = m->embedding.dense, *head = m->head.dense;
    uint32_t layer = c->layer;
    if (parts & LLM_EMBEDDING) m->embedding.dense = dense, c->layer = 0;
    if (parts & LLM_HEAD) m->head.dense = dense;
    double loss = mean_loss(c, rows, parts & LLM_EMBEDDING ? loss_row_from_tokens : loss_row);
    m->embedding.dense = embedding;
    m->head.dense = head;
    c->layer = layer;
    return loss;
}

void llm_calibration_next(llm_calibration *c) {
    job j = {c, NULL, NULL};
    drop_moments(c);
    each_probe_row(c, c->probe->count, advance_probe, &j);
    c->layer++;
}
