//! The four steps of a zap.

use super::{
    Call, Out, Store,
    frames::{answer_of, change, close, found, open_line, zap_key, zap_of},
    lend::part,
};
use crate::{
    Leaf, Op, State, Suspect, Violation,
    zap::{PFN_UNKNOWN, TdNow, ZapKey},
};

/// BLOCK, TRACK or REMOVE returned: see [`crate::zap`] for why no frame is needed here.
#[inline(always)]
pub(super) fn zap_step<S: Store>(s: &mut S, leaf: Leaf, call: &Call, out: &mut impl Out) -> bool {
    let Some(td) = s.td_of(call.tdr) else { return false };
    let premap_exempt = s.premap_exempt();
    let Some(record) = s.record(td) else { return false };
    record.zap_called = 0;
    let (called_gfn, called_pfn) = (record.zap_gfn, record.zap_pfn);
    let late = record.suspect.has(Suspect::LATE);
    let now = TdNow { epoch: record.epoch, finalized: record.finalized != 0, premap_exempt, late };
    let tracked = matches!(leaf, Leaf::MemTrack) && call.answer.status.is_success();
    if tracked {
        record.epoch = record.epoch.wrapping_add(1);
    }
    let gfn = if matches!(leaf, Leaf::MemTrack) { record.zap_gfn } else { call.level.head(call.gfn) };
    if matches!(leaf, Leaf::MemRangeBlock) {
        record.zap_gfn = gfn;
    }
    let key = ZapKey { gfn, td: record.id, zero: 0 };
    let Some(zap) = s.zap_or_new(td, key) else {
        s.doubt(td, Suspect::ZAPS_FULL);
        return false;
    };
    if tracked {
        zap.busy = 0;
        if zap.is_void() {
            s.drop_zap(td, key);
        }
        return false;
    }
    let violation = zap.step(leaf, &call.answer, now);
    let named = matches!(leaf, Leaf::MemPageRemove) && call.pfn != PFN_UNKNOWN;
    if named {
        zap.pfn = call.pfn;
        zap.level = call.level as u8;
    }
    if let Some(violation) = violation {
        let out = out.begin();
        out.zap = *zap;
        out.pfn = call.pfn;
        out.gfn = gfn;
        // The frame that KVM's own function was called for, where its hook told: BLOCK and TRACK name none.
        if out.pfn == PFN_UNKNOWN && called_pfn != 0 && called_gfn == gfn {
            out.pfn = called_pfn;
        }
        found(s, violation, td, out);
    } else if zap.is_void() {
        s.drop_zap(td, key);
    }
    if named && !is_at(s, call.pfn, td, gfn) {
        part(s, td, key, call.pfn, call.level as u8);
        s.drop_zap(td, key);
    }
    violation.is_some()
}

/// Whether the frame is lent to this TD in the leaf that begins at `gfn`.
#[inline(always)]
fn is_at<S: Store>(s: &mut S, pfn: u64, td: u16, gfn: u64) -> bool {
    let Some((_, line)) = open_line(s, pfn) else { return false };
    line.is_in_sept() && line.owner() == td && line.level().head(line.gfn()) == gfn
}

/// WBINVD returned: the frame's line names the TD and the gfn, and so the zap.
#[inline(always)]
pub(super) fn write_back<S: Store>(s: &mut S, call: &Call, out: &mut impl Out) -> bool {
    let ok = call.answer.status.is_success();
    let Some((slot, line)) = open_line(s, call.pfn) else {
        // A frame that was lent before septwatch came: only a refusal says something.
        if ok {
            return false;
        }
        let out = answer_of(Leaf::PhymemPageWbinvd, call, out);
        return found(s, Violation::ZapFailed, 0, out);
    };
    let td = line.owner();
    let key = zap_key(s, line);
    if !ok {
        let Some(key) = key else {
            let out = answer_of(Leaf::PhymemPageWbinvd, call, out);
            out.gfn = line.gfn();
            out.line = line;
            return found(s, Violation::ZapFailed, td, out);
        };
        let now = TdNow { epoch: 0, finalized: true, premap_exempt: false, late: false };
        let Some(zap) = s.zap_or_new(td, key) else {
            s.doubt(td, Suspect::ZAPS_FULL);
            return false;
        };
        let Some(violation) = zap.step(Leaf::PhymemPageWbinvd, &call.answer, now) else { return false };
        let out = out.begin();
        out.zap = *zap;
        out.pfn = call.pfn;
        out.gfn = line.gfn();
        out.line = line;
        return found(s, violation, td, out);
    }
    let progress = key.map_or(0, |key| s.progress(td, key));
    let (before, violation) = change(s, slot, progress, Op::Flush);
    if let Some(violation) = violation {
        let out = out.begin();
        out.zap = zap_of(s, line);
        out.pfn = call.pfn;
        out.gfn = line.gfn();
        out.line = before;
        return found(s, violation, td, out);
    }
    // The cache lines of an S-EPT or control page may be written back while it is owned: it stays so.
    if matches!(before.state(), State::Removed | State::Tentative) {
        close(s, call.pfn, slot, line);
    }
    false
}
