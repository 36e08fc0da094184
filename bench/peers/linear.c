/* linear.c - the linear algebra that the peers share: threads, a float matrix product, the factor of the
 * inverse moments. Float throughout, as in the public code of the methods. */
#include "peer.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

void *peer_alloc(size_t count, size_t size) {
    size_t bytes = (count * size + 127) / 64 * 64;
    void *p = aligned_alloc(64, bytes);
    if (!p) {
        fprintf(stderr, "peers: out of memory\n");
        exit(1);
    }
    return memset(p, 0, bytes);
}

typedef struct crew {
    atomic_size_t next;
    size_t count;
    void (*work)(void *user, size_t i);
    void *user;
} crew;

static void *crew_run(void *argument) {
    crew *c = argument;
    size_t i;
    while ((i = atomic_fetch_add(&c->next, 1)) < c->count) c->work(c->user, i);
    return NULL;
}

void peer_parallel(int threads, size_t count, void (*work)(void *user, size_t i), void *user) {
    crew c = {0, count, work, user};
    pthread_t ids[64];
    int started = 0;
    while (started < threads - 1 && started < 64 && (size_t)started + 1 < count &&
           !pthread_create(&ids[started], NULL, crew_run, &c))
        started++;
    crew_run(&c);
    while (started) pthread_join(ids[--started], NULL);
}

/* ------------------------------------------------------------------------------- matrix product
 * A strip of 16 columns of B is packed; tiles of 6 x 16 of C stay in registers. */
enum { TILE_ROWS = 6, TILE_COLS = 16, DEPTH = 256 };

static void tile_scalar(float *tile, const float *const *a, const float *b, size_t k) {
    for (size_t p = 0; p < k; p++)
        for (int r = 0; r < TILE_ROWS; r++)
            for (int c = 0; c < TILE_COLS; c++) tile[r * TILE_COLS + c] += a[r][p] * b[p * TILE_COLS + (size_t)c];
}
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void tile_avx2(float *tile, const float *const *a, const float *b, size_t k) {
    __m256 s[TILE_ROWS][2];
    const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3], *a4 = a[4], *a5 = a[5];
#define STEP(r, pointer)                                                              \
    do {                                                                              \
        __m256 value = _mm256_broadcast_ss((pointer) + p);                            \
        s[r][0] = _mm256_fmadd_ps(value, b0, s[r][0]), s[r][1] = _mm256_fmadd_ps(value, b1, s[r][1]); \
    } while (0)
    for (int r = 0; r < TILE_ROWS; r++) s[r][0] = s[r][1] = _mm256_setzero_ps();
    for (size_t p = 0; p < k; p++) {
        __m256 b0 = _mm256_loadu_ps(b + p * TILE_COLS), b1 = _mm256_loadu_ps(b + p * TILE_COLS + 8);
        STEP(0, a0);
        STEP(1, a1);
        STEP(2, a2);
        STEP(3, a3);
        STEP(4, a4);
        STEP(5, a5);
    }
#undef STEP
    for (int r = 0; r < TILE_ROWS; r++)
        _mm256_storeu_ps(tile + r * TILE_COLS, s[r][0]), _mm256_storeu_ps(tile + r * TILE_COLS + 8, s[r][1]);
}
#endif

