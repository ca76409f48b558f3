//! How a host stands, as the thread that watches puts it down every second: what metrics and health are told from.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use septwatch_common::{Leaf, Life};

use super::{http::Clients, outlet::Counts};
use crate::{
    locked::lock,
    model::{histogram::Buckets, windows::Span},
    recording::header::HookFact,
    source::{
        session::Standing,
        walk::{resync::Progress, schedule},
    },
};

/// Bytes of a frame.
pub const FRAME: u64 = 4096;

/// A TD, in metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdRow {
    /// Its number: never used twice while the ledger lives.
    pub td: u32,
    /// Name of the thread that it was first seen with.
    pub comm: String,
    /// Frames lent to it.
    pub lent: u64,
    /// Frames of it that are held.
    pub held: u64,
    /// Its violations.
    pub violations: u64,
    /// Its verdicts are suspect.
    pub suspect: bool,
}

/// The policy that is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its name.
    pub name: String,
    /// It acts, and does not only say what it would do.
    pub armed: bool,
    /// What of it this host cannot carry out.
    pub gaps: usize,
    /// Steps by reaction, permit (`do`, `dry`, `refused`) and result (`none` where there is none).
    pub steps: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

/// How a host stands.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Since when the kernel side counts, in ns since 1970.
    pub counted_since_ns: u64,
    /// What the kernel side counted; none: nothing is attached yet.
    pub standing: Option<Standing>,
    /// Hooks, and why one is missing.
    pub hooks: Arc<Vec<HookFact>>,
    /// TDs that are there, by how far their lives have come.
    pub tds: BTreeMap<Life, u64>,
    /// TDs that were seen since this process began.
    pub tds_seen: u64,
    /// Frames lent to all TDs, by `PageKind`.
    pub lent: [u64; 6],
    /// Frames of TDs that are held, and how many TDs those are.
    pub held: (u64, u64),
    /// The TDs that there are metrics of.
    pub rows: Vec<TdRow>,
    /// Violations that are suspect, since this process began.
    pub suspect: u64,
    /// When the last violation was, in ns since 1970; 0: none since this process began.
    pub last_violation_ns: u64,
    /// From violations in the kernel to this process; none: there were none.
    pub delays: Option<Buckets>,
    /// How long things stayed wrong.
    pub windows: Vec<(Span, Buckets)>,
    /// How long SEAMCALLs took.
    pub latencies: Vec<(Leaf, Buckets)>,
    /// The policy that is followed.
    pub policy: Option<PolicyRow>,
    /// How far TDs are taken over that ran already; none: nobody does.
    pub resync: Option<Progress>,
    /// How audits stand; none: there are none.
    pub audits: Option<schedule::Standing>,
}

/// The newest [`Snapshot`], for other threads.
#[derive(Debug, Default)]
pub struct Shared {
    newest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    outputs: Mutex<Vec<(&'static str, Arc<Counts>)>>,
    clients: OnceLock<Arc<Clients>>,
}

/// An age at which what the watching thread put down is no longer how the host stands: that thread hangs.
pub const STALE: Duration = Duration::from_secs(15);

impl Shared {
    /// Puts down how the host stands now.
    pub fn publish(&self, snapshot: Snapshot) {
        *lock(&self.newest) = Some((Instant::now(), Arc::new(snapshot)));
    }

    /// A server tells others what is shared, and counts them here. There is one at most.
    pub fn serves(&self, clients: Arc<Clients>) {
        self.clients.get_or_init(|| clients);
    }

    /// What the server counts of its clients; none: there is no server.
    pub fn clients(&self) -> Option<&Clients> {
        self.clients.get().map(Arc::as_ref)
    }

    /// The newest, and its age.
    pub fn newest(&self) -> Option<(Duration, Arc<Snapshot>)> {
        lock(&self.newest).as_ref().map(|(at, snapshot)| (at.elapsed(), Arc::clone(snapshot)))
    }

    /// An output whose counts are to be told.
    pub fn output(&self, name: &'static str, counts: Arc<Counts>) {
        lock(&self.outputs).push((name, counts));
    }

    /// The outputs.
    pub fn outputs(&self) -> Vec<(&'static str, Arc<Counts>)> {
        lock(&self.outputs).clone()
    }
}

/// The TDs that there are metrics of: at most `most`, those with violations first, then those with the most memory.
pub fn chosen(mut rows: Vec<TdRow>, most: usize) -> Vec<TdRow> {
    rows.sort_by_key(|row| std::cmp::Reverse((row.violations != 0, row.held != 0, row.lent, row.td)));
    rows.truncate(most);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ten_thousand_tds_the_worst_are_shown() {
        let row = |td: u32| TdRow {
            td,
            comm: String::new(),
            lent: u64::from(td % 977),
            held: 0,
            violations: u64::from(td == 4_711),
            suspect: false,
        };
        let chosen = chosen((1..=10_000).map(row).collect(), 3);
        let found: Vec<_> = chosen.iter().map(|row| (row.td == 4_711, row.lent)).collect();
        assert_eq!(found, [(true, 4_711 % 977), (false, 976), (false, 976)]);
    }
}
