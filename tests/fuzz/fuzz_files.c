/* fuzz_files.c - what the command reads beside models, and what people say to it. The first byte chooses: the files of
 * control groups and of /proc; a journal of finished matrices; sizes; a stack that is followed, as a file or from the
 * standard input; logits for the sampler; a conversation on a small model, whose tokens the input chooses; and chat's
 * lines. */
#include "fuzz.h"
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>
#include "examples/bitstack/cli.h"
#include "examples/bitstack/journal.h"
#include "examples/llm/conversation.h"

/* ---- files of control groups and of /proc: in the place of the machine's, from the input ---- */

enum { FILES = 12 };
static struct {
    const char *name;
    const uint8_t *data;
    size_t bytes;
} files[FILES];
static size_t file_count;

static FILE *open_given(const char *path, const char *mode) {
    const size_t length = strlen(path);
    for (size_t i = 0; i < file_count; i++) {
        const size_t end = strlen(files[i].name);
        if (length >= end && !strcmp(path + length - end, files[i].name)) return files[i].bytes ? fmemopen((void *)(uintptr_t)files[i].data, files[i].bytes, mode) : NULL;
    }
    return NULL;
}
#define fopen open_given
#include "examples/bitstack/memory.c"
#undef fopen

static void use_memory(fuzz_input *in, unsigned how) {
    static const char *const names[FILES] = {"/proc/meminfo", "/proc/self/cgroup", "/proc/self/mountinfo", "memory.max", "memory.high", "memory.current",
                                             "memory.stat", "memory.pressure", "memory.limit_in_bytes", "memory.usage_in_bytes", "/proc/pressure/memory", "none"};
    memory_watch watch;
    memory_reading r;
    memory_policy policy = {1 << 20, 1 << 30, 0, 0, 0};
    const uint8_t *at = in->data, *end = at + in->left;
    for (file_count = 0; file_count < FILES; file_count++) { /* cut at "\n%%\n" */
        const uint8_t *next = at < end ? (const uint8_t *)memmem(at, (size_t)(end - at), "\n%%\n", 4) : NULL;
        files[file_count].name = names[file_count], files[file_count].data = at;
        files[file_count].bytes = (size_t)((next ? next + 1 : end) - at);
        at = next ? next + 4 : end;
    }
    memory_watch_init(&watch, how & 1 ? "/some/group" : NULL);
    MUST(watch.version >= 0 && watch.version <= 2 && strlen(watch.group) < sizeof watch.group && strlen(watch.top) < sizeof watch.top);
    for (int i = 1; i < 4; i++) {
        const int result = memory_read(&watch, i * 0.5, &r);
        MUST((result == 0) == (r.available != UINT64_MAX) && r.pressure >= 0 && r.pressure <= 1);
        if (result != 0) continue;
        const uint64_t budget = memory_budget(&policy, &r, 100 << 20, i * 0.5);
        MUST(budget >= policy.least && budget <= policy.most);
    }
    file_count = 0;
}

/* ---- a journal ---- */

