/* resize.h - a thread that owns the size of a stack. It takes up and drops one block at a time while other
 * threads multiply, none of which ever waits for it; it takes up blocks as they arrive, and keeps the budget
 * within what the machine's memory allows. */
#ifndef RESIZE_H
#define RESIZE_H

#include "memory.h"

typedef struct resizer resizer;

/* {0} is: everything, from a complete file. */
typedef struct resizer_options {
    uint64_t budget;                  /* 0: no limit */
    uint64_t (*arrived)(void *user);  /* bytes of the file there now; NULL: it is complete */
    void *arrived_user;
    double idle;                      /* seconds without resizer_use after which all blocks are given back; 0: never */
    int automatic;                    /* the memory's state moves the budget between policy.least and .most */
    memory_policy policy;
    const char *group;                /* for memory_watch_init */
} resizer_options;

typedef struct resizer_state {
    uint64_t base, resident, total, target; /* bytes; target: the budget that is gone for */
    int loaded, available, blocks, settled; /* settled: it is reached as far as can be */
    int asleep;                             /* idle for so long that no block is kept */
    int left_out;                           /* of `loaded`: they are damaged or could not be read, or others below them */
    uint64_t steps;                         /* blocks taken up and dropped so far */
    double longest;                         /* seconds that one of them took */
    memory_reading memory;                  /* the last, if automatic */
    char message[160];                      /* what went wrong last, or "" */
} resizer_state;

/* The stack belongs to the resizer until resizer_stop: only multiply meanwhile, and ask here. -1 for lack of
 * memory or threads. */
int resizer_start(resizer **out, bitstack *stack, const resizer_options *options);
/* Goes for another budget from now on; 0 is no limit; -1, and no change, below the resident part. */
int resizer_budget(resizer *resizer, uint64_t bytes);
/* Gives back part of what is loaded, as bitstack_trim does; automatic ones grow again when memory is free. */
int resizer_trim(resizer *resizer, bitstack_trim_level level);
/* The model is used from now on, and what idleness gave back is there again when this returns; or not any more. */
void resizer_use(resizer *resizer, int used);
/* Automatic from now on, or not. */
void resizer_automatic(resizer *resizer, int automatic);
/* Waits until the stack is settled (under automatic: until it was for a moment). */
void resizer_wait(resizer *resizer);
void resizer_ask(resizer *resizer, resizer_state *out);
void resizer_stop(resizer *resizer);

#endif
