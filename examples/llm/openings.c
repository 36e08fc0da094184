#include "openings.h"
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

static const char *const texts[] = {
    "The old house at the end of the lane had been empty for",
    "Photosynthesis is the process by which",
    "#include <stdio.h>\n#include <stdlib.h>\n\n",
    "In this paper we propose a method",
    "Dear Sir or Madam,\n\nI am writing",
    "Ingredients:\n- 2 cups of flour\n- ",
    "def read_records(path):\n    \"\"\"",
    "The city lies on the river",
    "Question: What is the difference between",
    "Theorem 1. Let",
    "LONDON - The government announced on",
    "\"Where have you been?\" she asked.\n\n\"",
    "How to install and configure the package\n\n1. ",
    "<!DOCTYPE html>\n<html>\n<head>\n<title>",
    "The patient was a 54-year-old man with",
    "name,year,price,quantity\n",
    "It was in the spring of 18",
    "{\n  \"id\": 1,\n  \"name\": \"",
    "The memory controller of the processor",
    "Once upon a time there was",
    "Section 4. Any person who",
    "Der Bundestag hat am",
    "SELECT name, COUNT(*) FROM",
    "I bought this about three months ago and",
    "Solve for x: 3x + 7 = 22.\n\n",
    "La ville est connue pour",
    "README\n======\n\nA small library that",
    "O wind, that",
    "The stock fell by 3.2 percent after",
    "const express = require('express');\n",
    "To measure the resistance, connect the",
    "Abstract. The effects of climate change on",
};

static const char *const questions[] = {
    "Explain how a refrigerator works.",
    "Write a short story about a lighthouse keeper.",
    "What is 17 times 24? Show your steps.",
    "Write a Python function that checks whether a string is a palindrome.",
    "Give me five tips for learning a new language.",
    "Summarize the causes of the First World War.",
    "Can you help me write an email to my landlord about a broken heater?",
    "What is the difference between TCP and UDP?",
    "Suggest a vegetarian dinner that takes less than thirty minutes.",
    "Translate to French: The train leaves at eight o'clock.",
    "Why is the sky blue?",
    "List the planets of the solar system with one fact about each.",
};

enum { TEXTS = sizeof texts / sizeof *texts, QUESTIONS = sizeof questions / sizeof *questions, EVERY = 3 };

static int copy(llm_opening *to, const uint32_t *ids, size_t count) {
    to->ids = malloc((count + 1) * sizeof *ids);
    if (!to->ids) return -1;
    if (count) memcpy(to->ids, ids, count * sizeof *ids);
    to->count = count;
    return 0;
}

static int put(llm_opening *to, const llm_tokenizer *tokenizer, const char *text) {
    uint32_t *ids = NULL;
    int64_t length = llm_encode(tokenizer, text, strlen(text), &ids);
    int failed = length < 0 || copy(to, ids, (size_t)length) != 0;
    free(ids);
    return failed ? -1 : 0;
}

/* The question as a conversation begins with it; without the form where that has no room. */
static int ask(llm_opening *to, const llm_model *m, const llm_tokenizer *tokenizer, const char *question) {
    llm_conversation c;
    uint32_t context = m->config.context < 128 ? m->config.context : 128;
    if (llm_conversation_init(&c, m, tokenizer, context, NULL) != 0) return -1;
    int said = llm_conversation_say(&c, question, strlen(question)), failed = said < 0;
    size_t begin = tokenizer->add_bos && c.generator.count && c.generator.ids[0] == (uint32_t)tokenizer->bos; /* no part of it */
    if (said == 0) failed = copy(to, c.generator.ids + begin, c.generator.count - begin) != 0;
    else if (said > 0) failed = put(to, tokenizer, question) != 0;
    llm_conversation_free(&c);
    return failed ? -1 : 0;
}

int llm_openings_make(llm_opening **openings, size_t *count, const llm_model *m, const llm_tokenizer *tokenizer) {
    int chats = llm_text(&m->source, "tokenizer.chat_template").text != NULL, failed = 0;
    size_t all = chats ? TEXTS * EVERY / (EVERY - 1) : TEXTS, text = 0, question = 0;
    llm_opening *made = calloc(all, sizeof *made);
    if (!made) return -1;
    for (size_t i = 0; i < all && !failed; i++) {
        if (chats && i % EVERY == EVERY - 1) failed = ask(&made[i], m, tokenizer, questions[question++ % QUESTIONS]) != 0;
        else failed = put(&made[i], tokenizer, texts[text++ % TEXTS]) != 0;
    }
    if (failed) llm_openings_free(made, all);
    else *openings = made, *count = all;
    return failed ? -1 : 0;
}

void llm_openings_free(llm_opening *openings, size_t count) {
    for (size_t i = 0; openings && i < count; i++) free(openings[i].ids);
    free(openings);
}
