/* estimate.h - how long compress takes, by its operations and this machine's speed. */
#ifndef BITSTACK_COMMAND_ESTIMATE_H
#define BITSTACK_COMMAND_ESTIMATE_H

#include "bitstack_compress.h"
#include "../llm/model.h"

/* What the estimate is made of. */
typedef struct machine {
    int threads;
    double products; /* of floats, operations a second, all threads together */
    double encode_weight, encode_column; /* seconds of one thread a weight, and a weight and column it stands beside */
    double fitting; /* of 256 rows before, as a share of that */
} machine;

/* Without measuring: good enough to share out a progress bar. */
machine machine_assumed(int threads);
/* Measured, in a fraction of a second; `options` as for encoding. */
machine machine_measured(int threads, const bitstack_encode_options *options);

typedef struct estimate {
    double writing, learning, encoding, tuning, all; /* seconds */
} estimate;

/* `tokens` of calibration, `own` of which the model writes; `steps` of tuning. */
estimate estimate_time(const llm_model *model, const machine *m, double tokens, double own, double steps);

#endif
