/* peer.h - what people would use instead of a stack, behind one interface: round to nearest, GPTQ, AWQ,
 * llama.cpp's block types, greedy binary coding, nested uniform coding, AQLM, and the stack itself.
 * Each method is one small file, written from its paper or its public description. For comparisons and
 * tests, not for production; memory is not spared, and running out of it ends the program.
 *
 * Fairness: `bytes` counts all that is needed to multiply: codes, scales, zero points, code books,
 * column scales, with no padding that a careful implementation would not have. */
#ifndef PEER_H
#define PEER_H

#include "bitstack_compress.h"

#define PEER_LEVELS BITSTACK_MAX_LEVELS

struct peer;

/* A matrix coded by a peer. Methods of one size have one level; any-size methods run at each. */
typedef struct peer_coded {
    const struct peer *peer;
    uint32_t rows, cols;
    uint32_t levels;
    uint64_t bytes[PEER_LEVELS]; /* [level - 1]: everything that must be resident at that level */
    void *data;                  /* the method's own */
} peer_coded;

typedef struct peer {
    const char *name;   /* of this setting, unique: "gptq-3-g128" */
    const char *method; /* of the line it stands on in a plot: "GPTQ g128" */
    int bits, group, option; /* what they mean is the method's own */
    /* w is rows x cols, row-major; moments (same cols, with h) or NULL. Sets levels, bytes, data. */
    bitstack_result (*encode)(peer_coded *out, const float *w, const bitstack_moments *moments, int threads);
    void (*dequantize)(const peer_coded *coded, uint32_t level, float *out);
    /* y = W x by the method's own kernel; NULL where it has none */
    void (*gemv)(const peer_coded *coded, uint32_t level, const float *x, float *y);
    void (*release)(peer_coded *coded);
} peer;

extern int peer_aqlm_scalar; /* nonzero: AQLM's kernel does without AVX2 (tests) */

/* Every setting that is compared, NULL past the end; by name, or NULL. */
const peer *peer_at(int index);
const peer *peer_find(const char *name);

bitstack_result peer_encode(const peer *method, peer_coded *out, const float *w, uint32_t rows, uint32_t cols,
                            const bitstack_moments *moments, int threads);
void peer_free(peer_coded *coded);

/* tr(D H D^T) / tr(W H W^T) with D = w - approximation; |D|^2 / |W|^2 where moments is NULL. */
double peer_error(const float *w, const float *approximation, uint32_t rows, uint32_t cols,
                  const bitstack_moments *moments, int threads);

/* ------------------------------------------------------------------------- what the methods share */

void *peer_alloc(size_t count, size_t size); /* zeroed, never NULL */

/* work(user, i) for every i < count, shared out over threads. */
void peer_parallel(int threads, size_t count, void (*work)(void *user, size_t i), void *user);

/* C += alpha A B, all row-major: C m x n, A m x k, B k x n. One thread, AVX2 where there is. */
void peer_gemm(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t m, size_t n,
               size_t k, float alpha);

/* y += a x, `count` floats. */
void peer_axpy(float *y, float a, const float *x, size_t count);

/* out = h as float, scaled to a mean diagonal of 1 (the identity without moments). */
void peer_hessian(float *out, uint32_t cols, const bitstack_moments *moments);

/* u = the upper Cholesky factor of H^-1 (H^-1 = U^T U), rows and columns of H taken in the order `order`
 * (NULL: as they are), `damping` times the mean diagonal added to it. */
bitstack_result peer_inverse_factor(float *u, uint32_t cols, const bitstack_moments *moments,
                                    const uint32_t *order, double damping, int threads);

/* Codes of 1 to 8 bits, packed a chunk of 32 at a time (uniform.c says how): 4 * bits bytes a chunk, rows
 * padded to whole chunks. */
enum { PEER_CHUNK = 32 };
void peer_pack(unsigned char *chunks, int bits, const unsigned char *codes, size_t count);
void peer_unpack(const unsigned char *chunk, int bits, unsigned char codes[PEER_CHUNK]);

/* y = W x where W_ij = scale * code + offset, one scale and offset every `step` (16 or 32) columns; `row`
 * fills those of a row (as many as chunks need). Inputs are quantised to 8 bits, a scale per 32, as
 * llama.cpp does; codes have at most 7 bits. */
void peer_chunk_gemv(const unsigned char *chunks, int bits, uint32_t rows, uint32_t cols, int step,
                     void (*row)(const void *user, size_t i, float *scale, float *offset), const void *user,
                     const float *x, float *y);

/* Uniform codes in groups along the row: W_ij ~ scale * (code - zero), code of `bits` bits; scale in half
 * precision, zero an integer of `bits` bits; optionally the columns of W were multiplied by a scale. */
typedef struct peer_uniform {
    uint32_t rows, cols, group, groups; /* groups a row */
    int bits;
    unsigned char *codes; /* chunks */
    uint16_t *scales;     /* rows x groups, half precision */
    unsigned char *zeros; /* rows x groups */
    float *columns;       /* what is stored is W_ij * columns[j]; NULL: 1 */
} peer_uniform;

peer_uniform *peer_uniform_new(uint32_t rows, uint32_t cols, int bits, int group);
/* Packs the codes (a byte each) of one row. */
void peer_uniform_pack(peer_uniform *u, uint32_t row, const unsigned char *codes);
/* The grid of a group from its least and largest value times `shrink`, or, with search, the one of least
 * sum of |error|^2.4 among 80 shrunken ones (GPTQ's settings). The scale is rounded to half precision. */
void peer_uniform_grid(const float *w, size_t count, int bits, int search, float shrink, float *scale, float *zero);
/* The same search for the least sum of weight * error^2. */
void peer_uniform_grid_weighted(const float *w, const float *weight, size_t count, int bits, float *scale, float *zero);
static inline float peer_round(float value) { return (value + 12582912.0f) - 12582912.0f; } /* |value| < 2^22 */
static inline float peer_clamp(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}
static inline float peer_half(float value) { return bitstack_f16_to_f32(bitstack_f32_to_f16(value)); }
/* Round to nearest, all rows; sets data, levels and bytes. */
void peer_uniform_round(peer_uniform *u, const float *w, int search, int threads);
void peer_uniform_adopt(peer_coded *out, peer_uniform *u);
void peer_uniform_dequantize(const peer_coded *coded, uint32_t level, float *out);
void peer_uniform_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y);
void peer_uniform_release(peer_coded *coded);

/* Mean square of each input, their mean scaled to 1; 1 where nothing is known. */
void peer_input_power(const bitstack_moments *moments, uint32_t cols, float *out);

/* The methods' parts, for the table in peer.c. */
typedef bitstack_result peer_encoder(peer_coded *out, const float *w, const bitstack_moments *moments, int threads);
typedef void peer_dequantizer(const peer_coded *coded, uint32_t level, float *out);
typedef void peer_multiplier(const peer_coded *coded, uint32_t level, const float *x, float *y);
typedef void peer_releaser(peer_coded *coded);
peer_encoder peer_rtn_encode, peer_gptq_encode, peer_awq_encode, peer_ggml_encode, peer_binary_encode, peer_stack_encode,
    peer_aqlm_encode;
peer_dequantizer peer_ggml_dequantize, peer_binary_dequantize, peer_stack_dequantize, peer_aqlm_dequantize;
peer_multiplier peer_ggml_gemv, peer_binary_gemv, peer_stack_gemv, peer_aqlm_gemv;
peer_releaser peer_ggml_release, peer_binary_release, peer_stack_release, peer_aqlm_release;

#endif
