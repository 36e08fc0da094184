/* tokenizer.json and tokenizer_config.json, brought to GGUF's keys. */
#include "hf.h"
#include "hf_document.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokenizer.json ---- */

/* Goes through a component and, where it is a Sequence, through its parts: the next one whose type is `type`, after
 * `after` (0: from the start); 0 if there is none. `list`: the name of a Sequence's parts. */
static size_t find_part(const document *d, size_t component, const char *list, const char *type, size_t after) {
    if (!is(d, component, LLM_JSON_OBJECT)) return 0;
    if (llm_string_is(text_in(d, component, "type"), type) && component > after) return component;
    size_t parts = llm_string_is(text_in(d, component, "type"), "Sequence") ? member(d, component, list) : 0;
    if (!is(d, parts, LLM_JSON_ARRAY)) return 0;
    for (size_t i = 0, at = parts + 1; i < value_at(d, parts)->count; i++, at += value_at(d, at)->skip) {
        size_t found = find_part(d, at, list, type, after);
        if (found) return found;
    }
    return 0;
}

/* Whether a component consists of parts of these types only (a NULL ends them). */
static int only_parts(const document *d, size_t component, const char *list, const char *const *types) {
    if (!component) return 1;
    if (!is(d, component, LLM_JSON_OBJECT)) return 0;
    llm_string type = text_in(d, component, "type");
    if (!llm_string_is(type, "Sequence")) {
        while (*types && !llm_string_is(type, *types)) types++;
        return *types != NULL;
    }
    size_t parts = member(d, component, list);
    if (!is(d, parts, LLM_JSON_ARRAY)) return 0;
    for (size_t i = 0, at = parts + 1; i < value_at(d, parts)->count; i++, at += value_at(d, at)->skip)
        if (!only_parts(d, at, list, types)) return 0;
    return 1;
}

typedef struct vocabulary {
    llm_string *pieces;
    int32_t *types;
    float *scores;
    uint8_t *habits; /* of marks */
    int spaced, any; /* whether marks that are normalised have a space in front; whether any has habits */
    size_t count;
} vocabulary;

/* Copies a string to where the source keeps it. */
static llm_string kept(char **room, llm_string from) {
    llm_string copy = {*room, from.bytes};
    if (from.bytes) memcpy(*room, from.text, from.bytes);
    *room += from.bytes;
    return copy;
}

/* A number that is an index into `count` things. */
static int id_at(const document *d, size_t at, double count, size_t *id) {
    double value = is(d, at, LLM_JSON_NUMBER) ? value_at(d, at)->number : -1;
    if (!(value >= 0 && value < count) || value != floor(value)) return -1;
    *id = (size_t)value;
    return 0;
}

