/* conversation.h - a model that answers: turns in the form the model knows, text piece by piece, and old turns
 * forgotten when the context is full. The model's budget may change at any time; what was said stays. */
#ifndef LLM_CONVERSATION_H
#define LLM_CONVERSATION_H

#include "generate.h"
#include "tokenizer.h"
#include "turns.h"

typedef struct llm_conversation {
    const llm_tokenizer *tokenizer;
    const llm_turns *turns;
    llm_generator generator;
    const char *stop; /* the mark or text that ends an answer, and the mark's id or -1 */
    int64_t stop_id;
    int special;      /* marks in the user's text count */
    uint32_t kept;    /* tokens at the beginning that are never forgotten */
    size_t cut;       /* tokens of what was to be said first that there was no room for: it may take half of the context */
    int merged;       /* they end inside of the first turn: its first `opening` tokens are left out */
    uint32_t opening;
    uint32_t *starts; /* where each turn begins: the user's text and the answer to it */
    size_t count, room, forgotten; /* turns; forgotten: of those that were said, by now */
    uint32_t sure;    /* tokens whose text is out; the others may be the beginning of a stop text */
    char held[256];
    size_t held_bytes;
    int answering, first;
} llm_conversation;

/* context 0: as llm_generator_init. `form` NULL: of the model's template. `system` NULL: what the template says first,
 * if anything; "": nothing. -1 for lack of memory. */
int llm_conversation_start(llm_conversation *c, const llm_model *model, const llm_tokenizer *tokenizer, uint32_t context,
                           const char *system, const llm_turns *form);
/* The same with the template's form. */
int llm_conversation_init(llm_conversation *c, const llm_model *model, const llm_tokenizer *tokenizer, uint32_t context, const char *system);
void llm_conversation_free(llm_conversation *c);
/* Forgets all turns. */
void llm_conversation_reset(llm_conversation *c);

/* The user's next turn. 1 if it is longer than the context, and nothing is changed then; -1 for lack of memory. */
int llm_conversation_say(llm_conversation *c, const char *text, size_t bytes);
/* One more token of the answer: *bytes bytes of text in `out` (at least 512 bytes; may be none). 1 while there is
 * more to come, 0 after the last, -1 for lack of memory. */
int llm_conversation_next(llm_conversation *c, llm_sampler *sampler, char *out, size_t *bytes);
/* Ends the answer here. */
void llm_conversation_stop(llm_conversation *c);

#endif
