#include "conversation.h"

#include <stdlib.h>
#include <string.h>

static const char *find(const char *text, size_t bytes, const char *what) {
    size_t length = strlen(what);
    for (size_t i = 0; i + length <= bytes; i++)
        if (memcmp(text + i, what, length) == 0) return text + i;
    return NULL;
}

/* ---- text of the form's and of others, in a row ---- */

typedef struct script {
    char *text;
    size_t bytes, count;
    llm_part parts[4];
    int failed;
} script;

static void put(script *s, const char *text, size_t bytes) {
    char *more = s->failed ? NULL : realloc(s->text, s->bytes + bytes + 1);
    s->failed |= !more;
    if (!more) return;
    s->text = more;
    if (bytes) memcpy(more + s->bytes, text, bytes);
    s->bytes += bytes;
}

/* Text that is taken as it is, but for marks if `marked`. */
static void put_part(script *s, const char *text, size_t bytes, int marked) {
    llm_part part = {bytes, marked};
    put(s, text, bytes);
    s->parts[s->count++] = part;
}

/* Text of the form's, which stands for the tokenizer's own marks in two places. */
static void put_form(script *s, const llm_tokenizer *t, const char *text) {
    size_t before = s->bytes;
    for (size_t length; *text; text += length) {
        length = strcspn(text, "\1\2");
        put(s, text, length);
        if (!text[length]) break;
        int32_t mark = text[length++] == '\1' ? t->bos : t->eos;
        if (mark >= 0) put(s, t->pieces[mark].text, t->pieces[mark].bytes);
    }
    llm_part part = {s->bytes - before, 1};
    s->parts[s->count++] = part;
}

/* Its tokens, and nothing of it is left. After the very beginning no space is put in front: but where the tokenizer
 * puts one after its own end mark, that is how texts of such a form were written. -1 for lack of memory. */
static int64_t take(script *s, const llm_tokenizer *tokenizer, int begins, uint32_t **ids) {
    llm_tokenizer as = *tokenizer;
    if (!begins) as.add_space = 0;
    as.first_space = 1;
    int64_t count = s->failed ? -1 : llm_encode_parts(&as, s->text, s->parts, s->count, ids);
    if (s->failed) *ids = NULL;
    free(s->text);
    memset(s, 0, sizeof *s);
    return count;
}

/* ---- turns ---- */

static int say_first(llm_conversation *c, const char *system) {
    const llm_tokenizer *t = c->tokenizer;
    const llm_turns *f = c->turns;
    script s = {NULL, 0, 0, {{0, 0}}, 0};
    uint32_t *ids, begin = (uint32_t)t->bos;
    if (t->add_bos || (t->bos >= 0 && llm_turns_begin(&c->generator.model->source))) llm_generator_add(&c->generator, &begin, 1);
    if (system && *system) {
        put_form(&s, t, f->system_begin);
        put_part(&s, system, strlen(system), 0);
        put_form(&s, t, f->system_end);
        int64_t count = take(&s, t, 1, &ids);
        if (count < 0) return -1;
        int64_t room = c->generator.state.context / 2 - c->generator.count;
        if (count > room) c->cut = (size_t)(count - room), count = room;
        llm_generator_add(&c->generator, ids, (size_t)count);
        free(ids);
        c->merged = f->merged;
    }
    c->kept = c->generator.count;
    if (!c->merged) return 0;
    put_form(&s, t, f->user_begin); /* what later turns begin with, up to where the text's own tokens may begin */
    int64_t count = take(&s, t, 0, &ids);
    while (count > 0 && t->pieces[ids[count - 1]].bytes == 3 && t->kind != LLM_TOKENS_BYTES) count--; /* a space goes to the word */
    free(ids);
    c->opening = count > 0 ? (uint32_t)count : 0;
    return count < 0 ? -1 : 0;
}

int llm_conversation_start(llm_conversation *c, const llm_model *m, const llm_tokenizer *tokenizer, uint32_t context,
                           const char *system, const llm_turns *form) {
    memset(c, 0, sizeof *c);
    c->tokenizer = tokenizer;
    c->turns = form ? form : llm_turns_of(&m->source, NULL);
    c->stop = c->turns->stop;
    c->stop_id = c->stop ? llm_token_named(tokenizer, c->stop) : -1;
    if (llm_generator_init(&c->generator, m, context) != 0) return -1;
    char *own = system ? NULL : llm_turns_system(&m->source, c->turns);
    int result = say_first(c, own ? own : system);
    free(own);
    if (result != 0) llm_conversation_free(c);
    return result;
}

