/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the profiler know of each other. */
#ifndef _SENTINEL_INTERNAL_H
#define _SENTINEL_INTERNAL_H

#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <asm/sentinel.h>

#include "sentinel_compat.h"
#include "sentinel_regions.h"

/**
 * struct sentinel_machine - what is known once for all processors
 * @mechanism: SENTINEL_MECHANISM_*
 * @bit: the bit of an entry that marks it
 * @physical_bits: width of physical addresses
 * @encryption_mask: address bits that mean encrypted memory
 */
struct sentinel_machine {
	u32 mechanism;
	u32 bit;
	u32 physical_bits;
	u64 encryption_mask;
};

extern struct sentinel_machine sentinel_machine;
extern struct sentinel_limits sentinel_limits;

#ifdef MODULE
/**
 * struct sentinel_link - finds a session by its address space, a task's state by the task
 * @node: in the table of module/links.c
 * @owner: the address space, the task
 *
 * For the module: the structures of an unmodified kernel have no field for it.
 */
struct sentinel_link {
	struct hlist_node node;
	const void *owner;
};

/**
 * struct sentinel_armed - where the module has had entries born with the mark
 * @lock: protects both
 * @start: no marked entry is below
 * @end: nor here or above
 */
struct sentinel_armed {
	raw_spinlock_t lock;
	unsigned long start;
	unsigned long end;
};
#endif

/**
 * struct sentinel_session - one process that is being profiled
 * @references: the open file, the address space, and tasks with pending accesses
 * @rcu: for freeing when no hook can be looking any more
 * @lock: one call at a time; protects @mm, @table and changes of @mode
 * @mm: the address space, NULL before it is known and after it has ended
 * @ended: the address space has ended
 * @pid: its process, for asking whether a caller may ptrace it; set once, with @lock held
 * @table: the ranges; they change only when @mode is 0 and no hook can still look
 * @stale: a hook may still be looking at @table after a STOP
 * @mode: SENTINEL_MODE_* or 0; hooks read it without a lock
 * @run: number of STARTs, tells accesses that are left from an earlier one
 * @stepper: the thread whose pages are open in exact mode; the others may not
 *	run in user mode
 * @turn: where those wait that want to be the next
 * @idle: where the others wait
 * @in_user: processors that may run one of the others in user mode; @stepper's
 * @reads, @writes, @kernel_accesses, @steps, @spurious, @left_open: see struct sentinel_status
 * @link, @armed: the module's
 */
struct sentinel_session {
	struct kref references;
	struct rcu_head rcu;
	struct mutex lock;
	struct mm_struct *mm;
	bool ended;
	struct pid *pid;
	struct sentinel_table table;
	bool stale;
	u32 mode;
	u32 run;
	struct task_struct *stepper;
	wait_queue_head_t turn;
	wait_queue_head_t idle;
	struct cpumask in_user;
	atomic64_t reads;
	atomic64_t writes;
	atomic64_t kernel_accesses;
	atomic64_t steps;
	atomic64_t spurious;
	atomic64_t left_open;
#ifdef MODULE
	struct sentinel_link link;
	struct sentinel_armed armed;
#endif
};

/**
 * struct sentinel_task - accesses of one task that are being let through
 * @session: whose pages they are; a reference while a list is not empty
 * @run: of the session, when the first access was noted
 * @ip: the instruction of @user
 * @user: accesses of the instruction that user mode will repeat
 * @kernel: pages that a system call has opened
 * @open: pages of @user are open and the instruction may run
 * @stepped: it has run
 * @holds_turn: of the session
 * @own_step: the single-step flag is ours to clear
 * @link, @rcu: the module's
 */
struct sentinel_task {
	struct sentinel_session *session;
	u32 run;
	unsigned long ip;
	struct sentinel_pending user;
	struct sentinel_pending kernel;
	bool open;
	bool stepped;
	bool holds_turn;
	bool own_step;
#ifdef MODULE
	struct sentinel_link link;
	struct rcu_head rcu;
#endif
};

/* sentinel_pages.c */

/**
 * struct sentinel_spot - one entry of a page table, with its lock
 * @entry: the entry, or NULL when there is no table for the address
 * @lock: held while @entry is not NULL
 * @corrupt: an entry above it has bits that no kernel sets
 * @busy: another processor has the lock; try again with interrupts on
 */
struct sentinel_spot {
	pte_t *entry;
	spinlock_t *lock;
	bool corrupt;
	bool busy;
};

struct sentinel_spot sentinel_lock_entry(struct mm_struct *mm,
					 unsigned long address);
