#include "published.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 4096 };

/* ---- names ---- */

static int starts(llm_string *text, const char *with) {
    size_t bytes = strlen(with);
    if (text->bytes < bytes || memcmp(text->text, with, bytes) != 0) return 0;
    text->text += bytes;
    text->bytes -= bytes;
    return 1;
}

/* A whole number below `limit`, without leading zeros. */
static int number(llm_string *text, uint32_t limit, uint32_t *out) {
    size_t at = 0;
    uint32_t value = 0;
    for (; at < text->bytes && text->text[at] >= '0' && text->text[at] <= '9' && value < limit; at++)
        value = 10 * value + (uint32_t)(text->text[at] - '0');
    if (!at || value >= limit || (text->text[0] == '0' && at > 1)) return 0;
    text->text += at;
    text->bytes -= at;
    *out = value;
    return 1;
}

/* "L.self_attn.q_proj" and what follows; the linear's index, or -1. */
static int64_t linear_of(llm_string *text) {
    static const char *const theirs[LLM_LINEARS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    uint32_t layer;
    if (!number(text, MOST_LAYERS, &layer) || !starts(text, ".")) return -1;
    for (uint32_t i = 0; i < LLM_LINEARS; i++)
        if (starts(text, theirs[i])) return (int64_t)layer * LLM_LINEARS + i;
    return -1;
}

static int shown(llm_string text) { return (int)(text.bytes < 80 ? text.bytes : 80); }

/* ---- blocks ---- */

int llm_published_add(llm_published *p, const llm_safetensor *tensor, llm_error *error) {
    llm_string rest = tensor->name;
    uint32_t level;
    if (!starts(&rest, "model.layers.")) return 0;
    int64_t index = linear_of(&rest);
    if (index < 0) return 0;
    int signs = starts(&rest, ".qweight_"), u = !signs && starts(&rest, ".u_"), vt = !signs && !u && starts(&rest, ".vt_");
    if (!signs && !u && !vt) return 0;
    if (!number(&rest, BITSTACK_MAX_LEVELS, &level) || rest.bytes)
        return llm_fail(error, "tensor '%.*s': expected at most %d blocks", shown(tensor->name), tensor->name.text, BITSTACK_MAX_LEVELS);
    int half = llm_string_is(tensor->dtype, "F16"), type = signs ? llm_string_is(tensor->dtype, "U8") :
        half || llm_string_is(tensor->dtype, "F32") || llm_string_is(tensor->dtype, "BF16");
    if (!type || tensor->dimensions != (signs ? 1 : 2))
        return llm_fail(error, "tensor '%.*s': expected %s", shown(tensor->name), tensor->name.text,
                        signs ? "U8 in one dimension" : "F16, BF16 or F32 in two dimensions");
    if ((uint32_t)index >= p->room) {
        uint32_t room = ((uint32_t)index / LLM_LINEARS + 1) * 2 * LLM_LINEARS;
        llm_published_linear *linears = realloc(p->linears, room * sizeof *linears);
        if (!linears) return llm_fail(error, "out of memory");
        memset(linears + p->room, 0, (room - p->room) * sizeof *linears);
        p->linears = linears;
        p->room = room;
    }
    if ((uint32_t)index >= p->count) p->count = ((uint32_t)index / LLM_LINEARS + 1) * LLM_LINEARS;
    llm_published_linear *linear = &p->linears[index];
    if (level >= linear->room) {
        llm_published_block *blocks = realloc(linear->blocks, (level + 1) * sizeof *blocks);
        if (!blocks) return llm_fail(error, "out of memory");
        memset(blocks + linear->room, 0, (level + 1 - linear->room) * sizeof *blocks);
        linear->blocks = blocks;
        linear->room = level + 1;
    }
    llm_published_block *block = &linear->blocks[level];
    llm_safetensor *to = signs ? &block->signs : u ? &block->u : &block->vt;
    if (to->data) return llm_fail(error, "tensor '%.*s': expected once, found twice", shown(tensor->name), tensor->name.text);
    *to = *tensor;
    return 1;
}

int llm_published_check(llm_published *p, const char *name, llm_error *error) {
    if (!p->count) return llm_fail(error, "%s: expected tensors such as 'model.layers.0.self_attn.q_proj.qweight_0'", name);
    for (uint32_t i = 0; i < p->count; i++) {
        llm_published_linear *l = &p->linears[i];
        const llm_published_block *first = l->blocks;
        l->f16 = 1;
        for (uint32_t b = 0; b < l->room; b++) {
            const llm_published_block *block = &l->blocks[b];
            int parts = (block->signs.data != NULL) + (block->u.data != NULL) + (block->vt.data != NULL);
            if (parts == 0) continue;
            if (parts < 3 || l->levels != b)
                return llm_fail(error, "%s: layer %u, %s: expected qweight_I, u_I and vt_I for I = 0, 1, ...", name, i / LLM_LINEARS,
                                llm_linear_names[i % LLM_LINEARS]);
            if (block->u.shape[0] != first->u.shape[0] || block->u.shape[1] != first->u.shape[1] ||
                block->vt.shape[0] != first->u.shape[1] || block->vt.shape[1] != first->vt.shape[1] ||
                first->u.shape[0] > 1 << 30 || first->vt.shape[1] > 1 << 30 || first->u.shape[1] > 1024 || !first->u.bytes || !first->vt.bytes ||
                block->signs.bytes != (first->u.shape[0] * first->vt.shape[1] + 7) / 8)
                return llm_fail(error, "%s: layer %u, %s, block %u: expected u of rows x k, vt of k x cols, and a sign for each weight", name,
                                i / LLM_LINEARS, llm_linear_names[i % LLM_LINEARS], b);
            l->f16 &= llm_string_is(block->u.dtype, "F16") && llm_string_is(block->vt.dtype, "F16");
            l->levels = b + 1;
        }
        if (!l->levels)
            return llm_fail(error, "%s: layer %u: expected blocks of %s", name, i / LLM_LINEARS, llm_linear_names[i % LLM_LINEARS]);
        l->rows = (uint32_t)first->u.shape[0];
        l->cols = (uint32_t)first->vt.shape[1];
        l->rank = (uint32_t)first->u.shape[1];
    }
    return 0;
}

void llm_published_free(llm_published *p) {
    for (uint32_t i = 0; i < p->count; i++) free(p->linears[i].blocks);
    free(p->linears);
    memset(p, 0, sizeof *p);
}

/* ---- coding ---- */

/* Element (i, j) of a factor goes to place j * rows + i if `transposed`, else stays; 0 where one is not finite. */
static int copy_factor(const llm_safetensor *from, uint32_t rows, uint32_t cols, int f16, int transposed, unsigned char *to) {
    int half = llm_string_is(from->dtype, "F16"), brain = llm_string_is(from->dtype, "BF16"), finite = 1;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++) {
            size_t at = (size_t)i * cols + j, put = transposed ? (size_t)j * rows + i : at;
            const unsigned char *s = from->data + at * (half || brain ? 2 : 4);
            uint32_t bits = 0;
            uint16_t h;
            float value;
            memcpy(&h, s, 2);
            if (half) value = bitstack_f16_to_f32(h);
            else {
                if (brain) bits = (uint32_t)h << 16;
                else memcpy(&bits, s, 4);
                memcpy(&value, &bits, 4);
            }
            finite &= isfinite(value) != 0;
            if (f16) memcpy(to + 2 * put, &h, 2);
            else memcpy(to + 4 * put, &value, 4);
        }
    return finite;
}

