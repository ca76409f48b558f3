//! What the lines of the log say.

use septwatch_common::Violation;
use serde::Serialize;

use crate::{
    model::verdict::Verdict,
    policy::{decision::Decision, subject::Subject},
};

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// What came of a decision.
    Step(Box<Step>),
    /// What is not about a decision.
    Event(Event),
}

/// What came of a decision. Every key is always there, null where there is nothing to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `decision`
    pub r#type: &'static str,
    /// Name of the policy.
    pub policy: String,
    /// Name of the rule.
    pub rule: String,
    /// Which step of its ladder, from 0.
    pub step: usize,
    /// Name of the reaction.
    pub reaction: &'static str,
    /// Name of the violation.
    pub violation: &'static str,
    /// `certain` or `suspect`.
    pub confidence: &'static str,
    /// When it was seen, in ns of CLOCK_MONOTONIC.
    pub violation_ns: u64,
    /// The TD's number.
    pub td: Option<u32>,
    /// Frame of its TDR.
    pub tdr_pfn: Option<u64>,
    /// The frame.
    pub pfn: Option<u64>,
    /// The guest frame.
    pub gfn: Option<u64>,
    /// The TD's VMM.
    pub pid: Option<u32>,
    /// `do`, `dry` or `refused`.
    pub permit: &'static str,
    /// Why not `do`.
    pub why: Option<String>,
    /// Who did it.
    pub by: By,
    /// When it began, in ns of CLOCK_MONOTONIC.
    pub asked_ns: u64,
    /// When it was over, in ns of CLOCK_MONOTONIC.
    pub done_ns: Option<u64>,
    /// What came of it; none: nothing was done, or it is under way.
    pub result: Option<Done>,
    /// In words.
    pub detail: String,
    /// From the violation to its end, in ns.
    pub latency_ns: Option<u64>,
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The programs in the kernel.
    Kernel,
    /// This process.
    Agent,
}

impl By {
    /// `kernel` or `agent`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Agent => "agent",
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// It is done, and that was seen.
    Done,
    /// It is not.
    Failed,
    /// It was not needed: it is for when the step before fails.
    Skipped,
}

impl Step {
    /// A decision of which nothing has come yet.
    pub fn asked(
        policy: &str,
        decision: &Decision,
        verdict: &Verdict,
        subject: &Subject,
        asked_ns: u64,
    ) -> Self {
        Self {
            r#type: "decision",
            policy: policy.to_owned(),
            rule: decision.rule.clone(),
            step: decision.step,
            reaction: decision.reaction.name(),
            violation: verdict.violation.name(),
            confidence: verdict.confidence(),
            violation_ns: verdict.time_ns,
            td: verdict.td,
            tdr_pfn: verdict.tdr,
            pfn: verdict.pfn,
            gfn: verdict.gfn,
            pid: subject.tgid,
            permit: decision.permit.name(),
            why: decision.permit.why(),
            by: By::Agent,
            asked_ns,
            done_ns: None,
            result: None,
            detail: String::new(),
            latency_ns: None,
        }
    }

    /// The same, with what came of it.
    #[must_use]
    pub fn with(mut self, result: Done, detail: String, done_ns: u64) -> Self {
        self.done_ns = Some(done_ns);
        self.result = Some(result);
        self.detail = detail;
        // What is not done took no time to do.
        self.latency_ns = (result == Done::Done).then(|| done_ns.saturating_sub(self.violation_ns));
        self
    }
}

/// What is not about a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What happened.
    pub r#type: EventKind,
    /// Name of the policy; none where no agent runs.
    pub policy: Option<String>,
    /// Who asked for it.
    pub who: Who,
    /// The TD's number, where it is about one.
    pub td: Option<u32>,
    /// Frames that it is about.
    pub frames: Option<u64>,
    /// First of these frames.
    pub pfn: Option<u64>,
    /// Guest frame of it.
    pub gfn: Option<u64>,
    /// The violation, where it is about one.
    pub violation: Option<&'static str>,
    /// In words.
    pub detail: String,
}

impl Event {
    /// An event that names no TD and no frame.
    pub fn new(kind: EventKind, policy: Option<&str>, who: Who, detail: impl Into<String>) -> Self {
        Self {
            r#type: kind,
            policy: policy.map(str::to_owned),
            who,
            td: None,
            frames: None,
            pfn: None,
            gfn: None,
            violation: None,
            detail: detail.into(),
        }
    }

    /// That a frame of a held TD was released all the same.
    pub fn released_in_spite(policy: &str, verdict: &Verdict, detail: String) -> Self {
        Self {
            td: verdict.td,
            frames: Some(verdict.frames),
            pfn: verdict.pfn,
            gfn: verdict.gfn,
            violation: Some(Violation::name(verdict.violation)),
            ..Self::new(EventKind::FreedInSpiteOfHold, Some(policy), Who::this(), detail)
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// An agent began to follow a policy.
    Started,
    /// It ended in good order.
    Stopped,
    /// From now on it may act.
    Armed,
    /// From now on it may not.
    Disarmed,
    /// The policy was read again.
    Reloaded,
    /// It was to be read again, and the one before stays.
    RefusedReload,
    /// The inodes of a TD's guest_memfd were pinned before anything failed.
    HoldReady,
    /// They were let go: it ended in good order.
    ReadyDropped,
    /// A hold was ended.
    HoldReleased,
    /// New VMs are welcome again.
    Uncordoned,
    /// A frame of a held TD was released all the same.
    FreedInSpiteOfHold,
}

/// A process that asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Who {
    /// User.
    pub uid: u32,
    /// Process.
    pub pid: u32,
}

impl Who {
    /// This process.
    pub fn this() -> Self {
        Self { uid: rustix::process::getuid().as_raw(), pid: std::process::id() }
    }
}
