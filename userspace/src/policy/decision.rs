//! What a policy decides about a verdict.

use std::fmt;

use septwatch_common::Suspect;

use super::reaction::Reaction;

/// One step of a ladder, and whether it may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Name of the rule.
    pub rule: String,
    /// Place of the rule in its policy, from 0: what the kernel side calls it.
    pub place: u32,
    /// Which step of its ladder, from 0.
    pub step: usize,
    /// Whether it is only for when the step before failed.
    pub if_failed: bool,
    /// What is to be done.
    pub reaction: Reaction,
    /// Whether it may be.
    pub permit: Permit,
}

/// Whether a step may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It is taken.
    Do,
    /// It is written down that it would be taken.
    Dry(Dry),
    /// It is not taken, armed or not.
    Refused(Refusal),
}

/// Why it would be taken and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dry {
    /// The policy does not say `armed = true`.
    Policy,
    /// Nobody armed the agent: `--arm`, or `septwatch policy arm`.
    Agent,
    /// It is a recording.
    Recording,
}

/// Why it is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The verdict is not certain.
    Suspect(Suspect),
    /// The limit of this TD is used up.
    TdLimit,
    /// The limit of the host is used up.
    HostLimit,
    /// The rule has acted on this TD a moment ago.
    CoolDown,
    /// It cannot be told which process it would be done to.
    NoProcess,
}

impl Permit {
    /// `do`, `dry` or `refused`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Dry(_) => "dry",
            Self::Refused(_) => "refused",
        }
    }

    /// Why not, in words; none where it is taken.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Do => None,
            Self::Dry(dry) => Some(dry.to_string()),
            Self::Refused(refusal) => Some(refusal.to_string()),
        }
    }
}

impl fmt::Display for Dry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "the policy is a dry run: it does not say `armed = true`",
            Self::Agent => "the agent is not armed: `--arm`, or `septwatch policy arm`",
            Self::Recording => "a recording cannot be reacted to",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspect(reasons) => {
                let reasons: Vec<_> = reasons.reasons().collect();
                write!(f, "the verdict is suspect: {}", reasons.join(", "))
            }
            Self::TdLimit => f.write_str("the policy's limit for this TD is used up"),
            Self::HostLimit => f.write_str("the policy's limit for this host is used up"),
            Self::CoolDown => f.write_str("the rule is cooling down for this TD"),
            Self::NoProcess => f.write_str("the TD's process is not known"),
        }
    }
}
