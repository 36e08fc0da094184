/* published.h - the blocks of a published BitStack checkpoint (arXiv 2410.23918 and its code), as they stand in the
 * tensors of its safetensors files, and the order of its compression_config.json or reduced_ppl_average.json:
 *
 *     model.layers.L.<linear>.qweight_I  U8   signs of block I, row-major, 8 a byte, highest bit first, 1 = +1
 *     model.layers.L.<linear>.u_I        F16  rows x k
 *     model.layers.L.<linear>.vt_I       F16  k x cols
 *
 * Factors are kept in the type they have (bfloat16 as F32), so nothing is rounded. */
#ifndef LLM_PUBLISHED_H
#define LLM_PUBLISHED_H

#include "bitstack_compress.h"
#include "model.h"
#include "safetensors.h"

typedef struct llm_published_block {
    llm_safetensor signs, u, vt; /* data NULL: not seen */
} llm_published_block;

typedef struct llm_published_linear {
    uint32_t rows, cols, rank, levels;
    int f16; /* all factors are */
    llm_published_block *blocks; /* `room` of them */
    uint32_t room;
} llm_published_linear;

typedef struct llm_published {
    llm_published_linear *linears; /* layer by layer, in the order of llm_linear_names: theirs */
    uint32_t count, room;
} llm_published;

/* One entry of compression_config.json: the first `blocks` blocks of the order are loaded in `memory` bytes. */
typedef struct llm_published_config {
    uint64_t memory;
    size_t blocks;
} llm_published_config;

/* Takes a tensor that is part of a block: 1; 0 if it is not; -1 if it is wrong. Its data must stay. */
int llm_published_add(llm_published *published, const llm_safetensor *tensor, llm_error *error);
/* When all are added: whether every linear of every layer has blocks 0, 1, ... with matching shapes. `name` is for
 * messages. */
int llm_published_check(llm_published *published, const char *name, llm_error *error);
void llm_published_free(llm_published *published);

/* One linear as bitstack_writer_matrix takes it; free it with llm_published_coded_free. -1 where a factor is not
 * finite or memory is short. */
int llm_published_code(const llm_published *published, uint32_t index, bitstack_coded *coded, llm_error *error);
void llm_published_coded_free(bitstack_coded *coded);

/* The universal order: `order` holds every block once. From compression_config.json, whose entries come out in
 * *configs (free it), `config_count` of them; blocks that no entry has come last, level by level. */
size_t llm_published_blocks(const llm_published *published);
int llm_published_configs(const llm_published *published, const char *text, size_t bytes, const char *name, bitstack_order_entry *order,
                          llm_published_config **configs, size_t *config_count, llm_error *error);
/* From reduced_ppl_average.json: level by level, by the perplexity with that one block more. */
int llm_published_losses(const llm_published *published, const char *text, size_t bytes, const char *name, bitstack_order_entry *order,
                         llm_error *error);
/* Where there is neither: level by level. */
int llm_published_levels(const llm_published *published, bitstack_order_entry *order);

#endif
