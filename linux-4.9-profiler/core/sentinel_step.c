// SPDX-License-Identifier: GPL-2.0
/*
 * Letting one instruction through, on the way back to user mode.
 *
 * A fault in user mode only notes the page. The rest happens here, where a
 * task may sleep and may interrupt other processors:
 *
 *	sentinel_exit_end()	opens the noted pages and sets the single-step
 *				flag; in exact mode first waits for its turn and
 *				makes every other thread of the process come
 *				into the kernel, where it waits
 *	(user mode)		the instruction runs and traps
 *	sentinel_exit_begin()	counts, marks the pages again, flushes them from
 *				all TLBs in exact mode, passes the turn on
 *
 * Counting after the instruction, and not at its fault, is what makes counts
 * exact: an instruction that faults again for another reason, or gives way to
 * a signal and is repeated, still counts once.
 *
 * Nothing that can wait for another thread happens while pages are open: they
 * are closed uncounted before signals, stops and faults that may sleep.
 */
#include <linux/sentinel_hooks.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/ptrace.h>

#include "sentinel_internal.h"

/* The work that keeps a task in the kernel for long; to be scheduled out is not among it. */
#ifdef _TIF_NOTIFY_SIGNAL
#define LONG_WORK (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NOTIFY_RESUME | _TIF_UPROBE)
#else
#define LONG_WORK (_TIF_SIGPENDING | _TIF_NOTIFY_RESUME | _TIF_UPROBE)
#endif

/* Tasks that touch user memory but do not come by here any more. */
#ifdef PF_IO_WORKER
#define NEVER_IN_USER_MODE (PF_KTHREAD | PF_EXITING | PF_IO_WORKER)
#else
#define NEVER_IN_USER_MODE (PF_KTHREAD | PF_EXITING)
#endif

/* The address space that this processor may be using in user mode, if it is profiled exactly. */
static DEFINE_PER_CPU(struct mm_struct *, user_mm);

atomic_long_t sentinel_tasks = ATOMIC_LONG_INIT(0);

/**
 * sentinel_task_get() - the current task's state, for noting an access
 * @session: what is profiled
 *
 * Called with interrupts off and the session kept by RCU or a reference.
 *
 * Return: the state, which now belongs to @session; NULL when there is no
 * memory, or the task never returns to user mode.
 */
struct sentinel_task *sentinel_task_get(struct sentinel_session *session)
{
	struct sentinel_task *task = sentinel_current();

	if (current->flags & NEVER_IN_USER_MODE)
		return NULL;
	if (!task) {
		task = kzalloc(sizeof(*task), GFP_ATOMIC | __GFP_NOWARN);
		if (!task)
			return NULL;
		atomic_long_inc(&sentinel_tasks);
		sentinel_set_current(task);
	}
	if (task->session == session)
		return task;
	/* Of an address space that exec has replaced; the way out lets it go. */
	if (task->session || !kref_get_unless_zero(&session->references))
		return NULL;
	task->session = session;
	return task;
}

/**
 * sentinel_count_access() - counts one access
 * @session: what is profiled, while it runs
 * @address: any address
 * @write: whether it was a write
 */
void sentinel_count_access(struct sentinel_session *session,
			   unsigned long address, bool write)
{
	struct sentinel_count *cell =
		sentinel_cells(&session->table, address & PAGE_MASK, 1);

	if (!cell)
		return;
	sentinel_add(cell, write);
	atomic64_inc(write ? &session->writes : &session->reads);
}

static bool is_current_run(struct sentinel_task *task)
{
	return sentinel_of_mm(current->mm) == task->session &&
	       sentinel_mode(task->session) &&
	       READ_ONCE(task->session->run) == task->run;
}

/* As sentinel_lock_entry(), from where interrupts are on; they are off until unlock_entry(). */
static struct sentinel_spot lock_entry(unsigned long address)
{
	struct sentinel_spot spot;

	for (;;) {
		local_irq_disable();
		spot = sentinel_lock_entry(current->mm, address);
		if (!spot.busy)
			return spot;
		local_irq_enable();
		cpu_relax();
		cond_resched();
	}
}

