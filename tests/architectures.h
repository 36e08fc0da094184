/* architectures.h - models of every architecture that is read, with random weights: written as a GGUF file and as a
 * folder with safetensors, and computed by a plain reference in double precision from their published definition. */
#ifndef ARCHITECTURES_H
#define ARCHITECTURES_H

#include "test.h"
#include "make_gguf.h"
#include "../bitstack.h"

enum { LAYERS = 2, VOCABULARY = 432, TOKENS = 24, WIDTH = 48, HIDDEN = 80 };
enum { NONE, LINEAR, LLAMA3, YARN, DYNAMIC, LONGER, SHORTER }; /* LongRoPE: trained on fewer positions than TOKENS, or on more */

typedef struct architecture {
    const char *sentence, *gguf, *hf; /* general.architecture, model_type */
    unsigned heads, kv_heads, head_width;
    unsigned window, window_first;
    int scaling, tied, qkv_bias, all_bias, head_norms;
    const char *dtype; /* of the safetensors */
    int shards;
} architecture;

static const architecture architectures[] = {
    {"llama: grouped queries, own head", "llama", "llama", 6, 2, 8, 0, 0, NONE, 0, 0, 0, 0, "F32", 1},
    {"llama 3.1: scaled rotary frequencies, tied head", "llama", "llama", 4, 1, 12, 0, 0, LLAMA3, 1, 0, 0, 0, "BF16", 3},
    {"llama: linear scaling, biases everywhere", "llama", "llama", 4, 4, 12, 0, 0, LINEAR, 0, 1, 1, 0, "F16", 1},
    {"llama: dynamic scaling is none within the context of the training", "llama", "llama", 4, 2, 12, 0, 0, DYNAMIC, 0, 0, 0, 0, "F32", 1},
    {"qwen2: YaRN", "qwen2", "qwen2", 4, 2, 16, 0, 0, YARN, 0, 1, 0, 0, "F32", 1},
    {"mistral: a sliding window, heads wider than the model", "llama", "mistral", 4, 2, 20, 5, 0, NONE, 0, 0, 0, 0, "BF16", 2},
    {"qwen2: biases of queries, keys and values, tied head", "qwen2", "qwen2", 6, 3, 8, 0, 0, NONE, 1, 1, 0, 0, "F32", 1},
    {"qwen2: a window from the second layer on", "qwen2", "qwen2", 4, 2, 12, 3, 1, NONE, 0, 1, 0, 0, "F16", 1},
    {"qwen3: normalised queries and keys, own head width", "qwen3", "qwen3", 4, 2, 32, 0, 0, NONE, 1, 0, 0, 1, "BF16", 1},
    {"llama: LongRoPE beyond the context of its training", "llama", "llama", 4, 2, 12, 0, 0, LONGER, 0, 0, 0, 0, "F32", 1},
    {"qwen3: LongRoPE within the context of its training", "qwen3", "qwen3", 4, 2, 16, 0, 0, SHORTER, 0, 0, 0, 1, "BF16", 1},
};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };
static const double BASE = 500000, FACTOR = 4, EPSILON = 1e-5;

/* ---- weights, in the layout of the safetensors ---- */

typedef struct matrix {
    char name[80];
    unsigned rows, cols; /* rows 1 and one_dimension: a vector */
    int one_dimension;
    float *values;
} matrix;

static matrix matrices[64];
static int matrix_count;
static uint64_t seed;

/* To what the type holds. */
static float rounded(float v, const char *dtype) {
    int exponent;
    float part = frexpf(v, &exponent);
    if (strcmp(dtype, "BF16") == 0) return ldexpf(truncf(part * 256), exponent - 8);
    return strcmp(dtype, "F16") == 0 ? bitstack_f16_to_f32(bitstack_f32_to_f16(v)) : v;
}

static void add(const char *dtype, unsigned rows, unsigned cols, int one_dimension, float mean, float spread, const char *format, int layer, const char *part) {
    matrix *m = &matrices[matrix_count++];
    if (layer >= 0) snprintf(m->name, sizeof m->name, format, layer, part);
    else snprintf(m->name, sizeof m->name, "%s", format);
    m->rows = rows, m->cols = cols, m->one_dimension = one_dimension;
    m->values = (float *)malloc((size_t)rows * cols * sizeof(float));
    for (unsigned i = 0; i < rows * cols; i++) m->values[i] = rounded(mean + spread * test_normal(&seed), dtype);
}

static const char *const parts[7] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};

