/* platform.h - what the examples want of the system, in one place: files, mapped files, memory, processors, the terminal.
 * platform_posix.c has it for Linux, Android, macOS and their kin, platform_windows.c for Windows. Paths are UTF-8
 * everywhere, and on Windows may be longer than 260 characters; what fails leaves errno. */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdint.h>
#include <stdio.h>

#if defined(__MINGW32__) && !defined(__clang__)
#define PLATFORM_PRINTF(format_at, first) __attribute__((format(gnu_printf, format_at, first)))
#else
#define PLATFORM_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#endif

/* ---- the process ---- */

/* First of all in main: arguments as UTF-8, standard streams that change no byte, a console that shows UTF-8. `cut` is what
 * is said, before the process ends with status 1, where a mapped file has become shorter than it was. */
void platform_begin(int *argc, char ***argv, const char *cut);
/* Name, release, machine and page size for a report of a fault. */
void platform_describe(char *to, size_t room);
int platform_processors(void);                       /* that this process may use, at least 1 */
double platform_thread_seconds(void);                /* of processor time, this thread's */
double platform_busy_seconds(void);                  /* of processor time, all threads' */
uint64_t platform_peak_bytes(void);                  /* most memory that was resident; 0 where it cannot be told */
void platform_sleep(unsigned milliseconds);
/* handler(): on Ctrl-C, in place of the process's end, unless that is ignored. On Windows it comes in a thread of its own. */
void platform_on_interrupt(void (*handler)(void));

/* ---- files ---- */

typedef enum platform_kind { PLATFORM_FILE, PLATFORM_FOLDER, PLATFORM_PIPE, PLATFORM_SOCKET, PLATFORM_DEVICE } platform_kind;
typedef struct platform_status {
    platform_kind kind;
    uint64_t bytes;
    uint64_t device, number;             /* the same for two names of one file */
    int64_t seconds, nanoseconds;        /* when it was changed */
} platform_status;
int platform_look(const char *path, platform_status *status); /* -1 where there is none, ENOENT */
int platform_there(const char *path);                 /* something of that name */
FILE *platform_open(const char *path, const char *mode);
int platform_seek(FILE *file, int64_t offset, int whence);
int64_t platform_tell(FILE *file);
int platform_flush(FILE *file);                       /* down to the disk */
int platform_cut(const char *path, uint64_t bytes);   /* makes it shorter */
int platform_cut_here(FILE *file, int64_t bytes);
int platform_replace(const char *from, const char *to); /* in one step: whoever opens `to` finds the old one or the new one */
int platform_remove(const char *path);
int platform_may_create(const char *folder);          /* 0, or -1: files in it */
/* The name that a symbolic link leads to; its length, or -1 if it is none. */
long platform_link(const char *path, char *to, size_t room);
int platform_is_separator(char c);                    /* of the names in a path */

typedef struct platform_folder platform_folder;
platform_folder *platform_folder_open(const char *path); /* NULL where it is none */
const char *platform_folder_next(platform_folder *folder); /* valid until the next call; NULL at the end */
void platform_folder_close(platform_folder *folder);

/* A file that is read while another process may be writing it. */
int platform_reader(const char *path);                /* a number, or -1 */
int platform_scratch(void);                           /* one without a name, to write and read */
int64_t platform_read_at(int file, void *to, size_t bytes, uint64_t offset); /* as read: fewer at the end */
void platform_ahead(int file, uint64_t offset, uint64_t bytes); /* these will be read soon: a hint, several reads may be under way */
int64_t platform_write_at(int file, const void *from, size_t bytes, uint64_t offset);
int64_t platform_size(int file);
void platform_shut(int file);

/* A file's bytes in the address space; NULL, and errno. 0 bytes: it is empty, or no file. */
const void *platform_map(const char *path, size_t *bytes);
void platform_unmap(const void *data, size_t bytes);
/* What was read of a mapping need not stay in memory. */
void platform_forget(const void *from, size_t bytes);

/* ---- memory ---- */

/* The machine's memory, and how much could be taken now; -1 where that cannot be told. *short_of is 1 where the system says
 * that memory is low, else 0. (Linux's groups and stalls: ../bitstack/memory.c.) */
int platform_memory(uint64_t *all, uint64_t *available, int *short_of);
void *platform_pages(size_t bytes);                   /* that go back to the system when released */
void platform_release_pages(void *pages, size_t bytes);
void *platform_aligned(size_t bytes);                 /* to 64 bytes; a multiple of that */
void platform_aligned_free(void *memory);

/* ---- the terminal ---- */

int platform_is_terminal(FILE *stream);
int platform_columns(void);                           /* of the terminal; 0 where that cannot be told */
/* Whether the standard input has something, or has ended: waits up to so long for it. -1: trouble. */
int platform_input_ready(int milliseconds);
int64_t platform_input(void *to, size_t bytes);       /* as read(0, ...), of a console UTF-8 */
void platform_input_end(void);                        /* whoever writes there may stop */
/* Keys as they are pressed, none echoed: 0, or -1 where that is not possible; off: as it was. */
int platform_raw_input(int on);
int platform_can_edit(void);                          /* a terminal that understands the usual sequences */

#endif
