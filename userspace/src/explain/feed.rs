//! A kernel log, line by line: joins the lines that belong to one failure.

use super::{
    Explanation,
    log::{self, Call, Line},
    words,
};

/// Takes lines, gives explanations, each with the line it is about.
#[derive(Debug, Default)]
pub struct Feed {
    /// A call whose registers may follow on lines of their own.
    pending: Option<(String, Call)>,
}

/// An explanation, and the line that it is about (safe to print).
pub type Explained = (String, Explanation);

impl Feed {
    /// Takes the next line. What it gives may be about the line before.
    pub fn line(&mut self, line: &str) -> Vec<Explained> {
        let parsed = log::parse(line);
        if let (Line::More(more), Some((_, call))) = (&parsed, &mut self.pending) {
            call.registers = call.registers.or(*more);
            return Vec::new();
        }
        let mut said: Vec<_> = self.finish().into_iter().collect();
        let explanation = match parsed {
            Line::Call(call) => {
                self.pending = Some((words::shown(line), call));
                return said;
            }
            Line::Warning(warning) => Explanation::Warning(super::warning(&warning)),
            Line::HkidLeaked { leaf, hkid } => Explanation::HkidLeaked(super::hkid_leaked(leaf, hkid)),
            Line::More(_) | Line::Other => return said,
        };
        said.push((words::shown(line), explanation));
        said
    }

    /// The end of the log, or a pause: what was waiting for more.
    pub fn finish(&mut self) -> Option<Explained> {
        let (line, call) = self.pending.take()?;
        Some((line, Explanation::Status(Box::new(super::status(&call)))))
    }
}
