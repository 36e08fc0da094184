/* least.c - the least that uses the library: open a stack in place, set a budget, multiply. Its size less
 * that of the same program without -DLEAST is what the reader and the scalar kernel cost. */
#include <stddef.h>

extern const unsigned char some_stack[4096];
int main(void);

#ifdef LEAST
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"
const unsigned char some_stack[4096] = {'B'}; /* whatever: it is the code that is measured */
static unsigned char room[2048];
static float in[64], out[64];

int main(void) {
    bitstack *stack;
    bitstack_options options = {0};
    options.allocator = bitstack_arena(room, sizeof room);
    if (bitstack_open_memory(&stack, some_stack, sizeof some_stack, &options, NULL) != BITSTACK_OK) return 1;
    if (bitstack_set_budget(stack, 3000, NULL) != BITSTACK_OK) return 1;
    return bitstack_gemv(stack, bitstack_find_matrix(stack, "w"), in, out) != BITSTACK_OK;
}
#else
const unsigned char some_stack[4096] = {'B'};
static volatile float sink;
static unsigned char room[2048];
static float in[64], out[64];

int main(void) {
    for (size_t i = 0; i < sizeof room; i++) room[i] = some_stack[i];
    for (size_t i = 0; i < 64; i++) out[i] += in[i], sink = out[i] + room[i];
    return 0;
}
#endif
