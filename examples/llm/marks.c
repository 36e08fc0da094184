#include "marks.h"

#include <string.h>

static int among(llm_string name, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (llm_string_is(name, names[i])) return 1;
    return 0;
}

int llm_mark_ends(llm_string name) {
    static const char *const names[] = {
        "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>", "<|end_of_text|>",
        "<|end_of_turn|>", "<end_of_turn>", "<|EOT|>", "<EOT>", "<|eot|>", "<|eom|>", "<end_of_utterance>", "<eos>",
        "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};
    return among(name, names, sizeof names / sizeof *names);
}

/* "<|name|>", and the same with full-width bars, as DeepSeek writes them. */
static int barred(llm_string name) {
    static const char *const bars[] = {"|", "\xEF\xBD\x9C"};
    for (int i = 0; i < 2; i++) {
        size_t bar = strlen(bars[i]);
        if (name.bytes > 2 * bar + 2 && name.text[0] == '<' && name.text[name.bytes - 1] == '>' &&
            memcmp(name.text + 1, bars[i], bar) == 0 && memcmp(name.text + name.bytes - 1 - bar, bars[i], bar) == 0) return 1;
    }
    return 0;
}

int llm_mark_controls(llm_string name) {
    static const char *const names[] = {"<start_of_turn>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"};
    return llm_mark_ends(name) || barred(name) || among(name, names, sizeof names / sizeof *names);
}
