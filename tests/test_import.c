/* bitstack import: a published checkpoint as a stack, whose matrices at every config are the published ones, and
 * which loads at a budget what the published loader does. */
#include "command.h"
#include "bitstack.h"
#include "examples/llm/json.h"

static const char *const linears[7] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                       "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
static const char *const ours[7] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

static int matrix_of(const bitstack *stack, const char *layer) { /* "layer.L.self_attn.q_proj" */
    char name[64];
    for (int i = 0; i < 7; i++)
        if (strcmp(layer + 8, linears[i]) == 0) return snprintf(name, sizeof name, "blk.%c.%s.weight", layer[6], ours[i]) < 0 ? -1 : bitstack_find_matrix(stack, name);
    return -1;
}

static bitstack *open_stack(const char *name) {
    bitstack *stack = NULL;
    bitstack_error error;
    memset(&error, 0, sizeof error);
    CHECK(bitstack_open_file(&stack, command_file(name), NULL, &error) == BITSTACK_OK, "%s: %s", name, error.message);
    return stack;
}

/* Levels of all matrices are those of config `index`. */
static int at_config(const bitstack *stack, const llm_json *configs, size_t index) {
    size_t at = 1;
    char layer[64];
    for (size_t i = 0; i < index; i++) at += configs->values[at].skip;
    size_t layers = llm_json_member(configs, at, "layers"), key = layers + 1;
    for (size_t i = 0; i < configs->values[layers].count; i++, key += 2) {
        bitstack_matrix m;
        snprintf(layer, sizeof layer, "%.*s", (int)configs->values[key].string.bytes, configs->values[key].string.text);
        if (bitstack_get_matrix(stack, matrix_of(stack, layer), &m) != BITSTACK_OK || m.level != (uint32_t)configs->values[key + 1].number) return 0;
    }
    return 1;
}

/* The layers of the blocks from level 2 on are those of the lines of a file. */
static int ordered_as(const bitstack *stack, const char *path) {
    char line[80];
    FILE *file = fopen(path, "r");
    bitstack_block block;
    int good = file != NULL;
    for (int i = 14; good && i < bitstack_block_count(stack); i++) {
        good = fgets(line, sizeof line, file) && bitstack_get_block(stack, i, &block) == BITSTACK_OK;
        line[strcspn(line, "\n")] = 0;
        good = good && (int)block.matrix == matrix_of(stack, line);
    }
    if (file) fclose(file);
    return good;
}

/* ---- a checkpoint of our own: odd shapes, every type, two files ---- */

typedef struct maker {
    char header[20000];
    unsigned char data[40000];
    size_t used, bytes;
} maker;

