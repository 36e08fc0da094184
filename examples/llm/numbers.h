/* numbers.h - figures as text, with a decimal point whatever the program's locale says. */
#ifndef LLM_NUMBERS_H
#define LLM_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

/* As strtod in the "C" locale: *end is where the number ends, `text` where there is none. Of more than 400 bytes none is. */
double llm_parse_number(const char *text, const char **end);
/* As snprintf with a format of one double, "%.9g". */
int llm_print_number(char *to, size_t room, const char *format, double value);

/* Tables are kept as text: numbers in base 32, the digits before the last one being "a" to "z" and "+-*", "/#=", the last
 * one "0" to "9" or "A" to "V". The next one; the text goes on behind it. */
uint32_t llm_next_number(const char **text);

#endif
