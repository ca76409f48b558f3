//! How the host stands, for others: from what the thread that watches puts down every second.

use std::sync::Arc;

use septwatch_common::{Life, Violation};

use crate::{
    collector::{
        metrics::About,
        snapshot::{STALE, Shared, Snapshot, TdRow},
    },
    fleet::envelope::{HostState, Origin, OutputState, PolicyState, TdState},
    here,
    hooks::table::HookSpec,
};

/// Knows what to tell.
pub(super) struct Teller {
    origin: Origin,
    shared: Arc<Shared>,
    about: About,
}

impl Teller {
    pub fn new(origin: Origin, shared: Arc<Shared>, about: &About) -> Self {
        Self { origin, shared, about: about.clone() }
    }

    /// How the host stands; none where the thread that watches has not put it down for a while: others are to see that
    /// nothing comes.
    pub fn state(&self, ended: bool) -> Option<HostState> {
        let (age, snapshot) = self.shared.newest()?;
        if age > STALE {
            return None;
        }
        let mut state = of_snapshot(&self.origin, &self.about, &snapshot)?;
        // Older than STALE it is not: that fits.
        state.wall_ns = here::now_ns().saturating_sub(age.as_nanos() as u64);
        state.ended = ended;
        state.outputs = self
            .shared
            .outputs()
            .into_iter()
            .map(|(name, counts)| {
                let counted = counts.counted();
                let (offered, delivered, lost) = (counted.offered, counted.delivered, counted.lost);
                (name.to_owned(), OutputState { offered, delivered, lost })
            })
            .collect();
        Some(state)
    }
}

fn of_snapshot(origin: &Origin, about: &About, snapshot: &Snapshot) -> Option<HostState> {
    let standing = snapshot.standing?;
    let violations = Violation::ALL.into_iter().zip(standing.counters.violations);
    let td = |row: &TdRow| TdState {
        td: row.td,
        comm: row.comm.clone(),
        lent_frames: row.lent,
        held_frames: row.held,
        violations: row.violations,
        suspect: row.suspect,
    };
    let missing =
        snapshot.hooks.iter().filter(|hook| hook.missing.is_some() && HookSpec::is_required(&hook.name));
    let policy = snapshot.policy.as_ref();
    Some(HostState {
        origin: origin.clone(),
        wall_ns: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: about.kernel.clone(),
        tdx_module: about.tdx_module.clone(),
        source: about.source.to_owned(),
        ended: false,
        tds: snapshot.tds.iter().map(|(life, tds)| (Life::name(*life).to_owned(), *tds)).collect(),
        lent_frames: snapshot.lent.iter().fold(0, |sum, lent| sum.saturating_add(*lent)),
        held_frames: snapshot.held.0,
        violations: violations
            .filter(|(_, count)| *count != 0)
            .map(|(violation, count)| (violation.name().to_owned(), count))
            .collect(),
        suspect: snapshot.suspect,
        last_violation_ns: Some(snapshot.last_violation_ns).filter(|ns| *ns != 0),
        vital_records: standing.vital,
        hooks_missing: missing.map(|hook| hook.name.clone()).collect(),
        policy: policy.map(|policy| PolicyState {
            name: policy.name.clone(),
            armed: policy.armed,
            gaps: policy.gaps as u64,
        }),
        outputs: std::collections::BTreeMap::new(),
        rows: snapshot.rows.iter().map(td).collect(),
    })
}
