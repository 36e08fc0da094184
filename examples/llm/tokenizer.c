#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 stands for a space inside pieces */

static uint32_t hash(const char *text, size_t bytes) { /* FNV-1a */
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h ^ h >> 15;
}

static int64_t find(const llm_tokenizer *t, const char *text, size_t bytes) {
    for (uint32_t slot = hash(text, bytes) & t->slot_mask; t->slots[slot]; slot = (slot + 1) & t->slot_mask) {
        uint32_t id = t->slots[slot] - 1;
        if (t->pieces[id].bytes == bytes && memcmp(t->pieces[id].text, text, bytes) == 0) return id;
    }
    return -1;
}

/* 0 on success. Half of the slots stay free, so long runs of others are no accident but made to take time. */
static int add(llm_tokenizer *t, uint32_t id) {
    uint32_t slot = hash(t->pieces[id].text, t->pieces[id].bytes) & t->slot_mask;
    if (find(t, t->pieces[id].text, t->pieces[id].bytes) >= 0) return 0; /* the first of equal pieces counts */
    for (int met = 0; t->slots[slot]; met++, slot = (slot + 1) & t->slot_mask)
        if (met > 240) return -1;
    t->slots[slot] = id + 1;
    return 0;
}

/* The value of "<0xAB>", or -1. */
static int byte_of(llm_string piece) {
    char copy[7] = {0}, *end;
    if (piece.bytes != 6 || memcmp(piece.text, "<0x", 3) != 0 || piece.text[5] != '>') return -1;
    memcpy(copy, piece.text, 6);
    long value = strtol(copy + 3, &end, 16);
    return end == copy + 5 ? (int)value : -1;
}

static int32_t special(const llm_source *source, const char *key, uint32_t count) {
    double id = llm_number(source, key, -1);
    return id >= 0 && id < (double)count ? (int32_t)id : -1;
}

int llm_tokenizer_load(llm_tokenizer *t, const llm_source *source, llm_error *error) {
    llm_string model = llm_text(source, "tokenizer.ggml.model");
    const llm_meta *pieces = llm_find_meta(source, "tokenizer.ggml.tokens");
    const llm_meta *scores = llm_find_meta(source, "tokenizer.ggml.scores");
    const llm_meta *types = llm_find_meta(source, "tokenizer.ggml.token_type");
    memset(t, 0, sizeof *t);
    if (!llm_string_is(model, "llama"))
        return llm_fail(error, "%s: expected tokenizer.ggml.model to be \"llama\" (SentencePiece BPE), found \"%.*s\"",
                        source->path, (int)(model.bytes < 40 ? model.bytes : 40), model.text ? model.text : "");
    if (!pieces || !pieces->strings || !pieces->count || pieces->count > 1 << 24)
        return llm_fail(error, "%s: expected tokenizer.ggml.tokens, 1 to 16777216 strings", source->path);
    if (!scores || !scores->numbers || scores->count != pieces->count)
        return llm_fail(error, "%s: expected tokenizer.ggml.scores, %llu numbers", source->path,
                        (unsigned long long)pieces->count);
    if (types && (!types->numbers || types->count != pieces->count))
        return llm_fail(error, "%s: expected tokenizer.ggml.token_type, %llu numbers", source->path,
                        (unsigned long long)pieces->count);
    t->count = (uint32_t)pieces->count;
    t->pieces = pieces->strings;
    for (t->slot_mask = 15; t->slot_mask < 2 * t->count; ) t->slot_mask = 2 * t->slot_mask + 1;
    t->scores = malloc(t->count * sizeof *t->scores);
    t->types = malloc(t->count);
    t->slots = calloc((size_t)t->slot_mask + 1, sizeof *t->slots);
    if (!t->scores || !t->types || !t->slots) {
        llm_tokenizer_free(t);
        return llm_fail(error, "%s: out of memory", source->path);
    }
    t->bos = special(source, "tokenizer.ggml.bos_token_id", t->count);
    t->eos = special(source, "tokenizer.ggml.eos_token_id", t->count);
    t->unknown = special(source, "tokenizer.ggml.unknown_token_id", t->count);
    t->add_bos = llm_number(source, "tokenizer.ggml.add_bos_token", 1) != 0 && t->bos >= 0;
    t->add_space = llm_number(source, "tokenizer.ggml.add_space_prefix", 1) != 0;
    for (int b = 0; b < 256; b++) t->bytes[b] = t->unknown >= 0 ? (uint32_t)t->unknown : 0;
    for (uint32_t i = 0; i < t->count; i++) {
        double type = types ? llm_meta_element(types, i) : NORMAL;
        int byte = byte_of(t->pieces[i]);
        t->scores[i] = (float)llm_meta_element(scores, i);
        t->types[i] = type >= NORMAL && type <= BYTE ? (unsigned char)type : NORMAL;
        if (!types && byte >= 0) t->types[i] = BYTE;
        if (t->types[i] == BYTE && byte >= 0) t->bytes[byte] = i;
        if ((t->types[i] == NORMAL || t->types[i] == USER_DEFINED) && t->pieces[i].bytes && add(t, i) != 0) {
            llm_tokenizer_free(t);
            return llm_fail(error, "%s: tokenizer.ggml.tokens: expected pieces that are not made to collide", source->path);
        }
    }
    return 0;
}

