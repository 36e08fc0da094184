/* bitstack error: how far each matrix of a stack is from the original, level by level. */
#include "cli.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack error FILE --against MODEL|W.f32 [--json]\n\n"
    "One line a matrix and level: rel_err2 = |W - W'|^2 / |W|^2, and bits a weight with all factors\n"
    "counted. W.f32: raw little-endian floats, row-major, for a stack with one matrix.\n";

enum { ROWS_AT_ONCE = 64 };

/* The originals: a model, or one matrix of raw floats dressed as one; these are *raw then, and the caller's to free. */
static int open_originals(llm_source *source, unsigned char **raw, const char *path, const bitstack *stack) {
    llm_error error;
    size_t bytes;
    unsigned char *data;
    bitstack_matrix m;
    FILE *file = platform_open(path, "rb");
    char magic[4] = {0};
    platform_status status;
    int model = file && fread(magic, 1, 4, file) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (file) fclose(file);
    if (platform_look(path, &status) == 0 && status.kind == PLATFORM_FOLDER) model = 1;
    if (model) {
        if (llm_source_open(source, path, NULL, &error) != 0) return cli_failed("%s", error.message);
        llm_source_sort(source); /* without memory for it, it takes longer */
        return CLI_OK;
    }
    if (bitstack_matrix_count(stack) != 1)
        return cli_failed("%s: offset 0: expected \"GGUF\": the stack has %d matrices, raw floats serve only for one",
                          path, bitstack_matrix_count(stack));
    if (!(data = cli_read(path, &bytes))) return CLI_FAILED;
    bitstack_get_matrix(stack, 0, &m);
    uint64_t wanted = (uint64_t)m.shape.rows * m.shape.cols * 4;
    if (bytes != wanted) {
        free(data);
        return cli_failed("%s: offset %llu: expected %llu bytes, %u x %u floats", path, (unsigned long long)bytes,
                          (unsigned long long)wanted, m.shape.rows, m.shape.cols);
    }
    memset(source, 0, sizeof *source);
    source->tensors = calloc(1, sizeof *source->tensors);
    if (!source->tensors) {
        free(data);
        return cli_failed("%s: out of memory", path);
    }
    source->tensors->name.text = m.name;
    source->tensors->name.bytes = m.name_bytes;
    source->tensors->dimensions = 2;
    source->tensors->shape[0] = m.shape.rows;
    source->tensors->shape[1] = m.shape.cols;
    source->tensors->data = *raw = data;
    source->tensor_count = 1;
    return 0;
}

static int matrix_errors(bitstack *stack, int index, const llm_source *source, const char *path, const char *against, int json) {
    bitstack_matrix m;
    bitstack_error error;
    bitstack_get_matrix(stack, index, &m);
    llm_string name = {m.name, m.name_bytes};
    const llm_tensor *original = llm_find_tensor_named(source, name);
    uint32_t rows = m.shape.rows, cols = m.shape.cols;
    if (!original || llm_tensor_rows(original) != rows || llm_tensor_cols(original) != cols)
        return cli_failed("%s: expected a tensor '%s' of %u x %u", against, cli_plain(m.name, m.name_bytes), rows, cols);
    float *ours = malloc((size_t)ROWS_AT_ONCE * cols * sizeof *ours), *theirs = malloc((size_t)ROWS_AT_ONCE * cols * sizeof *theirs);
    int status = ours && theirs ? CLI_OK : cli_failed("%s: out of memory", path);
    for (uint32_t level = 1; level <= m.shape.levels && status == CLI_OK; level++) {
        double difference = 0, norm = 0;
        memset(&error, 0, sizeof error);
        bitstack_result result = bitstack_set_level(stack, index, level, &error);
        if (result == BITSTACK_ERROR_ARGUMENT) break; /* the file ends before this block */
        if (result != BITSTACK_OK) status = cli_failed_at(path, result, &error);
        for (uint32_t i = 0; i < rows && status == CLI_OK; i += ROWS_AT_ONCE) {
            uint32_t some = rows - i < ROWS_AT_ONCE ? rows - i : ROWS_AT_ONCE;
            llm_tensor_read(original, i, some, theirs);
            bitstack_dequantize_rows(stack, index, i, some, ours, cols);
            for (size_t j = 0; j < (size_t)some * cols; j++) {
                double d = (double)theirs[j] - (double)ours[j];
                difference += d * d;
                norm += (double)theirs[j] * (double)theirs[j];
            }
        }
        if (status != CLI_OK) break;
        double relative = norm > 0 ? difference / norm : difference > 0 ? 1 : 0;
        double bits = 8 * (double)bitstack_live_bytes(&m.shape, level) / ((double)rows * cols);
        if (json) {
            cli_json_begin();
            cli_json_text("matrix", m.name, m.name_bytes);
            cli_json_whole("level", level);
            cli_json_number("rel_err2", relative);
            cli_json_number("bits_per_weight", bits);
            cli_json_end();
        } else printf("%-28s level %2u  rel_err2 %.6f  %.3f bits a weight\n", cli_plain(m.name, m.name_bytes), level, relative, bits);
    }
    free(ours), free(theirs);
    bitstack_set_level(stack, index, 0, NULL);
    return status;
}

int command_error(int argc, char **argv) {
    int json = 0;
    const char *path, *against = NULL;
    const cli_option options[] = {{"--against", CLI_TEXT, &against}, {"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "error", help, options, &path, 1);
    if (stop) return stop - 1;
    if (!against) return cli_usage("error", "--against is missing");

    bitstack *stack;
    llm_source source;
    unsigned char *raw = NULL;
    int status = cli_open_unloaded(&stack, path); /* one matrix at a time */
    if (status != CLI_OK) return status;
    status = open_originals(&source, &raw, against, stack);
    if (status == CLI_OK) {
        for (int i = 0; i < bitstack_matrix_count(stack) && status == CLI_OK; i++)
            status = matrix_errors(stack, i, &source, path, against, json);
        llm_source_close(&source);
        free(raw);
    }
    bitstack_close(stack);
    return status;
}
