/* The peers that a stack is compared with are what they claim to be: their bytes are exact, their kernels
 * multiply by what they dequantize to, and they are as good as their papers say against each other. */
#include "../bench/peers/peer.h"
#include "../examples/llm/model.h"
#include "test.h"

/* ------------------------------------------------------------------------------------ material */
typedef struct problem {
    uint32_t rows, cols;
    float *w;
    bitstack_moments moments;
} problem;

/* Normal weights; inputs correlated over channels, some large, one dead. */
static problem make(uint32_t rows, uint32_t cols, uint64_t seed) {
    problem p = {rows, cols, malloc((size_t)rows * cols * sizeof(float)), {0}};
    uint32_t tokens = 3 * cols;
    float *x = malloc((size_t)tokens * cols * sizeof *x);
    bitstack_moments_init(&p.moments, cols, 1);
    for (size_t i = 0; i < (size_t)rows * cols; i++) p.w[i] = test_normal(&seed) * 0.02f;
    for (size_t t = 0; t < tokens; t++) {
        float last = 0;
        for (uint32_t j = 0; j < cols; j++) {
            last = 0.8f * last + 0.6f * test_normal(&seed);
            x[t * cols + j] = last * (j % 61 == 7 ? 8.0f : 1.0f) * (j != 40);
        }
    }
    bitstack_moments_add(&p.moments, x, tokens, cols);
    free(x);
    return p;
}
static void unmake(problem *p) {
    free(p->w);
    bitstack_moments_free(&p->moments);
}

static double error_of(const problem *p, const char *name) {
    peer_coded coded;
    float *back = malloc((size_t)p->rows * p->cols * sizeof *back);
    double error = HUGE_VAL;
    if (peer_encode(peer_find(name), &coded, p->w, p->rows, p->cols, &p->moments, 2) == BITSTACK_OK) {
        coded.peer->dequantize(&coded, coded.levels, back);
        error = peer_error(p->w, back, p->rows, p->cols, &p->moments, 2);
        peer_free(&coded);
    }
    free(back);
    return error;
}

/* The demo model's matrices of some layers with moments from held-out text, or from random ids without it. */
enum { LAYER = 1 }; /* the others in make compare */
static bitstack_moments model_moments[6 * LLM_INPUTS];

static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    bitstack_moments *m = &model_moments[layer * LLM_INPUTS + (uint32_t)input];
    (void)user;
    if (!m->h) bitstack_moments_init(m, cols, 1);
    bitstack_moments_add(m, x, tokens, cols);
}
static int load_model(llm_model *model) {
    size_t bytes = 0;
    unsigned char *held = test_read_file(test_shared("models/heldout.u16"), &bytes);
    uint32_t ids[256];
    uint64_t seed = 3;
    llm_state state;
    if (llm_model_open(model, "examples/models/books-6m-f16.gguf", NULL, NULL)) return -1;
    if (llm_state_init(&state, model, 256, 0)) return -1;
    state.observe = observe;
    for (size_t r = 0; r < 6; r++) {
        for (size_t t = 0; t < 256; t++) {
            const unsigned char *at = held + (r * 257 + t) * 2;
            ids[t] = held && (r + 1) * 514 <= bytes ? (uint32_t)at[0] | (uint32_t)at[1] << 8
                                                    : (uint32_t)(test_random(&seed) % model->config.vocabulary);
        }
        state.position = 0;
        llm_forward(model, &state, ids, 256);
    }
    llm_state_free(&state);
    free(held);
    return 0;
}

/* --------------------------------------------------------------------------------------- tests */
static uint64_t up(double bytes) { return (uint64_t)ceil(bytes - 1e-9); }

