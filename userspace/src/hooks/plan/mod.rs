//! The hook plan: what it says. How it is decided is in `decide`, a pure function of a kernel's BTF, its symbols and
//! what the host allows. Nothing is attached in here, and no file is read.

mod decide;

use std::fmt;

use serde::Serialize;

pub use decide::{btf_names, plan, symbol_names};

use super::{
    btf::Module,
    offsets::Offsets,
    shape::{Shape, ShapeError},
    table::Need,
};

/// All hooks on one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// In the order of [`super::table::HOOKS`].
    pub hooks: Vec<Hook>,
    /// Offsets that the programs need.
    pub offsets: Offsets,
    /// How a `struct page *` becomes a pfn.
    pub page_to_pfn: PageToPfn,
    /// What reactions are attached to, or call.
    #[serde(skip)]
    pub targets: Targets,
}

/// What reactions are attached to, or call: ids in the BTF of vmlinux. None: this kernel does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// `bpf_lsm_file_permission`
    pub file_permission: Option<u32>,
    /// `bpf_lsm_file_ioctl`
    pub file_ioctl: Option<u32>,
    /// `bpf_lsm_file_ioctl_compat`
    pub file_ioctl_compat: Option<u32>,
    /// `crash_kexec`
    pub crash_kexec: Option<u32>,
    /// Address of `kvm_gmem_fallocate`: by it, a guest_memfd is recognised.
    pub gmem_fallocate: Option<u64>,
    /// Address of `kvm_vm_release`: by it, a VM's file is recognised.
    pub kvm_vm_release: Option<u64>,
}

/// A hook on one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Hook {
    /// Its name, the same on all kernels.
    pub name: &'static str,
    /// What septwatch learns from it.
    pub purpose: &'static str,
    /// What becomes of verdicts without it.
    pub need: Need,
    /// Violations that are not found without it.
    pub lost: &'static [&'static str],
    /// Whether and how it is bound.
    pub state: State,
}

/// Whether and how a hook is bound.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It can be attached like this.
    Bound(Bound),
    /// It cannot.
    Missing {
        /// Why.
        reason: Missing,
    },
}

/// How a hook is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// The kind of program.
    pub binding: Binding,
    /// Where the function is.
    pub module: Module,
    /// The function or tracepoint, as this kernel names it.
    pub function: String,
    /// Id of the function, or of the tracepoint's typedef, in the BTF of `module`.
    #[serde(skip)]
    pub btf_id: u32,
    /// What its arguments are.
    pub shape: Shape,
}

/// The kind of program that a hook is bound with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// At the end of a function, with arguments and result.
    Fexit,
    /// A tracepoint with typed arguments.
    TpBtf,
    /// A tracepoint with untyped arguments.
    RawTp,
    /// A pair of breakpoints, at a kernel function's start and return.
    Kprobe,
}

impl Binding {
    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Kprobe => "kprobe",
        }
    }
}

/// Why a hook cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No candidate is in the BTF.
    #[error("{}not in the BTF of {part}: not built, or inlined", none_of(.functions))]
    NotInBtf {
        /// The candidates.
        functions: Vec<&'static str>,
        /// Where they were looked for.
        part: String,
    },
    /// The BTF of its part of the kernel cannot be read.
    #[error("{0}")]
    BadBtf(String),
    /// A candidate exists, its prototype is not one that is known.
    #[error("{function}: {why}")]
    Shape {
        /// The function.
        function: String,
        /// What does not fit.
        why: ShapeError,
    },
    /// Several functions of that name with different prototypes.
    #[error("{0}: several functions of this name, with different prototypes")]
    Ambiguous(String),
    /// It is there, and the host lets no program be attached.
    #[error("{0}")]
    NotAllowed(String),
}

/// Names the candidates where there are several; a single one has the hook's own name.
fn none_of(functions: &[&str]) -> String {
    match functions {
        [_] => String::new(),
        several => format!("{} are ", several.join(", ")),
    }
}

impl Serialize for Missing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a `struct page *` becomes a pfn: (page − base) / `sizeof(struct page)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageToPfn {
    /// The base is read from the kernel, at the address that kallsyms gives. The address itself is not shown:
    /// it would tell where the kernel lies.
    Kallsyms {
        /// Address of `vmemmap_base`.
        #[serde(skip)]
        address: u64,
    },
    /// The base is found by freeing a page of known frame and looking at the tracepoint.
    Calibrate {
        /// Why not by kallsyms.
        reason: &'static str,
    },
    /// Depends on the symbols of the kernel when it runs.
    Undecided,
}

impl Plan {
    /// The hook of this name.
    pub fn hook(&self, name: &str) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.name == name)
    }

    /// The hooks without which verdicts would be false, and that are missing.
    pub fn missing_required(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(|hook| hook.need == Need::Required && hook.bound().is_none())
    }
}

impl Hook {
    /// How it is attached, if it can be.
    pub fn bound(&self) -> Option<&Bound> {
        match &self.state {
            State::Bound(bound) => Some(bound),
            State::Missing { .. } => None,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = self.module.name();
        write!(f, "{} {module}:{} {}", self.binding.name(), self.function, self.shape)
    }
}

/// One line for each hook, then one for each offset.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hook in &self.hooks {
            match &hook.state {
                State::Bound(bound) => writeln!(f, "{:<33} {bound}", hook.name)?,
                State::Missing { reason } => writeln!(f, "{:<33} missing: {reason}", hook.name)?,
            }
        }
        for (name, value) in self.offsets.list() {
            match value {
                Some(value) => writeln!(f, "{name:<33} {value}")?,
                None => writeln!(f, "{name:<33} none")?,
            }
        }
        Ok(())
    }
}
