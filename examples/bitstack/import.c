/* bitstack import: a published BitStack checkpoint as a stack, block by block as it is. */
#include "cli.h"
#include "resident.h"
#include "../llm/hf.h"
#include "../llm/published.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack import CHECKPOINT_DIR -o OUT.bitstack [--budget SIZE] [--json]\n\n"
    "Reads a BitStack checkpoint as published: config.json, *.safetensors with the blocks of every linear,\n"
    "tokenizer.json. Nothing is compressed again: signs and factors stay as they are. Blocks come in the order of\n"
    "compression_config.json, else of the perplexities in reduced_ppl_average.json, else level by level.\n\n"
    "  --budget SIZE   only what the published loader would load with so much memory, as it counts that in\n"
    "                  compression_config.json\n";

typedef struct import {
    const char *folder;
    llm_source source; /* metadata and resident tensors */
    llm_published blocks;
    llm_safetensors *files;
    size_t file_count;
    bitstack_order_entry *order;
    llm_published_config *configs;
    size_t config_count;
} import;

static void import_free(import *im) {
    llm_published_free(&im->blocks);
    for (size_t i = 0; i < im->file_count; i++) llm_safetensors_close(&im->files[i]);
    free(im->files), free(im->order), free(im->configs);
    llm_source_close(&im->source);
}

/* DIR/NAME; NULL for lack of memory. Free it. */
static char *path_of(const char *folder, const char *name) {
    char *path = malloc(strlen(folder) + strlen(name) + 2);
    if (path) sprintf(path, "%s/%s", folder, name);
    return path;
}

/* ---- tensors ---- */

static int add_resident(import *im, const llm_safetensor *from, const char *path, llm_error *error) {
    static const struct { const char *name; llm_type type; } types[] = {{"F32", LLM_TYPE_F32}, {"F16", LLM_TYPE_F16}, {"BF16", LLM_TYPE_BF16}};
    char name[96];
    llm_tensor tensor = {{NULL, 0}, LLM_TYPE_F32, from->dimensions, {0}, from->data, from->bytes};
    int known = llm_hf_tensor_name(from->name, name, sizeof name);
    size_t type = 0;
    if (known > 0) return 0;
    while (type < 3 && !llm_string_is(from->dtype, types[type].name)) type++;
    if (known < 0 || type == 3 || !from->bytes)
        return llm_fail(error, "%s: tensor '%.*s': expected a block, or a tensor of the model as F32, F16 or BF16", path,
                        (int)(from->name.bytes < 80 ? from->name.bytes : 80), from->name.text);
    tensor.type = types[type].type;
    memcpy(tensor.shape, from->shape, sizeof tensor.shape);
    return llm_add_tensor(&im->source, name, tensor) == 0 ? 0 : llm_fail(error, "%s: out of memory", path);
}

