#include "tune.h"
#include "bitstack_compress.h"
#include "dense.h"
#include "parallel.h"
#include "platform.h"
#include "sampling.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 64, LEVELS = 8 }; /* rows of a share of work; levels of tables */

/* What is learned of one level of a matrix: a logarithm for every code of its block, rows' first, then columns'. */
typedef struct learned {
    uint32_t steps;
    float *log, *mean, *square; /* Adam: the logarithm, and means of the gradient and its square */
    float *gain;                /* value of the code as it would be stored over that of the code as it was */
    unsigned char *code;        /* as it was */
} learned;

typedef struct place {
    int matrix;
    uint32_t rows, cols, groups, group_cols;
    size_t row_codes, codes; /* row codes: those of rows beyond the last are among them */
    learned *levels[LEVELS + 1];
    llm_gains gains;
    llm_linear *linear;
} place;

typedef struct tuner {
    llm_tuning *t;
    llm_model student;
    FILE *file;
    place *places; /* layers x LLM_LINEARS */
    size_t count;
    double weights; /* of all matrices of the stack */
    uint64_t used, dither;
    double rate; /* of this step */
    const llm_backward *backward;
    double divergence; /* of this step, nats a token; 0: not known yet */
    float *turned, *gradient; /* inputs, a column after the other; a gradient for every code of the matrix at hand */
    float *room, *column_sums; /* some a thread; cols a share */
    size_t room_floats;
    /* The product at hand. */
    const place *at;
    const float *g, *x;
    size_t tokens;
} tuner;

/* ---- what is learned ---- */

static void forget(learned *l) {
    if (l) free(l->log), free(l->mean), free(l->square), free(l->gain), free(l->code), free(l);
}

/* The block's codes, from the file. */
static int read_codes(const tuner *u, const place *p, uint32_t level, unsigned char *to) {
    bitstack_block b;
    bitstack_matrix m;
    if (bitstack_get_matrix(u->student.source.stack, p->matrix, &m) != BITSTACK_OK) return -1;
    for (int i = 0; bitstack_get_block(u->student.source.stack, i, &b) == BITSTACK_OK; i++) {
        if (b.matrix != (uint32_t)p->matrix || b.level != level) continue;
        const uint64_t rows_at = b.offset + bitstack_column_bytes(&m.shape, level), cols_at = b.offset + 16 + ((uint64_t)2 << level);
        return platform_seek(u->file, (int64_t)rows_at, SEEK_SET) != 0 || fread(to, 1, p->row_codes, u->file) != p->row_codes ||
                       platform_seek(u->file, (int64_t)cols_at, SEEK_SET) != 0 || fread(to + p->row_codes, 1, p->cols, u->file) != p->cols ? -1 : 0;
    }
    return -1;
}

/* Anywhere among the logarithms that become the same code: codes are 3 % apart, and a small move of many of them has to turn as
 * large a part of them. (All beginning in the middle, levels 3 and 4 gain next to nothing.) */
static float somewhere(uint32_t code, uint64_t *state) {
    const float at = bitstack_small_value(code), below = bitstack_small_value(code - 1), above = bitstack_small_value(code < 255 ? code + 1 : code);
    const float low = 0.5f * (at + (code > 1 ? below : at)), high = 0.5f * (at + above);
    return logf((low + (float)(0.001 + 0.998 * llm_random(state)) * (high - low)) / at);
}

/* NULL: for lack of memory, or of what may be used. */
static learned *learn(tuner *u, const place *p, uint32_t level) {
    const uint64_t bytes = p->codes * (4 * sizeof(float) + 1);
    if (u->used + bytes > u->t->bytes) return NULL;
    learned *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->log = calloc(p->codes, sizeof *l->log), l->mean = calloc(p->codes, sizeof *l->mean), l->square = calloc(p->codes, sizeof *l->square);
    l->gain = malloc(p->codes * sizeof *l->gain), l->code = malloc(p->codes);
    if (!l->log || !l->mean || !l->square || !l->gain || !l->code || read_codes(u, p, level, l->code) != 0) {
        forget(l);
        return NULL;
    }
    for (size_t i = 0; i < p->codes; i++) {
        l->gain[i] = l->code[i] ? 1 : 0;
        l->log[i] = l->code[i] ? somewhere(l->code[i], &u->dither) : 0;
    }
    u->used += bytes;
    return l;
}

