/* Attention in blocks is the softmax over what is kept, in every form that it is kept in and on every instruction set:
 * within the stated error of double precision, the same bits whatever is beside a token, and as large as it says */
#include "test.h"
#include "make_gguf.h"
#include "bitstack.h"
#include "../examples/llm/attention.h"
#include "../examples/llm/dense.h"
#include "../examples/llm/evaluate.h"
#include "../examples/llm/gguf.h"
#include "any_floats.h"

typedef struct shape {
    size_t size, groups, heads, position, count, window;
} shape;

static void *room_of(size_t bytes) {
    void *to = aligned_alloc(64, bytes / 64 * 64 + 64);
    memset(to, 0xff, bytes / 64 * 64 + 64); /* what was never put in is NaN */
    return to;
}

/* What a channel becomes when it is kept: worked out here, from a row of `size` of them. */
static double kept_number(int type, const float *row, size_t size, size_t j) {
    float most = 0;
    if (type == LLM_KEEP_F32) return (double)row[j];
    if (type == LLM_KEEP_F16) return (double)bitstack_f16_to_f32(bitstack_f32_to_f16(row[j]));
    for (size_t i = 0; i < size; i++) most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    return most > 0 ? (double)roundf(row[j] * (127 / most)) * (double)(most / 127) : 0;
}

static const float SCALE = 0.7f;

/* A query's outputs in double precision; returns the bound on their error. */
static double reference(const shape *s, const double *keys, const double *values, const float *q, size_t group, size_t end, double *out) {
    size_t from = s->window && end > s->window ? end - s->window : 0, kv = s->groups * s->size;
    double *p = (double *)malloc(end * sizeof *p), top = -1e300, total = 0, sums = 0, largest = 0;
    for (size_t i = from; i < end; i++) {
        double sum = 0;
        p[i] = 0;
        for (size_t j = 0; j < s->size; j++) {
            double product = (double)SCALE * (double)q[j] * keys[i * kv + group * s->size + j], value = fabs(values[i * kv + group * s->size + j]);
            p[i] += product, sum += fabs(product);
            if (value > largest) largest = value;
        }
        if (p[i] > top) top = p[i];
        if (sum > sums) sums = sum;
    }
    for (size_t i = from; i < end; i++) total += p[i] = exp(p[i] - top);
    for (size_t j = 0; j < s->size; j++) {
        out[j] = 0;
        for (size_t i = from; i < end; i++) out[j] += p[i] / total * values[i * kv + group * s->size + j];
    }
    free(p);
    return (double)(s->size + 96 + end / 64) * 0x1p-23 * (1 + sums) * largest;
}

typedef struct setting {
    llm_attention_blocks blocks;
    float *q, *out, *room;
} setting;

static void attend(const setting *s, size_t count, const float *q, float *out) {
    for (size_t i = llm_attention_pieces(&s->blocks, count); i-- > 0; ) llm_attention_piece(&s->blocks, i, count, q, out, s->room);
}

static void try_shape(const shape *s, int type) {
    size_t keys = s->position + s->count, kv = s->groups * s->size, stride = kv * s->heads + 3, bytes = llm_kept_bytes(type, s->groups, s->size, keys);
    float *k = numbers(keys * kv), *v = numbers(keys * kv), *single = numbers(s->count * stride);
    double *kept_k = (double *)malloc(keys * kv * sizeof *kept_k), *kept_v = (double *)malloc(keys * kv * sizeof *kept_v),
           *want = (double *)malloc(s->size * sizeof *want), worst = 0;
    llm_kept kept = {(unsigned char *)room_of(bytes), (unsigned char *)room_of(bytes), type, s->groups, s->size};
    setting a = {{kept, s->heads, s->position, s->window, stride, SCALE}, numbers(s->count * stride), numbers(s->count * stride),
                 (float *)room_of(llm_attention_room(s->size) * sizeof(float))};
    for (size_t i = 0; i < keys * kv; i++) {
        kept_k[i] = kept_number(type, k + i / s->size * s->size, s->size, i % s->size);
        kept_v[i] = kept_number(type, v + i / s->size * s->size, s->size, i % s->size);
    }
    llm_keep(&kept, 0, s->position, k, v); /* in two parts, as a text arrives */
    llm_keep(&kept, s->position, s->count, k + s->position * kv, v + s->position * kv);
    for (size_t i = 0; i < s->count; i++) a.out[i * stride + stride - 1] = 77;
    attend(&a, s->count, a.q, a.out);
    for (size_t t = 0; t < s->count; t++) {
        CHECK(a.out[t * stride + stride - 1] == 77, "wrote behind the heads");
        for (size_t h = 0; h < s->groups * s->heads; h++) {
            const float *out = a.out + t * stride + h * s->size;
            double bound = reference(s, kept_k, kept_v, a.q + t * stride + h * s->size, h / s->heads, s->position + t + 1, want);
            for (size_t j = 0; j < s->size; j++) {
                double error = fabs(want[j] - (double)out[j]) / bound;
                if (!(error <= worst)) worst = error;
            }
        }
    }
    CHECK(worst < 1, "kept as %d, %zu channels, %zu x %zu heads, position %zu, %zu tokens, window %zu: %g of the bound", type, s->size, s->groups,
          s->heads, s->position, s->count, s->window, worst);
    for (size_t t = 0; t < s->count; t++) {
        a.blocks.position = s->position + t;
        attend(&a, 1, a.q + t * stride, single + t * stride);
        CHECK(memcmp(single + t * stride, a.out + t * stride, (stride - 3) * sizeof *single) == 0, "token %zu depends on those beside it", t);
    }
    free(k), free(v), free(single), free(kept_k), free(kept_v), free(want), free(kept.keys), free(kept.values), free(a.q), free(a.out), free(a.room);
}

