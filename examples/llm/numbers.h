/* numbers.h - figures as text, with a decimal point whatever the program's locale says. */
#ifndef LLM_NUMBERS_H
#define LLM_NUMBERS_H

#include <stddef.h>

/* As strtod in the "C" locale: *end is where the number ends, `text` where there is none. Of more than 400 bytes none is. */
double llm_parse_number(const char *text, const char **end);
/* As snprintf with a format of one double, "%.9g". */
int llm_print_number(char *to, size_t room, const char *format, double value);

#endif
