//! `septwatch policy release`: a TD's hold is ended.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::{
    commands::exit,
    hooks::lock::RUN,
    policy::{
        audit::{self, Audit, Event, EventKind, Line, Who},
        control::{AskError, Request, ask},
        keeper::Keeper,
    },
};

/// Ends the hold of a TD: its pages go back to the host's allocator, also those that the TDX module may still have mapped.
///
/// Without an agent, only what is pinned is let go; the next agent lifts the refusal of fallocate.
/// Exit code 0: it is released; 3: it is not held, or not by anybody who can be asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The TD's number, as `septwatch policy status` has it.
    pub td: u32,
    /// Folder of the audit log, where no agent runs.
    #[arg(long, value_name = "DIR", default_value = audit::FOLDER)]
    pub audit: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// It is not released.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let folder = Path::new(RUN);
    let td = args.td;
    match ask(folder, &Request::Release { td }) {
        Ok(released) => writeln!(out, "released: TD {td}, {} frames were held", released["frames"])?,
        Err(AskError::NoAgent) => alone(args, folder, out)?,
        Err(error) => return Err(error.into()),
    }
    Ok(exit::OK)
}

/// Without an agent.
fn alone(args: &Args, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let (td, keeper) = (args.td, Keeper::at(folder));
    let kept: Vec<_> = keeper.list()?.into_iter().filter(|kept| kept.td == td).collect();
    if kept.is_empty() {
        bail!("nothing is pinned for TD {td}: `septwatch policy status` has what is");
    }
    let frames = kept.iter().map(|kept| kept.frames).sum();
    let event =
        Event::new(EventKind::HoldReleased, None, Who::this(), "no agent runs: what was pinned is let go");
    let line = Line::Event(Event { td: Some(td), frames: Some(frames), ..event });
    Audit::open(&args.audit)?.write(&line, true)?;
    keeper.release(td, false)?;
    writeln!(out, "released: TD {td}, {frames} frames were held")?;
    eprintln!(
        "septwatch: no agent runs: programs in the kernel that refuse fallocate on its guest_memfd go on, until the next agent lifts that"
    );
    Ok(())
}
