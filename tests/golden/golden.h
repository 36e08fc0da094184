/* golden.h - the files of tests/golden: how each was made, and what a reader finds in it. From integers only,
 * so that any machine makes the same bytes. What is here may be added to, never changed. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "bitstack_compress.h"
#include "../tables.h"

typedef struct golden_matrix {
    const char *name;
    bitstack_shape shape;
} golden_matrix;

#define OWN BITSTACK_COLUMNS_OWN
#define FIRST BITSTACK_COLUMNS_FIRST
#define EVERY BITSTACK_COLUMNS_EVERY
#define ALONE BITSTACK_COEFFICIENTS_OWN
#define ALL BITSTACK_COEFFICIENTS_ALL
#define F16 BITSTACK_F16
#define F32 BITSTACK_F32
#define PLANES BITSTACK_PLANES
/* name, {rows, cols, levels, rank, group_cols, columns, coefficients, factor_type, scale, encoding} */
static const golden_matrix golden_iabs[] = {{"rank one", {70, 30, 3, 1, 0, OWN, ALONE, F16, 1, PLANES, 0}},
                                            {"rank three", {33, 65, 2, 3, 0, OWN, ALONE, F32, 1, PLANES, 0}},
                                            {"two tiles", {65, 130, 2, 2, 0, OWN, ALONE, F16, 1, PLANES, 0}}};
static const golden_matrix golden_nested[] = {{"shared column", {65, 100, 5, 1, 0, FIRST, ALL, F16, 1, PLANES, 0}},
                                              {"column a level", {20, 77, 3, 2, 0, EVERY, ALL, F32, 1, PLANES, 0}},
                                              {"first, own", {9, 13, 2, 1, 0, FIRST, ALONE, F32, 1, PLANES, 0}},
                                              {"every, own", {9, 13, 2, 1, 0, EVERY, ALONE, F16, 1, PLANES, 0}},
                                              {"own, all", {9, 13, 2, 2, 0, OWN, ALL, F16, 1, PLANES, 0}}};
static const golden_matrix golden_groups[] = {{"groups of 64", {20, 200, 2, 1, 64, FIRST, ALL, F16, 1, PLANES, 0}},
                                              {"groups of 128", {10, 300, 2, 2, 128, OWN, ALONE, F32, 1, PLANES, 0}}};
static const golden_matrix golden_shapes[] = {
    {"1x1", {1, 1, 1, 1, 0, OWN, ALONE, F16, 1, PLANES, 0}},   {"1x300", {1, 300, 2, 1, 0, FIRST, ALL, F16, 1, PLANES, 0}},
    {"64x4", {64, 4, 2, 1, 0, FIRST, ALL, F32, 1, PLANES, 0}}, {"65x5", {65, 5, 2, 1, 0, FIRST, ALL, F16, 1, PLANES, 0}},
    {"63x3", {63, 3, 2, 1, 0, OWN, ALONE, F16, 1, PLANES, 0}}, {"3x1000", {3, 1000, 1, 1, 0, OWN, ALONE, F32, 1, PLANES, 0}},
    {"none", {5, 5, 0, 1, 0, OWN, ALONE, F16, 1, PLANES, 0}},  {"32 levels", {2, 2, 32, 1, 0, FIRST, ALONE, F16, 1, PLANES, 0}}};
static const golden_matrix golden_scales[] = {{"tiny", {8, 20, 2, 1, 0, FIRST, ALL, F16, 0x1p-20f, PLANES, 0}},
                                              {"large", {8, 20, 2, 1, 0, FIRST, ALL, F32, 0x1p+10f, PLANES, 0}}};
