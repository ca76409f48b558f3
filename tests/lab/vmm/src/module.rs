//! The software TDX module's debugfs files, as far as a script needs them.

use std::fs;
use std::process;

use anyhow::{Context as _, Result, ensure};

const FOLDER: &str = "/sys/kernel/debug/softtdx";

/// Writes one line to a control file.
///
/// # Errors
/// The module is not there, or refuses the line.
pub fn write(file: &str, line: &str) -> Result<()> {
    let path = format!("{FOLDER}/{file}");
    fs::write(&path, format!("{line}\n")).with_context(|| format!("cannot write `{line}` to {path}"))
}

/// Reads one of the files.
///
/// # Errors
/// The module is not there.
pub fn read(file: &str) -> Result<String> {
    let path = format!("{FOLDER}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// Runs the module's test of itself; fails if one of its checks did.
///
/// # Errors
/// The module is not there, or is not as its specification says.
pub fn selftest() -> Result<String> {
    let said = read("selftest")?;
    let lines = said.trim().replace('\n', "; ");
    ensure!(lines.starts_with("ok "), "{lines}");
    Ok(lines)
}

/// The number that the module gave to the newest TD of this process.
///
/// # Errors
/// The module is not there, or knows no TD of this process.
pub fn newest_td() -> Result<u32> {
    let mine = process::id().to_string();
    let state = read("state")?;
    let numbers = state.lines().filter(|line| field(line, "tgid") == Some(&mine));
    let newest = numbers.filter_map(|line| field(line, "td")?.parse().ok()).max();
    newest.context("the module knows no TD of this process")
}

/// The frame that holds a guest page of a TD.
///
/// # Errors
/// The module is not there, or the TD does not own a page at this address.
pub fn frame_of(td: u32, gpa: u64) -> Result<u64> {
    let (td, gpa) = (td.to_string(), format!("{gpa:#x}"));
    let owned = read("owned")?;
    let line = owned
        .lines()
        .find(|line| {
            field(line, "type") == Some("REG")
                && field(line, "td") == Some(&td)
                && field(line, "gpa") == Some(&gpa)
        })
        .with_context(|| format!("TD {td} owns no page at {gpa}"))?;
    let frame = field(line, "pfn").and_then(|pfn| u64::from_str_radix(pfn.trim_start_matches("0x"), 16).ok());
    frame.with_context(|| format!("no pfn in `{line}`"))
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
