#include "dense_x86.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(LLM_NO_AVX512)
#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define AVX512_INLINE                                                                                        \
    static inline __attribute__((always_inline, target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define AMX                                                                                                  \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))

/* ---- what the CPU has ---- */

static int least_of(int a, int b) { return a < b ? a : b; }

/* The kernel must be asked before a process may use the tiles (state 18), and may refuse. */
static int detect(void) {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("fma"))
        return LLM_DENSE_AVX2;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return LLM_DENSE_AVX512;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return LLM_DENSE_AVX512;
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0 ? LLM_DENSE_AMX
                                                                              : LLM_DENSE_AVX512;
}

static atomic_int limit = LLM_DENSE_AMX;

int llm_dense_limit(int most) {
    static atomic_int has; /* + 1; asking takes long under a hypervisor */
    if (!has) has = 1 + detect();
    if (most >= 0) limit = most;
    return least_of(has - 1, limit);
}

static atomic_int rough;

int llm_dense_rough(int on) { return atomic_exchange(&rough, on); }

/* ---- room for packed operands: kept a thread, freed at its end ---- */

typedef struct room {
    size_t bytes;
    void *memory;
} room;

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int no_key;

static void free_room(void *r) { free(((room *)r)->memory), free(r); }
static void make_key(void) { no_key = pthread_key_create(&key, free_room) != 0; }

/* Aligned to a cache line; NULL for lack of memory. */
static void *room_of(size_t bytes) {
    pthread_once(&once, make_key);
    if (no_key) return NULL;
    room *r = pthread_getspecific(key);
    if (!r && ((r = calloc(1, sizeof *r)) == NULL || pthread_setspecific(key, r) != 0)) return free(r), NULL;
    if (r->bytes < bytes) {
        free(r->memory);
        r->bytes = (bytes + 4095) / 4096 * 4096;
        r->memory = aligned_alloc(64, r->bytes);
        if (!r->memory) r->bytes = 0;
    }
    return r->memory;
}

/* ---- AVX-512 ---- */

