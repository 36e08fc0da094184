/* command.h - runs build/bitstack from a test, in a folder of the test's own. */
#ifndef BITSTACK_TEST_COMMAND_H
#define BITSTACK_TEST_COMMAND_H

#include "test.h"

#include <sys/stat.h>
#include <sys/wait.h>

static char command_path[1024], command_folder[1024], command_out[1 << 20], command_err[1 << 16];

/* A path in the test's folder; the text lives until the eighth call after. */
static inline const char *command_file(const char *name) {
    static char paths[8][1300];
    static int slot;
    slot = (slot + 1) % 8;
    snprintf(paths[slot], sizeof paths[slot], "%s/%s", command_folder, name);
    return paths[slot];
}

/* Makes build/tests/NAME, empty; argv0 is the test's own path, beside which the command is. 0 on success. */
static inline int command_begin(const char *argv0, const char *name) {
    char cwd[600], clean[1300];
    const char *slash = strrchr(argv0, '/');
    int length = slash ? (int)(slash - argv0) : 0;
    if (!getcwd(cwd, sizeof cwd) || length > 300) return 1;
    if (argv0[0] == '/') cwd[0] = 0;
    else strcat(cwd, "/");
    snprintf(command_path, sizeof command_path, "%s%.*s/../bitstack", cwd, length, argv0);
    snprintf(command_folder, sizeof command_folder, "%s%.*s/%s", cwd, length, argv0, name);
    mkdir(command_folder, 0777);
    snprintf(clean, sizeof clean, "rm -rf '%s'/*", command_folder);
    return system(clean);
}

static inline void command_slurp_(const char *name, char *to, size_t room) {
    FILE *file = fopen(command_file(name), "rb");
    size_t bytes = file ? fread(to, 1, room - 1, file) : 0;
    to[bytes] = 0;
    if (file) fclose(file);
}

/* Runs a shell line in the folder, $B being the command; its exit status, with what it printed in command_out
 * and command_err. */
static inline int command_shell(const char *line) {
    static char all[8000];
    snprintf(all, sizeof all, "cd '%s' && export B='%s' && { %s\n} >out 2>err </dev/null", command_folder, command_path, line);
    int status = system(all);
    command_slurp_("out", command_out, sizeof command_out);
    command_slurp_("err", command_err, sizeof command_err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}
static inline int command_run(const char *arguments) {
    static char line[3000];
    snprintf(line, sizeof line, "\"$B\" %s", arguments);
    return command_shell(line);
}

/* Fails as it should: status, one line on stderr that starts with "bitstack: " and holds `words`, nothing else. */
static inline int command_fails(const char *arguments, int status, const char *words) {
    int got = command_run(arguments);
    const char *end = strchr(command_err, '\n');
    int good = got == status && end && !end[1] && strncmp(command_err, "bitstack: ", 10) == 0 && strstr(command_err, words) && !command_out[0];
    if (!good) printf("      bitstack %s: status %d, stdout '%.60s', stderr '%.300s'\n", arguments, got, command_out, command_err);
    return good;
}

static inline int command_save(const char *name, const void *data, size_t bytes) {
    FILE *file = fopen(command_file(name), "wb");
    int good = file && fwrite(data, 1, bytes, file) == bytes;
    if (file) fclose(file);
    return good ? 0 : 1;
}
static inline int command_exists(const char *name) { return access(command_file(name), F_OK) == 0; }
#endif
