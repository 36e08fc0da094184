/* dense_x86.h - what dense.c takes on x86 in place of its own kernels where the CPU has it. Each function returns 0
 * where it has not done the work: another CPU, sizes that do not pay, or no memory for packed operands. */
#ifndef LLM_DENSE_X86_H
#define LLM_DENSE_X86_H

#include "dense.h"

int llm_x86_gemm(const float *w, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
                 size_t count);
/* As llm_packed_floats and its kin in dense.h. */
size_t llm_x86_packed(size_t rows, size_t cols);
void llm_x86_pack(const float *w, size_t stride, int turned, size_t rows, size_t cols, float *to);
int llm_x86_gemm_packed(const float *packed, size_t rows, size_t cols, const float *x, size_t x_stride, float *y, size_t y_stride,
                        size_t count, float *room);
int llm_x86_attend(const llm_attention *a, float *out, const float *q, size_t first, size_t count);

#endif
