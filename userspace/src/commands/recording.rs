//! Recording, for the commands that can: what a recording says of this host, and passing events on to it.

use std::path::Path;

use anyhow::Result;

use super::BadInput;
use crate::{
    hooks::{
        attach,
        host::{Memory, build_id, tdx_module},
        pins::HookNote,
    },
    model::verdict::Verdict,
    recording::{
        files::{FileError, Written},
        header::{
            Clock, Counted, End, Header, HookFact, HostFacts, KernelFacts, LedgerFacts, Note, Origin,
            Streams, What, Why,
        },
        reader::{OpenError, Reader},
        recorder::Recorder,
        schema,
    },
    source::{
        event::Event,
        kernel::{Kernel, KernelError},
        open::{Opened, Options},
        session::Session,
    },
    view::stack::Places,
};

/// The header of a recording that begins now.
pub fn header(
    what: What,
    origin: Origin,
    kernel: &Kernel,
    plan: Vec<HookFact>,
    options: &Options,
    ledger: LedgerFacts,
) -> Header {
    let limited = options.ledger_limit.is_some();
    Header {
        septwatch: env!("CARGO_PKG_VERSION").to_owned(),
        what,
        origin,
        part: 0,
        latency: options.latency,
        kernel: running_kernel(),
        host: HostFacts {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            frames: Memory::running().map_or(0, |memory| memory.frames()),
        },
        plan,
        ledger: LedgerFacts { limited, ..ledger },
        clock: Clock::now(),
        before: kernel.before().iter().map(Streams::from).collect(),
        minimized: None,
        schema: schema::current(),
    }
}

/// The kernel that runs.
pub fn running_kernel() -> KernelFacts {
    let uname = rustix::system::uname();
    KernelFacts {
        release: uname.release().to_string_lossy().into_owned(),
        version: uname.version().to_string_lossy().into_owned(),
        build_id: build_id(),
        tdx_module: tdx_module(),
    }
}

/// The hooks and the ledger of programs that run here, as a recording tells them.
pub fn of_opened(opened: &Opened) -> (Vec<HookFact>, LedgerFacts) {
    let fact = |HookNote { name, bound, missing }: HookNote| HookFact { name, bound, missing };
    let plan = opened.told.iter().cloned().map(fact).collect();
    let premap_exempt = opened.plan.as_ref().is_some_and(|plan| plan.offsets.kvm_tdx_nr_premapped.is_some());
    (plan, LedgerFacts { premap_exempt, taken_over: opened.taken_over, ..LedgerFacts::default() })
}

/// The hooks of the demo.
pub fn demo_hooks() -> Vec<HookFact> {
    let fact =
        |name: &str, bound: String| HookFact { name: name.to_owned(), bound: Some(bound), missing: None };
    let calls = septwatch_common::config::HOOKED.iter().filter_map(|leaf| attach::function(*leaf));
    let tracepoints = ["mm_filemap_delete_from_page_cache", "mm_page_free", "mm_page_free_batched"];
    calls
        .map(|name| fact(name, format!("uprobe demo:{name}")))
        .chain(tracepoints.into_iter().map(|name| fact(name, format!("raw_tp vmlinux:{name}"))))
        .collect()
}

/// What was counted up to now.
///
/// # Errors
/// The kernel side cannot be read.
pub fn counted(session: &mut Session) -> Result<Counted, KernelError> {
    let kernel = session.kernel();
    let missed_releases = kernel.runs()?.missed_pages;
    Ok(Counted::of(Clock::now().monotonic_ns, &kernel.counters_by_cpu()?, missed_releases))
}

/// Records an event, and the places in its stacks if it is a violation.
pub fn event(recorder: &mut Recorder, event: &Event, found: Option<(&Verdict, &Places)>) {
    recorder.event(event);
    if let Some((_, Places { kernel, user })) = found {
        recorder.note(&Note::Places { kernel: kernel.clone(), user: user.clone() });
    }
}

/// Once everything that was there has been recorded.
///
/// # Errors
/// The kernel side cannot be read.
pub fn pumped(recorder: &mut Recorder, session: &mut Session) -> Result<(), KernelError> {
    if recorder.wants_count() {
        recorder.note(&Note::Counted(counted(session)?));
    }
    recorder.tend();
    Ok(())
}

/// Ends a recording.
///
/// # Errors
/// The kernel side cannot be read.
pub fn finish(recorder: Recorder, session: &mut Session, why: Why) -> Result<Written, KernelError> {
    let counted = counted(session)?;
    Ok(recorder.finish(End { why, clock: Clock::now(), counted: Some(counted), unwritten: 0 }))
}

/// What came of a recording, in a line; and, if it could not be written to its end, why.
pub fn told(written: &Written) -> String {
    let Written { files, records, bytes, unwritten, short, failed } = written;
    let mut line = match files.as_slice() {
        [] => "no violation, so no file was written".to_owned(),
        [file] => format!("recorded {records} records in {bytes} bytes to {}", file.display()),
        [first, .., last] => format!(
            "recorded {records} records in {bytes} bytes; {} files from {} to {}",
            files.len(),
            first.display(),
            last.display()
        ),
    };
    if *short {
        line.push_str("; the memory for --last did not hold all of its time");
    }
    if let Some(why) = failed {
        line.push_str(&format!("; it could not be written further: {why}"));
    }
    if *unwritten != 0 {
        line.push_str(&format!("; {unwritten} records that arrived are in no file"));
    }
    line
}

/// A file that cannot be made, as an error of its flag.
pub fn flag(name: &str, error: FileError) -> anyhow::Error {
    match error {
        FileError::File { path, source } => BadInput(format!("{name} {}: {source}", path.display())).into(),
        other => anyhow::Error::new(other),
    }
}

/// A file that is no recording, or not one for this version.
pub fn unreadable(error: OpenError) -> anyhow::Error {
    BadInput(error.to_string()).into()
}

/// Whether a file is a recording that this version reads.
///
/// # Errors
/// Why it is not.
pub fn readable(path: &Path) -> Result<()> {
    Reader::open(path).map(drop).map_err(unreadable)
}

/// A recording in a line.
pub fn what_it_is(header: &Header) -> String {
    let what = match header.what {
        What::All => "all events",
        What::Life => "lifecycle and violations",
        What::Violations => "violations",
    };
    let origin = match &header.origin {
        Origin::Live => "live".to_owned(),
        Origin::Demo { scenarios, seed } => format!("demo {}, seed {seed}", scenarios.join(", ")),
    };
    let part = if header.part == 0 { String::new() } else { format!(", part {}", header.part) };
    format!(
        "recording of {what}{part}, {origin}, on Linux {}, by septwatch {}",
        header.kernel.release, header.septwatch
    )
}
