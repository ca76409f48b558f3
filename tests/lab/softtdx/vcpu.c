// SPDX-License-Identifier: GPL-2.0
/* TDH.VP.*: a VCPU's pages, its association with a CPU, and its scripted exits. */
#include <linux/pfn.h>
#include <linux/smp.h>

#include "softtdx.h"

static u64 vp_check(u64 pa, u32 operand, u16 leaf, struct pamt_entry **tdvpr)
{
	u64 status = pamt_check(pa, operand, PAMT_TDVPR, tdvpr);

	return status ?: td_check_state(pamt_owner(*tdvpr), leaf);
}

static u64 vp_associate(struct pamt_entry *tdvpr)
{
	int cpu = raw_smp_processor_id();

	if (tdvpr->assoc_cpu == cpu)
		return ST_SUCCESS;
	if (tdvpr->assoc_cpu >= 0)
		return ST_VCPU_ASSOCIATED;
	tdvpr->assoc_cpu = cpu;
	pamt_owner(tdvpr)->num_assoc_vcpus++;
	return ST_SUCCESS;
}

/* tdh_vp_create.c */
u64 vp_create(struct seamcall *call)
{
	struct pamt_entry *page;
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rdx, OP_RDX, &td);
	if (status)
		return status;
	status = td_check_state(td, LEAF_VP_CREATE);
	if (status)
		return status;
	status = pamt_check(call->rcx, OP_RCX, PAMT_NDA, &page);
	if (status)
		return status;
	pamt_give(call->rcx, PAMT_TDVPR, td, 0, 0);
	page->num_tdvps = 1;
	return ST_SUCCESS;
}

/* tdh_vp_addcx.c */
u64 vp_addcx(struct seamcall *call)
{
	struct pamt_entry *tdvpr, *page;
	u64 status;

	status = vp_check(call->rdx, OP_RDX, LEAF_VP_ADDCX, &tdvpr);
	if (status)
		return status;
	if (tdvpr->vcpu_init)
		return ST_VCPU_STATE_INCORRECT;
	if (tdvpr->num_tdvps >= SOFTTDX_TDVPS_PAGES)
		return ST_TDCX_NUM_INCORRECT;
	status = pamt_check(call->rcx, OP_RCX, PAMT_NDA, &page);
	if (status)
		return status;
	pamt_give(call->rcx, PAMT_TDCX, pamt_owner(tdvpr), 0, 0);
	tdvpr->num_tdvps++;
	return ST_SUCCESS;
}

/* tdh_vp_init.c: all pages are there, the VCPU is new; it is associated. */
u64 vp_init(struct seamcall *call)
{
	struct pamt_entry *tdvpr;
	struct td *td;
	u64 status;

	status = vp_check(call->rcx, OP_RCX, LEAF_VP_INIT, &tdvpr);
	if (status)
		return status;
	if (tdvpr->vcpu_init)
		return ST_VCPU_STATE_INCORRECT;
	if (tdvpr->num_tdvps < SOFTTDX_TDVPS_PAGES)
		return ST_TDCX_NUM_INCORRECT;
	td = pamt_owner(tdvpr);
	if (td->num_vcpus >= td->max_vcpus)
		return ST_MAX_VCPUS_EXCEEDED;
	status = vp_associate(tdvpr);
	if (status)
		return status;
	tdvpr->vcpu_init = true;
	td->num_vcpus++;
	return ST_SUCCESS;
}

/* tdh_vp_flush.c: only on the CPU that the VCPU is associated with. */
u64 vp_flush(struct seamcall *call)
{
	struct pamt_entry *tdvpr;
	u64 status;

	status = pamt_check(call->rcx, OP_RCX, PAMT_TDVPR, &tdvpr);
	if (status)
		return status;
	if (pamt_owner(tdvpr)->lifecycle != TD_KEYS_CONFIGURED)
		return ST_TD_KEYS_NOT_CONFIGURED;
	if (tdvpr->assoc_cpu != raw_smp_processor_id())
		return ST_VCPU_NOT_ASSOCIATED;
	tdvpr->assoc_cpu = -1;
	pamt_owner(tdvpr)->num_assoc_vcpus--;
	return ST_SUCCESS;
}

/* tdh_vp_rd_wr.c: associates; every field reads as zero. */
u64 vp_rd(struct seamcall *call)
{
	struct pamt_entry *tdvpr;
	u64 status;

	call->r8 = 0;
	status = vp_check(call->rcx, OP_RCX, LEAF_VP_RD, &tdvpr);
	return status ?: vp_associate(tdvpr);
}

u64 vp_wr(struct seamcall *call)
{
	struct pamt_entry *tdvpr;
	u64 status;

	call->r8 = 0;
	status = vp_check(call->rcx, OP_RCX, LEAF_VP_WR, &tdvpr);
	return status ?: vp_associate(tdvpr);
}

/* tdh_vp_enter.c: the guest is the script; its registers go out as they are. */
u64 vp_enter(struct seamcall *call)
{
	struct pt_regs *regs = call->regs;
	struct pamt_entry *tdvpr;
	struct sept_entry entry;
	struct vp_exit exit;
	struct td *td;
	u64 status;

	status = vp_check(call->rcx, OP_RCX, LEAF_VP_ENTER, &tdvpr);
	if (status)
		return status;
	if (!tdvpr->vcpu_init)
		return ST_VCPU_STATE_INCORRECT;
	status = vp_associate(tdvpr);
	if (status)
		return status;

	td = pamt_owner(tdvpr);
	exit = script_next(td);
	/* TDG.MEM.PAGE.ACCEPT: PENDING becomes MAPPED. */
	if (exit.accept && !sept_walk(td, exit.accept & PAGE_MASK, 0, &entry) &&
	    entry.state == SEPT_PENDING)
		sept_store(td, exit.accept & PAGE_MASK, 0, entry.pfn, SEPT_MAPPED);
	call->rcx = exit.rcx;
	call->rdx = exit.rdx;
	call->r8 = exit.r8;
	call->r9 = 0;
	if (regs) {
		regs->r10 = exit.r10;
		regs->r11 = exit.r11;
		regs->r12 = exit.r12;
		regs->r13 = exit.r13;
		regs->r14 = exit.r14;
		regs->r15 = 0;
		regs->bx = 0;
		regs->di = 0;
		regs->si = 0;
	}
	return exit.rax;
}
