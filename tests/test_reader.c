/* What a stack file says is what the reader gives; what is damaged is refused or left out, never trusted. */
#include "stack_builder.h"
#if defined(__unix__)
#include <sys/resource.h>
#include <unistd.h>
#endif

static const char *const path = "build/tests/reader.bitstack";

/* Opens bytes, walks everything that can be asked, multiplies; returns the result of opening. */
static bitstack_result walk(const unsigned char *data, size_t bytes, bitstack_error *error) {
    bitstack *stack;
    static float x[200], y[200];
    bitstack_result result = bitstack_open_memory(&stack, data, bytes, NULL, error);
    if (result != BITSTACK_OK) return result;
    for (int i = 0; i < bitstack_meta_count(stack); i++) {
        bitstack_meta meta;
        bitstack_get_meta(stack, i, &meta);
        uint64_t cursor = 0;
        size_t length;
        if (meta.type == BITSTACK_META_STRING) while (bitstack_meta_next_string(&meta, &cursor, &length)) {}
        else if (meta.count) bitstack_meta_element(&meta, meta.count - 1);
    }
    unsigned char last = 0;
    for (int i = 0; i < bitstack_tensor_count(stack); i++) {
        bitstack_tensor tensor;
        bitstack_get_tensor(stack, i, &tensor);
        CHECK(tensor.dimensions >= 0 && tensor.dimensions <= 4, "a tensor of %d dimensions", tensor.dimensions);
        for (size_t j = 0; j < tensor.name_bytes; j++) last = (unsigned char)(last ^ tensor.name[j]);
        for (size_t j = 0; j < tensor.bytes; j++) last = (unsigned char)(last ^ ((const unsigned char *)tensor.data)[j]);
    }
    y[0] = last;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_matrix matrix;
        bitstack_get_matrix(stack, i, &matrix);
        for (size_t j = 0; j < matrix.name_bytes; j++) last = (unsigned char)(last ^ matrix.name[j]);
        y[1] = last;
        if (matrix.shape.rows <= 200 && matrix.shape.cols <= 200) bitstack_gemv(stack, i, x, y);
    }
    bitstack_set_budget(stack, bitstack_base_bytes(stack), NULL);
    bitstack_set_budget(stack, UINT64_MAX, NULL);
    bitstack_close(stack);
    return BITSTACK_OK;
}

typedef struct counting_source {
    const unsigned char *data;
    size_t bytes;
    uint64_t read;
    int fail_after; /* calls; -1 never */
} counting_source;
static int counting_read(void *user, uint64_t offset, void *to, size_t bytes) {
    counting_source *source = (counting_source *)user;
    if (source->fail_after == 0) return 1;
    if (source->fail_after > 0) source->fail_after--;
    if (offset > source->bytes || bytes > source->bytes - offset) return 1;
    memcpy(to, source->data + offset, bytes);
    source->read += bytes;
    return 0;
}

typedef struct counting_heap {
    size_t used, peak;
    int fail_at, calls; /* the fail_at-th call fails; 0 never */
} counting_heap;
static void *counting_allocate(void *user, size_t bytes) {
    counting_heap *heap = (counting_heap *)user;
    if (++heap->calls == heap->fail_at) return NULL;
    heap->used += bytes;
    if (heap->used > heap->peak) heap->peak = heap->used;
    return malloc(bytes);
}
static void counting_release(void *user, void *pointer, size_t bytes) {
    ((counting_heap *)user)->used -= bytes;
    free(pointer);
}

static bitstack_shape levels_of(const bitstack *stack, int i) {
    bitstack_matrix m;
    bitstack_get_matrix(stack, i, &m);
    return m.shape;
}

/* Hash of what every matrix reconstructs to. */
static uint64_t content(const bitstack *stack) {
    uint64_t hash = 0;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_shape shape = levels_of(stack, i);
        float *w = (float *)malloc(sizeof(float) * shape.rows * shape.cols);
        bitstack_dequantize(stack, i, w, shape.cols);
        hash = hash * 31 + bitstack_checksum(w, sizeof(float) * shape.rows * shape.cols);
        free(w);
    }
    return hash;
}

