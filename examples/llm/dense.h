/* dense.h - float kernels of the full-precision model. Plain C with the compilers' vector types; on x86
 * each is built twice, and the build for AVX2 with fused multiply-adds is taken where the CPU has them. Products of
 * many vectors and attention have kernels of their own for AVX-512 and AMX (dense_x86.c). */
#ifndef LLM_DENSE_H
#define LLM_DENSE_H

#include <stddef.h>

/* Y = X W^T: w rows x cols (row stride cols), `count` vectors at x, x + x_stride ..., outputs likewise. Off by at most
 * 2^-15 of sum |w x|, in practice by much less. An output depends on cols and count, not on the rows beside it. */
void llm_gemm(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
              size_t count);

/* Where products of many vectors are made from packed matrices, one that serves several is packed once. Floats that a matrix of
 * rows x cols takes, or `rows` vectors of cols; 0 where there is no such thing. */
size_t llm_packed_floats(size_t rows, size_t cols);
/* Rows may be packed share by share, from multiples of 32 on, each row taking as many floats as a 32nd of 32 rows. w's
 * rows are `stride` apart; `turned`: w is the transpose, cols x rows. packed: aligned to 64 bytes. */
void llm_pack(const float *w, size_t stride, int turned, size_t rows, size_t cols, float *packed);
/* As llm_gemm, the same outputs for so many vectors and more. room: for the vectors, aligned to 64 bytes; NULL: the
 * thread's own, and 0 where there is no memory for it. */
enum { LLM_PACKED_LEAST = 24 };
int llm_gemm_packed(const float *packed, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
                    size_t count, float *room);

/* Attention, sum over t of softmax_t(scale q.k_t) v_t, of the heads that share keys and values. Token t of a batch is at position
 * position + t and sees the keys up to its own, `window` of them at most (0: all). */
typedef struct llm_attention {
    const float *keys, *values; /* of position 0: `size` floats every `stride` */
    size_t size, stride, heads, position, window;
    size_t q_stride; /* floats from a token's queries to the next one's; a head's stand after the other's */
    float scale;
    float *scores; /* room for a float a key */
} llm_attention;

/* Tokens [first, first + count) of the batch: q and out are those of token 0. */
void llm_attend_tokens(const llm_attention *a, float *out, const float *q, size_t first, size_t count);

/* Exponentials by polynomial: relative error below 3e-7 from -87 to 88; e^-87 below and e^88 above. */
void llm_exp(float *x, size_t count);
float llm_greatest(const float *x, size_t count);
/* sum of e^(x - top): below top - 87 it counts as e^-87. */
double llm_exp_sum(const float *x, size_t count, float top);
/* sum of e^(r - base) (r - x - shift) */
double llm_exp_difference(const float *r, const float *x, size_t count, float base, float shift);

/* The sum of squares; and sums[i] += x[i]^2. */
float llm_square_sum(const float *x, size_t count);
void llm_add_squares(float *sums, const float *x, size_t count);

/* Kernels of the CPU that may be used: returns the best allowed one that it has; `most` below 0 leaves it. */
enum { LLM_DENSE_AVX2, LLM_DENSE_AVX512, LLM_DENSE_AMX };
int llm_dense_limit(int most);
/* On, products of many vectors may take 8 significant bits of each factor, where that is several times as fast (AMX): for
 * gradients that are drawn at random anyway. Returns what it was. */
int llm_dense_rough(int on);

/* up *= gate / (1 + e^-gate), elementwise */
void llm_swiglu(float *up, const float *gate, size_t count);

/* `count` IEEE half floats, any alignment. */
void llm_unpack_f16(const unsigned char *from, size_t count, float *to);

#endif
