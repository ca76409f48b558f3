//! `septwatch man`: a man page for each command.

use std::path::PathBuf;

use anyhow::Result;
use clap::CommandFactory as _;

use super::{BadInput, cli::Cli, exit};

/// Writes man pages, one for each command, into a folder.
///
/// `man ./septwatch-agent.1` shows one.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder, which must be there; usually /usr/share/man/man1.
    pub folder: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A page cannot be written.
pub fn run(args: &Args) -> Result<u8> {
    let written = clap_mangen::generate_to(Cli::command(), &args.folder);
    written.map_err(|error| BadInput(format!("{}: {error}", args.folder.display())))?;
    Ok(exit::OK)
}
