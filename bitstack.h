/* bitstack.h - run a neural network's weights from a stack of 1-bit blocks, as many as memory allows.
 * Version 0.1.0. C99 to C23, C++11 and later. Needs libc and libm only. MIT licence at the end.
 *
 * In ONE C or C++ file:
 *
 *     #define BITSTACK_IMPLEMENTATION
 *     #include "bitstack.h"
 *
 * and everywhere else just include it. No compiler flags are needed: every kernel the compiler can
 * build is built, and the fastest one that this CPU has is chosen at run time.
 *
 *     bitstack *stack;
 *     bitstack_error error;
 *     if (bitstack_open_file(&stack, "model.bitstack", NULL, &error) != BITSTACK_OK) {
 *         fprintf(stderr, "%s\n", error.message);
 *         return 1;
 *     }
 *     bitstack_set_budget(stack, 3000000, NULL);             // bytes; loads and drops blocks
 *     int m = bitstack_find_matrix(stack, "blk.0.attn_q.weight");
 *     bitstack_gemv(stack, m, x, y);                         // y = W x at the level that fits
 *     bitstack_set_budget(stack, 5000000, NULL);             // more memory: the same file, better
 *     bitstack_gemv(stack, m, x, y);
 *     bitstack_close(stack);
 *
 * What it does not do: it is not a tensor library and has no attention, tokenizer or model code
 * (examples/llm shows a whole language model on top of it); it does not compress (that is
 * bitstack_compress.h); it does not train; it never prints, exits or aborts.
 *
 * Contents (search for the mark):
 *   [METHOD]     what is stored        [FORMAT]   the file, byte by byte
 *   [CONFIG]     macros                [TYPES]    types and results
 *   [API]        functions             [STOP]     stop here if you only want the API
 *   [PLATFORM] [BYTES] [CHECKSUM] [ERRORS] [READER] [BUDGET] [RECONSTRUCT]
 *   [TABLES] [SCALAR] [AVX2] [DISPATCH] [GEMV] [LICENCE]
 */
