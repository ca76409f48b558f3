//! The stand-in for the VMM and for KVM: builds TDs, maps, zaps and frees their pages and ends them, call by call as
//! KVM of Linux 6.19 and later does (`arch/x86/kvm/vmx/tdx.c`), and misbehaves when told to.
//!
//! Whatever it does it writes down as a [`Truth`], with the module's state at that time.

mod build;
mod teardown;
#[cfg(test)]
mod tests;
mod truth;
mod zap;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use septwatch_common::{Leaf, Level};

use super::memory::{HostPage, HostPages, Memory, MemoryError, Pinned};
use super::module::{Config, FIRST_PRIVATE_HKID, HKIDS, Running, StartError, TdxTd, TdxVp, status};
use crate::locked::lock;

pub use crate::here::monotonic_ns as now_ns;
pub use teardown::{ControlPage, Flaw};
pub use truth::{Failed, Log, TdRef, Truth, What};
pub use zap::Steps;

use teardown::Remains;

/// First guest frame of every TD: 1 GiB.
pub const FIRST_GFN: u64 = 0x4_0000;

/// What KVM does or meets: done, or the SEAMCALL that failed. It is not an error of the stand-in.
pub type Outcome<T = ()> = Result<T, Failed>;

/// Why the stand-in cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The memory fails it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The module cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The module refused a step without which the stand-in cannot go on.
    #[error("{}: status {status:#018x}", leaf.name())]
    Refused {
        /// The step.
        leaf: Leaf,
        /// The module's answer.
        status: u64,
    },
    /// Every HKID is in use.
    #[error("no free HKID: {} TDs at a time", HKIDS - FIRST_PRIVATE_HKID)]
    NoHkid,
    /// The guest frame is not one of the TD.
    #[error("guest frame {gfn:#x} is not in the TD's memory")]
    Gfn {
        /// Which.
        gfn: u64,
    },
    /// What was asked for does not fit the page's state.
    #[error("guest frame {gfn:#x} is not {needed}")]
    Page {
        /// Which.
        gfn: u64,
        /// What it would have to be.
        needed: &'static str,
    },
}

/// The host: the module, the pages that KVM gets for itself, and the truth.
#[derive(Debug)]
pub struct Host {
    module: Running,
    pages: Mutex<HostPages>,
    hkids: Mutex<Vec<u16>>,
    next: AtomicU32,
    leaked: Mutex<Vec<Remains>>,
    log: Log,
    pinned: Pinned,
}

impl Host {
    /// Starts the module. `pages` bounds the control and S-EPT pages of all TDs together: about 20 and one per 2 MiB
    /// a TD. With `keep_all` the log keeps frees in good order too. While the host lives, the calling thread stays on
    /// one CPU, as must any other thread that handles its pages ([`Pinned`]).
    pub fn new(config: Config, pages: usize, keep_all: bool) -> Result<Self, VmmError> {
        Ok(Self {
            pinned: Pinned::here()?,
            pages: Mutex::new(HostPages::new(pages)?),
            module: Running::start(config)?,
            hkids: Mutex::new((FIRST_PRIVATE_HKID..HKIDS).rev().collect()),
            next: AtomicU32::new(0),
            leaked: Mutex::default(),
            log: Log::new(keep_all),
        })
    }

    /// The module, to be told to misbehave and to be asked what is true.
    pub fn module(&self) -> &Running {
        &self.module
    }

    /// What happened.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The pin of the thread that made this host: others pin themselves [beside](Pinned::beside) it.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    fn next_index(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn get_page(&self) -> Result<HostPage, VmmError> {
        Ok(lock(&self.pages).get()?)
    }

    /// What KVM does with most leaves: on BUSY it keeps the vCPUs out and tries once more
    /// (`tdh_do_no_vcpus`).
    fn once_more(&self, leaf: Leaf, mut call: impl FnMut() -> u64) -> Outcome {
        let mut status = call();
        if status::is_busy(status) {
            self.log.count_busy();
            status = call();
        }
        done(leaf, status)
    }
}

