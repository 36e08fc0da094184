/* A language model in a stack is as good as the original at full size, and gets worse step by step as its budget
 * falls: perplexity and divergence of the demo model, both methods. (In `make test` one, small.) */
#include "test.h"
#include "../examples/llm/evaluate.h"
#include "../examples/llm/generate.h"

#define MODEL "examples/models/books-6m-f16.gguf"

int main(int argc, char **argv) {
    (void)argc;
    const int full_run = test_full(), steps = full_run ? 6 : 3, held = full_run ? 16 : 4;
    llm_model full, model;
    llm_error error;
    llm_rows rows = {NULL, 0, 0};
    llm_quality dense;
    llm_reference reference = {&full, NULL, 0};
    char line[1200], path[600];
    const char *slash = strrchr(argv[0], '/');
    int directory = slash ? (int)(slash - argv[0]) : 1;
    const char *here = slash ? argv[0] : ".";

    TEST("the full-precision model");
    CHECK(llm_model_open(&full, MODEL, NULL, &error) == 0, "%s", error.message);
    if (test_bad_) return TEST_DONE();
    size_t bytes = 0;
    uint16_t *heldout = (uint16_t *)test_read_file(test_shared("models/heldout.u16"), &bytes);
    if (heldout) { /* some rows of held-out text, else text of the model's own */
        rows.count = (size_t)held, rows.length = 257;
        rows.ids = (uint32_t *)malloc((size_t)held * 257 * sizeof(uint32_t));
        for (int i = 0; i < held * 257; i++) rows.ids[i] = heldout[i / 257 * (32 / held) * 257 + i % 257];
    } else CHECK(llm_generate_rows(&rows, &full, (size_t)held, 257, 77, 2, NULL, NULL) == 0, "no memory");
    free(heldout);
    CHECK(llm_evaluate(&full, NULL, &rows, 2, NULL, NULL, &dense) == 0, "no memory");
    printf("      %s text, full precision: perplexity %.3f\n", bytes ? "held-out" : "self-written", exp(dense.nll));

    for (int method = 0; method < (full_run ? 2 : 1); method++) {
        const char *name = method ? "iabs" : "nested";
        TEST(method ? "iabs: the model is compressed" : "nested: the model is compressed");
        snprintf(path, sizeof path, "%.*s/whole-%s.bitstack", directory, here, name);
        snprintf(line, sizeof line, "'%.*s/../bitstack' compress " MODEL " -o '%s' --method %s %s --calibrate-self %d",
                 directory, here, path, name, method ? "--rank 1 --levels 7" : full_run ? "" : "--rank 1 --levels 3", full_run ? 2048 : 1024);
        CHECK(system(line) == 0, "failed: %s", line);
        CHECK(llm_model_open(&model, path, NULL, &error) == 0, "%s", error.message);
        if (test_bad_) continue;
        bitstack *stack = model.source.stack;
        double base = (double)bitstack_base_bytes(stack), total = (double)bitstack_total_bytes(stack), weights = 0;
        for (int i = 0; i < bitstack_matrix_count(stack); i++) {
            bitstack_matrix m;
            bitstack_get_matrix(stack, i, &m);
            weights += (double)m.shape.rows * m.shape.cols;
        }

        TEST(method ? "iabs: within 1 % of full precision, worse with every step down" : full_run ? "nested: within 1 % of full precision, worse with every step down"
                                                                                              : "nested: with three levels a divergence of at most .036, worse with every step down");
        llm_quality before = dense;
        for (int step = steps; step >= 1; step--) {
            llm_quality q;
            double budget = base + (total - base) * step / steps;
            CHECK(bitstack_set_budget(stack, (uint64_t)budget, NULL) == BITSTACK_OK, "budget %g", budget);
            CHECK(llm_evaluate(&model, &reference, &rows, 2, NULL, NULL, &q) == 0, "no memory");
            double resident = (double)bitstack_resident_bytes(stack);
            printf("      %-6s %.2f MB %.2f bits: perplexity %.3f, KL %.4f\n", name, resident / 1e6, 8 * (resident - base) / weights, exp(q.nll), q.kl);
            CHECK(resident <= budget, "%.0f bytes resident of %.0f", resident, budget);
            /* The divergence is compared as it is. The likelihood of this text scatters about it: a token's ratio of
             * probabilities has a variance of about twice the divergence, so that its mean may fall three deviations. */
            const double scatter = 3 * sqrt(2 * (q.kl + before.kl) / (double)(rows.count * (rows.length - 1)));
            if (step == steps) /* few tokens scatter in perplexity, not in divergence */
                CHECK(full_run ? exp(q.nll - dense.nll) < 1.01 : q.kl < 0.036, "perplexity %.3f at full size, %.3f at full precision, KL %.4f", exp(q.nll), exp(dense.nll), q.kl);
            else CHECK(q.nll > before.nll - scatter, "perplexity %.3f after %.3f, scatter %.2f %%", exp(q.nll), exp(before.nll), 100 * scatter);
            CHECK(q.kl > before.kl, "KL %g after %g", q.kl, before.kl);
            before = q;
        }

        TEST(method ? "iabs: the same budget gives the same numbers again" : "nested: the same budget gives the same numbers again");
        llm_quality first, again;
        llm_rows one = {rows.ids, 1, rows.length};
        uint64_t budget = (uint64_t)(base + (total - base) * 0.4);
        CHECK(bitstack_set_budget(stack, budget, NULL) == BITSTACK_OK && llm_evaluate(&model, NULL, &one, 1, NULL, NULL, &first) == 0, "failed");
        CHECK(bitstack_set_budget(stack, UINT64_MAX, NULL) == BITSTACK_OK && bitstack_set_budget(stack, (uint64_t)base, NULL) == BITSTACK_OK, "failed");
        CHECK(bitstack_set_budget(stack, budget, NULL) == BITSTACK_OK && llm_evaluate(&model, NULL, &one, 1, NULL, NULL, &again) == 0, "failed");
        CHECK(first.nll == again.nll, "nll %.17g, then %.17g", first.nll, again.nll);
        llm_model_close(&model);
    }
    free(reference.logits);
    llm_rows_free(&rows);
    llm_model_close(&full);
    return TEST_DONE();
}
