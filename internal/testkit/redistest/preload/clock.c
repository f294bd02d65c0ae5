// A wall clock of its own for the process that preloads this: the machine's,
// plus the nanoseconds in the file $REDISTEST_CLOCK, an int64 that is mapped, so
// that whoever writes it moves the clock at once. Other clocks are the machine's.
//
// Allocators ask for the time before constructors have run. So nothing here
// allocates, or needs to have been set up: until the file is mapped the offset
// is zero.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none;
static const int64_t *offset = &none;

__attribute__((constructor)) static void map_offset(void) {
	const char *path = getenv("REDISTEST_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page != MAP_FAILED)
		__atomic_store_n(&offset, (const int64_t *)page, __ATOMIC_RELEASE);
}

int clock_gettime(clockid_t id, struct timespec *now) {
	// The system call, since the function of this name is the one that we hide.
	int result = syscall(SYS_clock_gettime, id, now);
	if (result != 0 || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
		return result;
	const int64_t second = 1000000000;
	int64_t ahead = __atomic_load_n(__atomic_load_n(&offset, __ATOMIC_ACQUIRE), __ATOMIC_RELAXED);
	int64_t nanos = now->tv_nsec + ahead % second;
	now->tv_sec += ahead / second;
	if (nanos < 0) {
		nanos += second;
		now->tv_sec--;
	} else if (nanos >= second) {
		nanos -= second;
		now->tv_sec++;
	}
	now->tv_nsec = nanos;
	return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
	struct timespec precise;
	if (zone != NULL)
		syscall(SYS_gettimeofday, NULL, zone);
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
		return -1;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *seconds) {
	struct timespec precise;
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
		return -1;
	if (seconds != NULL)
		*seconds = precise.tv_sec;
	return precise.tv_sec;
}
