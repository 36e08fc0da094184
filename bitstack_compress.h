/* bitstack_compress.h - turn weight matrices into a stack file for bitstack.h.
 * Version 0.1.0. C99 to C23, C++11 and later. Needs bitstack.h, libc, libm; pthreads optional.
 * MIT licence at the end of bitstack.h.
 *
 * In ONE C or C++ file:
 *
 *     #define BITSTACK_IMPLEMENTATION            // unless another file has it
 *     #include "bitstack.h"
 *     #define BITSTACK_COMPRESS_IMPLEMENTATION
 *     #include "bitstack_compress.h"
 *
 * Example:
 *
 *     bitstack_coded coded;
 *     bitstack_writer *writer;
 *     bitstack_encode_matrix(&coded, w, rows, cols, cols, NULL, NULL);   // defaults
 *     bitstack_writer_open(&writer, "w.bitstack", NULL, NULL);
 *     bitstack_writer_matrix(writer, "w", &coded, 1.0f);
 *     bitstack_coded_free(&coded);
 *     bitstack_writer_finish(writer, NULL, 0, NULL);                     // predicted order
 *
 * What it does not do: read model files, run models or gather activations (examples/ does); fine-tune.
 *
 * Contents (search for the mark):
 *   [CONFIG] [TYPES] [API]   [STOP] stop here if you only want the API
 *   [MEMORY] [THREADS] [LINALG] [SVD] [MOMENTS] [CODED] [IABS] [NESTED] [ORDER] [WRITER]
 */
#ifndef BITSTACK_COMPRESS_H
#define BITSTACK_COMPRESS_H

#include "bitstack.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================================== [CONFIG]
 * BITSTACK_NO_THREADS    (impl) everything in the calling thread; pthreads are not needed
 * BITSTACK_STATIC, BITSTACK_MALLOC, BITSTACK_FREE, BITSTACK_NO_STDIO: as in bitstack.h. Without stdio
 *                        the writer is absent; encoding stays.
 */

/* =================================================================================== [TYPES] */

typedef enum bitstack_method {
    BITSTACK_NESTED = 0, /* ours, the default: see [NESTED] */
    BITSTACK_IABS = 1    /* the paper's: see [IABS] */
} bitstack_method;

/* Second moments of a layer's inputs, gathered row by row: what activation-aware coding needs.
 * `h` = sum of x x^T over `count` inputs (cols x cols, symmetric, row-major; the full square is kept);
 * `norms[j]` = mean over samples of the L2 norm over the sample's tokens of channel j, the paper's
 * activation scale without its 1e-3. Memory: 8 cols^2 + 24 cols bytes (h is double).
 * Several matrices that share an input share one. */
typedef struct bitstack_moments {
    uint32_t cols;
    uint64_t count;   /* inputs added */
    uint64_t samples; /* groups of inputs added */
    double *h;        /* NULL if only norms are wanted */
    double *norms;    /* sum over samples of sqrt of the sample's sum of squares */
    double *scratch;
} bitstack_moments;

/* Called now and then with the fraction done, 0 to 1, from the calling thread; nonzero cancels. */
typedef int (*bitstack_progress)(void *user, double fraction);

/* How to encode. {0} (or NULL) means the defaults. */
typedef struct bitstack_encode_options {
    bitstack_method method;
    uint32_t levels; /* 1..32; 0 = 5 for nested, 16 for iabs */
    uint32_t rank;   /* 0 = automatic for nested, 16 for iabs (less where the matrix is smaller) */
    bitstack_type factor_type; /* 0 = F16 */
    int threads;     /* 0 or 1 = the calling thread only. The result does not depend on it. */
    uint64_t seed;   /* of random starts; the same seed gives the same bytes */
    int plain_columns;    /* iabs: nonzero = no activation-aware column scaling though moments are given */
    float level_weights[BITSTACK_MAX_LEVELS]; /* nested: how much each level counts in the joint choice;
                                                 all 0 = the default, see [NESTED] */
    bitstack_progress progress;
    void *progress_user;
} bitstack_encode_options;

/* A coded matrix in memory: every block's payload as the file has it ([FORMAT] in bitstack.h).
 * Free with bitstack_coded_free. */
typedef struct bitstack_coded {
    bitstack_shape shape;
    unsigned char *blocks[BITSTACK_MAX_LEVELS]; /* bitstack_block_bytes(&shape, i + 1) bytes each */
    double rel_err2[BITSTACK_MAX_LEVELS + 1];   /* |W - W_L|^2 / |W|^2 at level L; [0] is 1 */
    double out_err2[BITSTACK_MAX_LEVELS + 1];   /* tr(D H D^T) / tr(W H W^T), D = W - W_L; without moments
                                                   it equals rel_err2 */
    double out_norm2; /* tr(W H W^T) / count, or |W|^2 without moments: turns out_err2 into absolute */
} bitstack_coded;

