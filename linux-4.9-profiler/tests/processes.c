// SPDX-License-Identifier: GPL-2.0
/* fork, vfork, exec and exit under profiling, and the end of a profiler that watches another process. */
#include <dirent.h>
#include <poll.h>
#include <signal.h>

#include "guest.h"

static int wait_for(pid_t child)
{
	int status;

	must(waitpid(child, &status, 0) == child, "waitpid");
	return status;
}

/* What the kernel still holds, by its own counters, when no test is using the device. */
static long held(const char *name)
{
	char path[100];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/sentinel_profiler/parameters/%s", name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%ld", &value) != 1)
		value = -1;
	if (file)
		fclose(file);
	return value;
}

static void expect_nothing_held(const char *when)
{
	/* Sessions are freed by RCU, tasks when they are reaped; a busy host makes both wait. */
	for (int i = 0; i < 1500 && (held("sessions") > 0 || held("pages") > 0); i++)
		usleep(20000);
	check(held("sessions") == 0 && held("pages") == 0,
	      "%s, the kernel holds %ld sessions and %ld pages", when, held("sessions"),
	      held("pages"));
}

static void test_fork(char *pages)
{
	int fd = profile(pages, PAGES);
	struct sentinel_count sum;
	pid_t child;

	memset(pages, 3, PAGES * PAGE);
	start(fd, SENTINEL_MODE_EXACT);
	child = fork();
	if (!child) {
		read_pages(pages, PAGES, 3);
		write_pages(pages, PAGES, 3);
		_exit(pages[PAGE + 100] == 3 ? 0 : 1);
	}
	check(wait_for(child) == 0, "a child works on its copy");
	write_pages(pages, PAGES, 3);
	sum = sum_of(fd, pages, PAGES);
	check(sum.writes == 96 && sum.reads == 0,
	      "after fork %llu writes and %llu reads of the parent, expected 96 and 0",
	      (unsigned long long)sum.writes, (unsigned long long)sum.reads);
	reset(fd);
	child = vfork();
	if (!child) {
		*(volatile char *)pages = 1;
		_exit(0);
	}
	wait_for(child);
	check(count_of(fd, pages).writes == 1, "a vfork child counts: same address space");
	stop(fd);
	close(fd);
}

static void test_exec_and_exit(char *pages)
{
	pid_t child = fork();

	if (!child) {
		start(profile(pages, PAGES), SENTINEL_MODE_EXACT);
		write_pages(pages, PAGES, 1);
		execl("/bin/true", "true", NULL);
		_exit(9);
	}
	check(wait_for(child) == 0, "exec while profiling");
	child = fork();
	if (!child) {
		start(profile(pages, PAGES), SENTINEL_MODE_EXACT);
		write_pages(pages, PAGES, 1);
		_exit(0);
	}
	check(wait_for(child) == 0, "exit while profiling");
	expect_nothing_held("after exec and exit");
}

static void test_inherited_file(char *pages)
{
	int fd = profile(pages, PAGES), pipes[2], result;
	pid_t child;

	write_pages(pages, 1, 1);
	must(!pipe(pipes), "pipe");
	child = fork();
	if (!child) {
		struct sentinel_count counts[1];
		struct sentinel_read read = { (uintptr_t)pages, 1, (uintptr_t)counts, 0 };

		/* Another user: may not ptrace the parent, which is root's. */
		must(!setgid(65534) && !setuid(65534), "setuid");
		result = ioctl(fd, SENTINEL_IOC_READ, &read) ? errno : 0;
		must(write(pipes[1], &result, sizeof(result)) == sizeof(result), "write");
		_exit(0);
	}
	must(read(pipes[0], &result, sizeof(result)) == sizeof(result), "read");
	wait_for(child);
	check(result == EACCES || result == EPERM,
	      "another user cannot read through an inherited file (%s)", strerror(result));
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

/* A process that writes all its pages until it is killed; tells when it has begun. */
static pid_t writer(char *pages, int ready)
{
	pid_t child = fork();

	if (child)
		return child;
	must(write(ready, "r", 1) == 1, "write");
	for (;;)
		write_pages(pages, PAGES, 100);
}

static void watch_and_sleep(pid_t target, char *pages, int ready)
{
	struct sentinel_attach attach = { .pid = target };
	struct sentinel_range range = { (uintptr_t)pages, PAGES * PAGE };
	int fd = open("/dev/sentinel", O_RDWR);

	must(!ioctl(fd, SENTINEL_IOC_ATTACH, &attach), "ATTACH");
	must(!ioctl(fd, SENTINEL_IOC_ADD_RANGE, &range), "ADD_RANGE");
	start(fd, SENTINEL_MODE_EXACT);
	while (!sum_of(fd, pages, PAGES).writes)
		usleep(1000);
	must(write(ready, "r", 1) == 1, "write");
	for (;;)
		pause();
}

static void test_killed_profiler(char *pages)
{
	int pipes[2];
	pid_t target, profiler;
	char byte;

	if (!(info.features & SENTINEL_FEATURE_ATTACH)) {
		skip("a killed profiler", "the module profiles its caller only");
		return;
	}
	must(!pipe(pipes), "pipe");
	target = writer(pages, pipes[1]);
	must(read(pipes[0], &byte, 1) == 1, "read");
	profiler = fork();
	if (!profiler)
		watch_and_sleep(target, pages, pipes[1]);
	must(read(pipes[0], &byte, 1) == 1, "read");
	check(true, "another process is profiled");
	kill(profiler, SIGKILL);
	wait_for(profiler);
	expect_nothing_held("after kill -9 of the profiler");
	usleep(50000);
	check(waitpid(target, NULL, WNOHANG) == 0, "its target goes on");
	kill(target, SIGKILL);
	wait_for(target);
	/* And the other way round: the target is killed in the middle of a step. */
	for (int i = 0; i < 20; i++) {
		target = fork();
		if (!target) {
			start(profile(pages, PAGES), SENTINEL_MODE_EXACT);
			for (;;)
				write_pages(pages, PAGES, 100);
		}
		usleep(5000);
		kill(target, SIGKILL);
		wait_for(target);
	}
	expect_nothing_held("after kill -9 of 20 profiled processes");
	close(pipes[0]);
	close(pipes[1]);
}

void test_processes(void)
{
	char *pages = new_pages(PAGES);

	memset(pages, 1, PAGES * PAGE);
	test_fork(pages);
	test_exec_and_exit(pages);
	test_inherited_file(pages);
	test_killed_profiler(pages);
	munmap(pages, PAGES * PAGE);
}
