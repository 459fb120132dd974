// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a session: an open file finds its process, gets ranges, starts
 * and stops, and lets go of the process at the end of either.
 *
 * Locks, in the order in which they are taken: exec's of a process, the
 * session's, mmap_lock, page table locks. The end of an address space, also in
 * an exec, takes the session's: while that is held no address space is put, and
 * none is asked for of another process.
 */
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sentinel_hooks.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "sentinel_internal.h"

/* Ranges for which a new session has room. */
#define FIRST_ROOM	16

atomic_long_t sentinel_sessions = ATOMIC_LONG_INIT(0);
atomic_long_t sentinel_pages = ATOMIC_LONG_INIT(0);

/* One file at a time looks whether a process has a session, and gives it its own. */
static DEFINE_MUTEX(attach_lock);

/**
 * sentinel_mode() - what a session counts
 * @session: any session
 *
 * Return: SENTINEL_MODE_* or 0.
 */
u32 sentinel_mode(const struct sentinel_session *session)
{
	return READ_ONCE(session->mode);
}

/**
 * __sentinel_mm_profiled() - whether an address space is being profiled
 * @mm: the address space
 *
 * Return: true between START and STOP.
 */
bool __sentinel_mm_profiled(struct mm_struct *mm)
{
	struct sentinel_session *session;
	bool profiled;

	rcu_read_lock();
	session = sentinel_of_mm(mm);
	profiled = session && sentinel_mode(session);
	rcu_read_unlock();
	return profiled;
}

/**
 * sentinel_session_new() - a session without a process
 *
 * Return: the session with one reference, or NULL.
 */
struct sentinel_session *sentinel_session_new(void)
{
	struct sentinel_session *session =
		kzalloc(sizeof(*session), GFP_KERNEL_ACCOUNT);

	if (!session)
		return NULL;
	kref_init(&session->references);
	mutex_init(&session->lock);
	init_waitqueue_head(&session->turn);
	init_waitqueue_head(&session->idle);
	/* The code may not go while there is a session, whoever has it. */
	__module_get(THIS_MODULE);
	atomic_long_inc(&sentinel_sessions);
	return session;
}

static void free_ranges(struct sentinel_session *session)
{
	u32 i;

	for (i = 0; i < session->table.used; i++)
		vfree(session->table.regions[i].counts);
	atomic_long_sub(session->table.pages, &sentinel_pages);
	session->table.used = 0;
	session->table.pages = 0;
}

static void free_session(struct rcu_head *rcu)
{
	struct sentinel_session *session =
		container_of(rcu, struct sentinel_session, rcu);

	free_ranges(session);
	kfree(session->table.regions);
	put_pid(session->pid);
	kfree(session);
	atomic_long_dec(&sentinel_sessions);
	module_put(THIS_MODULE);
}

static void release_session(struct kref *references)
{
	struct sentinel_session *session =
		container_of(references, struct sentinel_session, references);

	call_rcu(&session->rcu, free_session);
}

/**
 * sentinel_session_put() - drops one reference
 * @session: the session
 */
void sentinel_session_put(struct sentinel_session *session)
{
	kref_put(&session->references, release_session);
}

/* Marks or unmarks all ranges; mmap_lock is held for writing. */
static int mark_all(struct sentinel_session *session, struct mm_struct *mm,
		    bool mark)
{
	int error = 0;
	u32 i;

	for (i = 0; i < session->table.used && !error; i++)
		error = sentinel_mark_range(mm, session->table.regions[i].start,
					    session->table.regions[i].end, mark);
	return error;
}

/* Without mode no hook marks a page any more; those that are marked are unmarked. */
static void stop_locked(struct sentinel_session *session, struct mm_struct *mm)
{
	mmap_write_lock(mm);
	WRITE_ONCE(session->mode, 0);
	session->stale = true;
	sentinel_disarm_mappings(session, mm);
	mark_all(session, mm, false);
	mmap_write_unlock(mm);
}

