/* Models of every architecture compute what its published definition says: random weights, written as a GGUF file and
 * as a folder with safetensors, against a plain reference in double precision. And they survive compression. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/gguf.h"
#include "../examples/llm/hf.h"
#include "../examples/llm/model.h"
#include "../examples/llm/tokenizer.h"

#include <sys/stat.h>

enum { LAYERS = 2, VOCABULARY = 432, TOKENS = 24, WIDTH = 48, HIDDEN = 80 };
enum { NONE, LINEAR, LLAMA3, YARN, DYNAMIC };

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
    const double pi = 3.141592653589793, original = 16, fast = 4, slow = 1;
    double at[2] = {fast, slow}, ramp;
    for (int k = 0; k < 2; k++) at[k] = a->head_width / 2.0 * log(original / (2 * pi * at[k])) / log(BASE);
    at[0] = floor(at[0]) > 0 ? floor(at[0]) : 0, at[1] = ceil(at[1]);
    if (at[1] > a->head_width - 1) at[1] = a->head_width - 1;
    ramp = (i - at[0]) / (at[1] - at[0] > 0.001 ? at[1] - at[0] : 0.001);
    return ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
}
/* What queries and keys are multiplied by. */
static double magnitude(const architecture *a) { return a->scaling == YARN ? 0.1 * log(FACTOR) + 1 : 1; }

static double frequency(const architecture *a, unsigned i) {
    const double pi = 3.141592653589793, low = 1, high = 4, original = 32;
    double f = pow(BASE, -2.0 * i / a->head_width), wavelength = 2 * pi / f;
    if (a->scaling == LINEAR) return f / FACTOR;
    if (a->scaling == YARN) return f * (1 - slowed(a, i)) + f / FACTOR * slowed(a, i);
    if (a->scaling == NONE || a->scaling == DYNAMIC || wavelength < original / high) return f;
    if (wavelength > original / low) return f / FACTOR;
    double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * f / FACTOR + smooth * f;
}

static void norm(const matrix *w, const double *x, double *out, unsigned size) {
    double sum = 0;
    for (unsigned i = 0; i < size; i++) sum += x[i] * x[i];
    for (unsigned i = 0; i < size; i++) out[i] = x[i] / sqrt(sum / size + EPSILON) * (double)w->values[i];
}

