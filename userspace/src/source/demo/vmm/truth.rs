//! What really happened: the list that findings are held against.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use septwatch_common::{Leaf, Level};

use crate::source::demo::module::{Frame, PageKind};

/// A TD: its number in the order of creation, and the frame of its TDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TdRef {
    /// From 0; the same in every run with the same seed.
    pub index: u32,
    /// What the TD is known by.
    pub tdr: u64,
}

/// A SEAMCALL that did not succeed, after the one retry that BUSY gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which leaf.
    pub leaf: Leaf,
    /// Its status.
    pub status: u64,
    /// When it had returned (CLOCK_MONOTONIC).
    pub at_ns: u64,
}

/// Something that happened to a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Which TD.
    pub td: TdRef,
    /// When (CLOCK_MONOTONIC): for a free just before the system call, else just after the SEAMCALL.
    pub at_ns: u64,
    /// What.
    pub what: What,
}

/// The kinds of truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A page was given to the page allocator.
    Freed {
        /// Its frame.
        pfn: u64,
        /// What it was used for.
        kind: PageKind,
        /// The (first) guest frame that it served, for leaves and S-EPT pages.
        gfn: Option<u64>,
        /// What the module had it as, just before.
        state: Frame,
        /// The failed step of its zap or reclaim, if one failed before.
        after_failed: Option<Failed>,
        /// When the system call that freed it had returned.
        done_ns: u64,
    },
    /// A step of a zap failed. KVM gives up there, or after the next step if it was TRACK.
    ZapFailed {
        /// Guest frame.
        gfn: u64,
        /// Size of the leaf.
        level: Level,
        /// Frame.
        pfn: u64,
        /// The step.
        failed: Failed,
    },
    /// A page could not be given to the module.
    MapFailed {
        /// Guest frame; the first that the page would serve, for an S-EPT page.
        gfn: u64,
        /// Level of the S-EPT entry.
        level: Level,
        /// Frame.
        pfn: u64,
        /// The step.
        failed: Failed,
    },
    /// The module mapped a frame that was mapped already.
    DoubleMap {
        /// The frame.
        pfn: u64,
        /// The guest frame of the second mapping (in [`Truth::td`]).
        gfn: u64,
        /// TD and guest frame of the first.
        first: (TdRef, u64),
    },
    /// A leaf was called although one that must come before it was left out.
    OutOfOrder {
        /// Guest frame.
        gfn: u64,
        /// Frame.
        pfn: u64,
        /// The leaf.
        leaf: Leaf,
        /// What was left out.
        missing: Leaf,
        /// What the module said: 0 only if it was told to let it pass.
        status: u64,
    },
    /// A control or S-EPT page was neither reclaimed nor freed when its TD ended.
    Leaked {
        /// Frame.
        pfn: u64,
        /// What it is.
        kind: PageKind,
        /// The RECLAIM, if it was tried.
        failed: Option<Failed>,
    },
}

impl What {
    /// Whether this is anything but the free of a page that nobody owned any more.
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Self::Freed { state: Frame::Free, .. })
    }
}

/// The truths so far, from all threads. Frees in good order are only counted, unless asked for: a storm has hundreds
/// of thousands.
#[derive(Debug, Default)]
pub struct Log {
    truths: Mutex<Vec<Truth>>,
    keep_all: bool,
    clean_frees: AtomicU64,
    busy: AtomicU64,
}

impl Log {
    pub(super) fn new(keep_all: bool) -> Self {
        Self { keep_all, ..Self::default() }
    }

    pub(super) fn add(&self, truth: Truth) {
        if !truth.what.is_fault() {
            self.clean_frees.fetch_add(1, Ordering::Relaxed);
            if !self.keep_all {
                return;
            }
        }
        self.truths.lock().unwrap_or_else(PoisonError::into_inner).push(truth);
    }

    pub(super) fn count_busy(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// The truths, in the order in which they were found out, which is each TD's own.
    pub fn take(&self) -> Vec<Truth> {
        std::mem::take(&mut self.truths.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pages freed that nobody owned any more.
    pub fn clean_frees(&self) -> u64 {
        self.clean_frees.load(Ordering::Relaxed)
    }

    /// Calls that were answered BUSY.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }
}
