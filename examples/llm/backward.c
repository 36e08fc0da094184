#include "backward.h"
#include "dense.h"
#include "parallel.h"
#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLAB = 1 << 24,     /* floats of a matrix that are unpacked, or turned, at a time */
    SLAB_ROWS = 4096,   /* and its rows, which a product with what is turned sums over */
    PIECE_ROWS = 64,    /* rows that a thread unpacks at a time */
    PIECE_TOKENS = 16,  /* tokens of a share of work that goes token by token */
    TILE_TOKENS = 256,  /* of a product's share of work, and at most so many outputs */
    TILE_ROWS = 2048,
    HEAD_TOKENS = 256,  /* logits held at a time, at most, */
    HEAD_LEAST = 16     /* and at least */
};

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t shares(size_t all, size_t each) { return (all + each - 1) / each; }

/* ---- products ---- */

typedef struct product {
    llm_backward *b;
    const llm_linear *linear;
    size_t begin, count; /* the slab: these rows of the matrix */
    const float *w;      /* it, as it is or turned: cols x count */
    const float *x;
    float *y;
    size_t tokens, step, blocks; /* step: rows of w a share; blocks of them */
    int add;
    size_t packed; /* floats that a row of w takes, packed; 0: it is not */
} product;

static size_t slab_rows(size_t rows, size_t cols) {
    size_t most = least(SLAB_ROWS, SLAB / cols);
    return least(rows, most < 32 ? most : most / 32 * 32);
}

static float *scratch_of(const llm_backward *b, int thread) { return b->scratch + (size_t)thread * b->scratch_floats; }

/* Rows of the slab, unpacked: into the slab itself, or by way of scratch. */
static const float *piece(const product *p, size_t first, size_t count, float *to) {
    if (p->linear->dense) return p->linear->dense + (p->begin + first) * p->linear->cols;
    llm_linear_rows(p->b->model, p->linear, p->begin + first, count, to);
    return to;
}

static void unpack_piece(void *user, size_t index, int thread) {
    const product *p = user;
    size_t first = index * PIECE_ROWS;
    (void)thread;
    piece(p, first, least(PIECE_ROWS, p->count - first), p->b->slab + first * p->linear->cols);
}

static void pack_piece(void *user, size_t index, int thread) {
    const product *p = user;
    size_t cols = p->linear->cols, first = index * PIECE_ROWS, rows = least(PIECE_ROWS, p->count - first);
    llm_pack(piece(p, first, rows, scratch_of(p->b, thread)), cols, 0, rows, cols, p->b->slab + first * p->packed);
}

/* Some columns of the slab, all of which is unpacked. */
static void pack_turned_piece(void *user, size_t index, int thread) {
    const product *p = user;
    size_t cols = p->linear->cols, first = index * PIECE_ROWS;
    const float *w = p->linear->dense ? p->linear->dense + p->begin * cols : p->b->slab;
    (void)thread;
    llm_pack(w + first, cols, 1, least(PIECE_ROWS, cols - first), p->count, p->b->turned + first * p->packed);
}

/* Floats of a row of a packed matrix, where there is such a thing, it pays, and it fits. */
static size_t packed_row(size_t rows, size_t cols, size_t tokens, size_t room) {
    size_t all = tokens < LLM_PACKED_LEAST ? 0 : llm_packed_floats(rows, cols);
    return all && all <= room ? llm_packed_floats(32, cols) / 32 : 0;
}

/* Eight rows by eight columns at a time: a line of the cache is used up before it goes. */
static void turn_piece(void *user, size_t index, int thread) {
    const product *p = user;
    size_t cols = p->linear->cols, first = index * PIECE_ROWS, rows = least(PIECE_ROWS, p->count - first);
    const float *w = piece(p, first, rows, scratch_of(p->b, thread));
    float *to = p->b->turned + first;
    for (size_t j0 = 0; j0 < cols; j0 += 8)
        for (size_t i0 = 0; i0 < rows; i0 += 8)
            for (size_t j = j0; j < least(j0 + 8, cols); j++)
                for (size_t i = i0; i < least(i0 + 8, rows); i++) to[j * p->count + i] = w[i * cols + j];
}

static void forward_share(void *user, size_t index, int thread) {
    const product *p = user;
    size_t cols = p->linear->cols, rows = p->linear->rows, i = index % p->blocks * p->step, t = index / p->blocks * TILE_TOKENS;
    size_t some = least(TILE_TOKENS, p->tokens - t), count = least(p->step, p->count - i);
    const float *bias = p->linear->bias ? p->linear->bias + p->begin + i : NULL;
    float *y = p->y + t * rows + p->begin + i;
    if (p->packed) llm_gemm_packed(p->w + i * p->packed, count, cols, p->x + t * cols, cols, y, rows, some, scratch_of(p->b, thread));
    else llm_gemm(p->w + i * cols, count, cols, p->x + t * cols, cols, y, rows, some);
    for (size_t k = 0; bias && k < some; k++)
        for (size_t r = 0; r < count; r++) y[k * rows + r] += bias[r];
}

