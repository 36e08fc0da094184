#include "parallel.h"
#include "platform.h"

#include <pthread.h>
#include <stdatomic.h>

#define MOST_THREADS 256

typedef struct loop {
    atomic_size_t next;
    size_t count;
    void (*work)(void *user, size_t index, int thread);
    void *user;
} loop;

typedef struct worker {
    loop *loop;
    int number;
    pthread_t thread;
} worker;

static void *turn(void *argument) {
    worker *w = argument;
    for (;;) {
        size_t index = atomic_fetch_add(&w->loop->next, 1);
        if (index >= w->loop->count) return NULL;
        w->loop->work(w->loop->user, index, w->number);
    }
}

void llm_parallel(int threads, size_t count, void (*work)(void *user, size_t index, int thread), void *user) {
    loop l = {0, count, work, user};
    worker workers[MOST_THREADS];
    int started = 1;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > 0 && (size_t)threads > count) threads = (int)count;
    for (; started < threads; started++) {
        workers[started].loop = &l;
        workers[started].number = started;
        if (pthread_create(&workers[started].thread, NULL, turn, &workers[started]) != 0) break;
    }
    workers[0].loop = &l;
    workers[0].number = 0;
    turn(&workers[0]);
    for (int i = 1; i < started; i++) pthread_join(workers[i].thread, NULL);
}

int llm_processors(void) {
    int count = platform_processors();
    return count > MOST_THREADS ? MOST_THREADS : count;
}
