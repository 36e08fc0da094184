/* bitstack plot: the pictures show what the file says: levels at the budget are those that the library loads there, the
 * curve is the errors' in the order of the blocks, or what was measured on a text, and what is written is well-formed. */
#include "command.h"
#include "random_stack.h"

enum { LAYERS = 3, KINDS = 7, LEVELS = 4 };
static const char *const kinds[KINDS] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                         "ffn_gate", "ffn_up", "ffn_down"};

/* 0 if every element that begins ends, in order, and no text has a bare '<' or '&'. */
static int malformed(const char *text) {
    char open[64][24];
    int depth = 0;
    for (const char *at = text; *at; at++) {
        if (*at == '&' && strncmp(at, "&lt;", 4) && strncmp(at, "&amp;", 5) && strncmp(at, "&quot;", 6))
            return 1;
        if (*at != '<') continue;
        const char *end = strchr(at, '>');
        if (!end) return 2;
        if (at[1] == '!' || strncmp(at, "<meta", 5) == 0) continue;
        if (at[1] == '/') {
            size_t length = (size_t)(end - at) - 2;
            if (!depth || strlen(open[depth - 1]) != length || strncmp(open[--depth], at + 2, length))
                return 3;
        } else if (end[-1] != '/') {
            if (depth == 64) return 4;
            snprintf(open[depth++], sizeof *open, "%.*s", (int)strcspn(at + 1, " >"), at + 1);
        }
        at = end;
    }
    return depth ? 5 : 0;
}

static int count_of(const char *text, const char *what) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) count++;
    return count;
}

