// SPDX-License-Identifier: GPL-2.0
/* Finds the session of an address space and the state of a task, for which an unmodified kernel has no fields. */
#include <linux/hash.h>
#include <linux/rculist.h>

#include "module.h"

#define TABLE_BITS	8

struct table {
	raw_spinlock_t lock;
	struct hlist_head heads[1 << TABLE_BITS];
};

static struct table sessions = { .lock = __RAW_SPIN_LOCK_UNLOCKED(sessions.lock) };
static struct table tasks = { .lock = __RAW_SPIN_LOCK_UNLOCKED(tasks.lock) };

/* Called under RCU, which keeps what it returns. */
static struct sentinel_link *find(struct table *table, const void *owner)
{
	struct sentinel_link *link;

	hlist_for_each_entry_rcu(link, &table->heads[hash_ptr(owner, TABLE_BITS)], node)
		if (link->owner == owner)
			return link;
	return NULL;
}

static void insert(struct table *table, struct sentinel_link *link, const void *owner)
{
	unsigned long flags;

	link->owner = owner;
	raw_spin_lock_irqsave(&table->lock, flags);
	hlist_add_head_rcu(&link->node, &table->heads[hash_ptr(owner, TABLE_BITS)]);
	raw_spin_unlock_irqrestore(&table->lock, flags);
}

static void take_out(struct table *table, struct sentinel_link *link)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&table->lock, flags);
	hlist_del_rcu(&link->node);
	raw_spin_unlock_irqrestore(&table->lock, flags);
}

/**
 * sentinel_of_mm() - the session of an address space
 * @mm: the address space
 *
 * Return: the session, kept by RCU, a reference or its lock; or NULL.
 */
struct sentinel_session *sentinel_of_mm(const struct mm_struct *mm)
{
	struct sentinel_link *link;

	rcu_read_lock();
	link = find(&sessions, mm);
	rcu_read_unlock();
	return link ? container_of(link, struct sentinel_session, link) : NULL;
}

/**
 * sentinel_set_mm() - gives an address space a session
 * @mm: it has none
 * @session: it has no address space
 */
void sentinel_set_mm(struct mm_struct *mm, struct sentinel_session *session)
{
	raw_spin_lock_init(&session->armed.lock);
	insert(&sessions, &session->link, mm);
}

/**
 * sentinel_clear_mm() - takes an address space its session
 * @mm: the address space
 * @session: its session, which is freed by RCU
 */
void sentinel_clear_mm(struct mm_struct *mm, struct sentinel_session *session)
{
	take_out(&sessions, &session->link);
}

/**
 * sentinel_current() - the state of the current task
 *
 * Return: the state, which nobody but the task itself frees; or NULL.
 */
struct sentinel_task *sentinel_current(void)
{
	struct sentinel_link *link;

	if (!atomic_long_read(&sentinel_tasks))
		return NULL;
	rcu_read_lock();
	link = find(&tasks, current);
	rcu_read_unlock();
	return link ? container_of(link, struct sentinel_task, link) : NULL;
}

/**
 * sentinel_set_current() - gives the current task a state
 * @task: the state
 */
void sentinel_set_current(struct sentinel_task *task)
{
	insert(&tasks, &task->link, current);
}

/**
 * sentinel_free_current() - takes the current task its state
 * @task: the state
 */
void sentinel_free_current(struct sentinel_task *task)
{
	take_out(&tasks, &task->link);
	kfree_rcu(task, rcu);
}

/**
 * sentinel_links_exit() - frees what is left of tasks, none of which has a session any more
 *
 * When no hook can be looking.
 */
void sentinel_links_exit(void)
{
	struct hlist_node *next;
	struct sentinel_task *task;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(tasks.heads); i++)
		hlist_for_each_entry_safe(task, next, &tasks.heads[i], link.node) {
			hlist_del(&task->link.node);
			kfree(task);
		}
}
