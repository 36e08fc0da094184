/* The product agrees with double precision within the bound that the header documents, on every ISA,
 * for every shape, and bit for bit between ISAs and however rows are shared out. */
#include "bitstack.h"
#include "tables.h"

enum { LEVELS = 5 };

/* A view over memory of its own, deliberately off alignment. */
typedef struct {
    bitstack_view view;
    bitstack_plane planes[LEVELS];
    unsigned char *signs[LEVELS], *u[LEVELS], *v[LEVELS];
    int own;
} problem;

static unsigned char *factors(uint64_t *seed, size_t count, bitstack_type type, int positive, size_t shift) {
    unsigned char *to = (unsigned char *)malloc(count * 4 + 8) + shift;
    for (size_t i = 0; i < count; i++) {
        float value = test_normal(seed);
        if (positive) value = fabsf(value) + 0.1f;
        if (type == BITSTACK_F16) {
            uint16_t half = bitstack_f32_to_f16(value);
            memcpy(to + 2 * i, &half, 2);
        } else memcpy(to + 4 * i, &value, 4);
    }
    test_little(to, count * (type == BITSTACK_F16 ? 2 : 4), type == BITSTACK_F16 ? 2 : 4);
    return to;
}

static size_t groups_of(const bitstack_view *view) {
    return view->group_cols ? (view->cols + view->group_cols - 1) / view->group_cols : 1;
}

static void make(problem *out, uint64_t *seed, uint32_t rows, uint32_t cols, uint32_t rank, uint32_t level,
                 uint32_t group_cols, bitstack_type type, int own) {
    size_t tiles = (rows + 63) / 64, groups = (cols + 3) / 4, bytes = tiles * groups * 32;
    memset(out, 0, sizeof *out);
    bitstack_view view = {rows, cols, rank, group_cols, level, type, 0.25f, NULL, BITSTACK_PLANES, 0};
    out->view = view;
    out->view.planes = out->planes;
    out->own = own;
    for (uint32_t p = 0; p < level; p++) {
        out->signs[p] = (unsigned char *)calloc(bytes + 8, 1) + p % 4;
        for (uint32_t i = 0; i < rows; i++)
            for (uint32_t j = 0; j < cols; j++)
                if (test_random(seed) & 1)
                    out->signs[p][((size_t)(i / 64) * groups + j / 4) * 32 + i % 32] |=
                        (unsigned char)(1u << (j % 4 + (i % 64 < 32 ? 0 : 4)));
        out->u[p] = factors(seed, groups_of(&view) * rank * rows, type, 0, 1 + p % 3);
        out->v[p] = own || p == 0 ? factors(seed, (size_t)rank * cols, type, 1, 3) : out->v[0];
        out->planes[p].signs = out->signs[p];
        out->planes[p].coefficients = out->u[p];
        out->planes[p].columns = out->v[p];
    }
}

static void drop(problem *it) {
    for (uint32_t p = 0; p < it->view.level; p++) {
        free(it->signs[p] - p % 4);
        free(it->u[p] - (1 + p % 3));
        if (it->own || p == 0) free(it->v[p] - 3);
    }
}

static double factor(const bitstack_view *view, const void *from, size_t i) {
    float value;
    uint16_t half;
    if (view->factor_type == BITSTACK_F16) {
        memcpy(&half, (const char *)from + 2 * i, 2);
        test_little(&half, 2, 2);
        return (double)bitstack_f16_to_f32(half);
    }
    memcpy(&value, (const char *)from + 4 * i, 4);
    test_little(&value, 4, 4);
    return (double)value;
}

static double sign_of(const bitstack_view *view, uint32_t p, uint32_t i, uint32_t j) {
    const unsigned char *byte = view->planes[p].signs + ((size_t)(i / 64) * ((view->cols + 3) / 4) + j / 4) * 32 + i % 32;
    return *byte >> (j % 4 + (i % 64 < 32 ? 0 : 4)) & 1 ? 1 : -1;
}

static double coefficient(const bitstack_view *view, uint32_t p, uint32_t r, uint32_t i, uint32_t j) {
    size_t group = view->group_cols ? j / view->group_cols : 0;
    return factor(view, view->planes[p].coefficients, (group * view->rank + r) * view->rows + i);
}

