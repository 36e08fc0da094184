/* The kernels of attention.c, once an instruction set: NAME(x) names them, TARGET is what they are built for, LANES
 * floats are a vector, WIDE vectors and up to HIGH rows a block of sums that stays in registers. */
#define KERNEL static __attribute__((noinline)) TARGET
#define INSIDE static inline __attribute__((always_inline)) TARGET

typedef float NAME(vec) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int8_t NAME(bytes) __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef int32_t NAME(mask) __attribute__((vector_size(4 * LANES)));

INSIDE NAME(vec) *NAME(at)(float *p) { return (NAME(vec) *)(void *)p; }
INSIDE const NAME(vec) *NAME(from)(const float *p) { return (const NAME(vec) *)(const void *)p; }

/* out[i][v] = (or +=) sum over k of a[i][k] b[k][v]: the k are in pieces of `each` rows of b, `piece` floats apart.
 * Each sum is made in the same order whatever is beside it. */
INSIDE void NAME(block)(const operands *o, const float *a, const float *b, float *out, int add, int high, int wide) {
    NAME(vec) sums[HIGH][WIDE], row[WIDE];
#pragma GCC unroll 6
    for (int i = 0; i < high; i++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++)
            sums[i][v] = add ? *NAME(from)(out + (size_t)i * o->out_stride + v * LANES) : (NAME(vec)){0};
    for (size_t k0 = 0; k0 < o->depth; k0 += o->each, b += o->piece) {
        const float *at = b;
        for (size_t k = k0; k < k0 + o->each && k < o->depth; k++, at += o->b_step) {
#pragma GCC unroll 4
            for (int v = 0; v < wide; v++) row[v] = *NAME(from)(at + (size_t)v * o->b_wide);
#pragma GCC unroll 6
            for (int i = 0; i < high; i++) {
                float one = a[(size_t)i * o->a_stride + k];
#pragma GCC unroll 4
                for (int v = 0; v < wide; v++) sums[i][v] += row[v] * one;
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < high; i++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) *NAME(at)(out + (size_t)i * o->out_stride + v * LANES) = sums[i][v];
}

INSIDE void NAME(rows)(const operands *o, const float *a, const float *b, float *out, int add, int wide) {
    for (size_t i = 0; i < o->rows; i += HIGH, a += HIGH * o->a_stride, out += HIGH * o->out_stride) switch (o->rows - i) {
        case 1: NAME(block)(o, a, b, out, add, 1, wide); break;
        case 2: NAME(block)(o, a, b, out, add, 2, wide); break;
        case 3: NAME(block)(o, a, b, out, add, 3, wide); break;
        case 4: NAME(block)(o, a, b, out, add, 4, wide); break;
        case 5: NAME(block)(o, a, b, out, add, 5, wide); break;
        default: NAME(block)(o, a, b, out, add, 6, wide); break;
        }
}

/* Scores: across panels of 16 keys, which stand `panel` floats apart. */
KERNEL void NAME(score)(const operands *o, const float *q, const float *keys, size_t panels, size_t panel, float *out) {
    operands one = *o;
    size_t p = 0;
    one.b_wide = LANES == 16 ? panel : LANES;
    if (LANES == 16)
        for (; p + WIDE <= panels; p += WIDE) NAME(rows)(&one, q, keys + p * panel, out + p * 16, 0, WIDE);
    for (; p < panels; p++)
        for (size_t j = 0; j < 16; j += LANES == 16 ? 16 : LANES * WIDE)
            NAME(rows)(&one, q, keys + p * panel + j, out + p * 16 + j, 0, LANES == 16 ? 1 : WIDE);
}

/* out += p V, across `channels`, a multiple of 16 of them. */
KERNEL void NAME(weigh)(const operands *o, const float *p, const float *values, size_t channels, float *out) {
    operands one = *o;
    size_t j = 0;
    one.b_wide = LANES;
    for (; j + LANES * WIDE <= channels; j += LANES * WIDE) NAME(rows)(&one, p, values + j, out + j, 1, WIDE);
    for (; j < channels; j += LANES) NAME(rows)(&one, p, values + j, out + j, 1, 1);
}

/* Of BLOCK scores, as all below. */
KERNEL float NAME(greatest)(const float *s) {
    NAME(vec) most = *NAME(from)(s);
    for (size_t j = LANES; j < BLOCK; j += LANES) {
        NAME(vec) a = *NAME(from)(s + j);
        NAME(mask) more = a > most;
        most = (NAME(vec))(((NAME(mask))a & more) | ((NAME(mask))most & ~more));
    }
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = most[i] > top ? most[i] : top;
    return top;
}

KERNEL void NAME(lower)(float *s, float by) {
    for (size_t j = 0; j < BLOCK; j += LANES) *NAME(at)(s + j) -= by;
}

KERNEL void NAME(times)(float *s, const float *factors) {
    for (size_t j = 0; j < BLOCK; j += LANES) *NAME(at)(s + j) *= *NAME(from)(factors + j);
}

KERNEL float NAME(total)(const float *s) {
    NAME(vec) sum = {0};
    for (size_t j = 0; j < BLOCK; j += LANES) sum += *NAME(from)(s + j);
    float all = sum[0];
    for (int i = 1; i < LANES; i++) all += sum[i];
    return all;
}

/* A multiple of 16 bytes as floats. */
KERNEL void NAME(unpack)(const unsigned char *from, size_t count, float *to) {
    for (size_t i = 0; i < count; i += LANES)
        *NAME(at)(to + i) = __builtin_convertvector(
            __builtin_convertvector(*(const NAME(bytes) *)(const void *)(from + i), NAME(mask)), NAME(vec));
}

static const kernels NAME(kernels) = {NAME(score), NAME(weigh), NAME(greatest), NAME(lower), NAME(times), NAME(total),
                                      NAME(unpack)};

#undef KERNEL
#undef INSIDE
#undef NAME
#undef TARGET
#undef LANES
#undef WIDE
