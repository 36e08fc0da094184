#define BITSTACK_POOL
#include "model.h"
#include "dense.h"
#include "rope.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const llm_linear_names[LLM_LINEARS] = {"attn_q", "attn_k", "attn_v", "attn_output",
                                                   "ffn_gate", "ffn_up", "ffn_down"};
const int llm_linear_inputs[LLM_LINEARS] = {LLM_IN_ATTENTION, LLM_IN_ATTENTION, LLM_IN_ATTENTION, LLM_IN_OUTPUT,
                                            LLM_IN_HIDDEN, LLM_IN_HIDDEN, LLM_IN_DOWN};

enum { UNPACK_ROWS = 64, FEW_ROWS = 8, FEW = 24 }; /* of a packed matrix at a time; fewer for few vectors */

/* ---- loading ---- */

/* A whole number of metadata from `least` to `most`. */
static int whole(const llm_source *source, const char *key, double fallback, uint32_t least, uint32_t most,
                 uint32_t *out, llm_error *error) {
    double value = llm_number(source, key, fallback);
    if (!(value >= least && value <= most) || value != floor(value))
        return llm_fail(error, "%s: expected %s, a whole number from %u to %u", source->path, key, least, most);
    *out = (uint32_t)value;
    return 0;
}

const char *llm_key(const llm_source *s, const char *name) {
    static _Thread_local char keys[8][96];
    static _Thread_local int next;
    llm_string architecture = llm_text(s, "general.architecture");
    char *to = keys[next++ % 8];
    snprintf(to, sizeof keys[0], "%.*s.%s", (int)(architecture.bytes < 20 ? architecture.bytes : 20), architecture.text, name);
    return to;
}

static int load_config(llm_config *c, const llm_source *s, llm_error *error) {
    static const struct { const char *name; int halves; } known[] = {{"llama", 0}, {"mistral", 0}, {"qwen2", 1}, {"qwen3", 1}};
    llm_string architecture = llm_text(s, "general.architecture"), layout = llm_text(s, "rope.layout");
    const llm_meta *tokens = llm_find_meta(s, "tokenizer.ggml.tokens");
    const llm_tensor *embedding = llm_find_tensor(s, "token_embd.weight"); /* may have more rows than there are tokens */
    double vocabulary = embedding ? (double)llm_tensor_rows(embedding) : tokens ? (double)tokens->count : 0;
    size_t which = 0;
    if (llm_string_is(llm_text(s, "general.type"), "adapter"))
        return llm_fail(error, "%s: it is an adapter (LoRA), which changes a model and is none: expected one that it was merged into", s->path);
    while (which < sizeof known / sizeof *known && !llm_string_is(architecture, known[which].name)) which++;
    if (which == sizeof known / sizeof *known)
        return llm_fail(error, "%s: expected general.architecture to be \"llama\", \"mistral\", \"qwen2\" or \"qwen3\", found \"%.*s\"",
                        s->path, (int)(architecture.bytes < 40 ? architecture.bytes : 40),
                        architecture.text ? architecture.text : "");
    if (whole(s, llm_key(s, "embedding_length"), 0, 1, 1 << 20, &c->width, error) ||
        whole(s, llm_key(s, "vocab_size"), vocabulary, 1, 1 << 24, &c->vocabulary, error) ||
        whole(s, llm_key(s, "context_length"), 2048, 1, 1 << 24, &c->context, error) ||
        whole(s, llm_key(s, "block_count"), 0, 1, 4096, &c->layers, error) ||
        whole(s, llm_key(s, "feed_forward_length"), 0, 1, 1 << 22, &c->hidden, error) ||
        whole(s, llm_key(s, "attention.head_count"), 0, 1, 1 << 16, &c->heads, error) ||
        whole(s, llm_key(s, "attention.head_count_kv"), c->heads, 1, c->heads, &c->kv_heads, error) ||
        whole(s, llm_key(s, "attention.key_length"), c->width / c->heads, 1, 4096, &c->head_width, error) ||
        whole(s, llm_key(s, "attention.value_length"), c->head_width, c->head_width, c->head_width, &c->head_width, error) ||
        whole(s, llm_key(s, "rope.dimension_count"), c->head_width, 0, c->head_width, &c->rope_width, error) ||
        whole(s, llm_key(s, "attention.sliding_window"), 0, 0, 1 << 30, &c->window, error) ||
        whole(s, llm_key(s, "attention.sliding_window_first_block"), 0, 0, 4096, &c->window_first, error))
        return -1;
    if (c->heads % c->kv_heads)
        return llm_fail(error, "%s: expected %s to be a multiple of head_count_kv", s->path, llm_key(s, "attention.head_count"));
    if ((uint64_t)c->heads * c->head_width > 1 << 24)
        return llm_fail(error, "%s: expected attention of at most 16777216 channels", s->path);
    if (llm_number(s, llm_key(s, "expert_count"), 0) != 0)
        return llm_fail(error, "%s: expected a model without experts", s->path);
    c->rope_width -= c->rope_width % 2;
    c->rope_halves = layout.text ? llm_string_is(layout, "halves") : known[which].halves;
    c->epsilon = (float)llm_number(s, llm_key(s, "attention.layer_norm_rms_epsilon"), 1e-5);
    c->rope_base = (float)llm_number(s, llm_key(s, "rope.freq_base"), 10000);
    if (!(c->epsilon >= 0) || !(c->rope_base > 0))
        return llm_fail(error, "%s: expected attention.layer_norm_rms_epsilon and rope.freq_base above 0", s->path);
    return 0;
}

