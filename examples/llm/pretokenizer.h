/* pretokenizer.h - cuts text into the words that byte-level BPE merges inside of. Each model family has a regular
 * expression for it; the most common are written out here as small matchers, over Unicode's letters, numbers and spaces,
 * all others are run as they are: see cuts.h. Bytes that are not UTF-8 count as characters that are none of these. */
#ifndef LLM_PRETOKENIZER_H
#define LLM_PRETOKENIZER_H

#include "source.h"
#include "unicode.h"

typedef enum llm_words {
    LLM_WORDS_NONE = -1,
    LLM_WORDS_GPT2,   /* numbers and letters apart, a space in front belongs to the word */
    LLM_WORDS_LLAMA3, /* up to three digits; ends of lines together; one other character in front of letters */
    LLM_WORDS_QWEN2,  /* as Llama 3, one digit */
    LLM_WORDS_DIGITS, /* every digit first, then as GPT-2: SmolLM */
    LLM_WORDS_LAST_SPACES /* spaces at the end from all else */
} llm_words;

/* Length of the first word of a text that is not empty. */
size_t llm_word(llm_words words, const char *text, size_t bytes);

#endif
