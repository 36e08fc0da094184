#include "safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of an element, 0 for what is not known. */
static uint64_t element_bytes(llm_string dtype) {
    static const struct { const char *name; uint64_t bytes; } types[] = {
        {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2}, {"I8", 1},
        {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (llm_string_is(dtype, types[i].name)) return types[i].bytes;
    return 0;
}

/* A whole number that JSON's doubles hold exactly. */
static int whole(const llm_json_value *value, uint64_t *out) {
    if (value->type != LLM_JSON_NUMBER || !(value->number >= 0 && value->number <= 9007199254740992.0) ||
        value->number != floor(value->number)) return -1;
    *out = (uint64_t)value->number;
    return 0;
}

/* The tensor whose description is values[at]; 0 if it is right. The data part starts at `data`. */
static int read_tensor(llm_safetensor *t, const llm_json *json, size_t at, const unsigned char *data, size_t bytes) {
    size_t dtype = llm_json_member(json, at, "dtype"), shape = llm_json_member(json, at, "shape");
    size_t offsets = llm_json_member(json, at, "data_offsets");
    uint64_t from, to;
    if (!dtype || json->values[dtype].type != LLM_JSON_STRING || !shape || json->values[shape].type != LLM_JSON_ARRAY ||
        json->values[shape].count > 4 || !offsets || json->values[offsets].type != LLM_JSON_ARRAY ||
        json->values[offsets].count != 2) return -1;
    t->dtype = json->values[dtype].string;
    t->bytes = element_bytes(t->dtype);
    t->dimensions = (int)json->values[shape].count;
    if (!t->bytes) return -1;
    for (int i = 0; i < 4; i++) { /* numbers take one entry each */
        t->shape[i] = 1;
        if (i < t->dimensions && whole(&json->values[shape + 1 + (size_t)i], &t->shape[i]) != 0) return -1;
        if (t->shape[i] && t->bytes > INT64_MAX / t->shape[i]) return -1;
        t->bytes *= t->shape[i];
    }
    if (whole(&json->values[offsets + 1], &from) != 0 || whole(&json->values[offsets + 2], &to) != 0) return -1;
    if (from > to || to > bytes || to - from != t->bytes) return -1;
    t->data = data + from;
    return 0;
}

static int by_data(const void *a, const void *b) {
    const llm_safetensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

int llm_safetensors_open_memory(llm_safetensors *file, const void *data, size_t bytes, const char *name, llm_error *error) {
    const unsigned char *from = data;
    uint64_t header = 0;
    llm_error why;
    memset(file, 0, sizeof *file);
    for (int i = 0; i < 8 && bytes >= 8; i++) header |= (uint64_t)from[i] << (8 * i);
    if (bytes < 8 || header > bytes - 8 || header > 100000000)
        return llm_fail(error, "%s: offset 0: expected the length of a header that is there, at most 100 MB", name);
    if (!header || from[8] != '{') return llm_fail(error, "%s: offset 8: expected '{'", name);
    if (llm_json_parse(&file->header, (const char *)from + 8, (size_t)header, name, &why) != 0)
        return llm_fail(error, "%s (from offset 8)", why.message);
    const llm_json *json = &file->header;
    size_t members = json->values[0].count, at = 1;
    const unsigned char *start = from + 8 + header, *end = from + bytes;
    file->tensors = calloc(members + 1, sizeof *file->tensors);
    if (!file->tensors) {
        llm_safetensors_close(file);
        return llm_fail(error, "%s: out of memory", name);
    }
    for (size_t i = 0; i < members; i++, at += 1 + json->values[at + 1].skip) {
        llm_safetensor *t = &file->tensors[file->count];
        t->name = json->values[at].string;
        if (llm_string_is(t->name, "__metadata__")) continue;
        if (read_tensor(t, json, at + 1, start, (size_t)(end - start)) != 0) {
            llm_fail(error, "%s: tensor '%.*s': expected a known dtype, up to 4 dimensions, and data_offsets that fit them and "
                     "the %llu bytes of data", name, (int)(t->name.bytes < 100 ? t->name.bytes : 100), t->name.text,
                     (unsigned long long)(end - start));
            llm_safetensors_close(file);
            return -1;
        }
        file->count++;
    }
    /* Every byte belongs to one tensor: a file that hides or shares some is not what it says. */
    qsort(file->tensors, file->count, sizeof *file->tensors, by_data);
    for (size_t i = 0; i < file->count && start; i++)
        start = file->tensors[i].data == start ? start + file->tensors[i].bytes : NULL;
    if (start == end) return 0;
    llm_safetensors_close(file);
    return llm_fail(error, "%s: offset %llu: expected tensors that follow each other up to the end of the file", name,
                    (unsigned long long)(8 + header));
}

int llm_safetensors_open(llm_safetensors *file, const char *path, llm_error *error) {
    llm_mapping mapping;
    if (llm_map(&mapping, path, "a safetensors file", error) != 0) return -1;
    if (llm_safetensors_open_memory(file, mapping.data, mapping.bytes, path, error) != 0) {
        llm_unmap(&mapping);
        return -1;
    }
    file->mapping = mapping;
    return 0;
}

void llm_safetensors_close(llm_safetensors *file) {
    free(file->tensors);
    llm_json_free(&file->header);
    llm_unmap(&file->mapping);
    memset(file, 0, sizeof *file);
}

const llm_safetensor *llm_safetensors_find(const llm_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (llm_string_is(file->tensors[i].name, name)) return &file->tensors[i];
    return NULL;
}