static float *load_vector(const llm_source *s, const char *name, uint32_t size, llm_error *error) {
    const llm_tensor *tensor = llm_find_tensor(s, name);
    if (!tensor || llm_tensor_cols(tensor) != size || llm_tensor_rows(tensor) != 1) {
        llm_fail(error, "%s: expected tensor '%s' of %u numbers", s->path, name, size);
        return NULL;
    }
    float *vector = malloc(size * sizeof *vector);
    if (vector) llm_tensor_read(tensor, 0, 1, vector);
    else llm_fail(error, "%s: out of memory", s->path);
    return vector;
}

/* The same for a vector that may be absent unless the architecture needs it: *vector is NULL then. */
static int load_optional(float **vector, const llm_source *s, const char *name, uint32_t size, int needed, llm_error *error) {
    return (needed || llm_find_tensor(s, name)) && !(*vector = load_vector(s, name, size, error)) ? -1 : 0;
}

static int load_linear(llm_linear *linear, const llm_source *s, const char *name, uint32_t rows, uint32_t cols,
                       llm_error *error) {
    bitstack_matrix matrix;
    linear->rows = rows;
    linear->cols = cols;
    linear->matrix = llm_find_matrix(s, name);
    if (linear->matrix >= 0) {
        if (bitstack_get_matrix(s->stack, linear->matrix, &matrix) == BITSTACK_OK && matrix.shape.rows == rows &&
            matrix.shape.cols == cols) return 0;
    } else {
        linear->tensor = llm_find_tensor(s, name);
        if (linear->tensor && llm_tensor_rows(linear->tensor) == rows && llm_tensor_cols(linear->tensor) == cols)
            return 0;
    }
    return llm_fail(error, "%s: expected '%s' of %u x %u", s->path, name, rows, cols);
}

/* Calls f for every matrix of the model. */
#define EACH_LINEAR(model, linear, ...)                                                \
    do {                                                                               \
        for (uint32_t l_ = 0; l_ < (model)->config.layers * LLM_LINEARS; l_++) {       \
            llm_linear *linear = &(model)->layers[l_ / LLM_LINEARS].linears[l_ % LLM_LINEARS]; \
            __VA_ARGS__                                                                \
        }                                                                              \
        { llm_linear *linear = &(model)->embedding; __VA_ARGS__ }                      \
        { llm_linear *linear = &(model)->head; __VA_ARGS__ }                           \
    } while (0)

