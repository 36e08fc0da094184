#ifndef STAND_IN_STDLIB_H
#define STAND_IN_STDLIB_H
#include "crtdefs.h"
STAND_IN_BEGIN
void *_CRT malloc(size_t);
void *_CRT calloc(size_t, size_t);
void *_CRT realloc(void *, size_t);
void _CRT free(void *);
void _CRT qsort(void *, size_t, size_t, int(_CRT *)(const void *, const void *));
wchar_t *_CRT _wfullpath(wchar_t *, const wchar_t *, size_t);
__declspec(noreturn) void _CRT exit(int);
STAND_IN_END
#endif
