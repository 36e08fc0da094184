#include "line.h"
#include "../llm/unicode.h"
#include "../llm/platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT = 100 }; /* lines that are remembered */

typedef struct line {
    char *text;
    size_t bytes, room, at; /* at: of the cursor */
} line;

static struct { char *text[KEPT]; size_t bytes[KEPT], count; } history;

int line_possible(void) { return platform_can_edit(); }

void line_forget(void) {
    while (history.count) free(history.text[--history.count]);
}

/* ---- editing ---- */

static int insert(line *l, const char *text, size_t bytes) {
    if (l->bytes + bytes + 1 > l->room) {
        char *more = realloc(l->text, 2 * (l->bytes + bytes) + 64);
        if (!more) return -1;
        l->text = more;
        l->room = 2 * (l->bytes + bytes) + 64;
    }
    memmove(l->text + l->at + bytes, l->text + l->at, l->bytes - l->at);
    memcpy(l->text + l->at, text, bytes);
    l->at += bytes, l->bytes += bytes;
    return 0;
}

static void delete_to(line *l, size_t to) {
    size_t from = l->at < to ? l->at : to, end = l->at < to ? to : l->at;
    memmove(l->text + from, l->text + end, l->bytes - end);
    l->bytes -= end - from;
    l->at = from;
}

/* The character before and after the cursor's place; marks belong to the letter before them. */
static size_t before(const line *l, size_t at) {
    size_t length;
    while (at) {
        do at--;
        while (at && ((unsigned char)l->text[at] & 0xc0) == 0x80);
        if (llm_kind_of(llm_character(l->text + at, l->bytes - at, &length)) != LLM_KIND_MARK) break;
    }
    return at;
}
static size_t after(const line *l, size_t at) {
    size_t length;
    if (at < l->bytes) llm_character(l->text + at, l->bytes - at, &length), at += length;
    while (at < l->bytes && llm_kind_of(llm_character(l->text + at, l->bytes - at, &length)) == LLM_KIND_MARK) at += length;
    return at;
}

static size_t word_before(const line *l) {
    size_t at = l->at;
    while (at && l->text[at - 1] == ' ') at--;
    while (at && l->text[at - 1] != ' ') at--;
    return at;
}

static void replace(line *l, const char *text, size_t bytes) {
    l->at = l->bytes = 0;
    insert(l, text, bytes);
}

/* ---- showing ---- */

/* Columns that a character takes: none for marks, two for those of East Asia and for pictures. */
static int columns(uint32_t code) {
    static const uint32_t wide[][2] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3}, {0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60},
                                       {0xffe0, 0xffe6}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
    if (llm_kind_of(code) == LLM_KIND_MARK) return 0;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (code >= wide[i][0] && code <= wide[i][1]) return 2;
    return 1;
}

/* The part around the cursor that fits in one row of the terminal. */
static void show(const line *l, const char *prompt) {
    int width = platform_columns() > 20 ? platform_columns() : 80, room = width - (int)strlen(prompt) - 1;
    size_t from = l->at, length;
    int left = 0, used = 0;
    while (from) { /* as much in front of it as there is room for */
        size_t start = before(l, from);
        int more = columns(llm_character(l->text + start, l->bytes - start, &length));
        if (left + more > room) break;
        left += more, from = start;
    }
    printf("\r%s", prompt);
    for (size_t at = from; at < l->bytes; at += length) {
        uint32_t code = llm_character(l->text + at, l->bytes - at, &length);
        if ((used += columns(code)) > room) break;
        if (code == '\n') putchar('|');
        else if (code < 32 || code == 127 || code == UINT32_MAX) putchar('?');
        else fwrite(l->text + at, 1, length, stdout);
    }
    printf("\033[K\r\033[%dC", (int)strlen(prompt) + left);
    fflush(stdout);
}

/* ---- keys ---- */

enum { KEY_NONE = 256, KEY_LEFT, KEY_RIGHT, KEY_UP, KEY_DOWN, KEY_HOME, KEY_END, KEY_DELETE, KEY_PASTE, KEY_PASTED };

/* A signal may come just before the wait begins, and then does not end it: so *stop is looked at now and then. */
int line_wait(const volatile sig_atomic_t *stop) {
    while (!*stop)
        if (platform_input_ready(100) != 0) return 1;
    return 0;
}

/* The next byte; -1 at the end, -2 when interrupted. */
static int byte(const volatile sig_atomic_t *stop) {
    unsigned char c;
    int64_t got;
    do {
        if (!line_wait(stop)) return -2;
        got = platform_input(&c, 1);
    } while (got < 0 && errno == EINTR);
    return got == 1 ? c : -1;
}

