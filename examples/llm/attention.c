#include "attention.h"
#include "bitstack.h"
#include "dense.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
    PANEL = 16, /* positions that stand together */
    BLOCK = 64, /* keys of a step of the running softmax */
    ROWS = 64,  /* queries, of all heads and tokens of a tile, that go through a block together */
    HIGH = 6
};

/* What a product of rows a by b reads and writes: strides in floats. */
typedef struct operands {
    size_t rows, depth, a_stride, b_step, b_wide, out_stride;
    size_t each, piece; /* so many rows of b stand together, the next ones this far on */
} operands;

typedef struct kernels {
    void (*score)(const operands *o, const float *q, const float *keys, size_t panels, size_t panel, float *out);
    void (*weigh)(const operands *o, const float *p, const float *values, size_t channels, float *out);
    float (*greatest)(const float *s);
    void (*lower)(float *s, float by);
    void (*times)(float *s, const float *factors);
    float (*total)(const float *s);
    void (*unpack)(const unsigned char *from, size_t count, float *to);
} kernels;

#define NAME(x) x##_plain
#define TARGET
#define LANES 4
#if defined(__aarch64__)
#define WIDE 4
#else
#define WIDE 2
#endif
#include "attention_kernel.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define WIDE 2
#include "attention_kernel.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define LANES 16
#define WIDE 4
#include "attention_kernel.h"
#endif

