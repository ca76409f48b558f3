//! `septwatch completions`: what a shell needs to complete the command line.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::{cli::Cli, exit};

/// Prints a script with which a shell completes septwatch's command line.
///
/// bash: `septwatch completions bash > /usr/share/bash-completion/completions/septwatch`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Of which shell.
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// It cannot be printed.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    // What it writes to must not fail: it is put together first.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "septwatch", &mut script);
    out.write_all(&script)?;
    Ok(exit::OK)
}
