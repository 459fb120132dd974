// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that have to do with a profiled one and live longer than the module: survivors, and its own children.
 *
 * Prints "ready" when the device is closed; after SIGUSR1 all use their memory, and the status is 0 if it is as it was.
 */
#include "guest.h"

#include <signal.h>

static volatile sig_atomic_t told;

static void on_signal(int signal)
{
	(void)signal;
	told = 1;
}

static int use(char *pages, char content)
{
	int wrong = 0;

	for (int i = 0; i < PAGES; i++)
		wrong += pages[i * PAGE + 100] != content;
	write_pages(pages, PAGES, 2);
	move_to(pages, 1);
	write_pages(pages, PAGES, 2);
	return wrong;
}

static pid_t sleeper(int fd, char *pages, char content)
{
	pid_t child = fork();

	if (child)
		return child;
	/* Else the module would be in use. */
	close(fd);
	while (!told)
		usleep(10000);
	_exit(use(pages, content) ? 1 : 0);
}

#define HUGE_BYTES (8UL << 20)

int main(void)
{
	uint32_t *huge = new_huge(HUGE_BYTES), *hidden;
	char *pages = new_pages(PAGES), *wiped = new_pages(PAGES), *away = new_pages(PAGES);
	pid_t copies, wipes;
	int fd, first, second;

	must(signal(SIGUSR1, on_signal) != SIG_ERR, "signal");
	must(!madvise(wiped, PAGES * PAGE, MADV_WIPEONFORK), "madvise");
	fd = profile(pages, PAGES);
	must(!ioctl(fd, SENTINEL_IOC_ADD_RANGE,
		    &(struct sentinel_range){ (uintptr_t)wiped, PAGES * PAGE }), "ADD_RANGE");
	must(!ioctl(fd, SENTINEL_IOC_ADD_RANGE,
		    &(struct sentinel_range){ (uintptr_t)huge, 4 * PAGE }), "ADD_RANGE");
	start(fd, SENTINEL_MODE_EXACT);
	/* Nobody looks at these before the module has gone. */
	must(!mprotect(huge, HUGE_BYTES, PROT_READ), "mprotect");
	memset(pages, 3, PAGES * PAGE);
	memset(wiped, 4, PAGES * PAGE);
	copies = sleeper(fd, pages, 3);
	wipes = sleeper(fd, wiped, 0);
	must(mremap(wiped, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away,
	     "mremap");
	close(fd);
	/* Entries of such pages have their address inverted, by the mask of the time. */
	hidden = (uint32_t *)new_pages(PAGES);
	for (uint32_t i = 0; i < PAGES; i++)
		hidden[i * PAGE / sizeof(*hidden)] = i;
	must(!mprotect(hidden, PAGES * PAGE, PROT_NONE), "mprotect");
	printf("ready\n");
	fflush(stdout);
	while (!told)
		usleep(10000);
	kill(copies, SIGUSR1);
	kill(wipes, SIGUSR1);
	must(waitpid(copies, &first, 0) == copies && waitpid(wipes, &second, 0) == wipes, "waitpid");
	must(!mprotect(hidden, PAGES * PAGE, PROT_READ), "mprotect");
	return use(pages, 3) + use(away, 4) || wrong_pages(huge, HUGE_BYTES) ||
	       wrong_pages(hidden, PAGES * PAGE) || first || second;
}
