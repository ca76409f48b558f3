//! A terminal that a program cannot tell from one with a person in front: a pseudo-terminal with the emulator `vt100`
//! behind it. For tests, pictures and measurements of `septwatch top`.

mod keys;
mod modes;
mod output;
mod process;
mod terminal;

pub use keys::{Mouse, bytes};
pub use modes::{Line, Modes};
pub use output::{Frames, Output};
pub use process::{Used, cpu, threads};
pub use terminal::Terminal;
pub use vt100::{Cell, Color, MouseProtocolMode, Screen};

use std::{fmt, io, time::Duration};

/// What went wrong. `unwrap` shows the screen.
#[derive(thiserror::Error)]
pub enum PtyError {
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// Something was waited for in vain.
    #[error("{command}: waited {waited:?} in vain {what}{}\n{screen}", how_ended(.ended))]
    Late {
        /// The program.
        command: String,
        /// For what.
        what: String,
        /// How long.
        waited: Duration,
        /// How it has ended meanwhile, if it has.
        ended: Option<String>,
        /// What was on the screen.
        screen: String,
    },
    /// No key has this name.
    #[error("{0:?} is the name of no key")]
    Key(String),
}

fn how_ended(ended: &Option<String>) -> String {
    ended.as_ref().map(|ended| format!("; it has ended: {ended}")).unwrap_or_default()
}

impl fmt::Debug for PtyError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{self}")
    }
}

/// What can be done here.
pub type Result<T> = std::result::Result<T, PtyError>;

/// Says what was tried.
fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> PtyError {
    move |error| PtyError::System { what: what.into(), error: error.into() }
}
