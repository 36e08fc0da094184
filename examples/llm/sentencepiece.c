/* tokenizer.model: SentencePiece's own file, a protocol buffer. Read from its published description,
 * sentencepiece_model.proto (github.com/google/sentencepiece): pieces with scores and types, what trained them, and how
 * text is normalised first. */
#include "hf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A message's bytes. Fields come one after the other: a number and how it is written, then the value. */
typedef struct message {
    const unsigned char *at, *end;
    int failed;
} message;

typedef struct field {
    uint64_t number, value; /* value: of whole numbers, or the bits of a float */
    message content;        /* of texts and messages */
} field;

static uint64_t varint(message *m) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->at == m->end) break;
        unsigned char c = *m->at++;
        value |= (uint64_t)(c & 127) << shift;
        if (!(c & 128)) return value;
    }
    m->failed = 1;
    return 0;
}

/* The next field; 0 at the end. */
static int next(message *m, field *f) {
    if (m->failed || m->at == m->end) return 0;
    uint64_t key = varint(m), bytes = 0;
    memset(f, 0, sizeof *f);
    f->number = key >> 3;
    switch (key & 7) {
    case 0: f->value = varint(m); return !m->failed;
    case 1: bytes = 8; break;
    case 2: bytes = varint(m); break;
    case 5: bytes = 4; break;
    default: m->failed = 1;
    }
    if (m->failed || bytes > (uint64_t)(m->end - m->at)) {
        m->failed = 1;
        return 0;
    }
    f->content.at = m->at, f->content.end = m->at + bytes;
    if ((key & 7) == 5) f->value = (uint64_t)m->at[0] | (uint64_t)m->at[1] << 8 | (uint64_t)m->at[2] << 16 | (uint64_t)m->at[3] << 24;
    m->at += bytes;
    return 1;
}

typedef struct spm {
    llm_string *pieces;
    float *scores;
    int32_t *types;
    size_t count, room;
    uint64_t kind; /* 1 unigram, 2 BPE */
    int64_t unknown, begin, end;
    int prefix, single_spaces, charsmap;
} spm;

static int add_piece(spm *v, message m) {
    field f;
    if (v->count == v->room) {
        size_t room = v->room ? 2 * v->room : 1024;
        llm_string *pieces = realloc(v->pieces, room * sizeof *pieces);
        if (pieces) v->pieces = pieces;
        float *scores = realloc(v->scores, room * sizeof *scores);
        if (scores) v->scores = scores;
        int32_t *types = realloc(v->types, room * sizeof *types);
        if (types) v->types = types;
        if (!pieces || !scores || !types) return -1;
        v->room = room;
    }
    llm_string none = {"", 0};
    v->pieces[v->count] = none, v->scores[v->count] = 0, v->types[v->count] = 1;
    while (next(&m, &f))
        if (f.number == 1) {
            v->pieces[v->count].text = (const char *)f.content.at;
            v->pieces[v->count].bytes = (size_t)(f.content.end - f.content.at);
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&v->scores[v->count], &bits, 4);
        } else if (f.number == 3) v->types[v->count] = f.value >= 1 && f.value <= 6 ? (int32_t)f.value : 1;
    v->count++;
    return m.failed ? 1 : 0;
}

/* 0; 1 for what is no such file, -1 for lack of memory. */
static int read_model(spm *v, message m) {
    field f, part;
    int result = 0;
    while (result == 0 && next(&m, &f))
        if (f.number == 1) result = f.content.at ? add_piece(v, f.content) : 1;
        else if (f.number == 2)
            while (next(&f.content, &part)) {
                if (part.number == 3) v->kind = part.value;
                if (part.number == 40) v->unknown = (int64_t)part.value;
                if (part.number == 41) v->begin = (int64_t)part.value;
                if (part.number == 42) v->end = (int64_t)part.value;
            }
        else if (f.number == 3)
            while (next(&f.content, &part)) {
                if (part.number == 2) v->charsmap = part.content.end > part.content.at;
                if (part.number == 3) v->prefix = part.value != 0;
                if (part.number == 4) v->single_spaces = part.value != 0;
            }
    return result ? result : m.failed || !v->count || (v->kind != 1 && v->kind != 2);
}

/* Texts point into the file, which is gone later. */
static int keep(spm *v, llm_source *s) {
    size_t bytes = 0;
    for (size_t i = 0; i < v->count; i++) bytes += v->pieces[i].bytes;
    char *room = llm_source_own(s, bytes);
    for (size_t i = 0; i < v->count && room; i++) {
        if (v->pieces[i].bytes) memcpy(room, v->pieces[i].text, v->pieces[i].bytes);
        v->pieces[i].text = room;
        room += v->pieces[i].bytes;
    }
    return room ? 0 : -1;
}

static int add_id(llm_source *s, const char *key, int64_t id, size_t count) {
    return id >= 0 && (uint64_t)id < count ? llm_add_whole(s, key, (uint32_t)id) : 0;
}

int llm_hf_sentencepiece(llm_source *s, const char *text, size_t bytes, const char *name, llm_error *error) {
    spm v = {NULL, NULL, NULL, 0, 0, 1, 0, 1, 2, 1, 1, 0};
    message m = {(const unsigned char *)text, (const unsigned char *)text + bytes, 0};
    int result = read_model(&v, m), bad = -1;
    for (size_t i = 0; i < v.count && bad < 0; i++)
        if (!isfinite(v.scores[i])) bad = (int)i;
    if (result > 0) llm_fail(error, "%s: expected a model of SentencePiece's, BPE or unigram, since there is no tokenizer.json", name);
    else if (result == 0 && bad >= 0) result = llm_fail(error, "%s: expected scores that are finite; that of piece %d is not", name, bad);
    else if (result == 0 && v.charsmap)
        result = llm_fail(error, "%s: expected text to be taken as it is: its normalizer is not known", name);
    else if (result == 0) {
        uint8_t prefix = v.prefix != 0, single = v.single_spaces != 0, one = 1;
        llm_string kind = {v.kind == 2 ? "llama" : "t5", v.kind == 2 ? 5 : 2};
        result = keep(&v, s) | llm_add_text(s, "tokenizer.ggml.model", kind) |
                 llm_add_numbers(s, "tokenizer.ggml.scores", LLM_F32, v.scores, v.count) |
                 llm_add_numbers(s, "tokenizer.ggml.token_type", LLM_I32, v.types, v.count) |
                 llm_add_numbers(s, "tokenizer.ggml.add_space_prefix", LLM_BOOL, &prefix, 1) |
                 llm_add_numbers(s, "tokenizer.ggml.remove_extra_whitespaces", LLM_BOOL, &single, 1) |
                 llm_add_numbers(s, "tokenizer.ggml.add_bos_token", LLM_BOOL, &one, 1) |
                 add_id(s, "tokenizer.ggml.unknown_token_id", v.unknown, v.count) | add_id(s, "tokenizer.ggml.bos_token_id", v.begin, v.count) |
                 add_id(s, "tokenizer.ggml.eos_token_id", v.end, v.count);
        if (result == 0) {
            result = llm_add_strings(s, "tokenizer.ggml.tokens", v.pieces, v.count); /* the source has the pieces now */
            v.pieces = NULL;
        }
        if (result != 0) llm_fail(error, "%s: out of memory", name);
    } else llm_fail(error, "%s: out of memory", name);
    free(v.pieces), free(v.scores), free(v.types);
    return result == 0 ? 0 : -1;
}
