/* fuzz_folder.c - a model as a folder. The first byte says what is done with it: it is opened as a model and used; the
 * command error reads originals from it; the command import makes a stack of it. The rest is cut at "\n%%\n" into
 * config.json, tokenizer.json, tokenizer_config.json, model.safetensors.index.json, two shards (a header and its data
 * each, lengths of headers mended unless they are to be as they are), compression_config.json and
 * reduced_ppl_average.json; what is empty is absent. */
#include "use_source.h"
#include "examples/bitstack/cli.h"
#include "examples/llm/hf.h"

#include <fcntl.h>
#include <stdarg.h>

/* The commands themselves, but what they say is only looked at. */
static int said(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int said(const char *format, ...) {
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    MUST(length > 0 && (length >= (int)sizeof line || !memchr(line, '\n', (size_t)length - 1)));
    return CLI_FAILED;
}
#define cli_failed said
#define printf said
#define help error_help
#include "examples/bitstack/error.c"
#undef help
#define help import_help
#include "examples/bitstack/import.c"
#undef printf
#undef cli_failed

enum { MENDED = 1, EMPTY_FILES = 8, BUDGET = 16, TWO_MATRICES = 32 }; /* and in bits 1 and 2 what is done */
enum { CONFIG, TOKENIZER, SETTINGS, INDEX, HEADER1, DATA1, HEADER2, DATA2, CONFIGS, LOSSES, PARTS };

static const char *const names[PARTS] = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", "1.safetensors",
                                         NULL, "2.safetensors", NULL, "compression_config.json", "reduced_ppl_average.json"};
static char folder[240];

static int empty_folder(void) {
    for (int i = 0; i <= PARTS; i++) {
        char path[320];
        if (i < PARTS && !names[i]) continue;
        snprintf(path, sizeof path, "%s/%s", folder, i < PARTS ? names[i] : "model.safetensors");
        unlink(path);
    }
    return rmdir(folder);
}

static void put(const char *name, const uint8_t *head, size_t head_bytes, llm_string header, llm_string data) {
    char path[320];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    MUST(fd >= 0);
    MUST(write(fd, head, head_bytes) == (ssize_t)head_bytes && write(fd, header.text, header.bytes) == (ssize_t)header.bytes);
    MUST(write(fd, data.text, data.bytes) == (ssize_t)data.bytes);
    close(fd);
}

static void put_shard(const char *name, llm_string header, llm_string data, unsigned flags) {
    uint8_t length[8];
    if (!header.bytes && !data.bytes && !(flags & EMPTY_FILES)) return;
    fuzz_store(length, 8, header.bytes);
    put(name, length, flags & MENDED ? 8 : 0, header, data);
}

/* A stack of one or two matrices of 8 x 8, to be compared with the folder's tensors. Made once; its name is its descriptor's. */
static const char *stack_of(int two) {
    static char names[2][40];
    if (!names[two][0]) {
        static const char *const matrices[2] = {"blk.0.attn_q.weight", "blk.0.attn_k.weight"};
        char path[240];
        float w[64];
        bitstack_writer *writer;
        bitstack_encode_options options = {0};
        options.levels = 2;
        snprintf(path, sizeof path, "%s.stack", fuzz_place());
        MUST(bitstack_writer_open(&writer, path, NULL, NULL) == BITSTACK_OK);
        for (int m = 0; m <= two; m++) {
            bitstack_coded coded;
            for (int i = 0; i < 64; i++) w[i] = (float)((i * 37 + m) % 64 - 32);
            MUST(bitstack_encode_matrix(&coded, w, 8, 8, 8, NULL, &options) == BITSTACK_OK);
            MUST(bitstack_writer_matrix(writer, matrices[m], &coded, 1) == BITSTACK_OK);
            bitstack_coded_free(&coded);
        }
        MUST(bitstack_writer_finish(writer, NULL, 0, NULL) == BITSTACK_OK);
        snprintf(names[two], sizeof names[two], "/proc/self/fd/%d", open(path, O_RDONLY));
        unlink(path);
    }
    return names[two];
}

static void import_folder(int limited) {
    char out[300], part[320], place[240], option[] = "-o", budget[] = "--budget=100000";
    char *arguments[4] = {place, option, out, budget};
    snprintf(place, sizeof place, "%s", folder);
    snprintf(out, sizeof out, "%s.imported", fuzz_place());
    const int status = command_import(3 + limited, arguments);
    MUST(status == CLI_OK || status == CLI_FAILED);
    MUST((access(out, F_OK) == 0) == (status == CLI_OK)); /* complete, or not at all */
    snprintf(part, sizeof part, "%s.import", out);
    MUST(access(part, F_OK) != 0);
    unlink(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char cut[] = "\n%%\n";
    llm_string parts[PARTS], nothing = {"", 0};
    llm_source source;
    llm_error error;
    if (size < 1) return 0;
    const unsigned flags = data[0];
    const char *at = (const char *)data + 1, *end = (const char *)data + size;
    for (int i = 0; i < PARTS; i++) {
        const char *next = i + 1 < PARTS && at < end ? (const char *)memmem(at, (size_t)(end - at), cut, sizeof cut - 1) : NULL;
        parts[i].text = at, parts[i].bytes = (size_t)((next ? next : end) - at);
        at = next ? next + sizeof cut - 1 : end;
    }
    snprintf(folder, sizeof folder, "%s", fuzz_place());
    if (mkdir(folder, 0700) != 0) MUST(empty_folder() == 0 && mkdir(folder, 0700) == 0); /* of one that crashed */
    for (int i = 0; i < PARTS; i++)
        if (names[i] && i != HEADER1 && i != HEADER2 && (parts[i].bytes || flags & EMPTY_FILES)) put(names[i], data, 0, parts[i], nothing);
    put_shard(parts[INDEX].bytes || flags & EMPTY_FILES ? names[HEADER1] : "model.safetensors", parts[HEADER1], parts[DATA1], flags);
    put_shard(names[HEADER2], parts[HEADER2], parts[DATA2], flags);

    error.message[0] = 0;
    if (flags / 2 % 4 == 1) {
        char place[240], option[] = "--against", json[] = "--json", stack[40];
        char *arguments[4] = {stack, option, place, json};
        snprintf(place, sizeof place, "%s", folder);
        snprintf(stack, sizeof stack, "%s", stack_of((flags & TWO_MATRICES) != 0));
        const int status = command_error(3, arguments);
        MUST(status == CLI_OK || status == CLI_FAILED);
    } else if (flags / 2 % 4 == 2) import_folder((flags & BUDGET) != 0);
    else if (llm_hf_open(&source, folder, &error) == 0) {
        use_source(&source);
        llm_source_close(&source);
    } else MUST(!strncmp(error.message, folder, strlen(folder)) && !strchr(error.message, '\n'));

    MUST(empty_folder() == 0);
    return 0;
}
