#include "resident.h"

#include <stdlib.h>
#include <string.h>

bitstack_result write_meta(bitstack_writer *writer, const llm_meta *meta) {
    static const bitstack_meta_type types[] = {
        BITSTACK_META_U8, BITSTACK_META_I32, BITSTACK_META_U32, BITSTACK_META_I32, BITSTACK_META_U32, BITSTACK_META_I32,
        BITSTACK_META_F32, BITSTACK_META_U8, BITSTACK_META_STRING, BITSTACK_META_STRING, BITSTACK_META_U64,
        BITSTACK_META_I64, BITSTACK_META_F64};
    size_t count = (size_t)meta->count;
    bitstack_result result = BITSTACK_ERROR_MEMORY;
    char *key = malloc(meta->key.bytes + 1);
    if (!key) return result;
    memcpy(key, meta->key.text, meta->key.bytes);
    key[meta->key.bytes] = 0;
    if (meta->type == LLM_STRING) {
        const char **strings = malloc((count + 1) * sizeof *strings);
        size_t *bytes = malloc((count + 1) * sizeof *bytes);
        for (size_t i = 0; i < count && strings && bytes; i++) strings[i] = meta->strings[i].text, bytes[i] = meta->strings[i].bytes;
        if (strings && bytes) result = bitstack_writer_meta_strings(writer, key, strings, bytes, count);
        free(strings), free(bytes);
    } else if (llm_value_bytes((int)meta->type) == (types[meta->type] == BITSTACK_META_U8 ? 1u : 4u) ||
               llm_value_bytes((int)meta->type) == 8)
        result = bitstack_writer_meta(writer, key, types[meta->type], meta->numbers, count);
    else { /* small integers become 32-bit ones */
        int32_t *wide = malloc((count + 1) * sizeof *wide);
        for (size_t i = 0; i < count && wide; i++) wide[i] = (int32_t)llm_meta_element(meta, i);
        if (wide) result = bitstack_writer_meta(writer, key, types[meta->type], wide, count);
        free(wide);
    }
    free(key);
    return result;
}

/* A stack holds F32, F16, BF16 and Q8_0 as they are; of others, blocks become F16 and plain numbers F32. */
bitstack_result write_tensor(bitstack_writer *writer, const llm_tensor *tensor) {
    const int eight = tensor->type == LLM_TYPE_Q8_0;
    const int kept = eight || tensor->type == LLM_TYPE_F32 || tensor->type == LLM_TYPE_F16 || tensor->type == LLM_TYPE_BF16;
    const int blocks = !eight && llm_packing_of((uint32_t)tensor->type)->elements > 1;
    bitstack_type type = eight ? BITSTACK_Q8_0 : tensor->type == LLM_TYPE_BF16 ? BITSTACK_BF16 : tensor->type == LLM_TYPE_F16 || blocks ? BITSTACK_F16 : BITSTACK_F32;
    uint64_t rows = llm_tensor_rows(tensor), cols = llm_tensor_cols(tensor);
    bitstack_result result = BITSTACK_ERROR_MEMORY;
    char *name = malloc(tensor->name.bytes + 1);
    float *all = kept ? NULL : malloc((size_t)(rows * cols) * sizeof *all);
    if (name && (kept || all)) {
        memcpy(name, tensor->name.text, tensor->name.bytes);
        name[tensor->name.bytes] = 0;
        if (all) llm_tensor_read(tensor, 0, rows, all);
        unsigned char *bytes = (unsigned char *)all; /* halves take the place of floats that were read before */
        for (uint64_t i = 0; blocks && i < rows * cols; i++) {
            float value;
            memcpy(&value, bytes + i * sizeof value, sizeof value);
            uint16_t bits = bitstack_f32_to_f16(value);
            memcpy(bytes + i * sizeof bits, &bits, sizeof bits);
        }
        result = bitstack_writer_tensor(writer, name, type, tensor->dimensions, tensor->shape, kept ? (const void *)tensor->data : all);
    }
    free(all), free(name);
    return result;
}