static unsigned char new_code(const learned *l, size_t i) {
    const uint32_t code = l->code[i] ? bitstack_small_code(bitstack_small_value(l->code[i]) * expf(l->log[i])) : 0;
    return (unsigned char)(code || !l->code[i] ? code : 1);
}

typedef struct adam {
    learned *l;
    const float *gradient;
    size_t count;
    float rate, mean_left, square_left; /* 1 / (1 - beta^steps) */
} adam;

enum { ADAM_PIECE = 4096 };

static void adam_piece(void *user, size_t index, int thread) {
    const adam *a = user;
    learned *l = a->l;
    (void)thread;
    for (size_t i = index * ADAM_PIECE; i < a->count && i < (index + 1) * ADAM_PIECE; i++) {
        if (!l->code[i] || !isfinite(a->gradient[i])) continue;
        l->mean[i] += 0.1f * (a->gradient[i] - l->mean[i]);
        l->square[i] += 0.05f * (a->gradient[i] * a->gradient[i] - l->square[i]);
        l->log[i] -= a->rate * (l->mean[i] * a->mean_left) / (sqrtf(l->square[i] * a->square_left) + 1e-12f);
        l->gain[i] = bitstack_small_value(new_code(l, i)) / bitstack_small_value(l->code[i]);
    }
}

/* ---- gradients ---- */

/* How far a level goes in a step: each has half the error of the one below, and steps of all codes are alike, however much a row counts.
 * At level 4 a tenth is too much (a quarter more divergence at 4 bits with .3). */
static const double paces[LEVELS + 1] = {0, 1, 0.65, 0.3, 0.06, 0.03, 0.015, 0.008, 0.004};

static void turn_share(void *user, size_t index, int thread) {
    const tuner *u = user;
    const size_t cols = u->at->cols, begin = index * PIECE, end = begin + PIECE < cols ? begin + PIECE : cols;
    (void)thread;
    for (size_t t = 0; t < u->tokens; t++)
        for (size_t j = begin; j < end; j++) u->turned[j * u->tokens + t] = u->x[t * cols + j];
}

/* Some rows of the gradient with respect to the weights, times the weights: summed over what has a code in common. */
static void rows_share(void *user, size_t index, int thread) {
    const tuner *u = user;
    const place *p = u->at;
    const size_t cols = p->cols, begin = index * PIECE, count = p->rows - begin < PIECE ? p->rows - begin : PIECE;
    float *turned = u->room + (size_t)thread * u->room_floats, *dw = turned + PIECE * u->tokens, *w = dw + PIECE * cols;
    float *sums = u->column_sums + index * cols;
    for (size_t t = 0; t < u->tokens; t++)
        for (size_t r = 0; r < count; r++) turned[r * u->tokens + t] = u->g[t * p->rows + begin + r];
    llm_gemm(u->turned, cols, u->tokens, turned, u->tokens, dw, cols, count);
    llm_linear_rows(&u->student, p->linear, begin, count, w);
    memset(sums, 0, cols * sizeof *sums);
    for (size_t r = 0; r < count; r++)
        for (size_t g = 0; g < p->groups; g++) {
            const size_t i = begin + r, first = g * p->group_cols, last = first + p->group_cols < cols ? first + p->group_cols : cols;
            float sum = 0;
            for (size_t j = first; j < last; j++) {
                const float each = p->gains.cols[j] > 0 ? dw[r * cols + j] * w[r * cols + j] : 0;
                sum += each, sums[j] += each;
            }
            u->gradient[(i / 16 * p->groups + g) * 16 + i % 16] = sum;
        }
}

