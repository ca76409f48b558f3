//! What arrives goes to the outputs, and every second it is put down how the host stands.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use septwatch_common::Life;

use super::{Collecting, systemd::Systemd};
use crate::{
    collector::{
        message::{Message, Messages},
        snapshot::{FRAME, PolicyRow, Snapshot, TdRow, chosen},
    },
    commands::{live::Sink, policing::Guard},
    here::monotonic_ns,
    model::{
        histogram::{Spans, Summary},
        verdict::Verdict,
    },
    policy::audit::{Done, Step},
    recording::header::{Clock, HookFact},
    source::{
        event::Event,
        session::Session,
        walk::{resync::Resync, schedule::Schedule},
    },
    view::{lines::span, stack::Places, top::columns::bytes},
};

/// How often it is put down how the host stands.
const LOOK: Duration = Duration::from_secs(1);

/// Hands on what arrives.
pub struct Watched {
    collecting: Collecting,
    hooks: Arc<Vec<HookFact>>,
    tds: usize,
    messages: Messages,
    systemd: Systemd,
    looked: Option<Instant>,
    counted_since_ns: u64,
    last_violation_ns: u64,
    delays: Spans,
    steps: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

impl Watched {
    /// Begins; `tds`: so many have metrics of their own.
    pub fn begin(collecting: Collecting, hooks: Vec<HookFact>, tds: usize) -> Self {
        Self {
            collecting,
            hooks: Arc::new(hooks),
            tds,
            messages: Messages::here(),
            systemd: Systemd::here(),
            looked: None,
            counted_since_ns: 0,
            last_violation_ns: 0,
            delays: Spans::default(),
            steps: BTreeMap::new(),
        }
    }

    /// Everything is attached: others may know.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn ready(&mut self, session: &mut Session, guard: Option<&mut Guard>) -> Result<()> {
        // Once: clocks that are set meanwhile must not move a beginning.
        let now = Clock::now();
        let age = now.boottime_ns.saturating_sub(session.kernel().loaded_ns()?);
        self.counted_since_ns = now.realtime_ns.saturating_sub(age);
        self.look(session, guard)?;
        give_back();
        self.systemd.ready();
        Ok(())
    }

    /// Ends the outputs, after what waits was passed on.
    pub fn end(mut self, session: &mut Session, guard: Option<&mut Guard>) {
        self.systemd.stopping();
        // How it stood in the end.
        if let Err(error) = self.look(session, guard) {
            eprintln!("septwatch: {error:#}");
        }
        let delays = self.delays.summary().map(|delays| ("this agent", delays));
        let shared = Arc::clone(&self.collecting.shared);
        self.collecting.end();
        let outputs = shared.outputs().into_iter();
        let outputs = outputs.filter_map(|(name, counts)| Some((name, counts.delays().summary()?)));
        for (to, delays) in delays.into_iter().chain(outputs) {
            let Summary { count, p50_ns, p99_ns, max_ns, .. } = delays;
            let [p50, p99, most] = [p50_ns, p99_ns, max_ns].map(span);
            eprintln!(
                "septwatch: from {count} violations to {to}: half within {p50}, 99 % within {p99}, all within {most}"
            );
        }
    }

    fn offer(&mut self, message: &Arc<Message>) {
        if let Some(bus) = &mut self.collecting.bus {
            bus.offer(message);
        }
        self.collecting.outlets.iter().for_each(|outlet| outlet.offer(message));
    }

    fn look(&mut self, session: &mut Session, guard: Option<&mut Guard>) -> Result<()> {
        self.looked = Some(Instant::now());
        self.messages.set_clock();
        let snapshot = self.snapshot(session, guard)?;
        self.systemd.status(status(&snapshot));
        self.collecting.shared.publish(snapshot);
        Ok(())
    }

