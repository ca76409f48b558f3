//! What a fleet looks like, from what its hosts sent: each event once, however often it came.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
};

use septwatch_common::Violation;
use serde::Deserialize;

use super::envelope::{Envelope, HostState, Number};
use crate::model::accounting::Sequence;

/// Violations of a host that are remembered one by one: the newest.
pub const RECENT: usize = 50;
/// After this time without a word, a host is silent, in ns.
pub const SILENT_NS: u64 = 20_000_000_000;

/// All hosts.
#[derive(Debug, Default)]
pub struct Fleet {
    /// By their names.
    pub hosts: BTreeMap<String, Host>,
    /// Messages that none of ours sends.
    pub foreign: u64,
}

/// A host.
#[derive(Debug, Default)]
pub struct Host {
    /// What it said of itself last.
    pub state: Option<HostState>,
    /// Events that it sent.
    pub events: u64,
    /// Of those that came more than once, how often they came again.
    pub repeated: u64,
    /// Violations, by their numbers.
    pub violations: [u64; Violation::ALL.len()],
    /// Of them, those that are suspect.
    pub suspect: u64,
    /// Steps of policies.
    pub reactions: u64,
    /// The newest violations, oldest first.
    pub recent: VecDeque<Seen>,
    /// Time of the newest event, in ns since 1970.
    pub last_ns: u64,
    /// By boot and number, in the order in which they were first heard of.
    ledgers: Vec<(String, u32, Ledger)>,
}

/// What came of one ledger.
#[derive(Debug, Default)]
struct Ledger {
    cpus: Vec<Option<Sequence>>,
    /// By when the agent began.
    steps: BTreeMap<u64, Sequence>,
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of its message in the stream.
    pub message: u64,
    /// When, in ns since 1970.
    pub wall_ns: u64,
    /// Which.
    pub violation: Violation,
    /// It may be wrong.
    pub suspect: bool,
    /// The TD's number.
    pub td: Option<u32>,
    /// The frame.
    pub pfn: Option<u64>,
    /// The guest frame.
    pub gfn: Option<u64>,
    /// Name of the thread.
    pub comm: String,
}

/// How a host is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A certain violation.
    Violated,
    /// A violation that may be wrong.
    Suspect,
    /// Nothing was heard of it for a while.
    Silent,
    /// Events were lost.
    Lossy,
    /// A hook that is needed is missing.
    Degraded,
    /// Its agent was ended.
    Ended,
    /// Nothing is wrong.
    Good,
}

impl Standing {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Violated => "violated",
            Self::Suspect => "suspect",
            Self::Silent => "silent",
            Self::Lossy => "lossy",
            Self::Degraded => "degraded",
            Self::Ended => "ended",
            Self::Good => "good",
        }
    }
}

/// What is read of a violation.
#[derive(Deserialize)]
struct Brief<'a> {
    #[serde(borrow)]
    violation: Option<Cow<'a, str>>,
    #[serde(borrow)]
    confidence: Option<Cow<'a, str>>,
    wall_ns: Option<u64>,
    td: Option<u32>,
    pfn: Option<u64>,
    gfn: Option<u64>,
    #[serde(borrow)]
    comm: Option<Cow<'a, str>>,
}

/// What is read of every event.
#[derive(Deserialize)]
struct When {
    wall_ns: Option<u64>,
}

impl Fleet {
    /// Takes in a message of the stream of events, which has this topic and number. True: a violation is new.
    pub fn event(&mut self, topic: &str, message: u64, payload: &[u8]) -> bool {
        let envelope = serde_json::from_slice::<Envelope<'_>>(payload).ok();
        let numbered = envelope.and_then(|envelope| Some((envelope.number()?, envelope)));
        let Some((number, envelope)) = numbered else {
            self.foreign += 1;
            return false;
        };
        let host = match self.hosts.get_mut(&*envelope.host) {
            Some(host) => host,
            None => self.hosts.entry(envelope.host.clone().into_owned()).or_default(),
        };
        if !host.is_new(&envelope, number) {
            host.repeated += 1;
            return false;
        }
        host.events += 1;
        let event = envelope.event.get();
        if topic != "violation" {
            host.reactions += u64::from(topic == "reaction");
            let when = serde_json::from_str::<When>(event).ok().and_then(|when| when.wall_ns);
            host.last_ns = host.last_ns.max(when.unwrap_or(0));
            return false;
        }
        let brief = serde_json::from_str::<Brief<'_>>(event).ok();
        let violation = brief.as_ref().and_then(|brief| Violation::from_name(brief.violation.as_deref()?));
        let (Some(brief), Some(violation)) = (brief, violation) else {
            self.foreign += 1;
            return false;
        };
        let seen = Seen {
            message,
            wall_ns: brief.wall_ns.unwrap_or(0),
            violation,
            suspect: brief.confidence.is_some_and(|confidence| confidence == "suspect"),
            td: brief.td,
            pfn: brief.pfn,
            gfn: brief.gfn,
            comm: brief.comm.unwrap_or_default().into_owned(),
        };
        host.last_ns = host.last_ns.max(seen.wall_ns);
        host.violations[violation as usize] += 1;
        host.suspect += u64::from(seen.suspect);
        if host.recent.len() == RECENT {
            host.recent.pop_front();
        }
        host.recent.push_back(seen);
        true
    }

