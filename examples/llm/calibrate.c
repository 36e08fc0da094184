#include "calibrate.h"
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 32, MOST_SHARDS = 8 };
static const double SHARD_BYTES = 256e6; /* all shards of a layer stay below this, or there is only one */

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

static void head_shard(void *user, size_t shard, int thread) {
    job *j = user;
    llm_calibration *c = j->c;
    size_t tokens = c->rows->length - 1, width = c->model->config.width;
    float *x = c->states[thread].x;
    for (size_t row = shard; row < c->rows->count; row += (size_t)c->shards) {
        memcpy(x, c->x + row * tokens * width, tokens * width * sizeof *x);
        llm_final_norm(c->model, x, (uint32_t)tokens);
        bitstack_moments_add(&j->shards[shard][0], x, tokens, width);
    }
}

static void advance_probe(void *user, size_t row, int thread) {
    llm_calibration *c = ((job *)user)->c;
    advance(c, c->probe, c->probe_x, row, &c->states[thread]);
}

static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    bitstack_moments *moments = user;
    (void)layer;
    bitstack_moments_add(&moments[input], x, tokens, cols);
}

static void gather_shard(void *user, size_t shard, int thread) {
    job *j = user;
    llm_state *state = &j->c->states[thread];
    state->observe = observe;
    state->observe_user = j->shards[shard];
    for (size_t row = shard; row < j->c->rows->count; row += (size_t)j->c->shards) advance(j->c, j->c->rows, j->c->x, row, state);
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
    c->logits = malloc((size_t)c->threads * AT_ONCE * vocabulary * sizeof *c->logits);
    job j = {c, malloc(probe->count * row_floats(c, probe) * sizeof *j.copies), NULL, NULL};
    int failed = (rows && !c->x) || !c->probe_x || !c->reference || !c->states || !c->logits || !j.copies;
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
    free(c->x), free(c->probe_x), free(c->reference), free(c->states), free(c->logits);
    memset(c, 0, sizeof *c);
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
