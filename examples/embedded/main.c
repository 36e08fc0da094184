/* main.c - a network of three layers that runs from its stack in flash: no heap, no files, no operating
 * system. The same source runs on the host, and every bit it prints is the same there. */
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_NO_MALLOC
#define BITSTACK_NO_STDIO
#define BITSTACK_NO_THREADS
#define BITSTACK_CHUNK_COLS 512 /* about 4 KiB of C stack */
#include "bitstack.h"
#include "digits.h"
#include "stack_data.h"

void put(const char *text); /* board.c or host.c */

static void put_number(uint64_t value, unsigned base) {
    char text[24], *at = text + sizeof text - 1;
    *at = 0;
    do *--at = "0123456789abcdef"[value % base], value /= base;
    while (value);
    put(at);
}

/* out = W in + b; negative outputs become 0 in hidden layers. */
static int layer(const bitstack *stack, const char *matrix, const char *bias, const float *in, float *out, int hidden) {
    bitstack_tensor b;
    const int w = bitstack_find_matrix(stack, matrix);
    if (bitstack_get_tensor(stack, bitstack_find_tensor(stack, bias), &b) != BITSTACK_OK) return 1;
    if (bitstack_gemv(stack, w, in, out) != BITSTACK_OK) return 1;
    for (uint64_t i = 0; i < b.shape[0]; i++) {
        out[i] += ((const float *)b.data)[i];
        if (hidden && out[i] < 0) out[i] = 0;
    }
    return 0;
}

int main(void) {
    static unsigned char room[4096];
    static float a[DIGITS_PIXELS], b[DIGITS_HIDDEN], scores[DIGITS_CLASSES];
    enum { IMAGES = 100, BUDGETS = 4 };
    bitstack *stack;
    bitstack_options options = {0};
    bitstack_error error;
    put("stack in flash: "), put_number(sizeof stack_data, 10), put(" bytes\n");
    if (bitstack_arena_bytes(stack_data, sizeof stack_data) > sizeof room) return put("the arena is too small\n"), 1;
    options.allocator = bitstack_arena(room, sizeof room);
    if (bitstack_open_memory(&stack, stack_data, sizeof stack_data, &options, &error) != BITSTACK_OK)
        return put(error.message), put("\n"), 1;
    for (int n = 1; n <= BUDGETS; n++) {
        const uint64_t base = bitstack_base_bytes(stack), all = bitstack_total_bytes(stack);
        uint64_t hash = 0;
        uint32_t seed = 3;
        int right = 0;
        if (bitstack_set_budget(stack, base + (all - base) * (uint64_t)n / BUDGETS, &error) != BITSTACK_OK) return 1;
        for (int i = 0; i < IMAGES; i++) {
            const int digit = digits_draw(&seed, a);
            int best = 0;
            if (layer(stack, "w1", "b1", a, b, 1) || layer(stack, "w2", "b2", b, a, 1) || layer(stack, "w3", "b3", a, scores, 0))
                return put("a layer is missing\n"), 1;
            for (int j = 1; j < DIGITS_CLASSES; j++)
                if (scores[j] > scores[best]) best = j;
            right += best == digit;
            hash = hash * 31 + bitstack_checksum(scores, sizeof scores);
        }
        put("using "), put_number(bitstack_resident_bytes(stack), 10), put(" bytes: ");
        put_number((uint64_t)right, 10), put(" of "), put_number(IMAGES, 10), put(" right, scores' checksum ");
        put_number(hash, 16), put("\n");
    }
    bitstack_close(stack);
    return 0;
}
