/* ggml.c - llama.cpp's Q4_0 and K block types, from their public description: blocks of 16 or 32 weights
 * along the row; K types group 256 weights under two half-precision numbers, which scale the blocks' own
 * small integer scales (and minima). Fitted block by block with the weighting that its quantizer uses with
 * an importance matrix: power of the input times sqrt(mean square + w^2). Bits a weight are llama.cpp's;
 * codes stand in our chunks instead of its interleaving, and the kernel is ours: see the design notes and
 * GGML_DIR in bench/ for the speed of its own. */
#include "peer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SUPER = 256, MOST_BLOCKS = SUPER / 16 };

typedef struct kind {
    int bits, block, super; /* weights a block, weights that share `d`: 256, or the block */
    int scale_bits;         /* of a block's scale; 0: it is `d` itself */
    int with_minimum;       /* w = d sc q - dmin mn, else w = d sc (q - 2^(bits - 1)), sc signed */
    double bytes;           /* of `super` weights */
} kind;

static const kind kinds[] = {
    {4, 32, 32, 0, 0, 18},          /* Q4_0 */
    {2, 16, SUPER, 4, 1, 84},       /* Q2_K */
    {3, 16, SUPER, 6, 0, 110},      /* Q3_K */
    {4, 32, SUPER, 6, 1, 144},      /* Q4_K */
    {5, 32, SUPER, 6, 1, 176},      /* Q5_K */
    {6, 16, SUPER, 8, 0, 210},      /* Q6_K */
};

typedef struct blocks {
    const kind *k;
    uint32_t rows, cols;
    size_t row_blocks, row_supers;
    unsigned char *codes;        /* chunks */
    uint16_t *d, *dmin;          /* rows x row_supers */
    signed char *scale, *minimum; /* rows x row_blocks */
} blocks;

/* Least weighted squares of scale and minimum (stored as -minimum >= 0) over 21 trial scales. */
static void fit_with_minimum(const float *x, const float *weight, int count, int top, float *scale, float *minimum) {
    float low = 0, high = -HUGE_VALF, best = HUGE_VALF;
    for (int i = 0; i < count; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    *scale = 0, *minimum = -low;
    if (high <= low) return;
    for (int step = 0; step <= 20; step++) {
        float inverse = ((float)top - 1 + 0.1f * (float)step) / (high - low);
        double sw = 0, sl = 0, sll = 0, sx = 0, sxl = 0, error = 0;
        float l[32];
        for (int i = 0; i < count; i++) {
            l[i] = peer_clamp(peer_round(inverse * (x[i] - low)), 0, (float)top);
            double w = weight[i];
            sw += w, sl += w * l[i], sll += w * l[i] * l[i], sx += w * x[i], sxl += w * x[i] * l[i];
        }
        double det = sw * sll - sl * sl;
        if (det <= 0) continue;
        double s = (sw * sxl - sx * sl) / det, m = (sll * sx - sl * sxl) / det;
        if (m > 0) m = 0, s = sxl / sll;
        for (int i = 0; i < count; i++) error += weight[i] * (s * l[i] + m - x[i]) * (s * l[i] + m - x[i]);
        if (error < best) best = (float)error, *scale = (float)s, *minimum = (float)-m;
    }
}

/* Symmetric: least weighted squares of a signed scale over 19 trials; codes -half .. half - 1. */
static float fit_symmetric(const float *x, const float *weight, int count, int half) {
    float peak = 0, best = 0, scale = 0;
    for (int i = 0; i < count; i++)
        if (fabsf(x[i]) > fabsf(peak)) peak = x[i];
    for (int step = -9; peak != 0 && step <= 9; step++) {
        float inverse = -((float)half + 0.1f * (float)step) / peak;
        double sxl = 0, sll = 0;
        for (int i = 0; i < count; i++) {
            float l = peer_clamp(peer_round(inverse * x[i]), (float)-half, (float)(half - 1));
            sxl += (double)weight[i] * x[i] * l, sll += (double)weight[i] * l * l;
        }
        if (sll > 0 && sxl * sxl / sll > best) best = (float)(sxl * sxl / sll), scale = (float)(sxl / sll);
    }
    return scale;
}

typedef struct fitting {
    const float *w, *power;
    blocks *b;
} fitting;

static void super_block(const fitting *f, size_t i, size_t s, unsigned char *codes) {
    blocks *b = f->b;
    const kind *k = b->k;
    size_t n = b->cols, at = s * (size_t)k->super, end = n - at < (size_t)k->super ? n : at + (size_t)k->super;
    int half = 1 << (k->bits - 1), top = 2 * half - 1, count = 0;
    float scale[MOST_BLOCKS] = {0}, minimum[MOST_BLOCKS] = {0}, weight[32], most = 0, most_minimum = 0, square = 0;
    for (size_t j = at; j < end; j++) square += f->w[i * n + j] * f->w[i * n + j] / (float)(end - at);
    for (size_t j = at; j < end; j += (size_t)k->block, count++) {
        int width = (int)(end - j < (size_t)k->block ? end - j : (size_t)k->block);
        const float *x = f->w + i * n + j;
        for (int q = 0; q < width; q++) weight[q] = (f->power[j + (size_t)q] + 1e-9f) * sqrtf(square + x[q] * x[q]);
        if (k->with_minimum) fit_with_minimum(x, weight, width, top, &scale[count], &minimum[count]);
        else scale[count] = fit_symmetric(x, weight, width, half);
        if (fabsf(scale[count]) > fabsf(most)) most = scale[count];
        if (minimum[count] > most_minimum) most_minimum = minimum[count];
    }
    /* the blocks' scales in units of d; signed ones reach one further down, so the largest takes that end */
    float units = k->with_minimum ? (float)((1 << k->scale_bits) - 1) : -(float)(1 << k->scale_bits >> 1);
    float d = k->scale_bits ? peer_half(most / units) : peer_half(most), dmin = 0;
    if (k->with_minimum) dmin = peer_half(most_minimum / units), b->dmin[i * b->row_supers + s] = bitstack_f32_to_f16(dmin);
    b->d[i * b->row_supers + s] = bitstack_f32_to_f16(d);
    for (int c = 0; c < count; c++) {
        size_t block = i * b->row_blocks + at / (size_t)k->block + (size_t)c;
        float sc = 1, mn = dmin > 0 ? peer_clamp(peer_round(minimum[c] / dmin), 0, units) : 0;
        if (k->scale_bits) {
            sc = d == 0 ? 0 : peer_round(scale[c] / d);
            sc = k->with_minimum ? peer_clamp(sc, 0, units) : peer_clamp(sc, units, -units - 1);
        }
        b->scale[block] = (signed char)sc, b->minimum[block] = (signed char)mn;
        for (size_t j = at + (size_t)(c * k->block); j < end && j < at + (size_t)((c + 1) * k->block); j++) {
            float step = d * sc, x = f->w[i * n + j] + dmin * mn;
            codes[j] = (unsigned char)peer_clamp(step == 0 ? 0 : peer_round(x / step) + (float)(k->with_minimum ? 0 : half), 0, (float)top);
        }
    }
}
static void fit_row(void *user, size_t i) {
    const fitting *f = user;
    blocks *b = f->b;
    unsigned char *codes = peer_alloc(b->cols, 1);
    for (size_t s = 0; s < b->row_supers; s++) super_block(f, i, s, codes);
    peer_pack(b->codes + i * ((b->cols + PEER_CHUNK - 1) / PEER_CHUNK) * 4 * (size_t)b->k->bits, b->k->bits, codes, b->cols);
    free(codes);
}

/* peer.option: index into kinds. */
bitstack_result peer_ggml_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    blocks *b = peer_alloc(1, sizeof *b);
    float *power = peer_alloc(out->cols, sizeof *power);
    const kind *k = b->k = &kinds[out->peer->option];
    b->rows = out->rows, b->cols = out->cols;
    b->row_blocks = (b->cols + (size_t)k->block - 1) / (size_t)k->block;
    b->row_supers = (b->cols + (size_t)k->super - 1) / (size_t)k->super;
    b->codes = peer_alloc(b->rows * ((b->cols + PEER_CHUNK - 1) / PEER_CHUNK), 4 * (size_t)k->bits);
    b->d = peer_alloc(b->rows * b->row_supers, sizeof *b->d), b->dmin = peer_alloc(b->rows * b->row_supers, sizeof *b->dmin);
    b->scale = peer_alloc(b->rows * b->row_blocks, 1), b->minimum = peer_alloc(b->rows * b->row_blocks, 1);
    peer_input_power(moments, out->cols, power);
    fitting f = {w, power, b};
    peer_parallel(threads, b->rows, fit_row, &f);
    free(power);
    out->data = b;
    out->levels = 1;
    out->bytes[0] = (uint64_t)ceil(k->bytes * b->rows * b->cols / k->super);
    return BITSTACK_OK;
}

