/* marks.h - what the names of marks say. Vocabularies name one token that ends a text, but models are trained with
 * several (the end of a turn, of a tool's call), and some list marks as if they were text. */
#ifndef LLM_MARKS_H
#define LLM_MARKS_H

#include "source.h"

/* Whether a token of this name ends what the model says. */
int llm_mark_ends(llm_string name);
/* Whether a token of this name is a mark, whatever type its vocabulary gives it: never part of plain text. */
int llm_mark_controls(llm_string name);

#endif