static void unlock_entry(struct sentinel_spot *spot)
{
	sentinel_unlock_entry(spot);
	local_irq_enable();
}

/* Counts, if asked to, and marks one page again. A STOP that holds the same lock afterwards finds either both or none. */
static void close_page(struct sentinel_task *task, u64 page, bool count)
{
	struct sentinel_spot spot = lock_entry(page);

	if (is_current_run(task)) {
		if (count)
			sentinel_count_access(task->session, page,
					      page & SENTINEL_WRITE);
		if (spot.entry)
			sentinel_mark_entry(spot.entry);
	}
	unlock_entry(&spot);
}

/**
 * sentinel_close_kernel_page() - marks a page again that a system call has opened
 * @mm: its address space
 * @session: what is profiled
 * @page: its address, flags are ignored
 *
 * For the fault handler, when a system call opens more pages than it can note.
 * Only this processor's TLB is flushed.
 */
void sentinel_close_kernel_page(struct mm_struct *mm,
				struct sentinel_session *session, u64 page)
{
	struct sentinel_spot spot = sentinel_lock_entry(mm, page);

	page &= ~SENTINEL_FLAGS;
	if (spot.entry && sentinel_mode(session) &&
	    sentinel_mark_entry(spot.entry) &&
	    sentinel_mode(session) == SENTINEL_MODE_EXACT)
		asm volatile("invlpg (%0)" : : "r" ((unsigned long)page) : "memory");
	if (spot.busy)
		atomic64_inc(&session->left_open);
	sentinel_unlock_entry(&spot);
}

static void flush_pages(struct sentinel_task *task,
			struct sentinel_pending *list)
{
	u32 i;

	if (sentinel_mode(task->session) != SENTINEL_MODE_EXACT)
		return;
	for (i = 0; i < list->used; i++) {
		unsigned long page = list->page[i] & ~SENTINEL_FLAGS;

		sentinel_flush(current->mm, page, page + PAGE_SIZE);
	}
}

static void pass_turn(struct sentinel_task *task)
{
	struct sentinel_session *session = task->session;

	if (!task->holds_turn)
		return;
	task->holds_turn = false;
	xchg(&session->stepper, NULL);
	/* One of them may have the turn, unless somebody who does not sleep is faster: that saves most changes of tasks. */
	wake_up(&session->turn);
	wake_up_all(&session->idle);
}

static void drop_session(struct sentinel_task *task)
{
	struct sentinel_session *session = task->session;

	if (!session || task->user.used || task->kernel.used)
		return;
	task->session = NULL;
	sentinel_session_put(session);
}

/* Ends what open_user() began. The pages stay noted unless they were counted. */
static void close_user(struct sentinel_task *task, struct pt_regs *regs,
		       bool count)
{
	u32 i;

	for (i = 0; i < task->user.used; i++) {
		close_page(task, task->user.page[i], count);
		task->user.page[i] &= ~(u64)SENTINEL_OPEN;
	}
	flush_pages(task, &task->user);
	task->open = false;
	task->stepped = false;
	if (regs && task->own_step && !test_thread_flag(TIF_SINGLESTEP))
		regs->flags &= ~X86_EFLAGS_TF;
	task->own_step = false;
	if (count) {
		atomic64_inc(&task->session->steps);
		task->user.used = 0;
	}
	pass_turn(task);
}

static void close_kernel(struct sentinel_task *task)
{
	u32 i;

	for (i = 0; i < task->kernel.used; i++)
		close_page(task, task->kernel.page[i], false);
	flush_pages(task, &task->kernel);
	task->kernel.used = 0;
}

/* Interrupts are off on the way out and have to be so again afterwards. */
static void close_user_on_exit(struct sentinel_task *task,
			       struct pt_regs *regs, bool count)
{
	local_irq_enable();
	close_user(task, regs, count);
	drop_session(task);
	local_irq_disable();
}

