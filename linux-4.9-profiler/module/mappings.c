// SPDX-License-Identifier: GPL-2.0
/*
 * Entries that are born with the mark.
 *
 * An unmodified kernel writes entries without asking anybody, but it makes them
 * of what their mapping says: vm_page_prot. A mapping that holds the mark there
 * is "armed": demand-zero pages, copies on write, pages that come back from swap
 * and from migration have the mark from their first moment. Other addresses of
 * such a mapping get it too; a fault there takes it off.
 *
 * The kernel would make entries of huge pages of it as well, and the mark means
 * something else to them. So START splits those of armed mappings, beside the
 * ranges too, and hooks keep new ones away. Those that come into an armed mapping
 * later, because it grows, merges or is filled by mremap, may get the mark when the
 * kernel changes them. That is harmless as long as the mark is not in the address
 * mask: a fault takes it off, and whoever unmarks tables does.
 *
 * Where the kernel loses the mark from a mapping (mprotect and merging write it
 * anew), hooks arm it again before an entry is made of it. When a session stops,
 * all mappings are disarmed, and all entries unmarked between the lowest and the
 * highest address that was ever armed, so that nothing outlives the hooks.
 *
 * vm_page_prot is written with mmap_lock held, for reading at least: then only
 * others that arm can write it, and they write the same.
 */
#include <linux/hugetlb.h>
#include <linux/pagewalk.h>

#include "module.h"

/* What drivers map has a protection of their own making. */
#define NEVER_ARMED (VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB)

/**
 * sentinel_is_armed() - whether new entries of a mapping have the mark
 * @vma: the mapping
 *
 * Return: true when they have.
 */
bool sentinel_is_armed(const struct vm_area_struct *vma)
{
	return pgprot_val(READ_ONCE(vma->vm_page_prot)) & sentinel_poison;
}

static void disarm(struct vm_area_struct *vma)
{
	WRITE_ONCE(vma->vm_page_prot,
		   __pgprot(pgprot_val(vma->vm_page_prot) & ~sentinel_poison));
}

static void widen(struct sentinel_session *session, unsigned long start,
		  unsigned long end)
{
	struct sentinel_armed *armed = &session->armed;
	unsigned long flags;

	raw_spin_lock_irqsave(&armed->lock, flags);
	if (armed->start == armed->end) {
		armed->start = start;
		armed->end = end;
	}
	armed->start = min(armed->start, start);
	armed->end = max(armed->end, end);
	raw_spin_unlock_irqrestore(&armed->lock, flags);
}

/* The session that counts in an address space, kept by RCU; or NULL. */
static struct sentinel_session *running(struct mm_struct *mm)
{
	struct sentinel_session *session = sentinel_of_mm(mm);

	return session && sentinel_mode(session) ? session : NULL;
}

static bool is_to_be_armed(struct sentinel_session *session,
			   struct vm_area_struct *vma)
{
	/* The mark means something else in an entry that is not present, as that of a mapping without rights. */
	return !(vma->vm_flags & NEVER_ARMED) &&
	       pgprot_val(vma->vm_page_prot) & _PAGE_PRESENT &&
	       sentinel_overlaps(&session->table, vma->vm_start,
				 vma->vm_end - vma->vm_start);
}

/**
 * sentinel_arm_mapping() - arms a mapping that has addresses of a range
 * @vma: any mapping, with mmap_lock held
 */
void sentinel_arm_mapping(struct vm_area_struct *vma)
{
	struct sentinel_session *session;

	if (!sentinel_in_use || !vma->vm_mm)
		return;
	rcu_read_lock();
	session = running(vma->vm_mm);
	if (session && !sentinel_is_armed(vma) && is_to_be_armed(session, vma))
		WRITE_ONCE(vma->vm_page_prot,
			   __pgprot(pgprot_val(vma->vm_page_prot) | sentinel_poison));
	/* Whatever has it, even without an address in a range: it may have been split off, or have grown. */
	if (session && sentinel_is_armed(vma))
		widen(session, vma->vm_start, vma->vm_end);
	rcu_read_unlock();
}

