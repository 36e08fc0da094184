#define BITSTACK_POOL
#include "evaluate.h"
#include "dense.h"
#include "parallel.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { AT_ONCE = 128, BATCH = 512 }; /* tokens whose logits are held; that go through the model at once */

double llm_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int llm_rows_cut(llm_rows *rows, const uint32_t *ids, size_t count, size_t length, size_t most) {
    size_t available = count / length;
    if (!available && count >= 2) available = 1, length = count;
    if (!available) return -1;
    size_t kept = most && most < available ? most : available;
    rows->ids = malloc(kept * length * sizeof *rows->ids);
    if (!rows->ids) return -1;
    rows->count = kept;
    rows->length = length;
    for (size_t r = 0; r < kept; r++)
        memcpy(rows->ids + r * length, ids + r * available / kept * length, length * sizeof *ids);
    return 0;
}

void llm_rows_free(llm_rows *rows) {
    free(rows->ids);
    memset(rows, 0, sizeof *rows);
}

/* log of the sum of exponentials. */
static double log_sum(const float *logits, uint32_t count) {
    float top = llm_greatest(logits, count);
    return (double)top + log(llm_exp_sum(logits, count, top));
}

void llm_score(const float *logits, const float *reference, uint32_t count, uint32_t next, double *nll, double *kl) {
    double norm = log_sum(logits, count);
    *nll += norm - (double)logits[next];
    if (!reference) return;
    double reference_norm = log_sum(reference, count);
    *kl += llm_exp_difference(reference, logits, count, (float)reference_norm, (float)(reference_norm - norm));
}

/* Rows shared out over the threads, or one after the other with all threads on each. */
typedef struct job {
    const llm_model *model, *against; /* against: NULL once the cache is full */
    float *cache;                     /* the reference's logits, all rows, or NULL */
    const llm_rows *rows;
    llm_state *states; /* two a thread: the model's, the other's */
    float *logits;     /* two lots of AT_ONCE x vocabulary a thread */
    llm_quality *results; /* one a row, so that sums do not depend on threads */
    llm_progress progress;
    void *user;
    size_t done; /* tokens */
    pthread_mutex_t lock;
} job;

typedef struct scoring {
    const float *logits, *reference; /* reference: or NULL */
    const uint32_t *next;
    size_t vocabulary, count, step;
    double nll[AT_ONCE], kl[AT_ONCE];
} scoring;

static void score_tokens(void *context, size_t part) {
    scoring *s = context;
    for (size_t t = part * s->step; t < (part + 1) * s->step && t < s->count; t++) {
        s->nll[t] = s->kl[t] = 0;
        llm_score(s->logits + t * s->vocabulary, s->reference ? s->reference + t * s->vocabulary : NULL,
                  (uint32_t)s->vocabulary, s->next[t], &s->nll[t], &s->kl[t]);
    }
}

static void score(const llm_model *m, scoring *s, llm_quality *q) {
    size_t parts = m->parallel.threads > 1 ? (size_t)m->parallel.threads : 1;
    s->step = (s->count + parts - 1) / parts;
    if (parts > 1) m->parallel.run(m->parallel.user, score_tokens, s, parts);
    else score_tokens(s, 0);
    for (size_t t = 0; t < s->count; t++) q->nll += s->nll[t], q->kl += s->kl[t];
}

static void show(job *j, size_t tokens) {
    pthread_mutex_lock(&j->lock);
    j->done += tokens;
    if (j->progress) j->progress(j->user, (double)j->done / ((double)j->rows->count * (double)(j->rows->length - 1)));
    pthread_mutex_unlock(&j->lock);
}

