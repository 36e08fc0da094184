/* Products with 1 to 8-bit integers by counting bits equal the integer sums, on every instruction set. */
#include "bitstack.h"
#include "test.h"

static void check(uint64_t *seed, uint32_t rows, uint32_t cols, int bits, int is_signed) {
    size_t groups = (cols + 3) / 4, bytes = (size_t)(rows + 63) / 64 * groups * 32, packed = bitstack_pack_bits(NULL, NULL, cols, bits);
    unsigned char *memory = (unsigned char *)calloc(bytes + 1, 1), *signs = memory + 1, *planes = (unsigned char *)malloc(packed + 1);
    int32_t *a = (int32_t *)malloc(4 * (size_t)cols), *want = (int32_t *)calloc(rows, 4), *y = (int32_t *)malloc(4 * (size_t)rows + 8);
    for (uint32_t j = 0; j < cols; j++) {
        uint64_t dice = test_random(seed);
        a[j] = cols % 3 == 0 || dice % 5 == 0 ? (1 << bits) - 1 : (int32_t)(dice >> 32 & ((1u << bits) - 1)); /* often the largest */
        if (is_signed && a[j] >= 1 << (bits - 1)) a[j] -= 1 << bits;
    }
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++) {
            int plus = i % 7 == 3 ? 1 : (int)(test_random(seed) & 1);
            want[i] += plus ? a[j] : -a[j];
            if (plus) signs[(i / 64 * groups + j / 4) * 32 + i % 32] |= (unsigned char)(1u << (j % 4 + (i % 64 < 32 ? 0 : 4)));
        }
    CHECK(bitstack_pack_bits(planes, a, cols, bits) == packed && packed == (size_t)bits * ((cols + 7) / 8), "packed %zu bytes", packed);
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        uint32_t begin = (uint32_t)(test_random(seed) % rows), count = 1 + (uint32_t)(test_random(seed) % (rows - begin));
        for (uint32_t i = 0; i < rows + 2; i++) y[i] = 77;
        CHECK(bitstack_popcount_gemv(signs, rows, cols, planes, bits, is_signed, y + 1, 0, rows) == BITSTACK_OK, "failed");
        for (uint32_t i = 0; i < rows; i++)
            CHECK(y[i + 1] == want[i], "%s %u x %u, %d bits, row %u: %d instead of %d", bitstack_isa(), rows, cols, bits, i, y[i + 1], want[i]);
        CHECK(y[0] == 77 && y[rows + 1] == 77, "%s wrote outside", bitstack_isa());
        for (uint32_t i = 0; i < rows + 2; i++) y[i] = 77;
        bitstack_popcount_gemv(signs, rows, cols, planes, bits, is_signed, y, begin, count);
        CHECK(!memcmp(y, want + begin, 4 * (size_t)count) && y[count] == 77, "%s: rows %u + %u differ", bitstack_isa(), begin, count);
    }
    free(memory), free(planes), free(a), free(want), free(y);
}

int main(void) {
    uint64_t seed = 9;
    int32_t y[1];
    TEST("sums are exact for all sizes, 1 to 8 bits, signed or not");
    for (int i = 0; i < 300; i++) {
        uint32_t rows = 1 + (uint32_t)(test_random(&seed) % 150), cols = 1 + (uint32_t)(test_random(&seed) % 400);
        check(&seed, rows, cols, 1 + i % 8, i / 8 % 2);
    }
    check(&seed, 70, 20001, 8, 0);
    check(&seed, 64, 14336, 4, 1);
    TEST("bad arguments are refused");
    CHECK(bitstack_pack_bits(NULL, NULL, 8, 9) == 0 && bitstack_pack_bits(NULL, NULL, 8, 0) == 0, "0 or 9 bits");
    CHECK(bitstack_popcount_gemv(y, 1, 1, y, 9, 0, y, 0, 1) == BITSTACK_ERROR_ARGUMENT, "9 bits");
    CHECK(bitstack_popcount_gemv(y, 1, 1, y, 1, 0, y, 0, 2) == BITSTACK_ERROR_ARGUMENT, "rows past the end");
    CHECK(bitstack_popcount_gemv(y, 1, 1u << 24, y, 1, 0, y, 0, 1) == BITSTACK_ERROR_ARGUMENT, "too many columns");
    return TEST_DONE();
}
