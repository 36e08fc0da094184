/* seeds.c - writes the first corpora, from the project's root:  seeds DIR  makes DIR/reader, DIR/compressor and so on.
 * The last bit of the first byte chooses nothing in the targets that read files: replay.c sets it. */
#include "../golden/golden.h"
#include "../make_gguf.h"
#include <sys/stat.h>

static char root[256];
static void save(const char *target, const char *name, const unsigned char *head, size_t head_bytes, const void *data, size_t bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s/%s", root, target, name);
    FILE *file = fopen(path, "wb");
    if (!file) exit(1);
    fwrite(head, 1, head_bytes, file);
    if (bytes) fwrite(data, 1, bytes, file);
    fclose(file);
}

/* A llama of one layer: width 32, four heads, two for keys and values, 48 tokens. */
static uint64_t packed(uint32_t type, uint64_t n) { return type == 0 ? 4 * n : type == 8 ? n / 32 * 34 : type == 2 ? n / 32 * 18 : 2 * n; }
static void tiny_model(gguf_maker *g, uint32_t type) {
    static const struct { const char *name; uint64_t shape[2]; } tensors[] = {
        {"token_embd.weight", {32, 48}}, {"output_norm.weight", {32, 1}}, {"blk.0.attn_norm.weight", {32, 1}}, {"blk.0.ffn_norm.weight", {32, 1}},
        {"blk.0.attn_q.weight", {32, 32}}, {"blk.0.attn_k.weight", {32, 16}}, {"blk.0.attn_v.weight", {32, 16}}, {"blk.0.attn_output.weight", {32, 32}},
        {"blk.0.ffn_gate.weight", {32, 32}}, {"blk.0.ffn_up.weight", {32, 32}}, {"blk.0.ffn_down.weight", {32, 32}}};
    static const char *const pieces[14] = {"\xE2\x96\x81", "a", "the", "sea", "aa", "aaaa", "e", "th", "se", "\xE2\x96\x81t", "h", "<s>", "</s>", "<unk>"};
    const size_t count = sizeof tensors / sizeof tensors[0];
    uint64_t seed = 4;
    char text[16];
    make_start(g, 3);
    make_meta_string(g, "general.architecture", "llama");
    make_meta_u32(g, "llama.embedding_length", 32), make_meta_u32(g, "llama.context_length", 16), make_meta_u32(g, "llama.block_count", 1);
    make_meta_u32(g, "llama.feed_forward_length", 32), make_meta_u32(g, "llama.attention.head_count", 4), make_meta_u32(g, "llama.attention.head_count_kv", 2);
    make_meta_u32(g, "llama.rope.dimension_count", 8), make_meta_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f), make_meta_f32(g, "llama.rope.freq_base", 10000);
    make_meta_string(g, "tokenizer.ggml.model", "llama");
    make_meta_array(g, "tokenizer.ggml.tokens", 8, 48);
    for (int i = 0; i < 48; i++) {
        if (i < 34) snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
        else snprintf(text, sizeof text, "%s", pieces[i - 34]);
        make_string(g, text);
    }
    make_meta_array(g, "tokenizer.ggml.scores", 6, 48);
    for (int i = 0; i < 48; i++) {
        float score = (float)(-i);
        make_raw(g, &score, 4);
    }
    make_meta_array(g, "tokenizer.ggml.token_type", 5, 48);
    for (int i = 0; i < 48; i++) make_u32(g, i < 34 ? 6 : i < 45 ? 1 : 3);
    make_meta_u32(g, "tokenizer.ggml.bos_token_id", 45), make_meta_u32(g, "tokenizer.ggml.eos_token_id", 46), make_meta_u32(g, "tokenizer.ggml.unknown_token_id", 47);
    for (size_t i = 0; i < count; i++) {
        const uint64_t n = tensors[i].shape[0] * tensors[i].shape[1];
        const uint32_t t = tensors[i].shape[1] == 1 ? 0 : type;
        make_tensor(g, tensors[i].name, tensors[i].shape[1] == 1 ? 1 : 2, tensors[i].shape, t, packed(t, n));
    }
    make_finish(g);
    for (size_t i = 0; i < count; i++) {
        const size_t n = (size_t)(tensors[i].shape[0] * tensors[i].shape[1]);
        const uint32_t t = tensors[i].shape[1] == 1 ? 0 : type;
        unsigned char *data = (unsigned char *)calloc(4, n);
        for (size_t j = 0; j < n; j++) {
            const float value = (float)((int)(test_random(&seed) % 256) - 128) / 256;
            const uint16_t half = bitstack_f32_to_f16(value);
            if (t == 0) memcpy(data + 4 * j, &value, 4);
            else if (t == 2) data[j / 32 * 18 + 2 + j % 16] = (unsigned char)(j * 7), data[j / 32 * 18 + 1] = 0x20;
            else if (t == 8) data[j / 32 * 34 + 2 + j % 32] = (unsigned char)(j * 7), data[j / 32 * 34 + 1] = 0x20;
            else memcpy(data + 2 * j, &half, 2);
        }
        make_data(g, data, packed(t, n));
        free(data);
    }
}

