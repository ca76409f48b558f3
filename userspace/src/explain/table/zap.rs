//! Taking a page back from a running TD: BLOCK, TRACK, REMOVE, WBINVD.

use septwatch_common::Leaf;

use super::{Answer, On, Outcome, Row};

const UNTIL_6_18: &str = "up to 6.18";
const FROM_6_19: &str = "from 6.19";

const RETRY: &str = "keeps every vCPU out of the guest and calls once more. Normal traffic when the second call \
                     succeeds; the kernel prints nothing then. A line in the log means that the second call failed too";

/// BLOCK, TRACK, REMOVE and WBINVD.
pub(super) const ROWS: &[Row] = &[
    Row {
        leaf: Leaf::MemRangeBlock,
        does: "closes an S-EPT entry: no new translation is made from it; those in TLBs live on until TRACK",
        answers: &[
            Answer {
                status: "OPERAND_BUSY|RCX",
                means: "a vCPU or another CPU holds the lock of this S-EPT entry",
            },
            Answer {
                status: "OPERAND_BUSY|SEPT_TREE",
                means: "the S-EPT tree is locked: a vCPU entering under zero-step mitigation, or a call in the guest",
            },
            Answer {
                status: "OPERAND_BUSY|RDX",
                means: "another CPU holds the lock of the TD's root page, TDR",
            },
            Answer { status: "OPERAND_INVALID|RCX", means: "the guest address or level is not a valid one" },
            Answer {
                status: "EPT_WALK_FAILED|RCX",
                means: "no table leads to this address at this level: KVM's mirror and the S-EPT disagree",
            },
            Answer {
                status: "EPT_ENTRY_STATE_INCORRECT|RCX",
                means: "the entry maps nothing, or is in a state that cannot be blocked. Up to 6.18 and before the \
                        TD is finalized it may mean a page that was prepared but never added",
            },
            Answer {
                status: "GPA_RANGE_ALREADY_BLOCKED|RCX",
                means: "the entry is blocked already: an earlier zap of this address stopped half way",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: RETRY,
                may_follow: &["zap-failed", "vm-bugged", "freed-while-mapped", "reused-while-mapped"],
                source: "tdh_do_no_vcpus() from 6.19; tdx_sept_zap_private_spte() before",
            },
            Outcome {
                on: On::Status("EPT_ENTRY_STATE_INCORRECT|RCX"),
                kernels: "up to 6.18, before the TD is finalized",
                kvm: "takes it for a page that was prepared but never added, drops its pin and goes on; no message",
                may_follow: &[],
                source: "tdx_is_sept_zap_err_due_to_premap()",
            },
            Outcome {
                on: On::Status("EPT_ENTRY_STATE_INCORRECT|RCX"),
                kernels: "else",
                kvm: "as after any other failure of BLOCK: the VM is marked bugged and the zap ends here",
                may_follow: &["zap-failed", "vm-bugged", "freed-while-mapped", "reused-while-mapped"],
                source: "tdx_sept_zap_private_spte() up to 6.18; tdx_sept_remove_private_spte() 6.19 to 7.1; \
                         tdx_sept_remove_leaf_spte() in 7.3",
            },
            Outcome {
                on: On::Failure,
                kernels: UNTIL_6_18,
                kvm: "marks the VM bugged and ends the zap; the page keeps the pin it was mapped with and is leaked",
                may_follow: &["zap-failed", "vm-bugged", "teardown-leak"],
                source: "tdx_sept_zap_private_spte()",
            },
            Outcome {
                on: On::Failure,
                kernels: FROM_6_19,
                kvm: "marks the VM bugged and ends the zap; nothing pins the page, so guest_memfd frees it while the \
                      TD still maps it",
                may_follow: &[
                    "zap-failed",
                    "vm-bugged",
                    "freed-while-mapped",
                    "reused-while-mapped",
                    "teardown-leak",
                ],
                source: "tdx_sept_remove_private_spte() 6.19 to 7.1; tdx_sept_remove_leaf_spte() in 7.3",
            },
        ],
        handler: "tdh_mem_range_block.c",
    },
    Row {
        leaf: Leaf::MemTrack,
        does: "starts a new TLB epoch of the TD: once every vCPU has left the guest, no old translation is in use",
        answers: &[
            Answer { status: "OPERAND_BUSY|TD_EPOCH", means: "another CPU is changing the TD's epoch" },
            Answer {
                status: "OPERAND_BUSY|RCX",
                means: "another CPU holds the lock of the TD's root page, TDR",
            },
            Answer {
                status: "PREVIOUS_TLB_EPOCH_BUSY",
                means: "a vCPU still runs in the epoch before: vCPUs were not kicked after the last TRACK. KVM does \
                        not repeat the call for this status",
            },
            Answer {
                status: "IOMMU_IOTLB_TRACKING_NOT_DONE",
                means: "a device of the TD (TDX Connect) has not finished its own tracking",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: RETRY,
                may_follow: &["zap-failed", "vm-bugged", "freed-while-blocked", "reused-while-mapped"],
                source: "tdx_track()",
            },
            Outcome {
                on: On::Failure,
                kernels: UNTIL_6_18,
                kvm: "marks the VM bugged, kicks the vCPUs and goes on to REMOVE, which the module then refuses with \
                      TLB_TRACKING_NOT_DONE; the page keeps its pin and is leaked",
                may_follow: &["zap-failed", "vm-bugged", "teardown-leak"],
                source: "tdx_track()",
            },
            Outcome {
                on: On::Failure,
                kernels: FROM_6_19,
                kvm: "marks the VM bugged, kicks the vCPUs and goes on to REMOVE, which the module then refuses with \
                      TLB_TRACKING_NOT_DONE, silently, since the VM is bugged already; guest_memfd frees the page",
                may_follow: &[
                    "zap-failed",
                    "vm-bugged",
                    "freed-while-blocked",
                    "reused-while-mapped",
                    "teardown-leak",
                ],
                source: "tdx_track()",
            },
        ],
        handler: "tdh_mem_track.c",
    },
    Row {
        leaf: Leaf::MemPageRemove,
        does: "takes a page out of the S-EPT and ends the TD's ownership of it; on success RCX is the page's address",
        answers: &[
            Answer {
                status: "OPERAND_BUSY|RCX",
                means: "a vCPU or another CPU holds the lock of this S-EPT entry, or of the page's PAMT entry",
            },
            Answer {
                status: "OPERAND_BUSY|SEPT_TREE",
                means: "the S-EPT tree is locked: a vCPU entering under zero-step mitigation, or a call in the guest",
            },
            Answer {
                status: "OPERAND_BUSY|RDX",
                means: "another CPU holds the lock of the TD's root page, TDR",
            },
            Answer { status: "OPERAND_INVALID|RCX", means: "the guest address or level is not a valid one" },
            Answer {
                status: "EPT_WALK_FAILED|RCX",
                means: "no table leads to this address at this level: KVM's mirror and the S-EPT disagree",
            },
            Answer {
                status: "EPT_ENTRY_STATE_INCORRECT|RCX",
                means: "the entry is no leaf, or in a state that REMOVE does not take: removed before, or never mapped",
            },
            Answer {
                status: "GPA_RANGE_NOT_BLOCKED|RCX",
                means: "REMOVE without BLOCK: the TD may run and still make translations from this entry",
            },
            Answer {
                status: "TLB_TRACKING_NOT_DONE|RCX",
                means: "BLOCK was done, but TRACK, or the kick of the vCPUs after it, was not: old translations of \
                        this page may still be in a TLB",
            },
            Answer {
                status: "IOMMU_IOTLB_TRACKING_NOT_DONE|RCX",
                means: "a device of the TD (TDX Connect) may still hold a translation of this page",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: RETRY,
                may_follow: &["zap-failed", "vm-bugged", "freed-while-blocked", "reused-while-mapped"],
                source: "tdh_do_no_vcpus() from 6.19; tdx_sept_drop_private_spte() before",
            },
            Outcome {
                on: On::Status("GPA_RANGE_NOT_BLOCKED|RCX"),
                kernels: UNTIL_6_18,
                kvm: "marks the VM bugged; the page keeps the pin it was mapped with and is leaked",
                may_follow: &["out-of-order", "zap-failed", "vm-bugged", "teardown-leak"],
                source: "tdx_sept_drop_private_spte()",
            },
            Outcome {
                on: On::Status("GPA_RANGE_NOT_BLOCKED|RCX"),
                kernels: FROM_6_19,
                kvm: "marks the VM bugged and returns; the page stays mapped, and guest_memfd frees it",
                may_follow: &[
                    "out-of-order",
                    "zap-failed",
                    "vm-bugged",
                    "freed-while-mapped",
                    "reused-while-mapped",
                    "teardown-leak",
                ],
                source: "tdx_sept_remove_private_spte() 6.19 to 7.1; tdx_sept_remove_leaf_spte() in 7.3",
            },
            Outcome {
                on: On::Status("TLB_TRACKING_NOT_DONE|RCX"),
                kernels: UNTIL_6_18,
                kvm: "marks the VM bugged; the page keeps the pin it was mapped with and is leaked",
                may_follow: &["out-of-order", "zap-failed", "vm-bugged", "teardown-leak"],
                source: "tdx_sept_drop_private_spte()",
            },
            Outcome {
                on: On::Status("TLB_TRACKING_NOT_DONE|RCX"),
                kernels: FROM_6_19,
                kvm: "marks the VM bugged and returns; the page stays blocked in the S-EPT and owned by the TD, and \
                      guest_memfd frees it",
                may_follow: &[
                    "out-of-order",
                    "zap-failed",
                    "vm-bugged",
                    "freed-while-blocked",
                    "reused-while-mapped",
                    "teardown-leak",
                ],
                source: "tdx_sept_remove_private_spte() 6.19 to 7.1; tdx_sept_remove_leaf_spte() in 7.3",
            },
            Outcome {
                on: On::Failure,
                kernels: UNTIL_6_18,
                kvm: "marks the VM bugged; the page keeps the pin it was mapped with and is leaked",
                may_follow: &["zap-failed", "vm-bugged", "teardown-leak"],
                source: "tdx_sept_drop_private_spte()",
            },
            Outcome {
                on: On::Failure,
                kernels: FROM_6_19,
                kvm: "marks the VM bugged and returns; the page stays blocked in the S-EPT and owned by the TD, and \
                      guest_memfd frees it",
                may_follow: &[
                    "zap-failed",
                    "vm-bugged",
                    "freed-while-blocked",
                    "reused-while-mapped",
                    "teardown-leak",
                ],
                source: "tdx_sept_remove_private_spte() 6.19 to 7.1; tdx_sept_remove_leaf_spte() in 7.3",
            },
        ],
        handler: "tdh_mem_page_remove.c",
    },
    Row {
        leaf: Leaf::PhymemPageWbinvd,
        does: "writes a removed page's cache lines back, those tagged with the TD's HKID",
        answers: &[
            Answer {
                status: "OPERAND_BUSY|RCX",
                means: "another CPU holds the lock of the page's PAMT entry",
            },
            Answer {
                status: "PAGE_METADATA_INCORRECT|RCX",
                means: "the page is still owned by a TD: the REMOVE or RECLAIM before was for another page, or did \
                        not happen",
            },
            Answer {
                status: "OPERAND_INVALID|RCX",
                means: "the address is not aligned, or its HKID is not private",
            },
            Answer {
                status: "OPERAND_ADDR_RANGE_ERROR|RCX",
                means: "the address is not in TDX memory (no TDMR)",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Failure,
                kernels: UNTIL_6_18,
                kvm: "marks the VM bugged (BUSY is not repeated here); the page keeps its pin and is leaked",
                may_follow: &["zap-failed", "vm-bugged"],
                source: "tdx_sept_drop_private_spte(); for the TDR tdx_reclaim_td_control_pages()",
            },
            Outcome {
                on: On::Failure,
                kernels: FROM_6_19,
                kvm: "marks the VM bugged (BUSY is not repeated here); the S-EPT is clean, but the page is freed with \
                      lines of the TD's key in a cache, and a write-back may later destroy its new owner's data. \
                      At teardown, for the TDR: the page is kept (leaked)",
                may_follow: &["zap-failed", "vm-bugged", "freed-unflushed"],
                source: "tdx_sept_remove_private_spte() 6.19 to 7.1; tdx_sept_remove_leaf_spte() in 7.3; for the TDR \
                         tdx_reclaim_td_control_pages()",
            },
        ],
        handler: "tdh_phymem_page_wbinvd.c",
    },
];
