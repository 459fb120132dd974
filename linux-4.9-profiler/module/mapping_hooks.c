// SPDX-License-Identifier: GPL-2.0
/* Hooks that keep entries of ranges born with the mark, and all others without it; see mappings.c. */
#include <linux/hugetlb.h>
#include <linux/mempolicy.h>
#include <linux/sentinel_hooks.h>
#include <linux/userfaultfd_k.h>

#include "hook.h"
#include "module.h"

/**
 * sentinel_on_mm_fault() - before handle_mm_fault()
 * @call: its arguments
 *
 * New entries are made of what the mapping says; and an instruction that has
 * opened pages and now faults for another reason may have to wait.
 */
void sentinel_on_mm_fault(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;
	struct pt_regs *regs = (struct pt_regs *)call->cx;

	sentinel_arm_mapping(vma);
	if (regs && user_mode(regs) && vma->vm_mm == current->mm)
		sentinel_pause(regs);
}

static void set_page_prot(struct vm_area_struct *vma)
{
	ORIGINAL(PAGE_PROT, void (*)(struct vm_area_struct *))(vma);
	sentinel_arm_mapping(vma);
	module_put(THIS_MODULE);
}

/**
 * sentinel_on_page_prot() - before vma_set_page_prot()
 * @call: its arguments
 *
 * It writes the protection anew, without the mark.
 */
void sentinel_on_page_prot(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;

	if (vma->vm_mm && sentinel_mm_profiled(vma->vm_mm))
		divert(call, set_page_prot);
}

/**
 * sentinel_on_protection() - before change_protection()
 * @call: its arguments
 *
 * It writes entries anew, of a protection that was worked out before.
 */
void sentinel_on_protection(struct pt_regs *call)
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

/**
 * sentinel_on_huge_check() - before hugepage_vma_check()
 * @call: its arguments
 *
 * Only small pages are counted.
 */
void sentinel_on_huge_check(struct pt_regs *call)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)call->di;

	if (vma->vm_mm && sentinel_mm_profiled(vma->vm_mm))
		go_to(call, no);
}

static vm_fault_t fall_back(void)
{
	return VM_FAULT_FALLBACK;
}

/**
 * sentinel_on_huge_map() - before do_set_pmd()
 * @call: its arguments
 *
 * As above, for pages of files.
 */
void sentinel_on_huge_map(struct pt_regs *call)
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

/**
 * sentinel_on_copy_mapping() - before vm_area_dup()
 * @call: its arguments
 *
 * With MADV_WIPEONFORK a copy may be a child's and have no pages to copy;
 * of others sentinel_on_copy_pages() hears.
 */
void sentinel_on_copy_mapping(struct pt_regs *call)
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

/**
 * sentinel_on_split() - before __split_vma()
 * @call: its arguments
 *
 * One half is a copy.
 */
void sentinel_on_split(struct pt_regs *call)
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

/**
 * sentinel_on_copy_pages() - before copy_page_range()
 * @call: its arguments
 *
 * A child has the mapping and the entries of its parent, but no session.
 */
void sentinel_on_copy_pages(struct pt_regs *call)
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

/**
 * sentinel_on_move_pages() - before move_page_tables()
 * @call: its arguments
 *
 * Entries are moved as they are.
 */
void sentinel_on_move_pages(struct pt_regs *call)
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

/**
 * sentinel_on_merge() - before vma_merge()
 * @call: its arguments
 *
 * What is left may be the one that has no address in a range yet.
 */
void sentinel_on_merge(struct pt_regs *call)
{
	if (sentinel_mm_profiled((struct mm_struct *)call->di))
		divert(call, merge);
}
