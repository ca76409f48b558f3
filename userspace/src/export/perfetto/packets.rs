//! Writing packets: one sequence, timed by CLOCK_MONOTONIC, with strings that were written before as numbers.

use std::{borrow::Cow, collections::HashMap, io::Write};

use prost::Message as _;

use super::proto::{
    self, BOOTTIME, CLEARED, ClockSnapshot, Data, DebugAnnotation, Interned, InternedData, MONOTONIC,
    NEEDS_STATE, REALTIME, Trace, TracePacket, TracePacketDefaults, TrackDescriptor, TrackEvent, Type, Value,
};
use crate::{
    export::{
        ExportError,
        rows::{COLUMNS, Cell, Kind, Row},
    },
    recording::header::Clock,
};

/// The one sequence of packets that there is.
const SEQUENCE: u32 = 1;

/// Strings that are known by number at most. Names are few; what a damaged recording holds must not be kept for ever.
const STRINGS: usize = 1 << 14;

/// Columns that the place of an event in the trace tells already.
const NO_ARGUMENT: [&str; 5] = ["time_ns", "realtime", "type", "leaf", "violation"];

/// Strings by number, from 1.
#[derive(Default)]
struct Strings(HashMap<String, u64>);

impl Strings {
    /// The number of a string; if it is new, it is added to `new`. None: there is no room.
    fn number(&mut self, text: &str, new: &mut Vec<Interned>) -> Option<u64> {
        if let Some(iid) = self.0.get(text) {
            return Some(*iid);
        }
        if self.0.len() >= STRINGS {
            return None;
        }
        let iid = self.0.len() as u64 + 1;
        self.0.insert(text.to_owned(), iid);
        new.push(Interned { iid: Some(iid), name: Some(text.to_owned()) });
        Some(iid)
    }
}

/// An event of a track.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What is told of it.
    pub row: Option<Box<Row>>,
    /// What is told of it besides.
    pub more: Vec<(&'static str, String)>,
}

impl Entry {
    /// One that has nothing but a name.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), row: None, more: Vec::new() }
    }

    /// One that is told as a row is.
    pub fn row(name: &'static str, row: Row) -> Self {
        Self { name: Cow::Borrowed(name), row: Some(Box::new(row)), more: Vec::new() }
    }
}

/// A trace that is being written.
pub struct Packets {
    out: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    names: Strings,
    arguments: Strings,
    texts: Strings,
}

impl Packets {
    /// Begins a trace at this moment.
    pub fn begin(out: Box<dyn Write + Send>, clock: &Clock) -> Result<Self, ExportError> {
        let (names, arguments, texts) = Default::default();
        let mut packets = Self { out, buffer: Vec::new(), names, arguments, texts };
        packets.write(TracePacket {
            sequence_flags: Some(CLEARED),
            trace_packet_defaults: Some(TracePacketDefaults { timestamp_clock_id: Some(MONOTONIC) }),
            ..TracePacket::default()
        })?;
        packets.clock(clock)?;
        Ok(packets)
    }

    fn write(&mut self, mut packet: TracePacket) -> Result<(), ExportError> {
        packet.trusted_packet_sequence_id = Some(SEQUENCE);
        self.buffer.clear();
        // Into a vector that grows it cannot fail.
        let _ = Trace { packet: vec![packet] }.encode(&mut self.buffer);
        Ok(self.out.write_all(&self.buffer)?)
    }

    /// The same moment on all clocks, so that the time of day is known.
    pub fn clock(&mut self, clock: &Clock) -> Result<(), ExportError> {
        let Clock { monotonic_ns, realtime_ns, boottime_ns } = *clock;
        let times = [(MONOTONIC, monotonic_ns), (REALTIME, realtime_ns), (BOOTTIME, boottime_ns)];
        let of = |(id, ns)| proto::Clock { clock_id: Some(id), timestamp: Some(ns) };
        let clocks = times.into_iter().filter(|(_, ns)| *ns != 0).map(of).collect();
        let snapshot = ClockSnapshot { clocks, primary_trace_clock: Some(MONOTONIC) };
        let data = Some(Data::ClockSnapshot(snapshot));
        self.write(TracePacket { timestamp: Some(monotonic_ns), data, ..TracePacket::default() })
    }

    /// A track.
    pub fn track(&mut self, track: TrackDescriptor) -> Result<(), ExportError> {
        self.write(TracePacket { data: Some(Data::TrackDescriptor(track)), ..TracePacket::default() })
    }

    /// An event on a track. The end of a slice has no entry.
    pub fn event(
        &mut self,
        track: u64,
        kind: Type,
        time_ns: u64,
        entry: Option<&Entry>,
    ) -> Result<(), ExportError> {
        let mut new = InternedData::default();
        let mut event =
            TrackEvent { r#type: Some(kind as i32), track_uuid: Some(track), ..TrackEvent::default() };
        if let Some(entry) = entry {
            match self.names.number(&entry.name, &mut new.event_names) {
                Some(iid) => event.name_iid = Some(iid),
                None => event.name = Some(entry.name.clone().into_owned()),
            }
            let of_row = entry.row.iter().flat_map(|row| {
                let told = COLUMNS.iter().filter(|column| !NO_ARGUMENT.contains(&column.name));
                told.map(|column| (column.name, column.kind, (column.cell)(row)))
            });
            let more =
                entry.more.iter().map(|(name, text)| (*name, Kind::Text, Cell::Text(text.clone().into())));
            for (name, kind, cell) in of_row.chain(more) {
                let value = match (cell, kind) {
                    (Cell::Empty, _) => continue,
                    (Cell::Number(word), Kind::Word) => Value::Pointer(word),
                    (Cell::Number(number), _) => Value::Uint(number),
                    (Cell::Text(text), _) => {
                        match self.texts.number(&text, &mut new.debug_annotation_string_values) {
                            Some(iid) => Value::TextIid(iid),
                            None => Value::Text(text.into_owned()),
                        }
                    }
                };
                let name_iid = self.arguments.number(name, &mut new.debug_annotation_names);
                event.debug_annotations.push(DebugAnnotation { name_iid, value: Some(value) });
            }
        }
        self.timed(time_ns, event, new)
    }

    /// The value of a counter.
    pub fn counter(&mut self, track: u64, time_ns: u64, value: u64) -> Result<(), ExportError> {
        let event = TrackEvent {
            r#type: Some(Type::Counter as i32),
            track_uuid: Some(track),
            counter_value: Some(i64::try_from(value).unwrap_or(i64::MAX)),
            ..TrackEvent::default()
        };
        self.timed(time_ns, event, InternedData::default())
    }

    fn timed(&mut self, time_ns: u64, event: TrackEvent, new: InternedData) -> Result<(), ExportError> {
        self.write(TracePacket {
            timestamp: Some(time_ns),
            sequence_flags: Some(NEEDS_STATE),
            interned_data: (new != InternedData::default()).then_some(new),
            data: Some(Data::TrackEvent(event)),
            ..TracePacket::default()
        })
    }

    /// All of it is written.
    pub fn end(&mut self) -> Result<(), ExportError> {
        Ok(self.out.flush()?)
    }
}
