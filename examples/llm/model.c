#include "model.h"
#include "dense.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const llm_linear_names[LLM_LINEARS] = {"attn_q", "attn_k", "attn_v", "attn_output",
                                                   "ffn_gate", "ffn_up", "ffn_down"};
const int llm_linear_inputs[LLM_LINEARS] = {LLM_IN_ATTENTION, LLM_IN_ATTENTION, LLM_IN_ATTENTION, LLM_IN_OUTPUT,
                                            LLM_IN_HIDDEN, LLM_IN_HIDDEN, LLM_IN_DOWN};

enum { UNPACK_ROWS = 8 }; /* of a packed matrix at a time */

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

static int load_config(llm_config *c, const llm_source *s, llm_error *error) {
    llm_string architecture = llm_text(s, "general.architecture");
    const llm_meta *tokens = llm_find_meta(s, "tokenizer.ggml.tokens");
    double vocabulary = tokens ? (double)tokens->count : 0;
    if (!llm_string_is(architecture, "llama"))
        return llm_fail(error, "%s: expected general.architecture to be \"llama\", found \"%.*s\"", s->path,
                        (int)(architecture.bytes < 40 ? architecture.bytes : 40),
                        architecture.text ? architecture.text : "");
    if (whole(s, "llama.embedding_length", 0, 1, 1 << 20, &c->width, error) ||
        whole(s, "llama.vocab_size", vocabulary, 1, 1 << 24, &c->vocabulary, error) ||
        whole(s, "llama.context_length", 2048, 1, 1 << 24, &c->context, error) ||
        whole(s, "llama.block_count", 0, 1, 4096, &c->layers, error) ||
        whole(s, "llama.feed_forward_length", 0, 1, 1 << 22, &c->hidden, error) ||
        whole(s, "llama.attention.head_count", 0, 1, 1 << 16, &c->heads, error) ||
        whole(s, "llama.attention.head_count_kv", c->heads, 1, c->heads, &c->kv_heads, error) ||
        whole(s, "llama.attention.key_length", c->width / c->heads, 1, 1 << 16, &c->head_width, error) ||
        whole(s, "llama.rope.dimension_count", c->head_width, 0, c->head_width, &c->rope_width, error))
        return -1;
    if (c->heads % c->kv_heads)
        return llm_fail(error, "%s: expected llama.attention.head_count to be a multiple of head_count_kv", s->path);
    if ((uint64_t)c->heads * c->head_width > 1 << 24)
        return llm_fail(error, "%s: expected attention of at most 16777216 channels", s->path);
    if (llm_find_tensor(s, "rope_freqs.weight") || llm_find_meta(s, "llama.rope.scaling.type"))
        return llm_fail(error, "%s: expected plain rotary positions; RoPE scaling is not supported yet", s->path);
    c->epsilon = (float)llm_number(s, "llama.attention.layer_norm_rms_epsilon", 1e-5);
    c->rope_base = (float)llm_number(s, "llama.rope.freq_base", 10000);
    if (!(c->epsilon >= 0) || !(c->rope_base > 0))
        return llm_fail(error, "%s: expected llama.attention.layer_norm_rms_epsilon and llama.rope.freq_base above 0",
                        s->path);
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

static int load_linear(llm_linear *linear, const llm_source *s, const char *name, uint32_t rows, uint32_t cols,
                       llm_error *error) {
    bitstack_matrix matrix;
    linear->rows = rows;
    linear->cols = cols;
    linear->matrix = s->stack ? bitstack_find_matrix(s->stack, name) : -1;
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
            if (linear->tensor->type == LLM_TYPE_F32 && (uintptr_t)linear->tensor->data % 4 == 0)
                linear->dense = (const float *)(const void *)linear->tensor->data;
            else total += (uint64_t)linear->rows * linear->cols * sizeof(float);
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
        }
    });
    return 0;
}

