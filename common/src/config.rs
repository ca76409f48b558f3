//! What userspace tells the eBPF programs before they are loaded, and what it reads back from them.
//!
//! The programs have these as read-only globals, so that the verifier knows the values and drops what they exclude. All are
//! of 64 bits: LLVM compares anything shorter in four instructions instead of one.

use crate::{Leaf, Level, Violation};

/// "The function has no such argument."
pub const NO_ARGUMENT: u64 = 0xff;

/// Where a `tdh_*` function of this kernel has its arguments, by position (0 to 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shape {
    /// `struct tdx_td *`
    pub td: u64,
    /// `struct tdx_vp *`
    pub vp: u64,
    /// Guest physical address
    pub gpa: u64,
    /// Level, in the unit that `flags` tells
    pub level: u64,
    /// The page, in the form that `flags` tells
    pub page: u64,
    /// `u64 *`: RCX of the answer
    pub ext_err1: u64,
    /// `u64 *`: RDX of the answer
    pub ext_err2: u64,
    /// Host key id
    pub hkid: u64,
    /// [`Shape::PG_LEVEL`], [`Shape::PFN`]
    pub flags: u64,
}

impl Shape {
    /// The level is an `enum pg_level` (4K = 1), not the TDX module's (4K = 0).
    pub const PG_LEVEL: u64 = 1;
    /// The page is a frame number, not a `struct page *`.
    pub const PFN: u64 = 2;

    /// A function without any argument that matters.
    pub const NONE: Self = Self {
        td: NO_ARGUMENT,
        vp: NO_ARGUMENT,
        gpa: NO_ARGUMENT,
        level: NO_ARGUMENT,
        page: NO_ARGUMENT,
        ext_err1: NO_ARGUMENT,
        ext_err2: NO_ARGUMENT,
        hkid: NO_ARGUMENT,
        flags: 0,
    };
    /// The shape as bytes, for a read-only global.
    pub fn to_bytes(self) -> impl Iterator<Item = u8> {
        let Self { td, vp, gpa, level, page, ext_err1, ext_err2, hkid, flags } = self;
        [td, vp, gpa, level, page, ext_err1, ext_err2, hkid, flags].into_iter().flat_map(u64::to_ne_bytes)
    }

    /// The level of a leaf, from the argument.
    #[inline(always)]
    pub const fn level_of(flags: u64, raw: u64) -> Option<Level> {
        if flags & Self::PG_LEVEL != 0 { Level::from_pg_level(raw) } else { Level::from_tdx(raw) }
    }
}

const _: () = assert!(size_of::<Shape>() == 72);

/// Shapes are kept by the number of the SEAMCALL's leaf.
pub const SHAPES: usize = 48;

/// Frames in one chunk of the ledger.
///
/// A chunk is an element of a BPF hash that is allocated when its first line opens. 504 lines, the element's header
/// (`struct htab_elem` with an 8-byte key: 56 bytes) and the link of the BPF allocator (8 bytes) fill one 4 KiB page
/// exactly, so that the ledger costs 8.13 bytes a frame; 512 lines would take the next slab size, twice as much.
pub const CHUNK: usize = 504;

/// log2 of the frames that a word of the filter in front of the ledger stands for, one bit each.
pub const MARKS_SHIFT: u32 = 6;

/// Words that the filter may have, at most: 512 MiB, for 16 TiB of addresses. A frame beyond counts as marked.
pub const MAX_MARKS: u64 = 1 << 26;

/// TDs that can be tracked at the same time. Slot 0 stays empty: a closed line has owner 0.
pub const MAX_TDS: u32 = 4096;

/// Slots that a new TD looks at before the table counts as full.
pub const TD_PROBES: u64 = 32;

/// Zaps that can be under way, or have failed, at the same time.
pub const MAX_ZAPS: u32 = 1 << 18;

/// Windows that can be open at the same time; the times of further ones are not known.
pub const MAX_WINDOWS: u32 = 1 << 16;

/// Frames of which it is remembered how they left their guest_memfd, until they are released.
pub const MAX_LET_GO: u32 = 1 << 13;

/// Threads of which it is remembered what they are doing to a guest_memfd.
pub const MAX_GMEM_OPS: u32 = 1 << 12;

/// Threads that can be in a probed function at the same time, where entry and return are probed apart.
pub const MAX_PROBED: u32 = 1 << 14;

/// Threads that can be in a SEAMCALL's function at the same time while its latency is measured.
pub const MAX_ENTERED: u32 = 1 << 14;

/// Answers of a SEAMCALL, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Answers {
    /// Status 0
    pub ok: u64,
    /// TDX_OPERAND_BUSY
    pub busy: u64,
    /// Any other
    pub error: u64,
}

/// Records of one ring buffer, on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Produced {
    /// Records numbered so far; the next record has this number.
    pub produced: u64,
    /// Those of them that found the ring buffer full.
    pub lost: u64,
}

/// Pages that the calibration program remembers.
pub const CALIBRATION_PAGES: u32 = 256;

/// What each CPU counts, whatever userspace does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Lifecycle and violation records.
    pub vital: Produced,
    /// Page records.
    pub pages: Produced,
    /// Frames that could not be entered into the ledger.
    pub outside: u64,
    /// SEAMCALLs whose arguments could not be read.
    pub unread: u64,
    /// Answers, by the number of the leaf.
    pub calls: [Answers; SHAPES],
    /// Violations, by their number.
    pub violations: [u64; Violation::ALL.len()],
}

/// What userspace tells the programs while they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Reasons for doubt about every TD that only userspace sees: bits of [`crate::Suspect`].
    pub suspect: u64,
    /// 1: page records are wanted.
    pub record_pages: u64,
    /// Rules that the programs follow: so many of the first of [`crate::react::QuickRule`].
    pub quick_rules: u64,
    /// 1: a TD may be held, by userspace.
    pub holds: u64,
    /// 1: every hook is attached. Before, SEAMCALLs are not looked at: of a TD that runs meanwhile, some hooks would see a
    /// frame being lent that others do not see coming back.
    pub begun: u64,
    /// 1: it is seen which frames come back. As long as nothing is lent, it need not be.
    pub releases: u64,
}

/// What the programs share with each other, and tell userspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Shared {
    /// TDs that were numbered so far.
    pub tds: u64,
    /// Reasons for doubt about every TD.
    pub suspect: u64,
    /// 1: a program has held a TD.
    pub holds: u64,
    /// TDs that began before it was seen which frames come back, although they waited for it.
    pub unwatched: u64,
}

/// How long the creation of a TD waits for userspace, which hears of it, to see to it that [`Control::releases`] holds: as
/// long as others may well keep userspace from a CPU. The wait takes a CPU as well, and holds up RCU, which complains after
/// 21 s.
pub const RELEASES_WAIT_NS: u64 = 100_000_000;

/// The SEAMCALL leaves that have a hook.
pub const HOOKED: [Leaf; 16] = [
    Leaf::MemPageAdd,
    Leaf::MemPageAug,
    Leaf::MemSeptAdd,
    Leaf::MemRangeBlock,
    Leaf::MemTrack,
    Leaf::MemPageRemove,
    Leaf::PhymemPageWbinvd,
    Leaf::PhymemPageReclaim,
    Leaf::MngCreate,
    Leaf::MngAddcx,
    Leaf::MngInit,
    Leaf::MngVpflushdone,
    Leaf::MngKeyFreeid,
    Leaf::VpCreate,
    Leaf::VpAddcx,
    Leaf::MrFinalize,
];
