/* Singular value decompositions are as exact as their comments say. */
#include "../bitstack_compress.h"
#include "test.h"

static uint64_t seed = 11;

/* Largest |X^T X - I| for `count` vectors of n doubles: vector j, element i at x[j * js + i * is]. */
static double orthogonality(const double *x, size_t count, size_t n, size_t js, size_t is) {
    double worst = 0;
    for (size_t a = 0; a < count; a++)
        for (size_t b = 0; b <= a; b++) {
            double dot = 0;
            for (size_t i = 0; i < n; i++) dot += x[a * js + i * is] * x[b * js + i * is];
            worst = fmax(worst, fabs(dot - (a == b)));
        }
    return worst;
}

enum { RANDOM, POSITIVE, RANK_TWO, ZERO, DENORMAL, HUGE_VALUES, GRADED, DIAGONAL, CONSTANT, KINDS };
static const char *kind_name[] = {"random", "positive", "rank 2", "zero", "denormal", "huge", "graded", "diagonal", "constant"};

static double entry(int kind, uint32_t i, uint32_t j) {
    double x = (double)test_normal(&seed);
    switch (kind) {
    case POSITIVE: return fabs(x);
    case RANK_TWO: return sin(i + 1.0) * cos(j + 2.0) + (i % 3) * (j % 5 - 2.0);
    case ZERO: return 0;
    case DENORMAL: return x * 1e-310;
    case HUGE_VALUES: return x * 1e306;
    case GRADED: return x * pow(10, -(double)(j % 40) / 2);
    case DIAGONAL: return i == j ? i + 1.0 : 0;
    case CONSTANT: return 3;
    default: return x;
    }
}

static void check_full(int kind, uint32_t m, uint32_t n) {
    const uint32_t k = m < n ? m : n, most = m < n ? n : m;
    const size_t stride = n + 3;
    double *a = (double *)malloc(m * stride * 8), *u = (double *)malloc((size_t)m * k * 8), *s = (double *)malloc(k * 8);
    double *vt = (double *)malloc((size_t)n * k * 8), bound = 1e-13 * most, error = 0, norm = 0, scale = 0;
    for (uint32_t i = 0; i < m; i++)
        for (size_t j = 0; j < stride; j++) {
            a[i * stride + j] = j < n ? entry(kind, i, (uint32_t)j) : NAN; /* what lies between rows is not read */
            if (j < n) scale = fmax(scale, fabs(a[i * stride + j]));
        }
    CHECK(bitstack_svd(a, m, n, stride, u, s, vt) == BITSTACK_OK, "%s %ux%u", kind_name[kind], m, n);
    scale = scale > 0 ? scale : 1;
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0, x = a[i * stride + j] / scale;
            for (uint32_t r = 0; r < k; r++) sum += u[i * k + r] * (s[r] / scale) * vt[r * n + j];
            error += (sum - x) * (sum - x), norm += x * x;
        }
    /* denormal input has an absolute grain of its own */
    double grain = kind == DENORMAL ? 5e-324 / scale * sqrt((double)m * n) : 0;
    CHECK(sqrt(error) <= bound * sqrt(norm) + grain, "%s %ux%u: %g", kind_name[kind], m, n, sqrt(error / norm));
    CHECK(orthogonality(u, k, m, 1, k) <= bound, "u %s %ux%u: %g", kind_name[kind], m, n, orthogonality(u, k, m, 1, k));
    CHECK(orthogonality(vt, k, n, n, 1) <= bound, "vt %s %ux%u: %g", kind_name[kind], m, n, orthogonality(vt, k, n, n, 1));
    for (uint32_t r = 0; r < k; r++)
        CHECK(s[r] >= 0 && (r == 0 || s[r] <= s[r - 1]), "%s %ux%u: s[%u] = %g", kind_name[kind], m, n, r, s[r]);
    if (kind == DIAGONAL)
        for (uint32_t r = 0; r < k; r++) CHECK(fabs(s[r] - (k - r)) < bound * k, "s[%u] = %.17g", r, s[r]);
    free(a), free(u), free(s), free(vt);
}

