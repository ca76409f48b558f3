//! Walking KVM's structures of a TD that runs, in steps that userspace asks for one by one: what it asks, and what it is
//! told. Each step is one run of a program, and so one `rcu_read_lock()`; how it reads is in ebpf/src/walk, why what it
//! enters is right in [`crate::tracker::walk`].

use crate::{Leaf, Life, Line, Td};

/// What a step does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Mode {
    /// Enters it into the ledger.
    Enter = 0,
    /// Compares it with the ledger, and tells what differs.
    Compare = 1,
}

/// The `struct kvm` of a TD, as a look at the open files of all processes found it. Several files of one are several of
/// these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Found {
    /// Its address.
    pub kvm: u64,
    /// Frame of the TDR; 0 where there is none yet, or none any more.
    pub tdr: u64,
    /// The TD's number in the ledger; 0 where it is not known there.
    pub id: u32,
    /// Its index.
    pub td: u32,
    /// The process that has the file open.
    pub tgid: u32,
    /// `enum kvm_tdx_state`, see [`TD_INITIALIZED`].
    pub state: u32,
    /// Why verdicts on it are suspect: bits of [`crate::Suspect`].
    pub suspect: u32,
    /// 1: KVM called the VM bugged.
    pub bugged: u32,
}

const _: () = assert!(size_of::<Found>() == 40);

/// `TD_STATE_INITIALIZED` of `enum kvm_tdx_state`: it has its control pages (arch/x86/kvm/vmx/tdx.h).
pub const TD_INITIALIZED: u32 = 1;
/// `TD_STATE_RUNNABLE`: it is finalized.
pub const TD_RUNNABLE: u32 = 2;
/// `VCPU_TD_STATE_INITIALIZED` of `enum vcpu_tdx_state`.
pub const VCPU_INITIALIZED: u32 = 1;

/// Files that one look can tell of.
pub const MAX_FOUND: u32 = 16384;

/// Guest frames of one step: what one table of leaves maps.
pub const STEP: u64 = 512;

/// Control pages of one step: those of a TD, or of a vCPU.
pub const MAX_CONTROL: u64 = 64;

/// Whether a record is that of the TD with this number, and nothing of the TD has been given back: its key is in use, and
/// was not tried to be freed in vain. Only then does KVM keep what a walk reads.
#[inline(always)]
pub fn is_there(record: &Td, id: u32) -> bool {
    let failed = record.failed_leaf;
    record.id == id
        && record.life >= Life::Created as u8
        && record.life < Life::KeyFreed as u8
        && failed != Leaf::MngVpflushdone as u8
        && failed != Leaf::MngKeyFreeid as u8
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Ended {
    /// There was something, and it was gone through.
    Done = 0,
    /// There is nothing here.
    Absent = 1,
    /// The guest has no more.
    Last = 2,
    /// The TD is not what it was: it ends, or has ended.
    Over = 3,
    /// There is no mirror page table.
    NoMirror = 4,
    /// What was read does not fit together: torn, or not what this kernel's types say.
    Torn = 5,
    /// It cannot be told yet: something is being made.
    NotYet = 6,
}

impl Ended {
    /// From its number.
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Absent,
            2 => Self::Last,
            3 => Self::Over,
            4 => Self::NoMirror,
            6 => Self::NotYet,
            _ => Self::Torn,
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Told {
    /// The guest frame to go on with.
    pub next: u64,
    /// Frames that the ledger should have a line of.
    pub seen: u32,
    /// Of them, those whose line was opened.
    pub entered: u32,
    /// Those whose line says the same.
    pub known: u32,
    /// Those whose line an event has changed, while KVM says the same as before: to be looked at again.
    pub raced: u32,
    /// Those that have no place in the ledger.
    pub outside: u32,
    /// Those whose line says something else: [`Difference`]s that were written down.
    pub differ: u32,
    /// Tables of the mirror that led here and had not before.
    pub tables: u32,
    /// Keeps the layout free of padding.
    pub zero: u32,
}

const _: () = assert!(size_of::<Told>() == 40);

/// Differences that a step can tell of: every line of a chunk, every entry of a table, the tables that lead to it.
pub const MAX_DIFFERENCES: usize = 520;

/// A frame of which the ledger and KVM say different things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Difference {
    /// The frame.
    pub pfn: u64,
    /// What the ledger says.
    pub line: u64,
    /// The line that KVM's structures would have; 0: none for this frame.
    pub kvm: u64,
    /// The frame that KVM has at this guest frame instead; 0: none.
    pub instead: u64,
}

const _: () = assert!(size_of::<Difference>() == 32);

impl Difference {
    /// What the ledger says.
    pub const fn line(&self) -> Line {
        Line(self.line)
    }

    /// What KVM says.
    pub const fn kvm(&self) -> Line {
        Line(self.kvm)
    }
}
