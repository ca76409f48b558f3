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

/// Operations of one storm; its faults are the storm's usual.
const OPERATIONS: u64 = 100_000;

/// Storms, one after the other, on a thread of their own.
pub struct Storms {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Storms {
    /// Begins, with so many operations a second; none: as many as there can be.
    ///
    /// # Errors
    /// No more threads.
    pub fn begin(config: module::Config, seed: u64, pace: Option<u32>) -> Result<Self> {
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

    /// Ends them.
    ///
    /// # Errors
    /// One of them failed.
    pub fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the demo's thread died"))?
    }
}
