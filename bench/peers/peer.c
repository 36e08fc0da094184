/* peer.c - the table of everything that is compared. */
#include "peer.h"

#include <string.h>

#define UNIFORM(encode) encode, peer_uniform_dequantize, peer_uniform_gemv, peer_uniform_release
#define OWN(x) peer_##x##_encode, peer_##x##_dequantize, peer_##x##_gemv, peer_##x##_release

static const peer peers[] = {
    {"rtn-2-g128", "RTN g128", 2, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-3-g128", "RTN g128", 3, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-4-g128", "RTN g128", 4, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-5-g128", "RTN g128", 5, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-6-g128", "RTN g128", 6, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-2-g32", "RTN g32", 2, 32, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-3-g32", "RTN g32", 3, 32, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-4-g32", "RTN g32", 4, 32, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-5-g32", "RTN g32", 5, 32, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-6-g32", "RTN g32", 6, 32, 0, UNIFORM(peer_rtn_encode)},
    {"gptq-2-g128", "GPTQ g128", 2, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g128", "GPTQ g128", 3, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g128", "GPTQ g128", 4, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-5-g128", "GPTQ g128", 5, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-6-g128", "GPTQ g128", 6, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-2-g32", "GPTQ g32", 2, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g32", "GPTQ g32", 3, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g32", "GPTQ g32", 4, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-5-g32", "GPTQ g32", 5, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-6-g32", "GPTQ g32", 6, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-2-g128-act", "GPTQ g128 act-order", 2, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g128-act", "GPTQ g128 act-order", 3, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g128-act", "GPTQ g128 act-order", 4, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-5-g128-act", "GPTQ g128 act-order", 5, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-6-g128-act", "GPTQ g128 act-order", 6, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-2-g128-best", "GPTQ g128 act-order, searched grid", 2, 128, 3, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g128-best", "GPTQ g128 act-order, searched grid", 3, 128, 3, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g128-best", "GPTQ g128 act-order, searched grid", 4, 128, 3, UNIFORM(peer_gptq_encode)},
    {"awq-2-g128", "AWQ g128", 2, 128, 0, UNIFORM(peer_awq_encode)},
    {"awq-3-g128", "AWQ g128", 3, 128, 0, UNIFORM(peer_awq_encode)},
    {"awq-4-g128", "AWQ g128", 4, 128, 0, UNIFORM(peer_awq_encode)},
    {"q4_0", "Q4_0", 4, 32, 0, OWN(ggml)},
    {"q2_k", "llama.cpp K types", 2, 16, 1, OWN(ggml)},
    {"q3_k", "llama.cpp K types", 3, 16, 2, OWN(ggml)},
    {"q4_k", "llama.cpp K types", 4, 32, 3, OWN(ggml)},
    {"q5_k", "llama.cpp K types", 5, 32, 4, OWN(ggml)},
    {"q6_k", "llama.cpp K types", 6, 16, 5, OWN(ggml)},
    {"greedy", "greedy binary", 6, 128, 0, OWN(binary)},
    {"any-precision", "any-precision, uniform", 8, 128, 1, OWN(binary)},
    {"aqlm-1x8", "AQLM", 8, 1, 4, OWN(aqlm)},
    {"aqlm-2x8", "AQLM", 8, 2, 4, OWN(aqlm)},
    {"aqlm-1x12", "AQLM", 12, 1, 4, OWN(aqlm)},
    {"aqlm-1x16", "AQLM", 16, 1, 4, OWN(aqlm)},
    {"bitstack-iabs-16", "BitStack as published, rank 16", 8, 16, 1, OWN(stack)},
    {"bitstack-iabs-1", "BitStack as published, rank 1", 8, 1, 1, OWN(stack)},
    {"bitstack", "BitStack nested", 6, 0, 0, OWN(stack)},
};

const peer *peer_at(int index) {
    return index >= 0 && (size_t)index < sizeof peers / sizeof *peers ? &peers[index] : NULL;
}
const peer *peer_find(const char *name) {
    for (int i = 0; peer_at(i); i++)
        if (!strcmp(peer_at(i)->name, name)) return peer_at(i);
    return NULL;
}

bitstack_result peer_encode(const peer *method, peer_coded *out, const float *w, uint32_t rows, uint32_t cols,
                            const bitstack_moments *moments, int threads) {
    peer_coded coded = {.peer = method, .rows = rows, .cols = cols};
    bitstack_result result;
    if (moments && (moments->cols != cols || !moments->h)) return BITSTACK_ERROR_ARGUMENT;
    result = method->encode(&coded, w, moments, threads);
    if (result == BITSTACK_OK) *out = coded;
    return result;
}
void peer_free(peer_coded *coded) {
    if (coded->data) coded->peer->release(coded);
    memset(coded, 0, sizeof *coded);
}
