//! One track: its events in the order of time, and its slices one in the other or one after the other.
//!
//! Records come in the order in which SEAMCALLs returned, and an interrupt's may come before that of what it interrupted;
//! a trace wants slices where they begin. So a track holds its last entries back. A slice that would overlap one that
//! began before it without being in it (a task was moved to this CPU meanwhile) begins where that one ends.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    packets::{Entry, Packets},
    proto::Type,
};
use crate::export::ExportError;

/// Entries that a track holds back.
const HELD: usize = 256;

/// What is held back: when it ends, if it is a slice; what it is.
struct Held {
    end_ns: Option<u64>,
    entry: Entry,
}

/// A track that is being written.
pub struct Track {
    uuid: u64,
    /// By begin; then the one that ends last first; then as they came.
    held: BTreeMap<(u64, Reverse<u64>, u64), Held>,
    came: u64,
    /// Ends of the slices that are open in the trace, outermost first.
    open: Vec<u64>,
    /// Nothing may begin before: up to here the trace is written.
    written_ns: u64,
    /// No slice may begin before: those that are written may end here.
    free_ns: u64,
}

impl Track {
    /// A track that has no events yet.
    pub const fn new(uuid: u64) -> Self {
        Self { uuid, held: BTreeMap::new(), came: 0, open: Vec::new(), written_ns: 0, free_ns: 0 }
    }

    /// Something that took time.
    pub fn slice(
        &mut self,
        from_ns: u64,
        to_ns: u64,
        entry: Entry,
        out: &mut Packets,
    ) -> Result<(), ExportError> {
        let (mut begin, mut end) = (from_ns.max(self.free_ns), to_ns);
        // Ones that begin together are in each other. Of the others, none may end within another.
        loop {
            let before = (begin, end);
            for ((other, _, _), held) in &self.held {
                match held.end_ns {
                    Some(other_end) if *other < begin && begin < other_end && other_end < end => {
                        begin = other_end;
                    }
                    Some(other_end) if begin < *other && *other < end && end < other_end => end = *other,
                    _ => {}
                }
            }
            if before == (begin, end) {
                break;
            }
        }
        self.hold(begin, Some(end.max(begin)), entry, out)
    }

    /// Something that took none.
    pub fn instant(&mut self, at_ns: u64, entry: Entry, out: &mut Packets) -> Result<(), ExportError> {
        self.hold(at_ns.max(self.written_ns), None, entry, out)
    }

    fn hold(
        &mut self,
        begin: u64,
        end_ns: Option<u64>,
        entry: Entry,
        out: &mut Packets,
    ) -> Result<(), ExportError> {
        self.came += 1;
        self.held.insert((begin, Reverse(end_ns.unwrap_or(begin)), self.came), Held { end_ns, entry });
        if self.held.len() > HELD { self.write(out) } else { Ok(()) }
    }

    /// Writes the first that is held back.
    fn write(&mut self, out: &mut Packets) -> Result<(), ExportError> {
        let Some(((begin, _, _), Held { end_ns, entry })) = self.held.pop_first() else { return Ok(()) };
        self.close(begin, out)?;
        self.written_ns = begin;
        match end_ns {
            None => out.event(self.uuid, Type::Instant, begin, Some(&entry)),
            Some(end) => {
                self.open.push(end);
                self.free_ns = self.free_ns.max(end);
                out.event(self.uuid, Type::SliceBegin, begin, Some(&entry))
            }
        }
    }

    /// Ends the slices that end up to a time.
    fn close(&mut self, until_ns: u64, out: &mut Packets) -> Result<(), ExportError> {
        while let Some(end) = self.open.pop_if(|end| *end <= until_ns) {
            out.event(self.uuid, Type::SliceEnd, end, None)?;
        }
        Ok(())
    }

    /// Writes all that is held back.
    pub fn flush(&mut self, out: &mut Packets) -> Result<(), ExportError> {
        while !self.held.is_empty() {
            self.write(out)?;
        }
        self.close(u64::MAX, out)
    }
}
