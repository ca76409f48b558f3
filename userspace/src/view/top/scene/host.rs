//! The host as a whole, now and over time.

use septwatch_common::PageKind;

use crate::model::{accounting::Balance, histogram::Summary};

/// The kinds of frames, in the order of [`Host::lent`].
pub const KINDS: [PageKind; 6] =
    [PageKind::Leaf, PageKind::Sept, PageKind::Tdr, PageKind::Tdcs, PageKind::Tdvpr, PageKind::Tdcx];

/// The host as a whole.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// TDs that live.
    pub tds: u64,
    /// TDs that were seen so far.
    pub tds_seen: u64,
    /// Frames of 4 KiB that are lent now, by [`PageKind`].
    pub lent: [u64; 6],
    /// What happens now.
    pub rates: Rates,
    /// How long SEAMCALLs took so far, all leaves together; none: not measured.
    pub latency: Option<Summary>,
    /// Of all violations, those that are suspect.
    pub suspect: u64,
    /// Vital records.
    pub vital: Option<Balance>,
    /// Page records.
    pub pages: Option<Balance>,
    /// Frames outside of the ledger.
    pub outside: u64,
    /// SEAMCALLs whose arguments could not be read.
    pub unread: u64,
    /// Releases that may have passed unseen.
    pub missed_releases: u64,
    /// What of the watching does not work: why the verdict is `degraded`.
    pub degraded: Vec<String>,
    /// What septwatch itself costs.
    pub overhead: Option<Overhead>,
}

impl Host {
    /// The host in one line; `violations` are all that were found.
    pub fn verdict(&self, violations: u64) -> String {
        let suspect = match self.suspect {
            0 => String::new(),
            suspect => format!(", {suspect} of them suspect"),
        };
        let found = match violations {
            0 => String::new(),
            1 => format!("1 violation{suspect}"),
            _ => format!("{violations} violations{suspect}"),
        };
        match (found.is_empty(), self.degraded.as_slice()) {
            (true, []) => "all clear".to_owned(),
            (false, []) => found,
            (true, [why, ..]) => format!("degraded: {why}"),
            (false, [why, ..]) => format!("{found}; degraded: {why}"),
        }
    }
}

/// What happens, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// SEAMCALLs with a hook.
    pub calls: f64,
    /// TDH.MEM.PAGE.ADD and TDH.MEM.PAGE.AUG that succeeded.
    pub maps: f64,
    /// TDH.MEM.PAGE.REMOVE that succeeded.
    pub zaps: f64,
    /// Answers of TDX_OPERAND_BUSY.
    pub busy: f64,
    /// Answers that were neither success nor BUSY.
    pub errors: f64,
    /// Records that arrived.
    pub records: f64,
}

/// What septwatch costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overhead {
    /// CPU time of this process, in thousandths of one CPU.
    pub agent: f64,
    /// CPU time of the programs in the kernel, in thousandths of one CPU; none where the kernel does not say.
    pub programs: Option<f64>,
    /// Runs of them, per second.
    pub runs: Option<f64>,
    /// Memory of this process, in bytes.
    pub rss: u64,
    /// Cycles and instructions of this process, per second; or why not.
    pub counters: Option<Result<(f64, f64), String>>,
}

/// The host over one step of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// End of the step.
    pub time_ns: u64,
    /// What happened, per second.
    pub rates: Rates,
    /// Frames lent then.
    pub lent: u64,
    /// Violations in the step.
    pub violations: u64,
    /// Records lost in the step.
    pub lost: u64,
    /// Median and 99th percentile of SEAMCALLs' latencies, in ns; 0: not measured.
    pub p50_ns: u64,
    /// See `p50_ns`.
    pub p99_ns: u64,
}
