// SPDX-License-Identifier: GPL-2.0
/* What each call refuses, and with which error. */
#include <sys/prctl.h>

#include "guest.h"

static void expect_error(int result, int error, const char *what)
{
	int seen = result < 0 ? errno : 0;

	check(seen == error, "%s: %s, expected %s", what, seen ? strerror(seen) : "no error",
	      error ? strerror(error) : "no error");
}

static int add(int fd, uint64_t start, uint64_t bytes)
{
	struct sentinel_range range = { start, bytes };

	return ioctl(fd, SENTINEL_IOC_ADD_RANGE, &range);
}

static int start_mode(int fd, uint32_t mode, uint32_t flags)
{
	struct sentinel_start start = { mode, flags };

	return ioctl(fd, SENTINEL_IOC_START, &start);
}

static int read_at(int fd, uint64_t start, uint64_t pages, void *counts)
{
	struct sentinel_read read = { start, pages, (uintptr_t)counts, 0 };

	return ioctl(fd, SENTINEL_IOC_READ, &read);
}

static void test_ranges(int fd, uint64_t at)
{
	expect_error(add(fd, at + 1, PAGE), EINVAL, "a range that begins inside a page");
	expect_error(add(fd, at, PAGE - 1), EINVAL, "a range that ends inside a page");
	expect_error(add(fd, at, 0), EINVAL, "an empty range");
	expect_error(add(fd, ~0ULL << 12, PAGE), EINVAL, "a range in the kernel");
	expect_error(add(fd, at, ~0ULL << 12), EINVAL, "a range that wraps around");
	expect_error(add(fd, at, 4 * PAGE), 0, "a good range");
	expect_error(add(fd, at + 3 * PAGE, 4 * PAGE), EEXIST, "an overlapping range");
	expect_error(add(fd, at + 4 * PAGE, PAGE), 0, "a range that touches another");
	expect_error(add(fd, 1ULL << 40, (info.max_pages + 1) * PAGE), ENOSPC, "too many pages");
}

static void test_calls(int fd, char *pages)
{
	struct sentinel_count counts[8];
	uint64_t at = (uintptr_t)pages;
	struct sentinel_reset all = { SENTINEL_RESET_RANGES, 0 }, odd = { 8, 0 };
	int second = open("/dev/sentinel", O_RDWR);

	expect_error(start_mode(fd, 3, 0), EINVAL, "an unknown mode");
	expect_error(start_mode(fd, SENTINEL_MODE_EXACT, 1), EINVAL, "an unknown flag");
	expect_error(ioctl(fd, SENTINEL_IOC_STOP), EINVAL, "STOP without START");
	expect_error(ioctl(fd, SENTINEL_IOC_FLUSH), EINVAL, "FLUSH without START");
	expect_error(start_mode(fd, SENTINEL_MODE_EXACT, 0), 0, "START");
	expect_error(start_mode(fd, SENTINEL_MODE_EXACT, 0), EBUSY, "START again");
	expect_error(add(fd, at + 6 * PAGE, PAGE), EBUSY, "ADD_RANGE while it runs");
	expect_error(ioctl(fd, SENTINEL_IOC_RESET, &all), EBUSY, "RESET of ranges while it runs");
	expect_error(add(second, at, PAGE), EBUSY, "a second file for the same process");
	expect_error(ioctl(second, SENTINEL_IOC_STOP), EINVAL, "STOP of a file without process");
	expect_error(read_at(fd, at, 4, counts), 0, "READ");
	expect_error(read_at(fd, at, 5, counts), EINVAL, "READ across two ranges");
	expect_error(read_at(fd, at + 1, 1, counts), EINVAL, "READ inside a page");
	expect_error(read_at(fd, at, 1, NULL), EFAULT, "READ to nowhere");
	expect_error(read_at(fd, at, ~0ULL, counts), EINVAL, "READ of too much");
	expect_error(read_at(fd, at, 4, pages), 0, "READ into the watched pages");
	expect_error(ioctl(fd, SENTINEL_IOC_STOP), 0, "STOP");
	expect_error(ioctl(fd, SENTINEL_IOC_RESET, &odd), EINVAL, "RESET with an unknown flag");
	expect_error(ioctl(fd, SENTINEL_IOC_RESET, &all), 0, "RESET of ranges");
	expect_error(start_mode(fd, SENTINEL_MODE_EXACT, 0), EINVAL, "START without a range");
	expect_error(ioctl(fd, _IO(SENTINEL_IOC_MAGIC, 99)), ENOTTY, "an unknown call");
	expect_error(ioctl(fd, 1), ENOTTY, "FIBMAP's number");
	expect_error(ioctl(fd, SENTINEL_IOC_INFO, NULL), EFAULT, "INFO to nowhere");
	close(second);
}

static void test_limits(int fd, uint64_t at)
{
	uint64_t added = 0;

	while (added <= info.max_ranges && !add(fd, at + 2 * added * PAGE, PAGE))
		added++;
	check(added == info.max_ranges && errno == ENOSPC, "%llu ranges fit, as INFO says",
	      (unsigned long long)added);
}

