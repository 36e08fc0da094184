/* bitstack - compress a model once, run it at any size. One file a subcommand. */
#include "cli.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *summary;
    int (*command)(int argc, char **argv);
} commands[] = {
    {"plan", "what a model's stack will measure, and what fits this machine", command_plan},
    {"compress", "a model into a stack", command_compress},
    {"join", "the parts of a model that several machines compressed into a stack", command_join},
    {"compress-matrix", "one matrix of raw floats into a stack", command_compress_matrix},
    {"import", "a published BitStack checkpoint into a stack", command_import},
    {"info", "what a stack holds", command_info},
    {"verify", "check every checksum of a stack", command_verify},
    {"error", "distance of a stack's matrices from the originals, at every level", command_error},
    {"tune", "a stack, so that the whole model predicts what it does at full precision", command_tune},
    {"cut", "a smaller file: what a budget loads of a stack", command_cut},
    {"plot", "quality against memory, and where a budget's planes go, as a picture", command_plot},
    {"run", "continue a prompt", command_run},
    {"chat", "talk, with a model whose size changes meanwhile", command_chat},
    {"perplexity", "quality and speed at one or more budgets", command_perplexity},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to) {
    fputs("usage: bitstack COMMAND ...\n\n", to);
    for (int i = 0; i < COMMANDS; i++) fprintf(to, "  %-16s %s\n", commands[i].name, commands[i].summary);
    fputs("\nbitstack help COMMAND tells more. Sizes: 300000, 3MB, 3m, 2.5GiB (K, M, G, T: powers of 1000; Ki and so on: of 1024).\n"
          "Exit status: 0 success, 1 failure, 2 bad usage.\n", to);
}

/* What a report of a fault needs. */
static void print_version(void) {
    char system[256];
    printf("bitstack %s (%s kernels)\n", BITSTACK_VERSION, bitstack_isa());
    printf("stack format %d, compiler %s, %zu-bit\n", BITSTACK_FORMAT_VERSION,
#if defined(__clang__)
           "clang " __clang_version__,
#elif defined(__VERSION__)
           "gcc " __VERSION__,
#else
           "unknown",
#endif
           8 * sizeof(void *));
    platform_describe(system, sizeof system);
    puts(system);
}

static const char *command_name(const void *list, size_t index) {
    (void)list;
    return index < COMMANDS ? commands[index].name : NULL;
}

int main(int argc, char **argv) {
    /* Original models are mapped: one that becomes shorter meanwhile ends the command, not in a crash. (Stacks are read.) */
    platform_begin(&argc, &argv, "bitstack: a model's file became shorter while it was read\n");
    const char *name = argc > 1 ? argv[1] : "";
    static char help[] = "--help", *ask[] = {help};
    int asked = strcmp(name, "help") == 0 && argc > 2; /* help COMMAND is COMMAND --help */
    if (asked) name = argv[2];
    else if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return CLI_OK;
    } else if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        print_version();
        return CLI_OK;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) {
            int status = asked ? commands[i].command(1, ask) : commands[i].command(argc - 2, argv + 2);
            if ((fflush(stdout) != 0 || ferror(stdout)) && status == CLI_OK)
                return cli_failed("standard output: could not be written");
            return status;
        }
    const char *meant = argc > 1 ? cli_nearest(name, strlen(name), command_name, NULL) : NULL;
    if (argc > 1) fprintf(stderr, meant ? "bitstack: unknown command '%s': is %s meant?\n" : "bitstack: unknown command '%s'\n", name, meant);
    print_help(stderr);
    return CLI_USAGE;
}
