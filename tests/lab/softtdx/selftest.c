// SPDX-License-Identifier: GPL-2.0
/*
 * The module against its own specification: the life of a TD on pages of this
 * kernel, each step with the status that the ABI gives. It resets the module
 * before and after, and issues the calls directly, without #UD.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/pfn.h>
#include <linux/slab.h>

#include "softtdx.h"

#define GPA		0x100000000ULL
#define NR_PAGES	24
#define TEST_HKID	40

struct test {
	struct seq_file *m;
	u64 pa[NR_PAGES];
	int used;
	int failed, passed;
	struct seamcall call;	/* the last one, as it came back */
};

static u64 run(struct test *t, u16 leaf, u64 rcx, u64 rdx, u64 r8, u64 r9)
{
	unsigned long flags;
	u64 status;

	t->call = (struct seamcall) { .rax = leaf, .rcx = rcx, .rdx = rdx,
				      .r8 = r8, .r9 = r9 };
	raw_spin_lock_irqsave(&softtdx_lock, flags);
	status = softtdx_execute(&t->call);
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	return status;
}

static void expect(struct test *t, const char *what, u64 got, u64 want)
{
	if (got == want) {
		t->passed++;
		return;
	}
	t->failed++;
	seq_printf(t->m, "FAIL %s: %#llx instead of %#llx\n", what, got, want);
}

