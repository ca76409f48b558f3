//! A recording as a source: its events through the model, in the order in which they went through it live.

use std::{fs::File, io::Read, path::Path};

use super::{
    header::{Counted, End, Header, Note},
    reader::{Damage, Item, OpenError, Reader},
};
use crate::{
    model::{Model, verdict::Verdict},
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
        found: Option<(Verdict, Places)>,
    },
    /// What was recorded beside.
    Note(Note),
    /// Here something is missing.
    Damage(Damage),
}

/// A recording that is being replayed.
pub struct Replay<R> {
    reader: Reader<R>,
    model: Model,
    counted: Option<Counted>,
    /// Read ahead, to see whether a violation's places follow it.
    ahead: Option<Item>,
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
        let before: Vec<_> = reader.header().before.iter().map(Into::into).collect();
        model.accounting.resume(&before);
        // The state lies before the first record.
        let ahead = reader.next();
        if let Some(state) = reader.state() {
            state.known(&mut model);
        }
        Self { reader, model, counted: None, ahead, unwritten: 0, damages: 0, missing: 0 }
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
        let at_end = self.reader.end().and_then(|end| end.counted.as_ref());
        let counted = at_end.or(self.counted.as_ref());
        let counters = counted.map_or(crate::source::counters::NOTHING, Counted::counters);
        let [vital, pages] = self.model.accounting.balance(&counters);
        let missed_releases = counted.map_or(0, |counted| counted.missed_releases);
        Standing { counters, vital, pages, missed_releases }
    }

    /// The last count; none before the first.
    pub fn counted(&self) -> Option<&Counted> {
        self.reader.end().and_then(|end| end.counted.as_ref()).or(self.counted.as_ref())
    }

    /// The next step, after it went through the model. None: that was all that can be read.
    #[inline]
    pub fn next(&mut self) -> Option<Step> {
        let item = match self.ahead.take() {
            Some(item) => item,
            None => self.reader.next()?,
        };
        Some(match item {
            Item::Event(event) => {
                let verdict = self.model.apply(&event);
                let found = verdict.map(|verdict| {
                    let places = self.places(&verdict);
                    (verdict, places)
                });
                Step::Event { event, found }
            }
            Item::Note(note) => {
                match &note {
                    Note::Counted(counted) => self.counted = Some(counted.clone()),
                    Note::Unwritten { records, .. } => {
                        self.unwritten = self.unwritten.saturating_add(*records);
                    }
                    _ => {}
                }
                Step::Note(note)
            }
            Item::Damage(damage) => {
                self.damages += 1;
                self.missing = self.missing.saturating_add(damage.records.unwrap_or(0));
                Step::Damage(damage)
            }
        })
    }

    /// The places of a violation's stacks follow it.
    fn places(&mut self, verdict: &Verdict) -> Places {
        match self.reader.next() {
            Some(Item::Note(Note::Places { kernel, user })) => Places { kernel, user },
            other => {
                self.ahead = other;
                Places::nameless(verdict)
            }
        }
    }
}
