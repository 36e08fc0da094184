#include "couple.h"
#include "../llm/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of a layer; the pattern of attention is of use after its values. */
enum { HIDDEN, VALUES, PATTERN, GROUPS, MEMBERS = 4 };

static const int members[GROUPS][MEMBERS] = {
    {LLM_GATE, LLM_UP, LLM_DOWN, -1}, {LLM_V, LLM_O, -1, -1}, {LLM_Q, LLM_K, -1, -1}};

typedef struct couples {
    uint32_t layers, matrices;
    const uint32_t *levels;
    const double *const *loss_at;
    const uint64_t *const *bytes_at;
    uint32_t *with;  /* levels of each matrix that come with its group's step; 0: it has none */
    double *gain;    /* of each group's step, and its bytes: items for the order, loss [2], bytes [2] */
    uint64_t *bytes;
    int *joined;     /* this group's step is part of another one's */
} couples;

/* Without any of its members a group does nothing, so that the loss without one is that without all; with
 * first blocks each member leaves its share of what the group is worth. */
static void first_blocks(couples *c, uint32_t layer, int group) {
    uint32_t g = layer * GROUPS + (uint32_t)group;
    double worth = 0, left = 1;
    for (int k = 0; k < MEMBERS && members[group][k] >= 0; k++) {
        uint32_t i = layer * LLM_LINEARS + (uint32_t)members[group][k];
        if (c->levels[i]) worth = fmax(worth, c->loss_at[i][0]);
    }
    for (int k = 0; k < MEMBERS && members[group][k] >= 0; k++) {
        uint32_t i = layer * LLM_LINEARS + (uint32_t)members[group][k];
        if (!c->levels[i]) continue;
        if (worth > 0) left *= 1 - fmin(1, fmax(0, c->loss_at[i][1]) / worth);
        c->bytes[2 * g + 1] += c->bytes_at[i][1];
        c->with[i] = 1;
    }
    c->gain[2 * g] = worth * left;
}

static double slope(const couples *c, uint32_t g) {
    return c->bytes[2 * g + 1] ? c->gain[2 * g] / (double)c->bytes[2 * g + 1] : -(double)INFINITY;
}

/* The member's level up to which loss falls fastest from the one that comes with the step, if that is
 * faster than the step itself: such blocks make it worth more, and belong to it. 0: there is none. */
static uint32_t steeper(const couples *c, uint32_t i, double *than) {
    uint32_t from = c->with[i], best = 0;
    for (uint32_t to = from + 1; from && to <= c->levels[i]; to++) {
        double loss = c->loss_at[i][from] - c->loss_at[i][to];
        double s = loss / (double)(c->bytes_at[i][to] - c->bytes_at[i][from]);
        if (s > *than) *than = s, best = to;
    }
    return best;
}

/* Whether group n's blocks come with the step of this one. */
static int comes_with(const couples *c, uint32_t layer, int n, int group) {
    return n == group || (n == PATTERN && group == VALUES && c->joined[layer * GROUPS + PATTERN]);
}

/* Takes what is steeper than the step into it, the steepest first. */
static void extend(couples *c, uint32_t layer, int group) {
    uint32_t g = layer * GROUPS + (uint32_t)group, p = layer * GROUPS + PATTERN;
    for (;;) {
        double most = slope(c, g);
        uint32_t which = UINT32_MAX, to = 0;
        for (int n = group; n < GROUPS; n++) {
            if (!comes_with(c, layer, n, group)) continue;
            for (int k = 0; k < MEMBERS && members[n][k] >= 0; k++) {
                uint32_t i = layer * LLM_LINEARS + (uint32_t)members[n][k], level = steeper(c, i, &most);
                if (level) which = i, to = level;
            }
        }
        if (group == VALUES && !c->joined[p] && slope(c, p) > most) {
            c->gain[2 * g] += c->gain[2 * p], c->bytes[2 * g + 1] += c->bytes[2 * p + 1];
            c->gain[2 * p] = 0, c->bytes[2 * p + 1] = 0, c->joined[p] = 1;
        } else if (which != UINT32_MAX) {
            c->gain[2 * g] += c->loss_at[which][c->with[which]] - c->loss_at[which][to];
            c->bytes[2 * g + 1] += c->bytes_at[which][to] - c->bytes_at[which][c->with[which]];
            c->with[which] = to;
        } else return;
    }
}