static void back_share(void *user, size_t index, int thread) {
    const product *p = user;
    size_t cols = p->linear->cols, rows = p->linear->rows, j = index % p->blocks * p->step, t = index / p->blocks * TILE_TOKENS;
    size_t some = least(TILE_TOKENS, p->tokens - t), count = least(p->step, cols - j);
    const float *w = p->w + j * (p->packed ? p->packed : p->count), *x = p->x + t * rows + p->begin;
    float *y = p->y + t * cols + j, *sum = scratch_of(p->b, thread), *to = p->add ? sum : y;
    if (p->packed) llm_gemm_packed(w, count, p->count, x, rows, to, p->add ? count : cols, some, sum + p->b->sum_floats);
    else llm_gemm(w, count, p->count, x, rows, to, p->add ? count : cols, some);
    if (!p->add) return;
    for (size_t k = 0; k < some; k++)
        for (size_t i = 0; i < count; i++) y[k * cols + i] += sum[k * count + i];
}

/* Outputs a share: all, as a kernel prepares its vectors once for all of them, unless there would be too few shares for
 * the threads. (An output does not depend on which others are made with it, so results do not depend on threads.) */
static size_t step_of(const llm_backward *b, size_t outputs, size_t tokens) {
    size_t pieces = shares((size_t)b->threads * 4, shares(tokens, TILE_TOKENS)), step = shares(shares(outputs, pieces), 32) * 32;
    return b->threads > 1 ? least(step, TILE_ROWS) : least(outputs, TILE_ROWS);
}

/* y = x W^T + bias */
static void multiply(llm_backward *b, const llm_linear *linear, const float *x, float *y, size_t tokens) {
    size_t rows = linear->rows, cols = linear->cols, most = linear->dense ? rows : slab_rows(rows, cols);
    for (size_t begin = 0; begin < rows; begin += most) {
        product p = {b, linear, begin, least(most, rows - begin), b->slab, x, y, tokens, 0, 0, 0, 0};
        p.packed = packed_row(p.count, cols, tokens, b->slab_floats);
        if (p.packed) llm_parallel(b->threads, shares(p.count, PIECE_ROWS), pack_piece, &p);
        else if (linear->dense) p.w = linear->dense + begin * cols;
        else llm_parallel(b->threads, shares(p.count, PIECE_ROWS), unpack_piece, &p);
        p.step = step_of(b, p.count, tokens);
        p.blocks = shares(p.count, p.step);
        llm_parallel(b->threads, p.blocks * shares(tokens, TILE_TOKENS), forward_share, &p);
    }
    if (b->model->forget && linear->tensor && !linear->dense) llm_tensor_forget(&b->model->source, linear->tensor);
}

/* y = g W, or y += g W */
static void multiply_back(llm_backward *b, const llm_linear *linear, const float *g, float *y, size_t tokens, int add) {
    size_t rows = linear->rows, cols = linear->cols, most = slab_rows(rows, cols);
    for (size_t begin = 0; begin < rows; begin += most) {
        product p = {b, linear, begin, least(most, rows - begin), b->turned, g, y, tokens, 0, 0, add || begin, 0};
        p.packed = packed_row(cols, p.count, tokens, b->turned_floats);
        if (p.packed && !linear->dense) llm_parallel(b->threads, shares(p.count, PIECE_ROWS), unpack_piece, &p);
        if (p.packed) llm_parallel(b->threads, shares(cols, PIECE_ROWS), pack_turned_piece, &p);
        else llm_parallel(b->threads, shares(p.count, PIECE_ROWS), turn_piece, &p);
        p.step = step_of(b, cols, tokens);
        p.blocks = shares(cols, p.step);
        llm_parallel(b->threads, p.blocks * shares(tokens, TILE_TOKENS), back_share, &p);
    }
    if (b->model->forget && linear->tensor && !linear->dense) llm_tensor_forget(&b->model->source, linear->tensor);
}

/* ---- what goes token by token ---- */

typedef struct step {
    llm_backward *b;
    const llm_layer *layer;
    void (*work)(const struct step *s, size_t first, size_t count);
    const float *x, *weight; /* norms: the input, the factors */
    size_t tokens;
} step;

static void token_share(void *user, size_t index, int thread) {
    const step *s = user;
    size_t first = index * PIECE_TOKENS;
    (void)thread;
    s->work(s, first, least(PIECE_TOKENS, s->tokens - first));
}

static void each_token(llm_backward *b, const llm_layer *layer, size_t tokens, const float *x, const float *weight,
                       void (*work)(const step *, size_t, size_t)) {
    step s = {b, layer, work, x, weight, tokens};
    llm_parallel(b->threads, shares(tokens, PIECE_TOKENS), token_share, &s);
}

