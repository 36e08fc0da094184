/* A file from a stranger costs time and memory in proportion to its size, whatever it says: opening, walking,
 * writing again, and the parsers of the examples. */
#include "stack_builder.h"
#include "make_gguf.h"
#include "examples/llm/gguf.h"
#include "examples/llm/hf.h"
#include "examples/llm/json.h"
#include "examples/llm/published.h"
#include "examples/llm/safetensors.h"
#include "examples/llm/tokenizer.h"
#include <time.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static const char *const path = "build/tests/hostile.bitstack";

/* --- Every allocation of this program is counted, where the C library allows it. --- */
static size_t used, peak;
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
enum { COUNTED = 1 };
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *pointer, size_t bytes);
void __libc_free(void *pointer);
static void *counted(void *pointer) {
    if (pointer) used += malloc_usable_size(pointer);
    if (used > peak) peak = used;
    return pointer;
}
void *malloc(size_t bytes) { return counted(__libc_malloc(bytes)); }
void *calloc(size_t count, size_t bytes) { return counted(__libc_calloc(count, bytes)); }
void *realloc(void *pointer, size_t bytes) {
    if (pointer) used -= malloc_usable_size(pointer);
    return counted(__libc_realloc(pointer, bytes));
}
void free(void *pointer) {
    if (pointer) used -= malloc_usable_size(pointer);
    __libc_free(pointer);
}
#else
enum { COUNTED = 0 };
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One kind of file with many entries: what it is called, how to make one of n entries, how to use it. */
typedef struct kind {
    const char *name;
    size_t most; /* bytes of memory for each byte of the file, as documented */
    void *(*make)(size_t entries, size_t *bytes);
    int (*use)(const void *data, size_t bytes); /* 0: it opened */
    int opens;
} kind;

static void *many_matrices(size_t entries, size_t *bytes) {
    bitstack_writer *writer;
    bitstack_shape shape = build_shape(1, 1, 1, 1, 0);
    bitstack_coded coded = build_coded(&shape, 1);
    char name[32];
    bitstack_writer_open(&writer, path, NULL, NULL);
    for (size_t i = 0; i < entries; i++) {
        snprintf(name, sizeof name, "%zu", i);
        bitstack_writer_matrix(writer, name, &coded, 1);
    }
    build_free(&coded);
    bitstack_writer_finish(writer, NULL, 0, NULL);
    return test_read_file(path, bytes);
}
static void *many_entries(size_t entries, size_t *bytes) {
    bitstack_writer *writer;
    char name[32];
    const char **strings = (const char **)malloc(entries * sizeof *strings);
    for (size_t i = 0; i < entries; i++) strings[i] = "";
    bitstack_writer_open(&writer, path, NULL, NULL);
    bitstack_writer_meta_strings(writer, "strings", strings, NULL, entries);
    for (size_t i = 0; i < entries; i++) {
        snprintf(name, sizeof name, "%zu", i);
        bitstack_writer_meta_u32(writer, name, 1);
        bitstack_writer_tensor(writer, name, BITSTACK_F32, 0, NULL, "\0\0\0\0");
    }
    free((void *)strings);
    bitstack_writer_finish(writer, NULL, 0, NULL);
    return test_read_file(path, bytes);
}
/* Names that all matrices share: had they to be copied, n entries would become n^2 bytes. */
static void *shared_names(size_t entries, size_t *bytes) {
    unsigned char *d = (unsigned char *)many_matrices(entries, bytes);
    const size_t tables = (size_t)test_load64(d + 16), names = (size_t)test_load64(d + 56);
    for (size_t i = 0; i < entries; i++) {
        uint32_t place[2] = {0, (uint32_t)names};
        test_little(place, 8, 4);
        memcpy(d + 128 + tables - names - 128 * entries + 64 * i, place, 8);
    }
    test_store64(d + 64, bitstack_checksum(d + 128, tables));
    test_store64(d + 120, bitstack_checksum(d, 120));
    return d;
}
static int read_memory(void *user, uint64_t offset, void *to, size_t bytes) {
    memcpy(to, (const unsigned char *)user + offset, bytes);
    return 0;
}
static int use_stack(const void *data, size_t bytes) {
    bitstack *stack;
    uint64_t cursor = 0;
    size_t length;
    bitstack_meta meta;
    if (bitstack_open_callback(&stack, read_memory, (void *)(uintptr_t)data, bytes, NULL, NULL) != BITSTACK_OK) return 1;
    for (int round = 0; round < 3; round++) {
        bitstack_set_budget(stack, bitstack_base_bytes(stack), NULL);
        bitstack_set_budget(stack, UINT64_MAX, NULL);
    }
    if (bitstack_get_meta(stack, 0, &meta) == BITSTACK_OK)
        while (bitstack_meta_next_string(&meta, &cursor, &length)) {}
    bitstack_close(stack);
    return 0;
}
static int reorder(const void *data, size_t bytes) {
    bitstack *stack;
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file)) return 2;
    if (bitstack_open_memory(&stack, data, bytes, NULL, NULL) != BITSTACK_OK) return 1;
    const size_t entries = (size_t)bitstack_block_count(stack);
    bitstack_order_entry *order = (bitstack_order_entry *)malloc((entries + 1) * sizeof *order);
    for (size_t i = 0; i < entries; i++) {
        bitstack_block block;
        bitstack_get_block(stack, (int)(entries - 1 - i), &block);
        order[i].matrix = block.matrix, order[i].level = block.level, order[i].score = 0;
    }
    bitstack_result result = bitstack_reorder(path, path, order, entries, NULL);
    free(order);
    bitstack_close(stack);
    return result != BITSTACK_OK;
}

