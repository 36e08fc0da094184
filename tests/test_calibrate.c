/* What calibration gathers is what the model's own inputs and gradients say: second moments, each token with its weight,
 * and sensitivities; whatever the number of threads. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/calibrate.h"

enum { TEXTS = 5, LENGTH = 40, TOKENS = TEXTS * (LENGTH - 1), WIDEST = 96, LAYERS = 2 };

/* Inputs of one layer, all tokens, as a state of its own sees them. */
static float inputs[LLM_INPUTS][TOKENS][WIDEST];
static size_t text_at_hand;
static uint32_t layer_at_hand;

static void keep(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    (void)user;
    if (layer != layer_at_hand) return;
    for (size_t t = 0; t < tokens; t++) memcpy(inputs[input][text_at_hand * (LENGTH - 1) + t], x + t * cols, cols * sizeof *x);
}

static void see_inputs(const llm_model *m, const llm_rows *rows, uint32_t layer) {
    llm_state s;
    layer_at_hand = layer;
    if (llm_state_init(&s, m, LENGTH, 0) != 0) return;
    s.observe = keep;
    for (text_at_hand = 0; text_at_hand < TEXTS; text_at_hand++) {
        s.position = 0;
        llm_forward(m, &s, rows->ids + text_at_hand * LENGTH, LENGTH - 1);
    }
    llm_state_free(&s);
}

/* Squared gradients of a matrix: a token's sum, a row's mean. */
typedef struct squares {
    double tokens[LAYERS + 1][LLM_AT_EMBEDDING + 1][TOKENS], rows[LAYERS + 1][LLM_AT_EMBEDDING + 1];
} squares;

static void square(void *user, uint32_t layer, int place, const float *g, const float *x, size_t first, size_t tokens, uint32_t rows) {
    (void)x;
    squares *s = user;
    for (size_t t = 0; t < tokens; t++)
        for (uint32_t i = 0; i < rows; i++) {
            double g2 = (double)g[t * rows + i] * (double)g[t * rows + i];
            s->tokens[layer][place][first + t] += g2;
            s->rows[layer][place] += g2 / TOKENS / rows;
        }
}

/* The largest difference between moments and a plain sum, as a part of the largest entry. */
static double off(const bitstack_moments *m, const float *weights, int input) {
    double most = 0, largest = 0;
    for (uint32_t i = 0; i < m->cols; i++)
        for (uint32_t j = 0; j < m->cols; j++) {
            double sum = 0;
            for (int t = 0; t < TOKENS; t++) sum += (weights ? (double)weights[t] : 1) * (double)inputs[input][t][i] * (double)inputs[input][t][j];
            double d = fabs(m->h[i * m->cols + j] - sum);
            if (!(d <= most)) most = d;
            if (fabs(sum) > largest) largest = fabs(sum);
        }
    return most / largest;
}

static double norm_off(const bitstack_moments *m, const float *weights, int input) {
    double most = 0;
    for (uint32_t i = 0; i < m->cols; i++) {
        double norm = 0;
        for (int r = 0; r < TEXTS; r++) {
            double sum = 0;
            for (int t = r * (LENGTH - 1); t < (r + 1) * (LENGTH - 1); t++) sum += (weights ? (double)weights[t] : 1) * (double)inputs[input][t][i] * (double)inputs[input][t][i];
            norm += sqrt(sum);
        }
        double d = fabs(m->norms[i] - norm) / norm;
        if (!(d <= most)) most = d;
    }
    return most;
}

static squares want;

/* Makes the model sure of what it says, and the texts what it would say. */
static void expect_itself(llm_model *m, uint32_t *ids) {
    static float logits[300];
    llm_state s;
    for (size_t i = 0; i < (size_t)m->head.rows * m->head.cols && m->head.owned; i++) m->head.owned[i] *= 8;
    if (llm_state_init(&s, m, LENGTH, 0) != 0) return;
    for (uint32_t r = 0; r < TEXTS; r++)
        for (uint32_t t = s.position = 0; t + 1 < LENGTH; t++) {
            uint32_t next = 0;
            llm_forward(m, &s, ids + r * LENGTH + t, 1);
            llm_logits(m, &s, 0, 1, logits);
            for (uint32_t i = 1; i < 300; i++) next = logits[i] > logits[next] ? i : next;
            ids[r * LENGTH + t + 1] = next;
        }
    llm_state_free(&s);
}