static void norm_tokens(const step *s, size_t first, size_t count) {
    size_t width = s->b->model->config.width;
    llm_rms_norm(&s->b->model->config, s->weight, s->x + first * width, count, (uint32_t)width, s->b->normed + first * width);
}

/* y = w x s, s = 1 / sqrt(mean x^2 + epsilon): dx = s (w dy - x s^2 mean(w dy x)). dx may be dy. */
static void norm_back(const llm_config *c, const float *weight, const float *x, const float *dy, size_t count, uint32_t size,
                      float *dx, int add) {
    for (size_t t = 0; t < count; t++, x += size, dy += size, dx += size) {
        double square = 0, along = 0;
        for (uint32_t i = 0; i < size; i++) {
            square += (double)x[i] * (double)x[i];
            along += (double)weight[i] * (double)dy[i] * (double)x[i];
        }
        double scale = 1 / sqrt(square / size + (double)c->epsilon);
        float s = (float)scale, back = (float)(scale * scale * scale * along / size);
        if (add) for (uint32_t i = 0; i < size; i++) dx[i] += s * weight[i] * dy[i] - back * x[i];
        else for (uint32_t i = 0; i < size; i++) dx[i] = s * weight[i] * dy[i] - back * x[i];
    }
}

static void norm_back_tokens(const step *s, size_t first, size_t count) {
    size_t at = first * s->b->model->config.width;
    norm_back(&s->b->model->config, s->weight, s->x + at, s->b->normed + at, count, s->b->model->config.width, s->b->g + at, 1);
}

/* Queries and keys: normalised where the model does that, then turned. */
static void turn_tokens(const step *s, size_t first, size_t count) {
    const llm_config *c = &s->b->model->config;
    size_t q = (size_t)c->heads * c->head_width, kv = (size_t)c->kv_heads * c->head_width;
    for (size_t t = first; t < first + count; t++) {
        const float *rope = s->b->rope + t % s->b->length * (c->rope_width / 2) * 2;
        float *to_q = s->b->q + t * q, *to_k = s->b->k + t * kv;
        if (s->layer->q_norm) {
            memcpy(s->b->q_raw + t * q, to_q, q * sizeof *to_q);
            llm_rms_norm(c, s->layer->q_norm, to_q, c->heads, c->head_width, to_q);
        }
        if (s->layer->k_norm) {
            memcpy(s->b->k_raw + t * kv, to_k, kv * sizeof *to_k);
            llm_rms_norm(c, s->layer->k_norm, to_k, c->kv_heads, c->head_width, to_k);
        }
        llm_rotate(c, rope, to_q, c->heads);
        llm_rotate(c, rope, to_k, c->kv_heads);
    }
}

/* A turn's transpose is the turn back. */
static void rotate_back(const llm_config *c, const float *rope, float *x, uint32_t heads) {
    uint32_t pairs = c->rope_width / 2, next = c->rope_halves ? 1 : 2, other = c->rope_halves ? pairs : 1;
    for (uint32_t h = 0; h < heads; h++, x += c->head_width)
        for (uint32_t i = 0; i < pairs; i++) {
            float *pair = x + (size_t)i * next, a = pair[0], b = pair[other];
            pair[0] = a * rope[2 * i] + b * rope[2 * i + 1];
            pair[other] = b * rope[2 * i] - a * rope[2 * i + 1];
        }
}

static void turn_back_tokens(const step *s, size_t first, size_t count) {
    const llm_config *c = &s->b->model->config;
    size_t q = (size_t)c->heads * c->head_width, kv = (size_t)c->kv_heads * c->head_width;
    for (size_t t = first; t < first + count; t++) {
        const float *rope = s->b->rope + t % s->b->length * (c->rope_width / 2) * 2;
        float *dq = s->b->q + t * q, *dk = s->b->k + t * kv;
        rotate_back(c, rope, dq, c->heads);
        rotate_back(c, rope, dk, c->kv_heads);
        if (s->layer->q_norm) norm_back(c, s->layer->q_norm, s->b->q_raw + t * q, dq, c->heads, c->head_width, dq, 0);
        if (s->layer->k_norm) norm_back(c, s->layer->k_norm, s->b->k_raw + t * kv, dk, c->kv_heads, c->head_width, dk, 0);
    }
}

static void middle_tokens(const step *s, size_t first, size_t count) {
    size_t width = s->b->model->config.width;
    for (size_t i = first * width; i < (first + count) * width; i++) s->b->middle[i] = s->x[i] + s->b->out[i];
    norm_tokens(&(step){s->b, s->layer, NULL, s->b->middle, s->weight, 0}, first, count);
}

static void act_tokens(const step *s, size_t first, size_t count) {
    size_t hidden = s->b->model->config.hidden, at = first * hidden;
    memcpy(s->b->act + at, s->b->up + at, count * hidden * sizeof(float));
    llm_swiglu(s->b->act + at, s->b->gate + at, count * hidden);
}

