/* The paper's order is the authors' code's, and the predicted one is the best a greedy choice can do. */
#include "stack_builder.h"

static uint64_t seed = 17;

enum { LAYERS = 14, LEVELS = 4 };
static char layer_name[LAYERS][64];

/* Reads the "layer"/"ppl" pairs of reduced_ppl_average.json in order; NaN and Infinity are bare words there. */
static int read_losses(const char *file, double *loss) {
    size_t bytes;
    char *json = (char *)test_read_file(test_shared(file), &bytes), *at = json;
    int count = 0;
    for (; json && (at = strstr(at, "\"layer\": \"")) != NULL && count < LAYERS * (LEVELS - 1); count++) {
        at += strlen("\"layer\": \"");
        if (count < LAYERS) snprintf(layer_name[count], sizeof layer_name[count], "%.*s", (int)strcspn(at, "\""), at);
        at = strstr(at, "\"ppl\": ");
        if (!at) break;
        at += strlen("\"ppl\": ");
        loss[count] = strncmp(at, "NaN", 3) ? strtod(at, NULL) : NAN;
    }
    free(json);
    return count == LAYERS * (LEVELS - 1);
}

static void against(const char *losses, const char *sorted, int nan_behind) {
    double loss[LAYERS * (LEVELS - 1)];
    uint32_t levels[LAYERS];
    bitstack_order_entry out[LAYERS * LEVELS];
    size_t bytes;
    char *expected = (char *)test_read_file(test_shared(sorted), &bytes), *line, *lines[LAYERS * LEVELS];
    int count = 0;
    if (!expected || !read_losses(losses, loss)) {
        SKIP("no %s", test_shared(losses));
        free(expected);
        return;
    }
    for (int i = 0; i < LAYERS; i++) levels[i] = LEVELS;
    CHECK(bitstack_order_paper_sort(levels, LAYERS, loss, out) == BITSTACK_OK, "sort");
    for (line = strtok(expected, "\r\n"); line && count < LAYERS * (LEVELS - 1); line = strtok(NULL, "\r\n")) lines[count++] = line;
    CHECK(count == LAYERS * (LEVELS - 1), "%d lines", count);
    if (nan_behind) { /* their code puts this many NaN layers in front of the first level: they belong behind */
        char *front[LAYERS];
        memcpy(front, lines, (size_t)nan_behind * sizeof *front);
        memmove(lines, lines + nan_behind, (size_t)(LAYERS - nan_behind) * sizeof *lines);
        memcpy(lines + LAYERS - nan_behind, front, (size_t)nan_behind * sizeof *front);
    }
    for (int i = 0; i < LAYERS; i++) CHECK(out[i].matrix == (uint32_t)i && out[i].level == 1, "level 1 in matrix order");
    for (int i = 0; i < count; i++) {
        bitstack_order_entry e = out[LAYERS + i];
        CHECK(!strcmp(lines[i], layer_name[e.matrix]), "entry %d: %s, theirs %s", i, layer_name[e.matrix], lines[i]);
        CHECK(e.level == 2 + (uint32_t)(i / LAYERS), "entry %d: level %u", i, e.level);
    }
    free(expected);
}

typedef struct {
    const uint32_t *levels;
    int calls, stop_at;
} counted;

static int loss_callback(void *user, const uint32_t *levels, uint32_t matrices, double *loss) {
    counted *c = (counted *)user;
    uint32_t least = 99, most = 0;
    if (++c->calls == c->stop_at) return 1;
    *loss = 0;
    for (uint32_t i = 0; i < matrices; i++) {
        if (levels[i] < c->levels[i] && levels[i] < least) least = levels[i];
        if (levels[i] > most) most = levels[i];
        *loss += 1.0 / (levels[i] + 1.0) * (1 + (i * 7) % 5);
        CHECK(levels[i] >= 1 && levels[i] <= c->levels[i], "matrix %u at level %u", i, levels[i]);
    }
    CHECK(most <= least + 1 || least == 99, "levels %u to %u", least, most);
    return 0;
}

/* Nonzero if out holds every block once, each matrix's levels ascending. */
static int complete(const bitstack_order_entry *out, size_t count, const uint32_t *levels, uint32_t matrices) {
    uint32_t done[64] = {0};
    for (size_t i = 0; i < count; i++)
        if (out[i].matrix >= matrices || out[i].level != ++done[out[i].matrix]) return 0;
    for (uint32_t i = 0; i < matrices; i++)
        if (done[i] != levels[i]) return 0;
    return 1;
}

