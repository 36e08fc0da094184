/* Products are the same bit for bit on any number of threads, the pool's or the caller's own. */
#ifndef BITSTACK_POOL
#define BITSTACK_POOL
#endif
#include "bitstack.h"
#include "random_stack.h"
#include "tables.h"
#include <pthread.h>
#include <unistd.h>
#ifndef _WIN32
#include <sys/wait.h>
#else
#define alarm(seconds) ((void)(seconds)) /* whoever runs the tests ends them */
#endif

/* As a large program has: on glibc every thread's stack must hold it. */
static _Thread_local volatile char thread_local_[400000];

enum { ROWS = 1500, COLS = 700, LEVELS = 6, BATCH = 37 };
static bitstack_plane planes[LEVELS];
static bitstack_view planes_view = {ROWS, COLS, 1, 0, LEVELS, BITSTACK_F32, 1, planes, BITSTACK_PLANES, 0};
static const bitstack_view *view = &planes_view;
static float x[BATCH * COLS], expected[BATCH * ROWS], expected_one[ROWS];

static void make(uint64_t *seed) {
    for (int p = 0; p < LEVELS; p++) {
        size_t bytes = (size_t)(ROWS + 63) / 64 * (COLS / 4) * 32;
        unsigned char *signs = (unsigned char *)malloc(bytes);
        float *u = (float *)malloc(ROWS * 4), *v = (float *)malloc(COLS * 4);
        for (size_t i = 0; i < bytes; i++) signs[i] = (unsigned char)(test_random(seed) >> 56);
        for (int i = 0; i < ROWS; i++) u[i] = test_normal(seed);
        for (int j = 0; j < COLS; j++) v[j] = test_normal(seed);
        planes[p].signs = signs, planes[p].coefficients = u, planes[p].columns = v;
    }
    for (size_t i = 0; i < BATCH * COLS; i++) x[i] = test_normal(seed);
}

static int products_agree(const bitstack_parallel *parallel) {
    float *y = (float *)malloc(sizeof expected);
    memset(y, 0, sizeof expected);
    int good = bitstack_view_gemm_parallel(view, BITSTACK_FAST, x, 0, y, 0, 1, parallel) == BITSTACK_OK &&
               !memcmp(y, expected_one, sizeof expected_one);
    good &= bitstack_view_gemm_parallel(view, BITSTACK_FAST, x, COLS, y, ROWS, BATCH, parallel) == BITSTACK_OK &&
            !memcmp(y, expected, sizeof expected);
    free(y);
    return good;
}

/* A parallel-for of the caller's: the last index first, one after the other. */
static size_t calls;
static void backwards(void *user, void (*task)(void *context, size_t index), void *context, size_t count) {
    (void)user;
    while (count) task(context, --count), calls++;
}

static bitstack_parallel shared;
static void *user_thread(void *bad) {
    for (int i = 0; i < 30; i++)
        if (!products_agree(&shared)) ++*(int *)bad;
    return NULL;
}

static void count_index(void *context, size_t index) { __atomic_fetch_add((int *)context + index, 1, __ATOMIC_RELAXED); }

static bitstack_pool *nested_pool;
static int nested_done;
static void count_nested(void *context, size_t index) { (void)context, (void)index, __atomic_fetch_add(&nested_done, 1, __ATOMIC_RELAXED); }
static void nest(void *context, size_t index) { (void)index, bitstack_pool_run(nested_pool, count_nested, context, 5); }

/* All matrices of a stack that have as many columns as the first: more than are shared out at once. */
static void several_agree(const char *program) {
    enum { WIDTH = 1024, MOST = 64 };
    static float in[WIDTH], one[MOST][2 * WIDTH], all[MOST][2 * WIDTH];
    char path[600];
    int matrices[MOST], count = 0;
    float *to[MOST];
    bitstack *stack;
    bitstack_error error;
    snprintf(path, sizeof path, "%s.bitstack", program);
    CHECK(random_stack(path, WIDTH, 2 * WIDTH, 2, 4, 64, NULL) == 0, "cannot write %s", path);
    for (int j = 0; j < WIDTH; j++) in[j] = (float)(j % 17) - 8;
    for (int threads = 1; threads <= 4 && !test_bad_; threads++) {
        bitstack_options options = {0};
        bitstack_pool *pool = NULL;
        if (threads > 1 && bitstack_pool_open(&pool, threads, NULL) == BITSTACK_OK) options.parallel = bitstack_pool_parallel(pool);
        CHECK(bitstack_open_file(&stack, path, &options, &error) == BITSTACK_OK, "%s", error.message);
        if (test_bad_) return;
        for (int way = 0; way < 2; way++) {
            bitstack_matrix m;
            if (way) bitstack_set_budget(stack, (bitstack_base_bytes(stack) + bitstack_total_bytes(stack)) / 2, NULL);
            for (int i = count = 0; i < bitstack_matrix_count(stack) && count < MOST; i++)
                if (bitstack_get_matrix(stack, i, &m) == BITSTACK_OK && m.shape.cols == WIDTH) to[count] = all[count], matrices[count++] = i;
            for (int i = 0; i < count; i++) CHECK(bitstack_gemv(stack, matrices[i], in, one[i]) == BITSTACK_OK, "matrix %d", matrices[i]);
            CHECK(count > 8 && bitstack_gemv_several(stack, matrices, count, in, to) == BITSTACK_OK && !memcmp(one, all, sizeof one), "%d matrices on %d threads",
                  count, threads);
        }
        bitstack_close(stack);
        bitstack_pool_close(pool);
    }
    remove(path);
}