/* A published checkpoint of one layer, and the files that tell the order of two layers' blocks: see the target. */
static void published(void) {
    static const char *const linears[7] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    static const struct { const char *type; unsigned bytes, rows, cols, k, blocks; } ways[3] = {{"F16", 2, 6, 8, 2, 1}, {"F32", 4, 3, 5, 1, 2}, {"BF16", 2, 66, 4, 3, 1}};
    static unsigned char file[1 << 16];
    uint64_t seed = 6;
    char name[16];
    for (int w = 0; w < 3; w++) {
        size_t used = 8, data = 0;
        used += (size_t)sprintf((char *)file + used, "{\"__metadata__\":{\"format\":\"pt\"}");
        for (int l = 0; l < 7; l++)
            for (unsigned b = 0; b < ways[w].blocks; b++)
                for (int part = 0; part < 3; part++) {
                    unsigned r = part == 1 ? ways[w].k : ways[w].rows, c = part == 0 ? ways[w].k : ways[w].cols, signs = (ways[w].rows * ways[w].cols + 7) / 8;
                    size_t bytes = part == 2 ? signs : (size_t)r * c * ways[w].bytes;
                    used += (size_t)sprintf((char *)file + used, ",\"model.layers.0.%s.%s_%u\":{\"dtype\":\"%s\",\"shape\":[", linears[l], part == 0 ? "u" : part == 1 ? "vt" : "qweight", b, part == 2 ? "U8" : ways[w].type);
                    used += (size_t)(part == 2 ? sprintf((char *)file + used, "%u", signs) : sprintf((char *)file + used, "%u,%u", r, c));
                    used += (size_t)sprintf((char *)file + used, "],\"data_offsets\":[%zu,%zu]}", data, data + bytes);
                    data += bytes;
                }
        file[used++] = '}';
        for (int b = 0; b < 8; b++) file[b] = (unsigned char)((uint64_t)(used - 8) >> 8 * b);
        for (; data; data--) file[used++] = (unsigned char)(test_random(&seed) & 0x3f); /* no factor is infinite */
        snprintf(name, sizeof name, "tensors-%d", w);
        save("published", name, (const unsigned char *)"\4", 1, file, used);
    }
    for (int kind = 0; kind < 2; kind++) { /* linear i has 1 + i % 4 blocks */
        size_t used = (size_t)sprintf((char *)file, kind ? "{\"original_ppl\":9.5,\"reduced_ppl\":[" : "[");
        for (int e = 1; e < 4; e++) {
            used += (size_t)sprintf((char *)file + used, kind ? "%s{\"bit\":%d,\"ppls\":[" : "%s{\"memory\":%d,\"layers\":{", e > 1 ? "," : "", e);
            for (int i = 0; i < 14; i++)
                used += (size_t)(kind ? sprintf((char *)file + used, "%s{\"layer\":\"layer.%d.%s\",\"ppl\":%s}", i ? "," : "", i / 7, linears[i % 7], i == 3 ? "NaN" : i == 5 ? "Infinity" : i % 2 ? "7.5" : "8e1")
                                      : sprintf((char *)file + used, "%s\"layer.%d.%s\":%d", i ? "," : "", i / 7, linears[i % 7], i % 4 + 1 < e ? i % 4 + 1 : e));
            used += (size_t)sprintf((char *)file + used, kind ? "]}" : "}}");
        }
        used += (size_t)sprintf((char *)file + used, kind ? "]}" : "]");
        save("published", kind ? "losses" : "configs", (const unsigned char *)(kind ? "\2" : "\0"), 1, file, used);
    }
}

