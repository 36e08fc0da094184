/* The compressor takes every finite matrix and refuses the rest with a result code. */
#include "../bitstack_compress.h"
#include "test.h"

static uint64_t seed = 5;

/* Encodes, checks that what the coded matrix says about itself is so, and returns rel_err2 of the last level. */
static double encode(const float *w, uint32_t rows, uint32_t cols, size_t stride, const bitstack_moments *moments,
                     bitstack_encode_options options, const char *what) {
    bitstack_coded coded;
    bitstack_plane planes[BITSTACK_MAX_LEVELS];
    bitstack_view view;
    double rel = 0, out = 0;
    options.method = BITSTACK_IABS;
    bitstack_result result = bitstack_encode_matrix(&coded, w, rows, cols, stride, moments, &options);
    CHECK(result == BITSTACK_OK, "%s %ux%u: %s", what, rows, cols, bitstack_result_string(result));
    if (result != BITSTACK_OK) return NAN;
    CHECK(bitstack_shape_valid(&coded.shape), "%s %ux%u: shape", what, rows, cols);
    CHECK(coded.rel_err2[0] == 1 && coded.out_err2[0] == 1, "%s: level 0", what);
    for (uint32_t level = 1; level <= coded.shape.levels; level++) {
        CHECK(bitstack_coded_view(&coded, level, planes, &view) == BITSTACK_OK, "view");
        CHECK(bitstack_measure_error(&view, w, stride, moments, 1, &rel, &out) == BITSTACK_OK, "measure");
        double told = coded.rel_err2[level], bound = 2e-3 * told + 1e-11;
        CHECK(fabs(rel - told) <= bound, "%s %ux%u level %u: told %g, measured %g", what, rows, cols, level, told, rel);
        CHECK(fabs(out - coded.out_err2[level]) <= 2e-3 * out + 1e-11, "%s %ux%u level %u: output error told %g, measured %g",
              what, rows, cols, level, coded.out_err2[level], out);
    }
    rel = coded.rel_err2[coded.shape.levels];
    bitstack_coded_free(&coded);
    CHECK(!coded.blocks[0], "freed");
    bitstack_coded_free(&coded); /* twice is harmless */
    return rel;
}

static int cancel(void *user, double fraction) {
    *(double *)user = fraction;
    return fraction > 0.4;
}

/* Encodes into garbage; on failure all of it must be zero, and freeing it harmless. */
static bitstack_result refused(bitstack_coded *coded, const float *w, uint32_t rows, uint32_t cols, size_t stride,
                               const bitstack_moments *moments, const bitstack_encode_options *options) {
    bitstack_coded nothing;
    memset(&nothing, 0, sizeof nothing);
    memset(coded, 0x5A, sizeof *coded);
    const bitstack_result result = bitstack_encode_matrix(coded, w, rows, cols, stride, moments, options);
    CHECK(result == BITSTACK_OK || !memcmp(coded, &nothing, sizeof nothing), "%s, but not zero", bitstack_result_string(result));
    if (result != BITSTACK_OK) bitstack_coded_free(coded);
    return result;
}

