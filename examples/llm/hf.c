#include "hf.h"
#include "pretokenizer.h"
#include "safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A JSON text with what its errors say. 0 stands for a value that is absent: nobody's member is the root. */
typedef struct document {
    llm_json json;
    const char *name;
    llm_error *error;
} document;

static const llm_json_value *value_at(const document *d, size_t at) { return &d->json.values[at]; }
static int is(const document *d, size_t at, llm_json_type type) { return at && value_at(d, at)->type == type; }

/* The member, if it is there and not null. */
static size_t member(const document *d, size_t object, const char *key) {
    size_t at = llm_json_member(&d->json, object, key);
    return is(d, at, LLM_JSON_NULL) ? 0 : at;
}
static size_t object_in(const document *d, size_t object, const char *key) {
    size_t at = member(d, object, key);
    return is(d, at, LLM_JSON_OBJECT) ? at : 0;
}
static llm_string text_in(const document *d, size_t object, const char *key) {
    size_t at = member(d, object, key);
    llm_string none = {NULL, 0};
    return is(d, at, LLM_JSON_STRING) ? value_at(d, at)->string : none;
}
static double number_in(const document *d, size_t object, const char *key, double fallback) {
    size_t at = member(d, object, key);
    if (at && value_at(d, at)->type == LLM_JSON_ARRAY && value_at(d, at)->count) at++; /* the first of several */
    return is(d, at, LLM_JSON_NUMBER) || is(d, at, LLM_JSON_BOOL) ? value_at(d, at)->number : fallback;
}

static int no_memory(const char *name, llm_error *error) { return llm_fail(error, "%s: out of memory", name); }
static int shown(llm_string text) { return (int)(text.bytes < 60 ? text.bytes : 60); }

/* ---- config.json ---- */

/* The keys and defaults that all have in common; 0: it must be there. */
static const struct { const char *theirs, *ours; double fallback; } wholes[] = {
    {"hidden_size", "embedding_length", 0}, {"intermediate_size", "feed_forward_length", 0},
    {"num_hidden_layers", "block_count", 0}, {"num_attention_heads", "attention.head_count", 0},
    {"vocab_size", "vocab_size", 0}, {"max_position_embeddings", "context_length", 2048},
};

static int add_whole(llm_source *s, llm_string architecture, const char *key, double value, const char *theirs, const document *d) {
    char name[96];
    if (!(value >= 0 && value <= 4294967295.0) || value != floor(value))
        return llm_fail(d->error, "%s: expected \"%s\", a whole number", d->name, theirs);
    snprintf(name, sizeof name, "%.*s.%s", shown(architecture), architecture.text, key);
    return llm_add_whole(s, name, (uint32_t)value) == 0 ? 0 : no_memory(d->name, d->error);
}

static int add_float(llm_source *s, llm_string architecture, const char *key, double value, const document *d) {
    char name[96];
    snprintf(name, sizeof name, "%.*s.%s", shown(architecture), architecture.text, key);
    return llm_add_float(s, name, (float)value) == 0 ? 0 : no_memory(d->name, d->error);
}

/* Llama 3.1's scaling as a tensor of factors, like GGUF has it: pairs that turn slowly, less than low_freq_factor
 * times in the context of the first training, turn slower by `factor`; the fast ones stay; in between, in between. */
