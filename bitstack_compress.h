/* bitstack_compress.h - turn weight matrices into a stack file for bitstack.h.
 * Version 0.2.0. C99 to C23, C++11 and later. Needs bitstack.h, libc, libm (-lm), and POSIX threads (-pthread)
 * or Windows unless BITSTACK_NO_THREADS is defined. MIT licence at the end.
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
 *     bitstack_error error;
 *     bitstack_writer_open(&writer, "w.bitstack", NULL, NULL);
 *     bitstack_encode_matrix(&coded, w, rows, cols, cols, NULL, NULL);   // defaults
 *     bitstack_writer_matrix(writer, "w", &coded, 1.0f);
 *     bitstack_coded_free(&coded);
 *     if (bitstack_writer_finish(writer, NULL, 0, &error) != BITSTACK_OK) // predicted order; tells of any failure
 *         fprintf(stderr, "%s\n", error.message);                        // above: then there is no file
 *
 * What it does not do: read model files, run models or gather activations (examples/ does); fine-tune.
 *
 * Contents (search for the mark):
 *   [CONFIG] [TYPES] [API]   [STOP] stop here if you only want the API
 *   [MEMORY] [THREADS] [LINALG] [SVD] [MOMENTS] [CODED] [IABS] [NESTED] [ORDER] [WRITER] [LICENCE]
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

/* How long nested coding looks: one sweep of descent, four, or eight. The last steps gain least: four are some 12 %
 * better than one, eight half a percent better than four. */
typedef enum bitstack_effort { BITSTACK_EFFORT_NORMAL = 0, BITSTACK_EFFORT_FAST = 1, BITSTACK_EFFORT_BEST = 2 } bitstack_effort;

/* Second moments of a layer's inputs, gathered row by row: what activation-aware coding needs.
 * `h` = sum of x x^T over `count` inputs (cols x cols, symmetric, row-major; the full square is kept);
 * `norms[j]` = mean over samples of the L2 norm over the sample's tokens of channel j, the paper's
 * activation scale without its 1e-3. Memory: 8 cols^2 + 16 cols bytes (h is double), and 1 MiB of scratch.
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
    uint32_t levels; /* nested: 1..8, 0 = 8; iabs: 1..32, 0 = 16 */
    uint32_t rank;   /* iabs: 1..1024, 0 = 16; less where the matrix is smaller */
    bitstack_type factor_type; /* iabs: 0 = F16 */
    int threads;     /* 0 or 1 = the calling thread only. The result does not depend on it. */
    uint64_t seed;   /* of random starts; see bitstack_encode_matrix for when the same seed gives the same bytes */
    int plain_columns;    /* iabs: nonzero = no activation-aware column scaling though moments are given */
    float level_weights[BITSTACK_MAX_LEVELS]; /* nested: how much each level counts, finite and not negative; only
                                                 ratios matter; all 0 = the default */
    bitstack_effort effort; /* nested */
    bitstack_progress progress;
    void *progress_user;
} bitstack_encode_options;

/* A coded matrix in memory: every block's payload as the file has it ([FORMAT] in bitstack.h).
 * Free with bitstack_coded_free. */
typedef struct bitstack_coded {
    bitstack_shape shape;
    unsigned char *blocks[BITSTACK_MAX_LEVELS]; /* bitstack_block_bytes(&shape, i + 1) bytes each */
    double rel_err2[BITSTACK_MAX_LEVELS + 1];   /* |W - W_L|^2 / |W|^2 at level L; [0] is 1 */
    double out_err2[BITSTACK_MAX_LEVELS + 1];   /* tr(D H D^T) / tr(W H W^T), D = W - W_L; without moments,
                                                   or where W H W^T is 0, it equals rel_err2 */
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
 * BITSTACK_ERROR_NUMERIC on NaN or infinity, or where a singular value is above DBL_MAX. Demmel and Veselic, Jacobi's method is more accurate than
 * QR, 1992. */
BITSTACK_API bitstack_result bitstack_svd(const double *a, uint32_t rows, uint32_t cols, size_t stride, double *u, double *s, double *vt);

/* Truncated: the best rank-k approximation of a (float), by block power (subspace) iteration with
 * oversampling, projected problem by Jacobi. u rows x k, s k, vt k x cols. Stops when the captured
 * energy settles: squared error within 0.1 % of the optimal rank-k one, plus 3e-7 of |a|^2 for the floats.
 * Singular values below about 1e-6 of the first may come out as zero. If warm_vt (k x cols) is not NULL
 * the iteration starts there; vt may be the same memory. Halko, Martinsson and Tropp, arXiv 0909.4061;
 * Zhou, Saad, Tiago and Chelikowsky's Chebyshev filter, 2006. 1 <= k <= min(rows, cols).
 * BITSTACK_ERROR_NUMERIC on NaN or infinity, or where a singular value is above FLT_MAX.
 * `threads` and `seed` as in bitstack_encode_options. Memory: about 20 times 2 k (rows + cols) floats, and k / 4000
 * of a. */
BITSTACK_API bitstack_result bitstack_svd_truncated(const float *a, uint32_t rows, uint32_t cols, size_t stride, uint32_t k, const float *warm_vt, uint64_t seed, int threads, float *u, float *s, float *vt);

/* --- Calibration ----------------------------------------------------------------------------- */

/* Start gathering for inputs of `cols` channels; with_h zero keeps norms only. */
BITSTACK_API bitstack_result bitstack_moments_init(bitstack_moments *moments, uint32_t cols, int with_h);
/* Add one sample: `tokens` inputs of cols floats, `stride` floats apart. Inputs that are not finite are
 * skipped. */
BITSTACK_API void bitstack_moments_add(bitstack_moments *moments, const float *x, size_t tokens, size_t stride);
/* Add another's sums (same cols, and with h if `into` has it), for gathering in several threads. */
BITSTACK_API bitstack_result bitstack_moments_merge(bitstack_moments *into, const bitstack_moments *from);
/* The paper's activation scale of channel j: mean over samples of per-sample norms, plus 1e-3. */
BITSTACK_API double bitstack_moments_scale(const bitstack_moments *moments, uint32_t j);
BITSTACK_API void bitstack_moments_free(bitstack_moments *moments);

/* Scales and column factors of tables are small floats of one byte (bitstack.h, [FORMAT]): the value of a code, 0 to 255, and the
 * code whose value is nearest. */
BITSTACK_API float bitstack_small_value(uint32_t code);
BITSTACK_API uint32_t bitstack_small_code(float value);

/* --- Encoding -------------------------------------------------------------------------------- */

/* Encode w (rows x cols, row-major, stride in floats >= cols). moments (same cols) or NULL.
 * The same input, options and seed give the same bytes on any number of threads, and on every x86 CPU from one build
 * that no -m flag ties to a CPU. Other architectures, compilers and libm differ in last bits, and with them in signs of
 * weights close to a tie; so does nested where the compiler fuses products and sums on its own (GCC with -std=gnu*,
 * clang: -ffp-contract=off keeps it from that) between CPUs with FMA and without.
 * Working memory, beside what is returned: about 4 times the matrix as float (nested: rows count as a multiple of
 * 32, columns as one of 48), 64 rank (rows + cols) bytes, for every thread 8 bytes a column for each row up to 192 and
 * (nested) 256 for each level up to six, and 3 cols^2 doubles with moments.h.
 * BITSTACK_ERROR_NUMERIC if w holds NaN or infinity, if moments.h does or (nested) is not positive
 * semidefinite, or if an approximation of weights near the limit of float would. *coded is zero on failure. */
BITSTACK_API bitstack_result bitstack_encode_matrix(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols, size_t stride, const bitstack_moments *moments, const bitstack_encode_options *options);
/* The shape that this will have, and so the sizes of its blocks, before anything is coded; nested coding adds the
 * columns that it keeps whole (shape.kept), which depend on the weights. options as above. */
BITSTACK_API bitstack_result bitstack_encode_shape(bitstack_shape *shape, uint32_t rows, uint32_t cols, const bitstack_encode_options *options);
BITSTACK_API void bitstack_coded_free(bitstack_coded *coded);
/* The matrix at `level` for the kernels of bitstack.h; planes must hold `level` entries and outlive the
 * view. */
BITSTACK_API bitstack_result bitstack_coded_view(const bitstack_coded *coded, uint32_t level, bitstack_plane *planes, bitstack_view *view);

/* Measure: squared error of w against the view, plain and weighted by moments->h (NULL: equal).
 * BITSTACK_ERROR_NUMERIC where a weight, a factor or h is not finite. */
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

/* Write a stack to `path`. Blocks are spooled to `path`.spool as they come, so memory stays at one
 * matrix (on POSIX that file has no name once it is open); finish puts them together in `path`.part, flushes
 * that to the disk (POSIX and Windows; with -std=c99 define _POSIX_C_SOURCE) and renames it. A process that
 * dies, or a full disk, leaves what was at `path` before. Of two writers to one path at the same time one may fail
 * with BITSTACK_ERROR_IO, and the file is one of theirs, whole.
 * Failures stay: after the first, of whatever kind, every call returns it, and finish makes no file and tells it.
 * `writer` NULL is BITSTACK_ERROR_ARGUMENT. Keys and names are UTF-8, and each but once: two matrices, tensors or
 * entries of one name are BITSTACK_ERROR_ARGUMENT. */
BITSTACK_API bitstack_result bitstack_writer_open(bitstack_writer **out, const char *path, const bitstack_allocator *allocator, bitstack_error *error);
/* Metadata: `count` elements of a number type (native byte order), or strings. Copied at once. */
BITSTACK_API bitstack_result bitstack_writer_meta(bitstack_writer *writer, const char *key, bitstack_meta_type type, const void *elements, uint64_t count);
BITSTACK_API bitstack_result bitstack_writer_meta_u32(bitstack_writer *writer, const char *key, uint32_t value);
BITSTACK_API bitstack_result bitstack_writer_meta_f32(bitstack_writer *writer, const char *key, float value);
/* `bytes` NULL: the strings are NUL-terminated. */
BITSTACK_API bitstack_result bitstack_writer_meta_strings(bitstack_writer *writer, const char *key, const char *const *strings, const size_t *bytes, uint64_t count);
/* A resident tensor; `data` little-endian, copied to the spool at once. */
BITSTACK_API bitstack_result bitstack_writer_tensor(bitstack_writer *writer, const char *name, bitstack_type type, int dimensions, const uint64_t *shape, const void *data);
/* A coded matrix, copied to the spool at once. Its index is the number of matrices added before it.
 * sensitivity: predicted model loss per unit of out_err2 (1 where nothing is known), finite and not negative:
 * orders blocks. */
BITSTACK_API bitstack_result bitstack_writer_matrix(bitstack_writer *writer, const char *name, const bitstack_coded *coded, float sensitivity);
/* Complete the file with the blocks in the order given (entries: every block once, each matrix's levels
 * ascending), or with order NULL in the predicted order. Frees the writer, also on failure. */
BITSTACK_API bitstack_result bitstack_writer_finish(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries, bitstack_error *error);
/* Drop everything that was written. NULL is allowed. */
BITSTACK_API void bitstack_writer_abort(bitstack_writer *writer);
/* Write the stack at `from` again to `to` (may be the same path) with its blocks in another order. */
BITSTACK_API bitstack_result bitstack_reorder(const char *from, const char *to, const bitstack_order_entry *order, size_t entries, bitstack_error *error);

/* May change the codes of one block of a matrix of tables: `columns`, one a column (0: the column stands whole), and
 * `coefficients`, as [FORMAT] lays them out. Called twice a block: both times it must do the same. */
typedef void (*bitstack_recoder)(void *user, uint32_t matrix, uint32_t level, unsigned char *columns, unsigned char *coefficients);
/* Write the stack at `from` again to `to` (may be the same path) with other scales and column factors, of the same sizes and in the
 * same order. What is said of its errors stays as it was. */
BITSTACK_API bitstack_result bitstack_recode(const char *from, const char *to, bitstack_recoder recoder, void *user, bitstack_error *error);
#endif

#ifdef __cplusplus
}
#endif
#endif /* BITSTACK_COMPRESS_H */

/* ==================================================================================== [STOP]
 * Stop here if you only want the API. */
#if defined(BITSTACK_COMPRESS_IMPLEMENTATION) && !defined(BITSTACK_COMPRESS_IMPLEMENTED_)
#define BITSTACK_COMPRESS_IMPLEMENTED_
#include "bitstack.h" /* again, for what the implementations share: it may have been included before without */

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
#ifdef BITSTACK_GNU_
#define BITSTACK_PRIVATE_ __attribute__((unused)) static
#else
#define BITSTACK_PRIVATE_ static
#endif

#ifdef _WIN32
#define BITSTACK_CDECL_ __cdecl /* what the C library calls, whatever the convention of the rest (cl /Gv) */
#else
#define BITSTACK_CDECL_
#endif

#define BITSTACK_MIN_(a, b) ((a) < (b) ? (a) : (b))
#define BITSTACK_MAX_(a, b) ((a) > (b) ? (a) : (b))

/* Room for count elements, uninitialised; NULL where the product overflows or memory is short. Never NULL
 * for zero elements. Free with bitstack_drop_. */
BITSTACK_PRIVATE_ void *bitstack_array_(uint64_t count, size_t element_bytes) {
    if (count > (SIZE_MAX / 2 - 64) / element_bytes) return NULL;
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
#ifdef _WIN32
#include <process.h>
/* As in windows.h, which would bring thousands of names. */
#ifdef __cplusplus
extern "C" {
#endif
__declspec(dllimport) unsigned long __stdcall WaitForSingleObject(void *handle, unsigned long milliseconds);
__declspec(dllimport) int __stdcall CloseHandle(void *handle);
#ifdef __cplusplus
}
#endif
#else
#include <pthread.h>
#endif
#endif

#define BITSTACK_MAX_WORKERS_ 64
#define BITSTACK_WORKER_STACK_ 1048576

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
    uint32_t next, tasks;
    bitstack_task_ run;
    void *arg;
} bitstack_job_;

typedef struct bitstack_worker_ {
    bitstack_job_ *job;
    uint32_t index;
} bitstack_worker_;

BITSTACK_PRIVATE_ void bitstack_work_(const bitstack_worker_ *worker) {
    bitstack_job_ *job = worker->job;
    for (;;) {
        uint32_t task = BITSTACK_COUNT_(&job->next, 1u); /* at most a worker's one beyond the last */
        if (task >= job->tasks) return;
        job->run(job->arg, task, worker->index);
    }
}

#ifdef _WIN32
typedef uintptr_t bitstack_worker_thread_;
BITSTACK_PRIVATE_ unsigned __stdcall bitstack_worker_begin_(void *arg) {
    bitstack_work_((const bitstack_worker_ *)arg);
    return 0;
}
/* 0x10000: the room is reserved, not taken. */
BITSTACK_PRIVATE_ int bitstack_worker_start_(bitstack_worker_thread_ *thread, bitstack_worker_ *worker) {
    *thread = _beginthreadex(NULL, BITSTACK_WORKER_STACK_, bitstack_worker_begin_, worker, 0x10000, NULL);
    return *thread != 0;
}
BITSTACK_PRIVATE_ void bitstack_worker_end_(bitstack_worker_thread_ thread) {
    WaitForSingleObject((void *)thread, 0xFFFFFFFFu);
    CloseHandle((void *)thread);
}
#else
typedef pthread_t bitstack_worker_thread_;
BITSTACK_PRIVATE_ void *bitstack_worker_begin_(void *arg) {
    bitstack_work_((const bitstack_worker_ *)arg);
    return NULL;
}
BITSTACK_PRIVATE_ int bitstack_worker_start_(bitstack_worker_thread_ *thread, bitstack_worker_ *worker) {
    pthread_attr_t attributes;
    size_t stack = 0;
    int failed;
    pthread_attr_init(&attributes);
    if (pthread_attr_getstacksize(&attributes, &stack) || stack < BITSTACK_WORKER_STACK_) /* musl: 128 KiB */
        pthread_attr_setstacksize(&attributes, BITSTACK_WORKER_STACK_);
    failed = pthread_create(thread, &attributes, bitstack_worker_begin_, worker);
    pthread_attr_destroy(&attributes);
    return !failed;
}
BITSTACK_PRIVATE_ void bitstack_worker_end_(bitstack_worker_thread_ thread) { pthread_join(thread, NULL); }
#endif
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
        bitstack_worker_thread_ thread[BITSTACK_MAX_WORKERS_];
        uint32_t started = 1;
        job.next = 0, job.tasks = tasks, job.run = task, job.arg = arg;
        for (uint32_t i = 0; i < workers; i++) worker[i].job = &job, worker[i].index = i;
        while (started < workers && bitstack_worker_start_(&thread[started], &worker[started])) started++;
        bitstack_work_(&worker[0]);
        while (started > 1) bitstack_worker_end_(thread[--started]);
        return;
    }
#endif
    (void)workers;
    for (uint32_t t = 0; t < tasks; t++) task(arg, t, 0);
}

/* ================================================================================== [LINALG]
 * Matrix products by register tiles of 6 rows x 2 vectors or 12 x 1 over panels of B (Goto and van de Geijn,
 * Anatomy of high-performance matrix multiplication, 2008); A is read where it lies. Blocked factorisations on top.
 * All tiles give the same bits: sums from zero over k in order, then added to C, products rounded before they are
 * added. Fused (FMA) they would be 2 % (nested) to 17 % (iabs) faster, measured, and other bits where a CPU has none. */

#if !defined(BITSTACK_NO_SIMD) && !defined(BITSTACK_NO_AVX2) && defined(__GNUC__) && \
    (defined(__x86_64__) || defined(__i386__))
#define BITSTACK_LINALG_AVX2_
#include <immintrin.h>
#endif

#define BITSTACK_GEMM_ROWS_ 12    /* rows of the tallest register tile */
#define BITSTACK_NB_ 192     /* block of the factorisations: a multiple of 6 and 16 */
#define BITSTACK_PANEL32_ 16 /* columns of a packed panel, float */
#define BITSTACK_PANEL64_ 8  /* double */
#define BITSTACK_PACK_ (256 * 256) /* elements of packing scratch that a product needs */

/* Vectors of 16 bytes, which every CPU of note has, and of 32; one element where the compiler has none or reckons
 * in a wider type than it stores (x87, s390x). The types for loads and stores ask for no more alignment than
 * their elements. */
#if defined(BITSTACK_GNU_) && (!defined(__FLT_EVAL_METHOD__) || __FLT_EVAL_METHOD__ == 0)
typedef float bitstack_floats_ __attribute__((vector_size(16), aligned(4), may_alias));
typedef double bitstack_doubles_ __attribute__((vector_size(16), aligned(8), may_alias));
typedef double bitstack_wide_ __attribute__((vector_size(32), aligned(8), may_alias));
#define BITSTACK_INLINE_ static inline __attribute__((always_inline))
#else
typedef float bitstack_floats_;
typedef double bitstack_doubles_, bitstack_wide_;
#define BITSTACK_INLINE_ static inline
#endif
#if defined(__clang__)
#define BITSTACK_UNROLL_ _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define BITSTACK_UNROLL_ _Pragma("GCC unroll 16")
#else
#define BITSTACK_UNROLL_
#endif

/* c (rows x panel, row stride crs) += a (rows x k) times a panel of b (k x panel, row stride brs). */
#define BITSTACK_GEMM_TILE_PLAIN_(suffix, real, vector, panel)                                                 \
    BITSTACK_PRIVATE_ void bitstack_gemm_tile_plain_##suffix##_(size_t rows, size_t k, const real *a, size_t ars, \
                                                                size_t acs, const real *b, size_t brs, real *c,   \
                                                                size_t crs) {                                     \
        enum { lanes = sizeof(vector) / sizeof(real), vectors = panel / lanes };                               \
        for (size_t i = 0; i < rows; i++) {                                                                    \
            vector *to = (vector *)(c + i * crs), sum[vectors];                                                \
            memset(sum, 0, sizeof sum);                                                                        \
            for (size_t p = 0; p < k; p++) {                                                                   \
                const vector *from = (const vector *)(b + p * brs);                                            \
                real f = a[i * ars + p * acs];                                                                 \
                BITSTACK_UNROLL_ for (int j = 0; j < vectors; j++) sum[j] += f * from[j];                      \
            }                                                                                                  \
            BITSTACK_UNROLL_ for (int j = 0; j < vectors; j++) to[j] += sum[j];                                \
        }                                                                                                      \
    }
BITSTACK_GEMM_TILE_PLAIN_(f32, float, bitstack_floats_, BITSTACK_PANEL32_)
BITSTACK_GEMM_TILE_PLAIN_(f64, double, bitstack_doubles_, BITSTACK_PANEL64_)

#ifdef BITSTACK_LINALG_AVX2_
/* a b + c; the empty assembly keeps the compiler from fusing it. */
#define BITSTACK_MUL_ADD_(name, isa, vector, mul, add)                                                         \
    __attribute__((target(isa))) BITSTACK_INLINE_ vector bitstack_mul_add_##name##_(vector a, vector b, vector c) { \
        vector product = mul(a, b);                                                                            \
        __asm__("" : "+x"(product));                                                                           \
        return add(product, c);                                                                                \
    }
BITSTACK_MUL_ADD_(avx2_f32, "avx2", __m256, _mm256_mul_ps, _mm256_add_ps)
BITSTACK_MUL_ADD_(avx2_f64, "avx2", __m256d, _mm256_mul_pd, _mm256_add_pd)
BITSTACK_MUL_ADD_(avx512_f32, "avx512f", __m512, _mm512_mul_ps, _mm512_add_ps)
BITSTACK_MUL_ADD_(avx512_f64, "avx512f", __m512d, _mm512_mul_pd, _mm512_add_pd)

/* Six rows at once: twelve accumulators, two vectors of B, one broadcast of A. */
#define BITSTACK_GEMM_TILE_AVX2_(suffix, real, vector, width, load, store, zero, set1, mac, add)               \
    __attribute__((target("avx2")))     BITSTACK_PRIVATE_ void bitstack_gemm_tile_avx2_##suffix##_(            \
        size_t rows, size_t k, const real *a, size_t ars, size_t acs, const real *b, size_t brs, real *c,      \
        size_t crs) {                                                                                          \
        for (; rows; rows -= 6, a += 6 * ars) {                                                                \
            vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero(), s4 = zero(), s5 = zero();               \
            vector r0 = zero(), r1 = zero(), r2 = zero(), r3 = zero(), r4 = zero(), r5 = zero();               \
            const real *a0 = a, *a3 = a + 3 * ars, *from = b;                                                  \
            for (size_t p = 0; p < k; p++, a0 += acs, a3 += acs, from += brs) {                                \
                vector x = load(from), y = load(from + width), t;                                              \
                t = set1(a0[0]), s0 = mac(t, x, s0), r0 = mac(t, y, r0);                                       \
                t = set1(a0[ars]), s1 = mac(t, x, s1), r1 = mac(t, y, r1);                                     \
                t = set1(a0[2 * ars]), s2 = mac(t, x, s2), r2 = mac(t, y, r2);                                 \
                t = set1(a3[0]), s3 = mac(t, x, s3), r3 = mac(t, y, r3);                                       \
                t = set1(a3[ars]), s4 = mac(t, x, s4), r4 = mac(t, y, r4);                                     \
                t = set1(a3[2 * ars]), s5 = mac(t, x, s5), r5 = mac(t, y, r5);                                 \
            }                                                                                                  \
            store(c, add(load(c), s0)), store(c + width, add(load(c + width), r0)), c += crs;                  \
            store(c, add(load(c), s1)), store(c + width, add(load(c + width), r1)), c += crs;                  \
            store(c, add(load(c), s2)), store(c + width, add(load(c + width), r2)), c += crs;                  \
            store(c, add(load(c), s3)), store(c + width, add(load(c + width), r3)), c += crs;                  \
            store(c, add(load(c), s4)), store(c + width, add(load(c + width), r4)), c += crs;                  \
            store(c, add(load(c), s5)), store(c + width, add(load(c + width), r5)), c += crs;                  \
        }                                                                                                      \
    }
BITSTACK_GEMM_TILE_AVX2_(f32, float, __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_set1_ps,
                         bitstack_mul_add_avx2_f32_, _mm256_add_ps)
BITSTACK_GEMM_TILE_AVX2_(f64, double, __m256d, 4, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_setzero_pd,
                         _mm256_set1_pd, bitstack_mul_add_avx2_f64_, _mm256_add_pd)

/* Twelve rows at once, one vector of B; the same sums as with AVX2. */
#define BITSTACK_GEMM_ROW_AVX512_(s, at, load, store, add) store(at, add(load(at), s)), at += crs;
#define BITSTACK_GEMM_TILE_AVX512_(suffix, real, vector, load, store, zero, set1, mac, add)                    \
    __attribute__((target("avx512f")))     BITSTACK_PRIVATE_ void bitstack_gemm_tile_avx512_##suffix##_(       \
        size_t rows, size_t k, const real *a, size_t ars, size_t acs, const real *b, size_t brs, real *c,      \
        size_t crs) {                                                                                          \
        vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero(), s4 = zero(), s5 = zero();                   \
        vector r0 = zero(), r1 = zero(), r2 = zero(), r3 = zero(), r4 = zero(), r5 = zero();                   \
        const real *a3 = a + 3 * ars, *a6 = a3 + 3 * ars, *a9 = a6 + 3 * ars;                                  \
        if (rows < BITSTACK_GEMM_ROWS_) {                                                                      \
            bitstack_gemm_tile_avx2_##suffix##_(rows, k, a, ars, acs, b, brs, c, crs);                         \
            return;                                                                                            \
        }                                                                                                      \
        for (size_t p = 0; p < k; p++, a += acs, a3 += acs, a6 += acs, a9 += acs, b += brs) {                  \
            vector x = load(b);                                                                                \
            s0 = mac(set1(a[0]), x, s0), s1 = mac(set1(a[ars]), x, s1), s2 = mac(set1(a[2 * ars]), x, s2);     \
            s3 = mac(set1(a3[0]), x, s3), s4 = mac(set1(a3[ars]), x, s4), s5 = mac(set1(a3[2 * ars]), x, s5);  \
            r0 = mac(set1(a6[0]), x, r0), r1 = mac(set1(a6[ars]), x, r1), r2 = mac(set1(a6[2 * ars]), x, r2);  \
            r3 = mac(set1(a9[0]), x, r3), r4 = mac(set1(a9[ars]), x, r4), r5 = mac(set1(a9[2 * ars]), x, r5);  \
        }                                                                                                      \
        BITSTACK_GEMM_ROW_AVX512_(s0, c, load, store, add) BITSTACK_GEMM_ROW_AVX512_(s1, c, load, store, add)  \
        BITSTACK_GEMM_ROW_AVX512_(s2, c, load, store, add) BITSTACK_GEMM_ROW_AVX512_(s3, c, load, store, add)  \
        BITSTACK_GEMM_ROW_AVX512_(s4, c, load, store, add) BITSTACK_GEMM_ROW_AVX512_(s5, c, load, store, add)  \
        BITSTACK_GEMM_ROW_AVX512_(r0, c, load, store, add) BITSTACK_GEMM_ROW_AVX512_(r1, c, load, store, add)  \
        BITSTACK_GEMM_ROW_AVX512_(r2, c, load, store, add) BITSTACK_GEMM_ROW_AVX512_(r3, c, load, store, add)  \
        BITSTACK_GEMM_ROW_AVX512_(r4, c, load, store, add) BITSTACK_GEMM_ROW_AVX512_(r5, c, load, store, add)  \
    }
BITSTACK_GEMM_TILE_AVX512_(f32, float, __m512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, _mm512_set1_ps,
                           bitstack_mul_add_avx512_f32_, _mm512_add_ps)
BITSTACK_GEMM_TILE_AVX512_(f64, double, __m512d, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_setzero_pd,
                           _mm512_set1_pd, bitstack_mul_add_avx512_f64_, _mm512_add_pd)
/* The fast tile of this CPU, or NULL; the compiler's own check covers the OS state as well. */
#define BITSTACK_GEMM_TILE_BEST_(suffix)                                                                       \
    __builtin_cpu_supports("avx512f") ? bitstack_gemm_tile_avx512_##suffix##_ \
    : __builtin_cpu_supports("avx2")  ? bitstack_gemm_tile_avx2_##suffix##_   \
                                                                       : NULL
#else
#define BITSTACK_GEMM_TILE_BEST_(suffix) NULL
#endif

/* Any number of rows; `fast`, which takes six or twelve, may be NULL. */
#define BITSTACK_GEMM_TILE_(suffix, real)                                                                      \
    typedef void (*bitstack_gemm_tile_##suffix##_)(size_t rows, size_t k, const real *a, size_t ars, size_t acs, \
                                                   const real *b, size_t brs, real *c, size_t crs);            \
    BITSTACK_PRIVATE_ bitstack_gemm_tile_##suffix##_ bitstack_gemm_tile_pick_##suffix##_(void) {               \
        return BITSTACK_GEMM_TILE_BEST_(suffix);                                                               \
    }                                                                                                          \
    BITSTACK_PRIVATE_ void bitstack_gemm_tile_any_##suffix##_(bitstack_gemm_tile_##suffix##_ fast, size_t rows, \
                                                              size_t k, const real *a, size_t ars, size_t acs, \
                                                              const real *b, size_t brs, real *c, size_t crs) { \
        while (rows) {                                                                                         \
            size_t h = !fast || rows < 6 ? rows : rows < BITSTACK_GEMM_ROWS_ ? 6 : BITSTACK_GEMM_ROWS_;        \
            if (fast && h >= 6) fast(h, k, a, ars, acs, b, brs, c, crs);                                       \
            else bitstack_gemm_tile_plain_##suffix##_(h, k, a, ars, acs, b, brs, c, crs);                      \
            rows -= h, a += h * ars, c += h * crs;                                                             \
        }                                                                                                      \
    }
