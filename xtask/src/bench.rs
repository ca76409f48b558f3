//! Measurements: `cargo xtask bench NAME`. Each prints a table and writes the same as JSON to `target/bench`; what it
//! must not exceed is a limit, and a limit that is broken is exit code 1.

mod agent;
mod beside;
mod builds;
mod day;
mod events;
mod fleet;
mod hooks;
mod latency;
mod ledger;
mod recording;
mod seamcalls;
mod statistics;
mod trace_cmd;
mod view;
mod watchers;
mod workloads;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use septwatch_pty::{Used, cpu, threads};
use serde::Serialize;

use crate::lab;

/// What can be measured.
#[derive(Subcommand)]
pub enum Task {
    /// KVM's map and zap paths in the lab, in instructions: septwatch, empty programs, bpftrace, kprobes, perf, trace-cmd.
    Seamcalls(seamcalls::Options),
    /// The agent: until it watches, memory, CPU, and how soon it and its outputs know of a violation.
    Agent(agent::Options),
    /// A whole workload: a build on all CPUs, with nothing attached, empty programs, septwatch.
    Builds(builds::Options),
    /// Records on their way to the reader: how many a second, where loss begins, what one costs.
    Events(events::Options),
    /// The allocator's hooks: what a release costs with septwatch, an empty program, bpftrace, perf, trace-cmd.
    Hooks(hooks::Options),
    /// From a violation to a JSON line, a metric and a screen.
    Latency(latency::Options),
    /// The ledger at 1 TiB and 6 TiB of memory: what it takes, and what look-ups, opening and closing lines cost.
    Ledger(ledger::Options),
    /// Recordings: loss, size, replay; side by side with trace-cmd.
    Recording(recording::Options),
    /// `septwatch top`: first frame, CPU while nothing happens, and with a storm behind it; drawing of a huge host.
    View(view::Options),
    /// The fleet's bus: how many events of how many hosts a NATS server takes here, and what it costs to read them.
    Fleet(fleet::Options),
}

/// Does it.
///
/// # Errors
/// Something that is needed cannot be had, or what is measured fails.
pub fn run(task: Task) -> Result<ExitCode> {
    let (name, rows) = match task {
        Task::Seamcalls(options) => ("seamcalls", seamcalls::run(&options)?),
        Task::Agent(options) => ("agent", agent::run(&options)?),
        Task::Builds(options) => ("builds", builds::run(&options)?),
        Task::Events(options) => ("events", events::run(&options)?),
        Task::Hooks(options) => ("hooks", hooks::run(&options)?),
        Task::Latency(options) => ("latency", latency::run(&options)?),
        Task::Ledger(options) => ("ledger", ledger::run(&options)?),
        Task::Recording(options) => ("recording", recording::run(&options)?),
        Task::View(options) => ("view", view::run(&options)?),
        Task::Fleet(options) => ("fleet", fleet::run(&options)?),
    };
    println!();
    println!("{:<58} {:>22} {:>14}", "what", "measured", "limit");
    for Row { what, value, unit, limit, between } in &rows {
        let bound = match limit {
            None => String::new(),
            Some(limit) => format!("{limit}"),
        };
        let broken = if rows_limit(*value, *limit) { "" } else { "  BROKEN" };
        let between =
            between.map_or(String::new(), |(low, high)| format!("  {} to {}", figure(low), figure(high)));
        println!("{what:<58} {:>22} {bound:>14}{broken}{between}", format!("{} {unit}", figure(*value)));
    }
    write(name, &rows)?;
    let holds = rows.iter().all(|row| rows_limit(row.value, row.limit));
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One figure.
#[derive(Serialize)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    /// Ends of its 95 % confidence interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    between: Option<(f64, f64)>,
}

impl Row {
    fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, limit: None, between: None }
    }

    const fn between(mut self, low: f64, high: f64) -> Self {
        self.between = Some((low, high));
        self
    }

    const fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What a figure must keep to.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

fn rows_limit(value: f64, limit: Option<Limit>) -> bool {
    match limit {
        None => true,
        Some(Limit::AtMost(most)) => value <= most,
        Some(Limit::AtLeast(least)) => value >= least,
    }
}

/// Whole numbers as they are, others to three digits.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.3}") }
}

/// CPU that a process takes from now on for so long, in per cent of a core.
fn cpu_of(pid: u32, span: Duration) -> Result<f64> {
    let used = || cpu(pid).context("it has ended").map(Used::total);
    let (begun, before) = (Instant::now(), used()?);
    thread::sleep(span);
    Ok((used()? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

/// Whether a septwatch has attached all its hooks and acts its demo out: then that has a thread.
fn acts(pid: u32) -> bool {
    threads(pid).iter().any(|(name, _)| name == "septwatch-demo")
}

fn write(name: &str, rows: &[Row]) -> Result<()> {
    let folder: PathBuf = lab::target_folder().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(rows)?;
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}
