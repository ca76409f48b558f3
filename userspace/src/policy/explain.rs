//! What a policy would do about a violation: in order, by whom, when, and which ways back to the page allocator it closes
//! in time on a given kernel. The facts are those of the kernel's sources; `gaps` says what a kernel cannot do.

mod gaps;
mod text;

use septwatch_common::{
    Leaf, Violation,
    react::{HOLD, PANIC},
};
use serde::Serialize;

pub use gaps::{Gap, gaps};

use super::{
    file::{Confidence, Policy, Rule, words},
    quick,
    reaction::{Channel, Hold, Reaction},
};
use crate::hooks::{host::Probe, means::Means};

/// When a violation is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// Before the page that it is about can be released.
    BeforeRelease,
    /// As the page is released: the allocator does not have it yet.
    AtRelease,
    /// The allocator has handed the page out.
    AfterReuse,
    /// No page is being released.
    NoRelease,
}

impl Moment {
    /// When this violation is seen.
    pub const fn of(violation: Violation) -> Self {
        match violation {
            Violation::ZapFailed | Violation::VmBugged => Self::BeforeRelease,
            Violation::FreedWhileMapped
            | Violation::FreedWhileBlocked
            | Violation::FreedUnflushed
            | Violation::FreedWhileOwned => Self::AtRelease,
            Violation::ReusedWhileMapped => Self::AfterReuse,
            Violation::MapFailed
            | Violation::DoubleMap
            | Violation::OutOfOrder
            | Violation::TeardownLeak
            | Violation::HostAccessWhileMapped
            | Violation::PoisonedWhileMapped
            | Violation::MigratedWhileMapped => Self::NoRelease,
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::BeforeRelease => {
                "in the system call that fails, before KVM goes on: the page is not released yet"
            }
            Self::AtRelease => {
                "in mm_page_free: the page is being released, and is not back in the allocator yet"
            }
            Self::AfterReuse => "in mm_page_alloc: the allocator has handed the page out",
            Self::NoRelease => "as it happens: no page is being released by it",
        }
    }

    /// What [`Stops::this`] is about.
    pub const fn this(self) -> Option<&'static str> {
        match self {
            Self::BeforeRelease => Some("a punch in flight, whose own zap failed"),
            Self::AtRelease => Some("the page being released"),
            Self::AfterReuse => Some("the page handed out"),
            Self::NoRelease => None,
        }
    }
}

/// Whether something is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InTime {
    /// Always.
    Yes,
    /// It depends on who is faster.
    Race,
    /// Never: it is too late, or does not keep pages.
    No,
}

impl InTime {
    /// Name for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Race => "a race",
            Self::No => "no",
        }
    }
}

/// Which ways of the TD's pages back to the allocator a step closes before they are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stops {
    /// [`Moment::this`]; none where no page is being released.
    pub this: Option<InTime>,
    /// fallocate that comes later, as after a conversion.
    pub later_punches: InTime,
    /// The VMM closes its guest_memfd, exits, or is killed.
    pub close_or_exit: InTime,
}

/// A step of a ladder, on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The reaction's name.
    pub reaction: &'static str,
    /// Only if the step before failed.
    pub if_failed: bool,
    /// `kernel` or `agent`.
    pub by: &'static str,
    /// What is done, and when.
    pub how: String,
    /// What it stops.
    pub stops: Stops,
    /// What of it this kernel cannot do.
    pub gap: Option<String>,
}

/// A rule that is for the violation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its name.
    pub rule: String,
    /// When it is followed only.
    pub only: Vec<String>,
    /// Its ladder.
    pub ladder: Vec<Step>,
}

/// What a policy would do about a violation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The policy's name.
    pub policy: String,
    /// Whether it may act.
    pub armed: bool,
    /// The violation's name.
    pub violation: &'static str,
    /// The SEAMCALL that failed, if one was given.
    pub step: Option<&'static str>,
    /// When it is seen.
    pub moment: Moment,
    /// Whether the kernel does not run, so that what it allows is assumed.
    pub assumed: bool,
    /// Rules that are for it, in the order in which they are followed.
    pub rules: Vec<Explained>,
    /// What the policy costs while nothing is wrong.
    pub costs: Vec<&'static str>,
}

