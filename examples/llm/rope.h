/* rope.h - how fast each pair of channels turns with the position: rotary embeddings, plain, or stretched for contexts
 * longer than those of the training. */
#ifndef LLM_ROPE_H
#define LLM_ROPE_H

#include "model.h"

/* Fills the model's rope_frequencies and rope_magnitude; its source and config are there. -1 for a way that is not known. */
int llm_rope_load(llm_model *model, llm_error *error);

#endif
