/* A machine whose clock fails, to be loaded before the C library: in a thread that has received "clock-fails-in: N" the
   Nth reading of a clock from then on is an error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static const char TOLD[] = "clock-fails-in: ";
static __thread int readings_left;

ssize_t recv(int socket, void *buffer, size_t length, int flags) {
    static ssize_t (*next)(int, void *, size_t, int);
    if (!next) next = dlsym(RTLD_NEXT, "recv");
    ssize_t received = next(socket, buffer, length, flags);
    if (received > 0) {
        const char *told = memmem(buffer, received, TOLD, sizeof TOLD - 1);
        if (told) readings_left = atoi(told + sizeof TOLD - 1);
    }
    return received;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    if (readings_left > 0 && --readings_left == 0) {
        errno = EINVAL;
        return -1;
    }
    return next(clock, now);
}
