/* fuzz_compressor.c - whatever weights and inputs are: NaN, infinity, denormals, zeros, huge. Input: sizes,
 * options, then the bits of the floats, over and over. Sometimes the result goes through a file. */
#include "fuzz.h"
#include <math.h>
#include <unistd.h>

/* The implementation is in here so that its heap can be counted and made to fail. */
static size_t heap_used;
static long heap_calls, heap_fail_at;
static void *heap_take(size_t bytes) {
    if (++heap_calls == heap_fail_at) return NULL;
    size_t *p = (size_t *)malloc(bytes + 64);
    if (!p) return NULL;
    *p = bytes, heap_used += bytes;
    return (char *)p + 64;
}
static void heap_give(void *pointer) {
    size_t *p = pointer ? (size_t *)(void *)((char *)pointer - 64) : NULL;
    if (p) heap_used -= *p;
    free(p);
}
#define BITSTACK_MALLOC(bytes) heap_take(bytes)
#define BITSTACK_FREE(pointer) heap_give(pointer)
#define BITSTACK_STATIC
#define BITSTACK_NO_THREADS /* for the counters; threads have tests of their own */
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"

enum { MOMENTS = 1, WITH_H = 2, FACTORS_F32 = 4, PLAIN = 8, THROUGH_FILE = 16, FAILING_HEAP = 32, OWN_WEIGHTS = 64, HUGE_STRIDE = 128 };
enum { SIDE = 20 }; /* small: what is odd about a matrix shows at any size */

static void floats(fuzz_input *in, float *to, size_t count) {
    const uint8_t *from = in->data;
    const size_t bytes = in->left / 4 * 4;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = bytes ? (uint32_t)fuzz_load(from + i * 4 % bytes, 4) ^ (uint32_t)(i * 4 / bytes * 0x00012345u) : (uint32_t)i << 20;
        memcpy(to + i, &bits, 4);
    }
}

