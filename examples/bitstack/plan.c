/* bitstack plan: what a model's stack will measure, and what of it this machine has room for, before anything is
 * compressed. Only headers are read. */
#include "cli.h"
#include "encode.h"
#include "estimate.h"
#include "memory.h"
#include "mix.h"
#include "../llm/model.h"
#include "../llm/parallel.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: bitstack plan MODEL [--ram SIZE] [--context N] [--levels N] [--rank K] [--method nested|iabs]\n"
    "                      [--threads N] [--json]\n\n"
    "A line for each number of blocks a matrix: bits a weight, memory of the model with the embeddings as they are and\n"
    "with them compressed too, whether it fits, and the loss to expect. Sizes between the lines are available as well:\n"
    "a stack is loaded block by block. And how long compressing takes here: the speed of this machine is measured.\n\n"
    "  --ram SIZE       memory to plan for; what this machine can spare now\n"
    "  --context N      tokens of a text; the model's own, at most 4096\n"
    "  --levels, --rank, --method, --threads   as for bitstack compress\n\n"
    "kl, perplexity: divergence from full precision, nats a token, and growth of perplexity, as measured on a\n"
    "model of 135M parameters with calibration (iabs: on the demo model). A larger model loses less at the same bits a weight.\n";

/* Divergence and growth of perplexity on text that no calibration has seen, at bits a weight of the layers' matrices,
 * embeddings left as they are: of nested coding on a real model of 135M parameters (bench/results/real.csv, layers,
 * speeches), of iabs on the demo model (bench/results/quality.csv). */
typedef struct quality_point {
    double bits, kl, perplexity;
} quality_point;

static const quality_point nested[] = {{2.3976, 1.6171, 5.9554}, {2.6955, 1.1348, 3.6181}, {3.1455, 0.5375, 1.8946}, {3.5987, 0.2666, 1.3729},
                                       {4.1593, 0.1243, 1.1653}, {4.5972, 0.0705, 1.0948}, {5.1571, 0.0331, 1.0511}, {6.1950, 0.0097, 1.0145},
                                       {8.1859, 0.0027, 1.0062}};
static const quality_point iabs[] = {{0.9931, 0.5164, 1.572}, {1.0990, 0.4278, 1.444}, {1.5920, 0.2143, 1.205}, {2.0217, 0.1330, 1.120},
                                     {2.5933, 0.0704, 1.059}, {3.0312, 0.0478, 1.035}, {3.7695, 0.0268, 1.016}, {4.4579, 0.0185, 1.0096},
                                     {5.4878, 0.0125, 1.0067}, {8.4896, 0.0074, 1.0023}};

/* Between two points on a straight line of logarithms; below the first one on the line of the first two, beyond the
 * last one that. */
static quality_point predicted(int is_iabs, double bits) {
    const quality_point *at = is_iabs ? iabs : nested, *last = at + (is_iabs ? sizeof iabs : sizeof nested) / sizeof *at - 1;
    while (at < last - 1 && at[1].bits < bits) at++;
    double share = (bits - at->bits) / (at[1].bits - at->bits);
    share = share > 1 ? 1 : share;
    quality_point point = {bits, at->kl * pow(at[1].kl / at->kl, share), 1 + (at->perplexity - 1) * pow((at[1].perplexity - 1) / (at->perplexity - 1), share)};
    return point;
}

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

static void print_json(const sizes *s, uint32_t level, uint64_t state, uint64_t ram, int method) {
    uint64_t kept = s->resident + s->layers[level] + s->kept, coded = s->resident + s->layers[level] + s->coded[level];
    cli_json_begin();
    cli_json_whole("levels", level);
    cli_json_number("bits_per_weight", 8 * (double)s->layers[level] / s->weights);
    cli_json_whole("model_bytes", kept);
    cli_json_whole("model_bytes_embeddings_compressed", coded);
    cli_json_whole("context_bytes", state);
    cli_json_whole("ram_bytes", ram);
    cli_json_whole("fits", kept + state <= ram);
    cli_json_whole("fits_embeddings_compressed", coded + state <= ram);
    quality_point quality = predicted(method, 8 * (double)s->layers[level] / s->weights);
    cli_json_number("predicted_kl", quality.kl);
    cli_json_number("predicted_perplexity_factor", quality.perplexity);
    cli_json_end();
}

