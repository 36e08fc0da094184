/* fuzz_tokenizer.c - a tokenizer made of the input, and text for it: the kind, how words are cut and the flags; then
 * pieces with their types and the bits of their scores, merges of pieces by number, and all the rest is text. */
#include "fuzz.h"
#include <math.h>
#include "examples/llm/tokenizer.h"

enum { PIECES = 600, MERGES = 64, TEXT = 4096, LONGEST = 1024 };
enum { ADD_BOS = 1, ADD_SPACE = 2, ONCE = 4, SINGLE = 8, WHOLE = 16, SINGLE_SPACES = 32, WITH_TYPES = 64, ALL_BYTES = 128 };

static const char mark[] = "\xE2\x96\x81";

typedef struct made {
    llm_string pieces[PIECES], merges[MERGES];
    int32_t types[PIECES];
    float scores[PIECES];
    size_t count, merge_count;
} made;

/* A copy that is exact, so that reading beyond it is seen. */
static llm_string own(llm_source *s, const void *from, size_t bytes) {
    llm_string copy = {(const char *)llm_source_own(s, bytes), bytes};
    MUST(copy.text);
    memcpy((char *)(uintptr_t)copy.text, from, bytes);
    return copy;
}

static void add_piece(made *m, llm_string text, int32_t type, float score) {
    if (m->count == PIECES) return;
    m->pieces[m->count] = text, m->types[m->count] = type, m->scores[m->count++] = score;
}

/* Every byte, as the kind writes it: "<0x41>", or GPT-2's visible character. */
static void add_bytes(made *m, llm_source *s, int byte_level) {
    char text[8];
    for (unsigned b = 0, other = 256; b < 256; b++) {
        if (!byte_level) add_piece(m, own(s, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", b)), 6, 0);
        else {
            unsigned code = (b > 32 && b < 127) || (b > 160 && b != 173) ? b : other++;
            text[0] = (char)(code < 128 ? code : 0xC0 | code >> 6), text[1] = (char)(0x80 | (code & 63));
            add_piece(m, own(s, text, code < 128 ? 1 : 2), 1, 0);
        }
    }
    if (!byte_level) add_piece(m, own(s, mark, 3), 1, -3);
}

static llm_string taken(llm_source *s, fuzz_input *in, size_t bytes) {
    if (bytes > in->left) bytes = in->left;
    llm_string text = own(s, in->data, bytes);
    in->data += bytes, in->left -= bytes;
    return text;
}

/* "left right" of two pieces, and what they make becomes a piece; or any text. */
static void add_merge(made *m, llm_source *s, fuzz_input *in) {
    const size_t how = (size_t)fuzz_take(in, 1);
    if (how >= 128) m->merges[m->merge_count++] = taken(s, in, how - 128);
    else if (m->count) {
        const llm_string a = m->pieces[fuzz_take(in, 2) % m->count], b = m->pieces[fuzz_take(in, 2) % m->count];
        if (a.bytes + b.bytes > LONGEST) return;
        char *both = (char *)llm_source_own(s, a.bytes + b.bytes + 1);
        MUST(both);
        memcpy(both, a.text, a.bytes), both[a.bytes] = ' ', memcpy(both + a.bytes + 1, b.text, b.bytes);
        m->merges[m->merge_count].text = both, m->merges[m->merge_count++].bytes = a.bytes + b.bytes + 1;
        char *one = (char *)llm_source_own(s, a.bytes + b.bytes);
        MUST(one);
        memcpy(one, a.text, a.bytes), memcpy(one + a.bytes, b.text, b.bytes);
        if (how & 1) add_piece(m, (llm_string){one, a.bytes + b.bytes}, 1, -(float)m->merge_count);
    }
}

static void give_strings(llm_source *s, const char *key, const llm_string *from, size_t count) {
    llm_string *strings = (llm_string *)malloc((count + 1) * sizeof *strings);
    MUST(strings);
    memcpy(strings, from, count * sizeof *strings);
    MUST(llm_add_strings(s, key, strings, count) == 0);
}

static int has(const char *text, size_t bytes, const char *what, size_t length) {
    for (size_t i = 0; i + length <= bytes; i++)
        if (!memcmp(text + i, what, length)) return 1;
    return 0;
}

/* Whether every byte has a token of its own. */
static int has_bytes(const llm_tokenizer *t) {
    for (unsigned b = 0; b < 256; b++) {
        const uint32_t id = t->bytes[b];
        char one[2];
        if (t->types[id] != (t->kind == LLM_TOKENS_BYTES ? 1 : 6)) return 0;
        if (t->kind == LLM_TOKENS_BYTES ? t->pieces[id].bytes != 1 || (unsigned char)t->pieces[id].text[0] != b
                                        : llm_token_text(t, id, 0, one, 2) != 1 || (unsigned char)one[0] != b) return 0;
    }
    return 1;
}

/* Whether the text must come back as it was: every byte has its token, spaces have theirs, and none is put in front or
 * dropped that decoding would not know of. */
static int lossless(const llm_tokenizer *t, const char *text, size_t bytes) {
    const int byte_level = t->kind == LLM_TOKENS_BYTES;
    if (t->composed || t->habits) return 0;
    const int64_t space = byte_level ? 0 : llm_token_named(t, mark);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->types[i] == 4 && t->add_space) return 0; /* a mark inside of the text: a space is put behind it as well */
        if (t->kind == LLM_TOKENS_UNIGRAM && !isfinite(t->scores[i])) return 0;
    }
    if (!has_bytes(t) || space < 0 || (!byte_level && t->types[space] != 1)) return 0;
    if (!byte_level && (t->single_spaces || has(text, bytes, mark, 3))) return 0;
    return !t->add_space || !t->one_space || text[0] != ' ';
}

