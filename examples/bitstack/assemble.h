/* assemble.h - a stack out of finished matrices, however they were made: what compress and join share. */
#ifndef BITSTACK_COMMAND_ASSEMBLE_H
#define BITSTACK_COMMAND_ASSEMBLE_H

#include "cli.h"
#include "journal.h"
#include "../llm/evaluate.h"

typedef enum order { ORDER_PREDICTED, ORDER_PROBES, ORDER_LOSS, ORDER_PAPER } order;
typedef enum choice { CHOICE_AUTO, CHOICE_YES, CHOICE_NO } choice;

/* A size that a budget may ask for: bytes of blocks, those of the layers' matrices alone, and the loss to expect. */
typedef struct assembly_point {
    uint64_t bytes, layer_bytes;
    double loss;
} assembly_point;
enum { MOST_POINTS = 8 };

typedef struct assembly {
    const llm_model *model;
    const char *out;
    char *target; /* what is written at first: OUT, or where the blocks still have to be ordered */
    order order;
    choice embeddings;
    bitstack_writer *writer;
    bitstack_error error;
    uint32_t *levels;    /* a matrix, all layers */
    double **loss_at;    /* predicted or measured loss at each level */
    uint64_t **bytes_at; /* and bytes in memory */
    double (*probed)[PROBED_LEVELS]; /* and losses measured on a few of them */
    uint32_t matrices;
    double weights; /* of the layers' matrices */
    /* When it is finished: bytes that are always loaded, and a few sizes. */
    uint64_t base;
    assembly_point points[MOST_POINTS];
    int point_count;
} assembly;

/* How many matrices a model has over its vocabulary: one, if they are tied. */
int vocabulary_matrices(const llm_model *model);
/* "blk.0.attn_q.weight" */
void matrix_name(uint32_t layer, int linear, char name[64]);

/* Opens OUT and writes what is resident. */
bitstack_result assembly_begin(assembly *a, const llm_model *model, const char *out, order by, choice embeddings);
/* Takes a layer's matrix; in the order of the model's. Frees its code. */
bitstack_result assembly_take(assembly *a, const char *name, finished_matrix *m);
/* When all layers are there, and before the vocabulary's: see the definition. */
bitstack_result assembly_correct(assembly *a);
/* Takes one of the vocabulary's matrices, or decides that it stays as it is; m NULL: it does. Frees its code. */
bitstack_result assembly_vocabulary(assembly *a, int which, finished_matrix *m);
/* Orders the blocks (the paper's way by the loss on `probe`) and completes the file, if `result` is BITSTACK_OK; drops all of
 * it after saying why if not. CLI_OK or CLI_FAILED. Frees the assembly but for its sizes. */
int assembly_finish(assembly *a, bitstack_result result, const llm_rows *probe, int threads);

/* What a journal of a part tells besides its matrices. The ids of the probe's rows follow it. */
typedef struct part_head {
    uint64_t run, model; /* which run, the same for all its parts; which model, wherever it is */
    uint32_t part, parts, order, embeddings, probe_rows, probe_length;
} part_head;

/* Which part makes a layer's matrices; the vocabulary's count as one layer more. From 0. */
uint32_t part_of(uint32_t layer, uint32_t parts);
/* "OUT.part-2-of-4", the second of 0, 1 ...; free it. NULL for lack of memory. */
char *part_path(const char *out, uint32_t part, uint32_t parts);
/* Tells a model from others: by its files' sizes and samples of what is in them, and, if `here`, by where they are and when
 * they were changed. */
uint64_t model_key(const char *path, int here);

#endif
