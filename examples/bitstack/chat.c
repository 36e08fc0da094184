/* bitstack chat: a conversation with a stack whose size changes while it talks. */
#include "cli.h"
#include "line.h"
#include "session.h"
#include "../llm/conversation.h"
#include "../llm/parallel.h"
#include "../llm/platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: bitstack chat FILE [--budget SIZE | --memory SIZE | --auto [--min SIZE] [--max SIZE] [--reserve SIZE]] [--follow]\n"
    "                     [--system TEXT] [--form NAME] [--special] [--context N] [-n TOKENS] [--temperature T]\n"
    "                     [--top-p P] [--seed S] [--live] [--kv TYPE]\n\n"
    "Answers the lines of the standard input, each with all that was said before. Lines that begin with a colon:\n\n"
    "  :budget SIZE     from now on with so much memory for the weights; :budget all, :budget auto\n"
    "  :trim 1|2|3      give back a quarter, half or all of the weights' blocks\n"
    "  :info            sizes, memory, how full the context is, speed\n"
    "  :reset           forget what was said      :stop  end this answer      :quit\n\n"
    "A line that ends in a backslash goes on in the next one, as does what stands between lines of \"\"\".\n\n"
    "The model grows and shrinks block by block while it writes; nothing that was said is lost or read again. On a\n"
    "terminal these lines are obeyed while an answer is being written. Ctrl-C ends the answer, a second one the talk.\n\n"
    "  --budget SIZE    memory for the weights, whatever is free\n"
    "  --memory SIZE    memory for all: weights, keys and values, tokenizer; weights give way as the talk grows\n"
    "  --auto           as much as the machine (its control groups, or /proc/meminfo) can spare, at any time. Without any\n"
    "                   of these: that, too, but begun at what is free\n"
    "  --idle SECONDS   give all blocks back when nothing was said for so long; what was said is kept\n"
    "  --min, --max     not less, not more than this, automatically\n"
    "  --reserve SIZE   memory to leave free; a twentieth of the limit, from 16 MiB to 1 GiB\n"
    "  --follow         FILE may still be growing\n"
    "  --system TEXT    what the model is told first, and never forgets; what its template says, if anything\n"
    "  --form NAME      how turns are written, where the model's chat template does not tell: chatml, llama3, ...\n"
    "  --special        marks such as <|im_end|> in what you say count as marks, not as text\n"
    "  --context N      room for so many tokens; when it is full the oldest turns are forgotten\n"
    "  --kv TYPE        how keys and values of the context are kept: f32, f16 or 8 (bits, and a scale a head); f16\n"
    "  -n TOKENS        at most so many tokens an answer; 512\n"
    "  --threads N      that work on it; all processors\n"
    "  --temperature T, --top-p P, --seed S   as in bitstack run\n"
    "  --live           obey commands while an answer is being written also where they do not come from a terminal\n";

/* ---- lines, as they come ---- */

static struct {
    char text[1 << 16];
    size_t used, line; /* line: bytes of the first one, with its end, once it is whole */
    int ended, dropping; /* dropping: what comes up to the next end of a line belongs to one that has no room */
} input;
static volatile sig_atomic_t interrupted;

/* The first ends the answer; a second one, before that could be done, everything. */
static void on_interrupt(void) {
    if (interrupted) _exit(128 + 2 /* SIGINT */);
    interrupted = 1;
}

static void next_line(void) {
    memmove(input.text, input.text + input.line, input.used -= input.line);
    input.line = 0;
}

/* Whether there is a line; waits for one if asked to. */
static int have_line(int wait) {
    while (!input.line) {
        char *end = memchr(input.text, '\n', input.used);
        if (end) input.line = (size_t)(end - input.text) + 1;
        else if (input.used == sizeof input.text || (input.dropping && input.used)) {
            if (!input.dropping) printf("[a line of more than %zu bytes is left out]\n", sizeof input.text - 1);
            input.dropping = 1;
            input.used = 0;
        } else if (input.ended) input.line = input.used;
        if (input.dropping && input.line) { /* its end: no line of its own */
            next_line();
            input.dropping = 0;
            continue;
        }
        if (input.line || input.ended) break;
        if (wait ? !line_wait(&interrupted) : platform_input_ready(0) <= 0) break;
        int64_t got = platform_input(input.text + input.used, sizeof input.text - input.used);
        if (got > 0) input.used += (size_t)got;
        else if (got == 0 || errno != EINTR) input.ended = 1;
    }
    return input.line > 0;
}

