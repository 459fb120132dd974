// SPDX-License-Identifier: GPL-2.0
/* Counts that are known in advance. */
#include <numaif.h>
#include <signal.h>
#include <sys/time.h>

#include "guest.h"

static void expect(int fd, char *pages, size_t count, uint64_t reads,
		   uint64_t writes, const char *what)
{
	struct sentinel_count sum = sum_of(fd, pages, count);

	check(sum.reads == reads && sum.writes == writes,
	      "%s: %llu reads and %llu writes, expected %llu and %llu", what,
	      (unsigned long long)sum.reads, (unsigned long long)sum.writes,
	      (unsigned long long)reads, (unsigned long long)writes);
}

/*
 * The first read of each page misses the TLB, and no other one unless the processor dropped a translation meanwhile, as it
 * may when the kernel runs something else on it: not in every one of a few rounds.
 */
static void expect_misses(int fd, char *pages)
{
	uint64_t least = UINT64_MAX, most = 0, writes = 0;

	for (int round = 0; round < 5; round++) {
		struct sentinel_count sum;

		start(fd, SENTINEL_MODE_TLB_MISS);
		read_pages(pages, PAGES, 10);
		stop(fd);
		sum = sum_of(fd, pages, PAGES);
		least = sum.reads < least ? sum.reads : least;
		most = sum.reads > most ? sum.reads : most;
		writes += sum.writes;
		reset(fd);
	}
	check(least == PAGES && most <= 10 * PAGES && !writes,
	      "the same per TLB miss, 5 times: %llu to %llu reads and %llu writes, expected %d, rarely more, and 0",
	      (unsigned long long)least, (unsigned long long)most, (unsigned long long)writes, PAGES);
}

static void test_rounds(char *pages, int fd)
{
	start(fd, SENTINEL_MODE_EXACT);
	read_pages(pages, PAGES, 10);
	stop(fd);
	expect(fd, pages, PAGES, 320, 0, "32 pages read 10 times");
	reset(fd);
	expect_misses(fd, pages);
	start(fd, SENTINEL_MODE_EXACT);
	write_pages(pages, PAGES, 500);
	stop(fd);
	expect(fd, pages, PAGES, 0, 16000, "32 pages written 500 times");
	reset(fd);
}

/* After FLUSH the first access to each page counts. */
static void test_flush(char *pages, int fd)
{
	start(fd, SENTINEL_MODE_TLB_MISS);
	for (int round = 0; round < 10; round++) {
		flush(fd);
		read_pages(pages, PAGES, 1);
	}
	stop(fd);
	expect(fd, pages, PAGES, 320, 0, "32 pages read 10 times per TLB miss, FLUSH between");
	reset(fd);
	start(fd, SENTINEL_MODE_EXACT);
	for (int round = 0; round < 10; round++) {
		flush(fd);
		read_pages(pages, PAGES, 1);
	}
	stop(fd);
	expect(fd, pages, PAGES, 320, 0, "the same in exact mode");
	reset(fd);
}

static void test_each_page(char *pages, int fd)
{
	bool good = true;

	start(fd, SENTINEL_MODE_EXACT);
	for (int i = 0; i < PAGES; i++)
		read_pages(pages + i * PAGE, 1, i + 1);
	stop(fd);
	for (int i = 0; i < PAGES; i++)
		good = good && count_of(fd, pages + i * PAGE).reads == (uint64_t)i + 1;
	check(good, "page i read i + 1 times: exact per page");
	expect(fd, pages, PAGES, 528, 0, "page i read i + 1 times");
	reset(fd);
}

static void test_strings(char *pages, int fd)
{
	char *at = pages;
	size_t words = PAGES * PAGE / 8;
	int value;

	start(fd, SENTINEL_MODE_EXACT);
	asm volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0L) : "memory");
	stop(fd);
	expect(fd, pages, PAGES, 0, PAGES * PAGE / 8, "rep stos counts each turn");
	reset(fd);
	start(fd, SENTINEL_MODE_EXACT);
	value = *(volatile int *)(pages + PAGE - 2);
	stop(fd);
	check(value == 0 && count_of(fd, pages).reads == 1 &&
		      count_of(fd, pages + PAGE).reads == 1,
	      "an access across two pages counts once in each");
	reset(fd);
}

/* Adds one to memory: the processor reports the write only. */
static void test_read_and_write(char *pages, int fd)
{
	start(fd, SENTINEL_MODE_EXACT);
	for (int i = 0; i < 100; i++)
		asm volatile("lock incl %0" : "+m"(*(int *)pages));
	stop(fd);
	expect(fd, pages, PAGES, 0, 100, "lock inc counts as one write");
	reset(fd);
}

static void test_code(char *pages, int fd)
{
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	int (*function)(void) = (int (*)(void))(uintptr_t)(pages + 8 * PAGE);
	int result;

	memcpy(pages + 8 * PAGE, code, sizeof(code));
	must(!mprotect(pages + 8 * PAGE, PAGE, PROT_READ | PROT_EXEC), "mprotect");
	start(fd, SENTINEL_MODE_EXACT);
	result = function();
	stop(fd);
	check(result == 42 && count_of(fd, pages + 8 * PAGE).reads == 2,
	      "two instructions run from a watched page: %llu fetches",
	      (unsigned long long)count_of(fd, pages + 8 * PAGE).reads);
	must(!mprotect(pages + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE), "mprotect");
	reset(fd);
}

static volatile int signals;
static char *signal_page;

static void on_signal(int signal)
{
	(void)signal;
	signals++;
	*(volatile char *)signal_page = 1;
}

/* The handler writes a watched page as well, and interrupts accesses at any moment. */
static void test_signals(char *pages, int fd)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct itimerval timer = { { 0, 1000 }, { 0, 1000 } }, off = { 0 };

	signals = 0;
	signal_page = pages + 3 * PAGE;
	must(!sigaction(SIGALRM, &action, NULL), "sigaction");
	start(fd, SENTINEL_MODE_EXACT);
	must(!setitimer(ITIMER_REAL, &timer, NULL), "setitimer");
	read_pages(pages, PAGES, 500);
	must(!setitimer(ITIMER_REAL, &off, NULL), "setitimer");
	stop(fd);
	expect(fd, pages, PAGES, 16000, signals, "500 rounds under signals");
	check(signals > 10, "%d signals came", signals);
	reset(fd);
}

/* pushf on a watched stack copies the step flag; the process must not notice. */
static void test_flags(char *pages, int fd)
{
	unsigned long flags;

	start(fd, SENTINEL_MODE_EXACT);
	asm volatile("mov %%rsp, %%rbx\n\t"
		     "mov %1, %%rsp\n\t"
		     "pushfq\n\t"
		     "popfq\n\t"
		     "mov %%rbx, %%rsp\n\t"
		     "pushfq\n\t"
		     "popq %0"
		     : "=r"(flags) : "r"(pages + 2 * PAGE) : "rbx", "memory", "cc");
	stop(fd);
	check(!(flags & 0x100), "pushf and popf in watched memory leave no step flag");
	reset(fd);
}

void test_exact(void)
{
	char *pages = new_pages(PAGES);
	int fd;

	memset(pages, 0, PAGES * PAGE);
	fd = profile(pages, PAGES);
	test_rounds(pages, fd);
	test_flush(pages, fd);
	test_each_page(pages, fd);
	test_strings(pages, fd);
	test_read_and_write(pages, fd);
	test_code(pages, fd);
	test_signals(pages, fd);
	test_flags(pages, fd);
	check(status_of(fd).left_open == 0, "no page was left open");
	close(fd);
	munmap(pages, PAGES * PAGE);
}
