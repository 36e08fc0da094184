#include "tokenizer.h"
#include "marks.h"
#include "nfc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

enum { LONGEST_PIECE = 1024 }; /* of those that are looked for at every byte of a text */

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 stands for a space inside pieces */

/* ---- pieces by their text ---- */

static const uint32_t HASH = 2166136261u; /* FNV-1a */
static uint32_t hash_byte(uint32_t h, char c) { return (h ^ (unsigned char)c) * 16777619u; }
static uint32_t slot_of(uint32_t h) { return h ^ h >> 15; }

/* Half of the slots stay free: a long run of others is no accident, but made to take time. None is taken further than
 * this from where it belongs, and none is looked for there. */
enum { LONGEST_RUN = 240 };

static int64_t find_hashed(const llm_tokenizer *t, uint32_t h, const char *text, size_t bytes) {
    uint32_t slot = slot_of(h) & t->slot_mask;
    for (int met = 0; met <= LONGEST_RUN && t->slots[slot]; met++, slot = (slot + 1) & t->slot_mask) {
        uint32_t id = t->slots[slot] - 1;
        if (t->pieces[id].bytes == bytes && memcmp(t->pieces[id].text, text, bytes) == 0) return id;
    }
    return -1;
}

static uint32_t hash(const char *text, size_t bytes) {
    uint32_t h = HASH;
    for (size_t i = 0; i < bytes; i++) h = hash_byte(h, text[i]);
    return h;
}

static int64_t find(const llm_tokenizer *t, const char *text, size_t bytes) {
    return find_hashed(t, hash(text, bytes), text, bytes);
}

/* 0 on success. */
static int add(llm_tokenizer *t, uint32_t id) {
    uint32_t slot = slot_of(hash(t->pieces[id].text, t->pieces[id].bytes)) & t->slot_mask;
    if (find(t, t->pieces[id].text, t->pieces[id].bytes) >= 0) return 0; /* the first of equal pieces counts */
    for (int met = 0; t->slots[slot]; met++, slot = (slot + 1) & t->slot_mask)
        if (met == LONGEST_RUN) return -1;
    t->slots[slot] = id + 1;
    if (t->pieces[id].bytes > t->longest) t->longest = t->pieces[id].bytes;
    return 0;
}

/* ---- pairs that merge ---- */

typedef struct llm_merge {
    uint32_t left, right, made, rank; /* rank 0: a free slot */
} llm_merge;

static uint32_t pair_slot(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static const llm_merge *find_merge(const llm_tokenizer *t, int64_t left, int64_t right) {
    if (left < 0 || right < 0) return NULL;
    uint32_t slot = pair_slot((uint32_t)left, (uint32_t)right) & t->merge_mask;
    for (int met = 0; met <= LONGEST_RUN && t->merges[slot].rank; met++, slot = (slot + 1) & t->merge_mask)
        if (t->merges[slot].left == (uint32_t)left && t->merges[slot].right == (uint32_t)right) return &t->merges[slot];
    return NULL;
}

/* ---- loading ---- */

/* The value of "<0xAB>", or -1. */
static int byte_of(llm_string piece) {
    char copy[7] = {0}, *end;
    if (piece.bytes != 6 || memcmp(piece.text, "<0x", 3) != 0 || piece.text[5] != '>') return -1;
    memcpy(copy, piece.text, 6);
    long value = strtol(copy + 3, &end, 16);
    return end == copy + 5 ? (int)value : -1;
}

/* GPT-2 writes bytes as visible characters: printable ones as they are, the other 68 as U+0100 and on. Turns the
 * characters of a piece into bytes at `to` and returns how many; of a piece with any other character, 0. */
static size_t visible_to_bytes(llm_string piece, char *to) {
    size_t made = 0, length;
    for (size_t at = 0; at < piece.bytes; at += length) {
        uint32_t code = llm_character(piece.text + at, piece.bytes - at, &length);
        uint32_t byte = code < 256 + 68 ? code : 256;
        if (code >= 256 && code < 256 + 33) byte = code - 256;               /* 0 to 32 */
        else if (code >= 256 + 33 && code < 256 + 67) byte = code - 256 - 33 + 127; /* 127 to 160 */
        else if (code == 256 + 67) byte = 173;
        else if (byte < 33 || (byte > 126 && byte < 161) || byte == 173) byte = 256;
        if (byte > 255) return 0;
        to[made++] = (char)byte;
    }
    return made;
}

static int32_t special(const llm_source *source, const char *key, uint32_t count) {
    double id = llm_number(source, key, -1);
    return id >= 0 && id < (double)count ? (int32_t)id : -1;
}

static void add_end(llm_tokenizer *t, double id) {
    if (id >= 0 && id < (double)t->count && t->end_count < LLM_MOST_ENDS && !llm_token_ends(t, (int64_t)id))
        t->ends[t->end_count++] = (uint32_t)id;
}

int llm_token_ends(const llm_tokenizer *t, int64_t id) {
    for (uint32_t i = 0; i < t->end_count; i++)
        if (t->ends[i] == id) return 1;
    return 0;
}

/* What ends a text: what the metadata name, one or several, and marks whose names say so. */
static void load_ends(llm_tokenizer *t, const llm_source *source) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                                       "tokenizer.ggml.eos_token_ids"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        const llm_meta *meta = llm_find_meta(source, keys[k]);
        for (uint64_t i = 0; meta && i < meta->count && i < LLM_MOST_ENDS && meta->numbers; i++) add_end(t, llm_meta_element(meta, i));
    }
    for (uint32_t i = 0; i < t->count; i++)
        if (t->types[i] == CONTROL && llm_mark_ends(t->pieces[i])) add_end(t, i);
}