static int add_file(import *im, const char *name, llm_error *error) {
    char *path = path_of(im->folder, name);
    llm_error why;
    llm_safetensors *files = realloc(im->files, (im->file_count + 1) * sizeof *files);
    int result = path && files ? 0 : llm_fail(error, "%s: out of memory", im->folder);
    if (files) im->files = files;
    if (result == 0) result = llm_safetensors_open(&files[im->file_count], path, error);
    if (result == 0) {
        const llm_safetensors *file = &files[im->file_count++];
        for (size_t i = 0; i < file->count && result == 0; i++) {
            int taken = llm_published_add(&im->blocks, &file->tensors[i], &why);
            if (taken < 0) result = llm_fail(error, "%s: %s", path, why.message);
            else if (!taken) result = add_resident(im, &file->tensors[i], path, error);
        }
    }
    free(path);
    return result;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* All of the folder's, in the order of their names. */
static int add_files(import *im, llm_error *error) {
    char **names = NULL;
    size_t count = 0;
    int result = 0;
    platform_folder *folder = platform_folder_open(im->folder);
    for (const char *entry; folder && result == 0 && (entry = platform_folder_next(folder)); ) {
        const char *end = strrchr(entry, '.');
        if (!end || strcmp(end, ".safetensors") != 0) continue;
        char **more = realloc(names, (count + 1) * sizeof *more);
        if (more) names = more;
        if (!more || !(names[count] = strdup(entry))) result = llm_fail(error, "%s: out of memory", im->folder);
        else count++;
    }
    if (folder) platform_folder_close(folder);
    if (count) qsort(names, count, sizeof *names, by_name);
    if (result == 0 && !count) result = llm_fail(error, "%s: expected a folder with *.safetensors", im->folder);
    for (size_t i = 0; i < count; i++) {
        if (result == 0) result = add_file(im, names[i], error);
        free(names[i]);
    }
    free(names);
    return result;
}

/* ---- the other files ---- */

/* Reads a part; where it is absent and not needed, nothing happens. 1 if it was there. */
static int read_part(import *im, const char *name, int needed, llm_error *error,
                     int (*read)(import *, const char *, size_t, const char *, llm_error *)) {
    char *path = path_of(im->folder, name);
    llm_mapping text;
    int result = 0;
    if (!path) return llm_fail(error, "%s: out of memory", im->folder);
    if (needed || platform_there(path)) {
        result = llm_map(&text, path, "a JSON file", error);
        if (result == 0) {
            result = read(im, text.data, text.bytes, path, error) == 0 ? 1 : -1;
            llm_unmap(&text);
        }
    }
    free(path);
    return result;
}

static int read_configs(import *im, const char *text, size_t bytes, const char *path, llm_error *error) {
    return llm_published_configs(&im->blocks, text, bytes, path, im->order, &im->configs, &im->config_count, error);
}
static int read_losses(import *im, const char *text, size_t bytes, const char *path, llm_error *error) {
    return llm_published_losses(&im->blocks, text, bytes, path, im->order, error);
}

static int read_all(import *im, const char **ordered_by, llm_error *error) {
    im->source.path = strdup(im->folder);
    if (!im->source.path) return llm_fail(error, "%s: out of memory", im->folder);
    if (llm_hf_metadata(&im->source, im->folder, error) != 0 || add_files(im, error) != 0 || (llm_hf_tie(&im->source), 0) ||
        llm_published_check(&im->blocks, im->folder, error) != 0) return -1;
    im->order = malloc((llm_published_blocks(&im->blocks) + 1) * sizeof *im->order);
    if (!im->order) return llm_fail(error, "%s: out of memory", im->folder);
    int found = read_part(im, *ordered_by = "compression_config.json", 0, error, read_configs);
    if (!found) found = read_part(im, *ordered_by = "reduced_ppl_average.json", 0, error, read_losses);
    if (found) return found < 0 ? -1 : 0;
    *ordered_by = "level";
    return llm_published_levels(&im->blocks, im->order) == 0 ? 0 : llm_fail(error, "%s: out of memory", im->folder);
}

/* ---- writing ---- */

static int write_stack(import *im, const char *out, llm_error *error) {
    bitstack_writer *writer;
    bitstack_error why;
    cli_progress progress = {"importing", 0, 0, 0, 0};
    char name[64];
    int failed = 0;
    memset(&why, 0, sizeof why);
    bitstack_result result = bitstack_writer_open(&writer, out, NULL, &why);
    if (result != BITSTACK_OK) return llm_fail(error, "%s: %s", out, why.message);
    for (size_t i = 0; i < im->source.meta_count && result == BITSTACK_OK; i++)
        if (im->source.meta[i].type != LLM_ARRAY) result = write_meta(writer, &im->source.meta[i]);
    for (size_t i = 0; i < im->source.tensor_count && result == BITSTACK_OK; i++) result = write_tensor(writer, &im->source.tensors[i]);
    for (uint32_t i = 0; i < im->blocks.count && result == BITSTACK_OK && !failed; i++) {
        bitstack_coded coded;
        cli_show(&progress, (double)i / im->blocks.count);
        failed = llm_published_code(&im->blocks, i, &coded, error) != 0;
        if (failed) break;
        snprintf(name, sizeof name, "blk.%u.%s.weight", i / LLM_LINEARS, llm_linear_names[i % LLM_LINEARS]);
        result = bitstack_writer_matrix(writer, name, &coded, 0);
        llm_published_coded_free(&coded);
    }
    cli_progress_end(&progress);
    if (failed || result != BITSTACK_OK) {
        bitstack_writer_abort(writer);
        return failed ? -1 : llm_fail(error, "%s: %s", out, bitstack_result_string(result));
    }
    result = bitstack_writer_finish(writer, im->order, llm_published_blocks(&im->blocks), &why);
    return result == BITSTACK_OK ? 0 : llm_fail(error, "%s: %s", out, why.message);
}

/* Whether it is a model that runs; and, with a budget, the bytes of the file that it leaves. */
static int check(const char *path, size_t blocks, uint64_t *bytes, llm_error *error) {
    llm_model model;
    llm_model_options options;
    bitstack_block last;
    memset(&options, 0, sizeof options);
    options.stack.load_nothing = 1;
    if (llm_model_open(&model, path, &options, error) != 0) return -1;
    *bytes = bitstack_base_bytes(model.source.stack);
    if (blocks && bitstack_get_block(model.source.stack, (int)blocks - 1, &last) == BITSTACK_OK) *bytes = last.offset + last.bytes;
    llm_model_close(&model);
    return 0;
}

int command_import(int argc, char **argv) {
    int json = 0;
    const char *out = NULL, *ordered_by = NULL;
    uint64_t budget = 0, bytes = 0;
    import im;
    memset(&im, 0, sizeof im);
    const cli_option table[] = {{"-o", CLI_TEXT, &out}, {"--budget", CLI_SIZE, &budget}, {"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "import", help, table, &im.folder, 1), limited = 0;
    if (stop) return stop - 1;
    if (!out) return cli_usage("import", "-o is missing");
    if (cli_output(&out) != CLI_OK || cli_same_file(im.folder, out) != CLI_OK) return CLI_FAILED;
    for (int i = 0; i < argc; i++) limited |= strncmp(argv[i], "--budget", 8) == 0;

    llm_error error;
    char *part = malloc(strlen(out) + 16);
    size_t config = 0;
    int result = part ? read_all(&im, &ordered_by, &error) : llm_fail(&error, "%s: out of memory", out);
    for (size_t i = 0; i < im.source.tensor_count && result == 0; i++) result = llm_tensor_check(&im.source, &im.source.tensors[i], &error);
    if (result == 0 && limited) {
        if (!im.config_count) result = llm_fail(&error, "%s: --budget needs compression_config.json", im.folder);
        else if (im.configs[0].memory > budget)
            result = llm_fail(&error, "%s: expected --budget of at least %llu bytes, the smallest config", im.folder,
                              (unsigned long long)im.configs[0].memory);
        while (result == 0 && config + 1 < im.config_count && im.configs[config + 1].memory <= budget) config++;
    }
    if (result == 0) { /* beside OUT until it is known to be good, and cut */
        sprintf(part, "%s.import", out);
        result = write_stack(&im, part, &error);
        if (result == 0) {
            result = check(part, limited ? im.configs[config].blocks : llm_published_blocks(&im.blocks), &bytes, &error);
            if (result == 0 && limited && platform_cut(part, bytes) != 0) result = llm_fail(&error, "%s: cannot be cut", part);
            if (result == 0 && platform_replace(part, out) != 0) result = llm_fail(&error, "%s: cannot be written", out);
            if (result != 0) platform_remove(part);
        }
    }
    if (result == 0 && json) {
        cli_json_begin();
        cli_json_text("file", out, strlen(out));
        cli_json_whole("matrices", im.blocks.count);
        cli_json_whole("blocks", limited ? im.configs[config].blocks : llm_published_blocks(&im.blocks));
        cli_json_whole("bytes", bytes);
        cli_json_text("ordered_by", ordered_by, strlen(ordered_by));
        if (limited) cli_json_whole("config", config), cli_json_whole("published_bytes", im.configs[config].memory);
        cli_json_end();
    } else if (result == 0 && limited)
        printf("%s: config %zu of %zu: %llu bytes as published, %zu of %zu blocks\n", out, config, im.config_count,
               (unsigned long long)im.configs[config].memory, im.configs[config].blocks, llm_published_blocks(&im.blocks));
    else if (result == 0)
        printf("%s: %u matrices, %zu blocks, ordered by %s\n", out, im.blocks.count, llm_published_blocks(&im.blocks), ordered_by);
    import_free(&im);
    free(part);
    return result == 0 ? CLI_OK : cli_failed("%s", error.message);
}
