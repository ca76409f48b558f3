//! Reading a recording, as far as it can be read.
//!
//! Nothing that a file contains makes this panic, hang, or take more memory than a few frames: what is damaged is told
//! where it is, with what is missing for it, and the rest is read where the damage lets it be found.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use serde::de::DeserializeOwned;
use zerocopy::{FromZeros as _, IntoBytes as _};
use zstd::bulk::Decompressor;

use super::{
    State,
    codec::{Decoder, Record},
    frame::{HEAD, Head, Kind, MAGIC, Preface, VERSION},
    header::{End, Header, Note},
    schema::Translation,
};
use crate::source::event::Event;

pub use super::damage::{Damage, Fault, OpenError};

/// What a reader came to.
#[derive(Debug)]
pub enum Got {
    /// An event: [`Reader::event`].
    Event,
    /// What was recorded beside.
    Note(Box<Note>),
    /// Here something is missing.
    Damage(Box<Damage>),
}

/// What a recording consists of.
#[derive(Debug)]
pub enum Item {
    /// What happened.
    Event(Event),
    /// What was recorded beside.
    Note(Note),
    /// Here something is missing.
    Damage(Damage),
}

/// A recording that is being read.
pub struct Reader<R> {
    input: R,
    header: Header,
    translation: Translation,
    decompressor: Decompressor<'static>,
    decoder: Decoder,
    event: Event,
    /// The frame that is being read, and of it what was told and is left.
    head: Head,
    stored: Vec<u8>,
    raw: Vec<u8>,
    left: u64,
    /// Where the next frame begins, in bytes, in frames and in records.
    at: u64,
    number: u32,
    first: u64,
    state: Option<State>,
    end: Option<End>,
    over: bool,
    unknown: u64,
    buffer: Vec<u8>,
}

