/* bitstack run: continues a prompt. */
#include "cli.h"
#include "../llm/generate.h"
#include "../llm/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: bitstack run FILE --prompt TEXT [-n TOKENS] [--budget SIZE]\n"
    "                    [--temperature T] [--top-p P] [--seed S]\n\n"
    "Prints the prompt and its continuation. FILE: a stack, or a GGUF model to compare with.\n\n"
    "  -n TOKENS        at most so many tokens more; 128\n"
    "  --budget SIZE    memory for the model; as much as the file has\n"
    "  --temperature T  0 always takes the likeliest token; 0.8\n"
    "  --top-p P        draw among the likeliest tokens that hold this much probability; 0.95\n"
    "  --seed S         the same seed gives the same text; 1\n";

int command_run(int argc, char **argv) {
    const char *path, *prompt = NULL;
    uint32_t tokens = 128;
    uint64_t budget = 0, seed = 1;
    double temperature = 0.8, top_p = 0.95;
    const cli_option options[] = {{"--prompt", CLI_TEXT, &prompt}, {"-n", CLI_WHOLE, &tokens}, {"--budget", CLI_SIZE, &budget},
                                  {"--temperature", CLI_NUMBER, &temperature}, {"--top-p", CLI_NUMBER, &top_p},
                                  {"--seed", CLI_LONG, &seed}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "run", help, options, &path, 1);
    if (stop) return stop - 1;
    if (!prompt) return cli_usage("run", "--prompt is missing");
    if (top_p > 1) return cli_usage("run", "--top-p: expected a number from 0 to 1");

    llm_model model;
    llm_model_options load;
    llm_error error;
    llm_tokenizer tokenizer;
    llm_generator generator;
    llm_sampler sampler = {(float)temperature, (float)top_p, seed};
    uint32_t *ids = NULL;
    memset(&load, 0, sizeof load);
    load.stack.budget = budget;
    if (llm_model_open(&model, path, &load, &error) != 0) return cli_failed("%s", error.message);
    if (budget && !model.source.stack) {
        llm_model_close(&model);
        return cli_failed("%s: --budget needs a stack, this is a GGUF model", path);
    }
    int status = llm_tokenizer_load(&tokenizer, &model.source, &error) == 0 ? CLI_OK : cli_failed("%s", error.message);
    if (status != CLI_OK) {
        llm_model_close(&model);
        return status;
    }
    int64_t count = llm_encode(&tokenizer, prompt, strlen(prompt), &ids);
    if (tokenizer.count > model.config.vocabulary)
        status = cli_failed("%s: expected at most %u tokens, the tokenizer has %u", path, model.config.vocabulary, tokenizer.count);
    else if (count < 0 || llm_generator_init(&generator, &model, 0) != 0) status = cli_failed("%s: out of memory", path);
    else {
        uint32_t begin = (uint32_t)tokenizer.bos;
        if (tokenizer.add_bos || (count == 0 && tokenizer.bos >= 0)) llm_generator_add(&generator, &begin, 1);
        llm_generator_add(&generator, ids, (size_t)count);
        if (!generator.count) llm_generator_add(&generator, &tokenizer.bytes['\n'], 1); /* something to start from */
        fputs(prompt, stdout);
        fflush(stdout);
        double start = 0;
        uint32_t made = 0;
        while (made < tokens) {
            int64_t id = llm_generator_next(&generator, &sampler);
            if (!made++) start = llm_seconds(); /* the first one pays for the prompt */
            if (id < 0 || id == tokenizer.eos) break;
            char text[256];
            fwrite(text, 1, llm_token_text(&tokenizer, (uint32_t)id, count == 0 && made == 1, text, sizeof text), stdout);
            fflush(stdout);
        }
        putchar('\n');
        double seconds = llm_seconds() - start;
        if (isatty(STDERR_FILENO) && made > 1 && seconds > 0) {
            fprintf(stderr, "\n%.0f tokens a second", (made - 1) / seconds);
            if (model.source.stack) fprintf(stderr, ", %s resident", cli_bytes(bitstack_resident_bytes(model.source.stack)));
            fputc('\n', stderr);
        }
        llm_generator_free(&generator);
    }
    free(ids);
    llm_tokenizer_free(&tokenizer);
    llm_model_close(&model);
    return status;
}
