// SPDX-License-Identifier: GPL-2.0
/* TDH.SYS.*: the module's own life, and its metadata. */
#include <linux/cpumask.h>
#include <linux/smp.h>

#include "softtdx.h"

static enum {
	SYS_INIT_PENDING,
	SYS_INIT_DONE,
	SYS_CONFIG_DONE,
	SYS_READY,
	SYS_DOWN,
} sys_state;

static cpumask_t sys_lps;	/* CPUs that did TDH.SYS.LP.INIT */

#define TDX_FEATURES0_NO_RBP_MOD	BIT_ULL(18)
#define TDX_FEATURES0_20		BIT_ULL(20)

#define ATTRIBUTES_FIXED0	BIT_ULL(28)	/* may be set: SEPT_VE_DISABLE */
#define ATTRIBUTES_FIXED1	0ULL		/* must be set */
#define XFAM_FIXED0		0x602e7ULL
#define XFAM_FIXED1		3ULL

/*
 * The fields that Linux 6.17 to 7.3 read: arch/x86/virt/vmx/tdx/
 * tdx_global_metadata.c. One CPUID leaf is configurable, 0x80000008, which
 * KVM requires for GUEST_PHYSADDR_BITS.
 */
static const struct {
	u64 field, value;
} sys_fields[] = {
	{ 0x0800000100000003, 5 },			/* MINOR_VERSION */
	{ 0x0800000100000004, 1 },			/* MAJOR_VERSION */
	{ 0x0800000100000005, 1 },			/* UPDATE_VERSION */
	{ 0x8900000100000000, 0 },			/* MODULE_HV */
	{ 0x0A00000300000008, TDX_FEATURES0_NO_RBP_MOD | TDX_FEATURES0_20 },
	{ 0x9100000100000008, 64 },			/* MAX_TDMRS */
	{ 0x9100000100000009, 16 },			/* MAX_RESERVED_PER_TDMR */
	{ 0x9100000100000010, 16 },			/* PAMT_4K_ENTRY_SIZE */
	{ 0x9100000100000011, 16 },			/* PAMT_2M_ENTRY_SIZE */
	{ 0x9100000100000012, 16 },			/* PAMT_1G_ENTRY_SIZE */
	{ 0x9800000100000000, PAGE_SIZE },		/* TDR_BASE_SIZE */
	{ 0x9800000100000100, PAGE_SIZE * SOFTTDX_TDCS_PAGES },
	{ 0x9800000100000200, PAGE_SIZE * SOFTTDX_TDVPS_PAGES },
	{ 0x1900000300000000, ATTRIBUTES_FIXED0 },
	{ 0x1900000300000001, ATTRIBUTES_FIXED1 },
	{ 0x1900000300000002, XFAM_FIXED0 },
	{ 0x1900000300000003, XFAM_FIXED1 },
	{ 0x9900000100000004, 1 },			/* NUM_CPUID_CONFIG */
	{ 0x9900000100000008, 576 },			/* MAX_VCPUS_PER_TD */
	{ 0x9900000300000400, 0xffffffff80000008 },	/* CPUID_CONFIG_LEAVES */
	{ 0x9900000300000500, ~0ULL },			/* CPUID_CONFIG_VALUES */
	{ 0x9900000300000501, ~0ULL },
};

u64 sys_check_td_params(u64 attributes, u64 xfam)
{
	if (attributes & ~ATTRIBUTES_FIXED0 ||
	    (attributes & ATTRIBUTES_FIXED1) != ATTRIBUTES_FIXED1)
		return ST_OPERAND_INVALID | OP_ATTRIBUTES;
	if (xfam & ~XFAM_FIXED0 || (xfam & XFAM_FIXED1) != XFAM_FIXED1)
		return ST_OPERAND_INVALID | OP_XFAM;
	return ST_SUCCESS;
}

/* tdh_sys_init.c */
u64 sys_init(struct seamcall *call)
{
	if (sys_state != SYS_INIT_PENDING)
		return ST_SYS_INIT_NOT_PENDING;
	sys_state = SYS_INIT_DONE;
	return ST_SUCCESS;
}

/* tdh_sys_lp_init.c */
u64 sys_lp_init(struct seamcall *call)
{
	if (sys_state == SYS_INIT_PENDING || sys_state == SYS_DOWN)
		return ST_SYS_NOT_READY;
	if (cpumask_test_and_set_cpu(raw_smp_processor_id(), &sys_lps))
		return ST_SYS_LP_INIT_DONE;
	return ST_SUCCESS;
}

/* tdh_sys_rd.c: RDX is the field; R8 its value, RDX the next field or all ones. */
u64 sys_rd(struct seamcall *call)
{
	u64 field = call->rdx;
	int i;

	call->rdx = ~0ULL;
	call->r8 = 0;
	if (!cpumask_test_cpu(raw_smp_processor_id(), &sys_lps))
		return ST_SYS_LP_INIT_NOT_DONE;
	for (i = 0; i < ARRAY_SIZE(sys_fields); i++) {
		if (sys_fields[i].field != field)
			continue;
		call->r8 = sys_fields[i].value;
		return ST_SUCCESS;
	}
	pr_info("no metadata field %#llx\n", field);
	return ST_METADATA_FIELD_ID_INCORRECT | OP_RDX;
}

/* tdh_sys_config.c; the TDMRs are taken as they come, see pamt.c. */
u64 sys_config(struct seamcall *call)
{
	if (sys_state != SYS_INIT_DONE)
		return ST_SYS_CONFIG_NOT_PENDING;
	sys_state = SYS_CONFIG_DONE;
	pr_info("%llu TDMRs, global HKID %llu\n", call->rdx, call->r8);
	return ST_SUCCESS;
}

/* tdh_sys_key_config.c; one package. */
u64 sys_key_config(struct seamcall *call)
{
	if (sys_state != SYS_CONFIG_DONE)
		return ST_SYS_KEY_CONFIG_NOT_PENDING;
	sys_state = SYS_READY;
	return ST_SUCCESS;
}

/* tdh_sys_tdmr_init.c: RDX is the next address; all is initialised at once. */
u64 sys_tdmr_init(struct seamcall *call)
{
	if (sys_state != SYS_READY)
		return ST_SYS_NOT_READY;
	call->rdx = ~0ULL;
	return ST_SUCCESS;
}

u64 sys_shutdown(struct seamcall *call)
{
	if (sys_state != SYS_READY)
		return ST_SYS_NOT_READY;
	sys_state = SYS_DOWN;
	return ST_SUCCESS;
}

u64 sys_disable(struct seamcall *call)
{
	sys_state = SYS_DOWN;
	return ST_SUCCESS;
}

u64 sys_check_ready(void)
{
	if (sys_state == SYS_DOWN)
		return ST_SYS_SHUTDOWN;
	if (sys_state != SYS_READY)
		return ST_SYS_NOT_READY;
	if (!cpumask_test_cpu(raw_smp_processor_id(), &sys_lps))
		return ST_SYS_LP_INIT_NOT_DONE;
	return ST_SUCCESS;
}
