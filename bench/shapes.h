/* shapes.h - language models of random weights in the shapes of real ones, written as GGUF files piece by piece. */
#ifndef SHAPES_H
#define SHAPES_H

#include "../tests/make_gguf.h"

typedef struct shape {
    const char *name;
    uint64_t width, kv, hidden;
    int layers, tied;
} shape;
static const shape shapes[] = {{"8b", 4096, 1024, 14336, 32, 0}, {"1b", 2048, 512, 8192, 16, 1}}; /* Llama 3 8B, 3.2 1B */

enum { WIDEST = 4096, VOCABULARY = 128256, RANDOM = 1 << 20 };

static const char *const linear_names[7] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

static inline const shape *shape_named(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(name, shapes[i].name) == 0) return &shapes[i];
    return NULL;
}

static inline void shape_linear(const shape *of, int i, uint64_t *rows, uint64_t *cols) {
    const uint64_t all[7][2] = {{of->width, of->width}, {of->kv, of->width}, {of->kv, of->width}, {of->width, of->width},
                                {of->hidden, of->width}, {of->hidden, of->width}, {of->width, of->hidden}};
    *rows = all[i][0], *cols = all[i][1];
}

static inline uint64_t shape_layer_weights(const shape *of) {
    uint64_t sum = 0, rows, cols;
    for (int i = 0; i < 7; i++) shape_linear(of, i, &rows, &cols), sum += rows * cols;
    return sum;
}

/* Rows of some of the random numbers that were drawn first. */
static inline void shape_tensor(FILE *file, const uint16_t *random, uint64_t rows, uint64_t cols, uint64_t *seed) {
    for (uint64_t i = 0; i < rows * cols; ) {
        uint64_t some = rows * cols - i < WIDEST ? rows * cols - i : WIDEST;
        fwrite(random + (make_random_(seed), *seed >> 44) % RANDOM, 2, some, file);
        i += some;
    }
}

/* `tokenizer`: what tokenizer.ggml.model says, or NULL. Bytes of the file; 0 if it could not be written. */
static inline uint64_t shape_write(const char *path, const shape *of, int layers, const char *tokenizer) {
    static uint16_t random[RANDOM + WIDEST];
    static float ones[WIDEST];
    const uint64_t vocabulary[2] = {of->width, VOCABULARY}, norm[1] = {of->width};
    uint64_t seed = 1, rows, cols;
    gguf_maker g;
    char name[64];
    for (size_t i = 0; i < RANDOM + WIDEST; i++) random[i] = make_half_(0.02f * make_random_(&seed));
    for (int i = 0; i < WIDEST; i++) ones[i] = 1;
    make_start(&g, 3);
    make_meta_string(&g, "general.architecture", "llama");
    if (tokenizer) make_meta_string(&g, "tokenizer.ggml.model", tokenizer);
    make_meta_u32(&g, "llama.context_length", 8192);
    make_meta_u32(&g, "llama.vocab_size", VOCABULARY);
    make_meta_u32(&g, "llama.embedding_length", (uint32_t)of->width);
    make_meta_u32(&g, "llama.block_count", (uint32_t)layers);
    make_meta_u32(&g, "llama.feed_forward_length", (uint32_t)of->hidden);
    make_meta_u32(&g, "llama.attention.head_count", 32);
    make_meta_u32(&g, "llama.attention.head_count_kv", 8);
    make_meta_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    make_meta_f32(&g, "llama.rope.freq_base", 500000);
    make_tensor(&g, "token_embd.weight", 2, vocabulary, 1, of->width * VOCABULARY * 2);
    if (!of->tied) make_tensor(&g, "output.weight", 2, vocabulary, 1, of->width * VOCABULARY * 2);
    make_tensor(&g, "output_norm.weight", 1, norm, 0, of->width * 4);
    for (int l = 0; l < layers; l++) {
        for (int i = 0; i < 7; i++) {
            shape_linear(of, i, &rows, &cols);
            const uint64_t dimensions[2] = {cols, rows};
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, linear_names[i]);
            make_tensor(&g, name, 2, dimensions, 1, rows * cols * 2);
        }
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, i ? "ffn_norm" : "attn_norm");
            make_tensor(&g, name, 1, norm, 0, of->width * 4);
        }
    }
    make_finish(&g);
    FILE *file = fopen(path, "wb"); /* all sizes are multiples of 32: no padding between tensors */
    if (!file) return free(g.data), 0;
    fwrite(g.data, 1, g.bytes, file);
    free(g.data);
    for (int i = 0; i < 2 - of->tied; i++) shape_tensor(file, random, VOCABULARY, of->width, &seed);
    fwrite(ones, sizeof *ones, of->width, file);
    for (int l = 0; l < layers; l++) {
        for (int i = 0; i < 7; i++) shape_linear(of, i, &rows, &cols), shape_tensor(file, random, rows, cols, &seed);
        for (int i = 0; i < 2; i++) fwrite(ones, sizeof *ones, of->width, file);
    }
    const long long size = (long long)ftello(file);
    return fclose(file) == 0 && size > 0 ? (uint64_t)size : 0;
}
#endif