/* Logits of some tokens of a small model, and the bytes of its keys and values. */
static uint64_t model_of(int keep, int threads, float *logits, uint32_t count) {
    gguf_maker g;
    llm_model m;
    llm_source source;
    llm_state s;
    llm_error error = {""};
    llm_model_options options;
    uint32_t ids[64];
    memset(&options, 0, sizeof options);
    options.keep = keep, options.threads = threads;
    make_tiny_llama(&g, 3);
    if (llm_gguf_open_memory(&source, g.data, g.bytes, "tiny.gguf", &error) != 0 || llm_model_load(&m, source, &options, &error) != 0) {
        CHECK(0, "%s", error.message);
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) ids[i] = (i * 61 + 5) % m.config.vocabulary;
    if (llm_state_init(&s, &m, 64, 0) != 0) return 0;
    llm_forward(&m, &s, ids, count - 7); /* then one by one */
    llm_logits(&m, &s, 0, count - 7, logits);
    for (uint32_t i = count - 7; i < count; i++) {
        llm_forward(&m, &s, ids + i, 1);
        llm_logits(&m, &s, 0, 1, logits + i * m.config.vocabulary);
    }
    uint64_t bytes = llm_state_used(&m, 64, 64, 1) - llm_state_used(&m, 64, 16, 1);
    llm_state_free(&s);
    llm_model_close(&m);
    free(g.data);
    return bytes;
}

int main(void) {
    static const char *const names[] = {"plain or AVX2", "AVX-512"};
    static const shape shapes[] = {{64, 2, 3, 0, 150, 0}, {64, 1, 1, 70, 9, 0},  {48, 2, 2, 5, 77, 0},  {16, 1, 4, 0, 30, 7},   {64, 1, 3, 130, 90, 64},
                                   {20, 2, 2, 3, 20, 0},  {128, 1, 2, 0, 26, 9}, {64, 2, 3, 300, 1, 0}, {80, 1, 8, 64, 1, 130}, {7, 3, 70, 0, 18, 0},
                                   {96, 1, 5, 62, 3, 1}};
    int best = llm_dense_limit(LLM_DENSE_AMX);
    for (int isa = 0; isa < 2; isa++) {
        TEST(names[isa]);
        if (isa > best) {
            SKIP("this machine does not have it");
            continue;
        }
        llm_dense_limit(isa);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int type = LLM_KEEP_F32; type <= LLM_KEEP_8; type++) try_shape(&shapes[i], type);
    }
    llm_dense_limit(LLM_DENSE_AMX);

    TEST("halves are held to the largest half, and bytes of tiny numbers are zeros: nothing becomes infinite");
    for (int type = LLM_KEEP_F16; type <= LLM_KEEP_8; type++) {
        static const float row[4] = {1e9f, -1e9f, 1e-43f, 0}, tiny[4] = {1e-43f, -1e-43f, 0, 0};
        unsigned char *keys = (unsigned char *)room_of(llm_kept_bytes(type, 1, 4, 16)), *values = (unsigned char *)room_of(llm_kept_bytes(type, 1, 4, 16));
        llm_kept kept = {keys, values, type, 1, 4};
        setting a = {{kept, 1, 0, 0, 4, 1}, NULL, NULL, (float *)room_of(llm_attention_room(4) * sizeof(float))};
        float out[4];
        llm_keep(&kept, 0, 1, tiny, row);
        attend(&a, 1, row, out);
        float most = type == LLM_KEEP_F16 ? 65504 : 1e9f;
        CHECK(fabsf(out[0] / most - 1) < 1e-6f && fabsf(out[1] / most + 1) < 1e-6f && fabsf(out[2]) < 1e-6f, "%g %g %g", (double)out[0], (double)out[1],
              (double)out[2]);
        free(keys), free(values), free(a.room);
    }

    TEST("a model with keys and values as halves, or bytes, gives nearly the same logits, the same on three threads, in a half, or three tenths, of the room");
    enum { TOKENS = 40, WORDS = 300 };
    static float exact[TOKENS * WORDS], other[TOKENS * WORDS], again[TOKENS * WORDS];
    static const double most[] = {0, 3e-3, 6e-2};
    uint64_t floats = model_of(LLM_KEEP_F32, 1, exact, TOKENS);
    for (int type = LLM_KEEP_F16; type <= LLM_KEEP_8 && floats; type++) {
        double far = 0, all = 0;
        uint64_t bytes = model_of(type, 1, other, TOKENS);
        model_of(type, 3, again, TOKENS);
        for (int i = 0; i < TOKENS * WORDS; i++)
            far += pow((double)other[i] - (double)exact[i], 2), all += pow((double)exact[i], 2);
        CHECK(sqrt(far / all) < most[type] && far > 0, "kept as %d: off by %g", type, sqrt(far / all));
        CHECK(memcmp(other, again, sizeof other) == 0, "kept as %d: threads matter", type);
        CHECK(bytes == (type == LLM_KEEP_F16 ? floats / 2 : floats * (16 + 4) / 64), "kept as %d: %llu bytes, floats %llu", type, (unsigned long long)bytes,
              (unsigned long long)floats);
    }
    return TEST_DONE();
}
