/* The bitstack command: its flags, exit statuses, messages and JSON, on a small model of random weights. */
#include "stack_builder.h"
#include "make_gguf.h"
#include "../examples/llm/json.h"

#include <sys/stat.h>
#include <sys/wait.h>

static char command[1024], folder[512], out[1 << 20], err[1 << 16];
static llm_json json;

static void slurp(const char *name, char *to, size_t room) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    size_t bytes = file ? fread(to, 1, room - 1, file) : 0;
    to[bytes] = 0;
    if (file) fclose(file);
}

static const char *before_run = ""; /* what the shell does first */

/* Runs the command in the tests' folder; its exit status, with what it printed in out and err. */
static int run(const char *arguments) {
    char line[2000];
    snprintf(line, sizeof line, "cd '%s' && %s '%s' %s >out 2>err </dev/null", folder, before_run, command, arguments);
    int status = system(line);
    slurp("out", out, sizeof out);
    slurp("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static int lines(const char *text) {
    int count = 0;
    for (; *text; text++) count += *text == '\n';
    return count;
}

/* Parses line `number` of out (from 0) as JSON. */
static int parse_line(int number) {
    const char *at = out;
    llm_error error;
    llm_json_free(&json);
    for (; number > 0 && at; number--) at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    return at && llm_json_parse(&json, at, strcspn(at, "\n"), "line", &error) == 0;
}
static size_t has(const char *key) { return json.count ? llm_json_member(&json, 0, key) : 0; }
static double number(const char *key) { return has(key) && json.values[has(key)].type == LLM_JSON_NUMBER ? json.values[has(key)].number : -1e9; }

static void save(const char *name, const void *data, size_t bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes) printf("      cannot write %s\n", path);
    if (file) fclose(file);
}
static int exists(const char *name) {
    char path[600];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &status) == 0;
}
static unsigned char *load(const char *name, size_t *bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return (unsigned char *)test_read_file(path, bytes);
}

/* Fails as it should: status, one line on stderr that starts with "bitstack: " and holds `words`, nothing else. */
static int fails(const char *arguments, int status, const char *words) {
    int got = run(arguments);
    int good = got == status && lines(err) == 1 && strncmp(err, "bitstack: ", 10) == 0 && strstr(err, words) && !out[0];
    if (!good) printf("      bitstack %s: status %d, stdout '%.60s', stderr '%.300s'\n", arguments, got, out, err);
    return good;
}

