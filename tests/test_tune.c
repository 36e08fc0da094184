/* Tuning of a stack's scales and column factors towards what the model predicts at full precision. */
#include "command.h"
#include "bitstack_compress.h"
#include "examples/llm/evaluate.h"
#include "examples/llm/generate.h"
#include "examples/llm/tune.h"

#define MODEL "examples/models/books-6m-f16.gguf"
enum { LEVELS = 3, BUDGETS = 3 };
static const double sizes[BUDGETS] = {1.3, 1.8, 2.2}; /* bits a weight */

static unsigned char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    unsigned char *data = file ? malloc(1 << 24) : NULL;
    *bytes = data ? fread(data, 1, 1 << 24, file) : 0;
    if (file) fclose(file);
    return data;
}

/* Divergences at the sizes. */
static void divergences(const char *path, llm_reference *reference, const llm_rows *rows, double kl[BUDGETS]) {
    llm_model model;
    llm_error error;
    int opened = llm_model_open(&model, path, NULL, &error) == 0;
    double weights = 0;
    CHECK(opened, "%s", error.message);
    if (!opened) return;
    bitstack *stack = model.source.stack;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_matrix m;
        bitstack_get_matrix(stack, i, &m);
        weights += (double)m.shape.rows * m.shape.cols;
    }
    for (int k = 0; k < BUDGETS; k++) {
        llm_quality q = {0};
        CHECK(bitstack_set_budget(stack, bitstack_base_bytes(stack) + (uint64_t)(sizes[k] * weights / 8), NULL) == BITSTACK_OK &&
                  llm_evaluate(&model, reference, rows, 2, NULL, NULL, &q) == 0, "no memory");
        kl[k] = q.kl;
    }
    llm_model_close(&model);
}

static void copy(const char *from, const char *to) {
    size_t bytes;
    unsigned char *data = read_file(from, &bytes);
    FILE *file = fopen(to, "wb");
    CHECK(data && file && fwrite(data, 1, bytes, file) == bytes, "cannot copy %s", from);
    if (file) fclose(file);
    free(data);
}

static llm_tuning settings(void) {
    return (llm_tuning){.steps = 16, .texts = 4, .from = 1.2, .to = 2.3, .levels = 2, .rate = 0.02, .seed = 1, .bytes = 1 << 30, .threads = 2};
}

/* Where two stacks of the same shapes differ: blocks, those of the last level, and bytes that are neither codes nor told by checksums. */
static void compare(const char *a, const char *b, int *blocks, int *above, int *others) {
    size_t bytes[2];
    unsigned char *data[2] = {read_file(a, &bytes[0]), read_file(b, &bytes[1])};
    bitstack *stack;
    bitstack_block block;
    *blocks = *above = *others = 0;
    CHECK(data[0] && data[1] && bytes[0] == bytes[1] && bytes[0] > 100000, "%zu and %zu bytes", bytes[0], bytes[1]);
    CHECK(bitstack_open_memory(&stack, data[0], bytes[0], NULL, NULL) == BITSTACK_OK, "not a stack");
    if (test_bad_) return;
    for (int i = 0; bitstack_get_block(stack, i, &block) == BITSTACK_OK; i++) {
        bitstack_matrix m;
        bitstack_get_matrix(stack, (int)block.matrix, &m);
        const uint64_t codes = 16 + ((uint64_t)2 << block.level), parts = bitstack_column_bytes(&m.shape, block.level) + bitstack_coefficient_bytes(&m.shape, block.level);
        const unsigned char *at[2] = {data[0] + block.offset, data[1] + block.offset};
        *blocks += memcmp(at[0] + codes, at[1] + codes, parts - codes) != 0;
        *above += block.level == LEVELS && memcmp(at[0], at[1], block.bytes) != 0;
        *others += memcmp(at[0], at[1], codes) != 0 || memcmp(at[0] + parts, at[1] + parts, block.bytes - parts) != 0;
        for (uint64_t j = 0; j < m.shape.cols; j++) *others += (at[0][codes + j] == 0) != (at[1][codes + j] == 0);
    }
    bitstack_close(stack);
    free(data[0]), free(data[1]);
}

static void twice(void *user, uint32_t matrix, uint32_t level, unsigned char *columns, unsigned char *coefficients) {
    const uint32_t *wanted = user;
    (void)columns;
    if (matrix == wanted[0] && level == wanted[1]) coefficients[0] = (unsigned char)(coefficients[0] < 224 ? coefficients[0] + 32 : coefficients[0]);
}