impl Reader<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = |source| OpenError::File { path: path.to_owned(), source };
        let input = File::open(path).map_err(file)?;
        Reader::new(input, path)
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `input`; `path` is for what errors say.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(mut input: R, path: &Path) -> Result<Self, OpenError> {
        let file = |source| OpenError::File { path: path.to_owned(), source };
        let mut preface = Preface::new_zeroed();
        match fill(&mut input, preface.as_mut_bytes()).map_err(file)? {
            0 => return Err(OpenError::Empty(path.to_owned())),
            n if n < MAGIC.len() => return Err(OpenError::Magic(path.to_owned())),
            _ if preface.magic != MAGIC => return Err(OpenError::Magic(path.to_owned())),
            _ => {}
        }
        let bad = |at, what| OpenError::Header { path: path.to_owned(), at, what };
        if preface.crc.get() != preface.sum() {
            return Err(bad(0, Fault::Head));
        }
        if preface.version.get() > VERSION {
            return Err(OpenError::Version { path: path.to_owned(), version: preface.version.get() });
        }
        let mut reader = Self {
            input,
            header: Header::default(),
            translation: Translation::default(),
            decompressor: Decompressor::new().map_err(file)?,
            decoder: Decoder::default(),
            event: Event::NONE,
            head: Head::new_zeroed(),
            stored: Vec::new(),
            raw: Vec::new(),
            left: 0,
            at: size_of::<Preface>() as u64,
            number: 0,
            first: 0,
            state: None,
            end: None,
            over: false,
            unknown: 0,
            buffer: Vec::new(),
        };
        let start = reader.at;
        let bad = |what| bad(start, what);
        let kind = reader.frame().map_err(|damage| bad(damage.fault))?;
        if kind != Some(Kind::Header) {
            return Err(bad(Fault::Content(0)));
        }
        reader.header = json(&reader.raw).map_err(bad)?;
        let schema = Translation::from(&reader.header.schema);
        reader.translation = schema.ok_or(bad(Fault::Content(0)))?;
        reader.begin();
        Ok(reader)
    }

    /// What the recording says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was known when it began: there before the first event.
    pub fn state(&mut self) -> Option<State> {
        self.state.take()
    }

    /// What it says at its end, once that is reached.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Records of kinds that this version does not know, so far.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Bytes of the file that were read so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Goes on to the next item. None: that was all that can be read.
    #[inline]
    pub fn advance(&mut self) -> Option<Got> {
        loop {
            match self.decoder.next(&self.raw, &mut self.event) {
                Ok(Some(Record::Page)) => {
                    self.left = self.left.wrapping_sub(1);
                    return Some(Got::Event);
                }
                Ok(Some(Record::Vital { kind, bytes })) => {
                    self.left = self.left.wrapping_sub(1);
                    let record = self.translation.apply(kind, bytes, &mut self.buffer);
                    match record.and_then(|record| Event::parse(record).ok()) {
                        Some(event) => {
                            self.event = event;
                            return Some(Got::Event);
                        }
                        None => self.unknown += 1,
                    }
                }
                Ok(Some(Record::Note(text))) => {
                    self.left = self.left.wrapping_sub(1);
                    match serde_json::from_slice(text) {
                        Ok(Note::Unknown) | Err(_) => self.unknown += 1,
                        Ok(note) => return Some(Got::Note(Box::new(note))),
                    }
                }
                Ok(None) if self.left == 0 => {
                    if let Some(damage) = self.next_frame()? {
                        return Some(Got::Damage(Box::new(damage)));
                    }
                }
                Ok(None) => return Some(Got::Damage(Box::new(self.broken(self.raw.len())))),
                Err(malformed) => return Some(Got::Damage(Box::new(self.broken(malformed.at)))),
            }
        }
    }

    /// The event that [`Self::advance`] came to last.
    #[inline]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// What is in the frame is not what its head says: the rest of it is given up.
    fn broken(&mut self, at: usize) -> Damage {
        let missing = self.left;
        self.raw.clear();
        self.begin();
        self.left = 0;
        let start = self.at - HEAD as u64 - u64::from(self.head.stored.get());
        // A frame with more records than its head says has lost none that anybody knows of.
        let records = Some(missing).filter(|missing| *missing <= u64::from(self.head.records.get()));
        let fault = Fault::Content(at);
        Damage { at: start, frame: self.number.wrapping_sub(1), fault, records, last: false }
    }

    fn begin(&mut self) {
        self.decoder.begin();
        // What a header, state or end consists of is no records.
        self.raw.clear();
        self.left = 0;
    }

    /// Goes on to the next frame with records. None: there is none, and nothing more to say.
    fn next_frame(&mut self) -> Option<Option<Damage>> {
        if self.over {
            return None;
        }
        let (at, number, first) = (self.at, self.number, self.first);
        let fault = match self.frame() {
            Ok(Some(kind)) => {
                let gap = self.head.first.get().saturating_sub(first);
                let follows = self.head.number.get() == number && gap == 0;
                let entered = self.enter(kind).map_err(|fault| (fault, Some(0)));
                entered.err().or((!follows).then_some((Fault::Order, Some(gap))))
            }
            // Of a kind that this version does not know, and that it can do without.
            Ok(None) => None,
            Err(Failed { fault, records, over }) => {
                self.begin();
                self.over = over;
                Some((fault, records))
            }
        };
        let damage = |(fault, records)| Damage { at, frame: number, fault, records, last: self.over };
        Some(fault.map(damage))
    }

    /// Takes a frame in that was read.
    fn enter(&mut self, kind: Kind) -> Result<(), Fault> {
        match kind {
            Kind::Records => {
                self.decoder.begin();
                self.left = u64::from(self.head.records.get());
            }
            Kind::State => {
                let state = State::from_bytes(&self.raw);
                self.begin();
                self.state = Some(state.ok_or(Fault::Content(0))?);
            }
            Kind::End => {
                let end = json(&self.raw);
                self.begin();
                self.over = true;
                self.end = Some(end?);
            }
            Kind::Header => {
                self.begin();
                return Err(Fault::Content(0));
            }
        }
        Ok(())
    }

    /// Reads the next frame. None: it is of a kind that this version does not know.
    fn frame(&mut self) -> Result<Option<Kind>, Failed> {
        let lost = |fault| Failed { fault, records: None, over: true };
        let mut head = Head::new_zeroed();
        match fill(&mut self.input, head.as_mut_bytes()).map_err(|error| lost(Fault::Io(error.kind())))? {
            0 => return Err(lost(Fault::NoEnd)),
            HEAD => {}
            _ => return Err(lost(Fault::CutOff)),
        }
        if !head.is_sound() {
            return Err(lost(Fault::Head));
        }
        self.stored.resize(head.stored.get() as usize, 0);
        let read = fill(&mut self.input, &mut self.stored);
        let read = read.map_err(|error| lost(Fault::Io(error.kind())))?;
        if read != self.stored.len() {
            return Err(Failed { records: Some(u64::from(head.records.get())), ..lost(Fault::CutOff) });
        }
        self.at += (HEAD + read) as u64;
        let own = u64::from(head.records.get());
        let skipped = |fault, records| Failed { fault, records: Some(records), over: false };
        if head.number.get() < self.number || head.first.get() < self.first {
            // Its records may have been read before.
            return Err(skipped(Fault::Order, 0));
        }
        self.number = head.number.get().wrapping_add(1);
        self.first = head.first.get().wrapping_add(own);
        self.head = head;
        if crc32fast::hash(&self.stored) != head.payload_crc.get() {
            return Err(skipped(Fault::Payload, own));
        }
        self.raw.clear();
        self.raw.reserve(head.raw.get() as usize);
        let raw = self.decompressor.decompress_to_buffer(&self.stored, &mut self.raw);
        if raw.ok() != Some(head.raw.get() as usize) {
            return Err(skipped(Fault::Content(0), own));
        }
        Ok(Kind::from_number(head.kind))
    }
}

/// Everything that can be read, item by item.
impl<R: Read> Iterator for Reader<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        Some(match self.advance()? {
            Got::Event => Item::Event(self.event.clone()),
            Got::Note(note) => Item::Note(*note),
            Got::Damage(damage) => Item::Damage(*damage),
        })
    }
}

/// A frame that could not be read.
struct Failed {
    fault: Fault,
    records: Option<u64>,
    over: bool,
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Content(error.column()))
}

/// Reads until the buffer is full or the input ends, and says how much it was.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut full = 0;
    while full < buffer.len() {
        match input.read(&mut buffer[full..]) {
            Ok(0) => break,
            Ok(read) => full += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(full)
}
