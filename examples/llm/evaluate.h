/* evaluate.h - how good a model is on given tokens: perplexity, and distance from full precision. */
#ifndef LLM_EVALUATE_H
#define LLM_EVALUATE_H

#include "model.h"

/* `count` rows of `length` ids; each is read on its own from position 0, nothing put in front: ids
 * 0 .. length - 2 go in, ids 1 .. length - 1 are predicted. */
typedef struct llm_rows {
    uint32_t *ids;
    size_t count, length;
} llm_rows;

typedef struct llm_quality {
    double nll;     /* mean negative log likelihood of the predicted tokens, nats */
    double kl;      /* mean divergence of the model's prediction from full precision's, nats a token */
    double seconds; /* spent in the model, its head included, summed over threads and divided by them */
    uint64_t tokens;
} llm_quality;

/* Called from the calling thread or another, never from two at once, with the fraction done. */
typedef void (*llm_progress)(void *user, double fraction);

/* What to compare with: the full-precision model, and its logits on the rows once they are known, if they take
 * less than two gigabytes and are wanted again. Start with {model, NULL, once}; evaluate the same rows each time; free
 * the logits. */
typedef struct llm_reference {
    const llm_model *model;
    float *logits;
    int once;
} llm_reference;

/* `against` may be NULL (kl is then 0). Rows are shared out over the threads where that comes out even, else all
 * threads work on each row; for a stack with a pool (llm_model_options), always: its own. The result is the same for
 * every number of threads. -1 for lack of memory. */
int llm_evaluate(const llm_model *model, llm_reference *against, const llm_rows *rows, int threads,
                 llm_progress progress, void *user, llm_quality *quality);

/* Logits' share of it, for those who have them: adds to *nll and *kl the figures of one token. `reference`
 * (the full-precision logits) may be NULL. */
void llm_score(const float *logits, const float *reference, uint32_t count, uint32_t next, double *nll, double *kl);

/* Rows of `length` ids that follow each other in `ids`; a shorter rest is left out unless it would be the
 * only row. At most `most` rows (0: all), spread over the text. -1 for lack of memory or of two ids. */
int llm_rows_cut(llm_rows *rows, const uint32_t *ids, size_t count, size_t length, size_t most);
void llm_rows_free(llm_rows *rows);

double llm_seconds(void); /* a clock */

#endif