/* Pieces from model.vocab ({piece: id}, or [[piece, score] ...] for unigram) and added_tokens. */
static int read_vocabulary(llm_source *s, const document *d, size_t model, int unigram, int byte_pieces, vocabulary *v) {
    size_t list = member(d, model, "vocab"), added = member(d, 0, "added_tokens"), bytes = 0, id = 0;
    if (!is(d, list, unigram ? LLM_JSON_ARRAY : LLM_JSON_OBJECT))
        return llm_fail(d->error, "%s: expected \"vocab\" in \"model\"", d->name);
    size_t pieces = value_at(d, list)->count, marks = is(d, added, LLM_JSON_ARRAY) ? value_at(d, added)->count : 0;
    double most = 2.0 * (double)(pieces + marks) + 1024; /* ids may leave holes, but not more than that */
    if (most > 1 << 24) most = 1 << 24;
    for (size_t i = 0, at = list + 1; i < pieces; i++, at += value_at(d, at)->skip) {
        if (unigram) {
            if (!is(d, at, LLM_JSON_ARRAY) || value_at(d, at)->count != 2 || !is(d, at + 1, LLM_JSON_STRING) || !is(d, at + 2, LLM_JSON_NUMBER) ||
                !isfinite((float)value_at(d, at + 2)->number))
                return llm_fail(d->error, "%s: expected \"vocab\" to hold [piece, score], scores being finite", d->name);
            bytes += value_at(d, at + 1)->string.bytes;
            if (i >= v->count) v->count = i + 1;
            continue;
        }
        bytes += value_at(d, at++)->string.bytes; /* the key; then the id */
        if (id_at(d, at, most, &id) != 0) return llm_fail(d->error, "%s: expected ids in \"vocab\" to be whole numbers below %.0f", d->name, most);
        if (id >= v->count) v->count = id + 1;
    }
    for (size_t i = 0, at = added + 1; i < marks; i++, at += value_at(d, at)->skip) {
        if (!text_in(d, at, "content").text || id_at(d, member(d, at, "id"), most, &id) != 0)
            return llm_fail(d->error, "%s: expected added_tokens to have \"content\", and \"id\" below %.0f", d->name, most);
        bytes += text_in(d, at, "content").bytes;
        if (id >= v->count) v->count = id + 1;
    }
    if (!v->count) return llm_fail(d->error, "%s: expected a vocabulary that is not empty", d->name);
    char *room = llm_source_own(s, bytes);
    v->pieces = calloc(v->count, sizeof *v->pieces);
    v->types = malloc(v->count * sizeof *v->types);
    v->scores = calloc(v->count, sizeof *v->scores);
    v->habits = calloc(v->count, 1);
    if (!room || !v->pieces || !v->types || !v->scores || !v->habits) return no_memory(d->name, d->error);
    for (size_t i = 0; i < v->count; i++) v->types[i] = 5, v->pieces[i].text = ""; /* unused, until something takes it */
    for (size_t i = 0, at = list + 1; i < pieces; i++, at += value_at(d, at)->skip) {
        llm_string piece = unigram ? value_at(d, at + 1)->string : value_at(d, at)->string;
        if (unigram) id = i, v->scores[id] = (float)value_at(d, at + 2)->number;
        else at++, id = (size_t)value_at(d, at)->number;
        v->pieces[id] = kept(&room, piece);
        v->types[id] = byte_pieces && piece.bytes == 6 && memcmp(piece.text, "<0x", 3) == 0 && piece.text[5] == '>' ? 6 : 1;
    }
    for (size_t i = 0, at = added + 1; i < marks; i++, at += value_at(d, at)->skip) {
        id_at(d, member(d, at, "id"), most, &id);
        v->pieces[id] = kept(&room, text_in(d, at, "content"));
        v->types[id] = number_in(d, at, "special", 0) != 0 ? 3 : 4;
        v->habits[id] = (uint8_t)((number_in(d, at, "lstrip", 0) != 0 ? LLM_MARK_LEFT : 0) | (number_in(d, at, "rstrip", 0) != 0 ? LLM_MARK_RIGHT : 0) |
                                  (number_in(d, at, "single_word", 0) != 0 ? LLM_MARK_WORD : 0) |
                                  (v->spaced && number_in(d, at, "normalized", 0) != 0 ? LLM_MARK_SPACED : 0));
        v->any |= v->habits[id];
    }
    return 0;
}

/* "left right", or ["left", "right"]. */
static int read_merges(llm_source *s, const document *d, size_t model) {
    size_t merges = member(d, model, "merges"), bytes = 0;
    if (!is(d, merges, LLM_JSON_ARRAY)) return llm_fail(d->error, "%s: expected \"merges\" in \"model\"", d->name);
    size_t count = value_at(d, merges)->count;
    for (size_t i = 0, at = merges + 1; i < count; i++, at += value_at(d, at)->skip) {
        int pair = value_at(d, at)->type == LLM_JSON_ARRAY && value_at(d, at)->count == 2 && is(d, at + 1, LLM_JSON_STRING) && is(d, at + 2, LLM_JSON_STRING);
        if (!pair && !is(d, at, LLM_JSON_STRING)) return llm_fail(d->error, "%s: expected \"merges\" to hold pairs", d->name);
        bytes += pair ? value_at(d, at + 1)->string.bytes + value_at(d, at + 2)->string.bytes + 1 : value_at(d, at)->string.bytes;
    }
    char *room = llm_source_own(s, bytes);
    llm_string *strings = calloc(count + 1, sizeof *strings);
    if (!room || !strings) {
        free(strings);
        return no_memory(d->name, d->error);
    }
    for (size_t i = 0, at = merges + 1; i < count; i++, at += value_at(d, at)->skip) {
        if (value_at(d, at)->type == LLM_JSON_STRING) {
            strings[i] = kept(&room, value_at(d, at)->string);
            continue;
        }
        strings[i] = kept(&room, value_at(d, at + 1)->string);
        *room++ = ' ';
        strings[i].bytes += 1 + kept(&room, value_at(d, at + 2)->string).bytes;
    }
    return llm_add_strings(s, "tokenizer.ggml.merges", strings, count) == 0 ? 0 : no_memory(d->name, d->error);
}

