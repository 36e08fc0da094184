/* Models of random weights in the shapes of real ones, to measure speed on beside others: writes FOLDER/NAME.gguf in F16
 * (without a tokenizer: llama-quantize and llama-bench take it) and FOLDER/NAME.bitstack, tables of LEVELS planes.
 *
 *     build/bench/shapes FOLDER 8b|1b LAYERS LEVELS
 *
 * LAYERS 0: as many as that model has. A matrix is in memory at a time. */
#include "shapes.h"
#include "../tests/random_stack.h"

static int write_linear(bitstack_writer *w, const char *name, uint64_t rows, uint64_t cols, uint32_t levels, uint64_t *seed) {
    bitstack_coded coded = random_tables((uint32_t)rows, (uint32_t)cols, levels, seed);
    int bad = bitstack_writer_matrix(w, name, &coded, 1) != BITSTACK_OK;
    build_free(&coded);
    return bad;
}

static int write_stack(const char *path, const shape *of, int layers, uint32_t levels) {
    static float ones[WIDEST];
    const char *architecture = "llama";
    char name[64];
    uint64_t seed = 7, width[1] = {of->width}, rows, cols;
    bitstack_writer *w;
    bitstack_error error;
    if (bitstack_writer_open(&w, path, NULL, &error) != BITSTACK_OK) return fprintf(stderr, "%s\n", error.message), 1;
    for (int i = 0; i < WIDEST; i++) ones[i] = 1;
    int bad = bitstack_writer_meta_strings(w, "general.architecture", &architecture, NULL, 1) || bitstack_writer_meta_u32(w, "llama.context_length", 8192) ||
              bitstack_writer_meta_u32(w, "llama.vocab_size", VOCABULARY) || bitstack_writer_meta_u32(w, "llama.embedding_length", (uint32_t)of->width) ||
              bitstack_writer_meta_u32(w, "llama.block_count", (uint32_t)layers) || bitstack_writer_meta_u32(w, "llama.feed_forward_length", (uint32_t)of->hidden) ||
              bitstack_writer_meta_u32(w, "llama.attention.head_count", 32) || bitstack_writer_meta_u32(w, "llama.attention.head_count_kv", 8) ||
              bitstack_writer_meta_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f) || bitstack_writer_meta_f32(w, "llama.rope.freq_base", 500000) ||
              bitstack_writer_tensor(w, "output_norm.weight", BITSTACK_F32, 1, width, ones) ||
              write_linear(w, "token_embd.weight", VOCABULARY, of->width, levels, &seed) ||
              (!of->tied && write_linear(w, "output.weight", VOCABULARY, of->width, levels, &seed));
    for (int l = 0; l < layers && !bad; l++) {
        for (int i = 0; i < 2 && !bad; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, i ? "ffn_norm" : "attn_norm");
            bad = bitstack_writer_tensor(w, name, BITSTACK_F32, 1, width, ones) != BITSTACK_OK;
        }
        for (int i = 0; i < 7 && !bad; i++) {
            shape_linear(of, i, &rows, &cols);
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, linear_names[i]);
            bad = write_linear(w, name, rows, cols, levels, &seed);
        }
    }
    if (bad) return bitstack_writer_abort(w), fprintf(stderr, "cannot write %s\n", path), 1;
    return bitstack_writer_finish(w, NULL, 0, &error) == BITSTACK_OK ? 0 : (fprintf(stderr, "%s\n", error.message), 1);
}

int main(int argc, char **argv) {
    const shape *of = argc == 5 ? shape_named(argv[2]) : NULL;
    if (!of || atoi(argv[3]) < 0 || atoi(argv[4]) < 1 || atoi(argv[4]) > 8) return fputs("usage: shapes FOLDER 8b|1b LAYERS LEVELS\n", stderr), 2;
    const int layers = atoi(argv[3]) ? atoi(argv[3]) : of->layers;
    char path[600];
    snprintf(path, sizeof path, "%s/%s.gguf", argv[1], of->name);
    if (!shape_write(path, of, layers, "none")) return fprintf(stderr, "cannot write %s\n", path), 1;
    snprintf(path, sizeof path, "%s/%s.bitstack", argv[1], of->name);
    return write_stack(path, of, layers, (uint32_t)atoi(argv[4]));
}
