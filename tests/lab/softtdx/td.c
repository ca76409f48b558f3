// SPDX-License-Identifier: GPL-2.0
/* TDH.MNG.* and TDH.MR.FINALIZE: a TD's key, life cycle and operation state. */
#include <linux/io.h>
#include <linux/pfn.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "softtdx.h"

struct td softtdx_tds[SOFTTDX_MAX_TDS];
u32 softtdx_nr_tds;

/* The Key Ownership Table: one entry per HKID. */
static struct {
	enum { KOT_FREE, KOT_ASSIGNED, KOT_FLUSHED } state;
	bool cache_dirty;	/* WBINVD_BITMAP of the only package */
} kot[SOFTTDX_MAX_HKIDS];

/* TD_PARAMS, the parts that are checked (ABI specification, TD_PARAMS). */
struct td_params {
	__le64 attributes;
	__le64 xfam;
	__le16 max_vcpus;
	u8 reserved[6];
	__le64 eptp_controls;
	__le64 config_flags;
} __packed;

#define EPTP_PWL_SHIFT		3	/* page walk length minus 1 */
#define EPTP_PWL_MASK		7
#define CONFIG_FLAGS_GPAW	BIT_ULL(0)

void td_reset(void)
{
	int i;

	for (i = 0; i < SOFTTDX_MAX_TDS; i++)
		if (softtdx_tds[i].used)
			sept_destroy(&softtdx_tds[i]);
	memset(softtdx_tds, 0, sizeof(softtdx_tds));
	memset(kot, 0, sizeof(kot));
	softtdx_nr_tds = 0;
}

/* check_lock_and_map_explicit_tdr (src/common/helpers). */
u64 td_check_tdr(u64 pa, u32 operand, struct td **td)
{
	struct pamt_entry *page;
	u64 status;

	status = pamt_check(pa, operand, PAMT_TDR, &page);
	if (!status)
		*td = pamt_owner(page);
	return status;
}

/* seamcall_state_lookup (include/auto_gen/op_state_lookup.c), as far as used. */
static bool op_state_allows(enum op_state state, u16 leaf)
{
	switch (leaf) {
	case LEAF_MNG_ADDCX:
	case LEAF_MNG_INIT:
		return state == OP_UNINITIALIZED;
	case LEAF_MEM_PAGE_ADD:
	case LEAF_VP_ADDCX:
	case LEAF_VP_CREATE:
	case LEAF_VP_INIT:
	case LEAF_MR_EXTEND:
	case LEAF_MR_FINALIZE:
		return state == OP_INITIALIZED;
	case LEAF_VP_ENTER:
		return state == OP_RUNNABLE;
	}
	return state != OP_UNINITIALIZED;
}

/* check_state_map_tdcs_and_lock (src/common/helpers). */
u64 td_check_state(struct td *td, u16 leaf)
{
	if (td->fatal)
		return ST_TD_FATAL;
	if (td->lifecycle != TD_KEYS_CONFIGURED)
		return ST_TD_KEYS_NOT_CONFIGURED;
	if (td->num_tdcx < SOFTTDX_TDCS_PAGES)
		return ST_TDCS_NOT_ALLOCATED;
	if (!op_state_allows(td->op_state, leaf))
		return ST_OP_STATE_INCORRECT;
	return ST_SUCCESS;
}

struct td *td_by_hkid(u16 hkid)
{
	int i;

	for (i = 0; i < SOFTTDX_MAX_TDS; i++)
		if (softtdx_tds[i].used && softtdx_tds[i].hkid == hkid)
			return &softtdx_tds[i];
	return NULL;
}

bool td_any_flushed(void)
{
	int i;

	for (i = 0; i < SOFTTDX_MAX_HKIDS; i++)
		if (kot[i].state == KOT_FLUSHED)
			return true;
	return false;
}

void td_cache_written_back(void)
{
	int i;

	for (i = 0; i < SOFTTDX_MAX_HKIDS; i++)
		if (kot[i].state == KOT_FLUSHED)
			kot[i].cache_dirty = false;
}

/* tdh_mng_create.c */
u64 mng_create(struct seamcall *call)
{
	struct pamt_entry *page;
	struct td *td = NULL;
	u64 status;
	int i;

	if (!call->rdx || call->rdx >= SOFTTDX_MAX_HKIDS)
		return ST_OPERAND_INVALID | OP_RDX;
	status = pamt_check(call->rcx, OP_RCX, PAMT_NDA, &page);
	if (status)
		return status;
	if (kot[call->rdx].state != KOT_FREE)
		return ST_HKID_NOT_FREE;
	for (i = 0; i < SOFTTDX_MAX_TDS && !td; i++)
		if (!softtdx_tds[i].used)
			td = &softtdx_tds[i];
	if (!td)	/* as many TDs as HKIDs: some torn down but not reclaimed */
		return ST_OPERAND_BUSY | OP_RCX;

	memset(td, 0, sizeof(*td));
	for (i = 0; i < SOFTTDX_SEPT_LEVELS; i++)
		xa_init(&td->sept[i]);
	td->used = true;
	td->seq = ++softtdx_nr_tds;
	td->tgid = current->tgid;
	td->tdr = call->rcx;
	td->hkid = call->rdx;
	td->lifecycle = TD_HKID_ASSIGNED;
	kot[td->hkid].state = KOT_ASSIGNED;
	pamt_give(td->tdr, PAMT_TDR, td, 0, 0);
	return ST_SUCCESS;
}

