/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Sentinel: counts a process' accesses per page.
 *
 * This header is the only description of the interface. The kernel, the tests
 * and every client use it as it is; a client in another language checks its
 * constants and sizes against it.
 *
 * One process is profiled through one open file of /dev/sentinel:
 *
 *	fd = open("/dev/sentinel", O_RDWR | O_CLOEXEC);
 *	ioctl(fd, SENTINEL_IOC_INFO, &info);		what this kernel can do
 *	ioctl(fd, SENTINEL_IOC_ADD_RANGE, &range);	as often as needed
 *	ioctl(fd, SENTINEL_IOC_START, &start);
 *	...						the accesses to count
 *	ioctl(fd, SENTINEL_IOC_STOP);
 *	ioctl(fd, SENTINEL_IOC_READ, &read);		once or more per range
 *	close(fd);
 *
 * The file belongs to the address space that its first ADD_RANGE or ATTACH
 * names, for good. Threads share an address space and therefore the file. A
 * child of fork() has an address space of its own: it is not profiled, and
 * the inherited file works for it only if it may ptrace its parent. When the
 * address space ends, by exec or exit, everything is released and each call
 * but INFO fails with ESRCH. Closing the last copy of the file stops too.
 *
 * Every structure has a fixed size and no padding, fields named reserved and
 * flags must be 0, and the sizes are part of the ioctl numbers: a structure
 * that grows gets a new number, so an old program keeps working.
 *
 * Errors of all calls: EFAULT for a bad pointer, EINVAL for a field that is
 * out of its limits or not 0 where it must be, ENOTTY for an unknown number,
 * ENODEV for INFO's mechanism SENTINEL_MECHANISM_NONE, EACCES when the process
 * of the file is neither the caller's own nor one that it may ptrace, ESRCH
 * when that process has gone, EINTR when a signal came first.
 */
#ifndef _UAPI_SENTINEL_H
#define _UAPI_SENTINEL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SENTINEL_ABI_VERSION	1

/* Not among the numbers of Documentation/ioctl/ioctl-number; 1 and 2 would be FIBMAP and FIGETBSZ. */
#define SENTINEL_IOC_MAGIC	0xD3

/* How a page is made to fault; struct sentinel_info, field mechanism. */
#define SENTINEL_MECHANISM_NONE		0	/* nothing can be profiled here */
#define SENTINEL_MECHANISM_RESERVED_BIT	1	/* a reserved physical address bit of the page table entry */
#define SENTINEL_MECHANISM_PROT_NONE	2	/* an entry without its present bit, for want of a reserved bit */

/* What this kernel can do; struct sentinel_info, field features. */
#define SENTINEL_FEATURE_EXACT		(1ULL << 0)	/* START takes SENTINEL_MODE_EXACT */
#define SENTINEL_FEATURE_TLB_MISS	(1ULL << 1)	/* START takes SENTINEL_MODE_TLB_MISS */
#define SENTINEL_FEATURE_EXACT_THREADS	(1ULL << 2)	/* exact also when threads share pages */
#define SENTINEL_FEATURE_ATTACH		(1ULL << 3)	/* ATTACH is there: another process can be profiled */
#define SENTINEL_FEATURE_PATCHED	(1ULL << 4)	/* built into the kernel, not a module for an unchanged one */
#define SENTINEL_FEATURE_FLUSH		(1ULL << 5)	/* FLUSH is there */

