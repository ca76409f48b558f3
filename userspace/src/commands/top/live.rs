//! This host behind the screen.

use std::sync::mpsc::Receiver;

use anyhow::Result;

use super::{
    Args, about_here,
    costs::Costs,
    feed::Feed,
    history::{History, Totals},
    planned,
    recorder::Recording,
    stage::{Names, Stage},
    watched::Watched,
};
use crate::{
    commands::{
        live::{Live, Until},
        recording, told,
    },
    recording::header::{Clock, Origin},
    source::open::Options,
    view::top::scene::{Ask, Source},
};

/// Watches this host until somebody has seen enough, and says how many violations there were.
///
/// # Errors
/// This host cannot be watched.
pub fn run(args: &Args, feed: &Feed, asks: Receiver<Ask>) -> Result<u64> {
    let costs = Costs::begin(!args.light);
    let options = Options { latency: !args.light, ..args.watching.options() };
    let mut live = Live::begin("top", &args.watching, &args.policing, &options, !args.light)?;
    let (plan, ledger) = recording::of_opened(&live.opened);
    let mut scene = planned(about_here(Source::Live, args.light), &plan);
    if scene.about.no_calls.is_none() && !live.opened.latency {
        scene.host.degraded.push(
            "no latencies: the programs that run were attached by another process without them".to_owned(),
        );
    }
    for (hook, error) in &live.opened.not_attached {
        scene.host.degraded.push(format!("no {hook}: {}", told(error)));
    }
    let totals = Totals::counted(&live.session.standing()?.counters);
    let stage = Stage::new(scene, History::live(Clock::now().monotonic_ns, totals), Names::here());
    let recording =
        Recording { origin: Origin::Live, plan, options, ledger, pages: !args.light, running: None };
    let mut watched = Watched::begin(stage, feed, asks, costs, recording, &mut live.session)?;
    let mut until = Until { told: Some(feed.told()), ..Until::default() };
    let ended = live.follow(&mut until, &mut watched);
    if let Some(told) = watched.end(&mut live.session)? {
        eprintln!("septwatch: {told}");
    }
    // What another process had left running stays.
    live.end(live.opened.taken_over)?;
    ended?;
    Ok(live.session.model().total())
}
