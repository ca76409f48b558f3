//! Steps of the tracker that stand alone.
//!
//! The kernel's verifier follows an ordinary function anew at every call of it, with all that is known there. A global
//! function, whose arguments are numbers or pointers to plain structures, it verifies once; of a call it then knows
//! nothing but that a number comes back. That makes a program cheap to load whose paths would be many otherwise. So
//! these have C's linkage, and a pointer may be null in the eyes of the verifier.

use core::mem::MaybeUninit;

use septwatch_common::{
    Life, Line, Suspect,
    tracker::{self, Finding},
    zap::{Zap, ZapKey},
};

use crate::{
    hand, react,
    store::{self, Maps},
};

/// An index of a TD as a number; 0: none.
#[inline(always)]
fn number(td: Option<u16>) -> u64 {
    td.map_or(0, u64::from)
}

/// A TD's index; 0: none.
#[inline(always)]
fn index(td: u64) -> Option<u16> {
    if td == 0 { None } else { Some(td as u16) }
}

#[inline(always)]
pub fn td_of(tdr: u64) -> Option<u16> {
    index(step_td_of(tdr))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_td_of(tdr: u64) -> u64 {
    number(tracker::td_of(&mut Maps, tdr))
}

/// Frame numbers are below this.
const NO_FRAME: u64 = u64::MAX;

#[inline(always)]
pub fn find_tdr(at: u64) -> Option<u64> {
    match step_find_tdr(at) {
        NO_FRAME => None,
        tdr => Some(tdr),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_find_tdr(at: u64) -> u64 {
    store::find_tdr(at).unwrap_or(NO_FRAME)
}

#[inline(always)]
pub fn lend_one(td: u16, pfn: u64, new: Line) -> Line {
    Line(step_lend_one(u32::from(td), pfn, new.0))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_lend_one(td: u32, pfn: u64, new: u64) -> u64 {
    tracker::lend_one(&mut Maps, td as u16, pfn, Line(new)).0
}

#[inline(always)]
pub fn closed(pfn: u64, line: Line, lent: bool) {
    step_closed(pfn, line.0, u32::from(lent));
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_closed(pfn: u64, line: u64, lent: u32) -> u64 {
    tracker::closed(&mut Maps, pfn, Line(line), lent != 0);
    0
}

#[inline(always)]
pub fn doubts(td: u16) -> Suspect {
    Suspect(step_doubts(u32::from(td)) as u32)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_doubts(td: u32) -> u64 {
    u64::from(tracker::doubts(&mut Maps, td as u16).0)
}

#[inline(always)]
pub fn life(td: u16, life: Life) {
    step_life(u32::from(td), life as u32);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_life(td: u32, life: u32) -> u64 {
    store::life(td as u16, life as u8);
    0
}

#[inline(always)]
pub fn release(pfn: u64, batched: bool, now_ns: u64, out: &mut MaybeUninit<Finding>) -> bool {
    step_release(pfn, u32::from(batched), now_ns, out) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_release(pfn: u64, batched: u32, now_ns: u64, out: *mut MaybeUninit<Finding>) -> u64 {
    // SAFETY: null or `release`'s.
    let Some(out) = (unsafe { out.as_mut() }) else { return 0 };
    u64::from(tracker::release(&mut Maps, pfn, batched != 0, now_ns, out))
}

#[inline(always)]
pub fn allocation(pfn: u64, now_ns: u64, out: &mut MaybeUninit<Finding>) -> bool {
    step_allocation(pfn, now_ns, out) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_allocation(pfn: u64, now_ns: u64, out: *mut MaybeUninit<Finding>) -> u64 {
    // SAFETY: null or `allocation`'s.
    let Some(out) = (unsafe { out.as_mut() }) else { return 0 };
    u64::from(tracker::allocation(&mut Maps, pfn, now_ns, out))
}

#[inline(always)]
pub fn zap(td: u16, key: ZapKey) -> Option<Zap> {
    let mut zap = MaybeUninit::uninit();
    if step_zap(u32::from(td), key.gfn, key.td, &raw mut zap) == 0 {
        return None;
    }
    // SAFETY: `step_zap` wrote it.
    Some(unsafe { zap.assume_init() })
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_zap(td: u32, gfn: u64, id: u32, out: *mut MaybeUninit<Zap>) -> u64 {
    // SAFETY: null or `zap`'s.
    let Some(out) = (unsafe { out.as_mut() }) else { return 0 };
    let Some(zap) = hand::find(td as u16, ZapKey { gfn, td: id, zero: 0 }) else { return 0 };
    out.write(*zap);
    1
}

#[inline(always)]
pub fn take_zap(td: u16, key: ZapKey) -> bool {
    step_take_zap(u32::from(td), key.gfn, key.td) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_take_zap(td: u32, gfn: u64, id: u32) -> u64 {
    u64::from(hand::exchange(td as u16, ZapKey { gfn, td: id, zero: 0 }).is_some())
}

#[inline(always)]
pub fn follow_rules(finding: &Finding, rules: u32, now_ns: u64) {
    step_follow_rules(finding, rules, now_ns);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_follow_rules(finding: *const Finding, rules: u32, now_ns: u64) -> u64 {
    // SAFETY: null or `follow_rules`'.
    let Some(finding) = (unsafe { finding.as_ref() }) else { return 0 };
    react::follow(finding, rules, now_ns);
    0
}
