/* A model is read from what files it comes in: several GGUF files, SentencePiece's own vocabulary; and what stands in the
 * place of a file, or is no model that runs, is named for what it is before any work is done. */
#include "command.h"
#include "make_gguf.h"
#include "../examples/llm/gguf.h"
#include "../examples/llm/hf.h"
#include "../examples/llm/model.h"
#include "../examples/llm/tokenizer.h"

/* The tensors of the small llama in `parts` files, as llama-gguf-split writes them; with a chat template if that is not NULL. */
static int split(const char *stem, uint32_t parts, const char *template) {
    gguf_maker g;
    llm_source s;
    int bad = 0;
    make_tiny_llama(&g, 7);
    if (llm_gguf_open_memory(&s, g.data, g.bytes, "tiny.gguf", NULL) != 0) return 1;
    size_t metas = 0; /* where the metadata ends: the first tensor's name, with its length, begins there */
    for (size_t i = 24; i + 17 < g.bytes && !metas; i++)
        if (memcmp(g.data + i, "token_embd.weight", 17) == 0) metas = i - 8;
    for (uint32_t p = 0; p < parts && !bad; p++) {
        gguf_maker part;
        char name[80];
        make_start(&part, 3);
        if (p == 0) {
            make_raw(&part, g.data + 24, metas - 24);
            part.metas = g.metas;
        }
        if (p == 0 && template) make_meta_string(&part, "tokenizer.chat_template", template);
        make_meta_u32(&part, "split.no", p), make_meta_u32(&part, "split.count", parts), make_meta_u32(&part, "split.tensors.count", (uint32_t)s.tensor_count);
        for (size_t i = p; i < s.tensor_count; i += parts) {
            const llm_tensor *t = &s.tensors[i];
            const uint64_t shape[2] = {llm_tensor_cols(t), llm_tensor_rows(t)};
            snprintf(name, sizeof name, "%.*s", (int)t->name.bytes, t->name.text);
            make_tensor(&part, name, (uint32_t)t->dimensions, shape, (uint32_t)t->type, t->bytes);
        }
        make_finish(&part);
        for (size_t i = p; i < s.tensor_count; i += parts) make_data(&part, s.tensors[i].data, (size_t)s.tensors[i].bytes);
        snprintf(name, sizeof name, "%s-%05u-of-%05u.gguf", stem, p + 1, parts);
        bad = command_save(name, part.data, part.bytes);
        free(part.data);
    }
    llm_source_close(&s);
    free(g.data);
    return bad;
}

/* ---- SentencePiece's file ---- */

static unsigned char spm[1 << 16];
static size_t spm_bytes;
static void spm_key(unsigned field, unsigned way) {
    if (field * 8 + way > 127) spm[spm_bytes++] = (unsigned char)((field * 8 + way) | 128), spm[spm_bytes++] = (unsigned char)((field * 8 + way) >> 7);
    else spm[spm_bytes++] = (unsigned char)(field * 8 + way);
}
static void spm_piece(const char *text, float score, unsigned type) {
    size_t length = strlen(text);
    spm_key(1, 2), spm[spm_bytes++] = (unsigned char)(length + 2 + 5 + 2);
    spm_key(1, 2), spm[spm_bytes++] = (unsigned char)length;
    memcpy(spm + spm_bytes, text, length), spm_bytes += length;
    spm_key(2, 5), memcpy(spm + spm_bytes, &score, 4), spm_bytes += 4;
    spm_key(3, 0), spm[spm_bytes++] = (unsigned char)type;
}
/* The pieces "a" "b" "ab" " " and bytes; `charsmap`: with a table of what is to be replaced. */
static void make_spm(unsigned kind, int charsmap, float score) {
    char text[8];
    spm_bytes = 0;
    spm_piece("<unk>", 0, 2), spm_piece("<s>", 0, 3), spm_piece("</s>", 0, 3);
    for (unsigned b = 0; b < 256; b++) snprintf(text, sizeof text, "<0x%02X>", b), spm_piece(text, 0, 6);
    spm_piece("a", -3, 1), spm_piece("b", -3, 1), spm_piece("ab", score, 1), spm_piece("\xE2\x96\x81", -2, 1);
    spm_key(2, 2), spm[spm_bytes++] = 2, spm_key(3, 0), spm[spm_bytes++] = (unsigned char)kind;
    spm_key(3, 2), spm[spm_bytes++] = (unsigned char)(2 + (charsmap ? 3 : 0));
    if (charsmap) spm_key(2, 2), spm[spm_bytes++] = 1, spm[spm_bytes++] = 7;
    spm_key(4, 0), spm[spm_bytes++] = 0; /* spaces are not removed */
}

