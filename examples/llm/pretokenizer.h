/* pretokenizer.h - cuts text into the words that byte-level BPE merges inside of. Each model family has a regular
 * expression for it; they are written out here as small matchers, over Unicode's letters, numbers and spaces.
 * Bytes that are not UTF-8 count as characters that are none of these. */
#ifndef LLM_PRETOKENIZER_H
#define LLM_PRETOKENIZER_H

#include "source.h"

typedef enum llm_words {
    LLM_WORDS_NONE = -1,
    LLM_WORDS_GPT2,   /* numbers and letters apart, a space in front belongs to the word */
    LLM_WORDS_LLAMA3, /* up to three digits; ends of lines together; one other character in front of letters */
    LLM_WORDS_QWEN2,  /* as Llama 3, one digit */
    LLM_WORDS_DIGITS  /* every digit first, then as GPT-2: SmolLM */
} llm_words;

/* By the name in tokenizer.ggml.pre, or by the pattern in tokenizer.json; LLM_WORDS_NONE for others. */
llm_words llm_words_named(llm_string name);
llm_words llm_words_of_pattern(llm_string pattern);
const char *llm_words_name(llm_words words);

/* Length of the first word of a text that is not empty. */
size_t llm_word(llm_words words, const char *text, size_t bytes);

typedef enum llm_class { LLM_OTHER, LLM_LETTER, LLM_NUMBER, LLM_SPACE } llm_class;
llm_class llm_classify(uint32_t code);
/* The character at `text`, of *length bytes; 0xFFFFFFFF and one byte where it is not well-formed UTF-8. */
uint32_t llm_character(const char *text, size_t bytes, size_t *length);

#endif