static int add_llama3_factors(llm_source *s, const document *d, size_t scaling, double base, double head_width) {
    double factor = number_in(d, scaling, "factor", 0), low = number_in(d, scaling, "low_freq_factor", 0);
    double high = number_in(d, scaling, "high_freq_factor", 0), old = number_in(d, scaling, "original_max_position_embeddings", 0);
    llm_tensor tensor = {{NULL, 0}, LLM_TYPE_F32, 1, {0, 1, 1, 1}, NULL, 0};
    if (!(factor > 0 && low > 0 && high > low && old > 0))
        return llm_fail(d->error, "%s: expected factor, low_freq_factor, high_freq_factor above it, and "
                        "original_max_position_embeddings in \"rope_scaling\"", d->name);
    if (!(head_width >= 2 && head_width <= 1 << 16) || !(base > 0)) return llm_fail(d->error, "%s: expected a head width from 2 to 65536", d->name);
    size_t pairs = (size_t)head_width / 2;
    float *factors = llm_source_own(s, pairs * sizeof *factors);
    for (size_t i = 0; i < pairs && factors; i++) {
        double turns = old * pow(base, -2.0 * (double)i / head_width) / 6.283185307179586;
        double share = (turns - low) / (high - low); /* of the frequency as it was */
        share = share < 0 ? 0 : share > 1 ? 1 : share;
        factors[i] = (float)(1 / (share + (1 - share) / factor));
    }
    tensor.shape[0] = pairs;
    tensor.bytes = pairs * sizeof *factors;
    tensor.data = (const unsigned char *)factors;
    return factors && llm_add_tensor(s, "rope_freqs.weight", tensor) == 0 ? 0 : no_memory(d->name, d->error);
}

static int read_rope(llm_source *s, const document *d, llm_string architecture, double head_width) {
    size_t scaling = object_in(d, 0, "rope_scaling"), parameters = object_in(d, 0, "rope_parameters");
    if (!scaling) scaling = parameters; /* newer files have all of it there */
    double base = number_in(d, 0, "rope_theta", parameters ? number_in(d, parameters, "rope_theta", 10000) : 10000);
    llm_string type = scaling ? text_in(d, scaling, "rope_type") : (llm_string){NULL, 0};
    if (scaling && !type.text) type = text_in(d, scaling, "type");
    char name[96];
    llm_string halves = {"halves", 6}, linear = {"linear", 6};
    if (add_float(s, architecture, "rope.freq_base", base, d) != 0) return -1;
    if (llm_add_text(s, "rope.layout", halves) != 0) return no_memory(d->name, d->error);
    if (number_in(d, 0, "partial_rotary_factor", 1) != 1 || (parameters && number_in(d, parameters, "partial_rotary_factor", 1) != 1))
        return llm_fail(d->error, "%s: expected \"partial_rotary_factor\" to be 1 or absent", d->name);
    if (!scaling || llm_string_is(type, "default") || (scaling == parameters && !type.text)) return 0;
    if (llm_string_is(type, "llama3")) return add_llama3_factors(s, d, scaling, base, head_width);
    if (!llm_string_is(type, "linear"))
        return llm_fail(d->error, "%s: expected RoPE scaling \"linear\", \"llama3\" or none, found \"%.*s\"", d->name, shown(type),
                        type.text ? type.text : "");
    snprintf(name, sizeof name, "%.*s.rope.scaling.type", shown(architecture), architecture.text);
    if (llm_add_text(s, name, linear) != 0) return no_memory(d->name, d->error);
    return add_float(s, architecture, "rope.scaling.factor", number_in(d, scaling, "factor", 0), d);
}

/* Which layers look back over a window only: all of mistral's, and qwen's from max_window_layers on. */
static int read_window(llm_source *s, const document *d, llm_string architecture, int qwen) {
    size_t kinds = member(d, 0, "layer_types");
    double layers = number_in(d, 0, "num_hidden_layers", 0), first = 0;
    double window = number_in(d, 0, "sliding_window", 0);
    if (!qwen && !llm_string_is(architecture, "mistral")) return 0;
    if (qwen && number_in(d, 0, "use_sliding_window", 0) == 0) return 0;
    if (qwen) first = number_in(d, 0, "max_window_layers", 28);
    if (!qwen && !llm_json_member(&d->json, 0, "sliding_window")) window = 4096; /* left out: the default; null: none */
    if (is(d, kinds, LLM_JSON_ARRAY)) {
        int sliding = 0;
        first = layers;
        for (size_t i = 0, at = kinds + 1; i < value_at(d, kinds)->count; i++, at += value_at(d, at)->skip) {
            int slides = llm_string_is(value_at(d, at)->string, "sliding_attention");
            if (slides && !sliding) first = (double)i;
            if (sliding && !slides) return llm_fail(d->error, "%s: expected no layer without a window after one with it", d->name);
            sliding = slides;
        }
    }
    if (!(window > 0) || first >= layers) return 0;
    if (add_whole(s, architecture, "attention.sliding_window_first_block", first, "max_window_layers", d) != 0) return -1;
    return add_whole(s, architecture, "attention.sliding_window", window, "sliding_window", d);
}