/* One block's place in the order. */
typedef struct bitstack_order_entry {
    uint32_t matrix, level;
    float score;
} bitstack_order_entry;

/* The loss of the model with matrix i at level levels[i], for all i < matrices. Lower is better. NaN and
 * infinity are allowed and mean: very bad. Nonzero return cancels. */
typedef int (*bitstack_loss)(void *user, const uint32_t *levels, uint32_t matrices, double *loss);

typedef struct bitstack_writer bitstack_writer;

/* ===================================================================================== [API]
 * Threads: every function works on what it is given and shares nothing; one writer, one thread at a time. */

/* --- Linear algebra -------------------------------------------------------------------------- */

/* Full singular value decomposition of a (rows x cols, row-major, stride in elements) by one-sided
 * Jacobi rotations: a = u diag(s) vt with k = min(rows, cols), u rows x k, s descending, vt k x cols.
 * Any finite input; singular vectors of zero singular values are an orthonormal completion.
 * Accuracy: |a - u s vt| and the loss of orthogonality below 1e-13 * max(rows, cols) relative to |a|.
 * BITSTACK_ERROR_NUMERIC on NaN or infinity. Demmel and Veselic, Jacobi's method is more accurate than
 * QR, 1992. */
BITSTACK_API bitstack_result bitstack_svd(const double *a, uint32_t rows, uint32_t cols, size_t stride, double *u, double *s, double *vt);

/* Truncated: the best rank-k approximation of a (float), by block power (subspace) iteration with
 * oversampling, projected problem by Jacobi. u rows x k, s k, vt k x cols. Stops when the captured
 * energy settles: squared error within 0.1 % of the optimal rank-k one. If warm_vt (k x cols) is not
 * NULL the iteration starts there. Halko, Martinsson and Tropp, arXiv 0909.4061.
 * `threads` and `seed` as in bitstack_encode_options. */
BITSTACK_API bitstack_result bitstack_svd_truncated(const float *a, uint32_t rows, uint32_t cols, size_t stride, uint32_t k, const float *warm_vt, uint64_t seed, int threads, float *u, float *s, float *vt);

/* --- Calibration ----------------------------------------------------------------------------- */

/* Start gathering for inputs of `cols` channels; with_h zero keeps norms only. */
BITSTACK_API bitstack_result bitstack_moments_init(bitstack_moments *moments, uint32_t cols, int with_h);
/* Add one sample: `tokens` inputs of cols floats, `stride` floats apart. Inputs that are not finite are
 * skipped. */
BITSTACK_API void bitstack_moments_add(bitstack_moments *moments, const float *x, size_t tokens, size_t stride);
/* Add another's sums (same cols), for gathering in several threads. */
BITSTACK_API void bitstack_moments_merge(bitstack_moments *into, const bitstack_moments *from);
/* The paper's activation scale of channel j: mean over samples of per-sample norms, plus 1e-3. */
BITSTACK_API double bitstack_moments_scale(const bitstack_moments *moments, uint32_t j);
BITSTACK_API void bitstack_moments_free(bitstack_moments *moments);

/* --- Encoding -------------------------------------------------------------------------------- */

/* Encode w (rows x cols, row-major, stride in floats >= cols). moments (same cols) or NULL.
 * Working memory: about 4 times the matrix as float, plus 3 cols^2 doubles with moments.h.
 * BITSTACK_ERROR_NUMERIC if w holds NaN or infinity. *coded is written only on success. */
BITSTACK_API bitstack_result bitstack_encode_matrix(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols, size_t stride, const bitstack_moments *moments, const bitstack_encode_options *options);
BITSTACK_API void bitstack_coded_free(bitstack_coded *coded);
/* The matrix at `level` for the kernels of bitstack.h; planes must hold `level` entries and outlive the
 * view. */
BITSTACK_API bitstack_result bitstack_coded_view(const bitstack_coded *coded, uint32_t level, bitstack_plane *planes, bitstack_view *view);

/* Measure: squared error of w against the view, plain and weighted by moments->h (NULL: equal). */
BITSTACK_API bitstack_result bitstack_measure_error(const bitstack_view *view, const float *w, size_t stride, const bitstack_moments *moments, int threads, double *rel_err2, double *out_err2);

/* --- Order ----------------------------------------------------------------------------------- */

/* The paper's order: level by level; inside a level by ascending loss after adding that one block with
 * all other matrices one level lower; ties keep matrix order. Every matrix's level 1 comes first, in
 * matrix order. `loss` is called once per block of level 2 and up. levels[i] = blocks of matrix i.
 * NaN handling as the paper's code, with its intent where the code errs: NaN sorts behind the others.
 * out must hold the sum of levels. */
