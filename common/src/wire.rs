//! Events on their way from the eBPF programs to userspace.
//!
//! Every event begins with a [`Header`], has a fixed layout, and is as long as its kind needs. Native byte order: the
//! reader is on the same machine. A change of a layout changes [`VERSION`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::zap::Zap;

/// Version of the layouts in this file.
pub const VERSION: u8 = 3;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`TdLife`]
    TdLife = 1,
    /// [`SeamcallOk`]
    SeamcallOk = 2,
    /// [`SeamcallErr`]
    SeamcallErr = 3,
    /// [`ViolationEvent`]
    Violation = 4,
    /// [`Frame`]
    Frame = 5,
    /// [`VmLife`]
    VmLife = 6,
}

/// How every event begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Number of the record: consecutive on one CPU, in one stream (vital or page records).
    pub seq: u64,
    /// Process of the task that was running.
    pub tgid: u32,
    /// CPU.
    pub cpu: u16,
    /// [`Kind`]
    pub kind: u8,
    /// [`VERSION`]
    pub version: u8,
}

/// A TD reached a stage of its life. Vital.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TdLife {
    /// Header.
    pub header: Header,
    /// Frame of its TDR.
    pub tdr: u64,
    /// cgroup v2 id of the task.
    pub cgroup: u64,
    /// Frames still lent to it.
    pub lent: u64,
    /// Its number.
    pub id: u32,
    /// Thread.
    pub tid: u32,
    /// Its reasons for doubt.
    pub suspect: u32,
    /// Its index.
    pub td: u16,
    /// Its host key id.
    pub hkid: u16,
    /// See [`crate::Life`].
    pub life: u8,
    /// Fills up.
    pub zero: [u8; 7],
    /// Name of the thread.
    pub comm: [u8; 16],
}

/// A SEAMCALL succeeded. Page record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SeamcallOk {
    /// Header.
    pub header: Header,
    /// Frame of the TD's TDR, or of the TDVPR for TDH.VP.ADDCX; all ones where the call names neither.
    pub tdr: u64,
    /// The frame; all ones where neither the call nor, for TDH.MEM.PAGE.REMOVE, its answer names one.
    pub pfn: u64,
    /// Guest frame.
    pub gfn: u64,
    /// Number of the leaf.
    pub leaf: u8,
    /// [`crate::Level`]
    pub level: u8,
    /// Host key id, for TDH.MNG.CREATE.
    pub hkid: u16,
    /// Thread.
    pub tid: u32,
    /// From the entry of the kernel's function to its return, in ns; 0 where nobody asked for latencies, and
    /// [`u32::MAX`] (4.3 s) for anything longer.
    pub took_ns: u32,
    /// Fills up.
    pub zero: u32,
}

/// A SEAMCALL did not succeed. Page record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SeamcallErr {
    /// As for one that succeeded.
    pub call: SeamcallOk,
    /// RAX.
    pub status: u64,
    /// RCX.
    pub ext_err1: u64,
    /// RDX.
    pub ext_err2: u64,
}

/// The allocator received, or handed out, a frame whose line was open. Page record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frame {
    /// Header.
    pub header: Header,
    /// The frame.
    pub pfn: u64,
    /// Thread.
    pub tid: u32,
    /// [`Hook`]: which tracepoint.
    pub hook: u8,
    /// Fills up.
    pub zero: [u8; 3],
}

/// A VM of a TD reached a stage that only KVM's functions tell. Vital.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmLife {
    /// Header.
    pub header: Header,
    /// Frame of its TDR.
    pub tdr: u64,
    /// When KVM called it bugged; 0 where it did not.
    pub bugged_ns: u64,
    /// Frames still lent to it.
    pub lent: u64,
    /// The TD's number.
    pub id: u32,
    /// Thread.
    pub tid: u32,
    /// [`crate::kvm::VmStage`]
    pub stage: u8,
    /// Fills up.
    pub zero: [u8; 7],
    /// Name of the thread.
    pub comm: [u8; 16],
}

