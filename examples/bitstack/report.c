#include "report.h"
#include "../llm/evaluate.h"
#include "../llm/platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { FIRST_LINE = 9, NEXT_LINE = 10, LATER = 600, LATER_LINE = 60 }; /* seconds */

/* One line of how far it is. */
static void speak(report *r, double now) {
    double passed = now - r->start, left = r->share > 0.005 ? passed * (1 - r->share) / r->share : -1;
    r->spoke = now;
    if (r->json) {
        fprintf(stderr, "{\"phase\": \"%s\", \"share\": %.4f, \"seconds\": %.1f, \"seconds_left\": ", r->phase, r->share, passed);
        if (left >= 0) fprintf(stderr, "%.0f}\n", left);
        else fputs("null}\n", stderr);
    } else {
        fprintf(stderr, "bitstack: %s: %.0f %%", r->phase, 100 * r->share);
        if (left >= 0) fprintf(stderr, ", %.0f:%02.0f left", floor(left / 60), floor(fmod(left, 60)));
        fputc('\n', stderr);
    }
    fflush(stderr);
}

/* A thread of its own, as no call may come for a while. */
static void *tick(void *user) {
    report *r = user;
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&r->wake, &r->lock, &until);
        double now = llm_seconds();
        double wait = r->spoke <= r->start ? FIRST_LINE : now - r->start < LATER ? NEXT_LINE : LATER_LINE;
        if (!r->stop && now - r->spoke >= wait) speak(r, now);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

void report_begin(report *r, int quiet, int json, int threads) {
    memset(r, 0, sizeof *r);
    r->quiet = quiet, r->json = json, r->threads = threads;
    r->start = r->spoke = llm_seconds();
    r->busy = platform_busy_seconds();
    r->phase = "starting";
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    if (!quiet && (json || !platform_is_terminal(stderr))) r->ticking = pthread_create(&r->ticker, NULL, tick, r) == 0;
}

void report_phase(report *r, const char *phase, double from, double to) {
    pthread_mutex_lock(&r->lock);
    r->phase = r->bar.label = phase;
    r->from = from, r->to = to;
    pthread_mutex_unlock(&r->lock);
    report_show(r, 0);
}

void report_show(void *user, double fraction) {
    report *r = user;
    pthread_mutex_lock(&r->lock);
    double share = r->from + fraction * (r->to - r->from);
    if (share > r->share) r->share = share;
    if (!r->quiet && !r->ticking) cli_show(&r->bar, r->share);
    pthread_mutex_unlock(&r->lock);
}

void report_pause(report *r) {
    double start = r->bar.start;
    if (r->quiet || r->ticking) return;
    cli_progress_end(&r->bar);
    r->bar.start = start; /* what has passed still tells what is left */
}

void report_end(report *r) {
    report_pause(r);
    if (r->ticking) {
        pthread_mutex_lock(&r->lock);
        r->stop = 1;
        pthread_cond_signal(&r->wake);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->ticker, NULL);
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->wake);
}

report_use report_used(const report *r) {
    report_use u = {llm_seconds() - r->start, 0, platform_peak_bytes()};
    if (u.seconds > 0) u.busy = (platform_busy_seconds() - r->busy) / (u.seconds * r->threads);
    return u;
}
