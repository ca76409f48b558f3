//! What a recording came to, once it has gone through model and ledger.

use std::{collections::BTreeMap, io::Read, path::Path};

use septwatch_common::{Leaf, Status, Violation};

use super::{
    answers::{self, Counting, LeafAnswers},
    loss::Loss,
    order::Order,
};
use crate::{
    model::{latency::Latencies, rerun::compare::Differences, verdict::Verdict, windows::Windows},
    recording::{
        header::{Header, Note, What},
        reader::{Got, OpenError},
        replay::Replay,
    },
    source::event::Event,
    view::stack::Places,
};

/// Violations of one group that are kept with all that is known of them.
const KEPT: usize = 16;

/// And of all groups together.
const KEPT_IN_ALL: usize = 1024;

/// Places of one stack that are kept, and letters of a name: a recording that was made up may have any number.
const PLACES: usize = 32;
const LETTERS: usize = 256;

/// Groups of violations that are told apart by leaf and status; more are told apart by kind only.
const GROUPS: usize = 1024;

/// Places of damage that are told one by one.
const TOLD: usize = 16;

/// What is alike between two violations of the same cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alike {
    /// Kind.
    pub kind: Violation,
    /// Leaf of the SEAMCALL that failed, now or before.
    pub leaf: Option<Leaf>,
    /// What it answered, without the operand.
    pub status: Option<u64>,
}

impl std::fmt::Display for Alike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())?;
        if let Some(leaf) = self.leaf {
            write!(f, " after {}", leaf.name())?;
        }
        match self.status.map(Status) {
            Some(status) => write!(f, " = {}", status_name(status)),
            None => Ok(()),
        }
    }
}

/// A status by its name, or as a number where it has none.
pub fn status_name(status: Status) -> String {
    status.name().map_or_else(|| format!("{:#018x}", status.0), str::to_owned)
}

/// A violation, with the places in its stacks.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The violation.
    pub verdict: Verdict,
    /// Its stacks.
    pub places: Places,
}

/// Violations that are alike.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub seen: Vec<Seen>,
}

/// Where a recording is damaged.
#[derive(Clone, Debug, Default)]
pub struct Damages {
    /// How many places.
    pub count: u64,
    /// The first of them in words.
    pub told: Vec<String>,
}

/// What a recording came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it says of itself.
    pub header: Header,
    /// Records in it: SEAMCALLs, frames, lifecycle, violations.
    pub records: u64,
    /// Where it is damaged; one without an end is.
    pub damages: Damages,
    /// Records of kinds that this version does not know.
    pub unknown: u64,
    /// What is missing.
    pub loss: Loss,
    /// Where records could not be written, and why: the first places, in words.
    pub unwritten: Vec<String>,
    /// Numbers that came twice, by CPU, and whether of the vital stream.
    pub repeated: Vec<(u16, bool, u64)>,
    /// Times that went backwards.
    pub order: Order,
    /// Page records of leaves, levels or hooks that do not exist.
    pub unreadable: u64,
    /// How the re-run of the ledger differs from what was recorded.
    pub differences: Differences,
    /// Violations by what is alike of them.
    pub violations: BTreeMap<Alike, Group>,
    /// Violations of kinds that this version does not know.
    pub unknown_violations: u64,
    /// TDs that were seen.
    pub tds: u64,
    /// What each leaf answered; none where neither calls nor counts were recorded.
    pub leaves: Option<BTreeMap<Leaf, LeafAnswers>>,
    /// How long things stayed wrong.
    pub windows: Windows,
    /// How long SEAMCALLs took.
    pub latencies: Latencies,
}

impl Run {
    /// Replays a file.
    ///
    /// # Errors
    /// It is no recording that can be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self::of(Replay::open(path)?))
    }

    /// Replays a recording to its end.
    pub fn of<R: Read>(mut replay: Replay<R>) -> Self {
        let mut damages = Damages::default();
        let mut order = Order::default();
        let mut calls = Counting::default();
        let mut violations = BTreeMap::<Alike, Group>::new();
        let mut unknown_violations = 0;
        let mut kept = 0;
        let mut unwritten = Vec::new();
        while let Some(got) = replay.advance() {
            match got {
                Got::Event => {
                    let event = replay.event();
                    order.event(event);
                    match (event, replay.found()) {
                        (Event::Call(call), _) => calls.call(call),
                        (_, Some((verdict, places))) => enter(&mut violations, &mut kept, verdict, places),
                        (Event::Violation(_), None) => unknown_violations += 1,
                        _ => {}
                    }
                }
                Got::Note(note) => {
                    if let Note::Unwritten { records, why } = *note
                        && unwritten.len() < TOLD
                    {
                        unwritten
                            .push(format!("here {records} records could not be written: {}", short(&why)));
                    }
                }
                Got::Damage(damage) => {
                    damages.count += 1;
                    if damages.told.len() < TOLD {
                        damages.told.push(damage.to_string());
                    }
                }
            }
        }
        let header = replay.header().clone();
        let model = replay.model();
        let accounting = &model.accounting;
        let loss = Loss::of(&header, accounting, replay.counted(), replay.unwritten(), replay.missing());
        let repeated = [(true, accounting.vital_sequences().collect::<Vec<_>>())]
            .into_iter()
            .chain([(false, accounting.page_sequences().collect())])
            .flat_map(|(vital, all)| {
                all.into_iter().map(move |(cpu, sequence)| (cpu, vital, sequence.repeated()))
            })
            .filter(|(_, _, repeated)| *repeated != 0)
            .collect();
        let leaves = match header.what {
            What::All => Some(calls.finish()),
            _ => replay.counted().map(|counted| answers::counted(&counted.counters().calls)),
        };
        Self {
            records: accounting.records(),
            damages,
            unknown: replay.reader().unknown(),
            loss,
            unwritten,
            repeated,
            order,
            unreadable: replay.unreadable(),
            violations,
            unknown_violations,
            tds: model.tds_seen,
            leaves,
            windows: model.windows.clone(),
            latencies: model.latencies.clone(),
            header,
            differences: replay.differences(),
        }
    }

    /// Violations of every kind.
    pub fn total(&self) -> u64 {
        self.violations.values().map(|group| group.count).sum::<u64>() + self.unknown_violations
    }

    /// Whether the calls themselves were recorded, and so their statuses.
    pub fn has_calls(&self) -> bool {
        self.header.what == What::All
    }
}

fn short(text: &str) -> String {
    text.chars().take(LETTERS).collect()
}

fn enter(violations: &mut BTreeMap<Alike, Group>, kept: &mut usize, verdict: &Verdict, places: &Places) {
    let kind = verdict.violation;
    let leaf = verdict.failed.and_then(|failed| failed.leaf);
    let status = verdict.failed.and_then(|failed| {
        // Where KVM gave a zap up before its first SEAMCALL, there is none.
        failed.leaf.map(|_| failed.status.without_operand().0)
    });
    let mut alike = Alike { kind, leaf, status };
    if violations.len() >= GROUPS && !violations.contains_key(&alike) {
        alike = Alike { kind, leaf: None, status: None };
    }
    let group = violations.entry(alike).or_default();
    group.count += 1;
    if group.seen.len() < KEPT && *kept < KEPT_IN_ALL {
        *kept += 1;
        let names = |names: &[String]| names.iter().take(PLACES).map(|name| short(name)).collect();
        let places = Places { kernel: names(&places.kernel), user: names(&places.user) };
        group.seen.push(Seen { verdict: verdict.clone(), places });
    }
}
