#include "pretokenizer.h"

#include <string.h>

/* The class of the character at `at`; -1 at the end. */
static int look(const char *text, size_t bytes, size_t at, size_t *length) {
    *length = 0;
    if (at >= bytes) return -1;
    if ((unsigned char)text[at] < 0x80) { /* most text */
        char c = text[at];
        *length = 1;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return LLM_LETTER;
        return c >= '0' && c <= '9' ? LLM_NUMBER : c == ' ' || (c >= 9 && c <= 13) ? LLM_SPACE : LLM_OTHER;
    }
    return (int)llm_classify(llm_character(text + at, bytes - at, length));
}

/* Where the run of characters of `kind` from `at` on ends, at most `most` of them. */
static size_t run(const char *text, size_t bytes, size_t at, llm_class kind, size_t most) {
    size_t length;
    while (most-- && look(text, bytes, at, &length) == (int)kind) at += length;
    return at;
}

static int line_end(char c) { return c == '\r' || c == '\n'; }

/* 's 't 're 've 'm 'll 'd: its length, or 0. Without case, U+017F is an s too. */
static size_t contraction(const char *text, size_t bytes, int any_case) {
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (bytes < 2 || text[0] != '\'') return 0;
    if (any_case && bytes >= 3 && memcmp(text + 1, "\xC5\xBF", 2) == 0) return 3;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t length = strlen(endings[i]), same = 0;
        if (length >= bytes) continue;
        for (; same < length; same++) {
            char c = text[1 + same];
            if (any_case && c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
            if (c != endings[i][same]) break;
        }
        if (same == length) return 1 + length;
    }
    return 0;
}

/* \s+(?!\S)|\s+ on a run of spaces that starts here: the last one is left to the word that follows, if another
 * comes before it. */
static size_t spaces(const char *text, size_t bytes) {
    size_t at = 0, last = 0, length;
    while (look(text, bytes, at, &length) == LLM_SPACE) last = at, at += length;
    return at < bytes && last ? last : at;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t word_gpt2(const char *text, size_t bytes) {
    size_t length = contraction(text, bytes, 0), start = text[0] == ' ';
    if (length) return length;
    int kind = look(text, bytes, start, &length);
    if (kind >= 0 && kind != LLM_SPACE) return run(text, bytes, start, (llm_class)kind, SIZE_MAX);
    return spaces(text, bytes);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * with `digits` in the place of 3. */
static size_t word_llama3(const char *text, size_t bytes, size_t digits) {
    size_t length = contraction(text, bytes, 1), next;
    if (length) return length;
    int kind = look(text, bytes, 0, &length);
    if (kind == LLM_LETTER) return run(text, bytes, 0, LLM_LETTER, SIZE_MAX);
    if (kind != LLM_NUMBER && !line_end(text[0]) && look(text, bytes, length, &next) == LLM_LETTER)
        return run(text, bytes, length, LLM_LETTER, SIZE_MAX);
    if (kind == LLM_NUMBER) return run(text, bytes, 0, LLM_NUMBER, digits);
    size_t start = text[0] == ' ', end = run(text, bytes, start, LLM_OTHER, SIZE_MAX);
    if (end > start) {
        while (end < bytes && line_end(text[end])) end++;
        return end;
    }
    size_t lines = 0; /* \s*[\r\n]+ ends with the last end of line among the spaces */
    for (size_t at = 0; look(text, bytes, at, &next) == LLM_SPACE; at += next)
        if (line_end(text[at])) lines = at + 1;
    return lines ? lines : spaces(text, bytes);
}

/* \s+$: the spaces that the text ends with, after all else. */
static size_t word_last_spaces(const char *text, size_t bytes) {
    size_t last = 0, length; /* behind the last character that is no space */
    for (size_t at = 0; at < bytes; at += length)
        if (look(text, bytes, at, &length) != LLM_SPACE) last = at + length;
    return last ? last : bytes;
}

size_t llm_word(llm_words words, const char *text, size_t bytes) {
    size_t length, end;
    if (words == LLM_WORDS_LLAMA3) return word_llama3(text, bytes, 3);
    if (words == LLM_WORDS_QWEN2) return word_llama3(text, bytes, 1);
    if (words == LLM_WORDS_LAST_SPACES) return word_last_spaces(text, bytes);
    if (words != LLM_WORDS_DIGITS) return word_gpt2(text, bytes);
    if (look(text, bytes, 0, &length) == LLM_NUMBER) return length;
    /* GPT-2's word in the text up to the next number: only where the word or the spaces end does that matter. */
    end = word_gpt2(text, bytes);
    for (size_t at = 0; at < end; at += length)
        if (look(text, bytes, at, &length) == LLM_NUMBER) return at; /* " 12": the space alone */
    if (look(text, bytes, 0, &length) == LLM_SPACE) { /* "  1": both spaces, for the text ends there */
        size_t after = run(text, bytes, 0, LLM_SPACE, SIZE_MAX);
        if (after > end && look(text, bytes, after, &length) == LLM_NUMBER) return after;
    }
    return end;
}
