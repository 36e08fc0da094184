#ifndef STAND_IN_STRING_H
#define STAND_IN_STRING_H
#include "crtdefs.h"
STAND_IN_BEGIN
void *_CRT memcpy(void *, const void *, size_t);
void *_CRT memmove(void *, const void *, size_t);
void *_CRT memset(void *, int, size_t);
int _CRT memcmp(const void *, const void *, size_t);
size_t _CRT strlen(const char *);
int _CRT strcmp(const char *, const char *);
int _CRT strncmp(const char *, const char *, size_t);
char *_CRT strerror(int);
STAND_IN_END
#endif