/* A group's step, level by level. */
static size_t write_step(const couples *c, uint32_t g, float score, bitstack_order_entry *out) {
    uint32_t layer = g / GROUPS;
    int group = (int)(g % GROUPS);
    size_t count = 0;
    for (uint32_t level = 1, more = 1; more; level++) {
        more = 0;
        for (int n = group; n < GROUPS; n++) {
            if (!comes_with(c, layer, n, group)) continue;
            for (int k = 0; k < MEMBERS && members[n][k] >= 0; k++) {
                uint32_t i = layer * LLM_LINEARS + (uint32_t)members[n][k];
                if (level <= c->with[i]) out[count++] = (bitstack_order_entry){i, level, score};
                more |= level < c->with[i];
            }
        }
    }
    return count;
}

/* The groups' steps and what is left of the matrices, as things of their own, in the best order. */
static bitstack_result order_items(const couples *c, uint32_t *levels, const double **loss,
                                   const uint64_t **bytes, bitstack_order_entry *found,
                                   bitstack_order_entry *out) {
    uint32_t groups = c->layers * GROUPS, items = groups + c->matrices;
    size_t count = 0, at = 0;
    for (uint32_t g = 0; g < groups; g++) {
        levels[g] = c->bytes[2 * g + 1] > 0;
        loss[g] = c->gain + 2 * g, bytes[g] = c->bytes + 2 * g;
    }
    for (uint32_t i = 0; i < c->matrices; i++) {
        levels[groups + i] = c->levels[i] - c->with[i];
        loss[groups + i] = c->loss_at[i] + c->with[i], bytes[groups + i] = c->bytes_at[i] + c->with[i];
    }
    for (uint32_t i = 0; i < items; i++) count += levels[i];
    bitstack_result result = bitstack_order_predicted(levels, items, loss, bytes, found);
    for (size_t e = 0; e < count && result == BITSTACK_OK; e++) {
        if (found[e].matrix < groups) at += write_step(c, found[e].matrix, found[e].score, out + at);
        else {
            uint32_t i = found[e].matrix - groups;
            out[at++] = (bitstack_order_entry){i, c->with[i] + found[e].level, found[e].score};
        }
    }
    return result;
}

bitstack_result couple_order(uint32_t layers, const uint32_t *levels, uint32_t matrices,
                             const double *const *loss_at, const uint64_t *const *bytes_at,
                             bitstack_order_entry *out) {
    size_t groups = (size_t)layers * GROUPS, items = groups + matrices, blocks = groups;
    for (uint32_t i = 0; i < matrices; i++) {
        blocks += levels[i];
        for (uint32_t l = 0; l <= levels[i]; l++)
            if (!isfinite(loss_at[i][l])) return BITSTACK_ERROR_NUMERIC;
    }
    couples c = {layers, matrices, levels, loss_at, bytes_at, calloc(matrices + 1, sizeof *c.with),
                 calloc(2 * groups + 1, sizeof *c.gain), calloc(2 * groups + 1, sizeof *c.bytes),
                 calloc(groups + 1, sizeof *c.joined)};
    uint32_t *item_levels = calloc(items + 1, sizeof *item_levels);
    const double **loss = calloc(items + 1, sizeof *loss);
    const uint64_t **bytes = calloc(items + 1, sizeof *bytes);
    bitstack_order_entry *found = calloc(blocks + 1, sizeof *found);
    bitstack_result result = BITSTACK_ERROR_MEMORY;
    if (c.with && c.gain && c.bytes && c.joined && item_levels && loss && bytes && found) {
        for (uint32_t layer = 0; layer < layers; layer++) {
            for (int group = 0; group < GROUPS; group++) first_blocks(&c, layer, group);
            for (int group = GROUPS; group-- > 0; ) /* the pattern's step is whole before the values' */
                if (!c.joined[layer * GROUPS + (uint32_t)group]) extend(&c, layer, group);
        }
        result = order_items(&c, item_levels, loss, bytes, found, out);
    }
    free(c.with), free(c.gain), free(c.bytes), free(c.joined);
    free(item_levels), free(loss), free(bytes), free(found);
    return result;
}