static int unpack(llm_model *m, uint64_t limit, llm_error *error) {
    uint64_t total = 0;
    EACH_LINEAR(m, linear, {
        if (linear->tensor) {
            if (linear->tensor->type == LLM_TYPE_F32 && (uintptr_t)linear->tensor->data % 4 == 0 && !m->forget)
                linear->dense = (const float *)(const void *)linear->tensor->data;
            else if (linear != &m->head || linear->tensor != m->embedding.tensor) total += (uint64_t)linear->rows * linear->cols * sizeof(float);
        }
    });
    if (m->source.stack || total > limit) return 0;
    EACH_LINEAR(m, linear, {
        if (linear == &m->head && linear->tensor == m->embedding.tensor) linear->dense = m->embedding.dense;
        else if (linear->tensor && !linear->dense) {
            linear->owned = malloc((size_t)linear->rows * linear->cols * sizeof(float));
            if (!linear->owned) return llm_fail(error, "%s: out of memory", m->source.path);
            llm_tensor_read(linear->tensor, 0, linear->rows, linear->owned);
            linear->dense = linear->owned;
            if (m->forget) llm_tensor_forget(&m->source, linear->tensor);
        }
    });
    return 0;
}

/* Takes the source and the pool over. */
static int load(llm_model *m, llm_source source, bitstack_pool *pool, const llm_model_options *options, llm_error *error) {
    llm_config *c = &m->config;
    char name[64];
    memset(m, 0, sizeof *m);
    m->pool = pool;
    if (pool) m->parallel = bitstack_pool_parallel(pool);
    m->source = source;
    const llm_source *s = &m->source;
    m->forget = options && options->forget;
    m->keep = options ? options->keep : LLM_KEEP_F32;
    if (load_config(c, s, error) != 0 || llm_rope_load(m, error) != 0) goto failed;
    m->layers = calloc(c->layers, sizeof *m->layers);
    if (!m->layers || llm_source_sort(&m->source) != 0) {
        llm_fail(error, "%s: out of memory", s->path);
        goto failed;
    }
    uint32_t q = c->heads * c->head_width, kv = c->kv_heads * c->head_width;
    const uint32_t rows[LLM_LINEARS] = {q, kv, kv, c->width, c->hidden, c->hidden, c->width};
    const uint32_t cols[LLM_LINEARS] = {c->width, c->width, c->width, q, c->width, c->width, c->hidden};
    int biases = llm_string_is(llm_text(s, "general.architecture"), "qwen2");
    int norms = llm_string_is(llm_text(s, "general.architecture"), "qwen3");
    for (uint32_t l = 0; l < c->layers; l++) {
        llm_layer *layer = &m->layers[l];
        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", l);
        if (!(layer->attention_norm = load_vector(s, name, c->width, error))) goto failed;
        snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", l);
        if (!(layer->hidden_norm = load_vector(s, name, c->width, error))) goto failed;
        for (int i = 0; i < LLM_LINEARS; i++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, llm_linear_names[i]);
            if (load_linear(&layer->linears[i], s, name, rows[i], cols[i], error) != 0) goto failed;
            snprintf(name, sizeof name, "blk.%u.%s.bias", l, llm_linear_names[i]);
            if (load_optional(&layer->linears[i].bias, s, name, rows[i], biases && i <= LLM_V, error) != 0) goto failed;
        }
        snprintf(name, sizeof name, "blk.%u.attn_q_norm.weight", l);
        if (load_optional(&layer->q_norm, s, name, c->head_width, norms, error) != 0) goto failed;
        snprintf(name, sizeof name, "blk.%u.attn_k_norm.weight", l);
        if (load_optional(&layer->k_norm, s, name, c->head_width, norms, error) != 0) goto failed;
    }
    if (!(m->final_norm = load_vector(s, "output_norm.weight", c->width, error))) goto failed;
    if (load_linear(&m->embedding, s, "token_embd.weight", c->vocabulary, c->width, error) != 0) goto failed;
    int own = llm_find_tensor(s, "output.weight") || llm_find_matrix(s, "output.weight") >= 0;
    m->head = m->embedding;
    if (own && load_linear(&m->head, s, "output.weight", c->vocabulary, c->width, error) != 0) goto failed;
    if (unpack(m, options && options->unpack_bytes ? options->unpack_bytes : (uint64_t)512 << 20, error) == 0) return 0;
failed:
    llm_model_close(m);
    return -1;
}

/* NULL where one thread is asked for or no more can be had: it alone does the same. */
static bitstack_pool *open_pool(const llm_model_options *options) {
    bitstack_pool *pool = NULL;
    if (options && options->threads > 1) bitstack_pool_open(&pool, options->threads, NULL);
    return pool;
}