/* Signs to tiles of 64 rows: see [FORMAT] in bitstack.h. */
static void copy_signs(const unsigned char *from, uint32_t rows, uint32_t cols, unsigned char *to) {
    static const unsigned char turned[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};
    size_t groups = ((size_t)cols + 3) / 4;
    for (uint32_t i = 0; i < rows; i++) {
        unsigned char *row = to + (i / 64 * groups) * 32 + i % 32;
        int shift = i % 64 >= 32 ? 4 : 0;
        for (size_t g = 0; g < groups; g++) {
            size_t bit = (size_t)i * cols + 4 * g;
            unsigned nibble = 0;
            if (cols % 4 == 0) nibble = turned[bit % 8 ? from[bit / 8] & 15 : from[bit / 8] >> 4];
            else
                for (unsigned c = 0; c < 4 && 4 * g + c < cols; c++, bit++)
                    nibble |= (unsigned)(from[bit / 8] >> (7 - bit % 8) & 1) << c;
            row[g * 32] |= (unsigned char)(nibble << shift);
        }
    }
}

int llm_published_code(const llm_published *p, uint32_t index, bitstack_coded *coded, llm_error *error) {
    const llm_published_linear *l = &p->linears[index];
    const char *what = llm_linear_names[index % LLM_LINEARS];
    bitstack_shape shape = {l->rows, l->cols, l->levels, l->rank, 0, BITSTACK_COLUMNS_OWN, BITSTACK_COEFFICIENTS_OWN,
                            l->f16 ? BITSTACK_F16 : BITSTACK_F32, 1.0f, BITSTACK_PLANES, 0};
    memset(coded, 0, sizeof *coded);
    coded->shape = shape;
    if (!bitstack_shape_valid(&shape)) return llm_fail(error, "layer %u, %s: expected a matrix that a stack can hold", index / LLM_LINEARS, what);
    for (uint32_t b = 0; b < l->levels; b++) {
        uint64_t bytes = bitstack_block_bytes(&shape, b + 1);
        unsigned char *at = coded->blocks[b] = bytes <= SIZE_MAX ? calloc(1, (size_t)bytes) : NULL;
        if (!at) {
            llm_published_coded_free(coded);
            return llm_fail(error, "layer %u, %s: out of memory", index / LLM_LINEARS, what);
        }
        int finite = copy_factor(&l->blocks[b].vt, l->rank, l->cols, l->f16, 0, at);
        at += bitstack_column_bytes(&shape, b + 1);
        finite &= copy_factor(&l->blocks[b].u, l->rows, l->rank, l->f16, 1, at);
        at += bitstack_coefficient_bytes(&shape, b + 1);
        copy_signs(l->blocks[b].signs.data, l->rows, l->cols, at);
        if (!finite) {
            llm_published_coded_free(coded);
            return llm_fail(error, "layer %u, %s, block %u: expected factors that are finite", index / LLM_LINEARS, what, b);
        }
    }
    return 0;
}

