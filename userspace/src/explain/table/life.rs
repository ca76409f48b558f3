//! A TD's own pages and keys, from MNG.CREATE to the last RECLAIM.

use septwatch_common::Leaf;

use super::{Answer, On, Outcome, Row};

const FOREIGN: &str = "the page already belongs to a TD: it was freed by the host while the module still owned it, and the \
                       allocator has just handed it out again. This VM is the innocent one";
const TDR_LOCK: &str = "another CPU holds the lock of the TD's root page, TDR";
const KOT_LOCK: &str = "another CPU holds the lock of the key ownership table";

const REUSED: &[&str] = &["reused-while-mapped", "map-failed", "vm-bugged"];
const NOT_TAKEN: &[&str] = &["map-failed", "vm-bugged"];
const LEAK: &[&str] = &["teardown-leak"];
const BUGGED_LEAK: &[&str] = &["vm-bugged", "teardown-leak"];

const CREATE: &str = "__tdx_td_init()";
const VCPU: &str = "tdx_td_vcpu_init()";
const RELEASE: &str = "tdx_mmu_release_hkid()";

/// One kind of failure, the same on all kernels.
const fn always(kvm: &'static str, may_follow: &'static [&'static str], source: &'static str) -> Outcome {
    Outcome { on: On::Failure, kernels: "", kvm, may_follow, source }
}

const fn when(
    status: &'static str,
    kvm: &'static str,
    may_follow: &'static [&'static str],
    source: &'static str,
) -> Outcome {
    Outcome { on: On::Status(status), kernels: "", kvm, may_follow, source }
}

const fn answer(status: &'static str, means: &'static str) -> Answer {
    Answer { status, means }
}

