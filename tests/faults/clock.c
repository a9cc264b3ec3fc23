/* Moves the clock of one process by the seconds in the file that CLOCK_OFFSET names, and counts in its second
   number how often a moved clock was read. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset(void) {
    static volatile long *mapped;
    const char *path = getenv("CLOCK_OFFSET");
    if (!mapped && path) {
        int file = open(path, O_RDWR);
        void *memory = mmap(0, 2 * sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        mapped = memory == MAP_FAILED ? 0 : memory;
    }
    return mapped;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    volatile long *seconds = offset();
    if (clock == CLOCK_REALTIME && seconds && seconds[0]) {
        at->tv_sec += seconds[0];
        __atomic_fetch_add(&seconds[1], 1, __ATOMIC_RELAXED);
    }
    return result;
}
