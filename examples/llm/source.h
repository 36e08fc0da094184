/* source.h - where a model comes from: typed metadata and named tensors, whatever file held them.
 * gguf.c fills a source from a GGUF file, llm_source_stack from an opened stack; the tokenizer and the
 * model read only this. Nothing is copied: strings, numbers and tensors point into the mapped file or
 * into the stack. Little-endian machines. */
#ifndef LLM_SOURCE_H
#define LLM_SOURCE_H

#include "bitstack.h"

/* One line that says what went wrong, where, and what was expected. */
typedef struct llm_error {
    char message[512];
} llm_error;

/* Fills *error (may be NULL) and returns -1. */
int llm_fail(llm_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

typedef struct llm_string {
    const char *text; /* not NUL-terminated */
    size_t bytes;
} llm_string;

int llm_string_is(llm_string string, const char *text);

/* Types of metadata values; the numbers are GGUF's. */
typedef enum llm_value {
    LLM_U8 = 0, LLM_I8, LLM_U16, LLM_I16, LLM_U32, LLM_I32, LLM_F32, LLM_BOOL, LLM_STRING, LLM_ARRAY,
    LLM_U64, LLM_I64, LLM_F64
} llm_value;

size_t llm_value_bytes(int type); /* of one element; 0 for strings, arrays and unknown types */

/* One metadata entry: a scalar is one element. */
typedef struct llm_meta {
    llm_string key;
    llm_value type;
    uint64_t count;
    const unsigned char *numbers; /* unaligned; NULL for strings */
    llm_string *strings;          /* NULL for numbers */
} llm_meta;

double llm_meta_element(const llm_meta *meta, uint64_t index);

/* Types of tensors; the numbers are GGUF's. */
typedef enum llm_type { LLM_TYPE_F32 = 0, LLM_TYPE_F16 = 1, LLM_TYPE_Q8_0 = 8, LLM_TYPE_BF16 = 30 } llm_type;

/* How a type packs its elements: `bytes` bytes hold `elements` of them. NULL for an unknown type. */
typedef struct llm_packing {
    llm_type type;
    const char *name;
    uint32_t elements, bytes;
    void (*unpack)(const unsigned char *from, size_t count, float *to); /* count: whole packs */
} llm_packing;

const llm_packing *llm_packing_of(uint32_t type);

typedef struct llm_tensor {
    llm_string name;
    llm_type type;
    int dimensions;
    uint64_t shape[4]; /* slowest first, unused ones 1 */
    const unsigned char *data;
    uint64_t bytes;
} llm_tensor;

/* Rows are the product of all dimensions but the last; a 1-D tensor is one row. */
uint64_t llm_tensor_rows(const llm_tensor *tensor);
uint64_t llm_tensor_cols(const llm_tensor *tensor);
/* Rows [first, first + count) as floats, cols of them a row. */
void llm_tensor_read(const llm_tensor *tensor, uint64_t first, uint64_t count, float *out);

typedef struct llm_source {
    char *path; /* for messages */
    llm_meta *meta;
    size_t meta_count;
    llm_tensor *tensors;
    size_t tensor_count;
    bitstack *stack; /* where the matrices are, or NULL; owned */
    void *mapping;   /* owned */
    size_t mapping_bytes;
} llm_source;

/* Take over an opened stack, also on failure. */
int llm_source_stack(llm_source *source, bitstack *stack, const char *path, llm_error *error);
/* Open a GGUF file or a stack, whichever `path` is. `options` are for the stack; may be NULL. */
int llm_source_open(llm_source *source, const char *path, const bitstack_options *options, llm_error *error);
void llm_source_close(llm_source *source);

const llm_meta *llm_find_meta(const llm_source *source, const char *key);
const llm_tensor *llm_find_tensor(const llm_source *source, const char *name);
/* The first element of a number entry, or `fallback`. */
double llm_number(const llm_source *source, const char *key, double fallback);
/* A string entry; {NULL, 0} where there is none. */
llm_string llm_text(const llm_source *source, const char *key);

#endif