static void take_gradient(void *user, uint32_t layer, int linear, const float *g, const float *x, size_t first, size_t tokens, uint32_t rows) {
    tuner *u = user;
    bitstack_matrix m;
    (void)first, (void)rows;
    if (linear >= LLM_LINEARS) return;
    place *p = &u->places[layer * LLM_LINEARS + (uint32_t)linear];
    if (!p->gains.rows || bitstack_get_matrix(u->student.source.stack, p->matrix, &m) != BITSTACK_OK) return;
    learned *l = p->levels[m.level];
    if (u->divergence == 0) /* the head's gradient is made: losses are known */
        for (size_t k = 0; k < tokens; k++) u->divergence += u->backward->losses[k] / (double)tokens;
    const size_t pieces = (p->rows + PIECE - 1) / PIECE;
    u->at = p, u->g = g, u->x = x, u->tokens = tokens;
    memset(u->gradient, 0, p->codes * sizeof *u->gradient);
    llm_parallel(u->t->threads, (p->cols + PIECE - 1) / PIECE, turn_share, u);
    llm_parallel(u->t->threads, pieces, rows_share, u);
    for (size_t k = 0; k < pieces; k++)
        for (size_t j = 0; j < p->cols; j++) u->gradient[p->row_codes + j] += u->column_sums[k * p->cols + j];
    /* The logarithm of the divergence is what goes down: a part of it counts alike at all sizes. */
    const float scale = (float)(1 / (fabs(u->divergence) + 1e-6) / (double)tokens);
    for (size_t i = 0; i < p->codes; i++) u->gradient[i] *= scale;
    l->steps++;
    adam a = {l, u->gradient, p->codes, (float)(u->rate * paces[m.level]), (float)(1 / (1 - pow(0.9, l->steps))), (float)(1 / (1 - pow(0.95, l->steps)))};
    llm_parallel(u->t->threads, (p->codes + ADAM_PIECE - 1) / ADAM_PIECE, adam_piece, &a);
}

/* ---- steps ---- */

/* Blocks that give so many bits a weight; each matrix gets the gains of its level. */
static int set_bits(tuner *u, double bits, llm_error *error) {
    bitstack *stack = u->student.source.stack;
    bitstack_block b;
    bitstack_error why;
    uint64_t budget = bitstack_base_bytes(stack);
    for (int i = 0; bitstack_get_block(stack, i, &b) == BITSTACK_OK; i++) {
        if (8 * (double)(b.resident_after - bitstack_base_bytes(stack)) > bits * u->weights) break;
        budget = b.resident_after;
    }
    if (bitstack_set_budget(stack, budget, &why) != BITSTACK_OK) return llm_fail(error, "%s", why.message);
    u->t->left_out = 0;
    for (size_t i = 0; i < u->count; i++) {
        place *p = &u->places[i];
        bitstack_matrix m;
        p->gains.rows = NULL, p->linear->gains = NULL;
        if (p->matrix < 0 || bitstack_get_matrix(stack, p->matrix, &m) != BITSTACK_OK || m.shape.encoding != BITSTACK_TABLES) continue;
        if (m.level < 1 || m.level > u->t->levels) continue;
        if (!p->levels[m.level]) p->levels[m.level] = learn(u, p, m.level);
        if (!p->levels[m.level]) {
            u->t->left_out++;
            continue;
        }
        p->gains = (llm_gains){p->levels[m.level]->gain, p->levels[m.level]->gain + p->row_codes, p->group_cols, p->groups};
        p->linear->gains = &p->gains;
    }
    return 0;
}

