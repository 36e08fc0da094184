#include "conversation.h"

#include <stdlib.h>
#include <string.h>

/* The last one serves for everything else: any model that continues text understands it. */
static const llm_turns forms[] = {
    {"chatml", "<|im_start|>", "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
     "<|im_end|>\n", "<|im_end|>"},
    {"llama3", "<|start_header_id|>", "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", "<|eot_id|>"},
    {"instruct", "[INST]", "", "\n", "[INST]", " [/INST]", "</s>", "</s>"},
    {"plain", NULL, "", "\n", "User: ", "\nAssistant:", "\n", "\nUser:"},
};

static const char *find(const char *text, size_t bytes, const char *what) {
    size_t length = strlen(what);
    for (size_t i = 0; i + length <= bytes; i++)
        if (memcmp(text + i, what, length) == 0) return text + i;
    return NULL;
}

/* ---- tokens ---- */

typedef struct tokens {
    uint32_t *ids;
    size_t count;
    int failed;
} tokens;

static void add(tokens *t, const uint32_t *ids, size_t count) {
    uint32_t *more = t->failed ? NULL : realloc(t->ids, (t->count + count + 1) * sizeof *more);
    if (!more) {
        t->failed = 1;
        return;
    }
    t->ids = more;
    if (count) memcpy(more + t->count, ids, count * sizeof *ids);
    t->count += count;
}

enum { MARKED = 1, GOES_ON = 2 }; /* marks count; no space is to be put in front */

static void add_text(tokens *t, const llm_tokenizer *tokenizer, const char *text, size_t bytes, int how) {
    llm_tokenizer as = *tokenizer;
    uint32_t *ids = NULL;
    int64_t count = 0;
    if (how & GOES_ON) as.add_space = 0;
    if (bytes) count = how & MARKED ? llm_encode_marked(&as, text, bytes, &ids) : llm_encode(&as, text, bytes, &ids);
    if (count < 0) t->failed = 1;
    else add(t, ids, (size_t)count);
    free(ids);
}

/* Text of the user's between text of the form's, which alone may hold marks. Where there are none it is one text. */
static void add_around(tokens *t, const llm_conversation *c, const char *before, const char *text, size_t bytes, const char *after) {
    size_t b = strlen(before), a = strlen(after);
    if (c->turns->sign) {
        add_text(t, c->tokenizer, before, b, MARKED | GOES_ON);
        add_text(t, c->tokenizer, text, bytes, 0);
        add_text(t, c->tokenizer, after, a, MARKED | GOES_ON);
        return;
    }
    char *all = malloc(b + bytes + a + 1);
    if (!all) {
        t->failed = 1;
        return;
    }
    memcpy(all, before, b), memcpy(all + b, text, bytes), memcpy(all + b + bytes, after, a);
    add_text(t, c->tokenizer, all, b + bytes + a, t->count + c->generator.count > 1 ? GOES_ON : 0);
    free(all);
}

/* ---- turns ---- */

int llm_conversation_init(llm_conversation *c, const llm_model *m, const llm_tokenizer *tokenizer, uint32_t context, const char *system) {
    llm_string chat = llm_text(&m->source, "tokenizer.chat_template");
    tokens t = {NULL, 0, 0};
    memset(c, 0, sizeof *c);
    c->tokenizer = tokenizer;
    c->turns = forms;
    while (c->turns->sign && !(chat.text && find(chat.text, chat.bytes, c->turns->sign))) c->turns++;
    if (llm_generator_init(&c->generator, m, context) != 0) return -1;
    uint32_t begin = (uint32_t)tokenizer->bos;
    if (tokenizer->add_bos) add(&t, &begin, 1);
    if (system) add_around(&t, c, c->turns->system_begin, system, strlen(system), c->turns->system_end);
    if (t.count > c->generator.state.context / 2) t.count = c->generator.state.context / 2;
    if (!t.failed) llm_generator_add(&c->generator, t.ids, t.count);
    c->kept = (uint32_t)t.count;
    free(t.ids);
    if (!t.failed) return 0;
    llm_conversation_free(c);
    return -1;
}

void llm_conversation_free(llm_conversation *c) {
    llm_generator_free(&c->generator);
    free(c->starts);
    memset(c, 0, sizeof *c);
}

/* Cuts the text back to `count` tokens. */
static void back_to(llm_conversation *c, uint32_t count) {
    llm_generator *g = &c->generator;
    if (g->count > count) g->count = count;
    if (g->state.position > g->count) g->state.position = g->count;
}

void llm_conversation_reset(llm_conversation *c) {
    back_to(c, c->kept);
    c->count = c->forgotten = 0;
    c->answering = 0;
}

