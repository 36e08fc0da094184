/* follow.h - a stack whose file is still arriving: a file that grows, or the standard input. */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "../llm/source.h"

typedef struct follow follow;

/* Opens a stack as soon as its resident part is there, which it waits for if `growing`; "-" is the standard
 * input, whose bytes are kept in an unnamed file in TMPDIR, and no more of them than the stack at options->budget (0: all of it) needs.
 * 0, or -1 after filling *error. Close the stack before the follow. */
int follow_open(follow **out, bitstack **stack, const char *path, int growing, const bitstack_options *options, llm_error *error);
/* Bytes of the stack's file that are there by now: for bitstack_extend. May be called from any thread. */
uint64_t follow_arrived(void *follow);
/* Nonzero when no more will come; *why is then what went wrong, or NULL. */
int follow_ended(follow *follow, const char **why);
void follow_close(follow *follow);

#endif
