#include "cli.h"
#include "../llm/evaluate.h"
#include "../llm/numbers.h"
#include "../llm/tokenizer.h"
#include "../llm/platform.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void cli_note_guess(const llm_source *source, const char *guessed) {
    if (guessed)
        fprintf(stderr, "bitstack: note: %s: it does not say how its tokenizer cuts words (tokenizer.ggml.pre): taken for %s\n",
                source->path, guessed);
}

int cli_check_weights(const llm_source *source) {
    llm_error error;
    for (size_t i = 0; i < source->tensor_count; i++) {
        int good = llm_tensor_check(source, &source->tensors[i], &error) == 0;
        llm_tensor_forget(source, &source->tensors[i]);
        if (!good) return cli_failed("%s", error.message);
    }
    return CLI_OK;
}

int cli_check_model(const llm_source *source) {
    llm_tokenizer tokenizer;
    llm_error error;
    if (!llm_find_meta(source, "tokenizer.ggml.model") && !llm_find_meta(source, "tokenizer.ggml.tokens")) {
        fprintf(stderr, "bitstack: note: %s: it has no tokenizer, so run and chat will not know what to do with the result\n", source->path);
        return cli_check_weights(source);
    }
    if (llm_tokenizer_load(&tokenizer, source, &error) != 0) return cli_failed("%s", error.message);
    cli_note_guess(source, tokenizer.guessed);
    llm_tokenizer_free(&tokenizer);
    return cli_check_weights(source);
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

/* A unit's name, in any case: K, KB or KiB and so on; and B or nothing for bytes. 0 for others. */
static double unit(const char *name) {
    static const char letters[] = "kmgt";
    const char *at = *name ? strchr(letters, tolower((unsigned char)*name)) : NULL;
    double thousand = 1000, value = 1;
    if (at) name++;
    if (at && tolower((unsigned char)*name) == 'i') thousand = 1024, name++;
    if (tolower((unsigned char)*name) == 'b') name++;
    if (*name) return 0;
    for (const char *letter = letters; at && letter <= at; letter++) value *= thousand;
    return value;
}

int cli_size(const char *text, size_t length, uint64_t *bytes) {
    char copy[64];
    const char *end;
    if (length == 0 || length >= sizeof copy || !isdigit((unsigned char)text[0])) return -1;
    memcpy(copy, text, length);
    copy[length] = 0;
    copy[strcspn(copy, "xX")] = 0; /* no hexadecimals */
    if (strlen(copy) != length) return -1;
    double value = llm_parse_number(copy, &end), times;
    if (end == copy || (times = unit(end + strspn(end, " "))) <= 0) return -1;
    value *= times;
    if (!(value < 9e18)) return -1;
    *bytes = (uint64_t)value;
    return 0;
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
    const char *end;
    switch (option->kind) {
    case CLI_FLAG: *(int *)option->value = 1; return NULL;
    case CLI_TEXT: *(const char **)option->value = text; return NULL;
    case CLI_WHOLE:
        if (whole(text, UINT32_MAX, &number) != 0) return "a whole number";
        *(uint32_t *)option->value = (uint32_t)number;
        return NULL;
    case CLI_LONG: return whole(text, UINT64_MAX, option->value) == 0 ? NULL : "a whole number";
    case CLI_NUMBER:
        real = llm_parse_number(text, &end);
        if (end == text || *end || !(real >= 0) || isinf(real)) return "a number from 0";
        *(double *)option->value = real;
        return NULL;
    case CLI_SIZE: return cli_size(text, strlen(text), option->value) == 0 ? NULL : "a size such as 300000, 3MB or 2.5GiB";
    }
    return NULL;
}

/* How many letters to put in, take out, change or swap to make one of the other; `most` + 1 if more. */
static int distance(const char *a, size_t length, const char *b, int most) {
    enum { ROOM = 32 };
    int rows[3][ROOM + 1];
    size_t other = strlen(b);
    if (length > ROOM || other > ROOM) return most + 1;
    for (size_t j = 0; j <= other; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= length; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *two = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= other; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two[j - 2] + 1 < best) best = two[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[length % 3][other] <= most ? rows[length % 3][other] : most + 1;
}

const char *cli_nearest(const char *word, size_t length, const char *(*name)(const void *list, size_t index), const void *list) {
    const char *best = NULL, *one;
    int most = length < 3 ? 0 : length < 6 ? 1 : 2; /* letters that may be wrong */
    for (size_t i = 0; (one = name(list, i)); i++) {
        int far = distance(word, length, one, most);
        if (far > most) continue;
        best = one;
        most = far - 1;
        if (most < 0) break;
    }
    return best;
}

static const char *option_name(const void *list, size_t index) { return ((const cli_option *)list)[index].name; }

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
        if (!option->name) {
            const char *meant = cli_nearest(argument, length, option_name, options);
            return 1 + (meant ? cli_usage(command, "unknown option '%s': is %s meant?", argument, meant) : cli_usage(command, "unknown option '%s'", argument));
        }
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
    else llm_print_number(text, 32, value < 1e6 ? "%.2f KB" : value < 1e9 ? "%.2f MB" : "%.2f GB", value / (value < 1e6 ? 1e3 : value < 1e9 ? 1e6 : 1e9));
    return text;
}

unsigned char *cli_read(const char *path, size_t *bytes) {
    FILE *file = platform_open(path, "rb");
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
    if (!platform_is_terminal(stderr)) return;
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
    if (p->drawn > 0 && platform_is_terminal(stderr)) fprintf(stderr, "\r%72s\r", "");
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
    char text[40];
    llm_print_number(text, sizeof text, "%.9g", value);
    if (isfinite(value)) fputs(text, stdout);
    else fputs("null", stdout);
}

void cli_json_whole(const char *key, uint64_t value) {
    cli_json_key(key);
    printf("%llu", (unsigned long long)value);
}