BITSTACK_GEMM_TILE_(f32, float)
BITSTACK_GEMM_TILE_(f64, double)

/* e of 2^e > x >= 2^(e-1); 0 for 0. */
BITSTACK_PRIVATE_ int bitstack_exponent_(double x) {
    int exponent = 0;
    if (x > 0) frexp(x, &exponent);
    return exponent;
}

/* C += alpha A B. C is m x n with row stride crs; A is m x k and B k x n, element (i, j) of each at
 * [i * rs + j * cs], so that either may be transposed. pack: BITSTACK_PACK_ elements of scratch. `mixed` takes a B of
 * doubles into a product of floats. */
#define BITSTACK_GEMM_(name, suffix, real, source, panel)                                                      \
    BITSTACK_PRIVATE_ void bitstack_gemm_##name##_(size_t m, size_t n, size_t k, source alpha, const real *a,  \
                                                   size_t ars, size_t acs, const source *b, size_t brs,        \
                                                   size_t bcs, real *c, size_t crs, real *pack) {              \
        const size_t kc = 256, nc = 256;                                                                       \
        bitstack_gemm_tile_##suffix##_ fast = bitstack_gemm_tile_pick_##suffix##_();                                     \
        for (size_t j0 = 0; j0 < n; j0 += nc)                                                                  \
            for (size_t p0 = 0; p0 < k; p0 += kc) {                                                            \
                size_t nn = BITSTACK_MIN_(nc, n - j0), kk = BITSTACK_MIN_(kc, k - p0);                         \
                for (size_t j = 0; j < nn; j += panel) {                                                       \
                    const source *from = b + p0 * brs + (j0 + j) * bcs;                                        \
                    real *to = pack + j * kk;                                                                  \
                    size_t w = BITSTACK_MIN_((size_t)panel, nn - j);                                           \
                    if (w < panel) memset(to, 0, kk * panel * sizeof *to);                                     \
                    if (w < panel || bcs != 1)                                                                 \
                        for (size_t q = 0; q < w; q++)                                                         \
                            for (size_t p = 0; p < kk; p++) to[p * panel + q] = (real)(alpha * from[p * brs + q * bcs]); \
                    else                                                                                       \
                        for (size_t p = 0; p < kk; p++)                                                        \
                            for (size_t q = 0; q < panel; q++) to[p * panel + q] = (real)(alpha * from[p * brs + q]); \
                }                                                                                              \
                for (size_t i = 0; i < m; i += BITSTACK_GEMM_ROWS_)                                                 \
                    for (size_t j = 0; j < nn; j += panel) {                                                   \
                        size_t h = BITSTACK_MIN_((size_t)BITSTACK_GEMM_ROWS_, m - i);                               \
                        size_t w = BITSTACK_MIN_((size_t)panel, nn - j), rs = w < panel ? panel : crs;         \
                        const real *from = a + i * ars + p0 * acs;                                             \
                        real edge[BITSTACK_GEMM_ROWS_ * panel] = {0}, *at = c + i * crs + j0 + j;                   \
                        real *to = w < panel ? edge : at;                                                      \
                        bitstack_gemm_tile_any_##suffix##_(fast, h, kk, from, ars, acs, pack + j * kk, panel, to, rs); \
                        if (w < panel)                                                                         \
                            for (size_t r = 0; r < h; r++)                                                     \
                                for (size_t q = 0; q < w; q++) at[r * crs + q] += edge[r * panel + q];         \
                    }                                                                                          \
            }                                                                                                  \
    }
BITSTACK_GEMM_(f32, f32, float, float, BITSTACK_PANEL32_)
BITSTACK_GEMM_(f64, f64, double, double, BITSTACK_PANEL64_)
BITSTACK_GEMM_(mixed, f32, float, double, BITSTACK_PANEL32_)

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

/* ===================================================================================== [SVD]
 * Full: one-sided Jacobi. Columns are rotated in pairs, the longer one first (de Rijk, 1989), block by block
 * so that they stay in cache, until all are orthogonal to working precision.
 * Truncated: subspace iteration on A^T A with a Rayleigh-Ritz step in double after every pass.
 * Long sums are taken in blocks: their rounding errors would otherwise grow with the longer side. */

#define BITSTACK_LONG_SUM_ ((size_t)4096) /* doubles */

/* dot[0..2] += p.p, q.q, p.q. */
BITSTACK_INLINE_ void bitstack_jacobi_add_dots_(const double *p, const double *q, size_t n, double dot[3]) {
    enum { lanes = sizeof(bitstack_wide_) / sizeof(double) };
    bitstack_wide_ sum[6];
    size_t i = 0;
    memset(sum, 0, sizeof sum);
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const bitstack_wide_ *x = (const bitstack_wide_ *)(p + i), *y = (const bitstack_wide_ *)(q + i);
        sum[0] += x[0] * x[0], sum[1] += y[0] * y[0], sum[2] += x[0] * y[0];
        sum[3] += x[1] * x[1], sum[4] += y[1] * y[1], sum[5] += x[1] * y[1];
    }
    for (int k = 0; k < 3; k++) {
        double part[lanes], all;
        sum[k] += sum[k + 3];
        memcpy(part, &sum[k], sizeof part);
        all = part[0];
        for (int j = 1; j < lanes; j++) all += part[j];
        dot[k] += all;
    }
    for (; i < n; i++) dot[0] += p[i] * p[i], dot[1] += q[i] * q[i], dot[2] += p[i] * q[i];
}
/* The same from zero, block by block: an error of the sum that grows with n would hide that columns are orthogonal. */
BITSTACK_INLINE_ void bitstack_jacobi_dots_(const double *p, const double *q, size_t n, double dot[3]) {
    dot[0] = dot[1] = dot[2] = 0;
    for (size_t i = 0; i < n; i += BITSTACK_LONG_SUM_) {
        double part[3] = {0, 0, 0};
        bitstack_jacobi_add_dots_(p + i, q + i, BITSTACK_MIN_(BITSTACK_LONG_SUM_, n - i), part);
        for (int k = 0; k < 3; k++) dot[k] += part[k];
    }
}

/* p, q = c p - s q, s p + c q; exchanged if asked. */
BITSTACK_INLINE_ void bitstack_jacobi_rotate_(double *p, double *q, size_t n, double c, double s, int exchange) {
    enum { lanes = sizeof(bitstack_wide_) / sizeof(double) };
    const double pp = exchange ? s : c, pq = exchange ? c : -s, qp = exchange ? c : s, qq = exchange ? -s : c;
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        bitstack_wide_ *to = (bitstack_wide_ *)(p + i), *too = (bitstack_wide_ *)(q + i), x = *to, y = *too;
        *to = pp * x + pq * y;
        *too = qp * x + qq * y;
    }
    for (; i < n; i++) {
        double x = p[i], y = q[i];
        p[i] = pp * x + pq * y;
        q[i] = qp * x + qq * y;
    }
}

/* One sweep over all pairs of n columns of length m, column j at x + j m; v (n columns of length n) takes the
 * same rotations. Columns shorter than `tiny` are left alone. Returns the rotations made. */
BITSTACK_INLINE_ size_t bitstack_jacobi_sweep_(double *x, double *v, size_t m, size_t n, double tiny) {
    const size_t block = 24;
    const double tolerance = DBL_EPSILON * sqrt((double)m);
    size_t rotations = 0;
    for (size_t i0 = 0; i0 < n; i0 += block)
        for (size_t j0 = i0; j0 < n; j0 += block)
            for (size_t i = i0; i < BITSTACK_MIN_(i0 + block, n); i++)
                for (size_t j = BITSTACK_MAX_(i + 1, j0); j < BITSTACK_MIN_(j0 + block, n); j++) {
                    double dot[3], *p = x + i * m, *q = x + j * m;
                    bitstack_jacobi_dots_(p, q, m, dot);
                    if (dot[0] <= tiny * tiny || dot[1] <= tiny * tiny) continue;
                    if (fabs(dot[2]) <= tolerance * sqrt(dot[0]) * sqrt(dot[1])) continue;
                    double zeta = (dot[1] - dot[0]) / (2 * dot[2]);
                    double t = (zeta < 0 ? -1 : 1) / (fabs(zeta) + hypot(1, zeta)), c = 1 / sqrt(1 + t * t);
                    int exchange = dot[1] > dot[0];
                    bitstack_jacobi_rotate_(p, q, m, c, c * t, exchange);
                    bitstack_jacobi_rotate_(v + i * n, v + j * n, n, c, c * t, exchange);
                    rotations++;
                }
    return rotations;
}

BITSTACK_PRIVATE_ size_t bitstack_jacobi_sweep_plain_(double *x, double *v, size_t m, size_t n, double tiny) {
    return bitstack_jacobi_sweep_(x, v, m, n, tiny);
}
#ifdef BITSTACK_LINALG_AVX2_
__attribute__((target("avx2"))) BITSTACK_PRIVATE_ size_t bitstack_jacobi_sweep_avx2_(double *x, double *v, size_t m,
                                                                                    size_t n, double tiny) {
    return bitstack_jacobi_sweep_(x, v, m, n, tiny);
}
#else
#define bitstack_jacobi_sweep_avx2_ bitstack_jacobi_sweep_plain_
#endif

/* Columns [first, n) of x (n <= m columns of length m) become an orthonormal completion of those before:
 * unit vectors least covered so far, orthogonalised twice (Parlett's "twice is enough"). room: m doubles. */
BITSTACK_PRIVATE_ void bitstack_complete_(double *x, size_t m, size_t first, size_t n, double *room) {
    if (first == n) return;
    memset(room, 0, m * sizeof *room);
    for (size_t j = 0; j < first; j++)
        for (size_t i = 0; i < m; i++) room[i] += x[j * m + i] * x[j * m + i];
    for (size_t j = first; j < n; j++) {
        double *column = x + j * m, norm = 0;
        size_t least = 0;
        for (size_t i = 1; i < m; i++)
            if (room[i] < room[least]) least = i;
        memset(column, 0, m * sizeof *column);
        column[least] = 1;
        for (int pass = 0; pass < 2; pass++)
            for (size_t p = 0; p < j; p++) {
                double dot = 0;
                for (size_t i = 0; i < m; i++) dot += x[p * m + i] * column[i];
                for (size_t i = 0; i < m; i++) column[i] -= dot * x[p * m + i];
            }
        for (size_t i = 0; i < m; i++) norm += column[i] * column[i];
        norm = 1 / sqrt(norm);
        for (size_t i = 0; i < m; i++) column[i] *= norm, room[i] += column[i] * column[i];
    }
}

/* s[j] = length of column j; columns of x and v sorted by it, longest first. Returns s[0]. */
BITSTACK_PRIVATE_ double bitstack_sort_columns_(double *x, double *v, size_t m, size_t n, double *s) {
    for (size_t j = 0; j < n; j++) {
        double sum = 0;
        for (size_t i0 = 0; i0 < m; i0 += BITSTACK_LONG_SUM_) {
            double part = 0;
            for (size_t i = i0; i < BITSTACK_MIN_(i0 + BITSTACK_LONG_SUM_, m); i++) part += x[j * m + i] * x[j * m + i];
            sum += part;
        }
        s[j] = sqrt(sum);
    }
    for (size_t j = 0; j < n; j++) {
        size_t best = j;
        for (size_t i = j + 1; i < n; i++)
            if (s[i] > s[best]) best = i;
        if (best == j) continue;
        double t = s[j];
        s[j] = s[best], s[best] = t;
        for (size_t p = 0; p < m; p++) t = x[j * m + p], x[j * m + p] = x[best * m + p], x[best * m + p] = t;
        for (size_t p = 0; p < n; p++) t = v[j * n + p], v[j * n + p] = v[best * n + p], v[best * n + p] = t;
    }
    return s[0];
}

/* Jacobi on n <= m columns, n >= 1: x becomes U, v (n x n) becomes V, s the singular values, descending; those
 * below 1e-30 of the first are zero. Entries of x must be neither huge nor tiny. room: m doubles. */
BITSTACK_PRIVATE_ bitstack_result bitstack_jacobi_(double *x, double *v, size_t m, size_t n, double *s, double *room) {
    size_t positive = 0;
    memset(v, 0, n * n * sizeof *v);
    for (size_t j = 0; j < n; j++) v[j * n + j] = 1;
    double tiny = 1e-30 * bitstack_sort_columns_(x, v, m, n, s);
    for (int sweep = 0; bitstack_gemm_tile_pick_f64_() ? bitstack_jacobi_sweep_avx2_(x, v, m, n, tiny)
                                                       : bitstack_jacobi_sweep_plain_(x, v, m, n, tiny);
         sweep++)
        if (sweep == 60) return BITSTACK_ERROR_NUMERIC;
    bitstack_sort_columns_(x, v, m, n, s);
    for (; positive < n && s[positive] > tiny; positive++)
        for (size_t i = 0; i < m; i++) x[positive * m + i] /= s[positive];
    for (size_t j = positive; j < n; j++) s[j] = 0;
    bitstack_complete_(x, m, positive, n, room);
    return BITSTACK_OK;
}

BITSTACK_API bitstack_result bitstack_svd(const double *a, uint32_t rows, uint32_t cols, size_t stride, double *u,
                                          double *s, double *vt) {
    if (!a || !u || !s || !vt || !rows || !cols || stride < cols) return BITSTACK_ERROR_ARGUMENT;
    const int wide = rows < cols; /* then the rows are the columns to rotate: A^T = V S U^T */
    const size_t m = wide ? cols : rows, n = wide ? rows : cols;
    double largest = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            double t = fabs(a[i * stride + j]);
            if (!(t <= DBL_MAX)) return BITSTACK_ERROR_NUMERIC;
            largest = BITSTACK_MAX_(largest, t);
        }
    uint64_t mn, nn;
    if (!bitstack_mul_(m, n, &mn) || !bitstack_mul_(n, n, &nn)) return BITSTACK_ERROR_MEMORY;
    double *x = (double *)bitstack_array_(mn, sizeof *x), *v = (double *)bitstack_array_(nn, sizeof *v);
    double *room = (double *)bitstack_array_(m, sizeof *room);
    bitstack_result result = x && v && room ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    if (result == BITSTACK_OK) {
        int exponent = 0; /* entries are brought below 1 by a power of two, in two steps for the extremes */
        if (largest > 0) frexp(largest, &exponent);
        double down = ldexp(1, -(exponent / 2)), rest = ldexp(1, -(exponent - exponent / 2));
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < cols; j++) x[wide ? i * m + j : j * m + i] = a[i * stride + j] * down * rest;
        result = bitstack_jacobi_(x, v, m, n, s, room);
        for (size_t j = 0; j < n && result == BITSTACK_OK; j++) {
            const double *left = wide ? v + j * n : x + j * m, *right = wide ? x + j * m : v + j * n;
            s[j] = s[j] / rest / down;
            if (!(s[j] <= DBL_MAX)) result = BITSTACK_ERROR_NUMERIC;
            for (size_t i = 0; i < rows; i++) u[i * n + j] = left[i];
            memcpy(vt + j * cols, right, cols * sizeof *vt);
        }
    }
    bitstack_drop_(x), bitstack_drop_(v), bitstack_drop_(room);
    return result;
}

/* --- Truncated. Tall thin matrices (n x l) are kept as panels of 16 columns, [panel][n][16], which is how the
 * register tile reads and writes them; l is a multiple of 16. */

#define BITSTACK_POWER_ROWS_ 48u    /* rows of A multiplied from both sides while they are in cache */
#define BITSTACK_POWER_CHUNKS_ 16u  /* partial sums of A^T B at least: fixed, so that threads do not change the result */
#define BITSTACK_POWER_LONG_ 8160u  /* rows a partial sum at most, a multiple of BITSTACK_POWER_ROWS_ */
#define BITSTACK_POWER_SPAN_ 8192u  /* columns whose products are added up in float, a multiple of 512 */

typedef struct bitstack_power_ {
    const float *a;
    size_t m, n, stride, l, rows; /* rows a chunk */
    float *q, *hat, *b, *z;       /* n x l, n x l, m x l, and a z (n x l) a chunk; z[0] gets the sum */
    double *wide;                 /* a worker, where there is more than one span: BITSTACK_POWER_ROWS_ x l */
    uint32_t chunks;
    uint64_t seed;
} bitstack_power_;

/* One chunk of rows: B = A Q, z = A^T B, reading A from memory once. */
BITSTACK_PRIVATE_ void bitstack_power_pass_(void *arg, uint32_t task, uint32_t worker) {
    const bitstack_power_ *s = (const bitstack_power_ *)arg;
    const size_t w = BITSTACK_PANEL32_, tall = BITSTACK_GEMM_ROWS_, n = s->n;
    bitstack_gemm_tile_f32_ fast = bitstack_gemm_tile_pick_f32_();
    float *z = s->z + task * n * s->l;
    double *wide = s->wide ? s->wide + worker * BITSTACK_POWER_ROWS_ * s->l : NULL;
    const size_t begin = task * s->rows, end = BITSTACK_MIN_(begin + s->rows, s->m);
    memset(z, 0, n * s->l * sizeof *z);
    for (size_t i0 = begin; i0 < end; i0 += BITSTACK_POWER_ROWS_) {
        size_t h = BITSTACK_MIN_(BITSTACK_POWER_ROWS_, end - i0);
        const float *a = s->a + i0 * s->stride;
        for (size_t span = 0; span < n; span += BITSTACK_POWER_SPAN_) {
            const size_t stop = BITSTACK_MIN_(span + BITSTACK_POWER_SPAN_, n);
            for (size_t p = 0; p < s->l / w; p++) memset(s->b + (p * s->m + i0) * w, 0, h * w * sizeof(float));
            for (size_t j0 = span; j0 < stop; j0 += 512)
                for (size_t p = 0; p < s->l / w; p++)
                    bitstack_gemm_tile_any_f32_(fast, h, BITSTACK_MIN_(512, stop - j0), a + j0, s->stride, 1,
                                                s->q + (p * n + j0) * w, w, s->b + (p * s->m + i0) * w, w);
            for (size_t p = 0; wide && p < s->l / w; p++) {
                float *b = s->b + (p * s->m + i0) * w;
                double *sum = wide + p * BITSTACK_POWER_ROWS_ * w;
                for (size_t i = 0; i < h * w; i++) sum[i] = (span ? sum[i] : 0) + (double)b[i], b[i] = (float)sum[i];
            }
        }
        for (size_t j = 0; j < n; j += tall)
            for (size_t p = 0; p < s->l / w; p++)
                bitstack_gemm_tile_any_f32_(fast, BITSTACK_MIN_(tall, n - j), h, a + j, 1, s->stride,
                                            s->b + (p * s->m + i0) * w, w, z + (p * n + j) * w, w);
    }
}

/* Adds up the chunks' z in order; a task is one panel row range of 4096 floats. */
BITSTACK_PRIVATE_ void bitstack_power_sum_(void *arg, uint32_t task, uint32_t worker) {
    const bitstack_power_ *s = (const bitstack_power_ *)arg;
    const size_t count = s->n * s->l, begin = (size_t)task * 4096, end = BITSTACK_MIN_(begin + 4096, count);
    double sum[512];
    (void)worker;
    for (size_t i0 = begin; i0 < end; i0 += 512) {
        const size_t some = BITSTACK_MIN_(512, end - i0);
        memset(sum, 0, sizeof sum);
        for (size_t c = 0; c < s->chunks; c++)
            for (size_t i = 0; i < some; i++) sum[i] += (double)s->z[c * count + i0 + i];
        for (size_t i = 0; i < some; i++) s->z[i0 + i] = (float)sum[i];
    }
}

/* B = A Q, z[0] = A^T B. */
BITSTACK_PRIVATE_ void bitstack_power_multiply_(bitstack_power_ *p, int threads) {
    bitstack_parallel_(threads, p->chunks, bitstack_power_pass_, p);
    bitstack_parallel_(threads, (uint32_t)((p->n * p->l + 4095) / 4096), bitstack_power_sum_, p);
}

/* g (l x l, both triangles) = X^T Y, taken to be symmetric, for panels of n rows: float sums over 128 rows, added
 * up in double. */
BITSTACK_PRIVATE_ void bitstack_power_gram_(const float *x, const float *y, size_t n, size_t l, double *g) {
    enum { w = BITSTACK_PANEL32_ };
    bitstack_gemm_tile_f32_ fast = bitstack_gemm_tile_pick_f32_();
    memset(g, 0, l * l * sizeof *g);
    for (size_t p = 0; p < l / w; p++)
        for (size_t q = 0; q <= p; q++)
            for (size_t i0 = 0; i0 < n; i0 += 128) {
                float part[w * w] = {0};
                bitstack_gemm_tile_any_f32_(fast, w, BITSTACK_MIN_(128, n - i0), x + (p * n + i0) * w, 1, w,
                                            y + (q * n + i0) * w, w, part, w);
                for (size_t r = 0; r < w; r++)
                    for (size_t c = 0; c < w; c++) g[(p * w + r) * l + q * w + c] += (double)part[r * w + c];
            }
    for (size_t i = 0; i < l; i++)
        for (size_t j = i + 1; j < l; j++) g[i * l + j] = g[j * l + i];
}

/* to = X T for panels of n rows and T in panels too, [panel][l][16]. */
BITSTACK_PRIVATE_ void bitstack_power_combine_(const float *x, size_t n, size_t l, const float *t, float *to) {
    const size_t w = BITSTACK_PANEL32_;
    bitstack_gemm_tile_f32_ fast = bitstack_gemm_tile_pick_f32_();
    memset(to, 0, n * l * sizeof *to);
    for (size_t i = 0; i < n; i += BITSTACK_GEMM_ROWS_)
        for (size_t q = 0; q < l / w; q++)
            for (size_t p = 0; p < l / w; p++)
                bitstack_gemm_tile_any_f32_(fast, BITSTACK_MIN_((size_t)BITSTACK_GEMM_ROWS_, n - i), w,
                                            x + (p * n + i) * w, w, 1, t + (q * l + p * w) * w, w, to + (q * n + i) * w, w);
}

/* Cholesky factor L of D c D, D = diag(scale) giving it a unit diagonal; inverse = L^-1 (l x l each). A column that
 * those before it span, its pivot below `least` (a squared sine), is dropped: zero in the inverse. Returns the least
 * pivot. c is overwritten. */
BITSTACK_PRIVATE_ double bitstack_power_cholesky_(double *c, size_t l, double least, double *inverse, double *scale) {
    double lowest = 1;
    for (size_t j = 0; j < l; j++) scale[j] = c[j * l + j] > 0 ? 1 / sqrt(c[j * l + j]) : 0;
    for (size_t i = 0; i < l; i++)
        for (size_t j = 0; j < l; j++) c[i * l + j] *= scale[i] * scale[j];
    memset(inverse, 0, l * l * sizeof *inverse);
    for (size_t i = 0; i < l; i++) {
        double *row = c + i * l, sum = row[i];
        for (size_t j = 0; j < i; j++) {
            for (size_t p = 0; p < j; p++) row[j] -= row[p] * c[j * l + p];
            row[j] = c[j * l + j] > 0 ? row[j] / c[j * l + j] : 0;
            sum -= row[j] * row[j];
        }
        lowest = BITSTACK_MIN_(lowest, sum);
        row[i] = sum > least ? sqrt(sum) : 0;
        if (row[i] == 0) continue;
        inverse[i * l + i] = 1 / row[i];
        for (size_t p = 0; p < i; p++)
            for (size_t j = 0; j <= p; j++) inverse[i * l + j] -= row[p] / row[i] * inverse[p * l + j];
    }
    return lowest;
}

/* Rayleigh-Ritz: with the Gram matrices c = Q^T Q and g = Q^T A^T A Q (l x l), finds T (columns) with T^T c T = I
 * and T^T g T = diag(value), descending. Directions that c lacks get value 0 and a zero column. `work`:
 * 3 l^2 + 2 l doubles. */
BITSTACK_PRIVATE_ bitstack_result bitstack_power_ritz_(double *c, double *g, size_t l, double *t, double *value,
                                                       double *work) {
    double *inverse = work, *x = work + l * l, *v = work + 2 * l * l, *scale = work + 3 * l * l;
    bitstack_power_cholesky_(c, l, 1e-5, inverse, scale);
    for (size_t i = 0; i < l; i++)
        for (size_t j = 0; j < l; j++) g[i * l + j] *= scale[i] * scale[j];
    for (size_t i = 0; i < l; i++) /* t = L^-1 g */
        for (size_t j = 0; j < l; j++) {
            t[i * l + j] = 0;
            for (size_t p = 0; p <= i; p++) t[i * l + j] += inverse[i * l + p] * g[p * l + j];
        }
    for (size_t i = 0; i < l; i++) /* x = L^-1 g L^-T, symmetric, so that rows serve as columns */
        for (size_t j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t p = 0; p <= j; p++) sum += t[i * l + p] * inverse[j * l + p];
            x[i * l + j] = x[j * l + i] = sum;
        }
    double largest = 0;
    for (size_t i = 0; i < l; i++) largest = BITSTACK_MAX_(largest, fabs(x[i * l + i]));
    for (size_t i = 0; i < l * l && largest > 0; i++) x[i] /= largest;
    bitstack_result result = bitstack_jacobi_(x, v, l, l, value, scale + l);
    for (size_t j = 0; j < l; j++) {
        value[j] *= largest;
        for (size_t i = 0; i < l; i++) { /* t = D L^-T v */
            double sum = 0;
            for (size_t p = i; p < l; p++) sum += inverse[p * l + i] * v[j * l + p];
            t[i * l + j] = scale[i] * sum;
        }
    }
    return result;
}

/* Panels of m rows times T: column `column` of X T into to[i * stride], for i < m. */
BITSTACK_PRIVATE_ void bitstack_panel_column_(const float *x, size_t m, size_t l, const double *t, size_t column,
                                              double factor, double *to) {
    const size_t w = BITSTACK_PANEL32_;
    for (size_t i = 0; i < m; i++) {
        double sum = 0;
        for (size_t j = 0; j < l; j++) sum += (double)x[(j / w * m + i) * w + j % w] * t[j * l + column];
        to[i] = sum * factor;
    }
}

/* The small case, in full. */
BITSTACK_PRIVATE_ bitstack_result bitstack_svd_small_(const float *a, uint32_t rows, uint32_t cols, size_t stride,
                                                      uint32_t k, float *u, float *s, float *vt) {
    const size_t n = BITSTACK_MIN_(rows, cols);
    double *x = (double *)bitstack_array_((uint64_t)rows * cols, sizeof *x);
    double *du = (double *)bitstack_array_((uint64_t)rows * n, sizeof *x), *ds = (double *)bitstack_array_(n, sizeof *x);
    double *dvt = (double *)bitstack_array_((uint64_t)cols * n, sizeof *x);
    bitstack_result result = BITSTACK_ERROR_MEMORY;
    if (x && du && ds && dvt) {
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < cols; j++) x[i * cols + j] = a[i * stride + j];
        result = bitstack_svd(x, rows, cols, cols, du, ds, dvt);
    }
    if (result == BITSTACK_OK) {
        for (size_t r = 0; r < k; r++) s[r] = (float)ds[r];
        for (size_t i = 0; i < rows; i++)
            for (size_t r = 0; r < k; r++) u[i * k + r] = (float)du[i * n + r];
        for (size_t j = 0; j < (size_t)k * cols; j++) vt[j] = (float)dvt[j];
    }
    bitstack_drop_(x), bitstack_drop_(du), bitstack_drop_(ds), bitstack_drop_(dvt);
    return result;
}

/* Makes Q's columns nearly orthogonal by Cholesky QR, again while that was badly conditioned: where one singular value
 * towers over the rest, a pass leaves rounding errors along its vector in every column. Columns without a direction of
 * their own start again at random. c: Q^T Q on return. */
BITSTACK_PRIVATE_ void bitstack_power_orthogonalise_(bitstack_power_ *p, double *c, double *work) {
    const size_t l = p->l, n = p->n, w = BITSTACK_PANEL32_;
    double *inverse = work, *scale = work + l * l, *copy = scale + l;
    float *step = (float *)(void *)(copy + l * l);
    for (int round = 0;; round++) {
        bitstack_power_gram_(p->q, p->q, n, l, c);
        memcpy(copy, c, l * l * sizeof *copy);
        if (bitstack_power_cholesky_(copy, l, 1e-5, inverse, scale) > 0.99 || round == 4) return;
        for (size_t j = 0; j < l; j++)
            for (size_t i = 0; i < l; i++) step[(j / w * l + i) * w + j % w] = (float)(scale[i] * inverse[j * l + i]);
        bitstack_power_combine_(p->q, n, l, step, p->hat);
        float *q = p->hat;
        p->hat = p->q, p->q = q;
        for (size_t j = 0; j < l; j++)
            for (size_t i = 0; i < n && inverse[j * l + j] == 0; i++)
                q[(j / w * n + i) * w + j % w] = (float)bitstack_random_signed_(&p->seed);
    }
}

