/* train.c - runs on the host while the firmware is built: trains the small network and compresses it. `bitstack cut
 * --c-array` makes the stack a C array, which the linker puts into flash. Deterministic.
 *     train STACK */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "bitstack_compress.h"
#include "digits.h"

enum { LAYERS = 3, WIDEST = DIGITS_PIXELS, BATCH = 20, STEPS = 2000, CALIBRATION = 500 };
static const int sizes[LAYERS + 1] = {DIGITS_PIXELS, DIGITS_HIDDEN, DIGITS_HIDDEN, DIGITS_CLASSES};
static float *weight[LAYERS], *slope[LAYERS], *speed[LAYERS]; /* rows x (cols + 1): the last column is the bias */

/* value[0] is the image; value[LAYERS] the scores. */
static void forward(float value[LAYERS + 1][WIDEST]) {
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < sizes[l + 1]; i++) {
            const float *w = weight[l] + i * (sizes[l] + 1);
            float sum = w[sizes[l]];
            for (int j = 0; j < sizes[l]; j++) sum += w[j] * value[l][j];
            value[l + 1][i] = l + 1 < LAYERS && sum < 0 ? 0 : sum;
        }
}

/* Adds one example's gradient of the cross entropy to slope. */
static void backward(float value[LAYERS + 1][WIDEST], int digit) {
    float d[WIDEST], below[WIDEST], sum = 0, largest = value[LAYERS][0];
    for (int i = 1; i < DIGITS_CLASSES; i++) largest = fmaxf(largest, value[LAYERS][i]);
    for (int i = 0; i < DIGITS_CLASSES; i++) sum += d[i] = expf(value[LAYERS][i] - largest);
    for (int i = 0; i < DIGITS_CLASSES; i++) d[i] = d[i] / sum - (float)(i == digit);
    for (int l = LAYERS; l-- > 0;) {
        for (int j = 0; j < sizes[l]; j++) below[j] = 0;
        for (int i = 0; i < sizes[l + 1]; i++) {
            const float *w = weight[l] + i * (sizes[l] + 1);
            float *s = slope[l] + i * (sizes[l] + 1);
            for (int j = 0; j < sizes[l]; j++) s[j] += d[i] * value[l][j], below[j] += d[i] * w[j];
            s[sizes[l]] += d[i];
        }
        for (int j = 0; j < sizes[l]; j++) d[j] = value[l][j] > 0 ? below[j] : 0;
    }
}

static void train(void) {
    static float value[LAYERS + 1][WIDEST];
    uint32_t seed = 1;
    for (int l = 0; l < LAYERS; l++) {
        const int count = sizes[l + 1] * (sizes[l] + 1);
        weight[l] = (float *)malloc(3 * sizeof(float) * (size_t)count);
        if (!weight[l]) exit(1);
        slope[l] = weight[l] + count, speed[l] = slope[l] + count;
        for (int i = 0; i < count; i++) {
            weight[l][i] = ((float)(digits_random(&seed) % 2001) - 1000) / 1000 * sqrtf(6.0f / (float)(sizes[l] + sizes[l + 1]));
            speed[l][i] = 0;
        }
    }
    for (int step = 0; step < STEPS; step++) {
        const float rate = 0.1f * (float)(STEPS - step) / STEPS;
        for (int l = 0; l < LAYERS; l++)
            for (int i = 0; i < sizes[l + 1] * (sizes[l] + 1); i++) slope[l][i] = 0;
        for (int b = 0; b < BATCH; b++) {
            const int digit = digits_draw(&seed, value[0]);
            forward(value);
            backward(value, digit);
        }
        for (int l = 0; l < LAYERS; l++)
            for (int i = 0; i < sizes[l + 1] * (sizes[l] + 1); i++)
                weight[l][i] += speed[l][i] = 0.9f * speed[l][i] - rate * (slope[l][i] / BATCH + 1e-4f * weight[l][i]);
    }
}

/* On the images that main.c will see. */
static int right_of_100(void) {
    static float value[LAYERS + 1][WIDEST];
    uint32_t seed = 3;
    int right = 0;
    for (int n = 0; n < 100; n++) {
        const int digit = digits_draw(&seed, value[0]);
        int best = 0;
        forward(value);
        for (int i = 1; i < DIGITS_CLASSES; i++)
            if (value[LAYERS][i] > value[LAYERS][best]) best = i;
        right += best == digit;
    }
    return right;
}

/* Inputs of each layer on fresh images: what the compressor should be accurate on. */
static bitstack_result calibrate(bitstack_moments moments[LAYERS]) {
    static float value[LAYERS + 1][WIDEST];
    uint32_t seed = 2;
    for (int l = 0; l < LAYERS; l++) {
        bitstack_result result = bitstack_moments_init(&moments[l], (uint32_t)sizes[l], 1);
        if (result != BITSTACK_OK) return result;
    }
    for (int n = 0; n < CALIBRATION; n++) {
        digits_draw(&seed, value[0]);
        forward(value);
        for (int l = 0; l < LAYERS; l++) bitstack_moments_add(&moments[l], value[l], 1, (size_t)sizes[l]);
    }
    return BITSTACK_OK;
}

int main(int argc, char **argv) {
    static const char *const names[LAYERS][2] = {{"w1", "b1"}, {"w2", "b2"}, {"w3", "b3"}};
    bitstack_moments moments[LAYERS];
    bitstack_encode_options options = {0};
    bitstack_writer *writer;
    bitstack_error error = {BITSTACK_OK, 0, ""};
    if (argc != 2) return 2;
    train();
    options.levels = 5, options.method = BITSTACK_IABS, options.rank = 1;
    bitstack_result result = calibrate(moments);
    fprintf(stderr, "train: %d of 100 right at full precision\n", right_of_100());
    if (result == BITSTACK_OK) result = bitstack_writer_open(&writer, argv[1], NULL, &error);
    for (int l = 0; l < LAYERS && result == BITSTACK_OK; l++) {
        const uint64_t rows = (uint64_t)sizes[l + 1], cols = (uint64_t)sizes[l];
        bitstack_coded coded;
        float bias[DIGITS_HIDDEN];
        for (uint64_t i = 0; i < rows; i++) bias[i] = weight[l][i * (cols + 1) + cols];
        result = bitstack_writer_tensor(writer, names[l][1], BITSTACK_F32, 1, &rows, bias);
        if (result == BITSTACK_OK)
            result = bitstack_encode_matrix(&coded, weight[l], (uint32_t)rows, (uint32_t)cols, cols + 1, &moments[l], &options);
        if (result == BITSTACK_OK) {
            result = bitstack_writer_matrix(writer, names[l][0], &coded, 1);
            bitstack_coded_free(&coded);
        }
        bitstack_moments_free(&moments[l]);
        free(weight[l]);
    }
    if (result == BITSTACK_OK) result = bitstack_writer_finish(writer, NULL, 0, &error);
    if (result != BITSTACK_OK) {
        fprintf(stderr, "train: %s %s\n", bitstack_result_string(result), error.message);
        return 1;
    }
    return 0;
}
