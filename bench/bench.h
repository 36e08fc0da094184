/* bench.h - what the benchmark programs share: a clock, statistics, threads, memory that is never in
 * cache twice, the machine's description, and the baselines that BitStack is measured against.
 * Linux and POSIX; the baselines have x86 kernels (AVX2, AVX-512) and plain C for everything else. */
#ifndef BITSTACK_BENCH_H
#define BITSTACK_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__x86_64__)
#define BENCH_X86 1
#define BENCH_AVX2 __attribute__((target("avx2,fma,f16c")))
#define BENCH_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")))
#else
#define BENCH_X86 0
#endif

/* --- time and statistics --- */
double bench_now(void); /* milliseconds */
typedef struct bench_summary {
    double median, least, spread; /* spread: (9th decile - 1st decile) / median */
} bench_summary;
bench_summary bench_summarise(const double *samples, int count);
/* How often the system took a core away from this process so far. A sample during which that happened says
 * nothing about the kernel: it is taken again, BENCH_TRIES times at most. */
long bench_preemptions(void);
enum { BENCH_TRIES = 6 };
/* Median of top[i] / bottom[i]: samples of one round are neighbours in time, so slow drift cancels. */
double bench_ratio(const double *top, const double *bottom, int count);

/* --- threads: job(context, part, parts) runs on `parts` threads, the caller being part 0 --- */
typedef void (*bench_job)(void *context, int part, int parts);
int bench_threads(void); /* BENCH_THREADS or the CPUs online */
void bench_run(bench_job job, void *context, int parts);
void bench_pin(int pinned); /* keeps the caller on the first CPU, the workers being on the others */

/* --- memory: a ring of distinct bytes larger than the last-level cache. Taking piece after piece and
 * starting over at the end, a byte is met again only after the whole ring has gone by. --- */
typedef enum bench_fill { BENCH_BITS, BENCH_HALVES, BENCH_FLOATS } bench_fill;
typedef struct bench_ring {
    unsigned char *base;
    size_t bytes, at;
} bench_ring;
size_t bench_last_cache(void); /* bytes of the last-level cache as the system reports it */
size_t bench_cold_bytes(void); /* 2.5 times that, at least 128 MiB: what counts as cold; BENCH_RING_MB */
/* Allocates a ring from which pieces of up to `largest` bytes can be taken; exits if memory is short. */
bench_ring bench_ring_new(size_t bytes, size_t largest, bench_fill fill, uint64_t seed);
const unsigned char *bench_ring_take(bench_ring *ring, size_t bytes);
void *bench_alloc(size_t bytes); /* zeroed, 64-byte aligned, never NULL */

uint64_t bench_random(uint64_t *state);
float bench_normal(uint64_t *state);

/* Lines beginning with "# ": CPU, caches, compiler, flags, ISA, date. */
void bench_describe(FILE *to);
int bench_full(void); /* BENCH=full */

/* --- baselines: each returns rows [begin, begin + count) of W x, or reads `bytes` bytes. Activations
 * are quantised inside the call, as ours build their tables inside it. --- */
typedef struct bench_problem {
    uint32_t rows, cols;
    const float *x;             /* cols, then zeros up to a multiple of 256 */
    const float *scales;        /* rows: a scale a row for the baselines that have one */
    float *y;                   /* rows, then up to 64 more */
    unsigned char *scratch[64]; /* a thread: 16 * cols + 4096 bytes */
} bench_problem;
typedef void (*bench_multiply)(const bench_problem *problem, const void *weights, uint32_t begin,
                               uint32_t count, int thread);
typedef struct bench_baseline {
    const char *name, *isa, *what;
    size_t (*bytes)(uint32_t rows, uint32_t cols);
    bench_fill fill;
    bench_multiply multiply;
    int (*available)(void);
} bench_baseline;
extern const bench_baseline bench_f32[], bench_xor[], bench_int8[], bench_q4[]; /* end: name NULL */

typedef struct bench_reader {
    const char *name;
    uint64_t (*read)(const unsigned char *from, size_t bytes); /* returns something made of every byte */
    int (*available)(void);
} bench_reader;
extern const bench_reader bench_readers[];

/* Multiply-adds in registers only: performs `rounds` * flops_per_round operations. */
typedef struct bench_fma {
    const char *name;
    float (*run)(long rounds);
    double flops_per_round;
    int (*available)(void);
} bench_fma;
extern const bench_fma bench_fmas[];

int bench_has_avx2(void);
int bench_has_avx512(void);
int bench_always(void);

/* ggml, if the build had GGML_DIR (baseline_ggml.c): open gives NULL where there is no such type or path.
 * `copies` matrices are multiplied in turn. */
typedef struct bench_ggml {
    char name[32];
    size_t bytes; /* of one matrix */
    struct bench_private *private;
} bench_ggml;
int bench_ggml_types(void);
bench_ggml *bench_ggml_open(int type, int repacked, uint32_t rows, uint32_t cols, int copies, int threads);
void bench_ggml_run(bench_ggml *g, const float *x, float *y);
void bench_ggml_wake(bench_ggml *g, int awake);
void bench_ggml_close(bench_ggml *g);

/* OpenBLAS, if the system has it as a shared library: y = W x, and C = A B^T with A m x k, B n x k, C m x n
 * and c_stride floats a row of C; one thread each call. */
int bench_has_openblas(void);
void bench_openblas_gemm(int m, int n, int k, const float *a, const float *b, float *c, int c_stride);
#endif
