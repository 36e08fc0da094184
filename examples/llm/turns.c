#include "turns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEEPSEEK_USER "<\xEF\xBD\x9C" "User\xEF\xBD\x9C>"
#define DEEPSEEK_ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"

/* The first whose signs are all there. The last one has none and serves for everything else. */
static const llm_turns forms[] = {
    {"phi4", {"<|im_sep|>", "<|im_start|>"}, "<|im_start|>system<|im_sep|>", "<|im_end|>", "<|im_start|>user<|im_sep|>",
     "<|im_end|><|im_start|>assistant<|im_sep|>", "<|im_end|>", "<|im_end|>", 0},
    {"chatml", {"<|im_start|>"}, "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
     "<|im_end|>\n", "<|im_end|>", 0},
    {"llama3", {"<|start_header_id|>"}, "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", "<|eot_id|>", 0},
    {"deepseek-r1", {DEEPSEEK_USER, DEEPSEEK_ASSISTANT "<think>\n"}, "", "", DEEPSEEK_USER, DEEPSEEK_ASSISTANT "<think>\n", "\2", NULL, 0},
    {"deepseek", {DEEPSEEK_USER}, "", "", DEEPSEEK_USER, DEEPSEEK_ASSISTANT, "\2", NULL, 0},
    {"gemma", {"<start_of_turn>"}, "<start_of_turn>user\n", "\n\n", "<start_of_turn>user\n",
     "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>\n", "<end_of_turn>", 1},
    {"mistral-v7", {"[SYSTEM_PROMPT]", "[INST]"}, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "\2", NULL, 0},
    {"llama2", {"[INST]", "<<SYS>>"}, "[INST] <<SYS>>\n", "\n<</SYS>>\n\n", "[INST] ", " [/INST]", " \2\1", NULL, 1},
    {"mistral-v1", {"[INST]", " [/INST]"}, "[INST] ", "\n\n", "[INST] ", " [/INST]", "\2", NULL, 1},
    {"mistral-v3", {"[INST] "}, "[INST] ", "\n\n", "[INST] ", "[/INST]", "\2", NULL, 1},
    {"mistral-tekken", {"[INST]"}, "[INST]", "\n\n", "[INST]", "[/INST]", "\2", NULL, 1},
    {"phi4-mini", {"<|end|>", "'|>' + message['content'] + '<|end|>'"}, "<|system|>", "<|end|>", "<|user|>", "<|end|><|assistant|>",
     "<|end|>", "<|end|>", 0},
    {"phi3", {"<|end|>", "<|assistant|>"}, "<|system|>\n", "<|end|>\n", "<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>\n", "<|end|>", 0},
    {"zephyr", {"<|user|>", "<|assistant|>", "eos_token"}, "<|system|>\n", "\2\n", "<|user|>\n", "\2\n<|assistant|>\n", "\2\n", "<|user|>", 0},
    {"openchat", {"GPT4 Correct"}, "", "<|end_of_turn|>", "GPT4 Correct User: ", "<|end_of_turn|>GPT4 Correct Assistant:",
     "<|end_of_turn|>", "<|end_of_turn|>", 0},
    {"vicuna", {"USER: ", "ASSISTANT:"}, "", " ", "USER: ", " ASSISTANT:", "\2", "USER:", 0},
    {"deepseek-llm", {"'User: '", "'Assistant: ' + message['content'] + eos_token"}, "", "\n\n", "User: ", "\n\nAssistant:", "\2", "\n\nUser:", 0},
    {"deepseek-coder", {"### Instruction:", "<|EOT|>"}, "", "", "### Instruction:\n", "\n### Response:\n", "\n<|EOT|>\n", "<|EOT|>", 0},
    {"alpaca", {"### Instruction:", "### Response:"}, "", "\n\n", "### Instruction:\n", "\n\n### Response:\n", "\n\n", "\n### Instruction:", 0},
    {"plain", {NULL}, "", "\n", "User: ", "\nAssistant:", "\n", "\nUser:", 0},
};
enum { FORMS = sizeof forms / sizeof *forms };

/* Length of `what` at the beginning of a template; 0 if it is not there. Ends of lines are often written as in C. */
static size_t stands(const char *text, size_t bytes, const char *what) {
    size_t at = 0;
    for (; *what; what++)
        if (at < bytes && text[at] == *what) at++;
        else if (*what == '\n' && at + 1 < bytes && text[at] == '\\' && text[at + 1] == 'n') at += 2;
        else return 0;
    return at;
}

static const char *find(llm_string in, const char *what) {
    for (size_t i = 0; i < in.bytes; i++)
        if (stands(in.text + i, in.bytes - i, what)) return in.text + i;
    return NULL;
}

