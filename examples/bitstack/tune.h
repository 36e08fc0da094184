/* tune.h - tuning of a finished stack, as a command and as compress's last step. */
#ifndef BITSTACK_COMMAND_TUNE_H
#define BITSTACK_COMMAND_TUNE_H

#include "mix.h"
#include "report.h"
#include "../llm/tune.h"

enum { TUNE_TEXTS = 4 };
#define TUNE_PASSES 1.5 /* over the text */

void tune_defaults(llm_tuning *t);
uint32_t tune_steps(size_t rows); /* how many are usual */
/* CLI_OK, or CLI_FAILED after saying why. */
int tune_stack(const char *path, llm_model *full, const llm_rows *rows, llm_tuning *t, report *r);

#endif
