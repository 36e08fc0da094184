/* json.h - a small strict JSON reader (RFC 8259): one pass, no tree of pointers, bounded depth. */
#ifndef LLM_JSON_H
#define LLM_JSON_H

#include "source.h"

typedef enum llm_json_type { LLM_JSON_NULL, LLM_JSON_BOOL, LLM_JSON_NUMBER, LLM_JSON_STRING, LLM_JSON_ARRAY,
                             LLM_JSON_OBJECT } llm_json_type;

/* Values in the order of the text: a container is followed by its content. `skip` is how many entries the
 * value takes, itself included, so values[i + values[i].skip] is the next sibling. In an object, keys (as
 * strings) and values alternate. */
typedef struct llm_json_value {
    llm_json_type type;
    size_t skip, count; /* count: members or elements of a container */
    double number;      /* of numbers and booleans */
    llm_string string;  /* decoded UTF-8, owned by the document */
} llm_json_value;

typedef struct llm_json {
    llm_json_value *values;
    size_t count;
    char *text; /* decoded strings */
} llm_json;

/* Errors name `name` and the offset. */
int llm_json_parse(llm_json *json, const char *text, size_t bytes, const char *name, llm_error *error);
/* The same, and NaN, Infinity and -Infinity are numbers, as Python writes them. */
int llm_json_parse_python(llm_json *json, const char *text, size_t bytes, const char *name, llm_error *error);
void llm_json_free(llm_json *json);

/* Index of the value of `key` in the object at `object`, or 0 (the root can be nobody's member). */
size_t llm_json_member(const llm_json *json, size_t object, const char *key);

#endif
