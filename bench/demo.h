/* demo.h - the demo model as a place to try codings: its layer matrices with the second moments of their
 * inputs, and what any replacement of them does to perplexity and to the divergence from full precision.
 * Replacements are dense floats, so only the coding is measured here; the kernels' own error is in gemv.c. */
#ifndef BENCH_DEMO_H
#define BENCH_DEMO_H

#include "bitstack_compress.h"
#include "llm/model.h"
#include "llm/evaluate.h"

typedef struct demo_matrix {
    char name[48];
    uint32_t rows, cols;
    const float *w;                  /* full precision */
    const bitstack_moments *moments; /* of its inputs */
    llm_linear *linear;              /* in the model: linear->dense is what runs */
    double norm2;                    /* tr(W H W^T) */
} demo_matrix;

/* Rows of tokens with the logits of full precision. */
typedef struct demo_text {
    llm_rows rows;
    float *reference;
} demo_text;

typedef struct demo {
    llm_model model;
    demo_matrix *matrices;
    uint32_t count;
    bitstack_moments *moments; /* layers x LLM_INPUTS */
    uint64_t weights;          /* in the matrices */
    uint64_t base_bytes;       /* of all other tensors, as the model file has them */
    demo_text heldout, calibration;
    int threads;
} demo;

/* Opens `shared`/models (or examples/models where only the model is needed) and calibrates on 64 rows of 256
 * ids. NULL and *reason on failure. */
demo *demo_open(const char *shared, int threads, const char **reason);
void demo_close(demo *d);

/* Mean negative log likelihood and divergence from full precision over the first `rows` rows (0: all). */
void demo_evaluate(const demo *d, const demo_text *text, size_t rows, double *nll, double *kl);
/* The same for another model of the same vocabulary. */
void demo_evaluate_model(const demo *d, const llm_model *model, const demo_text *text, size_t rows, double *nll, double *kl);
void demo_restore(demo *d); /* full precision everywhere */

/* A coding of every matrix and the model at any level of each. */
typedef struct demo_stack {
    demo *d;
    bitstack_coded *coded;   /* count */
    float **dense;           /* count: at levels[i] */
    uint32_t *levels, *most; /* count: now, and in all */
    double seconds;          /* of processor time it took to encode */
} demo_stack;

/* `with_moments` 0: the weights alone. NULL if the encoder fails (*result says why). */
demo_stack *demo_encode(demo *d, const bitstack_encode_options *options, int with_moments, bitstack_result *result);
void demo_stack_free(demo_stack *s);
void demo_set_levels(demo_stack *s, const uint32_t *levels); /* and lets the model use them */
uint64_t demo_bytes(const demo_stack *s, const uint32_t *levels);
double demo_output_error(const demo_stack *s, const uint32_t *levels); /* relative, summed over matrices */

/* Orders, as bitstack_compress.h has them. Losses are divergences on `rows` rows of calibration text.
 * predicted, as bitstack compress does it: measured at levels 0 to 2, from there in proportion to the output
 * error; loss: measured at every level, the others at full precision; paper: the paper's; output: no model, the
 * output error alone. out: the sum of levels. */
typedef enum demo_ordering { DEMO_OUTPUT, DEMO_PREDICTED, DEMO_LOSS, DEMO_PAPER } demo_ordering;
bitstack_result demo_order(demo_stack *s, demo_ordering ordering, size_t rows, bitstack_order_entry *out, size_t *count);
/* Levels that a budget in bytes (of the matrices alone) loads along an order. */
uint64_t demo_budget(const demo_stack *s, const bitstack_order_entry *order, size_t count, uint64_t bytes, uint32_t *levels);

double demo_now(void); /* seconds */
/* Seconds of processor time, of all threads together or of this one: what a busy machine disturbs least. */
double demo_cpu(int this_thread);
#endif
