//! A seeded random workload: many correct operations on several TDs at once, and a number of faults among them.
//!
//! What happens to which guest frame of which TD follows from the seed alone, whatever the threads' timing: every TD
//! belongs to one thread, and every thread has a generator of its own. Frames and times differ from run to run.
//!
//! A fault and its repair (the module gives the frame up properly) exclude the other threads' operations, so that
//! the storm itself never gets a frame that the module still has. The rest of the host may.

mod worker;

use std::collections::BTreeMap;
use std::sync::{RwLock, atomic::AtomicBool};

use fastrand::Rng;

use super::vmm::{Host, Truth, VmmError};
use worker::Worker;

/// How big a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Decides everything.
    pub seed: u64,
    /// Correct operations, at least: each page mapped, zapped or freed is one.
    pub operations: u64,
    /// Faults: exactly as many truths will be faults ([`super::vmm::What::is_fault`]).
    pub faults: u32,
    /// Threads, at least 1.
    pub threads: u32,
    /// TDs of each thread, at least 1. All TDs, and one more a thread, need an HKID each.
    pub tds: u32,
    /// Pages of guest memory of each TD, at least 16.
    pub pages: usize,
    /// Operations a second, of all threads together; none: as many as there can be.
    pub pace: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self { seed: 0, operations: 200_000, faults: 100, threads: 2, tds: 3, pages: 512, pace: None }
    }
}

impl Config {
    /// Control and S-EPT pages that the [`Host`] must have.
    pub fn host_pages(&self) -> usize {
        (self.threads * (self.tds + 1)) as usize * (32 + self.pages / 512)
    }
}

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Episode {
    /// A mapped page is freed without a zap.
    FreeUnzapped,
    /// BLOCK fails, the page is freed.
    BlockFails,
    /// A blocked page is freed without REMOVE.
    SkipRemove,
    /// REMOVE fails, the page is freed.
    RemoveFails,
    /// A removed page is freed without WBINVD.
    SkipWbinvd,
    /// WBINVD fails, the page is freed.
    WbinvdFails,
    /// A control or S-EPT page is freed before it is reclaimed.
    FreeOwned,
    /// A step of a zap fails, the page is kept.
    ZapFails,
    /// AUG fails.
    MapFails,
    /// A frame is mapped at a second guest frame.
    DoubleMap,
    /// REMOVE comes without BLOCK, and the module lets it pass.
    OutOfOrder,
}

impl Episode {
    const ALL: [Self; 11] = [
        Self::FreeUnzapped,
        Self::BlockFails,
        Self::SkipRemove,
        Self::RemoveFails,
        Self::SkipWbinvd,
        Self::WbinvdFails,
        Self::FreeOwned,
        Self::ZapFails,
        Self::MapFails,
        Self::DoubleMap,
        Self::OutOfOrder,
    ];

    /// Faults in it: a failed zap and the free that follows are two.
    const fn faults(self) -> u32 {
        match self {
            Self::BlockFails | Self::RemoveFails | Self::WbinvdFails => 2,
            _ => 1,
        }
    }
}

/// What a storm was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Pages mapped.
    pub maps: u64,
    /// Pages zapped.
    pub zaps: u64,
    /// Pages freed.
    pub frees: u64,
    /// Calls that were answered BUSY.
    pub busy: u64,
    /// What was done wrong, how often.
    pub episodes: BTreeMap<Episode, u32>,
    /// The truths, by TD, each TD's in their order. Frees in good order are among them only if the host keeps them.
    pub truths: Vec<Truth>,
    /// Pages that the module owns after the last TD's end: 0.
    pub owned: usize,
}

/// Runs a storm on a host that nobody else uses meanwhile. Its threads stay on one CPU each.
///
/// # Errors
/// See [`VmmError`].
pub fn storm(host: &Host, config: &Config) -> Result<Report, VmmError> {
    storm_until(host, config, &AtomicBool::new(false))
}