/* bitstack_svd_truncated with entries between about 2^-40 and 2^40 at the largest, stopping when what further
 * passes would still gain is below `tolerance` of the squared error. total = |a|^2. On return the singular vectors
 * are Q T and B T / sqrt(value). t: l^2 doubles, value: l, work: 5 l^2 + 2 l. */
BITSTACK_PRIVATE_ bitstack_result bitstack_power_iterate_(bitstack_power_ *p, uint32_t k, int threads, double tolerance,
                                                          double total, double *t, double *value, double *work) {
    const size_t l = p->l, w = BITSTACK_PANEL32_;
    double *c = work, *g = work + l * l, *ritz = work + 2 * l * l;
    float *step = (float *)(void *)ritz, *vectors = step + l * l; /* T scaled and plain, once ritz is done */
    double energy = 0, gain = 0;
    for (int pass = 0; pass < 200; pass++) {
        double before = energy, last = gain;
        bitstack_power_orthogonalise_(p, c, ritz);
        bitstack_power_multiply_(p, threads);
        bitstack_power_gram_(p->q, p->z, p->n, l, g);
        bitstack_result result = bitstack_power_ritz_(c, g, l, t, value, ritz);
        if (result != BITSTACK_OK) return result;
        energy = 0;
        for (size_t j = 0; j < k; j++) energy += value[j];
        gain = energy - before;
        /* Gains shrink by a ratio that itself rises towards 1: the rest is taken as twice the geometric sum.
         * Below 1e-9 of the whole only rounding is left. */
        double ratio = last > 0 ? BITSTACK_MAX_(0.7, BITSTACK_MIN_(gain / last, 0.97)) : 0.97;
        double rest = 2 * gain * ratio / (1 - ratio), error = BITSTACK_MAX_(total - energy, 0);
        if (pass > 2 && (rest <= tolerance * error || gain <= 1e-9 * total)) break;
        /* Next Q: T_2 of A^T A, Chebyshev's polynomial over [0, least Ritz value], which pulls values just above
         * that interval up twice as fast a pass as powers do; but where the first value towers over the rest a
         * second pass without orthogonalisation would drown them in its rounding errors. */
        const double bound = value[l - 1];
        const int degree = bound > 0 && value[0] < 2e4 * bound ? 2 : 1;
        for (size_t j = 0; j < l; j++)
            for (size_t i = 0; i < l; i++) {
                size_t at = (j / w * l + i) * w + j % w;
                double f = degree == 2 ? 2 / bound : value[j] > 0 ? 1 / value[j] : 0;
                vectors[at] = (float)t[i * l + j], step[at] = (float)(t[i * l + j] * f);
            }
        if (degree == 2) bitstack_power_combine_(p->q, p->n, l, vectors, p->hat);
        bitstack_power_combine_(p->z, p->n, l, step, p->q);
        if (degree == 1) continue;
        for (size_t i = 0; i < p->n * l; i++) p->q[i] -= p->hat[i];
        bitstack_power_multiply_(p, threads);
        for (size_t j = 0; j < l; j++) {
            double x = 2 * value[j] / bound - 1, norm = 1 / (2 * x * x - 1);
            float fz = (float)(4 / bound * norm), fq = (float)(2 * norm), fh = (float)norm;
            float *q = p->q + j / w * p->n * w + j % w;
            const float *z = p->z + (q - p->q), *hat = p->hat + (q - p->q);
            for (size_t i = 0; i < p->n * w; i += w) q[i] = fz * z[i] - fq * q[i] - fh * hat[i];
        }
    }
    return BITSTACK_OK;
}

/* As bitstack_svd_truncated, with the tolerance told. */
BITSTACK_PRIVATE_ bitstack_result bitstack_svd_power_(const float *a, uint32_t rows, uint32_t cols, size_t stride,
                                                      uint32_t k, const float *warm_vt, uint64_t seed, int threads,
                                                      double tolerance, float *u, float *s, float *vt) {
    const uint64_t least = BITSTACK_MIN_(rows, cols), most = BITSTACK_MAX_(rows, cols);
    const size_t m = rows, n = cols, w = BITSTACK_PANEL32_;
    uint32_t largest = 0;
    double total = 0;
    for (size_t i = 0; i < m; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) {
            uint32_t bits = bitstack_bits_from_float_(a[i * stride + j]) & 0x7FFFFFFFu;
            largest = BITSTACK_MAX_(largest, bits);
            sum += (double)a[i * stride + j] * (double)a[i * stride + j];
        }
        total += sum;
    }
    if (largest >= 0x7F800000u) return BITSTACK_ERROR_NUMERIC;
    if (least <= 128 && least * least * most <= (uint64_t)1 << 22)
        return bitstack_svd_small_(a, rows, cols, stride, k, u, s, vt);

    int exponent = bitstack_exponent_((double)bitstack_float_from_bits_(largest));
    float *copy = NULL;
    if (exponent > 40 || exponent < -40) { /* squares would leave the range of float */
        copy = (float *)bitstack_array_((uint64_t)m * n, sizeof *copy);
        if (!copy) return BITSTACK_ERROR_MEMORY;
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) copy[i * n + j] = (float)ldexp((double)a[i * stride + j], -exponent);
        a = copy, stride = n, total = ldexp(total, -2 * exponent);
    }

    bitstack_power_ p;
    p.a = a, p.m = m, p.n = n, p.stride = stride, p.seed = seed, p.l = ((size_t)k + BITSTACK_MAX_(8, k / 4) + w - 1) / w * w;
    p.rows = ((m + BITSTACK_POWER_CHUNKS_ - 1) / BITSTACK_POWER_CHUNKS_ + BITSTACK_POWER_ROWS_ - 1) /
             BITSTACK_POWER_ROWS_ * BITSTACK_POWER_ROWS_;
    p.rows = BITSTACK_MIN_(p.rows, BITSTACK_POWER_LONG_);
    p.chunks = (uint32_t)((m + p.rows - 1) / p.rows);
    const size_t l = p.l;
    uint64_t room = (uint64_t)k * most; /* for an orthonormal completion */
    p.q = (float *)bitstack_array_((uint64_t)n * l, sizeof(float));
    p.hat = (float *)bitstack_array_((uint64_t)n * l, sizeof(float));
    p.b = (float *)bitstack_array_((uint64_t)m * l, sizeof(float));
    p.z = (float *)bitstack_array_((uint64_t)n * l * p.chunks, sizeof(float));
    double *t = (double *)bitstack_array_((uint64_t)l * (6 * l + 3), sizeof *t);
    double *full = (double *)bitstack_array_(room + most, sizeof *full);
    p.wide = NULL;
    if (n > BITSTACK_POWER_SPAN_)
        p.wide = (double *)bitstack_array_((uint64_t)bitstack_workers_(threads, p.chunks) * BITSTACK_POWER_ROWS_ * l, sizeof *p.wide);
    bitstack_result result = p.q && p.hat && p.b && p.z && t && full && (p.wide || n <= BITSTACK_POWER_SPAN_)
                                 ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    if (result == BITSTACK_OK) {
        for (size_t j = 0; j < n; j++) /* the columns given, then random ones */
            for (size_t i = 0; i < l; i++)
                p.q[(i / w * n + j) * w + i % w] =
                    warm_vt && i < k ? warm_vt[i * n + j] : (float)bitstack_random_signed_(&p.seed);
        double *value = t + l * l;
        result = bitstack_power_iterate_(&p, k, threads, tolerance, total, t, value, value + l);
        if (result == BITSTACK_OK) {
            size_t positive = 0; /* up to where U comes out orthonormal: float sums carry about 1e-6 of s[0] */
            for (; positive < k && value[positive] > 1e-13 * value[0]; positive++) {
                double *column = full + positive * m, norm = 0;
                bitstack_panel_column_(p.b, m, l, t, positive, 1 / sqrt(value[positive]), column);
                for (size_t r = 0; r < positive; r++) {
                    double dot = 0;
                    for (size_t i = 0; i < m; i++) dot += full[r * m + i] * column[i];
                    for (size_t i = 0; i < m; i++) column[i] -= dot * full[r * m + i];
                }
                for (size_t i = 0; i < m; i++) norm += column[i] * column[i];
                if (!(norm > 0.5)) break;
                for (size_t i = 0; i < m; i++) column[i] /= sqrt(norm);
                s[positive] = (float)sqrt(value[positive]);
            }
            bitstack_complete_(full, m, positive, k, full + room);
            for (size_t i = 0; i < m; i++)
                for (size_t r = 0; r < k; r++) u[i * k + r] = (float)full[r * m + i];
            for (size_t r = 0; r < positive; r++) bitstack_panel_column_(p.q, n, l, t, r, 1, full + r * n);
            bitstack_complete_(full, n, positive, k, full + room);
            for (size_t i = 0; i < (size_t)k * n; i++) vt[i] = (float)full[i];
            for (size_t r = positive; r < k; r++) s[r] = 0;
            for (size_t r = 0; r < positive && copy; r++) s[r] = (float)ldexp((double)s[r], exponent);
        }
    }
    bitstack_drop_(copy);
    bitstack_drop_(p.q), bitstack_drop_(p.hat), bitstack_drop_(p.b), bitstack_drop_(p.z), bitstack_drop_(t);
    bitstack_drop_(full), bitstack_drop_(p.wide);
    return result;
}

BITSTACK_API bitstack_result bitstack_svd_truncated(const float *a, uint32_t rows, uint32_t cols, size_t stride,
                                                    uint32_t k, const float *warm_vt, uint64_t seed, int threads,
                                                    float *u, float *s, float *vt) {
    if (!a || !u || !s || !vt || !rows || !cols || stride < cols || !k || k > rows || k > cols)
        return BITSTACK_ERROR_ARGUMENT;
    bitstack_result result = bitstack_svd_power_(a, rows, cols, stride, k, warm_vt, seed, threads, 4e-4, u, s, vt);
    return result == BITSTACK_OK && !(s[0] <= FLT_MAX) ? BITSTACK_ERROR_NUMERIC : result; /* s[0] may overflow */
}

/* ================================================================================= [MOMENTS]
 * h += X^T X in blocks of channels over batches of inputs, lower triangle first, mirrored at the end of a
 * sample. scratch: this sample's sums of squares, two blocks of a batch in double, packing scratch. */

#define BITSTACK_BATCH_ 128

BITSTACK_API bitstack_result bitstack_moments_init(bitstack_moments *moments, uint32_t cols, int with_h) {
    if (moments) memset(moments, 0, sizeof *moments);
    if (!moments || !cols || cols > 1u << 30) return BITSTACK_ERROR_ARGUMENT;
    bitstack_moments made;
    memset(&made, 0, sizeof made);
    made.cols = cols;
    made.norms = (double *)bitstack_zeros_(cols, sizeof(double));
    if (with_h) made.h = (double *)bitstack_zeros_((uint64_t)cols * cols, sizeof(double));
    made.scratch = (double *)bitstack_array_(
        (uint64_t)cols + (with_h ? 2 * BITSTACK_BATCH_ * BITSTACK_NB_ + BITSTACK_PACK_ : 0), sizeof(double));
    if (!made.norms || !made.scratch || (with_h && !made.h)) {
        bitstack_moments_free(&made);
        return BITSTACK_ERROR_MEMORY;
    }
    *moments = made;
    return BITSTACK_OK;
}

BITSTACK_API void bitstack_moments_free(bitstack_moments *moments) {
    if (!moments) return;
    bitstack_drop_(moments->h), bitstack_drop_(moments->norms), bitstack_drop_(moments->scratch);
    memset(moments, 0, sizeof *moments);
}

BITSTACK_PRIVATE_ int bitstack_finite_row_(const float *x, size_t count) {
    uint32_t largest = 0;
    for (size_t j = 0; j < count; j++) {
        uint32_t bits = bitstack_bits_from_float_(x[j]) & 0x7FFFFFFFu;
        largest = BITSTACK_MAX_(largest, bits);
    }
    return largest < 0x7F800000u;
}

BITSTACK_PRIVATE_ void bitstack_widen_(const float *const *rows, size_t count, size_t at, size_t width, double *to) {
    for (size_t t = 0; t < count; t++)
        for (size_t j = 0; j < width; j++) to[t * BITSTACK_NB_ + j] = (double)rows[t][at + j];
}

BITSTACK_API void bitstack_moments_add(bitstack_moments *moments, const float *x, size_t tokens, size_t stride) {
    const size_t n = moments->cols, nb = BITSTACK_NB_;
    double *square = moments->scratch, *left = square + n, *right = left + BITSTACK_BATCH_ * nb;
    double *pack = right + BITSTACK_BATCH_ * nb, *h = moments->h;
    uint64_t added = 0;
    memset(square, 0, n * sizeof *square);
    for (size_t at = 0; at < tokens;) {
        const float *rows[BITSTACK_BATCH_];
        size_t count = 0;
        for (; at < tokens && count < BITSTACK_BATCH_; at++)
            if (bitstack_finite_row_(x + at * stride, n)) rows[count++] = x + at * stride;
        for (size_t t = 0; t < count; t++)
            for (size_t j = 0; j < n; j++) square[j] += (double)rows[t][j] * (double)rows[t][j];
        added += count;
        for (size_t i = 0; h && count && i < n; i += nb) {
            size_t tall = BITSTACK_MIN_(nb, n - i);
            bitstack_widen_(rows, count, i, tall, left);
            for (size_t j = 0; j <= i; j += nb) {
                size_t wide = BITSTACK_MIN_(nb, n - j);
                if (j < i) bitstack_widen_(rows, count, j, wide, right);
                bitstack_gemm_f64_(tall, wide, count, 1, left, 1, nb, j < i ? right : left, nb, 1, h + i * n + j, n, pack);
            }
        }
    }
    if (!added) return;
    for (size_t i0 = 0; h && i0 < n; i0 += 16)
        for (size_t j0 = 0; j0 <= i0; j0 += 16)
            for (size_t i = i0; i < BITSTACK_MIN_(i0 + 16, n); i++)
                for (size_t j = j0; j < BITSTACK_MIN_(j0 + 16, i); j++) h[j * n + i] = h[i * n + j];
    for (size_t j = 0; j < n; j++) moments->norms[j] += sqrt(square[j]);
    moments->count += added;
    moments->samples++;
}

BITSTACK_API bitstack_result bitstack_moments_merge(bitstack_moments *into, const bitstack_moments *from) {
    if (!into || !from || into->cols != from->cols || (into->h && !from->h)) return BITSTACK_ERROR_ARGUMENT;
    const size_t n = into->cols;
    for (size_t i = 0; into->h && from->h && i < n * n; i++) into->h[i] += from->h[i];
    for (size_t j = 0; j < n; j++) into->norms[j] += from->norms[j];
    into->count += from->count;
    into->samples += from->samples;
    return BITSTACK_OK;
}

BITSTACK_API double bitstack_moments_scale(const bitstack_moments *moments, uint32_t j) {
    return (moments->samples ? moments->norms[j] / (double)moments->samples : 0) + 1e-3;
}

/* =================================================================================== [CODED] */

/* Sign planes of rows [begin, begin + count) of r (at r, `stride` floats apart), begin a multiple of 64: 1 where
 * r >= 0, -0 included. `plane` is the whole plane part ([FORMAT] in bitstack.h), zero before. */
BITSTACK_PRIVATE_ void bitstack_pack_signs_(const float *r, uint32_t begin, uint32_t count, uint32_t cols, size_t stride,
                                            unsigned char *plane) {
    const size_t tile_bytes = ((size_t)cols + 3) / 4 * 32;
    for (uint32_t i = 0; i < count; i++) {
        const float *row = r + i * stride;
        const uint32_t at = begin + i, shift = at / 32 % 2 * 4;
        unsigned char *to = plane + at / 64 * tile_bytes + at % 32;
        uint32_t j = 0;
        for (; j + 4 <= cols; j += 4, to += 32)
            *to = (unsigned char)(*to | ((uint32_t)(row[j] >= 0) | (uint32_t)(row[j + 1] >= 0) << 1 |
                                         (uint32_t)(row[j + 2] >= 0) << 2 | (uint32_t)(row[j + 3] >= 0) << 3) << shift);
        for (uint32_t c = 0; j + c < cols; c++) *to = (unsigned char)(*to | (uint32_t)(row[j + c] >= 0) << (c + shift));
    }
}

/* Rounds a factor to the type it is stored as; f16 saturates. */
BITSTACK_PRIVATE_ float bitstack_factor_round_(float value, bitstack_type type) {
    if (type == BITSTACK_F32) return value;
    return bitstack_f16_to_f32(bitstack_f32_to_f16(BITSTACK_MAX_(-65504.0f, BITSTACK_MIN_(value, 65504.0f))));
}

/* Element i of a stored factor. */
BITSTACK_PRIVATE_ void bitstack_factor_store_(unsigned char *part, size_t i, float value, bitstack_type type) {
    uint32_t bits = type == BITSTACK_F32 ? bitstack_bits_from_float_(value)
                                         : bitstack_f32_to_f16(bitstack_factor_round_(value, type));
    size_t bytes = type == BITSTACK_F32 ? 4 : 2;
    for (size_t b = 0; b < bytes; b++) part[i * bytes + b] = (unsigned char)(bits >> 8 * b);
}

/* Zeroed payloads for every level of coded->shape. */
BITSTACK_PRIVATE_ bitstack_result bitstack_coded_allocate_(bitstack_coded *coded) {
    for (uint32_t i = 0; i < coded->shape.levels; i++) {
        uint64_t bytes = bitstack_block_bytes(&coded->shape, i + 1);
        if (!bytes) return BITSTACK_ERROR_ARGUMENT;
        coded->blocks[i] = (unsigned char *)bitstack_zeros_(bytes, 1);
        if (!coded->blocks[i]) return BITSTACK_ERROR_MEMORY;
    }
    return BITSTACK_OK;
}

BITSTACK_API void bitstack_coded_free(bitstack_coded *coded) {
    if (!coded) return;
    for (int i = 0; i < BITSTACK_MAX_LEVELS; i++) bitstack_drop_(coded->blocks[i]);
    memset(coded, 0, sizeof *coded);
}

/* The three parts of block `block` (1-based). */
BITSTACK_PRIVATE_ unsigned char *bitstack_coded_columns_(const bitstack_coded *coded, uint32_t block) {
    return coded->blocks[block - 1];
}
BITSTACK_PRIVATE_ unsigned char *bitstack_coded_coefficients_(const bitstack_coded *coded, uint32_t block) {
    return coded->blocks[block - 1] + bitstack_column_bytes(&coded->shape, block);
}
BITSTACK_PRIVATE_ unsigned char *bitstack_coded_signs_(const bitstack_coded *coded, uint32_t block) {
    return bitstack_coded_coefficients_(coded, block) + bitstack_coefficient_bytes(&coded->shape, block);
}

BITSTACK_API bitstack_result bitstack_coded_view(const bitstack_coded *coded, uint32_t level, bitstack_plane *planes,
                                                 bitstack_view *view) {
    if (view) memset(view, 0, sizeof *view);
    if (!coded || !view || level > coded->shape.levels || (level && !planes)) return BITSTACK_ERROR_ARGUMENT;
    if (level && !coded->blocks[level - 1]) return BITSTACK_ERROR_ARGUMENT;
    const bitstack_shape *shape = &coded->shape;
    const size_t plane_coefficients = bitstack_coefficient_step_(shape);
    for (uint32_t p = 1; p <= level; p++) {
        uint32_t v = shape->columns == BITSTACK_COLUMNS_OWN ? p : shape->columns == BITSTACK_COLUMNS_FIRST ? 1 : level;
        planes[p - 1].columns = bitstack_coded_columns_(coded, v);
        planes[p - 1].coefficients = shape->coefficients == BITSTACK_COEFFICIENTS_OWN
                                         ? bitstack_coded_coefficients_(coded, p)
                                         : bitstack_coded_coefficients_(coded, level) + (p - 1) * plane_coefficients;
        planes[p - 1].signs = bitstack_coded_signs_(coded, p);
    }
    view->rows = shape->rows, view->cols = shape->cols, view->rank = shape->rank, view->group_cols = shape->group_cols;
    view->level = level, view->factor_type = shape->factor_type, view->scale = shape->scale, view->planes = planes;
    view->encoding = shape->encoding, view->kept = shape->kept;
    return BITSTACK_OK;
}

/* |D|^2 and tr(D H D^T) of D = w, or w minus a view. H is symmetric, so block column J of D H is taken from the
 * blocks at and below it only, those below twice. */
typedef struct bitstack_norms_ {
    const float *w;
    const bitstack_view *view;
    const double *h;
    size_t rows, cols, stride;
    double rough;     /* not 0: D H in float, D times this: twice as fast, good to 4 digits or so */
    double unit;      /* a power of two that brings H's diagonal below 1: float has no range to lose */
    double *room;     /* a worker: rows of D, the same in float, a block of D H, packing */
    double (*sum)[2]; /* a task */
    size_t room_each;
} bitstack_norms_;

BITSTACK_PRIVATE_ void bitstack_norms_rows_(void *arg, uint32_t task, uint32_t worker) {
    const bitstack_norms_ *s = (const bitstack_norms_ *)arg;
    const size_t nb = BITSTACK_NB_, n = s->cols, begin = task * nb, h = BITSTACK_MIN_(nb, s->rows - begin);
    const size_t tall = BITSTACK_MIN_(nb, s->rows);
    double *d = s->room + worker * s->room_each, *block = d + tall * n, *pack = block + tall * nb, plain = 0, weighted = 0;
    float *q = (float *)(void *)block, *df = (float *)(void *)d, *bf = (float *)(void *)block; /* q: rows of the view */
    size_t at_once = 2 * (s->room_each - tall * n) / n, have = 0;
    at_once = BITSTACK_MIN_(at_once, 16);
    for (size_t i = 0; i < h; i++, q += n) {
        const float *w = s->w + (begin + i) * s->stride;
        double sum = 0;
        if (s->view && i == have) {
            have = BITSTACK_MIN_(i + at_once, h), q = (float *)(void *)block;
            bitstack_view_dequantize(s->view, (uint32_t)(begin + i), (uint32_t)(have - i), q, n);
        }
        for (size_t j = 0; j < n; j++) {
            double t = (double)w[j] - (s->view ? (double)q[j] : 0);
            if (s->rough > 0) df[i * n + j] = (float)(t * s->rough);
            else d[i * n + j] = t;
            sum += t * t;
        }
        plain += sum;
    }
    for (size_t j0 = 0; s->h && j0 < n; j0 += nb) {
        const size_t wide = BITSTACK_MIN_(nb, n - j0), j1 = j0 + wide;
        const double *diagonal = s->h + j0 * n + j0, *below = s->h + j1 * n + j0;
        memset(block, 0, h * nb * sizeof *block);
        if (s->rough > 0) {
            bitstack_gemm_mixed_(h, wide, n - j1, 2 * s->unit, df + j1, n, 1, below, n, 1, bf, nb, (float *)(void *)pack);
            bitstack_gemm_mixed_(h, wide, wide, s->unit, df + j0, n, 1, diagonal, n, 1, bf, nb, (float *)(void *)pack);
        } else {
            bitstack_gemm_f64_(h, wide, n - j1, 2, d + j1, n, 1, below, n, 1, block, nb, pack);
            bitstack_gemm_f64_(h, wide, wide, 1, d + j0, n, 1, diagonal, n, 1, block, nb, pack);
        }
        for (size_t i = 0; i < h; i++)
            for (size_t j = 0, at = i * nb, from = i * n + j0; j < wide; j++)
                weighted += s->rough > 0 ? (double)bf[at + j] * (double)df[from + j] : block[at + j] * d[from + j];
    }
    s->sum[task][0] = plain, s->sum[task][1] = s->h ? weighted : plain;
}

BITSTACK_PRIVATE_ bitstack_result bitstack_norms_run_(bitstack_norms_ *s, int threads, double norms[2]) {
    uint32_t tasks = (uint32_t)((s->rows + BITSTACK_NB_ - 1) / BITSTACK_NB_);
    const uint64_t each = BITSTACK_MIN_((uint64_t)BITSTACK_NB_, s->rows) * ((uint64_t)s->cols + BITSTACK_NB_) + BITSTACK_MAX_((size_t)BITSTACK_PACK_, s->cols / 2 + 1);
    double largest = 0;
    for (size_t j = 0; s->h && s->rough > 0 && j < s->cols; j++) largest = BITSTACK_MAX_(largest, s->h[j * s->cols + j]);
    s->unit = ldexp(1, -BITSTACK_MIN_(bitstack_exponent_(largest), 1000));
    s->room_each = (size_t)each;
    s->room = (double *)bitstack_array_(each * bitstack_workers_(threads, tasks), sizeof(double));
    s->sum = (double(*)[2])bitstack_array_(tasks, sizeof *s->sum);
    bitstack_result result = s->room && s->sum ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    norms[0] = norms[1] = 0;
    if (result == BITSTACK_OK) bitstack_parallel_(threads, tasks, bitstack_norms_rows_, s);
    for (uint32_t i = 0; result == BITSTACK_OK && i < tasks; i++) norms[0] += s->sum[i][0], norms[1] += s->sum[i][1];
    if (s->h && s->rough > 0) norms[1] /= s->unit * s->rough * s->rough;
    bitstack_drop_(s->room), bitstack_drop_(s->sum);
    return result;
}

BITSTACK_PRIVATE_ bitstack_result bitstack_measure_norms_(const float *w, size_t stride, uint32_t rows, uint32_t cols,
                                                          const bitstack_view *view, const double *h, double rough,
                                                          int threads, double norms[2]) {
    bitstack_norms_ s;
    memset(&s, 0, sizeof s);
    s.w = w, s.view = view, s.h = h, s.rows = rows, s.cols = cols, s.stride = stride, s.rough = rough;
    return bitstack_norms_run_(&s, threads, norms);
}

/* a / b, 0 / 0 = 0; rounding may have made a tiny weighted norm negative. NaN stays NaN. */
BITSTACK_PRIVATE_ double bitstack_ratio_(double a, double b) { return a != a || b != b ? a + b : b > 0 && a > 0 ? a / b : 0; }
/* The same for outputs; where they are all zero inputs say nothing, and the weights' own error stands. */
BITSTACK_PRIVATE_ double bitstack_output_ratio_(double a, double b, double plain) { return b == 0 ? plain : bitstack_ratio_(a, b); }

BITSTACK_API bitstack_result bitstack_measure_error(const bitstack_view *view, const float *w, size_t stride,
                                                    const bitstack_moments *moments, int threads, double *rel_err2,
                                                    double *out_err2) {
    double error[2], norm[2];
    if (!view || !w || !rel_err2 || !out_err2 || !view->rows || !view->cols || stride < view->cols ||
        (moments && moments->cols != view->cols))
        return BITSTACK_ERROR_ARGUMENT;
    const double *h = moments ? moments->h : NULL;
    bitstack_result result = bitstack_measure_norms_(w, stride, view->rows, view->cols, view, h, 0, threads, error);
    if (result == BITSTACK_OK)
        result = bitstack_measure_norms_(w, stride, view->rows, view->cols, NULL, h, 0, threads, norm);
    if (result != BITSTACK_OK) return result;
    const double rel = bitstack_ratio_(error[0], norm[0]), out = bitstack_output_ratio_(error[1], norm[1], rel);
    if (!(rel <= DBL_MAX && out <= DBL_MAX)) return BITSTACK_ERROR_NUMERIC;
    *rel_err2 = rel, *out_err2 = out;
    return BITSTACK_OK;
}

static bitstack_result bitstack_iabs_encode_(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols,
                                             size_t stride, const bitstack_moments *moments,
                                             const bitstack_encode_options *options);
static bitstack_result bitstack_nested_encode_(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols,
                                               size_t stride, const bitstack_moments *moments,
                                               const bitstack_encode_options *options);

/* Is every weight of the level finite? */
BITSTACK_PRIVATE_ bitstack_result bitstack_coded_finite_(const bitstack_coded *coded, uint32_t level) {
    bitstack_plane planes[BITSTACK_MAX_LEVELS];
    bitstack_view view;
    const uint32_t cols = coded->shape.cols;
    float *row = (float *)bitstack_array_(cols, sizeof *row);
    bitstack_result result = row ? bitstack_coded_view(coded, level, planes, &view) : BITSTACK_ERROR_MEMORY;
    for (uint32_t i = 0; i < coded->shape.rows && result == BITSTACK_OK; i++) {
        result = bitstack_view_dequantize(&view, i, 1, row, cols);
        if (result == BITSTACK_OK && !bitstack_finite_row_(row, cols)) result = BITSTACK_ERROR_NUMERIC;
    }
    bitstack_drop_(row);
    return result;
}

enum { BITSTACK_NEST_LEVELS_ = 8, BITSTACK_NEST_GROUP_ = 64 }; /* columns that share a scale */

BITSTACK_API bitstack_result bitstack_encode_shape(bitstack_shape *shape, uint32_t rows, uint32_t cols, const bitstack_encode_options *options) {
    const int iabs = options && options->method == BITSTACK_IABS;
    const uint32_t rank = options && options->rank ? options->rank : 16, levels = options ? options->levels : 0;
    bitstack_shape made;
    memset(&made, 0, sizeof made);
    made.encoding = iabs ? BITSTACK_PLANES : BITSTACK_TABLES;
    made.rows = rows, made.cols = cols, made.scale = 1;
    made.levels = levels ? levels : iabs ? 16 : BITSTACK_NEST_LEVELS_;
    made.rank = iabs ? BITSTACK_MIN_(rank, BITSTACK_MIN_(rows, cols)) : 1;
    made.columns = iabs ? BITSTACK_COLUMNS_OWN : BITSTACK_COLUMNS_EVERY;
    made.coefficients = iabs ? BITSTACK_COEFFICIENTS_OWN : BITSTACK_COEFFICIENTS_ALL;
    if (iabs) made.factor_type = options->factor_type ? options->factor_type : BITSTACK_F16;
    else made.group_cols = BITSTACK_NEST_GROUP_;
    if (!shape || !bitstack_shape_valid(&made)) return BITSTACK_ERROR_ARGUMENT;
    *shape = made;
    return BITSTACK_OK;
}