/* Whether a normalizer does no more than put the mark of spaces in their place and in front. */
static int only_spaces(const document *d, size_t normalizer) {
    static const char mark[] = "\xE2\x96\x81";
    if (!normalizer) return 1;
    if (!is(d, normalizer, LLM_JSON_OBJECT)) return 0;
    llm_string type = text_in(d, normalizer, "type");
    if (llm_string_is(type, "Prepend")) return llm_string_is(text_in(d, normalizer, "prepend"), mark);
    if (llm_string_is(type, "Replace")) {
        size_t pattern = object_in(d, normalizer, "pattern");
        return pattern && llm_string_is(text_in(d, pattern, "String"), " ") && llm_string_is(text_in(d, normalizer, "content"), mark);
    }
    size_t parts = llm_string_is(type, "Sequence") ? member(d, normalizer, "normalizers") : 0;
    if (!is(d, parts, LLM_JSON_ARRAY)) return 0;
    for (size_t i = 0, at = parts + 1; i < value_at(d, parts)->count; i++, at += value_at(d, at)->skip)
        if (!only_spaces(d, at)) return 0;
    return 1;
}

/* ---- how a byte-level tokenizer cuts words ---- */

enum { PATTERN_ROOM = 4096 };

/* The expressions of its pre-tokenizers, one after the other. */
typedef struct patterns {
    char text[LLM_MOST_CUTS][PATTERN_ROOM];
    size_t count;
    int failed;
} patterns;

static void add_pattern(patterns *p, llm_string pattern, int literal) {
    size_t made = 0;
    if (p->count == LLM_MOST_CUTS || !pattern.text || 2 * pattern.bytes >= PATTERN_ROOM) p->failed = 1;
    if (p->failed) return;
    char *to = p->text[p->count++];
    for (size_t i = 0; i < pattern.bytes; i++) {
        if (literal && strchr("\\.[]{}()*+?^$|", pattern.text[i])) to[made++] = '\\';
        to[made++] = pattern.text[i];
    }
    to[made] = 0;
}

static void add_fixed(patterns *p, const char *pattern) {
    llm_string text = {pattern, strlen(pattern)};
    add_pattern(p, text, 0);
}

/* A pre-tokenizer, or all of a sequence. */
static void add_patterns(patterns *p, const document *d, size_t pre) {
    llm_string type = pre ? text_in(d, pre, "type") : (llm_string){NULL, 0}, behavior = pre ? text_in(d, pre, "behavior") : type;
    size_t list = member(d, pre, "pretokenizers"), pattern = object_in(d, pre, "pattern");
    if (llm_string_is(type, "Sequence") && is(d, list, LLM_JSON_ARRAY)) {
        for (size_t i = 0, at = list + 1; i < value_at(d, list)->count && !p->failed; i++, at += value_at(d, at)->skip)
            if (is(d, at, LLM_JSON_OBJECT) && !llm_string_is(text_in(d, at, "type"), "Sequence")) add_patterns(p, d, at);
            else p->failed = 1;
    } else if (llm_string_is(type, "ByteLevel")) {
        if (number_in(d, pre, "use_regex", 1) != 0) add_fixed(p, llm_gpt2_pattern);
    } else if (llm_string_is(type, "Digits")) add_fixed(p, number_in(d, pre, "individual_digits", 0) != 0 ? "\\p{N}" : "\\p{N}+");
    else if (llm_string_is(type, "Punctuation") && (!behavior.text || llm_string_is(behavior, "Isolated") || llm_string_is(behavior, "Contiguous")))
        add_fixed(p, llm_string_is(behavior, "Contiguous") ? "[!-/:-@\\[-`{-~\\p{P}]+" : "[!-/:-@\\[-`{-~\\p{P}]");
    else if (llm_string_is(type, "Split") && llm_string_is(behavior, "Isolated") && pattern) { /* inverted or not: cut at the same places */
        llm_string text = text_in(d, pattern, "Regex");
        add_pattern(p, text.text ? text : text_in(d, pattern, "String"), !text.text);
    } else p->failed = 1;
}

