/* backward.h - gradients of the loss with respect to the output of every matrix: which outputs, and which tokens,
 * the predictions hang on. Several texts of one length go through the layers side by side, every product over all of
 * them with all threads; what a layer computes is kept for one layer only and computed again on the way back. */
#ifndef LLM_BACKWARD_H
#define LLM_BACKWARD_H

#include "model.h"

/* Against which tokens the loss is taken: those that follow in the text, or one drawn for each position from the
 * model's own prediction. The second makes the mean squared gradient the Fisher information, the curvature of the
 * divergence from this model, which is what compression is judged by. */
typedef enum llm_labels { LLM_LABELS_DRAWN, LLM_LABELS_GIVEN } llm_labels;

/* Where a gradient belongs: a matrix of a layer (LLM_Q ...), the head (rows: the vocabulary), or the looked-up
 * embedding. */
enum { LLM_AT_HEAD = LLM_LINEARS, LLM_AT_EMBEDDING };

typedef struct llm_backward llm_backward;

/* Gets the gradient of the *sum* of all tokens' losses with respect to the outputs of one matrix: tokens x rows floats,
 * of tokens first, first + 1 ... of those side by side. From the calling thread, from the head to the embedding; the
 * head comes a few tokens at a time. x: what the matrix was multiplied by, tokens x cols, with `with_inputs`; else NULL. */
typedef void (*llm_gradient)(void *user, uint32_t layer, int place, const float *g, const float *x, size_t first, size_t tokens, uint32_t rows);

struct llm_backward {
    const llm_model *model;
    int threads;
    size_t length, tokens; /* of a text; of all side by side */
    float *inputs;         /* layers + 1 times tokens x width: of every layer, and of the last norm */
    /* Of the layer at hand: on the way back, gradients take the place of what is not needed any more. */
    float *normed, *q_raw, *k_raw, *q, *k, *v, *attended, *middle, *gate, *up, *act, *out, *g;
    float *rope, *slab, *turned, *logits, *scratch; /* scratch: scratch_floats a thread, sum_floats of them for sums */
    size_t slab_floats, turned_floats, sum_floats;
    size_t scratch_floats, head_tokens; /* head_tokens: whose logits there is room for */
    double *losses; /* a token */
    /* Inputs of the matrices on the way forward, if wanted; before llm_backward_layer. */
    llm_observer observe;
    void *observe_user;
    int with_inputs;
    /* Another model of the same vocabulary, for the divergence from it in place of the loss against labels: its last norm's
     * outputs, tokens x width; and room for its logits, head_tokens x vocabulary. Or NULL. */
    const llm_model *teacher;
    const float *taught;
    float *teacher_logits;
};

/* Room for `texts` texts of `length` tokens side by side. -1 for lack of memory. With `streams` 0 there is room for
 * one layer's input only: llm_backward_layer works, llm_backward_run does not. */
int llm_backward_init(llm_backward *b, const llm_model *model, size_t texts, size_t length, int streams, int threads);
uint64_t llm_backward_bytes(const llm_model *model, size_t texts, size_t length, int streams, int threads);
void llm_backward_free(llm_backward *b);

/* Forward and back over `texts` texts (at most those there is room for), `stride` ids apart; of each, `length` ids go
 * in, and where labels are given one more is read. Returns the mean loss in nats a token. The gradients do not depend
 * on the number of threads; `seed` is of the labels drawn. */
double llm_backward_run(llm_backward *b, const uint32_t *ids, size_t texts, size_t stride, llm_labels labels, uint64_t seed,
                        llm_gradient gradient, void *user);

/* One layer forward over `texts` texts: x, tokens x width, is changed in place. */
void llm_backward_layer(llm_backward *b, uint32_t layer, float *x, size_t texts);

#endif