int main(int argc, char **argv) {
    llm_model full;
    llm_error error;
    llm_rows rows = {NULL, 0, 0}, others = {NULL, 0, 0};
    llm_reference reference = {&full, NULL, 0};
    double before[BUDGETS] = {0}, after[BUDGETS] = {0};
    char line[1200], here[500];
    (void)argc;
    if (command_begin(argv[0], "tune") || !getcwd(here, sizeof here)) return 1;

    TEST("tuning takes a tenth and more of the divergence at low sizes, on text that it has not seen");
    snprintf(line, sizeof line, "compress '%s/" MODEL "' -o plain --levels 3 --effort fast --calibrate-self 1024 --compress-embeddings no --tune 0 --quiet", here);
    CHECK(command_run(line) == 0, "%s", command_err);
    CHECK(llm_model_open(&full, MODEL, NULL, &error) == 0, "%s", error.message);
    CHECK(llm_generate_rows(&rows, &full, 24, 65, 3, 2, NULL, NULL) == 0 && llm_generate_rows(&others, &full, 8, 65, 77, 2, NULL, NULL) == 0, "no memory");
    copy(command_file("plain"), command_file("tuned"));
    llm_tuning t = settings();
    CHECK(llm_tune(command_file("tuned"), &full, &rows, &t, NULL, NULL, &error) == 0, "%s", error.message);
    divergences(command_file("plain"), &reference, &others, before);
    divergences(command_file("tuned"), &reference, &others, after);
    for (int k = 0; k < BUDGETS; k++) CHECK(after[k] < 0.9 * before[k], "%.1f bits: %.4f, was %.4f", sizes[k], after[k], before[k]);
    printf("      divergence at %.1f, %.1f, %.1f bits: %.4f %.4f %.4f, was %.4f %.4f %.4f\n", sizes[0], sizes[1], sizes[2], after[0], after[1], after[2], before[0],
           before[1], before[2]);
    CHECK(t.before > 0 && t.after > 0 && !t.left_out, "told: %g, %g, %u left out", t.before, t.after, t.left_out);

    TEST("only scales and column factors of the levels asked for change, whole columns stay whole, and every checksum holds");
    int blocks, above, rest;
    compare(command_file("plain"), command_file("tuned"), &blocks, &above, &rest);
    CHECK(blocks > 15 && above == 0 && rest == 0, "%d blocks changed, %d above, %d in other places", blocks, above, rest);
    CHECK(command_run("verify tuned") == 0, "%s", command_err);

    TEST("the same stack with one thread and three, and from the command");
    copy(command_file("plain"), command_file("one"));
    llm_tuning one = settings();
    one.threads = 1, one.steps = 3;
    CHECK(llm_tune(command_file("one"), &full, &rows, &one, NULL, NULL, &error) == 0, "%s", error.message);
    copy(command_file("plain"), command_file("three"));
    one.threads = 3;
    CHECK(llm_tune(command_file("three"), &full, &rows, &one, NULL, NULL, &error) == 0, "%s", error.message);
    compare(command_file("one"), command_file("three"), &blocks, &above, &rest);
    CHECK(blocks == 0 && rest == 0, "%d blocks differ", blocks);
    copy(command_file("plain"), command_file("again"));
    snprintf(line, sizeof line, "tune again --model '%s/" MODEL "' --calibrate-self 512 --steps 2 --from 1.2 --to 2.3 --quiet", here);
    CHECK(command_run(line) == 0 && command_run("verify again") == 0, "%s", command_err);
    compare(command_file("plain"), command_file("again"), &blocks, &above, &rest);
    CHECK(blocks > 10 && rest == 0, "%d blocks changed, %d other places", blocks, rest);

    TEST("without memory for what is learned the stack stays as it is, and that is told");
    copy(command_file("plain"), command_file("none"));
    one.bytes = 100;
    CHECK(llm_tune(command_file("none"), &full, &rows, &one, NULL, NULL, &error) == 0 && one.left_out > 10, "%u left out", one.left_out);
    compare(command_file("plain"), command_file("none"), &blocks, &above, &rest);
    CHECK(blocks == 0 && rest == 0, "%d blocks changed", blocks);

    TEST("what cannot be tuned is refused, and left as it was");
    CHECK(llm_tune(MODEL, &full, &rows, &one, NULL, NULL, &error) != 0 && strstr(error.message, "expected a stack"), "%s", error.message);
    snprintf(line, sizeof line, "tune '%s/" MODEL "' --model '%s/" MODEL "' --calibrate-self 512 --steps 1 --quiet", here, here);
    CHECK(command_run(line) == 1 && strstr(command_err, "expected a stack"), "%s", command_err);
    CHECK(command_run("tune plain --model plain --quiet") == 1 && strstr(command_err, "this is a stack"), "%s", command_err);

    TEST("other codes for one block: it alone changes, with its checksums; small floats round to the nearest");
    uint32_t wanted[2] = {3, 2};
    bitstack_error why;
    CHECK(bitstack_recode(command_file("plain"), command_file("recoded"), twice, wanted, &why) == BITSTACK_OK, "%s", why.message);
    compare(command_file("plain"), command_file("recoded"), &blocks, &above, &rest);
    CHECK(blocks == 1 && rest == 0 && command_run("verify recoded") == 0, "%d blocks changed: %s", blocks, command_err);
    for (uint32_t c = 1; c < 255; c++) {
        const float low = bitstack_small_value(c), high = bitstack_small_value(c + 1);
        CHECK(low < high && bitstack_small_code(low) == c && bitstack_small_code(low + 0.49f * (high - low)) == c && bitstack_small_code(low + 0.51f * (high - low)) == c + 1, "code %u", c);
    }

    free(reference.logits);
    llm_rows_free(&rows), llm_rows_free(&others);
    llm_model_close(&full);
    return TEST_DONE();
}