#ifndef BITSTACK_H
#define BITSTACK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================================== [METHOD]
 * A matrix W has `rows` outputs and `cols` inputs; y = W x; everything is row-major. It is held as
 * a pile of blocks, 1 to `levels`. A block adds one *sign plane* S (one bit a weight) and the small
 * factors that go with it. At level L the weight is
 *
 *     W_L = scale * sum over p = 1..L of  S_p .* (U_p V_p^T)      S_p in {-1,+1}^(rows x cols)
 *
 * with U_p of shape rows x rank and V_p of shape cols x rank; `.*` is elementwise. Level 0 is the
 * zero matrix. Two families of coding share this form, the file and the kernels:
 *   iabs    each block carries the U and V of its own plane (BitStack, arXiv 2410.23918);
 *   nested  the planes share one V, carried by the first block, or by every block when it is fitted
 *           again at each level; each block carries U for *all* planes up to its level, replacing
 *           those before it. Superseded factors are not kept in memory and not counted.
 * U may have several values a row, one per group of `group_cols` consecutive columns.
 *
 * All blocks of all matrices stand in one *universal order*. A budget in bytes decides how many of
 * them, from the front, are loaded. A matrix's blocks come in the order of their levels.
 *
 * ================================================================================== [FORMAT]
 * Little-endian throughout; floating point is IEEE 754. All offsets are from the start of the file.
 * "pad to N" means zero bytes up to the next multiple of N of the file offset.
 *
 *   header | metadata | tensor records | matrix records | block records | names | pad to 64
 *   | resident tensors, each padded to 64 | block payloads in universal order, each padded to 64
 *
 * Header, 128 bytes
 *     0   8  magic "BITSTACK"
 *     8   4  u32 format version, 1. Readers refuse others.
 *    12   4  u32 header bytes, 128
 *    16   8  u64 tables bytes: metadata up to the end of names, from offset 128, a multiple of 8
 *    24   8  u64 base bytes: offset of the first block payload, a multiple of 64. A file cut anywhere
 *            at or after this offset is a valid smaller model; before it, it is not valid.
 *    32   8  u64 file bytes when complete
 *    40   4  u32 metadata entries
 *    44   4  u32 resident tensors
 *    48   4  u32 matrices
 *    52   4  u32 blocks
 *    56   8  u64 names bytes (a multiple of 8)
 *    64   8  u64 checksum of the tables
 *    72  48  zero
 *   120   8  u64 checksum of bytes 0..119
 * Checksums are XXH64 with seed 0.
 *
 * Metadata entry, a multiple of 8 bytes
 *     0   4  u32 key bytes, 1 to 65535
 *     4   2  u16 type: 1 u8, 2 u32, 3 i32, 4 f32, 5 u64, 6 i64, 7 f64, 8 string
 *     6   2  u16 flags: bit 0 = mandatory. A reader refuses a file with a mandatory entry whose key
 *            it does not know, and names the key; it skips other entries it does not know, also
 *            those of unknown type. Other bits are zero.
 *     8   8  u64 count of elements (a scalar is one element)
 *    16   8  u64 value bytes: count * element size; for strings, the sum of 4 + length
 *    24      key, pad to 8; value, pad to 8. A string is a u32 length and its bytes (UTF-8, no NUL).
 *
 * Tensor record, 72 bytes
 *     0   4  u32 name offset within names     4  4  u32 name bytes
 *     8   4  u32 type: 1 f32, 2 f16, 3 bf16, 4 bytes       12  4  u32 dimensions, 0 to 4
 *    16  32  u64 shape[4], slowest first, unused ones 1
 *    48   8  u64 offset, a multiple of 64    56  8  u64 bytes = product of shape * element size
 *    64   8  u64 checksum of the bytes
 *
 * Matrix record, 64 bytes
 *     0   4  u32 name offset     4  4  u32 name bytes
 *     8   4  u32 rows           12  4  u32 cols           both 1 to 2^30
 *    16   4  u32 encoding, 1 = sign planes with low-rank factors (the only one of version 1)
 *    20   4  u32 levels, 0 to 32: how many blocks the matrix has
 *    24   4  u32 rank, 1 to 1024
 *    28   1  u8 column factors V: 1 own (each block carries V of its plane), 2 first (block 1 carries
 *            V for all planes), 3 every (each block carries a V for all planes; it replaces the last)
 *    29   1  u8 coefficients U: 1 own (each block carries U of its plane), 2 all (block L carries U of
 *            planes 1..L; they replace the last)
 *    30   1  u8 factor type: 1 f32, 2 f16
 *    31   1  zero
 *    32   4  u32 group cols: 0 = one coefficient group a row, else a multiple of 64
 *    36   4  f32 scale, a power of two
 *    40   4  f32 sensitivity: predicted model loss per unit of relative output error, or 0
 *    44  20  zero
 *
 * Block record, 64 bytes, in universal order
 *     0   4  u32 matrix          4  4  u32 level, 1-based
 *     8   8  u64 offset, a multiple of 64: payloads follow each other with no other gap
 *    16   8  u64 bytes = column part + coefficient part + plane part
 *    24   8  u64 checksum of the column part (0 bytes long where this block carries no V)
 *    32   8  u64 checksum of the coefficient part
 *    40   8  u64 checksum of the plane part
 *    48   4  f32 relative squared error of the matrix after this block (information; 0 = unknown)
 *    52   4  f32 score that placed the block in the order (information)
 *    56   8  zero
 *
 * Block payload: three parts, each padded to 64 bytes
 *   column part       V, rank vectors of cols values: V[r * cols + j]
 *   coefficient part  U, for each plane it covers, each group, each rank, rows values:
 *                     U[((p * groups + g) * rank + r) * rows + i]
 *   plane part        tiles of 64 rows, ceil(rows / 64) of them. A tile holds ceil(cols / 4) groups of
 *                     32 bytes; byte b of a group holds rows b (low nibble) and b + 32 (high nibble)
 *                     of the tile; bit c of a nibble is column 4 * group + c; 1 = +1, 0 = -1. Bits
 *                     beyond rows or cols are zero.
 * A nibble is an index into a 16-entry table of signed sums of inputs, so one byte shuffle multiplies
 * 32 rows by 4 columns, on any ISA, from the bytes as they are in the file.
 */

