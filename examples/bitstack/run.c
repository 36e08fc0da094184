/* bitstack run: continues a prompt. */
#include "cli.h"
#include "session.h"
#include "../llm/generate.h"
#include "../llm/parallel.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack run FILE --prompt TEXT [-n TOKENS] [--budget SIZE | --memory SIZE] [--follow] [--wait SIZE]\n"
    "                    [--temperature T] [--top-p P] [--seed S] [--special] [--context N] [--kv TYPE]\n\n"
    "Prints the prompt and its continuation. FILE: a stack, a GGUF model to compare with, or - for a stack that\n"
    "comes in by the standard input. Then, and with --follow, it starts as soon as the stack's resident part is\n"
    "there, and takes up blocks as they arrive; what is written before the first ones came makes little sense.\n\n"
    "  -n TOKENS        at most so many tokens more; 128\n"
    "  --budget SIZE    memory for the weights; without it, what free memory allows, following its changes\n"
    "  --memory SIZE    memory for all: weights, keys and values, tokenizer; weights give way as the text grows\n"
    "  --follow         FILE may still be growing: a download that goes on\n"
    "  --wait SIZE      of a stack still arriving: start with so much of it loaded (or all there is)\n"
    "  --threads N      that work on it; all processors\n"
    "  --temperature T  0 always takes the likeliest token; 0.8\n"
    "  --top-p P        draw among the likeliest tokens that hold this much probability; 0.95\n"
    "  --seed S         the same seed gives the same text; 1\n"
    "  --special        marks such as <|im_end|> in the prompt count as marks, not as text\n"
    "  --context N      room for so many tokens; as many as the model was made for, but no more than 4096\n"
    "  --kv TYPE        how keys and values of the context are kept: f32, f16 or 8 (bits, and a scale a head); f16\n";


/* Until so much is loaded, or all there is. */
static void wait_for(session *s, uint64_t bytes) {
    resizer_state now;
    while (bytes && s->resizer) {
        int ended = follow_ended(s->follow, NULL);
        resizer_wait(s->resizer);
        resizer_ask(s->resizer, &now);
        int full = now.loaded == now.blocks || (now.settled && now.loaded < now.available); /* no more fit */
        if (now.resident >= bytes || full || ended) return;
        platform_sleep(10);
    }
}

/* How many tokens at the beginning of a prompt there is no room for, beside what is to be written (but for that no more than
 * a quarter of the context is kept free), after saying so. */
static size_t left_out(const llm_generator *g, size_t count, uint32_t tokens) {
    uint32_t context = g->state.context, more = tokens < context / 4 ? tokens : context / 4, taken = g->count + (more ? more : 1);
    size_t room = context > taken ? context - taken : 1;
    if (count <= room) return 0;
    fprintf(stderr, "bitstack: note: the prompt has %zu tokens, for %zu of which there is room in the context of %u: the first %zu are left out (--context)\n", count, room,
            context, count - room);
    return count - room;
}

