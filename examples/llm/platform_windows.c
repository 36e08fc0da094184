#include "platform.h"

#ifdef _WIN32
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdlib.h>
#include <string.h>
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#include <psapi.h>
#include <shellapi.h>

enum { PATH_UNITS = 32768, NAME_BYTES = 1024 };

/* ---- names ---- */

static int fail(DWORD error) {
    errno = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND || error == ERROR_INVALID_NAME || error == ERROR_BAD_NETPATH ? ENOENT
            : error == ERROR_ACCESS_DENIED || error == ERROR_SHARING_VIOLATION || error == ERROR_LOCK_VIOLATION ? EACCES
            : error == ERROR_NOT_ENOUGH_MEMORY || error == ERROR_COMMITMENT_LIMIT ? ENOMEM
            : error == ERROR_DISK_FULL || error == ERROR_HANDLE_DISK_FULL ? ENOSPC
            : error == ERROR_FILE_EXISTS || error == ERROR_ALREADY_EXISTS ? EEXIST : EIO;
    return -1;
}

static wchar_t *wide(const char *text) {
    int units = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
    wchar_t *to = units > 0 ? malloc((size_t)units * sizeof *to) : NULL;
    if (to) MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, to, units);
    else errno = units > 0 ? ENOMEM : EINVAL;
    return to;
}

/* A path as the system takes it. Beyond the classic limit only the whole one will do, after \\?\. Free it. */
static wchar_t *wide_path(const char *path) {
    wchar_t *name = wide(path);
    if (!name || wcslen(name) < 240 || wcsncmp(name, L"\\\\", 2) == 0) return name;
    wchar_t *whole = malloc((PATH_UNITS + 5) * sizeof *whole);
    DWORD units = whole ? GetFullPathNameW(name, PATH_UNITS, whole + 4, NULL) : 0;
    free(name);
    if (units && units < PATH_UNITS) return memcpy(whole, L"\\\\?\\", 4 * sizeof *whole);
    free(whole);
    errno = ENOENT;
    return NULL;
}

static int narrow(const wchar_t *from, char *to, size_t room) {
    return WideCharToMultiByte(CP_UTF8, 0, from, -1, to, (int)room, NULL, NULL) > 0 ? 0 : -1;
}

/* ---- the process ---- */

static const char *said_when_cut;

static LONG WINAPI became_shorter(EXCEPTION_POINTERS *what) {
    DWORD written;
    if (what->ExceptionRecord->ExceptionCode != EXCEPTION_IN_PAGE_ERROR) return EXCEPTION_CONTINUE_SEARCH;
    WriteFile(GetStdHandle(STD_ERROR_HANDLE), said_when_cut, (DWORD)strlen(said_when_cut), &written, NULL);
    ExitProcess(1);
}

static UINT output_page, input_page;
static void restore_console(void) {
    if (output_page) SetConsoleOutputCP(output_page);
    if (input_page) SetConsoleCP(input_page);
}

/* Arguments are the command line's own words: '*' in them is a '*' (MinGW's start-up would look for files). */
void platform_begin(int *argc, char ***argv, const char *cut) {
    int count = 0;
    wchar_t **words = CommandLineToArgvW(GetCommandLineW(), &count);
    char **list = words ? calloc((size_t)count + 1, sizeof *list) : NULL;
    for (int i = 0; list && i < count; i++) {
        size_t room = 3 * wcslen(words[i]) + 1;
        if (!(list[i] = malloc(room)) || narrow(words[i], list[i], room) != 0) list = NULL; /* as they came, then */
    }
    if (list) *argc = count, *argv = list;
    LocalFree(words);
    _setmode(0, _O_BINARY), _setmode(1, _O_BINARY), _setmode(2, _O_BINARY);
    setvbuf(stderr, NULL, _IONBF, 0);
    DWORD mode;
    HANDLE out = GetStdHandle(STD_OUTPUT_HANDLE);
    if (GetConsoleMode(out, &mode)) {
        output_page = GetConsoleOutputCP(), input_page = GetConsoleCP();
        SetConsoleOutputCP(CP_UTF8), SetConsoleCP(CP_UTF8);
        SetConsoleMode(out, mode | ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
        atexit(restore_console);
    }
    said_when_cut = cut;
    AddVectoredExceptionHandler(1, became_shorter);
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOOPENFILEERRORBOX);
}