static void test_hugetlb(int fd)
{
	size_t bytes = 2 << 20;
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "w");
	void *huge;

	if (file) {
		fprintf(file, "4\n");
		fclose(file);
	}
	huge = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	must(huge != MAP_FAILED, "mmap of a hugetlbfs page");
	expect_error(add(fd, (uintptr_t)huge, bytes), EOPNOTSUPP, "a range of hugetlbfs pages");
	munmap(huge, bytes);
	expect_error(add(fd, (uintptr_t)huge, bytes), 0, "the same addresses, not mapped");
	must(mmap(huge, bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED, -1, 0) == huge, "mmap");
	expect_error(start_mode(fd, SENTINEL_MODE_EXACT, 0), EOPNOTSUPP,
		     "START with hugetlbfs pages in a range");
	munmap(huge, bytes);
	expect_error(start_mode(fd, SENTINEL_MODE_EXACT, 0), 0, "START without them");
	must(mmap(huge, bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED, -1, 0) == huge, "mmap");
	memset(huge, 1, bytes);
	check(((char *)huge)[bytes - 1] == 1, "hugetlbfs pages that come later work, uncounted");
	stop(fd);
	munmap(huge, bytes);
}

/* After STOP, the pages that START has split can be made huge again at once. */
static void test_collapse(void)
{
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
	size_t bytes = 16 << 20, align = 2 << 20;
	char *area = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *huge = (char *)(((uintptr_t)area + align - 1) & ~(align - 1));
	long before, split, after;
	int fd, error;

	must(area != MAP_FAILED && !madvise(huge, bytes, MADV_HUGEPAGE), "madvise");
	memset(huge, 1, bytes);
	before = huge_kib(huge);
	check(before >= (long)(bytes >> 10) / 2, "%ld KiB are in huge pages", before);
	fd = profile(huge, bytes / PAGE);
	start(fd, SENTINEL_MODE_TLB_MISS);
	write_pages(huge, bytes / PAGE, 1);
	split = huge_kib(huge);
	check(split == 0, "%ld KiB while they are profiled", split);
	error = madvise(huge, bytes, MADV_COLLAPSE) ? errno : 0;
	check(error == EINVAL && huge_kib(huge) == 0, "MADV_COLLAPSE meanwhile: %s, %ld KiB",
	      strerror(error), huge_kib(huge));
	stop(fd);
	close(fd);
	if (madvise(huge, bytes, MADV_COLLAPSE) && errno == EINVAL) {
		skip("MADV_COLLAPSE after STOP", "this kernel has none, khugepaged does it in time");
	} else {
		after = huge_kib(huge);
		check(10 * after >= 9 * before, "MADV_COLLAPSE after STOP: %ld of %ld KiB", after,
		      before);
	}
	munmap(area, bytes + align);
}

static void test_huge_pages(void)
{
	size_t bytes = 4 << 20;
	char *area = mmap(NULL, 3 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *huge = (char *)(((uintptr_t)area + bytes - 1) & ~(bytes - 1));
	struct sentinel_count sum;
	int fd;

	must(area != MAP_FAILED && !madvise(huge, bytes, MADV_HUGEPAGE), "madvise");
	memset(huge, 1, bytes);
	fd = profile(huge, bytes / PAGE);
	start(fd, SENTINEL_MODE_EXACT);
	write_pages(huge, bytes / PAGE, 1);
	sum = sum_of(fd, huge, bytes / PAGE);
	check(sum.writes == bytes / PAGE, "huge pages are split and count: %llu writes",
	      (unsigned long long)sum.writes);
	must(!madvise(huge, bytes, MADV_DONTNEED), "madvise");
	reset(fd);
	write_pages(huge, bytes / PAGE, 2);
	sum = sum_of(fd, huge, bytes / PAGE);
	check(sum.writes == 2 * bytes / PAGE, "none is made while it runs: %llu writes",
	      (unsigned long long)sum.writes);
	stop(fd);
	close(fd);
	munmap(area, 3 * bytes);
}

void test_interface(void)
{
	char *pages = new_pages(8);
	int fd = open("/dev/sentinel", O_RDWR);
	struct sentinel_reset all = { SENTINEL_RESET_RANGES, 0 };

	check(info.abi_version == SENTINEL_ABI_VERSION && info.page_bytes == PAGE,
	      "INFO has version %u and pages of %u bytes", info.abi_version, info.page_bytes);
	test_ranges(fd, (uintptr_t)pages);
	test_calls(fd, pages);
	test_limits(fd, 1ULL << 40);
	must(!ioctl(fd, SENTINEL_IOC_RESET, &all), "RESET");
	test_hugetlb(fd);
	close(fd);
	test_huge_pages();
	test_collapse();
	munmap(pages, 8 * PAGE);
}
