/* The newer of ggml's block types: values that are not evenly spaced (IQ4), groups of eight or four values looked up in
 * a grid and given signs (IQ1, IQ2, IQ3), threes (TQ1), and small floats (MXFP4, NVFP4). */
#include "quants.h"
#include "iq_tables.h"
#include "numbers.h"

#include <math.h>
#include <pthread.h>

static float half(const unsigned char *at) { return bitstack_f16_to_f32((uint16_t)(at[0] | at[1] << 8)); }
static uint32_t u16(const unsigned char *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static uint32_t u32(const unsigned char *at) { return u16(at) | u16(at + 2) << 16; }

/* ---- grids ---- */

static uint16_t iq2_xxs[256], iq2_xs[512], iq2_s[1024], iq1[2048], iq3_xxs[256], iq3_s[512];
static pthread_once_t expanded = PTHREAD_ONCE_INIT;

static void expand(const char *differences, uint16_t *to) {
    for (uint32_t value = 0; *differences; ) *to++ = (uint16_t)(value += llm_next_number(&differences));
}

static void expand_all(void) {
    expand(grid_iq2_xxs, iq2_xxs), expand(grid_iq2_xs, iq2_xs), expand(grid_iq2_s, iq2_s), expand(grid_iq1_s, iq1);
    expand(grid_iq3_xxs, iq3_xxs), expand(grid_iq3_s, iq3_s);
}

static void need_grids(void) { pthread_once(&expanded, expand_all); }

/* Seven signs are stored, the eighth makes their number even. */
static unsigned with_eighth(uint32_t seven) {
    uint32_t s = seven & 127, parity = s ^ s >> 4;
    parity ^= parity >> 2;
    return (unsigned)(s | ((parity ^ parity >> 1) & 1) << 7);
}

static void put_8(uint16_t sizes, unsigned signs, float d, float *to) {
    static const float values[4] = {8, 25, 43, 0};
    for (int i = 0; i < 8; i++) to[i] = d * values[sizes >> 2 * i & 3] * (signs >> i & 1 ? -1.0f : 1.0f);
}

static void put_4(uint16_t sizes, const float *values, unsigned signs, float d, float *to) {
    for (int i = 0; i < 4; i++) to[i] = d * values[sizes >> 4 * i & 7] * (signs >> i & 1 ? -1.0f : 1.0f);
}

static void unpack_iq2_xxs(const unsigned char *from, size_t count, float *to) {
    need_grids();
    for (; count; count -= 256, from += 66, to += 256)
        for (int g = 0; g < 8; g++) {
            const unsigned char *at = from + 2 + 8 * g;
            uint32_t rest = u32(at + 4);
            float d = half(from) * (0.5f + (float)(rest >> 28)) * 0.25f;
            for (int i = 0; i < 4; i++) put_8(iq2_xxs[at[i]], with_eighth(rest >> 7 * i), d, to + 32 * g + 8 * i);
        }
}

static void unpack_iq2_xs(const unsigned char *from, size_t count, float *to) {
    need_grids();
    for (; count; count -= 256, from += 74, to += 256)
        for (int i = 0; i < 32; i++) {
            uint32_t index = u16(from + 2 + 2 * i);
            float scale = (float)(from[66 + i / 4] >> i / 2 % 2 * 4 & 15);
            put_8(iq2_xs[index & 511], with_eighth(index >> 9), half(from) * (0.5f + scale) * 0.25f, to + 8 * i);
        }
}

static void unpack_iq2_s(const unsigned char *from, size_t count, float *to) {
    need_grids();
    for (; count; count -= 256, from += 82, to += 256)
        for (int i = 0; i < 32; i++) {
            uint32_t index = from[2 + i] | (uint32_t)(from[66 + i / 4] >> i % 4 * 2 & 3) << 8;
            float scale = (float)(from[74 + i / 4] >> i / 2 % 2 * 4 & 15);
            put_8(iq2_s[index], from[34 + i], half(from) * (0.5f + scale) * 0.25f, to + 8 * i);
        }
}

static void unpack_iq3_xxs(const unsigned char *from, size_t count, float *to) {
    static const float values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    need_grids();
    for (; count; count -= 256, from += 98, to += 256)
        for (int g = 0; g < 8; g++) {
            uint32_t rest = u32(from + 66 + 4 * g);
            float d = half(from) * (0.5f + (float)(rest >> 28)) * 0.5f;
            for (int i = 0; i < 8; i++)
                put_4(iq3_xxs[from[2 + 8 * g + i]], values, with_eighth(rest >> i / 2 * 7) >> i % 2 * 4, d, to + 32 * g + 4 * i);
        }
}

static void unpack_iq3_s(const unsigned char *from, size_t count, float *to) {
    static const float values[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    need_grids();
    for (; count; count -= 256, from += 110, to += 256)
        for (int i = 0; i < 64; i++) {
            uint32_t index = from[2 + i] | (uint32_t)(from[66 + i / 8] >> i % 8 & 1) << 8;
            float d = half(from) * (float)(1 + 2 * (from[106 + i / 16] >> i / 8 % 2 * 4 & 15));
            put_4(iq3_s[index], values, (unsigned)from[74 + i / 2] >> i % 2 * 4, d, to + 4 * i);
        }
}

/* -1, 0 or 1, all moved by an eighth up or down. */
static void put_threes(uint16_t codes, float d, float moved, float *to) {
    for (int i = 0; i < 8; i++) to[i] = d * ((float)(codes >> 2 * i & 3) - 1 + moved);
}

static void unpack_iq1_s(const unsigned char *from, size_t count, float *to) {
    need_grids();
    for (; count; count -= 256, from += 50, to += 256)
        for (int i = 0; i < 32; i++) {
            uint32_t high = u16(from + 34 + i / 4 * 2), index = from[2 + i] | (high >> i % 4 * 3 & 7) << 8;
            put_threes(iq1[index], half(from) * (float)(2 * (high >> 12 & 7) + 1), high & 0x8000 ? -0.125f : 0.125f, to + 8 * i);
        }
}

/* The scale of all stands in the highest four bits of four numbers that hold those of 16 elements each. */
static void unpack_iq1_m(const unsigned char *from, size_t count, float *to) {
    need_grids();
    for (; count; count -= 256, from += 56, to += 256) {
        const unsigned char *scales = from + 48;
        uint32_t whole = u16(scales) >> 12 | (u16(scales + 2) >> 8 & 0xf0) | (u16(scales + 4) >> 4 & 0xf00) | (u16(scales + 6) & 0xf000);
        float d = bitstack_f16_to_f32((uint16_t)whole);
        for (int i = 0; i < 32; i++) {
            uint32_t high = from[32 + i / 2] >> i % 2 * 4, index = from[i] | (high & 7) << 8;
            float scale = (float)(2 * (u16(scales + i / 8 * 2) >> i / 2 % 4 * 3 & 7) + 1);
            put_threes(iq1[index], d * scale, high & 8 ? -0.125f : 0.125f, to + 8 * i);
        }
    }
}

/* ---- sixteen values ---- */

static const float nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float small_floats[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; /* twice E2M1's */

/* 2 n values: the low nibbles are the first n. */
static void put_nibbles(const unsigned char *from, int n, const float *values, float d, float *to) {
    for (int i = 0; i < n; i++) to[i] = d * values[from[i] & 15], to[i + n] = d * values[from[i] >> 4];
}

static void unpack_iq4_nl(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 18, to += 32) put_nibbles(from + 2, 16, nonlinear, half(from), to);
}

static void unpack_iq4_xs(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 136, to += 256)
        for (int j = 0; j < 8; j++) {
            int scale = (from[4 + j / 2] >> j % 2 * 4 & 15) | (int)(u16(from + 2) >> 2 * j & 3) << 4;
            put_nibbles(from + 8 + 16 * j, 16, nonlinear, half(from) * (float)(scale - 32), to + 32 * j);
        }
}

/* A power of two for 32 values. */
static void unpack_mxfp4(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 32, from += 17, to += 32) put_nibbles(from + 1, 16, small_floats, ldexpf(1, from[0] - 128), to);
}