int main(void) {
    TEST("the authors' sort, with an exact tie");
    against("oracle/checkpoint/reduced_ppl_average.json", "oracle/checkpoint/sorted_order.txt", 0);
    TEST("the authors' sort with NaN losses");
    against("oracle/checkpoint/nan_cases/reduced_ppl_nan_not_first.json", "oracle/checkpoint/nan_cases/sorted_order_nan_not_first.txt", 0);
    TEST("where a NaN comes first it sorts behind too, which the authors' code means but does not do");
    against("oracle/checkpoint/nan_cases/reduced_ppl_nan_first.json", "oracle/checkpoint/nan_cases/sorted_order_nan_first.txt", 2);

    TEST("NaN and infinity: behind the others, by their next level, in every level");
    {
        const uint32_t levels[5] = {3, 3, 3, 2, 1};
        const double loss[2 * 5] = {NAN, 5, NAN, INFINITY, NAN /* unused: one level only */, 9, NAN, 7, NAN, NAN};
        const uint32_t want[12][2] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {3, 2}, {0, 2}, {2, 2}, {2, 3}, {0, 3}, {1, 3}};
        bitstack_order_entry out[12];
        CHECK(bitstack_order_paper_sort(levels, 5, loss, out) == BITSTACK_OK, "sort");
        for (int i = 0; i < 12; i++)
            CHECK(out[i].matrix == want[i][0] && out[i].level == want[i][1], "entry %d: %u.%u", i, out[i].matrix, out[i].level);
    }

    TEST("the paper's order asks for each block of level 2 and up once, the others level with it");
    {
        const uint32_t levels[5] = {4, 2, 1, 4, 3};
        bitstack_order_entry out[14];
        counted c = {levels, 0, 0};
        CHECK(bitstack_order_paper(levels, 5, loss_callback, &c, out) == BITSTACK_OK, "order");
        CHECK(c.calls == 9 && complete(out, 14, levels, 5), "%d calls", c.calls);
        for (int i = 1; i < 14; i++) CHECK(out[i].level >= out[i - 1].level, "levels mix");
        c.calls = 0, c.stop_at = 4;
        CHECK(bitstack_order_paper(levels, 5, loss_callback, &c, out) == BITSTACK_ERROR_CANCELLED && c.calls == 4, "cancel");
        CHECK(bitstack_order_paper(levels, 5, NULL, &c, out) == BITSTACK_ERROR_ARGUMENT, "no callback");
    }

    TEST("predicted: complete, slopes never rise, and chords are taken together");
    for (int round = 0; round < 200; round++) {
        enum { MOST = 12 };
        uint32_t matrices = 1 + (uint32_t)(test_random(&seed) % MOST), levels[MOST];
        double loss[MOST][6];
        uint64_t bytes[MOST][6];
        const double *loss_at[MOST];
        const uint64_t *bytes_at[MOST];
        bitstack_order_entry out[MOST * 5];
        size_t count = 0;
        for (uint32_t i = 0; i < matrices; i++) {
            count += levels[i] = (uint32_t)(test_random(&seed) % 6);
            loss[i][0] = 1, bytes[i][0] = 0;
            for (uint32_t l = 1; l <= levels[i]; l++) {
                loss[i][l] = round % 3 ? loss[i][l - 1] * test_uniform(&seed) : (double)(test_random(&seed) % 4);
                bytes[i][l] = bytes[i][l - 1] + 1 + test_random(&seed) % 100;
            }
            loss_at[i] = loss[i], bytes_at[i] = bytes[i];
        }
        CHECK(bitstack_order_predicted(levels, matrices, loss_at, bytes_at, out) == BITSTACK_OK, "order");
        CHECK(complete(out, count, levels, matrices), "not a permutation");
        for (size_t i = 1; i < count; i++) CHECK(out[i].score <= out[i - 1].score, "slope rises at %d", (int)i);
        /* at the end of every chord no other choice of levels with as few bytes has less loss: convex hulls */
        uint32_t now[MOST] = {0};
        for (size_t i = 0; i < count; i++) {
            now[out[i].matrix] = out[i].level;
            if (i + 1 < count && out[i + 1].matrix == out[i].matrix) continue;
            double lambda = (double)out[i].score, total = 0, best = 0;
            for (uint32_t m = 0; m < matrices; m++) { /* Lagrangian: each matrix on its own minimises loss + lambda bytes */
                double least = 1e300;
                for (uint32_t l = 0; l <= levels[m]; l++) least = fmin(least, loss[m][l] + lambda * (double)bytes[m][l]);
                best += least, total += loss[m][now[m]] + lambda * (double)bytes[m][now[m]];
            }
            CHECK(total <= best + 1e-5 * (1 + fabs(lambda) * 2000), "round %d after %d: %g, could be %g", round, (int)i, total, best);
        }
    }

    TEST("predicted: a flat first step is bridged; ties keep matrix order");
    {
        const uint32_t levels[3] = {2, 2, 2};
        const double loss[3][3] = {{10, 10, 0}, {10, 4, 3}, {10, 4, 3}};
        const uint64_t bytes[3] = {0, 10, 20};
        const double *const loss_at[3] = {loss[0], loss[1], loss[2]};
        const uint64_t *const bytes_at[3] = {bytes, bytes, bytes};
        const uint32_t want[6][2] = {{1, 1}, {2, 1}, {0, 1}, {0, 2}, {1, 2}, {2, 2}};
        bitstack_order_entry out[6];
        CHECK(bitstack_order_predicted(levels, 3, loss_at, bytes_at, out) == BITSTACK_OK, "order");
        for (int i = 0; i < 6; i++)
            CHECK(out[i].matrix == want[i][0] && out[i].level == want[i][1], "entry %d: %u.%u", i, out[i].matrix, out[i].level);
        CHECK(out[2].score == 0.5f && out[3].score == 0.5f, "%g", (double)out[2].score);
    }

    TEST("predicted: of equally steep chords the longer one is taken: a block that costs nothing more comes with the one before");
    {
        const uint32_t levels[2] = {2, 1};
        const double loss[2][3] = {{10, 0, 0}, {10, 5}};
        const uint64_t bytes[2][3] = {{0, 10, 10}, {0, 10}};
        const double *const loss_at[2] = {loss[0], loss[1]};
        const uint64_t *const bytes_at[2] = {bytes[0], bytes[1]};
        const uint32_t want[3][2] = {{0, 1}, {0, 2}, {1, 1}};
        bitstack_order_entry out[3];
        CHECK(bitstack_order_predicted(levels, 2, loss_at, bytes_at, out) == BITSTACK_OK, "order");
        for (int i = 0; i < 3; i++)
            CHECK(out[i].matrix == want[i][0] && out[i].level == want[i][1], "entry %d: %u.%u", i, out[i].matrix, out[i].level);
        CHECK(out[1].score == 1 && out[2].score == 0.5f, "%g, %g", (double)out[1].score, (double)out[2].score);
    }

    TEST("predicted, by the writer: error of the outputs times sensitivity, not error of the weights");
    for (int loud = 0; loud < 3; loud++) { /* the outputs say: b first; a counts a hundred times as much; b does */
        static const char *const path = "build/tests/order.bitstack";
        const bitstack_shape shape = build_shape(64, 64, 2, 1, 0);
        bitstack_coded coded[2] = {build_coded(&shape, 1), build_coded(&shape, 2)};
        bitstack_writer *writer;
        bitstack_error error;
        bitstack *stack;
        bitstack_block block;
        CHECK(bitstack_writer_open(&writer, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
        for (int i = 0; i < 2; i++) {
            for (uint32_t l = 1; l <= 2; l++) coded[i].rel_err2[l] = pow(i ? 0.7 : 0.1, l), coded[i].out_err2[l] = pow(i ? 0.1 : 0.7, l);
            CHECK(bitstack_writer_matrix(writer, i ? "b" : "a", &coded[i], loud == i + 1 ? 100 : 1) == BITSTACK_OK, "matrix");
            build_free(&coded[i]);
        }
        CHECK(bitstack_writer_finish(writer, NULL, 0, &error) == BITSTACK_OK, "%s", error.message);
        if (bitstack_open_file(&stack, path, NULL, &error) != BITSTACK_OK) {
            CHECK(0, "%s", error.message);
            break;
        }
        static const uint32_t want[3][4][2] = {{{1, 1}, {0, 1}, {0, 2}, {1, 2}}, {{0, 1}, {0, 2}, {1, 1}, {1, 2}}, {{1, 1}, {1, 2}, {0, 1}, {0, 2}}};
        for (int i = 0; i < 4; i++) {
            bitstack_get_block(stack, i, &block);
            CHECK(block.matrix == want[loud][i][0] && block.level == want[loud][i][1], "case %d, block %d: %u.%u", loud, i, block.matrix,
                  block.level);
        }
        bitstack_close(stack);
        remove(path);
    }

    TEST("no matrices, matrices without blocks, bad arguments");
    {
        bitstack_order_entry out[40];
        const uint32_t none[2] = {0, 0}, many[1] = {33}, one[1] = {1};
        const double nan_loss[2] = {1, NAN}, *loss_at[1] = {nan_loss};
        const uint64_t bytes[2] = {0, 8}, *bytes_at[1] = {bytes};
        CHECK(bitstack_order_predicted(NULL, 0, NULL, NULL, NULL) == BITSTACK_OK, "empty");
        CHECK(bitstack_order_predicted(none, 2, NULL, NULL, out) == BITSTACK_OK, "no blocks");
        CHECK(bitstack_order_paper_sort(none, 2, NULL, out) == BITSTACK_OK, "no blocks");
        CHECK(bitstack_order_paper_sort(one, 1, NULL, out) == BITSTACK_OK && out[0].level == 1, "one level needs no losses");
        CHECK(bitstack_order_paper_sort(many, 1, nan_loss, out) == BITSTACK_ERROR_ARGUMENT, "33 levels");
        CHECK(bitstack_order_predicted(many, 1, loss_at, bytes_at, out) == BITSTACK_ERROR_ARGUMENT, "33 levels");
        CHECK(bitstack_order_predicted(one, 1, loss_at, bytes_at, out) == BITSTACK_ERROR_NUMERIC, "NaN");
        CHECK(bitstack_order_predicted(one, 1, NULL, bytes_at, out) == BITSTACK_ERROR_ARGUMENT, "NULL");
    }
    return TEST_DONE();
}
