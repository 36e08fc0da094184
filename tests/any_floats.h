/* any_floats.h - floats from -1 to 1, the same ones in every run of a test. */
#ifndef BITSTACK_TEST_ANY_FLOATS_H
#define BITSTACK_TEST_ANY_FLOATS_H

#include <stdint.h>
#include <stdlib.h>

static uint32_t seed = 1;
static float number(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 8388608.0f - 1;
}

static float *numbers(size_t count) {
    float *to = (float *)malloc((count + 1) * sizeof *to);
    for (size_t i = 0; i < count; i++) to[i] = number();
    return to;
}

#endif
