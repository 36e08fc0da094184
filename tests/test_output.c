/* Where output goes is looked at before the work begins; what could not be right is said then; and the command's figures are
 * read and written alike in every locale. */
#include "command.h"
#include "make_gguf.h"
#include "examples/llm/gguf.h"
#include "examples/llm/json.h"
#include "examples/llm/numbers.h"

#include <locale.h>

int cli_size(const char *text, size_t length, uint64_t *bytes); /* of the command's: its header has a name that command.h has too */
const char *cli_bytes(uint64_t bytes);

/* The small llama with one number of a tensor replaced. */
static int spoiled(const char *name, const char *tensor, float value) {
    gguf_maker g;
    llm_source s;
    int found = 0;
    make_tiny_llama(&g, 7);
    if (llm_gguf_open_memory(&s, g.data, g.bytes, "tiny.gguf", NULL) != 0) return 1;
    const llm_tensor *t = llm_find_tensor(&s, tensor);
    uint16_t half = value > 0 ? 0x7c00 : value < 0 ? 0xfc00 : 0x7e00;
    size_t at = t ? (size_t)(t->data - g.data) : 0;
    if (t && t->type == LLM_TYPE_F32) memcpy(g.data + at + 4 * 5, &value, 4), found = 1;
    else if (t) memcpy(g.data + at + 2 * (3 * 64 + 5), &half, 2), found = 1;
    llm_source_close(&s);
    found = found && command_save(name, g.data, g.bytes) == 0;
    free(g.data);
    return !found;
}