/* Ids in range, no more of them than there is room for, and their text in any room. */
static void look_at(const llm_tokenizer *t, const char *text, size_t bytes, int marked) {
    static char back[8 * TEXT + LONGEST], part[LONGEST + 8];
    uint32_t *ids;
    size_t used = 0;
    const int64_t count = (marked ? llm_encode_marked : llm_encode)(t, text, bytes, &ids);
    MUST(count >= 0 && count <= (t->composed ? 12 : 4) * (int64_t)bytes + 4 && (bytes || !count));
    if (t->kind == LLM_TOKENS_BYTES && !t->composed) MUST(count <= 2 * (int64_t)bytes + 1);
    const int exact = !marked && bytes && lossless(t, text, bytes);
    for (int64_t i = 0; i < count; i++) {
        MUST(ids[i] < t->count);
        const size_t room = (size_t)i * 7 % 40, whole = llm_token_text(t, ids[i], i == 0, part, sizeof part);
        MUST(whole <= t->pieces[ids[i]].bytes);
        char *few = (char *)malloc(room ? room : 1);
        const size_t some = llm_token_text(t, ids[i], i == 0, few, room);
        MUST(few && some <= room && some <= whole && !memcmp(few, part, some));
        free(few);
        if (exact && used + whole <= sizeof back) memcpy(back + used, part, whole), used += whole;
    }
    if (exact) MUST(used == bytes && !memcmp(back, text, bytes));
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const models[4] = {"llama", "t5", "gpt2", "llama"}, *const cuts[8] = {"gpt-2", "llama-bpe", "qwen2", "smollm", "none such", "tekken",
                                                                                                              "patterns", "deepseek-llm"};
    static made m;
    fuzz_input in = {data, size};
    llm_source s;
    llm_tokenizer t;
    llm_error error;
    memset(&s, 0, sizeof s);
    m.count = m.merge_count = 0;
    s.path = strdup("x");
    const unsigned kind = (unsigned)fuzz_take(&in, 1) / 2 % 4, cuts_and = (unsigned)fuzz_take(&in, 1), cut = cuts_and % 8, flags = (unsigned)fuzz_take(&in, 1);
    const unsigned marks = (unsigned)fuzz_take(&in, 1), pieces = (unsigned)fuzz_take(&in, 1), merges = (unsigned)fuzz_take(&in, 1) % MERGES;
    if (flags & ALL_BYTES) add_bytes(&m, &s, kind == 2);
    for (unsigned i = 0; i < pieces && in.left; i++) {
        const size_t bytes = (size_t)fuzz_take(&in, 1);
        const int32_t type = (int32_t)(fuzz_take(&in, 1) % 8);
        const uint32_t bits = kind < 2 ? (uint32_t)fuzz_take(&in, 4) : 0;
        float score;
        memcpy(&score, &bits, 4);
        add_piece(&m, taken(&s, &in, bytes), type, score);
    }
    for (unsigned i = 0; i < merges && in.left; i++) add_merge(&m, &s, &in);
    MUST(s.path && llm_add_text(&s, "tokenizer.ggml.model", (llm_string){models[kind], strlen(models[kind])}) == 0);
    llm_add_text(&s, "tokenizer.ggml.pre", (llm_string){cuts[cut], strlen(cuts[cut])});
    if (cut == 6) { /* an expression of the input's own */
        llm_string pattern = taken(&s, &in, (size_t)fuzz_take(&in, 1));
        give_strings(&s, "tokenizer.pre_patterns", &pattern, 1);
    }
    if (cuts_and & 64) llm_add_whole(&s, "tokenizer.normalize_nfc", 1);
    if (cuts_and & 128) {
        uint8_t habits[256];
        for (unsigned i = 0; i < 256; i++) habits[i] = (uint8_t)(i * 37 + cuts_and);
        if (m.count <= 256) llm_add_numbers(&s, "tokenizer.mark_habits", LLM_U8, habits, m.count);
    }
    give_strings(&s, "tokenizer.ggml.tokens", m.pieces, m.count);
    if (kind < 2) llm_add_numbers(&s, "tokenizer.ggml.scores", LLM_F32, m.scores, m.count);
    else give_strings(&s, "tokenizer.ggml.merges", m.merges, m.merge_count);
    if (flags & WITH_TYPES) llm_add_numbers(&s, "tokenizer.ggml.token_type", LLM_I32, m.types, m.count);
    static const struct { unsigned flag; const char *key; } keys[] = {
        {ADD_BOS, "add_bos_token"}, {ADD_SPACE, "add_space_prefix"}, {ONCE, "add_space_prefix_once"}, {SINGLE, "add_space_prefix_single"},
        {WHOLE, "ignore_merges"}, {SINGLE_SPACES, "remove_extra_whitespaces"}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !(marks & 1); i++) { /* else the defaults */
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s", keys[i].key);
        llm_add_whole(&s, key, (flags & keys[i].flag) != 0);
    }
    if (marks & 2) llm_add_whole(&s, "tokenizer.ggml.bos_token_id", marks >> 3);
    if (marks & 4) llm_add_whole(&s, "tokenizer.ggml.unknown_token_id", marks >> 3);
    error.message[0] = 0;
    if (llm_tokenizer_load(&t, &s, &error) == 0) {
        const size_t bytes = in.left < TEXT ? in.left : TEXT;
        const llm_string text = own(&s, in.data, bytes);
        MUST(t.count == m.count && (t.bos < 0 || (uint32_t)t.bos < t.count) && (t.unknown < 0 || (uint32_t)t.unknown < t.count));
        if (flags & ALL_BYTES) MUST(has_bytes(&t));
        for (int way = 0; way < 4; way++)
            for (size_t at = 0, length; at < bytes; at += length) {
                length = llm_word((llm_words)way, text.text + at, bytes - at);
                MUST(length >= 1 && length <= bytes - at);
            }
        size_t ends[LLM_MOST_CUTS] = {0};
        for (size_t at = 0; t.kind == LLM_TOKENS_BYTES && at < bytes; ) {
            const size_t end = llm_cut(&t.cuts, text.text, bytes, at, ends);
            MUST(end > at && end <= bytes);
            at = end;
        }
        look_at(&t, text.text, bytes, 0);
        look_at(&t, text.text, bytes, 1);
        for (uint32_t i = 0; i < t.count; i++) {
            char name[LONGEST + 1];
            const llm_string *piece = &t.pieces[i];
            if (memchr(piece->text, 0, piece->bytes) || piece->bytes > LONGEST) continue;
            memcpy(name, piece->text, piece->bytes), name[piece->bytes] = 0;
            const int64_t id = llm_token_named(&t, name);
            MUST(id < (int64_t)t.count && (id < 0 || (t.pieces[id].bytes == piece->bytes && !memcmp(t.pieces[id].text, name, piece->bytes))));
            if (piece->bytes && (t.types[i] == 1 || t.types[i] == 3 || t.types[i] == 4)) MUST(id >= 0);
        }
        llm_tokenizer_free(&t);
    } else MUST(!strncmp(error.message, "x: ", 3) && !strchr(error.message, '\n'));
    llm_source_close(&s);
    return 0;
}