void platform_describe(char *to, size_t room) {
    /* GetVersionEx tells older systems' numbers to programs without a manifest; this does not. */
    FARPROC found = GetProcAddress(GetModuleHandleW(L"ntdll"), "RtlGetVersion");
    LONG(WINAPI * version)(OSVERSIONINFOW *) = NULL;
    memcpy(&version, &found, sizeof version);
    OSVERSIONINFOW system = {.dwOSVersionInfoSize = sizeof system};
    SYSTEM_INFO info;
    GetNativeSystemInfo(&info);
    if (version) version(&system);
    const char *machine = info.wProcessorArchitecture == PROCESSOR_ARCHITECTURE_AMD64 ? "x86_64" : info.wProcessorArchitecture == 12 ? "arm64" : "x86";
    snprintf(to, room, "Windows %lu.%lu.%lu %s, %d processors, pages of %lu bytes", system.dwMajorVersion, system.dwMinorVersion, system.dwBuildNumber, machine,
             platform_processors(), info.dwPageSize);
}

int platform_processors(void) {
    DWORD_PTR mine, all;
    int count = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))
        for (; mine; mine &= mine - 1) count++;
    return count < 1 ? 1 : count;
}

static double seconds(FILETIME kernel, FILETIME user) {
    ULARGE_INTEGER a = {{kernel.dwLowDateTime, kernel.dwHighDateTime}}, b = {{user.dwLowDateTime, user.dwHighDateTime}};
    return 1e-7 * (double)(a.QuadPart + b.QuadPart);
}

double platform_thread_seconds(void) {
    FILETIME begin, end, kernel, user;
    return GetThreadTimes(GetCurrentThread(), &begin, &end, &kernel, &user) ? seconds(kernel, user) : 0;
}

double platform_busy_seconds(void) {
    FILETIME begin, end, kernel, user;
    return GetProcessTimes(GetCurrentProcess(), &begin, &end, &kernel, &user) ? seconds(kernel, user) : 0;
}

uint64_t platform_peak_bytes(void) {
    PROCESS_MEMORY_COUNTERS memory = {.cb = sizeof memory};
    return GetProcessMemoryInfo(GetCurrentProcess(), &memory, sizeof memory) ? memory.PeakWorkingSetSize : 0;
}

void platform_sleep(unsigned milliseconds) { Sleep(milliseconds); }

static void (*interrupt_handler)(void);

static BOOL WINAPI on_control(DWORD event) {
    if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) return FALSE;
    interrupt_handler();
    return TRUE;
}

void platform_on_interrupt(void (*handler)(void)) {
    interrupt_handler = handler;
    SetConsoleCtrlHandler(on_control, TRUE);
}

/* ---- files ---- */

/* Shared with whoever writes, renames or removes it meanwhile, as elsewhere. */
static HANDLE open_shared(const char *path, DWORD access, DWORD flags) {
    wchar_t *name = wide_path(path);
    HANDLE file = name ? CreateFileW(name, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, flags, NULL) : INVALID_HANDLE_VALUE;
    if (name && file == INVALID_HANDLE_VALUE) fail(GetLastError());
    free(name);
    return file;
}

int platform_look(const char *path, platform_status *status) {
    BY_HANDLE_FILE_INFORMATION found;
    HANDLE file = open_shared(path, 0, FILE_FLAG_BACKUP_SEMANTICS);
    if (file == INVALID_HANDLE_VALUE) return -1;
    memset(status, 0, sizeof *status);
    DWORD type = GetFileType(file);
    status->kind = type == FILE_TYPE_PIPE ? PLATFORM_PIPE : PLATFORM_DEVICE;
    if (type == FILE_TYPE_DISK && GetFileInformationByHandle(file, &found)) {
        const uint64_t changed = ((uint64_t)found.ftLastWriteTime.dwHighDateTime << 32 | found.ftLastWriteTime.dwLowDateTime);
        status->kind = found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? PLATFORM_FOLDER : PLATFORM_FILE;
        status->bytes = (uint64_t)found.nFileSizeHigh << 32 | found.nFileSizeLow;
        status->device = found.dwVolumeSerialNumber, status->number = (uint64_t)found.nFileIndexHigh << 32 | found.nFileIndexLow;
        status->seconds = (int64_t)(changed / 10000000), status->nanoseconds = (int64_t)(changed % 10000000) * 100;
    }
    CloseHandle(file);
    return 0;
}

