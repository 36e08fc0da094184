/* openings.h - beginnings of texts of many kinds, for a model to continue: what it writes then is calibration for more
 * than one kind of text. */
#ifndef LLM_OPENINGS_H
#define LLM_OPENINGS_H

#include "generate.h"
#include "tokenizer.h"

/* Fills *openings (llm_openings_free frees them) and their count. Of a model that knows a form for conversations every
 * third is a question in it, to be answered. -1 for lack of memory. */
int llm_openings_make(llm_opening **openings, size_t *count, const llm_model *model, const llm_tokenizer *tokenizer);
void llm_openings_free(llm_opening *openings, size_t count);

#endif
