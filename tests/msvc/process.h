#ifndef STAND_IN_PROCESS_H
#define STAND_IN_PROCESS_H
#include "crtdefs.h"
STAND_IN_BEGIN
typedef unsigned(__stdcall *stand_in_thread)(void *);
unsigned long long _CRT _beginthreadex(void *, unsigned, stand_in_thread, void *, unsigned, unsigned *);
STAND_IN_END
#endif
