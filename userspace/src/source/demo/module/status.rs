//! What the module answers: completion status codes and operand identifiers.
//!
//! Source: TDX Module ABI specification, "Function Completion Status Codes" and "Function Operand IDs"; the values
//! agree with Linux' `arch/x86/include/asm/shared/tdx_errno.h`. Written out here and not shared with the decoding
//! side: the demo is a check of it.

use septwatch_common::Leaf;

/// Done.
pub const SUCCESS: u64 = 0;
/// The code that KVM's wrapper makes up when no module is loaded (`TDX_SEAMCALL_VMFAILINVALID`).
pub const VMFAILINVALID: u64 = 0x8000_FF00_FFFF_0000;
#[expect(missing_docs, reason = "the names are the specification's")]
mod codes {
    pub const OPERAND_INVALID: u64 = 0xC000_0100_0000_0000;
    pub const OPERAND_BUSY: u64 = 0x8000_0200_0000_0000;
    pub const PAGE_METADATA_INCORRECT: u64 = 0xC000_0300_0000_0000;
    pub const TD_ASSOCIATED_PAGES_EXIST: u64 = 0xC000_0400_0000_0000;
    pub const TDCS_NOT_ALLOCATED: u64 = 0xC000_0606_0000_0000;
    pub const LIFECYCLE_STATE_INCORRECT: u64 = 0xC000_0607_0000_0000;
    pub const OP_STATE_INCORRECT: u64 = 0xC000_0608_0000_0000;
    pub const NO_VCPUS: u64 = 0xC000_0609_0000_0000;
    pub const TDCX_NUM_INCORRECT: u64 = 0xC000_0610_0000_0000;
    pub const VCPU_STATE_INCORRECT: u64 = 0xC000_0700_0000_0000;
    pub const VCPU_NOT_ASSOCIATED: u64 = 0x8000_0702_0000_0000;
    pub const TD_KEYS_NOT_CONFIGURED: u64 = 0x8000_0810_0000_0000;
    pub const WBCACHE_NOT_COMPLETE: u64 = 0x8000_0817_0000_0000;
    pub const HKID_NOT_FREE: u64 = 0xC000_0820_0000_0000;
    pub const NO_HKID_READY_TO_WBCACHE: u64 = 0x0000_0821_0000_0000;
    pub const FLUSHVP_NOT_DONE: u64 = 0x8000_0824_0000_0000;
    pub const EPT_WALK_FAILED: u64 = 0xC000_0B00_0000_0000;
    pub const GPA_RANGE_NOT_BLOCKED: u64 = 0xC000_0B06_0000_0000;
    pub const GPA_RANGE_ALREADY_BLOCKED: u64 = 0x0000_0B07_0000_0000;
    pub const TLB_TRACKING_NOT_DONE: u64 = 0xC000_0B08_0000_0000;
    pub const EPT_ENTRY_STATE_INCORRECT: u64 = 0xC000_0B0D_0000_0000;
}
pub use codes::*;

/// Operand identifiers: which operand a status is about (bits 31:0).
#[expect(missing_docs, reason = "the names are the specification's")]
pub mod operand {
    pub const RCX: u64 = 1;
    pub const RDX: u64 = 2;
    pub const R8: u64 = 8;
    pub const R9: u64 = 9;
    pub const TDR: u64 = 0x80;
    pub const SEPT_TREE: u64 = 0x92;
    pub const TD_EPOCH: u64 = 0xA9;
}

/// What Linux compares: everything but the operand (`TDX_SEAMCALL_STATUS_MASK`).
pub const fn code(status: u64) -> u64 {
    status & 0xFFFF_FFFF_0000_0000
}

/// Whether KVM tries again: the lock of an operand was taken.
pub const fn is_busy(status: u64) -> bool {
    code(status) == OPERAND_BUSY
}

/// A BUSY that the leaf really can answer: the lock it contends for with running vCPUs.
pub const fn busy_of(leaf: Leaf) -> u64 {
    OPERAND_BUSY
        | match leaf {
            Leaf::MemTrack => operand::TD_EPOCH,
            Leaf::MemRangeBlock | Leaf::MemSeptAdd => operand::SEPT_TREE,
            _ => operand::RCX,
        }
}

/// Whether this status comes with the S-EPT entry it is about in RCX and RDX.
pub(super) const fn has_entry_details(status: u64) -> bool {
    matches!(code(status), EPT_WALK_FAILED | GPA_RANGE_NOT_BLOCKED | GPA_RANGE_ALREADY_BLOCKED)
        || code(status) == EPT_ENTRY_STATE_INCORRECT
        || status == OPERAND_BUSY | operand::RCX
}

/// A call that the module did not do: the status (RAX) and the extended error information (RCX, RDX).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u64,
    pub ext_err1: u64,
    pub ext_err2: u64,
}

impl Refusal {
    pub(super) const fn new(status: u64) -> Self {
        Self { status, ext_err1: 0, ext_err2: 0 }
    }
}

/// Shorthand for a refusal without extended error information.
pub(super) const fn refuse<T>(status: u64) -> Result<T, Refusal> {
    Err(Refusal::new(status))
}
