//! Random lives: steps that proptest draws and shrinks, and what each becomes in the world at that moment.

use proptest::prelude::*;
use septwatch_common::{
    Leaf, Level, PageKind, Status,
    tracker::Call,
    zap::{Answer, PFN_UNKNOWN},
};

use crate::naive::{self, Naive};

const BUSY: u64 = 0x8000_0200_0000_0092;
const PREMAPPED: u64 = 0xC000_0B0D_0000_0001;
/// Answers that noise draws from; success is the most frequent.
const STATUSES: [u64; 10] =
    [0, 0, 0, 0, BUSY, 0x8000_0200_0000_0001, PREMAPPED, 0xC000_0B03_0000_0001, 0x0000_0B07_0000_0001, 1];

pub const TDRS: u64 = 0x300;
const TDS: u64 = 4;
const CONTROL: u64 = 0x310;
pub const SMALL: u64 = 0x3f0;
const SMALLS: u64 = 48;
const HUGE: u64 = 0x800;
const HUGES: u64 = 3;
const GFNS: u64 = 16;
const HUGE_GFN: u64 = 0x400;
/// 39 bits of ones, for a 4K leaf: the last guest frame that there can be.
const LAST_GFN: u64 = (1 << 39) - 1;

/// What goes wrong in a zap.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    BusyOnce(Leaf),
    BusyTwice(Leaf),
    Refused(Leaf),
    /// The step is left out, and what follows succeeds.
    Skipped(Leaf),
    /// REMOVE does not say which frame it removed.
    Unnamed,
    FreedFirst,
}

#[derive(Clone, Debug)]
pub enum Step {
    Begin { td: u64 },
    Finalize { td: u64 },
    Map { td: u64, gfn: u64, pfn: u64, huge: bool, late: bool },
    Sept { td: u64, gfn: u64, pfn: u64 },
    Zap { leaf: usize, fault: Fault, free: bool, reuse: bool },
    End { td: u64, reclaims: bool },
    Call { leaf: Leaf, td: u64, pfn: u64, gfn: u64, huge: bool, status: usize, entry: u64, named: bool },
    Free { pfn: u64, batched: bool },
    Alloc { pfn: u64 },
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Call(Leaf, Call),
    Free { pfn: u64, batched: bool },
    Alloc { pfn: u64 },
}

fn zap_leaf() -> impl Strategy<Value = Leaf> {
    prop::sample::select(vec![
        Leaf::MemRangeBlock,
        Leaf::MemTrack,
        Leaf::MemPageRemove,
        Leaf::PhymemPageWbinvd,
    ])
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        2 => zap_leaf().prop_map(Fault::BusyOnce),
        1 => zap_leaf().prop_map(Fault::BusyTwice),
        2 => zap_leaf().prop_map(Fault::Refused),
        2 => zap_leaf().prop_map(Fault::Skipped),
        1 => Just(Fault::Unnamed),
        1 => Just(Fault::FreedFirst),
    ]
}

/// Any frame of the world, and a few outside.
fn pfn() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => SMALL..SMALL + SMALLS,
        3 => TDRS..TDRS + TDS,
        2 => CONTROL..CONTROL + 16,
        2 => HUGE..HUGE + HUGES * 512,
        1 => Just(u64::from(u32::MAX)),
    ]
}

fn gfn() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..GFNS, 2 => HUGE_GFN..HUGE_GFN + 1024, 1 => Just(LAST_GFN)]
}

