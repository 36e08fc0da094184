/* Threads multiply without locks while one resizes: every product is that of one level, whole, and nothing is
 * freed under a reader (run under ThreadSanitizer and AddressSanitizer by test_sanitizers.sh). */
#include "stack_builder.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { ROWS = 130, COLS = 200, LEVELS = 4, MATRICES = 4, MOST = 16 };
static bitstack *stack;
static float expected[MATRICES][LEVELS + 1][ROWS], x[3 * COLS], row[MATRICES][LEVELS + 1][COLS];
static int stop;

typedef struct reader {
    pthread_t thread;
    int index;
    long products, wrong, levels_seen[LEVELS + 1];
} reader;
static reader readers[MOST];
static int count;

static void *multiply(void *argument) {
    reader *r = (reader *)argument;
    float y[3][ROWS], w[COLS];
    for (int i = r->index; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        int m = i % MATRICES, how = i / MATRICES % 16, level, same = 1;
        if (how == 0) { /* all three inputs are the same, so all three outputs are of one level */
            bitstack_gemm(stack, m, x, COLS, y[0], ROWS, 3);
            same = !memcmp(y[0], y[1], sizeof y[0]) && !memcmp(y[0], y[2], sizeof y[0]);
        } else if (how == 1) bitstack_dequantize_rows(stack, m, 77, 1, w, COLS);
        else if (how == 2) same = bitstack_gemv_rows(stack, m, x, y[0], 0, 70) == BITSTACK_OK;
        else if (how == 3) { /* of two matrices, each of one level */
            const int both[2] = {m, (m + 1) % MATRICES};
            float *const to[2] = {y[0], y[1]};
            same = bitstack_gemv_several(stack, both, 2, x, to) == BITSTACK_OK;
            for (level = 0; level <= LEVELS && memcmp(y[1], expected[both[1]][level], sizeof y[1]) != 0; level++) {}
            same &= level <= LEVELS;
        } else bitstack_gemv(stack, m, x, y[0]);
        for (level = 0; level <= LEVELS; level++)
            if (how == 1 ? !memcmp(w, row[m][level], sizeof w) : !memcmp(y[0], expected[m][level], how == 2 ? 70 * sizeof(float) : sizeof y[0])) break;
        if (level > LEVELS || !same) r->wrong++;
        else r->levels_seen[level]++;
        __atomic_fetch_add(&r->products, 1, __ATOMIC_RELAXED);
        if (count > 8) sched_yield(); /* many: the resizer wants its turn, too */
    }
    return NULL;
}
static void start(int threads) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65u << 16); /* so far apart that each has another counter of readers */
    memset(readers, 0, sizeof readers);
    stop = 0, count = threads;
    for (int i = 0; i < count; i++) {
        readers[i].index = i;
        pthread_create(&readers[i].thread, &attributes, multiply, &readers[i]);
    }
    pthread_attr_destroy(&attributes);
    for (int i = 0; i < count; i++) /* on a busy machine the resizing could be over before they start */
        while (__atomic_load_n(&readers[i].products, __ATOMIC_RELAXED) < 10) sched_yield();
}
/* Ends them and says what they saw; how many products there were. */
static long finish(void) {
    long products = 0, wrong = 0, levels = 0;
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < count; i++) {
        pthread_join(readers[i].thread, NULL);
        products += readers[i].products, wrong += readers[i].wrong;
        for (int l = 0; l <= LEVELS; l++) levels += readers[i].levels_seen[l] > 0;
    }
    CHECK(wrong == 0, "%ld of %ld products match no level", wrong, products);
    CHECK(products > 0 && levels > 1, "the readers saw %ld products", products);
    return products;
}
/* One change of size: the whole stack's, or, now and then, that of one matrix. */
static void resize(int i, uint64_t *seed) {
    bitstack_error error;
    const uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);
    const uint64_t budget = base + test_random(seed) % (total - base + 1);
    const uint32_t level = (uint32_t)(test_random(seed) % (LEVELS + 1));
    if (i % 4 == 3) CHECK(bitstack_set_level(stack, i % MATRICES, level, &error) == BITSTACK_OK, "resize %d", i);
    else CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK && bitstack_resident_bytes(stack) <= budget, "resize %d", i);
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Where the resizer is held, inside what it calls, until every reader has multiplied on. */
static const unsigned char *data;
static int holding;
static long held, stuck;
static void hold(void) {
    long before[MOST];
    const double since = now();
    if (!holding) return;
    for (int i = 0; i < count; i++) before[i] = __atomic_load_n(&readers[i].products, __ATOMIC_RELAXED);
    held++;
    for (int i = 0; i < count; i++)
        while (__atomic_load_n(&readers[i].products, __ATOMIC_RELAXED) < before[i] + 3) {
            if (now() - since > 20) { /* a reader waits for the resizer */
                stuck++, holding = 0;
                return;
            }
            sched_yield();
        }
}
static int read_held(void *user, uint64_t offset, void *to, size_t bytes) {
    (void)user;
    hold();
    memcpy(to, data + offset, bytes);
    return 0;
}
static void *allocate_held(void *user, size_t bytes) { return (void)user, hold(), malloc(bytes); }
static void release_held(void *user, void *pointer, size_t bytes) { (void)user, (void)bytes, hold(), free(pointer); }

