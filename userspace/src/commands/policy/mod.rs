//! `septwatch policy`: one file per subcommand.

pub mod arm;
pub mod disarm;
pub mod release;
pub mod status;

use std::io::Write;

use anyhow::Result;

/// Policies: what is done about violations.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    Arm(arm::Args),
    Disarm(disarm::Args),
    Status(status::Args),
    Release(release::Args),
}

/// Runs the command.
///
/// # Errors
/// As for each of them.
pub fn run(command: &Command, out: &mut dyn Write) -> Result<u8> {
    match command {
        Command::Arm(args) => arm::run(args, out),
        Command::Disarm(args) => disarm::run(args, out),
        Command::Status(args) => status::run(args, out),
        Command::Release(args) => release::run(args, out),
    }
}
