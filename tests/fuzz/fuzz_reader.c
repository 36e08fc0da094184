/* fuzz_reader.c - a hostile stack: open, ask, walk budgets and levels, multiply, reconstruct. Input: two bytes
 * of choices (see the enum), then the file. With MEND the checksums are made right first, so that what lies
 * behind them is reached. */
#include "fuzz.h"
#include "bitstack.h"

enum { MEND = 1, CALLBACK = 2, SKIP_CHECKSUMS = 4, MISALIGNED = 8, FAILING_READS = 16, FAILING_HEAP = 32, NAN_INPUT = 64, LYING_SIZE = 128 };

typedef struct source {
    const unsigned char *data;
    size_t bytes;
    int fail_after; /* reads; -1 never */
} source;
static int read_source(void *user, uint64_t offset, void *to, size_t bytes) {
    source *from = (source *)user;
    if (from->fail_after == 0) return 1;
    if (from->fail_after > 0) from->fail_after--;
    if (offset > from->bytes || bytes > from->bytes - offset) return 1; /* the size told may be a lie */
    memcpy(to, from->data + offset, bytes);
    return 0;
}

typedef struct heap {
    size_t used, peak;
    int fail_after;
} heap;
static void *take(void *user, size_t bytes) {
    heap *h = (heap *)user;
    if (h->fail_after == 0) return NULL;
    if (h->fail_after > 0) h->fail_after--;
    h->used += bytes;
    if (h->used > h->peak) h->peak = h->used;
    return malloc(bytes);
}
static void give(void *user, void *pointer, size_t bytes) {
    ((heap *)user)->used -= bytes;
    free(pointer);
}

/* Makes every checksum right that can be found from a header and tables that may be nonsense. */
static void mend(unsigned char *d, uint64_t bytes) {
    if (bytes < 128) return;
    const uint64_t tables = fuzz_load(d + 16, 8), names = fuzz_load(d + 56, 8);
    const uint64_t tensors = fuzz_load(d + 44, 4), matrices = fuzz_load(d + 48, 4), blocks = fuzz_load(d + 52, 4);
    const uint64_t records = tensors * 72 + matrices * 64 + blocks * 64;
    memcpy(d, "BITSTACK", 8);
    if (tables <= bytes - 128 && names <= tables && records <= tables - names) {
        unsigned char *block = d + 128 + tables - names - blocks * 64, *matrix = block - matrices * 64, *tensor = matrix - tensors * 72;
        for (uint64_t i = 0; i < tensors; i++, tensor += 72) {
            const uint64_t at = fuzz_load(tensor + 48, 8), size = fuzz_load(tensor + 56, 8);
            if (at <= bytes && size <= bytes - at) fuzz_store(tensor + 64, 8, bitstack_checksum(d + at, (size_t)size));
        }
        for (uint64_t i = 0; i < blocks; i++, block += 64) {
            const uint64_t m = fuzz_load(block, 4), level = fuzz_load(block + 4, 4);
            uint64_t at = fuzz_load(block + 8, 8), size[3];
            if (m >= matrices) continue;
            const unsigned char *r = matrix + m * 64;
            bitstack_shape shape = {(uint32_t)fuzz_load(r + 8, 4), (uint32_t)fuzz_load(r + 12, 4), (uint32_t)fuzz_load(r + 20, 4), (uint32_t)fuzz_load(r + 24, 4),
                                    (uint32_t)fuzz_load(r + 32, 4), (bitstack_columns)r[28], (bitstack_coefficients)r[29], (bitstack_type)r[30], 1, (bitstack_encoding)fuzz_load(r + 16, 4)};
            size[0] = bitstack_column_bytes(&shape, (uint32_t)level), size[1] = bitstack_coefficient_bytes(&shape, (uint32_t)level);
            size[2] = bitstack_plane_part_bytes(&shape);
            for (int part = 0; part < 3; part++, at += size[part - 1]) {
                if (at > bytes || size[part] > bytes - at) break;
                fuzz_store(block + 24 + 8 * part, 8, bitstack_checksum(d + at, (size_t)size[part]));
            }
        }
        fuzz_store(d + 64, 8, bitstack_checksum(d + 128, (size_t)tables));
    }
    fuzz_store(d + 120, 8, bitstack_checksum(d, 120));
}

