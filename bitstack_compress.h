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
/* ================================================================================== [WRITER]
 * Payloads go to a spool file as they come, in the order of arrival, with their checksums and sizes kept
 * in memory; only finish knows the order of the blocks. Reordering is the same assembly with an existing
 * stack in the spool's place. */
#ifndef BITSTACK_NO_STDIO
#ifndef _WIN32
#include <unistd.h> /* fsync where there is one */
#endif

/* A growing byte buffer. */
typedef struct bitstack_bytes_ {
    unsigned char *data;
    size_t used, room;
} bitstack_bytes_;

typedef struct bitstack_written_block_ {
    uint64_t at, bytes; /* in the spool */
    uint64_t checksums[BITSTACK_PARTS_];
    float rel_err2, out_err2, score;
} bitstack_written_block_;

typedef struct bitstack_written_matrix_ {
    bitstack_shape shape;
    float sensitivity;
    size_t name, name_bytes;
    bitstack_written_block_ *blocks; /* [levels] */
    double out_norm2;
} bitstack_written_matrix_;

typedef struct bitstack_written_tensor_ {
    bitstack_type type;
    int dimensions;
    uint64_t shape[4], at, bytes, checksum;
    size_t name, name_bytes;
} bitstack_written_tensor_;

struct bitstack_writer {
    bitstack_allocator allocator;
    char *path, *part_path, *spool_path; /* one allocation, at path */
    size_t path_bytes;
    FILE *spool;
    uint64_t spooled;
    bitstack_result failed; /* the first failure: finish refuses after it */
    bitstack_bytes_ meta, names, tensors, matrices; /* the last two: arrays of the structs above */
    uint32_t metas;
};

static bitstack_result bitstack_grow_(bitstack_writer *writer, bitstack_bytes_ *buffer, size_t bytes) {
    size_t room = buffer->room ? buffer->room : 1024;
    unsigned char *data;
    if (bytes <= buffer->room - buffer->used) return BITSTACK_OK;
    if (bytes > SIZE_MAX / 4 - buffer->used) return writer->failed = BITSTACK_ERROR_MEMORY;
    while (room - buffer->used < bytes) room *= 2;
    data = (unsigned char *)writer->allocator.allocate(writer->allocator.user, room);
    if (!data) return writer->failed = BITSTACK_ERROR_MEMORY;
    if (buffer->used) memcpy(data, buffer->data, buffer->used);
    if (buffer->data) writer->allocator.release(writer->allocator.user, buffer->data, buffer->room);
    buffer->data = data;
    buffer->room = room;
    return BITSTACK_OK;
}
/* Appends bytes (or zeros, from NULL). */
static bitstack_result bitstack_append_(bitstack_writer *writer, bitstack_bytes_ *buffer, const void *from, size_t bytes) {
    bitstack_result result = bitstack_grow_(writer, buffer, bytes);
    if (result != BITSTACK_OK) return result;
    if (from && bytes) memcpy(buffer->data + buffer->used, from, bytes);
    else if (bytes) memset(buffer->data + buffer->used, 0, bytes);
    buffer->used += bytes;
    return BITSTACK_OK;
}
static void bitstack_store32_(unsigned char *to, uint32_t value) {
    int i;
    for (i = 0; i < 4; i++) to[i] = (unsigned char)(value >> 8 * i);
}
static void bitstack_store64_(unsigned char *to, uint64_t value) {
    bitstack_store32_(to, (uint32_t)value);
    bitstack_store32_(to + 4, (uint32_t)(value >> 32));
}
static bitstack_written_matrix_ *bitstack_written_(const bitstack_writer *writer, uint32_t i) {
    return (bitstack_written_matrix_ *)(void *)writer->matrices.data + i;
}
static uint32_t bitstack_written_count_(const bitstack_writer *writer) {
    return (uint32_t)(writer->matrices.used / sizeof(bitstack_written_matrix_));
}