void llm_published_coded_free(bitstack_coded *coded) {
    for (int b = 0; b < BITSTACK_MAX_LEVELS; b++) free(coded->blocks[b]);
    memset(coded, 0, sizeof *coded);
}

/* ---- order ---- */

size_t llm_published_blocks(const llm_published *p) {
    size_t blocks = 0;
    for (uint32_t i = 0; i < p->count; i++) blocks += p->linears[i].levels;
    return blocks;
}

/* An order under way. */
typedef struct making {
    const llm_published *p;
    bitstack_order_entry *order;
    size_t count;
    uint32_t *levels; /* of each matrix, so far */
} making;

static int making_init(making *m, const llm_published *p, bitstack_order_entry *order) {
    m->p = p;
    m->order = order;
    m->count = 0;
    m->levels = calloc(p->count + (size_t)1, sizeof *m->levels);
    return m->levels ? 0 : -1;
}

static void next_level(making *m, uint32_t matrix, float score) {
    bitstack_order_entry *e = &m->order[m->count++];
    e->matrix = matrix;
    e->level = ++m->levels[matrix];
    e->score = score;
}

/* The rest, level by level. */
static void making_end(making *m) {
    for (uint32_t level = 0; level < BITSTACK_MAX_LEVELS; level++)
        for (uint32_t i = 0; i < m->p->count; i++)
            if (m->levels[i] == level && level < m->p->linears[i].levels) next_level(m, i, 0);
    free(m->levels);
}

/* "layer.L.self_attn.q_proj": a matrix that there is, or -1. */
static int64_t layer_of(const llm_published *p, llm_string name) {
    if (!starts(&name, "layer.")) return -1;
    int64_t index = linear_of(&name);
    return name.bytes || index >= (int64_t)p->count ? -1 : index;
}

static int is_whole(const llm_json_value *value, double most) {
    return value->type == LLM_JSON_NUMBER && value->number >= 0 && value->number <= most && value->number == floor(value->number);
}

/* One config: what it has more than the one before. */
static int add_config(making *m, const llm_json *json, size_t at, uint32_t *wanted, uint64_t *memory) {
    size_t bytes = llm_json_member(json, at, "memory"), layers = llm_json_member(json, at, "layers");
    if (!bytes || !is_whole(&json->values[bytes], 9007199254740992.0) || !layers || json->values[layers].type != LLM_JSON_OBJECT) return -1;
    *memory = (uint64_t)json->values[bytes].number;
    memcpy(wanted, m->levels, m->p->count * sizeof *wanted);
    size_t key = layers + 1;
    for (size_t i = 0; i < json->values[layers].count; i++, key += 1 + json->values[key + 1].skip) {
        int64_t index = layer_of(m->p, json->values[key].string);
        if (index < 0 || !is_whole(&json->values[key + 1], m->p->linears[index].levels)) return -1;
        wanted[index] = (uint32_t)json->values[key + 1].number;
        if (wanted[index] < m->levels[index]) return -1;
    }
    for (int more = 1; more; ) { /* the first config has a block of each, the others one more in all */
        more = 0;
        for (uint32_t i = 0; i < m->p->count; i++)
            if (m->levels[i] < wanted[i]) next_level(m, i, 0), more = 1;
    }
    return 0;
}

