/* gemv.c - y = W x: every size, level, ISA and thread count against the read bandwidth of the machine and
 * against five other ways to hold W, in one process, interleaved.
 *
 *     build/bench/gemv --rows N --cols N [--levels 2,4-6] [--threads N] [--warm] [--json]     a shape of your own
 *     build/bench/gemv [OUT.csv]     BENCH=full for all sizes; BENCH_THREADS, BENCH_RING_MB to override;
 *                                    BENCH=tables for the encoding of tables alone, 16384 x 4096, cold, one thread
 *
 * A *cell* is one size, cold or warm, with one or all threads. In a cell every contender is timed once a
 * round, forwards and backwards in turn, so that a noisy neighbour hits all alike; ratios are medians of
 * the ratios inside a round. Cold: each call gets bytes that have not been touched since more than the
 * last-level cache went by (bench_ring); the pure read walks the same ring in the same way and reads as
 * many bytes as the planes *and factors* of that level. Warm: the same bytes at every call. */
#include "bench.h"

#include "bitstack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONTENDERS = 256, MAX_ROUNDS = 41, MAX_PLANES = 6 };

/* One of four: a read loop, a baseline, ggml, or BitStack at a level. */
typedef struct contender {
    const char *name, *isa, *method;
    const bench_reader *reader;
    const bench_baseline *baseline;
    bench_ggml *ggml;
    uint32_t rank, level;
    bitstack_precision precision;
    size_t bytes;  /* read by one multiplication */
    double error;  /* relative squared error that the arithmetic adds */
    int reference; /* index of the read of as many bytes, or -1 */
    int repeat;    /* calls a sample */
    const unsigned char *weights, *factors;
    double samples[MAX_ROUNDS];
} contender;

static struct {
    bench_problem problem;
    int cold, threads, rounds, count;
    contender list[MAX_CONTENDERS];
    bench_ring bits, floats, halves;
    unsigned char *columns[MAX_PLANES + 1]; /* tables: the column part of each level */
    uint64_t sink;
} cell;

enum { TABLES_GROUP = 64 };
static int is_tables(const contender *c) { return !strcmp(c->method, "tables"); }

static const char *const precision_names[] = {"fast", "exact", "reference"};

