// SPDX-License-Identifier: GPL-2.0
/* Many threads on the same pages. */
#include <pthread.h>

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

void test_threads(void)
{
	char *pages = new_pages(PAGES);

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
