#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A cursor over the file. The first failure sticks: later reads give zeros, so callers check once. */
typedef struct reader {
    const unsigned char *data;
    size_t bytes, at;
    const char *name;
    llm_error *error;
    int failed;
} reader;

static void expected(reader *r, const char *what) {
    if (r->failed) return;
    r->failed = 1;
    llm_fail(r->error, "%s: offset %llu: expected %s", r->name, (unsigned long long)r->at, what);
}

static size_t left(const reader *r) { return r->failed ? 0 : r->bytes - r->at; }

static uint64_t number(reader *r, size_t bytes, const char *what) {
    uint64_t value = 0;
    if (left(r) < bytes) {
        expected(r, what);
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) value |= (uint64_t)r->data[r->at + i] << (8 * i);
    r->at += bytes;
    return value;
}

static llm_string string(reader *r, const char *what) {
    llm_string none = {"", 0}, result;
    uint64_t bytes = number(r, 8, what);
    if (bytes > left(r)) {
        if (!r->failed) r->at -= 8;
        expected(r, what);
    }
    if (r->failed) return none;
    result.text = (const char *)r->data + r->at;
    result.bytes = (size_t)bytes;
    r->at += (size_t)bytes;
    return result;
}

/* Passes over an array of arrays, which no model needs; `depth` stops hostile nesting. */
static void skip_array(reader *r, int depth) {
    uint32_t type = (uint32_t)number(r, 4, "an array's element type");
    uint64_t count = number(r, 8, "an array's length");
    size_t bytes = llm_value_bytes((int)type);
    if (type > LLM_F64 || depth > 4) expected(r, "an array of a known type");
    else if (bytes) {
        if (count > left(r) / bytes) expected(r, "as many array elements as announced");
        else r->at += (size_t)count * bytes;
    } else
        for (uint64_t i = 0; i < count && !r->failed; i++)
            if (type == LLM_STRING) string(r, "a string of an array");
            else skip_array(r, depth + 1);
}

static void read_value(reader *r, llm_meta *meta) {
    uint32_t type = (uint32_t)number(r, 4, "a value type");
    uint64_t count = 1;
    if (type == LLM_ARRAY) {
        size_t start = r->at;
        type = (uint32_t)number(r, 4, "an array's element type");
        count = number(r, 8, "an array's length");
        if (type == LLM_ARRAY) {
            r->at = start;
            skip_array(r, 0);
            meta->type = LLM_ARRAY;
            return;
        }
    }
    if (r->failed) return;
    if (type > LLM_F64) {
        r->at -= 4;
        expected(r, "a value type from 0 to 12");
        return;
    }
    meta->type = (llm_value)type;
    meta->count = count;
    if (type == LLM_STRING) {
        if (count > left(r) / 8) expected(r, "as many strings as announced"); /* each has a length */
        else if (!(meta->strings = calloc((size_t)count + 1, sizeof *meta->strings))) expected(r, "more memory");
        for (uint64_t i = 0; i < count && !r->failed; i++) meta->strings[i] = string(r, "a string");
    } else {
        size_t bytes = llm_value_bytes((int)type);
        meta->numbers = r->data + r->at;
        if (count > left(r) / bytes) expected(r, "as many numbers as announced");
        else r->at += (size_t)count * bytes;
    }
}