/* --- one call --- */
static bitstack_shape shape_of(const contender *c) {
    bitstack_shape shape = {0};
    shape.rows = cell.problem.rows, shape.cols = cell.problem.cols;
    shape.levels = c->level, shape.rank = c->rank;
    int nested = !strcmp(c->method, "nested");
    shape.columns = nested ? BITSTACK_COLUMNS_FIRST : BITSTACK_COLUMNS_OWN;
    shape.coefficients = nested ? BITSTACK_COEFFICIENTS_ALL : BITSTACK_COEFFICIENTS_OWN;
    shape.factor_type = BITSTACK_F16;
    shape.scale = 1;
    if (is_tables(c)) {
        shape.encoding = BITSTACK_TABLES, shape.group_cols = TABLES_GROUP, shape.factor_type = (bitstack_type)0;
        shape.columns = BITSTACK_COLUMNS_EVERY, shape.coefficients = BITSTACK_COEFFICIENTS_ALL;
    }
    return shape;
}
static size_t plane_bytes(const contender *c) {
    bitstack_shape shape = shape_of(c);
    return (size_t)bitstack_plane_part_bytes(&shape);
}
/* Planes lie one after the other, factors too: V (once, or once a plane), then U of each plane. */
static size_t factor_bytes(const contender *c, size_t *column, size_t *coefficient) {
    bitstack_shape shape = shape_of(c);
    if (is_tables(c)) {
        *column = (size_t)bitstack_column_bytes(&shape, c->level), *coefficient = (size_t)bitstack_coefficient_bytes(&shape, c->level);
        return *coefficient; /* the column part must be valid: it is made, not taken */
    }
    int nested = !strcmp(c->method, "nested");
    *column = ((size_t)cell.problem.cols * c->rank * 2 + 63) / 64 * 64;
    *coefficient = ((size_t)cell.problem.rows * c->rank * 2 + 63) / 64 * 64;
    return (nested ? 1 : c->level) * *column + c->level * *coefficient;
}
static bitstack_view view_of(const contender *c, bitstack_plane *planes, const unsigned char *signs,
                             uint32_t rows) {
    bitstack_view view = {rows, cell.problem.cols, c->rank, 0, c->level, BITSTACK_F16, 1, planes, BITSTACK_PLANES, 0};
    int nested = !strcmp(c->method, "nested");
    size_t column, coefficient, plane = plane_bytes(c);
    factor_bytes(c, &column, &coefficient);
    if (is_tables(c)) view.encoding = BITSTACK_TABLES, view.group_cols = TABLES_GROUP, view.factor_type = (bitstack_type)0;
    for (uint32_t p = 0; p < c->level; p++) {
        planes[p].signs = signs + p * plane;
        planes[p].columns = c->factors + (nested ? 0 : p) * column;
        planes[p].coefficients = c->factors + (nested ? 1 : c->level) * column + p * coefficient;
        if (is_tables(c)) planes[p].columns = cell.columns[c->level], planes[p].coefficients = c->factors;
    }
    return view;
}
static void job(void *context, int part, int parts) {
    contender *c = context;
    if (c->reader) {
        size_t from = c->bytes / 64 * (size_t)part / (size_t)parts * 64;
        size_t to = part + 1 == parts ? c->bytes : c->bytes / 64 * (size_t)(part + 1) / (size_t)parts * 64;
        uint64_t sum = c->reader->read(c->weights + from, to - from);
        __atomic_xor_fetch(&cell.sink, sum, __ATOMIC_RELAXED);
        return;
    }
    uint32_t rows = cell.problem.rows, tiles = (rows + 63) / 64;
    uint32_t begin = tiles * (uint32_t)part / (uint32_t)parts * 64,
             end = tiles * (uint32_t)(part + 1) / (uint32_t)parts * 64;
    if (end > rows) end = rows;
    if (begin >= end) return;
    if (c->baseline) {
        c->baseline->multiply(&cell.problem, c->weights, begin, end - begin, part);
        return;
    }
    bitstack_plane planes[MAX_PLANES];
    bitstack_view view = view_of(c, planes, c->weights, rows);
    bitstack_view_gemv(&view, c->precision, cell.problem.x, cell.problem.y + begin, begin, end - begin);
}
static void take(contender *c) {
    size_t column, coefficient;
    if (c->reader) {
        c->weights = bench_ring_take(&cell.bits, c->bytes);
    } else if (c->baseline) {
        bench_ring *ring = c->baseline->fill == BENCH_FLOATS   ? &cell.floats
                           : c->baseline->fill == BENCH_HALVES ? &cell.halves
                                                               : &cell.bits;
        c->weights = bench_ring_take(ring, c->bytes);
    } else {
        c->weights = bench_ring_take(
            &cell.bits, plane_bytes(c) * c->level);
        c->factors = bench_ring_take(&cell.halves, factor_bytes(c, &column, &coefficient));
    }
}
static int is_ours(const contender *c) { return !c->reader && !c->baseline && !c->ggml; }
static void call(contender *c) {
    if (c->ggml) {
        bench_ggml_run(c->ggml, cell.problem.x, cell.problem.y);
        return;
    }
    if (cell.cold || !c->weights) take(c);
    bench_run(job, c, cell.threads);
}
static void nothing(void *context, int part, int parts) { (void)context, (void)part, (void)parts; }

static double sample(contender *c, int repeat) {
    double each = 0;
    if (is_ours(c)) bitstack_set_isa(c->isa);
    for (int tries = 0; tries < BENCH_TRIES; tries++) {
        if (c->ggml) bench_ggml_wake(c->ggml, 1);
        if (!cell.cold || (c->ggml && cell.threads > 1)) call(c);
        if (!c->ggml) bench_run(nothing, NULL, cell.threads); /* wakes the workers */
        long before = bench_preemptions();
        double start = bench_now();
        for (int i = 0; i < repeat; i++) call(c);
        each = (bench_now() - start) / repeat;
        if (c->ggml) bench_ggml_wake(c->ggml, 0);
        if (bench_preemptions() == before) break;
    }
    return each;
}

