/* Moves the clock of one process by the seconds in the file that CLOCK_OFFSET names. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile long *offset(void) {
    static const volatile long *mapped;
    const char *path = getenv("CLOCK_OFFSET");
    if (!mapped && path) {
        int file = open(path, O_RDONLY);
        void *memory = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        close(file);
        mapped = memory == MAP_FAILED ? 0 : memory;
    }
    return mapped;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    const volatile long *seconds = offset();
    if (clock == CLOCK_REALTIME && seconds)
        at->tv_sec += *seconds;
    return result;
}
