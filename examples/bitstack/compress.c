/* bitstack compress: a model into a stack. Layer by layer: gather the moments of its inputs, encode its
 * matrices, measure what each one's error does to the predictions, write them. */
#include "cli.h"
#include "encode.h"
#include "journal.h"
#include "resident.h"
#include "../llm/calibrate.h"
#include "../llm/generate.h"
#include "../llm/parallel.h"
#include "../llm/tokenizer.h"

#include <dirent.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char help[] =
    "usage: bitstack compress MODEL -o OUT.bitstack [options]\n\n"
    "MODEL: a GGUF file, or a folder with config.json, safetensors and tokenizer.json.\n\n" ENCODE_HELP
    "  --calibrate TEXT       text like that the model will see: keeps the errors small that matter there\n"
    "  --calibrate-self N     the same with N tokens of text that the model writes itself\n"
    "  --order predicted      blocks by predicted loss reduction a byte: the loss with each matrix at level 0, 1\n"
    "                         and 2 is measured; higher levels follow from their errors (default)\n"
    "  --order loss           the same with the loss measured for every matrix and level\n"
    "  --order paper          level by level, by measured loss, as published\n"
    "  --compress-embeddings auto|yes|no\n"
    "                         make the embedding and the output head matrices of the stack, too; auto does where\n"
    "                         their full precision would buy less a byte than the last blocks do (default)\n"
    "  --memory SIZE          stay below that, as far as possible: wide inputs are then known by their diagonal only,\n"
    "                         and large embeddings stay as they are; 4GB\n"
    "  --probe N              tokens a row of the four rows that losses are measured on; 128\n"
    "  --resume               keep finished matrices in OUT.bitstack.journal, and go on from what is there\n\n"
    "Norms and the tokenizer are kept as they are and always resident.\n";

enum { CALIBRATION_ROWS = 128, CALIBRATION_LENGTH = 257, PROBE_ROWS = 4 };

typedef enum order { ORDER_PREDICTED, ORDER_LOSS, ORDER_PAPER } order;
typedef enum choice { CHOICE_AUTO, CHOICE_YES, CHOICE_NO } choice;

/* Matrices over the vocabulary stand behind a layer's in numbering. */
enum { VOCABULARY = LLM_LINEARS, PLACES = LLM_LINEARS + 2 };

typedef struct compression {
    llm_model model;
    llm_calibration calibration;
    bitstack_writer *writer;
    bitstack_encode_options options;
    order order;
    int threads;
    cli_progress progress;

    bitstack_coded coded[PLACES]; /* of the layer at hand */
    bitstack_result results[PLACES];
    double fractions[PLACES];
    pthread_mutex_t lock;
    choice embeddings;
    uint64_t memory;
    uint32_t probe_length; /* ids */
    journal journal;
    int first; /* of the matrices encoded now */

    uint32_t *levels;    /* a matrix, all layers */
    double **loss_at;    /* predicted or measured loss at each level */
    uint64_t **bytes_at; /* and bytes in memory */
    uint32_t matrices;
} compression;

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

static bitstack_result write_resident(compression *c) {
    /* What the file says about itself as a GGUF file is no longer true. */
    static const char *const left_out[] = {"general.alignment", "general.file_type", "general.quantization_version"};
    const llm_source *s = &c->model.source;
    unsigned char *matrix = mark_matrices(&c->model);
    bitstack_result result = matrix ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    for (size_t i = 0; i < s->meta_count && result == BITSTACK_OK; i++) {
        int keep = s->meta[i].type != LLM_ARRAY && s->meta[i].key.bytes;
        for (size_t j = 0; j < sizeof left_out / sizeof *left_out; j++) keep &= !llm_string_is(s->meta[i].key, left_out[j]);
        if (keep) result = write_meta(c->writer, &s->meta[i]);
    }
    for (size_t i = 0; i < s->tensor_count && result == BITSTACK_OK; i++)
        if (!matrix[i]) result = write_tensor(c->writer, &s->tensors[i]);
    free(matrix);
    return result;
}

/* ---- memory ---- */

static void note(compression *c, const char *what, double needed) {
    cli_progress_end(&c->progress);
    fprintf(stderr, "bitstack: note: %s: --memory %.0fGB would do\n", what, ceil(needed / 1e9));
}

/* Inputs whose second moments, and the encoder's copies of them, do not fit beside a matrix and the calibration rows
 * are known by their norms only. */