BITSTACK_API bitstack_result bitstack_order_paper(const uint32_t *levels, uint32_t matrices, bitstack_loss loss, void *user, bitstack_order_entry *out);
/* The paper's sort alone, of losses already measured: loss[(level - 2) * matrices + matrix]. */
BITSTACK_API bitstack_result bitstack_order_paper_sort(const uint32_t *levels, uint32_t matrices, const double *loss, bitstack_order_entry *out);
/* Greedy by predicted loss reduction a byte, levels mixed: matrix i at level l has predicted loss
 * loss_at[i][l] (l = 0..levels[i]) and its blocks live bytes bytes_at[i][l]; where the curve is not
 * convex several blocks are taken together (the steepest chord). */
BITSTACK_API bitstack_result bitstack_order_predicted(const uint32_t *levels, uint32_t matrices, const double *const *loss_at, const uint64_t *const *bytes_at, bitstack_order_entry *out);

/* --- Writing --------------------------------------------------------------------------------- */
#ifndef BITSTACK_NO_STDIO

/* Write a stack to `path`. Everything goes to `path`.part (blocks are spooled to `path`.spool as they
 * come, so memory stays at one matrix); finish puts it together, flushes it to the disk and renames
 * it. A process that dies, or a full disk, leaves what was at `path` before. */
BITSTACK_API bitstack_result bitstack_writer_open(bitstack_writer **out, const char *path, const bitstack_allocator *allocator, bitstack_error *error);
/* Metadata: `count` elements of a number type (native byte order), or strings. Copied at once. */
BITSTACK_API bitstack_result bitstack_writer_meta(bitstack_writer *writer, const char *key, bitstack_meta_type type, const void *elements, uint64_t count, int mandatory);
BITSTACK_API bitstack_result bitstack_writer_meta_u32(bitstack_writer *writer, const char *key, uint32_t value);
BITSTACK_API bitstack_result bitstack_writer_meta_f32(bitstack_writer *writer, const char *key, float value);
/* `bytes` NULL: the strings are NUL-terminated. */
BITSTACK_API bitstack_result bitstack_writer_meta_strings(bitstack_writer *writer, const char *key, const char *const *strings, const size_t *bytes, uint64_t count);
/* A resident tensor; `data` little-endian, copied to the spool at once. */
BITSTACK_API bitstack_result bitstack_writer_tensor(bitstack_writer *writer, const char *name, bitstack_type type, int dimensions, const uint64_t *shape, const void *data);
/* A coded matrix, copied to the spool at once. Its index is the number of matrices added before it.
 * sensitivity: predicted model loss per unit of out_err2 (1 where nothing is known): orders blocks. */
BITSTACK_API bitstack_result bitstack_writer_matrix(bitstack_writer *writer, const char *name, const bitstack_coded *coded, float sensitivity);
/* Complete the file with the blocks in the order given (entries: every block once, each matrix's levels
 * ascending), or with order NULL in the predicted order. Frees the writer, also on failure. */
BITSTACK_API bitstack_result bitstack_writer_finish(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries, bitstack_error *error);
/* Drop everything that was written. NULL is allowed. */
BITSTACK_API void bitstack_writer_abort(bitstack_writer *writer);
/* Write the stack at `from` again to `to` (may be the same path) with its blocks in another order. */
BITSTACK_API bitstack_result bitstack_reorder(const char *from, const char *to, const bitstack_order_entry *order, size_t entries, bitstack_error *error);
#endif

#ifdef __cplusplus
}
#endif
#endif /* BITSTACK_COMPRESS_H */

/* ==================================================================================== [STOP]
 * Stop here if you only want the API. */
#if defined(BITSTACK_COMPRESS_IMPLEMENTATION) && !defined(BITSTACK_COMPRESS_IMPLEMENTED_)
#define BITSTACK_COMPRESS_IMPLEMENTED_

/* ================================================================================== [MEMORY] */

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef BITSTACK_MALLOC
#define BITSTACK_MALLOC(bytes) malloc(bytes)
#define BITSTACK_FREE(pointer) free(pointer)
#endif

/* Helpers that a build may leave unused (options, BITSTACK_STATIC). */
#if defined(__GNUC__) || defined(__clang__)
#define BITSTACK_PRIVATE_ __attribute__((unused)) static
#else
#define BITSTACK_PRIVATE_ static
#endif

#define BITSTACK_MIN_(a, b) ((a) < (b) ? (a) : (b))
#define BITSTACK_MAX_(a, b) ((a) > (b) ? (a) : (b))

