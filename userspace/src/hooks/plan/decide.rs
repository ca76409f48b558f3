//! How each hook is bound on a kernel. No I/O in here; what came of it is described by the types of `plan`.

use std::collections::HashSet;

use super::{Binding, Bound, Hook, Missing, PageToPfn, Plan, State, Targets};
use crate::hooks::{
    btf::{Btf, BtfError, KernelBtf, Kind, Module},
    host::{Allowed, Probe},
    offsets::Offsets,
    shape::{Role, Shape},
    symbols::Symbols,
    table::{Candidate, HOOKS, HookSpec, Place},
};

/// The data symbol that holds the address of frame 0's `struct page`.
const VMEMMAP_BASE: &str = "vmemmap_base";

/// The function that a VM's file is closed with.
const VM_RELEASE: &str = "kvm_vm_release";

/// Functions of vmlinux that reactions need, in the order of [`Targets`].
const TARGETS: [&str; 4] =
    ["bpf_lsm_file_permission", "bpf_lsm_file_ioctl", "bpf_lsm_file_ioctl_compat", "crash_kexec"];

/// Every name that [`plan`] looks for in BTF.
pub fn btf_names() -> HashSet<&'static str> {
    let functions = HOOKS.iter().flat_map(|hook| match hook.place {
        Place::Function(_, candidates) => candidates.iter().map(|candidate| candidate.function).collect(),
        Place::Tracepoint { typedef, .. } => vec![typedef],
    });
    functions.chain(Offsets::STRUCTURES.iter().copied()).chain(Allowed::NAMES).chain(TARGETS).collect()
}

/// Every name that [`plan`] looks for in the symbols.
pub fn symbol_names() -> HashSet<&'static str> {
    let functions = HOOKS.iter().flat_map(|hook| match hook.place {
        Place::Function(_, candidates) => candidates,
        Place::Tracepoint { .. } => &[],
    });
    functions.map(|candidate| candidate.function).chain([VMEMMAP_BASE, VM_RELEASE]).collect()
}

/// Decides for each hook how it is bound. `symbols` is None for a kernel that is not running.
///
/// # Errors
/// [`BtfError`] where types that it looks at are not sound.
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
    let [file_permission, file_ioctl, file_ioctl_compat, crash_kexec] =
        TARGETS.map(|name| btf.vmlinux.named(Kind::Func, name).next());
    let gmem_fallocate = symbols.and_then(|symbols| symbols.address("kvm_gmem_fallocate"));
    let kvm_vm_release = symbols.and_then(|symbols| symbols.address(VM_RELEASE));
    let targets = Targets {
        file_permission,
        file_ioctl,
        file_ioctl_compat,
        crash_kexec,
        gmem_fallocate,
        kvm_vm_release,
    };
    Ok(Plan { hooks, offsets: Offsets::resolve(btf)?, page_to_pfn: planner.page_to_pfn(), targets })
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
            Ok(Bound { binding, module, function, btf_id, shape })
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
        for (module, btf) in places {
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
            let mut part = Module::Vmlinux.name().to_owned();
            if module != Module::Vmlinux {
                part += &match own {
                    Some(_) => format!(" or {}", module.name()),
                    None => format!(" ({} has none here)", module.name()),
                };
            }
            Missing::NotInBtf { functions, part: part + unread(&self.btf.vmlinux) }
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
