/* fuzz_examples.c - the parsers of the examples: a GGUF file (with its tokenizer and, if it is small, the model
 * run for a few tokens), a stack as a model, JSON, safetensors. The first byte chooses. */
#include "fuzz.h"
#include <math.h>
#include "examples/llm/gguf.h"
#include "examples/llm/hf.h"
#include "examples/llm/json.h"
#include "examples/llm/model.h"
#include "examples/llm/safetensors.h"
#include "examples/llm/tokenizer.h"

static void use_tokenizer(const llm_source *source) {
    static const char text[] = " The sea\n\xC3\xA9 \xFF\xE2\x96\x81 aaaa  a";
    llm_tokenizer t;
    llm_error error;
    uint32_t *ids;
    char piece[40];
    if (llm_tokenizer_load(&t, source, &error) != 0) return;
    int64_t count = llm_encode(&t, text, sizeof text - 1, &ids);
    MUST(count >= 0 && count <= 3 * (int64_t)sizeof text + 3);
    for (int64_t i = 0; i < count; i++) {
        MUST(ids[i] < t.count);
        MUST(llm_token_text(&t, ids[i], i == 0, piece, sizeof piece) <= sizeof piece);
    }
    for (uint32_t i = 0; i < t.count && i < 1000; i++) llm_token_text(&t, i, 1, piece, 1 + i % sizeof piece);
    free(ids);
    llm_tokenizer_free(&t);
}

static void use_source(llm_source *source) {
    static float row[1024];
    volatile double sum = 0;
    llm_error error;
    for (size_t i = 0; i < source->tensor_count; i++) {
        const llm_tensor *t = &source->tensors[i];
        if (llm_tensor_cols(t) > 1024 || llm_tensor_cols(t) == 0) continue;
        for (uint64_t r = 0; r < llm_tensor_rows(t) && r < 20; r++) llm_tensor_read(t, r, 1, row), sum += row[0];
    }
    for (size_t i = 0; i < source->meta_count; i++) {
        const llm_meta *m = &source->meta[i];
        sum += llm_meta_element(m, 0) + llm_meta_element(m, m->count - 1);
        for (uint64_t j = 0; m->strings && j < m->count; j++)
            for (size_t k = 0; k < m->strings[j].bytes; k++) sum += m->strings[j].text[k];
    }
    use_tokenizer(source);
    llm_model model;
    if (llm_model_load(&model, *source, NULL, &error) != 0) { /* it took the source */
        memset(source, 0, sizeof *source);
        return;
    }
    const llm_config *c = &model.config;
    if ((double)c->layers * (c->width + c->hidden) * (c->heads * c->head_width + c->hidden) < 1e6 && c->vocabulary < 2000 && c->width < 2000) {
        llm_state state;
        uint32_t ids[3] = {0, c->vocabulary - 1, c->vocabulary / 2};
        float *logits = (float *)malloc(sizeof(float) * c->vocabulary * 3);
        MUST(logits && llm_state_init(&state, &model, 5, 3) == 0);
        llm_forward(&model, &state, ids, 3);
        llm_logits(&model, &state, 0, 3, logits);
        llm_forward(&model, &state, ids, 1);
        llm_logits(&model, &state, 0, 1, logits);
        free(logits);
        llm_state_free(&state);
    }
    llm_model_close(&model);
    memset(source, 0, sizeof *source);
}

/* The same text as config.json, as tokenizer.json, and as tokenizer_config.json of the one before. */
static void use_json(const char *text, size_t bytes) {
    llm_error error;
    for (int way = 0; way < 2; way++) {
        llm_source source;
        memset(&source, 0, sizeof source);
        source.path = strdup("x.json");
        error.message[0] = 0;
        int result = (way ? llm_hf_tokenizer : llm_hf_config)(&source, text, bytes, "x.json", &error);
        MUST(result == 0 || (!strncmp(error.message, "x.json: ", 8) && !strchr(error.message, '\n')));
        if (result == 0 && way) llm_hf_tokenizer_settings(&source, text, bytes, "x.json", &error), use_tokenizer(&source);
        llm_source_close(&source);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    unsigned char *copy = (unsigned char *)malloc(size - 1 ? size - 1 : 1); /* exact: reading beyond is seen */
    llm_error error;
    llm_source source;
    error.message[0] = 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] % 4 == 0) {
        llm_json json;
        if (llm_json_parse(&json, (const char *)copy, size - 1, "x.json", &error) == 0) {
            MUST(json.count >= 1 && json.values[0].skip == json.count);
            for (size_t i = 0; i < json.count; i++) {
                MUST(json.values[i].skip >= 1 && json.values[i].skip <= json.count - i);
                if (json.values[i].type == LLM_JSON_OBJECT) MUST(llm_json_member(&json, i, "key") < json.count);
            }
            llm_json_free(&json);
            use_json((const char *)copy, size - 1);
        } else MUST(error.message[0] && !strchr(error.message, '\n'));
    } else if (data[0] % 4 == 1) {
        bitstack *stack;
        bitstack_options options = {0};
        options.skip_checksums = 1;
        if (bitstack_open_memory(&stack, copy, size - 1, &options, NULL) == BITSTACK_OK && llm_source_stack(&source, stack, "x.bitstack", &error) == 0) {
            use_source(&source);
            llm_source_close(&source);
        }
    } else if (data[0] % 4 == 3) {
        llm_safetensors file;
        if (llm_safetensors_open_memory(&file, copy, size - 1, "x.safetensors", &error) == 0) {
            uint64_t bytes = 0;
            volatile unsigned sum = 0;
            for (size_t i = 0; i < file.count; i++) {
                const llm_safetensor *t = &file.tensors[i];
                bytes += t->bytes;
                for (uint64_t k = 0; k < t->bytes; k++) sum += ((const unsigned char *)t->data)[k];
                MUST(llm_safetensors_find(&file, "none") == NULL || i < file.count);
            }
            MUST(bytes <= size);
            llm_safetensors_close(&file);
        } else MUST(!strncmp(error.message, "x.safetensors", 13) && !strchr(error.message, '\n'));
    } else if (llm_gguf_open_memory(&source, copy, size - 1, "x.gguf", &error) == 0) {
        use_source(&source);
        llm_source_close(&source);
    } else MUST(!strncmp(error.message, "x.gguf: ", 8) && !strchr(error.message, '\n'));
    free(copy);
    return 0;
}
