// SPDX-License-Identifier: GPL-2.0
/*
 * A mirror page table of KVM's that no longer says what the S-EPT maps, as
 * after a bug or a stray write. Lines of the file mirror:
 *
 *   td=N gpa=GPA		the leaf entry of this page becomes empty
 *   td=N gpa=GPA pfn=PFN	the leaf entry maps this frame instead
 *   restore			all of that is as it was
 *
 * Which word of memory the entry is follows from its own contents, so that
 * nothing of KVM's is needed here: at the page's place in a table, in a page
 * whose struct page says that somebody owns it, present, with the frame that
 * the S-EPT has.
 */
#include <linux/io.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/string.h>

#include "softtdx.h"

#define MAX_FLIPS	16
#define SPTE_PRESENT	BIT_ULL(11)	/* SPTE_MMU_PRESENT_MASK */
#define SPTE_PFN	GENMASK_ULL(51, 12)
#define SPTE_EMPTY	BIT_ULL(63)	/* SHADOW_NONPRESENT_VALUE */

static struct {
	u64 *at;
	u64 was;
} flips[MAX_FLIPS];
static int nr_flips;

static long frame_of(u32 seq, u64 gpa)
{
	unsigned long pfn;

	for (pfn = 0; pfn < pamt_nr_pages(); pfn++) {
		struct pamt_entry *page = pamt_of(pfn);

		if (page->pt == PAMT_REG && page->gpa == gpa &&
		    pamt_owner(page)->seq == seq)
			return pfn;
	}
	return -ENOENT;
}

static u64 *entry_of(unsigned long frame, u64 gpa)
{
	unsigned long pfn;
	u64 *found = NULL;

	for (pfn = 1; pfn < pamt_nr_pages(); pfn++) {
		u64 *at;

		if (!pfn_valid(pfn) || !page_is_ram(pfn) ||
		    !page_private(pfn_to_page(pfn)))
			continue;
		at = (u64 *)__va(PFN_PHYS(pfn)) + ((gpa >> PAGE_SHIFT) & 511);
		if (!(*at & SPTE_PRESENT) || (*at & SPTE_PFN) != PFN_PHYS(frame))
			continue;
		if (found)
			return ERR_PTR(-EEXIST);
		found = at;
	}
	return found ?: ERR_PTR(-ENOENT);
}

static int restore(void)
{
	while (nr_flips) {
		nr_flips--;
		WRITE_ONCE(*flips[nr_flips].at, flips[nr_flips].was);
	}
	return 0;
}

/* 0, -EINVAL for what is no line, -ENOENT, -EEXIST, -ENOSPC. */
int mirror_flip(char *line)
{
	u64 td = 0, gpa = 0, instead = 0;
	char *token, *value;
	u64 *at;
	long pfn;

	if (!strcmp(line, "restore"))
		return restore();
	while ((token = strsep(&line, " \t"))) {
		u64 *number = NULL;

		if (!*token)
			continue;
		value = strchr(token, '=');
		if (!value)
			return -EINVAL;
		*value++ = '\0';
		if (!strcmp(token, "td"))
			number = &td;
		else if (!strcmp(token, "gpa"))
			number = &gpa;
		else if (!strcmp(token, "pfn"))
			number = &instead;
		if (!number || kstrtou64(value, 0, number))
			return -EINVAL;
	}
	pfn = frame_of(td, gpa & PAGE_MASK);
	if (pfn < 0)
		return pfn;
	at = entry_of(pfn, gpa);
	if (IS_ERR(at))
		return PTR_ERR(at);
	if (nr_flips == MAX_FLIPS)
		return -ENOSPC;
	flips[nr_flips].at = at;
	flips[nr_flips++].was = *at;
	WRITE_ONCE(*at, instead ? (*at & ~SPTE_PFN) | PFN_PHYS(instead) : SPTE_EMPTY);
	return 0;
}