static void make_weights(const architecture *a) {
    unsigned q = a->heads * a->head_width, kv = a->kv_heads * a->head_width;
    const unsigned rows[7] = {q, kv, kv, WIDTH, HIDDEN, HIDDEN, WIDTH}, cols[7] = {WIDTH, WIDTH, WIDTH, q, WIDTH, WIDTH, HIDDEN};
    while (matrix_count) free(matrices[--matrix_count].values);
    add(a->dtype, VOCABULARY, WIDTH, 0, 0, 1, "model.embed_tokens.weight", -1, NULL);
    if (!a->tied) add(a->dtype, VOCABULARY, WIDTH, 0, 0, 0.2f, "lm_head.weight", -1, NULL);
    add(a->dtype, 1, WIDTH, 1, 1, 0.2f, "model.norm.weight", -1, NULL);
    for (int l = 0; l < LAYERS; l++) {
        for (int p = 0; p < 7; p++) {
            add(a->dtype, rows[p], cols[p], 0, 0, (p < 2 ? 2.5f : 1.2f) / sqrtf((float)cols[p]), "model.layers.%d.%s.weight", l, parts[p]);
            if (p < 3 ? a->qkv_bias : a->all_bias) add(a->dtype, 1, rows[p], 1, 0, 0.5f, "model.layers.%d.%s.bias", l, parts[p]);
        }
        add(a->dtype, 1, WIDTH, 1, 1, 0.2f, "model.layers.%d.%s.weight", l, "input_layernorm");
        add(a->dtype, 1, WIDTH, 1, 1, 0.2f, "model.layers.%d.%s.weight", l, "post_attention_layernorm");
        for (int k = 0; k < 2 && a->head_norms; k++)
            add(a->dtype, 1, a->head_width, 1, 1.2f, 0.3f, "model.layers.%d.%s.weight", l, k ? "self_attn.k_norm" : "self_attn.q_norm");
    }
}

static const matrix *find(const char *format, int layer, const char *part) {
    char name[80];
    snprintf(name, sizeof name, format, layer, part);
    for (int i = 0; i < matrix_count; i++)
        if (strcmp(matrices[i].name, name) == 0) return &matrices[i];
    return NULL;
}
static const matrix *weight(int layer, const char *part) { return find("model.layers.%d.%s.weight", layer, part); }

/* ---- the reference ---- */

/* YaRN's ramp: 1 where the pair turns less than once in 16 positions, 0 from 4 times on, by the channel's number. */
static double slowed(const architecture *a, unsigned i) {
    const double pi = 3.141592653589793, first = 16, fast = 4, slow = 1;
    double at[2] = {fast, slow}, ramp;
    for (int k = 0; k < 2; k++) at[k] = a->head_width / 2.0 * log(first / (2 * pi * at[k])) / log(BASE);
    at[0] = floor(at[0]) > 0 ? floor(at[0]) : 0, at[1] = ceil(at[1]);
    if (at[1] > a->head_width - 1) at[1] = a->head_width - 1;
    ramp = (i - at[0]) / (at[1] - at[0] > 0.001 ? at[1] - at[0] : 0.001);
    return ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
}
/* LongRoPE: what a pair's frequency is divided by, and the context of the training (a context of 64 is twice or four times
 * that). */
static double long_factor(unsigned i) { return 1.5 + 0.75 * i; }
static double short_factor(unsigned i) { return 1 + 0.125 * i; }
static unsigned original(const architecture *a) { return a->scaling == LONGER ? 16 : 32; }
/* What queries and keys are multiplied by. */
static double magnitude(const architecture *a) {
    if (a->scaling == LONGER || a->scaling == SHORTER) return sqrt(1 + log(64.0 / original(a)) / log(original(a)));
    return a->scaling == YARN ? 0.1 * log(FACTOR) + 1 : 1;
}

static double frequency(const architecture *a, unsigned i) {
    const double pi = 3.141592653589793, low = 1, high = 4, first = 32;
    double f = pow(BASE, -2.0 * i / a->head_width), wavelength = 2 * pi / f;
    if (a->scaling == LONGER) return f / long_factor(i);
    if (a->scaling == SHORTER) return f / short_factor(i);
    if (a->scaling == LINEAR) return f / FACTOR;
    if (a->scaling == YARN) return f * (1 - slowed(a, i)) + f / FACTOR * slowed(a, i);
    if (a->scaling == NONE || a->scaling == DYNAMIC || wavelength < first / high) return f;
    if (wavelength > first / low) return f / FACTOR;
    double smooth = (first / wavelength - low) / (high - low);
    return (1 - smooth) * f / FACTOR + smooth * f;
}

static void norm(const matrix *w, const double *x, double *out, unsigned size) {
    double sum = 0;
    for (unsigned i = 0; i < size; i++) sum += x[i] * x[i];
    for (unsigned i = 0; i < size; i++) out[i] = x[i] / sqrt(sum / size + EPSILON) * (double)w->values[i];
}

/* One output of one matrix (of `part` 0 to 6 of a layer, 7: the head, 8: the looked-up embedding), of one token, is off
 * by so much: for derivatives. */
