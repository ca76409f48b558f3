//! `septwatch hold-keeper`: the process that keeps what is held. The agent starts it.

use std::{io, path::PathBuf};

use anyhow::{Context as _, Result};

use super::exit;
use crate::policy::keeper::serve;

/// Keeps the descriptors of what is held, until there are none. Started by the agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of its socket.
    #[arg(long, value_name = "DIR", default_value = crate::hooks::lock::RUN)]
    pub run: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// It cannot be reached in that folder.
pub fn run(args: &Args) -> Result<u8> {
    // What the agent's own parent left open is not its business, and somebody may wait for the end of it.
    // SAFETY: this process has opened nothing yet that a value here would own.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed != 0 {
        return Err(io::Error::last_os_error()).context("close_range");
    }
    serve(&args.run).with_context(|| args.run.display().to_string())?;
    Ok(exit::OK)
}
