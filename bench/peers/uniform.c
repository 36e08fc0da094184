/* uniform.c - uniform codes in groups, the storage of RTN, GPTQ and AWQ: packing, grids, round to nearest,
 * and a GEMV on inputs quantised to 8 bits, 32 at a time (llama.cpp's way).
 *
 * A chunk of 32 codes takes 4 * bits bytes: a field of 4 bits (16 bytes: byte b holds codes b and b + 16),
 * of 2 bits (8 bytes: codes b, b + 8, b + 16, b + 24) and of 1 bit (4 bytes, in order), as many of them as
 * `bits` has ones in binary, highest bits first. 8 bits are bytes. Chunks beyond cols hold zeros. */
#include "peer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { CHUNK = 32 };

peer_uniform *peer_uniform_new(uint32_t rows, uint32_t cols, int bits, int group) {
    peer_uniform *u = peer_alloc(1, sizeof *u);
    u->rows = rows, u->cols = cols, u->bits = bits, u->group = (uint32_t)group;
    u->groups = (cols + u->group - 1) / u->group;
    u->codes = peer_alloc((size_t)rows * ((cols + CHUNK - 1) / CHUNK), 4 * (size_t)bits);
    u->scales = peer_alloc((size_t)rows * u->groups, sizeof *u->scales);
    u->zeros = peer_alloc((size_t)rows * u->groups, 1);
    return u;
}

void peer_uniform_pack(peer_uniform *u, uint32_t row, const unsigned char *codes) {
    size_t chunks = (u->cols + CHUNK - 1) / CHUNK, step = 4 * (size_t)u->bits;
    unsigned char *to = u->codes + row * chunks * step;
    for (size_t j = 0; j < u->cols; j += CHUNK, to += step) {
        unsigned char c[CHUNK] = {0}, *p = to;
        memcpy(c, codes + j, u->cols - j < CHUNK ? u->cols - j : CHUNK);
        memset(to, 0, step);
        if (u->bits == 8) memcpy(p, c, CHUNK);
        if (u->bits & 4) {
            for (int i = 0; i < CHUNK; i++) p[i % 16] = (unsigned char)(p[i % 16] | (c[i] >> (u->bits - 4) & 15) << i / 16 * 4);
            p += 16;
        }
        if (u->bits & 2) {
            for (int i = 0; i < CHUNK; i++) p[i % 8] = (unsigned char)(p[i % 8] | (c[i] >> (u->bits & 1) & 3) << i / 8 * 2);
            p += 8;
        }
        if (u->bits & 1)
            for (int i = 0; i < CHUNK; i++) p[i / 8] = (unsigned char)(p[i / 8] | (c[i] & 1) << i % 8);
    }
}
static void unpack(const unsigned char *p, int bits, unsigned char *c) {
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

static float half(float value) { return bitstack_f16_to_f32(bitstack_f32_to_f16(value)); }

void peer_uniform_grid(const float *w, size_t count, int bits, int search, float *scale, float *zero) {
    float low = 0, high = 0, top = (float)((1 << bits) - 1);
    double best = HUGE_VAL;
    for (size_t i = 0; i < count; i++) {
        if (w[i] < low) low = w[i];
        if (w[i] > high) high = w[i];
    }
    if (low == 0 && high == 0) low = -1, high = 1;
    for (int step = 0; step < (search ? 80 : 1); step++) {
        float p = 1 - (float)step / 100, s = half((high - low) * p / top), z;
        double error = 0;
        if (s == 0) s = 5.9604645e-8f; /* the least half */
        z = peer_clamp(peer_round(-low * p / s), 0, top);
        for (size_t i = 0; search && i < count; i++) {
            float code = peer_clamp(peer_round(w[i] / s) + z, 0, top);
            error += powf(fabsf(s * (code - z) - w[i]), 2.4f);
        }
        if (error < best) best = error, *scale = s, *zero = z;
    }
}

void peer_uniform_adopt(peer_coded *out, peer_uniform *u) {
    uint64_t groups = (uint64_t)u->rows * u->groups;
    out->data = u;
    out->levels = 1;
    out->bytes[0] = ((uint64_t)u->rows * u->cols * (uint64_t)u->bits + 7) / 8 + 2 * groups +
                    (groups * (uint64_t)u->bits + 7) / 8 + (u->columns ? 2 * (uint64_t)u->cols : 0);
}
void peer_uniform_release(peer_coded *coded) {
    peer_uniform *u = coded->data;
    free(u->codes), free(u->scales), free(u->zeros), free(u->columns), free(u);
}

void peer_uniform_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    const peer_uniform *u = coded->data;
    size_t chunks = (u->cols + CHUNK - 1) / CHUNK, step = 4 * (size_t)u->bits;
    unsigned char c[CHUNK];
    (void)level;
    for (size_t i = 0; i < u->rows; i++)
        for (size_t j = 0; j < u->cols; j++) {
            size_t g = i * u->groups + j / u->group;
            if (j % CHUNK == 0) unpack(u->codes + (i * chunks + j / CHUNK) * step, u->bits, c);
            out[i * u->cols + j] = bitstack_f16_to_f32(u->scales[g]) * (float)(c[j % CHUNK] - u->zeros[g]);
            if (u->columns) out[i * u->cols + j] /= u->columns[j];
        }
}

/* ---------------------------------------------------------------------------- round to nearest */
typedef struct rtn_run {
    const float *w;
    peer_uniform *out;
    int search;
} rtn_run;

static void rtn_row(void *user, size_t i) {
    rtn_run *run = user;
    peer_uniform *q = run->out;
    size_t n = q->cols;
    const float *w = run->w + i * n;
    unsigned char *codes = peer_alloc(n, 1);
    float top = (float)((1 << q->bits) - 1);
    for (size_t g = 0; g < q->groups; g++) {
        size_t at = g * q->group, end = n - at < q->group ? n : at + q->group;
        float s, z;
        peer_uniform_grid(w + at, end - at, q->bits, run->search, &s, &z);
        for (size_t j = at; j < end; j++) codes[j] = (unsigned char)peer_clamp(peer_round(w[j] / s) + z, 0, top);
        q->scales[i * q->groups + g] = bitstack_f32_to_f16(s), q->zeros[i * q->groups + g] = (unsigned char)z;
    }
    peer_uniform_pack(q, (uint32_t)i, codes);
    free(codes);
}

bitstack_result peer_rtn_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    rtn_run run = {w, peer_uniform_new(out->rows, out->cols, out->peer->bits, out->peer->group), out->peer->option & 1};
    (void)moments;
    peer_parallel(threads, out->rows, rtn_row, &run);
    peer_uniform_adopt(out, run.out);
    return BITSTACK_OK;
}
