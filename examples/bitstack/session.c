#include "session.h"
#include "cli.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <string.h>

/* What may be still empty is taken for a stack, too. */
static int is_stack(const char *path, int growing) {
    char magic[8] = {0};
    FILE *file = strcmp(path, "-") == 0 ? NULL : platform_open(path, "rb");
    if (!file) return strcmp(path, "-") == 0;
    size_t got = fread(magic, 1, sizeof magic, file);
    fclose(file);
    return memcmp(magic, "BITSTACK", got) == 0 && (growing || got == sizeof magic);
}

int session_keep(const char *word) {
    static const char *const words[] = {[LLM_KEEP_F32] = "f32", [LLM_KEEP_F16] = "f16", [LLM_KEEP_8] = "8"};
    for (int i = 0; i < (int)(sizeof words / sizeof *words); i++)
        if (strcmp(word, words[i]) == 0) return i;
    return -1;
}

/* The model's threads serve the stack as well, which is opened before them. */
static void with_threads(void *user, void (*task)(void *context, size_t index), void *context, size_t count) {
    const bitstack_parallel *threads = user;
    if (threads->run) threads->run(threads->user, task, context, count);
    else
        for (size_t i = 0; i < count; i++) task(context, i);
}

/* ---- sizes ---- */

uint64_t session_other(const session *s) {
    const llm_source *source = &s->model.source;
    uint64_t bytes =
        llm_tokenizer_bytes(&s->tokenizer) +
        160 * (uint64_t)(bitstack_matrix_count(source->stack) + bitstack_block_count(source->stack));
    for (size_t i = 0; i < source->meta_count; i++)
        if (source->meta[i].strings) bytes += source->meta[i].count * sizeof *source->meta[i].strings;
    return bytes + (512 << 10); /* the program's own data, stacks of its threads */
}

void session_share(session_choice *c, uint64_t free, uint64_t held, uint64_t context,
                   const memory_policy *policy, uint64_t margin_of) {
    c->free = free;
    c->context = context;
    c->margin = margin_of ? 2 * memory_reserve(policy, margin_of) : 0;
    c->weights = held + free > c->margin + context ? held + free - c->margin - context : 0;
    if (c->weights > c->all) c->weights = c->all;
}

/* Loads what the memory that is free allows; more or less of it from then on, as that changes. Where it cannot be told,
 * everything is loaded. */
static int choose(session *s, const session_options *options, resizer_options *size, llm_error *error) {
    bitstack *stack = s->model.source.stack;
    memory_watch watch;
    memory_reading now;
    memory_watch_init(&watch, size->group);
    session_choice *c = &s->choice;
    size->automatic = memory_read(&watch, 0, &now) == 0;
    c->all = c->weights = bitstack_total_bytes(stack);
    uint64_t context = llm_generator_bytes(NULL, &s->model, options->context, UINT32_MAX),
             base = bitstack_base_bytes(stack);
    if (size->automatic) session_share(c, now.available, base, context, &size->policy, now.limit);
    if (c->weights < base) c->weights = base;
    bitstack_error trouble;
    bitstack_result result = bitstack_set_budget(stack, c->weights, &trouble);
    if (result == BITSTACK_ERROR_MEMORY) return llm_fail(error, "%s: out of memory", s->model.source.path);
    size->budget = c->weights;
    return 0;
}

/* One budget for all. */
static int share(session *s, const session_options *options, resizer_options *size, llm_error *error) {
    uint64_t base = bitstack_base_bytes(s->model.source.stack),
             least = llm_generator_bytes(NULL, &s->model, options->context, 1);
    s->other = session_other(s);
    s->memory = options->memory;
    if (s->memory < s->other + least + base)
        return llm_fail(
            error,
            "%s: %s in all are too little: %s are needed before any block, %s of them for the room to work in (--context)",
            s->model.source.path, cli_bytes(s->memory), cli_bytes(s->other + least + base), cli_bytes(least));
    size->budget = s->weights = s->memory - s->other - least;
    bitstack_set_budget(s->model.source.stack, size->budget,
                        NULL); /* what could not be had is told at the end */
    return 0;
}

uint64_t session_fit(session *s, const llm_generator *g, uint32_t more) {
    if (!s->memory || !s->resizer) return 0;
    resizer_state now;
    resizer_ask(s->resizer, &now);
    uint64_t taken = s->other + llm_generator_bytes(g, &s->model, 0, more),
             left = s->memory > taken + now.base ? s->memory - taken : now.base;
    if (left != now.target) resizer_budget(s->resizer, left), resizer_wait(s->resizer);
    uint64_t first = s->weights < now.total ? s->weights : now.total;
    return left < first ? first - left : 0;
}

void session_say(const session *s) {
    const session_choice *c = &s->choice;
    if (!c->all) return;
    if (c->weights == c->all && !platform_is_terminal(stderr)) return;
    if (!c->free) {
        fprintf(stderr, "bitstack: all of the model, %s: free memory cannot be told here (--budget)\n",
                cli_bytes(c->all));
        return;
    }
    fprintf(
        stderr,
        "bitstack: %s%s of the model's %s: %s of memory are free, less %s as a margin and %s for the context (--budget, --memory, --context)\n",
        c->weights == c->all ? "all, " : "", cli_bytes(c->weights), cli_bytes(c->all), cli_bytes(c->free),
        cli_bytes(c->margin), cli_bytes(c->context));
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
    load.keep = options->keep;
    open.parallel.run = with_threads;
    open.parallel.user = &s->model.parallel;
    open.parallel.threads = options->threads;
    open.allocator = memory_allocator();
    open.budget = size.automatic ? size.policy.least : size.budget;
    open.load_nothing = options->choose || options->memory || (size.automatic && !size.policy.least);
    if (follow_open(&s->follow, &stack, path, options->growing, &open, error) != 0) return -1;
    if (llm_source_stack(&source, stack, path, error) != 0) return -1;
    if (llm_model_load(&s->model, source, &load, error) != 0) return -1;
    if (llm_tokenizer_load(&s->tokenizer, &s->model.source, error) != 0) return -1;
    if ((options->choose && choose(s, options, &size, error) != 0) ||
        (options->memory && share(s, options, &size, error) != 0))
        return -1;
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
    load.keep = options->keep;
    memset(s, 0, sizeof *s);
    int good = (stack ? open_stack(s, path, options, error) : llm_model_open(&s->model, path, &load, error)) == 0;
    if (good && !stack &&
        (options->size.budget || options->size.automatic || options->memory || options->growing))
        good = llm_fail(error, "%s: a budget needs a stack, this is a model of fixed size", path) == 0;
    if (good && !stack) good = llm_tokenizer_load(&s->tokenizer, &s->model.source, error) == 0;
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
