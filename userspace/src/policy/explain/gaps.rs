//! What of a policy a kernel cannot carry out.

use std::fmt;

use serde::Serialize;

use super::is_quick;
use crate::{
    hooks::{host::Probe, means::Means},
    policy::{
        file::{Policy, Rule},
        reaction::Reaction,
    },
};

/// A step that cannot be carried out as the policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Name of the rule.
    pub rule: String,
    /// Which step of its ladder, from 0.
    pub step: usize,
    /// The reaction's name.
    pub reaction: &'static str,
    /// What is lost, and why.
    pub lost: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {:?}, step {} ({}): {}", self.rule, self.step, self.reaction, self.lost)
    }
}

/// Everything of a policy that a kernel with these means cannot carry out. Empty: all of it can be.
pub fn gaps(policy: &Policy, means: &Means) -> Vec<Gap> {
    let steps = policy.rules.iter().flat_map(|rule| (0..rule.ladder.len()).map(move |step| (rule, step)));
    let gap = |(rule, step): (&Rule, usize)| {
        let reaction = rule.ladder[step].reaction.name();
        of(rule, step, means).map(|lost| Gap { rule: rule.name.clone(), step, reaction, lost })
    };
    steps.filter_map(gap).collect()
}

/// What is lost of a step.
pub fn of(rule: &Rule, step: usize, means: &Means) -> Option<String> {
    let lost = |what: &str, probe: &Probe| match probe {
        Probe::Refused(why) => Some(format!("{what}: {why}")),
        Probe::Works | Probe::Assumed => None,
    };
    match rule.ladder[step].reaction {
        Reaction::Hold(_) => {
            let punches = lost("a later fallocate is not refused", &means.refuse_fallocate);
            let pins = lost("close and exit of the VMM free the TD's pages", &means.pin_inodes);
            let both: Vec<_> = punches.into_iter().chain(pins).collect();
            (!both.is_empty()).then(|| both.join("; "))
        }
        Reaction::Freeze => lost("no process can be frozen", &means.freezer),
        Reaction::Quarantine => lost("no frame can be taken offline", &means.hard_offline),
        Reaction::Cordon(_) => lost("KVM_CREATE_VM is not refused", &means.refuse_create_vm),
        Reaction::Panic if is_quick(rule, step) => {
            let late = if means.sysrq.usable() { "it comes late, by sysrq" } else { "it does not come" };
            lost(late, &means.crash_kexec).or_else(|| lost(late, &means.crash_kernel))
        }
        Reaction::Panic => lost("it does not come", &means.sysrq),
        Reaction::Log | Reaction::Notify(_) | Reaction::Stop | Reaction::Kill | Reaction::UnsafeKill => None,
    }
}
