//! A policy file as it is written. It is read strictly: a key that does not exist is an error. What the schema says of a
//! key is its comment here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::words::{Argument, At, Count, ErrnoName, StepName, Text, Time, Violations};
use crate::regression::bound::StatusName;

/// A policy of septwatch: what is done about violations.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "septwatch policy")]
pub struct File {
    /// Name of the policy.
    pub name: Text,
    /// What it is for, in a line.
    #[serde(default)]
    pub about: Option<Text>,
    /// Reactions that act are taken, if the agent is armed, too; otherwise it is a dry run.
    #[serde(default)]
    pub armed: bool,
    /// How long a rule that acted on a TD does not act on it again; default "1m".
    #[serde(default)]
    pub cool_down: Option<Time>,
    /// How often ladders may act.
    #[serde(default)]
    pub limits: Limits,
    /// Names for TDs that fit every selector.
    #[serde(default)]
    pub tags: BTreeMap<String, At<Tag>>,
    /// The rules; every one that matches is followed.
    pub rules: At<Vec<At<Rule>>>,
}

/// How often ladders may act.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// On one TD; default once in "1h".
    #[serde(default)]
    pub td: Option<Per>,
    /// On this host; default 4 times in "1h".
    #[serde(default)]
    pub host: Option<At<Per>>,
}

/// So many in this time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Per {
    /// So many.
    pub count: Count,
    /// In this time.
    pub per: Time,
}

/// TDs that fit every one of these; `*` stands for any letters, `?` for one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Name of the VM.
    #[serde(default)]
    pub name: Option<Text>,
    /// cgroup v2 path of the VMM, as in /proc/PID/cgroup.
    #[serde(default)]
    pub cgroup: Option<Text>,
    /// UUID of the VM.
    #[serde(default)]
    pub uuid: Option<Text>,
}

/// TDs that fit every one of these; `*` stands for any letters, `?` for one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Td {
    /// Name of the VM.
    #[serde(default)]
    pub name: Option<Text>,
    /// cgroup v2 path of the VMM, as in /proc/PID/cgroup.
    #[serde(default)]
    pub cgroup: Option<Text>,
    /// UUID of the VM.
    #[serde(default)]
    pub uuid: Option<Text>,
    /// One of these tags.
    #[serde(default)]
    pub tag: Option<At<Vec<At<Text>>>>,
}

/// What is matched, and what is done then.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the rule.
    pub name: At<Text>,
    /// Violations: their names, or "any".
    pub violation: At<Violations>,
    /// The SEAMCALL that failed is one of these; without it: any, or none.
    #[serde(default)]
    pub step: Option<At<Vec<StepName>>>,
    /// It failed with one of these statuses, whatever the operand: names, or hexadecimal numbers.
    #[serde(default)]
    pub status: Option<At<Vec<At<StatusName>>>>,
    /// How sure the verdict must be; default "any".
    #[serde(default)]
    pub confidence: Option<At<Confidence>>,
    /// Only from the so-many-th such verdict on one TD within a time.
    #[serde(default)]
    pub rate: Option<At<Per>>,
    /// Which TDs; without it: all.
    #[serde(default)]
    pub td: Option<At<Td>>,
    /// How long the rule does not act on a TD again; default: the policy's.
    #[serde(default)]
    pub cool_down: Option<Time>,
    /// What is done, in this order.
    pub ladder: At<Vec<At<Step>>>,
}

/// How sure a verdict must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Confidence {
    /// Certain.
    Certain,
    /// Suspect.
    Suspect,
    /// Either. A suspect verdict is told of, and never acted on.
    #[default]
    Any,
}

/// A reaction. Every option but `if_failed` belongs to some of them only.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Which.
    #[serde(rename = "do")]
    pub does: At<Does>,
    /// Only if the step before failed.
    #[serde(default)]
    pub if_failed: Option<At<bool>>,
    /// notify: a program's full path and its arguments; the violation comes as JSON on its standard input.
    #[serde(default)]
    pub command: Option<At<Vec<At<Argument>>>>,
    /// notify: an http or https URL that the violation is posted to as JSON.
    #[serde(default)]
    pub url: Option<At<Text>>,
    /// notify: when it is given up; default "5s", at most "60s".
    #[serde(default)]
    pub timeout: Option<At<Time>>,
    /// hold, cordon: what the system call answers; default "EIO" for hold, "EBUSY" for cordon.
    #[serde(default)]
    pub errno: Option<At<ErrnoName>>,
    /// hold: pin the TD's guest_memfd as soon as they are seen, not when a zap has failed; default false.
    #[serde(default)]
    pub ready: Option<At<bool>>,
    /// cordon: which VMs are refused, default "tdx".
    #[serde(default)]
    pub types: Option<At<Types>>,
}

/// A reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Does {
    /// Standard error, and the journal where there is one.
    Log,
    /// A command is run, or a URL is posted to.
    Notify,
    /// The TD's guest_memfd give back no page.
    Hold,
    /// SIGSTOP to the VMM.
    Stop,
    /// The VMM's cgroup is frozen.
    Freeze,
    /// SIGKILL to the VMM, after a hold.
    Kill,
    /// SIGKILL to the VMM, held or not: pages that the TD still maps are freed.
    UnsafeKill,
    /// The frame is taken offline.
    Quarantine,
    /// No new VM is made on this host.
    Cordon,
    /// The host goes down.
    Panic,
}

/// Which VMs are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Types {
    /// TDs.
    Tdx,
    /// VMs of every type.
    All,
}