static void bitstack_writer_free_(bitstack_writer *writer) {
    bitstack_bytes_ *buffers[4];
    uint32_t i;
    int b;
    buffers[0] = &writer->meta, buffers[1] = &writer->names;
    buffers[2] = &writer->tensors, buffers[3] = &writer->matrices;
    for (i = 0; i < bitstack_written_count_(writer); i++) {
        bitstack_written_matrix_ *m = bitstack_written_(writer, i);
        if (m->blocks) writer->allocator.release(writer->allocator.user, m->blocks, m->shape.levels * sizeof *m->blocks);
    }
    for (b = 0; b < 4; b++)
        if (buffers[b]->data) writer->allocator.release(writer->allocator.user, buffers[b]->data, buffers[b]->room);
    if (writer->spool) fclose(writer->spool);
    if (writer->spool_path) remove(writer->spool_path);
    if (writer->path) writer->allocator.release(writer->allocator.user, writer->path, writer->path_bytes);
    writer->allocator.release(writer->allocator.user, writer, sizeof *writer);
}

/* The handle without its spool. */
static bitstack_writer *bitstack_writer_new_(const char *path, const bitstack_allocator *allocator, bitstack_error *error) {
    bitstack_allocator with;
    bitstack_writer *writer;
    size_t length = strlen(path);
    memset(&with, 0, sizeof with);
    if (allocator) with = *allocator;
    if (!bitstack_allocator_(&with)) {
        bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "an allocator needs both functions", NULL, 0);
        return NULL;
    }
    writer = (bitstack_writer *)with.allocate(with.user, sizeof *writer);
    if (!writer) {
        bitstack_fail_(error, BITSTACK_ERROR_MEMORY, 0, "no memory for the writer", NULL, 0);
        return NULL;
    }
    memset(writer, 0, sizeof *writer);
    writer->allocator = with;
    writer->path_bytes = 3 * length + 24;
    writer->path = (char *)with.allocate(with.user, writer->path_bytes);
    if (!writer->path) {
        bitstack_writer_free_(writer);
        bitstack_fail_(error, BITSTACK_ERROR_MEMORY, 0, "no memory for the writer", NULL, 0);
        return NULL;
    }
    writer->part_path = writer->path + length + 1;
    memcpy(writer->path, path, length + 1);
    memcpy(writer->part_path, path, length);
    memcpy(writer->part_path + length, ".part", 6);
    return writer;
}

BITSTACK_API bitstack_result bitstack_writer_open(bitstack_writer **out, const char *path, const bitstack_allocator *allocator,
                                                  bitstack_error *error) {
    bitstack_writer *writer;
    bitstack_error local;
    size_t length;
    if (!out || !path) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no output or no path", NULL, 0);
    if (!error) error = &local;
    writer = bitstack_writer_new_(path, allocator, error);
    if (!writer) return error->code;
    length = strlen(path);
    writer->spool_path = writer->part_path + length + 6;
    memcpy(writer->spool_path, path, length);
    memcpy(writer->spool_path + length, ".spool", 7);
    writer->spool = fopen(writer->spool_path, "w+b");
    if (!writer->spool) {
        bitstack_fail_(error, BITSTACK_ERROR_IO, 0, "cannot create '%'", writer->spool_path, length + 6);
        bitstack_writer_free_(writer);
        return BITSTACK_ERROR_IO;
    }
    *out = writer;
    return BITSTACK_OK;
}

BITSTACK_API void bitstack_writer_abort(bitstack_writer *writer) {
    if (writer) bitstack_writer_free_(writer);
}

/* Starts a metadata entry whose value, of `bytes` bytes, the caller appends. */
static bitstack_result bitstack_meta_entry_(bitstack_writer *writer, const char *key, bitstack_meta_type type, uint64_t count,
                                            uint64_t bytes, int mandatory) {
    unsigned char head[BITSTACK_LEAST_META_];
    size_t length = strlen(key);
    if (length < 1 || length > 65535) return BITSTACK_ERROR_ARGUMENT;
    bitstack_store32_(head, (uint32_t)length);
    bitstack_store32_(head + 4, (uint32_t)type | (mandatory ? 1u << 16 : 0u));
    bitstack_store64_(head + 8, count);
    bitstack_store64_(head + 16, bytes);
    /* Room for all of it first: a failure later would leave half an entry. */
    if (bytes > SIZE_MAX / 4 || bitstack_grow_(writer, &writer->meta, sizeof head + length + (size_t)bytes + 16) != BITSTACK_OK)
        return writer->failed = BITSTACK_ERROR_MEMORY;
    writer->metas++;
    bitstack_append_(writer, &writer->meta, head, sizeof head);
    bitstack_append_(writer, &writer->meta, key, length);
    return bitstack_append_(writer, &writer->meta, NULL, (size_t)(bitstack_pad_(length, 8) - length));
}
static bitstack_result bitstack_meta_pad_(bitstack_writer *writer) {
    return bitstack_append_(writer, &writer->meta, NULL, (size_t)(bitstack_pad_(writer->meta.used, 8) - writer->meta.used));
}