int main(void) {
    enum { ROOM = 200 * 700 };
    float *w = (float *)malloc(ROOM * sizeof *w);
    bitstack_encode_options plain = {.levels = 3, .rank = 4};

    TEST("every small shape, row strides, both factor types");
    static const uint32_t size[] = {1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 100};
    for (size_t a = 0; a < sizeof size / sizeof *size; a++)
        for (size_t b = 0; b < sizeof size / sizeof *size; b++) {
            bitstack_encode_options options = plain;
            uint32_t rows = size[a], cols = size[b], stride = cols + (uint32_t)(a % 3);
            options.factor_type = b % 2 ? BITSTACK_F32 : BITSTACK_F16;
            for (uint32_t i = 0; i < rows * stride; i++) w[i] = i % stride < cols ? test_normal(&seed) : NAN;
            double error = encode(w, rows, cols, stride, NULL, options, "normal");
            if (rows == 1 || cols == 1) CHECK(error < 1e-6, "%ux%u is of rank 1: %g", rows, cols, error);
            CHECK(error < 0.2, "%ux%u: %g", rows, cols, error);
        }

    TEST("long and thin: 1 x 700, 700 x 1, 200 x 700, 700 x 3");
    for (uint32_t i = 0; i < ROOM; i++) w[i] = test_normal(&seed);
    CHECK(encode(w, 1, 700, 700, NULL, plain, "row") < 1e-6, "1 x 700");
    CHECK(encode(w, 700, 1, 1, NULL, plain, "column") < 1e-6, "700 x 1");
    CHECK(encode(w, 200, 700, 700, NULL, plain, "wide") < 0.07, "200 x 700");
    CHECK(encode(w, 700, 3, 3, NULL, plain, "tall") < 0.01, "700 x 3");

    TEST("scales from denormal to the end of float: the same relative error, to rounding");
    static const float factor[] = {1, 1e-3f, 1e-6f, 1e-12f, 1e-30f, 1e-37f, 1e6f, 1e20f, 1e37f, 7.5e37f};
    for (int type = BITSTACK_F32; type <= BITSTACK_F16; type++) {
        double unit = 0;
        for (size_t f = 0; f < sizeof factor / sizeof *factor; f++) {
            bitstack_encode_options options = {.levels = 8, .rank = 4, .factor_type = (bitstack_type)type};
            uint64_t same = 77;
            for (uint32_t i = 0; i < 130 * 150; i++) w[i] = factor[f] * (float)(2 * test_uniform(&same) + test_uniform(&same));
            for (uint32_t i = 0; i < 130 * 150; i += 3) w[i] = -w[i];
            double error = encode(w, 130, 150, 150, NULL, options, "scaled");
            if (f == 0) unit = error;
            CHECK(fabs(error / unit - 1) < 0.02, "times %g: %g, at 1 %g", (double)factor[f], error, unit);
        }
    }
    for (uint32_t i = 0; i < 40 * 50; i++) w[i] = test_normal(&seed) * 1e-42f;
    CHECK(encode(w, 40, 50, 50, NULL, plain, "denormal") < 0.1, "denormal");
    for (uint32_t i = 0; i < 40 * 50; i++) w[i] = test_random(&seed) & 1 ? 3.4e38f : -3.4e38f;
    CHECK(encode(w, 40, 50, 50, NULL, plain, "largest floats") < 1e-5, "one sign plane is exact");

    TEST("weights near the limit of float: no approximation goes beyond it, or the matrix is refused");
    for (int method = BITSTACK_NESTED, refused = 0, taken = 0; method <= BITSTACK_IABS; method++, refused = taken = 0) {
        uint64_t same = 21;
        for (int round = 0; round < 8; round++) { /* all alike, uneven, and with small ones among them */
            bitstack_coded coded;
            bitstack_plane planes[BITSTACK_MAX_LEVELS];
            bitstack_view view;
            float out[16 * 16];
            bitstack_encode_options options = {.method = (bitstack_method)method, .levels = 3, .rank = 1};
            for (int i = 0; i < 16 * 16; i++) {
                const double even = round < 4 ? 1 : round < 6 ? 0.5 : 0;
                w[i] = (test_random(&same) & 1 ? 1.0f : -1.0f) * (round % 3 ? 3.4e38f : 2.5e38f) * (float)(even + (1 - even) * test_uniform(&same));
                if (round % 2 && test_random(&same) % 4 == 0) w[i] /= 100;
            }
            bitstack_result result = bitstack_encode_matrix(&coded, w, 16, 16, 16, NULL, &options);
            CHECK(result == BITSTACK_OK || result == BITSTACK_ERROR_NUMERIC, "round %d: %s", round, bitstack_result_string(result));
            refused += result != BITSTACK_OK, taken += result == BITSTACK_OK;
            for (uint32_t level = 1; level <= 3 && result == BITSTACK_OK; level++) {
                int beyond = 0;
                CHECK(bitstack_coded_view(&coded, level, planes, &view) == BITSTACK_OK, "view");
                CHECK(bitstack_view_dequantize(&view, 0, 16, out, 16) == BITSTACK_OK, "dequantize");
                for (int i = 0; i < 16 * 16; i++) beyond += !isfinite(out[i]);
                CHECK(beyond == 0, "round %d, level %u: %d of 256 weights are beyond float", round, level, beyond);
            }
            if (result == BITSTACK_OK) bitstack_coded_free(&coded);
        }
        CHECK(refused > 0 && taken > 0, "method %d: %d taken, %d refused", method, taken, refused);
    }

    TEST("zero, one nonzero, constant, rank 1, minus zero, one huge outlier");
    memset(w, 0, ROOM * sizeof *w);
    CHECK(encode(w, 70, 90, 90, NULL, plain, "zero") == 0, "zero");
    w[777] = -3;
    CHECK(encode(w, 70, 90, 90, NULL, plain, "one entry") < 1e-6, "one entry");
    for (uint32_t i = 0; i < ROOM; i++) w[i] = 0.25f;
    CHECK(encode(w, 70, 90, 90, NULL, plain, "constant") < 1e-6, "constant");
    for (uint32_t i = 0; i < ROOM; i++) w[i] = -0.0f;
    CHECK(encode(w, 70, 90, 90, NULL, plain, "minus zero") == 0, "minus zero");
    for (uint32_t i = 0; i < 200 * 180; i++) w[i] = (float)(i / 180 + 1) * (float)sin(i % 180);
    CHECK(encode(w, 200, 180, 180, NULL, plain, "rank 1") < 1e-5, "rank 1");
    for (uint32_t i = 0; i < 200 * 180; i++) w[i] = i == 5000 ? 1e6f : test_normal(&seed);
    CHECK(encode(w, 200, 180, 180, NULL, plain, "outlier") < 1e-5, "outlier");

    TEST("a zero counts as +1");
    {
        bitstack_coded coded;
        bitstack_plane plane;
        bitstack_view view;
        bitstack_encode_options options = {.method = BITSTACK_IABS, .levels = 1, .rank = 1};
        float z[12] = {0.0f, -0.0f, -1, 1, 0.0f, -1, -0.0f, 0.0f, 1, -1, -1, -0.0f}; /* rows of 6 */
        CHECK(bitstack_encode_matrix(&coded, z, 2, 6, 6, NULL, &options) == BITSTACK_OK, "encode");
        CHECK(bitstack_coded_view(&coded, 1, &plane, &view) == BITSTACK_OK, "view");
        CHECK(plane.signs[0] == 0xB && plane.signs[1] == 0x7 && plane.signs[32] == 0x1 && plane.signs[33] == 0x2, "%x %x %x %x", plane.signs[0], plane.signs[1], plane.signs[32], plane.signs[33]);
        CHECK(bitstack_coded_view(&coded, 2, &plane, &view) == BITSTACK_ERROR_ARGUMENT, "level past the last");
        bitstack_coded_free(&coded);
    }

    TEST("rank and levels: clamped to the matrix, defaults 16 and 16, up to 32 levels");
    {
        bitstack_coded coded;
        bitstack_encode_options options = {.method = BITSTACK_IABS};
        for (uint32_t i = 0; i < ROOM; i++) w[i] = test_normal(&seed);
        CHECK(bitstack_encode_matrix(&coded, w, 40, 30, 30, NULL, &options) == BITSTACK_OK, "defaults");
        CHECK(coded.shape.rank == 16 && coded.shape.levels == 16, "%u %u", coded.shape.rank, coded.shape.levels);
        for (int l = 1; l <= 16; l++) CHECK(coded.rel_err2[l] <= coded.rel_err2[l - 1] + 1e-6, "level %d rises", l); /* f16 is the floor */
        bitstack_coded_free(&coded);
        options.rank = 1000, options.levels = 32;
        CHECK(bitstack_encode_matrix(&coded, w, 7, 30, 30, NULL, &options) == BITSTACK_OK, "rank 1000");
        CHECK(coded.shape.rank == 7 && coded.shape.levels == 32, "%u %u", coded.shape.rank, coded.shape.levels);
        CHECK(coded.rel_err2[1] < 1e-6, "full rank in one block: %g", coded.rel_err2[1]);
        bitstack_coded_free(&coded);
    }

    TEST("NaN, infinity, bad dimensions and options: refused, and what was to be filled in is zero: harmless to free");
    {
        bitstack_coded coded;
        bitstack_moments moments;
        bitstack_coded nothing;
        memset(&nothing, 0, sizeof nothing);
        bitstack_encode_options o = {.method = BITSTACK_IABS, .levels = 2, .rank = 2};
        for (uint32_t i = 0; i < 100; i++) w[i] = 1;
        w[57] = NAN;
        CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_NUMERIC, "NaN");
        w[57] = -INFINITY;
        CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_NUMERIC, "infinity");
        w[57] = 1;
        CHECK(refused(&coded, w, 0, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "no rows");
        CHECK(refused(&coded, w, 10, 0, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "no columns");
        CHECK(refused(&coded, w, 10, 10, 9, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "stride");
        CHECK(refused(&coded, NULL, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "no matrix");
        CHECK(refused(&coded, w, (1u << 30) + 1, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "rows");
        CHECK(bitstack_moments_init(&moments, 9, 1) == BITSTACK_OK, "moments");
        CHECK(refused(&coded, w, 10, 10, 10, &moments, &o) == BITSTACK_ERROR_ARGUMENT, "moments of 9");
        moments.h[8 * 9 + 8] = NAN;
        CHECK(refused(&coded, w, 10, 9, 10, &moments, &o) == BITSTACK_ERROR_NUMERIC, "NaN moments");
        bitstack_moments_free(&moments);
        o.levels = 33;
        CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "33 levels");
        o.levels = 2, o.rank = 1025;
        CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "rank 1025");
        o.rank = 2, o.factor_type = BITSTACK_BF16;
        CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "factors in bf16");
        static const float wrong[] = {-1, INFINITY, NAN};
        o.factor_type = BITSTACK_F16, o.method = BITSTACK_NESTED;
        for (int i = 0; i < 3; i++) {
            o.level_weights[1] = wrong[i];
            CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "a level weight of %g", (double)wrong[i]);
        }
        o.level_weights[1] = 0, o.levels = 9;
        CHECK(refused(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_ARGUMENT, "9 levels, nested");
        CHECK(!memcmp(&coded, &nothing, sizeof coded), "written to");
        memset(&moments, 0x5A, sizeof moments);
        CHECK(bitstack_moments_init(&moments, 0, 1) == BITSTACK_ERROR_ARGUMENT && !moments.h && !moments.norms, "no channels");
        bitstack_moments_free(&moments);
        bitstack_view view;
        memset(&view, 0x5A, sizeof view);
        CHECK(bitstack_coded_view(&coded, 1, NULL, &view) == BITSTACK_ERROR_ARGUMENT && view.rows == 0 && view.planes == NULL, "a view of nothing");
    }

    TEST("level weights: a level that alone counts is no worse than usual, and none is lost");
    {
        enum { ROWS = 60, COLS = 80, LEVELS = 7 };
        bitstack_moments moments;
        bitstack_coded usual, coded;
        float x[4 * COLS];
        for (int i = 0; i < ROWS * COLS; i++) w[i] = test_normal(&seed);
        CHECK(bitstack_moments_init(&moments, COLS, 1) == BITSTACK_OK, "moments");
        for (int n = 0; n < 60; n++) {
            for (int i = 0; i < 4 * COLS; i++) x[i] = test_normal(&seed) * (float)(1 + i % COLS % 5);
            bitstack_moments_add(&moments, x, 4, COLS);
        }
        bitstack_encode_options o = {.levels = LEVELS, .rank = 1};
        CHECK(bitstack_encode_matrix(&usual, w, ROWS, COLS, COLS, &moments, &o) == BITSTACK_OK, "usual");
        for (uint32_t only = test_brief() ? 5 : 1; only <= (test_brief() ? 5 : LEVELS); only++) {
            memset(o.level_weights, 0, sizeof o.level_weights);
            o.level_weights[only - 1] = 1e-3f;
            CHECK(bitstack_encode_matrix(&coded, w, ROWS, COLS, COLS, &moments, &o) == BITSTACK_OK, "only level %u", only);
            if (test_bad_) break;
            CHECK(coded.out_err2[only] < 1.05 * usual.out_err2[only], "level %u alone: %g, usual %g", only, coded.out_err2[only], usual.out_err2[only]);
            for (uint32_t l = 1; l <= LEVELS; l++)
                CHECK(coded.out_err2[l] < 0.9 && coded.out_err2[l] <= 1.001 * coded.out_err2[l - 1], "level %u alone counts: level %u has %g", only, l, coded.out_err2[l]);
            bitstack_coded_free(&coded);
        }
        bitstack_coded_free(&usual), bitstack_moments_free(&moments);
    }

    TEST("progress reports and cancels");
    {
        bitstack_coded coded;
        double last = 0;
        bitstack_encode_options o = {.method = BITSTACK_IABS, .levels = 4, .rank = 2, .progress = cancel, .progress_user = &last};
        CHECK(bitstack_encode_matrix(&coded, w, 10, 10, 10, NULL, &o) == BITSTACK_ERROR_CANCELLED, "cancelled");
        CHECK(last == 0.5, "%g", last);
    }

    TEST("the same bytes for every thread count");
    {
        bitstack_coded one, many;
        bitstack_encode_options o = {.method = BITSTACK_IABS, .levels = 3, .rank = 5};
        for (uint32_t i = 0; i < ROOM; i++) w[i] = test_normal(&seed);
        CHECK(bitstack_encode_matrix(&one, w, 450, 300, 300, NULL, &o) == BITSTACK_OK, "one");
        for (o.threads = 2; o.threads <= 4; o.threads++) {
            CHECK(bitstack_encode_matrix(&many, w, 450, 300, 300, NULL, &o) == BITSTACK_OK, "many");
            for (uint32_t l = 1; l <= 3; l++) {
                CHECK(!memcmp(one.blocks[l - 1], many.blocks[l - 1], bitstack_block_bytes(&one.shape, l)), "level %u", l);
                CHECK(one.rel_err2[l] == many.rel_err2[l] && one.out_err2[l] == many.out_err2[l], "errors, level %u", l);
            }
            bitstack_coded_free(&many);
        }
        bitstack_coded_free(&one);
    }

    TEST("activation-aware columns: better where it counts, harmless where channels are dead or absent");
    {
        const uint32_t rows = 150, cols = 140;
        bitstack_moments moments;
        bitstack_coded aware, unaware;
        float *x = (float *)malloc(400 * cols * 4);
        for (uint32_t i = 0; i < rows * cols; i++) w[i] = test_normal(&seed);
        for (uint32_t t = 0; t < 400; t++)
            for (uint32_t j = 0; j < cols; j++) x[t * cols + j] = j % 10 == 3 ? 0 : test_normal(&seed) * (j % 7 ? 0.3f : 5.0f);
        CHECK(bitstack_moments_init(&moments, cols, 1) == BITSTACK_OK, "init");
        bitstack_moments_add(&moments, x, 200, cols), bitstack_moments_add(&moments, x + 200 * cols, 200, cols);
        bitstack_encode_options o = {.method = BITSTACK_IABS, .levels = 3, .rank = 8};
        CHECK(bitstack_encode_matrix(&aware, w, rows, cols, cols, &moments, &o) == BITSTACK_OK, "aware");
        o.plain_columns = 1;
        CHECK(bitstack_encode_matrix(&unaware, w, rows, cols, cols, &moments, &o) == BITSTACK_OK, "unaware");
        CHECK(aware.out_err2[3] < 0.6 * unaware.out_err2[3], "%g against %g", aware.out_err2[3], unaware.out_err2[3]);
        double norm = 0; /* out_norm2 from the inputs themselves */
        for (uint32_t t = 0; t < 400; t++)
            for (uint32_t i = 0; i < rows; i++) {
                double y = 0;
                for (uint32_t j = 0; j < cols; j++) y += (double)w[i * cols + j] * (double)x[t * cols + j];
                norm += y * y / 400;
            }
        CHECK(fabs(aware.out_norm2 / norm - 1) < 1e-6, "%g %g", aware.out_norm2, norm);
        bitstack_coded_free(&aware), bitstack_coded_free(&unaware);
        o.plain_columns = 0;
        encode(w, rows, cols, cols, &moments, o, "aware");
        bitstack_moments_free(&moments);
        CHECK(bitstack_moments_init(&moments, cols, 0) == BITSTACK_OK, "norms only");
        encode(w, rows, cols, cols, &moments, o, "no inputs seen"); /* all scales equal: as without */
        bitstack_moments_add(&moments, x, 400, cols);
        encode(w, rows, cols, cols, &moments, o, "norms only");
        bitstack_moments_free(&moments);
        free(x);
    }
    free(w);
    return TEST_DONE();
}
