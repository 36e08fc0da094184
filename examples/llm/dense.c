#include "dense.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Eight lanes whatever the machine has: two SSE registers, or one AVX. Loads need no alignment. */
typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u8 __attribute__((vector_size(32)));
typedef uint16_t h8 __attribute__((vector_size(16), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define SUM(v) (((v)[0] + (v)[4]) + ((v)[2] + (v)[6]) + (((v)[1] + (v)[5]) + ((v)[3] + (v)[7])))

INLINE const v8 *at(const float *p) { return (const v8 *)(const void *)p; }

/* Two rows of w by four vectors: eight running sums keep the adders busy, six loads feed them. */
INLINE void two_by_four(const float *w0, const float *w1, size_t cols, const float *const *x, float *sums) {
    v8 s[8] = {{0}};
    size_t j = 0;
    for (; j + 8 <= cols; j += 8) {
        v8 a = *at(w0 + j), b = *at(w1 + j);
        for (int t = 0; t < 4; t++) {
            v8 c = *at(x[t] + j);
            s[t] += a * c;
            s[4 + t] += b * c;
        }
    }
    for (int t = 0; t < 8; t++) sums[t] = SUM(s[t]);
    for (; j < cols; j++)
        for (int t = 0; t < 4; t++) {
            sums[t] += w0[j] * x[t][j];
            sums[4 + t] += w1[j] * x[t][j];
        }
}

INLINE void four_by_one(const float *const *w, size_t cols, const float *x, float *sums) {
    v8 s[4] = {{0}};
    size_t j = 0;
    for (; j + 8 <= cols; j += 8) {
        v8 c = *at(x + j);
        for (int t = 0; t < 4; t++) s[t] += *at(w[t] + j) * c;
    }
    for (int t = 0; t < 4; t++) sums[t] = SUM(s[t]);
    for (; j < cols; j++)
        for (int t = 0; t < 4; t++) sums[t] += w[t][j] * x[j];
}

/* Sixteen vectors at a time stay in the first-level cache while the rows of w go by. Edges repeat the last
 * row instead of having code of their own. */
INLINE void gemm_body(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y,
                      size_t y_stride, size_t count) {
    float sums[8];
    for (size_t tile = 0; tile < count; tile += 16) {
        size_t end = tile + 16 < count ? tile + 16 : count, quads = tile + (end - tile) / 4 * 4;
        for (size_t i = 0; i < rows && quads > tile; i += 2) {
            size_t next = i + 1 < rows ? i + 1 : i;
            for (size_t t = tile; t < quads; t += 4) {
                const float *xs[4] = {x + t * x_stride, x + (t + 1) * x_stride, x + (t + 2) * x_stride,
                                      x + (t + 3) * x_stride};
                two_by_four(w + i * cols, w + next * cols, cols, xs, sums);
                for (size_t k = 0; k < 4; k++) {
                    y[(t + k) * y_stride + i] = sums[k];
                    y[(t + k) * y_stride + next] = sums[4 + k];
                }
            }
        }
        for (size_t t = quads; t < end; t++)
            for (size_t i = 0; i < rows; i += 4) {
                const float *ws[4];
                for (size_t k = 0; k < 4; k++) ws[k] = w + (i + k < rows ? i + k : rows - 1) * cols;
                four_by_one(ws, cols, x + t * x_stride, sums);
                for (size_t k = 0; k < 4 && i + k < rows; k++) y[t * y_stride + i + k] = sums[k];
            }
    }
}

INLINE void attend_body(float *out, const float *q, const float *k, const float *v, size_t size, size_t stride,
                        size_t count, float scale, float *scores) {
    float most = -INFINITY, total = 0;
    for (size_t t = 0; t < count; t++) {
        const float *row = k + t * stride;
        v8 s = {0};
        size_t j = 0;
        for (; j + 8 <= size; j += 8) s += *at(q + j) * *at(row + j);
        float sum = SUM(s);
        for (; j < size; j++) sum += q[j] * row[j];
        scores[t] = sum * scale;
        if (scores[t] > most) most = scores[t];
    }
    for (size_t t = 0; t < count; t++) total += scores[t] = expf(scores[t] - most);
    memset(out, 0, size * sizeof *out);
    for (size_t t = 0; t < count; t++) {
        const float *row = v + t * stride;
        float weight = scores[t] / total;
        size_t j = 0;
        for (; j + 8 <= size; j += 8) *(v8 *)(void *)(out + j) += *at(row + j) * weight;
        for (; j < size; j++) out[j] += row[j] * weight;
    }
}

INLINE float half(uint32_t h) {
    uint32_t exponent = h & 0x7c00u, bits = (h & 0x7fffu) << 13;
    float value;
    if (exponent == 0) value = (float)(h & 0x3ffu) * 0x1p-24f;
    else {
        bits += exponent == 0x7c00u ? 224u << 23 : 112u << 23;
        memcpy(&value, &bits, 4);
    }
    return h & 0x8000u ? -value : value;
}

INLINE void unpack_f16_body(const unsigned char *from, size_t count, float *to) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        u8 h = __builtin_convertvector(*(const h8 *)(const void *)(from + 2 * i), u8);
        u8 exponent = h & 0x7c00u;
        u8 small = (u8)(exponent == 0), special = (u8)(exponent == 0x7c00u);
        u8 normal = ((h & 0x7fffu) << 13) + (112u << 23) + (special & (112u << 23));
        v8 tiny = __builtin_convertvector(h & 0x3ffu, v8) * 0x1p-24f; /* subnormal: mantissa times 2^-24 */
        u8 bits = (small & (u8)tiny) | (~small & normal) | (h & 0x8000u) << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
    for (; i < count; i++) to[i] = half((uint32_t)from[2 * i] | (uint32_t)from[2 * i + 1] << 8);
}

#if defined(__x86_64__) && !defined(__AVX2__)
#define TWICE(name, parameters, arguments)                                                             \
    __attribute__((target("avx2"))) static void name##_avx2 parameters { name##_body arguments; } \
    void llm_##name parameters {                                                                       \
        if (__builtin_cpu_supports("avx2")) name##_avx2 arguments;                                     \
        else name##_body arguments;                                                                    \
    }
#else
#define TWICE(name, parameters, arguments) \
    void llm_##name parameters { name##_body arguments; }
#endif

TWICE(gemm, (const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
             size_t count), (w, rows, cols, x, x_stride, y, y_stride, count))
TWICE(attend, (float *out, const float *q, const float *k, const float *v, size_t size, size_t stride, size_t count,
               float scale, float *scores), (out, q, k, v, size, stride, count, scale, scores))
TWICE(unpack_f16, (const unsigned char *from, size_t count, float *to), (from, count, to))
