/* A program may flush tiny numbers to zero (-ffast-math somewhere in it does so for all of it) or round otherwise: every
 * instruction set still gives one result, tiny coefficients count, and halves are what they are. */
#include "bitstack.h"
#include "test.h"
#include <fenv.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROWS = 70, COLS = 613, RANK = 2, LEVEL = 3 };
static unsigned char signs[LEVEL][2 * ((COLS + 3) / 4) * 32];
static uint16_t u[LEVEL][RANK * ROWS], v[RANK * COLS];
static float x[COLS];
static bitstack_plane planes[LEVEL];
static bitstack_view view = {ROWS, COLS, RANK, 0, LEVEL, BITSTACK_F16, 1, planes, BITSTACK_PLANES, 0};

/* Half of the coefficients are below 2^-14: subnormal halves. */
static void make(uint64_t *seed) {
    for (int p = 0; p < LEVEL; p++) {
        for (size_t i = 0; i < sizeof signs[0]; i++) signs[p][i] = (unsigned char)(test_random(seed) >> 56);
        for (int i = 0; i < RANK * ROWS; i++)
            u[p][i] = i % 2 ? (uint16_t)(test_random(seed) % 1024 | (test_random(seed) & 0x8000u)) : bitstack_f32_to_f16(test_normal(seed));
        planes[p].signs = signs[p], planes[p].coefficients = u[p], planes[p].columns = v;
        test_little(u[p], sizeof u[p], 2);
    }
    for (int j = 0; j < RANK * COLS; j++) v[j] = j % 3 ? bitstack_f32_to_f16(test_normal(seed)) : (uint16_t)(test_random(seed) % 1024);
    for (int j = 0; j < COLS; j++) x[j] = test_normal(seed) * 1000;
    test_little(v, sizeof v, 2);
}

/* Subnormal floats count as zero, as inputs and as results; 0 where that cannot be had. */
static int flush(int on) {
#if defined(__x86_64__)
    _mm_setcsr(on ? _mm_getcsr() | 0x8040u : _mm_getcsr() & ~0x8040u);
    return 1;
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    fpcr = on ? fpcr | 1u << 24 : fpcr & ~(uint64_t)(1u << 24);
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
    return 1;
#else
    return !on;
#endif
}

int main(void) {
    static const struct {
        int mode;
        const char *name;
    } rounding[] = {{FE_TONEAREST, "to nearest"},
#ifdef FE_UPWARD
                    {FE_UPWARD, "upwards"},
#endif
#ifdef FE_DOWNWARD
                    {FE_DOWNWARD, "downwards"},
#endif
#ifdef FE_TOWARDZERO
                    {FE_TOWARDZERO, "towards zero"}
#endif
    };
    static const bitstack_precision precisions[] = {BITSTACK_FAST, BITSTACK_EXACT};
    static float usual[2][ROWS], exact[ROWS], first[ROWS], y[ROWS], dense[ROWS * COLS], other[ROWS * COLS];
    uint64_t seed = 5;
    make(&seed);
    for (int k = 0; k < 2; k++) bitstack_view_gemv(&view, precisions[k], x, usual[k], 0, ROWS);
    bitstack_view_gemv(&view, BITSTACK_REFERENCE, x, exact, 0, ROWS);
    bitstack_view_dequantize(&view, 0, ROWS, dense, COLS);

    TEST("the tiny coefficients of this test matter: without them the product is another");
    double size = 0, tiny = 0;
    for (int i = 1; i < ROWS; i += 2) tiny = fmax(tiny, fabs((double)exact[i]));
    for (int i = 0; i < ROWS; i += 2) size = fmax(size, fabs((double)exact[i]));
    CHECK(tiny > 1e-3 && size > tiny, "%g of rows with tiny coefficients, %g of others", tiny, size);

    TEST("all instruction sets give the same bits in every rounding mode, with and without flushing to zero");
    int tried = 0;
    for (int flushed = 0; flushed < 2; flushed++)
        for (size_t r = 0; r < sizeof rounding / sizeof *rounding; r++)
            for (int k = 0; k < 2; k++)
                for (int isa = 0, any = 0; bitstack_isa_name(isa); isa++) {
                    if (!bitstack_isa_available(isa)) continue;
                    bitstack_set_isa(bitstack_isa_name(isa));
                    if (fesetround(rounding[r].mode) != 0 || !flush(flushed)) continue;
                    bitstack_view_gemv(&view, precisions[k], x, y, 0, ROWS);
                    flush(0), fesetround(FE_TONEAREST);
                    if (!any++) memcpy(first, y, sizeof y);
                    CHECK(!memcmp(first, y, sizeof y), "%s differs, rounding %s, %s", bitstack_isa(), rounding[r].name, flushed ? "flushing" : "not flushing");
                    if (r == 0) CHECK(!memcmp(usual[k], y, sizeof y), "%s: flushing alone changes the result", bitstack_isa());
                    for (int i = 0; i < ROWS; i++) {
                        const double bound = (i % 2 ? tiny : size) * (k ? 1e-3 : 5e-2);
                        CHECK(fabs((double)y[i] - (double)exact[i]) <= bound, "%s, rounding %s: row %d is %g, not %g", bitstack_isa(), rounding[r].name, i,
                              (double)y[i], (double)exact[i]);
                    }
                    tried++;
                }
    bitstack_set_isa(NULL);
    CHECK(tried >= 2, "%d ways", tried);
    printf("      %d ways to multiply\n", tried);

    TEST("reconstructed weights, and every half, are the same while tiny numbers are flushed");
    if (!flush(1)) SKIP("no way to ask for it on this machine");
    else {
        uint32_t wrong = 0;
        bitstack_view_dequantize(&view, 0, ROWS, other, COLS);
        for (uint32_t half = 0; half < 65536; half++) {
            const float value = bitstack_f16_to_f32((uint16_t)half);
            const uint16_t back = bitstack_f32_to_f16(value);
            wrong += back != half && !((half & 0x7C00u) == 0x7C00u && (half & 0x3FFu) && (back & 0x7C00u) == 0x7C00u && (back & 0x3FFu)); /* NaN stays NaN */
        }
        flush(0);
        CHECK(wrong == 0, "%u halves do not come back", wrong);
        CHECK(!memcmp(dense, other, sizeof dense), "weights differ");
    }
    return TEST_DONE();
}