/* Cuts "left right" at its space. A piece may start with one. */
static int load_merge(llm_tokenizer *t, llm_string text, uint32_t rank, char *room) {
    llm_string parts[2];
    size_t at = 1, total = 0;
    int64_t ids[3];
    while (at < text.bytes && text.text[at] != ' ') at++;
    if (at + 1 >= text.bytes) return -1;
    parts[0].text = text.text, parts[0].bytes = at;
    parts[1].text = text.text + at + 1, parts[1].bytes = text.bytes - at - 1;
    for (int i = 0; i < 2; i++) {
        size_t made = t->kind == LLM_TOKENS_BYTES ? visible_to_bytes(parts[i], room + total) : 0;
        if (!made) memcpy(room + total, parts[i].text, made = parts[i].bytes);
        ids[i] = find(t, room + total, made);
        total += made;
    }
    ids[2] = find(t, room, total);
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0) return -1;
    if (find_merge(t, ids[0], ids[1])) return 0; /* the first of equals counts */
    uint32_t slot = pair_slot((uint32_t)ids[0], (uint32_t)ids[1]) & t->merge_mask;
    for (int met = 0; t->merges[slot].rank; met++, slot = (slot + 1) & t->merge_mask)
        if (met == LONGEST_RUN) return -1;
    llm_merge merge = {(uint32_t)ids[0], (uint32_t)ids[1], (uint32_t)ids[2], rank + 1};
    t->merges[slot] = merge;
    return 0;
}

static int load_merges(llm_tokenizer *t, const llm_source *source, const llm_meta *merges, llm_error *error) {
    size_t longest = 0;
    uint32_t i = 0;
    for (t->merge_mask = 15; t->merge_mask < 2 * merges->count; ) t->merge_mask = 2 * t->merge_mask + 1;
    for (uint32_t k = 0; k < merges->count; k++)
        if (merges->strings[k].bytes > longest) longest = merges->strings[k].bytes;
    t->merges = calloc((size_t)t->merge_mask + 1, sizeof *t->merges);
    char *room = malloc(longest + 1);
    if (!t->merges || !room) {
        free(room);
        return llm_fail(error, "%s: out of memory", source->path);
    }
    while (i < merges->count && load_merge(t, merges->strings[i], i, room) == 0) i++;
    free(room);
    if (i == merges->count) return 0;
    return llm_fail(error, "%s: expected tokenizer.ggml.merges to be pairs of tokens that make a token; number %u, '%.*s', is not",
                    source->path, (unsigned)i, (int)(merges->strings[i].bytes < 100 ? merges->strings[i].bytes : 100),
                    merges->strings[i].text);
}

/* In the order of their texts; of equals those that are cut out of any text first, then the first. */
static int mark_before(const llm_tokenizer *t, uint32_t a, uint32_t b) {
    const llm_string *x = &t->pieces[a], *y = &t->pieces[b];
    int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
    if (order || x->bytes != y->bytes) return order ? order < 0 : x->bytes < y->bytes;
    return t->types[a] != t->types[b] ? t->types[a] == USER_DEFINED : a < b;
}

/* Marks in order, by a heap sort: there may be thousands. */
static void sift(const llm_tokenizer *t, uint32_t *items, size_t at, size_t count) {
    uint32_t item = items[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && mark_before(t, items[child], items[child + 1])) child++;
        if (!mark_before(t, item, items[child])) break;
        items[at] = items[child];
    }
    items[at] = item;
}

