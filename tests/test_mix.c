/* The text that a model is calibrated on: files and folders in equal parts, a share of its own text between them, in the
 * form of a conversation where the model knows one. */
#include "test.h"
#include "make_gguf.h"
#include "examples/bitstack/mix.h"
#include "examples/llm/openings.h"

#include <sys/stat.h>

#define FOLDER "build/tests/mix/"
enum { LENGTH = 33 };

static void save(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes) printf("      cannot write %s\n", path);
    if (file) fclose(file);
}

static void save_letters(const char *path, char letter, size_t count) {
    static char text[8000];
    memset(text, letter, count);
    save(path, text, count);
}

static int rows_of(const llm_model *m, const char *texts, double share, uint32_t self, int threads, llm_rows *rows) {
    mix how = {.texts = texts, .self_share = share, .self = self, .length = LENGTH, .rows = 24, .seed = 5, .threads = threads};
    memset(rows, 0, sizeof *rows);
    return mix_rows(&how, m, NULL, NULL, rows);
}

/* How many rows hold nothing but the token of this letter (the text's first token has a space in front). */
static size_t count_of(const llm_rows *rows, uint32_t letter) {
    size_t found = 0;
    for (size_t r = 0; r < rows->count; r++) {
        size_t same = 0;
        for (size_t i = 2; i < rows->length; i++) same += rows->ids[r * rows->length + i] == letter;
        found += same == rows->length - 2;
    }
    return found;
}