/* Checks, then the method. The encoders get a zeroed coded and options that are in range; on failure what they
 * left in it is freed here. */
BITSTACK_API bitstack_result bitstack_encode_matrix(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols,
                                                    size_t stride, const bitstack_moments *moments,
                                                    const bitstack_encode_options *options) {
    bitstack_encode_options o;
    bitstack_coded made;
    bitstack_result result;
    double norm2 = 0;
    memset(&made, 0, sizeof made);
    if (coded) *coded = made;
    if (options) o = *options;
    else memset(&o, 0, sizeof o);
    if (!o.factor_type) o.factor_type = BITSTACK_F16;
    if (!coded || !w || !rows || !cols || rows > 1u << 30 || cols > 1u << 30 || stride < cols ||
        o.levels > (o.method == BITSTACK_NESTED ? BITSTACK_NEST_LEVELS_ : BITSTACK_MAX_LEVELS) || o.rank > 1024 ||
        (unsigned)o.effort > BITSTACK_EFFORT_BEST || (o.factor_type != BITSTACK_F16 && o.factor_type != BITSTACK_F32) ||
        (o.method != BITSTACK_NESTED && o.method != BITSTACK_IABS) || (moments && moments->cols != cols))
        return BITSTACK_ERROR_ARGUMENT;
    for (int l = 0; l < BITSTACK_MAX_LEVELS; l++)
        if (!(o.level_weights[l] >= 0 && o.level_weights[l] <= FLT_MAX)) return BITSTACK_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < rows; i++) {
        if (!bitstack_finite_row_(w + i * stride, cols)) return BITSTACK_ERROR_NUMERIC;
        for (uint32_t j = 0; j < cols; j++) norm2 += (double)w[i * stride + j] * (double)w[i * stride + j];
    }
    for (uint32_t j = 0; moments && j < cols; j++)
        if (!(moments->norms[j] >= 0 && moments->norms[j] <= DBL_MAX) ||
            (moments->h && !(fabs(moments->h[(size_t)j * cols + j]) <= DBL_MAX)))
            return BITSTACK_ERROR_NUMERIC;
    made.rel_err2[0] = made.out_err2[0] = 1;
    result = o.method == BITSTACK_IABS ? bitstack_iabs_encode_(&made, w, rows, cols, stride, moments, &o)
                                       : bitstack_nested_encode_(&made, w, rows, cols, stride, moments, &o);
    for (uint32_t l = 1; l <= made.shape.levels && result == BITSTACK_OK; l++) {
        if (!(made.out_err2[l] <= DBL_MAX)) result = BITSTACK_ERROR_NUMERIC;
        /* no weight is farther out than |W| + |D|, though sums on the way may be: only near the limit of float need
         * they be looked at */
        else if (!(sqrt(norm2) * (1 + sqrt(made.rel_err2[l])) <= 1e-7 * (double)FLT_MAX)) result = bitstack_coded_finite_(&made, l);
    }
    if (result == BITSTACK_OK) *coded = made;
    else bitstack_coded_free(&made);
    return result;
}

/* ==================================================================================== [IABS]
 * BitStack's iterative absolute value decomposition (arXiv 2410.23918), as the authors' code does it: a block is
 * the signs of the residual R (0 counts as +1) and the best rank-k approximation U V of |R|, sqrt of the
 * singular values to either side. Factors are stored rounded, but R - S .* U V is formed from the unrounded ones.
 * With moments, columns are first multiplied by the paper's activation scale s_j and V is divided by it, so that
 * no other layer changes.
 * Everything is computed for W times a power of four that brings its largest entry near 1: that changes no bit
 * of the stored factors, whose square-root split halves the exponent. The stack's scale is 1 unless the factors
 * would be lost in the range of their type. */

#define BITSTACK_IABS_TOLERANCE_ 5e-5 /* excess squared error of each block's truncated SVD, at most about */

typedef struct bitstack_iabs_ {
    const float *w;
    size_t m, n, k, stride;
    float *r, *a, *d;            /* residual, its magnitude, W minus the stored blocks; m x n */
    const double *column;        /* scale of each column; NULL = 1 */
    double unit;                 /* the power of four */
    float *u, *v, *us, *vs;      /* unrounded m x k, k x n; and as stored, times scale and unit */
    unsigned char *plane;
    float *room;                 /* a worker: two blocks of products, packing */
} bitstack_iabs_;

enum { BITSTACK_IABS_ROWS_ = 192, BITSTACK_IABS_COLS_ = 256 }; /* rows: a multiple of 64 */
#define BITSTACK_IABS_ROOM_ (2 * (size_t)BITSTACK_IABS_ROWS_ * BITSTACK_IABS_COLS_ + BITSTACK_PACK_)

/* R = W column-scaled, D = W, A = |R| for a block of rows. */
BITSTACK_PRIVATE_ void bitstack_iabs_start_(void *arg, uint32_t task, uint32_t worker) {
    const bitstack_iabs_ *s = (const bitstack_iabs_ *)arg;
    const size_t begin = task * (size_t)BITSTACK_IABS_ROWS_, end = BITSTACK_MIN_(begin + BITSTACK_IABS_ROWS_, s->m);
    (void)worker;
    for (size_t i = begin; i < end; i++)
        for (size_t j = 0; j < s->n; j++) {
            double t = (double)s->w[i * s->stride + j] * s->unit;
            s->d[i * s->n + j] = (float)t;
            s->r[i * s->n + j] = (float)(s->column ? t * s->column[j] : t);
            s->a[i * s->n + j] = fabsf(s->r[i * s->n + j]);
        }
}

/* Signs of a block of rows, then R -= S .* U V and A = |R|, and D -= S .* (U V as stored). */
BITSTACK_PRIVATE_ void bitstack_iabs_block_(void *arg, uint32_t task, uint32_t worker) {
    const bitstack_iabs_ *s = (const bitstack_iabs_ *)arg;
    const size_t n = s->n, k = s->k, begin = task * (size_t)BITSTACK_IABS_ROWS_;
    const size_t h = BITSTACK_MIN_((size_t)BITSTACK_IABS_ROWS_, s->m - begin);
    float *x = s->room + worker * BITSTACK_IABS_ROOM_, *y = x + BITSTACK_IABS_ROWS_ * BITSTACK_IABS_COLS_;
    float *pack = y + BITSTACK_IABS_ROWS_ * BITSTACK_IABS_COLS_;
    bitstack_pack_signs_(s->r + begin * n, (uint32_t)begin, (uint32_t)h, (uint32_t)n, n, s->plane);
    for (size_t j0 = 0; j0 < n; j0 += BITSTACK_IABS_COLS_) {
        const size_t wide = BITSTACK_MIN_((size_t)BITSTACK_IABS_COLS_, n - j0);
        memset(x, 0, h * wide * sizeof *x), memset(y, 0, h * wide * sizeof *y);
        bitstack_gemm_f32_(h, wide, k, 1, s->u + begin * k, k, 1, s->v + j0, n, 1, x, wide, pack);
        bitstack_gemm_f32_(h, wide, k, 1, s->us + begin * k, k, 1, s->vs + j0, n, 1, y, wide, pack);
        for (size_t i = 0; i < h; i++) {
            float *r = s->r + (begin + i) * n + j0, *a = s->a + (begin + i) * n + j0, *d = s->d + (begin + i) * n + j0;
            for (size_t j = 0; j < wide; j++) {
                float p = x[i * wide + j], q = y[i * wide + j];
                d[j] -= r[j] >= 0 ? q : -q;
                r[j] -= r[j] >= 0 ? p : -p;
                a[j] = fabsf(r[j]);
            }
        }
    }
}

static bitstack_result bitstack_iabs_encode_(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols,
                                             size_t stride, const bitstack_moments *moments,
                                             const bitstack_encode_options *options) {
    const size_t m = rows, n = cols, k = BITSTACK_MIN_(options->rank ? options->rank : 16, BITSTACK_MIN_(rows, cols));
    const uint32_t tasks = (uint32_t)((m + BITSTACK_IABS_ROWS_ - 1) / BITSTACK_IABS_ROWS_);
    const bitstack_type type = options->factor_type;
    const int threads = options->threads;
    const double *h = moments ? moments->h : NULL;
    bitstack_shape *shape = &coded->shape;
    bitstack_iabs_ s;
    bitstack_norms_ norms;
    double *column = NULL, norm[2], error[2];
    float *sv = (float *)bitstack_array_(k, sizeof(float));
    bitstack_result result;

    memset(&s, 0, sizeof s), memset(&norms, 0, sizeof norms);
    shape->rows = rows, shape->cols = cols, shape->rank = (uint32_t)k;
    shape->levels = options->levels ? options->levels : 16;
    shape->columns = BITSTACK_COLUMNS_OWN, shape->coefficients = BITSTACK_COEFFICIENTS_OWN;
    shape->factor_type = type, shape->scale = 1, shape->encoding = BITSTACK_PLANES;
    s.w = w, s.m = m, s.n = n, s.k = k, s.stride = stride;
    s.r = (float *)bitstack_array_((uint64_t)m * n, sizeof(float));
    s.a = (float *)bitstack_array_((uint64_t)m * n, sizeof(float));
    s.d = (float *)bitstack_array_((uint64_t)m * n, sizeof(float));
    s.u = (float *)bitstack_array_(2 * (uint64_t)m * k, sizeof(float));
    s.v = (float *)bitstack_array_(2 * (uint64_t)n * k, sizeof(float));
    s.room = (float *)bitstack_array_(BITSTACK_IABS_ROOM_ * (uint64_t)bitstack_workers_(threads, tasks), sizeof(float));
    if (moments && !options->plain_columns) column = (double *)bitstack_array_(n, sizeof *column);
    result = bitstack_coded_allocate_(coded);
    if (!sv || !s.r || !s.a || !s.d || !s.u || !s.v || !s.room || (moments && !options->plain_columns && !column))
        result = BITSTACK_ERROR_MEMORY;
    if (result == BITSTACK_OK) {
        s.us = s.u + m * k, s.vs = s.v + n * k;
        double square = 0, largest = 0;
        if (column) { /* its overall size is a matter of taste: brought near 1 */
            for (uint32_t j = 0; j < cols; j++) {
                column[j] = bitstack_moments_scale(moments, j);
                square += column[j] * column[j];
            }
            double unit = ldexp(1, -bitstack_exponent_(sqrt(square / (double)n)));
            for (size_t j = 0; j < n; j++) column[j] *= unit;
            s.column = column;
        }
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) {
                double t = fabs((double)w[i * stride + j]) * (column ? column[j] : 1);
                largest = BITSTACK_MAX_(largest, t);
            }
        int half = bitstack_exponent_(largest) / 2; /* W = 4^half times what is decomposed */
        s.unit = ldexp(1, -2 * half);
        bitstack_parallel_(threads, tasks, bitstack_iabs_start_, &s);
        norms.w = s.d, norms.h = h, norms.rows = m, norms.cols = norms.stride = n, norms.rough = 1;
        result = bitstack_norms_run_(&norms, threads, norm);
        coded->out_norm2 = ldexp(h && moments->count ? norm[1] / (double)moments->count : norm[0], 4 * half);

        for (uint32_t block = 1; block <= shape->levels && result == BITSTACK_OK; block++) {
            result = bitstack_svd_power_(s.a, rows, cols, n, (uint32_t)k, block > 1 ? s.v : NULL,
                                         options->seed + block, threads, BITSTACK_IABS_TOLERANCE_, s.u, sv, s.v);
            if (result != BITSTACK_OK) break;
            double large_u = 0, large_v = 0;
            for (size_t r = 0; r < k; r++) {
                float root = sqrtf(sv[r]);
                for (size_t i = 0; i < m; i++) {
                    s.u[i * k + r] *= root;
                    large_u = BITSTACK_MAX_(large_u, fabs((double)s.u[i * k + r]));
                }
                for (size_t j = 0; j < n; j++) {
                    s.v[r * n + j] *= root;
                    double t = fabs((double)s.v[r * n + j]) / (column ? column[j] : 1);
                    large_v = BITSTACK_MAX_(large_v, t);
                }
            }
            if (block == 1 && large_u > 0 && large_v > 0) {
                /* what the largest product of factors would be, and what the type holds well for 32 blocks */
                int size = bitstack_exponent_(large_u) + bitstack_exponent_(large_v) + 2 * half;
                int low = type == BITSTACK_F16 ? -16 : -80, high = type == BITSTACK_F16 ? 26 : 80;
                if (size < low || size > high)
                    shape->scale = (float)ldexp(1, BITSTACK_MAX_(-124, BITSTACK_MIN_(size / 2 * 2, 124)));
            }
            const int shift = half - (bitstack_exponent_((double)shape->scale) - 1) / 2; /* of either factor */
            unsigned char *columns = bitstack_coded_columns_(coded, block);
            unsigned char *coefficients = bitstack_coded_coefficients_(coded, block);
            for (size_t i = 0; i < m; i++)
                for (size_t r = 0; r < k; r++) {
                    float t = bitstack_factor_round_((float)ldexp((double)s.u[i * k + r], shift), type);
                    bitstack_factor_store_(coefficients, r * m + i, t, type);
                    s.us[i * k + r] = (float)ldexp((double)t, -shift);
                }
            for (size_t r = 0; r < k; r++)
                for (size_t j = 0; j < n; j++) {
                    double t = (double)s.v[r * n + j] / (column ? column[j] : 1);
                    float f = bitstack_factor_round_((float)ldexp(t, shift), type);
                    bitstack_factor_store_(columns, r * n + j, f, type);
                    s.vs[r * n + j] = (float)ldexp((double)f, -shift);
                }
            s.plane = bitstack_coded_signs_(coded, block);
            bitstack_parallel_(threads, tasks, bitstack_iabs_block_, &s);
            result = bitstack_norms_run_(&norms, threads, error);
            coded->rel_err2[block] = bitstack_ratio_(error[0], norm[0]);
            coded->out_err2[block] = bitstack_output_ratio_(error[1], norm[1], coded->rel_err2[block]);
            if (result == BITSTACK_OK && options->progress &&
                options->progress(options->progress_user, (double)block / shape->levels))
                result = BITSTACK_ERROR_CANCELLED;
        }
    }
    bitstack_drop_(s.r), bitstack_drop_(s.a), bitstack_drop_(s.d), bitstack_drop_(s.u), bitstack_drop_(s.v);
    bitstack_drop_(s.room), bitstack_drop_(column), bitstack_drop_(sv);
    return result;
}

/* ================================================================================== [NESTED]
 * Nested tables ([METHOD] in bitstack.h, encoding 2): L planes are an index into level L's table, and what it holds
 * is scaled by row, column group and column. All levels of a weight share one path of bits, chosen for all of
 * them at once, so that every level is good. With W_l what level l decodes to, E_l = tr((W - W_l) H (W - W_l)^T) and
 * H the inputs' second moments (their diagonal if only norms are known, the identity without moments), what is
 * minimised is
 *
 *     sum over levels l of  weight_l E_l,  weight_l = share_l 4^(l - 1)
 *
 * so that levels count alike where each has a quarter of the error of the one below, but for their shares. Steps:
 *   start      column factors from root mean squares, tables by Lloyd's centroids, each cell of a level split in two
 *              by the next (tree-structured quantizer), on a sample of rows; from the fifth on by sums;
 *   feedback   columns in descending order of diag H; each level's error in a column is pushed into its own copy of
 *              the columns to come along the rows of the Cholesky factor of (H + 1 %)^-1 (GPTQ, arXiv 2210.17323,
 *              with one stream a level); each weight takes the path of least weighted squared error over all levels.
 *              On the sample, tables, column factors and scales are fitted to the targets that were met, and it is
 *              done again; then tables and column factors are rounded and stay;
 *   sweeps     coordinate descent on the weighted sum itself: group by group, first each row's scale at each level
 *              (closed form, then rounded to what is stored), then each weight's path, given all others.
 * Scales begin wide enough for a row's largest weights (bitstack_nest_widen_).
 *
 * Rows are worked on in panels of BITSTACK_NEST_ROWS_, a row a lane, which is also a tile of the file: a panel is
 * coded from start to end by one task, which leaves nothing but the payload's bytes and its errors. What depends on
 * the columns before (feedback) or on all others (sweep) comes from one matrix product a group of columns: rows x
 * cols^2 multiply-adds a level and sweep, half that for feedback. It is most of the work, and is done in integers:
 * H over the roots of its diagonal in 15 bits, errors times them in 12, with a unit for each row, group and level, so
 * that sums over a group are exact in 32 bits, alike on all CPUs, at two to four times the speed of floats. Rounding
 * stays with one product: the next begins from the errors themselves. Figures and what was tried:
 * bench/notes-nested.md. */

/* Sixteen rows: one vector where the CPU has such, several where not; one row where the compiler has no vectors or
 * reckons in a wider type than it stores. */
#if defined(BITSTACK_GNU_) && (!defined(__FLT_EVAL_METHOD__) || __FLT_EVAL_METHOD__ == 0)
#define BITSTACK_NEST_ROWS_ 16
typedef float bitstack_lanes_ __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t bitstack_codes_ __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t bitstack_unsigned_ __attribute__((vector_size(64), aligned(4), may_alias));
#define BITSTACK_SELECT_(mask, a, b) (((mask) & (a)) | (~(mask) & (b)))
#define BITSTACK_SELECT_LANES_(mask, a, b) \
    ((bitstack_lanes_)(((mask) & (bitstack_codes_)(a)) | (~(mask) & (bitstack_codes_)(b))))
#define BITSTACK_LANE_(vector, r) (vector)[r]
#define BITSTACK_NO_LANES_ {0}
#else
#define BITSTACK_NEST_ROWS_ 1
typedef float bitstack_lanes_;
typedef int32_t bitstack_codes_;
typedef uint32_t bitstack_unsigned_;
#define BITSTACK_SELECT_(mask, a, b) ((mask) ? (a) : (b))
#define BITSTACK_SELECT_LANES_(mask, a, b) ((mask) ? (a) : (b))
#define BITSTACK_LANE_(vector, r) (*((void)(r), &(vector)))
#define BITSTACK_NO_LANES_ 0
#endif

enum {
    BITSTACK_NEST_CODES_ = 1 << BITSTACK_NEST_LEVELS_,
    BITSTACK_NEST_SAMPLE_ = 16, /* panels that tables and column factors are fitted on */
    BITSTACK_NEST_TREE_ = 4,    /* levels that begin as a tree */
    BITSTACK_NEST_VALUES_ = 2 * BITSTACK_NEST_CODES_, /* entries of all tables: level l's 2^l from 2^l - 2 on */
    BITSTACK_NEST_FACTORS_ = 16383, /* largest integers of a product: 64 times both is below 2^31 */
    BITSTACK_NEST_ERRORS_ = 2047
};

/* to[i][level] += size[level] sum over pairs of a[i][pair] q[pair][level], a's rows `stride` apart: integers of 16 bits,
 * two of them in a lane of q. `across`: lanes of all levels. */
typedef void (*bitstack_nest_dot_)(size_t rows, size_t pairs, const int16_t *a, size_t stride, const int32_t *q, const float *size,
                                   size_t across, float *to);

/* What all rows of a coded matrix share. */
typedef struct bitstack_nest_shared_ {
    float table[BITSTACK_NEST_VALUES_];
    float *v;                             /* [level][cols] */
    float *over_v;                        /* 1 / v, or 0 */
    /* Tables are odd, so it is enough to know codes of positive values, 1 | z << 1: level l's from 2^(l - 1) - 1 on, the
     * least at each level, and of the last level, for each code of the one before, the middle of its two values and how far
     * they are from it. */
    float half[BITSTACK_NEST_CODES_], least[BITSTACK_NEST_LEVELS_], middle[BITSTACK_NEST_CODES_ / 2], apart[BITSTACK_NEST_CODES_ / 2];
    float weight[BITSTACK_NEST_LEVELS_];  /* share_l 4^(l - 1) */
    float ratio[BITSTACK_NEST_LEVELS_];   /* a group's first scale at a level, of its root mean square */
    float unit[BITSTACK_NEST_LEVELS_];    /* of stored scales; 0 = scales are not rounded */
} bitstack_nest_shared_;

/* The best code of each lane, and what codes stand for at all levels: see below. */
typedef void (*bitstack_nest_choose_)(bitstack_codes_ *code, const bitstack_nest_shared_ *shared, uint32_t levels,
                                      const bitstack_lanes_ *aim, const bitstack_lanes_ *weight);
typedef void (*bitstack_nest_look_)(bitstack_lanes_ *to, const float *table, const bitstack_codes_ *code, uint32_t levels);

/* What is coded; the same for all panels. */
typedef struct bitstack_nest_problem_ {
    const float *w;
    size_t rows, cols, stride, group, groups;
    float unit;             /* a power of two: weights times it are below 1 */
    const int16_t *h;       /* [cols][room]: h_ij / (root_i root_j); or NULL: diagonal only */
    const float *h_near;    /* [cols][group]: h itself, the columns of the same group */
    const float *root;      /* [cols]: of the diagonal */
    /* What an error in column k adds to column j > k, in the order of coding; or NULL. */
    const int16_t *factor;  /* [cols][room], row j: times root_innovation_k, over reach_j */
    const float *factor_near; /* [cols][group], row k: itself, for columns of the same block */
    const float *reach;     /* [cols] */
    size_t room;            /* cols, made even */
    const float *diagonal;  /* of h, mean 1 */
    const float *innovation, *root_innovation; /* in the order of coding: how much a column's error counts after feedback */
    const uint32_t *order;
    const float *kept;      /* [cols]: the scale of a column that is kept whole, else 0 */
    const unsigned char *twice; /* [cols]: what rounding leaves of it is kept, too */
    uint32_t levels;
    double ridge; /* that h has on its diagonal */
    bitstack_nest_dot_ dot;
    bitstack_nest_choose_ choose;
    bitstack_nest_look_ look;
} bitstack_nest_problem_;

/* What a pass over the sample leaves for the fits. */
typedef struct bitstack_nest_sums_ {
    double table[BITSTACK_NEST_VALUES_][2];
    double scale[BITSTACK_NEST_LEVELS_][2];
    float *v; /* [level][cols][2] */
} bitstack_nest_sums_;

/* One panel's work. */
typedef struct bitstack_nest_panel_ {
    bitstack_lanes_ *w;      /* [cols] */
    bitstack_lanes_ *error;  /* [cols][level] */
    bitstack_lanes_ *scale;  /* [group][level] */
    bitstack_lanes_ *rms;    /* [group] */
    /* Of the group at hand, [group cols][level]: */
    bitstack_lanes_ *slope;  /* compensated weights in the order of coding; errors times H */
    bitstack_lanes_ *below;  /* what groups before have of the slope */
    bitstack_lanes_ *push;   /* errors as they are fed back */
    bitstack_lanes_ *value;  /* values times column factors */
    bitstack_lanes_ *turned; /* those times H */
    /* Errors as integers: */
    bitstack_codes_ *q;      /* [pairs of cols][level] */
    bitstack_lanes_ *size;   /* [group][level]: their units */
    bitstack_codes_ *code;   /* [cols] */
    double (*sum)[2];        /* [level]: squares of errors with H and without, after a sweep */
} bitstack_nest_panel_;

#define BITSTACK_NEST_TABLE_(shared, level) ((shared)->table + ((size_t)1 << ((level) + 1)) - 2) /* level from 0 */

static const bitstack_lanes_ bitstack_nest_none_ = BITSTACK_NO_LANES_;

BITSTACK_API float bitstack_small_value(uint32_t code) { return bitstack_small_value_(code & 255); }
BITSTACK_API uint32_t bitstack_small_code(float value) {
    if (!(value > 0.5f * bitstack_small_value_(1))) return 0;
    if (value >= bitstack_small_value_(255)) return 255;
    if (value <= bitstack_small_value_(1)) return 1;
    return (bitstack_bits_from_float_(value) - (120u << 23) + (1u << 17)) >> 18;
}

/* ---- kernels: one text for each instruction set, and the same bits from all ---- */

/* Bits of lanes as integers and back, and masks of what is less, also where a lane is all there is. */
#if BITSTACK_NEST_ROWS_ > 1
typedef int32_t bitstack_ints_ __attribute__((vector_size(16), aligned(4), may_alias));
#define BITSTACK_AS_INTS_(type, x) ((type)(x))
#define BITSTACK_AS_FLOATS_(type, x) ((type)(x))
#define BITSTACK_LESS_(type, a, b) ((type)((a) < (b)))
#define BITSTACK_WHOLE_(x) ((bitstack_codes_)((x) + 12582912.0f) - 0x4B400000) /* the sum rounds */
#else
typedef int32_t bitstack_ints_;
#define BITSTACK_AS_INTS_(type, x) ((type)bitstack_bits_from_float_(x))
#define BITSTACK_AS_FLOATS_(type, x) bitstack_float_from_bits_((uint32_t)(x))
#define BITSTACK_LESS_(type, a, b) (-(type)((a) < (b)))
#define BITSTACK_WHOLE_(x) ((bitstack_codes_)floorf((x) + 0.5f))
#endif

/* `tall` rows by `wide` vectors at a time. */
#define BITSTACK_NEST_DOT_(name, isa, ints, lanes, tall, wide, load, zero, set1, mac, store)                    \
    isa BITSTACK_INLINE_ void bitstack_nest_dot_tile_##name##_(size_t pairs, const int16_t *a, size_t stride,   \
                                                               const int32_t *q, const float *size, size_t across, float *to, \
                                                               const int high, const int vectors) {             \
        ints sum[tall][wide], x[wide];                                                                          \
        BITSTACK_UNROLL_ for (int i = 0; i < high; i++)                                                         \
            BITSTACK_UNROLL_ for (int v = 0; v < vectors; v++) sum[i][v] = zero();                              \
        for (size_t k = 0; k < pairs; k++, q += across, a += 2) {                                               \
            BITSTACK_UNROLL_ for (int v = 0; v < vectors; v++) x[v] = load((const ints *)(const void *)(q + v * lanes)); \
            BITSTACK_UNROLL_ for (int i = 0; i < high; i++) {                                                   \
                const uint32_t pair = (uint16_t)a[(size_t)i * stride] | (uint32_t)(uint16_t)a[(size_t)i * stride + 1] << 16; \
                const ints both = set1((int32_t)pair);                                                          \
                BITSTACK_UNROLL_ for (int v = 0; v < vectors; v++) sum[i][v] = mac(sum[i][v], x[v], both);      \
            }                                                                                                   \
        }                                                                                                       \
        BITSTACK_UNROLL_ for (int i = 0; i < high; i++)                                                         \
            BITSTACK_UNROLL_ for (int v = 0; v < vectors; v++) store(to + (size_t)i * across + v * lanes, sum[i][v], size + v * lanes); \
    }                                                                                                           \
    isa BITSTACK_PRIVATE_ void bitstack_nest_dot_##name##_(size_t rows, size_t pairs, const int16_t *a, size_t stride, \
                                                           const int32_t *q, const float *size, size_t across, float *to) { \
        size_t v = 0, i;                                                                                        \
        for (; v + wide * lanes <= across; v += wide * lanes) {                                                 \
            for (i = 0; i + tall <= rows; i += tall)                                                            \
                bitstack_nest_dot_tile_##name##_(pairs, a + i * stride, stride, q + v, size + v, across, to + i * across + v, tall, wide); \
            for (; i < rows; i++)                                                                               \
                bitstack_nest_dot_tile_##name##_(pairs, a + i * stride, stride, q + v, size + v, across, to + i * across + v, 1, wide); \
        }                                                                                                       \
        for (; v < across; v += lanes)                                                                          \
            for (i = 0; i < rows; i++)                                                                          \
                bitstack_nest_dot_tile_##name##_(pairs, a + i * stride, stride, q + v, size + v, across, to + i * across + v, 1, 1); \
    }

/* The path of least sum over levels of weight (aim - value)^2. Half of the codes is looked at, those of positive values,
 * with the aims' signs turned where together they are negative: what the others cost at least is known, and only where
 * that is less for some lane they are looked at as well. Codes' costs grow level by level: those of the first half of
 * a level's codes are in place, those of the other half come behind; of the last level's two the nearer is taken at once.
 * The number of the best stands in the last bits of its cost. */