int llm_model_load(llm_model *m, llm_source source, const llm_model_options *options, llm_error *error) {
    return load(m, source, open_pool(options), options, error);
}

int llm_model_open(llm_model *m, const char *path, const llm_model_options *options, llm_error *error) {
    bitstack_pool *pool = open_pool(options);
    bitstack_options stack;
    llm_source source;
    memset(m, 0, sizeof *m);
    memset(&stack, 0, sizeof stack);
    if (options) stack = options->stack;
    if (pool && !stack.parallel.run) stack.parallel = bitstack_pool_parallel(pool);
    if (llm_source_open(&source, path, &stack, error) == 0) return load(m, source, pool, options, error);
    bitstack_pool_close(pool);
    return -1;
}

void llm_model_close(llm_model *m) {
    if (m->layers) {
        EACH_LINEAR(m, linear, free(linear->owned); free(linear->bias););
        for (uint32_t l = 0; l < m->config.layers; l++) {
            llm_layer *layer = &m->layers[l];
            free(layer->attention_norm), free(layer->hidden_norm), free(layer->q_norm), free(layer->k_norm);
        }
    }
    free(m->layers);
    free(m->final_norm);
    free(m->rope_frequencies), free(m->rope_long);
    llm_source_close(&m->source);
    bitstack_pool_close(m->pool); /* after the stack, which may use it */
    memset(m, 0, sizeof *m);
}

/* ---- matrices ---- */

static void apply_gains(const llm_gains *gains, uint32_t cols, uint64_t first, uint64_t count, float *w) {
    for (uint64_t i = first; i < first + count; i++, w += cols)
        for (uint32_t g = 0; g < gains->groups; g++) {
            const uint32_t begin = g * gains->group_cols, end = begin + gains->group_cols < cols ? begin + gains->group_cols : cols;
            const float gain = gains->rows[(i / 16 * gains->groups + g) * 16 + i % 16];
            for (uint32_t j = begin; j < end; j++) w[j] *= gains->cols[j] > 0 ? gain * gains->cols[j] : 1;
        }
}

void llm_linear_rows(const llm_model *m, const llm_linear *linear, uint64_t first, uint64_t count, float *out) {
    if (linear->dense) memcpy(out, linear->dense + first * linear->cols, count * linear->cols * sizeof *out);
    else if (linear->matrix >= 0) {
        bitstack_dequantize_rows(m->source.stack, linear->matrix, (uint32_t)first, (uint32_t)count, out, linear->cols);
        if (linear->gains) apply_gains(linear->gains, linear->cols, first, count, out);
    } else {
        llm_tensor_read(linear->tensor, first, count, out);
        if (m->forget && count == linear->rows) llm_tensor_forget(&m->source, linear->tensor);
    }
}

/* Work that is cut into as many parts as the model has threads. */
static int parts_of(const llm_model *m) { return m->pool && m->parallel.threads > 1 ? m->parallel.threads : 1; }

static void share_out(const llm_model *m, void (*work)(void *context, size_t part), void *context, size_t parts) {
    if (parts > 1) m->parallel.run(m->parallel.user, work, context, parts);
    else work(context, 0);
}

typedef struct product {
    const llm_linear *linear;
    const float *x;
    float *y, *unpacked;
    uint32_t count, step; /* step: rows a part */
} product;

static void multiply_rows(void *context, size_t part) {
    const product *p = context;
    const llm_linear *linear = p->linear;
    uint32_t cols = linear->cols, begin = (uint32_t)part * p->step, end = begin + p->step;
    float *unpacked = p->unpacked + part * UNPACK_ROWS * cols;
    if (end > linear->rows) end = linear->rows;
    if (begin >= end) return;
    if (linear->packed && p->count >= LLM_PACKED_LEAST &&
        llm_gemm_packed(linear->packed + begin * (llm_packed_floats(32, cols) / 32), end - begin, cols, p->x, cols, p->y + begin,
                        linear->rows, p->count, NULL)) return;
    if (linear->dense) llm_gemm(linear->dense + (size_t)begin * cols, end - begin, cols, p->x, cols, p->y + begin, linear->rows, p->count);
    else
        for (uint32_t i = begin, most = p->count < FEW ? FEW_ROWS : UNPACK_ROWS; i < end; i += most) {
            uint32_t some = end - i < most ? end - i : most;
            llm_tensor_read(linear->tensor, i, some, unpacked);
            llm_gemm(unpacked, some, cols, p->x, cols, p->y + i, linear->rows, p->count);
        }
}

