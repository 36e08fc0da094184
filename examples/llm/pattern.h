/* pattern.h - regular expressions as tokenizers use them to cut words: alternatives, classes with Unicode's categories,
 * groups, (?i:), look ahead, counted and possessive repeats. Not: look behind, back references, lazy repeats, scripts.
 * Matching goes back at most as often as a few times the text that it looked at; what takes longer does not match. */
#ifndef LLM_PATTERN_H
#define LLM_PATTERN_H

#include "source.h"

typedef struct llm_pattern llm_pattern;

/* NULL for what is not known, and for lack of memory. */
llm_pattern *llm_pattern_compile(llm_string text);
void llm_pattern_free(llm_pattern *pattern);

/* Length of the match that begins where the text does; 0 if there is none, or an empty one. */
size_t llm_pattern_match(const llm_pattern *pattern, const char *text, size_t bytes);
/* Length of the first word, the text not being empty: a match, or what is in front of the first match. */
size_t llm_pattern_word(const llm_pattern *pattern, const char *text, size_t bytes);

#endif
