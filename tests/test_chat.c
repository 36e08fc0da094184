/* A conversation keeps what was said, forgets the oldest turns when there is no more room and says so, and the
 * command obeys its lines. With no blocks loaded the model of these tests says what its head was made to say. */
#include "command.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include "random_stack.h"
#include "examples/bitstack/line.h"
#include "examples/bitstack/session.h"
#include "examples/llm/conversation.h"

static int next[WORDS];

/* After each byte of the text its next one; after all else itself. */
static void parrot(const char *text) {
    for (int i = 0; i < WORDS; i++) next[i] = i;
    for (; text[1]; text++) next[WORD_BYTES + (unsigned char)text[0]] = WORD_BYTES + (unsigned char)text[1];
}

/* The whole answer to a line. */
static const char *answer(llm_conversation *c, const char *line, uint32_t most) {
    static char all[4096];
    llm_sampler greedy = {0, 1, 1};
    size_t used = 0, bytes;
    if (llm_conversation_say(c, line, strlen(line)) != 0) return "(refused)";
    for (uint32_t i = 0; i < most && used + 600 < sizeof all; i++) {
        int more = llm_conversation_next(c, &greedy, all + used, &bytes);
        used += bytes;
        if (more < 1) break;
    }
    llm_conversation_stop(c);
    all[used] = 0;
    return all;
}

/* Logits of what comes next. */
static void look(llm_generator *g, float *logits) {
    llm_sampler greedy = {0, 1, 1};
    uint32_t count = g->count;
    llm_generator_next(g, &greedy);
    memcpy(logits, g->logits, WORDS * sizeof *logits);
    g->count = count;
    g->state.position = count;
}

enum { NO_TERMINAL = 998 };
static volatile sig_atomic_t stopped;
static void *interrupt_soon(void *unused) {
    usleep(50000);
    stopped = 1;
    return unused;
}

/* Talks to the command over a terminal: waits for each text in turn, then types what is beside it. The exit status, with all
 * that was shown in command_out; 999 if a text, or the end, did not come within some seconds. */
static int typed(const char *arguments, const char *const (*steps)[2], size_t count) {
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), status = 999 << 8;
    size_t used = 0, from = 0;
    command_out[0] = 0;
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) return NO_TERMINAL;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        int other = open(ptsname(terminal), O_RDWR); /* becomes the controlling one */
        char line[4000];
        dup2(other, 0), dup2(other, 1), dup2(other, 2);
        signal(SIGINT, SIG_DFL);
        setenv("TERM", "xterm", 1);
        snprintf(line, sizeof line, "cd '%s' && exec '%s' %s", command_folder, command_path, arguments);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    for (size_t i = 0; i <= count; i++) {
        const char *found = NULL;
        for (time_t limit = time(NULL) + 20; time(NULL) < limit && !found; ) {
            struct pollfd ready = {terminal, POLLIN, 0};
            ssize_t got = poll(&ready, 1, 50) > 0 ? read(terminal, command_out + used, sizeof command_out - 1 - used) : 0;
            if (got < 0 || used + 1 == sizeof command_out) break; /* it has ended, or says too much */
            used += (size_t)got;
            command_out[used] = 0;
            for (size_t k = 0; k < used; k++)
                if (!command_out[k]) command_out[k] = '0'; /* a model may say anything */
            if (i < count) found = strstr(command_out + from, steps[i][0]);
        }
        if (i == count || !found) break;
        from = (size_t)(found - command_out) + strlen(steps[i][0]);
        if (write(terminal, steps[i][1], strlen(steps[i][1])) < 0) break;
        if (i + 1 == count) status = 0;
    }
    int ended, gone = 0;
    for (int tries = 0; tries < 400 && !status && !(gone = waitpid(child, &ended, WNOHANG) == child); tries++) usleep(50000);
    if (!gone) kill(child, SIGKILL), waitpid(child, &ended, 0);
    close(terminal);
    return !gone ? 999 : WIFEXITED(ended) ? WEXITSTATUS(ended) : 1000;
}

