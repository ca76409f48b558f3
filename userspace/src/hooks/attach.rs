//! Putting the programs where they belong, and taking them away.

mod error;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Btf, Ebpf,
    programs::{
        FExit, Iter, KProbe, ProgramError, RawTracePoint, UProbe,
        links::{FdLink, LinkError},
        uprobe::{UProbeAttachLocation, UProbeScope},
    },
};
use aya_obj::generated::bpf_attach_type;
use septwatch_common::Leaf;

use super::{
    ahead::{self, loaded},
    bpf::{self, BpfError},
    btf::Module,
    mapped::locate,
    pins::{Pins, own},
    plan::{Binding, Bound},
    points::PointSpec,
    relocated::{Code, Relocated},
};

pub use error::AttachError;

/// The kernel's name of the function that makes a SEAMCALL, for the leaves that have a hook.
pub const fn function(leaf: Leaf) -> Option<&'static str> {
    Some(match leaf {
        Leaf::MemPageAdd => "tdh_mem_page_add",
        Leaf::MemPageAug => "tdh_mem_page_aug",
        Leaf::MemSeptAdd => "tdh_mem_sept_add",
        Leaf::MemRangeBlock => "tdh_mem_range_block",
        Leaf::MemTrack => "tdh_mem_track",
        Leaf::MemPageRemove => "tdh_mem_page_remove",
        Leaf::PhymemPageWbinvd => "tdh_phymem_page_wbinvd_hkid",
        Leaf::PhymemPageReclaim => "tdh_phymem_page_reclaim",
        Leaf::MngCreate => "tdh_mng_create",
        Leaf::MngAddcx => "tdh_mng_addcx",
        Leaf::MngInit => "tdh_mng_init",
        Leaf::MngVpflushdone => "tdh_mng_vpflushdone",
        Leaf::MngKeyFreeid => "tdh_mng_key_freeid",
        Leaf::VpCreate => "tdh_vp_create",
        Leaf::VpAddcx => "tdh_vp_addcx",
        Leaf::MrFinalize => "tdh_mr_finalize",
        _ => return None,
    })
}

/// The program that finds TDs.
pub const WALK_FIND: &str = "walk_find";
/// The programs that walk them.
pub const WALK: [&str; 4] = ["walk_mirror", "walk_control", "walk_lines", "walk_mark"];

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| AttachError::Missing(name.to_owned()))
}

/// The program at the return of a function of this process.
fn at_return(function: &str) -> String {
    function.replacen("tdh_", "ret_", 1)
}

fn refused(hook: &str) -> impl Fn(ProgramError) -> AttachError {
    move |source| AttachError::Refused { hook: hook.to_owned(), source }
}

fn not_attached(hook: &str) -> impl Fn(BpfError) -> AttachError {
    move |source| AttachError::Raw { hook: hook.to_owned(), source }
}

/// The programs that are in the kernel, and what keeps them attached.
#[derive(Debug)]
pub struct Attached {
    /// By name, for what the kernel counts of them.
    programs: Vec<(String, OwnedFd)>,
    links: Vec<OwnedFd>,
    /// Links that only aya can make.
    others: Vec<FdLink>,
    pins: Option<Pins>,
}

impl Attached {
    /// Nothing yet. What is attached is pinned as well where `pins` say where.
    pub fn new(pins: Option<Pins>) -> Self {
        Self { programs: Vec::new(), links: Vec::new(), others: Vec::new(), pins }
    }

    /// What another process has left.
    ///
    /// # Errors
    /// A pin cannot be opened.
    pub fn left(pins: Pins) -> Result<Self, AttachError> {
        Ok(Self { programs: pins.programs()?, pins: Some(pins), links: Vec::new(), others: Vec::new() })
    }

    /// Where it is pinned.
    pub fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// Leaves programs and links to their pins when this goes, instead of removing those.
    pub fn leave(&mut self) {
        self.pins = None;
    }

    fn keep_program(&mut self, name: &str, program: &impl AsFd) -> Result<(), AttachError> {
        let program = own(program, Path::new(name))?;
        if let Some(pins) = &self.pins {
            pins.program(name, program.as_fd())?;
        }
        self.programs.push((name.to_owned(), program));
        Ok(())
    }

