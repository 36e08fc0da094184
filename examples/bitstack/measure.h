/* measure.h - the tokens that a model's quality is measured on. */
#ifndef MEASURE_H
#define MEASURE_H

#include "../llm/evaluate.h"

/* Rows of context + 1 ids from a text file, whose marks count as marks if `special`, or from one of little-endian 16-bit
 * ids; the other of `text` and `tokens` is NULL. At most `most` rows, spread over the file; 0: all. An exit status. */
int measure_rows(llm_rows *rows, const llm_model *model, const char *text, int special, const char *tokens,
                 uint32_t context, size_t most);

#endif
