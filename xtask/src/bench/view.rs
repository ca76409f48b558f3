//! What `septwatch top` costs: until it is there, while nothing happens, and while everything does.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::process::Signal;
use septwatch_pty::{Terminal, cpu, threads};
use serde_json::Value;

use super::{Limit, Row, statistics::median};
use crate::{
    build, run, screens,
    setup::{self, cargo},
    step::note,
};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Starts of each kind; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// For how many seconds it is watched while it does nothing.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle: u64,
}

/// Most of everything, in ms and in per cent of a core: what the issue demands.
const FIRST_FRAME: f64 = 100.0;
const IDLE: f64 = 1.0;
const FRAME: f64 = 10.0;
/// Frames a second, of 4, while everything happens.
const FRAMES: f64 = 3.5;
/// How long it may take until there is something to see, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long anything settles before it is measured.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a storm is watched.
const STORM: Duration = Duration::from_secs(15);

/// Measures everything.
///
/// # Errors
/// The demo cannot run here, or what is measured fails.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let septwatch = build::septwatch()?;
    let recording = screens::recording();
    let recording = recording.to_str().context("the folder has a name that is not UTF-8")?;
    let mut rows = Vec::new();
    note("first frame", format_args!("{} starts of each kind", options.runs));
    for (what, arguments) in [("recording", vec![recording]), ("demo", vec!["--demo"])] {
        let times: Vec<_> =
            (0..options.runs).map(|_| first_frame(&septwatch, &arguments)).collect::<Result<_>>()?;
        let worst = times.iter().copied().fold(0.0, f64::max);
        rows.push(
            Row::new(format!("first frame, {what}"), median(times), "ms").limit(Limit::AtMost(FIRST_FRAME)),
        );
        rows.push(Row::new("  the slowest", worst, "ms"));
    }
    let span = Duration::from_secs(options.idle);
    for (what, arguments) in [
        ("a recording that stands still", vec![recording]),
        ("demo, one operation a second", vec!["--demo", "--pace", "1"]),
    ] {
        note("idle", format_args!("{what}, {} s", options.idle));
        let seen = watch(&septwatch, &arguments, span)?;
        rows.push(Row::new(format!("CPU, {what}"), seen.all, "% of a core").limit(Limit::AtMost(IDLE)));
        rows.push(Row::new("  frames", seen.frames, "/s"));
    }
    note("storm", format_args!("as fast as it can, {} s", STORM.as_secs()));
    let seen = watch(&septwatch, &["--demo", "--pace", "max"], STORM)?;
    let told = told(&septwatch)?;
    rows.extend([
        Row::new("demo as fast as it can: records", told.records, "/s"),
        Row::new("  frames", seen.frames, "/s").limit(Limit::AtLeast(FRAMES)),
        Row::new("  written to the terminal", seen.bytes / 1024.0, "KiB/s"),
        Row::new("  CPU, all threads with the demo's own", seen.all, "% of a core"),
    ]);
    // The demo's own threads come and go with its storms.
    for (what, name) in [("draws", "septwatch"), ("watches", "septwatch-sourc")] {
        if let Some((_, used)) = seen.threads.iter().find(|(thread, _)| thread == name) {
            rows.push(Row::new(format!("    of it the thread that {what}"), *used, "% of a core"));
        }
    }
    rows.extend(drawing()?);
    println!("\nof itself, septwatch says: {}", told.overhead);
    Ok(rows)
}

fn top(septwatch: &Path, arguments: &[&str]) -> Result<Terminal> {
    Ok(Terminal::start(screens::top(septwatch, arguments), 120, 40)?)
}

fn first_frame(septwatch: &Path, arguments: &[&str]) -> Result<f64> {
    let mut terminal = top(septwatch, arguments)?;
    let first = terminal.until("for a frame", PATIENCE, |output| output.frames().first)?;
    // The next one would find the demo's lock taken.
    terminal.signal(Signal::TERM)?;
    terminal.wait()?;
    Ok(first.as_secs_f64() * 1e3)
}

/// What a run used: per cent of a core, or per second.
struct Seen {
    all: f64,
    frames: f64,
    bytes: f64,
    threads: Vec<(String, f64)>,
}

fn watch(septwatch: &Path, arguments: &[&str], span: Duration) -> Result<Seen> {
    let mut terminal = top(septwatch, arguments)?;
    terminal.until("for a frame", PATIENCE, |output| output.frames().first)?;
    thread::sleep(SETTLE);
    let pid = terminal.pid();
    let look = || {
        let used = cpu(pid).context("it has ended")?.total();
        let output = terminal.output();
        Ok::<_, anyhow::Error>((used, output.frames().count, output.bytes.len()))
    };
    let start = Instant::now();
    let (before, threads_before) = (look()?, threads(pid));
    thread::sleep(span);
    let (after, threads_after) = (look()?, threads(pid));
    let seconds = start.elapsed().as_secs_f64();
    let per_cent = |used: Duration| used.as_secs_f64() / seconds * 100.0;
    let of_threads = threads_after.into_iter().zip(threads_before);
    let of_threads = of_threads.filter(|(after, before)| after.0 == before.0);
    let threads = of_threads.map(|(after, before)| (after.0, per_cent(after.1.saturating_sub(before.1))));
    let seen = Seen {
        all: per_cent(after.0.saturating_sub(before.0)),
        frames: (after.1 - before.1) as f64 / seconds,
        bytes: (after.2 - before.2) as f64 / seconds,
        threads: threads.collect(),
    };
    terminal.signal(Signal::TERM)?;
    terminal.wait()?;
    Ok(seen)
}

/// What septwatch says of a storm, and of itself.
struct Told {
    records: f64,
    overhead: Value,
}

fn told(septwatch: &Path) -> Result<Told> {
    let mut command =
        screens::top(septwatch, &["--demo", "--pace", "max", "--once", "--json", "--after", "5s"]);
    let text = run::quiet(&mut command)?;
    let scene: Value = serde_json::from_str(&text).context("`top --once --json` printed no JSON")?;
    let records = scene["per_second"]["records"].as_f64().context("it tells no rate")?;
    Ok(Told { records, overhead: scene["overhead"].clone() })
}

/// Drawing alone, without a terminal.
fn drawing() -> Result<Vec<Row>> {
    note("drawing", "a host with 1,000 TDs and 10,000 violations");
    let mut cargo: Command = cargo()?;
    cargo.args(["bench", "--quiet", "--locked", "--package", "septwatch", "--features", "fixtures"]);
    cargo.args(["--bench", "view"]);
    let text = run::quiet(&mut cargo)?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let rows: Vec<_> = lines
        .filter_map(|line| {
            let what = line["what"].as_str()?;
            Some(Row::new(what, line["ms"].as_f64()?, "ms").limit(Limit::AtMost(FRAME)))
        })
        .collect();
    anyhow::ensure!(!rows.is_empty(), "the bench printed nothing: {text}");
    Ok(rows)
}
