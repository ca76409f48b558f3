//! A recording as a source: its events through the model, in the order in which they went through it live, and its page
//! records through a ledger, as the kernel's programs took them in.

use std::{fs::File, io::Read, path::Path};

use super::{
    State,
    header::{Counted, End, Header, Note},
    reader::{Damage, Got, Item, OpenError, Reader},
};
use crate::{
    model::{
        Model,
        rerun::{Rerun, compare::Differences},
        store::Ledger,
        verdict::Verdict,
    },
    source::{event::Event, session::Standing},
    view::stack::Places,
};

/// What a recording tells, one after the other.
#[derive(Debug)]
pub enum Step {
    /// An event; with `found`, a violation and the places in its stacks.
    Event {
        /// What happened.
        event: Event,
        /// Its verdict, if it is a violation that this version knows.
        found: Option<Box<(Verdict, Places)>>,
    },
    /// What was recorded beside.
    Note(Note),
    /// Here something is missing.
    Damage(Damage),
}

/// Most chunks of 512 frames that a ledger may have which re-runs a file: 1 GiB. Frames beyond are outside of it.
pub(crate) const CHUNKS: usize = 1 << 18;

/// How many records a number may come late: an interrupt's may arrive before that of what it interrupted.
const LATE: u64 = 256;

/// Begins with what a recording says was before it.
pub(crate) fn begin(model: &mut Model, header: &Header, state: Option<&State>) {
    let before: Vec<_> = header.before.iter().map(Into::into).collect();
    model.accounting.resume(&before);
    if header.minimized.is_some() {
        model.accounting.gaps_are_meant();
    }
    if let Some(state) = state {
        state.known(model);
    }
}

/// The ledger as it was before a recording; an empty one where that makes no sense.
pub(crate) fn ledger(header: &Header, state: Option<&State>, max_chunks: usize) -> Rerun {
    let snapshot = state.and_then(|state| state.ledger.as_ref());
    let restored = snapshot.and_then(|snapshot| Ledger::restore(snapshot, max_chunks).ok());
    let mut ledger = restored.unwrap_or_else(|| Ledger::new(max_chunks));
    ledger.premap_exempt = header.ledger.premap_exempt;
    Rerun::new(ledger)
}

/// A recording that is being replayed.
pub struct Replay<R> {
    reader: Reader<R>,
    model: Model,
    rerun: Rerun,
    /// Gaps in the numbers of page records so far; and after how many records the last of them should be closed.
    gaps: u64,
    closed_by: Option<u64>,
    counted: Option<Counted>,
    /// Read ahead, to see whether a violation's places follow it.
    ahead: Option<Box<Item>>,
    /// The event come to last, where the reader is beyond it.
    read_ahead: Option<Event>,
    found: Option<Box<(Verdict, Places)>>,
    unwritten: u64,
    damages: u64,
    missing: u64,
}

impl Replay<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Reader::open(path).map(Self::new)
    }
}

impl<R: Read> Replay<R> {
    /// Replays what `reader` reads, from its first event on.
    pub fn new(mut reader: Reader<R>) -> Self {
        let mut model = Model::default();
        // The state lies before the first record.
        let ahead = reader.next().map(Box::new);
        let state = reader.state();
        begin(&mut model, reader.header(), state.as_ref());
        let mut rerun = ledger(reader.header(), state.as_ref(), CHUNKS);
        if !reader.header().has_all_lines() {
            rerun.lost();
        }
        Self {
            reader,
            model,
            rerun,
            gaps: 0,
            closed_by: None,
            counted: None,
            ahead,
            read_ahead: None,
            found: None,
            unwritten: 0,
            damages: 0,
            missing: 0,
        }
    }

    /// What the recording says of itself.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// What it says at its end, once that is reached.
    pub fn end(&self) -> Option<&End> {
        self.reader.end()
    }

    /// What is read.
    pub fn reader(&self) -> &Reader<R> {
        &self.reader
    }

    /// What comes next, if it is an event: model and ledger are still as they were before it. For who goes
    /// through the steps as an iterator: [`Self::event`] is that of before only until then.
    pub fn peek(&mut self) -> Option<&Event> {
        if self.ahead.is_none() {
            self.ahead = self.reader.next().map(Box::new);
        }
        match self.ahead.as_deref() {
            Some(Item::Event(event)) => Some(event),
            _ => None,
        }
    }

    /// What events told so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Places where something is missing, so far.
    pub fn damages(&self) -> u64 {
        self.damages
    }

    /// Records that are known to be missing there.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Records that the recorder could not write.
    pub fn unwritten(&self) -> u64 {
        self.reader.end().map_or(self.unwritten, |end| end.unwritten.max(self.unwritten))
    }