/**
 * sentinel_exit_begin() - before the work that a return to user mode finds
 * @regs: the user's registers
 *
 * Counts what the instruction has done, or closes its pages when it has not
 * run and the task may be away for longer. Interrupts are off; they are on for
 * a while when there is something to do.
 */
void sentinel_exit_begin(struct pt_regs *regs)
{
	struct sentinel_task *task;

	if (!sentinel_in_use)
		return;
	sentinel_left_user_mode();
	task = sentinel_current();
	if (!task || !task->open)
		return;
	if (task->stepped)
		close_user_on_exit(task, regs, true);
	else if (READ_ONCE(current_thread_info()->flags) & LONG_WORK)
		close_user_on_exit(task, regs, false);
}

/**
 * sentinel_pause() - before a fault that may sleep
 * @regs: the registers at the fault, which was in user mode
 *
 * The instruction has opened its marked pages and now faults for another
 * reason. Its siblings do not have to wait for that.
 */
void sentinel_pause(struct pt_regs *regs)
{
	struct sentinel_task *task;

	if (!sentinel_in_use)
		return;
	task = sentinel_current();
	if (task && task->open)
		close_user(task, regs, false);
}

static void nothing(void *unused)
{
}

/**
 * sentinel_call_in() - has every thread of a process come by sentinel_exit_end()
 * @mm: its address space
 */
void sentinel_call_in(struct mm_struct *mm)
{
	on_each_cpu_mask(mm_cpumask(mm), nothing, NULL, true);
}

/**
 * sentinel_left_user_mode() - this processor is in the kernel
 *
 * Need not be called at once, and is not on every way in: a processor that is
 * thought to be in user mode gets an interrupt too many.
 */
void sentinel_left_user_mode(void)
{
	this_cpu_write(user_mm, NULL);
}

/* Has the threads that may be in user mode come into the kernel. */
static void hold_others(struct sentinel_session *session, struct mm_struct *mm)
{
	int cpu;

	cpumask_clear(&session->in_user);
	for_each_cpu(cpu, mm_cpumask(mm))
		if (READ_ONCE(per_cpu(user_mm, cpu)) == mm)
			cpumask_set_cpu(cpu, &session->in_user);
	if (!cpumask_empty(&session->in_user))
		on_each_cpu_mask(&session->in_user, nothing, NULL, true);
}

static bool only_fetches(struct sentinel_pending *list)
{
	u32 i;

	for (i = 0; i < list->used; i++)
		if (!(list->page[i] & SENTINEL_FETCH))
			return false;
	return true;
}

/*
 * Waits for the turn and has every other thread leave user mode. An
 * instruction whose only page is its own may be a system call that waits for
 * another thread: it does not take a turn.
 *
 * Returns false when a signal came first.
 */
static bool take_turn(struct sentinel_task *task)
{
	struct sentinel_session *session = task->session;
	struct mm_struct *mm = current->mm;

	if (task->holds_turn || sentinel_mode(session) != SENTINEL_MODE_EXACT ||
	    atomic_read(&mm->mm_users) == 1 || only_fetches(&task->user))
		return true;
	if (wait_event_interruptible_exclusive(
		    session->turn, !cmpxchg(&session->stepper, NULL, current)))
		return false;
	task->holds_turn = true;
	/* Whoever is in user mode now comes into sentinel_exit_end() and sees the stepper there; so does whoever comes later. */
	hold_others(session, mm);
	return true;
}

static void open_user(struct sentinel_task *task, struct pt_regs *regs)
{
	u32 i;

	for (i = 0; i < task->user.used; i++) {
		struct sentinel_spot spot = lock_entry(task->user.page[i]);

		if (spot.entry)
			sentinel_unmark_entry(spot.entry);
		unlock_entry(&spot);
		task->user.page[i] |= SENTINEL_OPEN;
	}
	if (!(regs->flags & X86_EFLAGS_TF)) {
		regs->flags |= X86_EFLAGS_TF;
		task->own_step = true;
	}
	task->open = true;
}

static bool all_open(struct sentinel_pending *list)
{
	u32 i;

	for (i = 0; i < list->used; i++)
		if (!(list->page[i] & SENTINEL_OPEN))
			return false;
	return true;
}

