/* baseline_int8.c - weights in 8 bits with a scale a row, activations quantised to 8 bits with one scale. */
#include "bench.h"

#include <math.h>
#include <string.h>
#if BENCH_X86
#include <immintrin.h>
#endif

static size_t int8_bytes(uint32_t rows, uint32_t cols) { return (size_t)rows * cols; }

/* x -> scale * q with |q| <= 127, zeros up to a multiple of 64. */
static float quantise(const bench_problem *p, int8_t *q) {
    float largest = 0;
    for (uint32_t j = 0; j < p->cols; j++) largest = fabsf(p->x[j]) > largest ? fabsf(p->x[j]) : largest;
    float inverse = largest > 0 ? 127 / largest : 0;
    for (uint32_t j = 0; j < p->cols; j++) q[j] = (int8_t)lrintf(p->x[j] * inverse);
    memset(q + p->cols, 0, 64);
    return largest / 127;
}
static int32_t dot_plain(const int8_t *w, const int8_t *q, size_t from, size_t to) {
    int32_t sum = 0;
    for (size_t j = from; j < to; j++) sum += w[j] * q[j];
    return sum;
}
static void int8_plain(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                       int thread) {
    int8_t *q = (int8_t *)p->scratch[thread];
    float scale = quantise(p, q);
    for (uint32_t i = begin; i < begin + count; i++)
        p->y[i] = scale * p->scales[i] *
                  (float)dot_plain((const int8_t *)weights + (size_t)i * p->cols, q, 0, p->cols);
}

#if BENCH_X86
static BENCH_AVX2 int32_t sum_avx2(__m256i v) {
    int32_t lane[8], sum = 0;
    memcpy(lane, &v, 32);
    for (int k = 0; k < 8; k++) sum += lane[k];
    return sum;
}
/* maddubs wants one unsigned side: |w| times x with w's sign. Pairs reach 2 * 128 * 127: no saturation. */
static BENCH_AVX2 void int8_avx2(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                                 int thread) {
    int8_t *q = (int8_t *)p->scratch[thread];
    float scale = quantise(p, q);
    size_t n = p->cols, full = n / 32 * 32;
    const __m256i ones = _mm256_set1_epi16(1);
    const int8_t *base = (const int8_t *)weights;
    uint32_t i = begin, end = begin + count;
    for (; i + 4 <= end; i += 4) {
        const int8_t *w = base + i * n;
        __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                        _mm256_setzero_si256()};
        for (size_t j = 0; j < full; j += 32) {
            __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(q + j));
            for (size_t r = 0; r < 4; r++) {
                if (j % 64 == 0) _mm_prefetch((const char *)(w + r * n + j + 1024), _MM_HINT_T0);
                __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(w + r * n + j));
                __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(x, v));
                s[r] = _mm256_add_epi32(s[r], _mm256_madd_epi16(pairs, ones));
            }
        }
        for (size_t r = 0; r < 4; r++)
            p->y[i + r] =
                scale * p->scales[i + r] * (float)(sum_avx2(s[r]) + dot_plain(w + r * n, q, full, n));
    }
    for (; i < end; i++) p->y[i] = scale * p->scales[i] * (float)dot_plain(base + i * n, q, 0, n);
}
/* VNNI multiplies unsigned by signed bytes: the weights are made unsigned by flipping their top bit, which
 * adds 128 * (sum of x) to every row. */
static BENCH_AVX512 void int8_avx512(const bench_problem *p, const void *weights, uint32_t begin,
                                     uint32_t count, int thread) {
    int8_t *q = (int8_t *)p->scratch[thread];
    float scale = quantise(p, q);
    size_t n = p->cols, full = n / 64 * 64;
    const __m512i flip = _mm512_set1_epi8((char)-128);
    const int8_t *base = (const int8_t *)weights;
    uint32_t i = begin, end = begin + count;
    int32_t offset = 0;
    for (size_t j = 0; j < full; j++) offset += 128 * q[j];
    for (; i + 4 <= end; i += 4) {
        const int8_t *w = base + i * n;
        __m512i s[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                        _mm512_setzero_si512()};
        for (size_t j = 0; j < full; j += 64) {
            __m512i x = _mm512_loadu_si512((const void *)(q + j));
            for (size_t r = 0; r < 4; r++) {
                _mm_prefetch((const char *)(w + r * n + j + 1024), _MM_HINT_T0);
                __m512i v = _mm512_xor_si512(_mm512_loadu_si512((const void *)(w + r * n + j)), flip);
                s[r] = _mm512_dpbusd_epi32(s[r], v, x);
            }
        }
        for (size_t r = 0; r < 4; r++)
            p->y[i + r] = scale * p->scales[i + r] *
                          (float)(_mm512_reduce_add_epi32(s[r]) - offset + dot_plain(w + r * n, q, full, n));
    }
    for (; i < end; i++) p->y[i] = scale * p->scales[i] * (float)dot_plain(base + i * n, q, 0, n);
}
#endif

const bench_baseline bench_int8[] = {
#if BENCH_X86
    {"int8", "avx512", "8 bits, a scale a row", int8_bytes, BENCH_BITS, int8_avx512, bench_has_avx512},
    {"int8", "avx2", "8 bits, a scale a row", int8_bytes, BENCH_BITS, int8_avx2, bench_has_avx2},
#endif
    {"int8", "scalar", "8 bits, a scale a row", int8_bytes, BENCH_BITS, int8_plain, bench_always},
    {NULL, NULL, NULL, NULL, BENCH_BITS, NULL, NULL},
};
