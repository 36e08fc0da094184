#include "generate.h"
#include "parallel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

int llm_generator_init(llm_generator *g, const llm_model *m, uint32_t context) {
    memset(g, 0, sizeof *g);
    if (!context) context = m->config.context < 4096 ? m->config.context : 4096;
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
        llm_forward(g->model, &g->state, g->ids + g->state.position, some);
        last = some - 1;
    }
    llm_logits(g->model, &g->state, last, 1, g->logits);
    int64_t id = llm_sample(sampler, g->logits, g->model->config.vocabulary);
    uint32_t next = (uint32_t)id;
    if (id >= 0) llm_generator_add(g, &next, 1);
    return id;
}

typedef struct job {
    llm_rows *rows;
    llm_generator *generators; /* one a thread */
    uint32_t begin;
    uint64_t seed;
    llm_progress progress;
    void *user;
    size_t done;
    int failed;
    pthread_mutex_t lock;
} job;

static void generate_row(void *user, size_t row, int thread) {
    job *j = user;
    llm_generator *g = &j->generators[thread];
    llm_sampler sampler = {1, 1, j->seed + (row << 20)};
    int failed = 0;
    g->count = g->state.position = 0;
    llm_generator_add(g, &j->begin, 1);
    for (size_t i = 0; i < j->rows->length && !failed; i++) {
        int64_t id = llm_generator_next(g, &sampler);
        failed = id < 0;
        if (!failed) j->rows->ids[row * j->rows->length + i] = (uint32_t)id;
    }
    pthread_mutex_lock(&j->lock);
    j->failed |= failed;
    j->done++;
    if (j->progress) j->progress(j->user, (double)j->done / (double)j->rows->count);
    pthread_mutex_unlock(&j->lock);
}

int llm_generate_rows(llm_rows *rows, const llm_model *m, size_t count, size_t length, uint64_t seed, int threads,
                      llm_progress progress, void *user) {
    double begin = llm_number(&m->source, "tokenizer.ggml.bos_token_id", 0);
    job j = {rows, NULL, begin >= 0 && begin < m->config.vocabulary ? (uint32_t)begin : 0, seed, progress, user,
             0, 0, PTHREAD_MUTEX_INITIALIZER};
    if (threads < 1) threads = 1;
    if ((size_t)threads > count) threads = (int)count;
    rows->count = count;
    rows->length = length;
    rows->ids = malloc(count * length * sizeof *rows->ids);
    j.generators = calloc((size_t)threads, sizeof *j.generators);
    j.failed = !rows->ids || !j.generators;
    for (int i = 0; i < threads && !j.failed; i++)
        j.failed = llm_generator_init(&j.generators[i], m, (uint32_t)length + 1) != 0;
    if (!j.failed) llm_parallel(threads, count, generate_row, &j);
    for (int i = 0; j.generators && i < threads; i++) llm_generator_free(&j.generators[i]);
    free(j.generators);
    if (j.failed) llm_rows_free(rows);
    return j.failed ? -1 : 0;
}
