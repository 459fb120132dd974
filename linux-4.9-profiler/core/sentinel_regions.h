/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the profiler decides without touching the machine: which addresses are
 * profiled, which accesses wait for their instruction, which bit marks a page.
 *
 * May use nothing but integers, so that it is the same code in the kernel and
 * in the tests of user space. Locking is the caller's.
 */
#ifndef _SENTINEL_REGIONS_H
#define _SENTINEL_REGIONS_H

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/string.h>
#include <linux/types.h>
#include <uapi/linux/sentinel.h>
#else
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "sentinel.h"
#endif

#define SENTINEL_PAGE_SHIFT	12
#define SENTINEL_PAGE_BYTES	(1ULL << SENTINEL_PAGE_SHIFT)

/**
 * struct sentinel_region - one range with its counts
 * @start: first address
 * @end: first address behind it
 * @counts: one per page
 */
struct sentinel_region {
	__u64 start;
	__u64 end;
	struct sentinel_count *counts;
};

/**
 * struct sentinel_table - the ranges of a process by address
 * @regions: sorted, not overlapping
 * @used: how many there are
 * @room: how many @regions has room for
 * @pages: pages in all of them
 */
struct sentinel_table {
	struct sentinel_region *regions;
	__u32 used;
	__u32 room;
	__u64 pages;
};

/**
 * struct sentinel_limits - what a table may hold
 * @address_end: first address that no process can have
 * @ranges: most ranges
 * @pages: most pages in all ranges together
 */
struct sentinel_limits {
	__u64 address_end;
	__u64 ranges;
	__u64 pages;
};

/*
 * Accesses that wait for their instruction. One instruction needs at most 34
 * pages at a time: a gather of 16 elements that all cross a page, and itself.
 */
#define SENTINEL_PENDING	48

/* Flags in the low bits of a pending page's address. */
#define SENTINEL_WRITE		0x1	/* the fault was for a write */
#define SENTINEL_FETCH		0x2	/* for the instruction itself */
#define SENTINEL_OPEN		0x4	/* the mark is off the page */
#define SENTINEL_FLAGS		(SENTINEL_PAGE_BYTES - 1)

/**
 * struct sentinel_pending - pages whose mark is off, or will be, for a moment
 * @used: how many
 * @page: their addresses, with SENTINEL_WRITE, SENTINEL_FETCH, SENTINEL_OPEN
 */
struct sentinel_pending {
	__u32 used;
	__u64 page[SENTINEL_PENDING];
};

/* What became of an access that was noted. */
enum sentinel_noted {
	SENTINEL_NEW,		/* it is in the list now */
	SENTINEL_KNOWN,		/* its page was there; it counts once */
	SENTINEL_FULL,		/* there is no room */
};

int sentinel_check(const struct sentinel_table *table,
		   const struct sentinel_limits *limits, __u64 start,
		   __u64 bytes);
bool sentinel_overlaps(const struct sentinel_table *table, __u64 start,
		       __u64 bytes);
void sentinel_insert(struct sentinel_table *table, __u64 start, __u64 bytes,
		     struct sentinel_count *counts);
struct sentinel_region *sentinel_find(const struct sentinel_table *table,
				      __u64 address);
struct sentinel_count *sentinel_cells(const struct sentinel_table *table,
				      __u64 start, __u64 pages);
void sentinel_add(struct sentinel_count *cell, bool write);
enum sentinel_noted sentinel_note(struct sentinel_pending *list, __u64 address,
				  __u32 flags);
__u64 sentinel_evict(struct sentinel_pending *list);
__u32 sentinel_choose(__u32 physical_bits, __u64 encryption_mask, __u32 *bit);
bool sentinel_corrupt(__u64 entry, __u32 physical_bits, __u64 allowed);

#endif /* _SENTINEL_REGIONS_H */
