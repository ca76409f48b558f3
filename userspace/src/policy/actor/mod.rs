//! Carries decisions out: in their order, each with what came of it in the audit log.
//!
//! It waits for what it did to be seen: up to a second for a VMM to stop or to be frozen, five for it to end. Whom it tells is
//! told meanwhile.

mod holds;
mod shared;
mod status;

use std::{collections::BTreeMap, sync::Arc};

use septwatch_common::react::{Cordon, Held};

pub use holds::Released;
pub use status::{HoldStatus, Status};

use super::{
    audit::{Audit, AuditError, Done, Event, EventKind, Step, Who},
    decision::{Decision, Permit},
    keeper::Keeper,
    latency::Latencies,
    react::{
        self, ReactError, cordon, freeze, host::Host, log, notify::Notifier, panic, quarantine, signal,
        vmm::Vmm,
    },
    reaction::{Notify, Reaction},
    subject::Subject,
};
use crate::{model::verdict::Verdict, recording::header::Clock};
use shared::Shared;

/// What the programs in the kernel offer.
pub trait KernelSide {
    /// How a TD is held; none: it is not.
    ///
    /// # Errors
    /// It cannot be read.
    fn held(&mut self, td: u32) -> Result<Option<Held>, ReactError>;

    /// Holds a TD: fallocate on its guest_memfd is refused from now on.
    ///
    /// # Errors
    /// It cannot be written, or no program here could follow it.
    fn hold(&mut self, td: u32, held: Held) -> Result<(), ReactError>;

    /// Ends a TD's hold.
    ///
    /// # Errors
    /// It cannot be written.
    fn release(&mut self, td: u32) -> Result<(), ReactError>;

    /// Refuses new VMs from now on; with errno 0, no more.
    ///
    /// # Errors
    /// It cannot be written, or no program here could follow it.
    fn cordon(&mut self, cordon: Cordon) -> Result<(), ReactError>;

    /// Guest frames that are lent to a TD now.
    ///
    /// # Errors
    /// It cannot be read.
    fn lent(&mut self, td: u32) -> Result<u64, ReactError>;
}

/// Carries decisions out.
#[derive(Debug)]
pub struct Actor {
    policy: String,
    armed: bool,
    host: Host,
    keeper: Keeper,
    notifier: Notifier,
    shared: Arc<Shared>,
    /// Holds of the kernel side that are in the audit log: by the TD's number, since when.
    told: BTreeMap<u32, u64>,
    /// Inodes that were pinned before anything failed, by the TD's number.
    ready: BTreeMap<u32, usize>,
    /// Frames that were released in spite of a hold, by the TD's number.
    in_spite: BTreeMap<u32, u64>,
    /// A hold that only pins counts as done.
    degraded: bool,
}