/* The product in double precision and the three terms of the bound: FAST's and EXACT's sums over scale
 * blocks, and the sum of magnitudes. */
static void reference(const bitstack_view *view, const float *x, double *y, double *fast, double *exact, double *sum) {
    for (uint32_t i = 0; i < view->rows; i++) y[i] = fast[i] = exact[i] = sum[i] = 0;
    for (uint32_t p = 0; p < view->level; p++)
        for (uint32_t r = 0; r < view->rank; r++) {
            uint32_t next;
            for (uint32_t from = 0; from < view->cols; from = next) {
                double z[256], most = 0, all = 0;
                uint32_t span = view->group_cols ? view->group_cols - from % view->group_cols : 256;
                if (span > 256) span = 256;
                next = view->cols - from < span ? view->cols : from + span;
                for (uint32_t j = from; j < next; j++)
                    z[j - from] = factor(view, view->planes[p].columns, (size_t)r * view->cols + j) * (double)x[j];
                for (uint32_t j = from; j < next; j += 4) {
                    double group = 0;
                    for (uint32_t k = j; k < next && k < j + 4; k++) group += fabs(z[k - from]);
                    if (group > most) most = group;
                    all += group;
                }
                for (uint32_t i = 0; i < view->rows; i++) {
                    double u = coefficient(view, p, r, i, from) * (double)view->scale, part = 0;
                    double blocks = fabs(u) * (double)((next - from + 3) / 4) * most;
                    for (uint32_t j = from; j < next; j++) part += sign_of(view, p, i, j) * z[j - from];
                    y[i] += u * part;
                    fast[i] += blocks * 0.51 / 127;
                    exact[i] += blocks * 2.1 / 32512;
                    sum[i] += fabs(u) * all;
                }
            }
        }
}

/* y between sentinels, at an odd address. */
typedef struct {
    unsigned char *memory;
    float *y;
    size_t bytes;
} fenced;
static fenced fence(size_t count, size_t shift) {
    fenced it = {(unsigned char *)malloc(count * 4 + 64), NULL, count * 4};
    memset(it.memory, 0xA5, count * 4 + 64);
    it.y = (float *)(void *)(it.memory + 28 + shift);
    return it;
}
static int intact(const fenced *it, size_t shift) {
    for (size_t i = 0; i < it->bytes + 64; i++)
        if ((i < 28 + shift || i >= 28 + shift + it->bytes) && it->memory[i] != 0xA5) return 0;
    return 1;
}

static const bitstack_precision precisions[3] = {BITSTACK_FAST, BITSTACK_EXACT, BITSTACK_REFERENCE};
static const char *const precision_names[3] = {"fast", "exact", "reference"};

