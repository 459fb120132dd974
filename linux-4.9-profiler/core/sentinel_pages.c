// SPDX-License-Identifier: GPL-2.0
/* Marks in page tables: finding one entry without a sleeping lock, and whole ranges. */
#include <linux/hugetlb.h>

#include "sentinel_internal.h"

pteval_t sentinel_poison;
bool sentinel_in_use;

static bool corrupt(u64 entry)
{
	return sentinel_corrupt(entry, sentinel_machine.physical_bits,
				sentinel_poison | sentinel_machine.encryption_mask);
}

/**
 * sentinel_lock_entry() - finds the entry of an address and locks its table
 * @mm: the address space
 * @address: any address of a process
 *
 * Works where nothing may sleep. Interrupts must be off until the entry is
 * unlocked: that keeps the tables from being freed, as in get_user_pages_fast().
 * For the same reason the lock is only tried: whoever has it may be waiting for
 * this processor to flush its TLB, which it does not do with interrupts off.
 *
 * Return: the entry, if there is a table of 4 KiB pages for the address.
 */
struct sentinel_spot sentinel_lock_entry(struct mm_struct *mm,
					 unsigned long address)
{
	struct sentinel_spot spot = { NULL, NULL, false, false };
	pgd_t *pgd = pgd_offset(mm, address), pgd_value = READ_ONCE(*pgd);
	p4d_t *p4d, p4d_value;
	pud_t *pud, pud_value;
	pmd_t *pmd, pmd_value;

	if (!pgd_present(pgd_value))
		return spot;
	p4d = p4d_offset(pgd, address);
	p4d_value = READ_ONCE(*p4d);
	if (!p4d_present(p4d_value))
		return spot;
	if (corrupt(pgd_val(pgd_value)) || corrupt(p4d_val(p4d_value)))
		goto broken;
	pud = pud_offset(p4d, address);
	pud_value = READ_ONCE(*pud);
	if (!pud_present(pud_value))
		return spot;
	if (corrupt(pud_val(pud_value)))
		goto broken;
	if (pud_large(pud_value))
		return spot;
	pmd = pmd_offset(pud, address);
	pmd_value = READ_ONCE(*pmd);
	if (!pmd_present(pmd_value))
		return spot;
	if (corrupt(pmd_val(pmd_value)))
		goto broken;
	if (pmd_large(pmd_value))
		return spot;
	spot.lock = pte_lockptr(mm, &pmd_value);
	if (!spin_trylock(spot.lock)) {
		spot.busy = true;
		return spot;
	}
	spot.entry = pte_offset_kernel(&pmd_value, address);
	/* The table may have been taken away before its lock was ours. */
	if (likely(pmd_val(READ_ONCE(*pmd)) == pmd_val(pmd_value)))
		return spot;
	sentinel_unlock_entry(&spot);
	return spot;
broken:
	spot.corrupt = true;
	return spot;
}

/**
 * sentinel_unlock_entry() - the end of what sentinel_lock_entry() began
 * @spot: what it returned; may be without an entry
 */
void sentinel_unlock_entry(struct sentinel_spot *spot)
{
	if (spot->entry)
		spin_unlock(spot->lock);
	spot->entry = NULL;
}

/* An entry of a 4 KiB page that the processor would use. The PAT bit is that of huge pages in the levels above. */
static bool can_be_marked(pte_t entry)
{
	return (entry.pte & (_PAGE_PRESENT | _PAGE_PSE | _PAGE_USER)) ==
	       (_PAGE_PRESENT | _PAGE_USER);
}

static pte_t marked(pte_t entry)
{
	pteval_t flags = pte_flags(entry) | sentinel_poison;

	if (sentinel_machine.mechanism == SENTINEL_MECHANISM_RESERVED_BIT)
		return native_make_pte(entry.pte | sentinel_poison);
	/* pfn_pte() also inverts the address where L1TF asks for it. */
	flags = (flags & ~_PAGE_PRESENT) | _PAGE_PROTNONE;
	return pfn_pte(pte_pfn(entry), __pgprot(flags));
}

