//! The table as CSV: a line of names, then one line per event. Numbers are decimal, words of 64 bits hexadecimal with
//! `0x`, moments as RFC 3339 has them.

use std::io::{self, Write};

use super::{
    ExportError, Last, Now, Sink,
    rows::{COLUMNS, Cell, Kind, Row, rfc3339},
};
use crate::recording::replay::Step;

/// A table that is being written.
pub struct Csv(csv::Writer<Box<dyn Write + Send>>);

impl Csv {
    /// Writes the names of the columns.
    pub fn begin(out: Box<dyn Write + Send>) -> Result<Self, ExportError> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS.iter().map(|column| column.name)).map_err(io::Error::from)?;
        Ok(Self(writer))
    }
}

impl Sink for Csv {
    fn step(&mut self, step: &Step, now: &Now<'_>) -> Result<(), ExportError> {
        let Step::Event { event, found } = step else { return Ok(()) };
        let verdict = found.as_deref().map(|(verdict, _)| verdict);
        let row = Row::of(event, verdict, now.td, &now.header.clock);
        for column in COLUMNS {
            let cell = (column.cell)(&row);
            let text = match (cell, column.kind) {
                (Cell::Empty, _) => String::new(),
                (Cell::Number(ns), Kind::Realtime) => rfc3339(ns),
                (Cell::Number(word), Kind::Word) => format!("{word:#x}"),
                (Cell::Number(number), _) => number.to_string(),
                (Cell::Text(text), _) => text.into_owned(),
            };
            self.0.write_field(text).map_err(io::Error::from)?;
        }
        self.0.write_record(None::<&[u8]>).map_err(io::Error::from)?;
        Ok(())
    }

    fn end(&mut self, _: &Last<'_>) -> Result<(), ExportError> {
        Ok(self.0.flush()?)
    }
}
