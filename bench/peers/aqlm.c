/* aqlm.c - AQLM, additive quantization (Egiazarian et al., arXiv 2401.06118): eight weights of a row are a sum
 * of one entry from each of M code books of 2^B entries, times a scale a row. Start: residual k-means of the
 * rows at norm one. Then by turns, all in the norm of H (the output error): a beam search over the codes,
 * group after group; the code books by conjugate gradients, which the quadratic error allows in place of the
 * paper's Adam; the scales in closed form. Fine-tuning of whole blocks is left out, as for all peers.
 *
 * Codes are kept in tiles of 16 groups, row after row, for the kernel of B = 8: a tile's tables of partial
 * products (entry times its eight inputs) stay in the first-level cache while all rows look them up. Larger
 * books are multiplied entry by entry. */
#include "peer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,fma")))
#endif

enum { D = 8, TILE = 16, ROWS = 48, SPAN = 128, BEAM = 4, MOST_BOOKS = 2 };

typedef struct aqlm {
    size_t rows, cols, groups, books, entries; /* entries a book */
    float *book;     /* books x entries x D, rounded to half precision */
    uint16_t *codes; /* rows x groups x books, while encoding and for large books */
    unsigned char *tiles; /* the same as bytes, [tile][row][group][book], for B = 8 */
    float *scale;    /* rows, rounded to half precision */
} aqlm;

static const uint16_t *codes_at(const aqlm *a, size_t i, size_t g) { return a->codes + (i * a->groups + g) * a->books; }

/* -------------------------------------------------------------------------------------- scores
 * out[k] = bias[k] + q . entry k, over a book stored entry-last (D x entries). */
static void scores_scalar(float *out, const float *bias, const float *columns, size_t entries, const float *q) {
    for (size_t k = 0; k < entries; k++) {
        float s = bias[k];
        for (size_t d = 0; d < D; d++) s += q[d] * columns[d * entries + k];
        out[k] = s;
    }
}
#if defined(__x86_64__)
AVX2 static void scores_avx2(float *out, const float *bias, const float *columns, size_t entries, const float *q) {
    __m256 v[D];
    for (int d = 0; d < D; d++) v[d] = _mm256_broadcast_ss(q + d);
    for (size_t k = 0; k < entries; k += 8) {
        __m256 s = _mm256_loadu_ps(bias + k), t = _mm256_setzero_ps();
        for (size_t d = 0; d < D; d += 2) {
            s = _mm256_fmadd_ps(v[d], _mm256_loadu_ps(columns + d * entries + k), s);
            t = _mm256_fmadd_ps(v[d + 1], _mm256_loadu_ps(columns + (d + 1) * entries + k), t);
        }
        _mm256_storeu_ps(out + k, _mm256_add_ps(s, t));
    }
}
#endif
static void scores(float *out, const float *bias, const float *columns, size_t entries, const float *q) {
#if defined(__x86_64__)
    static int fast = -1;
    if (fast < 0) fast = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (fast) {
        scores_avx2(out, bias, columns, entries, q);
        return;
    }
#endif
    scores_scalar(out, bias, columns, entries, q);
}
/* Index of the least; two passes, which vectorise. */
static size_t least(const float *v, size_t count) {
    float low[D];
    for (int d = 0; d < D; d++) low[d] = v[d];
    for (size_t k = D; k < count; k += D)
        for (int d = 0; d < D; d++) low[d] = v[k + (size_t)d] < low[d] ? v[k + (size_t)d] : low[d];
    for (int d = 1; d < D; d++) low[0] = low[d] < low[0] ? low[d] : low[0];
    for (size_t k = 0; k < count; k++)
        if (v[k] == low[0]) return k;
    return 0; /* not a number: any will do */
}

/* --------------------------------------------------------------------------------------- start */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

typedef struct clustering {
    const float *points, *columns, *bias;
    uint32_t *nearest;
    size_t count, entries;
} clustering;