BITSTACK_API bitstack_result bitstack_writer_meta(bitstack_writer *writer, const char *key, bitstack_meta_type type,
                                                  const void *elements, uint64_t count, int mandatory) {
    uint64_t size = bitstack_meta_size_((uint32_t)type), bytes, i;
    bitstack_result result;
    if (type == BITSTACK_META_STRING || size == 0 || (!elements && count) || !bitstack_mul_(count, size, &bytes))
        return BITSTACK_ERROR_ARGUMENT;
    result = bitstack_meta_entry_(writer, key, type, count, bytes, mandatory);
    for (i = 0; i < count && result == BITSTACK_OK; i++) {
        const unsigned char *from = (const unsigned char *)elements + i * size;
        unsigned char to[8];
        uint32_t four = 0;
        uint64_t eight = 0;
        if (size == 8) memcpy(&eight, from, 8);
        else if (size == 4) memcpy(&four, from, 4), eight = four;
        else eight = *from;
        bitstack_store64_(to, eight);
        result = bitstack_append_(writer, &writer->meta, to, (size_t)size);
    }
    return result == BITSTACK_OK ? bitstack_meta_pad_(writer) : result;
}
BITSTACK_API bitstack_result bitstack_writer_meta_u32(bitstack_writer *writer, const char *key, uint32_t value) {
    return bitstack_writer_meta(writer, key, BITSTACK_META_U32, &value, 1, 0);
}
BITSTACK_API bitstack_result bitstack_writer_meta_f32(bitstack_writer *writer, const char *key, float value) {
    return bitstack_writer_meta(writer, key, BITSTACK_META_F32, &value, 1, 0);
}
BITSTACK_API bitstack_result bitstack_writer_meta_strings(bitstack_writer *writer, const char *key, const char *const *strings,
                                                          const size_t *bytes, uint64_t count) {
    uint64_t total = 0, i;
    bitstack_result result;
    for (i = 0; i < count; i++) {
        size_t length = bytes ? bytes[i] : strlen(strings[i]);
        if (length > UINT32_MAX) return BITSTACK_ERROR_ARGUMENT;
        total += 4 + (uint64_t)length;
    }
    result = bitstack_meta_entry_(writer, key, BITSTACK_META_STRING, count, total, 0);
    for (i = 0; i < count && result == BITSTACK_OK; i++) {
        size_t length = bytes ? bytes[i] : strlen(strings[i]);
        unsigned char head[4];
        bitstack_store32_(head, (uint32_t)length);
        bitstack_append_(writer, &writer->meta, head, 4);
        result = bitstack_append_(writer, &writer->meta, strings[i], length);
    }
    return result == BITSTACK_OK ? bitstack_meta_pad_(writer) : result;
}

static bitstack_result bitstack_spool_(bitstack_writer *writer, const void *data, uint64_t bytes) {
    if (bytes > SIZE_MAX || (bytes && fwrite(data, 1, (size_t)bytes, writer->spool) != bytes))
        return writer->failed = BITSTACK_ERROR_IO;
    writer->spooled += bytes;
    return BITSTACK_OK;
}
static bitstack_result bitstack_name_add_(bitstack_writer *writer, const char *name, size_t length, size_t *at, size_t *bytes) {
    if (length < 1 || length > 65535) return BITSTACK_ERROR_ARGUMENT;
    *at = writer->names.used;
    *bytes = length;
    return bitstack_append_(writer, &writer->names, name, length);
}