/* Written as the name that GGUF files have for it, where there is one, else as the expressions. */
static int read_cuts(llm_source *s, const document *d, size_t pre) {
    static const char *const names[] = {"gpt-2", "llama-bpe", "qwen2", "smollm"};
    patterns *p = calloc(1, sizeof *p);
    llm_cuts cuts = {0};
    int result = 0;
    if (!p) return no_memory(d->name, d->error);
    add_patterns(p, d, pre);
    for (size_t i = 0; i < p->count && !p->failed; i++) {
        llm_string text = {p->text[i], strlen(p->text[i])};
        p->failed = llm_cuts_add(&cuts, text) != 0;
    }
    const char *name = NULL;
    if (cuts.count == 1 && cuts.cuts[0].words >= 0 && cuts.cuts[0].words < LLM_WORDS_DIGITS) name = names[cuts.cuts[0].words];
    if (cuts.count == 2 && strcmp(p->text[0], "\\p{N}") == 0 && cuts.cuts[1].words == LLM_WORDS_GPT2) name = names[LLM_WORDS_DIGITS];
    if (p->failed || !p->count)
        result = llm_fail(d->error, "%s: expected to cut words by regular expressions that are known (Split, Digits, Punctuation or ByteLevel, isolated); "
                          "the pre-tokenizer is another one", d->name);
    else if (name) {
        llm_string cut = {name, strlen(name)};
        if (llm_add_text(s, "tokenizer.ggml.pre", cut) != 0) result = no_memory(d->name, d->error);
    } else {
        llm_string *strings = calloc(p->count, sizeof *strings), patterned = {"patterns", 8};
        for (size_t i = 0; strings && i < p->count; i++) {
            strings[i].bytes = strlen(p->text[i]);
            char *copy = llm_source_own(s, strings[i].bytes);
            if (copy) memcpy(copy, p->text[i], strings[i].bytes);
            else p->failed = 1;
            strings[i].text = copy;
        }
        if (p->failed) free(strings);
        if (p->failed || llm_add_strings(s, "tokenizer.pre_patterns", strings, p->count) != 0 || llm_add_text(s, "tokenizer.ggml.pre", patterned) != 0)
            result = no_memory(d->name, d->error);
    }
    llm_cuts_free(&cuts);
    free(p);
    return result;
}

/* The mark that is put in front of every text, if one is: the first of the template, or none. */
static int read_template(llm_source *s, const document *d, const vocabulary *v) {
    size_t template = find_part(d, member(d, 0, "post_processor"), "processors", "TemplateProcessing", 0);
    size_t single = template ? member(d, template, "single") : 0;
    uint8_t first = 0;
    if (is(d, single, LLM_JSON_ARRAY) && value_at(d, single)->count) {
        size_t mark = object_in(d, single + 1, "SpecialToken");
        llm_string name = mark ? text_in(d, mark, "id") : (llm_string){NULL, 0};
        for (size_t i = 0; i < v->count && name.text && !first; i++)
            if (v->pieces[i].bytes == name.bytes && memcmp(v->pieces[i].text, name.text, name.bytes) == 0 && v->types[i] == 3) {
                first = 1;
                if (llm_add_whole(s, "tokenizer.ggml.bos_token_id", (uint32_t)i) != 0) return -1;
            }
    }
    return llm_add_numbers(s, "tokenizer.ggml.add_bos_token", LLM_BOOL, &first, 1);
}