/* Makes room for `more` tokens by forgetting whole turns, the oldest first, but never the last: a quarter of the
 * context more than is needed, so that it is not done at every turn. 0 if there is room now. */
static int make_room(llm_conversation *c, size_t more) {
    llm_generator *g = &c->generator;
    size_t context = g->state.context, left = context / 4, turn = 0;
    if (g->count + more <= context) return 0;
    while (turn + 1 < c->count && g->count + c->kept + more + left - c->starts[turn] > context) turn++;
    if (!turn) return -1;
    uint32_t gone = (c->starts[turn] < g->count ? c->starts[turn] : g->count) - c->kept; /* the new turn is still to come */
    memmove(g->ids + c->kept, g->ids + c->kept + gone, (g->count - c->kept - gone) * sizeof *g->ids);
    g->count -= gone;
    c->sure -= c->sure > gone ? gone : c->sure;
    if (g->state.position > c->kept) g->state.position = c->kept; /* what follows has other positions now */
    for (size_t i = turn; i < c->count; i++) c->starts[i - turn] = c->starts[i] - gone;
    c->count -= turn;
    c->forgotten += turn;
    return g->count + more <= context ? 0 : -1;
}

int llm_conversation_say(llm_conversation *c, const char *text, size_t bytes) {
    llm_generator *g = &c->generator;
    tokens t = {NULL, 0, 0};
    if (c->answering) llm_conversation_stop(c);
    if (c->count == c->room) {
        uint32_t *more = realloc(c->starts, (2 * c->room + 16) * sizeof *more);
        if (!more) return -1;
        c->starts = more;
        c->room = 2 * c->room + 16;
    }
    if (c->count) add_text(&t, c->tokenizer, c->turns->end, strlen(c->turns->end), MARKED | GOES_ON);
    size_t ending = t.count;
    add_around(&t, c, c->turns->user_begin, text, bytes, c->turns->user_end);
    int result = t.failed ? -1 : t.count - ending + c->kept >= g->state.context;
    if (result == 0) {
        c->starts[c->count++] = g->count + (uint32_t)ending; /* the end of the last answer is written only now */
        make_room(c, t.count + 1);
        if (g->count == c->kept) { /* and not if there is none any more */
            memmove(t.ids, t.ids + ending, (t.count -= ending) * sizeof *t.ids);
            c->starts[0] = c->kept;
        }
        llm_generator_add(g, t.ids, t.count);
        c->sure = g->count;
        c->held_bytes = 0;
        c->answering = c->first = 1;
    }
    free(t.ids);
    return result;
}

/* ---- answers ---- */

void llm_conversation_stop(llm_conversation *c) {
    if (c->answering) back_to(c, c->sure);
    c->answering = 0;
    c->held_bytes = 0;
}

/* How much of the text's end may be the beginning of `stop`. */
static size_t maybe(const char *text, size_t bytes, const char *stop) {
    size_t most = strlen(stop) - 1;
    for (size_t n = bytes < most ? bytes : most; n; n--)
        if (memcmp(text + bytes - n, stop, n) == 0) return n;
    return 0;
}

int llm_conversation_next(llm_conversation *c, llm_sampler *sampler, char *out, size_t *bytes) {
    llm_generator *g = &c->generator;
    const char *stop = c->turns->stop, *found;
    *bytes = 0;
    if (!c->answering) return 0;
    int64_t id = make_room(c, 1) == 0 ? llm_generator_next(g, sampler) : c->tokenizer->eos;
    if (id < 0 && g->count < g->state.context) return -1;
    char text[sizeof c->held + 256];
    size_t length = c->held_bytes;
    memcpy(text, c->held, length);
    if (id < 0 || id == c->tokenizer->eos) { /* the mark is written when the next turn begins */
        memcpy(out, text, *bytes = length);
        if (g->count && id >= 0 && g->ids[g->count - 1] == (uint32_t)id) back_to(c, g->count - 1);
        c->sure = g->count;
        llm_conversation_stop(c);
        return 0;
    }
    length += llm_token_text(c->tokenizer, (uint32_t)id, c->first, text + length, 256);
    c->first = 0;
    if ((found = find(text, length, stop))) {
        memcpy(out, text, *bytes = (size_t)(found - text));
        llm_conversation_stop(c);
        return 0;
    }
    size_t hold = maybe(text, length, stop);
    memcpy(out, text, *bytes = length - hold);
    memcpy(c->held, text + length - hold, c->held_bytes = hold);
    if (!hold) c->sure = g->count;
    return 1;
}