/* ================================================================================== [CONFIG]
 * Define before including; the ones marked (impl) matter only where BITSTACK_IMPLEMENTATION is.
 *
 * BITSTACK_STATIC        all functions static: two libraries can each carry a private copy
 * BITSTACK_MALLOC, BITSTACK_FREE   (impl) the default allocator: (bytes) and (pointer)
 * BITSTACK_ASSERT        (impl) checks of programmer errors only, never of data; default: nothing
 * BITSTACK_NO_STDIO      no FILE: bitstack_open_file is absent
 * BITSTACK_NO_MALLOC     (impl) no default allocator: options.allocator is required
 * BITSTACK_NO_SIMD, BITSTACK_NO_AVX2   (impl) leave kernels out
 * BITSTACK_CHUNK_COLS    (impl) columns whose lookup tables are held at once on the C stack, a
 *                        multiple of 256; costs about 4 bytes each. Default 4096 (16 KiB tables)
 */
#ifndef BITSTACK_API
#ifdef BITSTACK_STATIC
#define BITSTACK_API static
#else
#define BITSTACK_API extern
#endif
#endif

#define BITSTACK_VERSION "0.1.0"
#define BITSTACK_FORMAT_VERSION 1
#define BITSTACK_MAX_LEVELS 32

/* =================================================================================== [TYPES] */

/* Results. Every function that can fail returns one; outputs are written only on BITSTACK_OK unless
 * its comment says otherwise. bitstack_result_string gives the second column. */
#define BITSTACK_RESULTS(X)                                                                   \
    X(BITSTACK_OK, "success")                                                                 \
    X(BITSTACK_ERROR_ARGUMENT, "an argument is out of its range")                             \
    X(BITSTACK_ERROR_MEMORY, "out of memory")                                                 \
    X(BITSTACK_ERROR_IO, "reading or writing failed")                                         \
    X(BITSTACK_ERROR_FORMAT, "not a valid stack")                                             \
    X(BITSTACK_ERROR_TRUNCATED, "the stack ends before its resident part does")               \
    X(BITSTACK_ERROR_UNSUPPORTED, "the stack needs a newer reader")                           \
    X(BITSTACK_ERROR_CHECKSUM, "a checksum does not match")                                   \
    X(BITSTACK_ERROR_BUDGET, "the budget is smaller than the resident part")                  \
    X(BITSTACK_ERROR_NUMERIC, "a value is not finite or an iteration did not converge")       \
    X(BITSTACK_ERROR_CANCELLED, "cancelled by the caller")

typedef enum bitstack_result {
#define BITSTACK_RESULT_ENUM_(name, text) name,
    BITSTACK_RESULTS(BITSTACK_RESULT_ENUM_)
#undef BITSTACK_RESULT_ENUM_
    BITSTACK_RESULT_COUNT_
} bitstack_result;

/* What went wrong and where. Filled on failure by functions that take it; never read. */
typedef struct bitstack_error {
    bitstack_result code;
    uint64_t byte_offset; /* in the file, where that makes sense, else 0 */
    char message[160];    /* one line, NUL-terminated */
} bitstack_error;

/* A stack: an opened file with some of its blocks loaded. */
typedef struct bitstack bitstack;

/* allocate(user, bytes) returns memory aligned for any type, or NULL; release(user, pointer, bytes)
 * frees it and gets the size that was asked for. Both NULL means the default allocator. */
typedef struct bitstack_allocator {
    void *(*allocate)(void *user, size_t bytes);
    void (*release)(void *user, void *pointer, size_t bytes);
    void *user;
} bitstack_allocator;

/* Reads exactly `bytes` bytes at `offset` into `to`; returns 0 on success, anything else on failure. */
typedef int (*bitstack_read_at)(void *user, uint64_t offset, void *to, size_t bytes);

/* How finely multiplication quantises the sums of inputs it looks up. The bounds stand at
 * bitstack_gemv. FAST is the default; REFERENCE is for checking, about a hundred times slower. */
typedef enum bitstack_precision {
    BITSTACK_FAST = 0,  /* 8-bit tables, one scale per 256 columns */
    BITSTACK_EXACT = 1, /* 16-bit tables */
    BITSTACK_REFERENCE = 2 /* no tables: double-precision multiply-adds */
} bitstack_precision;

