//! Storms of mistakes on the demo's software TDX module, for commands that watch them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};

use crate::source::demo::{
    module,
    storm::{self, Config},
    vmm::Host,
};

/// Operations of one storm, at least; its faults are the storm's usual.
const OPERATIONS: u64 = 100_000;

/// Pages of guest memory of all TDs of one storm together, where each has enough of them then.
const PAGES: u32 = 3 << 10;

/// Most TDs at once.
const MOST_TDS: u32 = 2_000;

/// What the storms of a demo are like.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Storming {
    /// Decides what the demo's storms do.
    #[arg(long, default_value_t = 1, requires = "demo")]
    pub seed: u64,
    /// How many TDs the demo has at once; 0: none, as on a host on which nothing is lent.
    #[arg(long, value_name = "NUMBER", default_value_t = 6, requires = "demo",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST_TDS)))]
    pub tds: u32,
    /// How many pages the demo maps, zaps and frees in a second; `max` for as many as it can.
    #[arg(long, value_name = "NUMBER", default_value = "2000", value_parser = pace, requires = "demo")]
    pub pace: Pace,
}

/// Operations a second; none: as many as there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(pub Option<u32>);

fn pace(text: &str) -> Result<Pace, String> {
    if text == "max" {
        return Ok(Pace(None));
    }
    let pace = text.parse().ok().filter(|pace: &u32| (1..=1_000_000).contains(pace));
    pace.map(|pace| Pace(Some(pace))).ok_or_else(|| "not `max`, nor a number from 1 to 1000000".to_owned())
}

/// Storms, one after the other, on a thread of their own.
pub struct Storms {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Storms {
    /// Begins.
    ///
    /// # Errors
    /// No more threads.
    pub fn begin(config: module::Config, storming: Storming) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let Storming { mut seed, tds, pace: Pace(pace) } = storming;
        let thread = thread::Builder::new().name("septwatch-demo".to_owned()).spawn(move || {
            if tds == 0 {
                while !stopped.load(Ordering::Acquire) {
                    thread::park();
                }
                return Ok(());
            }
            let usual = Config::default();
            let storm = Config {
                operations: OPERATIONS.max(u64::from(tds) * 1_000),
                tds: tds.div_ceil(usual.threads),
                pages: (PAGES / tds).clamp(16, 512) as usize,
                pace,
                ..usual
            };
            let host = Host::new(config, storm.host_pages(), false).context("the demo's host")?;
            while !stopped.load(Ordering::Acquire) {
                storm::storm_until(&host, &Config { seed, ..storm }, &stopped).context("the storm")?;
                seed = seed.wrapping_add(1);
            }
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends them.
    ///
    /// # Errors
    /// One of them failed.
    pub fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| anyhow!("the demo's thread died"))?
    }
}