static void add_bias(const llm_linear *linear, float *y, uint32_t count) {
    for (uint32_t t = 0; t < count; t++, y += linear->rows)
        for (uint32_t i = 0; i < linear->rows; i++) y[i] += linear->bias[i];
}

/* y = x W^T + bias for `count` rows of x. `unpacked`: room for UNPACK_ROWS rows of the matrix a thread. */
static void multiply(const llm_model *m, const llm_linear *linear, const float *x, float *y, uint32_t count,
                     float *unpacked) {
    uint32_t rows = linear->rows, cols = linear->cols;
    if (linear->gemv && count == 1) linear->gemv(linear->gemv_user, x, y);
    else if (!linear->dense && linear->matrix >= 0 && count == 1) bitstack_gemv(m->source.stack, linear->matrix, x, y);
    else if (!linear->dense && linear->matrix >= 0) bitstack_gemm(m->source.stack, linear->matrix, x, cols, y, rows, count);
    else {
        size_t parts = (size_t)rows * cols * count > 1 << 16 ? (size_t)parts_of(m) : 1;
        product p = {linear, x, y, unpacked, count, (uint32_t)((rows + parts - 1) / parts + 31) / 32 * 32};
        share_out(m, multiply_rows, &p, parts);
        if (m->forget && !linear->dense) llm_tensor_forget(&m->source, linear->tensor);
    }
    if (linear->bias) add_bias(linear, y, count);
}

/* Products of up to LLM_LINEARS matrices with the same inputs: of a single vector with matrices of the stack in one call of the
 * threads. */
static void multiply_several(const llm_model *m, const llm_linear *const *linears, int several, const float *x, float *const *y, uint32_t count,
                             float *unpacked) {
    int matrices[LLM_LINEARS], together = count == 1;
    for (int i = 0; i < several; i++) {
        matrices[i] = linears[i]->matrix;
        together &= matrices[i] >= 0 && !linears[i]->dense && !linears[i]->gemv;
    }
    if (together) bitstack_gemv_several(m->source.stack, matrices, several, x, y);
    for (int i = 0; i < several; i++)
        if (!together) multiply(m, linears[i], x, y[i], count, unpacked);
        else if (linears[i]->bias) add_bias(linears[i], y[i], 1);
}

/* ---- running ---- */

/* Work on single tokens, `count` of them from `first` on; shared out where it is worth it. */
typedef void token_work(void *context, size_t first, size_t count);
typedef struct token_job {
    token_work *work;
    void *context;
    size_t count, step;
} token_job;

static void token_part(void *context, size_t part) {
    const token_job *j = context;
    size_t first = part * j->step, left = j->count > first ? j->count - first : 0;
    if (left) j->work(j->context, first, left < j->step ? left : j->step);
}

static void by_tokens(const llm_model *m, token_work *work, void *context, size_t count, size_t floats) {
    size_t parts = count * floats > 1 << 16 ? (size_t)parts_of(m) : 1;
    token_job j = {work, context, count, (count + parts - 1) / parts};
    share_out(m, token_part, &j, parts);
}

enum { STATE_PARTS = 13, STATE_ROPE = 11 };

/* Floats of the keys, or values, of one text in one layer. */
static size_t kept_floats(const llm_model *m, size_t positions) {
    return llm_kept_bytes(m->keep, m->config.kv_heads, m->config.head_width, positions) / sizeof(float);
}

/* Floats of each part of a state, in the order of llm_state_init. */
static void state_parts(const llm_model *m, size_t context, size_t batch, size_t texts, size_t parts[STATE_PARTS]) {
    const llm_config *c = &m->config;
    size_t kv = (size_t)c->kv_heads * c->head_width, q = (size_t)c->heads * c->head_width, threads = (size_t)parts_of(m);
    size_t width = c->width, hidden = c->hidden, widest = hidden > q ? hidden : q, kept = c->layers * texts * kept_floats(m, context);
    if (width > widest) widest = width;
    const size_t counts[STATE_PARTS] = {
        kept, kept, batch * width, batch * width, batch * q, batch * kv, batch * kv, batch * q, batch * hidden, batch * hidden,
        threads * llm_attention_room(c->head_width), context * (c->rope_width / 2) * 2, threads * UNPACK_ROWS * widest};
    memcpy(parts, counts, sizeof counts);
}

