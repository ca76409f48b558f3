// SPDX-License-Identifier: GPL-2.0
/*
 * SEAMCALL without SEAM: the instruction raises #UD, and this notifier, first
 * in the die chain, is the module. It reads the operands from the trapped
 * registers, writes the results there, and steps over the instruction.
 */
#include <linux/init.h>
#include <linux/kdebug.h>
#include <linux/kstrtox.h>
#include <linux/string.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "softtdx.h"

DEFINE_RAW_SPINLOCK(softtdx_lock);

static const u8 seamcall_insn[] = { 0x66, 0x0f, 0x01, 0xcf };

static const char *const leaf_names[] = {
	[LEAF_VP_ENTER] = "VP_ENTER",
	[LEAF_MNG_ADDCX] = "MNG_ADDCX",
	[LEAF_MEM_PAGE_ADD] = "MEM_PAGE_ADD",
	[LEAF_MEM_SEPT_ADD] = "MEM_SEPT_ADD",
	[LEAF_VP_ADDCX] = "VP_ADDCX",
	[LEAF_MEM_PAGE_AUG] = "MEM_PAGE_AUG",
	[LEAF_MEM_RANGE_BLOCK] = "MEM_RANGE_BLOCK",
	[LEAF_MNG_KEY_CONFIG] = "MNG_KEY_CONFIG",
	[LEAF_MNG_CREATE] = "MNG_CREATE",
	[LEAF_VP_CREATE] = "VP_CREATE",
	[LEAF_MNG_RD] = "MNG_RD",
	[LEAF_MR_EXTEND] = "MR_EXTEND",
	[LEAF_MR_FINALIZE] = "MR_FINALIZE",
	[LEAF_VP_FLUSH] = "VP_FLUSH",
	[LEAF_MNG_VPFLUSHDONE] = "MNG_VPFLUSHDONE",
	[LEAF_MNG_KEY_FREEID] = "MNG_KEY_FREEID",
	[LEAF_MNG_INIT] = "MNG_INIT",
	[LEAF_VP_INIT] = "VP_INIT",
	[LEAF_PHYMEM_PAGE_RDMD] = "PHYMEM_PAGE_RDMD",
	[LEAF_VP_RD] = "VP_RD",
	[LEAF_PHYMEM_PAGE_RECLAIM] = "PHYMEM_PAGE_RECLAIM",
	[LEAF_MEM_PAGE_REMOVE] = "MEM_PAGE_REMOVE",
	[LEAF_SYS_KEY_CONFIG] = "SYS_KEY_CONFIG",
	[LEAF_SYS_INIT] = "SYS_INIT",
	[LEAF_SYS_RD] = "SYS_RD",
	[LEAF_SYS_LP_INIT] = "SYS_LP_INIT",
	[LEAF_SYS_TDMR_INIT] = "SYS_TDMR_INIT",
	[LEAF_MEM_TRACK] = "MEM_TRACK",
	[LEAF_MEM_RANGE_UNBLOCK] = "MEM_RANGE_UNBLOCK",
	[LEAF_PHYMEM_CACHE_WB] = "PHYMEM_CACHE_WB",
	[LEAF_PHYMEM_PAGE_WBINVD] = "PHYMEM_PAGE_WBINVD",
	[LEAF_VP_WR] = "VP_WR",
	[LEAF_SYS_CONFIG] = "SYS_CONFIG",
	[LEAF_SYS_SHUTDOWN] = "SYS_SHUTDOWN",
	[LEAF_SYS_DISABLE] = "SYS_DISABLE",
};

const char *softtdx_leaf_name(u16 leaf)
{
	const char *name = leaf < ARRAY_SIZE(leaf_names) ? leaf_names[leaf] : NULL;

	return name ?: "?";
}

/* A leaf by name or number; negative if there is no such leaf. */
int softtdx_leaf_parse(const char *name)
{
	u16 nr;
	int i;

	for (i = 0; i < ARRAY_SIZE(leaf_names); i++)
		if (leaf_names[i] && !strcmp(leaf_names[i], name))
			return i;
	return kstrtou16(name, 0, &nr) ? -EINVAL : nr;
}

static u64 execute_sys(struct seamcall *call, bool *handled)
{
	*handled = true;
	switch (SEAMCALL_LEAF(call->rax)) {
	case LEAF_SYS_INIT:
		return sys_init(call);
	case LEAF_SYS_LP_INIT:
		return sys_lp_init(call);
	case LEAF_SYS_RD:
		return sys_rd(call);
	case LEAF_SYS_CONFIG:
		return sys_config(call);
	case LEAF_SYS_KEY_CONFIG:
		return sys_key_config(call);
	case LEAF_SYS_TDMR_INIT:
		return sys_tdmr_init(call);
	case LEAF_SYS_SHUTDOWN:
		return sys_shutdown(call);
	case LEAF_SYS_DISABLE:
		return sys_disable(call);
	case LEAF_PHYMEM_PAGE_RDMD:
		return phymem_page_rdmd(call);
	}
	*handled = false;
	return ST_OPERAND_INVALID | OP_RAX;
}

