/* measure.c - what codings of a real model's weights do to its predictions, on several texts.
 *
 *     build/bench/real OUT.csv MODEL.gguf [options] WHAT...
 *         --calibrate FILE      text for second moments and sensitivities
 *         --text NAME=FILE      text to judge by; or ids, where FILE ends in .u16
 *         --rows N              rows of 512 predicted tokens (or what the model has room for) of each text; 8
 *         --calibration-rows N  rows of 512 tokens of the calibration text; 32
 *         --ggml FILTER         the program ggml_quantize
 *     WHAT: full        full precision
 *           gptq        GPTQ, groups of 128, act-order, grids searched by weighted error, at each number of bits (gptq=4: at these)
 *           mixed       the same with bits mixed over the matrices by predicted loss
 *           ggml        ggml's K and IQ types with the inputs' mean squares as importance, by its own quantizer
 *           aqlm        AQLM with two books of 256
 *           iabs        BitStack as published, rank 16, every matrix at one level
 *           files       GPTQ again, embeddings by ggml's Q8_0 or Q5_0: whole models
 *           layers=STACK  a stack with embeddings as they were: layer matrices at the bits of the table
 *           stack=STACK,NAME:BYTES,...   a stack at budgets, named after whose bytes they are: whole models
 *           file=METHOD,SETTING,BYTES,MODEL   a quantized file of BYTES bytes, unpacked into MODEL
 *
 * Rows that OUT.csv has are not measured again: a run may be cut off and go on. Peers are judged as dense floats that
 * take the place of the model's matrices, a stack by its own kernels; bytes are all that must be resident. Layer
 * matrices alone: columns of 576 are padded to 768 for ggml's types of 256 and counted without the padding. */
#include "bitstack_compress.h"
#define BITSTACK_POOL
#include "llm/dense.h"
#include "llm/evaluate.h"
#include "llm/parallel.h"
#include "llm/tokenizer.h"
#include "peers/peer.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 512, MOST_TEXTS = 6, MOST_THREADS = 64, MOST_MATRICES = 4096 };

static const char header[] = "kind,scope,method,setting,any_size,bits,disk_bytes,memory_bytes,on,count,"
                             "perplexity,kl,threads,tokens_s\n";
/* Bits a weight over the layer matrices at which everything is compared. */
static const double sizes[] = {2.4, 2.7, 3.15, 3.6, 4.16, 4.6, 5.16, 6.2, 8.2};
enum { SIZES = sizeof sizes / sizeof *sizes };

typedef struct text {
    const char *name, *path;
    llm_rows rows;
    llm_reference reference;
} text;

typedef struct matrix {
    llm_linear *linear;
    const float *full;
    float *replaced;
    const bitstack_moments *moments;
    double norm2, loss; /* tr(W H W^T); the model's loss at 3 bits of GPTQ */
} matrix;

static llm_model model;
static text texts[MOST_TEXTS];
static int text_count, threads;
static size_t rows_wanted = 8, calibration_wanted = 32;
static const char *out_path, *calibration_path, *filter;
static matrix *matrices;
static size_t count, weights, model_weights; /* matrices; weights in them, and in the whole model */
static bitstack_moments *moments;
static llm_rows calibration;

static void die(const char *what, const char *why) {
    fprintf(stderr, "real: %s: %s\n", what, why);
    exit(1);
}

static void *need(void *pointer) {
    if (!pointer) die("memory", "not enough");
    return pointer;
}

/* ---- results ---- */

static int known(const char *scope, const char *setting, const char *on) {
    char line[512], *at;
    FILE *f = fopen(out_path, "r");
    int found = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        const char *fields[9];
        int n = 0;
        for (at = line; at && n < 9; n++) {
            fields[n] = at;
            if ((at = strchr(at, ','))) *at++ = 0;
        }
        found = n == 9 && !strcmp(fields[0], "quality") && !strcmp(fields[1], scope) &&
                !strcmp(fields[3], setting) && !strcmp(fields[8], on);
    }
    if (f) fclose(f);
    return found;
}

static int all_known(const char *scope, const char *setting) {
    for (int i = 0; i < text_count; i++)
        if (!known(scope, setting, texts[i].name)) return 0;
    return 1;
}