int main(int argc, char **argv) {
    (void)argc;
    if (command_begin(argv[0], "output")) return 1;
    gguf_maker g;
    char line[1000];
    make_tiny_llama(&g, 7);
    if (command_save("tiny.gguf", g.data, g.bytes)) return 1;
    free(g.data);

    TEST("a folder, a device, a pipe, the standard output or a folder that is not there is refused before the work begins");
    CHECK(command_run("compress tiny.gguf -o ok.bitstack --levels 1 --rank 1") == 0 && command_run("compress tiny.gguf -o full.bitstack --levels 2") == 0, "%s", command_err);
    CHECK(command_shell("mkdir folder; mkfifo pipe; ln -s /dev/null null; ln -s pipe to_pipe; ln -s folder to_folder; ln -s loop loop; mkdir closed; printf '\\0\\0\\0\\0' >m.f32") == 0, "not made");
    static const struct { const char *out, *words; } places[] = {
        {"folder", "a folder"}, {"to_folder", "a folder"}, {"pipe", "a pipe"}, {"to_pipe", "a pipe"}, {"null", "a device"}, {"none/x", "none"},
        {"tiny.gguf/x", "tiny.gguf"}, {"loop", "loop"}, {"-", "-o -"}, {"/dev/stdout", "/dev/stdout"}, {"new/", "file"}};
    static const char *const commands[] = {"compress tiny.gguf --calibrate-self 1000000 -o %s", "cut full.bitstack --budget 1GB -o %s", "import folder -o %s",
                                           "compress-matrix m.f32 --rows 1 --cols 1 -o %s"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
            char arguments[300];
            snprintf(arguments, sizeof arguments, commands[c], places[i].out);
            snprintf(line, sizeof line, "\"$B\" %s | cat", arguments); /* for /dev/stdout: a pipe */
            command_shell(line);
            CHECK(!command_out[0] && strncmp(command_err, "bitstack: ", 10) == 0 && strchr(command_err, '\n') && !strchr(command_err, '\n')[1] &&
                  (strstr(command_err, places[i].words) || strstr(command_err, "a pipe")), "%s: %s%s", arguments, command_out, command_err);
        }
    CHECK(command_shell("test -p pipe && test -L null && test -c /dev/null && test -L to_folder && test ! -e folder.part && test -z \"$(ls folder)\"") == 0, "something was replaced");
    if (geteuid() != 0) {
        CHECK(command_shell("chmod a-w closed") == 0 && command_fails("compress tiny.gguf -o closed/x", 1, "closed"), "closed");
    }

    TEST("output goes through a symbolic link, to a file that is there or not, from wherever it stands");
    CHECK(command_shell("mkdir -p big/deep && ln -s ../big/deep/model.bitstack folder/link && ln -s folder/link link && \"$B\" compress tiny.gguf -o link --levels 2 && "
                        "test -L link && test -L folder/link && cmp big/deep/model.bitstack full.bitstack && \"$B\" cut full.bitstack --budget 1GB -o folder/link && "
                        "test -L folder/link && cmp big/deep/model.bitstack full.bitstack && test -z \"$(ls | grep -F .part)\"") == 0, "%s%s", command_out, command_err);

    TEST("weights that are no numbers are named, with where they stand, and nothing is made of them");
    static const struct { const char *tensor; float value; const char *words; } bad[] = {
        {"blk.1.ffn_up.weight", 0, "'blk.1.ffn_up.weight': expected finite numbers, found NaN in row 3, column 5"},
        {"blk.0.attn_q.weight", -1, "-infinity in row 3"}, {"token_embd.weight", 1, "'token_embd.weight': expected finite numbers, found infinity in row 3, column 5"},
        {"output.weight", 0, "'output.weight'"}, {"blk.1.attn_norm.weight", NAN, "'blk.1.attn_norm.weight': expected finite numbers, found NaN in row 0, column 5"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(spoiled("bad.gguf", bad[i].tensor, bad[i].value) == 0, "not made");
        CHECK(command_fails("compress bad.gguf -o bad.bitstack --calibrate-self 1000000", 1, bad[i].words) && !command_exists("bad.bitstack"), "compress, %s", bad[i].tensor);
        CHECK(command_fails("run bad.gguf --prompt a", 1, bad[i].words), "run, %s", bad[i].tensor);
    }

    TEST("sizes in any case and with the letters that people use");
    static const struct { const char *text; uint64_t bytes; } sizes[] = {
        {"1", 1}, {"300000", 300000}, {"3mb", 3000000}, {"3M", 3000000}, {"3m", 3000000}, {"3G", 3000000000u}, {"3Gi", 3221225472u}, {"3gib", 3221225472u},
        {"2.5KiB", 2560}, {"1e3kb", 1000000}, {"5b", 5}, {"1T", 1000000000000u}, {"1TiB", 1099511627776u}, {"3 MB", 3000000}, {"0", 0}};
    static const char *const no_sizes[] = {"", "x", "-1", "3MBB", "3iB", "3XB", "0x10", "3MiBs", "1e400", "3,5MB", "infinity", "nan", ".5M"};
    uint64_t bytes;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(cli_size(sizes[i].text, strlen(sizes[i].text), &bytes) == 0 && bytes == sizes[i].bytes, "%s", sizes[i].text);
    for (size_t i = 0; i < sizeof no_sizes / sizeof *no_sizes; i++) CHECK(cli_size(no_sizes[i], strlen(no_sizes[i]), &bytes) != 0, "taken: %s", no_sizes[i]);

    TEST("what was mistyped is asked about; help COMMAND and version are there");
    CHECK(command_run("copmress") == 2 && strstr(command_err, "is compress meant?") && command_run("zzzz") == 2 && !strstr(command_err, "meant"), "%s", command_err);
    CHECK(command_fails("run tiny.gguf --promt a", 2, "is --prompt meant?") && command_fails("run tiny.gguf --qqqqqqq a", 2, "unknown option") && !strstr(command_err, "meant"), "options");
    CHECK(command_run("help compress") == 0 && strncmp(command_out, "usage: bitstack compress ", 25) == 0 && !command_err[0], "%s%s", command_out, command_err);
    CHECK(command_run("help comprss") == 2 && strstr(command_err, "is compress meant?"), "%s", command_err);
    CHECK(command_run("version") == 0 && strncmp(command_out, "bitstack ", 9) == 0 && strstr(command_out, "compiler ") && strstr(command_out, "processors"), "%s", command_out);

    TEST("verify says what it found in JSON, too");
    CHECK(command_run("verify full.bitstack --json") == 0 && strstr(command_out, "{\"file\": \"full.bitstack\", \"valid\": true, \"matrices\": ") && strstr(command_out, "\"complete_file_bytes\": "), "%s%s",
          command_out, command_err);

    TEST("a locale with decimal commas changes no figure that is read or written");
    char locales[1200];
    snprintf(locales, sizeof locales, "%s/locales", command_folder);
    if (command_shell("mkdir locales && localedef -i de_DE -f UTF-8 locales/de_DE.UTF-8") != 0) SKIP("localedef cannot make de_DE");
    else {
        setenv("LOCPATH", locales, 1);
        CHECK(setlocale(LC_ALL, "de_DE.UTF-8") && *localeconv()->decimal_point == ',', "no such locale");
        llm_json json;
        llm_error error;
        const char *end, text[] = "-12.5e1,7", *const plain[] = {"0.1", "1e300", "123456789012345.25", "-0.0", "5"};
        double value = llm_parse_number(text, &end);
        CHECK(value == -125 && end == text + 7, "%g", value);
        value = llm_parse_number("x", &end);
        CHECK(value == 0 && *end == 'x', "%g", value);
        for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
            static const double want[] = {0.1, 1e300, 123456789012345.25, -0.0, 5};
            CHECK(llm_parse_number(plain[i], &end) == want[i] && !*end, "%s", plain[i]);
        }
        CHECK(llm_json_parse(&json, "[0.25, -1.5e2]", 14, "t.json", &error) == 0, "%s", error.message);
        if (!test_bad_) {
            CHECK(json.values[1].number == 0.25 && json.values[2].number == -150, "%g %g", json.values[1].number, json.values[2].number);
            llm_json_free(&json);
        }
        CHECK(cli_size("2.5KiB", 6, &bytes) == 0 && bytes == 2560 && strcmp(cli_bytes(3210000), "3.21 MB") == 0, "%s", cli_bytes(3210000));
        char number[40];
        CHECK(llm_print_number(number, sizeof number, "%.9g", -0.125) == 6 && strcmp(number, "-0.125") == 0, "%s", number);
        setlocale(LC_ALL, "C");
    }
    return TEST_DONE();
}