static void test_bytes(void) {
    problem p = make(128, 320, 1); /* 320: not a multiple of 128 or 256 */
    double all = 128.0 * 320;
    static const struct {
        const char *name;
        double per_weight, per_row, fixed;
    } expected[] = {
        {"rtn-3-g32", 3 / 8., 10 * (2 + 3 / 8.), 0},   {"gptq-4-g128", 4 / 8., 3 * (2 + 4 / 8.), 0},
        {"gptq-2-g128-act", 2 / 8., 3 * (2 + 2 / 8.), 0}, {"awq-3-g128", 3 / 8., 3 * (2 + 3 / 8.), 2 * 320},
        {"q4_0", 18 / 32., 0, 0},                      {"q2_k", 84 / 256., 0, 0},
        {"q3_k", 110 / 256., 0, 0},                    {"q4_k", 144 / 256., 0, 0},
        {"q5_k", 176 / 256., 0, 0},                    {"q6_k", 210 / 256., 0, 0},
        {"greedy", 1 / 8., 3 * 2, 0},                  {"any-precision", 1 / 8., 3 * 4, 0},
        {"aqlm-1x8", 1 / 8. / 1, 2, 256 * 8 * 2},
    };
    TEST("peers count every byte: codes, scales, zero points, books, column scales");
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
        peer_coded coded;
        bitstack_result result = peer_encode(peer_find(expected[k].name), &coded, p.w, p.rows, p.cols, &p.moments, 1);
        CHECK(result == BITSTACK_OK, "%s: %s", expected[k].name, bitstack_result_string(result));
        if (result != BITSTACK_OK) continue;
        uint64_t wanted = up(all * expected[k].per_weight + 128 * expected[k].per_row + expected[k].fixed);
        CHECK(coded.bytes[0] == wanted, "%s: %llu, expected %llu", expected[k].name, (unsigned long long)coded.bytes[0],
              (unsigned long long)wanted);
        for (uint32_t l = 1; l < coded.levels; l++) CHECK(coded.bytes[l] > coded.bytes[l - 1], "%s level %u", expected[k].name, l + 1);
        peer_free(&coded);
    }
    unmake(&p);
}

static void test_kernels(void) {
    static const uint32_t shapes[][2] = {{96, 320}, {65, 264}, {130, 512}};
    TEST("kernels agree with dequantize-then-multiply, every peer and level, odd shapes");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        problem p = make(shapes[s][0], shapes[s][1], 2 + s);
        float *x = malloc(p.cols * sizeof *x), *y = malloc(p.rows * sizeof *y), *back = malloc((size_t)p.rows * p.cols * sizeof *back);
        uint64_t seed = 9;
        for (uint32_t j = 0; j < p.cols; j++) x[j] = test_normal(&seed) * (j % 50 == 3 ? 5.0f : 1.0f) * (j != 40);
        for (int k = 0; peer_at(k); k++) {
            const peer *method = peer_at(k);
            peer_coded coded;
            bitstack_result result = peer_encode(method, &coded, p.w, p.rows, p.cols, &p.moments, 1);
            int aqlm = !strncmp(method->name, "aqlm", 4);
            if (aqlm && result == BITSTACK_ERROR_UNSUPPORTED) continue; /* a book larger than the codes */
            CHECK(result == BITSTACK_OK, "%s: %s", method->name, bitstack_result_string(result));
            if (result != BITSTACK_OK) continue;
            for (uint32_t l = 1; method->gemv && l <= coded.levels; l++)
                for (peer_aqlm_scalar = 0; peer_aqlm_scalar <= aqlm; peer_aqlm_scalar++) {
                    double error = 0, norm = 0;
                    method->dequantize(&coded, l, back);
                    method->gemv(&coded, l, x, y);
                    for (uint32_t i = 0; i < p.rows; i++) {
                        double sum = 0;
                        for (uint32_t j = 0; j < p.cols; j++) sum += (double)back[(size_t)i * p.cols + j] * (double)x[j];
                        error += (sum - (double)y[i]) * (sum - (double)y[i]), norm += sum * sum;
                    }
                    CHECK(error <= (aqlm ? 1e-10 : 1e-3) * norm, "%s level %u, %u x %u: relative squared error %.3g", method->name,
                          l, p.rows, p.cols, error / norm);
                }
            peer_aqlm_scalar = 0;
            peer_free(&coded);
        }
        free(x), free(y), free(back);
        unmake(&p);
    }
}