/* Measures what is not known yet; `m` is the model as it is now. */
static void judge(const llm_model *m, const char *scope, const char *method, const char *setting,
                  int any_size, double bits, uint64_t disk, uint64_t memory) {
    for (int i = 0; i < text_count; i++) {
        text *t = &texts[i];
        llm_quality q;
        if (known(scope, setting, t->name)) continue;
        int self = !strcmp(setting, "F16");
        if (!t->reference.logits && !self) { /* of full precision, before anything is measured against it */
            const float *now[MOST_MATRICES];
            for (size_t k = 0; k < count; k++)
                now[k] = matrices[k].linear->dense, matrices[k].linear->dense = matrices[k].full;
            if (llm_evaluate(&model, &t->reference, &t->rows, threads, NULL, NULL, &q))
                die("memory", "not enough");
            for (size_t k = 0; k < count; k++) matrices[k].linear->dense = now[k];
        }
        if (llm_evaluate(m, self ? NULL : &t->reference, &t->rows, threads, NULL, NULL, &q))
            die("memory", "not enough");
        FILE *f = fopen(out_path, "a");
        if (!f) die(out_path, "cannot be written");
        fprintf(f, "quality,%s,%s,%s,%d,%.4f,", scope, method, setting, any_size, bits);
        if (disk) fprintf(f, "%llu", (unsigned long long)disk);
        fprintf(f, ",%llu,%s,%llu,%.6g,%.6g,,\n", (unsigned long long)memory, t->name,
                (unsigned long long)q.tokens, exp(q.nll), self ? 0.0 : q.kl);
        fclose(f);
        printf("%-6s %-34s %-20s %6.3f bits %11llu bytes  %-9s ppl %9.3f  KL %.5f\n", scope, method, setting,
               bits, (unsigned long long)memory, t->name, exp(q.nll), q.kl);
        fflush(stdout);
    }
}

/* ---- texts and moments ---- */

static unsigned char *slurp(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) die(path, "cannot be read");
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = need(malloc(*bytes + 1));
    if (fread(data, 1, *bytes, f) != *bytes) die(path, "cannot be read");
    fclose(f);
    return data;
}

static void load_rows(llm_rows *rows, const char *path, size_t most) {
    size_t bytes, length = strlen(path);
    unsigned char *data = slurp(path, &bytes);
    uint32_t *ids;
    int64_t n = 0;
    if (length > 4 && !strcmp(path + length - 4, ".u16")) {
        ids = need(malloc(bytes * 2 + 4));
        for (; (size_t)n < bytes / 2; n++) ids[n] = (uint32_t)data[2 * n] | (uint32_t)data[2 * n + 1] << 8;
    } else {
        llm_tokenizer tokenizer;
        llm_error error;
        if (llm_tokenizer_load(&tokenizer, &model.source, &error)) die(path, error.message);
        n = llm_encode(&tokenizer, (const char *)data, bytes, &ids);
        llm_tokenizer_free(&tokenizer);
    }
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= model.config.vocabulary) die(path, "ids that the model does not have");
    size_t context = model.config.context < CONTEXT ? model.config.context : CONTEXT;
    if (n < 2 || llm_rows_cut(rows, ids, (size_t)n, context + 1, most)) die(path, "too short");
    free(ids), free(data);
}

static llm_model without_pool(void) {
    llm_model alone = model;
    alone.pool = NULL;
    memset(&alone.parallel, 0, sizeof alone.parallel);
    return alone;
}

/* H += X^T X; a thread's own room for the product. */
typedef struct outer {
    float *across, *sums;
    llm_state state;
} outer;

static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    outer *o = user;
    bitstack_moments *m = &moments[layer * LLM_INPUTS + (uint32_t)input];
    for (size_t t = 0; t < tokens; t++)
        for (size_t j = 0; j < cols; j++) o->across[j * tokens + t] = x[t * cols + j];
    llm_gemm(o->across, cols, tokens, o->across, tokens, o->sums, cols, cols);
    pthread_mutex_lock(&adding);
    m->count += tokens;
    for (size_t i = 0; i < (size_t)cols * cols; i++) m->h[i] += (double)o->sums[i];
    pthread_mutex_unlock(&adding);
}

static void moments_of_row(void *user, size_t r, int thread) {
    outer *o = (outer *)user + thread;
    llm_model alone = without_pool(); /* each thread has a row */
    o->state.position = 0;
    o->state.observe = observe, o->state.observe_user = o;
    llm_forward(&alone, &o->state, calibration.ids + r * calibration.length,
                (uint32_t)calibration.length - 1);
    fprintf(stderr, "\rmoments: row %zu of %zu ", r + 1, calibration.count);
}

