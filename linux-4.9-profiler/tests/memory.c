// SPDX-License-Identifier: GPL-2.0
/* What the kernel does to pages while they are profiled: none of it may be hindered, or lose the mark. */
#include "guest.h"

#include <linux/futex.h>
#include <numaif.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define ROUNDS 2

void expect_round(int fd, char *pages, const char *what)
{
	struct sentinel_count sum;

	reset(fd);
	write_pages(pages, PAGES, ROUNDS);
	sum = sum_of(fd, pages, PAGES);
	check(sum.writes == PAGES * ROUNDS && sum.reads == 0,
	      "%s: %llu writes counted afterwards, expected %d", what,
	      (unsigned long long)sum.writes, PAGES * ROUNDS);
}

static int pages_on_node(char *pages, int node)
{
	void *list[PAGES];
	int status[PAGES], found = 0;

	for (int i = 0; i < PAGES; i++)
		list[i] = pages + i * PAGE;
	must(!syscall(SYS_move_pages, 0, (long)PAGES, list, NULL, status, 0), "move_pages");
	for (int i = 0; i < PAGES; i++)
		found += status[i] == node;
	return found;
}

static void test_first_touch(int fd, char *pages)
{
	struct sentinel_count sum;

	must(!madvise(pages, PAGES * PAGE, MADV_DONTNEED), "madvise");
	expect_round(fd, pages, "first touch");
	must(!madvise(pages, PAGES * PAGE, MADV_DONTNEED), "madvise");
	reset(fd);
	read_pages(pages, PAGES, 5);
	write_pages(pages, PAGES, 5);
	sum = sum_of(fd, pages, PAGES);
	check(sum.reads == 160 && sum.writes == 160,
	      "zero page read, then copied: %llu reads and %llu writes, expected 160 and 160",
	      (unsigned long long)sum.reads, (unsigned long long)sum.writes);
}

static void test_migration(int fd, char *pages)
{
	move_to(pages, 1);
	check(pages_on_node(pages, 1) == PAGES, "all pages are on node 1");
	expect_round(fd, pages, "move_pages to node 1");
	move_to(pages, 0);
	check(pages_on_node(pages, 0) == PAGES, "all pages are on node 0");
	expect_round(fd, pages, "move_pages to node 0");
}

static void test_protection(int fd, char *pages)
{
	struct sentinel_count sum;

	must(!mprotect(pages, PAGES * PAGE, PROT_READ), "mprotect");
	reset(fd);
	read_pages(pages, PAGES, 2);
	sum = sum_of(fd, pages, PAGES);
	check(sum.reads == 2 * PAGES, "read-only pages count: %llu",
	      (unsigned long long)sum.reads);
	must(!mprotect(pages, PAGES * PAGE, PROT_NONE), "mprotect");
	must(!mprotect(pages, PAGES * PAGE, PROT_READ | PROT_WRITE), "mprotect");
	expect_round(fd, pages, "mprotect to nothing and back");
}

