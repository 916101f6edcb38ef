/* The state file, and the lock for its parsed content. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define POLL_MS 100 /* if inotify is not available */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_state state;
static bool present;
static struct stat seen;

void sim_lock(void) { pthread_mutex_lock(&lock); }
void sim_unlock(void) { pthread_mutex_unlock(&lock); }

double sim_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void sim_pause(unsigned int milliseconds) {
    struct timespec pause = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* GPUFLEET_SIM_STATE, else `gpus.state` in the folder of this library. */
static const char *state_path(void) {
    static char path[4096];
    if (path[0] != '\0') return path;
    const char *named = getenv("GPUFLEET_SIM_STATE");
    if (named != NULL && named[0] != '\0') {
        snprintf(path, sizeof path, "%s", named);
        return path;
    }
    Dl_info library;
    const char *slash = NULL;
    if (dladdr((const void *)&lock, &library) != 0) slash = strrchr(library.dli_fname, '/');
    int folder = slash == NULL ? 0 : (int)(slash - library.dli_fname + 1);
    snprintf(path, sizeof path, "%.*sgpus.state", folder, folder == 0 ? "" : library.dli_fname);
    return path;
}

static void state_folder(char folder[4096]) {
    snprintf(folder, 4096, "%s", state_path());
    char *slash = strrchr(folder, '/');
    if (slash == NULL) snprintf(folder, 4096, ".");
    else slash[slash == folder ? 1 : 0] = '\0';
}

int sim_open_control(void) {
    char folder[4096], path[4200];
    state_folder(folder);
    snprintf(path, sizeof path, "%s/nvidiactl", folder);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int sim_watch(void) {
    char folder[4096];
    state_folder(folder);
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch >= 0 && inotify_add_watch(watch, folder, IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVE) < 0) {
        close(watch);
        watch = -1;
    }
    return watch;
}

void sim_await(int watch, unsigned int milliseconds) {
    char changes[4096];
    struct pollfd waiting = {.fd = watch, .events = POLLIN};
    if (watch < 0) sim_pause(milliseconds < POLL_MS ? milliseconds : POLL_MS);
    else if (poll(&waiting, 1, (int)milliseconds) > 0)
        while (read(watch, changes, sizeof changes) > 0) continue;
}

static bool same(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

struct sim_state *sim_current(void) {
    struct stat found;
    if (stat(state_path(), &found) != 0) {
        if (present) sim_free(&state);
        present = false;
        memset(&seen, 0, sizeof seen);
        return NULL;
    }
    if (same(&found, &seen)) return present ? &state : NULL;
    seen = found;
    struct sim_state fresh;
    char problem[600];
    if (sim_parse(state_path(), &fresh, problem, sizeof problem)) {
        sim_free(&state);
        state = fresh;
        present = true;
    } else {
        /* Keeps the previous state; reports the error once per version of the file. */
        fprintf(stderr, "gpufleet simulated NVML: %s: %s\n", state_path(), problem);
    }
    return present ? &state : NULL;
}
