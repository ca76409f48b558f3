//! The software TDX module's debugfs files, as far as a script needs them.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::td::PAGE;

/// The bit of a guest physical address that makes it shared.
pub const SHARED: u64 = 1 << 47;

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

/// The number that the module gave to the newest TD of this process; none if it has none.
///
/// # Errors
/// The module is not there.
pub fn newest_td(process: u32) -> Result<Option<u32>> {
    let process = process.to_string();
    let state = read("state")?;
    let numbers = state.lines().filter(|line| field(line, "tgid") == Some(&process));
    Ok(numbers.filter_map(|line| field(line, "td")?.parse().ok()).max())
}

/// Adds one exit to what the guest of a TD does; pages, counted from `base`, become addresses.
///
/// # Errors
/// The guest cannot do that, or the module refuses it.
pub fn script_guest(td: u32, base: u64, what: &[&str]) -> Result<()> {
    let mut line = format!("td={td}");
    let mut shared = 0;
    let mut map = None;
    for word in what {
        match word.split_once('=') {
            Some((key @ ("ept" | "accept"), page)) => line += &format!(" {key}={:#x}", base + bytes(page)?),
            Some(("mapgpa", page)) => map = Some(base + bytes(page)?),
            Some(("count", count)) => line += &format!(" size={:#x}", bytes(count)?),
            None if *word == "shared" => shared = SHARED,
            None if *word == "private" => shared = 0,
            _ => bail!("the guest cannot do `{word}`"),
        }
    }
    if let Some(gpa) = map {
        line += &format!(" mapgpa={:#x}", gpa | shared);
    }
    write("script", &line)
}

/// The size of so many pages.
///
/// # Errors
/// It is no number.
pub fn bytes(pages: &str) -> Result<u64> {
    let pages: u64 = pages.parse().with_context(|| format!("`{pages}` is not a number"))?;
    Ok(pages * PAGE)
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

/// Watches the frames of a TD's guest, of now and later, and no others.
///
/// # Errors
/// The module is not there.
pub fn watch(td: u32) -> Result<String> {
    write("watch", &td.to_string())?;
    watched()
}

/// How many frames are watched, and how many of them came back to the allocator since: `none`, `all`, or a number.
///
/// # Errors
/// The module is not there.
pub fn watched() -> Result<String> {
    let said = read("watch")?;
    let said = said.trim();
    let how = match (field(said, "watched"), field(said, "back")) {
        (_, Some("0")) => "none",
        (all, back) if all == back => "all",
        _ => "some",
    };
    Ok(format!("{how} {said}"))
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
