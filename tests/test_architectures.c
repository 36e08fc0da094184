/* Models of every architecture compute what its published definition says: random weights, written as a GGUF file and
 * as a folder with safetensors, against a plain reference in double precision. And they survive compression. */
#include "architectures.h"
#include "../examples/llm/gguf.h"
#include "../examples/llm/hf.h"
#include "../examples/llm/model.h"
#include "../examples/llm/tokenizer.h"

#include <sys/stat.h>

static void write_file(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes) printf("      cannot write %s\n", path);
    if (file) fclose(file);
}

static void write_folder(const architecture *a, const char *folder) {
    static char json[1 << 15], index[1 << 15];
    static unsigned char data[1 << 20];
    char line[1200];
    size_t element = strcmp(a->dtype, "F32") == 0 ? 4 : 2;
    snprintf(line, sizeof line, "rm -rf '%s' && mkdir -p '%s'", folder, folder);
    if (system(line) != 0) printf("      cannot make %s\n", folder);
    int n = snprintf(json, sizeof json, "{\"model_type\":\"%s\",\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%u,"
                     "\"num_key_value_heads\":%u,\"vocab_size\":%d,\"max_position_embeddings\":64,\"rms_norm_eps\":%g,\"rope_theta\":%g,\"hidden_act\":\"silu\",\"bos_token_id\":1,"
                     "\"tie_word_embeddings\":%s,\"sliding_window\":", a->hf, WIDTH, HIDDEN, LAYERS, a->heads, a->kv_heads, VOCABULARY, EPSILON, BASE, a->tied ? "true" : "false");
    n += snprintf(json + n, sizeof json - (size_t)n, a->window ? "%u" : "null", a->window);
    if (a->head_width * a->heads != WIDTH) n += snprintf(json + n, sizeof json - (size_t)n, ",\"head_dim\":%u", a->head_width);
    if (a->window_first) n += snprintf(json + n, sizeof json - (size_t)n, ",\"use_sliding_window\":true,\"max_window_layers\":%u", a->window_first);
    if (a->scaling == LINEAR) n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":%g}", FACTOR);
    if (a->scaling == DYNAMIC) n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":%g}", FACTOR);
    if (a->scaling == YARN)
        n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":%g,\"original_max_position_embeddings\":16,"
                      "\"beta_fast\":4,\"rope_theta\":%g}", FACTOR, BASE);
    if (a->scaling == LLAMA3)
        n += snprintf(json + n, sizeof json - (size_t)n, ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":%g,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                      "\"original_max_position_embeddings\":32}", FACTOR);
    if (a->scaling == LONGER || a->scaling == SHORTER) {
        n += snprintf(json + n, sizeof json - (size_t)n, ",\"original_max_position_embeddings\":%u,\"rope_scaling\":{\"type\":\"longrope\"", original(a));
        for (int k = 0; k < 2; k++)
            for (unsigned i = 0; i < a->head_width / 2; i++)
                n += snprintf(json + n, sizeof json - (size_t)n, "%s%g", i ? "," : k ? "],\"long_factor\":[" : ",\"short_factor\":[", k ? long_factor(i) : short_factor(i));
        n += snprintf(json + n, sizeof json - (size_t)n, "]}");
    }
    n += snprintf(json + n, sizeof json - (size_t)n, "}\n");
    write_file(folder, "config.json", json, (size_t)n);
    int used = snprintf(index, sizeof index, "{\"metadata\":{},\"weight_map\":{");
    for (int s = 0; s < a->shards; s++) {
        char name[64];
        size_t bytes = 0;
        if (a->shards == 1) snprintf(name, sizeof name, "model.safetensors");
        else snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", s + 1, a->shards);
        n = snprintf(json, sizeof json, "{\"__metadata__\":{\"format\":\"pt\"}");
        for (int i = s; i < matrix_count; i += a->shards) {
            const matrix *m = &matrices[i];
            size_t count = (size_t)m->rows * m->cols;
            n += snprintf(json + n, sizeof json - (size_t)n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", m->name, a->dtype);
            if (!m->one_dimension) n += snprintf(json + n, sizeof json - (size_t)n, "%u,", m->rows);
            n += snprintf(json + n, sizeof json - (size_t)n, "%u],\"data_offsets\":[%zu,%zu]}", m->cols, bytes, bytes + count * element);
            for (size_t j = 0; j < count; j++, bytes += element) {
                uint16_t half = bitstack_f32_to_f16(m->values[j]);
                if (element == 4) memcpy(data + bytes, &m->values[j], 4);
                else if (a->dtype[0] == 'F') memcpy(data + bytes, &half, 2);
                else memcpy(data + bytes, (const char *)&m->values[j] + 2, 2);
            }
            used += snprintf(index + used, sizeof index - (size_t)used, "%s\"%s\":\"%s\"", i ? "," : "", m->name, name);
        }
        n += snprintf(json + n, sizeof json - (size_t)n, "}");
        while ((8 + n) % 8) json[n++] = ' ';
        uint64_t header = (uint64_t)n;
        memmove(data + 8 + n, data, bytes);
        memcpy(data, &header, 8);
        memcpy(data + 8, json, (size_t)n);
        write_file(folder, name, data, 8 + (size_t)n + bytes);
    }
    if (a->shards > 1) {
        used += snprintf(index + used, sizeof index - (size_t)used, "}}");
        write_file(folder, "model.safetensors.index.json", index, (size_t)used);
    }
}

