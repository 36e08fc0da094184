/* tokenizer.h - text to token ids and back, as metadata with GGUF's keys describes it (tokenizer.ggml.model):
 *   "llama"  BPE over characters, a mark in the place of spaces, bytes for what no piece covers: SentencePiece
 *            (Kudo and Richardson, arXiv 1808.06226). Pairs merge by the score of what they make, or, where there
 *            are merges in place of scores, by the merge's rank
 *   "t5"     unigram: the cut into pieces with the highest sum of scores (Kudo, arXiv 1804.10959)
 *   "gpt2"   BPE over bytes inside of words (see cuts.h), pairs merging by rank (Radford et al., 2019)
 * Text is taken as it is, but for those that were trained on composed text (NFC): qwen2. */
#ifndef LLM_TOKENIZER_H
#define LLM_TOKENIZER_H

#include "cuts.h"

typedef enum llm_tokens { LLM_TOKENS_PIECES, LLM_TOKENS_UNIGRAM, LLM_TOKENS_BYTES } llm_tokens;

enum { LLM_MOST_ENDS = 32 };

/* What marks of Hugging Face's may do: take the spaces on their left or right, stand for whole words only, or, where spaces
 * are marked before marks are looked for (SPACED), have a space in front, which they take. tokenizer.mark_habits has a
 * byte a token. */
enum { LLM_MARK_LEFT = 1, LLM_MARK_RIGHT = 2, LLM_MARK_WORD = 4, LLM_MARK_SPACED = 8 };

typedef struct llm_tokenizer {
    llm_tokens kind;
    llm_string *pieces; /* point into the source, or into `text` */
    float *scores;
    unsigned char *types;
    uint32_t count;
    uint32_t *slots; /* hash table of the pieces that merging may make: id + 1, or 0 */
    uint32_t slot_mask;
    uint32_t bytes[256]; /* id of a byte's token */
    int32_t bos, eos, unknown; /* -1: there is none */
    uint32_t ends[LLM_MOST_ENDS]; /* the tokens that end what the model says: eos and others */
    uint32_t end_count;
    int add_bos, add_space; /* what the model was trained with */

    struct llm_merge *merges; /* hash table by pair, or NULL: by scores */
    uint32_t merge_mask;
    llm_cuts cuts;     /* of LLM_TOKENS_BYTES */
    const char *guessed; /* how words are cut, where the file does not say; or NULL */
    int first_space;   /* the space goes in front of the whole text only, else also of what follows a mark */
    int one_space;     /* not where there is one */
    int whole_words;   /* a word that is a piece is taken as it is, without merging */
    int composed;      /* text is brought to NFC first */
    int single_spaces; /* spaces at the ends and after another are dropped */
    size_t longest;    /* piece, in bytes */
    float least;       /* score */
    unsigned char *habits; /* of marks: see LLM_MARK_LEFT; or NULL */
    uint32_t *marks;   /* pieces that text is cut at before all else, in the order of their texts */
    uint32_t marks_from[257]; /* by first byte */
    char *text;
    llm_string *own_pieces;
} llm_tokenizer;

/* The source must outlive the tokenizer. */
int llm_tokenizer_load(llm_tokenizer *tokenizer, const llm_source *source, llm_error *error);
void llm_tokenizer_free(llm_tokenizer *tokenizer);
/* Bytes that it takes, those of the source left out. */
size_t llm_tokenizer_bytes(const llm_tokenizer *tokenizer);

/* Ids of `bytes` bytes of text, without begin and end marks, in *ids (free it); the count, or -1 for lack
 * of memory. Any bytes are text: what no piece covers becomes byte tokens. */
int64_t llm_encode(const llm_tokenizer *tokenizer, const char *text, size_t bytes, uint32_t **ids);
/* The same, but marks that stand in the text ("<|im_end|>") become their ids: for text made from a template, not
 * for what users write. */
int64_t llm_encode_marked(const llm_tokenizer *tokenizer, const char *text, size_t bytes, uint32_t **ids);

/* Parts that stand in a row in `text`, a template's (marked: marks count) and others', as the one text they make. */
typedef struct llm_part {
    size_t bytes;
    int marked;
} llm_part;
int64_t llm_encode_parts(const llm_tokenizer *tokenizer, const char *text, const llm_part *parts, size_t count, uint32_t **ids);

/* Whether the token ends what the model says. */
int llm_token_ends(const llm_tokenizer *tokenizer, int64_t id);

/* The text of one token, at most `room` bytes of it in `out`; returns its length. Marks have none. `first`
 * drops the space that encoding put in front of the text. Byte tokens may give parts of a character. */
size_t llm_token_text(const llm_tokenizer *tokenizer, uint32_t id, int first, char *out, size_t room);
/* The id of a piece or mark that is written exactly so, or -1. */
int64_t llm_token_named(const llm_tokenizer *tokenizer, const char *name);

#endif
