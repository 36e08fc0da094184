/* bench.c - clock, statistics, threads, rings of memory, the machine's description. */
#include "bench.h"

#include "bitstack.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

long bench_preemptions(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : usage.ru_nivcsw;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double *sorted(const double *samples, int count) {
    double *copy = bench_alloc((size_t)count * sizeof *copy);
    memcpy(copy, samples, (size_t)count * sizeof *copy);
    qsort(copy, (size_t)count, sizeof *copy, compare);
    return copy;
}
bench_summary bench_summarise(const double *samples, int count) {
    double *s = sorted(samples, count);
    bench_summary out = {s[count / 2], s[0], (s[(count * 9) / 10] - s[count / 10]) / s[count / 2]};
    free(s);
    return out;
}
double bench_ratio(const double *top, const double *bottom, int count) {
    double *ratios = bench_alloc((size_t)count * sizeof *ratios);
    for (int i = 0; i < count; i++) ratios[i] = top[i] / bottom[i];
    double median = bench_summarise(ratios, count).median;
    free(ratios);
    return median;
}

/* Workers spin for a while before they yield: a wake-up by the kernel costs as long as a small GEMV. */
static struct {
    bench_job job;
    void *context;
    int parts, started;
    unsigned ticket, done;
} pool;

/* On the part'th of the CPUs this process may use (-1: on any of them). Else two parts can share a core,
 * one after the other, while a neighbour has the second core. */
static void stay_on(int part) {
    static cpu_set_t all;
    cpu_set_t one;
    if (!CPU_COUNT(&all)) sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&one);
    int seen = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && seen++ == part % CPU_COUNT(&all)) CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, part < 0 ? &all : &one);
}
void bench_pin(int pinned) { stay_on(pinned ? 0 : -1); }

static void wait_for(const unsigned *value, unsigned target) {
    for (unsigned spins = 0; __atomic_load_n(value, __ATOMIC_ACQUIRE) != target; spins++)
        if (spins > 2000000) sched_yield();
}
static void *worker(void *argument) {
    int part = (int)(intptr_t)argument;
    stay_on(part);
    for (unsigned ticket = 1;; ticket++) {
        unsigned spins = 0, seen;
        while ((seen = __atomic_load_n(&pool.ticket, __ATOMIC_ACQUIRE)) < ticket) {
            if (++spins > 200000) {
                struct timespec nap = {0, 50000};
                nanosleep(&nap, NULL); /* nobody multiplies: leave the core to single-threaded runs */
            }
        }
        ticket = seen;
        if (part < pool.parts) pool.job(pool.context, part, pool.parts);
        __atomic_add_fetch(&pool.done, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}
int bench_threads(void) {
    const char *text = getenv("BENCH_THREADS");
    long n = text ? atol(text) : sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 64 ? 64 : (int)n;
}
void bench_run(bench_job job, void *context, int parts) {
    if (parts == 1) {
        job(context, 0, 1);
        return;
    }
    if (!pool.started) {
        pool.started = bench_threads();
        for (int i = 1; i < pool.started; i++) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)i)) exit(1);
            pthread_detach(thread);
        }
    }
    pool.job = job, pool.context = context, pool.parts = parts;
    __atomic_store_n(&pool.done, 0, __ATOMIC_RELAXED);
    __atomic_add_fetch(&pool.ticket, 1, __ATOMIC_RELEASE);
    job(context, 0, parts);
    wait_for(&pool.done, (unsigned)pool.started - 1);
}

