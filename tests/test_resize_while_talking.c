/* A conversation goes on through changes of the model's size: what is said after one is what a model opened at that
 * size would have said, from the same keys and values; and nobody waits for the resizing. */
#include "random_stack.h"
#include "examples/bitstack/session.h"
#include "examples/llm/conversation.h"
#include <pthread.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* The same state on another model. */
static int copy_state(llm_generator *to, const llm_generator *from, const llm_model *m) {
    const llm_config *c = &m->config;
    size_t kv = (size_t)c->layers * c->kv_heads * c->head_width * from->state.context;
    if (llm_generator_init(to, m, from->state.context) != 0) return -1;
    memcpy(to->state.keys, from->state.keys, kv * sizeof(float));
    memcpy(to->state.values, from->state.values, kv * sizeof(float));
    memcpy(to->ids, from->ids, from->count * sizeof *to->ids);
    to->state.position = from->state.position;
    to->count = from->count;
    return 0;
}

/* The resized 1,000 times; how many tokens came while blocks were moving. */
static void resize_and_compare(const char *path, session *s, llm_conversation *talk, int resizes) {
    llm_sampler sampler = {1, 0.95f, 11};
    uint64_t seed = 5, moving = 0, compared = 0;
    resizer_state now;
    char text[512], other[512];
    size_t bytes;
    resizer_ask(s->resizer, &now);
    for (int i = 0; i < resizes && !test_bad_; i++) {
        uint64_t budget = now.base + test_random(&seed) % (now.total - now.base + 1);
        if (i % 7 == 0) budget = i % 2 ? now.base : now.total;
        CHECK(resizer_budget(s->resizer, budget) == 0, "budget %llu", (unsigned long long)budget);
        for (uint64_t k = test_random(&seed) % 3; k; k--) { /* on through it */
            if (!talk->answering) llm_conversation_say(talk, "and?", 4);
            CHECK(llm_conversation_next(talk, &sampler, text, &bytes) >= 0, "no memory");
            resizer_ask(s->resizer, &now);
            moving += !now.settled;
        }
        resizer_wait(s->resizer);
        resizer_ask(s->resizer, &now);
        CHECK(now.resident <= budget && !now.message[0], "%llu bytes of %llu: %s", (unsigned long long)now.resident, (unsigned long long)budget, now.message);
        if (!talk->answering) llm_conversation_say(talk, "go on", 5);

        llm_model fresh;
        llm_model_options options;
        llm_error error;
        llm_generator g;
        memset(&options, 0, sizeof options);
        options.stack.budget = budget;
        CHECK(llm_model_open(&fresh, path, &options, &error) == 0 && copy_state(&g, &talk->generator, &fresh) == 0, "%s", error.message);
        if (test_bad_) return;
        llm_sampler same = sampler;
        for (int k = 0; k < 2 && talk->generator.count < talk->generator.state.context - 1 && talk->answering; k++, compared++) {
            int64_t id = llm_generator_next(&g, &same);
            uint32_t at = talk->generator.count;
            int more = llm_conversation_next(talk, &sampler, text, &bytes);
            CHECK(memcmp(g.logits, talk->generator.logits, fresh.config.vocabulary * sizeof(float)) == 0, "resize %d: other logits", i);
            CHECK(more == 0 || talk->generator.ids[at] == (uint32_t)id, "resize %d: %u, a fresh model says %lld", i, talk->generator.ids[at], (long long)id);
            size_t length = llm_token_text(&s->tokenizer, (uint32_t)id, 0, other, sizeof other);
            CHECK(more == 0 || talk->held_bytes || bytes < length || memcmp(text + bytes - length, other, length) == 0, "resize %d: other text", i);
        }
        llm_generator_free(&g);
        llm_model_close(&fresh);
    }
    printf("      %d resizes, %llu blocks moved, %llu tokens while they moved, %llu compared, %zu turns forgotten\n", resizes,
           (unsigned long long)now.steps, (unsigned long long)moving, (unsigned long long)compared, talk->forgotten);
    CHECK(compared > (uint64_t)resizes, "only %llu compared", (unsigned long long)compared);
}

/* A device that answers when it is allowed to: reads are held up while `hold` is set. */
typedef struct slow_device {
    FILE *file;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int hold, held, reads;
} slow_device;
static int slow_read(void *user, uint64_t offset, void *to, size_t bytes) {
    slow_device *d = (slow_device *)user;
    pthread_mutex_lock(&d->lock);
    d->held++, d->reads++;
    pthread_cond_broadcast(&d->changed);
    while (d->hold) pthread_cond_wait(&d->changed, &d->lock);
    d->held--;
    const int failed = fseek(d->file, (long)offset, SEEK_SET) != 0 || fread(to, 1, bytes, d->file) != bytes;
    pthread_mutex_unlock(&d->lock);
    return failed;
}
static void slow_set(slow_device *d, int hold) {
    pthread_mutex_lock(&d->lock);
    d->hold = hold;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}
