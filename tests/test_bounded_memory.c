/* A model that is larger than the memory allowed is read and compressed all the same: what was used is given back. */
#include "test.h"
#include "make_gguf.h"
#include "../examples/llm/model.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char *const names[9] = {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"};

/* Weights are a hole in the file: nothing but zeros, which take as much memory as others. */
static uint64_t make(const char *path, uint64_t width, uint64_t hidden, uint64_t layers, uint64_t words) {
    gguf_maker g;
    char name[64];
    const uint64_t embedding[2] = {width, words};
    make_start(&g, 3);
    make_meta_string(&g, "general.architecture", "llama");
    make_meta_u32(&g, "llama.context_length", 64), make_meta_u32(&g, "llama.vocab_size", (uint32_t)words);
    make_meta_u32(&g, "llama.embedding_length", (uint32_t)width), make_meta_u32(&g, "llama.block_count", (uint32_t)layers);
    make_meta_u32(&g, "llama.feed_forward_length", (uint32_t)hidden), make_meta_u32(&g, "llama.attention.head_count", 8);
    make_tensor(&g, "token_embd.weight", 2, embedding, 1, width * words * 2);
    make_tensor(&g, "output_norm.weight", 1, embedding, 0, width * 4);
    for (uint64_t t = 0; t < 9 * layers; t++) {
        uint64_t part = t % 9, shape[2] = {part == 8 ? hidden : width, part == 6 || part == 7 ? hidden : width};
        int norm = part == 0 || part == 5;
        snprintf(name, sizeof name, "blk.%d.%s.weight", (int)(t / 9), names[part]);
        make_tensor(&g, name, norm ? 1 : 2, shape, norm ? 0 : 1, norm ? width * 4 : shape[0] * shape[1] * 2);
    }
    make_finish(&g);
    FILE *file = fopen(path, "wb");
    int bad = !file || fwrite(g.data, 1, g.bytes, file) != g.bytes;
    if (file) bad |= fclose(file) != 0;
    uint64_t bytes = g.bytes + g.next;
    free(g.data);
    return bad || truncate(path, (off_t)bytes) != 0 ? 0 : bytes;
}

/* Peak of a child's resident memory, in bytes; 0 if it failed. */
static double peak(void (*work)(const char *), const char *argument) {
    struct rusage used;
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) work(argument), _exit(0);
    if (child < 0 || wait4(child, &status, 0, &used) < 0 || status != 0) return 0;
    return (double)used.ru_maxrss * 1024;
}

static void forward(const char *path) {
    llm_model m;
    llm_model_options options;
    llm_state s;
    llm_error error;
    static float logits[4096];
    const uint32_t ids[3] = {1, 2, 3};
    memset(&options, 0, sizeof options);
    options.unpack_bytes = 1, options.forget = 1;
    if (llm_model_open(&m, path, &options, &error) != 0 || llm_state_init(&s, &m, 8, 4) != 0) _exit(1);
    llm_forward(&m, &s, ids, 3);
    llm_logits(&m, &s, 2, 1, logits);
    _exit(logits[0] != 0);
}

static char program[600];
static const char *steps = "0"; /* of tuning */
static void compress(const char *path) {
    char out[700];
    snprintf(out, sizeof out, "%s.bitstack", path);
    execl(program, program, "compress", path, "-o", out, "--levels", "1", "--rank", "1", "--probe", "4", "--compress-embeddings", "no", "--memory", "100MB", "--threads", "1",
          "--calibrate-self", "2048", "--tune", steps, (char *)NULL);
    _exit(127);
}

int main(int argc, char **argv) {
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    int directory = slash ? (int)(slash - argv[0]) : 1;
    char path[500];
    snprintf(program, sizeof program, "%.*s/../bitstack", directory, slash ? argv[0] : ".");
    snprintf(path, sizeof path, "%.*s/bounded.gguf", directory, slash ? argv[0] : ".");

    TEST("running a model of 200 MB takes a fifth of that");
    uint64_t bytes = make(path, 1024, 4096, 6, 4096);
    double used = peak(forward, path);
    if (!bytes) SKIP("no file of that size can be made");
    else CHECK(bytes > 195000000 && used > 0 && used < 40e6, "%.0f MB resident for a file of %.0f MB", used / 1e6, (double)bytes / 1e6);

    /* bench/memory.c: at full size. That matrix is 10 MB in the file, whose pages are there while it is read, and unpacked 4096
     * rows, 4 MB, at a time, twice on the way back; logits take no more than the rest of that way; 2048 tokens of text are held
     * at the layer's input, 2 MB; the encoder works on 768 x 768 moments, 24 bytes each: 14 MB. A layer adds its losses, one
     * 0.1 MB block a matrix that waits to be written, and the weights of its tokens; keys and values of the text that it writes,
     * up to an eighth of --memory for all layers, are the system's again before that. */
    TEST("compressing takes little more than the room of the largest matrix");
    double few = 0, many = 0;
    for (uint64_t layers = 1; layers <= 3; layers += 2) {
        bytes = make(path, 256, 768, layers, 20000); /* most of it in the embedding */
        used = peak(compress, path);
        if (layers == 1) few = used;
        else many = used;
    }
    if (!bytes) SKIP("no file of that size can be made");
    else CHECK(few > 0 && many > 0 && many < 45e6 && many < few + 4e6, "%.1f MB resident with one layer, %.1f with three", few / 1e6, many / 1e6);

    /* Tuning goes forward and back with 1024 tokens at once, through both models; its head is unpacked, 20 MB each, as are
     * logits of both. */
    TEST("and with tuning as much in any layers, as it holds one at a time");
    steps = "2";
    for (uint64_t layers = 1; layers <= 3; layers += 2) {
        bytes = make(path, 256, 768, layers, 20000);
        used = peak(compress, path);
        if (layers == 1) few = used;
        else many = used;
    }
    if (!bytes) SKIP("no file of that size can be made");
    else CHECK(few > 0 && many > 0 && many < 140e6 && many < few + 8e6, "%.1f MB resident with one layer, %.1f with three", few / 1e6, many / 1e6);
    remove(path);
    strcat(path, ".bitstack");
    remove(path);
    return TEST_DONE();
}
