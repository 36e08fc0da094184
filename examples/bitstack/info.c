/* bitstack info: what a stack holds. Nothing but its tables and resident part is read. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: bitstack info FILE [--json]\n\n"
    "Prints version, metadata, sizes, and a line a matrix with the bytes each level takes in memory.\n";

static void print_value(const bitstack_meta *meta, int json) {
    if (meta->type == BITSTACK_META_STRING) {
        uint64_t cursor = 0;
        size_t bytes;
        const char *text = bitstack_meta_next_string(meta, &cursor, &bytes);
        if (!text) text = "", bytes = 0;
        if (json) cli_json_string(text, bytes);
        else fputs(cli_plain(text, bytes < 200 ? bytes : 200), stdout);
    } else printf("%.9g", bitstack_meta_element(meta, 0));
}

/* A single value as it is; of many, how many. */
static void print_meta(const bitstack *stack, int json) {
    for (int i = 0; i < bitstack_meta_count(stack); i++) {
        bitstack_meta meta;
        bitstack_get_meta(stack, i, &meta);
        if (json) {
            if (i) fputs(", ", stdout);
            cli_json_string(meta.key, meta.key_bytes);
            fputs(": ", stdout);
        } else printf("  %s = ", cli_plain(meta.key, meta.key_bytes));
        int known = meta.type >= BITSTACK_META_U8 && meta.type <= BITSTACK_META_STRING;
        if (meta.count == 1 && known) print_value(&meta, json);
        else printf(json ? "{\"count\": %llu}" : "%llu values", (unsigned long long)meta.count);
        if (!json) putchar('\n');
    }
}

static const char *encoding(const bitstack_shape *shape) { return shape->encoding == BITSTACK_TABLES ? "tables" : "planes"; }
/* Nested coding made planes before it made tables. */
static const char *method(const bitstack_shape *shape) {
    return shape->coefficients == BITSTACK_COEFFICIENTS_OWN ? "iabs" : "nested";
}

int command_info(int argc, char **argv) {
    int json = 0;
    const char *path;
    const cli_option options[] = {{"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "info", help, options, &path, 1);
    if (stop) return stop - 1;

    bitstack *stack;
    int status = cli_open_unloaded(&stack, path);
    if (status != CLI_OK) return status;

    int matrices = bitstack_matrix_count(stack), blocks = bitstack_block_count(stack);
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);
    if (json) {
        cli_json_begin();
        cli_json_whole("version", BITSTACK_FORMAT_VERSION);
        cli_json_key("metadata");
        putchar('{'), print_meta(stack, 1), putchar('}');
        cli_json_whole("matrices", (uint64_t)matrices);
        cli_json_whole("blocks", (uint64_t)blocks);
        cli_json_whole("blocks_available", (uint64_t)bitstack_blocks_available(stack));
        cli_json_whole("tensors", (uint64_t)bitstack_tensor_count(stack));
        cli_json_whole("base_bytes", base);
        cli_json_whole("total_bytes", total);
        cli_json_whole("file_bytes", bitstack_file_bytes(stack));
        cli_json_end();
    } else {
        printf("%s: stack of format version %d\n", path, BITSTACK_FORMAT_VERSION);
        print_meta(stack, 0);
        printf("%d matrices, %d blocks (%d in this file), %d resident tensors\n", matrices, blocks,
               bitstack_blocks_available(stack), bitstack_tensor_count(stack));
        printf("memory: from %s (header and resident part) to %s\n\n", cli_bytes(base), cli_bytes(total));
        printf("%-28s %6s %6s  %-6s %-6s %4s %6s  bits a weight at level 1, 2, ...\n", "matrix", "rows", "cols", "method", "in",
               "rank", "levels");
    }
    for (int i = 0; i < matrices; i++) {
        bitstack_matrix m;
        bitstack_get_matrix(stack, i, &m);
        const bitstack_shape *s = &m.shape;
        if (json) {
            cli_json_begin();
            cli_json_text("name", m.name, m.name_bytes);
            cli_json_whole("rows", s->rows);
            cli_json_whole("cols", s->cols);
            cli_json_text("method", method(s), strlen(method(s)));
            cli_json_text("encoding", encoding(s), strlen(encoding(s)));
            cli_json_whole("rank", s->rank);
            cli_json_whole("levels", s->levels);
            cli_json_key("level_bytes");
            for (uint32_t l = 1; l <= s->levels; l++)
                printf("%s%llu", l > 1 ? ", " : "[", (unsigned long long)bitstack_live_bytes(s, l));
            fputs(s->levels ? "]" : "[]", stdout);
            cli_json_number("sensitivity", (double)m.sensitivity);
            cli_json_end();
        } else {
            printf("%-28s %6u %6u  %-6s %-6s %4u %6u ", cli_plain(m.name, m.name_bytes), s->rows, s->cols, method(s), encoding(s), s->rank,
                   s->levels);
            for (uint32_t l = 1; l <= s->levels; l++)
                printf(" %.2f", 8 * (double)bitstack_live_bytes(s, l) / ((double)s->rows * s->cols));
            putchar('\n');
        }
    }
    bitstack_close(stack);
    return CLI_OK;
}
