/* sampling.h - choosing the next token: the best one, or at random among the likely ones. */
#ifndef LLM_SAMPLING_H
#define LLM_SAMPLING_H

#include <stdint.h>

typedef struct llm_sampler {
    float temperature; /* 0: always the best token */
    float top_p;       /* draw among the fewest tokens that hold this much probability; 1: among all */
    uint64_t state;    /* the seed */
} llm_sampler;

/* Uniform in [0, 1), the same sequence for the same seed. */
double llm_random(uint64_t *state);

/* The next token; `logits` (count of them) are overwritten. -1 for lack of memory. */
int64_t llm_sample(llm_sampler *sampler, float *logits, uint32_t count);

#endif
