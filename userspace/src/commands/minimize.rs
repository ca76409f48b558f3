//! `septwatch minimize`: of a recording what shows one violation.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use septwatch_common::Violation;

use super::{BadInput, exit, recording};
use crate::{
    minimize::{self, Made, MinimizeError, Wanted},
    recording::names,
    view::lines,
};

/// Writes the smallest recording that still shows a violation: one TD, the events that matter, the kernel's verdict. The
/// ledger is run over it again and must find the violation as it was; for those that only KVM's own functions tell, such
/// as vm-bugged, it cannot, and all that is about the frame and the TD's life is kept.
///
/// Exit code 0: it is written; 2: the recording cannot be read, or not to its end, or has no such violation; 3: it cannot
/// be written.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The recording.
    pub file: PathBuf,
    /// Where to. Without it beside the recording, with .min.swt at its end.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Which violation: the first of this name, or the one with this number, from 1.
    #[arg(long, value_name = "NAME|N", default_value = "1", value_parser = wanted)]
    pub violation: Wanted,
}

/// Reads a violation's name or number.
///
/// # Errors
/// It is neither.
pub fn wanted(text: &str) -> Result<Wanted, String> {
    let number = || text.parse().ok().filter(|number| *number != 0).map(Wanted::Number);
    Violation::from_name(text).map(Wanted::Named).or_else(number).ok_or_else(|| {
        let names = Violation::ALL.map(Violation::name).join(", ");
        format!("neither a number from 1 on nor a violation's name: {names}")
    })
}

/// An error of a recording that is looked into.
pub fn told(file: &std::path::Path, error: MinimizeError) -> anyhow::Error {
    match error {
        MinimizeError::Open(error) => recording::unreadable(error),
        error @ MinimizeError::NoSuch { .. } => BadInput(format!("{}: {error}", file.display())).into(),
        other => anyhow::Error::new(other).context(file.display().to_string()),
    }
}

/// Runs the command.
///
/// # Errors
/// The recording cannot be read, has no such violation, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let output = args.output.clone().unwrap_or_else(|| args.file.with_extension("min.swt"));
    if std::fs::canonicalize(&output)
        .is_ok_and(|output| std::fs::canonicalize(&args.file).is_ok_and(|file| file == output))
    {
        let why = "that is the recording itself: name another file with --output";
        return Err(BadInput(format!("--output {}: {why}", output.display())).into());
    }
    let made = minimize::minimize(&args.file, args.violation).map_err(|error| told(&args.file, error))?;
    let Made { bytes, target, events: [before, after], bytes_before, is_found_again, is_smallest, damages } =
        &made;
    let written = names::make(&output).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| anyhow::anyhow!("--output {}: {error}", output.display()))?;
    writeln!(out, "violation {}: {}", target.number, lines::headline(&target.verdict))?;
    writeln!(out, "{before} events in {bytes_before} bytes -> {after} events in {} bytes", bytes.len())?;
    let judged = match (is_found_again, is_smallest) {
        (true, true) => "the ledger finds it again; without any one of the page records left it would not",
        (true, false) => {
            "the ledger finds it again; there was no time to look whether all that is left is needed"
        }
        (false, _) => {
            "a slice: the ledger cannot find it in page records, so the kernel's verdict stands alone"
        }
    };
    writeln!(out, "{judged}")?;
    writeln!(out, "written to {}", output.display())?;
    if *damages != 0 {
        eprintln!(
            "septwatch: {}: damaged at {damages} places: what lay there is missing",
            args.file.display()
        );
        return Ok(exit::USAGE);
    }
    Ok(exit::OK)
}