int platform_there(const char *path) {
    platform_status status;
    return platform_look(path, &status) == 0;
}

FILE *platform_open(const char *path, const char *mode) {
    wchar_t *name = wide_path(path), how[8] = {0};
    for (size_t i = 0; i < 7 && mode[i]; i++) how[i] = (wchar_t)mode[i];
    FILE *file = name ? _wfopen(name, how) : NULL;
    free(name);
    return file;
}

int platform_seek(FILE *file, int64_t offset, int whence) { return _fseeki64(file, offset, whence); }
int64_t platform_tell(FILE *file) { return _ftelli64(file); }
int platform_flush(FILE *file) { return fflush(file) == 0 && _commit(_fileno(file)) == 0 ? 0 : -1; }
int platform_cut_here(FILE *file, int64_t bytes) { return fflush(file) == 0 && _chsize_s(_fileno(file), bytes) == 0 ? 0 : -1; }
int platform_cut(const char *path, uint64_t bytes) {
    FILE *file = platform_open(path, "r+b");
    int failed = !file || platform_cut_here(file, (int64_t)bytes) != 0;
    if (file && fclose(file) != 0) failed = 1;
    return failed ? -1 : 0;
}

/* ReplaceFile keeps the old file's attributes and rights; where there is no old file, a move will do. Virus scanners and
 * indexers open what is new for a moment: a few tries. */
