#ifndef STAND_IN_IO_H
#define STAND_IN_IO_H
#include "crtdefs.h"
STAND_IN_BEGIN
int _CRT _close(int);
int _CRT _commit(int);
STAND_IN_END
#endif