static void *many_gguf(size_t entries, size_t *bytes) {
    static const uint64_t shape[2] = {1, 1};
    gguf_maker g;
    char name[32];
    make_start(&g, 3);
    make_meta_string(&g, "tokenizer.ggml.model", "llama");
    make_meta_array(&g, "tokenizer.ggml.tokens", 8, entries);
    for (size_t i = 0; i < entries; i++) snprintf(name, sizeof name, "%zu", i), make_string(&g, name);
    make_meta_array(&g, "tokenizer.ggml.scores", 5, entries);
    for (size_t i = 0; i < entries; i++) make_u32(&g, 0);
    for (size_t i = 0; i < entries; i++) snprintf(name, sizeof name, "%zu", i), make_meta_u32(&g, name, 1);
    for (size_t i = 0; i < entries; i++) snprintf(name, sizeof name, "%zu", i), make_tensor(&g, name, 1, shape, 0, 4);
    make_finish(&g);
    for (size_t i = 0; i < entries; i++) make_data(&g, "\0\0\0\0", 4);
    *bytes = g.bytes;
    return g.data;
}
static uint32_t fnv(const char *text, size_t bytes) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h ^ h >> 15;
}
/* Pieces chosen to fall on each other in a hash table that does not guard itself. */
static void *colliding_gguf(size_t entries, size_t *bytes) {
    gguf_maker g;
    uint64_t tried = 0;
    char name[32];
    entries /= 6; /* below 4096 slots for both */
    make_start(&g, 3);
    make_meta_string(&g, "tokenizer.ggml.model", "llama");
    make_meta_array(&g, "tokenizer.ggml.tokens", 8, entries);
    for (size_t i = 0; i < entries;) {
        snprintf(name, sizeof name, "%llx", (unsigned long long)++tried);
        if (fnv(name, strlen(name)) % 4096 == 0) make_string(&g, name), i++;
    }
    make_meta_array(&g, "tokenizer.ggml.scores", 5, entries);
    for (size_t i = 0; i < entries; i++) make_u32(&g, 0);
    make_finish(&g);
    *bytes = g.bytes;
    return g.data;
}
static int use_gguf(const void *data, size_t bytes) {
    llm_source source;
    llm_tokenizer tokenizer;
    if (llm_gguf_open_memory(&source, data, bytes, "x.gguf", NULL) != 0) return 1;
    int result = llm_tokenizer_load(&tokenizer, &source, NULL);
    if (result == 0) llm_tokenizer_free(&tokenizer);
    llm_source_close(&source);
    return result;
}

