//! Events as rows of one table: every event has the same columns, empty where one does not apply to it.

use std::borrow::Cow;

use septwatch_common::{
    Leaf, Level, Life, Line, PageKind, Status, Suspect, Violation,
    kvm::VmStage,
    wire::{Header, SeamcallErr, ViolationEvent},
    zap::PFN_UNKNOWN,
};

use crate::{
    model::{
        text,
        verdict::{Verdict, hook},
    },
    recording::header::Clock,
    source::event::Event,
};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Moment in ns since 1970, UTC.
    Realtime,
    /// Number of up to 64 bits.
    Number,
    /// Number of up to 32 bits.
    Small,
    /// Number of 64 bits that people know in hexadecimal.
    Word,
    /// Text.
    Text,
}

/// What is in a row at a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// A number, or a moment.
    Number(u64),
    /// Text.
    Text(Cow<'static, str>),
}

impl<N: Into<u64>> From<Option<N>> for Cell {
    fn from(number: Option<N>) -> Self {
        number.map_or(Self::Empty, |number| Self::Number(number.into()))
    }
}

/// A column.
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What that is, for people.
    pub what: &'static str,
    /// What a row has there.
    pub cell: fn(&Row) -> Cell,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    time_ns: u64,
    realtime_ns: u64,
    cpu: u16,
    seq: u64,
    kind: &'static str,
    td: Option<u32>,
    tdr: Option<u64>,
    tdvpr: Option<u64>,
    leaf: Option<&'static str>,
    hook: Option<&'static str>,
    stage: Option<&'static str>,
    gfn: Option<u64>,
    level: Option<&'static str>,
    pfn: Option<u64>,
    page: Option<&'static str>,
    state: Option<&'static str>,
    hkid: Option<u16>,
    status: Option<u64>,
    status_name: Option<&'static str>,
    ext_err1: Option<u64>,
    ext_err2: Option<u64>,
    took_ns: Option<u32>,
    violation: Option<&'static str>,
    confidence: Option<&'static str>,
    reasons: Option<String>,
    cause: Option<&'static str>,
    since_failed_ns: Option<u64>,
    window_ns: Option<u64>,
    frames: Option<u64>,
    pid: u32,
    tid: u32,
    comm: Option<String>,
    cgroup: Option<u64>,
}

fn named(name: Option<&'static str>) -> Cell {
    name.map_or(Cell::Empty, |name| Cell::Text(Cow::Borrowed(name)))
}

fn said(text: &Option<String>) -> Cell {
    text.clone().map_or(Cell::Empty, |text| Cell::Text(Cow::Owned(text)))
}

macro_rules! columns {
    ($($name:literal $kind:ident $what:literal $cell:expr),* $(,)?) => {
        /// The columns, in their order.
        pub const COLUMNS: &[Column] =
            &[$(Column { name: $name, kind: Kind::$kind, what: $what, cell: $cell }),*];
    };
}

columns! {
    "time_ns" Number "ns of CLOCK_MONOTONIC" |row| Some(row.time_ns).into(),
    "realtime" Realtime "the same moment, UTC" |row| Some(row.realtime_ns).into(),
    "cpu" Small "CPU" |row| Some(u64::from(row.cpu)).into(),
    "seq" Number "number of the record, on its CPU: td, vm and violation, or seamcall and frame"
        |row| Some(row.seq).into(),
    "type" Text "td, vm, seamcall, frame, violation or unknown-violation" |row| named(Some(row.kind)),
    "td" Small "number of the TD that it is about, where known" |row| row.td.into(),
    "tdr_pfn" Number "frame of its TDR" |row| row.tdr.into(),
    "tdvpr_pfn" Number "frame of the vCPU's TDVPR: TDH.VP.ADDCX" |row| row.tdvpr.into(),
    "leaf" Text "the SEAMCALL; of a violation, the one that failed" |row| named(row.leaf),
    "hook" Text "what saw it, if no SEAMCALL of its own" |row| named(row.hook),
    "stage" Text "of td and vm: which stage of its life" |row| named(row.stage),
    "gfn" Number "guest frame" |row| row.gfn.into(),
    "level" Text "size of the leaf: 4K, 2M, 1G" |row| named(row.level),
    "pfn" Number "frame" |row| row.pfn.into(),
    "page" Text "of a violation: what the frame is lent as" |row| named(row.page),
    "state" Text "of a violation: what the TDX module held of the frame" |row| named(row.state),
    "hkid" Small "host key id" |row| row.hkid.into(),
    "status" Word "RAX; of a violation, of the SEAMCALL that failed" |row| row.status.into(),
    "status_name" Text "its name" |row| named(row.status_name),
    "ext_err1" Word "RCX" |row| row.ext_err1.into(),
    "ext_err2" Word "RDX" |row| row.ext_err2.into(),
    "took_ns" Small "how long the SEAMCALL took" |row| row.took_ns.into(),
    "violation" Text "which violation" |row| named(row.violation),
    "confidence" Text "certain or suspect" |row| named(row.confidence),
    "reasons" Text "why suspect, separated by spaces" |row| said(&row.reasons),
    "cause" Text "how a released frame came to be released" |row| named(row.cause),
    "since_failed_ns" Number "from the SEAMCALL that failed to the violation" |row| row.since_failed_ns.into(),
    "window_ns" Number "from the frame's release to its reuse" |row| row.window_ns.into(),
    "frames" Number "of td and vm: frames lent; of a violation: frames concerned" |row| row.frames.into(),
    "pid" Small "process of the task that was running" |row| Some(row.pid).into(),
    "tid" Small "its thread" |row| Some(row.tid).into(),
    "comm" Text "name of the thread: td, vm, violation" |row| said(&row.comm),
    "cgroup" Number "cgroup v2 id of the task: td, violation" |row| row.cgroup.into(),
}