/* act = up silu(gate), silu(x) = x f, f = 1 / (1 + e^-x), silu' = f (1 + x (1 - f)). In place: act holds its gradient. */
static void act_back_tokens(const step *s, size_t first, size_t count) {
    size_t hidden = s->b->model->config.hidden, end = (first + count) * hidden;
    float e[256];
    for (size_t at = first * hidden; at < end; at += 256) {
        size_t some = least(256, end - at);
        float *gate = s->b->gate + at, *up = s->b->up + at;
        const float *act = s->b->act + at;
        for (size_t i = 0; i < some; i++) e[i] = -gate[i];
        llm_exp(e, some);
        for (size_t i = 0; i < some; i++) {
            float x = gate[i], f = 1 / (1 + e[i]), d = act[i];
            gate[i] = d * up[i] * f * (1 + x * (1 - f));
            up[i] = d * x * f;
        }
    }
}

static void add_middle_tokens(const step *s, size_t first, size_t count) {
    size_t width = s->b->model->config.width;
    for (size_t i = first * width; i < (first + count) * width; i++) s->b->out[i] += s->b->middle[i];
}

/* ---- attention ---- */

typedef struct attending {
    llm_backward *b;
    size_t window; /* 0: all positions before */
} attending;

/* Of one text, the heads that share keys and values. */
static void attend_group(void *user, size_t index, int thread) {
    const attending *a = user;
    const llm_backward *b = a->b;
    const llm_config *c = &b->model->config;
    size_t q = (size_t)c->heads * c->head_width, kv = (size_t)c->kv_heads * c->head_width, heads = c->heads / c->kv_heads, size = c->head_width;
    size_t group = index % c->kv_heads, start = index / c->kv_heads * b->length, from = start * kv + group * size, to = start * q + group * heads * size;
    size_t bytes = llm_kept_bytes(LLM_KEEP_F32, 1, size, b->length);
    unsigned char *room = (unsigned char *)scratch_of(b, thread);
    llm_kept kept = {room, room + bytes, LLM_KEEP_F32, 1, size};
    llm_attention_blocks blocks = {kept, heads, 0, a->window, q, (float)(1 / sqrt((double)size))};
    for (size_t t = 0; t < b->length; t++) llm_keep(&kept, t, 1, b->k + from + t * kv, b->v + from + t * kv);
    for (size_t i = 0, pieces = llm_attention_pieces(&blocks, b->length); i < pieces; i++)
        llm_attention_piece(&blocks, i, b->length, b->q + to, b->attended + to, (float *)(void *)(room + 2 * bytes));
}

/* Copies a head out of rows `stride` floats apart, and turned. */
static void take_head(const float *from, size_t stride, size_t count, size_t size, float *to, float *turned) {
    for (size_t t = 0; t < count; t++)
        for (size_t i = 0; i < size; i++) {
            to[t * size + i] = from[t * stride + i];
            if (turned) turned[i * count + t] = from[t * stride + i];
        }
}

/* Products of positions [begin, end) with those from `base` up to the last become the softmax of scale * product over those that
 * a position looks at; 0 elsewhere. */
static void soften(float *p, size_t begin, size_t end, size_t base, size_t window, float scale) {
    for (size_t t = begin; t < end; t++, p += end - base) {
        size_t first = window && t + 1 > window ? t + 1 - window : 0, count = t + 1 - first;
        float *seen = p + first - base, most = llm_greatest(seen, count), sum = 0;
        for (size_t s = 0; s < count; s++) seen[s] = scale * (seen[s] - most);
        llm_exp(seen, count);
        for (size_t s = 0; s < count; s++) sum += seen[s];
        for (size_t s = 0; s < count; s++) seen[s] /= sum;
        memset(p, 0, (first - base) * sizeof *p);
        memset(seen + count, 0, (end - t - 1) * sizeof *p);
    }
}

static void turn(const float *from, size_t rows, size_t cols, float *to) {
    for (size_t i0 = 0; i0 < rows; i0 += 8)
        for (size_t j0 = 0; j0 < cols; j0 += 8)
            for (size_t i = i0; i < least(i0 + 8, rows); i++)
                for (size_t j = j0; j < least(j0 + 8, cols); j++) to[j * rows + i] = from[i * cols + j];
}

enum { LOOKING = 128 }; /* positions whose looking back is worked on at once */

static size_t attend_floats(size_t length, size_t size) {
    size_t rows = least(length, LOOKING), back = 3 * rows * length + 5 * length * size + 4 * rows * size;
    size_t forward = 2 * llm_kept_bytes(LLM_KEEP_F32, 1, size, length) / sizeof(float) + llm_attention_room(size);
    return back > forward ? back : forward;
}

/* A head of keys and values, their gradients, and `more` room like them; of up to LOOKING positions the queries and the gradients of
 * the outputs, as they are and turned, P, the gradient of it, and one of these turned. */
typedef struct looking {
    float *k, *v, *to_k, *to_v, *more, *q, *q_turned, *o, *o_turned, *p, *d, *turned;
    size_t size, window;
    float scale;
} looking;