static struct { int layer, part, token; unsigned row; double by; } nudge = {-1, 0, 0, 0, 0};
static double nudged(int layer, int part, int token, unsigned row) {
    return nudge.layer == layer && nudge.part == part && nudge.token == token && nudge.row == row ? nudge.by : 0;
}

static void linear(int layer, int which, int token, const double *x, double *y) {
    const char *part = parts[which];
    const matrix *w = weight(layer, part), *bias = find("model.layers.%d.%s.bias", layer, part);
    for (unsigned i = 0; i < w->rows; i++) {
        y[i] = bias ? (double)bias->values[i] : 0;
        for (unsigned j = 0; j < w->cols; j++) y[i] += (double)w->values[i * w->cols + j] * x[j];
        y[i] += nudged(layer, which, token, i);
    }
}

/* Norms, if any, and turns of one vector of heads at a position: channel i with channel i + half. */
static void turn(const architecture *a, const matrix *w, double *x, unsigned heads, int position) {
    for (unsigned h = 0; h < heads; h++, x += a->head_width) {
        if (w) norm(w, x, x, a->head_width);
        for (unsigned i = 0; i < a->head_width / 2; i++) {
            double angle = position * frequency(a, i), u = x[i], v = x[i + a->head_width / 2];
            x[i] = magnitude(a) * (u * cos(angle) - v * sin(angle));
            x[i + a->head_width / 2] = magnitude(a) * (v * cos(angle) + u * sin(angle));
        }
    }
}

static void reference(const architecture *a, const uint32_t *ids, double *logits) {
    static double x[TOKENS][WIDTH], n[WIDTH], q[TOKENS][256], k[TOKENS][256], v[TOKENS][256], attended[256], up[HIDDEN], gate[HIDDEN], out[WIDTH];
    const matrix *embedding = find("model.embed_tokens.weight", 0, ""), *head = a->tied ? embedding : find("lm_head.weight", 0, "");
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < WIDTH; i++) x[t][i] = (double)embedding->values[ids[t] * WIDTH + (uint32_t)i] + nudged(0, 8, t, (unsigned)i);
    for (int l = 0; l < LAYERS; l++) {
        int window = a->window && l >= (int)a->window_first ? (int)a->window : TOKENS;
        for (int t = 0; t < TOKENS; t++) {
            norm(weight(l, "input_layernorm"), x[t], n, WIDTH);
            linear(l, 0, t, n, q[t]), linear(l, 1, t, n, k[t]), linear(l, 2, t, n, v[t]);
            turn(a, weight(l, "self_attn.q_norm"), q[t], a->heads, t);
            turn(a, weight(l, "self_attn.k_norm"), k[t], a->kv_heads, t);
        }
        for (int t = 0; t < TOKENS; t++) {
            for (unsigned h = 0; h < a->heads; h++) {
                unsigned at = h * a->head_width, from = h / (a->heads / a->kv_heads) * a->head_width;
                double scores[TOKENS], total = 0;
                for (unsigned i = 0; i < a->head_width; i++) attended[at + i] = 0;
                for (int s = t; s >= 0 && t - s < window; s--) {
                    double dot = 0;
                    for (unsigned i = 0; i < a->head_width; i++) dot += q[t][at + i] * k[s][from + i];
                    total += scores[s] = exp(dot / sqrt(a->head_width));
                }
                for (int s = t; s >= 0 && t - s < window; s--)
                    for (unsigned i = 0; i < a->head_width; i++) attended[at + i] += scores[s] / total * v[s][from + i];
            }
            linear(l, 3, t, attended, out);
            for (int i = 0; i < WIDTH; i++) x[t][i] += out[i];
            norm(weight(l, "post_attention_layernorm"), x[t], n, WIDTH);
            linear(l, 4, t, n, gate), linear(l, 5, t, n, up);
            for (int i = 0; i < HIDDEN; i++) up[i] *= gate[i] / (1 + exp(-gate[i]));
            linear(l, 6, t, up, out);
            for (int i = 0; i < WIDTH; i++) x[t][i] += out[i];
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        norm(find("model.norm.weight", 0, ""), x[t], n, WIDTH);
        for (int i = 0; i < VOCABULARY; i++) {
            logits[t * VOCABULARY + i] = nudged(LAYERS, 7, t, (unsigned)i);
            for (int j = 0; j < WIDTH; j++) logits[t * VOCABULARY + i] += (double)head->values[i * WIDTH + j] * n[j];
        }
    }
}

/* ---- files ---- */

/* GGUF's llama files have the rows of q and k in another order: pairs next to each other. Which of ours row r is. */
static unsigned row_of(const architecture *a, int permuted, unsigned r) {
    unsigned half = a->head_width / 2, h = r / a->head_width, c = r % a->head_width;
    return permuted && strcmp(a->gguf, "llama") == 0 ? h * a->head_width + c % 2 * half + c / 2 : r;
}

