//! What one thread of a storm does: correct operations, and faults when they are due.

use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use septwatch_common::Leaf;

use super::{Config, Episode, Report};
use crate::source::demo::module::{Action, Fault, status};
use crate::source::demo::vmm::{ControlPage, FIRST_GFN, Flaw, Host, Steps, Td, VmmError};

/// One thread's part.
pub(super) struct Worker<'h> {
    host: &'h Host,
    /// Shared by operations, taken alone by faults.
    calm: &'h RwLock<()>,
    rng: Rng,
    tds: Vec<Td<'h>>,
    pages: u64,
    /// Operations after which the next fault is due, and the faults, last first.
    due: Vec<(u64, Episode)>,
    quota: u64,
    /// Operations a second.
    pace: Option<f64>,
    /// Number of the next TD made for one fault.
    next_index: u32,
    report: Report,
}

impl<'h> Worker<'h> {
    pub(super) fn new(
        host: &'h Host,
        calm: &'h RwLock<()>,
        config: &Config,
        thread: u32,
        mut rng: Rng,
        faults: Vec<Episode>,
    ) -> Result<Self, VmmError> {
        let (threads, per_thread) = (config.threads.max(1), config.tds.max(1));
        let pages = config.pages.max(16);
        let mut tds = Vec::new();
        for number in 0..per_thread {
            let mut td = Td::create_numbered(host, thread * per_thread + number, pages, 1)?;
            for gfn in FIRST_GFN..FIRST_GFN + 4 {
                // A refusal here is in the log, and the page is then mapped like any other.
                let _ = td.add(gfn)?;
            }
            td.finalize()?;
            tds.push(td);
        }
        let quota = config.operations.div_ceil(threads.into());
        let mut due: Vec<_> = faults.into_iter().map(|episode| (rng.u64(0..quota.max(1)), episode)).collect();
        due.sort_by_key(|(operations, _)| std::cmp::Reverse(*operations));
        Ok(Self {
            host,
            calm,
            rng,
            tds,
            pages: pages as u64,
            due,
            quota,
            pace: config.pace.map(|pace| f64::from(pace.max(1)) / f64::from(threads)),
            next_index: threads * per_thread + thread * 1_000_000,
            report: Report::default(),
        })
    }

    fn operations(&self) -> u64 {
        self.report.maps + self.report.zaps + self.report.frees
    }

    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Report, VmmError> {
        let begun = Instant::now();
        while (self.operations() < self.quota || !self.due.is_empty()) && !stop.load(Ordering::Relaxed) {
            let operations = self.operations();
            if let Some(pace) = self.pace {
                let due = Duration::from_secs_f64(operations as f64 / pace);
                // Not so long that nobody could stop it.
                let early = due.saturating_sub(begun.elapsed()).min(Duration::from_millis(50));
                if early >= Duration::from_millis(2) {
                    thread::sleep(early);
                    continue;
                }
            }
            let calm = self.calm;
            match self.due.pop_if(|(due, _)| *due <= operations) {
                Some((_, episode)) => {
                    let _alone = calm.write().unwrap_or_else(PoisonError::into_inner);
                    self.go_wrong(episode)?;
                }
                None => {
                    let _shared = calm.read().unwrap_or_else(PoisonError::into_inner);
                    self.operate()?;
                }
            }
        }
        for td in self.tds {
            td.teardown(None)?;
        }
        Ok(self.report)
    }

    /// One random correct operation.
    fn operate(&mut self) -> Result<(), VmmError> {
        let td = self.rng.usize(0..self.tds.len());
        let gfn = FIRST_GFN + self.rng.u64(0..self.pages);
        let busy = self.rng.u8(0..64) == 0;
        let heads = self.rng.bool();
        match (self.tds[td].frame(gfn)?.is_some(), self.tds[td].is_mapped(gfn)?) {
            (true, true) if heads => self.zap(td, gfn, busy),
            (true, _) if heads => self.punch(td, gfn, 1),
            (true, true) => {
                let last = FIRST_GFN + self.pages;
                let count = if self.rng.u8(0..8) == 0 { self.rng.u64(1..16) } else { 1 };
                self.punch(td, gfn, count.min(last - gfn))
            }
            _ => self.map(td, gfn, busy),
        }
    }

    fn map(&mut self, td: usize, gfn: u64, busy: bool) -> Result<(), VmmError> {
        if busy {
            self.inject(td, Some(gfn), Leaf::MemPageAug, Action::Fail(status::busy_of(Leaf::MemPageAug)), 3);
        }
        if self.tds[td].fault(gfn)?.is_ok() {
            self.report.maps += 1;
        }
        Ok(())
    }

    fn zap(&mut self, td: usize, gfn: u64, busy: bool) -> Result<(), VmmError> {
        if busy {
            let leaves = [Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove];
            let leaf = leaves[self.rng.usize(0..leaves.len())];
            let page = (leaf != Leaf::MemTrack).then_some(gfn);
            self.inject(td, page, leaf, Action::Fail(status::busy_of(leaf)), 1);
        }
        self.report.zaps += 1 - self.tds[td].zap(gfn, 1, Steps::ALL)?;
        Ok(())
    }

    fn punch(&mut self, td: usize, first: u64, count: u64) -> Result<(), VmmError> {
        for gfn in first..first + count {
            self.report.zaps += u64::from(self.tds[td].is_mapped(gfn)?);
            self.report.frees += u64::from(self.tds[td].frame(gfn)?.is_some());
        }
        self.report.zaps -= self.tds[td].punch(first, count, Steps::ALL)?;
        Ok(())
    }