/* GGUF files without tensors, for their tokenizers: unigram, byte-level with merges, pieces with merges. */
static void gguf_tokenizers(void) {
    static const struct { const char *model, *pre, *pieces[9], *merges[4]; } ways[] = {
        {"t5", "", {"<unk>", "\xE2\x96\x81", "a", "sea", "\xE2\x96\x81the", "e", "<0x41>", "s", NULL}, {NULL}},
        {"gpt2", "llama-bpe", {"a", "s", "e", "\xC4\xA0", "se", "sea", "<|end|>", "\xC4\xA0sea", NULL}, {"s e", "se a", "\xC4\xA0 sea", NULL}},
        {"gpt2", "qwen2", {"1", "a", "aa", "aaaa", "\xC4\x8A", "<s>", NULL}, {"a a", "aa aa", NULL}},
        {"gpt2", "smollm", {"1", "2", "12", "\xC4\xA0", NULL}, {"1 2", NULL}},
        {"llama", "", {"a", "s", "e", "\xE2\x96\x81", "se", "sea", "<s>", NULL}, {"s e", "se a", NULL}}};
    char name[32];
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        gguf_maker g;
        unsigned count = 0, merges = 0;
        while (ways[w].pieces[count]) count++;
        while (ways[w].merges[merges]) merges++;
        make_start(&g, 3);
        make_meta_string(&g, "general.architecture", "llama");
        make_meta_string(&g, "tokenizer.ggml.model", ways[w].model);
        if (ways[w].pre[0]) make_meta_string(&g, "tokenizer.ggml.pre", ways[w].pre);
        make_meta_array(&g, "tokenizer.ggml.tokens", 8, count);
        for (unsigned i = 0; i < count; i++) make_string(&g, ways[w].pieces[i]);
        if (merges) make_meta_array(&g, "tokenizer.ggml.merges", 8, merges);
        else make_meta_array(&g, "tokenizer.ggml.scores", 6, count);
        for (unsigned i = 0; i < merges; i++) make_string(&g, ways[w].merges[i]);
        for (unsigned i = 0; !merges && i < count; i++) {
            const float score = -(float)i;
            make_raw(&g, &score, 4);
        }
        make_meta_array(&g, "tokenizer.ggml.token_type", 5, count);
        for (unsigned i = 0; i < count; i++) make_u32(&g, ways[w].pieces[i][0] != '<' ? 1 : ways[w].pieces[i][1] == '0' ? 6 : 3);
        make_meta_u32(&g, "tokenizer.ggml.unknown_token_id", 0);
        make_finish(&g);
        snprintf(name, sizeof name, "gguf-tokenizer-%zu", w);
        save("examples", name, (const unsigned char *)"\4", 1, g.data, g.bytes);
        free(g.data);
    }
}

