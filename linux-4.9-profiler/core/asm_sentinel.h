/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Page table entries that the Sentinel profiler has marked, for asm/pgtable.h.
 *
 * A marked ("poisoned") entry makes the next access that needs it fault. With
 * the reserved-bit mechanism it is present and has a physical address bit set
 * that the processor has not got. With the PROT_NONE mechanism it has
 * _PAGE_PROTNONE instead of _PAGE_PRESENT, and a software bit that tells it
 * from the entries of a mapping without rights.
 */
#ifndef _ASM_X86_SENTINEL_H
#define _ASM_X86_SENTINEL_H

#include <linux/types.h>
#include <asm/pgtable_types.h>

struct mm_struct;

#ifdef CONFIG_SENTINEL_PROFILER

/* The bit that marks an entry, or 0 before the profiler knows which it is. */
extern pteval_t sentinel_poison;
/* Set by the first START and for good: until then each hook is one test. */
extern bool sentinel_in_use;

pte_t __sentinel_filter_pte(struct mm_struct *mm, unsigned long addr, pte_t pte);

/* True for an entry that the profiler has marked. */
static inline bool sentinel_pte_poisoned(pte_t pte)
{
	return (pte.pte & sentinel_poison) &&
	       (pte.pte & (_PAGE_PRESENT | _PAGE_PROTNONE));
}

/* What set_pte_at() writes instead of @pte. */
static inline pte_t sentinel_filter_pte(struct mm_struct *mm,
					unsigned long addr, pte_t pte)
{
	return sentinel_in_use ? __sentinel_filter_pte(mm, addr, pte) : pte;
}

#else

static inline bool sentinel_pte_poisoned(pte_t pte)
{
	return false;
}

static inline pte_t sentinel_filter_pte(struct mm_struct *mm,
					unsigned long addr, pte_t pte)
{
	return pte;
}

#endif
#endif /* _ASM_X86_SENTINEL_H */
