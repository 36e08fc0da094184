/* baseline_f32.c - dense f32 GEMV, ours and OpenBLAS's, and OpenBLAS's GEMM. */
#include "bench.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#if BENCH_X86
#include <immintrin.h>
#endif

static size_t f32_bytes(uint32_t rows, uint32_t cols) { return (size_t)rows * cols * 4; }

static void f32_plain(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                      int thread) {
    const float *w = (const float *)weights + (size_t)begin * p->cols;
    (void)thread;
    for (uint32_t i = begin; i < begin + count; i++, w += p->cols) {
        float sum = 0;
        for (uint32_t j = 0; j < p->cols; j++) sum += w[j] * p->x[j];
        p->y[i] = sum;
    }
}

#if BENCH_X86
/* Four rows at a time share the loads of x; eight accumulators hide the latency. */
static BENCH_AVX2 void f32_avx2(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                                int thread) {
    size_t n = p->cols, full = n / 16 * 16;
    uint32_t i = begin, end = begin + count;
    const float *base = (const float *)weights;
    for (; i + 4 <= end; i += 4) {
        const float *w = base + i * n;
        __m256 s[4][2];
        for (int r = 0; r < 4; r++) s[r][0] = s[r][1] = _mm256_setzero_ps();
        for (size_t j = 0; j < full; j += 16) {
            __m256 x0 = _mm256_loadu_ps(p->x + j), x1 = _mm256_loadu_ps(p->x + j + 8);
            for (size_t r = 0; r < 4; r++) {
                _mm_prefetch((const char *)(w + r * n + j + 512), _MM_HINT_T0);
                s[r][0] = _mm256_fmadd_ps(_mm256_loadu_ps(w + r * n + j), x0, s[r][0]);
                s[r][1] = _mm256_fmadd_ps(_mm256_loadu_ps(w + r * n + j + 8), x1, s[r][1]);
            }
        }
        for (size_t r = 0; r < 4; r++) {
            float lane[8], sum = 0;
            _mm256_storeu_ps(lane, _mm256_add_ps(s[r][0], s[r][1]));
            for (int k = 0; k < 8; k++) sum += lane[k];
            for (size_t j = full; j < n; j++) sum += w[r * n + j] * p->x[j];
            p->y[i + r] = sum;
        }
    }
    if (i < end) f32_plain(p, weights, i, end - i, thread);
}
static BENCH_AVX512 void f32_avx512(const bench_problem *p, const void *weights, uint32_t begin,
                                    uint32_t count, int thread) {
    size_t n = p->cols, full = n / 32 * 32;
    uint32_t i = begin, end = begin + count;
    const float *base = (const float *)weights;
    for (; i + 4 <= end; i += 4) {
        const float *w = base + i * n;
        __m512 s[4][2];
        for (int r = 0; r < 4; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
        for (size_t j = 0; j < full; j += 32) {
            __m512 x0 = _mm512_loadu_ps(p->x + j), x1 = _mm512_loadu_ps(p->x + j + 16);
            for (size_t r = 0; r < 4; r++) {
                _mm_prefetch((const char *)(w + r * n + j + 512), _MM_HINT_T0);
                _mm_prefetch((const char *)(w + r * n + j + 528), _MM_HINT_T0);
                s[r][0] = _mm512_fmadd_ps(_mm512_loadu_ps(w + r * n + j), x0, s[r][0]);
                s[r][1] = _mm512_fmadd_ps(_mm512_loadu_ps(w + r * n + j + 16), x1, s[r][1]);
            }
        }
        for (size_t r = 0; r < 4; r++) {
            float sum = _mm512_reduce_add_ps(_mm512_add_ps(s[r][0], s[r][1]));
            for (size_t j = full; j < n; j++) sum += w[r * n + j] * p->x[j];
            p->y[i + r] = sum;
        }
    }
    if (i < end) f32_plain(p, weights, i, end - i, thread);
}
#endif

/* OpenBLAS is looked up at run time, so that building needs nothing. One thread a call: our threads
 * share out the rows, and none of its own spin while others are timed. */
enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
typedef void (*sgemv_function)(int order, int transpose, int m, int n, float alpha, const float *a, int lda,
                               const float *x, int incx, float beta, float *y, int incy);
typedef void (*sgemm_function)(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                               int lda, const float *b, int ldb, float beta, float *c, int ldc);
static sgemv_function sgemv;
static sgemm_function sgemm;

int bench_has_openblas(void) {
    static int tried;
    if (!tried) {
        tried = 1;
        setenv("OPENBLAS_NUM_THREADS", "1", 1);
        /* On a CPU newer than itself OpenBLAS falls back to SSE3; say what the CPU can do. */
        if (bench_has_avx2()) setenv("OPENBLAS_CORETYPE", bench_has_avx512() ? "SkylakeX" : "Haswell", 0);
        void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
        if (!library) library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
        if (library) {
            void *v = dlsym(library, "cblas_sgemv"), *m = dlsym(library, "cblas_sgemm");
            memcpy(&sgemv, &v, sizeof v); /* ISO C has no cast from object to function pointers */
            memcpy(&sgemm, &m, sizeof m);
        }
    }
    return sgemv && sgemm;
}
static void f32_openblas(const bench_problem *p, const void *weights, uint32_t begin, uint32_t count,
                         int thread) {
    (void)thread;
    sgemv(ROW_MAJOR, NO_TRANSPOSE, (int)count, (int)p->cols, 1,
          (const float *)weights + (size_t)begin * p->cols, (int)p->cols, p->x, 1, 0, p->y + begin, 1);
}
void bench_openblas_gemm(int m, int n, int k, const float *a, const float *b, float *c, int c_stride) {
    sgemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, m, n, k, 1, a, k, b, k, 0, c, c_stride);
}

const bench_baseline bench_f32[] = {
#if BENCH_X86
    {"f32", "avx512", "dense f32", f32_bytes, BENCH_FLOATS, f32_avx512, bench_has_avx512},
    {"f32", "avx2", "dense f32", f32_bytes, BENCH_FLOATS, f32_avx2, bench_has_avx2},
#endif
    {"openblas", "-", "dense f32, OpenBLAS", f32_bytes, BENCH_FLOATS, f32_openblas, bench_has_openblas},
    {"f32", "scalar", "dense f32", f32_bytes, BENCH_FLOATS, f32_plain, bench_always},
    {NULL, NULL, NULL, NULL, BENCH_BITS, NULL, NULL},
};
