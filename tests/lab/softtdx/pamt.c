// SPDX-License-Identifier: GPL-2.0
/*
 * The Physical Address Metadata Table: who owns each 4 KiB frame, as what.
 *
 * One flat table over all of RAM, allocated before the first SEAMCALL, so that
 * asking it needs no lock and no allocation. Every frame is taken to be inside
 * a TDMR: the holes that the kernel reserves in its TDMRs are never offered.
 */
#include <linux/memblock.h>
#include <linux/pfn.h>
#include <linux/vmalloc.h>
#include <asm/processor.h>

#include "softtdx.h"

static struct pamt_entry *pamt;
static unsigned long pamt_pages;

int pamt_alloc(void)
{
	pamt_pages = max_pfn;
	pamt = vzalloc(array_size(pamt_pages, sizeof(*pamt)));
	return pamt ? 0 : -ENOMEM;
}

void pamt_reset(void)
{
	memset(pamt, 0, array_size(pamt_pages, sizeof(*pamt)));
}

unsigned long pamt_nr_pages(void)
{
	return pamt_pages;
}

struct pamt_entry *pamt_of(unsigned long pfn)
{
	return pamt && pfn < pamt_pages ? &pamt[pfn] : NULL;
}

/*
 * check_and_lock_explicit_4k_private_hpa (src/common/helpers): alignment and
 * key id bits, then the TDMR range, then the page's type.
 */
u64 pamt_check(u64 pa, u32 operand, u8 pt, struct pamt_entry **entry)
{
	if (!PAGE_ALIGNED(pa) || pa >> boot_cpu_data.x86_phys_bits)
		return ST_OPERAND_INVALID | operand;
	*entry = pamt_of(PHYS_PFN(pa));
	if (!*entry)
		return ST_OPERAND_ADDR_RANGE_ERROR | operand;
	if ((*entry)->pt != pt)
		return ST_PAGE_METADATA_INCORRECT | operand;
	return ST_SUCCESS;
}

/* check_and_lock_free_range_hpa: as above for every page of a larger one. */
u64 pamt_check_free_range(u64 pa, u32 operand, u8 level)
{
	unsigned long i, nr = 1UL << (9 * level);
	struct pamt_entry *entry;
	u64 status;

	if (PHYS_PFN(pa) & (nr - 1))
		return ST_OPERAND_INVALID | operand;
	for (i = 0; i < nr; i++) {
		status = pamt_check(pa + i * PAGE_SIZE, operand, PAMT_NDA, &entry);
		if (status)
			return status;
	}
	return ST_SUCCESS;
}

void pamt_give(u64 pa, u8 pt, struct td *td, u64 gpa, u8 level)
{
	unsigned long i, nr = pt == PAMT_REG ? 1UL << (9 * level) : 1;

	for (i = 0; i < nr; i++) {
		struct pamt_entry *entry = pamt_of(PHYS_PFN(pa) + i);

		*entry = (struct pamt_entry) {
			.level = level,
			.td = td - softtdx_tds,
			.assoc_cpu = -1,
			.gpa = gpa + i * PAGE_SIZE,
		};
		/* The probe on freed frames reads the type without the lock. */
		smp_store_release(&entry->pt, pt);
		if (pt == PAMT_REG)
			truth_given(PHYS_PFN(pa) + i, td);
	}
	if (pt != PAMT_TDR)
		td->chldcnt += nr;
}

void pamt_take_back(u64 pa, u8 level)
{
	struct pamt_entry *entry = pamt_of(PHYS_PFN(pa));
	unsigned long i, nr = entry->pt == PAMT_REG ? 1UL << (9 * level) : 1;

	if (entry->pt != PAMT_TDR)
		pamt_owner(entry)->chldcnt -= nr;
	for (i = 0; i < nr; i++) {
		/* Pairs with the probe's load, as in pamt_give(). */
		smp_store_release(&entry[i].pt, PAMT_NDA);
	}
}

struct td *pamt_owner(const struct pamt_entry *entry)
{
	return &softtdx_tds[entry->td];
}

const char *pamt_type_name(u8 pt)
{
	switch (pt) {
	case PAMT_NDA:
		return "NDA";
	case PAMT_RSVD:
		return "RSVD";
	case PAMT_REG:
		return "REG";
	case PAMT_TDR:
		return "TDR";
	case PAMT_TDCX:
		return "TDCX";
	case PAMT_TDVPR:
		return "TDVPR";
	case PAMT_EPT:
		return "EPT";
	}
	return "?";
}
