/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the module know of each other. */
#ifndef _SENTINEL_MODULE_H
#define _SENTINEL_MODULE_H

#include "sentinel_internal.h"

/* kernel.c */
int sentinel_kernel_init(void);
unsigned long sentinel_kernel_entry(const char *name);
int sentinel_take_address_bit(u32 bit);

/* hooks.c */
int sentinel_hooks_init(void);
void sentinel_hooks_exit(void);

/* frames.c */

/**
 * struct sentinel_frame - a task on its way to user mode through the module
 * @node: in the table of them
 * @task: which one
 */
struct sentinel_frame {
	struct hlist_node node;
	struct task_struct *task;
};

void sentinel_frame_enter(struct sentinel_frame *frame);
void sentinel_frame_leave(struct sentinel_frame *frame);
void sentinel_frames_forget(void);

/* mappings.c */
bool sentinel_is_armed(const struct vm_area_struct *vma);
void sentinel_arm_mapping(struct vm_area_struct *vma);
bool sentinel_unmark_huge(struct mm_struct *mm, unsigned long address);
void sentinel_disarm_copy(struct vm_area_struct *vma);
void sentinel_unmark_copy(struct vm_area_struct *vma);
void sentinel_pages_moved(struct vm_area_struct *vma, unsigned long start,
			  unsigned long bytes);

/* links.c */
void sentinel_links_exit(void);

#endif /* _SENTINEL_MODULE_H */
