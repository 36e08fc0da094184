/* use_source.h - what the targets do with a model that could be opened, whatever file held it: reads its tensors and
 * metadata, tokenizes, runs it if it is small, and takes what is resident to a stack as compress does. */
#ifndef USE_SOURCE_H
#define USE_SOURCE_H

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fuzz.h"
#include "examples/bitstack/resident.h"
#include "examples/llm/model.h"
#include "examples/llm/tokenizer.h"

/* A name for files of this process alone, in memory where that can be had. */
static inline const char *fuzz_place(void) {
    static char place[200];
    const char *folder = getenv("TMPDIR");
    if (!folder || !*folder) folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    if (!place[0]) snprintf(place, sizeof place, "%.150s/bitstack-fuzz-%ld", folder, (long)getpid());
    return place;
}

static inline void use_tokenizer(const llm_source *source) {
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

/* Metadata and tensors as compress and import write them: what is taken can be read again, and says the same. */
static inline void use_resident(const llm_source *source) {
    char path[240];
    bitstack_writer *writer;
    bitstack *stack;
    llm_source again;
    llm_error error;
    uint64_t elements = 0;
    bitstack_result result;
    int taken = 1;
    snprintf(path, sizeof path, "%s.bitstack", fuzz_place());
    MUST(bitstack_writer_open(&writer, path, NULL, NULL) == BITSTACK_OK);
    for (size_t i = 0; i < source->meta_count && taken; i++)
        if (source->meta[i].type != LLM_ARRAY && source->meta[i].key.bytes) taken = write_meta(writer, &source->meta[i]) == BITSTACK_OK;
    for (size_t i = 0; i < source->tensor_count && taken; i++) {
        const uint64_t rows = llm_tensor_rows(&source->tensors[i]), cols = llm_tensor_cols(&source->tensors[i]);
        if (elements + rows * cols > 1 << 16) continue;
        elements += rows * cols;
        taken = write_tensor(writer, &source->tensors[i]) == BITSTACK_OK;
    }
    if (!taken) {
        bitstack_writer_abort(writer);
        return;
    }
    result = bitstack_writer_finish(writer, NULL, 0, NULL);
    if (result != BITSTACK_OK) return; /* two of a name */
    MUST(bitstack_open_file(&stack, path, NULL, NULL) == BITSTACK_OK && llm_source_stack(&again, stack, path, &error) == 0);
    for (size_t i = 0, next = 0; i < source->meta_count; i++) {
        const llm_meta *was = &source->meta[i], *is = &again.meta[next];
        if (was->type == LLM_ARRAY || !was->key.bytes) continue;
        MUST(next++ < again.meta_count && is->count == was->count && !is->strings == !was->strings);
        for (uint64_t j = 0; j < was->count; j++) {
            if (was->strings) MUST(was->strings[j].bytes == is->strings[j].bytes && !memcmp(was->strings[j].text, is->strings[j].text, is->strings[j].bytes));
            else {
                const double a = llm_meta_element(was, j), b = llm_meta_element(is, j);
                MUST(!memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b)));
            }
        }
    }
    llm_source_close(&again);
    unlink(path);
}

static inline void use_source(llm_source *source) {
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
    if (!source->stack) use_resident(source);
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
#endif
