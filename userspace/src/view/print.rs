//! Events one after the other, as `watch`, `record` and `replay` print them.

use std::io::{self, Write};

use super::{json, lines, stack::Places};
use crate::{model::verdict::Verdict, source::event::Event};

/// How they are printed.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// As JSON, one object a line.
    pub json: bool,
}

impl Printer {
    /// Prints an event; with `found`, a violation and the places in its stacks.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn event(
        self,
        event: &Event,
        found: Option<(&Verdict, &Places)>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match (self.json, found) {
            (true, Some((verdict, places))) => writeln!(out, "{}", json::violation(verdict, places)),
            (true, None) => writeln!(out, "{}", json::event(event, None)),
            (false, _) => {
                let time_ns = event.header().time_ns;
                let mark = if found.is_some() { '!' } else { ' ' };
                let line = lines::event(event, found.map(|(verdict, _)| verdict));
                write!(out, "{}.{:09} {mark} {line}", time_ns / 1_000_000_000, time_ns % 1_000_000_000)?;
                for line in found.iter().flat_map(|(verdict, places)| lines::details(verdict, places)) {
                    write!(out, "\n      {line}")?;
                }
                writeln!(out)
            }
        }
    }
}