/* How to open. {0} (or NULL for the pointer) means the defaults. */
typedef struct bitstack_options {
    bitstack_allocator allocator;
    uint64_t budget;              /* first budget in bytes; 0 = no limit */
    bitstack_precision precision; /* of bitstack_gemv and bitstack_gemm */
    int skip_checksums;           /* nonzero: payload checksums are not verified on load */
    int load_nothing;             /* nonzero: open at level 0 everywhere; budget is not applied */
} bitstack_options;

/* Element types. */
typedef enum bitstack_type { BITSTACK_F32 = 1, BITSTACK_F16 = 2, BITSTACK_BF16 = 3, BITSTACK_BYTES = 4 } bitstack_type;

typedef enum bitstack_meta_type {
    BITSTACK_META_U8 = 1, BITSTACK_META_U32, BITSTACK_META_I32, BITSTACK_META_F32,
    BITSTACK_META_U64, BITSTACK_META_I64, BITSTACK_META_F64, BITSTACK_META_STRING
} bitstack_meta_type;

/* One metadata entry. Pointers live as long as the stack. `value` is little-endian, unaligned to
 * more than 8 bytes. Strings: see bitstack_meta_next_string. */
typedef struct bitstack_meta {
    const char *key; /* not NUL-terminated */
    size_t key_bytes;
    int type; /* bitstack_meta_type, or an unknown number from a newer writer */
    int mandatory;
    uint64_t count;
    const void *value;
    uint64_t value_bytes;
} bitstack_meta;

/* One resident tensor. `data` lives as long as the stack, is aligned to 64 bytes unless the stack was
 * opened from less aligned memory, and is little-endian. */
typedef struct bitstack_tensor {
    const char *name; /* not NUL-terminated */
    size_t name_bytes;
    bitstack_type type;
    int dimensions;
    uint64_t shape[4]; /* slowest first */
    const void *data;
    uint64_t bytes;
} bitstack_tensor;

typedef enum bitstack_columns { BITSTACK_COLUMNS_OWN = 1, BITSTACK_COLUMNS_FIRST = 2, BITSTACK_COLUMNS_EVERY = 3 } bitstack_columns;
typedef enum bitstack_coefficients { BITSTACK_COEFFICIENTS_OWN = 1, BITSTACK_COEFFICIENTS_ALL = 2 } bitstack_coefficients;

/* What a matrix is and how it is coded: the part that fixes the sizes of its blocks. */
typedef struct bitstack_shape {
    uint32_t rows, cols;
    uint32_t levels; /* blocks in the file */
    uint32_t rank;
    uint32_t group_cols; /* columns a coefficient group; 0 = all */
    bitstack_columns columns;
    bitstack_coefficients coefficients;
    bitstack_type factor_type; /* F32 or F16 */
    float scale;               /* a power of two */
} bitstack_shape;

/* One matrix of a stack, now. */
typedef struct bitstack_matrix {
    const char *name; /* not NUL-terminated; lives as long as the stack */
    size_t name_bytes;
    bitstack_shape shape;
    uint32_t level;          /* blocks loaded */
    uint64_t resident_bytes; /* of its loaded blocks, superseded factors left out */
    float sensitivity;
} bitstack_matrix;

/* One block of a stack, in universal order. */
typedef struct bitstack_block {
    uint32_t matrix, level;
    uint64_t offset, bytes; /* in the file */
    uint64_t resident_after; /* resident bytes of the stack with this block the last one loaded */
    float rel_err2, score;
} bitstack_block;

/* One sign plane with its factors, as [FORMAT] lays them out. No alignment is needed. */
typedef struct bitstack_plane {
    const unsigned char *signs; /* plane part */
    const void *columns;        /* V: rank * cols values */
    const void *coefficients;   /* U of this plane: groups * rank * rows values */
} bitstack_plane;

/* A matrix at a level as the kernels see it; a plain description of memory that the caller keeps
 * alive. Planes that share V have equal `columns` pointers. Useful without any file: fill it and
 * multiply. */
