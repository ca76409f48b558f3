//! Every family: its name, what it counts, and what it tells.
//!
//! A name is OpenTelemetry's; Prometheus has it with underscores, its unit, and `total`: the same that comes of it where
//! Prometheus takes OpenTelemetry in. <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>

use super::families::{
    Family,
    Unit::{Bytes, Of, Seconds},
};

pub const BUILD: Family = Family::new(
    "septwatch.build",
    Of("{agent}"),
    "This agent, the kernel and the TDX module that it watches",
);
pub const PROCESS_CPU: Family =
    Family::new("process.cpu.time", Seconds, "User and system time that the agent took")
        .known_as("process_cpu");
pub const PROCESS_MEMORY: Family = Family::new("process.memory.usage", Bytes, "Memory of the agent in RAM")
    .known_as("process_resident_memory");
pub const PROCESS_START: Family =
    Family::new("process.start_time", Seconds, "When the agent was started, since 1970");
pub const PROCESS_FILES: Family = Family::new(
    "process.unix.file_descriptor.count",
    Of("{file_descriptor}"),
    "Descriptors that are open in the agent",
)
.known_as("process_open_fds");
pub const SNAPSHOT_AGE: Family = Family::new(
    "septwatch.snapshot.age",
    Seconds,
    "Since the watching thread last put down how the host stands",
);
pub const OUTPUT_EVENTS: Family =
    Family::new("septwatch.output.events", Of("{event}"), "Events that an output was given");
pub const OUTPUT_DELIVERED_EVENTS: Family =
    Family::new("septwatch.output.delivered_events", Of("{event}"), "Events that an output passed on");
pub const OUTPUT_LOST_EVENTS: Family =
    Family::new("septwatch.output.lost_events", Of("{event}"), "Events that an output will never pass on");
pub const OUTPUT_WAITING_EVENTS: Family =
    Family::new("septwatch.output.waiting_events", Of("{event}"), "Events that wait at an output");
pub const OUTPUT_FAILING: Family = Family::new(
    "septwatch.output.failing",
    Of("{output}"),
    "1: the last event that an output was given was lost",
);
pub const OUTPUT_DELAY: Family = Family::new(
    "septwatch.output.delay",
    Seconds,
    "From a violation in the kernel to an output having passed it on",
);
pub const DETECTION_DELAY: Family = Family::new(
    "septwatch.detection.delay",
    Seconds,
    "From a violation in the kernel to the agent knowing of it",
);
pub const WINDOW: Family = Family::new(
    "septwatch.window",
    Seconds,
    "How long things stayed wrong, by where the span begins and ends",
);
pub const SEAMCALL_DURATION: Family = Family::new(
    "septwatch.seamcall.duration",
    Seconds,
    "From the entry of the kernel's function around a SEAMCALL to its return",
);
pub const POLICY_ARMED: Family = Family::new(
    "septwatch.policy.armed",
    Of("{policy}"),
    "1: the policy acts; 0: it only says what it would do",
);
pub const POLICY_GAPS: Family = Family::new(
    "septwatch.policy.gaps",
    Of("{reaction}"),
    "Reactions of the policy that this host cannot carry out",
);
pub const REACTIONS: Family = Family::new(
    "septwatch.reactions",
    Of("{step}"),
    "Steps of the policy since the agent began, by permit (do, dry, refused) and result",
);
pub const HOOK_ATTACHED: Family = Family::new(
    "septwatch.hook.attached",
    Of("{hook}"),
    "1: the hook is attached; 0: this kernel has none, and what it detects is not detected",
);
pub const VIOLATIONS: Family =
    Family::new("septwatch.violations", Of("{violation}"), "Violations since the ledger began").of_ledger();
