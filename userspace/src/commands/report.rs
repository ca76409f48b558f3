//! `septwatch report`: a recording's violation as a text for the kernel's mailing list.

use std::{io::Write, path::PathBuf};

use anyhow::Result;

use super::{exit, minimize};
use crate::{
    minimize::Wanted,
    report::{collect, write},
};

/// Writes a text about a violation that can go to the kernel's mailing list: the kernel, the life of the page, the
/// SEAMCALL that failed and what its status means, both stacks, how sure it is. It names neither the host nor any path;
/// names and ids of the processes are in it.
///
/// Exit code 0: it is written; 2: the recording cannot be read, or not to its end, or has no such violation.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The recording.
    pub file: PathBuf,
    /// Which violation: the first of this name, or the one with this number, from 1.
    #[arg(long, value_name = "NAME|N", default_value = "1", value_parser = minimize::wanted)]
    pub violation: Wanted,
    /// All violations.
    #[arg(long, conflicts_with = "violation")]
    pub all: bool,
    /// Markdown instead of plain text with 76 columns.
    #[arg(long)]
    pub markdown: bool,
}

/// Runs the command.
///
/// # Errors
/// The recording cannot be read, has no such violation, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let wanted = (!args.all).then_some(args.violation);
    let told = collect(&args.file, wanted).map_err(|error| minimize::told(&args.file, error))?;
    out.write_all(write(&told, args.markdown).as_bytes())?;
    if told.damages != 0 {
        let places = told.damages;
        eprintln!(
            "septwatch: {}: damaged at {places} places: what lay there is missing",
            args.file.display()
        );
        return Ok(exit::USAGE);
    }
    Ok(exit::OK)
}