static const golden_matrix golden_tables[] = {{"all levels", {33, 100, 8, 1, 64, EVERY, ALL, (bitstack_type)0, 1, BITSTACK_TABLES, 0}},
                                              {"1x1", {1, 1, 2, 1, 32, EVERY, ALL, (bitstack_type)0, 0x1p-20f, BITSTACK_TABLES, 0}},
                                              {"one group", {8, 1000, 3, 1, 1024, EVERY, ALL, (bitstack_type)0, 0x1p+10f, BITSTACK_TABLES, 0}},
                                              {"none", {5, 5, 0, 1, 96, EVERY, ALL, (bitstack_type)0, 1, BITSTACK_TABLES, 0}}};
static const golden_matrix golden_one[] = {{"w", {6, 7, 2, 1, 0, FIRST, ALL, F16, 1, PLANES, 0}}};

/* What is done to a file after it is written, checksums mended. */
typedef struct golden_patch {
    uint32_t at; /* 0: nothing */
    uint32_t value;
    int bytes; /* of the value; -1: flip bit 0 of the byte and mend nothing; -2: cut the file at this byte */
} golden_patch;
typedef struct golden_file {
    const char *name;
    const golden_matrix *matrices;
    int count;
    int extras; /* 1 metadata of every kind, 2 tensors of every kind, 4 a metadata entry nobody knows */
    golden_patch patch;
} golden_file;
#define COUNTED(list) list, (int)(sizeof list / sizeof list[0])
static const golden_file golden_files[] = {
    {"empty", NULL, 0, 0, {0, 0, 0}},
    {"iabs", COUNTED(golden_iabs), 0, {0, 0, 0}},
    {"nested", COUNTED(golden_nested), 0, {0, 0, 0}},
    {"groups", COUNTED(golden_groups), 0, {0, 0, 0}},
    {"shapes", COUNTED(golden_shapes), 0, {0, 0, 0}},
    {"scales", COUNTED(golden_scales), 0, {0, 0, 0}},
    {"metadata", NULL, 0, 1, {0, 0, 0}},
    {"tensors", NULL, 0, 2, {0, 0, 0}},
    {"everything", COUNTED(golden_nested), 3, {0, 0, 0}},
    {"prefix", COUNTED(golden_nested), 0, {3000, 0, -2}},
    {"damaged", COUNTED(golden_one), 0, {512, 0, -1}},                     /* in the first plane */
    {"unknown-optional-type", NULL, 0, 1, {128 + 4, 99, 2}},               /* of the first metadata entry */
    {"unknown-mandatory", NULL, 0, 4, {128 + 6, 1, 2}},
    {"unknown-version", COUNTED(golden_one), 0, {8, 2, 4}},
    {"unknown-header-bytes", COUNTED(golden_one), 0, {72, 1, 4}},
    {"unknown-meta-flag", NULL, 0, 1, {128 + 6, 2, 2}},
    {"unknown-encoding", COUNTED(golden_one), 0, {128 + 16, 2, 4}},        /* of the first matrix */
    {"unknown-encoding-field", COUNTED(golden_one), 0, {128 + 60, 1, 4}},
    {"unknown-tensor-type", NULL, 0, 2, {128 + 8, 7, 4}},                  /* of the first tensor */
    {"unknown-block-field", COUNTED(golden_one), 0, {128 + 64 + 60, 1, 4}}, /* of the first block */
    {"tables", COUNTED(golden_tables), 0, {0, 0, 0}}
};
enum { GOLDEN_FILES = (int)(sizeof golden_files / sizeof golden_files[0]) };

/* Values in (-1, 1) with 11 bits, which a half holds; in "scales" also the rarest that a type has. */
static inline uint32_t golden_factor(uint64_t *seed, bitstack_type type, int rare) {
    static const uint16_t halves[8] = {0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x0400, 0x3C00};
    static const uint32_t floats[8] = {0, 0x80000000u, 1, 0x807FFFFFu, 0x58800000u, 0xD8800000u, 0x00800000u, 0x3F800000u};
    const uint64_t dice = test_random(seed);
    const float value = (float)((int)(dice >> 20 & 2047) - 1023) / 1024.0f;
    uint32_t bits;
    if (rare && dice % 3 == 0) return type == F16 ? halves[dice >> 8 & 7] : floats[dice >> 8 & 7];
    memcpy(&bits, &value, 4);
    return type == F16 ? bitstack_f32_to_f16(value) : bits;
}