static int write_on(session *s, const char *prompt, int special, uint32_t context, uint32_t tokens, llm_sampler *sampler) {
    const llm_tokenizer *tokenizer = &s->tokenizer;
    llm_generator generator;
    uint32_t *ids = NULL, begin = (uint32_t)tokenizer->bos, made = 0;
    int64_t id = 0, count = (special ? llm_encode_marked : llm_encode)(tokenizer, prompt, strlen(prompt), &ids);
    if (count < 0 || llm_generator_init(&generator, &s->model, context) != 0) {
        free(ids);
        return -1;
    }
    if (tokenizer->add_bos || (count == 0 && tokenizer->bos >= 0)) llm_generator_add(&generator, &begin, 1);
    size_t gone = left_out(&generator, (size_t)count, tokens);
    llm_generator_add(&generator, ids + gone, (size_t)count - gone);
    free(ids);
    if (!generator.count) llm_generator_add(&generator, &tokenizer->bytes['\n'], 1); /* something to start from */
    uint64_t gave = session_fit(s, &generator, SESSION_STRIDE);
    fputs(prompt, stdout);
    fflush(stdout);
    double start = 0;
    while (made < tokens) {
        if (made && made % SESSION_STRIDE == 0) gave = session_fit(s, &generator, SESSION_STRIDE);
        id = llm_generator_next(&generator, sampler);
        if (!made++) start = llm_seconds(); /* the first one pays for the prompt */
        if (id < 0 || llm_token_ends(tokenizer, id)) break;
        char text[256];
        fwrite(text, 1, llm_token_text(tokenizer, (uint32_t)id, count == 0 && made == 1, text, sizeof text), stdout);
        fflush(stdout);
    }
    putchar('\n');
    double seconds = llm_seconds() - start;
    if (platform_is_terminal(stderr) && made > 1 && seconds > 0) {
        fprintf(stderr, "\n%.0f tokens a second", (made - 1) / seconds);
        resizer_state now;
        if (s->resizer) resizer_ask(s->resizer, &now), fprintf(stderr, ", %s resident", cli_bytes(now.resident));
        fputc('\n', stderr);
    }
    if (gave) fprintf(stderr, "bitstack: note: the weights gave %s to the context (--memory)\n", cli_bytes(gave));
    llm_generator_free(&generator);
    return id < 0 ? -1 : 0;
}

int command_run(int argc, char **argv) {
    const char *path, *prompt = NULL, *kv = "f16";
    uint32_t tokens = 128, context = 0, threads = (uint32_t)llm_processors();
    uint64_t budget = 0, memory = 0, seed = 1, least = 0;
    int growing = 0, special = 0;
    double temperature = 0.8, top_p = 0.95;
    const cli_option options[] = {{"--prompt", CLI_TEXT, &prompt}, {"-n", CLI_WHOLE, &tokens}, {"--budget", CLI_SIZE, &budget}, {"--memory", CLI_SIZE, &memory},
                                  {"--follow", CLI_FLAG, &growing}, {"--wait", CLI_SIZE, &least},
                                  {"--threads", CLI_WHOLE, &threads}, {"--temperature", CLI_NUMBER, &temperature}, {"--top-p", CLI_NUMBER, &top_p},
                                  {"--seed", CLI_LONG, &seed}, {"--special", CLI_FLAG, &special}, {"--context", CLI_WHOLE, &context},
                                  {"--kv", CLI_TEXT, &kv}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "run", help, options, &path, 1);
    if (stop) return stop - 1;
    if (!prompt) return cli_usage("run", "--prompt is missing");
    if (budget && memory) return cli_usage("run", "expected --budget or --memory, not both");
    if (top_p > 1) return cli_usage("run", "--top-p: expected a number from 0 to 1");
    if (context > 1 << 24 || (context && context < 16)) return cli_usage("run", "--context: expected 16 to 16777216");
    if (session_keep(kv) < 0) return cli_usage("run", "--kv: expected f32, f16 or 8, got '%s'", kv);

    session s;
    session_options open;
    llm_error error;
    llm_sampler sampler = {(float)temperature, (float)top_p, seed};
    memset(&open, 0, sizeof open);
    open.size.budget = budget;
    open.growing = growing;
    open.memory = memory;
    open.context = context;
    open.keep = session_keep(kv);
    open.choose = !budget && !memory && !growing && strcmp(path, "-") != 0;
    open.size.group = getenv("BITSTACK_CGROUP"); /* a folder like a control group's, for tests */
    open.threads = threads < 1024 ? (int)threads : 1024;
    if (session_open(&s, path, &open, &error) != 0) return cli_failed("%s", error.message);
    session_say(&s);
    wait_for(&s, least);
    int status = write_on(&s, prompt, special, context, tokens, &sampler) == 0 ? CLI_OK : cli_failed("%s: out of memory", path);
    const char *why;
    resizer_state now;
    if (s.resizer && (resizer_ask(s.resizer, &now), now.left_out > 0)) /* it is a smaller model, and still one */
        cli_failed("%s: %d of %d blocks were left out: they are damaged or could not be read", path, now.left_out, now.blocks);
    if (s.follow && follow_ended(s.follow, &why) && why) status = cli_failed("standard input: %s", why);
    session_close(&s);
    return status;
}