enum { LOT = 1024 };
static void assign_lot(void *user, size_t lot) {
    clustering *c = user;
    float *s = peer_alloc(c->entries, sizeof *s), q[D];
    for (size_t p = lot * LOT; p < (lot + 1) * LOT && p < c->count; p++) {
        for (int d = 0; d < D; d++) q[d] = -2 * c->points[p * D + (size_t)d];
        scores(s, c->bias, c->columns, c->entries, q);
        c->nearest[p] = (uint32_t)least(s, c->entries);
    }
    free(s);
}
/* Lays the book out entry-last and takes the squared norms of its entries. */
static void lay_out(const float *book, size_t entries, float *columns, float *norms) {
    for (size_t k = 0; k < entries; k++) {
        norms[k] = 0;
        for (size_t d = 0; d < D; d++) {
            columns[d * entries + k] = book[k * D + d];
            norms[k] += book[k * D + d] * book[k * D + d];
        }
    }
}
/* Lloyd's iterations on a sample of the points, then the nearest entry of every point. */
static void cluster(const float *points, size_t count, float *book, size_t entries, uint32_t *nearest, int threads) {
    size_t sample = entries * 4 < 65536 ? 65536 : entries * 4;
    uint64_t state = 7;
    int rounds = entries > 4096 ? 4 : 12;
    if (sample > count) sample = count;
    float *some = peer_alloc(sample * D, sizeof *some), *columns = peer_alloc(entries * D, sizeof *columns);
    float *norms = peer_alloc(entries, sizeof *norms);
    double *sums = peer_alloc(entries * (D + 1), sizeof *sums);
    for (size_t p = 0; p < sample; p++) {
        size_t from = sample == count ? p : next_random(&state) % count;
        memcpy(some + p * D, points + from * D, D * sizeof *some);
    }
    for (size_t k = 0; k < entries; k++) memcpy(book + k * D, some + next_random(&state) % sample * D, D * sizeof *book);
    for (int round = 0; round < rounds; round++) {
        lay_out(book, entries, columns, norms);
        clustering c = {some, columns, norms, nearest, sample, entries};
        peer_parallel(threads, (sample + LOT - 1) / LOT, assign_lot, &c);
        memset(sums, 0, entries * (D + 1) * sizeof *sums);
        for (size_t p = 0; p < sample; p++) {
            double *s = sums + nearest[p] * (D + 1);
            for (size_t d = 0; d < D; d++) s[d] += some[p * D + d];
            s[D]++;
        }
        for (size_t k = 0; k < entries; k++) {
            const double *s = sums + k * (D + 1);
            if (s[D] == 0) memcpy(book + k * D, some + next_random(&state) % sample * D, D * sizeof *book);
            else
                for (size_t d = 0; d < D; d++) book[k * D + d] = (float)(s[d] / s[D]);
        }
    }
    lay_out(book, entries, columns, norms);
    clustering c = {points, columns, norms, nearest, count, entries};
    peer_parallel(threads, (count + LOT - 1) / LOT, assign_lot, &c);
    free(some), free(columns), free(norms), free(sums);
}

static void start(aqlm *a, const float *w, int threads) {
    size_t points = a->rows * a->groups;
    float *left = peer_alloc(points * D, sizeof *left);
    uint32_t *nearest = peer_alloc(points, sizeof *nearest);
    for (size_t i = 0; i < a->rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < a->cols; j++) sum += (double)w[i * a->cols + j] * w[i * a->cols + j];
        a->scale[i] = peer_half((float)sqrt(sum / (double)a->cols));
        for (size_t j = 0; j < a->cols; j++) left[i * a->cols + j] = a->scale[i] > 0 ? w[i * a->cols + j] / a->scale[i] : 0;
    }
    for (size_t m = 0; m < a->books; m++) {
        float *book = a->book + m * a->entries * D;
        cluster(left, points, book, a->entries, nearest, threads);
        for (size_t p = 0; p < points; p++) {
            a->codes[p * a->books + m] = (uint16_t)nearest[p];
            for (size_t d = 0; d < D; d++) left[p * D + d] -= book[nearest[p] * D + d];
        }
    }
    free(left), free(nearest);
}

/* ------------------------------------------------------------------------------- the searching */
typedef struct search {
    aqlm *a;
    const float *w, *h;
    float *columns; /* books, entry-last */
    float *bias;    /* groups x books x entries: entry^T H_gg entry, where that is small enough to keep */
} search;

static void entry_sum(const aqlm *a, const uint16_t *codes, float *out) {
    memset(out, 0, D * sizeof *out);
    for (size_t m = 0; m < a->books; m++)
        for (size_t d = 0; d < D; d++) out[d] += a->book[(m * a->entries + codes[m]) * D + d];
}

