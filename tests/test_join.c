/* Parts that were compressed by several processes, one of them killed half-way and started again, are joined into the
 * bytes of one run; parts that do not belong together, or are not whole, are refused. */
#include "test.h"
#include "make_gguf.h"
#include "examples/bitstack/cli.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FOLDER "build/tests/join/"
#define MODEL FOLDER "tiny.gguf"
#define OPTIONS " --calibrate-self 300 --levels 2 --rank 1 --probe 6 --threads 1 --quiet"
static const char *const out = FOLDER "out.bitstack";

/* As in test_resume.c: fsync tells when a matrix is safe in the journal `watched`, and may be the end of the process. */
static const char *watched = "";
static long kill_at;
int fsync(int file) {
    static long safe;
    struct stat a, b;
    int result = fdatasync(file);
    if (fstat(file, &a) || stat(watched, &b) || a.st_ino != b.st_ino) return result;
    if (++safe == kill_at) kill(getpid(), SIGKILL);
    return result;
}

typedef int (*command)(int argc, char **argv);

/* Starts a command on `arguments`, its messages going to FOLDER "err". */
static pid_t start(command run, const char *arguments, long killed_at) {
    static char line[1000];
    char *argv[40];
    int argc = 0;
    snprintf(line, sizeof line, "%s", arguments);
    for (char *word = strtok(line, " "); word && argc < 39; word = strtok(NULL, " ")) argv[argc++] = word;
    argv[argc] = NULL;
    kill_at = killed_at;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int status = freopen(FOLDER "err", "w", stderr) ? run(argc, argv) : 99;
        fflush(stderr);
        _exit(status);
    }
    return child;
}

/* Its exit status, or minus the signal. */
static int ended(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int run(command c, const char *arguments) { return ended(start(c, arguments, 0)); }

static int says(const char *words) {
    size_t bytes;
    char *text = (char *)test_read_file(FOLDER "err", &bytes);
    int found = text && strstr(text, words);
    if (!found) printf("      %s", text ? text : "nothing\n");
    free(text);
    return found;
}

static int same_files(const char *a, const char *b) {
    size_t bytes[2];
    void *data[2] = {test_read_file(a, &bytes[0]), test_read_file(b, &bytes[1])};
    int same = data[0] && data[1] && bytes[0] == bytes[1] && memcmp(data[0], data[1], bytes[0]) == 0;
    free(data[0]), free(data[1]);
    return same;
}

static void save_model(const char *path, uint64_t seed) {
    gguf_maker g;
    make_tiny_llama_of(&g, seed, 6);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(g.data, 1, g.bytes, file) != g.bytes) printf("      cannot write %s\n", path);
    if (file) fclose(file);
    free(g.data);
}

static void make_parts(const char *options, int parts, int killed, long killed_at, const int *expected) {
    pid_t children[8];
    char line[500], journal[100];
    for (int k = 0; k < parts; k++) {
        snprintf(line, sizeof line, MODEL " -o %s --part %d/%d%s", out, k + 1, parts, options);
        snprintf(journal, sizeof journal, "%s.part-%d-of-%d", out, k + 1, parts);
        watched = journal;
        children[k] = start(command_compress, line, k == killed ? killed_at : 0);
    }
    for (int k = 0; k < parts; k++) {
        int status = ended(children[k]);
        CHECK(status == (k == killed ? *expected : 0), "part %d of %d: %d", k + 1, parts, status);
    }
}

int main(void) {
    static const int killed = -SIGKILL, fine = 0;
    mkdir(FOLDER, 0777);
    if (system("rm -f " FOLDER "*")) return 1;
    save_model(MODEL, 3);

    TEST("four processes at once, one of them killed half-way and started again, make what one makes");
    CHECK(run(command_compress, MODEL " -o " FOLDER "whole.bitstack --tune 0" OPTIONS) == 0, "one run");
    make_parts(OPTIONS, 4, 1, 9, &killed); /* of the second, third ... layer's matrices: after the second of layer 5 */
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --quiet") == 1, "joined without all");
    CHECK(says("part-2-of-4: has 9 of 14 matrices") && access(out, F_OK) != 0, "not said which");
    CHECK(run(command_compress, MODEL " -o " FOLDER "out.bitstack --part 2/4" OPTIONS) == 0, "not going on");
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --quiet") == 0, "not joined");
    CHECK(same_files(out, FOLDER "whole.bitstack"), "other bytes");
    CHECK(access(FOLDER "out.bitstack.part-2-of-4", F_OK) != 0, "parts are left");

    TEST("so do two, and the order that the paper measures");
    CHECK(run(command_compress, MODEL " -o " FOLDER "whole.bitstack --order paper --tune 0" OPTIONS) == 0, "one run");
    make_parts(" --order paper" OPTIONS, 2, -1, 0, &fine);
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --keep --quiet") == 0 && same_files(out, FOLDER "whole.bitstack"), "other bytes");
    CHECK(access(FOLDER "out.bitstack.part-2-of-2", F_OK) == 0, "parts were to be kept");

    TEST("parts that do not belong together, or to the model, are refused");
    remove(out);
    CHECK(run(command_compress, MODEL " -o " FOLDER "out.bitstack --part 2/2 --shrink 0.5 --order paper" OPTIONS) == 0, "part");
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --quiet") == 1 && says("part-2-of-2: made with other options"), "other options");
    save_model(FOLDER "other.gguf", 4);
    CHECK(run(command_join, FOLDER "other.gguf -o " FOLDER "out.bitstack --quiet") == 1 && says("part-1-of-2: made of another model"), "another model");
    CHECK(truncate(FOLDER "out.bitstack.part-1-of-2", 100) == 0, "truncate");
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --quiet") == 1 && says("part-1-of-2: expected a part of 2"), "a head cut short");
    CHECK(rename(FOLDER "out.bitstack.part-2-of-2", FOLDER "out.bitstack.part-1-of-2") == 0, "rename");
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --quiet") == 1 && says("expected part 1 of 2"), "the wrong part");
    remove(FOLDER "out.bitstack.part-1-of-2");
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --quiet") == 1 && says("expected to be there"), "no parts");
    CHECK(run(command_join, MODEL " -o " FOLDER "out.bitstack --parts 3 --quiet") == 1 && says("part-1-of-3: expected a part of 3"), "none of these");
    CHECK(run(command_compress, MODEL " -o " FOLDER "out.bitstack --part 3/2" OPTIONS) == 2 && says("--part: expected K/N"), "a part too many");
    CHECK(access(out, F_OK) != 0, "something was made");
    return TEST_DONE();
}
