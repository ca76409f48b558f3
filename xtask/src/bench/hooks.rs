//! What it costs a host that its pages are watched coming back: side by side with nothing, with a program that does
//! nothing at the same hooks, and with what people would use instead.

use anyhow::{Context as _, Result};
use clap::Args;

use super::statistics::estimate;
use super::watchers::{Programs, Watcher};
use super::workloads::{self, Took};
use super::{Limit, Row};
use crate::setup;
use crate::step::note;

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Rounds: in each, everything is measured once, in an order of its own.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
}

/// What septwatch may add to a foreign page's release, as a multiple of what an empty program at the same hooks adds.
const OVER_EMPTY: f64 = 1.1;

/// Measures everything.
///
/// # Errors
/// A program cannot be had, or does not begin.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let folder = tempfile::tempdir().context("no folder for recordings")?;
    let programs = Programs::prepare(folder.path())?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut order = Watcher::ALL;
    let mut took: Vec<[Took; Watcher::ALL.len()]> = Vec::new();
    for round in 0..options.rounds {
        note("hooks", format_args!("round {} of {}", round + 1, options.rounds));
        random.shuffle(&mut order);
        let mut of_round = [Took { punch: 0.0, cycle: 0.0, program: 0.0 }; Watcher::ALL.len()];
        for watcher in order {
            let watching = programs.begin(watcher)?;
            of_round[watcher as usize] = workloads::all()?;
            watching.end()?;
        }
        took.push(of_round);
    }
    let mut rows = Vec::new();
    type Figure = fn(&Took) -> f64;
    let works: [(&str, &str, Figure); 3] = [
        ("a page punched out of a memfd", "ns", |took| took.punch),
        ("a page brought in and punched out", "ns", |took| took.cycle),
        ("a program started and ended", "us", |took| took.program / 1e3),
    ];
    for (work, unit, figure) in works {
        let of = |watcher: Watcher| -> Vec<f64> {
            took.iter().map(|round| figure(&round[watcher as usize])).collect()
        };
        let alone = of(Watcher::Nobody);
        rows.push(Row::new(
            format!("{work}, {}", Watcher::Nobody.name()),
            estimate(&alone, &mut random)[1],
            unit,
        ));
        for watcher in Watcher::ALL.into_iter().skip(1) {
            // Each against that of the same round: what the machine does beside changes slowly.
            let slower: Vec<_> =
                of(watcher).iter().zip(&alone).map(|(with, alone)| (with / alone - 1.0) * 100.0).collect();
            let [low, middle, high] = estimate(&slower, &mut random);
            rows.push(Row::new(format!("  {}", watcher.name()), middle, "% slower").between(low, high));
        }
    }
    let added = |watcher: Watcher| {
        let added =
            took.iter().map(|round| round[watcher as usize].punch - round[Watcher::Nobody as usize].punch);
        added.collect::<Vec<_>>()
    };
    let (ours, empty) = (added(Watcher::Septwatch), added(Watcher::Empty));
    let over: Vec<_> = ours.iter().zip(&empty).map(|(ours, empty)| ours / empty).collect();
    let [low, middle, high] = estimate(&over, &mut random);
    rows.push(
        Row::new("a foreign page's release: septwatch adds / empty adds", middle, "x")
            .between(low, high)
            .limit(Limit::AtMost(OVER_EMPTY)),
    );
    Ok(rows)
}
