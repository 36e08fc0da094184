/* The writer: whatever is refused stays refused, so that a file is whole or is not made; names are names, each once;
 * and the example at the top of the header is safe whatever fails in it. */
#include "stack_builder.h"

static const char *const path = "build/tests/writer.bitstack";
static const uint64_t three[1] = {3};
static const float numbers[3] = {1, 2, 3};

static bitstack_coded small(void) {
    const bitstack_shape shape = build_shape(6, 10, 2, 1, 1);
    return build_coded(&shape, 4);
}

/* What may go wrong, each after a matrix has been written well. */
enum {
    NAN_SENSITIVITY, LESS_SENSITIVITY, ENDLESS_SENSITIVITY, TWO_MATRICES, TWO_TENSORS, TWO_KEYS, TWO_STRING_KEYS, EMPTY_NAME, EMPTY_KEY, NO_NAME,
    NO_KEY, BAD_NAME, CUT_NAME, BAD_KEY, BAD_TENSOR_NAME, SURROGATE, TOO_LONG_FORM, NOT_ENCODED, NO_MATRIX, NO_BLOCK, NAN_ERROR, NO_DATA, BAD_TYPE,
    BAD_DIMENSIONS, BAD_META_TYPE, NO_ELEMENTS, LONG_KEY, NO_STRING, KINDS
};
static bitstack_result go_wrong(bitstack_writer *writer, int kind) {
    static char long_key[70001];
    const char *one = "one", *strings[2] = {"a", NULL};
    bitstack_coded coded = small();
    bitstack_result result = BITSTACK_OK;
    const float wrong[3] = {NAN, -1, INFINITY};
    memset(long_key, 'k', sizeof long_key - 1);
    if (kind <= ENDLESS_SENSITIVITY) result = bitstack_writer_matrix(writer, "two", &coded, wrong[kind]);
    if (kind == TWO_MATRICES) result = bitstack_writer_matrix(writer, "one", &coded, 1);
    if (kind == TWO_TENSORS) result = bitstack_writer_tensor(writer, "tensor", BITSTACK_F32, 1, three, numbers);
    if (kind == TWO_KEYS) result = bitstack_writer_meta_u32(writer, "key", 2);
    if (kind == TWO_STRING_KEYS) result = bitstack_writer_meta_strings(writer, "key", &one, NULL, 1);
    if (kind == EMPTY_NAME) result = bitstack_writer_matrix(writer, "", &coded, 1);
    if (kind == EMPTY_KEY) result = bitstack_writer_meta_f32(writer, "", 2);
    if (kind == NO_NAME) result = bitstack_writer_matrix(writer, NULL, &coded, 1);
    if (kind == NO_KEY) result = bitstack_writer_meta_u32(writer, NULL, 2);
    if (kind == BAD_NAME) result = bitstack_writer_matrix(writer, "caf\xE9", &coded, 1);
    if (kind == CUT_NAME) result = bitstack_writer_matrix(writer, "caf\xC3", &coded, 1);
    if (kind == BAD_KEY) result = bitstack_writer_meta_u32(writer, "\x80key", 2);
    if (kind == BAD_TENSOR_NAME) result = bitstack_writer_tensor(writer, "t\xFF", BITSTACK_F32, 1, three, numbers);
    if (kind == SURROGATE) result = bitstack_writer_meta_u32(writer, "\xED\xA0\x80", 2);
    if (kind == TOO_LONG_FORM) result = bitstack_writer_meta_u32(writer, "\xC0\x80", 2);
    if (kind == NO_MATRIX) result = bitstack_writer_matrix(writer, "two", NULL, 1);
    if (kind == NO_DATA) result = bitstack_writer_tensor(writer, "more", BITSTACK_F32, 1, three, NULL);
    if (kind == BAD_TYPE) result = bitstack_writer_tensor(writer, "more", (bitstack_type)9, 1, three, numbers);
    if (kind == BAD_DIMENSIONS) result = bitstack_writer_tensor(writer, "more", BITSTACK_F32, 5, three, numbers);
    if (kind == BAD_META_TYPE) result = bitstack_writer_meta(writer, "more", BITSTACK_META_STRING, numbers, 1);
    if (kind == NO_ELEMENTS) result = bitstack_writer_meta(writer, "more", BITSTACK_META_F32, NULL, 1);
    if (kind == LONG_KEY) result = bitstack_writer_meta_u32(writer, long_key, 1);
    if (kind == NO_STRING) result = bitstack_writer_meta_strings(writer, "more", strings, NULL, 2);
    if (kind == NAN_ERROR) coded.out_err2[1] = NAN, result = bitstack_writer_matrix(writer, "two", &coded, 1);
    if (kind == NOT_ENCODED || kind == NO_BLOCK) {
        bitstack_coded nothing;
        memset(&nothing, 0, sizeof nothing);
        if (kind == NO_BLOCK) nothing.shape = coded.shape;
        result = bitstack_writer_matrix(writer, "two", &nothing, 1);
    }
    build_free(&coded);
    return result;
}