static void through_file(const bitstack_coded *coded, const float *expected) {
    static float w[SIDE * SIDE];
    char path[64];
    bitstack_writer *writer;
    bitstack *stack;
    bitstack_error error;
    const uint64_t shape[2] = {coded->shape.rows, 1};
    snprintf(path, sizeof path, "/tmp/fuzz-%d.bitstack", (int)getpid());
    if (bitstack_writer_open(&writer, path, NULL, NULL) != BITSTACK_OK) return;
    bitstack_result result = bitstack_writer_meta_f32(writer, "norm", (float)coded->out_norm2);
    if (result == BITSTACK_OK) result = bitstack_writer_tensor(writer, "x", BITSTACK_F32, 2, shape, expected);
    if (result == BITSTACK_OK) result = bitstack_writer_matrix(writer, "w", coded, 1);
    if (result == BITSTACK_OK) result = bitstack_writer_finish(writer, NULL, 0, &error);
    else bitstack_writer_abort(writer);
    if (result == BITSTACK_OK) {
        result = bitstack_open_file(&stack, path, NULL, &error);
        MUST(result == BITSTACK_OK || result == BITSTACK_ERROR_MEMORY);
        if (result == BITSTACK_OK) {
            bitstack_matrix m;
            bitstack_get_matrix(stack, 0, &m);
            MUST(m.level == coded->shape.levels || heap_fail_at);
            bitstack_dequantize(stack, 0, w, m.shape.cols);
            if (m.level == coded->shape.levels) MUST(!memcmp(w, expected, sizeof(float) * m.shape.rows * m.shape.cols));
            bitstack_close(stack);
        }
    } else {
        if (result != BITSTACK_ERROR_MEMORY) fprintf(stderr, "%s\n", bitstack_result_string(result));
        MUST(result == BITSTACK_ERROR_MEMORY);
    }
    remove(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static float w[SIDE * (SIDE + 3)], x[4 * SIDE], out[SIDE * SIDE];
    fuzz_input in = {data, size};
    bitstack_encode_options options;
    bitstack_moments moments, *given = NULL;
    bitstack_coded coded;
    const int choices = (int)fuzz_take(&in, 1);
    uint32_t rows = (uint32_t)fuzz_take(&in, 1) % (SIDE + 1), cols = (uint32_t)fuzz_take(&in, 1) % (SIDE + 1);
    const int finite = fuzz_take(&in, 1) % 4 != 0; /* most are made finite, to get further */
    const size_t stride = choices & HUGE_STRIDE ? cols + 3 : cols;
    memset(&options, 0, sizeof options);
    options.method = fuzz_take(&in, 1) % 2 ? BITSTACK_IABS : BITSTACK_NESTED;
    options.levels = (uint32_t)fuzz_take(&in, 1) % 8, options.rank = (uint32_t)fuzz_take(&in, 1) % 6;
    options.factor_type = choices & FACTORS_F32 ? BITSTACK_F32 : (bitstack_type)0;
    options.plain_columns = !!(choices & PLAIN), options.seed = fuzz_take(&in, 2);
    if (choices & OWN_WEIGHTS)
        for (int i = 0; i < 4; i++) options.level_weights[i] = (float)fuzz_take(&in, 1) / 64;
    heap_used = 0, heap_calls = 0, heap_fail_at = 0;
    const long fail = choices & FAILING_HEAP ? 1 + (long)fuzz_take(&in, 1) : 0;
    floats(&in, w, rows * stride);
    if (finite)
        for (size_t i = 0; i < rows * stride; i++)
            if (!isfinite(w[i])) w[i] = (float)(i % 7) - 3;
    heap_fail_at = fail;
    bitstack_result result = BITSTACK_OK;
    if (choices & MOMENTS && cols) {
        floats(&in, x, (size_t)4 * cols);
        result = bitstack_moments_init(&moments, cols, choices & WITH_H);
        MUST(result == BITSTACK_OK || result == BITSTACK_ERROR_MEMORY);
        if (result == BITSTACK_OK) {
            bitstack_moments_add(&moments, x, 3, cols);
            bitstack_moments_add(&moments, x + 3 * cols, 1, cols);
            for (uint32_t j = 0; j < cols; j++) MUST(!(bitstack_moments_scale(&moments, j) < 0));
            given = &moments;
        }
    }
    if (result == BITSTACK_OK) result = bitstack_encode_matrix(&coded, w, rows, cols, stride, given, &options);
    int odd = 0;
    float largest = 0;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++) odd |= !isfinite(w[i * stride + j]), largest = fmaxf(largest, fabsf(w[i * stride + j]));
    if (odd) MUST(result == BITSTACK_ERROR_NUMERIC || result == BITSTACK_ERROR_MEMORY);
    if (result == BITSTACK_OK) {
        MUST(rows && cols && bitstack_shape_valid(&coded.shape) && coded.shape.levels >= 1);
        bitstack_plane planes[BITSTACK_MAX_LEVELS];
        bitstack_view view;
        for (uint32_t level = 0; level <= coded.shape.levels; level++) {
            MUST((coded.rel_err2[level] >= 0 && coded.rel_err2[level] <= DBL_MAX));
            MUST((coded.out_err2[level] >= 0 && coded.out_err2[level] <= DBL_MAX));
            MUST(bitstack_coded_view(&coded, level, planes, &view) == BITSTACK_OK);
            MUST(bitstack_view_dequantize(&view, 0, rows, out, cols) == BITSTACK_OK);
            for (size_t i = 0; i < (size_t)rows * cols; i++) MUST(isfinite(out[i]));
            MUST(bitstack_view_gemv(&view, BITSTACK_FAST, x, out + rows * 0, 0, 0) == BITSTACK_OK);
        }
        double rel, weighted;
        bitstack_result measured = bitstack_measure_error(&view, w, stride, given, 1, &rel, &weighted);
        MUST(measured == BITSTACK_OK || measured == BITSTACK_ERROR_MEMORY);
        if (choices & THROUGH_FILE) through_file(&coded, out);
        bitstack_coded_free(&coded);
    } else MUST((result == BITSTACK_ERROR_NUMERIC && (odd || given || largest > 1e36f)) || (result == BITSTACK_ERROR_MEMORY && fail) || (result == BITSTACK_ERROR_ARGUMENT && (!rows || !cols)));
    if (given) bitstack_moments_free(given);
    MUST(heap_used == 0);
    return 0;
}
