//! What septwatch adds to KVM's map and zap paths, in instructions, on the lab's machine: the same figures at every run.

use anyhow::Result;
use clap::{Args, ValueEnum as _};

use super::{Limit, Row, watchers};
use crate::lab::costs::{self, Cost, Measured, Watcher};
use crate::{build, lab, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Release to measure on.
    #[arg(long, value_name = "R", default_value = lab::DEFAULT_RELEASE)]
    release: String,
    /// Only these, beside nothing attached; may be given several times.
    #[arg(long, value_name = "WATCHER")]
    only: Vec<Watcher>,
}

/// What septwatch may cost, as a multiple of empty programs at its hooks.
const OVER_EMPTY: f64 = 2.0;
/// How many times more bpftrace's script must take above that.
const UNDER_BPFTRACE: f64 = 10.0;

/// Measures everything.
///
/// # Errors
/// The machine cannot be had or started, or the work in it fails.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    let wanted = |watcher: &Watcher| {
        options.only.is_empty() || *watcher == Watcher::Nothing || options.only.contains(watcher)
    };
    let watchers: Vec<_> = Watcher::value_variants().iter().copied().filter(wanted).collect();
    setup::for_building()?;
    watchers::install()?;
    let others = watchers.iter().filter_map(|watcher| watcher.programs());
    let others = others.map(|name| Ok((name, build::with_programs(name)?))).collect::<Result<Vec<_>>>()?;
    let septwatch = build::septwatch()?;
    Ok(rows(&costs::run(&lab::image(&options.release)?, &watchers, &septwatch, &others)?))
}

fn rows(measured: &[Measured]) -> Vec<Row> {
    for (watcher, result) in measured {
        if let Err(why) = result {
            println!("{} cannot be used in this machine: {why}", watcher.name());
        }
    }
    type Figure = fn(&Cost) -> u64;
    let paths: [(&str, Figure); 3] = [
        ("map and zap of a page", |cost| cost.map + cost.zap),
        ("map of a page", |cost| cost.map),
        ("release of a foreign page", |cost| cost.free),
    ];
    let mut rows = Vec::new();
    for (path, figure) in paths {
        let of = |watcher| {
            let (_, cost) = measured.iter().find(|(measured, _)| *measured == watcher)?;
            cost.as_ref().ok().map(|cost| figure(cost) as f64)
        };
        let Some(alone) = of(Watcher::Nothing) else { continue };
        rows.push(Row::new(format!("{path}, {}", Watcher::Nothing.name()), alone, "instructions"));
        let added = |watcher| of(watcher).map(|with| with - alone);
        for watcher in Watcher::value_variants().iter().skip(1) {
            if let Some(added) = added(*watcher) {
                rows.push(Row::new(format!("  {} adds", watcher.name()), added, "instructions"));
            }
        }
        let Some(ours) = added(Watcher::Septwatch) else { continue };
        rows.push(Row::new("  septwatch, of the path", ours / alone * 100.0, "%"));
        let Some(empty) = added(Watcher::Empty) else { continue };
        rows.push(
            Row::new("  septwatch / empty programs", ours / empty, "x").limit(Limit::AtMost(OVER_EMPTY)),
        );
        if let Some(theirs) = added(Watcher::Bpftrace) {
            let above = (theirs - empty) / (ours - empty);
            rows.push(
                Row::new("  above empty programs: bpftrace / septwatch", above, "x")
                    .limit(Limit::AtLeast(UNDER_BPFTRACE)),
            );
        }
    }
    rows
}