static int split_table(pmd_t *pmd, unsigned long start, unsigned long end,
		       struct mm_walk *walk)
{
	split_huge_pmd(walk->vma, pmd, start);
	cond_resched();
	return 0;
}

static const struct mm_walk_ops splitting = { .pmd_entry = split_table };

/**
 * sentinel_arm_mappings() - arms all mappings that have addresses of a range, and splits their huge pages
 * @session: which runs from now on, so that no huge page comes any more
 * @mm: its address space, with mmap_lock held for writing
 */
void sentinel_arm_mappings(struct sentinel_session *session,
			   struct mm_struct *mm)
{
	struct vm_area_struct *vma;

	for (vma = find_vma(mm, 0); vma; vma = find_vma(mm, vma->vm_end))
		sentinel_arm_mapping(vma);
	for (vma = find_vma(mm, 0); vma; vma = find_vma(mm, vma->vm_end))
		if (sentinel_is_armed(vma))
			walk_page_range(mm, vma->vm_start, vma->vm_end, &splitting, NULL);
}

/* A huge page is never to be watched. Its table is locked. */
static bool unmark_huge(pmd_t *pmd)
{
	pmdval_t old;

	do {
		old = pmd_val(READ_ONCE(*pmd));
		if (!(old & _PAGE_PSE) || !(old & _PAGE_PRESENT) ||
		    !(old & sentinel_poison))
			return false;
	} while (cmpxchg(&pmd->pmd, old, old & ~sentinel_poison) != old);
	return true;
}

/* The entry above the tables of small pages; interrupts are off, which keeps it. */
static pmd_t *find_pmd(struct mm_struct *mm, unsigned long address)
{
	pgd_t *pgd = pgd_offset(mm, address);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(READ_ONCE(*pgd)) || pgd_bad(READ_ONCE(*pgd)))
		return NULL;
	p4d = p4d_offset(pgd, address);
	if (p4d_none(READ_ONCE(*p4d)) || p4d_bad(READ_ONCE(*p4d)))
		return NULL;
	pud = pud_offset(p4d, address);
	/* Those of huge pages count as bad. */
	if (pud_none(READ_ONCE(*pud)) || pud_bad(READ_ONCE(*pud)))
		return NULL;
	return pmd_offset(pud, address);
}

/**
 * sentinel_unmark_huge() - after a fault, takes the mark off a huge page that has got it
 * @mm: the address space
 * @address: of the fault
 *
 * Called with interrupts off. The lock is only tried, as in sentinel_lock_entry().
 *
 * Return: true when the mark is off.
 */
bool sentinel_unmark_huge(struct mm_struct *mm, unsigned long address)
{
	pmd_t *pmd = find_pmd(mm, address);
	spinlock_t *lock;
	bool done;

	if (!pmd || !(pmd_val(READ_ONCE(*pmd)) & _PAGE_PSE))
		return false;
	lock = pmd_lockptr(mm, pmd);
	if (!spin_trylock(lock))
		return false;
	done = unmark_huge(pmd);
	spin_unlock(lock);
	return done;
}

static void unmark_locked(struct mm_struct *mm, pmd_t *pmd)
{
	spinlock_t *lock = pmd_lock(mm, pmd);

	unmark_huge(pmd);
	spin_unlock(lock);
}

static int unmark_table(pmd_t *pmd, unsigned long start, unsigned long end,
			struct mm_walk *walk)
{
	unsigned long address;
	spinlock_t *lock;
	pte_t *first, *entry;

	unmark_locked(walk->mm, pmd);
	if (pmd_trans_unstable(pmd))
		return 0;
	first = pte_offset_map_lock(walk->mm, pmd, start, &lock);
	for (address = start, entry = first; address < end;
	     address += PAGE_SIZE, entry++)
		sentinel_unmark_entry(entry);
	pte_unmap_unlock(first, lock);
	cond_resched();
	return 0;
}