/// From creation until the TD can run.
pub(super) const BUILD: &[Row] = &[
    Row {
        leaf: Leaf::MngCreate,
        does: "makes a TD: gives the module its root page, TDR, and binds an HKID to it",
        answers: &[
            answer("OPERAND_BUSY|RCX", "another CPU holds the lock of the page's PAMT entry"),
            answer("OPERAND_BUSY|KOT", KOT_LOCK),
            answer("PAGE_METADATA_INCORRECT|RCX", FOREIGN),
            answer("HKID_NOT_FREE", "the HKID still belongs to a TD, one whose teardown failed perhaps"),
        ],
        outcomes: &[
            when("RND_NO_ENTROPY", "fails KVM_TDX_INIT_VM with -EAGAIN and frees the pages", &[], CREATE),
            when(
                "PAGE_METADATA_INCORRECT|RCX",
                "fails KVM_TDX_INIT_VM with -EIO and frees the pages",
                REUSED,
                CREATE,
            ),
            always("fails KVM_TDX_INIT_VM with -EIO and frees the pages", &["map-failed"], CREATE),
        ],
        handler: "tdh_mng_create.c",
    },
    Row {
        leaf: Leaf::MngKeyConfig,
        does: "makes the TD's key in the memory controllers of one package",
        answers: &[
            answer("OPERAND_BUSY|RCX", TDR_LOCK),
            answer(
                "KEY_CONFIGURED",
                "this package has the key already (not an error, but KVM takes it for one)",
            ),
            answer(
                "KEY_GENERATION_FAILED",
                "the hardware's random numbers ran out, or another PCONFIG is under way",
            ),
        ],
        outcomes: &[always(
            "marks the VM bugged and tears the TD down again",
            BUGGED_LEAK,
            "tdx_do_tdh_mng_key_config()",
        )],
        handler: "tdh_mng_key_config.c",
    },
    Row {
        leaf: Leaf::MngAddcx,
        does: "gives the TD a page for its control structure, TDCS",
        answers: &[
            answer("OPERAND_BUSY|RDX", TDR_LOCK),
            answer("OPERAND_BUSY|RCX", "another CPU holds the lock of the page's PAMT entry"),
            answer("PAGE_METADATA_INCORRECT|RCX", FOREIGN),
            answer("TDCX_NUM_INCORRECT", "the TD has all the control pages it can have"),
        ],
        outcomes: &[
            when("RND_NO_ENTROPY", "tears the TD down and fails KVM_TDX_INIT_VM with -EAGAIN", &[], CREATE),
            when(
                "PAGE_METADATA_INCORRECT|RCX",
                "tears the TD down; pages not yet added are freed",
                REUSED,
                CREATE,
            ),
            always("tears the TD down; pages not yet added are freed", NOT_TAKEN, CREATE),
        ],
        handler: "tdh_mng_add_cx.c",
    },
    Row {
        leaf: Leaf::MngInit,
        does: "sets the TD up from the parameters that the VMM gave",
        answers: &[
            answer("OPERAND_BUSY|RCX", TDR_LOCK),
            answer(
                "OPERAND_INVALID",
                "a parameter of the VMM is not possible on this module; the operand names which, RCX says more",
            ),
            answer("TDCX_NUM_INCORRECT", "the TD has not all of its control pages"),
        ],
        outcomes: &[
            when(
                "OPERAND_INVALID",
                "hands the status to the VMM with -EINVAL, no message, and tears the TD down",
                &[],
                CREATE,
            ),
            always("tears the TD down and fails KVM_TDX_INIT_VM with -EIO", BUGGED_LEAK, CREATE),
        ],
        handler: "tdh_mng_init.c",
    },
    Row {
        leaf: Leaf::VpCreate,
        does: "makes a vCPU: gives the TD its root page, TDVPR",
        answers: &[
            answer("OPERAND_BUSY|RCX", "another CPU holds the lock of the page's PAMT entry"),
            answer("OPERAND_BUSY|RDX", TDR_LOCK),
            answer("PAGE_METADATA_INCORRECT|RCX", FOREIGN),
        ],
        outcomes: &[
            when(
                "PAGE_METADATA_INCORRECT|RCX",
                "marks the VM bugged and frees the vCPU's pages",
                REUSED,
                VCPU,
            ),
            always("marks the VM bugged and frees the vCPU's pages", NOT_TAKEN, VCPU),
        ],
        handler: "tdh_vp_create.c",
    },
    Row {
        leaf: Leaf::VpAddcx,
        does: "gives a vCPU a page for its control structure, TDVPS",
        answers: &[
            answer("OPERAND_BUSY|RCX", "another CPU holds the lock of the page's PAMT entry"),
            answer("OPERAND_BUSY|RDX", "another CPU holds the lock of the vCPU's root page, TDVPR"),
            answer("PAGE_METADATA_INCORRECT|RCX", FOREIGN),
        ],
        outcomes: &[
            when(
                "PAGE_METADATA_INCORRECT|RCX",
                "marks the VM bugged and frees the pages not yet added",
                REUSED,
                VCPU,
            ),
            always("marks the VM bugged and frees the pages not yet added", NOT_TAKEN, VCPU),
        ],
        handler: "tdh_vp_addcx.c",
    },
    Row {
        leaf: Leaf::VpInit,
        does: "sets a vCPU up",
        answers: &[
            answer("OPERAND_BUSY|TDR", TDR_LOCK),
            answer("X2APIC_ID_NOT_UNIQUE", "two vCPUs of the TD were given one x2APIC id"),
            answer("MAX_VCPUS_EXCEEDED", "the TD has all the vCPUs that its parameters allow"),
        ],
        outcomes: &[always(
            "marks the VM bugged and fails KVM_TDX_INIT_VCPU with -EIO",
            &["vm-bugged"],
            VCPU,
        )],
        handler: "tdh_vp_init.c",
    },
    Row {
        leaf: Leaf::MrExtend,
        does: "measures 256 bytes of a page of the TD's initial memory; no page changes hands",
        answers: &[
            answer("OPERAND_BUSY|RDX", TDR_LOCK),
            answer("EPT_WALK_FAILED|RCX", "no page was added at this address"),
            answer(
                "EPT_ENTRY_STATE_INCORRECT|RCX",
                "no page was added at this address, or not as initial memory",
            ),
        ],
        outcomes: &[
            Outcome {
                on: On::Failure,
                kernels: "up to 6.18",
                kvm: "fails KVM_TDX_INIT_MEM_REGION with -EIO, without a message; the page stays mapped",
                may_follow: &[],
                source: "tdx_gmem_post_populate()",
            },
            Outcome {
                on: On::Failure,
                kernels: "from 6.19",
                kvm: "marks the VM bugged and fails KVM_TDX_INIT_MEM_REGION with -EIO; the page stays mapped",
                may_follow: &["vm-bugged"],
                source: "tdx_gmem_post_populate()",
            },
        ],
        handler: "tdh_mr_extend.c",
    },
    Row {
        leaf: Leaf::MrFinalize,
        does: "ends the TD's measurement: it can run from here on; no page changes hands",
        answers: &[
            answer("OPERAND_BUSY|RCX", TDR_LOCK),
            answer("NO_VCPUS", "the TD has no vCPU yet"),
            answer("OP_STATE_INCORRECT", "the TD is finalized already"),
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: "fails KVM_TDX_FINALIZE_VM with -EBUSY; the VMM may repeat it",
                may_follow: &[],
                source: "tdx_td_finalize()",
            },
            always(
                "marks the VM bugged and fails KVM_TDX_FINALIZE_VM with -EIO",
                &["vm-bugged"],
                "tdx_td_finalize()",
            ),
        ],
        handler: "tdh_mr_finalize.c",
    },
];

