//! The demo behind the screen: storm after storm, at a pace that a person can follow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};

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
    },
    hooks::lock::Lock,
    recording::header::{Clock, LedgerFacts, Origin},
    source::{
        demo::{
            module,
            storm::{self, Config},
            vmm::Host,
        },
        open::{self, Options},
        session::Session,
    },
    view::{
        stack::KernelSymbols,
        top::scene::{Ask, Source},
    },
};

/// Operations of one storm; its faults are the storm's usual.
const OPERATIONS: u64 = 100_000;

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
    let (mut kernel, config) = open::demo(module::Shape::V7_3, &options)?;
    let _rest_of_log = args.watching.logger(kernel.ebpf(), runtime.handle())?;
    kernel.record_pages(!args.light)?;
    let mut session = Session::new(kernel)?;
    let plan = recording::demo_hooks();
    let scene = planned(about_here(Source::Demo("storm".to_owned()), args.light), &plan);
    let totals = Totals::counted(&session.standing()?.counters);
    let stage = Stage::new(scene, History::live(Clock::now().monotonic_ns, totals), Names::default());
    let recording = Recording {
        origin: Origin::Demo { scenarios: vec!["storm".to_owned()], seed: args.seed },
        plan,
        options,
        ledger: LedgerFacts::default(),
        pages: !args.light,
        running: None,
    };
    let mut watched = Watched::begin(stage, feed, asks, costs, recording, &mut session)?;
    let storms = Storms::begin(config, args.seed, args.pace.0)?;
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

/// Storms, one after the other, on a thread of their own.
struct Storms {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Storms {
    fn begin(config: module::Config, seed: u64, pace: Option<u32>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("septwatch-demo".to_owned()).spawn(move || {
            let storm = Config { operations: OPERATIONS, pace, ..Config::default() };
            let host = Host::new(config, storm.host_pages(), false).context("the demo's host")?;
            let mut seed = seed;
            while !stopped.load(Ordering::Acquire) {
                storm::storm_until(&host, &Config { seed, ..storm }, &stopped).context("the storm")?;
                seed = seed.wrapping_add(1);
            }
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the demo's thread died"))?
    }
}