int llm_published_configs(const llm_published *p, const char *text, size_t bytes, const char *name, bitstack_order_entry *order,
                          llm_published_config **configs, size_t *config_count, llm_error *error) {
    llm_json json;
    making m;
    *configs = NULL;
    *config_count = 0;
    if (llm_json_parse_python(&json, text, bytes, name, error) != 0) return -1;
    uint32_t *wanted = calloc(p->count + (size_t)1, sizeof *wanted);
    size_t count = json.values[0].type == LLM_JSON_ARRAY ? json.values[0].count : 0, at = 1;
    *configs = calloc(count + 1, sizeof **configs);
    int result = wanted && *configs && making_init(&m, p, order) == 0 ? 0 : llm_fail(error, "%s: out of memory", name);
    if (result == 0) {
        size_t most = 2 * (llm_published_blocks(p) + 1); /* one a block is what is published, and each takes a look at all matrices */
        if (!count) result = llm_fail(error, "%s: expected a list of configs", name);
        if (count > most) result = llm_fail(error, "%s: expected at most %zu configs for so many blocks, found %zu", name, most, count);
        for (size_t i = 0; i < count && result == 0; i++, at += json.values[at].skip) {
            llm_published_config *c = &(*configs)[i];
            if (add_config(&m, &json, at, wanted, &c->memory) != 0 || (i && c->memory < c[-1].memory))
                result = llm_fail(error, "%s: config %zu: expected \"memory\" and \"layers\", at least those of the config before, with "
                                  "blocks that there are", name, i);
            c->blocks = m.count;
        }
        making_end(&m);
    }
    free(wanted);
    llm_json_free(&json);
    if (result == 0) *config_count = count;
    else {
        free(*configs);
        *configs = NULL;
    }
    return result;
}

int llm_published_losses(const llm_published *p, const char *text, size_t bytes, const char *name, bitstack_order_entry *order,
                         llm_error *error) {
    llm_json json;
    uint32_t *levels = calloc(p->count + (size_t)1, sizeof *levels), most = 1;
    double *loss = calloc((size_t)p->count * BITSTACK_MAX_LEVELS + 1, sizeof *loss);
    unsigned char *seen = calloc((size_t)p->count * BITSTACK_MAX_LEVELS + 1, 1);
    int result = levels && loss && seen ? 0 : llm_fail(error, "%s: out of memory", name);
    if (result == 0) result = llm_json_parse_python(&json, text, bytes, name, error);
    else memset(&json, 0, sizeof json);
    size_t list = result == 0 ? llm_json_member(&json, 0, "reduced_ppl") : 0;
    if (result == 0 && (!list || json.values[list].type != LLM_JSON_ARRAY)) result = llm_fail(error, "%s: expected \"reduced_ppl\", a list", name);
    for (size_t i = 0, at = list + 1; result == 0 && i < json.values[list].count; i++, at += json.values[at].skip) {
        size_t bit = llm_json_member(&json, at, "bit"), ppls = llm_json_member(&json, at, "ppls");
        int good = bit && is_whole(&json.values[bit], BITSTACK_MAX_LEVELS - 1) && json.values[bit].number >= 1 && ppls && json.values[ppls].type == LLM_JSON_ARRAY;
        size_t entry = ppls + 1;
        for (size_t k = 0; good && k < json.values[ppls].count; k++, entry += json.values[entry].skip) {
            size_t layer = llm_json_member(&json, entry, "layer"), ppl = llm_json_member(&json, entry, "ppl");
            int64_t index = layer && json.values[layer].type == LLM_JSON_STRING ? layer_of(p, json.values[layer].string) : -1;
            good = index >= 0 && ppl && json.values[ppl].type == LLM_JSON_NUMBER;
            if (!good) break;
            size_t place = ((size_t)json.values[bit].number - 1) * p->count + (size_t)index; /* bit b: what a block b + 1 leaves */
            loss[place] = json.values[ppl].number;
            seen[place] = 1;
        }
        if (!good) result = llm_fail(error, "%s: entry %zu of \"reduced_ppl\": expected \"bit\" and \"ppls\" of layers that there are", name, i);
    }
    for (uint32_t i = 0; i < p->count && result == 0; i++) {
        levels[i] = p->linears[i].levels;
        if (levels[i] > most) most = levels[i];
        for (uint32_t l = 2; l <= levels[i] && result == 0; l++)
            if (!seen[(size_t)(l - 2) * p->count + i])
                result = llm_fail(error, "%s: expected a perplexity for bit %u of layer %u, %s", name, l - 1, i / LLM_LINEARS, llm_linear_names[i % LLM_LINEARS]);
    }
    if (result == 0 && bitstack_order_paper_sort(levels, p->count, loss, order) != BITSTACK_OK) result = llm_fail(error, "%s: out of memory", name);
    llm_json_free(&json);
    free(levels), free(loss), free(seen);
    return result;
}

int llm_published_levels(const llm_published *p, bitstack_order_entry *order) {
    making m;
    if (making_init(&m, p, order) != 0) return -1;
    making_end(&m);
    return 0;
}