static const struct mm_walk_ops unmarking = { .pmd_entry = unmark_table };

/**
 * sentinel_disarm_mappings() - takes the mark off all mappings and off all entries that may have it
 * @session: which has stopped
 * @mm: its address space, with mmap_lock held for writing
 */
void sentinel_disarm_mappings(struct sentinel_session *session,
			      struct mm_struct *mm)
{
	struct sentinel_armed *armed = &session->armed;
	struct vm_area_struct *vma;

	for (vma = find_vma(mm, 0); vma; vma = find_vma(mm, vma->vm_end))
		if (sentinel_is_armed(vma))
			disarm(vma);
	/* The walk ends early only where its operations say so, and these do not. */
	if (armed->start < armed->end)
		walk_page_range(mm, armed->start, armed->end, &unmarking, NULL);
	armed->start = 0;
	armed->end = 0;
}

/**
 * sentinel_disarm_copy() - a copy of a mapping, before it gets entries
 * @vma: the copy, which nobody else can see or whose mmap_lock is held for writing
 */
void sentinel_disarm_copy(struct vm_area_struct *vma)
{
	if (sentinel_is_armed(vma))
		disarm(vma);
}

/**
 * sentinel_unmark_copy() - a child's mapping, after it has got entries
 * @vma: the mapping, with the child's mmap_lock held for writing
 */
void sentinel_unmark_copy(struct vm_area_struct *vma)
{
	walk_page_range(vma->vm_mm, vma->vm_start, vma->vm_end, &unmarking, NULL);
}

/**
 * struct arrival - entries that were moved
 * @session: which counts
 * @marked: how many came without the mark to where they need it
 */
struct arrival {
	struct sentinel_session *session;
	u64 marked;
};

static int filter_table(pmd_t *pmd, unsigned long start, unsigned long end,
			struct mm_walk *walk)
{
	struct arrival *arrival = walk->private;
	const struct sentinel_table *table = &arrival->session->table;
	unsigned long address;
	spinlock_t *lock;
	pte_t *first, *entry;

	if (sentinel_overlaps(table, start, end - start))
		split_huge_pmd(walk->vma, pmd, start);
	unmark_locked(walk->mm, pmd);
	if (pmd_trans_unstable(pmd))
		return 0;
	first = pte_offset_map_lock(walk->mm, pmd, start, &lock);
	for (address = start, entry = first; address < end;
	     address += PAGE_SIZE, entry++) {
		if (!sentinel_find(table, address))
			sentinel_unmark_entry(entry);
		else if (sentinel_mark_entry(entry))
			arrival->marked++;
	}
	pte_unmap_unlock(first, lock);
	cond_resched();
	return 0;
}

/**
 * sentinel_pages_moved() - after entries have been moved to other addresses
 * @vma: the mapping that has them now, with mmap_lock held for writing
 * @start: their first address
 * @bytes: their length
 *
 * The kernel moves entries as they are. Those that come into a range from
 * elsewhere have not been watched for a moment: that is in left_open, if
 * another thread may have used it.
 */
void sentinel_pages_moved(struct vm_area_struct *vma, unsigned long start,
			  unsigned long bytes)
{
	static const struct mm_walk_ops filtering = { .pmd_entry = filter_table };
	struct mm_struct *mm = vma->vm_mm;
	struct arrival arrival = { NULL, 0 };

	rcu_read_lock();
	arrival.session = running(mm);
	rcu_read_unlock();
	/* It cannot stop meanwhile, which would take mmap_lock. */
	if (!arrival.session)
		return;
	sentinel_arm_mapping(vma);
	walk_page_range(mm, start, start + bytes, &filtering, &arrival);
	if (!arrival.marked)
		return;
	flush_tlb_mm_range(mm, start, start + bytes, PAGE_SHIFT, false);
	if (atomic_read(&mm->mm_users) > 1)
		atomic64_add(arrival.marked, &arrival.session->left_open);
}
