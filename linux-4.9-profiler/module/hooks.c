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
#include <linux/ftrace.h>
#include <linux/hugetlb.h>
#include <linux/mempolicy.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sentinel_hooks.h>
#include <linux/userfaultfd_k.h>
#include <asm/trap_pf.h>

#include "module.h"

enum {
	WAY_OUT,
	MM_FAULT,
	BAD_TABLE,
	NO_AREA,
	NO_RIGHT,
	PAGE_PROT,
	PROTECTION,
	HUGE_CHECK,
	HUGE_MAP,
	COPY_MAPPING,
	SPLIT,
	COPY_PAGES,
	MOVE_PAGES,
	MERGE,
	NEW_TASK,
	TASK_END,
	MM_END,
};

/**
 * struct hook - a function of the kernel
 * @name: its name
 * @act: called with its arguments, before it; may change them and where it goes on
 * @entry: where the tracer is called in it
 */
struct hook {
	const char *name;
	void (*act)(struct pt_regs *call);
	unsigned long entry;
};

static struct hook hooks[];

/* The function itself, behind the call of the tracer. */
#define ORIGINAL(hook, type) ((type)(hooks[hook].entry + MCOUNT_INSN_SIZE))

/* The fault that was refused on this processor: it must fail, not be repeated. */
static DEFINE_PER_CPU(struct pt_regs *, refused);

static void go_to(struct pt_regs *call, void *function)
{
	call->ip = (unsigned long)function;
}

/* For functions that come back to the module: they must call module_put() when they have. */
static void divert(struct pt_regs *call, void *function)
{
	if (try_module_get(THIS_MODULE))
		go_to(call, function);
}

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

