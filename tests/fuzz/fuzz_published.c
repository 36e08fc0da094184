/* fuzz_published.c - what bitstack import reads: the tensors of a published checkpoint, and the two files that tell
 * the order of its blocks. The first byte chooses. */
#include "fuzz.h"
#include "examples/llm/published.h"

/* Every block once, levels ascending: what the writer asks for. */
static void use_order(const llm_published *p, const bitstack_order_entry *order) {
    uint32_t *levels = (uint32_t *)calloc(p->count + 1u, sizeof *levels);
    size_t blocks = llm_published_blocks(p);
    MUST(levels != NULL);
    for (size_t i = 0; i < blocks; i++) {
        MUST(order[i].matrix < p->count && order[i].level == levels[order[i].matrix] + 1 && order[i].level <= p->linears[order[i].matrix].levels);
        levels[order[i].matrix]++;
    }
    free(levels);
}

static void use_tensors(const void *data, size_t size, llm_error *error) {
    llm_safetensors file;
    llm_published p;
    bitstack_coded coded;
    int good = 1;
    memset(&p, 0, sizeof p);
    if (llm_safetensors_open_memory(&file, data, size, "x.safetensors", error) != 0) return;
    for (size_t i = 0; i < file.count && good; i++) good = llm_published_add(&p, &file.tensors[i], error) >= 0;
    if (good && llm_published_check(&p, "x", error) == 0) {
        bitstack_order_entry *order = (bitstack_order_entry *)malloc((llm_published_blocks(&p) + 1) * sizeof *order);
        MUST(order && llm_published_levels(&p, order) == 0);
        use_order(&p, order);
        free(order);
        for (uint32_t i = 0; i < p.count; i++) {
            if (bitstack_plane_bytes(p.linears[i].rows, p.linears[i].cols) > 1 << 20) continue;
            if (llm_published_code(&p, i, &coded, error) != 0) continue;
            bitstack_plane planes[BITSTACK_MAX_LEVELS];
            bitstack_view view;
            float row[4096];
            MUST(bitstack_coded_view(&coded, coded.shape.levels, planes, &view) == BITSTACK_OK);
            if (view.cols <= 4096) MUST(bitstack_view_dequantize(&view, view.rows - 1, 1, row, view.cols) == BITSTACK_OK);
            llm_published_coded_free(&coded);
        }
    }
    llm_published_free(&p);
    llm_safetensors_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static llm_published_linear linears[2 * LLM_LINEARS];
    llm_published p = {linears, 2 * LLM_LINEARS, 2 * LLM_LINEARS};
    bitstack_order_entry order[2 * LLM_LINEARS * 4];
    llm_published_config *configs;
    size_t count;
    llm_error error;
    if (size < 1) return 0;
    char *copy = (char *)malloc(size - 1 ? size - 1 : 1); /* exact: reading beyond is seen */
    memcpy(copy, data + 1, size - 1);
    error.message[0] = 0;
    for (int i = 0; i < 2 * LLM_LINEARS; i++) linears[i].levels = 1 + (uint32_t)i % 4;
    int result = 0;
    if (data[0] / 2 % 3 == 0) {
        result = llm_published_configs(&p, copy, size - 1, "x.json", order, &configs, &count, &error);
        if (result == 0) {
            use_order(&p, order);
            for (size_t i = 0; i < count; i++) MUST(configs[i].blocks <= llm_published_blocks(&p) && (!i || configs[i].memory >= configs[i - 1].memory));
            free(configs);
        }
    } else if (data[0] / 2 % 3 == 1) {
        result = llm_published_losses(&p, copy, size - 1, "x.json", order, &error);
        if (result == 0) use_order(&p, order);
    } else use_tensors(copy, size - 1, &error);
    if (result != 0) MUST(error.message[0]);
    MUST(!strchr(error.message, '\n'));
    free(copy);
    return 0;
}