int main(int argc, char **argv) {
    (void)argc;
    uint64_t seed = 12;
    bitstack_pool *pool;
    tables_view tables;
    make(&seed);
    tables_make(&tables, &seed, ROWS, COLS, 4, 64, 0);
    for (int encoding = 1; encoding >= 0; encoding--)
        for (int isa = 0; bitstack_isa_name(isa); isa++)
        if (bitstack_isa_available(isa)) {
            bitstack_set_isa(bitstack_isa_name(isa));
            view = encoding ? &tables.view : &planes_view;
            bitstack_view_gemm(view, BITSTACK_FAST, x, COLS, expected, ROWS, BATCH);
            bitstack_view_gemv(view, BITSTACK_FAST, x, expected_one, 0, ROWS);
            TEST(encoding ? "tables: the pool gives the same results with 1 to 5 threads" : "the pool gives the same results with 1 to 5 threads");
            for (int threads = 1; threads <= 5; threads++) {
                CHECK(bitstack_pool_open(&pool, threads, NULL) == BITSTACK_OK, "pool");
                bitstack_parallel parallel = bitstack_pool_parallel(pool);
                CHECK(parallel.threads == threads, "%d threads instead of %d", parallel.threads, threads);
                CHECK(products_agree(&parallel), "%s: %d threads differ", bitstack_isa(), threads);
                bitstack_pool_close(pool);
            }
        }
    bitstack_set_isa(NULL);
    tables_drop(&tables);
    bitstack_view_gemm(view, BITSTACK_FAST, x, COLS, expected, ROWS, BATCH);

    TEST("the caller's own threads serve as well");
    bitstack_parallel own = {backwards, NULL, 3};
    CHECK(products_agree(&own) && calls >= 4, "%zu parts", calls);

    TEST("every index runs once, and threads that share a pool do not disturb each other");
    CHECK(bitstack_pool_open(&pool, 3, NULL) == BITSTACK_OK, "pool");
    for (int i = 0; i < 2000; i++) {
        int counts[17] = {0};
        bitstack_pool_run(pool, count_index, counts, (size_t)(i % 17));
        for (int k = 0; k < 17; k++) CHECK(counts[k] == (k < i % 17), "index %d of %d ran %d times", k, i % 17, counts[k]);
    }
    shared = bitstack_pool_parallel(pool);
    pthread_t threads[3];
    int bad[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, user_thread, bad + i);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK(bad[0] + bad[1] + bad[2] == 0, "%d results differ", bad[0] + bad[1] + bad[2]);
    bitstack_pool_close(pool);
    bitstack_pool_close(NULL);

    TEST("a task may use the pool it runs in: what it asks for is done by itself");
    CHECK(bitstack_pool_open(&pool, 2, NULL) == BITSTACK_OK, "pool");
    nested_pool = pool, nested_done = 0;
    alarm(20); /* not for ever, if it waits for itself */
    bitstack_pool_run(pool, nest, NULL, 6);
    alarm(0);
    CHECK(nested_done == 6 * 5, "%d of 30 tasks ran", nested_done);
    bitstack_pool_close(pool);

#ifndef _WIN32
    TEST("a fork of a process with a pool multiplies with it, alone, and closes it; the parent goes on");
    {
        int status = -1, counts[40] = {0};
        CHECK(bitstack_pool_open(&pool, 3, NULL) == BITSTACK_OK, "pool");
        CHECK(bitstack_pool_threads(pool) == 3, "%d threads of 3 beside %zu bytes of thread-local variables", bitstack_pool_threads(pool), sizeof thread_local_);
        bitstack_parallel parallel = bitstack_pool_parallel(pool);
        CHECK(products_agree(&parallel), "before");
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(20); /* not for ever, if it waits for threads that are not there */
            const int good = products_agree(&parallel);
            bitstack_pool_run(pool, count_index, counts, 40);
            for (int i = 0; i < 40; i++)
                if (counts[i] != 1) _exit(2);
            bitstack_pool_close(pool);
            _exit(good ? 0 : 1);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
        thread_local_[399999] = 1;
        CHECK(products_agree(&parallel) && thread_local_[399999] == 1, "after");
        bitstack_pool_close(pool);
    }
#endif

    TEST("a pool for all processors opens, one of a thousand threads too; bad arguments are refused");
    CHECK(bitstack_pool_open(&pool, 0, NULL) == BITSTACK_OK && bitstack_pool_parallel(pool).threads >= 1, "pool");
    bitstack_pool_close(pool);
    if (bitstack_pool_open(&pool, 1000, NULL) == BITSTACK_OK) { /* it has as many as it may */
        CHECK(products_agree(&own), "a large pool");
        bitstack_parallel large = bitstack_pool_parallel(pool);
        CHECK(large.threads >= 1 && large.threads <= 256 && large.threads == bitstack_pool_threads(pool) && products_agree(&large), "%d threads", large.threads);
        bitstack_pool_close(pool);
    }
    CHECK(bitstack_pool_open(&pool, -1, NULL) == BITSTACK_ERROR_ARGUMENT, "-1 threads");
    CHECK(bitstack_view_gemm_parallel(view, BITSTACK_FAST, x, 3, expected, ROWS, 2, &own) == BITSTACK_ERROR_ARGUMENT, "a stride");
    for (int p = 0; p < LEVELS; p++)
        free((void *)(uintptr_t)planes[p].signs), free((void *)(uintptr_t)planes[p].coefficients), free((void *)(uintptr_t)planes[p].columns);
    TEST("several matrices in one call of the threads give what single calls give, however many there are and at whatever levels");
    several_agree(argv[0]);
    return TEST_DONE();
}
