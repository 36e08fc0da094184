#include "tokenizer_tables.h"
#include "nfc.h"

#include <math.h>

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 stands for a space inside pieces */

int llm_token_ends(const llm_tokenizer *t, int64_t id) {
    for (uint32_t i = 0; i < t->end_count; i++)
        if (t->ends[i] == id) return 1;
    return 0;
}

/* ---- merging: symbols in a list, candidate merges in a heap ---- */

typedef struct symbol {
    const char *text;
    size_t bytes; /* 0: merged into the one before */
    ptrdiff_t previous, next;
    int64_t id; /* -1: no piece */
} symbol;

typedef struct merge {
    float score;
    ptrdiff_t left, right;
    size_t bytes; /* of both when the merge was found: tells whether it still stands */
    int64_t id;
} merge;

/* Room for the longest stretch that is merged at once. */
typedef struct scratch {
    symbol *symbols;
    merge *heap;
    size_t heap_count;
} scratch;

/* Best score first, the leftmost of equals. */
static int before(const merge *a, const merge *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(scratch *s, merge item) {
    merge *h = s->heap;
    size_t i = s->heap_count++;
    for (; i && before(&item, &h[(i - 1) / 2]); i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = item;
}

static merge heap_pop(scratch *s) {
    merge *h = s->heap, top = h[0], last = h[--s->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->heap_count; i = child) {
        if (child + 1 < s->heap_count && before(&h[child + 1], &h[child])) child++;
        if (!before(&h[child], &last)) break;
        h[i] = h[child];
    }
    h[i] = last;
    return top;
}

static void consider(const llm_tokenizer *t, scratch *s, ptrdiff_t left, ptrdiff_t right) {
    if (left < 0 || right < 0) return;
    const symbol *a = &s->symbols[left], *b = &s->symbols[right];
    merge item = {0, left, right, a->bytes + b->bytes, -1};
    if (t->merges) {
        const llm_merge *found = find_merge(t, a->id, b->id);
        if (found) item.id = found->made, item.score = -(float)found->rank; /* below 2^24: exact */
    } else {
        item.id = find(t, a->text, item.bytes); /* neighbours in memory too */
        if (item.id >= 0) item.score = t->scores[item.id];
    }
    if (item.id >= 0) heap_push(s, item);
}

/* Length of the UTF-8 character at `text`; 1 where it is not well formed. */
static size_t character(const char *text, size_t bytes) {
    size_t length;
    llm_character(text, bytes, &length);
    return length;
}

/* Merges one stretch and appends its ids. Each merge adds at most two candidates to the first n - 1. */
static size_t merge_all(const llm_tokenizer *t, scratch *s, const char *text, size_t bytes, uint32_t *out) {
    ptrdiff_t count = 0;
    size_t made = 0;
    s->heap_count = 0;
    for (size_t at = 0; at < bytes; count++) {
        size_t length = t->kind == LLM_TOKENS_BYTES ? 1 : character(text + at, bytes - at);
        symbol new = {text + at, length, count - 1, count + 1, find(t, text + at, length)};
        s->symbols[count] = new;
        at += length;
    }
    s->symbols[count - 1].next = -1;
    for (ptrdiff_t i = 0; i + 1 < count; i++) consider(t, s, i, i + 1);
    while (s->heap_count) {
        merge best = heap_pop(s);
        symbol *left = &s->symbols[best.left], *right = &s->symbols[best.right];
        if (!left->bytes || !right->bytes || left->bytes + right->bytes != best.bytes || left->next != best.right)
            continue; /* one side has been merged since */
        left->bytes += right->bytes;
        left->id = best.id;
        right->bytes = 0;
        left->next = right->next;
        if (right->next >= 0) s->symbols[right->next].previous = best.left;
        consider(t, s, left->previous, best.left);
        consider(t, s, best.left, left->next);
    }
    for (ptrdiff_t i = 0; i >= 0; i = s->symbols[i].next) {
        const symbol *left = &s->symbols[i];
        if (left->id >= 0) out[made++] = (uint32_t)left->id;
        else
            for (size_t j = 0; j < left->bytes; j++) out[made++] = t->bytes[(unsigned char)left->text[j]];
    }
    return made;
}

/* ---- unigram: Viterbi over the ends of pieces ---- */

typedef struct arc {
    double score;
    size_t from;
    int64_t id; /* -1: a character that no piece covers */
} arc;

static size_t best_cut(const llm_tokenizer *t, arc *arcs, const char *text, size_t bytes, uint32_t *out) {
    int has_bytes = t->types[t->bytes[0]] == BYTE;
    size_t made = 0;
    for (size_t i = 1; i <= bytes; i++) arcs[i].score = -INFINITY;
    arcs[0].score = 0;
    for (size_t at = 0, length; at < bytes; at += length) {
        uint32_t h = hash_start();
        int single = 0;
        length = character(text + at, bytes - at);
        for (size_t end = at; end < bytes && end - at < t->longest; ) {
            h = hash_byte(h, text[end++]);
            int64_t id = find_hashed(t, h, text + at, end - at);
            if (id < 0) continue;
            single |= end - at == length;
            double score = arcs[at].score + (double)t->scores[id];
            if (score > arcs[end].score) arcs[end].score = score, arcs[end].from = at, arcs[end].id = id;
        }
        double score = arcs[at].score + (double)t->least - 10; /* SentencePiece's penalty */
        if (!single && score > arcs[at + length].score)
            arcs[at + length].score = score, arcs[at + length].from = at, arcs[at + length].id = -1;
    }
    /* Backwards along the best path, then turned round. Unknown characters in a row are one unknown token. */
    for (size_t end = bytes; end; end = arcs[end].from) {
        size_t from = arcs[end].from;
        if (arcs[end].id >= 0) out[made++] = (uint32_t)arcs[end].id;
        else if (has_bytes)
            for (size_t i = end; i > from; i--) out[made++] = t->bytes[(unsigned char)text[i - 1]];
        else if (!made || out[made - 1] != t->bytes[0]) out[made++] = t->bytes[0];
    }
    for (size_t i = 0; i < made / 2; i++) {
        uint32_t swap = out[i];
        out[i] = out[made - 1 - i], out[made - 1 - i] = swap;
    }
    return made;
}

/* ---- encoding ---- */

/* Spaces as pieces have them; `to` has room for three bytes each and one more in front. */
static size_t mark_spaces(const llm_tokenizer *t, const char *text, size_t bytes, int first, char *to) {
    size_t length = 0, end = bytes, at = 0;
    if (t->single_spaces) {
        while (at < end && text[at] == ' ') at++;
        while (end > at && text[end - 1] == ' ') end--;
    }
    int there = end > at && (text[at] == ' ' || (end - at >= 3 && memcmp(text + at, space_mark, 3) == 0));
    if (t->add_space && first && end > at && !(there && t->one_space)) memcpy(to, space_mark, 3), length = 3;
    for (; at < end; at++)
        if (text[at] != ' ') to[length++] = text[at];
        else if (!t->single_spaces || text[at - 1] != ' ') memcpy(to + length, space_mark, 3), length += 3;
    return length;
}

/* A stretch of text without marks. `room`: for the text with spaces marked; `scratch` and `arcs` for as many bytes. */
static size_t encode_text(const llm_tokenizer *t, const char *text, size_t bytes, int first, char *room, scratch *s, arc *arcs,
                          uint32_t *out) {
    size_t made = 0;
    if (t->kind != LLM_TOKENS_BYTES) {
        size_t length = mark_spaces(t, text, bytes, first, room);
        if (!length) return 0;
        return t->kind == LLM_TOKENS_UNIGRAM ? best_cut(t, arcs, room, length, out) : merge_all(t, s, room, length, out);
    }
    if (t->add_space && first && !(t->one_space && text[0] == ' ')) {
        room[0] = ' ';
        memcpy(room + 1, text, bytes);
        text = room, bytes++;
    }
    size_t ends[LLM_MOST_CUTS] = {0};
    for (size_t at = 0, length; at < bytes; at += length) {
        length = llm_cut(&t->cuts, text, bytes, at, ends) - at;
        int64_t id = t->whole_words ? find(t, text + at, length) : -1;
        if (id >= 0 && t->types[id] == NORMAL) out[made++] = (uint32_t)id;
        else made += merge_all(t, s, text + at, length, out + made);
    }
    return made;
}

/* The first of marks [from, to), which agree in `at` bytes, whose byte there is `least` or more; none is below 0. */
static uint32_t mark_from(const llm_tokenizer *t, uint32_t from, uint32_t to, size_t at, int least) {
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        const llm_string *mark = &t->pieces[t->marks[middle]];
        if (mark->bytes > at && (unsigned char)mark->text[at] >= least) to = middle;
        else from = middle + 1;
    }
    return from;
}

/* The mark that stands at `text`, the longest of several; -1 if there is none. */
static int64_t mark_at(const llm_tokenizer *t, const char *text, size_t bytes, int all) {
    unsigned char c = (unsigned char)text[0];
    uint32_t from = t->marks_from[c], to = t->marks_from[c + 1];
    int64_t found = -1;
    for (size_t at = 1; from < to; at++) { /* these agree with the text in `at` bytes */
        if (t->pieces[t->marks[from]].bytes == at && (all || t->types[t->marks[from]] == USER_DEFINED)) found = t->marks[from];
        if (at == bytes) break;
        c = (unsigned char)text[at];
        from = mark_from(t, from, to, at, c);
        to = mark_from(t, from, to, at, c + 1);
    }
    return found;
}

/* Where the spaces that end at `at` begin, but not before `from`; and where those that begin there end. */
static size_t spaces_before(const char *text, size_t from, size_t at) {
    while (at > from) {
        size_t start = at - 1, length;
        while (start > from && at - start < 4 && ((unsigned char)text[start] & 0xc0) == 0x80) start--;
        if (llm_classify(llm_character(text + start, at - start, &length)) != LLM_SPACE || length != at - start) break;
        at = start;
    }
    return at;
}
static size_t spaces_after(const char *text, size_t bytes, size_t at) {
    size_t length;
    while (at < bytes && llm_classify(llm_character(text + at, bytes - at, &length)) == LLM_SPACE) at += length;
    return at;
}

/* Whether the character at `at`, or the one that ends there (`before`), belongs to a word. */
static int in_word(const char *text, size_t bytes, size_t at, int before) {
    size_t start = at, length;
    if (before ? at == 0 : at == bytes) return 0;
    if (before)
        for (start--; start && at - start < 4 && ((unsigned char)text[start] & 0xc0) == 0x80; ) start--;
    uint32_t code = llm_character(text + start, bytes - start, &length);
    llm_kind kind = llm_kind_of(code);
    return code == '_' || kind == LLM_KIND_MARK || (kind >= LLM_KIND_UPPER && kind <= LLM_KIND_OTHER_LETTER) || kind == LLM_KIND_DIGIT;
}

/* The mark at `at` with its habits: where the text in front of it ends, and where that behind it begins. 0 if it does not
 * count there. */
static int stands(const llm_tokenizer *t, const char *text, size_t bytes, size_t from, size_t at, int joined, int64_t mark, size_t *before, size_t *after) {
    int habits = t->habits ? t->habits[mark] : 0;
    *before = at;
    *after = at + t->pieces[mark].bytes;
    if ((habits & LLM_MARK_WORD) && (in_word(text, bytes, at, 1) || in_word(text, bytes, *after, 0))) return 0;
    if (habits & LLM_MARK_SPACED) {
        int first = at == from && !joined && t->add_space && (!from || !t->first_space);
        if (!first && !(at > from && text[at - 1] == ' ')) return 0;
        if (!first) *before = at - 1;
        return 1; /* spaces are marked by then, and no spaces any more */
    }
    if (habits & LLM_MARK_LEFT) *before = spaces_before(text, from, at);
    if (habits & LLM_MARK_RIGHT) *after = spaces_after(text, bytes, *after);
    return 1;
}

static int64_t encode_parts(const llm_tokenizer *t, const char *text, const llm_part *parts, size_t count, uint32_t **ids) {
    size_t bytes = 0;
    *ids = NULL;
    for (size_t i = 0; i < count; i++) bytes += parts[i].bytes;
    if (!bytes) return 0;
    if (bytes > SIZE_MAX / 1024) return -1;
    /* Every space becomes three bytes, but it is one character of them; a mark is no shorter than one either. */
    int unigram = t->kind == LLM_TOKENS_UNIGRAM;
    size_t most = bytes + 2, made = 0;
    char *room = malloc(3 * bytes + 4);
    scratch s = {unigram ? NULL : malloc(most * sizeof *s.symbols), unigram ? NULL : malloc(3 * most * sizeof *s.heap), 0};
    arc *arcs = unigram ? malloc((3 * bytes + 5) * sizeof *arcs) : NULL;
    uint32_t *out = malloc((4 * bytes + 4) * sizeof *out); /* a mark, and a space's bytes before the text after it */
    int failed = !room || !out || (unigram ? !arcs : !s.symbols || !s.heap);
    size_t end = parts->bytes; /* of the part that `at` is in: a mark does not go beyond it */
    int joined = 0; /* to the mark in front, without a space of the tokenizer's */
    for (size_t from = 0, at = 0, before, after; from < bytes && !failed; from = at = after) {
        int64_t mark = -1;
        before = after = bytes;
        for (; at < bytes; at++) {
            while (at >= end) end += (++parts)->bytes;
            if ((mark = mark_at(t, text + at, end - at, parts->marked)) >= 0 && stands(t, text, bytes, from, at, joined, mark, &before, &after)) break;
            mark = -1, before = after = bytes;
        }
        if (before > from) made += encode_text(t, text + from, before - from, !joined && (!from || !t->first_space), room, &s, arcs, out + made);
        if (mark >= 0) out[made++] = (uint32_t)mark;
        joined = mark >= 0 && t->habits && (t->habits[mark] & LLM_MARK_SPACED);
    }
    free(room), free(s.symbols), free(s.heap), free(arcs);
    if (failed) free(out);
    else *ids = out;
    return failed ? -1 : (int64_t)made;
}

/* Composes each part first where the tokenizer wants that. */
int64_t llm_encode_parts(const llm_tokenizer *t, const char *text, const llm_part *parts, size_t count, uint32_t **ids) {
    size_t bytes = 0, used = 0;
    for (size_t i = 0; i < count; i++) bytes += parts[i].bytes;
    if (!t->composed || bytes > SIZE_MAX / 1024 || !llm_nfc_needed(text, bytes)) return encode_parts(t, text, parts, count, ids);
    llm_part *own = malloc((count + 1) * sizeof *own);
    char *all = malloc(3 * bytes + 1);
    int failed = !own || !all;
    for (size_t i = 0, at = 0; i < count && !failed; at += parts[i++].bytes) {
        char *composed = llm_nfc(text + at, parts[i].bytes, &own[i].bytes);
        failed = !composed;
        if (failed) break;
        memcpy(all + used, composed, own[i].bytes);
        used += own[i].bytes;
        own[i].marked = parts[i].marked;
        free(composed);
    }
    *ids = NULL;
    int64_t made = failed ? -1 : encode_parts(t, all, own, count, ids);
    free(own), free(all);
    return made;
}

int64_t llm_encode(const llm_tokenizer *t, const char *text, size_t bytes, uint32_t **ids) {
    const llm_part part = {bytes, 0};
    return llm_encode_parts(t, text, &part, 1, ids);
}

int64_t llm_encode_marked(const llm_tokenizer *t, const char *text, size_t bytes, uint32_t **ids) {
    const llm_part part = {bytes, 1};
    return llm_encode_parts(t, text, &part, 1, ids);
}

/* ---- decoding ---- */

size_t llm_token_text(const llm_tokenizer *t, uint32_t id, int first, char *out, size_t room) {
    size_t length = 0;
    if (id >= t->count || t->types[id] == CONTROL || t->types[id] == UNKNOWN) return 0;
    llm_string piece = t->pieces[id];
    if (t->types[id] == BYTE) {
        int byte = byte_of(piece);
        if (byte < 0 || !room) return 0;
        out[0] = (char)byte;
        return 1;
    }
    int marked = t->kind != LLM_TOKENS_BYTES; /* spaces are */
    for (size_t i = 0; i < piece.bytes; ) {
        int space = marked ? piece.bytes - i >= 3 && memcmp(piece.text + i, space_mark, 3) == 0 : piece.text[i] == ' ';
        int dropped = first && i == 0 && space && t->add_space;
        if (!dropped && length < room) out[length++] = space ? ' ' : piece.text[i];
        i += space && marked ? 3 : 1;
    }
    return length;
}

int64_t llm_token_named(const llm_tokenizer *t, const char *name) {
    size_t bytes = strlen(name);
    int64_t id = bytes ? mark_at(t, name, bytes, 1) : -1;
    if (id < 0 || t->pieces[id].bytes != bytes) id = find(t, name, bytes);
    return id;
}
