//! What the page allocator receives and hands out, and what all of the tracker does to one line.

use super::{Call, Finding, Out, Store};
use crate::{
    Leaf, Level, Line, Op, Suspect, Violation, apply,
    zap::{Zap, ZapKey},
};

/// The allocator received a frame. True: `out` holds a violation.
#[inline(always)]
pub fn release<S: Store>(s: &mut S, pfn: u64, batched: bool, now_ns: u64, out: &mut impl Out) -> bool {
    frame(s, pfn, Op::Free { batched }, now_ns, out)
}

/// The allocator handed a frame out. True: `out` holds a violation.
#[inline(always)]
pub fn allocation<S: Store>(s: &mut S, pfn: u64, now_ns: u64, out: &mut impl Out) -> bool {
    frame(s, pfn, Op::Alloc, now_ns, out)
}

#[inline(always)]
fn frame<S: Store>(s: &mut S, pfn: u64, op: Op, now_ns: u64, out: &mut impl Out) -> bool {
    let Some((slot, line)) = open_line(s, pfn) else { return false };
    let td = line.owner();
    let progress = progress(s, line);
    let (before, violation) = change(s, slot, progress, op);
    let Some(violation) = violation else {
        if before.is_tentative() && matches!(op, Op::Free { .. }) {
            close(s, pfn, slot, before);
        }
        return false;
    };
    let out = out.begin();
    out.zap = zap_of(s, line);
    out.line = before;
    out.pfn = pfn;
    out.gfn = line.gfn();
    if matches!(violation, Violation::ReusedWhileMapped) {
        out.released_ns = s.window(pfn);
        s.close_window(pfn);
    } else {
        out.released_ns = now_ns;
        if matches!(violation, Violation::FreedUnflushed) {
            close(s, pfn, slot, line);
        } else {
            s.open_window(pfn, now_ns);
        }
    }
    found(s, violation, td, out)
}

#[inline(always)]
pub(super) fn open_line<S: Store>(s: &mut S, pfn: u64) -> Option<(S::Slot, Line)> {
    let slot = s.slot(pfn)?;
    let line = s.read(slot);
    if line.is_open() { Some((slot, line)) } else { None }
}

/// Applies `op` to a line that others may change at the same time. The line comes back as it was, with what the zap
/// of its leaf knows, by the progress of that. Only what `op` changes is written: the rest stays the zap's to say.
#[inline(always)]
pub(super) fn change<S: Store>(s: &mut S, slot: S::Slot, progress: u8, op: Op) -> (Line, Option<Violation>) {
    // KVM's locks keep two SEAMCALLs for one frame apart; a release that a bug lets run beside one can lose the race
    // once, not again and again; nor can the walk, which has one move left where a line is open (see [`super::walk`]).
    // The kernel's verifier pays for every try.
    const TRIES: u32 = 2;
    let mut before = Line::FREE;
    let mut violation = None;
    let mut tries = 0;
    while tries < TRIES {
        let old = s.read(slot);
        before = Zap::fold(progress, old);
        let (mut after, judged) = apply(before, op);
        if after.is_in_state_of(before) {
            after = after.with_state_of(old);
        }
        violation = judged;
        if after.0 == old.0 || s.replace(slot, old, after) {
            break;
        }
        tries += 1;
    }
    (before, violation)
}

/// A line was closed; `line` is what was written there.
#[inline(always)]
pub(super) fn close<S: Store>(s: &mut S, pfn: u64, slot: S::Slot, line: Line) {
    s.closed(pfn, line, false);
    remark(s, pfn, slot);
}

/// A line is closed: it has no mark any more.
#[inline(always)]
pub(super) fn unmark<S: Store>(s: &mut S, pfn: u64, slot: S::Slot) {
    s.mark(pfn, false);
    remark(s, pfn, slot);
}

/// The mark of a line was cleared. Whoever opens it meanwhile marks it after that, and either is last. At worst a mark
/// outlives its line, until the frame is lent again: that costs a look-up at a release.
#[inline(always)]
fn remark<S: Store>(s: &mut S, pfn: u64, slot: S::Slot) {
    if s.read(slot).is_open() {
        s.mark(pfn, true);
    }
}

/// A line is closed, or `lent` anew; `line` is what was written there. A leaf of which every frame went is over, and so
/// is its zap.
#[inline(always)]
pub fn closed<S: Store>(s: &mut S, pfn: u64, line: Line, lent: bool) {
    if !lent {
        s.mark(pfn, false);
    }
    let td = line.owner();
    s.count(td, line.kind(), false);
    if line.is_released() {
        s.close_window(pfn);
    }
    let Some(key) = zap_key(s, line) else { return };
    let mut over = false;
    if let Some(zap) = s.zap_of_closed(td, key) {
        zap.closed = zap.closed.wrapping_add(1);
        over = u64::from(zap.closed) >= line.level().frames();
    }
    if over {
        s.drop_zap(td, key);
    }
}

/// The key of the zap of a line's leaf, where it can have one.
#[inline(always)]
pub(super) fn zap_key<S: Store>(s: &mut S, line: Line) -> Option<ZapKey> {
    if !line.has_zap() {
        return None;
    }
    Some(key(s, line.owner(), line.gfn(), line.level()))
}

/// What is known of that.
#[inline(always)]
pub(super) fn zap_of<S: Store>(s: &mut S, line: Line) -> Zap {
    let zap = match zap_key(s, line) {
        Some(key) => s.zap(line.owner(), key),
        None => None,
    };
    zap.unwrap_or_default()
}

/// How far it has come.
#[inline(always)]
pub(super) fn progress<S: Store>(s: &mut S, line: Line) -> u8 {
    match zap_key(s, line) {
        Some(key) => s.progress(line.owner(), key),
        None => 0,
    }
}

#[inline(always)]
pub(super) fn key<S: Store>(s: &mut S, td: u16, gfn: u64, level: Level) -> ZapKey {
    let id = s.record(td).map_or(0, |record| record.id);
    ZapKey { gfn: level.head(gfn), td: id, zero: 0 }
}

#[inline(always)]
pub(super) fn answer_of<'a>(leaf: Leaf, call: &Call, out: &'a mut impl Out) -> &'a mut Finding {
    let out = out.begin();
    out.pfn = call.pfn;
    out.gfn = call.gfn;
    out.zap.failed_ns = call.answer.now_ns;
    out.zap.failed_status = call.answer.status.0;
    out.zap.ext_err1 = call.answer.ext_err1;
    out.zap.ext_err2 = call.answer.ext_err2;
    out.zap.failed_leaf = leaf as u8;
    out
}

#[inline(always)]
pub(super) fn found<S: Store>(s: &mut S, violation: Violation, td: u16, out: &mut Finding) -> bool {
    out.violation = violation;
    out.td = td;
    if let Some(record) = s.record(td) {
        out.invalidation_ns = record.invalidation_ns;
        if matches!(violation, Violation::ZapFailed | Violation::MapFailed | Violation::TeardownLeak) {
            record.failed_ns = out.zap.failed_ns;
            record.failed_status = out.zap.failed_status;
            record.failed_leaf = out.zap.failed_leaf;
        }
    }
    out.suspect = s.doubts(td);
    true
}

/// Every reason for doubt about a verdict on this TD.
#[inline(always)]
pub fn doubts<S: Store>(s: &mut S, td: u16) -> Suspect {
    // A frame without a line, and so without a TD: it was lent before septwatch came, or found no room.
    let of_td = s.record(td).map_or(Suspect::OUTSIDE, |record| record.suspect);
    s.suspect().and(of_td)
}
