/* bitstack verify: reads all of a stack and compares every checksum. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: bitstack verify FILE [--json]\n\n"
    "Reads the whole file and checks every checksum. A file that ends between two blocks is a valid\n"
    "smaller model; how much is missing is said. Exit status 1 if anything is damaged.\n";

int command_verify(int argc, char **argv) {
    const char *path;
    int json = 0;
    const cli_option options[] = {{"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "verify", help, options, &path, 1);
    if (stop) return stop - 1;

    bitstack *stack;
    bitstack_error error;
    bitstack_result result = BITSTACK_OK;
    int status = cli_open_unloaded(&stack, path); /* checks all but the blocks */
    if (status != CLI_OK) return status;
    memset(&error, 0, sizeof error);
    int available = bitstack_blocks_available(stack), blocks = bitstack_block_count(stack);
    /* Level by level: at the highest level alone, factors that it replaces would not be read. */
    for (int i = 0; i < bitstack_matrix_count(stack) && status == CLI_OK; i++) {
        uint32_t level = 0;
        while (result == BITSTACK_OK) {
            memset(&error, 0, sizeof error);
            result = bitstack_set_level(stack, i, ++level, &error);
        }
        if (result != BITSTACK_ERROR_ARGUMENT) status = cli_failed_at(path, result, &error);
        result = bitstack_set_level(stack, i, 0, NULL);
    }
    if (status == CLI_OK && json) {
        cli_json_begin();
        cli_json_text("file", path, strlen(path));
        cli_json_key("valid"), fputs("true", stdout);
        cli_json_whole("matrices", (uint64_t)bitstack_matrix_count(stack));
        cli_json_whole("blocks", (uint64_t)blocks);
        cli_json_whole("blocks_available", (uint64_t)available);
        cli_json_whole("file_bytes", bitstack_file_bytes(stack));
        cli_json_whole("complete_file_bytes", bitstack_complete_file_bytes(stack));
        cli_json_end();
    } else if (status == CLI_OK && available < blocks)
        printf("%s: valid, but cut off: %d of %d blocks, %llu of %llu bytes\n", path, available, blocks,
               (unsigned long long)bitstack_file_bytes(stack), (unsigned long long)bitstack_complete_file_bytes(stack));
    else if (status == CLI_OK)
        printf("%s: valid: %d matrices, %d blocks, %llu bytes\n", path, bitstack_matrix_count(stack), blocks,
               (unsigned long long)bitstack_file_bytes(stack));
    bitstack_close(stack);
    return status;
}