static void ask(const bitstack *stack) {
    bitstack_meta meta;
    bitstack_tensor tensor;
    bitstack_block block;
    volatile double sum = 0;
    for (int i = 0; i < bitstack_meta_count(stack); i++) {
        uint64_t cursor = 0, strings = 0;
        const char *text;
        size_t length;
        char key[64];
        MUST(bitstack_get_meta(stack, i, &meta) == BITSTACK_OK);
        if (meta.type == BITSTACK_META_STRING) {
            for (; (text = bitstack_meta_next_string(&meta, &cursor, &length)) != NULL; strings++)
                for (size_t k = 0; k < length && k < 100; k++) sum += text[k];
            MUST(strings == meta.count);
        } else
            for (uint64_t k = 0; k < meta.count && k < 100; k++) sum += bitstack_meta_element(&meta, k) + bitstack_meta_element(&meta, meta.count - 1 - k);
        if (meta.key_bytes >= sizeof key || i > 100) continue;
        memcpy(key, meta.key, meta.key_bytes), key[meta.key_bytes] = 0;
        if (strlen(key) == meta.key_bytes) MUST(bitstack_find_meta(stack, key) >= 0 && bitstack_find_meta(stack, key) <= i);
        sum += bitstack_meta_number(stack, key, 0);
        bitstack_meta_string(stack, key, &length);
    }
    for (int i = 0; i < bitstack_tensor_count(stack); i++) {
        MUST(bitstack_get_tensor(stack, i, &tensor) == BITSTACK_OK);
        for (size_t k = 0; k < tensor.bytes; k++) sum += ((const unsigned char *)tensor.data)[k];
        for (size_t k = 0; k < tensor.name_bytes; k++) sum += tensor.name[k];
    }
    uint64_t before = bitstack_base_bytes(stack);
    for (int i = 0; i < bitstack_block_count(stack); i++) {
        MUST(bitstack_get_block(stack, i, &block) == BITSTACK_OK);
        MUST(block.resident_after > before);
        before = block.resident_after;
    }
    MUST(bitstack_find_tensor(stack, "no such") < 0 || bitstack_tensor_count(stack) > 0);
    MUST(bitstack_find_matrix(stack, "no such") < 0 || bitstack_matrix_count(stack) > 0);
}