/* Runs one SEAMCALL on the module's state. The lock is held. */
u64 softtdx_execute(struct seamcall *call)
{
	bool handled;
	u64 status = execute_sys(call, &handled);

	if (handled)
		return status;
	status = sys_check_ready();
	if (status)
		return status;
	switch (SEAMCALL_LEAF(call->rax)) {
	case LEAF_MNG_CREATE:
		return mng_create(call);
	case LEAF_MNG_KEY_CONFIG:
		return mng_key_config(call);
	case LEAF_MNG_ADDCX:
		return mng_addcx(call);
	case LEAF_MNG_INIT:
		return mng_init(call);
	case LEAF_MNG_RD:
		return mng_rd(call);
	case LEAF_MR_EXTEND:
		return mr_extend(call);
	case LEAF_MR_FINALIZE:
		return mr_finalize(call);
	case LEAF_MNG_VPFLUSHDONE:
		return mng_vpflushdone(call);
	case LEAF_MNG_KEY_FREEID:
		return mng_key_freeid(call);
	case LEAF_VP_CREATE:
		return vp_create(call);
	case LEAF_VP_ADDCX:
		return vp_addcx(call);
	case LEAF_VP_INIT:
		return vp_init(call);
	case LEAF_VP_FLUSH:
		return vp_flush(call);
	case LEAF_VP_RD:
		return vp_rd(call);
	case LEAF_VP_WR:
		return vp_wr(call);
	case LEAF_VP_ENTER:
		return vp_enter(call);
	case LEAF_MEM_SEPT_ADD:
		return mem_sept_add(call);
	case LEAF_MEM_PAGE_ADD:
		return mem_page_add(call);
	case LEAF_MEM_PAGE_AUG:
		return mem_page_aug(call);
	case LEAF_MEM_RANGE_BLOCK:
		return mem_range_block(call);
	case LEAF_MEM_RANGE_UNBLOCK:
		return mem_range_unblock(call);
	case LEAF_MEM_TRACK:
		return mem_track(call);
	case LEAF_MEM_PAGE_REMOVE:
		return mem_page_remove(call);
	case LEAF_PHYMEM_PAGE_RECLAIM:
		return phymem_page_reclaim(call);
	case LEAF_PHYMEM_PAGE_WBINVD:
		return phymem_page_wbinvd(call);
	case LEAF_PHYMEM_CACHE_WB:
		return phymem_cache_wb(call);
	}
	return ST_OPERAND_INVALID | OP_RAX;
}

/* A page operand is in RCX for all leaves that a lie can send elsewhere. */
static u64 execute_elsewhere(struct seamcall *call)
{
	call->rcx ^= PAGE_SIZE;
	softtdx_execute(call);
	return ST_SUCCESS;
}

static u64 execute_with_rules(struct seamcall *call)
{
	const struct seamcall in = *call;
	struct verdict v = inject_match(call);
	u64 status;

	switch (v.lie) {
	case LIE_NOTHING:
		call->rcx = 0;
		call->rdx = 0;
		status = ST_SUCCESS;
		break;
	case LIE_ELSEWHERE:
		status = execute_elsewhere(call);
		break;
	case LIE_DENIES:
		softtdx_execute(call);
		inject_details(call, &in, v.status);
		status = v.status;
		break;
	default:
		if (v.rule < 0) {
			status = softtdx_execute(call);
		} else {
			status = v.status;
			inject_details(call, &in, status);
		}
	}
	truth_record(&in, call, status, &v);
	return status;
}

static int softtdx_die(struct notifier_block *nb, unsigned long event, void *data)
{
	struct die_args *args = data;
	struct pt_regs *regs = args->regs;
	struct seamcall call;
	unsigned long flags;

	if (event != DIE_TRAP || args->trapnr != X86_TRAP_UD || user_mode(regs) ||
	    memcmp((void *)regs->ip, seamcall_insn, sizeof(seamcall_insn)))
		return NOTIFY_DONE;

	call = (struct seamcall) {
		.rax = regs->ax,
		.rcx = regs->cx,
		.rdx = regs->dx,
		.r8 = regs->r8,
		.r9 = regs->r9,
		.regs = regs,
	};
	if (call.rax & SEAMCALL_P_SEAMLDR) {
		/* There is no P-SEAMLDR: what a CPU without SEAM returns. */
		regs->flags |= X86_EFLAGS_CF;
	} else {
		raw_spin_lock_irqsave(&softtdx_lock, flags);
		regs->ax = execute_with_rules(&call);
		raw_spin_unlock_irqrestore(&softtdx_lock, flags);
		regs->cx = call.rcx;
		regs->dx = call.rdx;
		regs->r8 = call.r8;
		regs->r9 = call.r9;
		regs->flags &= ~X86_EFLAGS_CF;
	}
	regs->ip += sizeof(seamcall_insn);
	return NOTIFY_STOP;
}

static struct notifier_block softtdx_nb = {
	.notifier_call = softtdx_die,
	.priority = INT_MAX,
};

/* Forgets all TDs, pages, rules and records. Leaked pages stay leaked. */
void softtdx_reset(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&softtdx_lock, flags);
	td_reset();
	pamt_reset();
	inject_clear();
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	truth_reset();
}

/* Before the kernel's own TDX initialisation, a subsys_initcall from 7.1 on. */
static int __init softtdx_init(void)
{
	int ret = pamt_alloc() ?: truth_init();

	return ret ?: register_die_notifier(&softtdx_nb);
}
early_initcall(softtdx_init);