/* A file without a name, to be opened by its path. */
static int unnamed(const void *data, size_t bytes, char *path, size_t room) {
    const int fd = memfd_create("fuzz", 0);
    MUST(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    snprintf(path, room, "/proc/self/fd/%d", fd);
    return fd;
}

/* Records are whole or are not there, and what is added to them comes back. The first record's checksum may be mended. */
static void use_journal(fuzz_input *in, unsigned how) {
    char path[40];
    journal j;
    finished_matrix m, added;
    static const char head[4] = "head";
    const uint64_t key = 7, length = sizeof head;
    uint64_t sum = 0, start[2] = {key, bitstack_checksum(head, sizeof head)};
    const size_t begin = how & 1 ? 3 * 8 + sizeof head : 0, all = begin + in->left;
    int kept = 0, more = 0, whole_first = 0;
    unsigned char *copy = (unsigned char *)malloc(all + 1);
    MUST(copy);
    if (begin) { /* key, length of the head, head, their checksum; else the input is all of it */
        start[0] = bitstack_checksum(start, sizeof start);
        memcpy(copy, &key, 8), memcpy(copy + 8, &length, 8), memcpy(copy + 16, head, sizeof head), memcpy(copy + 16 + sizeof head, start, 8);
    }
    memcpy(copy + begin, in->data, in->left);
    if (begin && in->left > sizeof(bitstack_shape)) { /* see journal.c: the fixed part, then the blocks */
        const size_t fixed = sizeof(struct { bitstack_shape s; double a[2 * (BITSTACK_MAX_LEVELS + 1) + 1], b[BITSTACK_MAX_LEVELS + 1], c[PROBED_LEVELS]; float f; });
        bitstack_shape shape;
        memcpy(&shape, copy + begin, sizeof shape);
        size_t at = begin + fixed;
        if (at <= all && bitstack_shape_valid(&shape)) {
            uint64_t pair[2] = {0, bitstack_checksum(copy + begin, fixed)};
            sum = bitstack_checksum(pair, sizeof pair);
            for (uint32_t l = 1; l <= shape.levels && at <= all; l++) {
                const uint64_t bytes = bitstack_block_bytes(&shape, l);
                if (bytes > all - at) at = all + 1;
                else pair[0] = sum, pair[1] = bitstack_checksum(copy + at, (size_t)bytes), sum = bitstack_checksum(pair, sizeof pair), at += (size_t)bytes;
            }
            if (at <= all && all - at >= 8) {
                if (how & 2) memcpy(copy + at, &sum, 8);
                whole_first = !memcmp(copy + at, &sum, 8);
            }
        }
    }
    const int fd = unnamed(copy, all, path, sizeof path);
    memset(&added, 0, sizeof added);
    MUST(journal_open(&j, path, key, head, sizeof head) == 0);
    const int announced = j.kept;
    MUST(!begin || (announced > 0) == whole_first);
    for (int result; (result = journal_next(&j, &m)) != 0; kept++) {
        MUST(result == 1 && bitstack_shape_valid(&m.coded.shape));
        if (added.coded.shape.levels) bitstack_coded_free(&added.coded);
        added = m;
    }
    MUST(kept == announced);
    if (kept) MUST(journal_add(&j, &added) == 0 && journal_add(&j, &added) == 0);
    journal_close(&j);
    MUST(journal_open(&j, path, key, head, sizeof head) == 0 && j.kept == kept + (kept ? 2 : 0));
    for (; journal_next(&j, &m) == 1; more++) {
        if (more >= kept) MUST(!memcmp(&m.coded.shape, &added.coded.shape, sizeof m.coded.shape) && !memcmp(m.loss_at, added.loss_at, sizeof m.loss_at));
        bitstack_coded_free(&m.coded);
    }
    MUST(more == kept + (kept ? 2 : 0));
    journal_close(&j);
    if (kept) bitstack_coded_free(&added.coded);
    close(fd);
    free(copy);
}

/* ---- sizes ---- */

static void use_sizes(const fuzz_input *in) {
    uint64_t bytes = 1, again;
    char *text = (char *)malloc(in->left ? in->left : 1), plain[24];
    MUST(text);
    memcpy(text, in->data, in->left);
    if (cli_size(text, in->left, &bytes) == 0) {
        MUST(bytes < 9000000000000000000u && in->left && text[0] >= '0' && text[0] <= '9' && strlen(cli_bytes(bytes)) < 40);
        if (bytes < (uint64_t)1 << 53) MUST(cli_size(plain, (size_t)snprintf(plain, sizeof plain, "%llu", (unsigned long long)bytes), &again) == 0 && again == bytes);
    } else MUST(bytes == 1);
    free(text);
}

/* ---- a stack that is still arriving ---- */

#include <sched.h>
#define usleep(time) sched_yield() /* not to wait for what is there */
#include "examples/bitstack/follow.c"
#undef usleep

static void use_follow(fuzz_input *in, unsigned how) {
    char path[40];
    follow *f;
    bitstack *stack;
    llm_error error;
    bitstack_options options = {0};
    options.skip_checksums = how & 2 ? 0 : 1;
    options.budget = how & 4 ? fuzz_take(in, 4) : 0;
    const int fd = unnamed(in->data, in->left, path, sizeof path), before = how & 1 ? dup(STDIN_FILENO) : -1;
    if (how & 1) MUST(lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO);
    error.message[0] = 0;
    if (follow_open(&f, &stack, how & 1 ? "-" : path, 0, &options, &error) == 0) {
        const char *why;
        for (int i = 0; how & 1 && i < 10000000 && !follow_ended(f, &why); i++) sched_yield();
        if (how & 1) MUST(follow_ended(f, &why) && !why);
        MUST(follow_arrived(f) <= in->left + (1 << 16));
        bitstack_extend(stack, follow_arrived(f));
        bitstack_set_budget(stack, 1 << 20, NULL);
        bitstack_close(stack);
        follow_close(f);
    } else MUST(error.message[0] && !strchr(error.message, '\n'));
    if (how & 1) {
        if (before >= 0) dup2(before, STDIN_FILENO), close(before);
    }
    close(fd);
}

/* ---- choosing a token ---- */

static void use_sampler(fuzz_input *in) {
    float head[2], *logits, *copy;
    llm_sampler sampler;
    for (int i = 0; i < 2; i++) {
        const uint32_t bits = (uint32_t)fuzz_take(in, 4);
        memcpy(&head[i], &bits, 4);
    }
    sampler.temperature = head[0], sampler.top_p = head[1], sampler.state = fuzz_take(in, 8);
    const uint32_t count = (uint32_t)(in->left / 4);
    if (!count) return;
    logits = (float *)malloc(count * 4), copy = (float *)malloc(count * 4);
    MUST(logits && copy);
    memcpy(logits, in->data, count * 4);
    int numbers = 0;
    for (uint32_t i = 0; i < count; i++) numbers += !isnan(logits[i]);
    for (int way = 0; way < 3; way++) {
        if (way == 1) sampler.temperature = 0;
        if (way == 2) sampler.temperature = 1, sampler.top_p = 0.9f;
        llm_sampler same = sampler;
        memcpy(copy, logits, count * 4);
        const int64_t id = llm_sample(&sampler, copy, count);
        MUST(id >= 0 && id < (int64_t)count && (!numbers || !isnan(logits[id])));
        if (!(sampler.temperature > 0)) for (uint32_t i = 0; i < count; i++) MUST(!(logits[i] > logits[id]));
        memcpy(copy, logits, count * 4);
        MUST(llm_sample(&same, copy, count) == id);
    }
    free(logits), free(copy);
}

/* ---- talking, with a model whose tokens the input chooses ---- */

enum { WIDTH = 8, WORDS = 300 };
static llm_model model;
static llm_tokenizer tokenizer;
static llm_string *form;
static fuzz_input *tokens;

/* Logits: the token that the input names is likeliest; now and then raw floats, which may be anything. */
static void choose(const void *user, const float *x, float *y) {
    const uint32_t next = (uint32_t)fuzz_take(tokens, 2);
    (void)user, (void)x;
    for (uint32_t i = 0; i < model.config.vocabulary; i++) y[i] = 0;
    if (next >= 60000) {
        const uint32_t bits = (uint32_t)fuzz_take(tokens, 4);
        memcpy(&y[next % model.config.vocabulary], &bits, 4);
    } else y[next % model.config.vocabulary] = 100;
}

/* Made once, as small as can be: marks, bytes, letters, and then the marks of the forms and parts of what ends them. */
static void make_model(void) {
    static const char *const last[] = {"<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "[INST]", "\nUser:", "<|im_", "end|>", "\nUs", "\xE2\x96\x81t",
                                       "he", "\xE2\x96\x81the", "\xE2\x96\x81", "er:", "q\xC3\xA9"};
    static const struct { const char *name; uint64_t rows; } tensors[] = {
        {"token_embd.weight", WORDS}, {"output_norm.weight", 1}, {"blk.0.attn_norm.weight", 1}, {"blk.0.ffn_norm.weight", 1}, {"blk.0.attn_q.weight", WIDTH},
        {"blk.0.attn_k.weight", WIDTH}, {"blk.0.attn_v.weight", WIDTH}, {"blk.0.attn_output.weight", WIDTH}, {"blk.0.ffn_gate.weight", WIDTH},
        {"blk.0.ffn_up.weight", WIDTH}, {"blk.0.ffn_down.weight", WIDTH}};
    static const struct { const char *key; uint32_t value; } wholes[] = {
        {"llama.embedding_length", WIDTH}, {"llama.feed_forward_length", WIDTH}, {"llama.block_count", 1}, {"llama.attention.head_count", 1}, {"llama.context_length", 64},
        {"tokenizer.ggml.unknown_token_id", 0}, {"tokenizer.ggml.bos_token_id", 1}, {"tokenizer.ggml.eos_token_id", 2}};
    static char names[WORDS][24];
    static float data[WORDS * WIDTH], scores[WORDS];
    int32_t types[WORDS];
    llm_source source;
    llm_error error;
    if (form) return;
    memset(&source, 0, sizeof source);
    llm_string *pieces = (llm_string *)malloc(WORDS * sizeof *pieces);
    source.path = strdup("tiny");
    MUST(source.path && pieces);
    for (int i = 0; i < WORDS; i++) {
        if (i < 3) strcpy(names[i], i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (i < 259) snprintf(names[i], sizeof names[i], "<0x%02X>", (unsigned)i - 3);
        else if (i < 285) names[i][0] = (char)('a' + i - 259);
        else strcpy(names[i], last[i - 285]);
        types[i] = i == 0 ? 2 : i < 3 || (i >= 285 && i < 290) ? 3 : i < 259 ? 6 : 1;
        scores[i] = -(float)i;
        pieces[i].text = names[i], pieces[i].bytes = strlen(names[i]);
    }
    for (int i = 0; i < WORDS * WIDTH; i++) data[i] = (float)(i * 37 % 64 - 30) / 64;
    llm_add_text(&source, "general.architecture", (llm_string){"llama", 5}), llm_add_text(&source, "tokenizer.ggml.model", (llm_string){"llama", 5});
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++) llm_add_whole(&source, wholes[i].key, wholes[i].value);
    llm_add_strings(&source, "tokenizer.ggml.tokens", pieces, WORDS);
    llm_add_numbers(&source, "tokenizer.ggml.scores", LLM_F32, scores, WORDS), llm_add_numbers(&source, "tokenizer.ggml.token_type", LLM_I32, types, WORDS);
    MUST(llm_add_text(&source, "tokenizer.chat_template", (llm_string){"", 0}) == 0);
    form = ((llm_meta *)(uintptr_t)llm_find_meta(&source, "tokenizer.chat_template"))->strings;
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        const llm_tensor tensor = {{NULL, 0}, LLM_TYPE_F32, tensors[i].rows > 1 ? 2 : 1, {tensors[i].rows > 1 ? tensors[i].rows : WIDTH, tensors[i].rows > 1 ? WIDTH : 1, 1, 1},
                                   (const unsigned char *)data, tensors[i].rows * WIDTH * sizeof *data};
        MUST(llm_add_tensor(&source, tensors[i].name, tensor) == 0);
    }
    MUST(llm_model_load(&model, source, NULL, &error) == 0 && llm_tokenizer_load(&tokenizer, &model.source, &error) == 0);
    model.head.gemv = choose;
}

