#include "platform.h"

#ifndef _WIN32
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif
#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

/* ---- the process ---- */

static const char *said_when_cut;

static void became_shorter(int number) {
    (void)number;
    if (write(STDERR_FILENO, said_when_cut, strlen(said_when_cut)) < 0) _exit(1);
    _exit(1);
}

void platform_begin(int *argc, char ***argv, const char *cut) {
    (void)argc, (void)argv;
    said_when_cut = cut;
    signal(SIGBUS, became_shorter);
}

void platform_describe(char *to, size_t room) {
    struct utsname system;
    *to = 0;
    if (uname(&system) == 0)
        snprintf(to, room, "%s %s %s, %d processors, pages of %ld bytes", system.sysname, system.release, system.machine, platform_processors(), sysconf(_SC_PAGESIZE));
}

int platform_processors(void) {
#ifdef __linux__
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
#else
    int count = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return count < 1 ? 1 : count;
}

double platform_thread_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double platform_busy_seconds(void) {
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + 1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

uint64_t platform_peak_bytes(void) {
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
#ifdef __APPLE__
    return (uint64_t)use.ru_maxrss;
#else
    return (uint64_t)use.ru_maxrss * 1024;
#endif
}

void platform_sleep(unsigned milliseconds) {
    struct timespec time = {(time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000L};
    nanosleep(&time, NULL);
}

static void (*interrupt_handler)(void);

static void interrupted(int number) {
    (void)number;
    interrupt_handler();
}

void platform_on_interrupt(void (*handler)(void)) {
    struct sigaction action, was;
    interrupt_handler = handler;
    memset(&action, 0, sizeof action);
    action.sa_handler = interrupted; /* without SA_RESTART: waiting for a line ends as well */
    if (sigaction(SIGINT, NULL, &was) == 0 && was.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
}

/* ---- files ---- */

int platform_look(const char *path, platform_status *status) {
    struct stat found;
    if (stat(path, &found) != 0) return -1;
    status->kind = S_ISREG(found.st_mode) ? PLATFORM_FILE : S_ISDIR(found.st_mode) ? PLATFORM_FOLDER : S_ISFIFO(found.st_mode) ? PLATFORM_PIPE
                   : S_ISSOCK(found.st_mode) ? PLATFORM_SOCKET : PLATFORM_DEVICE;
    status->bytes = found.st_size > 0 ? (uint64_t)found.st_size : 0;
    status->device = (uint64_t)found.st_dev, status->number = (uint64_t)found.st_ino;
#ifdef __APPLE__
    status->seconds = found.st_mtimespec.tv_sec, status->nanoseconds = found.st_mtimespec.tv_nsec;
#else
    status->seconds = found.st_mtim.tv_sec, status->nanoseconds = found.st_mtim.tv_nsec;
#endif
    return 0;
}

int platform_there(const char *path) {
    platform_status status;
    return platform_look(path, &status) == 0;
}

FILE *platform_open(const char *path, const char *mode) { return fopen(path, mode); }
int platform_seek(FILE *file, int64_t offset, int whence) { return fseeko(file, (off_t)offset, whence); }
int64_t platform_tell(FILE *file) { return ftello(file); }
int platform_flush(FILE *file) { return fflush(file) == 0 && fsync(fileno(file)) == 0 ? 0 : -1; }
int platform_cut(const char *path, uint64_t bytes) { return truncate(path, (off_t)bytes); }
int platform_cut_here(FILE *file, int64_t bytes) { return ftruncate(fileno(file), (off_t)bytes); }
int platform_replace(const char *from, const char *to) { return rename(from, to); }
int platform_remove(const char *path) { return remove(path); }
int platform_may_create(const char *folder) { return access(folder, W_OK | X_OK); }
long platform_link(const char *path, char *to, size_t room) { return (long)readlink(path, to, room); }
int platform_is_separator(char c) { return c == '/'; }

struct platform_folder {
    DIR *folder;
};

platform_folder *platform_folder_open(const char *path) {
    platform_folder *it = malloc(sizeof *it);
    if (it && (it->folder = opendir(path)) != NULL) return it;
    free(it);
    return NULL;
}

const char *platform_folder_next(platform_folder *it) {
    const struct dirent *entry = readdir(it->folder);
    return entry ? entry->d_name : NULL;
}

void platform_folder_close(platform_folder *it) {
    closedir(it->folder);
    free(it);
}

int platform_reader(const char *path) { return open(path, O_RDONLY | O_CLOEXEC); }

int platform_scratch(void) {
    const char *folder = getenv("TMPDIR");
    char path[600];
    snprintf(path, sizeof path, "%.500s/bitstack-XXXXXX", folder && *folder ? folder : "/tmp");
    int file = mkstemp(path);
    if (file >= 0) unlink(path);
    return file;
}

int64_t platform_read_at(int file, void *to, size_t bytes, uint64_t offset) {
    ssize_t got;
    do got = pread(file, to, bytes, (off_t)offset);
    while (got < 0 && errno == EINTR);
    return got;
}

void platform_ahead(int file, uint64_t offset, uint64_t bytes) {
#ifdef POSIX_FADV_WILLNEED
    (void)posix_fadvise(file, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
#else
    (void)file, (void)offset, (void)bytes;
#endif
}

int64_t platform_write_at(int file, const void *from, size_t bytes, uint64_t offset) {
    ssize_t put;
    do put = pwrite(file, from, bytes, (off_t)offset);
    while (put < 0 && errno == EINTR);
    return put;
}

int64_t platform_size(int file) {
    struct stat found;
    return fstat(file, &found) == 0 ? (int64_t)found.st_size : -1;
}

void platform_shut(int file) { close(file); }

const void *platform_map(const char *path, size_t *bytes) {
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    *bytes = 0;
    if (file < 0) {
        *bytes = 1;
        return NULL;
    }
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
        close(file);
        return NULL;
    }
    *bytes = (size_t)status.st_size;
    void *data = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, file, 0);
    int why = errno;
    close(file);
    errno = why;
    return data == MAP_FAILED ? NULL : data;
}

void platform_unmap(const void *data, size_t bytes) { munmap((void *)(uintptr_t)data, bytes); }

void platform_forget(const void *from, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)from & ~(page - 1);
    madvise((void *)begin, (uintptr_t)from + bytes - begin, MADV_DONTNEED);
}

/* ---- memory ---- */

#ifdef __APPLE__
/* Pages that are free, or can be had without writing anything; and the level that the system's own notices go by: 1 normal, 2
 * warning, 4 critical. */
int platform_memory(uint64_t *all, uint64_t *available, int *short_of) {
    vm_statistics64_data_t pages;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    int level = 1;
    size_t bytes = sizeof *all, level_bytes = sizeof level;
    if (sysctlbyname("hw.memsize", all, &bytes, NULL, 0) != 0 ||
        host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&pages, &count) != KERN_SUCCESS)
        return -1;
    *available = ((uint64_t)pages.free_count + pages.inactive_count + pages.purgeable_count) * (uint64_t)sysconf(_SC_PAGESIZE);
    *short_of = sysctlbyname("kern.memorystatus_vm_pressure_level", &level, &level_bytes, NULL, 0) == 0 && level > 1;
    return 0;
}
#else
/* Linux and Android. (There an app may not read the stalls; what is available it may.) */
int platform_memory(uint64_t *all, uint64_t *available, int *short_of) {
    unsigned long long total = 0, left = 0;
    char line[128];
    int found = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && found < 2 && fgets(line, sizeof line, file)) {
        found += sscanf(line, "MemTotal: %llu", &total) == 1;
        found += sscanf(line, "MemAvailable: %llu", &left) == 1;
    }
    if (file) fclose(file);
    *all = total * 1024, *available = left * 1024, *short_of = 0;
    return found == 2 ? 0 : -1;
}
#endif