typedef struct bitstack_view {
    uint32_t rows, cols, rank, group_cols, level;
    bitstack_type factor_type;
    float scale;
    const bitstack_plane *planes; /* level of them */
} bitstack_view;

/* ===================================================================================== [API]
 * Threads. Different stacks share nothing. On one stack, any number of threads may call functions
 * that take a const bitstack * at the same time. Functions that take a bitstack * (set_budget,
 * set_level, close) must not run while another thread uses the stack.
 * Pointers handed out by level (bitstack_matrix_view) are valid until the next set_budget or
 * set_level; all others until bitstack_close. */

/* Open a stack from a path, from memory or through a callback.
 *
 * Everything but the blocks is read and validated first, checksums included; then the blocks that
 * fit options->budget are loaded. On failure *out is untouched, nothing stays allocated, and *error
 * (may be NULL) says what and where. Time and memory are bounded by the bytes that are there: memory
 * is at most 4 times the tables plus the resident part plus the loaded blocks, plus 4 KiB.
 *
 * open_memory copies no resident tensor and no block: `data` must stay valid and unchanged until
 * close (flash, or a mapped file); any alignment. `bytes` (of the memory, of the file, or as told by
 * the caller of open_callback) may end after any block: the rest is taken as absent.
 * A block whose checksum fails is left out together with the later blocks of its matrix; opening
 * still succeeds, and *error then says which (code BITSTACK_ERROR_CHECKSUM). */
#ifndef BITSTACK_NO_STDIO
BITSTACK_API bitstack_result bitstack_open_file(bitstack **out, const char *path, const bitstack_options *options, bitstack_error *error);
#endif
BITSTACK_API bitstack_result bitstack_open_memory(bitstack **out, const void *data, size_t bytes, const bitstack_options *options, bitstack_error *error);
BITSTACK_API bitstack_result bitstack_open_callback(bitstack **out, bitstack_read_at read, void *user, uint64_t bytes, const bitstack_options *options, bitstack_error *error);
/* Frees everything; NULL is allowed. */
BITSTACK_API void bitstack_close(bitstack *stack);

/* Load or drop blocks along the universal order so that resident bytes are at most `bytes`: as many
 * as fit. Costs only the blocks that change. UINT64_MAX means all. The same budget always ends in the
 * same bits. While a block is taken up, one superseded coefficient part exists beside its successor;
 * it is not counted. BITSTACK_ERROR_BUDGET, and no change, if `bytes` is below bitstack_base_bytes.
 * BITSTACK_ERROR_IO, _MEMORY or _CHECKSUM: the blocks that could not be had are left out, each matrix
 * stays at its last good level, and everything else is done. */
BITSTACK_API bitstack_result bitstack_set_budget(bitstack *stack, uint64_t bytes, bitstack_error *error);
/* Load one matrix at one level, out of the universal order (for measuring importance). The next
 * set_budget puts it back in line. Resident bytes are counted. Errors as set_budget. */
BITSTACK_API bitstack_result bitstack_set_level(bitstack *stack, int matrix, uint32_t level, bitstack_error *error);

/* Bytes. base: header, tables and resident tensors, always loaded. resident: base plus the live parts
 * of the loaded blocks (superseded factors are not loaded). total: resident with every available block.
 * They count bytes of the file that are held (or, from memory, used); the handle's own bookkeeping,
 * about 100 bytes a matrix and a block, comes on top. */
BITSTACK_API uint64_t bitstack_base_bytes(const bitstack *stack);
BITSTACK_API uint64_t bitstack_resident_bytes(const bitstack *stack);
BITSTACK_API uint64_t bitstack_total_bytes(const bitstack *stack);
/* Bytes of the file, and of the complete file it may be a prefix of. */
BITSTACK_API uint64_t bitstack_file_bytes(const bitstack *stack);
BITSTACK_API uint64_t bitstack_complete_file_bytes(const bitstack *stack);

/* Metadata, resident tensors, matrices and blocks by index 0..count-1. An index out of range gives
 * BITSTACK_ERROR_ARGUMENT. Finding by name (NUL-terminated) gives the index or -1. */
