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
 * instruction set. Of 24 inputs at once only that it ends: where floats are used, bits are others. One column is kept whole,
 * twice. */
static uint64_t wide_groups(void) {
    enum { ROWS = 32, COLS = 1056, LEVEL = 2, MOST = 24, KEPT = 2, PLANE = ROWS * COLS / 8 };
    static const unsigned char table[8] = {3, 0, 166, 255, 90, 0, 253, 255}; /* 3, -90, 90, -3 */
    static unsigned char column[16 + sizeof table + COLS] = {0, 0, 0x80, 0x3F}; /* a unit of 1 */
    static unsigned char scales[ROWS * 2], signs[LEVEL * PLANE + KEPT * (8 + ROWS)];
    static const unsigned char whole[KEPT * 8] = {77, 0, 0, 0, 0x6F, 0x12, 0x83, 0x3A, 77, 0, 0, 0, 1, 2, 3, 0x34}; /* column, scale */
    static float x[MOST * COLS], y[MOST * ROWS], w[ROWS * COLS];
    uint64_t hash = 0;
    bitstack_plane planes[LEVEL];
    bitstack_view view = {ROWS, COLS, 1, 1024, LEVEL, (bitstack_type)0, 1, planes, BITSTACK_TABLES, KEPT};
    memcpy(column + 16, table, sizeof table);
    for (int i = 0; i < COLS; i++) column[24 + i] = (unsigned char)(40 + i % 7);
    for (int i = 0; i < ROWS * 2; i++) scales[i] = (unsigned char)(50 + i);
    memcpy(signs + LEVEL * PLANE, whole, sizeof whole);
    for (int i = 0; i < KEPT * ROWS; i++) signs[LEVEL * PLANE + KEPT * 8 + i] = (unsigned char)(i * 57);
    for (int i = 0; i < LEVEL * PLANE; i++) signs[i] = (unsigned char)(i * 7919 >> 4);
    for (int i = 0; i < MOST * COLS; i++) x[i] = (float)((i * 7919) % 1024 - 512) / 64;
    for (int p = 0; p < LEVEL; p++)
        planes[p].coefficients = scales, planes[p].columns = column, planes[p].signs = signs + (LEVEL - 1 - p) * PLANE;
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (bitstack_set_isa(bitstack_isa_name(isa)) != BITSTACK_OK) continue;
        uint64_t own = 1;
        for (size_t batch = 1; batch <= 8; batch += 7)
            for (int exact = 0; exact < 2; exact++) {
                bitstack_view_gemm(&view, exact ? BITSTACK_EXACT : BITSTACK_FAST, x, COLS, y, ROWS, batch);
                own = own * 31 + bitstack_checksum(y, sizeof(float) * ROWS * batch);
            }
        bitstack_view_gemm(&view, BITSTACK_REFERENCE, x, COLS, y, ROWS, 2);
        bitstack_view_dequantize(&view, 0, ROWS, w, COLS);
        own = own * 31 + bitstack_checksum(y, sizeof(float) * ROWS * 2), own = own * 31 + bitstack_checksum(w, sizeof w);
        bitstack_view_gemm(&view, BITSTACK_FAST, x, COLS, y, ROWS, MOST);
        if (hash && own != hash) return 1;
        hash = own;
    }
    bitstack_set_isa(NULL);
    return hash;
}

#ifdef BITSTACK_NO_DOUBLE
/* Floats of all sizes, many of few bits, so that sums cancel, are half-way between two, or end below what is held. */
static float any_float(uint64_t *seed, int spread) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    uint32_t r = (uint32_t)(*seed >> 32), bits = r & 0x807FFFFFu;
    if (r >> 23 & 1) bits &= 0x80600001u;
    if (r >> 24 & 1) bits |= 0x007FFFF0u;
    if ((r >> 25 & 31) == 0) return bitstack_float_from_bits_(r & 0x80000000u); /* zeros */
    return bitstack_float_from_bits_(bits | (uint32_t)(spread ? 127 - spread + (int)(*seed >> 20 & 255) % (2 * spread) : (int)(*seed >> 20 & 255) % 255) << 23);
}
static int differs(bitstack_real_ a, double b, const char *what) {
    const float have = bitstack_float_of_(a), want = (float)b;
    double exact = (double)a.n;
    for (int32_t e = a.e; a.n && e; e += e < 0 ? 1 : -1) exact *= e < 0 ? 0.5 : 2;
    if (a.minus) exact = -exact;
    if (exact == b && memcmp(&have, &want, 4) == 0) return 0;
    printf("%s: %.17g as float %.9g, in double %.17g as float %.9g\n", what, exact, (double)have, b, (double)want);
    return 1;
}
/* Sums, products and roundings in integers are those of double precision. */
static int arithmetic_differs(void) {
    uint64_t seed = 1;
    for (int i = 0; i < 300000; i++) {
        const int spread = i % 3 == 0 ? 0 : i % 3 == 1 ? 30 : 4;
        const float a = any_float(&seed, spread), b = any_float(&seed, spread), c = any_float(&seed, spread), d = any_float(&seed, spread);
        const double ab = (double)a * (double)b, cd = (double)c * (double)d;
        const bitstack_real_ wide = bitstack_by_(bitstack_real_of_(a), b), other = bitstack_by_(bitstack_real_of_(c), d);
        const bitstack_real_ sum = bitstack_plus_(wide, other);
        if (differs(wide, ab, "product") || differs(sum, ab + cd, "sum")) return 1;
        if (differs(bitstack_by_(sum, c), (ab + cd) * (double)c, "product of a sum")) return 1;
        if (differs(bitstack_plus_(sum, bitstack_real_of_(d)), ab + cd + (double)d, "longer sum")) return 1;
        const int value = (int)(seed >> 40 & 65535) - 32768, s = (int)(seed >> 32 & 255), v = (int)(seed >> 20 & 255), e = (int)(seed >> 12 & 255) - 140;
        const float have = bitstack_weight_(value, (unsigned)s, (unsigned)v, e);
        double unit = 1;
        for (int k = e; k; k += k < 0 ? 1 : -1) unit *= k < 0 ? 0.5 : 2;
        const float want = (float)((double)value * (double)bitstack_small_value_((unsigned)s) * (double)bitstack_small_value_((unsigned)v) * unit);
        if (memcmp(&have, &want, 4)) return printf("weight %d, %d, %d, %d\n", value, s, v, e), 1;
    }
    const float infinite = bitstack_float_from_bits_(0x7F800000u);
    const bitstack_real_ odd = bitstack_by_(bitstack_real_of_(0), infinite);
    const float nan = bitstack_float_of_(bitstack_plus_(bitstack_real_of_(1), bitstack_by_(odd, 0.5f)));
    return nan == nan && printf("infinity times 0 is %g\n", (double)nan);
}
#endif

int main(int count, char **paths) {
    static unsigned char data[65536], room[65536];
    static float x[4096], y[4096], w[1 << 20];
#ifdef BITSTACK_NO_DOUBLE
    if (arithmetic_differs()) return 1;
#endif
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
                bitstack_view view;
                bitstack_matrix_view(stack, m, &view);
                bitstack_view_gemv(&view, BITSTACK_REFERENCE, x, y, 0, matrix.shape.rows);
                hash = hash * 31 + bitstack_checksum(y, sizeof(float) * matrix.shape.rows);
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
