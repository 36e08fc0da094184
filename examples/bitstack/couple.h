/* couple.h - the order of blocks, where first ones of some matrices give nothing without those of others. */
#ifndef BITSTACK_COMMAND_COUPLE_H
#define BITSTACK_COMMAND_COUPLE_H

#include "bitstack_compress.h"

/* As bitstack_order_predicted, of a model's matrices, LLM_LINEARS of each of its layers, then others; but
 * that what is of use only together comes together: the first blocks of gate, up and down; of values and
 * output; after these of queries and keys. */
bitstack_result couple_order(uint32_t layers, const uint32_t *levels, uint32_t matrices,
                             const double *const *loss_at, const uint64_t *const *bytes_at,
                             bitstack_order_entry *out);

#endif
