/* What tests/test_large_files.sh builds for several offset sizes: `make FILE` writes a sparse stack with a block of 2.1 GiB
 * of zeros and one of 64 rows behind it; `read FILE` opens it, multiplies with the last matrix, and writes a stack beside. */
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
#include <stdio.h>

enum { LAST_ROWS = 64, LAST_COLS = 8 };
static void store(unsigned char *to, uint64_t value, int bytes) {
    int i;
    for (i = 0; i < bytes; i++) to[i] = (unsigned char)(value >> 8 * i);
}
static void record(unsigned char *to, uint32_t name, uint32_t rows, uint32_t cols) {
    store(to, name, 4), store(to + 4, 1, 4), store(to + 8, rows, 4), store(to + 12, cols, 4);
    store(to + 16, 1, 4), store(to + 20, 1, 4), store(to + 24, 1, 4);
    to[28] = BITSTACK_COLUMNS_OWN, to[29] = BITSTACK_COEFFICIENTS_OWN, to[30] = BITSTACK_F32;
    store(to + 36, 0x3F800000u, 4);
}
static bitstack_shape shape_of(uint32_t rows, uint32_t cols) {
    bitstack_shape shape;
    memset(&shape, 0, sizeof shape);
    shape.rows = rows, shape.cols = cols, shape.levels = 1, shape.rank = 1, shape.factor_type = BITSTACK_F32, shape.scale = 1;
    shape.columns = BITSTACK_COLUMNS_OWN, shape.coefficients = BITSTACK_COEFFICIENTS_OWN;
    return shape;
}

static int make(const char *path) {
    static unsigned char head[512], last[2048]; /* tables of 264 bytes, the resident part ends at 448 */
    const uint32_t rows = 1u << 17, cols = 140000;
    const bitstack_shape first = shape_of(rows, cols), second = shape_of(LAST_ROWS, LAST_COLS);
    const uint64_t bytes[2] = {bitstack_block_bytes(&first, 1), bitstack_block_bytes(&second, 1)}, base = 448;
    FILE *file = BITSTACK_FOPEN_(path, "wb");
    int i, good;
    for (i = 0; i < LAST_COLS; i++) store(last + 4 * i, 0x3F800000u, 4);      /* V: ones */
    for (i = 0; i < LAST_ROWS; i++) store(last + 64 + 4 * i, 0x40000000u, 4); /* U: twos */
    memset(last + 64 + 256, 0xFF, LAST_COLS / 4 * 32);                        /* all signs + */
    memcpy(head, "BITSTACK", 8), store(head + 8, 1, 4), store(head + 12, 128, 4), store(head + 16, 264, 8), store(head + 24, base, 8);
    store(head + 32, base + bytes[0] + bytes[1], 8), store(head + 48, 2, 4), store(head + 52, 2, 4), store(head + 56, 8, 8);
    record(head + 128, 0, rows, cols), record(head + 192, 1, LAST_ROWS, LAST_COLS);
    store(head + 256 + 4, 1, 4), store(head + 256 + 8, base, 8), store(head + 256 + 16, bytes[0], 8);
    store(head + 320, 1, 4), store(head + 320 + 4, 1, 4), store(head + 320 + 8, base + bytes[0], 8), store(head + 320 + 16, bytes[1], 8);
    store(head + 320 + 24, bitstack_checksum(last, 64), 8), store(head + 320 + 32, bitstack_checksum(last + 64, 256), 8);
    store(head + 320 + 40, bitstack_checksum(last + 320, 64), 8);
    memcpy(head + 384, "ab", 2);
    store(head + 64, bitstack_checksum(head + 128, 264), 8), store(head + 120, bitstack_checksum(head, 120), 8);
    good = file && bytes[0] > 2147483648u && bytes[1] == 64 + 256 + 64 && fwrite(head, 1, (size_t)base, file) == base &&
           bitstack_seek_(file, base + bytes[0]) == 0 && fwrite(last, 1, (size_t)bytes[1], file) == bytes[1];
    return !(file && fclose(file) == 0 && good);
}

static int read_it(const char *path) {
    bitstack_options options;
    bitstack_error error;
    bitstack *stack;
    float x[LAST_COLS], y[LAST_ROWS];
    int i;
    memset(&options, 0, sizeof options), memset(&error, 0, sizeof error);
    options.load_nothing = 1;
    if (bitstack_open_file(&stack, path, &options, &error) != BITSTACK_OK) return printf("%s\n", error.message), 1;
    if (bitstack_file_bytes(stack) != bitstack_complete_file_bytes(stack) || bitstack_blocks_available(stack) != 2)
        return printf("%llu bytes of %llu are seen\n", (unsigned long long)bitstack_file_bytes(stack), (unsigned long long)bitstack_complete_file_bytes(stack)), 1;
    if (bitstack_set_level(stack, 1, 1, &error) != BITSTACK_OK) return printf("%s\n", error.message), 1;
    for (i = 0; i < LAST_COLS; i++) x[i] = 1;
    bitstack_gemv(stack, 1, x, y);
    for (i = 0; i < LAST_ROWS; i++)
        if (y[i] < 15.9f || y[i] > 16.1f) return printf("row %d is %g, not 16\n", i, (double)y[i]), 1;
    bitstack_close(stack);
    return 0;
}

int main(int count, char **words) {
    if (count < 3) return 2;
    return words[1][0] == 'm' ? make(words[2]) : read_it(words[2]);
}
