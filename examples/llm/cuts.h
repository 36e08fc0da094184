/* cuts.h - how a tokenizer cuts text into the words that it merges inside of: one or more ways, one after the other, each
 * inside of what the one before left whole. By the names that GGUF files have (tokenizer.ggml.pre), or by the regular
 * expressions themselves. */
#ifndef LLM_CUTS_H
#define LLM_CUTS_H

#include "pattern.h"
#include "pretokenizer.h"

enum { LLM_MOST_CUTS = 8 };

typedef struct llm_cuts {
    int count;
    struct {
        llm_words words;      /* written out, or */
        llm_pattern *pattern; /* a pattern */
    } cuts[LLM_MOST_CUTS];
} llm_cuts;

/* Adds one more. -1 if it is not known, or there are too many. */
int llm_cuts_add(llm_cuts *cuts, llm_string pattern);
/* All that belong to a name. -1 for an unknown one. */
int llm_cuts_named(llm_cuts *cuts, llm_string name);
void llm_cuts_free(llm_cuts *cuts);

/* The end of the word that begins at `at` < bytes; `ends` is the caller's, zeroed before the first word. */
size_t llm_cut(const llm_cuts *cuts, const char *text, size_t bytes, size_t at, size_t ends[LLM_MOST_CUTS]);

/* The expression that GPT-2 was made with, for those whose ways have it as one. */
extern const char llm_gpt2_pattern[];

#endif
