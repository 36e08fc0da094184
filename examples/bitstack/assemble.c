#include "assemble.h"
#include "couple.h"
#include "resident.h"
#include "../llm/platform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vocabulary_matrices(const llm_model *m) { return m->head.tensor == m->embedding.tensor ? 1 : 2; }

void matrix_name(uint32_t layer, int linear, char name[64]) { snprintf(name, 64, "blk.%u.%s.weight", layer, llm_linear_names[linear]); }

/* ---- the resident part ---- */

/* Which tensors become matrices: one of the vocabulary's too, see compress_vocabulary. Free it. */
static unsigned char *mark_matrices(const llm_model *m) {
    unsigned char *matrix = calloc(m->source.tensor_count + 1, 1);
    if (!matrix) return NULL;
    matrix[m->embedding.tensor - m->source.tensors] = matrix[m->head.tensor - m->source.tensors] = 1;
    for (uint32_t i = 0; i < m->config.layers * LLM_LINEARS; i++)
        matrix[m->layers[i / LLM_LINEARS].linears[i % LLM_LINEARS].tensor - m->source.tensors] = 1;
    return matrix;
}

static bitstack_result write_resident(assembly *a) {
    /* What the file says about itself as a GGUF file is no longer true. */
    static const char *const left_out[] = {"general.alignment", "general.file_type", "general.quantization_version"};
    const llm_source *s = &a->model->source;
    unsigned char *matrix = mark_matrices(a->model);
    bitstack_result result = matrix ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    for (size_t i = 0; i < s->meta_count && result == BITSTACK_OK; i++) {
        int keep = s->meta[i].type != LLM_ARRAY && s->meta[i].key.bytes;
        for (size_t j = 0; j < sizeof left_out / sizeof *left_out; j++) keep &= !llm_string_is(s->meta[i].key, left_out[j]);
        if (keep) result = write_meta(a->writer, &s->meta[i]);
    }
    for (size_t i = 0; i < s->tensor_count && result == BITSTACK_OK; i++)
        if (!matrix[i]) result = write_tensor(a->writer, &s->tensors[i]);
    free(matrix);
    return result;
}

/* ---- the matrices ---- */

/* Takes a finished matrix into the stack and into what the order is made of; frees its code. */
bitstack_result assembly_take(assembly *a, const char *name, finished_matrix *m) {
    uint32_t levels = m->coded.shape.levels, index = a->matrices++;
    double *loss = a->loss_at[index] = calloc(levels + 1, sizeof *loss);
    uint64_t *bytes = a->bytes_at[index] = calloc(levels + 1, sizeof *bytes);
    bitstack_result result = loss && bytes ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    a->levels[index] = levels;
    if (index < a->model->config.layers * LLM_LINEARS) a->weights += (double)m->coded.shape.rows * m->coded.shape.cols;
    memcpy(a->probed[index], m->probed, sizeof m->probed);
    for (uint32_t l = 0; l <= levels && result == BITSTACK_OK; l++) {
        loss[l] = m->loss_at[l];
        bytes[l] = l ? bitstack_live_bytes(&m->coded.shape, l) : 0;
    }
    if (result == BITSTACK_OK) result = bitstack_writer_matrix(a->writer, name, &m->coded, m->sensitivity);
    bitstack_coded_free(&m->coded);
    return result;
}

/* The logarithm of measured over predicted loss of one kind of matrix at a level, between the layers where it was
 * probed on straight lines. */
static double correction(const assembly *a, uint32_t layer, int kind, uint32_t level) {
    double before = 0, after = 0, at_before = -1, at_after = -1;
    for (uint32_t l = 0; l < a->model->config.layers; l++) {
        uint32_t i = l * LLM_LINEARS + (uint32_t)kind;
        double measured = level <= a->levels[i] ? a->probed[i][level] : -1, predicted = level <= a->levels[i] ? a->loss_at[i][level] : 0;
        if (!(measured > 0) || !(predicted > 0)) continue;
        double ratio = log(measured / predicted);
        if (l <= layer) before = ratio, at_before = l;
        if (l >= layer && at_after < 0) after = ratio, at_after = l;
    }
    if (at_before < 0) return after; /* 0 if there is none */
    if (at_after <= at_before) return before;
    return before + (after - before) * (layer - at_before) / (at_after - at_before);
}

/* The prediction holds for small errors, up to a factor that a kind of matrix has in common. One that is missing, or
 * has a plane or two, is far from small: the others of its kind tell. Levels above those that are probed are corrected as
 * the highest of these. */
bitstack_result assembly_correct(assembly *a) {
    uint32_t layers = a->model->config.layers, count = layers * LLM_LINEARS;
    double (*by)[PROBED_LEVELS] = malloc(count * sizeof *by);
    if (!by) return BITSTACK_ERROR_MEMORY;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t l = 0; l < PROBED_LEVELS; l++) by[i][l] = correction(a, i / LLM_LINEARS, (int)(i % LLM_LINEARS), l);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t l = 0; l <= a->levels[i]; l++) a->loss_at[i][l] *= exp(by[i][l < PROBED_LEVELS ? l : PROBED_LEVELS - 1]);
    free(by);
    return BITSTACK_OK;
}

