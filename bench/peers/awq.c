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

/* d H_gg d^T for a group: h is cols x cols, at the group's corner. */
static double group_error(const float *d, size_t count, const float *h, size_t cols) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        float s = 0;
        for (size_t j = 0; j < count; j++) s += h[i * cols + j] * d[j];
        sum += (double)s * d[i];
    }
    return sum;
}

typedef struct clipping {
    const float *w, *h; /* both scaled */
    peer_uniform *out;
} clipping;

static void clip_row(void *user, size_t i) {
    clipping *c = user;
    peer_uniform *q = c->out;
    size_t n = q->cols;
    float top = (float)((1 << q->bits) - 1), *d = peer_alloc(q->group, sizeof *d);
    unsigned char *codes = peer_alloc(n, 1);
    for (size_t g = 0; g < q->groups; g++) {
        size_t at = g * q->group, count = n - at < q->group ? n - at : q->group;
        const float *w = c->w + i * n + at;
        double best = HUGE_VAL;
        for (int step = 0; step < 10; step++) {
            float s, z;
            unsigned char trial[512];
            peer_uniform_grid(w, count, q->bits, 0, 1 - (float)step / 20, &s, &z);
            for (size_t k = 0; k < count; k++) {
                float code = peer_clamp(peer_round(w[k] / s) + z, 0, top);
                trial[k] = (unsigned char)code;
                d[k] = s * (code - z) - w[k];
            }
            double error = group_error(d, count, c->h + at * n + at, n);
            if (error >= best) continue;
            best = error;
            memcpy(codes + at, trial, count);
            q->scales[i * q->groups + g] = bitstack_f32_to_f16(s), q->zeros[i * q->groups + g] = (unsigned char)z;
        }
    }
    peer_uniform_pack(q, (uint32_t)i, codes);
    free(d), free(codes);
}

bitstack_result peer_awq_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    size_t m = out->rows, n = out->cols;
    float *size = peer_alloc(n, sizeof *size), *scale = peer_alloc(n, sizeof *scale), *best = peer_alloc(n, sizeof *best);
    float *scaled = peer_alloc(m * n, sizeof *scaled), *back = peer_alloc(m * n, sizeof *back);
    float *h = peer_alloc(n * n, sizeof *h);
    double least = HUGE_VAL;
    if (out->peer->group > 512) return BITSTACK_ERROR_ARGUMENT;
    peer_input_power(moments, out->cols, size);
    for (int step = 0; step < (moments ? 20 : 1); step++) {
        float low = HUGE_VALF, high = 0;
        for (size_t j = 0; j < n; j++) {
            scale[j] = fmaxf(powf(sqrtf(size[j]), (float)step / 20), 1e-4f);
            low = fminf(low, scale[j]), high = fmaxf(high, scale[j]);
        }
        for (size_t j = 0; j < n; j++) scale[j] = peer_half(scale[j] / sqrtf(low * high));
        for (size_t i = 0; i < m * n; i++) scaled[i] = w[i] * scale[i % n];
        peer_coded trial = *out;
        peer_uniform *u = peer_uniform_new(out->rows, out->cols, out->peer->bits, out->peer->group);
        u->columns = peer_alloc(n, sizeof *u->columns);
        memcpy(u->columns, scale, n * sizeof *scale);
        peer_uniform_round(u, scaled, 0, threads);
        trial.data = u;
        peer_uniform_dequantize(&trial, 1, back);
        double error = peer_error(w, back, out->rows, out->cols, moments, threads);
        if (error < least) least = error, memcpy(best, scale, n * sizeof *scale);
        peer_uniform_release(&trial);
    }
    peer_uniform *u = peer_uniform_new(out->rows, out->cols, out->peer->bits, out->peer->group);
    peer_hessian(h, out->cols, moments);
    for (size_t i = 0; i < n * n; i++) h[i] /= best[i / n] * best[i % n];
    for (size_t i = 0; i < m * n; i++) scaled[i] = w[i] * best[i % n];
    clipping c = {scaled, h, u};
    peer_parallel(threads, m, clip_row, &c);
    u->columns = best;
    peer_uniform_adopt(out, u);
    free(size), free(scale), free(scaled), free(back), free(h);
    return BITSTACK_OK;
}
