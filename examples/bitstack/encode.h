/* encode.h - the options that compress and compress-matrix share. */
#ifndef ENCODE_H
#define ENCODE_H

#include "bitstack_compress.h"

typedef struct encode_arguments {
    const char *method, *out;
    uint32_t rank, levels, threads;
    uint64_t seed;
} encode_arguments;

/* Rows of a cli_option table. */
#define ENCODE_OPTIONS(a)                                                                                          \
    {"-o", CLI_TEXT, &(a).out}, {"--method", CLI_TEXT, &(a).method}, {"--rank", CLI_WHOLE, &(a).rank},             \
        {"--levels", CLI_WHOLE, &(a).levels}, {"--threads", CLI_WHOLE, &(a).threads}, {"--seed", CLI_LONG, &(a).seed}

#define ENCODE_HELP                                                                             \
    "  -o OUT.bitstack        where to write; complete, or not at all\n"                        \
    "  --method nested|iabs   nested: ours, the default. iabs: as published (BitStack, 2024)\n" \
    "  --rank K               of the factors of iabs; 16\n"                                      \
    "  --levels N             blocks a matrix; nested: 8, iabs: 16\n"                            \
    "  --threads N            all processors; the result does not depend on it\n"                \
    "  --seed S               of random starts\n"

/* Checks the arguments and turns them into the compressor's options; CLI_OK or CLI_USAGE. */
int encode_options(const encode_arguments *arguments, const char *command, bitstack_encode_options *options);

#endif
