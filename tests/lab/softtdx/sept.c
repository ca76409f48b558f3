// SPDX-License-Identifier: GPL-2.0
/*
 * The Secure EPT of a TD: one tree, kept as an array of entries per level.
 *
 * Entries live here and not in the S-EPT pages that the host hands over: the
 * host may wrongly reuse such a page, and the truth must survive that. An
 * entry is an xarray value: frame number above eight bits of state.
 */
#include <linux/bitfield.h>
#include <linux/pfn.h>

#include "softtdx.h"

#define ENTRY_STATE	GENMASK_ULL(7, 0)
#define ENTRY_PFN	GENMASK_ULL(51, 8)

/* Architectural entry in RCX, and level and state in RDX (ABI specification). */
#define ARCH_RWX	(BIT_ULL(0) | BIT_ULL(1) | BIT_ULL(2))
#define ARCH_MT_WB	(6ULL << 3)
#define ARCH_IPAT	BIT_ULL(6)
#define ARCH_LEAF	BIT_ULL(7)
#define ARCH_SVE	BIT_ULL(63)
#define INFO_LEVEL	GENMASK_ULL(2, 0)
#define INFO_STATE	GENMASK_ULL(15, 8)

static unsigned long sept_index(u64 gpa, u8 level)
{
	return gpa >> (PAGE_SHIFT + 9 * level);
}

bool sept_is_leaf(u8 state)
{
	switch (state) {
	case SEPT_MAPPED:
	case SEPT_BLOCKED:
	case SEPT_PENDING:
	case SEPT_PENDING_BLOCKED:
		return true;
	}
	return false;
}

bool sept_is_blocked(u8 state)
{
	switch (state) {
	case SEPT_BLOCKED:
	case SEPT_PENDING_BLOCKED:
	case SEPT_NL_BLOCKED:
		return true;
	}
	return false;
}

static struct sept_entry sept_load(struct td *td, u64 gpa, u8 level)
{
	void *value = xa_load(&td->sept[level], sept_index(gpa, level));
	struct sept_entry entry = { .state = SEPT_FREE, .level = level };

	if (value) {
		entry.state = FIELD_GET(ENTRY_STATE, xa_to_value(value));
		entry.pfn = FIELD_GET(ENTRY_PFN, xa_to_value(value));
	}
	return entry;
}

/*
 * lock_sept_check_and_walk_private_gpa (src/common/helpers): the address must
 * be private and inside the guest's address width, then the walk from the root
 * down must find non-leaf entries above @level. The entry at which the walk
 * ended goes with EPT_WALK_FAILED.
 */
u64 sept_walk(struct td *td, u64 gpa, u8 level, struct sept_entry *entry)
{
	u8 at;

	*entry = (struct sept_entry) { .state = SEPT_FREE, .level = level };
	if (gpa >> (td->gpaw - 1))
		return ST_OPERAND_INVALID | OP_RCX;
	for (at = td->sept_levels - 1; at > level; at--) {
		*entry = sept_load(td, gpa, at);
		if (entry->state != SEPT_NL_MAPPED && entry->state != SEPT_NL_BLOCKED)
			return ST_EPT_WALK_FAILED | OP_RCX;
	}
	*entry = sept_load(td, gpa, level);
	return ST_SUCCESS;
}

/* Fails only for want of memory; the caller's checks are all done by then. */
u64 sept_store(struct td *td, u64 gpa, u8 level, unsigned long pfn, u8 state)
{
	struct xarray *sept = &td->sept[level];
	void *old;

	if (state == SEPT_FREE) {
		xa_erase(sept, sept_index(gpa, level));
		return ST_SUCCESS;
	}
	old = xa_store(sept, sept_index(gpa, level),
		       xa_mk_value(FIELD_PREP(ENTRY_PFN, pfn) |
				   FIELD_PREP(ENTRY_STATE, state)),
		       GFP_ATOMIC | __GFP_NOWARN);
	return xa_is_err(old) ? ST_OPERAND_BUSY | OP_SEPT_TREE : ST_SUCCESS;
}

/* set_arch_septe_details_in_vmm_regs (src/common/helpers). */
void sept_details(struct seamcall *call, const struct sept_entry *entry)
{
	u64 arch = 0;

	switch (entry->state) {
	case SEPT_FREE:
		arch = ARCH_SVE;
		break;
	case SEPT_NL_MAPPED:
		arch = ARCH_RWX;
		break;
	case SEPT_MAPPED:
		arch = ARCH_RWX;
		fallthrough;
	case SEPT_BLOCKED:
	case SEPT_PENDING:
	case SEPT_PENDING_BLOCKED:
		arch |= ARCH_LEAF | ARCH_MT_WB | ARCH_IPAT | ARCH_SVE |
			PFN_PHYS(entry->pfn);
		break;
	}
	call->rcx = arch;
	call->rdx = FIELD_PREP(INFO_LEVEL, entry->level) |
		    FIELD_PREP(INFO_STATE, entry->state);
}

void sept_destroy(struct td *td)
{
	int level;

	for (level = 0; level < SOFTTDX_SEPT_LEVELS; level++)
		xa_destroy(&td->sept[level]);
}

const char *sept_state_name(u8 state)
{
	switch (state) {
	case SEPT_FREE:
		return "FREE";
	case SEPT_BLOCKED:
		return "BLOCKED";
	case SEPT_PENDING:
		return "PENDING";
	case SEPT_PENDING_BLOCKED:
		return "PENDING_BLOCKED";
	case SEPT_MAPPED:
		return "MAPPED";
	case SEPT_NL_BLOCKED:
		return "NL_BLOCKED";
	case SEPT_NL_MAPPED:
		return "NL_MAPPED";
	}
	return "?";
}

/* State of the entry that maps a guest page, or links an S-EPT page. */
u8 sept_state_of(const struct pamt_entry *entry)
{
	struct td *td = pamt_owner(entry);

	if (entry->pt != PAMT_REG && entry->pt != PAMT_EPT)
		return SEPT_FREE;
	return sept_load(td, entry->gpa, entry->level).state;
}
