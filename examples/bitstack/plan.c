/* bitstack plan: what a model's stack will measure, and what of it this machine has room for, before anything is
 * compressed. Only headers are read. */
#include "cli.h"
#include "encode.h"
#include "estimate.h"
#include "tune.h"
#include "memory.h"
#include "mix.h"
#include "predict.h"
#include "session.h"
#include "../llm/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack plan MODEL [--ram SIZE] [--context N] [--levels N] [--rank K] [--method nested|iabs]\n"
    "                      [--threads N] [--json]\n\n"
    "A line for each number of blocks a matrix: bits a weight, memory of the model with the embeddings as they are and\n"
    "with them compressed too, whether it fits, the loss to expect and tokens a second. Sizes between the lines are there\n"
    "as well: a stack is loaded block by block. And how long compressing takes here: the speed of this machine is measured.\n"
    "Of a MODEL that is a stack: what run and chat would load of it. With --json the last line is that, for both.\n\n"
    "  --ram SIZE       memory to plan for; what this machine can spare now, less a margin\n"
    "  --context N      tokens of a text; the model's own, at most 4096\n"
    "  --levels, --rank, --method, --threads   as for bitstack compress\n\n"
    "kl: divergence from full precision, nats a token: a prediction from what was measured, on text that no calibration had\n"
    "seen, with a model of 135M parameters at so many bits a weight (iabs: with the demo model, of 6M). A larger model loses\n"
    "less. tok/s: from the speed at which this machine reads weights now, with short texts.\n";

typedef struct sizes {
    double weights;      /* of the layers' matrices */
    double vocabulary;   /* weights of embedding and head */
    uint64_t resident;   /* norms, biases, tokenizer, tables */
    uint64_t kept;       /* embedding and head as they are */
    uint64_t original;   /* bytes of the model as it is */
    uint64_t layers[BITSTACK_MAX_LEVELS + 1], coded[BITSTACK_MAX_LEVELS + 1]; /* at each level: layers; embedding and head */
} sizes;

static void add_matrix(uint64_t *at, const llm_linear *linear, const bitstack_encode_options *o, uint32_t levels) {
    bitstack_shape shape;
    if (bitstack_encode_shape(&shape, linear->rows, linear->cols, o) != BITSTACK_OK) return;
    for (uint32_t l = 1; l <= levels; l++) at[l] += bitstack_live_bytes(&shape, l);
}

static void measure(const llm_model *m, const bitstack_encode_options *o, uint32_t levels, sizes *s) {
    const llm_linear *vocabulary[2] = {&m->embedding, &m->head};
    memset(s, 0, sizeof *s);
    s->resident = 128;
    for (size_t i = 0; i < m->source.meta_count; i++) {
        const llm_meta *meta = &m->source.meta[i];
        s->resident += 24 + (meta->key.bytes + 7) / 8 * 8 + 8 + meta->count * llm_value_bytes((int)meta->type);
        for (uint64_t k = 0; meta->strings && k < meta->count; k++) s->resident += 4 + meta->strings[k].bytes;
    }
    for (size_t i = 0; i < m->source.tensor_count; i++) {
        const llm_tensor *tensor = &m->source.tensors[i];
        s->original += tensor->bytes;
        s->resident += (tensor->dimensions < 2 ? tensor->bytes + 72 : 64 * (1 + levels)) + tensor->name.bytes + 64;
    }
    for (uint32_t i = 0; i < m->config.layers * LLM_LINEARS; i++) {
        const llm_linear *linear = &m->layers[i / LLM_LINEARS].linears[i % LLM_LINEARS];
        s->weights += (double)linear->rows * linear->cols;
        add_matrix(s->layers, linear, o, levels);
    }
    for (int i = 0; i < (m->head.tensor == m->embedding.tensor ? 1 : 2); i++) {
        const llm_tensor *tensor = vocabulary[i]->tensor;
        int blocks = llm_packing_of((uint32_t)tensor->type)->elements > 1; /* F16 in a stack */
        s->vocabulary += (double)vocabulary[i]->rows * vocabulary[i]->cols;
        s->kept += blocks ? 2 * (uint64_t)vocabulary[i]->rows * vocabulary[i]->cols : tensor->bytes;
        add_matrix(s->coded, vocabulary[i], o, levels);
    }
}

/* Weights and bytes at a level, with the embeddings as they are or coded too. */
typedef struct at_level {
    uint64_t bytes;
    quality_point quality;
} at_level;

