/* The types that tensors come in, unpacked to float. The block formats of GGUF are ggml's: a block's elements
 * share a scale (d), in some a minimum too, and the K types have a small scale for every 16 or 32 elements as well.
 * Each loop below goes over the elements and says where element i's bits are. */
#include "quants.h"
#include "dense.h"

#include <string.h>

static float half(const unsigned char *at) { return bitstack_f16_to_f32((uint16_t)(at[0] | at[1] << 8)); }

static void unpack_f32(const unsigned char *from, size_t count, float *to) { memcpy(to, from, count * 4); }

static void unpack_bf16(const unsigned char *from, size_t count, float *to) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[2 * i] << 16 | (uint32_t)from[2 * i + 1] << 24;
        memcpy(&to[i], &bits, 4);
    }
}

/* Plain numbers, which no matrix is made of, but files may hold them beside. */
#define UNPACK(name, type)                                                                  \
    static void name(const unsigned char *from, size_t count, float *to) {                  \
        type value;                                                                         \
        for (size_t i = 0; i < count; i++) memcpy(&value, from + i * sizeof value, sizeof value), to[i] = (float)value; \
    }
UNPACK(unpack_i8, int8_t)
UNPACK(unpack_i16, int16_t)
UNPACK(unpack_i32, int32_t)
UNPACK(unpack_i64, int64_t)
UNPACK(unpack_f64, double)

/* ---- blocks of 32: d [m] [fifth bits] nibbles; the low nibbles are elements 0 to 15 ---- */

static void unpack_q4_0(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 18, to += 32) {
        float d = half(from);
        for (int i = 0; i < 16; i++) {
            to[i] = d * (float)((from[2 + i] & 15) - 8);
            to[i + 16] = d * (float)((from[2 + i] >> 4) - 8);
        }
    }
}

static void unpack_q4_1(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 20, to += 32) {
        float d = half(from), m = half(from + 2);
        for (int i = 0; i < 16; i++) {
            to[i] = d * (float)(from[4 + i] & 15) + m;
            to[i + 16] = d * (float)(from[4 + i] >> 4) + m;
        }
    }
}

static void unpack_q5(const unsigned char *bits, const unsigned char *nibbles, float d, float m, float *to) {
    uint32_t fifth = (uint32_t)bits[0] | (uint32_t)bits[1] << 8 | (uint32_t)bits[2] << 16 | (uint32_t)bits[3] << 24;
    for (int i = 0; i < 16; i++) {
        to[i] = d * (float)((nibbles[i] & 15u) | (fifth >> i & 1) << 4) + m;
        to[i + 16] = d * (float)((nibbles[i] >> 4) | (fifth >> (i + 16) & 1) << 4) + m;
    }
}

static void unpack_q5_0(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 22, to += 32) unpack_q5(from + 2, from + 6, half(from), -16 * half(from), to);
}

static void unpack_q5_1(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 24, to += 32) unpack_q5(from + 4, from + 8, half(from), half(from + 2), to);
}

static void unpack_q8_0(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 34, to += 32) {
        float d = half(from);
        for (int i = 0; i < 32; i++) to[i] = d * (float)(signed char)from[2 + i];
    }
}

/* ---- blocks of 256 ---- */

/* Two bits of element 32 j + l, j < 8: of byte 32 (j / 4) + l, at bit 2 (j % 4). */
#define TWO_BITS(at, j, l) ((at)[32 * ((j) / 4) + (l)] >> 2 * ((j) % 4) & 3)
/* Four bits of it: of byte 32 (j / 2) + l, the low nibble for even j. */
#define FOUR_BITS(at, j, l) ((at)[32 * ((j) / 2) + (l)] >> 4 * ((j) % 2) & 15)

static void unpack_q2_k(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 84, to += 256) {
        const unsigned char *scales = from, *bits = from + 16;
        float d = half(from + 80), m = half(from + 82);
        for (int j = 0; j < 8; j++)
            for (int l = 0; l < 32; l++) {
                int scale = scales[2 * j + l / 16];
                to[32 * j + l] = d * (float)(scale & 15) * (float)TWO_BITS(bits, j, l) - m * (float)(scale >> 4);
            }
    }
}

static void unpack_q3_k(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 110, to += 256) {
        const unsigned char *thirds = from, *bits = from + 32, *scales = from + 96;
        float d = half(from + 108);
        for (int j = 0; j < 8; j++)
            for (int l = 0; l < 32; l++) {
                int s = 2 * j + l / 16; /* six bits a scale: four in the first eight bytes, two in the last four */
                int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4, high = scales[8 + s % 4] >> 2 * (s / 4) & 3;
                int q = TWO_BITS(bits, j, l) - (thirds[l] >> j & 1 ? 0 : 4);
                to[32 * j + l] = d * (float)((low | high << 4) - 32) * (float)q;
            }
    }
}

