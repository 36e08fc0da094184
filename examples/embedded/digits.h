/* digits.h - the task: tell ten handwritten-looking digits apart. Images are drawn from integers only, so
 * that the board and the host see the same ones. */
#ifndef DIGITS_H
#define DIGITS_H

#include <stdint.h>

enum { DIGITS_SIDE = 12, DIGITS_PIXELS = DIGITS_SIDE * DIGITS_SIDE, DIGITS_HIDDEN = 96, DIGITS_CLASSES = 10 };

static inline uint32_t digits_random(uint32_t *state) { /* xorshift32, Marsaglia 2003 */
    *state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5;
    return *state;
}

/* One image, values in [-1, 2) in steps of 1/64: a 5 x 7 glyph at a random place, slanted, its strokes of
 * uneven strength, under noise. Returns which digit. */
static inline int digits_draw(uint32_t *state, float image[DIGITS_PIXELS]) {
    static const unsigned char glyphs[DIGITS_CLASSES][7] = {
        {14, 17, 19, 21, 25, 17, 14}, {4, 12, 4, 4, 4, 4, 14},    {14, 17, 1, 2, 4, 8, 31},  {31, 2, 4, 2, 1, 17, 14},
        {2, 6, 10, 18, 31, 2, 2},     {31, 16, 30, 1, 1, 17, 14}, {6, 8, 16, 30, 17, 17, 14}, {31, 1, 2, 4, 8, 8, 8},
        {14, 17, 17, 14, 17, 17, 14}, {14, 17, 17, 15, 1, 2, 12}};
    const int digit = (int)(digits_random(state) % DIGITS_CLASSES), slant = (int)(digits_random(state) % 3) - 1;
    const int top = 2 + (int)(digits_random(state) % 2), left = 3 + (int)(digits_random(state) % 2);
    for (int i = 0; i < DIGITS_PIXELS; i++) {
        const int y = i / DIGITS_SIDE - top, x = i % DIGITS_SIDE - left - slant * (3 - y) / 3;
        const int ink = y >= 0 && y < 7 && x >= 0 && x < 5 && (glyphs[digit][y] >> (4 - x) & 1);
        const int strength = (int)(digits_random(state) % 64), noise = (int)(digits_random(state) % 96) - 48;
        image[i] = (float)((ink ? 32 + strength : 0) + noise) / 64.0f;
    }
    return digit;
}
#endif
