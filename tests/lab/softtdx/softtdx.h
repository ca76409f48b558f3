/* SPDX-License-Identifier: GPL-2.0 */
/*
 * softtdx: a TDX module in software, for a lab without TDX hardware.
 *
 * It answers SEAMCALL from the #UD die notifier, so that the kernel's TDX code
 * and KVM run unchanged. The checks, their order and the statuses are those of
 * the TDX module; where a comment names a file, it is one of the published
 * module (intel/tdx-module, src/vmm_dispatcher/api_calls unless said
 * otherwise), read for facts. What it leaves out: memory contents, encryption,
 * measurement, migration, L2 VMs, TDX Connect, and contention. OPERAND_BUSY
 * comes from the fault injection only, because one lock serialises all calls.
 */
#ifndef SOFTTDX_H
#define SOFTTDX_H

#include <linux/pgtable.h>
#include <linux/ptrace.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/xarray.h>

#include "status.h"

#undef pr_fmt
#define pr_fmt(fmt) "softtdx: " fmt

#define SOFTTDX_MAX_TDS		64
#define SOFTTDX_MAX_HKIDS	256	/* KVM keeps one for each TD whose end fails */
#define SOFTTDX_TDCS_PAGES	4	/* SYS.RD TDCS_BASE_SIZE */
#define SOFTTDX_TDVPS_PAGES	6	/* SYS.RD TDVPS_BASE_SIZE */
#define SOFTTDX_SEPT_LEVELS	5	/* 0 is the 4 KiB entry */

enum lifecycle {
	TD_HKID_ASSIGNED,
	TD_KEYS_CONFIGURED,
	TD_BLOCKED,
	TD_TEARDOWN,
};

enum op_state {
	OP_UNINITIALIZED,
	OP_INITIALIZED,
	OP_RUNNABLE,
};

/* One scripted TD exit: what TDH.VP.ENTER returns. */
struct vp_exit {
	u64 rax, rcx, rdx, r8, r10, r11, r12, r13, r14;
	u64 accept;		/* gpa | 1: the guest accepts this page first */
};

#define SOFTTDX_SCRIPT_LEN	64

struct td {
	bool used;
	bool fatal;
	u32 seq;		/* number of the TD since the last reset */
	pid_t tgid;		/* who created it */
	u64 tdr;		/* physical address */
	u16 hkid;
	enum lifecycle lifecycle;
	enum op_state op_state;
	u8 num_tdcx;
	u8 sept_levels;		/* 4 or 5, from EPTP_CONTROLS */
	u8 gpaw;		/* 48 or 52: bit gpaw-1 is the SHARED bit */
	u16 max_vcpus;
	u32 num_vcpus;
	u32 num_assoc_vcpus;
	s64 chldcnt;		/* pages that this TD owns, but for the TDR */
	u64 epoch;
	struct xarray sept[SOFTTDX_SEPT_LEVELS];
	struct vp_exit script[SOFTTDX_SCRIPT_LEN];
	u32 script_head, script_tail;
};

/* A page's line. What it was is kept after it is given back, for the rules. */
struct pamt_entry {
	u8 pt;			/* enum softtdx_pt */
	u8 level;
	u8 td;			/* index into softtdx_tds */
	u8 num_tdvps;		/* TDVPR: pages of the TDVPS so far */
	u8 vcpu_init;		/* TDVPR: TDH.VP.INIT is done */
	s16 assoc_cpu;		/* TDVPR: CPU it is associated with, or -1 */
	bool unflushed;		/* taken out, not yet written back to memory */
	u64 bepoch;
	u64 gpa;		/* REG: page; EPT: start of the range */
};

/* One SEAMCALL: inputs, outputs, and what the rules made of it. */
struct seamcall {
	u64 rax, rcx, rdx, r8, r9;
	struct pt_regs *regs;	/* TDH.VP.ENTER returns through these */
};

extern raw_spinlock_t softtdx_lock;
extern struct td softtdx_tds[SOFTTDX_MAX_TDS];
extern u32 softtdx_nr_tds;

/* dispatch.c */
u64 softtdx_execute(struct seamcall *call);
const char *softtdx_leaf_name(u16 leaf);
int softtdx_leaf_parse(const char *name);
void softtdx_reset(void);

/* sys.c */
u64 sys_init(struct seamcall *call);
u64 sys_lp_init(struct seamcall *call);
u64 sys_rd(struct seamcall *call);
u64 sys_config(struct seamcall *call);
u64 sys_key_config(struct seamcall *call);
u64 sys_tdmr_init(struct seamcall *call);
u64 sys_shutdown(struct seamcall *call);
u64 sys_disable(struct seamcall *call);
u64 sys_check_ready(void);
u64 sys_check_td_params(u64 attributes, u64 xfam);

