//! Findings of a re-run against the verdicts that were recorded with its events.
//!
//! Vital and page records come in batches of their own, so that either may come first; each waits for the other.

use std::collections::{BTreeMap, HashSet};

use septwatch_common::{
    Suspect, Violation,
    wire::{TdLife, ViolationEvent},
    zap::{PFN_UNKNOWN, Zap},
};

use super::Found;
use crate::model::store::Ledger;

/// Verdicts, and findings, that wait at most: more than the kernel side's ring of vital records holds. Of more, the
/// oldest has waited in vain.
const WAITING: usize = 1 << 14;

/// Differences of each kind that are told one by one.
const TOLD: usize = 1000;

/// TDs that the kernel side is known to doubt; once there are more, it may doubt any.
const DOUBTED: usize = 1 << 14;

/// A violation, by what both sides know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sight {
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Which.
    pub violation: Violation,
    /// Frame of the TD's TDR; 0 where no TD is known.
    pub tdr: u64,
    /// The guest frame.
    pub gfn: u64,
    /// The frame. KVM's function that zaps a leaf tells it to the kernel side only.
    pub pfn: Option<u64>,
}

impl Sight {
    /// The lowest that is the same but for the frame.
    const fn without_frame(self) -> Self {
        Self { pfn: None, ..self }
    }

    fn agrees(&self, other: &Self) -> bool {
        self.without_frame() == other.without_frame()
            && (self.pfn == other.pfn || self.pfn.is_none() || other.pfn.is_none())
    }
}

/// Differences of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneSided {
    /// How many.
    pub count: u64,
    /// The first 1000 of them.
    pub told: Vec<Sight>,
}

impl OneSided {
    fn add(&mut self, sight: Sight, count: u64) {
        self.count += count;
        let room = (TOLD - self.told.len()) as u64;
        self.told.extend((0..count.min(room)).map(|_| sight));
    }
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Found as they were recorded.
    pub agreed: u64,
    /// Recorded verdicts that the re-run did not find, and findings that were not recorded, where that tells nothing:
    /// KVM's own functions told, the TD is suspect, or records were lost.
    pub not_compared: u64,
    /// Recorded verdicts that the re-run did not find.
    pub not_found: OneSided,
    /// Findings of the re-run that were not recorded.
    pub not_recorded: OneSided,
}

impl Differences {
    /// Whether all that could be compared agreed.
    pub const fn is_none(&self) -> bool {
        self.not_found.count == 0 && self.not_recorded.count == 0
    }
}

/// What is known of a sight that waits.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    /// Doubts about it.
    suspect: Suspect,
    /// Whether the re-run knows its TD from the TD's beginning on.
    is_known: bool,
    /// How many are alike.
    count: u64,
}

/// Those of one side that wait, oldest first.
type Waiting = BTreeMap<Sight, Wait>;

/// The comparison while it is under way.
#[derive(Debug, Default)]
pub struct Compare {
    recorded: Waiting,
    found: Waiting,
    /// TDRs of TDs that the kernel side doubted.
    doubted: HashSet<u64>,
    stopped: bool,
    differences: Differences,
}

impl Compare {
    /// Takes a recorded verdict in. One that this version does not know is not compared.
    pub fn recorded(&mut self, event: &ViolationEvent, ledger: &Ledger) {
        let Some(violation) = Violation::from_number(event.violation).filter(|violation| {
            let kvm_gave_up = event.zap.failed_leaf == Zap::NO_SEAMCALL;
            let from_pages = *violation as u8 <= Violation::TeardownLeak as u8;
            from_pages && !(*violation == Violation::ZapFailed && kvm_gave_up)
        }) else {
            self.differences.not_compared += 1;
            return;
        };
        let suspect = Suspect(event.suspect);
        self.doubt(event.tdr, suspect);
        let sight = Sight {
            time_ns: event.header.time_ns,
            violation,
            tdr: event.tdr,
            gfn: event.gfn,
            pfn: known(event.pfn),
        };
        if self.stopped {
            self.differences.not_compared += 1;
        } else if take(&mut self.found, &sight) {
            self.differences.agreed += 1;
        } else {
            // Later its index may be another TD's.
            let is_known = is_known(ledger, &sight);
            if let Some((oldest, wait)) = put(&mut self.recorded, sight, Wait { suspect, is_known, count: 1 })
            {
                self.not_found(oldest, wait, ledger);
            }
        }
    }

