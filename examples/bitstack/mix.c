#include "mix.h"
#include "../llm/openings.h"
#include "../llm/platform.h"

#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static int is_none(const mix *m) { return m->texts && strcmp(m->texts, "none") == 0; }

/* The next item of the list, in `name`; where the list as a whole is a file it is one item. 0 at the end. */
static int next_item(const char **list, char *name, size_t room) {
    platform_status status;
    size_t length = platform_look(*list, &status) == 0 ? strlen(*list) : strcspn(*list, ",");
    if (!**list) return 0;
    if (length >= room) length = room - 1;
    memcpy(name, *list, length);
    name[length] = 0;
    *list += length;
    if (**list == ',') ++*list;
    return 1;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

typedef struct names {
    char **all;
    size_t count;
} names;

static void free_names(names *n) {
    for (size_t i = 0; i < n->count; i++) free(n->all[i]);
    free(n->all);
}

static int add_name(names *n, const char *folder, const char *file) {
    char **more = realloc(n->all, (n->count + 1) * sizeof *more), *path = malloc(strlen(folder) + strlen(file) + 2);
    if (more) n->all = more;
    if (!more || !path) {
        free(path);
        return -1;
    }
    strcpy(path, folder);
    if (*file) strcat(strcat(path, "/"), file);
    n->all[n->count++] = path;
    return 0;
}

/* An item's files: itself, or those in the folder that do not begin with a dot, in the order of their names. */
static int list_files(const char *item, names *n) {
    platform_folder *folder = platform_folder_open(item);
    int failed = 0;
    if (!folder) return add_name(n, item, "");
    for (const char *entry; !failed && (entry = platform_folder_next(folder)); ) {
        if (entry[0] == '.') continue;
        platform_status status;
        failed = add_name(n, item, entry) != 0;
        if (!failed && (platform_look(n->all[n->count - 1], &status) != 0 || status.kind != PLATFORM_FILE)) free(n->all[--n->count]);
    }
    platform_folder_close(folder);
    if (n->count) qsort(n->all, n->count, sizeof *n->all, by_name);
    return failed ? -1 : 0;
}

int mix_same_file(const mix *m, const char *out) {
    char item[2048];
    const char *list = m->texts ? m->texts : "";
    if (is_none(m)) return CLI_OK;
    while (next_item(&list, item, sizeof item))
        if (cli_same_file(item, out) != CLI_OK) return CLI_FAILED;
    return CLI_OK;
}

/* ---- text ---- */

typedef struct ids {
    uint32_t *all;
    size_t count;
} ids;

static int read_file(const mix *m, const char *path, const llm_tokenizer *tokenizer, ids *to) {
    size_t bytes;
    uint32_t *some = NULL;
    unsigned char *text = cli_read(path, &bytes);
    if (!text) return CLI_FAILED;
    int64_t count = (m->special ? llm_encode_marked : llm_encode)(tokenizer, (const char *)text, bytes, &some);
    uint32_t *more = count < 0 ? NULL : realloc(to->all, (to->count + (size_t)count + 1) * sizeof *more);
    if (more) {
        to->all = more;
        if (count) memcpy(more + to->count, some, (size_t)count * sizeof *some);
        to->count += (size_t)count;
    }
    free(text), free(some);
    return more ? CLI_OK : cli_failed("%s: out of memory", path);
}

/* At most `most` rows of an item. One that is shorter than a row is read again from its beginning. */
static int read_item(const mix *m, const char *item, const llm_tokenizer *tokenizer, size_t most, llm_rows *rows) {
    names files = {NULL, 0};
    ids all = {NULL, 0};
    int status = list_files(item, &files) == 0 ? CLI_OK : cli_failed("%s: out of memory", item);
    for (size_t i = 0; i < files.count && status == CLI_OK; i++)
        status = read_file(m, files.all[i], tokenizer, &all);
    if (status == CLI_OK && all.count < 2) status = cli_failed("%s: expected at least two tokens, found %zu", item, all.count);
    if (status == CLI_OK && all.count < m->length) {
        uint32_t *more = realloc(all.all, m->length * sizeof *more);
        if (more) all.all = more;
        else status = cli_failed("%s: out of memory", item);
        for (size_t i = 0; more && all.count < m->length; i++) all.all[all.count++] = all.all[i];
    }
    if (status == CLI_OK && llm_rows_cut(rows, all.all, all.count, m->length, most) != 0) status = cli_failed("%s: out of memory", item);
    free_names(&files);
    free(all.all);
    return status;
}

/* ---- mixing ---- */

/* Puts `more` between the rows that are there, evenly; frees it. */
static int merge(llm_rows *rows, llm_rows *more) {
    if (!rows->count || !more->count) {
        if (!rows->count) *rows = *more;
        return 0;
    }
    size_t a = 0, b = 0, length = rows->length;
    uint32_t *all = malloc((rows->count + more->count) * length * sizeof *all);
    for (size_t i = 0; all && i < rows->count + more->count; i++) { /* whose next row's middle comes first */
        int first = b == more->count || (a < rows->count && (2 * a + 1) * more->count <= (2 * b + 1) * rows->count);
        memcpy(all + i * length, first ? rows->ids + a++ * length : more->ids + b++ * length, length * sizeof *all);
    }
    free(rows->ids), free(more->ids);
    rows->ids = all;
    rows->count += more->count;
    return all ? 0 : -1;
}

static int read_texts(const mix *m, const llm_tokenizer *tokenizer, size_t most, llm_rows *rows) {
    char item[2048];
    size_t items = 0;
    int status = CLI_OK;
    for (const char *list = m->texts; next_item(&list, item, sizeof item); ) items++;
    for (const char *list = m->texts; status == CLI_OK && next_item(&list, item, sizeof item); ) {
        llm_rows more = {NULL, 0, 0};
        status = read_item(m, item, tokenizer, most / items ? most / items : 1, &more);
        if (status == CLI_OK && merge(rows, &more) != 0) status = cli_failed("%s: out of memory", item);
    }
    return status;
}

static int write_own(const mix *m, const llm_model *model, const llm_tokenizer *tokenizer, size_t count, llm_progress progress, void *user, llm_rows *rows) {
    llm_rows own = {NULL, 0, 0};
    llm_writing how = {.begin = -1, .end = -1, .temperature = 0.9f, .top_p = 0.98f, .seed = m->seed, .bytes = m->bytes, .threads = m->threads};
    llm_opening *openings = NULL;
    size_t opening_count = 0;
    int failed = 0;
    if (tokenizer) {
        failed = llm_openings_make(&openings, &opening_count, model, tokenizer) != 0;
        how.end = tokenizer->eos;
        if (tokenizer->add_bos) how.begin = tokenizer->bos;
    }
    how.openings = openings, how.opening_count = opening_count;
    failed = failed || llm_write_rows(&own, model, count, m->length, &how, progress, user) != 0 || merge(rows, &own) != 0;
    llm_openings_free(openings, opening_count);
    return failed ? cli_failed("%s: out of memory", model->source.path) : CLI_OK;
}

int mix_rows(const mix *m, const llm_model *model, llm_progress progress, void *user, llm_rows *rows) {
    llm_tokenizer tokenizer;
    llm_error error;
    int status = CLI_OK;
    if (is_none(m)) return CLI_OK;
    int loaded = llm_tokenizer_load(&tokenizer, &model->source, &error) == 0;
    if (loaded && tokenizer.count > model->config.vocabulary) {
        if (m->texts)
            status = cli_failed("%s: expected at most %u tokens, the tokenizer has %u", model->source.path, model->config.vocabulary, tokenizer.count);
        llm_tokenizer_free(&tokenizer);
        loaded = 0;
    } else if (!loaded && m->texts) status = cli_failed("%s", error.message);
    double share = m->self ? 0 : m->self_share;
    size_t most = (size_t)((double)m->rows * (1 - share) + 0.5), own = (m->self + m->length - 2) / (m->length - 1);
    if (status == CLI_OK && m->texts) status = read_texts(m, &tokenizer, most ? most : 1, rows);
    if (!m->self) own = m->texts ? (size_t)((double)rows->count * share / (1 - share) + 0.5) : MIX_DEFAULT_SELF / (m->length - 1);
    if (status == CLI_OK && own) status = write_own(m, model, loaded ? &tokenizer : NULL, own, progress, user, rows);
    if (loaded) llm_tokenizer_free(&tokenizer);
    return status;
}