/* ---- comparing ---- */

/* Logits of all tokens: a batch first, then one by one. -1 if the model does not open. */
static int run(const char *path, const llm_model_options *options, const uint32_t *ids, float *logits) {
    llm_model m;
    llm_error error;
    llm_state s;
    if (llm_model_open(&m, path, options, &error) != 0) {
        printf("      %s\n", error.message);
        return -1;
    }
    if (m.config.vocabulary != VOCABULARY || llm_state_init(&s, &m, TOKENS, 0) != 0) return -1;
    for (uint32_t done = 0; done < TOKENS; ) {
        uint32_t some = done ? 1 : 13;
        llm_forward(&m, &s, ids + done, some);
        llm_logits(&m, &s, 0, some, logits + done * VOCABULARY);
        done += some;
    }
    llm_state_free(&s);
    llm_model_close(&m);
    return 0;
}

/* Root mean square difference, and the largest, as parts of the root mean square logit. */
static double far(const float *got, const double *want, double *largest) {
    double difference = 0, all = 0, most = 0;
    for (int i = 0; i < TOKENS * VOCABULARY; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (!(d <= most)) most = d;
        difference += d * d, all += want[i] * want[i];
    }
    *largest = most / sqrt(all / (TOKENS * VOCABULARY));
    return sqrt(difference / all);
}