/* A hook that saw the session run may still be looking at its table. */
static void wait_for_hooks(struct sentinel_session *session)
{
	if (session->stale)
		synchronize_rcu();
	session->stale = false;
}

/**
 * sentinel_session_close() - the file is closed
 * @session: its session; its reference is dropped
 *
 * Stops, and makes the process free for another file.
 */
void sentinel_session_close(struct sentinel_session *session)
{
	struct mm_struct *mm;

	mutex_lock(&session->lock);
	mm = session->mm;
	/* If it is at its end already, sentinel_mm_exit() does the same. */
	if (mm && mmget_not_zero(mm)) {
		if (session->mode)
			stop_locked(session, mm);
		session->mm = NULL;
		sentinel_clear_mm(mm, session);
		sentinel_session_put(session);
	} else {
		mm = NULL;
	}
	mutex_unlock(&session->lock);
	if (mm)
		mmput(mm);
	sentinel_session_put(session);
}

/**
 * sentinel_mm_exit() - an address space ends
 * @mm: it; nobody uses it any more
 */
void sentinel_mm_exit(struct mm_struct *mm)
{
	struct sentinel_session *session = sentinel_of_mm(mm);

	if (!session)
		return;
	/* sentinel_session_close() does not let go of it: that takes a user. */
	mutex_lock(&session->lock);
	WRITE_ONCE(session->mode, 0);
	session->stale = true;
	session->mm = NULL;
	session->ended = true;
	sentinel_clear_mm(mm, session);
	mutex_unlock(&session->lock);
	sentinel_session_put(session);
}

/* The address space of a task that the caller may ptrace, with a reference, or an error. */
static struct mm_struct *traceable_mm(struct task_struct *task)
{
	struct mm_struct *mm = mm_access(task, PTRACE_MODE_ATTACH_FSCREDS);

	return mm ? mm : ERR_PTR(-ESRCH);
}

/**
 * sentinel_has_process() - whether a session got its process
 * @session: not locked
 *
 * Return: true from then on, also when the process has ended.
 */
bool sentinel_has_process(struct sentinel_session *session)
{
	/* It is set once, and stays as long as the file is open. */
	return smp_load_acquire(&session->pid);
}

/**
 * sentinel_reach() - the address space that a call is about, as far as the caller may have it
 * @session: not locked: an exec that ends the address space holds what mm_access() waits for
 *
 * Return: an address space with a reference, to be given to sentinel_enter();
 * NULL before the session has a process; -EACCES when it is not the caller's
 * to see.
 */
struct mm_struct *sentinel_reach(struct sentinel_session *session)
{
	struct task_struct *task;
	struct mm_struct *mm;

	if (!sentinel_has_process(session))
		return NULL;
	if (current->mm && READ_ONCE(session->mm) == current->mm) {
		mmget(current->mm);
		return current->mm;
	}
	task = get_pid_task(session->pid, PIDTYPE_PID);
	if (!task)
		return ERR_PTR(-EACCES);
	mm = traceable_mm(task);
	put_task_struct(task);
	return IS_ERR(mm) ? ERR_PTR(-EACCES) : mm;
}

/**
 * sentinel_enter() - begins a call that needs the session's process
 * @session: locked
 * @reached: what sentinel_reach() has returned
 *
 * Return: 0 when @reached is the session's address space; -EINVAL when there
 * is none yet, -ESRCH when it has ended, -EACCES when it is not the caller's
 * to see.
 */
int sentinel_enter(struct sentinel_session *session, struct mm_struct *reached)
{
	if (session->ended)
		return -ESRCH;
	if (!session->mm)
		return -EINVAL;
	if (reached == session->mm)
		return 0;
	/* Its end waits for the session's lock. */
	return atomic_read(&session->mm->mm_users) ? -EACCES : -ESRCH;
}

/* The id of a task's process, with a reference; NULL when the task has ended and its process may be gone too. */
static struct pid *process_of(struct task_struct *task)
{
	struct pid *pid = NULL;

