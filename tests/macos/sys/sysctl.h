#ifndef STAND_IN_SYSCTL_H
#define STAND_IN_SYSCTL_H
#include <stddef.h>
int sysctlbyname(const char *, void *, size_t *, void *, size_t);
#endif