static void multiply(const bitstack *stack, int nan) {
    enum { MOST = 1 << 14 };
    static float x[MOST], y[MOST + 1], out[MOST];
    for (int i = 0; i < bitstack_matrix_count(stack) && i < 20; i++) {
        bitstack_matrix m;
        bitstack_view view;
        MUST(bitstack_get_matrix(stack, i, &m) == BITSTACK_OK && bitstack_shape_valid(&m.shape));
        MUST(m.level <= m.shape.levels);
        if (m.shape.rows > 2000 || m.shape.cols > 2000 || (uint64_t)m.shape.rows * m.shape.cols * m.shape.rank * (m.level + 1) > 1 << 18) continue;
        for (uint32_t j = 0; j < m.shape.cols; j++) x[j] = (float)(int)(j * 2654435761u >> 20) - 2048;
        if (nan) memset(x + m.shape.cols / 2, 0xFF, 4);
        const uint32_t rows = m.shape.rows, half = rows / 2;
        y[rows] = 12345;
        MUST(bitstack_gemv(stack, i, x, y) == BITSTACK_OK && y[rows] == 12345);
        MUST(bitstack_gemv_rows(stack, i, x, out, half, rows - half) == BITSTACK_OK);
        MUST(!memcmp(out, y + half, sizeof(float) * (rows - half)) || nan || m.level); /* NaN may differ in its bits */
        MUST(bitstack_matrix_view(stack, i, &view) == BITSTACK_OK);
        MUST(bitstack_view_gemv(&view, BITSTACK_EXACT, x, y, 0, rows) == BITSTACK_OK && y[rows] == 12345);
        MUST(bitstack_view_gemv(&view, BITSTACK_REFERENCE, x, y, 0, rows) == BITSTACK_OK && y[rows] == 12345);
        if (rows <= MOST / 2) MUST(bitstack_gemm(stack, i, x, 0, y, rows, 1) == BITSTACK_OK);
        const uint32_t some = rows < MOST / m.shape.cols ? rows : MOST / m.shape.cols;
        if (some) MUST(bitstack_dequantize_rows(stack, i, rows - some, some, out, m.shape.cols) == BITSTACK_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const int choices = data[0], second = data[1];
    const size_t bytes = size - 2;
    unsigned char *raw = (unsigned char *)malloc(bytes + 2), *file = raw + (choices & MISALIGNED ? 1 : 0);
    if (!raw) return 0;
    raw = (unsigned char *)realloc(raw, bytes + (size_t)(file - raw) + (bytes == 0)); /* exact: reading beyond is seen */
    file = raw + (choices & MISALIGNED ? 1 : 0);
    memcpy(file, data + 2, bytes);
    if (choices & MEND) mend(file, bytes);

    heap h = {0, 0, choices & FAILING_HEAP ? second % 40 : -1};
    source from = {file, bytes, choices & FAILING_READS ? second % 60 : -1};
    bitstack_options options = {{take, give, &h}, 0, (bitstack_precision)(second % 2), !!(choices & SKIP_CHECKSUMS), second % 5 == 0};
    bitstack *stack = NULL;
    bitstack_error error;
    bitstack_result result;
    uint64_t told = bytes;
    if (choices & LYING_SIZE) told += (uint64_t)second * 64;
    result = choices & CALLBACK ? bitstack_open_callback(&stack, read_source, &from, told, &options, &error)
                                : bitstack_open_memory(&stack, file, bytes, &options, &error);
    MUST((result == BITSTACK_OK) == (stack != NULL));
    MUST(memchr(error.message, 0, sizeof error.message) || result == BITSTACK_OK);
    /* The documented bound: 5 times the tables, the resident part, the loaded blocks, 4 KiB. */
    const uint64_t tables = bytes >= 128 ? fuzz_load(file + 16, 8) : 0, limit = choices & CALLBACK ? told + 64 : 0;
    if (result != BITSTACK_OK) MUST(h.used == 0 && h.peak <= 5 * told + 4096);
    else {
        const uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);
        MUST(h.peak <= 5 * tables + limit + 4096);
        MUST(bitstack_resident_bytes(stack) <= total || options.load_nothing);
        ask(stack);
        multiply(stack, choices & NAN_INPUT);
        for (int step = 0; step < 5; step++) { /* a walk of budgets that ends where it began */
            const uint64_t budget = base + (total - base) / 4 * (uint64_t)((second + 3 * step) % 5);
            result = bitstack_set_budget(stack, budget, &error);
            MUST(bitstack_resident_bytes(stack) <= budget || result == BITSTACK_ERROR_IO || result == BITSTACK_ERROR_CHECKSUM ||
                 result == BITSTACK_ERROR_FORMAT); /* a lower level that cannot be had: a table that is none has a checksum, too */
            multiply(stack, 0);
        }
        MUST(base == 0 || bitstack_set_budget(stack, base - 1, NULL) == BITSTACK_ERROR_BUDGET);
        for (int i = 0; i < bitstack_matrix_count(stack) && i < 10; i++) {
            bitstack_matrix m;
            bitstack_get_matrix(stack, i, &m);
            for (uint32_t level = 0; level <= m.shape.levels; level += 1 + m.shape.levels / 3) bitstack_set_level(stack, i, level, NULL);
        }
        multiply(stack, 0);
        MUST(h.peak <= 5 * tables + 2 * limit + 4096); /* a superseded part beside its successor */
        bitstack_close(stack);
        MUST(h.used == 0);
    }
    free(raw);
    return 0;
}

#ifdef FUZZ_LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
/* Half the time libFuzzer's own; else one number of header or tables gets a value that is often decisive. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    static const uint64_t values[] = {0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 128, 255, 256, 1024, 1025, 65535, 1u << 30, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu, ~(uint64_t)0, (uint64_t)1 << 63};
    if (seed % 2 || size < 2 + 128 + 8) return LLVMFuzzerMutate(data, size, most);
    const uint64_t tables = fuzz_load(data + 2 + 16, 8), room = tables < size - 2 - 128 ? 128 + tables : size - 2;
    const size_t width = seed / 2 % 3 == 0 ? 8 : seed / 2 % 3 == 1 ? 4 : 1, at = 2 + (size_t)(seed / 6 % (room / width)) * width;
    const uint64_t old = fuzz_load(data + at, width), value = values[seed / 64 % (sizeof values / sizeof values[0])];
    fuzz_store(data + at, width, seed / 4096 % 4 == 0 ? value : seed / 4096 % 4 == 1 ? old + value : seed / 4096 % 4 == 2 ? old - value : old ^ (uint64_t)1 << seed / 65536 % 64);
    return size;
}
#endif