static int read_config(llm_source *s, const document *d) {
    static const char *const known[] = {"llama", "mistral", "qwen2", "qwen3"};
    llm_string architecture = text_in(d, 0, "model_type"), act = text_in(d, 0, "hidden_act");
    int which = 0;
    while (which < 4 && !llm_string_is(architecture, known[which])) which++;
    if (which == 4)
        return llm_fail(d->error, "%s: expected \"model_type\" to be llama, mistral, qwen2 or qwen3, found \"%.*s\"", d->name,
                        shown(architecture), architecture.text ? architecture.text : "");
    if (act.text && !llm_string_is(act, "silu"))
        return llm_fail(d->error, "%s: expected \"hidden_act\" to be silu, found \"%.*s\"", d->name, shown(act), act.text);
    if (member(d, 0, "quantization_config"))
        return llm_fail(d->error, "%s: expected weights that are not quantized: \"quantization_config\" is there", d->name);
    if (llm_add_text(s, "general.architecture", architecture) != 0) return no_memory(d->name, d->error);
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
        double value = number_in(d, 0, wholes[i].theirs, wholes[i].fallback > 0 ? wholes[i].fallback : -1);
        if (add_whole(s, architecture, wholes[i].ours, value, wholes[i].theirs, d) != 0) return -1;
    }
    double width = number_in(d, 0, "hidden_size", 0), heads = number_in(d, 0, "num_attention_heads", 0);
    double kv = number_in(d, 0, "num_key_value_heads", which == 1 ? 8 : which > 1 ? 32 : heads);
    double head = number_in(d, 0, "head_dim", which == 3 ? 128 : heads > 0 ? floor(width / heads) : 0);
    if (add_whole(s, architecture, "attention.head_count_kv", kv, "num_key_value_heads", d) != 0 ||
        add_whole(s, architecture, "attention.key_length", head, "head_dim", d) != 0 ||
        add_float(s, architecture, "attention.layer_norm_rms_epsilon", number_in(d, 0, "rms_norm_eps", 1e-6), d) != 0 ||
        read_rope(s, d, architecture, head) != 0 || read_window(s, d, architecture, which > 1) != 0) return -1;
    uint8_t tied = number_in(d, 0, "tie_word_embeddings", 0) != 0;
    double bos = number_in(d, 0, "bos_token_id", -1), eos = number_in(d, 0, "eos_token_id", -1);
    if (llm_add_numbers(s, "output.tied", LLM_BOOL, &tied, 1) != 0 ||
        (bos >= 0 && bos < 4294967295.0 && llm_add_whole(s, "tokenizer.ggml.bos_token_id", (uint32_t)bos) != 0) ||
        (eos >= 0 && eos < 4294967295.0 && llm_add_whole(s, "tokenizer.ggml.eos_token_id", (uint32_t)eos) != 0))
        return no_memory(d->name, d->error);
    return 0;
}

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
    if (!room || !v->pieces || !v->types || !v->scores) return no_memory(d->name, d->error);
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