static void write_gguf(const architecture *a, gguf_maker *g) {
    static const char *const theirs[] = {"model.embed_tokens", "lm_head", "model.norm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"};
    static const char *const ours[] = {"token_embd", "output", "output_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
        "attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"};
    char key[96];
    uint64_t shape[2];
    const int two = a->scaling == LONGER || a->scaling == SHORTER;
    float factors[2][64];
    make_start(g, 3);
    make_meta_string(g, "general.architecture", a->gguf);
#define KEY(name) (snprintf(key, sizeof key, "%s.%s", a->gguf, name), key)
    make_meta_u32(g, KEY("context_length"), 64);
    make_meta_u32(g, KEY("vocab_size"), VOCABULARY);
    make_meta_u32(g, KEY("embedding_length"), WIDTH);
    make_meta_u32(g, KEY("block_count"), LAYERS);
    make_meta_u32(g, KEY("feed_forward_length"), HIDDEN);
    make_meta_u32(g, KEY("attention.head_count"), a->heads);
    make_meta_u32(g, KEY("attention.head_count_kv"), a->kv_heads);
    make_meta_f32(g, KEY("attention.layer_norm_rms_epsilon"), (float)EPSILON);
    make_meta_f32(g, KEY("rope.freq_base"), (float)BASE);
    if (a->head_width * a->heads != WIDTH) make_meta_u32(g, KEY("attention.key_length"), a->head_width), make_meta_u32(g, KEY("attention.value_length"), a->head_width);
    if (a->window) make_meta_u32(g, KEY("attention.sliding_window"), a->window);
    if (a->window_first) make_meta_u32(g, KEY("attention.sliding_window_first_block"), a->window_first);
    if (a->scaling == LINEAR) make_meta_string(g, KEY("rope.scaling.type"), "linear"), make_meta_f32(g, KEY("rope.scaling.factor"), (float)FACTOR);
    if (a->scaling == YARN) {
        make_meta_string(g, KEY("rope.scaling.type"), "yarn"), make_meta_f32(g, KEY("rope.scaling.factor"), (float)FACTOR);
        make_meta_u32(g, KEY("rope.scaling.original_context_length"), 16), make_meta_f32(g, KEY("rope.scaling.yarn_beta_fast"), 4);
    }
    if (two) {
        make_meta_u32(g, KEY("rope.scaling.original_context_length"), original(a));
        make_meta_f32(g, KEY("rope.scaling.attn_factor"), (float)magnitude(a));
    }
    shape[0] = a->head_width / 2;
    if (a->scaling == LLAMA3) make_tensor(g, "rope_freqs.weight", 1, shape, 0, shape[0] * 4);
    if (two) make_tensor(g, "rope_factors_long.weight", 1, shape, 0, shape[0] * 4), make_tensor(g, "rope_factors_short.weight", 1, shape, 0, shape[0] * 4);
    for (unsigned i = 0; i < a->head_width / 2; i++) {
        factors[0][i] = (float)(two ? long_factor(i) : pow(BASE, -2.0 * i / a->head_width) / frequency(a, i));
        factors[1][i] = (float)short_factor(i);
    }
    for (int i = 0; i < matrix_count; i++) {
        const matrix *m = &matrices[i];
        const char *dot = strrchr(m->name, '.');
        char middle[80], name[96];
        int layer = -1, p = 0;
        snprintf(middle, sizeof middle, "%.*s", (int)(dot - m->name), m->name);
        if (strncmp(middle, "model.layers.", 13) == 0) layer = middle[13] - '0', memmove(middle, middle + 15, strlen(middle + 15) + 1);
        while (strcmp(middle, theirs[p]) != 0) p++;
        if (layer >= 0) snprintf(name, sizeof name, "blk.%d.%s%s", layer, ours[p], dot);
        else snprintf(name, sizeof name, "%s%s", ours[p], dot);
        shape[0] = m->cols, shape[1] = m->rows;
        make_tensor(g, name, m->one_dimension ? 1 : 2, shape, 0, (uint64_t)m->rows * m->cols * 4);
    }
    make_finish(g);
    if (a->scaling == LLAMA3 || two) make_data(g, factors[0], a->head_width / 2 * 4);
    if (two) make_data(g, factors[1], a->head_width / 2 * 4);
    for (int i = 0; i < matrix_count; i++) {
        const matrix *m = &matrices[i];
        int permuted = strstr(m->name, "q_proj") || strstr(m->name, "k_proj");
        unsigned rows = m->one_dimension ? m->cols : m->rows, cols = m->one_dimension ? 1 : m->cols;
        make_pad(g);
        for (unsigned r = 0; r < rows; r++) {
            make_raw(g, m->values + (size_t)row_of(a, permuted, r) * cols, cols * 4);
        }
    }
}
#endif
