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

/* Blocks of random bytes, and what gguf-py's dequantize makes of them: the sum, a weighted one, elements 0, 37, 130 and
 * 255. Bytes that would make scales of any size are kept to moderate ones. */
static const struct { uint32_t type; const char *name; size_t bytes; double sum, weighted, some[4]; } golden[] = {
    {16, "IQ2_XXS", 66, -3.04982281, -10.3233786, {-0.247138977, -0.229029655, -0.719046593, -0.16191864}},
    {17, "IQ2_XS", 74, 2.46643066, -7.68054199, {0.219726562, 0.0263671875, 0.202148438, 0.272460938}},
    {18, "IQ3_XXS", 98, -10.1718941, 91.2686081, {1.12560272, -0.106636047, -4.77492523, 0.106636047}},
    {19, "IQ1_S", 50, 0.515197754, 0.225399017, {0.163799286, 0.0489997864, 0.0125999451, -0.0013999939}},
    {20, "IQ4_NL", 144, 5.70265198, -3.60314941, {-1.04450989, -0.00928497314, 1.60992432, 0.442123413}},
    {21, "IQ3_S", 110, 0.611755371, 94.1750336, {4.01170349, 1.0705719, -0.0117645264, 0.0588226318}},
    {22, "IQ2_S", 82, 18.5944519, 109.566307, {0.902366638, 0.34954834, 0.34954834, -0.0759887695}},
    {23, "IQ4_XS", 136, -86.9441528, 332.376526, {-12.1124268, -3.82983398, 12.7122803, 10.7396851}},
    {29, "IQ1_M", 56, 1.93051147, 8.81042099, {-0.172367096, -0.0147743225, 0.517101288, -0.103420258}},
    {34, "TQ1_0", 54, -0.0925521851, -0.951965332, {0, 0, 0, -0.0132217407}},
    {35, "TQ2_0", 66, -0.8125, -5.125, {-0, -0.015625, 0.0078125, -0.015625}},
    {39, "MXFP4", 136, -23.84375, -169.578125, {2, -0.125, -0.0625, -0.375}},
    {40, "NVFP4", 144, -3629.60352, -49019.2129, {-0.875, -0.4375, 0, -5}},
};

static void golden_bytes(unsigned char *at, uint32_t type, size_t bytes) {
    uint64_t state = type;
    for (size_t i = 0; i < bytes; i++) at[i] = (unsigned char)(test_random(&state) >> 56);
    size_t block = type == 39 ? 17 : type == 40 ? 36 : type == 20 ? 18 : bytes;
    for (size_t b = 0; b < bytes; b += block) {
        unsigned char *of = at + b;
        if (type == 39) of[0] = (unsigned char)((of[0] & 7) | 0x78);
        else if (type == 40) for (int i = 0; i < 4; i++) of[i] &= 0x7e;
        else if (type == 29) of[55] = (unsigned char)((of[55] & 0x8f) | 0x20);
        else of[type == 34 ? 53 : type == 35 ? 65 : 1] = (unsigned char)((of[type == 34 ? 53 : type == 35 ? 65 : 1] & 0x83) | 0x20);
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
    TEST("the IQ types, TQ1_0, TQ2_0, MXFP4 and NVFP4 unpack as gguf-py unpacks them");
    for (size_t t = 0; t < sizeof golden / sizeof *golden; t++) {
        static unsigned char data[512];
        float got[256];
        double sum = 0, weighted = 0;
        const llm_packing *packing = llm_packing_of(golden[t].type);
        CHECK(packing && strcmp(packing->name, golden[t].name) == 0 && 256 / packing->elements * packing->bytes == golden[t].bytes, "%s", golden[t].name);
        if (!packing) continue;
        golden_bytes(data, golden[t].type, golden[t].bytes);
        packing->unpack(data, 256, got);
        for (int i = 0; i < 256; i++) sum += (double)got[i], weighted += (double)got[i] * ((i * 7 + 1) % 13);
        CHECK(fabs(sum - golden[t].sum) <= 1e-5 * fabs(sum) + 1e-6 && fabs(weighted - golden[t].weighted) <= 1e-5 * fabs(weighted) + 1e-6, "%s: %.9g and %.9g", golden[t].name,
              sum, weighted);
        static const int at[4] = {0, 37, 130, 255};
        for (int i = 0; i < 4; i++)
            CHECK(fabs((double)got[at[i]] - golden[t].some[i]) <= 1e-7 * fabs(golden[t].some[i]), "%s: element %d is %.9g", golden[t].name, at[i], (double)got[at[i]]);
    }

    TEST("integers and doubles that stand beside a model's weights are read as numbers");
    const int16_t wholes[2] = {-3, 300};
    const double reals[2] = {1.5, -1e30};
    const int64_t longs[2] = {-5, 1ll << 40};
    float two[2];
    llm_packing_of(25)->unpack((const unsigned char *)wholes, 2, two);
    CHECK(two[0] == -3 && two[1] == 300, "%g %g", (double)two[0], (double)two[1]);
    llm_packing_of(28)->unpack((const unsigned char *)reals, 2, two);
    CHECK(two[0] == 1.5f && two[1] == -1e30f, "%g %g", (double)two[0], (double)two[1]);
    llm_packing_of(27)->unpack((const unsigned char *)longs, 2, two);
    CHECK(two[0] == -5 && two[1] == 1099511627776.0f && !llm_packing_of(99) && !llm_packing_of(38), "%g %g", (double)two[0], (double)two[1]);
    return TEST_DONE();
}
