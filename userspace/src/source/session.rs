//! The kernel side and the model of it, kept together: every event that arrives goes through here once.

use std::time::{Duration, Instant};

use septwatch_common::{Suspect, Td, Violation, config::Counters};

use super::{
    event::Event,
    kernel::{Kernel, KernelError},
    walk::{
        WalkError,
        resync::{self, Resync},
        schedule::Schedule,
    },
};
use crate::{
    hooks::attach::Runs,
    model::{Model, accounting::Balance, latency::Latencies, verdict::Verdict},
};

/// How long allocations stay watched after the last sign that a frame may come back too early.
const ALERT: Duration = Duration::from_secs(60);

/// How often what the kernel counts of the programs is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A running observation.
pub struct Session {
    // It ends before the programs go that it runs.
    resync: Option<Resync>,
    audits: Option<Schedule>,
    kernel: Kernel,
    model: Model,
    alert: Option<Instant>,
    /// When something was lent last.
    lent: Instant,
    /// How long after that releases are watched no more; `None`: always.
    rest: Option<Duration>,
    /// TDs that began before releases were watched; of them, those that were told.
    unwatched: [u64; 2],
    looked: Instant,
    /// Runs of the programs, as they were then.
    runs: Runs,
}

/// How an observation stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// What the kernel side counted.
    pub counters: Counters,
    /// Vital records.
    pub vital: Balance,
    /// Page records.
    pub pages: Balance,
    /// Releases that may have passed unseen: runs at the allocator's tracepoints that the kernel's recursion guard dropped,
    /// and TDs that began before these were attached.
    pub missed_releases: u64,
}

