/* Memory that runs out, threads that do not start, disks that fill, files that shrink or change, processes that
 * are killed: each at every point where it can happen, each a clean error, and the file at the path is always
 * the old one or the new one. */
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* --- The faults: this file has an implementation of its own whose calls to the system go through here. --- */
static long heap_used, heap_peak, heap_calls, heap_fail_at; /* the heap_fail_at-th allocation fails; 0 never */
static void *heap_take(size_t bytes) {
    if (++heap_calls == heap_fail_at) return NULL;
    size_t *p = (size_t *)malloc(bytes + 64);
    if (!p) return NULL;
    *p = bytes, heap_used += (long)bytes;
    if (heap_used > heap_peak) heap_peak = heap_used;
    return memset((char *)p + 64, 0xA5, bytes);
}
static void heap_give(void *pointer) {
    size_t *p = pointer ? (size_t *)(void *)((char *)pointer - 64) : NULL;
    if (p) heap_used -= (long)*p;
    free(p);
}

static long steps, die_at;        /* the die_at-th step that the disk sees is the last; 0 never */
static int torn;                  /* it dies in the middle of that step */
static long fail_at;              /* the fail_at-th step fails; 0 never */
static int harmless;              /* what failed loses nothing: a spool that is closed or removed */
static FILE *written;             /* the new file, while it is */
static int flushed, rename_early; /* was anything renamed that had not been brought to the disk? */
static int step(FILE *file, const void *data, size_t bytes) { /* nonzero: it fails */
    if (++steps == fail_at) return harmless = 0, 1;
    if (steps != die_at) return 0;
    if (torn && file) fwrite(data, 1, bytes / 2, file);
    return kill(getpid(), SIGKILL);
}
static FILE *fault_fopen(const char *path, const char *mode) {
    if (step(NULL, NULL, 0)) return NULL;
    FILE *file = fopen(path, mode);
    if (file && die_at) setvbuf(file, NULL, _IONBF, 0); /* so that every fwrite is a write */
    if (strlen(path) > 5 && !strcmp(path + strlen(path) - 5, ".part")) written = file;
    return file;
}
static size_t fault_fread(void *data, size_t size, size_t count, FILE *file) {
    if (!die_at && step(NULL, NULL, 0)) return 0; /* the disk sees nothing of it: no point to die at */
    return fread(data, size, count, file);
}
static size_t fault_fwrite(const void *data, size_t size, size_t count, FILE *file) {
    if (step(file, data, size * count)) return 0;
    return fwrite(data, size, count, file);
}
static const char *steal; /* where another writer puts its own new file just before this one is done */
static int fault_fflush(FILE *file) {
    if (steal && file == written) {
        FILE *theirs;
        remove(steal);
        if ((theirs = fopen(steal, "wb")) != NULL) fputs("theirs", theirs), fclose(theirs);
    }
    return step(NULL, NULL, 0) ? EOF : fflush(file);
}
static int fault_fsync(int file) { return step(NULL, NULL, 0) ? -1 : (flushed = 1, fsync(file)); }
static int fault_fclose(FILE *file) {
    const int fails = step(NULL, NULL, 0), was_new = file == written;
    if (fails) harmless = !was_new;
    if (was_new) written = NULL;
    return fclose(file) || fails ? EOF : 0;
}
static int fault_remove(const char *path) {
    if (!step(NULL, NULL, 0)) return remove(path);
    harmless = 1;
    return -1;
}
static int fault_rename(const char *from, const char *to) {
    if (step(NULL, NULL, 0)) return -1;
    rename_early |= !flushed;
    return rename(from, to);
}
static int threads_refused;
static int fault_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg) {
    return threads_refused-- > 0 ? EAGAIN : pthread_create(thread, attributes, run, arg);
}

#define fopen fault_fopen
#define fread fault_fread
#define fwrite fault_fwrite
#define fflush fault_fflush
#define fsync fault_fsync
#define fclose fault_fclose
#define remove fault_remove
#define rename fault_rename
#define pthread_create fault_pthread_create
#define BITSTACK_MALLOC(bytes) heap_take(bytes)
#define BITSTACK_FREE(pointer) heap_give(pointer)
#define BITSTACK_STATIC
#define BITSTACK_POOL
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_COMPRESS_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* what is written only on success, inlined */
#endif
#include "bitstack_compress.h"
#undef fopen
#undef fread
#undef fwrite
#undef fflush
#undef fsync
#undef fclose
#undef remove
#undef rename
#undef pthread_create
#include "stack_builder.h"

