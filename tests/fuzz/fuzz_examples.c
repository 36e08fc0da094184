/* fuzz_examples.c - the parsers of the examples: a GGUF file (with its tokenizer and, if it is small, the model
 * run for a few tokens), a stack as a model, JSON, safetensors. The first byte chooses. */
#include "use_source.h"
#include "examples/llm/gguf.h"
#include "examples/llm/hf.h"
#include "examples/llm/json.h"
#include "examples/llm/safetensors.h"

/* The same bytes as SentencePiece's file, with the text as what is beside it. */
static void use_pieces(const char *text, size_t bytes) {
    llm_error error;
    llm_source source;
    memset(&source, 0, sizeof source);
    source.path = strdup("x.model");
    error.message[0] = 0;
    if (llm_hf_sentencepiece(&source, text, bytes, "x.model", &error) == 0) {
        llm_hf_added_tokens(&source, text, bytes, "x.model", &error);
        llm_hf_tokenizer_settings(&source, text, bytes, "x.model", &error);
        use_tokenizer(&source);
    } else MUST(!strncmp(error.message, "x.model: ", 9) && !strchr(error.message, '\n'));
    llm_source_close(&source);
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
        if (result == 0) llm_hf_generation(&source, text, bytes, "x.json", &error);
        if (result == 0 && way) llm_hf_added_tokens(&source, text, bytes, "x.json", &error), llm_hf_tokenizer_settings(&source, text, bytes, "x.json", &error), use_tokenizer(&source);
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
    if (data[0] / 2 % 4 == 0) {
        llm_json json;
        use_pieces((const char *)copy, size - 1);
        if (llm_json_parse(&json, (const char *)copy, size - 1, "x.json", &error) == 0) {
            MUST(json.count >= 1 && json.values[0].skip == json.count);
            for (size_t i = 0; i < json.count; i++) {
                MUST(json.values[i].skip >= 1 && json.values[i].skip <= json.count - i);
                if (json.values[i].type == LLM_JSON_OBJECT) MUST(llm_json_member(&json, i, "key") < json.count);
            }
            llm_json_free(&json);
            use_json((const char *)copy, size - 1);
        } else MUST(error.message[0] && !strchr(error.message, '\n'));
    } else if (data[0] / 2 % 4 == 1) {
        bitstack *stack;
        bitstack_options options = {0};
        options.skip_checksums = 1;
        if (bitstack_open_memory(&stack, copy, size - 1, &options, NULL) == BITSTACK_OK && llm_source_stack(&source, stack, "x.bitstack", &error) == 0) {
            use_source(&source);
            llm_source_close(&source);
        }
    } else if (data[0] / 2 % 4 == 3) {
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
