/* A conversation goes on through changes of the model's size: what is said after one is what a model opened at that
 * size would have said, from the same keys and values; and nobody waits for the resizing. */
#include "random_stack.h"
#include "examples/bitstack/session.h"
#include "examples/llm/conversation.h"

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

static int by_size(const void *a, const void *b) {
    const double *x = (const double *)a, *y = (const double *)b;
    return *x < *y ? -1 : *x > *y;
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

/* The longest wait for a token while the model goes from one size to another and back, and the usual wait. */
static double longest_wait(session *s, llm_conversation *talk, uint64_t low, uint64_t high, double *usual) {
    enum { TOKENS = 40, MOST = 400 };
    double waits[MOST], longest = 0, start;
    llm_sampler sampler = {1, 0.95f, 3};
    resizer_state now;
    char text[512];
    size_t bytes;
    for (int phase = 0; phase < 3; phase++) { /* at the full size; going down; going up */
        if (phase) resizer_budget(s->resizer, phase == 1 ? low : high);
        now.settled = 0;
        for (int i = 0; i < (phase ? MOST : TOKENS) && !(phase && now.settled); i++) {
            if (!talk->answering) llm_conversation_reset(talk), llm_conversation_say(talk, "more", 4), llm_conversation_next(talk, &sampler, text, &bytes);
            start = llm_seconds();
            llm_conversation_next(talk, &sampler, text, &bytes);
            waits[i] = llm_seconds() - start;
            if (phase && waits[i] > longest) longest = waits[i];
            resizer_ask(s->resizer, &now);
        }
        CHECK(!phase || now.settled, "still %d of %d blocks after %d tokens", now.loaded, now.blocks, MOST);
        if (!phase) qsort(waits, TOKENS, sizeof *waits, by_size), *usual = waits[TOKENS / 2];
    }
    return longest;
}

int main(void) {
    char path[64];
    session s;
    session_options options;
    llm_conversation talk;
    llm_error error;
    resizer_state now;
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

    TEST("no token takes longer than two while the model goes from all its blocks to none and back");
    if (SANITIZED) SKIP("times say nothing under a sanitizer");
    else {
        double usual = 0, longest = 1, best = 1e9;
        options.threads = 1;
        CHECK(random_stack(path, 1024, 2816, 8, 4, 512, NULL) == 0 && session_open(&s, path, &options, &error) == 0, "%s", error.message);
        CHECK(llm_conversation_init(&talk, &s.model, &s.tokenizer, 0, NULL) == 0, "no memory");
        resizer_ask(s.resizer, &now);
        for (int attempt = 0; attempt < 8 && best > 2; attempt++) { /* others use the machine as well */
            longest = longest_wait(&s, &talk, now.base, now.total, &usual);
            if (longest / usual < best) best = longest / usual;
        }
        resizer_ask(s.resizer, &now);
        printf("      a token takes %.2f ms, the longest while resizing %.2f; a block at most %.2f, %llu moved\n", 1e3 * usual, 1e3 * longest,
               1e3 * now.longest, (unsigned long long)now.steps);
        CHECK(best <= 2, "the longest wait is %.1f tokens", best);
        CHECK(now.steps >= 200, "only %llu blocks moved", (unsigned long long)now.steps);
        llm_conversation_free(&talk);
        session_close(&s);
    }
    remove(path);
    return TEST_DONE();
}
