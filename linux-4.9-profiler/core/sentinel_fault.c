// SPDX-License-Identifier: GPL-2.0
/* The two exceptions: the fault on a marked page, and the trap after the instruction that was let through. */
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sentinel_hooks.h>
#include <asm/debugreg.h>

#include "sentinel_internal.h"

/* Bits of a page fault's error code. */
#define FAULT_PRESENT	0x1
#define FAULT_WRITE	0x2
#define FAULT_RESERVED	0x8
#define FAULT_FETCH	0x10

/*
 * A reserved-bit fault on an entry that is clean by now is repeated; that is
 * how threads that race for a page end. So many in a row, at one instruction
 * and address, are no race but an entry that the processor dislikes for a
 * reason that is not known here.
 */
#define REPEATS_AT_MOST	100000

struct repeats {
	unsigned long address;
	unsigned long ip;
	unsigned long times;
};

static DEFINE_PER_CPU(struct repeats, repeats);

static bool repeats_too_often(struct pt_regs *regs, unsigned long address)
{
	struct repeats *last = this_cpu_ptr(&repeats);

	if (last->address != address || last->ip != regs->ip)
		last->times = 0;
	last->address = address;
	last->ip = regs->ip;
	return ++last->times > REPEATS_AT_MOST;
}

/* A page that cannot be watched for this access: it is counted, and open until its entry is written again. */
static void leave_open(struct sentinel_session *session, pte_t *entry,
		       unsigned long address, bool write)
{
	sentinel_count_access(session, address, write);
	sentinel_unmark_entry(entry);
	atomic64_inc(&session->left_open);
}

static void user_access(struct sentinel_session *session, pte_t *entry,
			struct pt_regs *regs, unsigned long address, u32 flags)
{
	struct sentinel_task *task = sentinel_task_get(session);

	/* The way out closes the pages of an earlier instruction, or run, first; then this one faults again. */
	if (task && task->user.used &&
	    (task->ip != regs->ip || task->run != READ_ONCE(session->run)))
		return;
	if (task && !task->user.used) {
		task->ip = regs->ip;
		task->run = READ_ONCE(session->run);
	}
	if (!task || sentinel_note(&task->user, address, flags) == SENTINEL_FULL)
		leave_open(session, entry, address, flags & SENTINEL_WRITE);
}

/* Returns a page to be marked again after this entry's lock is released, or 0. */
static u64 kernel_access(struct sentinel_session *session, pte_t *entry,
			 unsigned long address, bool write)
{
	struct sentinel_task *task = sentinel_task_get(session);
	enum sentinel_noted noted;
	u64 evicted = 0;

	if (!task) {
		leave_open(session, entry, address, write);
		atomic64_inc(&session->kernel_accesses);
		return 0;
	}
	if (!task->kernel.used && !task->user.used)
		task->run = READ_ONCE(session->run);
	if (task->kernel.used == SENTINEL_PENDING)
		evicted = sentinel_evict(&task->kernel);
	noted = sentinel_note(&task->kernel, address, SENTINEL_OPEN);
	if (noted == SENTINEL_NEW) {
		sentinel_count_access(session, address, write);
		atomic64_inc(&session->kernel_accesses);
	}
	sentinel_unmark_entry(entry);
	return evicted;
}

/* The access to a marked entry that is locked. Returns what kernel_access() does. */
static u64 marked_access(struct mm_struct *mm, struct sentinel_session *session,
			 pte_t *entry, struct pt_regs *regs,
			 unsigned long error, unsigned long address)
{
	bool write = error & FAULT_WRITE;

	/* Left from a session that is over: nothing is to be counted. */
	if (!session || !sentinel_mode(session) ||
	    !sentinel_find(&session->table, address)) {
		sentinel_unmark_entry(entry);
		return 0;
	}
	if (!user_mode(regs))
		return kernel_access(session, entry, address, write);
	user_access(session, entry, regs, address,
		    (write ? SENTINEL_WRITE : 0) |
		    (error & FAULT_FETCH ? SENTINEL_FETCH : 0));
	return 0;
}

