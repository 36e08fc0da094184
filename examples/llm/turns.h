/* turns.h - how turns of a conversation are written, a form a family of models. Models bring a template (Jinja) with
 * them; it is not run, but tells by what it contains which form it is, and what is said first where nothing else is. */
#ifndef LLM_TURNS_H
#define LLM_TURNS_H

#include "source.h"

/* Texts may hold marks of the tokenizer; \1 stands for its begin mark, \2 for its end mark. */
typedef struct llm_turns {
    const char *name;
    const char *signs[3];                    /* all stand in the template: tells the form */
    const char *system_begin, *system_end;   /* around what comes first */
    const char *user_begin, *user_end, *end; /* around the user's text; after an answer */
    const char *stop;                        /* the mark, or the text, that ends an answer; or NULL */
    int merged; /* what comes first stands inside of the first of the user's turns, in the place of its user_begin */
} llm_turns;

/* The form of the model's template. `unknown` is set to whether there is a template that is none of these: the form
 * is then "plain", which any model that continues text understands, as it is where there is no template. */
const llm_turns *llm_turns_of(const llm_source *source, int *unknown);
/* By name; NULL if there is none. The names of all, for messages. */
const llm_turns *llm_turns_named(const char *name);
const char *llm_turns_names(void);
/* What the template says first where no other text is given; NULL if nothing. Free it. */
char *llm_turns_system(const llm_source *source, const llm_turns *turns);
/* Whether the template itself writes the begin mark. */
int llm_turns_begin(const llm_source *source);

#endif
