/* A GGUF file is read as its format says, and a bad one ends in one line that says where. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/gguf.h"
#include "../examples/llm/dense.h"

static gguf_maker small_file(uint32_t version) {
    static const uint64_t shape[4] = {32, 3, 2, 1};
    gguf_maker g;
    uint64_t seed = 1;
    make_start(&g, version);
    make_meta_string(&g, "general.architecture", "llama");
    make_meta_u32(&g, "general.alignment", 32);
    make_meta_f32(&g, "a.float", 2.5f);
    make_key(&g, "a.byte", 0), make_raw(&g, "\xC8", 1);
    make_key(&g, "a.signed", 1), make_raw(&g, "\xC8", 1);
    make_key(&g, "a.bool", 7), make_raw(&g, "\1", 1);
    make_key(&g, "a.long", 11), make_u64(&g, (uint64_t)-7);
    make_meta_array(&g, "names", 8, 3);
    make_string(&g, "one"), make_string(&g, ""), make_string(&g, "three");
    make_meta_array(&g, "shorts", 3, 2), make_raw(&g, "\xFE\xFF\x03\x00", 4);
    make_meta_array(&g, "nested", 9, 1), make_u32(&g, 4), make_u64(&g, 2), make_u32(&g, 1), make_u32(&g, 2);
    make_tensor(&g, "f32", 2, shape, 0, 32 * 3 * 4);
    make_tensor(&g, "f16", 3, shape, 1, 32 * 6 * 2);
    make_tensor(&g, "q8_0", 1, shape, 8, 34);
    make_tensor(&g, "bf16", 2, shape, 30, 32 * 3 * 2);
    make_finish(&g);
    float f[96];
    for (int i = 0; i < 96; i++) f[i] = test_normal(&seed);
    make_data(&g, f, sizeof f);
    uint16_t h[192];
    for (int i = 0; i < 192; i++) h[i] = bitstack_f32_to_f16((float)i / 8);
    make_data(&g, h, sizeof h);
    unsigned char q[34] = {0x00, 0x38}; /* scale 0.5 */
    for (int i = 0; i < 32; i++) q[2 + i] = (unsigned char)(i - 16);
    make_data(&g, q, sizeof q);
    for (int i = 0; i < 96; i++) h[i] = (uint16_t)(0x3f80 + i);
    make_data(&g, h, 192);
    return g;
}

/* Opens an exact copy, so that a sanitizer sees any read beyond it; reads everything that it offers. */
static int opens(const unsigned char *data, size_t bytes, llm_error *error) {
    unsigned char *copy = (unsigned char *)malloc(bytes ? bytes : 1);
    llm_source source;
    memcpy(copy, data, bytes);
    error->message[0] = 0;
    int result = llm_gguf_open_memory(&source, copy, bytes, "small.gguf", error);
    if (result == 0) {
        float row[4096];
        volatile double sum = 0;
        for (size_t i = 0; i < source.tensor_count; i++)
            for (uint64_t r = 0; r < llm_tensor_rows(&source.tensors[i]) && llm_tensor_cols(&source.tensors[i]) <= 4096; r++)
                llm_tensor_read(&source.tensors[i], r, 1, row);
        for (size_t i = 0; i < source.meta_count; i++) {
            sum += llm_meta_element(&source.meta[i], 0);
            for (uint64_t j = 0; source.meta[i].strings && j < source.meta[i].count; j++)
                for (size_t k = 0; k < source.meta[i].strings[j].bytes; k++) sum += source.meta[i].strings[j].text[k];
        }
        llm_source_close(&source);
    }
    free(copy);
    return result;
}

static int one_line(const llm_error *error) {
    return strncmp(error->message, "small.gguf: ", 12) == 0 && !strchr(error->message, '\n');
}

static int refuses(gguf_maker *g, const char *words) {
    llm_error error;
    int good = opens(g->data, g->bytes, &error) != 0 && one_line(&error) && strstr(error.message, words);
    if (!good) printf("      message: '%s', expected in it: '%s'\n", error.message, words);
    free(g->data);
    return good;
}

