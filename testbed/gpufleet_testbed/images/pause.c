/* Process 1 of a pod: holds the pod's namespaces, reaps orphans, exits on SIGTERM and SIGINT. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t watched;
    int received;

    /* Blocked signals wait for sigwait: no handler, no race. */
    sigemptyset(&watched);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGCHLD);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    for (;;) {
        if (sigwait(&watched, &received) != 0)
            return 1;
        if (received != SIGCHLD)
            return 0;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
    }
}
