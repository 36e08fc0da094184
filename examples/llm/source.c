#include "source.h"
#include "gguf.h"
#include "hf.h"
#include "platform.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int llm_fail(llm_error *error, const char *format, ...) {
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        for (char *c = error->message; *c; c++) /* names from files must not break the line */
            if ((unsigned char)*c < 32 || *c == 127) *c = '?';
    }
    return -1;
}

int llm_string_is(llm_string string, const char *text) {
    return string.text && string.bytes == strlen(text) && memcmp(string.text, text, string.bytes) == 0;
}

/* ---- metadata ---- */

size_t llm_value_bytes(int type) {
    static const unsigned char bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type >= 0 && type <= LLM_F64 ? bytes[type] : 0;
}

double llm_meta_element(const llm_meta *meta, uint64_t index) {
    union { /* read through memcpy: the file aligns nothing */
        uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32;
        float f32; uint64_t u64; int64_t i64; double f64;
    } v;
    size_t bytes = llm_value_bytes((int)meta->type);
    if (!meta->numbers || !bytes || index >= meta->count) return 0;
    memcpy(&v, meta->numbers + index * bytes, bytes);
    switch (meta->type) {
    case LLM_U8: case LLM_BOOL: return v.u8;
    case LLM_I8: return v.i8;
    case LLM_U16: return v.u16;
    case LLM_I16: return v.i16;
    case LLM_U32: return v.u32;
    case LLM_I32: return v.i32;
    case LLM_F32: return (double)v.f32;
    case LLM_U64: return (double)v.u64;
    case LLM_I64: return (double)v.i64;
    case LLM_F64: return v.f64;
    case LLM_STRING: case LLM_ARRAY: break;
    }
    return 0;
}

const llm_meta *llm_find_meta(const llm_source *source, const char *key) {
    for (size_t i = 0; i < source->meta_count; i++)
        if (llm_string_is(source->meta[i].key, key)) return &source->meta[i];
    return NULL;
}

double llm_number(const llm_source *source, const char *key, double fallback) {
    const llm_meta *meta = llm_find_meta(source, key);
    return meta && meta->numbers && meta->count ? llm_meta_element(meta, 0) : fallback;
}

llm_string llm_text(const llm_source *source, const char *key) {
    const llm_meta *meta = llm_find_meta(source, key);
    llm_string none = {NULL, 0};
    return meta && meta->strings && meta->count ? meta->strings[0] : none;
}

/* ---- tensors ---- */

uint64_t llm_tensor_cols(const llm_tensor *tensor) {
    return tensor->dimensions ? tensor->shape[tensor->dimensions - 1] : 1;
}

uint64_t llm_tensor_rows(const llm_tensor *tensor) {
    uint64_t rows = 1;
    for (int i = 0; i + 1 < tensor->dimensions; i++) rows *= tensor->shape[i];
    return rows;
}

void llm_tensor_read(const llm_tensor *tensor, uint64_t first, uint64_t count, float *out) {
    const llm_packing *packing = llm_packing_of((uint32_t)tensor->type);
    uint64_t cols = llm_tensor_cols(tensor); /* a multiple of packing->elements: checked on opening */
    packing->unpack(tensor->data + first * cols / packing->elements * packing->bytes, count * cols, out);
}

int llm_tensor_check(const llm_source *source, const llm_tensor *tensor, llm_error *error) {
    enum { ROOM = 4096 };
    float some[ROOM];
    const llm_packing *packing = llm_packing_of((uint32_t)tensor->type);
    uint64_t cols = llm_tensor_cols(tensor), count = cols * llm_tensor_rows(tensor), step = ROOM / packing->elements * packing->elements;
    for (uint64_t at = 0; at < count; at += step) {
        uint64_t n = count - at < step ? count - at : step;
        packing->unpack(tensor->data + at / packing->elements * packing->bytes, n, some);
        for (uint64_t i = 0; i < n; i++)
            if (!isfinite(some[i]))
                return llm_fail(error, "%s: tensor '%.*s': expected finite numbers, found %s in row %llu, column %llu", source->path,
                                (int)(tensor->name.bytes < 100 ? tensor->name.bytes : 100), tensor->name.text,
                                isnan(some[i]) ? "NaN" : some[i] > 0 ? "infinity" : "-infinity", (unsigned long long)((at + i) / cols),
                                (unsigned long long)((at + i) % cols));
    }
    return 0;
}

/* ---- by name ---- */

