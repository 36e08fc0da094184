/* Quantized GGUF tensors unpack to what their blocks say. The blocks are made here from known codes and scales, by
 * the published packing loops; the values are reckoned from those codes, not from the bytes. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/gguf.h"

enum { BLOCKS = 6 }; /* of 256 elements */

static uint64_t seed = 11;
static int dice(int below) { return (int)(test_random(&seed) % (uint64_t)below); }

/* A power of two times an eleven-bit number, as a half and as a double. */
static double half(unsigned char *to) {
    double value = (1024 + dice(1024)) * (dice(2) ? 1 : -1) * ldexp(1, -14 - dice(6));
    float f = (float)value;
    uint16_t h = make_half_(f);
    memcpy(to, &h, 2);
    return value;
}

static void pack_32(int type, unsigned char *at, double *want) {
    int five = type == 6 || type == 7, minimum = type == 3 || type == 7, q[32];
    double d = half(at), m = minimum ? half(at + 2) : 0;
    unsigned char *bits = at + (minimum ? 4 : 2), *nibbles = bits + (five ? 4 : 0);
    for (int i = 0; i < 32; i++) {
        q[i] = dice(five ? 32 : 16);
        want[i] = minimum ? d * q[i] + m : d * (q[i] - (five ? 16 : 8));
    }
    uint32_t high = 0;
    for (int i = 0; i < 16; i++) {
        nibbles[i] = (unsigned char)((q[i] & 15) | (q[i + 16] & 15) << 4);
        high |= (uint32_t)(q[i] >> 4) << i | (uint32_t)(q[i + 16] >> 4) << (i + 16);
    }
    if (five) memcpy(bits, &high, 4);
}

/* Eight six-bit scales and minima in twelve bytes. */
static void pack_scales(unsigned char *at, const int *scales, const int *minima) {
    memset(at, 0, 12);
    for (int j = 0; j < 8; j++)
        if (j < 4) at[j] = (unsigned char)scales[j], at[j + 4] = (unsigned char)minima[j];
        else {
            at[j + 4] = (unsigned char)((scales[j] & 15) | (minima[j] & 15) << 4);
            at[j - 4] = (unsigned char)(at[j - 4] | (scales[j] >> 4) << 6);
            at[j] = (unsigned char)(at[j] | (minima[j] >> 4) << 6);
        }
}

static void pack_256(int type, unsigned char *at, double *want) {
    int q[256], scales[16], minima[16];
    const int most[] = {4, 8, 16, 32, 64}, bits = type - 8; /* Q2_K is 10 */
    for (int i = 0; i < 256; i++) q[i] = dice(most[bits - 2]);
    if (type == 10) {
        double d = half(at + 80), m = half(at + 82);
        for (int s = 0; s < 16; s++) scales[s] = dice(16), minima[s] = dice(16), at[s] = (unsigned char)(scales[s] | minima[s] << 4);
        for (int j = 0; j < 256; j += 128)
            for (int l = 0; l < 32; l++) at[16 + j / 4 + l] = (unsigned char)(q[j + l] | q[j + l + 32] << 2 | q[j + l + 64] << 4 | q[j + l + 96] << 6);
        for (int i = 0; i < 256; i++) want[i] = d * scales[i / 16] * q[i] - m * minima[i / 16];
    } else if (type == 11) {
        double d = half(at + 108);
        int mask = 1, byte = 0;
        memset(at, 0, 32);
        for (int i = 0; i < 256; i++) { /* the third bit: 32 elements a mask */
            if (q[i] > 3) at[byte] = (unsigned char)(at[byte] | mask);
            if (++byte == 32) byte = 0, mask <<= 1;
        }
        memset(at + 96, 0, 12);
        for (int s = 0; s < 16; s++) {
            scales[s] = dice(64);
            if (s < 8) at[96 + s] = (unsigned char)(scales[s] & 15);
            else at[96 + s - 8] = (unsigned char)(at[96 + s - 8] | (scales[s] & 15) << 4);
            at[96 + 8 + s % 4] = (unsigned char)(at[96 + 8 + s % 4] | (scales[s] >> 4) << (2 * (s / 4)));
        }
        for (int j = 0; j < 256; j += 128)
            for (int l = 0; l < 32; l++)
                at[32 + j / 4 + l] = (unsigned char)((q[j + l] & 3) | (q[j + l + 32] & 3) << 2 | (q[j + l + 64] & 3) << 4 | (q[j + l + 96] & 3) << 6);
        for (int i = 0; i < 256; i++) want[i] = d * (scales[i / 16] - 32) * (q[i] - 4);
    } else if (type < 14) {
        double d = half(at), m = half(at + 2);
        unsigned char *high = at + 16, *low = type == 13 ? at + 48 : at + 16;
        for (int s = 0; s < 8; s++) scales[s] = dice(64), minima[s] = dice(64);
        pack_scales(at + 4, scales, minima);
        if (type == 13) memset(high, 0, 32);
        int first = 1, second = 2;
        for (int n = 0; n < 256; n += 64, first <<= 2, second <<= 2)
            for (int j = 0; j < 32; j++) {
                int a = q[n + j], b = q[n + j + 32];
                if (a > 15) a -= 16, high[j] = (unsigned char)(high[j] | first);
                if (b > 15) b -= 16, high[j] = (unsigned char)(high[j] | second);
                *low++ = (unsigned char)(a | b << 4);
            }
        for (int i = 0; i < 256; i++) want[i] = d * scales[i / 32] * q[i] - m * minima[i / 32];
    } else {
        double d = half(at + 208);
        unsigned char *low = at, *high = at + 128;
        for (int s = 0; s < 16; s++) scales[s] = dice(256) - 128, at[192 + s] = (unsigned char)scales[s];
        for (int j = 0; j < 256; j += 128, low += 64, high += 32)
            for (int l = 0; l < 32; l++) {
                low[l] = (unsigned char)((q[j + l] & 15) | (q[j + l + 64] & 15) << 4);
                low[l + 32] = (unsigned char)((q[j + l + 32] & 15) | (q[j + l + 96] & 15) << 4);
                high[l] = (unsigned char)(q[j + l] >> 4 | (q[j + l + 32] >> 4) << 2 | (q[j + l + 64] >> 4) << 4 | (q[j + l + 96] >> 4) << 6);
            }
        for (int i = 0; i < 256; i++) want[i] = d * scales[i / 16] * (q[i] - 32);
    }
}

