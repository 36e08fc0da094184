#include "session.h"
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* What may be still empty is taken for a stack, too. */
static int is_stack(const char *path, int growing) {
    char magic[8] = {0};
    FILE *file = strcmp(path, "-") == 0 ? NULL : fopen(path, "rb");
    if (!file) return strcmp(path, "-") == 0;
    size_t got = fread(magic, 1, sizeof magic, file);
    fclose(file);
    return memcmp(magic, "BITSTACK", got) == 0 && (growing || got == sizeof magic);
}

/* The model's threads serve the stack as well, which is opened before them. */
static void with_threads(void *user, void (*task)(void *context, size_t index), void *context, size_t count) {
    const bitstack_parallel *threads = user;
    if (threads->run) threads->run(threads->user, task, context, count);
    else
        for (size_t i = 0; i < count; i++) task(context, i);
}

static int open_stack(session *s, const char *path, const session_options *options, llm_error *error) {
    resizer_options size = options->size;
    bitstack_options open;
    bitstack *stack;
    llm_source source;
    llm_model_options load;
    memset(&load, 0, sizeof load);
    memset(&open, 0, sizeof open);
    load.threads = options->threads;
    open.parallel.run = with_threads;
    open.parallel.user = &s->model.parallel;
    open.parallel.threads = options->threads;
    open.allocator = memory_allocator();
    open.budget = size.automatic ? size.policy.least : size.budget;
    open.load_nothing = size.automatic && !size.policy.least;
    if (follow_open(&s->follow, &stack, path, options->growing, &open, error) != 0) return -1;
    if (llm_source_stack(&source, stack, path, error) != 0) return -1;
    if (llm_model_load(&s->model, source, &load, error) != 0) return -1;
    if (size.automatic && !size.policy.least) size.policy.least = bitstack_base_bytes(stack);
    if (options->growing || strcmp(path, "-") == 0) {
        size.arrived = follow_arrived;
        size.arrived_user = s->follow;
    }
    return resizer_start(&s->resizer, stack, &size) == 0 ? 0 : llm_fail(error, "%s: out of memory", path);
}

int session_open(session *s, const char *path, const session_options *options, llm_error *error) {
    int stack = is_stack(path, options->growing);
    llm_model_options load;
    memset(&load, 0, sizeof load);
    load.threads = options->threads;
    memset(s, 0, sizeof *s);
    int good = (stack ? open_stack(s, path, options, error) : llm_model_open(&s->model, path, &load, error)) == 0;
    if (good && !stack && (options->size.budget || options->size.automatic || options->growing))
        good = llm_fail(error, "%s: a budget needs a stack, this is a model of fixed size", path) == 0;
    if (good) good = llm_tokenizer_load(&s->tokenizer, &s->model.source, error) == 0;
    uint64_t bytes = 0;
    for (size_t i = 0; good && i < s->model.source.tensor_count; i++) bytes += s->model.source.tensors[i].bytes;
    for (size_t i = 0; good && !stack && bytes < (uint64_t)2 << 30 && i < s->model.source.tensor_count; i++) /* a stack's were looked at before */
        good = llm_tensor_check(&s->model.source, &s->model.source.tensors[i], error) == 0;
    if (good) cli_note_guess(&s->model.source, s->tokenizer.guessed);
    if (good) return 0;
    session_close(s);
    return -1;
}

void session_close(session *s) {
    resizer_stop(s->resizer);
    llm_tokenizer_free(&s->tokenizer);
    llm_model_close(&s->model);
    follow_close(s->follow);
    memset(s, 0, sizeof *s);
}