static looking looking_of(float *room, size_t length, size_t size, size_t window) {
    looking w = {.size = size, .window = window, .scale = (float)(1 / sqrt((double)size))};
    size_t rows = least(length, LOOKING);
    float **long_ones[5] = {&w.k, &w.v, &w.to_k, &w.to_v, &w.more}, **some[4] = {&w.q, &w.q_turned, &w.o, &w.o_turned}, **looks[3] = {&w.p, &w.d, &w.turned};
    for (int i = 0; i < 5; i++, room += length * size) *long_ones[i] = room;
    for (int i = 0; i < 4; i++, room += rows * size) *some[i] = room;
    for (int i = 0; i < 3; i++, room += rows * length) *looks[i] = room;
    return w;
}

/* to += turned A, where A is rows x cols: `to` is cols x size, and x the transpose of rows x size. */
static void add_turned(const looking *w, const float *x, size_t rows, size_t cols, float *to) {
    llm_gemm(x, w->size, rows, w->turned, rows, w->more, w->size, cols);
    for (size_t i = 0; i < cols * w->size; i++) to[i] += w->more[i];
}

/* Positions [begin, end) of a head: q and o are `begin`'s query and gradient of its outputs, `stride` floats before the next.
 * With P the softmax and dO that gradient, dV += P^T dO; dP = dO V^T; dS = scale P (dP - the row's mean of dP under P);
 * dQ = dS K takes q's place; dK += dS^T Q. */
static void look_back(const looking *w, size_t begin, size_t end, float *q, const float *o, size_t stride) {
    size_t size = w->size, count = end - begin, base = w->window && begin + 1 > w->window ? begin + 1 - w->window : 0, seen = end - base;
    take_head(q, stride, count, size, w->q, w->q_turned);
    take_head(o, stride, count, size, w->o, w->o_turned);
    llm_gemm(w->k + base * size, seen, size, w->q, size, w->p, seen, count);
    soften(w->p, begin, end, base, w->window, w->scale);
    llm_gemm(w->v + base * size, seen, size, w->o, size, w->d, seen, count);
    turn(w->p, count, seen, w->turned);
    add_turned(w, w->o_turned, count, seen, w->to_v + base * size);
    for (size_t t = 0; t < count; t++) {
        const float *p = w->p + t * seen;
        float *d = w->d + t * seen;
        double mean = 0;
        for (size_t s = 0; s < seen; s++) mean += (double)p[s] * (double)d[s];
        for (size_t s = 0; s < seen; s++) d[s] = w->scale * p[s] * (d[s] - (float)mean);
    }
    turn(w->d, count, seen, w->turned);
    add_turned(w, w->q_turned, count, seen, w->to_k + base * size);
    turn(w->k + base * size, seen, size, w->more);
    llm_gemm(w->more, size, seen, w->d, seen, w->q, size, count);
    for (size_t t = 0; t < count; t++) memcpy(q + t * stride, w->q + t * size, size * sizeof *q);
}

/* Of one text, a head of keys and values with the queries that look at it. */
static void attend_back_head(void *user, size_t index, int thread) {
    const attending *a = user;
    llm_backward *b = a->b;
    const llm_config *c = &b->model->config;
    size_t q = (size_t)c->heads * c->head_width, kv = (size_t)c->kv_heads * c->head_width, n = b->length, size = c->head_width;
    size_t group = c->heads / c->kv_heads, head = index % c->kv_heads, start = index / c->kv_heads * n;
    looking w = looking_of(scratch_of(b, thread), n, size, a->window);
    float *k = b->k + start * kv + head * size, *v = b->v + start * kv + head * size;
    take_head(k, kv, n, size, w.k, NULL);
    take_head(v, kv, n, size, w.v, NULL);
    memset(w.to_k, 0, n * size * sizeof *k), memset(w.to_v, 0, n * size * sizeof *v);
    for (size_t h = head * group; h < (head + 1) * group; h++)
        for (size_t t = 0; t < n; t += LOOKING)
            look_back(&w, t, least(t + LOOKING, n), b->q + (start + t) * q + h * size, b->attended + (start + t) * q + h * size, q);
    for (size_t t = 0; t < n; t++) {
        memcpy(k + t * kv, w.to_k + t * size, size * sizeof *k);
        memcpy(v + t * kv, w.to_v + t * size, size * sizeof *v);
    }
}

/* ---- a layer ---- */

static void observed(const llm_backward *b, uint32_t l, int input, const float *x, size_t tokens, uint32_t cols) {
    if (b->observe) b->observe(b->observe_user, l, input, x, tokens, cols);
}

static attending attention_of(llm_backward *b, uint32_t l) {
    return (attending){b, l >= b->model->config.window_first ? b->model->config.window : 0};
}