void llm_tokenizer_free(llm_tokenizer *t) {
    free(t->scores);
    free(t->types);
    free(t->slots);
    memset(t, 0, sizeof *t);
}

/* ---- encoding: symbols in a list, candidate merges in a heap ---- */

typedef struct symbol {
    const char *text;
    size_t bytes; /* 0: merged into the one before */
    ptrdiff_t previous, next;
} symbol;

typedef struct merge {
    float score;
    ptrdiff_t left, right;
    size_t bytes; /* of both when the merge was found: tells whether it still stands */
} merge;

typedef struct heap {
    merge *items;
    size_t count;
} heap;

/* Best score first, the leftmost of equals. */
static int before(const merge *a, const merge *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(heap *h, merge item) {
    size_t i = h->count++;
    for (; i && before(&item, &h->items[(i - 1) / 2]); i = (i - 1) / 2) h->items[i] = h->items[(i - 1) / 2];
    h->items[i] = item;
}

static merge heap_pop(heap *h) {
    merge top = h->items[0], last = h->items[--h->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(&h->items[child + 1], &h->items[child])) child++;
        if (!before(&h->items[child], &last)) break;
        h->items[i] = h->items[child];
    }
    h->items[i] = last;
    return top;
}

static void consider(const llm_tokenizer *t, const symbol *symbols, heap *h, ptrdiff_t left, ptrdiff_t right) {
    if (left < 0 || right < 0) return;
    size_t bytes = symbols[left].bytes + symbols[right].bytes; /* neighbours in memory too */
    int64_t id = find(t, symbols[left].text, bytes);
    merge item = {id >= 0 ? t->scores[id] : 0, left, right, bytes};
    if (id >= 0) heap_push(h, item);
}

/* Length of the UTF-8 character at `text`; 1 where it is not well formed. */
static size_t character(const char *text, size_t bytes) {
    unsigned char c = (unsigned char)text[0];
    size_t length = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;
    if (length > bytes) return 1;
    for (size_t i = 1; i < length; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80) return 1;
    return length;
}

int64_t llm_encode(const llm_tokenizer *t, const char *text, size_t bytes, uint32_t **ids) {
    *ids = NULL;
    if (!bytes) return 0;
    if (bytes > SIZE_MAX / 256) return -1;
    /* Every space becomes three bytes; each merge adds at most two candidates to the first n - 1. */
    char *marked = malloc(3 * bytes + 3);
    symbol *symbols = malloc((bytes + 1) * sizeof *symbols);
    heap h = {malloc(3 * (bytes + 1) * sizeof *h.items), 0};
    uint32_t *out = malloc((3 * bytes + 3) * sizeof *out);
    if (!marked || !symbols || !h.items || !out) {
        free(marked), free(symbols), free(h.items), free(out);
        return -1;
    }
    size_t length = 0;
    ptrdiff_t count = 0;
    if (t->add_space) memcpy(marked, space_mark, 3), length = 3;
    for (size_t i = 0; i < bytes; i++)
        if (text[i] == ' ') memcpy(marked + length, space_mark, 3), length += 3;
        else marked[length++] = text[i];
    for (size_t at = 0; at < length; count++) {
        symbol s = {marked + at, character(marked + at, length - at), count - 1, count + 1};
        symbols[count] = s;
        at += s.bytes;
    }
    symbols[count - 1].next = -1;
    for (ptrdiff_t i = 0; i + 1 < count; i++) consider(t, symbols, &h, i, i + 1);
    while (h.count) {
        merge best = heap_pop(&h);
        symbol *left = &symbols[best.left], *right = &symbols[best.right];
        if (!left->bytes || !right->bytes || left->bytes + right->bytes != best.bytes || left->next != best.right)
            continue; /* one side has been merged since */
        left->bytes += right->bytes;
        right->bytes = 0;
        left->next = right->next;
        if (right->next >= 0) symbols[right->next].previous = best.left;
        consider(t, symbols, &h, left->previous, best.left);
        consider(t, symbols, &h, best.left, left->next);
    }
    int64_t made = 0;
    for (ptrdiff_t i = 0; i >= 0; i = symbols[i].next) {
        int64_t id = find(t, symbols[i].text, symbols[i].bytes);
        if (id >= 0) out[made++] = (uint32_t)id;
        else
            for (size_t j = 0; j < symbols[i].bytes; j++) out[made++] = t->bytes[(unsigned char)symbols[i].text[j]];
    }
    free(marked), free(symbols), free(h.items);
    *ids = out;
    return made;
}

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
    for (size_t i = 0; i < piece.bytes; ) {
        int space = piece.bytes - i >= 3 && memcmp(piece.text + i, space_mark, 3) == 0;
        int dropped = first && i == 0 && space && t->add_space;
        if (!dropped && length < room) out[length++] = space ? ' ' : piece.text[i];
        i += space ? 3 : 1;
    }
    return length;
}
