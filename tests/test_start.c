/* A new user gets from a clone to a talk with a model of their own by the three lines at the top of the README, as they
 * stand there, with nothing to look up. */
#include "command.h"
#include "make_gguf.h"

/* The lines of the README's first block, without their comments and with the file's name put in. How many there are. */
static int first_block(char lines[4][300], const char *model) {
    size_t bytes;
    char *text = test_read_file("README.md", &bytes), *at = text ? strstr(text, "\n```\n") : NULL;
    int count = 0;
    for (at = at ? at + 5 : NULL; at && strncmp(at, "```", 3) && count < 4; at = strchr(at, '\n') + 1) {
        char *line = lines[count++], *name;
        snprintf(line, 200, "%.*s", (int)strcspn(at, "#\n"), at);
        for (size_t length = strlen(line); length && line[length - 1] == ' ';) line[--length] = 0;
        if ((name = strstr(line, "YOUR.gguf"))) {
            memmove(name + strlen(model), name + 9, strlen(name + 9) + 1);
            memcpy(name, model, strlen(model));
        }
    }
    free(text);
    return count;
}

int main(int argc, char **argv) {
    (void)argc;
    gguf_maker g;
    char lines[4][300] = {"", "", "", ""}, line[900];
    if (command_begin(argv[0], "start") != 0) return 1;
    make_tiny_llama(&g, 3);
    if (command_save("mine.gguf", g.data, g.bytes)) return 1;
    free(g.data);

    TEST("the README begins with three lines: make, compress, chat");
    int count = first_block(lines, "mine.gguf");
    CHECK(count == 3 && strcmp(lines[0], "make") == 0 && strncmp(lines[1], "build/bitstack compress mine.gguf", 33) == 0 &&
              strncmp(lines[2], "build/bitstack chat ", 20) == 0,
          "%d lines: %s; %s; %s", count, lines[0], lines[1], lines[2]);

    TEST("where make has made the command, the second makes a stack, and the third answers what is said to it");
    snprintf(line, sizeof line, "mkdir build && ln -s \"$B\" build/bitstack && %s && rm mine.gguf", lines[1]);
    CHECK(command_shell(line) == 0 && strstr(command_out, "next: bitstack "), "%s%s", command_out, command_err);
    snprintf(line, sizeof line, "printf 'Hello\\n:info\\n' | %s", lines[2]);
    CHECK(command_shell(line) == 0 && strstr(command_out, " 1 turns, 0 forgotten"), "%s%s", command_out, command_err);

    TEST("what fits is said before anything is made");
    make_tiny_llama(&g, 3);
    command_save("mine.gguf", g.data, g.bytes);
    free(g.data);
    CHECK(command_shell("build/bitstack plan mine.gguf") == 0 && strstr(command_out, "bits") && !command_err[0], "%s%s",
          command_out, command_err);
    return TEST_DONE();
}
