/* tables.h - random matrices of encoding TABLES, and what they say, read by the text of [FORMAT] alone. */
#ifndef TABLES_H
#define TABLES_H

#include "bitstack.h"
#include "test.h"

enum { TABLES_LEVELS = 8 };

/* --- The parts of a block with random contents; each is zero before. --- */
static inline void tables_store(unsigned char *to, uint32_t value, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (unsigned char)(value >> 8 * i);
}
/* Codes of about 1; now and then 0, or, if `wild`, any. */
static inline unsigned char tables_code(uint64_t *seed, int wild) {
    const uint64_t dice = test_random(seed);
    return (unsigned char)(dice % 29 == 0 ? 0 : wild && dice % 5 == 0 ? dice >> 16 & 255 : 120 + (dice >> 8) % 110);
}
static inline void tables_column(unsigned char *part, uint32_t level, uint32_t cols, float unit, uint64_t *seed, int wild) {
    uint32_t bits;
    memcpy(&bits, &unit, 4);
    tables_store(part, bits, 4);
    for (uint32_t i = 0; i < 1u << level; i++) {
        const uint64_t dice = test_random(seed);
        const int value = level <= 6 ? (int)(dice % 255) - 127 : (int)(dice % 65536) - 32768, edge = level <= 6 ? 127 : dice >> 33 & 1 ? 32767 : 32768;
        tables_store(part + 16 + 2 * i, (uint32_t)(dice >> 40 & 3 ? value : dice >> 32 & 1 ? -edge : level <= 6 ? edge : 32767), 2);
    }
    for (uint32_t j = 0; j < cols; j++) part[16 + 2 * (1u << level) + j] = tables_code(seed, wild);
}
static inline void tables_coefficient(unsigned char *part, uint32_t rows, size_t groups, uint64_t *seed, int wild) {
    for (size_t g = 0; g < groups; g++)
        for (uint32_t i = 0; i < rows; i++) part[(i / 16 * groups + g) * 16 + i % 16] = tables_code(seed, wild);
}
static inline void tables_plane(unsigned char *part, uint32_t rows, uint32_t cols, uint64_t *seed) {
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++)
            if (test_random(seed) >> 63)
                part[((size_t)(i / 16) * ((cols + 31) / 32) + j / 32) * 64 + i % 16 * 4 + j % 4] |= (unsigned char)(1u << j % 32 / 4);
}

/* --- The definition --- */
static inline double tables_value(unsigned char code) { return code ? (1 + code % 32 / 32.0) * pow(2, code / 32 - 7) : 0; }
static inline double tables_unit(const bitstack_view *view) {
    float unit;
    memcpy(&unit, view->planes->columns, 4);
    test_little(&unit, 4, 4);
    return (double)unit * (double)view->scale;
}
static inline double tables_table(const bitstack_view *view, uint32_t i, uint32_t j) {
    const unsigned char *table = (const unsigned char *)view->planes->columns + 16;
    unsigned index = 0;
    for (uint32_t p = 0; p < view->level; p++)
        index |= (unsigned)(view->planes[p].signs[((size_t)(i / 16) * ((view->cols + 31) / 32) + j / 32) * 64 + i % 16 * 4 + j % 4] >> (j % 32 / 4) & 1) << p;
    return (int16_t)(table[2 * index] | table[2 * index + 1] << 8);
}
static inline double tables_col_scale(const bitstack_view *view, uint32_t j) {
    return tables_value(((const unsigned char *)view->planes->columns)[16 + 2 * (1u << view->level) + j]);
}
static inline double tables_row_scale(const bitstack_view *view, uint32_t i, uint32_t group) {
    const size_t groups = (view->cols + view->group_cols - 1) / view->group_cols;
    return tables_value(((const unsigned char *)view->planes->coefficients)[(i / 16 * groups + group) * 16 + i % 16]);
}
static inline double tables_weight(const bitstack_view *view, uint32_t i, uint32_t j) {
    return tables_table(view, i, j) * tables_row_scale(view, i, j / view->group_cols) * tables_col_scale(view, j) * tables_unit(view);
}
/* The product, the bounds that bitstack_gemv states for FAST and EXACT without what floats add, and the sum of all
 * |weight * x|. */
