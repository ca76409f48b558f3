//! The four steps of a zap.

use super::{
    Call, Finding, Store,
    frames::{answer_of, change, found, open_line, zap_key},
    lend::part,
};
use crate::{
    Leaf, Op, State, Suspect, Violation,
    zap::{PFN_UNKNOWN, TdNow, ZapKey},
};

/// BLOCK, TRACK or REMOVE returned: see [`crate::zap`] for why no frame is needed here.
#[inline(always)]
pub(super) fn zap_step<S: Store>(s: &mut S, leaf: Leaf, call: &Call, out: &mut Finding) -> bool {
    let Some(td) = s.td_of(call.tdr) else { return false };
    let premap_exempt = s.premap_exempt();
    let Some(record) = s.record(td) else { return false };
    record.zap_called_ns = 0;
    let (called_gfn, called_pfn) = (record.zap_gfn, record.zap_pfn);
    let now = TdNow { epoch: record.epoch, finalized: record.finalized != 0, premap_exempt };
    let gfn = if matches!(leaf, Leaf::MemTrack) {
        if call.answer.status.is_success() {
            record.epoch = record.epoch.wrapping_add(1);
            let key = ZapKey { gfn: record.zap_gfn, td: record.id, zero: 0 };
            if let Some(zap) = s.zap(key) {
                zap.busy = 0;
                if zap.is_void() {
                    s.drop_zap(key);
                }
            }
            return false;
        }
        record.zap_gfn
    } else {
        call.level.head(call.gfn)
    };
    if matches!(leaf, Leaf::MemRangeBlock) {
        record.zap_gfn = gfn;
    }
    let key = ZapKey { gfn, td: record.id, zero: 0 };
    let Some(zap) = s.zap_or_new(key) else {
        s.doubt(td, Suspect::ZAPS_FULL);
        return false;
    };
    let violation = zap.step(leaf, &call.answer, now);
    let named = matches!(leaf, Leaf::MemPageRemove) && call.pfn != PFN_UNKNOWN;
    if named {
        zap.pfn = call.pfn;
        zap.level = call.level as u8;
    }
    out.zap = *zap;
    out.pfn = call.pfn;
    if zap.is_void() {
        s.drop_zap(key);
    }
    if named && !is_at(s, call.pfn, td, gfn) {
        part(s, td, key, call.pfn, call.level as u8);
        s.drop_zap(key);
    }
    let Some(violation) = violation else { return false };
    out.gfn = gfn;
    // The frame that KVM's own function was called for, where its hook told: BLOCK and TRACK name none.
    if out.pfn == PFN_UNKNOWN && called_pfn != 0 && called_gfn == gfn {
        out.pfn = called_pfn;
    }
    found(s, violation, td, out)
}

/// Whether the frame is lent to this TD in the leaf that begins at `gfn`.
#[inline(always)]
fn is_at<S: Store>(s: &mut S, pfn: u64, td: u16, gfn: u64) -> bool {
    let Some((_, line)) = open_line(s, pfn) else { return false };
    line.is_in_sept() && line.owner() == td && line.level().head(line.gfn()) == gfn
}

/// WBINVD returned: the frame's line names the TD and the gfn, and so the zap.
#[inline(always)]
pub(super) fn write_back<S: Store>(s: &mut S, call: &Call, out: &mut Finding) -> bool {
    let ok = call.answer.status.is_success();
    out.pfn = call.pfn;
    let Some((slot, line)) = open_line(s, call.pfn) else {
        // A frame that was lent before septwatch came: only a refusal says something.
        if !ok {
            answer_of(Leaf::PhymemPageWbinvd, call, out);
        }
        return !ok && found(s, Violation::ZapFailed, 0, out);
    };
    let td = line.owner();
    out.gfn = line.gfn();
    out.line = line;
    let key = zap_key(s, line);
    if !ok {
        let Some(key) = key else {
            answer_of(Leaf::PhymemPageWbinvd, call, out);
            out.gfn = line.gfn();
            return found(s, Violation::ZapFailed, td, out);
        };
        let now = TdNow { epoch: 0, finalized: true, premap_exempt: false };
        let Some(zap) = s.zap_or_new(key) else {
            s.doubt(td, Suspect::ZAPS_FULL);
            return false;
        };
        let violation = zap.step(Leaf::PhymemPageWbinvd, &call.answer, now);
        out.zap = *zap;
        return violation.is_some_and(|violation| found(s, violation, td, out));
    }
    if let Some(key) = key
        && let Some(zap) = s.zap(key)
    {
        out.zap = *zap;
    }
    let (before, violation) = change(s, slot, out.zap.progress, Op::Flush);
    out.line = before;
    if let Some(violation) = violation {
        return found(s, violation, td, out);
    }
    // The cache lines of an S-EPT or control page may be written back while it is owned: it stays so.
    if matches!(before.state(), State::Removed | State::Tentative) {
        s.closed(call.pfn, line);
    }
    false
}
