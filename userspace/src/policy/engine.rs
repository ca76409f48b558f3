//! From a verdict to decisions. It is pure: its time is that of the verdicts, and it does nothing.

use std::sync::Arc;

use super::{
    decision::{Decision, Dry, Permit, Refusal},
    file::{Policy, Rule},
    limits::{Acted, Rates, Td},
    matching::Fit,
    reaction::Reaction,
    subject::Subject,
};
use crate::model::verdict::Verdict;

/// Who would act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// The agent; true: somebody armed it.
    Agent(bool),
    /// Nobody: it happened long ago.
    Recording,
}

/// How often ladders may still act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// On the host.
    pub host: u32,
    /// On each TD that was acted on; the others have the policy's whole limit.
    pub tds: Vec<(Option<u32>, u32)>,
}

/// A policy at work.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    rates: Rates,
    /// What was done.
    done: Acted,
    /// What would have been done: a dry run has the same limits, and uses up none that are real.
    rehearsed: Acted,
}

impl Engine {
    /// A policy with which nothing was done yet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, rates: Rates::default(), done: Acted::default(), rehearsed: Acted::default() }
    }

    /// The policy.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What is to be done about a verdict: the ladders of all rules that are for it, step by step.
    pub fn decide(&mut self, verdict: &Verdict, subject: &Subject, armed: Armed) -> Vec<Decision> {
        let policy = Arc::clone(&self.policy);
        let mut decisions = Vec::new();
        for (place, rule) in (0..).zip(&policy.rules) {
            if rule.fits(verdict, subject) != Fit::Yes {
                continue;
            }
            if let Some(rate) = rule.rate
                && !self.rates.reached(verdict.td, place, rate, verdict.time_ns)
            {
                continue;
            }
            // One answer for all steps of the ladder that act: it counts once.
            let mut answer = None;
            for (step, of) in rule.ladder.iter().enumerate() {
                let permit = if !of.reaction.acts() {
                    told(armed)
                } else if let Some(refusal) = refused(&of.reaction, verdict, subject) {
                    Permit::Refused(refusal)
                } else {
                    answer.get_or_insert_with(|| self.ask(rule, place, verdict, armed)).clone()
                };
                let (reaction, if_failed) = (of.reaction.clone(), of.if_failed);
                decisions.push(Decision {
                    rule: rule.name.clone(),
                    place,
                    step,
                    if_failed,
                    reaction,
                    permit,
                });
            }
        }
        decisions
    }

    /// Names of the rules that may be for a verdict, and of which it cannot be told: they are not followed.
    pub fn undecided(&self, verdict: &Verdict, subject: &Subject) -> Vec<&str> {
        let undecided = self.policy.rules.iter().filter(|rule| rule.fits(verdict, subject) == Fit::Undecided);
        undecided.map(|rule| rule.name.as_str()).collect()
    }

    /// Whether a ladder may act, and if so, that it does.
    fn ask(&mut self, rule: &Rule, place: u32, verdict: &Verdict, armed: Armed) -> Permit {
        let (td, now_ns) = (verdict.td, verdict.time_ns);
        let dry = if self.policy.armed { dry(armed) } else { Some(Dry::Policy) };
        let acted = if dry.is_some() { &mut self.rehearsed } else { &mut self.done };
        let cool_down = u64::try_from(rule.cool_down.as_nanos()).unwrap_or(u64::MAX);
        if acted.last(td, place).is_some_and(|last_ns| now_ns.saturating_sub(last_ns) < cool_down) {
            return Permit::Refused(Refusal::CoolDown);
        }
        if acted.td_left(td, self.policy.td_limit, now_ns) == 0 {
            return Permit::Refused(Refusal::TdLimit);
        }
        if acted.host_left(self.policy.host_limit, now_ns) == 0 {
            return Permit::Refused(Refusal::HostLimit);
        }
        acted.push(td, place, now_ns);
        dry.map_or(Permit::Do, Permit::Dry)
    }

    /// Forgets a TD that is gone: its number does not come again. What was done to it still counts for the host.
    pub fn forget(&mut self, td: u32) {
        self.rates.forget(td);
        self.done.forget(td);
        self.rehearsed.forget(td);
    }

    /// How often ladders may still act at this time, in ns of CLOCK_MONOTONIC.
    pub fn limits_left(&self, now_ns: u64) -> Left {
        let td_left = |td: Td| (td, self.done.td_left(td, self.policy.td_limit, now_ns));
        Left {
            host: self.done.host_left(self.policy.host_limit, now_ns),
            tds: self.done.tds().map(td_left).collect(),
        }
    }

    /// Another policy that takes this one's place: what was done so far counts for it, too, and for its rules of the same
    /// names.
    pub fn replaced_by(&self, policy: Arc<Policy>) -> Self {
        let place = |old: u32| {
            let name = &self.policy.rules.get(old as usize)?.name;
            let new = policy.rules.iter().position(|rule| rule.name == *name)?;
            u32::try_from(new).ok()
        };
        let (rates, done, rehearsed) =
            (self.rates.moved(place), self.done.moved(place), self.rehearsed.moved(place));
        Self { rates, done, rehearsed, policy }
    }
}

/// Telling needs neither arms nor certainty, only somebody to tell.
fn told(armed: Armed) -> Permit {
    if armed == Armed::Recording { Permit::Dry(Dry::Recording) } else { Permit::Do }
}

fn dry(armed: Armed) -> Option<Dry> {
    match armed {
        Armed::Agent(true) => None,
        Armed::Agent(false) => Some(Dry::Agent),
        Armed::Recording => Some(Dry::Recording),
    }
}

/// Why a reaction cannot be taken, whatever the limits say.
fn refused(reaction: &Reaction, verdict: &Verdict, subject: &Subject) -> Option<Refusal> {
    if !verdict.suspect.is_certain() {
        return Some(Refusal::Suspect(verdict.suspect));
    }
    let process = match reaction {
        // The process of somebody else's TD is none of ours.
        Reaction::Hold(_) | Reaction::Stop | Reaction::Freeze | Reaction::Kill | Reaction::UnsafeKill => {
            verdict.td.is_some() && subject.td == verdict.td && subject.tgid.is_some()
        }
        _ => true,
    };
    (!process).then_some(Refusal::NoProcess)
}

#[cfg(test)]
mod tests;