/* tdh_mng_key_config.c; one package. */
u64 mng_key_config(struct seamcall *call)
{
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rcx, OP_RCX, &td);
	if (status)
		return status;
	if (td->fatal)
		return ST_TD_FATAL;
	if (td->lifecycle != TD_HKID_ASSIGNED)
		return ST_LIFECYCLE_STATE_INCORRECT;
	td->lifecycle = TD_KEYS_CONFIGURED;
	return ST_SUCCESS;
}

/* tdh_mng_add_cx.c */
u64 mng_addcx(struct seamcall *call)
{
	struct pamt_entry *page;
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rdx, OP_RDX, &td);
	if (status)
		return status;
	if (td->fatal)
		return ST_TD_FATAL;
	if (td->lifecycle != TD_KEYS_CONFIGURED)
		return ST_TD_KEYS_NOT_CONFIGURED;
	if (td->num_tdcx >= SOFTTDX_TDCS_PAGES)
		return ST_TDCX_NUM_INCORRECT;
	status = pamt_check(call->rcx, OP_RCX, PAMT_NDA, &page);
	if (status)
		return status;
	pamt_give(call->rcx, PAMT_TDCX, td, 0, 0);
	td->num_tdcx++;
	return ST_SUCCESS;
}

/* tdh_mng_init.c, the checks on what this module knows of TD_PARAMS. */
u64 mng_init(struct seamcall *call)
{
	u64 params_pa = call->rdx, status, flags, pwl;
	const struct td_params *params;
	struct td *td;

	call->rdx = 0;
	status = td_check_tdr(call->rcx, OP_RCX, &td);
	call->rcx = 0;
	if (status)
		return status;
	status = td_check_state(td, LEAF_MNG_INIT);
	if (status)
		return status;
	if (!IS_ALIGNED(params_pa, 1024) || !pamt_of(PHYS_PFN(params_pa)))
		return ST_OPERAND_INVALID | OP_RDX;

	params = phys_to_virt(params_pa);
	status = sys_check_td_params(le64_to_cpu(params->attributes),
				     le64_to_cpu(params->xfam));
	if (status)
		return status;
	td->max_vcpus = le16_to_cpu(params->max_vcpus);
	if (!td->max_vcpus)
		return ST_OPERAND_INVALID | OP_MAX_VCPUS;
	flags = le64_to_cpu(params->config_flags);
	pwl = le64_to_cpu(params->eptp_controls) >> EPTP_PWL_SHIFT & EPTP_PWL_MASK;
	td->sept_levels = pwl + 1 >= SOFTTDX_SEPT_LEVELS ? 5 : 4;
	td->gpaw = flags & CONFIG_FLAGS_GPAW ? 52 : 48;
	td->op_state = OP_INITIALIZED;
	return ST_SUCCESS;
}

/* tdh_mng_rd_wr.c: every field reads as zero; KVM wants CPUID values only. */
u64 mng_rd(struct seamcall *call)
{
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rcx, OP_RCX, &td);
	call->r8 = 0;
	if (status)
		return status;
	return td_check_state(td, LEAF_MNG_RD);
}

/* tdh_mr_finalize.c */
u64 mr_finalize(struct seamcall *call)
{
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rcx, OP_RCX, &td);
	if (status)
		return status;
	status = td_check_state(td, LEAF_MR_FINALIZE);
	if (status)
		return status;
	if (!td->num_vcpus)
		return ST_NO_VCPUS;
	td->op_state = OP_RUNNABLE;
	return ST_SUCCESS;
}

/* tdh_mng_vpflushdone.c */
u64 mng_vpflushdone(struct seamcall *call)
{
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rcx, OP_RCX, &td);
	if (status)
		return status;
	if (td->lifecycle != TD_KEYS_CONFIGURED && td->lifecycle != TD_HKID_ASSIGNED)
		return ST_LIFECYCLE_STATE_INCORRECT;
	if (td->num_assoc_vcpus)
		return ST_FLUSHVP_NOT_DONE;
	kot[td->hkid].state = KOT_FLUSHED;
	kot[td->hkid].cache_dirty = true;
	td->lifecycle = TD_BLOCKED;
	return ST_SUCCESS;
}

/* tdh_mng_key_freeid.c */
u64 mng_key_freeid(struct seamcall *call)
{
	struct td *td;
	u64 status;

	status = td_check_tdr(call->rcx, OP_RCX, &td);
	if (status)
		return status;
	if (td->lifecycle != TD_BLOCKED)
		return ST_LIFECYCLE_STATE_INCORRECT;
	if (kot[td->hkid].cache_dirty)
		return ST_WBCACHE_NOT_COMPLETE;
	kot[td->hkid].state = KOT_FREE;
	td->lifecycle = TD_TEARDOWN;
	return ST_SUCCESS;
}
