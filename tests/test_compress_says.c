/* compress says, when it is done, what it made: in words, as JSON, or not at all. */
#include "command.h"
#include "make_gguf.h"
#include "../examples/llm/json.h"

static double member(const llm_json *json, size_t of, const char *name) {
    size_t at = llm_json_member(json, of, name);
    return at ? json->values[at].number : -1;
}

int main(int argc, char **argv) {
    gguf_maker g;
    llm_json json;
    llm_error error;
    (void)argc;
    if (command_begin(argv[0], "says") != 0) return 1;
    make_tiny_llama(&g, 3);
    FILE *file = fopen(command_file("tiny.gguf"), "wb");
    if (!file || fwrite(g.data, 1, g.bytes, file) != g.bytes) printf("      cannot write\n");
    if (file) fclose(file);
    free(g.data);

    TEST("a summary: the file, sizes with the loss to expect, time, memory, and what to type next, which works");
    CHECK(command_run("compress tiny.gguf -o x.bitstack --levels 3 --rank 1 --calibrate-self 200") == 0 && test_only_progress(command_err), "%s", command_err);
    CHECK(strstr(command_out, "x.bitstack: ") && strstr(command_out, "predicted kl") && strstr(command_out, "% busy") && strstr(command_out, " of memory at most"), "%s", command_out);
    char next[400] = "";
    const char *at = strstr(command_out, "next: bitstack ");
    if (at) snprintf(next, sizeof next, "%.300s", at + strlen("next: bitstack "));
    next[strcspn(next, "\n")] = 0;
    strcat(next, " -n 2");
    CHECK(command_run(next) == 0, "%s: %s", next, command_err);

    TEST("the same as JSON, losses falling from the smallest size to the largest");
    CHECK(command_run("compress tiny.gguf -o x.bitstack --levels 3 --rank 1 --calibrate-self 200 --json") == 0 && test_only_progress(command_err), "%s", command_err);
    int parsed = llm_json_parse(&json, command_out, strlen(command_out), "out", &error) == 0;
    CHECK(parsed, "%s", error.message);
    if (parsed) {
        const char *sizes = strstr(command_out, "\"sizes\": [");
        double last_bytes = 0, last_kl = 1e9, bytes, bits, kl;
        int count = 0;
        for (at = sizes; at && (at = strstr(at, "{\"bytes\": ")) && sscanf(at, "{\"bytes\": %lf, \"bits_per_weight\": %lf, \"predicted_kl\": %lf", &bytes, &bits, &kl) == 3; at++) {
            CHECK(bytes > last_bytes && kl <= last_kl && kl >= 0 && bits > 0.5 && bits < 4, "%g bytes: %g bits, kl %g after %g", bytes, bits, kl, last_kl);
            last_bytes = bytes, last_kl = kl;
            count++;
        }
        CHECK(count >= 4 && last_bytes == member(&json, 0, "bytes_most"), "%d sizes, the last of %g bytes", count, last_bytes);
        CHECK(member(&json, 0, "seconds") > 0 && member(&json, 0, "busy") > 0 && member(&json, 0, "peak_bytes") > 1e6, "%s", command_out);
        llm_json_free(&json);
    }

    TEST("--quiet: nothing");
    CHECK(command_run("compress tiny.gguf -o x.bitstack --levels 3 --rank 1 --calibrate-self 200 --quiet") == 0 && !command_err[0] && !command_out[0], "%s%s", command_out, command_err);
    return TEST_DONE();
}
