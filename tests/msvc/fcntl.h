#ifndef STAND_IN_FCNTL_H
#define STAND_IN_FCNTL_H
#define _O_RDWR 0x0002
#define _O_CREAT 0x0100
#define _O_EXCL 0x0400
#define _O_BINARY 0x8000
#endif