/* ---- commands ---- */


typedef struct chat {
    session s;
    llm_conversation talk;
    llm_sampler sampler;
    uint32_t most; /* tokens an answer */
    uint64_t gave; /* bytes of the weights, to the context */
    uint64_t made; /* tokens of the last answer, the seconds it took, the longest wait for one but the first */
    double seconds, longest;
    int quit;
} chat;

static void info(const chat *c) {
    const llm_conversation *t = &c->talk;
    const llm_config *m = &c->s.model.config;
    uint64_t kv = 2ull * m->layers * llm_kept_bytes(c->s.model.keep, m->kv_heads, m->head_width, 16) / 16,
             state = llm_generator_bytes(&t->generator, &c->s.model, 0, 0);
    resizer_state now;
    if (c->s.resizer) {
        resizer_ask(c->s.resizer, &now);
        printf("[model: %s of %s resident, %d of %d blocks", cli_bytes(now.resident), cli_bytes(now.total), now.loaded, now.blocks);
        if (now.available < now.blocks) printf(", %d arrived", now.available);
        if (now.left_out > 0) printf(", %d damaged", now.left_out);
        if (now.asleep) printf(", asleep");
        if (now.target < UINT64_MAX) printf("; budget %s", cli_bytes(now.target));
        printf("]\n");
        printf("[in all: %s, of which %s weights, %s context and room to work in, %s tokenizer and else",
               cli_bytes(now.resident + state + session_other(&c->s)), cli_bytes(now.resident),
               cli_bytes(state), cli_bytes(session_other(&c->s)));
        if (c->s.memory) printf("; of %s", cli_bytes(c->s.memory));
        printf("]\n");
        if (now.memory.limit) printf("[memory: %s free of %s, %.0f %% pressure]\n", cli_bytes(now.memory.available), cli_bytes(now.memory.limit), 100 * now.memory.pressure);
        if (now.message[0]) printf("[last trouble: %s]\n", cli_plain(now.message, strlen(now.message)));
    } else printf("[model: of fixed size]\n");
    printf("[context: %u of %u tokens, %zu turns, %zu forgotten; %s of keys and values; %s turns]\n", t->generator.count,
           t->generator.state.context, t->count, t->forgotten, cli_bytes(kv * t->generator.state.position), t->turns->name);
    if (c->made > 1)
        printf("[last answer: %.1f tokens a second, longest wait %.1f ms]\n", (double)(c->made - 1) / c->seconds, 1e3 * c->longest);
}

static void budget(chat *c, const char *word, size_t bytes, int wait) {
    uint64_t size = 0;
    if (!c->s.resizer) {
        printf("[a model of fixed size]\n");
        return;
    }
    int automatic = bytes == 4 && memcmp(word, "auto", 4) == 0, all = bytes == 3 && memcmp(word, "all", 3) == 0;
    if (!automatic && !all && (cli_size(word, bytes, &size) != 0 || !size)) {
        printf("[expected :budget and a size such as 300000, 3MB or 2.5GiB, all, or auto]\n");
        return;
    }
    resizer_state now;
    c->s.memory = 0; /* from now on the number is that of the weights */
    resizer_ask(c->s.resizer, &now);
    resizer_automatic(c->s.resizer, automatic);
    if (!automatic && resizer_budget(c->s.resizer, size) != 0) printf("[expected at least %s, the resident part]\n", cli_bytes(now.base));
    else if (wait) {
        resizer_wait(c->s.resizer);
        resizer_ask(c->s.resizer, &now);
        printf("[%s resident, %d of %d blocks]\n", cli_bytes(now.resident), now.loaded, now.blocks);
    }
}