/* Everything about one problem; returns the largest error as a share of the bound, over FAST. `own`: told on failure. */
static double check_view(const bitstack_view *view, int own, uint64_t *seed) {
    uint32_t rows = view->rows, cols = view->cols;
    unsigned char *x_memory = (unsigned char *)malloc((size_t)cols * 4 + 8);
    float *x_odd = (float *)(void *)(x_memory + 1), *x = (float *)malloc((size_t)cols * 4 + 4), *first = (float *)malloc((size_t)rows * 4 + 4);
    double *terms = (double *)malloc((size_t)rows * 4 * sizeof *terms), worst = 0;
    for (uint32_t j = 0; j < cols; j++) x[j] = test_normal(seed) * (test_random(seed) % 40 ? 1.0f : 30.0f);
    memcpy(x_memory + 1, x, (size_t)cols * 4);
    (view->encoding == BITSTACK_TABLES ? tables_reference : reference)(view, x, terms, terms + rows, terms + 2 * rows, terms + 3 * rows);
    /* roundings of y: each plane, rank and coefficient group (cut at 1024s of columns), then each 1024 */
    double spans = cols / 1024 + 1, roundings = 20 + ((double)groups_of(view) + 2 * spans) * view->rank * view->level;
    if (view->encoding == BITSTACK_TABLES) roundings = 20 + (double)groups_of(view);
    for (int k = 0; k < 3; k++) {
        int have = 0;
        for (int isa = 0; bitstack_isa_name(isa); isa++) {
            if (!bitstack_isa_available(isa)) continue;
            bitstack_set_isa(bitstack_isa_name(isa));
            fenced out = fence(rows, (size_t)(isa + k) % 4);
            CHECK(bitstack_view_gemv(view, precisions[k], x_odd, out.y, 0, rows) == BITSTACK_OK, "failed");
            CHECK(intact(&out, (size_t)(isa + k) % 4), "%s wrote outside y, %u x %u", bitstack_isa(), rows, cols);
            const unsigned char *y = out.memory + 28 + (size_t)(isa + k) % 4;
            for (uint32_t i = 0; i < rows; i++) {
                float value;
                memcpy(&value, y + 4 * i, 4);
                double bound = terms[(k == 2 ? 3u : 1u + (uint32_t)k) * rows + i] * (k == 2 ? 6e-8 : 1) + terms[3 * rows + i] * roundings * 6e-8;
                double error = fabs((double)value - terms[i]);
                if (k == 0 && bound > 0 && error / bound > worst) worst = error / bound;
                CHECK(error <= bound, "%s %s %u x %u rank %u level %u group %u own %d row %u: %g instead of %g, bound %g",
                      bitstack_isa(), precision_names[k], rows, cols, view->rank, view->level, view->group_cols, own, i,
                      (double)value, terms[i], bound);
            }
            if (have) CHECK(!memcmp(first, y, (size_t)rows * 4), "%s %s %u x %u rank %u level %u group %u own %d: other bits", bitstack_isa(), precision_names[k], rows, cols, view->rank, view->level, view->group_cols, own);
            else memcpy(first, y, (size_t)rows * 4);
            have = 1;
            /* any part of the rows has the same bits */
            for (int part = 0; part < 2; part++) {
                uint32_t begin = (uint32_t)(test_random(seed) % (rows + 1)), count = (uint32_t)(test_random(seed) % (rows - begin + 1));
                fenced some = fence(count, 2);
                CHECK(bitstack_view_gemv(view, precisions[k], x, some.y, begin, count) == BITSTACK_OK, "failed");
                CHECK(intact(&some, 2) && !memcmp(some.memory + 30, first + begin, (size_t)count * 4),
                      "%s %s %u x %u: rows %u + %u differ from the whole", bitstack_isa(), precision_names[k], rows, cols, begin, count);
                free(some.memory);
            }
            free(out.memory);
        }
    }
    free(x_memory), free(x), free(first), free(terms);
    return worst;
}
static double check_problem(const problem *it, uint64_t *seed) { return check_view(&it->view, it->own, seed); }

static void check_dequantize(const bitstack_view *view) {
    size_t stride = view->cols + 3, count = (size_t)view->rows * stride;
    float *first = (float *)calloc(count, 4), *again = (float *)calloc(count, 4);
    for (int isa = 0, have = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        CHECK(bitstack_view_dequantize(view, 0, view->rows, have ? again : first, stride) == BITSTACK_OK, "failed");
        if (have) CHECK(!memcmp(first, again, count * 4), "%s: other bits", bitstack_isa());
        have = 1;
    }
    for (uint32_t i = 0; i < view->rows; i++) {
        for (uint32_t j = 0; j < view->cols; j++) {
            double want = view->encoding == BITSTACK_TABLES ? tables_weight(view, i, j) : 0, size = 0;
            for (uint32_t p = 0; p < view->level && view->encoding != BITSTACK_TABLES; p++)
                for (uint32_t r = 0; r < view->rank; r++) {
                    double term = coefficient(view, p, r, i, j) * factor(view, view->planes[p].columns, (size_t)r * view->cols + j) * (double)view->scale;
                    want += sign_of(view, p, i, j) * term, size += fabs(term);
                }
            CHECK(fabs((double)first[i * stride + j] - want) <= fabs(want) * 6e-8 + size * 1e-15, "%u x %u at %u, %u: %.9g instead of %.17g",
                  view->rows, view->cols, i, j, (double)first[i * stride + j], want);
        }
        for (size_t j = view->cols; j < stride; j++) CHECK(first[i * stride + j] == 0, "wrote past a row");
    }
    if (view->rows > 1) { /* one row alone */
        CHECK(bitstack_view_dequantize(view, view->rows - 1, 1, again, view->cols) == BITSTACK_OK, "failed");
        CHECK(!memcmp(again, first + (view->rows - 1) * stride, (size_t)view->cols * 4), "a row alone has other bits");
    }
    free(first), free(again);
}

