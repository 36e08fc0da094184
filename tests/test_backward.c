/* The gradients with respect to every matrix's outputs are those of the loss: against central differences of the plain
 * reference in double precision, for every architecture. */
#include "architectures.h"
#include "../examples/llm/backward.h"

enum { TEXTS = 3, LENGTH = TOKENS - 1, LONG = 300, WINDOWED = 7 };

/* Gradients of everything, as they come. */
typedef struct gradients {
    float *at[LAYERS + 1][LLM_AT_EMBEDDING + 1]; /* tokens x rows */
    uint32_t rows[LAYERS + 1][LLM_AT_EMBEDDING + 1];
    float *inputs[LAYERS][LLM_LINEARS]; /* tokens x cols, where they come along */
    int calls;
} gradients;

static void keep(void *user, uint32_t layer, int place, const float *g, const float *x, size_t first, size_t tokens, uint32_t rows) {
    gradients *k = user;
    float **at = &k->at[layer][place];
    if (x && place < LLM_LINEARS) {
        const matrix *m = weight((int)layer, parts[place]);
        if (!k->inputs[layer][place]) k->inputs[layer][place] = malloc(tokens * m->cols * sizeof *x);
        memcpy(k->inputs[layer][place], x, tokens * m->cols * sizeof *x);
    }
    if (!*at) *at = calloc((TEXTS * TOKENS > LONG ? TEXTS * TOKENS : LONG) * rows, sizeof **at);
    memcpy(*at + first * rows, g, tokens * rows * sizeof *g);
    k->rows[layer][place] = rows;
    k->calls++;
}

static void drop(gradients *k) {
    for (int l = 0; l <= LAYERS; l++)
        for (int p = 0; p <= LLM_AT_EMBEDDING; p++) free(k->at[l][p]);
    for (int l = 0; l < LAYERS; l++)
        for (int p = 0; p < LLM_LINEARS; p++) free(k->inputs[l][p]);
    memset(k, 0, sizeof *k);
}

static double reference_loss(const architecture *a, const uint32_t *ids) {
    static double logits[TOKENS * VOCABULARY];
    double loss = 0;
    reference(a, ids, logits);
    for (int t = 0; t < LENGTH; t++) {
        double sum = 0;
        for (int i = 0; i < VOCABULARY; i++) sum += exp(logits[t * VOCABULARY + i]);
        loss += log(sum) - logits[(uint32_t)t * VOCABULARY + ids[t + 1]];
    }
    return loss;
}

/* Checks some gradients of one matrix, in all three texts. */
static void against_differences(const architecture *a, const gradients *k, int layer, int place, const uint32_t *ids, uint64_t *random) {
    const double by = 1e-4;
    double worst = 0, size = 0;
    const uint32_t rows = k->rows[layer][place];
    const float *all = k->at[layer][place];
    CHECK(all && rows, "no gradient of matrix %d of layer %d", place, layer);
    if (!all) return;
    for (size_t i = 0; i < (size_t)TEXTS * LENGTH * rows; i++) size += (double)all[i] * (double)all[i];
    size = sqrt(size / (TEXTS * LENGTH * rows));
    for (int n = 0; n < 18; n++) {
        int text = n % TEXTS, token = n < 6 ? n / TEXTS * (LENGTH - 1) : (int)(test_random(random) % LENGTH);
        unsigned row = (unsigned)(test_random(random) % rows);
        nudge.layer = layer, nudge.part = place, nudge.token = token, nudge.by = by;
        nudge.row = row_of(a, layer < LAYERS && place <= LLM_K, row);
        double up = reference_loss(a, ids + text * TOKENS);
        nudge.by = -by;
        double down = reference_loss(a, ids + text * TOKENS), want = (up - down) / (2 * by);
        nudge.layer = -1;
        double off = fabs((double)all[((size_t)text * LENGTH + (size_t)token) * rows + row] - want) / size;
        if (!(off <= worst)) worst = off;
    }
    CHECK(worst < 1e-3 && size > 1e-4, "layer %d, matrix %d: off by %g of their root mean square %g", layer, place, worst, size);
}