static void read_tensor(reader *r, llm_tensor *tensor, uint64_t *offset) {
    uint64_t fastest_first[4] = {1, 1, 1, 1}, elements = 1;
    tensor->name = string(r, "a tensor name");
    uint32_t dimensions = (uint32_t)number(r, 4, "a number of dimensions");
    if (dimensions > 4) {
        if (!r->failed) r->at -= 4;
        expected(r, "0 to 4 dimensions");
    }
    for (uint32_t i = 0; i < dimensions && !r->failed; i++) {
        fastest_first[i] = number(r, 8, "a dimension");
        if (r->failed) return;
        if (!fastest_first[i] || fastest_first[i] > INT64_MAX / elements) {
            r->at -= 8;
            expected(r, "dimensions from 1 whose product does not overflow");
            return;
        }
        elements *= fastest_first[i];
    }
    uint32_t type = (uint32_t)number(r, 4, "a tensor type");
    if (r->failed) return;
    const llm_packing *packing = llm_packing_of(type);
    if (!packing || fastest_first[0] % packing->elements || elements / packing->elements > INT64_MAX / packing->bytes) {
        const int name = (int)(tensor->name.bytes < 100 ? tensor->name.bytes : 100);
        r->failed = 1;
        if (!packing)
            llm_fail(r->error, "%s: offset %llu: tensor '%.*s' has type %u: expected F32, F16, BF16, or a block type: Q4_0 to Q8_0, Q2_K to Q6_K, "
                     "IQ1_S to IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4", r->name, (unsigned long long)r->at - 4, name, tensor->name.text, (unsigned)type);
        else
            llm_fail(r->error, "%s: offset %llu: tensor '%.*s' has rows of %llu: expected a multiple of %u for %s", r->name,
                     (unsigned long long)r->at - 4, name, tensor->name.text, (unsigned long long)fastest_first[0], packing->elements, packing->name);
        return;
    }
    *offset = number(r, 8, "a tensor offset");
    tensor->type = (llm_type)type;
    tensor->dimensions = (int)dimensions;
    for (uint32_t i = 0; i < 4; i++) tensor->shape[i] = i < dimensions ? fastest_first[dimensions - 1 - i] : 1;
    tensor->bytes = elements / packing->elements * packing->bytes;
}

static int parse(llm_source *source, reader *r) {
    if (left(r) < 4 || memcmp(r->data, "GGUF", 4) != 0) expected(r, "\"GGUF\"");
    r->at = 4;
    uint64_t version = number(r, 4, "a version");
    if (version != 2 && version != 3) {
        if (!r->failed) r->at = 4;
        expected(r, "version 2 or 3, little-endian");
    }
    uint64_t tensors = number(r, 8, "a number of tensors"), metas = number(r, 8, "a number of metadata entries");
    /* The shortest entries there can be bound the counts by the bytes that are left. */
    if (tensors > left(r) / 24) expected(r, "as many tensors as announced");
    if (metas > left(r) / 13) expected(r, "as many metadata entries as announced");
    if (r->failed) return -1;
    source->meta = calloc((size_t)metas + 1, sizeof *source->meta);
    source->tensors = calloc((size_t)tensors + 1, sizeof *source->tensors);
    uint64_t *offsets = calloc((size_t)tensors + 1, sizeof *offsets);
    if (!source->meta || !source->tensors || !offsets) expected(r, "more memory");
    for (uint64_t i = 0; i < metas && !r->failed; i++) {
        llm_meta *meta = &source->meta[i];
        source->meta_count = (size_t)i + 1;
        meta->key = string(r, "a metadata key");
        read_value(r, meta);
    }
    for (uint64_t i = 0; i < tensors && !r->failed; i++) {
        read_tensor(r, &source->tensors[i], &offsets[i]);
        source->tensor_count = (size_t)i + 1;
    }
    double announced = r->failed ? 32 : llm_number(source, "general.alignment", 32);
    uint64_t alignment = announced >= 1 && announced <= 1 << 20 ? (uint64_t)announced : 0;
    if (!alignment || (alignment & (alignment - 1)) != 0)
        expected(r, "general.alignment to be a power of two up to 1048576");
    size_t padding = r->failed || !alignment ? 0 : (size_t)((alignment - r->at % alignment) % alignment);
    if (tensors && padding > left(r)) expected(r, "padding, then tensor data");
    size_t start = r->at + padding;
    uint64_t taken = 0;
    for (uint64_t i = 0; i < tensors && !r->failed; i++) {
        llm_tensor *tensor = &source->tensors[i];
        uint64_t space = r->bytes - start;
        if (offsets[i] % alignment || offsets[i] > space || tensor->bytes > space - offsets[i]) {
            r->failed = 1;
            llm_fail(r->error, "%s: offset %llu: expected %llu bytes of tensor '%.*s' at a multiple of %llu, the file "
                     "has %llu bytes", r->name, (unsigned long long)start + offsets[i],
                     (unsigned long long)tensor->bytes, (int)(tensor->name.bytes < 100 ? tensor->name.bytes : 100),
                     tensor->name.text, (unsigned long long)alignment, (unsigned long long)r->bytes);
        } else if (tensor->bytes > space - taken) { /* what is made of the file is then no larger than it */
            r->failed = 1;
            llm_fail(r->error, "%s: offset %llu: expected tensors that do not overlap, up to '%.*s' they have more than the %llu bytes "
                     "of data", r->name, (unsigned long long)start, (int)(tensor->name.bytes < 100 ? tensor->name.bytes : 100),
                     tensor->name.text, (unsigned long long)space);
        } else {
            tensor->data = r->data + start + offsets[i];
            taken += tensor->bytes;
        }
    }
    free(offsets);
    return r->failed ? -1 : 0;
}

