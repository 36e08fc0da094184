/* iabs is the authors' decomposition: their error curves, sign bits and dense matrices. */
#include "../bitstack_compress.h"
#include "test.h"

/* Sign bit of element (i, j) of a plane, [FORMAT]. */
static int sign_bit(const unsigned char *plane, uint32_t cols, uint32_t i, uint32_t j) {
    size_t tile = (size_t)(i / 64) * ((cols + 3) / 4) * 32, byte = tile + (j / 4) * 32 + i % 32;
    return plane[byte] >> (j % 4 + (i % 64 >= 32 ? 4 : 0)) & 1;
}

static void curves(void) {
    size_t bytes, wbytes = 0;
    char *csv = (char *)test_read_file(test_shared("oracle/iabs_errors.csv"), &bytes);
    if (!csv) {
        SKIP("no %s", test_shared("oracle/iabs_errors.csv"));
        return;
    }
    char name[64] = "", current[64] = "";
    int rank, level, current_rank = 0, lines = 0;
    double expected, worst = 0;
    float *w = NULL;
    bitstack_coded coded;
    memset(&coded, 0, sizeof coded);
    for (char *line = strtok(csv, "\n"); line; line = strtok(NULL, "\n")) {
        if (sscanf(line, "%63[^,],%d,%d,%lf", name, &rank, &level, &expected) != 4) continue;
        if (strcmp(name, current) || rank != current_rank) {
            char file[128];
            snprintf(file, sizeof file, "weights/gpt2-%s.f32", name);
            free(w);
            w = (float *)test_read_file(test_shared(file), &wbytes);
            bitstack_coded_free(&coded);
            if (!w || wbytes != 768 * 768 * 4) {
                SKIP("no %s", test_shared(file));
                break;
            }
            bitstack_encode_options options = {.method = BITSTACK_IABS, .levels = 8, .rank = (uint32_t)rank};
            CHECK(bitstack_encode_matrix(&coded, w, 768, 768, 768, NULL, &options) == BITSTACK_OK, "%s k=%d", name, rank);
            CHECK((int)coded.shape.rank == rank && coded.shape.scale == 1.0f, "%s: rank %u, scale %g", name, coded.shape.rank,
                  (double)coded.shape.scale);
            strcpy(current, name), current_rank = rank;
            bitstack_plane planes[8];
            bitstack_view view;
            double rel, out;
            for (uint32_t l = 0; l <= 8; l += 4) { /* what the encoder says is what the stored bytes give */
                CHECK(bitstack_coded_view(&coded, l, planes, &view) == BITSTACK_OK, "view");
                CHECK(bitstack_measure_error(&view, w, 768, NULL, 2, &rel, &out) == BITSTACK_OK, "measure");
                CHECK(fabs(rel / coded.rel_err2[l] - 1) < 1e-4 && out == rel, "%s level %u: told %.9g, measured %.9g", name, l,
                      coded.rel_err2[l], rel);
            }
        }
        double off = coded.rel_err2[level] / expected - 1;
        worst = fmax(worst, fabs(off)), lines++;
        CHECK(fabs(off) < 0.005, "%s k=%d level %d: %.9g, the authors' %.9g (%+.3f %%)", name, rank, level,
              coded.rel_err2[level], expected, 100 * off);
    }
    if (lines) printf("      %d points, farthest %.4f %%\n", lines, 100 * worst);
    CHECK(test_skip_ || lines == 48, "%d lines", lines);
    bitstack_coded_free(&coded);
    free(w), free(csv);
}

