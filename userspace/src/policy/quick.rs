//! What the kernel side must do at once, compiled for it beforehand: the programs follow it at the moment in which they
//! find a violation, and go on following it when the agent is dead.

use septwatch_common::{
    Status,
    react::{HOLD, PANIC, QuickRule, TdRules},
};

use super::{
    engine::Engine,
    file::{Confidence, Policy, Rule},
    matching::Fit,
    reaction::{Hold, Reaction},
    subject::Subject,
};

/// What the kernel side does of a rule's ladder: bits of [`HOLD`] and [`PANIC`].
///
/// A hold early in time harms nothing. A panic ends all: it is the kernel's only if no step that acts but a hold comes
/// before it. Steps for when the one before failed are the agent's: the programs do not know what failed.
pub fn does(rule: &Rule) -> u64 {
    if rule.rate.is_some() || rule.confidence == Confidence::Suspect {
        return 0;
    }
    let anyway = || rule.ladder.iter().filter(|step| step.acts_anyway());
    let is_hold = |reaction: &Reaction| matches!(reaction, Reaction::Hold(_));
    let hold = if anyway().any(|step| is_hold(&step.reaction)) { HOLD } else { 0 };
    let next = anyway().find(|step| !is_hold(&step.reaction));
    let panic = if next.is_some_and(|step| step.reaction == Reaction::Panic) { PANIC } else { 0 };
    hold | panic
}

/// The rule of the policy, from 0, of each rule of the kernel side: by status one.
pub fn places(policy: &Policy) -> Vec<u32> {
    let quick = (0..).zip(&policy.rules).filter(|(_, rule)| does(rule) != 0);
    quick.flat_map(|(place, rule)| std::iter::repeat_n(place, rule.statuses.len().max(1))).collect()
}

/// The rules of the kernel side, in the order of [`places`]. To be called for an agent that is armed, and again when limits
/// change; `now_ns` is of CLOCK_MONOTONIC. None where the policy is a dry run.
///
/// They share out what the host's limit leaves. The limit of a TD needs no share: a TD is held once, and a host goes down
/// once.
pub fn compile(policy: &Policy, engine: &Engine, now_ns: u64) -> Vec<QuickRule> {
    if !policy.armed {
        return Vec::new();
    }
    let places = places(policy);
    let left = u64::from(engine.limits_left(now_ns).host);
    let many = places.len() as u64;
    let quick = policy.rules.iter().filter(|rule| does(rule) != 0).flat_map(|rule| {
        let any = [Status::SUCCESS];
        let statuses = if rule.statuses.is_empty() { any.to_vec() } else { rule.statuses.clone() };
        statuses.into_iter().map(move |status| QuickRule {
            violations: rule.violations,
            leaves: rule.leaves,
            does: does(rule),
            errno: hold(rule).map_or(0, |hold| u64::from(hold.errno.raw_os_error().unsigned_abs())),
            left: 0,
            status: status.0,
            chosen: u64::from(rule.td.is_some()),
        })
    });
    (0..).zip(quick).map(|(place, rule)| QuickRule { left: share(left, many, place), ..rule }).collect()
}

/// The part of the one at this place when so many share.
fn share(left: u64, many: u64, place: u64) -> u64 {
    left / many + u64::from(place < left % many)
}

/// Which rules of the kernel side a TD is chosen for.
pub fn chosen(policy: &Policy, subject: &Subject) -> TdRules {
    let fits = |rule: &Rule| rule.td.as_ref().is_some_and(|td| td.fits(subject) == Fit::Yes);
    let bits = (0..64_u32).zip(places(policy)).filter(|(_, place)| fits(&policy.rules[*place as usize]));
    bits.fold(0, |bits, (number, _)| bits | 1 << number)
}

/// The hold of a rule's ladder that is taken anyway.
fn hold(rule: &Rule) -> Option<Hold> {
    rule.ladder.iter().filter(|step| !step.if_failed).find_map(|step| match step.reaction {
        Reaction::Hold(hold) => Some(hold),
        _ => None,
    })
}

/// Whether the guest_memfd of this TD are to be pinned as soon as they are seen.
pub fn ready(policy: &Policy, subject: &Subject) -> bool {
    let fits = |rule: &&Rule| rule.td.as_ref().is_none_or(|td| td.fits(subject) == Fit::Yes);
    let is_ready = |rule: &Rule| {
        rule.ladder.iter().any(|step| matches!(step.reaction, Reaction::Hold(Hold { ready: true, .. })))
    };
    policy.armed && policy.rules.iter().filter(fits).any(is_ready)
}

#[cfg(test)]
mod tests;
