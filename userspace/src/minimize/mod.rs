//! The smallest recording that still shows a violation.
//!
//! First *slicing*: of all records those that tell of the TD's life, of the frame and of its leaf ([`mod@subject`]). Then
//! *delta debugging* over what is left, with the ledger as the judge ([`oracle`]): the violation must come out as it
//! did, as certain, by the same failing step, and nothing else may come out that the whole recording does not show.
//! What only KVM's functions tell the ledger cannot find in page records: there it is slicing alone.

mod kept;
mod oracle;
mod source;
pub mod subject;

use std::{collections::HashSet, io, path::Path};

use septwatch_common::{Leaf, Violation, wire::ViolationEvent, zap::PFN_UNKNOWN};
use thiserror::Error;

use crate::{
    model::{rerun::Found, verdict::Verdict},
    recording::{
        State,
        reader::OpenError,
        replay::{Replay, Step},
        tds::{Known, Tds},
    },
    source::event::Event,
    view::stack::Places,
};
use kept::{reduced, shows, write};
use oracle::{Key, Oracle, smallest};
use source::{Kept, Source};
use subject::{Part, Subject};

/// Records that the judge goes through at most: some minutes.
const BUDGET: u64 = 500_000_000;

/// Lendings before the violation from which on a slice is tried.
const LENDS: usize = 64;

/// Which violation of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first of this kind.
    Named(Violation),
    /// This one of all, from 1.
    Number(u64),
}

/// A recording cannot be minimized.
#[derive(Debug, Error)]
pub enum MinimizeError {
    /// It cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It has no such violation.
    #[error("it has {total} violations, and {}", match wanted {
        Wanted::Named(violation) => format!("none of them is {}", violation.name()),
        Wanted::Number(number) => format!("no number {number}"),
    })]
    NoSuch {
        /// What was asked for.
        wanted: Wanted,
        /// How many it has.
        total: u64,
    },
    /// What was made of it does not show the violation when it is read back.
    #[error("what was kept does not show the violation when it is read back: nothing is written")]
    NotShown,
    /// There is no memory to compress in, or a record is larger than a frame.
    #[error("cannot be put together: {0}")]
    Pack(#[from] io::Error),
}

/// A violation of a recording.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which of all it is, from 1.
    pub number: u64,
    /// As it was recorded.
    pub event: Box<ViolationEvent>,
    /// In words.
    pub verdict: Verdict,
    /// The places in its stacks.
    pub places: Places,
    /// The violation of the same TD that told of the SEAMCALL that failed last before.
    pub failing: Option<Box<ViolationEvent>>,
}

/// What was made.
pub struct Made {
    /// The recording.
    pub bytes: Vec<u8>,
    /// The violation that it shows.
    pub target: Target,
    /// Events of the original, and of what was made.
    pub events: [u64; 2],
    /// Bytes of the original.
    pub bytes_before: u64,
    /// Whether the ledger finds the violation in it; else it is a slice, and nobody could judge what of it matters.
    pub is_found_again: bool,
    /// Whether every record that is left is needed; else the judge's time was over before.
    pub is_smallest: bool,
    /// Damaged places of the original.
    pub damages: u64,
}

/// Finds violations: the one that is wanted, or all.
///
/// # Errors
/// The recording cannot be read, or has no such violation.
pub fn find(path: &Path, wanted: Option<Wanted>) -> Result<Vec<Target>, MinimizeError> {
    let replay = Replay::open(path)?;
    let mut targets = Vec::new();
    let mut failing: Vec<Box<ViolationEvent>> = Vec::new();
    let mut total = 0;
    for step in replay {
        let Step::Event { event: Event::Violation(event), found: Some(found) } = step else { continue };
        total += 1;
        let (verdict, places) = *found;
        let is_wanted = match wanted {
            None => true,
            Some(Wanted::Named(violation)) => verdict.violation == violation,
            Some(Wanted::Number(number)) => number == total,
        };
        if is_wanted && (wanted.is_none() || targets.is_empty()) {
            let before = failing.iter().find(|failed| failed.td_id == event.td_id);
            let failing = before.filter(|_| verdict.violation == Violation::VmBugged).cloned();
            targets.push(Target { number: total, event: event.clone(), verdict, places, failing });
        }
        if event.td_id != 0 && event.zap.failed_ns == event.header.time_ns {
            failing.retain(|failed| failed.td_id != event.td_id);
            failing.push(event);
        }
    }
    match wanted {
        Some(wanted) if targets.is_empty() => Err(MinimizeError::NoSuch { wanted, total }),
        _ => Ok(targets),
    }
}

/// What a violation is about, before its records are looked at.
pub fn subject(target: &Target, tds: &Tds) -> Subject {
    // That a VM is bugged names no frame; the step that failed before does.
    let about = target.failing.as_ref().unwrap_or(&target.event);
    Subject::of(about, td_of(&target.event, tds))
}

fn td_of<'a>(event: &ViolationEvent, tds: &'a Tds) -> Option<&'a Known> {
    if event.td_id == 0 {
        None
    } else {
        tds.get(event.td_id).or_else(|| tds.at(event.tdr, event.header.time_ns))
    }
}

