/* bitstack - compress a model once, run it at any size. One file a subcommand. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    {"cut", "a smaller file: what a budget loads of a stack", command_cut},
    {"run", "continue a prompt", command_run},
    {"chat", "talk, with a model whose size changes meanwhile", command_chat},
    {"perplexity", "quality and speed at one or more budgets", command_perplexity},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to) {
    fputs("usage: bitstack COMMAND ...\n\n", to);
    for (int i = 0; i < COMMANDS; i++) fprintf(to, "  %-16s %s\n", commands[i].name, commands[i].summary);
    fputs("\nbitstack COMMAND --help tells more. Sizes: 300000, 3MB, 2.5GiB (KB, MB, GB: powers of 1000).\n"
          "Exit status: 0 success, 1 failure, 2 bad usage.\n", to);
}

/* Original models are mapped: one that becomes shorter meanwhile ends the command, not in a crash. (Stacks are read.) */
static void became_shorter(int signal_number) {
    static const char message[] = "bitstack: a model's file became shorter while it was read\n";
    (void)signal_number;
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0) _exit(CLI_FAILED);
    _exit(CLI_FAILED);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    signal(SIGBUS, became_shorter);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return CLI_OK;
    }
    if (strcmp(name, "--version") == 0) {
        printf("bitstack %s (%s kernels)\n", BITSTACK_VERSION, bitstack_isa());
        return CLI_OK;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) {
            int status = commands[i].command(argc - 2, argv + 2);
            if ((fflush(stdout) != 0 || ferror(stdout)) && status == CLI_OK)
                return cli_failed("standard output: could not be written");
            return status;
        }
    if (argc > 1) fprintf(stderr, "bitstack: unknown command '%s'\n", name);
    print_help(stderr);
    return CLI_USAGE;
}
