/* bitstack tune: scales and column factors of a stack, moved together until the whole model predicts what it does at full
 * precision. compress does it at the end. */
#include "tune.h"
#include "mix.h"
#include "report.h"
#include "../llm/parallel.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: bitstack tune STACK --model MODEL [options]\n\n"
    "Moves scales and column factors of STACK's low levels, on some text, towards what MODEL, of which it was made, predicts at\n"
    "full precision. The file keeps its size and its order. compress ends with this; it is of use for stacks\n"
    "that were made without, joined from parts, or made for another kind of text.\n\n"
    "  --calibrate TEXT[,...] as of compress; --self-share, --calibrate-self, --special as well\n"
    "  --steps N              each goes forward and back over four rows of 256 tokens; so many that the text is gone\n"
    "                         through one and a half times, 48 at most\n"
    "  --from B, --to B       at sizes of B bits a weight; 2.2 and 4.6\n"
    "  --levels N             blocks above this level stay as they are; 4\n"
    "  --rate R               how far a logarithm goes in one of the first steps at level 1, less at\n"
    "                         those above; 0.02\n"
    "  --memory SIZE          for what is learned, as far as it goes; 2GB\n"
    "  --seed N, --threads N, --quiet\n";

uint32_t tune_steps(size_t rows) {
    return (uint32_t)((double)rows * TUNE_PASSES / TUNE_TEXTS + 0.5);
}

int tune_stack(const char *path, llm_model *full, const llm_rows *rows, llm_tuning *t, report *r) {
    llm_error error;
    if (t->texts > rows->count) t->texts = rows->count;
    return llm_tune(path, full, rows, t, report_show, r, &error) == 0 ? CLI_OK : cli_failed("%s", error.message);
}

void tune_defaults(llm_tuning *t) {
    *t = (llm_tuning){.texts = TUNE_TEXTS, .from = 2.2, .to = 4.6, .levels = 4, .rate = 0.02, .bytes = 2000000000u, .threads = llm_processors()};
}

int command_tune(int argc, char **argv) {
    llm_tuning t;
    tune_defaults(&t);
    const char *path, *model_path = NULL, *text = NULL;
    uint32_t steps = UINT32_MAX, self = 0, threads = (uint32_t)t.threads;
    uint64_t seed = 0;
    double self_share = 0.5;
    int quiet = 0, special = 0;
    const cli_option table[] = {{"--model", CLI_TEXT, &model_path}, {"--calibrate", CLI_TEXT, &text}, {"--calibrate-self", CLI_WHOLE, &self},
                                {"--self-share", CLI_NUMBER, &self_share}, {"--special", CLI_FLAG, &special}, {"--steps", CLI_WHOLE, &steps},
                                {"--from", CLI_NUMBER, &t.from}, {"--to", CLI_NUMBER, &t.to}, {"--levels", CLI_WHOLE, &t.levels},
                                {"--rate", CLI_NUMBER, &t.rate}, {"--memory", CLI_SIZE, &t.bytes}, {"--seed", CLI_SIZE, &seed},
                                {"--threads", CLI_WHOLE, &threads}, {"--quiet", CLI_FLAG, &quiet}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "tune", help, table, &path, 1);
    if (stop) return stop - 1;
    if (!model_path) return cli_usage("tune", "--model is missing");
    if (steps != UINT32_MAX && (steps < 1 || steps > 100000)) return cli_usage("tune", "--steps: expected 1 to 100000");
    if (!(t.from > 0) || !(t.to >= t.from)) return cli_usage("tune", "--from, --to: expected 0 < B <= B");
    if (t.levels < 1 || t.levels > 8) return cli_usage("tune", "--levels: expected 1 to 8");
    if (!(t.rate > 0 && t.rate <= 1)) return cli_usage("tune", "--rate: expected above 0, to 1");
    if (!(self_share >= 0 && self_share < 1)) return cli_usage("tune", "--self-share: expected 0 to below 1");
    if (text && strcmp(text, "none") == 0) return cli_usage("tune", "--calibrate: tuning needs text");
    if (special && !text) return cli_usage("tune", "--special needs a text: --calibrate");
    t.seed = seed, t.threads = threads ? (int)threads : 1;

    llm_model full;
    llm_model_options load;
    llm_error error;
    llm_rows rows = {NULL, 0, 0};
    report r;
    memset(&load, 0, sizeof load);
    load.forget = 1;
    if (llm_model_open(&full, model_path, &load, &error) != 0) return cli_failed("%s", error.message);
    mix mixed = {.texts = text, .self_share = self_share, .self = self, .rows = MIX_ROWS, .seed = seed, .bytes = t.bytes / 4, .threads = t.threads,
                 .special = special, .length = full.config.context < MIX_LENGTH ? full.config.context + 1 : MIX_LENGTH};
    int status = full.source.stack ? cli_failed("%s: expected the model at full precision, this is a stack", model_path) : CLI_OK;
    report_begin(&r, quiet, 0, t.threads);
    report_phase(&r, "writing", 0, 0.1);
    if (status == CLI_OK) status = mix_rows(&mixed, &full, report_show, &r, &rows);
    report_phase(&r, "tuning", 0.1, 1);
    t.steps = steps != UINT32_MAX ? steps : tune_steps(rows.count);
    if (status == CLI_OK) status = tune_stack(path, &full, &rows, &t, &r);
    report_end(&r);
    if (status == CLI_OK && !quiet) printf("%s: divergence %.4f, %.4f at the end, nats a token, over sizes of %.2f to %.2f bits\n", path, t.before, t.after, t.from, t.to);
    llm_rows_free(&rows);
    llm_model_close(&full);
    return status;
}