static inline void golden_code(bitstack_coded *coded, const bitstack_shape *shape, uint64_t seed, int rare) {
    memset(coded, 0, sizeof *coded);
    coded->shape = *shape;
    coded->out_norm2 = 1, coded->rel_err2[0] = coded->out_err2[0] = 1;
    for (uint32_t level = 1; level <= shape->levels; level++) {
        const size_t size = shape->factor_type == F16 ? 2 : 4, column = (size_t)bitstack_column_bytes(shape, level);
        const size_t coefficient = (size_t)bitstack_coefficient_bytes(shape, level), groups = shape->group_cols ? (shape->cols + shape->group_cols - 1) / shape->group_cols : 1;
        const size_t counts[2] = {column ? (size_t)shape->rank * shape->cols : 0, (shape->coefficients == ALL ? level : 1) * groups * shape->rank * shape->rows};
        unsigned char *at = coded->blocks[level - 1] = (unsigned char *)calloc(1, (size_t)bitstack_block_bytes(shape, level));
        coded->rel_err2[level] = coded->out_err2[level] = 1.0 / (1u << level / 2);
        if (shape->encoding == BITSTACK_TABLES) {
            tables_column(at, level, shape->cols, level % 2 ? 0x1p-7f : 0x1p+9f, &seed, 1);
            tables_coefficient(at + column, shape->rows, groups, &seed, 1);
            tables_plane(at + column + coefficient, shape->rows, shape->cols, &seed);
            continue;
        }
        for (int part = 0; part < 2; part++)
            for (size_t i = 0; i < counts[part]; i++) {
                const uint32_t bits = golden_factor(&seed, shape->factor_type, rare);
                for (size_t b = 0; b < size; b++) at[(part ? column : 0) + i * size + b] = (unsigned char)(bits >> 8 * b);
            }
        at += column + coefficient;
        for (uint32_t i = 0; i < shape->rows; i++)
            for (uint32_t j = 0; j < shape->cols; j++)
                if (test_random(&seed) >> 63)
                    at[(i / 64 * (size_t)((shape->cols + 3) / 4) + j / 4) * 32 + i % 32] |= (unsigned char)(1u << (j % 4 + i % 64 / 32 * 4));
    }
}

static inline int golden_metadata(bitstack_writer *w) {
    static const unsigned char bytes[3] = {0, 127, 255};
    static const uint32_t u32[2] = {0, 4294967295u};
    static const int32_t i32[2] = {-2147483647 - 1, 7};
    static const float f32[3] = {0.5f, -0.0f, 1e-40f};
    static const uint64_t u64[1] = {18446744073709551615u};
    static const int64_t i64[1] = {-9007199254740993};
    static const double f64[2] = {0.1, 1e300};
    static const char *const strings[] = {"one", "", "\xC3\xA9t\xC3\xA9", "\xF0\x9F\xA6\x86"};
    char key[301];
    memset(key, 'k', 300), key[300] = 0;
    return bitstack_writer_meta(w, "u8", BITSTACK_META_U8, bytes, 3) || bitstack_writer_meta(w, "u32", BITSTACK_META_U32, u32, 2) ||
           bitstack_writer_meta(w, "i32", BITSTACK_META_I32, i32, 2) || bitstack_writer_meta(w, "f32", BITSTACK_META_F32, f32, 3) ||
           bitstack_writer_meta(w, "u64", BITSTACK_META_U64, u64, 1) || bitstack_writer_meta(w, "i64", BITSTACK_META_I64, i64, 1) ||
           bitstack_writer_meta(w, "f64", BITSTACK_META_F64, f64, 2) || bitstack_writer_meta(w, "none", BITSTACK_META_F64, NULL, 0) ||
           bitstack_writer_meta_strings(w, "strings", strings, NULL, 4) || bitstack_writer_meta_u32(w, key, 1);
}
static inline int golden_tensors(bitstack_writer *w) {
    static const uint64_t shape[4] = {2, 3, 1, 4}, none[2] = {5, 0};
    unsigned char data[96];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37);
    return bitstack_writer_tensor(w, "f32", BITSTACK_F32, 4, shape, data) || bitstack_writer_tensor(w, "f16", BITSTACK_F16, 2, shape, data) ||
           bitstack_writer_tensor(w, "bf16", BITSTACK_BF16, 1, shape, data) || bitstack_writer_tensor(w, "bytes", BITSTACK_BYTES, 3, shape, data) ||
           bitstack_writer_tensor(w, "scalar", BITSTACK_F32, 0, shape, data) || bitstack_writer_tensor(w, "nothing", BITSTACK_F32, 2, none, NULL);
}

