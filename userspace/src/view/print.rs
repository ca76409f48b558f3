//! Events one after the other, as `watch`, `record` and `replay` print them.

use std::io::{self, Write};

use serde_json::json;

use super::{json, lines, stack::Places};
use crate::{
    model::{Model, verdict::Verdict},
    policy::audit::Step,
    source::{event::Event, session::Standing, walk::resync::Outcome},
};

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

    /// Prints a step of a policy: taken, or why not.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn reaction(self, step: &Step, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            let mut reaction = json!(step);
            reaction["type"] = "reaction".into();
            return writeln!(out, "{reaction}");
        }
        let time_ns = step.done_ns.unwrap_or(step.asked_ns);
        writeln!(
            out,
            "{}.{:09} > {}",
            time_ns / 1_000_000_000,
            time_ns % 1_000_000_000,
            lines::reaction(step)
        )
    }

    /// Prints what came of taking over a TD that ran already.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn walked(self, outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            let mut walked = json!(outcome);
            walked["type"] = "resynchronised".into();
            return writeln!(out, "{walked}");
        }
        writeln!(out, "{}", lines::walked(outcome))
    }

    /// Prints what it came to.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(self, total: u64, model: &Model, standing: &Standing, out: &mut dyn Write) -> io::Result<()> {
        let (windows, latencies) = (&model.windows, &model.latencies);
        if self.json {
            let mut end =
                json!({"type": "end", "violations": total, "windows": windows, "latencies": latencies});
            if let Some(end) = end.as_object_mut() {
                end.extend(json::standing(standing));
            }
            writeln!(out, "{end}")?;
            return out.flush();
        }
        let vital = standing.vital;
        writeln!(
            out,
            "{total} violations; vital records: {} produced = {} received + {} lost{}",
            vital.produced,
            vital.received,
            vital.lost,
            if vital.earlier == 0 { String::new() } else { format!(" + {} received before", vital.earlier) }
        )?;
        for line in lines::windows(windows).into_iter().chain(lines::latencies(latencies)) {
            writeln!(out, "{line}")?;
        }
        if standing.missed_releases != 0 {
            writeln!(out, "{} releases may have passed unseen", standing.missed_releases)?;
        }
        out.flush()
    }
}
