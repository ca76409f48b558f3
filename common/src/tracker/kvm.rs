//! What KVM's own functions tell beside the SEAMCALLs.

use super::{
    Out, Store,
    frames::{found, key, open_line, progress},
};
use crate::{
    Level, PageKind, Violation,
    zap::{PFN_UNKNOWN, Zap},
};

/// KVM called the VM of this TD bugged. True: `out` holds the violation, with the SEAMCALL that failed last.
///
/// KVM says so once for a VM; what fails on it afterwards it does not tell. A TD that is over (its TDR is reclaimed), or
/// that began before septwatch, is named by the frame of its TDR only.
#[inline(always)]
pub fn vm_bugged<S: Store>(s: &mut S, tdr: u64, now_ns: u64, out: &mut impl Out) -> bool {
    let td = s.td(tdr).unwrap_or(0);
    let record = s.record(td);
    if record.as_ref().is_some_and(|record| record.bugged_ns != 0) {
        return false;
    }
    let out = out.begin();
    match record {
        Some(record) => {
            record.bugged_ns = now_ns;
            out.zap.failed_ns = record.failed_ns;
            out.zap.failed_status = record.failed_status;
            out.zap.failed_leaf = record.failed_leaf;
            out.frames = record.lent();
        }
        None => out.pfn = tdr,
    }
    found(s, Violation::VmBugged, td, out)
}

/// KVM's function that zaps a leaf was called: it knows the frame, which BLOCK, TRACK and REMOVE do not name.
#[inline(always)]
pub fn zap_called<S: Store>(s: &mut S, tdr: u64, gfn: u64, level: Level, pfn: u64) {
    let Some(td) = s.td(tdr) else { return };
    let Some(record) = s.record(td) else { return };
    record.zap_gfn = level.head(gfn);
    record.zap_pfn = pfn;
    record.zap_called = 1;
}

/// It returned. True: `out` holds a violation, because no SEAMCALL followed, so that the TD maps the leaf as before,
/// while KVM believes that it does not: tdx.c gives up in silence where the HKID is gone or the level is not 4K.
#[inline(always)]
pub fn zap_returned<S: Store>(s: &mut S, tdr: u64, now_ns: impl FnOnce() -> u64, out: &mut impl Out) -> bool {
    let Some(td) = s.td(tdr) else { return false };
    let Some(record) = s.record(td) else { return false };
    let (called, gfn, pfn) = (record.zap_called, record.zap_gfn, record.zap_pfn);
    record.zap_called = 0;
    record.zap_pfn = 0;
    if called == 0 {
        return false;
    }
    let Some((_, line)) = open_line(s, pfn) else { return false };
    if line.owner() != td || !line.is_in_sept() {
        return false;
    }
    let key = key(s, td, gfn, line.level());
    let Some(zap) = s.zap_or_new(td, key) else { return false };
    if zap.has_failed() {
        return false;
    }
    zap.begun_ns = now_ns();
    zap.failed_ns = zap.begun_ns;
    zap.failed_leaf = Zap::NO_SEAMCALL;
    let out = out.begin();
    out.zap = *zap;
    out.line = line;
    out.pfn = pfn;
    out.gfn = gfn;
    found(s, Violation::ZapFailed, td, out)
}

/// The host did something to a frame that must not happen while a TD maps it: `violation` says what. True: a TD does.
#[inline(always)]
pub fn struck<S: Store>(s: &mut S, pfn: u64, violation: Violation, out: &mut impl Out) -> bool {
    if pfn == PFN_UNKNOWN {
        return false;
    }
    let Some((_, line)) = open_line(s, pfn) else { return false };
    if !matches!(line.kind(), PageKind::Leaf) {
        return false;
    }
    let progress = progress(s, line);
    let now = Zap::fold(progress, line);
    if !now.is_in_sept() {
        return false;
    }
    let out = out.begin();
    out.line = now;
    out.pfn = pfn;
    out.gfn = line.gfn();
    found(s, violation, line.owner(), out)
}