/* Room for count elements, uninitialised; NULL where the product overflows or memory is short. Never NULL
 * for zero elements. Free with bitstack_drop_. */
BITSTACK_PRIVATE_ void *bitstack_array_(uint64_t count, size_t element_bytes) {
    if (count > (SIZE_MAX - 64) / element_bytes) return NULL;
    return BITSTACK_MALLOC((size_t)count * element_bytes + (count == 0));
}

BITSTACK_PRIVATE_ void *bitstack_zeros_(uint64_t count, size_t element_bytes) {
    void *array = bitstack_array_(count, element_bytes);
    if (array) memset(array, 0, (size_t)count * element_bytes);
    return array;
}

BITSTACK_PRIVATE_ void bitstack_drop_(void *array) {
    if (array) BITSTACK_FREE(array);
}

/* splitmix64 (Steele, Lea and Flood, 2014). No libm: the same numbers everywhere. */
BITSTACK_PRIVATE_ uint64_t bitstack_random_(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Uniform in [-1, 1). */
BITSTACK_PRIVATE_ double bitstack_random_signed_(uint64_t *state) {
    return (double)(bitstack_random_(state) >> 11) / 4503599627370496.0 - 1.0;
}

/* ================================================================================= [THREADS] */

#ifndef BITSTACK_NO_THREADS
#include <pthread.h>
#endif

#define BITSTACK_MAX_WORKERS_ 64

/* `worker` < bitstack_workers_(threads, tasks) tells concurrent tasks apart: for scratch, never for results. */
typedef void (*bitstack_task_)(void *arg, uint32_t task, uint32_t worker);

BITSTACK_PRIVATE_ uint32_t bitstack_workers_(int threads, uint64_t tasks) {
#ifdef BITSTACK_NO_THREADS
    (void)threads, (void)tasks;
    return 1;
#else
    uint64_t workers = threads < 1 ? 1 : (uint64_t)threads;
    workers = BITSTACK_MIN_(workers, BITSTACK_MAX_(tasks, 1));
    return (uint32_t)BITSTACK_MIN_(workers, BITSTACK_MAX_WORKERS_);
#endif
}

#ifndef BITSTACK_NO_THREADS
typedef struct bitstack_job_ {
    pthread_mutex_t lock;
    uint32_t next, tasks;
    bitstack_task_ run;
    void *arg;
} bitstack_job_;

typedef struct bitstack_worker_ {
    bitstack_job_ *job;
    uint32_t index;
} bitstack_worker_;

BITSTACK_PRIVATE_ void *bitstack_work_(void *arg) {
    bitstack_worker_ *worker = (bitstack_worker_ *)arg;
    bitstack_job_ *job = worker->job;
    for (;;) {
        pthread_mutex_lock(&job->lock);
        uint32_t task = job->next;
        if (task < job->tasks) job->next++;
        pthread_mutex_unlock(&job->lock);
        if (task >= job->tasks) return NULL;
        job->run(job->arg, task, worker->index);
    }
}
#endif

/* Runs task(arg, t, worker) for t = 0..tasks-1, each once, in any order, the calling thread taking part.
 * Tasks write to places of their own and reductions are made afterwards in task order, so results do not
 * depend on the number of threads. A thread that cannot be started is done without. */
BITSTACK_PRIVATE_ void bitstack_parallel_(int threads, uint32_t tasks, bitstack_task_ task, void *arg) {
    uint32_t workers = bitstack_workers_(threads, tasks);
#ifndef BITSTACK_NO_THREADS
    if (workers > 1) {
        bitstack_job_ job;
        bitstack_worker_ worker[BITSTACK_MAX_WORKERS_];
        pthread_t thread[BITSTACK_MAX_WORKERS_];
        uint32_t started = 1;
        if (pthread_mutex_init(&job.lock, NULL) == 0) {
            job.next = 0, job.tasks = tasks, job.run = task, job.arg = arg;
            for (uint32_t i = 0; i < workers; i++) worker[i].job = &job, worker[i].index = i;
            while (started < workers && !pthread_create(&thread[started], NULL, bitstack_work_, &worker[started]))
                started++;
            bitstack_work_(&worker[0]);
            while (started > 1) pthread_join(thread[--started], NULL);
            pthread_mutex_destroy(&job.lock);
            return;
        }
    }
#endif
    (void)workers;
    for (uint32_t t = 0; t < tasks; t++) task(arg, t, 0);
}

/* ================================================================================== [LINALG]
 * Matrix products by a register tile of 6 rows x 2 vectors over panels of B (Goto and van de Geijn, Anatomy
 * of high-performance matrix multiplication, 2008); A is read where it lies. Blocked factorisations on top.
 * The AVX2 tile fuses multiply and add, so last bits differ between CPUs with and without it. */

#if !defined(BITSTACK_NO_SIMD) && !defined(BITSTACK_NO_AVX2) && defined(__GNUC__) && \
    (defined(__x86_64__) || defined(__i386__))
#define BITSTACK_LINALG_AVX2_
#include <immintrin.h>
#endif

#define BITSTACK_TILE_ 6     /* rows of the register tile */
#define BITSTACK_NB_ 192     /* block of the factorisations: a multiple of 6 and 16 */
#define BITSTACK_PANEL32_ 16 /* columns of a packed panel, float */
#define BITSTACK_PANEL64_ 8  /* double */
#define BITSTACK_PACK_ (256 * 256) /* elements of packing scratch that a product needs */

/* c (rows x panel, row stride crs) += a (rows x k) times a packed panel (k x panel). */
#define BITSTACK_TILE_SCALAR_(suffix, real, panel)                                                        \
    BITSTACK_PRIVATE_ void bitstack_tile_scalar_##suffix##_(size_t rows, size_t k, const real *a, size_t ars, \
                                                            size_t acs, const real *b, real *c, size_t crs) { \
        for (size_t i = 0; i < rows; i++) {                                                               \
            real sum[panel] = {0};                                                                        \
            for (size_t p = 0; p < k; p++) {                                                              \
                real t = a[i * ars + p * acs];                                                            \
                for (size_t j = 0; j < panel; j++) sum[j] += t * b[p * panel + j];                        \
            }                                                                                             \
            for (size_t j = 0; j < panel; j++) c[i * crs + j] += sum[j];                                  \
        }                                                                                                 \
    }
