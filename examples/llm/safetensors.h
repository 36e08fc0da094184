/* safetensors.h - opens one safetensors file: named arrays as Hugging Face writes them. The file is an 8-byte
 * length, that many bytes of JSON (name: dtype, shape, data_offsets), and the data. Everything is checked against
 * the bytes that are there; a bad file ends in one line that names the file, the offset and what was expected. */
#ifndef LLM_SAFETENSORS_H
#define LLM_SAFETENSORS_H

#include "json.h"

typedef struct llm_safetensor {
    llm_string name, dtype; /* "F32", "F16", "BF16", "I64", "U8" ... */
    int dimensions;
    uint64_t shape[4]; /* slowest first, unused ones 1 */
    const unsigned char *data;
    uint64_t bytes;
} llm_safetensor;

typedef struct llm_safetensors {
    llm_safetensor *tensors;
    size_t count;
    llm_json header;
    llm_mapping mapping; /* {NULL, 0} where the data is the caller's */
} llm_safetensors;

/* The file is mapped, not read: pages come in as they are used. */
int llm_safetensors_open(llm_safetensors *file, const char *path, llm_error *error);
/* `data` must stay until the file is closed; any alignment. `name` is for messages. */
int llm_safetensors_open_memory(llm_safetensors *file, const void *data, size_t bytes, const char *name, llm_error *error);
void llm_safetensors_close(llm_safetensors *file);

const llm_safetensor *llm_safetensors_find(const llm_safetensors *file, const char *name);

#endif
