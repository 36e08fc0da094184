/* uniform.c - uniform codes in groups, the storage of RTN, GPTQ and AWQ: packing, grids, round to nearest,
 * and the GEMV that they share with llama.cpp's types.
 *
 * A chunk of 32 codes takes 4 * bits bytes: a field of 4 bits (16 bytes: byte b holds codes b and b + 16),
 * of 2 bits (8 bytes: codes b, b + 8, b + 16, b + 24) and of 1 bit (4 bytes, in order), as many of them as
 * `bits` has ones in binary, highest bits first. 8 bits are bytes. */
#include "peer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { CHUNK = PEER_CHUNK };

static size_t chunks_of(size_t cols) { return (cols + CHUNK - 1) / CHUNK; }

void peer_pack(unsigned char *to, int bits, const unsigned char *codes, size_t count) {
    size_t step = 4 * (size_t)bits;
    for (size_t j = 0; j < count; j += CHUNK, to += step) {
        unsigned char c[CHUNK] = {0}, *p = to;
        memcpy(c, codes + j, count - j < CHUNK ? count - j : CHUNK);
        memset(to, 0, step);
        if (bits == 8) memcpy(p, c, CHUNK);
        if (bits & 4) {
            for (int i = 0; i < CHUNK; i++) p[i % 16] = (unsigned char)(p[i % 16] | (c[i] >> (bits - 4) & 15) << i / 16 * 4);
            p += 16;
        }
        if (bits & 2) {
            for (int i = 0; i < CHUNK; i++) p[i % 8] = (unsigned char)(p[i % 8] | (c[i] >> (bits & 1) & 3) << i / 8 * 2);
            p += 8;
        }
        if (bits & 1)
            for (int i = 0; i < CHUNK; i++) p[i / 8] = (unsigned char)(p[i / 8] | (c[i] & 1) << i % 8);
    }
}
void peer_unpack(const unsigned char *p, int bits, unsigned char c[PEER_CHUNK]) {
    if (bits == 8) memcpy(c, p, CHUNK);
    else memset(c, 0, CHUNK);
    if (bits & 4) {
        for (int i = 0; i < CHUNK; i++) c[i] = (unsigned char)((p[i % 16] >> i / 16 * 4 & 15) << (bits - 4));
        p += 16;
    }
    if (bits & 2) {
        for (int i = 0; i < CHUNK; i++) c[i] = (unsigned char)(c[i] | (p[i % 8] >> i / 8 * 2 & 3) << (bits & 1));
        p += 8;
    }
    if (bits & 1)
        for (int i = 0; i < CHUNK; i++) c[i] = (unsigned char)(c[i] | (p[i / 8] >> i % 8 & 1));
}

/* ---------------------------------------------------------------------------------------- GEMV */
typedef struct inputs {
    signed char *x;     /* chunks * 32 */
    float *scale, *sum; /* of each chunk; of each `step` inputs, as quantised */
    int step;
} inputs;

static void quantise_inputs(inputs *in, const float *x, size_t cols) {
    for (size_t c = 0; c < chunks_of(cols); c++) {
        size_t at = c * CHUNK, count = cols - at < CHUNK ? cols - at : CHUNK;
        float most = 0;
        for (size_t k = 0; k < count; k++) most = fmaxf(most, fabsf(x[at + k]));
        float inverse = most > 0 ? 127 / most : 0;
        in->scale[c] = most / 127;
        memset(in->x + at, 0, CHUNK);
        for (size_t k = 0; k < count; k++) in->x[at + k] = (signed char)peer_round(x[at + k] * inverse);
        for (size_t k = 0; k < CHUNK; k += (size_t)in->step) {
            int sum = 0;
            for (size_t q = 0; q < (size_t)in->step; q++) sum += in->x[at + k + q];
            in->sum[(at + k) / (size_t)in->step] = in->scale[c] * (float)sum;
        }
    }
}