BITSTACK_API bitstack_result bitstack_writer_tensor(bitstack_writer *writer, const char *name, bitstack_type type, int dimensions,
                                                    const uint64_t *shape, const void *data) {
    bitstack_written_tensor_ tensor;
    bitstack_result result;
    int d;
    memset(&tensor, 0, sizeof tensor);
    tensor.type = type;
    tensor.dimensions = dimensions;
    tensor.bytes = bitstack_tensor_size_((uint32_t)type);
    if (tensor.bytes == 0 || dimensions < 0 || dimensions > 4) return BITSTACK_ERROR_ARGUMENT;
    for (d = 0; d < 4; d++) {
        tensor.shape[d] = d < dimensions ? shape[d] : 1;
        if (!bitstack_mul_(tensor.bytes, tensor.shape[d], &tensor.bytes)) return BITSTACK_ERROR_ARGUMENT;
    }
    if (tensor.bytes > SIZE_MAX || (tensor.bytes && !data)) return BITSTACK_ERROR_ARGUMENT;
    tensor.at = writer->spooled;
    tensor.checksum = bitstack_checksum(data, (size_t)tensor.bytes);
    result = bitstack_name_add_(writer, name, strlen(name), &tensor.name, &tensor.name_bytes);
    if (result == BITSTACK_OK) result = bitstack_spool_(writer, data, tensor.bytes);
    if (result == BITSTACK_OK) result = bitstack_append_(writer, &writer->tensors, &tensor, sizeof tensor);
    return result;
}

/* A matrix's entry with room for its blocks. */
static bitstack_result bitstack_matrix_add_(bitstack_writer *writer, const char *name, size_t length, const bitstack_shape *shape,
                                            float sensitivity, bitstack_written_matrix_ **out) {
    bitstack_written_matrix_ matrix;
    size_t bytes = (shape->levels ? shape->levels : 1) * sizeof *matrix.blocks;
    bitstack_result result;
    memset(&matrix, 0, sizeof matrix);
    matrix.shape = *shape;
    matrix.sensitivity = sensitivity;
    result = bitstack_name_add_(writer, name, length, &matrix.name, &matrix.name_bytes);
    if (result != BITSTACK_OK) return result;
    result = bitstack_grow_(writer, &writer->matrices, sizeof matrix);
    if (result != BITSTACK_OK) return result;
    if (shape->levels) {
        matrix.blocks = (bitstack_written_block_ *)writer->allocator.allocate(writer->allocator.user, bytes);
        if (!matrix.blocks) return writer->failed = BITSTACK_ERROR_MEMORY;
        memset(matrix.blocks, 0, bytes);
    }
    bitstack_append_(writer, &writer->matrices, &matrix, sizeof matrix);
    *out = bitstack_written_(writer, bitstack_written_count_(writer) - 1);
    return BITSTACK_OK;
}

BITSTACK_API bitstack_result bitstack_writer_matrix(bitstack_writer *writer, const char *name, const bitstack_coded *coded, float sensitivity) {
    const bitstack_shape *shape = &coded->shape;
    bitstack_written_matrix_ *matrix;
    bitstack_result result;
    uint32_t level;
    int part;
    if (!bitstack_shape_valid(shape) || !(sensitivity >= 0)) return BITSTACK_ERROR_ARGUMENT;
    for (level = 1; level <= shape->levels; level++)
        if (!coded->blocks[level - 1] || bitstack_block_bytes(shape, level) > SIZE_MAX) return BITSTACK_ERROR_ARGUMENT;
    result = bitstack_matrix_add_(writer, name, strlen(name), shape, sensitivity, &matrix);
    if (result != BITSTACK_OK) return result;
    matrix->out_norm2 = coded->out_norm2;
    for (level = 1; level <= shape->levels && result == BITSTACK_OK; level++) {
        bitstack_written_block_ *block = matrix->blocks + level - 1;
        const unsigned char *at = coded->blocks[level - 1];
        block->at = writer->spooled;
        block->bytes = bitstack_block_bytes(shape, level);
        block->rel_err2 = (float)coded->rel_err2[level];
        block->out_err2 = (float)coded->out_err2[level];
        for (part = 0; part < BITSTACK_PARTS_; part++) {
            uint64_t bytes = bitstack_part_bytes_(shape, level, part);
            block->checksums[part] = bitstack_checksum(at, (size_t)bytes);
            at += bytes;
        }
        result = bitstack_spool_(writer, coded->blocks[level - 1], block->bytes);
    }
    return result;
}