static int compare(llm_string a, llm_string b) {
    size_t bytes = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = bytes ? memcmp(a.text, b.text, bytes) : 0;
    return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static int by_name(const void *a, const void *b) {
    const llm_named *x = a, *y = b;
    int order = compare(x->name, y->name);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

/* Where the name stands, the first of equals; `count` if nowhere. */
static size_t find_sorted(const llm_named *names, size_t count, llm_string name) {
    size_t from = 0, to = count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (compare(names[middle].name, name) < 0) from = middle + 1;
        else to = middle;
    }
    return from < count && compare(names[from].name, name) == 0 ? names[from].at : count;
}

static void forget_names(llm_source *source) {
    free(source->tensor_names), free(source->matrix_names);
    source->tensor_names = source->matrix_names = NULL;
}

int llm_source_sort(llm_source *source) {
    size_t matrices = source->stack ? (size_t)bitstack_matrix_count(source->stack) : 0;
    forget_names(source);
    source->tensor_names = malloc((source->tensor_count + 1) * sizeof *source->tensor_names);
    source->matrix_names = malloc((matrices + 1) * sizeof *source->matrix_names);
    if (!source->tensor_names || !source->matrix_names) {
        forget_names(source);
        return -1;
    }
    for (size_t i = 0; i < source->tensor_count; i++) source->tensor_names[i].name = source->tensors[i].name, source->tensor_names[i].at = i;
    for (size_t i = 0; i < matrices; i++) {
        bitstack_matrix matrix;
        bitstack_get_matrix(source->stack, (int)i, &matrix);
        source->matrix_names[i].name.text = matrix.name;
        source->matrix_names[i].name.bytes = matrix.name_bytes;
        source->matrix_names[i].at = i;
    }
    qsort(source->tensor_names, source->tensor_count, sizeof *source->tensor_names, by_name);
    qsort(source->matrix_names, matrices, sizeof *source->matrix_names, by_name);
    return 0;
}

const llm_tensor *llm_find_tensor_named(const llm_source *source, llm_string name) {
    size_t at = 0;
    if (source->tensor_names) at = find_sorted(source->tensor_names, source->tensor_count, name);
    else
        while (at < source->tensor_count && compare(source->tensors[at].name, name) != 0) at++;
    return at < source->tensor_count ? &source->tensors[at] : NULL;
}

const llm_tensor *llm_find_tensor(const llm_source *source, const char *name) {
    llm_string text = {name, strlen(name)};
    return llm_find_tensor_named(source, text);
}

int llm_find_matrix(const llm_source *source, const char *name) {
    llm_string text = {name, strlen(name)};
    if (!source->stack) return -1;
    if (!source->matrix_names) return bitstack_find_matrix(source->stack, name);
    size_t count = (size_t)bitstack_matrix_count(source->stack), at = find_sorted(source->matrix_names, count, text);
    return at < count ? (int)at : -1;
}

/* ---- files and memory ---- */

/* What downloads leave in the place of a file: Git LFS's pointer to it, or a page that says why not. */
static int stand_in(const char *path, llm_mapping *mapping, llm_error *error) {
    static const char lfs[] = "version https://git-lfs.github.com/spec/";
    static const char *const pages[] = {"<!DOCTYPE html", "<!doctype html", "<html"};
    const char *what = mapping->bytes >= sizeof lfs - 1 && memcmp(mapping->data, lfs, sizeof lfs - 1) == 0
                           ? "a Git LFS pointer, not the file itself; \"git lfs pull\" in its folder fetches it" : NULL;
    for (int i = 0; i < 3; i++)
        if (mapping->bytes >= strlen(pages[i]) && memcmp(mapping->data, pages[i], strlen(pages[i])) == 0) what = "a web page, not the file: the download failed";
    if (!what) return 0;
    llm_unmap(mapping);
    return llm_fail(error, "%s: it is %s", path, what);
}

int llm_map(llm_mapping *mapping, const char *path, const char *what, llm_error *error) {
    mapping->data = (void *)(uintptr_t)platform_map(path, &mapping->bytes);
    if (mapping->data) return stand_in(path, mapping, error);
    if (!mapping->bytes) return llm_fail(error, "%s: expected %s that is not empty", path, what);
    return llm_fail(error, "%s: %s", path, strerror(errno));
}

void llm_unmap(llm_mapping *mapping) {
    if (mapping->data) platform_unmap(mapping->data, mapping->bytes);
    mapping->data = NULL;
}

void *llm_source_own(llm_source *source, size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    void **owned = memory ? realloc(source->owned, (source->owned_count + 1) * sizeof *owned) : NULL;
    if (!owned) {
        free(memory);
        return NULL;
    }
    source->owned = owned;
    return owned[source->owned_count++] = memory;
}

int llm_source_add_mapping(llm_source *source, llm_mapping mapping) {
    llm_mapping *mappings = realloc(source->mappings, (source->mapping_count + 1) * sizeof *mappings);
    if (!mappings) {
        llm_unmap(&mapping);
        return -1;
    }
    source->mappings = mappings;
    mappings[source->mapping_count++] = mapping;
    return 0;
}

void llm_tensor_forget(const llm_source *source, const llm_tensor *tensor) {
    uintptr_t from = (uintptr_t)tensor->data, to = from + (uintptr_t)tensor->bytes;
    for (size_t i = 0; i < source->mapping_count; i++) {
        uintptr_t start = (uintptr_t)source->mappings[i].data, end = start + source->mappings[i].bytes;
        if (from < start || to > end) continue;
        platform_forget(tensor->data, (size_t)(to - from)); /* neighbours lose at most a page of theirs */
        return;
    }
}

/* ---- making one up ---- */

/* A copy that lives as long as the source. */
static const char *keep(llm_source *source, const void *from, size_t bytes) {
    char *copy = llm_source_own(source, bytes);
    if (copy && bytes) memcpy(copy, from, bytes);
    return copy;
}

/* Arrays double when their length is a power of two, and may not be changed by others meanwhile. */
static void *grown(void *array, size_t count, size_t element_bytes) {
    return count & (count - 1) ? array : realloc(array, (count ? 2 * count : 1) * element_bytes);
}

static llm_meta *add_meta(llm_source *source, const char *key, llm_value type, uint64_t count) {
    llm_meta *meta = NULL;
    for (size_t i = 0; i < source->meta_count && !meta; i++)
        if (llm_string_is(source->meta[i].key, key)) meta = &source->meta[i];
    if (meta) { /* the later value counts */
        free(meta->strings);
        meta->strings = NULL;
        meta->numbers = NULL;
        meta->type = type;
        meta->count = count;
        return meta;
    }
    llm_meta *metas = grown(source->meta, source->meta_count, sizeof *metas);
    if (!metas) return NULL;
    source->meta = metas;
    meta = &metas[source->meta_count];
    memset(meta, 0, sizeof *meta);
    meta->key.bytes = strlen(key);
    meta->key.text = keep(source, key, meta->key.bytes);
    meta->type = type;
    meta->count = count;
    if (!meta->key.text) return NULL;
    source->meta_count++;
    return meta;
}

int llm_add_numbers(llm_source *source, const char *key, llm_value type, const void *numbers, size_t count) {
    const char *copy = keep(source, numbers, count * llm_value_bytes((int)type));
    llm_meta *meta = copy ? add_meta(source, key, type, count) : NULL;
    if (!meta) return -1;
    meta->numbers = (const unsigned char *)copy;
    return 0;
}

int llm_add_whole(llm_source *source, const char *key, uint32_t value) {
    return llm_add_numbers(source, key, LLM_U32, &value, 1);
}

int llm_add_float(llm_source *source, const char *key, float value) {
    return llm_add_numbers(source, key, LLM_F32, &value, 1);
}

int llm_add_strings(llm_source *source, const char *key, llm_string *strings, size_t count) {
    llm_meta *meta = strings ? add_meta(source, key, LLM_STRING, count) : NULL;
    if (meta) meta->strings = strings;
    else free(strings);
    return meta ? 0 : -1;
}

int llm_add_text(llm_source *source, const char *key, llm_string text) {
    llm_string *copy = malloc(sizeof *copy);
    if (!copy) return -1;
    copy->bytes = text.bytes;
    copy->text = keep(source, text.text, text.bytes);
    if (copy->text) return llm_add_strings(source, key, copy, 1);
    free(copy);
    return -1;
}

int llm_add_tensor(llm_source *source, const char *name, llm_tensor tensor) {
    llm_tensor *tensors = grown(source->tensors, source->tensor_count, sizeof *tensors);
    forget_names(source);
    if (!tensors) return -1;
    source->tensors = tensors;
    tensor.name.bytes = strlen(name);
    tensor.name.text = keep(source, name, tensor.name.bytes);
    if (!tensor.name.text) return -1;
    tensors[source->tensor_count++] = tensor;
    return 0;
}

/* ---- sources ---- */

int llm_source_stack(llm_source *source, bitstack *stack, const char *path, llm_error *error) {
    static const llm_value values[] = {LLM_ARRAY, LLM_U8, LLM_U32, LLM_I32, LLM_F32,
                                       LLM_U64, LLM_I64, LLM_F64, LLM_STRING};
    static const llm_type types[] = {LLM_TYPE_F32, LLM_TYPE_F32, LLM_TYPE_F16, LLM_TYPE_BF16, LLM_TYPE_F32, LLM_TYPE_Q8_0};
    size_t metas = (size_t)bitstack_meta_count(stack), tensors = (size_t)bitstack_tensor_count(stack);
    memset(source, 0, sizeof *source);
    source->stack = stack;
    source->path = strdup(path);
    source->meta = calloc(metas + 1, sizeof *source->meta);
    source->tensors = calloc(tensors + 1, sizeof *source->tensors);
    if (!source->path || !source->meta || !source->tensors) goto memory;
    for (size_t i = 0; i < metas; i++) {
        llm_meta *meta = &source->meta[source->meta_count];
        bitstack_meta from;
        if (bitstack_get_meta(stack, (int)i, &from) != BITSTACK_OK) continue;
        if (from.type < BITSTACK_META_U8 || from.type > BITSTACK_META_STRING) continue; /* from a newer writer */
        meta->key.text = from.key;
        meta->key.bytes = from.key_bytes;
        meta->type = values[from.type];
        meta->count = from.count;
        if (from.type == BITSTACK_META_STRING) {
            uint64_t cursor = 0;
            meta->strings = calloc((size_t)from.count + 1, sizeof *meta->strings);
            if (!meta->strings) goto memory;
            for (size_t j = 0; j < from.count; j++) {
                meta->strings[j].text = bitstack_meta_next_string(&from, &cursor, &meta->strings[j].bytes);
                if (!meta->strings[j].text) meta->strings[j].bytes = 0;
            }
        } else meta->numbers = from.value;
        source->meta_count++;
    }
    for (size_t i = 0; i < tensors; i++) {
        llm_tensor *tensor = &source->tensors[source->tensor_count];
        bitstack_tensor from;
        if (bitstack_get_tensor(stack, (int)i, &from) != BITSTACK_OK || from.type == BITSTACK_BYTES) continue;
        tensor->name.text = from.name;
        tensor->name.bytes = from.name_bytes;
        tensor->type = types[from.type];
        tensor->dimensions = from.dimensions;
        memcpy(tensor->shape, from.shape, sizeof tensor->shape);
        tensor->data = from.data;
        tensor->bytes = from.bytes;
        source->tensor_count++;
    }
    return 0;
memory:
    llm_source_close(source);
    return llm_fail(error, "%s: out of memory", path);
}

int llm_source_open(llm_source *source, const char *path, const bitstack_options *options, llm_error *error) {
    char magic[8] = {0};
    platform_status status;
    if (platform_look(path, &status) == 0 && status.kind == PLATFORM_FOLDER) return llm_hf_open(source, path, error);
    FILE *file = platform_open(path, "rb");
    if (!file) return llm_fail(error, "%s: %s", path, strerror(errno));
    size_t got = fread(magic, 1, sizeof magic, file);
    fclose(file);
    if (got >= 4 && memcmp(magic, "GGUF", 4) == 0) return llm_gguf_open(source, path, error);
    if (got < 8 || memcmp(magic, "BITSTACK", 8) != 0) {
        llm_mapping mapping;
        if (got && llm_map(&mapping, path, "a model", error) != 0) return -1;
        if (got) llm_unmap(&mapping);
        if (!got) return llm_fail(error, "%s: it is empty: expected a GGUF file or a stack", path);
        if (got >= 8 && magic[0] == 'P' && magic[1] == 'K' && magic[2] == 3)
            return llm_fail(error, "%s: it is PyTorch's format, which is not read; expected GGUF, or a folder with safetensors", path);
        return llm_fail(error, "%s: offset 0: expected a GGUF file or a stack (\"GGUF\" or \"BITSTACK\"), or a folder with "
                        "config.json and safetensors", path);
    }
    bitstack *stack;
    bitstack_error why;
    memset(&why, 0, sizeof why);
    if (bitstack_open_file(&stack, path, options, &why) != BITSTACK_OK)
        return llm_fail(error, "%s: offset %llu: %s", path, (unsigned long long)why.byte_offset, why.message);
    return llm_source_stack(source, stack, path, error);
}

void llm_source_close(llm_source *source) {
    for (size_t i = 0; source->meta && i < source->meta_count; i++) free(source->meta[i].strings);
    forget_names(source);
    free(source->meta);
    free(source->tensors);
    free(source->path);
    bitstack_close(source->stack);
    for (size_t i = 0; i < source->mapping_count; i++) llm_unmap(&source->mappings[i]);
    for (size_t i = 0; i < source->owned_count; i++) free(source->owned[i]);
    free(source->mappings);
    free(source->owned);
    memset(source, 0, sizeof *source);
}
