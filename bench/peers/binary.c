/* binary.c - two any-size codings that people use, in groups of `group` columns, run by the kernels of
 * bitstack.h, which sees a sign plane a level with a coefficient a row and group.
 *   greedy       each level: signs of the residual, scale = mean of its absolute values; never refitted
 *                (direct binary approximation in Network Sketching, Guo et al., arXiv 1706.02021)
 *   any-precision  nested uniform codes: a code of b bits is a prefix of the one of b + 1 bits, all within one
 *                range a group, chosen by weighted error at 3 bits; w = middle + half range * (+-1/2 +-1/4 ...)
 *                (the nesting of Any-Precision LLM, Park et al., arXiv 2402.10517, on uniform grids instead of
 *                its clusters) */
#include "peer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct binary {
    uint32_t rows, cols, group, groups, levels;
    uint64_t plane_bytes;
    unsigned char *signs;   /* levels planes, as in bitstack.h */
    uint16_t *columns;      /* ones */
    uint16_t *coefficients; /* levels x groups x rows */
    uint16_t *middle;       /* groups x rows; NULL: none */
} binary;

static void set_sign(binary *b, size_t plane, size_t i, size_t j) {
    size_t tile = (b->cols + 3) / 4 * 32, r = i % 64;
    b->signs[plane * b->plane_bytes + i / 64 * tile + j / 4 * 32 + r % 32] |= (unsigned char)(1 << (j % 4 + r / 32 * 4));
}

static void greedy_group(binary *b, const float *w, size_t i, size_t g, size_t count) {
    float *r = peer_alloc(count, sizeof *r);
    memcpy(r, w, count * sizeof *r);
    for (size_t l = 0; l < b->levels; l++) {
        double sum = 0;
        for (size_t k = 0; k < count; k++) sum += fabsf(r[k]);
        uint16_t *c = &b->coefficients[(l * b->groups + g) * b->rows + i];
        *c = bitstack_f32_to_f16((float)(sum / (double)count));
        float a = bitstack_f16_to_f32(*c);
        for (size_t k = 0; k < count; k++) {
            if (r[k] >= 0) set_sign(b, l, i, g * b->group + k);
            r[k] -= r[k] >= 0 ? a : -a;
        }
    }
    free(r);
}

static void nested_group(binary *b, const float *w, const float *power, size_t i, size_t g, size_t count) {
    enum { CHOSEN_AT = 3 };
    float low = HUGE_VALF, high = -HUGE_VALF, middle = 0, half_range = 0;
    double best = HUGE_VAL;
    for (size_t k = 0; k < count; k++) low = fminf(low, w[k]), high = fmaxf(high, w[k]);
    for (int step = 0; step < 14; step++) {
        float centre = peer_half((low + high) / 2), reach = peer_half((high - low) / 2 * (1 - (float)step / 20));
        float cell = reach / (1 << (CHOSEN_AT - 1)), last = (1 << (CHOSEN_AT - 1)) - 0.5f;
        double error = 0;
        for (size_t k = 0; k < count && cell > 0; k++) {
            float at = (w[k] - centre) / cell, code = peer_clamp(floorf(at) + 0.5f, -last, last);
            error += (double)power[k] * (at - code) * (at - code) * cell * cell;
        }
        if (error < best) best = error, middle = centre, half_range = reach;
    }
    b->middle[g * b->rows + i] = bitstack_f32_to_f16(middle);
    for (size_t l = 0; l < b->levels; l++) {
        half_range /= 2;
        b->coefficients[(l * b->groups + g) * b->rows + i] = bitstack_f32_to_f16(half_range);
    }
    for (size_t k = 0; k < count; k++) {
        float at = middle;
        for (size_t l = 0; l < b->levels; l++) {
            float step = bitstack_f16_to_f32(b->coefficients[(l * b->groups + g) * b->rows + i]);
            if (w[k] >= at) set_sign(b, l, i, g * b->group + k);
            at += w[k] >= at ? step : -step;
        }
    }
}

/* peer.option: 0 greedy, 1 any-precision. */
bitstack_result peer_binary_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    binary *b = peer_alloc(1, sizeof *b);
    size_t n = out->cols;
    float *power = peer_alloc(n, sizeof *power);
    (void)threads;
    b->rows = out->rows, b->cols = out->cols, b->group = (uint32_t)out->peer->group, b->levels = (uint32_t)out->peer->bits;
    b->groups = (b->cols + b->group - 1) / b->group;
    b->plane_bytes = bitstack_plane_bytes(b->rows, b->cols);
    b->signs = peer_alloc(b->levels, b->plane_bytes);
    b->columns = peer_alloc(n, sizeof *b->columns);
    b->coefficients = peer_alloc((size_t)b->levels * b->groups * b->rows, sizeof *b->coefficients);
    if (out->peer->option) b->middle = peer_alloc((size_t)b->groups * b->rows, sizeof *b->middle);
    for (size_t j = 0; j < n; j++) b->columns[j] = 0x3C00;
    peer_input_power(moments, out->cols, power);
    for (size_t i = 0; i < b->rows; i++)
        for (size_t g = 0; g < b->groups; g++) {
            size_t at = g * b->group, count = n - at < b->group ? n - at : b->group;
            if (out->peer->option) nested_group(b, w + i * n + at, power + at, i, g, count);
            else greedy_group(b, w + i * n + at, i, g, count);
        }
    free(power);
    out->data = b;
    out->levels = b->levels;
    for (uint64_t l = 1; l <= b->levels; l++) /* greedy: a scale a level; any-precision: range and middle */
        out->bytes[l - 1] = l * (((uint64_t)b->rows * b->cols + 7) / 8) + (b->middle ? 2 : l) * 2 * b->groups * b->rows;
    return BITSTACK_OK;
}

static bitstack_view view_of(const binary *b, uint32_t level, bitstack_plane *planes) {
    bitstack_view view = {b->rows, b->cols, 1, b->group, level, BITSTACK_F16, 1, planes, BITSTACK_PLANES, 0};
    for (size_t l = 0; l < level; l++) {
        planes[l].signs = b->signs + l * b->plane_bytes, planes[l].columns = b->columns;
        planes[l].coefficients = b->coefficients + l * b->groups * b->rows;
    }
    return view;
}
void peer_binary_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    const binary *b = coded->data;
    bitstack_plane planes[PEER_LEVELS];
    bitstack_view view = view_of(b, level, planes);
    bitstack_view_dequantize(&view, 0, b->rows, out, b->cols);
    for (size_t i = 0; b->middle && i < b->rows; i++)
        for (size_t j = 0; j < b->cols; j++)
            out[i * b->cols + j] += bitstack_f16_to_f32(b->middle[j / b->group * b->rows + i]);
}
void peer_binary_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    const binary *b = coded->data;
    bitstack_plane planes[PEER_LEVELS];
    bitstack_view view = view_of(b, level, planes);
    bitstack_view_gemv(&view, BITSTACK_FAST, x, y, 0, b->rows);
    for (size_t g = 0; b->middle && g < b->groups; g++) {
        float sum = 0;
        for (size_t j = g * b->group; j < (g + 1) * b->group && j < b->cols; j++) sum += x[j];
        for (size_t i = 0; i < b->rows; i++) y[i] += sum * bitstack_f16_to_f32(b->middle[g * b->rows + i]);
    }
}
void peer_binary_release(peer_coded *coded) {
    binary *b = coded->data;
    free(b->signs), free(b->columns), free(b->coefficients), free(b->middle), free(b);
}
