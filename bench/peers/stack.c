/* stack.c - this project's own codings through bitstack_compress.h: nested (option 0) and iabs as the
 * authors of BitStack have it (option 1). `bits` is the number of levels, `group` the rank. */
#include "peer.h"

#include <stdlib.h>

bitstack_result peer_stack_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    bitstack_encode_options options = {.method = out->peer->option ? BITSTACK_IABS : BITSTACK_NESTED,
                                       .levels = (uint32_t)out->peer->bits, .rank = (uint32_t)out->peer->group, .threads = threads};
    bitstack_coded *coded = peer_alloc(1, sizeof *coded);
    bitstack_result result = bitstack_encode_matrix(coded, w, out->rows, out->cols, out->cols, moments, &options);
    if (result != BITSTACK_OK) {
        free(coded);
        return result;
    }
    out->data = coded;
    out->levels = coded->shape.levels;
    for (uint32_t l = 1; l <= out->levels; l++) out->bytes[l - 1] = bitstack_live_bytes(&coded->shape, l);
    return BITSTACK_OK;
}
void peer_stack_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    bitstack_plane planes[BITSTACK_MAX_LEVELS];
    bitstack_view view;
    bitstack_coded_view(coded->data, level, planes, &view);
    bitstack_view_dequantize(&view, 0, coded->rows, out, coded->cols);
}
void peer_stack_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    bitstack_plane planes[BITSTACK_MAX_LEVELS];
    bitstack_view view;
    bitstack_coded_view(coded->data, level, planes, &view);
    bitstack_view_gemv(&view, BITSTACK_FAST, x, y, 0, coded->rows);
}
void peer_stack_release(peer_coded *coded) {
    bitstack_coded_free(coded->data);
    free(coded->data);
}