int llm_gguf_open_memory(llm_source *source, const void *data, size_t bytes, const char *name, llm_error *error) {
    reader r = {data, bytes, 0, name, error, 0};
    memset(source, 0, sizeof *source);
    source->path = strdup(name);
    if (!source->path) return llm_fail(error, "%s: out of memory", name);
    if (parse(source, &r) == 0) return 0;
    llm_source_close(source);
    return -1;
}

static int open_one(llm_source *source, const char *path, llm_error *error) {
    llm_mapping mapping;
    if (llm_map(&mapping, path, "a GGUF file", error) != 0) return -1;
    if (llm_gguf_open_memory(source, mapping.data, mapping.bytes, path, error) != 0) {
        llm_unmap(&mapping);
        return -1;
    }
    if (llm_source_add_mapping(source, mapping) == 0) return 0;
    llm_source_close(source);
    return llm_fail(error, "%s: out of memory", path);
}

/* ---- models in several files: NAME-00001-of-00003.gguf has the metadata, and the tensors are in all ---- */

/* Moves the tensors and mappings of `part` over, then closes it. */
static int take_tensors(llm_source *source, llm_source *part, llm_error *error) {
    llm_tensor *tensors = realloc(source->tensors, (source->tensor_count + part->tensor_count + 1) * sizeof *tensors);
    int result = tensors ? 0 : llm_fail(error, "%s: out of memory", part->path);
    if (tensors) source->tensors = tensors;
    for (size_t i = 0; i < part->mapping_count && result == 0; i++) {
        if (llm_source_add_mapping(source, part->mappings[i]) != 0) result = llm_fail(error, "%s: out of memory", part->path);
        part->mappings[i].data = NULL;
    }
    if (result == 0 && part->tensor_count) {
        memcpy(tensors + source->tensor_count, part->tensors, part->tensor_count * sizeof *tensors);
        source->tensor_count += part->tensor_count;
    }
    llm_source_close(part);
    return result;
}

int llm_gguf_open(llm_source *source, const char *path, llm_error *error) {
    if (open_one(source, path, error) != 0) return -1;
    double files = llm_number(source, "split.count", 1), number = llm_number(source, "split.no", 0), all = llm_number(source, "split.tensors.count", 0);
    if (!(files > 1)) return 0;
    char *name = strdup(path), tail[32], message[64];
    size_t length = strlen(path), end = (size_t)snprintf(tail, sizeof tail, "-%05d-of-%05d.gguf", number == 0 ? 1 : 0, files < 100000 ? (int)files : 0);
    int result = 0;
    snprintf(message, sizeof message, "-00001-of-%05d.gguf", files < 100000 ? (int)files : 0);
    if (!name) result = llm_fail(error, "%s: out of memory", path);
    else if (number != 0)
        result = llm_fail(error, "%s: it is part %.0f of %.0f of a model: expected the first, whose name ends in %s", path, number + 1, files, message);
    else if (files > 99999 || length < end || strcmp(path + length - end, tail) != 0)
        result = llm_fail(error, "%s: it is the first of %.0f parts of a model: expected a name that ends in %s, so that the others can be found", path,
                          files, message);
    for (int i = 2; result == 0 && i <= (int)files; i++) {
        llm_source part;
        snprintf(tail, sizeof tail, "%05d", i);
        memcpy(name + length - end + 1, tail, 5);
        result = open_one(&part, name, error);
        if (result == 0 && llm_number(&part, "split.no", -1) != i - 1) {
            llm_source_close(&part);
            result = llm_fail(error, "%s: expected split.no to be %d, as its name says", name, i - 1);
        } else if (result == 0) result = take_tensors(source, &part, error);
    }
    if (result == 0 && all > 0 && all != (double)source->tensor_count)
        result = llm_fail(error, "%s: expected %.0f tensors in its %.0f parts, found %zu", path, all, files, source->tensor_count);
    free(name);
    if (result != 0) llm_source_close(source);
    return result;
}
