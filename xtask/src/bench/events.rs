//! The way of events from the programs in the kernel to the reader: how many a second are not lost, with one producer and
//! with all CPUs, what a record costs both sides, and whether the books are exact where some are lost.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;

use super::beside::{Agent, Programs, sum};
use super::statistics::median;
use super::{Limit, Row};
use crate::step::note;
use crate::{build, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// How long records are produced at each rate.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds of what a record costs; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// The first rate, in records a second of all producers together; it grows by half until some are lost.
const FIRST: f64 = 50_000.0;
const STEP: f64 = 1.5;
/// How often a rate is tried.
const TRIES: u32 = 3;
/// More than any producer makes.
const LAST: f64 = 1e8;
/// How long the reader has to be through, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);

/// The host that produces.
struct Host {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What it produced.
#[derive(Deserialize)]
struct Made {
    seconds: f64,
    releases: u64,
    produced: u64,
    lost: u64,
    cpu_ns: u64,
}

impl Made {
    fn ns(&self) -> f64 {
        self.cpu_ns as f64 / self.releases as f64
    }
}

impl Host {
    fn begin(program: &std::path::Path, producers: usize) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(producers.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot run the host that produces")?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("a pipe")?);
        let mut host = Self { process, input, output };
        ensure!(host.line()?.trim() == "left", "the host that produces cannot begin");
        Ok(host)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn produce(&mut self, rate: f64, seconds: u64, what: &str) -> Result<Made> {
        let input = self.input.as_mut().context("it has ended")?;
        writeln!(input, "{rate} {seconds} {what}").context("the host that produces has ended")?;
        serde_json::from_str(&self.line()?).context("the host that produces has ended")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It ends with its input, and takes its programs out of the kernel.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// What the agent says of a stream: numbered, received and lost.
fn balance(agent: &Agent, stream: &str) -> Result<[f64; 3]> {
    let scrape = agent.scrape()?;
    let of = |metric: &str| sum(&scrape, &format!("{metric}{{stream=\"{stream}\"}}"));
    Ok(["septwatch_records_total", "septwatch_received_records_total", "septwatch_lost_records_total"]
        .map(of))
}

/// A rate, and what came of it.
struct Step {
    made: Made,
    /// CPU of the agent meanwhile, in ns.
    reader_ns: f64,
    /// Records of which neither side knows: numbered, and neither received nor lost.
    missing: f64,
    wakes: f64,
}

/// Produces, and waits until the agent has read all of it.
fn step(host: &mut Host, agent: &Agent, rate: f64, seconds: u64, what: &str) -> Result<Step> {
    let stream = if what == "pages" { "pages" } else { "vital" };
    let [_, received, lost] = balance(agent, stream)?;
    let used = || septwatch_pty::cpu(agent.pid()).context("the agent has ended");
    let (before, woken) = (used()?.total(), wakes(agent.pid())?);
    let made = host.produce(rate, seconds, what)?;
    let (reader_ns, wakes) = (used()?.total() - before, wakes(agent.pid())? - woken);
    let begun = Instant::now();
    // The figures are put down once a second.
    let missing = loop {
        let [_, then_received, then_lost] = balance(agent, stream)?;
        let missing = made.produced as f64 - (then_received - received) - (then_lost - lost);
        if missing == 0.0 || begun.elapsed() > PATIENCE {
            break missing;
        }
        thread::sleep(LOOK);
    };
    Ok(Step { made, reader_ns: reader_ns.as_nanos() as f64, missing, wakes })
}

/// How often the thread that reads has slept and was woken.
fn wakes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent has ended")?;
    voluntary(&status).context("an odd /proc/PID/status")
}

fn voluntary(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
}

/// Measures everything.
///
/// # Errors
/// The programs cannot be loaded here.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let programs = Programs::prepare()?;
    let host = build::example("event-host")?;
    let cpus = thread::available_parallelism()?.get();
    let mut rows = Vec::new();
    let mut producers: Vec<_> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < cpus).collect();
    producers.push(cpus);
    for producers in producers {
        let mut host = Host::begin(&host, producers)?;
        rows.extend(costs(&programs, &mut host, producers, options)?);
        let agent = Agent::begin(&programs, Stdio::null(), &["--latency"])?;
        rows.extend(rates(&mut host, &agent, producers, options.seconds)?);
        agent.end()?;
    }
    Ok(rows)
}

/// What a release of a frame with an open line costs who releases it: without a record, with one, as a violation.
fn costs(programs: &Programs, host: &mut Host, producers: usize, options: &Options) -> Result<Vec<Row>> {
    note("events", format_args!("what a record costs, {producers} at once"));
    let each = format!("{producers} at once");
    let mut rows = Vec::new();
    let mut plain = Vec::new();
    for _ in 0..options.rounds {
        // So few that the reader is not what is measured.
        plain.push(host.produce(FIRST, 1, "pages")?.ns());
    }
    let agent = Agent::begin(programs, Stdio::null(), &["--latency"])?;
    let (mut with, mut violations, mut wakes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        with.push(host.produce(FIRST, 1, "pages")?.ns());
        let step = step(host, &agent, 0.0, 1, "violations")?;
        ensure!(step.missing == 0.0, "{} violations are nowhere", step.missing);
        violations.push(step.made.ns());
        wakes.push(step.wakes / step.made.produced as f64);
    }
    agent.end()?;
    let plain = median(plain);
    rows.push(Row::new(format!("a release with an open line, no record wanted, {each}"), plain, "ns"));
    rows.push(Row::new("  a page record adds", median(with) - plain, "ns"));
    rows.push(Row::new(
        "  a violation, with its record, its stacks and the wake-up, adds",
        median(violations) - plain,
        "ns",
    ));
    rows.push(Row::new("  the reader wakes for each violation of a burst", median(wakes), "times"));
    Ok(rows)
}

/// Faster and faster, until some are lost; and then as fast as it goes.
fn rates(host: &mut Host, agent: &Agent, producers: usize, seconds: u64) -> Result<Vec<Row>> {
    let (mut rate, mut kept) = (FIRST, None);
    let lossy = loop {
        note("events", format_args!("{producers} producers, {rate:.0} records/s"));
        let mut tries = 0;
        // What else this machine does can stand in the way of either side for a moment.
        let (step, kept_up) = loop {
            let step = step(host, agent, rate, seconds, "pages")?;
            let slow = (step.made.produced as f64) < 0.9 * rate * step.made.seconds;
            let kept_up = step.made.lost == 0 && !slow;
            tries += 1;
            if kept_up || tries == TRIES {
                break (step, kept_up);
            }
        };
        // Where the producers do not keep up, there is nothing to be had beyond.
        if !kept_up || rate > LAST {
            break step;
        }
        kept = Some(step);
        rate *= STEP;
    };
    note("events", format_args!("{producers} producers, as fast as they can"));
    let fastest = step(host, agent, 0.0, seconds, "pages")?;
    let a_second = |step: &Step| step.made.produced as f64 / step.made.seconds;
    let mut rows = Vec::new();
    if let Some(kept) = &kept {
        let received = kept.made.produced as f64;
        rows.extend([
            Row::new(format!("records without loss, {producers} at once"), a_second(kept), "/s"),
            Row::new("  the reader, for each", kept.reader_ns / received, "ns"),
            Row::new("  its CPU", kept.reader_ns / kept.made.seconds / 1e7, "% of a core"),
            Row::new("  it wakes", kept.wakes / kept.made.seconds, "/s"),
        ]);
    }
    for (name, step) in [("the next rate", &lossy), ("as fast as they can", &fastest)] {
        rows.extend([
            Row::new(format!("{name}, {producers} at once"), a_second(step), "/s"),
            Row::new("  lost", step.made.lost as f64 / step.made.produced as f64 * 100.0, "%"),
            Row::new("  produced - received - lost", step.missing, "records").limit(Limit::AtMost(0.0)),
        ]);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_are_those_that_a_thread_waited_for() {
        let status = "Name:\tseptwatch\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t4711\n";
        assert_eq!(voluntary(status), Some(4711.0));
        assert_eq!(voluntary("Name:\tseptwatch\n"), None);
    }
}
