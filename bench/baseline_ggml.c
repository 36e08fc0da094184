/* baseline_ggml.c - matrix times vector by ggml, through its public interface, if GGML_DIR names a built
 * one (make bench GGML_DIR=...); nothing of it is part of this project. Each type runs from the ordinary
 * buffer and, where ggml has one for it, from its repacked buffer. Timed as a graph of one node, which is
 * how it is used; its threads are its own. */
#include "bench.h"

#ifndef BENCH_GGML
int bench_ggml_types(void) { return 0; }
bench_ggml *bench_ggml_open(int type, int repacked, uint32_t rows, uint32_t cols, int copies, int threads) {
    (void)type, (void)repacked, (void)rows, (void)cols, (void)copies, (void)threads;
    return NULL;
}
void bench_ggml_run(bench_ggml *g, const float *x, float *y) { (void)g, (void)x, (void)y; }
void bench_ggml_wake(bench_ggml *g, int awake) { (void)g, (void)awake; }
void bench_ggml_close(bench_ggml *g) { (void)g; }
#else
#include <stdlib.h>
#include <string.h>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

static const enum ggml_type types[] = {GGML_TYPE_F16,     GGML_TYPE_Q8_0, GGML_TYPE_Q6_K, GGML_TYPE_Q5_K,
                                       GGML_TYPE_Q4_0,    GGML_TYPE_Q4_K, GGML_TYPE_Q3_K, GGML_TYPE_Q2_K,
                                       GGML_TYPE_IQ3_XXS, GGML_TYPE_TQ2_0};
enum { MAX_COPIES = 64 };

struct bench_private {
    ggml_backend_t backend;
    ggml_threadpool_t pool;
    struct ggml_context *weights, *rest;
    ggml_backend_buffer_t weight_buffer, rest_buffer;
    struct ggml_tensor *w[MAX_COPIES], *x, *y[MAX_COPIES];
    struct ggml_cgraph *graph[MAX_COPIES];
    int copies, at, threads;
};

int bench_ggml_types(void) { return (int)(sizeof types / sizeof *types); }

static ggml_backend_buffer_type_t repack_buffer(ggml_backend_dev_t device) {
    ggml_backend_dev_get_extra_bufts_t extra = NULL;
    void *found = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device),
                                                    "ggml_backend_dev_get_extra_bufts");
    memcpy(&extra, &found, sizeof found);
    for (ggml_backend_buffer_type_t *list = extra ? extra(device) : NULL; list && *list; list++)
        if (strstr(ggml_backend_buft_name(*list), "REPACK")) return *list;
    return NULL;
}

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void)level, (void)text, (void)user;
}

bench_ggml *bench_ggml_open(int type, int repacked, uint32_t rows, uint32_t cols, int copies, int threads) {
    struct bench_private *p = bench_alloc(sizeof *p);
    bench_ggml *g = bench_alloc(sizeof *g);
    struct ggml_init_params meta = {(size_t)8 << 20, NULL, true};
    ggml_log_set(quiet, NULL);
    g->private = p;
    p->copies = copies < MAX_COPIES ? copies : MAX_COPIES;
    p->threads = threads;
    p->backend = ggml_backend_cpu_init();
    ggml_backend_dev_t device = ggml_backend_get_device(p->backend);
    ggml_backend_buffer_type_t plain = ggml_backend_get_default_buffer_type(p->backend);
    ggml_backend_buffer_type_t buffer = repacked ? repack_buffer(device) : plain;
    if (cols % (uint32_t)ggml_blck_size(types[type]) || !buffer) return bench_ggml_close(g), NULL;
    ggml_backend_cpu_set_n_threads(p->backend, threads);
    if (threads > 1) {
        struct ggml_threadpool_params how = ggml_threadpool_params_default(threads);
        p->pool = ggml_threadpool_new(&how);
        ggml_backend_cpu_set_threadpool(p->backend, p->pool);
    }
    p->weights = ggml_init(meta), p->rest = ggml_init(meta);
    p->x = ggml_new_tensor_2d(p->rest, GGML_TYPE_F32, cols, 1);
    for (int i = 0; i < p->copies; i++) {
        p->w[i] = ggml_new_tensor_2d(p->weights, types[type], cols, rows);
        p->y[i] = ggml_mul_mat(p->rest, p->w[i], p->x);
        p->graph[i] = ggml_new_graph_custom(p->rest, 8, false);
        ggml_build_forward_expand(p->graph[i], p->y[i]);
    }
    p->rest_buffer = ggml_backend_alloc_ctx_tensors_from_buft(p->rest, plain);
    if (repacked) { /* does that buffer take this type? Asked with an empty buffer in place, as loaders do */
        p->w[0]->buffer = ggml_backend_buft_alloc_buffer(buffer, 0);
        int can = ggml_backend_dev_supports_op(device, p->y[0]);
        ggml_backend_buffer_free(p->w[0]->buffer);
        p->w[0]->buffer = NULL;
        if (!can) return bench_ggml_close(g), NULL;
    }
    p->weight_buffer = ggml_backend_alloc_ctx_tensors_from_buft(p->weights, buffer);
    if (!p->weight_buffer || !p->rest_buffer) return bench_ggml_close(g), NULL;

    /* 64 rows are quantised and repeated: the time does not depend on the values. */
    size_t row = ggml_row_size(types[type], cols);
    float *source = bench_alloc(64 * (size_t)cols * sizeof *source);
    unsigned char *coded = bench_alloc((size_t)(rows + 64) * row);
    uint64_t seed = 5;
    for (size_t i = 0; i < 64 * (size_t)cols; i++) source[i] = bench_normal(&seed);
    ggml_quantize_chunk(types[type], source, coded, 0, 64, cols, NULL);
    for (uint32_t i = 64; i < rows; i += 64) memcpy(coded + i * row, coded, 64 * row);
    for (int i = 0; i < p->copies; i++) ggml_backend_tensor_set(p->w[i], coded, 0, rows * row);
    free(source), free(coded);
    snprintf(g->name, sizeof g->name, "%s%s", ggml_type_name(types[type]), repacked ? "/repacked" : "");
    g->bytes = rows * row;
    return g;
}
void bench_ggml_run(bench_ggml *g, const float *x, float *y) {
    struct bench_private *p = g->private;
    int i = p->at = (p->at + 1) % p->copies;
    memcpy(p->x->data, x, (size_t)p->x->ne[0] * sizeof *x);
    ggml_backend_graph_compute(p->backend, p->graph[i]);
    memcpy(y, p->y[i]->data, (size_t)p->y[i]->ne[0] * sizeof *y);
}
/* Its threads poll between calls: they sleep while others are timed. */
void bench_ggml_wake(bench_ggml *g, int awake) {
    if (!g->private->pool) return;
    if (awake) ggml_threadpool_resume(g->private->pool);
    else ggml_threadpool_pause(g->private->pool);
}
void bench_ggml_close(bench_ggml *g) {
    struct bench_private *p = g->private;
    if (p->weight_buffer) ggml_backend_buffer_free(p->weight_buffer);
    if (p->rest_buffer) ggml_backend_buffer_free(p->rest_buffer);
    if (p->weights) ggml_free(p->weights);
    if (p->rest) ggml_free(p->rest);
    if (p->backend) ggml_backend_free(p->backend);
    if (p->pool) ggml_threadpool_free(p->pool);
    free(p), free(g);
}
#endif
