/* make_gguf.h - writes small GGUF files into memory for tests, from the format's published description. */
#ifndef MAKE_GGUF_H
#define MAKE_GGUF_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gguf_maker {
    unsigned char *data;
    size_t bytes, room;
    uint64_t tensors, metas, next; /* next: offset of the next tensor in the data part */
} gguf_maker;

static inline void make_raw(gguf_maker *g, const void *from, size_t bytes) {
    if (g->bytes + bytes > g->room) {
        g->room = 2 * (g->bytes + bytes);
        g->data = (unsigned char *)realloc(g->data, g->room);
    }
    if (bytes) memcpy(g->data + g->bytes, from, bytes);
    g->bytes += bytes;
}
static inline void make_u32(gguf_maker *g, uint32_t v) { make_raw(g, &v, 4); }
static inline void make_u64(gguf_maker *g, uint64_t v) { make_raw(g, &v, 8); }
static inline void make_string(gguf_maker *g, const char *text) {
    make_u64(g, strlen(text));
    make_raw(g, text, strlen(text));
}

/* Metadata first, then tensors, then make_finish; then the tensors' data in the order announced. */
static inline void make_start(gguf_maker *g, uint32_t version) {
    memset(g, 0, sizeof *g);
    make_raw(g, "GGUF", 4);
    make_u32(g, version);
    make_u64(g, 0);
    make_u64(g, 0);
}
static inline void make_key(gguf_maker *g, const char *key, uint32_t type) {
    g->metas++;
    make_string(g, key);
    make_u32(g, type);
}
static inline void make_meta_u32(gguf_maker *g, const char *key, uint32_t v) { make_key(g, key, 4), make_u32(g, v); }
static inline void make_meta_f32(gguf_maker *g, const char *key, float v) { make_key(g, key, 6), make_raw(g, &v, 4); }
static inline void make_meta_string(gguf_maker *g, const char *key, const char *v) {
    make_key(g, key, 8);
    make_string(g, v);
}
static inline void make_meta_array(gguf_maker *g, const char *key, uint32_t type, uint64_t count) {
    make_key(g, key, 9);
    make_u32(g, type);
    make_u64(g, count);
}
/* Shape as GGUF has it: fastest first. */
static inline void make_tensor(gguf_maker *g, const char *name, uint32_t dimensions, const uint64_t *shape, uint32_t type,
                               uint64_t bytes) {
    g->tensors++;
    make_string(g, name);
    make_u32(g, dimensions);
    for (uint32_t i = 0; i < dimensions; i++) make_u64(g, shape[i]);
    make_u32(g, type);
    make_u64(g, g->next);
    g->next = (g->next + bytes + 31) / 32 * 32;
}
static inline void make_pad(gguf_maker *g) {
    while (g->bytes % 32) make_raw(g, "", 1);
}
static inline void make_finish(gguf_maker *g) {
    memcpy(g->data + 8, &g->tensors, 8);
    memcpy(g->data + 16, &g->metas, 8);
    make_pad(g);
}
static inline void make_data(gguf_maker *g, const void *data, size_t bytes) {
    make_pad(g);
    make_raw(g, data, bytes);
}

/* A llama of random weights, small enough for any test: 2 layers, 4 heads of 16 on 2 of keys and values, a feed-
 * forward part of 96, context 64; own head; 300 tokens: marks, bytes, letters and a few longer pieces. F16 matrices. */