/* Accesses that are never in the counts; struct sentinel_info, field not_counted. */
#define SENTINEL_NOT_PINNED		(1ULL << 0)	/* through the page's frame: direct I/O, ptrace, process_vm_readv, a guest of KVM */
#define SENTINEL_NOT_DMA		(1ULL << 1)	/* by devices */
#define SENTINEL_NOT_INTERRUPT		(1ULL << 2)	/* by interrupt handlers, such as perf's unwinder */
#define SENTINEL_NOT_SAME_INSTRUCTION	(1ULL << 3)	/* second and later ones of one instruction (or one turn of a rep) to one page */
#define SENTINEL_NOT_SAME_SYSCALL	(1ULL << 4)	/* second and later ones of one system call to one page */
#define SENTINEL_NOT_BESIDE_SYSCALL	(1ULL << 5)	/* by other threads while a system call copies from or to the page */
#define SENTINEL_NOT_TLB_HIT		(1ULL << 6)	/* in tlb_miss mode: those whose translation is cached */
#define SENTINEL_NOT_HUGETLB		(1ULL << 7)	/* to hugetlbfs pages; ranges that have some are refused */
#define SENTINEL_NOT_KERNEL_THREAD	(1ULL << 9)	/* second and later ones to a page by a kernel thread on the process' behalf */
#define SENTINEL_NOT_LATE_DEVICE	(1ULL << 10)	/* to pages of device mappings that appear while profiling runs */

/**
 * struct sentinel_info - what this kernel can do (SENTINEL_IOC_INFO)
 * @abi_version: SENTINEL_ABI_VERSION of the kernel
 * @mechanism: one of SENTINEL_MECHANISM_*
 * @features: bits SENTINEL_FEATURE_*
 * @not_counted: bits SENTINEL_NOT_*; what the counts leave out
 * @max_ranges: ranges that one process can have
 * @max_pages: pages that the ranges of one process can have together
 * @page_bytes: size of the pages that are counted
 * @physical_bits: width of physical addresses of the processors
 * @poison_bit: bit number in the page table entry that marks a page
 * @reserved: 0
 * @mechanism_name: the mechanism for people, ends with a 0 byte
 *
 * Anyone who can open the file can ask. All fields are set by the kernel.
 */
struct sentinel_info {
	__u32 abi_version;
	__u32 mechanism;
	__u64 features;
	__u64 not_counted;
	__u64 max_ranges;
	__u64 max_pages;
	__u32 page_bytes;
	__u32 physical_bits;
	__u32 poison_bit;
	__u32 reserved;
	char mechanism_name[32];
};

/**
 * struct sentinel_attach - the process to profile (SENTINEL_IOC_ATTACH)
 * @pid: its id as the caller sees it, or 0 for the caller's own process
 * @flags: 0
 *
 * Only needed for another process, before the first ADD_RANGE.
 *
 * Errors: EBUSY when the file has a process already or the process is being
 * profiled through another file; ESRCH when there is none; EACCES (or EPERM)
 * when the caller may not ptrace it; EOPNOTSUPP without SENTINEL_FEATURE_ATTACH.
 */
struct sentinel_attach {
	__s32 pid;
	__u32 flags;
};

/**
 * struct sentinel_range - addresses to profile (SENTINEL_IOC_ADD_RANGE)
 * @start: first address, a multiple of @page_bytes of struct sentinel_info
 * @bytes: length, a multiple of the same and not 0
 *
 * Need not be mapped yet: pages that appear in it later are profiled too.
 * Ranges that touch each other stay two ranges.
 *
 * Errors: EBUSY while profiling runs or when the process is being profiled
 * through another file; EEXIST when it overlaps an earlier range; ENOSPC when
 * a limit of INFO would be passed, or the ranges of all users together would
 * have more pages than the machine; EOPNOTSUPP when hugetlbfs pages are mapped
 * in it; ENOMEM.
 */
struct sentinel_range {
	__u64 start;
	__u64 bytes;
};

/* struct sentinel_start, field mode. */
#define SENTINEL_MODE_EXACT	1	/* every access; a fault each, and threads take turns */
#define SENTINEL_MODE_TLB_MISS	2	/* accesses whose translation is not in the TLB; far cheaper */

/**
 * struct sentinel_start - begins counting (SENTINEL_IOC_START)
 * @mode: one of SENTINEL_MODE_*
 * @flags: 0
 *
 * Counts go on from where they were; RESET sets them to 0. Huge pages in the
 * ranges are split, and none is made in the process until STOP.
 *
 * Errors: EBUSY when it runs already; EINVAL also when there is no range;
 * EOPNOTSUPP when hugetlbfs pages are mapped in a range.
 */