/* What is not finite or tiny. */
static void check_special(const bitstack_view *view) {
    float x[600], y[70];
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        for (int k = 0; k < 3; k++) {
            static const float odd[3] = {NAN, INFINITY, -INFINITY};
            for (int special = 0; special < 3; special++) {
                for (int j = 0; j < 600; j++) x[j] = 1;
                x[(special * 277 + 13) % 600] = odd[special];
                CHECK(bitstack_view_gemv(view, precisions[k], x, y, 0, 70) == BITSTACK_OK, "failed");
                for (int i = 0; i < 70; i++) CHECK(!isfinite(y[i]), "%s %s: %g from %g", bitstack_isa(), precision_names[k], (double)y[i], (double)odd[special]);
            }
            for (int j = 0; j < 600; j++) x[j] = 0;
            bitstack_view_gemv(view, precisions[k], x, y, 0, 70);
            for (int i = 0; i < 70; i++) CHECK(y[i] == 0, "%s: zeros give %g", bitstack_isa(), (double)y[i]);
            for (int j = 0; j < 600; j++) x[j] = 1e-40f;
            bitstack_view_gemv(view, precisions[k], x, y, 0, 70);
            for (int i = 0; i < 70; i++) CHECK(fabsf(y[i]) < 1e-27f, "%s: denormals give %g", bitstack_isa(), (double)y[i]);
        }
    }
}
static void check_arguments(uint64_t *seed) {
    problem it;
    float x[600] = {0}, y[70];
    make(&it, seed, 70, 600, 2, 2, 0, BITSTACK_F32, 0);
    check_special(&it.view);
    it.view.level = 0;
    y[0] = y[69] = 7;
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 0, 70) == BITSTACK_OK && y[0] == 0 && y[69] == 0, "level 0 gives %g", (double)y[0]);
    it.view.level = 2;
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 70, 0) == BITSTACK_OK, "no rows");
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 69, 2) == BITSTACK_ERROR_ARGUMENT, "rows past the end");
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 4000000000u, 1000000000u) == BITSTACK_ERROR_ARGUMENT, "a sum that wraps");
    it.view.group_cols = 100;
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 0, 70) == BITSTACK_ERROR_ARGUMENT, "a group of 100");
    it.view.group_cols = 0, it.view.encoding = (bitstack_encoding)3;
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 0, 70) == BITSTACK_ERROR_ARGUMENT, "an unknown encoding");
    it.view.encoding = (bitstack_encoding)0;
    CHECK(bitstack_view_gemv(&it.view, BITSTACK_FAST, x, y, 0, 70) == BITSTACK_OK, "no encoding is read as planes");
    drop(&it);
}
/* What a view of tables must not be; the parts that it points to included. */
static void check_tables_arguments(uint64_t *seed) {
    for (uint32_t level = 1; level <= 8; level++) {
        tables_view t;
        float x[600] = {0}, y[70], w[600];
        tables_make(&t, seed, 70, 600, level, 128, 0);
        check_special(&t.view);
        const bitstack_view good = t.view;
        unsigned char *column = t.memory[8] + 3;
        for (int k = 0; k < 9; k++) {
            t.view = good;
            if (k == 0) t.view.rank = 2;
            if (k == 1) t.view.group_cols = 0;
            if (k == 2) t.view.group_cols = 48;
            if (k == 3) t.view.group_cols = 1056;
            if (k == 4) t.view.level = 9;
            if (k == 5) t.view.scale = 3;
            if (k == 6) column[2] ^= 1; /* the unit */
            if (k == 7) column[9] ^= 1; /* a byte that is zero */
            if (k == 8) tables_store(column + 16 + 2, 0xFF80, 2); /* -128 */
            const bitstack_result want = k == 8 && level > 6 ? BITSTACK_OK : BITSTACK_ERROR_ARGUMENT;
            CHECK(bitstack_view_gemv(&t.view, BITSTACK_FAST, x, y, 0, 70) == want, "level %u, fault %d", level, k);
            CHECK(bitstack_view_dequantize(&t.view, 69, 1, w, 600) == want, "level %u, fault %d, a row", level, k);
            if (k == 6) column[2] ^= 1;
            if (k == 7) column[9] ^= 1;
        }
        t.view = good, t.view.level = 0, y[0] = w[599] = 7;
        CHECK(bitstack_view_gemv(&t.view, BITSTACK_FAST, x, y, 0, 70) == BITSTACK_OK && y[0] == 0, "level 0");
        CHECK(bitstack_view_dequantize(&t.view, 69, 1, w, 600) == BITSTACK_OK && w[599] == 0, "level 0, a row");
        tables_drop(&t);
    }
}