BITSTACK_TILE_SCALAR_(f32, float, BITSTACK_PANEL32_)
BITSTACK_TILE_SCALAR_(f64, double, BITSTACK_PANEL64_)

#ifdef BITSTACK_LINALG_AVX2_
/* Six rows at once: twelve accumulators, two vectors of B, one broadcast of A. */
#define BITSTACK_TILE_AVX2_(suffix, real, vector, width, p_, load, store, zero, set1, fma, add)                \
    __attribute__((target("avx2,fma"))) BITSTACK_PRIVATE_ void bitstack_tile_avx2_##suffix##_(                 \
        size_t k, const real *a, size_t ars, size_t acs, const real *b, real *c, size_t crs) {                 \
        vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero(), s4 = zero(), s5 = zero();                   \
        vector r0 = zero(), r1 = zero(), r2 = zero(), r3 = zero(), r4 = zero(), r5 = zero();                   \
        const real *a3 = a + 3 * ars;                                                                          \
        for (size_t p = 0; p < k; p++, a += acs, a3 += acs, b += 2 * width) {                                  \
            vector x = load(b), y = load(b + width), t;                                                        \
            t = set1(a[0]), s0 = fma(t, x, s0), r0 = fma(t, y, r0);                                            \
            t = set1(a[ars]), s1 = fma(t, x, s1), r1 = fma(t, y, r1);                                          \
            t = set1(a[2 * ars]), s2 = fma(t, x, s2), r2 = fma(t, y, r2);                                      \
            t = set1(a3[0]), s3 = fma(t, x, s3), r3 = fma(t, y, r3);                                           \
            t = set1(a3[ars]), s4 = fma(t, x, s4), r4 = fma(t, y, r4);                                         \
            t = set1(a3[2 * ars]), s5 = fma(t, x, s5), r5 = fma(t, y, r5);                                     \
        }                                                                                                      \
        store(c, add(load(c), s0)), store(c + width, add(load(c + width), r0)), c += crs;                      \
        store(c, add(load(c), s1)), store(c + width, add(load(c + width), r1)), c += crs;                      \
        store(c, add(load(c), s2)), store(c + width, add(load(c + width), r2)), c += crs;                      \
        store(c, add(load(c), s3)), store(c + width, add(load(c + width), r3)), c += crs;                      \
        store(c, add(load(c), s4)), store(c + width, add(load(c + width), r4)), c += crs;                      \
        store(c, add(load(c), s5)), store(c + width, add(load(c + width), r5));                                \
    }
BITSTACK_TILE_AVX2_(f32, float, __m256, 8, ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_set1_ps,
                    _mm256_fmadd_ps, _mm256_add_ps)
BITSTACK_TILE_AVX2_(f64, double, __m256d, 4, pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_setzero_pd,
                    _mm256_set1_pd, _mm256_fmadd_pd, _mm256_add_pd)
#endif