static void weigh(void *user, size_t i, int thread) {
    matrix *m = &matrices[i];
    size_t n = m->linear->cols, rows = m->linear->rows;
    float *h = need(malloc(n * n * sizeof *h)), *wh = need(malloc(rows * n * sizeof *wh));
    (void)user, (void)thread;
    for (size_t k = 0; k < n * n; k++) h[k] = (float)m->moments->h[k];
    llm_gemm(h, n, n, m->full, n, wh, n, rows);
    for (size_t k = 0; k < rows * n; k++) m->norm2 += (double)m->full[k] * (double)wh[k];
    free(h), free(wh);
}

static void calibrate(void) {
    if (moments) return;
    if (!calibration_path) die("--calibrate", "needed for this");
    load_rows(&calibration, calibration_path, calibration_wanted);
    moments = need(calloc((size_t)model.config.layers * LLM_INPUTS, sizeof *moments));
    const uint32_t cols[LLM_INPUTS] = {model.config.width, model.config.heads * model.config.head_width,
                                       model.config.width, model.config.hidden};
    for (size_t i = 0; i < model.config.layers * (size_t)LLM_INPUTS; i++)
        if (bitstack_moments_init(&moments[i], cols[i % LLM_INPUTS], 1) != BITSTACK_OK)
            die("memory", "not enough");
    outer *room = need(calloc((size_t)threads, sizeof *room));
    size_t widest = model.config.hidden;
    for (int i = 0; i < LLM_INPUTS; i++) widest = cols[i] > widest ? cols[i] : widest;
    for (int i = 0; i < threads; i++) {
        room[i].across = need(malloc(widest * CONTEXT * sizeof(float))),
        room[i].sums = need(malloc(widest * widest * sizeof(float)));
        if (llm_state_init(&room[i].state, &model, CONTEXT, CONTEXT)) die("memory", "not enough");
    }
    llm_parallel(threads, calibration.count, moments_of_row, room);
    fprintf(stderr, "\n");
    for (int i = 0; i < threads; i++)
        free(room[i].across), free(room[i].sums), llm_state_free(&room[i].state);
    free(room);
    for (size_t i = 0; i < count; i++)
        matrices[i].moments =
            &moments[i / LLM_LINEARS * LLM_INPUTS + (size_t)llm_linear_inputs[i % LLM_LINEARS]];
    llm_parallel(threads, count, weigh, NULL);
}

static void restore(void) {
    for (size_t i = 0; i < count; i++) matrices[i].linear->dense = matrices[i].full;
}

/* ---- peers ---- */

#define GPTQ(bits)                                                                                           \
    {                                                                                                        \
        "gptq-" #bits, "GPTQ g128 act-order", bits, 128, 7, peer_gptq_encode, peer_uniform_dequantize, NULL, \
            peer_uniform_release                                                                             \
    }
static const peer gptq[] = {GPTQ(2), GPTQ(3), GPTQ(4), GPTQ(5), GPTQ(6), GPTQ(8)};
enum { GPTQS = sizeof gptq / sizeof *gptq, GPTQ_3 = 1 };
static peer_coded *coded[GPTQS]; /* a matrix each */
static double *errors[GPTQS];    /* tr(E H E^T) */

typedef struct encoding {
    const peer *method;
    peer_coded *coded;
    double *errors;
} encoding;

static void encode_one(void *user, size_t i, int thread) {
    encoding *e = user;
    matrix *m = &matrices[i];
    (void)thread;
    bitstack_result result =
        peer_encode(e->method, &e->coded[i], m->full, m->linear->rows, m->linear->cols, m->moments, 1);
    if (result != BITSTACK_OK) die(e->method->name, bitstack_result_string(result));
    if (!e->errors) return;
    float *dense = need(malloc((size_t)m->linear->rows * m->linear->cols * sizeof *dense));
    e->method->dequantize(&e->coded[i], 1, dense);
    e->errors[i] = peer_error(m->full, dense, m->linear->rows, m->linear->cols, m->moments, 1) * m->norm2;
    free(dense);
}

static void need_gptq(size_t which) {
    if (coded[which]) return;
    calibrate();
    coded[which] = need(calloc(count, sizeof *coded[0]));
    errors[which] = need(calloc(count, sizeof *errors[0]));
    encoding e = {&gptq[which], coded[which], errors[which]};
    fprintf(stderr, "coding: %s\n", gptq[which].name);
    llm_parallel(threads, count, encode_one, &e);
}

static void replace(size_t i, const peer_coded *by, uint32_t level) {
    matrix *m = &matrices[i];
    if (!m->replaced)
        m->replaced = need(malloc((size_t)m->linear->rows * m->linear->cols * sizeof *m->replaced));
    by->peer->dequantize(by, level, m->replaced);
    m->linear->dense = m->replaced;
}

