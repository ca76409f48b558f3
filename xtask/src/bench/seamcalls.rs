//! What septwatch adds to KVM's map and zap paths, in instructions, on the lab's machine: the same figures at every run.

use anyhow::{Context as _, Result};
use clap::Args;

use super::{Limit, Row, watchers};
use crate::lab::costs::{self, Cost, WATCHERS};
use crate::{build, lab, setup};

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Release to measure on.
    #[arg(long, value_name = "R", default_value = lab::DEFAULT_RELEASE)]
    release: String,
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
    setup::for_building()?;
    watchers::install()?;
    let empty = build::empty()?;
    let septwatch = build::septwatch()?;
    let measured = costs::run(&lab::image(&options.release)?, &septwatch, &empty)?;
    rows(&measured)
}

fn rows(measured: &[Result<Cost, String>]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let nothing = measured.first().and_then(|cost| cost.as_ref().ok()).copied();
    let nothing = nothing.context("the work was not measured without anything attached")?;
    type Figure = fn(&Cost) -> u64;
    let paths: [(&str, Figure); 3] = [
        ("map and zap of a page", |cost| cost.map + cost.zap),
        ("map of a page", |cost| cost.map),
        ("release of a foreign page", |cost| cost.free),
    ];
    for (path, figure) in paths {
        let alone = figure(&nothing);
        rows.push(Row::new(format!("{path}, {}", WATCHERS[0].1), alone as f64, "instructions"));
        let added = |at: usize| Some(figure(measured.get(at)?.as_ref().ok()?) as f64 - alone as f64);
        for (at, (_, name)) in WATCHERS.iter().enumerate().skip(1) {
            match (added(at), &measured[at]) {
                (Some(added), _) => rows.push(Row::new(format!("  {name} adds"), added, "instructions")),
                (None, Err(why)) => println!("{path}: {name} cannot be used in this machine: {why}"),
                (None, Ok(_)) => {}
            }
        }
        let (Some(empty), Some(ours)) = (added(1), added(2)) else { continue };
        rows.push(
            Row::new("  septwatch / empty programs", ours / empty, "x").limit(Limit::AtMost(OVER_EMPTY)),
        );
        rows.push(Row::new("  septwatch, of the path", ours / alone as f64 * 100.0, "%"));
        if let Some(theirs) = added(3) {
            let above = (theirs - empty) / (ours - empty);
            rows.push(
                Row::new("  above empty programs: bpftrace / septwatch", above, "x")
                    .limit(Limit::AtLeast(UNDER_BPFTRACE)),
            );
        }
    }
    Ok(rows)
}
