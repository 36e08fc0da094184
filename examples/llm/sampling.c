#include "sampling.h"
#include "dense.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double llm_random(uint64_t *state) { /* splitmix64, Steele, Lea and Flood 2014 */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

typedef struct candidate {
    float probability;
    uint32_t id;
} candidate;

static int likelier(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->probability != y->probability) return x->probability > y->probability ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* A bound, not much too low, below which nothing is needed for the likeliest to hold `enough`: sums by classes of sizes,
 * eight to a doubling. Probabilities are from 0 to 1. */
static float least_of(const float *p, uint32_t count, double enough) {
    enum { CLASSES = 1024, SHIFT = 20 };
    double sums[CLASSES] = {0}, sum = 0;
    uint32_t bits, last = 0x3F800000u >> SHIFT;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(&bits, &p[i], sizeof bits);
        if (bits >> SHIFT <= last) sums[bits >> SHIFT] += (double)p[i];
    }
    while (last && (sum += sums[last]) < enough * (1 + 1e-9)) last--;
    bits = last << SHIFT;
    float least;
    memcpy(&least, &bits, sizeof least);
    return least;
}

int64_t llm_sample(llm_sampler *sampler, float *logits, uint32_t count) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (logits[i] > logits[best] || isnan(logits[best])) best = i;
    if (!(sampler->temperature > 0)) return best;
    float most = logits[best];
    double total = 0;
    if (isinf(most)) return best;
    for (uint32_t i = 0; i < count; i++) { /* what is not a number is least likely */
        float x = (logits[i] - most) / sampler->temperature;
        logits[i] = x >= -87 ? x : -87;
    }
    llm_exp(logits, count);
    for (uint32_t i = 0; i < count; i++) total += (double)logits[i];
    if (!(total > 0) || isinf(total)) return best;
    double draw = llm_random(&sampler->state);
    if (!(sampler->top_p < 1)) {
        draw *= total;
        for (uint32_t i = 0; i < count; i++)
            if ((draw -= (double)logits[i]) < 0) return i;
        return best;
    }
    /* Only those as likely as the last of the chosen are sorted. */
    candidate *candidates = malloc(count * sizeof *candidates);
    if (!candidates) return -1;
    float least = least_of(logits, count, (double)sampler->top_p * total);
    double kept = 0;
    uint32_t n = 0, chosen = 0;
    for (uint32_t i = 0; i < count; i++)
        if (logits[i] >= least) {
            candidates[n].probability = logits[i];
            candidates[n++].id = i;
        }
    qsort(candidates, n, sizeof *candidates, likelier);
    while (chosen < n && (chosen == 0 || kept < (double)sampler->top_p * total))
        kept += (double)candidates[chosen++].probability;
    int64_t id = best;
    draw *= kept;
    for (uint32_t i = 0; i < chosen; i++)
        if ((draw -= (double)candidates[i].probability) < 0) {
            id = candidates[i].id;
            break;
        }
    free(candidates);
    return id;
}
