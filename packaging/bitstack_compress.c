/* The compressor as a translation unit, for libraries. */
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