static void small_oracle(void) {
    size_t bytes;
    float *w = (float *)test_read_file(test_shared("oracle/small/w_96x160.f32"), &bytes);
    if (!w) {
        SKIP("no %s", test_shared("oracle/small/w_96x160.f32"));
        return;
    }
    bitstack_encode_options options = {.method = BITSTACK_IABS, .levels = 4, .rank = 4};
    bitstack_coded coded;
    bitstack_plane planes[4];
    bitstack_view view;
    CHECK(bitstack_encode_matrix(&coded, w, 96, 160, 160, NULL, &options) == BITSTACK_OK, "encode");
    for (uint32_t block = 0; block < 4; block++) {
        char name[64];
        snprintf(name, sizeof name, "oracle/small/block%u_sign.u8", block);
        unsigned char *signs = (unsigned char *)test_read_file(test_shared(name), &bytes);
        snprintf(name, sizeof name, "oracle/small/recon_%u.f32", block + 1);
        float *dense = (float *)test_read_file(test_shared(name), &bytes), *ours = (float *)malloc(96 * 160 * 4);
        if (!signs || !dense) {
            SKIP("no %s", test_shared(name));
            break;
        }
        int flips = 0;
        CHECK(bitstack_coded_view(&coded, block + 1, planes, &view) == BITSTACK_OK, "view");
        for (uint32_t i = 0; i < 96; i++)
            for (uint32_t j = 0; j < 160; j++) {
                uint32_t at = i * 160 + j;
                flips += sign_bit(planes[block].signs, 160, i, j) != (signs[at / 8] >> (7 - at % 8) & 1);
            }
        CHECK(flips == 0, "block %u: %d sign bits differ", block, flips);
        CHECK(bitstack_view_dequantize(&view, 0, 96, ours, 160) == BITSTACK_OK, "dequantize");
        double worst = 0;
        for (int i = 0; i < 96 * 160; i++) worst = fmax(worst, fabs((double)ours[i] - (double)dense[i]));
        CHECK(worst < 1e-4, "%u blocks: dense matrices differ by %g", block + 1, worst);
        printf("      %u blocks: %d sign bits differ, dense within %.2g\n", block + 1, flips, worst);
        free(signs), free(dense), free(ours);
    }
    bitstack_coded_free(&coded);
    free(w);
}

/* The toy checkpoint's linears were decomposed with rank 4 by the authors' code. */
static void toy(void) {
    size_t bytes;
    unsigned short *half = (unsigned short *)test_read_file(test_shared("oracle/checkpoint/original/layer.0.mlp.up_proj.f16"), &bytes);
    float *dense = (float *)test_read_file(test_shared("oracle/checkpoint/expected_dense/layer.0.mlp.up_proj.f32"), &bytes);
    if (!half || !dense) {
        SKIP("no oracle/checkpoint");
        free(half), free(dense);
        return;
    }
    float *w = (float *)malloc(160 * 64 * 4), *ours = (float *)malloc(160 * 64 * 4);
    for (int i = 0; i < 160 * 64; i++) w[i] = bitstack_f16_to_f32(half[i]);
    bitstack_encode_options options = {.method = BITSTACK_IABS, .levels = 4, .rank = 4, .threads = 2};
    bitstack_coded coded;
    bitstack_plane planes[4];
    bitstack_view view;
    double best = 1;
    CHECK(bitstack_encode_matrix(&coded, w, 160, 64, 64, NULL, &options) == BITSTACK_OK, "encode");
    for (uint32_t level = 1; level <= 4; level++) { /* one of the levels is the checkpoint's */
        double worst = 0;
        bitstack_coded_view(&coded, level, planes, &view);
        bitstack_view_dequantize(&view, 0, 160, ours, 64);
        for (int i = 0; i < 160 * 64; i++) worst = fmax(worst, fabs((double)ours[i] - (double)dense[i]));
        best = fmin(best, worst);
    }
    CHECK(best < 1e-4, "nearest level is off by %g", best);
    bitstack_coded_free(&coded);
    free(half), free(dense), free(w), free(ours);
}

int main(void) {
    TEST("the authors' error curve within 0.5 % at every level, ranks 16 and 4");
    curves();
    TEST("the small oracle: every sign bit, and the dense matrix of every prefix");
    small_oracle();
    TEST("a layer of the toy checkpoint comes out the same");
    toy();
    return TEST_DONE();
}