    fn keep_link(&mut self, name: &str, link: OwnedFd) -> Result<(), AttachError> {
        if let Some(pins) = &self.pins {
            pins.link(name, link.as_fd())?;
        }
        self.links.push(link);
        Ok(())
    }

    fn keep_other(
        &mut self,
        name: &str,
        link: impl TryInto<FdLink, Error = LinkError>,
    ) -> Result<(), AttachError> {
        let hook = || name.to_owned();
        let mut link = link.try_into().map_err(|source| AttachError::Link { hook: hook(), source })?;
        if let Some(pins) = &self.pins {
            let pinned = link.pin(pins.link_path(name));
            link = pinned.map_err(|source| AttachError::LinkPin { hook: hook(), source })?.into();
        }
        self.others.push(link);
        Ok(())
    }

    /// Attaches to a function of vmlinux by fexit.
    ///
    /// # Errors
    /// The kernel has no such function, or refuses fexit.
    pub fn fexit(&mut self, ebpf: &mut Ebpf, function: &str, btf: &Btf) -> Result<(), AttachError> {
        let program: &mut FExit = program(ebpf, function)?;
        loaded(program.load(function, btf)).map_err(refused(function))?;
        let descriptor = program.fd().map_err(refused(function))?;
        self.keep_program(function, descriptor)?;
        let link = bpf::attach(descriptor.as_fd(), None).map_err(not_attached(function))?;
        self.keep_link(function, link)
    }

    /// Attaches to a function of vmlinux by a breakpoint at its entry, which keeps the arguments, and one at its return.
    ///
    /// # Errors
    /// The kernel has no such symbol, or refuses kprobes.
    pub fn kprobe(&mut self, ebpf: &mut Ebpf, function: &str) -> Result<(), AttachError> {
        self.probe(ebpf, &function.replacen("tdh_", "kret_", 1), function)?;
        self.probe(ebpf, "kernel_entry", function)
    }

    /// One program at one function, by kprobe or kretprobe.
    fn probe(&mut self, ebpf: &mut Ebpf, name: &str, function: &str) -> Result<(), AttachError> {
        let probe: &mut KProbe = program(ebpf, name)?;
        match probe.load() {
            Ok(()) => self.keep_program(name, probe.fd().map_err(refused(function))?)?,
            Err(ProgramError::AlreadyLoaded) => {}
            Err(source) => return Err(refused(function)(source)),
        }
        let id = probe.attach(function, 0).map_err(refused(function))?;
        let link = probe.take_link(id).map_err(refused(function))?;
        self.keep_other(&format!("{name}-{function}"), link)
    }

