// SPDX-License-Identifier: GPL-2.0
/* Much at once: START and STOP under load, fork storms, pages that move under a profiler. SENTINEL_STRESS says how much. */
#include <numaif.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "guest.h"

static char *pages;
static volatile bool finished;

static void *touch(void *unused)
{
	(void)unused;
	while (!finished) {
		write_pages(pages, PAGES, 1);
		read_pages(pages, PAGES, 1);
	}
	return NULL;
}

static void *move(void *unused)
{
	void *list[PAGES];
	int nodes[PAGES], status[PAGES];

	(void)unused;
	for (int round = 0; !finished; round++) {
		for (int i = 0; i < PAGES; i++) {
			list[i] = pages + i * PAGE;
			nodes[i] = round & 1;
		}
		syscall(SYS_move_pages, 0, (long)PAGES, list, nodes, status, MPOL_MF_MOVE);
	}
	return NULL;
}

static void *protect(void *unused)
{
	(void)unused;
	while (!finished) {
		must(!mprotect(pages, PAGES * PAGE, PROT_READ), "mprotect");
		must(!mprotect(pages, PAGES * PAGE, PROT_READ | PROT_WRITE), "mprotect");
		must(!madvise(pages + 8 * PAGE, 8 * PAGE, MADV_DONTNEED), "madvise");
	}
	return NULL;
}

static void *forks(void *unused)
{
	(void)unused;
	while (!finished) {
		pid_t child = fork();

		if (!child) {
			write_pages(pages, PAGES, 1);
			_exit(0);
		}
		if (child > 0)
			waitpid(child, NULL, 0);
	}
	return NULL;
}

static void *reads(void *unused)
{
	(void)unused;
	while (!finished)
		read_pages(pages, PAGES, 1);
	return NULL;
}

/* Starts the helpers, switches the profiler on and off, joins the helpers. */
static void cycles(const char *what, void *(*const *helpers)(void *), int helpers_count, int count)
{
	pthread_t list[8];
	int fd = profile(pages, PAGES), made = 0;
	bool counted = false;

	finished = false;
	for (int i = 0; i < helpers_count; i++)
		must(!pthread_create(&list[i], NULL, helpers[i], NULL), "pthread_create");
	for (; made < count; made++) {
		start(fd, made % 2 ? SENTINEL_MODE_EXACT : SENTINEL_MODE_TLB_MISS);
		if (made % 64 == 0)
			usleep(2000);
		stop(fd);
	}
	finished = true;
	for (int i = 0; i < helpers_count; i++)
		pthread_join(list[i], NULL);
	counted = status_of(fd).reads + status_of(fd).writes > 0;
	check(counted, "%d times START and STOP %s", made, what);
	close(fd);
}

/* Runs for a while with one START, and expects the memory to be as it was. */
static void storm(const char *what, void *(*const *helpers)(void *), int helpers_count, int milliseconds)
{
	pthread_t list[8];
	int fd = profile(pages, PAGES);
	struct sentinel_status status;

	finished = false;
	start(fd, SENTINEL_MODE_EXACT);
	for (int i = 0; i < helpers_count; i++)
		must(!pthread_create(&list[i], NULL, helpers[i], NULL), "pthread_create");
	usleep(1000 * milliseconds);
	finished = true;
	for (int i = 0; i < helpers_count; i++)
		pthread_join(list[i], NULL);
	stop(fd);
	status = status_of(fd);
	check(status.reads + status.writes > 0 && !status.left_open,
	      "%s: %llu accesses, %llu left open", what,
	      (unsigned long long)(status.reads + status.writes),
	      (unsigned long long)status.left_open);
	close(fd);
}

void test_stress(void)
{
	static void *(*const loads[])(void *) = { touch, reads, move };
	static void *(*const movers[])(void *) = { touch, touch, move };
	static void *(*const changers[])(void *) = { reads, reads, protect };
	static void *(*const forkers[])(void *) = { touch, forks, forks };
	int milliseconds = times(3000);

	pages = new_pages(PAGES);
	memset(pages, 1, PAGES * PAGE);
	cycles("while threads use and move the pages", loads, 3, times(10000));
	storm("move_pages under a profiler", movers, 3, milliseconds);
	storm("mprotect and MADV_DONTNEED under a profiler", changers, 3, milliseconds);
	storm("fork storm under a profiler", forkers, 3, milliseconds);
	munmap(pages, PAGES * PAGE);
}
