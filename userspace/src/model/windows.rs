//! How long things stay wrong: from a failing SEAMCALL to what KVM makes of it, and from a release to its end.
//!
//! This is the "small window" around a dying VM, in figures. Spans are measured between events on one clock
//! (CLOCK_MONOTONIC), in ns.

use std::collections::{BTreeMap, HashMap};

use septwatch_common::{Violation, kvm::VmStage, wire::VmLife};
use serde::{Serialize, Serializer};

use super::{
    histogram::{Buckets, Spans, Summary},
    verdict::Verdict,
};

/// A span that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// From the failing step of a zap to the release of its frame.
    FailedZapToRelease,
    /// From a frame's release to its reuse.
    ReleaseToReuse,
    /// From a frame's release to the destruction of its VM.
    ReleaseToDeath,
    /// From the SEAMCALL that failed to KVM calling the VM bugged.
    FailureToBugged,
    /// From there to the last vCPU being out of the guest.
    BuggedToVcpusOut,
    /// From KVM calling the VM bugged to the first release of a frame that is lent to it.
    BuggedToFirstRelease,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::FailedZapToRelease,
        Self::ReleaseToReuse,
        Self::ReleaseToDeath,
        Self::FailureToBugged,
        Self::BuggedToVcpusOut,
        Self::BuggedToFirstRelease,
    ];

    /// Name for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailedZapToRelease => "failed-zap-to-release",
            Self::ReleaseToReuse => "release-to-reuse",
            Self::ReleaseToDeath => "release-to-death",
            Self::FailureToBugged => "failure-to-bugged",
            Self::BuggedToVcpusOut => "bugged-to-vcpus-out",
            Self::BuggedToFirstRelease => "bugged-to-first-release",
        }
    }

    /// The same in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::FailedZapToRelease => "from the failed step of a zap to the release",
            Self::ReleaseToReuse => "from the release to the reuse",
            Self::ReleaseToDeath => "from the release to the VM's death",
            Self::FailureToBugged => "from the failing SEAMCALL to vm_bugged",
            Self::BuggedToVcpusOut => "from vm_bugged to the last vCPU out",
            Self::BuggedToFirstRelease => "from vm_bugged to the first page freed",
        }
    }
}

/// Frames of one TD of which the release is remembered.
const FRAMES: usize = 1 << 20;

/// What of a TD is still open.
#[derive(Clone, Debug, Default)]
struct Open {
    bugged_ns: Option<u64>,
    first_release_seen: bool,
    /// Released, and not known to be reused: frame, and when.
    released: HashMap<u64, u64>,
}

/// The spans that were seen.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    spans: BTreeMap<Span, Spans>,
    tds: HashMap<u32, Open>,
}

impl Windows {
    fn record(&mut self, span: Span, ns: u64) {
        self.spans.entry(span).or_default().record(ns);
    }

    /// Takes a violation in.
    pub fn verdict(&mut self, verdict: &Verdict) {
        let Some(td) = verdict.td else { return };
        match verdict.violation {
            Violation::VmBugged => {
                self.tds.entry(td).or_default().bugged_ns = Some(verdict.time_ns);
                if let Some(since) = verdict.since_failed_ns {
                    self.record(Span::FailureToBugged, since);
                }
            }
            Violation::FreedWhileMapped
            | Violation::FreedWhileBlocked
            | Violation::FreedWhileOwned
            | Violation::FreedUnflushed => self.released(td, verdict),
            Violation::ReusedWhileMapped => {
                if let Some(window) = verdict.window_ns {
                    self.record(Span::ReleaseToReuse, window);
                }
                if let (Some(open), Some(pfn)) = (self.tds.get_mut(&td), verdict.pfn) {
                    open.released.remove(&pfn);
                }
            }
            _ => {}
        }
    }

    fn released(&mut self, td: u32, verdict: &Verdict) {
        if let Some(since) = verdict.since_failed_ns {
            self.record(Span::FailedZapToRelease, since);
        }
        let open = self.tds.entry(td).or_default();
        let held = verdict.violation != Violation::FreedUnflushed;
        if let Some(pfn) = verdict.pfn.filter(|_| held && open.released.len() < FRAMES) {
            open.released.insert(pfn, verdict.time_ns);
        }
        if open.first_release_seen {
            return;
        }
        let Some(bugged_ns) = open.bugged_ns else { return };
        open.first_release_seen = true;
        self.record(Span::BuggedToFirstRelease, verdict.time_ns.saturating_sub(bugged_ns));
    }