static int open_places(tuner *u, size_t tokens) {
    size_t widest = 0, most_codes = 0, most_sums = 0;
    const llm_config *c = &u->student.config;
    u->count = (size_t)c->layers * LLM_LINEARS;
    u->places = calloc(u->count + 1, sizeof *u->places);
    if (!u->places) return -1;
    for (size_t i = 0; i < u->count; i++) {
        place *p = &u->places[i];
        bitstack_matrix m;
        p->linear = &u->student.layers[i / LLM_LINEARS].linears[i % LLM_LINEARS];
        p->matrix = p->linear->matrix;
        if (p->matrix < 0 || bitstack_get_matrix(u->student.source.stack, p->matrix, &m) != BITSTACK_OK) continue;
        p->rows = m.shape.rows, p->cols = m.shape.cols, p->group_cols = m.shape.group_cols ? m.shape.group_cols : m.shape.cols;
        p->groups = (p->cols + p->group_cols - 1) / p->group_cols;
        p->row_codes = (size_t)(p->rows + 15) / 16 * 16 * p->groups;
        p->codes = p->row_codes + p->cols;
        const size_t sums = (size_t)(p->rows + PIECE - 1) / PIECE * p->cols;
        if (p->cols > widest) widest = p->cols;
        if (p->codes > most_codes) most_codes = p->codes;
        if (sums > most_sums) most_sums = sums;
    }
    for (int i = 0; i < bitstack_matrix_count(u->student.source.stack); i++) {
        bitstack_matrix m;
        if (bitstack_get_matrix(u->student.source.stack, i, &m) == BITSTACK_OK) u->weights += (double)m.shape.rows * m.shape.cols;
    }
    u->room_floats = PIECE * tokens + 2 * PIECE * widest;
    u->turned = malloc((widest * tokens + 1) * sizeof *u->turned);
    u->gradient = malloc((most_codes + 1) * sizeof *u->gradient);
    u->column_sums = malloc((most_sums + 1) * sizeof *u->column_sums);
    u->room = malloc(((size_t)u->t->threads * u->room_floats + 1) * sizeof *u->room);
    return u->turned && u->gradient && u->column_sums && u->room ? 0 : -1;
}

static void close_places(tuner *u) {
    for (size_t i = 0; u->places && i < u->count; i++)
        for (int l = 0; l <= LEVELS; l++) forget(u->places[i].levels[l]);
    free(u->places), free(u->turned), free(u->gradient), free(u->column_sums), free(u->room);
}

/* A head that is no matrix of the stack is unpacked once, where there is memory. */
static void unpack(const llm_model *m, llm_linear *linear) {
    if (linear->dense || linear->matrix >= 0) return;
    float *all = malloc((size_t)linear->rows * linear->cols * sizeof *all);
    if (!all) return;
    llm_linear_rows(m, linear, 0, linear->rows, all);
    linear->dense = linear->owned = all;
}

/* One step on some texts drawn from the rows. Returns the divergence. */
static double step(tuner *u, const llm_model *full, llm_backward *teacher, llm_backward *b, float *hidden, uint32_t *ids, const llm_rows *rows, uint64_t *random) {
    const size_t texts = u->t->texts, tokens = rows->length - 1, width = full->config.width;
    for (size_t k = 0; k < texts; k++)
        memcpy(ids + k * rows->length, rows->ids + (size_t)(llm_random(random) * (double)rows->count) * rows->length, rows->length * sizeof *ids);
    for (size_t k = 0; k < texts; k++) llm_embed(full, ids + k * rows->length, (uint32_t)tokens, hidden + k * tokens * width);
    for (uint32_t l = 0; l < full->config.layers; l++) llm_backward_layer(teacher, l, hidden, texts);
    llm_final_norm(full, hidden, (uint32_t)(texts * tokens));
    b->teacher = full, b->taught = hidden;
    u->backward = b, u->divergence = 0;
    return llm_backward_run(b, ids, texts, rows->length, LLM_LABELS_GIVEN, 0, take_gradient, u);
}

