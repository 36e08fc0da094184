/* compress --resume: a run that was killed after any matrix goes on from there and ends in the bytes of one that was
 * not; a journal that is damaged, or another run's, is not believed. */
#include "test.h"
#include "make_gguf.h"
#include "examples/bitstack/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FOLDER "build/tests/resume/"
static const char *const out = FOLDER "out.bitstack", *const journal = FOLDER "out.bitstack.journal";

/* fsync of this program: whoever calls it for the journal says that a matrix more is safe. It is then, and at one of
 * these calls the process may be killed. */
static long *safe; /* shared with the child that compresses */
static long kill_at;
int fsync(int file) {
    struct stat a, b;
    int result = fdatasync(file);
    if (fstat(file, &a) || stat(journal, &b) || a.st_ino != b.st_ino) return result;
    if (++*safe == kill_at) kill(getpid(), SIGKILL);
    return result;
}

/* bitstack compress, in a child; its exit status, or minus the signal. *safe: the matrices it added to the journal. */
static int compress(const char *arguments, long killed_at) {
    static char line[1000];
    char *argv[32];
    int argc = 0, status;
    snprintf(line, sizeof line, "%s -o %s", arguments, out);
    for (char *word = strtok(line, " "); word && argc < 31; word = strtok(NULL, " ")) argv[argc++] = word;
    argv[argc] = NULL;
    *safe = 0, kill_at = killed_at;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(command_compress(argc, argv));
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

typedef struct bytes {
    unsigned char *data;
    size_t count;
} bytes;
static bytes load(const char *path) {
    bytes b = {NULL, 0};
    b.data = (unsigned char *)test_read_file(path, &b.count);
    return b;
}
static void save(const char *path, const void *data, size_t count) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, count, file) != count) printf("      cannot write %s\n", path);
    if (file) fclose(file);
}
static int same(bytes expected) {
    bytes now = load(out);
    int result = now.data && now.count == expected.count && !memcmp(now.data, expected.data, now.count);
    free(now.data);
    return result;
}
static void save_model(const char *path, uint64_t seed, size_t more, time_t when) {
    gguf_maker g;
    struct timespec times[2] = {{when, 0}, {when, 0}};
    make_tiny_llama(&g, seed);
    for (size_t i = 0; i < more; i++) make_raw(&g, "", 1);
    save(path, g.data, g.bytes);
    utimensat(AT_FDCWD, path, times, 0);
    free(g.data);
}

#define MODEL FOLDER "tiny.gguf"
#define REST " --self-share 0 --levels 2 --rank 1 --compress-embeddings no --quiet"
#define RUN MODEL " --calibrate " FOLDER "text.txt --threads 2 --probe 4" REST

