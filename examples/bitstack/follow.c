#include "follow.h"
#include "../llm/platform.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 10, AHEAD = 16 << 20 }; /* AHEAD: bytes that the system is asked to fetch before they are read */

struct follow {
    int fd, piped, started;
    pthread_t thread; /* takes the standard input to the file */
    uint64_t arrived, limit;
    uint64_t end, asked; /* of the last read; of what was asked for beforehand */
    int stop, ended; /* ended: 1, or 1 + errno */
};

/* Blocks are loaded in the order of the file. Where a read goes on after the last one, half as much again is asked for whenever
 * half of what was asked for is used up. */
static void ask_ahead(follow *f, uint64_t offset, uint64_t end) {
    uint64_t last = __atomic_exchange_n(&f->end, end, __ATOMIC_RELAXED), asked = __atomic_load_n(&f->asked, __ATOMIC_RELAXED);
    uint64_t from = asked > end && asked - end <= AHEAD ? asked : end;
    if (offset != last || from - end > AHEAD / 2) return;
    platform_ahead(f->fd, from, AHEAD / 2);
    __atomic_store_n(&f->asked, from + AHEAD / 2, __ATOMIC_RELAXED);
}

static int read_at(void *user, uint64_t offset, void *to, size_t bytes) {
    follow *f = user;
    char *at = to;
    ask_ahead(f, offset, offset + bytes);
    while (bytes) {
        int64_t got = platform_read_at(f->fd, at, bytes, offset);
        if (got <= 0) return -1;
        at += got, offset += (uint64_t)got, bytes -= (size_t)got;
    }
    return 0;
}

static int keep(int fd, const char *from, size_t bytes, uint64_t at) {
    while (bytes) {
        int64_t put = platform_write_at(fd, from, bytes, at);
        if (put <= 0) return -1;
        from += put, at += (uint64_t)put, bytes -= (size_t)put;
    }
    return 0;
}

static void *take_input(void *user) {
    follow *f = user;
    static char room[1 << 16];
    uint64_t at = 0;
    int why = 0;
    while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED) && at < __atomic_load_n(&f->limit, __ATOMIC_RELAXED)) {
        int ready = platform_input_ready(WAIT_MS);
        if (ready < 0) why = errno;
        if (ready <= 0 && !why) continue;
        int64_t got = why ? -1 : platform_input(room, sizeof room);
        if (got < 0 && errno == EINTR) continue;
        if (got > 0 && keep(f->fd, room, (size_t)got, at) != 0) got = -1;
        if (got < 0) why = errno;
        if (got <= 0) break;
        __atomic_store_n(&f->arrived, at += (uint64_t)got, __ATOMIC_RELEASE);
    }
    platform_input_end();
    __atomic_store_n(&f->ended, 1 + why, __ATOMIC_RELEASE);
    return NULL;
}

uint64_t follow_arrived(void *user) {
    const follow *f = user;
    if (f->piped) return __atomic_load_n(&f->arrived, __ATOMIC_ACQUIRE);
    int64_t bytes = platform_size(f->fd);
    return bytes > 0 ? (uint64_t)bytes : 0;
}

int follow_ended(follow *f, const char **why) {
    int ended = f->piped ? __atomic_load_n(&f->ended, __ATOMIC_ACQUIRE) : 0;
    if (why) *why = ended > 1 ? strerror(ended - 1) : NULL;
    return ended;
}

/* Where the blocks end that a budget loads. */
static uint64_t needed(const bitstack *stack, uint64_t budget) {
    bitstack_block block;
    uint64_t bytes = bitstack_base_bytes(stack);
    for (int i = 0; bitstack_get_block(stack, i, &block) == BITSTACK_OK && block.resident_after <= budget; i++)
        bytes = block.offset + block.bytes;
    return bytes;
}

int follow_open(follow **out, bitstack **stack, const char *path, int growing, const bitstack_options *options, llm_error *error) {
    follow *f = calloc(1, sizeof *f);
    bitstack_error why;
    bitstack_result result;
    if (!f) return llm_fail(error, "%s: out of memory", path);
    f->piped = strcmp(path, "-") == 0;
    f->limit = UINT64_MAX;
    f->fd = -1;
    if (f->piped) path = "standard input";
    f->fd = f->piped ? platform_scratch() : platform_reader(path);
    if (f->fd < 0) {
        llm_fail(error, "%s: %s%s", path, f->piped ? "no room to keep it (TMPDIR): " : "", strerror(errno));
        follow_close(f);
        return -1;
    }
    f->started = f->piped && pthread_create(&f->thread, NULL, take_input, f) == 0;
    if (f->piped && !f->started) f->ended = 1 + EAGAIN;
    for (;;) {
        int ended = (!f->piped && !growing) || follow_ended(f, NULL); /* first: what came before it counts */
        uint64_t bytes = follow_arrived(f);
        memset(&why, 0, sizeof why);
        result = bitstack_open_callback(stack, read_at, f, bytes, options, &why);
        if (result != BITSTACK_ERROR_TRUNCATED || ended) break;
        while (follow_arrived(f) == bytes && !(f->piped && follow_ended(f, NULL))) platform_sleep(WAIT_MS);
    }
    if (result != BITSTACK_OK) {
        llm_fail(error, "%s: offset %llu: %s", path, (unsigned long long)why.byte_offset, why.message[0] ? why.message : bitstack_result_string(result));
        follow_close(f);
        return -1;
    }
    __atomic_store_n(&f->limit, needed(*stack, options && options->budget ? options->budget : UINT64_MAX), __ATOMIC_RELAXED);
    *out = f;
    return 0;
}

void follow_close(follow *f) {
    if (!f) return;
    __atomic_store_n(&f->stop, 1, __ATOMIC_RELAXED);
    if (f->started) pthread_join(f->thread, NULL);
    if (f->fd >= 0) platform_shut(f->fd);
    free(f);
}
