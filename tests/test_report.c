/* A command that runs for long says how far it is within ten seconds, on a terminal or not. */
#include "test.h"
#include "examples/bitstack/report.h"

#include <sys/wait.h>

/* What a run of `seconds` that sends no word of its own for all that time says. */
static char *said(int quiet, int as_json, unsigned seconds) {
    const char *path = "build/tests/report.txt";
    size_t bytes;
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
    waitpid(child, NULL, 0);
    return (char *)test_read_file(path, &bytes);
}

int main(void) {
    TEST("a run without a terminal speaks within ten seconds, with phase, share and time left");
    char *text = said(0, 0, 10), *object = said(0, 1, 10), *nothing = said(1, 0, 10);
    CHECK(text && strstr(text, "bitstack: learning: 40 %, 0:1") && strstr(text, " left\n"), "%s", text ? text : "");
    CHECK(object && strstr(object, "{\"phase\": \"learning\", \"share\": 0.4000, \"seconds\": "), "%s", object ? object : "");
    CHECK(nothing && !*nothing, "%s", nothing ? nothing : "");
    free(text), free(object), free(nothing);
    return TEST_DONE();
}