    /// Puts a tracepoint's program into the kernel, to be attached later.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn load_tracepoint(&mut self, ebpf: &mut Ebpf, name: &str) -> Result<(), AttachError> {
        let program: &mut RawTracePoint = program(ebpf, name)?;
        loaded(program.load()).map_err(refused(name))?;
        self.keep_program(name, program.fd().map_err(refused(name))?)
    }

    /// Puts the programs into the kernel that find and walk TDs; they are attached nowhere.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn load_walk(&mut self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), AttachError> {
        ahead::load(ebpf, &[&WALK[..], &[WALK_FIND]].concat(), Some(btf));
        for name in WALK {
            self.load_tracepoint(ebpf, name)?;
        }
        let find: &mut Iter = program(ebpf, WALK_FIND)?;
        loaded(find.load(ahead::FILES, btf)).map_err(refused(WALK_FIND))?;
        // Last: who finds it has all of them.
        self.keep_program(WALK_FIND, find.fd().map_err(refused(WALK_FIND))?)
    }

    /// A program that is loaded.
    pub fn loaded(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.programs.iter().find(|(known, _)| known == name).map(|(_, program)| program.as_fd())
    }

    /// Attaches a program that is loaded, for as long as what this returns and its pin live.
    ///
    /// # Errors
    /// The kernel has no such tracepoint.
    pub fn open_tracepoint(&self, name: &str) -> Result<OwnedFd, AttachError> {
        let program = self.programs.iter().find(|(known, _)| known == name);
        let (_, program) = program.ok_or_else(|| AttachError::Missing(name.to_owned()))?;
        bpf::attach(program.as_fd(), Some(name)).map_err(not_attached(name))
    }

    /// Attaches the programs of a hook at one of KVM's own functions.
    ///
    /// # Errors
    /// The function cannot be traced, or the kernel refuses a program.
    pub fn point(
        &mut self,
        ebpf: &mut Ebpf,
        relocated: &Relocated,
        spec: &PointSpec,
        bound: &Bound,
    ) -> Result<(), AttachError> {
        let function = &bound.function;
        if bound.binding == Binding::Kprobe {
            if let Some(stem) = spec.at_return {
                self.probe(ebpf, &format!("{stem}_kretprobe"), function)?;
                self.probe(ebpf, &format!("{stem}_entry"), function)?;
            }
            return match spec.entry {
                Some(stem) => self.probe(ebpf, &format!("{stem}_kprobe"), function),
                None => Ok(()),
            };
        }
        let module = module_of(bound)?;
        let returns = spec.at_return.map(|stem| (format!("{stem}_fexit"), bpf_attach_type::BPF_TRACE_FEXIT));
        let entries = spec.entry.map(|stem| (format!("{stem}_fentry"), bpf_attach_type::BPF_TRACE_FENTRY));
        for (name, attach_type) in returns.into_iter().chain(entries) {
            self.tracing(relocated, &name, &name, attach_type, module.as_ref().map(AsFd::as_fd), bound)?;
        }
        Ok(())
    }

    /// Attaches the program that takes the time at the entry of a function of vmlinux. To be done after
    /// [`Self::fexit`]: what it keeps of a call, the program at the return takes away.
    ///
    /// # Errors
    /// The function cannot be traced, or the kernel refuses the program.
    pub fn entry_time(&mut self, relocated: &Relocated, bound: &Bound) -> Result<(), AttachError> {
        let keep_as = format!("entry-{}", bound.function);
        self.tracing(relocated, "tdh_fentry", &keep_as, bpf_attach_type::BPF_TRACE_FENTRY, None, bound)
    }

    /// One program at one function, by fentry or fexit, kept under a name of its own.
    fn tracing(
        &mut self,
        relocated: &Relocated,
        name: &str,
        keep_as: &str,
        attach_type: bpf_attach_type,
        module: Option<BorrowedFd<'_>>,
        bound: &Bound,
    ) -> Result<(), AttachError> {
        let Code { instructions, license, types } =
            relocated.program(name).ok_or_else(|| AttachError::Missing(name.to_owned()))?;
        let function = bound.btf_id;
        let program = bpf::Tracing { name, instructions, license, types, attach_type, module, function };
        self.load_and_attach(&program, keep_as, &bound.function)
    }

    /// Puts a program into the kernel and attaches it; errors name `hook`.
    pub(super) fn load_and_attach(
        &mut self,
        program: &bpf::Tracing<'_>,
        keep_as: &str,
        hook: &str,
    ) -> Result<(), AttachError> {
        let program = program.load().map_err(not_attached(hook))?;
        let link = bpf::attach(program.as_fd(), None).map_err(not_attached(hook))?;
        self.keep_program(keep_as, &program)?;
        self.keep_link(keep_as, link)
    }

    /// Attaches to functions of this process: one program at the entry, which keeps the arguments, and each function's
    /// own at its return.
    ///
    /// By address, not by symbol, so that a stripped binary serves as well.
    ///
    /// # Errors
    /// A function is not in a mapped file, or the kernel refuses uprobes.
    pub fn own_functions(&mut self, ebpf: &mut Ebpf, functions: &[(Leaf, u64)]) -> Result<(), AttachError> {
        const MAPS: &str = "/proc/self/maps";
        let maps =
            fs::read_to_string(MAPS).map_err(|source| AttachError::Proc { path: MAPS.to_owned(), source })?;
        let entry = "tdh_entry";
        let names: Vec<_> =
            functions.iter().filter_map(|(leaf, _)| Some(at_return(function(*leaf)?))).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        ahead::load(ebpf, &names, None);
        let at_entry: &mut UProbe = program(ebpf, entry)?;
        at_entry.load().map_err(refused(entry))?;
        self.keep_program(entry, at_entry.fd().map_err(refused(entry))?)?;
        for &(leaf, address) in functions {
            let Some(name) = function(leaf) else { continue };
            let (file, offset) = locate(&maps, address)
                .ok_or_else(|| AttachError::NotMapped { hook: name.to_owned(), address })?;
            let place = || UProbeAttachLocation::AbsoluteOffset(offset);
            let scope = UProbeScope::AllProcesses;
            let return_name = at_return(name);
            let returning: &mut UProbe = program(ebpf, &return_name)?;
            loaded(returning.load()).map_err(refused(name))?;
            self.keep_program(&return_name, returning.fd().map_err(refused(name))?)?;
            returning.attach(place(), &file, scope).map_err(refused(name))?;
            let at_entry: &mut UProbe = program(ebpf, entry)?;
            at_entry.attach(place(), &file, scope).map_err(refused(name))?;
        }
        Ok(())
    }

    /// When the first of the programs was loaded, in ns of CLOCK_BOOTTIME.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn loaded_ns(&self) -> Result<u64, AttachError> {
        let loaded = |program: &OwnedFd, name| bpf::loaded_ns(program.as_fd()).map_err(not_attached(name));
        let mut each = self.programs.iter().map(|(name, program)| loaded(program, name));
        each.try_fold(u64::MAX, |first, ns| Ok(first.min(ns?)))
    }

    /// Reads how often programs ran, and did not run.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn runs(&self) -> Result<Runs, AttachError> {
        let mut runs = Runs::default();
        for (name, program) in &self.programs {
            let [misses, time_ns, count] =
                told_of(program, ["recursion_misses:", "run_time_ns:", "run_cnt:"])?;
            runs.time_ns = runs.time_ns.saturating_add(time_ns);
            runs.count = runs.count.saturating_add(count);
            match name.as_str() {
                "mm_page_free" | "mm_page_free_batched" | "mm_page_alloc" => runs.missed_pages += misses,
                // Those of SEAMCALLs, and those that only add to what a verdict says.
                name if is_seamcall(name) => runs.missed_seamcalls += misses,
                _ => runs.missed_details += misses,
            }
        }
        Ok(runs)
    }
}