static void tokenizer_of(gguf_maker *g, const char *model, char **pieces, size_t count, uint32_t type) {
    make_start(g, 3);
    make_meta_string(g, "tokenizer.ggml.model", model);
    make_meta_array(g, "tokenizer.ggml.tokens", 8, count);
    for (size_t i = 0; i < count; i++) make_string(g, pieces[i]), free(pieces[i]);
    make_meta_array(g, "tokenizer.ggml.scores", 5, count);
    for (size_t i = 0; i < count; i++) make_u32(g, 0);
    make_meta_array(g, "tokenizer.ggml.token_type", 5, count);
    for (size_t i = 0; i < count; i++) make_u32(g, type);
    make_finish(g);
    free(pieces);
}
/* Marks that nothing but their ends tells apart. */
static void *many_marks(size_t entries, size_t *bytes) {
    gguf_maker g;
    char name[32], **pieces = (char **)malloc(entries * sizeof *pieces);
    for (size_t i = 0; i < entries; i++) snprintf(name, sizeof name, "e%zx", i + 16), pieces[i] = strdup(name);
    tokenizer_of(&g, "llama", pieces, entries, 4);
    *bytes = g.bytes;
    return g.data;
}
static void *many_pieces(size_t entries, size_t *bytes) {
    gguf_maker g;
    char name[32], **pieces = (char **)malloc(entries * sizeof *pieces);
    for (size_t i = 0; i < entries; i++) snprintf(name, sizeof name, "e%zx", i), pieces[i] = strdup(name);
    tokenizer_of(&g, "t5", pieces, entries, 1);
    *bytes = g.bytes;
    return g.data;
}
/* Pieces of which each has a slot of its own, all side by side: taking them up is quick, and what is not there is looked
 * for through half of them. */
static void *clustered(size_t entries, size_t *bytes) {
    gguf_maker g;
    uint32_t mask = 15;
    char name[32], **pieces = (char **)calloc(entries, sizeof *pieces);
    while (mask < 2 * entries) mask = 2 * mask + 1;
    for (uint64_t got = 0, tried = 0; got < entries;) {
        snprintf(name, sizeof name, "%llx", (unsigned long long)++tried);
        const uint32_t slot = fnv(name, strlen(name)) & mask;
        if (slot < entries && !pieces[slot]) pieces[slot] = strdup(name), got++;
    }
    tokenizer_of(&g, "llama", pieces, entries, 1);
    *bytes = g.bytes;
    return g.data;
}
/* One piece that each place of a text would have to be compared with. */
static void *long_piece(size_t entries, size_t *bytes) {
    gguf_maker g;
    char **pieces = (char **)malloc(sizeof *pieces);
    pieces[0] = (char *)malloc(8 * entries + 1);
    memset(pieces[0], 'e', 8 * entries), pieces[0][8 * entries] = 0;
    tokenizer_of(&g, "t5", pieces, 1, 1);
    *bytes = g.bytes;
    return g.data;
}
/* Text in proportion to the tokenizer. */
static int use_text(const void *data, size_t bytes) {
    llm_source source;
    llm_tokenizer tokenizer;
    uint32_t *ids;
    uint64_t seed = 4;
    const size_t length = bytes / 8;
    if (llm_gguf_open_memory(&source, data, bytes, "x.gguf", NULL) != 0) return 1;
    int result = llm_tokenizer_load(&tokenizer, &source, NULL);
    if (result == 0) {
        char *text = (char *)malloc(length);
        for (size_t i = 0; i < length; i++) text[i] = i % 2 ? (char)('a' + test_random(&seed) % 26) : 'e';
        result = llm_encode(&tokenizer, text, length, &ids) < 0;
        free(ids), free(text);
        llm_tokenizer_free(&tokenizer);
    }
    llm_source_close(&source);
    return result;
}

