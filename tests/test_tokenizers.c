/* Texts become the ids, and are cut into the words, that the tokenizers library gives for the same tokenizer.json.
 * tests/tokenizers has small ones of each kind and cases.json, made with that library (0.23). Another file of cases
 * may be named on the command line. */
#include "test.h"
#include "../examples/llm/hf.h"
#include "../examples/llm/json.h"
#include "../examples/llm/tokenizer.h"

static const char *const kinds[] = {"gpt2", "llama3", "qwen2", "smollm", "llama2", "unigram"};
enum { KINDS = 6 };

static int load(const char *kind, llm_source *source, llm_tokenizer *t) {
    char path[300];
    size_t bytes = 0;
    llm_error error = {"cannot be read"};
    snprintf(path, sizeof path, "tests/tokenizers/%s.json", kind);
    char *text = (char *)test_read_file(path, &bytes);
    memset(source, 0, sizeof *source);
    source->path = strdup(path);
    int good = text && llm_hf_tokenizer(source, text, bytes, path, &error) == 0 && llm_tokenizer_load(t, source, &error) == 0;
    if (!good) printf("      %s: %s\n", path, error.message);
    free(text);
    return good;
}

/* Compares an array of numbers in JSON with what was found. */
static int same(const llm_json *json, size_t list, const uint32_t *got, int64_t count, const char *what, llm_string text) {
    int good = list && count == (int64_t)json->values[list].count;
    for (int64_t i = 0; good && i < count; i++) good = json->values[list + 1 + (size_t)i].number == got[i];
    if (good) return 1;
    printf("      %s of '%.*s':", what, (int)text.bytes, text.text);
    for (int64_t i = 0; i < count; i++) printf(" %u", got[i]);
    printf("\n      expected:");
    for (size_t i = 0; list && i < json->values[list].count; i++) printf(" %g", json->values[list + 1 + i].number);
    printf("\n");
    return 0;
}