static const char *const path = "build/tests/faults.bitstack";
static const char *const other = "build/tests/faults-new.bitstack";

/* An allocator of the caller's own that notes a size which is not the one that was asked for. */
typedef struct sized_heap {
    long used, calls, fail_at, wrong;
} sized_heap;
static void *sized_allocate(void *user, size_t bytes) {
    sized_heap *heap = (sized_heap *)user;
    if (++heap->calls == heap->fail_at) return NULL;
    size_t *p = (size_t *)malloc(bytes + 64);
    if (!p) return NULL;
    *p = bytes, heap->used += (long)bytes;
    return memset((char *)p + 64, 0xA5, bytes);
}
static void sized_release(void *user, void *pointer, size_t bytes) {
    sized_heap *heap = (sized_heap *)user;
    size_t *p = pointer ? (size_t *)(void *)((char *)pointer - 64) : NULL;
    heap->wrong += !p || *p != bytes;
    if (p) heap->used -= (long)*p;
    free(p);
}
static bitstack_allocator sized(sized_heap *heap) {
    bitstack_allocator allocator = {sized_allocate, sized_release, heap};
    return allocator;
}
static bitstack_allocator writer_allocator; /* none of its own: that of the implementation */

/* --- Memory --- */
static float w[210 * 210], x[8 * 210];
static bitstack_result encode(uint32_t rows, uint32_t cols, int iabs, int with_h, uint32_t rank) {
    bitstack_encode_options options = {0};
    bitstack_moments moments, *given = NULL;
    bitstack_coded coded;
    double rel, weighted;
    options.method = iabs ? BITSTACK_IABS : BITSTACK_NESTED, options.levels = 3, options.rank = rank;
    if (with_h) {
        if (bitstack_moments_init(&moments, cols, 1) != BITSTACK_OK) return BITSTACK_ERROR_MEMORY;
        bitstack_moments_add(&moments, x, 8, cols);
        given = &moments;
    }
    bitstack_result result = bitstack_encode_matrix(&coded, w, rows, cols, cols, given, &options);
    if (result == BITSTACK_OK) {
        bitstack_plane planes[BITSTACK_MAX_LEVELS];
        bitstack_view view;
        bitstack_coded_view(&coded, 3, planes, &view);
        result = bitstack_measure_error(&view, w, cols, given, 1, &rel, &weighted);
        bitstack_coded_free(&coded);
    }
    if (given) bitstack_moments_free(given);
    return result;
}
static bitstack_result decompose(int truncated) {
    static double a[30 * 20], u[30 * 20], s[20], vt[20 * 20];
    static float uf[210 * 4], sf[4], vf[210 * 4];
    for (int i = 0; i < 600; i++) a[i] = (double)w[i];
    return truncated ? bitstack_svd_truncated(w, 210, 210, 210, 4, NULL, 1, 1, uf, sf, vf) : bitstack_svd(a, 30, 20, 20, u, s, vt);
}
static int loss(void *user, const uint32_t *levels, uint32_t matrices, double *value) {
    (void)user;
    *value = 0;
    for (uint32_t i = 0; i < matrices; i++) *value += 1.0 / (1 + levels[i] * (i + 1));
    return 0;
}
static bitstack_result order(void) {
    static const uint32_t levels[3] = {3, 2, 4};
    bitstack_order_entry entries[9];
    return bitstack_order_paper(levels, 3, loss, NULL, entries);
}
static bitstack_result write_stack(const char *to, int matrices) {
    static const char *const strings[] = {"a", "bc"};
    static const uint64_t shape[1] = {15};
    bitstack_writer *writer;
    bitstack_error error;
    bitstack_result result = bitstack_writer_open(&writer, to, &writer_allocator, &error);
    if (result != BITSTACK_OK) return result;
    if (result == BITSTACK_OK) result = bitstack_writer_meta_u32(writer, "n", (uint32_t)matrices);
    if (result == BITSTACK_OK) result = bitstack_writer_meta_strings(writer, "strings", strings, NULL, 2);
    if (result == BITSTACK_OK) result = bitstack_writer_tensor(writer, "t", BITSTACK_F32, 1, shape, x);
    for (int i = 0; i < matrices && result == BITSTACK_OK; i++) {
        bitstack_shape s = build_shape(40, 70, 2, 1, i & 1);
        bitstack_coded coded = build_coded(&s, (uint64_t)i);
        char name[700]; /* long, so that the buffers have to grow */
        memset(name, 'a' + i, sizeof name), name[sizeof name - 1] = 0;
        result = bitstack_writer_matrix(writer, name, &coded, 1);
        build_free(&coded);
    }
    if (result != BITSTACK_OK) {
        bitstack_writer_abort(writer);
        return result;
    }
    return bitstack_writer_finish(writer, NULL, 0, &error);
}
static bitstack_result reorder(const char *from, const char *to) {
    bitstack_order_entry entries[8];
    size_t n = 0;
    for (uint32_t m = 4; m-- > 0;)
        for (uint32_t l = 1; l <= 2; l++) entries[n].matrix = m, entries[n].level = l, entries[n++].score = 0;
    return bitstack_reorder(from, to, entries, n, NULL);
}

