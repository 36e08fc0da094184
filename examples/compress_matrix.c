/* compress_matrix.c - compress a matrix held in memory, write it, open it at several budgets.
 *     build/compress_matrix w.bitstack */
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 512, COLS = 1024 };

static int failed(bitstack_result result, const char *what) {
    fprintf(stderr, "%s: %s\n", what, bitstack_result_string(result));
    return 1;
}

static float random_unit(void) { return (float)rand() / (float)RAND_MAX; }

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "w.bitstack";
    float *w = malloc(ROWS * COLS * sizeof *w), *back = malloc(ROWS * COLS * sizeof *back);
    if (!w || !back) return 1;
    for (int i = 0; i < ROWS * COLS; i++) /* near enough to what a trained matrix looks like */
        w[i] = random_unit() + random_unit() - random_unit() - random_unit();

    bitstack_coded coded;
    bitstack_writer *writer;
    bitstack_result result = bitstack_encode_matrix(&coded, w, ROWS, COLS, COLS, NULL, NULL);
    if (result != BITSTACK_OK) return failed(result, "encoding");
    result = bitstack_writer_open(&writer, path, NULL, NULL);
    if (result != BITSTACK_OK) return failed(result, path);
    result = bitstack_writer_matrix(writer, "w", &coded, 1); /* metadata and more matrices go here too */
    bitstack_coded_free(&coded);
    if (result != BITSTACK_OK) return bitstack_writer_abort(writer), failed(result, path);
    result = bitstack_writer_finish(writer, NULL, 0, NULL);
    if (result != BITSTACK_OK) return failed(result, path);

    bitstack *stack;
    if ((result = bitstack_open_file(&stack, path, NULL, NULL)) != BITSTACK_OK) return failed(result, path);
    for (int level = 1; level <= bitstack_block_count(stack); level++) {
        bitstack_block block;
        bitstack_get_block(stack, level - 1, &block);
        bitstack_set_budget(stack, block.resident_after, NULL); /* any number of bytes would do */
        bitstack_dequantize(stack, 0, back, COLS);
        double difference = 0, norm = 0;
        for (int i = 0; i < ROWS * COLS; i++) {
            difference += ((double)w[i] - (double)back[i]) * ((double)w[i] - (double)back[i]);
            norm += (double)w[i] * (double)w[i];
        }
        printf("%7llu bytes, %.2f bits a weight: relative squared error %.4f\n",
               (unsigned long long)bitstack_resident_bytes(stack),
               8 * (double)bitstack_resident_bytes(stack) / (ROWS * COLS), difference / norm);
    }
    bitstack_close(stack);
    free(w);
    free(back);
    return 0;
}
