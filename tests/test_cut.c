/* bitstack cut: the stack that comes out is the original at that budget, bit for bit. */
#include "command.h"
#include "stack_builder.h"

#include <signal.h>
#include <sys/resource.h>

enum { MATRICES = 4 };

/* 0 if `small`, with all it has, equals `whole` at `budget`: levels and weights. */
static int same(bitstack *whole, bitstack *small, uint64_t budget) {
    static float a[200 * 300], b[200 * 300];
    if (bitstack_set_budget(whole, budget, NULL) || bitstack_set_budget(small, UINT64_MAX, NULL)) return 1;
    if (bitstack_resident_bytes(whole) != bitstack_resident_bytes(small) || bitstack_resident_bytes(small) > budget) return 2;
    for (int i = 0; i < MATRICES; i++) {
        bitstack_matrix m, n;
        bitstack_get_matrix(whole, i, &m), bitstack_get_matrix(small, i, &n);
        if (m.level != n.level) return 3;
        bitstack_dequantize(whole, i, a, m.shape.cols), bitstack_dequantize(small, i, b, n.shape.cols);
        if (memcmp(a, b, (size_t)m.shape.rows * m.shape.cols * sizeof *a)) return 4;
    }
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    if (command_begin(argv[0], "cut")) return 1;
    built_matrix matrices[MATRICES] = {{"a", build_shape(130, 200, 4, 1, 1)}, {"b", build_shape(64, 300, 3, 4, 0)},
                                       {"c", build_shape(70, 65, 5, 2, 1)}, {"d", build_shape(200, 100, 2, 1, 1)}};
    matrices[2].shape.columns = BITSTACK_COLUMNS_EVERY;
    bitstack *whole, *small;
    bitstack_error error;
    size_t bytes, cut_bytes;
    char line[300];
    if (build_stack(command_file("w.bitstack"), matrices, MATRICES, 3) || bitstack_open_file(&whole, command_file("w.bitstack"), NULL, &error)) return 1;
    unsigned char *file = (unsigned char *)test_read_file(command_file("w.bitstack"), &bytes), *cut;
    uint64_t base = bitstack_base_bytes(whole), total = bitstack_total_bytes(whole);

    TEST("a cut file equals the original at that budget, is a prefix of it, and verifies");
    int blocks = bitstack_block_count(whole);
    for (int i = -1; i <= blocks; i++) {
        bitstack_block block;
        uint64_t budget = i < 0 ? base : total + 999;
        if (i >= 0 && i < blocks) bitstack_get_block(whole, i, &block), budget = block.resident_after + (uint64_t)(i % 3) - 1;
        snprintf(line, sizeof line, "\"$B\" cut w.bitstack --budget %llu -o s.bitstack && \"$B\" verify s.bitstack", (unsigned long long)budget);
        CHECK(command_shell(line) == 0 && strstr(command_out, "valid"), "%s: %s%s", line, command_out, command_err);
        cut = (unsigned char *)test_read_file(command_file("s.bitstack"), &cut_bytes);
        CHECK(cut && cut_bytes <= bytes && memcmp(cut, file, cut_bytes) == 0, "no prefix at %llu", (unsigned long long)budget);
        free(cut);
        int result = bitstack_open_file(&small, command_file("s.bitstack"), NULL, &error) != BITSTACK_OK;
        CHECK(!result, "%s", error.message);
        if (result) break;
        result = same(whole, small, budget);
        CHECK(result == 0, "at %llu: difference %d", (unsigned long long)budget, result);
        bitstack_close(small);
    }

    TEST("a file is not cut in its own place, whatever name that has; what was cut off can be put back");
    snprintf(line, sizeof line, "cp w.bitstack x.bitstack && \"$B\" cut x.bitstack --budget %llu -o y.bitstack && "
             "tail -c +$(($(wc -c <y.bitstack) + 1)) x.bitstack >>y.bitstack && cmp y.bitstack w.bitstack && ln x.bitstack hard && ln -s x.bitstack soft", (unsigned long long)(base + total) / 2);
    CHECK(command_shell(line) == 0, "%s%s", command_out, command_err);
    static const char *const places[] = {"x.bitstack", "./x.bitstack", "hard", "soft"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(line, sizeof line, "cut x.bitstack --budget 1GB -o %s", places[i]);
        CHECK(command_fails(line, 1, "x.bitstack: expected another -o") && command_shell("cmp x.bitstack w.bitstack") == 0, "-o %s", places[i]);
    }
    snprintf(line, sizeof line, "cut x.bitstack --budget %llu -o z.bitstack --json", (unsigned long long)(base + total) / 2);
    CHECK(command_run(line) == 0 && strstr(command_out, "{\"file\": \"z.bitstack\", \"bytes\": ") == command_out && strstr(command_out, "\"blocks_of\": "), "%s%s", command_out, command_err);

    TEST("a file that would be written over before it is read is refused, and stays whole");
    snprintf(line, sizeof line, "cut n.bitstack.part --budget %llu -o n.bitstack", (unsigned long long)(base + total) / 2);
    CHECK(command_shell("cp w.bitstack n.bitstack.part") == 0 && command_fails(line, 1, "n.bitstack.part: expected another -o"), "OUT.part");
    CHECK(command_shell("cmp w.bitstack n.bitstack.part && rm n.bitstack.part") == 0, "the input is lost: %s%s", command_out, command_err);

    TEST("as a C array it is the same bytes, aligned, in C and C++, and opens in place");
    static const char program[] = "#define BITSTACK_IMPLEMENTATION\n#include \"bitstack.h\"\n#include \"w_data.h\"\n#include <stdio.h>\n"
        "int main(void) { bitstack *s; bitstack_options o = {}; if ((size_t)w_data % 64 || bitstack_open_memory(&s, w_data, sizeof w_data, &o, NULL) != BITSTACK_OK) return 1;\n"
        "fwrite(w_data, 1, sizeof w_data, stdout); fprintf(stderr, \"%d\", bitstack_blocks_loaded(s)); bitstack_close(s); return 0; }\n";
    command_save("p.c", program, sizeof program - 1);
    snprintf(line, sizeof line, "\"$B\" cut w.bitstack --budget %llu -o y.bitstack && \"$B\" cut w.bitstack --budget %llu --c-array w_data -o w_data.h", (unsigned long long)(base + total) / 2,
             (unsigned long long)(base + total) / 2);
    CHECK(command_shell(line) == 0, "%s", command_err);
    CHECK(command_shell("cc -I. -I\"${B%/build*}\" p.c -o p -lm && ./p | cmp - y.bitstack") == 0 && atoi(command_err) > 0, "C: %s%s", command_out, command_err);
    CHECK(command_shell("command -v c++ >c++ || exit 0; c++ -x c++ -Wall -Werror -I. -I\"${B%/build*}\" p.c -o p -lm && ./p | cmp - y.bitstack") == 0, "C++: %s%s", command_out, command_err);
    CHECK(command_shell("[ $(wc -L <w_data.h) -le 110 ]") == 0, "lines are too long");
    CHECK(command_fails("cut w.bitstack --budget 1GB --c-array 2x -o n.h", 2, "as C has them") && command_fails("cut w.bitstack --budget 1GB --c-array 'a b' -o n.h", 2, "as C has them"), "no name");

    TEST("what cannot be is refused in one line and nothing is left behind");
    snprintf(line, sizeof line, "cut w.bitstack --budget %llu -o n.bitstack", (unsigned long long)base - 1);
    CHECK(command_fails(line, 1, "resident part"), "too small");
    CHECK(command_fails("cut none.bitstack --budget 1MB -o n.bitstack", 1, "none.bitstack"), "no file");
    CHECK(command_fails("cut w.bitstack --budget 1MB -o none/n.bitstack", 1, "none/n.bitstack"), "no folder");
    CHECK(command_fails("cut w.bitstack -o n.bitstack", 2, "--budget"), "no budget");
    CHECK(command_fails("cut w.bitstack --budget 1MB", 2, "-o"), "no output");
    CHECK(command_shell("ls") == 0 && !strstr(command_out, "part") && !command_exists("n.bitstack"), "left: %s", command_out);

    TEST("a disk that is full at any byte: one line, OUT as it was, nothing beside it");
    struct rlimit before, full;
    signal(SIGXFSZ, SIG_IGN); /* so that writing beyond the limit fails, as on a full disk */
    getrlimit(RLIMIT_FSIZE, &before);
    command_save("old.bitstack", "old", 3);
    for (rlim_t most = 1000; most < bytes; most += bytes / 7) { /* the message has to fit as well */
        full = before, full.rlim_cur = most;
        setrlimit(RLIMIT_FSIZE, &full);
        CHECK(command_fails("cut w.bitstack --budget 1GB -o n.bitstack", 1, "n.bitstack: "), "full at %ld", (long)most);
        CHECK(command_fails("cut w.bitstack --budget 1GB -o old.bitstack", 1, "old.bitstack: "), "full at %ld", (long)most);
        CHECK(command_fails("cut w.bitstack --budget 1GB --c-array w -o old.bitstack", 1, "old.bitstack: "), "full at %ld", (long)most);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK(command_shell("ls; cat old.bitstack") == 0 && !strstr(command_out, "part") && !command_exists("n.bitstack"), "left: %s", command_out);
        CHECK(strcmp(command_out + strlen(command_out) - 3, "old") == 0, "OUT is not what it was");
    }
    bitstack_close(whole);
    free(file);
    return TEST_DONE();
}