/* All tests call their struct test "t". */
#define CALL(leaf, rcx, rdx, r8, r9, want)				\
	expect(t, #leaf " line " __stringify(__LINE__),			\
	       run(t, LEAF_##leaf, rcx, rdx, r8, r9), want)

#define E1(want) expect(t, "RCX line " __stringify(__LINE__), t->call.rcx, want)
#define E2(want) expect(t, "RDX line " __stringify(__LINE__), t->call.rdx, want)

static u64 page(struct test *t)
{
	return t->pa[t->used++];
}

static void test_create(struct test *t, u64 tdr, u64 params)
{
	u64 spare = page(t);
	int i;

	CALL(MNG_CREATE, tdr, 0, 0, 0, ST_OPERAND_INVALID | OP_RDX);
	CALL(MNG_CREATE, tdr + 8, TEST_HKID, 0, 0, ST_OPERAND_INVALID | OP_RCX);
	CALL(MNG_CREATE, tdr, TEST_HKID, 0, 0, ST_SUCCESS);
	CALL(MNG_CREATE, tdr, TEST_HKID, 0, 0, ST_PAGE_METADATA_INCORRECT | OP_RCX);
	CALL(MNG_CREATE, spare, TEST_HKID, 0, 0, ST_HKID_NOT_FREE);
	CALL(MNG_ADDCX, spare, tdr, 0, 0, ST_TD_KEYS_NOT_CONFIGURED);
	CALL(MNG_KEY_CONFIG, tdr, 0, 0, 0, ST_SUCCESS);
	CALL(MNG_KEY_CONFIG, tdr, 0, 0, 0, ST_LIFECYCLE_STATE_INCORRECT);
	CALL(MNG_INIT, tdr, params, 0, 0, ST_TDCS_NOT_ALLOCATED);
	CALL(MNG_ADDCX, spare, spare, 0, 0, ST_PAGE_METADATA_INCORRECT | OP_RDX);
	CALL(MNG_ADDCX, spare, tdr, 0, 0, ST_SUCCESS);
	for (i = 1; i < SOFTTDX_TDCS_PAGES; i++)
		CALL(MNG_ADDCX, page(t), tdr, 0, 0, ST_SUCCESS);
	CALL(MEM_TRACK, tdr, 0, 0, 0, ST_OP_STATE_INCORRECT);
	CALL(MNG_INIT, tdr, params, 0, 0, ST_SUCCESS);
	CALL(MNG_INIT, tdr, params, 0, 0, ST_OP_STATE_INCORRECT);
	CALL(MR_FINALIZE, tdr, 0, 0, 0, ST_NO_VCPUS);
}

static u64 test_vcpu(struct test *t, u64 tdr)
{
	u64 tdvpr = page(t);
	int i;

	CALL(VP_CREATE, tdvpr, tdr, 0, 0, ST_SUCCESS);
	CALL(VP_INIT, tdvpr, 0, 0, 0, ST_TDCX_NUM_INCORRECT);
	for (i = 1; i < SOFTTDX_TDVPS_PAGES; i++)
		CALL(VP_ADDCX, page(t), tdvpr, 0, 0, ST_SUCCESS);
	CALL(VP_INIT, tdvpr, 0, 0, 0, ST_SUCCESS);
	CALL(VP_INIT, tdvpr, 0, 0, 0, ST_VCPU_STATE_INCORRECT);
	CALL(VP_ENTER, tdvpr, 0, 0, 0, ST_OP_STATE_INCORRECT);
	return tdvpr;
}

static void test_memory(struct test *t, u64 tdr)
{
	u64 leaf = page(t), other = page(t);

	/* The walk ends at the root's entry: level 3, free. */
	CALL(MEM_PAGE_ADD, GPA, tdr, leaf, other, ST_EPT_WALK_FAILED | OP_RCX);
	E1(BIT_ULL(63));
	E2(3);
	CALL(MEM_SEPT_ADD, GPA | 3, tdr, leaf, 0, ST_OPERAND_INVALID | OP_RCX);
	CALL(MEM_SEPT_ADD, 0 | 3, tdr, page(t), 0, ST_SUCCESS);
	CALL(MEM_SEPT_ADD, 0 | 3, tdr, leaf, 0, ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX);
	E2(3 | SEPT_NL_MAPPED << 8);
	CALL(MEM_SEPT_ADD, GPA | 2, tdr, page(t), 0, ST_SUCCESS);
	CALL(MEM_SEPT_ADD, GPA | 1, tdr, page(t), 0, ST_SUCCESS);
	CALL(MEM_RANGE_BLOCK, GPA, tdr, 0, 0, ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX);
	E2(0);
	CALL(MEM_PAGE_ADD, GPA, tdr, tdr, other, ST_PAGE_METADATA_INCORRECT | OP_R8);
	CALL(MEM_PAGE_ADD, GPA, tdr, leaf, other, ST_SUCCESS);
	CALL(MEM_PAGE_ADD, GPA, tdr, other, other,
	     ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX);
	E2(SEPT_MAPPED << 8);
	CALL(MR_EXTEND, GPA + 256, tdr, 0, 0, ST_SUCCESS);
	CALL(MR_FINALIZE, tdr, 0, 0, 0, ST_SUCCESS);
	CALL(MEM_PAGE_ADD, GPA + PAGE_SIZE, tdr, other, other, ST_OP_STATE_INCORRECT);
	CALL(MEM_PAGE_AUG, GPA + PAGE_SIZE, tdr, leaf, 0,
	     ST_PAGE_METADATA_INCORRECT | OP_R8);
	CALL(MEM_PAGE_AUG, GPA + PAGE_SIZE, tdr, other, 0, ST_SUCCESS);
	CALL(MEM_PAGE_AUG, GPA + PAGE_SIZE, tdr, other, 0,
	     ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX);
	E2(SEPT_PENDING << 8);

	/* BLOCK, TRACK, REMOVE, WBINVD, each refused before the one before. */
	CALL(MEM_PAGE_REMOVE, GPA, tdr, 0, 0, ST_GPA_RANGE_NOT_BLOCKED | OP_RCX);
	CALL(PHYMEM_PAGE_WBINVD, leaf, 0, 0, 0, ST_PAGE_METADATA_INCORRECT | OP_RCX);
	CALL(MEM_RANGE_BLOCK, GPA, tdr, 0, 0, ST_SUCCESS);
	CALL(MEM_RANGE_BLOCK, GPA, tdr, 0, 0, ST_GPA_RANGE_ALREADY_BLOCKED | OP_RCX);
	E2(SEPT_BLOCKED << 8);
	CALL(MEM_PAGE_REMOVE, GPA, tdr, 0, 0, ST_TLB_TRACKING_NOT_DONE | OP_RCX);
	CALL(MEM_RANGE_UNBLOCK, GPA, tdr, 0, 0, ST_TLB_TRACKING_NOT_DONE | OP_RCX);
	CALL(MEM_TRACK, tdr, 0, 0, 0, ST_SUCCESS);
	CALL(MEM_PAGE_REMOVE, GPA, tdr, 0, 0, ST_SUCCESS);
	E1(leaf);
	CALL(MEM_PAGE_REMOVE, GPA, tdr, 0, 0, ST_EPT_ENTRY_STATE_INCORRECT | OP_RCX);
	CALL(PHYMEM_PAGE_WBINVD, leaf, 0, 0, 0, ST_SUCCESS);
	CALL(PHYMEM_PAGE_RECLAIM, other, 0, 0, 0, ST_LIFECYCLE_STATE_INCORRECT);
	E1(PAMT_REG);
	E2(tdr);
}

static void test_teardown(struct test *t, u64 tdr, u64 tdvpr)
{
	int i;

	CALL(MNG_KEY_FREEID, tdr, 0, 0, 0, ST_LIFECYCLE_STATE_INCORRECT);
	CALL(MNG_VPFLUSHDONE, tdr, 0, 0, 0, ST_FLUSHVP_NOT_DONE);
	CALL(VP_FLUSH, tdvpr, 0, 0, 0, ST_SUCCESS);
	CALL(VP_FLUSH, tdvpr, 0, 0, 0, ST_VCPU_NOT_ASSOCIATED);
	CALL(MNG_VPFLUSHDONE, tdr, 0, 0, 0, ST_SUCCESS);
	CALL(MEM_RANGE_BLOCK, GPA + PAGE_SIZE, tdr, 0, 0, ST_TD_KEYS_NOT_CONFIGURED);
	CALL(MNG_KEY_FREEID, tdr, 0, 0, 0, ST_WBCACHE_NOT_COMPLETE);
	CALL(PHYMEM_CACHE_WB, 0, 0, 0, 0, ST_SUCCESS);
	CALL(MNG_KEY_FREEID, tdr, 0, 0, 0, ST_SUCCESS);
	CALL(PHYMEM_PAGE_RECLAIM, tdr, 0, 0, 0, ST_TD_ASSOCIATED_PAGES_EXIST);
	for (i = 0; i < t->used; i++)
		if (t->pa[i] != tdr && pamt_of(PHYS_PFN(t->pa[i]))->pt != PAMT_NDA)
			CALL(PHYMEM_PAGE_RECLAIM, t->pa[i], 0, 0, 0, ST_SUCCESS);
	CALL(PHYMEM_PAGE_RECLAIM, tdr, 0, 0, 0, ST_SUCCESS);
	CALL(PHYMEM_PAGE_RECLAIM, tdr, 0, 0, 0, ST_PAGE_METADATA_INCORRECT | OP_RCX);
	for (i = 0; i < t->used; i++)
		expect(t, "free at the end", pamt_of(PHYS_PFN(t->pa[i]))->pt, PAMT_NDA);
}

/* TD_PARAMS of the smallest TD: XFAM 3, one VCPU, walk of four levels. */
static void fill_params(u64 *params)
{
	params[1] = 3;
	params[2] = 1;
	params[3] = 6 | 3 << 3;
}

void selftest_run(struct seq_file *m)
{
	struct test *t = kzalloc(sizeof(*t), GFP_KERNEL);
	u64 tdr, params, tdvpr;
	int i, got;

	if (!t)
		return;
	t->m = m;
	softtdx_reset();
	for (got = 0; got < NR_PAGES; got++) {
		void *virt = (void *)get_zeroed_page(GFP_KERNEL);

		if (!virt)
			break;
		t->pa[got] = virt_to_phys(virt);
	}
	if (got == NR_PAGES) {
		preempt_disable();
		tdr = page(t);
		params = page(t);
		fill_params(phys_to_virt(params));
		test_create(t, tdr, params);
		tdvpr = test_vcpu(t, tdr);
		test_memory(t, tdr);
		test_teardown(t, tdr, tdvpr);
		preempt_enable();
	}
	softtdx_reset();
	for (i = 0; i < got; i++)
		free_page((unsigned long)phys_to_virt(t->pa[i]));
	seq_printf(m, "%s %d passed, %d failed\n",
		   got == NR_PAGES && !t->failed ? "ok" : "FAIL", t->passed, t->failed);
	kfree(t);
}
