/* dense.h - float kernels of the full-precision model. Plain C with the compilers' vector types; on x86
 * each is built twice, and the build for AVX2 with fused multiply-adds is taken where the CPU has them. */
#ifndef LLM_DENSE_H
#define LLM_DENSE_H

#include <stddef.h>

/* Y = X W^T: w rows x cols (row stride cols), `count` vectors at x, x + x_stride ..., outputs likewise. */
void llm_gemm(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
              size_t count);

/* out = sum over t of softmax_t(scale q.k_t) v_t: one head, one query; k_t and v_t of `size` floats stand
 * `stride` floats apart; scores: room for `count` floats. */
void llm_attend(float *out, const float *q, const float *k, const float *v, size_t size, size_t stride, size_t count,
                float scale, float *scores);

/* up *= gate / (1 + e^-gate), elementwise */
void llm_swiglu(float *up, const float *gate, size_t count);

/* `count` IEEE half floats, any alignment. */
void llm_unpack_f16(const unsigned char *from, size_t count, float *to);

#endif