/* See fuzz_tokenizer.c: kind, cut, flags, marks, pieces, merges; the pieces; merges by number; text. */
static void tokenizers(void) {
    static const char text[] = "The sea, the  sea's 1234 sea\n\n It'S\xC3\xA9\xE2\x80\xA8 <s>\xFF\t x<|end|>a \xF0\x9F\x98\x80";
    static const char *const pieces[] = {"\xE2\x96\x81", "s", "e", "a", "t", "h", "<s>", "<|end|>", "sea", "\xE2\x96\x81sea"};
    static const unsigned char types[] = {1, 1, 1, 1, 1, 1, 3, 4, 1, 1};
    static const float scores[] = {-2, -3, -3.5f, -2.5f, -4, -5, 0, 0, -6, -6.5f};
    unsigned char made[512];
    char name[32];
    for (unsigned kind = 0; kind < 4; kind++)
        for (unsigned cut = 0; cut < (kind == 2 ? 4u : 1u); cut++)
            for (unsigned way = 0; way < 3; way++) { /* all bytes and no space in front; the defaults; few pieces and an unknown */
                size_t used = 0;
                const unsigned flags = way == 0 ? 64 | 128 : way == 1 ? 64 | 128 | 2 | 8 : 64 | 2;
                const unsigned base = flags & 128 ? 256 + (kind != 2) : 0;
                const unsigned char head[6] = {(unsigned char)(2 * kind), (unsigned char)cut, (unsigned char)flags, way == 1 ? 1 : way == 2 ? 4 : 0, 10, kind > 1 ? 3 : 0};
                for (int i = 0; i < 10; i++) {
                    const size_t bytes = strlen(pieces[i]);
                    made[used++] = (unsigned char)bytes, made[used++] = types[i];
                    if (kind < 2) memcpy(made + used, &scores[i], 4), used += 4;
                    memcpy(made + used, pieces[i], bytes), used += bytes;
                }
                for (unsigned i = 0; i < 3 && kind > 1; i++) { /* s e, se a, h e: by number, and what they make is made */
                    const unsigned left = i == 0 ? 1 : i == 1 ? 10 : 5, right = i == 1 ? 3 : 2;
                    made[used++] = 1;
                    made[used++] = (unsigned char)(base + left), made[used++] = (unsigned char)((base + left) >> 8);
                    made[used++] = (unsigned char)(base + right), made[used++] = (unsigned char)((base + right) >> 8);
                }
                memcpy(made + used, text, sizeof text - 1);
                snprintf(name, sizeof name, "%u-%u-%u", kind, cut, way);
                save("tokenizer", name, head, sizeof head, made, used + sizeof text - 1);
            }
}

/* Models of one layer as folders: width 8, two heads, one for keys and values, 12 tokens. `kind`: 0 llama in one file;
 * 1 mistral, tied, with a window; 2 qwen2 in two files; 3 qwen3, tied, in two files; 4 an index that names none;
 * 5 as published, for import. */