/* --- what runs in a cell --- */
static contender *add(const char *name, const char *isa, const char *method, size_t bytes) {
    contender *c = &cell.list[cell.count];
    if (cell.count == MAX_CONTENDERS) exit(1);
    memset(c, 0, sizeof *c);
    cell.count++;
    c->name = name, c->isa = isa, c->method = method, c->bytes = bytes, c->reference = -1;
    return c;
}
static void add_baselines(const bench_baseline *list, int all) {
    for (; list->name; list++) {
        if (!list->available()) continue;
        if (!strcmp(list->isa, "scalar") && (BENCH_X86 || !all)) continue; /* no one would use it there */
        contender *c = add(list->name, list->isa, "", list->bytes(cell.problem.rows, cell.problem.cols));
        c->baseline = list;
    }
}
static void add_ggml(void) {
    for (int k = 0; k < 2 * bench_ggml_types(); k++) {
        bench_ggml *g = bench_ggml_open(k / 2, k % 2, cell.problem.rows, cell.problem.cols, cell.cold ? 6 : 1,
                                        cell.threads);
        if (g) add(g->name, "-", "ggml", g->bytes)->ggml = g;
    }
}
/* The error against double precision, from the first 256 rows; the bits beyond `cols` are zero as in a file. */
static double added_error(contender *c) {
    uint32_t rows = cell.problem.rows < 256 || is_tables(c) ? cell.problem.rows : 256, cols = cell.problem.cols;
    size_t plane = is_tables(c) ? plane_bytes(c) : (size_t)bitstack_plane_bytes(rows, cols), groups = (cols + 3) / 4;
    unsigned char *signs = bench_alloc(plane * c->level);
    float *y = bench_alloc(rows * sizeof *y), *exact = bench_alloc(rows * sizeof *exact);
    bitstack_plane planes[MAX_PLANES];
    memcpy(signs, cell.bits.base, plane * c->level);
    if (cols % 4 && !is_tables(c))
        for (size_t i = 0; i < plane * c->level; i++)
            if (i / 32 % groups == groups - 1) signs[i] &= (unsigned char)(((1 << cols % 4) - 1) * 17);
    c->factors = cell.halves.base;
    bitstack_view view = view_of(c, planes, signs, rows);
    if (rows > 256) rows = 256;
    double wrong = 0, all = 0;
    bitstack_view_gemv(&view, c->precision, cell.problem.x, y, 0, rows);
    bitstack_view_gemv(&view, BITSTACK_REFERENCE, cell.problem.x, exact, 0, rows);
    for (uint32_t i = 0; i < rows; i++)
        wrong += pow((double)y[i] - (double)exact[i], 2), all += pow((double)exact[i], 2);
    c->factors = NULL;
    free(signs), free(y), free(exact);
    return wrong / all;
}
/* One multiplication by BitStack, next to the reads that it is compared with. */
static void add_ours(const char *isa, const char *method, uint32_t rank, uint32_t level,
                     bitstack_precision precision, const bench_reader *const readers[2]) {
    contender *c = add("bitstack", isa, method, 0);
    c->rank = rank, c->level = level, c->precision = precision;
    bitstack_shape shape = shape_of(c);
    c->bytes = (size_t)bitstack_live_bytes(&shape, level);
    for (int i = 0; i < cell.count; i++) /* errors are the same on every ISA: compute once */
        if (cell.list + i != c && cell.list[i].level == level && cell.list[i].rank == rank &&
            !strcmp(cell.list[i].method, method) && cell.list[i].precision == precision)
            c->error = cell.list[i].error;
    if (c->error == 0) c->error = added_error(c);
    for (int i = cell.count - 1; i >= 0; i--)
        if (cell.list[i].reader && cell.list[i].bytes == c->bytes) c->reference = i;
    if (c->reference >= 0) return;
    c->reference = cell.count;
    for (int i = 0; i < 2; i++)
        if (readers[i] && (i == 0 || readers[1] != readers[0]))
            add("read", readers[i]->name, "", c->bytes)->reader = readers[i];
}

/* The two read loops that are fastest here. */
static void pick_readers(const bench_reader *best[2]) {
    double least[2] = {1e30, 1e30}, samples[9];
    contender probe;
    memset(&probe, 0, sizeof probe);
    best[0] = best[1] = NULL;
    probe.bytes = (size_t)bitstack_plane_bytes(cell.problem.rows, cell.problem.cols) * 2;
    for (const bench_reader *r = bench_readers; r->name; r++) {
        if (!r->available()) continue;
        probe.reader = r;
        int repeat = 1 + (int)(((size_t)1 << 20) / probe.bytes);
        for (int i = 0; i < 9; i++) samples[i] = sample(&probe, repeat);
        double t = bench_summarise(samples, 9).median;
        if (t < least[0]) least[1] = least[0], best[1] = best[0], least[0] = t, best[0] = r;
        else if (t < least[1]) least[1] = t, best[1] = r;
    }
}

