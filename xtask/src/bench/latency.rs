//! From a violation in the kernel to who is to know of it: the agent, a JSON line in a reader's hands, a metric in a scrape,
//! a frame on a screen. The violation's own time is the kernel's; all others are taken on the same clock.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use septwatch_pty::Terminal;
use serde_json::Value;

use super::beside::{Agent, Host, Programs, Storm, sum};
use super::statistics::quantile;
use super::{Limit, Row};
use crate::step::note;
use crate::{screens, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// How long violations are watched, at each load.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
}

/// Most from a violation to its JSON line, in ms, for 99 of 100 on an idle host.
const LINE: f64 = 1.0;
/// A host that idles, but for 20 violations a second; and one whose TDs do what they can.
const LOADS: [(&str, Storm); 2] = [
    ("idle", Storm { tds: 6, pages: 64, operations: 2_000, faults: 100, pace: "400" }),
    ("under load", Storm { tds: 6, pages: 512, operations: 200_000, faults: 100, pace: "max" }),
];
/// Between two scrapes: as long as a figure in a scrape can be older than the agent's own.
const SCRAPE: Duration = Duration::from_millis(20);
/// How long anything may take, and settles.
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(2);

/// Measures everything.
///
/// # Errors
/// The demo cannot run here.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let programs = Programs::prepare()?;
    let span = Duration::from_secs(options.seconds);
    let mut rows = Vec::new();
    for (load, storm) in LOADS {
        note("latency", format_args!("{load}: JSON line and metric, {} s", options.seconds));
        let (lines, metrics) = outputs(&programs, storm, span)?;
        let limit = (load == "idle").then_some(Limit::AtMost(LINE));
        rows.extend(told(&format!("a JSON line is read, {load}"), lines, limit));
        rows.extend(told(&format!("a scrape has it, {load}"), metrics, None));
        note("latency", format_args!("{load}: screen, {} s", options.seconds));
        rows.extend(told(&format!("a frame shows it, {load}"), screen(&programs, storm, span)?, None));
    }
    Ok(rows)
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Half, 99 % and all of them; how many there were.
fn told(what: &str, mut delays: Vec<f64>, p99: Option<Limit>) -> [Row; 4] {
    delays.sort_by(f64::total_cmp);
    let mut most_of = Row::new("  99 %", quantile(&delays, 0.99), "ms");
    most_of.limit = p99;
    [
        Row::new(format!("a violation until {what}: half"), quantile(&delays, 0.5), "ms"),
        most_of,
        Row::new("  all", quantile(&delays, 1.0), "ms"),
        Row::new("  violations", delays.len() as f64, ""),
    ]
}

/// A violation as a JSON line tells it, and when that was read; both in ns.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    violation_ns: u64,
    read_ns: u64,
}

fn line(text: &str, read_ns: u64) -> Option<Line> {
    let line: Value = serde_json::from_str(text).ok()?;
    let violation_ns = (line["type"] == "violation").then(|| line["time_ns"].as_u64())??;
    Some(Line { violation_ns, read_ns })
}

/// Delays in ms of JSON lines and of metrics.
fn outputs(programs: &Programs, storm: Storm, span: Duration) -> Result<(Vec<f64>, Vec<f64>)> {
    let _host = Host::begin(programs, storm)?;
    let mut agent = Agent::begin(programs, Stdio::piped(), &["--events-file", "-"])?;
    let lines = read(agent.events().context("a pipe")?);
    thread::sleep(SETTLE);
    let count =
        |agent: &Agent| Ok::<_, anyhow::Error>(sum(&agent.scrape()?, "septwatch_violations_total") as u64);
    let (begun, begun_ns) = (Instant::now(), now_ns());
    let mut scrapes = Vec::new();
    while begun.elapsed() < span {
        let counted = count(&agent)?;
        scrapes.push((now_ns(), counted));
        thread::sleep(SCRAPE);
    }
    agent.end()?;
    let lines: Vec<_> = lines.iter().collect();
    let delays = lines.iter().filter(|line| line.violation_ns > begun_ns);
    let delays = delays.map(|line| (line.read_ns - line.violation_ns) as f64 / 1e6).collect();
    // The agent counts from the first of the ledger on, and read all of them.
    let mut times: Vec<_> = lines.iter().map(|line| line.violation_ns).collect();
    times.sort_unstable();
    Ok((delays, until_counted(&times, &scrapes)))
}

