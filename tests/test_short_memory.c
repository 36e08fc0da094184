/* Memory that is short never costs more than it must: going down works with none to spare, going up ends at the best
 * level that fits, and what a stack takes it gives back. */
#include "stack_builder.h"

enum { ROWS = 200, COLS = 90, LEVELS = 5, MATRICES = 3 };
static const char *const path = "build/tests/short.bitstack";
static const unsigned char *file;
static size_t file_bytes;

/* A heap of `most` bytes that checks that what is released has the size it was asked with. */
typedef struct tight_heap {
    size_t used, most;
    int wrong;
} tight_heap;
static void *tight_allocate(void *user, size_t bytes) {
    tight_heap *heap = (tight_heap *)user;
    if (bytes > heap->most - heap->used) return NULL;
    size_t *p = (size_t *)malloc(bytes + 64);
    *p = bytes, heap->used += bytes;
    return (char *)p + 64;
}
static void tight_release(void *user, void *pointer, size_t bytes) {
    tight_heap *heap = (tight_heap *)user;
    size_t *p = (size_t *)(void *)((char *)pointer - 64);
    heap->wrong += *p != bytes;
    heap->used -= bytes;
    free(p);
}

static uint64_t bytes_read;
static uint32_t least_shown[MATRICES];
static bitstack *watched;
/* Tells the bytes read, and the lowest level that a thread would see while the resizing goes on. */
static int read_and_watch(void *user, uint64_t offset, void *to, size_t bytes) {
    (void)user;
    memcpy(to, file + offset, bytes);
    bytes_read += bytes;
    for (int i = 0; watched && i < MATRICES; i++) {
        bitstack_view view;
        bitstack_matrix_view(watched, i, &view);
        if (view.level < least_shown[i]) least_shown[i] = view.level;
    }
    return 0;
}

static uint32_t level_of(const bitstack *stack, int i) {
    bitstack_matrix m;
    bitstack_get_matrix(stack, i, &m);
    return m.level;
}