static int all_steps(tuner *u, llm_model *full, const llm_rows *rows, llm_progress progress, void *user, llm_error *error) {
    const size_t tokens = u->t->texts * (rows->length - 1), quarter = u->t->steps / 4 + 1;
    uint64_t random = u->t->seed;
    llm_backward teacher, b;
    int status = 0;
    memset(&teacher, 0, sizeof teacher), memset(&b, 0, sizeof b);
    float *hidden = malloc(tokens * full->config.width * sizeof *hidden);
    uint32_t *ids = malloc(u->t->texts * rows->length * sizeof *ids);
    if (!hidden || !ids || llm_backward_init(&teacher, full, u->t->texts, rows->length - 1, 0, u->t->threads) != 0 ||
        llm_backward_init(&b, &u->student, u->t->texts, rows->length - 1, 1, u->t->threads) != 0 ||
        !(b.teacher_logits = malloc(b.head_tokens * full->config.vocabulary * sizeof *b.teacher_logits)))
        status = llm_fail(error, "out of memory");
    b.with_inputs = 1;
    if (status == 0) unpack(full, &full->head), unpack(&u->student, &u->student.head);
    const int was = llm_dense_rough(1);
    for (size_t k = 0; k < u->t->steps && status == 0; k++) {
        const double turn = fmod(0.5 + (double)k * 0.6180339887498949, 1); /* budgets evenly, in any order */
        u->rate = u->t->rate * (1 - (double)k / (double)u->t->steps) * (k ? 1 : 0.5);
        if ((status = set_bits(u, u->t->from + (u->t->to - u->t->from) * turn, error)) != 0) break;
        const double loss = step(u, full, &teacher, &b, hidden, ids, rows, &random);
        if (k < quarter) u->t->before += loss / (double)quarter;
        if (k + quarter >= u->t->steps) u->t->after += loss / (double)quarter;
        if (progress) progress(user, (double)(k + 1) / (double)u->t->steps);
    }
    llm_dense_rough(was);
    free(b.teacher_logits), free(hidden), free(ids);
    llm_backward_free(&b), llm_backward_free(&teacher);
    return status;
}

static void recode(void *user, uint32_t matrix, uint32_t level, unsigned char *columns, unsigned char *coefficients) {
    const tuner *u = user;
    for (size_t i = 0; i < u->count; i++) {
        const place *p = &u->places[i];
        const learned *l = p->matrix == (int)matrix ? p->levels[level] : NULL;
        for (size_t k = 0; l && k < p->row_codes; k++) coefficients[k] = new_code(l, k);
        for (size_t j = 0; l && j < p->cols; j++) columns[j] = new_code(l, p->row_codes + j);
    }
}

int llm_tune(const char *path, llm_model *full, const llm_rows *rows, llm_tuning *t, llm_progress progress, void *user, llm_error *error) {
    tuner u;
    llm_model_options load;
    bitstack_error why;
    memset(&u, 0, sizeof u);
    memset(&load, 0, sizeof load);
    load.stack.load_nothing = 1;
    u.t = t;
    u.dither = t->seed + 1;
    t->before = t->after = 0;
    if (t->threads < 1) t->threads = 1;
    if (t->levels > LEVELS) t->levels = LEVELS;
    if (llm_model_open(&u.student, path, &load, error) != 0) return -1;
    int status = 0;
    if (!u.student.source.stack || u.student.config.vocabulary != full->config.vocabulary || u.student.config.width != full->config.width)
        status = llm_fail(error, "%s: expected a stack made of the model", path);
    else if (!(u.file = platform_open(path, "rb"))) status = llm_fail(error, "%s: cannot be read", path);
    else if (open_places(&u, t->texts * (rows->length - 1)) != 0) status = llm_fail(error, "out of memory");
    if (status == 0) status = all_steps(&u, full, rows, progress, user, error);
    if (u.file) fclose(u.file);
    for (size_t i = 0; u.places && i < u.count; i++) u.places[i].linear->gains = NULL;
    llm_model_close(&u.student);
    if (status == 0 && bitstack_recode(path, path, recode, &u, &why) != BITSTACK_OK) status = llm_fail(error, "%s", why.message);
    close_places(&u);
    return status;
}
