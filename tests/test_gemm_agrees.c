/* Many vectors at once give what single products give: the same bits by look-up, and within the documented
 * bound where weights are rebuilt as floats; the same bits for every split of the rows. */
#include "bitstack.h"
#include "tables.h"

enum { LEVELS = 7 };

static void *bytes_of(uint64_t *seed, size_t count) {
    unsigned char *to = (unsigned char *)malloc(count + 8);
    for (size_t i = 0; i < count; i++) to[i] = (unsigned char)(test_random(seed) >> 56);
    return to;
}
static void *factors_of(uint64_t *seed, size_t count, bitstack_type type) {
    unsigned char *to = (unsigned char *)malloc(count * 4 + 8);
    for (size_t i = 0; i < count; i++) {
        float value = test_normal(seed);
        uint16_t half = bitstack_f32_to_f16(value);
        if (type == BITSTACK_F16) memcpy(to + 2 * i, &half, 2);
        else memcpy(to + 4 * i, &value, 4);
    }
    return to;
}

/* The documented bound for floats: times the sum of |scale u v x|, here from a view with all signs +. */
static double slack(const bitstack_view *view, double magnitude) {
    return (150 + view->cols / 64.0 + 2.0 * view->level * view->rank) * magnitude / 16777216;
}

static void check(uint64_t *seed, uint32_t rows, uint32_t cols, uint32_t rank, uint32_t level, uint32_t group_cols,
                  bitstack_type type, int own, size_t batch) {
    bitstack_plane planes[LEVELS];
    bitstack_view view = {rows, cols, rank, group_cols, level, type, 0.5f, planes, BITSTACK_PLANES, 0};
    size_t groups = group_cols ? (cols + group_cols - 1) / group_cols : 1;
    size_t x_stride = cols + 3, y_stride = rows + 5, y_bytes = 4 * y_stride * batch;
    for (uint32_t p = 0; p < level; p++) {
        planes[p].signs = (unsigned char *)bytes_of(seed, (size_t)(rows + 63) / 64 * ((cols + 3) / 4) * 32);
        planes[p].coefficients = factors_of(seed, groups * rank * rows, type);
        planes[p].columns = own || p == 0 ? factors_of(seed, (size_t)rank * cols, type) : planes[0].columns;
    }
    unsigned char *x_memory = (unsigned char *)malloc(x_stride * batch * 4 + 8);
    unsigned char *y_memory = (unsigned char *)malloc(y_bytes + 8), *parts = (unsigned char *)malloc(y_bytes + 8);
    float *x = (float *)(void *)(x_memory + batch % 4), *y = (float *)(void *)(y_memory + rows % 4), *part = (float *)(void *)(parts + rows % 4);
    float *one = (float *)malloc(4 * (size_t)rows), *exact = (float *)malloc(4 * (size_t)rows);
    float *w = (float *)malloc(4 * (size_t)cols);
    for (size_t i = 0; i < x_stride * batch; i++) {
        float value = test_normal(seed);
        memcpy(x_memory + batch % 4 + 4 * i, &value, 4);
    }
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        for (int k = 0; k < 2; k++) {
            const bitstack_precision precision = k ? BITSTACK_EXACT : BITSTACK_FAST;
            size_t same = 0, b;
            memset(y_memory, 0x5A, y_bytes + 8);
            memset(parts, 0x5A, y_bytes + 8);
            CHECK(bitstack_view_gemm(&view, precision, x, x_stride, y, y_stride, batch) == BITSTACK_OK, "failed");
            for (uint32_t begin = 0, count; begin < rows; begin += count) {
                count = 1 + (uint32_t)(test_random(seed) % 150);
                if (count > rows - begin) count = rows - begin;
                bitstack_view_gemm_rows(&view, precision, x, x_stride, part + begin, y_stride, batch, begin, count);
            }
            CHECK(!memcmp(y_memory, parts, y_bytes + 8), "%s: rows in parts differ", bitstack_isa());
            for (b = 0; b < batch; b++) {
                const unsigned char *row = y_memory + rows % 4 + 4 * b * y_stride;
                const float *input = (const float *)(const void *)((const char *)x + 4 * b * x_stride);
                for (size_t i = 4 * (size_t)rows; i < 4 * y_stride && b + 1 < batch; i++) CHECK(row[i] == 0x5A, "wrote between vectors");
                bitstack_view_gemv(&view, precision, input, one, 0, rows);
                if (!memcmp(row, one, 4 * (size_t)rows)) {
                    same++;
                    continue;
                }
                bitstack_view_gemv(&view, BITSTACK_REFERENCE, input, exact, 0, rows);
                for (uint32_t i = 0; i < rows; i++) {
                    double magnitude = 0;
                    float value;
                    memcpy(&value, row + 4 * i, 4);
                    /* sum of |scale u v x|: one plane and rank at a time, rebuilt as weights */
                    for (uint32_t p = 0; p < level && b < 2; p++) {
                        bitstack_plane plane = planes[p];
                        bitstack_view single = view;
                        for (uint32_t r = 0; r < rank; r++) {
                            size_t size = type == BITSTACK_F16 ? 2 : 4;
                            if (groups > 1 && r) break; /* below: a bound is enough */
                            single.level = single.rank = 1, single.planes = &plane, single.group_cols = 0;
                            plane.columns = (const char *)planes[p].columns + r * cols * size;
                            plane.coefficients = (const char *)planes[p].coefficients + r * rows * size;
                            bitstack_view_dequantize(&single, i, 1, w, cols);
                            for (uint32_t j = 0; j < cols; j++) {
                                float xj;
                                memcpy(&xj, (const char *)input + 4 * j, 4);
                                magnitude += fabs((double)w[j] * (double)xj);
                            }
                        }
                    }
                    if (b >= 2 || groups > 1) magnitude = 4.0 * cols * rank * level;
                    CHECK(fabs((double)value - (double)exact[i]) <= slack(&view, magnitude) + fabs((double)exact[i]) * 6e-8,
                          "%s %u x %u rank %u level %u batch %zu, vector %zu row %u: %g instead of %g", bitstack_isa(), rows, cols,
                          rank, level, batch, b, i, (double)value, (double)exact[i]);
                }
            }
            CHECK(same == batch || same == 0 || rows < 64, "%s: %zu of %zu vectors have the bits of a single product", bitstack_isa(), same, batch);
            if (level * rank * (unsigned)(k + 1) <= 5) CHECK(same == batch, "%s: other bits than a single product", bitstack_isa());
        }
    }
    for (uint32_t p = 0; p < level; p++) {
        free((void *)(uintptr_t)planes[p].signs), free((void *)(uintptr_t)planes[p].coefficients);
        if (own || p == 0) free((void *)(uintptr_t)planes[p].columns);
    }
    free(x_memory), free(y_memory), free(parts), free(one), free(exact), free(w);
}