int main(int argc, char **argv) {
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    char here[400], cwd[256];
    snprintf(here, sizeof here, "%.*s", slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
    FILE *pipe = popen("pwd", "r");
    if (!pipe || !fgets(cwd, sizeof cwd, pipe)) return 1;
    pclose(pipe);
    cwd[strcspn(cwd, "\n")] = 0;
    snprintf(command, sizeof command, "%s%s%s/../bitstack", here[0] == '/' ? "" : cwd, here[0] == '/' ? "" : "/", here);
    snprintf(folder, sizeof folder, "%.400s/command", here);
    mkdir(folder, 0777);
    char clean[600];
    snprintf(clean, sizeof clean, "rm -rf '%s'/*", folder);
    if (system(clean) != 0) return 1;

    gguf_maker g;
    make_tiny_llama(&g, 3);
    save("tiny.gguf", g.data, g.bytes);
    char text[4000] = "";
    uint64_t seed = 5;
    for (int i = 0; i < 700; i++) strcat(text, i % 7 == 3 ? " the" : i % 7 == 5 ? "in" : (const char *[]){"a", "o", "er", " "}[test_random(&seed) % 4]);
    save("text.txt", text, strlen(text));
    uint16_t ids[200];
    for (int i = 0; i < 200; i++) ids[i] = (uint16_t)(3 + test_random(&seed) % 297);
    save("ids.u16", ids, sizeof ids);

    TEST("help is printed and exits 0; bad usage exits 2 with one line");
    CHECK(run("--help") == 0 && strstr(out, "compress-matrix"), "%s", out);
    CHECK(run("--version") == 0 && lines(out) == 3 && strstr(out, "kernels") && strstr(out, "stack format") && strstr(out, "processors"), "%s", out);
    static const char *const names[] = {"compress", "compress-matrix", "info", "verify", "error", "run", "perplexity"};
    for (int i = 0; i < 7; i++) {
        char line[100];
        snprintf(line, sizeof line, "%s --help", names[i]);
        CHECK(run(line) == 0 && strncmp(out, "usage: bitstack ", 16) == 0 && !err[0], "%s: %s%s", line, out, err);
        snprintf(line, sizeof line, "%s --nonsense", names[i]);
        CHECK(fails(line, 2, "unknown option '--nonsense'"), "unknown option");
        CHECK(fails(names[i], 2, "missing"), "no argument");
        snprintf(line, sizeof line, "%s one two", names[i]);
        CHECK(fails(line, 2, "one argument too many: 'two'"), "two arguments");
    }
    CHECK(run("") == 2 && run("nonsense") == 2, "no command");
    CHECK(fails("compress tiny.gguf -o x.bitstack --method other", 2, "--method"), "method");
    CHECK(fails("compress tiny.gguf -o x.bitstack --order other", 2, "--order"), "order");
    CHECK(fails("compress tiny.gguf -o x.bitstack --levels 33", 2, "--levels"), "levels");
    CHECK(fails("compress tiny.gguf -o x.bitstack --effort great", 2, "--effort"), "effort");
    CHECK(fails("compress tiny.gguf -o x.bitstack --focus 4..3", 2, "--focus"), "focus");
    CHECK(fails("compress tiny.gguf -o x.bitstack --shrink 1.5", 2, "--shrink"), "shrinkage");
    CHECK(fails("compress tiny.gguf -o x.bitstack --labels none", 2, "--labels"), "labels");
    CHECK(fails("compress tiny.gguf -o x.bitstack --token-weights 2", 2, "--token-weights"), "token weights");
    CHECK(fails("join tiny.gguf", 2, "-o is missing"), "join's -o");
    CHECK(fails("compress tiny.gguf -o x.bitstack --rank -1", 2, "--rank"), "rank");
    CHECK(fails("compress tiny.gguf -o", 2, "-o needs a value"), "value");
    CHECK(fails("compress tiny.gguf", 2, "-o is missing"), "-o");
    CHECK(fails("compress tiny.gguf -o x.bitstack --calibrate text.txt --self-share 1", 2, "--self-share"), "nothing but text of its own");
    CHECK(fails("compress-matrix w.f32 -o x.bitstack --rows 4", 2, "--cols"), "columns");
    CHECK(fails("run tiny.gguf", 2, "--prompt"), "prompt");
    CHECK(fails("run tiny.gguf --prompt a --budget 3XB", 2, "--budget: expected a size"), "size");
    CHECK(fails("run tiny.gguf --prompt a --top-p 2", 2, "--top-p"), "top-p");
    CHECK(fails("run tiny.gguf --prompt a --kv f64", 2, "--kv: expected f32, f16 or 8") && fails("chat tiny.gguf --kv 9", 2, "--kv: expected"), "kv");
    CHECK(fails("perplexity tiny.gguf", 2, "--text or --tokens"), "text");
    CHECK(fails("perplexity tiny.gguf --tokens ids.u16 --special", 2, "--special needs a text"), "marks among ids");
    CHECK(fails("compress tiny.gguf -o x.bitstack --special", 2, "--special needs a text"), "marks in no text");
    CHECK(fails("perplexity tiny.gguf --text text.txt --budgets 3MB,x", 2, "--budgets"), "budgets");
    CHECK(fails("error x.bitstack", 2, "--against"), "against");

    TEST("what cannot be read or written exits 1, names the file and leaves nothing behind");
    CHECK(fails("compress none.gguf -o x.bitstack", 1, "none.gguf: "), "missing model");
    CHECK(fails("compress text.txt -o x.bitstack", 1, "text.txt: offset 0: expected"), "not a model");
    CHECK(fails("compress tiny.gguf -o none/x.bitstack", 1, "none/x.bitstack"), "missing folder");
    CHECK(fails("compress tiny.gguf -o x.bitstack --calibrate none.txt", 1, "none.txt: "), "missing text");
    save("cut.gguf", g.data, g.bytes - 100);
    CHECK(fails("compress cut.gguf -o x.bitstack", 1, "cut.gguf: offset "), "cut model");
    save("none.txt", "", 0);
    CHECK(fails("compress tiny.gguf -o x.bitstack --calibrate none.txt", 1, "none.txt: expected"), "empty text");
    CHECK(fails("info tiny.gguf", 1, "tiny.gguf"), "info of a model");
    CHECK(fails("perplexity tiny.gguf --text text.txt --budgets 3MB", 1, "needs a stack"), "budget of a model");
    CHECK(fails("perplexity tiny.gguf --text text.txt --context 65", 1, "--context up to 64"), "context");
    save("odd.u16", ids, 7);
    CHECK(fails("perplexity tiny.gguf --tokens odd.u16", 1, "odd.u16: offset 7: expected"), "odd bytes");
    uint16_t beyond[4] = {5, 6, 300, 7};
    save("beyond.u16", beyond, 8);
    CHECK(fails("perplexity tiny.gguf --tokens beyond.u16 --context 3", 1, "beyond.u16: offset 4: expected ids below 300"), "ids");
    CHECK(!exists("x.bitstack") && !exists("x.bitstack.part") && !exists("x.bitstack.spool"), "something was left behind");

    static const char *const methods[] = {"nested", "iabs"};
    TEST("marks in a text that is measured or calibrated on are text, unless --special is given");
    static char marked[18 * 60];
    for (int i = 0; i < 60; i++) memcpy(marked + 18 * i, "the in</s>hers</s>", 18);
    save("marked.txt", marked, sizeof marked);
    double nll[2] = {0, 0};
    for (int special = 0; special < 2; special++) {
        CHECK(run(special ? "perplexity tiny.gguf --text marked.txt --special --json" : "perplexity tiny.gguf --text marked.txt --json") == 0 && parse_line(0), "%s%s", out, err);
        nll[special] = number("nll");
        CHECK(run(special ? "compress tiny.gguf -o special.bitstack --levels 1 --calibrate marked.txt --self-share 0 --special"
                          : "compress tiny.gguf -o plain.bitstack --levels 1 --calibrate marked.txt --self-share 0") == 0, "%s", err);
    }
    size_t sizes[2];
    unsigned char *plain = load("plain.bitstack", &sizes[0]), *special = load("special.bitstack", &sizes[1]);
    CHECK(nll[0] > 0 && nll[1] > 0 && fabs(nll[0] - nll[1]) > 1e-3, "%g and %g nats a token", nll[0], nll[1]);
    CHECK(sizes[0] == sizes[1] && memcmp(plain, special, sizes[0]) != 0, "calibrated alike");
    free(plain), free(special);

    for (int method = 0; method < 2; method++) {
        char line[400];
        TEST(method ? "iabs: a model becomes a stack that verifies" : "nested: a model becomes a stack that verifies");
        snprintf(line, sizeof line, "compress tiny.gguf -o m.bitstack --method %s --levels 4 %s --calibrate text.txt --threads 2 --compress-embeddings no",
                 methods[method], method ? "--rank 2" : "");
        CHECK(run(line) == 0 && test_only_progress(err) && strstr(out, "m.bitstack: "), "%s%s", out, err);
        if (test_bad_) continue;
        CHECK(run("verify m.bitstack") == 0 && lines(out) == 1 && strstr(out, "valid"), "%s%s", out, err);

        TEST(method ? "iabs: info, plain and JSON" : "nested: info, plain and JSON");
        CHECK(run("info m.bitstack") == 0 && strstr(out, "blk.1.ffn_down.weight") && strstr(out, method ? "  iabs   planes " : "  nested tables "), "%s%s", out, err);
        CHECK(run("info m.bitstack --json") == 0 && lines(out) == 15, "%d lines", lines(out));
        CHECK(parse_line(0) && number("version") == 1 && number("matrices") == 14 && number("blocks") == 56 && has("metadata"), "%.300s", out);
        double base = number("base_bytes"), total = number("total_bytes"), sum = 0;
        CHECK(base > 300 * 64 * 2 && total > base, "base %g, total %g", base, total);
        size_t metadata = has("metadata");
        CHECK(metadata && json.values[metadata].type == LLM_JSON_OBJECT && llm_json_member(&json, metadata, "llama.block_count") &&
              !llm_json_member(&json, metadata, "general.alignment"), "metadata");
        for (int i = 1; i <= 14; i++) {
            CHECK(parse_line(i) && number("rows") >= 32 && number("cols") >= 64 && number("levels") == 4 && number("rank") >= 1 &&
                  has("name"), "line %d", i);
            CHECK(has("method") && llm_string_is(json.values[has("method")].string, methods[method]) &&
                  has("encoding") && llm_string_is(json.values[has("encoding")].string, method ? "planes" : "tables"), "line %d", i);
            size_t bytes = has("level_bytes");
            CHECK(bytes && json.values[bytes].count == 4, "line %d", i);
            if (bytes) sum += json.values[bytes + 4].number;
        }
        CHECK(base + sum == total, "base %g + levels %g is not %g", base, sum, total);

        TEST(method ? "iabs: error falls with every level" : "nested: error falls with every level");
        CHECK(run("error m.bitstack --against tiny.gguf --json") == 0 && lines(out) == 56, "%d lines %s", lines(out), err);
        double before = 1;
        for (int i = 0; i < 56; i++) {
            CHECK(parse_line(i) && number("level") == i % 4 + 1 && has("matrix"), "line %d", i);
            double error = number("rel_err2"), bits = number("bits_per_weight");
            if (i % 4 == 0) before = 1;
            CHECK(error > 0 && error < before && bits > i % 4 + 1 && bits < 6 * (i % 4 + 1), "line %d: %g after %g, %g bits", i, error, before, bits);
            before = error;
        }

        TEST(method ? "iabs: perplexity at budgets, with divergence" : "nested: perplexity at budgets, with divergence");
        snprintf(line, sizeof line, "perplexity m.bitstack --tokens ids.u16 --context 39 --budgets %.0fB,%.0f --against tiny.gguf --json", base + (total - base) / 2, total);
        CHECK(run(line) == 0 && lines(out) == 2, "%s%s", out, err);
        double kl = 1e9;
        for (int i = 0; i < 2; i++) {
            CHECK(parse_line(i) && number("budget_bytes") > 0 && number("resident_bytes") <= number("budget_bytes") && number("nll") > 0 &&
                  number("ppl") > 1 && number("tokens_per_second") > 0 && number("bits_per_weight") > 0, "%s", out);
            CHECK(fabs(log(number("ppl")) - number("nll")) < 1e-6, "ppl is not exp(nll)");
            CHECK(number("kl") < kl && number("kl") >= 0, "kl %g after %g", number("kl"), kl);
            kl = number("kl");
        }
        CHECK(kl < 1, "kl %g at the full size", kl);
        double nlls[2] = {0};
        for (int way = 0; way < 2; way++) { /* few tokens at once: many may go in floats */
            snprintf(line, sizeof line, "perplexity m.bitstack --tokens ids.u16 --context 5 --json%s", way ? " --exact" : "");
            CHECK(run(line) == 0 && parse_line(0), "%s%s", out, err);
            nlls[way] = number("nll");
        }
        CHECK(nlls[0] != nlls[1] && fabs(nlls[0] - nlls[1]) < 0.02, "nll %.9g, %.9g with --exact", nlls[0], nlls[1]);
        CHECK(run("perplexity m.bitstack --text text.txt --context 64") == 0 && lines(out) == 2, "%s%s", out, err);
        CHECK(fails("perplexity m.bitstack --tokens ids.u16 --context 39 --budgets 1KB --json", 1, "m.bitstack"), "budget too small");

        TEST(method ? "iabs: run repeats with a seed" : "nested: run repeats with a seed");
        static char first[4000];
        CHECK(run("run m.bitstack --prompt 'the in' -n 90 --seed 4") == 0 && !err[0] && strncmp(out, "the in", 6) == 0, "%s%s", out, err);
        snprintf(first, sizeof first, "%.3000s", out);
        CHECK(run("run m.bitstack --prompt 'the in' -n 90 --seed 4 --budget 1GB") == 0 && strcmp(out, first) == 0, "%s", out);
        CHECK(run("run m.bitstack --prompt 'the in' -n 90 --seed 5") == 0 && strcmp(out, first) != 0, "%s", out);
        CHECK(run("run m.bitstack --prompt '' -n 3 --temperature 0") == 0, "%s", err);
        snprintf(line, sizeof line, "run m.bitstack --prompt a -n 3 --budget %.0f", base - 1);
        CHECK(fails(line, 1, "m.bitstack"), "budget too small");

        TEST(method ? "iabs: a cut file runs, a damaged one is refused" : "nested: a cut file runs, a damaged one is refused");
        size_t bytes;
        unsigned char *file = load("m.bitstack", &bytes);
        save("cut.bitstack", file, bytes - bytes / 5);
        CHECK(run("verify cut.bitstack") == 0 && strstr(out, "cut off"), "%s%s", out, err);
        CHECK(run("run cut.bitstack --prompt a -n 3") == 0, "%s", err);
        save("cut.bitstack", file, (size_t)base - 1);
        CHECK(fails("verify cut.bitstack", 1, "cut.bitstack"), "cut inside the resident part");
        for (size_t i = 0; i < 64; i++) file[(bytes + (size_t)base) / 2 + i] ^= 16; /* more than any padding */
        save("bad.bitstack", file, bytes);
        CHECK(fails("verify bad.bitstack", 1, "bad.bitstack: offset "), "flipped bit in a block");
        file[200] ^= 1;
        save("bad.bitstack", file, bytes);
        CHECK(fails("info bad.bitstack", 1, "bad.bitstack"), "flipped bit in the tables");
        free(file);
    }

    TEST("the bytes do not depend on the number of threads");
    size_t one, two;
    CHECK(run("compress tiny.gguf -o 1.bitstack --levels 3 --calibrate-self 200 --threads 1 --seed 9") == 0, "%s", err);
    CHECK(run("compress tiny.gguf -o 2.bitstack --levels 3 --calibrate-self 200 --threads 3 --seed 9") == 0, "%s", err);
    unsigned char *a = load("1.bitstack", &one), *b = load("2.bitstack", &two);
    CHECK(a && b && one == two && memcmp(a, b, one) == 0, "the files differ");
    free(a), free(b);

    TEST("embedding and head become matrices, or stay resident");
    CHECK(run("compress tiny.gguf -o y.bitstack --levels 2 --compress-embeddings yes --calibrate text.txt") == 0, "%s", err);
    CHECK(run("info y.bitstack") == 0 && strstr(out, "token_embd.weight") && strstr(out, "output.weight") && strstr(out, "16 matrices, 32 blocks"), "%s", out);
    CHECK(run("perplexity y.bitstack --text text.txt --context 16 --against tiny.gguf") == 0, "%s", err);
    CHECK(run("compress tiny.gguf -o y.bitstack --levels 2 --compress-embeddings no") == 0 && run("info y.bitstack") == 0 &&
          strstr(out, "14 matrices, 28 blocks"), "%s", out);
    CHECK(fails("compress tiny.gguf -o y.bitstack --compress-embeddings maybe", 2, "--compress-embeddings"), "choice");

    TEST("the demo refuses models of two vocabularies");
    char demo[3000];
    snprintf(demo, sizeof demo, "'%.*s/demo' examples/models/books-6m-f16.gguf '%s/y.bitstack' >'%s/out' 2>'%s/err'", (int)(strrchr(command, '/') - command),
             command, folder, folder, folder);
    CHECK(system(demo) == 256, "not refused");
    slurp("err", err, sizeof err);
    CHECK(strstr(err, "y.bitstack: expected a stack of examples/models/books-6m-f16.gguf") && lines(err) == 1, "%s", err);

    TEST("an interrupted compression goes on from whole records and ends in the same bytes");
    /* Files that may not grow beyond some size make the run fail under way; the journal is left. It is cut in the middle
     * of a record, as a kill would. */
    CHECK(run("compress tiny.gguf -o whole.bitstack --levels 3 --calibrate text.txt") == 0, "%s", err);
    before_run = "trap '' XFSZ; ulimit -f 80;";
    CHECK(run("compress tiny.gguf -o r.bitstack --levels 3 --calibrate text.txt --resume") == 1 && exists("r.bitstack.journal"), "%s", err);
    before_run = "";
    size_t kept;
    unsigned char *journal = load("r.bitstack.journal", &kept);
    CHECK(journal && kept > 4096, "%zu bytes of journal", kept);
    for (int part = 1; part < 4 && journal; part++) {
        save("r.bitstack.journal", journal, kept * (size_t)part / 4);
        CHECK(run("compress tiny.gguf -o r.bitstack --levels 3 --calibrate text.txt --resume") == 0, "%s", err);
        CHECK(!exists("r.bitstack.journal"), "the journal is gone when all is done");
        a = load("whole.bitstack", &one), b = load("r.bitstack", &two);
        CHECK(a && b && one == two && memcmp(a, b, one) == 0, "resumed from %d quarters the file differs", part);
        free(a), free(b);
    }
    free(journal);

    TEST("a journal serves one state of the model's file, told to a fraction of a second");
    unsigned char keys[3][8];
    for (int i = 0; i < 3; i++) {
        char line[800];
        snprintf(line, sizeof line, "touch -d '2001-01-01 00:00:00.%d' '%s/tiny.gguf'", i / 2 * 5, folder);
        CHECK(system(line) == 0, "touch");
        before_run = "trap '' XFSZ; ulimit -f 40;";
        CHECK(run("compress tiny.gguf -o r.bitstackj --levels 1 --rank 1 --resume") == 1, "%s", err);
        before_run = "";
        journal = load("r.bitstackj.journal", &kept);
        CHECK(journal && kept > 8, "no journal");
        if (journal) memcpy(keys[i], journal, 8);
        free(journal);
    }
    CHECK(memcmp(keys[0], keys[1], 8) == 0 && memcmp(keys[0], keys[2], 8) != 0, "keys of three runs");

    TEST("what is read is never written over");
    char place[600];
    static const char *const places[] = {"tiny.gguf", "z", "z.part", "z.spool", "z.journal", "z.unordered", "z.unordered.spool", "folder/tiny.gguf"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char line[200], words[100];
        const char *to = i == 0 ? "tiny.gguf" : i == 7 ? "folder/tiny.gguf" : "z";
        snprintf(place, sizeof place, "%s/folder", folder);
        mkdir(place, 0777);
        if (i) save(places[i], g.data, g.bytes);
        snprintf(words, sizeof words, "%s: expected another -o", places[i]);
        snprintf(line, sizeof line, "compress %s -o %s --order paper --resume --levels 1", i == 7 ? "folder" : places[i], to);
        CHECK(fails(line, 1, words), "model %s", places[i]);
        snprintf(line, sizeof line, "compress-matrix %s --rows 1 --cols %zu -o %s", places[i], g.bytes / 4, to);
        CHECK(fails(line, 1, words), "matrix %s", places[i]);
        a = load(places[i], &one);
        CHECK(a && one == g.bytes && memcmp(a, g.data, one) == 0, "%s is lost", places[i]);
        free(a);
    }
    CHECK(fails("compress tiny.gguf -o text.txt --calibrate text.txt", 1, "text.txt: expected another -o"), "text");
    CHECK(fails("compress-matrix text.txt --rows 1 --cols 1 --activations tiny.gguf -o tiny.gguf", 1, "tiny.gguf: expected another -o"), "activations");
    CHECK(fails("import folder -o folder/tiny.gguf", 1, "folder/tiny.gguf: expected another -o"), "checkpoint");

    TEST("every order holds every block once, levels of a matrix ascending");
    static const char *const orders[] = {"predicted", "loss", "paper"};
    for (int i = 0; i < 3; i++) {
        char line[200];
        snprintf(line, sizeof line, "compress tiny.gguf -o o.bitstack --method iabs --rank 1 --levels 3 --compress-embeddings no --order %s", orders[i]);
        CHECK(run(line) == 0 && test_only_progress(err), "%s", err);
        CHECK(run("verify o.bitstack") == 0 && strstr(out, "42 blocks"), "%s%s", out, err);
        CHECK(!exists("o.bitstack.unordered"), "something was left behind");
    }

    TEST("compress-matrix: a matrix becomes a stack");
    static float w[100 * 130], x[50 * 130];
    for (int i = 0; i < 100 * 130; i++) w[i] = test_normal(&seed);
    for (int i = 0; i < 50 * 130; i++) x[i] = test_normal(&seed);
    save("w.f32", w, sizeof w), save("x.f32", x, sizeof x);
    for (int method = 0; method < 2; method++) {
        char line[300];
        snprintf(line, sizeof line, "compress-matrix w.f32 --rows 100 --cols 130 --activations x.f32 --method %s%s --levels 3 -o w.bitstack", methods[method], method ? " --rank 2" : "");
        CHECK(run(line) == 0 && !err[0] && !out[0], "%s%s", out, err);
        CHECK(run("error w.bitstack --against w.f32 --json") == 0 && lines(out) == 3, "%s%s", out, err);
        CHECK(parse_line(2) && number("rel_err2") < (method ? 0.08 : 0.2) && llm_string_is(json.values[has("matrix")].string, "w"), "%s", out);
    }
    CHECK(fails("compress-matrix w.f32 --rows 100 --cols 131 -o x.bitstack", 1, "w.f32: offset 52000: expected 52400 bytes"), "size");
    CHECK(fails("compress-matrix w.f32 --rows 100 --cols 130 --activations w.f32 --cols 129 -o x.bitstack", 1, "w.f32"), "size of activations");
    w[77] = (float)NAN;
    save("nan.f32", w, sizeof w);
    CHECK(fails("compress-matrix nan.f32 --rows 100 --cols 130 -o x.bitstack", 1, "nan.f32: a value is not finite"), "not a number");
    CHECK(fails("error w.bitstack --against ids.u16", 1, "ids.u16: offset 400: expected 52000 bytes"), "other file");
    /* a model without any file of tensors, with and without a tensor that is made up for it */
    static const char *const scalings[2] = {"", ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                                            "\"original_max_position_embeddings\":8192}"};
    snprintf(place, sizeof place, "%s/empty", folder);
    mkdir(place, 0777);
    save("empty/model.safetensors.index.json", "{\"weight_map\":{}}", 17);
    for (int i = 0; i < 2; i++) {
        char config[500];
        int length = snprintf(config, sizeof config, "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":64,\"num_hidden_layers\":1,"
                              "\"num_attention_heads\":1,\"vocab_size\":3,\"tie_word_embeddings\":true%s}", scalings[i]);
        save("empty/config.json", config, (size_t)length);
        CHECK(fails("error w.bitstack --against empty", 1, "empty: expected a tensor 'w' of 100 x 130"), "a model of no tensors");
    }

    TEST("names and values of a file move no cursor and begin no line; in JSON they are UTF-8");
    static const char *const name = "w\x1b[31m\x7e", *const value = "\x1b]0;owned\x07\n  fake = 1\x7f\xc3\xa9\xc2\x9b" "2J\xc3";
    bitstack_writer *writer;
    bitstack_shape shape = build_shape(8, 8, 1, 1, 0);
    bitstack_coded coded = build_coded(&shape, 1);
    snprintf(place, sizeof place, "%s/esc.bitstack", folder);
    bitstack_writer_open(&writer, place, NULL, NULL);
    bitstack_writer_meta_strings(writer, "k\ney", &value, NULL, 1);
    bitstack_writer_matrix(writer, name, &coded, 1);
    build_free(&coded);
    CHECK(bitstack_writer_finish(writer, NULL, 0, NULL) == BITSTACK_OK, "no stack");
    size_t esc_bytes = 0; /* no writer makes a name that is not UTF-8: this one ends in 0xff now */
    unsigned char *esc = (unsigned char *)test_read_file(place, &esc_bytes);
    for (size_t i = 0; esc && i + 6 < esc_bytes && i < 1000; i++)
        if (!memcmp(esc + i, name, 7)) esc[i + 6] = 0xff;
    test_store64(esc + 64, bitstack_checksum(esc + 128, (size_t)test_load64(esc + 16)));
    test_store64(esc + 120, bitstack_checksum(esc, 120));
    save("esc.bitstack", (const char *)esc, esc_bytes);
    free(esc);
    CHECK(run("info esc.bitstack") == 0 && strstr(out, "  k?ey = ?]0;owned??  fake = 1?\xc3\xa9??2J") && strstr(out, "\nw?[31m\xff ") && !strchr(out, 27) && !strchr(out, 127),
          "%s", out);
    CHECK(run("info esc.bitstack --json") == 0 && parse_line(0) && llm_string_is(json.values[has("metadata") + 2].string, "\x1b]0;owned\x07\n  fake = 1\x7f\xc3\xa9\xc2\x9b" "2J\xef\xbf\xbd"),
          "%s", out);
    CHECK(parse_line(1) && llm_string_is(json.values[has("name")].string, "w\x1b[31m\xef\xbf\xbd"), "%s", out);
    save("esc.f32", w, 256);
    CHECK(run("error esc.bitstack --against esc.f32") == 0 && strstr(out, "w?[31m\xff ") == out, "%s%s", out, err);
    CHECK(fails("error esc.bitstack --against tiny.gguf", 1, "expected a tensor 'w?[31m\xff' of 8 x 8"), "message");

    llm_json_free(&json);
    free(g.data);
    return TEST_DONE();
}
