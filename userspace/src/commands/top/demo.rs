//! The demo behind the screen: storm after storm, at a pace that a person can follow.

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
        live::{self, Until},
        recording,
        storms::Storms,
    },
    hooks::lock::Lock,
    recording::header::{Clock, LedgerFacts, Origin},
    source::{
        demo::module,
        open::{self, Options},
        session::Session,
    },
    view::{
        stack::KernelSymbols,
        top::scene::{Ask, Source},
    },
};

/// Watches the demo until somebody has seen enough.
///
/// # Errors
/// This host cannot.
pub fn run(args: &Args, feed: &Feed, asks: Receiver<Ask>) -> Result<u64> {
    open::check_capabilities()?;
    let _lock = Lock::take("top --demo")?;
    let costs = Costs::begin(!args.light);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = Options { latency: !args.light, ..args.watching.options() };
    let (mut kernel, config) = open::demo(module::Shape::V7_3, &options, None)?;
    let _rest_of_log = args.watching.logger(kernel.ebpf(), runtime.handle())?;
    kernel.record_pages(!args.light)?;
    let mut session = Session::new(kernel)?;
    session.rest_after(args.watching.rest());
    let plan = recording::demo_hooks();
    let scene = planned(about_here(Source::Demo("storm".to_owned()), args.light), &plan);
    let totals = Totals::counted(&session.standing()?.counters);
    let stage = Stage::new(scene, History::live(Clock::now().monotonic_ns, totals), Names::default());
    let recording = Recording {
        origin: Origin::Demo { scenarios: vec!["storm".to_owned()], seed: args.storming.seed },
        plan,
        options,
        ledger: LedgerFacts::default(),
        pages: !args.light,
        running: None,
    };
    let mut watched = Watched::begin(stage, feed, asks, costs, recording, &mut session)?;
    let storms = Storms::begin(config, args.storming)?;
    let symbols = KernelSymbols::running().into();
    let mut until = Until { told: Some(feed.told()), ..Until::default() };
    let ended = runtime.block_on(live::follow(&mut session, &symbols, None, &mut until, &mut watched));
    let stormed = storms.end();
    if let Some(told) = watched.end(&mut session)? {
        eprintln!("septwatch: {told}");
    }
    ended?;
    stormed?;
    Ok(0)
}
