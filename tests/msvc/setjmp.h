#ifndef STAND_IN_SETJMP_H
#define STAND_IN_SETJMP_H
typedef int jmp_buf[64];
#endif
