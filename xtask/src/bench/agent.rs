//! The agent itself: how soon it watches, what it takes while nothing happens, and how soon it and its outputs know of a
//! violation. It watches its demo; memory of the demo's guests is not counted, nor are ledger and rings, which are the
//! kernel's.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::{Limit, Row, acts, cpu_of, median};
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
}

/// Most of everything: ms, MiB, per cent of a core, ms.
const START: f64 = 200.0;
const MEMORY: f64 = 25.0;
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

    /// Memory in MiB that is neither the demo's guests' nor the kernel's.
    fn memory(&self) -> Result<f64> {
        let path = format!("/proc/{}/smaps", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(own_kib(&text) as f64 / 1024.0)
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

/// KiB of all mappings but those of memfd, guest_memfd (`[kvm-gmem]`) and BPF maps.
fn own_kib(smaps: &str) -> u64 {
    let (mut sum, mut counts) = (0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if counts => {
                sum += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
            }
            // `address perms offset dev inode name`
            Some(first) if !first.ends_with(':') => {
                counts = !["memfd:", "[kvm-gmem]", "bpf-map"].iter().any(|name| line.contains(name));
            }
            _ => {}
        }
    }
    sum
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
    for tds in ["1", "1000"] {
        note("agent", format_args!("{tds} TDs, next to nothing happens"));
        let agent = Agent::start(&septwatch, &["--pace", "1", "--tds", tds])?;
        thread::sleep(SETTLE);
        let (cpu, memory) = (cpu_of(agent.pid(), Duration::from_secs(options.seconds))?, agent.memory()?);
        agent.end()?;
        rows.push(Row::new(format!("memory, {tds} TDs"), memory, "MiB").limit(Limit::AtMost(MEMORY)));
        rows.push(Row::new(format!("CPU, {tds} TDs"), cpu, "% of a core").limit(Limit::AtMost(IDLE)));
    }
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

    #[test]
    fn guest_memory_is_not_the_agents() {
        let smaps = "\
55d0-55d1 r-xp 0 fe:0 1 /bin/septwatch
Rss:  100 kB
7f00-7f01 rw-s 0 0:1 2 /memfd:septwatch-demo (deleted)
Rss: 4000 kB
7f02-7f03 rw-s 0 0:e 3 anon_inode:[kvm-gmem]
Rss: 5000 kB
7f04-7f05 rw-s 0 0:e 3 anon_inode:bpf-map
Rss: 8000 kB
7ffc-7ffd rw-p 0 0:0 0 [stack]
Rss:   12 kB
";
        assert_eq!(own_kib(smaps), 112);
    }
}
