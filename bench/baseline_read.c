/* baseline_read.c - the roof: loops that only read, and loops that only multiply.
 * Several read loops, because which one is fastest differs between CPUs, page sizes and caches; the
 * benchmark compares with the best of them. Every loaded byte goes into the result, so none is skipped. */
#include "bench.h"

#include <string.h>
#if BENCH_X86
#include <immintrin.h>
#endif

static uint64_t read_plain(const unsigned char *from, size_t bytes) {
    uint64_t sum[4] = {0, 0, 0, 0}, word[4];
    size_t i = 0;
    for (; i + 32 <= bytes; i += 32) {
        memcpy(word, from + i, 32);
        for (int k = 0; k < 4; k++) sum[k] ^= word[k];
    }
    for (; i < bytes; i++) sum[0] ^= from[i];
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

#if BENCH_X86
/* 256 bytes a step, a prefetch a line `ahead` bytes further (0: none). The prefetch may run past the
 * end: it never faults, and in a ring it fetches what comes next. */
static inline BENCH_AVX2 uint64_t read_avx2(const unsigned char *from, size_t bytes, size_t ahead) {
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    size_t i = 0;
    for (; i + 256 <= bytes; i += 256) {
        if (ahead)
            for (size_t k = 0; k < 256; k += 64)
                _mm_prefetch((const char *)(from + i + ahead + k), _MM_HINT_T0);
        for (size_t k = 0; k < 8; k++)
            s[k % 4] = _mm256_xor_si256(
                s[k % 4], _mm256_loadu_si256((const __m256i *)(const void *)(from + i + 32 * k)));
    }
    s[0] = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    uint64_t out[4];
    memcpy(out, &s[0], 32);
    return out[0] ^ out[1] ^ out[2] ^ out[3] ^ read_plain(from + i, bytes - i);
}
static BENCH_AVX2 uint64_t read_avx2_0(const unsigned char *p, size_t n) { return read_avx2(p, n, 0); }
static BENCH_AVX2 uint64_t read_avx2_1k(const unsigned char *p, size_t n) { return read_avx2(p, n, 1024); }
static BENCH_AVX2 uint64_t read_avx2_2k(const unsigned char *p, size_t n) { return read_avx2(p, n, 2048); }
static BENCH_AVX2 uint64_t read_avx2_4k(const unsigned char *p, size_t n) { return read_avx2(p, n, 4096); }
static BENCH_AVX2 uint64_t read_avx2_8k(const unsigned char *p, size_t n) { return read_avx2(p, n, 8192); }

/* Four places at once: more pages open for the hardware prefetchers. */
static BENCH_AVX2 uint64_t read_avx2_streams(const unsigned char *from, size_t bytes) {
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    size_t part = bytes / 4 / 64 * 64;
    for (size_t i = 0; i < part; i += 64)
        for (size_t k = 0; k < 4; k++) {
            const unsigned char *at = from + k * part + i;
            _mm_prefetch((const char *)(at + 1024), _MM_HINT_T0);
            s[k] = _mm256_xor_si256(s[k], _mm256_loadu_si256((const __m256i *)(const void *)at));
            s[k] = _mm256_xor_si256(s[k], _mm256_loadu_si256((const __m256i *)(const void *)(at + 32)));
        }
    s[0] = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    uint64_t out[4];
    memcpy(out, &s[0], 32);
    return out[0] ^ out[1] ^ out[2] ^ out[3] ^ read_plain(from + 4 * part, bytes - 4 * part);
}

static inline BENCH_AVX512 uint64_t read_avx512(const unsigned char *from, size_t bytes, size_t ahead) {
    __m512i s[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
    size_t i = 0;
    for (; i + 256 <= bytes; i += 256)
        for (size_t k = 0; k < 4; k++) {
            if (ahead) _mm_prefetch((const char *)(from + i + ahead + 64 * k), _MM_HINT_T0);
            s[k] = _mm512_xor_si512(s[k], _mm512_loadu_si512((const void *)(from + i + 64 * k)));
        }
    s[0] = _mm512_xor_si512(_mm512_xor_si512(s[0], s[1]), _mm512_xor_si512(s[2], s[3]));
    uint64_t out[8], sum = 0;
    memcpy(out, &s[0], 64);
    for (int k = 0; k < 8; k++) sum ^= out[k];
    return sum ^ read_plain(from + i, bytes - i);
}
static BENCH_AVX512 uint64_t read_avx512_0(const unsigned char *p, size_t n) { return read_avx512(p, n, 0); }
static BENCH_AVX512 uint64_t read_avx512_2k(const unsigned char *p, size_t n) {
    return read_avx512(p, n, 2048);
}
static BENCH_AVX512 uint64_t read_avx512_4k(const unsigned char *p, size_t n) {
    return read_avx512(p, n, 4096);
}
#endif

const bench_reader bench_readers[] = {
#if BENCH_X86
    {"avx2", read_avx2_0, bench_has_avx2},
    {"avx2+1K", read_avx2_1k, bench_has_avx2},
    {"avx2+2K", read_avx2_2k, bench_has_avx2},
    {"avx2+4K", read_avx2_4k, bench_has_avx2},
    {"avx2+8K", read_avx2_8k, bench_has_avx2},
    {"avx2*4+1K", read_avx2_streams, bench_has_avx2},
    {"avx512", read_avx512_0, bench_has_avx512},
    {"avx512+2K", read_avx512_2k, bench_has_avx512},
    {"avx512+4K", read_avx512_4k, bench_has_avx512},
#endif
    {"plain", read_plain, bench_always},
    {NULL, NULL, NULL},
};

/* The f32 peak: enough independent accumulators to hide the latency of two multiply-adds a cycle. */
static float fma_plain(long rounds) {
    float s[16], total = 0;
    for (int k = 0; k < 16; k++) s[k] = (float)k;
    for (long i = 0; i < rounds; i++)
        for (int k = 0; k < 16; k++) s[k] = s[k] * 0.999f + 1e-3f;
    for (int k = 0; k < 16; k++) total += s[k];
    return total;
}
#if BENCH_X86
static BENCH_AVX2 float fma_avx2(long rounds) {
    __m256 s[12], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
    for (int k = 0; k < 12; k++) s[k] = _mm256_set1_ps((float)k);
    for (long i = 0; i < rounds; i++)
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) s[k] = _mm256_fmadd_ps(s[k], a, b);
    for (int k = 1; k < 12; k++) s[0] = _mm256_add_ps(s[0], s[k]);
    return _mm256_cvtss_f32(s[0]);
}
static BENCH_AVX512 float fma_avx512(long rounds) {
    __m512 s[16], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
    for (int k = 0; k < 16; k++) s[k] = _mm512_set1_ps((float)k);
    for (long i = 0; i < rounds; i++)
#pragma GCC unroll 16
        for (int k = 0; k < 16; k++) s[k] = _mm512_fmadd_ps(s[k], a, b);
    for (int k = 1; k < 16; k++) s[0] = _mm512_add_ps(s[0], s[k]);
    return _mm512_cvtss_f32(s[0]);
}
#endif
const bench_fma bench_fmas[] = {
#if BENCH_X86
    {"avx512", fma_avx512, 16 * 16 * 2, bench_has_avx512},
    {"avx2", fma_avx2, 12 * 8 * 2, bench_has_avx2},
#endif
    {"plain", fma_plain, 16 * 2, bench_always},
    {NULL, NULL, 0, NULL},
};