static size_t shard(char *header, unsigned char *data, size_t *data_bytes, int kind, int part) {
    static const struct { const char *name; int rows, cols; } tensors[] = {
        {"model.embed_tokens.weight", 12, 8}, {"model.norm.weight", 0, 8}, {"lm_head.weight", 12, 8}, {"model.layers.0.input_layernorm.weight", 0, 8},
        {"model.layers.0.post_attention_layernorm.weight", 0, 8}, {"model.layers.0.self_attn.q_proj.weight", 8, 8}, {"model.layers.0.self_attn.k_proj.weight", 4, 8},
        {"model.layers.0.self_attn.v_proj.weight", 4, 8}, {"model.layers.0.self_attn.o_proj.weight", 8, 8}, {"model.layers.0.mlp.gate_proj.weight", 8, 8},
        {"model.layers.0.mlp.up_proj.weight", 8, 8}, {"model.layers.0.mlp.down_proj.weight", 8, 8}, {"model.layers.0.self_attn.q_proj.bias", 0, 8},
        {"model.layers.0.self_attn.k_proj.bias", 0, 4}, {"model.layers.0.self_attn.v_proj.bias", 0, 4}, {"model.layers.0.self_attn.q_norm.weight", 0, 4},
        {"model.layers.0.self_attn.k_norm.weight", 0, 4}};
    static const char *const types[] = {"F32", "F16", "BF16"};
    const int type = kind % 3, each = type == 0 ? 4 : 2, tied = kind == 1 || kind == 3;
    size_t used = (size_t)sprintf(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    *data_bytes = 0;
    for (int t = 0; t < 17; t++) {
        if ((t == 2 && tied) || (t > 11 && t < 15 && kind != 2) || (t > 14 && kind != 3)) continue;
        if (kind > 1 && kind < 4 && (t % 2 != part)) continue;
        const int rows = tensors[t].rows, cols = tensors[t].cols, blocks = kind == 5 && t > 4;
        for (int b = 0; b < (blocks ? 3 : 1); b++) { /* u, vt and the signs, of rank 2 */
            char name[80], shape[40];
            const int r = b == 1 ? 2 : rows, c = blocks && b == 0 ? 2 : cols;
            size_t bytes = b == 2 ? (size_t)rows * cols / 8 : (size_t)(r ? r : 1) * c * each;
            if (blocks) snprintf(name, sizeof name, "%.*s%s", (int)strlen(tensors[t].name) - 6, tensors[t].name, b == 0 ? "u_0" : b == 1 ? "vt_0" : "qweight_0");
            else snprintf(name, sizeof name, "%s", tensors[t].name);
            if (b == 2) snprintf(shape, sizeof shape, "%zu", bytes);
            else if (r) snprintf(shape, sizeof shape, "%d,%d", r, c);
            else snprintf(shape, sizeof shape, "%d", c);
            used += (size_t)sprintf(header + used, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name, b == 2 ? "U8" : types[type],
                                    shape, *data_bytes, *data_bytes + bytes);
            for (; bytes; bytes--, ++*data_bytes) data[*data_bytes] = (unsigned char)(*data_bytes % (size_t)each == (size_t)each - 1 ? 0x3C : *data_bytes * 29);
        }
    }
    header[used++] = '}';
    return used;
}

static void folders(void) {
    static const char *const names[] = {"llama", "mistral", "qwen2", "qwen3", "llama", "llama"};
    static const char *const more[] = {
        ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":32}",
        ",\"sliding_window\":3,\"tie_word_embeddings\":true", ",\"use_sliding_window\":true,\"sliding_window\":2,\"max_window_layers\":0",
        ",\"tie_word_embeddings\":true,\"layer_types\":[\"full_attention\"]",
        ",\"tie_word_embeddings\":true,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":32}", ""};
    static const char *const tokenizer[] = {
        "{\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"e\":1,\"s\":2,\"se\":3,\"sea\":4},\"merges\":[\"s e\",[\"se\",\"a\"]]}}",
        "{\"added_tokens\":[],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},{\"type\":\"Replace\","
        "\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<unk>\","
        "\"vocab\":{\"<unk>\":0,\"a\":1,\"<0x41>\":2,\"\\u2581\":3,\"\\u2581a\":4},\"merges\":[\"\\u2581 a\"]}}",
        "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
        "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
        "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\"]}}",
        "{\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,"
        "\"vocab\":[[\"<unk>\",0],[\"a\",-1.5],[\"sea\",-3],[\"\\u2581\",-1]]}}", "", ""};
    static const char *const index[] = {"", "",
        "{\"weight_map\":{\"model.embed_tokens.weight\":\"1.safetensors\",\"model.norm.weight\":\"2.safetensors\",\"lm_head.weight\":\"1.safetensors\"}}",
        "{\"weight_map\":{\"model.norm.weight\":\"2.safetensors\",\"model.embed_tokens.weight\":\"1.safetensors\"}}", "{\"weight_map\":{}}", ""};
    static const char *const settings[] = {"{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"sea\"}}", "", "{\"chat_template\":\"<|im_start|>\"}", "", "", ""};
    static char header[1 << 14], file[1 << 16];
    static unsigned char data[1 << 14];
    char name[32];
    for (int kind = 0; kind < 6; kind++)
        for (unsigned way = 0; way < 3; way++) {
            if (way == 2 && kind != 5) continue; /* import reads only what was published */
            const unsigned char head[1] = {(unsigned char)(1 | way << 1)};
            size_t used = (size_t)sprintf(file, "{\"model_type\":\"%s\",\"hidden_size\":8,\"intermediate_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                                          "\"num_key_value_heads\":1,\"head_dim\":4,\"vocab_size\":12%s}\n%%%%\n%s\n%%%%\n%s\n%%%%\n%s\n%%%%\n", names[kind], more[kind], tokenizer[kind],
                                          settings[kind], index[kind]);
            for (int part = 0; part < 2; part++) {
                size_t bytes = 0, length = (part && (kind < 2 || kind == 5)) || kind == 4 ? 0 : shard(header, data, &bytes, kind, part);
                memcpy(file + used, header, length), used += length;
                used += (size_t)sprintf(file + used, "\n%%%%\n");
                memcpy(file + used, data, bytes), used += bytes;
                used += (size_t)sprintf(file + used, "\n%%%%\n");
            }
            used += (size_t)sprintf(file + used, kind == 5 && way == 2 ? "[{\"memory\":1,\"layers\":{\"layer.0.self_attn.q_proj\":1,\"layer.0.self_attn.k_proj\":1,"
                "\"layer.0.self_attn.v_proj\":1,\"layer.0.self_attn.o_proj\":1,\"layer.0.mlp.gate_proj\":1,\"layer.0.mlp.up_proj\":1,\"layer.0.mlp.down_proj\":1}}]\n%%%%\n" : "\n%%%%\n");
            snprintf(name, sizeof name, "%d-%u", kind, way);
            save("folder", name, head, 1, file, used);
        }
}

/* See fuzz_files.c: the first byte, halved, chooses, the second says how. */
static void files(void) {
    static const char groups[] = "MemTotal:       16000000 kB\nMemAvailable:    9000000 kB\n\n%%\n0::/a/b\n3:cpu,memory:/c\n\n%%\n"
        "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n31 20 0:27 / /sys/fs/memory rw - cgroup cgroup rw,memory\n\n%%\n8000000000\n\n%%\nmax\n\n%%\n60000000\n\n%%\n"
        "inactive_file 5000000\nactive_file 2000000\ntotal_inactive_file 7\n\n%%\nsome avg10=0.00 total=1000000\n\n%%\n9223372036854771712\n\n%%\n10\n\n%%\nsome total=5\n";
    static const char *const sizes[] = {"300000", "2.5GiB", "3MB", "1e3KB", "8.9e18", "0x10", "1 B"};
    static const char talk[] = "<|im_start|>\n%%\nBe brief.\n%%\n\0Hello there\n%%\n\5\x0b\1\5\x1e\1\5\x23\1\1And the sea?\n%%\n\5\x23\1\5\x24\1\5\x00\xff\0\0\xc0\x7f\xfb\0again\n%%\n\5\2\0";
    static const char lines[] = "<|im_start|>\n%%\n\x0b\1\x1e\1\x23\1\x02\0\n%%\nHello\n:info\n:budget 3MB\n:stop\n:reset\nThe sea\n:what\n:quit\n";
    unsigned char head[2] = {0, 0};
    char name[32];
    for (unsigned how = 0; how < 2; how++) {
        head[1] = (unsigned char)how;
        snprintf(name, sizeof name, "groups-%u", how), save("files", name, head, 2, groups, sizeof groups - 1);
        head[0] = 12, head[1] = (unsigned char)(3 + 8 * how);
        snprintf(name, sizeof name, "lines-%u", how), save("files", name, head, 2, lines, sizeof lines - 1);
        head[0] = 0;
    }
    for (unsigned i = 0; i < 7; i++) {
        head[0] = 4;
        snprintf(name, sizeof name, "size-%u", i), save("files", name, head, 2, sizes[i], strlen(sizes[i]));
    }
    /* A journal of one matrix: its key, the fixed part, blocks, a checksum that the target mends. */
    static const char *const forms[] = {"", "<|start_header_id|>", "[INST]"};
    unsigned char journal[4096] = {7};
    bitstack_coded coded;
    bitstack_encode_options options = {0};
    float w[64];
    for (int i = 0; i < 64; i++) w[i] = (float)(i * 37 % 64 - 32);
    options.levels = 2;
    if (bitstack_encode_matrix(&coded, w, 8, 8, 8, NULL, &options) == BITSTACK_OK) {
        size_t at = 8 + sizeof(struct { bitstack_shape s; double a[2 * (BITSTACK_MAX_LEVELS + 1) + 1], b[BITSTACK_MAX_LEVELS + 1]; float f; });
        memcpy(journal + 8, &coded.shape, sizeof coded.shape);
        for (uint32_t l = 1; l <= 2; l++) {
            const size_t bytes = (size_t)bitstack_block_bytes(&coded.shape, l);
            memcpy(journal + at, coded.blocks[l - 1], bytes), at += bytes;
        }
        head[0] = 2, head[1] = 3;
        save("files", "journal", head, 2, journal, at + 8);
        head[1] = 1; /* the checksum is not right */
        save("files", "journal-cut", head, 2, journal, at + 8);
        bitstack_coded_free(&coded);
    }
    for (unsigned how = 0; how < 2; how++) {
        size_t bytes;
        unsigned char *data = (unsigned char *)test_read_file("tests/golden/everything.golden", &bytes);
        head[0] = 6, head[1] = (unsigned char)how;
        snprintf(name, sizeof name, "follow-%u", how);
        if (data) save("files", name, head, 2, data, bytes);
        free(data);
    }
    const float logits[] = {0.8f, 0.95f, 0, 0, 1, -2, 3.5f, NAN, INFINITY, -INFINITY, 0, 1e30f};
    head[0] = 8, head[1] = 0;
    save("files", "logits-0", head, 2, logits, sizeof logits);
    save("files", "logits-1", head, 2, logits, 7 * sizeof logits[0]);
    const float undefined_first[] = {1, 1, 0, 0, NAN, 2, 1, NAN};
    save("files", "logits-2", head, 2, undefined_first, sizeof undefined_first);
    head[0] = 10, head[1] = 40;
    save("files", "talk", head, 2, talk, sizeof talk - 1);
    for (int i = 0; i < 3; i++) { /* the other forms */
        char said[400];
        const size_t start = (size_t)sprintf(said, "%s", forms[i]);
        memcpy(said + start, talk + 12, sizeof talk - 13);
        snprintf(name, sizeof name, "talk-%d", i), save("files", name, head, 2, said, start + sizeof talk - 13);
    }
}

int main(int argc, char **argv) {
    static const char *const targets[] = {"reader", "compressor", "examples", "published", "tokenizer", "folder", "files"};
    static const unsigned char ways[][2] = {{0, 0}, {1, 1}, {3, 2}, {5, 3}, {11, 7}, {67, 4}, {35, 9}, {19, 12}, {131, 6}};
    static const char *const json[] = {"0", "[1,2.5e-3,[\"\\u00e9\\ud83d\\ude00\\n\",null,true]]", "{\"key\":{\"a\":[],\"b\":{}},\"n\":-0.0}",
                                       "{\"model_type\":\"llama\",\"hidden_size\":32,\"num_hidden_layers\":1}", "[[[[[[[[]]]]]]]]"};
    char path[600], name[300];
    if (argc != 2) return 2;
    snprintf(root, sizeof root, "%s", argv[1]);
    mkdir(root, 0777);
    for (int t = 0; t < 7; t++) snprintf(path, sizeof path, "%s/%s", root, targets[t]), mkdir(path, 0777);
    for (int n = 0; n < GOLDEN_FILES; n++) {
        size_t bytes;
        snprintf(path, sizeof path, "tests/golden/%s.golden", golden_files[n].name);
        unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
        if (!data) return 1;
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            if (bytes > 5000 && w > 2) continue; /* small inputs fuzz best */
            snprintf(name, sizeof name, "%s-%zu", golden_files[n].name, w);
            save("reader", name, ways[w], 2, data, bytes);
        }
        free(data);
    }
    uint64_t seed = 8;
    for (int i = 0; i < 60; i++) {
        unsigned char head[12];
        float values[300];
        const size_t count = i < 30 ? 1 + (size_t)i : 300;
        for (size_t b = 0; b < sizeof head; b++) head[b] = (unsigned char)(test_random(&seed) >> 30);
        for (size_t k = 0; k < count; k++) {
            values[k] = test_normal(&seed);
            if (i % 5 == 1) values[k] *= powf(10, 30 * test_normal(&seed));
            if (i % 5 == 2) values[k] = k % 3 ? 0 : 1;
            if (i % 5 == 3) values[k] *= 1e-40f;
            if (i % 5 == 4) values[k] = k % 7 ? values[k] : k % 2 ? INFINITY : NAN;
        }
        snprintf(name, sizeof name, "%d", i);
        save("compressor", name, head, sizeof head, values, sizeof values[0] * count);
    }
    /* Found: planes whose coefficients cancelled each other beyond float. */
    static const char cancelling[] =
        "\xaf\xdc\xdc\xdc\xdc\xdc\xdc\xdc\x66\xff\x00\x80\x00\xec\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xcc\x82\x88\x1a\xe0\xa5\x36\xf9\xee\x63\x5c\x7c\x7c\x7c";
    save("compressor", "cancelling", (const unsigned char *)cancelling, sizeof cancelling - 1, NULL, 0);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "json-%d", i);
        save("examples", name, (const unsigned char *)"\0", 1, json[i], strlen(json[i]));
    }
    static const char *const safetensors[] = {"{}", "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
                                              "\"b.weight\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}}"};
    for (int i = 0; i < 2; i++) {
        unsigned char file[400] = {6};
        const size_t header = strlen(safetensors[i]);
        file[1] = (unsigned char)header;
        memcpy(file + 9, safetensors[i], header);
        snprintf(name, sizeof name, "safetensors-%d", i);
        save("examples", name, file, 9 + header + (i ? 9 : 0), NULL, 0);
    }
    static const uint32_t types[] = {8, 1, 2, 30};
    for (int i = 0; i < 4; i++) {
        gguf_maker g;
        tiny_model(&g, types[i]);
        snprintf(name, sizeof name, "gguf-%d", i);
        save("examples", name, (const unsigned char *)"\4", 1, g.data, g.bytes);
        free(g.data);
    }
    /* The files of Hugging Face, small; and tensors of every type that GGUF packs in blocks. */
    static const char *const folder[] = {
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":4,\"vocab_size\":9,"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}",
        "{\"model_type\":\"qwen2\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"vocab_size\":9,\"use_sliding_window\":true,\"sliding_window\":4,\"max_window_layers\":1,\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"linear\",\"factor\":2}}",
        "{\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"bos_token\":\"<s>\","
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"e\":1,\"s\":2,\"se\":3,\"sea\":4},\"merges\":[\"s e\",[\"se\",\"a\"]]}}",
        "{\"added_tokens\":[],\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,"
        "\"vocab\":[[\"<unk>\",0],[\"a\",-1.5],[\"sea\",-3],[\"\\u2581\",-1]]}}"};
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "folder-%d", i);
        save("examples", name, (const unsigned char *)"\0", 1, folder[i], strlen(folder[i]));
    }
    static const struct { uint32_t type; size_t bytes; } packed_types[] = { /* a row of 256 */
        {2, 144}, {3, 160}, {6, 176}, {7, 192}, {8, 272}, {10, 84}, {11, 110}, {12, 144}, {13, 176}, {14, 210}};
    gguf_maker blocks;
    make_start(&blocks, 3);
    for (size_t i = 0; i < 10; i++) {
        const uint64_t shape[1] = {256};
        snprintf(name, sizeof name, "t%u", (unsigned)packed_types[i].type);
        make_tensor(&blocks, name, 1, shape, packed_types[i].type, packed_types[i].bytes);
    }
    make_finish(&blocks);
    for (size_t i = 0; i < 10; i++) {
        unsigned char row[272];
        for (size_t b = 0; b < sizeof row; b++) row[b] = (unsigned char)(b * 37 + i);
        make_data(&blocks, row, packed_types[i].bytes);
    }
    save("examples", "gguf-blocks", (const unsigned char *)"\4", 1, blocks.data, blocks.bytes);
    free(blocks.data);
    size_t bytes;
    unsigned char *data = (unsigned char *)test_read_file("tests/golden/everything.golden", &bytes);
    if (data) save("examples", "stack", (const unsigned char *)"\2", 1, data, bytes);
    free(data);
    published();
    gguf_tokenizers();
    tokenizers();
    folders();
    files();
    return 0;
}
