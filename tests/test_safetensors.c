/* safetensors files read back, and hostile ones end in one line. */
#include "test.h"
#include "../examples/llm/safetensors.h"

static unsigned char file[1 << 16];

/* A file of this header and this many bytes of data (0, 1, 2 ...). */
static size_t make(const char *header, size_t data) {
    size_t length = strlen(header);
    uint64_t announced = length;
    memcpy(file, &announced, 8);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data; i++) file[8 + length + i] = (unsigned char)i;
    return 8 + length + data;
}

/* From memory that ends where the file does, so that a sanitizer sees reads beyond it. */
static int opens(size_t bytes, llm_error *error) {
    llm_safetensors s;
    unsigned char *copy = (unsigned char *)malloc(bytes ? bytes : 1);
    memcpy(copy, file, bytes);
    error->message[0] = 0;
    int result = llm_safetensors_open_memory(&s, copy, bytes, "t.safetensors", error);
    if (result == 0) llm_safetensors_close(&s);
    free(copy);
    return result == 0;
}

static int refuses(const char *header, size_t data, const char *words) {
    llm_error error;
    int opened = opens(make(header, data), &error);
    int good = !opened && strncmp(error.message, "t.safetensors: ", 15) == 0 && strstr(error.message, words) && !strchr(error.message, '\n');
    if (!good) printf("      %.100s: '%s', expected '%s'\n", header, opened ? "opened" : error.message, words);
    return good;
}

int main(void) {
    static const char small[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                                "\"a\\u00e9\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"none\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[20,20]},"
                                "\"one\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[20,28]}}   ";
    llm_safetensors s;
    llm_error error;

    TEST("names, types, shapes and data read back");
    size_t bytes = make(small, 28);
    CHECK(llm_safetensors_open_memory(&s, file, bytes, "t.safetensors", &error) == 0, "%s", error.message);
    if (!test_bad_) {
        const llm_safetensor *a = llm_safetensors_find(&s, "a\xC3\xA9"), *b = llm_safetensors_find(&s, "b"), *one = llm_safetensors_find(&s, "one");
        CHECK(s.count == 4 && a && b && one && !llm_safetensors_find(&s, "__metadata__"), "%zu tensors", s.count);
        CHECK(a && a->data[0] == 0 && a->bytes == 8 && a->dimensions == 1 && a->shape[0] == 2 && llm_string_is(a->dtype, "F32"), "a");
        CHECK(b && b->data[0] == 8 && b->bytes == 12 && b->dimensions == 2 && b->shape[0] == 2 && b->shape[1] == 3 && b->shape[2] == 1, "b");
        CHECK(one && one->data[0] == 20 && one->dimensions == 0 && one->bytes == 8, "one");
        llm_safetensors_close(&s);
    }

    TEST("a file cut at any byte is refused");
    for (size_t cut = 0; cut < bytes; cut++) {
        make(small, 28);
        CHECK(!opens(cut, &error) && error.message[0] && !strchr(error.message, '\n'), "%zu bytes opened", cut);
    }
    TEST("any flipped bit gives one line or a file that reads");
    make(small, 28);
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        file[bit / 8] ^= (unsigned char)(1 << bit % 8);
        CHECK(opens(bytes, &error) || (error.message[0] && !strchr(error.message, '\n')), "bit %zu: '%s'", bit, error.message);
        file[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }

    TEST("hostile headers are refused");
#define ONE(dtype, shape, offsets) "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    CHECK(opens(make(ONE("\"F32\"", "[2,2]", "[0,16]"), 16), &error), "%s", error.message);
    CHECK(refuses(ONE("\"F32\"", "[2,2]", "[0,16]"), 17, "follow each other"), "a byte too many");
    CHECK(refuses(ONE("\"F32\"", "[2,2]", "[0,16]"), 15, "'x'"), "beyond the end");
    CHECK(refuses(ONE("\"F32\"", "[2,3]", "[0,16]"), 16, "'x'"), "size and shape");
    CHECK(refuses(ONE("\"F31\"", "[4]", "[0,16]"), 16, "dtype"), "type");
    CHECK(refuses(ONE("\"F32\"", "[4294967296,4294967296,4294967296]", "[0,0]"), 0, "'x'"), "overflow");
    CHECK(refuses(ONE("\"F32\"", "[0,4294967296,9007199254740992,3]", "[0,16]"), 16, "'x'"), "zero times much");
    CHECK(refuses(ONE("\"F32\"", "[-4]", "[0,16]"), 16, "'x'"), "negative");
    CHECK(refuses(ONE("\"F32\"", "[4.5]", "[0,18]"), 18, "'x'"), "fraction");
    CHECK(refuses(ONE("\"F32\"", "[4]", "[16,0]"), 16, "'x'"), "backwards");
    CHECK(refuses(ONE("\"F32\"", "[4]", "[-16,0]"), 16, "'x'"), "before the start");
    CHECK(refuses(ONE("\"F32\"", "[4]", "[0,16,16]"), 16, "'x'"), "three offsets");
    CHECK(refuses(ONE("\"F32\"", "[1,1,1,1,4]", "[0,16]"), 16, "'x'"), "five dimensions");
    CHECK(refuses(ONE("\"F32\"", "4", "[0,16]"), 16, "'x'"), "shape");
    CHECK(refuses(ONE("\"F32\"", "[[4]]", "[0,16]"), 16, "'x'"), "nested shape");
    CHECK(refuses(ONE("7", "[4]", "[0,16]"), 16, "'x'"), "dtype is a number");
    CHECK(refuses("{\"x\":7}", 0, "'x'") && refuses("{\"x\":[]}", 0, "'x'") && refuses("{\"x\":{}}", 0, "'x'"), "no description");
    CHECK(refuses("{\"x\":", 0, "expected") && refuses("[]", 0, "'{'") && refuses("", 4, "'{'"), "JSON");
    CHECK(refuses("{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6, "follow"), "overlap");
    CHECK(refuses("{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[6,10]}}", 10, "follow"), "hole");
    for (int shift = 6; shift < 64; shift++) {
        uint64_t announced = (uint64_t)1 << shift;
        size_t all = make("{}", 20);
        memcpy(file, &announced, 8);
        CHECK(!opens(all, &error) && strstr(error.message, "offset 0"), "header of 2^%d bytes: %s", shift, error.message);
    }
    return TEST_DONE();
}
