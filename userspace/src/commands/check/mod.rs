//! `septwatch check`: recordings against what is expected of them.

mod fleet;
mod junit;
mod render;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{BadInput, exit, fleet::OfFleet, output, recording};
use crate::regression::{
    bless,
    check::{Check, check},
    expect::{Expectations, MARK},
    run::Run,
};

/// Re-runs the ledger over recordings, one after the other, and fails on what is wrong with them: a violation that is not
/// expected (a SEAMCALL that the order of things forbids is one, `out-of-order`); records that are lost; numbers that come
/// twice, times that go backwards, SEAMCALLs that do not exist; damage, or no end; violations that the re-run finds and
/// that were not recorded, or the other way round; anything else that the expectations say.
///
/// With --fleet: what all hosts of a fleet sent, in place of recordings. It fails on a violation, on events that are lost,
/// and on a host that has not been heard of, and was not ended.
///
/// Exit code 0: all is as expected; 1: a check failed; 2: a file cannot be read as a recording, or bad input.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The recordings.
    #[arg(value_name = "FILE", required_unless_present = "fleet", conflicts_with = "fleet")]
    pub files: Vec<PathBuf>,
    /// What to expect of each: a TOML file, as --bless writes it. Without it no violation is expected.
    #[arg(long, value_name = "FILE", conflicts_with = "fleet")]
    pub expect: Option<PathBuf>,
    /// Write what was seen into the file of --expect, instead of expecting it; of several recordings, what holds for all. It
    /// replaces only a file that was blessed before, and blesses no recording that is damaged, out of order or lossy.
    #[arg(long, requires = "expect")]
    pub bless: bool,
    /// Write the result as JUnit XML: a testsuite for each recording, a testcase for each check.
    #[arg(long, value_name = "FILE", conflicts_with = "fleet")]
    pub junit: Option<PathBuf>,
    /// Append a summary in Markdown to this file, as $GITHUB_STEP_SUMMARY wants it.
    #[arg(long, value_name = "FILE", conflicts_with = "fleet")]
    pub markdown: Option<PathBuf>,
    /// Print one JSON object for each recording, or host.
    #[arg(long)]
    pub json: bool,
    /// Records that may be missing of a recording.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_loss: u64,
    /// Check a fleet instead: what its hosts sent.
    #[command(flatten)]
    pub fleet: OfFleet,
}

/// How many recordings came to what.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    passed: usize,
    failed: usize,
    unreadable: usize,
}

impl Totals {
    const fn code(self) -> u8 {
        match (self.unreadable, self.failed) {
            (0, 0) => exit::OK,
            (0, _) => exit::VIOLATION,
            _ => exit::USAGE,
        }
    }
}

/// What is said of one file.
enum Told<'a> {
    /// It was checked.
    Checked(&'a Run, &'a [Check<'a>]),
    /// It is no recording.
    Unreadable(&'a str),
}

/// Runs the command.
///
/// # Errors
/// The expectations are wrong, or a file cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    if let Some(connect) = args.fleet.connect()? {
        return fleet::run(&connect, args, out);
    }
    let expect = match &args.expect {
        Some(path) if args.bless => {
            may_bless(path)?;
            None
        }
        Some(path) => Some(Expectations::read(path).map_err(|error| BadInput(error.to_string()))?),
        None => None,
    };
    let mut totals = Totals::default();
    let mut report = junit::Report::new();
    let mut summary = String::new();
    let mut blessed = Vec::new();
    for path in &args.files {
        let name = output::plain(&path.display().to_string());
        let run = match Run::open(path) {
            Ok(run) => run,
            Err(error) => {
                totals.unreadable += 1;
                let why = output::plain(&recording::unreadable(error).to_string());
                let told = Told::Unreadable(&why);
                say(args, &name, &told, &mut report, &mut summary, out)?;
                continue;
            }
        };
        let own = if args.bless { Some(of_itself(&run)?) } else { None };
        let checks = check(&run, own.as_ref().or(expect.as_ref()), args.max_loss);
        if checks.iter().all(|check| check.failures.is_empty()) {
            totals.passed += 1;
        } else {
            totals.failed += 1;
        }
        say(args, &name, &Told::Checked(&run, &checks), &mut report, &mut summary, out)?;
        out.flush()?;
        drop(checks);
        if args.bless {
            blessed.push(bless::Showed::of(&run));
        }
    }
    if !args.json {
        writeln!(out, "{}", render::total(totals))?;
    }
    if let Some(path) = &args.junit {
        let wrong = |error: std::io::Error| BadInput(format!("--junit {}: {error}", path.display()));
        fs::write(path, report.to_xml()?).map_err(wrong)?;
    }
    if let Some(path) = &args.markdown {
        output::append("--markdown", path, &render::markdown(totals, &summary))?;
    }
    if let Some(path) = args.expect.as_ref().filter(|_| args.bless) {
        if totals.code() != exit::OK {
            eprintln!(
                "septwatch: --bless: {} is not written: not every recording can be trusted",
                path.display()
            );
        } else {
            let wrong = |error| BadInput(format!("--expect {}: {error}", path.display()));
            fs::write(path, bless::bless(&blessed)).map_err(wrong)?;
            eprintln!("septwatch: blessed: {}", path.display());
        }
    }
    Ok(totals.code())
}

/// Says what came of a file, in every form that was asked for.
fn say(
    args: &Args,
    name: &str,
    told: &Told<'_>,
    report: &mut junit::Report,
    summary: &mut String,
    out: &mut dyn Write,
) -> Result<()> {
    if args.junit.is_some() {
        report.add(name, told);
    }
    if args.markdown.is_some() {
        summary.push_str(&render::markdown_of(name, told));
    }
    if args.json {
        writeln!(out, "{}", render::json(name, told))?;
    } else {
        write!(out, "{}", render::text(name, told))?;
    }
    Ok(())
}

/// What a recording itself shows: against this it can only fail for what nobody can bless.
fn of_itself(run: &Run) -> Result<Expectations> {
    let text = bless::bless(&[bless::Showed::of(run)]);
    // It is this program's own text.
    Expectations::parse(&text)
        .map_err(|(at, what)| anyhow::anyhow!("byte {at} of what would be blessed: {what}"))
}

/// A file that somebody wrote for something else is not replaced.
fn may_bless(path: &Path) -> Result<()> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(bytes) if bytes.is_empty() || bytes.starts_with(MARK.as_bytes()) => Ok(()),
        Ok(_) => {
            let why = format!("the file is there, and does not begin with {MARK:?}: it is not replaced");
            Err(BadInput(format!("--expect {}: {why}", path.display())).into())
        }
        Err(error) => Err(BadInput(format!("--expect {}: {error}", path.display())).into()),
    }
}