static pte_t unmarked(pte_t entry)
{
	pteval_t flags = pte_flags(entry) & ~sentinel_poison;

	if (sentinel_machine.mechanism == SENTINEL_MECHANISM_RESERVED_BIT)
		return native_make_pte(entry.pte & ~sentinel_poison);
	flags = (flags & ~_PAGE_PROTNONE) | _PAGE_PRESENT;
	return pfn_pte(pte_pfn(entry), __pgprot(flags));
}

/* Replaces an entry unless the processor has just set its accessed or dirty bit. */
static bool replace(pte_t *entry, pte_t old, pte_t new)
{
	return cmpxchg(&entry->pte, old.pte, new.pte) == old.pte;
}

/**
 * sentinel_mark_entry() - makes the next access fault
 * @entry: a locked entry
 *
 * Return: true when the entry is now marked and was not before.
 */
bool sentinel_mark_entry(pte_t *entry)
{
	pte_t old;

	do {
		old = READ_ONCE(*entry);
		if (sentinel_pte_poisoned(old) || !can_be_marked(old))
			return false;
	} while (!replace(entry, old, marked(old)));
	return true;
}

/**
 * sentinel_unmark_entry() - lets accesses through again
 * @entry: a locked entry
 *
 * Return: true when it was marked.
 */
bool sentinel_unmark_entry(pte_t *entry)
{
	pte_t old;

	do {
		old = READ_ONCE(*entry);
		if (!sentinel_pte_poisoned(old))
			return false;
	} while (!replace(entry, old, unmarked(old)));
	return true;
}

/**
 * __sentinel_filter_pte() - the entry that set_pte_at() is to write
 * @mm: whose page table it is
 * @addr: for which address
 * @pte: the entry that the caller wants
 *
 * The mark depends on the address alone, not on where @pte comes from: a copy
 * of a marked entry for another process has none, a new page in a profiled
 * range has one. Entries that are not present are left alone, their bits mean
 * something else.
 *
 * Return: @pte with or without the mark.
 */
pte_t __sentinel_filter_pte(struct mm_struct *mm, unsigned long addr, pte_t pte)
{
	struct sentinel_session *session;

	if (sentinel_pte_poisoned(pte))
		pte = unmarked(pte);
	if (!can_be_marked(pte))
		return pte;
	rcu_read_lock();
	session = sentinel_of_mm(mm);
	if (session && sentinel_mode(session) &&
	    sentinel_find(&session->table, addr))
		pte = marked(pte);
	rcu_read_unlock();
	return pte;
}

static int mark_table(pmd_t *pmd, unsigned long start, unsigned long end,
		      struct mm_walk *walk)
{
	bool mark = *(bool *)walk->private;
	unsigned long address;
	spinlock_t *lock;
	pte_t *first, *entry;

	split_huge_pmd(walk->vma, pmd, start);
	if (pmd_trans_unstable(pmd))
		return 0;
	first = pte_offset_map_lock(walk->mm, pmd, start, &lock);
	for (address = start, entry = first; address < end;
	     address += PAGE_SIZE, entry++) {
		if (mark)
			sentinel_mark_entry(entry);
		else
			sentinel_unmark_entry(entry);
	}
	pte_unmap_unlock(first, lock);
	cond_resched();
	return 0;
}

/**
 * sentinel_mark_range() - marks or unmarks all pages that are mapped in a range
 * @mm: the address space, with mmap_lock held for writing
 * @start: first address
 * @end: first address behind
 * @mark: which of both; either way huge pages are split
 *
 * Return: 0 or an error of the walk.
 */
int sentinel_mark_range(struct mm_struct *mm, u64 start, u64 end, bool mark)
{
	return sentinel_walk(mm, start, end, mark_table, &mark);
}

/**
 * sentinel_has_hugetlb() - whether hugetlbfs pages are mapped in a range
 * @mm: the address space, with mmap_lock held
 * @start: first address
 * @end: first address behind
 *
 * Return: true when there is such a mapping.
 */
bool sentinel_has_hugetlb(struct mm_struct *mm, u64 start, u64 end)
{
	struct vm_area_struct *vma = find_vma(mm, start);

	for (; vma && vma->vm_start < end; vma = find_vma(mm, vma->vm_end))
		if (is_vm_hugetlb_page(vma))
			return true;
	return false;
}
