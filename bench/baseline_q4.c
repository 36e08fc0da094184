/* baseline_q4.c - 4 bits in groups of 32 with an f16 scale: w = d * (q - 8), 4.5 bits a weight (the scheme
 * that llama.cpp calls Q4_0). Activations in 8 bits, a scale a group of 32.
 *
 * Laid out for speed: 8 rows stand together. A piece of 8 rows x 32 columns is 144 bytes: 8 scales, then
 * 4 vectors of 32 bytes. Lane r of vector k holds row r's columns 4k..4k+3 in the low nibbles and columns
 * 16+4k.. in the high ones, so four columns of x, broadcast, meet 8 rows in one maddubs, and the 8 sums
 * over 32 columns fit 16 bits: 8 * 2 * 15 * 127 = 30480. Rows and columns are padded up. */
#include "bench.h"

#include "bitstack.h"

#include <math.h>
#include <string.h>
#if BENCH_X86
#include <immintrin.h>
#endif

enum { PIECE = 144 };
static size_t groups_of(uint32_t cols) { return ((size_t)cols + 31) / 32; }
static size_t q4_bytes(uint32_t rows, uint32_t cols) {
    return ((size_t)rows + 7) / 8 * groups_of(cols) * PIECE;
}

/* Activations: q in 8 bits, and for each group its scale and 8 * (sum of q), which undoes the 8 in q - 8. */
typedef struct quantised {
    int8_t *q;
    float *scale;
    int32_t *eights;
} quantised;
static quantised quantise(const bench_problem *p, int thread) {
    size_t groups = groups_of(p->cols);
    quantised out;
    out.q = (int8_t *)p->scratch[thread];
    out.scale = (float *)(void *)(p->scratch[thread] + groups * 32);
    out.eights = (int32_t *)(void *)(out.scale + groups);
    for (size_t g = 0; g < groups; g++) {
        const float *x = p->x + 32 * g;
        float largest = 0;
        int32_t sum = 0;
        for (int j = 0; j < 32; j++) largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
        float inverse = largest > 0 ? 127 / largest : 0;
        for (int j = 0; j < 32; j++) sum += out.q[32 * g + (size_t)j] = (int8_t)lrintf(x[j] * inverse);
        out.scale[g] = largest / 127;
        out.eights[g] = 8 * sum;
    }
    return out;
}

static void q4_plain(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                     int thread) {
    size_t groups = groups_of(p->cols);
    quantised a = quantise(p, thread);
    for (uint32_t i = begin; i < begin + count; i++) {
        float sum = 0;
        for (size_t g = 0; g < groups; g++) {
            const unsigned char *piece = (const unsigned char *)weights + (i / 8 * groups + g) * PIECE,
                                *lane = piece + 16 + i % 8 * 4;
            uint16_t d;
            int32_t dot = -a.eights[g];
            memcpy(&d, piece + i % 8 * 2, 2);
            for (size_t j = 0; j < 16; j++) {
                unsigned byte = lane[j / 4 * 32 + j % 4];
                dot += (int32_t)(byte & 15) * a.q[32 * g + j] + (int32_t)(byte >> 4) * a.q[32 * g + 16 + j];
            }
            sum += bitstack_f16_to_f32(d) * a.scale[g] * (float)dot;
        }
        p->y[i] = sum;
    }
}

#if BENCH_X86
static BENCH_AVX2 void q4_avx2(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                               int thread) {
    size_t groups = groups_of(p->cols);
    quantised a = quantise(p, thread);
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (uint32_t i = begin / 8 * 8; i < begin + count; i += 8) {
        const unsigned char *piece = (const unsigned char *)weights + i / 8 * groups * PIECE;
        __m256 sum = _mm256_setzero_ps();
        for (size_t g = 0; g < groups; g++, piece += PIECE) {
            __m256i dot = _mm256_setzero_si256();
            for (size_t k = 0; k < 4; k++) {
                if (k < 3) _mm_prefetch((const char *)(piece + 2048 + 64 * k), _MM_HINT_T0);
                __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(piece + 16 + 32 * k));
                int32_t x0, x1;
                memcpy(&x0, a.q + 32 * g + 4 * k, 4);
                memcpy(&x1, a.q + 32 * g + 16 + 4 * k, 4);
                __m256i lo = _mm256_and_si256(v, low), hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
                dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(lo, _mm256_set1_epi32(x0)));
                dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(hi, _mm256_set1_epi32(x1)));
            }
            dot = _mm256_sub_epi32(_mm256_madd_epi16(dot, ones), _mm256_set1_epi32(a.eights[g]));
            __m256 d = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)piece));
            d = _mm256_mul_ps(d, _mm256_set1_ps(a.scale[g]));
            sum = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(dot), sum);
        }
        _mm256_storeu_ps(p->y + i, sum); /* rows are shared out in multiples of 64, y has room at its end */
    }
}
#endif

const bench_baseline bench_q4[] = {
#if BENCH_X86
    {"q4", "avx2", "4 bits, groups of 32", q4_bytes, BENCH_HALVES, q4_avx2, bench_has_avx2},
#endif
    {"q4", "scalar", "4 bits, groups of 32", q4_bytes, BENCH_HALVES, q4_plain, bench_always},
    {NULL, NULL, NULL, NULL, BENCH_BITS, NULL, NULL},
};