/// From the first flush to the last page.
pub(super) const TEARDOWN: &[Row] = &[
    Row {
        leaf: Leaf::VpFlush,
        does: "takes a vCPU off its CPU, before it moves or dies",
        answers: &[
            answer("OPERAND_BUSY|RCX", "another CPU uses this vCPU"),
            answer("VCPU_NOT_ASSOCIATED", "the vCPU is not on this CPU; KVM takes it for success"),
        ],
        outcomes: &[
            when("VCPU_NOT_ASSOCIATED", "takes it for success", &[], "tdx_flush_vp()"),
            always(
                "marks the VM bugged; VPFLUSHDONE will then answer FLUSHVP_NOT_DONE and the TD cannot be torn down",
                BUGGED_LEAK,
                "tdx_flush_vp_on_cpu()",
            ),
        ],
        handler: "tdh_vp_flush.c",
    },
    Row {
        leaf: Leaf::MngVpflushdone,
        does: "checks that no vCPU of the TD is on a CPU, and blocks the TD",
        answers: &[
            answer("OPERAND_BUSY|RCX", TDR_LOCK),
            answer("OPERAND_BUSY|KOT", KOT_LOCK),
            answer("FLUSHVP_NOT_DONE", "a vCPU of the TD is still on a CPU"),
        ],
        outcomes: &[
            when(
                "FLUSHVP_NOT_DONE",
                "gives up without a message; HKID, S-EPT and control pages are leaked",
                LEAK,
                RELEASE,
            ),
            always("marks the VM bugged; HKID, S-EPT and control pages are leaked", BUGGED_LEAK, RELEASE),
        ],
        handler: "tdh_mng_vpflushdone.c",
    },
    Row {
        leaf: Leaf::PhymemCacheWb,
        does: "writes back the caches of one package, for all HKIDs whose TDs are being torn down",
        answers: &[
            answer("INTERRUPTED_RESUMABLE", "an interrupt came; the call is to be continued"),
            answer("NO_HKID_READY_TO_WBCACHE", "nothing to do (not an error)"),
            answer("OPERAND_BUSY|WBCACHE", "another CPU of the package is doing it"),
            answer("OPERAND_BUSY|KOT", KOT_LOCK),
            answer("WBCACHE_RESUME_ERROR", "there was nothing to continue"),
        ],
        outcomes: &[
            when(
                "INTERRUPTED_RESUMABLE",
                "continues, up to 10,000 times",
                &[],
                "smp_func_do_phymem_cache_wb()",
            ),
            when("NO_HKID_READY_TO_WBCACHE", "takes it for success", &[], "smp_func_do_phymem_cache_wb()"),
            always(
                "warns and goes on; KEY.FREEID will then answer WBCACHE_NOT_COMPLETE",
                LEAK,
                "smp_func_do_phymem_cache_wb()",
            ),
        ],
        handler: "tdh_phymem_cache_wb.c",
    },
    Row {
        leaf: Leaf::MngKeyFreeid,
        does: "ends the TD's use of its HKID; from here on its pages can be reclaimed",
        answers: &[
            answer("OPERAND_BUSY|RCX", TDR_LOCK),
            answer("OPERAND_BUSY|KOT", KOT_LOCK),
            answer("WBCACHE_NOT_COMPLETE", "a package has not written its caches back (PHYMEM.CACHE.WB)"),
            answer("LIFECYCLE_STATE_INCORRECT", "VPFLUSHDONE has not succeeded"),
        ],
        outcomes: &[always(
            "marks the VM bugged; HKID, S-EPT and control pages are leaked",
            BUGGED_LEAK,
            RELEASE,
        )],
        handler: "tdh_mng_key_freeid.c",
    },
    Row {
        leaf: Leaf::PhymemPageReclaim,
        does: "takes back a page of a TD in teardown: S-EPT pages, control pages, the TDR last",
        answers: &[
            answer("OPERAND_BUSY|RCX", "another CPU holds the lock of the page's PAMT entry"),
            answer("OPERAND_BUSY|TDR", TDR_LOCK),
            answer(
                "PAGE_METADATA_INCORRECT|RCX",
                "PAMT has no page of a TD here: it was reclaimed before, or never given",
            ),
            answer(
                "OPERAND_INVALID|RCX",
                "the address is not aligned for the page's size, or carries an HKID",
            ),
            answer("OPERAND_ADDR_RANGE_ERROR|RCX", "the address is not in TDX memory (no TDMR)"),
            answer(
                "LIFECYCLE_STATE_INCORRECT",
                "the TD is not in teardown: its HKID has not been freed (KEY.FREEID)",
            ),
            answer(
                "TD_ASSOCIATED_PAGES_EXIST",
                "this is the TDR, and the TD still owns pages: a zap or reclaim before it failed. It confirms, at the \
                 end of the TD's life, that some page was freed or leaked while owned",
            ),
        ],
        outcomes: &[
            when(
                "TD_ASSOCIATED_PAGES_EXIST",
                "warns, keeps the TDR page and leaks it",
                &["teardown-leak"],
                "tdx_reclaim_td_control_pages()",
            ),
            always(
                "warns, keeps the page and leaks it (the WARN comes once a boot: later ones are silent)",
                &["teardown-leak"],
                "__tdx_reclaim_page(), tdx_reclaim_control_page(), tdx_sept_free_private_spt()",
            ),
        ],
        handler: "tdh_phymem_page_reclaim.c",
    },
];
