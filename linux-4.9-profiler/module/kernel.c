// SPDX-License-Identifier: GPL-2.0
/* What the kernel does not offer to modules: some functions, and the mask of physical addresses. */
#include <linux/ftrace.h>
#include <linux/hugetlb.h>
#include <linux/kprobes.h>
#include <linux/pagewalk.h>
#include <linux/vmalloc.h>

#include "module.h"

static unsigned long (*lookup)(const char *name);
static unsigned long (*location)(unsigned long ip);
static void (*flush)(struct mm_struct *mm, unsigned long start,
		     unsigned long end, unsigned int shift, bool freed_tables);
static struct mm_struct *(*access)(struct task_struct *task, unsigned int mode);
static void (*clear_bad)(pmd_t *pmd);
static int (*walk)(struct mm_struct *mm, unsigned long start, unsigned long end,
		   const struct mm_walk_ops *ops, void *private);
static void (*split)(struct vm_area_struct *vma, pmd_t *pmd,
		     unsigned long address, bool freeze, struct folio *folio);

static const struct {
	const char *name;
	void *pointer;
} wanted[] = {
	{ "ftrace_location", &location },	{ "flush_tlb_mm_range", &flush },
	{ "mm_access", &access },		{ "pmd_clear_bad", &clear_bad },
	{ "walk_page_range", &walk },		{ "__split_huge_pmd", &split },
};


/* See renames.h. */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start,
			unsigned long end, unsigned int stride_shift,
			bool freed_tables)
{
	flush(mm, start, end, stride_shift, freed_tables);
}

struct mm_struct *mm_access(struct task_struct *task, unsigned int mode)
{
	return access(task, mode);
}

void pmd_clear_bad(pmd_t *pmd)
{
	clear_bad(pmd);
}

int walk_page_range(struct mm_struct *mm, unsigned long start,
		    unsigned long end, const struct mm_walk_ops *ops,
		    void *private)
{
	return walk(mm, start, end, ops, private);
}

void __split_huge_pmd(struct vm_area_struct *vma, pmd_t *pmd,
		      unsigned long address, bool freeze, struct folio *folio)
{
	split(vma, pmd, address, freeze, folio);
}

/* The way to functions that are not exported is to ask for a probe there. */
static unsigned long __init address_by_probe(const char *name)
{
	struct kprobe probe = { .symbol_name = name };
	unsigned long address;

	if (register_kprobe(&probe))
		return 0;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return address;
}

/**
 * sentinel_kernel_init() - finds the functions
 *
 * Return: 0, or -ENOENT when one is missing.
 */
int __init sentinel_kernel_init(void)
{
	u32 i;

	lookup = (void *)address_by_probe("kallsyms_lookup_name");
	if (!lookup) {
		pr_err("sentinel: not loaded: no kprobe at kallsyms_lookup_name\n");
		return -ENOENT;
	}
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		unsigned long address = lookup(wanted[i].name);

		if (!address) {
			pr_err("sentinel: not loaded: the kernel has no %s\n",
			       wanted[i].name);
			return -ENOENT;
		}
		*(unsigned long *)wanted[i].pointer = address;
	}
	return 0;
}

/**
 * sentinel_kernel_entry() - where a function can be hooked
 * @name: of the function
 *
 * Return: the address, or 0 with a message.
 */
unsigned long sentinel_kernel_entry(const char *name)
{
	unsigned long address = lookup(name);
	unsigned long entry = address ? location(address) : 0;

	if (!entry)
		pr_err("sentinel: not loaded: the kernel has no %s that can be hooked\n",
		       name);
	return entry;
}

/* The mask can only be read where it is, so it is written through another address. */
static int write_mask(phys_addr_t mask)
{
	struct page *page = virt_to_page(__va(__pa_symbol(&physical_mask)));
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!alias)
		return -ENOMEM;
	WRITE_ONCE(*(phys_addr_t *)(alias + offset_in_page(&physical_mask)), mask);
	vunmap(alias);
	return 0;
}

/**
 * sentinel_take_address_bit() - keeps the mark out of page frame numbers
 * @bit: of a page table entry
 *
 * No present entry has the bit, so it does not matter who reads which mask when. It
 * stays out until the next boot: the kernel inverts the address of an entry that is
 * not present (L1TF) within the mask of the time, so an entry that was made without
 * the bit would have another address with it. The other way round the bit is ignored.
 *
 * Return: 0 or an error.
 */
int sentinel_take_address_bit(u32 bit)
{
	int error;

	error = write_mask(physical_mask & ~BIT_ULL(bit));
	if (!error && physical_mask & BIT_ULL(bit))
		error = -EIO;
	if (error)
		pr_err("sentinel: not loaded: physical_mask cannot be written (%d)\n", error);
	return error;
}
