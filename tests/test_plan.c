/* bitstack plan tells the sizes that compress then makes, from headers alone, also of a model larger than memory. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/json.h"
#include "../examples/bitstack/predict.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/resource.h>

static char folder[512], command[600], out[1 << 16];
static llm_json json;

/* Runs the command in the tests' folder; its exit status, with all that it printed in out. */
static int run(const char *arguments) {
    char line[2000];
    snprintf(line, sizeof line, "cd '%s' && '%s' %s 2>&1 </dev/null", folder, command, arguments);
    FILE *pipe = popen(line, "r");
    size_t bytes = pipe ? fread(out, 1, sizeof out - 1, pipe) : 0;
    int status = pipe ? pclose(pipe) : -1;
    out[bytes] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A member of the JSON object in line `number` of out. */
static double value(int number, const char *key) {
    const char *at = out;
    llm_error error;
    for (; number > 0 && at; number--) at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    if (!at || llm_json_parse(&json, at, strcspn(at, "\n"), "line", &error) != 0) return -1;
    size_t member = llm_json_member(&json, 0, key);
    double result = member ? json.values[member].number : -1;
    llm_json_free(&json);
    return result;
}

static void save(const char *name, const gguf_maker *g, uint64_t bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(g->data, 1, g->bytes, file) != g->bytes || fclose(file) != 0) printf("      cannot write %s\n", path);
    if (bytes && truncate(path, (off_t)bytes) != 0) printf("      cannot make %s that long\n", path);
}

/* The header of Llama 3 8B; the weights are a hole in the file. */
static uint64_t eight_billion(gguf_maker *g) {
    static const char *const names[7] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    static const uint64_t shapes[7][2] = {{4096, 4096}, {4096, 1024}, {4096, 1024}, {4096, 4096}, {4096, 14336}, {4096, 14336}, {14336, 4096}};
    const uint64_t vocabulary[2] = {4096, 128256}, norm[1] = {4096};
    char name[64];
    make_start(g, 3);
    make_meta_string(g, "general.architecture", "llama");
    make_meta_u32(g, "llama.context_length", 8192), make_meta_u32(g, "llama.vocab_size", 128256);
    make_meta_u32(g, "llama.embedding_length", 4096), make_meta_u32(g, "llama.block_count", 32);
    make_meta_u32(g, "llama.feed_forward_length", 14336), make_meta_u32(g, "llama.attention.head_count", 32);
    make_meta_u32(g, "llama.attention.head_count_kv", 8);
    make_tensor(g, "token_embd.weight", 2, vocabulary, 1, 128256ull * 8192), make_tensor(g, "output.weight", 2, vocabulary, 1, 128256ull * 8192);
    make_tensor(g, "output_norm.weight", 1, norm, 0, 4096 * 4);
    for (int t = 0; t < 32 * 9; t++) {
        int part = t % 9;
        snprintf(name, sizeof name, "blk.%d.%s.weight", t / 9, part < 7 ? names[part] : part == 7 ? "attn_norm" : "ffn_norm");
        if (part < 7) make_tensor(g, name, 2, shapes[part], 1, shapes[part][0] * shapes[part][1] * 2);
        else make_tensor(g, name, 1, norm, 0, 4096 * 4);
    }
    make_finish(g);
    return g->bytes + g->next;
}