pub fn step(noise: u32, huge: f64) -> impl Strategy<Value = Step> {
    let td = || 0..TDS;
    prop_oneof![
        2 => td().prop_map(|td| Step::Begin { td }),
        1 => td().prop_map(|td| Step::Finalize { td }),
        12 => (td(), gfn(), any::<u64>(), prop::bool::weighted(huge), prop::bool::weighted(0.05))
            .prop_map(|(td, gfn, pfn, huge, late)| Step::Map { td, gfn, pfn, huge, late }),
        2 => (td(), gfn(), any::<u64>()).prop_map(|(td, gfn, pfn)| Step::Sept { td, gfn, pfn }),
        12 => (any::<usize>(), fault(), prop::bool::weighted(0.9), prop::bool::weighted(0.3))
            .prop_map(|(leaf, fault, free, reuse)| Step::Zap { leaf, fault, free, reuse }),
        1 => (td(), prop::bool::weighted(0.8)).prop_map(|(td, reclaims)| Step::End { td, reclaims }),
        noise => (
            prop::sample::select(septwatch_common::config::HOOKED.to_vec()), td(), pfn(), gfn(),
            prop::bool::weighted(huge / 2.0), 0..STATUSES.len(), 0u64..8, any::<bool>(),
        ).prop_map(|(leaf, td, pfn, gfn, huge, status, entry, named)| {
            Step::Call { leaf, td, pfn, gfn, huge, status, entry, named }
        }),
        noise.div_ceil(4) => (pfn(), any::<bool>()).prop_map(|(pfn, batched)| Step::Free { pfn, batched }),
        noise.div_ceil(8) => pfn().prop_map(|pfn| Step::Alloc { pfn }),
    ]
}

/// Steps in which nothing goes wrong; BUSY once is normal.
pub fn clean_step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![3 => Just(Fault::None), 1 => zap_leaf().prop_map(Fault::BusyOnce)];
    prop_oneof![
        2 => (0..TDS).prop_map(|td| Step::Begin { td }),
        1 => (0..TDS).prop_map(|td| Step::Finalize { td }),
        12 => (0..TDS, gfn(), any::<u64>(), prop::bool::weighted(0.01), prop::bool::weighted(0.05))
            .prop_map(|(td, gfn, pfn, huge, late)| Step::Map { td, gfn, pfn, huge, late }),
        12 => (any::<usize>(), fault, any::<bool>(), any::<bool>())
            .prop_map(|(leaf, fault, free, reuse)| Step::Zap { leaf, fault, free, reuse }),
    ]
}

fn call(tdr: u64, pfn: u64, gfn: u64, level: Level, status: u64) -> Call {
    let answer = Answer { status: Status(status), ext_err1: 0, ext_err2: 0, now_ns: 0 };
    Call { tdr, pfn, tdvpr: PFN_UNKNOWN, gfn, level, hkid: 0, answer }
}

/// Something for one frame: TD, pfn, gfn, level stay as they are.
fn ok(leaf: Leaf, tdr: u64, pfn: u64) -> Event {
    Event::Call(leaf, call(tdr, pfn, 0, Level::L4K, 0))
}

/// The `n`-th of those that nobody has, counted round; `None` where all are lent.
fn free(world: &Naive, mut of: impl DoubleEndedIterator<Item = u64> + Clone, n: u64) -> Option<u64> {
    let count = of.clone().filter(|pfn| !world.frames.contains_key(pfn)).count() as u64;
    let n = n.checked_rem(count)?;
    let _ = of.by_ref();
    of.filter(|pfn| !world.frames.contains_key(pfn)).nth(n as usize)
}

