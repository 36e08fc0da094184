#define BITSTACK_POOL
#include "predict.h"
#include "../llm/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- quality ---- */

static const quality_point layers[] = {
    {2.3986, 0.7713, 2.1565}, {2.6986, 0.5459, 1.7275}, {3.1487, 0.3017, 1.2861},
    {3.5925, 0.1719, 1.1553}, {4.1593, 0.0760, 1.0563}, {4.5993, 0.0456, 1.0311},
    {5.1541, 0.0232, 1.0274}, {6.1940, 0.0074, 1.0081}, {8.1859, 0.0018, 1.0047}};
static const quality_point all[] = {
    {2.9700, 0.6340, 1.8616}, {3.1830, 0.4904, 1.5738}, {3.6336, 0.2647, 1.2453},
    {3.8646, 0.1917, 1.1684}, {4.2216, 0.1148, 1.0817}, {4.5168, 0.0839, 1.0703},
    {4.7538, 0.0631, 1.0594}, {5.0147, 0.0464, 1.0555}, {5.2391, 0.0367, 1.0335},
    {5.4013, 0.0296, 1.0305}, {5.5585, 0.0241, 1.0307}, {6.2278, 0.0116, 1.0118},
    {6.6295, 0.0081, 1.0078}, {8.2298, 0.0025, 1.0064}, {8.2818, 0.0025, 1.0067}};
static const quality_point iabs[] = {
    {0.9931, 0.5164, 1.572},  {1.0990, 0.4278, 1.444}, {1.5920, 0.2143, 1.205}, {2.0217, 0.1330, 1.120},
    {2.5933, 0.0704, 1.059},  {3.0312, 0.0478, 1.035}, {3.7695, 0.0268, 1.016}, {4.4579, 0.0185, 1.0096},
    {5.4878, 0.0125, 1.0067}, {8.4896, 0.0074, 1.0023}};

/* Between two points on a straight line of logarithms; below the first one on the line of the first two, beyond the
 * last one that. */
quality_point quality_predicted(quality_scope scope, double bits) {
    static const struct { const quality_point *at; size_t count;
    } tables[] = {{layers, sizeof layers / sizeof *layers},
                  {all, sizeof all / sizeof *all},
                  {iabs, sizeof iabs / sizeof *iabs}};
    const quality_point *at = tables[scope].at, *last = at + tables[scope].count - 1;
    while (at < last - 1 && at[1].bits < bits) at++;
    double share = (bits - at->bits) / (at[1].bits - at->bits);
    share = share > 1 ? 1 : share;
    const double worst =
        10; /* about what knowing nothing of the next token costs: lines do not go on beyond it */
    quality_point point = {bits, fmin(worst, at->kl * pow(at[1].kl / at->kl, share)),
                           1 + (at->perplexity - 1) *
                                   pow((at[1].perplexity - 1) / (at->perplexity - 1), share)};
    return point;
}

/* ---- speed ---- */

enum {
    ROWS = 2048,
    COLS = 2048,
    LEVEL = 4,
    COPIES = 24,
    TURNS = 5
}; /* 50 MB: more than caches that are one's own */

/* A matrix of random indices into a table, with all scales 1; its planes stand at `planes`. */
static void make_view(bitstack_view *view, bitstack_plane parts[LEVEL], const unsigned char *planes,
                      size_t plane_bytes, const unsigned char *columns, const unsigned char *scales) {
    for (int p = 0; p < LEVEL; p++)
        parts[p] = (bitstack_plane){planes + (size_t)p * plane_bytes, columns, scales};
    *view = (bitstack_view){.rows = ROWS, .cols = COLS, .rank = 1, .group_cols = 64, .level = LEVEL, .scale = 1, .planes = parts, .encoding = BITSTACK_TABLES};
}

double speed_measured(int threads) {
    enum {
        ONE = 224,
        TABLE = 16,
        CODES = TABLE + (2 << LEVEL)
    }; /* the code of 1; where table and codes begin */
    static unsigned char columns[CODES + COLS], scales[ROWS * COLS / 64];
    static float x[COLS], y[ROWS];
    const size_t plane_bytes = (size_t)ROWS * COLS / 8, bytes = plane_bytes * LEVEL * COPIES;
    unsigned char *planes = malloc(bytes);
    bitstack_view views[COPIES];
    bitstack_plane parts[COPIES][LEVEL];
    bitstack_pool *pool = NULL;
    bitstack_parallel parallel = {0};
    double best = 0;
    uint32_t state = 1;
    if (!planes) return 0;
    for (size_t i = 0; i < bytes; i++)
        planes[i] = (unsigned char)((state = state * 1664525u + 1013904223u) >> 24);
    const float unit = 1;
    memcpy(columns, &unit, sizeof unit);
    for (int i = 0; i < 1 << LEVEL; i++) columns[TABLE + 2 * i] = (unsigned char)(8 * i);
    memset(columns + CODES, ONE, COLS);
    memset(scales, ONE, sizeof scales);
    for (int j = 0; j < COLS; j++) x[j] = (float)(j % 7) - 3;
    if (threads > 1 && bitstack_pool_open(&pool, threads, NULL) == BITSTACK_OK)
        parallel = bitstack_pool_parallel(pool);
    for (int i = 0; i < COPIES; i++)
        make_view(&views[i], parts[i], planes + (size_t)i * LEVEL * plane_bytes, plane_bytes, columns,
                  scales);
    for (int turn = 0; turn < TURNS; turn++) {
        double start = llm_seconds();
        for (int i = 0; i < COPIES; i++)
            if (bitstack_view_gemm_parallel(&views[i], BITSTACK_FAST, x, COLS, y, ROWS, 1, &parallel) !=
                BITSTACK_OK)
                turn = TURNS;
        double speed = (double)bytes / (llm_seconds() - start + 1e-9);
        if (turn < TURNS && speed > best) best = speed;
    }
    bitstack_pool_close(pool);
    free(planes);
    return best;
}

double speed_predicted(const llm_model *m, double rate, double weights) {
    /* Beside reading: a matrix costs some microseconds to share out, a word of the vocabulary some nanoseconds to draw among. */
    double products = (double)m->config.layers * LLM_LINEARS + 1;
    return rate > 0 ? 1 / (weights / rate + 3e-6 * products + 5e-9 * m->config.vocabulary) : 0;
}