int main(int argc, char **argv) {
    llm_source sources[KINDS];
    llm_tokenizer tokenizers[KINDS];
    llm_json json;
    llm_error error;
    size_t bytes = 0;
    uint32_t *ids;

    TEST("every kind of tokenizer.json is read");
    for (int k = 0; k < KINDS; k++)
        if (!load(kinds[k], &sources[k], &tokenizers[k])) {
            CHECK(0, "%s", kinds[k]);
            return TEST_DONE();
        }
    CHECK(tokenizers[1].add_bos && tokenizers[1].pieces[tokenizers[1].bos].text[0] == '<' && !tokenizers[2].add_bos && tokenizers[4].add_bos &&
          tokenizers[4].bos == 1 && tokenizers[4].unknown == 0, "begin marks");
    char *text = (char *)test_read_file(argc > 1 ? argv[1] : "tests/tokenizers/cases.json", &bytes);
    if (!text || llm_json_parse(&json, text, bytes, "cases.json", &error) != 0) {
        CHECK(0, "%s", text ? error.message : "no cases");
        return TEST_DONE();
    }
    TEST("words are cut where the patterns say");
    for (size_t c = 0, at = 1; c < json.values[0].count; c++, at += json.values[at].skip) {
        llm_string string = json.values[llm_json_member(&json, at, "text")].string;
        size_t words = llm_json_member(&json, at, "words");
        for (int k = 0; k < 4; k++) {
            uint32_t lengths[2000];
            int64_t count = 0;
            for (size_t from = 0; from < string.bytes; from += lengths[count++])
                lengths[count] = (uint32_t)llm_word(tokenizers[k].words, string.text + from, string.bytes - from);
            CHECK(same(&json, llm_json_member(&json, words, kinds[k]), lengths, count, kinds[k], string), "words");
        }
    }
    TEST("texts become the expected ids");
    for (size_t c = 0, at = 1; c < json.values[0].count; c++, at += json.values[at].skip) {
        llm_string string = json.values[llm_json_member(&json, at, "text")].string;
        size_t lists = llm_json_member(&json, at, "ids"), marked = llm_json_member(&json, at, "marked");
        for (int k = 0; k < KINDS; k++) {
            int64_t count = (marked ? llm_encode_marked : llm_encode)(&tokenizers[k], string.text, string.bytes, &ids);
            CHECK(same(&json, llm_json_member(&json, lists, kinds[k]), ids, count, kinds[k], string), "ids");
            free(ids);
        }
    }
    CHECK(json.values[0].count > 50, "%zu cases", json.values[0].count);

    TEST("any bytes come back from their ids");
    uint64_t seed = 3;
    for (int round = 0; round < 3000; round++) {
        static const char some[] = " \n'sthe12.\xE2\x96\x81\xC3\xA9\xE6\xB5\xB7<|>\xF0\x9F\x98\x80";
        char in[60], back[600];
        size_t length = 1 + test_random(&seed) % 59, used = 0;
        for (size_t i = 0; i < length; i++) in[i] = round % 2 ? some[test_random(&seed) % (sizeof some - 1)] : (char)test_random(&seed);
        const llm_tokenizer *t = &tokenizers[round % 5]; /* not unigram, which has no bytes */
        int64_t count = llm_encode(t, in, length, &ids);
        for (int64_t i = 0; i < count; i++) used += llm_token_text(t, ids[i], i == 0, back + used, 60);
        size_t mark = 0; /* SentencePiece's mark of spaces is no other character than itself, when it comes in */
        for (size_t i = 0; round % 5 == 4 && i + 3 <= length; i++) mark |= memcmp(in + i, "\xE2\x96\x81", 3) == 0;
        CHECK(mark || (count >= 0 && used == length && memcmp(back, in, length) == 0), "round %d (%s): %zu bytes became %zu", round, kinds[round % 5], length, used);
        free(ids);
    }

    TEST("marks are text unless asked for");
    int64_t end = llm_token_named(&tokenizers[2], "<|im_end|>"), call = llm_token_named(&tokenizers[2], "<tool_call>");
    CHECK(end > 0 && call > 0 && llm_token_named(&tokenizers[2], "<|none|>") < 0, "named %lld %lld", (long long)end, (long long)call);
    CHECK(llm_encode_marked(&tokenizers[2], "<|im_end|>", 10, &ids) == 1 && ids[0] == end, "not one id");
    free(ids);
    CHECK(llm_encode(&tokenizers[2], "<|im_end|>", 10, &ids) > 1, "a mark out of plain text");
    free(ids);
    CHECK(llm_encode(&tokenizers[2], "<tool_call>", 11, &ids) == 1 && ids[0] == call, "not one id");
    free(ids);

    TEST("a long text of one word takes little time");
    char *many = (char *)malloc(1000000);
    for (int i = 0; i < 1000000; i++) many[i] = "thei"[i % 4];
    for (int k = 0; k < KINDS; k++) {
        CHECK(llm_encode(&tokenizers[k], many, 1000000, &ids) > 0, "no ids");
        free(ids);
        memset(many, k % 2 ? ' ' : '\n', 1000000);
    }
    free(many);

    TEST("tokenizers that are not known or not whole end in one line");
    char *good = (char *)test_read_file("tests/tokenizers/llama3.json", &bytes), *bad = (char *)malloc(bytes + 200);
    static const struct { const char *from, *to, *words; } edits[] = {
        {"\"BPE\"", "\"WordPiece\"", "WordPiece"}, {"{1,3}", "{1,4}", "cut words"}, {"\"Isolated\"", "\"Removed\"", "cut words"},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}", "normalizer"}, {"\"vocab\":{", "\"vocab\":[{", "offset"},
        {"\"vocab\":{", "\"vocab\":7,\"v\":{", "\"vocab\""}, {"\"!\":33", "\"!\":-1", "ids"}, {"\"!\":33", "\"!\":99999999", "ids"},
        {"\"!\":33", "\"!\":\"0\"", "ids"}, {"\"merges\":[", "\"merges\":[[\"q\",\"\"],", "merges"}, {"\"merges\":[", "\"merges\":[[\"q\",\"q\"],", "merges"},
        {"\"merges\":[", "\"merges\":[1,", "merges"}, {"\"merges\":", "\"m\":", "merges"}, {"\"content\":\"<|eot_id|>\"", "\"content\":1", "content"}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *at = strstr(good, edits[i].from);
        CHECK(at != NULL, "no %s", edits[i].from);
        if (!at) continue;
        sprintf(bad, "%.*s%s%s", (int)(at - good), good, edits[i].to, at + strlen(edits[i].from));
        llm_source s;
        llm_tokenizer t;
        memset(&s, 0, sizeof s);
        s.path = strdup("t.json");
        int opened = llm_hf_tokenizer(&s, bad, strlen(bad), "t.json", &error) == 0 && llm_tokenizer_load(&t, &s, &error) == 0;
        CHECK(!opened && strncmp(error.message, "t.json: ", 8) == 0 && strstr(error.message, edits[i].words) && !strchr(error.message, '\n'), "%s: '%s'",
              edits[i].to, opened ? "opened" : error.message);
        if (opened) llm_tokenizer_free(&t);
        llm_source_close(&s);
    }
    free(good), free(bad), free(text);
    llm_json_free(&json);
    for (int k = 0; k < KINDS; k++) llm_tokenizer_free(&tokenizers[k]), llm_source_close(&sources[k]);
    return TEST_DONE();
}