/* The sum of a text's gradients of one output is the loss's derivative by its bias: by differences of the losses. */
static void long_text(const char *path, uint64_t *random) {
    llm_model m;
    llm_backward b;
    llm_error error;
    gradients k, unused;
    gguf_maker g;
    uint32_t ids[LONG + 1];
    const float by = 0.02f;
    memset(&k, 0, sizeof k), memset(&unused, 0, sizeof unused);
    for (int i = 0; i <= LONG; i++) ids[i] = (uint32_t)(test_random(random) % VOCABULARY);
    make_weights(&architectures[WINDOWED]);
    write_gguf(&architectures[WINDOWED], &g);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(g.data, 1, g.bytes, file) == g.bytes, "cannot write %s", path);
    if (file) fclose(file);
    free(g.data);
    int opened = llm_model_open(&m, path, NULL, &error) == 0;
    CHECK(opened && m.config.window && m.config.window_first == 1 && llm_backward_init(&b, &m, 1, LONG, 1, 2) == 0, "not the model meant");
    if (!opened) return;
    llm_backward_run(&b, ids, 1, LONG + 1, LLM_LABELS_GIVEN, 0, keep, &k);
    for (uint32_t l = 0; l < LAYERS; l++)
        for (int i = LLM_Q; i <= LLM_V; i++) {
            double worst = 0, largest = 0;
            for (uint32_t n = 0, rows = k.rows[l][i]; n < 6; n++) {
                uint32_t row = n * (rows / 6);
                double sum = 0, loss[2];
                float *bias = &m.layers[l].linears[i].bias[row], was = *bias;
                for (int t = 0; t < LONG; t++) sum += (double)k.at[l][i][(uint32_t)t * rows + row];
                for (int way = 0; way < 2; way++) {
                    *bias = was + (way ? by : -by);
                    loss[way] = LONG * llm_backward_run(&b, ids, 1, LONG + 1, LLM_LABELS_GIVEN, 0, keep, &unused);
                }
                *bias = was;
                double off = fabs(sum - (loss[1] - loss[0]) / (2 * (double)by));
                worst = off > worst ? off : worst, largest = fabs(sum) > largest ? fabs(sum) : largest;
            }
            CHECK(worst < 0.02 * largest, "layer %u, matrix %d: off by %g of %g", l, i, worst, largest);
        }
    drop(&k), drop(&unused);
    llm_backward_free(&b);
    llm_model_close(&m);
}

/* Gradients times inputs, summed over the tokens, are those of the loss with respect to weights. */
static void weights_against_differences(const architecture *a, const gradients *k, int layer, int place, const uint32_t *ids, uint64_t *random) {
    const matrix *m = weight(layer, parts[place]);
    const float *g = k->at[layer][place], *x = k->inputs[layer][place];
    const float by = 0x1p-10f;
    double worst = 0, size = 0;
    CHECK(g && x, "no inputs of matrix %d of layer %d", place, layer);
    if (!g || !x) return;
    for (int n = 0; n < 6; n++) {
        unsigned row = (unsigned)(test_random(random) % m->rows), col = (unsigned)(test_random(random) % m->cols);
        float *w = m->values + (size_t)row_of(a, place <= LLM_K, row) * m->cols + col, was = *w;
        double got = 0, loss[2] = {0, 0};
        for (size_t t = 0; t < (size_t)TEXTS * LENGTH; t++) got += (double)g[t * m->rows + row] * (double)x[t * m->cols + col];
        for (int way = 0; way < 2; way++) {
            *w = way ? was - by : was + by;
            for (int text = 0; text < TEXTS; text++) loss[way] += reference_loss(a, ids + text * TOKENS);
        }
        *w = was;
        const double want = (loss[0] - loss[1]) / (2 * (double)by);
        size += want * want / 6;
        worst = fmax(worst, fabs(got - want));
    }
    CHECK(worst < 0.01 * sqrt(size) + 1e-4, "layer %d, matrix %d: off by %g, root mean square %g", layer, place, worst, sqrt(size));
}