static void test_gptq(void) {
    static const char *const kinds[] = {"g128", "g32"};
    problem p = make(96, 320, 5);
    TEST("GPTQ with inputs that are not correlated is round to nearest");
    peer_coded coded;
    float *a = malloc((size_t)p.rows * p.cols * sizeof *a), *b = malloc((size_t)p.rows * p.cols * sizeof *b);
    for (int k = 0; k < 2; k++) {
        char name[32];
        snprintf(name, sizeof name, "gptq-3-%s", kinds[k]);
        peer_encode(peer_find(name), &coded, p.w, p.rows, p.cols, NULL, 1);
        coded.peer->dequantize(&coded, 1, a), peer_free(&coded);
        snprintf(name, sizeof name, "rtn-3-%s", kinds[k]);
        peer_encode(peer_find(name), &coded, p.w, p.rows, p.cols, NULL, 1);
        coded.peer->dequantize(&coded, 1, b), peer_free(&coded);
        CHECK(!memcmp(a, b, (size_t)p.rows * p.cols * sizeof *a), "%s", kinds[k]);
    }
    TEST("GPTQ gives the same whatever the number of threads, and leaves a dead input at zero");
    peer_encode(peer_find("gptq-3-g128-act"), &coded, p.w, p.rows, p.cols, &p.moments, 1);
    coded.peer->dequantize(&coded, 1, a), peer_free(&coded);
    peer_encode(peer_find("gptq-3-g128-act"), &coded, p.w, p.rows, p.cols, &p.moments, 3);
    coded.peer->dequantize(&coded, 1, b), peer_free(&coded);
    CHECK(!memcmp(a, b, (size_t)p.rows * p.cols * sizeof *a), "threads");
    for (uint32_t i = 0; i < p.rows; i++) CHECK(a[(size_t)i * p.cols + 40] == 0, "row %u: %g", i, (double)a[(size_t)i * p.cols + 40]);
    free(a), free(b);
    unmake(&p);
}