static int read_tokenizer(llm_source *s, const document *d, vocabulary *v) {
    static const char *const nfc[] = {"NFC", NULL}, *const metaspace[] = {"Metaspace", NULL};
    size_t model = object_in(d, 0, "model"), pre = object_in(d, 0, "pre_tokenizer"), normalizer = object_in(d, 0, "normalizer");
    llm_string type = model ? text_in(d, model, "type") : (llm_string){NULL, 0};
    int unigram = llm_string_is(type, "Unigram");
    size_t bytes = find_part(d, pre, "pretokenizers", "ByteLevel", 0);
    if (!model || (!unigram && type.text && !llm_string_is(type, "BPE")))
        return llm_fail(d->error, "%s: expected \"model\" of type BPE or Unigram, found \"%.*s\"", d->name, shown(type), type.text ? type.text : "");
    if (unigram) bytes = 0;
    if (bytes ? !only_parts(d, normalizer, "normalizers", nfc)
              : !only_spaces(d, normalizer) || !only_parts(d, pre, "pretokenizers", metaspace))
        return llm_fail(d->error, "%s: expected a normalizer and a pre-tokenizer that are known: NFC and ByteLevel with or without Split, "
                        "or Prepend, Replace and Metaspace", d->name);
    v->spaced = !bytes && find_part(d, normalizer, "normalizers", "Prepend", 0) != 0;
    uint8_t composed = bytes && find_part(d, normalizer, "normalizers", "NFC", 0) != 0;
    uint8_t space, once = 0, single = bytes != 0, whole = !unigram && number_in(d, model, "ignore_merges", 0) != 0;
    int failed = 0;
    const char *kind = bytes ? "gpt2" : unigram ? "t5" : "llama";
    llm_string name = {kind, strlen(kind)};
    if (bytes) {
        if (read_cuts(s, d, pre) != 0) return -1;
        space = number_in(d, bytes, "add_prefix_space", 0) != 0;
    } else { /* the mark of spaces may be put in front by either of two */
        size_t prepend = find_part(d, normalizer, "normalizers", "Prepend", 0), meta = find_part(d, pre, "pretokenizers", "Metaspace", 0);
        int never = meta && (llm_string_is(text_in(d, meta, "prepend_scheme"), "never") ||
                             (!text_in(d, meta, "prepend_scheme").text && number_in(d, meta, "add_prefix_space", 1) == 0));
        space = prepend || (meta && !never);
        single = !prepend;
        once = !prepend && meta && llm_string_is(text_in(d, meta, "prepend_scheme"), "first");
    }
    if (read_vocabulary(s, d, model, unigram, !bytes && number_in(d, model, "byte_fallback", 0) != 0, v) != 0) return -1;
    double unknown = unigram ? number_in(d, model, "unk_id", -1) : -1;
    llm_string unknown_name = text_in(d, model, "unk_token");
    for (size_t i = 0; i < v->count && !bytes && unknown_name.text && unknown < 0; i++)
        if (v->pieces[i].bytes == unknown_name.bytes && memcmp(v->pieces[i].text, unknown_name.text, unknown_name.bytes) == 0) unknown = (double)i;
    if (unknown >= 0 && unknown < (double)v->count) {
        v->types[(size_t)unknown] = 2;
        failed |= llm_add_whole(s, "tokenizer.ggml.unknown_token_id", (uint32_t)unknown);
    }
    failed |= llm_add_text(s, "tokenizer.ggml.model", name) | llm_add_numbers(s, "tokenizer.ggml.token_type", LLM_I32, v->types, v->count) |
              llm_add_numbers(s, "tokenizer.ggml.add_space_prefix", LLM_BOOL, &space, 1) |
              llm_add_numbers(s, "tokenizer.ggml.add_space_prefix_once", LLM_BOOL, &once, 1) |
              llm_add_numbers(s, "tokenizer.ggml.add_space_prefix_single", LLM_BOOL, &single, 1) |
              llm_add_numbers(s, "tokenizer.normalize_nfc", LLM_BOOL, &composed, 1) |
              (v->any ? llm_add_numbers(s, "tokenizer.mark_habits", LLM_U8, v->habits, v->count) : 0) |
              llm_add_numbers(s, "tokenizer.ggml.ignore_merges", LLM_BOOL, &whole, 1) | read_template(s, d, v);
    if (unigram) failed |= llm_add_numbers(s, "tokenizer.ggml.scores", LLM_F32, v->scores, v->count);
    failed |= llm_add_strings(s, "tokenizer.ggml.tokens", v->pieces, v->count); /* the source has the pieces now */
    v->pieces = NULL;
    if (failed) return no_memory(d->name, d->error);
    return unigram ? 0 : read_merges(s, d, model);
}