/* Copies bytes of the source (spool or stack) to the end of the file, padded to 64. */
static bitstack_result bitstack_copy_(FILE *from, uint64_t at, uint64_t bytes, FILE *to) {
    unsigned char buffer[16384];
    uint64_t pad = bitstack_pad_(bytes, BITSTACK_ALIGN_) - bytes;
    if (bytes && bitstack_seek_(from, at)) return BITSTACK_ERROR_IO;
    while (bytes) {
        size_t now = bytes < sizeof buffer ? (size_t)bytes : sizeof buffer;
        if (fread(buffer, 1, now, from) != now || fwrite(buffer, 1, now, to) != now) return BITSTACK_ERROR_IO;
        bytes -= now;
    }
    memset(buffer, 0, BITSTACK_ALIGN_);
    return pad && fwrite(buffer, 1, (size_t)pad, to) != pad ? BITSTACK_ERROR_IO : BITSTACK_OK;
}

/* Every block once, each matrix's levels ascending. */
static int bitstack_order_valid_(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries) {
    uint32_t matrices = bitstack_written_count_(writer), i;
    uint32_t *seen = (uint32_t *)writer->allocator.allocate(writer->allocator.user, (matrices + (size_t)1) * sizeof *seen);
    size_t e;
    int good = seen != NULL;
    for (i = 0; i < matrices && good; i++) seen[i] = 0;
    for (e = 0; e < entries && good; e++) {
        good = order[e].matrix < matrices && order[e].level == seen[order[e].matrix] + 1;
        if (good) seen[order[e].matrix]++;
    }
    for (i = 0; i < matrices && good; i++) good = seen[i] == bitstack_written_(writer, i)->shape.levels;
    if (seen) writer->allocator.release(writer->allocator.user, seen, (matrices + (size_t)1) * sizeof *seen);
    return good;
}

/* The predicted order from the errors and sensitivities that came with the matrices. */
static bitstack_result bitstack_writer_order_(bitstack_writer *writer, bitstack_order_entry *order) {
    uint32_t matrices = bitstack_written_count_(writer), i, l;
    size_t points = 0, bytes;
    bitstack_result result = BITSTACK_ERROR_MEMORY;
    unsigned char *room;
    for (i = 0; i < matrices; i++) points += bitstack_written_(writer, i)->shape.levels + (size_t)1;
    bytes = points * 16 + matrices * (2 * sizeof(void *) + sizeof(uint32_t)) + 16;
    room = (unsigned char *)writer->allocator.allocate(writer->allocator.user, bytes);
    if (room) {
        double *loss = (double *)(void *)room;
        uint64_t *size = (uint64_t *)(void *)(room + points * 8);
        const double **loss_at = (const double **)(void *)(room + points * 16);
        const uint64_t **bytes_at = (const uint64_t **)(void *)(loss_at + matrices);
        uint32_t *levels = (uint32_t *)(void *)(bytes_at + matrices);
        for (i = 0; i < matrices; i++) {
            const bitstack_written_matrix_ *m = bitstack_written_(writer, i);
            loss_at[i] = loss, bytes_at[i] = size, levels[i] = m->shape.levels;
            for (l = 0; l <= m->shape.levels; l++) {
                *loss++ = (double)m->sensitivity * (l ? (double)m->blocks[l - 1].out_err2 : 1.0);
                *size++ = bitstack_live_bytes(&m->shape, l);
            }
        }
        result = bitstack_order_predicted(levels, matrices, loss_at, bytes_at, order);
        writer->allocator.release(writer->allocator.user, room, bytes);
    }
    return result;
}

