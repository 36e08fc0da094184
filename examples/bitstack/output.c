/* Where a command's output goes, looked at before the work begins. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = 4096 };

/* Follows symbolic links to the name that is written to, which need not be there. -1 for too many or too long ones. */
static int follow_links(const char *path, char *to) {
    char next[PATH_ROOM];
    if (strlen(path) >= PATH_ROOM) return -1;
    strcpy(to, path);
    for (int links = 0; links < 40; links++) {
        ssize_t length = readlink(to, next, sizeof next - 1);
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
    struct stat status;
    if (strcmp(*out, "-") == 0) return cli_failed("-o -: expected the name of a file: a stack is not written in one go");
    if (follow_links(*out, path) != 0) return cli_failed("%s: expected a name that leads to a file", *out);
    int there = stat(*out, &status) == 0; /* through all links, also those that name no path, such as /dev/stdout's */
    if (!there && errno != ENOENT) return cli_failed("%s: %s", *out, strerror(errno));
    const char *what = !there || S_ISREG(status.st_mode) ? NULL : S_ISDIR(status.st_mode) ? "a folder" : S_ISFIFO(status.st_mode) ? "a pipe"
                       : S_ISSOCK(status.st_mode) ? "a socket" : "a device";
    if (what) return cli_failed("%s: it is %s: expected the name of a file, new or to be replaced", *out, what);
    size_t length = strlen(path);
    if (!length || path[length - 1] == '/') return cli_failed("%s: expected the name of a file", *out);
    strcpy(folder, path);
    char *slash = strrchr(folder, '/');
    if (!slash) strcpy(folder, ".");
    else slash[slash == folder] = 0;
    if (stat(folder, &status) != 0) return cli_failed("%s: its folder, %s: %s", *out, folder, strerror(errno));
    if (!S_ISDIR(status.st_mode)) return cli_failed("%s: %s is no folder", *out, folder);
    if (access(folder, W_OK | X_OK) != 0) return cli_failed("%s: its folder, %s: %s", *out, folder, strerror(errno));
    *out = path;
    return CLI_OK;
}

FILE *cli_begin(const char *to, char **part) {
    *part = malloc(strlen(to) + 8);
    FILE *file = *part ? fopen(strcat(strcpy(*part, to), ".part"), "wb") : NULL;
    if (file) return file;
    cli_failed("%s: %s", to, *part ? strerror(errno) : "out of memory");
    free(*part);
    return NULL;
}

int cli_end(FILE *file, char *part, const char *to) {
    errno = 0;
    int good = !ferror(file) && fflush(file) == 0 && fsync(fileno(file)) == 0, why = errno;
    good &= fclose(file) == 0;
    if (good && rename(part, to) != 0) good = 0, why = errno;
    if (!good) remove(part);
    free(part);
    return good ? CLI_OK : cli_failed("%s: %s", to, why ? strerror(why) : "could not be written");
}

/* What a command writes beside OUT: the library's and its own. */
static const char *const endings[] = {"", ".part", ".spool", ".journal", ".unordered", ".unordered.part", ".unordered.spool",
                                      ".import", ".import.part", ".import.spool"};
enum { ENDINGS = sizeof endings / sizeof *endings };

int cli_same_file(const char *input, const char *out) {
    struct stat from, to[ENDINGS];
    int there[ENDINGS], status = CLI_OK;
    char *path = malloc(strlen(out) + strlen(input) + 300); /* a name in a folder has 255 bytes at most */
    if (!path) return cli_failed("%s: out of memory", out);
    for (int i = 0; i < ENDINGS; i++) {
        sprintf(path, "%s%s", out, endings[i]);
        there[i] = stat(path, &to[i]) == 0;
    }
    int found = stat(input, &from) == 0;
    DIR *folder = found && S_ISDIR(from.st_mode) ? opendir(input) : NULL;
    snprintf(path, strlen(input) + 1, "%s", input);
    for (const struct dirent *entry; found && status == CLI_OK; ) {
        if (folder) {
            if (!(entry = readdir(folder))) break;
            snprintf(path, strlen(input) + 300, "%s/%s", input, entry->d_name);
            if (stat(path, &from) != 0) continue;
        }
        for (int i = 0; i < ENDINGS && status == CLI_OK; i++)
            if (there[i] && S_ISREG(from.st_mode) && from.st_dev == to[i].st_dev && from.st_ino == to[i].st_ino)
                status = cli_failed("%s: expected another -o: writing %s would write over it", path, out);
        if (!folder) break;
    }
    if (folder) closedir(folder);
    free(path);
    return status;
}