/* Runs `what` with the n-th allocation failing for n = 1, 2, ... until none does; returns how many failed. */
static int every_allocation(const char *name, int what, int a, int b, int c, int d, uint32_t rank) {
    int failed = 0;
    for (heap_fail_at = 1;; heap_fail_at++) {
        heap_calls = heap_used = 0;
        bitstack_result result = what == 0 ? encode((uint32_t)a, (uint32_t)b, c, d, rank) : what == 1 ? decompose(a) : what == 2 ? order()
                                 : what == 3 ? write_stack(other, 4) : reorder(path, other);
        const int reached = heap_calls >= heap_fail_at;
        CHECK(heap_used == 0, "%s: %ld bytes leaked after allocation %ld failed", name, heap_used, heap_fail_at);
        CHECK(result == BITSTACK_OK || (reached && result == BITSTACK_ERROR_MEMORY), "%s: allocation %ld: %s", name, heap_fail_at, bitstack_result_string(result));
        CHECK(result != BITSTACK_OK || !reached || what >= 3, "%s: allocation %ld failed and nobody noticed", name, heap_fail_at);
        failed += reached;
        if (!reached || test_bad_ > 5) break;
    }
    heap_fail_at = 0;
    printf("      %s: %d allocations\n", name, failed);
    return failed;
}

/* --- The disk --- */
static uint64_t sum_of(const char *name) {
    size_t bytes;
    unsigned char *data = (unsigned char *)test_read_file(name, &bytes);
    uint64_t sum = data ? bitstack_checksum(data, bytes) : 0;
    free(data);
    return sum;
}
/* In a child: what the disk would see if the process died at step n, or the disk were full at n bytes. */
static int in_child(int what, long die, int half, rlim_t most) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit limit = {most, most};
        signal(SIGXFSZ, SIG_IGN);
        if (most != RLIM_INFINITY) setrlimit(RLIMIT_FSIZE, &limit);
        steps = 0, die_at = die, torn = half;
        bitstack_result result = what == 0 ? write_stack(path, 4) : reorder(path, path);
        _exit(result == BITSTACK_OK ? 0 : result == BITSTACK_ERROR_IO ? 1 : 2);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

typedef struct liar {
    const unsigned char *data;
    size_t bytes;
    int calls, lie_at, kind; /* 0 fails, 1 gives zeros, 2 leaves the buffer, 3 gives the bytes before, 4 flips a bit */
    uint64_t lied;           /* where */
} liar;
static int lying_read(void *user, uint64_t offset, void *to, size_t bytes) {
    liar *l = (liar *)user;
    if (offset > l->bytes || bytes > l->bytes - offset) return 1;
    if (++l->calls == l->lie_at) {
        l->lied = offset;
        if (l->kind == 0) return 1;
        if (l->kind == 4) {
            memcpy(to, l->data + offset, bytes);
            ((unsigned char *)to)[(size_t)l->calls * 997 % bytes] ^= (unsigned char)(1 << l->calls % 8);
        }
        if (l->kind == 1) memset(to, 0, bytes);
        if (l->kind == 3) memcpy(to, l->data + (offset ? offset - 1 : 1), bytes - (offset ? 0 : 1));
        return 0;
    }
    memcpy(to, l->data + offset, bytes);
    return 0;
}

