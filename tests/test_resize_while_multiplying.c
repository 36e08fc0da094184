/* Threads multiply without locks while one resizes: every product is that of one level, whole, and nothing is
 * freed under a reader (run under ThreadSanitizer and AddressSanitizer by test_sanitizers.sh). */
#include "stack_builder.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { ROWS = 130, COLS = 200, LEVELS = 4, MATRICES = 3, MOST = 16 };
static bitstack *stack;
static float expected[MATRICES][LEVELS + 1][ROWS], x[3 * COLS], row[MATRICES][LEVELS + 1][COLS];
static int stop;

typedef struct reader {
    pthread_t thread;
    int index;
    long products, wrong, levels_seen[LEVELS + 1];
} reader;

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
        else bitstack_gemv(stack, m, x, y[0]);
        for (level = 0; level <= LEVELS; level++)
            if (how == 1 ? !memcmp(w, row[m][level], sizeof w) : !memcmp(y[0], expected[m][level], how == 2 ? 70 * sizeof(float) : sizeof y[0])) break;
        if (level > LEVELS || !same) r->wrong++;
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
    for (int j = 0; j < COLS; j++) x[j] = x[j + COLS] = x[j + 2 * COLS] = test_normal(&seed);
    for (int m = 0; m < MATRICES; m++)
        for (uint32_t level = 0; level <= LEVELS; level++) {
            bitstack_set_level(stack, m, level, NULL);
            bitstack_gemv(stack, m, x, expected[m][level]);
            bitstack_dequantize_rows(stack, m, 77, 1, row[m][level], COLS);
        }
    const int count = test_full() ? 8 : 3;
    reader readers[MOST];
    memset(readers, 0, sizeof readers);
    for (int i = 0; i < count; i++) {
        readers[i].index = i;
        pthread_create(&readers[i].thread, NULL, multiply, &readers[i]);
    }
    for (int i = 0; i < count; i++) /* on a busy machine the resizing could be over before they start */
        while (__atomic_load_n(&readers[i].products, __ATOMIC_RELAXED) < 10) sched_yield();
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);
    const int resizes = getenv("BITSTACK_RESIZES") ? atoi(getenv("BITSTACK_RESIZES")) : test_full() ? 3000 : 100;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < resizes; i++) {
        uint64_t budget = base + test_random(&seed) % (total - base + 1);
        CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK && bitstack_resident_bytes(stack) <= budget, "resize %d", i);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    long products = 0, wrong = 0, levels = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(readers[i].thread, NULL);
        products += readers[i].products, wrong += readers[i].wrong;
        for (int l = 0; l <= LEVELS; l++) levels += readers[i].levels_seen[l] > 0;
    }
    const double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    printf("      %d resizes, %.0f a second (%.1f hours at one a minute), beside %ld products by %d threads\n", resizes, resizes / seconds, resizes / 60.0, products, count);
    CHECK(wrong == 0, "%ld of %ld products match no level", wrong, products);
    CHECK(products > 0 && levels > 1, "the readers saw %ld products", products);
    bitstack_close(stack);
    remove(path);
    return TEST_DONE();
}