static void tensor(maker *m, const char *name, const char *dtype, unsigned rows, unsigned cols, const void *data, size_t bytes) {
    m->used += (size_t)snprintf(m->header + m->used, sizeof m->header - m->used, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", m->used > 1 ? "," : "", name, dtype);
    m->used += (size_t)snprintf(m->header + m->used, sizeof m->header - m->used, rows ? "%u,%u" : "%.0u%u", rows, cols);
    m->used += (size_t)snprintf(m->header + m->used, sizeof m->header - m->used, "],\"data_offsets\":[%zu,%zu]}", m->bytes, m->bytes + bytes);
    memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

static int finish(maker *m, const char *name) {
    static unsigned char all[70000];
    m->used += (size_t)snprintf(m->header + m->used, sizeof m->header - m->used, "}");
    test_store64(all, m->used);
    memcpy(all + 8, m->header, m->used);
    memcpy(all + 8 + m->used, m->data, m->bytes);
    return command_save(name, all, 8 + m->used + m->bytes);
}

/* Converts in place to `dtype`, rounding the values that are kept to it. Bytes of the result. */
static size_t as(const char *dtype, float *values, size_t count, unsigned char *out) {
    for (size_t i = 0; i < count; i++) {
        uint16_t half = bitstack_f32_to_f16(values[i]);
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        if (dtype[0] == 'B') bits &= 0xFFFF0000u, memcpy(&values[i], &bits, 4), half = (uint16_t)(bits >> 16);
        else if (dtype[1] == '1') values[i] = bitstack_f16_to_f32(half);
        if (strcmp(dtype, "F32") == 0) memcpy(out + 4 * i, &values[i], 4);
        else memcpy(out + 2 * i, &half, 2);
    }
    return count * (strcmp(dtype, "F32") == 0 ? 4 : 2);
}

enum { WIDTH = 12, KV = 6, HIDDEN = 10, LEVELS = 3, K = 2, VOCABULARY = 16 };
static const unsigned rows[7] = {WIDTH, KV, KV, WIDTH, HIDDEN, HIDDEN, WIDTH}, cols[7] = {WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, WIDTH, HIDDEN};
static double dense[7][LEVELS][WIDTH * WIDTH];
static float norm[WIDTH];

static int make_checkpoint(void) {
    static maker files[2];
    static const char *const types[3] = {"F16", "F32", "BF16"};
    float values[VOCABULARY * WIDTH], u[WIDTH * K], vt[K * WIDTH];
    unsigned char raw[VOCABULARY * WIDTH * 4], signs[(WIDTH * WIDTH + 7) / 8];
    uint64_t seed = 3;
    char name[100];
    memset(files, 0, sizeof files);
    for (int f = 0; f < 2; f++) files[f].header[0] = '{', files[f].used = 1;
#define VALUES(array, count) for (size_t i_ = 0; i_ < (count); i_++) array[i_] = test_normal(&seed)
    VALUES(values, VOCABULARY * WIDTH);
    tensor(&files[0], "model.embed_tokens.weight", "BF16", VOCABULARY, WIDTH, raw, as("BF16", values, VOCABULARY * WIDTH, raw));
    VALUES(values, WIDTH);
    tensor(&files[0], "model.layers.0.input_layernorm.weight", "F16", 0, WIDTH, raw, as("F16", values, WIDTH, raw));
    VALUES(norm, WIDTH);
    tensor(&files[1], "model.layers.0.post_attention_layernorm.weight", "BF16", 0, WIDTH, raw, as("BF16", norm, WIDTH, raw));
    VALUES(values, WIDTH);
    tensor(&files[1], "model.norm.weight", "F32", 0, WIDTH, raw, as("F32", values, WIDTH, raw));
    for (int l = 0; l < 7; l++)
        for (int b = 0; b < LEVELS; b++) {
            const char *dtype = types[(l + (l == 1 && b == 1)) % 3];
            VALUES(u, rows[l] * K);
            VALUES(vt, K * cols[l]);
            snprintf(name, sizeof name, "model.layers.0.%s.u_%d", linears[l], b);
            tensor(&files[b % 2], name, dtype, rows[l], K, raw, as(dtype, u, rows[l] * K, raw));
            snprintf(name, sizeof name, "model.layers.0.%s.vt_%d", linears[l], b);
            tensor(&files[b % 2], name, dtype, K, cols[l], raw, as(dtype, vt, K * cols[l], raw));
            memset(signs, 0, sizeof signs);
            for (unsigned i = 0; i < rows[l]; i++)
                for (unsigned j = 0; j < cols[l]; j++) {
                    unsigned bit = i * cols[l] + j, positive = (unsigned)(test_random(&seed) >> 40 & 1);
                    signs[bit / 8] |= (unsigned char)(positive << (7 - bit % 8));
                    double sum = b ? dense[l][b - 1][bit] : 0, product = 0;
                    for (int r = 0; r < K; r++) product += (double)u[i * K + (unsigned)r] * (double)vt[(unsigned)r * cols[l] + j];
                    dense[l][b][bit] = sum + (positive ? product : -product);
                }
            snprintf(name, sizeof name, "model.layers.0.%s.qweight_%d", linears[l], b);
            tensor(&files[b % 2], name, "U8", 0, (rows[l] * cols[l] + 7) / 8, signs, (rows[l] * cols[l] + 7) / 8);
        }
    static const char config[] = "{\"model_type\":\"llama\",\"hidden_size\":12,\"intermediate_size\":10,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"num_key_value_heads\":1,\"vocab_size\":16,\"max_position_embeddings\":32,\"tie_word_embeddings\":true,\"rms_norm_eps\":1e-5}";
    return command_shell("mkdir own") || finish(&files[0], "own/model-00001-of-00002.safetensors") || finish(&files[1], "own/model-00002-of-00002.safetensors") ||
           command_save("own/config.json", config, sizeof config - 1);
}

int main(int argc, char **argv) {
    (void)argc;
    char line[900], copy[700], name[100];
    llm_error error;
    llm_json configs;
    size_t bytes;
    bitstack *stack;
    bitstack_block block;
    if (command_begin(argv[0], "import")) return 1;
    const char *shared = test_shared("oracle/checkpoint");
    char here[300];
    if (!getcwd(here, sizeof here)) return 1;
    snprintf(copy, sizeof copy, "%s%s%s/.", shared[0] == '/' ? "" : here, shared[0] == '/' ? "" : "/", shared);
    char *text = (char *)test_read_file(test_shared("oracle/checkpoint/compression_config.json"), &bytes);
    int there = text && llm_json_parse(&configs, text, bytes, "configs", &error) == 0;
    snprintf(line, sizeof line, "mkdir toy && cp -r '%s' toy && chmod -R u+w toy", copy);
    if (there && command_shell(line) != 0) there = 0;

    TEST("every config of the toy checkpoint is a prefix of its stack; the chosen one's matrices are the expected ones");
    if (!there) SKIP("no ../shared/oracle/checkpoint");
    else {
        CHECK(command_run("import toy -o toy.bitstack") == 0 && !command_err[0], "%s", command_err);
        if (!(stack = open_stack("toy.bitstack"))) return TEST_DONE();
        double worst = 0;
        for (size_t c = 0; c < configs.values[0].count; c++) {
            bitstack_get_block(stack, 13 + (int)c, &block);
            bitstack_set_budget(stack, block.resident_after, NULL);
            CHECK(at_config(stack, &configs, c), "not config %zu", c);
            for (int l = 0; c == 21 && l < 14; l++) {
                snprintf(name, sizeof name, "oracle/checkpoint/expected_dense/layer.%d.%s.f32", l / 7, linears[l % 7]);
                float *expected = (float *)test_read_file(test_shared(name), &bytes), weights[160 * 64];
                bitstack_matrix m;
                snprintf(name, sizeof name, "layer.%d.%s", l / 7, linears[l % 7]);
                int i = matrix_of(stack, name);
                bitstack_get_matrix(stack, i, &m);
                CHECK(expected && bytes == (size_t)m.shape.rows * m.shape.cols * 4 && bitstack_dequantize(stack, i, weights, m.shape.cols) == BITSTACK_OK, "%s", name);
                for (size_t k = 0; expected && k < bytes / 4; k++) {
                    double off = fabs((double)weights[k] - (double)expected[k]);
                    if (off > worst) worst = off;
                    CHECK(off <= 0x1p-11 * fabs((double)expected[k]) + 1e-7, "%s[%zu] is %g, not %g", name, k, (double)weights[k], (double)expected[k]);
                }
                free(expected);
            }
        }
        printf("      largest difference %.3g\n", worst);
        bitstack_close(stack);
        CHECK(command_run("verify toy.bitstack") == 0, "%s", command_err);
    }

    TEST("a budget loads the config that the published loader chooses");
    FILE *cases = there ? fopen(test_shared("oracle/checkpoint/budget_cases.csv"), "r") : NULL;
    if (!cases) SKIP("no ../shared/oracle/checkpoint");
    else {
        unsigned long long budget;
        int config, seen = 0;
        CHECK(fgets(line, sizeof line, cases) != NULL, "empty");
        for (; fscanf(cases, "%llu,%d", &budget, &config) == 2; seen++) {
            snprintf(line, sizeof line, "import toy -o b.bitstack --budget %llu", budget);
            if (config < 0) {
                CHECK(command_fails(line, 1, "53984"), "%llu", budget);
                continue;
            }
            CHECK(command_run(line) == 0, "%s", command_err);
            if (!(stack = open_stack("b.bitstack"))) break;
            CHECK(at_config(stack, &configs, (size_t)config), "%llu does not give config %d", budget, config);
            CHECK(bitstack_blocks_available(stack) == 14 + config, "%d blocks", bitstack_blocks_available(stack));
            bitstack_close(stack);
        }
        CHECK(seen == 14, "%d cases", seen);
        fclose(cases);
    }

    TEST("without configs the order is that of the perplexities, NaN behind the others; without these level by level");
    if (!there) SKIP("no ../shared/oracle/checkpoint");
    else {
        CHECK(command_shell("mv toy/compression_config.json toy/c; \"$B\" import toy -o p.bitstack") == 0, "%s", command_err);
        if ((stack = open_stack("p.bitstack"))) CHECK(ordered_as(stack, test_shared("oracle/checkpoint/sorted_order.txt")), "another order");
        bitstack_close(stack);
        CHECK(command_shell("cp toy/nan_cases/reduced_ppl_nan_not_first.json toy/reduced_ppl_average.json; \"$B\" import toy -o n.bitstack") == 0, "%s", command_err);
        if ((stack = open_stack("n.bitstack"))) CHECK(ordered_as(stack, test_shared("oracle/checkpoint/nan_cases/sorted_order_nan_not_first.txt")), "another order");
        bitstack_close(stack);
        CHECK(command_shell("cp toy/nan_cases/reduced_ppl_nan_first.json toy/reduced_ppl_average.json; \"$B\" import toy -o n.bitstack") == 0, "%s", command_err);
        if ((stack = open_stack("n.bitstack"))) /* theirs puts them first by mistake */
            for (int i = 0; i < 2; i++) {
                bitstack_get_block(stack, 26 + i, &block);
                CHECK(block.level == 2 && (block.matrix == 0 || block.matrix == 8), "matrix %u, level %u", block.matrix, block.level);
            }
        bitstack_close(stack);
        CHECK(command_shell("rm toy/reduced_ppl_average.json; \"$B\" import toy -o l.bitstack") == 0 && strstr(command_out, "ordered by level"), "%s", command_err);
        if ((stack = open_stack("l.bitstack")))
            for (int i = 0; i < 56; i++) bitstack_get_block(stack, i, &block), test_bad_ += block.matrix != (uint32_t)i % 14;
        bitstack_close(stack);
        CHECK(command_fails("import toy -o l.bitstack --budget 1MB", 1, "compression_config.json"), "budget without configs");
    }

    TEST("odd shapes, factors and remainders of every type, several files: exact at every level");
    CHECK(make_checkpoint() == 0 && command_run("import own -o own.bitstack") == 0, "%s", command_err);
    struct stat made;
    unsigned long long told = 0;
    CHECK(command_run("import own -o told.bitstack --json") == 0 && stat(command_file("told.bitstack"), &made) == 0 &&
              strstr(command_out, "\"bytes\": ") && sscanf(strstr(command_out, "\"bytes\": ") + 9, "%llu", &told) == 1 &&
              told == (unsigned long long)made.st_size && strstr(command_out, "{\"file\": \"told.bitstack\", \"matrices\": 7, ") == command_out &&
              command_shell("cmp own.bitstack told.bitstack") == 0,
          "%s%s", command_out, command_err);
    if ((stack = open_stack("own.bitstack"))) {
        for (int l = 0; l < 7; l++)
            for (uint32_t b = 0; b < LEVELS; b++) {
                float weights[WIDTH * WIDTH];
                bitstack_matrix m;
                snprintf(name, sizeof name, "layer.0.%s", linears[l]);
                int i = matrix_of(stack, name);
                CHECK(bitstack_set_level(stack, i, b + 1, NULL) == BITSTACK_OK && bitstack_dequantize(stack, i, weights, cols[l]) == BITSTACK_OK, "%s", name);
                bitstack_get_matrix(stack, i, &m);
                CHECK(m.shape.factor_type == (l % 3 == 0 ? BITSTACK_F16 : BITSTACK_F32), "%s: factors of type %d", name, (int)m.shape.factor_type);
                for (unsigned k = 0; k < rows[l] * cols[l]; k++)
                    CHECK(fabs((double)weights[k] - dense[l][b][k]) < 4e-6, "%s[%u] is %g, not %g", name, k, (double)weights[k], dense[l][b][k]);
            }
        bitstack_tensor t;
        CHECK(bitstack_get_tensor(stack, bitstack_find_tensor(stack, "blk.0.ffn_norm.weight"), &t) == BITSTACK_OK && t.type == BITSTACK_BF16, "bfloat16 norm");
        for (int i = 0; i < WIDTH; i++) {
            uint32_t bits;
            memcpy(&bits, &norm[i], 4);
            CHECK(((const unsigned char *)t.data)[2 * i + 1] == bits >> 24 && ((const unsigned char *)t.data)[2 * i] == (bits >> 16 & 255), "norm %d", i);
        }
        CHECK(bitstack_find_tensor(stack, "output.weight") < 0 && bitstack_get_tensor(stack, bitstack_find_tensor(stack, "output_norm.weight"), &t) == BITSTACK_OK &&
              t.type == BITSTACK_F32, "remainders");
    }
    bitstack_close(stack);

    TEST("what is not a whole checkpoint ends in one line that says what was expected, and leaves nothing");
    static const struct { const char *make, *words; } bad[] = {
        {"rm bad/config.json", "config.json"}, {"rm bad/*.safetensors", "expected a folder with *.safetensors"},
        {"rm bad/model-00002*", "expected qweight_I, u_I and vt_I"}, {"echo '[' >bad/compression_config.json", "compression_config.json: offset"},
        {"echo '[]' >bad/compression_config.json", "expected a list of configs"}, {"echo '[{\"memory\":5,\"layers\":{\"layer.7.mlp.up_proj\":1}}]' >bad/compression_config.json", "config 0"},
        {"echo '[{\"memory\":5,\"layers\":{\"layer.0.mlp.up_proj\":9}}]' >bad/compression_config.json", "config 0"}, {"echo '[{\"memory\":NaN,\"layers\":{}}]' >bad/compression_config.json", "config 0"},
        {"echo '[{\"memory\":5,\"layers\":{}},{\"memory\":4,\"layers\":{}}]' >bad/compression_config.json", "config 1"},
        {"{ printf '['; for i in $(seq 44); do printf '{\"memory\":5,\"layers\":{}},'; done; echo '{\"memory\":5,\"layers\":{}}]'; } >bad/compression_config.json",
         "expected at most 44 configs for so many blocks, found 45"},
        {"echo '{\"reduced_ppl\":[{\"bit\":1,\"ppls\":[]}]}' >bad/reduced_ppl_average.json", "expected a perplexity for bit 1"},
        {"echo '{\"reduced_ppl\":[{\"bit\":1,\"ppls\":[{\"layer\":\"layer.0.mlp.up\",\"ppl\":1}]}]}' >bad/reduced_ppl_average.json", "entry 0"},
        {"sed -i 's/mlp.up_proj.u_1/mlp.up_proj.u_x/' bad/model-00002*", "expected at most 32 blocks"}, {"sed -i 's/input_layernorm/input_layermorn/' bad/model-00001*", "input_layermorn"},
        {"sed -i 's/\\[10,2\\]/[2,10]/' bad/model-00001*", "expected u of rows x k"}, {"truncate -s 3000 bad/model-00001*", "model-00001"},
        {"sed -i 's/\"hidden_size\":12/\"hidden_size\":24/' bad/config.json", "expected"}, {"cp bad/model-00001* bad/model.safetensors", "found twice"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(line, sizeof line, "rm -rf bad && cp -r own bad && %s", bad[i].make);
        CHECK(command_shell(line) == 0 && command_fails("import bad -o bad.bitstack", 1, bad[i].words), "%s", bad[i].make);
    }
    CHECK(command_shell("ls | grep bad.bitstack") != 0, "left: %s", command_out);
    CHECK(command_fails("import own", 2, "-o is missing") && command_fails("import none -o x.bitstack", 1, "none/config.json"), "usage");

    TEST("JSON as Python writes it has NaN and infinities; RFC 8259 has not");
    static const char python[] = "[NaN, -Infinity,Infinity ,-1]";
    llm_json json;
    CHECK(llm_json_parse(&json, python, sizeof python - 1, "j", &error) != 0, "strict");
    CHECK(llm_json_parse_python(&json, python, sizeof python - 1, "j", &error) == 0 && json.values[0].count == 4 && isnan(json.values[1].number) &&
          json.values[2].number < -1e300 && json.values[3].number > 1e300, "%s", error.message);
    llm_json_free(&json);
    CHECK(llm_json_parse_python(&json, "[Nan]", 5, "j", &error) != 0 && llm_json_parse_python(&json, "-Inf", 4, "j", &error) != 0 && llm_json_parse_python(&json, "-", 1, "j", &error) != 0, "nearly");
    if (there) llm_json_free(&configs);
    free(text);
    return TEST_DONE();
}
