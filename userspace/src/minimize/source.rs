//! The recording that is minimized, gone through once for each question.

use std::{
    collections::{HashSet, VecDeque},
    fs::File,
    path::Path,
};

use septwatch_common::{Violation, zap::Zap};

use super::{
    Target, is_of, is_target,
    oracle::{Key, Shown},
    subject::{Part, Span, Subject},
};
use crate::{
    recording::{
        State,
        header::{End, Header, Note},
        reader::{Item, OpenError, Reader},
        replay,
        tds::Tds,
    },
    source::event::Event,
    view::stack::Places,
};

/// SEAMCALLs of a TD that are kept where nothing tells which of them matter.
const LAST: usize = 64;

/// Records that are held in memory at most: 1 GiB.
const HELD: usize = 8 << 20;

/// A recording that is gone through once.
pub struct Source {
    reader: Reader<File>,
    /// What it says of itself.
    pub header: Header,
    /// What was known before its first record.
    pub state: State,
    first: Option<Item>,
}

/// An event that is kept, and the places in its stacks if it is a violation that came with some.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The event.
    pub event: Event,
    /// The places.
    pub places: Option<Places>,
}

/// How much of it there is.
#[derive(Default)]
pub struct Count {
    /// Events.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
    /// Damaged places.
    pub damages: u64,
    /// What it says at its end.
    pub end: Option<End>,
}

impl Source {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut reader = Reader::open(path)?;
        let first = reader.next();
        let state = reader.state().unwrap_or_default();
        Ok(Self { header: reader.header().clone(), state, first, reader })
    }

    fn next(&mut self) -> Option<Item> {
        self.first.take().or_else(|| self.reader.next())
    }

    /// Counts what is in it.
    pub fn count(mut self) -> Count {
        let mut count = Count::default();
        while let Some(item) = self.next() {
            match item {
                Item::Event(_) => count.events += 1,
                Item::Damage(_) => count.damages += 1,
                Item::Note(_) => {}
            }
        }
        Count { bytes: self.reader.bytes(), end: self.reader.end().cloned(), ..count }
    }

    /// Where the ledger finds the violation: what it shows there, and all that it found by then. The subject learns what
    /// only the ledger knows. None: it does not find it.
    pub fn locate(
        &mut self,
        target: &Target,
        tds: &Tds,
        subject: &mut Subject,
    ) -> Option<(Shown, HashSet<Key>)> {
        let by_kvm = target.event.zap.failed_leaf == Zap::NO_SEAMCALL
            || target.verdict.violation > Violation::TeardownLeak;
        if !self.header.has_all_lines() || by_kvm {
            return None;
        }
        let mut rerun = replay::ledger(&self.header, Some(&self.state), replay::CHUNKS);
        let mut all = HashSet::new();
        // A TD's end takes its lines with it: what it leaves is looked at while it ends.
        while let Some(item) = self.next() {
            let Item::Event(event) = item else { continue };
            let Some(found) = rerun.apply(&event) else { continue };
            let key = Key::from(&found);
            all.insert(key);
            if !is_of(&target.event, &key) {
                continue;
            }
            let ledger = rerun.ledger();
            let shown = Shown::of(&found, &rerun);
            if subject.tds.is_empty() {
                subject
                    .tds
                    .extend(tds.at(found.tdr, found.time_ns).filter(|_| found.tdr != 0).map(Span::from));
            }
            subject.tds.extend(
                shown
                    .other
                    .and_then(|tdr| tds.at(tdr, found.time_ns))
                    .map(Span::from)
                    .filter(|other| subject.tds.first().is_none_or(|first| first.id != other.id)),
            );
            if key.violation == Violation::TeardownLeak {
                let own = ledger.open_lines().filter(|(_, line)| line.owner() == found.finding.td);
                // One of the frames that did not come back.
                if let Some((pfn, line)) = own.min_by_key(|(pfn, _)| *pfn) {
                    let first = line.level().head(line.gfn());
                    subject.gfns = first..first.saturating_add(line.level().frames());
                    subject.set_frames(pfn, 1);
                }
            }
            return Some((shown, all));
        }
        None
    }

    /// The records up to the violation that have at least this part in it. None: they are too many.
    pub fn slice(mut self, target: &Target, mut subject: Subject, at_least: Part) -> Option<Vec<Kept>> {
        let time_ns = target.event.header.time_ns;
        let mut events: Vec<Kept> = Vec::new();
        let mut is_named = false;
        let mut last = VecDeque::new();
        let nothing_named = subject.gfns.is_empty() && subject.pfns.is_empty();
        while let Some(item) = self.next() {
            let event = match item {
                Item::Event(event) => event,
                Item::Note(Note::Places { kernel, user }) if is_named => {
                    is_named = false;
                    if let Some(kept) = events.last_mut() {
                        kept.places = Some(Places { kernel, user });
                    }
                    continue;
                }
                _ => continue,
            };
            is_named = false;
            if event.header().time_ns > time_ns {
                continue;
            }
            let part = subject.part(&event);
            let is_wanted = part >= at_least
                || part != Part::None && event.is_vital()
                || matches!(&event, Event::Violation(violation) if is_target(violation, target));
            if is_wanted {
                is_named = matches!(event, Event::Violation(_));
                events.push(Kept { event, places: None });
            } else if nothing_named && part == Part::Td && at_least == Part::Life {
                last.push_back(Kept { event, places: None });
                if last.len() > LAST {
                    last.pop_front();
                }
            }
            if events.len() > HELD {
                return None;
            }
        }
        events.extend(last);
        // Those that were added are where they happened.
        if nothing_named {
            events.sort_by_key(|kept| kept.event.header().time_ns);
        }
        Some(events)
    }
}