static void trim(chat *c, const char *word, size_t bytes) {
    resizer_state now;
    if (!c->s.resizer) printf("[a model of fixed size]\n");
    else if (bytes != 1 || resizer_trim(c->s.resizer, (bitstack_trim_level)(*word - '0')) != 0)
        printf("[expected :trim 1, 2 or 3]\n");
    else
        resizer_ask(c->s.resizer, &now),
            printf("[%s resident, %d of %d blocks]\n", cli_bytes(now.resident), now.loaded, now.blocks);
}

/* A line that begins with a colon. */
static void obey(chat *c, const char *line, size_t bytes, int answering) {
    size_t word = 0;
    while (word < bytes && line[word] != ' ') word++;
    size_t rest = word;
    while (rest < bytes && line[rest] == ' ') rest++;
#define IS(name) (word == sizeof(name) - 1 && memcmp(line, name, word) == 0)
    if (answering) putchar('\n');
    if (IS(":quit") || IS(":q")) c->quit = 1;
    else if (IS(":info")) info(c);
    else if (IS(":reset")) llm_conversation_reset(&c->talk), c->made = 0;
    else if (IS(":budget")) budget(c, line + rest, bytes - rest, !answering);
    else if (IS(":trim")) trim(c, line + rest, bytes - rest);
    else if (IS(":stop")) llm_conversation_stop(&c->talk);
    else printf("[expected :budget, :info, :trim, :reset, :stop or :quit]\n");
    fflush(stdout);
}

/* ---- talking ---- */

static int answer(chat *c, const char *line, size_t bytes, int live) {
    char text[512];
    size_t some, forgotten = c->talk.forgotten;
    int more = llm_conversation_say(&c->talk, line, bytes);
    if (more > 0) {
        printf("[longer than the context of %u tokens]\n", c->talk.generator.state.context);
        return 0;
    }
    double last = 0, now;
    uint64_t gave = c->gave;
    if (c->s.resizer) resizer_use(c->s.resizer, 1);
    c->made = 0;
    c->longest = c->seconds = 0;
    if (more == 0) more = 1;
    for (uint32_t i = 0; more > 0; i++) {
        if (i == c->most || interrupted) {
            llm_conversation_stop(&c->talk);
            break;
        }
        if (live && have_line(0) && input.text[0] == ':') {
            size_t length = input.line - (input.text[input.line - 1] == '\n');
            obey(c, input.text, length, 1);
            next_line();
            if (c->quit) break;
        }
        if (i % SESSION_STRIDE == 0) c->gave = session_fit(&c->s, &c->talk.generator, SESSION_STRIDE);
        more = llm_conversation_next(&c->talk, &c->sampler, text, &some);
        if (c->talk.forgotten > forgotten) {
            printf("%s[the context is full: the oldest %zu turns are forgotten]\n", c->made ? "\n" : "", c->talk.forgotten - forgotten);
            forgotten = c->talk.forgotten;
        }
        now = llm_seconds();
        if (c->made++) {
            c->seconds += now - last;
            if (now - last > c->longest) c->longest = now - last;
        }
        last = now;
        fwrite(text, 1, some, stdout);
        fflush(stdout);
    }
    putchar('\n');
    if (c->gave > gave)
        printf("[the weights gave %s to the context, %s in all]\n", cli_bytes(c->gave - gave),
               cli_bytes(c->gave));
    if (c->s.resizer) resizer_use(c->s.resizer, 0);
    interrupted = 0;
    return more < 0 ? -1 : 0;
}

/* What is to be said: one line, or several. */
typedef struct message {
    char *text;
    size_t bytes;
    int failed;
} message;

static void take_line(message *m, const char *text, size_t bytes) {
    char *more = m->failed ? NULL : realloc(m->text, m->bytes + bytes + 2);
    m->failed |= !more;
    if (!more) return;
    m->text = more;
    if (bytes) memcpy(more + m->bytes, text, bytes);
    m->bytes += bytes;
}

