//! How fast recordings are made and read, and how large they are.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use super::trace_cmd::Tracer;
use super::{Limit, Row, statistics::median};
use crate::step::note;
use crate::{build, run, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Runs of each kind, side by side; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Leave out the comparison with trace-cmd.
    #[arg(long)]
    no_trace_cmd: bool,
}

/// Events of the recording that is replayed: enough that reading it takes a second.
const LONG: u64 = 10_000_000;

/// Ring buffers in bytes, largest first, to see where loss begins.
const RINGS: [u32; 6] = [1 << 22, 1 << 20, 1 << 18, 1 << 16, 1 << 14, 1 << 13];

/// A storm, as it says itself.
struct Storm {
    /// From its first step to its last, in s.
    seconds: f64,
    received: u64,
    lost: u64,
}

/// Measures everything.
///
/// # Errors
/// The storm cannot run here, or trace-cmd cannot be had.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let septwatch = build::septwatch()?;
    let folder = tempfile::tempdir().context("no folder for recordings")?;
    let file = folder.path().join("storm.swt");
    let file_text = file.to_str().context("the folder for recordings has a name that is not UTF-8")?;
    let tracer = if options.no_trace_cmd { None } else { Some(Tracer::prepare(&septwatch, folder.path())?) };
    let (mut plain, mut recorded, mut traced) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for n in 0..options.runs {
        note("storm", format_args!("run {} of {}", n + 1, options.runs));
        plain.push(storm(&septwatch, &[], None)?.seconds);
        let made = storm(&septwatch, &["--record", file_text], None)?;
        recorded.push(made.seconds);
        last = Some(made);
        if tracer.is_some() {
            traced.push(storm(&septwatch, &[], tracer.as_ref())?.seconds);
        }
    }
    let storm_made = last.context("no run")?;
    let bytes = size(&file)?;
    let per_event = bytes as f64 / storm_made.received as f64;
    let base = median(plain);
    let slower = median(recorded) / base;
    let mut rows = vec![
        Row::new("storm, all events recorded: page events", storm_made.received as f64, ""),
        Row::new("  a second", storm_made.received as f64 / storm_made.seconds, "events"),
        Row::new("  lost", storm_made.lost as f64, "events").limit(Limit::AtMost(0.0)),
        Row::new("  on disk, for each page event", per_event, "bytes").limit(Limit::AtMost(8.0)),
        Row::new("  storm's time, recorded / not recorded", slower, "x"),
    ];
    rows.extend(rings(&septwatch, file_text)?);
    let long = folder.path().join("long.swt");
    rows.extend(long_recording(&septwatch, &file, &long, storm_made.received, options.runs)?);
    let ours =
        read_back(Command::new(&septwatch).args(["replay", "--speed", "max", "--all-events"]).arg(&file))?;
    if let Some(tracer) = &tracer {
        let theirs = tracer.measure()?;
        let slowdown = median(traced) / base;
        rows.extend([
            Row::new("trace-cmd, same functions and tracepoint: events", theirs.events as f64, ""),
            Row::new("  lost", theirs.lost as f64, "events"),
            Row::new("  on disk, for each event", theirs.bytes as f64 / theirs.events as f64, "bytes"),
            Row::new("  storm's time, traced / not traced", slowdown, "x"),
            Row::new(
                "size of an event, trace-cmd / septwatch",
                theirs.bytes as f64 / theirs.events as f64 / per_event,
                "x",
            ),
            Row::new("slowdown, trace-cmd / septwatch", slowdown / slower, "x"),
            Row::new(
                "read back as text, septwatch",
                storm_made.received as f64 / ours / 1e6,
                "million events/s",
            ),
            Row::new(
                "read back as text, trace-cmd",
                theirs.events as f64 / theirs.seconds / 1e6,
                "million events/s",
            ),
        ]);
    }
    Ok(rows)
}

