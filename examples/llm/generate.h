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
    uint32_t furthest, widest; /* position it ever was at, tokens it ever took at once: what of the state is in memory */
} llm_generator;

/* context 0: the model's own, at most 4096. -1 for lack of memory. */
int llm_generator_init(llm_generator *generator, const llm_model *model, uint32_t context);
void llm_generator_free(llm_generator *generator);
/* Bytes that it takes with `more` tokens beyond those so far; generator NULL: before any, for a context (0: as for init). */
uint64_t llm_generator_bytes(const llm_generator *generator, const llm_model *model, uint32_t context, uint32_t more);
/* Appends ids (below the vocabulary) to the text. */
void llm_generator_add(llm_generator *generator, const uint32_t *ids, size_t count);
/* Draws the next token and appends it; the text must not be empty. -1 for lack of memory. */
int64_t llm_generator_next(llm_generator *generator, llm_sampler *sampler);

/* The beginning of a text that the model is to continue. */
typedef struct llm_opening {
    uint32_t *ids;
    size_t count;
} llm_opening;

/* How to write rows. */
typedef struct llm_writing {
    const llm_opening *openings; /* of these the rows begin with one each in turn, and go on with the next one */
    size_t opening_count;        /* where a text ends; 0: with whatever the model likes to begin with */
    int64_t begin, end; /* the marks that texts begin with, not part of the row, and end with; -1: there is none */
    float temperature, top_p;
    uint64_t seed;
    uint64_t bytes; /* of keys and values at most, which limits how many rows are written side by side; 0: 1 GB */
    int threads;
} llm_writing;

/* `count` rows of `length` ids of the model's own. The same for every number of threads. -1 for lack of memory. */
int llm_write_rows(llm_rows *rows, const llm_model *model, size_t count, size_t length, const llm_writing *how,
                   llm_progress progress, void *user);
/* The same at temperature 1 after the model's begin mark. */
int llm_generate_rows(llm_rows *rows, const llm_model *model, size_t count, size_t length, uint64_t seed, int threads,
                      llm_progress progress, void *user);

#endif
