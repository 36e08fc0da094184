/* make.c - made the files of this folder, once. It leaves what is there alone; to add a file, add it to
 * golden.h, run this from the project's root, and append what it prints to expected.txt. */
#include "golden.h"

int main(void) {
    for (int n = 0; n < GOLDEN_FILES; n++) {
        char path[200];
        size_t bytes;
        snprintf(path, sizeof path, "tests/golden/%s.golden", golden_files[n].name);
        if (access(path, F_OK) == 0) continue;
        if (golden_write(n, path)) return fprintf(stderr, "cannot make %s\n", path), 1;
        unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
        if (!data) return 1;
        golden_describe(stdout, golden_files[n].name, data, bytes);
        free(data);
    }
    return 0;
}
