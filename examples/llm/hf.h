/* hf.h - opens a model as Hugging Face keeps it: a folder with config.json, model.safetensors (or several of them
 * and model.safetensors.index.json), tokenizer.json and tokenizer_config.json. Everything is brought to GGUF's keys
 * and names, so that readers know only these. */
#ifndef LLM_HF_H
#define LLM_HF_H

#include "source.h"

int llm_hf_open(llm_source *source, const char *folder, llm_error *error);
/* All but the tensors: of the files that are there; config.json must be. The source is {0}, but for its path. */
int llm_hf_metadata(llm_source *source, const char *folder, llm_error *error);

/* Our name of one of their tensors: 0, or 1 where it is to be left out, -1 for what no model of these has. */
int llm_hf_tensor_name(llm_string theirs, char *ours, size_t room);
/* When all tensors are there: a head that the embedding is (output.tied) is left out, or, where only it is there, is the
 * embedding. */
void llm_hf_tie(llm_source *source);

/* Its parts, each from text in memory: they add metadata to a source that is {0} or holds some already. `name` is
 * for messages. The tokenizer's settings are optional; they tell the marks and the chat template. */
int llm_hf_config(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);
int llm_hf_tokenizer(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);
int llm_hf_tokenizer_settings(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);
/* tokenizer.model, where there is no tokenizer.json. */
int llm_hf_sentencepiece(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);
/* added_tokens.json: {"<mark>": id}. */
int llm_hf_added_tokens(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);
/* generation_config.json: the tokens that end a text, beside those of config.json. */
int llm_hf_generation(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);
/* chat_template.jinja. */
int llm_hf_template(llm_source *source, const char *text, size_t bytes, const char *name, llm_error *error);

#endif