BITSTACK_API int bitstack_meta_count(const bitstack *stack);
BITSTACK_API bitstack_result bitstack_get_meta(const bitstack *stack, int index, bitstack_meta *out);
BITSTACK_API int bitstack_find_meta(const bitstack *stack, const char *key);
BITSTACK_API int bitstack_tensor_count(const bitstack *stack);
BITSTACK_API bitstack_result bitstack_get_tensor(const bitstack *stack, int index, bitstack_tensor *out);
BITSTACK_API int bitstack_find_tensor(const bitstack *stack, const char *name);
BITSTACK_API int bitstack_matrix_count(const bitstack *stack);
BITSTACK_API bitstack_result bitstack_get_matrix(const bitstack *stack, int index, bitstack_matrix *out);
BITSTACK_API int bitstack_find_matrix(const bitstack *stack, const char *name);
BITSTACK_API int bitstack_block_count(const bitstack *stack); /* of the complete file */
BITSTACK_API int bitstack_blocks_available(const bitstack *stack); /* wholly in the bytes that are there */
BITSTACK_API int bitstack_blocks_loaded(const bitstack *stack); /* by the last budget */
BITSTACK_API bitstack_result bitstack_get_block(const bitstack *stack, int index, bitstack_block *out);

/* Typed metadata reads: the first element of a number entry of any number type, converted; the
 * `fallback` where the key is absent or not a number. The string form returns a pointer (not
 * NUL-terminated) and length, or NULL. */
BITSTACK_API double bitstack_meta_number(const bitstack *stack, const char *key, double fallback);
BITSTACK_API const char *bitstack_meta_string(const bitstack *stack, const char *key, size_t *bytes);
/* Element i of a number entry, i < meta->count. */
BITSTACK_API double bitstack_meta_element(const bitstack_meta *meta, uint64_t i);
/* Walks the strings of a string entry: *cursor starts at 0; returns NULL after the last. */
BITSTACK_API const char *bitstack_meta_next_string(const bitstack_meta *meta, uint64_t *cursor, size_t *bytes);

/* y = W x at the matrix's current level.
 * x: cols floats, y: rows floats, any alignment; they must not overlap. Level 0 gives zeros.
 * gemv_rows computes rows [begin, begin + count) only and writes y[0..count-1]; parts of a matrix
 * joined together equal the whole bit for bit, so rows can be shared out over threads.
 *
 * How exact: FAST differs from the product with the reconstructed weights (in exact arithmetic) by at
 * most, for each row i,
 *     sum over planes p, ranks r, 256-column scale blocks b of  |scale u_pir| * 0.502 * G_b * A_b / 127
 * with G_b the 4-column groups in the block and A_b the largest sum of |v_j x_j| over one of them, plus
 * 1e-6 of sum_j |W_ij x_j| for the floats; the typical error is 10 times smaller (relative 1e-2
 * of the bound's square: about 6e-5 of |y|^2 for normal x). EXACT replaces 127 by 32512. REFERENCE is
 * accurate to float rounding.
 * The result is the same bit for bit on every ISA and for every row split and thread count (needs
 * IEEE floats: not with -ffast-math). A NaN or infinity in x makes the outputs of all rows NaN or
 * infinite. Scale blocks whose A_b is below 1e-30 count as zero.
 * Scratch is on the C stack: about 6 * BITSTACK_CHUNK_COLS bytes + 2 KiB. No allocation, no locks.
 * Weighted popcount by nibble lookup: Mula's SIMD popcount; T-MAC, arXiv 2407.00088. */
BITSTACK_API bitstack_result bitstack_gemv(const bitstack *stack, int matrix, const float *x, float *y);
BITSTACK_API bitstack_result bitstack_gemv_rows(const bitstack *stack, int matrix, const float *x, float *y, uint32_t begin, uint32_t count);
/* Y = X W^T: `count` vectors at x, x + x_stride, ...; outputs at y, y + y_stride, ... (strides in
 * floats, at least cols and rows). As bitstack_gemv otherwise. */
BITSTACK_API bitstack_result bitstack_gemm(const bitstack *stack, int matrix, const float *x, size_t x_stride, float *y, size_t y_stride, size_t count);

