/* One number holds for all that a model takes: what is shown is what the process has, a text that grows takes from the
 * weights, and without a number it is chosen from the memory that is free. What is given back when memory is short, or
 * while nobody talks, costs nothing that was said. */
#include "command.h"
#include "random_stack.h"

#include <ctype.h>

/* Large enough that what no one counts (the C library's own) is well within the 2 %. */
enum { WIDTH = 1280, HIDDEN = 3328, LAYERS = 4, LEVELS = 4 };

/* The number in megabytes that stands before `words` in what was printed, the last time; -1 if it does not. */
static double before(const char *text, const char *words) {
    const char *found = NULL, *at = text;
    while ((at = strstr(at, words))) found = at++;
    if (!found) return -1;
    at = found;
    while (at > text && (isdigit((unsigned char)at[-1]) || strchr(". ", at[-1]) || strchr("kMGB", at[-1])))
        at--;
    char unit[4] = "";
    double value = -1;
    if (sscanf(at, " %lf %3[kMGB]", &value, unit) != 2) return -1;
    return value * (unit[0] == 'G' ? 1e3 : unit[0] == 'k' ? 1e-3 : unit[0] == 'M' ? 1 : 1e-6);
}

static double after(const char *text, const char *words) {
    const char *found = strstr(text, words);
    return found ? atof(found + strlen(words)) : -1;
}

/* Chats, and reads from the kernel what the process has while it waits for the next line. */
static int chat(const char *options, const char *lines, const char *until, const char *more) {
    char line[2000];
    snprintf(line, sizeof line,
             "rm -f f && mkfifo f && { \"$B\" chat big.bitstack --temperature 0 %s <f >said 2>errors & p=$!; exec 3>f; printf '%s' >&3; i=0; "
             "while [ $i -lt 2000 ] && ! grep -a -q '%s' said; do i=$((i + 1)); sleep 0.05; done; sleep 0.2; "
             "grep RssAnon /proc/$p/status | tr -s '\\t ' ' '; printf '%s' >&3; exec 3>&-; wait $p; s=$?; tr -d '\\000' <said; cat errors; exit $s; }",
             options, lines, until, more);
    return command_shell(line);
}

