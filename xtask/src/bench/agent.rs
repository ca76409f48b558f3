//! The agent itself: how soon it watches, how soon it has taken over, what it takes while nothing happens and after a day,
//! and how soon it and its outputs know of a violation. Ledger and rings are the kernel's, and are not counted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Limit, Row, acts,
    beside::{self, Host, Programs, Storm, own_mib, sum},
    cpu_of, day,
    statistics::median,
};
use crate::run::Killed;
use crate::step::note;
use crate::{build, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Starts; the median is shown.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    starts: u32,
    /// For how long it is watched at each load.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Simulated days.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=1000))]
    days: u32,
}

/// Most of everything: ms, ms, MiB, per cent of a core, ms.
const START: f64 = 200.0;
const TAKE_OVER: f64 = 50.0;
pub(super) const MEMORY: f64 = 25.0;
const IDLE: f64 = 0.5;
const LINE: f64 = 1.0;
/// How long it may take until it watches, or has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it settles before it is measured.
const SETTLE: Duration = Duration::from_secs(5);

/// An agent on its demo.
struct Agent {
    process: Killed,
    took: Duration,
}

impl Agent {
    /// Starts it, and returns when all is attached: then the demo's thread begins.
    fn start(septwatch: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(septwatch);
        command.args(["agent", "--demo", "--metrics-listen", "none", "--events-file", "-"]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {}", septwatch.display()))?;
        let mut agent = Self { process: Killed(child), took: Duration::ZERO };
        while !acts(agent.pid()) {
            ensure!(agent.process.0.try_wait()?.is_none(), "the agent cannot watch its demo here");
            ensure!(begun.elapsed() < PATIENCE, "the agent does not begin");
            thread::sleep(Duration::from_millis(1));
        }
        agent.took = begun.elapsed();
        Ok(agent)
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Ends it; what it said.
    fn end(mut self) -> Result<String> {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM)?;
        let mut stderr = self.process.0.stderr.take().context("a pipe")?;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut said)?;
        let status = self.process.0.wait()?;
        ensure!(status.success(), "the agent: {status}: {said}");
        Ok(said)
    }
}

/// Measures everything.
///
/// # Errors
/// The demo cannot run here.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let septwatch = build::septwatch()?;
    let size = fs::metadata(&septwatch).with_context(|| format!("no {}", septwatch.display()))?.len();
    note("agent", format_args!("{} starts", options.starts));
    let mut starts = Vec::new();
    for _ in 0..options.starts {
        let agent = Agent::start(&septwatch, &["--pace", "1"])?;
        starts.push(agent.took.as_secs_f64() * 1e3);
        agent.end()?;
    }
    let mut rows = vec![
        Row::new("the binary", size as f64 / f64::from(1 << 20), "MiB"),
        Row::new("from exec to all hooks of the demo attached", median(starts), "ms")
            .limit(Limit::AtMost(START)),
    ];
    let programs = Programs::prepare()?;
    rows.push(take_over(&programs, options.starts)?);
    for tds in [1, 1000] {
        rows.extend(idle(&programs, tds, options.seconds)?);
    }
    rows.extend(day::run(&programs, options.days)?);
    for (load, pace) in
        [("2,000 pages/s", "2000"), ("20,000 pages/s", "20000"), ("as many as there can be", "max")]
    {
        note("agent", format_args!("{load}, {} s", options.seconds));
        let agent = Agent::start(&septwatch, &["--pace", pace])?;
        thread::sleep(Duration::from_secs(options.seconds));
        let said = agent.end()?;
        for (to, name) in [("this agent", "the agent knows"), ("events", "the JSON line is written")] {
            let [count, half, most_of, all] = delays(&said, to).with_context(|| said.clone())?;
            rows.push(Row::new(format!("a violation until {name}, {load}: half"), half, "ms"));
            let p99 = Row::new("  99 %", most_of, "ms");
            rows.push(if pace == "2000" { p99.limit(Limit::AtMost(LINE)) } else { p99 });
            rows.push(Row::new("  all", all, "ms"));
            rows.push(Row::new("  violations", count, ""));
        }
    }
    Ok(rows)
}

/// From the start of an agent to its having taken over what one before it left, which was killed.
fn take_over(programs: &Programs, times: u32) -> Result<Row> {
    note("agent", format_args!("{times} take-overs"));
    let host = Storm { tds: 6, pages: 512, operations: 100_000, faults: 100, pace: "1" };
    let _host = Host::begin(programs, host)?;
    let took = (0..times).map(|_| {
        let agent = beside::Agent::begin(programs, Stdio::null(), &[])?;
        Ok(agent.took.as_secs_f64() * 1e3)
    });
    let took = median(took.collect::<Result<_>>()?);
    Ok(Row::new("from exec to having taken over", took, "ms").limit(Limit::AtMost(TAKE_OVER)))
}

/// What an agent takes beside a host with so many TDs, of which one does one thing a second.
fn idle(programs: &Programs, tds: u32, seconds: u64) -> Result<[Row; 2]> {
    note("agent", format_args!("{tds} TDs, next to nothing happens"));
    let storm = Storm { tds, pages: 16, operations: 1_000_000, faults: 0, pace: "1" };
    let _host = Host::begin(programs, storm)?;
    let agent = beside::Agent::begin(programs, Stdio::null(), &["--events-file", "-"])?;
    let begun = Instant::now();
    while sum(&agent.scrape()?, "septwatch_tds") < f64::from(tds) {
        ensure!(begun.elapsed() < PATIENCE, "there are not {tds} TDs");
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(SETTLE);
    let (cpu, memory) = (cpu_of(agent.pid(), Duration::from_secs(seconds))?, own_mib(agent.pid())?);
    agent.end()?;
    Ok([
        Row::new(format!("memory, {tds} TDs"), memory, "MiB").limit(Limit::AtMost(MEMORY)),
        Row::new(format!("CPU, {tds} TDs"), cpu, "% of a core").limit(Limit::AtMost(IDLE)),
    ])
}

/// What the agent says in the end: how many violations, and within how many ms half of them, 99 % and all.
fn delays(said: &str, to: &str) -> Option<[f64; 4]> {
    let rest = said.lines().find_map(|line| line.split_once(&format!(" violations to {to}: ")))?;
    let count = rest.0.rsplit(' ').next()?.parse().ok()?;
    let mut spans = rest.1.split(", ").map(|part| milliseconds(part.rsplit_once("within ")?.1));
    Some([count, spans.next()??, spans.next()??, spans.next()??])
}

/// `12.3 us`, `1.2 ms`, `2.0 s`
fn milliseconds(span: &str) -> Option<f64> {
    let (number, unit) = span.split_once(' ')?;
    let number: f64 = number.parse().ok()?;
    Some(match unit {
        "ns" => number / 1e6,
        "us" => number / 1e3,
        "ms" => number,
        "s" => number * 1e3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_from_what_the_agent_says() {
        let said = "septwatch: from 7 violations to this agent: half within 87 us, 99 % within 1.5 ms, all within 2.0 s\n";
        assert_eq!(delays(said, "this agent"), Some([7.0, 0.087, 1.5, 2000.0]));
        assert_eq!(delays(said, "events"), None);
    }
}