    /// Takes in a message of the stream of how hosts stand.
    pub fn state(&mut self, payload: &[u8]) {
        let Ok(state) = serde_json::from_slice::<HostState>(payload) else {
            self.foreign += 1;
            return;
        };
        let host = match self.hosts.get_mut(&state.origin.host) {
            Some(host) => host,
            None => self.hosts.entry(state.origin.host.clone()).or_default(),
        };
        if host.state.as_ref().is_none_or(|before| before.wall_ns <= state.wall_ns) {
            host.state = Some(state);
        }
    }

    /// Hosts, the worst first: by how they are at this time, in ns since 1970, then by the newest violation.
    pub fn worst_first(&self, now_ns: u64) -> Vec<(&str, &Host, Standing)> {
        let mut hosts: Vec<_> =
            self.hosts.iter().map(|(name, host)| (name.as_str(), host, host.standing(now_ns))).collect();
        hosts.sort_by_key(|(_, host, standing)| {
            (*standing, std::cmp::Reverse(host.recent.back().map_or(0, |seen| seen.wall_ns)))
        });
        hosts
    }
}

impl Host {
    /// Whether what has this number has not come before.
    fn is_new(&mut self, envelope: &Envelope<'_>, number: Number) -> bool {
        let is_its = |(boot_id, ledger, _): &(String, u32, Ledger)| {
            *ledger == envelope.ledger && **boot_id == *envelope.boot_id
        };
        // There are few, and the newest is nearly always the one.
        let at = self.ledgers.iter().rposition(is_its).unwrap_or_else(|| {
            let boot_id = envelope.boot_id.clone().into_owned();
            self.ledgers.push((boot_id, envelope.ledger, Ledger::default()));
            self.ledgers.len() - 1
        });
        let (_, _, ledger) = &mut self.ledgers[at];
        match number {
            Number::Record { cpu, seq } => {
                let cpu = usize::from(cpu);
                if cpu >= ledger.cpus.len() {
                    ledger.cpus.resize(cpu + 1, None);
                }
                take(ledger.cpus[cpu].get_or_insert_with(|| Sequence::beginning_at(seq)), seq)
            }
            Number::Step { agent_ns, step } => {
                take(ledger.steps.entry(agent_ns).or_insert_with(|| Sequence::beginning_at(step)), step)
            }
        }
    }

    /// Records that never came, of those between the first and the last that did: lost on the way, or lost by the kernel.
    pub fn missing(&self) -> u64 {
        let ledgers = self.ledgers.iter();
        let sequences =
            ledgers.flat_map(|(_, _, ledger)| ledger.cpus.iter().flatten().chain(ledger.steps.values()));
        sequences.fold(0, |sum, sequence| sum.saturating_add(sequence.missing()))
    }

    /// Violations that came, suspect ones too.
    pub fn found(&self) -> u64 {
        self.violations.iter().sum()
    }

    /// How it is at this time, in ns since 1970.
    pub fn standing(&self, now_ns: u64) -> Standing {
        let state = self.state.as_ref();
        let lost = state.map_or(0, |state| {
            state
                .outputs
                .values()
                .fold(state.vital_records.lost, |sum, output| sum.saturating_add(output.lost))
        });
        match () {
            () if self.found() > self.suspect => Standing::Violated,
            () if self.suspect != 0 => Standing::Suspect,
            () if state.is_some_and(|state| state.ended) => Standing::Ended,
            () if state.is_none_or(|state| now_ns.saturating_sub(state.wall_ns) > SILENT_NS) => {
                Standing::Silent
            }
            () if lost != 0 || self.missing() != 0 => Standing::Lossy,
            () if state.is_some_and(|state| !state.hooks_missing.is_empty()) => Standing::Degraded,
            () => Standing::Good,
        }
    }
}

