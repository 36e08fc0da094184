/* bitstack join: the parts that `compress --part` made, put together into the stack that one run would have written. */
#include "assemble.h"
#include "report.h"
#include "summary.h"
#include "../llm/parallel.h"
#include "../llm/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: bitstack join MODEL -o OUT.bitstack [--parts N] [--keep] [--threads N] [--quiet] [--json]\n\n"
    "Puts OUT.bitstack.part-1-of-N to -N-of-N together, which bitstack compress MODEL -o OUT.bitstack --part 1/N and so on\n"
    "left: byte for byte what one run would have written, on machines of the same kind. Each part goes through the\n"
    "calibration text by itself and encodes every N-th layer; one that was stopped goes on where it was when it is started\n"
    "again. With GNU parallel on one machine, with a Slurm array on many (the folder shared):\n\n"
    "  seq 4 | parallel -j 4 bitstack compress MODEL -o OUT.bitstack --threads 4 --part {}/4\n"
    "  bitstack join MODEL -o OUT.bitstack\n\n"
    "  #!/bin/sh\n"
    "  #SBATCH --array=1-8 --cpus-per-task=16 --mem=8G --requeue\n"
    "  bitstack compress MODEL -o OUT.bitstack --threads $SLURM_CPUS_PER_TASK --part $SLURM_ARRAY_TASK_ID/8\n\n"
    "and, when the array is done (sbatch --dependency=afterok:JOB), bitstack join MODEL -o OUT.bitstack.\n\n"
    "The result is what compress --tune 0 writes: bitstack tune OUT.bitstack --model MODEL --calibrate TEXT is the rest.\n\n"
    "  --parts N   how many there are; found out by their names\n"
    "  --keep      do not remove them when OUT.bitstack is complete\n"
    "  --threads N that order the blocks where that takes measuring (--order paper)\n";

typedef struct joined {
    uint32_t parts;
    char **paths;
    journal *journals;
    part_head head; /* of the first */
    llm_rows probe;
} joined;

static void joined_free(joined *j) {
    for (uint32_t k = 0; k < j->parts; k++) {
        if (j->journals) journal_close(&j->journals[k]);
        if (j->paths) free(j->paths[k]);
    }
    free(j->paths), free(j->journals);
    llm_rows_free(&j->probe);
}

/* How many parts there are, by the name of any; 0 if there are none, or of two kinds. */
static uint32_t find_parts(const char *out) {
    uint32_t found = 0, kinds = 0;
    for (uint32_t n = 1; n <= 4096; n++) {
        char *path = part_path(out, 0, n);
        if (path && platform_there(path)) found = n, kinds++;
        free(path);
    }
    return kinds == 1 ? found : 0;
}

static int open_part(joined *j, const char *model, uint64_t key, uint32_t k) {
    void *data;
    uint64_t stored;
    size_t bytes;
    part_head head;
    if (journal_read(&j->journals[k], j->paths[k], &stored, &data, &bytes) != 0)
        return cli_failed("%s: expected a part of %u: is it still to be made?", j->paths[k], j->parts);
    memset(&head, 0, sizeof head);
    if (bytes >= sizeof head) memcpy(&head, data, sizeof head);
    int status = CLI_OK;
    uint64_t ids = (uint64_t)head.probe_rows * head.probe_length * sizeof *j->probe.ids;
    if (bytes != sizeof head + ids || head.part != k || head.parts != j->parts) status = cli_failed("%s: expected part %u of %u", j->paths[k], k + 1, j->parts);
    else if (head.model != key) status = cli_failed("%s: made of another model than %s", j->paths[k], model);
    else if (k && head.run != j->head.run) status = cli_failed("%s: made with other options than %s", j->paths[k], j->paths[0]);
    else if (!k) {
        j->head = head;
        j->probe.ids = malloc((size_t)ids + 1);
        j->probe.count = head.probe_rows, j->probe.length = head.probe_length;
        if (j->probe.ids) memcpy(j->probe.ids, (unsigned char *)data + sizeof head, (size_t)ids);
        else status = cli_failed("%s: out of memory", j->paths[k]);
    }
    free(data);
    return status;
}

/* How many matrices a part has to have. */
static uint32_t wanted(const joined *j, const llm_model *m, uint32_t k) {
    uint32_t count = 0;
    for (uint32_t l = 0; l < m->config.layers; l++)
        if (part_of(l, j->parts) == k) count += LLM_LINEARS;
    if (j->head.embeddings != CHOICE_NO && part_of(m->config.layers, j->parts) == k) count += (uint32_t)vocabulary_matrices(m);
    return count;
}