static const kernels *kernels_in_use(void) {
#if defined(__x86_64__)
    if (llm_dense_limit(-1) >= LLM_DENSE_AVX512) return &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kernels_avx2;
#endif
    return &kernels_plain;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t whole(size_t count, size_t of) { return (count + of - 1) / of * of; }

/* ---- keeping ---- */

static size_t element_bytes(int type) { return type == LLM_KEEP_F32 ? 4 : type == LLM_KEEP_F16 ? 2 : 1; }

/* A group's part of a panel. Bytes are followed by a scale a position. */
static size_t group_bytes(int type, size_t size) {
    return PANEL * whole(size, 16) * element_bytes(type) + (type == LLM_KEEP_8 ? PANEL * sizeof(float) : 0);
}

size_t llm_kept_bytes(int type, size_t groups, size_t size, size_t positions) {
    return whole(positions, PANEL) / PANEL * groups * group_bytes(type, size);
}

/* One head's channels, `step` elements apart, of the position `at` in its panel. */
static void keep_head(int type, const float *x, size_t size, unsigned char *group, size_t at, size_t first, size_t step) {
    if (type == LLM_KEEP_F32) {
        float *to = (float *)(void *)group + first;
        for (size_t j = 0; j < size; j++) to[j * step] = x[j];
    } else if (type == LLM_KEEP_F16) {
        uint16_t *to = (uint16_t *)(void *)group + first;
        for (size_t j = 0; j < size; j++) to[j * step] = bitstack_f32_to_f16(x[j] > 65504 ? 65504 : x[j] < -65504 ? -65504 : x[j]);
    } else {
        float most = 0, *scales = (float *)(void *)(group + PANEL * whole(size, 16));
        for (size_t j = 0; j < size; j++) most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
        float scale = most / 127, back = most > 0 ? 127 / most : 0;
        if (!(back <= 3e38f)) scale = back = 0; /* subnormal numbers */
        for (size_t j = 0; j < size; j++) {
            float a = x[j] * back;
            group[first + j * step] = (unsigned char)(int8_t)(a < 0 ? a - 0.5f : a + 0.5f);
        }
        scales[at] = scale;
    }
}

void llm_keep(const llm_kept *kept, size_t first, size_t count, const float *keys, const float *values) {
    size_t size = kept->size, wide = whole(size, 16), each = group_bytes(kept->type, size);
    for (size_t t = first; t < first + count; t++) {
        size_t panel = t / PANEL * kept->groups * each, at = t % PANEL;
        for (size_t g = 0; g < kept->groups; g++, panel += each, keys += size, values += size) {
            unsigned char *row = kept->values + panel;
            keep_head(kept->type, keys, size, kept->keys + panel, at, at, PANEL);
            keep_head(kept->type, values, size, row, at, at * wide, 1);
            memset(row + (at * wide + size) * element_bytes(kept->type), 0, (wide - size) * element_bytes(kept->type));
        }
    }
}

/* ---- a tile of queries ---- */

typedef struct tile {
    const llm_attention_blocks *a;
    const kernels *k;
    size_t group, heads, first, tokens, rows; /* rows: tokens x heads, a token's heads together */
    size_t wide;                              /* channels, filled up */
    float *q, *scores, *out, *most, *total, *keys, *values, *scales;
} tile;

size_t llm_attention_room(size_t size) {
    size_t wide = whole(size, 16);
    return 2 * ROWS * wide + ROWS * BLOCK + 2 * ROWS + 2 * BLOCK * wide + BLOCK;
}

static void take_room(tile *t, float *room) {
    t->scores = room, room += ROWS * BLOCK;
    t->out = room, room += ROWS * t->wide;
    t->q = room, room += ROWS * t->wide;
    t->keys = room, room += BLOCK * t->wide;
    t->values = room, room += BLOCK * t->wide;
    t->scales = room, room += BLOCK;
    t->most = room, room += ROWS;
    t->total = room;
}

/* Keys or values [j, j + count): where they are as floats; how far apart their panels stand; and bytes' scales. */
static const float *floats_of(const tile *t, const unsigned char *kept, size_t j, size_t count, float *to, size_t *apart, float *scales) {
    size_t each = group_bytes(t->a->kept.type, t->a->kept.size), panel = t->a->kept.groups * each, floats = PANEL * t->wide;
    const unsigned char *from = kept + j / PANEL * panel + t->group * each;
    *apart = t->a->kept.type == LLM_KEEP_F32 ? panel / sizeof(float) : floats;
    if (t->a->kept.type == LLM_KEEP_F32) return (const float *)(const void *)from;
    for (size_t k = 0; k < count; k += PANEL, from += panel)
        if (t->a->kept.type == LLM_KEEP_F16) llm_unpack_f16(from, floats, to + k * t->wide);
        else {
            t->k->unpack(from, floats, to + k * t->wide);
            memcpy(scales + k, from + floats, least(PANEL, count - k) * sizeof *scales);
        }
    if (t->a->kept.type == LLM_KEEP_8) memset(scales + count, 0, (BLOCK - count) * sizeof *scales);
    return to;
}

/* What row r sees of the block at j: [from, end). */
typedef struct span {
    size_t from, end;
} span;

static span seen_of(const tile *t, size_t r, size_t j) {
    size_t last = t->a->position + t->first + r / t->heads + 1;
    size_t begin = t->a->window && last > t->a->window ? last - t->a->window : 0;
    return (span){begin > j ? least(begin - j, BLOCK) : 0, last > j ? least(last - j, BLOCK) : 0};
}

/* A row's scores become what they are below the greatest so far; its outputs and their total are brought to that. */
static void lower_row(const tile *t, size_t r, span seen) {
    float *s = t->scores + r * BLOCK;
    for (size_t j = 0; j < seen.from; j++) s[j] = -INFINITY;
    for (size_t j = seen.end; j < BLOCK; j++) s[j] = -INFINITY;
    float top = t->k->greatest(s);
    if (top > t->most[r]) {
        float factor = expf(t->most[r] - top), *out = t->out + r * t->wide;
        t->most[r] = top;
        t->total[r] *= factor;
        for (size_t j = 0; j < t->wide; j++) out[j] *= factor;
    }
    t->k->lower(s, t->most[r]);
}

static void sum_row(const tile *t, size_t r, span seen) {
    float *s = t->scores + r * BLOCK;
    memset(s, 0, seen.from * sizeof *s); /* llm_exp(-INFINITY) is not quite 0 */
    memset(s + seen.end, 0, (BLOCK - seen.end) * sizeof *s);
    t->total[r] += t->k->total(s);
}

/* Keys [j, j + count) for the rows that see some of them: these follow each other. */
static void attend_block(const tile *t, size_t j, size_t count) {
    size_t begin = 0, end = t->rows, apart;
    const llm_kept *kept = &t->a->kept;
    while (begin < end && seen_of(t, begin, j).end == 0) begin++;
    while (end > begin && seen_of(t, end - 1, j).from == BLOCK) end--;
    if (end == begin) return;
    const float *keys = floats_of(t, kept->keys, j, count, t->keys, &apart, t->scales);
    operands score = {end - begin, kept->size, t->wide, PANEL, 0, BLOCK, kept->size, 0};
    t->k->score(&score, t->q + begin * t->wide, keys, (count + PANEL - 1) / PANEL, apart, t->scores + begin * BLOCK);
    for (size_t r = begin; r < end; r++) {
        if (kept->type == LLM_KEEP_8) t->k->times(t->scores + r * BLOCK, t->scales);
        lower_row(t, r, seen_of(t, r, j));
    }
    llm_exp(t->scores + begin * BLOCK, (end - begin) * BLOCK);
    const float *values = floats_of(t, kept->values, j, count, t->values, &apart, t->scales);
    for (size_t r = begin; r < end; r++) {
        sum_row(t, r, seen_of(t, r, j));
        if (kept->type == LLM_KEEP_8) t->k->times(t->scores + r * BLOCK, t->scales);
    }
    operands weigh = {end - begin, count, BLOCK, t->wide, 0, t->wide, PANEL, apart};
    t->k->weigh(&weigh, t->scores + begin * BLOCK, values, t->wide, t->out + begin * t->wide);
}

static void attend_tile(const tile *t, size_t head, const float *q, float *out) {
    const llm_attention_blocks *a = t->a;
    size_t size = a->kept.size, last = a->position + t->first + t->tokens, seen = a->position + t->first + 1;
    for (size_t r = 0; r < t->rows; r++) {
        const float *from = q + (t->first + r / t->heads) * a->stride + (head + r % t->heads) * size;
        for (size_t j = 0; j < size; j++) t->q[r * t->wide + j] = from[j] * a->scale;
        t->most[r] = -INFINITY, t->total[r] = 0;
    }
    memset(t->out, 0, t->rows * t->wide * sizeof *t->out);
    for (size_t j = a->window && seen > a->window ? (seen - a->window) / BLOCK * BLOCK : 0; j < last; j += BLOCK)
        attend_block(t, j, least(BLOCK, last - j));
    for (size_t r = 0; r < t->rows; r++) {
        float *to = out + (t->first + r / t->heads) * a->stride + (head + r % t->heads) * size, share = 1 / t->total[r];
        for (size_t j = 0; j < size; j++) to[j] = t->out[r * t->wide + j] * share;
    }
}

static size_t tokens_of(const llm_attention_blocks *a) { return a->heads < ROWS ? ROWS / a->heads : 1; }

size_t llm_attention_pieces(const llm_attention_blocks *a, size_t count) {
    return (count + tokens_of(a) - 1) / tokens_of(a) * a->kept.groups;
}

/* The last tokens, which see most, come first. */
void llm_attention_piece(const llm_attention_blocks *a, size_t piece, size_t count, const float *q, float *out, float *room) {
    size_t most = tokens_of(a), tiles = (count + most - 1) / most;
    tile t = {a, kernels_in_use(), piece % a->kept.groups, 0, (tiles - 1 - piece / a->kept.groups) * most, 0, 0,
              whole(a->kept.size, 16), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    take_room(&t, room);
    t.tokens = least(most, count - t.first);
    for (size_t h = 0; h < a->heads; h += ROWS) {
        t.heads = least(ROWS, a->heads - h);
        t.rows = t.tokens * t.heads;
        attend_tile(&t, t.group * a->heads + h, q, out);
    }
}
