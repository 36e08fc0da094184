#ifndef STAND_IN_ERRNO_H
#define STAND_IN_ERRNO_H
#include "crtdefs.h"
STAND_IN_BEGIN
int *_CRT _errno(void);
STAND_IN_END
#define errno (*_errno())
#define EINVAL 22
#define EEXIST 17
#endif
