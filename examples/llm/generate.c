#define BITSTACK_POOL
#include "generate.h"

#include <stdlib.h>
#include <string.h>

static uint32_t context_of(const llm_model *m, uint32_t context) {
    return context ? context : m->config.context < 4096 ? m->config.context : 4096;
}

uint64_t llm_generator_bytes(const llm_generator *g, const llm_model *m, uint32_t context, uint32_t more) {
    context = g ? g->state.context : context_of(m, context);
    uint64_t furthest = g ? g->furthest : 0, then = (g ? g->count : 0) + (uint64_t)more;
    uint32_t widest = g && g->count - g->state.position > g->widest ? g->count - g->state.position
                      : g                                           ? g->widest
                                                                    : 1;
    if (then > context) then = context;
    if (g && widest > g->state.batch) widest = g->state.batch;
    return llm_state_used(m, context, (uint32_t)(then > furthest ? then : furthest), widest) +
           (uint64_t)m->config.vocabulary * sizeof *g->logits + (uint64_t)context * sizeof *g->ids;
}

int llm_generator_init(llm_generator *g, const llm_model *m, uint32_t context) {
    memset(g, 0, sizeof *g);
    context = context_of(m, context);
    g->model = m;
    g->ids = malloc(context * sizeof *g->ids);
    g->logits = malloc(m->config.vocabulary * sizeof *g->logits);
    if (g->ids && g->logits && llm_state_init(&g->state, m, context, 0) == 0) return 0;
    llm_generator_free(g);
    return -1;
}

void llm_generator_free(llm_generator *g) {
    llm_state_free(&g->state);
    free(g->ids), free(g->logits);
    memset(g, 0, sizeof *g);
}

void llm_generator_add(llm_generator *g, const uint32_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (g->count == g->state.context) { /* start again with the newer half */
            g->count /= 2;
            memmove(g->ids, g->ids + g->state.context - g->count, g->count * sizeof *g->ids);
            g->state.position = 0;
        }
        g->ids[g->count++] = ids[i];
    }
}

int64_t llm_generator_next(llm_generator *g, llm_sampler *sampler) {
    uint32_t last = 0;
    while (g->state.position < g->count) {
        uint32_t some = g->count - g->state.position;
        if (some > g->state.batch) some = g->state.batch;
        if (some > g->widest) g->widest = some;
        if (g->state.position + some > g->furthest) g->furthest = g->state.position + some;
        llm_forward(g->model, &g->state, g->ids + g->state.position, some);
        last = some - 1;
    }
    llm_logits(g->model, &g->state, last, 1, g->logits);
    int64_t id = llm_sample(sampler, g->logits, g->model->config.vocabulary);
    uint32_t next = (uint32_t)id;
    if (id >= 0) llm_generator_add(g, &next, 1);
    return id;
}

/* ---- many texts at once ---- */

enum { SIDE_BY_SIDE = 64 };

/* What a row has still to take from openings before the model goes on. */
typedef struct forced {
    const uint32_t *ids;
    size_t left;
    size_t turn; /* of the openings */
} forced;

typedef struct writer {
    const llm_model *model;
    const llm_writing *how;
    llm_state state;
    uint32_t *ids; /* of the rows side by side: length each */
    size_t length, at;
    forced *forced;
    llm_sampler *samplers;
    float *logits;
    int *failed; /* a row */
} writer;

/* The next opening; at most half a row of it, so that there is something of the model's own in each. */
static void open_text(const writer *w, forced *f) {
    if (!w->how->opening_count) return;
    const llm_opening *o = &w->how->openings[f->turn++ % w->how->opening_count];
    f->ids = o->ids, f->left = o->count < w->length / 2 ? o->count : w->length / 2;
}

/* The next id of a row. */
static void write_next(void *context, size_t row) {
    writer *w = context;
    forced *f = &w->forced[row];
    int64_t id;
    if (f->left) id = *f->ids++, f->left--;
    else {
        id = llm_sample(&w->samplers[row], w->logits + row * w->model->config.vocabulary, w->model->config.vocabulary);
        if (id < 0) w->failed[row] = 1, id = 0;
        if (id == w->how->end) open_text(w, f);
    }
    w->ids[row * w->length + w->at] = (uint32_t)id;
}