static uint32_t batch_of(uint32_t context, uint32_t batch) {
    if (!batch) batch = 256;
    return batch < context ? batch : context;
}

uint64_t llm_state_bytes(const llm_model *m, uint32_t context, uint32_t batch) {
    size_t parts[STATE_PARTS];
    uint64_t sum = 0;
    state_parts(m, context, batch_of(context, batch), 1, parts);
    for (int i = 0; i < STATE_PARTS; i++) sum += parts[i] * sizeof(float);
    return sum;
}

/* Whether rows of a matrix are unpacked while it is multiplied. */
static int unpacks(const llm_linear *linear) { return !linear->dense && linear->matrix < 0; }

uint64_t llm_state_used(const llm_model *m, uint32_t context, uint32_t positions, uint32_t batch) {
    size_t parts[STATE_PARTS], whole[STATE_PARTS];
    uint64_t sum = 0;
    int packed = unpacks(&m->head);
    for (uint32_t i = 0; i < m->config.layers * LLM_LINEARS; i++) packed |= unpacks(&m->layers[i / LLM_LINEARS].linears[i % LLM_LINEARS]);
    state_parts(m, positions, batch, 1, parts);
    state_parts(m, context, batch, 1, whole);
    parts[STATE_ROPE] = whole[STATE_ROPE];
    if (!packed) parts[STATE_PARTS - 1] = 0;
    for (int i = 0; i < STATE_PARTS; i++) sum += parts[i] * sizeof(float);
    return sum;
}

void llm_rope_table(const llm_model *m, uint32_t context, float *rope) {
    const double *frequencies = m->rope_long && context > m->rope_original ? m->rope_long : m->rope_frequencies;
    for (uint32_t p = 0; p < context; p++)
        for (uint32_t i = 0; i < m->config.rope_width / 2; i++) {
            double angle = p * frequencies[i];
            *rope++ = (float)(m->rope_magnitude * cos(angle));
            *rope++ = (float)(m->rope_magnitude * sin(angle));
        }
}

static int allocate(llm_state *s, const llm_model *m, uint32_t context, uint32_t batch, uint32_t texts) {
    size_t parts[STATE_PARTS];
    memset(s, 0, sizeof *s);
    s->context = context;
    s->batch = batch;
    s->texts = texts;
    float **at[STATE_PARTS] = {&s->keys, &s->values, &s->x, &s->normed, &s->q, &s->k, &s->v, &s->attended, &s->up, &s->gate,
                               &s->attending, &s->rope, &s->unpacked};
    state_parts(m, context, s->batch, texts ? texts : 1, parts);
    for (int i = 0; i < STATE_PARTS; i++)
        if (!(*at[i] = platform_aligned((parts[i] / 16 + 1) * 64))) {
            llm_state_free(s);
            return -1;
        }
    llm_rope_table(m, context, s->rope);
    return 0;
}

int llm_state_init(llm_state *s, const llm_model *m, uint32_t context, uint32_t batch) {
    return allocate(s, m, context, batch_of(context, batch), 0);
}

int llm_state_init_texts(llm_state *s, const llm_model *m, uint32_t context, uint32_t texts) {
    return allocate(s, m, context, texts, texts);
}

void llm_state_free(llm_state *s) {
    float *const all[STATE_PARTS] = {s->keys, s->values, s->x, s->normed, s->q, s->k, s->v, s->attended, s->up, s->gate,
                                     s->attending, s->rope, s->unpacked};
    for (int i = 0; i < STATE_PARTS; i++) platform_aligned_free(all[i]);
    memset(s, 0, sizeof *s);
}

void llm_rms_norm(const llm_config *c, const float *weight, const float *x, size_t count, uint32_t size, float *out) {
    for (size_t t = 0; t < count; t++, x += size, out += size) {
        double sum = 0;
        for (uint32_t i = 0; i < size; i++) sum += (double)x[i] * (double)x[i];
        float scale = (float)(1 / sqrt(sum / size + (double)c->epsilon));
        for (uint32_t i = 0; i < size; i++) out[i] = x[i] * scale * weight[i];
    }
}