/* From x to out; with `whole` 0, only what the way back needs. */
static void layer_forward(llm_backward *b, uint32_t l, const float *x, size_t tokens, int whole) {
    const llm_config *c = &b->model->config;
    const llm_layer *layer = &b->model->layers[l];
    attending a = attention_of(b, l);
    each_token(b, layer, tokens, x, layer->attention_norm, norm_tokens);
    if (whole) observed(b, l, LLM_IN_ATTENTION, b->normed, tokens, c->width);
    multiply(b, &layer->linears[LLM_Q], b->normed, b->q, tokens);
    multiply(b, &layer->linears[LLM_K], b->normed, b->k, tokens);
    multiply(b, &layer->linears[LLM_V], b->normed, b->v, tokens);
    each_token(b, layer, tokens, NULL, NULL, turn_tokens);
    llm_parallel(b->threads, tokens / b->length * c->kv_heads, attend_group, &a);
    if (whole) observed(b, l, LLM_IN_OUTPUT, b->attended, tokens, c->heads * c->head_width);
    multiply(b, &layer->linears[LLM_O], b->attended, b->out, tokens);
    each_token(b, layer, tokens, x, layer->hidden_norm, middle_tokens);
    if (whole) observed(b, l, LLM_IN_HIDDEN, b->normed, tokens, c->width);
    multiply(b, &layer->linears[LLM_GATE], b->normed, b->gate, tokens);
    multiply(b, &layer->linears[LLM_UP], b->normed, b->up, tokens);
    if (!whole) return;
    each_token(b, layer, tokens, NULL, NULL, act_tokens);
    observed(b, l, LLM_IN_DOWN, b->act, tokens, c->hidden);
    multiply(b, &layer->linears[LLM_DOWN], b->act, b->out, tokens);
    each_token(b, layer, tokens, NULL, NULL, add_middle_tokens);
}

/* b->g, the gradient of the layer's outputs, becomes that of its inputs x. */
static void layer_back(llm_backward *b, uint32_t l, const float *x, size_t tokens, llm_gradient gradient, void *user) {
    const llm_config *c = &b->model->config;
    const llm_layer *layer = &b->model->layers[l];
    const llm_linear *linears = layer->linears;
    attending a = attention_of(b, l);
    const int with = b->with_inputs;
    if (with) each_token(b, layer, tokens, NULL, NULL, act_tokens);
    gradient(user, l, LLM_DOWN, b->g, with ? b->act : NULL, 0, tokens, c->width);
    multiply_back(b, &linears[LLM_DOWN], b->g, b->act, tokens, 0);
    each_token(b, layer, tokens, NULL, NULL, act_back_tokens);
    gradient(user, l, LLM_UP, b->up, with ? b->normed : NULL, 0, tokens, c->hidden);
    gradient(user, l, LLM_GATE, b->gate, with ? b->normed : NULL, 0, tokens, c->hidden);
    multiply_back(b, &linears[LLM_UP], b->up, b->normed, tokens, 0);
    multiply_back(b, &linears[LLM_GATE], b->gate, b->normed, tokens, 1);
    each_token(b, layer, tokens, b->middle, layer->hidden_norm, norm_back_tokens);
    gradient(user, l, LLM_O, b->g, with ? b->attended : NULL, 0, tokens, c->width);
    multiply_back(b, &linears[LLM_O], b->g, b->attended, tokens, 0);
    llm_parallel(b->threads, tokens / b->length * c->kv_heads, attend_back_head, &a);
    each_token(b, layer, tokens, NULL, NULL, turn_back_tokens);
    if (with) each_token(b, layer, tokens, x, layer->attention_norm, norm_tokens);
    gradient(user, l, LLM_V, b->v, with ? b->normed : NULL, 0, tokens, linears[LLM_V].rows);
    gradient(user, l, LLM_K, b->k, with ? b->normed : NULL, 0, tokens, linears[LLM_K].rows);
    gradient(user, l, LLM_Q, b->q, with ? b->normed : NULL, 0, tokens, linears[LLM_Q].rows);
    multiply_back(b, &linears[LLM_Q], b->q, b->normed, tokens, 0);
    multiply_back(b, &linears[LLM_K], b->k, b->normed, tokens, 1);
    multiply_back(b, &linears[LLM_V], b->v, b->normed, tokens, 1);
    each_token(b, layer, tokens, x, layer->attention_norm, norm_back_tokens);
}

/* ---- the head ---- */

typedef struct labelling {
    llm_backward *b;
    const uint32_t *ids; /* NULL: drawn */
    size_t stride, first;
    uint64_t seed;
} labelling;