static void weigh_group(void *user, size_t g) {
    search *s = user;
    const aqlm *a = s->a;
    const float *h = s->h + g * D * a->cols + g * D;
    for (size_t e = 0; e < a->books * a->entries; e++) {
        const float *c = a->book + e * D;
        float sum = 0;
        for (size_t p = 0; p < D; p++)
            for (size_t q = 0; q < D; q++) sum += c[p] * h[p * a->cols + q] * c[q];
        s->bias[g * a->books * a->entries + e] = sum;
    }
}

/* The best codes of one group of one row, given t = H_gg (what the group would best be, the others as they
 * are): least sum of entry^T H_gg entry - 2 t . entry with cross terms. room: two rows of scores. */
static void choose(const search *s, size_t g, const float t[D], uint16_t *codes, float *room) {
    const aqlm *a = s->a;
    const float *h = s->h + g * D * a->cols + g * D, *bias = s->bias + g * a->books * a->entries;
    size_t n = a->entries;
    float q[D];
    if (a->books == 1) {
        for (int d = 0; d < D; d++) q[d] = -2 * t[d];
        scores(room, bias, s->columns, n, q);
        codes[0] = (uint16_t)least(room, n);
        return;
    }
    float best = HUGE_VALF;
    uint16_t found[2] = {codes[0], codes[1]};
    for (size_t first = 0; first < 2; first++) { /* the beam of one book with the other's old code, then the other */
        const float *old = a->book + ((1 - first) * n + codes[1 - first]) * D;
        for (size_t d = 0; d < D; d++) {
            q[d] = -2 * t[d];
            for (size_t p = 0; p < D; p++) q[d] += 2 * h[d * a->cols + p] * old[p];
        }
        scores(room, bias + first * n, s->columns + first * n * D, n, q);
        for (int b = 0; b < BEAM; b++) {
            size_t k = least(room, n), other;
            const float *entry = a->book + (first * n + k) * D;
            float own = bias[first * n + k], *second = room + n;
            room[k] = HUGE_VALF;
            for (size_t d = 0; d < D; d++) {
                own -= 2 * t[d] * entry[d];
                q[d] = -2 * t[d];
                for (size_t p = 0; p < D; p++) q[d] += 2 * h[d * a->cols + p] * entry[p];
            }
            scores(second, bias + (1 - first) * n, s->columns + (1 - first) * n * D, n, q);
            other = least(second, n);
            if (own + second[other] >= best) continue;
            best = own + second[other];
            found[first] = (uint16_t)k, found[1 - first] = (uint16_t)other;
        }
    }
    codes[0] = found[0], codes[1] = found[1];
}

/* One sweep over the groups of a block of rows. G = (W - approximation) H is kept up to date: inside a span
 * of columns at once, beyond it when the span is done. */
static void sweep_rows(void *user, size_t block) {
    const search *s = user;
    aqlm *a = s->a;
    size_t n = a->cols, first = block * ROWS, count = a->rows - first < ROWS ? a->rows - first : ROWS;
    float *r = peer_alloc(count * n, sizeof *r), *gradient = peer_alloc(count * n, sizeof *gradient);
    float *change = peer_alloc(count * SPAN, sizeof *change), *room = peer_alloc(2 * a->entries, sizeof *room);
    for (size_t i = 0; i < count; i++)
        for (size_t g = 0; g < a->groups; g++) {
            float sum[D];
            entry_sum(a, codes_at(a, first + i, g), sum);
            for (size_t d = 0; d < D; d++)
                r[i * n + g * D + d] = s->w[(first + i) * n + g * D + d] - a->scale[first + i] * sum[d];
        }
    peer_gemm(gradient, n, r, n, s->h, n, count, n, n, 1);
    for (size_t at = 0; at < n; at += SPAN) {
        size_t end = at + SPAN < n ? at + SPAN : n;
        memset(change, 0, count * SPAN * sizeof *change);
        for (size_t g = at / D; g < end / D; g++)
            for (size_t i = 0; i < count; i++) {
                float scale = a->scale[first + i], old[D], new[D], t[D], *row = gradient + i * n;
                const float *h = s->h + g * D * n + g * D;
                uint16_t *codes = a->codes + ((first + i) * a->groups + g) * a->books;
                if (scale <= 0) continue;
                entry_sum(a, codes, old);
                for (size_t d = 0; d < D; d++) {
                    t[d] = row[g * D + d] / scale;
                    for (size_t p = 0; p < D; p++) t[d] += h[d * n + p] * old[p];
                }
                choose(s, g, t, codes, room);
                entry_sum(a, codes, new);
                for (size_t d = 0; d < D; d++) {
                    float delta = scale * (old[d] - new[d]);
                    if (delta == 0) continue;
                    change[i * SPAN + g * D + d - at] = delta;
                    peer_axpy(row + at, delta, s->h + (g * D + d) * n + at, end - at);
                }
            }
        if (end < n) /* what comes before the span is not looked at again in this sweep */
            peer_gemm(gradient + end, n, change, SPAN, s->h + at * n + end, n, count, n - end, end - at, 1);
    }
    free(r), free(gradient), free(change), free(room);
}

