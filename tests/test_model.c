/* The full-precision model computes what the architecture says. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/evaluate.h"
#include "../examples/llm/gguf.h"
#include "../examples/llm/sampling.h"
#include "../examples/llm/tokenizer.h"

static uint64_t observed[LLM_INPUTS];
static int wrong;
static void observe(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols) {
    const llm_model *m = (const llm_model *)user;
    const uint32_t want[LLM_INPUTS] = {m->config.width, m->config.width, m->config.width, m->config.hidden};
    wrong += layer >= m->config.layers || cols != want[input] || !isfinite(x[tokens * cols - 1]);
    observed[input] += tokens;
}

int main(void) {
    llm_model m;
    llm_error error;
    llm_state s;
    TEST("the demo model loads");
    if (llm_model_open(&m, "examples/models/books-6m-f16.gguf", NULL, &error) != 0) {
        CHECK(0, "%s", error.message);
        return TEST_DONE();
    }
    uint32_t vocabulary = m.config.vocabulary, ids[64];
    CHECK(vocabulary == 4096 && m.config.layers == 6 && m.config.heads == 8 && m.config.kv_heads == 4, "wrong sizes");
    float *logits = (float *)malloc(64 * vocabulary * sizeof *logits), *again = (float *)malloc(64 * vocabulary * sizeof *again);
    CHECK(llm_state_init(&s, &m, 64, 0) == 0, "no memory");

    size_t bytes;
    uint16_t *heldout = (uint16_t *)test_read_file(test_shared("models/heldout.u16"), &bytes);
    float *reference = (float *)test_read_file(test_shared("models/logits_row0_16x4096.f32"), &bytes);
    for (int i = 0; i < 64; i++) ids[i] = heldout ? heldout[i] : (uint32_t)(i * 61 % 4096);

    TEST("logits equal an independent implementation's within 1e-3");
    llm_forward(&m, &s, ids, 16);
    llm_logits(&m, &s, 0, 16, logits);
    if (!heldout || !reference) SKIP("no heldout.u16 or logits in ../shared/models");
    else
        for (size_t i = 0; i < 16 * 4096; i++)
            CHECK(fabsf(logits[i] - reference[i]) < 1e-3f, "logit %zu is %g, not %g", i, (double)logits[i], (double)reference[i]);
    free(reference);

    TEST("one token at a time, and in uneven parts, gives the same logits");
    for (int way = 0; way < 2; way++) {
        s.position = 0;
        for (uint32_t done = 0; done < 16; ) {
            uint32_t count = way == 0 ? 1 : done % 3 + 1;
            if (count > 16 - done) count = 16 - done;
            llm_forward(&m, &s, ids + done, count);
            llm_logits(&m, &s, 0, count, again + (size_t)done * vocabulary);
            done += count;
        }
        for (size_t i = 0; i < 16 * (size_t)vocabulary; i++)
            CHECK(fabsf(logits[i] - again[i]) < 1e-4f, "logit %zu is %g, not %g", i, (double)again[i], (double)logits[i]);
    }

    TEST("matrices left in half precision give the same logits");
    llm_model packed;
    llm_model_options options;
    memset(&options, 0, sizeof options);
    options.unpack_bytes = 1;
    CHECK(llm_model_open(&packed, "examples/models/books-6m-f16.gguf", &options, &error) == 0, "%s", error.message);
    if (!test_bad_) {
        s.position = 0;
        llm_forward(&packed, &s, ids, 16);
        llm_logits(&packed, &s, 0, 16, again);
        for (size_t i = 0; i < 16 * (size_t)vocabulary; i++)
            CHECK(fabsf(logits[i] - again[i]) < 1e-4f, "logit %zu is %g, not %g", i, (double)again[i], (double)logits[i]);
        llm_model_close(&packed);
    }

    TEST("every matrix's input is observed, once a token");
    s.observe = observe;
    s.observe_user = &m;
    s.position = 0;
    llm_forward(&m, &s, ids, 10);
    for (int i = 0; i < LLM_INPUTS; i++) CHECK(observed[i] == 60, "input %d: %llu tokens", i, (unsigned long long)observed[i]);
    CHECK(wrong == 0, "%d observations are wrong", wrong);
    s.observe = NULL;

    TEST("held-out perplexity is the known one within 0.1 %, on one thread and on two");
    if (!heldout) SKIP("no heldout.u16 in ../shared/models");
    else {
        llm_rows rows = {(uint32_t *)malloc(32 * 257 * sizeof(uint32_t)), 32, 257};
        llm_quality q, q2, q1;
        for (int i = 0; i < 32 * 257; i++) rows.ids[i] = heldout[i];
        CHECK(llm_evaluate(&m, NULL, &rows, 2, NULL, NULL, &q) == 0, "no memory");
        CHECK(fabs(exp(q.nll - 4.44808) - 1) < 1e-3, "nll %.6f, not 4.44808", q.nll);
        CHECK(q.tokens == 32 * 256, "%llu tokens", (unsigned long long)q.tokens);
        rows.count = 3;
        llm_reference itself = {&m, NULL, 0};
        CHECK(llm_evaluate(&m, &itself, &rows, 1, NULL, NULL, &q1) == 0 && llm_evaluate(&m, &itself, &rows, 2, NULL, NULL, &q2) == 0, "no memory");
        free(itself.logits);
        CHECK(q1.nll == q2.nll, "%.17g on one thread, %.17g on two", q1.nll, q2.nll);
        CHECK(q1.kl == 0 && q2.kl == 0, "divergence %g and %g from itself", q1.kl, q2.kl);
        llm_reference made_again = {&m, NULL, 1};
        CHECK(llm_evaluate(&m, &made_again, &rows, 2, NULL, NULL, &q2) == 0 && !made_again.logits, "logits are kept");
        CHECK(q1.nll == q2.nll && q2.kl == 0, "%.17g, and %.17g where logits are not kept; divergence %g", q1.nll, q2.nll, q2.kl);
        free(rows.ids);
    }

    TEST("divergence and likelihood are right on a case done by hand");
    static const float a[2] = {0, 0}, b[2] = {1.0986123f, 0}; /* 1/2 1/2 against 3/4 1/4 */
    double nll = 0, kl = 0;
    llm_score(a, b, 2, 1, &nll, &kl);
    CHECK(fabs(nll - log(2)) < 1e-6 && fabs(kl - (0.75 * log(1.5) + 0.25 * log(0.5))) < 1e-6, "nll %g kl %g", nll, kl);

    TEST("both are what sums of doubles give, over more logits than are taken at once and with the greatest ones last");
    enum { MANY = 20011 };
    float *own = (float *)malloc(MANY * sizeof *own), *other = (float *)malloc(MANY * sizeof *other);
    double sums[2] = {0, 0}, expected = 0;
    for (int i = 0; i < MANY; i++) {
        other[i] = (float)(i * 7919 % 1009) * 0.008f + (float)i * 0.0004f, own[i] = other[i] + 30 + (float)(i * 31 % 17) * 0.02f;
        sums[0] += exp((double)own[i]), sums[1] += exp((double)other[i]);
    }
    for (int i = 0; i < MANY; i++) {
        double p = exp((double)other[i]) / sums[1];
        expected += p * log(p / (exp((double)own[i]) / sums[0]));
    }
    nll = kl = 0;
    llm_score(own, other, MANY, 5, &nll, &kl);
    CHECK(fabs(nll - (log(sums[0]) - (double)own[5])) < 1e-6 * nll && fabs(kl - expected) < 1e-7,
          "nll %.9g, not %.9g; kl %.9g, not %.9g", nll, log(sums[0]) - (double)own[5], kl, expected);
    free(own), free(other);

    TEST("sampling: greedy takes the best, a seed repeats, top-p keeps to the likely ones, temperature spreads");
    llm_sampler greedy = {0, 1, 1}, narrow = {1, 0.6f, 3}, wide = {1, 1, 3};
    static const float some[5] = {0, 3, 1, 2.5f, -1};
    int seen_narrow[5] = {0}, seen_wide[5] = {0};
    float copy[5];
    for (int i = 0; i < 4000; i++) {
        memcpy(copy, some, sizeof copy);
        CHECK(llm_sample(&greedy, copy, 5) == 1, "not the best");
        memcpy(copy, some, sizeof copy), seen_narrow[llm_sample(&narrow, copy, 5)]++;
        memcpy(copy, some, sizeof copy), seen_wide[llm_sample(&wide, copy, 5)]++;
    }
    CHECK(seen_narrow[0] + seen_narrow[2] + seen_narrow[4] == 0 && seen_narrow[3] > 1200, "top-p 0.6 drew %d %d %d %d %d",
          seen_narrow[0], seen_narrow[1], seen_narrow[2], seen_narrow[3], seen_narrow[4]);
    double total = 0;
    for (int i = 0; i < 5; i++) total += exp((double)some[i]);
    for (int i = 0; i < 5; i++)
        CHECK(fabs(seen_wide[i] / 4000.0 - exp((double)some[i]) / total) < 0.03, "token %d was drawn %d times", i, seen_wide[i]);
    for (int hot = 0; hot < 2; hot++) { /* cold keeps to the likely ones, hot does not */
        llm_sampler sampler = {hot ? 3.0f : 0.4f, 1, 5};
        int seen[5] = {0};
        for (int i = 0; i < 4000; i++) memcpy(copy, some, sizeof copy), seen[llm_sample(&sampler, copy, 5)]++;
        total = 0;
        for (int i = 0; i < 5; i++) total += exp((double)(some[i] / sampler.temperature));
        for (int i = 0; i < 5; i++)
            CHECK(fabs(seen[i] / 4000.0 - exp((double)(some[i] / sampler.temperature)) / total) < 0.03, "temperature %g: token %d was drawn %d times",
                  (double)sampler.temperature, i, seen[i]);
    }

    TEST("a model that lacks a tensor, or has one of another size, is refused by name");
    llm_source broken;
    for (int kind = 0; kind < 2; kind++) {
        CHECK(llm_source_open(&broken, "examples/models/books-6m-f16.gguf", NULL, &error) == 0, "%s", error.message);
        llm_tensor *t = (llm_tensor *)(uintptr_t)llm_find_tensor(&broken, "blk.3.ffn_up.weight");
        if (kind == 0) t->name.bytes--;
        else t->shape[0]--;
        llm_model refused;
        CHECK(llm_model_load(&refused, broken, NULL, &error) != 0 && strstr(error.message, "blk.3.ffn_up.weight"), "%s", error.message);
    }

    TEST("heads wider than any model has are refused: a table for each position is made of their width");
    for (uint32_t width = 4096; width <= 4097; width++) {
        static const char *const keys[] = {"embedding_length", "block_count", "feed_forward_length", "attention.head_count", "vocab_size"};
        llm_model refused;
        gguf_maker g;
        make_start(&g, 3);
        make_meta_string(&g, "general.architecture", "llama");
        for (int i = 0; i < 5; i++) {
            char key[64];
            snprintf(key, sizeof key, "llama.%s", keys[i]);
            make_meta_u32(&g, key, 1);
        }
        make_meta_u32(&g, "llama.attention.key_length", width);
        make_finish(&g);
        CHECK(llm_gguf_open_memory(&broken, g.data, g.bytes, "wide.gguf", &error) == 0, "%s", error.message);
        CHECK(llm_model_load(&refused, broken, NULL, &error) != 0 && strstr(error.message, width > 4096 ? "key_length, a whole number from 1 to 4096" : "attn_norm"),
              "%u: %s", width, error.message);
        free(g.data);
    }

    llm_state_free(&s);
    llm_model_close(&m);
    free(logits), free(again), free(heldout);
    return TEST_DONE();
}
