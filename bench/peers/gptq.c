/* gptq.c - GPTQ (Frantar et al., arXiv 2210.17323), as in its public code: columns are rounded one after
 * the other on an asymmetric uniform grid a group, and the error of each is pushed into the columns to
 * come along the rows of the Cholesky factor of H^-1; 1 % damping; lazy blocks of 128 columns; dead inputs
 * get weight 0. Act-order takes the columns in descending order of diag H, with static groups: the grids
 * come from the weights before any compensation and belong to the columns' places in the matrix.
 * Two differences, both in its favour: a group smaller than a block takes its grid from weights that are
 * compensated up to that column, and one factorization does the work of two (linear.c). */
#include "peer.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, ROWS = 48 };

typedef struct gptq_run {
    const float *w, *u;
    const uint32_t *order; /* NULL: as they are */
    peer_uniform *out;
    const float *diagonal; /* of H: 0 is a dead input */
    int search, weighted;
} gptq_run;

static void gptq_rows(void *user, size_t block_of_rows) {
    gptq_run *run = user;
    peer_uniform *q = run->out;
    size_t n = q->cols, first = block_of_rows * ROWS, count = q->rows - first < ROWS ? q->rows - first : ROWS;
    float top = (float)((1 << q->bits) - 1), *w = peer_alloc(count * n, sizeof *w), *error = peer_alloc(count * BLOCK, sizeof *error);
    float *scale = peer_alloc(count * q->groups, sizeof *scale), *zero = peer_alloc(count * q->groups, sizeof *zero);
    unsigned char *codes = peer_alloc(count * n, 1);
    for (size_t i = 0; i < count; i++) {
        const float *from = run->w + (first + i) * n;
        for (size_t j = 0; j < n; j++) {
            size_t column = run->order ? run->order[j] : j;
            w[i * n + j] = run->diagonal[column] > 0 ? from[column] : 0;
        }
        for (size_t g = 0; run->order && g < q->groups; g++) {
            size_t at = g * q->group, size = n - at < q->group ? n - at : q->group;
            float *s = &scale[i * q->groups + g], *z = &zero[i * q->groups + g];
            if (run->weighted) peer_uniform_grid_weighted(from + at, run->diagonal + at, size, q->bits, s, z);
            else peer_uniform_grid(from + at, size, q->bits, run->search, 1, s, z);
        }
    }
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t end = at + BLOCK < n ? at + BLOCK : n;
        for (size_t i = 0; i < count; i++) {
            float *row = w + i * n, *s = scale + i * q->groups, *z = zero + i * q->groups;
            for (size_t j = at; j < end; j++) {
                size_t column = run->order ? run->order[j] : j, g = column / q->group;
                if (!run->order && j % q->group == 0)
                    peer_uniform_grid(row + j, n - j < q->group ? n - j : q->group, q->bits, run->search, 1, &s[g], &z[g]);
                const float *u = run->u + j * n;
                float code = peer_clamp(peer_round(row[j] / s[g]) + z[g], 0, top);
                float e = (row[j] - s[g] * (code - z[g])) / u[j];
                codes[i * n + column] = (unsigned char)code;
                error[i * BLOCK + j - at] = e;
                peer_axpy(row + j + 1, -e, u + j + 1, end - j - 1);
            }
        }
        if (end < n)
            peer_gemm(w + end, n, error, BLOCK, run->u + at * n + end, n, count, n - end, end - at, -1);
    }
    for (size_t i = 0; i < count; i++) {
        peer_uniform_pack(q, (uint32_t)(first + i), codes + i * n);
        for (size_t g = 0; g < q->groups; g++) {
            q->scales[(first + i) * q->groups + g] = bitstack_f32_to_f16(scale[i * q->groups + g]);
            q->zeros[(first + i) * q->groups + g] = (unsigned char)zero[i * q->groups + g];
        }
    }
    free(w), free(error), free(scale), free(zero), free(codes);
}

typedef struct ranked {
    float key;
    uint32_t index;
} ranked;

static int descending(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    return x->key > y->key ? -1 : x->key < y->key ? 1 : x->index < y->index ? -1 : 1;
}

/* peer.option: bit 0 searches the grid, bit 1 is act-order; bit 2 (with it) searches for the least error of the output
 * as the inputs' mean squares have it. */
bitstack_result peer_gptq_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    size_t n = out->cols;
    int act_order = out->peer->option & 2;
    float *u = peer_alloc(n * n, sizeof *u), *diagonal = peer_alloc(n, sizeof *diagonal);
    ranked *rank = peer_alloc(n, sizeof *rank);
    uint32_t *order = peer_alloc(n, sizeof *order);
    for (size_t j = 0; j < n; j++) {
        diagonal[j] = moments ? (float)moments->h[j * n + j] : 1;
        rank[j].key = diagonal[j], rank[j].index = (uint32_t)j;
    }
    qsort(rank, n, sizeof *rank, descending);
    for (size_t j = 0; j < n; j++) order[j] = rank[j].index;
    bitstack_result result = peer_inverse_factor(u, out->cols, moments, act_order ? order : NULL, 0.01, threads);
    if (result == BITSTACK_OK) {
        peer_uniform *q = peer_uniform_new(out->rows, out->cols, out->peer->bits, out->peer->group);
        gptq_run run = {w, u, act_order ? order : NULL, q, diagonal, out->peer->option & 1, out->peer->option & 4};
        peer_parallel(threads, (out->rows + ROWS - 1) / ROWS, gptq_rows, &run);
        peer_uniform_adopt(out, q);
    }
    free(u), free(diagonal), free(rank), free(order);
    return result;
}