static void print_table(const llm_model *m, const sizes *s, uint32_t levels, uint32_t context, uint64_t state, uint64_t ram, int method) {
    uint64_t room = ram > state ? ram - state : 0;
    printf("%.3f billion weights in %u layers, %.3f billion over the vocabulary; %s as it is\n", s->weights / 1e9, m->config.layers,
           s->vocabulary / 1e9, cli_bytes(s->original));
    printf("to plan for: %s, of which %s for a context of %u tokens\n\n", cli_bytes(ram), cli_bytes(state), context);
    printf("%6s %7s %14s %6s %22s %6s %8s %11s\n", "levels", "bits", "model", "fits", "embeddings compressed", "fits", "kl", "perplexity");
    for (uint32_t l = 1; l <= levels; l++) {
        uint64_t kept = s->resident + s->layers[l] + s->kept, coded = s->resident + s->layers[l] + s->coded[l];
        printf("%6u %7.2f %14s %6s %22s %6s", l, 8 * (double)s->layers[l] / s->weights, cli_bytes(kept), kept <= room ? "yes" : "no",
               cli_bytes(coded), coded <= room ? "yes" : "no");
        quality_point quality = predicted(method, 8 * (double)s->layers[l] / s->weights);
        printf(" %8.4f %+10.1f%%\n", quality.kl, 100 * (quality.perplexity - 1));
    }
    /* Between two levels the budget decides block by block. */
    uint64_t least = s->resident + s->layers[1] + s->coded[1], most = s->resident + s->layers[levels] + s->kept;
    if (room < least) printf("\nNot even one block a matrix fits: %s are needed.\n", cli_bytes(least + state));
    else if (room < most) { /* with the embeddings as they are if two blocks a matrix fit beside them */
        int keep = room >= s->resident + s->kept + s->layers[levels < 2 ? levels : 2];
        uint32_t l = 1;
        uint64_t low, high;
        do {
            low = s->resident + s->layers[l] + (keep ? s->kept : s->coded[l]);
            high = l < levels ? s->resident + s->layers[l + 1] + (keep ? s->kept : s->coded[l + 1]) : low;
        } while (high <= room && ++l < levels);
        double share = high > low && room < high ? (double)(room - low) / (double)(high - low) : 0;
        double bits = 8 * ((double)s->layers[l] + (l < levels ? share * (double)(s->layers[l + 1] - s->layers[l]) : 0)) / s->weights;
        printf("\nA budget of %s uses all of it: with the embeddings %s, about %.2f bits a weight, kl %.4f.\n", cli_bytes(room),
               keep ? "as they are" : "compressed", bits, predicted(method, bits).kl);
    }
    else printf("\nEverything fits, and %s stay free.\n", cli_bytes(room - most));
}

static const char *clock_time(double seconds) {
    static char texts[4][32];
    static int slot;
    char *text = texts[slot = (slot + 1) % 4];
    if (seconds >= 5400) snprintf(text, sizeof texts[0], "%.1f hours", seconds / 3600);
    else snprintf(text, sizeof texts[0], "%.0f:%02.0f", floor(seconds / 60), floor(fmod(seconds, 60)));
    return text;
}

/* Time of compress without further options: on text of the model's own. */
static void print_time(const llm_model *m, const bitstack_encode_options *o, uint32_t threads, int json) {
    machine here = machine_measured((int)threads, o);
    estimate e = estimate_time(m, &here, MIX_DEFAULT_SELF, MIX_DEFAULT_SELF);
    if (json) {
        cli_json_begin();
        cli_json_number("compress_seconds", e.all);
        cli_json_number("writing_seconds", e.writing);
        cli_json_number("learning_seconds", e.learning);
        cli_json_number("encoding_seconds", e.encoding);
        cli_json_whole("threads", threads);
        cli_json_end();
    } else
        printf("\nCompressing takes about %s here with %u threads: writing %u tokens of text %s, learning from them %s, encoding %s.\n", clock_time(e.all),
               threads, (unsigned)MIX_DEFAULT_SELF, clock_time(e.writing), clock_time(e.learning), clock_time(e.encoding));
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
    if (llm_model_open(&model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    if (model.source.stack) status = cli_failed("%s: a stack already: bitstack info tells its sizes", path);
    if (!context) context = model.config.context < 4096 ? model.config.context : 4096;
    if (status == CLI_OK && context > model.config.context) status = cli_failed("%s: expected --context up to %u", path, model.config.context);
    if (status == CLI_OK && !ram) {
        memory_watch watch;
        memory_reading reading;
        memory_watch_init(&watch, NULL);
        if (memory_read(&watch, 0, &reading) != 0) status = cli_failed("free memory cannot be told here: give --ram");
        else ram = reading.available;
    }
    if (status == CLI_OK) {
        sizes s;
        uint32_t levels = options.levels ? options.levels : options.method == BITSTACK_IABS ? 16 : 8;
        uint64_t state = llm_state_bytes(&model, context, 0) + (uint64_t)model.config.vocabulary * sizeof(float);
        int method = options.method == BITSTACK_IABS;
        measure(&model, &options, levels, &s);
        if (!json) print_table(&model, &s, levels, context, state, ram, method);
        for (uint32_t l = 1; l <= levels && json; l++) print_json(&s, l, state, ram, method);
        print_time(&model, &options, a.threads ? a.threads : 1, json);
    }
    llm_model_close(&model);
    return status;
}