int main(int argc, char **argv) {
    (void)argc;
    if (command_begin(argv[0], "formats")) return 1;
    gguf_maker g;
    llm_source s;
    llm_tokenizer t;
    llm_error error;
    static char whole[sizeof command_out], line[2000];

    TEST("a model in several GGUF files is the one that they were split from");
    make_tiny_llama(&g, 7);
    CHECK(command_save("whole.gguf", g.data, g.bytes) == 0 && split("m", 3, NULL) == 0, "not made");
    free(g.data);
    CHECK(command_run("run whole.gguf --prompt the -n 20 --temperature 0") == 0, "%s", command_err);
    snprintf(whole, sizeof whole, "%s", command_out);
    CHECK(command_run("run m-00001-of-00003.gguf --prompt the -n 20 --temperature 0") == 0 && strcmp(whole, command_out) == 0 && whole[4], "'%s' and '%s': %s", command_out, whole, command_err);
    CHECK(command_run("compress m-00001-of-00003.gguf -o m.bitstack --levels 1 --rank 1") == 0, "%s", command_err);
    CHECK(command_fails("run m-00002-of-00003.gguf --prompt the", 1, "part 2 of 3"), "not the first");
    CHECK(command_shell("cp m-00001-of-00003.gguf other.gguf") == 0 && command_fails("run other.gguf --prompt the", 1, "-00001-of-00003.gguf"), "a name that does not tell");
    CHECK(command_shell("cp m-00002-of-00003.gguf m-00003-of-00003.gguf") == 0 && command_fails("run m-00001-of-00003.gguf --prompt the", 1, "split.no"), "one of them twice");
    CHECK(command_shell("rm m-00003-of-00003.gguf") == 0 && command_fails("run m-00001-of-00003.gguf --prompt the", 1, "m-00003-of-00003.gguf"), "one is not there");

    TEST("a pointer in the place of a file, a web page, and PyTorch's files are named");
    CHECK(command_shell("printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:0\\nsize 5\\n' >lfs.gguf; printf '<!DOCTYPE html>401' >page.gguf; printf 'PK\\003\\004aaaaaaa' >x.pt; "
                        "mkdir -p f && cp lfs.gguf f/model.safetensors && printf '{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":1,"
                        "\"num_attention_heads\":4,\"vocab_size\":263}' >f/config.json") == 0, "not made");
    CHECK(command_fails("run lfs.gguf --prompt x", 1, "Git LFS pointer") && command_fails("compress f -o x.bitstack", 1, "f/model.safetensors: it is a Git LFS pointer"), "pointers");
    CHECK(command_fails("plan page.gguf", 1, "a web page") && command_fails("run x.pt --prompt x", 1, "PyTorch"), "others");
    CHECK(command_shell(": >empty; mkdir -p bin lora && echo {} >bin/config.json && echo x >bin/pytorch_model.bin && echo {} >lora/adapter_config.json") == 0 &&
          command_fails("plan empty", 1, "it is empty") && command_fails("plan bin", 1, "bin: its weights are in PyTorch's format") && command_fails("plan lora", 1, "an adapter"), "folders");
    make_tiny_llama(&g, 7);
    CHECK(llm_gguf_open_memory(&s, g.data, g.bytes, "lora.gguf", NULL) == 0, "not read");
    llm_model adapter;
    const llm_string type = {"adapter", 7};
    CHECK(llm_add_text(&s, "general.type", type) == 0 && llm_model_load(&adapter, s, NULL, &error) != 0 && strstr(error.message, "adapter"), "%s", error.message);
    free(g.data);

    TEST("tokenizer.model serves where there is no tokenizer.json, with the marks of the other files");
    for (unsigned kind = 1; kind <= 2; kind++) {
        static const uint32_t want[] = {262, 261, 259, 262, 262, 3 + 'x', 264};
        uint32_t *ids;
        make_spm(kind, 0, -1);
        CHECK(command_save("f/tokenizer.model", spm, spm_bytes) == 0 && command_shell("printf '{\"<|im_start|>\":263}' >f/added_tokens.json; printf '%s' '{\"added_tokens_decoder\":"
              "{\"264\":{\"content\":\"<|im_end|>\",\"special\":true}},\"eos_token\":\"<|im_end|>\"}' >f/tokenizer_config.json") == 0, "not made");
        memset(&s, 0, sizeof s);
        s.path = strdup("f");
        snprintf(line, sizeof line, "%s/f", command_folder);
        CHECK(llm_hf_metadata(&s, line, &error) == 0 && llm_tokenizer_load(&t, &s, &error) == 0, "%s", error.message);
        if (!test_bad_) {
            CHECK(t.kind == (kind == 1 ? LLM_TOKENS_UNIGRAM : LLM_TOKENS_PIECES) && t.count == 265 && t.bos == 1 && t.eos == 264 && t.add_bos && !t.single_spaces, "kind %d", t.kind);
            CHECK(llm_encode_marked(&t, "aba  x<|im_end|>", 16, &ids) == 7 && memcmp(ids, want, sizeof want) == 0, "ids");
            free(ids);
            llm_tokenizer_free(&t);
        }
        llm_source_close(&s);
    }
    static const struct { unsigned kind; int charsmap; float score; size_t cut; const char *words; } bad[] = {
        {2, 1, -1, 0, "normalizer"}, {3, 0, -1, 0, "SentencePiece"}, {2, 0, NAN, 0, "finite"}, {2, 0, -1, 3, "SentencePiece"}, {2, 0, -1, 5000, "SentencePiece"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_spm(bad[i].kind, bad[i].charsmap, bad[i].score);
        if (bad[i].cut == 5000) memcpy(spm, "IQ== 0\nIg== 1\n", spm_bytes = 14); /* as tiktoken writes its own */
        memset(&s, 0, sizeof s);
        CHECK(llm_hf_sentencepiece(&s, (const char *)spm, spm_bytes - (bad[i].cut == 3 ? 3 : 0), "tokenizer.model", &error) != 0 && strstr(error.message, bad[i].words), "case %zu: %s", i, error.message);
        llm_source_close(&s);
    }

    TEST("what could not run is said before it is compressed, and marks without rows are left out");
    make_tiny_llama(&g, 7);
    for (size_t i = 0; i + 5 < g.bytes; i++)
        if (memcmp(g.data + i, "llama", 5) == 0 && i > 20 && memcmp(g.data + i - 32, "tokenizer.ggml.model", 20) == 0) memcpy(g.data + i, "worda", 5);
    CHECK(command_save("worda.gguf", g.data, g.bytes) == 0, "not made");
    free(g.data);
    CHECK(command_fails("compress worda.gguf -o worda.bitstack", 1, "tokenizer.ggml.model") && !command_exists("worda.bitstack"), "compressed");
    for (int mark = 0; mark < 2; mark++) { /* one token more than rows */
        make_tiny_llama(&g, 7);
        CHECK(llm_gguf_open_memory(&s, g.data, g.bytes, "tiny.gguf", NULL) == 0, "not read");
        llm_string *pieces = malloc(301 * sizeof *pieces), more = {"<pad>", 5};
        int32_t kinds[301];
        float scores[301] = {0};
        const llm_meta *tokens = llm_find_meta(&s, "tokenizer.ggml.tokens"), *types = llm_find_meta(&s, "tokenizer.ggml.token_type");
        for (uint64_t i = 0; i < 301; i++) pieces[i] = i < 300 ? tokens->strings[i] : more, kinds[i] = i < 300 ? (int32_t)llm_meta_element(types, i) : mark ? 3 : 1;
        CHECK(llm_add_strings(&s, "tokenizer.ggml.tokens", pieces, 301) == 0 && llm_add_numbers(&s, "tokenizer.ggml.token_type", LLM_I32, kinds, 301) == 0 &&
              llm_add_numbers(&s, "tokenizer.ggml.scores", LLM_F32, scores, 301) == 0, "no memory");
        int loaded = llm_tokenizer_load(&t, &s, &error) == 0;
        CHECK(loaded == mark && (mark ? t.count == 300 : strstr(error.message, "at most 300 tokens") != NULL), "%s", error.message);
        if (loaded) llm_tokenizer_free(&t);
        llm_source_close(&s);
        free(g.data);
    }
    TEST("a chat template that is not known is said, and --form chooses one that is; what is chosen wrongly is refused with the names of all");
    CHECK(split("odd", 1, "{% for m in messages %}~{{ m.role }}~{{ m.content }}{% endfor %}") == 0 && split("even", 1, "{{ '<|im_start|>' + m.role }}") == 0, "not made");
    CHECK(command_shell("printf 'the\\n:info\\n' | \"$B\" chat odd-00001-of-00001.gguf -n 2") == 0 && strstr(command_err, "none that is known") && strstr(command_err, "--form NAME") &&
          strstr(command_err, "gemma") && strstr(command_out, "plain turns"), "%s%s", command_out, command_err);
    CHECK(command_shell("printf 'the\\n:info\\n' | \"$B\" chat odd-00001-of-00001.gguf -n 2 --form vicuna --system the") == 0 && !command_err[0] && strstr(command_out, "vicuna turns"), "%s%s",
          command_out, command_err);
    CHECK(command_shell("printf 'the\\n:info\\n' | \"$B\" chat even-00001-of-00001.gguf -n 2") == 0 && !command_err[0] && strstr(command_out, "chatml turns"), "%s%s", command_out, command_err);
    CHECK(command_fails("chat odd-00001-of-00001.gguf --form none", 2, "zephyr"), "an unknown form");
    TEST("an embedding of eight bits that is not coded stays as it is, and runs");
    {
        enum { BLOCKS = 300 * 2, BYTES = BLOCKS * 34 }; /* of the small llama's 300 x 64 halves */
        bitstack *stack;
        bitstack_error why;
        bitstack_tensor tensor;
        size_t name = 0;
        make_tiny_llama(&g, 7);
        for (size_t i = 24; i + 17 < g.bytes && !name; i++)
            if (memcmp(g.data + i, "token_embd.weight", 17) == 0) name = i;
        g.data[name + 17 + 4 + 16] = LLM_TYPE_Q8_0; /* behind the name: dimensions, shape, type */
        unsigned char *data = (unsigned char *)g.data + (g.bytes - g.next);
        for (size_t b = 0; b < BLOCKS; b++) {
            data[34 * b] = 0, data[34 * b + 1] = 0x20; /* a scale of 2^-7 */
            for (size_t i = 2; i < 34; i++) data[34 * b + i] = (unsigned char)(b * 31 + i * i);
        }
        CHECK(command_save("eight.gguf", g.data, g.bytes) == 0, "not made");
        CHECK(command_run("compress eight.gguf -o eight.bitstack --levels 1 --calibrate none --compress-embeddings no") == 0, "%s", command_err);
        CHECK(bitstack_open_file(&stack, command_file("eight.bitstack"), NULL, &why) == BITSTACK_OK, "%s", why.message);
        CHECK(bitstack_get_tensor(stack, bitstack_find_tensor(stack, "token_embd.weight"), &tensor) == BITSTACK_OK && tensor.type == BITSTACK_Q8_0 &&
              tensor.bytes == BYTES && memcmp(tensor.data, data, BYTES) == 0, "%llu bytes of type %d", (unsigned long long)tensor.bytes, (int)tensor.type);
        bitstack_close(stack);
        CHECK(command_run("run eight.bitstack --prompt the -n 5 --temperature 0") == 0, "%s", command_err);
        free(g.data);
    }
    return TEST_DONE();
}