int main(void) {
    llm_error error;
    llm_source s;
    float out[192];

    for (uint32_t version = 2; version <= 3; version++) {
        gguf_maker g = small_file(version);
        TEST(version == 2 ? "version 2 reads back" : "version 3 reads back");
        int opened = llm_gguf_open_memory(&s, g.data, g.bytes, "small.gguf", &error) == 0;
        CHECK(opened, "%s", error.message);
        if (opened) {
            CHECK(s.meta_count == 10 && s.tensor_count == 4, "%zu metadata, %zu tensors", s.meta_count, s.tensor_count);
            CHECK(llm_string_is(llm_text(&s, "general.architecture"), "llama"), "wrong string");
            CHECK(llm_number(&s, "a.float", 0) == 2.5 && llm_number(&s, "a.byte", 0) == 200 &&
                  llm_number(&s, "a.signed", 0) == -56 && llm_number(&s, "a.bool", 0) == 1 &&
                  llm_number(&s, "a.long", 0) == -7 && llm_number(&s, "absent", 9) == 9, "wrong numbers");
            const llm_meta *names = llm_find_meta(&s, "names"), *shorts = llm_find_meta(&s, "shorts");
            CHECK(names->count == 3 && llm_string_is(names->strings[2], "three") && names->strings[1].bytes == 0, "wrong strings");
            CHECK(llm_meta_element(shorts, 0) == -2 && llm_meta_element(shorts, 1) == 3, "wrong array");
            const llm_tensor *t = llm_find_tensor(&s, "f16");
            CHECK(t->dimensions == 3 && t->shape[0] == 2 && t->shape[1] == 3 && t->shape[2] == 32, "wrong shape");
            CHECK(llm_tensor_rows(t) == 6 && llm_tensor_cols(t) == 32, "wrong rows and columns");
            llm_tensor_read(t, 0, 6, out);
            for (int i = 0; i < 192; i++) CHECK(out[i] == (float)i / 8, "f16 element %d is %g", i, (double)out[i]);
            llm_tensor_read(t, 5, 1, out);
            CHECK(out[0] == 20, "row 5 starts with %g", (double)out[0]);
            llm_tensor_read(llm_find_tensor(&s, "q8_0"), 0, 1, out);
            for (int i = 0; i < 32; i++) CHECK(out[i] == 0.5f * (float)(i - 16), "q8_0 element %d is %g", i, (double)out[i]);
            llm_tensor_read(llm_find_tensor(&s, "bf16"), 0, 3, out);
            CHECK(out[0] == 1 && out[1] == 1.0078125f && out[95] == 1.7421875f, "bf16 %g %g %g", (double)out[0], (double)out[1], (double)out[95]);
            uint64_t seed = 1;
            llm_tensor_read(llm_find_tensor(&s, "f32"), 0, 3, out);
            for (int i = 0; i < 96; i++) CHECK(out[i] == test_normal(&seed), "f32 element %d is %g", i, (double)out[i]);
            llm_source_close(&s);
        }
        free(g.data);
    }

    TEST("every half float unpacks exactly, alone and eight at a time");
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t eight[9];
        float to[9], want = bitstack_f16_to_f32((uint16_t)h);
        for (int i = 0; i < 9; i++) eight[i] = (uint16_t)h;
        llm_unpack_f16((const unsigned char *)eight, 9, to);
        CHECK((to[3] == want && to[8] == want && signbit(to[3]) == signbit(want)) ||
              (isnan(want) && isnan(to[3]) && isnan(to[8])), "%04x gives %g and %g", (unsigned)h, (double)to[3], (double)to[8]);
    }

    gguf_maker g = small_file(3);
    TEST("a file cut at any byte is refused in one line with its name");
    for (size_t bytes = 0; bytes < g.bytes; bytes++)
        CHECK(opens(g.data, bytes, &error) != 0 && one_line(&error), "%zu bytes: '%s'", bytes, error.message);

    TEST("any flipped bit gives one line or a file that reads");
    size_t refused = 0;
    for (size_t bit = 0; bit < 8 * g.bytes; bit++) {
        g.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (opens(g.data, g.bytes, &error) != 0) {
            refused++;
            CHECK(one_line(&error), "bit %zu: '%s'", bit, error.message);
        }
        g.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    CHECK(refused > 1000, "only %zu flips were noticed", refused);
    CHECK(opens(g.data, g.bytes, &error) == 0, "the flips were not undone: %s", error.message);
    free(g.data);

    TEST("what is wrong is named with its offset");
    g = small_file(3), memcpy(g.data, "GGUG", 4);
    CHECK(refuses(&g, "offset 0: expected \"GGUF\""), "magic");
    g = small_file(1);
    CHECK(refuses(&g, "offset 4: expected version 2 or 3"), "version");
    g = small_file(0x03000000);
    CHECK(refuses(&g, "little-endian"), "byte order");
    for (int field = 8; field <= 16; field += 8)
        for (int shift = 10; shift < 64; shift++) {
            uint64_t count = (uint64_t)1 << shift;
            g = small_file(3), memcpy(g.data + field, &count, 8);
            CHECK(refuses(&g, "announced"), "count %d of 2^%d", field, shift);
        }
    static const uint64_t huge[4] = {1u << 31, 1u << 31, 8, 1}, odd[1] = {33}, empty[2] = {8, 0}, good[1] = {8};
    make_start(&g, 3), make_tensor(&g, "huge", 3, huge, 0, 0), make_finish(&g);
    CHECK(refuses(&g, "does not overflow"), "product of dimensions");
    make_start(&g, 3), make_tensor(&g, "huge", 2, huge, 0, 0), make_finish(&g);
    CHECK(refuses(&g, "'huge'"), "size of a tensor");
    make_start(&g, 3), make_tensor(&g, "none", 2, empty, 0, 0), make_finish(&g);
    CHECK(refuses(&g, "dimensions from 1"), "dimension 0");
    make_start(&g, 3), make_tensor(&g, "odd", 1, odd, 8, 0), make_finish(&g);
    CHECK(refuses(&g, "multiple of 32"), "Q8_0 row");
    make_start(&g, 3), make_tensor(&g, "a\nb", 1, good, 99, 0), make_finish(&g);
    CHECK(refuses(&g, "'a?b' has type 99"), "type");
    make_start(&g, 3), g.next = 8, make_tensor(&g, "t", 1, good, 0, 32), make_finish(&g), make_data(&g, out, 64);
    CHECK(refuses(&g, "multiple of 32"), "offset of a tensor");
    make_start(&g, 3), make_meta_u32(&g, "general.alignment", 24), make_finish(&g);
    CHECK(refuses(&g, "power of two"), "alignment");
    make_start(&g, 3), make_key(&g, "k", 13), make_finish(&g);
    CHECK(refuses(&g, "value type"), "type of a value");
    make_start(&g, 3);
    for (int i = 0; i < 60000; i++) make_u32(&g, 9), make_u64(&g, 1); /* arrays in arrays without end */
    memcpy(g.data + 16, "\1\0\0\0\0\0\0\0", 8), memcpy(g.data + 24, "\0\0\0\0\0\0\0\0\11\0\0\0", 12);
    CHECK(refuses(&g, "expected"), "nesting");

    TEST("tensors that share their data are refused");
    for (int shared = 0; shared < 2; shared++) {
        make_start(&g, 3);
        for (int i = 0; i < 4; i++) {
            if (shared) g.next = 0;
            make_tensor(&g, (const char *[]){"a", "b", "c", "d"}[i], 1, good, 0, 32);
        }
        make_finish(&g), make_data(&g, out, 4 * 32);
        if (shared) g.bytes -= 64; /* room for two */
        if (shared) CHECK(refuses(&g, "expected tensors that do not overlap, up to 'c'"), "shared");
        else {
            CHECK(opens(g.data, g.bytes, &error) == 0, "%s", error.message);
            free(g.data);
        }
    }

    TEST("a missing, an empty and a foreign file are named");
    CHECK(llm_gguf_open(&s, "no/such.gguf", &error) != 0 && strstr(error.message, "no/such.gguf: "), "%s", error.message);
    CHECK(llm_source_open(&s, "Makefile", NULL, &error) != 0 && strstr(error.message, "Makefile: offset 0: expected"), "%s", error.message);
    CHECK(llm_gguf_open(&s, "/dev/null", &error) != 0, "opened nothing");

    TEST("the demo model opens");
    CHECK(llm_gguf_open(&s, "examples/models/books-6m-f16.gguf", &error) == 0, "%s", error.message);
    if (!test_bad_) {
        uint64_t parameters = 0;
        for (size_t i = 0; i < s.tensor_count; i++) parameters += llm_tensor_rows(&s.tensors[i]) * llm_tensor_cols(&s.tensors[i]);
        CHECK(parameters == 5770496, "%llu parameters", (unsigned long long)parameters);
        llm_source_close(&s);
    }
    return TEST_DONE();
}