void llm_rotate(const llm_config *c, const float *rope, float *x, uint32_t heads) {
    uint32_t pairs = c->rope_width / 2, step = c->rope_halves ? 1 : 2, other = c->rope_halves ? pairs : 1;
    for (uint32_t h = 0; h < heads; h++, x += c->head_width)
        for (uint32_t i = 0; i < pairs; i++) {
            float *pair = x + (size_t)i * step, a = pair[0], b = pair[other];
            pair[0] = a * rope[2 * i] - b * rope[2 * i + 1];
            pair[other] = a * rope[2 * i + 1] + b * rope[2 * i];
        }
}

static void observed(const llm_state *s, uint32_t layer, int input, const float *x, uint32_t count, uint32_t cols) {
    if (s->observe) s->observe(s->observe_user, layer, input, x, count, cols);
}

/* One layer's new tokens. */
typedef struct attending {
    const llm_model *m;
    const llm_layer *layer;
    const llm_state *s;
    llm_attention_blocks blocks; /* of the first text */
    size_t count, pieces;        /* tokens of a text; pieces of a text's work */
    atomic_size_t next;          /* piece, of all texts */
} attending;

static llm_kept kept_of(const attending *a, size_t text) {
    llm_kept kept = a->blocks.kept;
    size_t bytes = kept_floats(a->m, a->s->context) * sizeof(float) * text;
    kept.keys += bytes, kept.values += bytes;
    return kept;
}

/* Queries and keys turn, and what is to be looked at from now on is kept. */
static void turn_tokens(void *context, size_t first, size_t count) {
    const attending *a = context;
    const llm_config *c = &a->m->config;
    size_t kv = (size_t)c->kv_heads * c->head_width, q = (size_t)c->heads * c->head_width;
    float *queries = a->s->q + first * q, *keys = a->s->k + first * kv;
    if (a->layer->q_norm) llm_rms_norm(c, a->layer->q_norm, queries, count * c->heads, c->head_width, queries);
    if (a->layer->k_norm) llm_rms_norm(c, a->layer->k_norm, keys, count * c->kv_heads, c->head_width, keys);
    for (size_t t = 0; t < count; t++) {
        size_t text = a->s->texts ? first + t : 0, position = a->s->position + (a->s->texts ? 0 : first + t);
        const float *rope = a->s->rope + position * (c->rope_width / 2) * 2;
        llm_kept kept = kept_of(a, text);
        llm_rotate(c, rope, queries + t * q, c->heads);
        llm_rotate(c, rope, keys + t * kv, c->kv_heads);
        llm_keep(&kept, position, 1, keys + t * kv, a->s->v + (first + t) * kv);
    }
}

/* A thread takes pieces until there are none: they are not equally large. */
static void attend_pieces(void *context, size_t part) {
    attending *a = context;
    size_t texts = a->s->texts ? a->s->texts : 1, i;
    float *room = a->s->attending + part * llm_attention_room(a->m->config.head_width);
    while ((i = atomic_fetch_add(&a->next, 1)) < texts * a->pieces) {
        size_t text = i / a->pieces, at = text * a->blocks.stride;
        llm_attention_blocks blocks = a->blocks;
        blocks.kept = kept_of(a, text);
        llm_attention_piece(&blocks, i % a->pieces, a->count, a->s->q + at, a->s->attended + at, room);
    }
}

/* Of `count` tokens: of one text, or, all at one position, one of each of several. */
static void attention(const llm_model *m, llm_state *s, uint32_t l, uint32_t count) {
    const llm_config *c = &m->config;
    const llm_layer *layer = &m->layers[l];
    size_t kv = (size_t)c->kv_heads * c->head_width, q = (size_t)c->heads * c->head_width;
    size_t layer_floats = kept_floats(m, s->context) * (s->texts ? s->texts : 1);
    unsigned char *keys = (unsigned char *)(s->keys + l * layer_floats), *values = (unsigned char *)(s->values + l * layer_floats);
    attending a = {m, layer, s, {{keys, values, m->keep, c->kv_heads, c->head_width}, c->heads / c->kv_heads, s->position,
                   l >= c->window_first ? c->window : 0, q, (float)(1 / sqrt((double)c->head_width))}, s->texts ? 1 : count, 0, 0};
    multiply_several(m, (const llm_linear *const[]){&layer->linears[LLM_Q], &layer->linears[LLM_K], &layer->linears[LLM_V]}, 3, s->normed,
                     (float *const[]){s->q, s->k, s->v}, count, s->unpacked);
    by_tokens(m, turn_tokens, &a, count, q + 2 * kv);
    a.pieces = llm_attention_pieces(&a.blocks, a.count);
    share_out(m, attend_pieces, &a, (size_t)count * q * (s->position + count / 2) > 1 << 16 ? (size_t)parts_of(m) : 1);
}

