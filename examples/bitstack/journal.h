/* journal.h - finished matrices kept on the disk while a model is being compressed, so that a run that was
 * interrupted goes on where it stopped. A record is whole or it is not there: its checksum says. */
#ifndef BITSTACK_COMMAND_JOURNAL_H
#define BITSTACK_COMMAND_JOURNAL_H

#include "bitstack_compress.h"
#include <stdio.h>

/* One finished matrix: its code, its predicted loss at each level, measured ones where a few matrices are probed (a
 * negative number: not measured), and its sensitivity. */
enum { PROBED_LEVELS = 5 };
typedef struct finished_matrix {
    bitstack_coded coded;
    double loss_at[BITSTACK_MAX_LEVELS + 1];
    double probed[PROBED_LEVELS];
    float sensitivity;
} finished_matrix;

typedef struct journal {
    FILE *file; /* NULL: none is kept */
    int kept;   /* whole records that were there when it was opened, and are still to be read */
    long end;   /* of them */
} journal;

/* Opens or makes the journal at `path` for a run that `key` tells from all others; a journal of another run is
 * begun anew. `head`, `bytes` of it, is kept with it for those who read it: it must be the same wherever the key is. 0 on
 * success. */
int journal_open(journal *j, const char *path, uint64_t key, const void *head, size_t bytes);
/* Opens a journal to read it: *head (free it) is what was given when it was made. -1 if there is none, or not a whole one. */
int journal_read(journal *j, const char *path, uint64_t *key, void **head, size_t *bytes);
/* Reads the next record; the caller frees `coded`. 1 if there was one, 0 at the end, -1 for lack of memory. */
int journal_next(journal *j, finished_matrix *m);
/* Appends a record and brings it to the disk. 0 on success. */
int journal_add(journal *j, const finished_matrix *m);
void journal_close(journal *j);

#endif