impl Step {
    /// What happens, one after the other.
    pub fn events(&self, world: &Naive, out: &mut Vec<Event>) {
        match *self {
            Self::Begin { td } => begin(world, TDRS + td, out),
            Self::Finalize { td } => out.push(ok(Leaf::MrFinalize, TDRS + td, PFN_UNKNOWN)),
            Self::Map { td, gfn, pfn, huge, late } => map(world, TDRS + td, gfn, pfn, huge, late, out),
            Self::Sept { td, gfn, pfn } => {
                if world.by_tdr.contains_key(&(TDRS + td))
                    && let Some(pfn) = free(world, SMALL..SMALL + SMALLS, pfn)
                {
                    let sept = call(TDRS + td, pfn, gfn & !511, Level::L2M, 0);
                    out.push(Event::Call(Leaf::MemSeptAdd, sept));
                }
            }
            Self::Zap { leaf, fault, free, reuse } => zap(world, leaf, fault, free, reuse, out),
            Self::End { td, reclaims } => end(world, TDRS + td, reclaims, out),
            Self::Call { leaf, td, pfn, gfn, huge, status, entry, named } => {
                let level = if huge { Level::L2M } else { Level::L4K };
                let gfn = naive::head(gfn, level);
                let mut call = call(TDRS + td, pfn, gfn, level, STATUSES[status]);
                call.answer.ext_err1 = entry;
                match leaf {
                    Leaf::MemPageAdd | Leaf::MemPageAug => call.pfn = naive::head(pfn, level),
                    Leaf::VpCreate => call.tdvpr = pfn,
                    Leaf::VpAddcx => (call.tdr, call.tdvpr) = (PFN_UNKNOWN, pfn ^ 1),
                    Leaf::MngCreate => call.gfn = 0,
                    Leaf::MemRangeBlock | Leaf::MemTrack => call.pfn = PFN_UNKNOWN,
                    Leaf::MemPageRemove => {
                        // The module names a frame that it had there; where we know of none, one we do not know.
                        let td = world.by_tdr.get(&call.tdr).copied().unwrap_or(0);
                        let there = world.at((td, gfn));
                        let head = there.iter().find(|pfn| world.frames[*pfn].gfn == gfn).copied();
                        let other = || (there.is_empty() && !world.frames.contains_key(&pfn)).then_some(pfn);
                        let named = (named && call.answer.status.is_success()).then(|| head.or_else(other));
                        call.pfn = named.flatten().unwrap_or(PFN_UNKNOWN);
                    }
                    _ => {}
                }
                out.push(Event::Call(leaf, call));
            }
            Self::Free { pfn, batched } => out.push(Event::Free { pfn, batched }),
            Self::Alloc { pfn } => out.push(Event::Alloc { pfn }),
        }
    }
}

fn begin(world: &Naive, tdr: u64, out: &mut Vec<Event>) {
    if world.by_tdr.contains_key(&tdr) || world.frames.contains_key(&tdr) {
        return;
    }
    out.push(ok(Leaf::MngCreate, tdr, PFN_UNKNOWN));
    let control = CONTROL + 4 * (tdr - TDRS);
    out.push(ok(Leaf::MngAddcx, tdr, control));
    out.push(ok(Leaf::MngInit, tdr, PFN_UNKNOWN));
    let mut vp = call(tdr, PFN_UNKNOWN, 0, Level::L4K, 0);
    vp.tdvpr = control + 1;
    out.push(Event::Call(Leaf::VpCreate, vp));
    (vp.tdr, vp.pfn) = (PFN_UNKNOWN, control + 2);
    out.push(Event::Call(Leaf::VpAddcx, vp));
}

fn map(world: &Naive, tdr: u64, gfn: u64, pfn: u64, huge: bool, late: bool, out: &mut Vec<Event>) {
    let td = world.by_tdr.get(&tdr);
    if td.is_none() && !late {
        return;
    }
    let td = td.copied().unwrap_or(0);
    let (level, pfn, gfn) = if huge {
        let heads = (0..HUGES).map(|n| HUGE + 512 * n);
        (Level::L2M, free(world, heads, pfn), HUGE_GFN + (gfn & 1) * 512)
    } else {
        (Level::L4K, free(world, SMALL..SMALL + SMALLS, pfn), gfn)
    };
    // Nothing may be mapped there but what is removed already.
    let gone = |pfn: &u64| world.frames[pfn].removed;
    let small_in_huge = huge && (gfn..gfn + 512).any(|gfn| !world.at((td, gfn)).iter().all(gone));
    if small_in_huge || !world.at((td, gfn)).iter().all(gone) {
        return;
    }
    let Some(pfn) = pfn else { return };
    let finalized = world.tds.get(&td).is_none_or(|td| td.finalized);
    let leaf = if finalized { Leaf::MemPageAug } else { Leaf::MemPageAdd };
    out.push(Event::Call(leaf, call(tdr, pfn, gfn, level, 0)));
}