static void linear(int layer, const char *part, const double *x, double *y) {
    const matrix *w = weight(layer, part), *bias = find("model.layers.%d.%s.bias", layer, part);
    for (unsigned i = 0; i < w->rows; i++) {
        y[i] = bias ? (double)bias->values[i] : 0;
        for (unsigned j = 0; j < w->cols; j++) y[i] += (double)w->values[i * w->cols + j] * x[j];
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
        for (int i = 0; i < WIDTH; i++) x[t][i] = (double)embedding->values[ids[t] * WIDTH + (uint32_t)i];
    for (int l = 0; l < LAYERS; l++) {
        int window = a->window && l >= (int)a->window_first ? (int)a->window : TOKENS;
        for (int t = 0; t < TOKENS; t++) {
            norm(weight(l, "input_layernorm"), x[t], n, WIDTH);
            linear(l, parts[0], n, q[t]), linear(l, parts[1], n, k[t]), linear(l, parts[2], n, v[t]);
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
            linear(l, parts[3], attended, out);
            for (int i = 0; i < WIDTH; i++) x[t][i] += out[i];
            norm(weight(l, "post_attention_layernorm"), x[t], n, WIDTH);
            linear(l, parts[4], n, gate), linear(l, parts[5], n, up);
            for (int i = 0; i < HIDDEN; i++) up[i] *= gate[i] / (1 + exp(-gate[i]));
            linear(l, parts[6], up, out);
            for (int i = 0; i < WIDTH; i++) x[t][i] += out[i];
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        norm(find("model.norm.weight", 0, ""), x[t], n, WIDTH);
        for (int i = 0; i < VOCABULARY; i++) {
            logits[t * VOCABULARY + i] = 0;
            for (int j = 0; j < WIDTH; j++) logits[t * VOCABULARY + i] += (double)head->values[i * WIDTH + j] * n[j];
        }
    }
}

/* ---- files ---- */

/* GGUF's llama files have the rows of q and k in another order: pairs next to each other. */
static void write_gguf(const architecture *a, gguf_maker *g) {
    static const char *const theirs[] = {"model.embed_tokens", "lm_head", "model.norm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"};
    static const char *const ours[] = {"token_embd", "output", "output_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
        "attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"};
    char key[96];
    uint64_t shape[2];
    float factors[64];
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
    if (a->scaling == LLAMA3) {
        shape[0] = a->head_width / 2;
        make_tensor(g, "rope_freqs.weight", 1, shape, 0, shape[0] * 4);
        for (unsigned i = 0; i < a->head_width / 2; i++) factors[i] = (float)(pow(BASE, -2.0 * i / a->head_width) / frequency(a, i));
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
    if (a->scaling == LLAMA3) make_data(g, factors, a->head_width / 2 * 4);
    for (int i = 0; i < matrix_count; i++) {
        const matrix *m = &matrices[i];
        int permuted = strcmp(a->gguf, "llama") == 0 && (strstr(m->name, "q_proj") || strstr(m->name, "k_proj"));
        unsigned rows = m->one_dimension ? m->cols : m->rows, cols = m->one_dimension ? 1 : m->cols, half = a->head_width / 2;
        make_pad(g);
        for (unsigned r = 0; r < rows; r++) {
            unsigned h = r / a->head_width, c = r % a->head_width, from = permuted ? h * a->head_width + c % 2 * half + c / 2 : r;
            make_raw(g, m->values + (size_t)from * cols, cols * 4);
        }
    }
}

static void write_file(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes) printf("      cannot write %s\n", path);
    if (file) fclose(file);
}

static void write_folder(const architecture *a, const char *folder) {
    static char json[1 << 15], index[1 << 15];
    static unsigned char data[1 << 20];
    char line[1200];
    size_t element = strcmp(a->dtype, "F32") == 0 ? 4 : 2;
    snprintf(line, sizeof line, "rm -rf '%s' && mkdir -p '%s'", folder, folder);
    if (system(line) != 0) printf("      cannot make %s\n", folder);
    int n = snprintf(json, sizeof json, "{\"model_type\":\"%s\",\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%u,"
                     "\"num_key_value_heads\":%u,\"vocab_size\":%d,\"max_position_embeddings\":64,\"rms_norm_eps\":%g,\"rope_theta\":%g,\"hidden_act\":\"silu\",\"bos_token_id\":1,"
                     "\"tie_word_embeddings\":%s,\"sliding_window\":", a->hf, WIDTH, HIDDEN, LAYERS, a->heads, a->kv_heads, VOCABULARY, EPSILON, BASE, a->tied ? "true" : "false");
    n += snprintf(json + n, sizeof json - (size_t)n, a->window ? "%u" : "null", a->window);
    if (a->head_width * a->heads != WIDTH) n += snprintf(json + n, sizeof json - (size_t)n, ",\"head_dim\":%u", a->head_width);
    if (a->window_first) n += snprintf(json + n, sizeof json - (size_t)n, ",\"use_sliding_window\":true,\"max_window_layers\":%u", a->window_first);
    if (a->scaling == LINEAR) n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":%g}", FACTOR);
    if (a->scaling == DYNAMIC) n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":%g}", FACTOR);
    if (a->scaling == YARN)
        n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":%g,\"original_max_position_embeddings\":16,"
                      "\"beta_fast\":4,\"rope_theta\":%g}", FACTOR, BASE);
    if (a->scaling == LLAMA3)
        n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":%g,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                      "\"original_max_position_embeddings\":32}", FACTOR);
    n += snprintf(json + n, sizeof json - (size_t)n, "}\n");
    write_file(folder, "config.json", json, (size_t)n);
    int used = snprintf(index, sizeof index, "{\"metadata\":{},\"weight_map\":{");
    for (int s = 0; s < a->shards; s++) {
        char name[64];
        size_t bytes = 0;
        if (a->shards == 1) snprintf(name, sizeof name, "model.safetensors");
        else snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", s + 1, a->shards);
        n = snprintf(json, sizeof json, "{\"__metadata__\":{\"format\":\"pt\"}");
        for (int i = s; i < matrix_count; i += a->shards) {
            const matrix *m = &matrices[i];
            size_t count = (size_t)m->rows * m->cols;
            n += snprintf(json + n, sizeof json - (size_t)n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", m->name, a->dtype);
            if (!m->one_dimension) n += snprintf(json + n, sizeof json - (size_t)n, "%u,", m->rows);
            n += snprintf(json + n, sizeof json - (size_t)n, "%u],\"data_offsets\":[%zu,%zu]}", m->cols, bytes, bytes + count * element);
            for (size_t j = 0; j < count; j++, bytes += element) {
                uint16_t half = bitstack_f32_to_f16(m->values[j]);
                if (element == 4) memcpy(data + bytes, &m->values[j], 4);
                else if (a->dtype[0] == 'F') memcpy(data + bytes, &half, 2);
                else memcpy(data + bytes, (const char *)&m->values[j] + 2, 2);
            }
            used += snprintf(index + used, sizeof index - (size_t)used, "%s\"%s\":\"%s\"", i ? "," : "", m->name, name);
        }
        n += snprintf(json + n, sizeof json - (size_t)n, "}");
        while ((8 + n) % 8) json[n++] = ' ';
        uint64_t header = (uint64_t)n;
        memmove(data + 8 + n, data, bytes);
        memcpy(data, &header, 8);
        memcpy(data + 8, json, (size_t)n);
        write_file(folder, name, data, 8 + (size_t)n + bytes);
    }
    if (a->shards > 1) {
        used += snprintf(index + used, sizeof index - (size_t)used, "}}");
        write_file(folder, "model.safetensors.index.json", index, (size_t)used);
    }
}

