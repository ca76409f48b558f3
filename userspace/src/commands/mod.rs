//! One file per subcommand: its arguments, and what it prints. The work itself is done in the library's other rooms.

pub mod demo;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod watch;
mod watching;

pub use watching::{Interrupted, Interrupts, Watching};

/// Whether an error is that nobody reads the output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