static uint64_t use_gptq(const unsigned char *choice) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        replace(i, &coded[choice[i]][i], 1);
        bytes += coded[choice[i]][i].bytes[0];
    }
    return bytes;
}

static double bits_of(uint64_t bytes) { return 8 * (double)bytes / (double)weights; }

static void do_gptq(int bits) { /* 0: all */
    for (size_t b = 0; b < GPTQS; b++) {
        if ((bits && gptq[b].bits != bits) || all_known("layers", gptq[b].name)) continue;
        unsigned char *choice = need(malloc(count));
        need_gptq(b);
        memset(choice, (int)b, count);
        uint64_t bytes = use_gptq(choice);
        judge(&model, "layers", gptq[b].method, gptq[b].name, 0, bits_of(bytes), 0, bytes);
        free(choice);
    }
    restore();
}

/* The model's loss with each matrix alone at 3 bits, on a row of calibration text: from the layer on that it is in. */
typedef struct probing {
    size_t tokens, floats; /* of the row, of its residual stream */
    float *streams;        /* at every layer's input, full precision */
    float *reference;      /* logits */
    llm_state *states;     /* one a thread */
    float *logits;         /* of SOME tokens a thread */
} probing;
enum { SOME = 64 };

/* From the stream at layer l's input, which is used up: the loss, or the reference itself. */
static double finish(const probing *p, const llm_model *m, uint32_t l, float *x, int thread, float *to) {
    llm_state *state = &p->states[thread];
    size_t vocabulary = m->config.vocabulary;
    double nll = 0, kl = 0;
    for (; l < m->config.layers; l++) {
        state->position = 0;
        llm_layer_forward(m, state, l, x, (uint32_t)p->tokens);
    }
    llm_final_norm(m, x, (uint32_t)p->tokens);
    memcpy(state->x, x, p->floats * sizeof *x);
    for (size_t first = 0; first < p->tokens; first += SOME) {
        size_t some = p->tokens - first < SOME ? p->tokens - first : SOME;
        float *logits = to ? to + first * vocabulary : p->logits + (size_t)thread * SOME * vocabulary;
        llm_logits(m, state, (uint32_t)first, (uint32_t)some, logits);
        for (size_t t = 0; t < some && !to; t++)
            llm_score(logits + t * vocabulary, p->reference + (first + t) * vocabulary, (uint32_t)vocabulary,
                      calibration.ids[first + t + 1], &nll, &kl);
    }
    return kl / (double)p->tokens;
}

static void probe_one(void *user, size_t i, int thread) {
    const probing *p = user;
    matrix *m = &matrices[i];
    uint32_t l = (uint32_t)(i / LLM_LINEARS);
    llm_model alone = without_pool();
    float *dense = need(malloc((size_t)m->linear->rows * m->linear->cols * sizeof *dense)),
          *x = need(malloc(p->floats * sizeof *x));
    alone.layers = need(malloc(model.config.layers * sizeof *alone.layers));
    memcpy(alone.layers, model.layers, model.config.layers * sizeof *alone.layers);
    gptq[GPTQ_3].dequantize(&coded[GPTQ_3][i], 1, dense);
    alone.layers[l].linears[i % LLM_LINEARS].dense = dense;
    memcpy(x, p->streams + l * p->floats, p->floats * sizeof *x);
    double loss = finish(p, &alone, l, x, thread, NULL);
    m->loss = loss > 1e-9 ? loss : 1e-9;
    fprintf(stderr, "\rsensitivity: matrix %zu of %zu ", i + 1, count);
    free(dense), free(x), free(alone.layers);
}

static void measure_losses(void) {
    size_t layers = model.config.layers, vocabulary = model.config.vocabulary;
    llm_model alone = without_pool();
    probing p = {
        calibration.length - 1, (calibration.length - 1) * model.config.width, NULL, NULL, NULL, NULL};
    p.streams = need(malloc((layers + 1) * p.floats * sizeof(float)));
    p.reference = need(malloc(p.tokens * vocabulary * sizeof(float)));
    p.logits = need(malloc((size_t)threads * SOME * vocabulary * sizeof(float)));
    p.states = need(calloc((size_t)threads, sizeof *p.states));
    for (int i = 0; i < threads; i++)
        if (llm_state_init(&p.states[i], &model, (uint32_t)p.tokens, (uint32_t)p.tokens))
            die("memory", "not enough");
    llm_embed(&alone, calibration.ids, (uint32_t)p.tokens, p.streams);
    for (size_t l = 0; l < layers; l++) {
        float *x = p.streams + (l + 1) * p.floats;
        memcpy(x, x - p.floats, p.floats * sizeof *x);
        p.states[0].position = 0;
        llm_layer_forward(&alone, &p.states[0], (uint32_t)l, x, (uint32_t)p.tokens);
    }
    finish(&p, &alone, (uint32_t)layers, p.streams + layers * p.floats, 0, p.reference);
    llm_parallel(threads, count, probe_one, &p);
    fprintf(stderr, "\n");
    for (int i = 0; i < threads; i++) llm_state_free(&p.states[i]);
    free(p.streams), free(p.reference), free(p.logits), free(p.states);
}

