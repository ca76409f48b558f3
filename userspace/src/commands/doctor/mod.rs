//! `septwatch doctor`: what this host allows, hook by hook, and which detection is lost where. It gathers and
//! judges; how that reads is in `render`. It changes nothing on the host beyond the moment of trying a program.

mod compare;
mod followed;
mod render;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

pub use compare::Comparison;
pub use followed::Followed;
use serde::Serialize;

use crate::commands::exit;
use crate::hooks::{
    btf::{Btf, BtfError, KernelBtf, Module, SYSFS},
    host::{Allowed, Host, Probe, Tdx},
    lock::Lock,
    means::Means,
    pins::Pins,
    plan::{Missing, Plan, State, btf_names, plan, symbol_names},
    symbols::Symbols,
};
use crate::source::walk::{self, WalkError};

/// Says what septwatch can and cannot watch on this host, and what would help.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Plan for a kernel that is not running, from its BTF in DIR: files vmlinux, kvm and kvm_intel, named as in
    /// /sys/kernel/btf, with or without `.btf`. For several kernels, also what differs between them.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub btf: Vec<PathBuf>,
}

/// Doctor cannot say anything.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The BTF given with `--btf` cannot be used.
    #[error("--btf: {0}")]
    Btf(#[from] BtfError),
    /// The report cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Everything that doctor found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// The running host; None where the plan is for another kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Where type information came from.
    pub btf: BtfReport,
    /// The hooks, None without BTF.
    pub plan: Option<Plan>,
    /// What reactions can count on, None without BTF.
    pub reactions: Option<Means>,
    /// What the ledger would take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// The ledger that runs on this host, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// The policy that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followed: Option<Followed>,
    /// Whether what is lent to TDs that run already can be taken over, and audited: `works`, or why not; None without BTF.
    pub walk: Option<Probe>,
    /// Whether `septwatch demo` can run: `works`, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demo: Option<Probe>,
}

/// What it comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether TDs can be watched.
    pub can_watch: bool,
    /// In one line.
    pub line: String,
    /// What stands in the way, and what would help.
    pub problems: Vec<Problem>,
}

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What would help.
    pub help: String,
}

/// Type information.
#[derive(Clone, Debug, Serialize)]
pub struct BtfReport {
    /// The folder.
    pub dir: PathBuf,
    /// vmlinux first.
    pub parts: Vec<BtfPart>,
}

/// Type information of a part of the kernel.
#[derive(Clone, Debug, Serialize)]
pub struct BtfPart {
    /// Its name in sysfs.
    pub name: &'static str,
    /// Number of types, or why there are none.
    #[serde(flatten)]
    pub types: Types,
}

/// Number of types, or why there are none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Types {
    /// So many.
    Types(usize),
    /// None, because.
    None(String),
}

/// A ledger that is attached and pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Hooks that are attached.
    pub attached: usize,
    /// Of so many in its plan.
    pub hooks: usize,
    /// Who reads it; none: its process died or left it, and the next `septwatch watch` takes it over.
    pub reader: Option<String>,
}

/// What the ledger would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Number of 4 KiB frames of System RAM.
    pub frames: u64,
    /// The highest frame.
    pub highest_pfn: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Runs the subcommand: prints the report and returns the exit code, 0 where TDs can be watched, else 3.
///
/// # Errors
/// [`DoctorError`] where `--btf` names no usable BTF, or the report cannot be written.
pub fn run(args: &Args) -> Result<u8, DoctorError> {
    write_to(args, &mut io::stdout().lock())
}

/// The same, to any output.
///
/// # Errors
/// As [`run`].
pub fn write_to(args: &Args, out: &mut impl io::Write) -> Result<u8, DoctorError> {
    let can_watch = match args.btf.as_slice() {
        [] => show(args, &Report::of_host(), |report| report.verdict.can_watch, out)?,
        [dir] => show(args, &Report::of_btf(dir)?, |report| report.verdict.can_watch, out)?,
        dirs => show(args, &Comparison::of(dirs)?, Comparison::can_watch, out)?,
    };
    Ok(if can_watch { exit::OK } else { exit::HOST })
}