int main(void) {
    const char *path = "build/tests/resize.bitstack";
    built_matrix matrices[MATRICES] = {{"a", build_shape(ROWS, COLS, LEVELS, 1, 1)}, {"b", build_shape(ROWS, COLS, LEVELS, 2, 0)}, {"c", build_shape(ROWS, COLS, LEVELS, 1, 1)},
                                       {"d", build_tables(ROWS, COLS, LEVELS, 64)}};
    uint64_t seed = 5;
    size_t bytes = 0;
    bitstack_error error;
    matrices[2].shape.columns = BITSTACK_COLUMNS_EVERY;
    TEST("products while resizing are those of one whole level");
    CHECK(build_stack(path, matrices, MATRICES, 3) == 0 && bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
    for (int j = 0; j < COLS; j++) x[j] = x[j + COLS] = x[j + 2 * COLS] = test_normal(&seed);
    for (int m = 0; m < MATRICES; m++)
        for (uint32_t level = 0; level <= LEVELS; level++) {
            bitstack_set_level(stack, m, level, NULL);
            bitstack_gemv(stack, m, x, expected[m][level]);
            bitstack_dequantize_rows(stack, m, 77, 1, row[m][level], COLS);
        }
    const int resizes = getenv("BITSTACK_RESIZES") ? atoi(getenv("BITSTACK_RESIZES")) : test_full() ? 3000 : 60;
    start(test_full() ? 8 : 3);
    double since = now();
    for (int i = 0; i < resizes; i++) resize(i, &seed);
    const double seconds = now() - since;
    long products = finish();
    printf("      %d resizes, %.0f a second (%.1f hours at one a minute), beside %ld products by %d threads\n", resizes, resizes / seconds,
           resizes / 60.0, products, count);
    bitstack_close(stack);

    TEST("the same from memory, and by more threads than there are counters of readers");
    data = (const unsigned char *)test_read_file(path, &bytes);
    CHECK(bitstack_open_memory(&stack, data, bytes, NULL, &error) == BITSTACK_OK, "%s", error.message);
    start(11);
    for (int i = 0; i < resizes; i++) {
        const long before = __atomic_load_n(&readers[i % count].products, __ATOMIC_RELAXED);
        resize(i, &seed);
        while (__atomic_load_n(&readers[i % count].products, __ATOMIC_RELAXED) == before) sched_yield(); /* one reader sees each size */
    }
    printf("      %d resizes of a stack in memory beside %ld products by %d threads\n", resizes, finish(), count);
    bitstack_close(stack);

    TEST("nobody waits for the resizer: all multiply on while it is held in the allocator or in the callback that reads");
    bitstack_options options = {0};
    options.allocator.allocate = allocate_held, options.allocator.release = release_held;
    CHECK(bitstack_open_callback(&stack, read_held, NULL, bytes, &options, &error) == BITSTACK_OK, "%s", error.message);
    start(3);
    holding = 1;
    for (int i = 0; i < 8; i++) resize(i, &seed);
    bitstack_set_budget(stack, bitstack_base_bytes(stack), NULL), bitstack_set_budget(stack, UINT64_MAX, NULL);
    holding = 0;
    finish();
    CHECK(held > 20 && stuck == 0, "held %ld times, %ld times for 20 seconds", held, stuck);
    bitstack_close(stack);
    free((void *)(uintptr_t)data);
    remove(path);
    return TEST_DONE();
}
