//! What hosts send: events with where they come from, and how the host stands.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, io};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::accounting::Balance;

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The host's name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// Number of the ledger, which this boot never had before: the id that the kernel gave its map.
    pub ledger: u32,
}

/// A record of the kernel's, or a step of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// A record: its CPU, and its number among those of this CPU's vital records in this ledger.
    Record {
        /// Which.
        cpu: u16,
        /// From 0.
        seq: u64,
    },
    /// A step: when its agent began, in ns since 1970, and its number since then.
    Step {
        /// When.
        agent_ns: u64,
        /// From 0.
        step: u64,
    },
}

impl Origin {
    /// The id of what has this number. What comes again has the same.
    pub fn id(&self, number: Number) -> String {
        let Self { boot_id, ledger, .. } = self;
        match number {
            Number::Record { cpu, seq } => format!("{boot_id}.{ledger}.{cpu}.{seq}"),
            Number::Step { agent_ns, step } => format!("{boot_id}.{ledger}.step.{agent_ns}.{step}"),
        }
    }

    /// What puts its events into envelopes.
    ///
    /// # Errors
    /// A name is no text that JSON has.
    pub fn wrapper(&self) -> io::Result<Wrapper> {
        let mut head = serde_json::to_string(self)?;
        // One object: the number and the event follow.
        head.pop();
        Ok(Wrapper { head })
    }
}

/// Puts events into envelopes.
#[derive(Clone, Debug)]
pub struct Wrapper {
    /// The beginning of each.
    head: String,
}

impl Wrapper {
    /// Appends the [`Envelope`] of this event, which is JSON, to `out`.
    pub fn wrap(&self, number: Number, event: &str, out: &mut String) {
        out.push_str(&self.head);
        // Writing to a String cannot fail.
        let _ = match number {
            Number::Record { cpu, seq } => write!(out, ",\"cpu\":{cpu},\"seq\":{seq}"),
            Number::Step { agent_ns, step } => write!(out, ",\"agent_ns\":{agent_ns},\"step\":{step}"),
        };
        out.extend([",\"event\":", event, "}"]);
    }
}

/// An event and where it comes from, as the stream of events has it.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// See [`Origin::host`].
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    /// See [`Origin::boot_id`].
    #[serde(borrow)]
    pub boot_id: Cow<'a, str>,
    /// See [`Origin::ledger`].
    pub ledger: u32,
    cpu: Option<u16>,
    seq: Option<u64>,
    agent_ns: Option<u64>,
    step: Option<u64>,
    /// The object that `septwatch watch --json` prints for it, with `wall_ns`.
    #[serde(borrow)]
    pub event: &'a RawValue,
}

impl Envelope<'_> {
    /// Its number at its origin; none: it is not one of ours.
    pub fn number(&self) -> Option<Number> {
        match (self.cpu.zip(self.seq), self.agent_ns.zip(self.step)) {
            (Some((cpu, seq)), None) => Some(Number::Record { cpu, seq }),
            (None, Some((agent_ns, step))) => Some(Number::Step { agent_ns, step }),
            _ => None,
        }
    }
}

/// How a host stands: what it says of itself every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Who says so.
    #[serde(flatten)]
    pub origin: Origin,
    /// When, in ns since 1970.
    pub wall_ns: u64,
    /// Version of septwatch.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Version of the TDX module.
    pub tdx_module: Option<String>,
    /// `live` or `demo`
    pub source: String,
    /// The agent has ended, and says that it has.
    pub ended: bool,
    /// TDs that are there, by how far their lives have come.
    pub tds: BTreeMap<String, u64>,
    /// Frames that are lent to them.
    pub lent_frames: u64,
    /// Frames that are held, and do not go back to the allocator.
    pub held_frames: u64,
    /// Violations by their names, since the ledger began: what the kernel side counted.
    pub violations: BTreeMap<String, u64>,
    /// Violations that are suspect, since the agent began.
    pub suspect: u64,
    /// When the last violation was, in ns since 1970; none: none since the agent began.
    pub last_violation_ns: Option<u64>,
    /// Vital records: what was produced, and where it is.
    pub vital_records: Balance,
    /// Hooks that are needed and missing.
    pub hooks_missing: Vec<String>,
    /// The policy that is followed.
    pub policy: Option<PolicyState>,
    /// Outputs by their names.
    pub outputs: BTreeMap<String, OutputState>,
    /// The TDs that have metrics of their own.
    pub rows: Vec<TdState>,
}

/// A policy that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyState {
    /// Its name.
    pub name: String,
    /// It acts, and does not only say what it would do.
    pub armed: bool,
    /// What of it the host cannot carry out.
    pub gaps: u64,
}

/// What became of what an output was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputState {
    /// Messages that it was given.
    pub offered: u64,
    /// Of them, those that it passed on.
    pub delivered: u64,
    /// Of them, those that it never will.
    pub lost: u64,
}

/// A TD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdState {
    /// Its number in its ledger.
    pub td: u32,
    /// Name of the thread that it was first seen with.
    pub comm: String,
    /// Frames lent to it.
    pub lent_frames: u64,
    /// Frames of it that are held.
    pub held_frames: u64,
    /// Its violations.
    pub violations: u64,
    /// Its verdicts are suspect.
    pub suspect: bool,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn what_is_wrapped_is_found_again() {
        let origin = Origin { host: "a \"host\" {}".to_owned(), boot_id: "b".to_owned(), ledger: 7 };
        let event = r#"{"type":"violation","cpu":9}"#;
        for number in [Number::Record { cpu: 3, seq: 11 }, Number::Step { agent_ns: 5, step: 0 }] {
            let mut text = String::new();
            origin.wrapper().unwrap().wrap(number, event, &mut text);
            let envelope: Envelope<'_> = serde_json::from_str(&text).unwrap();
            let found = (&*envelope.host, &*envelope.boot_id, envelope.ledger, envelope.event.get());
            assert_eq!(found, (&*origin.host, "b", 7, event));
            assert_eq!(envelope.number(), Some(number));
        }
        assert_eq!(origin.id(Number::Record { cpu: 3, seq: 11 }), "b.7.3.11");
        assert_eq!(origin.id(Number::Step { agent_ns: 5, step: 0 }), "b.7.step.5.0");
    }
}
