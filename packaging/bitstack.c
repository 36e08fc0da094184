/* The runtime as a translation unit, for libraries: programs that copy the header need no such file. */
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"