/* Sixteen rows of sixteen 32-bit numbers change places with their columns. */
AVX512_INLINE void transpose16(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

enum { PANEL = 64, HIGH = 6 }; /* floats across and rows down of a block of sums: 24 registers */

/* panel[j][i] = w[i][j] for up to PANEL rows of w; rows that are not there are zeros. */
AVX512 static void pack_panel(const float *w, size_t stride, size_t rows, size_t cols, float *panel) {
    for (size_t part = 0; part < PANEL; part += 16)
        for (size_t j = 0; j < cols; j += 16) {
            size_t width = cols - j < 16 ? cols - j : 16;
            __mmask16 mask = (__mmask16)((1u << width) - 1);
            __m512i r[16];
            for (size_t i = 0; i < 16; i++)
                r[i] = part + i < rows ? _mm512_maskz_loadu_epi32(mask, w + (part + i) * stride + j)
                                       : _mm512_setzero_si512();
            transpose16(r);
            for (size_t i = 0; i < width; i++) _mm512_storeu_si512(panel + (j + i) * PANEL + part, r[i]);
        }
}

/* out[i][..] = sum over k of a[i][k] b[k][..], `vectors` of 16 floats across; a's rows are given by pointers. */
AVX512_INLINE void block(const float *const a[HIGH], const float *b, size_t b_stride, size_t depth, int high,
                         int vectors, __m512 sums[HIGH][4]) {
#pragma GCC unroll 6
    for (int i = 0; i < high; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sums[i][v] = _mm512_setzero_ps();
    for (size_t k = 0; k < depth; k++, b += b_stride) {
        __m512 wide[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) wide[v] = _mm512_loadu_ps(b + 16 * v);
#pragma GCC unroll 6
        for (int i = 0; i < high; i++) {
            __m512 one = _mm512_set1_ps(a[i][k]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sums[i][v] = _mm512_fmadd_ps(one, wide[v], sums[i][v]);
        }
    }
}

/* Up to `high` rows of a (`a_stride` apart) by up to PANEL columns of b. Each sum is made in the same order whatever
 * is beside it. */
AVX512_INLINE void some_rows(const float *a, size_t a_stride, size_t rows, const float *b, size_t b_stride,
                             size_t depth, int high, int vectors, size_t across, float *out,
                             size_t out_stride) {
    const float *at[HIGH];
    __m512 sums[HIGH][4];
    for (size_t i = 0; i < (size_t)high; i++) at[i] = a + (i < rows ? i : rows - 1) * a_stride;
    block(at, b, b_stride, depth, high, vectors, sums);
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            size_t left = across - 16 * (size_t)v;
            _mm512_mask_storeu_ps(out + i * out_stride + 16 * v,
                                  (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1), sums[i][v]);
        }
}

/* b's vectors are read whole: what is behind `across` must be readable, and is ignored. */
AVX512 static void matrix(const float *a, size_t a_stride, size_t rows, const float *b, size_t b_stride,
                          size_t depth, size_t across, float *out, size_t out_stride) {
    for (size_t i = 0; i < rows; i += HIGH) {
        size_t some = rows - i < HIGH ? rows - i : HIGH;
        const float *from = a + i * a_stride;
        float *to = out + i * out_stride;
        if (across > 48 && some <= 3)
            some_rows(from, a_stride, some, b, b_stride, depth, 3, 4, across, to, out_stride);
        else if (across > 48) some_rows(from, a_stride, some, b, b_stride, depth, 6, 4, across, to, out_stride);
        else if (across > 32) some_rows(from, a_stride, some, b, b_stride, depth, 6, 3, across, to, out_stride);
        else if (across > 16) some_rows(from, a_stride, some, b, b_stride, depth, 6, 2, across, to, out_stride);
        else some_rows(from, a_stride, some, b, b_stride, depth, 6, 1, across, to, out_stride);
    }
}

static int gemm_avx512(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y,
                       size_t y_stride, size_t count) {
    float *panel = room_of(cols * PANEL * sizeof *panel);
    if (!panel) return 0;
    for (size_t i = 0; i < rows; i += PANEL) {
        size_t some = rows - i < PANEL ? rows - i : PANEL;
        pack_panel(w + i * cols, cols, some, cols, panel);
        matrix(x, x_stride, count, panel, PANEL, cols, some, y + i, y_stride);
    }
    return 1;
}

/* ---- AMX ----
 * Its tiles multiply bfloat16 (8 significant bits) into float sums. Every float is the sum of two of them but for
 * 2^-17 of it at most, so three products of halves (the fourth is below that error) give what floats give, within
 * 2^-16 of sum |w x|, at twice the speed and more of AVX-512's multiply-adds. */

enum { TILE = 16, DEEP = 32, DEPTH = 512 }; /* DEPTH: columns whose tiles stay in the second-level cache */

/* 32 floats as 32 high and 32 low parts. */
AMX static inline void split(__m512 a, __m512 b, __m512i *high, __m512i *low) {
    __m512i h = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    __m512 ha = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(h)), 16);
    __m512 hb = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(h, 1)), 16);
    *high = h;
    *low = (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(b, hb), _mm512_sub_ps(a, ha));
}

AMX static inline void split_at(const float *from, size_t left, __m512i *high, __m512i *low) {
    __mmask32 mask = left >= DEEP ? 0xffffffffu : (1u << left) - 1;
    split(_mm512_maskz_loadu_ps((__mmask16)mask, from),
          _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), from + 16), high, low);
}

/* Tiles of x: 16 vectors by 32 columns, high then low, those of one 16 vectors one after another. */
AMX static void pack_x(const float *x, size_t stride, size_t count, size_t cols, unsigned char *to) {
    size_t steps = (cols + DEEP - 1) / DEEP;
    for (size_t t = 0; t < (count + 2 * TILE - 1) / (2 * TILE) * (2 * TILE); t++) {
        unsigned char *tile = to + t / TILE * steps * 2048 + t % TILE * 64;
        for (size_t k = 0; k < steps; k++, tile += 2048) {
            __m512i high = _mm512_setzero_si512(), low = high;
            if (t < count) split_at(x + t * stride + k * DEEP, cols - k * DEEP, &high, &low);
            _mm512_store_si512(tile, high), _mm512_store_si512(tile + 1024, low);
        }
    }
}

/* Tiles of w: line r of 16 holds columns 2r and 2r + 1 of 16 rows of w. */
AMX static void pack_w(const float *w, size_t stride, size_t rows, size_t cols, unsigned char *to) {
    for (size_t k = 0; k < cols; k += DEEP, to += 2048) {
        __m512i high[16], low[16];
        for (size_t i = 0; i < 16; i++) {
            high[i] = low[i] = _mm512_setzero_si512();
            if (i < rows) split_at(w + i * stride + k, cols - k, &high[i], &low[i]);
        }
        transpose16(high), transpose16(low);
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(to + i * 64, high[i]), _mm512_store_si512(to + 1024 + i * 64, low[i]);
    }
}

/* 32 vectors by 32 rows: sums[32][32], set or added to. Compilers do not know that tiles read memory. `few`: of the
 * high parts alone. */
