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
pub mod hold_keeper;
mod live;
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
pub mod watch;
mod watching;

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

/// An error with its causes. Those that are also shown alone carry their cause's words already.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut told = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !told.ends_with(&cause) {
            let colon = if told.is_empty() { "" } else { ": " };
            told = told + colon + &cause;
        }
        next = error.source();
    }
    told
}