int llm_model_load(llm_model *m, llm_source source, const llm_model_options *options, llm_error *error) {
    llm_config *c = &m->config;
    char name[64];
    memset(m, 0, sizeof *m);
    m->source = source;
    const llm_source *s = &m->source;
    if (load_config(c, s, error) != 0) goto failed;
    m->layers = calloc(c->layers, sizeof *m->layers);
    if (!m->layers) {
        llm_fail(error, "%s: out of memory", s->path);
        goto failed;
    }
    uint32_t q = c->heads * c->head_width, kv = c->kv_heads * c->head_width;
    const uint32_t rows[LLM_LINEARS] = {q, kv, kv, c->width, c->hidden, c->hidden, c->width};
    const uint32_t cols[LLM_LINEARS] = {c->width, c->width, c->width, q, c->width, c->width, c->hidden};
    for (uint32_t l = 0; l < c->layers; l++) {
        llm_layer *layer = &m->layers[l];
        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", l);
        if (!(layer->attention_norm = load_vector(s, name, c->width, error))) goto failed;
        snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", l);
        if (!(layer->hidden_norm = load_vector(s, name, c->width, error))) goto failed;
        for (int i = 0; i < LLM_LINEARS; i++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, llm_linear_names[i]);
            if (load_linear(&layer->linears[i], s, name, rows[i], cols[i], error) != 0) goto failed;
        }
    }
    if (!(m->final_norm = load_vector(s, "output_norm.weight", c->width, error))) goto failed;
    if (load_linear(&m->embedding, s, "token_embd.weight", c->vocabulary, c->width, error) != 0) goto failed;
    int own = llm_find_tensor(s, "output.weight") || (s->stack && bitstack_find_matrix(s->stack, "output.weight") >= 0);
    m->head = m->embedding;
    if (own && load_linear(&m->head, s, "output.weight", c->vocabulary, c->width, error) != 0) goto failed;
    if (unpack(m, options && options->unpack_bytes ? options->unpack_bytes : (uint64_t)512 << 20, error) == 0) return 0;
failed:
    llm_model_close(m);
    return -1;
}

int llm_model_open(llm_model *model, const char *path, const llm_model_options *options, llm_error *error) {
    llm_source source;
    memset(model, 0, sizeof *model);
    if (llm_source_open(&source, path, options ? &options->stack : NULL, error) != 0) return -1;
    return llm_model_load(model, source, options, error);
}

void llm_model_close(llm_model *m) {
    if (m->layers) {
        EACH_LINEAR(m, linear, free(linear->owned););
        for (uint32_t l = 0; l < m->config.layers; l++) {
            free(m->layers[l].attention_norm);
            free(m->layers[l].hidden_norm);
        }
    }
    free(m->layers);
    free(m->final_norm);
    llm_source_close(&m->source);
    memset(m, 0, sizeof *m);
}

/* ---- matrices ---- */

void llm_linear_rows(const llm_model *m, const llm_linear *linear, uint64_t first, uint64_t count, float *out) {
    if (linear->dense) memcpy(out, linear->dense + first * linear->cols, count * linear->cols * sizeof *out);
    else if (linear->matrix >= 0)
        bitstack_dequantize_rows(m->source.stack, linear->matrix, (uint32_t)first, (uint32_t)count, out, linear->cols);
    else llm_tensor_read(linear->tensor, first, count, out);
}

