//! How things stand, for whoever asks.

use std::path::PathBuf;

use serde::Serialize;

use super::{Actor, KernelSide};
use crate::policy::{keeper::Kept, latency::Latencies};

/// How things stand.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the policy.
    pub policy: String,
    /// Whether the agent may act.
    pub armed: bool,
    /// Folder of the audit log.
    pub audit: PathBuf,
    /// What is held.
    pub holds: Vec<HoldStatus>,
    /// Why that may not be all.
    pub keeper: Option<String>,
    /// How many are being told.
    pub notifies_in_flight: usize,
    /// How many were not told, because there were too many.
    pub notifies_dropped: u64,
    /// How long reactions took.
    pub latencies: Latencies,
}

/// How a TD is held.
#[derive(Clone, Debug, Serialize)]
pub struct HoldStatus {
    /// The descriptors of it.
    #[serde(flatten)]
    pub kept: Kept,
    /// What fallocate on its guest_memfd answers; none: it is not refused.
    pub errno: Option<u64>,
    /// How often it answered that.
    pub refused: u64,
    /// Frames that were released all the same.
    pub in_spite: u64,
}

impl Actor {
    /// How things stand.
    pub fn status(&self, kernel: &mut dyn KernelSide) -> Status {
        let kept = self.kept();
        let mut trouble = kept.as_ref().err().map(ToString::to_string);
        let mut kept = kept.unwrap_or_default();
        // Held by the kernel side, and nothing of it could be pinned.
        for td in self.told.keys().chain(self.in_spite.keys()) {
            if kept.iter().all(|kept| kept.td != *td) {
                kept.push(Kept { td: *td, ..Kept::default() });
            }
        }
        let mut status = |kept: Kept| {
            let held = kernel.held(kept.td).unwrap_or_else(|error| {
                trouble.get_or_insert_with(|| error.to_string());
                None
            });
            let held = held.filter(|held| held.errno != 0);
            HoldStatus {
                errno: held.map(|held| held.errno),
                refused: held.map_or(0, |held| held.refused),
                in_spite: self.in_spite.get(&kept.td).copied().unwrap_or(0),
                kept,
            }
        };
        let holds = kept.into_iter().map(&mut status).collect();
        Status {
            policy: self.policy.clone(),
            armed: self.armed,
            audit: self.shared.audit().folder().to_owned(),
            holds,
            keeper: trouble,
            notifies_in_flight: self.notifier.in_flight(),
            notifies_dropped: self.notifier.dropped(),
            latencies: self.latencies(),
        }
    }
}
