/* The float kernels of the full-precision model are right on every instruction set that the machine has: products,
 * attention and exponentials against double precision, whatever the sizes, however the rows are shared out */
#include "test.h"
#include "any_floats.h"
#include "../examples/llm/dense.h"

/* Largest error as a share of sum |w x|; outputs behind the rows must stay as they were. */
static double product_error(size_t rows, size_t cols, size_t count) {
    size_t x_stride = cols + 3, y_stride = rows + 2;
    float *w = numbers(rows * cols), *x = numbers(count * x_stride), *y = numbers(count * y_stride);
    double most = 0;
    for (size_t t = 0; t < count; t++) y[t * y_stride + rows] = 77;
    llm_gemm(w, rows, cols, x, x_stride, y, y_stride, count);
    for (size_t t = 0; t < count; t++) {
        CHECK(y[t * y_stride + rows] == 77, "%zu x %zu x %zu: wrote behind the rows", rows, cols, count);
        for (size_t i = 0; i < rows; i++) {
            double sum = 0, size = 0;
            for (size_t j = 0; j < cols; j++) {
                double p = (double)w[i * cols + j] * (double)x[t * x_stride + j];
                sum += p, size += fabs(p);
            }
            double error = fabs(sum - (double)y[t * y_stride + i]) / size;
            if (!(error <= most)) most = error;
        }
    }
    free(w), free(x), free(y);
    return most;
}

static int parts_differ(size_t rows, size_t cols, size_t count, size_t cut) {
    float *w = numbers(rows * cols), *x = numbers(count * cols), *whole = numbers(count * rows),
          *parts = numbers(count * rows);
    llm_gemm(w, rows, cols, x, cols, whole, rows, count);
    llm_gemm(w, cut, cols, x, cols, parts, rows, count);
    llm_gemm(w + cut * cols, rows - cut, cols, x, cols, parts + cut, rows, count);
    int differ = memcmp(whole, parts, count * rows * sizeof *whole) != 0;
    free(w), free(x), free(whole), free(parts);
    return differ;
}

/* A matrix that is packed, or whose transpose is, in shares: the same products. */
static int packed_differ(size_t rows, size_t cols, size_t count, int turned) {
    size_t all = llm_packed_floats(rows, cols), each = llm_packed_floats(32, cols) / 32, stride = (turned ? rows : cols) + 5;
    float *w = numbers((rows > cols ? rows : cols) * stride), *x = numbers(count * cols), *plain = numbers(rows * cols), *y = numbers(count * rows),
          *to = numbers(count * rows), *packed = (float *)aligned_alloc(64, all * sizeof *packed),
          *room = (float *)aligned_alloc(64, llm_packed_floats(count, cols) * sizeof *room);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) plain[i * cols + j] = turned ? w[j * stride + i] : w[i * stride + j];
    llm_gemm(plain, rows, cols, x, cols, y, rows, count);
    for (size_t i = 0; i < rows; i += 64)
        llm_pack(w + (turned ? i : i * stride), stride, turned, rows - i < 64 ? rows - i : 64, cols, packed + i * each);
    llm_gemm_packed(packed, rows, cols, x, cols, to, rows, count, room);
    int differ = memcmp(y, to, count * rows * sizeof *y) != 0;
    free(w), free(x), free(plain), free(y), free(to), free(packed), free(room);
    return differ;
}

static void test_packed(void) {
    TEST("products with packed matrices are those with the matrices themselves, bit for bit, whichever way they are stored");
    static const size_t C[][3] = {{32, 64, 24}, {200, 600, 70}, {33, 65, 31}, {70, 1100, 40}, {1, 100, 24}, {130, 512, 256}};
    llm_dense_limit(LLM_DENSE_AMX);
    if (!llm_packed_floats(64, 64)) {
        SKIP("no kernel of this CPU packs");
        return;
    }
    for (size_t i = 0; i < sizeof C / sizeof *C; i++)
        for (int turned = 0; turned < 2; turned++)
            CHECK(!packed_differ(C[i][0], C[i][1], C[i][2], turned), "%zu x %zu x %zu, turned %d", C[i][0], C[i][1], C[i][2], turned);
}

static double attention_error(size_t size, size_t heads, size_t position, size_t count, size_t window) {
    size_t stride = 2 * size, q_stride = 2 * heads * size, keys = position + count;
    float *k = numbers(keys * stride), *v = numbers(keys * stride), *q = numbers(count * q_stride),
          *out = numbers(count * q_stride);
    float *scores = numbers(keys);
    double *p = (double *)malloc(keys * sizeof *p), most = 0;
    llm_attention a = {k, v, size, stride, heads, position, window, q_stride, 2.5f, scores};
    llm_attend_tokens(&a, out, q, 0, count);
    for (size_t t = 0; t < count; t++)
        for (size_t h = 0; h < heads; h++) {
            size_t end = position + t + 1, from = window && end > window ? end - window : 0;
            double top = -1e300, total = 0;
            for (size_t i = from; i < end; i++) {
                p[i] = 0;
                for (size_t j = 0; j < size; j++)
                    p[i] += 2.5 * (double)q[t * q_stride + h * size + j] * (double)k[i * stride + j];
                if (p[i] > top) top = p[i];
            }
            for (size_t i = from; i < end; i++) total += p[i] = exp(p[i] - top);
            for (size_t j = 0; j < size; j++) {
                double sum = 0;
                for (size_t i = from; i < end; i++) sum += p[i] / total * (double)v[i * stride + j];
                double error = fabs(sum - (double)out[t * q_stride + h * size + j]);
                if (!(error <= most)) most = error;
            }
        }
    free(k), free(v), free(q), free(out), free(scores), free(p);
    return most;
}

