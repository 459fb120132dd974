/* SPDX-License-Identifier: GPL-2.0 */
/* What hooks are made of. */
#ifndef _SENTINEL_HOOK_H
#define _SENTINEL_HOOK_H

#include <linux/ftrace.h>
#include <linux/module.h>
#include <asm/ptrace.h>

/* The functions that are hooked. Those that are called most are first. */
enum sentinel_hook_id {
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
	HOOKS,
};

/**
 * struct sentinel_hook - a function of the kernel
 * @name: its name
 * @act: called with its arguments, before it; may change them and where it goes on
 * @entry: where the tracer is called in it
 */
struct sentinel_hook {
	const char *name;
	void (*act)(struct pt_regs *call);
	unsigned long entry;
};

extern struct sentinel_hook sentinel_hooks[HOOKS];

/* The function itself, behind the call of the tracer. */
#define ORIGINAL(hook, type) ((type)(sentinel_hooks[hook].entry + MCOUNT_INSN_SIZE))

/* Another function runs instead. */
static inline void go_to(struct pt_regs *call, void *function)
{
	call->ip = (unsigned long)function;
}

/* For functions that come back to the module: they must call module_put() when they have. */
static inline void divert(struct pt_regs *call, void *function)
{
	if (try_module_get(THIS_MODULE))
		go_to(call, function);
}

/* mapping_hooks.c */
void sentinel_on_mm_fault(struct pt_regs *call);
void sentinel_on_page_prot(struct pt_regs *call);
void sentinel_on_protection(struct pt_regs *call);
void sentinel_on_huge_check(struct pt_regs *call);
void sentinel_on_huge_map(struct pt_regs *call);
void sentinel_on_copy_mapping(struct pt_regs *call);
void sentinel_on_split(struct pt_regs *call);
void sentinel_on_copy_pages(struct pt_regs *call);
void sentinel_on_move_pages(struct pt_regs *call);
void sentinel_on_merge(struct pt_regs *call);

#endif /* _SENTINEL_HOOK_H */