static int load_marks(llm_tokenizer *t) {
    size_t count = 0;
    for (uint32_t i = 0; i < t->count; i++) count += (t->types[i] == CONTROL || t->types[i] == USER_DEFINED) && t->pieces[i].bytes;
    uint32_t *marks = t->marks = malloc((count + 1) * sizeof *marks);
    if (!marks) return -1;
    count = 0;
    for (uint32_t i = 0; i < t->count; i++)
        if ((t->types[i] == CONTROL || t->types[i] == USER_DEFINED) && t->pieces[i].bytes) marks[count++] = i;
    for (size_t i = count / 2; i-- > 0; ) sift(t, marks, i, count);
    for (size_t i = count; i-- > 1; ) {
        uint32_t last = marks[i];
        marks[i] = marks[0], marks[0] = last;
        sift(t, marks, 0, i);
    }
    for (size_t c = 0, i = 0; c <= 256; c++) {
        while (i < count && (unsigned char)t->pieces[marks[i]].text[0] < c) i++;
        t->marks_from[c] = (uint32_t)i;
    }
    return 0;
}

/* Pieces of a byte-level vocabulary, as bytes. */
static int load_bytes(llm_tokenizer *t) {
    size_t room = 0;
    for (uint32_t i = 0; i < t->count; i++) room += t->pieces[i].bytes;
    char *to = t->text = malloc(room + 1);
    t->own_pieces = malloc(t->count * sizeof *t->own_pieces);
    if (!to || !t->own_pieces) return -1;
    for (uint32_t i = 0; i < t->count; i++) {
        size_t made = t->types[i] == NORMAL ? visible_to_bytes(t->pieces[i], to) : 0;
        t->own_pieces[i] = t->pieces[i]; /* marks are written as they are */
        if (!made) continue;
        t->own_pieces[i].text = to;
        t->own_pieces[i].bytes = made;
        to += made;
    }
    t->pieces = t->own_pieces;
    return 0;
}

/* The model may have fewer rows than there are tokens, where marks were added to the vocabulary alone: they cannot be
 * said, nor be read. Any other token without a row is a mistake. */
static int leave_out(llm_tokenizer *t, const llm_source *source, const llm_meta *types, llm_error *error) {
    const llm_tensor *tensor = llm_find_tensor(source, "token_embd.weight");
    int index = llm_find_matrix(source, "token_embd.weight");
    bitstack_matrix matrix;
    uint64_t rows = tensor ? llm_tensor_rows(tensor) : 0;
    if (index >= 0 && bitstack_get_matrix(source->stack, index, &matrix) == BITSTACK_OK) rows = matrix.shape.rows;
    if (!rows || rows >= t->count) return 0;
    for (uint32_t i = (uint32_t)rows; i < t->count; i++) {
        double type = types ? llm_meta_element(types, i) : NORMAL;
        if (type == CONTROL || type == USER_DEFINED || type == UNUSED) continue;
        return llm_fail(error, "%s: expected at most %llu tokens, as the model has rows; the tokenizer has %u", source->path, (unsigned long long)rows,
                        t->count);
    }
    t->count = (uint32_t)rows;
    return 0;
}

/* How words are cut. Files from before tokenizer.ggml.pre do not say it: what they are is told by their marks, else they
 * are taken to be as GPT-2. */
static int load_cuts(llm_tokenizer *t, const llm_source *source, const llm_meta *pieces, llm_string *pre, llm_error *error) {
    const llm_meta *patterns = llm_find_meta(source, "tokenizer.pre_patterns");
    int known = 0;
    if (patterns && patterns->strings && patterns->count) {
        for (uint64_t i = 0; i < patterns->count && known == 0; i++) known = llm_cuts_add(&t->cuts, patterns->strings[i]);
        if (known != 0) llm_cuts_free(&t->cuts);
    } else {
        if (!pre->text || !pre->bytes) {
            llm_string architecture = llm_text(source, "general.architecture");
            t->guessed = llm_string_is(architecture, "qwen2") || llm_string_is(architecture, "qwen3") ? "qwen2" : "gpt-2";
            for (uint64_t i = 0; i < pieces->count; i++)
                if (llm_string_is(pieces->strings[i], "<|begin_of_text|>")) t->guessed = "llama-bpe";
            pre->text = t->guessed, pre->bytes = strlen(t->guessed);
        }
        known = llm_cuts_named(&t->cuts, *pre);
    }
    if (known == 0) return 0;
    return llm_fail(error, "%s: expected tokenizer.ggml.pre to be a known way to cut words (gpt-2, llama-bpe, qwen2, tekken and others: "
                    "examples/llm/cuts.c), found \"%.*s\"", source->path, (int)(pre->bytes < 40 ? pre->bytes : 40), pre->text ? pre->text : "");
}