AMX static void tiles(const unsigned char *x0, const unsigned char *x1, const unsigned char *w0,
                      const unsigned char *w1, size_t steps, float *sums, size_t stride, int add, int few) {
    __asm__ volatile("" ::: "memory");
    if (add) {
        _tile_loadd(0, sums, stride * 4);
        _tile_loadd(1, sums + TILE, stride * 4);
        _tile_loadd(2, sums + TILE * stride, stride * 4);
        _tile_loadd(3, sums + TILE * stride + TILE, stride * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t k = 0; k < steps; k++, x0 += 2048, x1 += 2048, w0 += 2048, w1 += 2048) {
        _tile_loadd(6, w0, 64);
        _tile_loadd(7, w1, 64);
        if (!few) {
            _tile_loadd(4, x0 + 1024, 64);
            _tile_loadd(5, x1 + 1024, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_loadd(4, x0, 64);
        _tile_loadd(5, x1, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        if (few) continue;
        _tile_loadd(6, w0 + 1024, 64);
        _tile_loadd(7, w1 + 1024, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, stride * 4);
    _tile_stored(1, sums + TILE, stride * 4);
    _tile_stored(2, sums + TILE * stride, stride * 4);
    _tile_stored(3, sums + TILE * stride + TILE, stride * 4);
    __asm__ volatile("" ::: "memory");
}

/* Floats that a packed matrix takes: 32 rows of it stand together, of those DEPTH columns after DEPTH columns. */
static size_t amx_room(size_t rows, size_t cols) {
    return (rows + 2 * TILE - 1) / (2 * TILE) * (2 * TILE) * ((cols + DEEP - 1) / DEEP * DEEP);
}

/* Up to 32 rows and DEPTH columns of w. */
AMX static void pack_rows(const float *w, size_t cols, size_t rows, size_t depth, unsigned char *to) {
    pack_w(w, cols, rows < TILE ? rows : TILE, depth, to);
    pack_w(w + TILE * cols, cols, rows > TILE ? rows - TILE : 0, depth, to + (depth + DEEP - 1) / DEEP * 2048);
}

/* The same of w's transpose: its rows are w's columns. Line r of a tile holds 16 columns of rows 2r and 2r + 1. */
AMX static void pack_columns(const float *w, size_t stride, size_t columns, size_t depth, unsigned char *to) {
    for (size_t part = 0; part < 2 * TILE; part += TILE) {
        __mmask16 mask = columns <= part ? 0 : (__mmask16)(columns - part >= 16 ? 0xffffu : (1u << (columns - part)) - 1);
        for (size_t k = 0; k < depth; k += DEEP, to += 2048)
            for (size_t r = 0; r < TILE; r++) {
                const float *at = w + (k + 2 * r) * stride + part;
                __m512i high, low;
                split(_mm512_maskz_loadu_ps(k + 2 * r < depth ? mask : 0, at),
                      _mm512_maskz_loadu_ps(k + 2 * r + 1 < depth ? mask : 0, at + stride), &high, &low);
                const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                                       20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
                _mm512_store_si512(to + r * 64, _mm512_permutexvar_epi16(order, high));
                _mm512_store_si512(to + 1024 + r * 64, _mm512_permutexvar_epi16(order, low));
            }
    }
}

/* w as it is; or packed, with space for x. */
AMX static int gemm_amx(const float *w, const float *packed, size_t rows, size_t cols, const float *x, size_t x_stride, float *y,
                        size_t y_stride, size_t count, unsigned char *space) {
    struct {
        unsigned char palette, start, unused[14];
        uint16_t bytes[16];
        unsigned char lines[16];
    } config = {1, 0, {0}, {0}, {0}};
    size_t steps = (cols + DEEP - 1) / DEEP, pairs = (count + 2 * TILE - 1) / (2 * TILE),
           x_bytes = pairs * 2 * steps * 2048;
    unsigned char *packed_x = space ? space : room_of(x_bytes + 4 * DEPTH / DEEP * 1024), *packed_w = packed_x + x_bytes;
    float edge[32 * 32];
    const int few = rough;
    if (!packed_x) return 0;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.lines[i] = 16;
    pack_x(x, x_stride, count, cols, packed_x);
    _tile_loadconfig(&config);
    for (size_t from = 0; from < cols; from += DEPTH) {
        size_t depth = cols - from < DEPTH ? cols - from : DEPTH, deep = (depth + DEEP - 1) / DEEP;
        for (size_t i = 0; i < rows; i += 2 * TILE) {
            size_t high = rows - i < 2 * TILE ? rows - i : 2 * TILE;
            const unsigned char *w0 = packed_w, *w1;
            if (packed) w0 = (const unsigned char *)(const void *)packed + i * steps * DEEP * sizeof *packed + from / DEEP * 4096;
            else pack_rows(w + i * cols + from, cols, high, depth, packed_w);
            w1 = w0 + deep * 2048;
            for (size_t t = 0; t < count; t += 2 * TILE) {
                size_t wide = count - t < 2 * TILE ? count - t : 2 * TILE;
                const unsigned char *x0 = packed_x + (t / TILE * steps + from / DEEP) * 2048,
                                    *x1 = x0 + steps * 2048;
                float *to = y + t * y_stride + i;
                if (wide == 2 * TILE && high == 2 * TILE)
                    tiles(x0, x1, w0, w1, deep, to, y_stride, from > 0, few);
                else {
                    for (size_t r = 0; r < wide && from; r++)
                        memcpy(edge + 32 * r, to + r * y_stride, high * sizeof *to);
                    tiles(x0, x1, w0, w1, deep, edge, 32, from > 0, few);
                    for (size_t r = 0; r < wide; r++)
                        memcpy(to + r * y_stride, edge + 32 * r, high * sizeof *to);
                }
            }
        }
    }
    _tile_release();
    return 1;
}

size_t llm_x86_packed(size_t rows, size_t cols) {
    return cols >= 64 && llm_dense_limit(-1) >= LLM_DENSE_AMX ? amx_room(rows, cols) : 0;
}

AMX static void pack_amx(const float *w, size_t stride, int turned, size_t rows, size_t cols, float *to) {
    size_t wide = (cols + DEEP - 1) / DEEP * DEEP;
    for (size_t i = 0; i < rows; i += 2 * TILE)
        for (size_t from = 0; from < cols; from += DEPTH) {
            size_t high = rows - i < 2 * TILE ? rows - i : 2 * TILE, depth = cols - from < DEPTH ? cols - from : DEPTH;
            unsigned char *at = (unsigned char *)(void *)(to + i * wide + from * 2 * TILE);
            if (turned) pack_columns(w + from * stride + i, stride, high, depth, at);
            else pack_rows(w + i * stride + from, stride, high, depth, at);
        }
}

void llm_x86_pack(const float *w, size_t stride, int turned, size_t rows, size_t cols, float *to) { pack_amx(w, stride, turned, rows, cols, to); }

int llm_x86_gemm_packed(const float *packed, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
                        size_t count, float *space) {
    return gemm_amx(NULL, packed, rows, cols, x, x_stride, y, y_stride, count, (unsigned char *)(void *)space);
}

/* Which one depends on the columns and the vectors only, never on how rows are shared out. */
int llm_x86_gemm(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y,
                 size_t y_stride, size_t count) {
    int has = count < 8 ? 0 : llm_dense_limit(-1);
    if (has >= LLM_DENSE_AMX && count >= LLM_PACKED_LEAST && cols >= 64)
        return gemm_amx(w, NULL, rows, cols, x, x_stride, y, y_stride, count, NULL);
    if (has >= LLM_DENSE_AVX512) return gemm_avx512(w, rows, cols, x, x_stride, y, y_stride, count);
    return 0;
}

/* ---- attention ---- */

/* e^x as llm_exp has it. */
AVX512_INLINE __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88)), _mm512_set1_ps(-87));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f),
                               _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x));
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, n);
}