/* A kernel that computes something else would be a worthless comparison: every ISA against plain C. */
static void check_baselines(const bench_baseline *list) {
    const bench_baseline *plain = list;
    while (plain->name && strcmp(plain->isa, "scalar")) plain++;
    bench_ring *ring = plain->fill == BENCH_FLOATS   ? &cell.floats
                       : plain->fill == BENCH_HALVES ? &cell.halves
                                                     : &cell.bits;
    uint32_t rows = cell.problem.rows;
    float *expected = bench_alloc(rows * sizeof *expected);
    plain->multiply(&cell.problem, ring->base, 0, rows, 0);
    memcpy(expected, cell.problem.y, rows * sizeof *expected);
    for (; list->name; list++) {
        double wrong = 0, all = 0;
        if (!list->available()) continue;
        list->multiply(&cell.problem, ring->base, 0, rows, 0);
        for (uint32_t i = 0; i < rows; i++)
            wrong += pow((double)expected[i] - (double)cell.problem.y[i], 2),
                all += pow((double)expected[i], 2);
        if (!(wrong <= 1e-10 * all)) {
            fprintf(stderr, "bench: %s %s is wrong: relative squared error %g\n", list->name, list->isa,
                    wrong / all);
            exit(1);
        }
    }
    free(expected);
}