    fn snapshot(&self, session: &mut Session, guard: Option<&mut Guard>) -> Result<Snapshot> {
        let held = session.kernel().reactions().in_force()?;
        let held: HashMap<u32, u64> = held.into_iter().map(|(td, held)| (td, held.frames)).collect();
        let records = session.records()?;
        let (standing, _) = session.standing_lately()?;
        let mut snapshot = Snapshot {
            counted_since_ns: self.counted_since_ns,
            standing: Some(standing),
            hooks: Arc::clone(&self.hooks),
            held: (held.values().sum(), held.len() as u64),
            last_violation_ns: self.last_violation_ns,
            delays: self.delays.buckets(),
            ..Snapshot::default()
        };
        let model = session.model();
        let mut rows = Vec::new();
        for (_, record) in records {
            for (sum, frames) in snapshot.lent.iter_mut().zip(record.frames) {
                *sum = sum.saturating_add(frames);
            }
            let Some(life) = Life::from_number(record.life).filter(|life| *life != Life::Gone) else {
                continue;
            };
            *snapshot.tds.entry(life).or_default() += 1;
            let known = model.tds.get(&record.id);
            rows.push(TdRow {
                td: record.id,
                comm: known.map(|td| td.comm.clone()).unwrap_or_default(),
                lent: record.lent(),
                held: held.get(&record.id).copied().unwrap_or(0),
                violations: known.map_or(0, |td| td.violations),
                suspect: !record.suspect.is_certain(),
            });
        }
        snapshot.rows = chosen(rows, self.tds);
        snapshot.tds_seen = model.tds_seen;
        snapshot.suspect = model.suspect;
        snapshot.resync = session.resync().map(Resync::progress);
        snapshot.audits = session.audits().map(Schedule::standing);
        snapshot.windows = model.windows.buckets().collect();
        snapshot.latencies = model.latencies.buckets().collect();
        snapshot.policy = guard.map(|guard| PolicyRow {
            name: guard.policy().name.clone(),
            armed: guard.is_armed(),
            gaps: guard.gaps().len(),
            steps: self.steps.clone(),
        });
        Ok(snapshot)
    }
}

/// Memory that starting took goes back to the kernel: the types of a whole kernel, and more, are not needed any more, and
/// the allocator would keep their room for as long as the agent lives.
fn give_back() {
    // SAFETY: takes a number, and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// For `systemctl status`.
fn status(snapshot: &Snapshot) -> String {
    let tds: u64 = snapshot.tds.values().sum();
    let lent: u64 = snapshot.lent.iter().sum();
    let counters = snapshot.standing.map(|standing| standing.counters);
    let violations: u64 = counters.map_or(0, |counters| counters.violations.iter().sum());
    let lost = counters.map_or(0, |counters| counters.vital.lost);
    let policy = match &snapshot.policy {
        Some(policy) if policy.armed => format!("; policy {} armed", policy.name),
        Some(policy) => format!("; policy {}, a dry run", policy.name),
        None => String::new(),
    };
    format!(
        "{violations} violations, {lost} lost; {tds} TDs with {}{policy}",
        bytes(lent.saturating_mul(FRAME))
    )
}

impl Sink for Watched {
    fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) -> Result<()> {
        if let Some(message) = self.messages.event(event, found) {
            if let Some((verdict, _)) = found {
                self.last_violation_ns = message.wall_ns;
                self.delays.record(monotonic_ns().saturating_sub(verdict.time_ns));
            }
            self.offer(&message);
        }
        Ok(())
    }

    fn reaction(&mut self, step: &Step) -> Result<()> {
        let result = match step.result {
            Some(Done::Done) => "done",
            Some(Done::Failed) => "failed",
            Some(Done::Skipped) => "skipped",
            None => "none",
        };
        *self.steps.entry((step.reaction, step.permit, result)).or_default() += 1;
        let message = self.messages.step(step);
        self.offer(&message);
        Ok(())
    }

    fn pumped(&mut self, session: &mut Session, guard: Option<&mut Guard>) -> Result<()> {
        self.systemd.lives();
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.look(session, guard)?;
        }
        Ok(())
    }

    fn reload(&mut self) -> Result<()> {
        self.systemd.reloading();
        self.collecting.reload();
        Ok(())
    }

    fn reloaded(&mut self) -> Result<()> {
        self.systemd.ready();
        Ok(())
    }
}