/* Encoding TABLES: the same promises. */
static void check_tables(uint64_t *seed, uint32_t rows, uint32_t cols, uint32_t level, uint32_t group_cols, size_t batch) {
    const size_t x_stride = cols + 3, y_stride = rows + 5, y_bytes = 4 * y_stride * batch;
    tables_view t;
    unsigned char *x_memory = (unsigned char *)malloc(x_stride * batch * 4 + 8);
    unsigned char *y_memory = (unsigned char *)malloc(y_bytes + 8), *parts = (unsigned char *)malloc(y_bytes + 8);
    float *x = (float *)(void *)(x_memory + batch % 4), *y = (float *)(void *)(y_memory + rows % 4), *part = (float *)(void *)(parts + rows % 4);
    float *one = (float *)malloc(4 * (size_t)rows);
    double *terms = (double *)malloc((size_t)rows * 4 * sizeof *terms);
    tables_make(&t, seed, rows, cols, level, group_cols, 0);
    for (size_t i = 0; i < x_stride * batch; i++) {
        float value = test_normal(seed);
        memcpy(x_memory + batch % 4 + 4 * i, &value, 4);
    }
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        for (int k = 0; k < 2; k++) {
            const bitstack_precision precision = k ? BITSTACK_EXACT : BITSTACK_FAST;
            size_t same = 0;
            memset(y_memory, 0x5A, y_bytes + 8), memset(parts, 0x5A, y_bytes + 8);
            CHECK(bitstack_view_gemm(&t.view, precision, x, x_stride, y, y_stride, batch) == BITSTACK_OK, "failed");
            for (uint32_t begin = 0, count; begin < rows; begin += count) {
                count = 1 + (uint32_t)(test_random(seed) % 150);
                if (count > rows - begin) count = rows - begin;
                bitstack_view_gemm_rows(&t.view, precision, x, x_stride, part + begin, y_stride, batch, begin, count);
            }
            CHECK(!memcmp(y_memory, parts, y_bytes + 8), "%s level %u: rows in parts differ", bitstack_isa(), level);
            for (size_t b = 0; b < batch; b++) {
                const unsigned char *row = y_memory + rows % 4 + 4 * b * y_stride;
                const float *input = (const float *)(const void *)((const char *)x + 4 * b * x_stride);
                float *aligned = (float *)malloc(4 * (size_t)cols);
                for (size_t i = 4 * (size_t)rows; i < 4 * y_stride && b + 1 < batch; i++) CHECK(row[i] == 0x5A, "wrote between vectors");
                bitstack_view_gemv(&t.view, precision, input, one, 0, rows);
                same += !memcmp(row, one, 4 * (size_t)rows);
                memcpy(aligned, (const void *)input, 4 * (size_t)cols);
                if (b < 3) tables_reference(&t.view, aligned, terms, terms + rows, terms + 2 * rows, terms + 3 * rows);
                for (uint32_t i = 0; b < 3 && i < rows; i++) {
                    float value;
                    memcpy(&value, row + 4 * i, 4);
                    const double slack = memcmp(row, one, 4 * (size_t)rows) ? (150 + cols / 64.0 + 2.0 * level) * terms[3 * rows + i] / 16777216
                                                                            : terms[(1u + (uint32_t)k) * rows + i] + (20 + cols / 32.0) * terms[3 * rows + i] / 16777216;
                    CHECK(fabs((double)value - terms[i]) <= slack, "%s %u x %u level %u batch %zu, vector %zu row %u: %g instead of %g", bitstack_isa(), rows, cols,
                          level, batch, b, i, (double)value, terms[i]);
                }
                free(aligned);
            }
            CHECK(same == batch || (batch > 8 && (k || level > 6 || group_cols > 128) && (same == 0 || rows < 64)), "%s level %u: %zu of %zu vectors have the bits of a single product", bitstack_isa(), level, same, batch);
        }
    }
    bitstack_set_isa(NULL);
    tables_drop(&t);
    free(x_memory), free(y_memory), free(parts), free(one), free(terms);
}

