#include "cli.h"
#include "../llm/evaluate.h"
#include "../llm/tokenizer.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void plain(char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)text[i], next = i + 1 < bytes ? (unsigned char)text[i + 1] : 0;
        if (c < 32 || c == 127) text[i] = '?';
        if (c == 0xC2 && next >= 0x80 && next < 0xA0) text[i] = text[i + 1] = '?'; /* U+0080 to U+009F */
    }
}

const char *cli_plain(const char *text, size_t bytes) {
    static char texts[8][256];
    static int slot;
    char *copy = texts[slot = (slot + 1) % 8];
    if (bytes > sizeof texts[0] - 1) bytes = sizeof texts[0] - 1;
    if (bytes) memcpy(copy, text, bytes);
    plain(copy, bytes);
    copy[bytes] = 0;
    return copy;
}

int cli_failed(const char *format, ...) {
    char message[2048];
    va_list arguments;
    fflush(stdout);
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    plain(message, strlen(message));
    fprintf(stderr, "bitstack: %s\n", message);
    return CLI_FAILED;
}

int cli_failed_at(const char *path, bitstack_result result, const bitstack_error *error) {
    const char *message = error && error->message[0] ? error->message : bitstack_result_string(result);
    if (error && error->byte_offset)
        return cli_failed("%s: offset %llu: %s", path, (unsigned long long)error->byte_offset, message);
    return cli_failed("%s: %s", path, message);
}
int cli_open_unloaded(bitstack **stack, const char *path) {
    bitstack_options open;
    bitstack_error error;
    memset(&open, 0, sizeof open);
    memset(&error, 0, sizeof error);
    open.load_nothing = 1;
    bitstack_result result = bitstack_open_file(stack, path, &open, &error);
    return result == BITSTACK_OK ? CLI_OK : cli_failed_at(path, result, &error);
}

/* What a command writes beside OUT: the library's and its own. */
static const char *const endings[] = {"", ".part", ".spool", ".journal", ".unordered", ".unordered.part", ".unordered.spool",
                                      ".import", ".import.part", ".import.spool"};
enum { ENDINGS = sizeof endings / sizeof *endings };

int cli_same_file(const char *input, const char *out, int in_place) {
    struct stat from, to[ENDINGS];
    int there[ENDINGS], status = CLI_OK;
    char *path = malloc(strlen(out) + strlen(input) + 300); /* a name in a folder has 255 bytes at most */
    if (!path) return cli_failed("%s: out of memory", out);
    for (int i = 0; i < ENDINGS; i++) {
        sprintf(path, "%s%s", out, endings[i]);
        there[i] = !(in_place && i == 0) && stat(path, &to[i]) == 0;
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

void cli_note_guess(const llm_source *source, const char *guessed) {
    if (guessed)
        fprintf(stderr, "bitstack: note: %s: it does not say how its tokenizer cuts words (tokenizer.ggml.pre): taken for %s\n",
                source->path, guessed);
}

int cli_check_tokenizer(const llm_source *source) {
    llm_tokenizer tokenizer;
    llm_error error;
    if (!llm_find_meta(source, "tokenizer.ggml.model") && !llm_find_meta(source, "tokenizer.ggml.tokens")) {
        fprintf(stderr, "bitstack: note: %s: it has no tokenizer, so run and chat will not know what to do with the result\n", source->path);
        return CLI_OK;
    }
    if (llm_tokenizer_load(&tokenizer, source, &error) != 0) return cli_failed("%s", error.message);
    cli_note_guess(source, tokenizer.guessed);
    llm_tokenizer_free(&tokenizer);
    return CLI_OK;
}

int cli_usage(const char *command, const char *format, ...) {
    va_list arguments;
    fputs("bitstack: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see bitstack %s --help\n", command);
    return CLI_USAGE;
}

int cli_size(const char *text, size_t length, uint64_t *bytes) {
    static const struct { const char *suffix; double unit; } units[] = {
        {"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    char copy[64], *end;
    if (length == 0 || length >= sizeof copy || !isdigit((unsigned char)text[0])) return -1;
    memcpy(copy, text, length);
    copy[length] = 0;
    if (strpbrk(copy, "xX")) return -1; /* strtod's hexadecimals */
    double value = strtod(copy, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].suffix) == 0) {
            value *= units[i].unit;
            if (!(value < 9e18)) return -1;
            *bytes = (uint64_t)value;
            return 0;
        }
    return -1;
}

/* Whole numbers only, without sign. */
static int whole(const char *text, uint64_t most, uint64_t *value) {
    char *end;
    if (!isdigit((unsigned char)text[0])) return -1;
    errno = 0;
    unsigned long long read = strtoull(text, &end, 10);
    if (*end || errno || read > most) return -1;
    *value = read;
    return 0;
}

static const char *set(const cli_option *option, const char *text) {
    uint64_t number;
    double real;
    char *end;
    switch (option->kind) {
    case CLI_FLAG: *(int *)option->value = 1; return NULL;
    case CLI_TEXT: *(const char **)option->value = text; return NULL;
    case CLI_WHOLE:
        if (whole(text, UINT32_MAX, &number) != 0) return "a whole number";
        *(uint32_t *)option->value = (uint32_t)number;
        return NULL;
    case CLI_LONG: return whole(text, UINT64_MAX, option->value) == 0 ? NULL : "a whole number";
    case CLI_NUMBER:
        real = strtod(text, &end);
        if (end == text || *end || !(real >= 0) || isinf(real)) return "a number from 0";
        *(double *)option->value = real;
        return NULL;
    case CLI_SIZE: return cli_size(text, strlen(text), option->value) == 0 ? NULL : "a size such as 300000, 3MB or 2.5GiB";
    }
    return NULL;
}

int cli_parse(int argc, char **argv, const char *command, const char *help, const cli_option *options,
              const char **others, int wanted) {
    int found = 0, ended = 0;
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i];
        if (ended || argument[0] != '-' || !argument[1]) {
            if (found == wanted) return 1 + cli_usage(command, "one argument too many: '%s'", argument);
            others[found++] = argument;
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            ended = 1;
            continue;
        }
        if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            fputs(help, stdout);
            return 1 + CLI_OK;
        }
        size_t length = strcspn(argument, "=");
        const cli_option *option = options;
        while (option->name && (strlen(option->name) != length || memcmp(option->name, argument, length) != 0)) option++;
        if (!option->name) return 1 + cli_usage(command, "unknown option '%s'", argument);
        const char *value = argument[length] ? argument + length + 1 : NULL;
        if (option->kind == CLI_FLAG) {
            if (value) return 1 + cli_usage(command, "%s takes no value", option->name);
        } else if (!value) {
            if (i + 1 >= argc) return 1 + cli_usage(command, "%s needs a value", option->name);
            value = argv[++i];
        }
        const char *expected = set(option, value);
        if (expected) return 1 + cli_usage(command, "%s: expected %s, got '%s'", option->name, expected, value);
    }
    if (found < wanted) return 1 + cli_usage(command, "an argument is missing");
    return 0;
}

