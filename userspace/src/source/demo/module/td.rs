//! One TD as the module sees it: its states and counts, and which leaf is allowed when.

use std::collections::HashMap;

use septwatch_common::Leaf;

use super::sept::Sept;
use super::status::{self, Refusal};

/// Fewest control pages (TDCS, by ADDCX) that a TD needs.
pub const MIN_TDCS_PAGES: u32 = 4;
const MAX_TDCS_PAGES: u32 = 9;
/// Control pages of a vCPU, its TDVPR included.
pub const TDVPS_PAGES: u32 = 6;

/// Life cycle of the TD's key (`TDR.LIFECYCLE_STATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    HkidAssigned,
    KeysConfigured,
    Blocked,
    Teardown,
}

/// What the TD is ready for (`TDCS.OP_STATE`); the discriminants are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Uninitialized = 0,
    Initialized = 1,
    Runnable = 2,
}

/// One vCPU (TDVPS). The logical processor that it is associated with does not matter here.
#[derive(Debug, Default)]
pub(super) struct Vcpu {
    pub pages: u32,
    pub initialized: bool,
    pub associated: bool,
}

#[derive(Debug)]
pub(super) struct Td {
    /// Frame of the TDR: the TD's identity.
    pub tdr: u64,
    pub hkid: u16,
    pub life: Life,
    pub op: Op,
    pub tdcs_pages: u32,
    /// 4 KiB pages that the TD owns, its TDR not counted (`TDR.CHLDCNT`).
    pub children: u64,
    /// `TDCS.TD_EPOCH`. No vCPU runs during a SEAMCALL here, so that an older epoch is always a tracked one.
    pub epoch: u64,
    pub sept: Sept,
    pub vcpus: HashMap<u64, Vcpu>,
}

impl Td {
    pub(super) fn new(tdr: u64, hkid: u16) -> Self {
        Self {
            tdr,
            hkid,
            life: Life::HkidAssigned,
            op: Op::Uninitialized,
            tdcs_pages: 0,
            children: 0,
            epoch: 1,
            sept: Sept::default(),
            vcpus: HashMap::new(),
        }
    }

    /// What `check_state_map_tdcs_and_lock` asks in the real module, in its order: keys, control pages, OP_STATE.
    pub(super) fn check_state(&self, leaf: Leaf) -> Result<(), Refusal> {
        if self.life != Life::KeysConfigured {
            return status::refuse(status::TD_KEYS_NOT_CONFIGURED);
        }
        if self.tdcs_pages < MIN_TDCS_PAGES {
            return status::refuse(status::TDCS_NOT_ALLOCATED);
        }
        if !allowed(leaf, self.op) {
            return status::refuse(status::OP_STATE_INCORRECT | self.op as u64);
        }
        Ok(())
    }

    /// TDH.MNG.ADDCX is the one leaf that may come before the control pages are there.
    pub(super) fn check_addcx(&self) -> Result<(), Refusal> {
        if self.life != Life::KeysConfigured {
            return status::refuse(status::TD_KEYS_NOT_CONFIGURED);
        }
        if self.tdcs_pages >= MAX_TDCS_PAGES {
            return status::refuse(status::TDCX_NUM_INCORRECT);
        }
        Ok(())
    }

    /// Whether a leaf may be removed only after BLOCK and TRACK: when the TD can run.
    pub(super) fn must_track(&self) -> bool {
        self.op == Op::Runnable
    }
}

/// OP_STATEs in which a leaf may be called (TDX Module ABI specification, "OP_STATE" of each leaf).
const fn allowed(leaf: Leaf, op: Op) -> bool {
    match leaf {
        Leaf::MngAddcx | Leaf::MngInit => matches!(op, Op::Uninitialized),
        Leaf::MemPageAdd | Leaf::MrFinalize => matches!(op, Op::Initialized),
        Leaf::MemPageAug | Leaf::MemTrack => matches!(op, Op::Runnable),
        _ => matches!(op, Op::Initialized | Op::Runnable),
    }
}