int main(int argc, char **argv) {
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    char path[600];
    uint32_t ids[TEXTS * TOKENS];
    uint64_t random = 5;
    snprintf(path, sizeof path, "%.*s/backward.gguf", slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
    for (int n = 0; n < ARCHITECTURES; n++) {
        const architecture *a = &architectures[n];
        gguf_maker g;
        llm_model m;
        llm_error error;
        gradients first, other;
        TEST(a->sentence);
        seed = 300 + (uint64_t)n;
        memset(&first, 0, sizeof first), memset(&other, 0, sizeof other);
        make_weights(a);
        for (int i = 0; i < TEXTS * TOKENS; i++) ids[i] = (uint32_t)(test_random(&seed) % VOCABULARY);
        write_gguf(a, &g);
        FILE *file = fopen(path, "wb");
        CHECK(file && fwrite(g.data, 1, g.bytes, file) == g.bytes, "cannot write %s", path);
        if (file) fclose(file);
        free(g.data);
        for (int way = 0; way < 2; way++) { /* unpacked, one thread; packed, three */
            llm_model_options options;
            llm_backward b;
            memset(&options, 0, sizeof options);
            options.unpack_bytes = (uint64_t)way, options.forget = way;
            int opened = llm_model_open(&m, path, &options, &error) == 0;
            CHECK(opened, "%s", error.message);
            if (!opened) continue;
            CHECK(llm_backward_init(&b, &m, TEXTS, LENGTH, 1, way ? 3 : 1) == 0 && b.head_tokens >= 16, "out of memory");
            b.with_inputs = 1;
            b.head_tokens = 16; /* the head goes in pieces, the last one shorter */
            double loss = llm_backward_run(&b, ids, TEXTS, TOKENS, LLM_LABELS_GIVEN, 0, keep, way ? &other : &first), want = 0;
            for (int t = 0; t < TEXTS; t++) want += reference_loss(a, ids + t * TOKENS) / (TEXTS * LENGTH);
            CHECK(fabs(loss - want) < 1e-4, "loss %g, expected %g", loss, want);
            llm_backward_free(&b);
            llm_model_close(&m);
        }
        for (int l = 0; l <= LAYERS; l++)
            for (int p = l < LAYERS ? 0 : LLM_AT_HEAD; p < (l < LAYERS ? LLM_LINEARS : LLM_AT_HEAD + 1); p++) {
                against_differences(a, &first, l, p, ids, &random);
                size_t bytes = (size_t)TEXTS * LENGTH * first.rows[l][p] * sizeof(float);
                CHECK(first.at[l][p] && other.at[l][p] && memcmp(first.at[l][p], other.at[l][p], bytes) == 0, "other gradients with three threads, layer %d, matrix %d", l, p);
            }
        against_differences(a, &first, 0, LLM_AT_EMBEDDING, ids, &random);
        for (int l = 0; l < LAYERS; l++)
            for (int p = 0; p < LLM_LINEARS; p++) weights_against_differences(a, &first, l, p, ids, &random);
        drop(&first), drop(&other);
    }

    TEST("against another model, the loss is the divergence from it, and its gradient the difference of both predictions");
    {
        llm_model m, other;
        llm_error error;
        gradients k;
        llm_backward b;
        enum { ALL = TEXTS * LENGTH };
        static float hidden[ALL * WIDTH], logits[2][ALL * VOCABULARY];
        memset(&k, 0, sizeof k);
        CHECK(llm_model_open(&m, path, NULL, &error) == 0 && llm_model_open(&other, path, NULL, &error) == 0, "%s", error.message);
        for (uint32_t i = 0; i < other.config.width; i++) other.final_norm[i] *= 1.5f - 0.01f * (float)i;
        CHECK(llm_backward_init(&b, &m, TEXTS, LENGTH, 1, 2) == 0 && (b.teacher_logits = malloc(b.head_tokens * VOCABULARY * sizeof(float))), "out of memory");
        for (int text = 0; text < TEXTS; text++) {
            llm_state state;
            CHECK(llm_state_init(&state, &other, TOKENS, LENGTH) == 0, "out of memory");
            for (int way = 0; way < 2; way++) {
                state.position = 0;
                llm_forward(way ? &m : &other, &state, ids + text * TOKENS, LENGTH);
                llm_logits(way ? &m : &other, &state, 0, LENGTH, logits[way] + text * LENGTH * VOCABULARY);
                if (!way) memcpy(hidden + text * LENGTH * WIDTH, state.x, LENGTH * WIDTH * sizeof *hidden);
            }
            llm_state_free(&state);
        }
        b.teacher = &other, b.taught = hidden, b.head_tokens = 16;
        double loss = llm_backward_run(&b, ids, TEXTS, TOKENS, LLM_LABELS_GIVEN, 0, keep, &k), want = 0, off = 0;
        for (int t = 0; t < ALL; t++) {
            double sum[2] = {0, 0};
            for (int way = 0; way < 2; way++)
                for (int i = 0; i < VOCABULARY; i++) sum[way] += exp((double)logits[way][t * VOCABULARY + i]);
            for (int i = 0; i < VOCABULARY; i++) {
                double q = exp((double)logits[0][t * VOCABULARY + i]) / sum[0], p = exp((double)logits[1][t * VOCABULARY + i]) / sum[1];
                want += q * log(q / p) / ALL;
                off = fmax(off, fabs((double)k.at[LAYERS][LLM_AT_HEAD][t * VOCABULARY + i] - (p - q)));
            }
        }
        CHECK(want > 1e-3 && fabs(loss - want) < 1e-4 * want + 1e-6, "divergence %g, expected %g", loss, want);
        CHECK(off < 1e-5, "the head's gradient is off by %g", off);
        free(b.teacher_logits);
        llm_backward_free(&b), drop(&k);
        llm_model_close(&m), llm_model_close(&other);
    }

    TEST("labels are drawn as often as the model expects them, and the same ones again");
    llm_model m;
    llm_error error;
    gradients k;
    double expected = 0, found = 0, spread = 0, losses[2] = {0, 1};
    memset(&k, 0, sizeof k);
    CHECK(llm_model_open(&m, path, NULL, &error) == 0, "%s", error.message);
    for (uint64_t s = 0; s < 40 && !test_bad_; s++) {
        llm_backward b;
        CHECK(llm_backward_init(&b, &m, TEXTS, LENGTH, 1, 2) == 0, "out of memory");
        double loss = llm_backward_run(&b, ids, TEXTS, TOKENS, LLM_LABELS_DRAWN, s < 2 ? 7 : s, keep, &k);
        if (s < 2) losses[s] = loss;
        llm_backward_free(&b);
        for (int t = 0; t < TEXTS * LENGTH; t++) { /* the label's entry is p - 1, the others' p: is it among the first ten? */
            const float *p = k.at[LAYERS][LLM_AT_HEAD] + t * VOCABULARY;
            double share = 0, hit = 0;
            for (int i = 0; i < 10; i++) share += (double)p[i] + (p[i] < 0), hit += p[i] < 0;
            expected += share, found += hit, spread += share * (1 - share);
        }
    }
    CHECK(losses[0] == losses[1], "the same seed: losses %g and %g", losses[0], losses[1]);
    CHECK(fabs(found - expected) < 5 * sqrt(spread) && expected > 50, "%g labels among the first ten, expected %g, deviation %g", found, expected, sqrt(spread));
    drop(&k);
    llm_model_close(&m);

    TEST("in a text longer than what is looked back over at once, gradients of queries, keys and values add up to those of their biases");
    long_text(path, &random);
    while (matrix_count) free(matrices[--matrix_count].values);
    return TEST_DONE();
}
