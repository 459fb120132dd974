/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel calls of the Sentinel profiler; linux/sentinel_hooks.h.
 *
 * Each hook costs one test until a process is profiled for the first time.
 */
#ifndef _LINUX_SENTINEL_HOOKS_H
#define _LINUX_SENTINEL_HOOKS_H

#include <linux/types.h>

struct mm_struct;
struct pt_regs;
struct task_struct;

/**
 * enum sentinel_verdict - what is to happen to a page fault
 * @SENTINEL_NOT_MINE: not the profiler's; handle it as ever
 * @SENTINEL_DONE: done; repeat the instruction
 * @SENTINEL_NO_ACCESS: may not be served in an interrupt; fail the access
 */
enum sentinel_verdict {
	SENTINEL_NOT_MINE,
	SENTINEL_DONE,
	SENTINEL_NO_ACCESS,
};

#ifdef CONFIG_SENTINEL_PROFILER

extern bool sentinel_in_use;

enum sentinel_verdict sentinel_fault(struct pt_regs *regs, unsigned long error,
				     unsigned long address);
void sentinel_pause(struct pt_regs *regs);
void sentinel_exit_begin(struct pt_regs *regs);
bool sentinel_exit_end(struct pt_regs *regs);
bool __sentinel_mm_profiled(struct mm_struct *mm);
void sentinel_mm_exit(struct mm_struct *mm);
void sentinel_task_fork(struct task_struct *child);
void sentinel_task_exit(void);

/* True while a process with this address space is being profiled. */
static inline bool sentinel_mm_profiled(struct mm_struct *mm)
{
	return sentinel_in_use && __sentinel_mm_profiled(mm);
}

#else

static inline enum sentinel_verdict sentinel_fault(struct pt_regs *regs,
						   unsigned long error,
						   unsigned long address)
{
	return SENTINEL_NOT_MINE;
}

static inline void sentinel_pause(struct pt_regs *regs)
{
}

static inline void sentinel_exit_begin(struct pt_regs *regs)
{
}

static inline bool sentinel_exit_end(struct pt_regs *regs)
{
	return false;
}

static inline bool sentinel_mm_profiled(struct mm_struct *mm)
{
	return false;
}

static inline void sentinel_mm_exit(struct mm_struct *mm)
{
}

static inline void sentinel_task_fork(struct task_struct *child)
{
}

static inline void sentinel_task_exit(void)
{
}

#endif
#endif /* _LINUX_SENTINEL_HOOKS_H */