/* Cuts "\n%%\n" or the rest off the front of the input. */
static llm_string line_of(fuzz_input *in) {
    const uint8_t *cut = in->left ? (const uint8_t *)memmem(in->data, in->left, "\n%%\n", 4) : NULL;
    llm_string text = {(const char *)in->data, cut ? (size_t)(cut - in->data) : in->left};
    const size_t gone = text.bytes + (cut ? 4 : 0);
    in->data += gone, in->left -= gone;
    return text;
}

static void check_conversation(const llm_conversation *c) {
    const llm_generator *g = &c->generator;
    MUST(g->count <= g->state.context && g->state.position <= g->count && c->kept <= g->state.context / 2 && c->kept <= g->count);
    MUST((c->stop ? c->held_bytes < strlen(c->stop) : !c->held_bytes) && c->count <= c->room);
    for (size_t i = 0; i < c->count; i++) MUST(c->starts[i] >= c->kept && (i ? c->starts[i] > c->starts[i - 1] : 1) && c->starts[i] <= g->count);
    if (c->answering) MUST(c->sure <= g->count && c->sure >= c->kept);
}

/* First the template, then what is said first; then the operations, which begin with a byte each. */
static void use_conversation(fuzz_input *in, unsigned how) {
    char out[512], answer[4096];
    size_t bytes, all = 0;
    llm_conversation c;
    make_model();
    const uint32_t context = 16 + how % 80;
    llm_sampler sampler = {how & 128 ? 1.0f : 0.0f, 0.9f, 1};
    *form = line_of(in);
    const llm_string system = line_of(in);
    char *first = strndup(system.text, system.bytes);
    MUST(first && llm_conversation_init(&c, &model, &tokenizer, context, system.bytes ? first : NULL) == 0);
    tokens = in;
    for (int steps = 0; in->left && steps < 120; steps++) {
        const unsigned what = (unsigned)fuzz_take(in, 1);
        const llm_string text = what % 8 < 2 ? line_of(in) : (llm_string){"", 0};
        if (what % 8 < 2) {
            const int answering = c.answering;
            const uint32_t before = c.generator.count;
            const int result = llm_conversation_say(&c, text.text, text.bytes);
            MUST(result == 0 || result == 1);
            if (result == 1 && !answering) MUST(c.generator.count == before && !c.answering); /* nothing is changed */
            all = 0;
        } else if (what % 8 == 2) llm_conversation_stop(&c);
        else if (what == 251) {
            llm_conversation_reset(&c);
            MUST(c.generator.count <= c.kept && !c.count);
        } else {
            const int answering = c.answering, more = llm_conversation_next(&c, &sampler, out, &bytes);
            MUST((more == 0 || (more == 1 && answering)) && bytes <= sizeof out);
            if (all + bytes <= sizeof answer) memcpy(answer + all, out, bytes), all += bytes;
            MUST(!all || !c.stop || !memmem(answer, all, c.stop, strlen(c.stop))); /* what ends an answer is not shown */
        }
        check_conversation(&c);
    }
    llm_conversation_free(&c);
    free(first);
    *form = (llm_string){"", 0};
}

