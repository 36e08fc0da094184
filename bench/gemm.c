/* gemm.c - Y = X W^T for 1 to 512 vectors: against as many single multiplications, against OpenBLAS on
 * the dense matrix, and against the multiply-add peak of the core, measured in the same run.
 *
 *     build/bench/gemm [OUT.csv]     BENCH=full for all batches, levels, ISAs and threads
 *
 * With several threads each gets a range of rows. */
#include "bench.h"

#include "bitstack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONTENDERS = 64, MAX_ROUNDS = 15, MAX_PLANES = 6, LARGEST_BATCH = 512 };

typedef struct contender {
    const char *name, *isa;
    const bench_fma *fma;
    double samples[MAX_ROUNDS];
} contender;

static struct {
    uint32_t rows, cols, level;
    size_t batch;
    int threads, count, rounds;
    contender list[MAX_CONTENDERS];
    bench_ring bits, halves;
    const unsigned char *signs, *factors; /* V, then U of each plane */
    float *x, *y, *dense;
    volatile float sink;
} cell;
static const long fma_rounds = 200000;

static bitstack_view view_of(bitstack_plane *planes) {
    bitstack_view view = {cell.rows, cell.cols, 1, 0, cell.level, BITSTACK_F16, 1, planes, BITSTACK_PLANES, 0};
    size_t plane = (size_t)bitstack_plane_bytes(cell.rows, cell.cols);
    for (uint32_t p = 0; p < cell.level; p++) {
        planes[p].signs = cell.signs + p * plane;
        planes[p].columns = cell.factors;
        planes[p].coefficients = cell.factors + 2 * ((size_t)cell.cols + (size_t)p * cell.rows);
    }
    return view;
}
static void job(void *context, int part, int parts) {
    contender *c = context;
    uint32_t tiles = (cell.rows + 63) / 64, begin = tiles * (uint32_t)part / (uint32_t)parts * 64;
    uint32_t end = tiles * (uint32_t)(part + 1) / (uint32_t)parts * 64;
    if (end > cell.rows) end = cell.rows;
    if (c->fma) {
        cell.sink = c->fma->run(fma_rounds);
        return;
    }
    float *dense = cell.dense + (size_t)begin * cell.cols;
    if (!strcmp(c->name, "openblas")) {
        bench_openblas_gemm((int)cell.batch, (int)(end - begin), (int)cell.cols, cell.x, dense,
                            cell.y + begin, (int)cell.rows);
        return;
    }
    bitstack_plane planes[MAX_PLANES];
    bitstack_view view = view_of(planes);
    if (!strcmp(c->name, "gemm"))
        bitstack_view_gemm_rows(&view, BITSTACK_FAST, cell.x, cell.cols, cell.y + begin, cell.rows,
                                cell.batch, begin, end - begin);
    else if (!strcmp(c->name, "gemv"))
        for (size_t b = 0; b < cell.batch; b++)
            bitstack_view_gemv(&view, BITSTACK_FAST, cell.x + b * cell.cols, cell.y + b * cell.rows + begin,
                               begin, end - begin);
    else bitstack_view_dequantize(&view, begin, end - begin, dense, cell.cols);
}
static void nothing(void *context, int part, int parts) { (void)context, (void)part, (void)parts; }
static double sample(contender *c) {
    double time = 0;
    if (!c->fma) bitstack_set_isa(c->isa);
    for (int tries = 0; tries < BENCH_TRIES; tries++) {
        cell.signs =
            bench_ring_take(&cell.bits, (size_t)bitstack_plane_bytes(cell.rows, cell.cols) * cell.level);
        cell.factors = bench_ring_take(&cell.halves, 2 * (cell.cols + (size_t)cell.level * cell.rows));
        bench_run(nothing, NULL, cell.threads);
        long before = bench_preemptions();
        double start = bench_now();
        bench_run(job, c, cell.threads);
        time = bench_now() - start;
        if (time > 20 || bench_preemptions() == before) break;
    }
    return time;
}
static void add(const char *name, const char *isa, const bench_fma *fma) {
    contender *c = &cell.list[cell.count++];
    memset(c, 0, sizeof *c);
    c->name = name, c->isa = isa, c->fma = fma;
}
static double gflops(const contender *c) {
    double work = c->fma ? c->fma->flops_per_round * (double)fma_rounds * cell.threads
                         : 2.0 * cell.rows * cell.cols * (double)cell.batch;
    return work / bench_summarise(c->samples, cell.rounds).median / 1e6;
}
static double median_of(const char *name, const char *isa) {
    for (int i = 0; i < cell.count; i++)
        if (!strcmp(cell.list[i].name, name) && !strcmp(cell.list[i].isa, isa))
            return bench_summarise(cell.list[i].samples, cell.rounds).median;
    return 0;
}

