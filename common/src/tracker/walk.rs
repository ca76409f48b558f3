//! What is taken over of a TD that began before septwatch: frames that KVM's own structures say are lent, because no
//! SEAMCALL will say so again.
//!
//! The leaves of a TD are in KVM's mirror page table, its S-EPT pages beside the tables of that, its control pages in
//! `struct kvm_tdx` and `struct vcpu_tdx`. Who reads them ([`crate::walk`]) enters each frame in two moves: [`claim`]
//! makes its line tentative, then the reader looks at the source a second time, and [`settle`] opens the line if that
//! says the same, or else takes it back.
//!
//! # Why no line is wrong, whatever happens meanwhile
//! By KVM's source (arch/x86/kvm/mmu/tdp_mmu.c, of each release):
//!
//! 1. A zap takes the entry out of the mirror, or freezes it, before its first SEAMCALL; the release of the frame comes
//!    after the last one. (`tdp_mmu_set_spte`, `tdp_mmu_set_spte_atomic`, `handle_removed_pt`)
//! 2. A map makes the entry present only after its SEAMCALL has succeeded; until then it is frozen. (the same)
//! 3. Both happen inside of one `rcu_read_lock()`. So with one grace period between the moment in which all hooks are
//!    attached ([`crate::config::Control::begun`]; until then none of them looks) and the
//!    first look at a mirror, every map and zap either was over before that look, or has all its SEAMCALLs hooked.
//!
//! The reader's steps for a frame F at guest frame G: R1 reads the entry, C claims, R2 reads it again, S settles. S opens
//! the line only if R2 saw F there, and if nothing wrote the line since C. Take the last event at G before R2:
//!
//! - None since the grace period: F is lent, and was before the first hook. A zap that begins after R2 writes F back
//!   after C, and so finds the tentative line, or the open one: it closes either, and S then finds another line than its
//!   own.
//! - A map of F: its SEAMCALL came before the entry. If before C, the line was open, and C did not claim; or it was closed
//!   again before C, by a zap, which is then the last event. If after C, it replaced the tentative line, and S leaves it.
//! - A zap: then the entry is not present, and R2 did not see F.
//!
//! Where R2 does not see F, an event has come since R1, hooked, and what is at G after it is hooked as well: the walker is done
//! with G. It need not wait for a moment in which nothing happens there, which may not come.
//!
//! So no line is open that the TDX module would not tell of, and none that a live event wrote is overwritten. No line is
//! missing: an entry that is present from the grace period on is read by one of the steps, and one that comes later is
//! hooked. The same holds for S-EPT pages, with the entry that points to the table, and for control pages, with the TD's
//! stage of life: they are reclaimed after TDH.MNG.KEY.FREEID only.
//!
//! The whole depends on one walk at a time ([`claim`] of one must not be settled by the other), which userspace's lock
//! sees to.
//!
//! What an event does to a tentative line is in [`crate::line`]: none of it is a violation. One thing is lost: a frame that
//! is released, against the rules, between C and S, is entered by the next look at it, and its release is not told.

use super::{Store, frames::unmark};
use crate::{Line, Suspect, line::State};

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Claim {
    /// The line is tentative: to be settled.
    Made = 0,
    /// It is open, and says the same.
    Known = 1,
    /// It is open, and says something else.
    Other = 2,
    /// An event came in between: to be looked at again.
    Raced = 3,
    /// The frame has no place in the ledger.
    Outside = 4,
}

impl Claim {
    /// From its number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Made,
            1 => Self::Known,
            2 => Self::Other,
            3 => Self::Raced,
            _ => Self::Outside,
        }
    }
}

/// Makes the line of a frame tentative, where it is closed; `open` is what it is to become.
#[inline(always)]
pub fn claim<S: Store>(s: &mut S, pfn: u64, open: Line) -> Claim {
    let Some(slot) = s.slot_or_new(pfn) else {
        s.doubt(open.owner(), Suspect::OUTSIDE);
        return Claim::Outside;
    };
    let old = s.read(slot);
    if old.is_open() {
        return if old.is_lending(open) { Claim::Known } else { Claim::Other };
    }
    s.mark(pfn, true);
    if !s.replace(slot, old, open.with_state(State::Tentative)) {
        unmark(s, pfn, slot);
        return Claim::Raced;
    }
    // See `close` of the frames.
    if !s.is_marked(pfn) {
        s.mark(pfn, true);
    }
    s.count(open.owner(), open.kind(), true);
    Claim::Made
}

/// Opens the line that was claimed as `open`, if it still is so and the source says so `still`; else takes it back. True:
/// it is open.
#[inline(always)]
pub fn settle<S: Store>(s: &mut S, pfn: u64, open: Line, still: bool) -> bool {
    let Some(slot) = s.slot(pfn) else { return false };
    let tentative = open.with_state(State::Tentative);
    if still {
        return s.replace(slot, tentative, open);
    }
    if s.replace(slot, tentative, Line::FREE) {
        unmark(s, pfn, slot);
        s.count(open.owner(), open.kind(), false);
    }
    false
}