#define BITSTACK_NEST_CHOOSE_(name, isa, reals, ints, lanes, min, any, look)                                    \
    isa BITSTACK_INLINE_ void bitstack_nest_half_##name##_(const bitstack_nest_shared_ *shared, uint32_t levels, \
                                                           const reals *aim, const reals *weight, reals *best) { \
        reals cost[BITSTACK_NEST_CODES_ / 4], t = aim[0] - shared->half[0], f = weight[0], least;               \
        const size_t last = ((size_t)1 << levels) / 4;                                                          \
        cost[0] = f * t * t;                                                                                    \
        for (uint32_t l = 1; l + 1 < levels; l++) {                                                             \
            const size_t size = (size_t)1 << (l - 1);                                                           \
            const float *table = shared->half + 2 * size - 1;                                                   \
            t = aim[l], f = weight[l];                                                                          \
            for (size_t z = 0; z < size; z++) {                                                                 \
                const reals a = t - table[z], b = t - table[z + size], c = cost[z];                             \
                cost[z] = c + f * a * a, cost[z + size] = c + f * b * b;                                        \
            }                                                                                                   \
        }                                                                                                       \
        least = cost[0];                                                                                        \
        if (levels > 1) {                                                                                       \
            ints number;                                                                                        \
            memset(&number, 0, sizeof number);                                                                  \
            least = BITSTACK_AS_FLOATS_(reals, number + 0x7F7FFFFF), t = aim[levels - 1], f = weight[levels - 1]; \
            for (size_t z = 0; z < last; z++, number += 1) {                                                    \
                const reals a = t - shared->middle[z];                                                          \
                const reals b = BITSTACK_AS_FLOATS_(reals, BITSTACK_AS_INTS_(ints, a) & 0x7FFFFFFF) - shared->apart[z]; \
                const reals x = cost[z] + f * b * b;                                                            \
                least = min(BITSTACK_AS_FLOATS_(reals, (BITSTACK_AS_INTS_(ints, x) & ~63) | number), least);    \
            }                                                                                                   \
        }                                                                                                       \
        *best = least;                                                                                          \
    }                                                                                                           \
    isa BITSTACK_PRIVATE_ void bitstack_nest_choose_##name##_(bitstack_codes_ *code, const bitstack_nest_shared_ *shared, \
                                                              uint32_t levels, const bitstack_lanes_ *aim, const bitstack_lanes_ *weight) { \
        const size_t last = ((size_t)1 << levels) / 4;                                                          \
        for (size_t part = 0; part < BITSTACK_NEST_ROWS_; part += lanes) {                                      \
            reals a[BITSTACK_NEST_LEVELS_], f[BITSTACK_NEST_LEVELS_], all, bound, best, other;                  \
            ints flip, z, leaf, top;                                                                            \
            for (int r = 0; r < lanes; r++) ((int32_t *)&top)[r] = 1 << (levels - 1);                           \
            memset(a, 0, sizeof a), memset(f, 0, sizeof f), memset(&all, 0, sizeof all), memset(&bound, 0, sizeof bound); \
            for (uint32_t l = 0; l < levels; l++) {                                                             \
                a[l] = *(const reals *)(const void *)((const float *)(aim + l) + part);                         \
                f[l] = *(const reals *)(const void *)((const float *)(weight + l) + part);                      \
                all += f[l] * a[l];                                                                             \
            }                                                                                                   \
            flip = BITSTACK_AS_INTS_(ints, all) & INT32_MIN;                                                    \
            for (uint32_t l = 0; l < levels; l++) {                                                             \
                a[l] = BITSTACK_AS_FLOATS_(reals, BITSTACK_AS_INTS_(ints, a[l]) ^ flip);                        \
                const ints away = BITSTACK_AS_INTS_(ints, a[l] + shared->least[l]);                              \
                const reals t = BITSTACK_AS_FLOATS_(reals, away & ~(away >> 31));                                 \
                bound += f[l] * t * t;                                                                          \
            }                                                                                                   \
            bitstack_nest_half_##name##_(shared, levels, a, f, &best);                                          \
            if (any(~BITSTACK_LESS_(ints, best, bound))) {                                                      \
                reals b[BITSTACK_NEST_LEVELS_];                                                                 \
                for (uint32_t l = 0; l < BITSTACK_NEST_LEVELS_; l++) b[l] = BITSTACK_AS_FLOATS_(reals, BITSTACK_AS_INTS_(ints, a[l]) ^ INT32_MIN); \
                bitstack_nest_half_##name##_(shared, levels, b, f, &other);                                     \
                const ints take = BITSTACK_LESS_(ints, other, best);                                            \
                best = BITSTACK_AS_FLOATS_(reals, (take & BITSTACK_AS_INTS_(ints, other)) | (~take & BITSTACK_AS_INTS_(ints, best))); \
                a[levels - 1] = BITSTACK_AS_FLOATS_(reals, BITSTACK_AS_INTS_(ints, a[levels - 1]) ^ (take & INT32_MIN)); \
                flip ^= take & INT32_MIN;                                                                       \
            }                                                                                                   \
            z = BITSTACK_AS_INTS_(ints, best) & 63;                                                             \
            if (levels > 1) {                                                                                   \
                const float *table = shared->half + ((size_t)1 << levels) / 2 - 1;                              \
                reals c, d;                                                                                     \
                look(&c, table, &z), look(&d, table + last, &z);                                                \
                c = a[levels - 1] - c, d = a[levels - 1] - d;                                                   \
                leaf = z << 1 | 1 | (BITSTACK_LESS_(ints, d * d, c * c) & top);                                 \
            } else leaf = (z & 0) | 1;                                                                          \
            *(ints *)(void *)((int32_t *)code + part) = leaf ^ (flip >> 31 & (top | (top - 1)));                \
        }                                                                                                       \
    }

/* What lanes' codes stand for at all levels, before scales. */
BITSTACK_PRIVATE_ void bitstack_nest_look_plain_(bitstack_lanes_ *to, const float *table, const bitstack_codes_ *code, uint32_t levels) {
    for (uint32_t l = 0; l < levels; l++, table += (size_t)1 << l)
        for (int r = 0; r < BITSTACK_NEST_ROWS_; r++)
            ((float *)(to + l))[r] = table[((const int32_t *)code)[r] & (int32_t)((2u << l) - 1)];
}

#if BITSTACK_NEST_ROWS_ > 1
BITSTACK_INLINE_ int bitstack_any4_(bitstack_ints_ mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
BITSTACK_INLINE_ void bitstack_look4_(bitstack_floats_ *to, const float *table, const bitstack_ints_ *z) {
    for (int r = 0; r < 4; r++) ((float *)to)[r] = table[((const int32_t *)z)[r]];
}
BITSTACK_INLINE_ bitstack_ints_ bitstack_set4_(int32_t x) {
    const bitstack_ints_ all = {x, x, x, x};
    return all;
}
#define BITSTACK_ZERO4_() bitstack_set4_(0)
#define BITSTACK_LOAD4_(from) (*(from))
#define BITSTACK_MAC4_(sum, x, y) ((sum) + ((x) << 16 >> 16) * ((y) << 16 >> 16) + ((x) >> 16) * ((y) >> 16))
#define BITSTACK_STORE4_(to, sum, size) \
    (*(bitstack_floats_ *)(void *)(to) += __builtin_convertvector(sum, bitstack_floats_) * *(const bitstack_floats_ *)(const void *)(size))
BITSTACK_NEST_DOT_(plain, , bitstack_ints_, 4, 4, 2, BITSTACK_LOAD4_, BITSTACK_ZERO4_, bitstack_set4_, BITSTACK_MAC4_, BITSTACK_STORE4_)
#define BITSTACK_MIN4_(a, b) BITSTACK_AS_FLOATS_(bitstack_floats_, BITSTACK_SELECT_((bitstack_ints_)((a) < (b)), (bitstack_ints_)(a), (bitstack_ints_)(b)))
BITSTACK_NEST_CHOOSE_(plain, , bitstack_floats_, bitstack_ints_, 4, BITSTACK_MIN4_, bitstack_any4_, bitstack_look4_)
#else
#define BITSTACK_SET1_(x) (x)
#define BITSTACK_ZERO1_() 0
#define BITSTACK_LOAD1_(from) (*(from))
#define BITSTACK_LOW1_(x) ((int16_t)(uint16_t)((uint32_t)(x) & 0xFFFF))
#define BITSTACK_HIGH1_(x) ((int16_t)(uint16_t)((uint32_t)(x) >> 16))
#define BITSTACK_MAC1_(sum, x, y) ((sum) + BITSTACK_LOW1_(x) * BITSTACK_LOW1_(y) + BITSTACK_HIGH1_(x) * BITSTACK_HIGH1_(y))
#define BITSTACK_STORE1_(to, sum, size) (*(to) += *(size) * (float)(sum))
BITSTACK_NEST_DOT_(plain, , int32_t, 1, 4, 1, BITSTACK_LOAD1_, BITSTACK_ZERO1_, BITSTACK_SET1_, BITSTACK_MAC1_, BITSTACK_STORE1_)
#define BITSTACK_ANY1_(mask) ((mask) != 0)
#define BITSTACK_LOOK1_(to, table, z) (*(to) = (table)[*(z)])
#define BITSTACK_MIN1_(a, b) ((a) < (b) ? (a) : (b))
BITSTACK_NEST_CHOOSE_(plain, , float, int32_t, 1, BITSTACK_MIN1_, BITSTACK_ANY1_, BITSTACK_LOOK1_)
#endif

#if defined(BITSTACK_LINALG_AVX2_) && BITSTACK_NEST_ROWS_ == 16
typedef float bitstack_floats8_ __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t bitstack_ints8_ __attribute__((vector_size(32), aligned(4), may_alias));
#define BITSTACK_MIN8_(a, b) ((bitstack_floats8_)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define BITSTACK_ANY8_(mask) _mm256_movemask_ps((__m256)(mask))
#define BITSTACK_LOOK8_(to, table, z) \
    _mm256_storeu_ps((float *)(to), _mm256_i32gather_ps(table, _mm256_loadu_si256((const __m256i *)(const void *)(z)), 4))
BITSTACK_NEST_CHOOSE_(avx2, __attribute__((target("avx2"))), bitstack_floats8_, bitstack_ints8_, 8, BITSTACK_MIN8_, BITSTACK_ANY8_, BITSTACK_LOOK8_)
#define BITSTACK_MIN16_(a, b) ((bitstack_lanes_)_mm512_maskz_min_ps((__mmask16)0xFFFF, (__m512)(a), (__m512)(b)))
#define BITSTACK_ANY16_(mask) _mm512_test_epi32_mask((__m512i)(mask), (__m512i)(mask))
#define BITSTACK_LOOK16_(to, table, z) \
    (BITSTACK_LOOK8_(to, table, z), BITSTACK_LOOK8_((float *)(to) + 8, table, (const int32_t *)(z) + 8))
BITSTACK_NEST_CHOOSE_(avx512, __attribute__((target("avx2,avx512f"))), bitstack_lanes_, bitstack_codes_, 16, BITSTACK_MIN16_, BITSTACK_ANY16_, BITSTACK_LOOK16_)

#define BITSTACK_NEST_LOAD_(from) _mm_loadu_si128(from)
#define BITSTACK_NEST_LOAD8_(from) _mm256_loadu_si256(from)
#define BITSTACK_NEST_LOAD16_(from) _mm512_loadu_si512(from)
#define BITSTACK_NEST_MAC_(sum, x, y) _mm_add_epi32(sum, _mm_madd_epi16(x, y))
#define BITSTACK_NEST_MAC8_(sum, x, y) _mm256_add_epi32(sum, _mm256_madd_epi16(x, y))
#define BITSTACK_NEST_MAC16_(sum, x, y) _mm512_add_epi32(sum, _mm512_madd_epi16(x, y))
#define BITSTACK_NEST_STORE_(to, sum, size) _mm_storeu_ps(to, _mm_add_ps(_mm_mul_ps(_mm_cvtepi32_ps(sum), _mm_loadu_ps(size)), _mm_loadu_ps(to)))
#define BITSTACK_NEST_STORE8_(to, sum, size) \
    _mm256_storeu_ps(to, bitstack_mul_add_avx2_f32_(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(size), _mm256_loadu_ps(to)))
#define BITSTACK_NEST_STORE16_(to, sum, size) \
    _mm512_storeu_ps(to, bitstack_mul_add_avx512_f32_(_mm512_maskz_cvtepi32_ps((__mmask16)0xFFFF, sum), _mm512_loadu_ps(size), _mm512_loadu_ps(to)))
BITSTACK_NEST_DOT_(sse2, __attribute__((target("sse2"))), __m128i, 4, 4, 2, BITSTACK_NEST_LOAD_, _mm_setzero_si128, _mm_set1_epi32,
                   BITSTACK_NEST_MAC_, BITSTACK_NEST_STORE_)
BITSTACK_NEST_DOT_(avx2, __attribute__((target("avx2"))), __m256i, 8, 4, 2, BITSTACK_NEST_LOAD8_, _mm256_setzero_si256, _mm256_set1_epi32,
                   BITSTACK_NEST_MAC8_, BITSTACK_NEST_STORE8_)
BITSTACK_NEST_DOT_(avx512, __attribute__((target("avx512f,avx512bw"))), __m512i, 16, 8, 2, BITSTACK_NEST_LOAD16_, _mm512_setzero_si512,
                   _mm512_set1_epi32, BITSTACK_NEST_MAC16_, BITSTACK_NEST_STORE16_)
BITSTACK_NEST_DOT_(vnni, __attribute__((target("avx512f,avx512bw,avx512vnni"))), __m512i, 16, 8, 2, BITSTACK_NEST_LOAD16_,
                   _mm512_setzero_si512, _mm512_set1_epi32, _mm512_dpwssd_epi32, BITSTACK_NEST_STORE16_)

__attribute__((target("avx2"))) BITSTACK_PRIVATE_ void bitstack_nest_look_avx2_(bitstack_lanes_ *to, const float *table,
                                                                                const bitstack_codes_ *code, uint32_t levels) {
    for (uint32_t l = 0; l < levels; l++, table += (size_t)1 << l)
        for (int part = 0; part < 16; part += 8) {
            const __m256i all = _mm256_loadu_si256((const __m256i *)(const void *)((const int32_t *)code + part));
            const __m256i some = _mm256_and_si256(all, _mm256_set1_epi32((2 << l) - 1));
            _mm256_storeu_ps((float *)(to + l) + part, _mm256_i32gather_ps(table, some, 4));
        }
}

/* Up to 32 entries are looked up in registers; reading 16 where there are fewer stays inside the tables. */
__attribute__((target("avx2,avx512f"))) BITSTACK_PRIVATE_ void bitstack_nest_look_avx512_(bitstack_lanes_ *to, const float *table,
                                                                                          const bitstack_codes_ *code, uint32_t levels) {
    const __m512i all = _mm512_loadu_si512(code);
    for (uint32_t l = 0; l < levels; l++, table += (size_t)1 << l) {
        const __m512i some = _mm512_and_si512(all, _mm512_set1_epi32((2 << l) - 1));
        if (l < 4) _mm512_storeu_ps(to + l, _mm512_maskz_permutexvar_ps((__mmask16)0xFFFF, some, _mm512_loadu_ps(table)));
        else if (l == 4) _mm512_storeu_ps(to + l, _mm512_permutex2var_ps(_mm512_loadu_ps(table), some, _mm512_loadu_ps(table + 16)));
        else {
            bitstack_codes_ index;
            _mm512_storeu_si512(&index, some);
            BITSTACK_LOOK16_(to + l, table, &index);
        }
    }
}
#endif

/* Scales as they are stored. */
BITSTACK_INLINE_ void bitstack_nest_round_(bitstack_lanes_ *scale, float unit) {
    for (int r = 0; unit > 0 && r < BITSTACK_NEST_ROWS_; r++)
        ((float *)scale)[r] = unit * bitstack_small_value_(bitstack_small_code(((float *)scale)[r] / unit));
}

/* The weights of a column that is kept whole, as they are stored. */
BITSTACK_INLINE_ void bitstack_nest_keep_(bitstack_lanes_ *to, const bitstack_nest_problem_ *p, const bitstack_lanes_ *w, size_t j) {
    for (int r = 0; r < BITSTACK_NEST_ROWS_; r++) {
        const float all = ((const float *)w)[r], scale = p->kept[j], first = scale * floorf(all / scale + 0.5f);
        ((float *)to)[r] = first + (p->twice[j] ? scale / 254 * floorf((all - first) / (scale / 254) + 0.5f) : 0);
    }
}

/* Where a few weights of a row's group are far larger than the rest, the scale that suits the rest cuts them off, and no
 * step of descent finds the way to a larger one: such rows had fifty times the error that they need. So before feedback
 * each row, group and level takes the best of a few multiples of its scale, by what rounding to the nearest value leaves;
 * levels above the fourth round as that one does but for factors of four. Never a smaller one: what feedback adds makes
 * targets wider than weights. */
BITSTACK_INLINE_ void bitstack_nest_widen_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                           bitstack_nest_panel_ *panel) {
    static const float wider[] = {1,     1.06f, 1.12f, 1.18f, 1.25f, 1.31f, 1.37f, 1.45f, 1.55f, 1.65f,
                                  1.8f,  2,     2.25f, 2.5f,  2.75f, 3,     3.5f,  4,     5,     6};
    enum { SCANNED = 4 };
    const size_t n = p->cols, levels = p->levels;
    const bitstack_lanes_ none = bitstack_nest_none_;
    for (size_t g = 0; g < p->groups; g++) {
        const size_t first = g * p->group, end = BITSTACK_MIN_(first + p->group, n);
        bitstack_lanes_ least[BITSTACK_NEST_LEVELS_], best[BITSTACK_NEST_LEVELS_];
        for (size_t l = 0; l < levels; l++) least[l] = none + FLT_MAX, best[l] = none + wider[0];
        for (size_t q = 0; q < sizeof wider / sizeof *wider; q++) {
            bitstack_lanes_ cost[BITSTACK_NEST_LEVELS_], rounding = none; /* rounding: that of the last level scanned */
            memset(cost, 0, sizeof cost);
            for (size_t j = first; j < end; j++) {
                const bitstack_lanes_ w = BITSTACK_SELECT_LANES_(panel->w[j] < none, -panel->w[j], panel->w[j]);
                const float d = p->diagonal[j];
                if (p->kept[j] > 0) continue;
                for (size_t l = 0; l < levels; l++) {
                    const float *table = BITSTACK_NEST_TABLE_(shared, l);
                    const size_t size = (size_t)2 << l;
                    const bitstack_lanes_ s = panel->scale[g * levels + l] * (shared->v[l * n + j] * wider[q]);
                    const bitstack_lanes_ over = w - s * table[size - 1];
                    const bitstack_codes_ cut = over > none;
                    bitstack_lanes_ e = over * over;
                    for (size_t z = 1; l < SCANNED && z < size; z += 2) { /* the positive ones */
                        const bitstack_lanes_ a = w - s * table[z], b = a * a;
                        e = BITSTACK_SELECT_LANES_(b < e, b, e);
                    }
                    cost[l] += d * BITSTACK_SELECT_LANES_(cut, over * over, l < SCANNED ? e : none);
                    if (l == SCANNED - 1) rounding += d * BITSTACK_SELECT_LANES_(cut, none, e);
                }
            }
            for (size_t l = 0; l < levels; l++) {
                if (l >= SCANNED) cost[l] += rounding * (float)ldexp(1, -2 * (int)(l + 1 - SCANNED));
                if (q) cost[l] *= 1.1f; /* what looks better by less is chance */
                const bitstack_codes_ less = cost[l] < least[l];
                least[l] = BITSTACK_SELECT_LANES_(less, cost[l], least[l]);
                best[l] = BITSTACK_SELECT_LANES_(less, none + wider[q], best[l]);
            }
        }
        for (size_t l = 0; l < levels; l++) {
            bitstack_lanes_ *scale = panel->scale + g * levels + l;
            *scale *= best[l];
            bitstack_nest_round_(scale, shared->unit[l]);
        }
    }
}

/* 1 / x, or 0 where x is next to nothing (or nothing). */
BITSTACK_INLINE_ void bitstack_nest_over_(bitstack_lanes_ *to, const bitstack_lanes_ *x) {
    const bitstack_lanes_ none = bitstack_nest_none_;
    const bitstack_codes_ some = *x > none + 1e-18f;
    *to = BITSTACK_SELECT_LANES_(some, (none + 1) / BITSTACK_SELECT_LANES_(some, *x, none + 1), none);
}

/* to[k][level] += h[k] times[level], k < count. */
BITSTACK_INLINE_ void bitstack_nest_add_(bitstack_lanes_ *to, const float *h, size_t count, const bitstack_lanes_ *times, size_t levels) {
    if (levels == BITSTACK_NEST_LEVELS_)
        for (size_t k = 0; k < count; k++, to += BITSTACK_NEST_LEVELS_) {
            const float f = h[k];
            BITSTACK_UNROLL_ for (int l = 0; l < BITSTACK_NEST_LEVELS_; l++) to[l] += f * times[l];
        }
    else
        for (size_t k = 0; k < count; k++)
            for (size_t l = 0; l < levels; l++) to[k * levels + l] += h[k] * times[l];
}

/* from[column][level] times root[column] of a group as integers. */
BITSTACK_INLINE_ void bitstack_nest_integers_(const bitstack_nest_problem_ *p, bitstack_nest_panel_ *panel, size_t g,
                                              const bitstack_lanes_ *from, const float *root) {
    const size_t levels = p->levels, first = g * p->group, width = BITSTACK_MIN_(p->group, p->cols - first);
    const bitstack_lanes_ none = bitstack_nest_none_;
    bitstack_codes_ *q = panel->q + first / 2 * levels;
    bitstack_lanes_ up[BITSTACK_NEST_LEVELS_];
    for (size_t l = 0; l < levels; l++) {
        bitstack_lanes_ most = none;
        for (size_t j = 0; j < width; j++) {
            const bitstack_lanes_ x = from[j * levels + l] * root[j], size = BITSTACK_SELECT_LANES_(x < none, -x, x);
            most = BITSTACK_SELECT_LANES_(size > most, size, most);
        }
        bitstack_nest_over_(up + l, &most);
        panel->size[g * levels + l] = most * (float)(1.0 / (double)BITSTACK_NEST_ERRORS_ / (double)BITSTACK_NEST_FACTORS_);
        up[l] *= (float)BITSTACK_NEST_ERRORS_;
    }
    for (size_t j = 0; j < width; j += 2)
        for (size_t l = 0; l < levels; l++) {
            const bitstack_lanes_ a = from[j * levels + l] * root[j] * up[l];
            bitstack_codes_ both = BITSTACK_WHOLE_(a) & 0xFFFF;
            if (j + 1 < width) {
                const bitstack_lanes_ b = from[(j + 1) * levels + l] * root[j + 1] * up[l];
                both |= (bitstack_codes_)((bitstack_unsigned_)BITSTACK_WHOLE_(b) << 16);
            }
            q[j / 2 * levels + l] = both;
        }
}

/* to[i][level] = unit[i] times the product of rows first + i of a with the integers of groups from..end. */
BITSTACK_INLINE_ void bitstack_nest_product_(const bitstack_nest_problem_ *p, const bitstack_nest_panel_ *panel, const int16_t *a,
                                             size_t first, size_t rows, size_t from, size_t end, const float *unit, bitstack_lanes_ *to) {
    const size_t levels = p->levels;
    memset(to, 0, rows * levels * sizeof *to);
    for (size_t g = from; g < end; g++)
        p->dot(rows, (BITSTACK_MIN_(p->group, p->cols - g * p->group) + 1) / 2, a + first * p->room + g * p->group, p->room,
               (const int32_t *)(panel->q + g * p->group / 2 * levels), (const float *)(panel->size + g * levels),
               levels * BITSTACK_NEST_ROWS_, (float *)to);
    for (size_t i = 0; i < rows; i++)
        for (size_t l = 0; l < levels; l++) to[i * levels + l] *= unit[i];
}

/* One pass of feedback: codes, and what the fits need where sums is given; scales are fitted to the targets. */
BITSTACK_INLINE_ void bitstack_nest_feedback_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                              bitstack_nest_panel_ *panel, bitstack_nest_sums_ *sums) {
    const size_t n = p->cols, levels = p->levels;
    const bitstack_lanes_ none = bitstack_nest_none_;
    bitstack_lanes_ aim[BITSTACK_NEST_LEVELS_], weight[BITSTACK_NEST_LEVELS_], size[BITSTACK_NEST_LEVELS_], value[BITSTACK_NEST_LEVELS_];
    bitstack_lanes_ *over = panel->error; /* [group][level][3]: for the scales, and 1 / scale */
    memset(over, 0, p->groups * levels * 3 * sizeof *over);
    for (size_t g = 0; g < p->groups; g++)
        for (size_t l = 0; l < levels; l++) bitstack_nest_over_(over + (g * levels + l) * 3 + 2, panel->scale + g * levels + l);
    for (size_t block = 0; block < p->groups; block++) {
        const size_t first = block * p->group, end = BITSTACK_MIN_(first + p->group, n);
        if (p->factor && block) bitstack_nest_product_(p, panel, p->factor, first, end - first, 0, block, p->reach + first, panel->slope);
        else memset(panel->slope, 0, (end - first) * levels * sizeof *panel->slope);
        for (size_t k = first; k < end; k++) {
            const size_t j = p->order[k], g = j / p->group;
            const float d = p->innovation[k];
            bitstack_lanes_ *push = panel->push + (k - first) * levels, *target = panel->slope + (k - first) * levels;
            for (size_t l = 0; l < levels; l++) target[l] += panel->w[j];
            if (p->kept[j] > 0) {
                memset(panel->code + j, 0, sizeof *panel->code);
                for (size_t l = 0; l < levels; l++) {
                    bitstack_nest_keep_(push + l, p, panel->w + j, j);
                    push[l] -= target[l];
                }
            } else {
                for (size_t l = 0; l < levels; l++) {
                    size[l] = panel->scale[g * levels + l] * shared->v[l * n + j];
                    aim[l] = target[l] * over[(g * levels + l) * 3 + 2] * shared->over_v[l * n + j];
                    weight[l] = shared->weight[l] * d * size[l] * size[l];
                }
                p->choose(panel->code + j, shared, p->levels, aim, weight);
                p->look(value, shared->table, panel->code + j, p->levels);
                for (size_t l = 0; l < levels; l++) {
                    bitstack_lanes_ *sum = over + (g * levels + l) * 3, x = value[l] * shared->v[l * n + j];
                    push[l] = size[l] * value[l] - target[l];
                    sum[0] += d * x * target[l], sum[1] += d * x * x;
                }
                for (size_t l = 0; l < levels && sums; l++) {
                    const bitstack_lanes_ st = size[l] * target[l], ss = size[l] * size[l], qt = value[l] * st, qq = value[l] * value[l] * ss;
                    float *v = sums->v + (l * n + j) * 2;
                    double(*table)[2] = sums->table + ((size_t)2 << l) - 2;
                    for (int r = 0; r < BITSTACK_NEST_ROWS_; r++) {
                        const size_t entry = (size_t)((const int32_t *)(panel->code + j))[r] & (((size_t)2 << l) - 1);
                        table[entry][0] += (double)((const float *)&st)[r], table[entry][1] += (double)((const float *)&ss)[r];
                        v[0] += ((const float *)&qt)[r], v[1] += ((const float *)&qq)[r];
                    }
                }
            }
            if (p->factor) bitstack_nest_add_(target + levels, p->factor_near + k * p->group + k + 1 - first, end - k - 1, push, levels);
        }
        if (p->factor && end < n) bitstack_nest_integers_(p, panel, block, panel->push, p->root_innovation + first);
    }
    for (size_t g = 0; g < p->groups; g++)
        for (size_t l = 0; l < levels; l++) {
            const bitstack_lanes_ *sum = over + (g * levels + l) * 3;
            bitstack_lanes_ *scale = panel->scale + g * levels + l;
            const bitstack_lanes_ fitted = sum[0] / BITSTACK_SELECT_LANES_(sum[1] > none, sum[1], none + 1);
            const bitstack_codes_ alike = (fitted > 0.5f * *scale) & (fitted < 2.0f * *scale);
            *scale = BITSTACK_SELECT_LANES_(alike, fitted, *scale);
            bitstack_nest_round_(scale, shared->unit[l]);
            for (int r = 0; sums && r < BITSTACK_NEST_ROWS_; r++) {
                sums->scale[l][0] += (double)((const float *)scale)[r];
                sums->scale[l][1] += (double)((const float *)(panel->rms + g))[r];
            }
        }
}

/* From codes: errors, and their integers. */
BITSTACK_INLINE_ void bitstack_nest_errors_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                            bitstack_nest_panel_ *panel) {
    const size_t n = p->cols, levels = p->levels;
    for (size_t j = 0; j < n; j++) {
        bitstack_lanes_ *error = panel->error + j * levels;
        p->look(error, shared->table, panel->code + j, p->levels);
        for (size_t l = 0; l < levels; l++) {
            bitstack_lanes_ value = error[l] * panel->scale[j / p->group * levels + l] * shared->v[l * n + j];
            if (p->kept[j] > 0) bitstack_nest_keep_(&value, p, panel->w + j, j);
            error[l] = panel->w[j] - value;
        }
    }
    for (size_t g = 0; p->h && g < p->groups; g++)
        bitstack_nest_integers_(p, panel, g, panel->error + g * p->group * levels, p->root + g * p->group);
}

/* A group's columns times H or its diagonal; with H, from their integers. */
BITSTACK_INLINE_ void bitstack_nest_turn_(const bitstack_nest_problem_ *p, bitstack_nest_panel_ *panel, size_t g,
                                          const bitstack_lanes_ *from, bitstack_lanes_ *to) {
    const size_t levels = p->levels, first = g * p->group, width = BITSTACK_MIN_(p->group, p->cols - first);
    if (p->h) {
        bitstack_nest_integers_(p, panel, g, from, p->root + first);
        bitstack_nest_product_(p, panel, p->h, first, width, g, g + 1, p->root + first, to);
    } else
        for (size_t j = 0; j < width; j++)
            for (size_t l = 0; l < levels; l++) to[j * levels + l] = p->diagonal[first + j] * from[j * levels + l];
}