/* y = x W^T for `count` rows of x. `unpacked`: room for UNPACK_ROWS rows of the matrix. */
static void multiply(const llm_model *m, const llm_linear *linear, const float *x, float *y, uint32_t count,
                     float *unpacked) {
    uint32_t rows = linear->rows, cols = linear->cols;
    if (linear->gemv && count == 1) linear->gemv(linear->gemv_user, x, y);
    else if (linear->dense) llm_gemm(linear->dense, rows, cols, x, cols, y, rows, count);
    else if (linear->matrix >= 0 && count == 1) bitstack_gemv(m->source.stack, linear->matrix, x, y);
    else if (linear->matrix >= 0) bitstack_gemm(m->source.stack, linear->matrix, x, cols, y, rows, count);
    else
        for (uint32_t i = 0; i < rows; i += UNPACK_ROWS) {
            uint32_t some = rows - i < UNPACK_ROWS ? rows - i : UNPACK_ROWS;
            llm_tensor_read(linear->tensor, i, some, unpacked);
            llm_gemm(unpacked, some, cols, x, cols, y + i, rows, count);
        }
}

/* ---- running ---- */

int llm_state_init(llm_state *s, const llm_model *m, uint32_t context, uint32_t batch) {
    const llm_config *c = &m->config;
    size_t kv = (size_t)c->kv_heads * c->head_width, q = (size_t)c->heads * c->head_width;
    size_t widest = c->hidden > q ? c->hidden : q;
    if (c->width > widest) widest = c->width;
    memset(s, 0, sizeof *s);
    s->context = context;
    s->batch = batch ? batch : 256;
    if (s->batch > context) s->batch = context;
    struct { float **at; size_t count; } parts[] = {
        {&s->keys, c->layers * kv * context}, {&s->values, c->layers * kv * context}, {&s->x, s->batch * (size_t)c->width},
        {&s->normed, s->batch * (size_t)c->width}, {&s->q, s->batch * q}, {&s->attended, s->batch * q},
        {&s->up, s->batch * (size_t)c->hidden}, {&s->gate, s->batch * (size_t)c->hidden}, {&s->scores, context},
        {&s->rope, (size_t)context * (c->rope_width / 2) * 2}, {&s->unpacked, UNPACK_ROWS * widest},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!(*parts[i].at = malloc((parts[i].count + 1) * sizeof(float)))) {
            llm_state_free(s);
            return -1;
        }
    float *rope = s->rope;
    for (uint32_t p = 0; p < context; p++)
        for (uint32_t i = 0; i < c->rope_width / 2; i++) {
            double angle = p * pow((double)c->rope_base, -2.0 * i / c->rope_width);
            *rope++ = (float)cos(angle);
            *rope++ = (float)sin(angle);
        }
    return 0;
}

void llm_state_free(llm_state *s) {
    free(s->keys), free(s->values), free(s->x), free(s->normed), free(s->q), free(s->attended);
    free(s->up), free(s->gate), free(s->scores), free(s->rope), free(s->unpacked);
    memset(s, 0, sizeof *s);
}

static void rms_norm(const llm_config *c, const float *weight, const float *x, uint32_t count, float *out) {
    for (uint32_t t = 0; t < count; t++, x += c->width, out += c->width) {
        double sum = 0;
        for (uint32_t i = 0; i < c->width; i++) sum += (double)x[i] * (double)x[i];
        float scale = (float)(1 / sqrt(sum / c->width + (double)c->epsilon));
        for (uint32_t i = 0; i < c->width; i++) out[i] = x[i] * scale * weight[i];
    }
}

/* Turns neighbouring pairs of channels (GGUF permutes q and k of llama models to this order). */
static void rotate(const llm_config *c, const float *rope, float *x, uint32_t heads) {
    for (uint32_t h = 0; h < heads; h++, x += c->head_width)
        for (uint32_t i = 0; i + 1 < c->rope_width; i += 2) {
            float a = x[i], b = x[i + 1];
            x[i] = a * rope[i] - b * rope[i + 1];
            x[i + 1] = a * rope[i + 1] + b * rope[i];
        }
}

static void observed(const llm_state *s, uint32_t layer, int input, const float *x, uint32_t count, uint32_t cols) {
    if (s->observe) s->observe(s->observe_user, layer, input, x, count, cols);
}