/* How a byte-level tokenizer cuts words. */
static llm_words words_of(const document *d, size_t pre, size_t bytes) {
    static const char *const parts[] = {"Split", "Digits", "ByteLevel", NULL};
    size_t split = find_part(d, pre, "pretokenizers", "Split", 0), digits = find_part(d, pre, "pretokenizers", "Digits", 0);
    int own = number_in(d, bytes, "use_regex", 1) != 0; /* ByteLevel's pattern, GPT-2's */
    if (!only_parts(d, pre, "pretokenizers", parts)) return LLM_WORDS_NONE;
    if (digits) return !split && own && number_in(d, digits, "individual_digits", 0) != 0 ? LLM_WORDS_DIGITS : LLM_WORDS_NONE;
    if (!split) return own ? LLM_WORDS_GPT2 : LLM_WORDS_NONE;
    if (own || find_part(d, pre, "pretokenizers", "Split", split) || !llm_string_is(text_in(d, split, "behavior"), "Isolated") ||
        number_in(d, split, "invert", 0) != 0) return LLM_WORDS_NONE;
    size_t pattern = object_in(d, split, "pattern");
    return pattern ? llm_words_of_pattern(text_in(d, pattern, "Regex")) : LLM_WORDS_NONE;
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
    uint8_t space, once = 0, single = bytes != 0, whole = !unigram && number_in(d, model, "ignore_merges", 0) != 0;
    int failed = 0;
    const char *kind = bytes ? "gpt2" : unigram ? "t5" : "llama";
    llm_string name = {kind, strlen(kind)};
    if (bytes) {
        llm_words words = words_of(d, pre, bytes);
        if (words == LLM_WORDS_NONE)
            return llm_fail(d->error, "%s: expected to cut words like GPT-2, Llama 3, Qwen 2 or SmolLM; the pre-tokenizer is another one", d->name);
        llm_string cut = {llm_words_name(words), strlen(llm_words_name(words))};
        failed |= llm_add_text(s, "tokenizer.ggml.pre", cut);
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

static int read_settings(llm_source *s, const document *d) {
    static const struct { const char *theirs, *ours; } marks[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"}, {"eos_token", "tokenizer.ggml.eos_token_id"}};
    const llm_meta *tokens = llm_find_meta(s, "tokenizer.ggml.tokens");
    llm_string chat = text_in(d, 0, "chat_template");
    if (chat.text && llm_add_text(s, "tokenizer.chat_template", chat) != 0) return no_memory(d->name, d->error);
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

static int open_document(document *d, const char *text, size_t bytes, const char *name, llm_error *error) {
    d->name = name;
    d->error = error;
    if (llm_json_parse(&d->json, text, bytes, name, error) != 0) return -1;
    if (d->json.values[0].type == LLM_JSON_OBJECT) return 0;
    llm_json_free(&d->json);
    return llm_fail(error, "%s: offset 0: expected '{'", name);
}

int llm_hf_config(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    int result = read_config(source, &d);
    llm_json_free(&d.json);
    return result;
}

int llm_hf_tokenizer(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    vocabulary v = {NULL, NULL, NULL, 0};
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    int result = read_tokenizer(source, &d, &v);
    free(v.pieces), free(v.types), free(v.scores);
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

/* ---- tensors ---- */

static int starts(llm_string text, const char *with, size_t *bytes) {
    *bytes = strlen(with);
    return text.bytes >= *bytes && memcmp(text.text, with, *bytes) == 0;
}

/* Our name of a tensor of theirs. 1: it is not needed. -1: it is not known. */
int llm_hf_tensor_name(llm_string theirs, int tied, char *ours, size_t room) {
    static const struct { const char *theirs, *ours; } whole[] = {
        {"model.embed_tokens.weight", "token_embd.weight"}, {"model.norm.weight", "output_norm.weight"}, {"lm_head.weight", "output.weight"}};
    static const struct { const char *theirs, *ours; } parts[] = {
        {"self_attn.q_proj.", "attn_q."}, {"self_attn.k_proj.", "attn_k."}, {"self_attn.v_proj.", "attn_v."},
        {"self_attn.o_proj.", "attn_output."}, {"mlp.gate_proj.", "ffn_gate."}, {"mlp.up_proj.", "ffn_up."},
        {"mlp.down_proj.", "ffn_down."}, {"input_layernorm.", "attn_norm."}, {"post_attention_layernorm.", "ffn_norm."},
        {"self_attn.q_norm.", "attn_q_norm."}, {"self_attn.k_norm.", "attn_k_norm."}};
    size_t bytes;
    uint32_t layer = 0;
    for (size_t i = 0; i < 3; i++)
        if (llm_string_is(theirs, whole[i].theirs)) return i == 2 && tied ? 1 : snprintf(ours, room, "%s", whole[i].ours) < 0;
    if (!starts(theirs, "model.layers.", &bytes)) return -1;
    size_t digits = bytes;
    for (; bytes < theirs.bytes && theirs.text[bytes] >= '0' && theirs.text[bytes] <= '9' && layer < 10000; bytes++)
        layer = 10 * layer + (uint32_t)(theirs.text[bytes] - '0');
    if (bytes == digits || bytes == theirs.bytes || theirs.text[bytes] != '.') return -1;
    llm_string rest = {theirs.text + bytes + 1, theirs.bytes - bytes - 1};
    if (llm_string_is(rest, "self_attn.rotary_emb.inv_freq")) return 1; /* old files say what is known anyway */
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!starts(rest, parts[i].theirs, &bytes)) continue;
        llm_string kind = {rest.text + bytes, rest.bytes - bytes};
        if (!llm_string_is(kind, "weight") && !llm_string_is(kind, "bias")) return -1;
        return snprintf(ours, room, "blk.%u.%s%.*s", layer, parts[i].ours, (int)kind.bytes, kind.text) < 0;
    }
    return -1;
}

static int add_tensors(llm_source *s, const llm_safetensors *file, const char *path, llm_error *error) {
    static const struct { const char *name; llm_type type; } types[] = {{"F32", LLM_TYPE_F32}, {"F16", LLM_TYPE_F16}, {"BF16", LLM_TYPE_BF16}};
    char name[96];
    int tied = llm_number(s, "output.tied", 0) != 0;
    for (size_t i = 0; i < file->count; i++) {
        const llm_safetensor *from = &file->tensors[i];
        llm_tensor tensor = {{NULL, 0}, LLM_TYPE_F32, from->dimensions, {0}, from->data, from->bytes};
        int known = llm_hf_tensor_name(from->name, tied, name, sizeof name);
        size_t type = 0;
        if (known < 0)
            return llm_fail(error, "%s: expected tensors of a %.*s model, found '%.*s'", path, shown(llm_text(s, "general.architecture")),
                            llm_text(s, "general.architecture").text, shown(from->name), from->name.text);
        if (known > 0) continue;
        while (type < 3 && !llm_string_is(from->dtype, types[type].name)) type++;
        if (type == 3 || !from->bytes)
            return llm_fail(error, "%s: tensor '%.*s': expected F32, F16 or BF16, and not empty, found %.*s", path, shown(from->name),
                            from->name.text, shown(from->dtype), from->dtype.text);
        tensor.type = types[type].type;
        memcpy(tensor.shape, from->shape, sizeof tensor.shape);
        if (llm_add_tensor(s, name, tensor) != 0) return no_memory(path, error);
    }
    return 0;
}

static int add_shard(llm_source *s, const char *path, llm_error *error) {
    llm_safetensors file;
    if (llm_safetensors_open(&file, path, error) != 0) return -1;
    int result = add_tensors(s, &file, path, error);
    if (llm_source_add_mapping(s, file.mapping) != 0 && result == 0) result = no_memory(path, error);
    file.mapping.data = NULL;
    llm_safetensors_close(&file);
    return result;
}

static int path_of(char *path, size_t room, const char *folder, llm_string name, llm_error *error) {
    if ((size_t)snprintf(path, room, "%s/%.*s", folder, (int)name.bytes, name.text) < room) return 0;
    return llm_fail(error, "%s: expected a shorter path", folder);
}

/* The shards that the index names, each once, in the order of their first tensor. */
static int add_shards(llm_source *s, const char *folder, const document *d) {
    char path[1024];
    size_t map = object_in(d, 0, "weight_map");
    if (!map) return llm_fail(d->error, "%s: expected \"weight_map\"", d->name);
    size_t *names = calloc(value_at(d, map)->count + 1, sizeof *names), count = 0;
    if (!names) return no_memory(d->name, d->error);
    int result = 0;
    for (size_t i = 0, at = map + 2; i < value_at(d, map)->count && result == 0; i++, at += 1 + value_at(d, at)->skip) {
        llm_string name = value_at(d, at)->string;
        size_t known = 0;
        if (!is(d, at, LLM_JSON_STRING) || !name.bytes || name.bytes > 255 || memchr(name.text, '/', name.bytes) || memchr(name.text, 0, name.bytes))
            result = llm_fail(d->error, "%s: expected \"weight_map\" to name files of its folder", d->name);
        while (result == 0 && known < count && (value_at(d, names[known])->string.bytes != name.bytes ||
                                                memcmp(value_at(d, names[known])->string.text, name.text, name.bytes) != 0)) known++;
        if (result != 0 || known < count) continue;
        if (count == 10000) result = llm_fail(d->error, "%s: expected at most 10000 files", d->name);
        names[count++] = at;
        if (result == 0) result = path_of(path, sizeof path, folder, name, d->error);
        if (result == 0) result = add_shard(s, path, d->error);
    }
    free(names);
    return result;
}

/* ---- the folder ---- */

/* Reads a JSON file; where it is absent and `needed` is 0, nothing happens. */
static int read_part(llm_source *s, const char *folder, const char *name, int needed, llm_error *error,
                     int (*read)(llm_source *, const char *, size_t, const char *, llm_error *)) {
    char path[1024];
    llm_mapping text;
    llm_string file = {name, strlen(name)};
    if (path_of(path, sizeof path, folder, file, error) != 0) return -1;
    if (!needed && access(path, F_OK) != 0) return 0;
    if (llm_map(&text, path, "a JSON file", error) != 0) return -1;
    int result = read(s, text.data, text.bytes, path, error);
    llm_unmap(&text);
    return result;
}

static int read_index(llm_source *s, const char *text, size_t bytes, const char *path, llm_error *error) {
    document d;
    char folder[1024];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (open_document(&d, text, bytes, path, error) != 0) return -1;
    int result = add_shards(s, folder, &d);
    llm_json_free(&d.json);
    return result;
}

int llm_hf_open(llm_source *s, const char *folder, llm_error *error) {
    static const char index[] = "model.safetensors.index.json", single[] = "model.safetensors";
    char path[1024];
    llm_string name = {index, sizeof index - 1};
    memset(s, 0, sizeof *s);
    s->path = strdup(folder);
    if (!s->path) return no_memory(folder, error);
    int result = read_part(s, folder, "config.json", 1, error, llm_hf_config);
    if (result == 0) result = read_part(s, folder, "tokenizer.json", 0, error, llm_hf_tokenizer);
    if (result == 0) result = read_part(s, folder, "tokenizer_config.json", 0, error, llm_hf_tokenizer_settings);
    if (result == 0) result = path_of(path, sizeof path, folder, name, error);
    if (result == 0 && access(path, F_OK) == 0) result = read_part(s, folder, index, 1, error, read_index);
    else if (result == 0) {
        name.text = single, name.bytes = sizeof single - 1;
        result = path_of(path, sizeof path, folder, name, error);
        if (result == 0) result = add_shard(s, path, error);
    }
    if (result == 0 && !llm_number(s, "output.tied", 0) && !llm_find_tensor(s, "output.weight"))
        result = llm_fail(error, "%s: expected tensor 'lm_head.weight', for \"tie_word_embeddings\" is not true", folder);
    if (result != 0) llm_source_close(s);
    return result;
}
