/* parallel.h - a loop whose turns are shared out over threads. */
#ifndef LLM_PARALLEL_H
#define LLM_PARALLEL_H

#include <stddef.h>

/* Calls work(user, index, thread) for every index below count, from up to `threads` threads (numbered
 * from 0, the caller's; no two calls with the same number at the same time). Returns when all are done.
 * Where threads cannot be started the remaining ones do the work. */
void llm_parallel(int threads, size_t count, void (*work)(void *user, size_t index, int thread), void *user);

/* Processors this process may use, at least 1. */
int llm_processors(void);

#endif
