//! What a recording tells about violations: the life of the page, and the SEAMCALLs around the moment at which KVM gave
//! the VM up.

use std::{collections::VecDeque, path::Path};

use septwatch_common::Violation;

use super::life::Life;
use crate::{
    minimize::{
        self, MinimizeError, Target,
        subject::{Part, Subject},
    },
    model::rerun::compare::Differences,
    recording::{
        header::Header,
        reader::Reader,
        replay::{self, Replay, Step},
        tds::Tds,
    },
    source::event::Event,
    view::lines,
};

/// SEAMCALLs that are told before the moment, and after it.
const BEFORE: usize = 6;
const AFTER: usize = 4;

/// What is told about one violation.
pub struct Case {
    /// The violation.
    pub target: Target,
    /// Which of the same TD's violations says that KVM called the VM bugged, if one does.
    pub bugged: Option<Target>,
    subject: Subject,
    /// The page's life.
    pub life: Life,
    /// The moment that [`Self::around`] is about, in ns of CLOCK_MONOTONIC.
    pub moment_ns: u64,
    /// SEAMCALLs of the TD around that moment.
    pub around: VecDeque<Event>,
    after: usize,
    /// Whether the re-run of the ledger found the violation, too.
    pub is_found_again: bool,
}

/// What a recording tells.
pub struct Told {
    /// What it says of itself.
    pub header: Header,
    /// Its violations that are told.
    pub cases: Vec<Case>,
    /// All violations.
    pub total: u64,
    /// Spans that were seen, a line each.
    pub windows: Vec<String>,
    /// How the re-run of the ledger compares; none where it cannot be run.
    pub differences: Option<Differences>,
    /// Page records that are missing.
    pub lost: u64,
    /// Damaged places.
    pub damages: u64,
}

/// Collects what is to be told about the violations that are wanted; none: about all.
///
/// # Errors
/// The recording cannot be read, or has no such violation.
pub fn collect(path: &Path, wanted: Option<minimize::Wanted>) -> Result<Told, MinimizeError> {
    let tds = Tds::of(path)?;
    let mut cases = Vec::new();
    for target in minimize::find(path, wanted)? {
        cases.push(Case::new(target, &tds));
    }
    let bugged = minimize::find(path, None)?.into_iter();
    for bugged in bugged.filter(|target| target.verdict.violation == Violation::VmBugged) {
        let of_td = |case: &&mut Case| case.target.event.td_id == bugged.event.td_id;
        for case in cases.iter_mut().filter(of_td) {
            case.moment_ns = bugged.event.header.time_ns;
            case.bugged = Some(bugged.clone());
        }
    }
    let mut reader = Reader::open(path)?;
    // The state lies before the first record.
    reader.next();
    let state = reader.state();
    let mut replay = Replay::open(path)?;
    let header = replay.header().clone();
    let can_rerun = header.has_all_lines();
    // The replay's own says how many agree; this one which.
    let mut rerun = replay::ledger(&header, state.as_ref(), replay::CHUNKS);
    for step in replay.by_ref() {
        let Step::Event { event, .. } = step else { continue };
        let found = rerun.apply(&event);
        for case in &mut cases {
            case.event(&event);
            if let Some(found) = &found {
                case.is_found_again |= minimize::agree(&case.target.event, found);
            }
        }
    }
    for case in &mut cases {
        case.in_order();
    }
    let (total, lost, damages) = (replay.model().total(), replay.lost(), replay.damages());
    let windows = lines::windows(&replay.model().windows);
    let differences = can_rerun.then(|| replay.differences());
    Ok(Told { header, cases, total, windows, differences, lost, damages })
}

impl Case {
    fn new(target: Target, tds: &Tds) -> Self {
        let subject = minimize::subject(&target, tds);
        let moment_ns = target.verdict.failed.map_or(target.event.header.time_ns, |failed| failed.time_ns);
        Self {
            target,
            bugged: None,
            subject,
            life: Life::default(),
            moment_ns,
            around: VecDeque::new(),
            after: 0,
            is_found_again: false,
        }
    }

    /// Lifecycle and violations, and page records, come in batches of their own.
    fn in_order(&mut self) {
        self.life.events.sort_by_key(|event| event.header().time_ns);
        self.around.make_contiguous().sort_by_key(|event| event.header().time_ns);
    }

    fn event(&mut self, event: &Event) {
        let part = self.subject.part(event);
        if part == Part::None {
            return;
        }
        if let Event::Call(_) = event {
            self.neighbour(event);
        }
        if part == Part::Page {
            self.life.event(event, self.target.event.header.time_ns);
        }
    }

    fn neighbour(&mut self, event: &Event) {
        let is_after = event.header().time_ns > self.moment_ns;
        if is_after && self.after == AFTER {
            return;
        }
        self.after += usize::from(is_after);
        self.around.push_back(event.clone());
        if self.around.len() - self.after > BEFORE {
            self.around.pop_front();
        }
    }
}
