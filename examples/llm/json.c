#include "json.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

typedef struct parser {
    const char *text, *name;
    size_t bytes, at, room, written;
    llm_json *json;
    llm_error *error;
    int failed, python; /* python: NaN and Infinity, too */
} parser;

static void expected(parser *p, const char *what) {
    if (!p->failed) llm_fail(p->error, "%s: offset %llu: expected %s", p->name, (unsigned long long)p->at, what);
    p->failed = 1;
}

static char peek(parser *p) { return p->at < p->bytes ? p->text[p->at] : 0; }

static void blanks(parser *p) {
    while (p->at < p->bytes && strchr(" \t\n\r", p->text[p->at]) && p->text[p->at]) p->at++;
}

static size_t push(parser *p, llm_json_type type) {
    if (p->json->count == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        llm_json_value *values = realloc(p->json->values, room * sizeof *values);
        if (!values) {
            expected(p, "more memory");
            return 0;
        }
        p->json->values = values;
        p->room = room;
    }
    memset(&p->json->values[p->json->count], 0, sizeof *p->json->values);
    p->json->values[p->json->count].type = type;
    p->json->values[p->json->count].skip = 1;
    return p->json->count++;
}

static unsigned hex4(parser *p) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        char c = peek(p);
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10 : 16;
        if (digit > 15) {
            expected(p, "four hexadecimal digits");
            return 0;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* Decoded text is never longer than its source, so json->text has room. */
static void put(parser *p, unsigned c) {
    char *to = p->json->text + p->written;
    if (c < 0x80) *to++ = (char)c;
    else if (c < 0x800) *to++ = (char)(0xc0 | c >> 6), *to++ = (char)(0x80 | (c & 0x3f));
    else if (c < 0x10000)
        *to++ = (char)(0xe0 | c >> 12), *to++ = (char)(0x80 | (c >> 6 & 0x3f)), *to++ = (char)(0x80 | (c & 0x3f));
    else
        *to++ = (char)(0xf0 | c >> 18), *to++ = (char)(0x80 | (c >> 12 & 0x3f)),
        *to++ = (char)(0x80 | (c >> 6 & 0x3f)), *to++ = (char)(0x80 | (c & 0x3f));
    p->written = (size_t)(to - p->json->text);
}

static void string(parser *p) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t index = push(p, LLM_JSON_STRING), start = p->written;
    if (peek(p) != '"') expected(p, "a string");
    for (p->at++; !p->failed; ) {
        if (p->at >= p->bytes || (unsigned char)p->text[p->at] < 0x20) {
            expected(p, "a closing quote");
            return;
        }
        char c = p->text[p->at++];
        if (c == '"') break;
        if (c != '\\') {
            p->json->text[p->written++] = c;
            continue;
        }
        c = peek(p);
        const char *simple = c ? strchr(from, c) : NULL;
        p->at++;
        if (simple) put(p, (unsigned char)to[simple - from]);
        else if (c == 'u') {
            unsigned code = hex4(p);
            if (code >= 0xd800 && code < 0xdc00 && p->bytes - p->at >= 6 && memcmp(p->text + p->at, "\\u", 2) == 0) {
                p->at += 2;
                unsigned low = hex4(p);
                if (low < 0xdc00 || low > 0xdfff) expected(p, "the second half of a surrogate pair");
                else code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
            if (code >= 0xd800 && code < 0xe000) expected(p, "a surrogate pair");
            if (!p->failed) put(p, code);
        } else {
            p->at--;
            expected(p, "an escape");
        }
    }
    if (p->failed) return;
    p->json->values[index].string.text = p->json->text + start;
    p->json->values[index].string.bytes = p->written - start;
}

static void digits(parser *p) {
    if (peek(p) < '0' || peek(p) > '9') expected(p, "a digit");
    while (peek(p) >= '0' && peek(p) <= '9') p->at++;
}

static void number(parser *p) {
    size_t index = push(p, LLM_JSON_NUMBER), start = p->at;
    char copy[64];
    if (peek(p) == '-') p->at++;
    if (peek(p) == '0') p->at++;
    else digits(p);
    if (peek(p) == '.') p->at++, digits(p);
    if (peek(p) == 'e' || peek(p) == 'E') {
        p->at++;
        if (peek(p) == '+' || peek(p) == '-') p->at++;
        digits(p);
    }
    size_t length = p->at - start;
    if (length >= sizeof copy) p->at = start, expected(p, "a number of at most 63 characters");
    if (p->failed) return;
    memcpy(copy, p->text + start, length);
    copy[length] = 0;
    const char *end;
    p->json->values[index].number = llm_parse_number(copy, &end);
}

static void word(parser *p, const char *text, llm_json_type type, double value) {
    size_t bytes = strlen(text);
    if (p->bytes - p->at < bytes || memcmp(p->text + p->at, text, bytes) != 0) expected(p, "a value");
    size_t index = push(p, type);
    if (p->failed) return;
    p->json->values[index].number = value;
    p->at += bytes;
}

static void value(parser *p, int depth);

static void container(parser *p, int depth, char close) {
    size_t index = push(p, close == '}' ? LLM_JSON_OBJECT : LLM_JSON_ARRAY), count = 0;
    if (depth >= DEEPEST) expected(p, "less nesting");
    p->at++;
    blanks(p);
    if (peek(p) == close) p->at++;
    else
        for (;;) {
            if (close == '}' && !p->failed) {
                blanks(p);
                string(p);
                blanks(p);
                if (peek(p) != ':') expected(p, "':'");
                p->at++;
            }
            if (p->failed) return;
            value(p, depth + 1);
            if (p->failed) return;
            count++;
            char c = peek(p);
            p->at++;
            if (c == close) break;
            if (c != ',') {
                p->at--;
                expected(p, close == '}' ? "',' or '}'" : "',' or ']'");
                return;
            }
        }
    p->json->values[index].count = count;
    p->json->values[index].skip = p->json->count - index;
}

static void value(parser *p, int depth) {
    blanks(p);
    switch (peek(p)) {
    case '{': container(p, depth, '}'); break;
    case '[': container(p, depth, ']'); break;
    case '"': string(p); break;
    case 't': word(p, "true", LLM_JSON_BOOL, 1); break;
    case 'f': word(p, "false", LLM_JSON_BOOL, 0); break;
    case 'n': word(p, "null", LLM_JSON_NULL, 0); break;
    case 'N': if (p->python) word(p, "NaN", LLM_JSON_NUMBER, NAN); else number(p); break;
    case 'I': if (p->python) word(p, "Infinity", LLM_JSON_NUMBER, INFINITY); else number(p); break;
    case '-':
        if (p->python && p->bytes - p->at > 1 && p->text[p->at + 1] == 'I') word(p, "-Infinity", LLM_JSON_NUMBER, -INFINITY);
        else number(p);
        break;
    default: number(p);
    }
    if (!p->failed) blanks(p);
}

static int parse(llm_json *json, const char *text, size_t bytes, const char *name, int python, llm_error *error) {
    parser p = {text, name, bytes, 0, 0, 0, json, error, 0, python};
    memset(json, 0, sizeof *json);
    json->text = malloc(bytes + 1);
    if (!json->text) return llm_fail(error, "%s: out of memory", name);
    value(&p, 0);
    if (p.at != bytes) expected(&p, "the end of the text");
    if (!p.failed) return 0;
    llm_json_free(json);
    return -1;
}

int llm_json_parse(llm_json *json, const char *text, size_t bytes, const char *name, llm_error *error) {
    return parse(json, text, bytes, name, 0, error);
}

int llm_json_parse_python(llm_json *json, const char *text, size_t bytes, const char *name, llm_error *error) {
    return parse(json, text, bytes, name, 1, error);
}

void llm_json_free(llm_json *json) {
    free(json->values);
    free(json->text);
    memset(json, 0, sizeof *json);
}

size_t llm_json_member(const llm_json *json, size_t object, const char *key) {
    if (json->values[object].type != LLM_JSON_OBJECT) return 0;
    size_t at = object + 1;
    for (size_t i = 0; i < json->values[object].count; i++, at += 1 + json->values[at + 1].skip)
        if (llm_string_is(json->values[at].string, key)) return at + 1;
    return 0;
}
