/* Second moments and the paper's activation scale are what their comments say, however the inputs arrive. */
#include "../bitstack_compress.h"
#include "test.h"

static uint64_t seed = 3;

/* The errors of a coded matrix without padding between rows, at a level, measured. */
static bitstack_result measure(const bitstack_coded *coded, uint32_t level, const float *w, const bitstack_moments *moments, double *rel, double *out) {
    bitstack_plane planes[BITSTACK_MAX_LEVELS];
    bitstack_view view;
    bitstack_result result = bitstack_coded_view(coded, level, planes, &view);
    return result == BITSTACK_OK ? bitstack_measure_error(&view, w, view.cols, moments, 1, rel, out) : result;
}

int main(void) {
    static const uint32_t size[] = {1, 5, 16, 47, 191, 192, 193, 400};
    static const size_t tokens[] = {1, 2, 127, 128, 129, 300};

    TEST("h is the sum of x x^T and norms the mean of per-sample norms, for widths and lengths around every block");
    for (size_t c = 0; c < sizeof size / sizeof *size; c++) {
        const uint32_t cols = size[c];
        bitstack_moments moments;
        double *h = (double *)calloc((size_t)cols * cols, 8), *norms = (double *)calloc(cols, 8), worst = 0, off = 0;
        uint64_t count = 0;
        CHECK(bitstack_moments_init(&moments, cols, 1) == BITSTACK_OK, "init");
        for (size_t s = 0; s < sizeof tokens / sizeof *tokens; s++) {
            const size_t stride = cols + s;
            float *x = (float *)malloc(tokens[s] * stride * 4);
            for (size_t i = 0; i < tokens[s] * stride; i++) x[i] = i % stride < cols ? test_normal(&seed) + 0.5f : NAN;
            bitstack_moments_add(&moments, x, tokens[s], stride);
            count += tokens[s];
            for (uint32_t i = 0; i < cols; i++) {
                double square = 0;
                for (size_t t = 0; t < tokens[s]; t++) square += (double)x[t * stride + i] * (double)x[t * stride + i];
                norms[i] += sqrt(square);
                for (size_t t = 0; t < tokens[s]; t++)
                    for (uint32_t j = 0; j < cols; j++) h[i * cols + j] += (double)x[t * stride + i] * (double)x[t * stride + j];
            }
            free(x);
        }
        for (size_t i = 0; i < (size_t)cols * cols; i++) worst = fmax(worst, fabs(h[i] - moments.h[i]));
        for (uint32_t j = 0; j < cols; j++)
            off = fmax(off, fabs(norms[j] / 6 + 1e-3 - bitstack_moments_scale(&moments, j)));
        CHECK(worst < 1e-9 && off < 1e-10, "%u channels: h off by %g, scale by %g", cols, worst, off);
        CHECK(moments.count == count && moments.samples == 6, "%d inputs, %d samples", (int)moments.count, (int)moments.samples);
        for (uint32_t i = 0; i < cols; i++)
            for (uint32_t j = 0; j < i; j++) CHECK(moments.h[i * cols + j] == moments.h[j * cols + i], "not symmetric");
        bitstack_moments_free(&moments);
        CHECK(!moments.h && !moments.norms, "freed");
        free(h), free(norms);
    }

    TEST("inputs that are not finite are skipped");
    {
        bitstack_moments moments, clean;
        float x[6][3] = {{1, 2, 3}, {NAN, 1, 1}, {4, 5, 6}, {1, INFINITY, 1}, {7, 8, 9}, {1, 1, -INFINITY}};
        float y[3][3] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}};
        CHECK(bitstack_moments_init(&moments, 3, 1) == BITSTACK_OK && bitstack_moments_init(&clean, 3, 1) == BITSTACK_OK, "init");
        bitstack_moments_add(&moments, x[0], 6, 3), bitstack_moments_add(&clean, y[0], 3, 3);
        CHECK(moments.count == 3 && !memcmp(moments.h, clean.h, 72) && !memcmp(moments.norms, clean.norms, 24), "differ");
        bitstack_moments_add(&moments, x[1], 1, 3), bitstack_moments_add(&moments, x[0], 0, 3); /* nothing of use: no sample */
        CHECK(moments.samples == 1 && moments.count == 3, "%d samples", (int)moments.samples);
        bitstack_moments_free(&moments), bitstack_moments_free(&clean);
    }

    TEST("merging equals gathering in one");
    {
        bitstack_moments all, part[2];
        float x[40 * 7];
        double worst = 0;
        for (int i = 0; i < 40 * 7; i++) x[i] = test_normal(&seed);
        CHECK(bitstack_moments_init(&all, 7, 1) == BITSTACK_OK, "init");
        for (int p = 0; p < 2; p++) {
            CHECK(bitstack_moments_init(&part[p], 7, 1) == BITSTACK_OK, "init");
            bitstack_moments_add(&all, x + p * 140, 20, 7), bitstack_moments_add(&part[p], x + p * 140, 20, 7);
        }
        bitstack_moments_merge(&part[0], &part[1]);
        for (int i = 0; i < 49; i++) worst = fmax(worst, fabs(all.h[i] - part[0].h[i]));
        for (uint32_t j = 0; j < 7; j++)
            worst = fmax(worst, fabs(bitstack_moments_scale(&all, j) - bitstack_moments_scale(&part[0], j)));
        CHECK(worst < 1e-12 && all.count == part[0].count && all.samples == part[0].samples, "off by %g", worst);
        bitstack_moments_free(&all), bitstack_moments_free(&part[0]), bitstack_moments_free(&part[1]);
    }

    TEST("merging what does not go together is refused and changes nothing; norms alone may be taken from both");
    {
        bitstack_moments whole, norms, other, before;
        float x[4 * 3];
        double h[9], n[3];
        for (int i = 0; i < 12; i++) x[i] = test_normal(&seed);
        CHECK(bitstack_moments_init(&whole, 3, 1) == BITSTACK_OK && bitstack_moments_init(&norms, 3, 0) == BITSTACK_OK &&
              bitstack_moments_init(&other, 2, 1) == BITSTACK_OK, "init");
        bitstack_moments_add(&whole, x, 2, 3), bitstack_moments_add(&norms, x + 6, 2, 3), bitstack_moments_add(&other, x, 2, 2);
        before = whole;
        memcpy(h, whole.h, sizeof h), memcpy(n, whole.norms, sizeof n);
        CHECK(bitstack_moments_merge(&whole, &norms) == BITSTACK_ERROR_ARGUMENT, "H would lack inputs that are counted");
        CHECK(bitstack_moments_merge(&whole, &other) == BITSTACK_ERROR_ARGUMENT, "other channels");
        CHECK(bitstack_moments_merge(NULL, &other) == BITSTACK_ERROR_ARGUMENT && bitstack_moments_merge(&whole, NULL) == BITSTACK_ERROR_ARGUMENT, "NULL");
        CHECK(!memcmp(&whole, &before, sizeof whole) && !memcmp(whole.h, h, sizeof h) && !memcmp(whole.norms, n, sizeof n), "changed");
        const double sum = whole.norms[1] + norms.norms[1];
        CHECK(bitstack_moments_merge(&norms, &whole) == BITSTACK_OK && norms.count == 4 && norms.samples == 2 && norms.norms[1] == sum, "norms");
        bitstack_moments_free(&whole), bitstack_moments_free(&norms), bitstack_moments_free(&other);
    }

    TEST("the scale alone, huge inputs, no inputs, and refused arguments");
    {
        bitstack_moments moments;
        float x[2] = {3e38f, 1e-30f};
        CHECK(bitstack_moments_init(&moments, 0, 1) == BITSTACK_ERROR_ARGUMENT, "no channels");
        CHECK(bitstack_moments_init(NULL, 3, 1) == BITSTACK_ERROR_ARGUMENT, "NULL");
        CHECK(bitstack_moments_init(&moments, 1u << 30, 1) == BITSTACK_ERROR_MEMORY, "8 EiB");
        CHECK(bitstack_moments_init(&moments, 2, 0) == BITSTACK_OK && !moments.h, "norms only");
        const double least = 1e-3; /* of a double's precision, where constants have more (x87) */
        CHECK(bitstack_moments_scale(&moments, 1) == least, "no inputs yet: %.17g", bitstack_moments_scale(&moments, 1));
        bitstack_moments_add(&moments, x, 1, 2);
        CHECK(fabs(bitstack_moments_scale(&moments, 0) / 3e38 - 1) < 1e-6, "%g", bitstack_moments_scale(&moments, 0));
        CHECK(fabs(bitstack_moments_scale(&moments, 1) - 1e-3) < 1e-9, "%g", bitstack_moments_scale(&moments, 1));
        bitstack_moments_free(&moments);
        bitstack_moments_free(NULL);
    }

    TEST("measured output error is the error of the outputs");
    {
        enum { ROWS = 70, COLS = 230, TOKENS = 50 };
        static float w[ROWS * COLS], x[TOKENS * COLS], q[ROWS * COLS];
        bitstack_moments moments;
        bitstack_coded coded;
        bitstack_plane planes[2];
        bitstack_view view;
        double rel, out, error = 0, norm = 0, wide_error = 0, wide_norm = 0;
        for (int i = 0; i < ROWS * COLS; i++) w[i] = test_normal(&seed);
        for (int i = 0; i < TOKENS * COLS; i++) x[i] = test_normal(&seed) * (float)(1 + i % COLS % 9);
        CHECK(bitstack_moments_init(&moments, COLS, 1) == BITSTACK_OK, "init");
        bitstack_moments_add(&moments, x, TOKENS, COLS);
        bitstack_encode_options options = {.method = BITSTACK_IABS, .levels = 2, .rank = 3};
        CHECK(bitstack_encode_matrix(&coded, w, ROWS, COLS, COLS, NULL, &options) == BITSTACK_OK, "encode");
        CHECK(bitstack_coded_view(&coded, 2, planes, &view) == BITSTACK_OK, "view");
        CHECK(bitstack_view_dequantize(&view, 0, ROWS, q, COLS) == BITSTACK_OK, "dequantize");
        for (int threads = 1; threads < 4; threads++) {
            double rel2 = 0, out2 = 0;
            CHECK(bitstack_measure_error(&view, w, COLS, &moments, threads, &rel2, &out2) == BITSTACK_OK, "measure");
            if (threads == 1) rel = rel2, out = out2;
            CHECK(rel == rel2 && out == out2, "%d threads", threads);
        }
        for (int t = 0; t < TOKENS; t++)
            for (int i = 0; i < ROWS; i++) {
                double y = 0, z = 0;
                for (int j = 0; j < COLS; j++) {
                    y += (double)w[i * COLS + j] * (double)x[t * COLS + j];
                    z += ((double)w[i * COLS + j] - (double)q[i * COLS + j]) * (double)x[t * COLS + j];
                }
                norm += y * y, error += z * z;
            }
        for (int i = 0; i < ROWS * COLS; i++)
            wide_norm += (double)w[i] * (double)w[i], wide_error += ((double)w[i] - (double)q[i]) * ((double)w[i] - (double)q[i]);
        CHECK(fabs(out / (error / norm) - 1) < 1e-9, "%.12g, outputs say %.12g", out, error / norm);
        CHECK(fabs(rel / (wide_error / wide_norm) - 1) < 1e-9, "%.12g, weights say %.12g", rel, wide_error / wide_norm);
        CHECK(bitstack_measure_error(&view, w, COLS, NULL, 1, &rel, &out) == BITSTACK_OK && rel == out, "no moments: equal");
        CHECK(bitstack_measure_error(&view, w, COLS - 1, NULL, 1, &rel, &out) == BITSTACK_ERROR_ARGUMENT, "stride");
        bitstack_coded_free(&coded), bitstack_moments_free(&moments);
    }

    TEST("the output error that a coded matrix tells is the measured one, whatever the inputs' size");
    for (int wide = 0; wide < (test_brief() ? 1 : 2); wide++) {
        const uint32_t rows = wide ? 6 : 30, cols = wide ? 1100 : 70; /* beyond 1024 columns nested measures in float */
        float *w = (float *)malloc((size_t)rows * cols * 4), *x = (float *)malloc((size_t)cols * 4 * 40);
        for (int s = 0; s < (wide || test_brief() ? 2 : 5); s++) {
            static const float sizes[] = {1e18f, 1e-24f, 1, 1e30f, 1e-35f};
            for (int method = wide; method < 2; method++) {
                bitstack_moments moments;
                bitstack_coded coded;
                double rel, out;
                bitstack_encode_options options = {.method = method ? BITSTACK_NESTED : BITSTACK_IABS, .levels = 2, .rank = 1};
                for (size_t i = 0; i < (size_t)rows * cols; i++) w[i] = test_normal(&seed) * (wide && s ? 1e20f : 1);
                for (size_t i = 0; i < 40u * cols; i++) x[i] = test_normal(&seed) * sizes[s];
                CHECK(bitstack_moments_init(&moments, cols, 1) == BITSTACK_OK, "init");
                bitstack_moments_add(&moments, x, 40, cols);
                CHECK(bitstack_encode_matrix(&coded, w, rows, cols, cols, &moments, &options) == BITSTACK_OK, "inputs of %g", (double)sizes[s]);
                for (uint32_t level = 1; level <= 2 && !test_bad_; level++) {
                    CHECK(measure(&coded, level, w, &moments, &rel, &out) == BITSTACK_OK, "measure");
                    CHECK(out > 0 && fabs(coded.out_err2[level] / out - 1) < 0.01, "%s, inputs of %g, level %u: told %g, measured %g",
                          method ? "nested" : "iabs", (double)sizes[s], level, coded.out_err2[level], out);
                }
                if (!test_bad_) bitstack_coded_free(&coded);
                bitstack_moments_free(&moments);
            }
        }
        free(w), free(x);
    }

    TEST("moments without inputs say nothing: the output error is the weights' own; NaN in them is refused");
    for (int method = 0; method < 2; method++) {
        static float w[30 * 20];
        bitstack_moments moments;
        bitstack_coded coded;
        double rel, out;
        bitstack_encode_options options = {.method = method ? BITSTACK_NESTED : BITSTACK_IABS, .levels = 2, .rank = 1};
        for (int i = 0; i < 30 * 20; i++) w[i] = test_normal(&seed);
        CHECK(bitstack_moments_init(&moments, 20, 1) == BITSTACK_OK, "init");
        CHECK(bitstack_encode_matrix(&coded, w, 30, 20, 20, &moments, &options) == BITSTACK_OK, "encode");
        for (uint32_t level = 1; level <= 2; level++) {
            CHECK(coded.out_err2[level] == coded.rel_err2[level], "level %u: told %g, of the weights %g", level, coded.out_err2[level], coded.rel_err2[level]);
            CHECK(measure(&coded, level, w, &moments, &rel, &out) == BITSTACK_OK && rel == out, "measured %g and %g", rel, out);
        }
        moments.h[3 * 20 + 7] = moments.h[7 * 20 + 3] = NAN;
        CHECK(measure(&coded, 2, w, &moments, &rel, &out) == BITSTACK_ERROR_NUMERIC, "measured by NaN");
        for (int j = 0; j < 20; j++) moments.h[j * 20 + j] = 1, moments.norms[j] = 1;
        moments.count = 1;
        bitstack_coded_free(&coded);
        CHECK(bitstack_encode_matrix(&coded, w, 30, 20, 20, &moments, &options) == BITSTACK_ERROR_NUMERIC, "NaN off the diagonal");
        bitstack_moments_free(&moments);
    }
    return TEST_DONE();
}