static void sweep(search *s, int threads) {
    aqlm *a = s->a;
    float *unused = peer_alloc(a->entries, sizeof *unused);
    for (size_t m = 0; m < a->books; m++)
        lay_out(a->book + m * a->entries * D, a->entries, s->columns + m * a->entries * D, unused);
    free(unused);
    peer_parallel(threads, a->groups, weigh_group, s);
    peer_parallel(threads, (a->rows + ROWS - 1) / ROWS, sweep_rows, s);
}

/* ------------------------------------------------------------------------- books and scales */
typedef struct fit {
    aqlm *a;
    const float *w, *h, *from; /* from: books to spread out */
    float *spread, *product;   /* rows x cols: scale_i * entries of `from`; that times H */
} fit;

static void spread_rows(void *user, size_t block) {
    fit *f = user;
    const aqlm *a = f->a;
    size_t n = a->cols, first = block * ROWS, count = a->rows - first < ROWS ? a->rows - first : ROWS;
    for (size_t i = first; i < first + count; i++)
        for (size_t g = 0; g < a->groups; g++) {
            float *to = f->spread + i * n + g * D;
            const uint16_t *codes = codes_at(a, i, g);
            memset(to, 0, D * sizeof *to);
            for (size_t m = 0; m < a->books; m++)
                for (size_t d = 0; d < D; d++) to[d] += f->from[(m * a->entries + codes[m]) * D + d] * a->scale[i];
        }
    memset(f->product + first * n, 0, count * n * sizeof(float));
    peer_gemm(f->product + first * n, n, f->spread + first * n, n, f->h, n, count, n, n, 1);
}
/* What each entry gathers from rows x cols values; square: the diagonal of the normal equations. */
static void gather(fit *f, const float *values, int square, float *out) {
    const aqlm *a = f->a;
    size_t size = a->books * a->entries * D;
    memset(out, 0, size * sizeof *out);
    for (size_t i = 0; i < a->rows; i++)
        for (size_t g = 0; g < a->groups; g++)
            for (size_t m = 0; m < a->books; m++) {
                float *to = out + (m * a->entries + codes_at(a, i, g)[m]) * D;
                for (size_t d = 0; d < D; d++)
                    to[d] += square ? a->scale[i] * a->scale[i] * f->h[(g * D + d) * (a->cols + 1)]
                                    : a->scale[i] * values[i * a->cols + g * D + d];
            }
}
static double dot(const float *a, const float *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)a[i] * b[i];
    return sum;
}

