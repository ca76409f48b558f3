//! A zap under way: BLOCK, TRACK, REMOVE and WBINVD of one leaf.
//!
//! # How the circle closes
//! BLOCK and REMOVE name a TD and a gpa, but no frame; WBINVD names a frame, but no TD; and the ledger is kept by
//! frame. A full index from (TD, gfn) to frame would cost a hash entry for every lent frame, many times the ledger
//! itself. It is not needed, because every open line already says which TD and which gfn it belongs to:
//!
//! - BLOCK, TRACK and REMOVE are kept in a small table of *zaps under way*, by (TD, gfn).
//! - WBINVD names the frame; its line names (TD, gfn); that finds the zap; a removed zap closes the line. If the module
//!   flushed another frame than it removed, the two do not meet, and both sides show.
//! - A release names the frame as well, and finds the zap the same way: the line of a leaf whose REMOVE failed still
//!   says *mapped*, the zap says *blocked* and why, and [`Zap::fold`] puts the two together.
//!
//! - REMOVE's answer names the frame too (RCX: the page's physical address), where the module gives it. The zap keeps it
//!   for the two cases in which the frame cannot name the zap: the guest frame is mapped again before the old frame was
//!   written back, and the frame is not in the ledger, so that no WBINVD of it would end the zap.
//!
//! So the table holds entries for zaps that run right now (one a VM: KVM holds mmu_lock for writing) and for zaps that
//! failed, and nothing for the rest. That WBINVD follows REMOVE in the same task is true on all kernels looked at, but
//! nothing here depends on it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Leaf, Line, Status, Violation, line::State};

/// A frame number that is not known.
pub const PFN_UNKNOWN: u64 = u64::MAX;

/// Key of a zap under way: the TD's number (never used twice, unlike its index) and the first gfn of the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ZapKey {
    /// First guest frame of the leaf.
    pub gfn: u64,
    /// The TD's number.
    pub td: u32,
    /// Keeps the key free of padding, which a BPF hash would compare.
    pub zero: u32,
}

/// What is known of a zap under way, or of one that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Zap {
    /// When its first SEAMCALL returned, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// When its first failing SEAMCALL returned; 0 where none failed.
    pub failed_ns: u64,
    /// The status of that SEAMCALL.
    pub failed_status: u64,
    /// Its RCX: the S-EPT entry.
    pub ext_err1: u64,
    /// Its RDX: level and state.
    pub ext_err2: u64,
    /// First frame of the leaf, as REMOVE told; 0 where it did not.
    pub pfn: u64,
    /// The TD's TLB epoch when the leaf was blocked.
    pub epoch: u32,
    /// Frames of the leaf whose lines were closed since.
    pub closed: u32,
    /// Number of the failing SEAMCALL's leaf.
    pub failed_leaf: u8,
    /// How far it came: [`Zap::BLOCKED`], [`Zap::REMOVED`].
    pub progress: u8,
    /// BUSY answers in a row to the step `busy_leaf`; 2 stands for more, too.
    pub busy: u8,
    /// See `busy`.
    pub busy_leaf: u8,
    /// [`crate::Level`] of the leaf, where `pfn` is known.
    pub level: u8,
    /// Keeps the layout free of padding.
    pub zero: [u8; 3],
}

const _: () = assert!(size_of::<ZapKey>() == 16 && size_of::<Zap>() == 64);

/// What a step needs to know of the TD.
#[derive(Clone, Copy, Debug)]
pub struct TdNow {
    /// The TLB epoch: how often TRACK succeeded.
    pub epoch: u32,
    /// Whether TDH.MR.FINALIZE succeeded: before, KVM does not track.
    pub finalized: bool,
    /// Whether this kernel takes a refused BLOCK of a page that is only counted as premapped for normal.
    pub premap_exempt: bool,
    /// Whether the TD began before septwatch, and so may this zap have.
    pub late: bool,
}

/// Answer to one step of a zap.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// RAX.
    pub status: Status,
    /// RCX.
    pub ext_err1: u64,
    /// RDX.
    pub ext_err2: u64,
    /// When it returned, in ns of CLOCK_MONOTONIC.
    pub now_ns: u64,
}

/// TDX_EPT_ENTRY_STATE_INCORRECT with operand RCX.
const ENTRY_STATE_INCORRECT_RCX: u64 = 0xC000_0B0D_0000_0001;
/// Bits 2:0 of an S-EPT entry: readable, writable, executable.
const RWX: u64 = 7;

