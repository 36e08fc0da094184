#include "numbers.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The locale's decimal point: "." in most, "," in many, never empty. */
static const char *point(void) {
    const char *text = localeconv()->decimal_point;
    return text && *text ? text : ".";
}

double llm_parse_number(const char *text, const char **end) {
    char copy[408], *stop;
    const char *mark = point();
    size_t length = strspn(text, " \t\n\r0123456789+-.eExXaAbBcCdDfFpPiInNtTyY"), extra = strlen(mark);
    const char *dot = memchr(text, '.', length);
    *end = text;
    if (length + extra >= sizeof copy) return 0;
    size_t before = dot ? (size_t)(dot - text) : length;
    memcpy(copy, text, before);
    if (dot) { /* what stands there in other locales would end the number */
        memcpy(copy + before, mark, extra);
        memcpy(copy + before + extra, dot + 1, length - before - 1);
        copy[length - 1 + extra] = 0;
    } else copy[length] = 0;
    double value = strtod(copy, &stop);
    size_t used = (size_t)(stop - copy);
    *end = text + (dot && used > before ? used - extra + 1 : used);
    return value;
}

int llm_print_number(char *to, size_t room, const char *format, double value) {
    char text[400];
    const char *mark = point();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, format, value);
#pragma GCC diagnostic pop
    char *at = strcmp(mark, ".") ? strstr(text, mark) : NULL;
    if (at) {
        *at = '.';
        memmove(at + 1, at + strlen(mark), strlen(at + strlen(mark)) + 1);
    }
    return snprintf(to, room, "%s", text);
}

uint32_t llm_next_number(const char **text) {
    static const char before_last[] = "abcdefghijklmnopqrstuvwxyz+-*/#=";
    uint32_t value = 0;
    for (;;) {
        const char c = *(*text)++, *digit = strchr(before_last, c);
        value = value * 32 + (uint32_t)(digit ? digit - before_last : c <= '9' ? c - '0' : c - 'A' + 10);
        if (!digit) return value;
    }
}
