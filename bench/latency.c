/* latency.c - what loading and resizing cost: checksums, budgets at the disk's speed, tokens while the size changes, and how
 * long the pool's threads take to begin.
 *
 *     build/bench/latency FOLDER GIGABYTES THREADS
 *
 * Writes a stack of random weights of that size into FOLDER, and removes it. Cold: after the system was asked to drop the
 * file's pages, which it need not do. A token's wait is what it took beyond the median of those at either end of the resize,
 * whichever is slower. */
#define BITSTACK_POOL
#include "bitstack/resize.h"
#include "llm/generate.h"
#include "../tests/random_stack.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 2048, HIDDEN = 8192, LEVELS = 4, TOKENS = 40, MOST = 100000 };

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double share_of(double *times, int count, double share) {
    qsort(times, (size_t)count, sizeof *times, by_size);
    return times[(int)(share * (count - 1))];
}

static void checksums(void) {
    enum { BYTES = 64 << 20 };
    unsigned char *data = malloc(BYTES);
    uint64_t seed = 1, sum = 0;
    double best = 1e9;
    if (!data) return;
    for (size_t i = 0; i < BYTES; i += 8) test_store64(data + i, test_random(&seed));
    for (int i = 0; i < 5; i++) {
        double start = seconds(CLOCK_THREAD_CPUTIME_ID), took;
        sum += bitstack_checksum(data, BYTES);
        took = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        best = took < best ? took : best;
    }
    printf("checksum: %.1f GB/s of one thread's time (%llx)\n", BYTES / best / 1e9, (unsigned long long)sum & 15);
    free(data);
}

static void drop_pages(const char *path) {
    int file = open(path, O_RDONLY);
    if (file < 0) return;
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
}

/* All of the file by read alone: what the disk, or the page cache, gives. */
static double plain_read(const char *path) {
    enum { PIECE = 8 << 20 };
    char *piece = malloc(PIECE);
    int file = open(path, O_RDONLY);
    double start = seconds(CLOCK_MONOTONIC), bytes = 0;
    for (ssize_t got; piece && file >= 0 && (got = read(file, piece, PIECE)) > 0; ) bytes += (double)got;
    if (file >= 0) close(file);
    free(piece);
    return bytes / (seconds(CLOCK_MONOTONIC) - start);
}

static int load_all(const char *path, int cold, int skip) {
    bitstack *stack;
    bitstack_error error;
    bitstack_options options = {0};
    options.load_nothing = 1, options.skip_checksums = skip;
    options.allocator = memory_allocator();
    if (bitstack_open_file(&stack, path, &options, &error) != BITSTACK_OK) return fprintf(stderr, "%s\n", error.message), 1;
    if (cold) drop_pages(path);
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
    bitstack_set_budget(stack, 0, NULL);
    double bytes = (double)(bitstack_resident_bytes(stack) - bitstack_base_bytes(stack));
    printf("budget, %s, checksums %s: %.2f GB/s, %.2f s of processor a GB\n", cold ? "cold" : "warm", skip ? "skipped" : "verified",
           bytes / (seconds(CLOCK_MONOTONIC) - start) / 1e9, (seconds(CLOCK_THREAD_CPUTIME_ID) - cpu) / bytes * 1e9);
    bitstack_close(stack);
    return 0;
}

static int token(llm_generator *g, double *times, int *count) {
    llm_sampler greedy = {0, 1, 1};
    double start = seconds(CLOCK_MONOTONIC);
    if (llm_generator_next(g, &greedy) < 0) return -1;
    if (*count < MOST) times[(*count)++] = seconds(CLOCK_MONOTONIC) - start;
    return 0;
}

static double tokens_at(llm_generator *g, double *times) {
    int count = 0;
    while (count < TOKENS && token(g, times, &count) == 0) {}
    return share_of(times, count, 0.5);
}

static void waits(const char *way, const double *times, int count, double usual, double took) {
    static double over[MOST];
    for (int i = 0; i < count; i++) over[i] = times[i] > usual ? times[i] - usual : 0;
    double half = share_of(over, count, 0.5), most = share_of(over, count, 0.99), longest = share_of(over, count, 1);
    printf("resize %s: %.1f s, %d tokens beside it; a token waits %.2f ms (median), %.2f ms (99 %%), %.2f ms (longest)\n", way, took, count,
           1e3 * half, 1e3 * most, 1e3 * longest);
}