/* Header and tables into one buffer, for blocks in the order given. */
static bitstack_result bitstack_tables_(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries, bitstack_bytes_ *out) {
    uint32_t tensors = (uint32_t)(writer->tensors.used / sizeof(bitstack_written_tensor_)), i;
    uint32_t matrices = bitstack_written_count_(writer);
    uint64_t tables, at, base;
    size_t e;
    int d;
    while (writer->names.used % 8)
        if (bitstack_append_(writer, &writer->names, NULL, 1) != BITSTACK_OK) return BITSTACK_ERROR_MEMORY;
    tables = writer->meta.used + (uint64_t)tensors * BITSTACK_TENSOR_RECORD_ + (uint64_t)matrices * BITSTACK_MATRIX_RECORD_ +
             (uint64_t)entries * BITSTACK_BLOCK_RECORD_ + writer->names.used;
    at = bitstack_pad_(BITSTACK_HEADER_BYTES_ + tables, BITSTACK_ALIGN_);
    if (at > SIZE_MAX / 4 || bitstack_grow_(writer, out, (size_t)at) != BITSTACK_OK) return BITSTACK_ERROR_MEMORY;
    bitstack_append_(writer, out, NULL, BITSTACK_HEADER_BYTES_);
    bitstack_append_(writer, out, writer->meta.data, writer->meta.used);
    for (i = 0; i < tensors; i++) {
        const bitstack_written_tensor_ *t = (const bitstack_written_tensor_ *)(void *)writer->tensors.data + i;
        unsigned char r[BITSTACK_TENSOR_RECORD_];
        bitstack_store32_(r, (uint32_t)t->name), bitstack_store32_(r + 4, (uint32_t)t->name_bytes);
        bitstack_store32_(r + 8, (uint32_t)t->type), bitstack_store32_(r + 12, (uint32_t)t->dimensions);
        for (d = 0; d < 4; d++) bitstack_store64_(r + 16 + 8 * d, t->shape[d]);
        bitstack_store64_(r + 48, at), bitstack_store64_(r + 56, t->bytes), bitstack_store64_(r + 64, t->checksum);
        bitstack_append_(writer, out, r, sizeof r);
        at += bitstack_pad_(t->bytes, BITSTACK_ALIGN_);
    }
    base = at;
    for (i = 0; i < matrices; i++) {
        const bitstack_written_matrix_ *m = bitstack_written_(writer, i);
        unsigned char r[BITSTACK_MATRIX_RECORD_];
        memset(r, 0, sizeof r);
        bitstack_store32_(r, (uint32_t)m->name), bitstack_store32_(r + 4, (uint32_t)m->name_bytes);
        bitstack_store32_(r + 8, m->shape.rows), bitstack_store32_(r + 12, m->shape.cols);
        bitstack_store32_(r + 16, 1), bitstack_store32_(r + 20, m->shape.levels), bitstack_store32_(r + 24, m->shape.rank);
        r[28] = (unsigned char)m->shape.columns, r[29] = (unsigned char)m->shape.coefficients;
        r[30] = (unsigned char)m->shape.factor_type;
        bitstack_store32_(r + 32, m->shape.group_cols);
        bitstack_store32_(r + 36, bitstack_bits_from_float_(m->shape.scale));
        bitstack_store32_(r + 40, bitstack_bits_from_float_(m->sensitivity));
        bitstack_append_(writer, out, r, sizeof r);
    }
    for (e = 0; e < entries; e++) {
        const bitstack_written_block_ *b = bitstack_written_(writer, order[e].matrix)->blocks + order[e].level - 1;
        unsigned char r[BITSTACK_BLOCK_RECORD_];
        memset(r, 0, sizeof r);
        bitstack_store32_(r, order[e].matrix), bitstack_store32_(r + 4, order[e].level);
        bitstack_store64_(r + 8, at), bitstack_store64_(r + 16, b->bytes);
        for (d = 0; d < BITSTACK_PARTS_; d++) bitstack_store64_(r + 24 + 8 * d, b->checksums[d]);
        bitstack_store32_(r + 48, bitstack_bits_from_float_(b->rel_err2));
        bitstack_store32_(r + 52, bitstack_bits_from_float_(order[e].score));
        bitstack_append_(writer, out, r, sizeof r);
        at += b->bytes;
    }
    bitstack_append_(writer, out, writer->names.data, writer->names.used);
    bitstack_append_(writer, out, NULL, (size_t)(bitstack_pad_(out->used, BITSTACK_ALIGN_) - out->used));
    memcpy(out->data, "BITSTACK", 8);
    bitstack_store32_(out->data + 8, BITSTACK_FORMAT_VERSION), bitstack_store32_(out->data + 12, BITSTACK_HEADER_BYTES_);
    bitstack_store64_(out->data + 16, tables), bitstack_store64_(out->data + 24, base), bitstack_store64_(out->data + 32, at);
    bitstack_store32_(out->data + 40, writer->metas), bitstack_store32_(out->data + 44, tensors);
    bitstack_store32_(out->data + 48, matrices), bitstack_store32_(out->data + 52, (uint32_t)entries);
    bitstack_store64_(out->data + 56, writer->names.used);
    bitstack_store64_(out->data + 64, bitstack_checksum(out->data + BITSTACK_HEADER_BYTES_, (size_t)tables));
    bitstack_store64_(out->data + 120, bitstack_checksum(out->data, 120));
    return BITSTACK_OK;
}

