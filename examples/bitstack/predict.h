/* predict.h - what to expect of a size before anything is loaded: quality from measurements of other models, speed from
 * this machine's. */
#ifndef BITSTACK_COMMAND_PREDICT_H
#define BITSTACK_COMMAND_PREDICT_H

#include "../llm/model.h"

/* Divergence from full precision in nats a token, and growth of perplexity, on text that no calibration has seen. */
typedef struct quality_point {
    double bits, kl, perplexity;
} quality_point;

/* What is coded: layers' matrices (bits are theirs, embeddings as they are), or the embeddings, too (bits over all weights). */
typedef enum quality_scope { QUALITY_LAYERS, QUALITY_ALL, QUALITY_IABS } quality_scope;

/* Nested coding: as measured on a model of 135M parameters (bench/results/real.csv); larger ones lose less. Iabs, the layers
 * of the demo model (bench/results/quality.csv). */
quality_point quality_predicted(quality_scope scope, double bits);

/* Bytes of weights a second that decoding reads here, measured in a tenth of a second; 0 for lack of memory. */
double speed_measured(int threads);
/* Tokens a second, one text: `weights` bytes are read a token. */
double speed_predicted(const llm_model *model, double bytes_a_second, double weights);

#endif
