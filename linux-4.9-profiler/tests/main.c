// SPDX-License-Identifier: GPL-2.0
/* The tests' main program: guest_tests [GROUP...] */
#include "guest.h"

static const struct {
	const char *name;
	void (*run)(void);
} groups[] = {
	{ "exact", test_exact },	 { "memory", test_memory },
	{ "mappings", test_mappings },	 { "huge", test_huge },
	{ "processes", test_processes }, { "interface", test_interface },
	{ "threads", test_threads },	 { "stress", test_stress },
};

static bool is_wanted(const char *name, char **wanted)
{
	if (!*wanted)
		return true;
	for (; *wanted; wanted++)
		if (!strcmp(*wanted, name))
			return true;
	return false;
}

int main(int count, char **arguments)
{
	int fd = open("/dev/sentinel", O_RDWR);

	(void)count;
	setvbuf(stdout, NULL, _IOLBF, 0);
	must(fd >= 0, "open /dev/sentinel");
	must(!ioctl(fd, SENTINEL_IOC_INFO, &info), "INFO");
	close(fd);
	printf("# %s, bit %u, %u bit addresses, %s\n", info.mechanism_name,
	       info.poison_bit, info.physical_bits,
	       patched() ? "patched kernel" : "module");
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
		if (!is_wanted(groups[i].name, arguments + 1))
			continue;
		printf("# %s\n", groups[i].name);
		groups[i].run();
	}
	return done_testing();
}
