//! What the views show, at one moment.
//!
//! A source (this host, the demo, a recording) makes one after the other; the views read them and nothing else. What is
//! large and seldom changes is shared between them.

use std::{collections::BTreeMap, sync::Arc};

pub use crate::model::census::{Block, Grid, States};

use septwatch_common::{Leaf, Life, PageKind, Status, Suspect, Violation};

use crate::{
    model::{
        accounting::Balance,
        histogram::{Octave, Summary},
        verdict::Verdict,
    },
    policy::audit::Step,
    recording::header::Clock,
    source::event::Event,
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

/// The host as a whole.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// TDs that live.
    pub tds: u64,
    /// TDs that were seen so far.
    pub tds_seen: u64,
    /// Frames of 4 KiB that are lent now, by [`PageKind`].
    pub lent: [u64; 6],
    /// What happens now.
    pub rates: Rates,
    /// How long SEAMCALLs took so far, all leaves together; none: not measured.
    pub latency: Option<Summary>,
    /// Of all violations, those that are suspect.
    pub suspect: u64,
    /// Vital records.
    pub vital: Option<Balance>,
    /// Page records.
    pub pages: Option<Balance>,
    /// Frames outside of the ledger.
    pub outside: u64,
    /// SEAMCALLs whose arguments could not be read.
    pub unread: u64,
    /// Releases that may have passed unseen.
    pub missed_releases: u64,
    /// What of the watching does not work: why the verdict is `degraded`.
    pub degraded: Vec<String>,
    /// What septwatch itself costs.
    pub overhead: Option<Overhead>,
}

impl Host {
    /// The host in one line; `violations` are all that were found.
    pub fn verdict(&self, violations: u64) -> String {
        let suspect = match self.suspect {
            0 => String::new(),
            suspect => format!(", {suspect} of them suspect"),
        };
        let found = match violations {
            0 => String::new(),
            1 => format!("1 violation{suspect}"),
            _ => format!("{violations} violations{suspect}"),
        };
        match (found.is_empty(), self.degraded.as_slice()) {
            (true, []) => "all clear".to_owned(),
            (false, []) => found,
            (true, [why, ..]) => format!("degraded: {why}"),
            (false, [why, ..]) => format!("{found}; degraded: {why}"),
        }
    }
}

/// What happens, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// SEAMCALLs with a hook.
    pub calls: f64,
    /// TDH.MEM.PAGE.ADD and TDH.MEM.PAGE.AUG that succeeded.
    pub maps: f64,
    /// TDH.MEM.PAGE.REMOVE that succeeded.
    pub zaps: f64,
    /// Answers of TDX_OPERAND_BUSY.
    pub busy: f64,
    /// Answers that were neither success nor BUSY.
    pub errors: f64,
    /// Records that arrived.
    pub records: f64,
}

/// What septwatch costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overhead {
    /// CPU time of this process, in thousandths of one CPU.
    pub agent: f64,
    /// CPU time of the programs in the kernel, in thousandths of one CPU; none where the kernel does not say.
    pub programs: Option<f64>,
    /// Runs of them, per second.
    pub runs: Option<f64>,
    /// Memory of this process, in bytes.
    pub rss: u64,
    /// Cycles and instructions of this process, per second; or why not.
    pub counters: Option<Result<(f64, f64), String>>,
}

/// The host over one step of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// End of the step.
    pub time_ns: u64,
    /// What happened, per second.
    pub rates: Rates,
    /// Frames lent then.
    pub lent: u64,
    /// Violations in the step.
    pub violations: u64,
    /// Records lost in the step.
    pub lost: u64,
    /// Median and 99th percentile of SEAMCALLs' latencies, in ns; 0: not measured.
    pub p50_ns: u64,
    /// See `p50_ns`.
    pub p99_ns: u64,
}

/// A leaf: a row of its view.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafRow {
    /// Which.
    pub leaf: Leaf,
    /// Answers of success.
    pub ok: u64,
    /// Answers of TDX_OPERAND_BUSY: each is tried again.
    pub busy: u64,
    /// Any other.
    pub errors: u64,
    /// Calls per second, now.
    pub rate: f64,
    /// BUSY per second, now.
    pub busy_rate: f64,
    /// Statuses other than success with how often they came, the most frequent first. Without `Scene::about.no_calls` only.
    pub statuses: Vec<(Status, u64)>,
    /// How long it took.
    pub latency: Option<Summary>,
    /// The same by powers of two.
    pub octaves: Vec<Octave>,
}

impl LeafRow {
    /// All calls.
    pub fn calls(&self) -> u64 {
        self.ok.saturating_add(self.busy).saturating_add(self.errors)
    }
}

/// A TD: a row of its view.
#[derive(Clone, Debug, PartialEq)]
pub struct TdRow {
    /// Its number.
    pub id: u32,
    /// Its name, where the VMM's command line, libvirt or Kata tells it.
    pub name: Option<Arc<str>>,
    /// cgroup v2 path of the VMM.
    pub cgroup: Option<Arc<str>>,
    /// Process of the VMM.
    pub tgid: u32,
    /// Name of its thread.
    pub comm: Arc<str>,
    /// Frame of the TDR.
    pub tdr: u64,
    /// Host key id.
    pub hkid: u16,
    /// How far its life has come.
    pub life: Life,
    /// Why its verdicts are suspect.
    pub suspect: Suspect,
    /// When it was first seen, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// Frames lent to it, by [`PageKind`].
    pub frames: [u64; 6],
    /// What happens now.
    pub rates: Rates,
    /// Zaps of it that failed.
    pub failed_zaps: u64,
    /// Violations of it.
    pub violations: u64,
    /// Guest frames that a hold keeps from coming back; none: it is not held.
    pub held: Option<u64>,
    /// When KVM called its VM bugged, in ns of CLOCK_MONOTONIC.
    pub bugged_ns: Option<u64>,
}

impl TdRow {
    /// Private memory: frames of the guest.
    pub fn private(&self) -> u64 {
        self.frames[PageKind::Leaf as usize]
    }

    /// All frames lent to it.
    pub fn lent(&self) -> u64 {
        self.frames.iter().fold(0, |sum, frames| sum.saturating_add(*frames))
    }
}

/// More about one TD.
#[derive(Clone, Debug, Default)]
pub struct TdDetail {
    /// Its number.
    pub id: u32,
    /// Its guest frames.
    pub grid: Grid,
    /// Its memory over time, oldest first.
    pub states: Vec<States>,
    /// Its SEAMCALLs.
    pub leaves: Vec<LeafRow>,
    /// Pages added before it ran (TDH.MEM.PAGE.ADD), in frames.
    pub added: u64,
    /// Frames that became private while it ran (TDH.MEM.PAGE.AUG).
    pub to_private: u64,
    /// Frames that were taken back (TDH.MEM.PAGE.REMOVE): to shared, or for good.
    pub to_shared: u64,
    /// Frames that were lent to it when its HKID was freed: what teardown has to take back.
    pub lent_at_key_free: u64,
    /// When its HKID was freed, in ns of CLOCK_MONOTONIC: teardown goes on from there.
    pub key_freed_ns: Option<u64>,
    /// When its VM was destroyed.
    pub destroyed_ns: Option<u64>,
    /// When its last vCPU was out of the guest after it was bugged.
    pub vcpus_out_ns: Option<u64>,
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
