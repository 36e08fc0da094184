/* resident.h - what compress and import take from a model as it is. */
#ifndef RESIDENT_H
#define RESIDENT_H

#include "bitstack_compress.h"
#include "../llm/source.h"

bitstack_result write_meta(bitstack_writer *writer, const llm_meta *meta);
/* Types that a stack does not have become F16. */
bitstack_result write_tensor(bitstack_writer *writer, const llm_tensor *tensor);

#endif
