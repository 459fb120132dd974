// SPDX-License-Identifier: GPL-2.0
/*
 * Tasks that are on their way to user mode through the module's code.
 *
 * Such a task may sleep in the kernel for as long as a signal stops it, and come
 * back into the module, so it holds the module. Or it may be killed there and
 * never come back: so it has to be known who holds it.
 */
#include <linux/hash.h>
#include <linux/list.h>
#include <linux/module.h>

#include "module.h"

#define TABLE_BITS	6

static struct hlist_head heads[1 << TABLE_BITS];
static DEFINE_RAW_SPINLOCK(lock);

/**
 * sentinel_frame_enter() - notes the current task
 * @frame: on its stack; the caller holds the module
 */
void sentinel_frame_enter(struct sentinel_frame *frame)
{
	unsigned long flags;

	frame->task = current;
	raw_spin_lock_irqsave(&lock, flags);
	hlist_add_head(&frame->node, &heads[hash_ptr(current, TABLE_BITS)]);
	raw_spin_unlock_irqrestore(&lock, flags);
}

/**
 * sentinel_frame_leave() - the task leaves the module, and lets go of it
 * @frame: what it entered with
 */
void sentinel_frame_leave(struct sentinel_frame *frame)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	hlist_del(&frame->node);
	raw_spin_unlock_irqrestore(&lock, flags);
	module_put(THIS_MODULE);
}

/**
 * sentinel_frames_forget() - the current task ends and does not come back
 */
void sentinel_frames_forget(void)
{
	struct hlist_head *head = &heads[hash_ptr(current, TABLE_BITS)];
	struct sentinel_frame *frame;
	struct hlist_node *next;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	hlist_for_each_entry_safe(frame, next, head, node) {
		if (frame->task != current)
			continue;
		hlist_del(&frame->node);
		module_put(THIS_MODULE);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
}
