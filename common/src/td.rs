//! What the ledger keeps of a TD.

use crate::{PageKind, Suspect};

/// How far a TD's life has come, as far as SEAMCALLs tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Life {
    /// The slot is nobody's.
    None = 0,
    /// TDH.MNG.CREATE succeeded.
    Created = 1,
    /// TDH.MNG.INIT succeeded.
    Initialized = 2,
    /// TDH.MR.FINALIZE succeeded: the TD can run.
    Finalized = 3,
    /// TDH.MNG.KEY.FREEID succeeded: its HKID is free, its pages can be reclaimed.
    KeyFreed = 4,
    /// Its TDR was reclaimed.
    Gone = 5,
}

impl Life {
    /// From its number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Created,
            2 => Self::Initialized,
            3 => Self::Finalized,
            4 => Self::KeyFreed,
            5 => Self::Gone,
            _ => return None,
        })
    }

    /// Name for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Created => "created",
            Self::Initialized => "initialized",
            Self::Finalized => "finalized",
            Self::KeyFreed => "key-freed",
            Self::Gone => "gone",
        }
    }
}

/// The record of one TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Td {
    /// Frame of its TDR: how the TDX module, and we, tell TDs apart.
    pub tdr: u64,
    /// When it was first seen, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// cgroup v2 id of the task that created it, or was first seen with it.
    pub cgroup: u64,
    /// First gfn of the leaf that was blocked last: TRACK names no leaf. KVM zaps with mmu_lock held for writing, so
    /// there is one zap under way in a TD.
    pub zap_gfn: u64,
    /// First frame of the leaf that KVM's zapping function was called for last; 0 where no hook told.
    pub zap_pfn: u64,
    /// 1 for as long as it was called, and neither a SEAMCALL followed nor it returned; else 0.
    pub zap_called: u64,
    /// When the invalidation that is under way began; 0 where none is.
    pub invalidation_ns: u64,
    /// When KVM called the VM bugged; 0 where it did not.
    pub bugged_ns: u64,
    /// When the last SEAMCALL that failed for good returned; 0 where none did.
    pub failed_ns: u64,
    /// Its status.
    pub failed_status: u64,
    /// Frames lent, by [`PageKind`].
    pub frames: [u64; 6],
    /// Its number: never used twice while the ledger lives, unlike its index.
    pub id: u32,
    /// TLB epoch: how often TDH.MEM.TRACK succeeded.
    pub epoch: u32,
    /// Why its verdicts are suspect.
    pub suspect: Suspect,
    /// Process that created it, or was first seen with it.
    pub tgid: u32,
    /// Its host key id.
    pub hkid: u16,
    /// See [`Life`].
    pub life: u8,
    /// Whether TDH.MR.FINALIZE succeeded (or must have, before septwatch came).
    pub finalized: u8,
    /// Number of the leaf of the SEAMCALL that failed last.
    pub failed_leaf: u8,
    /// Keeps the layout free of padding.
    pub zero: [u8; 3],
    /// Name of that process' thread.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Td>() == 32 + 48 + 48 + 16 + 8 + 16);

impl Td {
    /// A record that is nobody's.
    pub const EMPTY: Self = Self {
        tdr: 0,
        begun_ns: 0,
        cgroup: 0,
        zap_gfn: 0,
        zap_pfn: 0,
        zap_called: 0,
        invalidation_ns: 0,
        bugged_ns: 0,
        failed_ns: 0,
        failed_status: 0,
        frames: [0; 6],
        id: 0,
        epoch: 0,
        suspect: Suspect(0),
        tgid: 0,
        hkid: 0,
        life: 0,
        finalized: 0,
        failed_leaf: 0,
        zero: [0; 3],
        comm: [0; 16],
    };

    /// Frames lent, of every kind.
    #[inline(always)]
    pub const fn lent(&self) -> u64 {
        let f = &self.frames;
        f[0].wrapping_add(f[1]).wrapping_add(f[2]).wrapping_add(f[3]).wrapping_add(f[4]).wrapping_add(f[5])
    }

    /// Frames lent of one kind.
    pub const fn lent_as(&self, kind: PageKind) -> u64 {
        self.frames[kind as usize]
    }
}