int platform_replace(const char *from, const char *to) {
    wchar_t *old = wide_path(from), *name = wide_path(to);
    int done = 0;
    DWORD error = 0;
    for (int turn = 0; old && name && !done && turn < 10; turn++) {
        if (turn) Sleep(20);
        done = ReplaceFileW(name, old, NULL, REPLACEFILE_WRITE_THROUGH | REPLACEFILE_IGNORE_MERGE_ERRORS, NULL, NULL) != 0;
        error = done ? 0 : GetLastError();
        if (!done && error == ERROR_FILE_NOT_FOUND) done = MoveFileExW(old, name, MOVEFILE_WRITE_THROUGH) != 0, error = done ? 0 : GetLastError();
        else if (!done) done = MoveFileExW(old, name, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0, error = done ? 0 : GetLastError();
        if (!done && error != ERROR_ACCESS_DENIED && error != ERROR_SHARING_VIOLATION) break;
    }
    free(old), free(name);
    return done ? 0 : error ? fail(error) : -1;
}

int platform_remove(const char *path) {
    wchar_t *name = wide_path(path);
    int result = name && DeleteFileW(name) ? 0 : fail(GetLastError());
    free(name);
    return result;
}

/* Only trying tells: rights here are lists. */
int platform_may_create(const char *folder) {
    char path[NAME_BYTES * 4];
    snprintf(path, sizeof path, "%s\\bitstack-%lu.tmp", folder, GetCurrentProcessId());
    wchar_t *name = wide_path(path);
    HANDLE file = name ? CreateFileW(name, GENERIC_WRITE | DELETE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, NULL) : INVALID_HANDLE_VALUE;
    DWORD error = GetLastError();
    free(name);
    if (file == INVALID_HANDLE_VALUE) return fail(error);
    CloseHandle(file);
    return 0;
}

/* Writing follows links by itself, and replacing one replaces it. */
long platform_link(const char *path, char *to, size_t room) {
    (void)path, (void)to, (void)room;
    return -1;
}
int platform_is_separator(char c) { return c == '/' || c == '\\'; }

struct platform_folder {
    HANDLE search;
    WIN32_FIND_DATAW found;
    char name[NAME_BYTES];
    int first;
};

platform_folder *platform_folder_open(const char *path) {
    platform_folder *it = calloc(1, sizeof *it);
    char *pattern = malloc(strlen(path) + 3);
    wchar_t *name = it && pattern ? wide_path(strcat(strcpy(pattern, path), "\\*")) : NULL;
    if (name) it->search = FindFirstFileW(name, &it->found);
    int good = name && it->search != INVALID_HANDLE_VALUE;
    free(pattern), free(name);
    if (good) return it->first = 1, it;
    free(it);
    return NULL;
}

const char *platform_folder_next(platform_folder *it) {
    do {
        if (!it->first && !FindNextFileW(it->search, &it->found)) return NULL;
        it->first = 0;
    } while (narrow(it->found.cFileName, it->name, sizeof it->name) != 0);
    return it->name;
}

void platform_folder_close(platform_folder *it) {
    FindClose(it->search);
    free(it);
}

int platform_reader(const char *path) {
    HANDLE file = open_shared(path, GENERIC_READ, FILE_ATTRIBUTE_NORMAL);
    return file == INVALID_HANDLE_VALUE ? -1 : _open_osfhandle((intptr_t)file, _O_RDONLY | _O_BINARY);
}

int platform_scratch(void) {
    wchar_t folder[MAX_PATH + 1], path[MAX_PATH + 32];
    if (!GetTempPathW(MAX_PATH + 1, folder) || !GetTempFileNameW(folder, L"bst", 0, path)) return fail(GetLastError());
    HANDLE file = CreateFileW(path, GENERIC_READ | GENERIC_WRITE | DELETE, 0, NULL, CREATE_ALWAYS, FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, NULL);
    return file == INVALID_HANDLE_VALUE ? fail(GetLastError()) : _open_osfhandle((intptr_t)file, _O_RDWR | _O_BINARY);
}

int64_t platform_read_at(int file, void *to, size_t bytes, uint64_t offset) {
    OVERLAPPED at = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    DWORD got = 0;
    if (ReadFile((HANDLE)_get_osfhandle(file), to, bytes < 1 << 30 ? (DWORD)bytes : 1 << 30, &got, &at)) return got;
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : fail(GetLastError());
}

void platform_ahead(int file, uint64_t offset, uint64_t bytes) { (void)file, (void)offset, (void)bytes; } /* the system reads ahead itself */

int64_t platform_write_at(int file, const void *from, size_t bytes, uint64_t offset) {
    OVERLAPPED at = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    DWORD put = 0;
    if (WriteFile((HANDLE)_get_osfhandle(file), from, bytes < 1 << 30 ? (DWORD)bytes : 1 << 30, &put, &at)) return put;
    return fail(GetLastError());
}

int64_t platform_size(int file) { return _filelengthi64(file); }
void platform_shut(int file) { _close(file); }

const void *platform_map(const char *path, size_t *bytes) {
    LARGE_INTEGER size;
    HANDLE file = open_shared(path, GENERIC_READ, FILE_ATTRIBUTE_NORMAL);
    *bytes = 1;
    if (file == INVALID_HANDLE_VALUE) { /* opening a folder is refused as such: no file */
        platform_status status;
        if (platform_look(path, &status) == 0 && status.kind != PLATFORM_FILE) *bytes = 0;
        return NULL;
    }
    if (GetFileType(file) != FILE_TYPE_DISK || !GetFileSizeEx(file, &size) || size.QuadPart <= 0) {
        CloseHandle(file);
        *bytes = 0;
        return NULL;
    }
    *bytes = (size_t)size.QuadPart;
    HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (!data) fail(GetLastError());
    if (mapping) CloseHandle(mapping); /* the view keeps it */
    CloseHandle(file);
    return data;
}

void platform_unmap(const void *data, size_t bytes) {
    (void)bytes;
    UnmapViewOfFile(data);
}

/* Unlocking what is not locked takes it out of the working set. */
void platform_forget(const void *from, size_t bytes) { VirtualUnlock((void *)(uintptr_t)from, bytes); }

/* ---- memory ---- */

int platform_memory(uint64_t *all, uint64_t *available, int *short_of) {
    static HANDLE low;
    MEMORYSTATUSEX status = {.dwLength = sizeof status};
    BOOL is_low = FALSE;
    if (!GlobalMemoryStatusEx(&status)) return -1;
    *all = status.ullTotalPhys, *available = status.ullAvailPhys;
    if (status.ullAvailPageFile < *available) *available = status.ullAvailPageFile; /* what may still be committed */
    if (!low) low = CreateMemoryResourceNotification(LowMemoryResourceNotification);
    *short_of = low && QueryMemoryResourceNotification(low, &is_low) && is_low;
    return 0;
}

void *platform_pages(size_t bytes) { return VirtualAlloc(NULL, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE); }
void platform_release_pages(void *pages, size_t bytes) {
    (void)bytes;
    VirtualFree(pages, 0, MEM_RELEASE);
}

void *platform_aligned(size_t bytes) { return _aligned_malloc(bytes, 64); }
void platform_aligned_free(void *memory) { _aligned_free(memory); }

/* ---- the terminal ---- */

static int is_console(DWORD which) {
    DWORD mode;
    return GetConsoleMode(GetStdHandle(which), &mode) != 0;
}

int platform_is_terminal(FILE *stream) { return is_console(_fileno(stream) == 0 ? STD_INPUT_HANDLE : _fileno(stream) == 1 ? STD_OUTPUT_HANDLE : STD_ERROR_HANDLE); }

int platform_columns(void) {
    CONSOLE_SCREEN_BUFFER_INFO info;
    return GetConsoleScreenBufferInfo(GetStdHandle(STD_OUTPUT_HANDLE), &info) ? info.srWindow.Right - info.srWindow.Left + 1 : 0;
}

/* Events of a console that are no keys end no wait: they are taken out. */
static int console_ready(HANDLE in, int milliseconds) {
    const ULONGLONG end = GetTickCount64() + (ULONGLONG)milliseconds;
    for (;;) {
        INPUT_RECORD event;
        DWORD count = 0;
        const ULONGLONG now = GetTickCount64();
        if (WaitForSingleObject(in, now < end ? (DWORD)(end - now) : 0) != WAIT_OBJECT_0) return 0;
        if (!PeekConsoleInputW(in, &event, 1, &count) || (count && event.EventType == KEY_EVENT && event.Event.KeyEvent.bKeyDown)) return 1;
        if (count) ReadConsoleInputW(in, &event, 1, &count);
    }
}

int platform_input_ready(int milliseconds) {
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
    if (is_console(STD_INPUT_HANDLE)) return console_ready(in, milliseconds);
    if (GetFileType(in) != FILE_TYPE_PIPE) return 1;
    for (int waited = 0;; waited += 10) { /* there is no waiting for a pipe */
        DWORD there = 0;
        if (!PeekNamedPipe(in, NULL, 0, NULL, &there, NULL) || there) return 1; /* something, or the end */
        if (waited >= milliseconds) return 0;
        Sleep(10);
    }
}

/* A console gives UTF-16; what of it has no room is kept for the next call. */
static int64_t console_input(HANDLE in, char *to, size_t bytes) {
    static char kept[4096];
    static size_t from, end;
    if (from == end) {
        wchar_t units[1024];
        DWORD count = 0;
        if (!ReadConsoleW(in, units, 1023, &count, NULL)) return fail(GetLastError());
        if (count && units[count - 1] >= 0xD800 && units[count - 1] < 0xDC00) { /* half a character */
            DWORD more = 0;
            if (ReadConsoleW(in, units + count, 1, &more, NULL)) count += more;
        }
        int made = count ? WideCharToMultiByte(CP_UTF8, 0, units, (int)count, kept, sizeof kept, NULL, NULL) : 0;
        from = end = 0;
        for (int i = 0; i < made; i++) /* an end of line is one byte, and Ctrl-Z at its beginning the end */
            if (kept[i] != '\r' || i + 1 == made || kept[i + 1] != '\n') kept[end++] = kept[i];
        if (end && kept[0] == 26) {
            end = 0;
            return 0;
        }
    }
    size_t some = end - from < bytes ? end - from : bytes;
    memcpy(to, kept + from, some);
    from += some;
    return (int64_t)some;
}

int64_t platform_input(void *to, size_t bytes) {
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
    DWORD got = 0;
    if (is_console(STD_INPUT_HANDLE)) return console_input(in, to, bytes);
    if (ReadFile(in, to, bytes < 1 << 30 ? (DWORD)bytes : 1 << 30, &got, NULL)) return got;
    return GetLastError() == ERROR_BROKEN_PIPE ? 0 : fail(GetLastError());
}

void platform_input_end(void) { _close(0); }

int platform_raw_input(int on) {
    static DWORD before;
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
    if (!on) return SetConsoleMode(in, before) ? 0 : -1;
    if (!GetConsoleMode(in, &before)) return -1;
    DWORD raw = (before & ~(DWORD)(ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT)) | ENABLE_VIRTUAL_TERMINAL_INPUT;
    return SetConsoleMode(in, raw) ? 0 : -1;
}

/* Where the console takes and gives sequences: Windows 10 and later. */
int platform_can_edit(void) {
    DWORD mode;
    return is_console(STD_INPUT_HANDLE) && GetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), &mode) && (mode & ENABLE_VIRTUAL_TERMINAL_PROCESSING);
}
#endif
