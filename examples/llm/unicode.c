#include "unicode.h"

static const uint32_t runs[] = {
#include "unicode_table.h"
};

llm_kind llm_kind_of(uint32_t code) {
    size_t low = 0, high = sizeof runs / sizeof *runs; /* the last run that starts at or before `code` */
    if (code - 'a' < 26) return LLM_KIND_LOWER; /* most text */
    if (code == ' ') return LLM_KIND_SPACE;
    if (code > 0x10ffff) return LLM_KIND_NONE;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (runs[middle] >> 4 <= code) low = middle;
        else high = middle;
    }
    uint32_t kind = runs[low] & 15;
    if (kind < LLM_KINDS) return (llm_kind)kind;
    return code % 2 == kind - LLM_KINDS ? LLM_KIND_UPPER : LLM_KIND_LOWER;
}

llm_class llm_classify(uint32_t code) {
    llm_kind kind = llm_kind_of(code);
    if (kind == LLM_KIND_SPACE) return LLM_SPACE;
    if (kind >= LLM_KIND_UPPER && kind <= LLM_KIND_OTHER_LETTER) return LLM_LETTER;
    return kind == LLM_KIND_DIGIT || kind == LLM_KIND_OTHER_NUMBER ? LLM_NUMBER : LLM_OTHER;
}

uint32_t llm_character(const char *text, size_t bytes, size_t *length) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = (unsigned char)text[0];
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    uint32_t code = n == 1 ? c : n ? c & (0x7fu >> n) : 0;
    *length = 1;
    if (!n || n > bytes) return UINT32_MAX;
    for (size_t i = 1; i < n; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80) return UINT32_MAX;
        code = code << 6 | ((unsigned char)text[i] & 0x3fu);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return UINT32_MAX;
    *length = n;
    return code;
}

size_t llm_write_character(uint32_t code, char *to) {
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (n == 1) {
        to[0] = (char)code;
        return 1;
    }
    for (size_t i = n; i-- > 1; code >>= 6) to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)(0xf00u >> n | code);
    return n;
}