int llm_conversation_init(llm_conversation *c, const llm_model *m, const llm_tokenizer *tokenizer, uint32_t context, const char *system) {
    return llm_conversation_start(c, m, tokenizer, context, system, NULL);
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
    if (c->merged && c->starts[turn] + c->opening < g->count) gone += c->opening;
    memmove(g->ids + c->kept, g->ids + c->kept + gone, (g->count - c->kept - gone) * sizeof *g->ids);
    g->count -= gone;
    c->sure -= c->sure > gone ? gone : c->sure;
    if (g->state.position > c->kept) g->state.position = c->kept; /* what follows has other positions now */
    for (size_t i = turn; i < c->count; i++) c->starts[i - turn] = c->starts[i] - gone;
    c->starts[0] = c->kept;
    c->count -= turn;
    c->forgotten += turn;
    return g->count + more <= context ? 0 : -1;
}

/* Whether turns begin with a space of the tokenizer's: those of a form without marks that end with the end mark do, as
 * SentencePiece encoded each turn, or what follows a mark, by itself. */
static int spaced(const llm_conversation *c) {
    const char *end = c->turns->end;
    const char last = *end ? end[strlen(end) - 1] : 0;
    return (last == '\1' || last == '\2') && !c->tokenizer->first_space;
}

int llm_conversation_say(llm_conversation *c, const char *text, size_t bytes) {
    llm_generator *g = &c->generator;
    if (c->answering) llm_conversation_stop(c);
    if (c->count == c->room) {
        uint32_t *more = realloc(c->starts, (2 * c->room + 16) * sizeof *more);
        if (!more) return -1;
        c->starts = more;
        c->room = 2 * c->room + 16;
    }
    script s = {NULL, 0, 0, {{0, 0}}, 0};
    uint32_t *ids = NULL, *all = NULL;
    const llm_turns *f = c->turns;
    int first = g->count == c->kept && c->count == 0;
    size_t ending = 0;
    if (!first) { /* the end of the last answer is written only now */
        put_form(&s, c->tokenizer, f->end);
        int64_t count = take(&s, c->tokenizer, 0, &ids);
        if (count < 0) return -1;
        ending = (size_t)count;
    }
    if (!(first && c->merged)) put_form(&s, c->tokenizer, f->user_begin);
    put_part(&s, text, bytes, c->special);
    put_form(&s, c->tokenizer, f->user_end);
    /* Where the beginning of a turn is text, it is as it is at the beginning of all. */
    int64_t count = take(&s, c->tokenizer, g->count <= 1 || (!first && spaced(c)), &all);
    uint32_t *joined = count < 0 ? NULL : realloc(ids, (ending + (size_t)count + 1) * sizeof *ids);
    if (!joined) {
        free(ids), free(all);
        return -1;
    }
    ids = joined;
    if (count) memcpy(ids + ending, all, (size_t)count * sizeof *ids);
    free(all);
    size_t total = ending + (size_t)count;
    int result = (size_t)count + c->kept >= g->state.context;
    if (result == 0) {
        c->starts[c->count++] = g->count + (uint32_t)ending;
        make_room(c, total + 1);
        if (g->count == c->kept) { /* there is no last answer any more */
            size_t skip = ending + (c->merged && !first ? c->opening : 0);
            memmove(ids, ids + skip, (total -= skip) * sizeof *ids);
            c->starts[0] = c->kept;
        }
        llm_generator_add(g, ids, total);
        c->sure = g->count;
        c->held_bytes = 0;
        c->answering = c->first = 1;
    }
    free(ids);
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
    size_t most = stop ? strlen(stop) - 1 : 0;
    for (size_t n = bytes < most ? bytes : most; n; n--)
        if (memcmp(text + bytes - n, stop, n) == 0) return n;
    return 0;
}

int llm_conversation_next(llm_conversation *c, llm_sampler *sampler, char *out, size_t *bytes) {
    llm_generator *g = &c->generator;
    const char *stop = c->stop, *found;
    *bytes = 0;
    if (!c->answering) return 0;
    int64_t id = make_room(c, 1) == 0 ? llm_generator_next(g, sampler) : c->tokenizer->eos;
    if (id < 0 && g->count < g->state.context) return -1;
    char text[sizeof c->held + 256];
    size_t length = c->held_bytes;
    memcpy(text, c->held, length);
    if (id < 0 || id == c->stop_id || llm_token_ends(c->tokenizer, id)) { /* the mark is written when the next turn begins */
        memcpy(out, text, *bytes = length);
        if (g->count && id >= 0 && g->ids[g->count - 1] == (uint32_t)id) back_to(c, g->count - 1);
        c->sure = g->count;
        llm_conversation_stop(c);
        return 0;
    }
    length += llm_token_text(c->tokenizer, (uint32_t)id, c->first, text + length, 256);
    c->first = 0;
    if (stop && (found = find(text, length, stop))) {
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
