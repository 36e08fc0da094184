/* Where a command's output goes, looked at before the work begins. */
#include "cli.h"
#include "../llm/platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_ROOM = 4096 };

/* Follows symbolic links to the name that is written to, which need not be there. -1 for too many or too long ones. */
static int follow_links(const char *path, char *to) {
    char next[PATH_ROOM];
    if (strlen(path) >= PATH_ROOM) return -1;
    strcpy(to, path);
    for (int links = 0; links < 40; links++) {
        long length = platform_link(to, next, sizeof next - 1);
        if (length < 0) return 0;
        next[length] = 0;
        char *slash = strrchr(to, '/');
        size_t folder = next[0] == '/' || !slash ? 0 : (size_t)(slash + 1 - to); /* links are from where they stand */
        if (folder + (size_t)length >= PATH_ROOM) return -1;
        memcpy(to + folder, next, (size_t)length + 1);
    }
    return -1;
}

int cli_output(const char **out) {
    static char path[PATH_ROOM], folder[PATH_ROOM];
    platform_status status;
    if (strcmp(*out, "-") == 0) return cli_failed("-o -: expected the name of a file: a stack is not written in one go");
    if (follow_links(*out, path) != 0) return cli_failed("%s: expected a name that leads to a file", *out);
    int there = platform_look(*out, &status) == 0; /* through all links, also those that name no path, such as /dev/stdout's */
    if (!there && errno != ENOENT) return cli_failed("%s: %s", *out, strerror(errno));
    static const char *const kinds[] = {NULL, "a folder", "a pipe", "a socket", "a device"};
    const char *what = there ? kinds[status.kind] : NULL;
    if (what) return cli_failed("%s: it is %s: expected the name of a file, new or to be replaced", *out, what);
    size_t length = strlen(path);
    if (!length || platform_is_separator(path[length - 1])) return cli_failed("%s: expected the name of a file", *out);
    strcpy(folder, path);
    while (length && !platform_is_separator(folder[length - 1])) length--;
    if (!length) strcpy(folder, ".");
    else folder[length == 1 || folder[length - 2] == ':' ? length : length - 1] = 0; /* the root, or a drive's, keeps it */
    if (platform_look(folder, &status) != 0) return cli_failed("%s: its folder, %s: %s", *out, folder, strerror(errno));
    if (status.kind != PLATFORM_FOLDER) return cli_failed("%s: %s is no folder", *out, folder);
    if (platform_may_create(folder) != 0) return cli_failed("%s: its folder, %s: %s", *out, folder, strerror(errno));
    *out = path;
    return CLI_OK;
}

FILE *cli_begin(const char *to, char **part) {
    *part = malloc(strlen(to) + 8);
    FILE *file = *part ? platform_open(strcat(strcpy(*part, to), ".part"), "wb") : NULL;
    if (file) return file;
    cli_failed("%s: %s", to, *part ? strerror(errno) : "out of memory");
    free(*part);
    return NULL;
}

int cli_end(FILE *file, char *part, const char *to) {
    errno = 0;
    int good = !ferror(file) && platform_flush(file) == 0, why = errno;
    good &= fclose(file) == 0;
    if (good && platform_replace(part, to) != 0) good = 0, why = errno;
    if (!good) platform_remove(part);
    free(part);
    return good ? CLI_OK : cli_failed("%s: %s", to, why ? strerror(why) : "could not be written");
}

/* What a command writes beside OUT: the library's and its own. */
static const char *const endings[] = {"", ".part", ".spool", ".journal", ".unordered", ".unordered.part", ".unordered.spool",
                                      ".import", ".import.part", ".import.spool"};
enum { ENDINGS = sizeof endings / sizeof *endings };

int cli_same_file(const char *input, const char *out) {
    platform_status from, to[ENDINGS];
    int there[ENDINGS], status = CLI_OK;
    char *path = malloc(strlen(out) + strlen(input) + 300); /* a name in a folder has 255 bytes at most */
    if (!path) return cli_failed("%s: out of memory", out);
    for (int i = 0; i < ENDINGS; i++) {
        sprintf(path, "%s%s", out, endings[i]);
        there[i] = platform_look(path, &to[i]) == 0;
    }
    int found = platform_look(input, &from) == 0;
    platform_folder *folder = found && from.kind == PLATFORM_FOLDER ? platform_folder_open(input) : NULL;
    snprintf(path, strlen(input) + 1, "%s", input);
    for (const char *entry; found && status == CLI_OK; ) {
        if (folder) {
            if (!(entry = platform_folder_next(folder))) break;
            snprintf(path, strlen(input) + 300, "%s/%s", input, entry);
            if (platform_look(path, &from) != 0) continue;
        }
        for (int i = 0; i < ENDINGS && status == CLI_OK; i++)
            if (there[i] && from.kind == PLATFORM_FILE && from.device == to[i].device && from.number == to[i].number)
                status = cli_failed("%s: expected another -o: writing %s would write over it", path, out);
        if (!folder) break;
    }
    if (folder) platform_folder_close(folder);
    free(path);
    return status;
}
