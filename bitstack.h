/* bitstack.h - run a neural network's weights from a stack of 1-bit blocks, as many as memory allows.
 * Version 0.2.0. C99 to C23, C++11 and later. Needs libc only, not even -lm. MIT licence at the end.
 *
 * In ONE C or C++ file:
 *
 *     #define BITSTACK_IMPLEMENTATION
 *     #include "bitstack.h"
 *
 * and everywhere else just include it. gcc, clang, or cl from 2019 on. No compiler flags are needed: every kernel the compiler can
 * build is built, and the fastest one that this CPU has is chosen at run time.
 *
 *     bitstack *stack;
 *     bitstack_error error;
 *     bitstack_options options = {0};
 *     options.budget = 3000000;                              // bytes; with none, all of the file is loaded
 *     if (bitstack_open_file(&stack, "model.bitstack", &options, &error) != BITSTACK_OK) {
 *         fprintf(stderr, "%s\n", error.message);
 *         return 1;
 *     }
 *     int m = bitstack_find_matrix(stack, "blk.0.attn_q.weight");
 *     bitstack_gemv(stack, m, x, y);                         // y = W x at the level that fits
 *     bitstack_set_budget(stack, 5000000, NULL);             // more memory: loads blocks, or drops them
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
 *   [PLATFORM] [INTERNAL] [BYTES] [CHECKSUM] [ERRORS] [READER] [BUDGET] [RECONSTRUCT]
 *   [TABLES] [SCALAR] [SSE4] [AVX2] [AVX512] [NEON] [POPCOUNT] [GEMM] [DECODE] [WASM] [DISPATCH] [GEMV] [POOL] [LICENCE]
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
 * zero matrix. Two codings have this form:
 *   iabs    each block carries the U and V of its own plane (BitStack, arXiv 2410.23918);
 *   earlier nested files  the planes share one V, carried by the first block, or by every block when it is fitted
 *           again at each level; each block carries U for *all* planes up to its level, replacing
 *           those before it. Superseded factors are not kept in memory and not counted.
 * U may have several values a row, one per group of `group_cols` consecutive columns.
 *
 * The other encoding, *tables*, which nested coding makes, decodes instead of adding: each block adds one plane of bits, and the bits of a
 * weight's planes 1..L are an index into a table of 2^L values that block L carries, with scales of its own:
 *
 *     W_L[i,j] = scale * unit_L * s_L[i, j / group_cols] * v_L[j] * T_L[index],  index = sum over p = 1..L of bit_p[i,j] << (p - 1)
 *
 * unit_L and scale are powers of two; s and v are small floats of one byte. Planes serve every level at or above their
 * own; T, s, v and unit serve theirs alone. A few columns may be kept *whole* beside that, a byte a weight and a scale
 * a column, carried by block 1 and added at every level: those whose inputs outweigh all others. Their v is 0.
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
 *    56   8  u64 names bytes (a multiple of 8). Names do not share bytes: their lengths add up to at most this
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
 *     8   4  u32 type: 1 f32, 2 f16, 3 bf16, 4 bytes, 5 q8_0: 32 elements of the last dimension, which is a
 *            multiple of that, are an f16 scale and 32 i8 that it multiplies   12  4  u32 dimensions, 0 to 4
 *    16  32  u64 shape[4], slowest first, unused ones 1
 *    48   8  u64 offset, a multiple of 64    56  8  u64 bytes = product of shape * element size (q8_0: 34 / 32)
 *    64   8  u64 checksum of the bytes
 *
 * Matrix record, 64 bytes
 *     0   4  u32 name offset     4  4  u32 name bytes
 *     8   4  u32 rows           12  4  u32 cols           both 1 to 2^30
 *    16   4  u32 encoding: 1 = sign planes with low-rank factors, 2 = tables. Readers refuse others, and an
 *            encoding 2 with another rank, V, U or factor type than the one given for it, naming the matrix
 *    20   4  u32 levels, 0 to 32 (tables: 8): how many blocks the matrix has
 *    24   4  u32 rank, 1 to 1024 (tables: 1)
 *    28   1  u8 column factors V: 1 own (each block carries V of its plane), 2 first (block 1 carries
 *            V for all planes), 3 every (each block carries a V for all planes; it replaces the last). Tables: 3
 *    29   1  u8 coefficients U: 1 own (each block carries U of its plane), 2 all (block L carries U of
 *            planes 1..L; they replace the last). Tables: 2
 *    30   1  u8 factor type: 1 f32, 2 f16. Tables: 0
 *    31   1  zero
 *    32   4  u32 group cols: 0 = one coefficient group a row, else a multiple of 64. Tables: a multiple of 32, 32 to
 *            1024. There are groups = ceil(cols / group cols) groups; the last one may be narrower
 *    36   4  f32 scale, a power of two, positive and normal
 *    40   4  f32 sensitivity: predicted model loss per unit of relative output error, or 0 (information: any value)
 *    44   4  u32 whole columns: tables 0 to 255, else 0
 *    48  16  zero
 * Names of tensors and matrices are any bytes, at least one; readers do not ask that they be different, and find the
 * first. Fields said to be zero, unused dimensions included, are checked: another value is refused (as unsupported
 * where a newer writer may have given it a meaning). Padding of names, metadata, tensors and parts is not checked.
 *
 * Block record, 64 bytes, in universal order
 *     0   4  u32 matrix          4  4  u32 level, 1-based
 *     8   8  u64 offset, a multiple of 64: payloads follow each other with no other gap
 *    16   8  u64 bytes = column part + coefficient part + plane part, padding included
 *    24   8  u64 checksum of the column part (0 bytes long where this block carries no V)
 *    32   8  u64 checksum of the coefficient part
 *    40   8  u64 checksum of the plane part. A part's checksum covers its padding (a tensor's does not); that of a
 *            part which is not there is that of no bytes
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
 * Resident bytes at a level: of blocks 1..L every plane part, and those column and coefficient parts that the level
 * uses: all (own), block 1's (first), block L's (every, all). Sizes are those of padded parts.
 *
 * Payload of encoding 2, tables
 *   column part of block L: 0  4  f32 unit, a power of two, positive and normal      4  12  zero
 *                     16  2 * 2^L  i16 T[2^L], within -127..127 at levels 1 to 6, any at 7 and 8
 *                         cols     u8 codes of v
 *   coefficient part  u8 codes of s, tiles of 16 rows: code[((i / 16) * groups + g) * 16 + i % 16]; those of rows
 *                     beyond the last are zero
 *   plane part        tiles of 16 rows, ceil(rows / 16) of them. A tile holds ceil(cols / 32) chunks of 64 bytes; bit k
 *                     of byte 4 * r + c of a chunk (r 0..15, c 0..3) is row r of the tile and column
 *                     32 * chunk + 4 * k + c. Bits beyond rows or cols are zero.
 *                     In block 1 the whole columns follow: for each u32 column, f32 scale (finite, not negative), in
 *                     ascending order; then for each rows signed bytes b: record's scale * scale * b[i] is added to the
 *                     weight. A column may stand there more than once, and all of them add up.
 *   A code c is (1 + (c % 32) / 32) * 2^(c / 32 - 7), 0 for c = 0: a float with the bits (c << 18) + (120 << 23).
 * The reader checks unit, zeros, T and whole columns when it takes a block up, with the checksums or without; a block that fails is
 * left out like one whose checksum does. (Sixteen rows of four neighbouring columns fill a register; the four products
 * of a row then add up where they stand.)
 *
 * A nibble of encoding 1 is an index into a 16-entry table of signed sums of inputs, so one byte shuffle multiplies
 * 32 rows by 4 columns, on any ISA, from the bytes as they are in the file.
 */

/* ================================================================================== [CONFIG]
 * Define before including; the ones marked (impl) matter only where BITSTACK_IMPLEMENTATION is.
 *
 * BITSTACK_STATIC        all functions static: two libraries can each carry a private copy
 * BITSTACK_MALLOC, BITSTACK_FREE   (impl) the default allocator: (bytes) and (pointer)
 * BITSTACK_NO_STDIO      no FILE: bitstack_open_file is absent
 * BITSTACK_NO_MALLOC     (impl) no default allocator: options.allocator is required; see bitstack_arena
 * BITSTACK_YIELD         (impl) what a thread that resizes does, as BITSTACK_YIELD(), while products that began
 *                        before are still at work. Default: sched_yield where there is one. With fixed
 *                        priorities it must let lower ones run: a delay
 * BITSTACK_POOL          bitstack_pool_open and its kin: needs POSIX threads, or Windows
 * BITSTACK_NO_THREADS    (impl) no atomics: nothing may multiply while a budget is being set
 * BITSTACK_NO_SIMD, BITSTACK_NO_SSE4, _NO_AVX2, _NO_AVXVNNI, _NO_AVX512, _NO_AMX, _NO_NEON, _NO_DOTPROD   (impl)
 *                        leave kernels out
 * BITSTACK_NO_DOUBLE     (impl) products and dequantize without double-precision arithmetic, which some machines have only
 *                        as calls of functions: in integers, with the same bits, but that what is infinite becomes NaN.
 *                        Set by itself on 32-bit ARM and RISC-V without such a unit; leaves the SIMD kernels out
 * BITSTACK_ALLOW_FAST_MATH   (impl) -ffast-math and its parts are refused unless this is defined: results then
 *                        differ between machines, NaN in weights may pass for numbers; memory stays safe
 * BITSTACK_CHUNK_COLS    (impl) columns whose lookup tables are held at once on the C stack, a
 *                        multiple of 256, at least 512; costs 4 bytes each. Default 16384 (64 KiB); 512
 *                        on small machines. Other values change the last bits of results where
 *                        cols * rank is larger
 */
#ifndef BITSTACK_API
#if defined(BITSTACK_STATIC) && (defined(__GNUC__) || defined(__clang__))
#define BITSTACK_API __attribute__((unused)) static
#elif defined(BITSTACK_STATIC)
#define BITSTACK_API static
#else
#define BITSTACK_API extern
#endif
#endif

#define BITSTACK_VERSION "0.2.0"
#define BITSTACK_VERSION_MAJOR 0
#define BITSTACK_VERSION_MINOR 2
#define BITSTACK_VERSION_PATCH 0
#define BITSTACK_VERSION_NUMBER (BITSTACK_VERSION_MAJOR * 10000 + BITSTACK_VERSION_MINOR * 100 + BITSTACK_VERSION_PATCH)
#define BITSTACK_FORMAT_VERSION 1
#define BITSTACK_MAX_LEVELS 32

/* =================================================================================== [TYPES] */

/* Results. Every function that can fail returns one. On failure a handle or struct that it was to fill in is
 * NULL or zero, so that closing or freeing it is harmless; numbers it was to write are left alone.
 * bitstack_result_string gives the second column. */
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
    BITSTACK_FAST = 0,  /* 8-bit tables, one scale per 256 columns; encoding TABLES: 8-bit inputs, one a group */
    BITSTACK_EXACT = 1, /* 16-bit tables, or inputs */
    BITSTACK_REFERENCE = 2 /* no tables: double-precision multiply-adds */
} bitstack_precision;

/* Threads of the caller's, or of a bitstack_pool. `run` calls task(context, i) for every i < count, on any
 * threads and in any order, and returns when all are done; work is cut into about `threads` parts. NULL or
 * threads below 2: the calling thread does all. Results are the same in any case. */
typedef struct bitstack_parallel {
    void (*run)(void *user, void (*task)(void *context, size_t index), void *context, size_t count);
    void *user;
    int threads;
} bitstack_parallel;

/* How to open. {0} (or NULL for the pointer) means the defaults. */
typedef struct bitstack_options {
    bitstack_allocator allocator;
    uint64_t budget;              /* first budget in bytes; 0 = no limit, as everywhere */
    bitstack_precision precision; /* of bitstack_gemv and bitstack_gemm */
    int skip_checksums;           /* nonzero: payload checksums are not verified on load */
    int load_nothing;             /* nonzero: open at level 0 everywhere; budget is not applied */
    bitstack_parallel parallel;   /* threads of bitstack_gemv and bitstack_gemm */
} bitstack_options;

/* Element types. */
typedef enum bitstack_type {
    BITSTACK_F32 = 1,
    BITSTACK_F16 = 2,
    BITSTACK_BF16 = 3,
    BITSTACK_BYTES = 4,
    BITSTACK_Q8_0 = 5 /* of tensors: ggml's blocks of 32 elements */
} bitstack_type;

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

typedef enum bitstack_encoding { BITSTACK_PLANES = 1, BITSTACK_TABLES = 2 } bitstack_encoding;

/* What a matrix is and how it is coded: the part that fixes the sizes of its blocks. For BITSTACK_TABLES rank is 1,
 * columns EVERY, coefficients ALL, factor_type 0. */
typedef struct bitstack_shape {
    uint32_t rows, cols;
    uint32_t levels; /* blocks in the file */
    uint32_t rank;
    uint32_t group_cols; /* columns a coefficient group; 0 = all */
    bitstack_columns columns;
    bitstack_coefficients coefficients;
    bitstack_type factor_type; /* F32 or F16 */
    float scale;               /* a power of two */
    bitstack_encoding encoding; /* 0 is read as BITSTACK_PLANES */
    uint32_t kept;              /* TABLES: columns that block 1 holds whole, in 8 bits */
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

/* One plane with its factors, as [FORMAT] lays them out. No alignment is needed. */
typedef struct bitstack_plane {
    const unsigned char *signs; /* plane part: signs, or bits of indices */
    const void *columns;        /* V: rank * cols values; TABLES: the column part of the view's level */
    const void *coefficients;   /* U of this plane: groups * rank * rows values; TABLES: the coefficient part of the level */
} bitstack_plane;

/* A matrix at a level as the kernels see it; a plain description of memory that the caller keeps
 * alive. Planes that share V have equal `columns` pointers (for TABLES only those of the first plane are
 * looked at). Useful without any file: fill it and multiply. Functions that take a view refuse what [FORMAT]
 * refuses, tables included. */
typedef struct bitstack_view {
    uint32_t rows, cols, rank, group_cols, level;
    bitstack_type factor_type;
    float scale;
    const bitstack_plane *planes; /* level of them */
    bitstack_encoding encoding;   /* 0 is read as BITSTACK_PLANES */
    uint32_t kept;                /* TABLES: columns that stand whole behind the first plane's signs */
} bitstack_view;

/* ===================================================================================== [API]
 * Threads. Different stacks share nothing. On one stack, any number of threads may call functions
 * that take a const bitstack * at the same time. ONE thread at a time may call set_budget or set_level,
 * and it may do so while others are inside gemv, gemm and dequantize: each of their calls sees one level
 * of its matrix from start to end, takes no lock, and never waits; the resizing call frees what it
 * drops only after the calls that may still use it have returned (a thread that leaves one by longjmp, an exception
 * or cancellation, or that resizes from inside one, would make it wait for ever). The functions that ask (resident
 * bytes, get_matrix, ...) belong to the resizing thread meanwhile, and bitstack_close comes after all.
 * Pointers handed out by level (bitstack_matrix_view) are valid until the next set_budget or
 * set_level; all others until bitstack_close. */

/* Open a stack from a path, from memory or through a callback.
 *
 * Everything but the blocks is read and validated first, checksums included; then the blocks that
 * fit options->budget are loaded. Without a budget (options NULL or {0}) these are all of them, so a program
 * that is to stay small gives one here: a later, lower one frees memory, but it has been used. On failure
 * *out is NULL, nothing stays allocated, and *error (may be NULL) says what and where. Time and memory are bounded by the bytes that are there: memory
 * is at most 5 times the tables plus the resident part plus the loaded blocks, plus 4 KiB.
 *
 * open_memory copies no resident tensor and no block: `data` must stay valid and unchanged until
 * close (flash, or a mapped file); any alignment. `bytes` (of the memory, of the file, or as told by
 * the caller of open_callback) may end after any block: the rest is taken as absent.
 * A block whose checksum fails is left out together with the later blocks of its matrix; opening
 * still succeeds, *error then says which (code BITSTACK_ERROR_CHECKSUM; _FORMAT where a table or unit
 * is not valid), and bitstack_blocks_missing how many
 * are. A block that cannot be read makes opening fail: load_nothing and set_budget take what can be had.
 * Paths are UTF-8 on Windows, too, and may be longer than 260 characters there. */
#ifndef BITSTACK_NO_STDIO
BITSTACK_API bitstack_result bitstack_open_file(bitstack **out, const char *path, const bitstack_options *options, bitstack_error *error);
#endif
BITSTACK_API bitstack_result bitstack_open_memory(bitstack **out, const void *data, size_t bytes, const bitstack_options *options, bitstack_error *error);
BITSTACK_API bitstack_result bitstack_open_callback(bitstack **out, bitstack_read_at read, void *user, uint64_t bytes, const bitstack_options *options, bitstack_error *error);
/* More of the file is there by now, `bytes` of it in all: a download that goes on, a file still being written.
 * Its blocks count as available from here on; the next set_budget loads what fits. What was there must not
 * have changed (from memory: all of `bytes` is at `data`). Belongs to the resizing thread.
 * BITSTACK_ERROR_ARGUMENT if it is less than before. */
BITSTACK_API bitstack_result bitstack_extend(bitstack *stack, uint64_t bytes);
/* Frees everything; NULL is allowed. */
BITSTACK_API void bitstack_close(bitstack *stack);

/* Memory of the caller's own in the place of malloc:
 *     static unsigned char room[2048];                             // bitstack_arena_bytes, or more
 *     options.allocator = bitstack_arena(room, sizeof room);
 * arena_bytes tells how much a stack in memory takes there at any budget, its handle and nothing else; 0
 * where the first 128 bytes are no valid header. It looks at these alone, so for a callback the header
 * will do: add bitstack_base_bytes, the highest budget, and 64 bytes for each of three parts a block. What
 * is released is used again, first fit, neighbours joined; where holes are too small all the same,
 * set_budget reports BITSTACK_ERROR_MEMORY and the matrix stays a level lower.
 * The arena keeps its own books inside `memory` (any alignment), which must live as long as what is
 * allocated from it. One thread at a time. Too small even for the books: every allocation fails. */
BITSTACK_API size_t bitstack_arena_bytes(const void *data, size_t bytes);
BITSTACK_API bitstack_allocator bitstack_arena(void *memory, size_t bytes);

/* Load or drop blocks along the universal order so that resident bytes are at most `bytes`: as many
 * as fit. Costs only the blocks that change. 0 and UINT64_MAX mean no limit. The same budget always ends in
 * the same bits. While a block is taken up, one superseded part exists beside its successor, and where blocks are
 * dropped, the factors that take over do; these are not counted. BITSTACK_ERROR_BUDGET, and no change, if
 * `bytes` is below bitstack_base_bytes. BITSTACK_ERROR_IO, _MEMORY, _CHECKSUM or _FORMAT: the blocks that could not be
 * had are left out, each matrix stays at its last good level, and everything else is done. Going down may
 * need factors of the lower level from the file: a matrix for which no lower level can be had keeps the one it has,
 * and resident bytes stay above the budget until a later call succeeds. */
BITSTACK_API bitstack_result bitstack_set_budget(bitstack *stack, uint64_t bytes, bitstack_error *error);
/* For a program that is told that memory is short: gives back a quarter of what is loaded beyond the resident part
 * (BITSTACK_TRIM_SOME), half (BITSTACK_TRIM_HALF), or all (BITSTACK_TRIM_ALL: products give zeros until the next
 * set_budget; names, tensors and the handle stay). *budget (may be NULL) gets the budget that holds from then on.
 * Errors as set_budget, which it calls, and BITSTACK_ERROR_ARGUMENT for another level. Belongs to the resizing thread:
 * call it there, not in a signal handler. What systems say, and the level for it:
 *   Android onTrimMemory  RUNNING_MODERATE, BACKGROUND: SOME; RUNNING_LOW, MODERATE: HALF; RUNNING_CRITICAL, COMPLETE: ALL
 *   iOS, macOS            DISPATCH_MEMORYPRESSURE_WARN, didReceiveMemoryWarning: HALF; DISPATCH_MEMORYPRESSURE_CRITICAL: ALL
 *   cgroup v2             each time that `high` in memory.events has grown (memory.high is passed): SOME; `max`: HALF
 *   PSI                   a trigger "some 150000 1000000" on memory.pressure: SOME; "full 100000 1000000": HALF
 *   systemd               POLLPRI on the file in $MEMORY_PRESSURE_WATCH: SOME, again at each event
 * and set_budget with the old number when nothing was said for a while. */
typedef enum bitstack_trim_level { BITSTACK_TRIM_SOME = 1, BITSTACK_TRIM_HALF = 2, BITSTACK_TRIM_ALL = 3 } bitstack_trim_level;
BITSTACK_API bitstack_result bitstack_trim(bitstack *stack, bitstack_trim_level level, uint64_t *budget, bitstack_error *error);
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
BITSTACK_API int bitstack_blocks_loaded(const bitstack *stack); /* that the last budget asks for */
/* Of those, how many are not in memory, because they could not be had or by set_level. */
BITSTACK_API int bitstack_blocks_missing(const bitstack *stack);
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
 *     sum over planes p, ranks r, 256-column scale blocks b of  |scale u_pir| * 0.51 * G_b * A_b / 127
 * with G_b the 4-column groups in the block (blocks start anew with each coefficient group) and A_b the
 * largest sum of |v_j x_j| over one of them, plus (20 + n) * 2^-24 of the sum of all |scale u v x| for
 * the floats, where n = rank * planes * (coefficient groups + 2 * cols / 1024). The typical error is 10 times smaller (about 6e-5 of |y|^2 for normal x).
 * EXACT: 2.1 / 32512 in place of 0.51 / 127. REFERENCE is accurate to float rounding.
 * Tables: inputs x_j v_j are rounded to 8 bits with one scale a group of columns, so FAST differs by at most
 *     sum over groups g of  |scale unit s_ig| * 0.501 * A_g / 127 * (sum over the group's columns of |T|)
 * with A_g the largest |v_j x_j| of the group, plus (20 + groups) * 2^-24 of the sum of all |weight * x|; EXACT, and
 * FAST at levels 7 and 8, have 32512 in place of 127. Groups whose A_g is below 1e-30 count as zero.
 * The result is the same bit for bit on every ISA and for every row split and thread count (needs
 * IEEE floats: not with -ffast-math). A NaN or infinity in x makes the outputs of all rows NaN or
 * infinite, and so may sums beyond the range of float. Scale blocks whose A_b is below 1e-30 count as
 * zero.
 * Scratch is on the C stack: at most 5 * BITSTACK_CHUNK_COLS bytes + 16 KiB (+ 8 KiB where
 * BITSTACK_CHUNK_COLS is below 9216); compiled without optimisation up to half a megabyte more. No recursion,
 * no allocation, no locks.
 * Weighted popcount by nibble lookup: Mula's SIMD popcount; T-MAC, arXiv 2407.00088. */
BITSTACK_API bitstack_result bitstack_gemv(const bitstack *stack, int matrix, const float *x, float *y);
BITSTACK_API bitstack_result bitstack_gemv_rows(const bitstack *stack, int matrix, const float *x, float *y, uint32_t begin, uint32_t count);
/* The products of `count` matrices, all of as many columns, with one x: y[i] = W_i x, as bitstack_gemv with the same bits,
 * but options.parallel is called once for up to three of them: its threads are woken once, and none waits between. */
BITSTACK_API bitstack_result bitstack_gemv_several(const bitstack *stack, const int *matrices, int count, const float *x, float *const *y);
/* Y = X W^T: `count` vectors at x, x + x_stride, ...; outputs at y, y + y_stride, ... (strides in
 * floats, at least cols and rows). As bitstack_gemv, with the same bits, while that is the faster way.
 * For many vectors and planes * rank above 5 it is not: then weights are rebuilt tile by tile and
 * multiplied in floats, within (150 + cols / 64 + 2 * planes * rank) * 2^-24 of the sum of all
 * |scale u v x|, with the same bits for every split of the rows but not on every ISA. Tables: at levels 1 to 6 and FAST,
 * with groups of at most 128 columns, any number of vectors has the bits of single products, on every ISA: a tile is
 * decoded once into bytes, which are multiplied with many 8-bit inputs. Else floats are used from nine vectors on, where the
 * ISA has such a kernel (level in place of planes * rank). */
BITSTACK_API bitstack_result bitstack_gemm(const bitstack *stack, int matrix, const float *x, size_t x_stride, float *y, size_t y_stride, size_t count);

/* Reconstruct rows [begin, begin + count) of W at the current level: out[i * out_stride + j], stride in
 * floats, at least cols. Bit-identical on every ISA; exact up to one float rounding per plane (tables: one a
 * weight). A single row costs cols * level * rank operations: an embedding look-up. */
BITSTACK_API bitstack_result bitstack_dequantize_rows(const bitstack *stack, int matrix, uint32_t begin, uint32_t count, float *out, size_t out_stride);
BITSTACK_API bitstack_result bitstack_dequantize(const bitstack *stack, int matrix, float *out, size_t out_stride);

/* The same on a view. *out of matrix_view points into the stack. */
BITSTACK_API bitstack_result bitstack_matrix_view(const bitstack *stack, int matrix, bitstack_view *out);
BITSTACK_API bitstack_result bitstack_view_gemv(const bitstack_view *view, bitstack_precision precision, const float *x, float *y, uint32_t begin, uint32_t count);
BITSTACK_API bitstack_result bitstack_view_gemm(const bitstack_view *view, bitstack_precision precision, const float *x, size_t x_stride, float *y, size_t y_stride, size_t count);
BITSTACK_API bitstack_result bitstack_view_gemm_rows(const bitstack_view *view, bitstack_precision precision, const float *x, size_t x_stride, float *y, size_t y_stride, size_t batch, uint32_t begin, uint32_t count);
BITSTACK_API bitstack_result bitstack_view_gemm_parallel(const bitstack_view *view, bitstack_precision precision, const float *x, size_t x_stride, float *y, size_t y_stride, size_t batch, const bitstack_parallel *parallel);
BITSTACK_API bitstack_result bitstack_view_dequantize(const bitstack_view *view, uint32_t begin, uint32_t count, float *out, size_t out_stride);

/* For inputs of 1 to 8 bits: y[i] = sum over j of S_ij a_j exactly, for rows [begin, begin + count) of one
 * sign plane (laid out as in [FORMAT], any alignment; at most 2^23 columns), by counting bits. The a_j are
 * unsigned, or two's complement if is_signed, and come as `bits` bit planes, lowest first, of (cols + 7) / 8
 * bytes each: column j is bit j % 8 of byte j / 8, and bits after the last are zero. pack_bits writes them
 * from integers (in range; higher bits are ignored) and returns their bytes; with planes NULL it only
 * returns them, and 0 for a wrong number of bits. */
BITSTACK_API size_t bitstack_pack_bits(void *planes, const int32_t *values, size_t count, int bits);
BITSTACK_API bitstack_result bitstack_popcount_gemv(const void *signs, uint32_t rows, uint32_t cols, const void *planes, int bits, int is_signed, int32_t *y, uint32_t begin, uint32_t count);

/* Sizes that a shape fixes, in bytes with padding: of one plane part, of the column and coefficient
 * parts that block `level` carries (0 where none), of its whole payload, and of what is live in memory
 * with `level` blocks loaded. 0 also where the shape is invalid or overflows. plane_bytes is that of a plane of
 * signs (encoding PLANES), of any size. */
BITSTACK_API uint64_t bitstack_plane_bytes(uint32_t rows, uint32_t cols);
BITSTACK_API uint64_t bitstack_plane_part_bytes(const bitstack_shape *shape);
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
/* BITSTACK_VERSION_NUMBER of the implementation: 200 for 0.2.0. Another number than the macro's: this header and the
 * library that is linked are of different versions, and before 1.0 versions need not fit each other. */
BITSTACK_API int bitstack_version(void);

#ifdef __cplusplus
}
#endif
#endif /* BITSTACK_H */

/* Apart, so that this header may have been included before without it. */
#if defined(BITSTACK_POOL) && !defined(BITSTACK_POOL_H)
#define BITSTACK_POOL_H
#ifdef __cplusplus
extern "C" {
#endif
/* A small pool of POSIX or Windows threads, for options.parallel: define BITSTACK_POOL (with the implementation too)
 * and link with -pthread where that is needed; on Windows the implementation includes windows.h.
 *     bitstack_pool *pool;
 *     if (bitstack_pool_open(&pool, 0, NULL) == BITSTACK_OK) options.parallel = bitstack_pool_parallel(pool);
 * `threads` counts the calling one; 0 means one a processor. Where fewer can be started (at most 256), the pool
 * has those: bitstack_pool_threads says how many. Any number of stacks may share a pool, and any
 * threads may use it; while it is at work for one of them the others do without. Close it after the
 * stacks that use it. After fork the child has no threads but its own: there the pool does all in the calling
 * one, and may be closed. allocator NULL: malloc. */
typedef struct bitstack_pool bitstack_pool;
BITSTACK_API bitstack_result bitstack_pool_open(bitstack_pool **out, int threads, const bitstack_allocator *allocator);
BITSTACK_API void bitstack_pool_close(bitstack_pool *pool);
BITSTACK_API int bitstack_pool_threads(const bitstack_pool *pool); /* 1 for NULL */
BITSTACK_API bitstack_parallel bitstack_pool_parallel(bitstack_pool *pool);
BITSTACK_API void bitstack_pool_run(void *pool, void (*task)(void *context, size_t index), void *context, size_t count);
#ifdef __cplusplus
}
#endif
#endif /* BITSTACK_POOL_H */

/* ==================================================================================== [STOP]
 * Stop here if you only want the API. */
#if (defined(BITSTACK_IMPLEMENTATION) || defined(BITSTACK_COMPRESS_IMPLEMENTATION)) && !defined(BITSTACK_INTERNAL_)
#define BITSTACK_INTERNAL_

/* ================================================================================ [PLATFORM] */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#ifndef BITSTACK_NO_STDIO
#include <errno.h>
#include <stdio.h>
#ifdef _WIN32
#include <stdlib.h>
#include <wchar.h>
#endif
#endif
#ifndef BITSTACK_NO_MALLOC
#include <stdlib.h>
#ifndef BITSTACK_MALLOC
#define BITSTACK_MALLOC(bytes) malloc(bytes)
#define BITSTACK_FREE(pointer) free(pointer)
#endif
#endif

/* NaN must be seen and sums keep their order. (GCC and clang tell of these options by these macros.) */
#if (defined(__arm__) && (!defined(__ARM_FP) || !(__ARM_FP & 8))) || (defined(__riscv) && (!defined(__riscv_flen) || __riscv_flen < 64))
#ifndef BITSTACK_NO_DOUBLE
#define BITSTACK_NO_DOUBLE
#endif
#endif
#if defined(BITSTACK_NO_DOUBLE) && !defined(BITSTACK_NO_SIMD)
#define BITSTACK_NO_SIMD
#endif

#if !defined(BITSTACK_ALLOW_FAST_MATH) && (defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ != 0))
#error "bitstack: build this file without -ffast-math; see BITSTACK_ALLOW_FAST_MATH"
#endif

/* What the compiler understands: attributes, builtins and assembly of gcc (clang's, too, also as clang-cl), or cl 2019 and
 * later, which builds any intrinsic anywhere. */
#if defined(__GNUC__) || defined(__clang__)
#define BITSTACK_GNU_
#define BITSTACK_TARGET_(isa) __attribute__((target(isa)))
#define BITSTACK_FORCED_ static inline __attribute__((always_inline))
#elif defined(_MSC_VER) && _MSC_VER >= 1920
#define BITSTACK_CL_
#define BITSTACK_TARGET_(isa)
#define BITSTACK_FORCED_ static __forceinline
#include <intrin.h>
#if defined(_M_FP_FAST) && !defined(BITSTACK_ALLOW_FAST_MATH)
#error "bitstack: build this file with /fp:precise; see BITSTACK_ALLOW_FAST_MATH"
#endif
#pragma fp_contract(off) /* products are rounded before they are added */
#endif

/* GCC keeps the stack of Windows aligned to 16 bytes only and yet spills wider registers with moves that want more (its
 * bug 54412). On the CPUs that have such registers the other moves are as fast. */
#if defined(__MINGW32__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(BITSTACK_NO_SIMD)
#define BITSTACK_MOVE_(aligned, unaligned) ".macro " aligned " a:vararg\n\t" unaligned " \\a\n.endm\n"
#define BITSTACK_MOVES_ \
    BITSTACK_MOVE_("vmovaps", "vmovups") BITSTACK_MOVE_("vmovapd", "vmovupd") BITSTACK_MOVE_("vmovdqa", "vmovdqu") \
    BITSTACK_MOVE_("vmovdqa32", "vmovdqu32") BITSTACK_MOVE_("vmovdqa64", "vmovdqu64")
__asm__(".ifndef bitstack_moves_\n.set bitstack_moves_, 1\n" BITSTACK_MOVES_ ".endif\n");
#endif

#if defined(BITSTACK_GNU_)
#define BITSTACK_GET_(address) __atomic_load_n(address, __ATOMIC_SEQ_CST)
#define BITSTACK_PUT_(address, value) __atomic_store_n(address, value, __ATOMIC_SEQ_CST)
#define BITSTACK_COUNT_(address, by) __atomic_fetch_add(address, by, __ATOMIC_SEQ_CST)
#elif defined(BITSTACK_CL_) /* of 32 bits; each is a full barrier */
#define BITSTACK_GET_(address) ((uint32_t)_InterlockedOr((volatile long *)(address), 0))
#define BITSTACK_PUT_(address, value) ((void)_InterlockedExchange((volatile long *)(address), (long)(value)))
#define BITSTACK_COUNT_(address, by) ((uint32_t)_InterlockedExchangeAdd((volatile long *)(address), (long)(by)))
#elif !defined(BITSTACK_NO_THREADS)
#error "bitstack.h: define BITSTACK_NO_THREADS; the atomics are those of gcc, clang and cl 2019"
#endif
#ifndef BITSTACK_NO_THREADS
#ifndef BITSTACK_YIELD
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#define BITSTACK_YIELD() ((void)sched_yield())
#elif defined(_WIN32)
/* As in windows.h, which would bring thousands of names. */
#ifdef __cplusplus
extern "C"
#endif
__declspec(dllimport) int __stdcall SwitchToThread(void);
#define BITSTACK_YIELD() ((void)SwitchToThread())
#else
#define BITSTACK_YIELD() ((void)0)
#endif
#endif
#define BITSTACK_READER_STRIPES_ 8u
#define BITSTACK_READER_STEP_ 16u /* words a cache line */
#define BITSTACK_READER_WORDS_ ((1u + 2u * BITSTACK_READER_STRIPES_) * BITSTACK_READER_STEP_)
#else
#define BITSTACK_READER_WORDS_ 1u
#endif

#define BITSTACK_HEADER_BYTES_ 128u
#define BITSTACK_ALIGN_ 64u
#define BITSTACK_LEAST_META_ 24u
#define BITSTACK_TENSOR_RECORD_ 72u
#define BITSTACK_MATRIX_RECORD_ 64u
#define BITSTACK_BLOCK_RECORD_ 64u

/* ================================================================================ [INTERNAL]
 * What the two implementations share: static inline, so each may be in a file of its own.
 * Little-endian loads that compilers turn into one move, checked arithmetic, sizes of parts, errors,
 * allocation, and the handle itself. */
static inline uint32_t bitstack_load16_(const void *from) {
    const unsigned char *b = (const unsigned char *)from;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8;
}
static inline uint32_t bitstack_load32_(const void *from) {
    const unsigned char *b = (const unsigned char *)from;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}
static inline uint64_t bitstack_load64_(const void *from) {
    const unsigned char *b = (const unsigned char *)from;
    return (uint64_t)bitstack_load32_(b) | (uint64_t)bitstack_load32_(b + 4) << 32;
}
static inline float bitstack_float_from_bits_(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline uint32_t bitstack_bits_from_float_(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
static inline float bitstack_load_f32_(const void *from) { return bitstack_float_from_bits_(bitstack_load32_(from)); }

/* *out = a * b, or 0 returned on overflow. */
static inline int bitstack_mul_(uint64_t a, uint64_t b, uint64_t *out) {
    if (a && b > UINT64_MAX / a) return 0;
    *out = a * b;
    return 1;
}
static inline uint64_t bitstack_pad_(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

static inline uint64_t bitstack_groups_(const bitstack_shape *shape) {
    return shape->group_cols ? ((uint64_t)shape->cols + shape->group_cols - 1) / shape->group_cols : 1;
}
static inline uint64_t bitstack_factor_size_(bitstack_type type) { return type == BITSTACK_F16 ? 2 : 4; }

/* Encoding TABLES: rows of a tile, columns and bytes of a chunk of it; where things stand in a column part. */
#define BITSTACK_LANES_ 16u
#define BITSTACK_CHUNK_ 32u
#define BITSTACK_CHUNK_BYTES_ 64u
#define BITSTACK_TABLE_LEVELS_ 8u
#define BITSTACK_TABLE_AT_ 16u
#define BITSTACK_SCALES_AT_(level) (BITSTACK_TABLE_AT_ + (2u << (level)))

/* The value of a code of one byte, three bits of exponent and five of mantissa: 0, or (1 + (code % 32) / 32) * 2^(code / 32 - 7). */
static inline float bitstack_small_value_(unsigned code) {
    return code ? bitstack_float_from_bits_(((uint32_t)code << 18) + (120u << 23)) : 0.0f;
}

/* The three parts of a block. A part of block `block` is live at level `level` when the product there
 * uses it; carried says whether the file has it at all. Sizes stay below 2^63: rows, cols <= 2^30,
 * rank <= 2^10, levels <= 2^5, groups <= 2^24 / 2^6. */
enum { BITSTACK_COLUMN_PART_, BITSTACK_COEFFICIENT_PART_, BITSTACK_PLANE_PART_, BITSTACK_PARTS_ };

/* Encoding TABLES: bytes of a plane's tiles. */
static inline uint64_t bitstack_tiles_bytes_(const bitstack_shape *shape) {
    const uint64_t tiles = ((uint64_t)shape->rows + BITSTACK_LANES_ - 1) / BITSTACK_LANES_;
    const uint64_t chunks = ((uint64_t)shape->cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_;
    return tiles * chunks * BITSTACK_CHUNK_BYTES_;
}

static inline uint64_t bitstack_part_bytes_(const bitstack_shape *shape, uint32_t block, int part) {
    uint64_t bytes, planes = shape->coefficients == BITSTACK_COEFFICIENTS_ALL ? block : 1;
    if (shape->encoding == BITSTACK_TABLES) {
        const uint64_t tiles = ((uint64_t)shape->rows + BITSTACK_LANES_ - 1) / BITSTACK_LANES_;
        if (block > BITSTACK_TABLE_LEVELS_) return 0;
        bytes = part == BITSTACK_PLANE_PART_ ? bitstack_tiles_bytes_(shape) + (block == 1 ? (uint64_t)shape->kept * (8 + (uint64_t)shape->rows) : 0)
              : part == BITSTACK_COLUMN_PART_ ? BITSTACK_SCALES_AT_(block) + (uint64_t)shape->cols
                                              : tiles * BITSTACK_LANES_ * bitstack_groups_(shape);
    } else if (part == BITSTACK_PLANE_PART_) bytes = bitstack_plane_bytes(shape->rows, shape->cols);
    else if (part == BITSTACK_COLUMN_PART_) {
        if (shape->columns == BITSTACK_COLUMNS_FIRST && block != 1) return 0;
        bytes = (uint64_t)shape->rank * shape->cols * bitstack_factor_size_(shape->factor_type);
    } else {
        if (!bitstack_mul_((uint64_t)shape->rank * shape->rows * bitstack_factor_size_(shape->factor_type),
                           planes * bitstack_groups_(shape), &bytes) || bytes > UINT64_MAX / 8)
            return 0; /* such a shape cannot stand in any file: see bitstack_block_bytes */
    }
    return bitstack_pad_(bytes, BITSTACK_ALIGN_);
}
static inline int bitstack_part_live_(const bitstack_shape *shape, uint32_t block, int part, uint32_t level) {
    if (block > level) return 0;
    if (part == BITSTACK_COLUMN_PART_)
        return shape->columns == BITSTACK_COLUMNS_OWN ? 1
             : shape->columns == BITSTACK_COLUMNS_FIRST ? block == 1 : block == level;
    if (part == BITSTACK_COEFFICIENT_PART_)
        return shape->coefficients == BITSTACK_COEFFICIENTS_OWN || block == level;
    return 1;
}

/* Bytes from one plane's coefficients to the next one's in a part that has those of all. */
static inline size_t bitstack_coefficient_step_(const bitstack_shape *shape) {
    if (shape->encoding == BITSTACK_TABLES) return 0; /* one scale serves all planes */
    return (size_t)(bitstack_groups_(shape) * shape->rank * shape->rows * bitstack_factor_size_(shape->factor_type));
}

/* Fills *error and returns the code. A '%' in `text` stands for the name (at most 64 bytes of it, what is
 * not printable ASCII as '?'). No printf, so that firmware does not pull it in. */
static inline bitstack_result bitstack_fail_(bitstack_error *error, bitstack_result code, uint64_t offset,
                                      const char *text, const char *name, size_t name_bytes) {
    size_t used = 0, i;
    if (!error) return code;
    error->code = code;
    error->byte_offset = offset;
    for (; *text && used + 1 < sizeof error->message; text++) {
        if (*text != '%') {
            error->message[used++] = *text;
            continue;
        }
        for (i = 0; i < name_bytes && i < 64 && used + 1 < sizeof error->message; i++)
            error->message[used++] = name[i] >= 32 && name[i] < 127 ? name[i] : '?';
    }
    error->message[used] = 0;
    return code;
}
static inline uint64_t bitstack_meta_size_(uint32_t type) {
    static const unsigned char sizes[] = {0, 1, 4, 4, 4, 8, 8, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}
static inline int bitstack_tensor_type_ok_(uint32_t type) { return type >= BITSTACK_F32 && type <= BITSTACK_Q8_0; }
/* Bytes of a tensor of shape[0..dimensions-1]. 0: rows of its last dimension are not whole blocks, or it is too large to tell. */
static inline int bitstack_tensor_bytes_(uint32_t type, uint32_t dimensions, const uint64_t *shape, uint64_t *bytes) {
    const uint64_t size = type == BITSTACK_F32 ? 4 : type == BITSTACK_F16 || type == BITSTACK_BF16 ? 2 : type == BITSTACK_BYTES ? 1 : 34;
    const uint64_t block = type == BITSTACK_Q8_0 ? 32 : 1;
    uint32_t d;
    if ((dimensions ? shape[dimensions - 1] : 1) % block) return 0;
    for (d = 0, *bytes = size; d < dimensions; d++)
        if (!bitstack_mul_(*bytes, d + 1 < dimensions ? shape[d] : shape[d] / block, bytes)) return 0;
    return 1;
}
#ifndef BITSTACK_NO_MALLOC
static inline void *bitstack_default_allocate_(void *user, size_t bytes) {
    (void)user;
    return BITSTACK_MALLOC(bytes);
}
static inline void bitstack_default_release_(void *user, void *pointer, size_t bytes) {
    (void)user, (void)bytes;
    BITSTACK_FREE(pointer);
}
#endif
/* Fills in the default; 0 if there is none. */
static inline int bitstack_allocator_(bitstack_allocator *allocator) {
    if (allocator->allocate && allocator->release) return 1;
#ifndef BITSTACK_NO_MALLOC
    if (!allocator->allocate && !allocator->release) {
        allocator->allocate = bitstack_default_allocate_;
        allocator->release = bitstack_default_release_;
        return 1;
    }
#endif
    return 0;
}

/* One matrix in the handle. Its blocks' places and planes are consecutive in the handle's arrays. The planes
 * exist twice: one set is in use while the other is prepared for the next level. */
typedef struct bitstack_state_ {
    bitstack_shape shape;
    uint32_t shown;  /* 2 * level + which set of planes: what readers load, atomically */
    uint32_t level;  /* loaded */
    uint32_t target; /* what the last budget asks for */
    uint32_t first;  /* index of its level 1 in places, planes */
} bitstack_state_;

/* One block, by matrix and level: where it is, and what of it is in memory. */
typedef struct bitstack_slot_ {
    uint64_t offset;
    uint32_t record;                   /* index in universal order */
    unsigned char *raw[BITSTACK_PARTS_]; /* allocations, or NULL; in place: not NULL where the part is verified */
} bitstack_slot_;

struct bitstack {
    bitstack_allocator allocator;
    bitstack_precision precision;
    bitstack_parallel parallel;
    int skip_checksums;
    const unsigned char *memory; /* the whole stack, or NULL if it is read */
    bitstack_read_at read;
    void *read_user;
#ifndef BITSTACK_NO_STDIO
    FILE *file;
#endif
    uint64_t bytes, base, complete, tables;
    const unsigned char *head;    /* header, tables and resident tensors: `base` bytes */
    unsigned char *head_raw;      /* its allocation, or NULL */
    const unsigned char *tensor_records, *matrix_records, *block_records, *names;
    uint32_t metas, tensors, matrices, blocks, available, loaded;
    uint64_t *meta_offsets;    /* [metas] */
    uint64_t *resident_after;  /* [blocks] */
    bitstack_state_ *states;   /* [matrices] */
    bitstack_slot_ *places;     /* [blocks], by matrix and level */
    bitstack_plane *planes;    /* [2 * blocks], likewise, both sets one after the other */
    uint32_t *readers;         /* see bitstack_enter_ */
    uint64_t resident;
};

static inline const char *bitstack_name_(const bitstack *stack, const unsigned char *record, size_t *bytes) {
    *bytes = bitstack_load32_(record + 4);
    return (const char *)stack->names + bitstack_load32_(record);
}

#ifndef BITSTACK_NO_STDIO
/* Files beyond 2 GiB where long has 32 bits, whatever feature macros there are: glibc's own functions, declared here
 * in case <stdio.h> does not, or steps that a long can hold. */
#if defined(_WIN32)
#define BITSTACK_PATH_ 4096 /* units of a path, at most */
/* Paths are UTF-8 on Windows, too, and may be long. 0: it is neither that nor of a length that a file can have. */
static inline int bitstack_wide_path_(wchar_t *to, const char *path) {
    const unsigned char *at = (const unsigned char *)path;
    size_t used = 0;
    while (*at) {
        uint32_t point = *at, more = point < 0x80 ? 0 : point < 0xC2 ? 4 : point < 0xE0 ? 1 : point < 0xF0 ? 2 : point < 0xF5 ? 3 : 4, i;
        if (more == 4) return 0;
        point &= more ? 0x3Fu >> more : 0x7Fu;
        for (i = 0, at++; i < more; i++, at++) {
            if ((*at & 0xC0) != 0x80) return 0;
            point = point << 6 | (*at & 0x3Fu);
        }
        if (used + 3 > BITSTACK_PATH_ || (point >= 0xD800 && point < 0xE000) || point > 0x10FFFF) return 0;
        if (point >= 0x10000) to[used++] = (wchar_t)(0xD7C0 + (point >> 10)), point = 0xDC00 + (point & 0x3FF);
        to[used++] = (wchar_t)point;
    }
    to[used] = 0;
    if (used >= 240 && wcsncmp(to, L"\\\\", 2) != 0) { /* beyond the classic limit only the whole path will do, and no '/' */
        wchar_t whole[BITSTACK_PATH_];
        size_t length;
        if (!_wfullpath(whole, to, BITSTACK_PATH_) || (length = wcslen(whole)) + 5 > BITSTACK_PATH_) return 0;
        memcpy(to, L"\\\\?\\", 4 * sizeof *to), memcpy(to + 4, whole, (length + 1) * sizeof *to);
    }
    return 1;
}
static inline FILE *bitstack_fopen_(const char *path, const char *mode) {
    wchar_t wide[BITSTACK_PATH_], how[8] = {0};
    size_t i;
    for (i = 0; mode[i] && i < 7; i++) how[i] = (wchar_t)(unsigned char)mode[i];
    return bitstack_wide_path_(wide, path) ? _wfopen(wide, how) : (errno = EINVAL, (FILE *)NULL);
}
#define BITSTACK_FOPEN_ bitstack_fopen_
static inline int bitstack_seek_(FILE *file, uint64_t offset) {
    return offset > INT64_MAX || _fseeki64(file, (int64_t)offset, SEEK_SET);
}
static inline int bitstack_file_size_(FILE *file, uint64_t *bytes) {
    const int64_t end = _fseeki64(file, 0, SEEK_END) ? -1 : _ftelli64(file);
    *bytes = (uint64_t)end;
    return end < 0;
}
#elif defined(__GLIBC__) && LONG_MAX == 0x7FFFFFFF
#ifdef __cplusplus
extern "C" {
#endif
extern FILE *fopen64(const char *path, const char *mode);
extern int fseeko64(FILE *file, __off64_t offset, int whence);
extern __off64_t ftello64(FILE *file);
#ifdef __cplusplus
}
#endif
#define BITSTACK_FOPEN_ fopen64
static inline int bitstack_seek_(FILE *file, uint64_t offset) {
    return offset > INT64_MAX || fseeko64(file, (__off64_t)offset, SEEK_SET);
}
static inline int bitstack_file_size_(FILE *file, uint64_t *bytes) {
    const int64_t end = fseeko64(file, 0, SEEK_END) ? -1 : ftello64(file);
    *bytes = (uint64_t)end;
    return end < 0;
}
#else
#ifndef BITSTACK_STEP_ /* smaller in tests */
#define BITSTACK_STEP_ LONG_MAX
#endif
#define BITSTACK_FOPEN_ fopen
static inline int bitstack_seek_(FILE *file, uint64_t offset) {
    const uint64_t first = offset < (uint64_t)BITSTACK_STEP_ ? offset : (uint64_t)BITSTACK_STEP_;
    if (offset > INT64_MAX || fseek(file, (long)first, SEEK_SET)) return 1;
    for (offset -= first; offset; ) {
        const uint64_t next = offset < (uint64_t)BITSTACK_STEP_ ? offset : (uint64_t)BITSTACK_STEP_;
        if (fseek(file, (long)next, SEEK_CUR)) return 1;
        offset -= next;
    }
    return 0;
}
/* What ftell cannot tell is found by reading: there is a byte at the last offset, and none after it. */
static inline int bitstack_file_size_(FILE *file, uint64_t *bytes) {
    const long end = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    uint64_t low = 0, step;
    if (end >= 0 && end < BITSTACK_STEP_) return *bytes = (uint64_t)end, 0;
    if (fseek(file, 0, SEEK_SET) || fgetc(file) == EOF) return 1; /* no file that can be read: a folder, a device */
    /* Never far beyond the end, as a seek takes steps in proportion. */
    for (step = 1; step < (uint64_t)1 << 62 && !bitstack_seek_(file, step) && fgetc(file) != EOF; step <<= 1)
        low = step;
    for (step = low >> 1; step; step >>= 1)
        if (!bitstack_seek_(file, low + step) && fgetc(file) != EOF) low += step;
    *bytes = low + 1;
    return 0;
}
#endif
/* Adds why, as the system told it, to a message. */
static inline bitstack_result bitstack_reason_(bitstack_error *error, bitstack_result result, int reason) {
    const char *text = reason ? strerror(reason) : NULL;
    size_t used, i;
    if (!error || !text) return result;
    used = strlen(error->message);
    for (i = 0; i < 2 && used + 1 < sizeof error->message; i++) error->message[used++] = ": "[i];
    for (i = 0; text[i] && used + 1 < sizeof error->message; i++) error->message[used++] = text[i];
    error->message[used] = 0;
    return result;
}
#endif

#endif /* BITSTACK_INTERNAL_ */

#if defined(BITSTACK_IMPLEMENTATION) && !defined(BITSTACK_IMPLEMENTED_)
#define BITSTACK_IMPLEMENTED_

/* =================================================================================== [BYTES]
 * Half floats and the sizes that a shape fixes. */
/* Subnormal halves become normal floats by a subtraction that is exact; everything else is shifts. */
BITSTACK_API float bitstack_f16_to_f32(uint16_t value) {
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16, rest = value & 0x7FFFu;
    if (rest >= 0x7C00u) return bitstack_float_from_bits_(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
    if (rest >= 0x0400u) return bitstack_float_from_bits_(sign | ((rest << 13) + 0x38000000u));
    return bitstack_float_from_bits_(sign |
        bitstack_bits_from_float_(bitstack_float_from_bits_(0x38800000u | rest << 13) -
                                  bitstack_float_from_bits_(0x38800000u)));
}

BITSTACK_API uint16_t bitstack_f32_to_f16(float value) {
    uint32_t bits = bitstack_bits_from_float_(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
    if (rest > 0x7F800000u) return (uint16_t)(sign | 0x7E00u); /* NaN */
    if (rest >= 0x47800000u) return (uint16_t)(sign | 0x7C00u); /* 65536 and more */
    if (rest < 0x38800000u) {                                   /* subnormal half, or zero */
        uint32_t shift = 126u - (rest >> 23), mantissa = (rest & 0x7FFFFFu) | 0x800000u, half, left;
        if (shift > 24u) return (uint16_t)sign;
        half = mantissa >> shift, left = mantissa & ((1u << shift) - 1u);
        if (left > 1u << (shift - 1u) || (left == 1u << (shift - 1u) && (half & 1u))) half++;
        return (uint16_t)(sign | half);
    }
    rest += 0xFFFu + (rest >> 13 & 1u); /* to nearest even; may carry into the exponent, up to infinity */
    return (uint16_t)(sign | ((rest - 0x38000000u) >> 13));
}

/* A power of two that is a normal float. */
static int bitstack_power_of_two_(float value) {
    uint32_t bits = bitstack_bits_from_float_(value), exponent = bits >> 23;
    return (bits & 0x7FFFFFu) == 0 && exponent >= 1 && exponent <= 254;
}

/* What a matrix of encoding TABLES has in the fields that say more about the other one. */
static int bitstack_tables_only_(uint32_t rank, unsigned columns, unsigned coefficients, unsigned factor_type) {
    return rank == 1 && columns == BITSTACK_COLUMNS_EVERY && coefficients == BITSTACK_COEFFICIENTS_ALL && factor_type == 0;
}
static int bitstack_table_groups_(uint32_t group_cols) { return group_cols >= 32 && group_cols <= 1024 && group_cols % 32 == 0; }

BITSTACK_API int bitstack_shape_valid(const bitstack_shape *shape) {
    if (shape->rows < 1 || shape->rows > 1u << 30 || shape->cols < 1 || shape->cols > 1u << 30 || !bitstack_power_of_two_(shape->scale)) return 0;
    if (shape->encoding == BITSTACK_TABLES)
        return shape->levels <= BITSTACK_TABLE_LEVELS_ && bitstack_table_groups_(shape->group_cols) && shape->kept <= shape->cols && shape->kept <= 255 &&
               bitstack_tables_only_(shape->rank, (unsigned)shape->columns, (unsigned)shape->coefficients, (unsigned)shape->factor_type);
    return ((int)shape->encoding == 0 || shape->encoding == BITSTACK_PLANES) && shape->kept == 0 &&
           shape->levels <= BITSTACK_MAX_LEVELS && shape->rank >= 1 && shape->rank <= 1024 &&
           shape->group_cols % 64 == 0 && shape->group_cols <= 1u << 30 &&
           shape->columns >= BITSTACK_COLUMNS_OWN && shape->columns <= BITSTACK_COLUMNS_EVERY &&
           shape->coefficients >= BITSTACK_COEFFICIENTS_OWN &&
           shape->coefficients <= BITSTACK_COEFFICIENTS_ALL &&
           (shape->factor_type == BITSTACK_F32 || shape->factor_type == BITSTACK_F16);
}

BITSTACK_API uint64_t bitstack_plane_bytes(uint32_t rows, uint32_t cols) {
    return bitstack_pad_(((uint64_t)rows + 63) / 64 * (((uint64_t)cols + 3) / 4) * 32, BITSTACK_ALIGN_); /* below 2^57 */
}
BITSTACK_API uint64_t bitstack_plane_part_bytes(const bitstack_shape *shape) {
    return bitstack_shape_valid(shape) ? bitstack_part_bytes_(shape, 1, BITSTACK_PLANE_PART_) : 0;
}
BITSTACK_API uint64_t bitstack_column_bytes(const bitstack_shape *shape, uint32_t level) {
    if (!bitstack_shape_valid(shape) || level < 1 || level > BITSTACK_MAX_LEVELS) return 0;
    return bitstack_part_bytes_(shape, level, BITSTACK_COLUMN_PART_);
}
BITSTACK_API uint64_t bitstack_coefficient_bytes(const bitstack_shape *shape, uint32_t level) {
    if (!bitstack_shape_valid(shape) || level < 1 || level > BITSTACK_MAX_LEVELS) return 0;
    return bitstack_part_bytes_(shape, level, BITSTACK_COEFFICIENT_PART_);
}
BITSTACK_API uint64_t bitstack_block_bytes(const bitstack_shape *shape, uint32_t level) {
    uint64_t column, coefficient = bitstack_coefficient_bytes(shape, level);
    if (coefficient == 0) return 0; /* invalid or overflowing */
    column = bitstack_part_bytes_(shape, level, BITSTACK_COLUMN_PART_);
    return column + coefficient + bitstack_plane_part_bytes(shape);
}
BITSTACK_API uint64_t bitstack_live_bytes(const bitstack_shape *shape, uint32_t level) {
    uint64_t bytes = 0;
    uint32_t block;
    int part;
    if (!bitstack_shape_valid(shape) || level > BITSTACK_MAX_LEVELS) return 0;
    for (block = 1; block <= level; block++) {
        const uint64_t whole = bitstack_block_bytes(shape, block);
        if (whole == 0 || bytes > UINT64_MAX - whole) return 0;
        for (part = 0; part < BITSTACK_PARTS_; part++)
            if (bitstack_part_live_(shape, block, part, level)) bytes += bitstack_part_bytes_(shape, block, part);
    }
    return bytes;
}

/* ================================================================================ [CHECKSUM]
 * XXH64 as specified by Yann Collet (xxHash, doc/xxhash_spec.md), seed 0, one shot. */
#define BITSTACK_XXH_1_ 0x9E3779B185EBCA87u
#define BITSTACK_XXH_2_ 0xC2B2AE3D27D4EB4Fu
#define BITSTACK_XXH_3_ 0x165667B19E3779F9u
#define BITSTACK_XXH_4_ 0x85EBCA77C2B2AE63u
#define BITSTACK_XXH_5_ 0x27D4EB2F165667C5u
static uint64_t bitstack_rotate_(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }
static uint64_t bitstack_xxh_round_(uint64_t lane, uint64_t input) {
    return bitstack_rotate_(lane + input * BITSTACK_XXH_2_, 31) * BITSTACK_XXH_1_;
}
BITSTACK_API uint64_t bitstack_checksum(const void *data, size_t bytes) {
    const unsigned char *p = (const unsigned char *)data;
    size_t left = bytes;
    uint64_t hash;
    if (bytes >= 32) {
        uint64_t lane[4];
        int i;
        lane[0] = BITSTACK_XXH_1_ + BITSTACK_XXH_2_, lane[1] = BITSTACK_XXH_2_, lane[2] = 0;
        lane[3] = 0 - BITSTACK_XXH_1_;
        for (; left >= 32; p += 32, left -= 32)
            for (i = 0; i < 4; i++) lane[i] = bitstack_xxh_round_(lane[i], bitstack_load64_(p + 8 * i));
        hash = bitstack_rotate_(lane[0], 1) + bitstack_rotate_(lane[1], 7) + bitstack_rotate_(lane[2], 12) +
               bitstack_rotate_(lane[3], 18);
        for (i = 0; i < 4; i++)
            hash = (hash ^ bitstack_xxh_round_(0, lane[i])) * BITSTACK_XXH_1_ + BITSTACK_XXH_4_;
    } else hash = BITSTACK_XXH_5_;
    hash += (uint64_t)bytes;
    for (; left >= 8; p += 8, left -= 8)
        hash = bitstack_rotate_(hash ^ bitstack_xxh_round_(0, bitstack_load64_(p)), 27) * BITSTACK_XXH_1_ +
               BITSTACK_XXH_4_;
    if (left >= 4) {
        hash = bitstack_rotate_(hash ^ bitstack_load32_(p) * BITSTACK_XXH_1_, 23) * BITSTACK_XXH_2_ +
               BITSTACK_XXH_3_;
        p += 4, left -= 4;
    }
    for (; left; p++, left--) hash = bitstack_rotate_(hash ^ *p * BITSTACK_XXH_5_, 11) * BITSTACK_XXH_1_;
    hash = (hash ^ hash >> 33) * BITSTACK_XXH_2_;
    hash = (hash ^ hash >> 29) * BITSTACK_XXH_3_;
    return hash ^ hash >> 32;
}

/* ================================================================================== [ERRORS] */
BITSTACK_API int bitstack_version(void) { return BITSTACK_VERSION_NUMBER; }

BITSTACK_API const char *bitstack_result_string(bitstack_result result) {
    static const char *const strings[] = {
#define BITSTACK_RESULT_STRING_(name, text) text,
        BITSTACK_RESULTS(BITSTACK_RESULT_STRING_)
#undef BITSTACK_RESULT_STRING_
    };
    return (unsigned)result < (unsigned)BITSTACK_RESULT_COUNT_ ? strings[(unsigned)result] : "unknown result";
}

static bitstack_result bitstack_bad_(bitstack_error *error, uint64_t offset, const char *text) {
    return bitstack_fail_(error, BITSTACK_ERROR_FORMAT, offset, text, NULL, 0);
}

/* ================================================================================== [READER]
 * Opening reads header and tables, checks every number against the bytes that are there, and only then
 * builds the handle's own small arrays. Nothing later trusts a value that was not checked here. */

/* The handle and its arrays are one allocation. Points the arrays of `stack`, whose counts are known, into
 * `memory` and returns the size of it all; with NULL only the size. */
static uint64_t bitstack_lay_out_(bitstack *stack, unsigned char *memory) {
    uint64_t at = bitstack_pad_(sizeof *stack, 16);
#define BITSTACK_LAY_OUT_(array, type, count)                  \
    stack->array = memory ? (type *)(void *)(memory + at) : NULL; \
    at = bitstack_pad_(at + (uint64_t)(count) * sizeof(type), 16) /* counts are below 2^32 */
    BITSTACK_LAY_OUT_(meta_offsets, uint64_t, stack->metas);
    BITSTACK_LAY_OUT_(resident_after, uint64_t, stack->blocks);
    BITSTACK_LAY_OUT_(states, bitstack_state_, stack->matrices);
    BITSTACK_LAY_OUT_(places, bitstack_slot_, stack->blocks);
    BITSTACK_LAY_OUT_(planes, bitstack_plane, 2 * (uint64_t)stack->blocks);
    BITSTACK_LAY_OUT_(readers, uint32_t, BITSTACK_READER_WORDS_);
#undef BITSTACK_LAY_OUT_
    return at;
}
static unsigned char *bitstack_aligned_(unsigned char *raw) {
    return raw + (BITSTACK_ALIGN_ - (uintptr_t)raw % BITSTACK_ALIGN_) % BITSTACK_ALIGN_;
}
/* Room for `bytes` bytes aligned to 64; not zeroed. */
static unsigned char *bitstack_take_aligned_(const bitstack *stack, uint64_t bytes) {
    if (bytes > SIZE_MAX - BITSTACK_ALIGN_) return NULL;
    return (unsigned char *)stack->allocator.allocate(stack->allocator.user, (size_t)bytes + BITSTACK_ALIGN_ - 1);
}
static void bitstack_give_aligned_(const bitstack *stack, unsigned char *raw, uint64_t bytes) {
    if (raw) stack->allocator.release(stack->allocator.user, raw, (size_t)bytes + BITSTACK_ALIGN_ - 1);
}

static int bitstack_zero_(const unsigned char *p, size_t bytes) {
    while (bytes--)
        if (*p++) return 0;
    return 1;
}

/* A name's place, checked against the pool. *room is what other names leave of it: if records could share a
 * name, whoever copies them would make of a small file a large one. */
static int bitstack_name_ok_(const unsigned char *record, uint64_t names_bytes, uint64_t *room) {
    uint64_t offset = bitstack_load32_(record), bytes = bitstack_load32_(record + 4);
    if (bytes < 1 || offset > names_bytes || bytes > names_bytes - offset || bytes > *room) return 0;
    *room -= bytes;
    return 1;
}
static bitstack_result bitstack_check_header_(bitstack *stack, const unsigned char *h, bitstack_error *error) {
    uint64_t left;
    if (memcmp(h, "BITSTACK", 8) != 0) return bitstack_bad_(error, 0, "not a stack: the magic bytes are not BITSTACK");
    if (bitstack_load32_(h + 8) != BITSTACK_FORMAT_VERSION)
        return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, 8, "the format version is not 1", NULL, 0);
    if (bitstack_checksum(h, 120) != bitstack_load64_(h + 120))
        return bitstack_fail_(error, BITSTACK_ERROR_CHECKSUM, 120, "the header's checksum does not match", NULL, 0);
    if (bitstack_load32_(h + 12) != BITSTACK_HEADER_BYTES_) return bitstack_bad_(error, 12, "the header size is not 128");
    if (!bitstack_zero_(h + 72, 48))
        return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, 72, "reserved header bytes are not zero", NULL, 0);
    stack->tables = bitstack_load64_(h + 16);
    stack->base = bitstack_load64_(h + 24);
    stack->complete = bitstack_load64_(h + 32);
    stack->metas = bitstack_load32_(h + 40);
    stack->tensors = bitstack_load32_(h + 44);
    stack->matrices = bitstack_load32_(h + 48);
    stack->blocks = bitstack_load32_(h + 52);
    if (stack->base % BITSTACK_ALIGN_ || stack->base < BITSTACK_HEADER_BYTES_) return bitstack_bad_(error, 24, "base bytes are not a multiple of 64 of at least 128");
    if (stack->tables % 8 || stack->tables > stack->base - BITSTACK_HEADER_BYTES_) return bitstack_bad_(error, 16, "the tables do not fit before the first block");
    if (stack->complete < stack->base) return bitstack_bad_(error, 32, "the complete size is smaller than the base");
    if (stack->bytes < stack->base)
        return bitstack_fail_(error, BITSTACK_ERROR_TRUNCATED, stack->bytes, "the stack ends before its resident part does", NULL, 0);
    if (stack->base > SIZE_MAX - BITSTACK_ALIGN_)
        return bitstack_fail_(error, BITSTACK_ERROR_MEMORY, 24, "the resident part is larger than the address space", NULL, 0);
    if (stack->metas > INT32_MAX || stack->tensors > INT32_MAX || stack->matrices > INT32_MAX || stack->blocks > INT32_MAX)
        return bitstack_bad_(error, 40, "a count is above 2^31 - 1");
    /* Four counts below 2^31 times less than 2^7 cannot overflow. */
    left = stack->tables;
#define BITSTACK_FITS_(count, size, offset)                                                                       \
    if ((uint64_t)(count) * (size) > left) return bitstack_bad_(error, offset, "the tables are too small for a count"); \
    left -= (uint64_t)(count) * (size)
    BITSTACK_FITS_(stack->tensors, BITSTACK_TENSOR_RECORD_, 44);
    BITSTACK_FITS_(stack->matrices, BITSTACK_MATRIX_RECORD_, 48);
    BITSTACK_FITS_(stack->blocks, BITSTACK_BLOCK_RECORD_, 52);
    if (bitstack_load64_(h + 56) % 8 || bitstack_load64_(h + 56) > left) return bitstack_bad_(error, 56, "the tables are too small for the names");
    left -= bitstack_load64_(h + 56);
    BITSTACK_FITS_(stack->metas, BITSTACK_LEAST_META_, 40);
#undef BITSTACK_FITS_
    return BITSTACK_OK;
}

/* Walks metadata; *end is where it must stop (the first tensor record). */
static bitstack_result bitstack_check_meta_(bitstack *stack, uint64_t end, bitstack_error *error) {
    uint64_t at = BITSTACK_HEADER_BYTES_, i, s;
    for (i = 0; i < stack->metas; i++) {
        const unsigned char *entry = stack->head + at, *value;
        uint64_t key_bytes, count, bytes, expected, size;
        uint32_t type, flags;
        stack->meta_offsets[i] = at;
        if (end - at < BITSTACK_LEAST_META_) return bitstack_bad_(error, at, "metadata runs beyond its table");
        key_bytes = bitstack_load32_(entry), type = bitstack_load16_(entry + 4), flags = bitstack_load16_(entry + 6);
        count = bitstack_load64_(entry + 8), bytes = bitstack_load64_(entry + 16);
        if (key_bytes < 1 || key_bytes > 65535) return bitstack_bad_(error, at, "a metadata key's length is not 1 to 65535");
        at += BITSTACK_LEAST_META_;
        if (bitstack_pad_(key_bytes, 8) > end - at) return bitstack_bad_(error, at, "a metadata key runs beyond its table");
        if (flags & ~1u) return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, at - 18, "metadata '%' has unknown flags", (const char *)stack->head + at, (size_t)key_bytes);
        if (flags & 1u) /* version 1 has no mandatory entries, so every one is unknown */
            return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, at, "needs a reader that knows '%'", (const char *)stack->head + at, (size_t)key_bytes);
        at += bitstack_pad_(key_bytes, 8);
        if (bytes > end - at || bitstack_pad_(bytes, 8) > end - at) return bitstack_bad_(error, at, "a metadata value runs beyond its table");
        value = stack->head + at;
        at += bitstack_pad_(bytes, 8);
        size = bitstack_meta_size_(type);
        if (size && (!bitstack_mul_(count, size, &expected) || expected != bytes)) return bitstack_bad_(error, stack->meta_offsets[i] + 16, "a metadata value's size does not match its count");
        if (type != BITSTACK_META_STRING) continue;
        for (s = 0, expected = 0; s < count; s++) {
            uint64_t length;
            if (bytes - expected < 4) return bitstack_bad_(error, stack->meta_offsets[i], "a metadata string is cut short");
            length = bitstack_load32_(value + expected);
            if (length > bytes - expected - 4) return bitstack_bad_(error, stack->meta_offsets[i], "a metadata string is cut short");
            expected += 4 + length;
        }
        if (expected != bytes) return bitstack_bad_(error, stack->meta_offsets[i], "metadata strings do not fill their value");
    }
    if (at != end) return bitstack_bad_(error, at, "metadata does not end where the records begin");
    return BITSTACK_OK;
}

/* Records of tensors: in file order, without gaps, each inside the resident part. */
static bitstack_result bitstack_check_tensors_(bitstack *stack, uint64_t names_bytes, uint64_t *room, bitstack_error *error) {
    uint64_t at = bitstack_pad_(BITSTACK_HEADER_BYTES_ + stack->tables, BITSTACK_ALIGN_);
    uint32_t i, d;
    if (at > stack->base) return bitstack_bad_(error, 24, "the resident part starts beyond the base");
    for (i = 0; i < stack->tensors; i++) {
        const unsigned char *r = stack->tensor_records + (size_t)i * BITSTACK_TENSOR_RECORD_;
        const uint32_t type = bitstack_load32_(r + 8), dimensions = bitstack_load32_(r + 12);
        uint64_t where = (uint64_t)(r - stack->head), shape[4], bytes;
        if (!bitstack_name_ok_(r, names_bytes, room)) return bitstack_bad_(error, where, "a tensor's name is outside the names or shares them");
        if (!bitstack_tensor_type_ok_(type)) return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, where + 8, "the type of tensor '%' is unknown", (const char *)stack->names + bitstack_load32_(r), bitstack_load32_(r + 4));
        if (dimensions > 4) return bitstack_bad_(error, where + 12, "a tensor has more than 4 dimensions");
        for (d = 0; d < 4; d++) {
            shape[d] = bitstack_load64_(r + 16 + 8 * d);
            if (d >= dimensions && shape[d] != 1) return bitstack_bad_(error, where + 16 + 8 * d, "an unused tensor dimension is not 1");
        }
        if (!bitstack_tensor_bytes_(type, dimensions, shape, &bytes))
            return bitstack_bad_(error, where + 16, "a tensor's shape overflows, or its rows are not whole blocks");
        if (bytes != bitstack_load64_(r + 56)) return bitstack_bad_(error, where + 56, "a tensor's size does not match its shape");
        if (bitstack_load64_(r + 48) != at) return bitstack_bad_(error, where + 48, "a tensor is not where the one before ends");
        if (bytes > stack->base - at || bitstack_pad_(bytes, BITSTACK_ALIGN_) > stack->base - at) return bitstack_bad_(error, where + 56, "a tensor runs beyond the resident part");
        at += bitstack_pad_(bytes, BITSTACK_ALIGN_);
    }
    if (at != stack->base) return bitstack_bad_(error, 24, "the resident tensors do not fill the resident part");
    return BITSTACK_OK;
}

static bitstack_result bitstack_check_matrices_(bitstack *stack, uint64_t names_bytes, uint64_t *room, bitstack_error *error) {
    uint64_t first = 0;
    uint32_t i;
    for (i = 0; i < stack->matrices; i++) {
        const unsigned char *r = stack->matrix_records + (size_t)i * BITSTACK_MATRIX_RECORD_;
        uint64_t where = (uint64_t)(r - stack->head);
        bitstack_shape *shape = &stack->states[i].shape;
        if (!bitstack_name_ok_(r, names_bytes, room)) return bitstack_bad_(error, where, "a matrix's name is outside the names or shares them");
        if (r[31] || !bitstack_zero_(r + 48, 16) ||
            !(bitstack_load32_(r + 16) == BITSTACK_PLANES ||
              (bitstack_load32_(r + 16) == BITSTACK_TABLES && bitstack_tables_only_(bitstack_load32_(r + 24), r[28], r[29], r[30]))))
            return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, where + 16, "the encoding of matrix '%' is unknown", (const char *)stack->names + bitstack_load32_(r), bitstack_load32_(r + 4));
        shape->encoding = (bitstack_encoding)bitstack_load32_(r + 16), shape->kept = bitstack_load32_(r + 44);
        shape->rows = bitstack_load32_(r + 8), shape->cols = bitstack_load32_(r + 12);
        shape->levels = bitstack_load32_(r + 20), shape->rank = bitstack_load32_(r + 24);
        if (r[28] > BITSTACK_COLUMNS_EVERY || r[29] > BITSTACK_COEFFICIENTS_ALL || r[30] > BITSTACK_BF16) /* no such values */
            return bitstack_bad_(error, where + 28, "a matrix's shape is not valid");
        shape->columns = (bitstack_columns)r[28], shape->coefficients = (bitstack_coefficients)r[29];
        shape->factor_type = (bitstack_type)r[30];
        shape->group_cols = bitstack_load32_(r + 32);
        shape->scale = bitstack_load_f32_(r + 36);
        if (!bitstack_shape_valid(shape)) return bitstack_bad_(error, where + 8, "a matrix's shape is not valid");
        if (!(bitstack_load_f32_(r + 40) >= 0 && bitstack_load_f32_(r + 40) <= FLT_MAX)) return bitstack_bad_(error, where + 40, "a matrix's sensitivity is not a number of at least 0");
        stack->states[i].first = (uint32_t)first;
        first += shape->levels;
        if (first > stack->blocks) return bitstack_bad_(error, where + 20, "the matrices have more levels than there are blocks");
    }
    if (first != stack->blocks) return bitstack_bad_(error, 52, "the matrices' levels do not add up to the blocks");
    return BITSTACK_OK;
}

/* Blocks: levels of a matrix in turn, payloads without gaps up to the complete size. Uses state->target as
 * the count of levels seen and leaves it at 0. */
static bitstack_result bitstack_check_blocks_(bitstack *stack, bitstack_error *error) {
    uint64_t at = stack->base, resident = stack->base;
    uint32_t i;
    stack->available = stack->blocks;
    for (i = 0; i < stack->blocks; i++) {
        const unsigned char *r = stack->block_records + (size_t)i * BITSTACK_BLOCK_RECORD_;
        uint64_t where = (uint64_t)(r - stack->head), bytes;
        uint32_t matrix = bitstack_load32_(r), level = bitstack_load32_(r + 4);
        bitstack_state_ *state;
        bitstack_slot_ *slot;
        if (matrix >= stack->matrices) return bitstack_bad_(error, where, "a block names a matrix that does not exist");
        state = stack->states + matrix;
        if (level != state->target + 1 || level > state->shape.levels) return bitstack_bad_(error, where + 4, "a block's level is not the next one of its matrix");
        state->target = level;
        bytes = bitstack_block_bytes(&state->shape, level);
        if (bytes == 0 || bitstack_load64_(r + 16) != bytes) return bitstack_bad_(error, where + 16, "a block's size does not match its matrix");
        if (bitstack_load64_(r + 8) != at) return bitstack_bad_(error, where + 8, "a block is not where the one before ends");
        if (bytes > stack->complete - at) return bitstack_bad_(error, where + 16, "a block runs beyond the complete size");
        if (!bitstack_zero_(r + 56, 8)) return bitstack_fail_(error, BITSTACK_ERROR_UNSUPPORTED, where + 56, "reserved block bytes are not zero", NULL, 0);
        slot = stack->places + state->first + level - 1;
        slot->offset = at;
        slot->record = i;
        at += bytes;
        if (at > stack->bytes && i < stack->available) stack->available = i;
        resident += bitstack_live_bytes(&state->shape, level) - bitstack_live_bytes(&state->shape, level - 1);
        stack->resident_after[i] = resident;
    }
    if (at != stack->complete) return bitstack_bad_(error, 32, "the blocks do not end at the complete size");
    for (i = 0; i < stack->matrices; i++) stack->states[i].target = 0;
    return BITSTACK_OK;
}

static bitstack_result bitstack_get_(const bitstack *stack, uint64_t offset, void *to, uint64_t bytes) {
    if (bytes > SIZE_MAX || stack->read(stack->read_user, offset, to, (size_t)bytes) != 0) return BITSTACK_ERROR_IO;
    return BITSTACK_OK;
}

/* Everything between a checked header and a usable handle at level 0. */
static bitstack_result bitstack_read_head_(bitstack *stack, const unsigned char *header, bitstack_error *error) {
    uint64_t names_bytes, room, at;
    bitstack_result result;
    uint32_t i;
    if (stack->memory) stack->head = stack->memory;
    else {
        unsigned char *head;
        stack->head_raw = bitstack_take_aligned_(stack, stack->base);
        if (!stack->head_raw) return bitstack_fail_(error, BITSTACK_ERROR_MEMORY, 0, "no memory for the resident part", NULL, 0);
        stack->head = head = bitstack_aligned_(stack->head_raw);
        memcpy(head, header, BITSTACK_HEADER_BYTES_);
        if (bitstack_get_(stack, BITSTACK_HEADER_BYTES_, head + BITSTACK_HEADER_BYTES_, stack->base - BITSTACK_HEADER_BYTES_) != BITSTACK_OK)
            return bitstack_fail_(error, BITSTACK_ERROR_IO, BITSTACK_HEADER_BYTES_, "reading the resident part failed", NULL, 0);
    }
    if (bitstack_checksum(stack->head + BITSTACK_HEADER_BYTES_, (size_t)stack->tables) != bitstack_load64_(header + 64))
        return bitstack_fail_(error, BITSTACK_ERROR_CHECKSUM, 64, "the tables' checksum does not match", NULL, 0);
    names_bytes = room = bitstack_load64_(header + 56);
    at = BITSTACK_HEADER_BYTES_ + stack->tables - names_bytes;
    stack->names = stack->head + at;
    stack->block_records = stack->names - (size_t)stack->blocks * BITSTACK_BLOCK_RECORD_;
    stack->matrix_records = stack->block_records - (size_t)stack->matrices * BITSTACK_MATRIX_RECORD_;
    stack->tensor_records = stack->matrix_records - (size_t)stack->tensors * BITSTACK_TENSOR_RECORD_;
    result = bitstack_check_meta_(stack, (uint64_t)(stack->tensor_records - stack->head), error);
    if (result == BITSTACK_OK) result = bitstack_check_tensors_(stack, names_bytes, &room, error);
    if (result == BITSTACK_OK) result = bitstack_check_matrices_(stack, names_bytes, &room, error);
    if (result == BITSTACK_OK) result = bitstack_check_blocks_(stack, error);
    if (result != BITSTACK_OK) return result;
    for (i = 0; i < stack->tensors && !stack->skip_checksums; i++) {
        const unsigned char *r = stack->tensor_records + (size_t)i * BITSTACK_TENSOR_RECORD_;
        uint64_t offset = bitstack_load64_(r + 48);
        if (bitstack_checksum(stack->head + offset, (size_t)bitstack_load64_(r + 56)) != bitstack_load64_(r + 64))
            return bitstack_fail_(error, BITSTACK_ERROR_CHECKSUM, offset, "the checksum of tensor '%' does not match",
                                  (const char *)stack->names + bitstack_load32_(r), bitstack_load32_(r + 4));
    }
    stack->resident = stack->base;
    return BITSTACK_OK;
}

/* What is damaged, not what cannot be read or held. */
static int bitstack_damage_(bitstack_result result) { return result == BITSTACK_ERROR_CHECKSUM || result == BITSTACK_ERROR_FORMAT; }
static bitstack_result bitstack_open_(bitstack **out, const bitstack *source, const bitstack_options *options,
                                      bitstack_error *error) {
    bitstack start = *source, *stack;
    unsigned char header[BITSTACK_HEADER_BYTES_], *memory;
    bitstack_result result;
    uint64_t bytes;
    if (options) {
        start.allocator = options->allocator;
        start.precision = options->precision;
        start.parallel = options->parallel;
        start.skip_checksums = options->skip_checksums;
    }
    if (!bitstack_allocator_(&start.allocator))
        return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "an allocator needs both functions", NULL, 0);
    if (start.bytes < sizeof header)
        return bitstack_fail_(error, BITSTACK_ERROR_TRUNCATED, start.bytes, "the stack is shorter than its 128-byte header", NULL, 0);
    memset(header, 0, sizeof header); /* a callback may say that it read and not have */
    if (start.memory) memcpy(header, start.memory, sizeof header);
    else if (bitstack_get_(&start, 0, header, sizeof header) != BITSTACK_OK)
        return bitstack_fail_(error, BITSTACK_ERROR_IO, 0, "reading the header failed", NULL, 0);
    result = bitstack_check_header_(&start, header, error);
    if (result != BITSTACK_OK) return result;
    bytes = bitstack_lay_out_(&start, NULL);
    memory = bytes > SIZE_MAX ? NULL : (unsigned char *)start.allocator.allocate(start.allocator.user, (size_t)bytes);
    if (!memory) return bitstack_fail_(error, BITSTACK_ERROR_MEMORY, 0, "no memory for the handle", NULL, 0);
    memset(memory, 0, (size_t)bytes);
    stack = (bitstack *)(void *)memory;
    *stack = start;
    bitstack_lay_out_(stack, memory);
    result = bitstack_read_head_(stack, header, error);
    if (result == BITSTACK_OK && !(options && options->load_nothing)) {
        result = bitstack_set_budget(stack, options ? options->budget : 0, error);
        if (bitstack_damage_(result)) result = BITSTACK_OK;
    } else if (result == BITSTACK_OK && error) error->code = BITSTACK_OK;
    if (result != BITSTACK_OK) {
#ifndef BITSTACK_NO_STDIO
        stack->file = NULL; /* the caller's, still */
#endif
        bitstack_close(stack);
        return result;
    }
    *out = stack;
    return BITSTACK_OK;
}

BITSTACK_API bitstack_result bitstack_open_memory(bitstack **out, const void *data, size_t bytes,
                                                  const bitstack_options *options, bitstack_error *error) {
    bitstack source;
    if (out) *out = NULL;
    if (!out || !data) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no output or no data", NULL, 0);
    memset(&source, 0, sizeof source);
    source.memory = (const unsigned char *)data;
    source.bytes = bytes;
    return bitstack_open_(out, &source, options, error);
}

BITSTACK_API bitstack_result bitstack_open_callback(bitstack **out, bitstack_read_at read, void *user, uint64_t bytes,
                                                    const bitstack_options *options, bitstack_error *error) {
    bitstack source;
    if (out) *out = NULL;
    if (!out || !read) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no output or no callback", NULL, 0);
    memset(&source, 0, sizeof source);
    source.read = read;
    source.read_user = user;
    source.bytes = bytes;
    return bitstack_open_(out, &source, options, error);
}

#ifndef BITSTACK_NO_STDIO
static int bitstack_read_file_(void *user, uint64_t offset, void *to, size_t bytes) {
    FILE *file = (FILE *)user;
    return bitstack_seek_(file, offset) || fread(to, 1, bytes, file) != bytes;
}
BITSTACK_API bitstack_result bitstack_open_file(bitstack **out, const char *path, const bitstack_options *options,
                                                bitstack_error *error) {
    bitstack source;
    bitstack_result result;
    size_t length;
    if (out) *out = NULL;
    if (!out || !path) return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no output or no path", NULL, 0);
    memset(&source, 0, sizeof source);
    length = strlen(path);
    errno = 0;
    source.file = BITSTACK_FOPEN_(path, "rb");
    if (!source.file)
        return bitstack_reason_(error, bitstack_fail_(error, BITSTACK_ERROR_IO, 0, "cannot open '%'", path, length), errno);
    source.read = bitstack_read_file_;
    source.read_user = source.file;
    if (!bitstack_file_size_(source.file, &source.bytes)) result = bitstack_open_(out, &source, options, error);
    else {
        const int reason = errno;
        result = bitstack_fail_(error, BITSTACK_ERROR_IO, 0, "cannot tell the size of '%'", path, length);
        bitstack_reason_(error, result, reason);
    }
    if (result != BITSTACK_OK) fclose(source.file);
    return result;
}
#endif

/* --- Arena ------------------------------------------------------------------------------------
 * A list of holes in address order, each telling of itself in its first bytes. Callers of release say how
 * much they give, so what is allocated needs no header. */
typedef struct bitstack_hole_ {
    size_t bytes; /* a multiple of 16, as are all places */
    struct bitstack_hole_ *next;
} bitstack_hole_;

static void *bitstack_arena_allocate_(void *user, size_t bytes) {
    bitstack_hole_ **at, *hole;
    if (!user || bytes > SIZE_MAX - 15) return NULL;
    bytes = bytes ? (bytes + 15) / 16 * 16 : 16;
    for (at = &((bitstack_hole_ *)user)->next; (hole = *at) != NULL; at = &hole->next) {
        if (hole->bytes < bytes) continue;
        hole->bytes -= bytes; /* what is taken is the hole's end */
        if (hole->bytes == 0) *at = hole->next;
        return (unsigned char *)hole + hole->bytes;
    }
    return NULL;
}
static void bitstack_arena_release_(void *user, void *pointer, size_t bytes) {
    bitstack_hole_ *before = (bitstack_hole_ *)user, *hole = (bitstack_hole_ *)pointer;
    while (before->next && (uintptr_t)before->next < (uintptr_t)hole) before = before->next;
    hole->bytes = bytes ? (bytes + 15) / 16 * 16 : 16;
    hole->next = before->next;
    before->next = hole;
    if (hole->next && (unsigned char *)hole + hole->bytes == (unsigned char *)hole->next) {
        hole->bytes += hole->next->bytes;
        hole->next = hole->next->next;
    }
    if (before != user && (unsigned char *)before + before->bytes == (unsigned char *)hole) { /* the books are no hole */
        before->bytes += hole->bytes;
        before->next = hole->next;
    }
}

BITSTACK_API bitstack_allocator bitstack_arena(void *memory, size_t bytes) {
    size_t skip = (16 - ((uintptr_t)memory & 15)) & 15;
    bitstack_allocator allocator;
    allocator.allocate = bitstack_arena_allocate_;
    allocator.release = bitstack_arena_release_;
    allocator.user = NULL;
    if (memory && bytes >= skip + 32) {
        bitstack_hole_ *books = (bitstack_hole_ *)(void *)((unsigned char *)memory + skip), *all = books + 16 / sizeof *books;
        books->bytes = 0;
        books->next = all;
        all->bytes = (bytes - skip - 16) / 16 * 16;
        all->next = NULL;
        allocator.user = books;
    }
    return allocator;
}

BITSTACK_API size_t bitstack_arena_bytes(const void *data, size_t bytes) {
    bitstack counts;
    uint64_t handle;
    if (!data || bytes < BITSTACK_HEADER_BYTES_) return 0;
    memset(&counts, 0, sizeof counts);
    counts.bytes = UINT64_MAX;
    if (bitstack_check_header_(&counts, (const unsigned char *)data, NULL) != BITSTACK_OK) return 0;
    handle = bitstack_lay_out_(&counts, NULL);
    return handle > SIZE_MAX - 32 ? 0 : (size_t)handle + 32; /* the books and the alignment of both */
}

/* --- Asking ------------------------------------------------------------------------------------ */
BITSTACK_API uint64_t bitstack_base_bytes(const bitstack *stack) { return stack->base; }
BITSTACK_API uint64_t bitstack_resident_bytes(const bitstack *stack) { return stack->resident; }
BITSTACK_API uint64_t bitstack_total_bytes(const bitstack *stack) {
    return stack->available ? stack->resident_after[stack->available - 1] : stack->base;
}
BITSTACK_API uint64_t bitstack_file_bytes(const bitstack *stack) { return stack->bytes; }
BITSTACK_API uint64_t bitstack_complete_file_bytes(const bitstack *stack) { return stack->complete; }
BITSTACK_API int bitstack_meta_count(const bitstack *stack) { return (int)stack->metas; }
BITSTACK_API int bitstack_tensor_count(const bitstack *stack) { return (int)stack->tensors; }
BITSTACK_API int bitstack_matrix_count(const bitstack *stack) { return (int)stack->matrices; }
BITSTACK_API int bitstack_block_count(const bitstack *stack) { return (int)stack->blocks; }
BITSTACK_API int bitstack_blocks_available(const bitstack *stack) { return (int)stack->available; }
BITSTACK_API int bitstack_blocks_loaded(const bitstack *stack) { return (int)stack->loaded; }
BITSTACK_API int bitstack_blocks_missing(const bitstack *stack) {
    uint32_t i, missing = 0;
    for (i = 0; i < stack->matrices; i++)
        if (stack->states[i].level < stack->states[i].target) missing += stack->states[i].target - stack->states[i].level;
    return (int)missing;
}

BITSTACK_API bitstack_result bitstack_get_meta(const bitstack *stack, int index, bitstack_meta *out) {
    const unsigned char *entry;
    memset(out, 0, sizeof *out);
    if (index < 0 || (uint32_t)index >= stack->metas) return BITSTACK_ERROR_ARGUMENT;
    entry = stack->head + stack->meta_offsets[index];
    out->key = (const char *)entry + BITSTACK_LEAST_META_;
    out->key_bytes = bitstack_load32_(entry);
    out->type = (int)bitstack_load16_(entry + 4);
    out->mandatory = (int)(bitstack_load16_(entry + 6) & 1u);
    out->count = bitstack_load64_(entry + 8);
    out->value_bytes = bitstack_load64_(entry + 16);
    out->value = entry + BITSTACK_LEAST_META_ + bitstack_pad_(out->key_bytes, 8);
    return BITSTACK_OK;
}
BITSTACK_API bitstack_result bitstack_get_tensor(const bitstack *stack, int index, bitstack_tensor *out) {
    const unsigned char *r;
    int d;
    memset(out, 0, sizeof *out);
    if (index < 0 || (uint32_t)index >= stack->tensors) return BITSTACK_ERROR_ARGUMENT;
    r = stack->tensor_records + (size_t)index * BITSTACK_TENSOR_RECORD_;
    out->name = bitstack_name_(stack, r, &out->name_bytes);
    out->type = (bitstack_type)bitstack_load32_(r + 8);
    out->dimensions = (int)bitstack_load32_(r + 12);
    for (d = 0; d < 4; d++) out->shape[d] = bitstack_load64_(r + 16 + 8 * d);
    out->data = stack->head + bitstack_load64_(r + 48);
    out->bytes = bitstack_load64_(r + 56);
    return BITSTACK_OK;
}
BITSTACK_API bitstack_result bitstack_get_matrix(const bitstack *stack, int index, bitstack_matrix *out) {
    const unsigned char *r;
    memset(out, 0, sizeof *out);
    if (index < 0 || (uint32_t)index >= stack->matrices) return BITSTACK_ERROR_ARGUMENT;
    r = stack->matrix_records + (size_t)index * BITSTACK_MATRIX_RECORD_;
    out->name = bitstack_name_(stack, r, &out->name_bytes);
    out->shape = stack->states[index].shape;
    out->level = stack->states[index].level;
    out->resident_bytes = bitstack_live_bytes(&out->shape, out->level);
    out->sensitivity = bitstack_load_f32_(r + 40);
    return BITSTACK_OK;
}
BITSTACK_API bitstack_result bitstack_get_block(const bitstack *stack, int index, bitstack_block *out) {
    const unsigned char *r;
    memset(out, 0, sizeof *out);
    if (index < 0 || (uint32_t)index >= stack->blocks) return BITSTACK_ERROR_ARGUMENT;
    r = stack->block_records + (size_t)index * BITSTACK_BLOCK_RECORD_;
    out->matrix = bitstack_load32_(r);
    out->level = bitstack_load32_(r + 4);
    out->offset = bitstack_load64_(r + 8);
    out->bytes = bitstack_load64_(r + 16);
    out->resident_after = stack->resident_after[index];
    out->rel_err2 = bitstack_load_f32_(r + 48);
    out->score = bitstack_load_f32_(r + 52);
    return BITSTACK_OK;
}

static int bitstack_find_name_(const bitstack *stack, const unsigned char *records, uint32_t count, size_t size, const char *name) {
    size_t length = strlen(name), bytes;
    uint32_t i;
    for (i = 0; i < count; i++) {
        const char *other = bitstack_name_(stack, records + i * size, &bytes);
        if (bytes == length && memcmp(other, name, length) == 0) return (int)i;
    }
    return -1;
}
BITSTACK_API int bitstack_find_tensor(const bitstack *stack, const char *name) {
    return bitstack_find_name_(stack, stack->tensor_records, stack->tensors, BITSTACK_TENSOR_RECORD_, name);
}
BITSTACK_API int bitstack_find_matrix(const bitstack *stack, const char *name) {
    return bitstack_find_name_(stack, stack->matrix_records, stack->matrices, BITSTACK_MATRIX_RECORD_, name);
}
BITSTACK_API int bitstack_find_meta(const bitstack *stack, const char *key) {
    size_t length = strlen(key);
    uint32_t i;
    for (i = 0; i < stack->metas; i++) {
        const unsigned char *entry = stack->head + stack->meta_offsets[i];
        if (bitstack_load32_(entry) == length && memcmp(entry + BITSTACK_LEAST_META_, key, length) == 0) return (int)i;
    }
    return -1;
}

BITSTACK_API double bitstack_meta_element(const bitstack_meta *meta, uint64_t i) {
    uint64_t size = meta->type < 0 ? 0 : bitstack_meta_size_((uint32_t)meta->type);
    const unsigned char *at = (const unsigned char *)meta->value + i * size;
    uint64_t bits;
    double value;
    if (i >= meta->count) return 0;
    switch (meta->type) {
    case BITSTACK_META_U8: return at[0];
    case BITSTACK_META_U32: return bitstack_load32_(at);
    case BITSTACK_META_I32: return (int32_t)bitstack_load32_(at);
    case BITSTACK_META_F32: return bitstack_load_f32_(at);
    case BITSTACK_META_U64: return (double)bitstack_load64_(at);
    case BITSTACK_META_I64: return (double)(int64_t)bitstack_load64_(at);
    case BITSTACK_META_F64:
        bits = bitstack_load64_(at);
        memcpy(&value, &bits, 8);
        return value;
    default: return 0;
    }
}
BITSTACK_API double bitstack_meta_number(const bitstack *stack, const char *key, double fallback) {
    bitstack_meta meta;
    if (bitstack_get_meta(stack, bitstack_find_meta(stack, key), &meta) != BITSTACK_OK) return fallback;
    if (meta.count == 0 || meta.type < BITSTACK_META_U8 || meta.type > BITSTACK_META_F64) return fallback;
    return bitstack_meta_element(&meta, 0);
}
BITSTACK_API const char *bitstack_meta_next_string(const bitstack_meta *meta, uint64_t *cursor, size_t *bytes) {
    const unsigned char *at = (const unsigned char *)meta->value + *cursor;
    if (meta->type != BITSTACK_META_STRING || *cursor >= meta->value_bytes) return NULL;
    *bytes = bitstack_load32_(at);
    *cursor += 4 + (uint64_t)*bytes;
    return (const char *)at + 4;
}
BITSTACK_API const char *bitstack_meta_string(const bitstack *stack, const char *key, size_t *bytes) {
    bitstack_meta meta;
    uint64_t cursor = 0;
    if (bitstack_get_meta(stack, bitstack_find_meta(stack, key), &meta) != BITSTACK_OK) return NULL;
    return bitstack_meta_next_string(&meta, &cursor, bytes);
}

/* ================================================================================== [BUDGET]
 * A matrix moves between levels by taking up the parts that are live at the new level and only then
 * releasing those that are not, so a failure leaves it at a level that is whole. */

/* The part in memory, or NULL. */
static const unsigned char *bitstack_part_(const bitstack *stack, const bitstack_state_ *state, uint32_t block, int part) {
    const bitstack_slot_ *slot = stack->places + state->first + block - 1;
    uint64_t offset = slot->offset;
    int before;
    if (!stack->memory) return slot->raw[part] ? bitstack_aligned_(slot->raw[part]) : NULL;
    for (before = 0; before < part; before++) offset += bitstack_part_bytes_(&state->shape, block, before);
    return stack->memory + offset;
}

static void bitstack_give_part_(bitstack *stack, const bitstack_state_ *state, uint32_t block, int part) {
    unsigned char **raw = stack->places[state->first + block - 1].raw + part;
    if (!stack->memory) bitstack_give_aligned_(stack, *raw, bitstack_part_bytes_(&state->shape, block, part));
    *raw = NULL;
}

/* Is this a column part of encoding TABLES, for block `level`? Its scales may be any. */
static int bitstack_column_valid_(const unsigned char *part, uint32_t level) {
    uint32_t i;
    if (!bitstack_power_of_two_(bitstack_load_f32_(part)) || !bitstack_zero_(part + 4, BITSTACK_TABLE_AT_ - 4)) return 0;
    for (i = 0; level <= 6 && i < 1u << level; i++) /* values of a byte, but -128; at 7 and 8 any value is valid */
        if (((bitstack_load16_(part + BITSTACK_TABLE_AT_ + 2 * i) + 127u) & 0xFFFFu) > 254u) return 0;
    return 1;
}

/* Of two failures the first counts, but what cannot be read or held more than what is damaged. */
static bitstack_result bitstack_worse_(bitstack_result first, bitstack_result next) {
    return first == BITSTACK_OK || (bitstack_damage_(first) && next != BITSTACK_OK) ? next : first;
}
/* Where to tell of it; what was told and counts more stays. */
static bitstack_error *bitstack_tell_(bitstack_error *error, bitstack_result result) {
    return error && (error->code == BITSTACK_OK || (bitstack_damage_(error->code) && !bitstack_damage_(result))) ? error : NULL;
}

/* Are these whole columns: in order, in range, scales that are numbers? */
static int bitstack_kept_valid_(const unsigned char *at, const bitstack_shape *shape) {
    uint32_t k, before = 0;
    for (k = 0; k < shape->kept; k++, at += 8) {
        const uint32_t column = bitstack_load32_(at);
        const float scale = bitstack_load_f32_(at + 4);
        if (column >= shape->cols || column < before || !(scale >= 0 && scale <= FLT_MAX)) return 0;
        before = column;
    }
    return 1;
}

/* Makes the part be there; it is verified each time it is taken up. *error was set before. */
static bitstack_result bitstack_take_part_(bitstack *stack, const bitstack_state_ *state, uint32_t block, int part,
                                           bitstack_error *error) {
    bitstack_slot_ *slot = stack->places + state->first + block - 1;
    const unsigned char *record = stack->block_records + (size_t)slot->record * BITSTACK_BLOCK_RECORD_;
    const unsigned char *matrix = stack->matrix_records + (size_t)(state - stack->states) * BITSTACK_MATRIX_RECORD_, *data;
    uint64_t bytes = bitstack_part_bytes_(&state->shape, block, part), offset = slot->offset;
    size_t name_bytes;
    const char *name = bitstack_name_(stack, matrix, &name_bytes);
    int before;
    if (bytes == 0 || slot->raw[part]) return BITSTACK_OK;
    for (before = 0; before < part; before++) offset += bitstack_part_bytes_(&state->shape, block, before);
    if (stack->memory) {
        data = stack->memory + offset;
        slot->raw[part] = (unsigned char *)slot;
    } else {
        unsigned char *raw = bitstack_take_aligned_(stack, bytes);
        if (!raw) return bitstack_fail_(bitstack_tell_(error, BITSTACK_ERROR_MEMORY), BITSTACK_ERROR_MEMORY, offset, "no memory for a block of matrix '%'", name, name_bytes);
        if (bitstack_get_(stack, offset, bitstack_aligned_(raw), bytes) != BITSTACK_OK) {
            bitstack_give_aligned_(stack, raw, bytes);
            return bitstack_fail_(bitstack_tell_(error, BITSTACK_ERROR_IO), BITSTACK_ERROR_IO, offset, "reading a block of matrix '%' failed", name, name_bytes);
        }
        slot->raw[part] = raw;
        data = bitstack_aligned_(raw);
    }
    if (!stack->skip_checksums && bitstack_checksum(data, (size_t)bytes) != bitstack_load64_(record + 24 + 8 * part)) {
        bitstack_give_part_(stack, state, block, part);
        return bitstack_fail_(bitstack_tell_(error, BITSTACK_ERROR_CHECKSUM), BITSTACK_ERROR_CHECKSUM, offset, "the checksum of a block of matrix '%' does not match", name, name_bytes);
    }
    if (state->shape.encoding == BITSTACK_TABLES && part == BITSTACK_COLUMN_PART_ && !bitstack_column_valid_(data, block)) {
        bitstack_give_part_(stack, state, block, part);
        return bitstack_fail_(bitstack_tell_(error, BITSTACK_ERROR_FORMAT), BITSTACK_ERROR_FORMAT, offset, "the unit or the table of a block of matrix '%' is not valid", name, name_bytes);
    }
    if (part == BITSTACK_PLANE_PART_ && block == 1 && state->shape.kept && !bitstack_kept_valid_(data + bitstack_tiles_bytes_(&state->shape), &state->shape)) {
        bitstack_give_part_(stack, state, block, part);
        return bitstack_fail_(bitstack_tell_(error, BITSTACK_ERROR_FORMAT), BITSTACK_ERROR_FORMAT, offset, "the whole columns of matrix '%' are not valid", name, name_bytes);
    }
    return BITSTACK_OK;
}

/* Readers against one resizer, without a lock for the readers: sleepable read-copy-update (McKenney,
 * Using RCU in the Linux 2.5 kernel, 2003). A reader counts itself in, under the parity it sees, before it
 * loads `shown`, and out when done. The resizer publishes the new planes, then flips the parity and waits
 * for the old one's readers, twice, since a reader may have seen the parity long before it counted. The
 * counters are striped over cache lines by the thread's stack address. */
#ifndef BITSTACK_NO_THREADS
static unsigned bitstack_enter_(const bitstack *stack) {
    unsigned char here;
    unsigned parity = BITSTACK_GET_(stack->readers) & 1u;
    unsigned stripe = (((uint32_t)((uintptr_t)&here >> 12) * 2654435769u) >> 29) % BITSTACK_READER_STRIPES_; /* stacks lie regularly */
    unsigned ticket = (1 + parity * BITSTACK_READER_STRIPES_ + stripe) * BITSTACK_READER_STEP_;
    BITSTACK_COUNT_(stack->readers + ticket, 1u);
    return ticket;
}
static void bitstack_leave_(const bitstack *stack, unsigned ticket) {
#ifdef BITSTACK_GNU_
    __atomic_fetch_sub(stack->readers + ticket, 1u, __ATOMIC_RELEASE);
#else
    BITSTACK_COUNT_(stack->readers + ticket, -1);
#endif
}
static void bitstack_wait_for_readers_(const bitstack *stack) {
    unsigned turn, stripe;
    for (turn = 0; turn < 2; turn++) {
        unsigned old = BITSTACK_GET_(stack->readers) & 1u;
        BITSTACK_PUT_(stack->readers, old ^ 1u);
        for (stripe = 0; stripe < BITSTACK_READER_STRIPES_; stripe++)
            while (BITSTACK_GET_(stack->readers + (1 + old * BITSTACK_READER_STRIPES_ + stripe) * BITSTACK_READER_STEP_))
                BITSTACK_YIELD();
    }
}
#define BITSTACK_SHOWN_(state) BITSTACK_GET_(&(state)->shown)
#define BITSTACK_SHOW_(state, value) BITSTACK_PUT_(&(state)->shown, value)
#else
static unsigned bitstack_enter_(const bitstack *stack) { return (void)stack, 0; }
static void bitstack_leave_(const bitstack *stack, unsigned ticket) { (void)stack, (void)ticket; }
static void bitstack_wait_for_readers_(const bitstack *stack) { (void)stack; }
#define BITSTACK_SHOWN_(state) ((state)->shown)
#define BITSTACK_SHOW_(state, value) ((state)->shown = (value))
#endif

/* Points the set of planes that is not shown at what level `level` uses, and shows it. Before the matrix is shown
 * another level, and before anything of the old one is released, the readers must be waited for. */
static void bitstack_show_(bitstack *stack, bitstack_state_ *state, uint32_t level) {
    uint32_t set = (state->shown & 1u) ^ 1u;
    const bitstack_shape *shape = &state->shape;
    const size_t step = bitstack_coefficient_step_(shape);
    uint32_t p;
    for (p = 1; p <= level; p++) {
        bitstack_plane *plane = stack->planes + (size_t)set * stack->blocks + state->first + p - 1;
        uint32_t v = shape->columns == BITSTACK_COLUMNS_OWN ? p : shape->columns == BITSTACK_COLUMNS_FIRST ? 1 : level;
        plane->signs = bitstack_part_(stack, state, p, BITSTACK_PLANE_PART_);
        plane->columns = bitstack_part_(stack, state, v, BITSTACK_COLUMN_PART_);
        plane->coefficients = shape->coefficients == BITSTACK_COEFFICIENTS_OWN
            ? bitstack_part_(stack, state, p, BITSTACK_COEFFICIENT_PART_)
            : bitstack_part_(stack, state, level, BITSTACK_COEFFICIENT_PART_) + (size_t)(p - 1) * step;
    }
    BITSTACK_SHOW_(state, 2 * level + set);
}

/* Releases the parts of a matrix that neither level uses. */
static void bitstack_drop_parts_(bitstack *stack, const bitstack_state_ *state, uint32_t level, uint32_t other) {
    uint32_t block;
    int part;
    for (block = 1; block <= state->shape.levels; block++)
        for (part = 0; part < BITSTACK_PARTS_; part++)
            if (stack->places[state->first + block - 1].raw[part] && !bitstack_part_live_(&state->shape, block, part, level) &&
                !bitstack_part_live_(&state->shape, block, part, other))
                bitstack_give_part_(stack, state, block, part);
}
/* Releases what matrices [first, end) have beyond their levels, once no reader uses it any more. */
static void bitstack_drop_unused_(bitstack *stack, uint32_t first, uint32_t end) {
    bitstack_wait_for_readers_(stack);
    for (; first < end; first++) bitstack_drop_parts_(stack, stack->states + first, stack->states[first].level, stack->states[first].level);
}

/* Brings one matrix to `level`, or as near below as can be had; the first failure is returned. Where the file is to
 * blame it does not fall from above `level` to nothing. Unless it `may_fall`, lack of memory changes nothing. What it
 * had before is still there: bitstack_drop_unused_ must follow. */
static bitstack_result bitstack_move_(bitstack *stack, bitstack_state_ *state, uint32_t level, int may_fall, bitstack_error *error) {
    bitstack_result first = BITSTACK_OK, result;
    const uint32_t old = state->level, wanted = level;
    uint32_t block;
    int part;
    for (block = 1; block <= level;) { /* restarts from below each time a block turns out bad */
        for (part = 0, result = BITSTACK_OK; part < BITSTACK_PARTS_ && result == BITSTACK_OK; part++)
            if (bitstack_part_live_(&state->shape, block, part, level))
                result = bitstack_take_part_(stack, state, block, part, error);
        if (result == BITSTACK_OK) {
            block++;
            continue;
        }
        first = bitstack_worse_(first, result);
        level = block - 1;
        if (result == BITSTACK_ERROR_MEMORY ? !may_fall : level == 0 && old > wanted) level = old;
        bitstack_drop_parts_(stack, state, level, old); /* taken for a level that will not be, and never shown */
        if (level == old) return first;
        block = 1;
    }
    bitstack_show_(stack, state, level);
    stack->resident += bitstack_live_bytes(&state->shape, level) - bitstack_live_bytes(&state->shape, old);
    state->level = level;
    return first;
}

/* Brings matrices [first, end) to `level`, or with UINT32_MAX each to its own target. Those that shrink come first, to
 * make room, and all at once, so that readers are waited for once (a product of many vectors takes long). Where
 * there is no memory for what takes over, the room that the others leave may do; at last a matrix gives up all it has,
 * and takes up again what it was to have. */
static bitstack_result bitstack_bring_(bitstack *stack, uint32_t first, uint32_t end, uint32_t level, bitstack_error *error) {
    bitstack_result worst = BITSTACK_OK, result;
    uint32_t i;
    int pass, moved, again = 1;
    if (error) error->code = BITSTACK_OK;
    for (pass = 0; pass < 3 && again; pass++) {
        for (i = first, again = moved = 0; i < end; i++) {
            bitstack_state_ *state = stack->states + i;
            const uint32_t target = level == UINT32_MAX ? state->target : level;
            if (state->level <= target) continue;
            result = bitstack_move_(stack, state, target, pass == 2, worst == BITSTACK_OK ? error : NULL);
            moved |= state->level <= target;
            if (result == BITSTACK_ERROR_MEMORY && error && worst == BITSTACK_OK) error->code = BITSTACK_OK;
            if (result == BITSTACK_ERROR_MEMORY) again = 1; /* told below, if it stays so */
            else if (worst == BITSTACK_OK) worst = result;
        }
        if (moved) bitstack_drop_unused_(stack, first, end);
        else if (pass == 0) pass = 1; /* nobody left any room */
    }
    if (error && worst == BITSTACK_OK) error->code = BITSTACK_OK;
    for (i = first; i < end; i++) { /* then use it */
        bitstack_state_ *state = stack->states + i;
        const uint32_t target = level == UINT32_MAX ? state->target : level;
        if (state->level >= target) continue;
        result = bitstack_move_(stack, state, target, 1, error);
        worst = bitstack_worse_(worst, result);
        bitstack_drop_unused_(stack, i, i + 1);
    }
    return worst;
}

BITSTACK_API bitstack_result bitstack_set_budget(bitstack *stack, uint64_t bytes, bitstack_error *error) {
    uint32_t low = 0, high = stack->available;
    if (bytes == 0) bytes = UINT64_MAX;
    if (bytes < stack->base) {
        char digits[20];
        size_t at = sizeof digits;
        uint64_t least = stack->base;
        for (; least; least /= 10) digits[--at] = (char)('0' + least % 10);
        return bitstack_fail_(error, BITSTACK_ERROR_BUDGET, 0, "the budget is smaller than the resident part, which takes % bytes",
                              digits + at, sizeof digits - at);
    }
    while (low < high) { /* how many blocks fit */
        uint32_t middle = low + (high - low) / 2;
        if (stack->resident_after[middle] <= bytes) low = middle + 1;
        else high = middle;
    }
    for (; stack->loaded < low; stack->loaded++)
        stack->states[bitstack_load32_(stack->block_records + (size_t)stack->loaded * BITSTACK_BLOCK_RECORD_)].target++;
    for (; stack->loaded > low; stack->loaded--)
        stack->states[bitstack_load32_(stack->block_records + (size_t)(stack->loaded - 1) * BITSTACK_BLOCK_RECORD_)].target--;
    return bitstack_bring_(stack, 0, stack->matrices, UINT32_MAX, error);
}

BITSTACK_API bitstack_result bitstack_trim(bitstack *stack, bitstack_trim_level level, uint64_t *budget, bitstack_error *error) {
    const uint64_t base = stack->base, more = bitstack_resident_bytes(stack) - base;
    uint64_t bytes;
    if (level == BITSTACK_TRIM_SOME) bytes = base + more - more / 4;
    else if (level == BITSTACK_TRIM_HALF) bytes = base + more - more / 2;
    else if (level == BITSTACK_TRIM_ALL) bytes = base;
    else return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no such level of trimming", NULL, 0);
    if (budget) *budget = bytes;
    return bitstack_set_budget(stack, bytes, error);
}

BITSTACK_API bitstack_result bitstack_set_level(bitstack *stack, int matrix, uint32_t level, bitstack_error *error) {
    const bitstack_state_ *state;
    if (matrix < 0 || (uint32_t)matrix >= stack->matrices)
        return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "no such matrix", NULL, 0);
    state = stack->states + matrix;
    if (level > state->shape.levels || (level && stack->places[state->first + level - 1].record >= stack->available))
        return bitstack_fail_(error, BITSTACK_ERROR_ARGUMENT, 0, "the matrix has no such level", NULL, 0);
    return bitstack_bring_(stack, (uint32_t)matrix, (uint32_t)matrix + 1, level, error);
}

BITSTACK_API bitstack_result bitstack_extend(bitstack *stack, uint64_t bytes) {
    if (bytes < stack->bytes) return BITSTACK_ERROR_ARGUMENT;
    stack->bytes = bytes;
    for (; stack->available < stack->blocks; stack->available++) {
        const unsigned char *r = stack->block_records + (size_t)stack->available * BITSTACK_BLOCK_RECORD_;
        if (bitstack_load64_(r + 8) + bitstack_load64_(r + 16) > bytes) break; /* checked on opening */
    }
    return BITSTACK_OK;
}

BITSTACK_API void bitstack_close(bitstack *stack) {
    uint32_t i, block;
    int part;
    if (!stack) return;
    for (i = 0; stack->resident && !stack->memory && i < stack->matrices; i++) /* resident: opened as later as that */
        for (block = 1; block <= stack->states[i].shape.levels; block++)
            for (part = 0; part < BITSTACK_PARTS_; part++)
                bitstack_give_aligned_(stack, stack->places[stack->states[i].first + block - 1].raw[part],
                                       bitstack_part_bytes_(&stack->states[i].shape, block, part));
    bitstack_give_aligned_(stack, stack->head_raw, stack->base);
#ifndef BITSTACK_NO_STDIO
    if (stack->file) fclose(stack->file);
#endif
    stack->allocator.release(stack->allocator.user, stack, (size_t)bitstack_lay_out_(stack, NULL));
}

BITSTACK_API bitstack_result bitstack_matrix_view(const bitstack *stack, int matrix, bitstack_view *out) {
    const bitstack_state_ *state;
    uint32_t shown;
    memset(out, 0, sizeof *out);
    if (matrix < 0 || (uint32_t)matrix >= stack->matrices) return BITSTACK_ERROR_ARGUMENT;
    state = stack->states + matrix;
    shown = BITSTACK_SHOWN_(state);
    out->rows = state->shape.rows;
    out->cols = state->shape.cols;
    out->rank = state->shape.rank;
    out->group_cols = state->shape.group_cols;
    out->level = shown / 2;
    out->factor_type = state->shape.factor_type;
    out->scale = state->shape.scale;
    out->encoding = state->shape.encoding, out->kept = state->shape.kept;
    out->planes = stack->planes + (size_t)(shown & 1u) * stack->blocks + state->first;
    return BITSTACK_OK;
}

/* ============================================================================= [RECONSTRUCT] */

#ifndef BITSTACK_CHUNK_COLS
#define BITSTACK_CHUNK_COLS 16384
#endif
#if BITSTACK_CHUNK_COLS < 512 || BITSTACK_CHUNK_COLS % 256
#error "BITSTACK_CHUNK_COLS must be a multiple of 256, at least 512"
#endif
/* Small chunks are for small stacks: less is held there elsewhere, too. No bit of a result depends on it. */
#define BITSTACK_PATCH_ (BITSTACK_CHUNK_COLS < 4096 ? 2 : 16) /* rows reconstructed at once */
#define BITSTACK_TILE_ 64   /* rows of a tile */
#define BITSTACK_BLOCK_ 256 /* columns of a scale block */
#define BITSTACK_SPAN_ 1024 /* columns whose sums are kept apart until coefficients are applied */

/* One float at any alignment. */
static float bitstack_get_float_(const void *at, size_t index) {
    float value;
    memcpy(&value, (const char *)at + 4 * index, sizeof value);
    return value;
}
static void bitstack_put_float_(void *at, size_t index, float value) {
    memcpy((char *)at + 4 * index, &value, sizeof value);
}

/* Factors [first, first + count) of a part of a payload, as floats. */
static void bitstack_factors_(float *to, const void *from, bitstack_type type, size_t first, size_t count) {
    const unsigned char *at = (const unsigned char *)from + first * (size_t)bitstack_factor_size_(type);
    size_t i;
    if (type == BITSTACK_F16)
        for (i = 0; i < count; i++) to[i] = bitstack_f16_to_f32((uint16_t)bitstack_load16_(at + 2 * i));
    else
        for (i = 0; i < count; i++) to[i] = bitstack_load_f32_(at + 4 * i);
}

static size_t bitstack_tile_bytes_(const bitstack_view *view) { return ((size_t)view->cols + 3) / 4 * 32; }

/* First of the coefficients of the view's plane for a column and rank, one per row. */
static size_t bitstack_coefficient_at_(const bitstack_view *view, size_t col, size_t rank) {
    size_t group = view->group_cols ? col / view->group_cols : 0;
    return (group * view->rank + rank) * view->rows;
}

/* Columns from `col` to the end of its span, at most `end`: spans are cut at multiples of BITSTACK_SPAN_
 * and where the coefficients change. Scale blocks start anew with each. */
static size_t bitstack_span_cols_(const bitstack_view *view, size_t col, size_t end) {
    size_t left = end - col;
    if (left > BITSTACK_SPAN_ - col % BITSTACK_SPAN_) left = BITSTACK_SPAN_ - col % BITSTACK_SPAN_;
    if (view->group_cols && left > view->group_cols - col % view->group_cols)
        left = view->group_cols - col % view->group_cols;
    return left;
}

static int bitstack_view_valid_(const bitstack_view *view, uint32_t begin, uint32_t count) {
    if (!view || begin > view->rows || count > view->rows - begin || !bitstack_power_of_two_(view->scale) || (!view->planes && view->level)) return 0;
    if (view->encoding == BITSTACK_TABLES)
        return view->rank == 1 && bitstack_table_groups_(view->group_cols) && view->level <= BITSTACK_TABLE_LEVELS_ &&
               (!view->level || !count || bitstack_column_valid_((const unsigned char *)view->planes->columns, view->level));
    return ((int)view->encoding == 0 || view->encoding == BITSTACK_PLANES) && view->rank && view->group_cols % 64 == 0 &&
           (view->factor_type == BITSTACK_F32 || view->factor_type == BITSTACK_F16);
}

/* Encoding TABLES: the table's values for a row's columns 32 * chunk and on. */
static void bitstack_row_values_(int32_t to[BITSTACK_CHUNK_], const bitstack_view *view, size_t row, size_t chunk) {
    const unsigned char *table = (const unsigned char *)view->planes->columns + BITSTACK_TABLE_AT_;
    const size_t chunks = ((size_t)view->cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_;
    const size_t at = (row / BITSTACK_LANES_ * chunks + chunk) * BITSTACK_CHUNK_BYTES_ + row % BITSTACK_LANES_ * 4;
    uint32_t bits[BITSTACK_TABLE_LEVELS_], index, p;
    size_t k, c;
    for (p = 0; p < view->level; p++) bits[p] = bitstack_load32_(view->planes[p].signs + at);
    for (k = 0; k < 8; k++) {
        for (p = 0, index = 0; p < view->level; p++) index |= (bits[p] >> k & 0x01010101u) << p; /* of four columns */
        for (c = 0; c < 4; c++, index >>= 8) to[4 * k + c] = (int32_t)(bitstack_load16_(table + 2 * (index & 255u)) ^ 0x8000u) - 0x8000;
    }
}

/* ---- the arithmetic of sums ----
 * bitstack_real_ is double: products of two floats are exact, sums and other products rounded once. Without a unit for that,
 * integers give the same bits. bitstack_shift_ is a power of two, the product of two that are floats. */
#ifndef BITSTACK_NO_DOUBLE
typedef double bitstack_real_, bitstack_shift_;
static inline bitstack_real_ bitstack_real_of_(float value) { return (double)value; }
static inline bitstack_real_ bitstack_plus_(bitstack_real_ a, bitstack_real_ b) { return a + b; }
static inline bitstack_real_ bitstack_by_(bitstack_real_ a, float b) { return a * (double)b; }
static inline bitstack_real_ bitstack_shifted_(bitstack_real_ a, bitstack_shift_ by) { return a * by; }
static inline float bitstack_float_of_(bitstack_real_ a) { return (float)a; }
static inline bitstack_shift_ bitstack_shift_of_(float a, float b) { return (double)a * (double)b; }
#else
/* n * 2^e, negative where minus is 1: n has 53 bits, or is 0. Above BITSTACK_ODD_, beyond all sums of products, e says NaN. */
typedef struct bitstack_real_ {
    uint64_t n;
    int32_t e;
    uint32_t minus;
} bitstack_real_;
typedef int32_t bitstack_shift_; /* its exponent */
enum { BITSTACK_ODD_ = 2000 };

static inline int32_t bitstack_length_(uint64_t n) { /* of n > 0 in bits */
#if defined(__GNUC__)
    return 64 - (int32_t)__builtin_clzll(n);
#else
    int32_t length = 0;
    for (; n; n >>= 1) length++;
    return length;
#endif
}

/* n / 2^drop to the nearest, to even between two. */
static inline uint64_t bitstack_drop_bits_(uint64_t n, int32_t drop) {
    uint64_t kept, rest, half;
    if (drop > 63) return 0;
    if (drop <= 0) return n << -drop;
    kept = n >> drop, rest = n & (((uint64_t)1 << drop) - 1), half = (uint64_t)1 << (drop - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}

/* Rounded to 53 bits. The last bit of an n of more than 54 may stand for any that were below it. */
static bitstack_real_ bitstack_real_make_(uint64_t n, int32_t e, uint32_t minus) {
    bitstack_real_ a;
    a.n = n, a.e = e, a.minus = minus;
    if (n) {
        const int32_t drop = bitstack_length_(n) - 53;
        a.n = bitstack_drop_bits_(n, drop), a.e = e + drop;
        if (a.n >> 53) a.n >>= 1, a.e++;
    }
    if (e > BITSTACK_ODD_) a.n = (uint64_t)1 << 52;
    return a;
}

/* The float nearest to n * 2^e, subnormal or infinite where it is that. n < 2^62. */
static float bitstack_float_make_(uint64_t n, int32_t e, uint32_t minus) {
    uint32_t bits = 0;
    if (n) {
        int32_t drop = bitstack_length_(n) - 24;
        if (drop < -149 - e) drop = -149 - e;
        n = bitstack_drop_bits_(n, drop), e += drop;
        if (n >> 24) n >>= 1, e++;
        bits = n >> 23 ? ((uint32_t)(e + 150) << 23) | ((uint32_t)n & 0x7FFFFFu) : (uint32_t)n;
        if (e > 127 - 23 && n) bits = 0x7F800000u;
    }
    return bitstack_float_from_bits_(minus << 31 | bits);
}

static int32_t bitstack_float_parts_(float value, uint32_t *n, uint32_t *minus) {
    const uint32_t bits = bitstack_bits_from_float_(value), exponent = bits >> 23 & 255u;
    *n = (bits & 0x7FFFFFu) | (exponent ? 0x800000u : 0), *minus = bits >> 31;
    return exponent == 255 ? 2 * BITSTACK_ODD_ : exponent ? (int32_t)exponent - 150 : -149;
}

static bitstack_real_ bitstack_real_of_(float value) {
    uint32_t n, minus;
    const int32_t e = bitstack_float_parts_(value, &n, &minus);
    return bitstack_real_make_(n, e, minus);
}

static bitstack_real_ bitstack_by_(bitstack_real_ a, float b) {
    uint32_t n, minus;
    int32_t e = a.e + bitstack_float_parts_(b, &n, &minus);
    uint64_t high, low;
    for (; n && n < 0x800000u; e--) n <<= 1; /* 24 bits */
    high = (a.n >> 29) * n, low = (a.n & 0x1FFFFFFFu) * n;
    return bitstack_real_make_(((high << 9) + (low >> 20)) | ((low & 0xFFFFFu) != 0), e + 20, a.minus ^ minus);
}

static bitstack_real_ bitstack_plus_(bitstack_real_ a, bitstack_real_ b) {
    bitstack_real_ least;
    uint64_t large, small;
    int32_t apart;
    if (a.e > BITSTACK_ODD_) return a;
    if (b.e > BITSTACK_ODD_) return b;
    if (!a.n && !b.n) return a.minus &= b.minus, a;
    if (!a.n) return b;
    if (!b.n) return a;
    if (a.e < b.e) least = a, a = b, b = least;
    apart = a.e - b.e, large = a.n << 9, small = b.n << 9;
    if (apart > 62) return a;
    if (apart) small = small >> apart | ((small & (((uint64_t)1 << apart) - 1)) != 0);
    if (a.minus == b.minus) return bitstack_real_make_(large + small, a.e - 9, a.minus);
    if (large >= small) return bitstack_real_make_(large - small, a.e - 9, large == small ? 0 : a.minus);
    return bitstack_real_make_(small - large, a.e - 9, b.minus);
}

static inline bitstack_real_ bitstack_shifted_(bitstack_real_ a, bitstack_shift_ by) { return a.e += by, a; }
static float bitstack_float_of_(bitstack_real_ a) {
    return a.e > BITSTACK_ODD_ ? bitstack_float_from_bits_(0x7FC00000u) : bitstack_float_make_(a.n, a.e, a.minus);
}
static inline bitstack_shift_ bitstack_shift_of_(float a, float b) {
    return (int32_t)(bitstack_bits_from_float_(a) >> 23) + (int32_t)(bitstack_bits_from_float_(b) >> 23) - 254; /* both are normal */
}
#endif

/* Encoding TABLES: the weight of a table's value and two codes of scales, rounded once. */
static inline float bitstack_weight_(int32_t value, unsigned row_code, unsigned col_code, bitstack_shift_ unit) {
#ifndef BITSTACK_NO_DOUBLE
    return (float)((double)value * (double)bitstack_small_value_(row_code) * (double)bitstack_small_value_(col_code) * unit);
#else
    const uint32_t size = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    const uint32_t n = row_code && col_code ? size * (32u + row_code % 32) * (32u + col_code % 32) : 0;
    return bitstack_float_make_(n, (int32_t)(row_code / 32 + col_code / 32) - 24 + unit, value < 0);
#endif
}

static bitstack_shift_ bitstack_unit_(const bitstack_view *view) {
    return bitstack_shift_of_(view->scale, bitstack_load_f32_(view->planes->columns));
}
/* The code of a row's scale for a group of columns; the codes of all columns. */
static const unsigned char *bitstack_row_scale_(const bitstack_view *view, size_t row, size_t group) {
    const size_t groups = ((size_t)view->cols + view->group_cols - 1) / view->group_cols;
    return (const unsigned char *)view->planes->coefficients + (row / BITSTACK_LANES_ * groups + group) * BITSTACK_LANES_ + row % BITSTACK_LANES_;
}
static const unsigned char *bitstack_col_scales_(const bitstack_view *view) {
    return (const unsigned char *)view->planes->columns + BITSTACK_SCALES_AT_(view->level);
}

#if FLT_EVAL_METHOD == 0
#define BITSTACK_ROUNDED_
#else
#define BITSTACK_ROUNDED_ volatile /* x87 keeps more digits otherwise */
#endif

/* Whole column k of the view: the column, its scale, and its values, one byte a row. */
static const signed char *bitstack_kept_(const bitstack_view *view, size_t k, size_t *column, float *scale) {
    const size_t tiles = ((size_t)view->rows + BITSTACK_LANES_ - 1) / BITSTACK_LANES_, chunks = ((size_t)view->cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_;
    const unsigned char *at = view->planes->signs + tiles * chunks * BITSTACK_CHUNK_BYTES_;
    *column = bitstack_load32_(at + 8 * k), *scale = bitstack_load_f32_(at + 8 * k + 4);
    return (const signed char *)at + 8 * (size_t)view->kept + k * view->rows;
}

static void bitstack_tables_dequantize_(const bitstack_view *view, size_t begin, size_t count, float *out, size_t out_stride) {
    const bitstack_shift_ unit = bitstack_unit_(view);
    const unsigned char *scales = bitstack_col_scales_(view);
    int32_t value[BITSTACK_CHUNK_];
    size_t row, col, j, k, last = 0;
    float scale;
    for (row = begin; row < begin + count; row++) {
        for (col = 0; col < view->cols; col += BITSTACK_CHUNK_) {
            const unsigned s = *bitstack_row_scale_(view, row, col / view->group_cols);
            bitstack_row_values_(value, view, row, col / BITSTACK_CHUNK_);
            for (j = 0; j < BITSTACK_CHUNK_ && col + j < view->cols; j++)
                bitstack_put_float_(out, (row - begin) * out_stride + col + j, bitstack_weight_(value[j], s, scales[col + j], unit));
        }
        for (k = 0; k < view->kept; k++) {
            const signed char *values = bitstack_kept_(view, k, &col, &scale);
            const size_t at = (row - begin) * out_stride + col;
            const bitstack_real_ before = bitstack_real_of_(k && col == last ? bitstack_get_float_(out, at) : 0); /* a column may stand there twice */
            const bitstack_real_ product = bitstack_by_(bitstack_by_(bitstack_real_of_(view->scale), scale), values[row]);
            bitstack_put_float_(out, at, bitstack_float_of_(bitstack_plus_(before, product)));
            last = col;
        }
    }
}

static void bitstack_tables_reference_(const bitstack_view *view, const float *x, float *y, size_t begin, size_t count) {
    const bitstack_shift_ unit = bitstack_unit_(view);
    const bitstack_real_ nothing = bitstack_real_of_(0);
    const unsigned char *scales = bitstack_col_scales_(view);
    int32_t value[BITSTACK_CHUNK_];
    size_t row, col, j, k;
    float scale;
    for (row = begin; row < begin + count; row++) {
        bitstack_real_ total = nothing, whole = nothing;
        for (k = 0; k < view->kept; k++) {
            const signed char *values = bitstack_kept_(view, k, &col, &scale);
            whole = bitstack_plus_(whole, bitstack_by_(bitstack_by_(bitstack_real_of_(scale), values[row]), bitstack_get_float_(x, col)));
        }
        for (col = 0; col < view->cols; col += BITSTACK_CHUNK_) {
            bitstack_real_ sum = nothing;
            bitstack_row_values_(value, view, row, col / BITSTACK_CHUNK_);
            for (j = 0; j < BITSTACK_CHUNK_ && col + j < view->cols; j++)
                sum = bitstack_plus_(sum, bitstack_by_(bitstack_real_of_((float)value[j] * bitstack_small_value_(scales[col + j])), bitstack_get_float_(x, col + j)));
            total = bitstack_plus_(total, bitstack_by_(sum, bitstack_small_value_(*bitstack_row_scale_(view, row, col / view->group_cols))));
        }
        bitstack_put_float_(y, row - begin, bitstack_float_of_(bitstack_plus_(bitstack_shifted_(total, unit), bitstack_by_(whole, view->scale))));
    }
}

/* Sums are taken in double in one order: products of two floats are exact there, so fused
 * multiply-adds change no bit. */
BITSTACK_API bitstack_result bitstack_view_dequantize(const bitstack_view *view, uint32_t begin, uint32_t count,
                                                      float *out, size_t out_stride) {
    const size_t most_rows = BITSTACK_PATCH_, most_cols = 64;
    bitstack_real_ sum[BITSTACK_PATCH_][64];
    float u[BITSTACK_PATCH_], v[64];
    size_t row, col, rows, cols, i, j, r;
    uint32_t p;
    if (!bitstack_view_valid_(view, begin, count) || (!out && count) || out_stride < view->cols)
        return BITSTACK_ERROR_ARGUMENT;
    if (view->encoding == BITSTACK_TABLES && view->level) {
        bitstack_tables_dequantize_(view, begin, count, out, out_stride);
        return BITSTACK_OK;
    }
    for (row = begin; row < (size_t)begin + count; row += rows) {
        rows = (size_t)begin + count - row < most_rows ? (size_t)begin + count - row : most_rows;
        for (col = 0; col < view->cols; col += cols) {
            cols = view->cols - col < most_cols ? view->cols - col : most_cols;
            memset(sum, 0, sizeof sum);
            for (p = 0; p < view->level; p++) {
                const bitstack_plane *plane = view->planes + p;
                for (r = 0; r < view->rank; r++) {
                    bitstack_factors_(v, plane->columns, view->factor_type, r * view->cols + col, cols);
                    bitstack_factors_(u, plane->coefficients, view->factor_type,
                                      bitstack_coefficient_at_(view, col, r) + row, rows);
                    for (i = 0; i < rows; i++) {
                        size_t in_tile = (row + i) % BITSTACK_TILE_;
                        const unsigned char *bits = plane->signs + (row + i) / BITSTACK_TILE_ * bitstack_tile_bytes_(view) +
                                                    col / 4 * 32 + in_tile % 32;
                        unsigned shift = in_tile < 32 ? 0 : 4;
                        const bitstack_real_ with_sign[2] = {bitstack_real_of_(-u[i]), bitstack_real_of_(u[i])};
                        for (j = 0; j < cols; j++)
                            sum[i][j] = bitstack_plus_(sum[i][j], bitstack_by_(with_sign[bits[j / 4 * 32] >> (shift + j % 4) & 1], v[j]));
                    }
                }
            }
            for (i = 0; i < rows; i++)
                for (j = 0; j < cols; j++)
                    bitstack_put_float_(out, (row - begin + i) * out_stride + col + j,
                                        bitstack_float_of_(bitstack_by_(sum[i][j], view->scale)));
        }
    }
    return BITSTACK_OK;
}

/* BITSTACK_REFERENCE: the definition, in double precision. */
static void bitstack_reference_gemv_(const bitstack_view *view, const float *x, float *y, size_t begin, size_t count) {
    float z[BITSTACK_BLOCK_], v[BITSTACK_BLOCK_], u;
    size_t row, col, cols, r, j;
    uint32_t p;
    for (row = begin; row < begin + count; row++) {
        size_t in_tile = row % BITSTACK_TILE_;
        bitstack_real_ total = bitstack_real_of_(0);
        for (p = 0; p < view->level; p++)
            for (r = 0; r < view->rank; r++)
                for (col = 0; col < view->cols; col += cols) {
                    const unsigned char *bits = view->planes[p].signs + row / BITSTACK_TILE_ * bitstack_tile_bytes_(view) +
                                                col / 4 * 32 + in_tile % 32;
                    unsigned shift = in_tile < 32 ? 0 : 4;
                    bitstack_real_ sum = bitstack_real_of_(0);
                    cols = bitstack_span_cols_(view, col, view->cols);
                    if (cols > BITSTACK_BLOCK_) cols = BITSTACK_BLOCK_;
                    bitstack_factors_(v, view->planes[p].columns, view->factor_type, r * view->cols + col, cols);
                    bitstack_factors_(&u, view->planes[p].coefficients, view->factor_type,
                                      bitstack_coefficient_at_(view, col, r) + row, 1);
                    memcpy(z, (const char *)x + 4 * col, 4 * cols);
                    for (j = 0; j < cols; j++)
                        sum = bitstack_plus_(sum, bitstack_by_(bitstack_real_of_(bits[j / 4 * 32] >> (shift + j % 4) & 1 ? v[j] : -v[j]), z[j]));
                    total = bitstack_plus_(total, bitstack_by_(sum, u));
                }
        bitstack_put_float_(y, row - begin, bitstack_float_of_(bitstack_by_(total, view->scale)));
    }
}

/* ================================================================================== [TABLES]
 * How a product is made of table look-ups. For one vector z = v .* x and each group of 4 columns, the
 * 16 signed sums of the four z are tabled; a nibble of the plane is the index. Sums are quantised to
 * integers with one scale for every 256 columns, so the inner loops add integers, and every step that
 * rounds is one IEEE operation whose order is fixed or whose result is exact. That is why all ISAs,
 * compilers and FMA settings give the same bits:
 *   z      one float product each, stored to memory before anything is added to it
 *   A      the largest (|z0| + |z1|) + (|z2| + |z3|) of the block
 *   s      A / 32512 rounded up to 11 significant bits
 *   q      z / s rounded to an integer, ties to even; four of them sum to at most 32514
 *   table  the signed sum of four q, plus 32896, which fits 16 bits unsigned. Its high byte is the
 *          sum / 256 rounded, plus 128 (FAST looks up this one only); its low byte the rest, plus 128.
 *   sums   of one block's bytes: integers of at most 13 bits beside their bias; times a scale of 11
 *          bits they are exact floats, so that adding them fused or not is the same
 *   y      the products with coefficients are rounded to float before they are added, in one order:
 *          within a span of 1024 columns by plane, coefficient group and rank, then span by span
 * A block whose A is not finite has NaN for its scale; one with A < 1e-30 counts as zero. */

#define BITSTACK_BIAS_ 128
/* At most so many tables at once. */
#define BITSTACK_TABLES_ (BITSTACK_CHUNK_COLS < 16 * BITSTACK_BLOCK_ ? BITSTACK_CHUNK_COLS / BITSTACK_BLOCK_ : 16)
#define BITSTACK_STREAMS_ (BITSTACK_TABLES_ < 4 ? 1 : 4) /* tiles read side by side, at most */
#define BITSTACK_BAND_ (BITSTACK_CHUNK_COLS / 256) /* tiles, times inputs and spans, whose sums are held at once */

/* What [GEMM] works on at once. */
#define BITSTACK_PANEL_COLS_ 128
#define BITSTACK_PANEL_RANKS_ 16
#define BITSTACK_PANEL_INPUTS_ 6
#define BITSTACK_POOL_MOST_ 256 /* threads */

/* A run of whole scale blocks (the last may be short) of one tile or some, and tables for them. */
typedef struct bitstack_run_ {
    const unsigned char *signs, *next; /* of the first tile; `next`: where reading goes on afterwards */
    const unsigned char *tables;       /* block after block, in each table after table */
    const float *scales;               /* `count` for each block */
    size_t groups, count;
    size_t tiles, stride; /* 1 or `streams` / count, and the bytes from one to the next */
} bitstack_run_;

/* Bytes of a block's table: whole fours of groups. */
static size_t bitstack_table_bytes_(size_t groups) { return (groups + 3) / 4 * 64; }

/* Signs `ahead` bytes after the run's byte `at`. (As integers: they are only prefetched and may lie
 * outside.) */
static inline const char *bitstack_ahead_(const bitstack_run_ *run, size_t at, size_t ahead) {
    const size_t bytes = run->groups * 32;
    return (const char *)(at + ahead < bytes ? (uintptr_t)run->signs + at + ahead : (uintptr_t)run->next + (at + ahead - bytes));
}

/* Nothing relies on the alignment, but vectors that straddle cache lines are slow. */
#if defined(BITSTACK_GNU_)
#define BITSTACK_PREFETCH_(address) __builtin_prefetch(address, 0, 2)
#define BITSTACK_ALIGNED_ __attribute__((aligned(64)))
#define BITSTACK_RESTRICT_ __restrict__
#define BITSTACK_APART_ __attribute__((noinline)) /* so that its place on the stack is taken only while it runs */
#elif defined(BITSTACK_CL_)
#define BITSTACK_PREFETCH_(address) ((void)(address))
#define BITSTACK_ALIGNED_ __declspec(align(64))
#define BITSTACK_RESTRICT_ __restrict
#define BITSTACK_APART_ __declspec(noinline)
#else
#define BITSTACK_PREFETCH_(address) ((void)(address))
#define BITSTACK_ALIGNED_
#define BITSTACK_RESTRICT_
#define BITSTACK_APART_
#endif

/* Encoding TABLES: some whole groups of columns of a tile of 16 rows, and the inputs for them ([DECODE]). */
typedef struct bitstack_strip_ {
    const unsigned char *planes[BITSTACK_TABLE_LEVELS_]; /* at the first chunk */
    uint32_t level;
    const unsigned char *values; /* T */
    signed char *table;         /* its bytes, see bitstack_table_bytes_of_ */
    const unsigned char *codes; /* of the rows' scales, 16 a group */
    const signed char *q;       /* one input, 8 bits: for `stream` */
    const float *scales;        /* of the input, for each group */
    const int32_t *sums;        /* what its sums begin with */
    size_t chunks, group_chunks;
    size_t apart, codes_apart; /* for `stream`: bytes from here to a second tile, at levels 1 and 2, or 0 */
    int odd; /* the first plane is the sign: T[last - i] = -T[i], and those of odd i are not negative */
} bitstack_strip_;

/* Encoding TABLES: the inputs of some whole groups of columns, as integers. */
typedef struct bitstack_inputs_ {
    size_t from, to, groups, group_cols;          /* columns */
    size_t batch, parts;                          /* inputs; bytes of an integer: 1 or 2 */
    size_t stride;                                /* bytes from one part to the next, and, times `parts`, to the next input */
    BITSTACK_ALIGNED_ signed char q[BITSTACK_CHUNK_COLS * 4];
    int32_t bias;                                 /* what sums are multiplied with: where kernels->flip is 128, all bytes of the table are 128 too large */
    float scales[BITSTACK_CHUNK_COLS / 8];        /* [group][input] */
    int32_t sums[BITSTACK_CHUNK_COLS / 8];        /* of q: [group][input][part] */
} bitstack_inputs_;

/* What an ISA brings. z has room for, and zeros at, the columns that fill up the last 16. */
typedef struct bitstack_kernels_ {
    const char *name;
    int (*available)(void);
    /* z[0..cols-1] = v[first..] .* x; scalar: z may be v, floats from the first on */
    void (*product)(float *z, const void *v, bitstack_type type, size_t first, const float *x, size_t cols);
    /* Tables of `groups` groups of 4 from z: the high bytes to `high`, and the low ones to `low` unless
     * it is NULL. Writes whole fours of groups. Returns s, or 0 or NaN. */
    float (*build)(const float *z, size_t groups, unsigned char *high, unsigned char *low);
    /* For the 64 rows of a tile, and the run of scale blocks that `run` describes,
     * sums[t][row] = sum over blocks of: scale of table t * sum over the block's groups of table t at the nibble.
     * Sums of the second tile follow those of the first. */
    void (*lookup)(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run);
    size_t streams; /* tiles times tables that it takes at once */
    /* total[i] = base[i] + u[first + i] * sums[i], i < rows <= 64 * streams, each product rounded first */
    void (*combine)(float *total, const float *base, const float *sums, const void *u, bitstack_type type, size_t first, size_t rows);
    /* See [POPCOUNT]: counts[t][row] += bits in common of the row and bit plane t */
    void (*count)(uint32_t (*counts)[BITSTACK_TILE_], const unsigned char *signs, size_t groups, const unsigned char *bits,
                  size_t stride, size_t planes);
    /* See [GEMM]; NULL where look-up is always used. */
    void (*unfold)(float (*w)[BITSTACK_TILE_], const unsigned char *signs, size_t cols, float (*u)[BITSTACK_TILE_],
                   float (*minus_v)[BITSTACK_PANEL_COLS_], size_t ranks);
    void (*panel)(float *const *y, const float *const *x, float (*w)[BITSTACK_TILE_], size_t cols, int add);
    /* Encoding TABLES: w[j][0..15] = u[row] * v[j] * the table's value, from its bytes as `decode` gives them. */
    void (*unroll)(float (*w)[BITSTACK_TILE_], const signed char *high, const signed char *low, const float *u, const float *v, size_t cols);
    /* See [DECODE]. */
    void (*smalls)(float *to, const unsigned char *codes, size_t count);
    uint32_t (*largest)(const float *z, size_t cols);
    void (*quantise)(signed char *q, size_t stride, int32_t *sums, const float *z, float inverse, size_t cols);
    void (*decode)(signed char *to, const signed char *table, const bitstack_strip_ *strip, size_t chunk, size_t chunks);
    void (*dot)(int32_t (*sums)[BITSTACK_LANES_], size_t step, const signed char *bytes, size_t chunks, const signed char *q, size_t stride,
                size_t vectors, int words);
    void (*fold)(float *total, int32_t (*sums)[BITSTACK_LANES_], int parts, int halves, const float *scales, float input_scale);
    void (*mix)(float (*total)[BITSTACK_LANES_], const signed char *bytes, size_t chunks, const float *scales, const bitstack_inputs_ *in, size_t group, size_t first);
                                                                /* dot and fold of one group for the inputs from `first` on; or NULL */
    void (*tiles)(int on);                                      /* called before `mix` is, and after; or NULL */
    void (*stream)(float *total, const bitstack_strip_ *strip); /* NULL: decode, dot and fold do it */
    void (*prepare)(signed char *q, size_t count); /* puts behind q what `stream` needs of the inputs beside; or NULL */
    void (*times)(float *total, bitstack_shift_ by); /* 16 rows: total * by, rounded once */
    void (*whole)(float *total, const signed char *values, float by); /* 16 rows of a whole column: total + values * by, rounded once */
    unsigned char flip; /* what each byte of a table is combined with (exclusive or) before `decode` sees it: 0, or 128 */
    unsigned char pairs; /* up to this level `stream` may take two tiles at once: where memory, not operations, bounds it */
} bitstack_kernels_;

/* The scale that makes a largest magnitude, given as bits, `most` (the order of positive floats is that of their bits,
 * and NaN is the largest): 0 where all counts as zero, NaN where something is not finite. */
static float bitstack_input_scale_(uint32_t largest_bits, float most) {
    const float value = bitstack_float_from_bits_(largest_bits);
    if (largest_bits >= 0x7F800000u) return bitstack_float_from_bits_(0x7FC00000u);
    return value < 1e-30f ? 0 : value / most;
}
/* The same for a block's largest sum, with 11 significant bits. */
static float bitstack_block_scale_(uint32_t largest_bits) {
    const float value = bitstack_input_scale_(largest_bits, 32512.0f);
    return value > 0 ? bitstack_float_from_bits_((bitstack_bits_from_float_(value) + 0x1FFFu) & ~0x1FFFu) : value;
}

/* ================================================================================== [SCALAR] */

static int bitstack_always_(void) { return 1; }

static void bitstack_product_scalar_(float *z, const void *v, bitstack_type type, size_t first, const float *x,
                                     size_t cols) {
    size_t j;
    if ((const void *)z != v) bitstack_factors_(z, v, type, first, cols);
    for (j = 0; j < cols; j++) z[j] *= bitstack_get_float_(x, j);
}

/* fabsf without libm. */
static float bitstack_magnitude_(float value) { return bitstack_float_from_bits_(bitstack_bits_from_float_(value) & 0x7FFFFFFFu); }

/* To an integer, |value| < 2^22, as the rounding mode says: lrintf without libm. */
static int32_t bitstack_round_(float value) {
    const float ones = value < 0 ? -8388608.0f : 8388608.0f; /* 2^23: of a sum with it the last bit counts ones */
#if FLT_EVAL_METHOD == 0
    const float sum = value + ones;
#else
    volatile float exact = value, sum = exact + ones;
#endif
    const int32_t size = (int32_t)(bitstack_bits_from_float_(sum) & 0x7FFFFFu);
    return value < 0 ? -size : size;
}

static float bitstack_build_scalar_(const float *z, size_t groups, unsigned char *high, unsigned char *low) {
    uint32_t largest = 0;
    float scale, inverse;
    size_t g;
    int n;
    for (g = 0; g < groups; g++, z += 4) {
#if FLT_EVAL_METHOD == 0
        float left = bitstack_magnitude_(z[0]) + bitstack_magnitude_(z[1]), right = bitstack_magnitude_(z[2]) + bitstack_magnitude_(z[3]), sum;
#else
        volatile float left = bitstack_magnitude_(z[0]) + bitstack_magnitude_(z[1]), right = bitstack_magnitude_(z[2]) + bitstack_magnitude_(z[3]); /* x87 keeps more digits */
        float sum;
#endif
        uint32_t bits;
        sum = left + right;
        memcpy(&bits, &sum, 4);
        if (bits > largest) largest = bits;
    }
    z -= 4 * groups;
    scale = bitstack_block_scale_(largest);
    inverse = scale > 0 ? 1.0f / scale : 0; /* not for NaN */
    for (g = 0; g < groups; g++, z += 4) {
        int32_t q[4] = {0, 0, 0, 0};
        if (inverse > 0)
            for (n = 0; n < 4; n++) q[n] = bitstack_round_(z[n] * inverse);
        for (n = 0; n < 16; n++) {
            int32_t sum = (n & 1 ? q[0] : -q[0]) + (n & 2 ? q[1] : -q[1]) + (n & 4 ? q[2] : -q[2]) + (n & 8 ? q[3] : -q[3]);
            uint32_t biased = (uint32_t)(sum + 257 * BITSTACK_BIAS_);
            high[16 * g + (size_t)n] = (unsigned char)(biased >> 8);
            if (low) low[16 * g + (size_t)n] = (unsigned char)(biased & 255);
        }
    }
    return scale;
}

static void bitstack_lookup_scalar_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run) {
    const float *scale = run->scales;
    const unsigned char *table = run->tables;
    size_t from, to, t, g, b;
    for (from = 0; from < run->groups; from = to) {
        to = run->groups - from < BITSTACK_BLOCK_ / 4 ? run->groups : from + BITSTACK_BLOCK_ / 4;
        for (t = 0; t < run->count; t++, scale++, table += bitstack_table_bytes_(to - from)) {
            uint16_t sum[BITSTACK_TILE_] = {0};
            for (g = from; g < to; g++) {
                const unsigned char *group = run->signs + 32 * g, *entries = table + 16 * (g - from);
                BITSTACK_PREFETCH_(bitstack_ahead_(run, 32 * g, 1024));
                for (b = 0; b < 32; b++) {
                    sum[b] = (uint16_t)(sum[b] + entries[group[b] & 15u]);
                    sum[b + 32] = (uint16_t)(sum[b + 32] + entries[group[b] >> 4]);
                }
            }
            for (b = 0; b < BITSTACK_TILE_; b++) {
                const float part = (float)((int)sum[b] - (int)(to - from) * BITSTACK_BIAS_) * *scale;
                sums[t][b] = from ? sums[t][b] + part : part;
            }
        }
    }
}

static void bitstack_combine_scalar_(float *total, const float *base, const float *sums, const void *u, bitstack_type type, size_t first,
                                     size_t rows) {
    float value[BITSTACK_TILE_];
    size_t i;
    bitstack_factors_(value, u, type, first, rows);
    for (i = 0; i < rows; i++) {
        volatile float product = value[i] * sums[i]; /* so that no compiler fuses it with the sum */
        total[i] = base[i] + product;
    }
}

/* ==================================================================================== [SSE4]
 * Functions carry their own target, so no flag is needed to build them. */
#if !defined(BITSTACK_NO_SIMD) && ((defined(BITSTACK_GNU_) && (defined(__x86_64__) || defined(__i386__))) || (defined(BITSTACK_CL_) && defined(_M_X64)))
#define BITSTACK_X86_
#include <immintrin.h>
#ifdef BITSTACK_CL_
/* As those of <cpuid.h>, and without the assembly that keeps gcc from fusing a product with its sum. */
static int bitstack_cpuid_(unsigned leaf, unsigned part, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
    int words[4];
    __cpuid(words, 0);
    if ((unsigned)words[0] < leaf) return 0;
    __cpuidex(words, (int)leaf, (int)part);
    *a = (unsigned)words[0], *b = (unsigned)words[1], *c = (unsigned)words[2], *d = (unsigned)words[3];
    return 1;
}
static unsigned bitstack_states_(void) { return (unsigned)_xgetbv(0); }
#define BITSTACK_KEEP_X86_(value)
#define BITSTACK_PREFETCH_BOTH_(soon, later) (_mm_prefetch(soon, _MM_HINT_T0), _mm_prefetch(later, _MM_HINT_T1))
#else
#include <cpuid.h>
#ifdef _MSC_VER /* clang-cl: immintrin.h leaves out what the flags of the whole file do not name */
#include <tmmintrin.h>
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <fmaintrin.h>
#include <f16cintrin.h>
#include <avx512fintrin.h>
#include <avx512vlintrin.h>
#include <avx512bwintrin.h>
#include <avx512dqintrin.h>
#include <avx512vlbwintrin.h>
#include <avx512vbmiintrin.h>
#include <avx512vnniintrin.h>
#include <avx512bitalgintrin.h>
#include <gfniintrin.h>
#if __clang_major__ >= 12
#include <avxvnniintrin.h>
#endif
#endif
#define bitstack_cpuid_(leaf, part, a, b, c, d) __get_cpuid_count(leaf, part, a, b, c, d)
static unsigned bitstack_states_(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#define BITSTACK_KEEP_X86_(value) __asm__("" : "+v"(value));
#define BITSTACK_PREFETCH_BOTH_(soon, later) __asm__ volatile("prefetcht0 %0\n\tprefetcht1 %1" : : "m"(*(soon)), "m"(*(later)))
#endif

/* What CPU and operating system both support: bits of leaf 1 ECX, leaf 7 EBX and ECX, and the states in
 * XCR0. */
static int bitstack_x86_has_(unsigned leaf1_ecx, unsigned leaf7_ebx, unsigned leaf7_ecx, unsigned xcr0) {
    unsigned a, b, c, d;
    if (!bitstack_cpuid_(1, 0, &a, &b, &c, &d) || (c & leaf1_ecx) != leaf1_ecx) return 0;
    if (xcr0 && (!(c & 1u << 27) || (bitstack_states_() & xcr0) != xcr0)) return 0; /* 27: OSXSAVE */
    if (!(leaf7_ebx | leaf7_ecx)) return 1;
    return bitstack_cpuid_(7, 0, &a, &b, &c, &d) && (b & leaf7_ebx) == leaf7_ebx && (c & leaf7_ecx) == leaf7_ecx;
}

/* Of four tiles at a time, signs 1 KiB ahead go to L1 and those 2 KiB ahead to L2. Measured on a Sapphire Rapids
 * core: L1 has too few line buffers for the latency of memory (one prefetch alone, at any distance, reached
 * 85 % of the read bandwidth), and one stream opens too few pages of memory (four tiles one after
 * the other 80 %, side by side 90 %). As assembly, so that it stays where it is among the arithmetic: prefetches in a
 * row cost 1 %. */
#define BITSTACK_NEAR_(tiles) ((tiles) > 1 ? 1024u : 2048u)
#define BITSTACK_FAR_(tiles) (8192u / (tiles))
#endif

#if defined(BITSTACK_X86_) && !defined(BITSTACK_NO_SSE4)
#define BITSTACK_HAS_SSE4_
#define BITSTACK_SSE4_ BITSTACK_TARGET_("sse4.1")
#define BITSTACK_SSE4_INLINE_ BITSTACK_SSE4_ BITSTACK_FORCED_

static int bitstack_available_sse4_(void) { return bitstack_x86_has_(1u << 9 | 1u << 19, 0, 0, 0); } /* SSSE3, SSE4.1 */

BITSTACK_SSE4_INLINE_ __m128i bitstack_load_sse4_(const void *from) { return _mm_loadu_si128((const __m128i *)from); }

/* Four factors as floats. Halves: as bitstack_f16_to_f32, for subnormal floats may count as zero here (DAZ). */
BITSTACK_SSE4_INLINE_ __m128 bitstack_factors_sse4_(const void *from, bitstack_type type, size_t first) {
    const __m128i least = _mm_set1_epi32(0x38800000);
    __m128i half, rest, value, tiny;
    if (type != BITSTACK_F16) return _mm_castsi128_ps(bitstack_load_sse4_((const char *)from + 4 * first));
    half = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(const void *)((const char *)from + 2 * first)));
    rest = _mm_and_si128(half, _mm_set1_epi32(0x7FFF));
    value = _mm_add_epi32(_mm_slli_epi32(rest, 13), _mm_set1_epi32(0x38000000));
    value = _mm_add_epi32(value, _mm_and_si128(_mm_cmpgt_epi32(rest, _mm_set1_epi32(0x7BFF)), _mm_set1_epi32(0x38000000)));
    tiny = _mm_castps_si128(_mm_sub_ps(_mm_castsi128_ps(_mm_or_si128(_mm_slli_epi32(rest, 13), least)), _mm_castsi128_ps(least)));
    value = _mm_blendv_epi8(value, tiny, _mm_cmpgt_epi32(_mm_set1_epi32(0x0400), rest));
    return _mm_castsi128_ps(_mm_or_si128(value, _mm_slli_epi32(_mm_sub_epi32(half, rest), 16))); /* and the sign */
}

BITSTACK_SSE4_ static void bitstack_product_sse4_(float *z, const void *v, bitstack_type type, size_t first, const float *x, size_t cols) {
    size_t j;
    for (j = 0; j + 4 <= cols; j += 4)
        _mm_storeu_ps(z + j, _mm_mul_ps(bitstack_factors_sse4_(v, type, first + j), _mm_castsi128_ps(bitstack_load_sse4_((const char *)x + 4 * j))));
    if (j < cols) bitstack_product_scalar_(z + j, v, type, first + j, (const float *)(const void *)((const char *)x + 4 * j), cols - j);
}

BITSTACK_SSE4_ static float bitstack_build_sse4_(const float *z, size_t groups, unsigned char *high, unsigned char *low) {
    const __m128 magnitude = _mm_castsi128_ps(_mm_set1_epi32(0x7FFFFFFF));
    const __m128i signs = _mm_setr_epi16(-1, -1, 1, -1, -1, 1, 1, 1), bias = _mm_set1_epi32(257 * BITSTACK_BIAS_);
    const __m128i low_byte = _mm_set1_epi16(255);
    const size_t cols = (groups + 3) / 4 * 16;
    __m128i largest = _mm_setzero_si128();
    __m128 inverse;
    float scale;
    size_t j;
    for (j = 0; j < cols; j += 4) {
        __m128 a = _mm_and_ps(_mm_loadu_ps(z + j), magnitude);
        a = _mm_add_ps(a, _mm_shuffle_ps(a, a, 0xB1));
        a = _mm_add_ps(a, _mm_shuffle_ps(a, a, 0x4E));
        largest = _mm_max_epi32(largest, _mm_castps_si128(a));
    }
    scale = bitstack_block_scale_((uint32_t)_mm_cvtsi128_si32(largest));
    if (!(scale > 0)) {
        memset(high, BITSTACK_BIAS_, cols * 4);
        if (low) memset(low, BITSTACK_BIAS_, cols * 4);
        return scale;
    }
    inverse = _mm_set1_ps(1.0f / scale);
    for (j = 0; j < cols; j += 4) { /* sums of q0, q1 and of q2, q3 with all signs, then those of both */
        __m128i q = _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(z + j), inverse)), a, b, c, d;
        q = _mm_packs_epi32(q, q);
        a = _mm_add_epi32(_mm_madd_epi16(_mm_shuffle_epi32(q, 0x00), signs), bias);
        b = _mm_madd_epi16(_mm_shuffle_epi32(q, 0x55), signs);
        c = _mm_packus_epi32(_mm_add_epi32(a, _mm_shuffle_epi32(b, 0x00)), _mm_add_epi32(a, _mm_shuffle_epi32(b, 0x55)));
        d = _mm_packus_epi32(_mm_add_epi32(a, _mm_shuffle_epi32(b, 0xAA)), _mm_add_epi32(a, _mm_shuffle_epi32(b, 0xFF)));
        _mm_storeu_si128((__m128i *)(void *)(high + 4 * j), _mm_packus_epi16(_mm_srli_epi16(c, 8), _mm_srli_epi16(d, 8)));
        if (low) _mm_storeu_si128((__m128i *)(void *)(low + 4 * j), _mm_packus_epi16(_mm_and_si128(c, low_byte), _mm_and_si128(d, low_byte)));
    }
    return scale;
}

/* Bytes are summed in 16-bit lanes without unpacking: `pairs` adds whole lanes, `odd` their high bytes, and
 * the even bytes are what is left (mod 65536, enough for 64 * 255). */
BITSTACK_SSE4_INLINE_ void bitstack_look_sse4_(__m128i *pairs, __m128i *odd, __m128i table, __m128i index) {
    const __m128i found = _mm_shuffle_epi8(table, index);
    *pairs = _mm_add_epi16(*pairs, found);
    *odd = _mm_add_epi16(*odd, _mm_srli_epi16(found, 8));
}

BITSTACK_SSE4_INLINE_ void bitstack_scale_sse4_(float *to, __m128i sums, __m128 scale, int add) {
    const __m128 value = _mm_mul_ps(_mm_cvtepi32_ps(_mm_cvtepi16_epi32(sums)), scale);
    _mm_storeu_ps(to, add ? _mm_add_ps(_mm_loadu_ps(to), value) : value);
}

/* to[0..15] (+)= scale * (sums - bias) */
BITSTACK_SSE4_INLINE_ void bitstack_widen_sse4_(float *to, __m128i pairs, __m128i odd, size_t groups, float scale, int add) {
    const __m128i even = _mm_sub_epi16(pairs, _mm_slli_epi16(odd, 8)), bias = _mm_set1_epi16((short)(groups * BITSTACK_BIAS_));
    const __m128i a = _mm_sub_epi16(_mm_unpacklo_epi16(even, odd), bias), b = _mm_sub_epi16(_mm_unpackhi_epi16(even, odd), bias);
    const __m128 factor = _mm_set1_ps(scale);
    bitstack_scale_sse4_(to, a, factor, add);
    bitstack_scale_sse4_(to + 4, _mm_unpackhi_epi64(a, a), factor, add);
    bitstack_scale_sse4_(to + 8, b, factor, add);
    bitstack_scale_sse4_(to + 12, _mm_unpackhi_epi64(b, b), factor, add);
}

BITSTACK_SSE4_ static void bitstack_lookup_sse4_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run) {
    const __m128i nibble = _mm_set1_epi8(15);
    const float *scale = run->scales;
    const unsigned char *tables = run->tables;
    size_t from, to, g, t;
    for (from = 0; from < run->groups; from = to) {
        to = run->groups - from < BITSTACK_BLOCK_ / 4 ? run->groups : from + BITSTACK_BLOCK_ / 4;
        for (t = 0; t < run->count; t++, scale++, tables += bitstack_table_bytes_(to - from)) {
            __m128i p0 = _mm_setzero_si128(), p1 = p0, p2 = p0, p3 = p0, o0 = p0, o1 = p0, o2 = p0, o3 = p0;
            for (g = from; g < to; g++) {
                const __m128i table = bitstack_load_sse4_(tables + 16 * (g - from));
                const __m128i a = bitstack_load_sse4_(run->signs + 32 * g), b = bitstack_load_sse4_(run->signs + 32 * g + 16);
                _mm_prefetch(bitstack_ahead_(run, 32 * g, 2048), _MM_HINT_T0);
                bitstack_look_sse4_(&p0, &o0, table, _mm_and_si128(a, nibble));
                bitstack_look_sse4_(&p1, &o1, table, _mm_and_si128(b, nibble));
                bitstack_look_sse4_(&p2, &o2, table, _mm_and_si128(_mm_srli_epi16(a, 4), nibble));
                bitstack_look_sse4_(&p3, &o3, table, _mm_and_si128(_mm_srli_epi16(b, 4), nibble));
            }
            bitstack_widen_sse4_(sums[t], p0, o0, to - from, *scale, from > 0);
            bitstack_widen_sse4_(sums[t] + 16, p1, o1, to - from, *scale, from > 0);
            bitstack_widen_sse4_(sums[t] + 32, p2, o2, to - from, *scale, from > 0);
            bitstack_widen_sse4_(sums[t] + 48, p3, o3, to - from, *scale, from > 0);
        }
    }
}

BITSTACK_SSE4_ static void bitstack_combine_sse4_(float *total, const float *base, const float *sums, const void *u, bitstack_type type,
                                                  size_t first, size_t rows) {
    size_t i;
    for (i = 0; i + 4 <= rows; i += 4) {
        __m128 product = _mm_mul_ps(bitstack_factors_sse4_(u, type, first + i), _mm_loadu_ps(sums + i));
        BITSTACK_KEEP_X86_(product) /* so that no compiler fuses it with the sum */
        _mm_storeu_ps(total + i, _mm_add_ps(_mm_loadu_ps(base + i), product));
    }
    if (i < rows) bitstack_combine_scalar_(total + i, base + i, sums + i, u, type, first + i, rows - i);
}
#endif /* SSE4 */

/* ==================================================================================== [AVX2] */
#if defined(BITSTACK_X86_) && !defined(BITSTACK_NO_AVX2)
#define BITSTACK_HAS_AVX2_
#define BITSTACK_AVX2_ BITSTACK_TARGET_("avx2,f16c")
#define BITSTACK_AVX2_INLINE_ BITSTACK_AVX2_ BITSTACK_FORCED_

/* FMA, AVX, F16C; AVX2; the SSE and AVX state. */
static int bitstack_available_avx2_(void) { return bitstack_x86_has_(1u << 12 | 1u << 28 | 1u << 29, 1u << 5, 0, 6); }

BITSTACK_AVX2_INLINE_ __m256i bitstack_load_avx2_(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }
BITSTACK_AVX2_INLINE_ __m128i bitstack_load_half_avx2_(const void *from) { return _mm_loadu_si128((const __m128i *)from); }
BITSTACK_AVX2_INLINE_ void bitstack_store_avx2_(void *to, __m256i value) { _mm256_storeu_si256((__m256i *)to, value); }
/* Eight factors as floats. */
BITSTACK_AVX2_INLINE_ __m256 bitstack_factors_avx2_(const void *from, bitstack_type type, size_t first) {
    if (type == BITSTACK_F16) return _mm256_cvtph_ps(bitstack_load_half_avx2_((const char *)from + 2 * first));
    return _mm256_castsi256_ps(bitstack_load_avx2_((const char *)from + 4 * first));
}

BITSTACK_AVX2_ static void bitstack_product_avx2_(float *z, const void *v, bitstack_type type, size_t first, const float *x, size_t cols) {
    size_t j;
    for (j = 0; j + 8 <= cols; j += 8)
        _mm256_storeu_ps(z + j, _mm256_mul_ps(bitstack_factors_avx2_(v, type, first + j), _mm256_castsi256_ps(bitstack_load_avx2_((const char *)x + 4 * j))));
    if (j < cols) bitstack_product_scalar_(z + j, v, type, first + j, (const float *)(const void *)((const char *)x + 4 * j), cols - j);
}

BITSTACK_AVX2_ static float bitstack_build_avx2_(const float *z, size_t groups, unsigned char *high, unsigned char *low) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    /* signs of q0, q1 and q2, q3 in the sums 0..7, and of q2, q3 in 8..15 */
    const __m256i signs01 = _mm256_setr_epi16(-1, -1, 1, -1, -1, 1, 1, 1, -1, -1, 1, -1, -1, 1, 1, 1);
    const __m256i signs23 = _mm256_setr_epi16(-1, -1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, 1, -1, 1, -1);
    const __m256i signs23_up = _mm256_setr_epi16(-1, 1, -1, 1, -1, 1, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m256i bias = _mm256_set1_epi16((short)(257 * BITSTACK_BIAS_ - 65536)), low_byte = _mm256_set1_epi16(255);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int16_t q[BITSTACK_BLOCK_];
    __m256i largest = _mm256_setzero_si256();
    float scale;
    __m256 inverse;
    size_t j, g, cols = (groups + 3) / 4 * 16;
    for (j = 0; j < cols; j += 8) {
        __m256 a = _mm256_and_ps(_mm256_loadu_ps(z + j), magnitude);
        a = _mm256_add_ps(a, _mm256_permute_ps(a, 0xB1));
        a = _mm256_add_ps(a, _mm256_permute_ps(a, 0x4E));
        largest = _mm256_max_epi32(largest, _mm256_castps_si256(a));
    }
    scale = bitstack_block_scale_((uint32_t)_mm_cvtsi128_si32(
        _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1))));
    if (!(scale > 0)) {
        memset(high, BITSTACK_BIAS_, cols * 4);
        if (low) memset(low, BITSTACK_BIAS_, cols * 4);
        return scale;
    }
    inverse = _mm256_set1_ps(1.0f / scale);
    for (j = 0; j < cols; j += 16) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(z + j), inverse));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(z + j + 8), inverse));
        bitstack_store_avx2_(q + j, _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8));
    }
    for (g = 0; g < cols / 4; g += 2) {
        __m256i sum[2];
        int k;
        for (k = 0; k < 2; k++) {
            int32_t pair[2];
            __m256i q01, q23, both;
            memcpy(pair, q + 4 * (g + (size_t)k), 8);
            q01 = _mm256_madd_epi16(_mm256_set1_epi32(pair[0]), signs01);
            q23 = _mm256_set1_epi32(pair[1]);
            both = _mm256_packs_epi32(_mm256_add_epi32(q01, _mm256_madd_epi16(q23, signs23)),
                                      _mm256_add_epi32(q01, _mm256_madd_epi16(q23, signs23_up)));
            sum[k] = _mm256_add_epi16(both, bias);
        }
        bitstack_store_avx2_(high + 16 * g, _mm256_permutevar8x32_epi32(
            _mm256_packus_epi16(_mm256_srli_epi16(sum[0], 8), _mm256_srli_epi16(sum[1], 8)), order));
        if (low)
            bitstack_store_avx2_(low + 16 * g, _mm256_permutevar8x32_epi32(
                _mm256_packus_epi16(_mm256_and_si256(sum[0], low_byte), _mm256_and_si256(sum[1], low_byte)), order));
    }
    return scale;
}

/* What one table gives for 32 rows, summed over groups: the bytes mod 256; and averages of four of them (of eight, if
 * the nibbles are `ready`), with `pairs` and `odd` as for SSE4. An average of eight, rounded up three times, is
 * at most 1.5 too large, and the sum of 64 groups from such ones 96, so the two together tell it: a quarter
 * fewer operations than adding up each byte in 16 bits. */
typedef struct bitstack_sums_avx2_ {
    __m256i bytes, pairs, odd;
} bitstack_sums_avx2_;

/* Nibbles of a group's 32 bytes; or, if they are `ready`, as stored, 64 bytes. */
BITSTACK_AVX2_INLINE_ void bitstack_find_avx2_(__m256i *low, __m256i *high, const unsigned char *signs, size_t g, const unsigned char *table, const int ready) {
    const __m256i nibble = _mm256_set1_epi8(15), entries = _mm256_broadcastsi128_si256(bitstack_load_half_avx2_(table + 16 * g));
    if (ready) *low = bitstack_load_avx2_(signs + 64 * g), *high = bitstack_load_avx2_(signs + 64 * g + 32);
    else {
        const __m256i both = bitstack_load_avx2_(signs + 32 * g);
        *low = _mm256_and_si256(both, nibble), *high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
    }
    *low = _mm256_shuffle_epi8(entries, *low), *high = _mm256_shuffle_epi8(entries, *high);
}

/* sum += two groups; their average. The order is kept by force, for GCC's needs more registers than there are. */
BITSTACK_AVX2_INLINE_ __m256i bitstack_two_avx2_(bitstack_sums_avx2_ *sum, __m256i a, __m256i b) {
    sum->bytes = _mm256_add_epi8(sum->bytes, a);
#ifdef BITSTACK_GNU_
    __asm__ volatile("" : "+x"(sum->bytes));
#endif
    sum->bytes = _mm256_add_epi8(sum->bytes, b);
    return _mm256_avg_epu8(a, b);
}
BITSTACK_AVX2_INLINE_ void bitstack_four_avx2_(bitstack_sums_avx2_ sums[2], __m256i average[2], const unsigned char *signs, size_t g,
                                               const unsigned char *table, const char *soon, const char *later, const int ready) {
    __m256i a, b, c, d, e, f;
    if (soon) BITSTACK_PREFETCH_BOTH_(soon, later);
    bitstack_find_avx2_(&a, &b, signs, g, table, ready), bitstack_find_avx2_(&c, &d, signs, g + 1, table, ready);
    e = bitstack_two_avx2_(&sums[0], a, c), f = bitstack_two_avx2_(&sums[1], b, d);
    if (soon) BITSTACK_PREFETCH_BOTH_(soon + 64, later + 64);
    bitstack_find_avx2_(&a, &b, signs, g + 2, table, ready), bitstack_find_avx2_(&c, &d, signs, g + 3, table, ready);
    average[0] = _mm256_avg_epu8(e, bitstack_two_avx2_(&sums[0], a, c)), average[1] = _mm256_avg_epu8(f, bitstack_two_avx2_(&sums[1], b, d));
}
BITSTACK_AVX2_INLINE_ void bitstack_add_avx2_(bitstack_sums_avx2_ *sum, __m256i average) {
    sum->pairs = _mm256_add_epi16(sum->pairs, average), sum->odd = _mm256_add_epi16(sum->odd, _mm256_srli_epi16(average, 8));
}

BITSTACK_AVX2_INLINE_ void bitstack_scale_avx2_(float *to, __m128i sums, __m256 scale, int add) {
    const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(sums)), scale);
    _mm256_storeu_ps(to, add ? _mm256_add_ps(_mm256_loadu_ps(to), value) : value);
}

/* n * average - (n * average - byte) mod 256 */
BITSTACK_AVX2_INLINE_ __m256i bitstack_exact_avx2_(__m256i average, __m256i byte, const int ready) {
    const __m256i sum = _mm256_slli_epi16(average, ready ? 3 : 2);
    return _mm256_sub_epi16(sum, _mm256_and_si256(_mm256_sub_epi16(sum, byte), _mm256_set1_epi16(255)));
}

/* to[0..31] (+)= scale * (sums - bias) for the low nibbles or the high ones; the last groups, fewer than four or
 * eight, are still to be looked up. */
BITSTACK_AVX2_INLINE_ void bitstack_widen_avx2_(float *to, const bitstack_sums_avx2_ *sums, const unsigned char *signs, size_t groups,
                                                const unsigned char *table, float scale, int add, const int ready, const int up) {
    const __m256i bias = _mm256_set1_epi16((short)(groups * BITSTACK_BIAS_));
    const __m256 factor = _mm256_set1_ps(scale);
    __m256i even = bitstack_exact_avx2_(_mm256_sub_epi16(sums->pairs, _mm256_slli_epi16(sums->odd, 8)), sums->bytes, ready);
    __m256i odd = bitstack_exact_avx2_(sums->odd, _mm256_srli_epi16(sums->bytes, 8), ready), low, high;
    size_t g;
    for (g = ready ? groups / 8 * 8 : groups / 4 * 4; g < groups; g++) {
        bitstack_find_avx2_(&low, &high, signs, g, table, ready);
        even = _mm256_add_epi16(even, _mm256_and_si256(up ? high : low, _mm256_set1_epi16(255)));
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16(up ? high : low, 8));
    }
    low = _mm256_sub_epi16(_mm256_unpacklo_epi16(even, odd), bias);  /* rows 0..7, 16..23 */
    high = _mm256_sub_epi16(_mm256_unpackhi_epi16(even, odd), bias); /* rows 8..15, 24..31 */
    bitstack_scale_avx2_(to, _mm256_castsi256_si128(low), factor, add);
    bitstack_scale_avx2_(to + 8, _mm256_castsi256_si128(high), factor, add);
    bitstack_scale_avx2_(to + 16, _mm256_extracti128_si256(low, 1), factor, add);
    bitstack_scale_avx2_(to + 24, _mm256_extracti128_si256(high, 1), factor, add);
}

/* One table or two: 16 groups of each tile in turn. More tables: the nibbles are taken apart once for all. */
BITSTACK_AVX2_ static void bitstack_lookup_avx2_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run) {
    const __m256i zero = _mm256_setzero_si256(), nibble = _mm256_set1_epi8(15);
    const bitstack_sums_avx2_ none = {zero, zero, zero};
    const float *scale = run->scales;
    const unsigned char *table = run->tables;
    const size_t near_by = BITSTACK_NEAR_(run->tiles), far_off = BITSTACK_FAR_(run->tiles);
    __m256i average[2], more[2];
    size_t from, groups, g, k, t, i, stride;
    for (from = 0; from < run->groups; from += groups, scale += run->count, table += run->count * stride) {
        const unsigned char *signs = run->signs + 32 * from;
        const char *soon = bitstack_ahead_(run, from * 32, near_by), *later = bitstack_ahead_(run, from * 32, far_off);
        groups = run->groups - from < BITSTACK_BLOCK_ / 4 ? run->groups - from : BITSTACK_BLOCK_ / 4;
        stride = bitstack_table_bytes_(groups);
        for (t = 0; run->count <= 2 && t < run->count; t++) {
            const unsigned char *entries = table + t * stride;
            bitstack_sums_avx2_ part[BITSTACK_STREAMS_][2];
            for (i = 0; i < run->tiles; i++) part[i][0] = part[i][1] = none;
            for (g = 0; g < groups; g += 16)
                for (i = 0; i < run->tiles; i++) {
                    const size_t at = i * run->stride, last = groups - g < 16 ? groups / 4 * 4 : g + 16;
                    bitstack_sums_avx2_ sum[2] = {part[i][0], part[i][1]};
                    for (k = g; k < last; k += 4) {
                        const size_t ahead = at + 32 * k;
                        bitstack_four_avx2_(sum, average, signs + at, k, entries, soon + ahead, later + ahead, 0);
                        bitstack_add_avx2_(&sum[0], average[0]), bitstack_add_avx2_(&sum[1], average[1]);
                    }
                    part[i][0] = sum[0], part[i][1] = sum[1];
                }
            for (i = 0; i < run->tiles; i++) {
                float *to = sums[i * run->count + t];
                bitstack_widen_avx2_(to, &part[i][0], signs + i * run->stride, groups, entries, scale[t], from > 0, 0, 0);
                bitstack_widen_avx2_(to + 32, &part[i][1], signs + i * run->stride, groups, entries, scale[t], from > 0, 0, 1);
            }
        }
        if (BITSTACK_TABLES_ <= 2 || run->count <= 2) continue;
        for (i = 0; i < run->tiles; i++, signs += run->stride, soon += run->stride, later += run->stride) {
            BITSTACK_ALIGNED_ unsigned char nibbles[BITSTACK_BLOCK_ / 4 * 64];
            for (g = 0; g < groups; g++) {
                const __m256i both = bitstack_load_avx2_(signs + 32 * g);
                bitstack_store_avx2_(nibbles + 64 * g, _mm256_and_si256(both, nibble));
                bitstack_store_avx2_(nibbles + 64 * g + 32, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
            }
            for (t = 0; t < run->count; t++) {
                float *to = sums[i * run->count + t];
                bitstack_sums_avx2_ sum[2] = {none, none};
                for (g = 0; g + 8 <= groups; g += 8) {
                    if (t < 2) { /* one reads ahead for the first half of each four groups, one for the second */
                        BITSTACK_PREFETCH_BOTH_(soon + 32 * g + 64 * t, later + 32 * g + 64 * t);
                        BITSTACK_PREFETCH_BOTH_(soon + 32 * g + 128 + 64 * t, later + 32 * g + 128 + 64 * t);
                    }
                    bitstack_four_avx2_(sum, average, nibbles, g, table + t * stride, NULL, NULL, 1);
                    bitstack_four_avx2_(sum, more, nibbles, g + 4, table + t * stride, NULL, NULL, 1);
                    bitstack_add_avx2_(&sum[0], _mm256_avg_epu8(average[0], more[0])), bitstack_add_avx2_(&sum[1], _mm256_avg_epu8(average[1], more[1]));
                }
                bitstack_widen_avx2_(to, &sum[0], nibbles, groups, table + t * stride, scale[t], from > 0, 1, 0);
                bitstack_widen_avx2_(to + 32, &sum[1], nibbles, groups, table + t * stride, scale[t], from > 0, 1, 1);
            }
        }
    }
}

BITSTACK_AVX2_ static void bitstack_combine_avx2_(float *total, const float *base, const float *sums, const void *u, bitstack_type type,
                                                  size_t first, size_t rows) {
    size_t i;
    for (i = 0; i + 8 <= rows; i += 8) {
        __m256 product = _mm256_mul_ps(bitstack_factors_avx2_(u, type, first + i), _mm256_loadu_ps(sums + i));
        BITSTACK_KEEP_X86_(product) /* so that no compiler fuses it with the sum */
        _mm256_storeu_ps(total + i, _mm256_add_ps(_mm256_loadu_ps(base + i), product));
    }
    if (i < rows) bitstack_combine_scalar_(total + i, base + i, sums + i, u, type, first + i, rows - i);
}
#endif /* AVX2 */

/* AVX-VNNI with GFNI (Alder Lake, Zen 5 and later): products of encoding TABLES of its own, in [DECODE]. */
#if defined(BITSTACK_HAS_AVX2_) && !defined(BITSTACK_NO_AVXVNNI) && \
    (defined(BITSTACK_CL_) ? _MSC_VER >= 1930 : defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define BITSTACK_HAS_AVXVNNI_
#define BITSTACK_AVXVNNI_ BITSTACK_TARGET_("avx2,f16c,gfni,avxvnni")
#define BITSTACK_AVXVNNI_INLINE_ BITSTACK_AVXVNNI_ BITSTACK_FORCED_
static int bitstack_available_avxvnni_(void) { /* as for AVX2, and GFNI (8); of leaf 7's subleaf 1 AVX-VNNI (4) */
    unsigned a, b, c, d;
    return bitstack_x86_has_(1u << 12 | 1u << 28 | 1u << 29, 1u << 5, 1u << 8, 6) && bitstack_cpuid_(7, 0, &a, &b, &c, &d) && a >= 1 &&
           bitstack_cpuid_(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#endif

/* ================================================================================== [AVX512]
 * With VBMI, VNNI and BITALG (Ice Lake, Zen 4 and later). AVX-512 without them was tried: AVX2's way in wider
 * registers, but on two ports instead of three, is no faster than AVX2. */
#if defined(BITSTACK_HAS_AVX2_) && !defined(BITSTACK_NO_AVX512)
#define BITSTACK_HAS_AVX512_
#if defined(__GNUC__) && !defined(__clang__) /* GCC 12 warns of its own intrinsics (its bug 105593) */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#define BITSTACK_AVX512_ BITSTACK_TARGET_("avx2,f16c,avx512f,avx512bw,avx512vbmi,avx512vnni,avx512bitalg")
#define BITSTACK_AVX512_INLINE_ BITSTACK_AVX512_ BITSTACK_FORCED_

/* As for AVX2, and F (16), BW (30); VBMI (1), VNNI (11), BITALG (12); the mask and 512-bit state too. */
static int bitstack_available_avx512_(void) {
    return bitstack_x86_has_(1u << 12 | 1u << 28 | 1u << 29, 1u << 5 | 1u << 16 | 1u << 30, 1u << 1 | 1u << 11 | 1u << 12, 0xE6);
}

/* Sixteen factors as floats. */
BITSTACK_AVX512_INLINE_ __m512 bitstack_factors_avx512_(const void *from, bitstack_type type, size_t first) {
    if (type == BITSTACK_F16) return _mm512_cvtph_ps(bitstack_load_avx2_((const char *)from + 2 * first));
    return _mm512_loadu_ps((const char *)from + 4 * first);
}

BITSTACK_AVX512_ static void bitstack_product_avx512_(float *z, const void *v, bitstack_type type, size_t first, const float *x,
                                                      size_t cols) {
    size_t j;
    for (j = 0; j + 16 <= cols; j += 16)
        _mm512_storeu_ps(z + j, _mm512_mul_ps(bitstack_factors_avx512_(v, type, first + j), _mm512_loadu_ps((const char *)x + 4 * j)));
    if (j < cols) bitstack_product_avx2_(z + j, v, type, first + j, (const float *)(const void *)((const char *)x + 4 * j), cols - j);
}

/* VNNI adds both pairs of products to the bias; of each 32-bit sum one byte is picked. */
BITSTACK_AVX512_ static float bitstack_build_avx512_(const float *z, size_t groups, unsigned char *high, unsigned char *low) {
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF), bias = _mm512_set1_epi32(257 * BITSTACK_BIAS_);
    const __m512i number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), ones = _mm512_set1_epi32(-1);
    const __m512i signs01 = _mm512_mask_blend_epi16(0x55555555u, /* even words: bit 0 of the number; odd: bit 1 */
        _mm512_mask_blend_epi32(_mm512_test_epi32_mask(number, _mm512_set1_epi32(2)), ones, _mm512_set1_epi16(1)),
        _mm512_mask_blend_epi32(_mm512_test_epi32_mask(number, _mm512_set1_epi32(1)), ones, _mm512_set1_epi16(1)));
    const __m512i signs23 = _mm512_mask_blend_epi16(0x55555555u,
        _mm512_mask_blend_epi32(_mm512_test_epi32_mask(number, _mm512_set1_epi32(8)), ones, _mm512_set1_epi16(1)),
        _mm512_mask_blend_epi32(_mm512_test_epi32_mask(number, _mm512_set1_epi32(4)), ones, _mm512_set1_epi16(1)));
    /* bytes 0, 4, .. 60 of one register, then of another, twice */
    const __m512i step = _mm512_mullo_epi32(_mm512_set1_epi32(0x10101010), _mm512_and_si512(number, _mm512_set1_epi32(7)));
    const __m512i pick = _mm512_add_epi8(step, _mm512_set1_epi32(0x0C080400)), pick_high = _mm512_add_epi8(pick, _mm512_set1_epi8(1));
    int16_t q[BITSTACK_BLOCK_];
    __m512i largest = _mm512_setzero_si512();
    __m512 inverse;
    float scale;
    size_t j, cols = (groups + 3) / 4 * 16;
    for (j = 0; j < cols; j += 16) {
        __m512 a = _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(z + j), magnitude));
        a = _mm512_add_ps(a, _mm512_permute_ps(a, 0xB1));
        a = _mm512_add_ps(a, _mm512_permute_ps(a, 0x4E));
        largest = _mm512_max_epu32(largest, _mm512_castps_si512(a));
    }
    scale = bitstack_block_scale_(_mm512_reduce_max_epu32(largest));
    if (!(scale > 0)) {
        memset(high, BITSTACK_BIAS_, cols * 4);
        if (low) memset(low, BITSTACK_BIAS_, cols * 4);
        return scale;
    }
    inverse = _mm512_set1_ps(1.0f / scale);
    for (j = 0; j < cols; j += 16)
        bitstack_store_avx2_(q + j, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(z + j), inverse))));
    for (j = 0; j < cols; j += 16) {
        __m512i a, b, c, d;
        int32_t pair[8];
        memcpy(pair, q + j, 32);
        a = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(bias, signs01, _mm512_set1_epi32(pair[0])), signs23, _mm512_set1_epi32(pair[1]));
        b = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(bias, signs01, _mm512_set1_epi32(pair[2])), signs23, _mm512_set1_epi32(pair[3]));
        c = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(bias, signs01, _mm512_set1_epi32(pair[4])), signs23, _mm512_set1_epi32(pair[5]));
        d = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(bias, signs01, _mm512_set1_epi32(pair[6])), signs23, _mm512_set1_epi32(pair[7]));
        _mm512_storeu_si512(high + 4 * j, _mm512_mask_blend_epi32(0xFF00, _mm512_permutex2var_epi8(a, pick_high, b),
                                                                  _mm512_permutex2var_epi8(c, pick_high, d)));
        if (low)
            _mm512_storeu_si512(low + 4 * j, _mm512_mask_blend_epi32(0xFF00, _mm512_permutex2var_epi8(a, pick, b),
                                                                     _mm512_permutex2var_epi8(c, pick, d)));
    }
    return scale;
}

BITSTACK_AVX512_ static void bitstack_combine_avx512_(float *total, const float *base, const float *sums, const void *u, bitstack_type type,
                                                      size_t first, size_t rows) {
    size_t i;
    for (i = 0; i + 16 <= rows; i += 16) {
        __m512 product = _mm512_mul_ps(bitstack_factors_avx512_(u, type, first + i), _mm512_loadu_ps(sums + i));
        BITSTACK_KEEP_X86_(product) /* so that no compiler fuses it with the sum */
        _mm512_storeu_ps(total + i, _mm512_add_ps(_mm512_loadu_ps(base + i), product));
    }
    if (i < rows) bitstack_combine_avx2_(total + i, base + i, sums + i, u, type, first + i, rows - i);
}

/* VBMI looks bytes up in 64: the tables of four groups at once, bits 4 and 5 of the index choosing the
 * group. So the bytes of four groups are first brought together row by row, and then VNNI adds a row's
 * four entries in one step. index: of rows 0..15, 16..31, 32..47 and 48..63. */
BITSTACK_AVX512_INLINE_ void bitstack_index_avx512_(__m512i index[4], const unsigned char *signs) {
    const __m512i nibble = _mm512_set1_epi8(15), group = _mm512_set1_epi32(0x30201000);
    const __m512i row = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i gather = _mm512_add_epi8(_mm512_mullo_epi32(row, _mm512_set1_epi32(0x01010101)), _mm512_set1_epi32(0x20002000));
    const __m512i a = _mm512_loadu_si512(signs), b = _mm512_loadu_si512(signs + 64);
    const __m512i gather_up = _mm512_add_epi8(gather, _mm512_set1_epi8(16));
    const __mmask64 second = 0xCCCCCCCCCCCCCCCCu; /* two shuffles are cheaper than one of two registers */
    const __m512i low = _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(gather, a), second, gather, b);
    const __m512i high = _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(gather_up, a), second, gather_up, b);
    index[2] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(low, 4), nibble, group, 0xEA); /* (a & b) | c */
    index[3] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(high, 4), nibble, group, 0xEA);
    index[0] = _mm512_ternarylogic_epi32(low, nibble, group, 0xEA);
    index[1] = _mm512_ternarylogic_epi32(high, nibble, group, 0xEA);
}

/* sum[i] += the four entries at the indices of each row. As assembly, for GCC makes copies of all sums otherwise. */
BITSTACK_AVX512_INLINE_ void bitstack_look_avx512_(__m512i sum[4], const __m512i index[4], __m512i table) {
    const __m512i ones = _mm512_set1_epi8(1);
#ifdef BITSTACK_GNU_
#define BITSTACK_LOOK_(i)                                                                           \
    __asm__ volatile("{vpdpbusd %2, %1, %0|vpdpbusd %0, %1, %2}"                                             \
            : "+v"(sum[i]) : "v"(_mm512_permutexvar_epi8(index[i], table)), "v"(ones));
#else
#define BITSTACK_LOOK_(i) sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_permutexvar_epi8(index[i], table), ones);
#endif
    BITSTACK_LOOK_(0) BITSTACK_LOOK_(1) BITSTACK_LOOK_(2) BITSTACK_LOOK_(3)
#undef BITSTACK_LOOK_
}

/* Four groups of `tiles` tiles, `apart` bytes from each other, and `count` tables, together at most 4. */
BITSTACK_AVX512_INLINE_ void bitstack_step_avx512_(__m512i sum[4][4], const unsigned char *signs, size_t apart,
                                                   const unsigned char *tables, size_t stride, const char *soon,
                                                   const char *later, const int tiles, const int count) {
    __m512i index[4];
#define BITSTACK_TILE_STEP_(tile)                                                                                        \
    if (tiles > tile) {                                                                                                  \
        bitstack_index_avx512_(index, signs + tile * apart);                                                             \
        BITSTACK_PREFETCH_BOTH_(soon + tile * apart, later + tile * apart);                                                \
        bitstack_look_avx512_(sum[tile * count], index, _mm512_loadu_si512(tables));                                     \
        BITSTACK_PREFETCH_BOTH_(soon + tile * apart + 64, later + tile * apart + 64);                                      \
        if (count > 1) bitstack_look_avx512_(sum[(tile * count + 1) % 4], index, _mm512_loadu_si512(tables + stride));   \
        if (count > 2) bitstack_look_avx512_(sum[2], index, _mm512_loadu_si512(tables + 2 * stride));                    \
        if (count > 3) bitstack_look_avx512_(sum[3], index, _mm512_loadu_si512(tables + 3 * stride));                    \
    }
    BITSTACK_TILE_STEP_(0) BITSTACK_TILE_STEP_(1) BITSTACK_TILE_STEP_(2) BITSTACK_TILE_STEP_(3)
#undef BITSTACK_TILE_STEP_
}

/* to[0..63] (+)= scale * sum */
BITSTACK_AVX512_INLINE_ void bitstack_scale_avx512_(float *to, const __m512i sum[4], float scale, int add) {
    const __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[0]), _mm512_set1_ps(scale)), b = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[1]), _mm512_set1_ps(scale));
    const __m512 c = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[2]), _mm512_set1_ps(scale)), d = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[3]), _mm512_set1_ps(scale));
    _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), a) : a);
    _mm512_storeu_ps(to + 16, add ? _mm512_add_ps(_mm512_loadu_ps(to + 16), b) : b);
    _mm512_storeu_ps(to + 32, add ? _mm512_add_ps(_mm512_loadu_ps(to + 32), c) : c);
    _mm512_storeu_ps(to + 48, add ? _mm512_add_ps(_mm512_loadu_ps(to + 48), d) : d);
}

/* One block. rest: room for 512 bytes. */
BITSTACK_AVX512_INLINE_ void bitstack_lookup_some_avx512_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run, size_t from, size_t groups,
                                                          const unsigned char *tables, size_t stride, const float *scales,
                                                          const char *soon, const char *later, unsigned char *rest, const int tiles, const int count) {
    const __m512i less = _mm512_set1_epi32(-(int)((groups + 3) / 4 * 4) * BITSTACK_BIAS_);
    __m512i sum[4][4] = {{less, less, less, less}, {less, less, less, less}, {less, less, less, less}, {less, less, less, less}};
    const unsigned char *signs = run->signs + 32 * from;
    size_t g;
    for (g = 0; g + 4 <= groups; g += 4)
        bitstack_step_avx512_(sum, signs + 32 * g, run->stride, tables + 16 * g, stride, soon + 32 * g, later + 32 * g, tiles, count);
    if (g < groups) { /* the last are fewer than four */
        int i;
        memset(rest, 0, 512);
        for (i = 0; i < tiles; i++) memcpy(rest + 128 * i, signs + (size_t)i * run->stride + 32 * g, 32 * (groups - g));
        bitstack_step_avx512_(sum, rest, 128, tables + 16 * g, stride, soon + 32 * g, later + 32 * g, tiles, count);
    }
    bitstack_scale_avx512_(sums[0], sum[0], scales[0], from > 0);
    if (tiles * count > 1) bitstack_scale_avx512_(sums[1], sum[1], scales[1 % count], from > 0);
    if (tiles * count > 2) bitstack_scale_avx512_(sums[2], sum[2], scales[2 % count], from > 0);
    if (tiles * count > 3) bitstack_scale_avx512_(sums[3], sum[3], scales[3 % count], from > 0);
}

/* One block of one tile whose indices are ready, 256 bytes for four groups, and `count` tables. */
BITSTACK_AVX512_INLINE_ void bitstack_lookup_ready_avx512_(float (*sums)[BITSTACK_TILE_], const unsigned char *indices, size_t groups,
                                                           const unsigned char *tables, size_t stride, const float *scales, int add,
                                                           const int count) {
    const __m512i less = _mm512_set1_epi32(-(int)((groups + 3) / 4 * 4) * BITSTACK_BIAS_);
    __m512i sum[4][4] = {{less, less, less, less}, {less, less, less, less}, {less, less, less, less}, {less, less, less, less}};
    size_t g;
    for (g = 0; g < groups; g += 4) {
        const __m512i index[4] = {_mm512_loadu_si512(indices + 64 * g), _mm512_loadu_si512(indices + 64 * g + 64),
                                  _mm512_loadu_si512(indices + 64 * g + 128), _mm512_loadu_si512(indices + 64 * g + 192)};
        bitstack_look_avx512_(sum[0], index, _mm512_loadu_si512(tables + 16 * g));
        if (count > 1) bitstack_look_avx512_(sum[1], index, _mm512_loadu_si512(tables + stride + 16 * g));
        if (count > 2) bitstack_look_avx512_(sum[2], index, _mm512_loadu_si512(tables + 2 * stride + 16 * g));
        if (count > 3) bitstack_look_avx512_(sum[3], index, _mm512_loadu_si512(tables + 3 * stride + 16 * g));
    }
    bitstack_scale_avx512_(sums[0], sum[0], scales[0], add);
    if (count > 1) bitstack_scale_avx512_(sums[1], sum[1], scales[1], add);
    if (count > 2) bitstack_scale_avx512_(sums[2], sum[2], scales[2], add);
    if (count > 3) bitstack_scale_avx512_(sums[3], sum[3], scales[3], add);
}

/* With more than four tables the indices are made once for all (a quarter faster with 16). */
BITSTACK_AVX512_ static void bitstack_lookup_avx512_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run) {
    const float *scale = run->scales;
    const unsigned char *tables = run->tables;
    BITSTACK_ALIGNED_ unsigned char indices[BITSTACK_TABLES_ > 4 ? BITSTACK_BLOCK_ / 4 * 64 : 512]; /* 512: for the last groups */
    const size_t near_by = BITSTACK_NEAR_(run->tiles), far_off = BITSTACK_FAR_(run->tiles);
    size_t from, groups, g, t, stride;
    for (from = 0; from < run->groups; from += groups, scale += run->count, tables += run->count * stride) {
        const char *soon = bitstack_ahead_(run, from * 32, near_by), *later = bitstack_ahead_(run, from * 32, far_off);
        groups = run->groups - from < BITSTACK_BLOCK_ / 4 ? run->groups - from : BITSTACK_BLOCK_ / 4;
        stride = bitstack_table_bytes_(groups);
        switch (run->tiles * 100 + run->count) {
        case 401: bitstack_lookup_some_avx512_(sums, run, from, groups, tables, stride, scale, soon, later, indices, 4, 1); continue;
        case 202: bitstack_lookup_some_avx512_(sums, run, from, groups, tables, stride, scale, soon, later, indices, 2, 2); continue;
        case 101: bitstack_lookup_some_avx512_(sums, run, from, groups, tables, stride, scale, soon, later, indices, 1, 1); continue;
        case 102: bitstack_lookup_some_avx512_(sums, run, from, groups, tables, stride, scale, soon, later, indices, 1, 2); continue;
        case 103: bitstack_lookup_some_avx512_(sums, run, from, groups, tables, stride, scale, soon, later, indices, 1, 3); continue;
        case 104: bitstack_lookup_some_avx512_(sums, run, from, groups, tables, stride, scale, soon, later, indices, 1, 4); continue;
        default: break;
        }
        for (g = 0; g < groups; g += 4) {
            const unsigned char *signs = run->signs + 32 * (from + g);
            __m512i index[4];
            if (groups - g < 4) {
                memset(indices + 64 * g, 0, 128);
                signs = (const unsigned char *)memcpy(indices + 64 * g, signs, 32 * (groups - g));
            }
            bitstack_index_avx512_(index, signs);
            for (t = 0; t < 4; t++) _mm512_storeu_si512(indices + 64 * g + 64 * t, index[t]);
            BITSTACK_PREFETCH_BOTH_(soon + 32 * g, later + 32 * g);
            BITSTACK_PREFETCH_BOTH_(soon + 32 * g + 64, later + 32 * g + 64);
        }
        for (t = 0; t + 4 <= run->count; t += 4)
            bitstack_lookup_ready_avx512_(sums + t, indices, groups, tables + t * stride, stride, scale + t, from > 0, 4);
        for (; t < run->count; t++)
            bitstack_lookup_ready_avx512_(sums + t, indices, groups, tables + t * stride, stride, scale + t, from > 0, 1);
    }
}
#endif /* AVX512 */

/* ==================================================================================== [NEON]
 * 64-bit ARM always has it. On 32-bit ARM it flushes denormals, so there it does the integer work only
 * and floats stay with the scalar unit, to give the same bits. */
#if defined(BITSTACK_GNU_) && !defined(BITSTACK_NO_SIMD) && !defined(BITSTACK_NO_NEON) && defined(__BYTE_ORDER__) && \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#if defined(__aarch64__) || (defined(__arm__) && defined(__ARM_NEON))
#define BITSTACK_HAS_NEON_
#define BITSTACK_NEON_
#if defined(__aarch64__) && (defined(__ARM_FEATURE_DOTPROD) || defined(__linux__)) && !defined(BITSTACK_NO_DOTPROD)
#define BITSTACK_HAS_DOTPROD_ /* a kernel of its own in [DECODE] */
#endif
#elif defined(__arm__) && defined(__linux__) && !defined(__clang__) && defined(__ARM_FP) && __ARM_ARCH >= 7
#define BITSTACK_HAS_NEON_
#define BITSTACK_NEON_ __attribute__((target("fpu=neon")))
#include <sys/auxv.h>
#endif
#endif
#ifdef BITSTACK_HAS_NEON_
#include <arm_neon.h>

static int bitstack_available_neon_(void) {
#if defined(__aarch64__) || defined(__ARM_NEON)
    return 1;
#else
    return (getauxval(AT_HWCAP) & 1ul << 12) != 0;
#endif
}

#ifdef __aarch64__
/* Four factors as floats. */
static inline float32x4_t bitstack_factors_neon_(const void *from, bitstack_type type, size_t first) {
    if (type == BITSTACK_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)from + 2 * first)));
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)from + 4 * first));
}

static void bitstack_product_neon_(float *z, const void *v, bitstack_type type, size_t first, const float *x, size_t cols) {
    size_t j;
    for (j = 0; j + 4 <= cols; j += 4)
        vst1q_f32(z + j, vmulq_f32(bitstack_factors_neon_(v, type, first + j), bitstack_factors_neon_(x, BITSTACK_F32, j)));
    if (j < cols) bitstack_product_scalar_(z + j, v, type, first + j, (const float *)(const void *)((const char *)x + 4 * j), cols - j);
}

static float bitstack_build_neon_(const float *z, size_t groups, unsigned char *high, unsigned char *low) {
    static const int16_t signs[3][8] = {{-1, 1, -1, 1, -1, 1, -1, 1}, {-1, -1, 1, 1, -1, -1, 1, 1}, {-1, -1, -1, -1, 1, 1, 1, 1}};
    const int16x8_t s0 = vld1q_s16(signs[0]), s1 = vld1q_s16(signs[1]), s2 = vld1q_s16(signs[2]);
    const int16x8_t bias = vreinterpretq_s16_u16(vdupq_n_u16(257 * BITSTACK_BIAS_));
    const size_t cols = (groups + 3) / 4 * 16;
    uint32x4_t largest = vdupq_n_u32(0);
    float scale, inverse;
    size_t j;
    for (j = 0; j < cols; j += 16) {
        const float32x4_t a = vpaddq_f32(vabsq_f32(vld1q_f32(z + j)), vabsq_f32(vld1q_f32(z + j + 4)));
        const float32x4_t b = vpaddq_f32(vabsq_f32(vld1q_f32(z + j + 8)), vabsq_f32(vld1q_f32(z + j + 12)));
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vpaddq_f32(a, b)));
    }
    scale = bitstack_block_scale_(vmaxvq_u32(largest));
    if (!(scale > 0)) {
        memset(high, BITSTACK_BIAS_, cols * 4);
        if (low) memset(low, BITSTACK_BIAS_, cols * 4);
        return scale;
    }
    inverse = 1.0f / scale;
    for (j = 0; j < cols; j += 4) {
        const int16x4_t q = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(z + j), inverse)));
        const int16x8_t sum = vmlaq_lane_s16(vmlaq_lane_s16(vmlaq_lane_s16(bias, s0, q, 0), s1, q, 1), s2, q, 2);
        const uint16x8_t down = vreinterpretq_u16_s16(vsubq_s16(sum, vdupq_lane_s16(q, 3)));
        const uint16x8_t up = vreinterpretq_u16_s16(vaddq_s16(sum, vdupq_lane_s16(q, 3)));
        vst1q_u8(high + 4 * j, vcombine_u8(vshrn_n_u16(down, 8), vshrn_n_u16(up, 8)));
        if (low) vst1q_u8(low + 4 * j, vcombine_u8(vmovn_u16(down), vmovn_u16(up)));
    }
    return scale;
}

static void bitstack_combine_neon_(float *total, const float *base, const float *sums, const void *u, bitstack_type type, size_t first, size_t rows) {
    size_t i;
    for (i = 0; i + 4 <= rows; i += 4) {
        float32x4_t product = vmulq_f32(bitstack_factors_neon_(u, type, first + i), vld1q_f32(sums + i));
        __asm__("" : "+w"(product)); /* so that no compiler fuses it with the sum */
        vst1q_f32(total + i, vaddq_f32(vld1q_f32(base + i), product));
    }
    if (i < rows) bitstack_combine_scalar_(total + i, base + i, sums + i, u, type, first + i, rows - i);
}
#define BITSTACK_LOOK_NEON_(table, index) vqtbl1q_u8(table, index)
#else
#define bitstack_product_neon_ bitstack_product_scalar_
#define bitstack_build_neon_ bitstack_build_scalar_
#define bitstack_combine_neon_ bitstack_combine_scalar_
#define BITSTACK_LOOK_NEON_(table, index) \
    vcombine_u8(vtbl2_u8(table, vget_low_u8(index)), vtbl2_u8(table, vget_high_u8(index)))
#endif

BITSTACK_NEON_ static void bitstack_lookup_neon_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run) {
    const float *scale = run->scales;
    const unsigned char *tables = run->tables;
    size_t from, to, g, t, b;
    for (from = 0; from < run->groups; from = to) {
        to = run->groups - from < BITSTACK_BLOCK_ / 4 ? run->groups : from + BITSTACK_BLOCK_ / 4;
        for (t = 0; t < run->count; t++, scale++, tables += bitstack_table_bytes_(to - from)) {
            uint16x8_t s0 = vdupq_n_u16(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
            uint16_t sum[BITSTACK_TILE_];
            for (g = from; g < to; g++) {
                const uint8x16_t a = vld1q_u8(run->signs + 32 * g), c = vld1q_u8(run->signs + 32 * g + 16);
                const uint8x16_t nibble = vdupq_n_u8(15);
                uint8x16_t found;
#ifdef __aarch64__
                const uint8x16_t table = vld1q_u8(tables + 16 * (g - from));
#else
                uint8x8x2_t table;
                table.val[0] = vld1_u8(tables + 16 * (g - from));
                table.val[1] = vld1_u8(tables + 16 * (g - from) + 8);
#endif
                BITSTACK_PREFETCH_(bitstack_ahead_(run, 32 * g, 1024));
                found = BITSTACK_LOOK_NEON_(table, vandq_u8(a, nibble));
                s0 = vaddw_u8(s0, vget_low_u8(found)), s1 = vaddw_u8(s1, vget_high_u8(found));
                found = BITSTACK_LOOK_NEON_(table, vandq_u8(c, nibble));
                s2 = vaddw_u8(s2, vget_low_u8(found)), s3 = vaddw_u8(s3, vget_high_u8(found));
                found = BITSTACK_LOOK_NEON_(table, vshrq_n_u8(a, 4));
                s4 = vaddw_u8(s4, vget_low_u8(found)), s5 = vaddw_u8(s5, vget_high_u8(found));
                found = BITSTACK_LOOK_NEON_(table, vshrq_n_u8(c, 4));
                s6 = vaddw_u8(s6, vget_low_u8(found)), s7 = vaddw_u8(s7, vget_high_u8(found));
            }
            vst1q_u16(sum, s0), vst1q_u16(sum + 8, s1), vst1q_u16(sum + 16, s2), vst1q_u16(sum + 24, s3);
            vst1q_u16(sum + 32, s4), vst1q_u16(sum + 40, s5), vst1q_u16(sum + 48, s6), vst1q_u16(sum + 56, s7);
            for (b = 0; b < BITSTACK_TILE_; b++) {
                const float part = (float)((int)sum[b] - (int)(to - from) * BITSTACK_BIAS_) * *scale;
                sums[t][b] = from ? sums[t][b] + part : part;
            }
        }
    }
}
#endif /* NEON */

/* ================================================================================ [POPCOUNT]
 * Integer inputs given as bit planes: the sum over columns of sign * bit is twice the count of bits in
 * common less the count of the input's bits. Nibbles of two groups are first put together, so that a byte
 * holds a row's 8 columns, for all bit planes at once; then each plane masks, counts and adds bytes. Byte
 * sums hold 31 times 8. (A register of one row's columns, for the scalar popcnt, would cost more to
 * gather from this layout than it saves.) */
#define BITSTACK_PAIRS_ 31

static inline void bitstack_add_counts_(uint32_t *counts, const unsigned char *bytes) {
    size_t i;
    for (i = 0; i < BITSTACK_TILE_; i++) counts[i] += bytes[i];
}

static void bitstack_count_scalar_(uint32_t (*counts)[BITSTACK_TILE_], const unsigned char *signs, size_t groups,
                                   const unsigned char *bits, size_t stride, size_t planes) {
    const uint64_t low = 0x0F0F0F0F0F0F0F0Fu, ones = 0x0101010101010101u;
    uint64_t rows[BITSTACK_PAIRS_][8], sums[8], a, b;
    size_t pair, some, t, i, k;
    for (pair = 0; pair * 2 < groups; pair += some) {
        some = (groups + 1) / 2 - pair < BITSTACK_PAIRS_ ? (groups + 1) / 2 - pair : BITSTACK_PAIRS_;
        for (i = 0; i < some; i++)
            for (k = 0; k < 4; k++) {
                memcpy(&a, signs + 64 * (pair + i) + 8 * k, 8);
                b = 0;
                if (2 * (pair + i) + 1 < groups) memcpy(&b, signs + 64 * (pair + i) + 32 + 8 * k, 8);
                rows[i][k] = (a & low) | (b & low) << 4;
                rows[i][k + 4] = (a >> 4 & low) | (b & ~low);
            }
        for (t = 0; t < planes; t++) {
            memset(sums, 0, sizeof sums);
            for (i = 0; i < some; i++)
                for (k = 0; k < 8; k++) {
                    a = rows[i][k] & ones * bits[t * stride + pair + i];
                    a -= a >> 1 & 0x5555555555555555u;
                    a = (a & 0x3333333333333333u) + (a >> 2 & 0x3333333333333333u);
                    sums[k] += (a + (a >> 4)) & low;
                }
            bitstack_add_counts_(counts[t], (const unsigned char *)sums);
        }
    }
}

#ifdef BITSTACK_HAS_AVX2_
BITSTACK_AVX2_ static void bitstack_count_avx2_(uint32_t (*counts)[BITSTACK_TILE_], const unsigned char *signs, size_t groups,
                                                const unsigned char *bits, size_t stride, size_t planes) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    BITSTACK_ALIGNED_ unsigned char rows[BITSTACK_PAIRS_][BITSTACK_TILE_], sums[BITSTACK_TILE_];
    size_t pair, some, t, i, half;
    for (pair = 0; pair * 2 < groups; pair += some) {
        some = (groups + 1) / 2 - pair < BITSTACK_PAIRS_ ? (groups + 1) / 2 - pair : BITSTACK_PAIRS_;
        for (i = 0; i < some; i++) {
            const __m256i a = bitstack_load_avx2_(signs + 64 * (pair + i));
            const __m256i b = 2 * (pair + i) + 1 < groups ? bitstack_load_avx2_(signs + 64 * (pair + i) + 32) : _mm256_setzero_si256();
            _mm_prefetch((const char *)((uintptr_t)signs + 64 * (pair + i) + 2048), _MM_HINT_T0);
            bitstack_store_avx2_(rows[i], _mm256_or_si256(_mm256_and_si256(a, low), _mm256_andnot_si256(low, _mm256_slli_epi16(b, 4))));
            bitstack_store_avx2_(rows[i] + 32, _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(a, 4), low), _mm256_andnot_si256(low, b)));
        }
        for (t = 0; t < planes; t++) {
            for (half = 0; half < BITSTACK_TILE_; half += 32) {
                __m256i sum = _mm256_setzero_si256();
                for (i = 0; i < some; i++) {
                    const __m256i masked = _mm256_and_si256(bitstack_load_avx2_(rows[i] + half), _mm256_set1_epi8((char)bits[t * stride + pair + i]));
                    sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(table, _mm256_and_si256(masked, low)));
                    sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(masked, 4), low)));
                }
                bitstack_store_avx2_(sums + half, sum);
            }
            bitstack_add_counts_(counts[t], sums);
        }
    }
}
#endif

#ifdef BITSTACK_HAS_AVX512_
BITSTACK_AVX512_ static void bitstack_count_avx512_(uint32_t (*counts)[BITSTACK_TILE_], const unsigned char *signs, size_t groups,
                                                    const unsigned char *bits, size_t stride, size_t planes) {
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(-16);
    const __m512i halves = _mm512_setr_epi64(0, 1, 2, 3, 8, 9, 10, 11), others = _mm512_setr_epi64(4, 5, 6, 7, 12, 13, 14, 15);
    BITSTACK_ALIGNED_ unsigned char rows[BITSTACK_PAIRS_][BITSTACK_TILE_], sums[BITSTACK_TILE_];
    size_t pair, some, t, i;
    for (pair = 0; pair * 2 < groups; pair += some) {
        some = (groups + 1) / 2 - pair < BITSTACK_PAIRS_ ? (groups + 1) / 2 - pair : BITSTACK_PAIRS_;
        for (i = 0; i < some; i++) { /* nibbles of the first group, then of the second, rows 0..31 and 32..63 */
            const __m512i both = _mm512_maskz_loadu_epi8(2 * (pair + i) + 1 < groups ? ~(__mmask64)0 : 0xFFFFFFFFu, signs + 64 * (pair + i));
            const __m512i up = _mm512_slli_epi16(both, 4), down = _mm512_srli_epi16(both, 4);
            const __m512i first = _mm512_permutex2var_epi64(both, halves, down), second = _mm512_permutex2var_epi64(up, others, both);
            _mm_prefetch((const char *)((uintptr_t)signs + 64 * (pair + i) + 2048), _MM_HINT_T0);
            _mm512_store_si512(rows[i], _mm512_or_si512(_mm512_and_si512(first, low), _mm512_and_si512(second, high)));
        }
        for (t = 0; t < planes; t++) {
            __m512i sum = _mm512_setzero_si512();
            for (i = 0; i < some; i++)
                sum = _mm512_add_epi8(sum, _mm512_popcnt_epi8(_mm512_and_si512(_mm512_load_si512(rows[i]), _mm512_set1_epi8((char)bits[t * stride + pair + i]))));
            _mm512_store_si512(sums, sum);
            bitstack_add_counts_(counts[t], sums);
        }
    }
}
#endif

#ifdef BITSTACK_HAS_NEON_
BITSTACK_NEON_ static void bitstack_count_neon_(uint32_t (*counts)[BITSTACK_TILE_], const unsigned char *signs, size_t groups,
                                                const unsigned char *bits, size_t stride, size_t planes) {
    BITSTACK_ALIGNED_ unsigned char rows[BITSTACK_PAIRS_][BITSTACK_TILE_], sums[BITSTACK_TILE_];
    size_t pair, some, t, i, k;
    for (pair = 0; pair * 2 < groups; pair += some) {
        some = (groups + 1) / 2 - pair < BITSTACK_PAIRS_ ? (groups + 1) / 2 - pair : BITSTACK_PAIRS_;
        for (i = 0; i < some; i++)
            for (k = 0; k < 32; k += 16) {
                const uint8x16_t a = vld1q_u8(signs + 64 * (pair + i) + k);
                const uint8x16_t b = 2 * (pair + i) + 1 < groups ? vld1q_u8(signs + 64 * (pair + i) + 32 + k) : vdupq_n_u8(0);
                vst1q_u8(rows[i] + k, vsliq_n_u8(a, b, 4));
                vst1q_u8(rows[i] + 32 + k, vsriq_n_u8(b, a, 4));
            }
        for (t = 0; t < planes; t++) {
            for (k = 0; k < BITSTACK_TILE_; k += 16) {
                uint8x16_t sum = vdupq_n_u8(0);
                for (i = 0; i < some; i++)
                    sum = vaddq_u8(sum, vcntq_u8(vandq_u8(vld1q_u8(rows[i] + k), vdupq_n_u8(bits[t * stride + pair + i]))));
                vst1q_u8(sums + k, sum);
            }
            bitstack_add_counts_(counts[t], sums);
        }
    }
}
#endif

BITSTACK_API size_t bitstack_pack_bits(void *planes, const int32_t *values, size_t count, int bits) {
    const size_t stride = count / 8 + (count % 8 != 0);
    unsigned char *to = (unsigned char *)planes;
    size_t i;
    int t;
    if (bits < 1 || bits > 8) return 0;
    if (!planes) return stride * (size_t)bits;
    memset(to, 0, stride * (size_t)bits);
    for (t = 0; t < bits; t++)
        for (i = 0; i < count; i++)
            to[(size_t)t * stride + i / 8] |= (unsigned char)(((uint32_t)values[i] >> t & 1u) << i % 8);
    return stride * (size_t)bits;
}

/* ==================================================================================== [GEMM]
 * Large batches of matrices with many planes or ranks: 64 x 128 weights are rebuilt as floats, column by
 * column, and multiplied with six inputs at a time. Written once, for the vectors of each ISA: V is
 * the type, BITS that of as many integers, N their lanes, and the operations are macros named BITSTACK_<operation>_<isa>_. */
/* w[j][row] += (scale u v)[row][j] with the signs of one plane, for all 64 rows (those after the last are
 * whatever they are) and `cols` columns, up to the next multiple of 4. u[r][row], minus_v[r][j]: a bit flips
 * the sign, and 1 is plus. */
#define BITSTACK_DEFINE_PANELS_(isa, ATTRIBUTE, V, BITS, N)                                                         \
    ATTRIBUTE static void bitstack_unfold_##isa##_(float (*w)[BITSTACK_TILE_], const unsigned char *signs, size_t cols,\
                                                   float (*u)[BITSTACK_TILE_], float (*minus_v)[BITSTACK_PANEL_COLS_],\
                                                   size_t ranks) {                                                  \
        size_t row, j, r;                                                                                           \
        for (row = 0; row < BITSTACK_TILE_; row += N)                                                               \
            for (j = 0; j < cols; j += 4) {                                                                         \
                const BITS bits = BITSTACK_BITS_##isa##_(signs + 8 * j + row % 32, row < 32 ? 28 : 24);             \
                V m0 = BITSTACK_ZERO_##isa##_, m1 = m0, m2 = m0, m3 = m0;                                           \
                for (r = 0; r < ranks; r++) {                                                                       \
                    const V a = BITSTACK_LOAD_##isa##_(u[r] + row);                                                 \
                    m0 = BITSTACK_FMA_##isa##_(m0, a, minus_v[r][j]);                                               \
                    m1 = BITSTACK_FMA_##isa##_(m1, a, minus_v[r][j + 1]);                                           \
                    m2 = BITSTACK_FMA_##isa##_(m2, a, minus_v[r][j + 2]);                                           \
                    m3 = BITSTACK_FMA_##isa##_(m3, a, minus_v[r][j + 3]);                                           \
                }                                                                                                   \
                BITSTACK_UNFOLD_STORE_(isa, 0, 3) BITSTACK_UNFOLD_STORE_(isa, 1, 2)                                 \
                BITSTACK_UNFOLD_STORE_(isa, 2, 1) BITSTACK_UNFOLD_STORE_(isa, 3, 0)                                 \
            }                                                                                                       \
    }                                                                                                               \
    /* y[b][row] (+)= sum over j of w[j][row] * x[b][j], for six inputs */                                          \
    ATTRIBUTE static void bitstack_panel_##isa##_(float *const *y, const float *const *x, float (*w)[BITSTACK_TILE_],\
                                                  size_t cols, int add) {                                           \
        const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *x4 = x[4], *x5 = x[5];                         \
        size_t row, j;                                                                                              \
        for (row = 0; row < BITSTACK_TILE_; row += 2 * N) {                                                         \
            V a0 = BITSTACK_ZERO_##isa##_, a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0;                             \
            V b0 = a0, b1 = a0, b2 = a0, b3 = a0, b4 = a0, b5 = a0;                                                 \
            for (j = 0; j < cols; j++) {                                                                            \
                const V p = BITSTACK_LOAD_##isa##_(w[j] + row), q = BITSTACK_LOAD_##isa##_(w[j] + row + N);         \
                a0 = BITSTACK_FMA_##isa##_(a0, p, x0[j]), b0 = BITSTACK_FMA_##isa##_(b0, q, x0[j]);                 \
                a1 = BITSTACK_FMA_##isa##_(a1, p, x1[j]), b1 = BITSTACK_FMA_##isa##_(b1, q, x1[j]);                 \
                a2 = BITSTACK_FMA_##isa##_(a2, p, x2[j]), b2 = BITSTACK_FMA_##isa##_(b2, q, x2[j]);                 \
                a3 = BITSTACK_FMA_##isa##_(a3, p, x3[j]), b3 = BITSTACK_FMA_##isa##_(b3, q, x3[j]);                 \
                a4 = BITSTACK_FMA_##isa##_(a4, p, x4[j]), b4 = BITSTACK_FMA_##isa##_(b4, q, x4[j]);                 \
                a5 = BITSTACK_FMA_##isa##_(a5, p, x5[j]), b5 = BITSTACK_FMA_##isa##_(b5, q, x5[j]);                 \
            }                                                                                                       \
            BITSTACK_PANEL_STORE_(isa, 0, N) BITSTACK_PANEL_STORE_(isa, 1, N) BITSTACK_PANEL_STORE_(isa, 2, N)      \
            BITSTACK_PANEL_STORE_(isa, 3, N) BITSTACK_PANEL_STORE_(isa, 4, N) BITSTACK_PANEL_STORE_(isa, 5, N)      \
        }                                                                                                           \
    }
/* w[j][row] = u[row] v[j] T, for 16 rows; low: the low bytes of T less 128, or NULL. */
#define BITSTACK_DEFINE_UNROLL_(isa, ATTRIBUTE, V, N)                                                               \
    ATTRIBUTE static void bitstack_unroll_##isa##_(float (*w)[BITSTACK_TILE_], const signed char *high, const signed char *low, \
                                                   const float *u, const float *v, size_t cols) {                   \
        size_t row, j;                                                                                              \
        for (row = 0; row < BITSTACK_LANES_; row += N) {                                                            \
            const V scale = BITSTACK_LOAD_##isa##_(u + row);                                                        \
            for (j = 0; j < cols; j++) {                                                                            \
                V value = BITSTACK_BYTES_##isa##_(high + j / 4 * 64 + 4 * row, (int)(24 - 8 * (j % 4)));            \
                if (low) {                                                                                          \
                    const V rest = BITSTACK_BYTES_##isa##_(low + j / 4 * 64 + 4 * row, (int)(24 - 8 * (j % 4)));    \
                    value = BITSTACK_ADD_##isa##_(BITSTACK_TIMES_##isa##_(value, 256), BITSTACK_ADD_##isa##_(rest, BITSTACK_SET_##isa##_(128))); \
                }                                                                                                   \
                BITSTACK_STORE_##isa##_(w[j] + row, BITSTACK_TIMES_##isa##_(BITSTACK_PRODUCT_##isa##_(value, scale), v[j])); \
            }                                                                                                       \
        }                                                                                                           \
    }
#define BITSTACK_UNFOLD_STORE_(isa, i, left)                                                                        \
    BITSTACK_STORE_##isa##_(w[j + i] + row, BITSTACK_ADD_##isa##_(BITSTACK_LOAD_##isa##_(w[j + i] + row),           \
                                                                  BITSTACK_FLIP_##isa##_(m##i, bits, left)));
#define BITSTACK_PANEL_STORE_(isa, i, N)                                                                             \
    if (add) a##i = BITSTACK_ADD_##isa##_(a##i, BITSTACK_LOAD_##isa##_(y[i] + row)),                                 \
             b##i = BITSTACK_ADD_##isa##_(b##i, BITSTACK_LOAD_##isa##_(y[i] + row + N));                             \
    BITSTACK_STORE_##isa##_(y[i] + row, a##i);                                                                       \
    BITSTACK_STORE_##isa##_(y[i] + row + N, b##i);

#ifdef BITSTACK_HAS_AVX2_
#define BITSTACK_ZERO_avx2_ _mm256_setzero_ps()
#define BITSTACK_LOAD_avx2_(from) _mm256_loadu_ps(from)
#define BITSTACK_STORE_avx2_(to, value) _mm256_storeu_ps(to, value)
#define BITSTACK_ADD_avx2_(a, b) _mm256_add_ps(a, b)
#define BITSTACK_FMA_avx2_(sum, a, scalar) _mm256_fmadd_ps(a, _mm256_set1_ps(scalar), sum)
/* Bytes as integers whose bits 31 to 28 are those of the four columns, the last column's first. */
#define BITSTACK_BITS_avx2_(bytes, shift) \
    _mm256_sll_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(bytes))), _mm_cvtsi32_si128(shift))
#define BITSTACK_FLIP_avx2_(value, bits, left) \
    _mm256_xor_ps(value, _mm256_and_ps(_mm256_set1_ps(-0.0f), _mm256_castsi256_ps(_mm256_slli_epi32(bits, left))))
BITSTACK_DEFINE_PANELS_(avx2, BITSTACK_TARGET_("avx2,fma"), __m256, __m256i, 8)
#define BITSTACK_SET_avx2_(scalar) _mm256_set1_ps(scalar)
#define BITSTACK_PRODUCT_avx2_(a, b) _mm256_mul_ps(a, b)
#define BITSTACK_TIMES_avx2_(a, scalar) _mm256_mul_ps(a, _mm256_set1_ps(scalar))
#define BITSTACK_BYTES_avx2_(from, shift) \
    _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_sll_epi32(bitstack_load_avx2_(from), _mm_cvtsi32_si128(shift)), 24))
BITSTACK_DEFINE_UNROLL_(avx2, BITSTACK_AVX2_, __m256, 8)
#endif
#ifdef BITSTACK_HAS_AVX512_
#define BITSTACK_ZERO_avx512_ _mm512_setzero_ps()
#define BITSTACK_LOAD_avx512_(from) _mm512_loadu_ps(from)
#define BITSTACK_STORE_avx512_(to, value) _mm512_storeu_ps(to, value)
#define BITSTACK_ADD_avx512_(a, b) _mm512_add_ps(a, b)
#define BITSTACK_FMA_avx512_(sum, a, scalar) _mm512_fmadd_ps(a, _mm512_set1_ps(scalar), sum)
#define BITSTACK_BITS_avx512_(bytes, shift) \
    _mm512_sll_epi32(_mm512_cvtepu8_epi32(bitstack_load_half_avx2_(bytes)), _mm_cvtsi32_si128(shift))
#define BITSTACK_FLIP_avx512_(value, bits, left)                                                                    \
    _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(value), _mm512_slli_epi32(bits, left),        \
                                                  _mm512_set1_epi32(INT32_MIN), 0x78)) /* a ^ (b & c) */
BITSTACK_DEFINE_PANELS_(avx512, BITSTACK_AVX512_, __m512, __m512i, 16)
#define BITSTACK_SET_avx512_(scalar) _mm512_set1_ps(scalar)
#define BITSTACK_PRODUCT_avx512_(a, b) _mm512_mul_ps(a, b)
#define BITSTACK_TIMES_avx512_(a, scalar) _mm512_mul_ps(a, _mm512_set1_ps(scalar))
#define BITSTACK_BYTES_avx512_(from, shift) \
    _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_sll_epi32(_mm512_loadu_si512(from), _mm_cvtsi32_si128(shift)), 24))
BITSTACK_DEFINE_UNROLL_(avx512, BITSTACK_AVX512_, __m512, 16)
#endif
#if defined(BITSTACK_HAS_NEON_) && defined(__aarch64__)
#define BITSTACK_ZERO_neon_ vdupq_n_f32(0)
#define BITSTACK_LOAD_neon_(from) vld1q_f32(from)
#define BITSTACK_STORE_neon_(to, value) vst1q_f32(to, value)
#define BITSTACK_ADD_neon_(a, b) vaddq_f32(a, b)
#define BITSTACK_FMA_neon_(sum, a, scalar) vfmaq_n_f32(sum, a, scalar)
#define BITSTACK_BITS_neon_(bytes, shift) bitstack_bits_neon_(bytes, shift)
#define BITSTACK_FLIP_neon_(value, bits, left)                                                                      \
    vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(value),                                                   \
                                    vandq_u32(vshlq_n_u32(bits, left), vdupq_n_u32(0x80000000u))))
static inline uint32x4_t bitstack_bits_neon_(const unsigned char *bytes, int shift) {
    uint32_t four;
    memcpy(&four, bytes, 4);
    return vshlq_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))), vdupq_n_s32(shift));
}
BITSTACK_DEFINE_PANELS_(neon, , float32x4_t, uint32x4_t, 4)
#define BITSTACK_SET_neon_(scalar) vdupq_n_f32(scalar)
#define BITSTACK_PRODUCT_neon_(a, b) vmulq_f32(a, b)
#define BITSTACK_TIMES_neon_(a, scalar) vmulq_n_f32(a, scalar)
#define BITSTACK_BYTES_neon_(from, shift) \
    vcvtq_f32_s32(vshrq_n_s32(vshlq_s32(vreinterpretq_s32_s8(vld1q_s8((const int8_t *)(from))), vdupq_n_s32(shift)), 24))
BITSTACK_DEFINE_UNROLL_(neon, , float32x4_t, 4)
#define BITSTACK_PANELS_NEON_ bitstack_unfold_neon_, bitstack_panel_neon_, bitstack_unroll_neon_
#else
#define BITSTACK_PANELS_NEON_ NULL, NULL, NULL
#endif

/* ================================================================================== [DECODE]
 * Products of encoding TABLES. A tile's planes are read 32 columns at a time, their bits become indices, a byte
 * each, and the indices values of the table; 16 rows of four neighbouring columns fill 64 bytes, so that multiplying
 * with four inputs leaves one sum a row. Inputs are integers, with one scale for each group of columns:
 *   z      x_j * v_j, one float product
 *   A      the largest |z| of the group
 *   xs     A / 127, or A / 32512 where inputs have 16 bits (EXACT; always at levels 7 and 8); see bitstack_input_scale_
 *   q      z * (1 / xs) rounded to an integer, ties to even; of 16 bits: q = 256 * high + low, -128 <= low <= 127
 *   sum    of T * q over the group, exact. At levels 7 and 8 T = 256 * high + low, 0 <= low <= 255. There are as many
 *          sums as pairs of such parts, all exact; as floats f(T part, q part) they become
 *          (256 f(high, high) + f(low, high)) * 256 + (256 f(high, low) + f(low, low)), each sum rounded
 *   y      += sum * (s * xs) group by group, both products rounded to float before the sum is; at the end * unit * scale
 * Every step is one IEEE operation, or exact, so all ISAs give the same bits.
 * One input: `stream` looks values up and multiplies them where they are, bound by memory on AVX-512, by operations on AVX2
 * (counted there). Many inputs: `decode` writes a group's bytes, and `mix` multiplies them with up to BITSTACK_INPUTS_ inputs;
 * what bounds it: a product of 32 or 64 bytes, one load of the input's four. Where sums have parts, or groups are wide: `dot`
 * and `fold`. */
#define BITSTACK_PIECE_ (BITSTACK_CHUNK_COLS < 4096 ? 1 : 4)   /* chunks decoded at once */
#define BITSTACK_INPUTS_ (BITSTACK_CHUNK_COLS < 4096 ? 1 : 64) /* inputs at once, of one sum each, where there is `mix` */
#define BITSTACK_SUMS_ (BITSTACK_CHUNK_COLS < 4096 ? 4 : 24)   /* sums at once, where there is none */
#define BITSTACK_HALVES_ (BITSTACK_CHUNK_COLS < 4096 ? 1 : 2)  /* tables held, of the two of levels 7 and 8 */
#define BITSTACK_SIGNS_ ((size_t)BITSTACK_CHUNK_COLS)          /* where the signs of q stand behind q, as a plane's bits */
#define BITSTACK_MAGNITUDES_ (2 * (size_t)BITSTACK_CHUNK_COLS) /* and where |q| does, or q in another order */

static void bitstack_smalls_scalar_(float *to, const unsigned char *codes, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) to[i] = bitstack_small_value_(codes[i]);
}
static inline float bitstack_add_exact_(float total, float by, signed char value) {
    return bitstack_float_of_(bitstack_plus_(bitstack_real_of_(total), bitstack_by_(bitstack_real_of_(by), value)));
}
static void bitstack_times_scalar_(float *total, bitstack_shift_ by) {
    size_t i;
    for (i = 0; i < BITSTACK_LANES_; i++) total[i] = bitstack_float_of_(bitstack_shifted_(bitstack_real_of_(total[i]), by));
}
static void bitstack_whole_scalar_(float *total, const signed char *values, float by) {
    size_t i;
    for (i = 0; i < BITSTACK_LANES_; i++) total[i] = bitstack_add_exact_(total[i], by, values[i]);
}
static uint32_t bitstack_largest_scalar_(const float *z, size_t cols) {
    uint32_t most = 0;
    size_t j;
    for (j = 0; j < cols; j++) {
        const uint32_t bits = bitstack_bits_from_float_(z[j]) & 0x7FFFFFFFu;
        if (bits > most) most = bits;
    }
    return most;
}
/* q[0..cols-1] of 8 bits, or, if stride is not 0, q[0..] high and q[stride..] low bytes of 16 bits; adds them to sums. */
static void bitstack_round_scalar_(signed char *q, size_t stride, int32_t *sums, const float *z, float inverse, size_t cols) {
    size_t j;
    for (j = 0; j < cols; j++) {
        BITSTACK_ROUNDED_ float scaled = z[j] * inverse;
        const int32_t value = bitstack_round_(scaled), high = stride ? (value + 128 + 65536) / 256 - 256 : value;
        q[j] = (signed char)high;
        sums[0] += high;
        if (!stride) continue;
        q[stride + j] = (signed char)(value - 256 * high);
        sums[1] += value - 256 * high;
    }
}

/* Bytes of the table, 512 a chunk: byte 64 k + 4 r + c is that of row r and column 4 k + c. */
static void bitstack_decode_scalar_(signed char *to, const signed char *table, const bitstack_strip_ *strip, size_t chunk, size_t chunks) {
    const size_t end = (chunk + chunks) * BITSTACK_CHUNK_BYTES_;
    size_t at, k, c;
    uint32_t bits[BITSTACK_TABLE_LEVELS_], index, p;
    for (at = chunk * BITSTACK_CHUNK_BYTES_; at < end; at += 4, to += at % BITSTACK_CHUNK_BYTES_ ? 4 : 4 + 512 - 64) {
        for (p = 0; p < strip->level; p++) bits[p] = bitstack_load32_(strip->planes[p] + at);
        for (k = 0; k < 8; k++) {
            for (p = 0, index = 0; p < strip->level; p++) index |= (bits[p] >> k & 0x01010101u) << p; /* of four columns */
            for (c = 0; c < 4; c++, index >>= 8) to[64 * k + c] = table[index & 255u];
        }
    }
}
/* sums[v * step][row] += sum over columns of bytes * q[v * stride ..], for each of `vectors`. words: bytes may be -128. */
static void bitstack_dot_scalar_(int32_t (*sums)[BITSTACK_LANES_], size_t step, const signed char *bytes, size_t chunks, const signed char *q,
                                 size_t stride, size_t vectors, int words) {
    size_t v, k, r;
    (void)words;
    for (v = 0; v < vectors; v++, q += stride)
        for (k = 0; k < 8 * chunks; k++)
            for (r = 0; r < BITSTACK_LANES_; r++) {
                const signed char *four = bytes + 64 * k + 4 * r, *by = q + 4 * k;
                sums[v * step][r] += four[0] * by[0] + four[1] * by[1] + four[2] * by[2] + four[3] * by[3];
            }
}
/* total[row] += the value of the sums [part of the input][part of the table] * (scales[row] * input_scale) */
static void bitstack_fold_scalar_(float *total, int32_t (*sums)[BITSTACK_LANES_], int parts, int halves, const float *scales, float input_scale) {
    size_t i;
    int part;
    for (i = 0; i < BITSTACK_LANES_; i++) {
        BITSTACK_ROUNDED_ float value = 0, t = scales[i] * input_scale;
        for (part = 0; part < parts; part++) {
            BITSTACK_ROUNDED_ float one = (float)sums[part * halves][i];
            if (halves > 1) one = one * 256.0f + (float)sums[part * halves + 1][i];
            value = part ? value * 256.0f + one : one;
        }
        {
            volatile float product = value * t; /* so that no compiler fuses it with the sum */
            total[i] += product;
        }
    }
}

/* The vector kernels, written once: N vectors V hold a chunk of a plane, 16 / N rows each; what an ISA does is in
 * macros named BITSTACK_<operation>_<isa>_. The bits of `level` planes become eight vectors of indices by exchanging
 * halves of pairs, as a matrix of bits is transposed; bits above an index are whatever they are, tables being repeated. */
#ifdef BITSTACK_X86_
#define BITSTACK_PREFETCH_AHEAD_(at) BITSTACK_PREFETCH_BOTH_((const char *)((at) + 1024), (const char *)((at) + 8192));
#else
#define BITSTACK_PREFETCH_AHEAD_(at) BITSTACK_PREFETCH_((const char *)((at) + 2048));
#endif
#define BITSTACK_PREFETCH_PLANE_(strip, at, level, p) \
    if ((level) > (p)) BITSTACK_PREFETCH_AHEAD_((uintptr_t)(strip)->planes[p] + (at))
#define BITSTACK_PREFETCH_PLANES_(strip, at, level)                                                                  \
    do {                                                                                                             \
        BITSTACK_PREFETCH_PLANE_(strip, at, level, 0) BITSTACK_PREFETCH_PLANE_(strip, at, level, 1)                  \
        BITSTACK_PREFETCH_PLANE_(strip, at, level, 2) BITSTACK_PREFETCH_PLANE_(strip, at, level, 3)                  \
        BITSTACK_PREFETCH_PLANE_(strip, at, level, 4) BITSTACK_PREFETCH_PLANE_(strip, at, level, 5)                  \
        BITSTACK_PREFETCH_PLANE_(strip, at, level, 6) BITSTACK_PREFETCH_PLANE_(strip, at, level, 7)                  \
    } while (0);
/* even = mask ? a : b << n, odd = mask ? a >> n : b; two ways. */
#define BITSTACK_PAIR_SELECT_(isa, V, even, odd, a, b, mask, n)                                                      \
    do {                                                                                                             \
        const V pair_a = a, pair_b = b;                                                                              \
        even = BITSTACK_SELECT_##isa##_(mask, pair_a, BITSTACK_SHL_##isa##_(pair_b, n));                             \
        odd = BITSTACK_SELECT_##isa##_(mask, BITSTACK_SHR_##isa##_(pair_a, n), pair_b);                              \
    } while (0);
#define BITSTACK_PAIR_SWAP_(isa, V, even, odd, a, b, mask, n)                                                        \
    do {                                                                                                             \
        const V pair_a = a, pair_b = b;                                                                              \
        const V swap = BITSTACK_AND_##isa##_(BITSTACK_XOR_##isa##_(BITSTACK_SHR_##isa##_(pair_a, n), pair_b), mask); \
        even = BITSTACK_XOR_##isa##_(pair_a, BITSTACK_SHL_##isa##_(swap, n));                                        \
        odd = BITSTACK_XOR_##isa##_(pair_b, swap);                                                                   \
    } while (0);
#define BITSTACK_PLANE_(isa, from, with) ((with) ? BITSTACK_XOR_##isa##_(BITSTACK_LOADI_##isa##_(from), *(with)) : BITSTACK_LOADI_##isa##_(from))
#define BITSTACK_DEFINE_FOLD_(isa, ATTRIBUTE, F, LANES)                                                              \
    ATTRIBUTE static void bitstack_fold_##isa##_(float *total, int32_t (*sums)[BITSTACK_LANES_], int parts, int halves, const float *scales, \
                                                 float input_scale) {                                                \
        size_t i;                                                                                                    \
        int part;                                                                                                    \
        for (i = 0; i < BITSTACK_LANES_; i += LANES) {                                                               \
            const F t = BITSTACK_SCALED_##isa##_(BITSTACK_LOAD_##isa##_(scales + i), input_scale);                   \
            F value = t, product;                                                                                    \
            for (part = 0; part < parts; part++) {                                                                   \
                F one = BITSTACK_FLOATS_##isa##_(sums[part * halves] + i); /* times 256 is exact: fused or not */    \
                if (halves > 1) one = BITSTACK_ADD_##isa##_(BITSTACK_SCALED_##isa##_(one, 256), BITSTACK_FLOATS_##isa##_(sums[part * halves + 1] + i)); \
                value = part ? BITSTACK_ADD_##isa##_(BITSTACK_SCALED_##isa##_(value, 256), one) : one;               \
            }                                                                                                        \
            product = BITSTACK_MUL_##isa##_(value, t);                                                               \
            BITSTACK_KEEP_##isa##_(product) /* so that no compiler fuses it with the sum */                          \
            BITSTACK_STORE_##isa##_(total + i, BITSTACK_ADD_##isa##_(BITSTACK_LOAD_##isa##_(total + i), product));   \
        }                                                                                                            \
    }
#define BITSTACK_DEFINE_DECODE_(isa, ATTRIBUTE, INLINE, V, N)                                                        \
    /* fields: of levels 1 and 2 a nibble has the indices of four or two columns, for which there are tables */      \
    /* with: what every plane is combined with (exclusive or), or NULL */                                            \
    INLINE void bitstack_nibbles_##isa##_(V to[4], const unsigned char *const *planes, size_t at, const uint32_t level, const int fields, const V *with) { \
        V a = BITSTACK_PLANE_(isa, planes[0] + at, with), b, even, odd, even2, odd2;                                 \
        if (level == 1) {                                                                                            \
            if (fields) to[0] = to[1] = to[2] = to[3] = a;                                                           \
            else to[0] = a, to[1] = BITSTACK_SHR_##isa##_(a, 1), to[2] = BITSTACK_SHR_##isa##_(a, 2), to[3] = BITSTACK_SHR_##isa##_(a, 3); \
            return;                                                                                                  \
        }                                                                                                            \
        b = BITSTACK_PLANE_(isa, planes[1] + at, with);                                                                 \
        BITSTACK_PAIR_##isa##_(V, even, odd, a, b, 0x55, 1)                                                                \
        if (level == 2) {                                                                                            \
            to[0] = even, to[1] = odd;                                                                               \
            to[2] = fields ? even : BITSTACK_SHR_##isa##_(even, 2), to[3] = fields ? odd : BITSTACK_SHR_##isa##_(odd, 2); \
            return;                                                                                                  \
        }                                                                                                            \
        a = BITSTACK_PLANE_(isa, planes[2] + at, with);                                                                 \
        if (level == 3) even2 = BITSTACK_ALONE_##isa##_(a), odd2 = BITSTACK_ALONE_##isa##_(BITSTACK_SHR_##isa##_(a, 1)); \
        else {                                                                                                       \
            b = BITSTACK_PLANE_(isa, planes[3] + at, with);                                                             \
            BITSTACK_PAIR_##isa##_(V, even2, odd2, a, b, 0x55, 1)                                                          \
        }                                                                                                            \
        BITSTACK_PAIR_##isa##_(V, to[0], to[2], even, even2, 0x33, 2)                                                      \
        BITSTACK_PAIR_##isa##_(V, to[1], to[3], odd, odd2, 0x33, 2)                                                        \
    }                                                                                                                \
    INLINE void bitstack_index_##isa##_of_(V index[8], const unsigned char *const *planes, size_t at, const uint32_t level, const V *with) { \
        V low[4], high[4];                                                                                           \
        bitstack_nibbles_##isa##_(low, planes, at, level < 4 ? level : 4, BITSTACK_FIELDS_##isa##_, with);                 \
        if (level > 4) {                                                                                             \
            bitstack_nibbles_##isa##_(high, planes + 4, at, level - 4, 0, with);                                           \
            BITSTACK_PAIR_##isa##_(V, index[0], index[4], low[0], high[0], 0x0F, 4)                                        \
            BITSTACK_PAIR_##isa##_(V, index[1], index[5], low[1], high[1], 0x0F, 4)                                        \
            BITSTACK_PAIR_##isa##_(V, index[2], index[6], low[2], high[2], 0x0F, 4)                                        \
            BITSTACK_PAIR_##isa##_(V, index[3], index[7], low[3], high[3], 0x0F, 4)                                        \
            return;                                                                                                  \
        }                                                                                                            \
        index[0] = low[0], index[1] = low[1], index[2] = low[2], index[3] = low[3];                                  \
        index[4] = BITSTACK_SHR_##isa##_(low[0], 4), index[5] = BITSTACK_SHR_##isa##_(low[1], 4);                    \
        index[6] = BITSTACK_SHR_##isa##_(low[2], 4), index[7] = BITSTACK_SHR_##isa##_(low[3], 4);                    \
    }                                                                                                                \
    INLINE void bitstack_decode_some_##isa##_(signed char *to, const signed char *from, const bitstack_strip_ *strip, size_t at, size_t end, \
                                              const uint32_t level) {                                                \
        const bitstack_entries_##isa##_ table = bitstack_table_##isa##_(from, level);                                \
        size_t k;                                                                                                    \
        for (; at < end; at += 64 / N, to += at % 64 ? 64 / N : 512 - 64 + 64 / N) {                                 \
            V index[8];                                                                                              \
            if (at % 64 == 0) BITSTACK_PREFETCH_PLANES_(strip, at, level)                                            \
            bitstack_index_##isa##_of_(index, strip->planes, at, level, NULL);                                             \
            for (k = 0; k < 8; k++) BITSTACK_STOREI_##isa##_(to + 64 * k, BITSTACK_LOOK_##isa##_(&table, index[k], level, k)); \
        }                                                                                                            \
    }                                                                                                                \
    ATTRIBUTE static void bitstack_decode_##isa##_(signed char *to, const signed char *table, const bitstack_strip_ *strip, size_t chunk, \
                                                   size_t chunks) {                                                  \
        const size_t at = chunk * 64, end = at + chunks * 64;                                                        \
        switch (strip->level) {                                                                                      \
        case 1: bitstack_decode_some_##isa##_(to, table, strip, at, end, 1); break;                                  \
        case 2: bitstack_decode_some_##isa##_(to, table, strip, at, end, 2); break;                                  \
        case 3: bitstack_decode_some_##isa##_(to, table, strip, at, end, 3); break;                                  \
        case 4: bitstack_decode_some_##isa##_(to, table, strip, at, end, 4); break;                                  \
        case 5: bitstack_decode_some_##isa##_(to, table, strip, at, end, 5); break;                                  \
        case 6: bitstack_decode_some_##isa##_(to, table, strip, at, end, 6); break;                                  \
        case 7: bitstack_decode_some_##isa##_(to, table, strip, at, end, 7); break;                                  \
        default: bitstack_decode_some_##isa##_(to, table, strip, at, end, 8);                                        \
        }                                                                                                            \
    }                                                                                                                \
    INLINE void bitstack_stream_some_##isa##_(float *total, const bitstack_strip_ *strip, const uint32_t level) {    \
        const bitstack_entries_##isa##_ table = bitstack_table_##isa##_(strip->table, level);                         \
        const unsigned char *codes = strip->codes;                                                                   \
        size_t g, at, begin, end = 0, h;                                                                             \
        for (g = 0; end < strip->chunks * 64; g++, codes += BITSTACK_LANES_) {                                       \
            begin = end;                                                                                             \
            end = (g + 1) * strip->group_chunks < strip->chunks ? (g + 1) * strip->group_chunks * 64 : strip->chunks * 64; \
            /* one after the other, so that sums stay in registers; two tiles, so that few planes are read in two places */ \
            for (h = 0; h < (level <= 2 && strip->apart ? 2 * N : N); h++) {                                         \
                bitstack_partial_##isa##_ sum = BITSTACK_START_##isa##_(strip->sums[g]);                             \
                const signed char *by = strip->q + begin / 2;                                                        \
                const size_t there = level <= 2 ? h / N * strip->apart : 0;                                          \
                for (at = begin; at < end; at += 64, by += BITSTACK_CHUNK_) {                                        \
                    V index[8];                                                                                      \
                    if (h % N == 0) BITSTACK_PREFETCH_PLANES_(strip, at + there, level)                              \
                    bitstack_index_##isa##_of_(index, strip->planes, at + there + h % N * (64 / N), level, NULL);    \
                    BITSTACK_DOT_READY_##isa##_(sum, 0, BITSTACK_LOOK_##isa##_(&table, index[0], level, 0), by + 0)  \
                    BITSTACK_DOT_READY_##isa##_(sum, 1, BITSTACK_LOOK_##isa##_(&table, index[1], level, 1), by + 4)  \
                    BITSTACK_DOT_READY_##isa##_(sum, 2, BITSTACK_LOOK_##isa##_(&table, index[2], level, 2), by + 8)  \
                    BITSTACK_DOT_READY_##isa##_(sum, 3, BITSTACK_LOOK_##isa##_(&table, index[3], level, 3), by + 12) \
                    BITSTACK_DOT_READY_##isa##_(sum, 0, BITSTACK_LOOK_##isa##_(&table, index[4], level, 4), by + 16) \
                    BITSTACK_DOT_READY_##isa##_(sum, 1, BITSTACK_LOOK_##isa##_(&table, index[5], level, 5), by + 20) \
                    BITSTACK_DOT_READY_##isa##_(sum, 2, BITSTACK_LOOK_##isa##_(&table, index[6], level, 6), by + 24) \
                    BITSTACK_DOT_READY_##isa##_(sum, 3, BITSTACK_LOOK_##isa##_(&table, index[7], level, 7), by + 28) \
                }                                                                                                    \
                bitstack_add_group_##isa##_(total + h * (16 / N), BITSTACK_SUM_##isa##_(sum), codes + (level <= 2 ? h / N * strip->codes_apart : 0) + h % N * (16 / N), strip->scales[g]); \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    ATTRIBUTE static void bitstack_stream_##isa##_(float *total, const bitstack_strip_ *strip) {                     \
        switch (strip->level) {                                                                                      \
        case 1: bitstack_stream_some_##isa##_(total, strip, 1); break;                                               \
        case 2: bitstack_stream_some_##isa##_(total, strip, 2); break;                                               \
        case 3: bitstack_stream_some_##isa##_(total, strip, 3); break;                                               \
        case 4: bitstack_stream_some_##isa##_(total, strip, 4); break;                                               \
        case 5: bitstack_stream_some_##isa##_(total, strip, 5); break;                                               \
        default: bitstack_stream_some_##isa##_(total, strip, 6);                                                     \
        }                                                                                                            \
    }                                                                                                                \
    /* Up to `many` inputs at once. */                                                                               \
    INLINE void bitstack_dot_some_##isa##_(int32_t (*sums)[BITSTACK_LANES_], size_t step, const signed char *bytes, size_t chunks, \
                                           const signed char *q, size_t stride, const size_t many, const int words) { \
        size_t h, k, v;                                                                                              \
        for (h = 0; h < N; h++) {                                                                                    \
            bitstack_partial_##isa##_ sum[4];                                                                        \
            for (v = 0; v < many; v++) sum[v] = BITSTACK_START_##isa##_(0);                                          \
            for (k = 0; k < 8 * chunks; k += 2) {                                                                    \
                const V value = BITSTACK_LOADI_##isa##_(bytes + 64 * k + h * (64 / N));                              \
                const V next = BITSTACK_LOADI_##isa##_(bytes + 64 * k + 64 + h * (64 / N));                          \
                for (v = 0; v < many; v++) {                                                                         \
                    const signed char *by = q + v * stride + 4 * k;                                                  \
                    if (words) {                                                                                     \
                        BITSTACK_DOT_WORDS_##isa##_(sum[v], value, by)                                               \
                        BITSTACK_DOT_WORDS_##isa##_(sum[v], next, by + 4)                                            \
                    } else {                                                                                         \
                        BITSTACK_DOT_##isa##_(sum[v], 0, value, by)                                                  \
                        BITSTACK_DOT_##isa##_(sum[v], 1, next, by + 4)                                               \
                    }                                                                                                \
                }                                                                                                    \
            }                                                                                                        \
            for (v = 0; v < many; v++) BITSTACK_ADD_SUM_##isa##_(sums[v * step] + h * (16 / N), BITSTACK_SUM_##isa##_(sum[v])); \
        }                                                                                                            \
    }                                                                                                                \
    ATTRIBUTE static void bitstack_dot_##isa##_(int32_t (*sums)[BITSTACK_LANES_], size_t step, const signed char *bytes, size_t chunks, \
                                                const signed char *q, size_t stride, size_t vectors, int words) {    \
        for (; vectors >= 4; vectors -= 4, sums += 4 * step, q += 4 * stride) {                                      \
            if (words) bitstack_dot_some_##isa##_(sums, step, bytes, chunks, q, stride, 4, 1);                       \
            else bitstack_dot_some_##isa##_(sums, step, bytes, chunks, q, stride, 4, 0);                             \
        }                                                                                                            \
        for (; vectors; vectors--, sums += step, q += stride) {                                                      \
            if (words) bitstack_dot_some_##isa##_(sums, step, bytes, chunks, q, stride, 1, 1);                       \
            else bitstack_dot_some_##isa##_(sums, step, bytes, chunks, q, stride, 1, 0);                             \
        }                                                                                                            \
    }

/* Products of one group with many inputs: its bytes, decoded once, with up to eight inputs at a time, whose sums stay in registers. */
#define BITSTACK_MIX_BOTH_(isa, v)                                                                                   \
    if (many > v) {                                                                                                  \
        BITSTACK_DOT_##isa##_(sum##v, BITSTACK_CHAIN_##isa##_(many, 0), value, q + v * in->stride + 4 * k)           \
        BITSTACK_DOT_##isa##_(sum##v, BITSTACK_CHAIN_##isa##_(many, 1), next, q + v * in->stride + 4 * k + 4)        \
    }
#define BITSTACK_MIX_STORE_(isa, F, N, v)                                                                            \
    if (many > v) {                                                                                                  \
        F product = BITSTACK_MUL_##isa##_(BITSTACK_CONVERT_##isa##_(BITSTACK_SUM_##isa##_(sum##v)),                  \
                                          BITSTACK_SCALED_##isa##_(scale, input_scales[v])); \
        BITSTACK_KEEP_##isa##_(product)                                                                              \
        BITSTACK_STORE_##isa##_(total[first + v] + h * (16 / N), BITSTACK_ADD_##isa##_(BITSTACK_LOAD_##isa##_(total[first + v] + h * (16 / N)), product)); \
    }
#define BITSTACK_MIX_SUM_(isa, v) bitstack_partial_##isa##_ sum##v = BITSTACK_START_##isa##_(starts[many > v ? v : 0]);
#define BITSTACK_DEFINE_MIX_(isa, ATTRIBUTE, INLINE, V, F, N)                                                        \
    INLINE void bitstack_mix_some_##isa##_(float (*total)[BITSTACK_LANES_], const signed char *bytes, size_t chunks, const float *scales, \
                                           const bitstack_inputs_ *in, size_t group, size_t column, size_t first, const size_t many) { \
        const float *input_scales = in->scales + group * in->batch + first;                                          \
        const int32_t *starts = in->sums + group * in->batch + first;                                                \
        const signed char *q = in->q + first * in->stride + column;                                                  \
        size_t h, k;                                                                                                 \
        for (h = 0; h < N; h++) {                                                                                    \
            const F scale = BITSTACK_LOAD_##isa##_(scales + h * (16 / N));                                           \
            BITSTACK_MIX_SUM_(isa, 0) BITSTACK_MIX_SUM_(isa, 1) BITSTACK_MIX_SUM_(isa, 2) BITSTACK_MIX_SUM_(isa, 3)  \
            BITSTACK_MIX_SUM_(isa, 4) BITSTACK_MIX_SUM_(isa, 5) BITSTACK_MIX_SUM_(isa, 6) BITSTACK_MIX_SUM_(isa, 7)  \
            for (k = 0; k < 8 * chunks; k += 2) {                                                                    \
                const V value = BITSTACK_LOADI_##isa##_(bytes + 64 * k + h * (64 / N));                              \
                const V next = BITSTACK_LOADI_##isa##_(bytes + 64 * k + 64 + h * (64 / N));                          \
                BITSTACK_MIX_BOTH_(isa, 0) BITSTACK_MIX_BOTH_(isa, 1) BITSTACK_MIX_BOTH_(isa, 2) BITSTACK_MIX_BOTH_(isa, 3) \
                BITSTACK_MIX_BOTH_(isa, 4) BITSTACK_MIX_BOTH_(isa, 5) BITSTACK_MIX_BOTH_(isa, 6) BITSTACK_MIX_BOTH_(isa, 7) \
            }                                                                                                        \
            BITSTACK_MIX_STORE_(isa, F, N, 0) BITSTACK_MIX_STORE_(isa, F, N, 1) BITSTACK_MIX_STORE_(isa, F, N, 2) BITSTACK_MIX_STORE_(isa, F, N, 3) \
            BITSTACK_MIX_STORE_(isa, F, N, 4) BITSTACK_MIX_STORE_(isa, F, N, 5) BITSTACK_MIX_STORE_(isa, F, N, 6) BITSTACK_MIX_STORE_(isa, F, N, 7) \
        }                                                                                                            \
    }                                                                                                                \
    ATTRIBUTE static void bitstack_mix_##isa##_(float (*total)[BITSTACK_LANES_], const signed char *bytes, size_t chunks, const float *scales, \
                                                const bitstack_inputs_ *in, size_t group, size_t first) {            \
        const size_t column = group * in->group_cols;                                                                \
        for (; in->batch - first >= 8; first += 8) bitstack_mix_some_##isa##_(total, bytes, chunks, scales, in, group, column, first, 8); \
        if (in->batch - first >= 4) bitstack_mix_some_##isa##_(total, bytes, chunks, scales, in, group, column, first, 4), first += 4; \
        switch (in->batch - first) {                                                                                 \
        case 1: bitstack_mix_some_##isa##_(total, bytes, chunks, scales, in, group, column, first, 1); break;        \
        case 2: bitstack_mix_some_##isa##_(total, bytes, chunks, scales, in, group, column, first, 2); break;        \
        case 3: bitstack_mix_some_##isa##_(total, bytes, chunks, scales, in, group, column, first, 3); break;        \
        default: break;                                                                                              \
        }                                                                                                            \
    }

#ifdef BITSTACK_HAS_SSE4_
/* Without VNNI: |inputs| times the table's values with the inputs' signs; two of at most 128 * 127 fit 16 bits. Of more
 * than 16 entries, the exclusive or of neighbouring sixteens is taken from where an index reaches the later one. */
typedef struct bitstack_entries_sse4_ {
    __m128i entries[16];
} bitstack_entries_sse4_;
typedef __m128i bitstack_partial_sse4_;
/* The table for `level` bits of a nibble from bit `shift` on. */
BITSTACK_SSE4_INLINE_ __m128i bitstack_field_sse4_(__m128i table, int shift, uint32_t level) {
    const __m128i nibbles = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm_shuffle_epi8(table, _mm_and_si128(_mm_srl_epi16(nibbles, _mm_cvtsi32_si128(shift)), _mm_set1_epi8((char)(level == 1 ? 1 : 3))));
}
BITSTACK_SSE4_INLINE_ bitstack_entries_sse4_ bitstack_table_sse4_(const signed char *table, const uint32_t level) {
    bitstack_entries_sse4_ it;
    size_t i;
    it.entries[0] = bitstack_load_sse4_(table);
    for (i = 1; level <= 2 && i < 4 / level; i++) it.entries[i] = bitstack_field_sse4_(it.entries[0], (int)(i * level), level);
    for (i = 1; i < (size_t)(level < 5 ? 1 : 1 << (level - 4)); i++)
        it.entries[i] = i == 8 ? bitstack_load_sse4_(table + 128)
                               : _mm_xor_si128(bitstack_load_sse4_(table + 16 * i), bitstack_load_sse4_(table + 16 * i - 16));
    return it;
}
BITSTACK_SSE4_INLINE_ __m128i bitstack_look_sixteens_sse4_(const __m128i *entries, __m128i index, const int count) {
    __m128i value;
    int i;
    index = _mm_and_si128(index, _mm_set1_epi8((char)(16 * count - 1)));
    value = _mm_shuffle_epi8(entries[0], index);
    for (i = 1; i < count; i++) value = _mm_xor_si128(value, _mm_shuffle_epi8(entries[i], _mm_sub_epi8(index, _mm_set1_epi8((char)(16 * i)))));
    return value;
}
BITSTACK_SSE4_INLINE_ __m128i bitstack_look_bytes_sse4_(const bitstack_entries_sse4_ *table, __m128i index, const uint32_t level, const size_t k) {
    if (level <= 2) return bitstack_look_sixteens_sse4_(table->entries + (level == 1 ? k % 4 : k / 2 % 2), index, 1);
    if (level == 3) return _mm_shuffle_epi8(table->entries[0], index); /* bits 3 and 7 are zero, others do not count */
    if (level <= 7) return bitstack_look_sixteens_sse4_(table->entries, index, level < 5 ? 1 : 1 << (level - 4));
    return _mm_blendv_epi8(bitstack_look_sixteens_sse4_(table->entries, index, 8), bitstack_look_sixteens_sse4_(table->entries + 8, index, 8), index);
}
BITSTACK_SSE4_INLINE_ __m128i bitstack_four_inputs_sse4_(const signed char *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm_set1_epi32(four);
}
BITSTACK_SSE4_INLINE_ __m128i bitstack_dot_bytes_sse4_(__m128i sum, __m128i bytes, __m128i q, __m128i magnitude) {
    const __m128i pairs = _mm_maddubs_epi16(magnitude, _mm_sign_epi8(bytes, q));
    return _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
}
BITSTACK_SSE4_INLINE_ __m128i bitstack_dot_words_sse4_(__m128i sum, __m128i bytes, __m128i q) {
    sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_srai_epi16(bytes, 8), _mm_srai_epi16(q, 8)));
    return _mm_add_epi32(sum, _mm_madd_epi16(_mm_srai_epi16(_mm_slli_epi16(bytes, 8), 8), _mm_srai_epi16(_mm_slli_epi16(q, 8), 8)));
}
#define BITSTACK_LOADI_sse4_(from) bitstack_load_sse4_(from)
#define BITSTACK_STOREI_sse4_(to, value) _mm_storeu_si128((__m128i *)(void *)(to), value)
#define BITSTACK_SHL_sse4_(value, n) _mm_slli_epi16(value, n)
#define BITSTACK_SHR_sse4_(value, n) _mm_srli_epi16(value, n)
#define BITSTACK_FIELDS_sse4_ 1
#define BITSTACK_ALONE_sse4_(a) BITSTACK_AND_sse4_(a, 0x55) /* every other bit, so that what stands above a level 3 index is 0 */
#define BITSTACK_PAIR_sse4_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SWAP_(sse4, V, even, odd, a, b, mask, n)
#define BITSTACK_AND_sse4_(a, byte) _mm_and_si128(a, _mm_set1_epi8(byte))
#define BITSTACK_XOR_sse4_(a, b) _mm_xor_si128(a, b)
#define BITSTACK_LOOK_sse4_ bitstack_look_bytes_sse4_
#define BITSTACK_START_sse4_(sum_of_inputs) ((void)(sum_of_inputs), _mm_setzero_si128())
#define BITSTACK_DOT_sse4_(partial, which, bytes, q) (partial) = bitstack_dot_bytes_sse4_(partial, bytes, bitstack_four_inputs_sse4_(q), _mm_abs_epi8(bitstack_four_inputs_sse4_(q)));
#define BITSTACK_DOT_READY_sse4_(partial, which, bytes, q) \
    (partial) = bitstack_dot_bytes_sse4_(partial, bytes, bitstack_four_inputs_sse4_(q), bitstack_four_inputs_sse4_((q) + BITSTACK_MAGNITUDES_));
#define BITSTACK_DOT_WORDS_sse4_(partial, bytes, q) (partial) = bitstack_dot_words_sse4_(partial, bytes, bitstack_four_inputs_sse4_(q));
#define BITSTACK_SUM_sse4_(partial) (partial)
#define BITSTACK_ADD_SUM_sse4_(to, value) BITSTACK_STOREI_sse4_(to, _mm_add_epi32(BITSTACK_LOADI_sse4_(to), value))
#define BITSTACK_LOAD_sse4_(from) _mm_loadu_ps(from)
#define BITSTACK_STORE_sse4_(to, value) _mm_storeu_ps(to, value)
#define BITSTACK_ADD_sse4_(a, b) _mm_add_ps(a, b)
#define BITSTACK_MUL_sse4_(a, b) _mm_mul_ps(a, b)
#define BITSTACK_SCALED_sse4_(a, scalar) _mm_mul_ps(a, _mm_set1_ps(scalar))
#define BITSTACK_CONVERT_sse4_(sum) _mm_cvtepi32_ps(sum)
#define BITSTACK_CHAIN_sse4_(many, which) (which)
#define BITSTACK_FLOATS_sse4_(from) _mm_cvtepi32_ps(bitstack_load_sse4_(from))
#define BITSTACK_KEEP_sse4_(value) BITSTACK_KEEP_X86_(value)
BITSTACK_SSE4_INLINE_ void bitstack_add_group_sse4_(float *total, __m128i sum, const unsigned char *codes, float input_scale) {
    const __m128i code = _mm_cvtepu8_epi32(_mm_cvtsi32_si128((int)bitstack_load32_(codes)));
    const __m128i value = _mm_add_epi32(_mm_slli_epi32(code, 18), _mm_set1_epi32(120 << 23));
    const __m128 scale = _mm_castsi128_ps(_mm_andnot_si128(_mm_cmpeq_epi32(code, _mm_setzero_si128()), value));
    __m128 product = _mm_mul_ps(_mm_cvtepi32_ps(sum), _mm_mul_ps(scale, _mm_set1_ps(input_scale)));
    BITSTACK_KEEP_sse4_(product)
    _mm_storeu_ps(total, _mm_add_ps(_mm_loadu_ps(total), product));
}
BITSTACK_DEFINE_FOLD_(sse4, BITSTACK_SSE4_, __m128, 4)
BITSTACK_SSE4_ static void bitstack_prepare_sse4_(signed char *q, size_t count) {
    size_t j;
    for (j = 0; j < count; j += 16) BITSTACK_STOREI_sse4_(q + BITSTACK_MAGNITUDES_ + j, _mm_abs_epi8(bitstack_load_sse4_(q + j)));
}
BITSTACK_DEFINE_DECODE_(sse4, BITSTACK_SSE4_, BITSTACK_SSE4_INLINE_, __m128i, 4)
BITSTACK_DEFINE_MIX_(sse4, BITSTACK_SSE4_, BITSTACK_SSE4_INLINE_, __m128i, __m128, 4)
#endif

#ifdef BITSTACK_HAS_AVX2_
typedef struct bitstack_entries_avx2_ {
    __m256i entries[16];
} bitstack_entries_avx2_;
typedef __m256i bitstack_partial_avx2_;
BITSTACK_AVX2_INLINE_ __m256i bitstack_sixteen_avx2_(const signed char *from) { return _mm256_broadcastsi128_si256(bitstack_load_half_avx2_(from)); }
BITSTACK_AVX2_INLINE_ __m256i bitstack_field_avx2_(__m256i table, int shift, uint32_t level) {
    const __m256i nibbles = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srl_epi16(nibbles, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char)(level == 1 ? 1 : 3))));
}
BITSTACK_AVX2_INLINE_ bitstack_entries_avx2_ bitstack_table_avx2_(const signed char *table, const uint32_t level) {
    bitstack_entries_avx2_ it;
    size_t i;
    it.entries[0] = bitstack_sixteen_avx2_(table);
    for (i = 1; level <= 2 && i < 4 / level; i++)
        it.entries[i] = bitstack_field_avx2_(it.entries[0], (int)(i * level), level);
    for (i = 1; i < (size_t)(level < 5 ? 1 : 1 << (level - 4)); i++)
        it.entries[i] = i == 8 ? bitstack_sixteen_avx2_(table + 128)
                               : _mm256_xor_si256(bitstack_sixteen_avx2_(table + 16 * i), bitstack_sixteen_avx2_(table + 16 * i - 16));
    return it;
}
BITSTACK_AVX2_INLINE_ __m256i bitstack_look_sixteens_avx2_(const __m256i *entries, __m256i index, const int count) {
    __m256i value;
    int i;
    index = _mm256_and_si256(index, _mm256_set1_epi8((char)(16 * count - 1)));
    value = _mm256_shuffle_epi8(entries[0], index);
    for (i = 1; i < count; i++)
        value = _mm256_xor_si256(value, _mm256_shuffle_epi8(entries[i], _mm256_sub_epi8(index, _mm256_set1_epi8((char)(16 * i)))));
    return value;
}
BITSTACK_AVX2_INLINE_ __m256i bitstack_look_bytes_avx2_(const bitstack_entries_avx2_ *table, __m256i index, const uint32_t level, const size_t k) {
    if (level <= 2) return bitstack_look_sixteens_avx2_(table->entries + (level == 1 ? k % 4 : k / 2 % 2), index, 1);
    if (level == 3) return _mm256_shuffle_epi8(table->entries[0], index); /* bits 3 and 7 are zero, others do not count */
    if (level <= 7) return bitstack_look_sixteens_avx2_(table->entries, index, level < 5 ? 1 : 1 << (level - 4));
    return _mm256_blendv_epi8(bitstack_look_sixteens_avx2_(table->entries, index, 8), bitstack_look_sixteens_avx2_(table->entries + 8, index, 8), index);
}
BITSTACK_AVX2_INLINE_ __m256i bitstack_four_inputs_avx2_(const signed char *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm256_set1_epi32(four);
}
BITSTACK_AVX2_INLINE_ __m256i bitstack_dot_bytes_avx2_(__m256i sum, __m256i bytes, __m256i q, __m256i magnitude) {
    const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(bytes, q));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
BITSTACK_AVX2_INLINE_ __m256i bitstack_dot_words_avx2_(__m256i sum, __m256i bytes, __m256i q) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srai_epi16(bytes, 8), _mm256_srai_epi16(q, 8)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8)));
}
BITSTACK_AVX2_ static void bitstack_smalls_avx2_(float *to, const unsigned char *codes, size_t count) {
    for (; count >= 8; count -= 8, to += 8, codes += 8) {
        const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)codes));
        const __m256i value = _mm256_add_epi32(_mm256_slli_epi32(code, 18), _mm256_set1_epi32(120 << 23));
        bitstack_store_avx2_(to, _mm256_andnot_si256(_mm256_cmpeq_epi32(code, _mm256_setzero_si256()), value));
    }
    bitstack_smalls_scalar_(to, codes, count);
}
#define BITSTACK_LOADI_avx2_(from) bitstack_load_avx2_(from)
#define BITSTACK_STOREI_avx2_(to, value) bitstack_store_avx2_(to, value)
#define BITSTACK_SHL_avx2_(value, n) _mm256_slli_epi16(value, n)
#define BITSTACK_SHR_avx2_(value, n) _mm256_srli_epi16(value, n)
#define BITSTACK_FIELDS_avx2_ 1
#define BITSTACK_ALONE_avx2_(a) BITSTACK_AND_avx2_(a, 0x55) /* every other bit, so that what stands above a level 3 index is 0 */
#define BITSTACK_PAIR_avx2_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SWAP_(avx2, V, even, odd, a, b, mask, n)
#define BITSTACK_AND_avx2_(a, byte) _mm256_and_si256(a, _mm256_set1_epi8(byte))
#define BITSTACK_XOR_avx2_(a, b) _mm256_xor_si256(a, b)
#define BITSTACK_LOOK_avx2_ bitstack_look_bytes_avx2_
#define BITSTACK_START_avx2_(sum_of_inputs) ((void)(sum_of_inputs), _mm256_setzero_si256())
#define BITSTACK_DOT_avx2_(partial, which, bytes, q) (partial) = bitstack_dot_bytes_avx2_(partial, bytes, bitstack_four_inputs_avx2_(q), _mm256_abs_epi8(bitstack_four_inputs_avx2_(q)));
#define BITSTACK_DOT_READY_avx2_(partial, which, bytes, q) \
    (partial) = bitstack_dot_bytes_avx2_(partial, bytes, bitstack_four_inputs_avx2_(q), bitstack_four_inputs_avx2_((q) + BITSTACK_MAGNITUDES_));
#define BITSTACK_DOT_WORDS_avx2_(partial, bytes, q) (partial) = bitstack_dot_words_avx2_(partial, bytes, bitstack_four_inputs_avx2_(q));
#define BITSTACK_SUM_avx2_(partial) (partial)
#define BITSTACK_ADD_SUM_avx2_(to, value) bitstack_store_avx2_(to, _mm256_add_epi32(bitstack_load_avx2_(to), value))
#define BITSTACK_MUL_avx2_(a, b) _mm256_mul_ps(a, b)
#define BITSTACK_SCALED_avx2_(a, scalar) _mm256_mul_ps(a, _mm256_set1_ps(scalar))
#define BITSTACK_CONVERT_avx2_(sum) _mm256_cvtepi32_ps(sum)
#define BITSTACK_CHAIN_avx2_(many, which) (which)
#define BITSTACK_FLOATS_avx2_(from) _mm256_cvtepi32_ps(bitstack_load_avx2_(from))
#define BITSTACK_KEEP_avx2_(value) BITSTACK_KEEP_X86_(value)
BITSTACK_AVX2_INLINE_ void bitstack_add_group_avx2_(float *total, __m256i sum, const unsigned char *codes, float input_scale) {
    const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)codes));
    const __m256i value = _mm256_add_epi32(_mm256_slli_epi32(code, 18), _mm256_set1_epi32(120 << 23));
    const __m256 scale = _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpeq_epi32(code, _mm256_setzero_si256()), value));
    __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, _mm256_set1_ps(input_scale)));
    BITSTACK_KEEP_avx2_(product)
    _mm256_storeu_ps(total, _mm256_add_ps(_mm256_loadu_ps(total), product));
}
BITSTACK_DEFINE_FOLD_(avx2, BITSTACK_AVX2_, __m256, 8)
BITSTACK_DEFINE_DECODE_(avx2, BITSTACK_AVX2_, BITSTACK_AVX2_INLINE_, __m256i, 2)
BITSTACK_DEFINE_MIX_(avx2, BITSTACK_AVX2_, BITSTACK_AVX2_INLINE_, __m256i, __m256, 2)

/* 32 inputs in the order of columns 4 * k + c by c, then k: that of a plane's bits. */
BITSTACK_AVX2_INLINE_ __m256i bitstack_by_bits_avx2_(const signed char *q) {
    const __m256i order = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(bitstack_load_avx2_(q), order), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
BITSTACK_AVX2_ static void bitstack_prepare_avx2_(signed char *q, size_t count) {
    size_t j;
    for (j = 0; j < count; j += 32) {
        const int32_t signs = _mm256_movemask_epi8(bitstack_by_bits_avx2_(q + j));
        memcpy(q + BITSTACK_SIGNS_ + j / 8, &signs, 4);
        bitstack_store_avx2_(q + BITSTACK_MAGNITUDES_ + j, _mm256_abs_epi8(bitstack_load_avx2_(q + j)));
    }
}
/* Where the first plane is the sign. Up to level 4 the inputs' signs go onto the planes' bits, one operation a plane. From
 * level 5 on the table is half as long, its values are not negative and the signs go onto the inputs. The bound are
 * three operations a cycle: 46, 56, 72, 96, 138 for 8 rows and 32 columns at levels 2 to 6. */
BITSTACK_AVX2_INLINE_ __m256i bitstack_half_table_avx2_(const signed char *table, const uint32_t level, size_t from, unsigned char flip) {
    unsigned char values[16];
    size_t i;
    for (i = 0; i < 16; i++) values[i] = (unsigned char)((unsigned char)table[((size_t)1 << level) - 1 - 2 * (from + i)] ^ flip);
    return _mm256_broadcastsi128_si256(bitstack_load_half_avx2_(values));
}
BITSTACK_AVX2_INLINE_ __m256i bitstack_add_pairs_avx2_(__m256i sum, __m256i pairs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#define BITSTACK_DOT_SIGNED_AVX2_(k) \
    sum = bitstack_add_pairs_avx2_(sum, _mm256_maddubs_epi16(bitstack_four_inputs_avx2_(q + BITSTACK_MAGNITUDES_ + 4 * (k)), \
                                                             bitstack_look_bytes_avx2_(&table, index[k], level, k)));
#define BITSTACK_DOT_HALF_AVX2_(k, nibbles)                                                                                     \
    do {                                                                                                                        \
        const __m256i at_low = _mm256_and_si256(nibbles, low_bits);                                                             \
        const __m256i negative = _mm256_or_si256(_mm256_slli_epi16(minus, 7 - (k)), _mm256_set1_epi8(1));                       \
        __m256i value = _mm256_shuffle_epi8(half[0], at_low);                                                                   \
        if (level > 5) value = _mm256_xor_si256(value, _mm256_shuffle_epi8(half[1], _mm256_or_si256(at_low, _mm256_and_si256(_mm256_slli_epi16(high, 7 - (k)), top_bit)))); \
        value = _mm256_maddubs_epi16(value, _mm256_sign_epi8(bitstack_four_inputs_avx2_(q + 4 * (k)), negative));               \
        sum = bitstack_add_pairs_avx2_(sum, value);                                                                             \
    } while (0);
BITSTACK_AVX2_INLINE_ void bitstack_stream_signed_avx2_(float *total, const bitstack_strip_ *strip, const uint32_t level) {
    const bitstack_entries_avx2_ table = bitstack_table_avx2_(strip->table, level < 5 ? level : 4);
    const __m256i low_bits = _mm256_set1_epi8(15), top_bit = _mm256_set1_epi8(-128);
    const unsigned char *codes = strip->codes;
    const signed char *signs = strip->q + BITSTACK_SIGNS_;
    __m256i half[2] = {table.entries[0], table.entries[0]};
    size_t g, at, begin, end = 0, h;
    if (level > 4) half[0] = bitstack_half_table_avx2_(strip->table, level, level > 5 ? 16 : 0, 0);
    if (level > 5) half[1] = _mm256_xor_si256(half[0], bitstack_half_table_avx2_(strip->table, level, 0, 0));
    for (g = 0; end < strip->chunks * 64; g++, codes += BITSTACK_LANES_) {
        begin = end;
        end = (g + 1) * strip->group_chunks < strip->chunks ? (g + 1) * strip->group_chunks * 64 : strip->chunks * 64;
        for (h = 0; h < 2; h++) {
            const signed char *q = strip->q + begin / 2;
            __m256i sum = _mm256_setzero_si256();
            for (at = begin; at < end; at += 64, q += BITSTACK_CHUNK_) {
                __m256i index[8], first, minus, high;
                if (h == 0) BITSTACK_PREFETCH_PLANES_(strip, at, level)
                if (level < 5) {
                    first = bitstack_four_inputs_avx2_(signs + at / 16);
                    bitstack_index_avx2_of_(index, strip->planes, at + h * 32, level, &first);
                    BITSTACK_DOT_SIGNED_AVX2_(0) BITSTACK_DOT_SIGNED_AVX2_(1) BITSTACK_DOT_SIGNED_AVX2_(2) BITSTACK_DOT_SIGNED_AVX2_(3)
                    BITSTACK_DOT_SIGNED_AVX2_(4) BITSTACK_DOT_SIGNED_AVX2_(5) BITSTACK_DOT_SIGNED_AVX2_(6) BITSTACK_DOT_SIGNED_AVX2_(7)
                    continue;
                }
                first = bitstack_load_avx2_(strip->planes[0] + at + h * 32), minus = _mm256_xor_si256(first, _mm256_set1_epi8(-1));
                bitstack_nibbles_avx2_(index, strip->planes + 1, at + h * 32, 4, 0, &first);
                high = level > 5 ? _mm256_xor_si256(first, bitstack_load_avx2_(strip->planes[5] + at + h * 32)) : first;
                BITSTACK_DOT_HALF_AVX2_(0, index[0]) BITSTACK_DOT_HALF_AVX2_(1, index[1]) BITSTACK_DOT_HALF_AVX2_(2, index[2]) BITSTACK_DOT_HALF_AVX2_(3, index[3])
                BITSTACK_DOT_HALF_AVX2_(4, _mm256_srli_epi16(index[0], 4)) BITSTACK_DOT_HALF_AVX2_(5, _mm256_srli_epi16(index[1], 4))
                BITSTACK_DOT_HALF_AVX2_(6, _mm256_srli_epi16(index[2], 4)) BITSTACK_DOT_HALF_AVX2_(7, _mm256_srli_epi16(index[3], 4))
            }
            bitstack_add_group_avx2_(total + 8 * h, sum, codes + 8 * h, strip->scales[g]);
        }
    }
}
BITSTACK_AVX2_ static void bitstack_stream_odd_avx2_(float *total, const bitstack_strip_ *strip) {
    if (!strip->odd) bitstack_stream_avx2_(total, strip);
    else if (strip->level == 1) bitstack_stream_signed_avx2_(total, strip, 1);
    else if (strip->level == 2) bitstack_stream_signed_avx2_(total, strip, 2);
    else if (strip->level == 3) bitstack_stream_signed_avx2_(total, strip, 3);
    else if (strip->level == 4) bitstack_stream_signed_avx2_(total, strip, 4);
    else if (strip->level == 5) bitstack_stream_signed_avx2_(total, strip, 5);
    else bitstack_stream_signed_avx2_(total, strip, 6);
}

BITSTACK_AVX2_ static void bitstack_times_avx2_(float *total, double by) {
    size_t i;
    for (i = 0; i < BITSTACK_LANES_; i += 4)
        _mm_storeu_ps(total + i, _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(total + i)), _mm256_set1_pd(by))));
}
BITSTACK_AVX2_ static void bitstack_whole_avx2_(float *total, const signed char *values, float by) {
    size_t i;
    for (i = 0; i < BITSTACK_LANES_; i += 4) {
        const __m256d product = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128((int)bitstack_load32_(values + i)))), _mm256_set1_pd((double)by));
        _mm_storeu_ps(total + i, _mm256_cvtpd_ps(_mm256_add_pd(_mm256_cvtps_pd(_mm_loadu_ps(total + i)), product)));
    }
}
BITSTACK_AVX2_ static uint32_t bitstack_largest_avx2_(const float *z, size_t cols) {
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most = _mm256_setzero_si256();
    uint32_t lanes[8], rest;
    size_t j, i;
    for (j = 0; j + 8 <= cols; j += 8) most = _mm256_max_epu32(most, _mm256_and_si256(bitstack_load_avx2_(z + j), magnitude));
    rest = bitstack_largest_scalar_(z + j, cols - j);
    bitstack_store_avx2_(lanes, most);
    for (i = 0; i < 8; i++) rest = lanes[i] > rest ? lanes[i] : rest;
    return rest;
}
BITSTACK_AVX2_ static void bitstack_round_avx2_(signed char *q, size_t stride, int32_t *sums, const float *z, float inverse, size_t cols) {
    const __m256 by = _mm256_set1_ps(inverse);
    __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    int32_t lanes[2][8];
    size_t j, i;
    for (j = 0; j + 8 <= cols; j += 8) {
        __m256i value = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(z + j), by)), high = value;
        __m128i words;
        if (stride) {
            high = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(128)), 8);
            value = _mm256_sub_epi32(value, _mm256_slli_epi32(high, 8));
            sum[1] = _mm256_add_epi32(sum[1], value);
            words = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
            _mm_storel_epi64((__m128i *)(void *)(q + stride + j), _mm_packs_epi16(words, words));
        }
        sum[0] = _mm256_add_epi32(sum[0], high);
        words = _mm_packs_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
        _mm_storel_epi64((__m128i *)(void *)(q + j), _mm_packs_epi16(words, words));
    }
    bitstack_store_avx2_(lanes[0], sum[0]), bitstack_store_avx2_(lanes[1], sum[1]);
    for (i = 0; i < 8; i++) sums[0] += lanes[0][i], sums[1] += lanes[1][i];
    _mm256_zeroupper(); /* GCC leaves it out before a call with a float: a stall of 50 ns */
    bitstack_round_scalar_(q + j, stride, sums, z + j, inverse, cols - j);
}
#endif

#ifdef BITSTACK_HAS_AVXVNNI_
/* VNNI multiplies unsigned bytes, so each of the table's is 128 too large. Operations for 8 rows and 32 columns at levels
 * 2 to 4: 28, 41, 52. */
typedef bitstack_entries_avx2_ bitstack_entries_avxvnni_;
typedef struct bitstack_partial_avxvnni_ {
    __m256i sum[4];
} bitstack_partial_avxvnni_;
BITSTACK_AVXVNNI_INLINE_ bitstack_partial_avxvnni_ bitstack_start_avxvnni_(int32_t first) {
    bitstack_partial_avxvnni_ it;
    it.sum[0] = _mm256_set1_epi32(first), it.sum[1] = it.sum[2] = it.sum[3] = _mm256_setzero_si256();
    return it;
}
BITSTACK_AVXVNNI_INLINE_ __m256i bitstack_dot_bytes_avxvnni_(__m256i sum, __m256i bytes, __m256i q) { return _mm256_dpbusd_avx_epi32(sum, bytes, q); }
#define bitstack_table_avxvnni_ bitstack_table_avx2_
#define bitstack_add_group_avxvnni_ bitstack_add_group_avx2_
#define BITSTACK_LOADI_avxvnni_(from) bitstack_load_avx2_(from)
#define BITSTACK_STOREI_avxvnni_(to, value) bitstack_store_avx2_(to, value)
#define BITSTACK_SHL_avxvnni_(value, n) _mm256_slli_epi16(value, n)
#define BITSTACK_SHR_avxvnni_(value, n) _mm256_srli_epi16(value, n)
#define BITSTACK_FIELDS_avxvnni_ 1
#define BITSTACK_ALONE_avxvnni_(a) BITSTACK_AND_avx2_(a, 0x55)
#define BITSTACK_PAIR_avxvnni_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SWAP_(avx2, V, even, odd, a, b, mask, n)
#define BITSTACK_XOR_avxvnni_(a, b) _mm256_xor_si256(a, b)
#define BITSTACK_LOOK_avxvnni_ bitstack_look_bytes_avx2_
#define BITSTACK_START_avxvnni_ bitstack_start_avxvnni_
#define BITSTACK_DOT_avxvnni_(partial, which, bytes, q) \
    (partial).sum[which] = bitstack_dot_bytes_avxvnni_((partial).sum[which], bytes, bitstack_four_inputs_avx2_(q));
#define BITSTACK_DOT_READY_avxvnni_ BITSTACK_DOT_avxvnni_
#define BITSTACK_DOT_WORDS_avxvnni_(partial, bytes, q) BITSTACK_DOT_avxvnni_(partial, 0, bytes, q)
#define BITSTACK_SUM_avxvnni_(partial) \
    _mm256_add_epi32(_mm256_add_epi32((partial).sum[0], (partial).sum[1]), _mm256_add_epi32((partial).sum[2], (partial).sum[3]))
#define BITSTACK_ADD_SUM_avxvnni_(to, value) BITSTACK_ADD_SUM_avx2_(to, value)
BITSTACK_DEFINE_DECODE_(avxvnni, BITSTACK_AVXVNNI_, BITSTACK_AVXVNNI_INLINE_, __m256i, 2)
#define BITSTACK_CONVERT_avxvnni_(sum) _mm256_cvtepi32_ps(sum)
#define BITSTACK_CHAIN_avxvnni_(many, which) ((many) > 2 ? 0 : (which))
#define BITSTACK_LOAD_avxvnni_(from) _mm256_loadu_ps(from)
#define BITSTACK_STORE_avxvnni_(to, value) _mm256_storeu_ps(to, value)
#define BITSTACK_ADD_avxvnni_(a, b) _mm256_add_ps(a, b)
#define BITSTACK_MUL_avxvnni_(a, b) _mm256_mul_ps(a, b)
#define BITSTACK_SCALED_avxvnni_(a, scalar) _mm256_mul_ps(a, _mm256_set1_ps(scalar))
#define BITSTACK_KEEP_avxvnni_(value) BITSTACK_KEEP_X86_(value)
BITSTACK_DEFINE_MIX_(avxvnni, BITSTACK_AVXVNNI_, BITSTACK_AVXVNNI_INLINE_, __m256i, __m256, 2)

BITSTACK_AVX2_ static void bitstack_prepare_avxvnni_(signed char *q, size_t count) {
    size_t j;
    for (j = 0; j < count; j += 32) bitstack_store_avx2_(q + BITSTACK_MAGNITUDES_ + j, bitstack_by_bits_avx2_(q + j));
}
/* Levels 5 and 6 where the first plane is the sign. Unpacking brings the planes' bytes of one row and column together, as the
 * rows of a matrix of 8 x 8 bits, and GFNI, multiplying with the unit matrix, transposes it: eight bytes are what the
 * planes say of columns 4 * k + c, k from 0 to 7. A bit is set if the sign is minus (7), the table's later sixteen are to be
 * taken (6), always (5), and as the low nibble (3 to 0) says. Operations as above at levels 5 and 6: 71, 96. */
BITSTACK_AVXVNNI_INLINE_ __m256i bitstack_dot_half_avxvnni_(__m256i sum, __m256i matrix, __m256i q, const __m256i half[2], const uint32_t level) {
    const __m256i code = _mm256_gf2p8affine_epi64_epi8(_mm256_set1_epi64x((long long)0x8040201008040201u), matrix, 0xA0);
    const __m256i at = _mm256_and_si256(code, _mm256_set1_epi8(127));
    __m256i value = _mm256_shuffle_epi8(half[0], at);
    if (level > 5) value = _mm256_xor_si256(value, _mm256_shuffle_epi8(half[1], _mm256_add_epi8(at, _mm256_set1_epi8(64))));
    return _mm256_dpbusd_avx_epi32(sum, value, _mm256_sign_epi8(q, code));
}
#define BITSTACK_DOT_ROWS_AVXVNNI_(sum, half_of, part)                                                               \
    do {                                                                                                             \
        const __m256i top = _mm256_unpack##half_of##_epi16(part##05, none), rest = _mm256_unpack##half_of##_epi16(part##43, part##21); \
        sum = bitstack_dot_half_avxvnni_(sum, _mm256_unpacklo_epi32(top, rest), q01, half, level);                   \
        sum = bitstack_dot_half_avxvnni_(sum, _mm256_unpackhi_epi32(top, rest), q23, half, level);                   \
    } while (0);
BITSTACK_AVXVNNI_INLINE_ void bitstack_stream_signed_avxvnni_(float *total, const bitstack_strip_ *strip, const uint32_t level) {
    const unsigned char *codes = strip->codes;
    const __m256i none = _mm256_setzero_si256();
    __m256i half[2];
    size_t g, at, begin, end = 0, h;
    half[0] = half[1] = bitstack_half_table_avx2_(strip->table, level, level > 5 ? 16 : 0, 128);
    if (level > 5) half[1] = _mm256_xor_si256(half[0], bitstack_half_table_avx2_(strip->table, level, 0, 128));
    for (g = 0; end < strip->chunks * 64; g++, codes += BITSTACK_LANES_) {
        begin = end;
        end = (g + 1) * strip->group_chunks < strip->chunks ? (g + 1) * strip->group_chunks * 64 : strip->chunks * 64;
        for (h = 0; h < 2; h++) {
            const signed char *q = strip->q + BITSTACK_MAGNITUDES_ + begin / 2;
            __m256i sum0 = none, sum1 = none, sum2 = none, sum3 = none; /* of rows 0 and 4, and so on */
            for (at = begin + h * 32; at < end; at += 64, q += BITSTACK_CHUNK_) {
                const __m256i q01 = _mm256_broadcastsi128_si256(bitstack_load_half_avx2_(q)), q23 = _mm256_broadcastsi128_si256(bitstack_load_half_avx2_(q + 16));
                const __m256i sign = bitstack_load_avx2_(strip->planes[0] + at);
                const __m256i a1 = _mm256_xor_si256(sign, bitstack_load_avx2_(strip->planes[1] + at)), a2 = _mm256_xor_si256(sign, bitstack_load_avx2_(strip->planes[2] + at));
                const __m256i a3 = _mm256_xor_si256(sign, bitstack_load_avx2_(strip->planes[3] + at)), a4 = _mm256_xor_si256(sign, bitstack_load_avx2_(strip->planes[4] + at));
                const __m256i a5 = level > 5 ? _mm256_xor_si256(sign, bitstack_load_avx2_(strip->planes[5] + at)) : none;
                /* pairs of planes, of rows 0, 1, 4, 5, then of the others; then fours, of two rows each; then all */
                const __m256i low05 = _mm256_unpacklo_epi8(sign, a5), low43 = _mm256_unpacklo_epi8(a4, a3), low21 = _mm256_unpacklo_epi8(a2, a1);
                const __m256i high05 = _mm256_unpackhi_epi8(sign, a5), high43 = _mm256_unpackhi_epi8(a4, a3), high21 = _mm256_unpackhi_epi8(a2, a1);
                if (h == 0) BITSTACK_PREFETCH_PLANES_(strip, at, level)
                BITSTACK_DOT_ROWS_AVXVNNI_(sum0, lo, low) BITSTACK_DOT_ROWS_AVXVNNI_(sum1, hi, low)
                BITSTACK_DOT_ROWS_AVXVNNI_(sum2, lo, high) BITSTACK_DOT_ROWS_AVXVNNI_(sum3, hi, high)
            }
            sum0 = _mm256_hadd_epi32(_mm256_hadd_epi32(sum0, sum1), _mm256_hadd_epi32(sum2, sum3));
            bitstack_add_group_avx2_(total + 8 * h, sum0, codes + 8 * h, strip->scales[g]);
        }
    }
}
BITSTACK_AVXVNNI_ static void bitstack_stream_odd_avxvnni_(float *total, const bitstack_strip_ *strip) {
    if (strip->level < 5 || !strip->odd) bitstack_stream_avxvnni_(total, strip);
    else if (strip->level == 5) bitstack_stream_signed_avxvnni_(total, strip, 5);
    else bitstack_stream_signed_avxvnni_(total, strip, 6);
}
#endif

#ifdef BITSTACK_HAS_AVX512_
BITSTACK_AVX512_INLINE_ void bitstack_smalls_16_avx512_(float *to, const unsigned char *codes) {
    const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)codes));
    _mm512_storeu_si512(to, _mm512_maskz_add_epi32(_mm512_test_epi32_mask(code, code), _mm512_slli_epi32(code, 18), _mm512_set1_epi32(120 << 23)));
}
BITSTACK_AVX512_ static void bitstack_smalls_avx512_(float *to, const unsigned char *codes, size_t count) {
    for (; count >= 16; count -= 16, to += 16, codes += 16) bitstack_smalls_16_avx512_(to, codes);
    bitstack_smalls_scalar_(to, codes, count);
}
BITSTACK_AVX512_ static void bitstack_times_avx512_(float *total, double by) {
    _mm256_storeu_ps(total, _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(total)), _mm512_set1_pd(by))));
    _mm256_storeu_ps(total + 8, _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(total + 8)), _mm512_set1_pd(by))));
}
BITSTACK_AVX512_ static void bitstack_whole_avx512_(float *total, const signed char *values, float by) {
    const __m256i all = _mm256_cvtepi8_epi16(bitstack_load_half_avx2_(values));
    const __m512i wide = _mm512_cvtepi16_epi32(all);
    const __m512d low = _mm512_mul_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(wide)), _mm512_set1_pd((double)by));
    const __m512d high = _mm512_mul_pd(_mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(wide, 1)), _mm512_set1_pd((double)by));
    _mm256_storeu_ps(total, _mm512_cvtpd_ps(_mm512_add_pd(_mm512_cvtps_pd(_mm256_loadu_ps(total)), low)));
    _mm256_storeu_ps(total + 8, _mm512_cvtpd_ps(_mm512_add_pd(_mm512_cvtps_pd(_mm256_loadu_ps(total + 8)), high)));
}
/* Entries are looked up 64 at a time, and VNNI multiplies unsigned bytes (each 128 too large) with signed ones. */
typedef struct bitstack_entries_avx512_ {
    __m512i entries[4];
} bitstack_entries_avx512_;
typedef struct bitstack_partial_avx512_ {
    __m512i sum[4]; /* VNNI takes five cycles: two would wait for each other at low levels */
} bitstack_partial_avx512_;
BITSTACK_AVX512_INLINE_ bitstack_entries_avx512_ bitstack_table_avx512_(const signed char *table, const uint32_t level) {
    const __m512i nibbles = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    bitstack_entries_avx512_ it;
    int i;
    for (i = 0; i < 4; i++) {
        it.entries[i] = _mm512_loadu_si512(table + (level > 6 ? 64 * i : 0));
        if (level <= 2) it.entries[i] = _mm512_permutexvar_epi8(_mm512_srl_epi16(nibbles, _mm_cvtsi32_si128(i * (int)level)), it.entries[i]);
    }
    return it;
}
BITSTACK_AVX512_INLINE_ __m512i bitstack_look_bytes_avx512_(const bitstack_entries_avx512_ *table, __m512i index, const uint32_t level, const size_t k) {
    if (level <= 2) return _mm512_permutexvar_epi8(index, table->entries[level == 1 ? k % 4 : k / 2 % 2]);
    if (level <= 6) return _mm512_permutexvar_epi8(index, table->entries[0]);
    if (level == 7) return _mm512_permutex2var_epi8(table->entries[0], index, table->entries[1]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), _mm512_permutex2var_epi8(table->entries[0], index, table->entries[1]),
                                  _mm512_permutex2var_epi8(table->entries[2], index, table->entries[3]));
}
BITSTACK_AVX512_INLINE_ bitstack_partial_avx512_ bitstack_start_avx512_(int32_t first) {
    bitstack_partial_avx512_ it;
    it.sum[0] = _mm512_set1_epi32(first), it.sum[1] = it.sum[2] = it.sum[3] = _mm512_setzero_si512();
    return it;
}
BITSTACK_AVX512_INLINE_ __m512i bitstack_four_inputs_avx512_(const signed char *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
}
#define BITSTACK_LOADI_avx512_(from) _mm512_loadu_si512(from)
#define BITSTACK_STOREI_avx512_(to, value) _mm512_storeu_si512(to, value)
#define BITSTACK_SHL_avx512_(value, n) _mm512_slli_epi16(value, n)
#define BITSTACK_SHR_avx512_(value, n) _mm512_srli_epi16(value, n)
#define BITSTACK_XOR_avx512_(a, b) _mm512_xor_si512(a, b)
#define BITSTACK_FIELDS_avx512_ 1
#define BITSTACK_ALONE_avx512_(a) (a)
#define BITSTACK_PAIR_avx512_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SELECT_(avx512, V, even, odd, a, b, mask, n)
#define BITSTACK_SELECT_avx512_(mask, a, b) _mm512_ternarylogic_epi32(_mm512_set1_epi8(mask), a, b, 0xCA) /* mask ? a : b */
#define BITSTACK_LOOK_avx512_ bitstack_look_bytes_avx512_
#define BITSTACK_START_avx512_ bitstack_start_avx512_
#define BITSTACK_SCALED_avx512_(a, scalar) _mm512_mul_ps(a, _mm512_set1_ps(scalar))
#define BITSTACK_MUL_avx512_(a, b) _mm512_mul_ps(a, b)
#define BITSTACK_CONVERT_avx512_(sum) _mm512_cvtepi32_ps(sum)
#define BITSTACK_CHAIN_avx512_(many, which) ((many) > 2 ? 0 : (which))
#define BITSTACK_FLOATS_avx512_(from) _mm512_cvtepi32_ps(_mm512_loadu_si512(from))
#define BITSTACK_KEEP_avx512_(value) BITSTACK_KEEP_X86_(value)
#define BITSTACK_DOT_avx512_(partial, which, bytes, q) (partial).sum[which] = _mm512_dpbusd_epi32((partial).sum[which], bytes, bitstack_four_inputs_avx512_(q));
#define BITSTACK_DOT_READY_avx512_ BITSTACK_DOT_avx512_
#define BITSTACK_DOT_WORDS_avx512_(partial, bytes, q) BITSTACK_DOT_avx512_(partial, 0, bytes, q)
#define BITSTACK_SUM_avx512_(partial) \
    _mm512_add_epi32(_mm512_add_epi32((partial).sum[0], (partial).sum[1]), _mm512_add_epi32((partial).sum[2], (partial).sum[3]))
#define BITSTACK_ADD_SUM_avx512_(to, value) _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), value))
BITSTACK_AVX512_INLINE_ void bitstack_add_group_avx512_(float *total, __m512i sum, const unsigned char *codes, float input_scale) {
    const __m512i code = _mm512_cvtepu8_epi32(bitstack_load_half_avx2_(codes));
    const __m512i scale = _mm512_maskz_add_epi32(_mm512_test_epi32_mask(code, code), _mm512_slli_epi32(code, 18), _mm512_set1_epi32(120 << 23));
    __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(_mm512_castsi512_ps(scale), _mm512_set1_ps(input_scale)));
    BITSTACK_KEEP_avx512_(product)
    _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), product));
}
BITSTACK_DEFINE_FOLD_(avx512, BITSTACK_AVX512_, __m512, 16)
BITSTACK_DEFINE_DECODE_(avx512, BITSTACK_AVX512_, BITSTACK_AVX512_INLINE_, __m512i, 1)
BITSTACK_DEFINE_MIX_(avx512, BITSTACK_AVX512_, BITSTACK_AVX512_INLINE_, __m512i, __m512, 1)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

/* AMX: sixteen inputs, sixteen rows and 64 columns an instruction; else as AVX-512. A tile of bytes is as `decode` leaves it, one
 * of inputs as they stand. What bounds it is turning sums into floats, 16 vectors for each such instruction. */
#if defined(BITSTACK_HAS_AVX512_) && !defined(BITSTACK_NO_AMX) && defined(__linux__) && defined(__LP64__) && \
    (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define BITSTACK_HAS_AMX_
#define BITSTACK_AMX_TARGET_ "avx2,f16c,avx512f,avx512bw,avx512vbmi,avx512vnni,avx512bitalg,amx-tile,amx-int8"
#define BITSTACK_AMX_ __attribute__((target(BITSTACK_AMX_TARGET_)))
#define BITSTACK_AMX_INLINE_ static inline __attribute__((target(BITSTACK_AMX_TARGET_), always_inline))
/* TILE (24), INT8 (25) and the tiles' two states; the system must be asked before a process may use them, and may refuse. */
static int bitstack_available_amx_(void) {
    unsigned a, b, c, d;
    long result;
    if (!bitstack_available_avx512_() || !bitstack_x86_has_(0, 0, 0, 3u << 17)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & 3u << 24) != 3u << 24) return 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(158L /* arch_prctl */), "D"(0x1023L /* ARCH_REQ_XCOMP_PERM */), "S"(18L) : "rcx", "r11", "memory");
    return result == 0;
}
BITSTACK_AMX_ static void bitstack_tiles_amx_(int on) {
    unsigned char config[64] = {1}; /* palette; bytes a row of each tile from 16 on, rows from 48 on */
    int i;
    for (i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = 16;
    __asm__ volatile("" : : "r"(config) : "memory"); /* GCC believes that 8 bytes are read */
    if (on) _tile_loadconfig(config);
    else _tile_release();
}
BITSTACK_AMX_INLINE_ void bitstack_fold_tile_amx_(float (*total)[BITSTACK_LANES_], int32_t (*sums)[BITSTACK_LANES_], const float *scales,
                                                  const bitstack_inputs_ *in, size_t group, size_t first) {
    const __m512 scale = _mm512_loadu_ps(scales);
    size_t i;
    for (i = 0; i < 16; i++) {
        const size_t at = group * in->batch + first + i;
        const __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(sums[i]), _mm512_set1_epi32(in->sums[at]));
        __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(in->scales[at])));
        BITSTACK_KEEP_avx512_(product)
        _mm512_storeu_ps(total[first + i], _mm512_add_ps(_mm512_loadu_ps(total[first + i]), product));
    }
}
BITSTACK_AMX_ static void bitstack_mix_amx_(float (*total)[BITSTACK_LANES_], const signed char *bytes, size_t chunks, const float *scales,
                                            const bitstack_inputs_ *in, size_t group, size_t first) {
    const long stride = (long)in->stride;
    BITSTACK_ALIGNED_ int32_t sums[16][BITSTACK_LANES_];
    __asm__ volatile("" ::: "memory"); /* loads of tiles do not tell the compiler what they read */
    if (chunks % 2 == 0 && in->batch - first >= 16) {
        _tile_loadd(4, bytes, 64);
        if (chunks > 2) _tile_loadd(5, bytes + 1024, 64);
    }
    for (; chunks % 2 == 0 && in->batch - first >= 16; first += 32) {
        const signed char *q = in->q + first * in->stride + group * in->group_cols, *next = q + 16 * in->stride;
        const int both = in->batch - first >= 32;
        _tile_zero(0);
        _tile_loadd(2, q, stride);
        _tile_dpbsud(0, 2, 4);
        if (chunks > 2) {
            _tile_loadd(2, q + 64, stride);
            _tile_dpbsud(0, 2, 5);
        }
        if (both) {
            _tile_zero(1);
            _tile_loadd(3, next, stride);
            _tile_dpbsud(1, 3, 4);
        }
        if (both && chunks > 2) {
            _tile_loadd(3, next + 64, stride);
            _tile_dpbsud(1, 3, 5);
        }
        _tile_stored(0, sums, 64);
        bitstack_fold_tile_amx_(total, sums, scales, in, group, first);
        if (!both) {
            first += 16;
            break;
        }
        _tile_stored(1, sums, 64);
        bitstack_fold_tile_amx_(total, sums, scales, in, group, first + 16);
    }
    if (first < in->batch) bitstack_mix_avx512_(total, bytes, chunks, scales, in, group, first);
}
#endif

#ifdef BITSTACK_HAS_NEON_
#define BITSTACK_NEON_INLINE_ BITSTACK_NEON_ static inline __attribute__((always_inline))
static const uint8_t bitstack_nibbles_[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
/* Indices beyond a table find 0, or leave what is there. */
#ifdef __aarch64__
typedef struct bitstack_entries_neon_ {
    uint8x16x4_t entries[4];
} bitstack_entries_neon_;
BITSTACK_NEON_INLINE_ bitstack_entries_neon_ bitstack_table_neon_(const signed char *table, const uint32_t level) {
    bitstack_entries_neon_ it;
    size_t i, k;
    for (i = 0; i < (size_t)(level > 6 ? 1 << (level - 6) : 1); i++)
        for (k = 0; k < 4; k++) it.entries[i].val[k] = vld1q_u8((const uint8_t *)table + 64 * i + 16 * k);
    for (i = 1; level <= 2 && i < 4 / level; i++) /* for a nibble's bits from i * level on */
        it.entries[0].val[i] = vqtbl1q_u8(it.entries[0].val[0], vandq_u8(vshlq_u8(vld1q_u8(bitstack_nibbles_), vdupq_n_s8((int8_t)(-(int)(i * level)))), vdupq_n_u8((uint8_t)(2 * level - 1))));
    return it;
}
BITSTACK_NEON_INLINE_ uint8x16_t bitstack_look_bytes_neon_(const bitstack_entries_neon_ *table, uint8x16_t index, const uint32_t level, const size_t k) {
    uint8x16_t value;
    size_t i;
    index = vandq_u8(index, vdupq_n_u8((uint8_t)(level < 4 ? 15 : (1 << level) - 1)));
    if (level <= 4) return vqtbl1q_u8(table->entries[0].val[level == 1 ? k % 4 : level == 2 ? k / 2 % 2 : 0], index);
    if (level == 5) {
        uint8x16x2_t two;
        two.val[0] = table->entries[0].val[0], two.val[1] = table->entries[0].val[1];
        return vqtbl2q_u8(two, index);
    }
    value = vqtbl4q_u8(table->entries[0], index);
    for (i = 1; i < (size_t)(level > 6 ? 1 << (level - 6) : 1); i++)
        value = vqtbx4q_u8(value, table->entries[i], vsubq_u8(index, vdupq_n_u8((uint8_t)(64 * i))));
    return value;
}
static uint32_t bitstack_largest_neon_(const float *z, size_t cols) {
    uint32x4_t most = vdupq_n_u32(0);
    uint32_t rest, lanes;
    size_t j;
    for (j = 0; j + 4 <= cols; j += 4) most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(z + j))));
    rest = bitstack_largest_scalar_(z + j, cols - j), lanes = vmaxvq_u32(most);
    return lanes > rest ? lanes : rest;
}
static void bitstack_round_neon_(signed char *q, size_t stride, int32_t *sums, const float *z, float inverse, size_t cols) {
    int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    size_t j;
    for (j = 0; j + 8 <= cols; j += 8) {
        const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(z + j), inverse)), b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(z + j + 4), inverse));
        int16x8_t high = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
        if (stride) {
            const int16x8_t low = vshrq_n_s16(vshlq_n_s16(high, 8), 8);
            high = vshrq_n_s16(vsubq_s16(high, low), 8);
            sum[1] = vpadalq_s16(sum[1], low);
            vst1_s8((int8_t *)q + stride + j, vmovn_s16(low));
        }
        sum[0] = vpadalq_s16(sum[0], high);
        vst1_s8((int8_t *)q + j, vmovn_s16(high));
    }
    sums[0] += vaddvq_s32(sum[0]), sums[1] += vaddvq_s32(sum[1]);
    bitstack_round_scalar_(q + j, stride, sums, z + j, inverse, cols - j);
}
#define BITSTACK_SCALED_neon_(a, scalar) vmulq_n_f32(a, scalar)
#define BITSTACK_MUL_neon_(a, b) vmulq_f32(a, b)
#define BITSTACK_CONVERT_neon_(sum) vcvtq_f32_s32(sum)
#define BITSTACK_CHAIN_neon_(many, which) (which)
#define BITSTACK_FLOATS_neon_(from) vcvtq_f32_s32(vld1q_s32(from))
#define BITSTACK_KEEP_neon_(value) __asm__("" : "+w"(value));
BITSTACK_NEON_INLINE_ void bitstack_add_group_neon_(float *total, int32x4_t sum, const unsigned char *codes, float input_scale) {
    const uint32x4_t code = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bitstack_load32_(codes)))));
    const uint32x4_t scale = vandq_u32(vtstq_u32(code, code), vaddq_u32(vshlq_n_u32(code, 18), vdupq_n_u32(120u << 23)));
    float32x4_t product = vmulq_f32(vcvtq_f32_s32(sum), vmulq_n_f32(vreinterpretq_f32_u32(scale), input_scale));
    BITSTACK_KEEP_neon_(product)
    vst1q_f32(total, vaddq_f32(vld1q_f32(total), product));
}
BITSTACK_DEFINE_FOLD_(neon, BITSTACK_NEON_, float32x4_t, 4)
#define BITSTACK_PAIRWISE_NEON_(a, b) vpaddq_s32(a, b)
#else
typedef struct bitstack_entries_neon_ {
    uint8x8x4_t entries[8];
} bitstack_entries_neon_;
BITSTACK_NEON_INLINE_ bitstack_entries_neon_ bitstack_table_neon_(const signed char *table, const uint32_t level) {
    bitstack_entries_neon_ it;
    size_t i, k;
    for (i = 0; i < (size_t)(level > 5 ? 1 << (level - 5) : 1); i++)
        for (k = 0; k < 4; k++) it.entries[i].val[k] = vld1_u8((const uint8_t *)table + 32 * i + 8 * k);
    for (i = 1; level <= 2 && i < 4 / level; i++) /* for a nibble's bits from i * level on */
        for (k = 0; k < 2; k++)
            it.entries[i].val[k] = vtbl1_u8(it.entries[0].val[0], vand_u8(vshl_u8(vld1_u8(bitstack_nibbles_ + 8 * k), vdup_n_s8((int8_t)(-(int)(i * level)))), vdup_n_u8((uint8_t)(2 * level - 1))));
    return it;
}
BITSTACK_NEON_INLINE_ uint8x8_t bitstack_look_half_neon_(const bitstack_entries_neon_ *table, uint8x8_t index, const uint32_t level, const size_t k) {
    uint8x8_t value;
    size_t i;
    index = vand_u8(index, vdup_n_u8((uint8_t)(level < 5 ? 15 : (1 << level) - 1)));
    if (level <= 4) {
        const uint8x8x4_t *four = &table->entries[level == 1 ? k % 4 : level == 2 ? k / 2 % 2 : 0];
        uint8x8x2_t two;
        two.val[0] = four->val[0], two.val[1] = four->val[1];
        return vtbl2_u8(two, index);
    }
    value = vtbl4_u8(table->entries[0], index);
    for (i = 1; i < (size_t)(level > 5 ? 1 << (level - 5) : 1); i++)
        value = vtbx4_u8(value, table->entries[i], vsub_u8(index, vdup_n_u8((uint8_t)(32 * i))));
    return value;
}
BITSTACK_NEON_INLINE_ uint8x16_t bitstack_look_bytes_neon_(const bitstack_entries_neon_ *table, uint8x16_t index, const uint32_t level, const size_t k) {
    return vcombine_u8(bitstack_look_half_neon_(table, vget_low_u8(index), level, k), bitstack_look_half_neon_(table, vget_high_u8(index), level, k));
}
#define bitstack_largest_neon_ bitstack_largest_scalar_
#define bitstack_round_neon_ bitstack_round_scalar_
#define bitstack_fold_neon_ bitstack_fold_scalar_
BITSTACK_NEON_INLINE_ void bitstack_add_group_neon_(float *total, int32x4_t sum, const unsigned char *codes, float input_scale) {
    int32_t lanes[4];
    size_t i;
    vst1q_s32(lanes, sum);
    for (i = 0; i < 4; i++) {
        volatile float product = (float)lanes[i] * (bitstack_small_value_(codes[i]) * input_scale); /* not fused with the sum */
        total[i] += product;
    }
}
#define BITSTACK_PAIRWISE_NEON_(a, b) \
    vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)))
#endif

/* Two vectors' products together fit 16 bits; then they are added in pairs. */
typedef struct bitstack_partial_neon_ {
    int32x4_t low, high;
    int16x8_t low_pair, high_pair;
} bitstack_partial_neon_;
BITSTACK_NEON_INLINE_ bitstack_partial_neon_ bitstack_start_neon_(void) {
    bitstack_partial_neon_ it;
    it.low = it.high = vdupq_n_s32(0), it.low_pair = it.high_pair = vdupq_n_s16(0);
    return it;
}
BITSTACK_NEON_INLINE_ int32_t bitstack_four_inputs_neon_(const signed char *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return four;
}
BITSTACK_NEON_INLINE_ void bitstack_dot_bytes_neon_(bitstack_partial_neon_ *partial, const int which, uint8x16_t bytes, int32_t four) {
    const int8x8_t q = vreinterpret_s8_s32(vdup_n_s32(four)), low = vreinterpret_s8_u8(vget_low_u8(bytes)), high = vreinterpret_s8_u8(vget_high_u8(bytes));
    if (which % 2 == 0) partial->low_pair = vmull_s8(low, q), partial->high_pair = vmull_s8(high, q);
    else {
        partial->low = vpadalq_s16(partial->low, vmlal_s8(partial->low_pair, low, q));
        partial->high = vpadalq_s16(partial->high, vmlal_s8(partial->high_pair, high, q));
    }
}
BITSTACK_NEON_INLINE_ void bitstack_dot_words_neon_(bitstack_partial_neon_ *partial, uint8x16_t bytes, int32_t four) {
    const int8x8_t q = vreinterpret_s8_s32(vdup_n_s32(four));
    partial->low = vpadalq_s16(partial->low, vmull_s8(vreinterpret_s8_u8(vget_low_u8(bytes)), q));
    partial->high = vpadalq_s16(partial->high, vmull_s8(vreinterpret_s8_u8(vget_high_u8(bytes)), q));
}
#define BITSTACK_LOADI_neon_(from) vld1q_u8((const uint8_t *)(from))
#define BITSTACK_STOREI_neon_(to, value) vst1q_u8((uint8_t *)(to), value)
#define BITSTACK_SHL_neon_(value, n) vshlq_n_u8(value, n)
#define BITSTACK_SHR_neon_(value, n) vshrq_n_u8(value, n)
#define BITSTACK_XOR_neon_(a, b) veorq_u8(a, b)
#define BITSTACK_FIELDS_neon_ 1
#define BITSTACK_ALONE_neon_(a) (a)
#define BITSTACK_PAIR_neon_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SELECT_(neon, V, even, odd, a, b, mask, n)
#define BITSTACK_SELECT_neon_(mask, a, b) vbslq_u8(vdupq_n_u8(mask), a, b)
#define BITSTACK_LOOK_neon_ bitstack_look_bytes_neon_
#define BITSTACK_START_neon_(sum_of_inputs) ((void)(sum_of_inputs), bitstack_start_neon_())
#define BITSTACK_DOT_neon_(partial, which, bytes, q) bitstack_dot_bytes_neon_(&(partial), which, bytes, bitstack_four_inputs_neon_(q));
#define BITSTACK_DOT_READY_neon_ BITSTACK_DOT_neon_
#define BITSTACK_DOT_WORDS_neon_(partial, bytes, q) bitstack_dot_words_neon_(&(partial), bytes, bitstack_four_inputs_neon_(q));
#define BITSTACK_SUM_neon_(partial) BITSTACK_PAIRWISE_NEON_((partial).low, (partial).high)
#define BITSTACK_ADD_SUM_neon_(to, value) vst1q_s32(to, vaddq_s32(vld1q_s32(to), value))
BITSTACK_DEFINE_DECODE_(neon, BITSTACK_NEON_, BITSTACK_NEON_INLINE_, uint8x16_t, 4)
#ifdef __aarch64__
BITSTACK_DEFINE_MIX_(neon, BITSTACK_NEON_, BITSTACK_NEON_INLINE_, uint8x16_t, float32x4_t, 4)
#else
#define bitstack_mix_neon_ NULL
#endif
#endif

#ifdef BITSTACK_HAS_DOTPROD_
#ifdef __clang__
#define BITSTACK_DOTPROD_TARGET_ target("dotprod")
#else
#define BITSTACK_DOTPROD_TARGET_ target("arch=armv8.2-a+dotprod")
#endif
#define BITSTACK_DOTPROD_ __attribute__((BITSTACK_DOTPROD_TARGET_))
#define BITSTACK_DOTPROD_INLINE_ static inline __attribute__((BITSTACK_DOTPROD_TARGET_, always_inline))
#if defined(__linux__) && !defined(__ARM_FEATURE_DOTPROD)
#include <sys/auxv.h>
static int bitstack_available_dotprod_(void) { return (getauxval(AT_HWCAP) & 1ul << 20) != 0; } /* ASIMDDP */
#else
static int bitstack_available_dotprod_(void) { return 1; }
#endif
typedef bitstack_entries_neon_ bitstack_entries_dotprod_;
typedef int32x4x2_t bitstack_partial_dotprod_;
BITSTACK_DOTPROD_INLINE_ int32x4x2_t bitstack_start_dotprod_(void) {
    int32x4x2_t it;
    it.val[0] = it.val[1] = vdupq_n_s32(0);
    return it;
}
#define bitstack_table_dotprod_ bitstack_table_neon_
#define bitstack_add_group_dotprod_ bitstack_add_group_neon_
#define BITSTACK_LOADI_dotprod_(from) BITSTACK_LOADI_neon_(from)
#define BITSTACK_STOREI_dotprod_(to, value) BITSTACK_STOREI_neon_(to, value)
#define BITSTACK_SHL_dotprod_(value, n) vshlq_n_u8(value, n)
#define BITSTACK_SHR_dotprod_(value, n) vshrq_n_u8(value, n)
#define BITSTACK_XOR_dotprod_(a, b) veorq_u8(a, b)
#define BITSTACK_FIELDS_dotprod_ 1
#define BITSTACK_ALONE_dotprod_(a) (a)
#define BITSTACK_PAIR_dotprod_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SELECT_(dotprod, V, even, odd, a, b, mask, n)
#define BITSTACK_SELECT_dotprod_(mask, a, b) vbslq_u8(vdupq_n_u8(mask), a, b)
#define BITSTACK_LOOK_dotprod_ bitstack_look_bytes_neon_
#define BITSTACK_START_dotprod_(sum_of_inputs) ((void)(sum_of_inputs), bitstack_start_dotprod_())
#define BITSTACK_DOT_dotprod_(partial, which, bytes, q) /* as assembly: older clangs have the intrinsic only where all code may use it */ \
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"((partial).val[(which) % 2]) : "w"(bytes), "w"(vdupq_n_s32(bitstack_four_inputs_neon_(q))));
#define BITSTACK_DOT_READY_dotprod_ BITSTACK_DOT_dotprod_
#define BITSTACK_DOT_WORDS_dotprod_(partial, bytes, q) BITSTACK_DOT_dotprod_(partial, 0, bytes, q)
#define BITSTACK_SUM_dotprod_(partial) vaddq_s32((partial).val[0], (partial).val[1])
#define BITSTACK_ADD_SUM_dotprod_(to, value) vst1q_s32(to, vaddq_s32(vld1q_s32(to), value))
BITSTACK_DEFINE_DECODE_(dotprod, BITSTACK_DOTPROD_, BITSTACK_DOTPROD_INLINE_, uint8x16_t, 4)
#define BITSTACK_CONVERT_dotprod_(sum) vcvtq_f32_s32(sum)
#define BITSTACK_CHAIN_dotprod_(many, which) ((many) > 4 ? 0 : (which))
#define BITSTACK_LOAD_dotprod_(from) vld1q_f32(from)
#define BITSTACK_STORE_dotprod_(to, value) vst1q_f32(to, value)
#define BITSTACK_ADD_dotprod_(a, b) vaddq_f32(a, b)
#define BITSTACK_MUL_dotprod_(a, b) vmulq_f32(a, b)
#define BITSTACK_SCALED_dotprod_(a, scalar) vmulq_n_f32(a, scalar)
#define BITSTACK_KEEP_dotprod_(value) BITSTACK_KEEP_neon_(value)
BITSTACK_DEFINE_MIX_(dotprod, BITSTACK_DOTPROD_, BITSTACK_DOTPROD_INLINE_, uint8x16_t, float32x4_t, 4)
#endif

/* ==================================================================================== [WASM]
 * SIMD128, where the module is built with it (-msimd128): there is no asking at run time, as an engine without it refuses
 * the module. A look-up of 16 finds 0 beyond them, and nothing is ever fused. In the same way relaxed SIMD (-mrelaxed-simd):
 * of it what is exact in any engine, a look-up with indices below 16, and a product with bytes of 7 bits. */
#if defined(__wasm_simd128__) && defined(BITSTACK_GNU_) && !defined(BITSTACK_NO_SIMD)
#define BITSTACK_HAS_WASM_
#include <wasm_simd128.h>
#define BITSTACK_WASM_INLINE_ BITSTACK_FORCED_

BITSTACK_WASM_INLINE_ v128_t bitstack_magnitudes_wasm_(v128_t floats) { return wasm_v128_and(floats, wasm_i32x4_splat(0x7FFFFFFF)); }
/* As bitstack_round_: of the sum with 1.5 * 2^23 the last bit counts ones. */
BITSTACK_WASM_INLINE_ v128_t bitstack_integers_wasm_(v128_t floats) {
    return wasm_i32x4_sub(wasm_f32x4_add(floats, wasm_f32x4_splat(12582912.0f)), wasm_i32x4_splat(0x4B400000));
}
/* Four factors as floats; halves as bitstack_f16_to_f32. */
BITSTACK_WASM_INLINE_ v128_t bitstack_factors_wasm_(const void *from, bitstack_type type, size_t first) {
    const v128_t least = wasm_i32x4_splat(0x38800000);
    v128_t half, rest, value, tiny;
    if (type != BITSTACK_F16) return wasm_v128_load((const char *)from + 4 * first);
    half = wasm_u32x4_load16x4((const char *)from + 2 * first);
    rest = wasm_v128_and(half, wasm_i32x4_splat(0x7FFF));
    value = wasm_i32x4_add(wasm_i32x4_shl(rest, 13), wasm_i32x4_splat(0x38000000));
    value = wasm_i32x4_add(value, wasm_v128_and(wasm_i32x4_gt(rest, wasm_i32x4_splat(0x7BFF)), wasm_i32x4_splat(0x38000000)));
    tiny = wasm_f32x4_sub(wasm_v128_or(wasm_i32x4_shl(rest, 13), least), least);
    value = wasm_v128_bitselect(tiny, value, wasm_i32x4_gt(wasm_i32x4_splat(0x0400), rest));
    return wasm_v128_or(value, wasm_i32x4_shl(wasm_i32x4_sub(half, rest), 16)); /* and the sign */
}

static void bitstack_product_wasm_(float *z, const void *v, bitstack_type type, size_t first, const float *x, size_t cols) {
    size_t j;
    for (j = 0; j + 4 <= cols; j += 4)
        wasm_v128_store(z + j, wasm_f32x4_mul(bitstack_factors_wasm_(v, type, first + j), wasm_v128_load((const char *)x + 4 * j)));
    if (j < cols) bitstack_product_scalar_(z + j, v, type, first + j, (const float *)(const void *)((const char *)x + 4 * j), cols - j);
}

static float bitstack_build_wasm_(const float *z, size_t groups, unsigned char *high, unsigned char *low) {
    const v128_t signs = wasm_i16x8_make(-1, -1, 1, -1, -1, 1, 1, 1), bias = wasm_i32x4_splat(257 * BITSTACK_BIAS_), low_byte = wasm_i16x8_splat(255);
    const size_t cols = (groups + 3) / 4 * 16;
    v128_t largest = wasm_i32x4_splat(0), inverse;
    float scale;
    size_t j;
    for (j = 0; j < cols; j += 4) {
        v128_t a = bitstack_magnitudes_wasm_(wasm_v128_load(z + j));
        a = wasm_f32x4_add(a, wasm_i32x4_shuffle(a, a, 1, 0, 3, 2));
        a = wasm_f32x4_add(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
        largest = wasm_i32x4_max(largest, a);
    }
    scale = bitstack_block_scale_((uint32_t)wasm_i32x4_extract_lane(largest, 0));
    if (!(scale > 0)) {
        memset(high, BITSTACK_BIAS_, cols * 4);
        if (low) memset(low, BITSTACK_BIAS_, cols * 4);
        return scale;
    }
    inverse = wasm_f32x4_splat(1.0f / scale);
    for (j = 0; j < cols; j += 4) { /* sums of q0, q1 and of q2, q3 with all signs, then those of both */
        v128_t q = bitstack_integers_wasm_(wasm_f32x4_mul(wasm_v128_load(z + j), inverse)), a, b, c, d;
        q = wasm_i16x8_narrow_i32x4(q, q);
        a = wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_i32x4_shuffle(q, q, 0, 0, 0, 0), signs), bias);
        b = wasm_i32x4_dot_i16x8(wasm_i32x4_shuffle(q, q, 1, 1, 1, 1), signs);
        c = wasm_u16x8_narrow_i32x4(wasm_i32x4_add(a, wasm_i32x4_shuffle(b, b, 0, 0, 0, 0)), wasm_i32x4_add(a, wasm_i32x4_shuffle(b, b, 1, 1, 1, 1)));
        d = wasm_u16x8_narrow_i32x4(wasm_i32x4_add(a, wasm_i32x4_shuffle(b, b, 2, 2, 2, 2)), wasm_i32x4_add(a, wasm_i32x4_shuffle(b, b, 3, 3, 3, 3)));
        wasm_v128_store(high + 4 * j, wasm_u8x16_narrow_i16x8(wasm_u16x8_shr(c, 8), wasm_u16x8_shr(d, 8)));
        if (low) wasm_v128_store(low + 4 * j, wasm_u8x16_narrow_i16x8(wasm_v128_and(c, low_byte), wasm_v128_and(d, low_byte)));
    }
    return scale;
}

/* As for SSE4: `pairs` adds whole lanes of 16 bits, `odd` their high bytes; the even bytes are what is left. */
BITSTACK_WASM_INLINE_ void bitstack_sum_wasm_(v128_t *pairs, v128_t *odd, v128_t table, v128_t index) {
    const v128_t found = wasm_i8x16_swizzle(table, wasm_v128_and(index, wasm_i8x16_splat(15)));
    *pairs = wasm_i16x8_add(*pairs, found);
    *odd = wasm_i16x8_add(*odd, wasm_u16x8_shr(found, 8));
}
BITSTACK_WASM_INLINE_ void bitstack_scale_wasm_(float *to, v128_t sums, v128_t scale, int add) {
    const v128_t value = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums), scale);
    wasm_v128_store(to, add ? wasm_f32x4_add(wasm_v128_load(to), value) : value);
}
/* to[0..15] (+)= scale * (sums - bias) */
BITSTACK_WASM_INLINE_ void bitstack_widen_wasm_(float *to, v128_t pairs, v128_t odd, size_t groups, float scale, int add) {
    const v128_t even = wasm_i16x8_sub(pairs, wasm_i16x8_shl(odd, 8)), bias = wasm_i16x8_splat((int16_t)(groups * BITSTACK_BIAS_));
    const v128_t a = wasm_i16x8_sub(wasm_i16x8_shuffle(even, odd, 0, 8, 1, 9, 2, 10, 3, 11), bias);
    const v128_t b = wasm_i16x8_sub(wasm_i16x8_shuffle(even, odd, 4, 12, 5, 13, 6, 14, 7, 15), bias), factor = wasm_f32x4_splat(scale);
    bitstack_scale_wasm_(to, wasm_i32x4_extend_low_i16x8(a), factor, add);
    bitstack_scale_wasm_(to + 4, wasm_i32x4_extend_high_i16x8(a), factor, add);
    bitstack_scale_wasm_(to + 8, wasm_i32x4_extend_low_i16x8(b), factor, add);
    bitstack_scale_wasm_(to + 12, wasm_i32x4_extend_high_i16x8(b), factor, add);
}

static void bitstack_lookup_wasm_(float (*sums)[BITSTACK_TILE_], const bitstack_run_ *run) {
    const float *scale = run->scales;
    const unsigned char *tables = run->tables;
    size_t from, to, g, t;
    for (from = 0; from < run->groups; from = to) {
        to = run->groups - from < BITSTACK_BLOCK_ / 4 ? run->groups : from + BITSTACK_BLOCK_ / 4;
        for (t = 0; t < run->count; t++, scale++, tables += bitstack_table_bytes_(to - from)) {
            v128_t p0 = wasm_i32x4_splat(0), p1 = p0, p2 = p0, p3 = p0, o0 = p0, o1 = p0, o2 = p0, o3 = p0;
            for (g = from; g < to; g++) {
                const v128_t table = wasm_v128_load(tables + 16 * (g - from));
                const v128_t a = wasm_v128_load(run->signs + 32 * g), b = wasm_v128_load(run->signs + 32 * g + 16);
                bitstack_sum_wasm_(&p0, &o0, table, a);
                bitstack_sum_wasm_(&p1, &o1, table, b);
                bitstack_sum_wasm_(&p2, &o2, table, wasm_u16x8_shr(a, 4));
                bitstack_sum_wasm_(&p3, &o3, table, wasm_u16x8_shr(b, 4));
            }
            bitstack_widen_wasm_(sums[t], p0, o0, to - from, *scale, from > 0);
            bitstack_widen_wasm_(sums[t] + 16, p1, o1, to - from, *scale, from > 0);
            bitstack_widen_wasm_(sums[t] + 32, p2, o2, to - from, *scale, from > 0);
            bitstack_widen_wasm_(sums[t] + 48, p3, o3, to - from, *scale, from > 0);
        }
    }
}

static void bitstack_combine_wasm_(float *total, const float *base, const float *sums, const void *u, bitstack_type type, size_t first, size_t rows) {
    size_t i;
    for (i = 0; i + 4 <= rows; i += 4)
        wasm_v128_store(total + i, wasm_f32x4_add(wasm_v128_load(base + i), wasm_f32x4_mul(bitstack_factors_wasm_(u, type, first + i), wasm_v128_load(sums + i))));
    if (i < rows) bitstack_combine_scalar_(total + i, base + i, sums + i, u, type, first + i, rows - i);
}

static void bitstack_count_wasm_(uint32_t (*counts)[BITSTACK_TILE_], const unsigned char *signs, size_t groups, const unsigned char *bits, size_t stride, size_t planes) {
    const v128_t low = wasm_i8x16_splat(15);
    BITSTACK_ALIGNED_ unsigned char rows[BITSTACK_PAIRS_][BITSTACK_TILE_], sums[BITSTACK_TILE_];
    size_t pair, some, t, i, k;
    for (pair = 0; pair * 2 < groups; pair += some) {
        some = (groups + 1) / 2 - pair < BITSTACK_PAIRS_ ? (groups + 1) / 2 - pair : BITSTACK_PAIRS_;
        for (i = 0; i < some; i++)
            for (k = 0; k < 32; k += 16) {
                const v128_t a = wasm_v128_load(signs + 64 * (pair + i) + k);
                const v128_t b = 2 * (pair + i) + 1 < groups ? wasm_v128_load(signs + 64 * (pair + i) + 32 + k) : wasm_i8x16_splat(0);
                wasm_v128_store(rows[i] + k, wasm_v128_bitselect(a, wasm_i16x8_shl(b, 4), low));
                wasm_v128_store(rows[i] + 32 + k, wasm_v128_bitselect(wasm_u16x8_shr(a, 4), b, low));
            }
        for (t = 0; t < planes; t++) {
            for (k = 0; k < BITSTACK_TILE_; k += 16) {
                v128_t sum = wasm_i8x16_splat(0);
                for (i = 0; i < some; i++)
                    sum = wasm_i8x16_add(sum, wasm_i8x16_popcnt(wasm_v128_and(wasm_v128_load(rows[i] + k), wasm_i8x16_splat((int8_t)bits[t * stride + pair + i]))));
                wasm_v128_store(sums + k, sum);
            }
            bitstack_add_counts_(counts[t], sums);
        }
    }
}

BITSTACK_WASM_INLINE_ v128_t bitstack_small_values_wasm_(const unsigned char *codes) {
    const v128_t code = wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(codes)));
    const v128_t value = wasm_i32x4_add(wasm_i32x4_shl(code, 18), wasm_i32x4_splat(120 << 23));
    return wasm_v128_andnot(value, wasm_i32x4_eq(code, wasm_i32x4_splat(0)));
}
static void bitstack_smalls_wasm_(float *to, const unsigned char *codes, size_t count) {
    for (; count >= 4; count -= 4, to += 4, codes += 4) wasm_v128_store(to, bitstack_small_values_wasm_(codes));
    bitstack_smalls_scalar_(to, codes, count);
}
static uint32_t bitstack_largest_wasm_(const float *z, size_t cols) {
    v128_t most = wasm_i32x4_splat(0);
    uint32_t lanes[4], rest;
    size_t j, i;
    for (j = 0; j + 4 <= cols; j += 4) most = wasm_u32x4_max(most, bitstack_magnitudes_wasm_(wasm_v128_load(z + j)));
    rest = bitstack_largest_scalar_(z + j, cols - j);
    wasm_v128_store(lanes, most);
    for (i = 0; i < 4; i++) rest = lanes[i] > rest ? lanes[i] : rest;
    return rest;
}
static void bitstack_round_wasm_(signed char *q, size_t stride, int32_t *sums, const float *z, float inverse, size_t cols) {
    const v128_t by = wasm_f32x4_splat(inverse);
    v128_t sum[2];
    int32_t lanes[2][4];
    size_t j, i;
    sum[0] = sum[1] = wasm_i32x4_splat(0);
    for (j = 0; j + 4 <= cols; j += 4) {
        v128_t value = bitstack_integers_wasm_(wasm_f32x4_mul(wasm_v128_load(z + j), by)), high = value, words;
        if (stride) {
            high = wasm_i32x4_shr(wasm_i32x4_add(value, wasm_i32x4_splat(128)), 8);
            value = wasm_i32x4_sub(value, wasm_i32x4_shl(high, 8));
            sum[1] = wasm_i32x4_add(sum[1], value);
            words = wasm_i16x8_narrow_i32x4(value, value);
            wasm_v128_store32_lane(q + stride + j, wasm_i8x16_narrow_i16x8(words, words), 0);
        }
        sum[0] = wasm_i32x4_add(sum[0], high);
        words = wasm_i16x8_narrow_i32x4(high, high);
        wasm_v128_store32_lane(q + j, wasm_i8x16_narrow_i16x8(words, words), 0);
    }
    wasm_v128_store(lanes[0], sum[0]), wasm_v128_store(lanes[1], sum[1]);
    for (i = 0; i < 4; i++) sums[0] += lanes[0][i], sums[1] += lanes[1][i];
    bitstack_round_scalar_(q + j, stride, sums, z + j, inverse, cols - j);
}

typedef struct bitstack_entries_wasm_ {
    v128_t entries[16];
} bitstack_entries_wasm_;
/* Products of a row's columns 0 and 1, and 2 and 3, of two rows each. */
typedef struct bitstack_partial_wasm_ {
    v128_t low, high;
} bitstack_partial_wasm_;
BITSTACK_WASM_INLINE_ bitstack_entries_wasm_ bitstack_table_wasm_(const signed char *table, const uint32_t level) {
    const v128_t nibbles = wasm_i8x16_make(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    bitstack_entries_wasm_ it;
    size_t i;
    it.entries[0] = wasm_v128_load(table);
    for (i = 1; level <= 2 && i < 4 / level; i++) /* for a nibble's bits from i * level on */
        it.entries[i] = wasm_i8x16_swizzle(it.entries[0], wasm_v128_and(wasm_u8x16_shr(nibbles, (uint32_t)i * level), wasm_i8x16_splat((int8_t)(2 * level - 1))));
    for (i = 1; i < (size_t)(level < 5 ? 1 : 1 << (level - 4)); i++) it.entries[i] = wasm_v128_load(table + 16 * i);
    return it;
}
BITSTACK_WASM_INLINE_ v128_t bitstack_look_bytes_wasm_(const bitstack_entries_wasm_ *table, v128_t index, const uint32_t level, const size_t k) {
    v128_t value;
    int i;
    index = wasm_v128_and(index, wasm_i8x16_splat((int8_t)(level < 4 ? 15 : (1 << level) - 1)));
    value = wasm_i8x16_swizzle(table->entries[level == 1 ? k % 4 : level == 2 ? k / 2 % 2 : 0], index);
    for (i = 1; i < (level < 5 ? 1 : 1 << (level - 4)); i++)
        value = wasm_v128_or(value, wasm_i8x16_swizzle(table->entries[i], wasm_i8x16_sub(index, wasm_i8x16_splat((int8_t)(16 * i)))));
    return value;
}
BITSTACK_WASM_INLINE_ bitstack_partial_wasm_ bitstack_start_wasm_(void) {
    bitstack_partial_wasm_ it;
    it.low = it.high = wasm_i32x4_splat(0);
    return it;
}
BITSTACK_WASM_INLINE_ void bitstack_dot_bytes_wasm_(bitstack_partial_wasm_ *partial, v128_t bytes, const signed char *q) {
    const v128_t by = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_splat(q));
    partial->low = wasm_i32x4_add(partial->low, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(bytes), by));
    partial->high = wasm_i32x4_add(partial->high, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(bytes), by));
}
#define BITSTACK_LOADI_wasm_(from) wasm_v128_load(from)
#define BITSTACK_STOREI_wasm_(to, value) wasm_v128_store(to, value)
#define BITSTACK_SHL_wasm_(value, n) wasm_i16x8_shl(value, n)
#define BITSTACK_SHR_wasm_(value, n) wasm_u16x8_shr(value, n)
#define BITSTACK_AND_wasm_(a, byte) wasm_v128_and(a, wasm_i8x16_splat(byte))
#define BITSTACK_XOR_wasm_(a, b) wasm_v128_xor(a, b)
#define BITSTACK_FIELDS_wasm_ 1
#define BITSTACK_ALONE_wasm_(a) (a)
#define BITSTACK_PAIR_wasm_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SWAP_(wasm, V, even, odd, a, b, mask, n)
#define BITSTACK_LOOK_wasm_ bitstack_look_bytes_wasm_
#define BITSTACK_START_wasm_(sum_of_inputs) ((void)(sum_of_inputs), bitstack_start_wasm_())
#define BITSTACK_DOT_wasm_(partial, which, bytes, q) bitstack_dot_bytes_wasm_(&(partial), bytes, q);
#define BITSTACK_DOT_READY_wasm_ BITSTACK_DOT_wasm_
#define BITSTACK_DOT_WORDS_wasm_(partial, bytes, q) bitstack_dot_bytes_wasm_(&(partial), bytes, q);
#define BITSTACK_SUM_wasm_(partial) \
    wasm_i32x4_add(wasm_i32x4_shuffle((partial).low, (partial).high, 0, 2, 4, 6), wasm_i32x4_shuffle((partial).low, (partial).high, 1, 3, 5, 7))
#define BITSTACK_ADD_SUM_wasm_(to, value) wasm_v128_store(to, wasm_i32x4_add(wasm_v128_load(to), value))
#define BITSTACK_LOAD_wasm_(from) wasm_v128_load(from)
#define BITSTACK_STORE_wasm_(to, value) wasm_v128_store(to, value)
#define BITSTACK_ADD_wasm_(a, b) wasm_f32x4_add(a, b)
#define BITSTACK_MUL_wasm_(a, b) wasm_f32x4_mul(a, b)
#define BITSTACK_SCALED_wasm_(a, scalar) wasm_f32x4_mul(a, wasm_f32x4_splat(scalar))
#define BITSTACK_CONVERT_wasm_(sum) wasm_f32x4_convert_i32x4(sum)
#define BITSTACK_CHAIN_wasm_(many, which) (which)
#define BITSTACK_FLOATS_wasm_(from) wasm_f32x4_convert_i32x4(wasm_v128_load(from))
#define BITSTACK_KEEP_wasm_(value)
BITSTACK_WASM_INLINE_ void bitstack_add_group_wasm_(float *total, v128_t sum, const unsigned char *codes, float input_scale) {
    const v128_t scale = wasm_f32x4_mul(bitstack_small_values_wasm_(codes), wasm_f32x4_splat(input_scale));
    wasm_v128_store(total, wasm_f32x4_add(wasm_v128_load(total), wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), scale)));
}
BITSTACK_DEFINE_FOLD_(wasm, , v128_t, 4)
BITSTACK_DEFINE_DECODE_(wasm, , BITSTACK_WASM_INLINE_, v128_t, 4)
BITSTACK_DEFINE_MIX_(wasm, , BITSTACK_WASM_INLINE_, v128_t, v128_t, 4)

#if defined(__wasm_relaxed_simd__) && __clang_major__ >= 16 /* earlier ones write operations that were numbered anew */
#define BITSTACK_HAS_RELAXED_
typedef bitstack_entries_wasm_ bitstack_entries_relaxed_;
typedef v128_t bitstack_partial_relaxed_;
#define bitstack_table_relaxed_ bitstack_table_wasm_
#define bitstack_add_group_relaxed_ bitstack_add_group_wasm_
BITSTACK_WASM_INLINE_ v128_t bitstack_look_bytes_relaxed_(const bitstack_entries_wasm_ *table, v128_t index, const uint32_t level, const size_t k) {
    typedef signed char bytes_ __attribute__((vector_size(16)));
    if (level > 4) return bitstack_look_bytes_wasm_(table, index, level, k);
    return (v128_t)__builtin_wasm_relaxed_swizzle_i8x16((bytes_)table->entries[level == 1 ? k % 4 : level == 2 ? k / 2 % 2 : 0], (bytes_)wasm_v128_and(index, wasm_i8x16_splat(15)));
}
/* |inputs| have 7 bits; the table's values, from -127 on, get the inputs' signs. */
BITSTACK_WASM_INLINE_ v128_t bitstack_dot_bytes_relaxed_(v128_t sum, v128_t bytes, const signed char *q) {
    typedef signed char bytes_ __attribute__((vector_size(16)));
    typedef int sums_ __attribute__((vector_size(16)));
    const v128_t by = wasm_v128_load32_splat(q), minus = wasm_i8x16_lt(by, wasm_i8x16_splat(0));
    return (v128_t)__builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4((bytes_)wasm_i8x16_sub(wasm_v128_xor(bytes, minus), minus), (bytes_)wasm_i8x16_abs(by), (sums_)sum);
}
/* Bytes that may be -128. */
BITSTACK_WASM_INLINE_ v128_t bitstack_dot_words_relaxed_(v128_t sum, v128_t bytes, const signed char *q) {
    bitstack_partial_wasm_ partial = bitstack_start_wasm_();
    bitstack_dot_bytes_wasm_(&partial, bytes, q);
    return wasm_i32x4_add(sum, BITSTACK_SUM_wasm_(partial));
}
#define BITSTACK_LOADI_relaxed_(from) wasm_v128_load(from)
#define BITSTACK_STOREI_relaxed_(to, value) wasm_v128_store(to, value)
#define BITSTACK_SHL_relaxed_(value, n) wasm_i16x8_shl(value, n)
#define BITSTACK_SHR_relaxed_(value, n) wasm_u16x8_shr(value, n)
#define BITSTACK_AND_relaxed_(a, byte) wasm_v128_and(a, wasm_i8x16_splat(byte))
#define BITSTACK_XOR_relaxed_(a, b) wasm_v128_xor(a, b)
#define BITSTACK_FIELDS_relaxed_ 1
#define BITSTACK_ALONE_relaxed_(a) (a)
#define BITSTACK_PAIR_relaxed_(V, even, odd, a, b, mask, n) BITSTACK_PAIR_SWAP_(relaxed, V, even, odd, a, b, mask, n)
#define BITSTACK_LOOK_relaxed_ bitstack_look_bytes_relaxed_
#define BITSTACK_START_relaxed_(sum_of_inputs) ((void)(sum_of_inputs), wasm_i32x4_splat(0))
#define BITSTACK_DOT_relaxed_(partial, which, bytes, q) (partial) = bitstack_dot_bytes_relaxed_(partial, bytes, q);
#define BITSTACK_DOT_READY_relaxed_ BITSTACK_DOT_relaxed_
#define BITSTACK_DOT_WORDS_relaxed_(partial, bytes, q) (partial) = bitstack_dot_words_relaxed_(partial, bytes, q);
#define BITSTACK_SUM_relaxed_(partial) (partial)
#define BITSTACK_ADD_SUM_relaxed_(to, value) BITSTACK_ADD_SUM_wasm_(to, value)
#define BITSTACK_LOAD_relaxed_(from) wasm_v128_load(from)
#define BITSTACK_STORE_relaxed_(to, value) wasm_v128_store(to, value)
#define BITSTACK_ADD_relaxed_(a, b) wasm_f32x4_add(a, b)
#define BITSTACK_MUL_relaxed_(a, b) wasm_f32x4_mul(a, b)
#define BITSTACK_SCALED_relaxed_(a, scalar) BITSTACK_SCALED_wasm_(a, scalar)
#define BITSTACK_CONVERT_relaxed_(sum) wasm_f32x4_convert_i32x4(sum)
#define BITSTACK_CHAIN_relaxed_(many, which) (which)
#define BITSTACK_KEEP_relaxed_(value)
BITSTACK_DEFINE_DECODE_(relaxed, , BITSTACK_WASM_INLINE_, v128_t, 4)
BITSTACK_DEFINE_MIX_(relaxed, , BITSTACK_WASM_INLINE_, v128_t, v128_t, 4)
/* Where inputs have two bytes, one may be -128, too, whose magnitude has 8 bits. */
static void bitstack_dot_any_relaxed_(int32_t (*sums)[BITSTACK_LANES_], size_t step, const signed char *bytes, size_t chunks, const signed char *q,
                                      size_t stride, size_t vectors, int words) {
    (void)words;
    bitstack_dot_relaxed_(sums, step, bytes, chunks, q, stride, vectors, 1);
}
#endif
#endif /* WASM */

/* ================================================================================ [DISPATCH]
 * One line per ISA, best first. */
#define BITSTACK_DECODE_SCALAR_                                                                                            \
    bitstack_smalls_scalar_, bitstack_largest_scalar_, bitstack_round_scalar_, bitstack_decode_scalar_, bitstack_dot_scalar_, \
    bitstack_fold_scalar_, NULL, NULL, NULL, NULL, bitstack_times_scalar_, bitstack_whole_scalar_, 0, 0
#define BITSTACK_ROW_AVX512_(mix, tiles) /* AMX is the same but for many inputs */                                               \
    bitstack_product_avx512_, bitstack_build_avx512_, bitstack_lookup_avx512_, 4, bitstack_combine_avx512_,                    \
    bitstack_count_avx512_, bitstack_unfold_avx512_, bitstack_panel_avx512_, bitstack_unroll_avx512_, bitstack_smalls_avx512_, \
    bitstack_largest_avx2_, bitstack_round_avx2_, bitstack_decode_avx512_, bitstack_dot_avx512_, bitstack_fold_avx512_, mix, tiles, \
    bitstack_stream_avx512_, NULL, bitstack_times_avx512_, bitstack_whole_avx512_, 128, 2
static const bitstack_kernels_ bitstack_isas_[] = {
#ifdef BITSTACK_HAS_AMX_
    {"amx", bitstack_available_amx_, BITSTACK_ROW_AVX512_(bitstack_mix_amx_, bitstack_tiles_amx_)},
#endif
#ifdef BITSTACK_HAS_AVX512_
    {"avx512", bitstack_available_avx512_, BITSTACK_ROW_AVX512_(bitstack_mix_avx512_, NULL)},
#endif
#ifdef BITSTACK_HAS_AVXVNNI_
    {"avxvnni", bitstack_available_avxvnni_, bitstack_product_avx2_, bitstack_build_avx2_, bitstack_lookup_avx2_, 4,
     bitstack_combine_avx2_, bitstack_count_avx2_, bitstack_unfold_avx2_, bitstack_panel_avx2_, bitstack_unroll_avx2_,
     bitstack_smalls_avx2_, bitstack_largest_avx2_, bitstack_round_avx2_, bitstack_decode_avxvnni_, bitstack_dot_avxvnni_, bitstack_fold_avx2_,
     bitstack_mix_avxvnni_, NULL, bitstack_stream_odd_avxvnni_, bitstack_prepare_avxvnni_, bitstack_times_avx2_, bitstack_whole_avx2_, 128, 2},
#endif
#ifdef BITSTACK_HAS_AVX2_
    {"avx2", bitstack_available_avx2_, bitstack_product_avx2_, bitstack_build_avx2_, bitstack_lookup_avx2_, 4,
     bitstack_combine_avx2_, bitstack_count_avx2_, bitstack_unfold_avx2_, bitstack_panel_avx2_, bitstack_unroll_avx2_,
     bitstack_smalls_avx2_, bitstack_largest_avx2_, bitstack_round_avx2_, bitstack_decode_avx2_, bitstack_dot_avx2_, bitstack_fold_avx2_,
     bitstack_mix_avx2_, NULL, bitstack_stream_odd_avx2_, bitstack_prepare_avx2_, bitstack_times_avx2_, bitstack_whole_avx2_, 0, 0},
#endif
#ifdef BITSTACK_HAS_SSE4_
    {"sse4", bitstack_available_sse4_, bitstack_product_sse4_, bitstack_build_sse4_, bitstack_lookup_sse4_, 1,
     bitstack_combine_sse4_, bitstack_count_scalar_, NULL, NULL, NULL, bitstack_smalls_scalar_, bitstack_largest_scalar_, bitstack_round_scalar_,
     bitstack_decode_sse4_, bitstack_dot_sse4_, bitstack_fold_sse4_, bitstack_mix_sse4_, NULL, bitstack_stream_sse4_, bitstack_prepare_sse4_, bitstack_times_scalar_, bitstack_whole_scalar_, 0, 0},
#endif
#ifdef BITSTACK_HAS_DOTPROD_
    {"dotprod", bitstack_available_dotprod_, bitstack_product_neon_, bitstack_build_neon_, bitstack_lookup_neon_, 1,
     bitstack_combine_neon_, bitstack_count_neon_, BITSTACK_PANELS_NEON_, bitstack_smalls_scalar_, bitstack_largest_neon_, bitstack_round_neon_,
     bitstack_decode_dotprod_, bitstack_dot_dotprod_, bitstack_fold_neon_, bitstack_mix_dotprod_, NULL, bitstack_stream_dotprod_, NULL, bitstack_times_scalar_, bitstack_whole_scalar_, 0, 0},
#endif
#ifdef BITSTACK_HAS_NEON_
    {"neon", bitstack_available_neon_, bitstack_product_neon_, bitstack_build_neon_, bitstack_lookup_neon_, 1,
     bitstack_combine_neon_, bitstack_count_neon_, BITSTACK_PANELS_NEON_, bitstack_smalls_scalar_, bitstack_largest_neon_, bitstack_round_neon_,
     bitstack_decode_neon_, bitstack_dot_neon_, bitstack_fold_neon_, bitstack_mix_neon_, NULL, bitstack_stream_neon_, NULL, bitstack_times_scalar_, bitstack_whole_scalar_, 0, 0},
#endif
#ifdef BITSTACK_HAS_WASM_
#define BITSTACK_ROW_WASM_(name, isa, dot)                                                                                            \
    {name, bitstack_always_, bitstack_product_wasm_, bitstack_build_wasm_, bitstack_lookup_wasm_, 1, bitstack_combine_wasm_,   \
     bitstack_count_wasm_, NULL, NULL, NULL, bitstack_smalls_wasm_, bitstack_largest_wasm_, bitstack_round_wasm_,              \
     bitstack_decode_##isa##_, dot, bitstack_fold_wasm_, bitstack_mix_##isa##_, NULL, bitstack_stream_##isa##_, \
     NULL, bitstack_times_scalar_, bitstack_whole_scalar_, 0, 0},
#ifdef BITSTACK_HAS_RELAXED_
    BITSTACK_ROW_WASM_("relaxed", relaxed, bitstack_dot_any_relaxed_)
#endif
    BITSTACK_ROW_WASM_("simd128", wasm, bitstack_dot_wasm_)
#endif
    {"scalar", bitstack_always_, bitstack_product_scalar_, bitstack_build_scalar_, bitstack_lookup_scalar_, 1,
     bitstack_combine_scalar_, bitstack_count_scalar_, NULL, NULL, NULL, BITSTACK_DECODE_SCALAR_},
};
#define BITSTACK_ISA_COUNT_ ((int)(sizeof bitstack_isas_ / sizeof bitstack_isas_[0]))

/* Threads that arrive first at the same time all store the same value. */
#if defined(BITSTACK_GNU_)
static int bitstack_isa_chosen_ = -1;
#define BITSTACK_ISA_LOAD_() __atomic_load_n(&bitstack_isa_chosen_, __ATOMIC_RELAXED)
#define BITSTACK_ISA_STORE_(value) __atomic_store_n(&bitstack_isa_chosen_, value, __ATOMIC_RELAXED)
#else
static volatile int bitstack_isa_chosen_ = -1;
#define BITSTACK_ISA_LOAD_() bitstack_isa_chosen_
#define BITSTACK_ISA_STORE_(value) (bitstack_isa_chosen_ = (value))
#endif

static const bitstack_kernels_ *bitstack_kernels_in_use_(void) {
    int isa = BITSTACK_ISA_LOAD_();
    if (isa < 0) {
        isa = 0;
        while (!bitstack_isas_[isa].available()) isa++; /* the last one is always there */
        BITSTACK_ISA_STORE_(isa);
    }
    return bitstack_isas_ + isa;
}

BITSTACK_API const char *bitstack_isa(void) { return bitstack_kernels_in_use_()->name; }

BITSTACK_API const char *bitstack_isa_name(int index) {
    return index >= 0 && index < BITSTACK_ISA_COUNT_ ? bitstack_isas_[index].name : NULL;
}

BITSTACK_API int bitstack_isa_available(int index) {
    return index >= 0 && index < BITSTACK_ISA_COUNT_ && bitstack_isas_[index].available();
}

BITSTACK_API bitstack_result bitstack_set_isa(const char *name) {
    int i;
    if (!name) {
        BITSTACK_ISA_STORE_(-1);
        return BITSTACK_OK;
    }
    for (i = 0; i < BITSTACK_ISA_COUNT_; i++)
        if (!strcmp(name, bitstack_isas_[i].name) && bitstack_isas_[i].available()) {
            BITSTACK_ISA_STORE_(i);
            return BITSTACK_OK;
        }
    return BITSTACK_ERROR_UNSUPPORTED;
}

/* ==================================================================================== [GEMV] */

/* Consecutive planes from `first` that share their columns V. */
static uint32_t bitstack_sharing_(const bitstack_view *view, uint32_t first) {
    uint32_t end = first + 1;
    while (end < view->level && view->planes[end].columns == view->planes[first].columns) end++;
    return end;
}

/* One pass: the tables of some vectors over a chunk of columns, used by planes that share V. */
typedef struct bitstack_pass_ {
    const bitstack_view *view;
    const bitstack_kernels_ *kernels;
    size_t from, to;         /* columns of the chunk */
    size_t rank, ranks;      /* the first and how many */
    size_t batch, halves;    /* inputs; tables of each vector: 1 FAST, 2 EXACT */
    size_t tables;           /* batch * ranks * halves */
    BITSTACK_ALIGNED_ unsigned char space[BITSTACK_CHUNK_COLS * 4]; /* the tables */
    float scales[BITSTACK_CHUNK_COLS / 64]; /* of each block, of each table */
} bitstack_pass_;

static void bitstack_tabulate_(bitstack_pass_ *pass, uint32_t plane, const float *x, size_t x_stride) {
    const bitstack_view *view = pass->view;
    unsigned char *table = pass->space;
    BITSTACK_ALIGNED_ float z[BITSTACK_BLOCK_];
    float *scale = pass->scales;
    size_t col, cols, b, r, j;
    for (col = pass->from; col < pass->to; col += cols) {
        size_t bytes;
        cols = bitstack_span_cols_(view, col, pass->to);
        if (cols > BITSTACK_BLOCK_) cols = BITSTACK_BLOCK_;
        bytes = bitstack_table_bytes_((cols + 3) / 4);
        for (b = 0; b < pass->batch; b++)
            for (r = pass->rank; r < pass->rank + pass->ranks; r++) {
                float s;
                pass->kernels->product(z, view->planes[plane].columns, view->factor_type, r * view->cols + col,
                                       x + b * x_stride + col, cols);
                for (j = cols; j % 16; j++) z[j] = 0;
                s = pass->kernels->build(z, (cols + 3) / 4, table, pass->halves == 2 ? table + bytes : NULL);
                s *= view->scale; /* a power of two */
                scale[pass->halves - 1] = s;
                scale[0] = s * 256.0f;
                scale += pass->halves;
                table += pass->halves * bytes;
            }
    }
}

/* Memory that is about to be read; as integers, for it may lie outside. */
static void bitstack_prefetch_(uintptr_t at, size_t bytes) {
    const uintptr_t end = at + bytes;
    for (; at < end; at += 64) BITSTACK_PREFETCH_((const char *)at);
}

/* Half floats as in a file: with these coefficients, sums are added. */
#define BITSTACK_EIGHT_ONES_ 0, 0x3C, 0, 0x3C, 0, 0x3C, 0, 0x3C, 0, 0x3C, 0, 0x3C, 0, 0x3C, 0, 0x3C
static const unsigned char bitstack_ones_[2 * BITSTACK_TILE_] = {
    BITSTACK_EIGHT_ONES_, BITSTACK_EIGHT_ONES_, BITSTACK_EIGHT_ONES_, BITSTACK_EIGHT_ONES_,
    BITSTACK_EIGHT_ONES_, BITSTACK_EIGHT_ONES_, BITSTACK_EIGHT_ONES_, BITSTACK_EIGHT_ONES_};
static const float bitstack_no_sums_[BITSTACK_STREAMS_ * BITSTACK_TILE_] = {0};

/* Adds `tiles` tiles of a plane to the totals, for input b and span s at total[(s * batch + b) * stride], or
 * starts them. `next`: signs needed after. */
static void bitstack_sweep_(const bitstack_pass_ *pass, const bitstack_plane *plane, size_t tile, size_t tiles,
                            const unsigned char *next, float *total, size_t stride, int start) {
    const bitstack_view *view = pass->view;
    BITSTACK_ALIGNED_ float sums[BITSTACK_TABLES_][BITSTACK_TILE_];
    const size_t factor = (size_t)bitstack_factor_size_(view->factor_type);
    const size_t rows = pass->tables == 1 ? tiles * BITSTACK_TILE_ : BITSTACK_TILE_; /* whose sums stand together */
    bitstack_run_ run;
    size_t col, cols, t, i;
    run.tiles = tiles, run.stride = bitstack_tile_bytes_(view);
    run.signs = plane->signs + tile * run.stride + pass->from / 4 * 32;
    run.tables = pass->space;
    run.scales = pass->scales;
    run.count = pass->tables;
    for (col = pass->from; col < pass->to; col += cols) {
        float *at = total + (col / BITSTACK_SPAN_ - pass->from / BITSTACK_SPAN_) * pass->batch * stride;
        cols = bitstack_span_cols_(view, col, pass->to);
        run.groups = (cols + 3) / 4;
        run.next = col + cols < pass->to ? run.signs + run.groups * 32 : next;
        for (t = pass->rank; t < pass->rank + pass->ranks; t++)
            bitstack_prefetch_((uintptr_t)plane->coefficients + (bitstack_coefficient_at_(view, col, t) + tile * BITSTACK_TILE_) * factor,
                               tiles * BITSTACK_TILE_ * factor);
        pass->kernels->lookup(sums, &run);
        for (i = 0; i < tiles; i += rows / BITSTACK_TILE_)
            for (t = 0; t < pass->tables; t++) {
                const size_t row = (tile + i) * BITSTACK_TILE_, vector = t / pass->halves, r = pass->rank + vector % pass->ranks;
                float *to = at + vector / pass->ranks * stride + i * BITSTACK_TILE_;
                const int fresh = start && (col == pass->from || col % BITSTACK_SPAN_ == 0) && t % (pass->ranks * pass->halves) == 0;
                pass->kernels->combine(to, fresh ? bitstack_no_sums_ : to, sums[i * pass->tables + t], plane->coefficients, view->factor_type, bitstack_coefficient_at_(view, col, r) + row,
                                       view->rows - row < rows ? view->rows - row : rows);
            }
        run.signs += run.groups * 32;
        run.tables += bitstack_table_bytes_(run.groups) * pass->tables;
        run.scales += (cols + BITSTACK_BLOCK_ - 1) / BITSTACK_BLOCK_ * pass->tables;
    }
}

/* Writes (or adds to) those of rows [begin, begin + count) of y that are in a tile whose sums stand at
 * sum[(s * batch + b) * stride]. */
static void bitstack_finish_(const bitstack_pass_ *pass, const float *sum, size_t spans, size_t stride, size_t tile,
                             float *y, size_t y_stride, size_t begin, size_t count, int add) {
    const size_t row = tile * BITSTACK_TILE_, low = row < begin ? begin - row : 0;
    const size_t high = begin + count - row < BITSTACK_TILE_ ? begin + count - row : BITSTACK_TILE_;
    BITSTACK_ALIGNED_ float line[BITSTACK_TILE_];
    size_t b, s;
    for (b = 0; b < pass->batch; b++, sum += stride) {
        const float *all = sum;
        char *to = (char *)y + 4 * (b * y_stride + row + low - begin);
        if (add) {
            memset(line, 0, sizeof line);
            memcpy(line + low, to, 4 * (high - low));
            pass->kernels->combine(line, line, sum, bitstack_ones_, BITSTACK_F16, 0, BITSTACK_TILE_);
            all = line;
        }
        for (s = 1; s < spans; s++, all = line)
            pass->kernels->combine(line, all, sum + s * pass->batch * stride, bitstack_ones_, BITSTACK_F16, 0, BITSTACK_TILE_);
        memcpy(to, all + low, 4 * (high - low));
    }
}

/* Sweeps the planes [plane, end) over the rows in bands of tiles, plane after plane, so that signs are
 * read in long runs. */
static void bitstack_sweep_planes_(const bitstack_pass_ *pass, uint32_t plane, uint32_t end, float *y, size_t y_stride,
                                   size_t begin, size_t count, int add) {
    const bitstack_view *view = pass->view;
    const size_t tile_bytes = bitstack_tile_bytes_(view), tiles = (begin + count + BITSTACK_TILE_ - 1) / BITSTACK_TILE_;
    const size_t spans = (pass->to - 1) / BITSTACK_SPAN_ - pass->from / BITSTACK_SPAN_ + 1;
    const size_t most = BITSTACK_BAND_ / (spans * pass->batch), all = tiles - begin / BITSTACK_TILE_;
    const size_t band = all < most ? all : most, stride = band * BITSTACK_TILE_;
    const size_t streams = pass->kernels->streams < BITSTACK_STREAMS_ ? pass->kernels->streams : BITSTACK_STREAMS_;
    BITSTACK_ALIGNED_ float total[BITSTACK_BAND_ * BITSTACK_TILE_];
    size_t tile, after, k, i, n;
    uint32_t p;
    for (tile = begin / BITSTACK_TILE_; tile < tiles; tile = after) {
        after = tiles - tile < band ? tiles : tile + band;
        for (p = plane; p < end; p++)
            for (k = tile; k < after; k += n) {
                const bitstack_plane *then = view->planes + p; /* where reading goes on */
                float *sum = total + (k - tile) * BITSTACK_TILE_;
                size_t then_tile;
                n = streams / pass->tables;
                if (n < 2 || n > after - k) n = 1;
                then_tile = k + n;
                if (then_tile == after) then_tile = p + 1 < end ? (then++, tile) : after < tiles ? (then -= p - plane, after) : k;
                bitstack_sweep_(pass, view->planes + p, k, n, then->signs + then_tile * tile_bytes + pass->from / 4 * 32, sum, stride, p == plane);
                for (i = 0; p + 1 == end && i < n; i++)
                    bitstack_finish_(pass, sum + i * BITSTACK_TILE_, spans, stride, k + i, y, y_stride, begin, count, add);
            }
    }
}

/* How many inputs one pass takes. */
static size_t bitstack_batch_(const bitstack_view *view, int exact) {
    size_t most = (size_t)BITSTACK_TABLES_ / (exact ? 2 : 1) / view->rank;
    return most ? most : 1;
}

/* Up to bitstack_batch_ inputs by look-up. Sums are kept apart by spans, so that how many columns or
 * inputs are worked on at once changes no bit. */
static void bitstack_lookup_product_(const bitstack_view *view, int exact, const float *x, size_t x_stride, float *y,
                                     size_t y_stride, size_t batch, size_t begin, size_t count) {
    bitstack_pass_ pass;
    size_t most, chunk;
    uint32_t plane, end;
    pass.view = view;
    pass.kernels = bitstack_kernels_in_use_();
    pass.batch = batch;
    pass.halves = exact ? 2 : 1;
    most = BITSTACK_TABLES_ / (batch * pass.halves);
    if (most > view->rank) most = view->rank;
    chunk = BITSTACK_CHUNK_COLS / BITSTACK_BLOCK_ / (most * batch * pass.halves) * BITSTACK_BLOCK_;
    if (bitstack_sharing_(view, 0) < view->level && chunk > BITSTACK_SPAN_) chunk = BITSTACK_SPAN_;
    if (chunk > BITSTACK_SPAN_) chunk -= chunk % BITSTACK_SPAN_;
    for (pass.from = 0; pass.from < view->cols; pass.from = pass.to) {
        pass.to = view->cols - pass.from < chunk ? view->cols : pass.from + chunk;
        for (plane = 0; plane < view->level; plane = end) {
            end = bitstack_sharing_(view, plane);
            for (pass.rank = 0; pass.rank < view->rank; pass.rank += most) {
                pass.ranks = view->rank - pass.rank < most ? view->rank - pass.rank : most;
                pass.tables = batch * pass.ranks * pass.halves;
                bitstack_tabulate_(&pass, plane, x, x_stride);
                bitstack_sweep_planes_(&pass, plane, end, y, y_stride, begin, count, pass.from || plane || pass.rank);
            }
        }
    }
}

/* Fills it for in->groups groups from in->from. */
BITSTACK_APART_ static void bitstack_quantize_(bitstack_inputs_ *in, const bitstack_view *view, const float *x, size_t x_stride) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    const unsigned char *codes = bitstack_col_scales_(view);
    BITSTACK_ALIGNED_ float z[BITSTACK_BLOCK_], own[BITSTACK_INPUTS_ > 1 ? BITSTACK_BLOCK_ : 1];
    float *v = BITSTACK_INPUTS_ > 1 ? own : z; /* small stacks have one input, and then z takes v's place */
    size_t b, g, begin, col, cols, end, some;
    for (g = 0; g < in->groups; g++)
        for (b = 0; b < in->batch; b++) {
            float *scale = in->scales + g * in->batch + b, inverse = 0;
            int32_t sums[2] = {0, 0};
            uint32_t most = 0;
            int pass, once;
            begin = in->from + g * in->group_cols, end = in->to - begin < in->group_cols ? in->to : begin + in->group_cols;
            once = end - begin <= BITSTACK_BLOCK_; /* then z and v serve again */
            for (pass = 0; pass < 2; pass++) { /* first the largest, then the integers */
                for (col = begin; col < end; col += cols) {
                    signed char *q = in->q + b * in->parts * in->stride + (col - in->from);
                    cols = end - col < BITSTACK_BLOCK_ ? end - col : BITSTACK_BLOCK_;
                    if (!once || (b == 0 && pass == 0)) kernels->smalls(v, codes + col, cols);
                    if (!once || pass == 0) { /* in place: factors that are elsewhere would be those of a file, little-endian */
                        if (z != v) memcpy(z, v, cols * sizeof *z);
                        kernels->product(z, z, BITSTACK_F32, 0, (const float *)(const void *)((const char *)x + 4 * (b * x_stride + col)), cols);
                    }
                    if (pass == 0) {
                        const uint32_t bits = kernels->largest(z, cols);
                        if (bits > most) most = bits;
                        continue;
                    }
                    for (some = 0; (!(inverse > 0) || cols % BITSTACK_CHUNK_) && some < in->parts; some++)
                        memset(q + some * in->stride, 0, (cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_ * BITSTACK_CHUNK_);
                    if (inverse > 0) kernels->quantise(q, in->parts > 1 ? in->stride : 0, sums, z, inverse, cols);
                }
                *scale = bitstack_input_scale_(most, in->parts > 1 ? 32512.0f : 127.0f);
                inverse = *scale > 0 ? 1.0f / *scale : 0; /* not for NaN */
            }
            for (some = 0; some < in->parts; some++) in->sums[(g * in->batch + b) * in->parts + some] = sums[some] * in->bias;
        }
}

/* The table's bytes, as `decode` looks them up; at levels 7 and 8 the high ones, or, of half 1, the low ones less 128.
 * Repeated, so that more bits than an index has may stand above it. */
static void bitstack_table_bytes_of_(const bitstack_strip_ *strip, size_t half, unsigned char flip) {
    signed char *to = strip->table + half % BITSTACK_HALVES_ * 256;
    const size_t size = (size_t)1 << strip->level;
    size_t i;
    for (i = 0; i < size; i++) {
        const uint32_t value = bitstack_load16_(strip->values + 2 * i);
        const uint32_t byte = half ? (value & 255u) ^ 128u : strip->level > 6 ? value >> 8 : value & 255u;
        to[i] = (signed char)((int32_t)(byte ^ flip ^ 128u) - 128);
    }
    for (; i < 256; i *= 2) memcpy(to + i, to, i);
}
/* Those that a level needs. */
static void bitstack_tables_of_(const bitstack_strip_ *strip, unsigned char flip) {
    size_t half;
    for (half = 0; half < (strip->level > 6 ? BITSTACK_HALVES_ : 1); half++) bitstack_table_bytes_of_(strip, half, flip);
}

static int bitstack_odd_(const bitstack_strip_ *strip) {
    const size_t last = ((size_t)1 << strip->level) - 1;
    size_t i;
    for (i = 1; i <= last; i += 2) {
        const uint32_t value = bitstack_load16_(strip->values + 2 * i);
        if (value > 127 || bitstack_load16_(strip->values + 2 * (last - i)) != ((0 - value) & 0xFFFFu)) return 0;
    }
    return 1;
}

/* Whether `mix` does it: `many` sums an input are for the others. */
static int bitstack_mixes_(const bitstack_kernels_ *kernels, size_t group_chunks, int many) {
    return kernels->mix && group_chunks <= BITSTACK_PIECE_ && !many;
}

/* total[input] += what group g of a tile gives, chunks [chunk, end), where sums have parts or the group is wide. */
BITSTACK_APART_ static void bitstack_group_product_(float (*total)[BITSTACK_LANES_], const bitstack_inputs_ *in, const bitstack_strip_ *strip, signed char *bytes,
                                                    const float *scales, size_t g, size_t chunk, size_t end) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    const size_t halves = strip->level > 6 ? 2 : 1, vectors = in->batch * in->parts;
    BITSTACK_ALIGNED_ int32_t sums[BITSTACK_SUMS_][BITSTACK_LANES_];
    size_t some, v, h, i;
    for (v = 0; v < vectors; v++)
        for (h = 0; h < halves; h++) {
            const int32_t bias = (h ? 128 : 0) - kernels->flip, start = bias * in->sums[g * vectors + v];
            for (i = 0; i < BITSTACK_LANES_; i++) sums[v * halves + h][i] = start;
        }
    for (; chunk < end; chunk += some) {
        some = end - chunk < BITSTACK_PIECE_ ? end - chunk : BITSTACK_PIECE_;
        for (h = 0; h < halves; h++) {
            if (BITSTACK_HALVES_ == 1 && halves > 1) bitstack_table_bytes_of_(strip, h, kernels->flip);
            kernels->decode(bytes, strip->table + h % BITSTACK_HALVES_ * 256, strip, chunk, some);
            kernels->dot(sums + h, halves, bytes, some, in->q + chunk * BITSTACK_CHUNK_, in->stride, vectors, halves > 1);
        }
    }
    for (v = 0; v < in->batch; v++)
        kernels->fold(total[v], sums + v * in->parts * halves, (int)in->parts, (int)halves, scales, in->scales[g * in->batch + v]);
}
/* The same for a strip of a tile. */
BITSTACK_APART_ static void bitstack_strip_product_(float (*total)[BITSTACK_LANES_], const bitstack_inputs_ *in, const bitstack_strip_ *strip) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    const int mix = bitstack_mixes_(kernels, strip->group_chunks, in->parts > 1 || strip->level > 6);
    BITSTACK_ALIGNED_ signed char bytes[BITSTACK_PIECE_ * 8 * BITSTACK_CHUNK_BYTES_];
    BITSTACK_ALIGNED_ float scales[BITSTACK_LANES_];
    size_t g, chunk, end;
    for (g = 0; g < in->groups; g++) {
        chunk = g * strip->group_chunks, end = strip->chunks - chunk < strip->group_chunks ? strip->chunks : chunk + strip->group_chunks;
        kernels->smalls(scales, strip->codes + g * BITSTACK_LANES_, BITSTACK_LANES_);
        if (mix) {
            kernels->decode(bytes, strip->table, strip, chunk, end - chunk);
            kernels->mix(total, bytes, end - chunk, scales, in, g, 0);
        } else bitstack_group_product_(total, in, strip, bytes, scales, g, chunk, end);
    }
}

/* Adds the whole columns: for each, to one row after the other, the product rounded before it is added. */
static void bitstack_add_kept_(const bitstack_view *view, const float *x, size_t x_stride, float (*total)[BITSTACK_LANES_], size_t batch, size_t row, size_t low, size_t high) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    size_t k, b, i, column;
    float scale;
    for (k = 0; k < view->kept; k++) {
        const signed char *values = bitstack_kept_(view, k, &column, &scale) + row;
        for (b = 0; b < batch; b++) {
            const float by = bitstack_float_of_(bitstack_by_(bitstack_by_(bitstack_real_of_(view->scale), scale), bitstack_get_float_((const char *)x + 4 * b * x_stride, column)));
            if (high - low == BITSTACK_LANES_) kernels->whole(total[b], values, by);
            else
                for (i = low; i < high; i++) total[b][i] = bitstack_add_exact_(total[b][i], by, values[i]);
        }
    }
}

/* What columns before have given to the rows of a tile that are among [begin, end), or zeros. */
static void bitstack_take_up_(float (*total)[BITSTACK_LANES_], const bitstack_inputs_ *in, const float *y, size_t y_stride, size_t tile, size_t begin, size_t end) {
    const size_t row = tile * BITSTACK_LANES_, low = row < begin ? begin - row : 0, high = end - row < BITSTACK_LANES_ ? end - row : BITSTACK_LANES_;
    size_t b;
    for (b = 0; b < in->batch; b++) {
        memset(total[b], 0, sizeof total[b]);
        if (in->from) memcpy(total[b] + low, (const char *)y + 4 * (row + low - begin + b * y_stride), 4 * (high - low));
    }
}
/* Writes them; after the last column with the unit, and the whole columns added. */
static void bitstack_put_down_(float (*total)[BITSTACK_LANES_], const bitstack_inputs_ *in, const bitstack_view *view, const float *x, size_t x_stride,
                               float *y, size_t y_stride, size_t tile, size_t begin, size_t end) {
    const size_t row = tile * BITSTACK_LANES_, low = row < begin ? begin - row : 0, high = end - row < BITSTACK_LANES_ ? end - row : BITSTACK_LANES_;
    const bitstack_shift_ unit = bitstack_unit_(view);
    size_t b;
    for (b = 0; in->to == view->cols && b < in->batch; b++) bitstack_kernels_in_use_()->times(total[b], unit);
    if (in->to == view->cols) bitstack_add_kept_(view, x, x_stride, total, in->batch, row, low, high);
    for (b = 0; b < in->batch; b++) {
        char *to = (char *)y + 4 * (row + low - begin + b * y_stride);
        if (high - low == BITSTACK_LANES_) memcpy(to, total[b], sizeof total[b]);
        else memcpy(to, total[b] + low, 4 * (high - low));
    }
}

/* Encoding TABLES, up to BITSTACK_INPUTS_ inputs. */
static void bitstack_tables_product_(const bitstack_view *view, int exact, const float *x, size_t x_stride, float *y, size_t y_stride,
                                     size_t batch, size_t begin, size_t count) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    const size_t chunks = ((size_t)view->cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_, end = begin + count;
    const size_t first = begin / BITSTACK_LANES_, tiles = (end + BITSTACK_LANES_ - 1) / BITSTACK_LANES_ - first;
    BITSTACK_ALIGNED_ signed char table[BITSTACK_HALVES_ * 256];
    BITSTACK_ALIGNED_ float total[BITSTACK_INPUTS_][BITSTACK_LANES_];
    bitstack_inputs_ in;
    bitstack_strip_ strip;
    size_t tile, i, most, step;
    uint32_t p;
    int streams;
    strip.level = view->level, strip.values = (const unsigned char *)view->planes->columns + BITSTACK_TABLE_AT_;
    strip.table = table;
    bitstack_tables_of_(&strip, kernels->flip);
    strip.group_chunks = view->group_cols / BITSTACK_CHUNK_;
    in.batch = batch, in.parts = exact || view->level > 6 ? 2 : 1, in.group_cols = view->group_cols;
    /* A group is multiplied whole: where it is wider than what `prepare` has room for, by `dot`. */
    streams = kernels->stream && batch * in.parts == 1 && (!kernels->prepare || view->group_cols <= BITSTACK_SIGNS_);
    in.bias = streams || bitstack_mixes_(kernels, strip.group_chunks, in.parts > 1 || view->level > 6) ? -(int32_t)kernels->flip : 1;
    strip.odd = streams && bitstack_odd_(&strip);
    step = streams && view->level <= kernels->pairs && BITSTACK_INPUTS_ > 1 ? (tiles + 1) / 2 : tiles; /* two at once, these apart */
    most = (streams && kernels->prepare ? BITSTACK_SIGNS_ : sizeof in.q / (batch * in.parts)) / view->group_cols * view->group_cols;
    strip.q = in.q, strip.scales = in.scales, strip.sums = in.sums;
    for (in.from = 0; in.from < view->cols; in.from = in.to) {
        in.to = view->cols - in.from < most ? view->cols : in.from + most;
        in.groups = (in.to - in.from + view->group_cols - 1) / view->group_cols;
        strip.chunks = (in.to - in.from + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_;
        in.stride = strip.chunks * BITSTACK_CHUNK_;
        bitstack_quantize_(&in, view, x, x_stride);
        if (!streams && kernels->tiles) kernels->tiles(1);
        if (streams && kernels->prepare) kernels->prepare(in.q, in.stride);
        for (tile = first; tile < first + step; tile++) {
            const int both = step < tiles && tile + step < first + tiles;
            strip.apart = both ? step * chunks * BITSTACK_CHUNK_BYTES_ : 0;
            for (i = 0; i < (both ? 2u : 1u); i++) bitstack_take_up_(total + i, &in, y, y_stride, tile + i * step, begin, end);
            for (p = 0; p < view->level; p++) strip.planes[p] = view->planes[p].signs + (tile * chunks + in.from / BITSTACK_CHUNK_) * BITSTACK_CHUNK_BYTES_;
            strip.codes = bitstack_row_scale_(view, tile * BITSTACK_LANES_, in.from / view->group_cols);
            strip.codes_apart = both ? (size_t)(bitstack_row_scale_(view, (tile + step) * BITSTACK_LANES_, in.from / view->group_cols) - strip.codes) : 0;
            if (streams) kernels->stream(total[0], &strip);
            else bitstack_strip_product_(total, &in, &strip);
            for (i = 0; i < (both ? 2u : 1u); i++) bitstack_put_down_(total + i, &in, view, x, x_stride, y, y_stride, tile + i * step, begin, end);
        }
        if (!streams && kernels->tiles) kernels->tiles(0);
    }
}

#if BITSTACK_CHUNK_COLS >= 9216 /* its panel is too large for small stacks: there, look-up does it all */
/* Encoding TABLES: w[j][0..63] of rows `row` and on, a multiple of 64, and columns `col` and on, of one group. */
static void bitstack_unroll_panel_(float (*w)[BITSTACK_TILE_], const bitstack_view *view, const bitstack_strip_ *all, size_t row, size_t col, size_t cols) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    const size_t chunks = ((size_t)view->cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_, end = row + BITSTACK_TILE_;
    BITSTACK_ALIGNED_ signed char bytes[2][BITSTACK_PANEL_COLS_ * BITSTACK_LANES_];
    BITSTACK_ALIGNED_ float u[BITSTACK_LANES_], v[BITSTACK_PANEL_COLS_];
    const bitstack_shift_ unit = bitstack_unit_(view);
    bitstack_strip_ strip = *all;
    size_t j, h, r = row;
    uint32_t p;
    kernels->smalls(v, bitstack_col_scales_(view) + col, cols);
    for (j = 0; j < cols; j++) v[j] = bitstack_float_of_(bitstack_shifted_(bitstack_real_of_(v[j]), unit));
    for (; r < end && r < view->rows; r += BITSTACK_LANES_) {
        for (p = 0; p < view->level; p++) strip.planes[p] = view->planes[p].signs + (r / BITSTACK_LANES_ * chunks + col / BITSTACK_CHUNK_) * BITSTACK_CHUNK_BYTES_;
        for (h = 0; h < (view->level > 6 ? 2u : 1u); h++)
            kernels->decode(bytes[h], strip.table + h % BITSTACK_HALVES_ * 256, &strip, 0, (cols + BITSTACK_CHUNK_ - 1) / BITSTACK_CHUNK_);
        kernels->smalls(u, bitstack_row_scale_(view, r, col / view->group_cols), BITSTACK_LANES_);
        kernels->unroll((float(*)[BITSTACK_TILE_])(void *)(w[0] + (r - row)), bytes[0], view->level > 6 ? bytes[1] : NULL, u, v, cols);
    }
    for (j = 0; r < end && j < cols; j++) memset(w[j] + (r - row), 0, (end - r) * sizeof(float));
}

/* The whole columns among those of a panel: the tables gave zero there. */
static void bitstack_put_kept_(float (*w)[BITSTACK_TILE_], const bitstack_view *view, size_t row, size_t rows, size_t col, size_t cols) {
    size_t k, i, column;
    float scale;
    for (k = 0; k < view->kept; k++) {
        const signed char *values = bitstack_kept_(view, k, &column, &scale) + row;
        for (i = 0; column >= col && column < col + cols && i < rows; i++) w[column - col][i] += view->scale * scale * (float)values[i];
    }
}

/* Rows [begin, begin + count) for all inputs. Every row's sums are taken in one order, whichever rows and
 * inputs are asked for. */
static void bitstack_float_product_(const bitstack_view *view, const float *x, size_t x_stride, float *y, size_t y_stride,
                                    size_t batch, size_t begin, size_t count) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    BITSTACK_ALIGNED_ float w[BITSTACK_PANEL_COLS_][BITSTACK_TILE_], v[BITSTACK_PANEL_RANKS_][BITSTACK_PANEL_COLS_];
    BITSTACK_ALIGNED_ float u[BITSTACK_PANEL_RANKS_][BITSTACK_TILE_], spare[BITSTACK_PANEL_INPUTS_][BITSTACK_TILE_];
    float line[BITSTACK_PANEL_INPUTS_][BITSTACK_PANEL_COLS_], ones[BITSTACK_TILE_], minus[BITSTACK_PANEL_COLS_];
    const size_t end = begin + count;
    size_t tile, col, cols, r0, r, j, b, i;
    uint32_t p;
    BITSTACK_ALIGNED_ signed char table[BITSTACK_HALVES_ * 256];
    bitstack_strip_ strip;
    const int tables = view->encoding == BITSTACK_TABLES;
    memset(u, 0, sizeof u), memset(&strip, 0, sizeof strip);
    if (tables) {
        strip.level = view->level, strip.values = (const unsigned char *)view->planes->columns + BITSTACK_TABLE_AT_;
        strip.table = table;
        bitstack_tables_of_(&strip, 0);
    }
    for (j = 0; j < BITSTACK_TILE_; j++) ones[j] = 1;
    for (j = 0; j < BITSTACK_PANEL_COLS_; j++) minus[j] = -view->scale;
    for (tile = begin / BITSTACK_TILE_; tile * BITSTACK_TILE_ < end; tile++) {
        const size_t row = tile * BITSTACK_TILE_, rows = view->rows - row < BITSTACK_TILE_ ? view->rows - row : BITSTACK_TILE_;
        const size_t low = row < begin ? begin : row, high = row + rows < end ? row + rows : end;
        for (col = 0; col < view->cols; col += cols) {
            cols = view->cols - col < BITSTACK_PANEL_COLS_ ? view->cols - col : BITSTACK_PANEL_COLS_;
            if (view->group_cols && cols > view->group_cols - col % view->group_cols)
                cols = view->group_cols - col % view->group_cols;
            if (tables) bitstack_unroll_panel_(w, view, &strip, row, col, cols), bitstack_put_kept_(w, view, row, rows, col, cols);
            else memset(w, 0, (cols + 3) / 4 * 4 * sizeof w[0]);
            for (p = 0; p < view->level && !tables; p++)
                for (r0 = 0; r0 < view->rank; r0 += BITSTACK_PANEL_RANKS_) {
                    const size_t ranks = view->rank - r0 < BITSTACK_PANEL_RANKS_ ? view->rank - r0 : BITSTACK_PANEL_RANKS_;
                    for (r = 0; r < ranks; r++) {
                        kernels->product(u[r], view->planes[p].coefficients, view->factor_type,
                                         bitstack_coefficient_at_(view, col, r0 + r) + row, ones, rows);
                        if (p && view->rank == ranks && view->planes[p].columns == view->planes[p - 1].columns) continue;
                        kernels->product(v[r], view->planes[p].columns, view->factor_type, (r0 + r) * view->cols + col, minus, cols);
                        for (j = cols; j % 4; j++) v[r][j] = 0;
                    }
                    kernels->unfold(w, view->planes[p].signs + tile * bitstack_tile_bytes_(view) + col / 4 * 32, cols, u, v, ranks);
                }
            for (b = 0; b < batch; b += BITSTACK_PANEL_INPUTS_) {
                const float *from[BITSTACK_PANEL_INPUTS_];
                float *to[BITSTACK_PANEL_INPUTS_];
                const int whole = low == row && high == row + BITSTACK_TILE_ && b + BITSTACK_PANEL_INPUTS_ <= batch;
                for (i = 0; i < BITSTACK_PANEL_INPUTS_; i++) {
                    const float *input = x + (b + i < batch ? b + i : b) * x_stride + col;
                    from[i] = (uintptr_t)input % 4 ? (const float *)memcpy(line[i], (const void *)input, 4 * cols) : input;
                    to[i] = whole ? y + (b + i) * y_stride + (row - begin) : spare[i];
                }
                for (i = 0; i < BITSTACK_PANEL_INPUTS_ && b + BITSTACK_PANEL_INPUTS_ + i < batch; i++) { /* the next ones */
                    const char *input = (const char *)(x + (b + BITSTACK_PANEL_INPUTS_ + i) * x_stride + col);
                    for (j = 0; j < cols; j += 16) BITSTACK_PREFETCH_(input + 4 * j);
                    for (j = 0; j < BITSTACK_TILE_; j += 16)
                        BITSTACK_PREFETCH_((const char *)(y + (b + BITSTACK_PANEL_INPUTS_ + i) * y_stride + (low - begin) + j));
                }
                kernels->panel(to, from, w, cols, whole && col);
                for (i = 0; !whole && i < BITSTACK_PANEL_INPUTS_ && b + i < batch; i++)
                    for (r = low; r < high; r++) {
                        float *at = y + (b + i) * y_stride;
                        bitstack_put_float_(at, r - begin, col ? spare[i][r - row] + bitstack_get_float_(at, r - begin) : spare[i][r - row]);
                    }
            }
        }
    }
}

/* Whether to multiply in floats. Measured on AVX2 and AVX-512: one table's look-up costs a fifth of the
 * fused multiply-adds that it stands for; rebuilding costs each plane about rank + 6 of them. */
static int bitstack_float_pays_(const bitstack_view *view, bitstack_precision precision, size_t batch) {
    const uint64_t tables = (uint64_t)view->level * view->rank * (precision == BITSTACK_EXACT ? 2 : 1), inputs = batch;
    if (view->encoding == BITSTACK_TABLES)
        return precision != BITSTACK_REFERENCE && bitstack_kernels_in_use_()->panel && batch > 8 &&
               !bitstack_mixes_(bitstack_kernels_in_use_(), view->group_cols / BITSTACK_CHUNK_, precision == BITSTACK_EXACT || view->level > 6);
    return precision != BITSTACK_REFERENCE && bitstack_kernels_in_use_()->panel &&
           tables * inputs > 5 * (inputs + view->level * (view->rank + (uint64_t)6));
}
#endif

BITSTACK_API bitstack_result bitstack_view_gemm_rows(const bitstack_view *view, bitstack_precision precision,
                                                     const float *x, size_t x_stride, float *y, size_t y_stride,
                                                     size_t batch, uint32_t begin, uint32_t count) {
    size_t b, some;
    if (!bitstack_view_valid_(view, begin, count) || (batch > 1 && (x_stride < view->cols || y_stride < count)) ||
        (count && batch && (!y || (view->cols && view->level && !x))))
        return BITSTACK_ERROR_ARGUMENT;
    if (count == 0) return BITSTACK_OK;
#if BITSTACK_CHUNK_COLS >= 9216
    if (view->level && view->cols && bitstack_float_pays_(view, precision, batch)) {
        bitstack_float_product_(view, x, x_stride, y, y_stride, batch, begin, count);
        return BITSTACK_OK;
    }
#endif
    for (b = 0; b < batch; b += some) {
        const float *from = x + b * x_stride;
        float *to = y + b * y_stride;
        some = 1;
        if (view->level == 0 || view->cols == 0) memset(to, 0, 4 * (size_t)count);
        else if (precision == BITSTACK_REFERENCE) {
            if (view->encoding == BITSTACK_TABLES) bitstack_tables_reference_(view, from, to, begin, count);
            else bitstack_reference_gemv_(view, from, to, begin, count);
        } else if (view->encoding == BITSTACK_TABLES) {
            const size_t sums = view->level > 6 ? 4 : precision == BITSTACK_EXACT ? 2 : 1;
            some = bitstack_mixes_(bitstack_kernels_in_use_(), view->group_cols / BITSTACK_CHUNK_, sums > 1) ? BITSTACK_INPUTS_ : BITSTACK_SUMS_ / sums;
            if (some > BITSTACK_INPUTS_) some = BITSTACK_INPUTS_;
            while (some * (sums > 1 ? 2 : 1) * view->group_cols > 4 * (size_t)BITSTACK_CHUNK_COLS) some--; /* a group of all */
            if (some > batch - b) some = batch - b;
            bitstack_tables_product_(view, precision == BITSTACK_EXACT, from, x_stride, to, y_stride, some, begin, count);
        } else {
            some = bitstack_batch_(view, precision == BITSTACK_EXACT);
            if (some > batch - b) some = batch - b;
            bitstack_lookup_product_(view, precision == BITSTACK_EXACT, from, x_stride, to, y_stride, some, begin, count);
        }
    }
    return BITSTACK_OK;
}

BITSTACK_API bitstack_result bitstack_view_gemv(const bitstack_view *view, bitstack_precision precision, const float *x,
                                                float *y, uint32_t begin, uint32_t count) {
    return bitstack_view_gemm_rows(view, precision, x, 0, y, 0, 1, begin, count);
}
BITSTACK_API bitstack_result bitstack_view_gemm(const bitstack_view *view, bitstack_precision precision, const float *x,
                                                size_t x_stride, float *y, size_t y_stride, size_t count) {
    if (!view) return BITSTACK_ERROR_ARGUMENT;
    return bitstack_view_gemm_rows(view, precision, x, x_stride, y, y_stride, count, 0, view->rows);
}

BITSTACK_API bitstack_result bitstack_popcount_gemv(const void *signs, uint32_t rows, uint32_t cols, const void *planes, int bits,
                                                    int is_signed, int32_t *y, uint32_t begin, uint32_t count) {
    const bitstack_kernels_ *kernels = bitstack_kernels_in_use_();
    const unsigned char *at = (const unsigned char *)planes;
    const size_t groups = ((size_t)cols + 3) / 4, stride = ((size_t)cols + 7) / 8, end = (size_t)begin + count;
    uint32_t counts[8][BITSTACK_TILE_], ones[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    size_t tile, i, t, used = (size_t)bits;
    if (bits < 1 || bits > 8 || cols > 1u << 23 || begin > rows || count > rows - begin || (count && (!y || (cols && (!signs || !planes)))))
        return BITSTACK_ERROR_ARGUMENT;
    for (t = 0; t < used; t++)
        for (i = 0; i < stride; i++) {
            unsigned byte = at[t * stride + i];
            for (; byte; byte &= byte - 1) ones[t]++;
        }
    for (tile = begin / BITSTACK_TILE_; tile * BITSTACK_TILE_ < end; tile++) {
        memset(counts, 0, sizeof counts);
        kernels->count((uint32_t(*)[BITSTACK_TILE_])counts, (const unsigned char *)signs + tile * groups * 32, groups, at, stride, used);
        for (i = 0; i < BITSTACK_TILE_; i++) {
            const size_t row = tile * BITSTACK_TILE_ + i;
            int32_t sum = 0;
            if (row < begin || row >= end) continue;
            for (t = 0; t < used; t++) {
                const int32_t part = (2 * (int32_t)counts[t][i] - (int32_t)ones[t]) * (int32_t)(1u << t);
                sum += is_signed && t + 1 == used ? -part : part;
            }
            memcpy((char *)y + 4 * (row - begin), &sum, 4);
        }
    }
    return BITSTACK_OK;
}

/* ==================================================================================== [POOL] */

/* A product shared out by rows. */
typedef struct bitstack_share_ {
    const bitstack_view *view;
    bitstack_precision precision;
    const float *x;
    float *y;
    size_t x_stride, y_stride, batch, rows; /* `rows` a part, whole tiles */
} bitstack_share_;

static void bitstack_do_share_(void *context, size_t index) {
    const bitstack_share_ *share = (const bitstack_share_ *)context;
    const size_t begin = index * share->rows, left = share->view->rows - begin;
    bitstack_view_gemm_rows(share->view, share->precision, share->x, share->x_stride, share->y + begin, share->y_stride,
                            share->batch, (uint32_t)begin, (uint32_t)(left < share->rows ? left : share->rows));
}

BITSTACK_API bitstack_result bitstack_view_gemm_parallel(const bitstack_view *view, bitstack_precision precision,
                                                         const float *x, size_t x_stride, float *y, size_t y_stride,
                                                         size_t batch, const bitstack_parallel *parallel) {
    bitstack_share_ share;
    size_t tiles, parts, work;
    bitstack_result result;
    if (!view) return BITSTACK_ERROR_ARGUMENT;
    if (!parallel || !parallel->run || parallel->threads < 2 || !batch)
        return bitstack_view_gemm_rows(view, precision, x, x_stride, y, y_stride, batch, 0, view->rows);
    result = bitstack_view_gemm_rows(view, precision, x, x_stride, y, y_stride, batch, 0, 0); /* checks the arguments */
    if (result != BITSTACK_OK || (view->rows && (!y || (view->cols && view->level && !x))) || (batch > 1 && y_stride < view->rows))
        return BITSTACK_ERROR_ARGUMENT;
    /* each part builds its own tables, so none is below 64 KiB of signs; two parts a thread where they are large */
    tiles = ((size_t)view->rows + BITSTACK_TILE_ - 1) / BITSTACK_TILE_;
    work = tiles * bitstack_tile_bytes_(view) * view->level / 65536 * batch;
    parts = work / 32 > (size_t)parallel->threads ? 2 * (size_t)parallel->threads : (size_t)parallel->threads;
    if (parts > work) parts = work;
    if (parts > tiles) parts = tiles;
    if (parts < 2) return bitstack_view_gemm_rows(view, precision, x, x_stride, y, y_stride, batch, 0, view->rows);
    share.view = view, share.precision = precision;
    share.x = x, share.x_stride = x_stride, share.y = y, share.y_stride = y_stride, share.batch = batch;
    share.rows = (tiles + parts - 1) / parts * BITSTACK_TILE_;
    parallel->run(parallel->user, bitstack_do_share_, &share, (view->rows + share.rows - 1) / share.rows);
    return BITSTACK_OK;
}

/* Products of several matrices with one vector. */
enum { BITSTACK_SEVERAL_ = 3 };
typedef struct bitstack_several_ {
    bitstack_view views[BITSTACK_SEVERAL_];
    float *y[BITSTACK_SEVERAL_];
    size_t rows[BITSTACK_SEVERAL_], end[BITSTACK_SEVERAL_]; /* rows a part; index behind a matrix's last part */
    bitstack_precision precision;
    const float *x;
} bitstack_several_;

static void bitstack_do_several_(void *context, size_t index) {
    const bitstack_several_ *s = (const bitstack_several_ *)context;
    size_t i = 0, begin, left;
    while (index >= s->end[i]) i++;
    begin = (index - (i ? s->end[i - 1] : 0)) * s->rows[i];
    left = s->views[i].rows - begin;
    bitstack_view_gemm_rows(&s->views[i], s->precision, s->x, 0, s->y[i] + begin, 0, 1, (uint32_t)begin,
                            (uint32_t)(left < s->rows[i] ? left : s->rows[i]));
}

/* Parts of at least 64 KiB of signs, as above, each matrix as many as its share of the work asks for. */
static void bitstack_run_several_(bitstack_several_ *s, int count, const bitstack_parallel *parallel) {
    size_t tiles[BITSTACK_SEVERAL_], work[BITSTACK_SEVERAL_], all = 0, parts = 1, own;
    int i;
    for (i = 0; i < count; i++) {
        tiles[i] = ((size_t)s->views[i].rows + BITSTACK_TILE_ - 1) / BITSTACK_TILE_;
        work[i] = tiles[i] * bitstack_tile_bytes_(&s->views[i]) * s->views[i].level / 1024;
        all += work[i];
    }
    if (parallel->run && parallel->threads > 1) {
        parts = all / 2048 > (size_t)parallel->threads ? 2 * (size_t)parallel->threads : (size_t)parallel->threads;
        if (parts > all / 64) parts = all / 64;
    }
    for (i = 0; i < count; i++) {
        own = all ? (work[i] * parts + all / 2) / all : 1;
        if (own > tiles[i]) own = tiles[i];
        if (own < 1) own = 1;
        s->rows[i] = (tiles[i] + own - 1) / own * BITSTACK_TILE_;
        s->end[i] = (i ? s->end[i - 1] : 0) + (s->views[i].rows + s->rows[i] - 1) / s->rows[i];
    }
    if (parts > 1) parallel->run(parallel->user, bitstack_do_several_, s, s->end[count - 1]);
    else
        for (own = 0; own < s->end[count - 1]; own++) bitstack_do_several_(s, own);
}

#ifdef BITSTACK_POOL
#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#include <process.h>
typedef SRWLOCK bitstack_lock_;
typedef CONDITION_VARIABLE bitstack_signal_;
typedef HANDLE bitstack_thread_;
#define BITSTACK_THREAD_ unsigned __stdcall
#define BITSTACK_LOCK_(lock) AcquireSRWLockExclusive(lock)
#define BITSTACK_TRY_LOCK_(lock) (TryAcquireSRWLockExclusive(lock) != 0)
#define BITSTACK_UNLOCK_(lock) ReleaseSRWLockExclusive(lock)
#define BITSTACK_AWAIT_(signal, lock) ((void)SleepConditionVariableSRW(signal, lock, INFINITE, 0))
#define BITSTACK_WAKE_ONE_(signal) WakeConditionVariable(signal)
#define BITSTACK_WAKE_ALL_(signal) WakeAllConditionVariable(signal)
#define BITSTACK_PROCESS_() 0L
#else
#include <pthread.h>
#include <unistd.h>
typedef pthread_mutex_t bitstack_lock_;
typedef pthread_cond_t bitstack_signal_;
typedef pthread_t bitstack_thread_;
#define BITSTACK_THREAD_ void *
#define BITSTACK_LOCK_(lock) pthread_mutex_lock(lock)
#define BITSTACK_TRY_LOCK_(lock) (pthread_mutex_trylock(lock) == 0)
#define BITSTACK_UNLOCK_(lock) pthread_mutex_unlock(lock)
#define BITSTACK_AWAIT_(signal, lock) pthread_cond_wait(signal, lock)
#define BITSTACK_WAKE_ONE_(signal) pthread_cond_signal(signal)
#define BITSTACK_WAKE_ALL_(signal) pthread_cond_broadcast(signal)
#define BITSTACK_PROCESS_() ((long)getpid())
#endif
/* What is only looked at while waiting, before the lock is taken. */
#ifdef BITSTACK_GNU_
#define BITSTACK_PEEK_(address) __atomic_load_n(address, __ATOMIC_ACQUIRE)
#define BITSTACK_POST_(address, value) __atomic_store_n(address, value, __ATOMIC_RELEASE)
#else
#define BITSTACK_PEEK_(address) BITSTACK_GET_(address)
#define BITSTACK_POST_(address, value) BITSTACK_PUT_(address, value)
#endif

#if defined(__OPTIMIZE__) || defined(BITSTACK_CL_)
#define BITSTACK_POOL_STACK_ (262144 + 8 * (size_t)BITSTACK_CHUNK_COLS)
#else
#define BITSTACK_POOL_STACK_ (1048576 + 8 * (size_t)BITSTACK_CHUNK_COLS)
#endif

/* Everything is handed out under one lock: a part of a product takes far longer. Who waits looks at `turn`
 * or `done` for some microseconds before sleeping, for products follow each other closely. */
struct bitstack_pool {
    int threads, workers; /* the caller's counted; not counted */
    int stop;
    long process;         /* that has the workers: a fork has none */
    uint32_t turn, done;       /* of calls of pool_run; its indices that are done, modulo 2^32 */
    size_t next, count;        /* indices */
    void (*task)(void *context, size_t index);
    void *context;
    bitstack_lock_ busy, lock; /* busy: held by the caller whose turn it is */
    bitstack_signal_ wake, finished;
    bitstack_thread_ thread[BITSTACK_POOL_MOST_];
    bitstack_allocator allocator;
};

static void bitstack_pause_(void) {
#if defined(BITSTACK_GNU_) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#elif defined(BITSTACK_GNU_) && defined(__aarch64__)
    __asm__ volatile("yield");
#elif defined(_WIN32)
    YieldProcessor();
#endif
}

/* With the lock held: takes indices of this turn until there are none. */
static void bitstack_pool_take_(bitstack_pool *pool, uint32_t turn) {
    while (pool->turn == turn && pool->next < pool->count) {
        void (*const task)(void *, size_t) = pool->task;
        void *const context = pool->context;
        const size_t index = pool->next++;
        BITSTACK_UNLOCK_(&pool->lock);
        task(context, index);
        BITSTACK_LOCK_(&pool->lock);
        BITSTACK_POST_(&pool->done, pool->done + 1);
        if (pool->done == (uint32_t)pool->count) BITSTACK_WAKE_ONE_(&pool->finished);
    }
}

static BITSTACK_THREAD_ bitstack_pool_work_(void *user) {
    bitstack_pool *pool = (bitstack_pool *)user;
    uint32_t seen = 0;
    int spins;
    for (;;) {
        for (spins = 0; spins < 500 && BITSTACK_PEEK_(&pool->turn) == seen; spins++) bitstack_pause_();
        BITSTACK_LOCK_(&pool->lock);
        while (pool->turn == seen && !pool->stop) BITSTACK_AWAIT_(&pool->wake, &pool->lock);
        seen = pool->turn;
        bitstack_pool_take_(pool, seen);
        spins = pool->stop;
        BITSTACK_UNLOCK_(&pool->lock);
        if (spins) return 0;
    }
}

BITSTACK_API void bitstack_pool_run(void *user, void (*task)(void *context, size_t index), void *context, size_t count) {
    bitstack_pool *pool = (bitstack_pool *)user;
    size_t index;
    int spins;
    if (!pool || count < 2 || count > UINT32_MAX || pool->process != BITSTACK_PROCESS_() || !BITSTACK_TRY_LOCK_(&pool->busy)) {
        for (index = 0; index < count; index++) task(context, index);
        return;
    }
    BITSTACK_LOCK_(&pool->lock);
    pool->task = task, pool->context = context;
    pool->next = 0, pool->count = count;
    BITSTACK_POST_(&pool->done, 0u);
    BITSTACK_POST_(&pool->turn, pool->turn + 1);
    BITSTACK_WAKE_ALL_(&pool->wake);
    bitstack_pool_take_(pool, pool->turn);
    BITSTACK_UNLOCK_(&pool->lock);
    for (spins = 0; spins < 500 && BITSTACK_PEEK_(&pool->done) < (uint32_t)count; spins++) bitstack_pause_();
    BITSTACK_LOCK_(&pool->lock);
    while (pool->done < (uint32_t)count) BITSTACK_AWAIT_(&pool->finished, &pool->lock);
    BITSTACK_UNLOCK_(&pool->lock);
    BITSTACK_UNLOCK_(&pool->busy);
}

#ifdef _WIN32
static int bitstack_processors_(void) { return (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS); }
/* The room that programs have by default, a megabyte, or what a product needs. */
static int bitstack_start_thread_(bitstack_thread_ *thread, bitstack_pool *pool) {
    const size_t room = BITSTACK_POOL_STACK_ > 1048576 ? BITSTACK_POOL_STACK_ : 1048576;
    *thread = (HANDLE)_beginthreadex(NULL, (unsigned)room, bitstack_pool_work_, pool, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return *thread != NULL;
}
static void bitstack_join_(bitstack_thread_ thread) { WaitForSingleObject(thread, INFINITE), CloseHandle(thread); }
static void bitstack_pool_locks_(bitstack_pool *pool, int make) {
    if (!make) return; /* nothing to give back */
    InitializeSRWLock(&pool->busy), InitializeSRWLock(&pool->lock);
    InitializeConditionVariable(&pool->wake), InitializeConditionVariable(&pool->finished);
}
#else
static int bitstack_processors_(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
/* A stack as large as the system has them, for its libc may take thread-local variables from there; where it has small
 * ones (musl), what a product needs. Without optimisation a kernel keeps half a megabyte of temporaries. */
static int bitstack_start_thread_(bitstack_thread_ *thread, bitstack_pool *pool) {
    pthread_attr_t attributes;
    size_t stack = 0;
    int failed;
    pthread_attr_init(&attributes);
    if (pthread_attr_getstacksize(&attributes, &stack) || stack < BITSTACK_POOL_STACK_)
        pthread_attr_setstacksize(&attributes, BITSTACK_POOL_STACK_);
    failed = pthread_create(thread, &attributes, bitstack_pool_work_, pool);
    pthread_attr_destroy(&attributes);
    return !failed;
}
static void bitstack_join_(bitstack_thread_ thread) { pthread_join(thread, NULL); }
static void bitstack_pool_locks_(bitstack_pool *pool, int make) {
    if (make) {
        pthread_mutex_init(&pool->busy, NULL), pthread_mutex_init(&pool->lock, NULL);
        pthread_cond_init(&pool->wake, NULL), pthread_cond_init(&pool->finished, NULL);
    } else {
        pthread_mutex_destroy(&pool->busy), pthread_mutex_destroy(&pool->lock);
        pthread_cond_destroy(&pool->wake), pthread_cond_destroy(&pool->finished);
    }
}
#endif

BITSTACK_API bitstack_result bitstack_pool_open(bitstack_pool **out, int threads, const bitstack_allocator *allocator) {
    bitstack_allocator from;
    bitstack_pool *pool;
    int here;
    memset(&from, 0, sizeof from);
    if (out) *out = NULL;
    if (allocator) from = *allocator;
    if (!out || threads < 0 || !bitstack_allocator_(&from)) return BITSTACK_ERROR_ARGUMENT;
    here = threads ? threads : bitstack_processors_();
    if (here < 1) here = 1;
    if (here > BITSTACK_POOL_MOST_) here = BITSTACK_POOL_MOST_;
    pool = (bitstack_pool *)from.allocate(from.user, sizeof *pool);
    if (!pool) return BITSTACK_ERROR_MEMORY;
    memset(pool, 0, sizeof *pool);
    pool->allocator = from;
    pool->process = BITSTACK_PROCESS_();
    bitstack_pool_locks_(pool, 1);
    while (pool->workers < here - 1 && bitstack_start_thread_(&pool->thread[pool->workers], pool))
        pool->workers++; /* fewer, if no more can be had: see bitstack_pool_threads */
    pool->threads = pool->workers + 1;
    *out = pool;
    return BITSTACK_OK;
}

BITSTACK_API void bitstack_pool_close(bitstack_pool *pool) {
    int i;
    if (!pool) return;
    if (pool->process == BITSTACK_PROCESS_()) { /* in a fork the locks may be held by threads that are not there */
        BITSTACK_LOCK_(&pool->lock);
        pool->stop = 1;
        BITSTACK_WAKE_ALL_(&pool->wake);
        BITSTACK_UNLOCK_(&pool->lock);
        for (i = 0; i < pool->workers; i++) bitstack_join_(pool->thread[i]);
        bitstack_pool_locks_(pool, 0);
    }
    pool->allocator.release(pool->allocator.user, pool, sizeof *pool);
}

BITSTACK_API int bitstack_pool_threads(const bitstack_pool *pool) { return pool ? pool->threads : 1; }

BITSTACK_API bitstack_parallel bitstack_pool_parallel(bitstack_pool *pool) {
    bitstack_parallel parallel;
    parallel.run = bitstack_pool_run;
    parallel.user = pool;
    parallel.threads = bitstack_pool_threads(pool);
    return parallel;
}
#endif /* BITSTACK_POOL */

/* On a stack: the reader counts itself in, so that what the view points to stays until it counts out. */
#define BITSTACK_ON_STACK_(call)                                          \
    bitstack_view view;                                                   \
    unsigned ticket = bitstack_enter_(stack);                             \
    bitstack_result result = bitstack_matrix_view(stack, matrix, &view);  \
    if (result == BITSTACK_OK) result = call;                             \
    bitstack_leave_(stack, ticket);                                       \
    return result
BITSTACK_API bitstack_result bitstack_gemv_rows(const bitstack *stack, int matrix, const float *x, float *y,
                                                uint32_t begin, uint32_t count) {
    BITSTACK_ON_STACK_(bitstack_view_gemv(&view, stack->precision, x, y, begin, count));
}
BITSTACK_API bitstack_result bitstack_gemv(const bitstack *stack, int matrix, const float *x, float *y) {
    BITSTACK_ON_STACK_(bitstack_view_gemm_parallel(&view, stack->precision, x, 0, y, 0, 1, &stack->parallel));
}
BITSTACK_API bitstack_result bitstack_gemv_several(const bitstack *stack, const int *matrices, int count, const float *x,
                                                   float *const *y) {
    bitstack_several_ s;
    bitstack_result result = BITSTACK_OK;
    unsigned ticket;
    int i, some, from;
    if (count < 0 || (count && (!matrices || !y))) return BITSTACK_ERROR_ARGUMENT;
    for (i = 0; i < count; i++) { /* shapes do not change: nothing is written unless all are right */
        if (matrices[i] < 0 || (uint32_t)matrices[i] >= stack->matrices || !x || !y[i] ||
            stack->states[matrices[i]].shape.cols != stack->states[matrices[0]].shape.cols)
            return BITSTACK_ERROR_ARGUMENT;
    }
    s.precision = stack->precision, s.x = x;
    ticket = bitstack_enter_(stack);
    for (from = 0; from < count && result == BITSTACK_OK; from += some) {
        some = count - from < BITSTACK_SEVERAL_ ? count - from : BITSTACK_SEVERAL_;
        for (i = 0; i < some && result == BITSTACK_OK; i++) {
            result = bitstack_matrix_view(stack, matrices[from + i], &s.views[i]);
            s.y[i] = y[from + i];
        }
        if (result == BITSTACK_OK) bitstack_run_several_(&s, some, &stack->parallel);
    }
    bitstack_leave_(stack, ticket);
    return result;
}
BITSTACK_API bitstack_result bitstack_gemm(const bitstack *stack, int matrix, const float *x, size_t x_stride, float *y,
                                           size_t y_stride, size_t count) {
    BITSTACK_ON_STACK_(bitstack_view_gemm_parallel(&view, stack->precision, x, x_stride, y, y_stride, count, &stack->parallel));
}
BITSTACK_API bitstack_result bitstack_dequantize_rows(const bitstack *stack, int matrix, uint32_t begin, uint32_t count,
                                                      float *out, size_t out_stride) {
    BITSTACK_ON_STACK_(bitstack_view_dequantize(&view, begin, count, out, out_stride));
}
BITSTACK_API bitstack_result bitstack_dequantize(const bitstack *stack, int matrix, float *out, size_t out_stride) {
    BITSTACK_ON_STACK_(bitstack_view_dequantize(&view, 0, view.rows, out, out_stride));
}

#endif /* BITSTACK_IMPLEMENTATION */

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
