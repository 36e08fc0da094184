/* model.h - a decoder-only transformer in float, read from a GGUF file or a folder with safetensors (full
 * precision) or from a stack (whose matrices are multiplied by bitstack.h at whatever level the budget allows at
 * the moment). The family of llama (RMSNorm, rotary positions, grouped-query attention, SwiGLU; tied or own head),
 * mistral (attention over a sliding window), qwen2 (biases), qwen3 (queries and keys normalised a head).
 *
 * A model is read-only while it runs: any number of states (one a thread) may run on it at once. Budgets
 * of its stack are changed between calls; states survive that. */
#ifndef LLM_MODEL_H
#define LLM_MODEL_H

#include "attention.h"
#include "source.h"

typedef struct llm_config {
    uint32_t vocabulary, context, width, layers, hidden; /* hidden: of the feed-forward part */
    uint32_t heads, kv_heads, head_width, rope_width;
    float epsilon, rope_base;
    uint32_t window, window_first; /* layers from window_first on look back over `window` positions; 0: over all */
    int rope_halves; /* channel i of a head turns with channel i + rope_width / 2, else with its neighbour */
} llm_config;

/* The matrices of a layer, in the order in which they are used and compressed. */
enum { LLM_Q, LLM_K, LLM_V, LLM_O, LLM_GATE, LLM_UP, LLM_DOWN, LLM_LINEARS };

/* The inputs of a layer's matrices; some share one. */
enum { LLM_IN_ATTENTION, LLM_IN_OUTPUT, LLM_IN_HIDDEN, LLM_IN_DOWN, LLM_INPUTS };

extern const char *const llm_linear_names[LLM_LINEARS]; /* "attn_q" ...: blk.LAYER.NAME.weight */
extern const int llm_linear_inputs[LLM_LINEARS];        /* which input each one reads */

/* A matrix, wherever it is: the first of these that is there is used. */
/* Factors for the weights of a matrix in a stack of tables as they are unpacked: of a row and group of columns, in the order of a
 * block's coefficients, and of a column; 0 there: the column stays as it is. */
typedef struct llm_gains {
    const float *rows, *cols;
    uint32_t group_cols, groups;
} llm_gains;

typedef struct llm_linear {
    uint32_t rows, cols;
    const float *dense;       /* rows * cols floats */
    int matrix;               /* in the stack, or -1 */
    const llm_gains *gains;   /* of that; or NULL */
    const llm_tensor *tensor; /* unpacked on the fly, a few rows at a time */
    float *owned;             /* what `dense` points to, if it was made on loading */
    const float *packed;      /* `dense` as llm_pack makes it, for products of many vectors; or NULL */
    float *bias;              /* rows floats to add to the product; or NULL */
    /* y = W x (bias apart) by somebody else's kernel, used for single vectors before all of these; or NULL */
    void (*gemv)(const void *user, const float *x, float *y);
    const void *gemv_user;
} llm_linear;

typedef struct llm_layer {
    float *attention_norm, *hidden_norm;
    float *q_norm, *k_norm; /* of head_width, or NULL: queries and keys are normalised before they turn */
    llm_linear linears[LLM_LINEARS];
} llm_layer;

typedef struct llm_model {
    llm_source source;
    llm_config config;
    llm_layer *layers;
    llm_linear embedding, head;
    int forget, keep; /* see options */
    float *final_norm;
    double *rope_frequencies; /* rope_width / 2 of them: radians a position */
    double *rope_long;        /* the same in contexts of more than rope_original tokens, or NULL: no others (LongRoPE) */
    uint32_t rope_original;
    double rope_magnitude;    /* queries and keys become so much longer as they turn: 1, but for YaRN and LongRoPE */
    struct bitstack_pool *pool; /* of options.threads, or NULL */
    bitstack_parallel parallel;
} llm_model;

