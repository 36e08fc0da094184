/* hf_document.h - what the readers of Hugging Face's JSON files share: members by name, each of the type that is
 * expected, and errors that name the file. */
#ifndef LLM_HF_DOCUMENT_H
#define LLM_HF_DOCUMENT_H

#include "json.h"

#include <math.h>

/* A JSON text with what its errors say. 0 stands for a value that is absent: nobody's member is the root. */
typedef struct document {
    llm_json json;
    const char *name;
    llm_error *error;
} document;

static inline const llm_json_value *value_at(const document *d, size_t at) { return &d->json.values[at]; }
static inline int is(const document *d, size_t at, llm_json_type type) { return at && value_at(d, at)->type == type; }

/* The member, if it is there and not null. */
static inline size_t member(const document *d, size_t object, const char *key) {
    size_t at = llm_json_member(&d->json, object, key);
    return is(d, at, LLM_JSON_NULL) ? 0 : at;
}
static inline size_t object_in(const document *d, size_t object, const char *key) {
    size_t at = member(d, object, key);
    return is(d, at, LLM_JSON_OBJECT) ? at : 0;
}
static inline llm_string text_in(const document *d, size_t object, const char *key) {
    size_t at = member(d, object, key);
    llm_string none = {NULL, 0};
    return is(d, at, LLM_JSON_STRING) ? value_at(d, at)->string : none;
}
static inline double number_in(const document *d, size_t object, const char *key, double fallback) {
    size_t at = member(d, object, key);
    if (at && value_at(d, at)->type == LLM_JSON_ARRAY && value_at(d, at)->count) at++; /* the first of several */
    return is(d, at, LLM_JSON_NUMBER) || is(d, at, LLM_JSON_BOOL) ? value_at(d, at)->number : fallback;
}

static inline int no_memory(const char *name, llm_error *error) { return llm_fail(error, "%s: out of memory", name); }
static inline int shown(llm_string text) { return (int)(text.bytes < 60 ? text.bytes : 60); }

static inline int open_document(document *d, const char *text, size_t bytes, const char *name, llm_error *error) {
    d->name = name;
    d->error = error;
    if (llm_json_parse(&d->json, text, bytes, name, error) != 0) return -1;
    if (d->json.values[0].type == LLM_JSON_OBJECT) return 0;
    llm_json_free(&d->json);
    return llm_fail(error, "%s: offset 0: expected '{'", name);
}

#endif
