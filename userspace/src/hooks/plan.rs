//! The hook plan: a pure function of a kernel's BTF, its symbols and what the host allows. Nothing is attached in
//! here, and no file is read.

use std::{collections::HashSet, fmt};

use serde::Serialize;

use super::{
    btf::{Btf, BtfError, KernelBtf, Kind, Module},
    host::{Allowed, Probe},
    offsets::Offsets,
    shape::{Role, Shape, ShapeError},
    symbols::Symbols,
    table::{Candidate, HOOKS, HookSpec, Need, Place},
};

/// The data symbol that holds the address of frame 0's `struct page`.
pub const VMEMMAP_BASE: &str = "vmemmap_base";

/// All hooks on one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// In the order of [`HOOKS`].
    pub hooks: Vec<Hook>,
    /// Offsets that the programs need.
    pub offsets: Offsets,
    /// How a `struct page *` becomes a pfn.
    pub page_to_pfn: PageToPfn,
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
    /// Id of the function, or of the tracepoint's typedef, in the BTF of `module`; not for the demo's functions.
    #[serde(skip)]
    pub btf_id: Option<u32>,
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
    /// The same in a process' function: the demo's.
    Uprobe,
}

impl Binding {
    /// Short name, as in DESIGN's words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Kprobe => "kprobe",
            Self::Uprobe => "uprobe",
        }
    }
}

/// Why a hook cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No candidate is in the BTF.
    #[error("{} not in the BTF of {part}: not built, or inlined", .functions.join(", "))]
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

/// Every name that [`plan`] looks for in BTF.
pub fn btf_names() -> HashSet<&'static str> {
    let functions = HOOKS.iter().flat_map(|hook| match hook.place {
        Place::Function(_, candidates) => candidates.iter().map(|candidate| candidate.function).collect(),
        Place::Tracepoint { typedef, .. } => vec![typedef],
    });
    functions.chain(Offsets::STRUCTURES.iter().copied()).chain(Allowed::NAMES).collect()
}

/// Every name that [`plan`] looks for in the symbols.
pub fn symbol_names() -> HashSet<&'static str> {
    let functions = HOOKS.iter().flat_map(|hook| match hook.place {
        Place::Function(_, candidates) => candidates,
        Place::Tracepoint { .. } => &[],
    });
    functions.map(|candidate| candidate.function).chain([VMEMMAP_BASE]).collect()
}

/// Decides for each hook how it is bound. `symbols` is None for a kernel that is not running.
///
/// # Errors
/// [`BtfError`] where the BTF of vmlinux is not sound; what is wrong with a module's is said by its hooks.
pub fn plan(btf: &KernelBtf, symbols: Option<&Symbols>, allowed: &Allowed) -> Result<Plan, BtfError> {
    let planner = Planner { btf, symbols, allowed };
    let hooks = HOOKS
        .iter()
        .map(|spec| {
            let HookSpec { name, purpose, need, lost, .. } = *spec;
            let state = match planner.bind(spec)? {
                Ok(bound) => State::Bound(bound),
                Err(reason) => State::Missing { reason },
            };
            Ok(Hook { name, purpose, need, lost, state })
        })
        .collect::<Result<_, BtfError>>()?;
    Ok(Plan { hooks, offsets: Offsets::resolve(btf)?, page_to_pfn: planner.page_to_pfn() })
}

struct Planner<'a> {
    btf: &'a KernelBtf,
    symbols: Option<&'a Symbols>,
    allowed: &'a Allowed,
}

