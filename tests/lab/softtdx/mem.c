// SPDX-License-Identifier: GPL-2.0
/* TDH.MEM.*: pages go into a TD's Secure EPT, are blocked, and come out. */
#include <linux/bitfield.h>
#include <linux/pfn.h>

#include "softtdx.h"

/* RCX of most of these: bits 2:0 level, 51:12 guest physical address. */
#define PAGE_INFO_LEVEL		GENMASK_ULL(2, 0)
#define PAGE_INFO_GPA		GENMASK_ULL(51, 12)

/* What every TDH.MEM call starts with, in the order of the module. */
struct mem_target {
	struct td *td;
	u64 gpa;
	u8 level;
	struct sept_entry entry;
};

/*
 * TDR page (RDX), TD state, level and address (RCX), walk. Levels count from
 * 0 for 4 KiB. A failed walk returns the entry at which it ended.
 */
static u64 mem_find(struct seamcall *call, u16 leaf, u8 min_level, u8 max_level,
		    struct mem_target *target)
{
	u64 info = call->rcx, tdr = call->rdx, status;

	call->rcx = 0;
	call->rdx = 0;
	status = td_check_tdr(tdr, OP_RDX, &target->td);
	if (status)
		return status;
	status = td_check_state(target->td, leaf);
	if (status)
		return status;

	target->level = FIELD_GET(PAGE_INFO_LEVEL, info);
	target->gpa = info & PAGE_INFO_GPA;
	if (target->level < min_level || target->level > max_level ||
	    target->level >= target->td->sept_levels ||
	    info & ~(PAGE_INFO_LEVEL | PAGE_INFO_GPA) ||
	    !IS_ALIGNED(target->gpa, PAGE_SIZE << (9 * target->level)))
		return ST_OPERAND_INVALID | OP_RCX;

	status = sept_walk(target->td, target->gpa, target->level, &target->entry);
	if (status == (ST_EPT_WALK_FAILED | OP_RCX))
		sept_details(call, &target->entry);
	return status;
}

static u64 entry_state_incorrect(struct seamcall *call, struct mem_target *target)
{
	sept_details(call, &target->entry);
	return ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX;
}

static u64 mem_set_state(struct mem_target *target, u8 state)
{
	return sept_store(target->td, target->gpa, target->level, target->entry.pfn,
			  state);
}

/* tdh_mem_sept_add.c, version 0: the parent entry must be free. */
u64 mem_sept_add(struct seamcall *call)
{
	struct pamt_entry *page;
	struct mem_target t;
	u64 status;

	status = mem_find(call, LEAF_MEM_SEPT_ADD, 1, 4, &t);
	if (status)
		return status;
	if (t.entry.state != SEPT_FREE)
		return entry_state_incorrect(call, &t);
	status = pamt_check(call->r8, OP_R8, PAMT_NDA, &page);
	if (status)
		return status;
	status = sept_store(t.td, t.gpa, t.level, PHYS_PFN(call->r8), SEPT_NL_MAPPED);
	if (status)
		return status;
	pamt_give(call->r8, PAMT_EPT, t.td, t.gpa, t.level);
	return ST_SUCCESS;
}

/* tdh_mem_page_add.c: before TDH.MR.FINALIZE; the entry becomes MAPPED. */
u64 mem_page_add(struct seamcall *call)
{
	struct pamt_entry *page;
	struct mem_target t;
	u64 status;

	status = mem_find(call, LEAF_MEM_PAGE_ADD, 0, 0, &t);
	if (status)
		return status;
	if (t.entry.state != SEPT_FREE)
		return entry_state_incorrect(call, &t);
	if (!PAGE_ALIGNED(call->r9) || call->r9 >> boot_cpu_data.x86_phys_bits)
		return ST_OPERAND_INVALID | OP_R9;
	status = pamt_check(call->r8, OP_R8, PAMT_NDA, &page);
	if (status)
		return status;
	status = sept_store(t.td, t.gpa, 0, PHYS_PFN(call->r8), SEPT_MAPPED);
	if (status)
		return status;
	pamt_give(call->r8, PAMT_REG, t.td, t.gpa, 0);
	return ST_SUCCESS;
}

/* tdh_mem_page_aug.c: the entry becomes PENDING until the guest accepts it. */
u64 mem_page_aug(struct seamcall *call)
{
	struct mem_target t;
	u64 status;

	status = mem_find(call, LEAF_MEM_PAGE_AUG, 0, 1, &t);
	if (status)
		return status;
	if (t.entry.state != SEPT_FREE)
		return entry_state_incorrect(call, &t);
	status = pamt_check_free_range(call->r8, OP_R8, t.level);
	if (status)
		return status;
	status = sept_store(t.td, t.gpa, t.level, PHYS_PFN(call->r8), SEPT_PENDING);
	if (status)
		return status;
	pamt_give(call->r8, PAMT_REG, t.td, t.gpa, t.level);
	return ST_SUCCESS;
}

/*
 * tdh_mem_range_block.c: an entry that is blocked already gives
 * GPA_RANGE_ALREADY_BLOCKED, which has no error bit. The TD's epoch is sampled
 * after the entry is blocked.
 */
