/* What each of the stand-in headers begins with: cl's types, and the calling convention of the C library. */
#ifndef STAND_IN_CRTDEFS_H
#define STAND_IN_CRTDEFS_H
#ifdef __cplusplus
#define STAND_IN_BEGIN extern "C" {
#define STAND_IN_END }
#else
#define STAND_IN_BEGIN
#define STAND_IN_END
typedef unsigned short wchar_t;
#define _WCHAR_T_DEFINED
#endif
typedef unsigned long long size_t;
#define _SIZE_T_DEFINED
#undef NULL
#ifdef __cplusplus
#define NULL 0
#else
#define NULL ((void *)0)
#endif
#define _CRT __cdecl
#endif