static at_level level_of(const sizes *s, double level, int coded,
                         int iabs) { /* between two levels, so much of the way */
    uint32_t low = (uint32_t)level, high = low + (level > low);
    double part = level - low, layers = (1 - part) * (double)s->layers[low] + part * (double)s->layers[high];
    double vocabulary = (1 - part) * (double)s->coded[low] + part * (double)s->coded[high];
    double bits =
        coded && !iabs ? 8 * (layers + vocabulary) / (s->weights + s->vocabulary) : 8 * layers / s->weights;
    at_level a = {s->resident + (uint64_t)(layers + (coded ? vocabulary : (double)s->kept)),
                  quality_predicted(iabs    ? QUALITY_IABS
                                    : coded ? QUALITY_ALL
                                            : QUALITY_LAYERS,
                                    bits)};
    return a;
}

typedef struct planned {
    const llm_model *model;
    const sizes *sizes;
    uint32_t levels, context;
    uint64_t state;
    double rate; /* bytes a second that decoding reads */
    int iabs, threads;
    session_choice choice; /* of the weights' budget */
} planned;

static double tokens_a_second(const planned *p, const at_level *a) {
    return speed_predicted(p->model, p->rate, (double)(a->bytes - p->sizes->resident));
}

/* The level that a budget reaches, as a fraction; 0 if not even the first. */
static double level_within(const sizes *s, uint32_t levels, uint64_t budget, int coded) {
    uint32_t l = 0;
    while (l < levels && level_of(s, l + 1, coded, 0).bytes <= budget) l++;
    if (l == 0 || l == levels) return l;
    double low = (double)level_of(s, l, coded, 0).bytes, high = (double)level_of(s, l + 1, coded, 0).bytes;
    return l + ((double)budget - low) / (high - low);
}

/* What run and chat would take: the embeddings as they are if two blocks a matrix fit beside them. */
static double chosen(const planned *p, int *coded) {
    *coded = p->choice.weights < level_of(p->sizes, p->levels < 2 ? p->levels : 2, 0, 0).bytes;
    return level_within(p->sizes, p->levels, p->choice.weights, *coded);
}

static void print_json(const planned *p, uint32_t level) {
    at_level kept = level_of(p->sizes, level, 0, p->iabs), coded = level_of(p->sizes, level, 1, p->iabs);
    uint64_t room = p->choice.free - p->choice.margin;
    cli_json_begin();
    cli_json_whole("levels", level);
    cli_json_number("bits_per_weight", 8 * (double)p->sizes->layers[level] / p->sizes->weights);
    cli_json_whole("model_bytes", kept.bytes);
    cli_json_whole("model_bytes_embeddings_compressed", coded.bytes);
    cli_json_whole("context_bytes", p->state);
    cli_json_whole("ram_bytes", p->choice.free);
    cli_json_whole("fits", kept.bytes + p->state <= room);
    cli_json_whole("fits_embeddings_compressed", coded.bytes + p->state <= room);
    cli_json_number("predicted_kl", kept.quality.kl);
    cli_json_number("predicted_kl_embeddings_compressed", coded.quality.kl);
    cli_json_number("predicted_perplexity_factor", kept.quality.perplexity);
    cli_json_number("predicted_tokens_per_second", tokens_a_second(p, &kept));
    cli_json_number("predicted_tokens_per_second_embeddings_compressed", tokens_a_second(p, &coded));
    cli_json_end();
}

/* What would be loaded, and why. */
static void print_choice_json(const planned *p, uint64_t weights, const quality_point *quality, double tokens,
                              const char *embeddings) {
    cli_json_begin();
    cli_json_whole("free_bytes", p->choice.free);
    cli_json_whole("margin_bytes", p->choice.margin);
    cli_json_whole("context_bytes", p->choice.context);
    cli_json_whole("budget_bytes", p->choice.weights);
    cli_json_whole("weights_bytes", weights);
    cli_json_number("bits_per_weight", quality->bits);
    cli_json_number("predicted_kl", weights ? quality->kl : INFINITY);
    cli_json_number("predicted_tokens_per_second", tokens);
    cli_json_whole("predicted_on_parameters", p->iabs ? 6000000 : 135000000);
    if (embeddings) cli_json_text("embeddings", embeddings, strlen(embeddings));
    cli_json_end();
}

static void print_chosen_json(const planned *p) {
    int coded;
    double level = chosen(p, &coded);
    at_level a = level_of(p->sizes, level, coded, p->iabs);
    print_choice_json(p, level > 0 ? a.bytes : 0, &a.quality, level > 0 ? tokens_a_second(p, &a) : 0,
                      coded ? "compressed" : "as they are");
}

static void print_room(const planned *p) {
    printf("to plan for: %s, of which %s for a context of %u tokens", cli_bytes(p->choice.free),
           cli_bytes(p->state), p->context);
    printf(p->choice.margin ? ", and a margin of %s stays free\n\n" : "\n\n", cli_bytes(p->choice.margin));
}

