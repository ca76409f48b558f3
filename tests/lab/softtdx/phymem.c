// SPDX-License-Identifier: GPL-2.0
/* TDH.PHYMEM.*: pages and caches by physical address. */
#include <linux/pfn.h>

#include "softtdx.h"

#define CACHE_WB_START	0
#define CACHE_WB_RESUME	1

/*
 * tdh_phymem_page_reclaim.c: any owned page of a TD that is torn down; the TDR
 * last. Type, owner and size are returned from the moment they are known, also
 * with an error.
 */
u64 phymem_page_reclaim(struct seamcall *call)
{
	struct pamt_entry *page;
	u64 pa = call->rcx;
	struct td *td;

	call->rcx = 0;
	call->rdx = 0;
	call->r8 = 0;
	if (!PAGE_ALIGNED(pa) || pa >> boot_cpu_data.x86_phys_bits)
		return ST_OPERAND_INVALID | OP_RCX;
	page = pamt_of(PHYS_PFN(pa));
	if (!page)
		return ST_OPERAND_ADDR_RANGE_ERROR | OP_RCX;
	if (page->pt == PAMT_NDA || page->pt == PAMT_RSVD)
		return ST_PAGE_METADATA_INCORRECT | OP_RCX;

	td = pamt_owner(page);
	call->rcx = page->pt;
	call->rdx = page->pt == PAMT_TDR ? 0 : td->tdr;
	call->r8 = page->pt == PAMT_REG ? page->level : 0;
	if (td->lifecycle != TD_TEARDOWN)
		return ST_LIFECYCLE_STATE_INCORRECT;
	if (page->pt != PAMT_TDR) {
		pamt_take_back(pa, call->r8);
		return ST_SUCCESS;
	}
	if (td->chldcnt)
		return ST_TD_ASSOCIATED_PAGES_EXIST;
	pamt_take_back(pa, 0);
	sept_destroy(td);
	td->used = false;
	return ST_SUCCESS;
}

/* tdh_phymem_page_wbinvd.c: only of a page that no TD owns any more. */
u64 phymem_page_wbinvd(struct seamcall *call)
{
	struct pamt_entry *page;
	u64 status;

	status = pamt_check(call->rcx & (BIT_ULL(boot_cpu_data.x86_phys_bits) - 1),
			    OP_RCX, PAMT_NDA, &page);
	if (!status)
		page->unflushed = false;
	return status;
}

/* tdh_phymem_page_rdmd.c: type, owner, size, blocking epoch of any page. */
u64 phymem_page_rdmd(struct seamcall *call)
{
	struct pamt_entry *page;
	u64 pa = call->rcx;

	call->rcx = 0;
	call->rdx = 0;
	call->r8 = 0;
	call->r9 = 0;
	if (!PAGE_ALIGNED(pa) || pa >> boot_cpu_data.x86_phys_bits)
		return ST_OPERAND_INVALID | OP_RCX;
	page = pamt_of(PHYS_PFN(pa));
	if (!page)
		return ST_OPERAND_ADDR_RANGE_ERROR | OP_RCX;
	call->rcx = page->pt;
	if (page->pt == PAMT_NDA)
		return ST_SUCCESS;
	if (page->pt != PAMT_TDR)
		call->rdx = pamt_owner(page)->tdr;
	call->r8 = page->pt == PAMT_REG ? page->level : 0;
	call->r9 = page->bepoch;
	return ST_SUCCESS;
}

/*
 * tdh_phymem_cache_wb.c. The machine is one package, and the call is never
 * interrupted: there is nothing to resume.
 */
u64 phymem_cache_wb(struct seamcall *call)
{
	switch (call->rcx) {
	case CACHE_WB_START:
		if (!td_any_flushed())
			return ST_NO_HKID_READY_TO_WBCACHE;
		td_cache_written_back();
		return ST_SUCCESS;
	case CACHE_WB_RESUME:
		return ST_WBCACHE_RESUME_ERROR;
	}
	return ST_OPERAND_INVALID | OP_RCX;
}