static void slow_wait(slow_device *d) { /* until somebody is held up */
    pthread_mutex_lock(&d->lock);
    while (!d->held) pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

/* Talks on while the resizer waits for the device, on the way up and on the way down: a token that waited for it would
 * wait for ever. Returns the tokens. */
static int talk_beside(slow_device *d, resizer *r, llm_conversation *talk, uint64_t low, uint64_t high) {
    llm_sampler sampler = {1, 0.95f, 3};
    char text[512];
    size_t bytes;
    int tokens = 0;
    for (int phase = 0; phase < 2; phase++) {
        resizer_state now;
        slow_set(d, 1);
        CHECK(resizer_budget(r, phase ? low : high) == 0, "budget");
        slow_wait(d);
        const int reads = d->reads;
        for (int i = 0; i < 40; i++, tokens++) {
            if (!talk->answering) llm_conversation_reset(talk), llm_conversation_say(talk, "more", 4);
            CHECK(llm_conversation_next(talk, &sampler, text, &bytes) >= 0, "no memory");
        }
        CHECK(d->reads == reads && d->held == 1, "the resizer went on: %d reads, %d held up", d->reads - reads, d->held);
        slow_set(d, 0);
        resizer_wait(r);
        resizer_ask(r, &now);
        CHECK(now.settled && !now.message[0] && (phase ? now.resident <= low : now.resident == now.total), "%llu bytes of %llu: %s",
              (unsigned long long)now.resident, (unsigned long long)now.total, now.message);
    }
    return tokens;
}

int main(void) {
    char path[64];
    session s;
    session_options options;
    llm_conversation talk;
    llm_error error;
    memset(&options, 0, sizeof options);
    options.threads = 2;
    snprintf(path, sizeof path, "build/tests/talking%d.bitstack", (int)getpid());

    TEST("resized 1,000 times at random while it talks, the text after each is that of a fresh model at that size");
    int resizes = getenv("BITSTACK_TALK_RESIZES") ? atoi(getenv("BITSTACK_TALK_RESIZES")) : 1000;
    CHECK(random_stack(path, 64, 128, 2, 3, 96, NULL) == 0 && session_open(&s, path, &options, &error) == 0, "%s", error.message);
    if (test_bad_) return TEST_DONE();
    CHECK(llm_conversation_init(&talk, &s.model, &s.tokenizer, 0, "Be brief.") == 0 && llm_conversation_say(&talk, "hello", 5) == 0, "no memory");
    resize_and_compare(path, &s, &talk, resizes);
    llm_conversation_free(&talk);
    session_close(&s);

    TEST("no token waits for the resizing: eighty come while it waits for a device, half on the way up and half on the way down");
    {
        slow_device device = {NULL, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
        llm_model_options load;
        llm_source source;
        llm_model model;
        llm_tokenizer tokenizer;
        bitstack_options open = {0};
        bitstack_error why;
        bitstack *stack;
        resizer *r;
        memset(&load, 0, sizeof load);
        CHECK(random_stack(path, 64, 128, 2, 3, 96, NULL) == 0 && (device.file = fopen(path, "rb")) != NULL, "%s", path);
        if (test_bad_) return TEST_DONE();
        fseek(device.file, 0, SEEK_END);
        open.load_nothing = 1;
        CHECK(bitstack_open_callback(&stack, slow_read, &device, (uint64_t)ftell(device.file), &open, &why) == BITSTACK_OK, "%s", why.message);
        const uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack), low = base + (total - base) / 2;
        CHECK(bitstack_set_budget(stack, base, &why) == BITSTACK_OK && llm_source_stack(&source, stack, path, &error) == 0 &&
              llm_model_load(&model, source, &load, &error) == 0 && llm_tokenizer_load(&tokenizer, &model.source, &error) == 0, "%s", error.message);
        if (test_bad_) return TEST_DONE();
        resizer_options size;
        memset(&size, 0, sizeof size);
        size.budget = base;
        CHECK(resizer_start(&r, stack, &size) == 0, "no thread");
        CHECK(llm_conversation_init(&talk, &model, &tokenizer, 0, NULL) == 0 && llm_conversation_say(&talk, "hello", 5) == 0, "no memory");
        alarm(SANITIZED ? 300 : 100); /* not for ever */
        const int tokens = talk_beside(&device, r, &talk, low, total);
        alarm(0);
        CHECK(tokens == 80, "%d tokens", tokens);
        llm_conversation_free(&talk);
        resizer_stop(r);
        llm_tokenizer_free(&tokenizer);
        llm_model_close(&model);
        fclose(device.file);
    }
    remove(path);
    return TEST_DONE();
}