static int begins(llm_string text, const char *with) {
    size_t bytes = strlen(with);
    return text.bytes >= bytes && memcmp(text.text, with, bytes) == 0;
}

/* GGUF files may have several, "tokenizer.chat_template.NAME": the one without a name counts, else "default", else
 * the first that is for no tools. */
static llm_string template_of(const llm_source *s) {
    static const char prefix[] = "tokenizer.chat_template.";
    llm_string chat = llm_text(s, "tokenizer.chat_template");
    if (!chat.text) chat = llm_text(s, "tokenizer.chat_template.default");
    for (size_t i = 0; i < s->meta_count && !chat.text; i++)
        if (begins(s->meta[i].key, prefix) && s->meta[i].strings && s->meta[i].count && !find(s->meta[i].key, "tool")) chat = s->meta[i].strings[0];
    return chat;
}

const llm_turns *llm_turns_of(const llm_source *source, int *unknown) {
    llm_string chat = template_of(source);
    const llm_turns *form = forms;
    if (unknown) *unknown = 0;
    if (!chat.text || !chat.bytes) return &forms[FORMS - 1];
    for (; form->signs[0]; form++) {
        int there = 1;
        for (int i = 0; i < 3 && form->signs[i]; i++) there &= find(chat, form->signs[i]) != NULL;
        if (there) return form;
    }
    if (unknown) *unknown = 1;
    return form;
}

const llm_turns *llm_turns_named(const char *name) {
    for (size_t i = 0; i < FORMS; i++)
        if (strcmp(forms[i].name, name) == 0) return &forms[i];
    return NULL;
}

const char *llm_turns_names(void) {
    static char names[400];
    size_t used = 0;
    for (size_t i = 0; i < FORMS; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? i + 1 == FORMS ? " or " : ", " : "", forms[i].name);
    return names;
}

int llm_turns_begin(const llm_source *source) {
    llm_string chat = template_of(source);
    return chat.text && find(chat, "bos_token");
}

/* ---- what is said first ---- */

/* A literal text of the template up to `end`, as it reads: NULL where it is none but holds what is filled in. */
static char *literal(const char *text, size_t bytes, const char *end) {
    char *copy = malloc(bytes + 1);
    size_t made = 0;
    for (size_t at = 0; copy && at < bytes && !stands(text + at, bytes - at, end); at++) {
        char c = text[at];
        if (c == '{' || c == '}' || ((c == '\'' || c == '"') && at + 1 < bytes && (text[at + 1] == ' ' || text[at + 1] == '+' || text[at + 1] == '}')) ||
            at + 1 == bytes) {
            free(copy);
            return NULL;
        }
        if (c == '\\' && text[at + 1] == 'n') c = '\n', at++;
        else if (c == '\\') c = text[++at];
        copy[made++] = c;
    }
    if (copy) copy[made] = 0;
    if (copy && made) return copy;
    free(copy);
    return NULL;
}

/* Variables that templates keep it in, each set to a literal text. */
static char *assigned(llm_string chat) {
    static const char *const names[] = {"default_system_message = '", "default_system_message = \"", "default_system_prompt = '",
                                        "set system_message = '", "set system_message = \"", "set system_prompt = '"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char quote[2] = {names[i][strlen(names[i]) - 1], 0}, *at = find(chat, names[i]);
        if (!at) continue;
        at += strlen(names[i]);
        const size_t left = (size_t)(chat.text + chat.bytes - at);
        size_t length = 0;
        while (length < left && at[length] != *quote) length += at[length] == '\\' ? 2 : 1;
        size_t after = length + 1;
        while (after < left && at[after] == ' ') after++;
        int whole = after < left && (at[after] == '%' || at[after] == '-'); /* nothing is added to it */
        char *text = whole && length ? literal(at, length + 1, quote) : NULL;
        if (text) return text;
    }
    return NULL;
}

char *llm_turns_system(const llm_source *source, const llm_turns *turns) {
    llm_string chat = template_of(source);
    /* Llama 2's stand-in for a text that its library alone had. */
    if (!chat.text || find(chat, "USE_DEFAULT_PROMPT")) return NULL;
    for (size_t i = 0; *turns->system_begin && *turns->system_end && i < chat.bytes; i++) {
        size_t begin = stands(chat.text + i, chat.bytes - i, turns->system_begin);
        char *text = begin ? literal(chat.text + i + begin, chat.bytes - i - begin, turns->system_end) : NULL;
        if (text) return text;
    }
    return assigned(chat);
}