static void run_cell(FILE *csv) {
    int full = bench_full();
    const char *best = bitstack_isa_name(0);
    cell.count = 0;
    for (int i = 0; bitstack_isa_name(i); i++)
        if (bitstack_isa_available(i)) {
            best = bitstack_isa_name(i);
            break;
        }
    for (const bench_fma *f = bench_fmas; f->name; f++)
        if (f->available() && (f->name[0] != 'p' || !BENCH_X86)) add("peak", f->name, f);
    for (int i = 0; bitstack_isa_name(i); i++)
        if (bitstack_isa_available(i) &&
            (full || !strcmp(bitstack_isa_name(i), "avx2") || bitstack_isa_name(i) == best)) {
            if (cell.batch > 16 && !strcmp(bitstack_isa_name(i), "scalar")) continue; /* minutes */
            add("gemm", bitstack_isa_name(i), NULL);
            if (cell.batch <= 32) add("gemv", bitstack_isa_name(i), NULL);
        }
    if (cell.batch >= 4 && bench_has_openblas()) add("openblas", "-", NULL);
    add("rebuild", best, NULL);
    for (int i = 0; i < cell.count; i++) sample(&cell.list[i]);
    bench_pin(cell.threads > 1);
    double start = bench_now(), limit = full ? 4e3 : 2.5e3;
    for (cell.rounds = 0; cell.rounds < MAX_ROUNDS && (cell.rounds < 3 || bench_now() - start < limit);
         cell.rounds++)
        for (int i = 0; i < cell.count; i++) {
            contender *c = &cell.list[cell.rounds % 2 ? cell.count - 1 - i : i];
            c->samples[cell.rounds] = sample(c);
        }
    bench_pin(0);
    double peak = 0;
    for (int i = 0; i < cell.count; i++)
        if (cell.list[i].fma) peak = fmax(peak, gflops(&cell.list[i]));
    for (int i = 0; i < cell.count; i++) {
        const contender *c = &cell.list[i];
        bench_summary s = bench_summarise(c->samples, cell.rounds);
        double own = 0, rate = gflops(c);
        for (int k = 0; k < cell.count; k++) /* the peak of the same instruction set */
            if (cell.list[k].fma && !strncmp(cell.list[k].isa, c->isa, strlen(cell.list[k].isa)))
                own = gflops(&cell.list[k]);
        double gemv = median_of("gemv", c->isa), blas = median_of("openblas", "-");
        if (!strcmp(c->name, "rebuild")) rate = 0;
        fprintf(csv, "%s,%s,%u,%u,%u,%d,%zu,%.5f,%.5f,%.3f", c->name, c->isa, cell.level, cell.rows, cell.cols, cell.threads,
                cell.batch, s.median, s.least, s.spread);
        const double figures[5] = {rate, own > 0 ? rate / own : 0, rate / peak, gemv / s.median, blas / s.median};
        for (int k = 0; k < 5; k++) { /* what was not there is an empty cell */
            if (figures[k] > 0) fprintf(csv, ",%.4f", figures[k]);
            else fprintf(csv, ",");
        }
        fprintf(csv, "\n");
        printf("%-9s %-10s %2u %5u %5u %2d %5zu %10.3f %10.3f %5.0f%% %8.1f ", c->name, c->isa, cell.level,
               cell.rows, cell.cols, cell.threads, cell.batch, s.median, s.least, 100 * s.spread, rate);
        if (own > 0 && rate > 0) printf("%6.0f%% ", 100 * rate / own);
        else printf("%7s ", "");
        if (rate > 0) printf("%6.0f%% ", 100 * rate / peak);
        else printf("%7s ", "");
        if (!c->fma && gemv > 0) printf("%7.2f ", gemv / s.median);
        else printf("%7s ", "");
        if (!c->fma && blas > 0) printf("%7.2f", blas / s.median);
        printf("\n");
    }
    fflush(stdout), fflush(csv);
}

int main(int argc, char **argv) {
    static const size_t quick[] = {1, 4, 16, 64, 256}, all[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
    int full = bench_full(), threads[2] = {1, bench_threads()};
    if (argc > 2 || (argc > 1 && *argv[1] == '-'))
        return printf("usage: gemm [OUT.csv]\nTimes products with many vectors, 4096 x 4096. BENCH=full: every batch, level and thread count.\n"), argc > 2 ? 2 : 0;
    FILE *csv = argc > 1 ? fopen(argv[1], "w") : fopen("/dev/null", "w");
    if (!csv) return fprintf(stderr, "bench: cannot write %s\n", argv[1]), 1;
    cell.rows = cell.cols = 4096;
    cell.bits = bench_ring_new(bench_cold_bytes(), (size_t)16 << 20, BENCH_BITS, 1);
    cell.halves = bench_ring_new((size_t)64 << 20, 1 << 20, BENCH_HALVES, 2);
    cell.x = bench_alloc(LARGEST_BATCH * (size_t)cell.cols * 4),
    cell.y = bench_alloc(LARGEST_BATCH * (size_t)cell.rows * 4);
    cell.dense = bench_alloc((size_t)cell.rows * cell.cols * 4);
    uint64_t seed = 3;
    for (size_t i = 0; i < LARGEST_BATCH * (size_t)cell.cols; i++) cell.x[i] = bench_normal(&seed);

    bench_describe(stdout), bench_describe(csv);
    printf("# gemm: one call. gemv: as many single calls. openblas: its sgemm on the dense matrix. rebuild: "
           "reconstruct W.\n"
           "# own%%: of the multiply-add peak of the same instruction set; peak%%: of the best one (counting bits takes\n"
           "# the place of multiply-adds, so both may exceed 100 %%); xgemv, xblas: times as fast\n");
    printf("%-9s %-10s %2s %5s %5s %2s %5s %10s %10s %6s %8s %7s %7s %7s %7s\n", "what", "isa", "L", "rows",
           "cols", "th", "batch", "ms", "least", "spread", "GFLOP/s", "own%", "peak%", "xgemv", "xblas");
    fprintf(csv, "what,isa,level,rows,cols,threads,batch,median_ms,min_ms,spread,gflops,share_of_own_peak,"
                 "share_of_peak,x_gemv,x_openblas\n");
    for (int t = 0; t < (full && threads[1] > 1 ? 2 : 1); t++)
        for (cell.level = full ? 1 : 3; cell.level <= (full ? 5 : 3); cell.level += 2)
            for (size_t b = 0; b < (full ? sizeof all / sizeof *all : sizeof quick / sizeof *quick); b++) {
                cell.batch = full ? all[b] : quick[b];
                cell.threads = threads[t];
                run_cell(csv);
            }
    return fclose(csv) ? 1 : 0;
}