static float row_scalar(const unsigned char *codes, int bits, size_t chunks, const inputs *in, const float *scale,
                        const float *offset) {
    unsigned char q[CHUNK];
    float y = 0;
    for (size_t c = 0; c < chunks; c++) {
        peer_unpack(codes + c * 4 * (size_t)bits, bits, q);
        for (size_t k = 0; k < CHUNK; k += (size_t)in->step) {
            size_t at = (c * CHUNK + k) / (size_t)in->step;
            int dot = 0;
            for (size_t p = k; p < k + (size_t)in->step; p++) dot += q[p] * in->x[c * CHUNK + p];
            y += scale[at] * in->scale[c] * (float)dot + offset[at] * in->sum[at];
        }
    }
    return y;
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma,f16c")))
/* Always inlined with constant bits and step, so that only one unpacking is left. */
__attribute__((always_inline)) AVX2 static inline float row_avx2(const unsigned char *p, int bits, size_t chunks,
                                                                 const inputs *in, const float *scale, const float *offset) {
    const __m256i nibble = _mm256_set1_epi8(15), crumb = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3,
                                            3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256 sum = _mm256_setzero_ps(), more = _mm256_setzero_ps();
    int step = in->step;
    for (size_t c = 0; c < chunks; c++) {
        __m256i q = _mm256_setzero_si256();
        _mm_prefetch((const char *)p + 1024, _MM_HINT_T0);
        if (bits & 4) {
            __m128i b = _mm_loadu_si128((const __m128i *)(const void *)p);
            q = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(b, 4), b), nibble);
            if (bits & 3) q = _mm256_slli_epi16(q, bits & 3 ? bits - 4 : 0);
            p += 16;
        }
        if (bits & 2) {
            long long b;
            memcpy(&b, p, 8);
            __m256i r = _mm256_and_si256(_mm256_setr_epi64x(b, b >> 2, b >> 4, b >> 6), crumb);
            q = _mm256_or_si256(q, bits & 1 ? _mm256_slli_epi16(r, 1) : r);
            p += 8;
        }
        if (bits & 1) {
            int b;
            memcpy(&b, p, 4);
            __m256i r = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(b), spread), bit);
            q = _mm256_sub_epi8(q, _mm256_cmpeq_epi8(r, bit)); /* q is even */
            p += 4;
        }
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(in->x + c * CHUNK));
        __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(q, x), ones));
        __m256 s = step == 16 ? _mm256_set_m128(_mm_broadcast_ss(scale + 2 * c + 1), _mm_broadcast_ss(scale + 2 * c))
                              : _mm256_broadcast_ss(scale + c);
        sum = _mm256_fmadd_ps(_mm256_mul_ps(s, _mm256_broadcast_ss(in->scale + c)), dot, sum);
    }
    size_t count = chunks * CHUNK / (size_t)step, k = 0;
    for (; k + 8 <= count; k += 8) more = _mm256_fmadd_ps(_mm256_loadu_ps(offset + k), _mm256_loadu_ps(in->sum + k), more);
    float lanes[8], y = 0;
    _mm256_storeu_ps(lanes, _mm256_add_ps(sum, more));
    for (int i = 0; i < 8; i++) y += lanes[i];
    for (; k < count; k++) y += offset[k] * in->sum[k];
    return y;
}
#define ROW(bits) \
    AVX2 static float row_avx2_##bits(const unsigned char *p, int b, size_t n, const inputs *in, const float *s, const float *o) { \
        (void)b;                                      \
        return row_avx2(p, bits, n, in, s, o);        \
    }
ROW(1)
ROW(2)
ROW(3)
ROW(4)
ROW(5)
ROW(6)
ROW(7)
#undef ROW
#endif