/* How to load. {0} or NULL means the defaults. */
typedef struct llm_model_options {
    bitstack_options stack;
    /* Full-precision matrices that are not F32 are unpacked to F32 on loading if all of them together stay
     * below this many bytes, else on the fly. 0 = 512 MiB. (A stack's resident tensors never are: its
     * memory is what the budget says.) */
    uint64_t unpack_bytes;
    /* Pages of matrices that are unpacked on the fly are given back after use, so that reading a model that is
     * larger than memory takes no more of it than a matrix a thread. */
    int forget;
    int keep;    /* how states keep keys and values: LLM_KEEP_F32, LLM_KEEP_F16 or LLM_KEEP_8 */
    int threads; /* that share the work of one text; 0 or 1: the calling one. The result does not depend on it. */
} llm_model_options;

int llm_model_open(llm_model *model, const char *path, const llm_model_options *options, llm_error *error);
/* Takes the source over, also on failure. A stack in it keeps the threads that it was opened with. */
int llm_model_load(llm_model *model, llm_source source, const llm_model_options *options, llm_error *error);
void llm_model_close(llm_model *model);

/* Metadata of the architecture: "llama.KEY". The text lives until the eighth call after. */
const char *llm_key(const llm_source *source, const char *name);

/* Rows [first, first + count) of a matrix at its current level. */
void llm_linear_rows(const llm_model *model, const llm_linear *linear, uint64_t first, uint64_t count, float *out);

/* Gets each input of each matrix as the model runs: calibration. `x` is `tokens` rows of `cols` floats. */
typedef void (*llm_observer)(void *user, uint32_t layer, int input, const float *x, size_t tokens, uint32_t cols);

/* One text being read or written: the keys and values so far, and room to work in. */
typedef struct llm_state {
    uint32_t context, batch; /* positions there is room for; tokens taken at once */
    uint32_t position;       /* tokens taken so far; set it back to forget */
    uint32_t texts;          /* 0, or: so many texts side by side, see llm_state_init_texts */
    float *keys, *values;    /* a layer after the other, of each the texts: see llm_kept */
    float *x;                /* batch x width: the residual stream; after llm_forward, normalised */
    float *normed, *q, *k, *v, *attended, *up, *gate, *rope;
    float *attending, *unpacked; /* some a thread */
    llm_observer observe;
    void *observe_user;
} llm_state;

/* batch 0: 256. Bytes that a state takes; and -1 for lack of memory. */
uint64_t llm_state_bytes(const llm_model *model, uint32_t context, uint32_t batch);
/* Bytes of it that are written to before `positions` tokens were taken, `batch` at once at most: only these take memory. */
uint64_t llm_state_used(const llm_model *model, uint32_t context, uint32_t positions, uint32_t batch);
int llm_state_init(llm_state *state, const llm_model *model, uint32_t context, uint32_t batch);
/* For `texts` texts of one length side by side: llm_forward then takes that many tokens, the next one of each. */
int llm_state_init_texts(llm_state *state, const llm_model *model, uint32_t context, uint32_t texts);
void llm_state_free(llm_state *state);

/* Takes `count` tokens (at most batch, and as many as there are positions left; ids below vocabulary).
 * state->x then holds what the head reads, a row a token. */
void llm_forward(const llm_model *model, llm_state *state, const uint32_t *ids, uint32_t count);
/* Logits of rows [first, first + count) of state->x: count x vocabulary floats. */
void llm_logits(const llm_model *model, llm_state *state, uint32_t first, uint32_t count, float *logits);

/* The parts of llm_forward, for those who go layer by layer. x is count x width and is changed in place. */
void llm_embed(const llm_model *model, const uint32_t *ids, uint32_t count, float *x);
void llm_layer_forward(const llm_model *model, llm_state *state, uint32_t layer, float *x, uint32_t count);
void llm_final_norm(const llm_model *model, float *x, uint32_t count);
/* `count` vectors of `size` floats each; out may be x. */
void llm_rms_norm(const llm_config *config, const float *weight, const float *x, size_t count, uint32_t size, float *out);
/* Turns pairs of channels: neighbours (GGUF permutes q and k of llama models to this order), or channel i and the
 * one half of them further on, as these models were trained. `rope`: the position's row of the table, rope_width
 * floats, cosine and sine of each pair. */
void llm_rotate(const llm_config *config, const float *rope, float *x, uint32_t heads);
void llm_rope_table(const llm_model *model, uint32_t context, float *rope);

#endif