/// Success or the failed call, as of now.
fn done(leaf: Leaf, status: u64) -> Outcome {
    match status {
        status::SUCCESS => Ok(()),
        _ => Err(Failed { leaf, status, at_ns: now_ns() }),
    }
}

/// A step that must succeed.
fn must(leaf: Leaf, status: u64) -> Result<(), VmmError> {
    match status {
        status::SUCCESS => Ok(()),
        _ => Err(VmmError::Refused { leaf, status }),
    }
}

/// A page of the guest's memory, as the VMM and KVM's mirror of the S-EPT have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// No page.
    Empty,
    /// A page, not mapped.
    Present(u64),
    /// Mapped.
    Mapped(u64),
    /// A page that KVM has no mapping of any more, although its zap did not get to the end.
    Stranded(u64, Option<Failed>),
    /// Maps another slot's page: only by a module that lies.
    Alias(u64),
}

#[derive(Debug)]
struct Vcpu {
    vp: Box<TdxVp>,
    tdvpr: HostPage,
    tdcx: Vec<HostPage>,
}

/// An S-EPT page. A misbehaving VMM frees it early.
#[derive(Clone, Copy, Debug)]
struct SeptPage {
    page: HostPage,
    freed: bool,
}

/// A TD and the part of the VMM that serves it. End it with [`Td::teardown`]: dropping it frees the guest's pages
/// behind the module's back, unrecorded.
#[derive(Debug)]
pub struct Td<'h> {
    host: &'h Host,
    id: TdRef,
    hkid: u16,
    td: Box<TdxTd>,
    tdr: HostPage,
    tdcs: Vec<HostPage>,
    vcpus: Vec<Vcpu>,
    sept: BTreeMap<(Level, u64), SeptPage>,
    memory: Memory,
    slots: Vec<Slot>,
    finalized: bool,
    bugged: Option<Failed>,
    /// Pages that were freed while the module had them: guest frame, frame.
    abroad: Vec<(u64, u64)>,
}

impl Td<'_> {
    /// Who it is.
    pub fn id(&self) -> TdRef {
        self.id
    }

    /// The guest frames that it has.
    pub fn gfns(&self) -> std::ops::Range<u64> {
        FIRST_GFN..FIRST_GFN + self.slots.len() as u64
    }

    /// The first failure that KVM would have marked the VM bugged for (`KVM_BUG_ON`).
    pub fn bugged(&self) -> Option<Failed> {
        self.bugged
    }

    /// Where the guest's pages come from.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The frame of a guest frame, if it has one.
    pub fn frame(&self, gfn: u64) -> Result<Option<u64>, VmmError> {
        Ok(match self.slot(gfn)? {
            Slot::Empty => None,
            Slot::Present(pfn) | Slot::Mapped(pfn) | Slot::Stranded(pfn, _) | Slot::Alias(pfn) => Some(pfn),
        })
    }

    /// Whether KVM's mirror maps a guest frame.
    pub fn is_mapped(&self, gfn: u64) -> Result<bool, VmmError> {
        Ok(matches!(self.slot(gfn)?, Slot::Mapped(_) | Slot::Alias(_)))
    }

    fn index(&self, gfn: u64) -> Result<usize, VmmError> {
        let index = gfn.checked_sub(FIRST_GFN).map(|index| index as usize);
        index.filter(|index| *index < self.slots.len()).ok_or(VmmError::Gfn { gfn })
    }

    fn slot(&self, gfn: u64) -> Result<Slot, VmmError> {
        Ok(self.slots[self.index(gfn)?])
    }

    fn pointer(&mut self) -> *mut TdxTd {
        &raw mut *self.td
    }

    fn config(&self) -> &Config {
        self.host.module.config()
    }

    fn record(&self, at_ns: u64, what: What) {
        self.host.log.add(Truth { td: self.id, at_ns, what });
    }

    fn bug(&mut self, failed: Failed) {
        self.bugged.get_or_insert(failed);
    }
}