static int write_side_by_side(writer *w, uint32_t *ids, size_t first, size_t count, llm_progress progress, void *user, double done, double share) {
    const llm_model *m = w->model;
    uint32_t *fed = malloc(count * sizeof *fed);
    int failed = !fed || llm_state_init_texts(&w->state, m, (uint32_t)w->length + 1, (uint32_t)count) != 0;
    w->ids = ids + first * w->length;
    w->at = 0;
    for (size_t r = 0; r < count && !failed; r++) {
        memset(&w->forced[r], 0, sizeof w->forced[r]);
        w->forced[r].turn = first + r;
        open_text(w, &w->forced[r]);
        w->samplers[r] = (llm_sampler){w->how->temperature, w->how->top_p, w->how->seed + ((first + r) << 20)};
        fed[r] = w->how->begin >= 0 ? (uint32_t)w->how->begin : 0;
        w->ids[r * w->length] = 0;
        if (w->how->begin < 0 && w->forced[r].left) write_next(w, r), fed[r] = w->ids[r * w->length];
    }
    /* Where nothing is to be put in front, the first id of the opening is fed in its place. */
    w->at = w->how->begin < 0 && w->how->opening_count;
    for (; w->at < w->length && !failed; w->at++) {
        llm_forward(m, &w->state, fed, (uint32_t)count);
        llm_logits(m, &w->state, 0, (uint32_t)count, w->logits);
        if (m->pool) m->parallel.run(m->parallel.user, write_next, w, count);
        else for (size_t r = 0; r < count; r++) write_next(w, r);
        for (size_t r = 0; r < count; r++) fed[r] = w->ids[r * w->length + w->at], failed |= w->failed[r];
        if (progress) progress(user, done + share * (double)(w->at + 1) / (double)w->length);
    }
    llm_state_free(&w->state);
    free(fed);
    return failed ? -1 : 0;
}

int llm_write_rows(llm_rows *rows, const llm_model *m, size_t count, size_t length, const llm_writing *how, llm_progress progress,
                   void *user) {
    llm_model shared = *m; /* the same one with threads that share the work of a token */
    uint64_t each = 2ull * m->config.layers * llm_kept_bytes(m->keep, m->config.kv_heads, m->config.head_width, length + 1);
    uint64_t at_once = (how->bytes ? how->bytes : 1000000000u) / each;
    size_t most = at_once < 1 ? 1 : at_once > SIDE_BY_SIDE ? SIDE_BY_SIDE : (size_t)at_once;
    if (most > count) most = count;
    most = (count + (count + most - 1) / most - 1) / ((count + most - 1) / most); /* the last lot is no smaller than it must be */
    writer w = {.model = &shared, .how = how, .length = length};
    shared.pool = NULL;
    if (how->threads > 1 && bitstack_pool_open(&shared.pool, how->threads, NULL) == BITSTACK_OK) shared.parallel = bitstack_pool_parallel(shared.pool);
    rows->count = count;
    rows->length = length;
    rows->ids = malloc(count * length * sizeof *rows->ids);
    w.forced = calloc(most, sizeof *w.forced);
    w.samplers = calloc(most, sizeof *w.samplers);
    w.failed = calloc(most, sizeof *w.failed);
    w.logits = malloc(most * m->config.vocabulary * sizeof *w.logits);
    int failed = !rows->ids || !w.forced || !w.samplers || !w.failed || !w.logits;
    for (size_t first = 0; first < count && !failed; first += most) {
        size_t some = count - first < most ? count - first : most;
        failed = write_side_by_side(&w, rows->ids, first, some, progress, user, (double)first / (double)count, (double)some / (double)count) != 0;
    }
    free(w.forced), free(w.samplers), free(w.failed), free(w.logits);
    bitstack_pool_close(shared.pool);
    if (failed) llm_rows_free(rows);
    return failed ? -1 : 0;
}

int llm_generate_rows(llm_rows *rows, const llm_model *m, size_t count, size_t length, uint64_t seed, int threads,
                      llm_progress progress, void *user) {
    double begin = llm_number(&m->source, "tokenizer.ggml.bos_token_id", 0);
    llm_writing how = {.begin = begin >= 0 && begin < m->config.vocabulary ? (int64_t)begin : 0, .end = -1, .temperature = 1, .top_p = 1,
                       .seed = seed, .threads = threads};
    return llm_write_rows(rows, m, count, length, &how, progress, user);
}
