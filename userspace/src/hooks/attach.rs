//! Putting the programs where they belong, and taking them away.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use aya::{
    Btf, Ebpf,
    programs::{
        FExit, KProbe, ProgramError, RawTracePoint, UProbe,
        raw_trace_point::RawTracePointLinkId,
        uprobe::{UProbeAttachLocation, UProbeScope},
    },
};
use septwatch_common::Leaf;
use thiserror::Error;

/// A program cannot be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The object has no such program.
    #[error("the eBPF object has no program {0}")]
    Missing(String),
    /// The kernel refuses it.
    #[error("{hook}: the program cannot be attached")]
    Refused {
        /// The function or tracepoint.
        hook: String,
        /// Why, with the verifier's words if it was the verifier.
        #[source]
        source: ProgramError,
    },
    /// The file that holds a function of this process is not to be found.
    #[error("{hook}: no mapping of this process holds its address {address:#x}")]
    NotMapped {
        /// The function.
        hook: String,
        /// Where it should be.
        address: u64,
    },
    /// /proc cannot be read.
    #[error("{path}")]
    Proc {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

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

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| AttachError::Missing(name.to_owned()))
}

fn refused(hook: &str) -> impl Fn(ProgramError) -> AttachError {
    move |source| AttachError::Refused { hook: hook.to_owned(), source }
}

/// Attaches to the kernel's function by fexit.
///
/// # Errors
/// The kernel has no such function, or refuses fexit.
pub fn fexit(ebpf: &mut Ebpf, function: &str, btf: &Btf) -> Result<(), AttachError> {
    let program: &mut FExit = program(ebpf, function)?;
    program.load(function, btf).map_err(refused(function))?;
    program.attach().map_err(refused(function))?;
    Ok(())
}

/// Attaches to the kernel's function by a breakpoint at its entry, which keeps the arguments, and one at its return.
///
/// # Errors
/// The kernel has no such symbol, or refuses kprobes.
pub fn kprobe(ebpf: &mut Ebpf, function: &str) -> Result<(), AttachError> {
    let at_return: &mut KProbe = program(ebpf, &function.replacen("tdh_", "kret_", 1))?;
    at_return.load().map_err(refused(function))?;
    at_return.attach(function, 0).map_err(refused(function))?;
    let at_entry: &mut KProbe = program(ebpf, "kernel_entry")?;
    match at_entry.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
        Err(source) => return Err(refused(function)(source)),
    }
    at_entry.attach(function, 0).map_err(refused(function))?;
    Ok(())
}

/// Attaches to a tracepoint; the program has its name.
///
/// # Errors
/// The kernel has no such tracepoint, or refuses the program.
pub fn tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<RawTracePointLinkId, AttachError> {
    load_tracepoint(ebpf, name)?;
    attach_tracepoint(ebpf, name)
}

/// Puts a tracepoint's program into the kernel, to be attached later.
///
/// # Errors
/// The kernel refuses the program.
pub fn load_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<(), AttachError> {
    program::<RawTracePoint>(ebpf, name)?.load().map_err(refused(name))
}

/// Attaches a program that is loaded.
///
/// # Errors
/// The kernel has no such tracepoint.
pub fn attach_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<RawTracePointLinkId, AttachError> {
    program::<RawTracePoint>(ebpf, name)?.attach(name).map_err(refused(name))
}

/// Detaches a program, which stays loaded.
///
/// # Errors
/// It is not attached.
pub fn detach_tracepoint(ebpf: &mut Ebpf, name: &str, link: RawTracePointLinkId) -> Result<(), AttachError> {
    program::<RawTracePoint>(ebpf, name)?.detach(link).map_err(refused(name))
}

/// Attaches to functions of this process: one program at the entry, which keeps the arguments, and each function's own
/// at its return.
///
/// By address, not by symbol, so that a stripped binary serves as well.
///
/// # Errors
/// A function is not in a mapped file, or the kernel refuses uprobes.
pub fn own_functions(ebpf: &mut Ebpf, functions: &[(Leaf, u64)]) -> Result<(), AttachError> {
    const MAPS: &str = "/proc/self/maps";
    let maps =
        fs::read_to_string(MAPS).map_err(|source| AttachError::Proc { path: MAPS.to_owned(), source })?;
    program::<UProbe>(ebpf, "tdh_entry")?.load().map_err(refused("tdh_entry"))?;
    for &(leaf, address) in functions {
        let Some(name) = function(leaf) else { continue };
        let (file, offset) = locate(&maps, address)
            .ok_or_else(|| AttachError::NotMapped { hook: name.to_owned(), address })?;
        let return_name = name.replacen("tdh_", "ret_", 1);
        let at_return: &mut UProbe = program(ebpf, &return_name)?;
        at_return.load().map_err(refused(name))?;
        let scope = UProbeScope::AllProcesses;
        at_return
            .attach(UProbeAttachLocation::AbsoluteOffset(offset), &file, scope)
            .map_err(refused(name))?;
        let at_entry: &mut UProbe = program(ebpf, "tdh_entry")?;
        at_entry.attach(UProbeAttachLocation::AbsoluteOffset(offset), &file, scope).map_err(refused(name))?;
    }
    Ok(())
}

/// The file that is mapped at an address, and the offset in it. A line of maps: `55d0-55e0 r-xp 00002000 08:01 123 /path`.
fn locate(maps: &str, address: u64) -> Option<(PathBuf, u64)> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        fields.nth(2)?;
        let path = line.find('/').map(|at| &line[at..])?;
        (start..end).contains(&address).then(|| (PathBuf::from(path), address - start + offset))
    })
}

/// Times that programs did not run because they were running on that CPU already: the kernel's recursion guard
/// (`bpf_prog_inc_misses_counter`). Each may be an event that the ledger did not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// At SEAMCALLs: lines may be wrong, so that verdicts are suspect from then on.
    pub seamcalls: u64,
    /// At the allocator's tracepoints: a release may have passed unseen.
    pub pages: u64,
}

/// Reads those counts.
///
/// # Errors
/// /proc cannot be read.
pub fn missed_runs(ebpf: &Ebpf) -> Result<Missed, AttachError> {
    let mut missed = Missed::default();
    for (name, program) in ebpf.programs() {
        let Ok(fd) = program.fd() else { continue };
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let info =
            fs::read_to_string(&path).map_err(|source| AttachError::Proc { path: path.clone(), source })?;
        let misses = info.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
        let misses = misses.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
        if name.starts_with("mm_") {
            missed.pages += misses;
        } else {
            missed.seamcalls += misses;
        }
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_file() {
        let maps = "5500-5600 r--p 00000000 08:01 7 /usr/bin/a b\n5600-5700 r-xp 00001000 08:01 7 /usr/bin/a b\n\
                    7000-7100 rw-p 00000000 00:00 0 \n";
        assert_eq!(locate(maps, 0x5610), Some((PathBuf::from("/usr/bin/a b"), 0x1010)));
        assert_eq!(locate(maps, 0x7010), None);
        assert_eq!(locate("garbage\n5-\n", 1), None);
    }

    #[test]
    fn every_hooked_leaf_has_a_function() {
        for leaf in septwatch_common::config::HOOKED {
            assert!(function(leaf).is_some(), "{}", leaf.name());
        }
    }
}
