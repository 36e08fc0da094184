/* bitstack compress-matrix: one matrix of raw floats into a stack. */
#include "cli.h"
#include "encode.h"
#include "../llm/parallel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack compress-matrix W.f32 --rows M --cols N [--activations X.f32] -o OUT.bitstack [options]\n\n"
    "W.f32: M x N raw little-endian floats, row-major, y = W x. X.f32: inputs x, one of N floats after the\n"
    "other; with them, the output error is what is kept small. The matrix is stored under the file's name\n"
    "without directory and extension.\n\n" ENCODE_HELP;

int encode_options(const encode_arguments *a, const char *command, bitstack_encode_options *options) {
    memset(options, 0, sizeof *options);
    if (!a->out) return cli_usage(command, "-o is missing");
    if (strcmp(a->method, "nested") == 0) options->method = BITSTACK_NESTED;
    else if (strcmp(a->method, "iabs") == 0) options->method = BITSTACK_IABS;
    else return cli_usage(command, "--method: expected nested or iabs, got '%s'", a->method);
    if (a->levels > BITSTACK_MAX_LEVELS) return cli_usage(command, "--levels: expected 1 to %d", BITSTACK_MAX_LEVELS);
    if (a->rank > 1 && options->method == BITSTACK_NESTED) return cli_usage(command, "--rank: nested coding has rank 1; --method iabs takes more");
    if (a->levels > 8 && options->method == BITSTACK_NESTED) return cli_usage(command, "--levels: expected 1 to 8 for nested");
    if (a->rank > 1024) return cli_usage(command, "--rank: expected 1 to 1024");
    if (a->threads > 256) return cli_usage(command, "--threads: expected 1 to 256");
    options->levels = a->levels;
    options->rank = a->rank;
    options->threads = (int)a->threads;
    options->seed = a->seed;
    return CLI_OK;
}

static int show(void *progress, double fraction) {
    cli_show(progress, fraction);
    return 0;
}

/* Floats from a file whose size must be a multiple of `row` floats, `rows` of them (0: any number but none). */
static float *read_floats(const char *path, uint64_t rows, uint64_t row, uint64_t *count) {
    size_t bytes;
    unsigned char *data = cli_read(path, &bytes);
    if (!data) return NULL;
    if (rows ? bytes != rows * row * 4 : bytes == 0 || bytes % (row * 4)) {
        if (rows)
            cli_failed("%s: offset %llu: expected %llu bytes, %llu x %llu floats", path, (unsigned long long)bytes,
                       (unsigned long long)(rows * row * 4), (unsigned long long)rows, (unsigned long long)row);
        else
            cli_failed("%s: offset %llu: expected a multiple of %llu bytes, inputs of %llu floats", path,
                       (unsigned long long)bytes, (unsigned long long)(row * 4), (unsigned long long)row);
        free(data);
        return NULL;
    }
    *count = bytes / (row * 4);
    return (float *)(void *)data;
}

int command_compress_matrix(int argc, char **argv) {
    encode_arguments a = {"nested", NULL, 0, 0, (uint32_t)llm_processors(), 0};
    const char *path, *activations = NULL;
    uint32_t rows = 0, cols = 0;
    const cli_option table[] = {ENCODE_OPTIONS(a), {"--rows", CLI_WHOLE, &rows}, {"--cols", CLI_WHOLE, &cols},
                                {"--activations", CLI_TEXT, &activations}, {NULL, CLI_FLAG, NULL}};
    bitstack_encode_options options;
    int stop = cli_parse(argc, argv, "compress-matrix", help, table, &path, 1);
    if (stop) return stop - 1;
    int status = encode_options(&a, "compress-matrix", &options);
    if (status != CLI_OK) return status;
    if (!rows || !cols || rows > 1 << 30 || cols > 1 << 30)
        return cli_usage("compress-matrix", "expected --rows and --cols, 1 to 1073741824");
    if (cli_output(&a.out) != CLI_OK || cli_same_file(path, a.out) != CLI_OK || (activations && cli_same_file(activations, a.out) != CLI_OK)) return CLI_FAILED;

    uint64_t inputs = 0, all;
    cli_progress progress = {"compressing", 0, 0, 0, 0};
    bitstack_moments moments;
    bitstack_coded coded;
    bitstack_writer *writer;
    bitstack_error error;
    float *x = NULL, *w = read_floats(path, rows, cols, &all);
    if (!w) return CLI_FAILED;
    if (activations && !(x = read_floats(activations, 0, cols, &inputs))) {
        free(w);
        return CLI_FAILED;
    }
    bitstack_result result = x ? bitstack_moments_init(&moments, cols, 1) : BITSTACK_OK;
    if (x && result == BITSTACK_OK) bitstack_moments_add(&moments, x, (size_t)inputs, cols);
    free(x);
    options.progress = show;
    options.progress_user = &progress;
    if (result == BITSTACK_OK) {
        result = bitstack_encode_matrix(&coded, w, rows, cols, cols, inputs ? &moments : NULL, &options);
        if (inputs) bitstack_moments_free(&moments);
    }
    cli_progress_end(&progress);
    free(w);
    if (result != BITSTACK_OK) return cli_failed_at(path, result, NULL);

    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    const char *dot = strrchr(name, '.');
    char stem[256];
    snprintf(stem, sizeof stem, "%.*s", (int)(dot && dot > name ? dot - name : (long)strlen(name)), name);
    memset(&error, 0, sizeof error);
    result = bitstack_writer_open(&writer, a.out, NULL, &error);
    if (result == BITSTACK_OK) {
        result = bitstack_writer_matrix(writer, stem, &coded, 1);
        if (result == BITSTACK_OK) result = bitstack_writer_finish(writer, NULL, 0, &error);
        else bitstack_writer_abort(writer);
    }
    bitstack_coded_free(&coded);
    return result == BITSTACK_OK ? CLI_OK : cli_failed_at(a.out, result, &error);
}