/* Writes golden file number n to `path`; 0 on success. */
static inline int golden_write(int n, const char *path) {
    const golden_file *file = &golden_files[n];
    bitstack_order_entry order[64];
    bitstack_writer *writer;
    uint32_t one = 1, level;
    size_t entries = 0, bytes;
    int i, bad;
    if (bitstack_writer_open(&writer, path, NULL, NULL) != BITSTACK_OK) return 1;
    bad = (file->extras & 1 && golden_metadata(writer)) || (file->extras & 2 && golden_tensors(writer)) ||
          (file->extras & 4 && bitstack_writer_meta(writer, "a new idea", BITSTACK_META_U32, &one, 1));
    for (i = 0; i < file->count && !bad; i++) {
        bitstack_coded coded;
        golden_code(&coded, &file->matrices[i].shape, (uint64_t)(100 * n + i), !strcmp(file->name, "scales"));
        bad = bitstack_writer_matrix(writer, file->matrices[i].name, &coded, (float)(i + 1)) != BITSTACK_OK;
        for (level = 0; level < BITSTACK_MAX_LEVELS; level++) free(coded.blocks[level]);
    }
    for (level = 1; level <= BITSTACK_MAX_LEVELS; level++) /* levels mixed, the last matrix ahead */
        for (i = file->count; i-- > 0;)
            if (level <= file->matrices[i].shape.levels) order[entries].matrix = (uint32_t)i, order[entries].level = level, order[entries].score = 1 / (float)level, entries++;
    if (bad) bitstack_writer_abort(writer);
    if (bad || bitstack_writer_finish(writer, order, entries, NULL) != BITSTACK_OK) return 1;
    if (file->patch.at == 0) return 0;
    unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
    FILE *out = data ? fopen(path, "wb") : NULL;
    if (!out || bytes < 128 || file->patch.at + 4 > bytes) return 1;
    if (file->patch.bytes == -2) bytes = file->patch.at;
    if (file->patch.bytes == -1) data[file->patch.at] ^= 1;
    for (i = 0; i < file->patch.bytes; i++) data[file->patch.at + (uint32_t)i] = (unsigned char)(file->patch.value >> 8 * i);
    test_store64(data + 64, bitstack_checksum(data + 128, (size_t)test_load64(data + 16)));
    test_store64(data + 120, bitstack_checksum(data, 120));
    bad = fwrite(data, 1, bytes, out) != bytes;
    bad |= fclose(out) != 0;
    free(data);
    return bad;
}