/* A model of many layers among many tensors that it does not need: names are looked for, some in vain. */
static void *many_layers(size_t entries, size_t *bytes) {
    static const char *const keys[] = {"context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count", "vocab_size"};
    static const char *const parts[] = {"attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    static const uint64_t shape[2] = {1, 1};
    gguf_maker g;
    const size_t layers = entries / 32;
    char name[64];
    make_start(&g, 3);
    make_meta_string(&g, "general.architecture", "llama");
    for (size_t i = 0; i < 6; i++) snprintf(name, sizeof name, "llama.%s", keys[i]), make_meta_u32(&g, name, i == 2 ? (uint32_t)layers : 1);
    for (size_t i = 0; i < entries; i++) snprintf(name, sizeof name, "blk.%zu.other.weight", i), make_tensor(&g, name, 1, shape, 0, 4);
    for (size_t i = 0; i < 9 * layers; i++) snprintf(name, sizeof name, "blk.%zu.%s.weight", i / 9, parts[i % 9]), make_tensor(&g, name, i % 9 < 2 ? 1 : 2, shape, 0, 4);
    make_tensor(&g, "token_embd.weight", 2, shape, 0, 4), make_tensor(&g, "output_norm.weight", 1, shape, 0, 4);
    make_finish(&g);
    for (size_t i = 0; i < entries + 9 * layers + 2; i++) make_data(&g, "\0\0\0\0", 4);
    *bytes = g.bytes;
    return g.data;
}
static int use_model(const void *data, size_t bytes) {
    llm_source source;
    llm_model model;
    if (llm_gguf_open_memory(&source, data, bytes, "x.gguf", NULL) != 0 || llm_model_load(&model, source, NULL, NULL) != 0) return 1;
    llm_model_close(&model);
    return 0;
}

static void *repeated(const char *open, const char *each, const char *close, size_t entries, size_t *bytes) {
    const size_t a = strlen(open), b = strlen(each), c = strlen(close);
    char *text = (char *)malloc(a + b * entries + c + 1);
    memcpy(text, open, a);
    for (size_t i = 0; i < entries; i++) memcpy(text + a + b * i, each, b);
    memcpy(text + a + b * entries, close, c + 1);
    *bytes = a + b * entries + c;
    return text;
}
static void *json_array(size_t entries, size_t *bytes) { return repeated("[0", ",0", "]", entries, bytes); }
static void *json_members(size_t entries, size_t *bytes) { return repeated("{\"k\":[]", ",\"k\":{\"a\":[1,2]}", "}", entries, bytes); }
static void *many_replacements(size_t entries, size_t *bytes) {
    static const char one[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"},";
    return repeated("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[", one,
                    "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"}]}}", entries, bytes);
}
static int use_tokenizer_json(const void *data, size_t bytes) {
    llm_source source;
    memset(&source, 0, sizeof source);
    int result = llm_hf_tokenizer(&source, (const char *)data, bytes, "x.json", NULL);
    llm_source_close(&source);
    return result;
}
static void *json_deep(size_t entries, size_t *bytes) { return repeated("", "[", "", entries, bytes); }
static int use_json(const void *data, size_t bytes) {
    llm_json json;
    if (llm_json_parse(&json, (const char *)data, bytes, "x.json", NULL) != 0) return 1;
    if (json.values[0].type == LLM_JSON_OBJECT) llm_json_member(&json, 0, "none");
    llm_json_free(&json);
    return 0;
}
static void *many_safetensors(size_t entries, size_t *bytes) {
    char *text = (char *)malloc(8 + 100 * entries + 100), *at = text + 9;
    text[8] = '{';
    for (size_t i = 0; i < entries; i++)
        at += sprintf(at, "%s\"%zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", i ? "," : "", i, entries - 1 - i, entries - i);
    *at++ = '}';
    test_store64(text, (uint64_t)(at - text - 8));
    memset(at, 7, entries);
    *bytes = (size_t)(at - text) + entries;
    return text;
}
static int use_safetensors(const void *data, size_t bytes) {
    llm_safetensors file;
    if (llm_safetensors_open_memory(&file, data, bytes, "x.safetensors", NULL) != 0) return 1;
    llm_safetensors_find(&file, "none");
    llm_safetensors_close(&file);
    return 0;
}
/* Layers of a published checkpoint that have one tensor each. */
static void *sparse_layers(size_t entries, size_t *bytes) {
    entries /= 4; /* there are 4096 layers at most */
    char *text = (char *)malloc(8 + 100 * entries + 100), *at = text + 9;
    text[8] = '{';
    for (size_t i = 0; i < entries; i++)
        at += sprintf(at, "%s\"model.layers.%zu.mlp.up_proj.qweight_0\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", i ? "," : "", i, i, i + 1);
    *at++ = '}';
    test_store64(text, (uint64_t)(at - text - 8));
    memset(at, 7, entries);
    *bytes = (size_t)(at - text) + entries;
    return text;
}
static int use_published(const void *data, size_t bytes) {
    llm_safetensors file;
    llm_published published;
    int result = 1;
    memset(&published, 0, sizeof published);
    if (llm_safetensors_open_memory(&file, data, bytes, "x.safetensors", NULL) != 0) return 1;
    for (size_t i = 0; i < file.count && result == 1; i++) result = llm_published_add(&published, &file.tensors[i], NULL);
    if (result == 1) result = llm_published_check(&published, "x", NULL) != 0;
    llm_published_free(&published);
    llm_safetensors_close(&file);
    return result;
}