void peer_gemm(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t m, size_t n,
               size_t k, float alpha) {
    void (*multiply)(float *, const float *const *, const float *, size_t) = tile_scalar;
    float strip[DEPTH * TILE_COLS], tile[TILE_ROWS * TILE_COLS];
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) multiply = tile_avx2;
#endif
    for (size_t from = 0; from < k; from += DEPTH) {
        size_t depth = k - from < DEPTH ? k - from : DEPTH;
        for (size_t j = 0; j < n; j += TILE_COLS) {
            size_t width = n - j < TILE_COLS ? n - j : TILE_COLS;
            if (width < TILE_COLS) memset(strip, 0, sizeof strip);
            for (size_t p = 0; p < depth; p++)
                for (size_t q = 0; q < width; q++) strip[p * TILE_COLS + q] = alpha * b[(from + p) * ldb + j + q];
            for (size_t i = 0; i < m; i += TILE_ROWS) {
                size_t height = m - i < TILE_ROWS ? m - i : TILE_ROWS;
                const float *rows[TILE_ROWS];
                for (size_t r = 0; r < TILE_ROWS; r++) rows[r] = a + (i + (r < height ? r : 0)) * lda + from;
                memset(tile, 0, sizeof tile);
                multiply(tile, rows, strip, depth);
                for (size_t r = 0; r < height; r++)
                    for (size_t q = 0; q < width; q++) c[(i + r) * ldc + j + q] += tile[r * TILE_COLS + q];
            }
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void axpy_avx2(float *y, float a, const float *x, size_t count) {
    __m256 v = _mm256_set1_ps(a);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(y + i, _mm256_fmadd_ps(v, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < count; i++) y[i] += a * x[i];
}
#endif
void peer_axpy(float *y, float a, const float *x, size_t count) {
#if defined(__x86_64__)
    static int fast = -1; /* every thread would write the same */
    if (fast < 0) fast = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (fast) {
        axpy_avx2(y, a, x, count);
        return;
    }
#endif
    for (size_t i = 0; i < count; i++) y[i] += a * x[i];
}

/* ------------------------------------------------------------------------------------- moments */
void peer_hessian(float *out, uint32_t cols, const bitstack_moments *moments) {
    size_t n = cols;
    double trace = 0;
    memset(out, 0, n * n * sizeof *out);
    for (size_t i = 0; moments && i < n; i++) trace += moments->h[i * n + i];
    for (size_t i = 0; !(trace > 0) && i < n; i++) out[i * n + i] = 1;
    if (!(trace > 0)) return;
    for (size_t i = 0; i < n * n; i++) { /* below 1e-20 of the mean is nothing, and slow as a subnormal */
        double value = moments->h[i] * (double)n / trace;
        out[i] = value > -1e-20 && value < 1e-20 ? 0 : (float)value;
    }
}

enum { BLOCK = 128 };

typedef struct factoring {
    float *a, *x, *panel;
    size_t n, at, end; /* the block column or row at hand */
    int failed;
} factoring;

/* One block of rows of the panel below a factored diagonal block: L21 = A21 L11^-T, and its transpose. */
static void panel_rows(void *user, size_t block) {
    factoring *f = user;
    size_t n = f->n, from = f->end + block * BLOCK, to = from + BLOCK < n ? from + BLOCK : n;
    for (size_t i = from; i < to; i++)
        for (size_t j = f->at; j < f->end; j++) {
            float *row = f->a + i * n, s = row[j];
            const float *l = f->a + j * n;
            for (size_t k = f->at; k < j; k++) s -= row[k] * l[k];
            row[j] = s / l[j];
            f->panel[(j - f->at) * n + i] = row[j];
        }
}
static void trailing_rows(void *user, size_t block) {
    factoring *f = user;
    size_t n = f->n, from = f->end + block * BLOCK, to = from + BLOCK < n ? from + BLOCK : n;
    peer_gemm(f->a + from * n + f->end, n, f->a + from * n + f->at, n, f->panel + f->end, n, to - from, to - f->end,
              f->end - f->at, -1);
}
/* Lower Cholesky factor in place, right-looking by blocks; what is above the diagonal is left alone. */
static int cholesky(float *a, size_t n, int threads) {
    factoring f = {a, NULL, peer_alloc(BLOCK * n, sizeof(float)), n, 0, 0, 0};
    for (f.at = 0; f.at < n && !f.failed; f.at = f.end) {
        f.end = f.at + BLOCK < n ? f.at + BLOCK : n;
        for (size_t j = f.at; j < f.end; j++)
            for (size_t i = j; i < f.end; i++) {
                double s = a[i * n + j];
                for (size_t k = f.at; k < j; k++) s -= (double)a[i * n + k] * a[j * n + k];
                if (i == j && !(s > 0)) f.failed = 1, s = 1;
                a[i * n + j] = i == j ? (float)sqrt(s) : (float)(s / a[j * n + j]);
            }
        size_t blocks = (n - f.end + BLOCK - 1) / BLOCK;
        peer_parallel(threads, blocks, panel_rows, &f);
        peer_parallel(threads, blocks, trailing_rows, &f);
    }
    free(f.panel);
    return !f.failed;
}
/* Rows at..end of X = L^-1, one strip of columns. */
static void inverse_strip(void *user, size_t strip) {
    factoring *f = user;
    size_t n = f->n, from = strip * BLOCK, to = from + BLOCK < f->end ? from + BLOCK : f->end, width = to - from;
    if (from < f->at)
        peer_gemm(f->x + f->at * n + from, n, f->a + f->at * n + from, n, f->x + from * n + from, n, f->end - f->at,
                  width, f->at - from, -1);
    for (size_t i = f->at; i < f->end; i++) {
        float *row = f->x + i * n + from, inverse = 1 / f->a[i * n + i];
        if (i >= from && i < to) row[i - from] = 1;
        for (size_t k = f->at; k < i; k++) {
            peer_axpy(row, -f->a[i * n + k], f->x + k * n + from, width);
        }
        for (size_t j = 0; j < width; j++) row[j] *= inverse;
    }
}

/* With J the reversal of order, J H J = L L^T gives H^-1 = U^T U for U = J L^-1 J: one factorization and
 * one triangular inverse where the public code takes two factorizations and an inverse. */
bitstack_result peer_inverse_factor(float *u, uint32_t cols, const bitstack_moments *moments,
                                    const uint32_t *order, double damping, int threads) {
    size_t n = cols;
    float *h = peer_alloc(n * n, sizeof *h), *a = peer_alloc(n * n, sizeof *a);
    int good = 0;
    peer_hessian(h, cols, moments);
    for (int attempt = 0; attempt < 6 && !good; attempt++, damping *= 10) {
        for (size_t i = 0; i < n; i++) {
            size_t from = order ? order[n - 1 - i] : n - 1 - i;
            for (size_t j = 0; j <= i; j++) a[i * n + j] = h[from * n + (order ? order[n - 1 - j] : n - 1 - j)];
            if (a[i * n + i] <= 0) a[i * n + i] = 1; /* a dead input */
            a[i * n + i] += (float)damping;
        }
        good = cholesky(a, n, threads);
    }
    memset(h, 0, n * n * sizeof *h);
    factoring f = {a, h, NULL, n, 0, 0, 0};
    for (; good && f.at < n; f.at = f.end) {
        f.end = f.at + BLOCK < n ? f.at + BLOCK : n;
        peer_parallel(threads, (f.end + BLOCK - 1) / BLOCK, inverse_strip, &f);
    }
    for (size_t i = 0; good && i < n; i++)
        for (size_t j = 0; j < n; j++) u[i * n + j] = j < i ? 0 : h[(n - 1 - i) * n + n - 1 - j];
    free(h), free(a);
    return good ? BITSTACK_OK : BITSTACK_ERROR_NUMERIC;
}

/* --------------------------------------------------------------------------------------- error */
typedef struct measuring {
    const float *w, *v, *h;
    size_t rows, cols;
    double *sums; /* two a block of rows */
} measuring;

static void measure_block(void *user, size_t block) {
    measuring *m = user;
    size_t n = m->cols, from = block * BLOCK, count = m->rows - from < BLOCK ? m->rows - from : BLOCK;
    float *d = peer_alloc(count * n, sizeof *d), *dh = peer_alloc(count * n, sizeof *dh);
    const float *w = m->w + from * n;
    for (int part = 0; part < 2; part++) {
        double s = 0;
        for (size_t i = 0; i < count * n; i++) d[i] = part ? w[i] : w[i] - m->v[from * n + i];
        if (m->h) {
            memset(dh, 0, count * n * sizeof *dh);
            peer_gemm(dh, n, d, n, m->h, n, count, n, n, 1);
        }
        for (size_t i = 0; i < count * n; i++) s += (double)d[i] * (m->h ? dh[i] : d[i]);
        m->sums[2 * block + (size_t)part] = s;
    }
    free(d), free(dh);
}

double peer_error(const float *w, const float *approximation, uint32_t rows, uint32_t cols,
                  const bitstack_moments *moments, int threads) {
    size_t blocks = (rows + BLOCK - 1) / BLOCK;
    float *h = moments ? peer_alloc((size_t)cols * cols, sizeof *h) : NULL;
    measuring m = {w, approximation, h, rows, cols, peer_alloc(2 * blocks, sizeof(double))};
    double error = 0, norm = 0;
    if (h) peer_hessian(h, cols, moments);
    peer_parallel(threads, blocks, measure_block, &m);
    for (size_t i = 0; i < blocks; i++) error += m.sums[2 * i], norm += m.sums[2 * i + 1];
    free(m.sums), free(h);
    return norm > 0 ? error / norm : 0;
}

void peer_input_power(const bitstack_moments *moments, uint32_t cols, float *out) {
    double sum = 0;
    for (size_t j = 0; moments && j < cols; j++) sum += moments->h[j * cols + j];
    for (size_t j = 0; j < cols; j++) out[j] = sum > 0 ? (float)(moments->h[j * cols + j] * cols / sum) : 1;
}
