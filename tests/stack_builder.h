/* stack_builder.h - writes small stacks of random planes for tests of the reader: no compressor needed.
 * Two families: own factors (as iabs) and a shared column with replaced coefficients (as nested); and tables. */
#ifndef BITSTACK_TEST_BUILDER_H
#define BITSTACK_TEST_BUILDER_H

#include "bitstack_compress.h"
#include "tables.h"

typedef struct built_matrix {
    const char *name;
    bitstack_shape shape;
} built_matrix;

/* A coded matrix with random signs and factors, valid in every detail. */
static inline bitstack_coded build_coded(const bitstack_shape *shape, uint64_t seed) {
    bitstack_coded coded;
    memset(&coded, 0, sizeof coded);
    coded.shape = *shape;
    coded.out_norm2 = 1;
    coded.rel_err2[0] = coded.out_err2[0] = 1;
    for (uint32_t level = 1; level <= shape->levels; level++) {
        size_t column = (size_t)bitstack_column_bytes(shape, level), coefficient = (size_t)bitstack_coefficient_bytes(shape, level);
        size_t size = shape->factor_type == BITSTACK_F16 ? 2 : 4, all = (size_t)bitstack_block_bytes(shape, level);
        uint32_t planes = shape->coefficients == BITSTACK_COEFFICIENTS_ALL ? level : 1;
        uint32_t groups = shape->group_cols ? (shape->cols + shape->group_cols - 1) / shape->group_cols : 1;
        size_t counts[2] = {column ? (size_t)shape->rank * shape->cols : 0, (size_t)planes * groups * shape->rank * shape->rows};
        unsigned char *at = (unsigned char *)calloc(1, all), *part[2];
        coded.blocks[level - 1] = at;
        coded.rel_err2[level] = coded.out_err2[level] = pow(0.3, level);
        if (shape->encoding == BITSTACK_TABLES) {
            tables_column(at, level, shape->cols, 0x1p-7f, &seed, 0);
            tables_coefficient(at + column, shape->rows, groups, &seed, 0);
            tables_plane(at + column + coefficient, shape->rows, shape->cols, &seed);
            continue;
        }
        part[0] = at, part[1] = at + column;
        for (int f = 0; f < 2; f++)
            for (size_t i = 0; i < counts[f]; i++) {
                float value = test_normal(&seed) * (f ? 0.5f : 1.0f);
                uint32_t bits;
                uint16_t half = bitstack_f32_to_f16(value);
                memcpy(&bits, &value, 4);
                if (size == 2) bits = half;
                for (size_t b = 0; b < size; b++) part[f][i * size + b] = (unsigned char)(bits >> 8 * b);
            }
        at += column + coefficient;
        for (uint32_t i = 0; i < shape->rows; i++)
            for (uint32_t j = 0; j < shape->cols; j++) {
                size_t tile = i / 64, byte = (tile * ((shape->cols + 3) / 4) + j / 4) * 32 + i % 32;
                if (test_random(&seed) & 1) at[byte] |= (unsigned char)(1u << (j % 4 + (i % 64 >= 32 ? 4 : 0)));
            }
    }
    return coded;
}
static inline bitstack_shape build_tables(uint32_t rows, uint32_t cols, uint32_t levels, uint32_t group_cols) {
    bitstack_shape shape = {rows, cols, levels, 1, group_cols, BITSTACK_COLUMNS_EVERY, BITSTACK_COEFFICIENTS_ALL, (bitstack_type)0, 1, BITSTACK_TABLES, 0};
    return shape;
}

static inline bitstack_shape build_shape(uint32_t rows, uint32_t cols, uint32_t levels, uint32_t rank, int nested) {
    bitstack_shape shape = {0};
    shape.rows = rows, shape.cols = cols, shape.levels = levels, shape.rank = rank;
    shape.columns = nested ? BITSTACK_COLUMNS_FIRST : BITSTACK_COLUMNS_OWN;
    shape.coefficients = nested ? BITSTACK_COEFFICIENTS_ALL : BITSTACK_COEFFICIENTS_OWN;
    shape.factor_type = BITSTACK_F16;
    shape.scale = 1;
    return shape;
}

static inline void build_free(bitstack_coded *coded) {
    for (int i = 0; i < BITSTACK_MAX_LEVELS; i++) free(coded->blocks[i]);
}

/* A stack of `count` matrices with metadata of every kind and tensors of every type; 0 on success. */
static inline int build_stack(const char *path, const built_matrix *matrices, int count, uint64_t seed) {
    bitstack_writer *writer;
    bitstack_error error;
    static const char *const strings[] = {"one", "", "three"};
    uint64_t shape[2] = {3, 5};
    float numbers[15];
    double pi = 3.141592653589793;
    int64_t minus = -7;
    if (bitstack_writer_open(&writer, path, NULL, &error) != BITSTACK_OK) return 1;
    for (int i = 0; i < 15; i++) numbers[i] = (float)i;
    int bad = bitstack_writer_meta_u32(writer, "test.number", 42) || bitstack_writer_meta_f32(writer, "test.half", 0.5f) ||
              bitstack_writer_meta(writer, "test.pi", BITSTACK_META_F64, &pi, 1) ||
              bitstack_writer_meta(writer, "test.minus", BITSTACK_META_I64, &minus, 1) ||
              bitstack_writer_meta_strings(writer, "test.strings", strings, NULL, 3) ||
              bitstack_writer_tensor(writer, "norm", BITSTACK_F32, 2, shape, numbers) ||
              bitstack_writer_tensor(writer, "raw", BITSTACK_BYTES, 1, shape + 1, "hello");
    for (int i = 0; i < count && !bad; i++) {
        bitstack_coded coded = build_coded(&matrices[i].shape, seed + (uint64_t)i);
        bad = bitstack_writer_matrix(writer, matrices[i].name, &coded, (float)(1 + i));
        build_free(&coded);
    }
    if (bad) {
        bitstack_writer_abort(writer);
        return 1;
    }
    return bitstack_writer_finish(writer, NULL, 0, &error) != BITSTACK_OK;
}
#endif
