//! Reading the log, for people.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// The day, as in 2026-11-25.
    pub day: String,
    /// Its file.
    pub path: PathBuf,
}

/// Whether a text is a day as files are named by.
fn is_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
}

/// The files of a log, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn days(folder: &Path) -> io::Result<Vec<Day>> {
    let mut days = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if is_day(&stem) && path.extension().is_some_and(|extension| extension == "jsonl") {
            days.push(Day { day: stem, path });
        }
    }
    days.sort_unstable();
    Ok(days)
}

/// The lines of a file in their order; as text, where a crash tore one.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Result<Value, String>>> {
    Ok(parse(&fs::read(path)?))
}

/// The lines in the last so many bytes of a file.
///
/// # Errors
/// It cannot be read.
pub fn last(path: &Path, bytes: u64) -> io::Result<Vec<Result<Value, String>>> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(bytes);
    // One byte more tells whether a line begins there.
    file.seek(SeekFrom::Start(skipped.saturating_sub(1)))?;
    let mut last = Vec::new();
    file.read_to_end(&mut last)?;
    let first = if skipped == 0 {
        0
    } else {
        last.iter().position(|byte| *byte == b'\n').map_or(last.len(), |at| at + 1)
    };
    Ok(parse(&last[first..]))
}

fn parse(bytes: &[u8]) -> Vec<Result<Value, String>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parse = |line: &[u8]| {
        let value = serde_json::from_slice::<Value>(line).ok().filter(Value::is_object);
        value.ok_or_else(|| String::from_utf8_lossy(line).into_owned())
    };
    lines.map(parse).collect()
}
