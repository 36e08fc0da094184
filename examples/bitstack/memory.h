/* memory.h - how much memory this process may still take, and what budget follows from it. Reads control
 * groups (version 2, and version 1 where a machine still has that) and pressure stall information where there are such (Linux),
 * and what the system says is available, and whether that is low (../llm/platform.h); the tightest of them counts. */
#ifndef MEMORY_H
#define MEMORY_H

#include "bitstack.h"

typedef struct memory_reading {
    uint64_t limit;     /* bytes that may be used in all, by whoever shares the tightest limit */
    uint64_t available; /* bytes that could be taken now; file pages that can be dropped count */
    double pressure;    /* share of the time since the last reading that something waited for memory, 0 to 1 */
} memory_reading;

typedef struct memory_watch {
    int version;               /* of control groups: 2, 1, or 0 for none */
    char group[512], top[512]; /* the process's own group, and the outermost one that can be seen */
    uint64_t stalled;          /* microseconds, at the last reading */
    double when;
} memory_watch;

/* `group`: a directory like a control group's, in place of the process's own; NULL finds that. */
void memory_watch_init(memory_watch *watch, const char *group);
/* -1 where nothing can be read. `now` in seconds. */
int memory_read(memory_watch *watch, double now, memory_reading *out);

/* Keeps `reserve` bytes free: shrinks at once when they are touched, or when something waits for memory (with eight times
 * the reserve free it waits for something else: another group's limit, or its own file), grows by half
 * of what is free beyond twice the reserve, and not for a while after it had to shrink. */
typedef struct memory_policy {
    uint64_t least, most; /* budgets */
    uint64_t reserve;     /* 0: a twentieth of the limit, from 16 MiB to 1 GiB */
    double quiet;         /* seconds without growing after it had to shrink; 0: 5 */
    double quiet_until;
} memory_policy;

/* What the policy keeps free of a machine or group with this limit. */
uint64_t memory_reserve(const memory_policy *policy, uint64_t limit);
/* The budget to go for, with `resident` bytes of the stack loaded. */
uint64_t memory_budget(memory_policy *policy, const memory_reading *reading, uint64_t resident, double now);

/* For bitstack_options.allocator: large pieces are mapped one by one, so that what is released goes back to the
 * machine. (malloc may keep it: glibc raises its threshold for mapping to the largest piece ever freed.) */
bitstack_allocator memory_allocator(void);
/* Gives the machine what small pieces left behind, where the C library can. */
void memory_give_back(void);
/* From now on every large piece is the system's again as soon as it is freed. Else the C library keeps pieces as large as
 * the largest that was ever freed, and holes of one phase's work stay while the next one's grows. */
void memory_keep_none(void);

#endif
