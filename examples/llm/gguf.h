/* gguf.h - opens GGUF files, versions 2 and 3, little-endian: the metadata and tensors of a model.
 * Everything is checked against the bytes that are there before a source is returned; a bad file ends
 * in one line that names the file, the offset and what was expected. */
#ifndef LLM_GGUF_H
#define LLM_GGUF_H

#include "source.h"

/* The file is mapped, not read: pages come in as they are used. Of a model in several files it is the first; the others
 * must be beside it. */
int llm_gguf_open(llm_source *source, const char *path, llm_error *error);
/* `data` must stay until the source is closed; any alignment. `name` is for messages. */
int llm_gguf_open_memory(llm_source *source, const void *data, size_t bytes, const char *name, llm_error *error);

#endif