/* Conjugate gradients on the books, preconditioned by the diagonal; then the scales. */
static void refit(aqlm *a, const float *w, const float *h, int steps, int threads) {
    size_t size = a->books * a->entries * D, all = a->rows * a->cols, blocks = (a->rows + ROWS - 1) / ROWS;
    fit f = {a, w, h, a->book, peer_alloc(all, sizeof(float)), peer_alloc(all, sizeof(float))};
    float *left = peer_alloc(all, sizeof *left); /* (W - approximation) H */
    float *g = peer_alloc(size, sizeof *g), *z = peer_alloc(size, sizeof *z), *p = peer_alloc(size, sizeof *p);
    float *diagonal = peer_alloc(size, sizeof *diagonal);
    for (size_t i = 0; i < blocks; i++) {
        size_t first = i * ROWS, count = a->rows - first < ROWS ? a->rows - first : ROWS;
        peer_gemm(left + first * a->cols, a->cols, w + first * a->cols, a->cols, h, a->cols, count, a->cols, a->cols, 1);
    }
    peer_parallel(threads, blocks, spread_rows, &f);
    for (size_t i = 0; i < all; i++) left[i] -= f.product[i];
    gather(&f, NULL, 1, diagonal);
    gather(&f, left, 0, g);
    double energy = 0;
    for (int step = 0; step < steps; step++) {
        double before = energy;
        for (size_t k = 0; k < size; k++) z[k] = diagonal[k] > 0 ? g[k] / diagonal[k] : 0;
        energy = dot(g, z, size);
        if (!(energy > 0)) break;
        for (size_t k = 0; k < size; k++) p[k] = z[k] + (step ? (float)(energy / before) * p[k] : 0);
        f.from = p;
        peer_parallel(threads, blocks, spread_rows, &f);
        double curvature = dot(f.spread, f.product, all);
        if (!(curvature > 0)) break;
        float alpha = (float)(energy / curvature);
        for (size_t k = 0; k < size; k++) a->book[k] += alpha * p[k];
        for (size_t i = 0; i < all; i++) left[i] -= alpha * f.product[i];
        gather(&f, left, 0, g);
    }
    f.from = a->book;
    peer_parallel(threads, blocks, spread_rows, &f);
    for (size_t i = 0; i < a->rows; i++) { /* w H v / v H v, v the approximation */
        double top = dot(w + i * a->cols, f.product + i * a->cols, a->cols);
        double bottom = dot(f.spread + i * a->cols, f.product + i * a->cols, a->cols);
        if (bottom > 0 && top > 0) a->scale[i] = peer_half((float)(a->scale[i] * top / bottom));
    }
    free(f.spread), free(f.product), free(left), free(g), free(z), free(p), free(diagonal);
}

/* peer.bits: B; peer.group: M; peer.option: rounds. */
bitstack_result peer_aqlm_encode(peer_coded *out, const float *w, const bitstack_moments *moments, int threads) {
    size_t m = out->rows, n = out->cols, books = (size_t)out->peer->group, entries = (size_t)1 << out->peer->bits;
    uint64_t code_bytes = (m * n / D * books * (size_t)out->peer->bits + 7) / 8, book_bytes = books * entries * D * 2;
    if (n % D || books > MOST_BOOKS) return BITSTACK_ERROR_ARGUMENT;
    if (book_bytes > code_bytes) return BITSTACK_ERROR_UNSUPPORTED; /* the book would be larger than what it codes */
    aqlm *a = peer_alloc(1, sizeof *a);
    a->rows = m, a->cols = n, a->groups = n / D, a->books = books, a->entries = entries;
    a->book = peer_alloc(books * entries * D, sizeof *a->book);
    a->codes = peer_alloc(m * a->groups * books, sizeof *a->codes);
    a->scale = peer_alloc(m, sizeof *a->scale);
    float *h = peer_alloc(n * n, sizeof *h);
    peer_hessian(h, out->cols, moments);
    start(a, w, threads);
    search s = {a, w, h, peer_alloc(books * entries * D, sizeof(float)), peer_alloc(a->groups * books * entries, sizeof(float))};
    for (int round = 0; round < out->peer->option; round++) {
        sweep(&s, threads);
        refit(a, w, h, 10, threads);
    }
    for (size_t k = 0; k < books * entries * D; k++) a->book[k] = peer_half(a->book[k]);
    sweep(&s, threads);
    free(h), free(s.columns), free(s.bias);
    if (entries <= 256) {
        size_t tiles = (a->groups + TILE - 1) / TILE;
        a->tiles = peer_alloc(tiles * m, TILE * books);
        for (size_t i = 0; i < m; i++)
            for (size_t g = 0; g < a->groups; g++)
                for (size_t b = 0; b < books; b++)
                    a->tiles[((g / TILE * m + i) * TILE + g % TILE) * books + b] = (unsigned char)codes_at(a, i, g)[b];
    }
    out->data = a;
    out->levels = 1;
    out->bytes[0] = code_bytes + book_bytes + 2 * m;
    return BITSTACK_OK;
}