/* What the last blocks of the layers' matrices buy a byte. */
static double last_blocks_value(const assembly *a) {
    double loss = 0, bytes = 0;
    for (uint32_t i = 0; i < a->matrices; i++) {
        uint32_t top = a->levels[i];
        if (!top) continue;
        loss += a->loss_at[i][top - 1] - a->loss_at[i][top];
        bytes += (double)(a->bytes_at[i][top] - a->bytes_at[i][top - 1]);
    }
    return bytes > 0 ? loss / bytes : 0;
}

bitstack_result assembly_vocabulary(assembly *a, int which, finished_matrix *m) {
    static const char *const names[2] = {"token_embd.weight", "output.weight"};
    const llm_tensor *tensor = which ? a->model->head.tensor : a->model->embedding.tensor;
    if (m) {
        uint32_t top = m->coded.shape.levels;
        double saved = (double)tensor->bytes - (double)bitstack_live_bytes(&m->coded.shape, top);
        if (a->embeddings == CHOICE_YES || m->loss_at[top] < saved * last_blocks_value(a)) return assembly_take(a, names[which], m);
        bitstack_coded_free(&m->coded);
    }
    bitstack_result result = write_tensor(a->writer, tensor);
    llm_tensor_forget(&a->model->source, tensor);
    return result;
}

/* ---- the paper's order: measured on the finished stack ---- */

typedef struct paper {
    llm_model model;
    const llm_rows *probe;
    int threads;
    cli_progress progress;
    uint32_t calls, all;
} paper;

static int paper_loss(void *user, const uint32_t *levels, uint32_t matrices, double *loss) {
    paper *p = user;
    llm_quality quality;
    for (uint32_t i = 0; i < matrices; i++) {
        bitstack_matrix m;
        if (bitstack_get_matrix(p->model.source.stack, (int)i, &m) != BITSTACK_OK) return 1;
        if (m.level != levels[i] && bitstack_set_level(p->model.source.stack, (int)i, levels[i], NULL) != BITSTACK_OK) return 1;
    }
    if (llm_evaluate(&p->model, NULL, p->probe, p->threads, NULL, NULL, &quality) != 0) return 1;
    *loss = exp(quality.nll);
    cli_show(&p->progress, (double)++p->calls / p->all);
    return 0;
}

static int order_as_paper(assembly *a, const llm_rows *probe, int threads) {
    const char *from = a->target, *to = a->out;
    paper p;
    llm_model_options load;
    llm_error why;
    bitstack_error error;
    size_t blocks = 0;
    memset(&p, 0, sizeof p);
    memset(&load, 0, sizeof load);
    memset(&error, 0, sizeof error);
    load.stack.load_nothing = 1;
    p.probe = probe;
    p.threads = threads;
    p.progress.label = "ordering";
    if (llm_model_open(&p.model, from, &load, &why) != 0) return cli_failed("%s", why.message);
    for (uint32_t i = 0; i < a->matrices; i++) blocks += a->levels[i];
    p.all = (uint32_t)blocks - a->matrices;
    bitstack_order_entry *entries = malloc((blocks + 1) * sizeof *entries);
    bitstack_result result = entries ? bitstack_order_paper(a->levels, a->matrices, paper_loss, &p, entries) : BITSTACK_ERROR_MEMORY;
    cli_progress_end(&p.progress);
    llm_model_close(&p.model);
    if (result == BITSTACK_OK) result = bitstack_reorder(from, to, entries, blocks, &error);
    free(entries);
    return result == BITSTACK_OK ? CLI_OK : cli_failed_at(to, result, &error);
}

/* ---- all of it ---- */

bitstack_result assembly_begin(assembly *a, const llm_model *model, const char *out, order by, choice embeddings) {
    size_t all = (size_t)model->config.layers * LLM_LINEARS + 2;
    memset(a, 0, sizeof *a);
    a->model = model;
    a->out = out;
    a->order = by;
    a->embeddings = embeddings;
    a->levels = calloc(all, sizeof *a->levels);
    a->loss_at = calloc(all, sizeof *a->loss_at);
    a->bytes_at = calloc(all, sizeof *a->bytes_at);
    a->probed = calloc(all, sizeof *a->probed);
    a->target = malloc(strlen(out) + 16);
    if (!a->levels || !a->loss_at || !a->bytes_at || !a->probed || !a->target) return BITSTACK_ERROR_MEMORY;
    sprintf(a->target, "%s%s", out, by == ORDER_PAPER ? ".unordered" : "");
    bitstack_result result = bitstack_writer_open(&a->writer, a->target, NULL, &a->error);
    if (result != BITSTACK_OK) a->writer = NULL;
    return result == BITSTACK_OK ? write_resident(a) : result;
}