static void test_unmapping(int fd, char *pages)
{
	must(!munmap(pages + 16 * PAGE, 16 * PAGE), "munmap");
	must(mmap(pages + 16 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED, "mmap");
	expect_round(fd, pages, "half unmapped and mapped again");
}

/* The half that is one mapping still. */
static void test_moving(int fd, char *pages)
{
	size_t bytes = PAGES / 2 * PAGE;
	char *away = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(away != MAP_FAILED, "mmap");
	must(mremap(pages, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away, "mremap");
	reset(fd);
	write_pages(away, PAGES / 2, 1);
	check(status_of(fd).writes == 0, "pages that were moved out of the range do not count");
	must(mremap(away, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, pages) == pages, "mremap");
	expect_round(fd, pages, "mremap away and back");
}

static void test_system_calls(int fd, char *pages)
{
	static char buffer[8 * PAGE], copy[8 * PAGE];
	struct iovec local = { buffer, 4 * PAGE }, remote = { pages, 4 * PAGE };
	struct sentinel_count sum;
	int pipes[2], zero = open("/dev/zero", O_RDONLY);

	must(!pipe(pipes) && fcntl(pipes[1], F_SETPIPE_SZ, 1 << 18) > 0 && zero >= 0, "pipe");
	memset(pages, 7, 8 * PAGE);
	reset(fd);
	must(write(pipes[1], pages, 8 * PAGE) == 8 * PAGE, "write");
	sum = sum_of(fd, pages, PAGES);
	check(sum.reads == 8 && sum.writes == 0,
	      "write() of 8 pages: %llu reads", (unsigned long long)sum.reads);
	reset(fd);
	must(read(pipes[0], pages + 8 * PAGE, 8 * PAGE) == 8 * PAGE, "read");
	sum = sum_of(fd, pages, PAGES);
	check(sum.writes == 8 && pages[8 * PAGE] == 7, "read() into 8 pages: %llu writes",
	      (unsigned long long)sum.writes);
	reset(fd);
	must(read(zero, pages, PAGES * PAGE) == PAGES * (long)PAGE, "read");
	sum = sum_of(fd, pages, PAGES);
	check(sum.writes == PAGES, "read() into all pages: %llu writes",
	      (unsigned long long)sum.writes);
	must(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 4 * PAGE, "process_vm_readv");
	memset(pages, 9, 8 * PAGE);
	remote.iov_len = 8 * PAGE;
	must(vmsplice(pipes[1], &remote, 1, 0) == 8 * PAGE, "vmsplice");
	must(read(pipes[0], copy, 8 * PAGE) == 8 * PAGE, "read");
	check(!memcmp(copy, pages, 8 * PAGE), "vmsplice gives the pages' content");
	close(pipes[0]);
	close(pipes[1]);
	close(zero);
	expect_round(fd, pages, "system calls");
}

static void test_lookers(int fd, char *pages)
{
	static char text[1 << 16];
	uint64_t map[PAGES];
	unsigned char resident[PAGES];
	int file = open("/proc/self/smaps", O_RDONLY);
	long result;

	while (read(file, text, sizeof(text)) > 0)
		;
	close(file);
	file = open("/proc/self/pagemap", O_RDONLY);
	must(pread(file, map, sizeof(map), (uintptr_t)pages / PAGE * 8) == sizeof(map), "pagemap");
	close(file);
	check(map[0] >> 63 && !(map[0] & (0x7ULL << 51)), "pagemap shows a present page and no mark");
	must(!mincore(pages, PAGES * PAGE, resident), "mincore");
	check(resident[0] & 1, "mincore sees the page");
	must(!mlock(pages, PAGES * PAGE) && !munlock(pages, PAGES * PAGE), "mlock");
	memset(pages, 0, 2 * PAGE);
	result = syscall(SYS_futex, pages, FUTEX_WAKE_OP, 1, 1, pages + PAGE,
			 FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0));
	check(result == 0 && *(int *)(pages + PAGE) == 1, "futex works on watched words");
	expect_round(fd, pages, "smaps, pagemap, mlock and futex");
}

/* A swap area in a RAM disk, if the kernel has one. */
static bool switch_swap_on(void)
{
	return !system("mknod -m 600 /tmp/ram0 b 1 0 2>/dev/null; busybox mkswap /tmp/ram0 >/dev/null 2>&1") &&
	       !swapon("/tmp/ram0", 0);
}

static size_t pages_swapped(char *pages)
{
	uint64_t map[PAGES];
	size_t swapped = 0;
	int file = open("/proc/self/pagemap", O_RDONLY);

	must(pread(file, map, sizeof(map), (uintptr_t)pages / PAGE * 8) == sizeof(map), "pagemap");
	close(file);
	for (int i = 0; i < PAGES; i++)
		swapped += map[i] >> 62 & 1;
	return swapped;
}

/* Should memory run out, this process is the one to go. */
static void be_killed_first(void)
{
	int file = open("/proc/self/oom_score_adj", O_WRONLY);

	must(file >= 0 && write(file, "1000", 4) == 4, "oom_score_adj");
	close(file);
}

/* Pushes the pages out to the swap area. */
static void push_out(char *pages)
{
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
	if (!madvise(pages, PAGES * PAGE, MADV_PAGEOUT))
		return;
	/*
	 * Linux 4.9 has no such call: there it takes a process that wants all
	 * memory. Without MAP_NORESERVE it is refused just before pages go out.
	 */
	if (fork() == 0) {
		be_killed_first();
		while (pages_swapped(pages) < PAGES) {
			char *more = mmap(NULL, 1 << 24, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

			if (more == MAP_FAILED)
				break;
			write_pages(more, (1 << 24) / PAGE, 1);
		}
		_exit(0);
	}
	wait(NULL);
}

static void test_swap(int fd, char *pages)
{
	bool same = true;

	if (!switch_swap_on()) {
		skip("swapping out and in", "this kernel has no /dev/ram0 to swap to");
		return;
	}
	/* New pages: those that were locked once stay in memory on Linux 4.9, profiled or not. */
	must(!madvise(pages, PAGES * PAGE, MADV_DONTNEED), "madvise");
	for (int i = 0; i < PAGES; i++)
		*(int *)(pages + i * PAGE + 4000) = i;
	push_out(pages);
	check(pages_swapped(pages) > PAGES / 2, "%zu pages are swapped out", pages_swapped(pages));
	expect_round(fd, pages, "swapped out and in");
	for (int i = 0; i < PAGES; i++)
		same = same && *(int *)(pages + i * PAGE + 4000) == i;
	check(same, "swapped pages have their content");
	push_out(pages);
	must(!swapoff("/tmp/ram0"), "swapoff");
	expect_round(fd, pages, "swapoff");
}

void test_memory(void)
{
	char *pages = new_pages(PAGES);
	int fd = profile(pages, PAGES);

	start(fd, SENTINEL_MODE_EXACT);
	test_first_touch(fd, pages);
	test_migration(fd, pages);
	test_protection(fd, pages);
	test_unmapping(fd, pages);
	test_moving(fd, pages);
	test_system_calls(fd, pages);
	test_lookers(fd, pages);
	test_swap(fd, pages);
	stop(fd);
	close(fd);
	memset(pages, 1, PAGES * PAGE);
	munmap(pages, PAGES * PAGE);
}