/* ---- chat's lines ---- */

static int unheard(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int unheard(const char *format, ...) { return format[0]; }
#define printf unheard
#define putchar(c) ((void)(c))
#define fwrite(data, size, count, file) ((void)(data), (void)(count))
#define fputs(text, file) ((void)(text))
#define fflush(file) ((void)0)
#define help chat_help
#include "examples/bitstack/chat.c"
#undef help
#undef fflush
#undef fputs
#undef fwrite
#undef putchar
#undef printf

/* The lines are the standard input; the tokens come from the front. */
static void use_chat(fuzz_input *in, unsigned how) {
    static chat c;
    char path[40];
    fuzz_input chosen;
    make_model();
    memset(&c, 0, sizeof c), memset(&input, 0, sizeof input);
    c.s.model = model, c.s.tokenizer = tokenizer;
    c.sampler.temperature = 0, c.most = 1 + how % 4;
    *form = line_of(in);
    const llm_string ids = line_of(in);
    chosen.data = (const uint8_t *)ids.text, chosen.left = ids.bytes;
    tokens = &chosen;
    const int fd = unnamed(in->data, in->left < 400 ? in->left : 400, path, sizeof path), before = dup(STDIN_FILENO);
    MUST(lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO);
    MUST(llm_conversation_init(&c.talk, &model, &tokenizer, 24 + how % 64, NULL) == 0);
    MUST(converse(&c, how & 1) == 0 && (c.quit || (input.ended && !input.used)));
    check_conversation(&c.talk);
    llm_conversation_free(&c.talk);
    if (before >= 0) dup2(before, STDIN_FILENO), close(before);
    close(fd);
    *form = (llm_string){"", 0};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    if (size < 2) return 0;
    const unsigned way = (unsigned)fuzz_take(&in, 1) / 2 % 7, how = (unsigned)fuzz_take(&in, 1);
    if (way == 0) use_memory(&in, how);
    else if (way == 1) use_journal(&in, how);
    else if (way == 2) use_sizes(&in);
    else if (way == 3) use_follow(&in, how);
    else if (way == 4) use_sampler(&in);
    else if (way == 5) use_conversation(&in, how);
    else use_chat(&in, how);
    return 0;
}