static void evaluate_row(void *user, size_t row, int thread) {
    job *j = user;
    const uint32_t *ids = j->rows->ids + row * j->rows->length;
    size_t vocabulary = j->model->config.vocabulary;
    uint32_t tokens = (uint32_t)j->rows->length - 1;
    llm_state *state = &j->states[2 * thread], *other = &j->states[2 * thread + 1];
    float *logits = j->logits + (size_t)thread * 2 * AT_ONCE * vocabulary;
    llm_quality *q = &j->results[row];
    state->position = other->position = 0;
    for (uint32_t done = 0; done < tokens; ) {
        uint32_t count = tokens - done < state->batch ? tokens - done : state->batch;
        double start = llm_seconds();
        llm_forward(j->model, state, ids + done, count);
        q->seconds += llm_seconds() - start;
        if (j->against) llm_forward(j->against, other, ids + done, count);
        for (uint32_t first = 0; first < count; first += AT_ONCE) {
            uint32_t some = count - first < AT_ONCE ? count - first : AT_ONCE;
            float *reference = j->cache ? j->cache + (row * tokens + done + first) * vocabulary
                                        : logits + AT_ONCE * vocabulary;
            start = llm_seconds();
            llm_logits(j->model, state, first, some, logits);
            q->seconds += llm_seconds() - start;
            if (j->against) llm_logits(j->against, other, first, some, reference);
            scoring s = {logits, j->against || j->cache ? reference : NULL, ids + done + first + 1, vocabulary, some, 0, {0}, {0}};
            score(j->model, &s, q);
            show(j, some);
        }
        done += count;
    }
    q->tokens = tokens;
}

/* A copy of the model with this pool (NULL: none) in place of its own. A stack's products have the threads that it was
 * opened with, so it stays as it is. */
static const llm_model *with_pool(const llm_model *m, bitstack_pool *pool, llm_model *copy) {
    if (!m || m->source.stack) return m;
    *copy = *m;
    copy->pool = pool;
    memset(&copy->parallel, 0, sizeof copy->parallel);
    if (pool) copy->parallel = bitstack_pool_parallel(pool);
    return copy;
}

int llm_evaluate(const llm_model *model, llm_reference *against, const llm_rows *rows, int threads,
                 llm_progress progress, void *user, llm_quality *quality) {
    llm_model copies[2];
    bitstack_pool *pool = NULL;
    job j = {model, against && !against->logits ? against->model : NULL, NULL, rows, NULL, NULL, NULL, progress, user,
             0, PTHREAD_MUTEX_INITIALIZER};
    if (threads < 1) threads = 1;
    /* Rows that come out even are shared out: nobody waits for anybody. Else all threads work on each row. */
    int stack = model->source.stack != NULL, whole = stack ? model->pool != NULL : threads > 1 && rows->count % (size_t)threads != 0;
    if (whole && !stack && bitstack_pool_open(&pool, threads, NULL) != BITSTACK_OK) whole = 0;
    if (!stack || !whole) j.model = with_pool(j.model, pool, &copies[0]), j.against = with_pool(j.against, pool, &copies[1]);
    if (whole) threads = 1;
    int failed = 0;
    if ((size_t)threads > rows->count) threads = (int)rows->count;
    size_t vocabulary = model->config.vocabulary;
    double all = (double)rows->count * (double)(rows->length - 1) * (double)vocabulary * sizeof(float);
    if (j.against && all < 2e9) against->logits = malloc((size_t)all); /* without it, they are made each time */
    if (against) j.cache = against->logits;
    j.states = calloc(2 * (size_t)threads, sizeof *j.states);
    j.results = calloc(rows->count, sizeof *j.results);
    j.logits = malloc((size_t)threads * 2 * AT_ONCE * vocabulary * sizeof *j.logits);
    failed = !j.states || !j.results || !j.logits;
    for (int i = 0; i < 2 * threads && !failed; i++)
        if (i % 2 == 0 || j.against)
            failed = llm_state_init(&j.states[i], i % 2 ? j.against : j.model, (uint32_t)rows->length - 1, BATCH) != 0;
    if (!failed) {
        llm_parallel(threads, rows->count, evaluate_row, &j);
        memset(quality, 0, sizeof *quality);
        for (size_t r = 0; r < rows->count; r++) {
            quality->nll += j.results[r].nll;
            quality->kl += j.results[r].kl;
            quality->seconds += j.results[r].seconds;
            quality->tokens += j.results[r].tokens;
        }
        quality->nll /= (double)quality->tokens;
        quality->kl /= (double)quality->tokens;
        quality->seconds /= threads;
    }
    for (int i = 0; j.states && i < 2 * threads; i++) llm_state_free(&j.states[i]);
    free(j.states), free(j.results), free(j.logits);
    bitstack_pool_close(pool);
    if (failed && j.against) free(against->logits), against->logits = NULL;
    return failed ? -1 : 0;
}