int main(int argc, char **argv) {
    (void)argc;
    if (command_begin(argv[0], "chat")) return 1;
    session s;
    session_options options;
    llm_conversation c;
    llm_error error;
    resizer_state now;
    char line[600];
    float expected[WORDS], got[WORDS];
    memset(&options, 0, sizeof options);

    TEST("an answer ends where the user's next turn would begin, or at the end mark; neither is shown or kept");
    parrot(":ok!\nUser:");
    CHECK(random_stack(command_file("ok.bitstack"), 128, 128, 1, 2, 128, next) == 0, "no stack");
    parrot(":ok!");
    next[WORD_BYTES + '!'] = WORD_END;
    CHECK(random_stack(command_file("end.bitstack"), 128, 128, 1, 2, 128, next) == 0, "no stack");
    static const char *const files[2] = {"ok.bitstack", "end.bitstack"};
    for (int i = 0; i < 2; i++) {
        CHECK(session_open(&s, command_file(files[i]), &options, &error) == 0, "%s", error.message);
        resizer_ask(s.resizer, &now);
        CHECK(resizer_budget(s.resizer, now.base) == 0, "base");
        resizer_wait(s.resizer);
        CHECK(llm_conversation_init(&c, &s.model, &s.tokenizer, 0, NULL) == 0, "no memory");
        CHECK(c.generator.count == 1 && c.kept == 1, "begins with %u tokens", c.generator.count);
        const char *said = answer(&c, "hi", 50);
        CHECK(strcmp(said, "ok!") == 0, "said '%s'", said);
        uint32_t turn = c.generator.count - c.kept; /* "User: hi\nAssistant:ok!", spaces as marks of three bytes */
        CHECK(turn == 19 + 2 * 2 + 1 * 3 + 3 - 1 - 1, "a turn of %u tokens", turn);
        said = answer(&c, "hi", 50);
        CHECK(strcmp(said, "ok!") == 0 && c.count == 2 && c.generator.count == c.kept + 2 * turn - 3 + 1, "then '%s', %u tokens", said, c.generator.count);

        for (int k = 0; k < 6; k++) {
            said = answer(&c, "hi", 50);
            CHECK(strcmp(said, "ok!") == 0, "turn %d: '%s'", k, said);
        }
        CHECK(c.forgotten > 0 && c.count + c.forgotten == 8 && c.generator.count <= 128, "%zu turns and %zu forgotten", c.count, c.forgotten);
        CHECK(strcmp(answer(&c, "a line that is longer than all of the context can be, at one byte a token, and three a space, as this "
                            "tokenizer has them", 9), "(refused)") == 0, "taken");
        llm_conversation_reset(&c);
        CHECK(c.count == 0 && c.generator.count == c.kept && c.forgotten == 0, "not reset");
        llm_conversation_free(&c);
        session_close(&s);
    }

    TEST("a full context forgets the oldest turns, and goes on as if they had never been");
    random_stack_has_tables = 0; /* batches and single tokens are compared to the last digits */
    CHECK(random_stack(command_file("short.bitstack"), 256, 512, 2, 3, 96, NULL) == 0 && session_open(&s, command_file("short.bitstack"), &options, &error) == 0 &&
          llm_conversation_init(&c, &s.model, &s.tokenizer, 0, NULL) == 0, "%s", error.message);
    for (size_t k = 0, before = 0, times = 0; times < 5 && !test_bad_; k++, before = c.forgotten) {
        answer(&c, k % 3 ? "hi" : "hello there", (uint32_t)(4 + k % 5));
        if (c.forgotten == before) continue;
        times++;
        llm_generator fresh;
        CHECK(llm_generator_init(&fresh, &s.model, 0) == 0, "no memory");
        llm_generator_add(&fresh, c.generator.ids, c.generator.count);
        look(&fresh, expected), look(&c.generator, got);
        for (int i = 0; i < WORDS; i++) CHECK(fabsf(expected[i] - got[i]) < 1e-4f, "logit %d is %g, not %g", i, (double)got[i], (double)expected[i]);
        CHECK(c.generator.ids[0] == 1 && c.count < k + 1 && c.starts[0] == c.kept && c.generator.ids[c.kept] == WORD_BYTES + 'U', "%zu turns, from %u", c.count, c.starts[0]);
        llm_generator_free(&fresh);
    }
    llm_conversation_free(&c);
    session_close(&s);

    random_stack_has_tables = 1;

    TEST("what the model is told first is never forgotten");
    CHECK(session_open(&s, command_file("ok.bitstack"), &options, &error) == 0 && llm_conversation_init(&c, &s.model, &s.tokenizer, 0, "Be kind.") == 0, "%s", error.message);
    uint32_t first[128], kept = c.kept;
    memcpy(first, c.generator.ids, kept * sizeof *first);
    CHECK(kept >= 10, "%u tokens", kept);
    for (int k = 0; k < 9; k++) answer(&c, "hello", 9);
    CHECK(c.forgotten > 0 && c.kept == kept && memcmp(first, c.generator.ids, kept * sizeof *first) == 0, "forgotten");
    uint64_t base;
    resizer_ask(s.resizer, &now);
    base = now.base;
    llm_conversation_free(&c);
    session_close(&s);

    TEST("the command answers lines and obeys those with a colon");
    snprintf(line, sizeof line, "printf 'hi\\n\\nagain\\n:info\\n:reset\\n:info\\nend' | \"$B\" chat ok.bitstack --temperature 0 --budget %llu", (unsigned long long)base);
    CHECK(command_shell(line) == 0 && strncmp(command_out, "ok!\nok!\n[model: ", 16) == 0 && strstr(command_out, " 2 turns, 0 forgotten") &&
          strstr(command_out, " 0 turns, 0 forgotten") && strcmp(command_out + strlen(command_out) - 4, "ok!\n") == 0 && !command_err[0], "%s%s", command_out, command_err);
    snprintf(line, sizeof line, "printf ':budget %llu\\nhi\\n:budget 1\\n:budget x\\n:budget all\\n:budget auto\\n:what\\n:quit\\nhi\\n' | \"$B\" chat ok.bitstack --temperature 0", (unsigned long long)base);
    CHECK(command_shell(line) == 0, "%s", command_err);
    static const char *const replies[] = {" resident, 0 of 14 blocks]\nok!\n", "[expected at least ", "[expected :budget and a size", " resident, 14 of 14 blocks]\n",
                                          "[expected :budget, :info"};
    const char *at = command_out;
    for (size_t i = 0; i < sizeof replies / sizeof *replies && at; i++) {
        at = strstr(at, replies[i]);
        CHECK(at, "no '%s' in order: %s", replies[i], command_out);
    }
    CHECK(at && !strstr(at, "ok!"), "went on after :quit");
    CHECK(command_shell("for i in 1 2 3 4 5 6 7 8; do echo hi; done | \"$B\" chat ok.bitstack --temperature 0 -n 5") == 0 && strstr(command_out, "[the context is full: the oldest "), "%s", command_out);
    CHECK(command_shell("for i in 1 2 3 4 5 6 7 8; do printf 'a long line, '; done | \"$B\" chat ok.bitstack") == 0 && strstr(command_out, "[longer than the context"), "%s", command_out);

    TEST("while it talks, a budget changes the size under way, and automatic ones follow a group's memory");
    snprintf(line, sizeof line, "{ echo go; sleep 0.1; echo :budget 900KB; sleep 0.1; echo :info; echo :quit; } | timeout 20 \"$B\" chat big.bitstack -n 1000000 --live | tr -d '\\000'");
    CHECK(random_stack(command_file("big.bitstack"), 256, 512, 2, 3, 4096, NULL) == 0 && command_shell(line) == 0, "%s", command_err);
    CHECK(strstr(command_out, " of 42 blocks; budget 900.00 KB") && !strstr(command_out, "42 of 42"), "%s", command_out);
    CHECK(command_shell("mkdir g && echo 1000000000 >g/memory.max && echo 999000000 >g/memory.current && printf ':info\\n' | BITSTACK_CGROUP=g \"$B\" chat big.bitstack --auto --min 1MB") == 0 &&
          strstr(command_out, "[memory: 1.00 MB free of 1.00 GB") && !strstr(command_out, "42 of 42"), "%s%s", command_out, command_err);
    CHECK(command_shell("echo 1000000 >g/memory.current && printf ':info\\n' | BITSTACK_CGROUP=g \"$B\" chat big.bitstack --auto --max 1.1MB") == 0 &&
          strstr(command_out, "budget 1.10 MB"), "%s%s", command_out, command_err);

    TEST("a line that comes while an answer is written is answered next, however long it is");
    CHECK(command_shell("mkfifo in && { timeout 20 \"$B\" chat big.bitstack -n 300 --live <in >said & } && exec 3>in && echo go >&3 && "
                        "i=0; while [ ! -s said ] && [ $i -lt 2000 ]; do sleep 0.01; i=$((i + 1)); done; echo go >&3; sleep 0.05; echo :info >&3; echo :quit >&3; exec 3>&-; wait; tr -d '\\000' <said") == 0 &&
          strstr(command_out, " 2 turns, "), "%s%s", command_out, command_err);

    TEST("a line that has no room is left out whole: what stands in its middle is no command");
    CHECK(command_shell("{ head -c 65536 /dev/zero | tr '\\000' x; echo :quit; echo :info; head -c 200000 /dev/zero | tr '\\000' x; echo; echo :info; "
                        "head -c 70000 /dev/zero | tr '\\000' x; } | \"$B\" chat ok.bitstack") == 0, "%s", command_err);
    at = command_out;
    for (int i = 0; i < 2 && at; i++) {
        at = strstr(at, "[a line of more than 65535 bytes is left out]\n[model: ");
        CHECK(at, "%d: %s", i, command_out);
        if (at) at++;
    }
    CHECK(at && strstr(at, "[a line of more") && !strstr(command_out, "ok!"), "%s", command_out);

    TEST("a message may have several lines");
    snprintf(line, sizeof line, "printf 'one\\\\\\ntwo\\n:info\\n\"\"\"\\na\\n\\nb\\n\"\"\"\\n:info\\n\"\"\"c\\nd\"\"\"\\n:info\\n' | \"$B\" chat ok.bitstack --temperature 0 --budget %llu", (unsigned long long)base);
    CHECK(command_shell(line) == 0, "%s", command_err);
    CHECK(strstr(command_out, " 1 turns, 0 forgotten") && strstr(command_out, " 2 turns, 0 forgotten") && strstr(command_out, " 3 turns, 0 forgotten"), "%s", command_out);

    TEST("an interruption ends the wait for a line even where no signal ends it, as it may come just before");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { /* nothing to read, and by nobody but this thread is it woken */
        int ends[2];
        pthread_t other;
        alarm(20);
        if (pipe(ends) != 0 || dup2(ends[0], 0) != 0 || pthread_create(&other, NULL, interrupt_soon, NULL) != 0) _exit(9);
        _exit(line_wait(&stopped) == 0 && line_wait(&stopped) == 0 && write(ends[1], "x", 1) == 1 && (stopped = 0, line_wait(&stopped)) == 1 ? 0 : 1);
    }
    int ended = -1;
    CHECK(waitpid(child, &ended, 0) == child && ended == 0, "the child ended with %d", ended);

    TEST("on a terminal lines are edited, come back, and are pasted whole; Ctrl-C ends an answer, and a second one the talk");
    char begin[100];
    snprintf(begin, sizeof begin, "chat ok.bitstack --temperature 0 --budget %llu", (unsigned long long)base);
    static const char *const edits[][2] = {{"> ", "yhx\x7fi\x01\x04\r"}, {"ok!", ""}, {"> ", "\033[A\r"}, {"hi", ""}, {"ok!", ""}, {"> ", "\033[200~one\ntwo\033[201~\r"}, {"one|two", ""},
        {"ok!", ""}, {"> ", ":info\r"}, {" 3 turns, 0 forgotten", ""}, {"> ", "ab\x03"}, {"Ctrl-C again", ""}, {"> ", "hi\r"}, {"ok!", ""}, {"> ", "\x03"}, {"Ctrl-C again", "\x03"}};
    int talked = typed(begin, edits, sizeof edits / sizeof *edits);
    if (talked == NO_TERMINAL) SKIP("no terminal can be made here");
    else CHECK(talked == 0, "%s", command_out);
    static const char *const interrupts[][2] = {{"> ", "go\r"}, {"\n", ""}, {"\n", ""}, {"", "\x03"}, {"> ", ":info\r"}, {" 1 turns, 0 forgotten", ""}, {"> ", ":quit\r"}};
    if (talked != NO_TERMINAL)
        CHECK(typed("chat big.bitstack -n 1000000 --seed 3", interrupts, sizeof interrupts / sizeof *interrupts) == 0, "%.2000s", command_out);

    TEST("a prompt that is longer than the context is cut where that is said, and keeps its begin mark");
    CHECK(command_shell("p=$(head -c 300 /dev/zero | tr '\\000' h); \"$B\" run ok.bitstack --prompt \"$p\" -n 3 --temperature 0") == 0 &&
          strncmp(command_err, "bitstack: note: the prompt has ", 31) == 0 && strstr(command_err, "in the context of 128: the first "), "%s", command_err);
    CHECK(command_shell("p=$(head -c 300 /dev/zero | tr '\\000' h); \"$B\" run ok.bitstack --prompt \"$p\" -n 3 --temperature 0 --context 1000") == 0 && !command_err[0], "%s", command_err);
    CHECK(command_shell("p=$(head -c 300 /dev/zero | tr '\\000' h); echo hi | \"$B\" chat ok.bitstack --system \"$p\"") == 0 && strstr(command_err, "longer than half of the context"), "%s", command_err);

    TEST("run takes no more of the standard input than the stack that comes first in it");
    CHECK(command_shell("{ cat big.bitstack; head -c 30000000 /dev/zero && echo >taken; } 2>/dev/null | timeout 20 \"$B\" run - --prompt a -n 2000 >said") == 0 &&
          !command_exists("taken"), "%s", command_err);

    TEST("blocks that are damaged are left out, and said to be when all is written");
    size_t bytes;
    unsigned char *file = (unsigned char *)test_read_file(command_file("ok.bitstack"), &bytes);
    CHECK(file && command_run("run ok.bitstack --prompt a -n 3") == 0 && !command_err[0], "%s", command_err);
    for (size_t i = 1; file && i <= 64; i++) file[bytes - i] ^= 16; /* of the last block, and more than any padding */
    CHECK(file && command_save("bad.bitstack", file, bytes) == 0, "no file");
    free(file);
    CHECK(command_run("run bad.bitstack --prompt a -n 3") == 0 && command_out[0] == 'a' &&
          strcmp(command_err, "bitstack: bad.bitstack: 1 of 14 blocks were left out: they are damaged or could not be read\n") == 0, "%s", command_err);
    CHECK(command_shell("echo :info | \"$B\" chat bad.bitstack") == 0 && strstr(command_out, "14 of 14 blocks, 1 damaged"), "%s", command_out);

    TEST("bad usage is refused in one line");
    CHECK(command_fails("chat", 2, "missing") && command_fails("chat -", 2, "standard input"), "file");
    CHECK(command_fails("chat ok.bitstack --auto --budget 1MB", 2, "not both") && command_fails("chat ok.bitstack --min 1MB", 2, "--auto"), "auto");
    CHECK(command_fails("chat ok.bitstack --auto --min 2MB --max 1MB", 2, "--min") && command_fails("chat ok.bitstack --context 3", 2, "--context"), "range");
    CHECK(command_fails("chat none.bitstack", 1, "none.bitstack: ") && command_fails("chat ok.bitstack --budget 1", 1, "ok.bitstack: "), "not there, too small");
    return TEST_DONE();
}