/* Losses are taken to grow with a matrix's output error. From 2 bits everywhere, what lowers the predicted loss most a
 * byte goes first, a step being to any higher number of bits, until no step fits. */
static uint64_t mix(double target, unsigned char *choice) {
    uint64_t bytes = 0, most = (uint64_t)(target * (double)weights / 8);
    memset(choice, 0, count);
    for (size_t i = 0; i < count; i++) bytes += coded[0][i].bytes[0];
    for (;;) {
        double best = 0;
        size_t which = count, to = 0;
        for (size_t i = 0; i < count; i++)
            for (size_t b = choice[i] + 1u; b < GPTQS; b++) {
                uint64_t more = coded[b][i].bytes[0] - coded[choice[i]][i].bytes[0];
                double gain = matrices[i].loss * (errors[choice[i]][i] - errors[b][i]) / errors[GPTQ_3][i] /
                              (double)more;
                if (gain > best && bytes + more <= most) best = gain, which = i, to = b;
            }
        if (which == count) return bytes;
        bytes += coded[to][which].bytes[0] - coded[choice[which]][which].bytes[0];
        choice[which] = (unsigned char)to;
    }
}

static void do_mixed(void) {
    unsigned char *choice = need(malloc(count));
    int ready = 0;
    for (int s = 0; s < SIZES; s++) {
        char setting[32];
        snprintf(setting, sizeof setting, "mixed-%g", sizes[s]);
        if (all_known("layers", setting)) continue;
        for (size_t b = 0; b < GPTQS && !ready; b++) need_gptq(b);
        if (!ready) measure_losses();
        ready = 1;
        mix(sizes[s], choice);
        uint64_t bytes = use_gptq(choice);
        judge(&model, "layers", "GPTQ mixed bits", setting, 0, bits_of(bytes), 0, bytes);
    }
    free(choice);
    restore();
}

/* ---- ggml's quantizers, one process a thread ---- */

typedef struct ggml_type {
    const char *name;
    int number;
    double bits;
    size_t block;
} ggml_type;

static const ggml_type types[] = {
    {"Q4_K", 12, 4.5, 256},     {"Q3_K", 11, 3.4375, 256}, {"IQ3_XXS", 18, 3.0625, 256},
    {"IQ4_XS", 23, 4.25, 256},  {"Q5_K", 13, 5.5, 256},    {"Q2_K", 10, 2.625, 256},
    {"IQ2_S", 22, 2.5625, 256}, {"Q6_K", 14, 6.5625, 256}, {"IQ2_XXS", 16, 2.0625, 256},
    {"IQ3_S", 21, 3.4375, 256}, {"Q8_0", 8, 8.5, 32},      {"Q5_0", 6, 5.5, 32}};
enum { TYPES = sizeof types / sizeof *types, LAYER_TYPES = TYPES - 1, Q8_0 = TYPES - 2, Q5_0 = TYPES - 1 };

typedef struct child {
    FILE *to, *from;
    pid_t pid;
} child;
static child children[MOST_THREADS];