const char *cli_bytes(uint64_t bytes) {
    static char texts[8][32];
    static int slot;
    char *text = texts[slot = (slot + 1) % 8];
    double value = (double)bytes;
    if (bytes < 1000) snprintf(text, 32, "%u B", (unsigned)bytes);
    else if (value < 1e6) snprintf(text, 32, "%.2f KB", value / 1e3);
    else if (value < 1e9) snprintf(text, 32, "%.2f MB", value / 1e6);
    else snprintf(text, 32, "%.2f GB", value / 1e9);
    return text;
}

unsigned char *cli_read(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    size_t room = 0, used = 0, got;
    int full = 0;
    if (!file) {
        cli_failed("%s: %s", path, strerror(errno));
        return NULL;
    }
    do { /* not by its size: pipes have none */
        if (used == room) {
            unsigned char *larger = realloc(data, room = room ? 2 * room : 65536);
            full = !larger;
            if (full) break;
            data = larger;
        }
        got = fread(data + used, 1, room - used, file);
        used += got;
    } while (got);
    if (full || ferror(file)) {
        cli_failed("%s: %s", path, full ? "out of memory" : strerror(errno));
        free(data);
        data = NULL;
    }
    fclose(file);
    *bytes = used;
    return data;
}

/* ---- progress ---- */

void cli_show(void *user, double fraction) {
    cli_progress *p = user;
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    double now = llm_seconds();
    if (!isatty(STDERR_FILENO)) return;
    if (p->to > p->from) fraction = p->from + fraction * (p->to - p->from);
    if (!(p->start > 0)) p->start = now;
    if (now - p->drawn < 0.1 && fraction < 1) return;
    p->drawn = now;
    int full = (int)(fraction * WIDTH);
    for (int i = 0; i < WIDTH; i++) bar[i] = i < full ? '#' : '.';
    bar[WIDTH] = 0;
    fprintf(stderr, "\r%-12s [%s] %3.0f %%", p->label, bar, 100 * fraction);
    double left = fraction > 0.02 ? (now - p->start) * (1 - fraction) / fraction : 0;
    if (left >= 1) fprintf(stderr, "  %.0f:%02.0f left ", floor(left / 60), fmod(floor(left), 60));
    else fputs("             ", stderr);
    fflush(stderr);
}

void cli_progress_end(cli_progress *p) {
    if (p->drawn > 0 && isatty(STDERR_FILENO)) fprintf(stderr, "\r%72s\r", "");
    p->drawn = p->start = 0;
}

/* ---- JSON ---- */

static int first;

void cli_json_begin(void) { putchar('{'), first = 1; }
void cli_json_end(void) { puts("}"); }

void cli_json_string(const char *text, size_t bytes) {
    putchar('"');
    for (size_t i = 0, length; i < bytes; i += length) {
        uint32_t c = llm_character(text + i, bytes - i, &length);
        if (c == '"' || c == '\\') printf("\\%c", (char)c);
        else if (c < 32 || c == 127) printf("\\u%04x", c);
        else if (c == UINT32_MAX) fputs("\\ufffd", stdout);
        else fwrite(text + i, 1, length, stdout);
    }
    putchar('"');
}

void cli_json_key(const char *key) {
    if (!first) fputs(", ", stdout);
    first = 0;
    if (key) cli_json_string(key, strlen(key)), fputs(": ", stdout);
}

void cli_json_text(const char *key, const char *text, size_t bytes) {
    cli_json_key(key);
    cli_json_string(text, bytes);
}

void cli_json_number(const char *key, double value) {
    cli_json_key(key);
    if (isfinite(value)) printf("%.9g", value);
    else fputs("null", stdout);
}

void cli_json_whole(const char *key, uint64_t value) {
    cli_json_key(key);
    printf("%llu", (unsigned long long)value);
}