	rcu_read_lock();
	if (pid_alive(task))
		pid = get_pid(task_tgid(task));
	rcu_read_unlock();
	return pid;
}

static int attach_mm(struct sentinel_session *session, struct mm_struct *mm,
		     struct task_struct *task)
{
	struct pid *process = process_of(task);
	int error = 0;

	if (!process)
		return -ESRCH;
	mutex_lock(&attach_lock);
	if (sentinel_of_mm(mm)) {
		put_pid(process);
		error = -EBUSY;
	} else {
		kref_get(&session->references);
		session->mm = mm;
		sentinel_set_mm(mm, session);
		/* sentinel_reach() looks for the address space once it sees this. */
		smp_store_release(&session->pid, process);
	}
	mutex_unlock(&attach_lock);
	return error;
}

/* A process by its id as the caller sees it, or the caller's own for 0; with a reference. */
static struct task_struct *find_process(pid_t pid)
{
	struct task_struct *task;

	if (pid < 0)
		return ERR_PTR(-EINVAL);
	rcu_read_lock();
	task = pid ? pid_task(find_vpid(pid), PIDTYPE_PID) : current;
	if (task)
		get_task_struct(task);
	rcu_read_unlock();
	return task ? task : ERR_PTR(-ESRCH);
}

/**
 * sentinel_attach() - gives a session its process
 * @session: not locked
 * @pid: the process, or 0 for the caller's own
 *
 * Return: 0 or an error of SENTINEL_IOC_ATTACH.
 */
int sentinel_attach(struct sentinel_session *session, pid_t pid)
{
	struct task_struct *task = find_process(pid);
	struct mm_struct *mm;
	int error;

	if (IS_ERR(task))
		return PTR_ERR(task);
	mm = traceable_mm(task);
	error = IS_ERR(mm) ? PTR_ERR(mm) : mutex_lock_killable(&session->lock);
	if (error)
		goto put;
	if (session->ended)
		error = -ESRCH;
	else if (session->mm)
		error = -EBUSY;
	else
		error = attach_mm(session, mm, task);
	mutex_unlock(&session->lock);
put:
	if (!IS_ERR(mm))
		mmput(mm);
	put_task_struct(task);
	return error;
}

static int make_room(struct sentinel_table *table)
{
	u32 room = table->room ? 2 * table->room : FIRST_ROOM;
	struct sentinel_region *regions;

	if (table->used < table->room)
		return 0;
	regions = krealloc(table->regions, room * sizeof(*regions),
			   GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!regions)
		return -ENOMEM;
	table->regions = regions;
	table->room = room;
	return 0;
}

static int check_mappings(struct mm_struct *mm, u64 start, u64 end)
{
	int error = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	if (sentinel_has_hugetlb(mm, start, end))
		error = -EOPNOTSUPP;
	mmap_read_unlock(mm);
	return error;
}

/**
 * sentinel_add_range() - adds a range
 * @session: locked
 * @mm: its address space
 * @start: first address
 * @bytes: length
 *
 * Return: 0 or an error of SENTINEL_IOC_ADD_RANGE.
 */
int sentinel_add_range(struct sentinel_session *session, struct mm_struct *mm,
		       u64 start, u64 bytes)
{
	u64 pages = bytes >> PAGE_SHIFT;
	struct sentinel_count *counts;
	int error;

	if (session->mode)
		return -EBUSY;
	error = sentinel_check(&session->table, &sentinel_limits, start, bytes);
	if (!error)
		error = check_mappings(mm, start, start + bytes);
	if (error)
		return error;
	/* All sessions together may watch as many pages as there are. */
	if (atomic_long_add_return(pages, &sentinel_pages) > totalram_pages_now()) {
		error = -ENOSPC;
		goto give_back;
	}
	counts = sentinel_alloc(pages * sizeof(*counts));
	error = counts ? 0 : -ENOMEM;
	if (error)
		goto give_back;
	wait_for_hooks(session);
	error = make_room(&session->table);
	if (!error) {
		sentinel_insert(&session->table, start, bytes, counts);
		return 0;
	}
	vfree(counts);
give_back:
	atomic_long_sub(pages, &sentinel_pages);
	return error;
}