struct sentinel_start {
	__u32 mode;
	__u32 flags;
};

/**
 * struct sentinel_count - accesses to one page
 * @reads: accesses that the processor reported as reads, instruction fetches included
 * @writes: accesses that it reported as writes; an instruction that reads and
 *	writes the same page counts as what it did first
 */
struct sentinel_count {
	__u64 reads;
	__u64 writes;
};

/**
 * struct sentinel_read - fetches counts (SENTINEL_IOC_READ)
 * @start: address of the first page, a multiple of the page's size
 * @pages: number of pages; all must be in one range
 * @counts: address of @pages structures of type sentinel_count
 * @reserved: 0
 *
 * May be called while profiling runs. Fails with EINVAL when a page is in no range.
 */
struct sentinel_read {
	__u64 start;
	__u64 pages;
	__u64 counts;
	__u64 reserved;
};

/* struct sentinel_reset, field flags. */
#define SENTINEL_RESET_RANGES	(1U << 0)	/* forget the ranges too; only while nothing runs, else EBUSY */

/**
 * struct sentinel_reset - sets all counts and statistics to 0 (SENTINEL_IOC_RESET)
 * @flags: bits SENTINEL_RESET_*
 * @reserved: 0
 */
struct sentinel_reset {
	__u32 flags;
	__u32 reserved;
};

/**
 * struct sentinel_status - where profiling stands (SENTINEL_IOC_STATUS)
 * @mode: SENTINEL_MODE_* while it runs, else 0
 * @reserved: 0
 * @ranges: ranges that were added
 * @pages: pages in them
 * @reads: sum of reads over all pages
 * @writes: sum of writes over all pages
 * @kernel_accesses: those of @reads and @writes that system calls did
 * @steps: instructions that were let through one at a time
 * @spurious: faults for which there was nothing left to do
 * @left_open: times that a page could not be watched again after an access, or
 *	came into a range unwatched, and so may miss counts; 0 for a count that is
 *	complete
 */
struct sentinel_status {
	__u32 mode;
	__u32 reserved;
	__u64 ranges;
	__u64 pages;
	__u64 reads;
	__u64 writes;
	__u64 kernel_accesses;
	__u64 steps;
	__u64 spurious;
	__u64 left_open;
};

#define SENTINEL_IOC_INFO	_IOR(SENTINEL_IOC_MAGIC, 0, struct sentinel_info)
#define SENTINEL_IOC_ATTACH	_IOW(SENTINEL_IOC_MAGIC, 1, struct sentinel_attach)
#define SENTINEL_IOC_ADD_RANGE	_IOW(SENTINEL_IOC_MAGIC, 2, struct sentinel_range)
#define SENTINEL_IOC_START	_IOW(SENTINEL_IOC_MAGIC, 3, struct sentinel_start)
/* Ends counting. Fails with EINVAL when nothing runs. When it returns, the counts are final. */
#define SENTINEL_IOC_STOP	_IO(SENTINEL_IOC_MAGIC, 4)
#define SENTINEL_IOC_READ	_IOW(SENTINEL_IOC_MAGIC, 5, struct sentinel_read)
#define SENTINEL_IOC_RESET	_IOW(SENTINEL_IOC_MAGIC, 6, struct sentinel_reset)
#define SENTINEL_IOC_STATUS	_IOR(SENTINEL_IOC_MAGIC, 7, struct sentinel_status)
/*
 * Empties the TLBs of all processors of the process' translations. The next
 * access to each page is counted then in tlb_miss mode too, wherever it was
 * used before; in exact mode it is anyway. Called between the parts of a
 * computation, it makes "pages that the part has touched" the least that the
 * counts say, whatever the size of the TLB and whatever emptied it meanwhile.
 * Fails with EINVAL when nothing runs; ENOTTY without SENTINEL_FEATURE_FLUSH.
 */
#define SENTINEL_IOC_FLUSH	_IO(SENTINEL_IOC_MAGIC, 8)

#endif /* _UAPI_SENTINEL_H */