int main(int argc, char **argv) {
    (void)argc;
    char line[600];
    bitstack *stack;
    bitstack_error error;
    bitstack_matrix m;
    if (command_begin(argv[0], "one_budget") ||
        random_stack(command_file("big.bitstack"), WIDTH, HIDDEN, LAYERS, LEVELS, 512, NULL))
        return 1;

    TEST(
        "trim gives back a quarter, half or all of the blocks' bytes; what is left is that of the budget it tells");
    CHECK(bitstack_open_file(&stack, command_file("big.bitstack"), NULL, &error) == BITSTACK_OK, "%s",
          error.message);
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack), budget = 0;
    int half = 0;
    for (int level = 1; level <= 3; level++) {
        bitstack_set_budget(stack, 0, NULL);
        CHECK(bitstack_trim(stack, (bitstack_trim_level)level, &budget, &error) == BITSTACK_OK, "%s",
              error.message);
        uint64_t keeps = level == 3 ? 0 : (total - base) / 4 * (uint64_t)(level == 1 ? 3 : 2),
                 resident = bitstack_resident_bytes(stack);
        CHECK(budget >= base + keeps && budget <= base + keeps + 4 && resident <= budget &&
                  resident + (4 << 20) > budget,
              "level %d: %llu resident of %llu", level, (unsigned long long)resident,
              (unsigned long long)budget);
        int loaded = bitstack_blocks_loaded(stack);
        if (level == 2) half = loaded;
        bitstack_set_budget(stack, 0, NULL);
        bitstack_set_budget(stack, budget, NULL);
        CHECK(loaded == bitstack_blocks_loaded(stack) && (level < 3 || loaded == 0),
              "level %d: another prefix", level);
    }
    CHECK(bitstack_get_matrix(stack, 0, &m) == BITSTACK_OK && m.level == 0, "not all is gone");
    CHECK(bitstack_trim(stack, BITSTACK_TRIM_ALL, NULL, NULL) == BITSTACK_OK,
          "nothing to give is no failure");
    CHECK(bitstack_trim(stack, (bitstack_trim_level)4, &budget, &error) == BITSTACK_ERROR_ARGUMENT &&
              bitstack_trim(stack, (bitstack_trim_level)0, NULL, NULL) == BITSTACK_ERROR_ARGUMENT,
          "level 4, 0");
    bitstack_close(stack);

    TEST("what is shown is what the process takes, within 2 %, and no more than was given");
    static const char *const sizes[] = {"--memory 28MB", "--memory 40MB", "--budget 34MB"};
    double all = (double)total / 1e6;
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "%s -n 24", sizes[i]);
        CHECK(chat(line, "tell me something\\n:info\\n", "in all", ":quit\\n") == 0, "%s%s", command_out,
              command_err);
        double shown = after(command_out, "[in all: "), has = after(command_out, "RssAnon: ") * 1024 / 1e6,
               most = atof(sizes[i] + 9);
        CHECK(fabs(shown - has) < 0.02 * has, "%s: %.2f MB shown, %.2f MB taken", sizes[i], shown, has);
        if (i < 2) CHECK(has < 1.02 * most && has > 0.85 * most, "%s: %.2f MB", sizes[i], has);
        printf("      %.2f MB shown, %.2f MB taken of %s\n", shown, has, sizes[i] + 9);
    }

    TEST("a text that grows takes from the weights, and the chat says so; another number ends that");
    snprintf(line, sizeof line, "%.2f MB resident", all);
    CHECK(chat("--memory 31MB -n 100", ":info\\none\\n:info\\ntwo\\n:info\\n:budget all\\n:info\\n", line, "") == 0,
          "%s%s", command_out, command_err);
    double gave = 0;
    int said = 0;
    for (const char *at = command_out; (at = strstr(at, "[the weights gave ")); at++, said++)
        gave += atof(at + 18);
    double one = after(command_out, "[model: "), most = 0, least = 1e9;
    for (const char *at = command_out; (at = strstr(at, "[model: ")); at++) {
        double now = atof(at + 8);
        if (now > most) most = now;
        if (now < least) least = now;
    }
    CHECK(said >= 1 && gave > 1 && least < one && one < 31 && fabs(most - all) < 0.1,
          "gave %g MB in %d times; weights %g, least %g, at last %g of %g", gave, said, one, least, most,
          all);

    TEST("run with one number writes the same text each time, and says what is too little");
    CHECK(
        command_shell(
            "\"$B\" run big.bitstack --prompt a -n 80 --memory 31MB >a && \"$B\" run big.bitstack --prompt a -n 80 --memory 31MB >b && cmp a b") ==
                0 &&
            strstr(command_err, "the weights gave "),
        "%s%s", command_out, command_err);
    CHECK(command_fails("run big.bitstack --prompt a --memory 2MB", 1, "are needed before any block"),
          "too little");
    CHECK(command_fails("run big.bitstack --prompt a --memory 30MB --budget 3MB", 2, "not both"), "both");
    CHECK(command_fails("chat big.bitstack --memory 30MB --auto", 2, "one of"), "both");

    TEST(
        "without a number it is chosen from what is free, less a margin and the context, and told with the reason");
    CHECK(
        command_shell(
            "mkdir g && echo 100000000 >g/memory.max && echo max >g/memory.high && echo 20000000 >g/memory.current && : >g/memory.stat && "
            "BITSTACK_CGROUP=g \"$B\" run big.bitstack --prompt a -n 2 --temperature 0 >/dev/null") == 0,
        "%s", command_err);
    double chosen = after(command_err, "bitstack: "), margin = after(command_err, "less "),
           context = after(command_err, "margin and ");
    CHECK(fabs(after(command_err, "model's ") - all) < 0.01 &&
              fabs(before(command_err, " of memory are free") - 80) < 0.01 && fabs(margin - 2 * 16.78) < 0.02,
          "%s", command_err);
    CHECK(context > 512 * LAYERS * 2 * WIDTH * 2 / 1e6 && context < 1.2 * 512 * LAYERS * 2 * WIDTH * 2 / 1e6 &&
              fabs(chosen - ((double)base / 1e6 + 80 - margin - context)) < 0.02,
          "%s", command_err);
    CHECK(command_shell("BITSTACK_CGROUP=g \"$B\" plan big.bitstack --json") == 0 &&
              fabs(after(command_out, "\"budget_bytes\": ") / 1e6 - chosen) < 0.006,
          "run: %.4f; plan says otherwise: %s%s", chosen, command_out, command_err);
    CHECK(
        command_shell(
            "echo 2000000000 >g/memory.max && BITSTACK_CGROUP=g \"$B\" run big.bitstack --prompt a -n 2 --temperature 0 >all && \"$B\" run big.bitstack "
            "--prompt a -n 2 --temperature 0 --budget 1GB | cmp all -") == 0 &&
            !command_err[0],
        "all of it: %s", command_err);

    TEST("idle, a chat gives all blocks back, and goes on where it was");
    CHECK(
        command_shell(
            "rm -f said; { echo hello; i=0; while [ $i -lt 200 ] && ! grep -a -q asleep said; do echo :info; sleep 0.2; i=$((i + 1)); done; echo again; echo :info; } | "
            "\"$B\" chat big.bitstack --temperature 0 --budget 1GB -n 8 --idle 0.3 >said; tr -d '\\000' <said") ==
            0,
        "%s", command_err);
    snprintf(line, sizeof line, " 0 of %d blocks, asleep", LAYERS * 7 * LEVELS);
    const char *slept = strstr(command_out, line);
    CHECK(slept && strstr(slept, "112 of 112 blocks") && strstr(slept, " 2 turns, 0 forgotten"), "%s",
          command_out);
    CHECK(
        command_shell(
            "{ echo hello; echo again; } | \"$B\" chat big.bitstack --temperature 0 --budget 1GB -n 8 | grep -a -v '^\\[' >never; grep -a -v '^\\[' said | cmp never -") ==
            0,
        "other words: %s", command_out);

    TEST("chat gives memory back when it is told to");
    CHECK(command_shell(
              "printf ':trim 2\\n:trim 3\\n:trim 4\\n:trim\\n' | \"$B\" chat big.bitstack --budget 1GB") == 0,
          "%s", command_err);
    snprintf(line, sizeof line, " %d of 112 blocks]\n", half);
    CHECK(strstr(command_out, line) &&
              strstr(command_out,
                     " 0 of 112 blocks]\n[expected :trim 1, 2 or 3]\n[expected :trim 1, 2 or 3]\n"),
          "%s", command_out);
    remove(command_file("big.bitstack"));
    return TEST_DONE();
}