    /// How it stood at the last count: at the end, if the recording has one.
    pub fn standing(&self) -> Standing {
        let counted = self.counted();
        let counters = counted.map_or(crate::source::counters::NOTHING, Counted::counters);
        let [vital, pages] = self.model.accounting.balance(&counters);
        let missed_releases = counted.map_or(0, |counted| counted.missed_releases);
        Standing { counters, vital, pages, missed_releases }
    }

    /// The last count; none before the first.
    pub fn counted(&self) -> Option<&Counted> {
        self.reader.end().and_then(|end| end.counted.as_ref()).or(self.counted.as_ref())
    }

    /// Goes on to the next step, and takes it through model and ledger. None: that was all that can be read.
    #[inline]
    pub fn advance(&mut self) -> Option<Got> {
        if self.read_ahead.is_some() {
            self.read_ahead = None;
        }
        let got = if self.ahead.is_some() { self.next_ahead()? } else { self.reader.advance()? };
        match &got {
            Got::Event => self.apply(),
            Got::Note(note) => self.note(note),
            Got::Damage(damage) => {
                self.damages += 1;
                self.rerun.lost();
                self.missing = self.missing.saturating_add(damage.records.unwrap_or(0));
            }
        }
        Some(got)
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Counted(counted) => self.counted = Some(counted.clone()),
            Note::Unwritten { records, .. } => {
                self.unwritten = self.unwritten.saturating_add(*records);
                self.rerun.lost();
            }
            _ => {}
        }
    }

    #[cold]
    fn next_ahead(&mut self) -> Option<Got> {
        Some(match *self.ahead.take()? {
            Item::Event(event) => {
                self.read_ahead = Some(event);
                Got::Event
            }
            Item::Note(note) => Got::Note(Box::new(note)),
            Item::Damage(damage) => Got::Damage(Box::new(damage)),
        })
    }

    #[inline]
    fn apply(&mut self) {
        let event = self.read_ahead.as_ref().unwrap_or_else(|| self.reader.event());
        let verdict = self.model.apply(event);
        self.rerun.apply(event);
        if self.model.accounting.pages.gaps != self.gaps || self.closed_by.is_some() {
            self.gap();
        }
        self.found = verdict.map(|verdict| {
            let places = self.places(&verdict);
            Box::new((verdict, places))
        });
    }

    /// The event that [`Self::advance`] came to last.
    #[inline]
    pub fn event(&self) -> &Event {
        self.read_ahead.as_ref().unwrap_or_else(|| self.reader.event())
    }

    /// The violation that it is, if it is one that this version knows, and the places in its stacks.
    pub fn found(&self) -> Option<(&Verdict, &Places)> {
        self.found.as_deref().map(|(verdict, places)| (verdict, places))
    }

    /// Page records are missing, or come late.
    #[cold]
    fn gap(&mut self) {
        let pages = self.model.accounting.pages;
        if pages.gaps != self.gaps {
            self.gaps = pages.gaps;
            self.closed_by.get_or_insert(pages.received + LATE);
        } else if self.closed_by.is_some_and(|by| pages.received >= by) {
            self.closed_by = None;
            if self.lost() != 0 {
                self.rerun.lost();
            }
        }
    }

    /// Page records whose numbers are missing so far.
    pub fn lost(&self) -> u64 {
        let missing = self.model.accounting.page_sequences().map(|(_, sequence)| sequence.missing());
        missing.fold(0, u64::saturating_add)
    }

    /// Page records that no program could have made, so far: see [`Rerun::unreadable`].
    pub fn unreadable(&self) -> u64 {
        self.rerun.unreadable()
    }

    /// How what the re-run of the ledger found differs from what was recorded. To be asked at the end.
    pub fn differences(mut self) -> Differences {
        if self.lost() != 0 {
            self.rerun.lost();
        }
        self.rerun.differences()
    }

    /// The ledger as the page records made it so far.
    pub fn ledger(&self) -> &Ledger {
        self.rerun.ledger()
    }

    /// The places of a violation's stacks follow it.
    fn places(&mut self, verdict: &Verdict) -> Places {
        self.read_ahead = Some(self.event().clone());
        match self.reader.next() {
            Some(Item::Note(Note::Places { kernel, user })) => Places { kernel, user },
            other => {
                self.ahead = other.map(Box::new);
                Places::nameless(verdict)
            }
        }
    }
}

/// Everything that can be read, each step after it went through model and ledger.
impl<R: Read> Iterator for Replay<R> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(match self.advance()? {
            Got::Event => Step::Event { event: self.event().clone(), found: self.found.take() },
            Got::Note(note) => Step::Note(*note),
            Got::Damage(damage) => Step::Damage(*damage),
        })
    }
}