/* Scale and minimum of 32 elements, six bits each: for j < 4 in the low bits of bytes j and j + 4; for the others
 * four bits in the nibbles of byte j + 4, and two in the high bits of bytes j - 4 and j. */
static void scale_and_minimum(const unsigned char *at, int j, float *scale, float *minimum) {
    int s = j < 4 ? at[j] & 63 : (at[j + 4] & 15) | at[j - 4] >> 6 << 4;
    int m = j < 4 ? at[j + 4] & 63 : at[j + 4] >> 4 | at[j] >> 6 << 4;
    *scale = (float)s, *minimum = (float)m;
}

static void unpack_q4_k(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 144, to += 256)
        for (int j = 0; j < 8; j++) {
            float scale, minimum;
            scale_and_minimum(from + 4, j, &scale, &minimum);
            scale *= half(from), minimum *= half(from + 2);
            for (int l = 0; l < 32; l++) to[32 * j + l] = scale * (float)FOUR_BITS(from + 16, j, l) - minimum;
        }
}

static void unpack_q5_k(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 176, to += 256)
        for (int j = 0; j < 8; j++) {
            const unsigned char *fifths = from + 16;
            float scale, minimum;
            scale_and_minimum(from + 4, j, &scale, &minimum);
            scale *= half(from), minimum *= half(from + 2);
            for (int l = 0; l < 32; l++) {
                int q = FOUR_BITS(from + 48, j, l) | (fifths[l] >> j & 1) << 4;
                to[32 * j + l] = scale * (float)q - minimum;
            }
        }
}

/* Of each 128 elements the low nibbles of 64 bytes are the first 64, the high ones the rest. */
static void unpack_q6_k(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 210, to += 256) {
        const signed char *scales = (const signed char *)from + 192;
        float d = half(from + 208);
        for (int j = 0; j < 8; j++) {
            const unsigned char *low = from + 64 * (j / 4) + 32 * (j % 2);
            for (int l = 0; l < 32; l++) {
                int q = (low[l] >> (j % 4 / 2 * 4) & 15) | TWO_BITS(from + 128, j, l) << 4;
                to[32 * j + l] = d * (float)scales[2 * j + l / 16] * (float)(q - 32);
            }
        }
    }
}

const llm_packing *llm_packing_of(uint32_t type) {
    static const llm_packing packings[] = {
        {LLM_TYPE_F32, "F32", 1, 4, unpack_f32},       {LLM_TYPE_F16, "F16", 1, 2, llm_unpack_f16},
        {LLM_TYPE_BF16, "BF16", 1, 2, unpack_bf16},    {LLM_TYPE_Q4_0, "Q4_0", 32, 18, unpack_q4_0},
        {LLM_TYPE_Q4_1, "Q4_1", 32, 20, unpack_q4_1},  {LLM_TYPE_Q5_0, "Q5_0", 32, 22, unpack_q5_0},
        {LLM_TYPE_Q5_1, "Q5_1", 32, 24, unpack_q5_1},  {LLM_TYPE_Q8_0, "Q8_0", 32, 34, unpack_q8_0},
        {LLM_TYPE_Q2_K, "Q2_K", 256, 84, unpack_q2_k}, {LLM_TYPE_Q3_K, "Q3_K", 256, 110, unpack_q3_k},
        {LLM_TYPE_Q4_K, "Q4_K", 256, 144, unpack_q4_k}, {LLM_TYPE_Q5_K, "Q5_K", 256, 176, unpack_q5_k},
        {LLM_TYPE_Q6_K, "Q6_K", 256, 210, unpack_q6_k}, {LLM_TYPE_I8, "I8", 1, 1, unpack_i8},
        {LLM_TYPE_I16, "I16", 1, 2, unpack_i16},       {LLM_TYPE_I32, "I32", 1, 4, unpack_i32},
        {LLM_TYPE_I64, "I64", 1, 8, unpack_i64},       {LLM_TYPE_F64, "F64", 1, 8, unpack_f64},
    };
    for (size_t i = 0; i < sizeof packings / sizeof *packings; i++)
        if ((uint32_t)packings[i].type == type) return &packings[i];
    for (const llm_packing *p = llm_iq_packings; p->name; p++)
        if ((uint32_t)p->type == type) return p;
    return NULL;
}
