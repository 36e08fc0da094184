/* How much memory there is, read as a control group's files and /proc say it, and the budget that follows: never
 * more than fits, and not up and down all the time. */
#include "random_stack.h"
#include "examples/bitstack/resize.h"
#include "examples/llm/evaluate.h"

#include <sys/stat.h>

static char folder[200];

static void put(const char *name, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (file) fputs(text, file), fclose(file);
}
static void put_number(const char *name, uint64_t number) {
    char text[32], path[300], part[310];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)number);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *file = fopen(part, "w");
    if (file) fputs(text, file), fclose(file), rename(part, path); /* never seen empty, like the system's */
}
static uint64_t mib(double n) { return (uint64_t)(n * 1048576); }

int main(void) {
    memory_watch watch;
    memory_reading r, machine;
    char child[260];
    snprintf(folder, sizeof folder, "build/tests/memory%d", (int)getpid());
    snprintf(child, sizeof child, "%s/inner", folder);
    mkdir(folder, 0777), mkdir(child, 0777);

    TEST("the machine's own memory can be read, and no group is tighter than it is");
    memory_watch_init(&watch, child); /* empty: no files at all */
    if (memory_read(&watch, 1, &machine) != 0) SKIP("no /proc/meminfo here");
    else {
        CHECK(machine.limit > mib(16) && machine.available <= machine.limit && machine.available > 0, "%llu of %llu",
              (unsigned long long)machine.available, (unsigned long long)machine.limit);
        memory_watch_init(&watch, NULL);
        CHECK(memory_read(&watch, 1, &r) == 0 && r.limit <= machine.limit, "own group '%s'", watch.group);
        printf("      version %d, group %s: %llu of %llu bytes free\n", watch.version, watch.group, (unsigned long long)r.available, (unsigned long long)r.limit);
    }

    TEST("a group's limit, use, file pages and pressure are read; the tightest of it and its parents counts");
    put("memory.max", "100000000\n"), put("memory.high", "max\n"), put("memory.current", "60000000\n");
    put("memory.stat", "anon 1\nfile 99\ninactive_file 5000000\nactive_file 2000000\nslab 7\n");
    put("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
    memory_watch_init(&watch, folder);
    CHECK(memory_read(&watch, 10, &r) == 0 && r.limit == 100000000 && r.available == 47000000, "%llu of %llu", (unsigned long long)r.available, (unsigned long long)r.limit);
    CHECK(!(r.pressure > 0), "pressure %g at the first reading", r.pressure);
    put("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
    put("memory.high", "90000000\n");
    CHECK(memory_read(&watch, 12, &r) == 0 && fabs(r.pressure - 0.25) < 1e-9, "pressure %g", r.pressure);
    CHECK(r.limit == 90000000 && r.available == 37000000, "high: %llu of %llu", (unsigned long long)r.available, (unsigned long long)r.limit);
    put("memory.current", "95000000\n");
    CHECK(memory_read(&watch, 13, &r) == 0 && r.available == 2000000, "%llu", (unsigned long long)r.available);
    put("memory.current", "99000000\n");
    CHECK(memory_read(&watch, 14, &r) == 0 && r.available == 0, "%llu", (unsigned long long)r.available);
    put("inner/memory.max", "max\n"), put("inner/memory.current", "10\n"), put("memory.current", "60000000\n");
    snprintf(watch.group, sizeof watch.group, "%s", child);
    CHECK(memory_read(&watch, 15, &r) == 0 && r.limit == 90000000 && r.available == 37000000, "the parent's: %llu", (unsigned long long)r.available);
    put("inner/memory.max", "1000010\n");
    CHECK(memory_read(&watch, 16, &r) == 0 && r.limit == 1000010 && r.available == 1000000, "the inner one's: %llu", (unsigned long long)r.available);
    watch.version = 1;
    put("inner/memory.limit_in_bytes", "9223372036854771712\n"), put("inner/memory.usage_in_bytes", "10\n");
    put("memory.limit_in_bytes", "50000000\n"), put("memory.usage_in_bytes", "40000000\n");
    put("memory.stat", "inactive_file 9\ntotal_inactive_file 1000000\ntotal_active_file 500000\n");
    CHECK(memory_read(&watch, 17, &r) == 0 && r.limit == 50000000 && r.available == 11500000, "version 1: %llu of %llu", (unsigned long long)r.available, (unsigned long long)r.limit);
    put("memory.limit_in_bytes", ""), put("memory.usage_in_bytes", "what\n");
    CHECK(memory_read(&watch, 18, &r) == 0 && r.limit > 50000000, "no numbers: %llu", (unsigned long long)r.limit);

    TEST("what eats into the reserve is given up at once; growing waits, is slow, and stays within its limits");
    memory_policy p;
    memset(&p, 0, sizeof p);
    p.least = mib(10), p.most = mib(200), p.reserve = mib(20);
    memory_reading tight = {mib(1000), mib(5), 0}, roomy = {mib(1000), mib(100), 0}, between = {mib(1000), mib(30), 0}, waiting = {mib(1000), mib(100), 0.3};
    CHECK(memory_budget(&p, &tight, mib(100), 1) == mib(85), "tight");
    CHECK(memory_budget(&p, &roomy, mib(85), 5) == mib(85), "quiet");
    CHECK(memory_budget(&p, &roomy, mib(85), 7) == mib(115), "growing");
    CHECK(memory_budget(&p, &between, mib(115), 8) == mib(115), "between");
    CHECK(memory_budget(&p, &waiting, mib(100), 9) == mib(95), "pressure");
    CHECK(memory_budget(&p, &roomy, mib(95), 10) == mib(95), "quiet after pressure");
    CHECK(memory_budget(&p, &tight, mib(12), 11) == mib(10), "not below the least");
    CHECK(memory_budget(&p, &roomy, mib(190), 99) == mib(200), "not above the most");
    p.reserve = 0;
    tight.limit = mib(100), tight.available = mib(15);
    CHECK(memory_budget(&p, &tight, mib(50), 1) == mib(49), "16 MiB at least are kept free");

    TEST("while others take and give back memory, the sum never passes the limit, and room is used");
    uint64_t seed = 3, resident = 0, full = 0;
    double others = 100;
    p.least = 0, p.most = mib(400), p.quiet_until = 0;
    for (int i = 0; i < 20000; i++) {
        others += 8 * test_uniform(&seed) - 4 + (others < 50 ? 2 : others > 450 ? -2 : 0);
        if (others < 0) others = 0;
        CHECK(mib(others) + resident <= mib(600), "step %d: %g + %g MiB", i, others, (double)resident / 1048576);
        memory_reading now = {mib(600), mib(600) - mib(others) - resident, 0};
        resident = memory_budget(&p, &now, resident, i * 0.02);
        full += mib(others) + resident > mib(500);
    }
    CHECK(full > 5000, "only %llu of 20000 times well used", (unsigned long long)full);

    TEST("a stack follows a group's limit down and up again");
    bitstack *stack;
    resizer *size;
    resizer_state state;
    resizer_options options;
    bitstack_error error;
    char path[300];
    snprintf(path, sizeof path, "%s/m.bitstack", folder);
    memset(&options, 0, sizeof options);
    CHECK(random_stack(path, 512, 1024, 8, 4, 64, NULL) == 0 && bitstack_open_file(&stack, path, NULL, &error) == BITSTACK_OK, "%s", error.message);
    if (test_bad_) return TEST_DONE();
    uint64_t total = bitstack_resident_bytes(stack), base = bitstack_base_bytes(stack), limit = total + mib(9), lowest = total;
    put("memory.stat", ""), put("memory.high", "max\n");
    options.automatic = 1;
    options.group = folder;
    options.policy.reserve = mib(3);
    options.policy.quiet = 0.1;
    put_number("memory.max", limit), put_number("memory.current", total);
    CHECK(resizer_start(&size, stack, &options) == 0, "no thread");
    uint64_t least = base + (total - base) / 3 + mib(3);
    double start = llm_seconds();
    for (int down = 1, shrunk = 0; llm_seconds() - start < 20; ) {
        resizer_ask(size, &state);
        put_number("memory.current", state.resident);
        CHECK(state.resident <= limit, "%llu over the limit of %llu", (unsigned long long)state.resident, (unsigned long long)limit);
        if (state.resident < lowest) lowest = state.resident;
        if (down && limit > least) put_number("memory.max", limit -= mib(0.25));
        else if (down && state.resident + mib(3) <= limit && ++shrunk > 10) down = 0, put_number("memory.max", limit = total + mib(9));
        else if (!down && state.resident == total) break;
        usleep(5000);
    }
    CHECK(lowest + mib(3) <= least + mib(1), "down to %llu only", (unsigned long long)lowest);
    CHECK(state.resident == total, "up to %llu of %llu only", (unsigned long long)state.resident, (unsigned long long)total);
    resizer_stop(size);
    bitstack_close(stack);
    char line[300];
    snprintf(line, sizeof line, "rm -rf '%s'", folder);
    CHECK(system(line) == 0, "cannot remove %s", folder);
    return TEST_DONE();
}
