#include "calibrate.h"
#include "parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 32, MOST_SHARDS = 8, SIDE_BY_SIDE = 4096 };
/* No token counts more than so many times the mean: the first ones of a text, where attention heads park what they do
 * not use, would otherwise outweigh all others. */
static const double MOST_WEIGHT = 8;
static const double SHARD_BYTES = 256e6; /* all shards of a layer stay below this, or there is only one */

static size_t row_floats(const llm_calibration *c, const llm_rows *rows) {
    return (rows->length - 1) * c->model->config.width;
}

/* Room for any input of a row. */
static size_t scaled_floats(const llm_calibration *c) {
    const llm_config *m = &c->model->config;
    size_t q = (size_t)m->heads * m->head_width, widest = m->hidden > q ? m->hidden : q;
    return (c->rows->length - 1) * (widest > m->width ? widest : m->width);
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

typedef struct job {
    llm_calibration *c;
    float *copies;  /* one a row: streams that are used up */
    double *losses; /* one a row */
    bitstack_moments (*shards)[LLM_INPUTS];
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

/* Adds a row's inputs, each times the root of its weight; `scaled` (room for them) may be x. */
static void add_weighted(const llm_calibration *c, uint32_t layer, int input, size_t row, bitstack_moments *moments, const float *x,
                         size_t tokens, uint32_t cols, float *scaled) {
    const float *weights = c->token_weights ? weights_of(c, layer, input) + row * (c->rows->length - 1) : NULL;
    for (size_t t = 0; weights && t < tokens; t++) {
        float root = sqrtf(weights[t]);
        for (size_t i = t * cols; i < (t + 1) * cols; i++) scaled[i] = root * x[i];
    }
    bitstack_moments_add(moments, weights ? scaled : x, tokens, cols);
}

static void head_shard(void *user, size_t shard, int thread) {
    job *j = user;
    llm_calibration *c = j->c;
    size_t tokens = c->rows->length - 1, width = c->model->config.width;
    float *x = c->states[thread].x;
    for (size_t row = shard; row < c->rows->count; row += (size_t)c->shards) {
        memcpy(x, c->x + row * tokens * width, tokens * width * sizeof *x);
        llm_final_norm(c->model, x, (uint32_t)tokens);
        add_weighted(c, c->model->config.layers, 0, row, &j->shards[shard][0], x, tokens, (uint32_t)width, x);
    }
}

static void advance_probe(void *user, size_t row, int thread) {
    llm_calibration *c = ((job *)user)->c;
    advance(c, c->probe, c->probe_x, row, &c->states[thread]);
}

typedef struct gathering {
    const llm_calibration *c;
    bitstack_moments *moments;
    size_t row;
    float *scaled; /* room for any input of a row */
} gathering;

static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    const gathering *g = user;
    add_weighted(g->c, layer, input, g->row, &g->moments[input], x, tokens, cols, g->scaled);
}

static void gather_shard(void *user, size_t shard, int thread) {
    job *j = user;
    llm_calibration *c = j->c;
    llm_state *state = &c->states[thread];
    gathering g = {c, j->shards[shard], shard, c->scaled + (size_t)thread * scaled_floats(c)};
    state->observe = observe;
    state->observe_user = &g;
    for (; g.row < c->rows->count; g.row += (size_t)c->shards) advance(c, c->rows, c->x, g.row, state);
    state->observe = NULL;
}

int llm_calibration_init(llm_calibration *c, llm_model *m, const llm_rows *rows, const llm_rows *probe, int threads) {
    size_t vocabulary = m->config.vocabulary, longest = probe->length;
    memset(c, 0, sizeof *c);
    c->model = m;
    c->rows = rows;
    c->probe = probe;
    c->threads = threads < 1 ? 1 : threads;
    if (rows && rows->length > longest) longest = rows->length;
    if (rows) c->x = malloc(rows->count * row_floats(c, rows) * sizeof *c->x);
    c->probe_x = malloc(probe->count * row_floats(c, probe) * sizeof *c->probe_x);
    c->reference = malloc(probe->count * (probe->length - 1) * vocabulary * sizeof *c->reference);
    c->states = calloc((size_t)c->threads, sizeof *c->states);
    if (rows) c->scaled = malloc((size_t)c->threads * scaled_floats(c) * sizeof *c->scaled);
    c->logits = malloc((size_t)c->threads * AT_ONCE * vocabulary * sizeof *c->logits);
    job j = {c, malloc(probe->count * row_floats(c, probe) * sizeof *j.copies), NULL, NULL};
    int failed = (rows && (!c->x || !c->scaled)) || !c->probe_x || !c->reference || !c->states || !c->logits || !j.copies;
    for (int i = 0; i < c->threads && !failed; i++)
        failed = llm_state_init(&c->states[i], m, (uint32_t)longest, (uint32_t)longest) != 0;
    if (!failed) {
        if (rows) llm_parallel(c->threads, rows->count, embed_row, &j);
        llm_parallel(c->threads, probe->count, reference_row, &j);
        double cols[LLM_INPUTS] = {m->config.width, (double)m->config.heads * m->config.head_width, m->config.width,
                                   m->config.hidden}, bytes = 0;
        for (int i = 0; i < LLM_INPUTS; i++) bytes += 8 * cols[i] * cols[i];
        for (c->shards = 1; c->shards < MOST_SHARDS && 2 * c->shards * bytes <= SHARD_BYTES; ) c->shards *= 2;
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
    free(c->x), free(c->scaled), free(c->probe_x), free(c->reference), free(c->states), free(c->logits);
    memset(c, 0, sizeof *c);
}

/* ---- backward ---- */

typedef struct sums {
    llm_calibration *c;
    double *rows, *inputs; /* where row_squares_at and input_squares_at say */
    float *tokens;         /* as token_weights, or NULL */
    size_t first, all;     /* the first token of those side by side; of all */
    /* What one call adds up: squares of g, tokens x rows, a token (added to `to`, unless NULL) and a row. */
    const float *g;
    size_t count, width;
    float *to;
    double *to_rows;
} sums;

enum { PIECE = 64, ROWS_PIECE = 256 };

static void sum_piece(void *user, size_t index, int thread) {
    const sums *s = user;
    size_t token_pieces = s->to ? (s->count + PIECE - 1) / PIECE : 0;
    (void)thread;
    if (index < token_pieces) {
        for (size_t t = index * PIECE; t < s->count && t < (index + 1) * PIECE; t++) {
            const float *g = s->g + t * s->width;
            float parts[8] = {0}, sum = 0;
            size_t i = 0;
            for (; i + 8 <= s->width; i += 8)
                for (size_t k = 0; k < 8; k++) parts[k] += g[i + k] * g[i + k];
            for (; i < s->width; i++) sum += g[i] * g[i];
            for (size_t k = 0; k < 8; k++) sum += parts[k];
            s->to[t] += sum;
        }
        return;
    }
    size_t begin = (index - token_pieces) * ROWS_PIECE, end = begin + ROWS_PIECE < s->width ? begin + ROWS_PIECE : s->width;
    for (size_t t0 = 0; t0 < s->count; t0 += PIECE) { /* in float for a while, then in double */
        float parts[ROWS_PIECE] = {0};
        for (size_t t = t0; t < s->count && t < t0 + PIECE; t++)
            for (size_t i = begin; i < end; i++) parts[i - begin] += s->g[t * s->width + i] * s->g[t * s->width + i];
        for (size_t i = begin; i < end; i++) s->to_rows[i] += (double)parts[i - begin];
    }
}

static void sum_squares(sums *s, const float *g, size_t count, size_t width, float *to, double *to_rows) {
    s->g = g, s->count = count, s->width = width, s->to = to, s->to_rows = to_rows;
    llm_parallel(s->c->threads, (to ? (count + PIECE - 1) / PIECE : 0) + (width + ROWS_PIECE - 1) / ROWS_PIECE, sum_piece, s);
}

static void take_gradient(void *user, uint32_t layer, int place, const float *g, size_t first, size_t tokens, uint32_t rows) {
    sums *s = user;
    llm_calibration *c = s->c;
    if (place == LLM_AT_EMBEDDING) return;
    int input = place == LLM_AT_HEAD ? 0 : llm_linear_inputs[place];
    float *to = s->tokens ? s->tokens + ((size_t)layer * LLM_INPUTS + (size_t)input) * s->all + s->first + first : NULL;
    sum_squares(s, g, tokens, rows, to, s->rows + c->row_squares_at[layer * LLM_LINEARS + (uint32_t)(place == LLM_AT_HEAD ? 0 : place)]);
}

static void take_input(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    sums *s = user;
    sum_squares(s, x, tokens, cols, NULL, s->inputs + s->c->input_squares_at[layer * LLM_INPUTS + (uint32_t)input]);
}

/* Weights of mean 1, none above MOST_WEIGHT: what is cut off goes to all alike. */
static void even_out(float *weights, size_t count) {
    double mean = 0, kept = 0;
    for (size_t t = 0; t < count; t++) mean += (double)weights[t] / (double)count;
    for (int turn = 0; turn < 4 && mean > 0; turn++) { /* outliers raise the mean: after them the limit is lower */
        kept = 0;
        for (size_t t = 0; t < count; t++) kept += fmin((double)weights[t], MOST_WEIGHT * mean) / (double)count;
        for (size_t t = 0; t < count; t++) weights[t] = (float)fmin((double)weights[t], MOST_WEIGHT * mean);
        mean = kept;
    }
    for (size_t t = 0; t < count; t++) weights[t] = mean > 0 ? (float)((double)weights[t] / mean) : 1;
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

int llm_calibration_backward(llm_calibration *c, uint64_t bytes, int weighted, llm_labels labels, uint64_t seed, llm_progress progress, void *user) {
    const llm_rows *over = c->rows ? c->rows : c->probe;
    size_t length = over->length - 1, texts = over->count, rows, inputs, layers = c->model->config.layers;
    sums s;
    llm_backward b;
    memset(&s, 0, sizeof s);
    s.c = c;
    s.all = over->count * length;
    if (texts * length > SIDE_BY_SIDE) texts = SIDE_BY_SIDE / length ? SIDE_BY_SIDE / length : 1;
    while (texts > 1 && llm_backward_bytes(c->model, texts, length, 1, c->threads) > bytes) texts--;
    int failed = place_sums(c, &s, &rows, &inputs);
    if (!failed && weighted && c->rows) failed = !(s.tokens = calloc((layers * LLM_INPUTS + 1) * s.all, sizeof *s.tokens));
    if (!failed && !(failed = llm_backward_init(&b, c->model, texts, length, 1, c->threads))) {
        b.observe = take_input;
        b.observe_user = &s;
        for (size_t row = 0; row < over->count; row += texts) {
            size_t some = over->count - row < texts ? over->count - row : texts;
            s.first = row * length;
            c->loss += llm_backward_run(&b, over->ids + row * over->length, some, over->length, labels, seed + row, take_gradient, &s) *
                       (double)some / (double)over->count;
            if (progress) progress(user, (double)(row + some) / (double)over->count);
        }
        llm_backward_free(&b);
        for (size_t i = 0; i < rows; i++) c->row_squares[i] = (float)(s.rows[i] / (double)s.all);
        for (size_t i = 0; i < inputs; i++) c->input_squares[i] = (float)(s.inputs[i] / (double)s.all);
        for (size_t i = 0; s.tokens && i <= layers * LLM_INPUTS; i++) even_out(s.tokens + i * s.all, s.all);
        c->token_weights = s.tokens;
        s.tokens = NULL;
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

int llm_calibration_gather(llm_calibration *c) {
    const llm_config *config = &c->model->config;
    const uint32_t cols[LLM_INPUTS] = {config->width, config->heads * config->head_width, config->width, config->hidden};
    bitstack_moments shards[MOST_SHARDS][LLM_INPUTS];
    job j = {c, NULL, NULL, shards};
    int failed = 0;
    if (!c->rows) return 0;
    drop_moments(c);
    memset(shards, 0, sizeof shards);
    for (int s = 0; s < c->shards; s++)
        for (int i = 0; i < LLM_INPUTS && !failed; i++) failed = bitstack_moments_init(&shards[s][i], cols[i], !c->diagonal[i]) != BITSTACK_OK;
    if (!failed) llm_parallel(c->threads, (size_t)c->shards, gather_shard, &j);
    for (int s = 0; s < c->shards; s++)
        for (int i = 0; i < LLM_INPUTS; i++) {
            if (s && !failed) bitstack_moments_merge(&shards[0][i], &shards[s][i]);
            if (s || failed) bitstack_moments_free(&shards[s][i]);
        }
    if (failed) return -1;
    memcpy(c->moments, shards[0], sizeof c->moments);
    c->has_moments = 1;
    return 0;
}

int llm_calibration_gather_head(llm_calibration *c, bitstack_moments *moments) {
    bitstack_moments shards[MOST_SHARDS][LLM_INPUTS];
    job j = {c, NULL, NULL, shards};
    int failed = 0;
    if (!c->rows) return -1;
    memset(shards, 0, sizeof shards);
    for (int s = 0; s < c->shards && !failed; s++)
        failed = bitstack_moments_init(&shards[s][0], c->model->config.width, 1) != BITSTACK_OK;
    if (!failed) llm_parallel(c->threads, (size_t)c->shards, head_shard, &j);
    for (int s = 0; s < c->shards; s++) {
        if (s && !failed) bitstack_moments_merge(&shards[0][0], &shards[s][0]);
        if (s || failed) bitstack_moments_free(&shards[s][0]);
    }
    if (!failed) *moments = shards[0][0];
    return failed ? -1 : 0;
}

/* Mean loss over the first rows of the probe, each by `row`; a negative number for lack of memory. */
static double mean_loss(llm_calibration *c, size_t rows, void (*row)(void *, size_t, int)) {
    double sum = 0;
    if (rows > c->probe->count) rows = c->probe->count;
    job j = {c, malloc(rows * row_floats(c, c->probe) * sizeof *j.copies), malloc(rows * sizeof *j.losses), NULL};
    int failed = !j.copies || !j.losses;
    if (!failed) {
        llm_parallel(c->threads, rows, row, &j);
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
    job j = {c, NULL, NULL, NULL};
    drop_moments(c);
    llm_parallel(c->threads, c->probe->count, advance_probe, &j);
    c->layer++;
}