int main(void) {
    static const kind kinds[] = {
        {"a stack of many matrices", 6, many_matrices, use_stack, 1},
        {"a stack of many tensors, entries and strings", 6, many_entries, use_stack, 1},
        {"a stack of many matrices, reordered", 16, many_matrices, reorder, 1},
        {"a stack whose matrices share one long name", 16, shared_names, reorder, 0},
        {"a GGUF file of many tensors, entries and tokens", 16, many_gguf, use_gguf, 1},
        {"a GGUF file of tokens that collide", 24, colliding_gguf, use_gguf, 0},
        {"a text cut at thousands of marks", 64, many_marks, use_text, 1},
        {"a text of what a crowded table does not have", 64, clustered, use_text, 1},
        {"a text of unigrams", 24, many_pieces, use_text, 1},
        {"a text beside a piece that is as long as a file", 64, long_piece, use_text, 0},
        {"a model of many layers among many other tensors", 16, many_layers, use_model, 1},
        {"a tokenizer.json of many replacements", 64, many_replacements, use_tokenizer_json, 1},
        {"a JSON array", 64, json_array, use_json, 1},
        {"a JSON object", 64, json_members, use_json, 1},
        {"JSON that never ends", 64, json_deep, use_json, 0},
        {"a safetensors file of many tensors", 64, many_safetensors, use_safetensors, 1},
        {"a published checkpoint that lacks most of its layers", 32, sparse_layers, use_published, 0},
    };
    static char titles[sizeof kinds / sizeof kinds[0]][120];
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        snprintf(titles[k], sizeof titles[k], "%s: linear in its size", kinds[k].name);
        TEST(titles[k]);
        double seconds[2];
        for (int large = 0; large < 2; large++) {
            const size_t entries = large ? 16000 : 2000;
            size_t bytes = 0;
            void *data = kinds[k].make(entries, &bytes);
            seconds[large] = 1e9;
            for (int run = 0; run < (large ? 3 : 10); run++) {
                const size_t before = peak = used;
                const double start = now();
                const int result = kinds[k].use(data, bytes);
                const double took = now() - start;
                if (took < seconds[large]) seconds[large] = took;
                CHECK((result == 0) == kinds[k].opens, "%zu entries: result %d", entries, result);
                CHECK(!COUNTED || peak - before <= kinds[k].most * bytes + 65536, "%zu entries: %zu bytes for a file of %zu", entries, peak - before, bytes);
                CHECK(used == before, "%zu bytes leaked", used - before);
            }
            if (large) printf("      %zu bytes: %.1f ms, %.1f bytes of memory a byte\n", bytes, 1e3 * seconds[1], COUNTED ? (double)(peak - used) / (double)bytes : 0);
            free(data);
        }
        /* eight times the entries: 8 where linear, 64 where quadratic; a busy machine is allowed for */
        CHECK(seconds[1] <= 24 * seconds[0] + 0.002, "%.3f ms, then %.3f ms for eight times the entries", 1e3 * seconds[0], 1e3 * seconds[1]);
    }
    remove(path);
    return TEST_DONE();
}