int main(int argc, char **argv) {
    (void)argc;
    const char *slash = strrchr(argv[0], '/');
    int directory = slash ? (int)(slash - argv[0]) : 1;
    const char *here = slash ? argv[0] : ".";
    char gguf[500], folder[500], stack[500], line[2000];
    static float logits[TOKENS * VOCABULARY];
    static double want[TOKENS * VOCABULARY];
    uint32_t ids[TOKENS];
    double most;
    snprintf(folder, sizeof folder, "%.*s/architecture", directory, here);
    mkdir(folder, 0777);
    snprintf(gguf, sizeof gguf, "%.*s/architecture/model.gguf", directory, here);
    snprintf(stack, sizeof stack, "%.*s/architecture/model.bitstack", directory, here);
    snprintf(folder, sizeof folder, "%.*s/architecture/model", directory, here);

    for (int n = 0; n < ARCHITECTURES; n++) {
        const architecture *a = &architectures[n];
        gguf_maker g;
        llm_model_options options;
        memset(&options, 0, sizeof options);
        TEST(a->sentence);
        seed = 100 + (uint64_t)n;
        make_weights(a);
        for (int t = 0; t < TOKENS; t++) ids[t] = (uint32_t)(test_random(&seed) % VOCABULARY);
        reference(a, ids, want);
        write_gguf(a, &g);
        snprintf(line, sizeof line, "%.*s/architecture", directory, here);
        write_file(line, "model.gguf", g.data, g.bytes);
        free(g.data);
        write_folder(a, folder);
        CHECK(run(gguf, NULL, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "GGUF: largest difference %g", most);
        CHECK(run(folder, NULL, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "safetensors: largest difference %g", most);
        options.unpack_bytes = 1, options.forget = 1, options.threads = 3;
        CHECK(run(folder, &options, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "not unpacked, three threads: largest difference %g", most);
        snprintf(line, sizeof line, "'%.*s/../bitstack' compress '%s' -o '%s' --method iabs --rank 8 --levels 12 --calibrate-self 2048 --compress-embeddings %s >/dev/null",
                 directory, here, n % 2 ? gguf : folder, stack, n % 3 ? "no" : "yes");
        double error = -1, bound = 0.03 * magnitude(a) * magnitude(a); /* errors of scores are multiplied, too */
        CHECK(system(line) == 0 && run(stack, NULL, ids, logits) == 0 && (error = far(logits, want, &most)) < bound, "compressed: off by %g", error);
        CHECK(error < 0 || error > 1e-5, "compressed: off by only %g: not the stack's matrices", error);
    }

    TEST("GGUF: a factor without a type is a linear one");
    for (int way = 0; way < 2; way++) {
        gguf_maker g;
        llm_model m;
        llm_source source;
        llm_error why = {""};
        make_tiny_llama(&g, 3);
        CHECK(llm_gguf_open_memory(&source, g.data, g.bytes, "tiny.gguf", &why) == 0 && llm_add_float(&source, way ? "llama.rope.scale_linear" : "llama.rope.scaling.factor", 4) == 0 &&
              llm_model_load(&m, source, NULL, &why) == 0, "%s", why.message);
        if (!why.message[0]) {
            CHECK(fabs(m.rope_frequencies[0] - 0.25) < 1e-12 && fabs(m.rope_frequencies[1] - 0.25 * pow(10000, -0.125)) < 1e-9 && m.rope_magnitude == 1, "%g", m.rope_frequencies[0]);
            llm_model_close(&m);
        }
        free(g.data);
    }

    TEST("LongRoPE: the context that there is room for decides which factors hold, the same for all of its positions");
    for (int n = 0; n < ARCHITECTURES; n++) {
        const architecture *a = &architectures[n];
        enum { MOST = 40 };
        static float rope[MOST * 32 * 2];
        llm_model m;
        llm_error why;
        if (a->scaling != LONGER && a->scaling != SHORTER) continue;
        make_weights(a);
        write_folder(a, folder);
        int opened = llm_model_open(&m, folder, NULL, &why) == 0;
        CHECK(opened, "%s", why.message);
        for (uint32_t context = original(a) - 1; opened && context <= original(a) + 1; context++) {
            llm_rope_table(&m, context, rope);
            for (unsigned i = 0; i < (context - 1) * a->head_width / 2; i++) { /* all positions but the first, which turns nothing */
                unsigned pair = i % (a->head_width / 2), position = 1 + i / (a->head_width / 2);
                double divided = context > original(a) ? long_factor(pair) : short_factor(pair);
                double turned = magnitude(a) * sin(position * pow(BASE, -2.0 * pair / a->head_width) / divided);
                CHECK(fabs((double)rope[(position * a->head_width / 2 + pair) * 2 + 1] - turned) < 1e-6, "context %u, position %u, pair %u", context, position, pair);
            }
        }
        if (opened) llm_model_close(&m);
    }

    TEST("tensors' names with less or more in front, and a tied model that has its head only");
    static const struct { const char *from, *to; int tied; } names[] = {
        {"model.", "", 0}, {"model.", "model.language_model.", 0}, {"model.embed_tokens", "lm_head", 1}};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const architecture *a = &architectures[names[n].tied ? 6 : 0]; /* llama with a head of its own, qwen2 without one */
        CHECK(a->tied == names[n].tied, "not the one meant");
        make_weights(a);
        for (int t = 0; t < TOKENS; t++) ids[t] = (uint32_t)(test_random(&seed) % VOCABULARY);
        reference(a, ids, want);
        for (int i = 0; i < matrix_count; i++) {
            char old[80], *at = matrices[i].name;
            if (strncmp(at, names[n].from, strlen(names[n].from)) != 0) continue;
            snprintf(old, sizeof old, "%s", at + strlen(names[n].from));
            snprintf(at, sizeof matrices[i].name, "%s%.50s", names[n].to, old);
        }
        write_folder(a, folder);

        CHECK(run(folder, NULL, ids, logits) == 0 && far(logits, want, &most) < 1e-5 && most < 1e-4, "case %zu", n);
    }

    TEST("the tokenizer of a folder goes into the stack");
    make_weights(&architectures[0]);
    write_folder(&architectures[0], folder);
    snprintf(line, sizeof line, "cp tests/tokenizers/qwen2.json '%s/tokenizer.json' && '%.*s/../bitstack' compress '%s' -o '%s' --levels 1 --rank 1 >/dev/null", folder,
             directory, here, folder, stack);
    CHECK(system(line) == 0, "%s", line);
    for (int way = 0; way < 2; way++) {
        static const char text[] = "The captain's 42 ships;\n\n\xE6\xB5\xB7 <tool_call>x";
        static uint32_t before[200];
        llm_source source;
        llm_tokenizer tokenizer;
        llm_error why;
        uint32_t *found;
        int opened = llm_source_open(&source, way ? stack : folder, NULL, &why) == 0;
        CHECK(opened && llm_tokenizer_load(&tokenizer, &source, &why) == 0, "%s", why.message);
        if (test_bad_) break;
        int64_t count = llm_encode(&tokenizer, text, sizeof text - 1, &found);
        CHECK(count > 10 && count < 100 && (!way || memcmp(before, found, (size_t)count * 4) == 0), "%lld ids", (long long)count);
        memcpy(before, found, (size_t)count * 4);
        free(found);
        llm_tokenizer_free(&tokenizer);
        llm_source_close(&source);
    }

    TEST("a journal serves one state of a folder's files, which the folder itself does not tell");
    char keys[3][8];
    for (int i = 0; i < 3; i++) { /* files may not grow beyond some size: the run fails under way, and leaves the journal */
        snprintf(line, sizeof line, "cd '%.*s' && touch -d '2001-01-0%d' architecture/model/model.safetensors && trap '' XFSZ && ulimit -f 20 && "
                 "../bitstack compress architecture/model -o architecture/y.bitstack --levels 1 --rank 1 --resume 2>/dev/null", directory, here, 1 + i / 2);
        CHECK(system(line) == 256, "%s", line);
        snprintf(line, sizeof line, "%.*s/architecture/y.bitstack.journal", directory, here);
        FILE *journal = fopen(line, "rb");
        CHECK(journal && fread(keys[i], 1, 8, journal) == 8, "no journal");
        if (journal) fclose(journal);
    }
    CHECK(memcmp(keys[0], keys[1], 8) == 0 && memcmp(keys[0], keys[2], 8) != 0, "keys of three runs");
    remove(line);

    TEST("folders that are not whole or not known end in one line");
    static const struct { const char *edit, *words; } edits[] = {
        {"rm model/config.json", "config.json: "}, {"rm model/model.safetensors", "model.safetensors: "},
        {"sed -i s/qwen2/gpt_oss/ model/config.json", "\"model_type\" to be"}, {"sed -i s/silu/gelu/ model/config.json", "\"hidden_act\""},
        {"sed -i s/self_attn.q_proj.bias/self_attn.q_proj.bibs/ model/model.safetensors", "bibs'"},
        {"sed -i s/self_attn.q_proj.bias/self_attn.o_proj.bias/ model/model.safetensors", "blk.0.attn_q.bias"},
        {"sed -i s/hidden_size/hidden_sice/ model/config.json", "\"hidden_size\""},
        {"sed -i s/.hidden_size.:48/\\\"hidden_size\\\":-4/ model/config.json", "\"hidden_size\""},
        {"sed -i s/:true/:false/ model/config.json", "lm_head"},
        {"sed -i 's/}$/,\"rope_scaling\":{\"type\":\"yarn\"}}/' model/config.json", "\"factor\""},
        {"sed -i 's/}$/,\"rope_scaling\":{\"type\":\"longrope\",\"factor\":4}}/' model/config.json", "long_factor"},
        {"sed -i 's/}$/,\"rope_scaling\":{\"type\":\"longrope\",\"long_factor\":[1,2,3,4],\"short_factor\":[1,2,0,4]}}/' model/config.json", "numbers above 0 in \"short_factor\""},
        {"sed -i 's/}$/,\"rope_scaling\":{\"type\":\"mrope\",\"factor\":4}}/' model/config.json", "mrope"},
        {"sed -i 's/}$/,\"rope_scaling\":{\"factor\":4}}/' model/config.json", "RoPE"},
        {"sed -i 's/}$/,\"rope_parameters\":{\"factor\":4}}/' model/config.json", "RoPE"},
        {"sed -i 's/}$/,\"quantization_config\":{}}/' model/config.json", "quantization_config"},
        {"sed -i 's/}$/,,/' model/config.json", "config.json: offset"}, {"truncate -s 999 model/model.safetensors", "model.safetensors: "},
        {"rm model/model.safetensors; echo '{\"weight_map\":{\"x\":\"../model.gguf\"}}' >model/model.safetensors.index.json", "files of its folder"},
        {"rm model/model.safetensors; echo '{\"weight_map\":{\"x\":\"none\"}}' >model/model.safetensors.index.json", "model/none"},
        {"echo '{\"model\":{}}' >model/tokenizer.json", "tokenizer.json: "}};
    make_weights(&architectures[6]);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        llm_model m;
        llm_error error;
        write_folder(&architectures[6], folder);
        snprintf(line, sizeof line, "cd '%.*s/architecture' && %s", directory, here, edits[i].edit);
        CHECK(system(line) == 0, "%s", line);
        int opened = llm_model_open(&m, folder, NULL, &error) == 0;
        CHECK(!opened && strstr(error.message, edits[i].words) && !strchr(error.message, '\n'), "%s: '%s'", edits[i].edit, opened ? "opened" : error.message);
        if (opened) llm_model_close(&m);
    }
    while (matrix_count) free(matrices[--matrix_count].values);
    return TEST_DONE();
}
