/* tokenizer_tables.h - what loading a tokenizer and encoding with it share: its tables, and how things are found in them. */
#ifndef LLM_TOKENIZER_TABLES_H
#define LLM_TOKENIZER_TABLES_H

#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

enum { LONGEST_PIECE = 1024 }; /* of those that are looked for at every byte of a text */

/* ---- pieces by their text ---- */

static inline uint32_t hash_start(void) { return 2166136261u; } /* FNV-1a */
static inline uint32_t hash_byte(uint32_t h, char c) { return (h ^ (unsigned char)c) * 16777619u; }
static inline uint32_t slot_of(uint32_t h) { return h ^ h >> 15; }

/* Half of the slots stay free: a long run of others is no accident, but made to take time. None is taken further than
 * this from where it belongs, and none is looked for there. */
enum { LONGEST_RUN = 240 };

static inline int64_t find_hashed(const llm_tokenizer *t, uint32_t h, const char *text, size_t bytes) {
    uint32_t slot = slot_of(h) & t->slot_mask;
    for (int met = 0; met <= LONGEST_RUN && t->slots[slot]; met++, slot = (slot + 1) & t->slot_mask) {
        uint32_t id = t->slots[slot] - 1;
        if (t->pieces[id].bytes == bytes && memcmp(t->pieces[id].text, text, bytes) == 0) return id;
    }
    return -1;
}

static inline uint32_t hash(const char *text, size_t bytes) {
    uint32_t h = hash_start();
    for (size_t i = 0; i < bytes; i++) h = hash_byte(h, text[i]);
    return h;
}

static inline int64_t find(const llm_tokenizer *t, const char *text, size_t bytes) {
    return find_hashed(t, hash(text, bytes), text, bytes);
}

/* ---- pairs that merge ---- */

typedef struct llm_merge {
    uint32_t left, right, made, rank; /* rank 0: a free slot */
} llm_merge;

static inline uint32_t pair_slot(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static const llm_merge *find_merge(const llm_tokenizer *t, int64_t left, int64_t right) {
    if (left < 0 || right < 0) return NULL;
    uint32_t slot = pair_slot((uint32_t)left, (uint32_t)right) & t->merge_mask;
    for (int met = 0; met <= LONGEST_RUN && t->merges[slot].rank; met++, slot = (slot + 1) & t->merge_mask)
        if (t->merges[slot].left == (uint32_t)left && t->merges[slot].right == (uint32_t)right) return &t->merges[slot];
    return NULL;
}

/* The value of "<0xAB>", or -1. */
static inline int byte_of(llm_string piece) {
    char copy[7] = {0}, *end;
    if (piece.bytes != 6 || memcmp(piece.text, "<0x", 3) != 0 || piece.text[5] != '>') return -1;
    memcpy(copy, piece.text, 6);
    long value = strtol(copy + 3, &end, 16);
    return end == copy + 5 ? (int)value : -1;
}

#endif