/* Tokens one at a time, and all at once. */
static int batches_differ(size_t size, size_t heads, size_t position, size_t count, size_t window) {
    size_t q_stride = heads * size, keys = position + count;
    float *k = numbers(keys * size), *v = numbers(keys * size), *q = numbers(count * q_stride);
    float *whole = numbers(count * q_stride), *single = numbers(count * q_stride), *scores = numbers(keys);
    llm_attention a = {k, v, size, size, heads, position, window, q_stride, 1.5f, scores};
    llm_attend_tokens(&a, whole, q, 0, count);
    for (size_t t = 0; t < count; t++) {
        a.position = position + t;
        llm_attend_tokens(&a, single + t * q_stride, q + t * q_stride, 0, 1);
    }
    int differ = memcmp(whole, single, count * q_stride * sizeof *whole) != 0;
    free(k), free(v), free(q), free(whole), free(single), free(scores);
    return differ;
}

int main(void) {
    static const char *const names[] = {"plain or AVX2", "AVX-512", "AMX"};
    static const size_t sizes[][3] = {{1, 1, 1},      {3, 7, 5},     {64, 64, 24},
                                      {33, 65, 31},   {31, 100, 32}, {65, 96, 33},
                                      {130, 576, 70}, {5, 1537, 40}, {96, 1030, 64}};
    static const size_t heads[][5] = {{64, 3, 0, 50, 0},  {64, 1, 90, 9, 0},    {48, 2, 5, 77, 0},
                                      {16, 4, 0, 30, 7},  {64, 3, 130, 40, 64}, {20, 2, 3, 20, 0},
                                      {128, 2, 0, 26, 9}, {64, 3, 70, 1, 0}};
    int best = llm_dense_limit(LLM_DENSE_AMX);
    for (int isa = 0; isa <= LLM_DENSE_AMX; isa++) {
        TEST(names[isa]);
        if (isa > best) {
            SKIP("this machine does not have it");
            continue;
        }
        CHECK(llm_dense_limit(isa) == isa, "not what was asked for");
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            double error = product_error(sizes[i][0], sizes[i][1], sizes[i][2]),
                   limit = isa == LLM_DENSE_AMX ? 0x1p-16 : 1e-6;
            CHECK(error < limit, "%zu x %zu, %zu vectors: off by %g of sum |w x|", sizes[i][0], sizes[i][1],
                  sizes[i][2], error);
        }
        CHECK(!parts_differ(130, 576, 40, 72) && !parts_differ(70, 80, 9, 8),
              "results depend on how the rows are shared out");
        for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
            const size_t *h = heads[i];
            CHECK(!batches_differ(h[0], h[1], h[2], h[3], h[4]),
                  "%zu channels, %zu heads: a token depends on those beside it", h[0], h[1]);
            double error = attention_error(h[0], h[1], h[2], h[3], h[4]);
            CHECK(error < 1e-5, "%zu channels, %zu heads, position %zu, %zu tokens, window %zu: off by %g",
                  h[0], h[1], h[2], h[3], h[4], error);
        }
    }
    llm_dense_limit(LLM_DENSE_AMX);

    TEST("exponentials are within 3e-7, from e^-87 to e^88, and the sums made of them right");
    enum { MANY = 1003 };
    float x[MANY], e[MANY], r[MANY];
    double most = 0, sum = 0, difference = 0;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < MANY; i++) x[i] = e[i] = -87 + 175 * (number() + 1) / 2;
        llm_exp(e, MANY);
        for (int i = 0; i < MANY; i++) {
            double error = fabs((double)e[i] / exp((double)x[i]) - 1);
            if (!(error <= most)) most = error;
        }
    }
    CHECK(most < 3e-7, "off by %g", most);
    float ends[3] = {-1000, 1000, 0};
    llm_exp(ends, 3);
    CHECK(ends[0] > 0 && ends[0] < 1e-37f && ends[1] > 1e38f && isfinite(ends[1]) && ends[2] == 1, "%g %g %g",
          (double)ends[0], (double)ends[1], (double)ends[2]);
    for (int i = 0; i < MANY; i++) {
        x[i] = 8 * number(), r[i] = x[i] + number() / 8;
        sum += exp((double)x[i] - 8),
            difference += exp((double)r[i] - 9) * ((double)r[i] - (double)x[i] - 0.01);
    }
    CHECK(fabs(llm_exp_sum(x, MANY, 8) / sum - 1) < 1e-6, "%g, not %g", llm_exp_sum(x, MANY, 8), sum);
    CHECK(fabs(llm_exp_difference(r, x, MANY, 9, 0.01f) - difference) < 1e-6 * sum, "%g, not %g",
          llm_exp_difference(r, x, MANY, 9, 0.01f), difference);
    x[1000] = 9;
    CHECK(llm_greatest(x, MANY) == 9 && llm_greatest(x, 1000) < 8, "not the greatest");
    test_packed();
    return TEST_DONE();
}