int main(int argc, char **argv) {
    gguf_maker g;
    llm_model m;
    llm_error error;
    llm_calibration c, other;
    static uint32_t ids[TEXTS * LENGTH], probe_ids[2 * 9];
    llm_rows rows = {ids, TEXTS, LENGTH}, probe = {probe_ids, 2, 9};
    uint64_t seed = 8;
    char path[600];
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    snprintf(path, sizeof path, "%.*s/calibrate.gguf", slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
    for (int i = 0; i < TEXTS * LENGTH; i++) ids[i] = (uint32_t)(3 + test_random(&seed) % 290);
    memcpy(probe_ids, ids, sizeof probe_ids);
    make_tiny_llama(&g, 3);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(g.data, 1, g.bytes, file) != g.bytes) printf("      cannot write %s\n", path);
    if (file) fclose(file);
    free(g.data);

    TEST("without weights: moments are the sums of what the matrices read");
    CHECK(llm_model_open(&m, path, NULL, &error) == 0, "%s", error.message);
    if (test_bad_) return TEST_DONE();
    CHECK(llm_calibration_init(&c, &m, &rows, &probe, 1 << 20, 2) == 0, "out of memory");
    for (uint32_t l = 0; l < LAYERS; l++) {
        see_inputs(&m, &rows, l);
        CHECK(llm_calibration_gather(&c, 1) == 0 && c.has_moments, "out of memory");
        for (int i = 0; i < LLM_INPUTS; i++) {
            CHECK(c.moments[i].count == TOKENS && c.moments[i].samples == TEXTS, "%d tokens", (int)c.moments[i].count);
            CHECK(off(&c.moments[i], NULL, i) < 1e-4 && norm_off(&c.moments[i], NULL, i) < 1e-4, "layer %u, input %d: off by %g, norms by %g", l, i,
                  off(&c.moments[i], NULL, i), norm_off(&c.moments[i], NULL, i));
        }
        llm_calibration_next(&c);
    }
    llm_calibration_free(&c);

    TEST("the backward pass: a token's weight is its squared gradient, of mean 1 and not above the cap; sensitivities are half the mean, of capped tokens as much less");
    llm_backward b;
    CHECK(llm_backward_init(&b, &m, TEXTS, LENGTH - 1, 1, 1) == 0, "out of memory");
    llm_backward_run(&b, ids, TEXTS, LENGTH, LLM_LABELS_GIVEN, 0, square, &want);
    llm_backward_free(&b);
    CHECK(llm_calibration_init(&c, &m, &rows, &probe, 1 << 20, 1) == 0 && llm_calibration_init(&other, &m, &rows, &probe, 1, 3) == 0, "out of memory");
    CHECK(llm_calibration_backward(&c, 1, LLM_LABELS_GIVEN, 0, NULL, NULL) == 0 && llm_calibration_backward(&other, 1, LLM_LABELS_GIVEN, 0, NULL, NULL) == 0, "out of memory");
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (int i = 0; i < LLM_INPUTS; i++) {
            const float *w = c.token_weights + (l * LLM_INPUTS + (uint32_t)i) * TOKENS;
            double mean = 0, most = 0, raw[TOKENS], unit = 0;
            int capped = 0;
            for (int t = 0; t < TOKENS; t++) {
                raw[t] = 0;
                for (int k = 0; k < LLM_LINEARS; k++) raw[t] += llm_linear_inputs[k] == i ? want.tokens[l][k][t] : 0;
                mean += (double)w[t] / TOKENS;
                if ((double)w[t] > most) most = (double)w[t];
            }
            for (int t = 0; t < TOKENS; t++) /* those below the cap are in proportion */
                if ((double)w[t] < 0.999 * most && !(unit > 0)) unit = raw[t] / (double)w[t];
            for (int t = 0; t < TOKENS; t++) {
                capped += (double)w[t] >= 0.999 * most;
                CHECK((double)w[t] >= 0.999 * most ? raw[t] >= 0.99 * most * unit : fabs(raw[t] / unit - (double)w[t]) < 1e-3 * (double)w[t] + 1e-6, "token %d: %g, expected %g", t, (double)w[t], raw[t] / unit);
            }
            for (int k = 0; k < LLM_LINEARS; k++) {
                double all = 0, held = 0, got = llm_calibration_sensitivity(&c, l, k);
                if (llm_linear_inputs[k] != i) continue;
                for (int t = 0; t < TOKENS; t++) all += want.tokens[l][k][t], held += want.tokens[l][k][t] * fmin(1, (double)w[t] * unit / raw[t]);
                double expected = want.rows[l][k] / 2 * held / all;
                CHECK(fabs(got - expected) < 1e-3 * expected, "layer %u, matrix %d: %g, expected %g", l, k, got, expected);
            }
            CHECK(fabs(mean - 1) < 1e-5 && most < 9 && capped < TOKENS / 4, "layer %u, input %d: mean %g, most %g, %d capped", l, i, mean, most, capped);
        }
    }
    size_t floats = ((size_t)LAYERS * LLM_INPUTS + 1) * TOKENS;
    double apart = 0;
    for (size_t i = 0; i < floats; i++) apart = fmax(apart, fabs((double)(c.token_weights[i] - other.token_weights[i])));
    CHECK(apart < 1e-3, "one text at a time and three threads: weights %g apart", apart);
    llm_calibration_free(&other);

    TEST("with weights: moments are the weighted sums, bit for bit with any number of threads, and the head's too");
    CHECK(llm_calibration_init(&other, &m, &rows, &probe, 1 << 20, 3) == 0 && llm_calibration_backward(&other, 1, LLM_LABELS_GIVEN, 0, NULL, NULL) == 0, "out of memory");
    for (uint32_t l = 0; l < LAYERS; l++) {
        see_inputs(&m, &rows, l);
        CHECK(llm_calibration_gather(&c, 1) == 0 && llm_calibration_gather(&other, 1) == 0, "out of memory");
        for (int i = 0; i < LLM_INPUTS; i++) {
            const float *w = c.token_weights + (l * LLM_INPUTS + (uint32_t)i) * TOKENS;
            size_t bytes = (size_t)c.moments[i].cols * c.moments[i].cols * sizeof(double);
            CHECK(off(&c.moments[i], w, i) < 1e-4 && norm_off(&c.moments[i], w, i) < 1e-4, "layer %u, input %d: off by %g", l, i, off(&c.moments[i], w, i));
            CHECK(off(&c.moments[i], NULL, i) > 1e-2, "layer %u, input %d: weights make no difference", l, i);
            CHECK(memcmp(c.moments[i].h, other.moments[i].h, bytes) == 0, "layer %u, input %d: other moments with three threads", l, i);
        }
        llm_calibration_next(&c), llm_calibration_next(&other);
    }
    bitstack_moments head, other_head;
    CHECK(llm_calibration_gather_head(&c, &head) == 0 && llm_calibration_gather_head(&other, &other_head) == 0, "out of memory");
    CHECK(head.count == TOKENS && memcmp(head.h, other_head.h, (size_t)head.cols * head.cols * sizeof(double)) == 0, "the head's moments");
    bitstack_moments_free(&head), bitstack_moments_free(&other_head);
    llm_calibration_free(&c), llm_calibration_free(&other);

    TEST("a token whose gradient outweighs all others by far counts about as eight of the mean do");
    expect_itself(&m, ids);
    ids[3 * LENGTH - 1] = ids[3 * LENGTH - 1] == 7 ? 8 : 7; /* but one is a surprise */
    memset(&want, 0, sizeof want);
    CHECK(llm_backward_init(&b, &m, TEXTS, LENGTH - 1, 1, 1) == 0, "out of memory");
    llm_backward_run(&b, ids, TEXTS, LENGTH, LLM_LABELS_GIVEN, 0, square, &want);
    llm_backward_free(&b);
    CHECK(llm_calibration_init(&c, &m, &rows, &probe, 1 << 20, 1) == 0 && llm_calibration_backward(&c, 1, LLM_LABELS_GIVEN, 0, NULL, NULL) == 0, "out of memory");
    const float *w = c.token_weights + LAYERS * LLM_INPUTS * TOKENS;
    double most = 0, raw_most = 0, raw_mean = 0;
    for (int t = 0; t < TOKENS; t++) {
        double raw = want.tokens[LAYERS][LLM_AT_HEAD][t];
        most = fmax(most, (double)w[t]), raw_most = fmax(raw_most, raw), raw_mean += raw / TOKENS;
    }
    CHECK(raw_most > 16 * raw_mean, "it outweighs the mean by %g only", raw_most / raw_mean);
    CHECK(most > 7.9 && most < 9, "it counts as %g", most);
    for (int k = 0; k < LLM_LINEARS; k++) { /* and so it does in the sensitivities */
        const float *weights = c.token_weights + ((LAYERS - 1) * LLM_INPUTS + (size_t)llm_linear_inputs[k]) * TOKENS;
        double got = llm_calibration_sensitivity(&c, LAYERS - 1, k), whole = want.rows[LAYERS - 1][k] / 2, top = 0;
        for (int t = 0; t < TOKENS; t++) top = fmax(top, (double)weights[t]);
        CHECK(top < 7.9 || got < 0.995 * whole, "matrix %d: a sensitivity of %g, %g without a cap", k, got, whole);
    }
    llm_calibration_free(&c);
    llm_model_close(&m);
    return TEST_DONE();
}
