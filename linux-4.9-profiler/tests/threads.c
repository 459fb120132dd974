// SPDX-License-Identifier: GPL-2.0
/* Many threads on the same pages. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>

#include "guest.h"

#define MOST 64

struct work {
	char *pages;
	size_t count;
	int rounds;
	pthread_barrier_t *barrier;
};

static void *run(void *argument)
{
	struct work *work = argument;

	pthread_barrier_wait(work->barrier);
	write_pages(work->pages, work->count, work->rounds);
	return NULL;
}

static struct sentinel_count count_threads(char *pages, size_t count, int threads, int rounds)
{
	pthread_barrier_t barrier;
	pthread_t list[MOST * 4];
	struct work work = { pages, count, rounds, &barrier };
	struct sentinel_count sum;
	int fd = profile(pages, count);

	pthread_barrier_init(&barrier, NULL, threads);
	start(fd, SENTINEL_MODE_EXACT);
	for (int i = 0; i < threads; i++)
		must(!pthread_create(&list[i], NULL, run, &work), "pthread_create");
	for (int i = 0; i < threads; i++)
		pthread_join(list[i], NULL);
	stop(fd);
	sum = sum_of(fd, pages, count);
	check(status_of(fd).left_open == 0, "no page was left open with %d threads", threads);
	close(fd);
	return sum;
}

static void expect(char *pages, size_t count, int threads, int rounds)
{
	uint64_t due = (uint64_t)threads * count * rounds;
	struct sentinel_count sum = count_threads(pages, count, threads, rounds);

	check(sum.writes == due, "%d threads, %zu pages, %d rounds: %llu writes, expected %llu",
	      threads, count, rounds, (unsigned long long)sum.writes, (unsigned long long)due);
}

/* Reads the pages once per turn, on the other processor. */
static void *read_in_turn(void *argument)
{
	struct work *work = argument;
	cpu_set_t other;

	CPU_ZERO(&other);
	CPU_SET(1, &other);
	must(!sched_setaffinity(0, sizeof(other), &other), "sched_setaffinity");
	for (int round = 0; round < work->rounds; round++) {
		pthread_barrier_wait(work->barrier);
		read_pages(work->pages, work->count, 1);
		pthread_barrier_wait(work->barrier);
	}
	return NULL;
}

/* FLUSH empties the TLBs of all processors: each of two counts every page once per round. */
static void expect_flushed(char *pages, size_t count, int rounds)
{
	pthread_barrier_t barrier;
	struct work work = { pages, count, rounds, &barrier };
	uint64_t due = 2UL * count * rounds;
	struct sentinel_count sum;
	cpu_set_t all, one;
	pthread_t reader;
	int fd;

	memset(pages, 0, count * PAGE);
	fd = profile(pages, count);
	pthread_barrier_init(&barrier, NULL, 2);
	must(!sched_getaffinity(0, sizeof(all), &all), "sched_getaffinity");
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	must(!sched_setaffinity(0, sizeof(one), &one), "sched_setaffinity");
	must(!pthread_create(&reader, NULL, read_in_turn, &work), "pthread_create");
	start(fd, SENTINEL_MODE_TLB_MISS);
	for (int round = 0; round < rounds; round++) {
		flush(fd);
		read_pages(pages, count, 1);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
	}
	stop(fd);
	pthread_join(reader, NULL);
	must(!sched_setaffinity(0, sizeof(all), &all), "sched_setaffinity");
	sum = sum_of(fd, pages, count);
	check(sum.reads == due && !sum.writes,
	      "FLUSH on two processors, %d rounds: %llu reads, expected %llu", rounds,
	      (unsigned long long)sum.reads, (unsigned long long)due);
	close(fd);
}

void test_threads(void)
{
	char *pages = new_pages(PAGES);

	expect_flushed(pages, PAGES, 10);
	expect(pages, PAGES, 2, 50);
	if (!(info.features & SENTINEL_FEATURE_EXACT_THREADS)) {
		skip("64 threads, exact", "INFO promises no exact counts of threads");
		munmap(pages, PAGES * PAGE);
		return;
	}
	expect(pages, 1, 64, times(1000));
	expect(pages, 8, 200, 5);
	munmap(pages, PAGES * PAGE);
}
