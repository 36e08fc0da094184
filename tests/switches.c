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
#include <string.h>

/* Tables whose groups are as wide as they may be, wider than some builds hold at once: one input and many, on every
 * instruction set. Of 24 inputs at once only that it ends: where floats are used, bits are others. */
static uint64_t wide_groups(void) {
    enum { ROWS = 32, COLS = 1056, LEVEL = 2, MOST = 24 };
    static const unsigned char table[8] = {3, 0, 166, 255, 90, 0, 253, 255}; /* 3, -90, 90, -3 */
    static unsigned char column[16 + sizeof table + COLS] = {0, 0, 0x80, 0x3F}; /* a unit of 1 */
    static unsigned char scales[ROWS * 2], signs[LEVEL * ROWS * COLS / 8];
    static float x[MOST * COLS], y[MOST * ROWS];
    uint64_t hash = 0;
    bitstack_plane planes[LEVEL];
    bitstack_view view = {ROWS, COLS, 1, 1024, LEVEL, (bitstack_type)0, 1, planes, BITSTACK_TABLES, 0};
    memcpy(column + 16, table, sizeof table);
    for (int i = 0; i < COLS; i++) column[24 + i] = (unsigned char)(40 + i % 7);
    for (int i = 0; i < ROWS * 2; i++) scales[i] = (unsigned char)(50 + i);
    for (int i = 0; i < LEVEL * ROWS * COLS / 8; i++) signs[i] = (unsigned char)(i * 7919 >> 4);
    for (int i = 0; i < MOST * COLS; i++) x[i] = (float)((i * 7919) % 1024 - 512) / 64;
    for (int p = 0; p < LEVEL; p++)
        planes[p].coefficients = scales, planes[p].columns = column, planes[p].signs = signs + p * (ROWS * COLS / 8);
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (bitstack_set_isa(bitstack_isa_name(isa)) != BITSTACK_OK) continue;
        uint64_t own = 1;
        for (size_t batch = 1; batch <= 8; batch += 7)
            for (int exact = 0; exact < 2; exact++) {
                bitstack_view_gemm(&view, exact ? BITSTACK_EXACT : BITSTACK_FAST, x, COLS, y, ROWS, batch);
                own = own * 31 + bitstack_checksum(y, sizeof(float) * ROWS * batch);
            }
        bitstack_view_gemm(&view, BITSTACK_FAST, x, COLS, y, ROWS, MOST);
        if (hash && own != hash) return 1;
        hash = own;
    }
    bitstack_set_isa(NULL);
    return hash;
}

int main(int count, char **paths) {
    static unsigned char data[65536], room[65536];
    static float x[4096], y[4096], w[1 << 20];
    uint64_t hash = wide_groups();
    if (hash == 1) return printf("wide groups: other bits from another instruction set\n"), 1;
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
