/* See journal.h. The file: an 8-byte key, then records of a fixed part, the blocks, and a checksum of both, all
 * in native byte order: it never leaves the machine. */
#include "journal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int journal_open(journal *j, const char *path, uint64_t key) {
    uint64_t stored = 0;
    long end = (long)sizeof key;
    memset(j, 0, sizeof *j);
    j->file = fopen(path, "r+b");
    if (j->file && fread(&stored, sizeof stored, 1, j->file) == 1 && stored == key) {
        finished_matrix m;
        while (read_record(j->file, &m)) {
            bitstack_coded_free(&m.coded);
            end = ftell(j->file);
            j->kept++;
        }
        /* What follows the last whole record was cut short; it is written over. */
        return ftruncate(fileno(j->file), end) || fseek(j->file, (long)sizeof key, SEEK_SET);
    }
    if (j->file) fclose(j->file);
    j->file = fopen(path, "w+b");
    return !j->file || fwrite(&key, sizeof key, 1, j->file) != 1;
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
    return fwrite(&sum, sizeof sum, 1, j->file) != 1 || fflush(j->file) || fsync(fileno(j->file));
}

void journal_close(journal *j) {
    if (j->file) fclose(j->file);
    j->file = NULL;
}