static int resize(const char *path, int threads) {
    static double times[MOST];
    llm_model m;
    llm_error error;
    llm_model_options options;
    llm_generator g;
    resizer *r;
    resizer_options size;
    resizer_state now;
    memset(&options, 0, sizeof options), memset(&size, 0, sizeof size);
    options.threads = threads;
    options.stack.load_nothing = 1;
    options.stack.allocator = memory_allocator();
    if (llm_model_open(&m, path, &options, &error) != 0) return fprintf(stderr, "%s\n", error.message), 1;
    const uint64_t base = bitstack_base_bytes(m.source.stack), all = bitstack_total_bytes(m.source.stack), low = base + (all - base) / 16;
    size.budget = low;
    if (llm_generator_init(&g, &m, 256) != 0 || resizer_start(&r, m.source.stack, &size) != 0) return fprintf(stderr, "out of memory\n"), 1;
    resizer_wait(r);
    llm_generator_add(&g, (const uint32_t[]){1}, 1);
    double small = tokens_at(&g, times), usual = small;
    for (int way = 0; way < 2; way++) {
        int count = 0;
        double start = seconds(CLOCK_MONOTONIC), took;
        resizer_budget(r, way ? low : all);
        do {
            if (token(&g, times, &count) != 0) return fprintf(stderr, "out of memory\n"), 1;
            took = seconds(CLOCK_MONOTONIC) - start;
            resizer_ask(r, &now);
        } while (!now.settled);
        static double copy[MOST];
        if (!way) {
            double large = tokens_at(&g, copy);
            usual = large > small ? large : small;
            printf("a token: %.2f ms at %.2f GB, %.2f ms at %.2f GB\n", 1e3 * small, (double)low / 1e9, 1e3 * large, (double)all / 1e9);
        }
        waits(way ? "down" : "up", times, count, usual, took);
    }
    resizer_stop(r);
    llm_generator_free(&g);
    llm_model_close(&m);
    return 0;
}

static void nothing(void *context, size_t index) { (void)context, (void)index; }

/* Calls that do nothing, one after the other as products are, and after a pause as between tokens. */
static void wake(int threads) {
    enum { CALLS = 2000 };
    static double times[CALLS];
    bitstack_pool *pool;
    if (threads < 2 || bitstack_pool_open(&pool, threads, NULL) != BITSTACK_OK) return;
    for (int pause = 0; pause <= 200; pause += 200) {
        for (int i = 0; i < CALLS; i++) {
            if (pause) usleep((useconds_t)pause);
            double start = seconds(CLOCK_MONOTONIC);
            bitstack_pool_run(pool, nothing, NULL, (size_t)threads);
            times[i] = seconds(CLOCK_MONOTONIC) - start;
        }
        double half = share_of(times, CALLS, 0.5);
        printf("pool of %d, %s: a call that does nothing takes %.2f us (median), %.2f us (90 %%)\n", threads,
               pause ? "200 us after the last one" : "one call after the other", 1e6 * half, 1e6 * share_of(times, CALLS, 0.9));
    }
    bitstack_pool_close(pool);
}

int main(int argc, char **argv) {
    if (argc != 4 || !(atof(argv[2]) > 0) || atoi(argv[3]) < 1) return fputs("usage: latency FOLDER GIGABYTES THREADS\n", stderr), 2;
    char path[600];
    const int threads = atoi(argv[3]);
    const double layer = (4.0 * WIDTH * WIDTH + 3.0 * WIDTH * HIDDEN) / 8 * LEVELS;
    const uint32_t layers = (uint32_t)(atof(argv[2]) * 1e9 / layer + 1);
    snprintf(path, sizeof path, "%s/latency.bitstack", argv[1]);
    if (random_stack(path, WIDTH, HIDDEN, layers, LEVELS, 256, NULL) != 0) return fprintf(stderr, "cannot write %s\n", path), 1;
    checksums();
    drop_pages(path);
    double cold = plain_read(path), warm = plain_read(path);
    printf("read alone: %.2f GB/s cold, %.2f GB/s warm\n", cold / 1e9, warm / 1e9);
    int status = 0;
    for (int i = 0; i < 4 && !status; i++) status = load_all(path, i < 2, i % 2);
    if (!status) status = resize(path, threads);
    remove(path);
    wake(threads);
    return status;
}