fn known(pfn: u64) -> Option<u64> {
    (pfn != PFN_UNKNOWN).then_some(pfn)
}

impl Row {
    /// An event as a row. `td` is the TD that it is about; `verdict` that of a violation.
    pub fn of(event: &Event, verdict: Option<&Verdict>, td: Option<u32>, clock: &Clock) -> Self {
        let Header { time_ns, seq, tgid, cpu, .. } = *event.header();
        let realtime_ns = clock.realtime_of(time_ns);
        let row = Self { time_ns, realtime_ns, cpu, seq, pid: tgid, td, ..Self::default() };
        match event {
            Event::Life(life) => Self {
                kind: "td",
                tdr: Some(life.tdr),
                stage: Life::from_number(life.life).map(Life::name),
                hkid: Some(life.hkid),
                reasons: reasons(Suspect(life.suspect)),
                frames: Some(life.lent),
                tid: life.tid,
                comm: Some(text(&life.comm)),
                cgroup: Some(life.cgroup),
                ..row
            },
            Event::Vm(vm) => Self {
                kind: "vm",
                tdr: Some(vm.tdr),
                stage: VmStage::from_number(vm.stage).map(VmStage::name),
                frames: Some(vm.lent),
                tid: vm.tid,
                comm: Some(text(&vm.comm)),
                ..row
            },
            Event::Call(call) => row.call(call),
            Event::Frame(frame) => Self {
                kind: "frame",
                hook: Some(hook(frame.hook)),
                pfn: known(frame.pfn),
                tid: frame.tid,
                ..row
            },
            Event::Violation(event) => row.violation(event, verdict),
        }
    }

    fn call(self, event: &SeamcallErr) -> Self {
        let SeamcallErr { call, status, ext_err1, ext_err2 } = *event;
        let leaf = Leaf::from_number(u64::from(call.leaf));
        let of_vcpu = leaf == Some(Leaf::VpAddcx);
        let about_gpa = leaf.is_some_and(Leaf::names_gpa);
        Self {
            kind: "seamcall",
            tdr: known(call.tdr).filter(|_| !of_vcpu),
            tdvpr: known(call.tdr).filter(|_| of_vcpu),
            leaf: leaf.map(Leaf::name),
            gfn: about_gpa.then_some(call.gfn),
            level: Level::from_tdx(u64::from(call.level)).filter(|_| about_gpa).map(Level::name),
            pfn: known(call.pfn),
            hkid: (leaf == Some(Leaf::MngCreate)).then_some(call.hkid),
            status: Some(status),
            status_name: Status(status).name(),
            ext_err1: (status != 0).then_some(ext_err1),
            ext_err2: (status != 0).then_some(ext_err2),
            took_ns: (call.took_ns != 0).then_some(call.took_ns),
            tid: call.tid,
            ..self
        }
    }

    fn violation(self, event: &ViolationEvent, verdict: Option<&Verdict>) -> Self {
        let Some(verdict) = verdict else {
            return Self { kind: "unknown-violation", tid: event.tid, ..self };
        };
        let failed = verdict.failed.filter(|failed| failed.leaf.is_some());
        let leveled = verdict.line.filter(|line| matches!(line.kind(), PageKind::Leaf | PageKind::Sept));
        Self {
            kind: "violation",
            tdr: verdict.tdr,
            leaf: failed.and_then(|failed| failed.leaf).map(Leaf::name),
            hook: Some(verdict.hook),
            gfn: verdict.gfn,
            level: leveled.map(Line::level).map(Level::name),
            pfn: verdict.pfn,
            page: verdict.line.map(|line| line.kind().name()),
            state: verdict.line.map(|line| line.state().name()),
            status: failed.map(|failed| failed.status.0),
            status_name: failed.and_then(|failed| failed.status.name()),
            ext_err1: failed.map(|_| event.zap.ext_err1),
            ext_err2: failed.map(|_| event.zap.ext_err2),
            violation: Some(Violation::name(verdict.violation)),
            confidence: Some(verdict.confidence()),
            reasons: reasons(verdict.suspect),
            cause: verdict.cause.map(|cause| cause.name()),
            since_failed_ns: verdict.since_failed_ns,
            window_ns: verdict.window_ns,
            frames: Some(verdict.frames),
            tid: verdict.tid,
            comm: Some(verdict.comm.clone()),
            cgroup: Some(verdict.cgroup),
            ..self
        }
    }
}

fn reasons(suspect: Suspect) -> Option<String> {
    (!suspect.is_certain()).then(|| suspect.reasons().collect::<Vec<_>>().join(" "))
}

/// A moment in ns since 1970 as RFC 3339 writes it, in UTC.
pub fn rfc3339(realtime_ns: u64) -> String {
    let (seconds, ns) = (realtime_ns / 1_000_000_000, realtime_ns % 1_000_000_000);
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin with March, in cycles of 400, so that a leap day is the last of its year.
    days += 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + cycle * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_a_date() {
        for (ns, date) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_570_394_157_724_877, "2026-11-25T01:33:14.157724877Z"),
            (4_107_542_399_000_000_000, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(ns), date);
        }
    }

    #[test]
    fn columns_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), COLUMNS.len());
    }
}
