/* tokenizer.h - text to token ids and back. SentencePiece BPE with byte fallback, as the metadata of a
 * GGUF file (tokenizer.ggml.model "llama") describes it: pieces with scores, merged best score first.
 * Kudo and Richardson, SentencePiece, arXiv 1808.06226. */
#ifndef LLM_TOKENIZER_H
#define LLM_TOKENIZER_H

#include "source.h"

typedef struct llm_tokenizer {
    llm_string *pieces; /* point into the source */
    float *scores;
    unsigned char *types;
    uint32_t count;
    uint32_t *slots; /* hash table of the pieces that merging may make: id + 1, or 0 */
    uint32_t slot_mask;
    uint32_t bytes[256]; /* id of a byte's token */
    int32_t bos, eos, unknown; /* -1: there is none */
    int add_bos, add_space; /* what the model was trained with */
} llm_tokenizer;

/* The source must outlive the tokenizer. */
int llm_tokenizer_load(llm_tokenizer *tokenizer, const llm_source *source, llm_error *error);
void llm_tokenizer_free(llm_tokenizer *tokenizer);

/* Ids of `bytes` bytes of text, without begin and end marks, in *ids (free it); the count, or -1 for lack
 * of memory. Any bytes are text: what no piece covers becomes byte tokens. */
int64_t llm_encode(const llm_tokenizer *tokenizer, const char *text, size_t bytes, uint32_t **ids);

/* The text of one token, at most `room` bytes of it in `out`; returns its length. Marks have none. `first`
 * drops the space that encoding put in front of the text. Byte tokens may give parts of a character. */
size_t llm_token_text(const llm_tokenizer *tokenizer, uint32_t id, int first, char *out, size_t room);

#endif
