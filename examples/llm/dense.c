#include "dense.h"
#include "dense_x86.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

/* Eight lanes whatever the machine has: two SSE registers, or one AVX. Loads need no alignment. */
typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u8 __attribute__((vector_size(32)));
typedef uint16_t h8 __attribute__((vector_size(16), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define SUM(v) (((v)[0] + (v)[4]) + ((v)[2] + (v)[6]) + (((v)[1] + (v)[5]) + ((v)[3] + (v)[7])))

INLINE const v8 *at(const float *p) { return (const v8 *)(const void *)p; }

/* Two rows of w by four vectors: eight running sums keep the adders busy, six loads feed them. The sums have
 * names, not indices, so that they stay in registers at any level of optimisation. */
INLINE void two_by_four(const float *w0, const float *w1, size_t cols, const float *x, size_t x_stride, float *sums) {
    const float *x0 = x, *x1 = x + x_stride, *x2 = x + 2 * x_stride, *x3 = x + 3 * x_stride;
    v8 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};
    size_t j = 0;
    for (; j + 8 <= cols; j += 8) {
        v8 a = *at(w0 + j), b = *at(w1 + j), c;
        c = *at(x0 + j), s0 += a * c, s4 += b * c;
        c = *at(x1 + j), s1 += a * c, s5 += b * c;
        c = *at(x2 + j), s2 += a * c, s6 += b * c;
        c = *at(x3 + j), s3 += a * c, s7 += b * c;
    }
    sums[0] = SUM(s0), sums[1] = SUM(s1), sums[2] = SUM(s2), sums[3] = SUM(s3);
    sums[4] = SUM(s4), sums[5] = SUM(s5), sums[6] = SUM(s6), sums[7] = SUM(s7);
    for (; j < cols; j++)
        for (size_t t = 0; t < 4; t++) sums[t] += w0[j] * x[t * x_stride + j], sums[4 + t] += w1[j] * x[t * x_stride + j];
}

INLINE void four_by_one(const float *w0, const float *w1, const float *w2, const float *w3, size_t cols, const float *x,
                        float *sums) {
    v8 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    size_t j = 0;
    for (; j + 8 <= cols; j += 8) {
        v8 c = *at(x + j);
        s0 += *at(w0 + j) * c, s1 += *at(w1 + j) * c, s2 += *at(w2 + j) * c, s3 += *at(w3 + j) * c;
    }
    sums[0] = SUM(s0), sums[1] = SUM(s1), sums[2] = SUM(s2), sums[3] = SUM(s3);
    for (; j < cols; j++) sums[0] += w0[j] * x[j], sums[1] += w1[j] * x[j], sums[2] += w2[j] * x[j], sums[3] += w3[j] * x[j];
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
                two_by_four(w + i * cols, w + next * cols, cols, x + t * x_stride, x_stride, sums);
                for (size_t k = 0; k < 4; k++) {
                    y[(t + k) * y_stride + i] = sums[k];
                    y[(t + k) * y_stride + next] = sums[4 + k];
                }
            }
        }
        for (size_t t = quads; t < end; t++)
            for (size_t i = 0; i < rows; i += 4) {
                const float *last = w + (rows - 1) * cols, *at_i = w + i * cols;
                four_by_one(at_i, i + 1 < rows ? at_i + cols : last, i + 2 < rows ? at_i + 2 * cols : last,
                            i + 3 < rows ? at_i + 3 * cols : last, cols, x + t * x_stride, sums);
                for (size_t k = 0; k < 4 && i + k < rows; k++) y[t * y_stride + i + k] = sums[k];
            }
    }
}

/* x = e^x: 2^n by the exponent bits, the rest, within half a ln 2, by the polynomial of Cephes' expf (Moshier). */
INLINE void exp8(v8 *to) {
    v8 x = *to;
    const v8 least = (v8){0} - 87, most = (v8){0} + 88;
    u8 low = (u8)(x < least), high = (u8)(x > most);
    x = (v8)((u8)x & ~(low | high)) + (v8)((u8)least & low) + (v8)((u8)most & high);
    v8 t = x * 1.44269504f + 0x1.8p23f, n = t - 0x1.8p23f; /* the sum rounds; its last bits are n */
    v8 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    v8 p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    *to = (p * r * r + r + 1) * (v8)(((u8)t << 23) + 0x3f800000u);
}

INLINE void exp_body(float *x, size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) exp8((v8 *)(void *)(x + i));
    if (i == count) return;
    v8 rest = {0};
    memcpy(&rest, x + i, (count - i) * sizeof *x);
    exp8(&rest);
    memcpy(x + i, &rest, (count - i) * sizeof *x);
}