u64 mem_range_block(struct seamcall *call)
{
	struct mem_target t;
	u64 status;
	u8 state;

	status = mem_find(call, LEAF_MEM_RANGE_BLOCK, 0, 4, &t);
	if (status)
		return status;
	if (sept_is_blocked(t.entry.state)) {
		sept_details(call, &t.entry);
		return ST_GPA_RANGE_ALREADY_BLOCKED | OP_RCX;
	}
	switch (t.entry.state) {
	case SEPT_MAPPED:
		state = SEPT_BLOCKED;
		break;
	case SEPT_PENDING:
		state = SEPT_PENDING_BLOCKED;
		break;
	case SEPT_NL_MAPPED:
		state = SEPT_NL_BLOCKED;
		break;
	default:
		return entry_state_incorrect(call, &t);
	}
	status = mem_set_state(&t, state);
	if (!status)
		pamt_of(t.entry.pfn)->bepoch = t.td->epoch;
	return status;
}

/*
 * No VCPU is ever inside a TD while another SEAMCALL runs here, so the
 * reference count of an epoch is always zero and tracking is only a question
 * of epochs: is_tlb_tracked (src/common/helpers/helpers.h).
 */
static bool tlb_tracked(const struct td *td, const struct pamt_entry *page)
{
	return page->bepoch < td->epoch;
}

/* tdh_mem_range_unblock.c: tracked first, then the state before the blocking. */
u64 mem_range_unblock(struct seamcall *call)
{
	struct mem_target t;
	u64 status;
	u8 state;

	status = mem_find(call, LEAF_MEM_RANGE_UNBLOCK, 0, 4, &t);
	if (status)
		return status;
	switch (t.entry.state) {
	case SEPT_BLOCKED:
		state = SEPT_MAPPED;
		break;
	case SEPT_PENDING_BLOCKED:
		state = SEPT_PENDING;
		break;
	case SEPT_NL_BLOCKED:
		state = SEPT_NL_MAPPED;
		break;
	default:
		return entry_state_incorrect(call, &t);
	}
	if (t.td->op_state == OP_RUNNABLE && !tlb_tracked(t.td, pamt_of(t.entry.pfn)))
		return ST_TLB_TRACKING_NOT_DONE | OP_RCX;
	return mem_set_state(&t, state);
}

/*
 * tdh_mem_track.c. PREVIOUS_TLB_EPOCH_BUSY needs a VCPU that stays inside the
 * TD over two epochs: only the fault injection gives it.
 */
u64 mem_track(struct seamcall *call)
{
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rcx, OP_RCX, &td);
	if (status)
		return status;
	status = td_check_state(td, LEAF_MEM_TRACK);
	if (status)
		return status;
	td->epoch++;
	return ST_SUCCESS;
}

/*
 * tdh_mem_page_remove.c: a leaf; and once the TD can run, blocked and tracked.
 * Before that (op_state_lookup.c, tlb_tracking_required) neither is asked for.
 * TLB_TRACKING_NOT_DONE comes without S-EPT details.
 */
u64 mem_page_remove(struct seamcall *call)
{
	struct mem_target t;
	u64 status;

	status = mem_find(call, LEAF_MEM_PAGE_REMOVE, 0, 2, &t);
	if (status)
		return status;
	if (!sept_is_leaf(t.entry.state))
		return entry_state_incorrect(call, &t);
	if (t.td->op_state == OP_RUNNABLE) {
		if (!sept_is_blocked(t.entry.state)) {
			sept_details(call, &t.entry);
			return ST_GPA_RANGE_NOT_BLOCKED | OP_RCX;
		}
		if (!tlb_tracked(t.td, pamt_of(t.entry.pfn)))
			return ST_TLB_TRACKING_NOT_DONE | OP_RCX;
	}
	sept_store(t.td, t.gpa, t.level, 0, SEPT_FREE);
	pamt_take_back(PFN_PHYS(t.entry.pfn), t.level);
	pamt_of(t.entry.pfn)->unflushed = true;
	call->rcx = PFN_PHYS(t.entry.pfn);
	return ST_SUCCESS;
}

/* tdh_mr_extend.c: 256 bytes of a page that TDH.MEM.PAGE.ADD has put in. */
u64 mr_extend(struct seamcall *call)
{
	u64 gpa = call->rcx, tdr = call->rdx, status;
	struct sept_entry entry;
	struct td *td;

	call->rcx = 0;
	call->rdx = 0;
	status = td_check_tdr(tdr, OP_RDX, &td);
	if (status)
		return status;
	status = td_check_state(td, LEAF_MR_EXTEND);
	if (status)
		return status;
	if (!IS_ALIGNED(gpa, 256))
		return ST_OPERAND_INVALID | OP_RCX;
	status = sept_walk(td, gpa & PAGE_MASK, 0, &entry);
	if (status == (ST_EPT_WALK_FAILED | OP_RCX))
		sept_details(call, &entry);
	if (status)
		return status;
	if (entry.state != SEPT_MAPPED) {
		sept_details(call, &entry);
		return ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX;
	}
	return ST_SUCCESS;
}