/* Waits for a line in `input`: edited, where the terminal can do it. 0 at the end, -1 when interrupted. */
static int next_input(int edited, const char *prompt) {
    char *text;
    size_t bytes;
    if (have_line(0)) return 1; /* typed while an answer was written */
    if (!edited) {
        if (platform_is_terminal(stdin) && platform_is_terminal(stdout)) fputs(prompt, stdout), fflush(stdout);
        return have_line(1) ? 1 : interrupted ? -1 : 0;
    }
    int result = line_read(prompt, &interrupted, &text, &bytes);
    if (result != LINE_TEXT) return result == LINE_INTERRUPTED ? -1 : 0;
    if (input.used + bytes + 1 > sizeof input.text) printf("[a line of more than %zu bytes is left out]\n", sizeof input.text - 1), bytes = 0;
    if (bytes) memcpy(input.text + input.used, text, bytes);
    free(text);
    input.text[input.used + bytes] = '\n';
    input.line = bytes + 1; /* with ends of lines inside, if it was pasted */
    input.used += bytes + 1;
    return 1;
}

/* Adds lines to the message as long as it goes on. 0 at the end of the input, -1 when interrupted. */
static int gather(message *m, int edited) {
    static const char quotes[] = "\"\"\"";
    int result = 1, quoted = 0;
    for (int first = 1; ; first = 0) {
        if (!first && (result = next_input(edited, ". ")) <= 0) break;
        const char *line = input.text;
        size_t length = input.line - (input.text[input.line - 1] == '\n');
        if (first && length >= 3 && memcmp(line, quotes, 3) == 0) quoted = 1, line += 3, length -= 3;
        int ends = quoted && length >= 3 && memcmp(line + length - 3, quotes, 3) == 0;
        int goes_on = quoted ? !ends : length && line[length - 1] == '\\';
        if (ends) length -= 3;
        else if (!quoted && goes_on) length--;
        if (quoted && ((first && !length) || (ends && !length))) { /* the quotes stand alone: no line of their own */
            if (ends && m->bytes && m->text[m->bytes - 1] == '\n') m->bytes--;
        } else {
            take_line(m, line, length);
            if (goes_on) take_line(m, "\n", 1);
        }
        next_line();
        if (!goes_on) break;
    }
    return result;
}

static int converse(chat *c, int live) {
    int terminal = platform_is_terminal(stdin) && platform_is_terminal(stdout), edited = terminal && line_possible(), asked = 0, failed = 0;
    platform_on_interrupt(on_interrupt); /* waiting for a line ends as well */
    while (!c->quit && !failed) {
        int there = next_input(edited, "> ");
        interrupted = 0;
        if (there < 0 && terminal && !asked++) {
            printf("%s[Ctrl-C again, or :quit, ends it]\n", edited ? "" : "\n");
            continue;
        }
        if (there <= 0) break;
        asked = 0;
        size_t length = input.line - (input.text[input.line - 1] == '\n');
        if (length && input.text[0] != ':') {
            message m = {NULL, 0, 0};
            int whole = gather(&m, edited) >= 0;
            failed = m.failed || (whole && m.bytes && answer(c, m.text, m.bytes, live || terminal) != 0);
            free(m.text);
        } else {
            if (length) obey(c, input.text, length, 0);
            next_line();
        }
        fflush(stdout);
    }
    line_forget();
    if (terminal && !c->quit) putchar('\n');
    return failed ? -1 : 0;
}