int main(void) {
    built_matrix matrices[] = {{"a", build_shape(70, 30, 3, 1, 1)}, {"b", build_shape(33, 65, 2, 2, 0)}, {"c.weight", build_shape(5, 130, 4, 1, 1)}};
    bitstack_error error;
    bitstack *stack;
    size_t bytes = 0;

    TEST("XXH64 meets the published vectors");
    {
        /* From the specification's own sanity table: the empty input and the well-known short strings. */
        CHECK(bitstack_checksum("", 0) == 0xEF46DB3751D8E999u, "empty");
        CHECK(bitstack_checksum("a", 1) == 0xD24EC4F1A98C6E5Bu, "a");
        CHECK(bitstack_checksum("abc", 3) == 0x44BC2CF5AD770999u, "abc");
        const char *text = "Nobody inspects the spammish repetition";
        CHECK(bitstack_checksum(text, strlen(text)) == 0xFBCEA83C8A378BF1u, "39 bytes: the 32-byte lanes");
    }
    TEST("every half converts to float and back, and rounding is to nearest even");
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bitstack_f16_to_f32((uint16_t)h);
        uint16_t back = bitstack_f32_to_f16(f);
        int nan = (h & 0x7FFF) > 0x7C00;
        CHECK(nan ? f != f && (back & 0x7FFF) > 0x7C00 : back == h, "half %04x became %g and %04x", h, (double)f, back);
        if (nan || (h & 0x7FFF) >= 0x7BFF) continue;
        float next = bitstack_f16_to_f32((uint16_t)(h + 1)), middle = f + (next - f) / 2;
        uint32_t even = (h & 1) ? h + 1 : h;
        CHECK(bitstack_f32_to_f16(middle) == even, "the middle above %04x went to %04x", h, bitstack_f32_to_f16(middle));
        CHECK(bitstack_f32_to_f16(nextafterf(middle, f)) == h && bitstack_f32_to_f16(nextafterf(middle, next)) == h + 1, "beside the middle above %04x", h);
    }
    TEST("a written stack opens and answers for everything in it");
    CHECK(build_stack(path, matrices, 3, 7) == 0, "writing %s", path);
    CHECK(bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
    unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
    if (!data) return 1;
    CHECK(bitstack_file_bytes(stack) == bytes && bitstack_complete_file_bytes(stack) == bytes, "sizes");
    CHECK(bitstack_meta_number(stack, "test.number", 0) == 42 && bitstack_meta_number(stack, "test.half", 0) == 0.5 &&
          bitstack_meta_number(stack, "test.pi", 0) == (double)3.141592653589793 && bitstack_meta_number(stack, "test.minus", 0) == -7 &&
          bitstack_meta_number(stack, "absent", -1) == -1 && bitstack_meta_number(stack, "test.strings", -1) == -1, "numbers");
    {
        size_t length = 0;
        const char *s = bitstack_meta_string(stack, "test.strings", &length);
        CHECK(s && length == 3 && !memcmp(s, "one", 3) && !bitstack_meta_string(stack, "absent", &length), "the first of the strings");
        CHECK(!bitstack_meta_string(stack, "test.number", &length), "a number is no string");
    }
    {
        bitstack_meta meta;
        uint64_t cursor = 0;
        size_t length;
        bitstack_get_meta(stack, bitstack_find_meta(stack, "test.strings"), &meta);
        const char *s = bitstack_meta_next_string(&meta, &cursor, &length);
        CHECK(s && length == 3 && !memcmp(s, "one", 3), "first string");
        s = bitstack_meta_next_string(&meta, &cursor, &length);
        CHECK(s && length == 0, "second string");
        s = bitstack_meta_next_string(&meta, &cursor, &length);
        CHECK(s && length == 5 && !bitstack_meta_next_string(&meta, &cursor, &length), "third and last string");
        bitstack_tensor tensor;
        CHECK(bitstack_get_tensor(stack, bitstack_find_tensor(stack, "raw"), &tensor) == BITSTACK_OK && !memcmp(tensor.data, "hello", 5) && (uintptr_t)tensor.data % 64 == 0, "tensor");
        bitstack_matrix m;
        int c = bitstack_find_matrix(stack, "c.weight");
        CHECK(c == 2 && bitstack_get_matrix(stack, c, &m) == BITSTACK_OK && m.level == 4 && m.shape.rows == 5 && m.shape.cols == 130, "matrix");
        CHECK(m.resident_bytes == bitstack_live_bytes(&m.shape, 4), "resident bytes of a matrix");
        float x[130], whole[70], part[70] = {0};
        for (int j = 0; j < 130; j++) x[j] = (float)(j % 13) - 6;
        bitstack_gemv(stack, 0, x, whole);
        CHECK(bitstack_gemv_rows(stack, 0, x, part, 9, 50) == BITSTACK_OK && !memcmp(part, whole + 9, sizeof(float) * 50) && part[50] == 0, "some rows");
        CHECK(bitstack_gemv_rows(stack, 0, x, part, 9, 62) == BITSTACK_ERROR_ARGUMENT && bitstack_gemv(stack, 3, x, part) == BITSTACK_ERROR_ARGUMENT, "rows that are not there");
        const int two[2] = {0, 0}, none[2] = {0, 3}, unlike[2] = {0, 2};
        float other[70], *const to[2] = {part, other}, *const nowhere[2] = {part, NULL};
        CHECK(bitstack_gemv_several(stack, two, 2, x, to) == BITSTACK_OK && !memcmp(part, whole, sizeof whole) && !memcmp(other, whole, sizeof whole), "several products");
        memset(part, 0, sizeof part);
        CHECK(bitstack_gemv_several(stack, none, 2, x, to) == BITSTACK_ERROR_ARGUMENT && bitstack_gemv_several(stack, unlike, 2, x, to) == BITSTACK_ERROR_ARGUMENT &&
              bitstack_gemv_several(stack, two, 2, x, nowhere) == BITSTACK_ERROR_ARGUMENT && bitstack_gemv_several(stack, two, -1, x, to) == BITSTACK_ERROR_ARGUMENT &&
              bitstack_gemv_several(stack, NULL, 0, NULL, NULL) == BITSTACK_OK && part[0] == 0 && part[69] == 0, "several products that cannot be");
        CHECK(bitstack_find_matrix(stack, "c") == -1 && bitstack_find_matrix(stack, "c.weights") == -1 && bitstack_find_tensor(stack, "nor") == -1 && bitstack_find_meta(stack, "test.") == -1, "a part of a name, or more");
        CHECK(bitstack_find_matrix(stack, "nope") == -1 && bitstack_get_matrix(stack, 3, &m) == BITSTACK_ERROR_ARGUMENT && bitstack_get_matrix(stack, -1, &m) == BITSTACK_ERROR_ARGUMENT, "absent");
    }
    TEST("products are as exact as the options say");
    for (int precision = 0; precision < 3; precision++) {
        static const bitstack_precision precisions[] = {BITSTACK_FAST, BITSTACK_EXACT, BITSTACK_REFERENCE};
        bitstack_options options = {0};
        bitstack *other;
        bitstack_view view;
        float x[130], y[70], expected[3][70];
        for (int j = 0; j < 130; j++) x[j] = (float)sin(j);
        options.precision = precisions[precision];
        CHECK(bitstack_open_memory(&other, data, bytes, &options, &error) == BITSTACK_OK && bitstack_gemv(other, 0, x, y) == BITSTACK_OK, "%s", error.message);
        bitstack_matrix_view(other, 0, &view);
        for (int p = 0; p < 3; p++) bitstack_view_gemv(&view, precisions[p], x, expected[p], 0, 70);
        for (int p = 0; p < 3; p++) CHECK(!memcmp(y, expected[p], sizeof y) == (p == precision), "precision %d is asked for, %d comes", precision, p);
        for (int j = 0; j < 130; j++) x[j] = ldexpf(x[j], -80);
        bitstack_gemv(other, 0, x, y);
        for (int i = 0; i < 70; i++) CHECK(ldexpf(y[i], 80) == expected[precision][i], "inputs of 1e-24: row %d is %g", i, (double)y[i]);
        bitstack_close(other);
    }
    TEST("a stack that is closed leaves no file open");
#if defined(__linux__)
    {
        struct rlimit before, few;
        getrlimit(RLIMIT_NOFILE, &before);
        few = before, few.rlim_cur = 40;
        setrlimit(RLIMIT_NOFILE, &few);
        for (int i = 0; i < 60; i++) {
            bitstack *once;
            const bitstack_result result = bitstack_open_file(&once, path, NULL, &error);
            CHECK(result == BITSTACK_OK, "the %dth time: %s", i + 1, error.message);
            if (result == BITSTACK_OK) bitstack_close(once);
        }
        setrlimit(RLIMIT_NOFILE, &before);
    }
#endif
    TEST("what is asked wrongly is refused in words, and nothing is opened");
    {
        bitstack *none = NULL;
        bitstack_writer *writer = NULL;
        bitstack_options options = {0};
        options.allocator.allocate = counting_allocate; /* and no release */
        CHECK(bitstack_open_memory(&none, data, bytes, &options, &error) == BITSTACK_ERROR_ARGUMENT && !none && strstr(error.message, "both functions"), "%s", error.message);
        CHECK(bitstack_writer_open(&writer, "build/tests/none", &options.allocator, &error) == BITSTACK_ERROR_ARGUMENT && !writer && strstr(error.message, "both functions"), "%s", error.message);
        CHECK(bitstack_open_file(&none, "build/no/such", NULL, &error) == BITSTACK_ERROR_IO && strstr(error.message, "cannot open 'build/no/such'"), "%s", error.message);
        CHECK(bitstack_open_file(&none, NULL, NULL, &error) == BITSTACK_ERROR_ARGUMENT && bitstack_open_file(NULL, path, NULL, NULL) == BITSTACK_ERROR_ARGUMENT, "no path or output");
        CHECK(bitstack_open_memory(&none, NULL, 500, NULL, &error) == BITSTACK_ERROR_ARGUMENT && bitstack_open_callback(&none, NULL, NULL, 500, NULL, &error) == BITSTACK_ERROR_ARGUMENT, "no source");
        CHECK(bitstack_set_level(stack, 3, 1, &error) == BITSTACK_ERROR_ARGUMENT && strstr(error.message, "no such matrix"), "%s", error.message);
#ifdef __unix__
        int ends[2];
        char pipe_path[40];
        if (pipe(ends) == 0) {
            snprintf(pipe_path, sizeof pipe_path, "/dev/fd/%d", ends[0]);
            close(ends[1]);
            CHECK(bitstack_open_file(&none, pipe_path, NULL, &error) == BITSTACK_ERROR_IO, "a pipe has no size: %s", error.message);
            close(ends[0]);
        }
#endif
        bitstack_shape large = build_shape(1u << 30, 1u << 30, 32, 1024, 1);
        large.group_cols = 64, large.factor_type = BITSTACK_F32;
        CHECK(bitstack_shape_valid(&large) && bitstack_block_bytes(&large, 32) == 0 && bitstack_live_bytes(&large, 32) == 0, "sizes beyond 64 bits are told as 0");
        large = build_shape(1u << 30, 1u << 24, 32, 1024, 0);
        uint64_t live = 0;
        for (uint32_t l = 1; l <= 32; l++) {
            const uint64_t more = bitstack_live_bytes(&large, l);
            CHECK(more == 0 || (more > live && (live || l == 1)), "level %u: %llu bytes", l, (unsigned long long)more);
            live = more;
        }
    }
    TEST("resident bytes never exceed the budget, are as many as fit, and are the same by file, memory and callback");
    {
        counting_source source = {data, bytes, 0, -1};
        counting_heap heap = {0};
        bitstack_options options = {0};
        options.allocator.allocate = counting_allocate, options.allocator.release = counting_release, options.allocator.user = &heap;
        bitstack *memory, *callback;
        CHECK(bitstack_open_memory(&memory, data, bytes, NULL, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_open_callback(&callback, counting_read, &source, bytes, &options, &error) == BITSTACK_OK, "%s", error.message);
        uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack), seed = 1;
        CHECK(bitstack_resident_bytes(stack) == total, "opening without a budget loads everything");
        CHECK(bitstack_set_budget(stack, base - 1, &error) == BITSTACK_ERROR_BUDGET && bitstack_resident_bytes(stack) == total, "a budget below the base changes nothing");
        char figure[32];
        snprintf(figure, sizeof figure, "%llu bytes", (unsigned long long)base);
        CHECK(strstr(error.message, figure), "the least budget is told: %s", error.message);
        CHECK(bitstack_set_budget(stack, base, &error) == BITSTACK_OK && bitstack_set_budget(stack, 0, &error) == BITSTACK_OK &&
              bitstack_resident_bytes(stack) == total, "0 is no limit, as in the options");
        uint64_t before = 0, after[64];
        int blocks = bitstack_block_count(stack);
        for (int i = 0; i < blocks; i++) {
            bitstack_block block;
            bitstack_get_block(stack, i, &block);
            after[i] = block.resident_after;
            CHECK(after[i] > before, "block %d adds bytes", i);
            before = after[i];
        }
        for (int round = 0; round < 300; round++) {
            uint64_t budget = base + test_random(&seed) % (total - base + 100), expected = base;
            for (int i = 0; i < blocks && after[i] <= budget; i++) expected = after[i];
            CHECK(bitstack_set_budget(stack, budget, &error) == BITSTACK_OK, "%s", error.message);
            bitstack_set_budget(memory, budget, NULL);
            bitstack_set_budget(callback, budget, NULL);
            CHECK(bitstack_resident_bytes(stack) == expected, "budget %llu: resident %llu, expected %llu", (unsigned long long)budget, (unsigned long long)bitstack_resident_bytes(stack), (unsigned long long)expected);
            CHECK(bitstack_resident_bytes(memory) == expected && bitstack_resident_bytes(callback) == expected, "the three sources agree");
            uint64_t hash = content(stack);
            CHECK(hash == content(memory) && hash == content(callback), "the three sources give the same bits");
            bitstack *fresh;
            bitstack_options at = {0};
            at.budget = budget;
            counting_heap fresh_heap = {0};
            counting_source fresh_source = {data, bytes, 0, -1};
            at.allocator = options.allocator, at.allocator.user = &fresh_heap;
            bitstack_open_callback(&fresh, counting_read, &fresh_source, bytes, &at, NULL);
            CHECK(heap.used == fresh_heap.used, "a walk holds %zu bytes, a fresh start %zu: superseded parts are let go", heap.used, fresh_heap.used);
            CHECK(content(fresh) == hash, "a walk ends in the same bits as a fresh start at %llu", (unsigned long long)budget);
            bitstack_close(fresh);
            CHECK(heap.used >= expected, "allocated %zu for %llu resident", heap.used, (unsigned long long)expected);
        }
        bitstack_set_budget(callback, total, NULL);
        source.read = 0;
        bitstack_set_budget(callback, total - 1, NULL);
        bitstack_set_budget(callback, total, NULL);
        bitstack_block last;
        bitstack_get_block(callback, blocks - 1, &last);
        CHECK(source.read <= 2 * last.bytes, "one block's change read %llu bytes, a block is %llu", (unsigned long long)source.read, (unsigned long long)last.bytes);
        bitstack_close(memory);
        bitstack_close(callback);
        CHECK(heap.used == 0, "%zu bytes leaked", heap.used);
    }
    TEST("a level set by hand counts its bytes and the next budget puts it back");
    {
        bitstack_set_budget(stack, UINT64_MAX, NULL);
        uint64_t all = content(stack), total = bitstack_resident_bytes(stack);
        CHECK(bitstack_set_level(stack, 0, 1, NULL) == BITSTACK_OK, "set_level");
        bitstack_shape shape = levels_of(stack, 0);
        CHECK(bitstack_resident_bytes(stack) == total - bitstack_live_bytes(&shape, 3) + bitstack_live_bytes(&shape, 1), "bytes");
        CHECK(content(stack) != all, "the level is another one");
        CHECK(bitstack_set_level(stack, 0, 4, NULL) == BITSTACK_ERROR_ARGUMENT, "no such level");
        bitstack_set_budget(stack, UINT64_MAX, NULL);
        CHECK(content(stack) == all, "back in line");
    }
    TEST("a file cut at any byte is a smaller model or a clean error, and may grow again");
    {
        unsigned char *cut = NULL;
        uint64_t base = bitstack_base_bytes(stack);
        int opened = 0;
        for (size_t n = 0; n < bytes; n++) {
            cut = (unsigned char *)realloc(cut, n ? n : 1); /* exact size, so that reading beyond is seen */
            memcpy(cut, data, n);
            bitstack_result result = walk(cut, n, &error);
            CHECK(n < base ? result == BITSTACK_ERROR_TRUNCATED : result == BITSTACK_OK, "cut at %zu of %zu: %s", n, bytes, bitstack_result_string(result));
            opened += result == BITSTACK_OK;
        }
        CHECK(opened > 0, "some cuts open");
        bitstack *smaller;
        bitstack_block block;
        bitstack_get_block(stack, 4, &block);
        CHECK(bitstack_open_memory(&smaller, data, (size_t)block.offset, NULL, NULL) == BITSTACK_OK, "cut before block 4");
        CHECK(bitstack_blocks_available(smaller) == 4 && bitstack_blocks_loaded(smaller) == 4, "%d blocks there", bitstack_blocks_available(smaller));
        for (int i = 4; i < bitstack_block_count(stack); i++) {
            bitstack_block beyond;
            bitstack_get_block(stack, i, &beyond);
            CHECK(bitstack_set_level(smaller, (int)beyond.matrix, beyond.level, &error) == BITSTACK_ERROR_ARGUMENT, "a level that is not there yet");
        }
        bitstack_set_budget(stack, bitstack_total_bytes(smaller), NULL);
        CHECK(content(smaller) == content(stack), "a cut file equals the whole one at that budget");
        for (int blocks = 5; blocks <= bitstack_block_count(stack); blocks++) { /* and grows again */
            bitstack_get_block(stack, blocks - 1, &block);
            CHECK(bitstack_extend(smaller, block.offset + block.bytes) == BITSTACK_OK, "extended to %d blocks", blocks);
            CHECK(bitstack_blocks_available(smaller) == blocks, "%d of %d blocks there", bitstack_blocks_available(smaller), blocks);
        }
        bitstack_set_budget(smaller, UINT64_MAX, NULL), bitstack_set_budget(stack, UINT64_MAX, NULL);
        CHECK(content(smaller) == content(stack), "a file that has grown to the end equals the whole one");
        CHECK(bitstack_extend(smaller, bytes - 1) == BITSTACK_ERROR_ARGUMENT, "it cannot shrink");
        bitstack_close(smaller);
        free(cut);
    }
    TEST("any flipped bit of header, tables or resident part is a clean error");
    {
        uint64_t base = bitstack_base_bytes(stack);
        unsigned char *flip = (unsigned char *)malloc(bytes);
        memcpy(flip, data, bytes);
        uint64_t tables = test_load64(data + 16), start[2], end[2];
        for (int i = 0; i < 2; i++) {
            bitstack_tensor tensor;
            bitstack_get_tensor(stack, i, &tensor);
            start[i] = i ? base - 64 : base - 128; /* 60 and 5 bytes, each padded to 64 */
            end[i] = start[i] + tensor.bytes;
        }
        for (size_t bit = 0; bit < base * 8; bit++) {
            size_t at = bit / 8;
            int covered = at < 128 + tables || (at >= start[0] && at < end[0]) || (at >= start[1] && at < end[1]);
            flip[at] ^= (unsigned char)(1u << bit % 8);
            bitstack_result result = walk(flip, bytes, &error);
            CHECK((result != BITSTACK_OK) == covered, "bit %zu of byte %zu: %s", bit % 8, at, bitstack_result_string(result));
            flip[at] ^= (unsigned char)(1u << bit % 8);
        }
        free(flip);
    }
    TEST("tables with valid checksums but wrong contents are refused or harmless");
    {
        /* Every 32-bit word of header and tables gets hostile values, checksums mended, so that the checks
         * behind the checksums are what is tested. */
        static const uint32_t values[] = {0, 1, 2, 3, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, 0x40000000u, 64};
        unsigned char *bad = (unsigned char *)malloc(bytes);
        uint64_t tables = test_load64(data + 16), tried = 0, opened = 0;
        const size_t names_at = (size_t)(128 + tables - test_load64(data + 56)), blocks_at = names_at - 64 * (size_t)bitstack_block_count(stack);
        const size_t matrices_at = blocks_at - 64 * 3, tensors_at = matrices_at - 72 * (size_t)bitstack_tensor_count(stack);
        for (size_t at = 8; at + 4 <= 128 + tables; at += 4) {
            if (at >= 64 && at < 72) continue;
            /* Some words say what nothing else can contradict: metadata, names and where they lie, scales and sensitivities
             * that are numbers, dimensions and groups of one, a block's error and score, the checksums of blocks (which are then left out). All others must
             * be what they are. */
            const size_t in_tensor = (at - tensors_at) % 72, in_matrix = (at - matrices_at) % 64, in_block = (at - blocks_at) % 64;
            const int free_word = at >= names_at ? 1 : at >= blocks_at ? (in_block >= 24 && in_block < 56) : at >= matrices_at ? in_matrix < 8 || in_matrix == 32 || in_matrix == 36 || in_matrix == 40
                                  : at >= tensors_at ? in_tensor < 8 || in_tensor == 12 : at >= 128;
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                memcpy(bad, data, bytes);
                uint32_t value = values[v];
                test_little(&value, 4, 4);
                memcpy(bad + at, &value, 4);
                uint64_t t = test_load64(bad + 16);
                test_store64(bad + 64, t <= bytes - 128 ? bitstack_checksum(bad + 128, (size_t)t) : 0);
                test_store64(bad + 120, bitstack_checksum(bad, 120));
                uint32_t was;
                memcpy(&was, data + at, 4);
                test_little(&was, 4, 4);
                const int fewer = at >= matrices_at && at < blocks_at && values[v] < was; /* rows or columns that padding hides */
                const int opens = walk(bad, bytes, &error) == BITSTACK_OK;
                CHECK(!opens || free_word || !memcmp(bad + at, data + at, 4) || (fewer && (in_matrix == 8 || in_matrix == 12)), "word %zu (%zu in a tensor, %zu in a matrix, %zu in a block, which start at %zu, %zu, %zu) may be %u", at, in_tensor, in_matrix, in_block, tensors_at, matrices_at, blocks_at, values[v]);
                CHECK(opens || error.message[0], "word %zu as %u: no message", at, values[v]);
                opened += (uint64_t)opens, tried++;
            }
        }
        CHECK(opened > 50 && tried > 1000, "%llu of %llu opened", (unsigned long long)opened, (unsigned long long)tried);
        const size_t blocks = (size_t)bitstack_block_count(stack), tensors = (size_t)bitstack_tensor_count(stack);
        const size_t matrix = (size_t)(128 + tables - test_load64(data + 56)) - 64 * blocks - 64 * 3, tensor = matrix - 72 * tensors;
        for (int field = 0; field < 5; field++) { /* bytes whose every other value is refused */
            const size_t at = field < 4 ? matrix + 28 + (size_t)field : tensor + 12;
            for (int value = field < 3 ? 4 : field < 4 ? 1 : 5; value < 256; value += 9) {
                memcpy(bad, data, bytes);
                bad[at] = (unsigned char)value;
                test_store64(bad + 64, bitstack_checksum(bad + 128, (size_t)tables));
                test_store64(bad + 120, bitstack_checksum(bad, 120));
                CHECK(walk(bad, bytes, &error) != BITSTACK_OK, "a byte of a %s record may be %d", field < 4 ? "matrix" : "tensor", value);
            }
        }
        free(bad);
    }
    TEST("a mandatory entry or encoding that is not known is refused by name, an unknown optional one is skipped");
    {
        bitstack_writer *writer;
        const char *p = "build/tests/mandatory.bitstack";
        uint32_t one = 1;
        bitstack_writer_open(&writer, p, NULL, NULL);
        bitstack_writer_meta(writer, "future.thing", BITSTACK_META_U32, &one, 1);
        CHECK(bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
        bitstack *none;
        size_t n;
        unsigned char *d = (unsigned char *)test_read_file(p, &n);
        d[128 + 6] = 1; /* no writer of this version makes such an entry */
        test_store64(d + 64, bitstack_checksum(d + 128, (size_t)test_load64(d + 16)));
        test_store64(d + 120, bitstack_checksum(d, 120));
        CHECK(bitstack_open_memory(&none, d, n, NULL, &error) == BITSTACK_ERROR_UNSUPPORTED && strstr(error.message, "future.thing"), "%s", error.message);
        d[128 + 6] = 0, d[128 + 4] = 99; /* optional, of a type nobody knows */
        test_store64(d + 64, bitstack_checksum(d + 128, (size_t)test_load64(d + 16)));
        test_store64(d + 120, bitstack_checksum(d, 120));
        CHECK(bitstack_open_memory(&none, d, n, NULL, &error) == BITSTACK_OK, "%s", error.message);
        bitstack_meta meta;
        CHECK(bitstack_get_meta(none, 0, &meta) == BITSTACK_OK && meta.type == 99, "the type is told");
        bitstack_close(none);
        free(d);
        remove(p);
    }
    TEST("a corrupt block is named and left out; its matrix stays at the last good level");
    {
        bitstack_block block;
        int third = -1;
        for (int i = 0; i < bitstack_block_count(stack); i++) {
            bitstack_get_block(stack, i, &block);
            if (block.matrix == 2 && block.level == 3) third = i;
        }
        bitstack_get_block(stack, third, &block);
        unsigned char *bad = (unsigned char *)malloc(bytes);
        memcpy(bad, data, bytes);
        bad[block.offset + block.bytes - 1] ^= 1;
        for (int mode = 0; mode < 2; mode++) {
            counting_source source = {bad, bytes, 0, -1};
            bitstack *damaged;
            bitstack_result r = mode ? bitstack_open_callback(&damaged, counting_read, &source, bytes, NULL, &error) : bitstack_open_memory(&damaged, bad, bytes, NULL, &error);
            CHECK(r == BITSTACK_OK && error.code == BITSTACK_ERROR_CHECKSUM && strstr(error.message, "c.weight"), "%s", error.message);
            bitstack_matrix m;
            bitstack_get_matrix(damaged, 2, &m);
            CHECK(m.level == 2, "level %u", m.level);
            bitstack_get_matrix(damaged, 0, &m);
            CHECK(m.level == 3, "the others are whole");
            uint64_t sum = bitstack_base_bytes(damaged);
            for (int i = 0; i < 3; i++) bitstack_get_matrix(damaged, i, &m), sum += m.resident_bytes;
            CHECK(sum == bitstack_resident_bytes(damaged), "bytes are exact all the same");
            bitstack_close(damaged);
        }
        free(bad);
    }
    TEST("what changes in memory after it was opened is noticed when it is taken up");
    {
        unsigned char *copy = (unsigned char *)malloc(bytes);
        bitstack *other;
        bitstack_block block;
        bitstack_matrix m;
        memcpy(copy, data, bytes);
        CHECK(bitstack_open_memory(&other, copy, bytes, NULL, &error) == BITSTACK_OK && error.code == BITSTACK_OK, "%s", error.message);
        for (int i = 0; i < bitstack_block_count(other); i++) {
            bitstack_get_block(other, i, &block);
            if (block.matrix == 0 && block.level == 2) copy[block.offset] ^= 1; /* its coefficients: level 3 has its own */
        }
        CHECK(bitstack_set_level(other, 0, 2, &error) == BITSTACK_ERROR_CHECKSUM && strstr(error.message, "'a'"), "%s", error.message);
        bitstack_get_matrix(other, 0, &m);
        CHECK(m.level == 1, "level %u", m.level);
        bitstack_close(other);
        free(copy);
    }
    TEST("any flipped byte of any part of any block: named, its matrix one level below, the others whole, by file, memory and callback");
    {
        static const char *const damaged_path = "build/tests/damaged.bitstack";
        unsigned char *bad = (unsigned char *)malloc(bytes);
        bitstack *good, *damaged;
        int flips = 0;
        CHECK(bitstack_open_memory(&good, data, bytes, NULL, NULL) == BITSTACK_OK, "open");
        memcpy(bad, data, bytes);
        for (int i = 0; i < bitstack_block_count(good); i++) {
            bitstack_block block;
            bitstack_get_block(good, i, &block);
            const bitstack_shape shape = levels_of(good, (int)block.matrix);
            const uint64_t part[3] = {bitstack_column_bytes(&shape, block.level), bitstack_coefficient_bytes(&shape, block.level),
                                      bitstack_plane_part_bytes(&shape)};
            bitstack_options options = {0};
            options.budget = block.resident_after; /* nothing of this block is superseded yet */
            bitstack_set_budget(good, options.budget, NULL);
            bitstack_set_level(good, (int)block.matrix, block.level - 1, NULL);
            const uint64_t hash = content(good);
            uint64_t at = block.offset;
            for (int p = 0; p < 3; at += part[p++])
                for (int where = 0; where < 3 && part[p]; where++) {
                    const size_t byte = (size_t)(at + (where == 0 ? 0 : where == 1 ? part[p] / 2 : part[p] - 1));
                    bad[byte] ^= (unsigned char)(1 << flips++ % 8);
                    for (int from = 0; from < 3; from++) {
                        counting_source source = {bad, bytes, 0, -1};
                        FILE *file = from == 0 ? fopen(damaged_path, "wb") : NULL;
                        if (file) fwrite(bad, 1, bytes, file), fclose(file);
                        memset(&error, 0, sizeof error);
                        bitstack_result r = from == 0   ? bitstack_open_file(&damaged, damaged_path, &options, &error)
                                            : from == 1 ? bitstack_open_memory(&damaged, bad, bytes, &options, &error)
                                                        : bitstack_open_callback(&damaged, counting_read, &source, bytes, &options, &error);
                        char name[40];
                        snprintf(name, sizeof name, "matrix '%s'", matrices[block.matrix].name);
                        CHECK(r == BITSTACK_OK && error.code == BITSTACK_ERROR_CHECKSUM && strstr(error.message, name) && error.byte_offset == at,
                              "block %d, part %d, byte %d: %s (at %llu)", i, p, where, error.message, (unsigned long long)error.byte_offset);
                        if (r != BITSTACK_OK) continue;
                        CHECK(content(damaged) == hash && bitstack_resident_bytes(damaged) == bitstack_resident_bytes(good),
                              "block %d, part %d, byte %d, source %d: not the level below, or not the others", i, p, where, from);
                        bitstack_close(damaged);
                    }
                    bad[byte] = data[byte];
                }
        }
        CHECK(flips >= 3 * 2 * 9, "%d bytes", flips);
        bitstack_close(good);
        free(bad);
        remove(damaged_path);
    }
    TEST("every failing allocation and read is a clean error and leaks nothing");
    {
        int failures = 0;
        for (int n = 1; n < 400; n++) {
            counting_heap heap = {0};
            counting_source source = {data, bytes, 0, -1};
            bitstack_options options = {0};
            options.allocator.allocate = counting_allocate, options.allocator.release = counting_release, options.allocator.user = &heap;
            heap.fail_at = n;
            bitstack *s = NULL;
            bitstack_result r = bitstack_open_callback(&s, counting_read, &source, bytes, &options, &error);
            CHECK(r == BITSTACK_OK || (r == BITSTACK_ERROR_MEMORY && !s), "allocation %d: %s", n, bitstack_result_string(r));
            failures += r != BITSTACK_OK;
            if (r == BITSTACK_OK) bitstack_close(s);
            CHECK(heap.used == 0, "allocation %d: %zu bytes leaked", n, heap.used);
            if (heap.calls < n) break;
        }
        CHECK(failures > 5, "%d failures seen", failures);
        int reads = 0;
        {
            counting_source source = {data, bytes, 0, 100000};
            bitstack *s;
            CHECK(bitstack_open_callback(&s, counting_read, &source, bytes, NULL, &error) == BITSTACK_OK, "%s", error.message);
            reads = 100000 - source.fail_after;
            bitstack_close(s);
        }
        CHECK(reads > 15, "%d reads", reads);
        for (int n = 0; n < 40; n++) {
            counting_source source = {data, bytes, 0, -1};
            bitstack *s;
            source.fail_after = n;
            bitstack_result r = bitstack_open_callback(&s, counting_read, &source, bytes, NULL, &error);
            const int all = r == BITSTACK_OK;
            CHECK(all ? n >= reads : n < reads && r == BITSTACK_ERROR_IO && error.code == r && !s, "read %d of %d: %s", n, reads, bitstack_result_string(r));
            if (!all) { /* what can be had is for those who ask for it, and what could not is told */
                bitstack_options none = {0};
                none.load_nothing = 1;
                source.fail_after = -1;
                CHECK(bitstack_open_callback(&s, counting_read, &source, bytes, &none, &error) == BITSTACK_OK, "%s", error.message);
                source.fail_after = n;
                r = bitstack_set_budget(s, 0, &error);
                CHECK(n >= reads - 2 || (r == BITSTACK_ERROR_IO && bitstack_blocks_missing(s) > 0), "read %d: %s, %d missing", n, error.message, bitstack_blocks_missing(s));
            } else CHECK(bitstack_blocks_missing(s) == 0 && bitstack_blocks_loaded(s) == bitstack_block_count(s), "all are there");
            source.fail_after = -1;
            CHECK(bitstack_set_budget(s, UINT64_MAX, &error) == BITSTACK_OK && bitstack_resident_bytes(s) == bitstack_total_bytes(s), "a source that recovers is read again");
            for (int i = 0; i < 8; i++) { /* shrinking needs older coefficients */
                source.fail_after = i;
                uint64_t budget = bitstack_base_bytes(s) + (bitstack_total_bytes(s) - bitstack_base_bytes(s)) * (uint64_t)(8 - i) / 9;
                r = bitstack_set_budget(s, budget, NULL);
                CHECK(r == BITSTACK_ERROR_IO || (r == BITSTACK_OK && bitstack_resident_bytes(s) <= budget), "within the budget, or told: %s", bitstack_result_string(r));
            }
            bitstack_close(s);
        }
    }
    bitstack_close(stack);
    TEST("a writer that is dropped or refused leaves the old file as it was");
    {
        bitstack_writer *writer;
        bitstack_coded coded = build_coded(&matrices[0].shape, 3);
        bitstack_order_entry order[3] = {{0, 2, 0}, {0, 1, 0}, {0, 3, 0}};
        bitstack_writer_open(&writer, path, NULL, NULL);
        bitstack_writer_matrix(writer, "w", &coded, 1);
        bitstack_writer_abort(writer);
        bitstack_writer_open(&writer, path, NULL, NULL);
        bitstack_writer_matrix(writer, "w", &coded, 1);
        CHECK(bitstack_writer_finish(writer, order, 3, &error) == BITSTACK_ERROR_ARGUMENT, "levels must ascend");
        for (size_t entries = 0; entries <= 4; entries++) { /* too few, and one that is not there */
            const bitstack_order_entry ascending[4] = {{0, 1, 0}, {0, 2, 0}, {0, 3, 0}, {0, 4, 0}};
            if (entries == 3) continue;
            bitstack_writer_open(&writer, path, NULL, NULL);
            bitstack_writer_matrix(writer, "w", &coded, 1);
            CHECK(bitstack_writer_finish(writer, ascending, entries, &error) == BITSTACK_ERROR_ARGUMENT && strstr(error.message, "every block once"),
                  "an order of %zu of 3 blocks: %s", entries, error.message);
            CHECK(bitstack_reorder(path, path, ascending, entries, &error) == BITSTACK_ERROR_ARGUMENT, "%zu blocks to reorder", entries);
        }
        size_t n;
        unsigned char *now = (unsigned char *)test_read_file(path, &n);
        CHECK(now && n == bytes && !memcmp(now, data, n), "the old file is untouched");
        FILE *left = fopen("build/tests/reader.bitstack.part", "rb"), *spool = fopen("build/tests/reader.bitstack.spool", "rb");
        CHECK(!left && !spool, "no temporary files are left");
        free(now);
        build_free(&coded);
        CHECK(bitstack_writer_open(&writer, "build/no/such/folder/x.bitstack", NULL, &error) == BITSTACK_ERROR_IO, "%s", error.message);
    }
    TEST("tables: any budget gives what a fresh start gives, from file, memory and callback, and no byte more than fits");
    {
        const built_matrix both[] = {{"t", build_tables(40, 100, 8, 32)}, {"p", build_shape(33, 65, 2, 2, 0)}, {"u", build_tables(17, 70, 3, 64)}};
        const char *p = "build/tests/tables.bitstack";
        size_t n;
        bitstack *walked, *fresh;
        uint64_t seed = 9;
        CHECK(build_stack(p, both, 3, 5) == 0 && bitstack_open_file(&walked, p, NULL, &error) == BITSTACK_OK, "%s", error.message);
        unsigned char *d = (unsigned char *)test_read_file(p, &n);
        const uint64_t base = bitstack_base_bytes(walked), total = bitstack_total_bytes(walked);
        for (int round = 0; round < 60; round++) {
            counting_source source = {d, n, 0, -1};
            counting_heap heap = {0};
            bitstack_options options = {0};
            options.allocator.allocate = counting_allocate, options.allocator.release = counting_release, options.allocator.user = &heap;
            options.budget = base + test_random(&seed) % (total - base + 50);
            CHECK(bitstack_set_budget(walked, options.budget, &error) == BITSTACK_OK && bitstack_resident_bytes(walked) <= options.budget, "%s", error.message);
            const bitstack_result r = round % 2 ? bitstack_open_memory(&fresh, d, n, &options, &error) : bitstack_open_callback(&fresh, counting_read, &source, n, &options, &error);
            CHECK(r == BITSTACK_OK && content(fresh) == content(walked) && bitstack_resident_bytes(fresh) == bitstack_resident_bytes(walked), "at %llu", (unsigned long long)options.budget);
            if (round % 2 == 0) CHECK(heap.used >= bitstack_resident_bytes(fresh) && heap.used <= bitstack_resident_bytes(fresh) + 8192, "%zu bytes held", heap.used);
            bitstack_close(fresh);
            CHECK(heap.used == 0, "%zu bytes leaked", heap.used);
        }
        bitstack_close(walked);
        TEST("tables: a file cut at any byte, or with any flipped byte of a block, is a smaller model or a clean error");
        unsigned char *bad = (unsigned char *)malloc(n);
        for (size_t cut = 0; cut < n; cut += 7) {
            unsigned char *copy = (unsigned char *)malloc(cut + 1);
            memcpy(copy, d, cut);
            CHECK(walk(copy, cut, &error) == (cut < base ? BITSTACK_ERROR_TRUNCATED : BITSTACK_OK), "cut at %zu", cut);
            free(copy);
        }
        memcpy(bad, d, n);
        for (size_t at = (size_t)base; at < n; at += 11) {
            bad[at] ^= (unsigned char)(1u << at % 8);
            CHECK(bitstack_open_memory(&fresh, bad, n, NULL, &error) == BITSTACK_OK && (error.code == BITSTACK_ERROR_CHECKSUM || error.code == BITSTACK_OK), "byte %zu: %s", at, error.message);
            bitstack_close(fresh); /* OK: of a part that the top level does not use */
            bad[at] ^= (unsigned char)(1u << at % 8);
        }
        TEST("tables: a record whose shape an encoding cannot have is refused, the one of a newer writer by name");
        const size_t matrix = (size_t)(128 + test_load64(d + 16) - test_load64(d + 56)) - 64 * (size_t)(8 + 2 + 3) - 64 * 3;
        static const struct { size_t at; uint32_t value; int bytes; bitstack_result result; } wrong[] = {
            {16, 3, 4, BITSTACK_ERROR_UNSUPPORTED}, {16, 0, 4, BITSTACK_ERROR_UNSUPPORTED}, {24, 2, 4, BITSTACK_ERROR_UNSUPPORTED}, {24, 0, 4, BITSTACK_ERROR_UNSUPPORTED},
            {28, 1, 1, BITSTACK_ERROR_UNSUPPORTED}, {28, 2, 1, BITSTACK_ERROR_UNSUPPORTED}, {29, 1, 1, BITSTACK_ERROR_UNSUPPORTED}, {30, 1, 1, BITSTACK_ERROR_UNSUPPORTED},
            {30, 2, 1, BITSTACK_ERROR_UNSUPPORTED}, {31, 1, 1, BITSTACK_ERROR_UNSUPPORTED}, {32, 0, 4, BITSTACK_ERROR_FORMAT}, {32, 16, 4, BITSTACK_ERROR_FORMAT},
            {32, 48, 4, BITSTACK_ERROR_FORMAT}, {32, 1056, 4, BITSTACK_ERROR_FORMAT}, {20, 9, 4, BITSTACK_ERROR_FORMAT}, {36, 0x40400000u, 4, BITSTACK_ERROR_FORMAT},
            {8, 0, 4, BITSTACK_ERROR_FORMAT}, {12, 0x40000001u, 4, BITSTACK_ERROR_FORMAT}, {16, 1, 4, BITSTACK_ERROR_FORMAT}};
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            memcpy(bad, d, n);
            tables_store(bad + matrix + wrong[k].at, wrong[k].value, wrong[k].bytes);
            test_store64(bad + 64, bitstack_checksum(bad + 128, (size_t)test_load64(bad + 16)));
            test_store64(bad + 120, bitstack_checksum(bad, 120));
            const bitstack_result r = bitstack_open_memory(&fresh, bad, n, NULL, &error);
            CHECK(r == wrong[k].result, "byte %zu = %u: %s, %s", wrong[k].at, wrong[k].value, bitstack_result_string(r), error.message);
            CHECK(r != BITSTACK_ERROR_UNSUPPORTED || strstr(error.message, "'t'"), "%s", error.message);
        }
        for (size_t at = 8; at < 64; at += 4) /* and whatever else: no crash */
            for (uint32_t v = 0; v < 9; v++) {
                static const uint32_t values[] = {0, 1, 2, 3, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, 0x40000000u, 64};
                memcpy(bad, d, n);
                tables_store(bad + matrix + at, values[v], 4);
                test_store64(bad + 64, bitstack_checksum(bad + 128, (size_t)test_load64(bad + 16)));
                test_store64(bad + 120, bitstack_checksum(bad, 120));
                walk(bad, n, &error);
            }
        free(bad), free(d);
        remove(p);
        TEST("tables: a block whose unit or table is not valid is named and left out, checksums or none");
        for (int fault = 0; fault < 9; fault++)
            for (int mode = 0; mode < 4; mode++) {
                bitstack_coded coded = build_coded(&both[0].shape, 4);
                bitstack_writer *writer;
                bitstack_matrix m;
                bitstack_options options = {0};
                const uint32_t level = fault == 8 ? 7 : 5; /* -128 is a value at 7 */
                unsigned char *column = coded.blocks[level - 1];
                const uint32_t units[4] = {0, 0x3F800001u, 0x7F800000u, 0x00400000u};
                if (fault < 4) tables_store(column, units[fault], 4);
                else if (fault == 4) tables_store(column, 0xBF800000u, 4);
                else if (fault == 5) column[15] = 1;
                else tables_store(column + 16 + 2 * 31, fault == 6 ? 128 : 0xFF80, 2);
                bitstack_writer_open(&writer, p, NULL, NULL);
                bitstack_writer_matrix(writer, "t", &coded, 1);
                CHECK(bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
                build_free(&coded);
                d = (unsigned char *)test_read_file(p, &n);
                counting_source source = {d, n, 0, -1};
                options.skip_checksums = mode == 3;
                bitstack_result r = mode == 0 ? bitstack_open_file(&fresh, p, &options, &error) : mode == 1 ? bitstack_open_callback(&fresh, counting_read, &source, n, &options, &error)
                                                                                                           : bitstack_open_memory(&fresh, d, n, &options, &error);
                CHECK(r == BITSTACK_OK && error.code == BITSTACK_OK, "its own level is the only one that uses it: %s", error.message);
                r = bitstack_set_level(fresh, 0, level, &error);
                CHECK(r == (fault == 8 ? BITSTACK_OK : BITSTACK_ERROR_FORMAT) && (fault == 8 || strstr(error.message, "'t'")), "fault %d: %s, %s", fault, bitstack_result_string(r), error.message);
                bitstack_get_matrix(fresh, 0, &m);
                CHECK(m.level == (fault == 8 ? 7 : 4), "fault %d: level %u", fault, m.level);
                bitstack_close(fresh);
                options.budget = UINT64_MAX;
                bitstack_block block;
                if (bitstack_open_memory(&fresh, d, n, &options, NULL) == BITSTACK_OK) { /* as a file that ends there */
                    bitstack_get_block(fresh, (int)level - 1, &block);
                    bitstack_close(fresh);
                    r = bitstack_open_memory(&fresh, d, (size_t)(block.offset + block.bytes), NULL, &error);
                    CHECK(r == BITSTACK_OK && (fault == 8 || error.code == BITSTACK_ERROR_FORMAT), "fault %d: %s", fault, error.message);
                    bitstack_get_matrix(fresh, 0, &m);
                    CHECK(m.level == (fault == 8 ? 7 : 4), "fault %d, opened: level %u", fault, m.level);
                    bitstack_close(fresh);
                }
                free(d);
            }
        remove(p);
        bitstack_shape shape = build_tables(10, 10, 3, 64);
        CHECK(bitstack_shape_valid(&shape) && bitstack_column_bytes(&shape, 9) == 0 && bitstack_live_bytes(&shape, 9) == 0 && bitstack_block_bytes(&shape, 9) == 0, "no ninth level");
        CHECK(bitstack_plane_part_bytes(&shape) == 64 && bitstack_column_bytes(&shape, 8) == 576 && bitstack_coefficient_bytes(&shape, 3) == 64, "sizes");
        shape = build_shape(10, 10, 3, 1, 1);
        shape.encoding = (bitstack_encoding)0;
        CHECK(bitstack_shape_valid(&shape) && bitstack_plane_part_bytes(&shape) == bitstack_plane_bytes(10, 10), "no encoding is read as planes");
        shape.encoding = (bitstack_encoding)3;
        CHECK(!bitstack_shape_valid(&shape) && bitstack_plane_part_bytes(&shape) == 0, "an unknown encoding");
    }
    TEST("where a smaller level's factors cannot be read a matrix keeps the level it has, and goes down once they can");
    {
        counting_source source = {data, bytes, 0, -1};
        bitstack *s;
        bitstack_matrix m;
        CHECK(bitstack_open_callback(&s, counting_read, &source, bytes, NULL, &error) == BITSTACK_OK, "%s", error.message);
        const uint64_t base = bitstack_base_bytes(s), total = bitstack_total_bytes(s), half = base + (total - base) / 2;
        uint32_t before[3];
        for (int i = 0; i < 3; i++) bitstack_get_matrix(s, i, &m), before[i] = m.level;
        source.fail_after = 0;
        CHECK(bitstack_set_budget(s, half, &error) == BITSTACK_ERROR_IO && strstr(error.message, "reading a block of matrix"), "told: %s", error.message);
        uint64_t sum = base;
        for (int i = 0; i < 3; i++) {
            bitstack_get_matrix(s, i, &m), sum += m.resident_bytes;
            CHECK(m.level >= 1 && m.level <= before[i], "matrix %d has level %u, had %u", i, m.level, before[i]);
        }
        CHECK(sum == bitstack_resident_bytes(s), "bytes are exact all the same");
        source.fail_after = -1;
        CHECK(bitstack_set_budget(s, half, &error) == BITSTACK_OK && bitstack_resident_bytes(s) <= half, "once it can be read: %s", error.message);
        bitstack_close(s);
    }
    TEST("two writers to one path: the file is one of theirs, whole; and none writes through a link that lies at its names");
    {
        bitstack_coded coded = build_coded(&matrices[0].shape, 3);
        bitstack_writer *first, *second;
        bitstack *s;
        const char *both = "build/tests/both.bitstack";
        CHECK(bitstack_writer_open(&first, both, NULL, &error) == BITSTACK_OK, "%s", error.message);
        const bitstack_result other = bitstack_writer_open(&second, both, NULL, &error);
        CHECK(other == BITSTACK_OK || other == BITSTACK_ERROR_IO, "%s", error.message);
        for (int i = 0; i < 5; i++) {
            const char name[2] = {(char)('a' + i), 0};
            CHECK(bitstack_writer_matrix(first, name, &coded, 1) == BITSTACK_OK, "write");
            if (other == BITSTACK_OK && i < 2) CHECK(bitstack_writer_matrix(second, name, &coded, 1) == BITSTACK_OK, "write");
        }
        for (int writer = 0; writer < (other == BITSTACK_OK ? 2 : 1); writer++) {
            CHECK(bitstack_writer_finish(writer ? second : first, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
            CHECK(bitstack_open_file(&s, both, NULL, &error) == BITSTACK_OK && error.code == BITSTACK_OK, "%s", error.message);
            CHECK(bitstack_matrix_count(s) == (writer ? 2 : 5) && bitstack_resident_bytes(s) == bitstack_total_bytes(s), "all of one writer's blocks");
            bitstack_close(s);
        }
#ifndef _WIN32
        FILE *victim = fopen("build/tests/victim", "wb");
        fputs("mine", victim), fclose(victim);
        remove("build/tests/both.bitstack.part"), remove("build/tests/both.bitstack.spool");
        CHECK(symlink("victim", "build/tests/both.bitstack.part") == 0 && symlink("victim", "build/tests/both.bitstack.spool") == 0, "links");
        CHECK(bitstack_writer_open(&first, both, NULL, &error) == BITSTACK_OK && bitstack_writer_matrix(first, "one", &coded, 1) == BITSTACK_OK &&
              bitstack_writer_finish(first, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
        size_t n;
        char *left = (char *)test_read_file("build/tests/victim", &n);
        CHECK(left && n == 4 && !memcmp(left, "mine", 4), "the file linked to has %zu bytes", n);
        free(left);
        remove("build/tests/victim");
#endif
        remove(both);
        build_free(&coded);
    }
    TEST("reordering keeps every bit and follows the order given");
    {
        bitstack_order_entry order[9];
        int n = 0;
        for (uint32_t i = 3; i-- > 0;)
            for (uint32_t l = 1; l <= matrices[i].shape.levels; l++) order[n].matrix = i, order[n].level = l, order[n++].score = 0;
        CHECK(bitstack_reorder(path, "build/tests/reordered.bitstack", order, 9, &error) == BITSTACK_OK, "%s", error.message);
        bitstack *a, *b;
        bitstack_open_file(&a, path, NULL, NULL);
        CHECK(bitstack_open_file(&b, "build/tests/reordered.bitstack", NULL, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(error.code == BITSTACK_OK && content(a) == content(b), "the same matrices");
        bitstack_block block;
        for (int i = 0; i < 9; i++) {
            bitstack_get_block(b, i, &block);
            CHECK(block.matrix == order[i].matrix && block.level == order[i].level, "block %d", i);
        }
        CHECK(bitstack_meta_number(b, "test.number", 0) == 42, "metadata came along");
        for (int i = 0; i < 3; i++) {
            bitstack_matrix m, was;
            bitstack_get_matrix(a, i, &was), bitstack_get_matrix(b, i, &m);
            CHECK(m.sensitivity == was.sensitivity && m.sensitivity == (float)(1 + i), "the sensitivity of matrix %d: %g", i, (double)m.sensitivity);
            CHECK(m.name_bytes == was.name_bytes && !memcmp(m.name, was.name, m.name_bytes), "the name of matrix %d", i);
            CHECK(!memcmp(&m.shape, &was.shape, sizeof m.shape), "the shape of matrix %d", i);
        }
        for (int i = 0; i < 2; i++) {
            bitstack_tensor t, was;
            bitstack_get_tensor(a, i, &was), bitstack_get_tensor(b, i, &t);
            CHECK(t.bytes == was.bytes && !memcmp(t.data, was.data, (size_t)t.bytes) && t.type == was.type, "tensor %d came along", i);
        }
        for (int i = 0; i < 81; i++) {
            bitstack_block was;
            bitstack_get_block(a, i / 9, &was), bitstack_get_block(b, i % 9, &block);
            if (block.matrix != was.matrix || block.level != was.level) continue;
            CHECK(block.rel_err2 == was.rel_err2 && was.rel_err2 > 0, "the error of block %d", i / 9);
        }
        bitstack_close(b);
        for (int i = 0; i < 9; i++) bitstack_get_block(a, i, &block), order[i].matrix = (uint32_t)block.matrix, order[i].level = block.level;
        CHECK(bitstack_reorder("build/tests/reordered.bitstack", "build/tests/reordered.bitstack", order, 9, &error) == BITSTACK_OK, "in place: %s", error.message);
        CHECK(bitstack_open_file(&b, "build/tests/reordered.bitstack", NULL, &error) == BITSTACK_OK && content(a) == content(b), "in place");
        bitstack_get_block(b, 8, &block);
        CHECK(block.matrix == order[8].matrix && block.level == order[8].level, "the order of before");
        bitstack_close(a);
        bitstack_close(b);
    }
    remove(path);
    remove("build/tests/reordered.bitstack");
    free(data);
    return TEST_DONE();
}
