//! What a recording says of itself, in JSON: how it was made, on which kernel, and what was counted meanwhile.
//!
//! Nothing in here names the host, its network, a file or a command line. Stacks are addresses of the running kernel,
//! so a recording tells where that kernel lay until its next boot.
//!
//! A reader ignores fields that it does not know, and takes the default for those that an older version did not write.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};
use septwatch_common::{
    Leaf, Violation,
    config::{Answers, Counters, Produced, SHAPES},
};
use serde::{Deserialize, Serialize};

use super::schema::Layout;

/// Which events are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Every SEAMCALL and frame, lifecycle, violations.
    #[default]
    All,
    /// Lifecycle and violations.
    Life,
    /// Violations.
    Violations,
}

/// Where the events came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A kernel that runs TDs.
    #[default]
    Live,
    /// `septwatch demo`.
    Demo {
        /// Which scenarios, in their order.
        scenarios: Vec<String>,
        /// Its seed.
        seed: u64,
    },
}

/// The same moment on several clocks, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// CLOCK_MONOTONIC: what events are timed with.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME: since 1970, UTC.
    pub realtime_ns: u64,
    /// CLOCK_BOOTTIME: with the time that the host slept.
    pub boottime_ns: u64,
}

impl Clock {
    /// Now.
    pub fn now() -> Self {
        let read = |id| {
            let time = clock_gettime(id);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        Self {
            monotonic_ns: read(ClockId::Monotonic),
            realtime_ns: read(ClockId::Realtime),
            boottime_ns: read(ClockId::Boottime),
        }
    }

    /// The time of day of an event, in ns since 1970.
    pub const fn realtime_of(&self, monotonic_ns: u64) -> u64 {
        self.realtime_ns.wrapping_add(monotonic_ns.wrapping_sub(self.monotonic_ns))
    }
}

/// The kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelFacts {
    /// `uname -r`
    pub release: String,
    /// `uname -v`
    pub version: String,
    /// GNU build id of vmlinux, in hexadecimal.
    pub build_id: Option<String>,
    /// The TDX module's version, where the kernel tells it.
    pub tdx_module: Option<String>,
}

/// The host, as far as a recording depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// CPUs that are online.
    pub cpus: usize,
    /// System RAM, in frames of 4 KiB.
    pub frames: u64,
}

/// A hook of the plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookFact {
    /// Its name, the same on all kernels.
    pub name: String,
    /// How it was attached, with its function and arguments; none where it was not.
    pub bound: Option<String>,
    /// Why it was not attached.
    pub missing: Option<String>,
}

/// What a re-run of the ledger must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerFacts {
    /// See [`septwatch_common::zap::TdNow::premap_exempt`].
    pub premap_exempt: bool,
    /// Whether the ledger was not allowed to take all that it may need.
    pub limited: bool,
    /// Whether another process had begun it: lines of before are not in the recording.
    pub taken_over: bool,
}

/// What of a recording was kept to show one violation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Minimized {
    /// Name of the violation.
    pub violation: String,
    /// Which of all violations of the original it is, from 1.
    pub number: u64,
    /// Events of the original that are left out.
    pub left_out: u64,
}

/// What the first frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Version of the septwatch that wrote it.
    pub septwatch: String,
    /// Which events are in it.
    pub what: What,
    /// Where they came from.
    pub origin: Origin,
    /// Of a recording in several files, which; the first is 0.
    pub part: u32,
    /// Whether SEAMCALLs were timed.
    pub latency: bool,
    /// The kernel.
    pub kernel: KernelFacts,
    /// The host.
    pub host: HostFacts,
    /// The hooks.
    pub plan: Vec<HookFact>,
    /// The ledger.
    pub ledger: LedgerFacts,
    /// When it began.
    pub clock: Clock,
    /// What was numbered and lost before it began, by CPU.
    pub before: Vec<Streams>,
    /// Where it is what was kept of another recording: its records have their numbers of there, with gaps on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimized: Option<Minimized>,
    /// Layouts of vital records.
    pub schema: Vec<Layout>,
}

impl Header {
    /// Whether a ledger that takes in its page records has every line that the kernel's had: else a re-run tells nothing.
    pub fn has_all_lines(&self) -> bool {
        self.what == What::All && !self.ledger.taken_over
    }
}

/// Records of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Lifecycle and violations: numbered, and lost of those.
    pub vital: [u64; 2],
    /// SEAMCALLs and frames: the same.
    pub pages: [u64; 2],
}