uint64_t bench_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
float bench_normal(uint64_t *state) {
    double u = ((double)(bench_random(state) >> 11) + 1) / 9007199254740993.0;
    double v = (double)(bench_random(state) >> 11) / 9007199254740992.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

void *bench_alloc(size_t bytes) {
    void *memory = NULL;
    bytes = (bytes + 63) / 64 * 64 + 64;
    if (posix_memalign(&memory, 4096, bytes)) {
        fprintf(stderr, "bench: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    memset(memory, 0, bytes);
    return memory;
}
size_t bench_last_cache(void) {
    long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return l3 > 0 ? (size_t)l3 : l2 > 0 ? (size_t)l2 : (size_t)32 << 20;
}
size_t bench_cold_bytes(void) {
    const char *text = getenv("BENCH_RING_MB");
    size_t bytes = text ? (size_t)atol(text) << 20 : bench_last_cache() / 2 * 5;
    return bytes < (size_t)128 << 20 ? (size_t)128 << 20 : bytes;
}
bench_ring bench_ring_new(size_t bytes, size_t largest, bench_fill fill, uint64_t seed) {
    bench_ring ring = {NULL, (bytes + 4095) / 4096 * 4096, 0};
    size_t words = (ring.bytes + largest) / 8 + 8;
    ring.base = bench_alloc(words * 8);
    uint64_t *at = (uint64_t *)(void *)ring.base;
    for (size_t i = 0; i < words; i++) {
        uint64_t r = bench_random(&seed);
        /* Floats and halves between 0.5 and 1 in size, of either sign: products stay normal numbers. */
        if (fill == BENCH_HALVES) r = (r & 0x83FF83FF83FF83FFu) | 0x3800380038003800u;
        if (fill == BENCH_FLOATS) r = (r & 0x807FFFFF807FFFFFu) | 0x3F0000003F000000u;
        at[i] = r;
    }
    return ring;
}
const unsigned char *bench_ring_take(bench_ring *ring, size_t bytes) {
    const unsigned char *piece = ring->base + ring->at;
    ring->at = (ring->at + (bytes + 63) / 64 * 64) % ring->bytes;
    return piece;
}

int bench_full(void) {
    const char *text = getenv("BENCH");
    return text && !strcmp(text, "full");
}
int bench_always(void) { return 1; }
#if BENCH_X86
int bench_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
int bench_has_avx512(void) {
    return bench_has_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#else
int bench_has_avx2(void) { return 0; }
int bench_has_avx512(void) { return 0; }
#endif

#ifndef BENCH_FLAGS
#define BENCH_FLAGS "?"
#endif
void bench_describe(FILE *to) {
    char line[512], model[256] = "unknown CPU";
    FILE *info = fopen("/proc/cpuinfo", "r");
    while (info && fgets(line, sizeof line, info)) {
        char *colon = strchr(line, ':');
        if (colon && (!strncmp(line, "model name", 10) || !strncmp(line, "Model", 5))) {
            snprintf(model, sizeof model, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (info) fclose(info);
    info = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    char pages[64] = "?";
    if (info && fgets(line, sizeof line, info))
        snprintf(pages, sizeof pages, "%.*s", (int)strcspn(line, "\n"), line);
    if (info) fclose(info);
    double load = 0;
    if (getloadavg(&load, 1) != 1) load = 0;
    time_t t = time(NULL);
    strftime(line, sizeof line, "%Y-%m-%d", gmtime(&t));
    fprintf(to, "# cpu: %s, %d threads, L2 %ld KiB, last-level cache %zu MiB\n", model, bench_threads(),
            sysconf(_SC_LEVEL2_CACHE_SIZE) / 1024, bench_last_cache() >> 20);
    fprintf(to, "# run: %s, on %s, load average at the start %.1f\n", bench_full() ? "full" : "short", line,
            load);
    fprintf(to, "# compiler: %s %s, flags: %s\n",
#ifdef __clang__
            "clang",
#else
            "gcc",
#endif
            __VERSION__, BENCH_FLAGS);
    fprintf(to, "# isa: %s, built and available:", bitstack_isa());
    for (int i = 0; bitstack_isa_name(i); i++)
        if (bitstack_isa_available(i)) fprintf(to, " %s", bitstack_isa_name(i));
    fprintf(to, "\n# cold: pieces of a ring of %zu MiB; huge pages: %s; OpenBLAS: %s\n",
            bench_cold_bytes() >> 20, pages, bench_has_openblas() ? "yes" : "no");
}