/* Writes path.part from `source` and renames it. */
static bitstack_result bitstack_assemble_(bitstack_writer *writer, FILE *source, const bitstack_order_entry *order, size_t entries,
                                          bitstack_error *error) {
    bitstack_bytes_ tables;
    bitstack_result result;
    FILE *to;
    size_t i;
    memset(&tables, 0, sizeof tables);
    if (entries > INT32_MAX || !bitstack_order_valid_(writer, order, entries))
        return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "the order does not list every block once, levels ascending", NULL, 0);
    result = bitstack_tables_(writer, order, entries, &tables);
    if (result != BITSTACK_OK) return bitstack_fail_(error, result, 0, "no memory for the tables", NULL, 0);
    to = fopen(writer->part_path, "wb");
    if (to) {
        if (fwrite(tables.data, 1, tables.used, to) != tables.used) result = BITSTACK_ERROR_IO;
        for (i = 0; i < writer->tensors.used / sizeof(bitstack_written_tensor_) && result == BITSTACK_OK; i++) {
            const bitstack_written_tensor_ *t = (const bitstack_written_tensor_ *)(void *)writer->tensors.data + i;
            result = bitstack_copy_(source, t->at, t->bytes, to);
        }
        for (i = 0; i < entries && result == BITSTACK_OK; i++) {
            const bitstack_written_block_ *b = bitstack_written_(writer, order[i].matrix)->blocks + order[i].level - 1;
            result = bitstack_copy_(source, b->at, b->bytes, to);
        }
        if (result == BITSTACK_OK && fflush(to)) result = BITSTACK_ERROR_IO;
#if !defined(_WIN32) && (defined(_POSIX_C_SOURCE) || defined(__APPLE__))
        if (result == BITSTACK_OK && fsync(fileno(to))) result = BITSTACK_ERROR_IO; /* before the rename */
#endif
        if (fclose(to) && result == BITSTACK_OK) result = BITSTACK_ERROR_IO;
#ifdef _WIN32
        if (result == BITSTACK_OK) remove(writer->path); /* rename does not replace there */
#endif
        if (result == BITSTACK_OK && rename(writer->part_path, writer->path)) result = BITSTACK_ERROR_IO;
        if (result != BITSTACK_OK) remove(writer->part_path);
    } else result = BITSTACK_ERROR_IO;
    writer->allocator.release(writer->allocator.user, tables.data, tables.room);
    return result == BITSTACK_OK ? result
                                 : bitstack_fail_(error, result, 0, "writing '%' failed", writer->part_path, strlen(writer->part_path));
}

BITSTACK_API bitstack_result bitstack_writer_finish(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries,
                                                    bitstack_error *error) {
    bitstack_order_entry *own = NULL;
    bitstack_result result = writer->failed;
    size_t blocks = 0;
    uint32_t i;
    if (result == BITSTACK_OK && fflush(writer->spool)) result = BITSTACK_ERROR_IO;
    if (result != BITSTACK_OK) bitstack_fail_(error, result, 0, "writing '%' failed", writer->spool_path, strlen(writer->spool_path));
    for (i = 0; i < bitstack_written_count_(writer); i++) blocks += bitstack_written_(writer, i)->shape.levels;
    if (result == BITSTACK_OK && !order) {
        own = (bitstack_order_entry *)writer->allocator.allocate(writer->allocator.user, (blocks + 1) * sizeof *own);
        result = own ? bitstack_writer_order_(writer, own) : BITSTACK_ERROR_MEMORY;
        if (result != BITSTACK_OK) bitstack_fail_(error, result, 0, "cannot order the blocks", NULL, 0);
        order = own;
        entries = blocks;
    }
    if (result == BITSTACK_OK) result = bitstack_assemble_(writer, writer->spool, order, entries, error);
    if (own) writer->allocator.release(writer->allocator.user, own, (blocks + 1) * sizeof *own);
    bitstack_writer_free_(writer);
    return result;
}

