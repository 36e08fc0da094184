#ifndef STAND_IN_STAT_H
#define STAND_IN_STAT_H
#define _S_IREAD 0x0100
#define _S_IWRITE 0x0080
#endif