/* The fast tile of this CPU, or NULL; the compiler's own check covers the OS state as well. */
#define BITSTACK_TILE_PICK_(suffix, real)                                                                      \
    typedef void (*bitstack_tile_##suffix##_)(size_t k, const real *a, size_t ars, size_t acs, const real *b,  \
                                              real *c, size_t crs);                                            \
    BITSTACK_PRIVATE_ bitstack_tile_##suffix##_ bitstack_tile_pick_##suffix##_(void) {                         \
        return BITSTACK_TILE_BEST_(suffix);                                                                    \
    }
#ifdef BITSTACK_LINALG_AVX2_
#define BITSTACK_TILE_BEST_(suffix) \
    __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? bitstack_tile_avx2_##suffix##_ : NULL
#else
#define BITSTACK_TILE_BEST_(suffix) NULL
#endif
BITSTACK_TILE_PICK_(f32, float)
BITSTACK_TILE_PICK_(f64, double)

/* C += alpha A B. C is m x n with row stride crs; A is m x k and B k x n, element (i, j) of each at
 * [i * rs + j * cs], so that either may be transposed. pack: BITSTACK_PACK_ elements of scratch. */
#define BITSTACK_GEMM_(suffix, real, panel)                                                                    \
    BITSTACK_PRIVATE_ void bitstack_gemm_##suffix##_(size_t m, size_t n, size_t k, real alpha, const real *a,  \
                                                     size_t ars, size_t acs, const real *b, size_t brs,        \
                                                     size_t bcs, real *c, size_t crs, real *pack) {            \
        const size_t kc = 256, nc = 256;                                                                       \
        bitstack_tile_##suffix##_ fast = bitstack_tile_pick_##suffix##_();                                     \
        for (size_t j0 = 0; j0 < n; j0 += nc)                                                                  \
            for (size_t p0 = 0; p0 < k; p0 += kc) {                                                            \
                size_t nn = BITSTACK_MIN_(nc, n - j0), kk = BITSTACK_MIN_(kc, k - p0);                         \
                for (size_t j = 0; j < nn; j += panel) {                                                       \
                    const real *from = b + p0 * brs + (j0 + j) * bcs;                                          \
                    real *to = pack + j * kk;                                                                  \
                    size_t w = BITSTACK_MIN_((size_t)panel, nn - j);                                           \
                    for (size_t p = 0; p < kk; p++)                                                            \
                        for (size_t q = 0; q < panel; q++)                                                     \
                            to[p * panel + q] = q < w ? alpha * from[p * brs + q * bcs] : 0;                   \
                }                                                                                              \
                for (size_t i = 0; i < m; i += BITSTACK_TILE_)                                                 \
                    for (size_t j = 0; j < nn; j += panel) {                                                   \
                        size_t h = BITSTACK_MIN_((size_t)BITSTACK_TILE_, m - i);                               \
                        size_t w = BITSTACK_MIN_((size_t)panel, nn - j), rs = w < panel ? panel : crs;         \
                        const real *from = a + i * ars + p0 * acs;                                             \
                        real edge[BITSTACK_TILE_ * panel] = {0}, *at = c + i * crs + j0 + j;                   \
                        real *to = w < panel ? edge : at;                                                      \
                        if (fast && h == BITSTACK_TILE_) fast(kk, from, ars, acs, pack + j * kk, to, rs);      \
                        else bitstack_tile_scalar_##suffix##_(h, kk, from, ars, acs, pack + j * kk, to, rs);   \
                        if (w < panel)                                                                         \
                            for (size_t r = 0; r < h; r++)                                                     \
                                for (size_t q = 0; q < w; q++) at[r * crs + q] += edge[r * panel + q];         \
                    }                                                                                          \
            }                                                                                                  \
    }
BITSTACK_GEMM_(f32, float, BITSTACK_PANEL32_)
BITSTACK_GEMM_(f64, double, BITSTACK_PANEL64_)

/* Cholesky factor of a small symmetric matrix (row-major, lower triangle read and replaced): a = L L^T.
 * Returns 0 where it is not positive definite. */
BITSTACK_PRIVATE_ int bitstack_cholesky_small_(double *a, size_t n, size_t stride) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            const double *x = a + i * stride, *y = a + j * stride;
            double sum = x[j];
            for (size_t p = 0; p < j; p++) sum -= x[p] * y[p];
            if (i > j) a[i * stride + j] = sum / y[j];
            else if (!(sum > 0 && sum <= DBL_MAX)) return 0;
            else a[i * stride + j] = sqrt(sum);
        }
    return 1;
}

/* x := (L L^T)^-1 x. */
BITSTACK_PRIVATE_ void bitstack_cholesky_solve_(const double *l, size_t n, size_t stride, double *x) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) x[i] -= l[i * stride + j] * x[j];
        x[i] /= l[i * stride + i];
    }
    for (size_t i = n; i-- > 0;) {
        x[i] /= l[i * stride + i];
        for (size_t j = 0; j < i; j++) x[j] -= l[i * stride + j] * x[i];
    }
}

