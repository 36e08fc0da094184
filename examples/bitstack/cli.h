/* cli.h - what the subcommands share: options, sizes, messages, progress, JSON lines. */
#ifndef CLI_H
#define CLI_H

#include "bitstack.h"
#include "../llm/source.h"

#include <stdio.h>

/* Exit statuses. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* The subcommands: each gets the arguments after its name and returns an exit status. */
int command_plan(int argc, char **argv);
int command_compress(int argc, char **argv);
int command_compress_matrix(int argc, char **argv);
int command_join(int argc, char **argv);
int command_import(int argc, char **argv);
int command_info(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_error(int argc, char **argv);
int command_cut(int argc, char **argv);
int command_tune(int argc, char **argv);
int command_run(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_plot(int argc, char **argv);
int command_perplexity(int argc, char **argv);

/* "bitstack: " and one line on the standard error; returns CLI_FAILED. */
int cli_failed(const char *format, ...) PLATFORM_PRINTF(1, 2);
/* The same for a result of the library. */
int cli_failed_at(const char *path, bitstack_result result, const bitstack_error *error);
/* Opens a stack with its tables and resident part, no block loaded. CLI_OK, or what cli_failed_at gives. */
int cli_open_unloaded(bitstack **stack, const char *path);
/* Looks at where OUT leads before any work is done: CLI_FAILED after saying so for a folder, a device, a pipe, or a folder
 * that cannot be written to. *out becomes the file that a symbolic link leads to; it lives until the next call. */
int cli_output(const char **out);
/* A file beside `to` that is to take its place when it is whole; NULL after saying why not. */
FILE *cli_begin(const char *to, char **part);
/* Ends it: it is at `to` now, or gone, after saying so, if it could not be written. */
int cli_end(FILE *file, char *part, const char *to);
/* CLI_FAILED after saying so where writing OUT (a stack, by way of files beside it) would write over `input`, or over a
 * file in it if it is a folder; CLI_OK else. */
int cli_same_file(const char *input, const char *out);
/* Before a model is compressed: whether what was made of it could run. CLI_FAILED after saying so for a tokenizer that is
 * not known, or does not fit the model, and for weights that are no numbers; where there is no tokenizer at all, that is
 * said and no failure. */
int cli_check_model(const llm_source *source);
/* CLI_FAILED after saying which tensor has a weight that is NaN or infinite, and where. */
int cli_check_weights(const llm_source *source);
/* Where the file does not say how its tokenizer cuts words: a note what it is taken for. */
void cli_note_guess(const llm_source *source, const char *guessed);
/* Bad usage: the line, and where help is; returns CLI_USAGE. */
int cli_usage(const char *command, const char *format, ...) PLATFORM_PRINTF(2, 3);

typedef enum cli_kind {
    CLI_FLAG,   /* int, set to 1 */
    CLI_TEXT,   /* const char * */
    CLI_WHOLE,  /* uint32_t */
    CLI_LONG,   /* uint64_t, a whole number */
    CLI_NUMBER, /* double, 0 or more */
    CLI_SIZE    /* uint64_t: bytes, as 300000, 3MB or 2.5GiB, in any case */
} cli_kind;

typedef struct cli_option {
    const char *name; /* "--rank" */
    cli_kind kind;
    void *value;
} cli_option;

/* Reads options (anywhere; --name value or --name=value; "--" ends them) and exactly `wanted` other
 * arguments. `options` ends with a NULL name. 0, or an exit status + 1 when the command is to stop: usage
 * errors are reported, --help prints `help`. */
int cli_parse(int argc, char **argv, const char *command, const char *help, const cli_option *options,
              const char **others, int wanted);

/* The name of a list that `word` was most likely meant to be; NULL if none is near. `name` gives them, then NULL. */
const char *cli_nearest(const char *word, size_t length, const char *(*name)(const void *list, size_t index), const void *list);

/* "3MB" and the like to bytes; 0, or -1 if it is not a size. */
int cli_size(const char *text, size_t length, uint64_t *bytes);

/* Bytes for people: "3.21 MB". The text lives until the eighth call after. */
const char *cli_bytes(uint64_t bytes);

/* Text from a file for people, at most 255 bytes of it: what would move a terminal's cursor or begin a line is '?'. It
 * lives until the eighth call after. */
const char *cli_plain(const char *text, size_t bytes);

/* The whole of a file; NULL after saying why. Free it. */
unsigned char *cli_read(const char *path, size_t *bytes);

/* A bar with the time remaining on a terminal, nothing otherwise. Fits llm_progress with a cli_progress as
 * user. Call cli_progress_end before printing anything else. */
typedef struct cli_progress {
    const char *label;
    double start, drawn;
    double from, to; /* the part of the whole that fractions 0 to 1 stand for; {0, 0} is 0 to 1 */
} cli_progress;
void cli_show(void *progress, double fraction);
void cli_progress_end(cli_progress *progress);

/* One JSON object a line on the standard output. */
void cli_json_begin(void);
void cli_json_end(void);
void cli_json_text(const char *key, const char *text, size_t bytes);
void cli_json_number(const char *key, double value); /* null if not finite */
void cli_json_whole(const char *key, uint64_t value);
/* For values of other kinds: writes the comma and the key (NULL inside arrays); then print the value. */
void cli_json_key(const char *key);
void cli_json_string(const char *text, size_t bytes); /* a string value alone; what is not UTF-8 becomes U+FFFD */

#endif