static void start_child(child *c) {
    int in[2], out[2];
    if (pipe(in) || pipe(out)) die("pipe", "cannot be made");
    c->pid = fork();
    if (c->pid < 0) die("fork", "failed");
    if (!c->pid) {
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execl(filter, filter, (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    c->to = need(fdopen(in[1], "wb")), c->from = need(fdopen(out[0], "rb"));
    /* children started later must not hold this one's input open */
    fcntl(in[1], F_SETFD, FD_CLOEXEC), fcntl(out[0], F_SETFD, FD_CLOEXEC);
}

static void through_ggml(child *c, const ggml_type *type, const float *w, size_t rows, size_t cols,
                         const bitstack_moments *h, float *out) {
    size_t wide = (cols + type->block - 1) / type->block * type->block;
    float *padded = need(calloc(rows * wide, sizeof *padded)),
          *importance = need(malloc(wide * sizeof *importance));
    int32_t number = type->number;
    int64_t size[2] = {(int64_t)rows, (int64_t)wide};
    for (size_t j = 0; j < wide; j++)
        importance[j] = j >= cols ? 1e-6f : h ? (float)(h->h[j * cols + j] / (double)h->count) : 1;
    for (size_t i = 0; i < rows; i++) memcpy(padded + i * wide, w + i * cols, cols * sizeof *w);
    if (fwrite(&number, 4, 1, c->to) != 1 || fwrite(size, 8, 2, c->to) != 2 ||
        fwrite(importance, 4, wide, c->to) != wide || fwrite(padded, 4, rows * wide, c->to) != rows * wide ||
        fflush(c->to) || fread(padded, 4, rows * wide, c->from) != rows * wide)
        die(filter, "does not answer");
    for (size_t i = 0; i < rows; i++) memcpy(out + i * cols, padded + i * wide, cols * sizeof *w);
    free(padded), free(importance);
}

static void ggml_one(void *user, size_t i, int thread) {
    matrix *m = &matrices[i];
    if (!m->replaced)
        m->replaced = need(malloc((size_t)m->linear->rows * m->linear->cols * sizeof *m->replaced));
    through_ggml(&children[thread], user, m->full, m->linear->rows, m->linear->cols, m->moments, m->replaced);
    m->linear->dense = m->replaced;
}

static void need_children(void) {
    if (!filter) die("--ggml", "needed for this");
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < threads; i++)
        if (!children[i].pid) start_child(&children[i]);
}

static void do_ggml(void) {
    for (size_t t = 0; t < LAYER_TYPES; t++) {
        char setting[32];
        snprintf(setting, sizeof setting, "%s", types[t].name);
        if (all_known("layers", setting)) continue;
        calibrate();
        need_children();
        fprintf(stderr, "coding: %s\n", setting);
        llm_parallel(threads, count, ggml_one, (void *)(uintptr_t)&types[t]);
        const char *method = !strncmp(setting, "IQ", 2) ? "ggml IQ types" : "ggml K types";
        judge(&model, "layers", method, setting, 0, types[t].bits, 0,
              (uint64_t)(types[t].bits * (double)weights / 8));
    }
    restore();
}

/* Peers of bench/peers that have levels. */
static void do_peer(const peer *method, const char *name, uint32_t levels) {
    char setting[64];
    int missing = 0;
    for (uint32_t l = 1; l <= levels; l++) {
        snprintf(setting, sizeof setting, levels > 1 ? "%s:%u" : "%s", method->name, l);
        missing += !all_known("layers", setting);
    }
    if (!missing) return;
    calibrate();
    encoding e = {method, need(calloc(count, sizeof *e.coded)), NULL};
    fprintf(stderr, "coding: %s\n", method->name);
    llm_parallel(threads, count, encode_one, &e);
    for (uint32_t l = 1; l <= levels; l++) {
        uint64_t bytes = 0;
        snprintf(setting, sizeof setting, levels > 1 ? "%s:%u" : "%s", method->name, l);
        for (size_t i = 0; i < count; i++) replace(i, &e.coded[i], l), bytes += e.coded[i].bytes[l - 1];
        judge(&model, "layers", name, setting, 0, bits_of(bytes), 0, bytes);
    }
    for (size_t i = 0; i < count; i++) peer_free(&e.coded[i]);
    free(e.coded);
    restore();
}

/* ---- whole models ---- */

/* Metadata (the tokenizer) and norms, as the model's file has them. */
static uint64_t rest_bytes(const llm_model *m) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->source.mapping_count; i++) bytes += m->source.mappings[i].bytes;
    for (size_t i = 0; i < m->source.tensor_count; i++)
        if (m->source.tensors[i].dimensions > 1) bytes -= m->source.tensors[i].bytes;
    return bytes;
}

