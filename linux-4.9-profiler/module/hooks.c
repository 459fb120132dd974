// SPDX-License-Identifier: GPL-2.0
/*
 * What the patches do in a patched kernel, by the function tracer.
 *
 * Each hook runs before its function. It may act at once, change an argument,
 * or have another function run in its place, which then calls the original
 * behind the place where the tracer is called. Whoever runs in such a function
 * holds the module.
 *
 * do_user_addr_fault() cannot be traced. A reserved-bit fault is served in
 * pgtable_bad(), which it calls first and which would report a corrupt table; what
 * do_user_addr_fault() does afterwards with the error code of such a fault ends in
 * one of three functions, hooked too: bad_area_nosemaphore() and
 * bad_area_access_error() do nothing then, and handle_mm_fault() finds an entry
 * with which nothing is wrong.
 */
#include <linux/percpu.h>
#include <linux/sentinel_hooks.h>
#include <asm/trap_pf.h>

#include "hook.h"
#include "module.h"

/* The fault that was refused on this processor: it must fail, not be repeated. */
static DEFINE_PER_CPU(struct pt_regs *, refused);

static void do_nothing(void)
{
}

/* Return to user mode */

static void way_out(struct pt_regs *regs)
{
	struct sentinel_frame frame;

	sentinel_frame_enter(&frame);
	do {
		sentinel_exit_begin(regs);
		ORIGINAL(WAY_OUT, void (*)(struct pt_regs *))(regs);
	} while (sentinel_exit_end(regs));
	sentinel_frame_leave(&frame);
}

static void on_way_out(struct pt_regs *call)
{
	if (!sentinel_in_use || !current->mm)
		return;
	if (sentinel_current() || __sentinel_mm_profiled(current->mm))
		divert(call, way_out);
}

/* Page faults */

/* Huge pages are not watched; a fault on one that has the mark would be repeated for ever. */
static bool is_of_huge_page(unsigned long error, unsigned long address)
{
	unsigned long flags;
	bool is;

	if (!(error & X86_PF_RSVD) || !sentinel_in_use || !current->mm ||
	    in_interrupt())
		return false;
	local_irq_save(flags);
	is = sentinel_unmark_huge(current->mm, address);
	local_irq_restore(flags);
	return is;
}

static void on_bad_table(struct pt_regs *call)
{
	struct pt_regs *regs = (struct pt_regs *)call->di;
	enum sentinel_verdict verdict = is_of_huge_page(call->si, call->dx) ?
		SENTINEL_DONE : sentinel_fault(regs, call->si, call->dx);

	switch (verdict) {
	case SENTINEL_DONE:
		this_cpu_write(refused, NULL);
		go_to(call, do_nothing);
		break;
	case SENTINEL_NO_ACCESS:
		this_cpu_write(refused, regs);
		go_to(call, do_nothing);
		break;
	case SENTINEL_NOT_MINE:
		break;
	}
}

/* pgtable_bad() does not come back from a fault that is not the profiler's, so each of these is. */
static bool is_done(struct pt_regs *call)
{
	return call->si & X86_PF_RSVD &&
	       raw_cpu_read(refused) != (struct pt_regs *)call->di;
}

static void on_no_area(struct pt_regs *call)
{
	if (is_done(call))
		go_to(call, do_nothing);
}

/* bad_area_access_error() is called with the lock, and without it when it has returned. */
static void unlock_only(void)
{
	mmap_read_unlock(current->mm);
}

static void on_no_right(struct pt_regs *call)
{
	if (is_done(call))
		go_to(call, unlock_only);
}

/* Tasks and address spaces */

static void on_new_task(struct pt_regs *call)
{
	sentinel_task_fork((struct task_struct *)call->di);
}

static void on_task_end(struct pt_regs *call)
{
	sentinel_task_exit();
	sentinel_frames_forget();
}

static void end_mm(struct mm_struct *mm)
{
	sentinel_mm_exit(mm);
	ORIGINAL(MM_END, void (*)(struct mm_struct *))(mm);
	module_put(THIS_MODULE);
}

static void on_mm_end(struct pt_regs *call)
{
	if (sentinel_of_mm((struct mm_struct *)call->di))
		divert(call, end_mm);
}

struct sentinel_hook sentinel_hooks[HOOKS] = {
	[WAY_OUT] = { "exit_to_user_mode_prepare", on_way_out },
	[MM_FAULT] = { "handle_mm_fault", sentinel_on_mm_fault },
	[BAD_TABLE] = { "pgtable_bad", on_bad_table },
	[NO_AREA] = { "bad_area_nosemaphore", on_no_area },
	[NO_RIGHT] = { "bad_area_access_error", on_no_right },
	[PAGE_PROT] = { "vma_set_page_prot", sentinel_on_page_prot },
	[PROTECTION] = { "change_protection", sentinel_on_protection },
	[HUGE_CHECK] = { "hugepage_vma_check", sentinel_on_huge_check },
	[HUGE_MAP] = { "do_set_pmd", sentinel_on_huge_map },
	[COPY_MAPPING] = { "vm_area_dup", sentinel_on_copy_mapping },
	[SPLIT] = { "__split_vma", sentinel_on_split },
	[COPY_PAGES] = { "copy_page_range", sentinel_on_copy_pages },
	[MOVE_PAGES] = { "move_page_tables", sentinel_on_move_pages },
	[MERGE] = { "vma_merge", sentinel_on_merge },
	[NEW_TASK] = { "wake_up_new_task", on_new_task },
	[TASK_END] = { "exit_mm_release", on_task_end },
	[MM_END] = { "exit_mmap", on_mm_end },
};

static void on_call(unsigned long entry, unsigned long parent,
		    struct ftrace_ops *ops, struct ftrace_regs *call)
{
	u32 i;

	for (i = 0; i < HOOKS; i++) {
		if (sentinel_hooks[i].entry == entry) {
			sentinel_hooks[i].act(&call->regs);
			return;
		}
	}
}

/* Permanent: switching the tracer off by sysctl would leave marks that nobody knows. */
static struct ftrace_ops tracer = {
	.func = on_call,
	.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT,
};

/**
 * sentinel_hooks_init() - hooks all functions, or none
 *
 * Return: 0 or an error.
 */
int __init sentinel_hooks_init(void)
{
	int error = 0;
	u32 i;

	for (i = 0; i < HOOKS && !error; i++) {
		sentinel_hooks[i].entry = sentinel_kernel_entry(sentinel_hooks[i].name);
		error = sentinel_hooks[i].entry ?
			ftrace_set_filter_ip(&tracer, sentinel_hooks[i].entry, 0, 0) : -ENOENT;
	}
	if (!error)
		error = register_ftrace_function(&tracer);
	if (error) {
		pr_err("sentinel: not loaded: the function tracer refuses (%d)\n", error);
		ftrace_free_filter(&tracer);
	}
	return error;
}

/**
 * sentinel_hooks_exit() - all functions are as before
 *
 * Nobody comes by a hook any more when it returns.
 */
void sentinel_hooks_exit(void)
{
	if (unregister_ftrace_function(&tracer))
		pr_err("sentinel: the function tracer keeps the hooks\n");
	ftrace_free_filter(&tracer);
}
