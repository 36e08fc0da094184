/* See journal.h. The file: an 8-byte key, the head's length, the head and a checksum of it, then records of a fixed part,
 * the blocks, and a checksum of both, all in native byte order: whoever joins parts is a machine like those that made them. */
#include "journal.h"
#include "../llm/platform.h"

#include <stdlib.h>
#include <string.h>

typedef struct fixed_part {
    bitstack_shape shape;
    double rel_err2[BITSTACK_MAX_LEVELS + 1], out_err2[BITSTACK_MAX_LEVELS + 1], out_norm2;
    double loss_at[BITSTACK_MAX_LEVELS + 1], probed[PROBED_LEVELS];
    float sensitivity;
} fixed_part;

static uint64_t mixed(uint64_t sum, const void *data, size_t bytes) {
    uint64_t pair[2] = {sum, bitstack_checksum(data, bytes)};
    return bitstack_checksum(pair, sizeof pair);
}

/* Reads a record; coded's blocks are allocated. 1 if it is whole. */
static int read_record(FILE *file, finished_matrix *m) {
    fixed_part part;
    uint64_t sum, stored;
    int whole = 1;
    memset(m, 0, sizeof *m);
    if (fread(&part, sizeof part, 1, file) != 1 || !bitstack_shape_valid(&part.shape)) return 0;
    sum = mixed(0, &part, sizeof part);
    m->coded.shape = part.shape;
    for (uint32_t l = 1; l <= part.shape.levels && whole; l++) {
        size_t bytes = (size_t)bitstack_block_bytes(&part.shape, l);
        unsigned char *block = bytes && bytes < (size_t)1 << 40 ? malloc(bytes) : NULL;
        m->coded.blocks[l - 1] = block;
        whole = block && fread(block, 1, bytes, file) == bytes;
        if (whole) sum = mixed(sum, block, bytes);
    }
    if (!whole || fread(&stored, sizeof stored, 1, file) != 1 || stored != sum) {
        for (uint32_t l = 0; l < BITSTACK_MAX_LEVELS; l++) free(m->coded.blocks[l]);
        return 0;
    }
    memcpy(m->coded.rel_err2, part.rel_err2, sizeof part.rel_err2);
    memcpy(m->coded.out_err2, part.out_err2, sizeof part.out_err2);
    memcpy(m->loss_at, part.loss_at, sizeof part.loss_at);
    memcpy(m->probed, part.probed, sizeof part.probed);
    m->coded.out_norm2 = part.out_norm2;
    m->sensitivity = part.sensitivity;
    return 1;
}

/* Counts the whole records from here on and goes back to the first. -1 on failure. */
static int count_records(journal *j) {
    long begin = ftell(j->file), end = begin;
    finished_matrix m;
    while (read_record(j->file, &m)) {
        bitstack_coded_free(&m.coded);
        end = ftell(j->file);
        j->kept++;
    }
    j->end = end;
    return begin < 0 || fseek(j->file, begin, SEEK_SET) != 0 ? -1 : 0;
}

int journal_read(journal *j, const char *path, uint64_t *key, void **head, size_t *bytes) {
    uint64_t length, sum;
    memset(j, 0, sizeof *j);
    *head = NULL;
    j->file = platform_open(path, "rb");
    if (j->file && fread(key, sizeof *key, 1, j->file) == 1 && fread(&length, sizeof length, 1, j->file) == 1 && length < (uint64_t)1 << 30 &&
        (*head = malloc((size_t)length + 1)) && fread(*head, 1, (size_t)length, j->file) == length && fread(&sum, sizeof sum, 1, j->file) == 1 &&
        sum == mixed(*key, *head, (size_t)length) && count_records(j) == 0) {
        *bytes = (size_t)length;
        return 0;
    }
    free(*head);
    *head = NULL;
    journal_close(j);
    return -1;
}

int journal_open(journal *j, const char *path, uint64_t key, const void *head, size_t bytes) {
    uint64_t stored, length = bytes, sum = mixed(key, head, bytes);
    size_t stored_bytes;
    void *stored_head;
    int same = journal_read(j, path, &stored, &stored_head, &stored_bytes) == 0 && stored == key;
    free(stored_head);
    journal_close(j);
    if (same) {
        long begin = (long)(sizeof key + sizeof length + bytes + sizeof sum);
        j->file = platform_open(path, "r+b");
        /* What follows the last whole record was cut short; it is written over. */
        return !j->file || platform_cut_here(j->file, j->end) || fseek(j->file, begin, SEEK_SET);
    }
    j->kept = 0;
    j->file = platform_open(path, "w+b");
    return !j->file || fwrite(&key, sizeof key, 1, j->file) != 1 || fwrite(&length, sizeof length, 1, j->file) != 1 ||
           fwrite(head, 1, bytes, j->file) != bytes || fwrite(&sum, sizeof sum, 1, j->file) != 1 || fflush(j->file);
}

int journal_next(journal *j, finished_matrix *m) {
    if (!j->file || !j->kept) return 0;
    if (!read_record(j->file, m)) return -1; /* it was whole when the journal was opened */
    if (--j->kept == 0) fseek(j->file, 0, SEEK_END);
    return 1;
}

int journal_add(journal *j, const finished_matrix *m) {
    fixed_part part;
    uint64_t sum;
    if (!j->file) return 0;
    memset(&part, 0, sizeof part);
    part.shape = m->coded.shape;
    memcpy(part.rel_err2, m->coded.rel_err2, sizeof part.rel_err2);
    memcpy(part.out_err2, m->coded.out_err2, sizeof part.out_err2);
    memcpy(part.loss_at, m->loss_at, sizeof part.loss_at);
    memcpy(part.probed, m->probed, sizeof part.probed);
    part.out_norm2 = m->coded.out_norm2;
    part.sensitivity = m->sensitivity;
    sum = mixed(0, &part, sizeof part);
    if (fwrite(&part, sizeof part, 1, j->file) != 1) return -1;
    for (uint32_t l = 1; l <= part.shape.levels; l++) {
        size_t bytes = (size_t)bitstack_block_bytes(&part.shape, l);
        if (fwrite(m->coded.blocks[l - 1], 1, bytes, j->file) != bytes) return -1;
        sum = mixed(sum, m->coded.blocks[l - 1], bytes);
    }
    return fwrite(&sum, sizeof sum, 1, j->file) != 1 || platform_flush(j->file);
}

void journal_close(journal *j) {
    if (j->file) fclose(j->file);
    j->file = NULL;
}