/// Makes the smallest recording that shows the violation.
///
/// # Errors
/// See [`MinimizeError`].
pub fn minimize(path: &Path, wanted: Wanted) -> Result<Made, MinimizeError> {
    let target = find(path, Some(wanted))?.pop().ok_or(MinimizeError::NotShown)?;
    let tds = Tds::of(path)?;
    let mut subject = subject(&target, &tds);
    let mut source = Source::open(path)?;
    let located = source.locate(&target, &tds, &mut subject);
    source = Source::open(path)?;
    let mut best: Option<(Vec<Kept>, bool)> = None;
    let state;
    if let Some((shown, all)) = &located {
        state = source.state.clone();
        for part in [Part::Life, Part::Td, Part::None] {
            let slice = Source::open(path)?.slice(&target, subject.clone(), part);
            let Some(slice) = slice else { break };
            let mut oracle =
                Oracle { header: &source.header, state: &state, shown: *shown, all, budget: BUDGET };
            let pages: Vec<_> =
                slice.iter().map(|kept| &kept.event).filter(|event| !event.is_vital()).collect();
            // What was before the frame was lent last mostly does not matter; the whole slice may not even be enough:
            // other frames come and go in the same leaves.
            let lends = (0..pages.len()).rev().filter(|at| lends(pages[*at])).take(LENDS);
            let since = |from: usize| {
                let kept = (0..).zip(&pages).filter(|(at, event)| *at >= from || is_of_life(event));
                kept.map(|(_, event)| *event).collect::<Vec<_>>()
            };
            let starts = lends.map(since).chain([pages.clone()]);
            let smallest = starts.into_iter().find_map(|start| {
                oracle.ask(&start)?;
                let kept = smallest(start, &mut oracle);
                oracle.ask(&kept).filter(|answer| answer.made_up == 0).map(|answer| (kept, answer.keys))
            });
            let Some((kept, keys)) = smallest else { continue };
            let keys: HashSet<Key> = keys.into_iter().collect();
            let kept: HashSet<_> = kept.into_iter().map(place).collect();
            let is_kept = |event: &Event| match event {
                Event::Violation(violation) => is_target(violation, &target) || agrees(violation, &keys),
                event if event.is_vital() => true,
                event => kept.contains(&place(event)),
            };
            let is_smallest = oracle.budget != 0;
            best = Some((slice.iter().filter(|kept| is_kept(&kept.event)).cloned().collect(), is_smallest));
            break;
        }
    } else {
        state = State::default();
    }
    let is_found_again = best.is_some();
    let (events, is_smallest) = match best {
        Some(best) => best,
        None => (Source::open(path)?.slice(&target, subject.clone(), Part::Life).unwrap_or_default(), false),
    };
    let original = Source::open(path)?.count();
    let left_out = original.events.saturating_sub(events.len() as u64);
    let bytes = write(&source.header, &reduced(&state, &subject), &events, &target, left_out, original.end)?;
    if !shows(&bytes, path, &target, located.as_ref().filter(|_| is_found_again).map(|(shown, _)| *shown)) {
        return Err(MinimizeError::NotShown);
    }
    Ok(Made {
        bytes,
        target,
        events: [original.events, events.len() as u64],
        bytes_before: original.bytes,
        is_found_again,
        is_smallest,
        damages: original.damages,
    })
}

/// The call that an event is, if it succeeded.
fn done(event: &Event) -> Option<Leaf> {
    let Event::Call(call) = event else { return None };
    Leaf::from_number(u64::from(call.call.leaf)).filter(|_| call.status == 0)
}

fn lends(event: &Event) -> bool {
    done(event).is_some_and(|leaf| matches!(leaf, Leaf::MemPageAdd | Leaf::MemPageAug | Leaf::MemSeptAdd))
}

/// Whether it is a step of a TD's life, not of a page's.
fn is_of_life(event: &Event) -> bool {
    use Leaf::{MngAddcx, MngCreate, MngInit, MrFinalize, VpAddcx, VpCreate};
    done(event)
        .is_some_and(|leaf| matches!(leaf, MngCreate | MngAddcx | MngInit | MrFinalize | VpCreate | VpAddcx))
}

/// A record's own place: its CPU and number there.
fn place(event: &Event) -> (u16, u64) {
    (event.header().cpu, event.header().seq)
}

fn is_target(event: &ViolationEvent, target: &Target) -> bool {
    *event == *target.event
}

/// Whether the ledger found what was recorded.
fn agrees(event: &ViolationEvent, keys: &HashSet<Key>) -> bool {
    keys.iter().any(|key| is_of(event, key))
}

/// Whether a finding of the re-run is what was recorded.
pub fn agree(event: &ViolationEvent, found: &Found) -> bool {
    is_of(event, &found.into())
}

fn is_of(event: &ViolationEvent, key: &Key) -> bool {
    let same = (key.time_ns, key.violation as u8, key.tdr, key.gfn)
        == (event.header.time_ns, event.violation, event.tdr, event.gfn);
    same && (key.pfn == event.pfn || key.pfn == PFN_UNKNOWN || event.pfn == PFN_UNKNOWN)
}
