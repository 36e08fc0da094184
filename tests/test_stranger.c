/* A reader written from the text of [FORMAT] alone finds in a stack with tables what the library finds: every weight
 * of every level, sizes, and resident bytes. */
#include "stack_builder.h"

static const char *const path = "build/tests/stranger.bitstack";

static uint64_t load(const unsigned char *from, int bytes) {
    uint64_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | from[i];
    return value;
}
static uint64_t padded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

/* The parts of one block, found in the file by its records. */
typedef struct found {
    const unsigned char *column, *coefficient, *plane;
    uint64_t bytes[3];
} found;

int main(void) {
    const built_matrix matrices[] = {{"small", build_tables(5, 7, 8, 32)},       {"planes", build_shape(70, 30, 3, 1, 1)}, {"edges", build_tables(33, 65, 6, 64)},
                                     {"one", build_tables(1, 1, 1, 1024)},       {"wide", build_tables(17, 300, 4, 96)},   {"none", build_tables(3, 3, 0, 32)},
                                     {"tiles", build_tables(64, 256, 3, 128)}};
    enum { MATRICES = (int)(sizeof matrices / sizeof matrices[0]), LEVELS = BITSTACK_MAX_LEVELS };
    static found blocks[MATRICES][LEVELS + 1];
    bitstack *stack;
    bitstack_error error;
    size_t bytes = 0;
    TEST("every number of the tables and every weight is where the format says");
    CHECK(build_stack(path, matrices, MATRICES, 21) == 0, "writing %s", path);
    const unsigned char *d = (const unsigned char *)test_read_file(path, &bytes);
    if (!d) return 1;
    const uint64_t tables_bytes = load(d + 16, 8), base = load(d + 24, 8), names_bytes = load(d + 56, 8);
    const uint32_t count = (uint32_t)load(d + 48, 4), block_count = (uint32_t)load(d + 52, 4);
    const unsigned char *names = d + 128 + tables_bytes - names_bytes, *block = names - 64 * (size_t)block_count, *matrix = block - 64 * (size_t)count;
    CHECK(count == MATRICES && load(d + 8, 4) == 1, "%u matrices", count);
    uint64_t at = base;
    for (uint32_t b = 0; b < block_count; b++, block += 64) {
        const uint32_t m = (uint32_t)load(block, 4), level = (uint32_t)load(block + 4, 4);
        const unsigned char *r = matrix + 64 * (size_t)m;
        const uint64_t rows = load(r + 8, 4), cols = load(r + 12, 4), offset = load(block + 8, 8), size = load(block + 16, 8);
        CHECK(offset == at, "block %u", b);
        at += size;
        if (load(r + 16, 4) != 2) continue;
        const uint64_t group = load(r + 32, 4), groups = (cols + group - 1) / group, tiles = (rows + 15) / 16;
        found *f = &blocks[m][level];
        f->bytes[0] = padded(16 + 2 * (1u << level) + cols), f->bytes[1] = padded(tiles * 16 * groups), f->bytes[2] = padded(tiles * ((cols + 31) / 32) * 64);
        f->column = d + offset, f->coefficient = f->column + f->bytes[0], f->plane = f->coefficient + f->bytes[1];
        CHECK(size == f->bytes[0] + f->bytes[1] + f->bytes[2], "the size of block %u", b);
        for (int part = 0; part < 3; part++) {
            const unsigned char *from = part == 0 ? f->column : part == 1 ? f->coefficient : f->plane;
            CHECK(bitstack_checksum(from, (size_t)f->bytes[part]) == load(block + 24 + 8 * part, 8), "checksum %d of block %u", part, b);
        }
        CHECK(load(r + 24, 4) == 1 && r[28] == 3 && r[29] == 2 && r[30] == 0, "the record of matrix %u", m);
    }
    CHECK(at == bytes && at == load(d + 32, 8), "the blocks end at %llu", (unsigned long long)at);
    CHECK(bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK && error.code == BITSTACK_OK, "%s", error.message);
    for (int m = 0; m < MATRICES; m++) {
        const unsigned char *r = matrix + 64 * (size_t)m;
        const uint32_t rows = (uint32_t)load(r + 8, 4), cols = (uint32_t)load(r + 12, 4), levels = (uint32_t)load(r + 20, 4), group = (uint32_t)load(r + 32, 4);
        const uint32_t scale_bits = (uint32_t)load(r + 36, 4);
        bitstack_matrix told;
        float scale, *w = (float *)malloc(sizeof(float) * rows * cols);
        memcpy(&scale, &scale_bits, 4);
        bitstack_get_matrix(stack, m, &told);
        CHECK((int)told.shape.encoding == (int)load(r + 16, 4), "the encoding of matrix %d", m);
        for (uint32_t level = 0; level <= levels && told.shape.encoding == BITSTACK_TABLES; level++) {
            const found *f = &blocks[m][level];
            uint64_t live = level ? f->bytes[0] + f->bytes[1] : 0;
            for (uint32_t p = 1; p <= level; p++) live += blocks[m][p].bytes[2];
            CHECK(bitstack_set_level(stack, m, level, &error) == BITSTACK_OK, "%s", error.message);
            bitstack_get_matrix(stack, m, &told);
            CHECK(told.resident_bytes == live, "matrix %d at level %u: %llu bytes are resident", m, level, (unsigned long long)told.resident_bytes);
            bitstack_dequantize(stack, m, w, cols);
            for (uint32_t i = 0; i < rows; i++)
                for (uint32_t j = 0; j < cols; j++) {
                    double want = 0;
                    unsigned index = 0;
                    for (uint32_t p = 1; p <= level; p++)
                        index |= (unsigned)(blocks[m][p].plane[((size_t)(i / 16) * ((cols + 31) / 32) + j / 32) * 64 + i % 16 * 4 + j % 4] >> (j % 32 / 4) & 1) << (p - 1);
                    if (level) {
                        const uint32_t unit_bits = (uint32_t)load(f->column, 4);
                        const size_t groups = (cols + group - 1) / group;
                        float unit;
                        memcpy(&unit, &unit_bits, 4);
                        want = (double)(int16_t)load(f->column + 16 + 2 * index, 2) * tables_value(f->column[16 + 2 * (1u << level) + j]) *
                               tables_value(f->coefficient[((size_t)(i / 16) * groups + j / group) * 16 + i % 16]) * (double)unit * (double)scale;
                    }
                    CHECK(fabs((double)w[i * cols + j] - want) <= fabs(want) * 6e-8, "matrix %d level %u at %u, %u: %g instead of %g", m, level, i, j, (double)w[i * cols + j], want);
                }
        }
        free(w);
    }
    bitstack_close(stack);
    TEST("codes are what the format says");
    {
        tables_view t;
        uint64_t seed = 3;
        tables_make(&t, &seed, 1, 256, 1, 256, 0);
        unsigned char *column = t.memory[8] + 3, *coefficient = t.memory[9] + 1;
        float w[256];
        tables_store(column, 0x3F800000u, 4), tables_store(column + 16, 1, 2), tables_store(column + 18, 1, 2), t.view.scale = 1;
        for (int c = 0; c < 256; c++) column[20 + c] = (unsigned char)c;
        for (int c = 0; c < 256; c++) {
            *coefficient = (unsigned char)c;
            CHECK(bitstack_view_dequantize(&t.view, 0, 1, w, 256) == BITSTACK_OK, "dequantize");
            CHECK((double)w[224] == tables_value((unsigned char)c), "a row's code %d: %g", c, (double)w[128]);
            for (int k = 0; c == 224 && k < 256; k++) CHECK((double)w[k] == tables_value((unsigned char)k), "a column's code %d: %g", k, (double)w[k]);
        }
        tables_drop(&t);
    }
    remove(path);
    free((void *)(uintptr_t)d);
    return TEST_DONE();
}
