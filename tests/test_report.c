/* A command that runs for long says how far it is within ten seconds, on a terminal or not. */
#include "test.h"
#include "examples/bitstack/report.h"

#include <sys/wait.h>

static const char *const paths[3] = {"build/tests/report-text.txt", "build/tests/report-json.txt", "build/tests/report-quiet.txt"};

/* A run of `seconds` that sends no word of its own for all that time, as a process beside this one. */
static pid_t begin(const char *path, int quiet, int as_json, unsigned seconds) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        report r;
        if (!freopen(path, "w", stderr)) _exit(9);
        report_begin(&r, quiet, as_json, 2);
        report_phase(&r, "learning", 0.2, 0.6);
        report_show(&r, 0.5);
        sleep(seconds);
        report_end(&r);
        fflush(stderr);
        _exit(0);
    }
    return child;
}

static char *said(const char *path, pid_t child) {
    size_t bytes;
    waitpid(child, NULL, 0);
    return (char *)test_read_file(path, &bytes);
}

int main(void) {
    TEST("a run without a terminal speaks within ten seconds, with phase, share and time left");
    pid_t children[3];
    for (int i = 0; i < 3; i++) children[i] = begin(paths[i], i == 2, i == 1, 10);
    char *text = said(paths[0], children[0]), *object = said(paths[1], children[1]), *nothing = said(paths[2], children[2]);
    CHECK(text && strstr(text, "bitstack: learning: 40 %, 0:1") && strstr(text, " left\n"), "%s", text ? text : "");
    CHECK(object && strstr(object, "{\"phase\": \"learning\", \"share\": 0.4000, \"seconds\": "), "%s", object ? object : "");
    CHECK(nothing && !*nothing, "%s", nothing ? nothing : "");
    CHECK(text && object && test_only_progress(text) && test_only_progress(object), "%s%s", text ? text : "", object ? object : "");
    CHECK(!test_only_progress("bitstack: m.gguf: no such file\n"), "a message passes for progress");
    free(text), free(object), free(nothing);
    return TEST_DONE();
}
