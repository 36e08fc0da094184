/* quants.h - what quants.c takes from iq.c. */
#ifndef LLM_QUANTS_H
#define LLM_QUANTS_H

#include "source.h"

extern const llm_packing llm_iq_packings[]; /* up to one without a name */

#endif