INLINE void greatest_body(const float *x, size_t count, float *out) {
    float most = x[0];
    size_t i = 0;
    if (count >= 8) {
        v8 top = *at(x);
        for (; i + 8 <= count; i += 8) {
            v8 a = *at(x + i);
            u8 more = (u8)(a > top);
            top = (v8)(((u8)a & more) | ((u8)top & ~more));
        }
        for (int k = 0; k < 8; k++) most = top[k] > most ? top[k] : most;
    }
    for (; i < count; i++) most = x[i] > most ? x[i] : most;
    *out = most;
}

/* Sums of floats are kept short: every so many they go into a double. */
enum { SHORT = 512 };

INLINE void exp_sum_body(const float *x, size_t count, float top, double *out) {
    double sum = 0;
    size_t i = 0;
    while (i + 8 <= count) {
        v8 some = {0};
        for (size_t end = i + SHORT; i < end && i + 8 <= count; i += 8) {
            v8 e = *at(x + i) - top;
            exp8(&e);
            some += e;
        }
        sum += (double)SUM(some);
    }
    for (; i < count; i++) sum += (double)expf(x[i] - top);
    *out = sum;
}

INLINE void exp_difference_body(const float *r, const float *x, size_t count, float base, float shift, double *out) {
    double sum = 0;
    size_t i = 0;
    while (i + 8 <= count) {
        v8 some = {0};
        for (size_t end = i + SHORT; i < end && i + 8 <= count; i += 8) {
            v8 a = *at(r + i), e = a - base;
            exp8(&e);
            some += e * (a - *at(x + i) - shift);
        }
        sum += (double)SUM(some);
    }
    for (; i < count; i++) sum += (double)(expf(r[i] - base) * (r[i] - x[i] - shift));
    *out = sum;
}

INLINE void swiglu_body(float *up, const float *gate, size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        v8 g = *at(gate + i), e = -g;
        exp8(&e);
        *(v8 *)(void *)(up + i) *= g / (1 + e);
    }
    for (; i < count; i++) up[i] *= gate[i] / (1 + expf(-gate[i]));
}

INLINE void square_sum_body(const float *x, size_t count, float *out) {
    v8 s0 = {0}, s1 = {0};
    size_t i = 0;
    for (; i + 16 <= count; i += 16) s0 += *at(x + i) * *at(x + i), s1 += *at(x + i + 8) * *at(x + i + 8);
    s0 += s1;
    float sum = SUM(s0);
    for (; i < count; i++) sum += x[i] * x[i];
    *out = sum;
}

INLINE void add_squares_body(float *sums, const float *x, size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) *(v8 *)(void *)(sums + i) += *at(x + i) * *at(x + i);
    for (; i < count; i++) sums[i] += x[i] * x[i];
}