/* A token's logits become softmax - label, the gradient of its loss. */
static void label_token(void *user, size_t index, int thread) {
    const labelling *j = user;
    llm_backward *b = j->b;
    size_t count = b->model->config.vocabulary, t = j->first + index, label = 0;
    uint64_t state = j->seed + t * 0x9E3779B97F4A7C15u;
    float *p = b->logits + index * count, most = llm_greatest(p, count);
    double sum = 0;
    (void)thread;
    for (size_t i = 0; i < count; i++) p[i] -= most;
    llm_exp(p, count);
    for (size_t i = 0; i < count; i++) sum += (double)p[i];
    if (j->ids) label = j->ids[t / b->length * j->stride + t % b->length + 1];
    else {
        double draw = llm_random(&state) * sum;
        while (label + 1 < count && (draw -= (double)p[label]) >= 0) label++;
    }
    b->losses[t] = log(sum) - log((double)p[label]);
    for (size_t i = 0; i < count; i++) p[i] = (float)((double)p[i] / sum);
    p[label] -= 1;
}

/* The same against the teacher's logits: softmax - its softmax, the gradient of the divergence. */
static void teach_token(void *user, size_t index, int thread) {
    const labelling *j = user;
    llm_backward *b = j->b;
    size_t count = b->model->config.vocabulary;
    float *p = b->logits + index * count, *q = b->teacher_logits + index * count, most = llm_greatest(p, count), top = llm_greatest(q, count);
    double log_sum = log(llm_exp_sum(p, count, most)), log_top = log(llm_exp_sum(q, count, top));
    (void)thread;
    b->losses[j->first + index] = llm_exp_difference(q, p, count, (float)(top + log_top), (float)((double)top + log_top - (double)most - log_sum));
    for (size_t i = 0; i < count; i++) p[i] -= (float)((double)most + log_sum), q[i] -= (float)((double)top + log_top);
    llm_exp(p, count), llm_exp(q, count);
    for (size_t i = 0; i < count; i++) p[i] -= q[i];
}

/* Sets b->g to the gradient of the last norm's inputs x. */
static void head_back(llm_backward *b, const float *x, size_t tokens, labelling *j, llm_gradient gradient, void *user) {
    const llm_model *m = b->model;
    size_t width = m->config.width;
    each_token(b, NULL, tokens, x, m->final_norm, norm_tokens);
    for (j->first = 0; j->first < tokens; j->first += b->head_tokens) {
        size_t some = least(b->head_tokens, tokens - j->first);
        float *normed = b->normed + j->first * width;
        multiply(b, &m->head, normed, b->logits, some);
        if (b->teacher) {
            llm_backward other = *b;
            other.model = b->teacher;
            multiply(&other, &b->teacher->head, b->taught + j->first * width, b->teacher_logits, some);
        }
        llm_parallel(b->threads, some, b->teacher ? teach_token : label_token, j);
        gradient(user, m->config.layers, LLM_AT_HEAD, b->logits, b->with_inputs ? normed : NULL, j->first, some, m->config.vocabulary);
        multiply_back(b, &m->head, b->logits, normed, some, 0);
    }
    memset(b->g, 0, tokens * width * sizeof *b->g);
    each_token(b, NULL, tokens, x, m->final_norm, norm_back_tokens);
}

/* ---- all of it ---- */

/* What a matrix takes, packed or not. */
static size_t floats_of(size_t rows, size_t cols) {
    size_t packed = llm_packed_floats(rows, cols), turned = llm_packed_floats(cols, rows);
    return packed > turned ? packed : turned > rows * cols ? turned : rows * cols;
}

static size_t sum_floats(const llm_model *m) {
    const llm_config *c = &m->config;
    size_t q = (size_t)c->heads * c->head_width, widest = c->hidden > q ? c->hidden : q;
    if (c->width > widest) widest = c->width;
    return TILE_TOKENS * least(widest, TILE_ROWS);
}

static size_t scratch_floats(const llm_model *m, size_t length) {
    const llm_config *c = &m->config;
    size_t q = (size_t)c->heads * c->head_width, widest = c->hidden > q ? c->hidden : q, attend = attend_floats(length, c->head_width);
    if (c->width > widest) widest = c->width;
    size_t deep = least(c->vocabulary, SLAB_ROWS) > widest ? least(c->vocabulary, SLAB_ROWS) : widest;
    size_t sum = sum_floats(m) + llm_packed_floats(TILE_TOKENS, deep), unpack = PIECE_ROWS * widest, more = sum > unpack ? sum : unpack;
    return (more > attend ? more : attend) / 16 * 16 + 16;
}

enum { PARTS = 19, SLAB_PART = 15, LOGITS = 17 };