/* inverse (n x n, row stride BITSTACK_NB_) = L^-1, n <= BITSTACK_NB_; zeros above the diagonal. */
BITSTACK_PRIVATE_ void bitstack_triangle_inverse_small_(const double *l, size_t n, size_t stride, double *inverse) {
    const size_t ld = BITSTACK_NB_;
    for (size_t i = 0; i < n; i++) {
        double *row = inverse + i * ld, pivot = 1 / l[i * stride + i];
        memset(row, 0, n * sizeof *row);
        for (size_t p = 0; p < i; p++) {
            double t = -pivot * l[i * stride + p];
            for (size_t j = 0; j <= p; j++) row[j] += t * inverse[p * ld + j];
        }
        row[i] = pivot;
    }
}

/* What a step of the blocked routines shares: a (n x n, lower) at block k, the inverse of the diagonal block
 * there, a block row of scratch, packing scratch a worker. */
typedef struct bitstack_blocked_ {
    double *a, *inverse, *row, *pack;
    size_t n, k;
} bitstack_blocked_;

BITSTACK_PRIVATE_ int bitstack_blocked_init_(bitstack_blocked_ *s, double *a, size_t n, int threads) {
    const size_t nb = BITSTACK_NB_;
    uint32_t workers = bitstack_workers_(threads, n / nb + 1);
    s->a = a, s->n = n, s->k = 0;
    s->inverse = (double *)bitstack_array_(nb * nb, sizeof(double));
    s->row = (double *)bitstack_array_((uint64_t)nb * (n + nb), sizeof(double));
    s->pack = (double *)bitstack_array_((uint64_t)workers * BITSTACK_PACK_, sizeof(double));
    return s->inverse && s->row && s->pack;
}

BITSTACK_PRIVATE_ void bitstack_blocked_free_(bitstack_blocked_ *s) {
    bitstack_drop_(s->inverse), bitstack_drop_(s->row), bitstack_drop_(s->pack);
}

/* Panel: one block below the diagonal becomes A21 L11^-T. */
BITSTACK_PRIVATE_ void bitstack_cholesky_panel_(void *arg, uint32_t task, uint32_t worker) {
    bitstack_blocked_ *s = (bitstack_blocked_ *)arg;
    const size_t nb = BITSTACK_NB_, n = s->n, i0 = s->k + (task + 1) * nb, h = BITSTACK_MIN_(nb, n - i0);
    double *from = s->a + i0 * n + s->k, *copy = s->row + task * nb * nb;
    for (size_t i = 0; i < h; i++) {
        memcpy(copy + i * nb, from + i * n, nb * sizeof *copy);
        memset(from + i * n, 0, nb * sizeof *copy);
    }
    bitstack_gemm_f64_(h, nb, nb, 1, copy, nb, 1, s->inverse, 1, nb, from, n,
                       s->pack + worker * (size_t)BITSTACK_PACK_);
}

/* Trailing update of one block row up to the diagonal: A22 -= L21 L21^T. */
BITSTACK_PRIVATE_ void bitstack_cholesky_update_(void *arg, uint32_t task, uint32_t worker) {
    bitstack_blocked_ *s = (bitstack_blocked_ *)arg;
    const size_t nb = BITSTACK_NB_, n = s->n, k = s->k, last = (n - k - 1) / nb;
    const size_t i0 = k + (last - task) * nb, h = BITSTACK_MIN_(nb, n - i0); /* long rows first */
    for (size_t j0 = k + nb; j0 <= i0; j0 += nb)
        bitstack_gemm_f64_(h, BITSTACK_MIN_(nb, n - j0), nb, -1, s->a + i0 * n + k, n, 1, s->a + j0 * n + k, 1, n,
                           s->a + i0 * n + j0, n, s->pack + worker * (size_t)BITSTACK_PACK_);
}

/* Cholesky factor in place: a (n x n, row-major, lower triangle read) becomes L, a = L L^T; what is above the
 * diagonal is left as it was, except inside diagonal blocks. NUMERIC where a is not positive definite. */