int main(void) {
    static char text[400], other[400];
    enum { MATRICES = 14 };
    mkdir(FOLDER, 0777);
    safe = (long *)mmap(NULL, sizeof *safe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = other[i] = "the inner"[i * i % 9];
    other[200] = 'z'; /* in the middle of a row: probes are the beginnings */
    save(FOLDER "text.txt", text, strlen(text)), save(FOLDER "other.txt", other, strlen(other));
    save_model(MODEL, 3, 0, 1000000000);
    remove(out), remove(journal);

    TEST("a run killed after any matrix is gone on with from there, by any number of threads, and ends in the same bytes");
    CHECK(compress(RUN, 0) == 0 && *safe == 0, "without a journal");
    const bytes whole = load(out);
    remove(out);
    static const long kills[][2] = {{1, 0}, {4, 6}, {8, 5}, {MATRICES, 0}};
    for (size_t k = 0; k < sizeof kills / sizeof *kills; k++) {
        long done = 0;
        for (int i = 0; i < 2 && kills[k][i]; done += kills[k][i++])
            CHECK(compress(RUN " --resume", kills[k][i]) == -SIGKILL && access(out, F_OK) != 0, "not killed at matrix %ld", done + kills[k][i]);
        CHECK(compress(MODEL " --calibrate " FOLDER "text.txt --threads 1 --probe 4" REST " --resume", 0) == 0, "going on after %ld matrices", done);
        CHECK(*safe == MATRICES - done, "%ld matrices were safe, and %ld of %d are coded again", done, *safe, MATRICES);
        CHECK(same(whole), "killed after %ld matrices: other bytes", done);
        CHECK(access(journal, F_OK) != 0, "the journal is left");
        remove(out);
    }

    TEST("a damaged record is not believed");
    CHECK(compress(RUN " --resume", MATRICES) == -SIGKILL, "not killed");
    const bytes records = load(journal);
    CHECK(records.count > 8 + MATRICES * 1000, "%zu bytes", records.count);
    for (size_t i = 0; i < 8 && records.data; i++) { /* its key, and here and there up to the last byte */
        const size_t at = i ? records.count * i / 7 - 1 : 0;
        records.data[at] ^= (unsigned char)(1 << i);
        save(journal, records.data, records.count);
        records.data[at] ^= (unsigned char)(1 << i);
        CHECK(compress(RUN " --resume", 0) == 0 && same(whole), "byte %zu is believed", at);
        CHECK(i ? *safe >= 1 && *safe < MATRICES : *safe == MATRICES, "byte %zu: %ld matrices coded", at, *safe);
        remove(out);
    }

    TEST("another run's journal is not taken");
    static const struct {
        const char *what, *arguments;
        uint64_t seed;
        size_t more;
        time_t when;
    } others[] = {
        {"another model of the same size", RUN, 4, 0, 1000000002},
        {"another model of the same time", RUN, 4, 64, 1000000000},
        {"another text", MODEL " --calibrate " FOLDER "other.txt --probe 4" REST, 3, 0, 1000000000},
        {"two texts", MODEL " --calibrate " FOLDER "text.txt," FOLDER "other.txt --probe 4" REST, 3, 0, 1000000000},
        {"text of its own", MODEL " --probe 4" REST, 3, 0, 1000000000},
        {"no text", MODEL " --calibrate none --probe 4" REST, 3, 0, 1000000000},
        {"another share of its own text", RUN " --self-share 0.2", 3, 0, 1000000000},
        {"so much of its own text", RUN " --calibrate-self 300", 3, 0, 1000000000},
        {"other memory", RUN " --memory 3GB", 3, 0, 1000000000},
        {"another order", RUN " --order probes", 3, 0, 1000000000},
        {"another probe", MODEL " --calibrate " FOLDER "text.txt --probe 5" REST, 3, 0, 1000000000},
        {"another effort", RUN " --effort fast", 3, 0, 1000000000},
        {"another focus", RUN " --focus 1..2", 3, 0, 1000000000},
        {"no token weights", RUN " --token-weights no", 3, 0, 1000000000},
        {"other shrinkage", RUN " --shrink 0.5", 3, 0, 1000000000},
        {"other labels", RUN " --labels given", 3, 0, 1000000000},
        {"another seed", RUN " --seed 9", 3, 0, 1000000000},
        {"another rank", RUN " --method iabs --rank 2", 3, 0, 1000000000},
        {"other levels", RUN " --levels 3", 3, 0, 1000000000},
        {"another method", RUN " --method iabs", 3, 0, 1000000000},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char resumed[600];
        save_model(MODEL, others[i].seed, others[i].more, others[i].when);
        snprintf(resumed, sizeof resumed, "%s --resume", others[i].arguments);
        CHECK(compress(others[i].arguments, 0) == 0, "%s", others[i].what);
        const bytes fresh = load(out);
        save(journal, records.data, records.count);
        CHECK(compress(resumed, 0) == 0 && same(fresh), "%s: other bytes", others[i].what);
        CHECK(*safe == MATRICES, "%s: %ld matrices coded", others[i].what, *safe);
        free(fresh.data);
    }
    free(whole.data), free(records.data);
    remove(out);
    return TEST_DONE();
}
