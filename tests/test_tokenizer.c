/* Text becomes the ids that SentencePiece gives, and comes back; JSON is read strictly. */
#include "test.h"
#include "../examples/llm/gguf.h"
#include "../examples/llm/hf.h"
#include "../examples/llm/json.h"
#include "../examples/llm/tokenizer.h"

static char *decode(const llm_tokenizer *t, const uint32_t *ids, int64_t count, size_t *bytes) {
    char *text = (char *)malloc((size_t)count * 64 + 1);
    *bytes = 0;
    for (int64_t i = 0; i < count; i++) *bytes += llm_token_text(t, ids[i], i == 0, text + *bytes, 64);
    text[*bytes] = 0;
    return text;
}

static int parses(const char *text, size_t bytes) {
    llm_json json;
    llm_error error;
    char *copy = (char *)malloc(bytes ? bytes : 1); /* exact, so that a sanitizer sees reads beyond it */
    memcpy(copy, text, bytes);
    int result = llm_json_parse(&json, copy, bytes, "t.json", &error);
    if (result == 0) llm_json_free(&json);
    free(copy);
    return result == 0;
}

/* A tokenizer of `count` pieces with scores; types NULL: all normal. The source is to be closed in any case. */
static int made(llm_source *s, llm_tokenizer *t, const char *kind, const llm_string *pieces, const float *scores, const int32_t *types,
                size_t count, llm_error *error) {
    llm_string name = {kind, strlen(kind)}, *copy = (llm_string *)malloc(count * sizeof *copy);
    memcpy(copy, pieces, count * sizeof *copy);
    memset(s, 0, sizeof *s);
    memset(error, 0, sizeof *error);
    s->path = strdup("made.gguf");
    if (llm_add_text(s, "tokenizer.ggml.model", name) || llm_add_strings(s, "tokenizer.ggml.tokens", copy, count) ||
        llm_add_numbers(s, "tokenizer.ggml.scores", LLM_F32, scores, count) ||
        (types && llm_add_numbers(s, "tokenizer.ggml.token_type", LLM_I32, types, count))) return -1;
    return llm_tokenizer_load(t, s, error);
}

