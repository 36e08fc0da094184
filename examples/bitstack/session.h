/* session.h - a model to talk to: a stack whose size changes while it runs, or a GGUF model that is what it is. */
#ifndef SESSION_H
#define SESSION_H

#include "follow.h"
#include "resize.h"
#include "../llm/model.h"
#include "../llm/tokenizer.h"

typedef struct session_options {
    resizer_options size; /* all but `arrived` */
    int growing;          /* the file may still be arriving; "-" always is */
    int threads;          /* that multiply; 0 or 1: the calling one */
} session_options;

typedef struct session {
    llm_model model;
    llm_tokenizer tokenizer;
    follow *follow;
    resizer *resizer; /* NULL for a GGUF model */
} session;

/* What a stack has so far is loaded up to the budget when this returns; automatic ones begin at the least. */
int session_open(session *session, const char *path, const session_options *options, llm_error *error);
void session_close(session *session);

#endif
