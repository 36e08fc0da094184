#include "hf.h"
#include "hf_document.h"
#include "safetensors.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int add_type(llm_source *s, const document *d, llm_string architecture, const char *type) {
    char name[96];
    llm_string kind = {type, strlen(type)};
    snprintf(name, sizeof name, "%.*s.rope.scaling.type", shown(architecture), architecture.text);
    return llm_add_text(s, name, kind) == 0 ? 0 : no_memory(d->name, d->error);
}

/* YaRN, with GGUF's keys: there the factor of attention is beside the usual one of 0.1 ln(factor) + 1. */
static int add_yarn(llm_source *s, const document *d, llm_string architecture, size_t scaling) {
    static const struct { const char *theirs, *ours; } keys[] = {
        {"factor", "rope.scaling.factor"}, {"beta_fast", "rope.scaling.yarn_beta_fast"}, {"beta_slow", "rope.scaling.yarn_beta_slow"},
        {"truncate", "rope.scaling.yarn_truncate"}, {"original_max_position_embeddings", "rope.scaling.original_context_length"}};
    double context = number_in(d, 0, "max_position_embeddings", 2048), original = number_in(d, scaling, "original_max_position_embeddings", context);
    double factor = number_in(d, scaling, "factor", member(d, scaling, "original_max_position_embeddings") && original > 0 ? context / original : 0), usual = factor > 1 ? 0.1 * log(factor) + 1 : 1;
    double scale = number_in(d, scaling, "mscale", 0), all = number_in(d, scaling, "mscale_all_dim", 0);
    double attention = scale > 0 && all > 0 && factor > 1 ? (0.1 * scale * log(factor) + 1) / (0.1 * all * log(factor) + 1) : usual;
    if (!(factor > 0 && original > 0)) return llm_fail(d->error, "%s: expected \"factor\" above 0 in \"rope_scaling\"", d->name);
    if (add_type(s, d, architecture, "yarn") != 0) return -1;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (is(d, member(d, scaling, keys[i].theirs), LLM_JSON_NUMBER) || is(d, member(d, scaling, keys[i].theirs), LLM_JSON_BOOL))
            if (add_float(s, architecture, keys[i].ours, number_in(d, scaling, keys[i].theirs, 0), d) != 0) return -1;
    attention = number_in(d, scaling, "attention_factor", attention);
    return add_float(s, architecture, "rope.scaling.factor", factor, d) || add_float(s, architecture, "rope.scaling.attn_factor", attention / usual, d) ? -1 : 0;
}

/* A list of numbers as a tensor, one a pair. */
static int add_factors(llm_source *s, const document *d, size_t scaling, const char *key, const char *name,
                       size_t pairs) {
    size_t list = member(d, scaling, key);
    llm_tensor tensor = {{NULL, 0}, LLM_TYPE_F32, 1, {pairs, 1, 1, 1}, NULL, pairs * sizeof(float)};
    if (!is(d, list, LLM_JSON_ARRAY) || value_at(d, list)->count != pairs)
        return llm_fail(d->error, "%s: expected \"%s\" of %zu numbers in \"rope_scaling\"", d->name, key, pairs);
    float *factors = llm_source_own(s, (pairs + 1) * sizeof *factors);
    for (size_t i = 0; i < pairs && factors; i++) { /* numbers only: each is the next value */
        factors[i] = is(d, list + 1 + i, LLM_JSON_NUMBER) ? (float)value_at(d, list + 1 + i)->number : 0;
        if (!(factors[i] > 0)) return llm_fail(d->error, "%s: expected numbers above 0 in \"%s\"", d->name, key);
    }
    tensor.data = (const unsigned char *)factors;
    return factors && llm_add_tensor(s, name, tensor) == 0 ? 0 : no_memory(d->name, d->error);
}

