//! A violation in words that a person, a policy or a JSON reader can use.

use septwatch_common::{
    Leaf, Level, Line, PageKind, State, Status, Suspect, Violation,
    kvm::GmemOp,
    sept::{self, Entry, LevelState},
    wire::{Hook, LetGo, ViolationEvent},
    zap::{PFN_UNKNOWN, Zap},
};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::text;

/// How a frame came to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No step of a zap was ever tried.
    ZapNeverTried,
    /// A step of its zap failed.
    ZapFailed,
    /// Its zap, or the invalidation that was to zap it, had begun, and nothing had failed.
    ZapUnderWay,
}

impl Cause {
    /// Name for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZapNeverTried => "zap-never-tried",
            Self::ZapFailed => "zap-failed",
            Self::ZapUnderWay => "zap-under-way",
        }
    }
}

/// A SEAMCALL that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which; none where KVM gave a zap up before its first.
    pub leaf: Option<Leaf>,
    /// RAX.
    pub status: Status,
    /// RCX and RDX, where they describe an entry of the S-EPT.
    pub entry: Option<(Entry, LevelState)>,
    /// When it returned, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub violation: Violation,
    /// Why it may be wrong; empty: it is certain.
    pub suspect: Suspect,
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// CPU.
    pub cpu: u16,
    /// The TD's number.
    pub td: Option<u32>,
    /// Frame of its TDR.
    pub tdr: Option<u64>,
    /// The frame.
    pub pfn: Option<u64>,
    /// The guest frame, of a leaf or of what an S-EPT page maps.
    pub gfn: Option<u64>,
    /// The line just before; none where no frame is known.
    pub line: Option<Line>,
    /// How a released frame came to be released.
    pub cause: Option<Cause>,
    /// The SEAMCALL that failed, now or before.
    pub failed: Option<Failed>,
    /// From the SEAMCALL that failed to this, in ns; where it is this that failed, there is none.
    pub since_failed_ns: Option<u64>,
    /// From the frame's release to its reuse, in ns.
    pub window_ns: Option<u64>,
    /// How long the TD's invalidation was under way, in ns, where one was.
    pub invalidation_ns: Option<u64>,
    /// How the frame left its guest_memfd, where that was seen.
    pub let_go: Option<LetGo>,
    /// Frames concerned.
    pub frames: u64,
    /// What saw it.
    pub hook: &'static str,
    /// Process, thread, its name and cgroup v2 id: who was running.
    pub tgid: u32,
    /// See `tgid`.
    pub tid: u32,
    /// See `tgid`.
    pub comm: String,
    /// See `tgid`.
    pub cgroup: u64,
    /// Return addresses in the kernel, innermost first.
    pub kernel_stack: Vec<u64>,
    /// Return addresses in the process, innermost first.
    pub user_stack: Vec<u64>,
}

impl Verdict {
    /// The verdict that an event carries; none if it names a violation that this version does not know.
    pub fn of(event: &ViolationEvent) -> Option<Self> {
        let violation = Violation::from_number(event.violation)?;
        let line = Line(event.line);
        let line = line.is_open().then_some(line);
        let released = matches!(
            violation,
            Violation::FreedWhileMapped | Violation::FreedWhileBlocked | Violation::FreedUnflushed
        );
        let reused = violation == Violation::ReusedWhileMapped;
        let failed = failed(&event.zap);
        let time_ns = event.header.time_ns;
        let has_gfn = line.is_none_or(|line| matches!(line.kind(), PageKind::Leaf | PageKind::Sept));
        let names_gfn = event.gfn != 0 || line.is_some();
        Some(Self {
            violation,
            suspect: Suspect(event.suspect),
            time_ns,
            cpu: event.header.cpu,
            td: (event.td_id != 0).then_some(event.td_id),
            tdr: (event.td_id != 0).then_some(event.tdr),
            pfn: (event.pfn != PFN_UNKNOWN).then_some(event.pfn),
            gfn: (has_gfn && names_gfn).then_some(event.gfn),
            line,
            cause: released.then(|| cause(event)),
            failed,
            since_failed_ns: failed
                .filter(|_| released || reused || violation == Violation::VmBugged)
                .map(|failed| time_ns.saturating_sub(failed.time_ns)),
            window_ns: (reused && event.released_ns != 0).then(|| time_ns.saturating_sub(event.released_ns)),
            invalidation_ns: (event.invalidation_ns != 0)
                .then(|| time_ns.saturating_sub(event.invalidation_ns)),
            let_go: (event.let_go.time_ns != 0).then_some(event.let_go),
            frames: event.frames,
            hook: hook(event.hook),
            tgid: event.header.tgid,
            tid: event.tid,
            comm: text(&event.comm),
            cgroup: event.cgroup,
            kernel_stack: stack(&event.kernel_stack, event.kernel_frames),
            user_stack: stack(&event.user_stack, event.user_frames),
        })
    }

    /// `certain` or `suspect`.
    pub const fn confidence(&self) -> &'static str {
        if self.suspect.is_certain() { "certain" } else { "suspect" }
    }
}

fn cause(event: &ViolationEvent) -> Cause {
    if event.zap.has_failed() {
        Cause::ZapFailed
    } else if event.zap.begun_ns != 0 || event.invalidation_ns != 0 {
        Cause::ZapUnderWay
    } else {
        Cause::ZapNeverTried
    }
}