static void do_files(void) {
    static const struct {
        size_t gptq, type;
    } pairs[] = {{0, Q5_0}, {1, Q5_0}, {2, Q5_0}, {2, Q8_0}, {3, Q8_0}, {4, Q8_0}, {5, Q8_0}};
    static float *embedding;
    const float *full = model.embedding.dense;
    size_t rows = model.embedding.rows, cols = model.embedding.cols;
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs + SIZES; k++) {
        char setting[64];
        size_t s = k - sizeof pairs / sizeof *pairs, last = sizeof pairs / sizeof *pairs;
        const ggml_type *type = &types[k < last ? pairs[k].type : sizes[s] < 4.5 ? Q5_0 : Q8_0];
        if (k < last) snprintf(setting, sizeof setting, "%s+%s", gptq[pairs[k].gptq].name, type->name);
        else snprintf(setting, sizeof setting, "mixed-%g+%s", sizes[s], type->name);
        if (all_known("file", setting)) continue;
        unsigned char *choice = need(malloc(count));
        for (size_t b = 0; b < GPTQS; b++)
            if (k >= last || b == pairs[k].gptq) need_gptq(b);
        if (k < last) memset(choice, (int)pairs[k].gptq, count);
        else {
            if (!(matrices[0].loss > 0)) need_gptq(GPTQ_3), measure_losses();
            mix(sizes[s], choice);
        }
        need_children();
        if (!embedding) embedding = need(malloc(rows * cols * sizeof *embedding));
        through_ggml(&children[0], type, full, rows, cols, NULL, embedding);
        uint64_t bytes =
            use_gptq(choice) + (uint64_t)(type->bits * (double)(rows * cols) / 8) + rest_bytes(&model);
        llm_model coded_model = model;
        coded_model.embedding.dense = coded_model.head.dense = embedding;
        judge(&coded_model, "file", k < last ? "GPTQ g128 act-order" : "GPTQ mixed bits", setting, 0,
              8 * (double)bytes / (double)model_weights, 0, bytes);
        free(choice);
    }
    restore();
}

static void open_model(llm_model *m, const char *path) {
    llm_model_options options;
    llm_error error;
    memset(&options, 0, sizeof options);
    options.threads = threads;
    options.unpack_bytes = (uint64_t)8 << 30;
    options.stack.precision = BITSTACK_EXACT; /* the others' products are floats, too */
    if (llm_model_open(m, path, &options, &error)) die(path, error.message);
    if (m->config.vocabulary != model.config.vocabulary && m != &model) die(path, "another vocabulary");
}

static void set_budget(llm_model *m, const char *path, uint64_t bytes) {
    bitstack_error error;
    if (bitstack_set_budget(m->source.stack, bytes, &error) != BITSTACK_OK) die(path, error.message);
}

/* Resident bytes that are not a matrix's: tensors, metadata. Tables of the matrices and blocks are theirs. */
static uint64_t other_bytes(const bitstack *stack) {
    uint64_t bytes = 0;
    for (int i = 0; i < bitstack_tensor_count(stack); i++) {
        bitstack_tensor t;
        bitstack_get_tensor(stack, i, &t);
        bytes += t.bytes + t.name_bytes;
    }
    for (int i = 0; i < bitstack_meta_count(stack); i++) {
        bitstack_meta e;
        bitstack_get_meta(stack, i, &e);
        bytes += e.value_bytes + e.key_bytes;
    }
    return bytes;
}

static void do_layers(const char *path) {
    llm_model m;
    open_model(&m, path);
    uint64_t other = other_bytes(m.source.stack), disk = bitstack_file_bytes(m.source.stack);
    for (int s = 0; s < SIZES; s++) {
        char setting[32];
        snprintf(setting, sizeof setting, "stack-%g", sizes[s]);
        if (all_known("layers", setting)) continue;
        set_budget(&m, path, other + (uint64_t)(sizes[s] * (double)weights / 8));
        uint64_t bytes = bitstack_resident_bytes(m.source.stack) - other;
        if (bits_of(bytes) < 0.93 * sizes[s]) continue; /* the file ends before */
        judge(&m, "layers", "BitStack", setting, 1, bits_of(bytes), disk, bytes);
    }
    llm_model_close(&m);
}

static void do_stack(char *path) { /* STACK,NAME:BYTES,... */
    llm_model m;
    char *at = strchr(path, ',');
    if (at) *at++ = 0;
    open_model(&m, path);
    uint64_t disk = bitstack_file_bytes(m.source.stack);
    for (char *next; at && *at; at = next) {
        char setting[64], *bytes = strchr(at, ':');
        if ((next = strchr(at, ','))) *next++ = 0;
        if (!bytes) die("stack=", "expected STACK,NAME:BYTES,...");
        *bytes++ = 0;
        uint64_t budget = strtoull(bytes, NULL, 10);
        snprintf(setting, sizeof setting, "stack-at-%s", at);
        if (all_known("file", setting) || budget < bitstack_base_bytes(m.source.stack)) continue;
        set_budget(&m, path, budget);
        uint64_t resident = bitstack_resident_bytes(m.source.stack);
        if ((double)resident < 0.96 * (double)budget) continue; /* the file ends before */
        judge(&m, "file", "BitStack", setting, 1, 8 * (double)resident / (double)model_weights, disk,
              resident);
    }
    llm_model_close(&m);
}