/* In-place Walsh-Hadamard transform of `count` floats, `step` apart, scaled to be orthogonal. */
static void hadamard(float *x, size_t count, size_t step) {
    for (size_t half = 1; half < count; half *= 2)
        for (size_t i = 0; i < count; i += 2 * half)
            for (size_t j = i; j < i + half; j++) {
                float p = x[j * step], q = x[(j + half) * step];
                x[j * step] = (p + q) * 0.70710678f, x[(j + half) * step] = (p - q) * 0.70710678f;
            }
}

/* |a - u s vt|^2 / |a|^2, rows sampled every `every`. */
static double error_of(const float *a, uint32_t m, uint32_t n, uint32_t k, const float *u, const float *s, const float *vt,
                       uint32_t every) {
    double error = 0, norm = 0, *row = (double *)malloc(n * sizeof *row);
    for (uint32_t i = 0; i < m; i += every) {
        for (uint32_t j = 0; j < n; j++) row[j] = (double)a[(size_t)i * n + j], norm += row[j] * row[j];
        for (uint32_t r = 0; r < k; r++) {
            double f = (double)u[i * k + r] * (double)s[r];
            for (uint32_t j = 0; j < n; j++) row[j] -= f * (double)vt[(size_t)r * n + j];
        }
        for (uint32_t j = 0; j < n; j++) error += row[j] * row[j];
    }
    free(row);
    return error / norm;
}

/* A matrix n x n (a power of two) of known singular values: H D P H with signs D and a permutation P. One value
 * holds 64 % of the energy and the rest fall like the edge of a random matrix's, as in a real |R|. */
static double known_spectrum(float *a, uint32_t n, uint32_t k) {
    double *value = (double *)malloc(n * sizeof *value), rest = 0, kept = 0, total = 0;
    for (uint32_t i = 1; i < n; i++) {
        /* the quarter-circle law's quantile, by Newton's method on its distribution function */
        double q = 1 - (i - 0.5) / (n - 1), x = 1;
        for (int step = 0; step < 60; step++) {
            double f = (x * sqrt(4 - x * x) / 2 + 2 * asin(x / 2)) / 3.14159265358979323846 - q;
            x -= f / (sqrt(4 - x * x) / 3.14159265358979323846 + 1e-3);
            x = fmin(fmax(x, 1e-6), 2 - 1e-12);
        }
        value[i] = x, rest += x * x;
    }
    value[0] = sqrt(rest * 0.64 / 0.36);
    for (uint32_t i = 0; i < n; i++) total += value[i] * value[i], kept += i < k ? value[i] * value[i] : 0;
    memset(a, 0, (size_t)n * n * sizeof *a);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (i * 2654435761u) % n; /* odd multiplier: a permutation */
        a[(size_t)i * n + at] = (float)((test_random(&seed) & 1 ? 1 : -1) * value[i]);
    }
    for (uint32_t i = 0; i < n; i++) hadamard(a + (size_t)i * n, n, 1);
    for (uint32_t i = 0; i < n; i++) /* a permutation within rows' signs, so that H cannot be seen through */
        if (test_random(&seed) & 1)
            for (uint32_t j = 0; j < n; j++) a[(size_t)i * n + j] = -a[(size_t)i * n + j];
    for (uint32_t j = 0; j < n; j += 16) /* columns, 16 at a time to be kind to the cache */
        for (size_t half = 1; half < n; half *= 2)
            for (size_t i = 0; i < n; i += 2 * half)
                for (size_t p = i; p < i + half; p++)
                    for (uint32_t c = j; c < j + 16; c++) {
                        float x = a[p * n + c], y = a[(p + half) * n + c];
                        a[p * n + c] = (x + y) * 0.70710678f, a[(p + half) * n + c] = (x - y) * 0.70710678f;
                    }
    free(value);
    return (total - kept) / total;
}