static inline float make_random_(uint64_t *state) { /* roughly normal, variance 1 */
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) / 16777216.0f;
    }
    return sum - 6;
}
static inline uint16_t make_half_(float v) { /* to half precision, towards zero; |v| from 2^-14 to 65504 or 0 */
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if ((bits & 0x7fffffffu) < 0x38800000u) return 0;
    return (uint16_t)((bits >> 16 & 0x8000u) | (((bits & 0x7fffffffu) - 0x38000000u) >> 13));
}
static inline void make_tiny_llama_of(gguf_maker *g, uint64_t seed, unsigned layers) {
    enum { WIDTH = 64, KV = 32, HIDDEN = 96, WORDS = 300 };
    static const char *const names[9] = {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"};
    static const unsigned rows[9] = {1, WIDTH, KV, KV, WIDTH, 1, HIDDEN, HIDDEN, WIDTH};
    static const unsigned cols[9] = {WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, HIDDEN};
    char text[64];
    make_start(g, 3);
    make_meta_string(g, "general.architecture", "llama");
    make_meta_u32(g, "general.alignment", 32);
    make_meta_u32(g, "llama.context_length", 64);
    make_meta_u32(g, "llama.embedding_length", WIDTH);
    make_meta_u32(g, "llama.block_count", layers);
    make_meta_u32(g, "llama.feed_forward_length", HIDDEN);
    make_meta_u32(g, "llama.attention.head_count", 4);
    make_meta_u32(g, "llama.attention.head_count_kv", 2);
    make_meta_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    make_meta_u32(g, "llama.rope.dimension_count", 16);
    make_meta_string(g, "tokenizer.ggml.model", "llama");
    make_meta_array(g, "tokenizer.ggml.tokens", 8, WORDS);
    for (int i = 0; i < WORDS; i++) {
        static const char *const pieces[14] = {"\xE2\x96\x81t", "he", "\xE2\x96\x81the", "in", "er", "an", "re", "on", "at", "en", "nd", "ed", "or", "\xE2\x96\x81"};
        if (i < 3) snprintf(text, sizeof text, "%s", i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (i < 259) snprintf(text, sizeof text, "<0x%02X>", i - 3);
        else if (i < 285) snprintf(text, sizeof text, "%c", 'a' + i - 259);
        else snprintf(text, sizeof text, "%s", i < 299 ? pieces[i - 285] : "q\xC3\xA9");
        make_string(g, text);
    }
    make_meta_array(g, "tokenizer.ggml.scores", 6, WORDS);
    for (int i = 0; i < WORDS; i++) {
        float score = (float)-i;
        make_raw(g, &score, 4);
    }
    make_meta_array(g, "tokenizer.ggml.token_type", 5, WORDS);
    for (int i = 0; i < WORDS; i++) make_u32(g, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
    make_meta_u32(g, "tokenizer.ggml.bos_token_id", 1);
    make_meta_u32(g, "tokenizer.ggml.eos_token_id", 2);
    make_meta_u32(g, "tokenizer.ggml.unknown_token_id", 0);
    const uint64_t embedding[2] = {WIDTH, WORDS}, norm[1] = {WIDTH};
    make_tensor(g, "token_embd.weight", 2, embedding, 1, WIDTH * WORDS * 2);
    make_tensor(g, "output.weight", 2, embedding, 1, WIDTH * WORDS * 2);
    make_tensor(g, "output_norm.weight", 1, norm, 0, WIDTH * 4);
    for (unsigned t = 0; t < 9 * layers; t++) {
        const uint64_t shape[2] = {cols[t % 9], rows[t % 9]};
        unsigned dimensions = rows[t % 9] == 1 ? 1 : 2;
        snprintf(text, sizeof text, "blk.%u.%s.weight", t / 9, names[t % 9]);
        make_tensor(g, text, dimensions, shape, dimensions == 2, (uint64_t)cols[t % 9] * rows[t % 9] * (dimensions == 2 ? 2 : 4));
    }
    make_finish(g);
    for (int t = -3; t < 9 * (int)layers; t++) {
        unsigned r = t < -1 ? WORDS : t == -1 ? 1 : rows[t % 9], c = t < 0 ? WIDTH : cols[t % 9];
        make_pad(g);
        for (unsigned i = 0; i < r * c; i++) {
            float v = r == 1 ? 1 + 0.1f * make_random_(&seed) : (t == -3 ? 1.0f : t == -2 ? 0.25f : 0.15f) * make_random_(&seed);
            uint16_t h = make_half_(v);
            if (r == 1) make_raw(g, &v, 4);
            else make_raw(g, &h, 2);
        }
    }
}
static inline void make_tiny_llama(gguf_maker *g, uint64_t seed) { make_tiny_llama_of(g, seed, 2); }
#endif