static void on_bad_table(struct pt_regs *call)
{
	struct pt_regs *regs = (struct pt_regs *)call->di;

	switch (sentinel_fault(regs, call->si, call->dx)) {
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

static void on_mm_fault(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;
	struct pt_regs *regs = (struct pt_regs *)call->cx;

	sentinel_arm_mapping(vma);
	if (regs && user_mode(regs) && vma->vm_mm == current->mm)
		sentinel_pause(regs);
}

/* Mappings */

static void set_page_prot(struct vm_area_struct *vma)
{
	ORIGINAL(PAGE_PROT, void (*)(struct vm_area_struct *))(vma);
	sentinel_arm_mapping(vma);
	module_put(THIS_MODULE);
}

static void on_page_prot(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;

	if (vma->vm_mm && sentinel_mm_profiled(vma->vm_mm))
		divert(call, set_page_prot);
}

static void on_protection(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->si;

	sentinel_arm_mapping(vma);
	/* Not for the hints of NUMA balancing, which are not present. */
	if (sentinel_is_armed(vma) && call->r8 & _PAGE_PRESENT)
		call->r8 |= sentinel_poison;
}

static bool no(void)
{
	return false;
}

static void on_huge_check(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;

	if (vma->vm_mm && sentinel_mm_profiled(vma->vm_mm))
		go_to(call, no);
}

static vm_fault_t fall_back(void)
{
	return VM_FAULT_FALLBACK;
}

static void on_huge_map(struct pt_regs *call)
{
	struct vm_fault *fault = (struct vm_fault *)call->di;

	if (sentinel_mm_profiled(fault->vma->vm_mm))
		go_to(call, fall_back);
}

static struct vm_area_struct *copy_mapping(struct vm_area_struct *vma)
{
	struct vm_area_struct *copy = ORIGINAL(
		COPY_MAPPING, struct vm_area_struct *(*)(struct vm_area_struct *))(vma);

	if (copy)
		sentinel_disarm_copy(copy);
	module_put(THIS_MODULE);
	return copy;
}

/* Of others, copy_page_range() or split_mapping() hears afterwards; these may be a child's and have no pages to copy. */
static void on_copy_mapping(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;

	if (vma->vm_flags & VM_WIPEONFORK && sentinel_is_armed(vma))
		divert(call, copy_mapping);
}

typedef int (*splitter)(struct mm_struct *mm, struct vm_area_struct *vma,
			unsigned long address, int new_below);

static int split_mapping(struct mm_struct *mm, struct vm_area_struct *vma,
			 unsigned long address, int new_below)
{
	int error = ORIGINAL(SPLIT, splitter)(mm, vma, address, new_below);

	if (!error) {
		sentinel_arm_mapping(find_vma(mm, address - 1));
		sentinel_arm_mapping(find_vma(mm, address));
	}
	module_put(THIS_MODULE);
	return error;
}

static void on_split(struct pt_regs *call)
{
	if (sentinel_mm_profiled((struct mm_struct *)call->di))
		divert(call, split_mapping);
}

static int copy_pages(struct vm_area_struct *copy, struct vm_area_struct *vma)
{
	int error;

	sentinel_disarm_copy(copy);
	error = ORIGINAL(COPY_PAGES, int (*)(struct vm_area_struct *,
					     struct vm_area_struct *))(copy, vma);
	sentinel_unmark_copy(copy);
	module_put(THIS_MODULE);
	return error;
}

static void on_copy_pages(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->si;

	if (sentinel_mm_profiled(vma->vm_mm))
		divert(call, copy_pages);
}

typedef unsigned long (*mover)(struct vm_area_struct *vma, unsigned long from,
			       struct vm_area_struct *target, unsigned long to,
			       unsigned long bytes, bool need_rmap_locks);

static unsigned long move_pages(struct vm_area_struct *vma, unsigned long from,
				struct vm_area_struct *target, unsigned long to,
				unsigned long bytes, bool need_rmap_locks)
{
	unsigned long moved = ORIGINAL(MOVE_PAGES, mover)(
		vma, from, target, to, bytes, need_rmap_locks);

	sentinel_pages_moved(target, to, bytes);
	module_put(THIS_MODULE);
	return moved;
}

static void on_move_pages(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;

	if (sentinel_mm_profiled(vma->vm_mm))
		divert(call, move_pages);
}

typedef struct vm_area_struct *(*merger)(
	struct mm_struct *mm, struct vm_area_struct *prev, unsigned long start,
	unsigned long end, unsigned long flags, struct anon_vma *anon_vma,
	struct file *file, pgoff_t offset, struct mempolicy *policy,
	struct vm_userfaultfd_ctx context, struct anon_vma_name *name);

static struct vm_area_struct *
merge(struct mm_struct *mm, struct vm_area_struct *prev, unsigned long start,
      unsigned long end, unsigned long flags, struct anon_vma *anon_vma,
      struct file *file, pgoff_t offset, struct mempolicy *policy,
      struct vm_userfaultfd_ctx context, struct anon_vma_name *name)
{
	struct vm_area_struct *merged = ORIGINAL(MERGE, merger)(
		mm, prev, start, end, flags, anon_vma, file, offset, policy,
		context, name);

	if (merged)
		sentinel_arm_mapping(merged);
	module_put(THIS_MODULE);
	return merged;
}

static void on_merge(struct pt_regs *call)
{
	if (sentinel_mm_profiled((struct mm_struct *)call->di))
		divert(call, merge);
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

/* Those that are called most are first. */
static struct hook hooks[] = {
	[WAY_OUT] = { "exit_to_user_mode_prepare", on_way_out },
	[MM_FAULT] = { "handle_mm_fault", on_mm_fault },
	[BAD_TABLE] = { "pgtable_bad", on_bad_table },
	[NO_AREA] = { "bad_area_nosemaphore", on_no_area },
	[NO_RIGHT] = { "bad_area_access_error", on_no_right },
	[PAGE_PROT] = { "vma_set_page_prot", on_page_prot },
	[PROTECTION] = { "change_protection", on_protection },
	[HUGE_CHECK] = { "hugepage_vma_check", on_huge_check },
	[HUGE_MAP] = { "do_set_pmd", on_huge_map },
	[COPY_MAPPING] = { "vm_area_dup", on_copy_mapping },
	[SPLIT] = { "__split_vma", on_split },
	[COPY_PAGES] = { "copy_page_range", on_copy_pages },
	[MOVE_PAGES] = { "move_page_tables", on_move_pages },
	[MERGE] = { "vma_merge", on_merge },
	[NEW_TASK] = { "wake_up_new_task", on_new_task },
	[TASK_END] = { "exit_mm_release", on_task_end },
	[MM_END] = { "exit_mmap", on_mm_end },
};

static void on_call(unsigned long entry, unsigned long parent,
		    struct ftrace_ops *ops, struct ftrace_regs *call)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (hooks[i].entry == entry) {
			hooks[i].act(&call->regs);
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

	for (i = 0; i < ARRAY_SIZE(hooks) && !error; i++) {
		hooks[i].entry = sentinel_kernel_entry(hooks[i].name);
		error = hooks[i].entry ?
			ftrace_set_filter_ip(&tracer, hooks[i].entry, 0, 0) : -ENOENT;
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
