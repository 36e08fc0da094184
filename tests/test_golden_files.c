/* Files of every feature, made once and kept (tests/golden), open with the same contents and the same bits
 * for ever; what a newer writer may add is refused by name or skipped. */
#include "golden/golden.h"

static char *expected; /* the whole of expected.txt */

/* Where file `name` stands in expected.txt, and how long its part is. */
static const char *part_of(const char *name, size_t *bytes) {
    const char *at = expected;
    const size_t length = strlen(name);
    while (at && (strncmp(at, name, length) != 0 || at[length] != ':')) at = (at = strchr(at, '\n')) ? at + 1 : NULL;
    *bytes = 0;
    if (!at) return "";
    const char *end = strchr(at, '\n');
    while (end && end[1] == ' ') end = strchr(end + 1, '\n');
    *bytes = end ? (size_t)(end + 1 - at) : strlen(at);
    return at;
}

int main(void) {
    const char *out = "build/tests/golden.txt";
    static char titles[16][120]; /* TEST keeps the pointer */
    char path[300];
    size_t bytes, length;
    expected = (char *)test_read_file("tests/golden/expected.txt", &bytes);
    if (!expected) return 1;
    for (int isa = 0; bitstack_isa_name(isa); isa++) {
        if (!bitstack_isa_available(isa)) continue;
        bitstack_set_isa(bitstack_isa_name(isa));
        char *title = titles[isa % 16];
        snprintf(title, sizeof titles[0], "%d golden files have the contents and bits they always had (%s)", GOLDEN_FILES, bitstack_isa());
        TEST(title);
        for (int n = 0; n < GOLDEN_FILES; n++) {
            snprintf(path, sizeof path, "tests/golden/%s.golden", golden_files[n].name);
            unsigned char *data = (unsigned char *)test_read_file(path, &bytes);
            CHECK(data, "%s is missing", path);
            if (!data) continue;
            FILE *file = fopen(out, "wb");
            if (!file) return 1;
            golden_describe(file, golden_files[n].name, data, bytes);
            fclose(file);
            char *now = (char *)test_read_file(out, &bytes);
            const char *then = part_of(golden_files[n].name, &length);
            size_t same = 0;
            while (same < bytes && same < length && now[same] == then[same]) same++;
            while (same && now[same - 1] != '\n') same--;
            CHECK(bytes == length && same == length, "%s: now   %.*s\n      %s: then  %.*s", golden_files[n].name, (int)strcspn(now + same, "\n"), now + same,
                  golden_files[n].name, (int)strcspn(then + same, "\n"), then + same);
            free(now);
            free(data);
        }
    }
    bitstack_set_isa(NULL);
    TEST("the writer writes the same bytes as then");
    for (int n = 0; n < GOLDEN_FILES; n++) {
        size_t then = 0;
        snprintf(path, sizeof path, "tests/golden/%s.golden", golden_files[n].name);
        CHECK(golden_write(n, "build/tests/golden.bitstack") == 0, "cannot write %s", golden_files[n].name);
        char *a = (char *)test_read_file(path, &then), *b = (char *)test_read_file("build/tests/golden.bitstack", &bytes);
        CHECK(a && b && then == bytes && !memcmp(a, b, bytes), "%s", golden_files[n].name);
        free(a);
        free(b);
    }
    TEST("what is unknown is refused by name if it matters and skipped if it does not");
    CHECK(strstr(part_of("unknown-mandatory", &length), "the stack needs a newer reader at") && strstr(part_of("unknown-mandatory", &length), "'a new idea'"), "mandatory metadata");
    CHECK(strstr(part_of("unknown-encoding", &length), "'w'"), "an encoding");
    CHECK(strstr(part_of("unknown-tensor-type", &length), "'f32'"), "a tensor type");
    CHECK(strstr(part_of("unknown-version", &length), "version"), "a version");
    CHECK(strstr(part_of("unknown-optional-type", &length), "type 99"), "optional metadata");
    int refused = 0;
    for (int n = 0; n < GOLDEN_FILES; n++) {
        const char *then = part_of(golden_files[n].name, &length);
        const int newer = !strncmp(golden_files[n].name, "unknown-", 8) && strcmp(golden_files[n].name, "unknown-optional-type") != 0;
        const char *said = strstr(then, "the stack needs a newer reader");
        refused += newer;
        CHECK((said && said < then + length) == newer, "%s", golden_files[n].name);
    }
    CHECK(refused == 8, "%d kinds of novelty", refused);
    remove(out);
    remove("build/tests/golden.bitstack");
    free(expected);
    return TEST_DONE();
}
