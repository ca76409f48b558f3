//! TDs and SEAMCALLs: rows of their tables, and what is shown of the TD that is open.

use std::sync::Arc;

use septwatch_common::{Leaf, Life, PageKind, Status, Suspect};

use super::Rates;
use crate::model::{
    census::{Grid, States},
    histogram::{Octave, Summary},
};

/// A leaf: a row of its view.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafRow {
    /// Which.
    pub leaf: Leaf,
    /// Answers of success.
    pub ok: u64,
    /// Answers of TDX_OPERAND_BUSY: each is tried again.
    pub busy: u64,
    /// Any other.
    pub errors: u64,
    /// Calls per second, now.
    pub rate: f64,
    /// BUSY per second, now.
    pub busy_rate: f64,
    /// Statuses other than success with how often they came, the most frequent first. Without `Scene::about.no_calls` only.
    pub statuses: Vec<(Status, u64)>,
    /// How long it took.
    pub latency: Option<Summary>,
    /// The same by powers of two.
    pub octaves: Vec<Octave>,
}

impl LeafRow {
    /// All calls.
    pub fn calls(&self) -> u64 {
        self.ok.saturating_add(self.busy).saturating_add(self.errors)
    }
}

/// A TD: a row of its view.
#[derive(Clone, Debug, PartialEq)]
pub struct TdRow {
    /// Its number.
    pub id: u32,
    /// Its name, where the VMM's command line, libvirt or Kata tells it.
    pub name: Option<Arc<str>>,
    /// cgroup v2 path of the VMM.
    pub cgroup: Option<Arc<str>>,
    /// Process of the VMM.
    pub tgid: u32,
    /// Name of its thread.
    pub comm: Arc<str>,
    /// Frame of the TDR.
    pub tdr: u64,
    /// Host key id.
    pub hkid: u16,
    /// How far its life has come.
    pub life: Life,
    /// Why its verdicts are suspect.
    pub suspect: Suspect,
    /// When it was first seen, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// Frames lent to it, by [`PageKind`].
    pub frames: [u64; 6],
    /// What happens now.
    pub rates: Rates,
    /// Zaps of it that failed.
    pub failed_zaps: u64,
    /// Violations of it.
    pub violations: u64,
    /// Guest frames that a hold keeps from coming back; none: it is not held.
    pub held: Option<u64>,
    /// When KVM called its VM bugged, in ns of CLOCK_MONOTONIC.
    pub bugged_ns: Option<u64>,
}

impl TdRow {
    /// Private memory: frames of the guest.
    pub fn private(&self) -> u64 {
        self.frames[PageKind::Leaf as usize]
    }

    /// All frames lent to it.
    pub fn lent(&self) -> u64 {
        self.frames.iter().fold(0, |sum, frames| sum.saturating_add(*frames))
    }
}

/// More about one TD.
#[derive(Clone, Debug, Default)]
pub struct TdDetail {
    /// Its number.
    pub id: u32,
    /// Its guest frames.
    pub grid: Grid,
    /// Its memory over time, oldest first.
    pub states: Vec<States>,
    /// Its SEAMCALLs.
    pub leaves: Vec<LeafRow>,
    /// Pages added before it ran (TDH.MEM.PAGE.ADD), in frames.
    pub added: u64,
    /// Frames that became private while it ran (TDH.MEM.PAGE.AUG).
    pub to_private: u64,
    /// Frames that were taken back (TDH.MEM.PAGE.REMOVE): to shared, or for good.
    pub to_shared: u64,
    /// Frames that were lent to it when its HKID was freed: what teardown has to take back.
    pub lent_at_key_free: u64,
    /// When its HKID was freed, in ns of CLOCK_MONOTONIC: teardown goes on from there.
    pub key_freed_ns: Option<u64>,
    /// When its VM was destroyed.
    pub destroyed_ns: Option<u64>,
    /// When its last vCPU was out of the guest after it was bugged.
    pub vcpus_out_ns: Option<u64>,
}