void peer_chunk_gemv(const unsigned char *codes, int bits, uint32_t rows, uint32_t cols, int step,
                     void (*row)(const void *user, size_t i, float *scale, float *offset), const void *user,
                     const float *x, float *y) {
    size_t chunks = chunks_of(cols), parts = chunks * (size_t)(CHUNK / step), bytes = chunks * 4 * (size_t)bits;
    inputs in = {peer_alloc(chunks, CHUNK), peer_alloc(chunks, sizeof(float)), peer_alloc(parts, sizeof(float)), step};
    float *scale = peer_alloc(2 * parts, sizeof *scale), *offset = scale + parts;
    float (*multiply)(const unsigned char *, int, size_t, const inputs *, const float *, const float *) = row_scalar;
#if defined(__x86_64__)
    static float (*const fast[])(const unsigned char *, int, size_t, const inputs *, const float *, const float *) = {
        NULL, row_avx2_1, row_avx2_2, row_avx2_3, row_avx2_4, row_avx2_5, row_avx2_6, row_avx2_7};
    if (bits < 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) multiply = fast[bits];
#endif
    quantise_inputs(&in, x, cols);
    for (size_t i = 0; i < rows; i++) {
        row(user, i, scale, offset);
        y[i] = multiply(codes + i * bytes, bits, chunks, &in, scale, offset);
    }
    free(in.x), free(in.scale), free(in.sum), free(scale);
}

/* ------------------------------------------------------------------------------ uniform groups */
peer_uniform *peer_uniform_new(uint32_t rows, uint32_t cols, int bits, int group) {
    peer_uniform *u = peer_alloc(1, sizeof *u);
    u->rows = rows, u->cols = cols, u->bits = bits, u->group = (uint32_t)group;
    u->groups = (cols + u->group - 1) / u->group;
    u->codes = peer_alloc(rows * chunks_of(cols), 4 * (size_t)bits);
    u->scales = peer_alloc((size_t)rows * u->groups, sizeof *u->scales);
    u->zeros = peer_alloc((size_t)rows * u->groups, 1);
    return u;
}
void peer_uniform_pack(peer_uniform *u, uint32_t row, const unsigned char *codes) {
    peer_pack(u->codes + row * chunks_of(u->cols) * 4 * (size_t)u->bits, u->bits, codes, u->cols);
}
void peer_uniform_release(peer_coded *coded) {
    peer_uniform *u = coded->data;
    free(u->codes), free(u->scales), free(u->zeros), free(u->columns), free(u);
}
void peer_uniform_adopt(peer_coded *out, peer_uniform *u) {
    uint64_t groups = (uint64_t)u->rows * u->groups;
    out->data = u;
    out->levels = 1;
    out->bytes[0] = ((uint64_t)u->rows * u->cols * (uint64_t)u->bits + 7) / 8 + 2 * groups +
                    (groups * (uint64_t)u->bits + 7) / 8 + (u->columns ? 2 * (uint64_t)u->cols : 0);
}

void peer_uniform_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    const peer_uniform *u = coded->data;
    size_t chunks = chunks_of(u->cols), step = 4 * (size_t)u->bits;
    unsigned char c[CHUNK];
    (void)level;
    for (size_t i = 0; i < u->rows; i++)
        for (size_t j = 0; j < u->cols; j++) {
            size_t g = i * u->groups + j / u->group;
            if (j % CHUNK == 0) peer_unpack(u->codes + (i * chunks + j / CHUNK) * step, u->bits, c);
            out[i * u->cols + j] = bitstack_f16_to_f32(u->scales[g]) * (float)(c[j % CHUNK] - u->zeros[g]);
            if (u->columns) out[i * u->cols + j] /= u->columns[j];
        }
}

static void uniform_row(const void *user, size_t i, float *scale, float *offset) {
    const peer_uniform *u = user;
    size_t each = u->group / CHUNK, chunks = chunks_of(u->cols);
    for (size_t g = 0; g < u->groups; g++) {
        float s = bitstack_f16_to_f32(u->scales[i * u->groups + g]), o = -s * u->zeros[i * u->groups + g];
        for (size_t c = g * each; c < (g + 1) * each && c < chunks; c++) scale[c] = s, offset[c] = o;
    }
}
void peer_uniform_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    const peer_uniform *u = coded->data;
    float *scaled = NULL;
    (void)level;
    if (u->columns) {
        scaled = peer_alloc(u->cols, sizeof *scaled);
        for (size_t j = 0; j < u->cols; j++) scaled[j] = x[j] / u->columns[j];
    }
    peer_chunk_gemv(u->codes, u->bits, u->rows, u->cols, CHUNK, uniform_row, u, scaled ? scaled : x, y);
    free(scaled);
}

