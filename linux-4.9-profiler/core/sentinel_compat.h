/* SPDX-License-Identifier: GPL-2.0 */
/* Names that differ between Linux 4.9 and 6.1; the rest of the profiler uses those of 6.1. */
#ifndef _SENTINEL_COMPAT_H
#define _SENTINEL_COMPAT_H

#include <linux/mm.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <asm/tlbflush.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(4, 10, 0)

#include <linux/sched.h>

#define p4d_t pgd_t
#define p4d_offset(pgd, address) (pgd)
#define p4d_present(p4d) pgd_present(p4d)
#define p4d_val(p4d) pgd_val(p4d)

#define mmap_write_lock_killable(mm) down_write_killable(&(mm)->mmap_sem)
#define mmap_write_lock(mm) down_write(&(mm)->mmap_sem)
#define mmap_write_unlock(mm) up_write(&(mm)->mmap_sem)
#define mmap_read_lock_killable(mm) (down_read(&(mm)->mmap_sem), 0)
#define mmap_read_unlock(mm) up_read(&(mm)->mmap_sem)
#define mmget(mm) atomic_inc(&(mm)->mm_users)
#define mmget_not_zero(mm) atomic_inc_not_zero(&(mm)->mm_users)
#define thread_debug_status(task) ((task)->thread.debugreg6)
#define totalram_pages_now() totalram_pages
/* Physical addresses have 46 bits there, and no processor of its time encrypts. */
#define sentinel_encryption_mask() 0ULL
#define sentinel_free_address_bit(bit) do { } while (0)

static inline void *sentinel_alloc(size_t bytes)
{
	return __vmalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_HIGHMEM,
			 PAGE_KERNEL);
}

static inline void sentinel_flush(struct mm_struct *mm, unsigned long start,
				  unsigned long end)
{
	flush_tlb_mm_range(mm, start, end, 0);
}

static inline int sentinel_walk(struct mm_struct *mm, unsigned long start,
				unsigned long end,
				int (*pmd_entry)(pmd_t *, unsigned long, unsigned long,
						 struct mm_walk *),
				void *argument)
{
	struct mm_walk walk = {
		.mm = mm, .pmd_entry = pmd_entry, .private = argument,
	};

	return walk_page_range(start, end, &walk);
}

#else

#include <linux/pagewalk.h>
#include <linux/sched/mm.h>
#include <linux/sched/task_stack.h>

#define thread_debug_status(task) ((task)->thread.virtual_dr6)
#define totalram_pages_now() totalram_pages()
/* pte_pfn() must not see the mark; the mask can be written until the kernel has booted. Later the module has a way. */
#ifdef MODULE
#include <linux/cc_platform.h>
/* What is missing in the mask is encryption's, or was taken by the module when it was here before. */
#define sentinel_encryption_mask() \
	(cc_platform_has(CC_ATTR_MEM_ENCRYPT) ? ~physical_mask & (BIT_ULL(52) - 1) : 0)
#define sentinel_free_address_bit(bit) do { } while (0)
#else
/* Whoever encrypts has taken its bits out of the mask at boot. */
#define sentinel_encryption_mask() (~physical_mask & (BIT_ULL(52) - 1))
#define sentinel_free_address_bit(bit) (physical_mask &= ~BIT_ULL(bit))
#endif

static inline void *sentinel_alloc(size_t bytes)
{
	return __vmalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN);
}

static inline void sentinel_flush(struct mm_struct *mm, unsigned long start,
				  unsigned long end)
{
	flush_tlb_mm_range(mm, start, end, PAGE_SHIFT, false);
}

static inline int sentinel_walk(struct mm_struct *mm, unsigned long start,
				unsigned long end,
				int (*pmd_entry)(pmd_t *, unsigned long, unsigned long,
						 struct mm_walk *),
				void *argument)
{
	const struct mm_walk_ops operations = { .pmd_entry = pmd_entry };

	return walk_page_range(mm, start, end, &operations, argument);
}

#endif
#endif /* _SENTINEL_COMPAT_H */
