/* unicode.h - characters of UTF-8 and what kind each is (Unicode 16). Bytes that are not UTF-8 count as characters of no
 * kind. */
#ifndef LLM_UNICODE_H
#define LLM_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/* General categories, with White_Space taken out of them. */
typedef enum llm_kind {
    LLM_KIND_NONE, LLM_KIND_SPACE, LLM_KIND_UPPER, LLM_KIND_LOWER, LLM_KIND_TITLE, LLM_KIND_MODIFIER, LLM_KIND_OTHER_LETTER, LLM_KIND_MARK,
    LLM_KIND_DIGIT, LLM_KIND_OTHER_NUMBER, LLM_KIND_PUNCTUATION, LLM_KIND_SYMBOL, LLM_KINDS
} llm_kind;
llm_kind llm_kind_of(uint32_t code);

typedef enum llm_class { LLM_OTHER, LLM_LETTER, LLM_NUMBER, LLM_SPACE } llm_class;
llm_class llm_classify(uint32_t code);

/* The character at `text`, of *length bytes; 0xFFFFFFFF and one byte where it is not well-formed UTF-8. */
uint32_t llm_character(const char *text, size_t bytes, size_t *length);
/* Writes it at `to`, which has room for four bytes; returns how many it took. */
size_t llm_write_character(uint32_t code, char *to);

#endif