static enum sentinel_verdict serve(struct mm_struct *mm, struct pt_regs *regs,
				   unsigned long error, unsigned long address)
{
	struct sentinel_session *session;
	enum sentinel_verdict verdict;
	struct sentinel_spot spot;
	u64 evicted = 0;

	rcu_read_lock();
	session = sentinel_of_mm(mm);
	spot = sentinel_lock_entry(mm, address);
	if (spot.entry && sentinel_pte_poisoned(READ_ONCE(*spot.entry))) {
		evicted = marked_access(mm, session, spot.entry, regs, error,
					address);
		verdict = SENTINEL_DONE;
	} else if (spot.busy) {
		/* The instruction is repeated until the lock is free; without interrupts it would never be. */
		verdict = regs->flags & X86_EFLAGS_IF ? SENTINEL_DONE :
							SENTINEL_NO_ACCESS;
	} else if (!(error & FAULT_RESERVED)) {
		verdict = SENTINEL_NOT_MINE;
	} else if (spot.corrupt || repeats_too_often(regs, address) ||
		   (spot.entry && pte_present(READ_ONCE(*spot.entry)) &&
		    sentinel_corrupt(pte_val(READ_ONCE(*spot.entry)),
				     sentinel_machine.physical_bits,
				     sentinel_machine.encryption_mask))) {
		verdict = SENTINEL_NOT_MINE;
	} else {
		/* Another thread has opened the page, or taken it away, since the processor looked. */
		if (session)
			atomic64_inc(&session->spurious);
		verdict = SENTINEL_DONE;
	}
	sentinel_unlock_entry(&spot);
	if (evicted)
		sentinel_close_kernel_page(mm, session, evicted);
	rcu_read_unlock();
	return verdict;
}

/**
 * sentinel_fault() - what a page fault at a user address is to the profiler
 * @regs: the registers at the fault
 * @error: its error code
 * @address: where it was
 *
 * Called with interrupts off, before anything is locked. In an interrupt the
 * code that was interrupted may hold the lock that is needed here, so the
 * access fails there, as it does for a page that is not in memory.
 *
 * Return: what is to happen to it.
 */
enum sentinel_verdict sentinel_fault(struct pt_regs *regs, unsigned long error,
				     unsigned long address)
{
	enum sentinel_verdict verdict;
	unsigned long flags;

	if (!sentinel_in_use || !current->mm)
		return SENTINEL_NOT_MINE;
	if (!(error & FAULT_RESERVED) &&
	    (sentinel_machine.mechanism != SENTINEL_MECHANISM_PROT_NONE ||
	     error & FAULT_PRESENT))
		return SENTINEL_NOT_MINE;
	if (in_interrupt())
		return error & FAULT_RESERVED ? SENTINEL_NO_ACCESS :
						SENTINEL_NOT_MINE;
	local_irq_save(flags);
	sentinel_left_user_mode();
	verdict = serve(current->mm, regs, error, address);
	local_irq_restore(flags);
	return verdict;
}
NOKPROBE_SYMBOL(sentinel_fault);

/* A single step in user mode: one that was asked for here, or one whose flag the instruction has copied (pushf, popf). */
static int on_debug(struct notifier_block *block, unsigned long event,
		    void *data)
{
	struct die_args *args = data;
	unsigned long *status = (unsigned long *)args->err;
	struct sentinel_task *task = sentinel_current();

	if (event != DIE_DEBUG || !task || !user_mode(args->regs) ||
	    !(*status & DR_STEP))
		return NOTIFY_DONE;
	task->stepped = task->open;
	/* A debugger steps through this task: it gets its trap. */
	if (test_thread_flag(TIF_SINGLESTEP))
		return NOTIFY_DONE;
	args->regs->flags &= ~X86_EFLAGS_TF;
	*status &= ~DR_STEP;
	thread_debug_status(current) &= ~DR_STEP;
	return *status ? NOTIFY_DONE : NOTIFY_STOP;
}
NOKPROBE_SYMBOL(on_debug);

static struct notifier_block debug_block = {
	.notifier_call = on_debug,
	/* Before those who would send a signal. */
	.priority = INT_MAX - 1,
};

/**
 * sentinel_fault_init() - begins to listen to debug traps
 *
 * Return: 0 or an error.
 */
int sentinel_fault_init(void)
{
	return register_die_notifier(&debug_block);
}

/**
 * sentinel_fault_exit() - listens no more
 */
void sentinel_fault_exit(void)
{
	unregister_die_notifier(&debug_block);
}
