//! Giving pages to a TD's S-EPT: SEPT.ADD, PAGE.ADD, PAGE.AUG.

use septwatch_common::Leaf;

use super::{Answer, On, Outcome, Row};

const FOREIGN: &str = "the page already belongs to a TD, this one or another: it was freed by the host while the module \
                       still owned it, and the allocator has just handed it out again. This VM is the innocent one";

const BUSY_RETRY: &str = "returns -EBUSY; the page fault is taken again. Normal traffic";
const BUGGED_EIO: &str = "marks the VM bugged and returns -EIO; the page was not taken over by the module";

/// SEPT.ADD, PAGE.ADD and PAGE.AUG.
pub(super) const ROWS: &[Row] = &[
    Row {
        leaf: Leaf::MemSeptAdd,
        does: "gives the TD a page for a table of its S-EPT",
        answers: &[
            Answer {
                status: "OPERAND_BUSY|RCX",
                means: "a vCPU or another CPU holds the lock of the parent S-EPT entry",
            },
            Answer {
                status: "OPERAND_BUSY|SEPT_TREE",
                means: "the S-EPT tree is locked, by zero-step mitigation perhaps",
            },
            Answer {
                status: "OPERAND_BUSY|RDX",
                means: "another CPU holds the lock of the TD's root page, TDR",
            },
            Answer {
                status: "OPERAND_BUSY|R8",
                means: "another CPU holds the lock of the new page's PAMT entry",
            },
            Answer { status: "PAGE_METADATA_INCORRECT|R8", means: FOREIGN },
            Answer { status: "OPERAND_INVALID|RCX", means: "the guest address or level is not a valid one" },
            Answer { status: "EPT_WALK_FAILED|RCX", means: "a table above this one is missing" },
            Answer {
                status: "EPT_ENTRY_STATE_INCORRECT|RCX",
                means: "the parent entry is not free: a table or page is there already",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: BUSY_RETRY,
                may_follow: &[],
                source: "tdx_sept_link_private_spt(); in 7.3 tdx_sept_map_nonleaf_spte()",
            },
            Outcome {
                on: On::Status("PAGE_METADATA_INCORRECT|R8"),
                kernels: "",
                kvm: BUGGED_EIO,
                may_follow: &["reused-while-mapped", "map-failed", "vm-bugged"],
                source: "tdx_sept_link_private_spt(); in 7.3 tdx_sept_map_nonleaf_spte()",
            },
            Outcome {
                on: On::Failure,
                kernels: "",
                kvm: BUGGED_EIO,
                may_follow: &["map-failed", "vm-bugged"],
                source: "tdx_sept_link_private_spt(); in 7.3 tdx_sept_map_nonleaf_spte()",
            },
        ],
        handler: "tdh_mem_sept_add.c",
    },
    Row {
        leaf: Leaf::MemPageAdd,
        does: "gives the TD a page of its initial memory, copied from a source page, before the TD is finalized",
        answers: &[
            Answer {
                status: "OPERAND_BUSY|RDX",
                means: "another CPU holds the lock of the TD's root page, TDR",
            },
            Answer {
                status: "OPERAND_BUSY|R8",
                means: "another CPU holds the lock of the new page's PAMT entry",
            },
            Answer { status: "PAGE_METADATA_INCORRECT|R8", means: FOREIGN },
            Answer { status: "OPERAND_INVALID|RCX", means: "the guest address is not a valid private one" },
            Answer {
                status: "OPERAND_INVALID|R9",
                means: "the source page's address is not a valid shared one",
            },
            Answer {
                status: "EPT_WALK_FAILED|RCX",
                means: "the tables for this address are missing (SEPT.ADD)",
            },
            Answer { status: "EPT_ENTRY_STATE_INCORRECT|RCX", means: "a page is there already: added twice" },
            Answer {
                status: "OP_STATE_INCORRECT",
                means: "the TD is finalized already; from then on pages come by AUG",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: "returns -EBUSY to KVM_TDX_INIT_MEM_REGION; the VMM may repeat it",
                may_follow: &[],
                source: "tdx_mem_page_add() from 6.19; tdx_gmem_post_populate() before",
            },
            Outcome {
                on: On::Status("PAGE_METADATA_INCORRECT|R8"),
                kernels: "",
                kvm: "fails KVM_TDX_INIT_MEM_REGION with -EIO; from 6.19 the VM is marked bugged as well",
                may_follow: &["reused-while-mapped", "map-failed", "vm-bugged"],
                source: "tdx_mem_page_add() from 6.19; tdx_gmem_post_populate() before",
            },
            Outcome {
                on: On::Failure,
                kernels: "up to 6.18",
                kvm: "fails KVM_TDX_INIT_MEM_REGION with -EIO, without a message",
                may_follow: &["map-failed"],
                source: "tdx_gmem_post_populate()",
            },
            Outcome {
                on: On::Failure,
                kernels: "from 6.19",
                kvm: "marks the VM bugged and fails KVM_TDX_INIT_MEM_REGION with -EIO",
                may_follow: &["map-failed", "vm-bugged"],
                source: "tdx_mem_page_add()",
            },
        ],
        handler: "tdh_mem_page_add.c",
    },
    Row {
        leaf: Leaf::MemPageAug,
        does: "gives the running TD a page; it stays PENDING until the guest accepts it",
        answers: &[
            Answer {
                status: "OPERAND_BUSY|RCX",
                means: "a vCPU or another CPU holds the lock of this S-EPT entry",
            },
            Answer {
                status: "OPERAND_BUSY|SEPT_TREE",
                means: "the S-EPT tree is locked, by zero-step mitigation perhaps",
            },
            Answer {
                status: "OPERAND_BUSY|RDX",
                means: "another CPU holds the lock of the TD's root page, TDR",
            },
            Answer {
                status: "OPERAND_BUSY|R8",
                means: "another CPU holds the lock of the new page's PAMT entry",
            },
            Answer { status: "PAGE_METADATA_INCORRECT|R8", means: FOREIGN },
            Answer { status: "OPERAND_INVALID|RCX", means: "the guest address or level is not a valid one" },
            Answer {
                status: "EPT_WALK_FAILED|RCX",
                means: "the tables for this address are missing (SEPT.ADD)",
            },
            Answer {
                status: "EPT_ENTRY_STATE_INCORRECT|RCX",
                means: "a page is there already: mapped twice, or an earlier zap of this address did not finish \
                        (see the entry's state)",
            },
        ],
        outcomes: &[
            Outcome {
                on: On::Busy,
                kernels: "",
                kvm: BUSY_RETRY,
                may_follow: &[],
                source: "tdx_mem_page_aug()",
            },
            Outcome {
                on: On::Status("PAGE_METADATA_INCORRECT|R8"),
                kernels: "",
                kvm: BUGGED_EIO,
                may_follow: &["reused-while-mapped", "map-failed", "vm-bugged"],
                source: "tdx_mem_page_aug()",
            },
            Outcome {
                on: On::Failure,
                kernels: "",
                kvm: "marks the VM bugged and returns -EIO (up to 6.18 the page is unpinned); KVM's mirror entry is \
                      restored",
                may_follow: &["map-failed", "vm-bugged"],
                source: "tdx_mem_page_aug()",
            },
        ],
        handler: "tdh_mem_page_aug.c",
    },
];
