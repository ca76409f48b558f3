//! Days of an agent's life, in minutes: TDs begin and end, things go wrong, somebody scrapes. What matters is not how large
//! it is after one of them, but that the next ones add nothing.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    Limit, Row,
    agent::MEMORY,
    beside::{Agent, Host, Programs, Storm, own_mib, sum},
    statistics::slope,
};
use crate::step::note;

/// What a day has: as many TDs as where each serves one short task, and a scrape every 15 s.
const TDS: f64 = 5_000.0;
const SCRAPES: u32 = 24 * 60 * 4;
/// TDs of a storm, which all end with it, and what goes wrong meanwhile.
const STORM: Storm = Storm { tds: 50, pages: 16, operations: 2_000, faults: 10, pace: "max" };
/// How long a day may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most by which a day may make it larger, in KiB: more would be seen after years only.
const GROWTH: f64 = 16.0;

/// Plays days.
///
/// # Errors
/// The demo cannot run here.
pub fn run(programs: &Programs, days: u32) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir().context("no folder for events")?;
    let events = folder.path().join("events.jsonl");
    let events = events.to_str().context("the folder for events has a name that is not UTF-8")?;
    let _host = Host::begin(programs, STORM)?;
    let agent = Agent::begin(programs, Stdio::null(), &["--events-file", events, "--events-rotate", "4M"])?;
    let mut memory = Vec::new();
    let mut seen = 0.0;
    let mut last = String::new();
    for day in 1..=days {
        note("agent", format_args!("day {day} of {days}"));
        let (begun, until) = (Instant::now(), f64::from(day) * TDS);
        let mut scrapes = 0;
        while seen < until || scrapes < SCRAPES {
            ensure!(begun.elapsed() < PATIENCE, "day {day} does not end: {seen} TDs, {scrapes} scrapes");
            last = agent.scrape()?;
            seen = sum(&last, "septwatch_tds_seen_total");
            scrapes += 1;
            if scrapes >= SCRAPES {
                thread::sleep(Duration::from_millis(50));
            }
        }
        memory.push((f64::from(day), own_mib(agent.pid())?));
    }
    let violations = sum(&last, "septwatch_violations_total");
    let lost = sum(&last, "septwatch_lost_records_total");
    agent.end()?;
    // The first fills what has a bound.
    let grown = slope(&memory[memory.len() / 2..]) * 1024.0;
    let mut rows: Vec<_> = [(1, "a day"), (days, "all of them")]
        .into_iter()
        .filter_map(|(day, what)| {
            let (_, mib) = memory.get(day as usize - 1)?;
            Some(
                Row::new(format!("memory, simulated days: after {what}"), *mib, "MiB")
                    .limit(Limit::AtMost(MEMORY)),
            )
        })
        .collect();
    rows.extend([
        Row::new("  growth, later half of them", grown, "KiB/day").limit(Limit::AtMost(GROWTH)),
        Row::new("  days", f64::from(days), ""),
        Row::new("  TDs that began and ended", seen, ""),
        Row::new("  violations", violations, ""),
        Row::new("  scrapes", f64::from(days * SCRAPES), ""),
        Row::new("  lost", lost, "records"),
    ]);
    Ok(rows)
}