/* LongRoPE. Where nothing else is said, attention is sharpened by sqrt(1 + ln factor / ln(original context)). */
static int add_longrope(llm_source *s, const document *d, llm_string architecture, size_t scaling, double head_width) {
    static const char original_key[] = "original_max_position_embeddings";
    double context = number_in(d, 0, "max_position_embeddings", 2048), outside = number_in(d, 0, original_key, 0);
    double original = outside ? outside : number_in(d, scaling, original_key, context);
    double factor = outside ? context / outside : number_in(d, scaling, "factor", context / original);
    double attention = 1;
    if (!(head_width >= 2 && head_width <= 1 << 16))
        return llm_fail(d->error, "%s: expected a head width from 2 to 65536", d->name);
    if (!(original > 1 && factor > 0))
        return llm_fail(d->error, "%s: expected \"%s\" above 1 and \"factor\" above 0", d->name, original_key);
    if (factor > 1) attention = sqrt(1 + log(factor) / log(original));
    attention = number_in(d, scaling, "attention_factor", attention);
    if (!(attention > 0)) return llm_fail(d->error, "%s: expected \"attention_factor\" above 0", d->name);
    if (add_type(s, d, architecture, "longrope") != 0 ||
        add_float(s, architecture, "rope.scaling.attn_factor", attention, d) != 0 ||
        add_whole(s, architecture, "rope.scaling.original_context_length", original, original_key, d) != 0 ||
        add_factors(s, d, scaling, "long_factor", "rope_factors_long.weight", (size_t)head_width / 2) != 0)
        return -1;
    return add_factors(s, d, scaling, "short_factor", "rope_factors_short.weight", (size_t)head_width / 2);
}

