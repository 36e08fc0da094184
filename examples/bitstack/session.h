/* session.h - a model to talk to: a stack whose size changes while it runs, or a GGUF model that is what it is. */
#ifndef SESSION_H
#define SESSION_H

#include "follow.h"
#include "resize.h"
#include "../llm/generate.h"
#include "../llm/tokenizer.h"

typedef struct session_options {
    resizer_options size; /* all but `arrived` */
    int growing;          /* the file may still be arriving; "-" always is */
    int threads;          /* that multiply; 0 or 1: the calling one */
    int keep;             /* see llm_model_options */
    uint32_t context;     /* tokens that there is to be room for; 0: as llm_generator_init */
    uint64_t
        memory; /* one budget for all: weights, keys and values, room to work in, tokenizer; 0: see size */
    int choose; /* of a stack as much as the memory that is free allows, with a margin; it follows from there on */
} session_options;

/* How a size was chosen: what the weights may take, which is what was free less the margin and the context. */
typedef struct session_choice {
    uint64_t free, margin, context, weights, all; /* all: of the model's weights */
} session_choice;

typedef struct session {
    llm_model model;
    llm_tokenizer tokenizer;
    follow *follow;
    resizer *resizer; /* NULL for a GGUF model */
    uint64_t memory, other,
        weights; /* if there is one budget: it, what is neither weights nor state, and what is left */
    session_choice choice;           /* if it was chosen */
} session;

/* The LLM_KEEP_ of "f32", "f16" or "8"; -1 for another word. */
int session_keep(const char *word);
/* What a stack has so far is loaded up to the budget when this returns; automatic ones begin at the least. */
int session_open(session *session, const char *path, const session_options *options, llm_error *error);
/* Bytes that are neither the stack's resident ones nor those of a generator: tokenizer, tables, the stack's handle. */
uint64_t session_other(const session *session);
/* With one budget: makes the weights give way to `more` tokens of a text, before they are taken, or grow again. Bytes
 * that the weights gave since the session was opened. */
uint64_t session_fit(session *session, const llm_generator *generator, uint32_t more);
enum { SESSION_STRIDE = 64 }; /* tokens that memory is made free for at a time */
/* On the standard error: which size was chosen, and why; nothing if all of the model is there and nobody looks. */
void session_say(const session *session);
/* What weights may take with `free` bytes to spare: in *out, whose `all` is the model's. `held` bytes of the weights are
 * there already; margin_of: a limit in bytes to keep the policy's reserve of, twice, or 0 for no margin. */
void session_share(session_choice *out, uint64_t free, uint64_t held, uint64_t context,
                   const memory_policy *policy, uint64_t margin_of);
void session_close(session *session);

#endif