/* ---- comparing ---- */

/* Logits of all tokens: a batch first, then one by one. -1 if the model does not open. */
static int run(const char *path, const llm_model_options *options, const uint32_t *ids, float *logits) {
    llm_model m;
    llm_error error;
    llm_state s;
    if (llm_model_open(&m, path, options, &error) != 0) {
        printf("      %s\n", error.message);
        return -1;
    }
    if (m.config.vocabulary != VOCABULARY || llm_state_init(&s, &m, TOKENS, 0) != 0) return -1;
    for (uint32_t done = 0; done < TOKENS; ) {
        uint32_t some = done ? 1 : 13;
        llm_forward(&m, &s, ids + done, some);
        llm_logits(&m, &s, 0, some, logits + done * VOCABULARY);
        done += some;
    }
    llm_state_free(&s);
    llm_model_close(&m);
    return 0;
}

/* Root mean square difference, and the largest, as parts of the root mean square logit. */
static double far(const float *got, const double *want, double *largest) {
    double difference = 0, all = 0, most = 0;
    for (int i = 0; i < TOKENS * VOCABULARY; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (!(d <= most)) most = d;
        difference += d * d, all += want[i] * want[i];
    }
    *largest = most / sqrt(all / (TOKENS * VOCABULARY));
    return sqrt(difference / all);
}

