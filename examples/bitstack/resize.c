#include "resize.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_MS = 20, IDLE_MS = 200 };

struct resizer {
    bitstack *stack;
    resizer_options options;
    memory_watch watch;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below, and of the stack */
    pthread_cond_t changed;
    uint64_t target;
    double looked; /* at the memory */
    double used; /* when it was last */
    int stop, settled, in_use, asleep, dropped;
    int waiting; /* threads in resizer_wait */
    int asking; /* threads that want the lock: mutexes are not fair, and blocks come one after the other */
    resizer_state state; /* steps, longest, memory, message */
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void enter(resizer *r) {
    __atomic_fetch_add(&r->asking, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&r->lock);
    __atomic_fetch_sub(&r->asking, 1, __ATOMIC_SEQ_CST);
}

/* Resident bytes with the first `blocks` blocks. */
static uint64_t bytes_at(const bitstack *stack, int blocks) {
    bitstack_block block;
    if (blocks < 1 || bitstack_get_block(stack, blocks - 1, &block) != BITSTACK_OK) return bitstack_base_bytes(stack);
    return block.resident_after;
}

/* The budget of the moment. */
static uint64_t goal(const resizer *r) { return r->asleep ? bitstack_base_bytes(r->stack) : r->target; }

/* One block towards the goal, or all at once where memory is short; 0 if there is nothing to do. */
static int step(resizer *r) {
    int loaded = bitstack_blocks_loaded(r->stack), next = loaded;
    bitstack_error error;
    if (bytes_at(r->stack, loaded) > goal(r)) next--;
    else if (loaded < bitstack_blocks_available(r->stack) && bytes_at(r->stack, loaded + 1) <= goal(r)) next++;
    if (next == loaded) return 0;
    r->dropped |= next < loaded;
    double start = seconds();
    memset(&error, 0, sizeof error);
    uint64_t bytes = next < loaded && (r->options.automatic || r->asleep) ? goal(r) : bytes_at(r->stack, next);
    bitstack_result result = bitstack_set_budget(r->stack, bytes, &error);
    double took = seconds() - start;
    if (took > r->state.longest) r->state.longest = took;
    r->state.steps += (uint64_t)abs(bitstack_blocks_loaded(r->stack) - loaded);
    if (result != BITSTACK_OK) memcpy(r->state.message, error.message, sizeof r->state.message);
    if (result == BITSTACK_ERROR_MEMORY) { /* no use in going on up */
        bitstack_set_budget(r->stack, bytes_at(r->stack, loaded), NULL);
        r->target = bytes_at(r->stack, loaded);
    }
    return 1;
}

static void look(resizer *r, double now) {
    if (r->options.arrived) bitstack_extend(r->stack, r->options.arrived(r->options.arrived_user));
    if (r->options.idle > 0 && !r->in_use && now - r->used > r->options.idle) r->asleep = 1;
    if (r->asleep || !r->options.automatic || now - r->looked < POLL_MS * 1e-3) return;
    r->looked = now;
    if (memory_read(&r->watch, now, &r->state.memory) != 0) return;
    uint64_t budget = memory_budget(&r->options.policy, &r->state.memory, bitstack_resident_bytes(r->stack), now);
    r->target = budget < bitstack_base_bytes(r->stack) ? bitstack_base_bytes(r->stack) : budget;
}

/* Until something else is asked for, or so many seconds later. */
static void rest(resizer *r, double time) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    long more = (long)(time * 1e9) + until.tv_nsec;
    until.tv_sec += more / 1000000000L;
    until.tv_nsec = more % 1000000000L;
    pthread_cond_timedwait(&r->changed, &r->lock, &until);
}