int main(int argc, char **argv) {
    (void)argc;
    bitstack *stack;
    bitstack_error error;
    char line[400], name[64];
    size_t bytes;
    if (command_begin(argv[0], "plot") ||
        random_stack(command_file("a&b.bitstack"), 128, 192, LAYERS, LEVELS, 64, NULL))
        return 1;
    if (bitstack_open_file(&stack, command_file("a&b.bitstack"), NULL, &error) != BITSTACK_OK) return 1;
    uint64_t base = bitstack_base_bytes(stack), total = bitstack_total_bytes(stack);

    TEST("the map's levels are those that the budget loads, by layer and kind");
    for (int step = 0; step <= 8; step++) {
        uint64_t budget = base + (total - base) * (uint64_t)step / 8;
        bitstack_set_budget(stack, budget, NULL);
        snprintf(line, sizeof line, "plot 'a&b.bitstack' --terminal --budget %llu", (unsigned long long)budget);
        CHECK(command_run(line) == 0, "%s", command_err);
        snprintf(line, sizeof line, "%d of %d blocks", bitstack_blocks_loaded(stack),
                 bitstack_block_count(stack));
        CHECK(strstr(command_out, line), "not %s: %s", line, command_out);
        for (int k = 0; k < KINDS; k++) {
            size_t used = (size_t)snprintf(line, sizeof line, "\n%16s ", kinds[k]);
            for (int l = 0; l < LAYERS; l++) {
                bitstack_matrix m;
                snprintf(name, sizeof name, "blk.%d.%s.weight", l, kinds[k]);
                bitstack_get_matrix(stack, bitstack_find_matrix(stack, name), &m);
                line[used++] = m.level ? (char)('0' + m.level) : '.';
            }
            snprintf(line + used, sizeof line - used, "\n");
            CHECK(strstr(command_out, line), "at %llu no line '%s' in %s", (unsigned long long)budget,
                  line + 1, command_out);
        }
    }

    TEST(
        "the picture is well-formed, has a cell a matrix with its level, and a curve that falls to what the errors leave");
    CHECK(command_run("plot 'a&b.bitstack' -o x.svg") == 0 && !command_out[0], "%s%s", command_out,
          command_err);
    char *svg = test_read_file(command_file("x.svg"), &bytes);
    CHECK(svg && malformed(svg) == 0, "malformed: %d", svg ? malformed(svg) : -1);
    if (!svg) return TEST_DONE();
    CHECK(count_of(svg, "<rect ") == LAYERS * KINDS + LEVELS + 1, "%d cells", count_of(svg, "<rect "));
    const char *path = strstr(svg, "class=\"s0 any\" d=\"");
    double x, y, last_x = 0, last_y = 0, first_y = 0;
    int points = 0, used;
    for (path = path ? path + 18 : ""; sscanf(path, "%*1[ML]%lf %lf%n", &x, &y, &used) == 2;
         path += used, points++) {
        CHECK(!points || (x >= last_x && y >= last_y), "the curve goes up or back at point %d",
              points); /* y counts downwards */
        if (!points) first_y = y;
        last_x = x, last_y = y;
    }
    CHECK(points > 20 && last_y > first_y + 100, "%d points, from %g to %g", points, first_y, last_y);
    free(svg);
    /* All sensitivities are 1: what is left of 21 matrices after a first block is 20 and 0.3 of one, at the end 0.3^4 of all. */
    CHECK(command_run("plot 'a&b.bitstack' --terminal") == 0 && strstr(command_out, "     0.97 |*") &&
              strstr(command_out, "   0.0081 |"),
          "%s", command_out);

    TEST("with a text the first curve is what perplexity measures on it, at the sizes asked for, in order");
    FILE *text = fopen(command_file("text"), "w");
    for (int i = 0; text && i < 60; i++) fprintf(text, "Words number %d, of a text that nobody reads.\n", i);
    if (text) fclose(text);
    snprintf(line, sizeof line, "perplexity 'a&b.bitstack' --text text --context 64 --budgets %llu,%llu,%llu",
             (unsigned long long)total, (unsigned long long)(base + (total - base) / 2),
             (unsigned long long)(base + (total - base) / 4));
    CHECK(command_run(line) == 0, "%s", command_err);
    double wanted[3], sizes[3], have, size;
    const char *row = strchr(command_out, '\n');
    for (int i = 0; i < 3 && row; i++, row = strchr(row + 1, '\n')) /* resident size, bits, nll, perplexity */
        CHECK(sscanf(row, "%*s %*s %lf %*s %*f %*f %lf", &sizes[i], &wanted[i]) == 2, "%s", command_out);
    snprintf(line, sizeof line, "plot 'a&b.bitstack' --text text -o m.svg --terminal --budgets %llu,%llu,%llu",
             (unsigned long long)total, (unsigned long long)(base + (total - base) / 2),
             (unsigned long long)(base + (total - base) / 4));
    CHECK(command_run(line) == 0 && strncmp(command_out, "perplexity, and memory", 22) == 0, "%s%s", command_out, command_err);
    row = strstr(command_out, " MB\n\n"); /* the end of the first curve's axis */
    for (int i = 2; i >= 0; i--) {
        row = row ? strchr(row + (i == 2 ? 4 : 1), '\n') : NULL;
        CHECK(row && sscanf(row, " %lf MB %lf", &size, &have) == 2 && fabs(have - wanted[i]) < 0.0006 * wanted[i],
              "perplexity says %g, plot %s", wanted[i], row ? row : command_out);
    }
    char *measured = test_read_file(command_file("m.svg"), &bytes);
    CHECK(measured && malformed(measured) == 0 && count_of(measured, "<circle ") == 3 && count_of(measured, "<rect ") == LAYERS * KINDS + LEVELS + 1 &&
              strstr(measured, "perplexity on the text given") && strstr(measured, "loss left of that without any block"),
          "malformed: %d, %d points", measured ? malformed(measured) : -1, measured ? count_of(measured, "<circle ") : 0);
    free(measured);
    CHECK(command_run("plot 'a&b.bitstack' --text text --against 'a&b.bitstack' --length 200") == 0 &&
              strncmp(command_out, "divergence from full precision", 30) == 0 && strstr(command_out, "planes at "),
          "%s%s", command_out, command_err);

    TEST("a page names the file, whatever it is called");
    CHECK(command_run("plot 'a&b.bitstack' -o x.html --budget 1GB") == 0, "%s", command_err);
    char *page = test_read_file(command_file("x.html"), &bytes);
    CHECK(page && malformed(page) == 0 && count_of(page, "a&amp;b.bitstack") == 2 &&
              count_of(page, "<svg ") == 1,
          "malformed: %d", page ? malformed(page) : -1);
    free(page);

    TEST("what cannot be is refused in one line, and nothing is left behind");
    CHECK(command_fails("plot 'a&b.bitstack' -o x.png", 2, ".svg or .html"), "ending");
    CHECK(command_fails("plot 'a&b.bitstack' --budget 1", 1, "resident part"), "too small");
    CHECK(command_fails("plot none.bitstack", 1, "none.bitstack"), "no file");
    CHECK(command_fails("plot 'a&b.bitstack' --text none", 1, "none"), "no text");
    CHECK(command_fails("plot 'a&b.bitstack' --against x", 2, "need --text"), "nothing to measure");
    CHECK(command_fails("plot 'a&b.bitstack' --text text --budgets 1MB,many", 2, "sizes such as"), "no size");
    CHECK(command_fails("plot 'a&b.bitstack' --text text --budgets 1", 1, "smaller than"), "too small to measure");
    CHECK(command_fails("plot 'a&b.bitstack' -o none/x.svg", 1, "none"), "no folder");
    CHECK(command_shell("cp 'a&b.bitstack' y.svg") == 0 &&
              command_fails("plot y.svg -o y.svg", 1, "another -o") &&
              command_shell("cmp y.svg 'a&b.bitstack'") == 0,
          "in its own place");
    CHECK(command_shell("ls") == 0 && !strstr(command_out, ".part"), "left: %s", command_out);
    bitstack_close(stack);
    return TEST_DONE();
}
