/* How much memory and time compressing a large model takes: writes a GGUF file with random F16 weights in the shape of
 * Llama 3 8B (4096 wide, feed-forward 14336, 32 heads on 8, 128256 tokens), or of Llama 3.2 1B (2048 wide, feed-forward 8192,
 * tied head), with as many layers as named (0: as many as that model has), runs
 *     build/bitstack compress FOLDER/memory.gguf -o FOLDER/memory.bitstack OPTIONS
 * and prints the peak of its resident memory and its time. Memory does not depend on the number of layers. */
#include "../tests/make_gguf.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct shape {
    const char *name;
    uint64_t width, kv, hidden;
    int layers, tied;
} shape;
static const shape shapes[] = {{"8b", 4096, 1024, 14336, 32, 0}, {"1b", 2048, 512, 8192, 16, 1}};

enum { WIDEST = 4096, VOCABULARY = 128256, BLOCK = 1 << 20 };

static uint16_t block[BLOCK + WIDEST];

static void write_tensor(FILE *file, uint64_t rows, uint64_t cols, uint64_t *seed) {
    for (uint64_t i = 0; i < rows * cols; ) {
        uint64_t some = rows * cols - i < WIDEST ? rows * cols - i : WIDEST;
        fwrite(block + (make_random_(seed), *seed >> 44) % BLOCK, 2, some, file);
        i += some;
    }
}

int main(int argc, char **argv) {
    static const char *const names[7] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    const shape *of = NULL;
    for (size_t i = 0; argc > 3 && i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(argv[2], shapes[i].name) == 0) of = &shapes[i];
    if (!of || atoi(argv[3]) < 0 || argc > 60) return fputs("usage: memory FOLDER 8b|1b LAYERS [options of bitstack compress]\n", stderr), 2;
    const uint64_t rows[7] = {of->width, of->kv, of->kv, of->width, of->hidden, of->hidden, of->width};
    const uint64_t cols[7] = {of->width, of->width, of->width, of->width, of->width, of->width, of->hidden};
    const uint64_t vocabulary[2] = {of->width, VOCABULARY}, norm[1] = {of->width};
    const int layers = atoi(argv[3]) ? atoi(argv[3]) : of->layers;
    uint64_t layer_weights = 0;
    for (int i = 0; i < 7; i++) layer_weights += rows[i] * cols[i];
    gguf_maker g;
    char path[600], out[600], name[64];
    char *command[64] = {(char *)(uintptr_t)"build/bitstack", (char *)(uintptr_t)"compress", path, (char *)(uintptr_t)"-o", out};
    uint64_t seed = 1;
    float ones[WIDEST];
    snprintf(path, sizeof path, "%s/memory.gguf", argv[1]);
    snprintf(out, sizeof out, "%s/memory.bitstack", argv[1]);
    for (int i = 4; i < argc; i++) command[1 + i] = argv[i];
    for (size_t i = 0; i < BLOCK + WIDEST; i++) block[i] = make_half_(0.02f * make_random_(&seed));
    for (int i = 0; i < WIDEST; i++) ones[i] = 1;

    make_start(&g, 3);
    make_meta_string(&g, "general.architecture", "llama");
    make_meta_u32(&g, "llama.context_length", 8192);
    make_meta_u32(&g, "llama.vocab_size", VOCABULARY);
    make_meta_u32(&g, "llama.embedding_length", (uint32_t)of->width);
    make_meta_u32(&g, "llama.block_count", (uint32_t)layers);
    make_meta_u32(&g, "llama.feed_forward_length", (uint32_t)of->hidden);
    make_meta_u32(&g, "llama.attention.head_count", 32);
    make_meta_u32(&g, "llama.attention.head_count_kv", 8);
    make_meta_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    make_meta_f32(&g, "llama.rope.freq_base", 500000);
    make_tensor(&g, "token_embd.weight", 2, vocabulary, 1, of->width * VOCABULARY * 2);
    if (!of->tied) make_tensor(&g, "output.weight", 2, vocabulary, 1, of->width * VOCABULARY * 2);
    make_tensor(&g, "output_norm.weight", 1, norm, 0, of->width * 4);
    for (int l = 0; l < layers; l++) {
        for (int i = 0; i < 7; i++) {
            const uint64_t dimensions[2] = {cols[i], rows[i]};
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, names[i]);
            make_tensor(&g, name, 2, dimensions, 1, rows[i] * cols[i] * 2);
        }
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, i ? "ffn_norm" : "attn_norm");
            make_tensor(&g, name, 1, norm, 0, of->width * 4);
        }
    }
    make_finish(&g);
    FILE *file = fopen(path, "wb"); /* all sizes are multiples of 32: no padding between tensors */
    if (!file) return fprintf(stderr, "cannot write %s\n", path), 1;
    fwrite(g.data, 1, g.bytes, file);
    for (int i = 0; i < 2 - of->tied; i++) write_tensor(file, VOCABULARY, of->width, &seed);
    fwrite(ones, sizeof *ones, of->width, file);
    for (int l = 0; l < layers; l++) {
        for (int i = 0; i < 7; i++) write_tensor(file, rows[i], cols[i], &seed);
        for (int i = 0; i < 2; i++) fwrite(ones, sizeof *ones, of->width, file);
    }
    double size = (double)ftell(file), weights = (double)layer_weights * layers;
    if (fclose(file) != 0) return fprintf(stderr, "cannot write %s\n", path), 1;

    struct timespec start, end;
    struct rusage used;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = fork();
    if (child == 0) execv(command[0], command), _exit(127);
    wait4(child, &status, 0, &used);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec), cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    printf("model %.2f GB, %d layers of %.3f billion weights; exit status %d\n", size / 1e9, layers, weights / layers / 1e9, WEXITSTATUS(status));
    printf("peak resident memory %.2f GB; %.0f s, %.0f s of processors; a billion weights: %.0f s, %.0f s of processors\n",
           (double)used.ru_maxrss * 1024 / 1e9, seconds, cpu, seconds / weights * 1e9, cpu / weights * 1e9);
    free(g.data);
    return status != 0;
}