int command_chat(int argc, char **argv) {
    static chat c;
    const char *path, *system = NULL, *form = NULL, *kv = "f16";
    uint32_t context = 0, threads = (uint32_t)llm_processors();
    uint64_t seed = 1;
    double temperature = 0.8, top_p = 0.95;
    int live = 0, special = 0, unknown = 0;
    const llm_turns *turns = NULL;
    session_options open;
    llm_error error;
    memset(&open, 0, sizeof open);
    c.most = 512;
    memory_policy *policy = &open.size.policy;
    const cli_option options[] = {{"--budget", CLI_SIZE, &open.size.budget},
                                  {"--auto", CLI_FLAG, &open.size.automatic},
                                  {"--min", CLI_SIZE, &policy->least},
                                  {"--max", CLI_SIZE, &policy->most},
                                  {"--reserve", CLI_SIZE, &policy->reserve},
                                  {"--memory", CLI_SIZE, &open.memory},
                                  {"--idle", CLI_NUMBER, &open.size.idle},
                                  {"--follow", CLI_FLAG, &open.growing},
                                  {"--system", CLI_TEXT, &system},
                                  {"--context", CLI_WHOLE, &context},
                                  {"--kv", CLI_TEXT, &kv},
                                  {"-n", CLI_WHOLE, &c.most},
                                  {"--threads", CLI_WHOLE, &threads},
                                  {"--temperature", CLI_NUMBER, &temperature},
                                  {"--top-p", CLI_NUMBER, &top_p},
                                  {"--seed", CLI_LONG, &seed},
                                  {"--live", CLI_FLAG, &live},
                                  {"--form", CLI_TEXT, &form},
                                  {"--special", CLI_FLAG, &special},
                                  {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "chat", help, options, &path, 1);
    if (stop) return stop - 1;
    if (top_p > 1) return cli_usage("chat", "--top-p: expected a number from 0 to 1");
    if (form && !(turns = llm_turns_named(form))) return cli_usage("chat", "--form: expected %s, got '%s'", llm_turns_names(), form);
    if (strcmp(path, "-") == 0) return cli_usage("chat", "expected a file: the standard input is for what you say");
    if (open.size.budget && open.size.automatic) return cli_usage("chat", "expected --budget or --auto, not both");
    if (open.memory && (open.size.budget || open.size.automatic))
        return cli_usage("chat", "expected one of --memory, --budget and --auto");
    if (!open.size.automatic && (policy->least || policy->most || policy->reserve))
        return cli_usage("chat", "--min, --max and --reserve need --auto");
    if (policy->most && policy->most < policy->least) return cli_usage("chat", "expected --min up to --max");
    if (context > 1 << 24 || (context && context < 16)) return cli_usage("chat", "--context: expected 16 to 16777216");
    if (session_keep(kv) < 0) return cli_usage("chat", "--kv: expected f32, f16 or 8, got '%s'", kv);

    c.sampler.temperature = (float)temperature;
    c.sampler.top_p = (float)top_p;
    c.sampler.state = seed;
    open.threads = threads < 1024 ? (int)threads : 1024;
    open.context = context;
    open.keep = session_keep(kv);
    open.choose = !open.size.budget && !open.size.automatic && !open.memory && !open.growing;
    open.size.group = getenv("BITSTACK_CGROUP"); /* a folder like a control group's, for tests */
    if (session_open(&c.s, path, &open, &error) != 0) return cli_failed("%s", error.message);
    int status = CLI_OK;
    session_say(&c.s);
    if (c.s.resizer) resizer_wait(c.s.resizer);
    if (context > c.s.model.config.context)
        fprintf(stderr, "bitstack: note: %s: it was trained on contexts of %u tokens; beyond that it may make little sense\n", path, c.s.model.config.context);
    if (!turns) turns = llm_turns_of(&c.s.model.source, &unknown);
    if (unknown)
        fprintf(stderr, "bitstack: note: %s: its chat template is none that is known, so turns are plain text; --form NAME chooses among %s\n",
                path, llm_turns_names());
    if (llm_conversation_start(&c.talk, &c.s.model, &c.s.tokenizer, context, system, turns) != 0) status = cli_failed("%s: out of memory", path);
    else {
        if (c.talk.cut) fprintf(stderr, "bitstack: note: what is said first is longer than half of the context: its last %zu tokens are left out\n", c.talk.cut);
        c.talk.special = special;
        if (converse(&c, live) != 0) status = cli_failed("%s: out of memory", path);
    }
    llm_conversation_free(&c.talk);
    session_close(&c.s);
    return status;
}