static void *work(void *user) {
    resizer *r = user;
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        double start = seconds();
        look(r, start);
        if (step(r)) {
            r->settled = 0;
            if (!r->waiting) rest(r, seconds() - start); /* half of the time for those who multiply */
            pthread_mutex_unlock(&r->lock);
            while (__atomic_load_n(&r->asking, __ATOMIC_SEQ_CST)) sched_yield();
            pthread_mutex_lock(&r->lock);
            continue;
        }
        if (r->dropped) memory_give_back();
        r->dropped = 0;
        if (!r->settled) pthread_cond_broadcast(&r->changed);
        r->settled = 1;
        if (r->options.automatic || r->options.arrived) rest(r, POLL_MS * 1e-3);
        else if (r->options.idle > 0 && !r->asleep && !r->in_use) rest(r, IDLE_MS * 1e-3);
        else pthread_cond_wait(&r->changed, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

int resizer_start(resizer **out, bitstack *stack, const resizer_options *options) {
    resizer *r = calloc(1, sizeof *r);
    if (!r) return -1;
    r->stack = stack;
    if (options) r->options = *options;
    r->target = r->options.budget ? r->options.budget : UINT64_MAX;
    r->used = seconds();
    if (!r->options.policy.most) r->options.policy.most = UINT64_MAX;
    memory_watch_init(&r->watch, r->options.group);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    if (pthread_create(&r->thread, NULL, work, r) != 0) {
        pthread_cond_destroy(&r->changed);
        pthread_mutex_destroy(&r->lock);
        free(r);
        return -1;
    }
    *out = r;
    return 0;
}

int resizer_budget(resizer *r, uint64_t bytes) {
    int good;
    enter(r);
    if (!bytes) bytes = UINT64_MAX;
    good = bytes >= bitstack_base_bytes(r->stack);
    if (good) {
        r->target = bytes;
        r->settled = 0;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return good ? 0 : -1;
}

int resizer_trim(resizer *r, bitstack_trim_level level) {
    enter(r);
    bitstack_error error;
    bitstack_result result = bitstack_trim(r->stack, level, &r->target, &error);
    if (result != BITSTACK_OK && result != BITSTACK_ERROR_ARGUMENT) memcpy(r->state.message, error.message, sizeof r->state.message);
    r->options.policy.quiet_until = seconds() + (r->options.policy.quiet > 0 ? r->options.policy.quiet : 5);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return result == BITSTACK_OK ? 0 : -1;
}

void resizer_use(resizer *r, int used) {
    enter(r);
    int slept = r->asleep;
    r->in_use = used;
    r->used = seconds();
    if (used) r->asleep = 0;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (slept && used) resizer_wait(r);
}

void resizer_automatic(resizer *r, int automatic) {
    enter(r);
    r->options.automatic = automatic;
    r->settled = 0;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void resizer_wait(resizer *r) {
    enter(r);
    r->settled = 0; /* it looks again first */
    pthread_cond_broadcast(&r->changed);
    r->waiting++;
    while (!r->settled) pthread_cond_wait(&r->changed, &r->lock);
    r->waiting--;
    pthread_mutex_unlock(&r->lock);
}

void resizer_ask(resizer *r, resizer_state *out) {
    enter(r);
    *out = r->state;
    out->base = bitstack_base_bytes(r->stack);
    out->resident = bitstack_resident_bytes(r->stack);
    out->total = bitstack_total_bytes(r->stack);
    out->target = r->target;
    out->loaded = bitstack_blocks_loaded(r->stack);
    out->available = bitstack_blocks_available(r->stack);
    out->blocks = bitstack_block_count(r->stack);
    out->settled = r->settled;
    out->asleep = r->asleep;
    out->left_out = out->loaded;
    for (int i = 0; i < bitstack_matrix_count(r->stack); i++) {
        bitstack_matrix matrix;
        if (bitstack_get_matrix(r->stack, i, &matrix) == BITSTACK_OK) out->left_out -= (int)matrix.level;
    }
    pthread_mutex_unlock(&r->lock);
}

void resizer_stop(resizer *r) {
    if (!r) return;
    enter(r);
    r->stop = 1;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
