/* bitstack cut: a smaller file. Blocks stand in the file in the order in which budgets take them, so the stack
 * at a budget is a prefix of the file, byte for byte. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: bitstack cut FILE --budget SIZE -o OUT [--json]\n\n"
    "Writes the part of a stack that a budget of SIZE loads, as a stack of its own: a prefix of FILE. OUT, with\n"
    "everything loaded, equals FILE at that budget bit for bit; what was cut off can be appended again.\n";

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
    return fflush(out) == 0 && fsync(fileno(out)) == 0 ? COPIED : NOT_WRITTEN;
}

/* Goes to a file beside `to`, which then takes its place, and is never half written. */
static int write_prefix(const char *from, const char *to, uint64_t bytes) {
    char *part = malloc(strlen(to) + 8);
    if (!part) return cli_failed("%s: out of memory", to);
    sprintf(part, "%s.part", to);
    FILE *in = fopen(from, "rb"), *out = in ? fopen(part, "wb") : NULL;
    int status = CLI_OK, copied = COPIED;
    if (!out) status = cli_failed("%s: %s", in ? part : from, strerror(errno));
    else {
        errno = 0;
        copied = copy(in, out, bytes);
        if (fclose(out) != 0 && copied == COPIED) copied = NOT_WRITTEN;
        if (copied == COPIED && rename(part, to) != 0) copied = NOT_WRITTEN;
        if (copied != COPIED) {
            status = cli_failed("%s: %s", copied == NOT_READ ? from : to, errno ? strerror(errno) : "the file became shorter");
            remove(part);
        }
    }
    if (in) fclose(in);
    free(part);
    return status;
}

int command_cut(int argc, char **argv) {
    const char *path, *to = NULL;
    uint64_t budget = 0;
    int json = 0;
    const cli_option table[] = {{"--budget", CLI_SIZE, &budget}, {"-o", CLI_TEXT, &to}, {"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "cut", help, table, &path, 1);
    if (stop) return stop - 1;
    if (!budget) return cli_usage("cut", "--budget is missing");
    if (!to) return cli_usage("cut", "-o is missing");

    bitstack *stack;
    int status = cli_output(&to);
    if (status == CLI_OK) status = cli_same_file(path, to);
    if (status == CLI_OK) status = cli_open_unloaded(&stack, path);
    if (status != CLI_OK) return status;
    uint64_t base = bitstack_base_bytes(stack), blocks = 0, bytes = prefix_bytes(stack, budget, &blocks), all = (uint64_t)bitstack_block_count(stack);
    bitstack_close(stack);
    if (budget < base) return cli_failed("%s: expected --budget of at least %llu bytes, its resident part", path, (unsigned long long)base);
    status = write_prefix(path, to, bytes);
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