static void test_factor(void) {
    problem p = make(1, 300, 6);
    float *u = malloc(300 * 300 * sizeof *u);
    double worst = 0, trace = 0;
    TEST("the factor of the inverse moments: U H U^T is the identity");
    for (size_t i = 0; i < 300; i++) trace += p.moments.h[i * 300 + i] / 300;
    CHECK(peer_inverse_factor(u, 300, &p.moments, NULL, 0.01, 2) == BITSTACK_OK, "failed");
    for (size_t i = 0; i < 300; i++)
        for (size_t j = 0; j < 300; j += 7) { /* U (H + damping) U^T, rows i and j */
            double sum = 0;
            for (size_t k = 0; k < 300; k++) {
                double hu = 0;
                for (size_t q = 0; q < 300; q++) {
                    double h = p.moments.h[k * 300 + q] / trace + (k == q ? 0.01 + (k == 40) : 0);
                    hu += h * (double)u[j * 300 + q];
                }
                sum += (double)u[i * 300 + k] * hu;
            }
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    CHECK(worst < 1e-3, "off by %g", worst);
    free(u);
    unmake(&p);
}

static void test_against_each_other(void) {
    llm_model model;
    TEST("GPTQ has less than six tenths of the error of round to nearest on every matrix, at 2 to 4 bits, groups of 128 and 32");
    if (load_model(&model)) {
        CHECK(0, "the demo model does not load");
        return;
    }
    for (size_t k = 0; k < LLM_LINEARS; k += test_full() ? 1 : 3) {
        const llm_linear *linear = &model.layers[LAYER].linears[k];
        problem p = {linear->rows, linear->cols, (float *)(uintptr_t)linear->dense,
                     model_moments[LAYER * LLM_INPUTS + llm_linear_inputs[k]]};
        for (int bits = 2; bits <= 4; bits++)
            for (int group = 32; group <= 128; group += 96) {
                char gptq[32], rtn[32];
                snprintf(gptq, sizeof gptq, "gptq-%d-g%d", bits, group);
                snprintf(rtn, sizeof rtn, "rtn-%d-g%d", bits, group);
                double e = error_of(&p, gptq), r = error_of(&p, rtn);
                CHECK(e < 0.6 * r, "%s: %s %.5f, %s %.5f", llm_linear_names[k], gptq, e, rtn, r);
            }
    }
    problem p[3];
    static const int linears[3] = {LLM_V, LLM_UP, LLM_O};
    for (int k = 0; k < 3; k++) {
        const llm_linear *linear = &model.layers[LAYER].linears[linears[k]];
        p[k] = (problem){linear->rows, linear->cols, (float *)(uintptr_t)linear->dense,
                         model_moments[LAYER * LLM_INPUTS + llm_linear_inputs[linears[k]]]};
    }
    TEST("AQLM at two codes of 8 bits is below GPTQ at 2 bits, groups of 128 and 32, with and without act-order");
    for (int k = 0; k < (test_full() ? 2 : 1); k++) {
        double a = error_of(&p[k], "aqlm-2x8"), g = error_of(&p[k], "gptq-2-g128"), act = error_of(&p[k], "gptq-2-g128-act");
        double small = error_of(&p[k], "gptq-2-g32");
        CHECK(a < g && a < act && a < small, "%s: %.5f against %.5f, %.5f, %.5f", llm_linear_names[linears[k]], a, g, act, small);
    }
    TEST("AWQ is below round to nearest; act-order helps GPTQ; a searched grid helps more; K types in order");
    for (int k = 0; k < 3; k++) {
        const char *name = llm_linear_names[linears[k]];
        double rtn = error_of(&p[k], "rtn-3-g128"), awq = error_of(&p[k], "awq-3-g128"), plain = error_of(&p[k], "gptq-3-g128");
        double best = error_of(&p[k], "gptq-3-g128-best");
        CHECK(awq < rtn, "%s: awq %.5f, rtn %.5f", name, awq, rtn);
        CHECK(best < plain, "%s: best %.5f, plain %.5f", name, best, plain);
        double e[5] = {error_of(&p[k], "q2_k"), error_of(&p[k], "q3_k"), error_of(&p[k], "q4_k"), error_of(&p[k], "q5_k"), error_of(&p[k], "q6_k")};
        for (int i = 1; i < 5; i++) CHECK(e[i] < 0.5 * e[i - 1], "%s: K type %d bits %.5f after %.5f", name, i + 2, e[i], e[i - 1]);
        CHECK(e[2] < error_of(&p[k], "q4_0"), "%s: q4_k is not below q4_0 at its size", name);
    }
    for (size_t i = 0; i < sizeof model_moments / sizeof *model_moments; i++)
        if (model_moments[i].h) bitstack_moments_free(&model_moments[i]);
    llm_model_close(&model);
}

static void test_any_size(void) {
    static const char *const names[] = {"greedy", "any-precision", "bitstack-iabs-1"};
    problem p = make(96, 320, 8);
    float *back = malloc((size_t)p.rows * p.cols * sizeof *back);
    TEST("any-size peers get better with every level");
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        peer_coded coded;
        double last = 1;
        CHECK(peer_encode(peer_find(names[k]), &coded, p.w, p.rows, p.cols, &p.moments, 1) == BITSTACK_OK, "%s", names[k]);
        for (uint32_t l = 1; l <= coded.levels; l++) {
            coded.peer->dequantize(&coded, l, back);
            double e = peer_error(p.w, back, p.rows, p.cols, NULL, 1);
            CHECK(e < last, "%s level %u: %.5f after %.5f", names[k], l, e, last);
            last = e;
        }
        peer_free(&coded);
    }
    free(back);
    unmake(&p);
}

int main(void) {
    test_bytes();
    test_kernels();
    test_factor();
    test_gptq();
    test_any_size();
    test_against_each_other();
    return TEST_DONE();
}
