#include "rope.h"

#include <math.h>
#include <stdlib.h>

static const double PI = 3.141592653589793;

/* YaRN (Peng et al., arXiv 2309.00071): pairs that turn often within the context of the first training
 * stay as they are, those that hardly turn are slowed by the factor, those in between are in between; and
 * attention is sharpened. */
static int yarn(llm_model *m, double factor, llm_error *error) {
    const llm_source *s = &m->source;
    const double width = m->config.rope_width, base = (double)m->config.rope_base;
    double original = llm_number(s, llm_key(s, "rope.scaling.original_context_length"), m->config.context);
    double fast = llm_number(s, llm_key(s, "rope.scaling.yarn_beta_fast"), 32);
    double slow = llm_number(s, llm_key(s, "rope.scaling.yarn_beta_slow"), 1);
    double share = llm_number(s, llm_key(s, "rope.scaling.yarn_ext_factor"), 1);
    if (share < 0) share = 1;
    if (!(original > 0 && original < 1e12 && fast > 0 && slow > 0 && share <= 1 && base > 1))
        return llm_fail(error, "%s: expected rope.scaling.original_context_length, yarn_beta_fast and "
                        "yarn_beta_slow above 0", s->path);
    double low = floor(width * log(original / (fast * 2 * PI)) / (2 * log(base)));
    double high = ceil(width * log(original / (slow * 2 * PI)) / (2 * log(base)));
    if (llm_number(s, llm_key(s, "rope.scaling.yarn_truncate"), 1) == 0) {
        low = width * log(original / (fast * 2 * PI)) / (2 * log(base));
        high = width * log(original / (slow * 2 * PI)) / (2 * log(base));
    }
    low = low > 0 ? low : 0;
    high = high < width - 1 ? high : width - 1;
    for (uint32_t i = 0; i < m->config.rope_width / 2; i++) {
        double ramp = (i - low) / (high - low > 0.001 ? high - low : 0.001);
        double kept = share * (1 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp));
        m->rope_frequencies[i] *= kept + (1 - kept) / factor;
    }
    double usual = factor > 1 ? 1 + 0.1 * log(factor) : 1;
    m->rope_magnitude = llm_number(s, llm_key(s, "rope.scaling.attn_factor"), 1) * usual;
    if (m->rope_magnitude > 0 && m->rope_magnitude < 1e3) return 0;
    return llm_fail(error, "%s: expected %s, a number above 0", s->path, llm_key(s, "rope.scaling.attn_factor"));
}

/* Frequencies of the pairs, each divided by `factor` and by its own number in the tensor of that name, if
 * there is one. */
static int divided(const llm_model *m, const char *tensor, double factor, double **to, llm_error *error) {
    const llm_source *s = &m->source;
    const llm_tensor *factors = llm_find_tensor(s, tensor);
    const uint32_t pairs = m->config.rope_width / 2;
    if (factors && (llm_tensor_cols(factors) != pairs || llm_tensor_rows(factors) != 1))
        return llm_fail(error, "%s: expected tensor '%s' of %u numbers", s->path, tensor, pairs);
    float *each = malloc((pairs + 1) * sizeof *each);
    *to = malloc((pairs + 1) * sizeof **to);
    if (!each || !*to) {
        free(each);
        return llm_fail(error, "%s: out of memory", s->path);
    }
    for (uint32_t i = 0; i < pairs; i++) each[i] = 1;
    if (factors && pairs) llm_tensor_read(factors, 0, 1, each);
    int good = 1;
    for (uint32_t i = 0; i < pairs; i++) {
        double turn = pow((double)m->config.rope_base, -2.0 * i / m->config.rope_width);
        (*to)[i] = turn / (factor * (double)each[i]);
        good &= each[i] > 0 && each[i] < 1e9f;
    }
    free(each);
    return good ? 0 : llm_fail(error, "%s: expected numbers above 0 in tensor '%s'", s->path, tensor);
}

/* LongRoPE (Ding et al., arXiv 2402.13753): each pair has a factor for contexts as long as those of the
 * training, and another for longer ones. Which of them is a matter of the whole context, not of a token's
 * position: keys that were turned one way cannot be compared with queries that are turned the other way. */
static int longrope(llm_model *m, llm_error *error) {
    const llm_source *s = &m->source;
    double original = llm_number(s, llm_key(s, "rope.scaling.original_context_length"), m->config.context);
    m->rope_magnitude = llm_number(s, llm_key(s, "rope.scaling.attn_factor"), 1);
    if (!llm_find_tensor(s, "rope_factors_long.weight") || !llm_find_tensor(s, "rope_factors_short.weight"))
        return llm_fail(error, "%s: expected tensors 'rope_factors_long.weight' and "
                        "'rope_factors_short.weight'", s->path);
    if (!(original >= 1 && original < 4294967296.0 && m->rope_magnitude > 0 && m->rope_magnitude < 1e3))
        return llm_fail(error, "%s: expected rope.scaling.original_context_length and attn_factor above 0",
                        s->path);
    m->rope_original = (uint32_t)original;
    if (divided(m, "rope_factors_short.weight", 1, &m->rope_frequencies, error) != 0) return -1;
    return divided(m, "rope_factors_long.weight", 1, &m->rope_long, error);
}

/* "linear" divides all by one factor; a tensor of factors (Llama 3.1's way) divides each by its own. */
int llm_rope_load(llm_model *m, llm_error *error) {
    const llm_source *s = &m->source;
    llm_string scaling = llm_text(s, llm_key(s, "rope.scaling.type"));
    const int stretched = llm_string_is(scaling, "yarn"), none = llm_string_is(scaling, "none");
    const int named = llm_string_is(scaling, "longrope"), two = named || llm_find_tensor(s, "rope_factors_long.weight");
    /* Files from before scaling types have one key; a factor without a type is a linear one. */
    double older = llm_number(s, llm_key(s, "rope.scale_linear"), 1);
    double factor = llm_number(s, llm_key(s, "rope.scaling.factor"), older);
    if (scaling.text && !none && !stretched && !named && !llm_string_is(scaling, "linear"))
        return llm_fail(error, "%s: expected %s to be \"linear\", \"yarn\", \"longrope\", \"none\" or absent, "
                        "found \"%.*s\"", s->path, llm_key(s, "rope.scaling.type"),
                        (int)(scaling.bytes < 40 ? scaling.bytes : 40), scaling.text);
    if (none || factor == 0) factor = 1;
    if (!(factor > 0 && factor < 1e9))
        return llm_fail(error, "%s: expected %s, a number above 0", s->path, llm_key(s, "rope.scaling.factor"));
    m->rope_magnitude = 1;
    if (two && (stretched || factor != 1))
        return llm_fail(error, "%s: expected no %s beside the factors of LongRoPE", s->path,
                        llm_key(s, stretched ? "rope.scaling.type" : "rope.scaling.factor"));
    if (two) return longrope(m, error);
    if (divided(m, "rope_freqs.weight", stretched ? 1 : factor, &m->rope_frequencies, error) != 0) return -1;
    return stretched ? yarn(m, factor, error) : 0;
}