static inline void tables_reference(const bitstack_view *view, const float *x, double *y, double *fast, double *exact, double *sum) {
    const uint32_t groups = (view->cols + view->group_cols - 1) / view->group_cols;
    double *z = (double *)malloc(view->cols * sizeof *z);
    for (uint32_t j = 0; j < view->cols; j++) z[j] = tables_col_scale(view, j) * (double)x[j];
    for (uint32_t i = 0; i < view->rows; i++) {
        y[i] = fast[i] = exact[i] = sum[i] = 0;
        for (uint32_t g = 0; g < groups; g++) {
            const double s = tables_row_scale(view, i, g) * tables_unit(view);
            double part = 0, all = 0, table = 0, most = 0;
            for (uint32_t j = g * view->group_cols; j < view->cols && j < (g + 1) * view->group_cols; j++) {
                const double t = tables_table(view, i, j);
                part += t * z[j], all += fabs(t * z[j]), table += fabs(t), most = fmax(most, fabs(z[j]));
            }
            y[i] += s * part, sum[i] += s * all;
            fast[i] += s * 0.501 * most / (view->level > 6 ? 32512 : 127) * table, exact[i] += s * 0.501 * most / 32512 * table;
        }
    }
    free(z);
}

/* A view over memory of its own, deliberately off alignment. */
typedef struct tables_view {
    bitstack_view view;
    bitstack_plane planes[TABLES_LEVELS];
    unsigned char *memory[TABLES_LEVELS + 2];
} tables_view;
static inline void tables_make(tables_view *out, uint64_t *seed, uint32_t rows, uint32_t cols, uint32_t level, uint32_t group_cols, int wild) {
    const size_t tiles = (rows + 15) / 16, groups = (cols + group_cols - 1) / group_cols;
    memset(out, 0, sizeof *out);
    out->view.rows = rows, out->view.cols = cols, out->view.level = level, out->view.rank = 1, out->view.group_cols = group_cols;
    out->view.scale = 0.25f, out->view.planes = out->planes, out->view.encoding = BITSTACK_TABLES;
    unsigned char *column = out->memory[8] = (unsigned char *)calloc(16 + 2 * ((size_t)1 << level) + cols + 8, 1);
    unsigned char *coefficient = out->memory[9] = (unsigned char *)calloc(tiles * groups * 16 + 8, 1);
    tables_column(column + 3, level, cols, wild ? 0x1p+3f : 0x1p-7f, seed, wild);
    tables_coefficient(coefficient + 1, rows, groups, seed, wild);
    for (uint32_t p = 0; p < level; p++) {
        out->memory[p] = (unsigned char *)calloc(tiles * ((cols + 31) / 32) * 64 + 8, 1);
        tables_plane(out->memory[p] + p % 4, rows, cols, seed);
        out->planes[p].signs = out->memory[p] + p % 4;
        out->planes[p].columns = column + 3, out->planes[p].coefficients = coefficient + 1;
    }
}
/* Makes the first plane the sign, as the compressor does; then, if `spoilt` is not 0, one value is another all the same. */
static inline void tables_make_odd(tables_view *it, uint32_t spoilt) {
    const uint32_t level = it->view.level, last = (1u << level) - 1;
    unsigned char *table = it->memory[8] + 3 + 16;
    for (uint32_t i = 1; i <= last; i += 2) {
        const int value = abs((int16_t)(table[2 * i] | table[2 * i + 1] << 8)) % 32767;
        tables_store(table + 2 * i, (uint32_t)value, 2), tables_store(table + 2 * (last - i), (uint32_t)-value, 2);
    }
    if (spoilt) table[2 * (spoilt & last)] = (unsigned char)(spoilt >> 8 & 63), table[2 * (spoilt & last) + 1] = 0;
}
static inline void tables_drop(tables_view *it) {
    for (int i = 0; i < TABLES_LEVELS + 2; i++) free(it->memory[i]);
}
#endif