/// What a policy would do about a violation, on a kernel with these means. `step`: the SEAMCALL that failed; without it,
/// rules for any are told of.
pub fn explain(policy: &Policy, violation: Violation, step: Option<Leaf>, means: &Means) -> Explanation {
    let moment = Moment::of(violation);
    let about = |rule: &&Rule| {
        rule.violations & 1 << violation as u64 != 0
            && step.is_none_or(|leaf| rule.leaves == 0 || rule.leaves & 1 << leaf as u64 != 0)
    };
    let explained = |rule: &Rule| Explained {
        rule: rule.name.clone(),
        only: only(policy, rule, step),
        ladder: (0..rule.ladder.len()).map(|place| one(rule, place, moment, means)).collect(),
    };
    Explanation {
        policy: policy.name.clone(),
        armed: policy.armed,
        violation: violation.name(),
        step: step.map(Leaf::name),
        moment,
        assumed: means.refuse_fallocate == Probe::Assumed,
        rules: policy.rules.iter().filter(about).map(explained).collect(),
        costs: costs(policy),
    }
}

/// What must hold beside the violation.
fn only(policy: &Policy, rule: &Rule, step: Option<Leaf>) -> Vec<String> {
    let mut only = Vec::new();
    if step.is_none() && rule.leaves != 0 {
        let leaves =
            Leaf::ALL.into_iter().filter(|leaf| (*leaf as u32) < 64 && rule.leaves & 1 << *leaf as u64 != 0);
        only.push(format!("{} failed", leaves.map(Leaf::name).collect::<Vec<_>>().join(" or ")));
    }
    if !rule.statuses.is_empty() {
        let statuses: Vec<_> = rule.statuses.iter().map(ToString::to_string).collect();
        only.push(format!("with {}", statuses.join(" or ")));
    }
    match rule.confidence {
        Confidence::Any => {}
        Confidence::Certain => only.push("a certain verdict".to_owned()),
        Confidence::Suspect => only.push("a suspect verdict".to_owned()),
    }
    if let Some(rate) = rule.rate {
        only.push(format!("from the {}. of a TD within {} on", rate.count, words::time(rate.per)));
    }
    if rule.td.is_some() {
        only.push("TDs that it selects".to_owned());
    }
    if rule.ladder.iter().any(|step| step.reaction.acts()) {
        let (td, host) = (policy.td_limit, policy.host_limit);
        only.push(format!("at most {} per TD in {}", td.count, words::time(td.per)));
        only.push(format!("at most {} on the host in {}", host.count, words::time(host.per)));
        only.push(format!("not again on a TD for {}", words::time(rule.cool_down)));
    }
    only
}

fn one(rule: &Rule, place: usize, moment: Moment, means: &Means) -> Step {
    let step = &rule.ladder[place];
    let how = How::of(rule, place, means);
    let stops = how.stops(&step.reaction, moment, means);
    Step {
        reaction: step.reaction.name(),
        if_failed: step.if_failed,
        by: if how == How::Agent { "agent" } else { "kernel" },
        how: how.words(&step.reaction, moment),
        stops,
        gap: gaps::of(rule, place, means),
    }
}

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The program that sees the violation.
    Kernel,
    /// The agent, when it has read the event.
    Agent,
}

impl How {
    fn of(rule: &Rule, place: usize, means: &Means) -> Self {
        let can = match rule.ladder[place].reaction {
            Reaction::Hold(_) => means.refuse_fallocate.usable(),
            Reaction::Panic => means.crash_kexec.usable() && means.crash_kernel.usable(),
            _ => false,
        };
        if can && is_quick(rule, place) { Self::Kernel } else { Self::Agent }
    }

