#include "summary.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double bits_at(const assembly *a, const assembly_point *p) { return a->weights > 0 ? 8 * (double)p->layer_bytes / a->weights : 0; }

static void print_json(const assembly *a, const char *out, const char *next, const report_use *use, const report *r) {
    cli_json_begin();
    cli_json_text("file", out, strlen(out));
    cli_json_whole("bytes_most", a->base + a->points[a->point_count - 1].bytes);
    cli_json_whole("bytes_least", a->base + a->points[0].bytes);
    cli_json_key("sizes");
    putchar('[');
    for (int i = 0; i < a->point_count; i++)
        printf("%s{\"bytes\": %llu, \"bits_per_weight\": %.4g, \"predicted_kl\": %.6g}", i ? ", " : "", (unsigned long long)(a->base + a->points[i].bytes),
               bits_at(a, &a->points[i]), a->points[i].loss);
    putchar(']');
    cli_json_number("seconds", use->seconds);
    cli_json_whole("threads", (uint64_t)r->threads);
    cli_json_number("busy", use->busy);
    cli_json_whole("peak_bytes", use->memory);
    cli_json_text("next", next, strlen(next));
    cli_json_end();
}

void summary_print(const assembly *a, const char *out, const char *model, report *r) {
    char next[2400];
    report_use use = report_used(r);
    const assembly_point *middle = &a->points[a->point_count / 2];
    if (r->quiet || !a->point_count) return;
    report_pause(r);
    snprintf(next, sizeof next, "bitstack run %s --prompt \"The sea was\" --budget %.0fMB", out, ceil((double)(a->base + middle->bytes) / 1e6));
    if (r->json) {
        print_json(a, out, next, &use, r);
        return;
    }
    printf("%s: %s of %s, %u matrices\n\n", out, cli_bytes(a->base + a->points[a->point_count - 1].bytes), model, a->matrices);
    printf("%12s %10s %14s\n", "memory", "bits", "predicted kl");
    for (int i = 0; i < a->point_count; i++)
        printf("%12s %10.2f %14.4f\n", cli_bytes(a->base + a->points[i].bytes), bits_at(a, &a->points[i]), a->points[i].loss);
    printf("\ntook %.0f:%02.0f, %d threads %.0f %% busy, %s of memory at most\nnext: %s\n", floor(use.seconds / 60), floor(fmod(use.seconds, 60)),
           r->threads, 100 * use.busy, cli_bytes(use.memory), next);
}
