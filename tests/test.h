/* test.h - the few lines that every test program shares. A program is one promise (its file name), a
 * TEST is one sentence of it. tests/run.sh runs the programs and adds up. */
#ifndef BITSTACK_TEST_H
#define BITSTACK_TEST_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_TSAN 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define TEST_TSAN 1
#endif
#ifndef TEST_TSAN
#define TEST_TSAN 0 /* built with ThreadSanitizer? */
#endif

static int test_passed_, test_failed_, test_skipped_, test_bad_, test_skip_;
static const char *test_name_;

static inline void test_end_(void) {
    if (!test_name_) return;
    if (test_skip_) test_skipped_++;
    else if (test_bad_) test_failed_++;
    else {
        test_passed_++;
        printf("ok    %s\n", test_name_);
    }
    test_name_ = NULL;
}

/* Starts the next sentence; what follows up to the next TEST or TEST_DONE belongs to it. */
#define TEST(text) (test_end_(), test_name_ = (text), test_bad_ = 0, test_skip_ = 0)

/* A claim; on failure prints where, what, and a printf-style explanation with the figures. */
#define CHECK(condition, ...)                                                                       \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            if (test_bad_++ < 5) {                                                                  \
                printf("FAIL  %s\n      %s:%d: %s: ", test_name_, __FILE__, __LINE__, #condition); \
                printf(__VA_ARGS__);                                                                \
                printf("\n");                                                                       \
            }                                                                                       \
        }                                                                                           \
    } while (0)

/* Whether text holds nothing but lines that say how far a run is: where a machine is slow, they come. */
static inline int test_only_progress(const char *text) {
    while (*text) {
        int end = 0;
        sscanf(text, "bitstack: %*[a-z]: %*d %%%n", &end);
        if (!end && strncmp(text, "{\"phase\": \"", 11) != 0) return 0;
        text += strcspn(text, "\n"), text += *text == '\n';
    }
    return 1;
}

/* Leaves this sentence out, saying why. */
#define SKIP(...)                                 \
    do {                                          \
        test_skip_ = 1;                           \
        printf("skip  %s: ", test_name_);         \
        printf(__VA_ARGS__);                      \
        printf("\n");                             \
    } while (0)

/* Last statement of main. */
#define TEST_DONE()                                                                   \
    (test_end_(), printf("## %d %d %d\n", test_passed_, test_failed_, test_skipped_), \
     test_failed_ ? 1 : 0)

/* Everything (make test-full), or what fits in `make test`? Lines of six spaces and a number are figures: tests/table.sh
 * takes those of a full run into tests/README.md. */
/* Under an emulator: what takes long and shows the same at a smaller size may be smaller. */
static inline int test_brief(void) { return getenv("BITSTACK_BRIEF") != NULL; }
static inline int test_full(void) {
    const char *full = getenv("BITSTACK_FULL");
    return full && *full && *full != '0';
}

/* A seeded generator (splitmix64) so that every run sees the same numbers. */
static inline uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline double test_uniform(uint64_t *state) { return (double)(test_random(state) >> 11) / 9007199254740992.0; }
static inline float test_normal(uint64_t *state) {
    double u = test_uniform(state) + 1e-300, v = test_uniform(state);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* Elements of `size` bytes from native order to little-endian, as files have them, or back. */
static inline void test_little(void *data, size_t bytes, size_t size) {
    const uint16_t one = 1;
    unsigned char *at = (unsigned char *)data;
    if (*(const unsigned char *)&one == 1) return;
    for (size_t i = 0; i + size <= bytes; i += size)
        for (size_t b = 0; b < size / 2; b++) {
            unsigned char swap = at[i + b];
            at[i + b] = at[i + size - 1 - b], at[i + size - 1 - b] = swap;
        }
}
static inline uint64_t test_load64(const void *from) {
    uint64_t value;
    memcpy(&value, from, 8);
    test_little(&value, 8, 8);
    return value;
}
static inline void test_store64(void *to, uint64_t value) {
    test_little(&value, 8, 8);
    memcpy(to, &value, 8);
}

/* A whole file, or NULL. Free it. */
static inline void *test_read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fseek(file, 0, SEEK_SET);
    char *data = (char *)malloc((size_t)size + 1);
    if (fread(data, 1, (size_t)size, file) != (size_t)size) {
        free(data);
        data = NULL;
    } else data[size] = 0;
    fclose(file);
    *bytes = (size_t)size;
    return data;
}

/* ../shared/NAME relative to the project's root; BITSTACK_SHARED overrides. */
static inline const char *test_shared(const char *name) {
    static char path[8][512];
    static int slot;
    const char *root = getenv("BITSTACK_SHARED");
    slot = (slot + 1) % 8;
    snprintf(path[slot], sizeof path[slot], "%s/%s", root ? root : "../shared", name);
    return path[slot];
}
#endif