/* The scales of a group at each level: closed form a row, rounded, taken where the error falls. */
BITSTACK_INLINE_ void bitstack_nest_fit_scales_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                                bitstack_nest_panel_ *panel, size_t g) {
    const size_t n = p->cols, levels = p->levels, first = g * p->group, width = BITSTACK_MIN_(p->group, n - first);
    const bitstack_lanes_ none = bitstack_nest_none_;
    bitstack_lanes_ bend[BITSTACK_NEST_LEVELS_], pull[BITSTACK_NEST_LEVELS_];
    memset(bend, 0, sizeof bend), memset(pull, 0, sizeof pull);
    for (size_t j = 0; j < width; j++) {
        bitstack_lanes_ *value = panel->value + j * levels;
        p->look(value, shared->table, &panel->code[first + j], p->levels);
        for (size_t l = 0; l < levels; l++) {
            value[l] *= shared->v[l * n + first + j];
            pull[l] += value[l] * panel->slope[j * levels + l];
        }
    }
    bitstack_nest_turn_(p, panel, g, panel->value, panel->turned);
    for (size_t j = 0; j < width; j++)
        for (size_t l = 0; l < levels; l++) bend[l] += panel->turned[j * levels + l] * panel->value[j * levels + l];
    for (size_t l = 0; l < levels; l++) {
        const bitstack_lanes_ old = panel->scale[g * levels + l];
        bitstack_lanes_ fitted = old + pull[l] / BITSTACK_SELECT_LANES_(bend[l] > none, bend[l], none + 1), step;
        fitted = BITSTACK_SELECT_LANES_((fitted > 0.5f * old) & (fitted < 2.0f * old), fitted, old);
        bitstack_nest_round_(&fitted, shared->unit[l]);
        step = fitted - old;
        step = BITSTACK_SELECT_LANES_(step * (step * bend[l] - 2 * pull[l]) < none, step, none);
        panel->scale[g * levels + l] = old + step;
        for (size_t j = 0; j < width; j++) {
            panel->error[(first + j) * levels + l] -= step * panel->value[j * levels + l];
            panel->slope[j * levels + l] -= step * panel->turned[j * levels + l];
        }
    }
}

/* The errors' product with H for a group's columns, and what the groups before have of it. */
BITSTACK_INLINE_ void bitstack_nest_slope_(const bitstack_nest_problem_ *p, bitstack_nest_panel_ *panel, size_t g) {
    const size_t levels = p->levels, first = g * p->group, width = BITSTACK_MIN_(p->group, p->cols - first);
    if (p->h) {
        bitstack_nest_product_(p, panel, p->h, first, width, 0, g, p->root + first, panel->below);
        bitstack_nest_product_(p, panel, p->h, first, width, g, p->groups, p->root + first, panel->slope);
        for (size_t i = 0; i < width * levels; i++) panel->slope[i] += panel->below[i];
    } else {
        memset(panel->below, 0, width * levels * sizeof *panel->below);
        bitstack_nest_turn_(p, panel, g, panel->error + first * levels, panel->slope);
    }
}

/* A group's part of the error: e H e over it, and twice over it and those before. Leaves its integers as they are to stay. */
BITSTACK_INLINE_ void bitstack_nest_sum_errors_(const bitstack_nest_problem_ *p, bitstack_nest_panel_ *panel, size_t g) {
    const size_t levels = p->levels, first = g * p->group, width = BITSTACK_MIN_(p->group, p->cols - first);
    const bitstack_lanes_ *error = panel->error + first * levels;
    bitstack_nest_turn_(p, panel, g, error, panel->turned);
    for (size_t l = 0; l < levels; l++) {
        bitstack_lanes_ a = bitstack_nest_none_, b = bitstack_nest_none_;
        for (size_t i = l; i < width * levels; i += levels) a += error[i] * (2 * panel->below[i] + panel->turned[i]), b += error[i] * error[i];
        for (int r = 0; r < BITSTACK_NEST_ROWS_; r++)
            panel->sum[l][0] += (double)((const float *)&a)[r], panel->sum[l][1] += (double)((const float *)&b)[r];
    }
}

/* One sweep of coordinate descent: scales and codes, group by group. Returns how many codes changed. */
BITSTACK_INLINE_ size_t bitstack_nest_sweep_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                             bitstack_nest_panel_ *panel) {
    const size_t n = p->cols, levels = p->levels;
    bitstack_lanes_ aim[BITSTACK_NEST_LEVELS_], weight[BITSTACK_NEST_LEVELS_], size[BITSTACK_NEST_LEVELS_], over[BITSTACK_NEST_LEVELS_];
    size_t changed = 0;
    memset(panel->sum, 0, levels * sizeof *panel->sum);
    for (size_t g = 0; g < p->groups; g++) {
        const size_t first = g * p->group, width = BITSTACK_MIN_(p->group, n - first), end = first + width;
        bitstack_nest_slope_(p, panel, g);
        bitstack_nest_fit_scales_(p, shared, panel, g);
        for (size_t l = 0; l < levels; l++) bitstack_nest_over_(over + l, panel->scale + g * levels + l);
        for (size_t j = first; j < end; j++) {
            const float d = p->diagonal[j];
            bitstack_lanes_ *error = panel->error + j * levels, *slope = panel->slope + (j - first) * levels;
            bitstack_codes_ code;
            int any = 0;
            if (!(d > 0) || p->kept[j] > 0) continue;
            for (size_t l = 0; l < levels; l++) {
                size[l] = panel->scale[g * levels + l] * shared->v[l * n + j];
                aim[l] = (panel->w[j] - error[l] + slope[l] / d) * over[l] * shared->over_v[l * n + j];
                weight[l] = shared->weight[l] * d * size[l] * size[l];
            }
            p->choose(&code, shared, p->levels, aim, weight);
            for (int r = 0; r < BITSTACK_NEST_ROWS_; r++) any += BITSTACK_LANE_(code, r) != BITSTACK_LANE_(panel->code[j], r);
            if (!any) continue;
            changed += (size_t)any;
            panel->code[j] = code;
            p->look(aim, shared->table, &code, p->levels);
            for (size_t l = 0; l < levels; l++) {
                aim[l] = panel->w[j] - size[l] * aim[l] - error[l];
                error[l] += aim[l];
            }
            if (p->h) bitstack_nest_add_(slope + levels, p->h_near + j * p->group + j + 1 - first, end - j - 1, aim, levels);
        }
        bitstack_nest_sum_errors_(p, panel, g);
    }
    return changed;
}

/* A panel from start to end. sums: a pass over the sample, whose scales are kept; else all passes, then errors of
 * each level with H and without in panel->sum. */
typedef struct bitstack_nest_work_ {
    bitstack_nest_panel_ *panel;
    bitstack_nest_sums_ *sums;
    int passes, sweeps;
} bitstack_nest_work_;

BITSTACK_INLINE_ void bitstack_nest_work_body_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                               const bitstack_nest_work_ *work) {
    bitstack_nest_panel_ *panel = work->panel;
    for (int pass = 0; pass < work->passes; pass++) {
        if (!work->sums) bitstack_nest_widen_(p, shared, panel);
        bitstack_nest_feedback_(p, shared, panel, work->sums);
    }
    if (work->sums) return;
    bitstack_nest_errors_(p, shared, panel);
    for (int sweep = 0; sweep < work->sweeps && bitstack_nest_sweep_(p, shared, panel); sweep++) {}
}

typedef void (*bitstack_nest_worker_)(const bitstack_nest_problem_ *, const bitstack_nest_shared_ *, const bitstack_nest_work_ *);
BITSTACK_PRIVATE_ void bitstack_nest_work_plain_(const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared,
                                                 const bitstack_nest_work_ *work) {
    bitstack_nest_work_body_(p, shared, work);
}
#if defined(BITSTACK_LINALG_AVX2_) && BITSTACK_NEST_ROWS_ == 16
__attribute__((target("avx2,fma"))) BITSTACK_PRIVATE_ void bitstack_nest_work_avx2_(
    const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared, const bitstack_nest_work_ *work) {
    bitstack_nest_work_body_(p, shared, work);
}
__attribute__((target("avx512f,avx512bw,avx512dq,fma"))) BITSTACK_PRIVATE_ void bitstack_nest_work_avx512_(
    const bitstack_nest_problem_ *p, const bitstack_nest_shared_ *shared, const bitstack_nest_work_ *work) {
    bitstack_nest_work_body_(p, shared, work);
}
#endif
/* The best kernels of this CPU. */
BITSTACK_PRIVATE_ bitstack_nest_worker_ bitstack_nest_pick_(bitstack_nest_problem_ *p) {
    p->dot = bitstack_nest_dot_plain_, p->choose = bitstack_nest_choose_plain_, p->look = bitstack_nest_look_plain_;
#if defined(BITSTACK_LINALG_AVX2_) && BITSTACK_NEST_ROWS_ == 16
    if (__builtin_cpu_supports("sse2")) p->dot = bitstack_nest_dot_sse2_;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return bitstack_nest_work_plain_;
    p->dot = bitstack_nest_dot_avx2_, p->choose = bitstack_nest_choose_avx2_, p->look = bitstack_nest_look_avx2_;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq"))
        return bitstack_nest_work_avx2_;
    p->dot = __builtin_cpu_supports("avx512vnni") ? bitstack_nest_dot_vnni_ : bitstack_nest_dot_avx512_;
    p->choose = bitstack_nest_choose_avx512_, p->look = bitstack_nest_look_avx512_;
    return bitstack_nest_work_avx512_;
#else
    return bitstack_nest_work_plain_;
#endif
}

/* All of one matrix. */
typedef struct bitstack_nest_ {
    bitstack_nest_problem_ problem;
    bitstack_nest_shared_ shared;
    bitstack_nest_worker_ work;
    bitstack_coded *coded;
    bitstack_lanes_ *room;   /* scratch a worker */
    size_t room_each;
    bitstack_lanes_ *scales; /* of the sample's panels */
    size_t sample, panels, first;
    bitstack_nest_sums_ *sums;   /* one a panel of the sample */
    float *sums_v;
    double (*error)[BITSTACK_NEST_LEVELS_][2]; /* one a panel */
    float *rms;                  /* [row][group] */
    int16_t *h, *factor;
    float *beside, *columns; /* h_near and factor_near; what there is of a column, see bitstack_nest_allocate_ */
    float *diagonal, *innovation, *root, *root_innovation, *reach, *kept;
    unsigned char *twice;
    uint32_t *order;
    int passes, sweeps;
} bitstack_nest_;

/* Row r of panel `index`; the sample's are spread over the matrix. */
BITSTACK_PRIVATE_ size_t bitstack_nest_row_(const bitstack_nest_ *s, size_t index, size_t r, int sample) {
    const size_t i = index * BITSTACK_NEST_ROWS_ + r;
    return sample ? (size_t)((uint64_t)i * s->problem.rows / (s->sample * BITSTACK_NEST_ROWS_)) : i;
}

BITSTACK_PRIVATE_ bitstack_nest_panel_ bitstack_nest_load_(const bitstack_nest_ *s, size_t index, uint32_t worker, int sample) {
    const bitstack_nest_problem_ *p = &s->problem;
    const size_t n = p->cols, levels = p->levels, each = p->group * levels;
    bitstack_nest_panel_ panel;
    bitstack_lanes_ *at = s->room + worker * s->room_each;
    panel.w = at, at += n, panel.error = at, at += BITSTACK_MAX_(n, 3 * p->groups) * levels;
    panel.scale = at, at += p->groups * levels, panel.rms = at, at += p->groups;
    panel.slope = at, at += each, panel.below = at, at += each, panel.push = at, at += each;
    panel.value = at, at += each, panel.turned = at, at += each, panel.size = at, at += p->groups * levels;
    panel.q = (bitstack_codes_ *)(void *)at, at += (n + 1) / 2 * levels, panel.code = (bitstack_codes_ *)(void *)at;
    panel.sum = s->error[sample ? 0 : index];
    if (sample) panel.scale = s->scales + index * p->groups * p->levels;
    memset(panel.code, 0, n * sizeof *panel.code);
    for (size_t r = 0; r < BITSTACK_NEST_ROWS_; r++) {
        const size_t i = bitstack_nest_row_(s, index, r, sample);
        for (size_t j = 0; j < n; j++) ((float *)(panel.w + j))[r] = i < p->rows ? p->w[i * p->stride + j] * p->unit : 0;
        for (size_t g = 0; g < p->groups; g++) ((float *)(panel.rms + g))[r] = i < p->rows ? s->rms[i * p->groups + g] : 0;
    }
    return panel;
}

BITSTACK_PRIVATE_ void bitstack_nest_sample_task_(void *arg, uint32_t task, uint32_t worker) {
    bitstack_nest_ *s = (bitstack_nest_ *)arg;
    bitstack_nest_panel_ panel = bitstack_nest_load_(s, task, worker, 1);
    const bitstack_nest_work_ work = {&panel, s->sums + task, 1, 0};
    float *v = s->sums[task].v;
    memset(s->sums + task, 0, sizeof *s->sums);
    memset(v, 0, 2 * s->problem.levels * s->problem.cols * sizeof *v);
    s->sums[task].v = v;
    s->work(&s->problem, &s->shared, &work);
}

/* The payload's bytes of one panel. */
BITSTACK_PRIVATE_ void bitstack_nest_store_(const bitstack_nest_ *s, const bitstack_nest_panel_ *panel, size_t index) {
    const bitstack_nest_problem_ *p = &s->problem;
    const size_t chunks = (p->cols + 31) / 32;
    for (uint32_t l = 0; l < p->levels; l++) {
        unsigned char *codes = bitstack_coded_coefficients_(s->coded, l + 1), *signs = bitstack_coded_signs_(s->coded, l + 1);
        for (size_t r = 0; r < BITSTACK_NEST_ROWS_; r++) {
            const size_t i = bitstack_nest_row_(s, index, r, 0), tile = i / 16, lane = i % 16;
            if (i >= p->rows) break;
            for (size_t g = 0; g < p->groups; g++)
                codes[(tile * p->groups + g) * 16 + lane] = (unsigned char)bitstack_small_code(
                    ((const float *)(panel->scale + g * p->levels + l))[r] / s->shared.unit[l]);
            unsigned char *to = signs + tile * chunks * 64 + 4 * lane;
            for (size_t j = 0; j < p->cols; j++) {
                const uint32_t one = (uint32_t)BITSTACK_LANE_(panel->code[j], r) >> l & 1;
                unsigned char *byte = to + j / 32 * 64 + j % 4;
                *byte = (unsigned char)(*byte | one << (j % 32 / 4));
            }
        }
    }
}

BITSTACK_PRIVATE_ void bitstack_nest_panel_task_(void *arg, uint32_t task, uint32_t worker) {
    bitstack_nest_ *s = (bitstack_nest_ *)arg;
    const bitstack_nest_problem_ *p = &s->problem;
    const size_t index = s->first + task;
    bitstack_nest_panel_ panel = bitstack_nest_load_(s, index, worker, 0);
    const bitstack_nest_work_ work = {&panel, NULL, s->passes, s->sweeps};
    for (size_t g = 0; g < p->groups; g++)
        for (uint32_t l = 0; l < p->levels; l++) {
            bitstack_lanes_ *scale = panel.scale + g * p->levels + l;
            *scale = panel.rms[g] * s->shared.ratio[l];
            bitstack_nest_round_(scale, s->shared.unit[l]);
        }
    s->work(p, &s->shared, &work);
    bitstack_nest_store_(s, &panel, index);
}

/* ---- start and fits ---- */

BITSTACK_PRIVATE_ int BITSTACK_CDECL_ bitstack_compare_floats_(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Tables as a tree: level l + 1 splits each of level l's cells where the centroids of its halves meet (Lloyd's rule).
 * u: sorted magnitudes, at least one. Codes: bit 0 is the sign, then a bit a level, 1 for the larger half; negative
 * values have all bits turned. */
BITSTACK_PRIVATE_ bitstack_result bitstack_nest_tree_(bitstack_nest_shared_ *shared, uint32_t levels, const float *u, size_t count) {
    size_t from[BITSTACK_NEST_CODES_ / 2], to[BITSTACK_NEST_CODES_ / 2];
    double *sum = (double *)bitstack_array_(count + 1, sizeof *sum), before = 0;
    if (!sum) return BITSTACK_ERROR_MEMORY;
    sum[0] = 0;
    for (size_t i = 0; i < count; i++) sum[i + 1] = sum[i] + (double)u[i];
    from[0] = 0, to[0] = count;
    for (uint32_t l = 0; l < levels; l++) {
        float *table = BITSTACK_NEST_TABLE_(shared, l);
        const size_t cells = (size_t)1 << l, all = 2 * cells - 1;
        for (size_t c = 0; l && c < cells / 2; c++) {
            size_t a = from[c], b = to[c], m = (a + b) / 2;
            for (int turn = 0; turn < 30 && b - a >= 4; turn++) {
                const double meet = 0.5 * ((sum[m] - sum[a]) / (double)(m - a) + (sum[b] - sum[m]) / (double)(b - m));
                size_t low = a + 1, high = b - 1, old = m;
                while (low < high) {
                    const size_t mid = (low + high) / 2;
                    if ((double)u[mid] < meet) low = mid + 1;
                    else high = mid;
                }
                m = low;
                if (m == old) break;
            }
            from[c + cells / 2] = m, to[c + cells / 2] = b, to[c] = m;
        }
        for (size_t c = 0; c < cells; c++) {
            const double n = (double)(to[c] - from[c]);
            const size_t code = 1 | c << 1;
            if (n > 0) before = (sum[to[c]] - sum[from[c]]) / n;
            else before = l ? (double)(table - (all + 1) / 2)[code & (cells - 1)] : 1; /* as the level below */
            table[code] = (float)before, table[all - code] = (float)-before;
        }
    }
    bitstack_drop_(sum);
    return BITSTACK_OK;
}

/* What goes with tables and column factors: halves of the tables, reciprocals. */
BITSTACK_PRIVATE_ void bitstack_nest_halve_(bitstack_nest_ *s) {
    bitstack_nest_shared_ *shared = &s->shared;
    const uint32_t levels = s->problem.levels;
    for (uint32_t l = 0; l < levels; l++) {
        const float *table = BITSTACK_NEST_TABLE_(shared, l);
        float *half = shared->half + ((size_t)1 << l) - 1;
        shared->least[l] = FLT_MAX;
        for (size_t z = 0; z < (size_t)1 << l; z++) {
            half[z] = table[1 | z << 1];
            shared->least[l] = BITSTACK_MIN_(shared->least[l], half[z]);
        }
        for (size_t z = 0, size = ((size_t)1 << l) / 2; l + 1 == levels && z < size; z++) {
            shared->middle[z] = 0.5f * (half[z] + half[z + size]);
            shared->apart[z] = 0.5f * fabsf(half[z + size] - half[z]);
        }
    }
    for (size_t j = 0; j < levels * s->problem.cols; j++) shared->over_v[j] = shared->v[j] > 1e-18f ? 1 / shared->v[j] : 0;
}

/* The two levels behind `below` as sums: its values and one or two bits of a quantizer of normal numbers, as wide as the
 * rounding that `below` leaves. Cells split in two have wide ones outside, and the fits do not leave them: levels 5 to 8 that
 * begin as sums have a tenth to a third less error. */
BITSTACK_PRIVATE_ void bitstack_nest_refine_(bitstack_nest_shared_ *shared, uint32_t below, uint32_t levels) {
    static const float one = 0.798f, two[2] = {0.98f, 0.53f};
    const size_t size = (size_t)1 << below, outside = size / 8; /* at each end left out: cells there are wider */
    const float *from = BITSTACK_NEST_TABLE_(shared, below - 1);
    float sorted[BITSTACK_NEST_CODES_];
    double square = 0;
    memcpy(sorted, from, size * sizeof *sorted);
    qsort(sorted, size, sizeof *sorted, bitstack_compare_floats_);
    for (size_t i = outside; i + outside + 1 < size; i++) square += pow((double)sorted[i + 1] - (double)sorted[i], 2);
    const float width = (float)sqrt(square / (double)(size - 1 - 2 * outside) / 12);
    for (uint32_t l = below; l < levels && l < below + 2; l++) {
        float *table = BITSTACK_NEST_TABLE_(shared, l);
        for (size_t c = 0; c < (size_t)2 << l; c++) {
            const float first = c & size ? 1 : -1, second = c & size << 1 ? 1 : -1;
            table[c] = from[c & (size - 1)] + width * (l == below ? one * first : two[0] * first + two[1] * second);
        }
    }
}

/* Column factors to begin with: root mean squares over all rows, of mean square 1. Columns that carry more of the
 * output's energy than their bytes would save as levels (8 bits a weight; a level lowers the error to about a quarter)
 * are kept whole: where one input outweighs all others, no scale of its group suits both. One that carries most of
 * all is kept twice, the second time what rounding has left. Returns how many. */
BITSTACK_PRIVATE_ uint32_t bitstack_nest_columns_(bitstack_nest_ *s) {
    const bitstack_nest_problem_ *p = &s->problem;
    const double worth = p->cols < 128 ? 2 : 14.0 / (double)p->cols; /* of narrow matrices columns are too large a part */
    float *square = s->shared.v, *largest = s->kept;
    double all = 0, energy = 0;
    uint32_t kept = 0;
    memset(square, 0, p->cols * sizeof *square), memset(largest, 0, p->cols * sizeof *largest);
    for (size_t i = 0; i < p->rows; i++)
        for (size_t j = 0; j < p->cols; j++) {
            const float w = p->w[i * p->stride + j] * p->unit;
            square[j] += w * w, largest[j] = BITSTACK_MAX_(largest[j], fabsf(w));
        }
    for (size_t j = 0; j < p->cols; j++) energy += (double)square[j] * (double)p->diagonal[j];
    for (size_t j = 0; j < p->cols; j++) {
        if ((double)square[j] * (double)p->diagonal[j] > worth * energy && kept < 255 && kept < p->cols / 16 && largest[j] > FLT_MIN * 127) {
            s->twice[j] = (double)square[j] * (double)p->diagonal[j] > 0.4 * energy && kept < 254;
            s->kept[j] = largest[j] / 127, kept += 1u + s->twice[j], square[j] = 0;
        } else s->kept[j] = 0, s->twice[j] = 0;
        all += (double)square[j];
    }
    for (size_t j = 0; j < p->cols; j++) {
        const double v = all > 0 ? sqrt((double)square[j] / all * (double)p->cols) : 1;
        for (size_t l = p->levels; l-- > 0;) s->shared.v[l * p->cols + j] = s->kept[j] > 0 ? 0 : (float)v;
    }
    return kept;
}

/* The diagonal's mean is 1 over the columns that are coded: those kept whole would make everything that is measured by
 * it, damping above all, as large as they are. Returns what it was divided by. */
BITSTACK_PRIVATE_ double bitstack_nest_even_(bitstack_nest_ *s, int weighted) {
    const bitstack_nest_problem_ *p = &s->problem;
    const double ridge = weighted ? p->ridge : 0;
    double sum = 0, count = 0;
    for (size_t j = 0; j < p->cols; j++)
        if (!(s->kept[j] > 0)) sum += (double)s->diagonal[j] - ridge, count++;
    if (!(sum > 0)) return 1;
    for (size_t j = 0; j < p->cols; j++) s->diagonal[j] = (float)(((double)s->diagonal[j] - ridge) * count / sum + ridge);
    for (size_t k = 0; k < p->cols; k++) s->innovation[k] = s->diagonal[p->order[k]];
    return sum / count;
}

/* Root mean square of each row and group over the column factors. Returns the largest, or more where wider scales may be
 * wanted (bitstack_nest_widen_). */
BITSTACK_PRIVATE_ float bitstack_nest_scales_(bitstack_nest_ *s) {
    const bitstack_nest_problem_ *p = &s->problem;
    float largest = 0, peak = 0;
    for (size_t i = 0; i < p->rows; i++)
        for (size_t g = 0; g < p->groups; g++) {
            const size_t first = g * p->group, end = BITSTACK_MIN_(first + p->group, p->cols);
            float sum = 0, over = 0;
            for (size_t j = first; j < end; j++) {
                const float w = p->w[i * p->stride + j] * p->unit, v = s->shared.v[j];
                if (v > 0) sum += w * w, over += v * v, peak = BITSTACK_MAX_(peak, fabsf(w) / v);
            }
            s->rms[i * p->groups + g] = over > 0 ? sqrtf(sum / over) : 0;
            largest = BITSTACK_MAX_(largest, s->rms[i * p->groups + g]);
        }
    return BITSTACK_MAX_(largest, BITSTACK_MIN_(peak / 4, 4 * largest));
}

/* Magnitudes of the sample in units of scale and column factor, sorted: the first tables. */
BITSTACK_PRIVATE_ bitstack_result bitstack_nest_start_(bitstack_nest_ *s) {
    const bitstack_nest_problem_ *p = &s->problem;
    const size_t most = (size_t)1 << 16, rows = BITSTACK_MIN_(p->rows, s->sample * BITSTACK_NEST_ROWS_);
    const size_t step = (size_t)((uint64_t)rows * p->cols / most) + 1;
    float *u = (float *)bitstack_array_((uint64_t)rows * p->cols / step + 1, sizeof *u);
    size_t count = 0, at = 0;
    bitstack_result result;
    if (!u) return BITSTACK_ERROR_MEMORY;
    for (size_t r = 0; r < rows; r++) {
        const size_t i = (size_t)((uint64_t)r * p->rows / rows);
        for (; at < p->cols; at += step) {
            const float size = s->rms[i * p->groups + at / p->group] * s->shared.v[at];
            if (size > 0) u[count++] = BITSTACK_MIN_(fabsf(p->w[i * p->stride + at] * p->unit) / size, 8); /* beyond are odd ones */
        }
        at -= p->cols;
    }
    if (!count) u[count++] = 1;
    qsort(u, count, sizeof *u, bitstack_compare_floats_);
    result = bitstack_nest_tree_(&s->shared, BITSTACK_MIN_(p->levels, (uint32_t)BITSTACK_NEST_TREE_), u, count);
    for (uint32_t below = BITSTACK_NEST_TREE_; below < p->levels; below += 2) bitstack_nest_refine_(&s->shared, below, p->levels);
    bitstack_drop_(u);
    bitstack_nest_halve_(s);
    for (uint32_t l = 0; l < p->levels; l++) s->shared.ratio[l] = 1;
    for (size_t k = 0; k < s->sample; k++)
        for (size_t r = 0; r < BITSTACK_NEST_ROWS_; r++) {
            const size_t i = bitstack_nest_row_(s, k, r, 1);
            for (size_t g = 0; g < p->groups; g++)
                for (size_t l = 0; l < p->levels; l++)
                    ((float *)(s->scales + (k * p->groups + g) * p->levels + l))[r] = i < p->rows ? s->rms[i * p->groups + g] : 0;
        }
    return result;
}

/* Tables, column factors and first scales from what the sample met. Sizes are the scales' alone to fit: what tables and
 * column factors took of it in the same pass would be taken twice, and passes would drive each other apart. */
BITSTACK_PRIVATE_ void bitstack_nest_fit_(bitstack_nest_ *s, int fit) {
    const bitstack_nest_problem_ *p = &s->problem;
    bitstack_nest_shared_ *shared = &s->shared;
    bitstack_nest_sums_ *all = s->sums;
    for (size_t k = 1; k < s->sample; k++) {
        const bitstack_nest_sums_ *one = s->sums + k;
        for (size_t e = 0; e < BITSTACK_NEST_VALUES_; e++)
            all->table[e][0] += one->table[e][0], all->table[e][1] += one->table[e][1];
        for (uint32_t l = 0; l < p->levels; l++)
            all->scale[l][0] += one->scale[l][0], all->scale[l][1] += one->scale[l][1];
        for (size_t j = 0; j < 2 * p->levels * p->cols; j++) all->v[j] += one->v[j];
    }
    for (uint32_t l = 0; l < p->levels; l++) {
        float *table = BITSTACK_NEST_TABLE_(shared, l), *v = shared->v + l * p->cols;
        const size_t first = ((size_t)2 << l) - 2, last = ((size_t)2 << l) - 1;
        if (all->scale[l][1] > 0) shared->ratio[l] = (float)(all->scale[l][0] / all->scale[l][1]);
        if (!fit) continue;
        double before = 0, after = 0, sum[2] = {0, 0};
        for (size_t e = 0; e <= last / 2; e++) {
            const double *x = all->table[first + e], *y = all->table[first + last - e], both = x[1] + y[1];
            if (!(both > 0)) continue;
            before += both * (double)table[e] * (double)table[e];
            table[e] = (float)((x[0] - y[0]) / both), table[last - e] = -table[e];
            after += both * (double)table[e] * (double)table[e];
        }
        for (size_t e = 0; e <= last && after > 0; e++) table[e] *= (float)sqrt(before / after);
        for (size_t j = 0; j < p->cols; j++)
            sum[0] += (double)all->v[(l * p->cols + j) * 2], sum[1] += (double)all->v[(l * p->cols + j) * 2 + 1];
        for (size_t j = 0; j < p->cols; j++) {
            const float *x = all->v + (l * p->cols + j) * 2, gain = x[1] > 0 && sum[0] > 0 ? (float)(x[0] / x[1] * sum[1] / sum[0]) : 1;
            v[j] *= BITSTACK_MAX_(0.5f, BITSTACK_MIN_(gain, 2));
        }
    }
    bitstack_nest_halve_(s);
}

