// SPDX-License-Identifier: GPL-2.0
/* The module for an unmodified kernel: what it needs, in which order, and how it goes. */
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/security.h>
#include <linux/utsname.h>
#include <linux/version.h>

#include "module.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#error "The module knows the insides of Linux 6.1 only; for others there are patches or nothing."
#endif

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Counts accesses per page of a process (experimental on an unmodified kernel)");
MODULE_VERSION("1");

/* Why the module cannot work here, or NULL. */
static const char *__init why_impossible(void)
{
	if (strncmp(init_utsname()->release, "6.1.", 4) &&
	    strcmp(init_utsname()->release, "6.1"))
		return "this is not Linux 6.1";
	if (security_locked_down(LOCKDOWN_MODULE_SIGNATURE))
		return "the kernel is locked down, and this changes its memory mask and its functions";
	if (sentinel_machine.mechanism != SENTINEL_MECHANISM_RESERVED_BIT)
		return "bit 51 of an address is not free on this processor; a patched kernel can do without";
	return NULL;
}

/**
 * sentinel_platform_init() - makes an unmodified kernel as the patched one
 *
 * Return: 0 or an error, with everything as it was.
 */
int __init sentinel_platform_init(void)
{
	const char *reason = why_impossible();
	int error;

	if (reason) {
		pr_err("sentinel: not loaded: %s\n", reason);
		return -ENODEV;
	}
	error = sentinel_kernel_init();
	if (error)
		return error;
	error = sentinel_hooks_init();
	if (error)
		return error;
	/* Last, because it stays. Nothing is marked before. */
	error = sentinel_take_address_bit(sentinel_machine.bit);
	if (error)
		sentinel_hooks_exit();
	return error;
}

/**
 * sentinel_platform_exit() - puts the kernel back, but for the address bit
 *
 * There is no session, so no entry is marked and no task is in the module but
 * for the last instructions of a hook.
 */
void sentinel_platform_exit(void)
{
	sentinel_hooks_exit();
	synchronize_rcu_tasks();
	rcu_barrier();
	sentinel_links_exit();
}
