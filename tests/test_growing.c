/* A stack whose file is still arriving: blocks are taken up as they come, and what is loaded is always that of
 * the part which is there. */
#include "command.h"
#include "make_gguf.h"
#include "stack_builder.h"

enum { MATRICES = 3 };

static const unsigned char *whole;
static size_t there;

static int read_at(void *user, uint64_t offset, void *to, size_t bytes) {
    (void)user;
    if (offset > there || bytes > there - offset) return -1;
    memcpy(to, whole + offset, bytes);
    return 0;
}

/* Levels and weights of both are the same. */
static int same(bitstack *a, bitstack *b) {
    static float x[130 * 300], y[130 * 300];
    for (int i = 0; i < MATRICES; i++) {
        bitstack_matrix m, n;
        bitstack_get_matrix(a, i, &m), bitstack_get_matrix(b, i, &n);
        bitstack_dequantize(a, i, x, m.shape.cols), bitstack_dequantize(b, i, y, n.shape.cols);
        if (m.level != n.level || memcmp(x, y, (size_t)m.shape.rows * m.shape.cols * sizeof *x)) return 0;
    }
    return bitstack_resident_bytes(a) == bitstack_resident_bytes(b) && bitstack_blocks_available(a) == bitstack_blocks_available(b);
}

int main(int argc, char **argv) {
    (void)argc;
    if (command_begin(argv[0], "growing")) return 1;
    built_matrix matrices[MATRICES] = {{"a", build_shape(130, 200, 4, 1, 1)}, {"b", build_shape(64, 300, 3, 4, 0)}, {"c", build_shape(70, 65, 5, 2, 1)}};
    matrices[2].shape.columns = BITSTACK_COLUMNS_EVERY;
    bitstack *growing, *part, *file;
    bitstack_error error;
    size_t bytes;
    uint64_t seed = 9;
    if (build_stack(command_file("w.bitstack"), matrices, MATRICES, 3)) return 1;
    unsigned char *data = (unsigned char *)test_read_file(command_file("w.bitstack"), &bytes);
    whole = data;

    TEST("extended to any length, a stack is what the file cut there is: by callback, from a file, in memory");
    there = (size_t)test_load64(whole + 24);
    FILE *grown = fopen(command_file("g.bitstack"), "wb");
    fwrite(whole, 1, there, grown), fflush(grown);
    bitstack *memory;
    CHECK(bitstack_open_callback(&growing, read_at, NULL, there, NULL, &error) == BITSTACK_OK, "%s", error.message);
    CHECK(bitstack_open_file(&file, command_file("g.bitstack"), NULL, &error) == BITSTACK_OK, "%s", error.message);
    CHECK(bitstack_open_memory(&memory, whole, there, NULL, &error) == BITSTACK_OK, "%s", error.message);
    if (test_bad_) return TEST_DONE();
    while (there < bytes) {
        size_t more = 1 + (size_t)(test_random(&seed) % 9000);
        if (more > bytes - there) more = bytes - there;
        fwrite(whole + there, 1, more, grown), fflush(grown);
        there += more;
        uint64_t budget = test_random(&seed) % 3 ? UINT64_MAX : bitstack_base_bytes(growing) + test_random(&seed) % bytes;
        bitstack *all[3] = {growing, file, memory};
        CHECK(bitstack_open_memory(&part, whole, there, NULL, &error) == BITSTACK_OK, "%s", error.message);
        bitstack_set_budget(part, budget, NULL);
        for (int i = 0; i < 3; i++) {
            CHECK(bitstack_extend(all[i], there) == BITSTACK_OK, "way %d", i);
            CHECK(bitstack_set_budget(all[i], budget, &error) == BITSTACK_OK, "%s", error.message);
            CHECK(same(all[i], part) && bitstack_file_bytes(all[i]) == there, "way %d differs at %zu bytes", i, there);
        }
        bitstack_close(part);
    }
    CHECK(bitstack_blocks_available(growing) == bitstack_block_count(growing), "not all");
    CHECK(bitstack_extend(growing, bytes - 1) == BITSTACK_ERROR_ARGUMENT && bitstack_extend(growing, bytes + 9) == BITSTACK_OK, "shorter, longer");
    bitstack_close(growing), bitstack_close(file), bitstack_close(memory);
    fclose(grown);
    free(data);

    gguf_maker g;
    make_tiny_llama(&g, 3);
    command_save("tiny.gguf", g.data, g.bytes);
    free(g.data);
    if (command_run("compress tiny.gguf -o m.bitstack --levels 3")) return 1;
    data = (unsigned char *)test_read_file(command_file("m.bitstack"), &bytes);
    unsigned long base = (unsigned long)test_load64(data + 24);
    char line[1500];
#define RUN "\"$B\" run --prompt the --temperature 0 -n 30 "

    TEST("run starts when the resident part is there and takes up what arrives: standard input and growing file");
    snprintf(line, sizeof line, "mkfifo f; { timeout 20 " RUN "- <f >o; echo $? >s; } & exec 3>f\n"
             "head -c %lu m.bitstack >&3; wait; exec 3>&-; cat s; cat o", base);
    CHECK(command_shell(line) == 0 && command_out[0] == '0' && strstr(command_out, "the"), "pipe: %s%s", command_out, command_err);
    snprintf(line, sizeof line, "head -c %lu m.bitstack >h; { timeout 20 " RUN "h --follow --wait 1GB >o; echo $? >s; } &\n"
             "sleep 0.05; tail -c +%lu m.bitstack >>h; wait; cat s; " RUN "m.bitstack | cmp - o", base / 2, base / 2 + 1);
    CHECK(command_shell(line) == 0 && command_out[0] == '0', "file: %s%s", command_out, command_err);

    TEST("a stack that came in by the standard input gives the same text, also with a budget, and cut off");
    static const char *const budgets[3] = {"", "--budget 60000", "--budget 75KB"};
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, RUN "m.bitstack %s >a && { head -c 20000 m.bitstack; sleep 0.02; tail -c +20001 m.bitstack; } | " RUN "- --wait 1GB %s | cmp - a", budgets[i], budgets[i]);
        CHECK(command_shell(line) == 0, "%s: %s%s", budgets[i], command_out, command_err);
    }
    snprintf(line, sizeof line, "head -c %lu m.bitstack >c; " RUN "c >a && cat c | " RUN "- --wait 1GB | cmp - a", (unsigned long)(base + bytes) / 2);
    CHECK(command_shell(line) == 0, "cut: %s%s", command_out, command_err);

    TEST("with a budget no more is taken than it needs, so that a download stops");
    snprintf(line, sizeof line, "{ cat m.bitstack; head -c 50000000 /dev/zero && echo all >d; } 2>/dev/null | " RUN "- --budget %lu --wait 1GB >o; test -s o && test ! -f d", base);
    CHECK(command_shell(line) == 0, "%s%s", command_out, command_err);

    TEST("what never becomes a stack is an error in one line");
    snprintf(line, sizeof line, "head -c %lu m.bitstack | " RUN "-", base - 1);
    CHECK(command_shell(line) == 1 && strstr(command_err, "standard input: offset") && strstr(command_err, "resident part"), "%s", command_err);
    CHECK(command_shell("echo no | " RUN "-") == 1 && strstr(command_err, "standard input: offset 3"), "%s", command_err);
    CHECK(command_shell("TMPDIR=./none " RUN "- <m.bitstack") == 1 && strstr(command_err, "TMPDIR"), "%s", command_err);
    CHECK(command_fails("run tiny.gguf --prompt a --follow", 1, "tiny.gguf: "), "a model of fixed size");
    free(data);
    return TEST_DONE();
}