static void attention(const llm_model *m, llm_state *s, uint32_t l, uint32_t count) {
    const llm_config *c = &m->config;
    const llm_linear *linears = m->layers[l].linears;
    size_t kv = (size_t)c->kv_heads * c->head_width, q = (size_t)c->heads * c->head_width;
    float *keys = s->keys + l * kv * s->context, *values = s->values + l * kv * s->context;
    float scale = (float)(1 / sqrt((double)c->head_width));
    multiply(m, &linears[LLM_Q], s->normed, s->q, count, s->unpacked);
    multiply(m, &linears[LLM_K], s->normed, keys + s->position * kv, count, s->unpacked);
    multiply(m, &linears[LLM_V], s->normed, values + s->position * kv, count, s->unpacked);
    for (uint32_t t = 0; t < count; t++) {
        const float *rope = s->rope + (size_t)(s->position + t) * (c->rope_width / 2) * 2;
        rotate(c, rope, s->q + t * q, c->heads);
        rotate(c, rope, keys + (s->position + t) * kv, c->kv_heads);
    }
    for (uint32_t t = 0; t < count; t++)
        for (uint32_t h = 0; h < c->heads; h++) {
            size_t to = t * q + (size_t)h * c->head_width, from = (size_t)(h / (c->heads / c->kv_heads)) * c->head_width;
            llm_attend(s->attended + to, s->q + to, keys + from, values + from, c->head_width, kv,
                       s->position + t + 1, scale, s->scores);
        }
}

void llm_embed(const llm_model *m, const uint32_t *ids, uint32_t count, float *x) {
    for (uint32_t t = 0; t < count; t++) llm_linear_rows(m, &m->embedding, ids[t], 1, x + (size_t)t * m->config.width);
}

void llm_layer_forward(const llm_model *m, llm_state *s, uint32_t l, float *x, uint32_t count) {
    const llm_config *c = &m->config;
    const llm_layer *layer = &m->layers[l];
    size_t all = (size_t)count * c->width, hidden = (size_t)count * c->hidden;

    rms_norm(c, layer->attention_norm, x, count, s->normed);
    observed(s, l, LLM_IN_ATTENTION, s->normed, count, c->width);
    attention(m, s, l, count);
    observed(s, l, LLM_IN_OUTPUT, s->attended, count, c->heads * c->head_width);
    multiply(m, &layer->linears[LLM_O], s->attended, s->normed, count, s->unpacked);
    for (size_t i = 0; i < all; i++) x[i] += s->normed[i];

    rms_norm(c, layer->hidden_norm, x, count, s->normed);
    observed(s, l, LLM_IN_HIDDEN, s->normed, count, c->width);
    multiply(m, &layer->linears[LLM_GATE], s->normed, s->gate, count, s->unpacked);
    multiply(m, &layer->linears[LLM_UP], s->normed, s->up, count, s->unpacked);
    for (size_t i = 0; i < hidden; i++) s->up[i] *= s->gate[i] / (1 + expf(-s->gate[i]));
    observed(s, l, LLM_IN_DOWN, s->up, count, c->hidden);
    multiply(m, &layer->linears[LLM_DOWN], s->up, s->normed, count, s->unpacked);
    for (size_t i = 0; i < all; i++) x[i] += s->normed[i];
}

void llm_final_norm(const llm_model *m, float *x, uint32_t count) { rms_norm(&m->config, m->final_norm, x, count, x); }

void llm_forward(const llm_model *m, llm_state *s, const uint32_t *ids, uint32_t count) {
    llm_embed(m, ids, count, s->x);
    for (uint32_t l = 0; l < m->config.layers; l++) llm_layer_forward(m, s, l, s->x, count);
    llm_final_norm(m, s->x, count);
    s->position += count;
}

void llm_logits(const llm_model *m, llm_state *s, uint32_t first, uint32_t count, float *logits) {
    multiply(m, &m->head, s->x + (size_t)first * m->config.width, logits, count, s->unpacked);
}