static int there(const char *name) {
    FILE *file = fopen(name, "rb");
    if (file) fclose(file);
    return file != NULL;
}

int main(void) {
    bitstack_writer *writer;
    bitstack_error error;
    bitstack *stack;
    bitstack_coded coded = small();

    TEST("a call that is refused makes all that follow fail, and no file; the one that was there stays");
    for (int kind = -1; kind < KINDS; kind++)
        for (int old = 0; old < 2; old++) {
            remove(path);
            if (old) {
                FILE *file = fopen(path, "wb");
                fputs("old", file), fclose(file);
            }
            memset(&error, 0, sizeof error);
            CHECK(bitstack_writer_open(&writer, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
            CHECK(bitstack_writer_meta_u32(writer, "key", 1) == BITSTACK_OK && bitstack_writer_matrix(writer, "one", &coded, 1) == BITSTACK_OK &&
                  bitstack_writer_tensor(writer, "tensor", BITSTACK_F32, 1, three, numbers) == BITSTACK_OK &&
                  bitstack_writer_tensor(writer, "one", BITSTACK_F32, 1, three, numbers) == BITSTACK_OK && /* a tensor is no matrix */
                  bitstack_writer_meta_f32(writer, "sch\xC3\xB6n \xE2\x82\xAC \xF0\x9F\xA6\x86", 1) == BITSTACK_OK, "what is right");
            if (kind < 0) {
                CHECK(bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
                CHECK(bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK && bitstack_find_matrix(stack, "one") == 0, "%s", error.message);
                bitstack_close(stack);
                continue;
            }
            CHECK(go_wrong(writer, kind) == BITSTACK_ERROR_ARGUMENT, "kind %d is accepted", kind);
            CHECK(bitstack_writer_matrix(writer, "three", &coded, 1) == BITSTACK_ERROR_ARGUMENT, "kind %d: a matrix after it", kind);
            CHECK(bitstack_writer_meta_u32(writer, "four", 1) == BITSTACK_ERROR_ARGUMENT, "kind %d: an entry after it", kind);
            CHECK(bitstack_writer_tensor(writer, "five", BITSTACK_F32, 1, three, numbers) == BITSTACK_ERROR_ARGUMENT, "kind %d: a tensor after it", kind);
            CHECK(bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_ERROR_ARGUMENT && error.code == BITSTACK_ERROR_ARGUMENT &&
                  error.message[0], "kind %d: finished", kind);
            CHECK(there(path) == old, "kind %d: a file %s", kind, old ? "was lost" : "came out");
        }
    CHECK(!there("build/tests/writer.bitstack.part") && !there("build/tests/writer.bitstack.spool"), "files are left");

    TEST("a path that cannot be written to or read is told with the reason, and the handles are NULL");
    {
        writer = (bitstack_writer *)(void *)&coded, stack = (bitstack *)(void *)&coded;
        CHECK(bitstack_writer_open(&writer, "build/no such folder/x", NULL, &error) == BITSTACK_ERROR_IO && !writer, "it opens");
        CHECK(strstr(error.message, "no such folder") && strstr(error.message, "No such file"), "%s", error.message);
        CHECK(bitstack_open_file(&stack, "build/no such file", NULL, &error) == BITSTACK_ERROR_IO && !stack, "it opens");
        CHECK(strstr(error.message, "cannot open") && strstr(error.message, "No such file"), "%s", error.message);
        stack = (bitstack *)(void *)&coded;
        CHECK(bitstack_open_file(&stack, "build/tests", NULL, &error) == BITSTACK_ERROR_IO && !stack, "a folder opens");
        CHECK(strstr(error.message, "irectory") || strstr(error.message, "ermission"), "%s", error.message); /* Windows */
        stack = (bitstack *)(void *)&coded;
        CHECK(bitstack_open_memory(&stack, "BITSTACK", 8, NULL, &error) != BITSTACK_OK && !stack, "eight bytes open");
        bitstack_close(stack);
        CHECK(bitstack_writer_finish(NULL, NULL, 0, &error) == BITSTACK_ERROR_ARGUMENT && bitstack_writer_meta_u32(NULL, "k", 1) == BITSTACK_ERROR_ARGUMENT &&
              bitstack_writer_matrix(NULL, "m", &coded, 1) == BITSTACK_ERROR_ARGUMENT && bitstack_writer_meta_strings(NULL, "k", NULL, NULL, 0) == BITSTACK_ERROR_ARGUMENT &&
              bitstack_writer_tensor(NULL, "t", BITSTACK_F32, 1, three, numbers) == BITSTACK_ERROR_ARGUMENT, "no writer");
        bitstack_writer_abort(NULL);
    }

    TEST("the header's own example is safe where the weights hold NaN or the path is none: an error, no file, no crash");
    for (int what = 0; what < 3; what++) {
        float w[12 * 8];
        bitstack_coded example;
        memset(&example, 0x5A, sizeof example);
        remove(path);
        for (int i = 0; i < 12 * 8; i++) w[i] = (float)(i * 37 % 11) - 5;
        if (what == 1) w[57] = NAN;
        bitstack_writer_open(&writer, what == 2 ? "build/no such folder/x" : path, NULL, NULL);
        bitstack_encode_matrix(&example, w, 12, 8, 8, NULL, NULL);
        bitstack_writer_matrix(writer, "w", &example, 1.0f);
        bitstack_coded_free(&example);
        const bitstack_result result = bitstack_writer_finish(writer, NULL, 0, &error);
        CHECK((result == BITSTACK_OK) == (what == 0) && there(path) == (what == 0), "case %d: %s", what, bitstack_result_string(result));
    }

    TEST("names of 70,000 bytes, and a thousand of them, are written, read, found and reordered");
    {
        static char name[70001];
        bitstack_order_entry order[2 * 1001];
        int entries = 0;
        memset(name, 'n', sizeof name - 1);
        CHECK(bitstack_writer_open(&writer, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_writer_matrix(writer, name, &coded, 1) == BITSTACK_OK && bitstack_writer_tensor(writer, name, BITSTACK_F32, 1, three, numbers) == BITSTACK_OK, "long");
        for (int i = 0; i < 1000; i++) {
            char other[16];
            snprintf(other, sizeof other, "%d", i);
            CHECK(bitstack_writer_matrix(writer, other, &coded, 1) == BITSTACK_OK, "%s", other);
        }
        CHECK(bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
        for (uint32_t m = 1001; m-- > 0;)
            for (uint32_t l = 1; l <= 2; l++) order[entries].matrix = m, order[entries].level = l, order[entries++].score = 0;
        CHECK(bitstack_reorder(path, path, order, (size_t)entries, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_find_matrix(stack, name) == 0 && bitstack_find_tensor(stack, name) == 0 && bitstack_find_matrix(stack, "999") == 1000, "found");
        bitstack_close(stack);
    }

    TEST("a file whose sensitivity is no number is refused: it would decide about blocks");
    {
        size_t bytes = 0;
        CHECK(bitstack_writer_open(&writer, path, NULL, &error) == BITSTACK_OK && bitstack_writer_matrix(writer, "m", &coded, 2) == BITSTACK_OK &&
              bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
        unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
        static const uint32_t bits[4] = {0x40000000u, 0x7FC00000u, 0x7F800000u, 0xBF800000u}; /* 2, NaN, infinity, -1 */
        for (int i = 0; i < 4; i++) {
            uint32_t value = bits[i];
            test_little(&value, 4, 4);
            memcpy(data + 128 + 40, &value, 4);
            test_store64(data + 64, bitstack_checksum(data + 128, (size_t)test_load64(data + 16)));
            test_store64(data + 120, bitstack_checksum(data, 120));
            const bitstack_result result = bitstack_open_memory(&stack, data, bytes, NULL, &error);
            CHECK(result == (i ? BITSTACK_ERROR_FORMAT : BITSTACK_OK) && (i == 0 || error.byte_offset == 128 + 40), "value %d: %s", i, error.message);
            bitstack_close(stack);
        }
        free(data);
    }
    build_free(&coded);
    remove(path);
    TEST("tensors in blocks of eight bits are their own bytes; rows that are no whole blocks are refused");
    {
        const uint64_t shape[2] = {3, 64}, odd[2] = {3, 48}, none[2] = {3, 0};
        unsigned char blocks[3 * 2 * 34];
        bitstack_tensor tensor;
        for (size_t i = 0; i < sizeof blocks; i++) blocks[i] = (unsigned char)(i * 37);
        CHECK(bitstack_writer_open(&writer, path, NULL, &error) == BITSTACK_OK && bitstack_writer_tensor(writer, "eight", BITSTACK_Q8_0, 2, shape, blocks) == BITSTACK_OK &&
              bitstack_writer_tensor(writer, "none", BITSTACK_Q8_0, 2, none, blocks) == BITSTACK_OK &&
              bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
        CHECK(bitstack_get_tensor(stack, 0, &tensor) == BITSTACK_OK && tensor.type == BITSTACK_Q8_0 && tensor.bytes == sizeof blocks && tensor.shape[1] == 64 &&
              memcmp(tensor.data, blocks, sizeof blocks) == 0, "another tensor");
        bitstack_close(stack);
        CHECK(bitstack_writer_open(&writer, path, NULL, &error) == BITSTACK_OK && bitstack_writer_tensor(writer, "odd", BITSTACK_Q8_0, 2, odd, blocks) == BITSTACK_ERROR_ARGUMENT, "rows of 48");
        bitstack_writer_abort(writer);
    }
    return TEST_DONE();
}