int main(void) {
    uint64_t seed = 4;
    TEST("small batches have the bits of single products");
    for (int i = 0; i < 40; i++) {
        uint32_t rows = 1 + (uint32_t)(test_random(&seed) % 200), cols = 1 + (uint32_t)(test_random(&seed) % 300);
        uint64_t dice = test_random(&seed);
        static const uint32_t groups[4] = {0, 0, 64, 192};
        check(&seed, rows, cols, 1 + (uint32_t)dice % 2, 1 + (uint32_t)(dice >> 8) % 3, groups[dice >> 16 & 3], dice >> 18 & 1 ? BITSTACK_F16 : BITSTACK_F32,
              (int)(dice >> 19 & 1), 1 + (dice >> 24) % 37);
    }
    TEST("batches of wide matrices have the bits of single products");
    check(&seed, 70, 3000, 1, 3, 0, BITSTACK_F16, 0, 5);
    check(&seed, 65, 5000, 2, 2, 448, BITSTACK_F32, 1, 7);
    TEST("large batches with many planes or ranks stay within the bound");
    check(&seed, 200, 300, 16, 3, 0, BITSTACK_F16, 1, 9);
    check(&seed, 64, 257, 1, 7, 0, BITSTACK_F16, 0, 300);
    check(&seed, 130, 1000, 4, 5, 192, BITSTACK_F32, 0, 23);
    check(&seed, 67, 130, 40, 2, 64, BITSTACK_F16, 1, 40);
    check(&seed, 1, 1, 16, 7, 0, BITSTACK_F32, 1, 64);

    TEST("tables: small batches have the bits of single products, large ones stay within the bound");
    for (int i = 0; i < 24; i++) {
        static const uint32_t groups[4] = {32, 64, 128, 1024};
        const uint32_t rows = 1 + (uint32_t)(test_random(&seed) % 150), cols = 1 + (uint32_t)(test_random(&seed) % 300);
        const uint64_t dice = test_random(&seed);
        check_tables(&seed, rows, cols, 1 + (uint32_t)i % 8, groups[dice & 3], 1 + (dice >> 8) % 19);
    }
    check_tables(&seed, 80, 9000, 4, 64, 8);
    check_tables(&seed, 70, 700, 3, 64, 70);
    check_tables(&seed, 33, 2300, 6, 128, 131);
    check_tables(&seed, 65, 2100, 8, 1024, 33);

    TEST("sums that vanish keep their sign however rows are split");
    {
        enum { ROWS = 64, COLS = 8, BATCH = 300 };
        static unsigned char signs[ROWS * COLS / 8];
        static float u[ROWS], v[COLS], in[BATCH * COLS], whole[BATCH * ROWS], halves[BATCH * ROWS];
        bitstack_plane planes[LEVELS];
        bitstack_view view = {ROWS, COLS, 1, 0, LEVELS, BITSTACK_F32, 1, planes, BITSTACK_PLANES, 0};
        memset(signs, 0xFF, sizeof signs);
        for (int i = 0; i < ROWS; i++) u[i] = 1e-30f;
        for (int j = 0; j < COLS; j++) v[j] = 1;
        for (int i = 0; i < BATCH * COLS; i++) in[i] = -1e-30f;
        for (int p = 0; p < LEVELS; p++) planes[p].signs = signs, planes[p].coefficients = u, planes[p].columns = v;
        for (int isa = 0; bitstack_isa_name(isa); isa++) {
            if (!bitstack_isa_available(isa)) continue;
            bitstack_set_isa(bitstack_isa_name(isa));
            bitstack_view_gemm(&view, BITSTACK_FAST, in, COLS, whole, ROWS, BATCH);
            bitstack_view_gemm_rows(&view, BITSTACK_FAST, in, COLS, halves, ROWS, BATCH, 0, ROWS / 2);
            bitstack_view_gemm_rows(&view, BITSTACK_FAST, in, COLS, halves + ROWS / 2, ROWS, BATCH, ROWS / 2, ROWS / 2);
            CHECK(!memcmp(whole, halves, sizeof whole), "%s", bitstack_isa());
        }
        bitstack_set_isa(NULL);
    }

    TEST("no vectors and bad arguments behave as documented");
    bitstack_plane plane = {NULL, NULL, NULL};
    bitstack_view view = {10, 20, 1, 0, 1, BITSTACK_F16, 1, &plane, BITSTACK_PLANES, 0};
    float x[40], y[20];
    CHECK(bitstack_view_gemm(&view, BITSTACK_FAST, x, 20, y, 10, 0) == BITSTACK_OK, "no vectors");
    CHECK(bitstack_view_gemm(&view, BITSTACK_FAST, x, 19, y, 10, 2) == BITSTACK_ERROR_ARGUMENT, "overlapping inputs");
    CHECK(bitstack_view_gemm(&view, BITSTACK_FAST, x, 20, y, 9, 2) == BITSTACK_ERROR_ARGUMENT, "overlapping outputs");
    view.level = 0;
    y[0] = y[19] = 3;
    CHECK(bitstack_view_gemm(&view, BITSTACK_FAST, x, 20, y, 10, 2) == BITSTACK_OK && y[0] == 0 && y[19] == 0, "level 0");
    return TEST_DONE();
}