/* pamt.c */
int pamt_alloc(void);
void pamt_reset(void);
unsigned long pamt_nr_pages(void);
struct pamt_entry *pamt_of(unsigned long pfn);
u64 pamt_check(u64 pa, u32 operand, u8 pt, struct pamt_entry **entry);
u64 pamt_check_free_range(u64 pa, u32 operand, u8 level);
void pamt_give(u64 pa, u8 pt, struct td *td, u64 gpa, u8 level);
void pamt_take_back(u64 pa, u8 level);
struct td *pamt_owner(const struct pamt_entry *entry);
const char *pamt_type_name(u8 pt);

/* sept.c */
struct sept_entry {
	unsigned long pfn;
	u8 state;		/* enum softtdx_sept_state */
	u8 level;		/* level at which a walk ended */
};

u64 sept_walk(struct td *td, u64 gpa, u8 level, struct sept_entry *entry);
u64 sept_store(struct td *td, u64 gpa, u8 level, unsigned long pfn, u8 state);
void sept_details(struct seamcall *call, const struct sept_entry *entry);
bool sept_is_leaf(u8 state);
bool sept_is_blocked(u8 state);
void sept_destroy(struct td *td);
const char *sept_state_name(u8 state);
u8 sept_state_of(const struct pamt_entry *entry);

/* mem.c */
u64 mem_sept_add(struct seamcall *call);
u64 mem_page_add(struct seamcall *call);
u64 mem_page_aug(struct seamcall *call);
u64 mem_range_block(struct seamcall *call);
u64 mem_range_unblock(struct seamcall *call);
u64 mem_track(struct seamcall *call);
u64 mem_page_remove(struct seamcall *call);
u64 mr_extend(struct seamcall *call);

/* phymem.c */
u64 phymem_page_reclaim(struct seamcall *call);
u64 phymem_page_wbinvd(struct seamcall *call);
u64 phymem_page_rdmd(struct seamcall *call);
u64 phymem_cache_wb(struct seamcall *call);

/* td.c */
u64 mng_create(struct seamcall *call);
u64 mng_key_config(struct seamcall *call);
u64 mng_addcx(struct seamcall *call);
u64 mng_init(struct seamcall *call);
u64 mng_rd(struct seamcall *call);
u64 mr_finalize(struct seamcall *call);
u64 mng_vpflushdone(struct seamcall *call);
u64 mng_key_freeid(struct seamcall *call);
u64 td_check_tdr(u64 pa, u32 operand, struct td **td);
u64 td_check_state(struct td *td, u16 leaf);
struct td *td_by_hkid(u16 hkid);
void td_cache_written_back(void);
bool td_any_flushed(void);
void td_reset(void);

/* vcpu.c */
u64 vp_create(struct seamcall *call);
u64 vp_addcx(struct seamcall *call);
u64 vp_init(struct seamcall *call);
u64 vp_flush(struct seamcall *call);
u64 vp_rd(struct seamcall *call);
u64 vp_wr(struct seamcall *call);
u64 vp_enter(struct seamcall *call);

/* script.c */
int script_add(char *line);
struct vp_exit script_next(struct td *td);

/* inject.c */
enum lie {
	LIE_NONE,
	LIE_NOTHING,		/* says success and does nothing */
	LIE_ELSEWHERE,		/* says success and does it to the next page */
	LIE_DENIES,		/* does it and says the rule's status */
};

struct verdict {
	int rule;		/* number of the rule that applied, or -1 */
	u64 status;
	enum lie lie;
};

int inject_add(char *line);
void inject_clear(void);
struct verdict inject_match(const struct seamcall *call);
void inject_details(struct seamcall *call, const struct seamcall *in, u64 status);
void inject_show_rules(struct seq_file *m);

/* truth.c */
int truth_init(void);
void truth_record(const struct seamcall *in, const struct seamcall *out,
		  u64 status, const struct verdict *v);
void truth_reset(void);
void truth_show_calls(struct seq_file *m);
void truth_show_frames(struct seq_file *m);
void truth_show_owned(struct seq_file *m);
void truth_show_state(struct seq_file *m);
void truth_show_watch(struct seq_file *m);
void truth_watch(u32 td);
void truth_given(unsigned long pfn, const struct td *td);

/* selftest.c */
void selftest_run(struct seq_file *m);

/* mirror.c */
int mirror_flip(char *line);

#endif /* SOFTTDX_H */
