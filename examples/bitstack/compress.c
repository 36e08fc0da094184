/* bitstack compress: a model into a stack. Layer by layer: gather the moments of its inputs, encode its
 * matrices, measure what each one's error does to the predictions, write them. */
#include "cli.h"
#include "encode.h"
#include "assemble.h"
#include "estimate.h"
#include "memory.h"
#include "mix.h"
#include "report.h"
#include "summary.h"
#include "tune.h"
#include "../llm/calibrate.h"
#include "../llm/generate.h"
#include "../llm/parallel.h"
#include "../llm/platform.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack compress MODEL -o OUT.bitstack [options]\n\n"
    "MODEL: a GGUF file, or a folder with config.json, safetensors and tokenizer.json.\n\n" ENCODE_HELP
    "  --calibrate TEXT[,...] files and folders of text like that the model will see, in equal parts: keeps the errors\n"
    "                         small that matter there. none: no text at all, and more than twice the loss\n"
    "  --self-share S         this part of the text is written by the model itself, beginning in many ways (and partly\n"
    "                         as answers, if it is one that talks); half. Without --calibrate: all of it, 16384 tokens\n"
    "  --calibrate-self N     N tokens written by the model, whatever --calibrate gives\n"
    "  --special              marks such as <|im_end|> in the text count as marks, not as text\n"
    "  --order predicted      blocks by predicted loss reduction a byte, from one backward pass (default)\n"
    "  --order probes         the same from the loss with each matrix at level 0, 1 and 2, measured one by one\n"
    "  --order loss           the same with the loss measured for every matrix and level\n"
    "  --order paper          level by level, by measured loss, as published\n"
    "  --compress-embeddings auto|yes|no\n"
    "                         make the embedding and the output head matrices of the stack, too; auto does where\n"
    "                         their full precision would buy less a byte than the last blocks do (default)\n"
    "  --memory SIZE          stay below that, as far as possible: wide inputs are then known by their diagonal only,\n"
    "                         and large embeddings stay as they are; 4GB\n"
    "  --token-weights yes|no tokens that the loss hangs on count more in a matrix's error; yes\n"
    "  --shrink R             of the products of different inputs, this part is taken for chance; the root of\n"
    "                         inputs / tokens, at most 0.3\n"
    "  --labels drawn|given   what the backward pass takes for the next token: one drawn from the model's own\n"
    "                         prediction (default), or the text's\n"
    "  --probe N              tokens a row of the four rows that losses are measured on; 128\n"
    "  --effort fast|normal|best   how long to look for a good code\n"
    "  --focus A..B           levels that count most; all\n"
    "  --tune N               at the end, N steps of bitstack tune on the same text; with --effort fast none, best twice as many\n"
    "  --resume               keep finished matrices in OUT.bitstack.journal, and go on from what is there\n"
    "  --part K/N             only every N-th layer, into OUT.bitstack.part-K-of-N; one that was stopped goes on where it\n"
    "                         was: see bitstack join --help, with examples for GNU parallel and Slurm\n"
    "  --quiet, --json        say nothing; or tell progress and result as JSON, one object a line\n\n"
    "Norms and the tokenizer are kept as they are and always resident.\n";

enum { PROBE_ROWS = 4 };

/* Matrices over the vocabulary stand behind a layer's in numbering. */
enum { VOCABULARY = LLM_LINEARS, PLACES = LLM_LINEARS + 2 };


typedef struct compression {
    llm_model model;
    llm_calibration calibration;
    assembly assembly;
    bitstack_encode_options options;
    uint32_t focus_from, focus_to; /* levels that the errors are to be small at; 0, 0: all */
    order order;
    int threads;
    report report;
    double written, learned, encoded; /* shares of the whole time: how far it is after these phases */

    bitstack_coded coded[PLACES]; /* of the layer at hand */
    bitstack_result results[PLACES];
    double fractions[PLACES];
    double output_squares[PLACES]; /* mean square of the whole output where the encoder does not know it */
    pthread_mutex_t lock;
    choice embeddings;
    uint64_t memory;
    uint32_t probe_length; /* ids */
    double shrink;
    int weighted;
    llm_labels labels;
    journal journal;
    uint32_t part, parts; /* parts 0: all of it here */
    uint32_t tune;        /* steps */
    int todo[LLM_LINEARS]; /* the matrices encoded now, the longest first */
} compression;

