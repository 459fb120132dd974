// SPDX-License-Identifier: GPL-2.0
/* Huge pages beside a range, in the same mapping: the kernel changes them while the range is profiled. */
#include "guest.h"

#include <numaif.h>
#include <sys/syscall.h>
#include <time.h>

#define BYTES (8UL << 20)
#define HUGE (2UL << 20)
#define RANGE 4UL
#define BALANCED_BYTES (64UL << 20)
#define BALANCED_SECONDS 4

/*
 * Profiles the first pages; says how much of the mapping was huge before. The module splits all of it, the patched kernel
 * what is in the range.
 */
static int begin(uint32_t *area, size_t bytes, const char *what)
{
	long before = huge_kib(area), after;
	int fd = profile(area, RANGE);

	check(before >= (long)(bytes >> 10) / 2, "%s: %ld KiB are in huge pages", what, before);
	start(fd, SENTINEL_MODE_TLB_MISS);
	after = huge_kib(area);
	check(after < before && (patched() || after == 0), "%s: %ld KiB while a part is profiled", what, after);
	return fd;
}

/* All content is there, and pages of the range still count, others do not. */
static void end(int fd, uint32_t *area, size_t bytes, const char *what)
{
	size_t wrong = wrong_pages(area, bytes);
	uint64_t reads;

	check(wrong == 0, "%s: %zu pages have lost their content", what, wrong);
	reset(fd);
	flush(fd);
	wrong_pages(area, bytes);
	reads = status_of(fd).reads;
	check(reads == RANGE && sum_of(fd, area, RANGE).reads == RANGE,
	      "%s: %llu reads counted, expected %lu", what, (unsigned long long)reads, RANGE);
	stop(fd);
	close(fd);
	check(wrong_pages(area, bytes) == 0, "%s: it is there after STOP too", what);
	munmap(area, bytes);
}

static void test_moved(void)
{
	uint32_t *area = new_huge(BYTES);
	int fd = begin(area, BYTES, "move_pages beside a range"), node = 1, status = -1;
	void *page = (char *)area + 2 * HUGE;

	must(!syscall(SYS_move_pages, 0, 1L, &page, &node, &status, MPOL_MF_MOVE), "move_pages");
	check(status == 1, "the page is on node %d", status);
	end(fd, area, BYTES, "move_pages beside a range");
}

static void test_protected(void)
{
	uint32_t *area = new_huge(BYTES);
	int fd = begin(area, BYTES, "mprotect");

	must(!mprotect(area, BYTES, PROT_READ), "mprotect");
	end(fd, area, BYTES, "mprotect");
}

/* As above, but nobody looks at the pages until profiling is over. */
static void test_protected_unread(void)
{
	uint32_t *area = new_huge(BYTES);
	int fd = begin(area, BYTES, "mprotect without a read");

	must(!mprotect(area, BYTES, PROT_READ), "mprotect");
	must(!mprotect(area, BYTES, PROT_NONE), "mprotect");
	must(!mprotect(area, BYTES, PROT_READ | PROT_WRITE), "mprotect");
	must(!mprotect((char *)area + HUGE, HUGE, PROT_READ), "mprotect");
	stop(fd);
	close(fd);
	check(wrong_pages(area, BYTES) == 0, "mprotect without a read: content after STOP");
	munmap(area, BYTES);
}

/* A huge page comes from another mapping; both become one with the range's. */
static void test_joined(void)
{
	uint32_t *area = new_huge(BYTES), *other = new_huge(HUGE);
	char *target = (char *)area + 3 * HUGE;
	size_t wrong;
	int fd = begin(area, BYTES, "mremap to beside a range"), node = 1, status = -1;
	void *page = target;

	must(mremap(other, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	must(!mprotect(area, BYTES, PROT_READ), "mprotect");
	must(!syscall(SYS_move_pages, 0, 1L, &page, &node, &status, MPOL_MF_MOVE), "move_pages");
	wrong = wrong_pages(area, 3 * HUGE) + wrong_pages((uint32_t *)target, HUGE);
	check(wrong == 0, "mremap to beside a range: %zu pages have lost their content", wrong);
	stop(fd);
	close(fd);
	munmap(area, BYTES);
}

static void test_balanced(void)
{
	int knob = open("/proc/sys/kernel/numa_balancing", O_RDWR), fd;
	time_t until;
	uint32_t *area;
	size_t wrong = 0;
	char before;

	if (knob < 0 || read(knob, &before, 1) != 1 || pwrite(knob, "1", 1, 0) != 1) {
		skip("NUMA balancing beside a range", "this kernel has none");
		if (knob >= 0)
			close(knob);
		return;
	}
	area = new_huge(BALANCED_BYTES);
	fd = begin(area, BALANCED_BYTES, "NUMA balancing beside a range");
	for (until = time(NULL) + BALANCED_SECONDS; time(NULL) < until;)
		wrong += wrong_pages(area, BALANCED_BYTES);
	must(pwrite(knob, &before, 1, 0) == 1, "numa_balancing");
	close(knob);
	check(wrong == 0, "NUMA balancing beside a range: %zu times a page had lost its content", wrong);
	stop(fd);
	close(fd);
	check(wrong_pages(area, BALANCED_BYTES) == 0, "NUMA balancing beside a range: content after STOP");
	munmap(area, BALANCED_BYTES);
}

void test_huge(void)
{
	test_moved();
	test_protected();
	test_protected_unread();
	test_joined();
	test_balanced();
}