static void print_table(const planned *p) {
    const sizes *s = p->sizes;
    uint64_t room =
        p->choice.free > p->state + p->choice.margin ? p->choice.free - p->state - p->choice.margin : 0;
    printf("%.3f billion weights in %u layers, %.3f billion over the vocabulary; %s as it is\n",
           s->weights / 1e9, p->model->config.layers, s->vocabulary / 1e9, cli_bytes(s->original));
    print_room(p);
    printf("%6s %6s %11s %5s %8s %6s %22s %5s %8s %6s\n", "levels", "bits", "model", "fits", "kl", "tok/s",
           "embeddings compressed", "fits", "kl", "tok/s");
    for (uint32_t l = 1; l <= p->levels; l++) {
        at_level kept = level_of(s, l, 0, p->iabs), coded = level_of(s, l, 1, p->iabs);
        printf("%6u %6.2f %11s %5s %8.4f %6.0f %22s %5s %8.4f %6.0f\n", l,
               8 * (double)s->layers[l] / s->weights, cli_bytes(kept.bytes),
               kept.bytes <= room ? "yes" : "no", kept.quality.kl, tokens_a_second(p, &kept),
               cli_bytes(coded.bytes), coded.bytes <= room ? "yes" : "no", coded.quality.kl,
               tokens_a_second(p, &coded));
    }
    /* Between two levels the budget decides block by block. */
    uint64_t least = level_of(s, 1, 1, 0).bytes, most = level_of(s, p->levels, 0, 0).bytes;
    int packed;
    double level = chosen(p, &packed);
    at_level a = level_of(s, level > 0 ? level : 1, packed, p->iabs);
    if (room < least)
        printf("\nNot even one block a matrix fits: %s are needed.\n",
               cli_bytes(least + p->state + p->choice.margin));
    else if (room < most)
        printf(
            "\nA budget of %s uses all of it: with the embeddings %s, about %.2f bits a weight, kl %.4f, %.0f tokens a second.\n",
            cli_bytes(room), packed ? "compressed" : "as they are", a.quality.bits, a.quality.kl,
            tokens_a_second(p, &a));
    else printf("\nEverything fits, and %s stay free.\n", cli_bytes(room - most + p->choice.margin));
    printf(
        "kl is a prediction from a model of %s parameters; a larger one loses less at the same bits a weight.\n",
        p->iabs ? "6M" : "135M");
}

static const char *clock_time(double seconds) {
    static char texts[8][32];
    static int slot;
    char *text = texts[slot = (slot + 1) % 8];
    if (seconds >= 5400) snprintf(text, sizeof texts[0], "%.1f hours", seconds / 3600);
    else snprintf(text, sizeof texts[0], "%.0f:%02.0f", floor(seconds / 60), floor(fmod(seconds, 60)));
    return text;
}

/* Time of compress without further options: on text of the model's own. */
static void print_time(const llm_model *m, const bitstack_encode_options *o, uint32_t threads, int json) {
    machine here = machine_measured((int)threads, o);
    estimate e = estimate_time(m, &here, MIX_DEFAULT_SELF, MIX_DEFAULT_SELF, o->method == BITSTACK_NESTED ? tune_steps(MIX_DEFAULT_SELF / (MIX_LENGTH - 1)) : 0);
    if (json) {
        cli_json_begin();
        cli_json_number("compress_seconds", e.all);
        cli_json_number("writing_seconds", e.writing);
        cli_json_number("learning_seconds", e.learning);
        cli_json_number("encoding_seconds", e.encoding);
        cli_json_number("tuning_seconds", e.tuning);
        cli_json_whole("threads", threads);
        cli_json_end();
    } else
        printf("\nCompressing takes about %s here with %u threads: writing %u tokens of text %s, learning from them %s, encoding %s, tuning %s.\n", clock_time(e.all),
               threads, (unsigned)MIX_DEFAULT_SELF, clock_time(e.writing), clock_time(e.learning), clock_time(e.encoding), clock_time(e.tuning));
}

static void plan_model(planned *p, const bitstack_encode_options *options, int json) {
    sizes s;
    p->levels = options->levels ? options->levels : p->iabs ? 16 : 8;
    p->sizes = &s;
    measure(p->model, options, p->levels, &s);
    if (!json) print_table(p);
    for (uint32_t l = 1; l <= p->levels && json; l++) print_json(p, l);
    print_time(p->model, options, (uint32_t)p->threads, json);
    if (json) print_chosen_json(p);
}

