#ifndef STAND_IN_STDIO_H
#define STAND_IN_STDIO_H
#include "crtdefs.h"
STAND_IN_BEGIN
typedef struct stand_in_file FILE;
#define SEEK_SET 0
#define SEEK_CUR 1
#define SEEK_END 2
#define EOF (-1)
FILE *_CRT fopen(const char *, const char *);
FILE *_CRT _wfopen(const wchar_t *, const wchar_t *);
FILE *_CRT _fdopen(int, const char *);
int _CRT fclose(FILE *);
int _CRT fflush(FILE *);
int _CRT fgetc(FILE *);
int _CRT ferror(FILE *);
int _CRT _fileno(FILE *);
size_t _CRT fread(void *, size_t, size_t, FILE *);
size_t _CRT fwrite(const void *, size_t, size_t, FILE *);
int _CRT _fseeki64(FILE *, long long, int);
long long _CRT _ftelli64(FILE *);
int _CRT fseek(FILE *, long, int);
int _CRT remove(const char *);
int _CRT rename(const char *, const char *);
int _CRT printf(const char *, ...);
int _CRT puts(const char *);
STAND_IN_END
#endif