    fn stops(self, reaction: &Reaction, moment: Moment, means: &Means) -> Stops {
        use InTime::{No, Race, Yes};
        let quick = if self == Self::Kernel { Yes } else { Race };
        let before = |in_time| if moment == Moment::BeforeRelease { in_time } else { No };
        let (this, later_punches, close_or_exit) = match reaction {
            Reaction::Hold(Hold { ready, .. }) => {
                let pinned = if *ready { Yes } else { Race };
                let refused = if means.refuse_fallocate.usable() { quick } else { No };
                (No, refused, if means.pin_inodes.usable() { pinned } else { No })
            }
            Reaction::Stop => (No, Race, Race),
            Reaction::Freeze if means.freezer.usable() => (No, Race, Race),
            Reaction::Quarantine if means.hard_offline.usable() => (before(Race), before(Race), before(Race)),
            Reaction::Panic if self == Self::Kernel => {
                (if moment == Moment::AfterReuse { No } else { Yes }, Yes, Yes)
            }
            Reaction::Panic if means.sysrq.usable() => (before(Race), Race, Race),
            _ => (No, No, No),
        };
        Stops { this: moment.this().map(|_| this), later_punches, close_or_exit }
    }

    fn words(self, reaction: &Reaction, moment: Moment) -> String {
        let at_once = self == Self::Kernel;
        match reaction {
            Reaction::Log => "after: standard error, and the journal".to_owned(),
            Reaction::Notify(notify) => {
                let by = match &notify.channel {
                    Channel::Command(words) => format!("runs {}", words.join(" ")),
                    Channel::Webhook(url) => format!("posts to {url}"),
                };
                format!("after: {by}, given up after {}", words::time(notify.timeout))
            }
            Reaction::Hold(hold) => {
                let when = if at_once { "at once, in the program that sees it" } else { "when the agent has read it" };
                let pin = if hold.ready { "since the TD was first seen" } else { "by the agent, after that" };
                let errno = words::errno(hold.errno);
                format!("{when}: fallocate on the TD's guest_memfd answers {errno}; their inodes are pinned {pin}")
            }
            Reaction::Stop => "SIGSTOP: takes effect as the VMM returns from its system call".to_owned(),
            Reaction::Freeze => "cgroup.freeze: takes effect as the VMM returns from its system call".to_owned(),
            Reaction::Kill => "SIGKILL once the hold is in effect: the VM is gone, its pages stay".to_owned(),
            Reaction::UnsafeKill => "SIGKILL: closes guest_memfd, and frees what the TD still maps".to_owned(),
            Reaction::Quarantine if moment == Moment::BeforeRelease => {
                "hard offline of the frame, if it is known: tries to be faster than its release".to_owned()
            }
            Reaction::Quarantine => "hard offline of the frame, if it is known: after its release".to_owned(),
            Reaction::Cordon(cordon) => {
                let which = if cordon.every_type { "every type" } else { "TDX type" };
                format!("KVM_CREATE_VM of {which} answers {}; VMs that exist go on", words::errno(cordon.errno))
            }
            Reaction::Panic if at_once => {
                "at once, in the program that sees it: crash_kexec; no step after it, and no log or notify before it, is \
                 carried out then"
                    .to_owned()
            }
            Reaction::Panic => "sysrq by the agent, when it has read it".to_owned(),
        }
    }
}

/// Whether the kernel side is told to take this step itself.
fn is_quick(rule: &Rule, place: usize) -> bool {
    let step = &rule.ladder[place];
    let bit = match step.reaction {
        Reaction::Hold(_) => HOLD,
        Reaction::Panic => PANIC,
        _ => return false,
    };
    step.acts_anyway() && quick::does(rule) & bit != 0
}

fn costs(policy: &Policy) -> Vec<&'static str> {
    let reactions = || policy.rules.iter().flat_map(|rule| &rule.ladder).map(|step| &step.reaction);
    let mut costs = Vec::new();
    if reactions().any(|reaction| matches!(reaction, Reaction::Hold(_))) {
        costs.push(
            "hold: a program at security_file_permission, which runs at every read and write of the host",
        );
        costs.push("hold: what is held stays taken until it is released");
    }
    if reactions().any(|reaction| matches!(reaction, Reaction::Hold(Hold { ready: true, .. }))) {
        costs.push("hold ready: a descriptor for each guest_memfd; a TD's memory comes back when the agent lets go of it");
    }
    if reactions().any(|reaction| matches!(reaction, Reaction::Cordon(_))) {
        costs.push("cordon: a program at security_file_ioctl, which runs at every ioctl of the host");
    }
    costs
}

#[cfg(test)]
mod tests;