fn zap(world: &Naive, leaf: usize, fault: Fault, free: bool, reuse: bool, out: &mut Vec<Event>) {
    let leaves: Vec<_> = world.leaves.iter().filter(|(_, frames)| !frames.is_empty()).collect();
    let Some(((td, gfn), frames)) = leaf.checked_rem(leaves.len()).map(|n| leaves[n]) else { return };
    let Some(first) = frames.first() else { return };
    let level = world.frames[first].level;
    let (tdr, finalized) = (world.tds[td].tdr, world.tds[td].finalized);
    if world.by_tdr.get(&tdr) != Some(td) {
        return;
    }
    let freed = |out: &mut Vec<Event>| {
        for batched in [false, true] {
            out.extend(frames.iter().map(|pfn| Event::Free { pfn: *pfn, batched }));
        }
    };
    if matches!(fault, Fault::FreedFirst) {
        freed(out);
    }
    let mut given_up = false;
    for step in [Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove, Leaf::PhymemPageWbinvd] {
        if given_up || step == Leaf::MemTrack && !finalized {
            continue;
        }
        let answers: &[u64] = match fault {
            Fault::BusyOnce(at) if at == step && step != Leaf::PhymemPageWbinvd => &[BUSY, 0],
            Fault::BusyTwice(at) if at == step => &[BUSY, BUSY],
            Fault::Refused(at) if at == step => &[0xC000_0B0D_0000_0001],
            Fault::Skipped(at) if at == step => &[],
            _ => &[0],
        };
        for status in answers {
            let mut call = call(tdr, PFN_UNKNOWN, *gfn, level, *status);
            call.answer.ext_err1 = 7;
            match step {
                Leaf::MemPageRemove if *status == 0 && !matches!(fault, Fault::Unnamed) => call.pfn = *first,
                Leaf::PhymemPageWbinvd => {
                    for pfn in frames {
                        let leaf = Leaf::PhymemPageWbinvd;
                        out.push(Event::Call(leaf, Call { pfn: *pfn, tdr: PFN_UNKNOWN, gfn: 0, ..call }));
                    }
                    continue;
                }
                _ => {}
            }
            out.push(Event::Call(step, call));
        }
        given_up = answers.last().is_some_and(|status| *status != 0);
    }
    if free {
        freed(out);
    }
    if reuse {
        out.extend(frames.iter().map(|pfn| Event::Alloc { pfn: *pfn }));
    }
}

/// Teardown: what is not a leaf comes back by RECLAIM, the TDR last; or the HKID's release fails and nothing does.
fn end(world: &Naive, tdr: u64, reclaims: bool, out: &mut Vec<Event>) {
    let Some(td) = world.by_tdr.get(&tdr) else { return };
    let status = if reclaims { 0 } else { BUSY };
    out.push(Event::Call(Leaf::MngKeyFreeid, call(tdr, PFN_UNKNOWN, 0, Level::L4K, status)));
    if !reclaims {
        return;
    }
    let owned = world.frames.iter().filter(|(pfn, lent)| {
        // Some leaves too, as after an early release of the HKID.
        let leaf = lent.kind == PageKind::Leaf && lent.level == Level::L4K && **pfn % 2 == 0;
        lent.td == *td && lent.kind != PageKind::Tdr && (lent.kind != PageKind::Leaf || leaf)
    });
    out.extend(owned.map(|(pfn, _)| ok(Leaf::PhymemPageReclaim, PFN_UNKNOWN, *pfn)));
    out.push(ok(Leaf::PhymemPageReclaim, PFN_UNKNOWN, tdr));
    out.push(Event::Free { pfn: tdr, batched: false });
}
