/* mix.h - the text that a model is calibrated on: files and folders in equal parts, and text of the model's own. */
#ifndef BITSTACK_COMMAND_MIX_H
#define BITSTACK_COMMAND_MIX_H

#include "cli.h"
#include "../llm/evaluate.h"

typedef struct mix {
    const char *texts; /* files and folders with commas between them; NULL: none; "none": no rows at all */
    double self_share; /* of the rows that the model writes itself where there is text, 0 to below 1 */
    uint32_t self;     /* tokens that it writes, in place of the share; 0: by the share, or DEFAULT_SELF where there is no text */
    size_t length, rows; /* of a row in ids; rows at most, where there is text */
    uint64_t seed, bytes; /* bytes: for keys and values while writing */
    int threads;
    int special;         /* marks such as <|im_end|> in the texts count as marks, not as text */
} mix;

enum { MIX_DEFAULT_SELF = 16384, MIX_ROWS = 128, MIX_LENGTH = 257 }; /* of calibration and tuning alike: rows at most, ids of a row */

/* The rows, those of all kinds taking turns: none for "none". CLI_OK, or CLI_FAILED after saying why. */
int mix_rows(const mix *m, const llm_model *model, llm_progress progress, void *user, llm_rows *rows);
/* CLI_FAILED after saying so where writing `out` would write over one of the texts. */
int mix_same_file(const mix *m, const char *out);

#endif