    /// Takes a stage of a VM's life in.
    pub fn vm(&mut self, event: &VmLife) {
        let now = event.header.time_ns;
        match VmStage::from_number(event.stage) {
            Some(VmStage::VcpusOut) if event.bugged_ns != 0 => {
                self.record(Span::BuggedToVcpusOut, now.saturating_sub(event.bugged_ns));
            }
            Some(VmStage::Destroyed) => {
                for released in
                    self.tds.remove(&event.id).into_iter().flat_map(|open| open.released.into_values())
                {
                    self.record(Span::ReleaseToDeath, now.saturating_sub(released));
                }
            }
            _ => {}
        }
    }

    /// Nothing more is told of this TD.
    pub fn forget(&mut self, td: u32) {
        self.tds.remove(&td);
    }

    /// The spans that were seen, summed up.
    pub fn summaries(&self) -> impl Iterator<Item = (Span, Summary)> {
        self.spans.iter().filter_map(|(span, spans)| Some((*span, spans.summary()?)))
    }

    /// The spans that were seen, between fixed bounds.
    pub fn buckets(&self) -> impl Iterator<Item = (Span, Buckets)> {
        self.spans.iter().filter_map(|(span, spans)| Some((*span, spans.buckets()?)))
    }
}

/// One object: a summary by the span's name; spans that were not seen are not there.
impl Serialize for Windows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.summaries().map(|(span, summary)| (span.name(), summary)))
    }
}

#[cfg(test)]
mod tests {
    use septwatch_common::{
        Leaf,
        wire::{Header, Kind, VERSION, ViolationEvent},
        zap::Zap,
    };
    use zerocopy::FromZeros as _;

    use super::*;

    fn header(time_ns: u64, kind: Kind) -> Header {
        Header { time_ns, seq: 0, tgid: 1, cpu: 0, kind: kind as u8, version: VERSION }
    }

    fn violation(violation: Violation, time_ns: u64, pfn: u64, released_ns: u64) -> Option<Verdict> {
        let mut event = ViolationEvent::new_zeroed();
        event.header = header(time_ns, Kind::Violation);
        event.violation = violation as u8;
        event.td_id = 1;
        event.pfn = pfn;
        event.released_ns = released_ns;
        event.zap = Zap {
            failed_ns: 1_000,
            failed_status: 1,
            failed_leaf: Leaf::MemPageRemove as u8,
            ..Zap::default()
        };
        Verdict::of(&event)
    }

    fn vm(stage: VmStage, time_ns: u64) -> VmLife {
        let mut event = VmLife::new_zeroed();
        event.header = header(time_ns, Kind::VmLife);
        event.bugged_ns = 2_000;
        event.id = 1;
        event.stage = stage as u8;
        event
    }

    #[test]
    fn every_span_is_from_its_first_end_to_its_last() {
        use Violation::{FreedWhileBlocked, ReusedWhileMapped, VmBugged};
        let mut windows = Windows::default();
        for found in [
            violation(VmBugged, 2_000, u64::MAX, 0),
            violation(FreedWhileBlocked, 5_000, 7, 5_000),
            violation(FreedWhileBlocked, 6_000, 8, 6_000),
            violation(ReusedWhileMapped, 6_400, 7, 5_000),
        ] {
            windows.verdict(&found.unwrap_or_else(|| unreachable!("a violation of a known number")));
        }
        windows.vm(&vm(VmStage::VcpusOut, 2_500));
        windows.vm(&vm(VmStage::Destroyed, 10_000));
        let seen: Vec<_> = windows
            .summaries()
            .map(|(span, summary)| (span, summary.count, summary.min_ns.next_multiple_of(10)))
            .collect();
        assert_eq!(
            seen,
            [
                (Span::FailedZapToRelease, 2, 4_000),
                (Span::ReleaseToReuse, 1, 1_400),
                (Span::ReleaseToDeath, 1, 4_000),
                (Span::FailureToBugged, 1, 1_000),
                (Span::BuggedToVcpusOut, 1, 500),
                (Span::BuggedToFirstRelease, 1, 3_000),
            ]
        );
    }
}
