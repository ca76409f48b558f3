//! Whether records still show a violation: the ledger goes through them, as the programs in the kernel did.

use std::collections::HashSet;

use septwatch_common::{Level, PageKind, State as PageState, Suspect, Violation};

use crate::{
    model::rerun::{Found, Rerun},
    recording::{State, header::Header, replay},
    source::event::Event,
};

/// A violation that was found: where two are the same, it is the same violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Which.
    pub violation: Violation,
    /// Frame of the TD's TDR.
    pub tdr: u64,
    /// The frame.
    pub pfn: u64,
    /// The guest frame.
    pub gfn: u64,
}

impl From<&Found> for Key {
    fn from(found: &Found) -> Self {
        let Found { time_ns, tdr, finding, .. } = found;
        Self {
            time_ns: *time_ns,
            violation: finding.violation,
            tdr: *tdr,
            pfn: finding.pfn,
            gfn: finding.gfn,
        }
    }
}

/// All that must stay as it was: the violation, how sure it is, and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The violation.
    pub key: Key,
    /// TDR of the other TD of a double map.
    pub other: Option<u64>,
    suspect: Suspect,
    line: Option<(PageState, PageKind, Level)>,
    failed: (u64, u64, u8),
    released_ns: u64,
    invalidation_ns: u64,
}

impl Shown {
    /// What a finding shows; `rerun` is as it was right after.
    pub fn of(found: &Found, rerun: &Rerun) -> Self {
        let finding = &found.finding;
        let line = finding.line;
        let zap = &finding.zap;
        Self {
            key: found.into(),
            other: rerun.ledger().td(finding.other).filter(|_| finding.other != 0).map(|td| td.tdr),
            suspect: finding.suspect,
            line: line.is_open().then(|| (line.state(), line.kind(), line.level())),
            failed: (zap.failed_ns, zap.failed_status, zap.failed_leaf),
            released_ns: finding.released_ns,
            invalidation_ns: finding.invalidation_ns,
        }
    }
}

/// What must be shown, and from where on.
pub struct Oracle<'a> {
    /// The recording's header.
    pub header: &'a Header,
    /// What was known before the first record.
    pub state: &'a State,
    /// What must be shown.
    pub shown: Shown,
    /// Everything that the whole recording shows: nothing else may come of leaving records out.
    pub all: &'a HashSet<Key>,
    /// Records that it may still go through.
    pub budget: u64,
}

/// What the ledger finds in records that show the violation.
pub struct Answer {
    /// All that it finds.
    pub keys: Vec<Key>,
    /// Of it, what the whole recording does not show: it comes of leaving records out.
    pub made_up: usize,
}

impl Oracle<'_> {
    /// What the ledger finds in these records; None if that is not what must be shown.
    pub fn ask(&mut self, events: &[&Event]) -> Option<Answer> {
        self.budget = self.budget.saturating_sub(events.len() as u64 + 1);
        let mut rerun = replay::ledger(self.header, Some(self.state), replay::CHUNKS);
        let mut keys = Vec::new();
        let mut is_shown = false;
        for event in events.iter().filter(|event| !event.is_vital()) {
            if let Some(found) = rerun.apply(event) {
                is_shown |= Shown::of(&found, &rerun) == self.shown;
                keys.push(Key::from(&found));
            }
        }
        let made_up = keys.iter().filter(|key| !self.all.contains(key)).count();
        is_shown.then_some(Answer { keys, made_up })
    }
}

/// The smallest part of `events` that still shows it, in the sense that none of its records can be left out alone.
///
/// Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input"): ever smaller parts are
/// left out, one after the other, and stay out where the rest still shows it, and no more than before that the whole
/// recording does not show. Where the budget ends before that, what comes back is the smallest so far.
pub fn smallest<'a>(mut events: Vec<&'a Event>, oracle: &mut Oracle<'_>) -> Vec<&'a Event> {
    let mut size = events.len().div_ceil(2);
    let mut made_up = oracle.ask(&events).map_or(usize::MAX, |answer| answer.made_up);
    while size != 0 && oracle.budget != 0 {
        let before = events.len();
        let mut at = 0;
        while at < events.len() && oracle.budget != 0 {
            let end = (at + size).min(events.len());
            let rest = [&events[..at], &events[end..]].concat();
            match oracle.ask(&rest) {
                Some(answer) if answer.made_up <= made_up => {
                    made_up = answer.made_up;
                    events = rest;
                }
                _ => at = end,
            }
        }
        // With single records until nothing changes any more.
        size = if size > 1 { size.div_ceil(2) } else { usize::from(events.len() != before) };
    }
    events
}
