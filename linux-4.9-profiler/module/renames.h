/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Comes before everything else in each file of the module.
 *
 * Functions that the kernel keeps from modules get another name, by which
 * kernel.c defines a function that calls the one it has found. So the core and
 * the kernel's own inline functions need not know.
 */
#ifndef _SENTINEL_RENAMES_H
#define _SENTINEL_RENAMES_H

#define flush_tlb_mm_range	sentinel_kernel_flush_tlb_mm_range
#define mm_access		sentinel_kernel_mm_access
#define pmd_clear_bad		sentinel_kernel_pmd_clear_bad
#define walk_page_range		sentinel_kernel_walk_page_range
#define __split_huge_pmd	sentinel_kernel_split_huge_pmd

#ifndef __ASSEMBLY__
struct mm_struct;
/* Both are hidden from modules by asm/tlbflush.h; the others are declared where they always are. */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start,
			unsigned long end, unsigned int stride_shift,
			_Bool freed_tables);
#define flush_tlb_mm(mm) flush_tlb_mm_range(mm, 0, TLB_FLUSH_ALL, 0, true)
#endif

#endif /* _SENTINEL_RENAMES_H */