/* Floats of each array, in the order of llm_backward_init. */
static void parts_of(const llm_model *m, size_t texts, size_t length, int streams, int threads, size_t parts[PARTS]) {
    const llm_config *c = &m->config;
    size_t tokens = texts * length, width = c->width, q = (size_t)c->heads * c->head_width, kv = (size_t)c->kv_heads * c->head_width;
    size_t largest = streams ? floats_of(slab_rows(c->vocabulary, width), width) : 0, norms = 0, others = 0;
    for (uint32_t l = 0; l < c->layers; l++) {
        norms |= m->layers[l].q_norm || m->layers[l].k_norm;
        for (int i = 0; i < LLM_LINEARS; i++) {
            size_t slab = floats_of(slab_rows(m->layers[l].linears[i].rows, m->layers[l].linears[i].cols), m->layers[l].linears[i].cols);
            if (slab > largest) largest = slab;
        }
    }
    const size_t counts[PARTS] = {
        streams ? (c->layers + 1) * tokens * width : 0, tokens * width, norms ? tokens * q : 0, norms ? tokens * kv : 0, tokens * q, tokens * kv,
        tokens * kv, tokens * q, tokens * width, tokens * c->hidden, tokens * c->hidden, tokens * c->hidden, tokens * width,
        streams ? tokens * width : 0, length * (c->rope_width / 2) * 2, largest, streams ? largest : 0, 0,
        (size_t)threads * scratch_floats(m, length)};
    memcpy(parts, counts, sizeof counts);
    for (int i = 0; i < LOGITS; i++) others += parts[i];
    size_t head = least(others / c->vocabulary, HEAD_TOKENS); /* logits take no more than the rest, however many threads */
    if (streams) parts[LOGITS] = least(head > HEAD_LEAST ? head : HEAD_LEAST, tokens) * c->vocabulary;
}

uint64_t llm_backward_bytes(const llm_model *m, size_t texts, size_t length, int streams, int threads) {
    size_t parts[PARTS];
    uint64_t sum = 0;
    parts_of(m, texts, length, streams, threads, parts);
    for (int i = 0; i < PARTS; i++) sum += parts[i] * sizeof(float);
    return sum;
}

int llm_backward_init(llm_backward *b, const llm_model *m, size_t texts, size_t length, int streams, int threads) {
    size_t parts[PARTS];
    memset(b, 0, sizeof *b);
    b->model = m;
    b->threads = threads < 1 ? 1 : threads;
    b->length = length;
    b->tokens = texts * length;
    b->scratch_floats = scratch_floats(m, length);
    float **at[PARTS] = {&b->inputs, &b->normed, &b->q_raw, &b->k_raw, &b->q, &b->k, &b->v, &b->attended, &b->middle, &b->gate,
                         &b->up, &b->act, &b->out, &b->g, &b->rope, &b->slab, &b->turned, &b->logits, &b->scratch};
    parts_of(m, texts, length, streams, b->threads, parts);
    b->head_tokens = parts[LOGITS] / m->config.vocabulary;
    b->losses = malloc((b->tokens + 1) * sizeof *b->losses);
    int failed = !b->losses;
    b->slab_floats = parts[SLAB_PART], b->turned_floats = parts[SLAB_PART + 1], b->sum_floats = sum_floats(m);
    for (int i = 0; i < PARTS && !failed; i++) failed = !(*at[i] = platform_aligned((parts[i] / 16 + 1) * 64));
    if (failed) {
        llm_backward_free(b);
        return -1;
    }
    llm_rope_table(m, (uint32_t)length, b->rope);
    return 0;
}

void llm_backward_free(llm_backward *b) {
    float *const all[] = {b->inputs, b->normed, b->q_raw, b->k_raw, b->q, b->k, b->v, b->attended, b->middle, b->gate,
                          b->up, b->act, b->out, b->g, b->rope, b->slab, b->turned, b->logits, b->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) platform_aligned_free(all[i]);
    free(b->losses);
    memset(b, 0, sizeof *b);
}

void llm_backward_layer(llm_backward *b, uint32_t layer, float *x, size_t texts) {
    layer_forward(b, layer, x, texts * b->length, 1);
    memcpy(x, b->out, texts * b->length * b->model->config.width * sizeof *x);
}

double llm_backward_run(llm_backward *b, const uint32_t *ids, size_t texts, size_t stride, llm_labels labels, uint64_t seed,
                        llm_gradient gradient, void *user) {
    const llm_config *c = &b->model->config;
    size_t tokens = texts * b->length, floats = b->tokens * c->width;
    labelling j = {b, labels == LLM_LABELS_GIVEN ? ids : NULL, stride, 0, seed};
    double sum = 0;
    for (size_t r = 0; r < texts; r++)
        llm_embed(b->model, ids + r * stride, (uint32_t)b->length, b->inputs + r * b->length * c->width);
    for (uint32_t l = 0; l < c->layers; l++) {
        layer_forward(b, l, b->inputs + l * floats, tokens, 1);
        memcpy(b->inputs + (l + 1) * floats, b->out, tokens * c->width * sizeof *b->out);
    }
    head_back(b, b->inputs + c->layers * floats, tokens, &j, gradient, user);
    for (uint32_t l = c->layers; l-- > 0; ) {
        layer_forward(b, l, b->inputs + l * floats, tokens, 0);
        layer_back(b, l, b->inputs + l * floats, tokens, gradient, user);
    }
    gradient(user, 0, LLM_AT_EMBEDDING, b->g, NULL, 0, tokens, c->width);
    for (size_t t = 0; t < tokens; t++) sum += b->losses[t];
    return sum / (double)tokens;
}
