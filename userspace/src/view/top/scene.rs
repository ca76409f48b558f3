//! What the views show, at one moment.
//!
//! A source (this host, the demo, a recording) makes one after the other; the views read them and nothing else. What is
//! large and seldom changes is shared between them.

mod host;
mod td;

use std::{collections::BTreeMap, sync::Arc};

use septwatch_common::Violation;

pub use crate::model::census::{Block, Grid, States};
pub use host::{Host, KINDS, Overhead, Rates, Sample};
pub use td::{LeafRow, TdDetail, TdRow};

use crate::{
    model::verdict::Verdict, policy::audit::Step, recording::header::Clock, source::event::Event,
    view::stack::Places,
};

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Where it comes from.
    pub about: About,
    /// Which moment it is.
    pub time: Time,
    /// The host as a whole.
    pub host: Host,
    /// The last minutes, or the whole of a recording, oldest first.
    pub history: Arc<Vec<Sample>>,
    /// SEAMCALLs, leaf by leaf, those that were seen.
    pub leaves: Arc<Vec<LeafRow>>,
    /// TDs: those that live, then the last that are gone.
    pub tds: Arc<Vec<TdRow>>,
    /// More about the TD that was asked for ([`Ask::Td`]).
    pub td: Option<Arc<TdDetail>>,
    /// Violations, oldest first: the last [`VIOLATIONS`].
    pub violations: Arc<Vec<Arc<Found>>>,
    /// When violations happened that can be gone to, earlier and later than this moment: ns of CLOCK_MONOTONIC, in no
    /// order.
    pub marks: Arc<Vec<u64>>,
    /// All violations by kind, also those that are in the list no more.
    pub by_kind: BTreeMap<Violation, u64>,
    /// The hook plan.
    pub hooks: Arc<Vec<HookRow>>,
    /// The policy that is followed.
    pub policy: Option<Arc<Policy>>,
    /// What happened, oldest first: the last [`LINES`].
    pub log: Arc<Vec<Arc<LogLine>>>,
}

impl Scene {
    /// All violations.
    pub fn total(&self) -> u64 {
        self.by_kind.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Violations that are kept to be looked at.
pub const VIOLATIONS: usize = 10_000;
/// Lines of the log that are kept.
pub const LINES: usize = 10_000;

/// Where a scene comes from.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What is watched.
    pub source: Source,
    /// How far it is.
    pub phase: Phase,
    /// Release of the kernel.
    pub kernel: String,
    /// Version of the TDX module, where it is known.
    pub tdx_module: Option<String>,
    /// Name of the host; empty for a recording, which names none.
    pub hostname: String,
    /// Why there are no figures that need a record of every SEAMCALL: rates and statuses of a TD, latencies, the life of
    /// a frame.
    pub no_calls: Option<&'static str>,
    /// The file that a recording is written to now.
    pub recording: Option<String>,
    /// What came of the last thing that was asked for, and which answer that is: to be told once.
    pub told: Option<(u64, String)>,
}

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// This host.
    #[default]
    Live,
    /// The demo: the scenario's name.
    Demo(String),
    /// A recording: the file's name.
    Recording(String),
}

/// How far a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is watched yet: what is done meanwhile.
    Starting(String),
    /// Events arrive.
    #[default]
    Running,
    /// A recording is read: thousandths of it so far.
    Reading(u16),
    /// Nothing more will arrive: why.
    Over(String),
}

/// Which moment a scene is of. All times in ns of CLOCK_MONOTONIC, of the host that was watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// The same moment on several clocks.
    pub clock: Clock,
    /// The earliest moment that can be gone to.
    pub begin_ns: u64,
    /// The latest.
    pub end_ns: u64,
    /// This one.
    pub now_ns: u64,
    /// Whether this is an earlier moment than the latest.
    pub travelling: bool,
    /// Whether a recording goes on by itself, and how fast: 1.0 as it happened.
    pub playing: Option<f64>,
}

/// A violation.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number, from 1.
    pub number: u64,
    /// What was found.
    pub verdict: Verdict,
    /// The places in its stacks.
    pub places: Places,
    /// Name of the TD.
    pub td_name: Option<Arc<str>>,
    /// The life of the frame up to here: SEAMCALLs, releases and allocations, and violations, in order.
    pub story: Vec<Event>,
    /// Whether the beginning of the story is missing.
    pub story_is_cut: bool,
    /// What the policy did.
    pub steps: Vec<Step>,
}

/// A hook of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookRow {
    /// Its name.
    pub name: String,
    /// What is learned from it.
    pub purpose: &'static str,
    /// How it is bound.
    pub bound: Option<String>,
    /// Why it is not.
    pub missing: Option<String>,
    /// Violations that are not found without it.
    pub lost: Vec<&'static str>,
    /// Whether verdicts would be false without it.
    pub required: bool,
}

/// The policy that is followed.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Whether it may act.
    pub armed: bool,
    /// Whether it says `armed = true` itself: else it is always a dry run.
    pub may_be_armed: bool,
    /// Its rules: name, and its ladder of reactions in a line.
    pub rules: Vec<(String, String)>,
    /// What of it this host cannot carry out.
    pub gaps: Vec<String>,
    /// Violations that it may still react to on this host before its limit is reached; none: no limit.
    pub limit_left: Option<u64>,
    /// Rules that the programs in the kernel follow by themselves.
    pub kernel_rules: u64,
    /// What is held, a line each.
    pub holds: Vec<String>,
    /// How long reactions took, a line each.
    pub latencies: Vec<String>,
    /// The audit trail, oldest first: the last lines.
    pub audit: Vec<String>,
    /// Where the audit log is.
    pub folder: String,
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Life of TDs and VMs.
    Plain,
    /// What septwatch says of itself.
    Note,
    /// What a policy did.
    Reaction,
    /// A violation.
    Violation,
}

impl Weight {
    /// Name, for filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "life",
            Self::Note => "septwatch",
            Self::Reaction => "reaction",
            Self::Violation => "violation",
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// How much it matters.
    pub weight: Weight,
    /// The TD it is about.
    pub td: Option<u32>,
    /// What it says.
    pub text: String,
}

/// What the screen asks of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// More about this TD from now on, or about none.
    Td(Option<u32>),
    /// Go to this moment, in ns of CLOCK_MONOTONIC. The latest and beyond: follow what happens again.
    Go(u64),
    /// Let a recording go on by itself, so many times as fast as it happened; none: stand still.
    Play(Option<f64>),
    /// Begin to record into a file, or end it.
    Record,
    /// Arm the policy of this name.
    Arm(String),
    /// Disarm it.
    Disarm,
}
