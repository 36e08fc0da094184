#define BITSTACK_POOL
#include "evaluate.h"
#include "dense.h"
#include "parallel.h"
#include "platform.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BATCH = 512,      /* tokens that go through the model at once, whose logits are held at most */
    LEAST = 48,       /* and at least: halves of it still go through the products of many vectors */
    PIECE = 4096,     /* logits that are scored while they are in the first-level cache */
    PACKED_ROWS = 64  /* of a matrix, a piece of work */
};
static const size_t LOGITS_BYTES = (size_t)256 << 20, PACKED_BYTES = (size_t)1 << 30;

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

/* A sum of exponentials e^(x - top) and one with them as weights, whatever the top becomes. */
typedef struct sums {
    double exponentials, weighted;
    float top;
} sums;

static void raise_to(sums *s, float top) {
    if (top <= s->top) return;
    double less = exp((double)s->top - (double)top);
    s->exponentials *= less, s->weighted *= less;
    s->top = top;
}

static double log_of(const sums *s) { return (double)s->top + log(s->exponentials); }

/* Everything that is summed over the vocabulary in one pass over it. */
void llm_score(const float *logits, const float *reference, uint32_t count, uint32_t next, double *nll, double *kl) {
    sums own = {0, 0, -INFINITY}, other = {0, 0, -INFINITY};
    float shift = 0;
    for (uint32_t i = 0; i < count; i += PIECE) {
        uint32_t some = count - i < PIECE ? count - i : PIECE;
        raise_to(&own, llm_greatest(logits + i, some));
        own.exponentials += llm_exp_sum(logits + i, some, own.top);
        if (!reference) continue;
        raise_to(&other, llm_greatest(reference + i, some));
        other.exponentials += llm_exp_sum(reference + i, some, other.top);
        if (i == 0) shift = other.top - own.top; /* what all logits differ by costs the differences no digits */
        other.weighted += llm_exp_difference(reference + i, logits + i, some, other.top, shift);
    }
    *nll += log_of(&own) - (double)logits[next];
    if (reference) *kl += other.weighted / other.exponentials + (double)shift - (log_of(&other) - log_of(&own));
}

