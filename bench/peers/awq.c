/* awq.c - AWQ (Lin et al., arXiv 2306.00978): columns are multiplied by s_j = (size of input j)^alpha before
 * rounding to nearest, alpha from a grid of 20 by output error; then each group's range is shrunk, down to
 * half, where that lowers the output error of the group. As in the public code, with two changes: the size
 * of an input is its root mean square (the code takes the mean of absolute values; moments hold squares),
 * and each matrix has scales of its own, which count 2 bytes a column (the code shares them between matrices
 * of one input and folds them into the layer before, which not every matrix has). */
#include "peer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 48, STEPS = 10, SEARCHED = 512 };

typedef struct clipping {
    const float *w, *h; /* both scaled */
    peer_uniform *out;
} clipping;

/* The best of ten ranges for every group of a block of rows: least d H_gg d^T. */
static void clip_rows(void *user, size_t block) {
    clipping *c = user;
    peer_uniform *q = c->out;
    size_t n = q->cols, size = q->group, first = block * ROWS, count = q->rows - first < ROWS ? q->rows - first : ROWS;
    float top = (float)((1 << q->bits) - 1), *d = peer_alloc(ROWS * size, sizeof *d), *dh = peer_alloc(ROWS * size, sizeof *dh);
    unsigned char *codes = peer_alloc(count * n, 1), *trial = peer_alloc(ROWS * size, 1);
    for (size_t g = 0; g < q->groups; g++) {
        size_t at = g * size, width = n - at < size ? n - at : size;
        double best[ROWS];
        for (size_t i = 0; i < count; i++) best[i] = HUGE_VAL;
        for (int step = 0; step < STEPS; step++) {
            float s[ROWS], z[ROWS];
            for (size_t i = 0; i < count; i++) {
                const float *w = c->w + (first + i) * n + at;
                peer_uniform_grid(w, width, q->bits, 0, 1 - (float)step / (2 * STEPS), &s[i], &z[i]);
                for (size_t k = 0; k < width; k++) {
                    float code = peer_clamp(peer_round(w[k] / s[i]) + z[i], 0, top);
                    trial[i * size + k] = (unsigned char)code;
                    d[i * size + k] = s[i] * (code - z[i]) - w[k];
                }
            }
            memset(dh, 0, ROWS * size * sizeof *dh);
            peer_gemm(dh, size, d, size, c->h + at * n + at, n, count, width, width, 1);
            for (size_t i = 0; i < count; i++) {
                double error = 0;
                for (size_t k = 0; k < width; k++) error += (double)d[i * size + k] * dh[i * size + k];
                if (error >= best[i]) continue;
                best[i] = error;
                memcpy(codes + i * n + at, trial + i * size, width);
                q->scales[(first + i) * q->groups + g] = bitstack_f32_to_f16(s[i]);
                q->zeros[(first + i) * q->groups + g] = (unsigned char)z[i];
            }
        }
    }
    for (size_t i = 0; i < count; i++) peer_uniform_pack(q, (uint32_t)(first + i), codes + i * n);
    free(d), free(dh), free(codes), free(trial);
}

/* Output error of rounding with these column scales, on some of the rows. */
static double scaled_error(const peer_coded *like, const float *w, uint32_t rows, const float *scale,
                           const bitstack_moments *moments, int threads) {
    size_t n = like->cols;
    float *scaled = peer_alloc(rows * n, sizeof *scaled);
    peer_uniform *u = peer_uniform_new(rows, like->cols, like->peer->bits, like->peer->group);
    peer_coded trial = {.peer = like->peer, .rows = rows, .cols = like->cols, .data = u};
    u->columns = peer_alloc(n, sizeof *u->columns);
    memcpy(u->columns, scale, n * sizeof *scale);
    for (size_t i = 0; i < rows * n; i++) scaled[i] = w[i] * scale[i % n];
    peer_uniform_round(u, scaled, 0, threads);
    peer_uniform_dequantize(&trial, 1, scaled);
    double error = peer_error(w, scaled, rows, like->cols, moments, threads);
    peer_uniform_release(&trial);
    free(scaled);
    return error;
}

bitstack_result peer_awq_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    size_t m = out->rows, n = out->cols, some = m < SEARCHED ? m : SEARCHED;
    float *size = peer_alloc(n, sizeof *size), *scale = peer_alloc(n, sizeof *scale), *best = peer_alloc(n, sizeof *best);
    float *scaled = peer_alloc(m * n, sizeof *scaled), *h = peer_alloc(n * n, sizeof *h);
    double least = HUGE_VAL;
    peer_input_power(moments, out->cols, size);
    for (size_t i = 0; i < some; i++) memcpy(scaled + i * n, w + i * m / some * n, n * sizeof *w);
    for (int step = 0; step < (moments ? 20 : 1); step++) {
        float low = HUGE_VALF, high = 0;
        for (size_t j = 0; j < n; j++) {
            scale[j] = fmaxf(powf(sqrtf(size[j]), (float)step / 20), 1e-4f);
            low = fminf(low, scale[j]), high = fmaxf(high, scale[j]);
        }
        for (size_t j = 0; j < n; j++) scale[j] = peer_half(scale[j] / sqrtf(low * high));
        double error = scaled_error(out, scaled, (uint32_t)some, scale, moments, threads);
        if (error < least) least = error, memcpy(best, scale, n * sizeof *scale);
    }
    peer_uniform *u = peer_uniform_new(out->rows, out->cols, out->peer->bits, out->peer->group);
    peer_hessian(h, out->cols, moments);
    for (size_t i = 0; i < n * n; i++) h[i] /= best[i / n] * best[i % n];
    for (size_t i = 0; i < m * n; i++) scaled[i] = w[i] * best[i % n];
    clipping c = {scaled, h, u};
    peer_parallel(threads, (m + ROWS - 1) / ROWS, clip_rows, &c);
    u->columns = best;
    peer_uniform_adopt(out, u);
    free(size), free(scale), free(scaled), free(h);
    return BITSTACK_OK;
}