/// The same, until it is over or `stop` is true: then some faults may not have been made.
///
/// # Errors
/// See [`VmmError`].
pub fn storm_until(host: &Host, config: &Config, stop: &AtomicBool) -> Result<Report, VmmError> {
    let mut rng = Rng::with_seed(config.seed);
    let threads = config.threads.max(1);
    let plan = plan(&mut rng, config.faults);
    let calm = RwLock::new(());
    let results: Vec<_> = std::thread::scope(|scope| {
        let calm = &calm;
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let faults = plan.iter().copied().skip(thread as usize).step_by(threads as usize).collect();
                let rng = rng.fork();
                scope.spawn(move || {
                    let _pinned = host.pinned().beside(thread as usize)?;
                    Worker::new(host, calm, config, thread, rng, faults)?.run(stop)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let mut report = Report::default();
    for result in results {
        let part = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        report.maps += part.maps;
        report.zaps += part.zaps;
        report.frees += part.frees;
        for (episode, count) in part.episodes {
            *report.episodes.entry(episode).or_default() += count;
        }
    }
    report.busy = host.log().busy();
    report.truths = host.log().take();
    report.truths.sort_by_key(|truth| truth.td.index);
    report.owned = host.module().owned().len();
    Ok(report)
}

/// Episodes with this many faults in all: every kind in turn, in a random order.
fn plan(rng: &mut Rng, faults: u32) -> Vec<Episode> {
    let mut plan = Vec::new();
    let mut left = faults;
    for episode in Episode::ALL.into_iter().cycle() {
        if left == 0 {
            break;
        }
        if episode.faults() <= left {
            left -= episode.faults();
            plan.push(episode);
        }
    }
    rng.shuffle(&mut plan);
    plan
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test ends there")]
mod tests {
    use super::*;
    use crate::source::demo::memory::{Memory, MemoryError};
    use crate::source::demo::module::{self, Shape, tests::turn};
    use crate::source::demo::vmm::What;

    fn run(config: &Config) -> Report {
        let operands =
            module::Config { shape: Shape::V7_3, vmemmap_base: 0xffff_ea00_0000_0000, page_struct_size: 64 };
        let host = Host::new(operands, config.host_pages(), false).unwrap();
        let report = storm(&host, config).unwrap();
        assert!(report.maps + report.zaps + report.frees >= config.operations);
        assert!(host.log().clean_frees() > 0);
        assert_eq!(report.owned, 0);
        assert_eq!(report.truths.len() as u32, config.faults, "{:#x?}", report.truths);
        report
    }

    /// What must not depend on frames and time.
    fn essence(report: &Report) -> Vec<(u32, &'static str, Option<u64>)> {
        let of = |truth: &Truth| match truth.what {
            What::Freed { gfn, .. } => ("freed", gfn),
            What::ZapFailed { gfn, .. } => ("zap failed", Some(gfn)),
            What::MapFailed { gfn, .. } => ("map failed", Some(gfn)),
            What::DoubleMap { gfn, .. } => ("double map", Some(gfn)),
            What::OutOfOrder { gfn, .. } => ("out of order", Some(gfn)),
            What::Leaked { .. } => ("leaked", None),
        };
        report.truths.iter().map(|truth| (truth.td.index, of(truth).0, of(truth).1)).collect()
    }

    #[test]
    fn a_storm_keeps_its_pace_and_can_be_stopped() {
        let _turn = turn();
        if let Err(MemoryError::FramesHidden) = Memory::memfd(1).unwrap().touch(0) {
            eprintln!("skipped: frame numbers need CAP_SYS_ADMIN");
            return;
        }
        let config = Config { faults: 0, operations: 600, pages: 16, pace: Some(1_500), ..Config::default() };
        let begun = std::time::Instant::now();
        assert!(run(&config).maps > 0);
        let took = begun.elapsed().as_millis();
        assert!((350..4_000).contains(&took), "600 operations at 1500 a second took {took} ms");
        let operands =
            module::Config { shape: Shape::V7_3, vmemmap_base: 0xffff_ea00_0000_0000, page_struct_size: 64 };
        let config = Config { operations: u64::MAX, ..config };
        let host = Host::new(operands, config.host_pages(), false).unwrap();
        let report = storm_until(&host, &config, &AtomicBool::new(true)).unwrap();
        assert!(report.zaps < 100 && report.owned == 0, "{report:?}");
    }

    #[test]
    fn truths_follow_from_the_seed_and_are_as_many_as_asked_for() {
        let _turn = turn();
        if let Err(MemoryError::FramesHidden) = Memory::memfd(1).unwrap().touch(0) {
            eprintln!("skipped: frame numbers need CAP_SYS_ADMIN");
            return;
        }
        let config = Config { seed: 7, operations: 20_000, faults: 60, ..Config::default() };
        let (first, second) = (run(&config), run(&config));
        assert_eq!(essence(&first), essence(&second));
        assert_eq!(first.episodes.len(), Episode::ALL.len(), "every kind: {:?}", first.episodes);
        assert!(first.busy > 100);
        assert_ne!(essence(&first), essence(&run(&Config { seed: 8, ..config })));
        assert_eq!(run(&Config { faults: 0, operations: 5_000, ..config }).truths, []);
        assert_eq!(
            run(&Config { faults: 3, threads: 1, tds: 1, pages: 16, operations: 500, seed: 1, pace: None })
                .owned,
            0
        );
    }
}
