/* measure.c - the tokens that a model's quality is measured on. */
#include "measure.h"
#include "cli.h"
#include "../llm/tokenizer.h"

#include <stdlib.h>

int measure_rows(llm_rows *rows, const llm_model *model, const char *text, int special, const char *tokens,
                 uint32_t context, size_t most) {
    const char *path = text ? text : tokens;
    llm_error error;
    uint32_t *ids = NULL;
    int64_t count = 0;
    size_t bytes;
    unsigned char *data = cli_read(path, &bytes);
    if (!data) return CLI_FAILED;
    int status = CLI_OK;
    if (text) {
        llm_tokenizer tokenizer;
        if (llm_tokenizer_load(&tokenizer, &model->source, &error) != 0) status = cli_failed("%s", error.message);
        else {
            count = (special ? llm_encode_marked : llm_encode)(&tokenizer, (const char *)data, bytes, &ids);
            if (count < 0) status = cli_failed("%s: out of memory", path);
            llm_tokenizer_free(&tokenizer);
        }
    } else if (bytes % 2) status = cli_failed("%s: offset %llu: expected an even number of bytes, 16-bit ids", path,
                                              (unsigned long long)bytes);
    else {
        count = (int64_t)(bytes / 2);
        ids = malloc(bytes * 2 + 4);
        if (!ids) status = cli_failed("%s: out of memory", path);
        for (int64_t i = 0; ids && i < count; i++) ids[i] = (uint32_t)data[2 * i] | (uint32_t)data[2 * i + 1] << 8;
    }
    for (int64_t i = 0; status == CLI_OK && i < count; i++)
        if (ids[i] >= model->config.vocabulary)
            status = cli_failed("%s: offset %llu: expected ids below %u, found %u", path,
                                text ? 0ull : (unsigned long long)(2 * i), model->config.vocabulary, ids[i]);
    if (status == CLI_OK && llm_rows_cut(rows, ids, (size_t)count, (size_t)context + 1, most) != 0)
        status = cli_failed("%s: expected at least two tokens, found %lld", path, (long long)count);
    free(ids), free(data);
    return status;
}