/// How a frame left its guest_memfd: what page-cache deletion showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LetGo {
    /// When; 0: it was not seen.
    pub time_ns: u64,
    /// Number of the guest_memfd's inode.
    pub inode: u64,
    /// Index of the frame in it, in 4 KiB.
    pub index: u64,
    /// References to the folio at that moment: one is the page cache's, one that of who deletes it. Any other keeps the
    /// frame from the allocator: that of a CPU's batch of pages on their way to the LRU for a moment, one that KVM took
    /// when it mapped the page (up to Linux 6.18) for as long as its zap does not succeed.
    pub references: u32,
    /// Thread.
    pub tid: u32,
    /// [`crate::kvm::GmemOp`]
    pub op: u8,
    /// Fills up.
    pub zero: [u8; 7],
}

impl LetGo {
    /// References that keep the frame allocated after it left.
    pub const fn held(&self) -> u32 {
        self.references.saturating_sub(2)
    }
}

/// What saw an event: the number of a SEAMCALL's leaf, or one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// `mm_page_free`
    PageFree = 0xf0,
    /// `mm_page_free_batched`
    PageFreeBatched = 0xf1,
    /// `mm_page_alloc`
    PageAlloc = 0xf2,
    /// `kvm_make_all_cpus_request`
    MakeAllCpusRequest = 0xf3,
    /// KVM's function that zaps a leaf.
    Zap = 0xf4,
    /// `kvm_gmem_error_folio`
    ErrorFolio = 0xf5,
    /// `kvm_gmem_fault_user_mapping`
    FaultUserMapping = 0xf6,
    /// `kvm_gmem_migrate_folio`
    MigrateFolio = 0xf7,
}

/// Return addresses kept of the kernel's stack.
pub const KERNEL_STACK: usize = 32;
/// Return addresses kept of the process' stack.
pub const USER_STACK: usize = 16;

/// A violation. Vital.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ViolationEvent {
    /// Header.
    pub header: Header,
    /// The frame; all ones where it is not known.
    pub pfn: u64,
    /// The guest frame.
    pub gfn: u64,
    /// The frame's line just before, with what the zap under way told.
    pub line: u64,
    /// The zap, or the answer of the SEAMCALL that failed.
    pub zap: Zap,
    /// When the allocator received the frame; 0 where it did not, or where that is not known.
    pub released_ns: u64,
    /// When the TD's invalidation began that was under way; 0 where none was.
    pub invalidation_ns: u64,
    /// How the frame left its guest_memfd.
    pub let_go: LetGo,
    /// Frames concerned.
    pub frames: u64,
    /// Frame of the TD's TDR.
    pub tdr: u64,
    /// cgroup v2 id of the task that was running.
    pub cgroup: u64,
    /// The TD's number.
    pub td_id: u32,
    /// Thread.
    pub tid: u32,
    /// Reasons for doubt: [`crate::Suspect`].
    pub suspect: u32,
    /// Index of the TD; 0 where none is known.
    pub td: u16,
    /// Index of the other TD of a double map.
    pub other: u16,
    /// [`crate::Violation`]
    pub violation: u8,
    /// Number of the leaf, or [`Hook`].
    pub hook: u8,
    /// Addresses in `kernel_stack`.
    pub kernel_frames: u8,
    /// Addresses in `user_stack`.
    pub user_frames: u8,
    /// Fills up.
    pub zero: u32,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Return addresses of the kernel, innermost first.
    pub kernel_stack: [u64; KERNEL_STACK],
    /// Return addresses of the process, innermost first.
    pub user_stack: [u64; USER_STACK],
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<TdLife>() == 24 + 64);
    assert!(size_of::<SeamcallOk>() == 24 + 40);
    assert!(size_of::<SeamcallErr>() == 24 + 40 + 24);
    assert!(size_of::<Frame>() == 24 + 16);
    assert!(size_of::<VmLife>() == 24 + 24 + 16 + 16);
    assert!(size_of::<LetGo>() == 40);
    assert!(
        size_of::<ViolationEvent>() == 24 + 24 + 64 + 32 + 48 + 16 + 8 + 16 + 8 * (KERNEL_STACK + USER_STACK)
    );
};