int main(void) {
    enum { A = 259 + 0, B = 259 + 1, C = 259 + 2, Z = 259 + 25 }; /* see make_tiny_llama */
    gguf_maker g;
    llm_model m;
    llm_rows rows, again;
    llm_error error;
    mkdir(FOLDER, 0777), mkdir(FOLDER "more", 0777);
    make_tiny_llama(&g, 3);
    save(FOLDER "tiny.gguf", g.data, g.bytes);
    free(g.data);
    save_letters(FOLDER "b.txt", 'b', 4000), save_letters(FOLDER "z,z.txt", 'z', 900), save_letters(FOLDER "more/a.txt", 'a', 3000);
    save_letters(FOLDER "more/c.txt", 'c', 3000), save_letters(FOLDER "short.txt", 'b', 7), save_letters(FOLDER "more/.hidden", 'z', 3000);
    TEST("files and folders in equal parts, one with a comma in its name, a hidden one left out");
    CHECK(llm_model_open(&m, FOLDER "tiny.gguf", NULL, &error) == 0, "%s", error.message);
    if (test_bad_) return TEST_DONE();
    CHECK(rows_of(&m, FOLDER "b.txt," FOLDER "more", 0, 0, 1, &rows) == CLI_OK && rows.count == 24 && rows.length == LENGTH, "%zu rows", rows.count);
    CHECK(count_of(&rows, B) == 12 && count_of(&rows, A) + count_of(&rows, C) >= 11 && count_of(&rows, A) >= 5 && count_of(&rows, Z) == 0, "%zu, %zu, %zu, %zu rows",
          count_of(&rows, A), count_of(&rows, B), count_of(&rows, C), count_of(&rows, Z));
    for (size_t r = 0; r + 2 < rows.count; r++) { /* taking turns */
        llm_rows three = {rows.ids + r * LENGTH, 3, LENGTH};
        CHECK(count_of(&three, B) == 1 || count_of(&three, B) == 2, "rows %zu to %zu: %zu of one text", r, r + 2, count_of(&three, B));
    }
    llm_rows_free(&rows);
    CHECK(rows_of(&m, FOLDER "z,z.txt", 0, 0, 1, &rows) == CLI_OK && count_of(&rows, Z) == rows.count && rows.count == 24, "%zu rows", rows.count);
    llm_rows_free(&rows);
    CHECK(rows_of(&m, FOLDER "short.txt", 0, 0, 1, &rows) == CLI_OK && rows.count == 1 && rows.length == LENGTH, "%zu rows of %zu", rows.count, rows.length);
    llm_rows_free(&rows);

    TEST("marks in a text are text, and marks only where that is asked for");
    static const char talk[] = "a</s>b<s>c</s>";
    static char marked[sizeof talk * 100];
    for (size_t i = 0; i < 100; i++) memcpy(marked + i * (sizeof talk - 1), talk, sizeof talk - 1);
    save(FOLDER "marked.txt", marked, 100 * (sizeof talk - 1));
    for (int special = 0; special < 2; special++) {
        mix how = {.texts = FOLDER "marked.txt", .length = LENGTH, .rows = 100, .threads = 1, .special = special};
        size_t ends = 0, begins = 0;
        memset(&rows, 0, sizeof rows);
        CHECK(mix_rows(&how, &m, NULL, NULL, &rows) == CLI_OK && rows.count > 10, "%zu rows", rows.count);
        for (size_t i = 0; i < rows.count * rows.length; i++) ends += rows.ids[i] == 2, begins += rows.ids[i] == 1;
        CHECK(special ? ends >= 100 && begins >= 50 : !ends && !begins, "%zu ends and %zu begins in %zu rows", ends, begins, rows.count);
        llm_rows_free(&rows);
    }

    TEST("a share of the model's own text, the same for every number of threads");
    CHECK(rows_of(&m, FOLDER "b.txt", 0.25, 0, 1, &rows) == CLI_OK && rows.count == 24 && count_of(&rows, B) == 18, "%zu of %zu rows", count_of(&rows, B), rows.count);
    CHECK(rows_of(&m, FOLDER "b.txt", 0.25, 0, 3, &again) == CLI_OK && again.count == rows.count && memcmp(rows.ids, again.ids, rows.count * LENGTH * 4) == 0, "other text");
    llm_rows_free(&rows), llm_rows_free(&again);
    CHECK(rows_of(&m, FOLDER "b.txt", 0.25, 64, 1, &rows) == CLI_OK && rows.count == 26 && count_of(&rows, B) == 24, "%zu of %zu rows", count_of(&rows, B), rows.count);
    llm_rows_free(&rows);
    CHECK(rows_of(&m, NULL, 0.25, 0, 2, &rows) == CLI_OK && rows.count == MIX_DEFAULT_SELF / (LENGTH - 1), "%zu rows", rows.count);
    size_t different = 0;
    for (size_t r = 1; r < rows.count; r++) different += memcmp(rows.ids, rows.ids + r * LENGTH, LENGTH * 4) != 0;
    CHECK(different == rows.count - 1, "rows are alike");
    llm_rows_free(&rows);
    CHECK(rows_of(&m, "none", 0.25, 0, 1, &rows) == CLI_OK && rows.count == 0, "%zu rows", rows.count);

    TEST("own text begins in many ways, of a model that talks every third time with a question in its form");
    llm_tokenizer tokenizer;
    llm_opening *plain, *chat;
    size_t plain_count, chat_count, questions = 0, longest = 0;
    CHECK(llm_tokenizer_load(&tokenizer, &m.source, &error) == 0, "%s", error.message);
    CHECK(llm_openings_make(&plain, &plain_count, &m, &tokenizer) == 0 && plain_count >= 24, "%zu openings", plain_count);
    static const char form[] = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}";
    llm_string template = {form, sizeof form - 1};
    CHECK(llm_add_text(&m.source, "tokenizer.chat_template", template) == 0, "out of memory");
    CHECK(llm_openings_make(&chat, &chat_count, &m, &tokenizer) == 0 && chat_count == plain_count * 3 / 2, "%zu openings", chat_count);
    for (size_t i = 0; i < chat_count; i++) { /* the form's first letters; a context of 64 has room for most */
        char text[64] = {0};
        size_t used = 0;
        for (size_t k = 0; k < chat[i].count && used < 20; k++) used += llm_token_text(&tokenizer, chat[i].ids[k], k == 0, text + used, 40);
        questions += strstr(text, "[INST]") != NULL;
        CHECK(chat[i].count > 0, "opening %zu is empty", i);
        if (chat[i].count > longest) longest = chat[i].count;
    }
    CHECK(questions >= chat_count / 5 && questions <= chat_count / 3, "%zu questions among %zu openings, the longest of %zu tokens", questions, chat_count, longest);
    llm_openings_free(plain, plain_count), llm_openings_free(chat, chat_count);
    llm_tokenizer_free(&tokenizer);
    llm_model_close(&m);
    return TEST_DONE();
}