/* ---- memory ---- */

static void note(compression *c, const char *what, double needed) {
    report_pause(&c->report);
    if (!c->report.quiet) fprintf(stderr, "bitstack: note: %s: --memory %.0fGB would do\n", what, ceil(needed / 1e9));
}

/* Memory for what goes through a layer side by side. */
static uint64_t side_by_side(const compression *c) { return c->memory / 8; }

/* Inputs whose second moments do not fit beside the calibration rows, the probe's logits, and either what goes through a layer
 * or a matrix and the encoder's copies of them, are known by their norms only. */
static void choose_moments(compression *c, const llm_rows *rows, const llm_rows *probe) {
    const llm_config *m = &c->model.config;
    const double cols[LLM_INPUTS] = {m->width, (double)m->heads * m->head_width, m->width, m->hidden};
    double held = 4.0 * (double)(rows->count * rows->length) * m->width + 4.0 * (double)(probe->count * probe->length) * m->vocabulary, needed = 0;
    for (int i = 0; i < LLM_INPUTS; i++) held += 8 * cols[i] * cols[i];
    for (int i = LLM_INPUTS; i-- > 0 && rows->count; ) { /* the widest is the last */
        double encoding = 24 * cols[i] * cols[i] + 20.0 * cols[i] * (i == LLM_IN_HIDDEN ? m->hidden : m->width), gathering = (double)side_by_side(c);
        double all = held + (encoding > gathering ? encoding : gathering);
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
    report_show(&c->report, (c->calibration.layer + done / all) / c->model.config.layers);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static void encode_linear(void *user, size_t offset, int thread) {
    compression *c = user;
    size_t index = (size_t)c->todo[offset];
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
    const bitstack_moments *moments = c->calibration.has_moments ? &c->calibration.moments[llm_linear_inputs[index]] : NULL;
    if (!moments || !moments->h) c->output_squares[index] = llm_calibration_output_square(&c->calibration, c->calibration.layer, (int)index, w);
    c->results[index] = bitstack_encode_matrix(&c->coded[index], w, linear->rows, linear->cols, linear->cols, moments, &options);
    if (c->results[index] == BITSTACK_OK && moments && moments->h) c->output_squares[index] = c->coded[index].out_norm2;
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

/* Loss at every level, measured: at all of them, or up to level 2 and from there on in proportion to the output error. */
static bitstack_result measured_losses(compression *c, int place, finished_matrix *m) {
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
    m->sensitivity = (float)fmax(0, fmin(per_error, (double)FLT_MAX));
    return failed ? BITSTACK_ERROR_MEMORY : BITSTACK_OK;
}

/* Layers whose matrices are probed, first and last among them. */
static int is_probed(uint32_t layer, uint32_t layers) {
    uint32_t count = layers < 9 ? (layers + 2) / 2 - 1 : 5;
    for (uint32_t i = 0; i < count; i++)
        if (layer == (count > 1 ? i * (layers - 1) / (count - 1) : 0)) return 1;
    return layers < 3;
}

/* Loss at every level as the gradients tell: half the mean square of gradient times error of each output. In a few
 * layers it is measured as well, see correct_losses. */
static bitstack_result predicted_losses(compression *c, int place, finished_matrix *m) {
    const bitstack_coded *coded = &c->coded[place];
    double per_error = llm_calibration_sensitivity(&c->calibration, c->calibration.layer, place) * c->output_squares[place];
    for (uint32_t l = 0; l <= coded->shape.levels; l++) m->loss_at[l] = per_error * coded->out_err2[l];
    m->sensitivity = (float)fmax(0, fmin(per_error, (double)FLT_MAX));
    if (!is_probed(c->calibration.layer, c->model.config.layers)) return BITSTACK_OK;
    float *dense = malloc((size_t)coded->shape.rows * coded->shape.cols * sizeof *dense);
    int failed = !dense;
    for (uint32_t l = 0; l < PROBED_LEVELS && l <= coded->shape.levels && !failed; l++) {
        double loss = measure(c, place, l, dense, l < 2 ? 1 : 2);
        failed = loss <= -1;
        m->probed[l] = fmax(loss, 0);
    }
    free(dense);
    return failed ? BITSTACK_ERROR_MEMORY : BITSTACK_OK;
}

static bitstack_result losses(compression *c, int place, finished_matrix *m) {
    bitstack_result result = BITSTACK_OK;
    for (int l = 0; l < PROBED_LEVELS; l++) m->probed[l] = -1;
    if (place < VOCABULARY && (c->order == ORDER_PREDICTED || c->order == ORDER_PAPER)) result = predicted_losses(c, place, m);
    else result = measured_losses(c, place, m);
    if (result == BITSTACK_OK) m->coded = c->coded[place];
    return result;
}

/* A finished matrix goes into the stack, or, of a part, only into its journal. */
static bitstack_result take(compression *c, uint32_t layer, int linear, finished_matrix *m) {
    char name[64];
    matrix_name(layer, linear, name);
    if (!c->parts) return assembly_take(&c->assembly, name, m);
    bitstack_coded_free(&m->coded);
    return BITSTACK_OK;
}

/* Keeps it in the journal. A full disk: goes on without, unless the journal is all there is to be. */
static bitstack_result keep(compression *c, const finished_matrix *m) {
    if (journal_add(&c->journal, m) == 0) return BITSTACK_OK;
    journal_close(&c->journal);
    return c->parts ? BITSTACK_ERROR_IO : BITSTACK_OK;
}

/* Measures an encoded matrix, keeps it, and takes it in. */
static bitstack_result finish(compression *c, int place) {
    finished_matrix m;
    memset(&m, 0, sizeof m);
    bitstack_result result = losses(c, place, &m);
    if (result != BITSTACK_OK) {
        bitstack_coded_free(&c->coded[place]);
        return result;
    }
    memset(&c->coded[place], 0, sizeof c->coded[place]); /* m has it */
    result = keep(c, &m);
    if (result == BITSTACK_OK) return take(c, c->calibration.layer, place, &m);
    bitstack_coded_free(&m.coded);
    return result;
}

/* Pairs of inputs count less than so many tokens say: part of it is chance, and the text's own. How much depends on how many
 * tokens there are for an input: on models of 256 to 1536 inputs and 14 to 32 thousand tokens a tenth to three tenths. */
static void shrink(bitstack_moments *m, double by) {
    if (by < 0) by = m->count ? fmin(0.3, sqrt((double)m->cols / (double)m->count)) : 0;
    for (size_t i = 0; m->h && i < m->cols; i++)
        for (size_t j = 0; j < m->cols; j++)
            if (i != j) m->h[i * m->cols + j] *= 1 - by;
}

/* Roughly what encoding takes: error feedback goes over all columns at each. */
static double work_of(const llm_linear *linear) { return (double)linear->rows * linear->cols * (linear->cols + 500.0); }

/* The matrices from `first` on, the longest first: so that no thread is left with one at the end. */
static int plan_work(compression *c, int first) {
    const llm_linear *linears = c->model.layers[c->calibration.layer].linears;
    int count = 0;
    for (int i = first; i < LLM_LINEARS; i++) {
        int at = count++;
        for (; at > 0 && work_of(&linears[c->todo[at - 1]]) < work_of(&linears[i]); at--) c->todo[at] = c->todo[at - 1];
        c->todo[at] = i;
    }
    return count;
}

/* Encodes the layer's matrices from `first` on: several at once as long as their working memory stays below a quarter of
 * what is allowed, else one by one with all threads on it. */
static bitstack_result encode_layer(compression *c, int first) {
    double largest = 0;
    for (int i = 0; i < LLM_LINEARS; i++) {
        const llm_linear *linear = &c->model.layers[c->calibration.layer].linears[i];
        int moments = c->calibration.rows && !c->calibration.diagonal[llm_linear_inputs[i]];
        double bytes = 20.0 * linear->rows * linear->cols + (moments ? 24.0 * linear->cols * linear->cols : 0);
        if (bytes > largest) largest = bytes;
    }
    double fit = (double)c->memory / 4 / largest;
    int count = plan_work(c, first), at_once = fit < c->threads ? (int)fit : c->threads;
    if (at_once > count) at_once = count;
    if (at_once < 1) at_once = 1;
    c->options.threads = (c->threads + at_once - 1) / at_once;
    if (fit >= 2) llm_parallel(at_once, (size_t)count, encode_linear, c);
    bitstack_result result = BITSTACK_OK;
    for (int i = first; i < LLM_LINEARS; i++) {
        if (fit < 2 && result == BITSTACK_OK) { /* one at a time, also in memory */
            c->todo[0] = i;
            encode_linear(c, 0, 0);
        }
        if (result == BITSTACK_OK) result = c->results[i];
        if (result == BITSTACK_OK) result = finish(c, i);
        else if (fit >= 2 && c->results[i] == BITSTACK_OK) bitstack_coded_free(&c->coded[i]);
    }
    return result;
}

static bitstack_result compress_layer(compression *c) {
    uint32_t layer = c->calibration.layer;
    bitstack_result result = BITSTACK_OK;
    finished_matrix m;
    int kept = 0, mine = !c->parts || part_of(layer, c->parts) == c->part;
    memset(c->fractions, 0, sizeof c->fractions);
    while (mine && kept < LLM_LINEARS && result == BITSTACK_OK && journal_next(&c->journal, &m) == 1) {
        result = take(c, layer, kept, &m);
        c->fractions[kept++] = 1;
    }
    /* In any case the calibration rows go through the layer. */
    if (result == BITSTACK_OK && llm_calibration_gather(&c->calibration, mine && kept < LLM_LINEARS) != 0) return BITSTACK_ERROR_MEMORY;
    for (int i = 0; i < LLM_INPUTS && c->calibration.has_moments; i++) shrink(&c->calibration.moments[i], c->shrink);
    if (result == BITSTACK_OK && mine && kept < LLM_LINEARS) result = encode_layer(c, kept);
    llm_calibration_next(&c->calibration);
    report_show(&c->report, (double)(layer + 1) / c->model.config.layers);
    return result;
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
static bitstack_result encode_vocabulary(compression *c, int which, const bitstack_moments *moments, finished_matrix *m) {
    const llm_linear *linear = which ? &c->model.head : &c->model.embedding;
    int place = VOCABULARY + which;
    bitstack_encode_options options = c->options;
    options.threads = c->threads;
    float *w = malloc((size_t)linear->rows * linear->cols * sizeof *w);
    if (!w) return BITSTACK_ERROR_MEMORY;
    llm_linear_rows(&c->model, linear, 0, linear->rows, w);
    bitstack_result result = bitstack_encode_matrix(&c->coded[place], w, linear->rows, linear->cols, linear->cols,
                                                    vocabulary_parts(c, place) & LLM_HEAD ? moments : NULL, &options);
    free(w);
    if (result != BITSTACK_OK) return result;
    result = losses(c, place, m);
    if (result == BITSTACK_OK) result = keep(c, m);
    if (result != BITSTACK_OK) bitstack_coded_free(&c->coded[place]);
    return result;
}

/* Whether the embedding and the head are to be encoded at all: for that, and a reconstruction, there must be room. */
static choice choose_vocabulary(compression *c) {
    double needed = 24.0 * c->model.embedding.rows * c->model.embedding.cols;
    if (c->embeddings != CHOICE_AUTO || needed <= (double)c->memory) return c->embeddings;
    note(c, "the embeddings stay as they are", needed);
    return CHOICE_NO;
}

/* The embedding and the head, which may be one: as matrices of the stack, or resident as they are. Rows of the
 * embedding are looked up, so nothing is known of its inputs, unless it is the head as well. */
static bitstack_result compress_vocabulary(compression *c) {
    int count = vocabulary_matrices(&c->model), wanted = c->embeddings != CHOICE_NO;
    bitstack_moments moments;
    bitstack_result result = BITSTACK_OK;
    if (c->parts && (!wanted || part_of(c->model.config.layers, c->parts) != c->part)) return result;
    int gathered = wanted && c->journal.kept < count && llm_calibration_gather_head(&c->calibration, &moments) == 0;
    if (gathered) shrink(&moments, c->shrink);
    if (gathered && count == 1) look_up_too(&moments);
    for (int i = 0; i < count && result == BITSTACK_OK; i++) {
        finished_matrix m;
        memset(&m, 0, sizeof m);
        if (wanted && journal_next(&c->journal, &m) != 1) result = encode_vocabulary(c, i, gathered ? &moments : NULL, &m);
        if (result == BITSTACK_OK && !c->parts) result = assembly_vocabulary(&c->assembly, i, wanted ? &m : NULL);
        else if (result == BITSTACK_OK) bitstack_coded_free(&m.coded);
    }
    if (gathered) bitstack_moments_free(&moments);
    return result;
}

/* ---- rows to measure losses on ---- */

/* Some rows to measure losses on: the beginnings of calibration rows, or else text of the model's own. */
static int make_probe(compression *c, const llm_rows *rows, llm_rows *probe) {
    uint32_t context = c->model.config.context;
    if (!rows->count) {
        return llm_generate_rows(probe, &c->model, PROBE_ROWS, context < c->probe_length ? context + 1 : c->probe_length,
                                 c->options.seed, c->threads, report_show, &c->report);
    }
    probe->count = rows->count < PROBE_ROWS ? rows->count : PROBE_ROWS;
    probe->length = rows->length < c->probe_length ? rows->length : c->probe_length;
    probe->ids = malloc(probe->count * probe->length * sizeof *probe->ids);
    for (size_t r = 0; r < probe->count && probe->ids; r++)
        memcpy(probe->ids + r * probe->length, rows->ids + r * rows->count / probe->count * rows->length,
               probe->length * sizeof *probe->ids);
    return probe->ids ? 0 : -1;
}

/* ---- all of it ---- */

/* What was made is not thrown away where tuning fails: it stays as it is, and that is said. */
static int tune(compression *c, const char *out, const llm_rows *rows) {
    llm_tuning t;
    tune_defaults(&t);
    t.steps = c->tune, t.seed = c->options.seed, t.bytes = c->memory / 4, t.threads = c->threads;
    report_phase(&c->report, "tuning", c->encoded, 1);
    int status = tune_stack(out, &c->model, rows, &t, &c->report);
    report_pause(&c->report);
    if (status == CLI_OK && t.left_out && !c->report.quiet) note(c, "some matrices are not tuned", 2.0 * (double)c->memory);
    return status;
}

/* Layers that a part has to go through: the others come after its own. */
static uint32_t last_layer(const compression *c) {
    uint32_t layers = c->model.config.layers, last = layers;
    if (!c->parts || (c->embeddings != CHOICE_NO && part_of(layers, c->parts) == c->part)) return layers;
    while (last > 0 && part_of(last - 1, c->parts) != c->part) last--;
    return last;
}

static int compress(compression *c, const char *path, const char *out, const llm_rows *rows, const llm_rows *probe) {
    bitstack_result result = BITSTACK_OK;
    if (llm_calibration_init(&c->calibration, &c->model, rows->count ? rows : NULL, probe, side_by_side(c), c->threads) != 0)
        return cli_failed("%s: out of memory", path);
    choose_moments(c, rows, probe);
    if (!c->parts) result = assembly_begin(&c->assembly, &c->model, out, c->order, c->embeddings);
    report_phase(&c->report, "learning", c->written, c->learned);
    if (result == BITSTACK_OK && llm_calibration_backward(&c->calibration, c->weighted, c->labels, c->options.seed, report_show, &c->report) != 0)
        result = BITSTACK_ERROR_MEMORY;
    report_phase(&c->report, "encoding", c->learned, c->encoded);
    while (result == BITSTACK_OK && c->calibration.layer < last_layer(c)) result = compress_layer(c);
    if (result == BITSTACK_OK && !c->parts) result = assembly_correct(&c->assembly);
    if (result == BITSTACK_OK) result = compress_vocabulary(c);
    llm_calibration_free(&c->calibration);
    report_pause(&c->report);
    if (c->parts) return result == BITSTACK_OK ? CLI_OK : cli_failed_at(path, result, NULL);
    int status = assembly_finish(&c->assembly, result, probe, c->threads);
    if (status == CLI_OK && c->tune && rows->count) status = tune(c, out, rows);
    if (status == CLI_OK) summary_print(&c->assembly, out, path, &c->report);
    return status;
}

/* Tells a run from others whose finished matrices would not be the same; `model` tells the model. */
static uint64_t run_key(const compression *c, uint64_t model, const llm_rows *rows, const llm_rows *probe) {
    uint64_t parts[19] = {c->options.method, c->options.levels, c->options.rank, c->options.seed, (uint64_t)c->order, c->options.effort,
                          c->focus_from, c->focus_to, c->memory, c->probe_length, (uint64_t)c->weighted, c->labels, c->embeddings,
                          sizeof(finished_matrix), model};
    memcpy(&parts[15], &c->shrink, sizeof c->shrink);
    parts[16] = bitstack_checksum(BITSTACK_VERSION, strlen(BITSTACK_VERSION));
    if (rows->count) parts[17] = bitstack_checksum(rows->ids, rows->count * rows->length * sizeof *rows->ids);
    parts[18] = bitstack_checksum(probe->ids, probe->count * probe->length * sizeof *probe->ids);
    return bitstack_checksum(parts, sizeof parts);
}

/* The journal of all, or of a part, whose head tells `join` what it must know. */
static int open_journal(compression *c, const char *path, const char *journal_path, const llm_rows *rows, const llm_rows *probe) {
    size_t ids = probe->count * probe->length * sizeof *probe->ids;
    part_head head = {0, model_key(path, 0), c->part, c->parts, c->order, c->embeddings, (uint32_t)probe->count, (uint32_t)probe->length};
    uint64_t keys[3] = {run_key(c, model_key(path, 1), rows, probe), c->part, c->parts};
    head.run = run_key(c, head.model, rows, probe);
    unsigned char *all = malloc(sizeof head + ids);
    if (!all) return cli_failed("%s: out of memory", path);
    memcpy(all, &head, sizeof head);
    memcpy(all + sizeof head, probe->ids, ids);
    int failed = journal_open(&c->journal, journal_path, bitstack_checksum(keys, sizeof keys), all, c->parts ? sizeof head + ids : 0);
    free(all);
    return failed ? cli_failed("%s: cannot be written", journal_path) : CLI_OK;
}

/* "2/4" */
static int read_part(const char *text, compression *c) {
    char rest;
    if (sscanf(text, "%u/%u%c", &c->part, &c->parts, &rest) != 2 || c->part < 1 || c->part > c->parts || c->parts > 4096)
        return cli_usage("compress", "--part: expected K/N, K from 1 to N, got '%s'", text);
    c->part--;
    return CLI_OK;
}

static int read_encoder(const char *effort_name, const char *focus, compression *c) {
    static const char *const efforts[] = {"normal", "fast", "best"};
    char rest;
    int effort = BITSTACK_EFFORT_NORMAL;
    while (effort <= BITSTACK_EFFORT_BEST && strcmp(effort_name, efforts[effort]) != 0) effort++;
    if (effort > BITSTACK_EFFORT_BEST) return cli_usage("compress", "--effort: expected fast, normal or best, got '%s'", effort_name);
    if (focus && (sscanf(focus, "%u..%u%c", &c->focus_from, &c->focus_to, &rest) != 2 || c->focus_from < 1 || c->focus_from > c->focus_to ||
                  c->focus_to > 8))
        return cli_usage("compress", "--focus: expected A..B, levels from 1 to 8, got '%s'", focus);
    c->options.effort = (bitstack_effort)effort;
    for (uint32_t l = 1; focus && l <= 8; l++) c->options.level_weights[l - 1] = l >= c->focus_from && l <= c->focus_to ? 1 : 0.03f;
    return CLI_OK;
}

int command_compress(int argc, char **argv) {
    encode_arguments a = {"nested", NULL, 0, 0, (uint32_t)llm_processors(), 0};
    const char *path, *text = NULL, *order_name = "predicted", *embeddings = "auto", *weights = "yes", *labels = "drawn";
    uint32_t self = 0, probe_tokens = 128;
    uint64_t memory = 4000000000u;
    double shrinking = -1, self_share = 0.5;
    const char *effort_name = "normal", *focus = NULL, *part = NULL;
    uint32_t steps = UINT32_MAX;
    int resume = 0, quiet = 0, json = 0, special = 0;
    const cli_option table[] = {ENCODE_OPTIONS(a), {"--calibrate", CLI_TEXT, &text}, {"--calibrate-self", CLI_WHOLE, &self},
                                {"--self-share", CLI_NUMBER, &self_share}, {"--special", CLI_FLAG, &special},
                                {"--order", CLI_TEXT, &order_name}, {"--compress-embeddings", CLI_TEXT, &embeddings},
                                {"--memory", CLI_SIZE, &memory}, {"--probe", CLI_WHOLE, &probe_tokens},
                                {"--token-weights", CLI_TEXT, &weights}, {"--shrink", CLI_NUMBER, &shrinking}, {"--labels", CLI_TEXT, &labels},
                                {"--effort", CLI_TEXT, &effort_name}, {"--focus", CLI_TEXT, &focus}, {"--part", CLI_TEXT, &part}, {"--tune", CLI_WHOLE, &steps},
                                {"--quiet", CLI_FLAG, &quiet}, {"--json", CLI_FLAG, &json}, {"--resume", CLI_FLAG, &resume}, {NULL, CLI_FLAG, NULL}};
    static compression c;
    static const char *const orders[] = {"predicted", "probes", "loss", "paper"}, *const choices[] = {"auto", "yes", "no"};
    int stop = cli_parse(argc, argv, "compress", help, table, &path, 1);
    if (stop) return stop - 1;
    int status = encode_options(&a, "compress", &c.options);
    if (status != CLI_OK) return status;
    c.threads = a.threads ? (int)a.threads : 1;
    c.order = ORDER_PREDICTED;
    while (c.order <= ORDER_PAPER && strcmp(order_name, orders[c.order]) != 0) c.order++;
    if (c.order > ORDER_PAPER) return cli_usage("compress", "--order: expected predicted, probes, loss or paper, got '%s'", order_name);
    while (c.embeddings <= CHOICE_NO && strcmp(embeddings, choices[c.embeddings]) != 0) c.embeddings++;
    if (c.embeddings > CHOICE_NO)
        return cli_usage("compress", "--compress-embeddings: expected auto, yes or no, got '%s'", embeddings);
    if (probe_tokens < 1 || probe_tokens > 1 << 16) return cli_usage("compress", "--probe: expected 1 to 65536");
    if (strcmp(weights, "yes") != 0 && strcmp(weights, "no") != 0) return cli_usage("compress", "--token-weights: expected yes or no, got '%s'", weights);
    if (strcmp(labels, "drawn") != 0 && strcmp(labels, "given") != 0) return cli_usage("compress", "--labels: expected drawn or given, got '%s'", labels);
    if (shrinking > 1) return cli_usage("compress", "--shrink: expected 0 to 1");
    c.weighted = weights[0] == 'y', c.labels = labels[0] == 'g' ? LLM_LABELS_GIVEN : LLM_LABELS_DRAWN;
    c.shrink = shrinking;
    c.memory = memory;
    memory_keep_none();
    c.probe_length = probe_tokens + 1;
    if ((status = read_encoder(effort_name, focus, &c)) != CLI_OK || (part && (status = read_part(part, &c)) != CLI_OK)) return status;
    if (self_share >= 1) return cli_usage("compress", "--self-share: expected 0 to below 1");
    if (special && (!text || strcmp(text, "none") == 0))
        return cli_usage("compress", "--special needs a text: --calibrate");
    mix mixed = {.texts = text, .self_share = self_share, .self = self, .rows = MIX_ROWS, .seed = c.options.seed, .bytes = memory / 8,
                 .threads = c.threads, .special = special};
    if (cli_output(&a.out) != CLI_OK || cli_same_file(path, a.out) != CLI_OK || mix_same_file(&mixed, a.out) != CLI_OK) return CLI_FAILED;
    pthread_mutex_init(&c.lock, NULL);

    llm_error error;
    llm_rows rows = {NULL, 0, 0}, probe = {NULL, 0, 0};
    llm_model_options load;
    memset(&load, 0, sizeof load);
    load.forget = 1;
    load.unpack_bytes = memory / 8 + 1;
    if (llm_model_open(&c.model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    report_begin(&c.report, quiet, json, c.threads);
    mixed.length = c.model.config.context < MIX_LENGTH ? c.model.config.context + 1 : MIX_LENGTH;
    if (c.model.source.stack) status = cli_failed("%s: offset 0: expected a model, this is a stack already", path);
    else if ((status = cli_check_model(&c.model.source)) == CLI_OK) c.embeddings = choose_vocabulary(&c);
    machine speed = machine_assumed(c.threads);
    static const uint32_t times[] = {1, 0, 2}; /* normal, fast, best */
    const int tuned = !c.parts && c.options.method == BITSTACK_NESTED; /* of a part there is no model yet: see bitstack tune */
    const uint32_t passes = tuned ? times[c.options.effort] : 0;
    c.tune = steps != UINT32_MAX ? (tuned ? steps : 0) : passes * tune_steps(text ? MIX_ROWS : MIX_DEFAULT_SELF / (MIX_LENGTH - 1)); /* about */
    estimate e = estimate_time(&c.model, &speed, MIX_DEFAULT_SELF, MIX_DEFAULT_SELF / 2, c.tune); /* only for their proportions */
    c.written = e.writing / e.all, c.learned = (e.writing + e.learning) / e.all, c.encoded = (e.all - e.tuning) / e.all;
    report_phase(&c.report, "writing", 0, c.written);
    if (status == CLI_OK) status = mix_rows(&mixed, &c.model, report_show, &c.report, &rows);
    if (steps == UINT32_MAX) c.tune = passes * tune_steps(rows.count);
    if (status == CLI_OK && make_probe(&c, &rows, &probe) != 0) status = cli_failed("%s: out of memory", path);
    char *journal_path = c.parts ? part_path(a.out, c.part, c.parts) : malloc(strlen(a.out) + 16);
    if (!journal_path) status = cli_failed("%s: out of memory", path);
    else if (!c.parts) sprintf(journal_path, "%s.journal", a.out);
    if (status == CLI_OK && (resume || c.parts)) status = open_journal(&c, path, journal_path, &rows, &probe);
    if (status == CLI_OK) status = compress(&c, path, a.out, &rows, &probe);
    report_end(&c.report);
    if (status == CLI_OK && c.parts && !quiet) printf("%s: part %u of %u is done; when all are: bitstack join %s -o %s\n", journal_path, c.part + 1, c.parts, path, a.out);
    journal_close(&c.journal);
    if (status == CLI_OK && resume && !c.parts) platform_remove(journal_path);
    free(journal_path);
    llm_rows_free(&rows);
    llm_rows_free(&probe);
    llm_model_close(&c.model);
    return status;
}