int llm_tokenizer_load(llm_tokenizer *t, const llm_source *source, llm_error *error) {
    static const struct { const char *name; llm_tokens kind; } kinds[] = {
        {"llama", LLM_TOKENS_PIECES}, {"t5", LLM_TOKENS_UNIGRAM}, {"gpt2", LLM_TOKENS_BYTES}};
    llm_string model = llm_text(source, "tokenizer.ggml.model"), pre = llm_text(source, "tokenizer.ggml.pre");
    const llm_meta *pieces = llm_find_meta(source, "tokenizer.ggml.tokens");
    const llm_meta *scores = llm_find_meta(source, "tokenizer.ggml.scores");
    const llm_meta *types = llm_find_meta(source, "tokenizer.ggml.token_type");
    const llm_meta *merges = llm_find_meta(source, "tokenizer.ggml.merges");
    const llm_meta *normalizer = llm_find_meta(source, "tokenizer.ggml.precompiled_charsmap");
    size_t which = 0;
    memset(t, 0, sizeof *t);
    while (which < 3 && !llm_string_is(model, kinds[which].name)) which++;
    if (which == 3)
        return llm_fail(error, "%s: expected tokenizer.ggml.model to be \"llama\", \"t5\" or \"gpt2\", found \"%.*s\"",
                        source->path, (int)(model.bytes < 40 ? model.bytes : 40), model.text ? model.text : "");
    t->kind = kinds[which].kind;
    if (!pieces || !pieces->strings || !pieces->count || pieces->count > 1 << 24)
        return llm_fail(error, "%s: expected tokenizer.ggml.tokens, 1 to 16777216 strings", source->path);
    int ranked = t->kind == LLM_TOKENS_BYTES || (t->kind == LLM_TOKENS_PIECES && !scores && merges);
    if (!ranked && (!scores || !scores->numbers || scores->count != pieces->count))
        return llm_fail(error, "%s: expected tokenizer.ggml.scores, %llu numbers", source->path,
                        (unsigned long long)pieces->count);
    if (ranked && (!merges || !merges->strings || merges->count > 1 << 24))
        return llm_fail(error, "%s: expected tokenizer.ggml.merges, up to 16777216 strings", source->path);
    if (types && (!types->numbers || types->count != pieces->count))
        return llm_fail(error, "%s: expected tokenizer.ggml.token_type, %llu numbers", source->path,
                        (unsigned long long)pieces->count);
    if (normalizer && normalizer->count)
        return llm_fail(error, "%s: expected a tokenizer without tokenizer.ggml.precompiled_charsmap", source->path);
    if (t->kind == LLM_TOKENS_BYTES && load_cuts(t, source, pieces, &pre, error) != 0) return -1;
    t->count = (uint32_t)pieces->count;
    t->pieces = pieces->strings;
    if (leave_out(t, source, types, error) != 0) {
        llm_tokenizer_free(t);
        return -1;
    }
    for (t->slot_mask = 15; t->slot_mask < 2 * t->count; ) t->slot_mask = 2 * t->slot_mask + 1;
    t->scores = calloc(t->count, sizeof *t->scores);
    t->types = malloc(t->count);
    t->slots = calloc((size_t)t->slot_mask + 1, sizeof *t->slots);
    int failed = !t->scores || !t->types || !t->slots;
    for (uint32_t i = 0; i < t->count && !failed; i++) {
        double type = types ? llm_meta_element(types, i) : NORMAL;
        if (!ranked) t->scores[i] = (float)llm_meta_element(scores, i);
        t->types[i] = type >= NORMAL && type <= BYTE ? (unsigned char)type : NORMAL;
        if (!types && t->kind != LLM_TOKENS_BYTES && byte_of(t->pieces[i]) >= 0) t->types[i] = BYTE;
        if ((t->types[i] == NORMAL || t->types[i] == USER_DEFINED) && llm_mark_controls(t->pieces[i])) t->types[i] = CONTROL;
        if (t->types[i] == NORMAL && t->scores[i] < t->least) t->least = t->scores[i];
    }
    for (uint32_t i = 0; i < t->count && !failed; i++)
        if (!isfinite(t->scores[i])) { /* no comparison, and so no best cut, would mean anything */
            llm_tokenizer_free(t);
            return llm_fail(error, "%s: expected tokenizer.ggml.scores that are finite; number %u is not", source->path, (unsigned)i);
        }
    if (!failed && t->kind == LLM_TOKENS_BYTES) failed = load_bytes(t) != 0;
    for (uint32_t i = 0; i < t->count && !failed; i++) { /* every place of a text is compared with these */
        int mark = t->types[i] == CONTROL || t->types[i] == USER_DEFINED;
        if (t->pieces[i].bytes <= LONGEST_PIECE || !(mark || (t->kind == LLM_TOKENS_UNIGRAM && t->types[i] == NORMAL))) continue;
        unsigned long long bytes = t->pieces[i].bytes;
        llm_tokenizer_free(t);
        return llm_fail(error, "%s: tokenizer.ggml.tokens: expected %s of at most %d bytes, number %u has %llu", source->path,
                        mark ? "marks" : "pieces", LONGEST_PIECE, (unsigned)i, bytes);
    }
    const llm_meta *habits = llm_find_meta(source, "tokenizer.mark_habits");
    if (!failed && habits && habits->numbers && habits->count >= t->count) {
        failed = !(t->habits = malloc(t->count));
        for (uint32_t i = 0; i < t->count && !failed; i++) t->habits[i] = (unsigned char)llm_meta_element(habits, i);
    }
    if (failed || load_marks(t) != 0) {
        llm_tokenizer_free(t);
        return llm_fail(error, "%s: out of memory", source->path);
    }
    t->bos = special(source, "tokenizer.ggml.bos_token_id", t->count);
    t->eos = special(source, "tokenizer.ggml.eos_token_id", t->count);
    load_ends(t, source);
    t->unknown = special(source, "tokenizer.ggml.unknown_token_id", t->count);
    for (uint32_t i = 0; i < t->count; i++)
        if ((t->types[i] == NORMAL || (t->types[i] == USER_DEFINED && t->kind == LLM_TOKENS_PIECES)) && t->pieces[i].bytes && add(t, i) != 0) {
            llm_tokenizer_free(t);
            return llm_fail(error, "%s: tokenizer.ggml.tokens: expected pieces that are not made to collide", source->path);
        }
    /* Merges may make marks, and go on from them. */
    for (uint32_t i = 0; i < t->count && t->kind == LLM_TOKENS_BYTES; i++)
        if ((t->types[i] == USER_DEFINED || t->types[i] == CONTROL) && t->pieces[i].bytes > 1 && add(t, i) != 0) {
            llm_tokenizer_free(t);
            return llm_fail(error, "%s: tokenizer.ggml.tokens: expected marks that are not made to collide", source->path);
        }
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        int64_t id = t->kind == LLM_TOKENS_BYTES ? find(t, &byte, 1) : -1;
        t->bytes[b] = id >= 0 ? (uint32_t)id : t->unknown >= 0 ? (uint32_t)t->unknown : 0;
    }
    for (uint32_t i = 0; i < t->count; i++)
        if (t->types[i] == BYTE && byte_of(t->pieces[i]) >= 0) t->bytes[byte_of(t->pieces[i])] = i;
    /* What files leave out: Llama 3 and others take whole words and start with a mark, SentencePiece with mark and space. */
    static const char *const like_llama3[] = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"};
    int llama3 = 0;
    for (size_t i = 0; i < sizeof like_llama3 / sizeof *like_llama3; i++) llama3 |= llm_string_is(pre, like_llama3[i]);
    int bytes = t->kind == LLM_TOKENS_BYTES;
    t->add_bos = llm_number(source, "tokenizer.ggml.add_bos_token", bytes ? llama3 : t->kind == LLM_TOKENS_PIECES) != 0 && t->bos >= 0;
    t->add_space = llm_number(source, "tokenizer.ggml.add_space_prefix", !bytes) != 0;
    t->first_space = llm_number(source, "tokenizer.ggml.add_space_prefix_once", 0) != 0;
    t->one_space = llm_number(source, "tokenizer.ggml.add_space_prefix_single", bytes) != 0;
    t->whole_words = llm_number(source, "tokenizer.ggml.ignore_merges", llama3) != 0;
    t->composed = llm_number(source, "tokenizer.normalize_nfc", t->kind == LLM_TOKENS_BYTES && llm_string_is(pre, "qwen2")) != 0;
    t->single_spaces = llm_number(source, "tokenizer.ggml.remove_extra_whitespaces", 0) != 0;
    if (!ranked || load_merges(t, source, merges, error) == 0) return 0;
    llm_tokenizer_free(t);
    return -1;
}

void llm_tokenizer_free(llm_tokenizer *t) {
    llm_cuts_free(&t->cuts);
    free(t->scores), free(t->types), free(t->slots), free(t->merges), free(t->marks), free(t->habits), free(t->text), free(t->own_pieces);
    memset(t, 0, sizeof *t);
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
        uint32_t h = HASH;
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