/* A few sizes on the way from one block a matrix to all, evenly by bytes. */
static void choose_points(assembly *a, const bitstack_order_entry *entries, size_t blocks) {
    uint64_t all = 0, least = 0, bytes = 0, layers = 0;
    uint32_t in_layers = a->model->config.layers * LLM_LINEARS;
    double loss = 0;
    for (uint32_t i = 0; i < a->matrices; i++) {
        all += a->bytes_at[i][a->levels[i]];
        least += a->levels[i] ? a->bytes_at[i][1] : 0;
        loss += a->loss_at[i][0];
    }
    for (size_t i = 0; i < blocks; i++) {
        uint32_t m = entries[i].matrix, l = entries[i].level;
        uint64_t more = a->bytes_at[m][l] - a->bytes_at[m][l - 1];
        bytes += more;
        if (m < in_layers) layers += more;
        loss += a->loss_at[m][l] - a->loss_at[m][l - 1];
        if (bytes >= least + (all - least) * (uint64_t)a->point_count / (MOST_POINTS - 1) || i + 1 == blocks) {
            if (a->point_count == MOST_POINTS) a->point_count--;
            a->points[a->point_count++] = (assembly_point){bytes, layers, loss > 0 ? loss : 0};
        }
    }
}

static uint64_t base_bytes(const char *path) {
    bitstack *stack;
    uint64_t bytes = 0;
    if (cli_open_unloaded(&stack, path) != CLI_OK) return 0;
    bytes = bitstack_base_bytes(stack);
    bitstack_close(stack);
    return bytes;
}

int assembly_finish(assembly *a, bitstack_result result, const llm_rows *probe, int threads) {
    size_t blocks = 0;
    int status = CLI_OK;
    for (uint32_t i = 0; i < a->matrices; i++) blocks += a->levels[i];
    bitstack_order_entry *entries = malloc((blocks + 1) * sizeof *entries);
    if (result == BITSTACK_OK && !entries) result = BITSTACK_ERROR_MEMORY;
    if (result == BITSTACK_OK)
        result = couple_order(a->model->config.layers, a->levels, a->matrices, (const double *const *)a->loss_at,
                              (const uint64_t *const *)a->bytes_at, entries);
    if (result == BITSTACK_OK) {
        choose_points(a, entries, blocks);
        result = bitstack_writer_finish(a->writer, entries, blocks, &a->error);
    } else bitstack_writer_abort(a->writer);
    free(entries);
    if (result != BITSTACK_OK) status = cli_failed_at(a->target ? a->target : a->out, result, &a->error);
    else if (a->order == ORDER_PAPER) {
        status = order_as_paper(a, probe, threads);
        platform_remove(a->target);
    }
    if (status == CLI_OK) a->base = base_bytes(a->out);
    for (uint32_t i = 0; i < a->matrices; i++) free(a->loss_at[i]), free(a->bytes_at[i]);
    free(a->levels), free(a->loss_at), free(a->bytes_at), free(a->probed), free(a->target);
    a->levels = NULL, a->loss_at = NULL, a->bytes_at = NULL, a->probed = NULL, a->target = NULL, a->writer = NULL;
    return status;
}

/* ---- parts ---- */

uint32_t part_of(uint32_t layer, uint32_t parts) { return layer % parts; }

char *part_path(const char *out, uint32_t part, uint32_t parts) {
    char *path = malloc(strlen(out) + 40);
    if (path) sprintf(path, "%s.part-%u-of-%u", out, part + 1, parts);
    return path;
}

enum { SAMPLES = 64, SAMPLE = 4096 };

/* Changes whenever the file does, as far as its size, its time and samples tell. */
static uint64_t file_key(const char *path, int here) {
    platform_status status;
    unsigned char sample[SAMPLE];
    if (platform_look(path, &status) != 0 || status.kind != PLATFORM_FILE) return 0;
    uint64_t parts[5] = {here ? bitstack_checksum(path, strlen(path)) : 0, status.bytes, here ? (uint64_t)status.seconds : 0,
                         here ? (uint64_t)status.nanoseconds : 0, 0};
    FILE *file = platform_open(path, "rb");
    for (int i = 0; file && i < SAMPLES; i++) { /* the first is the beginning, the last the end */
        int64_t at = status.bytes > SAMPLE ? (int64_t)((double)(status.bytes - SAMPLE) * (double)i / (SAMPLES - 1)) : 0;
        size_t got = platform_seek(file, at, SEEK_SET) == 0 ? fread(sample, 1, SAMPLE, file) : 0;
        uint64_t pair[2] = {parts[4], bitstack_checksum(sample, got)};
        parts[4] = bitstack_checksum(pair, sizeof pair);
    }
    if (file) fclose(file);
    return bitstack_checksum(parts, sizeof parts);
}

/* Of a folder, the files that a model is read from, in whatever order they are listed. */
uint64_t model_key(const char *path, int here) {
    platform_folder *folder = platform_folder_open(path);
    uint64_t sum = folder ? 0 : file_key(path, here);
    for (const char *entry; folder && (entry = platform_folder_next(folder)); ) {
        char name[2048];
        const char *end = strrchr(entry, '.');
        if (!end || (strcmp(end, ".safetensors") != 0 && strcmp(end, ".json") != 0)) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry);
        sum += file_key(name, here);
    }
    if (folder) platform_folder_close(folder);
    return sum;
}