int main(void) {
    built_matrix matrices[MATRICES] = {{"a", build_shape(ROWS, COLS, LEVELS, 1, 1)}, {"b", build_shape(ROWS, COLS, LEVELS, 2, 1)}, {"c", build_shape(ROWS, COLS, LEVELS, 1, 0)}};
    tight_heap heap = {0, 1 << 24, 0};
    bitstack_options options = {0};
    bitstack *plenty, *stack;
    bitstack_error error;
    options.allocator.allocate = tight_allocate, options.allocator.release = tight_release, options.allocator.user = &heap;
    matrices[1].shape.columns = BITSTACK_COLUMNS_EVERY;
    CHECK(build_stack(path, matrices, MATRICES, 3) == 0, "writing");
    file = (const unsigned char *)test_read_file(path, &file_bytes);
    if (!file || bitstack_open_memory(&plenty, file, file_bytes, NULL, &error) != BITSTACK_OK) return 1;
    const uint64_t base = bitstack_base_bytes(plenty), total = bitstack_total_bytes(plenty);

    TEST("every smaller budget is reached with no memory to spare");
    for (int step = 0; step < 40; step++) {
        heap.most = 1 << 24;
        const uint64_t budget = base + (total - base) * (uint64_t)step / 40;
        CHECK(bitstack_open_callback(&stack, read_and_watch, NULL, file_bytes, &options, &error) == BITSTACK_OK, "%s", error.message);
        heap.most = heap.used;
        CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK && error.code == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_set_budget(plenty, budget, NULL) == BITSTACK_OK && bitstack_resident_bytes(stack) == bitstack_resident_bytes(plenty), "bytes");
        for (int i = 0; i < MATRICES; i++) CHECK(level_of(stack, i) == level_of(plenty, i), "matrix %d at level %u, wanted %u", i, level_of(stack, i), level_of(plenty, i));
        CHECK(heap.used <= heap.most - (total - bitstack_resident_bytes(stack)), "what was dropped is released");
        bitstack_close(stack);
        CHECK(heap.used == 0 && heap.wrong == 0, "%zu bytes leaked, %d sizes wrong", heap.used, heap.wrong);
    }

    TEST("as long as others make room, no matrix is shown below where it goes, and nothing is read twice");
    {
        heap.most = 1 << 24;
        CHECK(bitstack_open_callback(&stack, read_and_watch, NULL, file_bytes, &options, &error) == BITSTACK_OK, "%s", error.message);
        heap.most = heap.used;
        for (int i = 0; i < MATRICES; i++) least_shown[i] = LEVELS;
        bytes_read = 0, watched = stack;
        const uint64_t budget = base + (total - base) / 3;
        CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK, "%s", error.message);
        watched = NULL;
        uint64_t needed = 0;
        for (int i = 0; i < 2; i++) { /* the factors of the levels they end at; "c" has its own at every level */
            needed += bitstack_coefficient_bytes(&matrices[i].shape, level_of(stack, i));
            if (i == 1) needed += bitstack_column_bytes(&matrices[i].shape, level_of(stack, i));
        }
        CHECK(bytes_read == needed, "%llu bytes read, %llu needed", (unsigned long long)bytes_read, (unsigned long long)needed);
        for (int i = 0; i < MATRICES; i++) CHECK(least_shown[i] >= level_of(stack, i), "matrix %d was shown at level %u, ends at %u", i, least_shown[i], level_of(stack, i));
        bitstack_close(stack);
    }

    TEST("one matrix alone goes down with none to spare");
    for (uint32_t to = 0; to < LEVELS; to++) {
        heap.most = 1 << 24;
        CHECK(bitstack_open_callback(&stack, read_and_watch, NULL, file_bytes, &options, &error) == BITSTACK_OK, "%s", error.message);
        heap.most = heap.used;
        CHECK(bitstack_set_level(stack, 0, to, &error) == BITSTACK_OK && level_of(stack, 0) == to, "to %u: level %u, %s", to, level_of(stack, 0), error.message);
        CHECK(heap.used <= heap.most - (total - bitstack_resident_bytes(stack)), "what was dropped is released");
        bitstack_close(stack);
    }

    TEST("going up ends at the highest level there is memory for");
    for (int m = 0; m < MATRICES; m++) {
        const bitstack_shape *shape = &matrices[m].shape;
        size_t at[LEVELS + 1]; /* memory in use at each level, with room for what is superseded */
        heap.most = 1 << 24;
        options.load_nothing = 1;
        CHECK(bitstack_open_callback(&stack, read_and_watch, NULL, file_bytes, &options, &error) == BITSTACK_OK, "%s", error.message);
        for (uint32_t l = 0; l <= LEVELS; l++) bitstack_set_level(stack, m, l, NULL), at[l] = heap.used;
        for (uint32_t from = 1; from < LEVELS; from++)
            for (uint32_t best = from; best <= LEVELS; best++) {
                heap.most = 1 << 24;
                bitstack_set_level(stack, m, from, NULL);
                size_t beside = 0; /* factors of `from` that `best` does not use are there until the end */
                if (best > from && shape->coefficients == BITSTACK_COEFFICIENTS_ALL) beside += (size_t)bitstack_coefficient_bytes(shape, from) + 64;
                if (best > from && shape->columns == BITSTACK_COLUMNS_EVERY) beside += (size_t)bitstack_column_bytes(shape, from) + 64;
                heap.most = at[best] + beside;
                bitstack_result result = bitstack_set_level(stack, m, LEVELS, &error);
                CHECK(level_of(stack, m) == best, "matrix %d from level %u with memory for %u: level %u", m, from, best, level_of(stack, m));
                CHECK(result == (best == LEVELS ? BITSTACK_OK : BITSTACK_ERROR_MEMORY), "%s", bitstack_result_string(result));
            }
        bitstack_close(stack);
        options.load_nothing = 0;
    }

    TEST("every allocation of opening, growing and shrinking may fail: a clean error, a whole level, nothing lost");
    {
        int failures = 0;
        for (size_t most = 0; most < 200000; most += 977) {
            heap.most = most;
            bitstack_result result = bitstack_open_callback(&stack, read_and_watch, NULL, file_bytes, &options, &error);
            failures += result != BITSTACK_OK || error.code != BITSTACK_OK;
            if (result == BITSTACK_OK) {
                static float x[COLS], y[ROWS], z[ROWS];
                for (int j = 0; j < COLS; j++) x[j] = (float)(j % 7) - 3;
                bitstack_set_budget(stack, base + (total - base) / 2, NULL);
                bitstack_set_budget(stack, UINT64_MAX, NULL);
                for (int m = 0; m < MATRICES; m++) {
                    bitstack_set_level(plenty, m, level_of(stack, m), NULL);
                    bitstack_gemv(stack, m, x, y), bitstack_gemv(plenty, m, x, z);
                    CHECK(!memcmp(y, z, sizeof y), "%zu bytes: matrix %d is not what level %u is", most, m, level_of(stack, m));
                }
                bitstack_close(stack);
            } else CHECK(result == BITSTACK_ERROR_MEMORY, "%zu bytes: %s", most, bitstack_result_string(result));
            CHECK(heap.used == 0 && heap.wrong == 0, "%zu bytes: %zu leaked, %d sizes wrong", most, heap.used, heap.wrong);
        }
        CHECK(failures > 20, "%d failures", failures);
    }
    bitstack_close(plenty);
    remove(path);
    return TEST_DONE();
}