/* ---- tokenizer_config.json ---- */

/* A mark as text, or as {"content": text}. */
static llm_string mark_in(const document *d, const char *key) {
    size_t object = object_in(d, 0, key);
    return object ? text_in(d, object, "content") : text_in(d, 0, key);
}

typedef struct added_mark {
    llm_string name;
    double id;
    int special;
} added_mark;

/* Tokens at the end of the vocabulary, and marks that ones of it are. -1 for lack of memory. */
static int add_marks(llm_source *s, const added_mark *marks, size_t mark_count) {
    const llm_meta *tokens = llm_find_meta(s, "tokenizer.ggml.tokens"), *types = llm_find_meta(s, "tokenizer.ggml.token_type");
    const llm_meta *scores = llm_find_meta(s, "tokenizer.ggml.scores");
    if (!tokens || !tokens->strings || !types || types->count != tokens->count || !scores || scores->count != tokens->count) return 0;
    size_t count = (size_t)tokens->count, most = count + mark_count + 1024, all = count, bytes = 0; /* ids may leave holes, but not many */
    for (size_t i = 0; i < mark_count; i++) {
        if (!(marks[i].id >= 0 && marks[i].id < (double)most) || marks[i].id != floor(marks[i].id)) continue;
        if ((size_t)marks[i].id >= all) all = (size_t)marks[i].id + 1;
        bytes += marks[i].name.bytes;
    }
    llm_string *pieces = malloc(all * sizeof *pieces);
    int32_t *kinds = malloc(all * sizeof *kinds);
    float *values = malloc(all * sizeof *values);
    char *text = llm_source_own(s, bytes);
    int failed = !pieces || !kinds || !values || !text;
    for (size_t i = 0; i < all && !failed; i++) {
        llm_string none = {"", 0};
        pieces[i] = i < count ? tokens->strings[i] : none;
        kinds[i] = i < count ? (int32_t)llm_meta_element(types, i) : 5;
        values[i] = i < count ? (float)llm_meta_element(scores, i) : 0;
    }
    for (size_t i = 0; i < mark_count && !failed; i++) {
        if (!(marks[i].id >= 0 && marks[i].id < (double)all) || marks[i].id != floor(marks[i].id)) continue;
        size_t id = (size_t)marks[i].id;
        pieces[id] = kept(&text, marks[i].name);
        if (kinds[id] == 5 || kinds[id] == 1) kinds[id] = marks[i].special ? 3 : 4;
    }
    if (!failed) {
        failed = llm_add_numbers(s, "tokenizer.ggml.token_type", LLM_I32, kinds, all) | llm_add_numbers(s, "tokenizer.ggml.scores", LLM_F32, values, all) |
                 llm_add_strings(s, "tokenizer.ggml.tokens", pieces, all);
        pieces = NULL;
    }
    free(pieces), free(kinds), free(values);
    return failed ? -1 : 0;
}

/* {"7": {"content": "<mark>", "special": true}, ...}: of use where the vocabulary came from tokenizer.model, which has none
 * of these. */