static bool any_hugetlb(struct sentinel_session *session, struct mm_struct *mm)
{
	u32 i;

	for (i = 0; i < session->table.used; i++)
		if (sentinel_has_hugetlb(mm, session->table.regions[i].start,
					 session->table.regions[i].end))
			return true;
	return false;
}

/* Every page is marked, or none. */
static int mark_or_undo(struct sentinel_session *session, struct mm_struct *mm)
{
	int error;
	u32 i;

	sentinel_arm_mappings(session, mm);
	error = mark_all(session, mm, true);
	if (error) {
		WRITE_ONCE(session->mode, 0);
		session->stale = true;
		sentinel_disarm_mappings(session, mm);
		mark_all(session, mm, false);
		return error;
	}
	for (i = 0; i < session->table.used; i++)
		sentinel_flush(mm, session->table.regions[i].start,
			       session->table.regions[i].end);
	return 0;
}

/**
 * sentinel_start() - begins to count
 * @session: locked
 * @mm: its address space
 * @mode: SENTINEL_MODE_*
 *
 * Return: 0 or an error of SENTINEL_IOC_START.
 */
int sentinel_start(struct sentinel_session *session, struct mm_struct *mm,
		   u32 mode)
{
	int error;

	if (session->mode)
		return -EBUSY;
	if (!session->table.used)
		return -EINVAL;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	if (any_hugetlb(session, mm)) {
		error = -EOPNOTSUPP;
	} else {
		WRITE_ONCE(sentinel_in_use, true);
		WRITE_ONCE(session->run, session->run + 1);
		/* A hook that sees the mode sees the table and the run as well. */
		smp_store_release(&session->mode, mode);
		error = mark_or_undo(session, mm);
		/* From now on the way out says who is in user mode. */
		sentinel_call_in(mm);
	}
	mmap_write_unlock(mm);
	return error;
}

/**
 * sentinel_stop() - ends counting
 * @session: locked
 * @mm: its address space
 *
 * Return: 0, or -EINVAL when nothing runs.
 */
int sentinel_stop(struct sentinel_session *session, struct mm_struct *mm)
{
	if (!session->mode)
		return -EINVAL;
	stop_locked(session, mm);
	return 0;
}

/**
 * sentinel_forget_translations() - has the next access to each page miss the TLB
 * @session: locked
 * @mm: its address space
 *
 * All of the process' translations go: ranges are gigabytes, for which the
 * kernel does the same.
 *
 * Return: 0, or -EINVAL when nothing runs.
 */
int sentinel_forget_translations(struct sentinel_session *session,
				 struct mm_struct *mm)
{
	if (!session->mode)
		return -EINVAL;
	sentinel_flush(mm, 0, TLB_FLUSH_ALL);
	return 0;
}

/**
 * sentinel_reset() - sets counts to 0
 * @session: locked
 * @ranges: forget the ranges too
 *
 * Return: 0, or -EBUSY when ranges are to be forgotten that are in use.
 */
int sentinel_reset(struct sentinel_session *session, bool ranges)
{
	u32 i;

	if (ranges && session->mode)
		return -EBUSY;
	if (ranges) {
		wait_for_hooks(session);
		free_ranges(session);
	}
	for (i = 0; i < session->table.used; i++) {
		struct sentinel_region *region = &session->table.regions[i];

		memset(region->counts, 0,
		       ((region->end - region->start) >> PAGE_SHIFT) *
			       sizeof(*region->counts));
	}
	atomic64_set(&session->reads, 0);
	atomic64_set(&session->writes, 0);
	atomic64_set(&session->kernel_accesses, 0);
	atomic64_set(&session->steps, 0);
	atomic64_set(&session->spurious, 0);
	atomic64_set(&session->left_open, 0);
	return 0;
}