/* What a budget loads of a stack that is there. */
static void plan_stack(planned *p, int json) {
    const bitstack *stack = p->model->source.stack;
    uint64_t total = bitstack_total_bytes(stack), base = bitstack_base_bytes(stack), weights = base;
    double elements = 0;
    int coded = p->model->embedding.matrix >= 0 || p->model->head.matrix >= 0, blocks = 0;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_matrix m;
        if (bitstack_get_matrix(stack, i, &m) == BITSTACK_OK)
            elements += (double)m.shape.rows * m.shape.cols, p->iabs |= m.shape.encoding == BITSTACK_PLANES;
    }
    p->choice.weights = p->choice.weights < total ? p->choice.weights : total;
    for (bitstack_block b;
         blocks < bitstack_blocks_available(stack) && bitstack_get_block(stack, blocks, &b) == BITSTACK_OK;
         blocks++) {
        if (b.resident_after > p->choice.weights) break;
        weights = b.resident_after;
    }
    quality_point quality = quality_predicted(p->iabs ? QUALITY_IABS
                                              : coded ? QUALITY_ALL
                                                      : QUALITY_LAYERS,
                                              elements > 0 ? 8 * (double)(weights - base) / elements : 0);
    int none = p->choice.weights < base || !blocks;
    double tokens = none ? 0
                         : speed_predicted(p->model, p->rate,
                                           (double)(weights - base) +
                                               (coded ? 0 : 2.0 * p->model->head.rows * p->model->head.cols));
    if (json) {
        print_choice_json(p, none ? 0 : weights, &quality, tokens, NULL);
        return;
    }
    print_room(p);
    if (none) printf("Not even one block fits: the resident part takes %s.\n", cli_bytes(base));
    else
        printf(
            "run and chat would load %s of %s, %d of %d blocks: %.2f bits a weight, kl %.4f, %.0f tokens a second with %d threads.\n",
            cli_bytes(weights), cli_bytes(total), blocks, bitstack_block_count(stack), quality.bits,
            quality.kl, tokens, p->threads);
    printf("kl is a prediction from a model of %s parameters; bitstack perplexity measures it.\n",
           p->iabs ? "6M" : "135M");
}

int command_plan(int argc, char **argv) {
    encode_arguments a = {"nested", "-", 0, 0, (uint32_t)llm_processors(), 0};
    const char *path;
    uint64_t ram = 0;
    uint32_t context = 0;
    int json = 0;
    const cli_option table[] = {{"--ram", CLI_SIZE, &ram}, {"--context", CLI_WHOLE, &context}, {"--levels", CLI_WHOLE, &a.levels},
                                {"--rank", CLI_WHOLE, &a.rank}, {"--method", CLI_TEXT, &a.method}, {"--json", CLI_FLAG, &json},
                                {"--threads", CLI_WHOLE, &a.threads}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "plan", help, table, &path, 1);
    if (stop) return stop - 1;
    bitstack_encode_options options;
    int status = encode_options(&a, "plan", &options);
    if (status != CLI_OK) return status;

    llm_model model;
    llm_model_options load;
    llm_error error;
    memset(&load, 0, sizeof load);
    load.unpack_bytes = 1; /* nothing is */
    load.stack.load_nothing = 1;
    load.threads = a.threads ? (int)a.threads : 1; /* each has room of its own, which counts */
    if (llm_model_open(&model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    if (!context) context = model.config.context < 4096 ? model.config.context : 4096;
    planned p = {.model = &model,
                 .context = context,
                 .iabs = options.method == BITSTACK_IABS,
                 .threads = a.threads ? (int)a.threads : 1};
    uint64_t limit = 0; /* of which a margin is kept, where nobody said how much to plan for */
    if (context > model.config.context)
        status = cli_failed("%s: expected --context up to %u", path, model.config.context);
    if (status == CLI_OK && !ram) {
        memory_watch watch;
        memory_reading reading;
        memory_watch_init(&watch, getenv("BITSTACK_CGROUP")); /* a folder like a control group's, for tests */
        if (memory_read(&watch, 0, &reading) != 0) status = cli_failed("free memory cannot be told here: give --ram");
        else ram = reading.available, limit = reading.limit;
    }
    if (status == CLI_OK) {
        static const memory_policy policy;
        model.keep = LLM_KEEP_F16; /* as run and chat have it */
        p.state = llm_generator_bytes(NULL, &model, context, UINT32_MAX);
        p.rate = speed_measured(p.threads);
        p.choice.all = UINT64_MAX;
        uint64_t held = limit && model.source.stack ? bitstack_base_bytes(model.source.stack)
                                                    : 0; /* is not free any more */
        session_share(&p.choice, ram, held, p.state, &policy, limit);
        if (model.source.stack) plan_stack(&p, json);
        else plan_model(&p, &options, json);
    }
    llm_model_close(&model);
    return status;
}