void peer_aqlm_dequantize(const peer_coded *coded, uint32_t level, float *out) {
    const aqlm *a = coded->data;
    (void)level;
    for (size_t i = 0; i < a->rows; i++)
        for (size_t g = 0; g < a->groups; g++) {
            float sum[D];
            entry_sum(a, codes_at(a, i, g), sum);
            for (size_t d = 0; d < D; d++) out[i * a->cols + g * D + d] = a->scale[i] * sum[d];
        }
}

/* ---------------------------------------------------------------------------------------- GEMV */
/* y[i] += the entries that a tile's codes look up: `count` codes a row, 256 table entries each. */
static void lookup_scalar(const unsigned char *codes, size_t rows, size_t count, const float *table, float *y) {
    for (size_t i = 0; i < rows; i++, codes += count) {
        float s = 0;
        for (size_t c = 0; c < count; c++) s += table[c * 256 + codes[c]];
        y[i] += s;
    }
}
#if defined(__x86_64__)
AVX2 static void lookup_avx2(const unsigned char *codes, size_t rows, size_t count, const float *table, float *y) {
    const __m256i lane = _mm256_setr_epi32(0, 256, 512, 768, 1024, 1280, 1536, 1792);
    for (size_t i = 0; i < rows; i++, codes += count) {
        __m256 s = _mm256_setzero_ps();
        _mm_prefetch((const char *)codes + 1024, _MM_HINT_T0);
        for (size_t c = 0; c < count; c += 8) {
            __m256i index = _mm256_add_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(codes + c))), lane);
            s = _mm256_add_ps(s, _mm256_i32gather_ps(table + c * 256, index, 4));
        }
        __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
        q = _mm_add_ps(q, _mm_movehl_ps(q, q));
        y[i] += _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
    }
}
#endif

int peer_aqlm_scalar;

void peer_aqlm_gemv(const peer_coded *coded, uint32_t level, const float *x, float *y) {
    const aqlm *a = coded->data;
    int fast = 0;
    (void)level;
#if defined(__x86_64__)
    fast = !peer_aqlm_scalar && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    memset(y, 0, a->rows * sizeof *y);
    if (a->tiles) {
        size_t codes = TILE * a->books;
        float *table = peer_alloc(codes * 256, sizeof *table), *columns = peer_alloc(a->books * 256 * D, sizeof *columns);
        float *zeros = peer_alloc(256, sizeof *zeros), *unused = peer_alloc(256, sizeof *unused);
        for (size_t m = 0; m < a->books; m++) lay_out(a->book + m * 256 * D, 256, columns + m * 256 * D, unused);
        for (size_t t = 0; t * TILE < a->groups; t++) {
            for (size_t g = 0; g < TILE; g++)
                for (size_t m = 0; m < a->books; m++) {
                    float *to = table + (g * a->books + m) * 256;
                    if (t * TILE + g >= a->groups) memset(to, 0, 256 * sizeof *to);
                    else if (fast) scores(to, zeros, columns + m * 256 * D, 256, x + (t * TILE + g) * D);
                    else scores_scalar(to, zeros, columns + m * 256 * D, 256, x + (t * TILE + g) * D);
                }
#if defined(__x86_64__)
            if (fast) lookup_avx2(a->tiles + t * a->rows * codes, a->rows, codes, table, y);
#endif
            if (!fast) lookup_scalar(a->tiles + t * a->rows * codes, a->rows, codes, table, y);
        }
        free(table), free(columns), free(zeros), free(unused);
    } else
        for (size_t i = 0; i < a->rows; i++) {
            float lanes[D] = {0};
            for (size_t g = 0; g < a->groups; g++)
                for (size_t m = 0; m < a->books; m++) {
                    const float *entry = a->book + (m * a->entries + codes_at(a, i, g)[m]) * D;
                    for (size_t d = 0; d < D; d++) lanes[d] += entry[d] * x[g * D + d];
                }
            for (size_t d = 0; d < D; d++) y[i] += lanes[d];
        }
    for (size_t i = 0; i < a->rows; i++) y[i] *= a->scale[i];
}
void peer_aqlm_release(peer_coded *coded) {
    aqlm *a = coded->data;
    free(a->book), free(a->codes), free(a->tiles), free(a->scale), free(a);
}
