// SPDX-License-Identifier: GPL-2.0
/*
 * Random calls from several racing threads: fuzz COUNT SEED USER
 *
 * The area that it profiles is one that it cannot write. With USER "victim" it
 * is another process that writes the same addresses, profiled by itself: a
 * count of writes that an unprivileged process reads would be the victim's.
 * Root may profile the victim, so nothing is claimed for it. Prints calls and
 * answers at the end.
 */
#include <pthread.h>
#include <sched.h>

#include "guest.h"

#define THREADS 4
#define FILES 4
#define AREA (256 * PAGE)

static int files[FILES];
static char *area;
static long calls_each;
static unsigned long answers[64];
static unsigned long foreign;
static int sink;

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* An address that is good, nearly good, or anything. */
static uint64_t address(uint64_t *state)
{
	switch (next(state) % 8) {
	case 0:
		return next(state);
	case 1:
		return (uintptr_t)area + next(state) % AREA;
	case 2:
		return 0x7ffffffff000 - PAGE * (next(state) % 4);
	default:
		return (uintptr_t)area + PAGE * (next(state) % 256);
	}
}

static uint64_t length(uint64_t *state)
{
	return next(state) % 16 ? PAGE * (next(state) % 32) : next(state) >> next(state) % 64;
}

static unsigned long number(uint64_t *state)
{
	static const unsigned long good[] = {
		SENTINEL_IOC_INFO,  SENTINEL_IOC_ATTACH, SENTINEL_IOC_ADD_RANGE,
		SENTINEL_IOC_START, SENTINEL_IOC_STOP,	 SENTINEL_IOC_READ,
		SENTINEL_IOC_RESET, SENTINEL_IOC_STATUS, SENTINEL_IOC_FLUSH,
	};

	return next(state) % 16 ? good[next(state) % (sizeof(good) / sizeof(*good))] : next(state) >> 32;
}

/* Fills an argument with what a call might take. */
static void fill(uint64_t *state, unsigned long call, uint64_t *words, uint64_t *counts)
{
	for (int i = 0; i < 12; i++)
		words[i] = next(state) % 4 ? 0 : next(state);
	if (call == SENTINEL_IOC_ADD_RANGE) {
		words[0] = address(state);
		words[1] = length(state);
	} else if (call == SENTINEL_IOC_READ) {
		words[0] = address(state);
		words[1] = next(state) % 8 ? next(state) % 32 : next(state);
		words[2] = next(state) % 8 ? (uintptr_t)counts : address(state);
		words[3] = next(state) % 16 ? 0 : next(state);
	} else if (call == SENTINEL_IOC_START) {
		words[0] = next(state) % 8 ? 1 + next(state) % 2 : next(state);
	} else if (call == SENTINEL_IOC_ATTACH) {
		words[0] = next(state) % 4 ? 0 : (uint32_t)(next(state) % 400);
	}
}

static void use_area(uint64_t *state)
{
	char *page = area + PAGE * (next(state) % 256);

	switch (next(state) % 32) {
	case 0:
		madvise(page, PAGE, MADV_DONTNEED);
		break;
	case 1:
		mprotect(page, PAGE, PROT_NONE);
		mprotect(page, PAGE, PROT_READ);
		break;
	case 2:
		madvise(area, AREA, MADV_DONTNEED);
		break;
	case 3:
		/* Only with the right to read, which a racing thread may have taken: then the fuzzer's child dies. */
		if (fork() == 0) {
			(void)*(volatile char *)page;
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		break;
	default:
		/* Another thread may have taken the right to read away: the kernel finds out without a signal. */
		(void)!pwrite(sink, page, 1, 0);
	}
}

static void *run(void *argument)
{
	uint64_t state = (uintptr_t)argument * 0x9e3779b97f4a7c15ULL | 1, words[12];
	uint64_t *counts = malloc(32 * sizeof(struct sentinel_count));

	for (long i = 0; i < calls_each; i++) {
		int file = next(&state) % FILES;
		unsigned long call = number(&state);
		int result;

		fill(&state, call, words, counts);
		memset(counts, 0, 32 * sizeof(struct sentinel_count));
		if (next(&state) % 512 == 0) {
			close(files[file]);
			files[file] = open("/dev/sentinel", O_RDWR);
		}
		result = ioctl(files[file], call, next(&state) % 64 ? (void *)words : (void *)address(&state));
		__atomic_fetch_add(&answers[result < 0 && errno < 63 ? errno : 0], 1, __ATOMIC_RELAXED);
		if (!result && call == SENTINEL_IOC_READ && getuid())
			for (int page = 0; page < 32; page++)
				if (counts[2 * page + 1] > 0 && words[2] == (uintptr_t)counts)
					__atomic_fetch_add(&foreign, 1, __ATOMIC_RELAXED);
		if (i % 4 == 0)
			use_area(&state);
	}
	free(counts);
	return NULL;
}

/* Writes the area under its own profiler until it is killed. */
static void be_victim(void)
{
	int fd;

	must(!mprotect(area, AREA, PROT_READ | PROT_WRITE), "mprotect");
	fd = profile(area, 256);
	start(fd, SENTINEL_MODE_EXACT);
	for (;;) {
		write_pages(area, 256, 1);
		/* The fuzzers get most of the processors. */
		usleep(1000);
	}
}

int main(int count, char **arguments)
{
	pthread_t threads[THREADS];
	unsigned long total = 0;

	must(count == 4, "usage: fuzz COUNT SEED USER");
	calls_each = atol(arguments[1]) / THREADS;
	if (atoi(arguments[3]) > 0)
		must(!setgid(atoi(arguments[3])) && !setuid(atoi(arguments[3])), "setuid");
	sink = fileno(tmpfile());
	area = mmap((void *)0x200000000000, AREA, PROT_READ,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(area != MAP_FAILED, "mmap");
	if (!strcmp(arguments[3], "victim"))
		be_victim();
	for (int i = 0; i < FILES; i++)
		must((files[i] = open("/dev/sentinel", O_RDWR)) >= 0, "open");
	for (long i = 0; i < THREADS; i++)
		must(!pthread_create(&threads[i], NULL, run,
				     (void *)(atol(arguments[2]) * THREADS + i + 1)), "pthread_create");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 64; i++) {
		total += answers[i];
		if (answers[i])
			printf("# user %s: %lu times %s\n", arguments[3], answers[i],
			       i ? strerror(i) : "no error");
	}
	printf("fuzzed %lu foreign %lu\n", total, foreign);
	return foreign ? 1 : 0;
}