int main(int argc, char **argv) {
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    char here[400], cwd[200];
    if (!getcwd(cwd, sizeof cwd)) return 1;
    snprintf(here, sizeof here, "%.*s", slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
    snprintf(folder, sizeof folder, "%s%s%.250s/plan", here[0] == '/' ? "" : cwd, here[0] == '/' ? "" : "/", here);
    snprintf(command, sizeof command, "%s/../../bitstack", folder);
    mkdir(folder, 0777);
    gguf_maker g;

    TEST("the plan's sizes are those of the stack, within 2 %");
    make_tiny_llama(&g, 9);
    save("tiny.gguf", &g, 0);
    free(g.data);
    for (int way = 0; way < 4; way++) {
        char line[300];
        const char *method = way % 2 ? "--method iabs --rank 4 --levels 6" : "--rank 1";
        int levels = way % 2 ? 6 : 8;
        snprintf(line, sizeof line, "plan tiny.gguf --json %s", method);
        CHECK(run(line) == 0, "%s", out);
        double plan = value(levels - 1, way < 2 ? "model_bytes" : "model_bytes_embeddings_compressed"), bits = value(levels - 1, "bits_per_weight");
        snprintf(line, sizeof line, "compress tiny.gguf -o tiny.bitstack %s --compress-embeddings %s", method, way < 2 ? "no" : "yes");
        CHECK(run(line) == 0, "%s", out);
        CHECK(run("info tiny.bitstack --json") == 0, "%s", out);
        double real = value(0, "total_bytes");
        CHECK(plan > 0.98 * real && plan < 1.02 * real && bits > levels, "way %d: planned %.0f bytes, %.0f came out", way, plan, real);
    }

    TEST("a model of eight billion weights is planned at once");
    struct rusage start, end; /* processor time: others may be at work here */
    uint64_t bytes = eight_billion(&g);
    save("large.gguf", &g, bytes);
    free(g.data);
    getrusage(RUSAGE_CHILDREN, &start);
    CHECK(run("plan large.gguf --ram 6GB --context 4096 --json") == 0, "%s", out);
    getrusage(RUSAGE_CHILDREN, &end);
    double seconds = (double)(end.ru_utime.tv_sec - start.ru_utime.tv_sec) + 1e-6 * (double)(end.ru_utime.tv_usec - start.ru_utime.tv_usec), layers = 6979321856.0, vocabulary = 2 * 525336576.0;
    CHECK(seconds < 1, "%.2f s", seconds);
    for (int l = 1; l <= 8; l++) { /* planes, a byte of scale for 64 weights, and column factors of less than 1 % */
        double want = layers / 8 * l + layers / 64 + 2 * vocabulary, got = value(l - 1, "model_bytes"), context = value(l - 1, "context_bytes");
        CHECK(got > want && got < 1.01 * want + 2e6, "level %d: %.0f bytes, not %.0f", l, got, want);
        CHECK(context > 4096.0 * 32 * 2 * 1024 * 2 && context < 1.2 * 4096.0 * 32 * 2 * 1024 * 2, "%.0f bytes for the context", context); /* halves */
        CHECK(value(l - 1, "fits") == (got + context <= 6e9) && value(l - 1, "ram_bytes") == 6e9, "level %d: fits is %g", l, value(l - 1, "fits"));
        CHECK(l == 1 || value(l - 1, "predicted_kl") < value(l - 2, "predicted_kl"), "quality does not grow");
    }
    double writing = value(8, "writing_seconds"), learning = value(8, "learning_seconds"), encoding = value(8, "encoding_seconds"), tuning = value(8, "tuning_seconds"), all = value(8, "compress_seconds");
    CHECK(writing > 0 && learning > writing && encoding > 0 && tuning > 0 && fabs(writing + learning + encoding + tuning - all) < 1e-3 * all, "seconds: %g, %g, %g, all %g", writing, learning, encoding, all);
    CHECK(all > 60 && all < 1e7, "%g s for a model of eight billion weights", all);
    CHECK(run("plan large.gguf --ram 6GB") == 0 && strstr(out, "A budget of "), "%s", out);
    CHECK(run("plan large.gguf --ram 1GB") == 0 && strstr(out, "are needed"), "%s", out);
    CHECK(run("plan large.gguf") == 0 && strstr(out, "to plan for: "), "%s", out);

    TEST("the loss that is predicted is what was measured on a real model, within a factor of 1.6");
    FILE *file = fopen("bench/results/real.csv", "r");
    char line[400];
    int compared = 0;
    while (file && fgets(line, sizeof line, file)) {
        double bits, kl;
        char scope[16];
        if (!strstr(line, ",BitStack,") || !strstr(line, ",speeches,") || sscanf(line, "quality,%15[a-z],BitStack,%*[^,],1,%lf,%*u,%*u,speeches,%*u,%*f,%lf", scope, &bits, &kl) != 3) continue;
        double said = quality_predicted(strcmp(scope, "file") == 0 ? QUALITY_ALL : QUALITY_LAYERS, bits).kl;
        CHECK(said < 1.6 * kl && kl < 1.6 * said, "%s at %.2f bits: %.4f predicted, %.4f measured", scope, bits, said, kl);
        compared++;
    }
    if (file) fclose(file);
    CHECK(compared > 20, "%d points", compared);
    CHECK(quality_predicted(QUALITY_ALL, 0.1).kl <= 10 && quality_predicted(QUALITY_LAYERS, 20).kl > 0, "beyond the tables");

    TEST("the choice is told as JSON, of a model and of a stack: what fits the memory given, and its speed");
    CHECK(run("plan large.gguf --ram 6GB --context 4096 --json") == 0, "%s", out);
    double given = value(9, "budget_bytes"), uses = value(9, "weights_bytes"), bits = value(9, "bits_per_weight");
    CHECK(value(9, "margin_bytes") == 0 && fabs(given + value(9, "context_bytes") - 6e9) < 1, "%s", out);
    CHECK(uses <= given + 1 && uses > 0.999 * given && bits > 3 && bits < 8, "%.0f bytes of %.0f, %g bits", uses, given, bits);
    CHECK(value(9, "predicted_kl") < value(2, "predicted_kl") && value(9, "predicted_tokens_per_second") > 0, "%s", out);
    CHECK(value(0, "predicted_tokens_per_second") > value(7, "predicted_tokens_per_second"), "a smaller model is no faster: %s", out);
    CHECK(run("plan tiny.bitstack --ram 1GB --json") == 0 && value(0, "weights_bytes") == value(0, "budget_bytes") && value(0, "predicted_kl") > 0, "%s", out);
    CHECK(run("plan tiny.bitstack --ram 1GB") == 0 && strstr(out, "run and chat would load "), "%s", out);
    CHECK(run("plan tiny.bitstack --ram 1KB") == 0 && strstr(out, "Not even one block fits"), "%s", out);
    CHECK(run("plan tiny.bitstack --ram 1KB --json") == 0 && value(0, "weights_bytes") == 0, "%s", out);
    CHECK(run("plan none.gguf") == 1 && run("plan large.gguf --context 8193") == 1, "%s", out);
    snprintf(command, sizeof command, "%s/large.gguf", folder);
    remove(command);
    return TEST_DONE();
}
