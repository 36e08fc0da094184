/* demo.c - one file, many sizes: a stack of a small language model at several budgets beside the full-precision
 * model, then a text during which the budget shrinks and grows again. Run by `make demo`. */
#include "../llm/generate.h"
#include "../llm/parallel.h"
#include "../llm/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, LENGTH = 257, SHOWN = 16, TIMED = 192, BETWEEN = 28 };
static const char prompt[] = "The old house stood";
static const double shares[] = {0.21, 0.3, 0.41, 0.6, 0.8, 1}; /* of the blocks' bytes */
static const double ride[] = {1, 0.6, 0.21, 0.41, 0.8, 1};

typedef struct text {
    llm_generator generator;
    llm_sampler sampler;
    const llm_tokenizer *tokenizer;
} text;

static int start(text *t, const llm_model *model, const llm_tokenizer *tokenizer, float temperature, uint64_t seed) {
    uint32_t *ids, begin = (uint32_t)tokenizer->bos;
    llm_sampler sampler = {temperature, 0.9f, seed};
    int64_t count = llm_encode(tokenizer, prompt, strlen(prompt), &ids);
    if (count < 0 || llm_generator_init(&t->generator, model, 0) != 0) return -1;
    if (tokenizer->add_bos) llm_generator_add(&t->generator, &begin, 1);
    llm_generator_add(&t->generator, ids, (size_t)count);
    t->sampler = sampler;
    t->tokenizer = tokenizer;
    free(ids);
    return 0;
}

/* `count` tokens more; printed on one line if `show`. */
static void go_on(text *t, int count, int show) {
    for (int i = 0; i < count; i++) {
        char piece[256];
        int64_t id = llm_generator_next(&t->generator, &t->sampler);
        size_t bytes = id < 0 || !show ? 0 : llm_token_text(t->tokenizer, (uint32_t)id, 0, piece, sizeof piece);
        for (size_t j = 0; j < bytes; j++) putchar(piece[j] == '\n' ? ' ' : piece[j]);
        fflush(stdout);
    }
}

/* One line of the table. */
static int line(const llm_model *model, llm_reference *full, const llm_tokenizer *tokenizer, const llm_rows *rows,
                int threads, uint64_t bytes, double bits) {
    llm_quality quality;
    text t;
    if (llm_evaluate(model, full, rows, threads, NULL, NULL, &quality) != 0 || start(&t, model, tokenizer, 0, 1) != 0) return -1;
    go_on(&t, 1, 0);
    double seconds = llm_seconds();
    go_on(&t, TIMED, 0);
    seconds = llm_seconds() - seconds;
    llm_generator_free(&t.generator);
    printf("%8.2f MB %6.2f %8.2f %8.4f %8.0f  ", (double)bytes / 1e6, bits, exp(quality.nll), quality.kl, TIMED / seconds);
    if (start(&t, model, tokenizer, 0, 1) != 0) return -1;
    printf("...");
    go_on(&t, SHOWN, 1);
    putchar('\n');
    llm_generator_free(&t.generator);
    return 0;
}

int main(int argc, char **argv) {
    llm_model full, model;
    llm_error error;
    llm_tokenizer tokenizer;
    llm_rows rows = {NULL, 0, 0};
    int threads = llm_processors();
    if (argc != 3) {
        fprintf(stderr, "usage: demo MODEL.gguf MODEL.bitstack\n");
        return 2;
    }
    if (llm_model_open(&full, argv[1], NULL, &error) != 0 || llm_model_open(&model, argv[2], NULL, &error) != 0 ||
        llm_tokenizer_load(&tokenizer, &model.source, &error) != 0) {
        fprintf(stderr, "demo: %s\n", error.message);
        return 1;
    }
    if (full.config.vocabulary != model.config.vocabulary || tokenizer.count > model.config.vocabulary) {
        fprintf(stderr, "demo: %s: expected a stack of %s: the same vocabulary, of %u tokens, and no more in its tokenizer\n", argv[2], argv[1],
                full.config.vocabulary);
        llm_tokenizer_free(&tokenizer);
        llm_model_close(&model);
        llm_model_close(&full);
        return 1;
    }
    llm_reference reference = {&full, NULL, 0};
    bitstack *stack = model.source.stack;
    if (!stack || llm_generate_rows(&rows, &full, ROWS, LENGTH, 2026, threads, NULL, NULL) != 0) {
        fprintf(stderr, "demo: %s: expected a stack, and enough memory\n", argv[2]);
        return 1;
    }
    double base = (double)bitstack_base_bytes(stack), blocks = (double)bitstack_total_bytes(stack) - base, weights = 0;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_matrix m;
        bitstack_get_matrix(stack, i, &m);
        weights += (double)m.shape.rows * m.shape.cols;
    }

    printf("\nOne file, any size. Perplexity and divergence (KL, nats a token) from the full-precision model on %d\n"
           "tokens that the model wrote itself; tokens a second when writing, one thread, %s kernels; and how it\n"
           "goes on after \"%s\". %.2f MB of each budget are what is always resident.\n\n"
           "   resident   bits       ppl       KL tokens/s\n", ROWS * (LENGTH - 1), bitstack_isa(), prompt, base / 1e6);
    int failed = 0;
    for (size_t i = 0; i < sizeof shares / sizeof *shares && !failed; i++) {
        failed = bitstack_set_budget(stack, (uint64_t)(base + shares[i] * blocks), NULL) != BITSTACK_OK;
        uint64_t resident = bitstack_resident_bytes(stack);
        failed = failed || line(&model, &reference, &tokenizer, &rows, threads, resident, 8 * ((double)resident - base) / weights) != 0;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < full.source.tensor_count; i++) bytes += full.source.tensors[i].bytes;
    failed = failed || line(&full, &reference, &tokenizer, &rows, threads, bytes, 16) != 0;

    text t;
    failed = failed || start(&t, &model, &tokenizer, 0.8f, 5) != 0;
    if (!failed) {
        printf("\nAnd one text, while its memory shrinks and grows again:\n\n%s", prompt);
        for (size_t i = 0; i < sizeof ride / sizeof *ride && !failed; i++) {
            double before = llm_seconds();
            failed = bitstack_set_budget(stack, (uint64_t)(base + ride[i] * blocks), NULL) != BITSTACK_OK;
            if (i) printf("\n  [now %.2f MB, %.1f ms]", (double)bitstack_resident_bytes(stack) / 1e6, 1e3 * (llm_seconds() - before));
            else printf("\n  [%.2f MB]", (double)bitstack_resident_bytes(stack) / 1e6);
            go_on(&t, BETWEEN, 1);
        }
        putchar('\n');
        llm_generator_free(&t.generator);
    }
    if (failed) fprintf(stderr, "demo: out of memory, or the stack could not be read\n");
    free(reference.logits);
    llm_rows_free(&rows);
    llm_tokenizer_free(&tokenizer);
    llm_model_close(&model);
    llm_model_close(&full);
    return failed;
}
