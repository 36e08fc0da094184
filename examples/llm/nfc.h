/* nfc.h - text in Unicode's composed form, NFC (Unicode Standard Annex 15): letters and their accents as one character
 * where there is one. */
#ifndef LLM_NFC_H
#define LLM_NFC_H

#include <stddef.h>

/* Whether the text may change at all: most never do. */
int llm_nfc_needed(const char *text, size_t bytes);
/* The composed text, *made bytes of it; bytes that are not UTF-8 stay. NULL for lack of memory. Free it. */
char *llm_nfc(const char *text, size_t bytes, size_t *made);

#endif
