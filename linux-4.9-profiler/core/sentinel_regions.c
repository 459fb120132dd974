// SPDX-License-Identifier: GPL-2.0
/* Ranges, pending accesses and the choice of a mark; see sentinel_regions.h. */
#include "sentinel_regions.h"

/* Physical address bits end below this one in a page table entry. */
#define ENTRY_ADDRESS_END	52
#define RESERVED_BIT		51
/* Ignored by the processor, and used by no version of Linux up to 6.1. */
#define SOFTWARE_BIT		57

/* Number of ranges that begin at or below an address. */
static __u32 count_up_to(const struct sentinel_table *table, __u64 address)
{
	__u32 low = 0, high = table->used;

	while (low < high) {
		__u32 middle = low + (high - low) / 2;

		if (table->regions[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/**
 * sentinel_find() - the range that an address is in
 * @table: the ranges
 * @address: any address
 *
 * Return: the range or NULL.
 */
struct sentinel_region *sentinel_find(const struct sentinel_table *table,
				      __u64 address)
{
	__u32 below = count_up_to(table, address);

	if (!below || address >= table->regions[below - 1].end)
		return NULL;
	return &table->regions[below - 1];
}

/**
 * sentinel_overlaps() - whether any address is in a range
 * @table: the ranges
 * @start: first address
 * @bytes: how many; they do not wrap around
 *
 * Return: true when a range has one of them.
 */
bool sentinel_overlaps(const struct sentinel_table *table, __u64 start,
		       __u64 bytes)
{
	__u32 below = count_up_to(table, start);

	/* The range before it ends above its start, or the one after it begins below its end. */
	if (below && start < table->regions[below - 1].end)
		return true;
	return below < table->used && table->regions[below].start - start < bytes;
}

/**
 * sentinel_check() - whether a range can be added
 * @table: the ranges that there are
 * @limits: what they must stay within
 * @start: first address
 * @bytes: length
 *
 * Return: 0, -EINVAL for addresses that are no pages of a process, -EEXIST for
 * an overlap, -ENOSPC when a limit would be passed.
 */
int sentinel_check(const struct sentinel_table *table,
		   const struct sentinel_limits *limits, __u64 start,
		   __u64 bytes)
{
	__u64 pages = bytes >> SENTINEL_PAGE_SHIFT;

	if ((start | bytes) & (SENTINEL_PAGE_BYTES - 1) || !bytes)
		return -EINVAL;
	if (start >= limits->address_end || bytes > limits->address_end - start)
		return -EINVAL;
	if (sentinel_overlaps(table, start, bytes))
		return -EEXIST;
	if (table->used >= limits->ranges || table->pages > limits->pages ||
	    pages > limits->pages - table->pages)
		return -ENOSPC;
	return 0;
}

/**
 * sentinel_insert() - adds a range that sentinel_check() allows
 * @table: with room for one more
 * @start: first address
 * @bytes: length
 * @counts: one per page, all 0
 */
void sentinel_insert(struct sentinel_table *table, __u64 start, __u64 bytes,
		     struct sentinel_count *counts)
{
	__u32 at = count_up_to(table, start);
	struct sentinel_region *place = table->regions + at;

	memmove(place + 1, place, (table->used - at) * sizeof(*place));
	place->start = start;
	place->end = start + bytes;
	place->counts = counts;
	table->used++;
	table->pages += bytes >> SENTINEL_PAGE_SHIFT;
}

/**
 * sentinel_cells() - the counts of some pages
 * @table: the ranges
 * @start: address of the first page
 * @pages: how many pages, which must be in one range
 *
 * Return: the first page's count, or NULL when they are not all in one range.
 */
struct sentinel_count *sentinel_cells(const struct sentinel_table *table,
				      __u64 start, __u64 pages)
{
	struct sentinel_region *region = sentinel_find(table, start);

	if (!region || start & (SENTINEL_PAGE_BYTES - 1))
		return NULL;
	if (pages > (region->end - start) >> SENTINEL_PAGE_SHIFT)
		return NULL;
	return region->counts + ((start - region->start) >> SENTINEL_PAGE_SHIFT);
}

/**
 * sentinel_add() - counts one access; threads may do so at the same time
 * @cell: the page's counts
 * @write: which of them
 */
void sentinel_add(struct sentinel_count *cell, bool write)
{
	__atomic_fetch_add(write ? &cell->writes : &cell->reads, 1,
			   __ATOMIC_RELAXED);
}

/**
 * sentinel_note() - puts an access into a list
 * @list: accesses of one instruction, or of one system call
 * @address: any address of the page
 * @flags: SENTINEL_WRITE, SENTINEL_FETCH, SENTINEL_OPEN
 *
 * A page that is in the list already keeps the access that was first, because
 * the second fault is the same instruction's again: only whether it is open is
 * brought up to date.
 *
 * Return: what became of it.
 */
enum sentinel_noted sentinel_note(struct sentinel_pending *list, __u64 address,
				  __u32 flags)
{
	__u64 page = address & ~SENTINEL_FLAGS;
	__u32 i;

	for (i = 0; i < list->used; i++) {
		if ((list->page[i] & ~SENTINEL_FLAGS) != page)
			continue;
		list->page[i] &= ~(__u64)SENTINEL_OPEN;
		list->page[i] |= flags & SENTINEL_OPEN;
		return SENTINEL_KNOWN;
	}
	if (list->used == SENTINEL_PENDING)
		return SENTINEL_FULL;
	list->page[list->used++] = page | flags;
	return SENTINEL_NEW;
}

/**
 * sentinel_evict() - takes the oldest page out of a list that is not empty
 * @list: the list
 *
 * Return: its address with its flags.
 */
__u64 sentinel_evict(struct sentinel_pending *list)
{
	__u64 oldest = list->page[0];

	list->used--;
	memmove(list->page, list->page + 1, list->used * sizeof(*list->page));
	return oldest;
}

/**
 * sentinel_choose() - the mark for processors like these
 * @physical_bits: width of their physical addresses
 * @encryption_mask: address bits that mean encrypted memory, or 0
 * @bit: set to the number of the bit that marks an entry
 *
 * Return: the mechanism, one of SENTINEL_MECHANISM_*.
 */
__u32 sentinel_choose(__u32 physical_bits, __u64 encryption_mask, __u32 *bit)
{
	if (physical_bits <= RESERVED_BIT &&
	    !(encryption_mask & (1ULL << RESERVED_BIT))) {
		*bit = RESERVED_BIT;
		return SENTINEL_MECHANISM_RESERVED_BIT;
	}
	*bit = SOFTWARE_BIT;
	return SENTINEL_MECHANISM_PROT_NONE;
}

/**
 * sentinel_corrupt() - whether an entry has address bits that the processor has not got
 * @entry: a present entry of any level
 * @physical_bits: width of physical addresses
 * @allowed: bits that are set on purpose: the mark, the encryption bit
 *
 * Return: true when this entry explains a reserved-bit fault.
 */
bool sentinel_corrupt(__u64 entry, __u32 physical_bits, __u64 allowed)
{
	__u64 reserved = 0;

	if (physical_bits < ENTRY_ADDRESS_END)
		reserved = ((1ULL << ENTRY_ADDRESS_END) - 1) &
			   ~((1ULL << physical_bits) - 1);
	return entry & reserved & ~allowed;
}
