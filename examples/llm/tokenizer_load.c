/* A tokenizer from metadata. */
#include "tokenizer_tables.h"
#include "marks.h"

#include <math.h>

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

size_t llm_tokenizer_bytes(const llm_tokenizer *t) {
    size_t bytes = t->count * (sizeof *t->scores + sizeof *t->types) + ((size_t)t->slot_mask + 1) * sizeof *t->slots;
    if (t->merges) bytes += ((size_t)t->merge_mask + 1) * sizeof *t->merges;
    if (t->habits) bytes += t->count;
    if (t->own_pieces) bytes += t->count * sizeof *t->own_pieces;
    for (uint32_t i = 0; t->text && i < t->count; i++) bytes += t->pieces[i].bytes;
    return bytes + (t->marks_from[256] + 1) * sizeof *t->marks;
}

void llm_tokenizer_free(llm_tokenizer *t) {
    llm_cuts_free(&t->cuts);
    free(t->scores), free(t->types), free(t->slots), free(t->merges), free(t->marks), free(t->habits), free(t->text), free(t->own_pieces);
    memset(t, 0, sizeof *t);
}
