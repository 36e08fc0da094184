/* source.h - where a model comes from: typed metadata and named tensors, whatever file held them.
 * gguf.c fills a source from a GGUF file, hf.c from a folder with safetensors and JSON, llm_source_stack from
 * an opened stack; names and keys are GGUF's in all cases, and the tokenizer and the model read only this.
 * Tensors are not copied: they point into the mapped files or into the stack. Little-endian machines. */
#ifndef LLM_SOURCE_H
#define LLM_SOURCE_H

#include "bitstack.h"
#include "platform.h"

/* One line that says what went wrong, where, and what was expected. */
typedef struct llm_error {
    char message[512];
} llm_error;

/* Fills *error (may be NULL) and returns -1. */
int llm_fail(llm_error *error, const char *format, ...) PLATFORM_PRINTF(2, 3);

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
typedef enum llm_type {
    LLM_TYPE_F32 = 0, LLM_TYPE_F16 = 1, LLM_TYPE_Q4_0 = 2, LLM_TYPE_Q4_1 = 3, LLM_TYPE_Q5_0 = 6, LLM_TYPE_Q5_1 = 7,
    LLM_TYPE_Q8_0 = 8, LLM_TYPE_Q2_K = 10, LLM_TYPE_Q3_K = 11, LLM_TYPE_Q4_K = 12, LLM_TYPE_Q5_K = 13,
    LLM_TYPE_Q6_K = 14, LLM_TYPE_IQ2_XXS = 16, LLM_TYPE_IQ2_XS = 17, LLM_TYPE_IQ3_XXS = 18, LLM_TYPE_IQ1_S = 19, LLM_TYPE_IQ4_NL = 20,
    LLM_TYPE_IQ3_S = 21, LLM_TYPE_IQ2_S = 22, LLM_TYPE_IQ4_XS = 23, LLM_TYPE_I8 = 24, LLM_TYPE_I16 = 25, LLM_TYPE_I32 = 26,
    LLM_TYPE_I64 = 27, LLM_TYPE_F64 = 28, LLM_TYPE_IQ1_M = 29, LLM_TYPE_BF16 = 30, LLM_TYPE_TQ1_0 = 34, LLM_TYPE_TQ2_0 = 35,
    LLM_TYPE_MXFP4 = 39, LLM_TYPE_NVFP4 = 40
} llm_type;

/* How a type packs its elements: `bytes` bytes hold `elements` of them. NULL for an unknown type. */
typedef struct llm_packing {
    llm_type type;
    const char *name;
    uint32_t elements, bytes;
    void (*unpack)(const unsigned char *from, size_t count, float *to); /* count: whole packs */
} llm_packing;

const llm_packing *llm_packing_of(uint32_t type); /* see quants.c, iq.c */

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
/* Rows [first, first + count) as floats, cols of them a row. Never fails: the tensor was checked on opening. */
void llm_tensor_read(const llm_tensor *tensor, uint64_t first, uint64_t count, float *out);

/* -1 where a number of it is NaN or infinite: which, and where. */
struct llm_source;
int llm_tensor_check(const struct llm_source *source, const llm_tensor *tensor, llm_error *error);

/* A file in memory. */
typedef struct llm_mapping {
    void *data;
    size_t bytes;
} llm_mapping;

/* Maps a file that is not empty, to be read only; `what` it should be is for the message. Reading where a file has
 * become shorter since raises SIGBUS: who opens files that others may cut catches it (examples/bitstack/main.c). */
int llm_map(llm_mapping *mapping, const char *path, const char *what, llm_error *error);
void llm_unmap(llm_mapping *mapping);

/* A name and where in its list it stands. */
typedef struct llm_named {
    llm_string name;
    size_t at;
} llm_named;

typedef struct llm_source {
    char *path; /* for messages */
    llm_meta *meta;
    size_t meta_count;
    llm_tensor *tensors;
    size_t tensor_count;
    bitstack *stack; /* where the matrices are, or NULL; owned */
    llm_named *tensor_names, *matrix_names; /* sorted: see llm_source_sort */
    llm_mapping *mappings; /* owned */
    size_t mapping_count;
    void **owned; /* what has been allocated for it: see llm_source_own */
    size_t owned_count;
} llm_source;

/* Memory that lives as long as the source, not filled; NULL for lack of it. */
void *llm_source_own(llm_source *source, size_t bytes);
/* The source takes the mapping over, also on failure (-1, for lack of memory). */
int llm_source_add_mapping(llm_source *source, llm_mapping mapping);
/* Tells the system that the tensor's pages are not needed for now: a mapped file may be larger than memory. Nothing
 * changes but the time of the next read. */
void llm_tensor_forget(const llm_source *source, const llm_tensor *tensor);

/* For those who make a source up, from {0} on: metadata (a key that is there is replaced) and tensors. Keys, texts, names and numbers are copied;
 * `strings`, allocated, is taken over, also on failure, but what it points to must live as long as the source, as
 * must a tensor's data. -1 for lack of memory. */
int llm_add_text(llm_source *source, const char *key, llm_string text);
int llm_add_numbers(llm_source *source, const char *key, llm_value type, const void *numbers, size_t count);
int llm_add_whole(llm_source *source, const char *key, uint32_t value);
int llm_add_float(llm_source *source, const char *key, float value);
int llm_add_strings(llm_source *source, const char *key, llm_string *strings, size_t count);
int llm_add_tensor(llm_source *source, const char *name, llm_tensor tensor); /* its name is ignored */

/* Take over an opened stack, also on failure. */
int llm_source_stack(llm_source *source, bitstack *stack, const char *path, llm_error *error);
/* Open a GGUF file, a stack, or a folder with config.json and safetensors, whichever `path` is. `options` are for
 * the stack; may be NULL. */
int llm_source_open(llm_source *source, const char *path, const bitstack_options *options, llm_error *error);
void llm_source_close(llm_source *source);
/* When all tensors are there, for those who look for many: finding one no longer goes through all of them. -1 for lack
 * of memory. */
int llm_source_sort(llm_source *source);

const llm_meta *llm_find_meta(const llm_source *source, const char *key);
const llm_tensor *llm_find_tensor(const llm_source *source, const char *name);
const llm_tensor *llm_find_tensor_named(const llm_source *source, llm_string name);
int llm_find_matrix(const llm_source *source, const char *name); /* of the stack; -1: there is none */
/* The first element of a number entry, or `fallback`. */
double llm_number(const llm_source *source, const char *key, double fallback);
/* A string entry; {NULL, 0} where there is none. */
llm_string llm_text(const llm_source *source, const char *key);

#endif