int main(int argc, char **argv) {
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    int directory = slash ? (int)(slash - argv[0]) : 1;
    const char *here = slash ? argv[0] : ".";
    char gguf[500], folder[500], stack[500], line[2000];
    static float logits[TOKENS * VOCABULARY];
    static double want[TOKENS * VOCABULARY];
    uint32_t ids[TOKENS];
    double most;
    snprintf(folder, sizeof folder, "%.*s/architecture", directory, here);
    mkdir(folder, 0777);
    snprintf(gguf, sizeof gguf, "%.*s/architecture/model.gguf", directory, here);
    snprintf(stack, sizeof stack, "%.*s/architecture/model.bitstack", directory, here);
    snprintf(folder, sizeof folder, "%.*s/architecture/model", directory, here);

    for (int n = 0; n < ARCHITECTURES; n++) {
        const architecture *a = &architectures[n];
        gguf_maker g;
        llm_model_options options;
        memset(&options, 0, sizeof options);
        TEST(a->sentence);
        seed = 100 + (uint64_t)n;
        make_weights(a);
        for (int t = 0; t < TOKENS; t++) ids[t] = (uint32_t)(test_random(&seed) % VOCABULARY);
        reference(a, ids, want);
        write_gguf(a, &g);
        snprintf(line, sizeof line, "%.*s/architecture", directory, here);
        write_file(line, "model.gguf", g.data, g.bytes);
        free(g.data);
        write_folder(a, folder);
        CHECK(run(gguf, NULL, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "GGUF: largest difference %g", most);
        CHECK(run(folder, NULL, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "safetensors: largest difference %g", most);
        options.unpack_bytes = 1, options.forget = 1, options.threads = 3;
        CHECK(run(folder, &options, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "not unpacked, three threads: largest difference %g", most);
        snprintf(line, sizeof line, "'%.*s/../bitstack' compress '%s' -o '%s' --method iabs --rank 8 --levels 12 --compress-embeddings %s >/dev/null",
                 directory, here, n % 2 ? gguf : folder, stack, n % 3 ? "no" : "yes");
        double error = -1;
        CHECK(system(line) == 0 && run(stack, NULL, ids, logits) == 0 && (error = far(logits, want, &most)) < 0.03, "compressed: off by %g", error);
        CHECK(error < 0 || error > 1e-5, "compressed: off by only %g: not the stack's matrices", error);
    }

    TEST("GGUF: a factor without a type is a linear one");
    for (int way = 0; way < 2; way++) {
        gguf_maker g;
        llm_model m;
        llm_source source;
        llm_error why = {""};
        make_tiny_llama(&g, 3);
        CHECK(llm_gguf_open_memory(&source, g.data, g.bytes, "tiny.gguf", &why) == 0 && llm_add_float(&source, way ? "llama.rope.scale_linear" : "llama.rope.scaling.factor", 4) == 0 &&
              llm_model_load(&m, source, NULL, &why) == 0, "%s", why.message);
        if (!why.message[0]) {
            CHECK(fabs(m.rope_frequencies[0] - 0.25) < 1e-12 && fabs(m.rope_frequencies[1] - 0.25 * pow(10000, -0.125)) < 1e-9 && m.rope_magnitude == 1, "%g", m.rope_frequencies[0]);
            llm_model_close(&m);
        }
        free(g.data);
    }

    TEST("tensors' names with less or more in front, and a tied model that has its head only");
    static const struct { const char *from, *to; int tied; } names[] = {
        {"model.", "", 0}, {"model.", "model.language_model.", 0}, {"model.embed_tokens", "lm_head", 1}};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const architecture *a = &architectures[names[n].tied ? 6 : 0]; /* llama with a head of its own, qwen2 without one */
        CHECK(a->tied == names[n].tied, "not the one meant");
        make_weights(a);
        for (int t = 0; t < TOKENS; t++) ids[t] = (uint32_t)(test_random(&seed) % VOCABULARY);
        reference(a, ids, want);
        for (int i = 0; i < matrix_count; i++) {
            char old[80], *at = matrices[i].name;
            if (strncmp(at, names[n].from, strlen(names[n].from)) != 0) continue;
            snprintf(old, sizeof old, "%s", at + strlen(names[n].from));
            snprintf(at, sizeof matrices[i].name, "%s%.50s", names[n].to, old);
        }
        write_folder(a, folder);

        CHECK(run(folder, NULL, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "case %zu", n);
    }

    TEST("the tokenizer of a folder goes into the stack");
    make_weights(&architectures[0]);
    write_folder(&architectures[0], folder);
    snprintf(line, sizeof line, "cp tests/tokenizers/qwen2.json '%s/tokenizer.json' && '%.*s/../bitstack' compress '%s' -o '%s' --levels 1 --rank 1 >/dev/null", folder,
             directory, here, folder, stack);
    CHECK(system(line) == 0, "%s", line);
    for (int way = 0; way < 2; way++) {
        static const char text[] = "The captain's 42 ships;\n\n\xE6\xB5\xB7 <tool_call>x";
        static uint32_t before[200];
        llm_source source;
        llm_tokenizer tokenizer;
        llm_error why;
        uint32_t *found;
        int opened = llm_source_open(&source, way ? stack : folder, NULL, &why) == 0;
        CHECK(opened && llm_tokenizer_load(&tokenizer, &source, &why) == 0, "%s", why.message);
        if (test_bad_) break;
        int64_t count = llm_encode(&tokenizer, text, sizeof text - 1, &found);
        CHECK(count > 10 && count < 100 && (!way || memcmp(before, found, (size_t)count * 4) == 0), "%lld ids", (long long)count);
        memcpy(before, found, (size_t)count * 4);
        free(found);
        llm_tokenizer_free(&tokenizer);
        llm_source_close(&source);
    }

    TEST("a journal serves one state of a folder's files, which the folder itself does not tell");
    char keys[3][8];
    for (int i = 0; i < 3; i++) { /* files may not grow beyond some size: the run fails under way, and leaves the journal */
        snprintf(line, sizeof line, "cd '%.*s' && touch -d '2001-01-0%d' architecture/model/model.safetensors && trap '' XFSZ && ulimit -f 64 && "
                 "../bitstack compress architecture/model -o architecture/y.bitstack --levels 1 --rank 1 --resume 2>/dev/null", directory, here, 1 + i / 2);
        CHECK(system(line) == 256, "%s", line);
        snprintf(line, sizeof line, "%.*s/architecture/y.bitstack.journal", directory, here);
        FILE *journal = fopen(line, "rb");
        CHECK(journal && fread(keys[i], 1, 8, journal) == 8, "no journal");
        if (journal) fclose(journal);
    }
    CHECK(memcmp(keys[0], keys[1], 8) == 0 && memcmp(keys[0], keys[2], 8) != 0, "keys of three runs");
    remove(line);

    TEST("folders that are not whole or not known end in one line");
    static const struct { const char *edit, *words; } edits[] = {
        {"rm model/config.json", "config.json: "}, {"rm model/model.safetensors", "model.safetensors: "},
        {"sed -i s/qwen2/gpt_oss/ model/config.json", "\"model_type\" to be"}, {"sed -i s/silu/gelu/ model/config.json", "\"hidden_act\""},
        {"sed -i s/self_attn.q_proj.bias/self_attn.q_proj.bibs/ model/model.safetensors", "bibs'"},
        {"sed -i s/self_attn.q_proj.bias/self_attn.o_proj.bias/ model/model.safetensors", "blk.0.attn_q.bias"},
        {"sed -i s/hidden_size/hidden_sice/ model/config.json", "\"hidden_size\""},
        {"sed -i s/.hidden_size.:48/\\\"hidden_size\\\":-4/ model/config.json", "\"hidden_size\""},
        {"sed -i s/:true/:false/ model/config.json", "lm_head"},
        {"sed -i 's/}$/,\"rope_scaling\":{\"type\":\"yarn\"}}/' model/config.json", "\"factor\""},
        {"sed -i 's/}$/,\"rope_scaling\":{\"type\":\"longrope\",\"factor\":4}}/' model/config.json", "longrope"},
        {"sed -i 's/}$/,\"rope_scaling\":{\"factor\":4}}/' model/config.json", "RoPE"},
        {"sed -i 's/}$/,\"rope_parameters\":{\"factor\":4}}/' model/config.json", "RoPE"},
        {"sed -i 's/}$/,\"quantization_config\":{}}/' model/config.json", "quantization_config"},
        {"sed -i 's/}$/,,/' model/config.json", "config.json: offset"}, {"truncate -s 999 model/model.safetensors", "model.safetensors: "},
        {"rm model/model.safetensors; echo '{\"weight_map\":{\"x\":\"../model.gguf\"}}' >model/model.safetensors.index.json", "files of its folder"},
        {"rm model/model.safetensors; echo '{\"weight_map\":{\"x\":\"none\"}}' >model/model.safetensors.index.json", "model/none"},
        {"echo '{\"model\":{}}' >model/tokenizer.json", "tokenizer.json: "}};
    make_weights(&architectures[6]);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        llm_model m;
        llm_error error;
        write_folder(&architectures[6], folder);
        snprintf(line, sizeof line, "cd '%.*s/architecture' && %s", directory, here, edits[i].edit);
        CHECK(system(line) == 0, "%s", line);
        int opened = llm_model_open(&m, folder, NULL, &error) == 0;
        CHECK(!opened && strstr(error.message, edits[i].words) && !strchr(error.message, '\n'), "%s: '%s'", edits[i].edit, opened ? "opened" : error.message);
        if (opened) llm_model_close(&m);
    }
    while (matrix_count) free(matrices[--matrix_count].values);
    return TEST_DONE();
}