static uint64_t content(const bitstack *stack, const bitstack *levels_of) {
    static float out[40 * 70];
    uint64_t hash = 0;
    for (int i = 0; i < bitstack_matrix_count(stack); i++) {
        bitstack_matrix m;
        bitstack_get_matrix(levels_of, i, &m);
        if (stack != levels_of) bitstack_set_level((bitstack *)(uintptr_t)stack, i, m.level, NULL);
        bitstack_dequantize(stack, i, out, 70);
        hash = hash * 31 + bitstack_checksum(out, sizeof out);
    }
    return hash;
}

/* Opens with nothing loaded, then takes it through all its sizes; after each step what is there must be whole levels
 * of `good`, within the budget. Failures end nothing; the first is returned. In the end there is no fault any more, and
 * all must be there. */
enum { MEMORY, FILE_, CALLBACK };
static bitstack_result tour(int from, liar *l, bitstack_options options, bitstack *good, bitstack_error *error) {
    const uint64_t base = bitstack_base_bytes(good), total = bitstack_total_bytes(good), half = (base + total) / 2;
    const struct {
        int matrix; /* -1: a budget */
        uint64_t to;
    } way[] = {{-1, total}, {-1, half}, {-1, total}, {0, 1}, {1, 0}, {0, 2}, {1, 1}, {3, 0}, {3, 2}, {-1, base}, {-1, total}, {-1, total}};
    bitstack *stack;
    options.load_nothing = 1;
    bitstack_result first = from == MEMORY ? bitstack_open_memory(&stack, l->data, l->bytes, &options, error)
                            : from == FILE_ ? bitstack_open_file(&stack, path, &options, error)
                                            : bitstack_open_callback(&stack, lying_read, l, l->bytes, &options, error);
    if (first != BITSTACK_OK) return first;
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        bitstack_error now = {BITSTACK_OK, 0, ""};
        const int m = way[i].matrix;
        bitstack_result result = m < 0 ? bitstack_set_budget(stack, way[i].to, &now)
                                       : bitstack_set_level(stack, m, (uint32_t)way[i].to, &now);
        CHECK(result == BITSTACK_OK || (first == BITSTACK_OK && now.code == result), "step %zu fails again: %s", i, now.message);
        if (first == BITSTACK_OK && result != BITSTACK_OK) first = result, *error = now;
        bitstack_matrix there;
        if (m < 0) bitstack_set_budget(good, way[i].to, NULL);
        else bitstack_get_matrix(stack, m, &there);
        CHECK(result != BITSTACK_OK || (m < 0 ? bitstack_resident_bytes(stack) == bitstack_resident_bytes(good) : there.level == way[i].to),
              "step %zu succeeds, but is elsewhere", i);
        CHECK(content(stack, stack) == content(good, stack), "step %zu: weights of no level (%s)", i, now.message);
        CHECK(m >= 0 || bitstack_resident_bytes(stack) <= way[i].to, "step %zu: more than the budget", i);
    }
    CHECK(bitstack_resident_bytes(stack) == total, "not all came back: %s", error->message);
    bitstack_close(stack);
    return first;
}

static void count_run(void *context, size_t index) { __atomic_fetch_add((int *)context + index, 1, __ATOMIC_RELAXED); }

