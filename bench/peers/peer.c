/* peer.c - the table of everything that is compared. */
#include "peer.h"

#include <string.h>

#define UNIFORM(encode) encode, peer_uniform_dequantize, NULL, peer_uniform_release

static const peer peers[] = {
    {"rtn-2-g128", "RTN g128", 2, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-3-g128", "RTN g128", 3, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-4-g128", "RTN g128", 4, 128, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-2-g32", "RTN g32", 2, 32, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-3-g32", "RTN g32", 3, 32, 0, UNIFORM(peer_rtn_encode)},
    {"rtn-4-g32", "RTN g32", 4, 32, 0, UNIFORM(peer_rtn_encode)},
    {"gptq-2-g128", "GPTQ g128", 2, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g128", "GPTQ g128", 3, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g128", "GPTQ g128", 4, 128, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-2-g128-act", "GPTQ g128 act-order", 2, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g128-act", "GPTQ g128 act-order", 3, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g128-act", "GPTQ g128 act-order", 4, 128, 2, UNIFORM(peer_gptq_encode)},
    {"gptq-2-g32", "GPTQ g32", 2, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-3-g32", "GPTQ g32", 3, 32, 0, UNIFORM(peer_gptq_encode)},
    {"gptq-4-g32", "GPTQ g32", 4, 32, 0, UNIFORM(peer_gptq_encode)},
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
