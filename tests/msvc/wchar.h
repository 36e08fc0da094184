#ifndef STAND_IN_WCHAR_H
#define STAND_IN_WCHAR_H
#include "crtdefs.h"
STAND_IN_BEGIN
size_t _CRT wcslen(const wchar_t *);
int _CRT wcsncmp(const wchar_t *, const wchar_t *, size_t);
int _CRT _wopen(const wchar_t *, int, ...);
int _CRT _wremove(const wchar_t *);
STAND_IN_END
#endif