int main(void) {
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof w / sizeof w[0]; i++) w[i] = test_normal(&seed);
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++) x[i] = test_normal(&seed);

    TEST("every allocation of the compressor may fail");
    CHECK(every_allocation("nested", 0, 20, 24, 0, 0, 1) > 5, "too few");
    CHECK(every_allocation("nested with moments", 0, 20, 24, 0, 1, 1) > 8, "too few");
    CHECK(every_allocation("nested of rank 2", 0, 20, 24, 0, 1, 2) > 5, "too few");
    CHECK(every_allocation("nested, wide", 0, 6, 210, 0, 1, 1) > 8, "too few");
    CHECK(every_allocation("iabs", 0, 20, 24, 1, 1, 2) > 5, "too few");
    CHECK(every_allocation("iabs, truncated SVD", 0, 210, 210, 1, 0, 2) > 5, "too few");
    CHECK(every_allocation("SVD", 1, 0, 0, 0, 0, 0) > 0, "too few");
    CHECK(every_allocation("truncated SVD", 1, 1, 0, 0, 0, 0) > 2, "too few");
    CHECK(every_allocation("the paper's order", 2, 0, 0, 0, 0, 0) > 0, "too few");
    CHECK(write_stack(path, 4) == BITSTACK_OK, "a first stack");
    CHECK(every_allocation("writer", 3, 0, 0, 0, 0, 0) > 10, "too few");
    CHECK(every_allocation("reordering", 4, 0, 0, 0, 0, 0) > 5, "too few");

    TEST("the caller's own allocator may fail the writer at any call, and gets back what it gave, by its size");
    {
        long n = 1;
        for (int reached = 1; reached && test_bad_ <= 5; n++) {
            sized_heap heap = {0, 0, n, 0};
            writer_allocator = sized(&heap);
            bitstack_result result = write_stack(other, 4);
            reached = heap.calls >= n;
            CHECK(heap.used == 0 && heap.wrong == 0, "allocation %ld: %ld bytes kept, %ld given back wrongly", n, heap.used, heap.wrong);
            CHECK(result == (reached ? BITSTACK_ERROR_MEMORY : BITSTACK_OK), "allocation %ld: %s", n, bitstack_result_string(result));
        }
        CHECK(n > 10, "%ld allocations", n);
        memset(&writer_allocator, 0, sizeof writer_allocator);
    }

    TEST("threads that cannot be started are done without, and change no bit");
    {
        bitstack_encode_options options = {0};
        bitstack_coded coded[4];
        options.levels = 3;
        for (int i = 0; i < 4; i++) {
            options.threads = i ? 4 : 1;
            threads_refused = i == 1 ? 1000000 : i == 2 ? 1 : 0;
            CHECK(bitstack_encode_matrix(&coded[i], w, 128, 100, 210, NULL, &options) == BITSTACK_OK, "encode");
            for (uint32_t l = 0; l < 3 && i; l++)
                CHECK(!memcmp(coded[i].blocks[l], coded[0].blocks[l], (size_t)bitstack_block_bytes(&coded[0].shape, l + 1)), "block %u differs", l);
        }
        threads_refused = 0;
        for (int i = 0; i < 4; i++) bitstack_coded_free(&coded[i]);
    }

    TEST("a pool for which fewer threads start than were asked for says so, and works");
    for (int refused = 0; refused < 4; refused++) {
        bitstack_pool *pool;
        int ran[9] = {0};
        threads_refused = refused ? 1000000 : 0;
        if (refused == 3) threads_refused = 0;
        CHECK(bitstack_pool_open(&pool, refused == 3 ? 1000 : 4, NULL) == BITSTACK_OK, "pool");
        threads_refused = 0;
        const int threads = bitstack_pool_threads(pool);
        CHECK(refused == 3 ? threads >= 1 && threads <= 256 : threads == (refused ? 1 : 4), "%d threads", threads);
        CHECK(bitstack_pool_parallel(pool).threads == threads && bitstack_pool_threads(NULL) == 1, "%d threads", threads);
        bitstack_pool_run(pool, count_run, ran, 9);
        for (int i = 0; i < 9; i++) CHECK(ran[i] == 1, "task %d ran %d times", i, ran[i]);
        bitstack_pool_close(pool);
    }

    TEST("matrices of extreme shapes take the memory that is documented");
    for (int shape = 0; shape < 4; shape++)
        for (int iabs = 0; iabs < 2; iabs++) {
            static const uint32_t sizes[4][2] = {{1, 200000}, {200000, 1}, {4, 60000}, {60000, 4}};
            const uint32_t rows = sizes[shape][0], cols = sizes[shape][1];
            float *extreme = (float *)malloc((size_t)rows * cols * sizeof *extreme);
            bitstack_encode_options options = {0};
            bitstack_coded coded;
            options.method = iabs ? BITSTACK_IABS : BITSTACK_NESTED, options.levels = 2, options.rank = 1;
            for (size_t i = 0; i < (size_t)rows * cols; i++) extreme[i] = test_normal(&seed);
            const double padded = iabs ? (double)rows * cols : (double)((rows + 31) / 32 * 32) * ((cols + 47) / 48 * 48);
            const double limit = 16 * padded + 64 * ((double)rows + cols) + (8.0 * (rows < 192 ? rows : 192) + (iabs ? 0 : 256 * 2)) * cols +
                                 8 * ((double)rows * cols / 8 + 8.0 * rows) + 4e6; /* what is returned, and what does not grow */
            heap_used = heap_peak = 0;
            CHECK(bitstack_encode_matrix(&coded, extreme, rows, cols, cols, NULL, &options) == BITSTACK_OK, "encode");
            printf("      %u x %u, %s: %.1f MB at once\n", rows, cols, iabs ? "iabs" : "nested", 1e-6 * (double)heap_peak);
            CHECK((double)heap_peak < limit, "%u x %u, %s: %ld bytes, should be %.0f", rows, cols, iabs ? "iabs" : "nested", heap_peak, limit);
            if (heap_used) bitstack_coded_free(&coded);
            CHECK(heap_used == 0, "%ld bytes leaked", heap_used);
            free(extreme);
        }

    TEST("a new file that another writer has taken is left to it: an error, and the old file stays");
    {
        static const char *const part = "build/tests/faults.bitstack.part";
        for (int what = 0; what < 2; what++) {
            CHECK(write_stack(path, 4) == BITSTACK_OK, "the old file");
            const uint64_t before = sum_of(path);
            steal = part;
            const bitstack_result result = what ? reorder(path, path) : write_stack(path, 1);
            steal = NULL;
            size_t bytes = 0;
            char *theirs = (char *)test_read_file(part, &bytes);
            CHECK(result == BITSTACK_ERROR_IO && sum_of(path) == before, "%s", bitstack_result_string(result));
            CHECK(theirs && bytes == 6 && !memcmp(theirs, "theirs", 6), "their file was taken");
            free(theirs);
            remove(part);
        }
    }

    TEST("a process killed at any step of writing leaves the old file or the new one, and writing again works");
    CHECK(write_stack(path, 4) == BITSTACK_OK && rename(path, other) == 0, "the new file");
    const uint64_t new_file = sum_of(other);
    long kills = 0, old_left = 0, new_left = 0;
    flushed = rename_early = 0;
    CHECK(write_stack(path, 1) == BITSTACK_OK && flushed && !rename_early, "bytes are on the disk before the name is");
    const uint64_t old_file = sum_of(path);
    CHECK(old_file && new_file && old_file != new_file, "two files");
    for (int half = 0; half < 2; half++)
        for (long n = 1;; n++) {
            CHECK(write_stack(path, 1) == BITSTACK_OK && sum_of(path) == old_file, "the old file again");
            int status = in_child(0, n, half, RLIM_INFINITY);
            uint64_t now = sum_of(path);
            CHECK(now == old_file || now == new_file, "killed at step %ld: neither file", n);
            CHECK(now == new_file || status != 0, "ended well with the old file");
            old_left += now == old_file, new_left += now == new_file;
            if (status == 0 || test_bad_ > 5) break;
            CHECK(status == -SIGKILL, "ended with %d", status);
            kills++;
            if (n % 5 == 0) CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0 && sum_of(path) == new_file, "writing again after step %ld", n);
        }
    CHECK(kills > 40 && old_left > 30 && new_left >= 2, "%ld kills, %ld times old, %ld new", kills, old_left, new_left);
    printf("      %ld kills while writing\n", kills);

    TEST("a process killed at any step of reordering a file in place leaves it whole, before or after");
    CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0 && in_child(1, 0, 0, RLIM_INFINITY) == 0, "write, reorder");
    const uint64_t reordered = sum_of(path);
    CHECK(reordered != new_file, "reordering changes the file");
    kills = 0;
    for (long n = 1;; n++) {
        CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0, "write");
        int status = in_child(1, n, (int)(n % 2), RLIM_INFINITY);
        uint64_t now = sum_of(path);
        CHECK(now == new_file || now == reordered, "killed at step %ld: neither file", n);
        if (status == 0 || test_bad_ > 5) break;
        kills++;
    }
    CHECK(kills > 10, "%ld kills", kills);
    printf("      %ld kills while reordering\n", kills);

    TEST("a disk that fails at any step is BITSTACK_ERROR_IO, keeps the old file and leaves no other");
    for (int what = 0; what < 2; what++) {
        long n, failures = 0;
        for (n = 1; test_bad_ <= 5; n++) {
            CHECK(write_stack(path, what ? 4 : 1) == BITSTACK_OK, "the old file");
            steps = 0, fail_at = n, harmless = 0;
            bitstack_result result = what ? reorder(path, path) : write_stack(path, 4);
            const int reached = steps >= n;
            fail_at = 0;
            const uint64_t now = sum_of(path), good = what ? reordered : new_file, old = what ? new_file : old_file;
            if (!reached || harmless) CHECK(result == BITSTACK_OK && now == good, "step %ld: %s", n, bitstack_result_string(result));
            else CHECK(result == BITSTACK_ERROR_IO && now == old, "step %ld fails: %s, the %s file", n, bitstack_result_string(result),
                       now == old ? "old" : "new");
            CHECK(harmless || (access("build/tests/faults.bitstack.part", F_OK) != 0 && access("build/tests/faults.bitstack.spool", F_OK) != 0),
                  "step %ld: files are left", n);
            if (!reached) break;
            failures += !harmless;
        }
        CHECK(failures > 10, "%ld failures", failures);
        printf("      %ld steps failed while %s\n", failures, what ? "reordering" : "writing");
    }

    TEST("a disk full at any byte is BITSTACK_ERROR_IO, keeps the old file and leaves no other");
    {
        struct stat status;
        stat(other, &status);
        long full = 0;
        for (rlim_t most = 0;; most += most < 4096 ? 331 : 1777) {
            CHECK(write_stack(path, 1) == BITSTACK_OK, "the old file");
            int result = in_child(0, 0, 0, most);
            uint64_t now = sum_of(path);
            if (result == 0) {
                CHECK(now == new_file && (off_t)most >= status.st_size, "well within %ld bytes", (long)most);
                break;
            }
            CHECK(result == 1 && now == old_file, "full at %ld bytes: result %d", (long)most, result);
            CHECK(access("build/tests/faults.bitstack.part", F_OK) != 0 && access("build/tests/faults.bitstack.spool", F_OK) != 0, "files are left");
            full++;
            if (test_bad_ > 5) break;
        }
        CHECK(full > 10, "%ld sizes", full);
        printf("      full at %ld sizes\n", full);
    }

    TEST("a file that shrinks or changes while it is open is an error, never a crash, and good levels stay");
    {
        bitstack_options options = {0};
        bitstack_error error;
        bitstack *stack, *good;
        bitstack_block block = {0};
        struct stat status;
        size_t bytes;
        CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0, "write");
        unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
        CHECK(bitstack_open_memory(&good, data, bytes, NULL, &error) == BITSTACK_OK, "%s", error.message);
        stat(path, &status);
        for (off_t cut = 0; cut < status.st_size; cut += 997) {
            CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0, "write");
            bitstack_get_block(good, 1, &block);
            options.budget = block.resident_after;
            CHECK(bitstack_open_file(&stack, path, &options, &error) == BITSTACK_OK, "%s", error.message);
            CHECK(truncate(path, cut) == 0, "truncate");
            bitstack_result result = bitstack_set_budget(stack, UINT64_MAX, &error);
            CHECK(result == BITSTACK_ERROR_IO && strstr(error.message, "reading a block of matrix 'a") != NULL, "cut at %ld: %s", (long)cut, error.message);
            CHECK(bitstack_resident_bytes(stack) >= block.resident_after, "what was loaded stays");
            CHECK(content(stack, stack) == content(good, stack), "the levels that are there are right");
            bitstack_close(stack);
            CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0, "write");
            CHECK(bitstack_open_file(&stack, path, &options, &error) == BITSTACK_OK, "%s", error.message);
            FILE *file = fopen(path, "r+b");
            fseek(file, (long)cut, SEEK_SET);
            for (int i = 0; i < 900; i++) putc(0x55, file);
            fclose(file);
            result = bitstack_set_budget(stack, UINT64_MAX, &error);
            CHECK(result == BITSTACK_OK || result == BITSTACK_ERROR_CHECKSUM, "overwritten at %ld: %s", (long)cut, error.message);
            CHECK(content(stack, stack) == content(good, stack), "the levels that are there are right");
            bitstack_close(stack);
        }
        TEST("a source that fails, or answers with other bytes, at any read is found out");
        int lies = 0, noticed = 0;
        for (int kind = 0; kind < 4; kind++)
            for (int n = 1;; n++) {
                liar l = {data, bytes, 0, n, kind, 0};
                memset(&error, 0, sizeof error);
                bitstack_result result = bitstack_open_callback(&stack, lying_read, &l, bytes, NULL, &error);
                if (l.calls < n) {
                    bitstack_close(stack);
                    break;
                }
                lies++;
                noticed += result != BITSTACK_OK || error.code != BITSTACK_OK;
                if (result == BITSTACK_OK) {
                    CHECK(content(stack, stack) == content(good, stack), "kind %d at read %d: wrong weights", kind, n);
                    bitstack_close(stack);
                }
            }
        CHECK(lies > 40 && noticed == lies, "%d of %d lies were noticed", noticed, lies);
        printf("      %d reads failed or lied\n", lies);

        TEST("whatever read fails or lies on a way through all sizes: whole levels of the true file, or an error that names the matrix");
        for (int kind = lies = 0; kind < 5; kind++)
            for (int n = 1; test_bad_ <= 5; n++) {
                liar l = {data, bytes, 0, n, kind, 0};
                bitstack_options plain = {0};
                memset(&error, 0, sizeof error);
                bitstack_result result = tour(CALLBACK, &l, plain, good, &error);
                if (l.calls < n) {
                    CHECK(result == BITSTACK_OK, "no lie, but: %s", error.message);
                    break;
                }
                lies++;
                CHECK(result != BITSTACK_OK && error.code == result, "kind %d at read %d, of the bytes from %llu on, is believed", kind, n,
                      (unsigned long long)l.lied);
                for (int i = 0; i < bitstack_block_count(good); i++) {
                    bitstack_get_block(good, i, &block);
                    if (l.lied < block.offset || l.lied >= block.offset + block.bytes) continue;
                    const char name[] = {'m', 'a', 't', 'r', 'i', 'x', ' ', '\'', (char)('a' + (int)block.matrix), 0};
                    CHECK(strstr(error.message, name) && result == (kind ? BITSTACK_ERROR_CHECKSUM : BITSTACK_ERROR_IO), "no %s: %s", name,
                          error.message);
                }
            }
        CHECK(lies > 150, "%d reads", lies);
        printf("      %d reads failed or lied on the way through all sizes\n", lies);

        TEST("whatever allocation fails on that way: the same, and the allocator gets back what it gave, by its size");
        for (int from = MEMORY; from <= CALLBACK; from++) {
            long n = 1, told = 0;
            CHECK(in_child(0, 0, 0, RLIM_INFINITY) == 0, "write");
            for (int reached = 1; reached && test_bad_ <= 5; n++) {
                liar l = {data, bytes, 0, 0, 0, 0};
                sized_heap heap = {0, 0, n, 0};
                bitstack_options own = {0};
                own.allocator = sized(&heap);
                memset(&error, 0, sizeof error);
                bitstack_result result = tour(from, &l, own, good, &error);
                reached = heap.calls >= n;
                CHECK(heap.used == 0 && heap.wrong == 0, "allocation %ld: %ld bytes kept, %ld given back wrongly", n, heap.used,
                      heap.wrong);
                CHECK(result == BITSTACK_OK || (reached && result == BITSTACK_ERROR_MEMORY), "allocation %ld: %s", n, error.message);
                told += result != BITSTACK_OK; /* not all: shrinking tries again with what was let go meanwhile */
            }
            CHECK(told > (from == MEMORY ? 0 : 40), "%ld of %ld allocations are missed", told, n);
        }
        bitstack_close(good);
        free(data);
    }
    remove(path);
    remove(other);
    remove("build/tests/faults.bitstack.part");
    remove("build/tests/faults.bitstack.spool");
    return TEST_DONE();
}
