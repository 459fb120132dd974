// SPDX-License-Identifier: GPL-2.0
/*
 * What the profiler's hooks cost whoever does not use it: times page faults,
 * mprotect() and fork(), which write page table entries and return to user mode
 * more than anything else does. Needs no profiler. Ends in one line of JSON.
 */
#include <time.h>

#include "guest.h"

#define AREA_PAGES 512
#define REPEATS 300

static char *new_area(void)
{
	char *area = new_pages(AREA_PAGES);

	write_pages(area, AREA_PAGES, 1);
	return area;
}

/* Each page's first touch, and its end. */
static void touch_new_pages(char *unused)
{
	(void)unused;
	munmap(new_area(), AREA_PAGES * PAGE);
}

static void change_rights(char *area)
{
	for (int i = 0; i < 16; i++) {
		must(!mprotect(area, AREA_PAGES * PAGE, PROT_READ), "mprotect");
		must(!mprotect(area, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE), "mprotect");
	}
}

static void fork_child(char *area)
{
	pid_t child = fork();

	/* It uses one page of what it got. */
	if (!child)
		_exit(*(volatile char *)area);
	must(child > 0 && waitpid(child, NULL, 0) == child, "fork");
}

/* A system call that does nothing: the way out alone. */
static void enter_and_leave(char *unused)
{
	(void)unused;
	for (int i = 0; i < 2000; i++)
		getppid();
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* The shortest of many short times: others run on the machine too, but not all the time. */
static double shortest(void (*work)(char *), char *area)
{
	double best = 1e9;

	for (int i = 0; i < REPEATS; i++) {
		double began = seconds();

		work(area);
		if (seconds() - began < best)
			best = seconds() - began;
	}
	return best;
}

int main(void)
{
	char *area = new_area();

	printf("{\"page_faults\": %.6f, ", shortest(touch_new_pages, area));
	printf("\"mprotect\": %.6f, ", shortest(change_rights, area));
	printf("\"fork\": %.6f, ", shortest(fork_child, area));
	printf("\"system_calls\": %.6f}\n", shortest(enter_and_leave, area));
	return 0;
}
