/* Texts become the ids, and are cut into the words, that the tokenizers library gives for the same tokenizer.json.
 * tests/tokenizers has small ones of each kind and cases.json, made with that library (0.23). Another file of cases
 * may be named on the command line. */
#include "test.h"
#include "../examples/llm/hf.h"
#include "../examples/llm/json.h"
#include "../examples/llm/tokenizer.h"

/* Whether the text's words have the lengths of a list. */
static int cut_as(const llm_cuts *cuts, const llm_json *json, size_t list, llm_string text) {
    uint32_t lengths[400];
    size_t ends[LLM_MOST_CUTS] = {0};
    int64_t count = 0;
    for (size_t at = 0; at < text.bytes && count < 400; at += lengths[count++])
        lengths[count] = (uint32_t)(llm_cut(cuts, text.text, text.bytes, at, ends) - at);
    int good = list && count == (int64_t)json->values[list].count;
    for (int64_t i = 0; good && i < count; i++) good = json->values[list + 1 + (size_t)i].number == lengths[i];
    return good;
}

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
            size_t ends[LLM_MOST_CUTS] = {0};
            int64_t count = 0;
            for (size_t from = 0; from < string.bytes; from += lengths[count++])
                lengths[count] = (uint32_t)(llm_cut(&tokenizers[k].cuts, string.text, string.bytes, from, ends) - from);
            CHECK(same(&json, llm_json_member(&json, words, kinds[k]), lengths, count, kinds[k], string), "words");
        }
    }
    TEST("every name of a way to cut words cuts as the tokenizers library does");
    llm_json words;
    char *golden = (char *)test_read_file("tests/tokenizers/cuts.json", &bytes);
    int read = golden && llm_json_parse(&words, golden, bytes, "cuts.json", &error) == 0;
    size_t list = read ? llm_json_member(&words, 0, "words") : 0, texts = read ? llm_json_member(&words, 0, "texts") : 0;
    CHECK(list && texts && words.values[list].count >= 17, "%s", error.message);
    for (size_t i = 0, at = list + 1; list && i < words.values[list].count; i++, at += 1 + words.values[at + 1].skip) {
        llm_cuts cuts;
        CHECK(llm_cuts_named(&cuts, words.values[at].string) == 0, "%.*s is not known", (int)words.values[at].string.bytes, words.values[at].string.text);
        for (size_t t = 0, of = at + 2; t < words.values[at + 1].count; t++, of += words.values[of].skip)
            CHECK(cut_as(&cuts, &words, of, words.values[texts + 1 + t].string), "%.*s, text %zu", (int)words.values[at].string.bytes, words.values[at].string.text, t);
        llm_cuts_free(&cuts);
    }
    if (read) llm_json_free(&words);
    free(golden);

    TEST("regular expressions match as they say, and what is not known is refused");
    static const struct { const char *pattern, *text; int length; } matches[] = {
        {"a|ab", "ab", 1}, {"(?:a|ab)c", "abc", 3}, {"[^a-c]+", "xyza", 3}, {"\\p{Lu}\\p{Ll}*", "\xC3\x89t\xC3\xA9!", 5}, {"(?i:'ll|'S)", "'lL", 3},
        {"(?i:s)", "\xC5\xBF", 2}, {"x(?=y)", "xy", 1}, {"x(?=y)", "xz", 0}, {"x(?!y)", "xy", 0}, {"a{2,3}", "aaaa", 3}, {"a{2,}b", "aaaab", 5},
        {"a{3}", "aa", 0}, {"(?:ab){2,3}", "abababab", 6}, {"(?:ab)*c", "ababc", 5}, {"(?:ab)+c", "c", 0}, {"(?:ab)?c", "c", 1}, {"a++a", "aaa", 0},
        {"a+a", "aaa", 3}, {"[\\]x-]+", "]x-", 3}, {"\\x41\\u00e9\\x{1F600}", "A\xC3\xA9\xF0\x9F\x98\x80", 7}, {"\\S+", "ab c", 2},
        {"\\d+|\\D", "\xD9\xA3\xD9\xA4x", 4}, {".+", "ab\nc", 2}, {"b$", "b", 1}, {"b$", "bc", 0}, {"((a|b)(c|d)){1,2}e", "acbde", 5},
        {"[\\p{L}--]+", "a-", 2}, {"\xE6\xB5\xB7+", "\xE6\xB5\xB7\xE6\xB5\xB7x", 6}, {"(a|)b", "b", 1}, {"[^\\s]", "\xFF", 1}, {"\\PL", "1", 1}};
    static const char *const refused[] = {"(", ")", "[a", "a**", "a*?", "(?<=a)b", "\\1", "\\p{Han}", "\\b", "^a", "[a&&b]", "(a*)*", "a{2", "a{3,2}", "*", "\\", "[b-a]",
                                          "(?i:\xC3\xA9)", "[[:alpha:]]", "(?>a)", "a{1,99999}b|((((((((((((((((((a))))))))))))))))))"};
    for (size_t i = 0; i < sizeof matches / sizeof *matches; i++) {
        llm_string pattern = {matches[i].pattern, strlen(matches[i].pattern)};
        llm_pattern *p = llm_pattern_compile(pattern);
        size_t found = p ? llm_pattern_match(p, matches[i].text, strlen(matches[i].text)) : 99;
        CHECK(found == (size_t)matches[i].length, "%s: %zu, not %d", matches[i].pattern, found, matches[i].length);
        llm_pattern_free(p);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        llm_string pattern = {refused[i], strlen(refused[i])};
        llm_pattern *p = llm_pattern_compile(pattern);
        CHECK(!p, "taken: %s", refused[i]);
        llm_pattern_free(p);
    }

    TEST("a pre-tokenizer of expressions, digits and punctuation is read from tokenizer.json, and kept as it is");
    static const char pre[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},{\"type\":\"Split\",\"pattern\":{\"String\":\"x.\"},\"behavior\":\"Isolated\",\"invert\":true},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},{\"type\":\"Digits\",\"individual_digits\":false},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9]{2}\"},"
        "\"behavior\":\"Isolated\"}]}}";
    static const char cut_text[] = "ab!?x. 12345 cd";
    static const size_t cut_lengths[] = {2, 2, 1, 1, 1, 2, 2, 1, 3};
    llm_source made;
    llm_tokenizer own;
    memset(&made, 0, sizeof made);
    made.path = strdup("t.json");
    CHECK(llm_hf_tokenizer(&made, pre, sizeof pre - 1, "t.json", &error) == 0 && llm_tokenizer_load(&own, &made, &error) == 0, "%s", error.message);
    if (!test_bad_) {
        size_t ends[LLM_MOST_CUTS] = {0}, at = 0;
        for (size_t i = 0; i < sizeof cut_lengths / sizeof *cut_lengths && at < sizeof cut_text - 1; i++) {
            size_t end = llm_cut(&own.cuts, cut_text, sizeof cut_text - 1, at, ends);
            CHECK(end - at == cut_lengths[i], "word %zu has %zu bytes", i, end - at);
            at = end;
        }
        CHECK(at == sizeof cut_text - 1, "%zu bytes", at);
        llm_tokenizer_free(&own);
    }
    llm_source_close(&made);

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

    TEST("added tokens take the spaces that they say, stand for whole words, and text is composed, as in the tokenizers library");
    static const char *const habits[] = {"\"content\":\"<L>\",\"lstrip\":true", "\"content\":\"<R>\",\"rstrip\":true", "\"content\":\"<LR>\",\"lstrip\":true,\"rstrip\":true",
                                         "\"content\":\"<W>\",\"single_word\":true", "\"content\":\"<N>\",\"normalized\":true", "\"content\":\"word\",\"single_word\":true"};
    llm_json added;
    char *expected = (char *)test_read_file("tests/tokenizers/added.json", &bytes);
    int parsed = expected && llm_json_parse(&added, expected, bytes, "added.json", &error) == 0;
    CHECK(parsed, "%s", error.message);
    for (int k = 0; k < KINDS && parsed; k++) {
        char path[300], list_of_marks[1000] = "\"added_tokens\":[";
        snprintf(path, sizeof path, "tests/tokenizers/%s.json", kinds[k]);
        char *file = (char *)test_read_file(path, &bytes), *at = file ? strstr(file, list_of_marks) : NULL;
        CHECK(at, "no added_tokens in %s", path);
        if (!at) continue;
        int first = (int)added.values[llm_json_member(&added, llm_json_member(&added, 0, "first"), kinds[k])].number;
        for (size_t i = 0; i < sizeof habits / sizeof *habits; i++)
            sprintf(list_of_marks + strlen(list_of_marks), "{\"id\":%d,%s,\"special\":false},", first + (int)i, habits[i]);
        size_t length = strlen("\"added_tokens\":[");
        if (at[length] == ']') list_of_marks[strlen(list_of_marks) - 1] = 0; /* no comma before nothing */
        char *whole = (char *)malloc(bytes + sizeof list_of_marks);
        sprintf(whole, "%.*s%s%s", (int)(at - file), file, list_of_marks, at + length);
        llm_source with;
        llm_tokenizer t;
        memset(&with, 0, sizeof with);
        with.path = strdup(path);
        int loaded = llm_hf_tokenizer(&with, whole, strlen(whole), path, &error) == 0 && llm_tokenizer_load(&t, &with, &error) == 0;
        CHECK(loaded, "%s", error.message);
        size_t of = llm_json_member(&added, 0, "texts") + 1, want = llm_json_member(&added, llm_json_member(&added, 0, "ids"), kinds[k]);
        for (size_t i = 0, to = want + 1; loaded && i < added.values[want].count; i++, of++, to += added.values[to].skip) {
            int64_t count = llm_encode_marked(&t, added.values[of].string.text, added.values[of].string.bytes, &ids);
            CHECK(same(&added, to, ids, count, kinds[k], added.values[of].string), "ids");
            free(ids);
        }
        if (loaded) llm_tokenizer_free(&t);
        llm_source_close(&with);
        free(file), free(whole);
    }
    if (parsed) llm_json_free(&added);
    free(expected);

    TEST("merges may make marks");
    static const char merging[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4},\"merges\":[\"a b\",\"ab c\"]},"
        "\"added_tokens\":[{\"id\":3,\"content\":\"ab\",\"special\":false,\"single_word\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}}";
    llm_source merged;
    llm_tokenizer merger;
    memset(&merged, 0, sizeof merged);
    merged.path = strdup("t.json");
    CHECK(llm_hf_tokenizer(&merged, merging, sizeof merging - 1, "t.json", &error) == 0 && llm_tokenizer_load(&merger, &merged, &error) == 0, "%s", error.message);
    if (!test_bad_) {
        CHECK(llm_encode(&merger, "abc", 3, &ids) == 1 && ids[0] == 4, "not merged");
        free(ids);
        llm_tokenizer_free(&merger);
    }
    llm_source_close(&merged);

    TEST("any bytes come back from their ids");
    uint64_t seed = 3;
    for (int round = 0; round < 3000; round++) {
        static const char some[] = " \n'sthe12.\xE2\x96\x81\xC3\xA9\xE6\xB5\xB7<|>\xF0\x9F\x98\x80";
        char in[60], back[600];
        size_t length = 1 + test_random(&seed) % 59, used = 0;
        for (size_t i = 0; i < length; i++) in[i] = round % 2 ? some[test_random(&seed) % (sizeof some - 1)] : (char)test_random(&seed);
        llm_tokenizer as = tokenizers[round % 5], *t = &as; /* not unigram, which has no bytes */
        as.composed = 0;
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
    static const char *const ways[] = {"tekken", "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "bloom", "default"};
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++)
        for (int fill = 0; fill < 4; fill++) {
            llm_string name = {ways[k], strlen(ways[k])};
            llm_cuts cuts;
            size_t ends[LLM_MOST_CUTS] = {0}, at = 0;
            memset(many, " \na."[fill], 200000);
            many[199999] = 'x';
            CHECK(llm_cuts_named(&cuts, name) == 0, "%s", ways[k]);
            while (at < 200000) at = llm_cut(&cuts, many, 200000, at, ends);
            llm_cuts_free(&cuts);
        }
    free(many);

    TEST("tokenizers that are not known or not whole end in one line");
    char *good = (char *)test_read_file("tests/tokenizers/llama3.json", &bytes), *bad = (char *)malloc(bytes + 200);
    static const struct { const char *from, *to, *words; } edits[] = {
        {"\"BPE\"", "\"WordPiece\"", "WordPiece"}, {"{1,3}", "{1,3}?", "cut words"}, {"\"Isolated\"", "\"Removed\"", "cut words"},
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