static int read_rope(llm_source *s, const document *d, llm_string architecture, double head_width) {
    size_t scaling = object_in(d, 0, "rope_scaling"), parameters = object_in(d, 0, "rope_parameters");
    if (!scaling) scaling = parameters; /* newer files have all of it there */
    double base = number_in(d, 0, "rope_theta", parameters ? number_in(d, parameters, "rope_theta", 10000) : 10000);
    llm_string type = scaling ? text_in(d, scaling, "rope_type") : (llm_string){NULL, 0};
    if (scaling && !type.text) type = text_in(d, scaling, "type");
    llm_string halves = {"halves", 6};
    if (add_float(s, architecture, "rope.freq_base", base, d) != 0) return -1;
    if (llm_add_text(s, "rope.layout", halves) != 0) return no_memory(d->name, d->error);
    if (number_in(d, 0, "partial_rotary_factor", 1) != 1 || (parameters && number_in(d, parameters, "partial_rotary_factor", 1) != 1))
        return llm_fail(d->error, "%s: expected \"partial_rotary_factor\" to be 1 or absent", d->name);
    if (!scaling || llm_string_is(type, "default") || (scaling == parameters && !type.text && !member(d, scaling, "factor"))) return 0;
    if (llm_string_is(type, "dynamic")) return 0; /* is as without it up to the context of the training, which is the model's here */
    if (llm_string_is(type, "yarn")) return add_yarn(s, d, architecture, scaling);
    if (llm_string_is(type, "llama3")) return add_llama3_factors(s, d, scaling, base, head_width);
    if (llm_string_is(type, "longrope") || llm_string_is(type, "su"))
        return add_longrope(s, d, architecture, scaling, head_width);
    if (!llm_string_is(type, "linear"))
        return llm_fail(d->error, "%s: expected RoPE scaling \"linear\", \"llama3\", \"yarn\", \"longrope\", \"dynamic\" or none, found \"%.*s\"", d->name, shown(type),
                        type.text ? type.text : "");
    if (add_type(s, d, architecture, "linear") != 0) return -1;
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

/* "eos_token_id", a number or several, beside those that are known. -1 for lack of memory. */
static int add_ends(llm_source *s, const document *d) {
    enum { MOST = 32 };
    const llm_meta *before = llm_find_meta(s, "tokenizer.ggml.eos_token_ids");
    size_t list = member(d, 0, "eos_token_id"), count = 0;
    uint32_t ids[MOST];
    if (!list) return 0;
    for (; before && count < before->count && count < MOST / 2; count++) ids[count] = (uint32_t)llm_meta_element(before, count);
    const int several = is(d, list, LLM_JSON_ARRAY);
    for (size_t i = 0, at = several ? list + 1 : list; i < (several ? value_at(d, list)->count : 1) && count < MOST; i++, at += value_at(d, at)->skip) {
        double id = is(d, at, LLM_JSON_NUMBER) ? value_at(d, at)->number : -1;
        if (id >= 0 && id < 4294967295.0) ids[count++] = (uint32_t)id;
    }
    return count ? llm_add_numbers(s, "tokenizer.ggml.eos_token_ids", LLM_U32, ids, count) : 0;
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
    if (llm_add_numbers(s, "output.tied", LLM_BOOL, &tied, 1) != 0 || add_ends(s, d) != 0 ||
        (bos >= 0 && bos < 4294967295.0 && llm_add_whole(s, "tokenizer.ggml.bos_token_id", (uint32_t)bos) != 0) ||
        (eos >= 0 && eos < 4294967295.0 && llm_add_whole(s, "tokenizer.ggml.eos_token_id", (uint32_t)eos) != 0))
        return no_memory(d->name, d->error);
    return 0;
}

/* ---- texts ---- */

int llm_hf_config(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    int result = read_config(source, &d);
    llm_json_free(&d.json);
    return result;
}

int llm_hf_generation(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error) {
    document d;
    if (open_document(&d, text, bytes, name, error) != 0) return -1;
    int result = add_ends(source, &d) == 0 ? 0 : no_memory(name, error);
    llm_json_free(&d.json);
    return result;
}

/* ---- tensors ---- */

static int starts(llm_string text, const char *with, size_t *bytes) {
    *bytes = strlen(with);
    return text.bytes >= *bytes && memcmp(text.text, with, *bytes) == 0;
}

/* Our name of a tensor of theirs. 1: it is not needed. -1: it is not known. Models that were saved from inside of others,
 * or from outside of a part, have more or less in front. */
int llm_hf_tensor_name(llm_string theirs, char *ours, size_t room) {
    static const char *const fronts[] = {"base_model.", "language_model.", "model."};
    static const struct { const char *theirs, *ours; } whole[] = {
        {"embed_tokens.weight", "token_embd.weight"}, {"norm.weight", "output_norm.weight"}, {"lm_head.weight", "output.weight"}};
    static const struct { const char *theirs, *ours; } parts[] = {
        {"self_attn.q_proj.", "attn_q."}, {"self_attn.k_proj.", "attn_k."}, {"self_attn.v_proj.", "attn_v."},
        {"self_attn.o_proj.", "attn_output."}, {"mlp.gate_proj.", "ffn_gate."}, {"mlp.up_proj.", "ffn_up."},
        {"mlp.down_proj.", "ffn_down."}, {"input_layernorm.", "attn_norm."}, {"post_attention_layernorm.", "ffn_norm."},
        {"self_attn.q_norm.", "attn_q_norm."}, {"self_attn.k_norm.", "attn_k_norm."}};
    size_t bytes;
    uint32_t layer = 0;
    for (size_t i = 0; i < 3; i++)
        if (starts(theirs, fronts[i], &bytes)) theirs.text += bytes, theirs.bytes -= bytes, i = (size_t)-1; /* again from the first */
    for (size_t i = 0; i < 3; i++)
        if (llm_string_is(theirs, whole[i].theirs)) return snprintf(ours, room, "%s", whole[i].ours) < 0;
    if (!starts(theirs, "layers.", &bytes)) return -1;
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

void llm_hf_tie(llm_source *s) {
    static const char embedding[] = "token_embd.weight";
    size_t head = 0;
    if (llm_number(s, "output.tied", 0) == 0) return;
    while (head < s->tensor_count && !llm_string_is(s->tensors[head].name, "output.weight")) head++;
    if (head == s->tensor_count) return;
    if (llm_find_tensor(s, embedding)) memmove(s->tensors + head, s->tensors + head + 1, (--s->tensor_count - head) * sizeof *s->tensors);
    else s->tensors[head].name.text = embedding, s->tensors[head].name.bytes = sizeof embedding - 1;
}

static int add_tensors(llm_source *s, const llm_safetensors *file, const char *path, llm_error *error) {
    static const struct { const char *name; llm_type type; } types[] = {{"F32", LLM_TYPE_F32}, {"F16", LLM_TYPE_F16}, {"BF16", LLM_TYPE_BF16}};
    char name[96];
    for (size_t i = 0; i < file->count; i++) {
        const llm_safetensor *from = &file->tensors[i];
        llm_tensor tensor = {{NULL, 0}, LLM_TYPE_F32, from->dimensions, {0}, from->data, from->bytes};
        int known = llm_hf_tensor_name(from->name, name, sizeof name);
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
    if (!needed && !platform_there(path)) return 0;
    if (llm_map(&text, path, "a text", error) != 0) return -1;
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

int llm_hf_metadata(llm_source *s, const char *folder, llm_error *error) {
    static const struct {
        const char *name;
        int needed, only_without; /* only without tokenizer.json */
        int (*read)(llm_source *, const char *, size_t, const char *, llm_error *);
    } files[] = {
        {"config.json", 1, 0, llm_hf_config}, {"tokenizer.json", 0, 0, llm_hf_tokenizer}, {"tokenizer.model", 0, 1, llm_hf_sentencepiece},
        {"added_tokens.json", 0, 1, llm_hf_added_tokens}, {"tokenizer_config.json", 0, 0, llm_hf_tokenizer_settings},
        {"generation_config.json", 0, 0, llm_hf_generation}, {"chat_template.json", 0, 0, llm_hf_tokenizer_settings},
        {"chat_template.jinja", 0, 0, llm_hf_template}};
    int pieces = 0; /* from tokenizer.model */
    int result = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files && result == 0; i++) {
        if (files[i].only_without && llm_find_meta(s, "tokenizer.ggml.tokens") && !pieces) continue;
        result = read_part(s, folder, files[i].name, files[i].needed, error, files[i].read);
        pieces |= files[i].read == llm_hf_sentencepiece && llm_find_meta(s, "tokenizer.ggml.tokens");
    }
    return result;
}

/* Folders that people take for a model's: what they have in the place of one; NULL if nothing known. */
static const char *instead(const char *folder) {
    static const struct { const char *name, *without, *what; } known[] = {
        {"adapter_config.json", "config.json", "it has an adapter (LoRA), which changes a model and is none"},
        {"pytorch_model.bin", "model.safetensors", "its weights are in PyTorch's format, which is not read: expected safetensors"},
        {"pytorch_model.bin.index.json", "model.safetensors.index.json", "its weights are in PyTorch's format, which is not read: expected safetensors"},
        {"consolidated.00.pth", "model.safetensors", "its weights are in PyTorch's format, which is not read: expected safetensors"}};
    char path[1024];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, known[i].name) >= sizeof path || !platform_there(path)) continue;
        snprintf(path, sizeof path, "%s/%s", folder, known[i].without);
        if (!platform_there(path)) return known[i].what;
    }
    return NULL;
}

int llm_hf_open(llm_source *s, const char *folder, llm_error *error) {
    static const char index[] = "model.safetensors.index.json", single[] = "model.safetensors";
    char path[1024];
    llm_string name = {index, sizeof index - 1};
    memset(s, 0, sizeof *s);
    s->path = strdup(folder);
    if (!s->path) return no_memory(folder, error);
    const char *other = instead(folder);
    int result = other ? llm_fail(error, "%s: %s", folder, other) : llm_hf_metadata(s, folder, error);
    if (result == 0) result = path_of(path, sizeof path, folder, name, error);
    if (result == 0 && platform_there(path)) result = read_part(s, folder, index, 1, error, read_index);
    else if (result == 0) {
        name.text = single, name.bytes = sizeof single - 1;
        result = path_of(path, sizeof path, folder, name, error);
        if (result == 0) result = add_shard(s, path, error);
    }
    if (result == 0) llm_hf_tie(s);
    if (result == 0 && !llm_number(s, "output.tied", 0) && !llm_find_tensor(s, "output.weight"))
        result = llm_fail(error, "%s: expected tensor 'lm_head.weight', for \"tie_word_embeddings\" is not true", folder);
    if (result != 0) llm_source_close(s);
    return result;
}
