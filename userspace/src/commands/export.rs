//! `septwatch export`: a recording in the format of another tool.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{BadInput, exit, recording};
use crate::export::{self, ExportError, Format};

/// Writes a recording in the format of another tool.
///
/// jsonl: events as `watch --json` prints them, and notes, each an object. csv: one table, a row per event, columns that
/// do not apply empty; in --help all columns. parquet: the same table. perfetto: a track per TD and per CPU; SEAMCALLs
/// are slices on the CPU that they returned on, as long as they took if the recording has latencies (record --latency),
/// else without length at their return.
///
/// Exit code 0: all of it is exported; 2: it cannot be read, or not to its end: what can be read is exported; 3: the
/// output cannot be written.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = columns())]
pub struct Args {
    /// The recording.
    pub file: PathBuf,
    /// The format.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub to: Format,
    /// Where to; `-` is standard output. Without it jsonl and csv go to standard output, the others into a file beside
    /// the recording that is called as it is, with .parquet or .pftrace at its end.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// All columns of the table, for the help text.
fn columns() -> String {
    let mut text = "Columns of csv and parquet:\n".to_owned();
    for column in export::rows::COLUMNS {
        text.push_str(&format!("  {:<16} {}\n", column.name, column.what));
    }
    text
}

/// Runs the command.
///
/// # Errors
/// The file is no recording, or the output cannot be written.
pub fn run(args: &Args) -> Result<u8> {
    let file = fs::metadata(&args.file).map_err(|error| bad(&args.file, &error))?;
    if !file.is_file() {
        let why = "is read twice, and can be only if it is a file: name one";
        return Err(BadInput(format!("{}: a recording that is exported {why}", args.file.display())).into());
    }
    let output = match &args.output {
        Some(path) if path.as_os_str() == OsStr::new("-") => None,
        None if args.to.is_text() => None,
        None => Some(args.file.with_extension(args.to.extension())),
        Some(path) => Some(path.clone()),
    };
    let out: Box<dyn Write + Send> = match &output {
        None => Box::new(BufWriter::new(io::stdout())),
        Some(path) => {
            if fs::metadata(path).is_ok_and(|out| (out.dev(), out.ino()) == (file.dev(), file.ino())) {
                let why = "that is the recording itself: name another file with --output";
                return Err(BadInput(format!("--output {}: {why}", path.display())).into());
            }
            // A recording that is none must not leave an empty file behind.
            recording::readable(&args.file)?;
            Box::new(BufWriter::new(File::create(path).map_err(|error| unwritable(path, &error))?))
        }
    };
    let mut damaged = |damage: &_| eprintln!("septwatch: {}: {damage}", args.file.display());
    let exported = export::export(&args.file, args.to, out, &mut damaged).map_err(|error| match error {
        ExportError::Open(error) => recording::unreadable(error),
        // A closed pipe must still be found in it.
        ExportError::Write(error) if output.is_none() => anyhow::Error::new(error),
        other => {
            let name = output.as_deref().unwrap_or(Path::new("standard output"));
            anyhow::anyhow!("{}: {other}", name.display())
        }
    })?;
    if let Some(path) = &output {
        eprintln!("septwatch: {} events to {}", exported.events, path.display());
    }
    Ok(if exported.damages == 0 { exit::OK } else { exit::USAGE })
}

fn bad(path: &Path, error: &io::Error) -> anyhow::Error {
    BadInput(format!("{}: {error}", path.display())).into()
}

fn unwritable(path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("--output {}: {error}", path.display())
}
