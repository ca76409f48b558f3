//! What is at hand of each TD: its address, and its zap under way. Its other zaps are in a table.
//!
//! A zap of which steps are taken is taken in hand, and what was in hand is laid by, if anything is known of it. That is
//! done under KVM's mmu_lock, held for writing. Who only asks for a zap, such as the release of a frame, leaves all as it
//! is. An element that is dropped while somebody looks at it may serve another zap: that needs two bugs at once, and
//! then costs a wrong reason.

use aya_ebpf::bindings::BPF_ANY;
use septwatch_common::zap::{Zap, ZapKey};

use crate::{
    atomic,
    maps::{HANDS, Hand, ZAPS},
    steps,
};

#[inline(always)]
fn of_td<'a>(td: u16) -> Option<&'a mut Hand> {
    // SAFETY: points into a map value. Others write to it at the same time only as told above.
    HANDS.get_ptr_mut(u32::from(td)).map(|hand| unsafe { &mut *hand })
}

#[inline(always)]
fn same(a: ZapKey, b: ZapKey) -> bool {
    a.gfn == b.gfn && a.td == b.td
}

/// Whether the TD is the one with this `struct tdx_td`. Such addresses are used again, but not before another TD was
/// numbered.
#[inline(always)]
pub fn is_of(td: u16, at: u64, numbered: u64) -> bool {
    of_td(td).is_some_and(|hand| hand.at == at && hand.numbered == numbered)
}

#[inline(always)]
pub fn belongs_to(td: u16, at: u64, numbered: u64) {
    if let Some(hand) = of_td(td) {
        hand.at = at;
        hand.numbered = numbered;
    }
}

/// In hand, or in the table. Where it is void nothing may be told.
#[inline(always)]
pub fn find<'a>(td: u16, key: ZapKey) -> Option<&'a mut Zap> {
    let hand = of_td(td)?;
    if same(hand.key, key) {
        return if hand.zap.is_void() { None } else { Some(&mut hand.zap) };
    }
    if hand.laid_by == 0 {
        return None;
    }
    // SAFETY: points into a map value; see above.
    ZAPS.get_ptr_mut(key).map(|zap| unsafe { &mut *zap })
}

/// What is known of a zap. Mostly nothing is, and that is soon found out.
#[inline(always)]
pub fn zap(td: u16, key: ZapKey) -> Option<Zap> {
    let hand = of_td(td)?;
    let at_hand = same(hand.key, key) && !hand.zap.is_void();
    if at_hand || hand.laid_by != 0 { steps::zap(td, key) } else { None }
}

#[inline(always)]
pub fn progress(td: u16, key: ZapKey) -> u8 {
    match of_td(td) {
        Some(hand) if same(hand.key, key) => hand.zap.progress,
        Some(hand) if hand.laid_by != 0 => steps::zap(td, key).map_or(0, |zap| zap.progress),
        _ => 0,
    }
}

/// A zap of which a step is taken; `None` where what was in hand finds no place.
#[inline(always)]
pub fn take<'a>(td: u16, key: ZapKey) -> Option<&'a mut Zap> {
    let hand = of_td(td)?;
    if !same(hand.key, key) && !steps::take_zap(td, key) {
        return None;
    }
    Some(&mut hand.zap)
}

/// The same where another is in hand.
#[inline(always)]
pub fn exchange(td: u16, key: ZapKey) -> Option<()> {
    let hand = of_td(td)?;
    if !hand.zap.is_void() {
        ZAPS.insert(hand.key, hand.zap, u64::from(BPF_ANY)).ok()?;
        // SAFETY: points into a map value.
        unsafe { atomic::fetch_add(&raw mut hand.laid_by, 1) };
    }
    hand.zap = Zap::default();
    hand.key = key;
    if hand.laid_by != 0
        // SAFETY: the value is copied at once.
        && let Some(zap) = unsafe { ZAPS.get(key) }
    {
        hand.zap = *zap;
        forget(hand, key);
    }
    Some(())
}

#[inline(always)]
pub fn drop(td: u16, key: ZapKey) {
    let Some(hand) = of_td(td) else { return };
    if same(hand.key, key) {
        hand.zap = Zap::default();
    } else if hand.laid_by != 0 {
        forget(hand, key);
    }
}

/// Removes a zap from the table.
#[inline(always)]
fn forget(hand: &mut Hand, key: ZapKey) {
    if ZAPS.remove(key).is_ok() {
        // SAFETY: points into a map value.
        unsafe { atomic::fetch_add(&raw mut hand.laid_by, u64::MAX) };
    }
}

/// The TD's index was another's.
#[inline(always)]
pub fn empty(td: u16) {
    if let Some(hand) = of_td(td) {
        hand.at = 0;
        hand.key = ZapKey { gfn: 0, td: 0, zero: 0 };
        hand.zap = Zap::default();
        hand.laid_by = 0;
    }
}