fn storm(septwatch: &Path, more: &[&str], tracer: Option<&Tracer>) -> Result<Storm> {
    let mut command = Command::new(septwatch);
    command.args(["demo", "storm", "--seed", "7", "--json"]).args(more);
    let text = match tracer {
        None => run::quiet(&mut command)?,
        Some(tracer) => run::quiet(&mut tracer.around(&command))?,
    };
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let times =
        lines.iter().filter(|line| line["type"] == "step").filter_map(|line| line["time_ns"].as_u64());
    let (first, last) = (times.clone().min(), times.max());
    let (first, last) = first.zip(last).context("the storm said nothing")?;
    // trace-cmd adds lines of its own.
    let result = lines.iter().rfind(|line| line["type"] == "result").context("the storm has no result")?;
    let pages = &result["page_records"];
    let count = |key| pages[key].as_u64().with_context(|| format!("the storm's result has no {key}"));
    Ok(Storm { seconds: (last - first) as f64 / 1e9, received: count("received")?, lost: count("lost")? })
}

/// The same storm with smaller and smaller ring buffers.
fn rings(septwatch: &Path, file: &str) -> Result<Vec<Row>> {
    let mut smallest = None;
    for bytes in RINGS {
        let made = storm(septwatch, &["--record", file, "--ring-bytes", &bytes.to_string()], None);
        // A ring that small can lose a violation, which the demo misses.
        let lost = made.map_or(u64::MAX, |made| made.lost);
        if lost != 0 {
            break;
        }
        smallest = Some(bytes);
    }
    // The file is that of the usual rings again.
    storm(septwatch, &["--record", file], None)?;
    let smallest = smallest.map_or(f64::NAN, |bytes| f64::from(bytes) / 1024.0);
    Ok(vec![Row::new("  smallest ring buffer without loss (usual: 4096)", smallest, "KiB")])
}

/// A recording of millions of events: how fast it is made of events that are there, and replayed.
fn long_recording(septwatch: &Path, from: &Path, long: &Path, events: u64, runs: u32) -> Result<Vec<Row>> {
    let times = LONG.div_ceil(events).to_string();
    let mut cargo = setup::cargo()?;
    cargo.args(["run", "--quiet", "--locked", "--release", "--package", "septwatch"]);
    cargo.args(["--example", "repeat-recording", "--"]).args([from, long]).arg(times);
    let said = run::quiet(&mut cargo)?;
    let million = said.split(", ").nth(1).and_then(|rate| rate.split(' ').next()?.parse::<f64>().ok());
    let rate = million.with_context(|| format!("repeat-recording said: {said}"))?;
    let (mut rates, mut memory) = (Vec::new(), 0);
    for _ in 0..runs {
        let mut child = Command::new(septwatch)
            .args(["replay", "--speed", "max"])
            .arg(long)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", septwatch.display()))?;
        while child.try_wait()?.is_none() {
            memory = memory.max(high_water(child.id()));
            thread::sleep(Duration::from_millis(10));
        }
        let said = String::from_utf8_lossy(&child.wait_with_output()?.stderr).into_owned();
        let rate = said.split(": ").last().and_then(|rate| rate.split(' ').next()?.parse::<f64>().ok());
        rates.push(rate.with_context(|| format!("septwatch replay said: {said}"))?);
    }
    let bytes = size(long)? as f64;
    Ok(vec![
        Row::new("recorder alone, events that are in memory", rate, "million events/s"),
        Row::new("replay with model and ledger, one core", median(rates), "million events/s")
            .limit(Limit::AtLeast(10.0)),
        Row::new(
            format!("  memory, for a file of {:.0} MiB", bytes / f64::from(1 << 20)),
            memory as f64 / 1024.0,
            "MiB",
        ),
    ])
}

/// Most memory that a process had so far, in KiB.
fn high_water(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How long a command takes to print everything, in s.
pub fn read_back(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run `{}`", run::line(command)))?;
    // 1: the recording has violations.
    ensure!(matches!(status.code(), Some(0 | 1)), "`{}`: {status}", run::line(command));
    Ok(start.elapsed().as_secs_f64())
}

/// Bytes of a file.
pub fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len())
}
