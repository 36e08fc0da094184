/* Blocks that give nothing alone come together: the first ones of gate, up and down, of values and output, of queries and
 * keys, so that a budget near one bit a weight is not spent on what waits for the rest of it. */
#include "command.h"
#include "examples/bitstack/couple.h"
#include "examples/llm/evaluate.h"
#include "examples/llm/generate.h"

#define MODEL "examples/models/books-6m-f16.gguf"
enum { MOST = 24, LEVELS = 5 };

/* Which of its layer's three groups a matrix is of. */
static int group_of(uint32_t matrix) {
    uint32_t linear = matrix % LLM_LINEARS;
    return linear >= LLM_GATE ? 0 : linear == LLM_V || linear == LLM_O ? 1 : 2;
}

/* Groups of a model's layers some, but not all of whose first blocks are there. */
static int begun(const uint32_t *done, const uint32_t *levels, uint32_t layers) {
    int count = 0;
    for (uint32_t layer = 0; layer < layers; layer++)
        for (int g = 0; g < 3; g++) {
            int some = 0, all = 1;
            for (uint32_t i = layer * LLM_LINEARS; i < (layer + 1) * LLM_LINEARS; i++)
                if (levels[i] && group_of(i) == g) some |= done[i] > 0, all &= done[i] > 0;
            count += some && !all;
        }
    return count;
}

typedef struct curves {
    uint32_t layers, matrices, levels[MOST];
    double loss[MOST][LEVELS + 1];
    uint64_t bytes[MOST][LEVELS + 1];
    const double *loss_at[MOST];
    const uint64_t *bytes_at[MOST];
} curves;

static bitstack_result order(const curves *c, bitstack_order_entry *out) {
    return couple_order(c->layers, c->levels, c->matrices, c->loss_at, c->bytes_at, out);
}

static void any_curves(curves *c, uint64_t *seed) {
    memset(c, 0, sizeof *c);
    c->layers = 1 + (uint32_t)(test_random(seed) % 3), c->matrices = c->layers * LLM_LINEARS + (uint32_t)(test_random(seed) % 3);
    for (uint32_t i = 0; i < c->matrices; i++) {
        c->levels[i] = (uint32_t)(test_random(seed) % (LEVELS + 1));
        c->loss[i][0] = test_uniform(seed) * (test_random(seed) % 8 ? 1 : 0);
        for (uint32_t l = 1; l <= c->levels[i]; l++) {
            c->loss[i][l] = c->loss[i][l - 1] * 1.1 * test_uniform(seed); /* not convex, and now and then it rises */
            c->bytes[i][l] = c->bytes[i][l - 1] + 64 + test_random(seed) % 1000;
        }
        c->loss_at[i] = c->loss[i], c->bytes_at[i] = c->bytes[i];
    }
}

/* A layer in which every matrix has two blocks of 100 bytes. */
static void one_layer(curves *c, const double loss[LLM_LINEARS][3]) {
    memset(c, 0, sizeof *c);
    c->layers = 1, c->matrices = LLM_LINEARS;
    for (uint32_t i = 0; i < LLM_LINEARS; i++) {
        c->levels[i] = 2;
        for (uint32_t l = 0; l <= 2; l++) c->loss[i][l] = loss[i][l], c->bytes[i][l] = 100 * l;
        c->loss_at[i] = c->loss[i], c->bytes_at[i] = c->bytes[i];
    }
}

static void compare(const curves *c, const uint32_t want[2 * LLM_LINEARS][2]) {
    bitstack_order_entry out[2 * LLM_LINEARS];
    CHECK(order(c, out) == BITSTACK_OK, "failed");
    for (int e = 0; e < 2 * LLM_LINEARS; e++)
        CHECK(out[e].matrix == want[e][0] && out[e].level == want[e][1], "entry %d: block %u of matrix %u, expected %u of %u", e, out[e].level, out[e].matrix,
              want[e][1], want[e][0]);
}

