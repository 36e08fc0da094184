/* attention.h - attention in blocks: tiles of queries against blocks of keys, the softmax with a running maximum and
 * sum, so that room does not grow with the text. Keys and values are kept in the order in which the products read
 * them, as floats, halves, or bytes with a scale a token and head. */
#ifndef LLM_ATTENTION_H
#define LLM_ATTENTION_H

#include <stddef.h>

enum { LLM_KEEP_F32, LLM_KEEP_F16, LLM_KEEP_8 };

/* Keys and values of `groups` heads of `size` channels. Sixteen positions are a panel; in it the groups stand after
 * each other, of keys [channel][position], of values [position][channel], channels filled up to a multiple of 16. */
typedef struct llm_kept {
    unsigned char *keys, *values; /* llm_kept_bytes each; best aligned to 64 */
    int type;
    size_t groups, size;
} llm_kept;

/* A multiple of 64, proportional to the positions in whole panels. */
size_t llm_kept_bytes(int type, size_t groups, size_t size, size_t positions);
/* Puts in those of positions [first, first + count): rows of groups * size floats. Halves are rounded to nearest and
 * held to +-65504; bytes are off by at most 1/254 of a token's largest channel in the head. */
void llm_keep(const llm_kept *kept, size_t first, size_t count, const float *keys, const float *values);

/* sum over t of softmax_t(scale q.k_t) v_t. Token t of a batch is at position + t and sees the keys up to its own,
 * `window` of them at most (0: all). */
typedef struct llm_attention_blocks {
    llm_kept kept;
    size_t heads; /* that share a group's keys and values: head h reads group h / heads */
    size_t position, window;
    size_t stride; /* floats from a token's queries, and outputs, to the next one's; a head's stand after the other's */
    float scale;
} llm_attention_blocks;

/* The work on `count` tokens in pieces that may be done in any order, by any threads. A token's outputs are the same
 * bits whatever tokens are beside it. Against the softmax of what is kept in exact arithmetic they are off by at most
 * (size + 96 + keys / 64) 2^-23 (1 + S) V: S is the largest scale sum |q k|, V the largest value; mostly by far less. */
size_t llm_attention_pieces(const llm_attention_blocks *a, size_t count);
/* q and out: of token 0. room: llm_attention_room() floats. */
void llm_attention_piece(const llm_attention_blocks *a, size_t piece, size_t count, const float *q, float *out, float *room);
size_t llm_attention_room(size_t size);

#endif
