/* report.h - what a long command tells while it runs and when it is done: a bar on a terminal, else a line every ten
 * seconds, later every minute; nothing if it is to be quiet. */
#ifndef BITSTACK_COMMAND_REPORT_H
#define BITSTACK_COMMAND_REPORT_H

#include "cli.h"

#include <pthread.h>

typedef struct report {
    int quiet, json; /* json: lines are objects */
    int threads;
    cli_progress bar;
    double start, share, from, to; /* share: done of the whole; from, to: of it the phase at hand */
    const char *phase;
    double spoke, busy; /* when the last line was written; processor seconds at the start */
    int ticking, stop;
    pthread_t ticker;
    pthread_mutex_t lock;
    pthread_cond_t wake;
} report;

void report_begin(report *r, int quiet, int json, int threads);
/* The phase at hand, and from which share of the whole time to which it goes. */
void report_phase(report *r, const char *phase, double from, double to);
/* An llm_progress: the fraction of the phase. From any thread. */
void report_show(void *report, double fraction);
/* Clears the bar, for other lines to be written. */
void report_pause(report *r);
void report_end(report *r);

/* Since report_begin: seconds, the share of them that `threads` threads were at work, and the most memory that the process
 * ever took. */
typedef struct report_use {
    double seconds, busy;
    uint64_t memory;
} report_use;
report_use report_used(const report *r);

#endif