/* The same bits from every compiler and machine: inputs made with integers only, so that they are the
 * same everywhere. A change of the constant means results changed for every user. */
static uint64_t golden(bitstack_precision precision) {
    enum { ROWS = 150, COLS = 900, RANK = 2, LEVEL = 3 };
    static unsigned char signs[LEVEL][3 * 225 * 32];
    static float u[LEVEL][2 * RANK * ROWS], v[RANK * COLS], x[COLS], y[ROWS];
    uint64_t seed = 77;
    bitstack_plane planes[LEVEL];
    bitstack_view view = {ROWS, COLS, RANK, 512, LEVEL, BITSTACK_F32, 1, planes, BITSTACK_PLANES, 0};
    for (size_t p = 0; p < LEVEL; p++) {
        for (size_t i = 0; i < sizeof signs[0]; i++) signs[p][i] = (unsigned char)(test_random(&seed) >> 56);
        for (size_t i = 0; i < 2 * RANK * ROWS; i++) u[p][i] = (float)((int64_t)test_random(&seed) >> 40) * 0x1p-22f;
        planes[p].signs = signs[p], planes[p].columns = v, planes[p].coefficients = u[p];
    }
    for (size_t j = 0; j < RANK * COLS; j++) v[j] = (float)((int64_t)test_random(&seed) >> 40) * 0x1p-23f;
    for (size_t j = 0; j < COLS; j++) x[j] = (float)((int64_t)test_random(&seed) >> 40) * 0x1p-20f;
    test_little(u, sizeof u, 4), test_little(v, sizeof v, 4);
    if (bitstack_view_gemv(&view, precision, x, y, 0, ROWS) != BITSTACK_OK) return 0;
    test_little(y, sizeof y, 4);
    return bitstack_checksum(y, sizeof y);
}

static uint64_t golden_tables(uint32_t level, bitstack_precision precision) {
    enum { ROWS = 150, COLS = 900 };
    static float x[COLS], y[ROWS];
    uint64_t seed = 78 + level;
    tables_view t;
    tables_make(&t, &seed, ROWS, COLS, level, 128, 0);
    for (size_t j = 0; j < COLS; j++) x[j] = (float)((int64_t)test_random(&seed) >> 40) * 0x1p-20f;
    const int good = bitstack_view_gemv(&t.view, precision, x, y, 0, ROWS) == BITSTACK_OK;
    tables_drop(&t);
    test_little(y, sizeof y, 4);
    return good ? bitstack_checksum(y, sizeof y) : 0;
}

