/* speed.c - tokens a second of a stack at one budget: decoding, and reading prompts.
 *
 *     build/bench/speed STACK BUDGET THREADS TOKENS PROMPT...
 *
 * One line a measurement, "decode 312.4" or "prompt-512 1503.2": the median of three. As llama-bench has it: decoding
 * begins with an empty context and takes TOKENS tokens, a prompt is read in batches of 512 and ends with the logits of
 * its last token. */
#define BITSTACK_POOL
#include "llm/evaluate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Seconds for `tokens` tokens, `batch` at a time. */
static double once(const llm_model *m, llm_state *s, uint32_t tokens, uint32_t batch, const uint32_t *ids,
                   float *logits) {
    double start = llm_seconds();
    s->position = 0;
    for (uint32_t done = 0; done < tokens; done += batch) {
        uint32_t some = tokens - done < batch ? tokens - done : batch;
        llm_forward(m, s, ids + done, some);
        if (batch == 1 || done + some == tokens) llm_logits(m, s, some - 1, 1, logits);
    }
    return llm_seconds() - start;
}

int main(int argc, char **argv) {
    llm_model m;
    llm_model_options options;
    llm_error error;
    bitstack_error why;
    if (argc < 5) return fprintf(stderr, "usage: speed STACK BUDGET THREADS TOKENS PROMPT...\n"), 2;
    memset(&options, 0, sizeof options);
    options.threads = atoi(argv[3]);
    if (llm_model_open(&m, argv[1], &options, &error) != 0) return fprintf(stderr, "%s\n", error.message), 1;
    if (!m.source.stack ||
        bitstack_set_budget(m.source.stack, strtoull(argv[2], NULL, 10), &why) != BITSTACK_OK)
        return fprintf(stderr, "%s: not a stack that fits the budget\n", argv[1]), 1;
    float *logits = malloc(m.config.vocabulary * sizeof *logits);
    for (int i = 4; i < argc; i++) {
        uint32_t tokens = (uint32_t)atoi(argv[i]), batch = i == 4 ? 1 : 512;
        uint32_t *ids = malloc((tokens + 1) * sizeof *ids);
        llm_state state;
        double seconds[3];
        if (!logits || !ids || !tokens || tokens > m.config.context ||
            llm_state_init(&state, &m, tokens, batch) != 0)
            return fprintf(stderr, "%s tokens: not possible\n", argv[i]), 1;
        for (uint32_t t = 0; t < tokens; t++) ids[t] = (t * 7919 + 11) % m.config.vocabulary;
        once(&m, &state, tokens < 16 ? tokens : 16, batch, ids, logits); /* warm */
        for (int r = 0; r < 3; r++) seconds[r] = once(&m, &state, tokens, batch, ids, logits);
        qsort(seconds, 3, sizeof *seconds, by_size);
        if (i == 4) printf("decode %.1f\n", tokens / seconds[1]);
        else printf("prompt-%u %.1f\n", tokens, tokens / seconds[1]);
        llm_state_free(&state);
        free(ids);
    }
    free(logits);
    llm_model_close(&m);
    return 0;
}
