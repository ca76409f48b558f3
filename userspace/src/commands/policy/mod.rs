//! `septwatch policy`: policies looked at, explained and rehearsed, and the agent that follows one asked.

mod arm;
mod check;
mod disarm;
mod explain;
mod list;
mod log;
mod means;
mod release;
mod schema;
mod show;
mod status;
mod test;
mod uncordon;

use std::io::Write;

use anyhow::Result;

use super::BadInput;
use crate::policy::file::{Policy, PolicyError};

/// Policies: what is done about a violation.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Check(check::Args),
    Explain(explain::Args),
    Test(test::Args),
    Schema(schema::Args),
    Log(log::Args),
    Status(status::Args),
    Arm(arm::Args),
    Disarm(disarm::Args),
    Release(release::Args),
    Uncordon(uncordon::Args),
}

/// Runs the command.
///
/// # Errors
/// A policy or a recording is of no use, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    match &args.command {
        Command::List(args) => list::run(args, out),
        Command::Show(args) => show::run(args, out),
        Command::Check(args) => check::run(args, out),
        Command::Explain(args) => explain::run(args, out),
        Command::Test(args) => test::run(args, out),
        Command::Schema(args) => schema::run(args, out),
        Command::Log(args) => log::run(args, out),
        Command::Status(args) => status::run(args, out),
        Command::Arm(args) => arm::run(args, out),
        Command::Disarm(args) => disarm::run(args, out),
        Command::Release(args) => release::run(args, out),
        Command::Uncordon(args) => uncordon::run(args, out),
    }
}

pub(super) use log::told as logged;
pub(super) use status::line as hold_line;

/// The policy of an argument.
fn find(name_or_path: &str) -> Result<Policy> {
    Policy::find(name_or_path).map_err(unusable)
}

fn unusable(error: PolicyError) -> anyhow::Error {
    BadInput(error.to_string()).into()
}