/* sum of weight * error^2 of a grid. Eight sums, so that compilers may keep them in a vector. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
__attribute__((target_clones("avx2", "default")))
#endif
static double weighted_error(const float *w, const float *weight, size_t count, float top, float s, float z) {
    float sums[8] = {0}, inverse = 1 / s, rest = 0;
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (size_t k = 0; k < 8; k++) {
            float e = s * (peer_clamp(peer_round(w[i + k] * inverse) + z, 0, top) - z) - w[i + k];
            sums[k] += weight[i + k] * e * e;
        }
    for (; i < count; i++) {
        float e = s * (peer_clamp(peer_round(w[i] * inverse) + z, 0, top) - z) - w[i];
        rest += weight[i] * e * e;
    }
    for (size_t k = 0; k < 8; k++) rest += sums[k];
    return (double)rest;
}

/* The grid of a group: see peer.h. `weight`: of the squared errors; NULL: errors count by their power 2.4. */
static void grid(const float *w, const float *weight, size_t count, int bits, int search, float shrink, float *scale, float *zero) {
    float low = 0, high = 0, top = (float)((1 << bits) - 1);
    double best = HUGE_VAL;
    for (size_t i = 0; i < count; i++) {
        if (w[i] < low) low = w[i];
        if (w[i] > high) high = w[i];
    }
    if (low == 0 && high == 0) low = -1, high = 1;
    for (int step = 0; step < (search ? 80 : 1); step++) {
        float p = shrink - (float)step / 100, s = peer_half((high - low) * p / top), z;
        double error = 0;
        if (s == 0) s = 5.9604645e-8f; /* the least half */
        z = peer_clamp(peer_round(-low * p / s), 0, top);
        if (weight) error = weighted_error(w, weight, count, top, s, z);
        for (size_t i = 0; search && !weight && i < count; i++)
            error += powf(fabsf(s * (peer_clamp(peer_round(w[i] / s) + z, 0, top) - z) - w[i]), 2.4f);
        if (error < best) best = error, *scale = s, *zero = z;
    }
}

void peer_uniform_grid(const float *w, size_t count, int bits, int search, float shrink, float *scale, float *zero) {
    grid(w, NULL, count, bits, search, shrink, scale, zero);
}

void peer_uniform_grid_weighted(const float *w, const float *weight, size_t count, int bits, float *scale, float *zero) {
    grid(w, weight, count, bits, 1, 1, scale, zero);
}

/* ---------------------------------------------------------------------------- round to nearest */
typedef struct rounding {
    const float *w;
    peer_uniform *out;
    int search;
} rounding;

static void round_row(void *user, size_t i) {
    rounding *run = user;
    peer_uniform *q = run->out;
    size_t n = q->cols;
    const float *w = run->w + i * n;
    unsigned char *codes = peer_alloc(n, 1);
    float top = (float)((1 << q->bits) - 1);
    for (size_t g = 0; g < q->groups; g++) {
        size_t at = g * q->group, end = n - at < q->group ? n : at + q->group;
        float s, z;
        peer_uniform_grid(w + at, end - at, q->bits, run->search, 1, &s, &z);
        for (size_t j = at; j < end; j++) codes[j] = (unsigned char)peer_clamp(peer_round(w[j] / s) + z, 0, top);
        q->scales[i * q->groups + g] = bitstack_f32_to_f16(s), q->zeros[i * q->groups + g] = (unsigned char)z;
    }
    peer_uniform_pack(q, (uint32_t)i, codes);
    free(codes);
}
void peer_uniform_round(peer_uniform *u, const float *w, int search, int threads) {
    rounding run = {w, u, search};
    peer_parallel(threads, u->rows, round_row, &run);
}
bitstack_result peer_rtn_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    peer_uniform *u = peer_uniform_new(out->rows, out->cols, out->peer->bits, out->peer->group);
    (void)moments;
    peer_uniform_round(u, w, out->peer->option & 1, threads);
    peer_uniform_adopt(out, u);
    return BITSTACK_OK;
}
