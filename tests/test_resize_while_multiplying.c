/* Threads multiply without locks while one resizes: every product is that of one level, whole, and nothing
 * is freed under a reader (run under ThreadSanitizer and AddressSanitizer by test_sanitizers.sh). */
#include "stack_builder.h"
#include <pthread.h>
#include <sched.h>

enum { ROWS = 130, COLS = 200, LEVELS = 4, READERS = 3, MATRICES = 3 };
static bitstack *stack;
static float expected[MATRICES][LEVELS + 1][ROWS], x[COLS];
static int stop;

typedef struct reader {
    pthread_t thread;
    int index;
    long products, wrong, levels_seen[LEVELS + 1];
} reader;

static void *multiply(void *argument) {
    reader *r = (reader *)argument;
    float y[ROWS];
    for (int i = r->index; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        int m = i % MATRICES, level;
        bitstack_gemv(stack, m, x, y);
        for (level = 0; level <= LEVELS && memcmp(y, expected[m][level], sizeof y); level++) {}
        if (level > LEVELS) r->wrong++;
        else r->levels_seen[level]++;
        __atomic_fetch_add(&r->products, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

int main(void) {
    const char *path = "build/tests/resize.bitstack";
    built_matrix matrices[MATRICES] = {{"a", build_shape(ROWS, COLS, LEVELS, 1, 1)}, {"b", build_shape(ROWS, COLS, LEVELS, 2, 0)}, {"c", build_shape(ROWS, COLS, LEVELS, 1, 1)}};
    uint64_t seed = 5;
    bitstack_error error;
    matrices[2].shape.columns = BITSTACK_COLUMNS_EVERY;
    TEST("products while resizing are those of one whole level");
    CHECK(build_stack(path, matrices, MATRICES, 3) == 0 && bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
    for (int j = 0; j < COLS; j++) x[j] = test_normal(&seed);
    for (int m = 0; m < MATRICES; m++)
        for (uint32_t level = 0; level <= LEVELS; level++) {
            bitstack_set_level(stack, m, level, NULL);
            bitstack_gemv(stack, m, x, expected[m][level]);
        }
    reader readers[READERS];
    memset(readers, 0, sizeof readers);
    for (int i = 0; i < READERS; i++) {
        readers[i].index = i;
        pthread_create(&readers[i].thread, NULL, multiply, &readers[i]);
    }
    for (int i = 0; i < READERS; i++) /* on a busy machine the resizing could be over before they start */
        while (__atomic_load_n(&readers[i].products, __ATOMIC_RELAXED) < 10) sched_yield();
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);
    int resizes = getenv("BITSTACK_RESIZES") ? atoi(getenv("BITSTACK_RESIZES")) : 100;
    for (int i = 0; i < resizes; i++) {
        uint64_t budget = base + test_random(&seed) % (total - base + 1);
        CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK && bitstack_resident_bytes(stack) <= budget, "resize %d", i);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    long products = 0, wrong = 0, levels = 0;
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        products += readers[i].products, wrong += readers[i].wrong;
        for (int l = 0; l <= LEVELS; l++) levels += readers[i].levels_seen[l] > 0;
    }
    printf("      %d resizes, %ld products by %d threads\n", resizes, products, READERS);
    CHECK(wrong == 0, "%ld of %ld products match no level", wrong, products);
    CHECK(products > 0 && levels > 1, "the readers saw %ld products", products);
    bitstack_close(stack);
    remove(path);
    return TEST_DONE();
}