impl Actor {
    /// For a policy of this name; writes down that it begins.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn new(policy: &str, armed: bool, audit: Audit, host: Host) -> Result<Self, AuditError> {
        let keeper = Keeper::at(&host.run);
        let actor = Self {
            policy: policy.to_owned(),
            armed,
            host,
            keeper,
            notifier: Notifier::default(),
            shared: Arc::new(Shared::new(audit)),
            told: BTreeMap::new(),
            ready: BTreeMap::new(),
            in_spite: BTreeMap::new(),
            degraded: false,
        };
        let detail = if armed { "armed" } else { "not armed: a dry run" };
        actor.event(EventKind::Started, Who::this(), detail)?;
        Ok(actor)
    }

    /// The same actor; with true, what this kernel cannot do of a reaction was accepted, and is told with what was done.
    #[must_use]
    pub fn degraded(mut self, degraded: bool) -> Self {
        self.degraded = degraded;
        self
    }

    /// Whether it may act.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// From now on it may act, or may not.
    ///
    /// # Errors
    /// The audit log cannot be written: then it may not act.
    pub fn arm(&mut self, armed: bool, who: Who) -> Result<(), AuditError> {
        self.armed = false;
        let kind = if armed { EventKind::Armed } else { EventKind::Disarmed };
        self.event(kind, who, "")?;
        self.armed = armed;
        Ok(())
    }

    /// The policy was read again and is followed from now on.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn reloaded(&mut self, policy: &str, who: Who) -> Result<(), AuditError> {
        policy.clone_into(&mut self.policy);
        self.event(EventKind::Reloaded, who, "")
    }

    /// The policy was to be read again, and the one before stays, for this reason.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn refused_reload(&mut self, why: &str, who: Who) -> Result<(), AuditError> {
        self.event(EventKind::RefusedReload, who, why)
    }

    /// Ends in good order: whoever is being told is waited for. What is held stays held.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn stop(&mut self) -> Result<(), AuditError> {
        self.notifier.finish();
        self.event(EventKind::Stopped, Who::this(), "")
    }

    /// Carries out what was decided about a violation. To be called for every violation, with nothing decided too: a frame
    /// that was released in spite of a hold is noticed here. Returns what is in the audit log.
    pub fn carry_out(
        &mut self,
        decisions: &[Decision],
        verdict: &Verdict,
        subject: &Subject,
        kernel: &mut dyn KernelSide,
    ) -> Vec<Step> {
        self.in_spite_of_hold(verdict, kernel);
        let mut outcomes = Vec::new();
        let mut before = None;
        for decision in decisions {
            let asked = Step::asked(&self.policy, decision, verdict, subject, now());
            let step = if decision.permit != Permit::Do {
                asked
            } else if decision.if_failed && before != Some((decision.place, Some(Done::Failed))) {
                let done_ns = asked.asked_ns;
                asked.with(Done::Skipped, "the step before did not fail".to_owned(), done_ns)
            } else if let Reaction::Notify(notify) = &decision.reaction {
                // Its line is written when it is over.
                let step = self.notify(notify, asked, verdict, subject);
                before = Some((decision.place, step.result));
                outcomes.push(step);
                continue;
            } else {
                self.take(decision, asked, verdict, subject, kernel, &mut outcomes)
            };
            before = Some((decision.place, step.result));
            // A failure to write has been said; the next that acts finds it out for itself.
            let _ = self.shared.step(&step, decision.reaction.acts() && decision.permit == Permit::Do);
            outcomes.push(step);
        }
        outcomes
    }

    /// Takes a step that is not about telling others.
    fn take(
        &mut self,
        decision: &Decision,
        asked: Step,
        verdict: &Verdict,
        subject: &Subject,
        kernel: &mut dyn KernelSide,
        outcomes: &mut Vec<Step>,
    ) -> Step {
        let acts = decision.reaction.acts();
        if acts && let Err(error) = self.shared.ready() {
            return asked.with(Done::Failed, format!("nothing is done, for {error}"), now());
        }
        let why = self.why(decision, verdict);
        let find = |host: &Host| Vmm::find(host, subject);
        let done = match &decision.reaction {
            Reaction::Log => log::log(&self.host, &self.policy, decision, verdict, subject),
            Reaction::Hold(hold) => self.hold(*hold, &asked, verdict, subject, kernel, outcomes),
            Reaction::Stop => find(&self.host).and_then(|vmm| signal::stop(&vmm)),
            Reaction::Freeze => find(&self.host).and_then(|vmm| freeze::freeze(&self.host, &vmm)),
            Reaction::Kill => find(&self.host).and_then(|vmm| self.kill(&vmm, verdict)),
            Reaction::UnsafeKill => find(&self.host).and_then(|vmm| signal::kill(&vmm)),
            Reaction::Quarantine => quarantine::quarantine(&self.host, verdict.pfn),
            Reaction::Cordon(cordon) => cordon::cordon(&self.host, *cordon, &why, kernel),
            Reaction::Panic => self.panic(&asked, &why),
            Reaction::Notify(_) => return asked,
        };
        match done {
            Ok(detail) => asked.with(Done::Done, detail, now()),
            Err(error) => asked.with(Done::Failed, error.to_string(), now()),
        }
    }

    /// Why something is done, for the kernel's log.
    fn why(&self, decision: &Decision, verdict: &Verdict) -> String {
        format!(
            "policy {} rule {}: {} TD {} pfn {} gfn {}",
            self.policy,
            decision.rule,
            verdict.violation.name(),
            verdict.td.map_or_else(|| "?".to_owned(), |td| td.to_string()),
            react::hex(verdict.pfn),
            react::hex(verdict.gfn)
        )
    }

    fn panic(&self, asked: &Step, why: &str) -> Result<String, ReactError> {
        // There is no time for a line afterwards.
        self.shared.step(&Step { detail: "sysrq follows".to_owned(), ..asked.clone() }, true)?;
        panic::panic(&self.host, &format!("septwatch: panic by {why}"))?;
        Ok(String::new())
    }

    /// Writes to the kernel's log that the programs in the kernel may bring the host down from now on: they cannot say so
    /// when they do.
    pub fn announce_panics(&self) {
        if let Err(error) = panic::announce(&self.host, &self.policy) {
            eprintln!(
                "septwatch: the kernel's log does not say that the policy may bring this host down: {error}"
            );
        }
    }

    fn notify(&self, notify: &Notify, asked: Step, verdict: &Verdict, subject: &Subject) -> Step {
        let message = shared::message(&asked, verdict, subject);
        let (shared, under_way) = (Arc::clone(&self.shared), asked.clone());
        let begun = self.notifier.begin(notify, message, move |told| {
            let step = match told {
                Ok(detail) => under_way.with(Done::Done, detail, now()),
                Err(error) => under_way.with(Done::Failed, error.to_string(), now()),
            };
            let _ = shared.step(&step, false);
        });
        match begun {
            Ok(()) => asked,
            Err(error) => {
                let step = asked.with(Done::Failed, error.to_string(), now());
                let _ = self.shared.step(&step, false);
                step
            }
        }
    }

    /// How long reactions took so far.
    pub fn latencies(&self) -> Latencies {
        self.shared.latencies()
    }

    fn event(&self, kind: EventKind, who: Who, detail: &str) -> Result<(), AuditError> {
        self.shared.event(Event::new(kind, Some(&self.policy), who, detail), true)
    }
}

fn now() -> u64 {
    Clock::now().monotonic_ns
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests;