/* Scores [first, end) become their softmax, those before it in the panel and behind it zeros. */
AVX512 static void softmax(float *s, size_t first, size_t end, size_t padded, float scale) {
    __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps(), factor = _mm512_set1_ps(scale);
    for (size_t j = 0; j < padded; j += 16) {
        __m512i at = _mm512_add_epi32(_mm512_set1_epi32((int)j),
                                      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        __mmask16 in = _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32((int)first)) &
                       _mm512_cmplt_epi32_mask(at, _mm512_set1_epi32((int)end));
        __m512 v = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), in, _mm512_loadu_ps(s + j), factor);
        _mm512_storeu_ps(s + j, v);
        most = _mm512_max_ps(most, v);
    }
    __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (size_t j = 0; j < padded; j += 16) {
        __m512 v = _mm512_loadu_ps(s + j);
        __m512 e = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ),
                                       exp16(_mm512_sub_ps(v, top)));
        _mm512_storeu_ps(s + j, e);
        total = _mm512_add_ps(total, e);
    }
    __m512 share = _mm512_set1_ps(1 / _mm512_reduce_add_ps(total));
    for (size_t j = 0; j < padded; j += 16)
        _mm512_storeu_ps(s + j, _mm512_mul_ps(_mm512_loadu_ps(s + j), share));
}