/* --- one cell --- */
static const contender *baseline_named(const char *name) { /* the fastest of that name */
    const contender *best = NULL;
    for (int i = 0; i < cell.count; i++)
        if (cell.list[i].baseline && !strcmp(cell.list[i].name, name) &&
            (!best || bench_summarise(cell.list[i].samples, cell.rounds).median <
                          bench_summarise(best->samples, cell.rounds).median))
            best = &cell.list[i];
    return best;
}
/* The ggml type of the nearest size, by its fastest path. */
static const contender *nearest_ggml(const contender *c) {
    static const char *const names[MAX_PLANES + 1] = {"-", "-", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"};
    const contender *best = NULL;
    for (int i = 0; i < cell.count; i++)
        if (cell.list[i].ggml && is_ours(c) &&
            !strncmp(cell.list[i].name, names[c->level], strlen(names[c->level])) &&
            (!best || bench_summarise(cell.list[i].samples, cell.rounds).median <
                          bench_summarise(best->samples, cell.rounds).median))
            best = &cell.list[i];
    return best;
}
static double times_faster(const contender *c, const char *name) {
    const contender *other = baseline_named(name);
    return other ? bench_ratio(other->samples, c->samples, cell.rounds) : 0;
}

/* A line a contender, for programs. */
static void report_json(double roof) {
    for (int i = 0; i < cell.count; i++) {
        const contender *c = &cell.list[i];
        bench_summary s = bench_summarise(c->samples, cell.rounds);
        double gbps = (double)c->bytes / s.median / 1e6;
        printf(
            "{\"what\": \"%s\", \"isa\": \"%s\", \"method\": \"%s\", \"level\": %u, \"rows\": %u, \"cols\": %u, \"state\": \"%s\", \"threads\": %d, "
            "\"bytes\": %zu, \"median_ms\": %.6f, \"least_ms\": %.6f, \"spread\": %.3f, \"gb_per_s\": %.3f, \"read_gb_per_s\": %.3f, \"rounds\": %d}\n",
            c->name, c->isa, c->method, c->level, cell.problem.rows, cell.problem.cols,
            cell.cold ? "cold" : "warm", cell.threads, c->bytes, s.median, s.least, s.spread, gbps, roof,
            cell.rounds);
    }
    fflush(stdout);
}

static int as_json(void);
static void report(FILE *csv) {
    double roof = 0; /* best read of the cell, GB/s */
    for (int i = 0; i < cell.count; i++)
        if (cell.list[i].reader)
            roof = fmax(roof, (double)cell.list[i].bytes /
                                  bench_summarise(cell.list[i].samples, cell.rounds).median / 1e6);
    if (as_json()) {
        report_json(roof);
        return;
    }
    printf("\n%u x %u, %s, %d thread%s: best pure read %.1f GB/s, %d rounds\n", cell.problem.rows,
           cell.problem.cols, cell.cold ? "cold" : "warm", cell.threads, cell.threads > 1 ? "s" : "", roof,
           cell.rounds);
    printf("%-15s %-7s %-6s %4s %2s %-5s %8s %8s %6s %7s %6s %8s %6s %6s %6s %6s %6s\n", "what", "isa",
           "method", "rank", "L", "table", "ms", "least", "spread", "GB/s", "read%", "err^2", "xf32", "xblas",
           "xxor", "xint8", "xq4");
    for (int i = 0; i < cell.count; i++) {
        const contender *c = &cell.list[i];
        bench_summary s = bench_summarise(c->samples, cell.rounds);
        double gbps = (double)c->bytes / s.median / 1e6, share = gbps / roof, read = roof;
        int ours = is_ours(c);
        if (ours) {
            const contender *best = &cell.list[c->reference], *next = best + 1;
            if (next < cell.list + cell.count && next->reader && next->bytes == best->bytes &&
                bench_summarise(next->samples, cell.rounds).median <
                    bench_summarise(best->samples, cell.rounds).median)
                best = next;
            share = bench_ratio(best->samples, c->samples, cell.rounds);
            read = (double)best->bytes / bench_summarise(best->samples, cell.rounds).median / 1e6;
        }
        double planes = ours ? c->level : 1;
        double bits =
            c->reader ? 0 : 8.0 * (double)c->bytes / ((double)cell.problem.rows * cell.problem.cols);
        double f32 = times_faster(c, "f32"), blas = times_faster(c, "openblas"),
               plain = planes * times_faster(c, "xor+add"), mask = planes * times_faster(c, "mask+add"),
               int8 = times_faster(c, "int8"), q4 = times_faster(c, "q4");
        const contender *ggml = nearest_ggml(c);
        double x_ggml = ggml ? bench_ratio(ggml->samples, c->samples, cell.rounds) : 0;
        fprintf(csv,
                "%s,%s,%s,%u,%u,%s,%u,%u,%s,%d,%zu,%.4f,%.6f,%.6f,%.3f,%.3f,%.3f,%.4f,%.3g,%.3f,%.3f,%.3f,%."
                "3f,%.3f,%.3f,%s,%.3f\n",
                c->name, c->isa, c->method, c->rank, c->level, ours ? precision_names[c->precision] : "",
                cell.problem.rows, cell.problem.cols, cell.cold ? "cold" : "warm", cell.threads, c->bytes,
                bits, s.median, s.least, s.spread, gbps, read, share, c->error, f32, blas, plain, mask, int8,
                q4, ggml ? ggml->name : "", x_ggml);
        printf("%-15s %-7s %-6s ", c->name, c->isa, c->method);
        if (ours) printf("%4u %2u %-5s ", c->rank, c->level, precision_names[c->precision]);
        else printf("%4s %2s %-5s ", "", "", "");
        printf("%8.4f %8.4f %5.0f%% %7.2f %5.0f%% ", s.median, s.least, 100 * s.spread, gbps, 100 * share);
        if (ours) printf("%8.1e ", c->error);
        else printf("%8s ", "");
        printf("%6.1f %6.1f %6.1f %6.1f %6.1f", f32, blas, plain, int8, q4);
        if (ggml) printf("  %.2f x %s", x_ggml, ggml->name);
        printf("\n");
    }
    fflush(stdout), fflush(csv);
}

/* What `make bench` is asked for first: one plane against XOR-and-add, the read beside it. */
static void summarise(void) {
    const contender *plain = baseline_named("xor+add"), *mask = baseline_named("mask+add"),
                    *f32 = baseline_named("f32");
    printf("\n");
    for (int i = 0; i < cell.count; i++) {
        const contender *c = &cell.list[i], *read = &cell.list[c->reference < 0 ? 0 : c->reference];
        if (!is_ours(c) || c->rank != 1 || c->level != 1 || c->precision != BITSTACK_FAST || !plain || !f32)
            continue;
        double ms = bench_summarise(c->samples, cell.rounds).median,
               read_ms = bench_summarise(read->samples, cell.rounds).median;
        printf("one plane, rank 1, %s: %.3f ms, %.1f GB/s (pure read %.1f); times as fast as XOR-and-add in "
               "float (%.3f ms): %.1f",
               c->isa, ms, (double)c->bytes / ms / 1e6, (double)read->bytes / read_ms / 1e6,
               bench_summarise(plain->samples, cell.rounds).median, times_faster(c, "xor+add"));
        if (mask) printf("; as masked adds (AVX-512): %.1f", times_faster(c, "mask+add"));
        printf("; as dense f32: %.1f\n", times_faster(c, "f32"));
    }
}

static int tables_only(void) { return getenv("BENCH") && !strcmp(getenv("BENCH"), "tables"); }

/* A shape of the command line's; rows 0: none. */
static struct {
    uint32_t rows, cols;
    unsigned levels; /* bit L: level L */
    int threads, warm, json;
    double seconds; /* of a cell; 0: the usual time */
} asked = {0, 0, 0, 1, 0, 0, 0};
static int wanted(uint32_t level) { return !asked.levels || (asked.levels >> level & 1); }
/* A column part of tables for this cell: numbers that a file may have. */
static void make_columns(uint32_t level) {
    free(cell.columns[level]);
    unsigned char *at = cell.columns[level] = bench_alloc(16 + (2u << level) + cell.problem.cols);
    memset(at, 0, 16);
    at[3] = 0x3A; /* 2^-11 */
    for (uint32_t i = 0; i < 1u << level; i++) { /* evenly spaced, and the first plane the sign, as the compressor has it */
        const uint32_t size = 1u << level, odd = i & 1 ? i : size - 1 - i;
        const int magnitude = (int)odd * 127 / (int)size, value = i & 1 ? magnitude : -magnitude;
        at[16 + 2 * i] = (unsigned char)(value & 255), at[17 + 2 * i] = (unsigned char)(value >> 8 & 255);
    }
    for (uint32_t j = 0; j < cell.problem.cols; j++) at[16 + (2u << level) + j] = (unsigned char)(200 + j % 32);
}

static int as_json(void) { return asked.json; }

typedef struct plan {
    uint32_t rows, cols;
    int cold, all_threads;
} plan;

static void run_cell(const plan *p, FILE *csv) {
    int full = bench_full();
    const bench_reader *readers[2];
    cell.problem.rows = p->rows, cell.problem.cols = p->cols;
    cell.cold = p->cold, cell.threads = p->all_threads ? bench_threads() : 1;
    cell.count = 0;
    pick_readers(readers);
    for (uint32_t level = 1; level <= MAX_PLANES; level++) make_columns(level);
    for (uint32_t level = 1; level <= MAX_PLANES; level++)
        for (int i = 0, n = 0; wanted(level) && bitstack_isa_name(i); i++)
            if (bitstack_isa_available(i) && (full || (tables_only() && strcmp(bitstack_isa_name(i), "scalar")) || n++ == 0 || !strcmp(bitstack_isa_name(i), "avx2")))
                add_ours(bitstack_isa_name(i), "tables", 1, level, BITSTACK_FAST, readers);
    if (!tables_only()) {
        add_baselines(bench_f32, 0), add_baselines(bench_xor, 0), add_baselines(bench_int8, 0),
            add_baselines(bench_q4, 0);
        add_ggml();
    }
    for (uint32_t level = 1; level <= MAX_PLANES && !tables_only() && !asked.rows;
         level++) /* all ISAs of a level side by side */
        for (int i = 0, n = 0; bitstack_isa_name(i); i++) {
            if (!bitstack_isa_available(i)) continue;
            const char *isa = bitstack_isa_name(i);
            int main_isa = n++ == 0 || !strcmp(isa, "avx2");
            if (!full && !main_isa) continue;
            add_ours(isa, "nested", 1, level, BITSTACK_FAST, readers);
            if (!main_isa) continue;
            if (full || level == 3) add_ours(isa, "nested", 1, level, BITSTACK_EXACT, readers);
            if (full || level == 3) add_ours(isa, "iabs", 16, level, BITSTACK_FAST, readers);
        }
    bench_pin(cell.threads > 1); /* from here on: threads that others started keep all CPUs */
    double start = bench_now(), limit = asked.seconds > 0 ? 1e3 * asked.seconds : full ? 15e3 : 7e3;
    for (int i = 0; i < cell.count; i++) {
        double t = sample(&cell.list[i], 1);
        cell.list[i].repeat = t > 0.1 ? 1 : t > 1e-4 ? (int)(0.1 / t) + 1 : 1000;
    }
    for (cell.rounds = 0; cell.rounds < MAX_ROUNDS && (cell.rounds < 5 || bench_now() - start < limit);
         cell.rounds++)
        for (int i = 0; i < cell.count; i++) {
            contender *c = &cell.list[cell.rounds % 2 ? cell.count - 1 - i : i];
            c->samples[cell.rounds] = sample(c, c->repeat);
        }
    bench_pin(0);
    report(csv);
    if (asked.json) return;
    if (p->rows == 4096 && p->cols == 4096 && p->cold && !p->all_threads) summarise();
    for (int i = 0; i < cell.count; i++)
        if (cell.list[i].ggml) bench_ggml_close(cell.list[i].ggml);
}

static const char help[] =
    "usage: gemv --rows N --cols N [--levels LIST] [--threads N] [--warm] [--json] [--seconds S]\n"
    "       gemv [OUT.csv]\n\n"
    "Times y = W x, with W as a stack holds it (tables), beside pure reads of as many bytes and beside dense floats, int8,\n"
    "4 bits and XOR-and-add. The matrix is random: quality is not measured here. Other work on the machine disturbs it; the\n"
    "spread tells how much, and ratios within one run suffer least.\n\n"
    "  --rows, --cols   of W, up to 2^20, and 2^30 weights\n"
    "  --levels LIST    as 3 or 1,3-5; from 1 to 6; all\n"
    "  --threads N      1; at most 64, and no more than processors makes sense\n"
    "  --warm           the same bytes at every call, in caches where they fit; else none that were touched since more\n"
    "                   than the last-level cache went by\n"
    "  --json           an object a line, not a table\n"
    "  --seconds S      7; five rounds at least\n\n"
    "Without a shape: those of README, as a table and OUT.csv. BENCH=full: every size, level, ISA, state and thread count\n"
    "(half an hour); BENCH=tables: 16384 x 4096 alone; BENCH_THREADS, BENCH_RING_MB: what counts as all threads and as cold.\n";

/* "1,3-5" as bits; 0 if it is not that. */
static unsigned read_levels(const char *text) {
    unsigned bits = 0;
    for (char *end; ; text = end + 1) {
        long from = strtol(text, &end, 10), to = from;
        if (end == text) return 0;
        if (*end == '-') text = end + 1, to = strtol(text, &end, 10);
        if (end == text || from < 1 || to < from || to > MAX_PLANES) return 0;
        for (; from <= to; from++) bits |= 1u << from;
        if (!*end) return bits;
        if (*end != ',') return 0;
    }
}

static int number(const char *text, long most) { /* 0 if it is none from 1 to `most` */
    char *end;
    long value = strtol(text, &end, 10);
    return *end || end == text || value < 1 || value > most ? 0 : (int)value;
}

/* Takes the options out of argv: what is left are files. -1 if they are wrong. */
static int read_options(int *argc, char **argv) {
    int left = 1, good = 1, own = 0;
    for (int i = 1; i < *argc && good; i++) {
        const char *name = argv[i], *value = i + 1 < *argc ? argv[i + 1] : "";
        if (*name != '-') argv[left++] = argv[i];
        else if (!strcmp(name, "--warm")) asked.warm = own = 1;
        else if (!strcmp(name, "--json")) asked.json = own = 1;
        else if (!strcmp(name, "--rows"))
            own = 1, i++, good = (asked.rows = (uint32_t)number(value, 1 << 20)) > 0;
        else if (!strcmp(name, "--cols"))
            own = 1, i++, good = (asked.cols = (uint32_t)number(value, 1 << 20)) > 0;
        else if (!strcmp(name, "--levels")) own = 1, i++, good = (asked.levels = read_levels(value)) > 0;
        else if (!strcmp(name, "--threads")) own = 1, i++, good = (asked.threads = number(value, 64)) > 0;
        else if (!strcmp(name, "--seconds")) own = 1, i++, good = (asked.seconds = atof(value)) > 0;
        else good = 0;
        if (!good) fprintf(stderr, "gemv: %s %s: not understood\n", name, value);
    }
    *argc = left;
    if (good && own && (!asked.rows || !asked.cols || (uint64_t)asked.rows * asked.cols > 1 << 30))
        good = 0, fprintf(stderr, "gemv: expected --rows and --cols, of 2^30 weights at most\n");
    char threads[16];
    snprintf(threads, sizeof threads, "%d", asked.threads);
    if (good && own) setenv("BENCH_THREADS", threads, 1);
    return good && left <= 2 ? 0 : -1;
}

int main(int argc, char **argv) {
    static const uint32_t all_sizes[][2] = {{256, 256},   {512, 512},    {1024, 1024},  {2048, 2048},
                                            {4096, 4096}, {4096, 14336}, {14336, 4096}, {1000, 3002}};
    static const plan quick[] = {
        {4096, 4096, 1, 0}, {4096, 4096, 1, 1}, {1024, 1024, 0, 0}, {4096, 14336, 1, 0}};
    size_t largest_rows = 16384, largest_cols = 14336;
    static plan plans[64];
    int count = 0, full = bench_full();
    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) return fputs(help, stdout), 0;
    if (read_options(&argc, argv) != 0) return fputs(help, stderr), 2;
    FILE *csv = argc > 1 ? fopen(argv[1], "w") : fopen("/dev/null", "w");
    if (!csv) return fprintf(stderr, "bench: cannot write %s\n", argv[1]), 1;
    if (asked.rows) {
        plans[count++] = (plan){asked.rows, asked.cols, !asked.warm, 1};
        if (asked.rows > largest_rows) largest_rows = asked.rows;
        if (asked.cols > largest_cols) largest_cols = asked.cols;
    } else if (full)
        for (size_t s = 0; s < sizeof all_sizes / sizeof *all_sizes; s++)
            for (int k = 0; k < 4; k++)
                plans[count++] = (plan){all_sizes[s][0], all_sizes[s][1], !(k & 1), k >> 1};
    else if (tables_only()) plans[count++] = (plan){16384, 4096, 1, 0};
    else
        for (size_t i = 0; i < sizeof quick / sizeof *quick; i++) plans[count++] = quick[i];

    size_t cold = bench_cold_bytes(), weights = (size_t)4096 * 16384;
    if ((size_t)asked.rows * asked.cols > weights) weights = (size_t)asked.rows * asked.cols;
    cell.bits = bench_ring_new(cold, weights + (1 << 20), BENCH_BITS, 1);
    cell.floats = bench_ring_new(cold, weights * 4 + (1 << 20), BENCH_FLOATS, 2);
    cell.halves = bench_ring_new(cold, weights + (1 << 20), BENCH_HALVES, 3);
    float *x = bench_alloc((largest_cols + 256) * sizeof *x),
          *scales = bench_alloc(largest_rows * sizeof *scales);
    cell.problem.y = bench_alloc((largest_rows + 64) * sizeof(float));
    for (int i = 0; i < 64; i++) cell.problem.scratch[i] = bench_alloc(2 * largest_cols + 4096);
    for (size_t i = 0; i < largest_rows; i++) scales[i] = 0.01f;
    cell.problem.x = x, cell.problem.scales = scales;

    if (!asked.json) bench_describe(stdout);
    bench_describe(csv);
    if (!asked.json)
        printf("# x...: times as fast as dense f32 (ours, OpenBLAS), XOR-and-add over as many planes, int8, "
               "4-bit groups of 32\n");
    fprintf(csv, "what,isa,method,rank,level,precision,rows,cols,state,threads,bytes,bits_per_weight,median_"
                 "ms,min_ms,spread,gbps,"
                 "read_gbps,read_share,added_rel_err2,x_f32,x_openblas,x_xor,x_mask,x_int8,x_q4,nearest_ggml,"
                 "x_ggml\n");
    uint64_t seed = 4;
    for (int i = 0; i < count; i++) {
        memset(x, 0, (largest_cols + 256) * sizeof *x);
        for (uint32_t j = 0; j < plans[i].cols; j++) x[j] = bench_normal(&seed);
        if (i == 0) {
            cell.problem.rows = 203,
            cell.problem.cols = plans[i].cols > 10 ? plans[i].cols - 5 : plans[i].cols;
            check_baselines(bench_f32), check_baselines(bench_xor), check_baselines(bench_int8),
                check_baselines(bench_q4);
        }
        run_cell(&plans[i], csv);
    }
    return fclose(csv) ? 1 : 0;
}