    /// Takes a finding of the re-run in.
    pub fn found(&mut self, found: &Found) {
        let Found { time_ns, tdr, finding, .. } = found;
        let sight = Sight {
            time_ns: *time_ns,
            violation: finding.violation,
            tdr: *tdr,
            gfn: finding.gfn,
            pfn: known(finding.pfn),
        };
        if self.stopped {
            self.differences.not_compared += 1;
        } else if take(&mut self.recorded, &sight) {
            self.differences.agreed += 1;
        } else {
            let wait = Wait { suspect: finding.suspect, is_known: true, count: 1 };
            if let Some((oldest, wait)) = put(&mut self.found, sight, wait) {
                self.not_recorded(oldest, wait);
            }
        }
    }

    /// Takes in what the kernel side thinks of a TD.
    pub fn life(&mut self, event: &TdLife) {
        self.doubt(event.tdr, Suspect(event.suspect));
    }

    /// From here on nothing is compared, nor what waits for something that may not come any more.
    pub fn stop(&mut self) {
        self.stopped = true;
        let waiting = [&mut self.recorded, &mut self.found].map(std::mem::take);
        let count: u64 = waiting.iter().flat_map(BTreeMap::values).map(|wait| wait.count).sum();
        self.differences.not_compared += count;
    }

    /// What came of it.
    pub fn finish(mut self, ledger: &Ledger) -> Differences {
        for (sight, wait) in std::mem::take(&mut self.recorded) {
            self.not_found(sight, wait, ledger);
        }
        for (sight, wait) in std::mem::take(&mut self.found) {
            self.not_recorded(sight, wait);
        }
        self.differences
    }

    fn doubt(&mut self, tdr: u64, suspect: Suspect) {
        if !suspect.is_certain() && self.doubted.len() < DOUBTED {
            self.doubted.insert(tdr);
        }
    }

    fn not_found(&mut self, sight: Sight, wait: Wait, ledger: &Ledger) {
        // It may have come before the record of its TD's beginning.
        let is_known = wait.is_known || is_known(ledger, &sight);
        if self.says_something(&sight, Wait { is_known, ..wait }) {
            self.differences.not_found.add(sight, wait.count);
        } else {
            self.differences.not_compared += wait.count;
        }
    }

    fn not_recorded(&mut self, sight: Sight, wait: Wait) {
        if self.says_something(&sight, wait) {
            self.differences.not_recorded.add(sight, wait.count);
        } else {
            self.differences.not_compared += wait.count;
        }
    }

    fn says_something(&self, sight: &Sight, wait: Wait) -> bool {
        let is_doubted = self.doubted.len() >= DOUBTED || self.doubted.contains(&sight.tdr);
        wait.is_known && wait.suspect.is_certain() && !is_doubted
    }
}

/// Whether the TD was seen from its beginning on: else it may have had pages before.
fn is_known(ledger: &Ledger, sight: &Sight) -> bool {
    ledger.td_at(sight.tdr, sight.time_ns).is_some_and(|td| td.suspect.is_certain())
}

fn known(pfn: u64) -> Option<u64> {
    (pfn != PFN_UNKNOWN).then_some(pfn)
}

/// Takes one that agrees off the list. False: there is none.
fn take(waiting: &mut Waiting, sight: &Sight) -> bool {
    let alike = || {
        let from = waiting.range(sight.without_frame()..).map(|(other, _)| *other);
        from.take_while(|other| other.without_frame() == sight.without_frame())
            .find(|other| other.agrees(sight))
    };
    let Some(other) = (if waiting.contains_key(sight) { Some(*sight) } else { alike() }) else {
        return false;
    };
    let last = waiting.get_mut(&other).is_none_or(|wait| {
        wait.count -= 1;
        wait.count == 0
    });
    if last {
        waiting.remove(&other);
    }
    true
}

/// Puts one on the list. Where that has become too long, the oldest comes back.
fn put(waiting: &mut Waiting, sight: Sight, wait: Wait) -> Option<(Sight, Wait)> {
    let alike = waiting.entry(sight).or_default();
    alike.suspect = alike.suspect.and(wait.suspect);
    alike.is_known |= wait.is_known;
    alike.count += wait.count;
    if waiting.len() <= WAITING { None } else { waiting.pop_first() }
}