enum { QUERIES = 24, FEW = 8 };

/* The keys from `begin` on, packed, and room for the scores of QUERIES rows of `padded`. */
typedef struct packed {
    float *keys, *scores;
    size_t begin, padded;
} packed;

/* Queries `stride` apart, as many outputs; the first sees the keys before `last`, each next one `step` more. */
AVX512 static void attend_rows(const llm_attention *a, const packed *p, float *out, const float *q, size_t stride,
                               size_t rows, size_t last, size_t step) {
    size_t seen = last + (rows - 1) * step - p->begin, across = (seen + PANEL - 1) / PANEL * PANEL, size = a->size;
    for (size_t j = 0; j < across; j += PANEL)
        matrix(q, stride, rows, p->keys + j * size, PANEL, size, PANEL, p->scores + j, p->padded);
    for (size_t r = 0; r < rows; r++) {
        size_t end = last + r * step, least = a->window && end > a->window ? end - a->window : 0;
        softmax(p->scores + r * p->padded, least - p->begin, end - p->begin, across, a->scale);
    }
    for (size_t j = 0; j < size; j += PANEL)
        matrix(p->scores, p->padded, rows, a->values + p->begin * a->stride + j, a->stride, seen,
               size - j < PANEL ? size - j : PANEL, out + j, stride);
}

/* Whole panels of keys, from position 0 or a multiple of PANEL on, so that a token's result does not depend on which
 * tokens it is taken with. Rows of one product are a head's tokens, or, with few of them, a token's heads. */
AVX512 int llm_x86_attend(const llm_attention *a, float *out, const float *q, size_t first, size_t count) {
    size_t last = a->position + first + 1, size = a->size;
    packed p = {NULL, NULL, a->window && last > a->window ? (last - a->window) / PANEL * PANEL : 0, 0};
    size_t keys = last + count - 1 - p.begin;
    p.padded = (keys + PANEL - 1) / PANEL * PANEL;
    if (size % 16 || llm_dense_limit(-1) < LLM_DENSE_AVX512) return 0;
    if (!(p.keys = room_of((p.padded * size + QUERIES * p.padded) * sizeof *p.keys))) return 0;
    p.scores = p.keys + p.padded * size;
    for (size_t j = 0; j < keys; j += PANEL)
        pack_panel(a->keys + (p.begin + j) * a->stride, a->stride, keys - j < PANEL ? keys - j : PANEL, size,
                   p.keys + j * size);
    out += first * a->q_stride, q += first * a->q_stride;
    for (size_t t = 0; t < count && count < FEW; t++)
        for (size_t h = 0; h < a->heads; h += QUERIES)
            attend_rows(a, &p, out + t * a->q_stride + h * size, q + t * a->q_stride + h * size, size,
                        a->heads - h < QUERIES ? a->heads - h : QUERIES, last + t, 0);
    for (size_t h = 0; h < a->heads && count >= FEW; h++)
        for (size_t t = 0; t < count; t += QUERIES)
            attend_rows(a, &p, out + t * a->q_stride + h * size, q + t * a->q_stride + h * size, a->q_stride,
                        count - t < QUERIES ? count - t : QUERIES, last + t, 1);
    return 1;
}

#else
int llm_dense_limit(int most) {
    (void)most;
    return LLM_DENSE_AVX2;
}
int llm_dense_rough(int on) {
    (void)on;
    return 0;
}
int llm_x86_gemm(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y,
                 size_t y_stride, size_t count) {
    (void)w, (void)rows, (void)cols, (void)x, (void)x_stride, (void)y, (void)y_stride, (void)count;
    return 0;
}
size_t llm_x86_packed(size_t rows, size_t cols) {
    (void)rows, (void)cols;
    return 0;
}
void llm_x86_pack(const float *w, size_t stride, int turned, size_t rows, size_t cols, float *to) {
    (void)w, (void)stride, (void)turned, (void)rows, (void)cols, (void)to;
}
int llm_x86_gemm_packed(const float *packed, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
                        size_t count, float *space) {
    (void)packed, (void)rows, (void)cols, (void)x, (void)x_stride, (void)y, (void)y_stride, (void)count, (void)space;
    return 0;
}
int llm_x86_attend(const llm_attention *a, float *out, const float *q, size_t first, size_t count) {
    (void)a, (void)out, (void)q, (void)first, (void)count;
    return 0;
}
#endif