void *platform_pages(size_t bytes) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void platform_release_pages(void *pages, size_t bytes) { munmap(pages, bytes); }

void *platform_aligned(size_t bytes) { return aligned_alloc(64, bytes); }
void platform_aligned_free(void *memory) { free(memory); }

/* ---- the terminal ---- */

int platform_is_terminal(FILE *stream) { return isatty(fileno(stream)); }

int platform_columns(void) {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

int platform_input_ready(int milliseconds) {
    struct pollfd in = {STDIN_FILENO, POLLIN, 0};
    int ready = poll(&in, 1, milliseconds);
    return ready < 0 && errno == EINTR ? 0 : ready;
}

int64_t platform_input(void *to, size_t bytes) { return read(STDIN_FILENO, to, bytes); }
void platform_input_end(void) { close(STDIN_FILENO); }

int platform_raw_input(int on) {
    static struct termios before;
    struct termios raw;
    if (!on) return tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    if (tcgetattr(STDIN_FILENO, &before) != 0) return -1;
    raw = before;
    raw.c_lflag &= (tcflag_t)~(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= (tcflag_t)~(ICRNL | IXON);
    raw.c_cc[VMIN] = 1, raw.c_cc[VTIME] = 0;
    return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

int platform_can_edit(void) {
    const char *name = getenv("TERM");
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && name && *name && strcmp(name, "dumb") != 0;
}
#endif