/* Does the machine have what the kernels of that name need? Asked of others than the header: 1, 0, or -1 for nobody knows. */
static const char *const names[] = {"amx", "avx512", "avxvnni", "avx2", "sse4", "neon", "scalar"};
static int machine_has(const char *name) {
    if (!strcmp(name, "scalar")) return 1;
#if defined(__x86_64__)
    if (!strcmp(name, "sse4")) return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
    if (!strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* F16C came before */
    if (!strcmp(name, "avxvnni") || !strcmp(name, "amx")) return -1; /* older compilers do not know of them, systems may refuse */
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") &&
               __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg");
    return 0;
#elif defined(__aarch64__)
    return !strcmp(name, "neon") ? 1 : -1;
#else
    return -1;
#endif
}

int main(void) {
    uint64_t seed = 2;
    problem it;
    const char *required = getenv("BITSTACK_REQUIRE_ISA");

    TEST("every instruction set that this machine has is built and runs, the best by itself; no other does");
    bitstack_set_isa(NULL);
    const char *chosen = bitstack_isa(), *best = NULL;
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!best && bitstack_isa_available(isa)) best = bitstack_isa_name(isa);
        const int there = machine_has(bitstack_isa_name(isa));
        CHECK(there < 0 || there == bitstack_isa_available(isa), "%s: %d, the compiler says %d", bitstack_isa_name(isa), bitstack_isa_available(isa), there);
    }
    CHECK(best && !strcmp(chosen, best), "%s is chosen, %s is there", chosen, best);
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        int built = 0;
        for (int isa = 0; bitstack_isa_name(isa); isa++) built |= !strcmp(bitstack_isa_name(isa), names[k]);
        CHECK(built || machine_has(names[k]) <= 0, "this machine has %s, the build has not", names[k]);
    }

    TEST("every instruction set that was asked for runs");
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        const char *name = bitstack_isa_name(isa), *found = required ? strstr(required, name) : NULL;
        int available = bitstack_isa_available(isa);
        printf("%s  kernels: %s\n", available ? "run " : "skip", name);
        CHECK(available || !found, "%s is not available here", name);
        CHECK(bitstack_set_isa(name) == (available ? BITSTACK_OK : BITSTACK_ERROR_UNSUPPORTED), "set_isa(%s)", name);
        if (available) CHECK(!strcmp(bitstack_isa(), name), "%s is in use instead of %s", bitstack_isa(), name);
    }
    for (const char *name = required; name && *name;) {
        size_t length = strcspn(name, ",");
        int known = 0;
        for (int isa = 0; bitstack_isa_name(isa); isa++)
            known |= strlen(bitstack_isa_name(isa)) == length && !strncmp(name, bitstack_isa_name(isa), length);
        CHECK(known, "this build has no kernels %.*s", (int)length, name);
        name += length + (name[length] == ',');
    }
    CHECK(bitstack_set_isa("abacus") == BITSTACK_ERROR_UNSUPPORTED, "an unknown name");

    TEST("sizes 1..130 x 1..130, ranks, levels, groups and factor types agree");
    double worst = 0;
    for (int i = 0; i < 300; i++) {
        static const uint32_t ranks[6] = {1, 1, 2, 3, 4, 16}, groups[4] = {0, 0, 64, 128};
        uint32_t rows = 1 + (uint32_t)(test_random(&seed) % 130), cols = 1 + (uint32_t)(test_random(&seed) % 130);
        uint64_t dice = test_random(&seed);
        make(&it, &seed, rows, cols, ranks[dice % 6], 1 + (uint32_t)(dice >> 8) % LEVELS, groups[dice >> 40 & 3],
             dice >> 42 & 1 ? BITSTACK_F16 : BITSTACK_F32, (int)(dice >> 43 & 1));
        double share = check_problem(&it, &seed);
        if (share > worst) worst = share;
        if (i % 8 == 0) check_dequantize(&it.view);
        drop(&it);
    }
    printf("      largest error of FAST: %.2f of the bound\n", worst);

    TEST("real sizes agree");
    static const uint32_t real[][6] = {/* rows, cols, rank, level, group_cols, own */
                                       {256, 256, 1, 5, 0, 0}, {768, 256, 2, 3, 0, 0}, {256, 768, 16, 2, 0, 1}, {130, 4096, 1, 5, 0, 1},
                                       {200, 4100, 1, 2, 128, 0}, {64, 14336, 1, 2, 0, 0}, {70, 9000, 3, 2, 448, 0}, {65, 5000, 16, 2, 320, 1},
                                       {1100, 300, 1, 4, 0, 0}, {333, 1090, 2, 2, 64, 0}, {33, 700, 40, 1, 0, 0}, {1, 20000, 1, 1, 0, 0}, {9, 40000, 1, 2, 0, 1}};
    for (size_t i = 0; i < sizeof real / sizeof real[0]; i++) {
        make(&it, &seed, real[i][0], real[i][1], real[i][2], real[i][3], real[i][4], i & 1 ? BITSTACK_F32 : BITSTACK_F16, (int)real[i][5]);
        check_problem(&it, &seed);
        if (i < 3) check_dequantize(&it.view);
        drop(&it);
    }

    TEST("tables: sizes 1..130 x 1..300, every level, groups and rare scales agree");
    tables_view t;
    worst = 0;
    for (int i = 0; i < 240; i++) {
        static const uint32_t groups[4] = {32, 64, 96, 128};
        uint32_t rows = 1 + (uint32_t)(test_random(&seed) % 130), cols = 1 + (uint32_t)(test_random(&seed) % 300);
        uint64_t dice = test_random(&seed);
        tables_make(&t, &seed, rows, cols, 1 + (uint32_t)i % 8, groups[dice & 3], dice >> 2 & 1);
        if (dice >> 3 & 3) tables_make_odd(&t, (dice >> 3 & 3) == 1 ? (uint32_t)(dice >> 32) : 0);
        double share = check_view(&t.view, 0, &seed);
        if (share > worst) worst = share;
        if (i % 8 == i / 8 % 8) check_dequantize(&t.view);
        tables_drop(&t);
    }
    printf("      largest error of FAST from tables: %.2f of the bound\n", worst);
    TEST("tables: real sizes agree");
    static const uint32_t real_tables[][4] = {/* rows, cols, level, group_cols */
                                              {576, 576, 4, 64}, {192, 576, 3, 64}, {130, 1536, 5, 128}, {70, 4096, 6, 128}, {33, 14336, 2, 1024}, {17, 3000, 8, 992},
                                              {9, 70000, 4, 128}, {1, 140000, 7, 32}, {50, 1100, 1, 512}, {16, 2048, 7, 1024}};
    for (size_t i = 0; i < sizeof real_tables / sizeof real_tables[0]; i++) {
        tables_make(&t, &seed, real_tables[i][0], real_tables[i][1], real_tables[i][2], real_tables[i][3], i & 1);
        if (i % 3) tables_make_odd(&t, 0);
        check_view(&t.view, 0, &seed);
        if (i < 3) check_dequantize(&t.view);
        tables_drop(&t);
    }

    TEST("results have the same bits from every compiler and machine");
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        CHECK(golden(BITSTACK_FAST) == 0xc6e9580a7cff2060u, "%s fast: %llx", bitstack_isa(), (unsigned long long)golden(BITSTACK_FAST));
        for (uint32_t level = 1; level <= 8; level++) {
            static const uint64_t want[8][2] = {{0x9d7de2a65957da10u, 0xddf70eb248aa48aeu}, {0xcebbab992347b961u, 0x768af324b777bb2eu},
                                               {0x42a938f468bf0e56u, 0x7c1e32961533ceb3u}, {0xa8c16e12e7a294f4u, 0x6cb2f6f88f9a04b9u},
                                               {0x5d4f384f929b7d05u, 0x3ec46d54c414a501u}, {0xf5f9e2db804ab316u, 0xaecfeea9aa577fadu},
                                               {0x3eeac3f44b2ce8d1u, 0x3eeac3f44b2ce8d1u}, {0xfc32ea131342fc4au, 0xfc32ea131342fc4au}};
            for (int k = 0; k < 2; k++)
                CHECK(golden_tables(level, precisions[k]) == want[level - 1][k], "%s %s, tables of level %u: 0x%llxu", bitstack_isa(), precision_names[k], level,
                      (unsigned long long)golden_tables(level, precisions[k]));
        }
        CHECK(golden(BITSTACK_EXACT) == 0x49ff1c067ff1db84u, "%s exact: %llx", bitstack_isa(), (unsigned long long)golden(BITSTACK_EXACT));
    }

    TEST("NaN, infinity, denormals, zeros and bad arguments behave as documented");
    check_arguments(&seed);
    TEST("tables: the same, at every level");
    check_tables_arguments(&seed);
    return TEST_DONE();
}
