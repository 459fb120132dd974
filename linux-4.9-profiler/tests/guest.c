// SPDX-License-Identifier: GPL-2.0
/* Helpers of the tests and of the fuzzer; see guest.h. */
#include <numaif.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "guest.h"

struct sentinel_info info;
int failures;
static int number;

void check(bool good, const char *format, ...)
{
	va_list list;

	printf("%sok %d - ", good ? "" : "not ", ++number);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\n");
	failures += !good;
}

void skip(const char *what, const char *why)
{
	printf("ok %d - %s # SKIP %s\n", ++number, what, why);
}

int done_testing(void)
{
	printf("1..%d\n", number);
	return failures ? 1 : 0;
}

void must(bool good, const char *what)
{
	if (good)
		return;
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

char *new_mapping(size_t pages, int flags)
{
	char *start = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			   flags | MAP_ANONYMOUS, -1, 0);

	must(start != MAP_FAILED, "mmap");
	must(!madvise(start, pages * PAGE, MADV_NOHUGEPAGE), "madvise");
	return start;
}

char *new_pages(size_t pages)
{
	return new_mapping(pages, MAP_PRIVATE);
}

int profile(void *start, size_t pages)
{
	struct sentinel_range range = { (uintptr_t)start, pages * PAGE };
	int fd = open("/dev/sentinel", O_RDWR | O_CLOEXEC);

	must(fd >= 0, "open /dev/sentinel");
	must(!ioctl(fd, SENTINEL_IOC_ADD_RANGE, &range), "ADD_RANGE");
	return fd;
}

void start(int fd, uint32_t mode)
{
	struct sentinel_start start = { .mode = mode };

	must(!ioctl(fd, SENTINEL_IOC_START, &start), "START");
}

void stop(int fd)
{
	must(!ioctl(fd, SENTINEL_IOC_STOP), "STOP");
}

void reset(int fd)
{
	struct sentinel_reset reset = { 0 };

	must(!ioctl(fd, SENTINEL_IOC_RESET, &reset), "RESET");
}

void flush(int fd)
{
	must(!ioctl(fd, SENTINEL_IOC_FLUSH), "FLUSH");
}

struct sentinel_count sum_of(int fd, void *start, size_t pages)
{
	struct sentinel_count *counts = calloc(pages, sizeof(*counts)), sum = { 0 };
	struct sentinel_read read = {
		(uintptr_t)start, pages, (uintptr_t)counts, 0,
	};

	must(!ioctl(fd, SENTINEL_IOC_READ, &read), "READ");
	for (size_t i = 0; i < pages; i++) {
		sum.reads += counts[i].reads;
		sum.writes += counts[i].writes;
	}
	free(counts);
	return sum;
}

struct sentinel_count count_of(int fd, void *page)
{
	return sum_of(fd, page, 1);
}

struct sentinel_status status_of(int fd)
{
	struct sentinel_status status;

	must(!ioctl(fd, SENTINEL_IOC_STATUS, &status), "STATUS");
	return status;
}

void read_pages(char *start, size_t pages, int rounds)
{
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < pages; i++)
			(void)*(volatile char *)(start + i * PAGE + 8 * (round % 512));
}

void write_pages(char *start, size_t pages, int rounds)
{
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < pages; i++)
			*(volatile char *)(start + i * PAGE + 8 * (round % 512)) = round;
}

void move_to(char *pages, int node)
{
	void *list[PAGES];
	int nodes[PAGES], status[PAGES];

	for (int i = 0; i < PAGES; i++) {
		list[i] = pages + i * PAGE;
		nodes[i] = node;
	}
	must(syscall(SYS_move_pages, 0, (long)PAGES, list, nodes, status, MPOL_MF_MOVE) >= 0,
	     "move_pages");
}

long huge_kib(void *address)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool inside = false;
	char line[512];
	long kib = -1;

	must(file != NULL, "smaps");
	while (kib < 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = (uintptr_t)address >= start && (uintptr_t)address < end;
		else if (inside)
			sscanf(line, "AnonHugePages: %ld kB", &kib);
	}
	fclose(file);
	return kib;
}

uint32_t *new_huge(size_t bytes)
{
	size_t align = 2 << 20;
	char *space = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *area = (char *)(((uintptr_t)space + align - 1) & ~(align - 1));

	must(space != MAP_FAILED && !madvise(area, bytes, MADV_HUGEPAGE), "madvise");
	for (size_t i = 0; i < bytes / PAGE; i++)
		*(uint32_t *)(area + i * PAGE) = i;
	return (uint32_t *)area;
}

size_t wrong_pages(uint32_t *area, size_t bytes)
{
	size_t wrong = 0;

	for (size_t i = 0; i < bytes / PAGE; i++)
		wrong += *(volatile uint32_t *)((char *)area + i * PAGE) != i;
	return wrong;
}

int times(int most)
{
	const char *text = getenv("SENTINEL_STRESS");

	return text && atoi(text) < most ? atoi(text) : most;
}
