/* random_stack.h - writes a llama-shaped model of random planes and tables as a stack, of any size, in no time: for tests
 * of what does not depend on what the model says. Its tokens are bytes. */
#ifndef RANDOM_STACK_H
#define RANDOM_STACK_H

#include "stack_builder.h"

/* A matrix in tables, its weights about as large as those below: the builder's are .07. */
static inline bitstack_coded random_tables(uint32_t rows, uint32_t cols, uint32_t levels, uint64_t *seed) {
    bitstack_shape shape = build_tables(rows, cols, levels, 64);
    shape.scale = (float)exp2(round(log2(1 / (0.07 * sqrt(cols)))));
    return build_coded(&shape, test_random(seed));
}

/* A nested matrix: random signs; factors so that products neither grow nor vanish. */
static inline bitstack_coded random_coded(uint32_t rows, uint32_t cols, uint32_t levels, uint64_t *seed) {
    bitstack_coded coded;
    memset(&coded, 0, sizeof coded);
    bitstack_shape shape = {rows, cols, levels, 1, 0, BITSTACK_COLUMNS_FIRST, BITSTACK_COEFFICIENTS_ALL, BITSTACK_F16, 1.0f, BITSTACK_PLANES, 0};
    coded.shape = shape;
    coded.out_norm2 = coded.rel_err2[0] = coded.out_err2[0] = 1;
    for (uint32_t l = 1; l <= levels; l++) {
        size_t column = (size_t)bitstack_column_bytes(&shape, l), coefficient = (size_t)bitstack_coefficient_bytes(&shape, l);
        size_t bytes = (size_t)bitstack_block_bytes(&shape, l);
        unsigned char *at = coded.blocks[l - 1] = (unsigned char *)calloc(1, bytes), *end = at + bytes;
        uint16_t one = bitstack_f32_to_f16(1);
        for (uint32_t j = 0; column && j < cols; j++) memcpy(at + 2 * j, &one, 2);
        at += column;
        for (uint32_t p = 0; p < l; p++)
            for (uint32_t i = 0; i < rows; i++) {
                uint16_t u = bitstack_f32_to_f16((float)((0.9 + 0.2 * test_uniform(seed)) * pow(0.5, p) / sqrt(cols)));
                memcpy(at + 2 * ((size_t)p * rows + i), &u, 2);
            }
        at += coefficient;
        for (; at < end; at += 8) test_store64(at, test_random(seed)); /* rows and cols are multiples of 64: no padding */
        coded.rel_err2[l] = coded.out_err2[l] = pow(0.3, l);
    }
    return coded;
}

/* Every other matrix is in tables: batches then differ from single products by what bitstack_gemm says. Or none is. */
static int random_stack_has_tables = 1;

enum { WORDS = 259, WORD_END = 2, WORD_BYTES = 3 }; /* a byte's token is WORD_BYTES + the byte */

/* width and hidden: multiples of 64. With `next` and no blocks loaded, token next[t] follows token t (the head
 * knows the embedding of t), else nothing is certain. 0 on success. */
static inline int random_stack(const char *path, uint32_t width, uint32_t hidden, uint32_t layers, uint32_t levels, uint32_t context,
                               const int *next) {
    static const char *const names[7] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    const uint32_t rows[7] = {width, width, width, width, hidden, hidden, width}, cols[7] = {width, width, width, width, width, width, hidden};
    char texts[WORDS][8], name[64];
    const char *tokens[WORDS];
    float scores[WORDS], *values = (float *)calloc(2 * (size_t)WORDS * width, sizeof *values), *head = values + (size_t)WORDS * width;
    int32_t types[WORDS];
    uint64_t seed = 7, shape[2] = {WORDS, width};
    bitstack_writer *w;
    bitstack_error error;
    if (!values || bitstack_writer_open(&w, path, NULL, &error) != BITSTACK_OK) return 1;
    for (int i = 0; i < WORDS; i++) {
        snprintf(texts[i], sizeof texts[i], i < 3 ? (i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>") : "<0x%02X>", (unsigned)(i - 3) & 255);
        tokens[i] = texts[i];
        scores[i] = 0;
        types[i] = i == 0 ? 2 : i < 3 ? 3 : 6;
    }
    const char *architecture = "llama", *model = "llama";
    int bad = bitstack_writer_meta_strings(w, "general.architecture", &architecture, NULL, 1) || bitstack_writer_meta_u32(w, "llama.context_length", context) ||
        bitstack_writer_meta_u32(w, "llama.embedding_length", width) || bitstack_writer_meta_u32(w, "llama.block_count", layers) ||
        bitstack_writer_meta_u32(w, "llama.feed_forward_length", hidden) || bitstack_writer_meta_u32(w, "llama.attention.head_count", width / 64) ||
        bitstack_writer_meta_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f) || bitstack_writer_meta_u32(w, "llama.rope.dimension_count", 64) ||
        bitstack_writer_meta_strings(w, "tokenizer.ggml.model", &model, NULL, 1) || bitstack_writer_meta_strings(w, "tokenizer.ggml.tokens", tokens, NULL, WORDS) ||
        bitstack_writer_meta(w, "tokenizer.ggml.scores", BITSTACK_META_F32, scores, WORDS) || bitstack_writer_meta(w, "tokenizer.ggml.token_type", BITSTACK_META_I32, types, WORDS) ||
        bitstack_writer_meta_u32(w, "tokenizer.ggml.bos_token_id", 1) ||
        (next && bitstack_writer_meta_u32(w, "tokenizer.ggml.eos_token_id", WORD_END)); /* else none ends an answer */
    for (size_t i = 0; i < (size_t)WORDS * width; i++) values[i] = test_normal(&seed);
    bad = bad || bitstack_writer_tensor(w, "token_embd.weight", BITSTACK_F32, 2, shape, values);
    for (size_t i = 0; i < (size_t)WORDS * width; i++)
        if (next) head[(size_t)next[i / width] * width + i % width] += values[i];
        else head[i] = test_normal(&seed) * 1.5f / sqrtf((float)width);
    bad = bad || bitstack_writer_tensor(w, "output.weight", BITSTACK_F32, 2, shape, head);
    for (uint32_t i = 0; i < width; i++) values[i] = 1;
    bad = bad || bitstack_writer_tensor(w, "output_norm.weight", BITSTACK_F32, 1, shape + 1, values);
    for (uint32_t l = 0; l < layers && !bad; l++) {
        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", l);
        bad = bad || bitstack_writer_tensor(w, name, BITSTACK_F32, 1, shape + 1, values);
        snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", l);
        bad = bad || bitstack_writer_tensor(w, name, BITSTACK_F32, 1, shape + 1, values);
        for (int i = 0; i < 7 && !bad; i++) {
            bitstack_coded coded = (i % 2 && random_stack_has_tables ? random_tables : random_coded)(rows[i], cols[i], levels, &seed);
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, names[i]);
            bad = bitstack_writer_matrix(w, name, &coded, 1) != BITSTACK_OK;
            build_free(&coded);
        }
    }
    free(values);
    if (!bad) return bitstack_writer_finish(w, NULL, 0, &error) != BITSTACK_OK;
    bitstack_writer_abort(w);
    return 1;
}
#endif