/* Forgets accesses of an instruction that the task has left, or of a run that is over. */
static void forget_user(struct sentinel_task *task, struct pt_regs *regs)
{
	if (task->open)
		close_user(task, regs, false);
	task->user.used = 0;
}

/* What a task with pending accesses has to do. Returns false when it can go to user mode. */
static bool serve_task(struct sentinel_task *task, struct pt_regs *regs)
{
	if (task->kernel.used) {
		local_irq_enable();
		close_kernel(task);
	} else if (task->user.used &&
		   (!is_current_run(task) || task->ip != regs->ip)) {
		local_irq_enable();
		forget_user(task, regs);
	} else if (task->user.used && !all_open(&task->user)) {
		local_irq_enable();
		if (take_turn(task))
			open_user(task, regs);
	} else {
		return false;
	}
	drop_session(task);
	local_irq_disable();
	return true;
}

static bool is_running(struct sentinel_session *session)
{
	struct task_struct *stepper;
	bool running;

	rcu_read_lock();
	stepper = READ_ONCE(session->stepper);
	running = stepper && READ_ONCE(stepper->on_cpu);
	rcu_read_unlock();
	return running;
}

/*
 * Waits while another thread's pages are open, which is one instruction long:
 * asleep only if that thread does not run. A signal ends the wait; the way out
 * serves it and asks here again.
 */
static void wait_while_stepping(struct sentinel_session *session)
{
	while (READ_ONCE(session->stepper) && !signal_pending(current)) {
		if (is_running(session)) {
			cpu_relax();
			cond_resched();
		} else {
			wait_event_interruptible_timeout(
				session->idle, !READ_ONCE(session->stepper), 1);
		}
	}
}

/* Goes to user mode unless another thread's pages are open. Returns true when it has waited. */
static bool wait_for_stepper(void)
{
	struct sentinel_session *session;
	struct task_struct *stepper;
	bool held;

	rcu_read_lock();
	session = sentinel_of_mm(current->mm);
	if (!session || sentinel_mode(session) != SENTINEL_MODE_EXACT) {
		rcu_read_unlock();
		return false;
	}
	/* Either the stepper sees this, or this sees the stepper. */
	this_cpu_write(user_mm, current->mm);
	smp_mb();
	stepper = READ_ONCE(session->stepper);
	held = stepper && stepper != current &&
	       kref_get_unless_zero(&session->references);
	rcu_read_unlock();
	if (!held)
		return false;
	sentinel_left_user_mode();
	local_irq_enable();
	wait_while_stepping(session);
	sentinel_session_put(session);
	local_irq_disable();
	return true;
}

/**
 * sentinel_exit_end() - the last thing before a return to user mode
 * @regs: the user's registers
 *
 * Return: true when interrupts were on meanwhile, so that there may be new
 * work and the way out has to begin again.
 */
bool sentinel_exit_end(struct pt_regs *regs)
{
	struct sentinel_task *task;

	if (!sentinel_in_use || !current->mm)
		return false;
	task = sentinel_current();
	if (task && task->session && serve_task(task, regs))
		return true;
	return wait_for_stepper();
}

/**
 * sentinel_task_fork() - a child begins without pending accesses
 * @child: a task whose registers are those of the current one
 */
void sentinel_task_fork(struct task_struct *child)
{
	struct sentinel_task *task = sentinel_current();

	if (task && task->own_step && !(child->flags & PF_KTHREAD))
		task_pt_regs(child)->flags &= ~X86_EFLAGS_TF;
}

/**
 * sentinel_task_exit() - the current task uses its address space no more
 */
void sentinel_task_exit(void)
{
	struct sentinel_task *task = sentinel_current();

	/* Kernel threads have none, so there is an address space. */
	if (!task)
		return;
	if (task->session) {
		close_kernel(task);
		forget_user(task, NULL);
		drop_session(task);
	}
	sentinel_free_current(task);
	atomic_long_dec(&sentinel_tasks);
}
