/* generate.h - writing text with a model: token after token, through changes of its budget. */
#ifndef LLM_GENERATE_H
#define LLM_GENERATE_H

#include "evaluate.h"
#include "sampling.h"

/* A text under way. When the context is full, its older half is forgotten. */
typedef struct llm_generator {
    const llm_model *model;
    llm_state state;
    uint32_t *ids; /* what the model sees: the last ones of the text, state.context of them at most */
    uint32_t count;
    float *logits;
} llm_generator;

/* context 0: the model's own, at most 4096. -1 for lack of memory. */
int llm_generator_init(llm_generator *generator, const llm_model *model, uint32_t context);
void llm_generator_free(llm_generator *generator);
/* Appends ids (below the vocabulary) to the text. */
void llm_generator_add(llm_generator *generator, const uint32_t *ids, size_t count);
/* Draws the next token and appends it; the text must not be empty. -1 for lack of memory. */
int64_t llm_generator_next(llm_generator *generator, llm_sampler *sampler);

/* Text of the model's own for calibration: `count` rows of `length` ids drawn at temperature 1, each after a
 * begin mark (not part of the row). The same for every number of threads. -1 for lack of memory. */
int llm_generate_rows(llm_rows *rows, const llm_model *model, size_t count, size_t length, uint64_t seed, int threads,
                      llm_progress progress, void *user);

#endif