static void block_numbers(const blocks *b, size_t i, size_t block, float *scale, float *offset) {
    size_t s = i * b->row_supers + block * (size_t)b->k->block / (size_t)b->k->super, at = i * b->row_blocks + block;
    *scale = bitstack_f16_to_f32(b->d[s]) * b->scale[at];
    *offset = b->k->with_minimum ? -bitstack_f16_to_f32(b->dmin[s]) * b->minimum[at]
                                 : -*scale * (float)(1 << (b->k->bits - 1));
}
void peer_ggml_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    const blocks *b = coded->data;
    size_t chunks = (b->cols + PEER_CHUNK - 1) / PEER_CHUNK;
    unsigned char c[PEER_CHUNK];
    float scale = 0, offset = 0;
    (void)level;
    for (size_t i = 0; i < b->rows; i++)
        for (size_t j = 0; j < b->cols; j++) {
            if (j % PEER_CHUNK == 0) peer_unpack(b->codes + (i * chunks + j / PEER_CHUNK) * 4 * (size_t)b->k->bits, b->k->bits, c);
            if (j % (size_t)b->k->block == 0) block_numbers(b, i, j / (size_t)b->k->block, &scale, &offset);
            out[i * b->cols + j] = scale * c[j % PEER_CHUNK] + offset;
        }
}
static void block_row(const void *user, size_t i, float *scale, float *offset) {
    const blocks *b = user;
    for (size_t block = 0; block < b->row_blocks; block++) block_numbers(b, i, block, &scale[block], &offset[block]);
}
void peer_ggml_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    const blocks *b = coded->data;
    (void)level;
    peer_chunk_gemv(b->codes, b->k->bits, b->rows, b->cols, b->k->block, block_row, b, x, y);
}
void peer_ggml_release(peer_coded *coded) {
    blocks *b = coded->data;
    free(b->codes), free(b->d), free(b->dmin), free(b->scale), free(b->minimum), free(b);
}
