/* make_gguf.h - writes small GGUF files into memory for tests, from the format's published description. */
#ifndef MAKE_GGUF_H
#define MAKE_GGUF_H

#include <stdint.h>
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
#endif
