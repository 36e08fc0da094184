/* What tests/test_switches.sh builds with every switch: multiplies and reconstructs every level of every matrix of
 * a golden file from an arena and prints a hash of all the bits. The headers come first, alone: they must not
 * need what others include. */
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"
#ifdef WITH_COMPRESSOR
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
#endif
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **paths) {
    static unsigned char data[65536], room[65536];
    static float x[4096], y[4096], w[1 << 20];
    uint64_t hash = 0;
    for (int i = 0; i < 4096; i++) x[i] = (float)((i * 7919) % 1024 - 512) / 64;
    for (int f = 1; f < count; f++) {
        bitstack *stack;
        bitstack_error error;
        bitstack_options options = {0};
        FILE *file = fopen(paths[f], "rb");
        const size_t bytes = file ? fread(data, 1, sizeof data, file) : 0;
        if (file) fclose(file);
        options.allocator = bitstack_arena(room, sizeof room);
        if (bitstack_open_memory(&stack, data, bytes, &options, &error) != BITSTACK_OK) return printf("%s: %s\n", paths[f], error.message), 1;
        for (int m = 0; m < bitstack_matrix_count(stack); m++) {
            bitstack_matrix matrix;
            bitstack_get_matrix(stack, m, &matrix);
            for (uint32_t level = 0; level <= matrix.shape.levels; level++) {
                bitstack_set_level(stack, m, level, NULL);
                bitstack_gemv(stack, m, x, y);
                bitstack_dequantize(stack, m, w, matrix.shape.cols);
                hash = hash * 31 + bitstack_checksum(y, sizeof(float) * matrix.shape.rows);
                hash = hash * 31 + bitstack_checksum(w, sizeof(float) * matrix.shape.rows * matrix.shape.cols);
            }
        }
        bitstack_close(stack);
    }
#ifdef WITH_COMPRESSOR
    /* what the compressor makes, by itself: products are taken by the fastest means of the CPU, or by none of them */
    uint64_t made = 0;
    for (int i = 0; i < 130 * 210; i++) w[i] = (float)((i * 7919L + i % 13 * 104729L) % 2048 - 1024) / 512;
    for (int method = 0; method < 2; method++) {
        bitstack_encode_options options = {0};
        bitstack_coded coded;
        options.method = method ? BITSTACK_IABS : BITSTACK_NESTED, options.levels = 3, options.rank = method ? 4 : 1;
        if (bitstack_encode_matrix(&coded, w, 130, 210, 210, NULL, &options) != BITSTACK_OK) return 1;
        for (uint32_t l = 0; l < 3; l++) made = made * 31 + bitstack_checksum(coded.blocks[l], (size_t)bitstack_block_bytes(&coded.shape, l + 1));
        bitstack_coded_free(&coded);
    }
    printf("%016llx ", (unsigned long long)made);
#endif
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