pub const SUSPECT_VIOLATIONS: Family = Family::new(
    "septwatch.suspect_violations",
    Of("{violation}"),
    "Violations since the agent began whose verdict is suspect",
);
pub const LAST_VIOLATION_TIMESTAMP: Family = Family::new(
    "septwatch.last_violation.timestamp",
    Seconds,
    "When the last violation was, since 1970; 0: none since the agent began",
);
pub const SEAMCALLS: Family = Family::new(
    "septwatch.seamcalls",
    Of("{call}"),
    "SEAMCALLs that returned, by leaf and answer (BUSY is TDX_OPERAND_BUSY)",
)
.of_ledger();
pub const RECORDS: Family = Family::new(
    "septwatch.records",
    Of("{record}"),
    "Records that the programs in the kernel numbered, since the ledger began",
)
.of_ledger();
pub const RECEIVED_RECORDS: Family = Family::new(
    "septwatch.received_records",
    Of("{record}"),
    "Records that arrived at this agent or one before it",
)
.of_ledger();
pub const LOST_RECORDS: Family =
    Family::new("septwatch.lost_records", Of("{record}"), "Records that found the ring buffer full")
        .of_ledger();
pub const MISSED_RELEASES: Family = Family::new(
    "septwatch.missed_releases",
    Of("{release}"),
    "Releases that may have passed unseen: runs at the page allocator's tracepoints that the kernel's recursion guard dropped, and TDs that began before these were attached",
)
.of_ledger();
pub const FRAMES_OUTSIDE_LEDGER: Family = Family::new(
    "septwatch.frames_outside_ledger",
    Of("{frame}"),
    "Lent frames that found no room in the ledger",
)
.of_ledger();
pub const UNREAD_SEAMCALLS: Family =
    Family::new("septwatch.unread_seamcalls", Of("{call}"), "SEAMCALLs whose arguments could not be read")
        .of_ledger();
pub const TDS: Family =
    Family::new("septwatch.tds", Of("{td}"), "TDs that are there, by how far their lives have come");
pub const TDS_SEEN: Family =
    Family::new("septwatch.tds_seen", Of("{td}"), "TDs that were seen since the agent began");
pub const LENT: Family =
    Family::new("septwatch.lent", Bytes, "Memory that is lent to the TDX module, by what the page is");
pub const HELD: Family =
    Family::new("septwatch.held", Bytes, "Memory that a policy keeps from being given back");
pub const HELD_TDS: Family = Family::new("septwatch.held_tds", Of("{td}"), "TDs whose memory a policy holds");
pub const TD_LENT: Family = Family::new(
    "septwatch.td.lent",
    Bytes,
    "Memory that is lent to a TD; of the TDs with the most, and of those with violations",
);
pub const TD_HELD: Family =
    Family::new("septwatch.td.held", Bytes, "Memory of a TD that a policy keeps from being given back");
pub const TD_VIOLATIONS: Family =
    Family::new("septwatch.td.violations", Of("{violation}"), "Violations of a TD since the agent began");
pub const TD_SUSPECT: Family =
    Family::new("septwatch.td.suspect", Of("{td}"), "1: verdicts about this TD are suspect");
pub const RESYNC_TDS: Family = Family::new(
    "septwatch.resync.tds",
    Of("{td}"),
    "TDs that ran before the agent, by what came of taking them over: complete, suspect (verdicts stay so), waiting",
);
pub const RESYNC_FRAMES: Family = Family::new(
    "septwatch.resync.frames",
    Of("{frame}"),
    "Frames of TDs that ran before the agent that were entered into the ledger",
);
pub const AUDITS: Family = Family::new(
    "septwatch.audits",
    Of("{audit}"),
    "Comparisons of the ledger with KVM's structures since the agent began",
);
pub const AUDIT_DIFFERENCES: Family = Family::new(
    "septwatch.audit.differences",
    Of("{frame}"),
    "Frames of which the ledger and KVM said different things at the last audit",
);
pub const AUDIT_DURATION: Family =
    Family::new("septwatch.audit.duration", Seconds, "How long the last audit took");
pub const HTTP_ANSWERS: Family = Family::new(
    "septwatch.http.answers",
    Of("{request}"),
    "Requests that were answered, by class of the status",
);
pub const HTTP_REFUSED_REQUESTS: Family = Family::new(
    "septwatch.http.refused_requests",
    Of("{request}"),
    "Requests that showed no token, or a wrong one",
);
pub const HTTP_FAILED_CONNECTIONS: Family = Family::new(
    "septwatch.http.failed_connections",
    Of("{connection}"),
    "Connections that were closed at once for there were too many, that took too long, or that broke off",
);