void sentinel_unlock_entry(struct sentinel_spot *spot);
bool sentinel_mark_entry(pte_t *entry);
bool sentinel_unmark_entry(pte_t *entry);
int sentinel_mark_range(struct mm_struct *mm, u64 start, u64 end, bool mark);
bool sentinel_has_hugetlb(struct mm_struct *mm, u64 start, u64 end);

/* sentinel_step.c */
struct sentinel_task *sentinel_task_get(struct sentinel_session *session);
void sentinel_close_kernel_page(struct mm_struct *mm,
				struct sentinel_session *session, u64 page);
void sentinel_count_access(struct sentinel_session *session,
			   unsigned long address, bool write);
void sentinel_call_in(struct mm_struct *mm);
void sentinel_left_user_mode(void);

/* sentinel_fault.c */
int sentinel_fault_init(void);
void sentinel_fault_exit(void);

/* sentinel_session.c */
struct sentinel_session *sentinel_session_new(void);
void sentinel_session_put(struct sentinel_session *session);
void sentinel_session_close(struct sentinel_session *session);
struct mm_struct *sentinel_reach(struct sentinel_session *session);
int sentinel_enter(struct sentinel_session *session, struct mm_struct *reached);
bool sentinel_has_process(struct sentinel_session *session);
int sentinel_attach(struct sentinel_session *session, pid_t pid);
int sentinel_add_range(struct sentinel_session *session, struct mm_struct *mm,
		       u64 start, u64 bytes);
int sentinel_start(struct sentinel_session *session, struct mm_struct *mm,
		   u32 mode);
int sentinel_stop(struct sentinel_session *session, struct mm_struct *mm);
int sentinel_forget_translations(struct sentinel_session *session,
				 struct mm_struct *mm);
int sentinel_reset(struct sentinel_session *session, bool ranges);
u32 sentinel_mode(const struct sentinel_session *session);
extern atomic_long_t sentinel_sessions;
extern atomic_long_t sentinel_pages;
extern atomic_long_t sentinel_tasks;

/* What a patched kernel has fields and hooks for, and the module its own means (module/). */
#ifdef MODULE

#define SENTINEL_FEATURES_OF_BUILD	0
#define SENTINEL_NOT_COUNTED_BY_BUILD	SENTINEL_NOT_LATE_DEVICE

int sentinel_platform_init(void);
void sentinel_platform_exit(void);
struct sentinel_session *sentinel_of_mm(const struct mm_struct *mm);
void sentinel_set_mm(struct mm_struct *mm, struct sentinel_session *session);
void sentinel_clear_mm(struct mm_struct *mm, struct sentinel_session *session);
struct sentinel_task *sentinel_current(void);
void sentinel_set_current(struct sentinel_task *task);
void sentinel_free_current(struct sentinel_task *task);
void sentinel_arm_mappings(struct sentinel_session *session,
			   struct mm_struct *mm);
void sentinel_disarm_mappings(struct sentinel_session *session,
			      struct mm_struct *mm);

#else

#define SENTINEL_FEATURES_OF_BUILD	SENTINEL_FEATURE_PATCHED
#define SENTINEL_NOT_COUNTED_BY_BUILD	0

static inline int sentinel_platform_init(void)
{
	return 0;
}

static inline void sentinel_platform_exit(void)
{
}

/* The session of an address space; kept by RCU, a reference, or the session's lock. */
static inline struct sentinel_session *sentinel_of_mm(const struct mm_struct *mm)
{
	return rcu_dereference_raw(mm->sentinel);
}

static inline void sentinel_set_mm(struct mm_struct *mm,
				   struct sentinel_session *session)
{
	rcu_assign_pointer(mm->sentinel, session);
}

static inline void sentinel_clear_mm(struct mm_struct *mm,
				     struct sentinel_session *session)
{
	RCU_INIT_POINTER(mm->sentinel, NULL);
}

/* The current task's state, or NULL. */
static inline struct sentinel_task *sentinel_current(void)
{
	return current->sentinel;
}

static inline void sentinel_set_current(struct sentinel_task *task)
{
	current->sentinel = task;
}

static inline void sentinel_free_current(struct sentinel_task *task)
{
	current->sentinel = NULL;
	kfree(task);
}

/* set_pte_at() marks entries as they are made. */
static inline void sentinel_arm_mappings(struct sentinel_session *session,
					 struct mm_struct *mm)
{
}

static inline void sentinel_disarm_mappings(struct sentinel_session *session,
					    struct mm_struct *mm)
{
}

#endif

#endif /* _SENTINEL_INTERNAL_H */