/* What follows an escape. */
static int escape(const volatile sig_atomic_t *stop) {
    static const struct { const char *letters; int key; } keys[] = {{"D", KEY_LEFT}, {"C", KEY_RIGHT}, {"A", KEY_UP}, {"B", KEY_DOWN}, {"H", KEY_HOME}, {"F", KEY_END},
        {"1~", KEY_HOME}, {"7~", KEY_HOME}, {"4~", KEY_END}, {"8~", KEY_END}, {"3~", KEY_DELETE}, {"200~", KEY_PASTE}, {"201~", KEY_PASTED}};
    char letters[8] = {0};
    int c = byte(stop);
    if (c != '[' && c != 'O') return c < 0 ? c : KEY_NONE;
    for (size_t i = 0; i + 1 < sizeof letters; i++) {
        if ((c = byte(stop)) < 0) return c;
        letters[i] = (char)c;
        if (c >= 64) break;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(letters, keys[i].letters) == 0) return keys[i].key;
    return KEY_NONE;
}

static void remember(const line *l) {
    size_t n = history.count;
    if (!l->bytes || (n && history.bytes[n - 1] == l->bytes && memcmp(history.text[n - 1], l->text, l->bytes) == 0)) return;
    char *copy = malloc(l->bytes);
    if (!copy) return;
    memcpy(copy, l->text, l->bytes);
    if (n == KEPT) {
        free(history.text[0]);
        memmove(history.text, history.text + 1, (KEPT - 1) * sizeof *history.text);
        memmove(history.bytes, history.bytes + 1, (KEPT - 1) * sizeof *history.bytes);
        n--;
    }
    history.text[n] = copy, history.bytes[n] = l->bytes;
    history.count = n + 1;
}

/* -1 to go on, else what line_read returns. */
static int press(line *l, int key, size_t *which, int pasting) {
    char c = (char)key;
    if (pasting && key < 256 && key != 4) return insert(l, key == '\r' ? "\n" : &c, 1) == 0 ? -1 : LINE_END;
    switch (key) {
    case '\r': case '\n': return LINE_TEXT;
    case 3: return LINE_INTERRUPTED;
    case 4:
        if (!l->bytes) return LINE_END;
        delete_to(l, after(l, l->at));
        break;
    case KEY_DELETE: delete_to(l, after(l, l->at)); break;
    case 8: case 127: delete_to(l, before(l, l->at)); break;
    case 21: delete_to(l, 0); break;           /* Ctrl-U */
    case 11: delete_to(l, l->bytes); break;    /* Ctrl-K */
    case 23: delete_to(l, word_before(l)); break; /* Ctrl-W */
    case 12: fputs("\033[H\033[2J", stdout); break; /* Ctrl-L */
    case 1: case KEY_HOME: l->at = 0; break;
    case 5: case KEY_END: l->at = l->bytes; break;
    case 2: case KEY_LEFT: l->at = before(l, l->at); break;
    case 6: case KEY_RIGHT: l->at = after(l, l->at); break;
    case 16: case KEY_UP:
        if (*which) --*which, replace(l, history.text[*which], history.bytes[*which]);
        break;
    case 14: case KEY_DOWN:
        if (*which < history.count && ++*which < history.count) replace(l, history.text[*which], history.bytes[*which]);
        else replace(l, "", 0);
        break;
    default:
        if (key < 256 && (key >= 32 || key == '\t') && insert(l, &c, 1) != 0) return LINE_END;
    }
    return -1;
}

int line_read(const char *prompt, const volatile sig_atomic_t *stop, char **text, size_t *bytes) {
    line l = {NULL, 0, 0, 0};
    size_t which = history.count;
    int result = -1, pasting = 0;
    if (insert(&l, "", 0) != 0 || platform_raw_input(1) != 0) {
        free(l.text);
        return LINE_END;
    }
    fputs("\033[?2004h", stdout); /* what is pasted comes in brackets */
    while (result < 0) {
        if (!pasting) show(&l, prompt);
        int key = byte(stop);
        if (key == 27) key = escape(stop);
        if (key == -1) result = LINE_END;
        else if (key == -2) result = LINE_INTERRUPTED;
        else if (key == KEY_PASTE || key == KEY_PASTED) pasting = key == KEY_PASTE;
        else result = press(&l, key, &which, pasting);
    }
    l.at = l.bytes;
    show(&l, prompt);
    fputs("\033[?2004l\n", stdout);
    fflush(stdout);
    platform_raw_input(0);
    if (result == LINE_TEXT) {
        remember(&l);
        *text = l.text, *bytes = l.bytes;
    } else free(l.text);
    return result;
}