/// Reads JSON lines until there are no more.
fn read(pipe: std::process::ChildStdout) -> Receiver<Line> {
    let (to, lines) = mpsc::channel();
    thread::spawn(move || {
        for text in BufReader::new(pipe).lines().map_while(Result::ok) {
            let read_ns = now_ns();
            if let Some(line) = line(&text, read_ns)
                && to.send(line).is_err()
            {
                break;
            }
        }
    });
    lines
}

/// From each violation to the first look that counts it, in ms. `times` are sorted, and `looks` are when somebody looked and
/// how many there were. What happened before the first look, and what none counts, is left out.
fn until_counted(times: &[u64], looks: &[(u64, u64)]) -> Vec<f64> {
    let (Some((first, before)), Some((_, last))) = (looks.first(), looks.last()) else { return Vec::new() };
    // Violations that nobody told of here, from before.
    let untold = before.saturating_sub(times.iter().filter(|time| **time <= *first).count() as u64);
    let mut looks = looks.iter();
    let mut look = looks.next();
    let mut delays = Vec::new();
    for (nth, time) in (untold + 1..).zip(times) {
        while look.is_some_and(|(_, counted)| *counted < nth) {
            look = looks.next();
        }
        let Some((at, _)) = look else { break };
        if nth > *before && nth <= *last && at > time {
            delays.push((at - time) as f64 / 1e6);
        }
    }
    delays
}

/// Delays in ms of frames of `septwatch top`. It records what it shows: so it is known when that happened.
fn screen(programs: &Programs, storm: Storm, span: Duration) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir().context("no folder for a recording")?;
    let _host = Host::begin(programs, storm)?;
    let mut command = screens::top(programs.septwatch(), &["--light"]);
    command.current_dir(folder.path());
    let mut terminal = Terminal::start(command, 120, 40)?;
    terminal.until("for a violation", PATIENCE, |output| shown(&output.screen().contents()))?;
    terminal.send("R")?;
    thread::sleep(SETTLE);
    let (begun, mut frames, mut looks) = (Instant::now(), 0, Vec::new());
    while begun.elapsed() < span {
        let look = {
            let output = terminal.output();
            let now = output.frames();
            // Only frames that are complete.
            (now.count != frames && !now.open).then(|| {
                frames = now.count;
                shown(&output.screen().contents())
            })
        };
        if let Some(counted) = look.flatten() {
            looks.push((now_ns(), counted));
        }
        thread::sleep(Duration::from_millis(1));
    }
    terminal.send("R")?;
    thread::sleep(SETTLE);
    terminal.signal(Signal::TERM)?;
    terminal.wait()?;
    let mut times = recorded(programs.septwatch(), folder.path())?;
    times.sort_unstable();
    Ok(until_counted(&times, &looks))
}

/// How many violations the screen counts.
fn shown(screen: &str) -> Option<u64> {
    let words: Vec<_> = screen.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("violations"))?;
    words.get(at.checked_sub(1)?)?.replace(',', "").parse().ok()
}

/// Times of the violations in the one recording that is there.
fn recorded(septwatch: &Path, folder: &Path) -> Result<Vec<u64>> {
    let file = fs::read_dir(folder)?.next().context("there is no recording")??.path();
    let mut replay = Command::new(septwatch);
    replay.args(["replay", "--speed", "max", "--json"]).arg(&file);
    let output = replay.output().context("septwatch replay")?;
    // 1: the recording has violations.
    ensure!(matches!(output.status.code(), Some(0 | 1)), "septwatch replay: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let times: Vec<_> = text.lines().filter_map(|text| Some(line(text, 0)?.violation_ns)).collect();
    ensure!(!times.is_empty(), "the recording has no violation");
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_known_when_the_count_has_reached_it() {
        let times = [2_000_000, 3_000_000, 9_000_000, 12_000_000];
        // Two of before, of which nobody told, are counted from the start.
        let looks = [(1_000_000, 2), (4_000_000, 3), (5_000_000, 4), (10_000_000, 5)];
        assert_eq!(until_counted(&times, &looks), [2.0, 2.0, 1.0]);
        assert!(until_counted(&times, &[]).is_empty());
    }

    #[test]
    fn violations_are_lines_with_a_time() {
        let violation = r#"{"type":"violation","time_ns":5,"violation":"zap-failed"}"#;
        assert_eq!(line(violation, 9), Some(Line { violation_ns: 5, read_ns: 9 }));
        assert_eq!(line(r#"{"type":"td","time_ns":5}"#, 9), None);
        assert_eq!(line("no JSON", 9), None);
    }
}