impl Zap {
    /// BLOCK succeeded.
    pub const BLOCKED: u8 = 1;
    /// REMOVE succeeded.
    pub const REMOVED: u8 = 2;
    /// In `failed_leaf`: KVM gave the zap up before its first SEAMCALL.
    pub const NO_SEAMCALL: u8 = 0xff;

    /// Whether a step failed so that KVM gave the zap up.
    #[inline(always)]
    pub const fn has_failed(&self) -> bool {
        self.failed_ns != 0
    }

    /// Takes the answer to `leaf` (BLOCK, TRACK, REMOVE or WBINVD) in, and says what is wrong with it.
    ///
    /// A zap answers `zap-failed` once, at the first step that fails: what fails after that is its consequence.
    #[inline(always)]
    pub fn step(&mut self, leaf: Leaf, answer: &Answer, td: TdNow) -> Option<Violation> {
        if self.begun_ns == 0 {
            self.begun_ns = answer.now_ns;
        }
        if !answer.status.is_success() {
            return self.refused(leaf, answer, td);
        }
        self.busy = 0;
        match leaf {
            Leaf::MemRangeBlock => {
                *self = Self {
                    begun_ns: answer.now_ns,
                    epoch: td.epoch,
                    progress: Self::BLOCKED,
                    ..Self::default()
                };
                None
            }
            Leaf::MemPageRemove => {
                // Before finalize the module asks for neither BLOCK nor TRACK.
                let blocked = self.progress & Self::BLOCKED != 0;
                let ordered = !td.finalized || (blocked && td.epoch != self.epoch) || (td.late && !blocked);
                self.progress |= Self::REMOVED;
                if ordered { None } else { Some(Violation::OutOfOrder) }
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn refused(&mut self, leaf: Leaf, answer: &Answer, td: TdNow) -> Option<Violation> {
        if !answer.status.is_busy() {
            self.busy = 0;
        } else if retries(leaf) {
            // tdx.c, tdh_do_no_vcpus() and tdx_track(): one retry, with the vCPUs kept out; then KVM_BUG_ON.
            if self.busy == 0 || self.busy_leaf != leaf as u8 {
                self.busy_leaf = leaf as u8;
                self.busy = 1;
                return None;
            }
            self.busy = 2;
        }
        // tdx.c up to 6.18, tdx_is_sept_zap_err_due_to_premap(): before finalize the page may only have been counted.
        if td.premap_exempt
            && !td.finalized
            && leaf as u8 == Leaf::MemRangeBlock as u8
            && answer.status.0 == ENTRY_STATE_INCORRECT_RCX
            && answer.ext_err1 & RWX == 0
        {
            return None;
        }
        if self.has_failed() {
            return None;
        }
        self.failed_ns = answer.now_ns;
        self.failed_status = answer.status.0;
        self.ext_err1 = answer.ext_err1;
        self.ext_err2 = answer.ext_err2;
        self.failed_leaf = leaf as u8;
        Some(Violation::ZapFailed)
    }

    /// Whether nothing came of it, good or bad: it can be dropped.
    #[inline(always)]
    pub const fn is_void(&self) -> bool {
        self.progress == 0 && self.busy == 0 && !self.has_failed()
    }

    /// The line of a frame of a leaf whose zap has made this progress, with what the zap knows of it.
    #[inline(always)]
    pub fn fold(progress: u8, line: Line) -> Line {
        const MAPPED: Line = Line::FREE.with_state(State::Mapped);
        const BLOCKED: Line = Line::FREE.with_state(State::Blocked);
        const REMOVED: Line = Line::FREE.with_state(State::Removed);
        /// By progress, for a mapped and for a blocked leaf. A table, as in [`crate::line`].
        static FOLDED: [[Line; 2]; 4] =
            [[MAPPED, BLOCKED], [BLOCKED, BLOCKED], [REMOVED, REMOVED], [REMOVED, REMOVED]];
        if !line.is_in_sept() {
            return line;
        }
        // State 1 or 2, mapped or blocked.
        line.with_state_of(FOLDED[usize::from(progress & 3)][line.0 as usize >> 1 & 1])
    }
}

/// Whether KVM answers BUSY to this step with one more try. It does not for WBINVD and RECLAIM.
#[inline(always)]
const fn retries(leaf: Leaf) -> bool {
    matches!(leaf, Leaf::MemRangeBlock | Leaf::MemTrack | Leaf::MemPageRemove)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, PageKind};

    const TD: TdNow = TdNow { epoch: 4, finalized: true, premap_exempt: false, late: false };
    const BUSY: u64 = 0x8000_0200_0000_0092;

    fn answer(status: u64) -> Answer {
        Answer { status: Status(status), ext_err1: 0, ext_err2: 0, now_ns: 10 }
    }

    #[test]
    fn block_track_remove_is_in_order_and_remove_alone_is_not() {
        let mut zap = Zap::default();
        assert_eq!(zap.step(Leaf::MemRangeBlock, &answer(0), TD), None);
        let tracked = TdNow { epoch: 5, ..TD };
        assert_eq!(zap.step(Leaf::MemPageRemove, &answer(0), tracked), None);

        let mut untracked = Zap::default();
        untracked.step(Leaf::MemRangeBlock, &answer(0), TD);
        assert_eq!(untracked.step(Leaf::MemPageRemove, &answer(0), TD), Some(Violation::OutOfOrder));
        let mut building = Zap::default();
        let td = TdNow { finalized: false, ..TD };
        assert_eq!(building.step(Leaf::MemPageRemove, &answer(0), td), None);
        assert_eq!(
            Zap::default().step(Leaf::MemPageRemove, &answer(0), tracked),
            Some(Violation::OutOfOrder)
        );
        // Of a TD that began before septwatch its BLOCK may have been before the first hook; that TRACK was not is seen.
        let late = TdNow { late: true, ..tracked };
        assert_eq!(Zap::default().step(Leaf::MemPageRemove, &answer(0), late), None);
        let mut untracked = Zap::default();
        untracked.step(Leaf::MemRangeBlock, &answer(0), late);
        assert_eq!(untracked.step(Leaf::MemPageRemove, &answer(0), late), Some(Violation::OutOfOrder));
    }

    #[test]
    fn busy_once_is_traffic_and_twice_is_the_end() {
        let mut zap = Zap::default();
        assert_eq!(zap.step(Leaf::MemRangeBlock, &answer(BUSY), TD), None);
        assert_eq!(zap.step(Leaf::MemRangeBlock, &answer(0), TD), None);
        assert_eq!(zap.step(Leaf::MemPageRemove, &answer(BUSY), TD), None);
        assert_eq!(zap.step(Leaf::MemPageRemove, &answer(BUSY), TD), Some(Violation::ZapFailed));
        assert_eq!(zap.step(Leaf::MemPageRemove, &answer(BUSY), TD), None, "once for one zap");
        assert_eq!(
            Zap::default().step(Leaf::PhymemPageWbinvd, &answer(BUSY), TD),
            Some(Violation::ZapFailed),
            "KVM does not try WBINVD again"
        );
    }

    #[test]
    fn premapped_pages_are_exempt_only_where_the_kernel_says_so() {
        let refused = answer(ENTRY_STATE_INCORRECT_RCX);
        let building = TdNow { finalized: false, premap_exempt: true, ..TD };
        assert_eq!(Zap::default().step(Leaf::MemRangeBlock, &refused, building), None);
        for td in [TdNow { premap_exempt: false, ..building }, TdNow { finalized: true, ..building }] {
            assert_eq!(Zap::default().step(Leaf::MemRangeBlock, &refused, td), Some(Violation::ZapFailed));
        }
        let mapped = Answer { ext_err1: 0x1007, ..refused };
        assert_eq!(Zap::default().step(Leaf::MemRangeBlock, &mapped, building), Some(Violation::ZapFailed));
    }

    #[test]
    fn a_line_learns_from_the_zap() {
        let line = Line::open(PageKind::Leaf, 1, Level::L4K, 7);
        assert_eq!(Zap::fold(0, line).state(), State::Mapped);
        assert_eq!(Zap::fold(Zap::BLOCKED, line).state(), State::Blocked);
        assert_eq!(Zap::fold(Zap::BLOCKED | Zap::REMOVED, line).state(), State::Removed);
        assert_eq!(Zap::fold(Zap::REMOVED, Line::FREE), Line::FREE);
    }
}