/* Tables and column factors as they are stored; scales take up what they are multiplied by. */
BITSTACK_PRIVATE_ void bitstack_nest_settle_(bitstack_nest_ *s, float largest) {
    const bitstack_nest_problem_ *p = &s->problem;
    bitstack_nest_shared_ *shared = &s->shared;
    for (uint32_t l = 0; l < p->levels; l++) {
        float *table = BITSTACK_NEST_TABLE_(shared, l), *v = shared->v + l * p->cols, top = 0, widest = 0;
        const float most = l < 6 ? 127.0f : 32767.0f;
        int exponent;
        for (size_t e = 0; e < (size_t)2 << l; e++) top = BITSTACK_MAX_(top, fabsf(table[e]));
        for (size_t e = 0, last = ((size_t)2 << l) - 1; e <= last / 2; e++) {
            table[e] = top > 0 ? (float)floor((double)(table[e] * most / top) + 0.5) : 0;
            table[last - e] = -table[e];
        }
        for (size_t j = 0; j < p->cols; j++) widest = BITSTACK_MAX_(widest, v[j]);
        for (size_t j = 0; j < p->cols; j++) {
            const uint32_t code = bitstack_small_code(widest > 0 ? v[j] / widest * 1.9f : 0);
            v[j] = bitstack_small_value_(code || !(v[j] > 0) ? code : 1);
        }
        shared->ratio[l] *= top / most * widest / 1.9f;
        exponent = bitstack_exponent_((double)(largest * shared->ratio[l]) * 1.4 / 1.96875);
        shared->unit[l] = (float)ldexp(1, BITSTACK_MAX_(-120, BITSTACK_MIN_(exponent, 120)));
    }
    bitstack_nest_halve_(s);
}

BITSTACK_PRIVATE_ void bitstack_nest_store_columns_(const bitstack_nest_ *s) {
    const bitstack_nest_problem_ *p = &s->problem;
    for (uint32_t l = 0; l < p->levels; l++) {
        unsigned char *to = bitstack_coded_columns_(s->coded, l + 1);
        const float *table = BITSTACK_NEST_TABLE_(&s->shared, l);
        const uint32_t unit = bitstack_bits_from_float_(s->shared.unit[l]);
        for (int b = 0; b < 4; b++) to[b] = (unsigned char)(unit >> 8 * b);
        to += 16;
        for (size_t e = 0; e < (size_t)2 << l; e++) {
            const int32_t value = (int32_t)table[e];
            *to++ = (unsigned char)((uint32_t)value & 255), *to++ = (unsigned char)((uint32_t)value >> 8 & 255);
        }
        for (size_t j = 0; j < p->cols; j++) to[j] = (unsigned char)bitstack_small_code(s->shared.v[l * p->cols + j]);
    }
}

/* Behind the first plane: columns and their scales, then their values. */
BITSTACK_PRIVATE_ void bitstack_nest_store_kept_(const bitstack_nest_ *s) {
    const bitstack_nest_problem_ *p = &s->problem;
    const bitstack_shape *shape = &s->coded->shape;
    unsigned char *at = bitstack_coded_signs_(s->coded, 1) + bitstack_tiles_bytes_(shape), *to = at + 8 * (size_t)shape->kept;
    for (size_t j = 0; j < p->cols; j++)
        for (int part = 0; p->kept[j] > 0 && part <= p->twice[j]; part++) {
            const float size = part ? p->kept[j] / 254 : p->kept[j];
            const uint32_t scale = bitstack_bits_from_float_(size);
            for (int b = 0; b < 4; b++) at[b] = (unsigned char)(j >> 8 * b), at[4 + b] = (unsigned char)(scale >> 8 * b);
            at += 8;
            for (size_t i = 0; i < p->rows; i++) {
                const float w = p->w[i * p->stride + j] * p->unit, first = floorf(w / p->kept[j] + 0.5f);
                *to++ = (unsigned char)(int)(part ? floorf((w - p->kept[j] * first) / size + 0.5f) : first);
            }
        }
}

/* Where rounding is all that is left a block may do harm: then its level decodes to what the one below does. */
BITSTACK_PRIVATE_ void bitstack_nest_enforce_monotone_(const bitstack_nest_ *s, double (*error)[2]) {
    const bitstack_shape *shape = &s->coded->shape;
    for (uint32_t l = 1; l < s->problem.levels && l < BITSTACK_NEST_LEVELS_; l++) {
        if (error[l][0] <= error[l - 1][0]) continue;
        const unsigned char *from = bitstack_coded_columns_(s->coded, l);
        unsigned char *to = bitstack_coded_columns_(s->coded, l + 1);
        const size_t half = (size_t)2 << l;
        error[l][0] = error[l - 1][0], error[l][1] = error[l - 1][1];
        memcpy(to, from, 16 + half), memcpy(to + 16 + half, from + 16, half + s->problem.cols);
        memcpy(bitstack_coded_coefficients_(s->coded, l + 1), bitstack_coded_coefficients_(s->coded, l),
               (size_t)bitstack_coefficient_bytes(shape, l));
    }
}

typedef struct bitstack_ranked_ {
    double key;
    uint32_t index;
} bitstack_ranked_;
BITSTACK_PRIVATE_ int BITSTACK_CDECL_ bitstack_ranked_compare_(const void *a, const void *b) {
    const bitstack_ranked_ *x = (const bitstack_ranked_ *)a, *y = (const bitstack_ranked_ *)b;
    return x->key > y->key ? -1 : x->key < y->key ? 1 : x->index < y->index ? -1 : 1;
}

/* x / unit as an integer of a product. */
BITSTACK_PRIVATE_ int16_t bitstack_nest_factor_(double x, double unit) {
    const double most = BITSTACK_NEST_FACTORS_, y = unit > 0 ? floor(x / unit * most + 0.5) : 0;
    return (int16_t)BITSTACK_MAX_(-most, BITSTACK_MIN_(y, most));
}

/* H, and what feedback needs: with J the reversal of indices and J (H + damping) J = L L^T, an error in column k adds
 * -L'_kj / L'_kk of itself to column j, L' = J L^-1 J; it counts 1 / L'_kk^2. */
BITSTACK_PRIVATE_ bitstack_result bitstack_nest_moments_(bitstack_nest_ *s, const double *h, double unit, int threads) {
    const size_t n = s->problem.cols, room = s->problem.room, group = s->problem.group;
    const double damping = 0.01; /* GPTQ's, far more than rounding takes away: what is indefinite then is no sum of squares */
    double *a = (double *)bitstack_array_((uint64_t)n * n, sizeof(double)), ridge = s->problem.ridge;
    float *h_near, *factor_near;
    bitstack_result result = BITSTACK_OK;
    s->h = (int16_t *)bitstack_zeros_((uint64_t)n * room, sizeof(int16_t));
    s->factor = (int16_t *)bitstack_zeros_((uint64_t)n * room, sizeof(int16_t));
    s->beside = (float *)bitstack_zeros_((uint64_t)n * 2 * group, sizeof(float));
    h_near = s->beside, factor_near = s->beside + n * group;
    if (!a || !s->h || !s->factor || !s->beside) result = BITSTACK_ERROR_MEMORY;
    for (size_t i = 0; i < n && result == BITSTACK_OK; i++) s->root[i] = (float)sqrt(BITSTACK_MAX_(h[i * n + i], 0) * unit + ridge);
    for (size_t i = 0; i < n && result == BITSTACK_OK; i++) {
        const double *from = h + (size_t)s->order[i] * n;
        double *to = a + (n - 1 - i) * n + n - 1;
        for (size_t j = 0; j < n; j++) to[-(ptrdiff_t)j] = from[s->order[j]] * unit;
        *(to - i) += damping;
        for (size_t j = 0; j < n; j++) {
            const double x = h[i * n + j] * unit + (i == j ? ridge : 0);
            s->h[i * room + j] = bitstack_nest_factor_(x, (double)s->root[i] * (double)s->root[j]);
            if (i / group == j / group) h_near[i * group + j % group] = (float)x;
        }
    }
    if (result == BITSTACK_OK) result = bitstack_cholesky_(a, n, threads);
    if (result == BITSTACK_OK) result = bitstack_triangle_inverse_(a, n, threads);
    for (size_t k = 0; k < n && result == BITSTACK_OK; k++) {
        const double pivot = a[(n - 1 - k) * n + n - 1 - k];
        s->innovation[k] = (float)(1 / (pivot * pivot)), s->root_innovation[k] = (float)(1 / pivot);
        for (size_t j = k + 1; j < n; j++) s->reach[j] = BITSTACK_MAX_(s->reach[j], (float)fabs(a[(n - 1 - k) * n + n - 1 - j]));
        for (size_t j = k + 1; j < n && j / group == k / group; j++)
            factor_near[k * group + j % group] = (float)(a[(n - 1 - k) * n + n - 1 - j] / pivot);
    }
    for (size_t j = 0; j < n && result == BITSTACK_OK; j++)
        for (size_t k = 0; k < j; k++) s->factor[j * room + k] = bitstack_nest_factor_(a[(n - 1 - k) * n + n - 1 - j], (double)s->reach[j]);
    s->problem.h_near = h_near, s->problem.factor_near = factor_near;
    bitstack_drop_(a);
    return result;
}

/* Order of coding and diagonal. Returns H, or NULL where there is none or it is zero. */
BITSTACK_PRIVATE_ const double *bitstack_nest_diagonal_(bitstack_nest_ *s, bitstack_ranked_ *ranked,
                                                        const bitstack_moments *moments, double *mean) {
    const size_t n = s->problem.cols;
    const double *h = moments ? moments->h : NULL;
    double trace = 0;
    for (size_t j = 0; j < n; j++) {
        ranked[j].key = h ? h[j * n + j] : moments ? pow(moments->norms[j], 2) : 1;
        ranked[j].key = BITSTACK_MAX_(ranked[j].key, 0);
        ranked[j].index = (uint32_t)j;
        trace += ranked[j].key;
    }
    if (!(trace > 0)) {
        h = NULL, trace = (double)n;
        for (size_t j = 0; j < n; j++) ranked[j].key = 1;
    }
    *mean = trace / (double)n;
    for (size_t j = 0; j < n; j++) s->diagonal[j] = (float)(ranked[j].key / *mean + (h ? s->problem.ridge : 0));
    qsort(ranked, n, sizeof *ranked, bitstack_ranked_compare_);
    for (size_t j = 0; j < n; j++) {
        s->order[j] = ranked[j].index;
        s->innovation[j] = s->diagonal[ranked[j].index];
    }
    return h;
}

BITSTACK_PRIVATE_ bitstack_result bitstack_nest_allocate_(bitstack_nest_ *s, int threads) {
    const bitstack_nest_problem_ *p = &s->problem;
    const size_t n = p->cols, levels = p->levels;
    const uint64_t workers = bitstack_workers_(threads, s->panels);
    s->room_each = 2 * n + BITSTACK_MAX_(n, 3 * p->groups) * levels + 2 * p->groups * levels + p->groups + 5 * p->group * levels + (n + 1) / 2 * levels;
    s->room = (bitstack_lanes_ *)bitstack_array_(workers * s->room_each, sizeof *s->room);
    s->scales = (bitstack_lanes_ *)bitstack_array_((uint64_t)s->sample * p->groups * levels, sizeof *s->scales);
    s->sums = (bitstack_nest_sums_ *)bitstack_array_(s->sample, sizeof *s->sums);
    s->sums_v = (float *)bitstack_array_((uint64_t)s->sample * 2 * levels * n, sizeof(float));
    s->error = (double (*)[BITSTACK_NEST_LEVELS_][2])bitstack_array_(s->panels, sizeof *s->error);
    s->rms = (float *)bitstack_array_((uint64_t)p->rows * p->groups, sizeof(float));
    s->shared.v = (float *)bitstack_array_(2 * levels * n, sizeof(float));
    s->columns = (float *)bitstack_zeros_(5 * (uint64_t)n, sizeof(float));
    s->order = (uint32_t *)bitstack_array_(n, sizeof(uint32_t));
    s->kept = (float *)bitstack_array_(n, sizeof(float));
    s->twice = (unsigned char *)bitstack_array_(n, 1);
    if (!s->room || !s->scales || !s->sums || !s->sums_v || !s->error || !s->rms || !s->shared.v || !s->columns ||
        !s->order || !s->kept || !s->twice)
        return BITSTACK_ERROR_MEMORY;
    for (size_t k = 0; k < s->sample; k++) s->sums[k].v = s->sums_v + k * 2 * levels * n;
    s->shared.over_v = s->shared.v + levels * n;
    s->diagonal = s->columns, s->innovation = s->diagonal + n, s->root = s->innovation + n, s->root_innovation = s->root + n, s->reach = s->root_innovation + n;
    return BITSTACK_OK;
}

BITSTACK_PRIVATE_ void bitstack_nest_free_(bitstack_nest_ *s) {
    bitstack_drop_(s->room), bitstack_drop_(s->scales), bitstack_drop_(s->sums), bitstack_drop_(s->sums_v);
    bitstack_drop_(s->error), bitstack_drop_(s->rms), bitstack_drop_(s->shared.v), bitstack_drop_(s->h);
    bitstack_drop_(s->factor), bitstack_drop_(s->beside), bitstack_drop_(s->columns), bitstack_drop_(s->order), bitstack_drop_(s->kept), bitstack_drop_(s->twice);
}

/* How much each level counts: as given, only ratios matter. The seventh is on the way to the eighth. */
BITSTACK_PRIVATE_ void bitstack_nest_shares_(const float *given, uint32_t levels, double *share) {
    static const double usual[BITSTACK_NEST_LEVELS_] = {1, 0.85, 0.72, 0.61, 0.52, 0.44, 0.02, 0.06};
    double largest = 0;
    for (uint32_t l = 0; l < levels; l++) largest = BITSTACK_MAX_(largest, (double)given[l]);
    for (uint32_t l = 0; l < levels; l++) share[l] = largest > 0 ? (double)given[l] / largest : usual[l == 6 && levels == 7 ? 7 : l];
}

static bitstack_result bitstack_nested_encode_(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols,
                                               size_t stride, const bitstack_moments *moments,
                                               const bitstack_encode_options *options) {
    bitstack_nest_ s;
    bitstack_nest_problem_ *p = &s.problem;
    bitstack_shape *shape = &coded->shape;
    bitstack_ranked_ *ranked = (bitstack_ranked_ *)bitstack_array_(cols, sizeof *ranked);
    const double *h = NULL;
    double largest = 0, mean = 1, norm[2], error[BITSTACK_NEST_LEVELS_][2], share[BITSTACK_NEST_LEVELS_];
    int exponent;
    bitstack_result result;

    memset(&s, 0, sizeof s);
    memset(error, 0, sizeof error);
    result = bitstack_encode_shape(shape, rows, cols, options);
    if (result != BITSTACK_OK) {
        bitstack_drop_(ranked);
        return result;
    }
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++) largest = BITSTACK_MAX_(largest, fabs((double)w[i * stride + j]));
    exponent = BITSTACK_MAX_(-124, BITSTACK_MIN_(bitstack_exponent_(largest), 124));
    p->w = w, p->rows = rows, p->cols = cols, p->stride = stride;
    p->levels = shape->levels;
    p->group = shape->group_cols, p->groups = (p->cols + p->group - 1) / p->group;
    p->unit = (float)ldexp(1, -exponent);
    p->room = p->cols + p->cols % 2;
    s.coded = coded, s.work = bitstack_nest_pick_(p);
    s.panels = (p->rows + BITSTACK_NEST_ROWS_ - 1) / BITSTACK_NEST_ROWS_;
    s.sample = BITSTACK_MIN_(s.panels, (size_t)BITSTACK_NEST_SAMPLE_ * 16 / BITSTACK_NEST_ROWS_);
    shape->scale = (float)ldexp(1, exponent);

    bitstack_nest_shares_(options->level_weights, p->levels, share);
    result = bitstack_nest_allocate_(&s, options->threads);
    if (!ranked) result = BITSTACK_ERROR_MEMORY;
    if (result == BITSTACK_OK) {
        p->ridge = 0.002;
        h = bitstack_nest_diagonal_(&s, ranked, moments, &mean);
        if (!h) p->ridge = 0;
        p->diagonal = s.diagonal, p->innovation = s.innovation, p->root = s.root, p->root_innovation = s.root_innovation, p->reach = s.reach, p->order = s.order, p->kept = s.kept, p->twice = s.twice;
        shape->kept = bitstack_nest_columns_(&s);
        mean *= bitstack_nest_even_(&s, h != NULL);
        result = bitstack_coded_allocate_(coded);
    }
    if (result == BITSTACK_OK) {
        const float top = bitstack_nest_scales_(&s);
        if (h) result = bitstack_nest_moments_(&s, h, 1 / mean, options->threads);
        p->h = s.h, p->factor = s.factor;
        if (result == BITSTACK_OK) result = bitstack_nest_start_(&s);
        for (uint32_t l = 0; l < p->levels; l++) s.shared.weight[l] = (float)(share[l] * ldexp(1, 2 * (int)l));
        const int fits = 5;
        for (int fit = 0; fit <= fits && result == BITSTACK_OK; fit++) {
            bitstack_parallel_(options->threads, (uint32_t)s.sample, bitstack_nest_sample_task_, &s);
            bitstack_nest_fit_(&s, fit < fits);
        }
        bitstack_nest_settle_(&s, top);
    }
    s.passes = 2, s.sweeps = options->effort == BITSTACK_EFFORT_FAST ? 1 : options->effort == BITSTACK_EFFORT_BEST ? 8 : 4;
    for (size_t some; s.first < s.panels && result == BITSTACK_OK; s.first += some) {
        some = BITSTACK_MAX_((s.panels + 15) / 16, (size_t)bitstack_workers_(options->threads, s.panels));
        some = BITSTACK_MIN_(some, s.panels - s.first);
        bitstack_parallel_(options->threads, (uint32_t)some, bitstack_nest_panel_task_, &s);
        if (options->progress && options->progress(options->progress_user, (double)(s.first + some) / (double)s.panels))
            result = BITSTACK_ERROR_CANCELLED;
    }
    if (result == BITSTACK_OK)
        result = bitstack_measure_norms_(w, stride, rows, cols, NULL, h, cols > 1024 ? ldexp(1, -exponent) : 0, options->threads, norm);
    if (result == BITSTACK_OK) {
        for (size_t k = 0; k < s.panels; k++)
            for (uint32_t l = 0; l < p->levels; l++) error[l][0] += s.error[k][l][0], error[l][1] += s.error[k][l][1];
        bitstack_nest_store_columns_(&s);
        bitstack_nest_store_kept_(&s);
        /* Of fewer inputs than columns H says nothing of most errors, and its rounding too much: they are measured. */
        for (uint32_t l = 0; h && moments->count < cols && l < p->levels && result == BITSTACK_OK; l++) {
            bitstack_plane planes[BITSTACK_MAX_LEVELS];
            bitstack_view view;
            double left[2];
            result = bitstack_coded_view(coded, l + 1, planes, &view);
            if (result == BITSTACK_OK) result = bitstack_measure_norms_(w, stride, rows, cols, &view, h, 0, options->threads, left);
            if (result == BITSTACK_OK) error[l][0] = ldexp(left[1] / mean, -2 * exponent) + p->ridge * error[l][1];
        }
        bitstack_nest_enforce_monotone_(&s, error);
        coded->out_norm2 = h && moments->count ? norm[1] / (double)moments->count : norm[0];
        for (uint32_t l = 0; l < p->levels; l++) {
            coded->rel_err2[l + 1] = bitstack_ratio_(ldexp(error[l][1], 2 * exponent), norm[0]);
            const double weighted = (error[l][0] - p->ridge * error[l][1]) * mean;
            coded->out_err2[l + 1] = bitstack_output_ratio_(ldexp(weighted, 2 * exponent), h ? norm[1] : 0, coded->rel_err2[l + 1]);
        }
    }
    bitstack_nest_free_(&s);
    bitstack_drop_(ranked);
    return result;
}

/* =================================================================================== [ORDER]
 * Both orders sort keys: the paper's sorts each level on its own, the predicted one keeps the best next step of
 * every matrix in a heap. */

typedef struct bitstack_order_key_ {
    double value;
    uint32_t matrix, level; /* level: paper, 1 = NaN, behind the others; predicted, the chord's end */
} bitstack_order_key_;

/* Total levels, and the most of one matrix; UINT64_MAX where an argument is out of range. */
BITSTACK_PRIVATE_ uint64_t bitstack_order_count_(const uint32_t *levels, uint32_t matrices, uint32_t *most) {
    uint64_t total = 0;
    *most = 0;
    if (!levels && matrices) return UINT64_MAX;
    for (uint32_t i = 0; i < matrices; i++) {
        if (levels[i] > BITSTACK_MAX_LEVELS) return UINT64_MAX;
        total += levels[i];
        *most = BITSTACK_MAX_(*most, levels[i]);
    }
    return total;
}

static int BITSTACK_CDECL_ bitstack_order_compare_(const void *x, const void *y) {
    const bitstack_order_key_ *a = (const bitstack_order_key_ *)x, *b = (const bitstack_order_key_ *)y;
    if (a->level != b->level) return a->level < b->level ? -1 : 1;
    if (a->value < b->value) return -1;
    if (a->value > b->value) return 1;
    return a->matrix < b->matrix ? -1 : a->matrix > b->matrix;
}

/* A NaN takes the same matrix's loss one level on plus the level's largest, as the authors' code means it:
 * theirs puts NaNs in front where Python's max() meets one first. Where there is no next level it counts as
 * infinite. */
BITSTACK_API bitstack_result bitstack_order_paper_sort(const uint32_t *levels, uint32_t matrices, const double *loss,
                                                       bitstack_order_entry *out) {
    uint32_t most;
    uint64_t total = bitstack_order_count_(levels, matrices, &most), at = total;
    if (total == UINT64_MAX || (total && !out) || (!loss && most > 1)) return BITSTACK_ERROR_ARGUMENT;
    if (!total) return BITSTACK_OK;
    bitstack_order_key_ *key = (bitstack_order_key_ *)bitstack_array_(matrices, sizeof *key);
    double *next = (double *)bitstack_array_(matrices, sizeof *next); /* NaN-free losses one level on */
    if (!key || !next) {
        bitstack_drop_(key), bitstack_drop_(next);
        return BITSTACK_ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < matrices; i++) next[i] = (double)INFINITY;
    for (uint32_t level = most; level >= 2; level--) {
        const double *row = loss + (size_t)(level - 2) * matrices;
        double largest = 0;
        int any = 0;
        uint32_t count = 0;
        for (uint32_t i = 0; i < matrices; i++)
            if (level <= levels[i] && row[i] == row[i] && (!any++ || row[i] > largest)) largest = row[i];
        for (uint32_t i = 0; i < matrices; i++) {
            if (level > levels[i]) continue;
            int nan = row[i] != row[i];
            key[count].matrix = i, key[count].level = (uint32_t)nan;
            key[count++].value = next[i] = nan ? next[i] + largest : row[i];
        }
        qsort(key, count, sizeof *key, bitstack_order_compare_);
        at -= count;
        for (uint32_t i = 0; i < count; i++) {
            out[at + i].matrix = key[i].matrix, out[at + i].level = level;
            out[at + i].score = (float)BITSTACK_MIN_(key[i].value, FLT_MAX);
        }
    }
    at = 0;
    for (uint32_t i = 0; i < matrices; i++)
        if (levels[i]) out[at].matrix = i, out[at].level = 1, out[at++].score = 0;
    bitstack_drop_(key), bitstack_drop_(next);
    return BITSTACK_OK;
}

BITSTACK_API bitstack_result bitstack_order_paper(const uint32_t *levels, uint32_t matrices, bitstack_loss loss,
                                                  void *user, bitstack_order_entry *out) {
    uint32_t most;
    uint64_t total = bitstack_order_count_(levels, matrices, &most);
    if (total == UINT64_MAX || !loss || (total && !out)) return BITSTACK_ERROR_ARGUMENT;
    double *table = (double *)bitstack_zeros_((uint64_t)most * matrices, sizeof *table);
    uint32_t *now = (uint32_t *)bitstack_array_(matrices, sizeof *now);
    bitstack_result result = table && now ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    for (uint32_t level = 2; level <= most && result == BITSTACK_OK; level++) {
        for (uint32_t i = 0; i < matrices; i++) now[i] = BITSTACK_MIN_(levels[i], level - 1);
        for (uint32_t i = 0; i < matrices && result == BITSTACK_OK; i++) {
            if (level > levels[i]) continue;
            now[i] = level;
            if (loss(user, now, matrices, &table[(size_t)(level - 2) * matrices + i])) result = BITSTACK_ERROR_CANCELLED;
            now[i] = level - 1;
        }
    }
    if (result == BITSTACK_OK) result = bitstack_order_paper_sort(levels, matrices, table, out);
    bitstack_drop_(table), bitstack_drop_(now);
    return result;
}

/* The steepest chord of a matrix's loss over bytes from `level` on; ties go to the longer one. */
BITSTACK_PRIVATE_ bitstack_order_key_ bitstack_order_chord_(uint32_t matrix, uint32_t level, uint32_t levels,
                                                            const double *loss, const uint64_t *bytes) {
    bitstack_order_key_ best;
    best.matrix = matrix, best.level = level, best.value = -(double)INFINITY;
    for (uint32_t to = level + 1; to <= levels; to++) {
        double cost = bytes[to] > bytes[level] ? (double)(bytes[to] - bytes[level]) : 0.5; /* all but free */
        double slope = (loss[level] - loss[to]) / cost;
        if (slope >= best.value) best.value = slope, best.level = to;
    }
    return best;
}

/* Nonzero if a goes first. */
BITSTACK_PRIVATE_ int bitstack_order_before_(const bitstack_order_key_ *a, const bitstack_order_key_ *b) {
    return a->value > b->value || (!(a->value < b->value) && a->matrix < b->matrix);
}

BITSTACK_PRIVATE_ void bitstack_order_sink_(bitstack_order_key_ *heap, uint32_t count, uint32_t i) {
    for (;;) {
        uint32_t best = i;
        for (uint32_t child = 2 * i + 1; child <= 2 * i + 2 && child < count; child++)
            if (bitstack_order_before_(&heap[child], &heap[best])) best = child;
        if (best == i) return;
        bitstack_order_key_ t = heap[i];
        heap[i] = heap[best], heap[best] = t;
        i = best;
    }
}

BITSTACK_API bitstack_result bitstack_order_predicted(const uint32_t *levels, uint32_t matrices,
                                                      const double *const *loss_at, const uint64_t *const *bytes_at,
                                                      bitstack_order_entry *out) {
    uint32_t most, count = 0;
    uint64_t total = bitstack_order_count_(levels, matrices, &most), at = 0;
    if (total == UINT64_MAX || (total && (!loss_at || !bytes_at || !out))) return BITSTACK_ERROR_ARGUMENT;
    if (!total) return BITSTACK_OK;
    for (uint32_t i = 0; i < matrices; i++)
        for (uint32_t level = 0; level <= levels[i]; level++)
            if (!(fabs(loss_at[i][level]) <= DBL_MAX)) return BITSTACK_ERROR_NUMERIC;
    bitstack_order_key_ *heap = (bitstack_order_key_ *)bitstack_array_(matrices, sizeof *heap);
    if (!heap) return BITSTACK_ERROR_MEMORY;
    for (uint32_t i = 0; i < matrices; i++)
        if (levels[i]) heap[count++] = bitstack_order_chord_(i, 0, levels[i], loss_at[i], bytes_at[i]);
    for (uint32_t i = count; i-- > 0;) bitstack_order_sink_(heap, count, i);
    uint32_t *done = (uint32_t *)bitstack_zeros_(matrices, sizeof *done);
    while (done && count) {
        uint32_t i = heap[0].matrix;
        while (done[i] < heap[0].level) {
            out[at].matrix = i, out[at].level = ++done[i];
            out[at++].score = (float)BITSTACK_MAX_(-FLT_MAX, BITSTACK_MIN_(heap[0].value, FLT_MAX));
        }
        if (done[i] < levels[i]) heap[0] = bitstack_order_chord_(i, done[i], levels[i], loss_at[i], bytes_at[i]);
        else heap[0] = heap[--count];
        bitstack_order_sink_(heap, count, 0);
    }
    bitstack_drop_(heap), bitstack_drop_(done);
    return done ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
}

/* ================================================================================== [WRITER]
 * Payloads go to a spool file as they come, in the order of arrival, with their checksums and sizes kept
 * in memory; only finish knows the order of the blocks. Reordering is the same assembly with an existing
 * stack in the spool's place. */
#ifndef BITSTACK_NO_STDIO
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
/* As in windows.h, which would bring thousands of names. */
#ifdef __cplusplus
extern "C"
#endif
__declspec(dllimport) int __stdcall MoveFileExW(const wchar_t *from, const wchar_t *to, unsigned long flags);
#else
#include <sys/stat.h>
#include <unistd.h>
#if defined(_POSIX_C_SOURCE) || defined(__APPLE__) || (defined(_POSIX_VERSION) && !defined(__STRICT_ANSI__))
#define BITSTACK_POSIX_ /* plain C has no fsync; nor has -std=c99 with glibc, unless _POSIX_C_SOURCE is defined */
#endif
#endif

