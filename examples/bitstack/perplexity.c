/* bitstack perplexity: quality and speed at one or more budgets. */
#include "cli.h"
#include "measure.h"
#include "../llm/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack perplexity FILE (--text T [--special] | --tokens IDS.u16) [--context TOKENS]\n"
    "                           [--budgets 3MB,4MB,...] [--against MODEL.gguf] [--exact] [--json] [--threads N]\n\n"
    "The text is cut into rows of context + 1 ids (context: 256, or what the model has); each row is read on its\n"
    "own, nothing put in front. One line a budget: mean negative log likelihood (nll, nats a token), perplexity,\n"
    "tokens a second and, with --against, the mean divergence from the full-precision model (kl, nats a token).\n"
    "--exact: inputs of products in 16 bits; else in 8, as run and chat have them, which costs a kl of about 0.001.\n"
    "--special: marks such as <|im_end|> in the text count as marks, not as text.\n"
    "FILE: a stack, or a GGUF model.\n";

static int one_budget(llm_model *model, llm_reference *full, const llm_rows *rows, uint64_t budget, double weights,
                      int threads, int json, const char *path) {
    bitstack *stack = model->source.stack;
    bitstack_error error;
    llm_quality q;
    cli_progress progress = {"evaluating", 0, 0, 0, 0};
    memset(&error, 0, sizeof error);
    if (stack) {
        bitstack_result result = bitstack_set_budget(stack, budget, &error);
        if (result != BITSTACK_OK) return cli_failed_at(path, result, &error);
    }
    if (llm_evaluate(model, full, rows, threads, cli_show, &progress, &q) != 0) return cli_failed("%s: out of memory", path);
    cli_progress_end(&progress);
    uint64_t resident = stack ? bitstack_resident_bytes(stack) : budget;
    double bits = stack ? 8 * (double)(resident - bitstack_base_bytes(stack)) / weights : NAN;
    if (json) {
        cli_json_begin();
        cli_json_whole("budget_bytes", budget);
        cli_json_whole("resident_bytes", resident);
        cli_json_number("bits_per_weight", bits);
        cli_json_number("nll", q.nll);
        cli_json_number("ppl", exp(q.nll));
        cli_json_number("tokens_per_second", (double)q.tokens / q.seconds);
        if (full) cli_json_number("kl", q.kl);
        cli_json_end();
    } else {
        printf("%10s %10s", cli_bytes(budget), cli_bytes(resident));
        if (stack) printf(" %6.2f", bits);
        else printf(" %6s", "-");
        printf(" %9.5f %9.3f %9.0f", q.nll, exp(q.nll), (double)q.tokens / q.seconds);
        if (full) printf(" %9.5f", q.kl);
        putchar('\n');
    }
    fflush(stdout);
    return CLI_OK;
}

int command_perplexity(int argc, char **argv) {
    const char *path, *text = NULL, *tokens = NULL, *against = NULL, *budgets = NULL;
    uint32_t context = 0, threads = (uint32_t)llm_processors();
    int json = 0, special = 0, exact = 0;
    const cli_option options[] = {{"--text", CLI_TEXT, &text}, {"--special", CLI_FLAG, &special}, {"--tokens", CLI_TEXT, &tokens},
                                  {"--context", CLI_WHOLE, &context},
                                  {"--budgets", CLI_TEXT, &budgets}, {"--against", CLI_TEXT, &against},
                                  {"--threads", CLI_WHOLE, &threads}, {"--exact", CLI_FLAG, &exact}, {"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "perplexity", help, options, &path, 1);
    if (stop) return stop - 1;
    if (!text == !tokens) return cli_usage("perplexity", "expected --text or --tokens, one of them");
    if (special && !text) return cli_usage("perplexity", "--special needs a text: --text");
    if (context > 1 << 20) return cli_usage("perplexity", "--context: expected 1 to 1048576");
    for (const char *at = budgets; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        uint64_t bytes;
        if (cli_size(at, strcspn(at, ","), &bytes) != 0)
            return cli_usage("perplexity", "--budgets: expected sizes such as 3MB,4MB, got '%s'", budgets);
    }

    llm_model model, full;
    llm_error error;
    llm_rows rows = {NULL, 0, 0};
    llm_model_options load;
    memset(&load, 0, sizeof load);
    load.threads = threads ? (int)threads : 1;
    load.unpack_bytes = (uint64_t)2 << 30;
    load.stack.precision = exact ? BITSTACK_EXACT : BITSTACK_FAST;
    if (llm_model_open(&model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    llm_reference reference = {&full, NULL, !budgets || !strchr(budgets, ',')};
    int status = CLI_OK, opened = 0;
    if (budgets && !model.source.stack) status = cli_failed("%s: --budgets needs a stack, this is a GGUF model", path);
    if (!context) context = model.config.context < 256 ? model.config.context : 256;
    if (status == CLI_OK && context > model.config.context)
        status = cli_failed("%s: expected --context up to %u", path, model.config.context);
    if (status == CLI_OK) status = measure_rows(&rows, &model, text, special, tokens, context, 0);
    if (status == CLI_OK && against) {
        opened = llm_model_open(&full, against, &load, &error) == 0;
        if (!opened) status = cli_failed("%s", error.message);
        else if (full.config.vocabulary != model.config.vocabulary)
            status = cli_failed("%s: expected %u tokens, it has %u", against, model.config.vocabulary, full.config.vocabulary);
    }
    if (status == CLI_OK) {
        double weights = 0;
        uint64_t all = 0;
        bitstack *stack = model.source.stack;
        for (int i = 0; stack && i < bitstack_matrix_count(stack); i++) {
            bitstack_matrix m;
            bitstack_get_matrix(stack, i, &m);
            weights += (double)m.shape.rows * m.shape.cols;
        }
        if (stack) all = bitstack_total_bytes(stack);
        else
            for (size_t i = 0; i < model.source.tensor_count; i++) all += model.source.tensors[i].bytes;
        if (!json) printf("%10s %10s %6s %9s %9s %9s%s\n", "budget", "resident", "bits", "nll", "ppl", "tokens/s", against ? "        kl" : "");
        if (!budgets) status = one_budget(&model, opened ? &reference : NULL, &rows, all, weights, (int)threads, json, path);
        for (const char *at = budgets; at && status == CLI_OK; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
            uint64_t bytes = 0;
            cli_size(at, strcspn(at, ","), &bytes);
            status = one_budget(&model, opened ? &reference : NULL, &rows, bytes, weights, (int)threads, json, path);
        }
    }
    llm_rows_free(&rows);
    free(reference.logits);
    if (opened) llm_model_close(&full);
    llm_model_close(&model);
    return status;
}