int main(void) {
    static const struct { const char *name; uint32_t type; size_t bytes; } types[] = { /* bytes for 256 elements */
        {"Q4_0", 2, 8 * 18}, {"Q4_1", 3, 8 * 20}, {"Q5_0", 6, 8 * 22}, {"Q5_1", 7, 8 * 24}, {"Q2_K", 10, 84},
        {"Q3_K", 11, 110}, {"Q4_K", 12, 144}, {"Q5_K", 13, 176}, {"Q6_K", 14, 210}};
    char sentences[9][100];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        snprintf(sentences[t], sizeof sentences[t], "%s blocks unpack to their codes times their scales", types[t].name);
        TEST(sentences[t]);
        unsigned char *data = (unsigned char *)calloc(BLOCKS, types[t].bytes);
        double want[BLOCKS * 256];
        float got[512];
        for (int b = 0; b < BLOCKS; b++) {
            unsigned char *at = data + (size_t)b * types[t].bytes;
            if (types[t].type >= 10) pack_256((int)types[t].type, at, want + 256 * b);
            else
                for (int i = 0; i < 8; i++) pack_32((int)types[t].type, at + (size_t)i * types[t].bytes / 8, want + 256 * b + 32 * i);
        }
        gguf_maker g;
        const uint64_t shape[2] = {512, BLOCKS / 2};
        make_start(&g, 3);
        make_tensor(&g, "t", 2, shape, types[t].type, BLOCKS * types[t].bytes);
        make_finish(&g);
        make_data(&g, data, BLOCKS * types[t].bytes);
        llm_source s;
        llm_error error;
        int opened = llm_gguf_open_memory(&s, g.data, g.bytes, "quants.gguf", &error) == 0;
        CHECK(opened, "%s", error.message);
        if (opened) {
            const llm_packing *packing = llm_packing_of(types[t].type);
            CHECK(packing && strcmp(packing->name, types[t].name) == 0, "no such type");
            for (uint64_t row = BLOCKS / 2; row-- > 0; ) {
                llm_tensor_read(llm_find_tensor(&s, "t"), row, 1, got);
                for (size_t i = 0; i < 512; i++) {
                    double w = want[row * 512 + i];
                    /* d times scale may round, and so may the subtraction of a minimum */
                    CHECK(fabs((double)got[i] - w) <= 1e-6 * fabs(w) + 2e-4, "row %d, element %zu is %.9g, not %.9g", (int)row, i, (double)got[i], w);
                }
            }
            llm_source_close(&s);
        }
        free(g.data), free(data);
    }
    return TEST_DONE();
}
