//! One file per subcommand: its arguments, and what it prints. The work itself is done in the library's other rooms.

pub mod agent;
pub mod audit;
pub mod check;
pub mod cli;
pub mod completions;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod export;
mod fleet;
pub mod hold_keeper;
mod live;
mod looks;
pub mod man;
pub mod minimize;
mod output;
mod policing;
pub mod policy;
pub mod record;
mod recording;
pub mod replay;
pub mod report;
mod storms;
pub mod top;
mod values;
pub mod watch;
mod watching;

pub use crate::told::told;
pub use policing::Policing;
pub use watching::{Interrupted, Interrupts, Watching};

/// What somebody gave is wrong: a flag, a file, a command.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// Whether an error is that nobody reads the output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is))
}