static void do_file(char *what) { /* METHOD,SETTING,BYTES,MODEL */
    char *setting = strchr(what, ','), *bytes = setting ? strchr(setting + 1, ',') : NULL,
         *path = bytes ? strchr(bytes + 1, ',') : NULL;
    llm_model m;
    if (!path) die("file=", "expected METHOD,SETTING,BYTES,MODEL");
    *setting++ = *bytes++ = *path++ = 0;
    if (all_known("file", setting)) return;
    uint64_t size = strtoull(bytes, NULL, 10);
    open_model(&m, path);
    judge(&m, "file", what, setting, 0, 8 * (double)size / (double)model_weights, size, size);
    llm_model_close(&m);
}

static void do_full(void) {
    uint64_t bytes = model.source.mappings[0].bytes;
    judge(&model, "file", "full precision", "F16", 0, 16, bytes, bytes);
}

static void list_matrices(void) {
    count = (size_t)model.config.layers * LLM_LINEARS;
    if (count > MOST_MATRICES) die("model", "too many layers");
    matrices = need(calloc(count, sizeof *matrices));
    for (size_t i = 0; i < count; i++) {
        matrices[i].linear = &model.layers[i / LLM_LINEARS].linears[i % LLM_LINEARS];
        matrices[i].full = matrices[i].linear->dense;
        weights += (size_t)matrices[i].linear->rows * matrices[i].linear->cols;
    }
    model_weights = weights + (size_t)model.embedding.rows * model.embedding.cols;
    if (model.head.dense != model.embedding.dense) model_weights += (size_t)model.head.rows * model.head.cols;
    for (size_t i = 0; i < model.source.tensor_count; i++)
        if (model.source.tensors[i].dimensions < 2)
            model_weights += (size_t)llm_tensor_cols(&model.source.tensors[i]);
}

int main(int argc, char **argv) {
    int first = 3;
    if (argc < 4) die("usage", "see the head of bench/real/measure.c");
    threads = llm_processors() < MOST_THREADS ? llm_processors() : MOST_THREADS;
    out_path = argv[1];
    for (; first + 1 < argc && !strncmp(argv[first], "--", 2); first += 2) {
        char *value = argv[first + 1], *equals = strchr(value, '=');
        if (!strcmp(argv[first], "--calibrate")) calibration_path = value;
        else if (!strcmp(argv[first], "--rows")) rows_wanted = strtoul(value, NULL, 10);
        else if (!strcmp(argv[first], "--calibration-rows")) calibration_wanted = strtoul(value, NULL, 10);
        else if (!strcmp(argv[first], "--ggml")) filter = value;
        else if (!strcmp(argv[first], "--text") && equals && text_count < MOST_TEXTS) {
            *equals = 0;
            texts[text_count].name = value;
            texts[text_count++].path = equals + 1;
        } else die(argv[first], "unknown, or without a value");
    }
    open_model(&model, argv[2]);
    list_matrices();
    for (int i = 0; i < text_count; i++) {
        load_rows(&texts[i].rows, texts[i].path, rows_wanted);
        texts[i].reference.model = &model;
    }
    FILE *f = fopen(out_path, "a");
    if (!f) die(out_path, "cannot be written");
    if (ftell(f) == 0) fputs(header, f);
    fclose(f);
    for (int i = first; i < argc; i++) {
        if (!strcmp(argv[i], "full")) do_full();
        else if (!strcmp(argv[i], "gptq")) do_gptq(0);
        else if (!strncmp(argv[i], "gptq=", 5)) do_gptq(atoi(argv[i] + 5));
        else if (!strcmp(argv[i], "mixed")) do_mixed();
        else if (!strcmp(argv[i], "ggml")) do_ggml();
        else if (!strcmp(argv[i], "aqlm")) do_peer(peer_find("aqlm-2x8"), "AQLM", 1);
        else if (!strcmp(argv[i], "iabs")) do_peer(peer_find("bitstack-iabs-16"), "BitStack as published", 4);
        else if (!strcmp(argv[i], "files")) do_files();
        else if (!strncmp(argv[i], "layers=", 7)) do_layers(argv[i] + 7);
        else if (!strncmp(argv[i], "stack=", 6)) do_stack(argv[i] + 6);
        else if (!strncmp(argv[i], "file=", 5)) do_file(argv[i] + 5);
        else die(argv[i], "unknown");
    }
    for (int i = 0; i < text_count; i++) llm_rows_free(&texts[i].rows), free(texts[i].reference.logits);
    return 0;
}
