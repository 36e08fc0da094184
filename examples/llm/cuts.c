#include "cuts.h"

#include <string.h>

/* Where words end, as the tokenizer.json files of the models say; where a file gives one long expression it is the last. */
#define CASELESS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CASELESS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST
#define QWEN2 CASELESS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST
#define QWEN35 CASELESS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" REST
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define IN_FRONT "[^\\r\\n\\p{L}\\p{N}]?"
#define TEKKEN IN_FRONT UPPER "*" LOWER "+|" IN_FRONT UPPER "+" LOWER "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST
#define GPT4O IN_FRONT UPPER "*" LOWER "+" CASELESS "?|" IN_FRONT UPPER "+" LOWER "*" CASELESS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST
#define SEED CASELESS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" REST
#define IDEOGRAPHS "[\\u4e00-\\u9fa5\\u3040-\\u309f\\u30a0-\\u30ff]+"
#define IDEOGRAPHS_AND_HANGUL "[\\u4e00-\\u9fa5\\u0800-\\u4e00\\uac00-\\ud7ff]+"
#define DEEPSEEK3 "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" REST
#define SENTENCES " ?[^(\\s|.,!?\\u2026\\u3002\\uff0c\\u3001\\u0964\\u06d4\\u060c)]+"

const char llm_gpt2_pattern[] = GPT2;

static const struct { const char *pattern; llm_words words; } written_out[] = {
    {GPT2, LLM_WORDS_GPT2}, {LLAMA3, LLM_WORDS_LLAMA3}, {QWEN2, LLM_WORDS_QWEN2}, {"\\s+$", LLM_WORDS_LAST_SPACES}};

static const struct { const char *names, *patterns[LLM_MOST_CUTS]; } named[] = {
    {" gpt-2 gpt2 phi-2 mpt olmo jais jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code gigachat roberta-bpe trillion "
     "a.x-4.0 mellum modern-bert exaone4 ", {GPT2}},
    {" llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe chatglm-bpe glm4 ", {LLAMA3}},
    {" qwen2 deepseek-r1-qwen stablelm2 megrez kormo hunyuan-dense-qwen ", {QWEN2}},
    {" qwen35 ", {QWEN35}},
    {" smollm codeshell command-r refact starcoder exaone minerva-7b ", {"\\p{N}", GPT2}},
    {" tekken ", {TEKKEN}},
    {" gpt-4o llama4 ", {GPT4O}},
    {" seed-coder ", {SEED}},
    {" bailingmoe bailingmoe2 llada-moe ", {QWEN2}},
    {" falcon ", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {" deepseek-llm ", {"[\\r\\n]", "\\s?[\\p{Lu}\\p{Ll}\\p{Lt}]+", "\\s?[!-/:-~\\uff01-\\uff0f\\uff1a-\\uff5e\\u2018-\\u201f\\u3000-\\u3002]+", "\\s+$",
                        IDEOGRAPHS_AND_HANGUL, "\\p{N}+"}},
    {" deepseek-coder ", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", IDEOGRAPHS_AND_HANGUL, "\\p{N}"}},
    {" deepseek-v3 hunyuan-dense hunyuan joyai-llm ", {"\\p{N}{1,3}", IDEOGRAPHS, DEEPSEEK3}},
    {" poro-chat bloom gpt3-finnish ", {SENTENCES}},
    {" viking ", {SENTENCES, "\\p{N}"}},
    {" chameleon ", {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {" default ", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};

int llm_cuts_add(llm_cuts *cuts, llm_string pattern) {
    if (cuts->count == LLM_MOST_CUTS) return -1;
    llm_words words = LLM_WORDS_NONE;
    for (size_t i = 0; i < sizeof written_out / sizeof *written_out; i++)
        if (llm_string_is(pattern, written_out[i].pattern)) words = written_out[i].words;
    llm_pattern *compiled = words == LLM_WORDS_NONE ? llm_pattern_compile(pattern) : NULL;
    if (words == LLM_WORDS_NONE && !compiled) return -1;
    cuts->cuts[cuts->count].words = words;
    cuts->cuts[cuts->count++].pattern = compiled;
    return 0;
}

int llm_cuts_named(llm_cuts *cuts, llm_string name) {
    memset(cuts, 0, sizeof *cuts);
    for (size_t i = 0; i < sizeof named / sizeof *named && name.bytes; i++)
        for (const char *at = named[i].names + 1; *at; at += strcspn(at, " ") + 1) {
            if (strcspn(at, " ") != name.bytes || memcmp(at, name.text, name.bytes) != 0) continue;
            for (int k = 0; k < LLM_MOST_CUTS && named[i].patterns[k]; k++) {
                llm_string pattern = {named[i].patterns[k], strlen(named[i].patterns[k])};
                if (llm_cuts_add(cuts, pattern) == 0) continue;
                llm_cuts_free(cuts);
                return -1;
            }
            /* Written out as one: every digit, then GPT-2's words. */
            if (cuts->count == 2 && cuts->cuts[1].words == LLM_WORDS_GPT2 && strcmp(named[i].patterns[0], "\\p{N}") == 0) {
                llm_cuts_free(cuts);
                cuts->cuts[0].words = LLM_WORDS_DIGITS;
                cuts->count = 1;
            }
            return 0;
        }
    return -1;
}

void llm_cuts_free(llm_cuts *cuts) {
    for (int i = 0; i < cuts->count; i++) llm_pattern_free(cuts->cuts[i].pattern);
    memset(cuts, 0, sizeof *cuts);
}

size_t llm_cut(const llm_cuts *cuts, const char *text, size_t bytes, size_t at, size_t ends[LLM_MOST_CUTS]) {
    size_t whole = bytes; /* what the cut before left whole ends there */
    for (int i = 0; i < cuts->count; whole = ends[i++]) {
        if (ends[i] > at) continue;
        const llm_pattern *pattern = cuts->cuts[i].pattern;
        ends[i] = at + (pattern ? llm_pattern_word(pattern, text + at, whole - at) : llm_word(cuts->cuts[i].words, text + at, whole - at));
    }
    return whole;
}
