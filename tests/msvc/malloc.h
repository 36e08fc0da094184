#ifndef STAND_IN_MALLOC_H
#define STAND_IN_MALLOC_H
#include "crtdefs.h"
STAND_IN_BEGIN
void *_CRT _aligned_malloc(size_t, size_t);
void _CRT _aligned_free(void *);
STAND_IN_END
#endif