int main(void) {
    static const uint32_t shape[][2] = {{1, 1}, {1, 7}, {7, 1}, {2, 2}, {5, 3}, {33, 70}, {70, 33}, {64, 64}, {131, 50}};
    TEST("full: accuracy, orthonormality and order of every kind of matrix in every shape");
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) check_full(kind, shape[i][0], shape[i][1]);

    TEST("full: NaN, infinity and bad arguments are refused");
    {
        double a[4] = {1, 2, 3, NAN}, u[4], s[2], vt[4];
        CHECK(bitstack_svd(a, 2, 2, 2, u, s, vt) == BITSTACK_ERROR_NUMERIC, "NaN");
        a[3] = -INFINITY;
        CHECK(bitstack_svd(a, 2, 2, 2, u, s, vt) == BITSTACK_ERROR_NUMERIC, "infinity");
        CHECK(bitstack_svd(a, 2, 2, 1, u, s, vt) == BITSTACK_ERROR_ARGUMENT, "stride");
        CHECK(bitstack_svd(a, 0, 2, 2, u, s, vt) == BITSTACK_ERROR_ARGUMENT, "no rows");
        float f[4] = {1, 2, 3, NAN}, fu[4], fs[2], fv[4];
        CHECK(bitstack_svd_truncated(f, 2, 2, 2, 1, NULL, 0, 1, fu, fs, fv) == BITSTACK_ERROR_NUMERIC, "NaN");
        f[3] = f[2] = f[1] = f[0] = 3e38f;
        CHECK(bitstack_svd_truncated(f, 2, 2, 2, 1, NULL, 0, 1, fu, fs, fv) == BITSTACK_ERROR_NUMERIC, "s = 6e38");
        CHECK(bitstack_svd_truncated(f, 2, 2, 2, 3, NULL, 0, 1, fu, fs, fv) == BITSTACK_ERROR_ARGUMENT, "k");
        CHECK(bitstack_svd_truncated(f, 2, 2, 2, 0, NULL, 0, 1, fu, fs, fv) == BITSTACK_ERROR_ARGUMENT, "k = 0");
    }

    const uint32_t n = 768, k = 16;
    float *a = (float *)malloc((size_t)4096 * 4096 * 4), *u = (float *)malloc(4096 * 64 * 4), s[64];
    float *vt = (float *)malloc(4096 * 64 * 4), *u2 = (float *)malloc(4096 * 64 * 4), s2[64], *vt2 = (float *)malloc(4096 * 64 * 4);

    TEST("truncated: |normal| 768 x 768, rank 16: within 0.1 % of the full decomposition's error");
    double *full = (double *)malloc((size_t)n * n * 8), *fu = (double *)malloc((size_t)n * n * 8);
    double *fs = (double *)malloc(n * 8), *fv = (double *)malloc((size_t)n * n * 8);
    for (size_t i = 0; i < (size_t)n * n; i++) a[i] = fabsf(test_normal(&seed)), full[i] = (double)a[i];
    CHECK(bitstack_svd(full, n, n, n, fu, fs, fv) == BITSTACK_OK, "full");
    for (uint32_t rank = 1; rank <= 16; rank += 5) {
        double left = 0, total = 0;
        for (uint32_t i = 0; i < n; i++) total += fs[i] * fs[i], left += i < rank ? 0 : fs[i] * fs[i];
        CHECK(bitstack_svd_truncated(a, n, n, n, rank, NULL, 1, 1, u, s, vt) == BITSTACK_OK, "rank %u", rank);
        double error = error_of(a, n, n, rank, u, s, vt, 1);
        CHECK(error <= 1.001 * left / total, "rank %u: %.9g, optimum %.9g", rank, error, left / total);
        CHECK(error >= 0.99999 * left / total, "rank %u: %.9g below the optimum %.9g", rank, error, left / total);
        CHECK(fabs((double)s[0] - fs[0]) < 1e-5 * fs[0], "%g %g", (double)s[0], fs[0]);
    }
    free(full), free(fu), free(fs), free(fv);

    TEST("truncated: the same bits for every thread count, and for the same seed");
    for (int threads = 0; threads <= 5; threads++) {
        CHECK(bitstack_svd_truncated(a, n, n, n, k, NULL, 7, threads, threads ? u2 : u, threads ? s2 : s, threads ? vt2 : vt) ==
                  BITSTACK_OK, "%d threads", threads);
        if (threads)
            CHECK(!memcmp(u, u2, n * k * 4) && !memcmp(s, s2, k * 4) && !memcmp(vt, vt2, n * k * 4), "%d threads", threads);
    }

    TEST("truncated: a warm start ends at the same error");
    {
        double cold = error_of(a, n, n, k, u, s, vt, 1);
        CHECK(bitstack_svd_truncated(a, n, n, n, k, vt, 9, 1, u2, s2, vt2) == BITSTACK_OK, "warm");
        double warm = error_of(a, n, n, k, u2, s2, vt2, 1);
        CHECK(fabs(warm / cold - 1) < 1e-3, "%g %g", warm, cold);
        memset(vt, 0, n * k * 4); /* a useless one */
        CHECK(bitstack_svd_truncated(a, n, n, n, k, vt, 9, 1, u2, s2, vt2) == BITSTACK_OK, "zero start");
        warm = error_of(a, n, n, k, u2, s2, vt2, 1);
        CHECK(fabs(warm / cold - 1) < 1e-3, "%g %g", warm, cold);
    }

    TEST("truncated: wide, tall, strided, tiny, huge and rank-deficient matrices");
    {
        static const uint32_t size[][3] = {{1, 1, 1}, {1, 900, 1}, {900, 1, 1}, {17, 5000, 16}, {5000, 17, 5}, {300, 200, 40},
                                           {200, 300, 64}, {140, 141, 64}, {257, 1030, 3}};
        static const float factor[] = {1, 1e-40f, 1e-30f, 1e30f, 1e35f, 0};
        for (size_t i = 0; i < sizeof size / sizeof *size; i++)
            for (size_t f = 0; f < sizeof factor / sizeof *factor; f++)
                for (int deficient = 0; deficient < 2; deficient++) {
                    uint32_t rows = size[i][0], cols = size[i][1], rank = size[i][2];
                    size_t stride = cols + 5;
                    for (uint32_t r = 0; r < rows; r++)
                        for (size_t c = 0; c < stride; c++) {
                            float x = (float)sin(r * 1.7 + (double)c) + (float)cos(r * 0.3 - 2.0 * (double)c); /* rank 4 */
                            a[r * stride + c] = c >= cols ? NAN : factor[f] * (deficient ? x : test_normal(&seed));
                        }
                    CHECK(bitstack_svd_truncated(a, rows, cols, stride, rank, NULL, 3, 2, u, s, vt) == BITSTACK_OK,
                          "%ux%u", rows, cols);
                    double worst_u = 0, worst_v = 0, error = 0, norm = 0, scale = factor[f] ? (double)factor[f] : 1;
                    for (uint32_t p = 0; p < rank; p++)
                        for (uint32_t q = 0; q <= p; q++) {
                            double x = 0, y = 0;
                            for (uint32_t r = 0; r < rows; r++) x += (double)u[r * rank + p] * (double)u[r * rank + q];
                            for (uint32_t c = 0; c < cols; c++) y += (double)vt[p * cols + c] * (double)vt[q * cols + c];
                            worst_u = fmax(worst_u, fabs(x - (p == q))), worst_v = fmax(worst_v, fabs(y - (p == q)));
                        }
                    CHECK(worst_u < 1e-4 && worst_v < 1e-4, "%ux%u x %g rank %u%s: u %g v %g", rows, cols, scale, rank,
                          deficient ? " of a rank-4 matrix" : "", worst_u, worst_v);
                    for (uint32_t r = 0; r < rows; r++)
                        for (uint32_t c = 0; c < cols; c++) {
                            double x = (double)a[r * stride + c] / scale, y = 0;
                            for (uint32_t p = 0; p < rank; p++)
                                y += (double)u[r * rank + p] * ((double)s[p] / scale) * (double)vt[p * cols + c];
                            error += (x - y) * (x - y), norm += x * x;
                        }
                    if (deficient || rank == rows || rank == cols)
                        CHECK(error <= 1e-9 * norm + (rank < 4 && rank < rows && rank < cols ? norm : 0),
                              "%ux%u x %g rank %u: error %g", rows, cols, scale, rank, error / norm);
                }
    }

    TEST("truncated: one entry, or one row, that towers over the rest does not hide them");
    for (int kind = 0; kind < 4; kind++) {
        const uint32_t rows = 210, cols = 190, rank = 4;
        const float tower = kind % 2 ? 3e3f : 100.0f;
        double *da = (double *)malloc(rows * cols * 8), *du = (double *)malloc(rows * cols * 8), ds[190];
        double *dv = (double *)malloc(cols * cols * 8), left = 0, total = 0;
        for (uint32_t i = 0; i < rows * cols; i++) {
            float x = fabsf(test_normal(&seed));
            a[i] = (kind < 2 ? i == 5000 : i / cols == 77) ? tower * (x + 1) : x;
            da[i] = (double)a[i];
        }
        CHECK(bitstack_svd(da, rows, cols, cols, du, ds, dv) == BITSTACK_OK, "full");
        CHECK(bitstack_svd_truncated(a, rows, cols, cols, rank, NULL, 1, 1, u, s, vt) == BITSTACK_OK, "truncated");
        for (uint32_t i = 0; i < cols; i++) total += ds[i] * ds[i], left += i < rank ? 0 : ds[i] * ds[i];
        double error = error_of(a, rows, cols, rank, u, s, vt, 1);
        CHECK(error <= 1.001 * left / total + 3e-7, "kind %d: %.6g, optimum %.6g", kind, error, left / total);
        free(da), free(du), free(dv);
    }

    TEST("truncated: sides of millions are within the bound too: entries of one sign, whose sums grow long");
    {
        static const uint32_t shapes[][3] = {{1, 4300000, 1}, {2100000, 2, 2}, {4, 1100000, 4}, {1, 16800000, 1}, {16800000, 1, 1}};
        for (int i = 0; i < (test_full() ? 5 : 3); i++) {
            const uint32_t rows = shapes[i][0], cols = shapes[i][1], rank = shapes[i][2];
            const size_t all = (size_t)rows * cols;
            float *l = (float *)malloc(all * 4), *lu = (float *)malloc((size_t)rows * rank * 4), *lv = (float *)malloc((size_t)cols * rank * 4), ls[4];
            for (size_t j = 0; j < all; j++) l[j] = (float)test_uniform(&seed) + (float)(j % 3 == 0);
            CHECK(bitstack_svd_truncated(l, rows, cols, cols, rank, NULL, 1, 2, lu, ls, lv) == BITSTACK_OK, "%u x %u", rows, cols);
            const double error = error_of(l, rows, cols, rank, lu, ls, lv, 1);
            CHECK(error <= 1e-8, "%u x %u: squared error %g", rows, cols, error); /* the optimum is 0; 3e-7 is promised */
            free(l), free(lu), free(lv);
        }
    }

    TEST("full: columns of a million are orthogonal to working precision");
    {
        const uint32_t rows = 1200000, cols = 3;
        double *l = (double *)malloc(rows * cols * 8), *lu = (double *)malloc(rows * cols * 8), ls[3], lv[9], error = 0, norm = 0, dot = 0;
        for (size_t i = 0; i < (size_t)rows * cols; i++) l[i] = test_uniform(&seed);
        CHECK(bitstack_svd(l, rows, cols, cols, lu, ls, lv) == BITSTACK_OK, "svd");
        for (uint32_t i = 0; i < rows; i++) {
            for (uint32_t j = 0; j < cols; j++) {
                double t = l[i * cols + j];
                norm += t * t;
                for (uint32_t r = 0; r < cols; r++) t -= lu[i * cols + r] * ls[r] * lv[r * cols + j];
                error += t * t;
            }
            dot += lu[i * cols] * lu[i * cols + 1];
        }
        CHECK(sqrt(error / norm) < 1e-12 && fabs(dot) < 1e-12, "error %g, orthogonal to %g", sqrt(error / norm), dot);
        free(l), free(lu);
    }

    TEST("truncated: a large matrix of known, nearly flat spectrum, rank 16: within 0.1 % of the optimum");
    {
        const uint32_t big = test_full() ? 4096 : 1024;
        double best = known_spectrum(a, big, k);
        CHECK(bitstack_svd_truncated(a, big, big, big, k, NULL, 5, 2, u, s, vt) == BITSTACK_OK, "svd");
        double error = error_of(a, big, big, k, u, s, vt, 1);
        printf("      %u x %u: excess over the optimum %.4f %%\n", big, big, 100 * (error / best - 1));
        CHECK(error <= 1.001 * best, "%.9g, optimum %.9g", error, best);
        CHECK(error >= 0.99999 * best, "%.9g is below the optimum %.9g: the test is wrong", error, best);
    }
    free(a), free(u), free(vt), free(u2), free(vt2);
    return TEST_DONE();
}
