// SPDX-License-Identifier: GPL-2.0
/* Tests of the profiler's pure logic in user space; run under the sanitizers by tests/test_kernel_profiler.py. */
#include <stdio.h>
#include <stdlib.h>

#include "sentinel_regions.h"

#define PAGE SENTINEL_PAGE_BYTES
#define ROOM 64

static int failures;

static void expect(bool good, const char *what)
{
	printf("%sok - %s\n", good ? "" : "not ", what);
	failures += !good;
}

static const struct sentinel_limits limits = { 1ULL << 47, ROOM, 1000 };

static bool add(struct sentinel_table *table, __u64 page, __u64 pages)
{
	__u64 start = page * PAGE, bytes = pages * PAGE;

	if (sentinel_check(table, &limits, start, bytes))
		return false;
	sentinel_insert(table, start, bytes, calloc(pages, sizeof(struct sentinel_count)));
	return true;
}

static void test_refusals(struct sentinel_table *table)
{
	expect(sentinel_check(table, &limits, 1, PAGE) == -EINVAL, "not at a page");
	expect(sentinel_check(table, &limits, 0, 0) == -EINVAL, "empty");
	expect(sentinel_check(table, &limits, 1ULL << 47, PAGE) == -EINVAL, "behind the end");
	expect(sentinel_check(table, &limits, PAGE, ~0ULL << 12) == -EINVAL, "wraps");
	expect(sentinel_check(table, &limits, 0, 1001 * PAGE) == -ENOSPC, "too many pages");
}

static void test_overlaps(void)
{
	struct sentinel_region regions[2] = { { 4 * PAGE, 6 * PAGE, NULL }, { 6 * PAGE, 7 * PAGE, NULL } };
	struct sentinel_table table = { regions, 2, 2, 3 }, empty = { NULL, 0, 0, 0 };

	expect(!sentinel_overlaps(&empty, 0, ~0ULL), "nothing overlaps no range");
	expect(!sentinel_overlaps(&table, 0, 4 * PAGE), "below the first range");
	expect(sentinel_overlaps(&table, 0, 4 * PAGE + 1), "up to its first byte");
	expect(sentinel_overlaps(&table, 5 * PAGE, 1), "inside a range");
	expect(sentinel_overlaps(&table, 0, ~0ULL), "around all ranges");
	expect(sentinel_overlaps(&table, 7 * PAGE - 1, PAGE), "from the last byte");
	expect(!sentinel_overlaps(&table, 7 * PAGE, PAGE), "behind the last range");
}

/* A random series of ranges, compared with a map of pages that says which are taken. */
static void test_against_a_map(struct sentinel_table *table)
{
	static int owner[512];
	bool same = true;

	srand(1);
	for (int i = 0; i < 2000; i++) {
		int page = rand() % 500, pages = 1 + rand() % 8, end = page + pages;
		bool is_free = table->used < ROOM && table->pages + pages <= limits.pages;

		for (int at = page; at < end; at++)
			is_free = is_free && !owner[at];
		if (add(table, page, pages) != is_free)
			same = false;
		for (int at = page; is_free && at < end; at++)
			owner[at] = i + 1;
	}
	for (int page = 0; page < 512; page++)
		same = same && !!sentinel_find(table, page * PAGE + 5) == !!owner[page];
	expect(same && table->used > 10, "ranges are found exactly where they were added");
}

static void test_cells(struct sentinel_table *table)
{
	struct sentinel_region *first = &table->regions[0];
	__u64 pages = (first->end - first->start) / PAGE;
	struct sentinel_count *cells = sentinel_cells(table, first->start, pages);

	expect(cells == first->counts, "counts of a whole range");
	expect(!sentinel_cells(table, first->start, pages + 1), "not beyond it");
	expect(!sentinel_cells(table, first->start + 1, 1), "not inside a page");
	sentinel_add(cells, true);
	sentinel_add(cells, false);
	sentinel_add(cells, true);
	expect(cells->writes == 2 && cells->reads == 1, "reads and writes apart");
}

static void test_pending(void)
{
	struct sentinel_pending list = { 0 };

	expect(sentinel_note(&list, 5 * PAGE + 7, SENTINEL_WRITE) == SENTINEL_NEW &&
		       list.page[0] == (5 * PAGE | SENTINEL_WRITE), "a page is noted");
	list.page[0] |= SENTINEL_OPEN;
	expect(sentinel_note(&list, 5 * PAGE, 0) == SENTINEL_KNOWN && list.used == 1 &&
		       list.page[0] == (5 * PAGE | SENTINEL_WRITE),
	       "the same page is known, no longer open, and keeps its first access");
	for (int i = 1; i < SENTINEL_PENDING; i++)
		sentinel_note(&list, (5 + i) * PAGE, 0);
	expect(sentinel_note(&list, PAGE, 0) == SENTINEL_FULL, "a full list says so");
	expect((sentinel_evict(&list) & ~SENTINEL_FLAGS) == 5 * PAGE &&
		       list.used == SENTINEL_PENDING - 1, "the oldest goes first");
}

static void test_marks(void)
{
	__u32 bit;

	expect(sentinel_choose(46, 0, &bit) == SENTINEL_MECHANISM_RESERVED_BIT && bit == 51,
	       "46 bits leave bit 51");
	expect(sentinel_choose(52, 0, &bit) == SENTINEL_MECHANISM_PROT_NONE && bit == 57,
	       "52 bits leave none");
	expect(sentinel_choose(48, 1ULL << 51, &bit) == SENTINEL_MECHANISM_PROT_NONE,
	       "nor does encryption in bit 51");
	expect(sentinel_corrupt(1ULL << 50, 46, 1ULL << 51), "bit 50 of 46 is wrong");
	expect(!sentinel_corrupt(1ULL << 51 | 1ULL << 63 | 0x67, 46, 1ULL << 51), "the mark is not");
	expect(!sentinel_corrupt(~0ULL, 52, 0), "with 52 bits nothing is");
}

int main(void)
{
	struct sentinel_table table = { calloc(ROOM, sizeof(struct sentinel_region)), 0, ROOM, 0 };

	test_refusals(&table);
	test_overlaps();
	test_against_a_map(&table);
	test_cells(&table);
	test_pending();
	test_marks();
	for (__u32 i = 0; i < table.used; i++)
		free(table.regions[i].counts);
	free(table.regions);
	return failures ? 1 : 0;
}
