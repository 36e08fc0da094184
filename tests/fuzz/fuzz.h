/* fuzz.h - what the fuzz targets share. A target is LLVMFuzzerTestOneInput: libFuzzer, AFL++ (afl-clang-fast
 * -fsanitize=fuzzer) and replay.c drive the same function. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the input is. */
#define MUST(condition)                                                                         \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: this must hold: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

/* Takes numbers off the front of the input; zeros when it is used up. */
typedef struct fuzz_input {
    const uint8_t *data;
    size_t left;
} fuzz_input;
static inline uint64_t fuzz_take(fuzz_input *in, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && in->left; i++, in->left--) value |= (uint64_t)*in->data++ << 8 * i;
    return value;
}

static inline uint64_t fuzz_load(const unsigned char *at, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value |= (uint64_t)at[i] << 8 * i;
    return value;
}
static inline void fuzz_store(unsigned char *at, size_t bytes, uint64_t value) {
    for (size_t i = 0; i < bytes; i++) at[i] = (unsigned char)(value >> 8 * i);
}
#endif
