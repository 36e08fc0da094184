/* line.h - a line typed on a terminal, with what terminals offer: keys that move and delete, lines that were typed before,
 * and text of several lines that is pasted. */
#ifndef LINE_H
#define LINE_H

#include <signal.h>
#include <stddef.h>

enum { LINE_TEXT, LINE_END, LINE_INTERRUPTED };

/* Whether the standard input and output are a terminal that can do it. */
int line_possible(void);
/* Waits until there is something to read; 0 if *stop, which a signal sets, ends that first. */
int line_wait(const volatile sig_atomic_t *stop);
/* Reads one. LINE_TEXT: *text is the line without its end, *bytes of it (free it); it is remembered. LINE_END: the input has
 * ended; LINE_INTERRUPTED: Ctrl-C, or *stop. */
int line_read(const char *prompt, const volatile sig_atomic_t *stop, char **text, size_t *bytes);
/* Forgets the lines that were typed. */
void line_forget(void);

#endif
