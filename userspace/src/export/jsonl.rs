//! Events and notes as JSON, one object a line; `type` says what each is.
//!
//! The first is a `recording`, the last an `end`; between them are the events, as `watch --json` prints them, and
//! `step`, `counted`, `unwritten` and `damage` where they belong.

use std::io::Write;

use serde_json::{Value, json};

use super::{ExportError, Last, Now, Sink};
use crate::{
    recording::{
        header::{Header, Note},
        replay::Step,
    },
    view::json,
};

/// Lines that are being written.
pub struct Jsonl(Box<dyn Write + Send>);

impl Jsonl {
    /// Writes what the recording says of itself.
    pub fn begin(out: Box<dyn Write + Send>, header: &Header) -> Result<Self, ExportError> {
        let mut lines = Self(out);
        lines.line(&json::recording(header))?;
        Ok(lines)
    }

    fn line(&mut self, object: &Value) -> Result<(), ExportError> {
        Ok(writeln!(self.0, "{object}")?)
    }
}

impl Sink for Jsonl {
    fn step(&mut self, step: &Step, _: &Now<'_>) -> Result<(), ExportError> {
        let object = match step {
            Step::Event { found: Some(found), .. } => json::violation(&found.0, &found.1),
            Step::Event { event, found: None } => json::event(event, None),
            // The places of a violation are in its object.
            Step::Note(Note::Places { .. } | Note::Unknown) => return Ok(()),
            Step::Note(note) => json::note(note),
            Step::Damage(damage) => json!({
                "type": "damage",
                "at_byte": damage.at,
                "frame": damage.frame,
                "fault": damage.fault.to_string(),
                "missing_records": damage.records,
                "read_beyond": !damage.last,
            }),
        };
        self.line(&object)
    }

    fn end(&mut self, last: &Last<'_>) -> Result<(), ExportError> {
        let model = last.now.replay.model();
        let mut object =
            json!({"type": "end", "why": last.end.map(|end| end.why), "violations": model.total()});
        if let Some(object) = object.as_object_mut() {
            object.extend(json::standing(&last.standing));
        }
        self.line(&object)?;
        Ok(self.0.flush()?)
    }
}