static int check_complete(const joined *j, const llm_model *m) {
    for (uint32_t k = 0; k < j->parts; k++)
        if ((uint32_t)j->journals[k].kept != wanted(j, m, k))
            return cli_failed("%s: has %d of %u matrices: run compress --part %u/%u again, it goes on from there", j->paths[k], j->journals[k].kept,
                              wanted(j, m, k), k + 1, j->parts);
    return CLI_OK;
}

static bitstack_result join_all(joined *j, const llm_model *m, assembly *a, report *r) {
    bitstack_result result = BITSTACK_OK;
    finished_matrix matrix;
    char name[64];
    for (uint32_t i = 0; i < m->config.layers * LLM_LINEARS && result == BITSTACK_OK; i++) {
        uint32_t layer = i / LLM_LINEARS;
        matrix_name(layer, (int)(i % LLM_LINEARS), name);
        if (journal_next(&j->journals[part_of(layer, j->parts)], &matrix) != 1) return BITSTACK_ERROR_IO;
        result = assembly_take(a, name, &matrix);
        report_show(r, (double)i / (m->config.layers * LLM_LINEARS));
    }
    if (result == BITSTACK_OK) result = assembly_correct(a);
    for (int i = 0; i < vocabulary_matrices(m) && result == BITSTACK_OK; i++) {
        int coded = a->embeddings != CHOICE_NO;
        if (coded && journal_next(&j->journals[part_of(m->config.layers, j->parts)], &matrix) != 1) return BITSTACK_ERROR_IO;
        result = assembly_vocabulary(a, i, coded ? &matrix : NULL);
    }
    return result;
}

static int join(joined *j, const char *path, const char *out, int threads, report *r) {
    llm_model m;
    llm_model_options load;
    llm_error error;
    assembly a;
    uint64_t key = model_key(path, 0);
    int status = CLI_OK;
    for (uint32_t k = 0; k < j->parts && status == CLI_OK; k++) status = open_part(j, path, key, k);
    if (status != CLI_OK) return status;
    memset(&load, 0, sizeof load);
    load.forget = 1, load.unpack_bytes = 1;
    if (llm_model_open(&m, path, &load, &error) != 0) return cli_failed("%s", error.message);
    status = check_complete(j, &m);
    if (status == CLI_OK) {
        bitstack_result result = assembly_begin(&a, &m, out, (order)j->head.order, (choice)j->head.embeddings);
        if (result == BITSTACK_OK) result = join_all(j, &m, &a, r);
        status = assembly_finish(&a, result, &j->probe, threads);
        if (status == CLI_OK) summary_print(&a, out, path, r);
    }
    llm_model_close(&m);
    return status;
}

int command_join(int argc, char **argv) {
    const char *path, *out = NULL;
    joined j;
    report r;
    uint32_t threads = (uint32_t)llm_processors();
    int keep = 0, quiet = 0, json = 0;
    memset(&j, 0, sizeof j);
    const cli_option table[] = {{"-o", CLI_TEXT, &out}, {"--parts", CLI_WHOLE, &j.parts}, {"--keep", CLI_FLAG, &keep}, {"--threads", CLI_WHOLE, &threads},
                                {"--quiet", CLI_FLAG, &quiet}, {"--json", CLI_FLAG, &json}, {NULL, CLI_FLAG, NULL}};
    int stop = cli_parse(argc, argv, "join", help, table, &path, 1);
    if (stop) return stop - 1;
    if (!out) return cli_usage("join", "-o is missing");
    if (j.parts > 4096) return cli_usage("join", "--parts: expected 1 to 4096");
    if (cli_same_file(path, out) != CLI_OK) return CLI_FAILED;
    if (!j.parts && !(j.parts = find_parts(out)))
        return cli_failed("%s.part-1-of-N: expected to be there, for one N: see bitstack join --help, or --parts", out);
    j.paths = calloc(j.parts, sizeof *j.paths);
    j.journals = calloc(j.parts, sizeof *j.journals);
    int status = j.paths && j.journals ? CLI_OK : cli_failed("%s: out of memory", out);
    for (uint32_t k = 0; k < j.parts && status == CLI_OK; k++)
        if (!(j.paths[k] = part_path(out, k, j.parts))) status = cli_failed("%s: out of memory", out);
    report_begin(&r, quiet, json, (int)threads);
    report_phase(&r, "joining", 0, 1);
    if (status == CLI_OK) status = join(&j, path, out, (int)threads, &r);
    report_end(&r);
    for (uint32_t k = 0; k < j.parts && status == CLI_OK && !keep; k++) platform_remove(j.paths[k]);
    joined_free(&j);
    return status;
}