/* Prints all that a reader makes of the file: every value, or its checksum. Products of the kernels in use. */
static inline void golden_describe(FILE *to, const char *name, const unsigned char *data, size_t bytes) {
    bitstack *stack;
    bitstack_error error = {BITSTACK_OK, 0, ""};
    bitstack_result result = bitstack_open_memory(&stack, data, bytes, NULL, &error);
    fprintf(to, "%s: %zu bytes, checksum %016llx\n", name, bytes, (unsigned long long)bitstack_checksum(data, bytes));
    if (error.code != BITSTACK_OK) fprintf(to, "  %s at %llu: %s\n", bitstack_result_string(error.code), (unsigned long long)error.byte_offset, error.message);
    if (result != BITSTACK_OK) return;
    fprintf(to, "  base %llu total %llu complete %llu blocks %d of %d\n", (unsigned long long)bitstack_base_bytes(stack), (unsigned long long)bitstack_total_bytes(stack),
            (unsigned long long)bitstack_complete_file_bytes(stack), bitstack_blocks_available(stack), bitstack_block_count(stack));
    for (int i = 0; i < bitstack_meta_count(stack); i++) {
        bitstack_meta meta;
        uint64_t cursor = 0;
        size_t length;
        const char *text;
        bitstack_get_meta(stack, i, &meta);
        fprintf(to, "  meta %.*s type %d count %llu:", (int)meta.key_bytes, meta.key, meta.type, (unsigned long long)meta.count);
        if (meta.type == BITSTACK_META_STRING)
            while ((text = bitstack_meta_next_string(&meta, &cursor, &length)) != NULL) fprintf(to, " \"%.*s\"", (int)length, text);
        else
            for (uint64_t k = 0; k < meta.count && meta.type <= BITSTACK_META_STRING; k++) {
                double value = bitstack_meta_element(&meta, k);
                test_little(&value, 8, 8);
                fprintf(to, " %016llx", (unsigned long long)test_load64(&value));
            }
        fprintf(to, "\n");
    }
    for (int i = 0; i < bitstack_tensor_count(stack); i++) {
        bitstack_tensor t;
        bitstack_get_tensor(stack, i, &t);
        fprintf(to, "  tensor %.*s type %d shape", (int)t.name_bytes, t.name, (int)t.type);
        for (int d = 0; d < t.dimensions; d++) fprintf(to, " %llu", (unsigned long long)t.shape[d]);
        fprintf(to, ": %llu bytes, checksum %016llx\n", (unsigned long long)t.bytes, (unsigned long long)bitstack_checksum(t.data, (size_t)t.bytes));
    }
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        static float w[65 * 130], x[1100], y[3][130];
        bitstack_matrix m;
        uint64_t seed = 1;
        bitstack_get_matrix(stack, i, &m);
        fprintf(to, "  matrix %.*s level %u of %u\n", (int)m.name_bytes, m.name, m.level, m.shape.levels);
        for (uint32_t j = 0; j < m.shape.cols; j++) x[j] = (float)((int)(test_random(&seed) >> 40 & 4095) - 2047) / 1024.0f;
        for (uint32_t level = 1, top = m.level; level <= top; level++) {
            bitstack_view view;
            size_t size = sizeof(float) * m.shape.rows;
            if (bitstack_set_level(stack, i, level, &error) != BITSTACK_OK) fprintf(to, "    %s\n", error.message);
            bitstack_dequantize(stack, i, w, m.shape.cols);
            bitstack_matrix_view(stack, i, &view);
            bitstack_view_gemv(&view, BITSTACK_FAST, x, y[0], 0, m.shape.rows);
            bitstack_view_gemv(&view, BITSTACK_EXACT, x, y[1], 0, m.shape.rows);
            test_little(w, size * m.shape.cols, 4), test_little(y, sizeof y, 4);
            fprintf(to, "    level %u: weights %016llx fast %016llx exact %016llx\n", level, (unsigned long long)bitstack_checksum(w, size * m.shape.cols),
                    (unsigned long long)bitstack_checksum(y[0], size), (unsigned long long)bitstack_checksum(y[1], size));
        }
    }
    bitstack_close(stack);
}
#endif