fn failed(zap: &Zap) -> Option<Failed> {
    let status = Status(zap.failed_status);
    zap.has_failed().then(|| Failed {
        // None: KVM gave it up without one (Zap::NO_SEAMCALL).
        leaf: Leaf::from_number(u64::from(zap.failed_leaf)),
        status,
        entry: sept::described(status, zap.ext_err1, zap.ext_err2),
        time_ns: zap.failed_ns,
    })
}

/// Name of what saw something, by its number on the wire.
pub(crate) fn hook(number: u8) -> &'static str {
    match number {
        n if n == Hook::PageFree as u8 => "mm_page_free",
        n if n == Hook::PageFreeBatched as u8 => "mm_page_free_batched",
        n if n == Hook::PageAlloc as u8 => "mm_page_alloc",
        n if n == Hook::MakeAllCpusRequest as u8 => "kvm_make_all_cpus_request",
        n if n == Hook::Zap as u8 => "tdx_sept_remove_private_spte",
        n if n == Hook::ErrorFolio as u8 => "kvm_gmem_error_folio",
        n if n == Hook::FaultUserMapping as u8 => "kvm_gmem_fault_user_mapping",
        n if n == Hook::MigrateFolio as u8 => "kvm_gmem_migrate_folio",
        n => Leaf::from_number(u64::from(n)).map_or("unknown", Leaf::name),
    }
}

fn stack(addresses: &[u64], frames: u8) -> Vec<u64> {
    addresses.iter().take(usize::from(frames)).copied().collect()
}

/// A number that people and tools know in hexadecimal.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// How a frame left its guest_memfd.
struct Gmem {
    let_go: LetGo,
    /// When it was released.
    time_ns: u64,
}

impl Serialize for Gmem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Gmem", 6)?;
        object.serialize_field("inode", &self.let_go.inode)?;
        object.serialize_field("index", &self.let_go.index)?;
        object.serialize_field("operation", &GmemOp::from_number(self.let_go.op).name())?;
        object.serialize_field("references_held", &self.let_go.held())?;
        object.serialize_field("tid", &self.let_go.tid)?;
        object.serialize_field("since_ns", &self.time_ns.saturating_sub(self.let_go.time_ns))?;
        object.end()
    }
}

/// One object: every key is always there, null where there is nothing to say.
impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Verdict", 33)?;
        let hex = |addresses: &[u64]| addresses.iter().map(|address| Hex(*address)).collect::<Vec<_>>();
        let leaf = self.line.filter(|line| matches!(line.kind(), PageKind::Leaf | PageKind::Sept));
        object.serialize_field("type", "violation")?;
        object.serialize_field("violation", self.violation.name())?;
        object.serialize_field("confidence", self.confidence())?;
        object.serialize_field("reasons", &self.suspect.reasons().collect::<Vec<_>>())?;
        object.serialize_field("time_ns", &self.time_ns)?;
        object.serialize_field("cpu", &self.cpu)?;
        object.serialize_field("td", &self.td)?;
        object.serialize_field("tdr_pfn", &self.tdr)?;
        object.serialize_field("pfn", &self.pfn)?;
        object.serialize_field("gfn", &self.gfn)?;
        object.serialize_field("level", &leaf.map(Line::level).map(Level::name))?;
        object.serialize_field("kind", &self.line.map(Line::kind).map(PageKind::name))?;
        object.serialize_field("state", &self.line.map(Line::state).map(State::name))?;
        object.serialize_field("frames", &self.frames)?;
        object.serialize_field("cause", &self.cause.map(Cause::name))?;
        let failed = self.failed;
        object.serialize_field("failed_leaf", &failed.and_then(|failed| failed.leaf).map(Leaf::name))?;
        object.serialize_field("failed_status", &failed.map(|failed| Hex(failed.status.0)))?;
        object.serialize_field("failed_status_name", &failed.and_then(|failed| failed.status.name()))?;
        let entry = failed.and_then(|failed| failed.entry);
        object.serialize_field("sept_entry", &entry.map(|(entry, _)| entry.to_string()))?;
        object.serialize_field("sept_state", &entry.map(|(_, state)| state.to_string()))?;
        object.serialize_field("failed_ns", &failed.map(|failed| failed.time_ns))?;
        object.serialize_field("since_failed_zap_ns", &self.since_failed_ns)?;
        object.serialize_field("window_ns", &self.window_ns)?;
        object.serialize_field("invalidation_ns", &self.invalidation_ns)?;
        object.serialize_field(
            "guest_memfd",
            &self.let_go.map(|let_go| Gmem { let_go, time_ns: self.time_ns }),
        )?;
        object.serialize_field("hook", self.hook)?;
        object.serialize_field("pid", &self.tgid)?;
        object.serialize_field("tid", &self.tid)?;
        object.serialize_field("comm", &self.comm)?;
        object.serialize_field("cgroup", &self.cgroup)?;
        object.serialize_field("kernel_stack", &hex(&self.kernel_stack))?;
        object.serialize_field("user_stack", &hex(&self.user_stack))?;
        object.end()
    }
}
