//! `septwatch policy disarm`: from now on the agent may not act.

use std::{io::Write, path::Path};

use anyhow::Result;

use crate::{
    commands::exit,
    hooks::lock::RUN,
    policy::control::{Request, ask},
};

/// Disarms the agent that runs here: from now on it only writes down what it would do. What is held stays held.
///
/// Exit code 0: it is disarmed; 3: no agent runs, or it says no.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// The agent is not disarmed.
pub fn run(_: &Args, out: &mut dyn Write) -> Result<u8> {
    ask(Path::new(RUN), &Request::Disarm)?;
    writeln!(out, "disarmed")?;
    Ok(exit::OK)
}
