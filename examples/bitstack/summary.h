/* summary.h - what a command that made a stack says at its end. */
#ifndef BITSTACK_COMMAND_SUMMARY_H
#define BITSTACK_COMMAND_SUMMARY_H

#include "assemble.h"
#include "report.h"

/* On the standard output: the file, its sizes and the loss to expect at a few of them, time and memory, and what to type next;
 * nothing if the report is to be quiet. */
void summary_print(const assembly *a, const char *out, const char *model, report *r);

#endif