/* The demo model at every budget of the beginning of its order. */
static void demo(void) {
    llm_model full, model;
    llm_error error;
    llm_rows rows = {NULL, 0, 0};
    llm_reference reference = {&full, NULL, 0};
    char line[700], here[500];
    CHECK(getcwd(here, sizeof here), "no folder");
    snprintf(line, sizeof line, "compress '%s/" MODEL "' -o m.bitstack --levels 2 --effort fast --calibrate-self 1024 --compress-embeddings no --quiet", here);
    CHECK(command_run(line) == 0, "%s", command_err);
    int opened = llm_model_open(&full, MODEL, NULL, &error) == 0 && llm_model_open(&model, command_file("m.bitstack"), NULL, &error) == 0;
    CHECK(opened && llm_generate_rows(&rows, &full, 4, 65, 9, 2, NULL, NULL) == 0, "%s", opened ? "no memory" : error.message);
    if (test_bad_) return;
    bitstack *stack = model.source.stack;
    uint32_t levels[256], done[256] = {0}, count = (uint32_t)bitstack_matrix_count(stack), whole = 0;
    for (uint32_t i = 0; i < count; i++) levels[i] = 2;
    double before = -1;
    int flat = 0, longest = 0, useless = 0;
    for (int b = 0; b < bitstack_block_count(stack) && whole < count; b++) {
        bitstack_block block;
        llm_quality q;
        bitstack_get_block(stack, b, &block);
        done[block.matrix] = block.level, whole += block.level == 1;
        int open = begun(done, levels, model.config.layers);
        CHECK(open <= 1, "%d groups are begun after %d blocks", open, b + 1);
        CHECK(bitstack_set_budget(stack, block.resident_after, NULL) == BITSTACK_OK && llm_evaluate(&model, &reference, &rows, 2, NULL, NULL, &q) == 0, "no memory");
        flat = q.kl == before ? flat + 1 : 0;
        if (flat > longest) longest = flat;
        if (!open) useless += q.kl == before;
        before = q.kl;
    }
    CHECK(longest <= 2 && useless == 0, "%d budgets in a row, each of a block more, give the same predictions; %d steps that are whole change none", longest, useless);
    printf("      the first %u blocks: at most %d in a row change nothing\n", whole, longest);
    free(reference.logits);
    llm_rows_free(&rows);
    llm_model_close(&full), llm_model_close(&model);
}

int main(int argc, char **argv) {
    (void)argc;
    if (command_begin(argv[0], "couple")) return 1;
    static curves c;
    uint64_t seed = 11;

    TEST("every block comes once, a matrix's by level; one group is begun at a time; scores never rise");
    for (int round = 0; round < 400; round++) {
        bitstack_order_entry out[MOST * LEVELS];
        uint32_t done[MOST] = {0};
        size_t blocks = 0;
        any_curves(&c, &seed);
        CHECK(order(&c, out) == BITSTACK_OK, "failed");
        for (uint32_t i = 0; i < c.matrices; i++) blocks += c.levels[i];
        for (size_t e = 0; e < blocks; e++) {
            CHECK(out[e].matrix < c.matrices && out[e].level == done[out[e].matrix] + 1, "round %d, entry %zu", round, e);
            CHECK(e == 0 || out[e].score <= out[e - 1].score, "round %d, entry %zu: %g after %g", round, e, (double)out[e].score, (double)out[e - 1].score);
            if (!test_bad_) done[out[e].matrix]++;
            CHECK(begun(done, c.levels, c.layers) <= 1, "round %d: two are begun after entry %zu", round, e);
        }
        CHECK(memcmp(done, c.levels, c.matrices * sizeof *done) == 0, "round %d: blocks are missing", round);
        if (test_bad_) break;
    }

    TEST("a group is worth what is lost without any of it, once, for the bytes of all; the pattern of attention waits for its values");
    /* gate, up and down: 3 times .9 of .6 for 300 bytes; values and output .81 of .4 for 200; queries and keys .81 of .8. */
    static const double apart[LLM_LINEARS][3] = {{.8, .08, 0}, {.8, .08, 0}, {.4, .04, 0}, {.4, .04, 0}, {.6, .06, .01}, {.6, .06, .025}, {.6, .06, .03}};
    static const uint32_t joined[2 * LLM_LINEARS][2] = {{2, 1}, {3, 1}, {0, 1}, {1, 1}, {4, 1}, {5, 1}, {6, 1}, {0, 2}, {1, 2}, {4, 2}, {2, 2}, {3, 2}, {5, 2}, {6, 2}};
    one_layer(&c, apart);
    compare(&c, joined); /* the pattern is worth more a byte than the values, and takes them along */

    TEST("what is steeper than the step belongs to it");
    /* Gate's first block alone leaves nothing of the group; its second one restores it. */
    static const double steep[LLM_LINEARS][3] = {{.01, .001, 0}, {.01, .001, 0}, {.1, .01, 0}, {.1, .01, 0}, {.6, .6, .01}, {.6, .06, .04}, {.6, .06, .04}};
    static const uint32_t together[2 * LLM_LINEARS][2] = {{4, 1}, {5, 1}, {6, 1}, {4, 2}, {2, 1}, {3, 1}, {5, 2}, {6, 2}, {2, 2}, {3, 2}, {0, 1}, {1, 1}, {0, 2}, {1, 2}};
    one_layer(&c, steep);
    compare(&c, together);

    TEST("losses that are no numbers are refused, a model of nothing is not");
    bitstack_order_entry none[2 * LLM_LINEARS];
    c.loss[3][1] = NAN;
    CHECK(order(&c, none) == BITSTACK_ERROR_NUMERIC, "taken");
    memset(&c, 0, sizeof c);
    CHECK(order(&c, none) == BITSTACK_OK, "refused");

    TEST("the demo model near one bit: each step that is whole changes its predictions, and no more blocks in a row do not than a step has");
    demo();
    return TEST_DONE();
}