impl Planner<'_> {
    fn bind(&self, spec: &HookSpec) -> Result<Result<Bound, Missing>, BtfError> {
        let found = match spec.place {
            Place::Function(module, candidates) => self.function(module, candidates)?,
            Place::Tracepoint { typedef, needs } => self.tracepoint(spec.name, typedef, needs)?,
        };
        Ok(found.and_then(|(module, function, btf_id, shape)| {
            let binding = match spec.place {
                Place::Function(..) => self.function_binding(&function),
                Place::Tracepoint { .. } => self.tracepoint_binding(),
            }?;
            Ok(Bound { binding, module, function, btf_id: Some(btf_id), shape })
        }))
    }

    /// The first candidate that exists and has the needed roles.
    fn function(&self, module: Module, candidates: &[Candidate]) -> Result<Result<Found, Missing>, BtfError> {
        let own = match module {
            Module::Vmlinux => None,
            Module::Kvm => self.btf.kvm.as_ref(),
            Module::KvmIntel => self.btf.kvm_intel.as_ref(),
        };
        let own = match own.map(Result::as_ref).transpose() {
            Ok(own) => own,
            Err(error) => return Ok(Err(Missing::BadBtf(error.to_string()))),
        };
        // A module's functions are in vmlinux where the module is built in.
        let places = own.map(|btf| (module, btf)).into_iter().chain([(Module::Vmlinux, &*self.btf.vmlinux)]);
        let mut reason = None;
        for (module, btf) in places.clone() {
            for Candidate { function, needs, takes } in candidates {
                let mut prototypes = btf.named(Kind::Func, function).map(|id| Ok((id, btf.prototype(id)?)));
                let Some((id, prototype)) = prototypes.next().transpose()? else { continue };
                for other in prototypes {
                    if other?.1 != prototype {
                        return Ok(Err(Missing::Ambiguous((*function).to_owned())));
                    }
                }
                match Shape::resolve(&prototype, needs, takes) {
                    Ok(shape) => return Ok(Ok((module, (*function).to_owned(), id, shape))),
                    Err(why) => reason = Some(Missing::Shape { function: (*function).to_owned(), why }),
                }
            }
        }
        let not_found = || {
            let mut functions: Vec<_> = candidates.iter().map(|candidate| candidate.function).collect();
            functions.dedup();
            let part: Vec<_> = places.map(|(module, _)| module.name()).collect();
            Missing::NotInBtf { functions, part: part.join(" or ") + unread(&self.btf.vmlinux) }
        };
        Ok(Err(reason.unwrap_or_else(not_found)))
    }

    fn tracepoint(
        &self,
        name: &'static str,
        typedef: &'static str,
        needs: &[Role],
    ) -> Result<Result<Found, Missing>, BtfError> {
        let btf = &self.btf.vmlinux;
        let Some(id) = btf.named(Kind::Typedef, typedef).next() else {
            let part = Module::Vmlinux.name().to_owned() + unread(btf);
            return Ok(Err(Missing::NotInBtf { functions: vec![typedef], part }));
        };
        Ok(match Shape::resolve(&btf.prototype(id)?, needs, &[]) {
            Ok(shape) => Ok((Module::Vmlinux, name.to_owned(), id, shape)),
            Err(why) => Err(Missing::Shape { function: name.to_owned(), why }),
        })
    }

    fn function_binding(&self, function: &str) -> Result<Binding, Missing> {
        let Allowed { fexit, kprobe, .. } = self.allowed;
        match (fexit, kprobe) {
            (Probe::Works | Probe::Assumed, _) => Ok(Binding::Fexit),
            (Probe::Refused(_), Probe::Works | Probe::Assumed) if self.lists(function) => Ok(Binding::Kprobe),
            (Probe::Refused(fexit), Probe::Works | Probe::Assumed) => {
                Err(Missing::NotAllowed(format!("fexit: {fexit}; kprobe: no such symbol")))
            }
            (Probe::Refused(fexit), Probe::Refused(kprobe)) => {
                Err(Missing::NotAllowed(format!("fexit: {fexit}; kprobe: {kprobe}")))
            }
        }
    }

    /// Whether the running kernel lists the symbol; nothing speaks against it where no kernel runs.
    fn lists(&self, function: &str) -> bool {
        self.symbols.is_none_or(|symbols| symbols.listed(function))
    }

    /// Untyped first: the verifier forbids arithmetic on typed pointers, and a frame's number is nothing else.
    fn tracepoint_binding(&self) -> Result<Binding, Missing> {
        match (&self.allowed.raw_tp, &self.allowed.tp_btf) {
            (Probe::Works | Probe::Assumed, _) => Ok(Binding::RawTp),
            (_, Probe::Works | Probe::Assumed) => Ok(Binding::TpBtf),
            (Probe::Refused(raw), Probe::Refused(typed)) => {
                Err(Missing::NotAllowed(format!("raw_tp: {raw}; tp_btf: {typed}")))
            }
        }
    }

    fn page_to_pfn(&self) -> PageToPfn {
        let Some(symbols) = self.symbols else { return PageToPfn::Undecided };
        let reason = match symbols.address(VMEMMAP_BASE) {
            Some(address) if self.allowed.read_kernel.usable() => return PageToPfn::Kallsyms { address },
            Some(_) => "programs may not read kernel memory",
            None if symbols.listed(VMEMMAP_BASE) => "kallsyms hides the address of vmemmap_base",
            None if !symbols.data_listed => "kallsyms lists no data symbols",
            None => "kallsyms does not list vmemmap_base",
        };
        PageToPfn::Calibrate { reason }
    }
}

/// Part of the kernel, name, BTF id, shape.
type Found = (Module, String, u32, Shape);

fn unread(btf: &Btf) -> &'static str {
    match btf.unread() {
        Some(_) => " (read in part: it has kinds of types that this version does not know)",
        None => "",
    }
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
        write!(f, "{} {}:{} {}", self.binding.name(), self.module.name(), self.function, self.shape)
    }
}

/// One line for each hook, then one for each offset.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hook in &self.hooks {
            match &hook.state {
                State::Bound(bound) => writeln!(f, "{:<29} {bound}", hook.name)?,
                State::Missing { reason } => writeln!(f, "{:<29} missing: {reason}", hook.name)?,
            }
        }
        for (name, value) in self.offsets.list() {
            match value {
                Some(value) => writeln!(f, "{name:<29} {value}")?,
                None => writeln!(f, "{name:<29} none")?,
            }
        }
        Ok(())
    }
}
