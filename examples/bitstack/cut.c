/* bitstack cut: a smaller file. Blocks stand in the file in the order in which budgets take them, so the stack
 * at a budget is a prefix of the file, byte for byte. */
#include "cli.h"
#include "../llm/platform.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack cut FILE --budget SIZE -o OUT [--c-array NAME] [--json]\n\n"
    "Writes the part of a stack that a budget of SIZE loads, as a stack of its own: a prefix of FILE. OUT, with\n"
    "everything loaded, equals FILE at that budget bit for bit; what was cut off can be appended again.\n\n"
    "  --c-array NAME   OUT is C source: the stack as NAME, constant bytes aligned to 64, for a program that opens it in\n"
    "                   place with bitstack_open_memory(&stack, NAME, sizeof NAME, ...), from flash for one\n";

/* The bytes of the file that a budget needs, and how many blocks. */
static uint64_t prefix_bytes(const bitstack *stack, uint64_t budget, uint64_t *blocks) {
    uint64_t bytes = bitstack_base_bytes(stack);
    bitstack_block block;
    for (int i = 0; i < bitstack_blocks_available(stack); i++) {
        if (bitstack_get_block(stack, i, &block) != BITSTACK_OK || block.resident_after > budget) break;
        bytes = block.offset + block.bytes;
        *blocks = (uint64_t)i + 1;
    }
    return bytes;
}

enum { COPIED, NOT_READ, NOT_WRITTEN };

static int copy(FILE *in, FILE *out, uint64_t bytes) {
    static char room[1 << 16];
    while (bytes) {
        size_t some = bytes < sizeof room ? (size_t)bytes : sizeof room;
        if (fread(room, 1, some, in) != some) return NOT_READ;
        if (fwrite(room, 1, some, out) != some) return NOT_WRITTEN;
        bytes -= some;
    }
    return platform_flush(out) == 0 ? COPIED : NOT_WRITTEN;
}

/* Goes to a file beside `to`, which then takes its place, and is never half written. */
static int write_prefix(const char *from, const char *to, uint64_t bytes) {
    char *part = malloc(strlen(to) + 8);
    if (!part) return cli_failed("%s: out of memory", to);
    sprintf(part, "%s.part", to);
    FILE *in = platform_open(from, "rb"), *out = in ? platform_open(part, "wb") : NULL;
    int status = CLI_OK, copied = COPIED;
    if (!out) status = cli_failed("%s: %s", in ? part : from, strerror(errno));
    else {
        errno = 0;
        copied = copy(in, out, bytes);
        if (fclose(out) != 0 && copied == COPIED) copied = NOT_WRITTEN;
        if (copied == COPIED && platform_replace(part, to) != 0) copied = NOT_WRITTEN;
        if (copied != COPIED) {
            status = cli_failed("%s: %s", copied == NOT_READ ? from : to, errno ? strerror(errno) : "the file became shorter");
            platform_remove(part);
        }
    }
    if (in) fclose(in);
    free(part);
    return status;
}

static int is_identifier(const char *name) {
    if (!*name || isdigit((unsigned char)*name)) return 0;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && *name != '_') return 0;
    return 1;
}

/* The prefix as a C array, sixteen bytes a line. */
static int write_array(const char *from, const char *to, uint64_t bytes, const char *name) {
    char *part;
    FILE *in = platform_open(from, "rb"), *out = in ? cli_begin(to, &part) : NULL;
    if (!in) return cli_failed("%s: %s", from, strerror(errno));
    if (!out) return fclose(in), CLI_FAILED;
    fprintf(
        out,
        "/* A stack of %llu bytes, made by bitstack cut. */\n#ifdef __cplusplus\nalignas(64)\n#elif defined(__GNUC__)\n__attribute__((aligned(64)))\n#else\n_Alignas(64)\n#endif\n"
        "static const unsigned char %s[%llu] = {\n",
        (unsigned long long)bytes, name, (unsigned long long)bytes);
    int byte = 0;
    for (uint64_t i = 0; i < bytes && (byte = getc(in)) != EOF; i++)
        fprintf(out, "0x%02x,%s", (unsigned)byte, i % 16 == 15 || i + 1 == bytes ? "\n" : "");
    fputs("};\n", out);
    fclose(in);
    int status =
        byte == EOF ? (fclose(out), platform_remove(part), free(part), cli_failed("%s: the file became shorter", from))
                    : cli_end(out, part, to);
    return status;
}

int command_cut(int argc, char **argv) {
    const char *path, *to = NULL, *array = NULL;
    uint64_t budget = 0;
    int json = 0;
    const cli_option table[] = {{"--budget", CLI_SIZE, &budget},
                                {"-o", CLI_TEXT, &to},
                                {"--json", CLI_FLAG, &json},
                                {"--c-array", CLI_TEXT, &array},
                                {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "cut", help, table, &path, 1);
    if (stop) return stop - 1;
    if (!budget) return cli_usage("cut", "--budget is missing");
    if (!to) return cli_usage("cut", "-o is missing");
    if (array && !is_identifier(array))
        return cli_usage("cut", "--c-array: expected a name as C has them, got '%s'", array);

    bitstack *stack;
    int status = cli_output(&to);
    if (status == CLI_OK) status = cli_same_file(path, to);
    if (status == CLI_OK) status = cli_open_unloaded(&stack, path);
    if (status != CLI_OK) return status;
    uint64_t base = bitstack_base_bytes(stack), blocks = 0, bytes = prefix_bytes(stack, budget, &blocks), all = (uint64_t)bitstack_block_count(stack);
    bitstack_close(stack);
    if (budget < base) return cli_failed("%s: expected --budget of at least %llu bytes, its resident part", path, (unsigned long long)base);
    status = array ? write_array(path, to, bytes, array) : write_prefix(path, to, bytes);
    if (status == CLI_OK && json) {
        cli_json_begin();
        cli_json_text("file", to, strlen(to));
        cli_json_whole("bytes", bytes);
        cli_json_whole("blocks", blocks);
        cli_json_whole("blocks_of", all);
        cli_json_end();
    }
    return status;
}