/// Takes a number in. True: it had not come.
fn take(sequence: &mut Sequence, number: u64) -> bool {
    let before = sequence.repeated();
    sequence.received(number);
    sequence.repeated() == before
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;
    use crate::fleet::envelope::Origin;

    fn sent(host: &str, ledger: u32, number: Number, event: &str) -> Vec<u8> {
        let origin = Origin { host: host.to_owned(), boot_id: "b".to_owned(), ledger };
        let mut text = String::new();
        origin.wrapper().unwrap().wrap(number, event, &mut text);
        text.into_bytes()
    }

    fn record(cpu: u16, seq: u64) -> Number {
        Number::Record { cpu, seq }
    }

    const ZAP: &str = r#"{"type":"violation","violation":"zap-failed","confidence":"certain","td":9,"pfn":4660,"gfn":null,"comm":"qemu","wall_ns":7}"#;

    #[test]
    fn what_comes_again_counts_once() {
        let mut fleet = Fleet::default();
        for (n, (cpu, seq, event, topic)) in [
            (0, 5, ZAP, "violation"),
            (1, 5, ZAP, "violation"),
            (0, 5, ZAP, "violation"),
            (0, 7, r#"{"type":"td","wall_ns":8}"#, "td"),
            (0, 6, ZAP, "violation"),
            (0, 6, ZAP, "violation"),
        ]
        .into_iter()
        .enumerate()
        {
            fleet.event(topic, n as u64, &sent("a", 1, record(cpu, seq), event));
        }
        // The same numbers of another ledger are others.
        assert!(fleet.event("violation", 6, &sent("a", 2, record(0, 5), ZAP)));
        for step in [0, 1, 0] {
            fleet.event("reaction", 7, &sent("a", 2, Number::Step { agent_ns: 3, step }, r#"{"wall_ns":9}"#));
        }
        let host = &fleet.hosts["a"];
        assert_eq!((host.found(), host.events, host.repeated, host.missing()), (4, 7, 3, 0));
        assert_eq!((host.reactions, host.last_ns, host.recent.len()), (2, 9, 4));
        assert_eq!(host.recent[0].td, Some(9));
        assert_eq!(fleet.foreign, 0);
    }

    #[test]
    fn what_never_came_is_missing() {
        let mut fleet = Fleet::default();
        for seq in [3, 4, 9] {
            fleet.event("td", seq, &sent("a", 1, record(0, seq), r#"{"wall_ns":1}"#));
        }
        assert_eq!(fleet.hosts["a"].missing(), 4);
    }

    #[test]
    fn the_worst_host_comes_first_and_strangers_are_counted() {
        let mut fleet = Fleet::default();
        fleet.event("td", 0, &sent("good", 1, record(0, 0), r#"{"wall_ns":1}"#));
        fleet.event("violation", 1, &sent("old", 1, record(0, 0), ZAP));
        fleet.event(
            "violation",
            2,
            &sent("new", 1, record(0, 0), &ZAP.replace("\"wall_ns\":7", "\"wall_ns\":8")),
        );
        fleet.event("violation", 3, &sent("doubt", 1, record(0, 0), &ZAP.replace("certain", "suspect")));
        let names: Vec<_> =
            fleet.worst_first(9).into_iter().map(|(name, _, standing)| (name, standing)).collect();
        use Standing::{Silent, Suspect, Violated};
        assert_eq!(names, [("new", Violated), ("old", Violated), ("doubt", Suspect), ("good", Silent)]);
        for foreign in [&b"no JSON"[..], b"{}", &sent("x", 1, record(0, 0), r#"{"violation":"new-kind"}"#)] {
            assert!(!fleet.event("violation", 4, foreign));
        }
        fleet.state(b"{}");
        assert_eq!(fleet.foreign, 4);
    }

    #[test]
    fn of_many_violations_the_newest_are_remembered() {
        let mut fleet = Fleet::default();
        for seq in 0..200 {
            fleet.event("violation", seq, &sent("a", 1, record(0, seq), ZAP));
        }
        let host = &fleet.hosts["a"];
        assert_eq!((host.found(), host.recent.len(), host.recent[0].message), (200, RECENT, 150));
    }
}
