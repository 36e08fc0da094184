#include "nfc.h"
#include "nfc_table.h"
#include "numbers.h"
#include "unicode.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS = 2200, SECONDS = 200, CLASSES = 600 };

typedef struct pair {
    uint32_t whole, first, second; /* second 0: it is another character altogether */
} pair;

static pair pairs[PAIRS], composed[PAIRS]; /* by whole; and those that are put together, by first and second */
static struct { uint32_t from, to, kind; } classes[CLASSES];
static size_t pair_count, composed_count, class_count;
static pthread_once_t read_once = PTHREAD_ONCE_INIT;

static int by_parts(const void *a, const void *b) {
    const pair *x = a, *y = b;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return (x->second > y->second) - (x->second < y->second);
}

/* Whether there is more, in this row or the next. */
static int next_row(const char *const **row, const char **text) {
    while (!**text)
        if (!(*text = *++*row)) return 0;
    return 1;
}

static void read_tables(void) {
    uint32_t seconds[SECONDS] = {0}, count = 0, whole = 0, first = 0, at = 0;
    for (const char *const *list = nfc_seconds; *list; list++)
        for (const char *one = *list; *one && count + 1 < SECONDS; count++) seconds[count + 1] = seconds[count] + llm_next_number(&one);
    const char *const *row = nfc_pairs, *text = *row;
    while (next_row(&row, &text) && pair_count < PAIRS) {
        whole += llm_next_number(&text);
        uint32_t step = llm_next_number(&text), rest = llm_next_number(&text);
        first += step & 1 ? (uint32_t)0 - (step + 1) / 2 : step / 2;
        pair one = {whole, first, seconds[rest / 2]};
        pairs[pair_count++] = one;
        if (rest & 1) composed[composed_count++] = one;
    }
    for (row = nfc_classes, text = *row; next_row(&row, &text) && class_count < CLASSES; class_count++) {
        classes[class_count].from = at += llm_next_number(&text);
        classes[class_count].to = at += llm_next_number(&text);
        classes[class_count].kind = llm_next_number(&text);
    }
    qsort(composed, composed_count, sizeof *composed, by_parts);
}

static uint32_t class_of(uint32_t code) {
    size_t low = 0, high = class_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (classes[middle].to <= code) low = middle + 1;
        else high = middle;
    }
    return low < class_count && code >= classes[low].from ? classes[low].kind : 0;
}

static const pair *parts_of(uint32_t code) {
    size_t low = 0, high = pair_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (pairs[middle].whole < code) low = middle + 1;
        else high = middle;
    }
    return low < pair_count && pairs[low].whole == code ? &pairs[low] : NULL;
}

enum { HANGUL = 0xac00, LEADS = 0x1100, VOWELS = 0x1161, TAILS = 0x11a7, TAIL_COUNT = 28, VOWEL_COUNT = 21, SYLLABLES = 11172 };

/* The character that two make; 0 if none. */
static uint32_t together(uint32_t first, uint32_t second) {
    pair key = {0, first, second};
    if (first - LEADS < 19 && second - VOWELS < VOWEL_COUNT) return HANGUL + ((first - LEADS) * VOWEL_COUNT + second - VOWELS) * TAIL_COUNT;
    if (first - HANGUL < SYLLABLES && (first - HANGUL) % TAIL_COUNT == 0 && second - TAILS - 1 < TAIL_COUNT - 1) return first + second - TAILS;
    const pair *found = bsearch(&key, composed, composed_count, sizeof *composed, by_parts);
    return found ? found->whole : 0;
}

/* What a character is made of, in full: at most four of them. Bytes that are none are numbered from 0x110000 on. */
static size_t apart(uint32_t code, uint32_t *to) {
    uint32_t tail[8];
    size_t tails = 0, made = 0;
    if (code - HANGUL < SYLLABLES) {
        uint32_t index = code - HANGUL;
        to[0] = LEADS + index / (VOWEL_COUNT * TAIL_COUNT), to[1] = VOWELS + index / TAIL_COUNT % VOWEL_COUNT, to[2] = TAILS + index % TAIL_COUNT;
        return index % TAIL_COUNT ? 3 : 2;
    }
    for (const pair *p; (p = parts_of(code)) && tails < 8; code = p->first)
        if (p->second) tail[tails++] = p->second;
    to[made++] = code;
    while (tails) to[made++] = tail[--tails];
    return made;
}

/* Marks in the order of their classes, those of one in the order that they came in. `room` is for as many. */
static void order(uint32_t *codes, size_t count, uint32_t *room) {
    size_t from[257] = {0};
    for (size_t i = 0; i < count; i++) from[class_of(codes[i]) + 1]++;
    for (int i = 0; i < 256; i++) from[i + 1] += from[i];
    for (size_t i = 0; i < count; i++) room[from[class_of(codes[i])]++] = codes[i];
    memcpy(codes, room, count * sizeof *codes);
}

int llm_nfc_needed(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] >= 0xcc) return 1; /* U+0300 and on */
    return 0;
}

char *llm_nfc(const char *text, size_t bytes, size_t *made) {
    pthread_once(&read_once, read_tables);
    uint32_t *codes = malloc((8 * bytes + 1) * sizeof *codes);
    char *out = malloc(3 * bytes + 1); /* no character's parts, put together as far as they go, take more */
    size_t count = 0, length, kept = 0;
    if (!codes || !out) {
        free(codes), free(out);
        return NULL;
    }
    for (size_t at = 0; at < bytes; at += length) {
        uint32_t code = llm_character(text + at, bytes - at, &length);
        if (code == UINT32_MAX) codes[count++] = 0x110000 + (unsigned char)text[at];
        else count += apart(code, codes + count);
    }
    for (size_t i = 0; i < count; i++) {
        size_t from = i;
        while (i < count && class_of(codes[i])) i++;
        if (i - from > 1) order(codes + from, i - from, codes + 4 * bytes + 1);
    }
    /* Each mark that is not behind another of its class joins the last character that is no mark. */
    size_t starter = SIZE_MAX;
    uint32_t last = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t kind = class_of(codes[i]), whole = 0;
        if (starter != SIZE_MAX && (kept == starter + 1 || last < kind)) whole = together(codes[starter], codes[i]);
        if (whole) {
            codes[starter] = whole;
            continue;
        }
        codes[kept] = codes[i];
        if (!kind) starter = kept;
        last = kind;
        kept++;
    }
    *made = 0;
    for (size_t i = 0; i < kept; i++)
        if (codes[i] >= 0x110000) out[(*made)++] = (char)(codes[i] - 0x110000);
        else *made += llm_write_character(codes[i], out + *made);
    free(codes);
    return out;
}