/* Four positions at a time: the sums of their products are added up crosswise. */
INLINE void attend_body(float *out, const float *q, const float *k, const float *v, size_t size, size_t stride,
                        size_t count, float scale, float *scores) {
    float most = -INFINITY, total;
    for (size_t t = 0; t < count; t += 4) {
        const float *k0 = k + t * stride, *k1 = t + 1 < count ? k0 + stride : k0, *k2 = t + 2 < count ? k0 + 2 * stride : k0,
                    *k3 = t + 3 < count ? k0 + 3 * stride : k0;
        v8 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        size_t j = 0;
        for (; j + 8 <= size; j += 8) {
            v8 a = *at(q + j);
            s0 += a * *at(k0 + j), s1 += a * *at(k1 + j), s2 += a * *at(k2 + j), s3 += a * *at(k3 + j);
        }
        v8 a = __builtin_shufflevector(s0, s1, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(s0, s1, 1, 9, 3, 11, 5, 13, 7, 15);
        v8 b = __builtin_shufflevector(s2, s3, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(s2, s3, 1, 9, 3, 11, 5, 13, 7, 15);
        v8 c = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        float sums[4] = {c[0] + c[4], c[1] + c[5], c[2] + c[6], c[3] + c[7]};
        for (; j < size; j++) sums[0] += q[j] * k0[j], sums[1] += q[j] * k1[j], sums[2] += q[j] * k2[j], sums[3] += q[j] * k3[j];
        for (size_t i = 0; i < 4 && t + i < count; i++) {
            scores[t + i] = sums[i] * scale;
            if (scores[t + i] > most) most = scores[t + i];
        }
    }
    v8 totals = {0};
    size_t t8 = 0, j = 0;
    for (; t8 + 8 <= count; t8 += 8) {
        v8 e = *at(scores + t8) - most;
        exp8(&e);
        *(v8 *)(void *)(scores + t8) = e;
        totals += e;
    }
    for (total = SUM(totals); t8 < count; t8++) total += scores[t8] = expf(scores[t8] - most);
    for (; j + 32 <= size; j += 32) {
        v8 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (size_t t = 0; t < count; t++) {
            const float *row = v + t * stride + j;
            s0 += *at(row) * scores[t], s1 += *at(row + 8) * scores[t], s2 += *at(row + 16) * scores[t], s3 += *at(row + 24) * scores[t];
        }
        v8 sums[4] = {s0 / total, s1 / total, s2 / total, s3 / total};
        memcpy(out + j, sums, sizeof sums);
    }
    for (; j + 8 <= size; j += 8) {
        v8 sum = {0};
        for (size_t t = 0; t < count; t++) sum += *at(v + t * stride + j) * scores[t];
        sum /= total;
        memcpy(out + j, &sum, sizeof sum);
    }
    for (; j < size; j++) {
        float sum = 0;
        for (size_t t = 0; t < count; t++) sum += v[t * stride + j] * scores[t];
        out[j] = sum / total;
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
#define TWICE(name, parameters, arguments)                                                            \
    __attribute__((target("avx2,fma"))) static void name##_avx2 parameters { name##_body arguments; } \
    static void twice_##name parameters {                                                             \
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) name##_avx2 arguments;   \
        else name##_body arguments;                                                                   \
    }
#else
#define TWICE(name, parameters, arguments) \
    static void twice_##name parameters { name##_body arguments; }
#endif

TWICE(gemm, (const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
             size_t count), (w, rows, cols, x, x_stride, y, y_stride, count))
TWICE(swiglu, (float *up, const float *gate, size_t count), (up, gate, count))
TWICE(attend, (float *out, const float *q, const float *k, const float *v, size_t size, size_t stride, size_t count,
               float scale, float *scores), (out, q, k, v, size, stride, count, scale, scores))
TWICE(exp, (float *x, size_t count), (x, count))
TWICE(greatest, (const float *x, size_t count, float *out), (x, count, out))
TWICE(square_sum, (const float *x, size_t count, float *out), (x, count, out))
TWICE(add_squares, (float *sums, const float *x, size_t count), (sums, x, count))
TWICE(exp_sum, (const float *x, size_t count, float top, double *out), (x, count, top, out))
TWICE(exp_difference, (const float *r, const float *x, size_t count, float base, float shift, double *out),
      (r, x, count, base, shift, out))

void llm_gemm(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
              size_t count) {
    if (!llm_x86_gemm(w, rows, cols, x, x_stride, y, y_stride, count)) twice_gemm(w, rows, cols, x, x_stride, y, y_stride, count);
}

size_t llm_packed_floats(size_t rows, size_t cols) { return llm_x86_packed(rows, cols); }

void llm_pack(const float *w, size_t stride, int turned, size_t rows, size_t cols, float *packed) {
    llm_x86_pack(w, stride, turned, rows, cols, packed);
}

int llm_gemm_packed(const float *packed, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
                    size_t count, float *room) {
    return llm_x86_gemm_packed(packed, rows, cols, x, x_stride, y, y_stride, count, room);
}

void llm_attend_tokens(const llm_attention *a, float *out, const float *q, size_t first, size_t count) {
    if (llm_x86_attend(a, out, q, first, count)) return;
    for (size_t t = first; t < first + count; t++) {
        size_t seen = a->position + t + 1, from = a->window && seen > a->window ? seen - a->window : 0;
        for (size_t h = 0; h < a->heads; h++)
            twice_attend(out + t * a->q_stride + h * a->size, q + t * a->q_stride + h * a->size, a->keys + from * a->stride,
                         a->values + from * a->stride, a->size, a->stride, seen - from, a->scale, a->scores);
    }
}

void llm_swiglu(float *up, const float *gate, size_t count) { twice_swiglu(up, gate, count); }
void llm_exp(float *x, size_t count) { twice_exp(x, count); }

float llm_greatest(const float *x, size_t count) {
    float most;
    twice_greatest(x, count, &most);
    return most;
}

float llm_square_sum(const float *x, size_t count) {
    float sum;
    twice_square_sum(x, count, &sum);
    return sum;
}

void llm_add_squares(float *sums, const float *x, size_t count) { twice_add_squares(sums, x, count); }

double llm_exp_sum(const float *x, size_t count, float top) {
    double sum;
    twice_exp_sum(x, count, top, &sum);
    return sum;
}

double llm_exp_difference(const float *r, const float *x, size_t count, float base, float shift) {
    double sum;
    twice_exp_difference(r, x, count, base, shift, &sum);
    return sum;
}

/* Half floats: the instruction for it where the CPU has one, the same values otherwise. */
#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static void unpack_f16c(const unsigned char *from, size_t count, float *to) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + 2 * i))));
    unpack_f16_body(from + 2 * i, count - i, to + i);
}

void llm_unpack_f16(const unsigned char *from, size_t count, float *to) {
    static atomic_int has; /* 0: not yet known; asking takes long under a hypervisor */
    unsigned a, b, c, d;
    if (!has) has = __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) ? 1 : -1;
    if (has > 0) unpack_f16c(from, count, to);
    else unpack_f16_body(from, count, to);
}
#else
void llm_unpack_f16(const unsigned char *from, size_t count, float *to) { unpack_f16_body(from, count, to); }
#endif
