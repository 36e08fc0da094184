/* host.c - what main.c needs on a computer. */
#include <stdio.h>

void put(const char *text);
void put(const char *text) { fputs(text, stdout); }
