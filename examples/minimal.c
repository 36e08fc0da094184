/* minimal.c - open a stack, give it memory, multiply.
 *     build/minimal model.bitstack 3000000 blk.0.attn_q.weight */
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: minimal FILE BYTES MATRIX\n");
        return 2;
    }
    bitstack *stack;
    bitstack_error error;
    bitstack_options options = {0};
    options.budget = strtoull(argv[2], NULL, 10); /* no more than this is ever loaded */
    if (bitstack_open_file(&stack, argv[1], &options, &error) != BITSTACK_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], error.message);
        return 1;
    }
    bitstack_matrix m;
    int index = bitstack_find_matrix(stack, argv[3]);
    if (bitstack_get_matrix(stack, index, &m) != BITSTACK_OK) {
        fprintf(stderr, "%s: no matrix '%s'\n", argv[1], argv[3]);
        bitstack_close(stack);
        return 1;
    }
    float *x = malloc(m.shape.cols * sizeof *x), *y = malloc(m.shape.rows * sizeof *y);
    if (!x || !y) return 1;
    for (uint32_t j = 0; j < m.shape.cols; j++) x[j] = 1;
    bitstack_gemv(stack, index, x, y); /* y = W x, W as good as the bytes allow */
    printf("%s: %u x %u, level %u of %u, %llu bytes resident\n", argv[3], m.shape.rows, m.shape.cols, m.level,
           m.shape.levels, (unsigned long long)bitstack_resident_bytes(stack));
    for (uint32_t i = 0; i < m.shape.rows && i < 4; i++) printf("y[%u] = %g\n", i, (double)y[i]);
    free(x);
    free(y);
    bitstack_close(stack);
    return 0;
}