/* A positive float of four bits' exponent and three bits for 16 values; half of it, for the values are twice theirs. */
static float e4m3(unsigned char x) {
    int exponent = x >> 3 & 15, rest = x & 7;
    if (x == 127) return 0; /* no number */
    return exponent ? ldexpf(1 + (float)rest / 8, exponent - 8) : ldexpf((float)rest, -10);
}

static void unpack_nvfp4(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 64, from += 36, to += 64)
        for (int j = 0; j < 4; j++) put_nibbles(from + 4 + 8 * j, 8, small_floats, e4m3(from[j]), to + 16 * j);
}

/* ---- threes ---- */

/* The n-th of five digits in base 3: the byte is a fraction of 243, rounded up to one of 256. */
static float three(unsigned char byte, int n) {
    static const unsigned powers[5] = {1, 3, 9, 27, 81};
    return (float)((byte * powers[n] & 255) * 3 >> 8) - 1;
}

static void unpack_tq1_0(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 54, to += 256) {
        float d = half(from + 52);
        for (int i = 0; i < 256; i++) {
            int first = i < 160 ? 0 : i < 240 ? 32 : 48, wide = i < 160 ? 32 : i < 240 ? 16 : 4, k = i - (i < 160 ? 0 : i < 240 ? 160 : 240);
            to[i] = d * three(from[first + k % wide], k / wide);
        }
    }
}

static void unpack_tq2_0(const unsigned char *from, size_t count, float *to) {
    for (; count; count -= 256, from += 66, to += 256)
        for (int i = 0; i < 256; i++) to[i] = half(from + 64) * (float)((from[32 * (i / 128) + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
}

const llm_packing llm_iq_packings[] = {
    {LLM_TYPE_IQ2_XXS, "IQ2_XXS", 256, 66, unpack_iq2_xxs}, {LLM_TYPE_IQ2_XS, "IQ2_XS", 256, 74, unpack_iq2_xs},
    {LLM_TYPE_IQ2_S, "IQ2_S", 256, 82, unpack_iq2_s},       {LLM_TYPE_IQ3_XXS, "IQ3_XXS", 256, 98, unpack_iq3_xxs},
    {LLM_TYPE_IQ3_S, "IQ3_S", 256, 110, unpack_iq3_s},      {LLM_TYPE_IQ1_S, "IQ1_S", 256, 50, unpack_iq1_s},
    {LLM_TYPE_IQ1_M, "IQ1_M", 256, 56, unpack_iq1_m},       {LLM_TYPE_IQ4_NL, "IQ4_NL", 32, 18, unpack_iq4_nl},
    {LLM_TYPE_IQ4_XS, "IQ4_XS", 256, 136, unpack_iq4_xs},   {LLM_TYPE_MXFP4, "MXFP4", 32, 17, unpack_mxfp4},
    {LLM_TYPE_NVFP4, "NVFP4", 64, 36, unpack_nvfp4},        {LLM_TYPE_TQ1_0, "TQ1_0", 256, 54, unpack_tq1_0},
    {LLM_TYPE_TQ2_0, "TQ2_0", 256, 66, unpack_tq2_0},       {LLM_TYPE_F32, NULL, 0, 0, NULL}};