/* Rows shared out over the threads, or one after the other with all threads on each. */
typedef struct job {
    const llm_model *model, *against; /* against: NULL once the cache is full */
    float *cache;                     /* the reference's logits, all rows, or NULL */
    const llm_rows *rows;
    llm_state *states; /* two a thread: the model's, the other's */
    float *logits;     /* two lots of at_once x vocabulary a thread, one where the cache has the other */
    size_t at_once, lots;
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
    double nll[BATCH], kl[BATCH];
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
    float *logits = j->logits + (size_t)thread * j->lots * j->at_once * vocabulary;
    llm_quality *q = &j->results[row];
    state->position = other->position = 0;
    for (uint32_t done = 0; done < tokens; ) {
        uint32_t count = tokens - done < state->batch ? tokens - done : state->batch;
        double start = llm_seconds();
        llm_forward(j->model, state, ids + done, count);
        q->seconds += llm_seconds() - start;
        if (j->against) llm_forward(j->against, other, ids + done, count);
        uint32_t pieces = (uint32_t)((count + j->at_once - 1) / j->at_once), each = (count + pieces - 1) / pieces;
        for (uint32_t first = 0; first < count; first += each) {
            uint32_t some = count - first < each ? count - first : each;
            float *reference = j->cache ? j->cache + (row * tokens + done + first) * vocabulary
                                        : logits + j->at_once * vocabulary;
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

/* A model of floats as it is evaluated: with this pool (NULL: none) in place of its own, and its matrices packed once for
 * all rows where there is such a thing. A stack's products have the threads that it was opened with: it stays as it is. */
typedef struct prepared {
    llm_model copy;
    float *packed;
} prepared;

typedef struct packing {
    const llm_linear *linear;
    float *to;
} packing;

static void pack_piece(void *user, size_t piece, int thread) {
    const packing *p = user;
    size_t first = piece * PACKED_ROWS, left = p->linear->rows - first, cols = p->linear->cols;
    (void)thread;
    llm_pack(p->linear->dense + first * cols, cols, 0, left < PACKED_ROWS ? left : PACKED_ROWS, cols,
             p->to + first * (llm_packed_floats(32, cols) / 32));
}

static llm_linear *linear_of(llm_model *m, size_t i) {
    return i < m->config.layers * (size_t)LLM_LINEARS ? &m->layers[i / LLM_LINEARS].linears[i % LLM_LINEARS] : &m->head;
}

/* Leaves the model as it is where there is no memory. */
static void pack(prepared *p, int threads) {
    llm_model *m = &p->copy;
    size_t count = m->config.layers * (size_t)LLM_LINEARS + 1, floats = 0;
    llm_layer *layers = malloc(m->config.layers * sizeof *layers);
    for (size_t i = 0; i < count; i++) {
        const llm_linear *linear = linear_of(m, i);
        if (linear->dense) floats += llm_packed_floats(linear->rows, linear->cols);
    }
    if (floats && floats <= PACKED_BYTES / sizeof(float)) p->packed = platform_aligned((floats + 15) / 16 * 64);
    if (!layers || !p->packed) {
        free(layers);
        return;
    }
    memcpy(layers, m->layers, m->config.layers * sizeof *layers);
    m->layers = layers;
    float *to = p->packed;
    for (size_t i = 0; i < count; i++) {
        llm_linear *linear = linear_of(m, i);
        size_t some = linear->dense ? llm_packed_floats(linear->rows, linear->cols) : 0;
        packing one = {linear, to};
        if (!some) continue;
        llm_parallel(threads, (linear->rows + PACKED_ROWS - 1) / PACKED_ROWS, pack_piece, &one);
        linear->packed = to;
        to += some;
    }
}

static const llm_model *prepare(const llm_model *m, bitstack_pool *pool, int threads, int many, prepared *p) {
    if (!m || m->source.stack) return m;
    p->copy = *m;
    p->copy.pool = pool;
    memset(&p->copy.parallel, 0, sizeof p->copy.parallel);
    if (pool) p->copy.parallel = bitstack_pool_parallel(pool);
    if (many) pack(p, threads);
    return &p->copy;
}

static void release(prepared *p) {
    if (p->packed) free(p->copy.layers);
    platform_aligned_free(p->packed);
}

int llm_evaluate(const llm_model *model, llm_reference *against, const llm_rows *rows, int threads,
                 llm_progress progress, void *user, llm_quality *quality) {
    prepared models[2] = {{.packed = NULL}, {.packed = NULL}};
    bitstack_pool *pool = NULL;
    job j = {.rows = rows, .progress = progress, .user = user, .lock = PTHREAD_MUTEX_INITIALIZER};
    int asked = threads < 1 ? 1 : threads, many = rows->length > LLM_PACKED_LEAST;
    threads = asked;
    /* Rows that come out even are shared out: nobody waits for anybody. Else all threads work on each row. */
    int stack = model->source.stack != NULL, whole = stack ? model->pool != NULL : threads > 1 && rows->count % (size_t)threads != 0;
    if (whole && !stack && bitstack_pool_open(&pool, threads, NULL) != BITSTACK_OK) whole = 0;
    size_t vocabulary = model->config.vocabulary;
    const llm_model *other = against && !against->logits ? against->model : NULL;
    j.model = prepare(model, pool, asked, many, &models[0]);
    j.against = prepare(other, other && stack && whole ? other->pool : pool, asked, many, &models[1]);
    if (whole) threads = 1;
    if ((size_t)threads > rows->count) threads = (int)rows->count;
    double all = (double)rows->count * (double)(rows->length - 1) * (double)vocabulary * sizeof(float);
    if (j.against && !against->once && all < 2e9) against->logits = malloc((size_t)all); /* without it, they are made each time */
    if (against) j.cache = against->logits;
    j.lots = j.against && !j.cache ? 2 : 1;
    j.at_once = LOGITS_BYTES / sizeof(float) / vocabulary / j.lots / (size_t)threads;
    j.at_once = j.at_once < LEAST ? LEAST : j.at_once > BATCH ? BATCH : j.at_once;
    if (j.at_once > rows->length - 1) j.at_once = rows->length - 1;
    j.states = calloc(2 * (size_t)threads, sizeof *j.states);
    j.results = calloc(rows->count, sizeof *j.results);
    j.logits = malloc((size_t)threads * j.lots * j.at_once * vocabulary * sizeof *j.logits);
    int failed = !j.states || !j.results || !j.logits;
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
    release(&models[0]), release(&models[1]);
    bitstack_pool_close(pool);
    if (failed && j.against) free(against->logits), against->logits = NULL;
    return failed ? -1 : 0;
}
