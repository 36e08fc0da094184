/* calibrate.h - what a compressor wants to know about a model: the second moments of every matrix's inputs,
 * and how much the predictions suffer when one matrix changes. The model is walked layer by layer, with the
 * residual stream of all calibration rows kept, so that only one layer's moments exist at a time. */
#ifndef LLM_CALIBRATE_H
#define LLM_CALIBRATE_H

#include "backward.h"
#include "bitstack_compress.h"
#include "evaluate.h"

typedef struct llm_calibration {
    llm_model *model; /* full precision */
    uint32_t layer;   /* the one at hand */
    int threads;
    uint64_t bytes;   /* of memory for what goes through a layer side by side */

    const llm_rows *rows; /* NULL: no moments */
    float *x;             /* their residual stream at the layer's input: rows x length x width */
    bitstack_moments moments[LLM_INPUTS]; /* of the layer at hand */
    int has_moments;
    int diagonal[LLM_INPUTS]; /* set by the caller: of these inputs only norms are gathered, for want of memory */

    /* What a backward pass tells: see llm_calibration_backward. All NULL before. */
    float *token_weights;  /* of rows' tokens in the moments: layers x LLM_INPUTS times the tokens, then the head's; mean 1 */
    float *row_squares;    /* mean squared gradient of each output row of each matrix: row_squares_at[layer * LLM_LINEARS + i] ... */
    size_t *row_squares_at;
    float *input_squares;  /* mean square of each channel of each input: input_squares_at[layer * LLM_INPUTS + i] ... */
    size_t *input_squares_at;
    double loss;           /* of the model itself there, nats a token */

    const llm_rows *probe; /* rows on which losses are measured */
    float *probe_x;        /* their residual stream at the layer's input */
    float *reference;      /* their full-precision logits */
    llm_state *states;     /* one a thread */
    struct bitstack_pool *pool; /* for fewer rows than threads, or NULL */
    float *logits;         /* some a thread */
} llm_calibration;

/* `rows` may be NULL; both must outlive the calibration. As many rows go side by side as `bytes` of memory allow (one in
 * any case). Starts at layer 0. -1 for lack of memory. */
int llm_calibration_init(llm_calibration *c, llm_model *model, const llm_rows *rows, const llm_rows *probe, uint64_t bytes, int threads);
void llm_calibration_free(llm_calibration *c);

/* Goes forward and back over the calibration rows, or over the probe where there are none. From then on moments are weighted token by token, if `weighted`, and the
 * sensitivities below are known. `labels`, `seed`: see backward.h. -1 for lack of memory. */
int llm_calibration_backward(llm_calibration *c, int weighted, llm_labels labels, uint64_t seed, llm_progress progress, void *user);
/* The loss, in nats a token, that an error of mean square 1 in each output of a matrix (weighted as the moments are) would
 * make if all is linear: half the mean squared gradient, of which tokens that are held to a cap have as much less. */
double llm_calibration_sensitivity(const llm_calibration *c, uint32_t layer, int linear);
/* The mean square of a matrix's whole output (bias apart), as far as the diagonal of its inputs' moments tells. */
double llm_calibration_output_square(const llm_calibration *c, uint32_t layer, int linear, const float *w);

/* Takes the rows through the layer at hand, call once a layer, and gathers its moments if they are `wanted`. -1 for lack
 * of memory. */
int llm_calibration_gather(llm_calibration *c, int wanted);

/* The model's loss, as divergence from full precision in nats a token, with matrix `linear` of the layer at
 * hand replaced by `dense`. Costs a run of the layers from here up over the first `rows` rows of the probe. */
double llm_calibration_loss(llm_calibration *c, int linear, const float *dense, size_t rows);

/* For the matrices over the vocabulary, when all layers are done. The moments of the head's inputs: the caller
 * frees them; -1 for lack of memory, or without calibration rows. And the loss with the embedding, the head or
 * both replaced by `dense`: a run of the whole model. */
enum { LLM_EMBEDDING = 1, LLM_HEAD = 2 };
int llm_calibration_gather_head(llm_calibration *c, bitstack_moments *moments);
double llm_calibration_vocabulary_loss(llm_calibration *c, int parts, const float *dense, size_t rows);

/* Goes to the next layer. */
void llm_calibration_next(llm_calibration *c);

#endif