static int read_added(llm_source *s, const document *d) {
    size_t added = object_in(d, 0, "added_tokens_decoder");
    if (!added || !llm_find_meta(s, "tokenizer.ggml.scores")) return 0;
    added_mark *marks = calloc(value_at(d, added)->count + 1, sizeof *marks);
    size_t count = 0;
    for (size_t i = 0, at = added + 1; marks && i < value_at(d, added)->count; i++, at += 1 + value_at(d, at + 1)->skip) {
        llm_string key = value_at(d, at)->string, content = is(d, at + 1, LLM_JSON_OBJECT) ? text_in(d, at + 1, "content") : (llm_string){NULL, 0};
        double id = key.bytes ? 0 : -1;
        for (size_t k = 0; k < key.bytes; k++) id = key.text[k] >= '0' && key.text[k] <= '9' && id >= 0 && id < 1e9 ? id * 10 + (key.text[k] - '0') : -1;
        if (!content.text) continue;
        marks[count].name = content, marks[count].id = id, marks[count++].special = number_in(d, at + 1, "special", 0) != 0;
    }
    int result = marks ? add_marks(s, marks, count) : -1;
    free(marks);
    return result;
}

/* The chat template: a text, or [{"name": , "template": } ...], of which "default" counts, else the first. */
static llm_string template_in(const document *d) {
    size_t list = member(d, 0, "chat_template");
    llm_string chat = text_in(d, 0, "chat_template");
    if (!is(d, list, LLM_JSON_ARRAY)) return chat;
    for (size_t i = 0, at = list + 1; i < value_at(d, list)->count; i++, at += value_at(d, at)->skip) {
        if (!is(d, at, LLM_JSON_OBJECT)) continue;
        int named = llm_string_is(text_in(d, at, "name"), "default");
        if (named || !chat.text) chat = text_in(d, at, "template");
        if (named) break;
    }
    return chat;
}

static int read_settings(llm_source *s, const document *d) {
    static const struct { const char *theirs, *ours; } marks[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"}, {"eos_token", "tokenizer.ggml.eos_token_id"}};
    const llm_meta *tokens = llm_find_meta(s, "tokenizer.ggml.tokens");
    llm_string chat = template_in(d);
    if (chat.text && llm_add_text(s, "tokenizer.chat_template", chat) != 0) return no_memory(d->name, d->error);
    if (read_added(s, d) != 0) return no_memory(d->name, d->error);
    tokens = llm_find_meta(s, "tokenizer.ggml.tokens");
    for (int i = 0; i < 2; i++) {
        llm_string mark = mark_in(d, marks[i].theirs);
        for (size_t id = 0; tokens && tokens->strings && mark.text && id < tokens->count; id++)
            if (tokens->strings[id].bytes == mark.bytes && memcmp(tokens->strings[id].text, mark.text, mark.bytes) == 0) {
                if (llm_add_whole(s, marks[i].ours, (uint32_t)id) != 0) return no_memory(d->name, d->error);
                break;
            }
    }
    return 0;
}

/* ---- texts ---- */

int llm_hf_tokenizer(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    vocabulary v = {NULL, NULL, NULL, NULL, 0, 0, 0};
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    int result = read_tokenizer(source, &d, &v);
    free(v.pieces), free(v.types), free(v.scores), free(v.habits);
    llm_json_free(&d.json);
    return result;
}

int llm_hf_tokenizer_settings(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    int result = read_settings(source, &d);
    llm_json_free(&d.json);
    return result;
}

int llm_hf_template(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    llm_string chat = {text, bytes};
    return llm_add_text(source, "tokenizer.chat_template", chat) == 0 ? 0 : no_memory(name, error);
}

int llm_hf_added_tokens(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    added_mark *marks = calloc(value_at(&d, 0)->count + 1, sizeof *marks);
    size_t count = 0;
    for (size_t i = 0, at = 1; marks && i < value_at(&d, 0)->count; i++, at += 1 + value_at(&d, at + 1)->skip) {
        if (!is(&d, at + 1, LLM_JSON_NUMBER)) continue;
        marks[count].name = value_at(&d, at)->string, marks[count].id = value_at(&d, at + 1)->number, marks[count++].special = 1;
    }
    int failed = marks ? add_marks(source, marks, count) != 0 : 1;
    free(marks);
    llm_json_free(&d.json);
    return failed ? no_memory(name, error) : 0;
}
