//! Frames on their way into the TDX module, and back by RECLAIM.

use super::{
    Call, Each, Out, Store,
    frames::{answer_of, change, close, found, key, open_line, progress},
};
use crate::{
    Leaf, Level, Life, Line, Op, PageKind, Suspect, Violation, apply,
    zap::{Zap, ZapKey},
};

/// The TD that a call names. One that is not known began before septwatch.
#[inline(always)]
pub fn td_of<S: Store>(s: &mut S, tdr: u64) -> Option<u16> {
    if let Some(td) = s.td(tdr) {
        return Some(td);
    }
    let td = s.td_begin(tdr, 0, Suspect::LATE)?;
    if let Some(record) = s.record(td) {
        // Whether it can run is not known: it most likely does, and TRACK is only asked for if so.
        record.finalized = 1;
    }
    s.life(td, Life::Finalized);
    // Of all that was lent to it before, the TDR is known: its RECLAIM tells that the TD is gone.
    let first = Line::open(PageKind::Tdr, td, Level::L4K, 0);
    s.lend_one(td, tdr, first);
    Some(td)
}

/// ADD, AUG or SEPT.ADD returned.
#[inline(always)]
pub(super) fn map<S: Store>(s: &mut S, call: &Call, leaf: Leaf, kind: PageKind, out: &mut impl Out) -> bool {
    let Some(td) = s.td_of(call.tdr) else { return false };
    let status = call.answer.status;
    if status.is_busy() {
        // tdx.c, tdx_mem_page_aug() and others: -EBUSY, and the fault is taken again.
        return false;
    }
    if !status.is_success() {
        let out = answer_of(leaf, call, out);
        return found(s, Violation::MapFailed, td, out);
    }
    if !matches!(kind, PageKind::Leaf) {
        return lend(s, td, call.pfn, call, kind, out);
    }
    // That the module maps something there says that the zap there is over.
    let key = key(s, td, call.gfn, call.level);
    let zap = s.zap(td, key);
    if let Some(zap) = zap
        && zap.progress & Zap::REMOVED != 0
    {
        part(s, td, key, zap.pfn, zap.level);
    }
    let violation = lend(s, td, call.pfn, call, kind, out);
    if zap.is_some() {
        s.drop_zap(td, key);
    }
    violation
}

/// The frames of a removed leaf part with their zap: that they are removed is written into their lines.
#[inline(always)]
pub(super) fn part<S: Store>(s: &mut S, td: u16, key: ZapKey, pfn: u64, level: u8) {
    if pfn != 0
        && let Some(level) = Level::from_tdx(u64::from(level))
    {
        let first = Line::open(PageKind::Leaf, td, level, key.gfn);
        s.each(level.frames(), &mut Part { pfn, first });
    }
}

struct Part {
    pfn: u64,
    /// The line of the first frame, as it was lent.
    first: Line,
}

impl<S: Store> Each<S> for Part {
    #[inline(always)]
    fn one(&mut self, s: &mut S, n: u64) {
        if let Some((slot, line)) = open_line(s, self.pfn.wrapping_add(n))
            && line.is_lending(self.first.nth(n))
        {
            change(s, slot, 0, Op::Remove { ordered: true });
        }
    }
}

/// The module took a frame, or all frames of a leaf.
#[inline(always)]
pub(super) fn lend<S: Store>(
    s: &mut S,
    td: u16,
    pfn: u64,
    call: &Call,
    kind: PageKind,
    out: &mut impl Out,
) -> bool {
    let frames = if matches!(kind, PageKind::Leaf) { call.level.frames() } else { 1 };
    let first = Line::open(kind, td, call.level, call.gfn);
    let mut lend = Lend { td, pfn, first, line: Line::FREE, at: 0 };
    s.each(frames, &mut lend);
    // Of a closed line the rules find nothing wrong, and nearly every line was.
    if !lend.line.is_open() {
        return false;
    }
    let (_, Some(violation)) = apply(lend.line, Op::Lend(first)) else { return false };
    let out = out.begin();
    out.line = lend.line;
    out.pfn = pfn.wrapping_add(lend.at);
    out.gfn = call.gfn.wrapping_add(lend.at);
    out.other = lend.line.owner();
    out.frames = frames;
    found(s, violation, td, out)
}