impl Session {
    /// Begins with programs that are attached. TDs and records that others have seen before are taken in.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn new(kernel: Kernel) -> Result<Self, KernelError> {
        let mut model = Model::default();
        model.accounting.resume(kernel.before());
        for td in kernel.tds()? {
            model.known(&td);
        }
        let alert = kernel.watches_allocations().then(Instant::now);
        let (resync, audits) = (None, None);
        let now = Instant::now();
        let runs = Runs::default();
        Ok(Self {
            resync,
            audits,
            kernel,
            model,
            alert,
            lent: now,
            rest: None,
            unwatched: [0; 2],
            looked: now,
            runs,
        })
    }

    /// Nothing lent, nothing paid: when no TD has had anything for this long, nothing is attached to the page allocator until
    /// one begins. `None`: all is always attached.
    pub fn rest_after(&mut self, rest: Option<Duration>) {
        self.rest = rest;
    }

    /// Begins to take over what is lent to TDs that run already.
    ///
    /// # Errors
    /// It cannot be done here; everything else goes on.
    pub fn resynchronise(&mut self) -> Result<(), WalkError> {
        self.resync = Some(Resync::begin(self.kernel.walker()?, resync::PERCENT));
        Ok(())
    }

    /// Compares the ledger with KVM from now on, after each span of this length, with so many percent of a CPU.
    ///
    /// # Errors
    /// It cannot be done here; everything else goes on.
    pub fn audit_every(&mut self, every: Duration, percent: u32) -> Result<(), WalkError> {
        self.audits = Some(Schedule::begin(self.kernel.walker()?, every, percent));
        Ok(())
    }

    /// What compares from time to time.
    pub fn audits(&self) -> Option<&Schedule> {
        self.audits.as_ref()
    }

    /// What takes TDs over, or has done so.
    pub fn resync(&self) -> Option<&Resync> {
        self.resync.as_ref()
    }

    /// The kernel side.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// The records of all TDs that the ledger knows, by their index.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn records(&self) -> Result<Vec<(u16, Td)>, KernelError> {
        self.kernel.records()
    }

    /// What events told so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The latencies that were measured since this was last asked.
    pub fn take_latencies(&mut self) -> Latencies {
        std::mem::take(&mut self.model.latencies)
    }

    /// Whether allocations are watched now.
    pub fn is_alert(&self) -> bool {
        self.kernel.watches_allocations()
    }

    /// Takes in what has arrived, and hands on each event with its verdict, if it is a violation.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn pump(&mut self, mut sink: impl FnMut(Event, Option<Verdict>)) -> Result<(), KernelError> {
        self.pump_one(true, &mut sink)?;
        self.pump_one(false, &mut sink)
    }

    /// The same for vital records alone, or for page records alone: the first are few, and who reacts to them does not
    /// wait for the others.
    ///
    /// # Errors
    /// As for [`Self::pump`].
    pub fn pump_one(
        &mut self,
        vital: bool,
        mut sink: impl FnMut(Event, Option<Verdict>),
    ) -> Result<(), KernelError> {
        let Self { kernel, model, alert, .. } = self;
        kernel.drain(vital, |event, needed| {
            // Before anything else: a TD that begins waits for it.
            if matches!(event, Event::Life(_)) {
                needed.releases()?;
            }
            let verdict = model.apply(&event);
            if verdict.as_ref().is_some_and(announces_release) {
                *alert = Some(Instant::now());
                // A frame is about to come back, or has: from now on allocations show who gets it. Before it is told,
                // for that takes its time.
                needed.allocations(true)?;
            }
            sink(event, verdict);
            Ok(())
        })
    }

    /// What is to be done from time to time: doubts that only userspace sees, and the end of an alert.
    ///
    /// # Errors
    /// The kernel side cannot be read or written.
    pub fn tend(&mut self) -> Result<(), KernelError> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        self.runs = self.kernel.runs()?;
        self.unwatched[0] = self.kernel.unwatched()?;
        if self.runs.missed_seamcalls != 0 {
            self.kernel.doubt(Suspect::MISSED)?;
        }
        let over = self.alert.is_some_and(|since| since.elapsed() > ALERT);
        if over && !self.kernel.has_open_window()? {
            self.alert = None;
            self.kernel.needed().allocations(false)?;
        }
        self.tend_releases()
    }

    /// TDs that began before releases were watched, since this was last asked; as [`Self::tend`] saw it.
    pub fn began_unwatched(&mut self) -> u64 {
        let [all, told] = &mut self.unwatched;
        *all - std::mem::replace(told, *all)
    }

    fn tend_releases(&mut self) -> Result<(), KernelError> {
        if !self.kernel.watches_releases() {
            // Its record was lost, and nobody was told.
            return if self.kernel.is_lent()? { self.kernel.needed().releases() } else { Ok(()) };
        }
        let walks = self.resync.as_ref().is_some_and(|resync| !resync.progress().finished);
        if walks || self.kernel.is_lent()? {
            self.lent = Instant::now();
        } else if self.rest.is_some_and(|rest| self.lent.elapsed() > rest) {
            self.kernel.rest()?;
        }
        Ok(())
    }

    /// How it stands.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn standing(&self) -> Result<Standing, KernelError> {
        self.standing_with(self.kernel.runs()?)
    }

    /// The same, with the runs of the programs as they were when [`Self::tend`] looked last; and these.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn standing_lately(&self) -> Result<(Standing, Runs), KernelError> {
        Ok((self.standing_with(self.runs)?, self.runs))
    }

    fn standing_with(&self, runs: Runs) -> Result<Standing, KernelError> {
        let counters = self.kernel.counters()?;
        let [vital, pages] = self.model.accounting.balance(&counters);
        Ok(Standing { counters, vital, pages, missed_releases: runs.missed_pages })
    }
}

/// Whether the allocator has, or may soon have, a frame that a TD holds.
fn announces_release(verdict: &Verdict) -> bool {
    matches!(
        verdict.violation,
        Violation::ZapFailed
            | Violation::FreedWhileMapped
            | Violation::FreedWhileBlocked
            | Violation::FreedWhileOwned
            | Violation::TeardownLeak
    )
}
