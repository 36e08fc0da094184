/* tune.h - the last step of compression. What a matrix's code is fitted to is its own output; how errors of all matrices add up in the
 * predictions, nobody has looked at so far. The blocks of a stack of tables have scales and column factors of their own level, a
 * byte each, so these are free to be moved together, level by level, until the whole model at budgets between `from` and
 * `to` bits a weight predicts what it does at full precision: Adam (arXiv 1412.6980) on logarithms of scales and factors, down the
 * gradient of the divergence from full precision, with the codes as they would be stored in every step (straight-through).
 * Planes and tables stay; so do sizes and the order. Compare EfficientQAT, arXiv 2407.11062, of one fixed size. */
#ifndef LLM_TUNE_H
#define LLM_TUNE_H

#include "backward.h"
#include "evaluate.h"

typedef struct llm_tuning {
    size_t steps, texts; /* steps; texts of a step */
    double from, to;     /* bits a weight, over all matrices of the stack */
    uint32_t levels;     /* blocks of levels above this one stay as they are */
    double rate;         /* how far a logarithm goes in one of the first steps at level 1; less at those above; falls to 0 */
    uint64_t seed;
    uint64_t bytes;      /* of memory for what is learned; matrices that find no room stay as they are */
    int threads;
    /* Set: mean divergence of the first and the last quarter of the steps, nats a token; matrices left out. */
    double before, after;
    uint32_t left_out;
} llm_tuning;

/* Tunes the stack at `path`, made of `full`, on texts of `rows`, and replaces it. -1: see error. */
int llm_tune(const char *path, llm_model *full, const llm_rows *rows, llm_tuning *t, llm_progress progress, void *user, llm_error *error);

#endif
