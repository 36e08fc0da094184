#include "memory.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

/* ---- reading ---- */

/* A whole small file, NUL-terminated; its length, or 0. */
static size_t slurp(const char *folder, const char *name, char *to, size_t room) {
    char path[640];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    size_t bytes = file ? fread(to, 1, room - 1, file) : 0;
    if (file) fclose(file);
    to[bytes] = 0;
    return bytes;
}

/* A number of bytes; UINT64_MAX for "max" and where there is no such file. */
static uint64_t whole(const char *folder, const char *name) {
    char text[64];
    if (!slurp(folder, name, text, sizeof text) || text[0] < '0' || text[0] > '9') return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* The number after `key` at the beginning of a line; 0 where there is none. */
static uint64_t field(const char *text, const char *key) {
    size_t length = strlen(key);
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, length) == 0 && strchr(" \t:=", line[length]))
            return strtoull(line + length + strspn(line + length, " \t:="), NULL, 10);
    return 0;
}

/* A group's limit and what is left of it. Pages of files are dropped when memory is short. */
static void read_group(const memory_watch *watch, const char *group, memory_reading *out) {
    static const char *const names[2][5] = {
        {"memory.limit_in_bytes", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"},
        {"memory.max", "memory.high", "memory.current", "inactive_file", "active_file"}};
    const char *const *name = names[watch->version - 1];
    char text[8192];
    uint64_t limit = whole(group, name[0]), high = whole(group, name[1]), used = whole(group, name[2]);
    if (high < limit) limit = high;
    if (limit > UINT64_MAX / 4 || used == UINT64_MAX) return; /* version 1 writes a huge number for no limit */
    if (slurp(group, "memory.stat", text, sizeof text)) {
        uint64_t files = field(text, name[3]) + field(text, name[4]);
        used -= files < used ? files : used;
    }
    uint64_t left = used < limit ? limit - used : 0;
    if (limit < out->limit) out->limit = limit;
    if (left < out->available) out->available = left;
}

int memory_read(memory_watch *watch, double now, memory_reading *out) {
    char text[8192], group[sizeof watch->group];
    out->limit = out->available = UINT64_MAX;
    out->pressure = 0;
    int low = 0;
    if (platform_memory(&out->limit, &out->available, &low) != 0) out->limit = out->available = UINT64_MAX;
    if (watch->version) {
        snprintf(group, sizeof group, "%s", watch->group);
        for (;;) { /* up to the outermost: each may have a limit */
            read_group(watch, group, out);
            char *slash = strrchr(group, '/');
            if (strcmp(group, watch->top) == 0 || !slash || slash == group) break;
            *slash = 0;
        }
    }
    if ((watch->version == 2 && slurp(watch->group, "memory.pressure", text, sizeof text)) || slurp("/proc/pressure", "memory", text, sizeof text)) {
        const char *total = strstr(text, "total="); /* of the line "some": at least one task waited */
        uint64_t stalled = total ? strtoull(total + 6, NULL, 10) : 0;
        if (watch->when > 0 && now > watch->when && stalled > watch->stalled)
            out->pressure = (double)(stalled - watch->stalled) / 1e6 / (now - watch->when);
        if (out->pressure > 1) out->pressure = 1;
        watch->stalled = stalled;
    }
    if (low) out->pressure = 1;
    watch->when = now;
    return out->available == UINT64_MAX ? -1 : 0;
}

/* ---- which group ---- */

/* The path of the line of /proc/self/cgroup for this version: "0::PATH", or one whose list has "memory". */
static int own_path(int version, char *path, size_t room) {
    char text[8192], *next;
    if (!slurp("/proc/self", "cgroup", text, sizeof text)) return -1;
    for (char *line = text; line && *line; line = next) {
        if ((next = strchr(line, '\n'))) *next++ = 0;
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        *at++ = 0;
        if (version == 2 ? list[1] != 0 : !strstr(list + 1, "memory")) continue;
        snprintf(path, room, "%s", at);
        return 0;
    }
    return -1;
}

/* Where that hierarchy is mounted, and which of its groups the mount shows as its root. */
static int mounted(int version, char *point, char *root, size_t room) {
    char line[4096], from[512], to[512], kind[32], options[512];
    FILE *file = fopen("/proc/self/mountinfo", "r");
    int found = -1;
    while (file && found != 0 && fgets(line, sizeof line, file)) {
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*d %*d %*s %511s %511s", from, to) != 2 || sscanf(rest, " - %31s %*s %511s", kind, options) != 2) continue;
        if (version == 2 ? strcmp(kind, "cgroup2") != 0 : strcmp(kind, "cgroup") != 0 || !strstr(options, "memory")) continue;
        snprintf(point, room, "%s", to);
        snprintf(root, room, "%s", strcmp(from, "/") == 0 ? "" : from);
        found = 0;
    }
    if (file) fclose(file);
    return found;
}

void memory_watch_init(memory_watch *watch, const char *group) {
    char path[512], root[512];
    memset(watch, 0, sizeof *watch);
    if (group) {
        watch->version = 2;
        snprintf(watch->group, sizeof watch->group, "%s", group);
        snprintf(watch->top, sizeof watch->top, "%s", group);
        return;
    }
    for (int version = 2; version >= 1 && !watch->version; version--) {
        if (own_path(version, path, sizeof path) != 0 || mounted(version, watch->top, root, sizeof root) != 0) continue;
        const char *below = strncmp(path, root, strlen(root)) == 0 ? path + strlen(root) : "";
        if (strcmp(below, "/") == 0) below = "";
        if (strlen(watch->top) + strlen(below) >= sizeof watch->group) continue;
        strcat(strcpy(watch->group, watch->top), below);
        /* Both hierarchies may be mounted, and only one has the memory controller. */
        if (whole(watch->group, version == 2 ? "memory.current" : "memory.usage_in_bytes") != UINT64_MAX) watch->version = version;
    }
}

/* ---- deciding ---- */

uint64_t memory_reserve(const memory_policy *p, uint64_t limit) {
    if (p->reserve) return p->reserve;
    return limit / 20 < 16 << 20 ? 16 << 20 : limit / 20 > 1 << 30 ? 1 << 30 : limit / 20;
}

uint64_t memory_budget(memory_policy *p, const memory_reading *r, uint64_t resident, double now) {
    uint64_t reserve = memory_reserve(p, r->limit), want = resident;
    if (r->available < reserve) want -= reserve - r->available < want ? reserve - r->available : want;
    else if (r->pressure > 0.1 && r->available / 8 < reserve) want -= want / 20;
    else if (now >= p->quiet_until && r->available / 2 > reserve) want += (r->available - 2 * reserve) / 2;
    if (want < resident) p->quiet_until = now + (p->quiet > 0 ? p->quiet : 5);
    return want < p->least ? p->least : want > p->most ? p->most : want;
}

/* ---- allocating ---- */

enum { MAPPED = 64 << 10 }; /* from this size on */

static void *take(void *user, size_t bytes) {
    (void)user;
    if (bytes < MAPPED) return malloc(bytes);
    return platform_pages(bytes);
}

static void give(void *user, void *piece, size_t bytes) {
    (void)user;
    if (bytes < MAPPED) free(piece);
    else platform_release_pages(piece, bytes);
}

void memory_give_back(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

void memory_keep_none(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 18);
#endif
}

bitstack_allocator memory_allocator(void) {
    bitstack_allocator allocator = {take, give, NULL};
    return allocator;
}