int main(void) {
    llm_source source;
    llm_error error;
    llm_tokenizer t;
    uint32_t *ids;

    TEST("JSON: what RFC 8259 allows is read");
    static const char *good[] = {"0", " [ ] ", "{}", "-0.5e+3", "\"\\u00e9\\ud83d\\ude00\\n\"", "[1,[2,{\"a\":null}],true,false]",
                                 "{\"a\":1,\"b\":[{}]}", "1E9", "\"\x7f\""};
    static const char *bad[] = {"", "[", "{", "[1,]", "{\"a\":1,}", "{a:1}", "01", "+1", "1.", ".5", "1e", "nan", "NaN", "Infinity",
                                "tru", "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"a\nb\"", "[1 2]",
                                "{\"a\" 1}", "1 2", "[]]", "'a'", "\\", "{1:2}", "nul", "-", "\"\\"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(parses(good[i], strlen(good[i])), "refused: %s", good[i]);
    TEST("JSON: anything else is refused");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!parses(bad[i], strlen(bad[i])), "accepted: %s", bad[i]);
    char deep[4000];
    memset(deep, '[', sizeof deep);
    CHECK(!parses(deep, sizeof deep), "accepted 4000 brackets");
    memset(deep, '1', 64);
    CHECK(parses(deep, 63) && !parses(deep, 64), "63 digits are read whole, 64 are not read");
    CHECK(!parses("1\0", 2) && !parses("\"a\0\"", 4), "accepted a NUL");
    TEST("JSON: values, members and offsets are right");
    llm_json json;
    static const char text[] = "{\"n\": -12.5, \"list\": [1, [2, 3], \"x\\u00e9\"], \"last\": {\"k\": true}}";
    CHECK(llm_json_parse(&json, text, strlen(text), "t.json", &error) == 0, "%s", error.message);
    if (!test_bad_) {
        size_t n = llm_json_member(&json, 0, "n"), list = llm_json_member(&json, 0, "list"), last = llm_json_member(&json, 0, "last");
        CHECK(n && json.values[n].number == -12.5, "n");
        CHECK(list && json.values[list].count == 3, "list");
        size_t third = list + 1 + json.values[list + 1].skip;
        third += json.values[third].skip;
        CHECK(llm_string_is(json.values[third].string, "x\xC3\xA9"), "list[2]");
        CHECK(last && json.values[llm_json_member(&json, last, "k")].number == 1, "last.k");
        CHECK(llm_json_member(&json, 0, "none") == 0, "found what is not there");
        llm_json_free(&json);
    }
    CHECK(llm_json_parse(&json, "[1, x]", 6, "t.json", &error) != 0 && strcmp(error.message, "t.json: offset 4: expected a digit") == 0,
          "%s", error.message);

    if (llm_gguf_open(&source, "examples/models/books-6m-f16.gguf", &error) != 0 || llm_tokenizer_load(&t, &source, &error) != 0) {
        TEST("the demo model's tokenizer loads");
        CHECK(0, "%s", error.message);
        return TEST_DONE();
    }

    TEST("texts give SentencePiece's ids");
    size_t bytes = 0;
    char *cases = (char *)test_read_file(test_shared("models/tokenizer_cases.json"), &bytes);
    if (!cases) SKIP("no tokenizer_cases.json in ../shared/models");
    else {
        CHECK(llm_json_parse(&json, cases, bytes, "tokenizer_cases.json", &error) == 0, "%s", error.message);
        size_t at = 1;
        for (size_t i = 0; !test_bad_ && i < json.values[0].count; i++, at += json.values[at].skip) {
            llm_string string = json.values[llm_json_member(&json, at, "text")].string;
            size_t list = llm_json_member(&json, at, "ids");
            int64_t count = llm_encode(&t, string.text, string.bytes, &ids);
            CHECK(count == (int64_t)json.values[list].count, "case %zu: %lld ids", i, (long long)count);
            for (int64_t j = 0; j < count && j < (int64_t)json.values[list].count; j++)
                CHECK(ids[j] == json.values[list + 1 + (size_t)j].number, "case %zu, id %lld: %u", i, (long long)j, ids[j]);
            free(ids);
        }
        CHECK(json.values[0].count >= 10, "%zu cases", json.values[0].count);
        llm_json_free(&json);
        free(cases);
    }

    TEST("any bytes come back from their ids");
    uint64_t seed = 7;
    for (int round = 0; round < 2000; round++) {
        char in[80];
        size_t length = test_random(&seed) % 80;
        for (size_t i = 0; i < length; i++)
            in[i] = round % 3 == 0 ? (char)test_random(&seed) : round % 3 == 1 ? "abcd"[test_random(&seed) % 4] : " e\xE2\x96\x82t"[test_random(&seed) % 6];
        int64_t count = llm_encode(&t, in, length, &ids);
        char *back = count >= 0 ? decode(&t, ids, count, &bytes) : NULL;
        CHECK(back && bytes == length && memcmp(back, in, length) == 0, "round %d: %zu bytes became %zu", round, length, bytes);
        free(back), free(ids);
    }

    TEST("marks have no text and short room is kept");
    char out[4];
    CHECK(llm_token_text(&t, (uint32_t)t.bos, 0, out, 4) == 0 && llm_token_text(&t, 1u << 30, 0, out, 4) == 0, "text of a mark");
    for (uint32_t i = 0; i < t.count; i++) CHECK(llm_token_text(&t, i, 0, out, 2) <= 2, "piece %u is too long", i);

    TEST("a source without a tokenizer is refused by name");
    llm_source nothing;
    llm_tokenizer none;
    memset(&nothing, 0, sizeof nothing);
    nothing.path = (char *)(uintptr_t)"bare.gguf";
    CHECK(llm_tokenizer_load(&none, &nothing, &error) != 0 && strstr(error.message, "bare.gguf: expected tokenizer.ggml.model"), "%s", error.message);

    TEST("scores that are not finite are refused in one line: no cut would be the best");
    static const llm_string letters[3] = {{"a", 1}, {"b", 1}, {"ab", 2}};
    static const char *const kinds[2] = {"t5", "llama"};
    for (int i = 0; i < 6; i++) {
        const float wrong[3] = {NAN, -INFINITY, INFINITY};
        float scores[3] = {-1, -1, -1};
        llm_source s;
        scores[i % 2] = wrong[i / 2];
        for (int k = 0; k < 2; k++) {
            int opened = made(&s, &none, kinds[k], letters, scores, NULL, 3, &error) == 0;
            CHECK(!opened && strstr(error.message, "made.gguf: expected tokenizer.ggml.scores that are finite") == error.message && !strchr(error.message, '\n'),
                  "%s, %g: '%s'", kinds[k], (double)wrong[i / 2], error.message);
            if (opened) llm_tokenizer_free(&none);
            llm_source_close(&s);
        }
    }
    static const char *const values[3] = {"-1e999", "1e39", "-1"};
    for (int i = 0; i < 3; i++) {
        char unigram[200];
        llm_source s;
        memset(&s, 0, sizeof s);
        snprintf(unigram, sizeof unigram, "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"u\",0],[\"a\",%s]]}}", values[i]);
        int opened = llm_hf_tokenizer(&s, unigram, strlen(unigram), "t.json", &error) == 0;
        CHECK(opened == (i == 2) && (opened || strstr(error.message, "finite")), "%s: %s", values[i], opened ? "opened" : error.message);
        llm_source_close(&s);
    }

    TEST("text is cut at the longest mark at each place; those that only templates may write are left alone in others");
    enum { MARKS = 60 };
    for (int round = 0; round < 40; round++) {
        static char texts[MARKS + 2][8];
        static float zeros[MARKS + 2];
        llm_string pieces[MARKS + 2];
        int32_t types[MARKS + 2];
        llm_source s;
        char in[64];
        for (int i = 0; i < MARKS + 2; i++) { /* the letters, then marks of them */
            pieces[i].text = texts[i], pieces[i].bytes = i < 2 ? 1 : 1 + test_random(&seed) % 6;
            for (int k = 0; k < 8; k++) texts[i][k] = i < 2 ? "ex"[i] : "ex"[test_random(&seed) % 2];
            types[i] = i < 2 ? 1 : test_random(&seed) % 2 ? 3 : 4;
        }
        int opened = made(&s, &none, "t5", pieces, zeros, types, MARKS + 2, &error) == 0;
        CHECK(opened, "%s", error.message);
        none.add_space = 0;
        for (size_t i = 0; i < sizeof in; i++) in[i] = "ex"[test_random(&seed) % 2];
        for (int all = 0; all < 2 && opened; all++) {
            int64_t count = (all ? llm_encode_marked : llm_encode)(&none, in, sizeof in, &ids), at = 0;
            for (size_t place = 0; place < sizeof in && at < count; at++) {
                size_t longest = 0;
                for (int i = 2; i < MARKS + 2; i++)
                    if ((all || types[i] == 4) && pieces[i].bytes > longest && pieces[i].bytes <= sizeof in - place && !memcmp(in + place, texts[i], pieces[i].bytes))
                        longest = pieces[i].bytes;
                const uint32_t id = ids[at];
                CHECK(pieces[id].bytes == (longest ? longest : 1) && memcmp(in + place, texts[id], pieces[id].bytes) == 0 &&
                      (longest ? id > 1 && (all || types[id] == 4) : id < 2), "round %d, place %zu: piece %u, the longest mark has %zu bytes", round, place, id, longest);
                place += pieces[id].bytes;
            }
            free(ids);
        }
        if (opened) llm_tokenizer_free(&none);
        llm_source_close(&s);
    }

    TEST("pieces that are looked for at every byte have at most 1024 of them");
    char *long_text = (char *)malloc(1025);
    memset(long_text, 'e', 1025);
    for (int i = 0; i < 6; i++) { /* unigram pieces, marks, and pieces that merge, whose length costs nothing */
        llm_string pieces[2] = {{"a", 1}, {long_text, 1024 + (size_t)i % 2}};
        const int32_t types[2] = {1, i / 2 == 1 ? 3 : 1};
        const float scores[2] = {0, 0};
        llm_source s;
        int opened = made(&s, &none, kinds[i / 2 > 0], pieces, scores, types, 2, &error) == 0;
        CHECK(opened == (i % 2 == 0 || i / 2 == 2) && (opened || strstr(error.message, "of at most 1024 bytes, number 1 has 1025")), "%d: '%s'", i, error.message);
        if (opened) llm_tokenizer_free(&none);
        llm_source_close(&s);
    }
    free(long_text);

    llm_tokenizer_free(&t);
    llm_source_close(&source);
    return TEST_DONE();
}
