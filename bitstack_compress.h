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
/* ================================================================================= [THREADS] */
/* ================================================================================== [LINALG] */
/* ===================================================================================== [SVD] */
/* ================================================================================= [MOMENTS] */
/* =================================================================================== [CODED] */
/* ==================================================================================== [IABS] */
/* ================================================================================== [NESTED] */
/* =================================================================================== [ORDER] */
/* ================================================================================== [WRITER] */

#endif /* BITSTACK_COMPRESS_IMPLEMENTATION */
