//! `septwatch diff`: two runs of the same workload, side by side.

mod render;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{BadInput, exit, output, recording};
use crate::regression::{bound::Time, changes, run::Run, tolerance::Tolerance};

/// Compares two recordings of the same workload, of which A is the one before: calls of each leaf, BUSY and errors per
/// 1000 of them, statuses, latencies, windows, violations, hooks, lost records.
///
/// BUSY, errors, latencies and windows are out of tolerance if they grow by more than their factor; calls and violations if
/// they change in either direction; a hook that is bound in A and not in B always is. Small counts are noise: two counts
/// differ only if the larger is at least --min-count and they lie 3 standard deviations apart, as chance has it for 3 of
/// 1000 figures. A median is judged where both have --min-count spans, p99 where both have a hundred times as many; the
/// longest is only shown. So is reused-while-mapped: who is given a page that was freed too early is chance.
///
/// Exit code 0: all within tolerance; 1: something is not; 2: a file cannot be read as a recording or not to its end, or bad
/// input.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The recording before.
    pub a: PathBuf,
    /// The recording after.
    pub b: PathBuf,
    /// BUSY per 1000 calls of a leaf may grow to so many times as much.
    #[arg(long, value_name = "FACTOR", default_value = "1.5", value_parser = factor)]
    pub max_busy_factor: f64,
    /// Errors per 1000 calls of a leaf, each status by itself, may grow to so many times as much.
    #[arg(long, value_name = "FACTOR", default_value = "1.5", value_parser = factor)]
    pub max_error_factor: f64,
    /// Median and p99 of a leaf's latency may grow to so many times as long.
    #[arg(long, value_name = "FACTOR", default_value = "1.5", value_parser = factor)]
    pub max_latency_factor: f64,
    /// Median and p99 of a window may grow to so many times as long.
    #[arg(long, value_name = "FACTOR", default_value = "2", value_parser = factor)]
    pub max_window_factor: f64,
    /// Calls of a leaf may be so many more or fewer, in percent of those in A.
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    pub max_calls_change: f64,
    /// Violations of a kind may be so many more or fewer, in percent of those in A.
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    pub max_violations_change: f64,
    /// Windows up to this time are noise: a time with ns, us, ms or s.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = time)]
    pub min_window: Time,
    /// Counts below are noise.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub min_count: u64,
    /// Records that may be missing of each recording.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_loss: u64,
    /// Show what did not change, too.
    #[arg(long)]
    pub all: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Append a summary in Markdown to this file, as $GITHUB_STEP_SUMMARY wants it.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| (1.0..=1e9).contains(factor));
    factor.ok_or_else(|| "not a factor from 1 to 1000000000, as in 1.5".to_owned())
}

fn time(text: &str) -> Result<Time, String> {
    Time::parse(text).ok_or_else(|| "not a time with its unit (ns, us, ms, s), as in 5ms".to_owned())
}

/// A part, from percent.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    let part = number.filter(|percent: &f64| (0.0..=1e9).contains(percent)).map(|percent| percent / 100.0);
    part.ok_or_else(|| "not a part in percent, as in 10%".to_owned())
}

/// Runs the command.
///
/// # Errors
/// A file is no recording or is not whole, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let tolerance = Tolerance {
        calls_change: args.max_calls_change,
        busy_factor: args.max_busy_factor,
        error_factor: args.max_error_factor,
        latency_factor: args.max_latency_factor,
        window_factor: args.max_window_factor,
        violations_change: args.max_violations_change,
        min_window_ns: args.min_window.0,
        min_count: args.min_count,
        max_loss: args.max_loss,
    };
    let (a, b) = (whole(&args.a)?, whole(&args.b)?);
    if let Some(why) = incomparable(&a, &b) {
        eprintln!("septwatch: {why}");
    }
    let mut rows = changes::changes(&a, &b, &tolerance);
    let out_of_tolerance = rows.iter().filter(|row| row.out).count();
    rows.retain(|row| args.all || row.out || !row.is_equal());
    let names = [&args.a, &args.b].map(|path| output::plain(&path.display().to_string()));
    if let Some(path) = &args.markdown {
        output::append("--markdown", path, &render::markdown(&names, &rows, out_of_tolerance))?;
    }
    if args.json {
        writeln!(out, "{}", render::json(&names, &rows, out_of_tolerance))?;
    } else {
        write!(out, "{}", render::text(&names, &rows, out_of_tolerance))?;
    }
    Ok(if out_of_tolerance == 0 { exit::OK } else { exit::VIOLATION })
}

/// Figures of half a recording cannot be compared.
fn whole(path: &Path) -> Result<Run> {
    let run = Run::open(path).map_err(recording::unreadable)?;
    match run.damages.told.first() {
        Some(damage) if run.damages.count != 0 => {
            let why = format!("{}: {damage}; only whole recordings can be compared", path.display());
            Err(BadInput(why).into())
        }
        _ => Ok(run),
    }
}

/// What cannot be compared, where something cannot.
fn incomparable(a: &Run, b: &Run) -> Option<&'static str> {
    if a.leaves.is_none() || b.leaves.is_none() {
        return Some("one recording has neither SEAMCALLs nor their counts: calls are not compared");
    }
    if a.has_calls() != b.has_calls() {
        return Some(
            "one recording has no SEAMCALLs, only their counts: statuses and latencies are not compared",
        );
    }
    None
}