/* Reconstruct rows [begin, begin + count) of W at the current level: out[i * out_stride + j], stride in
 * floats, at least cols. Bit-identical on every ISA; exact up to one float rounding per plane. A single
 * row costs cols * level * rank operations: an embedding look-up. */
BITSTACK_API bitstack_result bitstack_dequantize_rows(const bitstack *stack, int matrix, uint32_t begin, uint32_t count, float *out, size_t out_stride);
BITSTACK_API bitstack_result bitstack_dequantize(const bitstack *stack, int matrix, float *out, size_t out_stride);

/* The same on a view. *out of matrix_view points into the stack. */
BITSTACK_API bitstack_result bitstack_matrix_view(const bitstack *stack, int matrix, bitstack_view *out);
BITSTACK_API bitstack_result bitstack_view_gemv(const bitstack_view *view, bitstack_precision precision, const float *x, float *y, uint32_t begin, uint32_t count);
BITSTACK_API bitstack_result bitstack_view_gemm(const bitstack_view *view, bitstack_precision precision, const float *x, size_t x_stride, float *y, size_t y_stride, size_t count);
BITSTACK_API bitstack_result bitstack_view_dequantize(const bitstack_view *view, uint32_t begin, uint32_t count, float *out, size_t out_stride);

/* Sizes that a shape fixes, in bytes with padding: of one plane part, of the column and coefficient
 * parts that block `level` carries (0 where none), of its whole payload, and of what is live in memory
 * with `level` blocks loaded. 0 also where the shape is invalid or overflows. */
BITSTACK_API uint64_t bitstack_plane_bytes(uint32_t rows, uint32_t cols);
BITSTACK_API uint64_t bitstack_column_bytes(const bitstack_shape *shape, uint32_t level);
BITSTACK_API uint64_t bitstack_coefficient_bytes(const bitstack_shape *shape, uint32_t level);
BITSTACK_API uint64_t bitstack_block_bytes(const bitstack_shape *shape, uint32_t level);
BITSTACK_API uint64_t bitstack_live_bytes(const bitstack_shape *shape, uint32_t level);
/* Nonzero if the shape may stand in a file. */
BITSTACK_API int bitstack_shape_valid(const bitstack_shape *shape);

/* The kernels in use: "scalar", "avx2", ... Chosen once, at the first call that needs them. set_isa
 * overrides it for the whole process (tests, comparisons; not while another thread multiplies);
 * NULL chooses the best again. BITSTACK_ERROR_UNSUPPORTED if the build or this CPU lacks it.
 * isa_name lists what the build has, best first, NULL past the end; isa_available tells if it runs here. */
BITSTACK_API const char *bitstack_isa(void);
BITSTACK_API bitstack_result bitstack_set_isa(const char *name);
BITSTACK_API const char *bitstack_isa_name(int index);
BITSTACK_API int bitstack_isa_available(int index);

/* Small things that users of the format need: XXH64 with seed 0 (Yann Collet's specification), and
 * conversions. f32_to_f16 rounds to nearest even. */
BITSTACK_API uint64_t bitstack_checksum(const void *data, size_t bytes);
BITSTACK_API float bitstack_f16_to_f32(uint16_t value);
BITSTACK_API uint16_t bitstack_f32_to_f16(float value);
BITSTACK_API const char *bitstack_result_string(bitstack_result result);

#ifdef __cplusplus
}
#endif
#endif /* BITSTACK_H */

/* ==================================================================================== [STOP]
 * Stop here if you only want the API. */
#if defined(BITSTACK_IMPLEMENTATION) && !defined(BITSTACK_IMPLEMENTED_)
#define BITSTACK_IMPLEMENTED_

/* ================================================================================ [PLATFORM] */
/* =================================================================================== [BYTES] */
/* ================================================================================ [CHECKSUM] */
/* ================================================================================== [ERRORS] */
/* ================================================================================== [READER] */
/* ================================================================================== [BUDGET] */
/* ============================================================================= [RECONSTRUCT] */
/* ================================================================================== [TABLES] */
/* ================================================================================== [SCALAR] */
/* ==================================================================================== [AVX2] */
/* ================================================================================ [DISPATCH] */
/* ==================================================================================== [GEMV] */

#endif /* BITSTACK_IMPLEMENTATION */