    fn inject(&self, td: usize, page: Option<u64>, leaf: Leaf, action: Action, times: u32) {
        let fault = Fault { page, ..Fault::next(leaf, action) };
        self.host.module().inject(fault.of_td(self.tds[td].id().tdr).times(times));
    }

    /// One fault, and its repair.
    fn go_wrong(&mut self, episode: Episode) -> Result<(), VmmError> {
        *self.report.episodes.entry(episode).or_default() += 1;
        if episode == Episode::FreeOwned {
            return self.free_owned();
        }
        let td = self.rng.usize(0..self.tds.len());
        let gfn = self.mapped_page(td)?;
        match episode {
            Episode::FreeUnzapped => self.tds[td].punch(gfn, 1, Steps::NONE)?,
            Episode::SkipRemove => self.tds[td].punch(gfn, 1, Steps::UNTIL_TRACK)?,
            Episode::SkipWbinvd => self.tds[td].punch(gfn, 1, Steps::UNTIL_REMOVE)?,
            Episode::BlockFails => self.fail_and_punch(td, gfn, Leaf::MemRangeBlock)?,
            Episode::RemoveFails => self.fail_and_punch(td, gfn, Leaf::MemPageRemove)?,
            Episode::WbinvdFails => self.fail_and_punch(td, gfn, Leaf::PhymemPageWbinvd)?,
            Episode::ZapFails => {
                let leaf = if self.rng.bool() { Leaf::MemRangeBlock } else { Leaf::MemPageRemove };
                self.fail(td, gfn, leaf)?;
                self.tds[td].zap(gfn, 1, Steps::ALL)?
            }
            Episode::MapFails => {
                self.zap(td, gfn, false)?;
                let refusal = status::PAGE_METADATA_INCORRECT | status::operand::R8;
                self.inject(td, Some(gfn), Leaf::MemPageAug, Action::Fail(refusal), 1);
                u64::from(self.tds[td].fault(gfn)?.is_err())
            }
            Episode::DoubleMap => self.double_map(td, gfn)?,
            Episode::OutOfOrder => {
                self.inject(td, Some(gfn), Leaf::MemPageRemove, Action::Unchecked, 1);
                self.tds[td].zap(gfn, 1, Steps { block: false, ..Steps::ALL })?
            }
            Episode::FreeOwned => 0,
        };
        self.tds[td].repair()
    }

    /// A page is mapped at a second guest frame of the same or another TD, which then gives it up again.
    fn double_map(&mut self, first: usize, gfn: u64) -> Result<u64, VmmError> {
        let second = self.rng.usize(0..self.tds.len());
        let other = self.page_where(second, |td, gfn| Ok(td.frame(gfn)?.is_none()))?;
        let Some(other) = other else { return Ok(0) };
        if let Some(pfn) = self.tds[first].frame(gfn)? {
            let id = self.tds[first].id();
            // A refusal is in the log.
            let _ = self.tds[second].map_again(other, pfn, (id, gfn))?;
        }
        self.tds[second].zap(other, 1, Steps::UNTIL_REMOVE)?;
        self.zap(first, gfn, false)?;
        Ok(0)
    }

    /// A short-lived TD whose end goes wrong.
    fn free_owned(&mut self) -> Result<(), VmmError> {
        use ControlPage::{Sept, Tdcs, Tdr, Tdvpr, VcpuTdcx};
        let pages = [Sept, Tdcs, Tdr, Tdvpr, VcpuTdcx];
        let which = pages[self.rng.usize(0..pages.len())];
        let mut td = Td::create_numbered(self.host, self.next_index, 16, 1)?;
        self.next_index += 1;
        td.finalize()?;
        self.report.maps += u64::from(td.fault(FIRST_GFN)?.is_ok());
        td.teardown(Some(Flaw::FreeOwned(which)))
    }

    fn fail_and_punch(&mut self, td: usize, gfn: u64, leaf: Leaf) -> Result<u64, VmmError> {
        self.fail(td, gfn, leaf)?;
        self.tds[td].punch(gfn, 1, Steps::ALL)
    }

    /// Has a step fail: BUSY to the end, or refused. WBINVD knows only its frame, and is not repeated.
    fn fail(&mut self, td: usize, gfn: u64, leaf: Leaf) -> Result<(), VmmError> {
        if leaf == Leaf::PhymemPageWbinvd {
            let fault = Fault::next(leaf, Action::Fail(status::busy_of(leaf)));
            self.host.module().inject(Fault { page: self.tds[td].frame(gfn)?, ..fault });
        } else if self.rng.bool() {
            self.inject(td, Some(gfn), leaf, Action::Fail(status::busy_of(leaf)), 2);
        } else {
            let refusal = status::EPT_ENTRY_STATE_INCORRECT | status::operand::RCX;
            self.inject(td, Some(gfn), leaf, Action::Fail(refusal), 1);
        }
        Ok(())
    }

    /// A random mapped page of a TD; one is mapped if there is none.
    fn mapped_page(&mut self, td: usize) -> Result<u64, VmmError> {
        if let Some(gfn) = self.page_where(td, Td::is_mapped)? {
            return Ok(gfn);
        }
        self.map(td, FIRST_GFN, false)?;
        Ok(FIRST_GFN)
    }

    /// The first page after a random one that fits, if any does.
    fn page_where(
        &mut self,
        td: usize,
        fits: impl Fn(&Td<'h>, u64) -> Result<bool, VmmError>,
    ) -> Result<Option<u64>, VmmError> {
        let start = self.rng.u64(0..self.pages);
        for number in start..start + self.pages {
            let gfn = FIRST_GFN + number % self.pages;
            if fits(&self.tds[td], gfn)? {
                return Ok(Some(gfn));
            }
        }
        Ok(None)
    }
}