impl From<&[Produced; 2]> for Streams {
    fn from([vital, pages]: &[Produced; 2]) -> Self {
        Self { vital: [vital.produced, vital.lost], pages: [pages.produced, pages.lost] }
    }
}

impl From<&Streams> for [Produced; 2] {
    fn from(streams: &Streams) -> Self {
        [streams.vital, streams.pages].map(|[produced, lost]| Produced { produced, lost })
    }
}

/// What the programs counted up to a moment, whether or not their records arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Records, by CPU.
    pub cpus: Vec<Streams>,
    /// Answers of SEAMCALLs by the leaf's name: success, TDX_OPERAND_BUSY, others.
    pub calls: BTreeMap<String, [u64; 3]>,
    /// Violations by name.
    pub violations: BTreeMap<String, u64>,
    /// Frames that found no room in the ledger.
    pub outside: u64,
    /// SEAMCALLs whose arguments could not be read.
    pub unread: u64,
    /// Releases that the kernel's recursion guard kept from the programs.
    pub missed_releases: u64,
}

impl Counted {
    /// From what each CPU counted.
    pub fn of(time_ns: u64, each: &[Counters], missed_releases: u64) -> Self {
        let mut counted = Self {
            time_ns,
            cpus: each.iter().map(|one| Streams::from(&[one.vital, one.pages])).collect(),
            missed_releases,
            ..Self::default()
        };
        let sum = each.iter().fold(crate::source::counters::NOTHING, crate::source::counters::add);
        counted.outside = sum.outside;
        counted.unread = sum.unread;
        for (number, Answers { ok, busy, error }) in sum.calls.into_iter().enumerate() {
            if ok + busy + error != 0
                && let Some(leaf) = Leaf::from_number(number as u64)
            {
                counted.calls.insert(leaf.name().to_owned(), [ok, busy, error]);
            }
        }
        for (violation, count) in Violation::ALL.into_iter().zip(sum.violations).filter(|(_, n)| *n != 0) {
            counted.violations.insert(violation.name().to_owned(), count);
        }
        counted
    }

    /// The same, over all CPUs. Names that this version does not know are left out.
    pub fn counters(&self) -> Counters {
        let mut sum = crate::source::counters::NOTHING;
        for streams in &self.cpus {
            let [vital, pages] = streams.into();
            sum.vital = Produced {
                produced: sum.vital.produced.saturating_add(vital.produced),
                lost: sum.vital.lost.saturating_add(vital.lost),
            };
            sum.pages = Produced {
                produced: sum.pages.produced.saturating_add(pages.produced),
                lost: sum.pages.lost.saturating_add(pages.lost),
            };
        }
        sum.outside = self.outside;
        sum.unread = self.unread;
        for number in 0..SHAPES {
            let name = Leaf::from_number(number as u64).map(Leaf::name);
            if let Some([ok, busy, error]) = name.and_then(|name| self.calls.get(name)).copied() {
                sum.calls[number] = Answers { ok, busy, error };
            }
        }
        for (violation, count) in Violation::ALL.into_iter().zip(&mut sum.violations) {
            *count = self.violations.get(violation.name()).copied().unwrap_or(0);
        }
        sum
    }
}

/// What is recorded beside events, where it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// What was counted so far.
    Counted(Counted),
    /// Names of the places in the stacks of the violation before: kernel, then process, innermost first.
    Places {
        /// Of the kernel's stack.
        kernel: Vec<String>,
        /// Of the process'.
        user: Vec<String>,
    },
    /// What somebody did who is no event, such as the demo.
    Step {
        /// When, in ns of CLOCK_MONOTONIC.
        time_ns: u64,
        /// In words.
        text: String,
    },
    /// Records that arrived, and that could not be written here.
    Unwritten {
        /// How many.
        records: u64,
        /// Why.
        why: String,
    },
    /// A note of a later version.
    #[serde(other)]
    Unknown,
}

/// Why a recording ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The recorder was asked to stop.
    #[default]
    Stopped,
    /// The command that was recorded has ended.
    CommandEnded,
    /// The time is over.
    Duration,
    /// A violation was found.
    Violation,
    /// The next file goes on.
    Rotated,
    /// It could not be written any more.
    WriteFailed,
    /// Another reason, of a later version.
    #[serde(other)]
    Unknown,
}

/// What the last frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// Why.
    pub why: Why,
    /// When.
    pub clock: Clock,
    /// What was counted by then.
    pub counted: Option<Counted>,
    /// Records that arrived and are in no file.
    pub unwritten: u64,
}
