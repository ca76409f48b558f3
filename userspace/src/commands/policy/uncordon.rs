//! `septwatch policy uncordon`: new VMs are welcome again.

use std::{io::Write, path::Path};

use anyhow::Result;

use crate::{
    commands::exit,
    hooks::lock::RUN,
    policy::control::{Request, ask},
};

/// Ends the cordon of this host: KVM_CREATE_VM is not refused any more.
///
/// Exit code 0: new VMs are welcome; 3: no agent runs, or it says no.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// The cordon stays.
pub fn run(_: &Args, out: &mut dyn Write) -> Result<u8> {
    ask(Path::new(RUN), &Request::Uncordon)?;
    writeln!(out, "uncordoned")?;
    Ok(exit::OK)
}
