/* Where there is no heap, an arena of a size told beforehand is enough. */
#include "stack_builder.h"

static const char *const path = "build/tests/small.bitstack";

static int read_memory(void *user, uint64_t offset, void *to, size_t bytes) {
    memcpy(to, (const unsigned char *)user + offset, bytes);
    return 0;
}

/* The largest piece that can be had now. */
static size_t largest(bitstack_allocator arena, size_t most) {
    size_t bytes = most;
    void *p = NULL;
    while (bytes && !(p = arena.allocate(arena.user, bytes))) bytes--;
    if (p) arena.release(arena.user, p, bytes);
    return bytes;
}

int main(void) {
    built_matrix matrices[] = {{"a", build_shape(70, 30, 3, 1, 1)}, {"b", build_shape(33, 65, 2, 2, 0)}, {"c", build_shape(5, 130, 4, 1, 1)}};
    float x[130], y[130], expected[130];
    bitstack_error error;
    bitstack *heap, *stack;
    size_t bytes = 0;
    uint64_t seed = 9;

    TEST("a stack in memory opens in bitstack_arena_bytes at any alignment, and too little is a clean error");
    CHECK(build_stack(path, matrices, 3, 7) == 0, "writing %s", path);
    unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
    if (!data || bitstack_open_memory(&heap, data, bytes, NULL, &error) != BITSTACK_OK) return 1;
    for (int i = 0; i < 130; i++) x[i] = test_normal(&seed);
    const size_t need = bitstack_arena_bytes(data, bytes);
    CHECK(need > 0 && need == bitstack_arena_bytes(data, 128), "the header is enough: %zu bytes", need);
    printf("      %zu bytes for 3 matrices and 9 blocks\n", need);
    for (size_t shift = 0; shift < 32; shift++) {
        unsigned char *room = (unsigned char *)malloc(need + shift);
        bitstack_options options = {0};
        options.allocator = bitstack_arena(room + shift, need);
        CHECK(bitstack_open_memory(&stack, data, bytes, &options, &error) == BITSTACK_OK, "at +%zu: %s", shift, error.message);
        for (uint64_t budget = bitstack_base_bytes(stack); budget <= bitstack_total_bytes(stack); budget += 700) {
            bitstack_set_budget(heap, budget, NULL);
            CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK, "%s", error.message);
            for (int m = 0; m < 3; m++) {
                bitstack_gemv(heap, m, x, expected);
                bitstack_gemv(stack, m, x, y);
                CHECK(!memcmp(y, expected, sizeof(float) * matrices[m].shape.rows), "matrix %d at %llu", m, (unsigned long long)budget);
            }
        }
        bitstack_close(stack);
        options.allocator = bitstack_arena(room + shift, need - 32);
        CHECK(bitstack_open_memory(&stack, data, bytes, &options, &error) == BITSTACK_ERROR_MEMORY, "too small at +%zu", shift);
        free(room);
    }
    TEST("bitstack_arena_bytes is 0 for what is no stack");
    CHECK(bitstack_arena_bytes(data, 127) == 0 && bitstack_arena_bytes(NULL, 500) == 0 && bitstack_arena_bytes("BITSTACK", 8) == 0, "short");
    data[40] ^= 1;
    CHECK(bitstack_arena_bytes(data, bytes) == 0, "damaged");
    data[40] ^= 1;

    TEST("an arena too small for its own books gives nothing and does not write");
    for (size_t shift = 0; shift < 16; shift++)
        for (size_t n = 0; n < 64; n++) {
            unsigned char space[96 + 16], *room = space + (16 - (uintptr_t)space % 16) % 16 + shift;
            const size_t skip = (16 - shift) % 16; /* to where it can keep books */
            memset(space, 0xA5, sizeof space);
            bitstack_allocator arena = bitstack_arena(room, n);
            unsigned char *p = (unsigned char *)arena.allocate(arena.user, 1);
            CHECK((p != NULL) == (n >= skip + 32), "%zu bytes at +%zu give %s", n, shift, p ? "something" : "nothing");
            CHECK(!p || (p >= room + skip + 16 && p + 16 <= room + n && (uintptr_t)p % 16 == 0), "%zu bytes at +%zu: outside, or not aligned", n, shift);
            if (p) memset(p, 0xA5, 16);
            for (size_t i = 0; i < sizeof space; i++)
                CHECK(space[i] == 0xA5 || (p && space + i >= room && space + i < room + n), "byte %zu beside %zu bytes at +%zu was written", i, n, shift);
        }
    CHECK(!bitstack_arena(NULL, 1000).allocate(NULL, 1), "no memory at all");

    TEST("what is released is used again, whole, whatever the order");
    {
        enum { PIECES = 40, ROOM = 16384 };
        static unsigned char room[ROOM];
        bitstack_allocator arena = bitstack_arena(room, ROOM);
        const size_t all = largest(arena, ROOM);
        struct { unsigned char *at; size_t bytes; unsigned char mark; } piece[PIECES] = {{0}};
        CHECK(all > ROOM - 48, "%zu of %d bytes can be had", all, ROOM);
        int failed = 0, served = 0;
        for (int round = 0; round < 20000; round++) {
            int i = (int)(test_random(&seed) % PIECES);
            if (piece[i].at) {
                for (size_t b = 0; b < piece[i].bytes; b++) CHECK(piece[i].at[b] == piece[i].mark, "pieces overlap");
                arena.release(arena.user, piece[i].at, piece[i].bytes);
                piece[i].at = NULL;
            } else {
                piece[i].bytes = (size_t)(test_random(&seed) % 900);
                piece[i].at = (unsigned char *)arena.allocate(arena.user, piece[i].bytes);
                piece[i].mark = (unsigned char)round;
                piece[i].at ? served++ : failed++;
                if (!piece[i].at) continue;
                CHECK((uintptr_t)piece[i].at % 16 == 0 && piece[i].at >= room && piece[i].at + piece[i].bytes <= room + ROOM, "inside and aligned");
                memset(piece[i].at, piece[i].mark, piece[i].bytes);
            }
        }
        CHECK(failed > 10 && served > 5000, "%d served, %d refused: both are tried", served, failed);
        for (int i = 0; i < PIECES; i++)
            if (piece[i].at) arena.release(arena.user, piece[i].at, piece[i].bytes);
        CHECK(largest(arena, ROOM) == all, "%zu of %zu bytes are back in one piece", largest(arena, ROOM), all);
    }
    TEST("a stack read through a callback lives in an arena, too, and a shortage leaves whole levels");
    for (size_t spare = 0; spare < 8000; spare += 500) {
        const size_t size = need + (size_t)bitstack_base_bytes(heap) + 64 + spare;
        unsigned char *room = (unsigned char *)malloc(size);
        bitstack_options options = {0};
        options.allocator = bitstack_arena(room, size);
        options.load_nothing = 1;
        CHECK(bitstack_open_callback(&stack, read_memory, data, bytes, &options, &error) == BITSTACK_OK, "%zu: %s", size, error.message);
        for (int round = 0; round < 60; round++) {
            uint64_t base = bitstack_base_bytes(heap), budget = base + test_random(&seed) % (bitstack_total_bytes(heap) - base + 9);
            bitstack_result result = bitstack_set_budget(stack, budget, &error);
            CHECK(result == BITSTACK_OK || result == BITSTACK_ERROR_MEMORY, "%s", error.message);
            CHECK(bitstack_resident_bytes(stack) <= budget, "the budget holds");
            for (int m = 0; m < 3; m++) {
                bitstack_matrix now;
                bitstack_get_matrix(stack, m, &now);
                bitstack_set_level(heap, m, now.level, NULL);
                bitstack_gemv(heap, m, x, expected);
                bitstack_gemv(stack, m, x, y);
                CHECK(!memcmp(y, expected, sizeof(float) * now.shape.rows), "matrix %d at level %u", m, now.level);
            }
        }
        const size_t blocks = 9, parts = 64 * 3 * blocks;
        if (size >= need + parts + (size_t)bitstack_total_bytes(heap) + 3000)
            CHECK(bitstack_set_budget(stack, UINT64_MAX, &error) == BITSTACK_OK, "enough for all: %s", error.message);
        bitstack_close(stack);
        CHECK(largest(options.allocator, size) + 48 > size, "everything came back");
        free(room);
    }
    bitstack_close(heap);
    free(data);
    remove(path);
    return TEST_DONE();
}