/* Fills a writer with what an opened, complete stack holds; payloads stay in its file. */
static bitstack_result bitstack_adopt_(bitstack_writer *writer, const bitstack *stack) {
    bitstack_result result;
    uint32_t i, level;
    int part, d;
    size_t meta_bytes = (size_t)(stack->tensor_records - stack->head) - BITSTACK_HEADER_BYTES_;
    result = bitstack_append_(writer, &writer->meta, stack->head + BITSTACK_HEADER_BYTES_, meta_bytes);
    writer->metas = stack->metas;
    for (i = 0; i < stack->tensors && result == BITSTACK_OK; i++) {
        bitstack_written_tensor_ tensor;
        bitstack_tensor t;
        memset(&tensor, 0, sizeof tensor);
        bitstack_get_tensor(stack, (int)i, &t);
        tensor.type = t.type, tensor.dimensions = t.dimensions, tensor.bytes = t.bytes;
        for (d = 0; d < 4; d++) tensor.shape[d] = t.shape[d];
        tensor.at = (uint64_t)((const unsigned char *)t.data - stack->head);
        tensor.checksum = bitstack_checksum(t.data, (size_t)t.bytes);
        result = bitstack_name_add_(writer, t.name, t.name_bytes, &tensor.name, &tensor.name_bytes);
        if (result == BITSTACK_OK) result = bitstack_append_(writer, &writer->tensors, &tensor, sizeof tensor);
    }
    for (i = 0; i < stack->matrices && result == BITSTACK_OK; i++) {
        bitstack_written_matrix_ *matrix;
        bitstack_matrix m;
        bitstack_get_matrix(stack, (int)i, &m);
        result = bitstack_matrix_add_(writer, m.name, m.name_bytes, &m.shape, m.sensitivity, &matrix);
        for (level = 1; level <= m.shape.levels && result == BITSTACK_OK; level++) {
            const bitstack_slot_ *slot = stack->slots + stack->states[i].first + level - 1;
            const unsigned char *record = stack->block_records + (size_t)slot->record * BITSTACK_BLOCK_RECORD_;
            matrix->blocks[level - 1].at = slot->offset;
            matrix->blocks[level - 1].bytes = bitstack_load64_(record + 16);
            matrix->blocks[level - 1].rel_err2 = bitstack_load_f32_(record + 48);
            for (part = 0; part < BITSTACK_PARTS_; part++)
                matrix->blocks[level - 1].checksums[part] = bitstack_load64_(record + 24 + 8 * part);
        }
    }
    return result;
}

BITSTACK_API bitstack_result bitstack_reorder(const char *from, const char *to, const bitstack_order_entry *order, size_t entries,
                                              bitstack_error *error) {
    bitstack_options options;
    bitstack_error local;
    bitstack_writer *writer;
    bitstack_result result;
    bitstack *stack;
    if (!from || !to || !order) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no path or no order", NULL, 0);
    if (!error) error = &local;
    memset(&options, 0, sizeof options);
    options.load_nothing = 1;
    result = bitstack_open_file(&stack, from, &options, error);
    if (result != BITSTACK_OK) return result;
    if (stack->available != stack->blocks) result = bitstack_fail_(error, BITSTACK_ERROR_TRUNCATED, stack->bytes, "'%' is not complete", from, strlen(from));
    else if ((writer = bitstack_writer_new_(to, NULL, error)) == NULL) result = error->code;
    else {
        result = bitstack_adopt_(writer, stack);
        if (result != BITSTACK_OK) bitstack_fail_(error, result, 0, "no memory to reorder", NULL, 0);
        else result = bitstack_assemble_(writer, stack->file, order, entries, error);
        bitstack_writer_free_(writer);
    }
    bitstack_close(stack);
    return result;
}
#endif /* BITSTACK_NO_STDIO */

#endif /* BITSTACK_COMPRESS_IMPLEMENTATION */
