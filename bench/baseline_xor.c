/* baseline_xor.c - one sign plane the direct way: the sign bit of each weight is XORed into the float it
 * multiplies, and the result added. Rows of packed bits, 32 columns a word, bit j of a word is column j. */
#include "bench.h"

#include <string.h>
#if BENCH_X86
#include <immintrin.h>
#endif

static size_t words_of(uint32_t cols) { return ((size_t)cols + 31) / 32; }
static size_t xor_bytes(uint32_t rows, uint32_t cols) { return (size_t)rows * words_of(cols) * 4; }

static uint32_t word_at(const unsigned char *from) {
    uint32_t word;
    memcpy(&word, from, 4);
    return word;
}
/* p->x ends in zeros, so the last word needs no special case. */
static void xor_plain(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                      int thread) {
    size_t words = words_of(p->cols);
    (void)thread;
    for (uint32_t i = begin; i < begin + count; i++) {
        const unsigned char *bits = (const unsigned char *)weights + i * words * 4;
        float sum = 0;
        for (size_t k = 0; k < words; k++) {
            uint32_t word = word_at(bits + 4 * k);
            for (size_t j = 0; j < 32; j++) sum += (word >> j & 1) ? p->x[32 * k + j] : -p->x[32 * k + j];
        }
        p->y[i] = p->scales[i] * sum;
    }
}

#if BENCH_X86
/* 8 columns: shift each one's bit to the top, isolate it, XOR, add: four instructions, and four rows
 * share the loads of x. A set bit means minus here (the sum is negated at the end), which saves one. */
static BENCH_AVX2 void xor_avx2(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                                int thread) {
    size_t words = words_of(p->cols);
    uint32_t i = begin, end = begin + count;
    const __m256i top = _mm256_set1_epi32((int)0x80000000u);
    __m256i shift[4];
    for (int k = 0; k < 4; k++)
        shift[k] = _mm256_sub_epi32(_mm256_set1_epi32(31 - 8 * k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (; i + 4 <= end; i += 4) {
        const unsigned char *bits = (const unsigned char *)weights + i * words * 4;
        __m256 s[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
        for (size_t w = 0; w < words; w++) {
            __m256i word[4];
            for (size_t r = 0; r < 4; r++)
                word[r] = _mm256_set1_epi32((int)word_at(bits + (r * words + w) * 4));
            for (size_t k = 0; k < 4; k++) {
                __m256 x = _mm256_loadu_ps(p->x + 32 * w + 8 * k);
                for (size_t r = 0; r < 4; r++) {
                    __m256i sign = _mm256_and_si256(_mm256_sllv_epi32(word[r], shift[k]), top);
                    s[r] = _mm256_add_ps(s[r], _mm256_xor_ps(x, _mm256_castsi256_ps(sign)));
                }
            }
        }
        for (size_t r = 0; r < 4; r++) {
            float lane[8], sum = 0;
            _mm256_storeu_ps(lane, s[r]);
            for (int k = 0; k < 8; k++) sum -= lane[k];
            p->y[i + r] = p->scales[i + r] * sum;
        }
    }
    if (i < end) xor_plain(p, weights, i, end - i, thread);
}
/* AVX-512 has a better way than XOR: add under a mask only where the bit is set, then
 * sum of s_j x_j = 2 * (sum where set) - (sum of all x). */
static BENCH_AVX512 void mask_avx512(const bench_problem *p, const void *weights, uint32_t begin,
                                     uint32_t count, int thread) {
    size_t words = words_of(p->cols);
    uint32_t i = begin, end = begin + count;
    __m512 all = _mm512_setzero_ps();
    for (size_t j = 0; j < 32 * words; j += 16) all = _mm512_add_ps(all, _mm512_loadu_ps(p->x + j));
    float total = _mm512_reduce_add_ps(all);
    for (; i + 4 <= end; i += 4) {
        const unsigned char *bits = (const unsigned char *)weights + i * words * 4;
        __m512 s[4][2];
        for (int r = 0; r < 4; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
        for (size_t w = 0; w < words; w++) {
            __m512 x0 = _mm512_loadu_ps(p->x + 32 * w), x1 = _mm512_loadu_ps(p->x + 32 * w + 16);
            for (size_t r = 0; r < 4; r++) {
                uint32_t word = word_at(bits + (r * words + w) * 4);
                s[r][0] = _mm512_mask_add_ps(s[r][0], (__mmask16)word, s[r][0], x0);
                s[r][1] = _mm512_mask_add_ps(s[r][1], (__mmask16)(word >> 16), s[r][1], x1);
            }
        }
        for (size_t r = 0; r < 4; r++)
            p->y[i + r] =
                p->scales[i + r] * (2 * _mm512_reduce_add_ps(_mm512_add_ps(s[r][0], s[r][1])) - total);
    }
    if (i < end) xor_plain(p, weights, i, end - i, thread);
}
#endif

const bench_baseline bench_xor[] = {
#if BENCH_X86
    {"xor+add", "avx2", "one plane, XOR and add in float", xor_bytes, BENCH_BITS, xor_avx2, bench_has_avx2},
    {"mask+add", "avx512", "one plane, masked add in float", xor_bytes, BENCH_BITS, mask_avx512,
     bench_has_avx512},
#endif
    {"xor+add", "scalar", "one plane, XOR and add in float", xor_bytes, BENCH_BITS, xor_plain, bench_always},
    {NULL, NULL, NULL, NULL, BENCH_BITS, NULL, NULL},
};
