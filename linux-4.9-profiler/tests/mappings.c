// SPDX-License-Identifier: GPL-2.0
/* What becomes of mappings while they are profiled: shared, split, merged, grown, filled from elsewhere. */
#include "guest.h"

#define HALF (PAGES / 2)

/* Runs a part of a test in a child; true when it says so. */
static bool child_says(bool (*part)(char *), char *pages)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(part(pages) ? 0 : 1);
	must(child > 0 && waitpid(child, &status, 0) == child, "fork");
	return status == 0;
}

static bool writes_all(char *pages)
{
	write_pages(pages, PAGES, 3);
	return true;
}

static void test_shared(void)
{
	char *pages = new_mapping(PAGES, MAP_SHARED);
	int fd = profile(pages, PAGES);

	start(fd, SENTINEL_MODE_EXACT);
	expect_round(fd, pages, "shared memory, first touch");
	reset(fd);
	check(child_says(writes_all, pages) && status_of(fd).writes == 0,
	      "a child's writes to shared memory are not the parent's");
	expect_round(fd, pages, "shared memory, after a child wrote to it");
	stop(fd);
	close(fd);
	munmap(pages, PAGES * PAGE);
}

static void test_file(void)
{
	char *pages;
	int file = open("/proc/self/exe", O_RDONLY), fd;
	struct sentinel_count sum;

	pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	must(pages != MAP_FAILED, "mmap");
	fd = profile(pages, PAGES);
	start(fd, SENTINEL_MODE_EXACT);
	read_pages(pages, PAGES, 2);
	sum = sum_of(fd, pages, PAGES);
	check(sum.reads == 2 * PAGES && sum.writes == 0, "a file's pages, read: %llu reads and %llu writes",
	      (unsigned long long)sum.reads, (unsigned long long)sum.writes);
	expect_round(fd, pages, "a file's pages, copied on write");
	stop(fd);
	close(fd);
	close(file);
	munmap(pages, PAGES * PAGE);
}

static bool sees_zeros(char *pages)
{
	bool zero = true;

	for (int i = 0; i < PAGES; i++)
		zero = zero && pages[i * PAGE] == 0;
	return zero;
}

static void test_wiped_on_fork(void)
{
	char *pages = new_pages(PAGES);
	int fd = profile(pages, PAGES);

	if (madvise(pages, PAGES * PAGE, MADV_WIPEONFORK) && errno == EINVAL) {
		skip("MADV_WIPEONFORK", "this kernel has none");
		close(fd);
		munmap(pages, PAGES * PAGE);
		return;
	}
	start(fd, SENTINEL_MODE_EXACT);
	expect_round(fd, pages, "MADV_WIPEONFORK, first touch");
	memset(pages, 1, PAGES * PAGE);
	check(child_says(sees_zeros, pages), "a child sees such memory wiped");
	must(!madvise(pages + HALF * PAGE, HALF * PAGE, MADV_DONTDUMP), "madvise");
	move_to(pages, 1);
	expect_round(fd, pages, "MADV_WIPEONFORK, split and moved to node 1");
	stop(fd);
	close(fd);
	munmap(pages, PAGES * PAGE);
}

/* Half of the range becomes one mapping with what is below it; pages that move then have no fault before. */
static void test_merging(void)
{
	char *area = new_pages(HALF + PAGES), *pages = area + HALF * PAGE;
	int fd;

	/* Used as one mapping first: two that were used apart are never merged. */
	memset(area, 1, (HALF + PAGES) * PAGE);
	must(!madvise(pages, PAGES * PAGE, MADV_DONTDUMP), "madvise");
	fd = profile(pages, PAGES);
	start(fd, SENTINEL_MODE_EXACT);
	must(!madvise(pages, HALF * PAGE, MADV_DODUMP), "madvise");
	move_to(pages, 1);
	expect_round(fd, pages, "merged with a mapping outside and moved to node 1");
	must(!madvise(pages, PAGES * PAGE, MADV_DODUMP), "madvise");
	move_to(pages, 0);
	expect_round(fd, pages, "merged wholly and moved to node 0");
	reset(fd);
	write_pages(area, HALF, 2);
	check(status_of(fd).writes == 0, "the part outside does not count");
	stop(fd);
	close(fd);
	munmap(area, (HALF + PAGES) * PAGE);
}

/* Half of the pages, without advice that would keep it apart from its neighbour for a moment. */
static void map_plain(char *at)
{
	must(mmap(at, HALF * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		  -1, 0) == at, "mmap");
}

/* A mapping that grows is written anew by the kernel; the pages that it had move then, without a fault before. */
static void test_growing(void)
{
	char *pages = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd;

	must(pages != MAP_FAILED, "mmap");
	fd = profile(pages, PAGES);
	map_plain(pages);
	memset(pages, 1, HALF * PAGE);
	start(fd, SENTINEL_MODE_EXACT);
	map_plain(pages + HALF * PAGE);
	move_to(pages, 1);
	expect_round(fd, pages, "a mapping that has grown, moved to node 1");
	stop(fd);
	close(fd);
	munmap(pages, PAGES * PAGE);
}

static void test_filling(void)
{
	char *pages = new_pages(PAGES), *other = new_pages(PAGES);
	int fd = profile(pages, PAGES);

	memset(other, 5, PAGES * PAGE);
	start(fd, SENTINEL_MODE_EXACT);
	must(mremap(other, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, pages) == pages,
	     "mremap");
	expect_round(fd, pages, "mremap into the range");
	check(status_of(fd).left_open == 0, "no page was left open");
	check(pages[PAGE + 8 * 100] == 5, "with its content");
	stop(fd);
	close(fd);
	munmap(pages, PAGES * PAGE);
}

void test_mappings(void)
{
	test_shared();
	test_file();
	test_wiped_on_fork();
	test_merging();
	test_growing();
	test_filling();
}