/* A new file, never one that is there: what a writer that was killed left is removed first. Two writers to one
 * path at the same time: on POSIX the later one's file takes the name (see bitstack_own_), on Windows it is refused. */
static FILE *bitstack_create_(const char *path) {
    FILE *file = NULL;
    int attempt;
    for (attempt = 0; attempt < 2 && !file; attempt++) {
#ifdef _WIN32
        wchar_t wide[BITSTACK_PATH_];
        int handle;
        if (!bitstack_wide_path_(wide, path) || (attempt && _wremove(wide))) break;
        handle = _wopen(wide, _O_CREAT | _O_EXCL | _O_RDWR | _O_BINARY, _S_IREAD | _S_IWRITE);
        file = handle >= 0 ? _fdopen(handle, "w+b") : NULL;
        if (handle >= 0 && !file) _close(handle);
#else
        if (attempt && remove(path)) break;
        file = BITSTACK_FOPEN_(path, "w+bx");
#endif
    }
    return file;
}
static int bitstack_remove_(const char *path) {
#ifdef _WIN32
    wchar_t wide[BITSTACK_PATH_];
    return !bitstack_wide_path_(wide, path) || _wremove(wide);
#else
    return remove(path);
#endif
}
/* Is it still this file that has the name? (Where stat cannot tell of a file beyond 2 GiB it is taken to be.) */
static int bitstack_own_(FILE *file, const char *path) {
#ifdef BITSTACK_POSIX_
    struct stat ours, now;
    if (fstat(fileno(file), &ours)) return errno == EOVERFLOW;
    return stat(path, &now) == 0 && ours.st_dev == now.st_dev && ours.st_ino == now.st_ino;
#else
    (void)file, (void)path;
    return 1;
#endif
}
/* Puts a complete file in the place of an older one, in one step. */
static int bitstack_replace_(const char *from, const char *to) {
#ifdef _WIN32
    wchar_t wide[BITSTACK_PATH_], wide_to[BITSTACK_PATH_];
    if (!bitstack_wide_path_(wide, from) || !bitstack_wide_path_(wide_to, to)) return 1;
    return !MoveFileExW(wide, wide_to, 1 | 8); /* replace; not before it is on the disk. rename would refuse. */
#else
    return rename(from, to);
#endif
}
/* Brings what was written to the disk, so that the rename cannot overtake it. */
static int bitstack_flush_(FILE *file) {
    if (fflush(file)) return 1;
#if defined(_WIN32)
    return _commit(_fileno(file));
#elif defined(BITSTACK_POSIX_)
    return fsync(fileno(file));
#else
    return 0;
#endif
}

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
    bitstack_error failed; /* the first failure: nothing is done after it */
    bitstack_bytes_ meta, names, tensors, matrices; /* the last two: arrays of the structs above */
    uint64_t *seen;        /* checksums of keys and names, by open addressing; 0 = free */
    size_t seen_room, seen_used; /* a power of two */
    uint32_t metas;
    bitstack_recoder recoder; /* of blocks as they are copied; or NULL */
    void *recoder_user;
};

/* Notes a failure, unless there was one before. A '%' in `text` stands for the name. */
static bitstack_result bitstack_refuse_(bitstack_writer *writer, bitstack_result code, const char *text, const char *name, size_t bytes) {
    if (writer->failed.code != BITSTACK_OK) return writer->failed.code;
    return bitstack_fail_(&writer->failed, code, 0, text, name, bytes);
}
static bitstack_result bitstack_no_memory_(bitstack_writer *writer) {
    return bitstack_refuse_(writer, BITSTACK_ERROR_MEMORY, "no memory for the writer", NULL, 0);
}
/* May it go on? */
static bitstack_result bitstack_writing_(const bitstack_writer *writer) {
    return writer ? writer->failed.code : BITSTACK_ERROR_ARGUMENT;
}

static bitstack_result bitstack_grow_(bitstack_writer *writer, bitstack_bytes_ *buffer, size_t bytes) {
    size_t room = buffer->room ? buffer->room : 1024;
    unsigned char *data;
    if (bytes <= buffer->room - buffer->used) return BITSTACK_OK;
    if (bytes > SIZE_MAX / 4 - buffer->used) return bitstack_no_memory_(writer);
    while (room - buffer->used < bytes) room *= 2;
    data = (unsigned char *)writer->allocator.allocate(writer->allocator.user, room);
    if (!data) return bitstack_no_memory_(writer);
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
/* UTF-8 without NUL (RFC 3629)? */
static int bitstack_utf8_(const char *text, size_t bytes) {
    const unsigned char *at = (const unsigned char *)text, *end = at + bytes;
    while (at < end) {
        const unsigned char first = *at++;
        int more = first < 0x80 ? 0 : first < 0xC2 ? -1 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : first < 0xF5 ? 3 : -1;
        if (first == 0 || more < 0 || end - at < more) return 0;
        if ((first == 0xE0 && *at < 0xA0) || (first == 0xED && *at > 0x9F) || (first == 0xF0 && *at < 0x90) || (first == 0xF4 && *at > 0x8F))
            return 0; /* too long a form, half of a surrogate pair, above U+10FFFF */
        for (; more; more--)
            if ((*at++ & 0xC0) != 0x80) return 0;
    }
    return 1;
}
/* Checks a key ('k') or the name of a tensor ('t') or matrix ('m') and notes it: no other of its kind may have it.
 * Names are told apart by 64 bits. */
static bitstack_result bitstack_name_new_(bitstack_writer *writer, char kind, const char *name, size_t length) {
    uint64_t hash = bitstack_checksum(name, length) + (uint64_t)(unsigned char)kind * 0x9E3779B97F4A7C15u;
    size_t at;
    if (length < 1) return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "an empty name or key", NULL, 0);
    if (!bitstack_utf8_(name, length)) return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "'%' is not UTF-8", name, length);
    if (2 * (writer->seen_used + 1) > writer->seen_room) {
        const size_t old_room = writer->seen_room, room = old_room ? 2 * old_room : 64;
        uint64_t *old = writer->seen, *table;
        table = room > SIZE_MAX / sizeof *table / 2 ? NULL : (uint64_t *)writer->allocator.allocate(writer->allocator.user, room * sizeof *table);
        if (!table) return bitstack_no_memory_(writer);
        memset(table, 0, room * sizeof *table);
        for (at = 0; at < old_room; at++) {
            size_t to = (size_t)old[at] & (room - 1);
            while (old[at] && table[to]) to = (to + 1) & (room - 1);
            if (old[at]) table[to] = old[at];
        }
        if (old) writer->allocator.release(writer->allocator.user, old, old_room * sizeof *old);
        writer->seen = table, writer->seen_room = room;
    }
    hash += hash == 0;
    for (at = (size_t)hash & (writer->seen_room - 1); writer->seen[at]; at = (at + 1) & (writer->seen_room - 1))
        if (writer->seen[at] == hash) return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "'%' is there already", name, length);
    writer->seen[at] = hash;
    writer->seen_used++;
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
    if (writer->seen) writer->allocator.release(writer->allocator.user, writer->seen, writer->seen_room * sizeof *writer->seen);
    for (b = 0; b < 4; b++)
        if (buffers[b]->data) writer->allocator.release(writer->allocator.user, buffers[b]->data, buffers[b]->room);
    if (writer->spool) fclose(writer->spool);
    if (writer->spool_path) bitstack_remove_(writer->spool_path);
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
    if (out) *out = NULL;
    if (!out || !path) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no output or no path", NULL, 0);
    if (!error) error = &local;
    writer = bitstack_writer_new_(path, allocator, error);
    if (!writer) return error->code;
    length = strlen(path);
    writer->spool_path = writer->part_path + length + 6;
    memcpy(writer->spool_path, path, length);
    memcpy(writer->spool_path + length, ".spool", 7);
    errno = 0;
    writer->spool = bitstack_create_(writer->spool_path);
    if (!writer->spool) {
        const int reason = errno;
        bitstack_fail_(error, BITSTACK_ERROR_IO, 0, "cannot create '%'", writer->spool_path, length + 6);
        bitstack_reason_(error, BITSTACK_ERROR_IO, reason);
        writer->spool_path = NULL; /* it may be another writer's */
        bitstack_writer_free_(writer);
        return BITSTACK_ERROR_IO;
    }
#ifndef _WIN32
    remove(writer->spool_path); /* it lives as long as it is open, and a process that is killed leaves none */
#endif
    *out = writer;
    return BITSTACK_OK;
}

BITSTACK_API void bitstack_writer_abort(bitstack_writer *writer) {
    if (writer) bitstack_writer_free_(writer);
}

/* Starts a metadata entry whose value, of `bytes` bytes, the caller appends. */
static bitstack_result bitstack_meta_entry_(bitstack_writer *writer, const char *key, bitstack_meta_type type, uint64_t count,
                                            uint64_t bytes) {
    unsigned char head[BITSTACK_LEAST_META_];
    size_t length = key ? strlen(key) : 0;
    bitstack_result result;
    if (length > 65535) return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "the key '%' is longer than 65535 bytes", key, length);
    result = bitstack_name_new_(writer, 'k', key, length);
    if (result != BITSTACK_OK) return result;
    bitstack_store32_(head, (uint32_t)length);
    bitstack_store32_(head + 4, (uint32_t)type);
    bitstack_store64_(head + 8, count);
    bitstack_store64_(head + 16, bytes);
    /* Room for all of it first: a failure later would leave half an entry. */
    if (bytes > SIZE_MAX / 4 || bitstack_grow_(writer, &writer->meta, sizeof head + length + (size_t)bytes + 16) != BITSTACK_OK)
        return bitstack_no_memory_(writer);
    writer->metas++;
    bitstack_append_(writer, &writer->meta, head, sizeof head);
    bitstack_append_(writer, &writer->meta, key, length);
    return bitstack_append_(writer, &writer->meta, NULL, (size_t)(bitstack_pad_(length, 8) - length));
}
static bitstack_result bitstack_meta_pad_(bitstack_writer *writer) {
    return bitstack_append_(writer, &writer->meta, NULL, (size_t)(bitstack_pad_(writer->meta.used, 8) - writer->meta.used));
}

BITSTACK_API bitstack_result bitstack_writer_meta(bitstack_writer *writer, const char *key, bitstack_meta_type type,
                                                  const void *elements, uint64_t count) {
    uint64_t size = bitstack_meta_size_((uint32_t)type), bytes, i;
    bitstack_result result = bitstack_writing_(writer);
    if (result != BITSTACK_OK) return result;
    if (type == BITSTACK_META_STRING || size == 0 || (!elements && count) || !bitstack_mul_(count, size, &bytes))
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "'%' has no number type, or no elements", key, key ? strlen(key) : 0);
    result = bitstack_meta_entry_(writer, key, type, count, bytes);
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
    return bitstack_writer_meta(writer, key, BITSTACK_META_U32, &value, 1);
}
BITSTACK_API bitstack_result bitstack_writer_meta_f32(bitstack_writer *writer, const char *key, float value) {
    return bitstack_writer_meta(writer, key, BITSTACK_META_F32, &value, 1);
}
BITSTACK_API bitstack_result bitstack_writer_meta_strings(bitstack_writer *writer, const char *key, const char *const *strings,
                                                          const size_t *bytes, uint64_t count) {
    uint64_t total = 0, i;
    bitstack_result result = bitstack_writing_(writer);
    if (result != BITSTACK_OK) return result;
    for (i = 0; i < count; i++) {
        size_t length = !strings || !strings[i] ? SIZE_MAX : bytes ? bytes[i] : strlen(strings[i]);
        if (length > UINT32_MAX - 1)
            return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "a string of '%' is NULL or too long", key, key ? strlen(key) : 0);
        total += 4 + (uint64_t)length;
    }
    result = bitstack_meta_entry_(writer, key, BITSTACK_META_STRING, count, total);
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
    errno = 0;
    if (bytes > SIZE_MAX || (bytes && fwrite(data, 1, (size_t)bytes, writer->spool) != bytes)) {
        const int reason = errno;
        bitstack_refuse_(writer, BITSTACK_ERROR_IO, "writing '%' failed", writer->spool_path, strlen(writer->spool_path));
        return bitstack_reason_(&writer->failed, BITSTACK_ERROR_IO, reason);
    }
    writer->spooled += bytes;
    return BITSTACK_OK;
}
static bitstack_result bitstack_name_add_(bitstack_writer *writer, const char *name, size_t length, size_t *at, size_t *bytes) {
    if (length > UINT32_MAX - 8 - writer->names.used)
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "all names together are longer than 4 GiB", NULL, 0);
    *at = writer->names.used;
    *bytes = length;
    return bitstack_append_(writer, &writer->names, name, length);
}

BITSTACK_API bitstack_result bitstack_writer_tensor(bitstack_writer *writer, const char *name, bitstack_type type, int dimensions,
                                                    const uint64_t *shape, const void *data) {
    bitstack_written_tensor_ tensor;
    bitstack_result result = bitstack_writing_(writer);
    const size_t length = name ? strlen(name) : 0;
    int d;
    if (result != BITSTACK_OK) return result;
    memset(&tensor, 0, sizeof tensor);
    tensor.type = type;
    tensor.dimensions = dimensions;
    if (!bitstack_tensor_type_ok_((uint32_t)type) || dimensions < 0 || dimensions > 4 || (dimensions && !shape))
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "the type or dimensions of tensor '%' are out of range", name, length);
    for (d = 0; d < 4; d++) tensor.shape[d] = d < dimensions ? shape[d] : 1;
    if (!bitstack_tensor_bytes_((uint32_t)type, (uint32_t)dimensions, tensor.shape, &tensor.bytes))
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "the size of tensor '%' overflows, or its rows are not whole blocks", name, length);
    if (tensor.bytes > SIZE_MAX || (tensor.bytes && !data))
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "tensor '%' has no data", name, length);
    result = bitstack_name_new_(writer, 't', name, length);
    if (result != BITSTACK_OK) return result;
    tensor.at = writer->spooled;
    tensor.checksum = bitstack_checksum(data, (size_t)tensor.bytes);
    result = bitstack_name_add_(writer, name, length, &tensor.name, &tensor.name_bytes);
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
        if (!matrix.blocks) return bitstack_no_memory_(writer);
        memset(matrix.blocks, 0, bytes);
    }
    bitstack_append_(writer, &writer->matrices, &matrix, sizeof matrix);
    *out = bitstack_written_(writer, bitstack_written_count_(writer) - 1);
    return BITSTACK_OK;
}

BITSTACK_API bitstack_result bitstack_writer_matrix(bitstack_writer *writer, const char *name, const bitstack_coded *coded, float sensitivity) {
    const size_t length = name ? strlen(name) : 0;
    const bitstack_shape *shape;
    bitstack_written_matrix_ *matrix;
    bitstack_result result = bitstack_writing_(writer);
    uint32_t level;
    int part;
    if (result != BITSTACK_OK) return result;
    if (!coded || !bitstack_shape_valid(&coded->shape))
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "matrix '%' has not been encoded", name, length);
    if (!(sensitivity >= 0 && sensitivity <= FLT_MAX))
        return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "the sensitivity of matrix '%' is not a number of at least 0", name, length);
    shape = &coded->shape;
    for (level = 1; level <= shape->levels; level++) {
        if (!coded->blocks[level - 1] || bitstack_block_bytes(shape, level) > SIZE_MAX)
            return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "matrix '%' lacks a block", name, length);
        if (!(coded->rel_err2[level] >= 0 && coded->out_err2[level] >= 0))
            return bitstack_refuse_(writer, BITSTACK_ERROR_ARGUMENT, "an error of matrix '%' is not a number of at least 0", name, length);
    }
    result = bitstack_name_new_(writer, 'm', name, length);
    if (result == BITSTACK_OK) result = bitstack_matrix_add_(writer, name, length, shape, sensitivity, &matrix);
    if (result != BITSTACK_OK) return result;
    matrix->out_norm2 = coded->out_norm2;
    for (level = 1; level <= shape->levels && result == BITSTACK_OK; level++) {
        bitstack_written_block_ *block = matrix->blocks + level - 1;
        const unsigned char *at = coded->blocks[level - 1];
        block->at = writer->spooled;
        block->bytes = bitstack_block_bytes(shape, level);
        block->rel_err2 = (float)BITSTACK_MIN_(coded->rel_err2[level], (double)FLT_MAX);
        block->out_err2 = (float)BITSTACK_MIN_(coded->out_err2[level], (double)FLT_MAX);
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
static bitstack_result bitstack_order_valid_(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries) {
    uint32_t matrices = bitstack_written_count_(writer), i;
    uint32_t *seen = (uint32_t *)writer->allocator.allocate(writer->allocator.user, (matrices + (size_t)1) * sizeof *seen);
    size_t e;
    int good = 1;
    if (!seen) return BITSTACK_ERROR_MEMORY;
    for (i = 0; i < matrices; i++) seen[i] = 0;
    for (e = 0; e < entries && good; e++) {
        good = order[e].matrix < matrices && order[e].level == seen[order[e].matrix] + 1;
        if (good) seen[order[e].matrix]++;
    }
    for (i = 0; i < matrices && good; i++) good = seen[i] == bitstack_written_(writer, i)->shape.levels;
    writer->allocator.release(writer->allocator.user, seen, (matrices + (size_t)1) * sizeof *seen);
    return good ? BITSTACK_OK : BITSTACK_ERROR_ARGUMENT;
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
        bitstack_store32_(r + 16, m->shape.encoding == BITSTACK_TABLES ? BITSTACK_TABLES : BITSTACK_PLANES), bitstack_store32_(r + 20, m->shape.levels), bitstack_store32_(r + 24, m->shape.rank);
        r[28] = (unsigned char)m->shape.columns, r[29] = (unsigned char)m->shape.coefficients;
        r[30] = (unsigned char)m->shape.factor_type;
        bitstack_store32_(r + 32, m->shape.group_cols), bitstack_store32_(r + 44, m->shape.kept);
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

/* Of a block that is recoded, column and coefficient parts as they are to be; the caller releases `parts`. */
static bitstack_result bitstack_recoded_(const bitstack_writer *writer, FILE *source, uint32_t matrix, uint32_t level, unsigned char **parts, size_t *bytes) {
    const bitstack_written_matrix_ *m = bitstack_written_(writer, matrix);
    const uint64_t columns = bitstack_part_bytes_(&m->shape, level, BITSTACK_COLUMN_PART_);
    *bytes = (size_t)(columns + bitstack_part_bytes_(&m->shape, level, BITSTACK_COEFFICIENT_PART_));
    *parts = (unsigned char *)writer->allocator.allocate(writer->allocator.user, *bytes);
    if (!*parts) return BITSTACK_ERROR_MEMORY;
    if (bitstack_seek_(source, m->blocks[level - 1].at) || fread(*parts, 1, *bytes, source) != *bytes) {
        writer->allocator.release(writer->allocator.user, *parts, *bytes);
        return BITSTACK_ERROR_IO;
    }
    writer->recoder(writer->recoder_user, matrix, level, *parts + BITSTACK_SCALES_AT_(level), *parts + columns);
    return BITSTACK_OK;
}

static bitstack_result bitstack_copy_block_(const bitstack_writer *writer, FILE *source, uint32_t matrix, uint32_t level, FILE *to) {
    const bitstack_written_matrix_ *m = bitstack_written_(writer, matrix);
    const bitstack_written_block_ *b = m->blocks + level - 1;
    unsigned char *parts = NULL;
    size_t bytes = 0;
    bitstack_result result = BITSTACK_OK;
    if (writer->recoder && m->shape.encoding == BITSTACK_TABLES) result = bitstack_recoded_(writer, source, matrix, level, &parts, &bytes);
    if (result == BITSTACK_OK && bytes && fwrite(parts, 1, bytes, to) != bytes) result = BITSTACK_ERROR_IO;
    if (parts) writer->allocator.release(writer->allocator.user, parts, bytes);
    return result == BITSTACK_OK ? bitstack_copy_(source, b->at + bytes, b->bytes - bytes, to) : result;
}

/* Checksums of what recoding makes of a matrix's blocks. */
static bitstack_result bitstack_recode_matrix_(bitstack_writer *writer, FILE *source, uint32_t matrix) {
    bitstack_written_matrix_ *m = bitstack_written_(writer, matrix);
    bitstack_result result = BITSTACK_OK;
    for (uint32_t level = 1; level <= m->shape.levels && m->shape.encoding == BITSTACK_TABLES && result == BITSTACK_OK; level++) {
        const size_t columns = (size_t)bitstack_part_bytes_(&m->shape, level, BITSTACK_COLUMN_PART_);
        unsigned char *parts;
        size_t bytes;
        result = bitstack_recoded_(writer, source, matrix, level, &parts, &bytes);
        if (result != BITSTACK_OK) break;
        m->blocks[level - 1].checksums[BITSTACK_COLUMN_PART_] = bitstack_checksum(parts, columns);
        m->blocks[level - 1].checksums[BITSTACK_COEFFICIENT_PART_] = bitstack_checksum(parts + columns, bytes - columns);
        writer->allocator.release(writer->allocator.user, parts, bytes);
    }
    return result;
}

/* Writes path.part from `source`, complete and on the disk. */
static bitstack_result bitstack_assemble_(bitstack_writer *writer, FILE *source, const bitstack_order_entry *order, size_t entries,
                                          bitstack_error *error) {
    bitstack_bytes_ tables;
    bitstack_result result;
    FILE *to;
    size_t i;
    int reason = 0, own = 1;
    memset(&tables, 0, sizeof tables);
    result = entries > INT32_MAX ? BITSTACK_ERROR_ARGUMENT : bitstack_order_valid_(writer, order, entries);
    if (result == BITSTACK_ERROR_ARGUMENT)
        return bitstack_fail_(error, result, 0, "the order does not list every block once, levels ascending", NULL, 0);
    if (result == BITSTACK_OK) result = bitstack_tables_(writer, order, entries, &tables);
    if (result != BITSTACK_OK) return bitstack_fail_(error, result, 0, "no memory for the tables", NULL, 0);
    errno = 0;
    to = bitstack_create_(writer->part_path);
    if (to) {
        if (fwrite(tables.data, 1, tables.used, to) != tables.used) result = BITSTACK_ERROR_IO;
        for (i = 0; i < writer->tensors.used / sizeof(bitstack_written_tensor_) && result == BITSTACK_OK; i++) {
            const bitstack_written_tensor_ *t = (const bitstack_written_tensor_ *)(void *)writer->tensors.data + i;
            result = bitstack_copy_(source, t->at, t->bytes, to);
        }
        for (i = 0; i < entries && result == BITSTACK_OK; i++) {
            result = bitstack_copy_block_(writer, source, order[i].matrix, order[i].level, to);
        }
        if (result == BITSTACK_OK && bitstack_flush_(to)) result = BITSTACK_ERROR_IO;
        if (result != BITSTACK_OK) reason = errno;
        own = bitstack_own_(to, writer->part_path);
        if (fclose(to) && result == BITSTACK_OK) result = BITSTACK_ERROR_IO, reason = errno;
        if (result == BITSTACK_OK && !own) result = BITSTACK_ERROR_IO;
        if (result != BITSTACK_OK && own) bitstack_remove_(writer->part_path);
    } else result = BITSTACK_ERROR_IO, reason = errno;
    writer->allocator.release(writer->allocator.user, tables.data, tables.room);
    if (result == BITSTACK_OK) return result;
    bitstack_fail_(error, result, 0, own ? "writing '%' failed" : "another writer has taken '%'", writer->part_path, strlen(writer->part_path));
    return bitstack_reason_(error, result, reason);
}
/* Renames it. Nobody may have the older file open (Windows). */
static bitstack_result bitstack_put_(bitstack_writer *writer, bitstack_error *error) {
    int reason;
    errno = 0;
    if (!bitstack_replace_(writer->part_path, writer->path)) return BITSTACK_OK;
    reason = errno;
    bitstack_remove_(writer->part_path);
    bitstack_fail_(error, BITSTACK_ERROR_IO, 0, "cannot replace '%'", writer->path, strlen(writer->path));
    return bitstack_reason_(error, BITSTACK_ERROR_IO, reason);
}

BITSTACK_API bitstack_result bitstack_writer_finish(bitstack_writer *writer, const bitstack_order_entry *order, size_t entries,
                                                    bitstack_error *error) {
    bitstack_order_entry *own = NULL;
    bitstack_result result;
    size_t blocks = 0;
    uint32_t i;
    if (!writer) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no writer: it was not opened", NULL, 0);
    errno = 0;
    if (writer->failed.code == BITSTACK_OK && fflush(writer->spool)) {
        const int reason = errno;
        bitstack_refuse_(writer, BITSTACK_ERROR_IO, "writing '%' failed", writer->spool_path, strlen(writer->spool_path));
        bitstack_reason_(&writer->failed, BITSTACK_ERROR_IO, reason);
    }
    result = writer->failed.code;
    if (result != BITSTACK_OK && error) *error = writer->failed;
    for (i = 0; i < bitstack_written_count_(writer); i++) blocks += bitstack_written_(writer, i)->shape.levels;
    if (result == BITSTACK_OK && !order) {
        own = (bitstack_order_entry *)writer->allocator.allocate(writer->allocator.user, (blocks + 1) * sizeof *own);
        result = own ? bitstack_writer_order_(writer, own) : BITSTACK_ERROR_MEMORY;
        if (result != BITSTACK_OK) bitstack_fail_(error, result, 0, "cannot order the blocks", NULL, 0);
        order = own;
        entries = blocks;
    }
    if (result == BITSTACK_OK) result = bitstack_assemble_(writer, writer->spool, order, entries, error);
    if (result == BITSTACK_OK) result = bitstack_put_(writer, error);
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
        if ((result = bitstack_get_tensor(stack, (int)i, &t)) != BITSTACK_OK) break;
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
        if ((result = bitstack_get_matrix(stack, (int)i, &m)) != BITSTACK_OK) break;
        result = bitstack_matrix_add_(writer, m.name, m.name_bytes, &m.shape, m.sensitivity, &matrix);
        for (level = 1; level <= m.shape.levels && result == BITSTACK_OK; level++) {
            const bitstack_slot_ *slot = stack->places + stack->states[i].first + level - 1;
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

/* The stack at `from` again, with its blocks in another order (NULL: the same) and other codes (NULL: the same). */
static bitstack_result bitstack_rewrite_(const char *from, const char *to, const bitstack_order_entry *order, size_t entries,
                                         bitstack_recoder recoder, void *user, bitstack_error *error) {
    bitstack_options options;
    bitstack_error local;
    bitstack_writer *writer = NULL;
    bitstack_order_entry *own = NULL;
    bitstack_result result;
    bitstack *stack;
    uint32_t i;
    if (!error) error = &local;
    memset(&options, 0, sizeof options);
    options.load_nothing = 1;
    result = bitstack_open_file(&stack, from, &options, error);
    if (result != BITSTACK_OK) return result;
    if (stack->available != stack->blocks) result = bitstack_fail_(error, BITSTACK_ERROR_TRUNCATED, stack->bytes, "'%' is not complete", from, strlen(from));
    else if ((writer = bitstack_writer_new_(to, NULL, error)) == NULL) result = error->code;
    else {
        if (!order) {
            own = (bitstack_order_entry *)bitstack_array_((uint64_t)stack->blocks + 1, sizeof *own);
            if (!own) result = BITSTACK_ERROR_MEMORY;
            for (i = 0; own && i < stack->blocks; i++) {
                bitstack_block b;
                bitstack_get_block(stack, (int)i, &b);
                own[i].matrix = b.matrix, own[i].level = b.level, own[i].score = b.score;
            }
            order = own, entries = stack->blocks;
        }
        writer->recoder = recoder, writer->recoder_user = user;
        if (result == BITSTACK_OK) result = bitstack_adopt_(writer, stack);
        for (i = 0; i < stack->matrices && recoder && result == BITSTACK_OK; i++) result = bitstack_recode_matrix_(writer, stack->file, i);
        if (result == BITSTACK_ERROR_IO) bitstack_fail_(error, result, 0, "reading '%' failed", from, strlen(from));
        else if (result != BITSTACK_OK) bitstack_fail_(error, result, 0, "no memory to write the stack again", NULL, 0);
        else result = bitstack_assemble_(writer, stack->file, order, entries, error);
    }
    if (own) bitstack_drop_(own);
    bitstack_close(stack);
    if (writer) {
        if (result == BITSTACK_OK) result = bitstack_put_(writer, error);
        bitstack_writer_free_(writer);
    }
    return result;
}

BITSTACK_API bitstack_result bitstack_reorder(const char *from, const char *to, const bitstack_order_entry *order, size_t entries,
                                              bitstack_error *error) {
    if (!from || !to || !order) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no path or no order", NULL, 0);
    return bitstack_rewrite_(from, to, order, entries, NULL, NULL, error);
}

BITSTACK_API bitstack_result bitstack_recode(const char *from, const char *to, bitstack_recoder recoder, void *user, bitstack_error *error) {
    if (!from || !to || !recoder) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no path or no codes", NULL, 0);
    return bitstack_rewrite_(from, to, NULL, 0, recoder, user, error);
}
#endif /* BITSTACK_NO_STDIO */

#endif /* BITSTACK_COMPRESS_IMPLEMENTATION */

/* ================================================================================= [LICENCE]
 * MIT License
 *
 * Copyright (c) 2026 The BitStack for C authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy
 * of this software and associated documentation files (the "Software"), to deal
 * in the Software without restriction, including without limitation the rights
 * to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 * copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all
 * copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 * LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
 * SOFTWARE.
 */