static void choose_moments(compression *c, const llm_rows *rows) {
    const llm_config *m = &c->model.config;
    const double cols[LLM_INPUTS] = {m->width, (double)m->heads * m->head_width, m->width, m->hidden};
    double held = 4.0 * (double)(rows->count * rows->length) * m->width, needed = 0;
    for (int i = 0; i < LLM_INPUTS; i++) held += 8 * cols[i] * cols[i];
    for (int i = LLM_INPUTS; i-- > 0 && rows->count; ) { /* the widest is the last */
        double all = held + 24 * cols[i] * cols[i] + 20.0 * cols[i] * (i == LLM_IN_HIDDEN ? m->hidden : m->width);
        if (all <= (double)c->memory) continue;
        c->calibration.diagonal[i] = 1;
        held -= 8 * cols[i] * cols[i];
        if (all > needed) needed = all;
    }
    if (needed > 0) note(c, "of the widest inputs only the diagonal of their second moments is used", needed);
}

/* ---- the matrices ---- */

typedef struct encode_progress {
    compression *c;
    int linear;
} encode_progress;

static int encoding(void *user, double fraction) {
    encode_progress *p = user;
    compression *c = p->c;
    double done = 0, all = 0;
    pthread_mutex_lock(&c->lock);
    c->fractions[p->linear] = fraction;
    for (int i = 0; i < LLM_LINEARS; i++) {
        const llm_linear *linear = &c->model.layers[c->calibration.layer].linears[i];
        double work = (double)linear->rows * linear->cols * linear->cols;
        done += c->fractions[i] * work;
        all += work;
    }
    cli_show(&c->progress, (c->calibration.layer + done / all) / c->model.config.layers);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static void encode_linear(void *user, size_t offset, int thread) {
    compression *c = user;
    size_t index = (size_t)c->first + offset;
    const llm_linear *linear = &c->model.layers[c->calibration.layer].linears[index];
    encode_progress progress = {c, (int)index};
    bitstack_encode_options options = c->options;
    (void)thread;
    options.progress = encoding;
    options.progress_user = &progress;
    float *w = malloc((size_t)linear->rows * linear->cols * sizeof *w);
    if (!w) {
        c->results[index] = BITSTACK_ERROR_MEMORY;
        return;
    }
    llm_linear_rows(&c->model, linear, 0, linear->rows, w);
    c->results[index] = bitstack_encode_matrix(
        &c->coded[index], w, linear->rows, linear->cols, linear->cols,
        c->calibration.has_moments ? &c->calibration.moments[llm_linear_inputs[index]] : NULL, &options);
    free(w);
}

/* Which parts of the model a matrix over the vocabulary is: one, or both where they are tied. */
static int vocabulary_parts(const compression *c, int place) {
    if (c->model.head.tensor == c->model.embedding.tensor) return LLM_EMBEDDING | LLM_HEAD;
    return place == VOCABULARY ? LLM_EMBEDDING : LLM_HEAD;
}

/* The loss with one matrix at `level` and the rest at full precision, measured on `rows` rows; -1 for lack of memory
 * (rounding takes a loss of next to nothing below 0, too, but not that far). */
static double measure(compression *c, int place, uint32_t level, float *dense, size_t rows) {
    bitstack_plane planes[BITSTACK_MAX_LEVELS];
    bitstack_view view;
    const bitstack_shape *s = &c->coded[place].shape;
    if (level == 0) memset(dense, 0, (size_t)s->rows * s->cols * sizeof *dense);
    else {
        bitstack_coded_view(&c->coded[place], level, planes, &view);
        bitstack_view_dequantize(&view, 0, s->rows, dense, s->cols);
    }
    return place < VOCABULARY ? llm_calibration_loss(&c->calibration, place, dense, rows)
                              : llm_calibration_vocabulary_loss(&c->calibration, vocabulary_parts(c, place), dense, rows);
}

/* Loss at every level. Predicted: in proportion to the output error e from level 2 on, by what is measured at
 * level 2: the sensitivity is loss(2) / e(2). A matrix that is missing, or has one plane, is far from linear, so
 * these two are measured as well; so much is lost then that fewer rows will do. (On the demo model below two
 * bits a weight this takes a third off the divergence that sensitivity alone gave.) */
static bitstack_result sensitivity(compression *c, int place, finished_matrix *m) {
    const bitstack_coded *coded = &c->coded[place];
    uint32_t levels = coded->shape.levels, last = levels < 2 ? levels : 2;
    double per_error = 1, *loss = m->loss_at;
    int failed = 0;
    float *dense = malloc((size_t)coded->shape.rows * coded->shape.cols * sizeof *dense);
    if (!dense) return BITSTACK_ERROR_MEMORY;
    for (uint32_t l = 0; l <= levels && !failed; l++) {
        if (l <= last || c->order == ORDER_LOSS) loss[l] = measure(c, place, l, dense, (size_t)1 << (l < 2 ? l : 2)), failed = loss[l] <= -1;
        else loss[l] = per_error * coded->out_err2[l];
        if (l == last && coded->out_err2[l] > 0) per_error = loss[l] / coded->out_err2[l];
    }
    free(dense);
    if (failed) return BITSTACK_ERROR_MEMORY;
    m->coded = *coded;
    m->sensitivity = per_error >= (double)FLT_MAX ? FLT_MAX : (float)(per_error > 0 ? per_error : 0);
    return BITSTACK_OK;
}

/* Takes a finished matrix into the stack and into what the order is made of; frees its code. */
static bitstack_result record(compression *c, const char *name, finished_matrix *m) {
    uint32_t levels = m->coded.shape.levels, index = c->matrices++;
    double *loss = c->loss_at[index] = calloc(levels + 1, sizeof *loss);
    uint64_t *bytes = c->bytes_at[index] = calloc(levels + 1, sizeof *bytes);
    bitstack_result result = loss && bytes ? BITSTACK_OK : BITSTACK_ERROR_MEMORY;
    c->levels[index] = levels;
    for (uint32_t l = 0; l <= levels && result == BITSTACK_OK; l++) {
        loss[l] = m->loss_at[l];
        bytes[l] = l ? bitstack_live_bytes(&m->coded.shape, l) : 0;
    }
    if (result == BITSTACK_OK) result = bitstack_writer_matrix(c->writer, name, &m->coded, m->sensitivity);
    bitstack_coded_free(&m->coded);
    return result;
}

/* Measures an encoded matrix, keeps it in the journal, and takes it in. */
static bitstack_result finish(compression *c, const char *name, int place) {
    finished_matrix m;
    memset(&m, 0, sizeof m);
    bitstack_result result = sensitivity(c, place, &m);
    if (result != BITSTACK_OK) {
        bitstack_coded_free(&c->coded[place]);
        return result;
    }
    memset(&c->coded[place], 0, sizeof c->coded[place]); /* m has it */
    if (journal_add(&c->journal, &m) != 0) journal_close(&c->journal); /* a full disk: go on without */
    return record(c, name, &m);
}

static bitstack_result compress_layer(compression *c) {
    uint32_t layer = c->calibration.layer;
    bitstack_result result = BITSTACK_OK;
    double largest = 0;
    char names[LLM_LINEARS][64];
    finished_matrix m;
    int kept = 0;
    for (int i = 0; i < LLM_LINEARS; i++) {
        const llm_linear *linear = &c->model.layers[layer].linears[i];
        int moments = c->calibration.rows && !c->calibration.diagonal[llm_linear_inputs[i]];
        double bytes = 20.0 * linear->rows * linear->cols + (moments ? 24.0 * linear->cols * linear->cols : 0);
        if (bytes > largest) largest = bytes;
        c->fractions[i] = 0;
        snprintf(names[i], sizeof names[i], "blk.%u.%s.weight", layer, llm_linear_names[i]);
    }
    while (kept < LLM_LINEARS && result == BITSTACK_OK && journal_next(&c->journal, &m) == 1) {
        result = record(c, names[kept], &m);
        c->fractions[kept++] = 1;
    }
    /* Also where all are kept: this is what takes the calibration rows through the layer. */
    if (result == BITSTACK_OK && llm_calibration_gather(&c->calibration) != 0) return BITSTACK_ERROR_MEMORY;
    /* A layer's matrices at once as long as their working memory stays below a quarter of what is allowed, else one
     * by one with all threads on it. */
    double fit = (double)c->memory / 4 / largest;
    int at_once = fit < c->threads ? (int)fit : c->threads, group = fit >= 2 ? LLM_LINEARS : 1;
    if (at_once < 1) at_once = 1;
    c->options.threads = c->threads / at_once;
    for (int i = kept; i < LLM_LINEARS && result == BITSTACK_OK; i += group) {
        int end = i + group < LLM_LINEARS ? i + group : LLM_LINEARS;
        c->first = i;
        llm_parallel(at_once, (size_t)(end - i), encode_linear, c);
        for (int k = i; k < end; k++) {
            if (result == BITSTACK_OK) result = c->results[k];
            if (result == BITSTACK_OK) result = finish(c, names[k], k);
            else if (c->results[k] == BITSTACK_OK) bitstack_coded_free(&c->coded[k]);
        }
    }
    llm_calibration_next(&c->calibration);
    return result;
}

/* What the last blocks of the layers' matrices buy a byte. */
static double last_blocks_value(const compression *c) {
    double loss = 0, bytes = 0;
    for (uint32_t i = 0; i < c->matrices; i++) {
        uint32_t top = c->levels[i];
        if (!top) continue;
        loss += c->loss_at[i][top - 1] - c->loss_at[i][top];
        bytes += (double)(c->bytes_at[i][top] - c->bytes_at[i][top - 1]);
    }
    return bytes > 0 ? loss / bytes : 0;
}

/* A tied head's rows are looked up as well, which needs them good in directions that the head seldom sees: half of
 * the weight goes to all directions alike. (Without this more planes made the demo model worse, not better.) */
static void look_up_too(bitstack_moments *m) {
    double mean = 0;
    for (uint32_t j = 0; j < m->cols; j++) mean += m->h[(size_t)j * m->cols + j] / m->cols;
    for (uint32_t j = 0; j < m->cols; j++) m->h[(size_t)j * m->cols + j] += mean;
}

/* The embedding and the head, which may be one: as matrices of the stack, or resident as they are. Rows of the
 * embedding are looked up, so nothing is known of its inputs, unless it is the head as well. */
static bitstack_result compress_vocabulary(compression *c) {
    const llm_tensor *tensors[2] = {c->model.embedding.tensor, c->model.head.tensor};
    static const char *const names[2] = {"token_embd.weight", "output.weight"};
    const llm_linear *linears[2] = {&c->model.embedding, &c->model.head};
    bitstack_moments moments;
    choice embeddings = c->embeddings;
    /* The encoder's room and a reconstruction; a loss that is measured needs no more. */
    double needed = 24.0 * linears[0]->rows * linears[0]->cols;
    if (embeddings == CHOICE_AUTO && needed > (double)c->memory) {
        note(c, "the embeddings stay as they are", needed);
        embeddings = CHOICE_NO;
    }
    int gathered = embeddings != CHOICE_NO && llm_calibration_gather_head(&c->calibration, &moments) == 0;
    if (gathered && tensors[0] == tensors[1]) look_up_too(&moments);
    bitstack_result result = BITSTACK_OK;
    for (int i = 0; i < (tensors[0] == tensors[1] ? 1 : 2) && result == BITSTACK_OK; i++) {
        const llm_linear *linear = linears[i];
        int place = VOCABULARY + i;
        bitstack_encode_options options = c->options;
        finished_matrix m;
        memset(&m, 0, sizeof m);
        /* Errors here reach every prediction: on the demo model five planes of it lose six times as much as five
         * planes of everything else. */
        if (options.method == BITSTACK_NESTED) options.levels = (options.levels ? options.levels : 5) + 2;
        if (options.levels > BITSTACK_MAX_LEVELS) options.levels = BITSTACK_MAX_LEVELS;
        if (embeddings != CHOICE_NO && journal_next(&c->journal, &m) != 1) {
            float *w = malloc((size_t)linear->rows * linear->cols * sizeof *w);
            if (!w) result = BITSTACK_ERROR_MEMORY;
            else {
                llm_linear_rows(&c->model, linear, 0, linear->rows, w);
                options.threads = c->threads;
                result = bitstack_encode_matrix(&c->coded[place], w, linear->rows, linear->cols, linear->cols,
                                                gathered && (vocabulary_parts(c, place) & LLM_HEAD) ? &moments : NULL, &options);
            }
            free(w);
            if (result == BITSTACK_OK && (result = sensitivity(c, place, &m)) != BITSTACK_OK) bitstack_coded_free(&c->coded[place]);
            if (result == BITSTACK_OK && journal_add(&c->journal, &m) != 0) journal_close(&c->journal);
        }
        if (result != BITSTACK_OK || embeddings == CHOICE_NO) {
            if (result == BITSTACK_OK) result = write_tensor(c->writer, tensors[i]);
            llm_tensor_forget(&c->model.source, tensors[i]);
            continue;
        }
        uint32_t top = m.coded.shape.levels;
        double saved = (double)tensors[i]->bytes - (double)bitstack_live_bytes(&m.coded.shape, top);
        if (embeddings == CHOICE_AUTO && !(m.loss_at[top] < saved * last_blocks_value(c))) {
            result = write_tensor(c->writer, tensors[i]);
            bitstack_coded_free(&m.coded);
        } else result = record(c, names[i], &m);
    }
    if (gathered) bitstack_moments_free(&moments);
    return result;
}

/* ---- calibration text ---- */

static int read_calibration(compression *c, const char *path, size_t length, llm_rows *rows) {
    llm_tokenizer tokenizer;
    llm_error error;
    uint32_t *ids = NULL;
    size_t bytes;
    unsigned char *text = cli_read(path, &bytes);
    if (!text) return CLI_FAILED;
    int status = CLI_OK;
    if (llm_tokenizer_load(&tokenizer, &c->model.source, &error) != 0) status = cli_failed("%s", error.message);
    else {
        int64_t count = llm_encode(&tokenizer, (const char *)text, bytes, &ids);
        if (count < 0) status = cli_failed("%s: out of memory", path);
        else if (tokenizer.count > c->model.config.vocabulary)
            status = cli_failed("%s: expected at most %u tokens, the tokenizer has %u", c->model.source.path,
                                c->model.config.vocabulary, tokenizer.count);
        else if (llm_rows_cut(rows, ids, (size_t)count, length, CALIBRATION_ROWS) != 0)
            status = cli_failed("%s: expected at least two tokens, found %lld", path, (long long)count);
        llm_tokenizer_free(&tokenizer);
    }
    free(text), free(ids);
    return status;
}

/* Some rows to measure losses on: the beginnings of calibration rows, or else text of the model's own. */
static int make_probe(compression *c, const llm_rows *rows, llm_rows *probe) {
    uint32_t context = c->model.config.context;
    if (!rows->count) {
        c->progress.label = "writing";
        return llm_generate_rows(probe, &c->model, PROBE_ROWS, context < c->probe_length ? context + 1 : c->probe_length,
                                 c->options.seed, c->threads, cli_show, &c->progress);
    }
    probe->count = rows->count < PROBE_ROWS ? rows->count : PROBE_ROWS;
    probe->length = rows->length < c->probe_length ? rows->length : c->probe_length;
    probe->ids = malloc(probe->count * probe->length * sizeof *probe->ids);
    for (size_t r = 0; r < probe->count && probe->ids; r++)
        memcpy(probe->ids + r * probe->length, rows->ids + r * rows->count / probe->count * rows->length,
               probe->length * sizeof *probe->ids);
    return probe->ids ? 0 : -1;
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

static int order_as_paper(compression *c, const char *from, const char *to, const llm_rows *probe) {
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
    p.threads = c->threads;
    p.progress.label = "ordering";
    if (llm_model_open(&p.model, from, &load, &why) != 0) return cli_failed("%s", why.message);
    for (uint32_t i = 0; i < c->matrices; i++) blocks += c->levels[i];
    p.all = (uint32_t)blocks - c->matrices;
    bitstack_order_entry *entries = malloc((blocks + 1) * sizeof *entries);
    bitstack_result result = entries ? bitstack_order_paper(c->levels, c->matrices, paper_loss, &p, entries) : BITSTACK_ERROR_MEMORY;
    cli_progress_end(&p.progress);
    llm_model_close(&p.model);
    if (result == BITSTACK_OK) result = bitstack_reorder(from, to, entries, blocks, &error);
    free(entries);
    return result == BITSTACK_OK ? CLI_OK : cli_failed_at(to, result, &error);
}

/* ---- all of it ---- */

static int compress(compression *c, const char *path, const char *out, const llm_rows *rows, const llm_rows *probe) {
    bitstack_error error;
    size_t blocks = 0, all = (size_t)c->model.config.layers * LLM_LINEARS + 2;
    bitstack_order_entry *entries = NULL;
    char *unordered = NULL;
    const char *target = out;
    int status = CLI_OK;
    memset(&error, 0, sizeof error);
    c->progress.label = "compressing";
    c->levels = calloc(all, sizeof *c->levels);
    c->loss_at = calloc(all, sizeof *c->loss_at);
    c->bytes_at = calloc(all, sizeof *c->bytes_at);
    if (c->order == ORDER_PAPER && (unordered = malloc(strlen(out) + 16))) {
        sprintf(unordered, "%s.unordered", out);
        target = unordered;
    }
    if (!c->levels || !c->loss_at || !c->bytes_at || (c->order == ORDER_PAPER && !unordered) ||
        llm_calibration_init(&c->calibration, &c->model, rows->count ? rows : NULL, probe, c->threads) != 0)
        status = cli_failed("%s: out of memory", path);
    else {
        bitstack_result result = bitstack_writer_open(&c->writer, target, NULL, &error);
        choose_moments(c, rows);
        if (result == BITSTACK_OK) {
            result = write_resident(c);
            while (result == BITSTACK_OK && c->calibration.layer < c->model.config.layers) result = compress_layer(c);
            if (result == BITSTACK_OK) result = compress_vocabulary(c);
            for (uint32_t i = 0; i < c->matrices; i++) blocks += c->levels[i];
            if (result == BITSTACK_OK && !(entries = malloc((blocks + 1) * sizeof *entries))) result = BITSTACK_ERROR_MEMORY;
            if (result == BITSTACK_OK)
                result = bitstack_order_predicted(c->levels, c->matrices, (const double *const *)c->loss_at,
                                                  (const uint64_t *const *)c->bytes_at, entries);
            if (result == BITSTACK_OK) result = bitstack_writer_finish(c->writer, entries, blocks, &error);
            else bitstack_writer_abort(c->writer);
        }
        cli_progress_end(&c->progress);
        if (result != BITSTACK_OK) status = cli_failed_at(target, result, &error);
        else if (c->order == ORDER_PAPER) {
            status = order_as_paper(c, unordered, out, probe);
            remove(unordered);
        }
        llm_calibration_free(&c->calibration);
    }
    for (uint32_t i = 0; i < c->matrices; i++) free(c->loss_at[i]), free(c->bytes_at[i]);
    free(c->levels), free(c->loss_at), free(c->bytes_at), free(entries), free(unordered);
    return status;
}

/* Changes whenever the file does, as far as can be told without reading it. */
static uint64_t file_key(const char *path) {
    struct stat file;
    if (stat(path, &file) != 0 || !S_ISREG(file.st_mode)) return 0;
#ifdef __APPLE__
    struct timespec changed = file.st_mtimespec;
#else
    struct timespec changed = file.st_mtim;
#endif
    uint64_t parts[4] = {bitstack_checksum(path, strlen(path)), (uint64_t)file.st_size, (uint64_t)changed.tv_sec, (uint64_t)changed.tv_nsec};
    return bitstack_checksum(parts, sizeof parts);
}

/* The same for a model: of a folder, the files that one is read from, in whatever order they are listed. */
static uint64_t model_key(const char *path) {
    DIR *folder = opendir(path);
    uint64_t sum = folder ? 0 : file_key(path);
    for (const struct dirent *entry; folder && (entry = readdir(folder)); ) {
        char name[2048];
        const char *end = strrchr(entry->d_name, '.');
        if (!end || (strcmp(end, ".safetensors") != 0 && strcmp(end, ".json") != 0)) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        sum += file_key(name);
    }
    if (folder) closedir(folder);
    return sum;
}

/* Tells a run from others whose finished matrices would not be the same. */
static uint64_t journal_key(const compression *c, const char *path, const llm_rows *rows, const llm_rows *probe) {
    uint64_t parts[12] = {c->options.method, c->options.levels, c->options.rank, c->options.seed,
                          (uint64_t)c->options.plain_columns, (uint64_t)(c->order == ORDER_LOSS)};
    parts[6] = model_key(path), parts[7] = bitstack_checksum(BITSTACK_VERSION, strlen(BITSTACK_VERSION));
    if (rows->count) parts[8] = bitstack_checksum(rows->ids, rows->count * rows->length * sizeof *rows->ids);
    parts[9] = bitstack_checksum(probe->ids, probe->count * probe->length * sizeof *probe->ids);
    parts[10] = c->memory, parts[11] = c->probe_length;
    return bitstack_checksum(parts, sizeof parts);
}

int command_compress(int argc, char **argv) {
    encode_arguments a = {"nested", NULL, 0, 0, (uint32_t)llm_processors(), 0};
    const char *path, *text = NULL, *order_name = "predicted", *embeddings = "auto";
    uint32_t self = 0, probe_tokens = 128;
    uint64_t memory = 4000000000u;
    int resume = 0;
    const cli_option table[] = {ENCODE_OPTIONS(a), {"--calibrate", CLI_TEXT, &text}, {"--calibrate-self", CLI_WHOLE, &self},
                                {"--order", CLI_TEXT, &order_name}, {"--compress-embeddings", CLI_TEXT, &embeddings},
                                {"--memory", CLI_SIZE, &memory}, {"--probe", CLI_WHOLE, &probe_tokens},
                                {"--resume", CLI_FLAG, &resume}, {NULL, CLI_FLAG, NULL}};
    static compression c;
    static const char *const orders[] = {"predicted", "loss", "paper"}, *const choices[] = {"auto", "yes", "no"};
    int stop = cli_parse(argc, argv, "compress", help, table, &path, 1);
    if (stop) return stop - 1;
    int status = encode_options(&a, "compress", &c.options);
    if (status != CLI_OK) return status;
    c.threads = a.threads ? (int)a.threads : 1;
    c.order = ORDER_PREDICTED;
    while (c.order <= ORDER_PAPER && strcmp(order_name, orders[c.order]) != 0) c.order++;
    if (c.order > ORDER_PAPER) return cli_usage("compress", "--order: expected predicted, loss or paper, got '%s'", order_name);
    while (c.embeddings <= CHOICE_NO && strcmp(embeddings, choices[c.embeddings]) != 0) c.embeddings++;
    if (c.embeddings > CHOICE_NO)
        return cli_usage("compress", "--compress-embeddings: expected auto, yes or no, got '%s'", embeddings);
    if (probe_tokens < 1 || probe_tokens > 1 << 16) return cli_usage("compress", "--probe: expected 1 to 65536");
    c.memory = memory;
    c.probe_length = probe_tokens + 1;
    if (text && self) return cli_usage("compress", "expected --calibrate or --calibrate-self, not both");
    if (cli_output(&a.out) != CLI_OK || cli_same_file(path, a.out) != CLI_OK || (text && cli_same_file(text, a.out) != CLI_OK)) return CLI_FAILED;
    pthread_mutex_init(&c.lock, NULL);

    llm_error error;
    llm_rows rows = {NULL, 0, 0}, probe = {NULL, 0, 0};
    llm_model_options load;
    memset(&load, 0, sizeof load);
    load.forget = 1;
    load.unpack_bytes = memory / 8 + 1;
    if (llm_model_open(&c.model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    size_t length = c.model.config.context < CALIBRATION_LENGTH ? c.model.config.context + 1 : CALIBRATION_LENGTH;
    if (c.model.source.stack) status = cli_failed("%s: offset 0: expected a model, this is a stack already", path);
    else status = cli_check_model(&c.model.source);
    if (status == CLI_OK && text) status = read_calibration(&c, text, length, &rows);
    if (status == CLI_OK && self) {
        c.progress.label = "writing";
        if (llm_generate_rows(&rows, &c.model, (self + length - 2) / (length - 1), length, c.options.seed, c.threads, cli_show,
                              &c.progress) != 0) status = cli_failed("%s: out of memory", path);
        cli_progress_end(&c.progress);
    }
    if (status == CLI_OK && make_probe(&c, &rows, &probe) != 0) status = cli_failed("%s: out of memory", path);
    cli_progress_end(&c.progress);
    char *journal_path = resume ? malloc(strlen(a.out) + 16) : NULL;
    if (status == CLI_OK && resume) {
        if (!journal_path) status = cli_failed("%s: out of memory", path);
        else {
            sprintf(journal_path, "%s.journal", a.out);
            if (journal_open(&c.journal, journal_path, journal_key(&c, path, &rows, &probe)) != 0)
                status = cli_failed("%s: cannot be written", journal_path);
        }
    }
    if (status == CLI_OK) status = compress(&c, path, a.out, &rows, &probe);
    journal_close(&c.journal);
    if (status == CLI_OK && journal_path) remove(journal_path);
    free(journal_path);
    llm_rows_free(&rows);
    llm_rows_free(&probe);
    llm_model_close(&c.model);
    return status;
}