BITSTACK_PRIVATE_ bitstack_result bitstack_cholesky_(double *a, size_t n, int threads) {
    const size_t nb = BITSTACK_NB_;
    if (n <= nb) return bitstack_cholesky_small_(a, n, n) ? BITSTACK_OK : BITSTACK_ERROR_NUMERIC;
    bitstack_blocked_ s;
    bitstack_result result = BITSTACK_OK;
    if (!bitstack_blocked_init_(&s, a, n, threads)) result = BITSTACK_ERROR_MEMORY;
    for (; result == BITSTACK_OK && s.k < n; s.k += nb) {
        size_t h = BITSTACK_MIN_(nb, n - s.k);
        uint32_t below = (uint32_t)((n - s.k - 1) / nb);
        if (!bitstack_cholesky_small_(a + s.k * n + s.k, h, n)) result = BITSTACK_ERROR_NUMERIC;
        else if (below) {
            bitstack_triangle_inverse_small_(a + s.k * n + s.k, h, n, s.inverse);
            bitstack_parallel_(threads, below, bitstack_cholesky_panel_, &s);
            bitstack_parallel_(threads, below, bitstack_cholesky_update_, &s);
        }
    }
    bitstack_blocked_free_(&s);
    return result;
}

/* Row block k of L^-1 is -L_kk^-1 (L_k X), X the rows found so far. First L_k X into scratch, a block column a
 * task, then the rest over L_k. */
BITSTACK_PRIVATE_ void bitstack_inverse_gather_(void *arg, uint32_t task, uint32_t worker) {
    bitstack_blocked_ *s = (bitstack_blocked_ *)arg;
    const size_t nb = BITSTACK_NB_, n = s->n, k = s->k, j0 = task * nb, h = BITSTACK_MIN_(nb, n - k);
    double *to = s->row + task * nb * nb;
    memset(to, 0, h * nb * sizeof *to);
    bitstack_gemm_f64_(h, nb, k - j0, 1, s->a + k * n + j0, n, 1, s->a + j0 * n + j0, n, 1, to, nb,
                       s->pack + worker * (size_t)BITSTACK_PACK_);
}

BITSTACK_PRIVATE_ void bitstack_inverse_scale_(void *arg, uint32_t task, uint32_t worker) {
    bitstack_blocked_ *s = (bitstack_blocked_ *)arg;
    const size_t nb = BITSTACK_NB_, n = s->n, h = BITSTACK_MIN_(nb, n - s->k);
    double *to = s->a + s->k * n + task * nb;
    for (size_t i = 0; i < h; i++) memset(to + i * n, 0, nb * sizeof *to);
    bitstack_gemm_f64_(h, nb, h, -1, s->inverse, nb, 1, s->row + task * nb * nb, nb, 1, to, n,
                       s->pack + worker * (size_t)BITSTACK_PACK_);
}

/* L (n x n, row-major, lower) becomes L^-1 in place; the upper triangle becomes zero. */
BITSTACK_PRIVATE_ bitstack_result bitstack_triangle_inverse_(double *l, size_t n, int threads) {
    const size_t nb = BITSTACK_NB_;
    bitstack_blocked_ s;
    bitstack_result result = bitstack_blocked_init_(&s, l, n, threads) ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    for (; result == BITSTACK_OK && s.k < n; s.k += nb) {
        size_t h = BITSTACK_MIN_(nb, n - s.k);
        bitstack_triangle_inverse_small_(l + s.k * n + s.k, h, n, s.inverse);
        bitstack_parallel_(threads, (uint32_t)(s.k / nb), bitstack_inverse_gather_, &s);
        bitstack_parallel_(threads, (uint32_t)(s.k / nb), bitstack_inverse_scale_, &s);
        for (size_t i = 0; i < h; i++) {
            double *row = l + (s.k + i) * n + s.k;
            memcpy(row, s.inverse + i * nb, h * sizeof *row);
            memset(row + h, 0, (n - s.k - h) * sizeof *row);
        }
    }
    bitstack_blocked_free_(&s);
    return result;
}

/* h (n x n, symmetric, full) becomes the upper triangular U with h^-1 = U^T U: what error feedback walks along.
 * With J the reversal of indices and J h J = L L^T, U = J L^-1 J: a third of the work of inverting first. */
BITSTACK_PRIVATE_ bitstack_result bitstack_inverse_factor_(double *h, size_t n, int threads) {
    bitstack_result result = BITSTACK_OK;
    for (int pass = 0; pass < 2 && result == BITSTACK_OK; pass++) {
        for (size_t i = 0, j = n * n - 1; i < j; i++, j--) {
            double t = h[i];
            h[i] = h[j], h[j] = t;
        }
        if (pass == 0) result = bitstack_cholesky_(h, n, threads);
        if (pass == 0 && result == BITSTACK_OK) result = bitstack_triangle_inverse_(h, n, threads);
    }
    return result;
}

/* ===================================================================================== [SVD] */
/* ================================================================================= [MOMENTS] */
/* =================================================================================== [CODED] */
/* ==================================================================================== [IABS] */
/* ================================================================================== [NESTED] */
/* =================================================================================== [ORDER] */
/* ================================================================================== [WRITER] */

#endif /* BITSTACK_COMPRESS_IMPLEMENTATION */