struct Lend {
    td: u16,
    pfn: u64,
    /// The line of the first frame.
    first: Line,
    /// Of the first frame whose line was open: that line, and which frame it is. (No sum: the kernel's verifier would
    /// follow it through every value.)
    line: Line,
    at: u64,
}

impl<S: Store> Each<S> for Lend {
    #[inline(always)]
    fn one(&mut self, s: &mut S, n: u64) {
        let before = s.lend_one(self.td, self.pfn.wrapping_add(n), self.first.nth(n));
        if before.is_open() && !self.line.is_open() {
            self.line = before;
            self.at = n;
        }
    }
}

/// The module took one frame, whose line is `new` now. Returns what it was before: open, where that is a violation.
#[inline(always)]
pub fn lend_one<S: Store>(s: &mut S, td: u16, pfn: u64, new: Line) -> Line {
    let Some(slot) = s.slot_or_new(pfn) else {
        s.doubt(td, Suspect::OUTSIDE);
        return Line::FREE;
    };
    s.mark(pfn, true);
    // Whatever was there, the module has it now: no rule of [`apply`]'s says otherwise.
    let old = s.swap(slot, new);
    // See `close`.
    if !s.is_marked(pfn) {
        s.mark(pfn, true);
    }
    let mut before = old;
    if old.is_open() {
        before = Zap::fold(progress(s, old), old);
        s.closed(pfn, old, true);
    }
    s.count(td, new.kind(), true);
    before
}

/// RECLAIM returned. A reclaimed leaf (its TD's HKID is free already) counts as removed.
#[inline(always)]
pub(super) fn reclaim<S: Store>(s: &mut S, call: &Call, out: &mut impl Out) -> bool {
    let open = open_line(s, call.pfn);
    if !call.answer.status.is_success() {
        let line = open.map_or(Line::FREE, |(_, line)| line);
        return leak(s, line.owner(), line, Leaf::PhymemPageReclaim, call, out);
    }
    let Some((_, line)) = open else { return false };
    let frames = if matches!(line.kind(), PageKind::Leaf) { line.level().frames() } else { 1 };
    s.each(frames, &mut Reclaim { pfn: call.pfn });
    if !matches!(line.kind(), PageKind::Tdr) {
        return false;
    }
    let td = line.owner();
    let left = s.record(td).map_or(0, |record| record.lent());
    if left != 0 {
        let out = out.begin();
        out.pfn = call.pfn;
        out.line = line;
        out.frames = left;
        found(s, Violation::TeardownLeak, td, out);
    }
    s.life(td, Life::Gone);
    left != 0
}

struct Reclaim {
    pfn: u64,
}

impl<S: Store> Each<S> for Reclaim {
    #[inline(always)]
    fn one(&mut self, s: &mut S, n: u64) {
        let pfn = self.pfn.wrapping_add(n);
        if let Some((slot, _)) = open_line(s, pfn) {
            let (before, _) = change(s, slot, 0, Op::Reclaim);
            // The walk may have taken its line back in between.
            if before.is_open() {
                close(s, pfn, slot, before);
            }
        }
    }
}

/// A step of a TD's end failed: what it still holds is lost to the host.
#[inline(always)]
pub(super) fn leak<S: Store>(
    s: &mut S,
    td: u16,
    line: Line,
    leaf: Leaf,
    call: &Call,
    out: &mut impl Out,
) -> bool {
    let out = answer_of(leaf, call, out);
    out.line = line;
    out.frames = s.record(td).map_or(1, |record| record.lent());
    found(s, Violation::TeardownLeak, td, out)
}