void llm_embed(const llm_model *m, const uint32_t *ids, uint32_t count, float *x) {
    for (uint32_t t = 0; t < count; t++) llm_linear_rows(m, &m->embedding, ids[t], 1, x + (size_t)t * m->config.width);
}

typedef struct streaming {
    const llm_config *c;
    const float *weight, *more;
    float *x, *out;
} streaming;

static void norm_tokens(void *context, size_t first, size_t count) {
    const streaming *a = context;
    size_t at = first * a->c->width;
    llm_rms_norm(a->c, a->weight, a->x + at, count, a->c->width, a->out + at);
}

static void add_tokens(void *context, size_t first, size_t count) {
    const streaming *a = context;
    size_t width = a->c->width;
    for (size_t i = first * width; i < (first + count) * width; i++) a->x[i] += a->more[i];
}

static void gate_tokens(void *context, size_t first, size_t count) {
    const streaming *a = context;
    size_t hidden = a->c->hidden;
    llm_swiglu(a->out + first * hidden, a->more + first * hidden, count * hidden);
}

static void norm(const llm_model *m, const float *weight, float *x, uint32_t count, float *out) {
    streaming a = {&m->config, weight, NULL, x, out};
    by_tokens(m, norm_tokens, &a, count, m->config.width);
}

static void add(const llm_model *m, float *x, const float *more, uint32_t count) {
    streaming a = {&m->config, NULL, more, x, NULL};
    by_tokens(m, add_tokens, &a, count, m->config.width);
}

void llm_layer_forward(const llm_model *m, llm_state *s, uint32_t l, float *x, uint32_t count) {
    const llm_config *c = &m->config;
    const llm_layer *layer = &m->layers[l];

    norm(m, layer->attention_norm, x, count, s->normed);
    observed(s, l, LLM_IN_ATTENTION, s->normed, count, c->width);
    attention(m, s, l, count);
    observed(s, l, LLM_IN_OUTPUT, s->attended, count, c->heads * c->head_width);
    multiply(m, &layer->linears[LLM_O], s->attended, s->normed, count, s->unpacked);
    add(m, x, s->normed, count);

    norm(m, layer->hidden_norm, x, count, s->normed);
    observed(s, l, LLM_IN_HIDDEN, s->normed, count, c->width);
    multiply_several(m, (const llm_linear *const[]){&layer->linears[LLM_GATE], &layer->linears[LLM_UP]}, 2, s->normed,
                     (float *const[]){s->gate, s->up}, count, s->unpacked);
    streaming a = {c, NULL, s->gate, NULL, s->up};
    by_tokens(m, gate_tokens, &a, count, c->hidden);
    observed(s, l, LLM_IN_DOWN, s->up, count, c->hidden);
    multiply(m, &layer->linears[LLM_DOWN], s->up, s->normed, count, s->unpacked);
    add(m, x, s->normed, count);
}

void llm_final_norm(const llm_model *m, float *x, uint32_t count) { norm(m, m->final_norm, x, count, x); }

void llm_forward(const llm_model *m, llm_state *s, const uint32_t *ids, uint32_t count) {
    llm_embed(m, ids, count, s->x);
    for (uint32_t l = 0; l < m->config.layers; l++) llm_layer_forward(m, s, l, s->x, count);
    llm_final_norm(m, s->x, count);
    s->position += s->texts ? 1 : count;
}

void llm_logits(const llm_model *m, llm_state *s, uint32_t first, uint32_t count, float *logits) {
    multiply(m, &m->head, s->x + (size_t)first * m->config.width, logits, count, s->unpacked);
}