fn show<R: Serialize + fmt::Display>(
    args: &Args,
    report: &R,
    can_watch: impl FnOnce(&R) -> bool,
    out: &mut impl io::Write,
) -> io::Result<bool> {
    if args.json {
        serde_json::to_writer(&mut *out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(can_watch(report))
}

impl Report {
    /// A report on a kernel that is not running.
    ///
    /// # Errors
    /// [`BtfError`] where `dir` has no sound BTF of vmlinux.
    pub fn of_btf(dir: &Path) -> Result<Self, BtfError> {
        let btf = KernelBtf::read(dir, &btf_names())?;
        let plan = plan(&btf, None, &Allowed::assumed())?;
        let problems = hook_problems(&plan).into_iter().collect();
        let verdict = Verdict::new("on this kernel", problems, Some(&plan));
        let missing = plan.offsets.missing_for_walk();
        let walk = match missing.is_empty() {
            true => Probe::Assumed,
            false => Probe::Refused(WalkError::Members(missing).to_string()),
        };
        Ok(Self {
            verdict,
            host: None,
            btf: BtfReport::new(&btf),
            reactions: Some(Means::of(&plan, None)),
            plan: Some(plan),
            ledger: None,
            running: None,
            followed: None,
            walk: Some(walk),
            demo: None,
        })
    }

    /// A report on the running host.
    pub fn of_host() -> Self {
        let btf = KernelBtf::read(Path::new(SYSFS), &btf_names());
        let host = Host::running(btf.as_ref().ok().map(|btf| &*btf.vmlinux));
        let symbols = Symbols::running(&symbol_names());
        let mut problems = host_problems(&host);
        if let Err(error) = &symbols {
            problems
                .push(Problem { what: error.to_string(), help: "a kernel with CONFIG_KALLSYMS".to_owned() });
        }
        let planned = btf.and_then(|btf| {
            let plan = plan(&btf, Some(&symbols.unwrap_or_default()), &host.allowed)?;
            Ok((BtfReport::new(&btf), plan))
        });
        let (btf, plan) = match planned {
            Ok((btf, plan)) => (btf, Some(plan)),
            Err(error) => {
                let help = "a kernel with CONFIG_DEBUG_INFO_BTF".to_owned();
                problems.insert(0, Problem { what: error.to_string(), help });
                let part = BtfPart { name: Module::Vmlinux.name(), types: Types::None(error.to_string()) };
                (BtfReport { dir: SYSFS.into(), parts: vec![part] }, None)
            }
        };
        problems.extend(plan.as_ref().and_then(hook_problems));
        problems.extend(tdx_problem(host.tdx));
        let verdict = Verdict::new("on this host", problems, plan.as_ref());
        let ledger = host.memory.as_ref().ok().map(|memory| Ledger {
            frames: memory.frames(),
            highest_pfn: memory.highest_pfn(),
            bytes: memory.ledger_bytes(),
        });
        let demo = demo(&host, plan.as_ref());
        let running = Pins::left().map(|(_, note)| Running {
            attached: note.attached,
            hooks: note.hooks,
            reader: Lock::holder(),
        });
        let reactions = plan.as_ref().map(|plan| Means::of(plan, Some(&host)));
        let followed = Followed::running();
        let walk = plan.as_ref().map(|plan| match walk::possible(plan).and_then(|()| walk::waits()) {
            Ok(()) => Probe::Works,
            Err(error) => Probe::Refused(error.to_string()),
        });
        Self {
            walk,
            verdict,
            host: Some(host),
            btf,
            plan,
            reactions,
            ledger,
            running,
            followed,
            demo: Some(demo),
        }
    }
}

impl BtfReport {
    fn new(btf: &KernelBtf) -> Self {
        let part = |part: Module, own: Option<&Result<Btf, BtfError>>| {
            let types = match own {
                None => Types::None("built in, or not loaded".to_owned()),
                Some(Ok(btf)) => Types::Types(btf.len()),
                Some(Err(error)) => Types::None(error.to_string()),
            };
            BtfPart { name: part.name(), types }
        };
        let parts = vec![
            BtfPart { name: Module::Vmlinux.name(), types: Types::Types(btf.vmlinux.len()) },
            part(Module::Kvm, btf.kvm.as_ref()),
            part(Module::KvmIntel, btf.kvm_intel.as_ref()),
        ];
        Self { dir: btf.dir.clone(), parts }
    }
}

impl Verdict {
    fn new(place: &str, problems: Vec<Problem>, plan: Option<&Plan>) -> Self {
        let line = match problems.as_slice() {
            [] => {
                let hooks: Vec<_> = plan.iter().flat_map(|plan| &plan.hooks).collect();
                let mut lost: Vec<_> = hooks
                    .iter()
                    .filter(|hook| hook.bound().is_none())
                    .flat_map(|hook| hook.lost)
                    .copied()
                    .collect();
                lost.sort_unstable();
                lost.dedup();
                let bound = hooks.iter().filter(|hook| hook.bound().is_some()).count();
                let without = if lost.is_empty() {
                    "no detection is lost".to_owned()
                } else {
                    format!("found less surely or not at all: {}", lost.join(", "))
                };
                format!("TDs can be watched {place}: {bound} of {} hooks, {without}", hooks.len())
            }
            [only] => format!("TDs cannot be watched {place}: {}", only.what),
            [first, rest @ ..] => {
                format!("TDs cannot be watched {place}: {} (and {} more)", first.what, rest.len())
            }
        };
        Self { can_watch: problems.is_empty(), line, problems }
    }
}

fn host_problems(host: &Host) -> Vec<Problem> {
    let mut problems = Vec::new();
    let absent: Vec<_> =
        host.capabilities.iter().filter(|cap| cap.required && !cap.held).map(|cap| cap.name).collect();
    if !absent.is_empty() {
        problems.push(Problem {
            what: format!("this process lacks {}", absent.join(", ")),
            help: format!("run it as root, or give it AmbientCapabilities={} in its unit", absent.join(" ")),
        });
    }
    let mut refused = |what: &str, probe: &Probe, help: &str| {
        if let Probe::Refused(why) = probe {
            problems.push(Problem { what: format!("{what}: {why}"), help: help.to_owned() });
        }
    };
    let allowed = &host.allowed;
    refused("ring buffer", &allowed.ring_buffer, "CAP_BPF, and room for it in the memory cgroup");
    refused(
        "bpf_probe_read_kernel",
        &allowed.read_kernel,
        "CAP_PERFMON, and a kernel that is not in lockdown confidentiality",
    );
    if let Err(why) = &host.memory {
        problems.push(Problem { what: format!("System RAM: {why}"), help: "CAP_SYS_ADMIN".to_owned() });
    }
    problems
}

/// One problem for all required hooks that are missing for the same kind of reason.
fn hook_problems(plan: &Plan) -> Option<Problem> {
    let missing: Vec<_> = plan.missing_required().collect();
    let first = missing.first()?;
    let State::Missing { reason } = &first.state else { return None };
    let help = match reason {
        Missing::NotInBtf { .. } => "a kernel with CONFIG_INTEL_TDX_HOST and CONFIG_KVM_INTEL_TDX",
        Missing::NotAllowed(_) => "a kernel that lets this process attach fexit or kprobe programs",
        Missing::Shape { .. } | Missing::Ambiguous(_) => "a septwatch that knows this kernel's prototypes",
        Missing::BadBtf(_) => "the BTF of this very kernel's modules",
    };
    let what = format!("{} required hooks are missing, the first is {}: {reason}", missing.len(), first.name);
    Some(Problem { what, help: help.to_owned() })
}

fn tdx_problem(tdx: Tdx) -> Option<Problem> {
    let (what, help) = match tdx {
        Tdx::Enabled => return None,
        Tdx::Disabled => (
            "TDX is off: /sys/module/kvm_intel/parameters/tdx is N",
            "TDX enabled in the firmware, and kvm_intel.tdx=1",
        ),
        Tdx::NotBuilt => ("kvm_intel knows no TDX", "a kernel with CONFIG_KVM_INTEL_TDX"),
        Tdx::NoKvmIntel => ("kvm_intel is not loaded", "an Intel CPU with TDX, and kvm_intel loaded"),
    };
    Some(Problem { what: what.to_owned(), help: help.to_owned() })
}

/// The demo needs the page allocator's side of the kernel, and uprobes for its own functions.
fn demo(host: &Host, plan: Option<&Plan>) -> Probe {
    let Some(release) = plan.and_then(|plan| plan.hook("mm_page_free")) else {
        return Probe::Refused("needs the kernel's BTF".to_owned());
    };
    if let State::Missing { reason } = &release.state {
        return Probe::Refused(format!("mm_page_free: {reason}"));
    }
    let needed = [
        ("uprobe", &host.allowed.uprobe),
        ("ring buffer", &host.allowed.ring_buffer),
        ("reading", &host.allowed.read_kernel),
    ];
    match needed.into_iter().find(|(_, probe)| !probe.usable()) {
        Some((what, Probe::Refused(why))) => Probe::Refused(format!("{what}: {why}")),
        _ => Probe::Works,
    }
}