/// What the kernel tells of a program, by the names of its figures; 0 where it does not.
fn told_of<const N: usize>(program: &OwnedFd, names: [&str; N]) -> Result<[u64; N], AttachError> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let info = fs::read_to_string(&path).map_err(|source| AttachError::Proc { path, source })?;
    Ok(names.map(|name| {
        let figure = info.lines().find_map(|line| line.strip_prefix(name));
        figure.and_then(|figure| figure.trim().parse().ok()).unwrap_or(0)
    }))
}

/// BTF of the module that has the function; none for vmlinux.
pub(super) fn module_of(bound: &Bound) -> Result<Option<OwnedFd>, AttachError> {
    Ok(match bound.module {
        Module::Vmlinux => None,
        module => Some(bpf::module_btf(module.name()).map_err(not_attached(&bound.function))?),
    })
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(pins) = &self.pins {
            // Nobody is left to be told; the next start removes what stays.
            let _ = pins.remove();
        }
    }
}

fn is_seamcall(program: &str) -> bool {
    let names = ["tdh_", "ret_", "kret_"];
    names.iter().any(|start| program.starts_with(start)) || program == "kernel_entry"
}

/// Runs of the programs. Those that are missed did not happen because a program was running on that CPU already: the
/// kernel's recursion guard (`bpf_prog_inc_misses_counter`). Each may be an event that the ledger did not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Missed at SEAMCALLs: lines may be wrong, so that verdicts are suspect from then on.
    pub missed_seamcalls: u64,
    /// Missed at the allocator's tracepoints: a release may have passed unseen.
    pub missed_pages: u64,
    /// Missed at KVM's own functions: a verdict may say less than it could.
    pub missed_details: u64,
    /// How long they ran, in ns: counted while somebody asks the kernel for it ([`aya::sys::enable_stats`]).
    pub time_ns: u64,
    /// How often they ran; counted as `time_ns` is.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hooked_leaf_has_a_function() {
        for leaf in septwatch_common::config::HOOKED {
            assert!(function(leaf).is_some(), "{}", leaf.name());
        }
    }
}
