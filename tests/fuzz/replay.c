/* replay.c - drives a target without a fuzzer: runs the inputs named on the command line as they are, and then
 * RUNS deterministic mutations of them (RUNS and SEED in the environment). Prints how many ran. */
#include "fuzz.h"

static uint64_t dice(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static unsigned char *load(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    *bytes = 0;
    if (!file) return NULL;
    for (size_t room = 4096, got = 1; got; room *= 2) {
        unsigned char *more = (unsigned char *)realloc(data, room);
        if (!more) break;
        data = more;
        *bytes += got = fread(data + *bytes, 1, room - *bytes, file);
    }
    fclose(file);
    return data;
}

int main(int count, char **paths) {
    static const uint64_t values[] = {0, 1, 2, 3, 4, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1024, 32768, 65535, 65536, 1u << 30,
                                      0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu, ~(uint64_t)0, (uint64_t)1 << 63, 0x7F800000, 0x7FC00000, 0xFF800000u};
    const long runs = getenv("RUNS") ? atol(getenv("RUNS")) : 0;
    uint64_t state = getenv("SEED") ? (uint64_t)atol(getenv("SEED")) : 1;
    long done = 0;
    for (int i = 1; i < count; i++, done++) {
        size_t bytes;
        unsigned char *data = load(paths[i], &bytes);
        if (!data) return fprintf(stderr, "cannot read %s\n", paths[i]), 1;
        LLVMFuzzerTestOneInput(data, bytes);
        free(data);
    }
    for (long run = 0; run < runs && count > 1; run++, done++) {
        size_t bytes, other;
        unsigned char *data = load(paths[1 + dice(&state) % (unsigned)(count - 1)], &bytes);
        for (uint64_t changes = 1 + dice(&state) % 4; data && changes && bytes; changes--) {
            const uint64_t what = dice(&state) % 10;
            const size_t width = (size_t)1 << dice(&state) % 4, at = (size_t)(dice(&state) % bytes);
            const size_t spot = what < 6 ? (at & ~(width - 1)) + (dice(&state) % 2 ? 2 : 0) : at; /* stacks start at 2 */
            if (what < 6 && spot + width <= bytes) {
                const uint64_t value = values[dice(&state) % (sizeof values / sizeof values[0])], old = fuzz_load(data + spot, width);
                fuzz_store(data + spot, width, what < 3 ? value : what < 4 ? old + value : what < 5 ? old - value : dice(&state));
            } else if (what < 8) data[at] ^= (unsigned char)(1u << dice(&state) % 8);
            else if (what < 9) bytes = at; /* cut */
            else { /* a piece of another input */
                unsigned char *from = load(paths[1 + dice(&state) % (unsigned)(count - 1)], &other);
                const size_t length = from && other ? (size_t)(dice(&state) % other) : 0;
                if (length) memcpy(data + at, from + (size_t)(dice(&state) % (other - length + 1)), length < bytes - at ? length : bytes - at);
                free(from);
            }
        }
        if (dice(&state) % 4 && bytes) data[0] |= 1; /* most with mended checksums */
        unsigned char *exact = (unsigned char *)malloc(bytes ? bytes : 1);
        if (exact && data) memcpy(exact, data, bytes);
        FILE *last = getenv("LAST") ? fopen(getenv("LAST"), "wb") : NULL; /* the input that a crash leaves behind */
        if (last) fwrite(data, 1, bytes, last), fclose(last);
        LLVMFuzzerTestOneInput(exact, bytes);
        free(exact);
        free(data);
    }
    printf("%ld inputs ran\n", done);
    return 0;
}
