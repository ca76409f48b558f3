//! Every hook that septwatch knows: what it is for, what is lost without it, and which functions may carry it.
//! Names and prototypes only: what the running kernel has of them is decided in `plan`.

use super::{btf::Module, shape::Role};

/// A hook, whatever kernel it is looked for in.
#[derive(Debug)]
pub struct HookSpec {
    /// Its name here: that of the kernel function it is best known by.
    pub name: &'static str,
    /// What septwatch learns from it.
    pub purpose: &'static str,
    /// What becomes of verdicts without it.
    pub need: Need,
    /// Violations that are not found without it.
    pub lost: &'static [&'static str],
    /// Where in the kernel.
    pub place: Place,
}

/// What becomes of verdicts without a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Lines would go wrong: verdicts would be false. There is no watching TDs without it.
    Required,
    /// Something is not found, or is told with less detail; what is told stays true.
    Useful,
}

/// A point of the kernel.
#[derive(Debug)]
pub enum Place {
    /// A function of this part of the kernel, or of vmlinux where the part is built in. The first candidate that
    /// exists and has the needed roles is taken.
    Function(Module, &'static [Candidate]),
    /// A tracepoint of vmlinux.
    Tracepoint {
        /// What describes its arguments (include/trace/bpf_probe.h).
        typedef: &'static str,
        /// Roles without which the hook is of no use.
        needs: &'static [Role],
    },
}

/// A function that may carry a hook.
#[derive(Debug)]
pub struct Candidate {
    /// Symbol.
    pub function: &'static str,
    /// Roles without which the hook is of no use.
    pub needs: &'static [Role],
    /// Roles that are read where they are there.
    pub takes: &'static [Role],
}

const fn function(name: &'static str, needs: &'static [Role], takes: &'static [Role]) -> Candidate {
    Candidate { function: name, needs, takes }
}

use Need::{Required, Useful};
use Role::{
    Err1, Err2, FallocMode, File, Folio, Gfn, Gmem, Gpa, Hkid, Inode, Kvm, Level, MirrorSpte, OldSpte, Order,
    Page, PageOwner, PageSize, PageType, Request, Td, VmFault, Vp,
};

/// A row for a wrapper of a SEAMCALL: vmlinux, one candidate, named as the hook.
macro_rules! seamcall {
    ($name:literal, $need:ident, $purpose:literal, [$($lost:literal),*], [$($needs:ident),*], [$($takes:ident),*]) => {
        HookSpec {
            name: $name,
            purpose: $purpose,
            need: $need,
            lost: &[$($lost),*],
            place: Place::Function(Module::Vmlinux, &[function($name, &[$($needs),*], &[$($takes),*])]),
        }
    };
}

impl HookSpec {
    /// The hook of a name, as [`crate::recording::header::HookFact`]s have it.
    pub fn named(name: &str) -> Option<&'static Self> {
        HOOKS.iter().find(|spec| spec.name == name)
    }

    /// Whether every verdict needs the hook of a name.
    pub fn is_required(name: &str) -> bool {
        Self::named(name).is_some_and(|spec| spec.need == Need::Required)
    }
}

/// All hooks, in the order in which they are shown.
pub const HOOKS: &[HookSpec] = &[
    seamcall!(
        "tdh_mem_page_add",
        Required,
        "a page becomes part of a TD that is being built: its line opens",
        [
            "freed-while-mapped",
            "freed-while-blocked",
            "freed-unflushed",
            "reused-while-mapped",
            "double-map",
            "map-failed",
            "teardown-leak"
        ],
        [Td, Gpa, Page],
        [Err1, Err2]
    ),
    seamcall!(
        "tdh_mem_page_aug",
        Required,
        "a page becomes part of a running TD: its line opens",
        [
            "freed-while-mapped",
            "freed-while-blocked",
            "freed-unflushed",
            "reused-while-mapped",
            "double-map",
            "map-failed",
            "teardown-leak"
        ],
        [Td, Gpa, Level, Page],
        [Err1, Err2]
    ),
    seamcall!(
        "tdh_mem_sept_add",
        Useful,
        "a page becomes an S-EPT page: its line opens",
        ["freed-while-owned", "teardown-leak"],
        [Td, Gpa, Level, Page],
        [Err1, Err2]
    ),
    seamcall!(
        "tdh_mem_range_block",
        Required,
        "the first step of a zap",
        ["freed-while-blocked", "zap-failed", "out-of-order"],
        [Td, Gpa, Level],
        [Err1, Err2]
    ),
    seamcall!(
        "tdh_mem_track",
        Required,
        "the second step of a zap: a new TLB epoch",
        ["zap-failed", "out-of-order"],
        [Td],
        []
    ),
    seamcall!(
        "tdh_mem_page_remove",
        Required,
        "the third step of a zap: the TD no longer maps the page",
        ["freed-while-mapped", "freed-while-blocked", "freed-unflushed", "reused-while-mapped", "zap-failed"],
        [Td, Gpa, Level],
        [Err1, Err2]
    ),
    seamcall!(
        "tdh_phymem_page_wbinvd_hkid",
        Required,
        "the last step of a zap: the page's cache lines are written back, its line closes",
        ["freed-unflushed", "zap-failed"],
        [Page],
        [Hkid]
    ),
    seamcall!(
        "tdh_phymem_page_reclaim",
        Required,
        "an S-EPT or control page comes back: its line closes",
        ["freed-while-owned", "teardown-leak"],
        [Page],
        [PageType, PageOwner, PageSize]
    ),
    seamcall!(
        "tdh_mng_create",
        Useful,
        "a TD begins: its TDR and HKID",
        ["freed-while-owned", "teardown-leak"],
        [Td],
        [Hkid]
    ),
    seamcall!(
        "tdh_mng_addcx",
        Useful,
        "a page becomes a control page of a TD",
        ["freed-while-owned", "teardown-leak"],
        [Td, Page],
        []
    ),
    seamcall!("tdh_mng_init", Useful, "a TD is initialised", [], [Td], [Err1]),
    seamcall!(
        "tdh_mng_vpflushdone",
        Useful,
        "no CPU holds state of the TD any more: the HKID can go",
        ["teardown-leak"],
        [Td],
        []
    ),
    seamcall!("tdh_mng_key_freeid", Useful, "a TD's HKID is given back", ["teardown-leak"], [Td], []),
    seamcall!(
        "tdh_vp_create",
        Useful,
        "a page becomes the root of a vCPU",
        ["freed-while-owned", "teardown-leak"],
        [Td, Vp],
        []
    ),
    seamcall!(
        "tdh_vp_addcx",
        Useful,
        "a page becomes a control page of a vCPU",
        ["freed-while-owned", "teardown-leak"],
        [Vp, Page],
        []
    ),
    seamcall!("tdh_mr_finalize", Useful, "a TD's measurement ends: it can run", [], [Td], []),
    HookSpec {
        name: "mm_page_free",
        purpose: "frames return to the page allocator",
        need: Required,
        lost: &["freed-while-mapped", "freed-while-blocked", "freed-unflushed", "freed-while-owned"],
        place: Place::Tracepoint { typedef: "btf_trace_mm_page_free", needs: &[Page, Order] },
    },
    HookSpec {
        name: "mm_page_free_batched",
        purpose: "frames return to the page allocator in a batch: confirms mm_page_free, which fires for them too",
        need: Useful,
        lost: &[],
        place: Place::Tracepoint { typedef: "btf_trace_mm_page_free_batched", needs: &[Page] },
    },
    HookSpec {
        name: "mm_page_alloc",
        purpose: "frames are handed out again: the end of a window",
        need: Useful,
        lost: &["reused-while-mapped"],
        place: Place::Tracepoint { typedef: "btf_trace_mm_page_alloc", needs: &[Page, Order] },
    },
    HookSpec {
        name: "mm_filemap_delete_from_page_cache",
        purpose: "a guest_memfd lets go of a frame: which one, at which index, with how many references",
        need: Useful,
        lost: &[],
        place: Place::Tracepoint { typedef: "btf_trace_mm_filemap_delete_from_page_cache", needs: &[Folio] },
    },
    HookSpec {
        name: "kvm_make_all_cpus_request",
        purpose: "KVM calls a VM bugged or dead, and waits until no vCPU is in the guest",
        need: Useful,
        lost: &["vm-bugged"],
        place: Place::Function(Module::Kvm, &[function("kvm_make_all_cpus_request", &[Kvm, Request], &[])]),
    },
    HookSpec {
        name: "tdx_vm_destroy",
        purpose: "a VM of type TDX is destroyed: the end of the window",
        need: Useful,
        lost: &[],
        place: Place::Function(Module::KvmIntel, &[function("tdx_vm_destroy", &[Kvm], &[])]),
    },
    HookSpec {
        name: "tdx_sept_remove_private_spte",
        purpose: "KVM zaps a page: its pfn before the SEAMCALLs, which do not carry it, and zaps without any",
        need: Useful,
        lost: &[],
        place: Place::Function(
            Module::KvmIntel,
            &[
                function("tdx_sept_remove_private_spte", &[Kvm, Gfn, Level, MirrorSpte], &[]),
                function("tdx_sept_remove_private_spte", &[Kvm, Gfn, Level, Page], &[]),
                // One function maps and zaps: the old entry tells which of the two, and the pfn.
                function("tdx_sept_set_private_spte", &[Kvm, Gfn, Level, OldSpte], &[]),
            ],
        ),
    },
    HookSpec {
        name: "kvm_gmem_fallocate",
        purpose: "a hole is punched into a guest_memfd",
        need: Useful,
        lost: &[],
        place: Place::Function(Module::Kvm, &[function("kvm_gmem_fallocate", &[File, FallocMode], &[])]),
    },
    HookSpec {
        name: "kvm_gmem_release",
        purpose: "the last file of a guest_memfd is closed",
        need: Useful,
        lost: &[],
        place: Place::Function(Module::Kvm, &[function("kvm_gmem_release", &[Inode], &[])]),
    },
    HookSpec {
        name: "kvm_gmem_invalidate",
        purpose: "an invalidation begins and ends: whether a frame was released while it was under way",
        need: Useful,
        lost: &[],
        place: Place::Function(
            Module::Kvm,
            &[
                function("__kvm_gmem_invalidate_start", &[Gmem], &[]),
                function("__kvm_gmem_invalidate_begin", &[Gmem], &[]),
                function("kvm_gmem_invalidate_begin", &[Gmem], &[]),
            ],
        ),
    },
    HookSpec {
        name: "kvm_gmem_error_folio",
        purpose: "a memory failure has hit a guest_memfd, and KVM has zapped the page",
        need: Useful,
        lost: &["poisoned-while-mapped"],
        place: Place::Function(Module::Kvm, &[function("kvm_gmem_error_folio", &[Folio], &[])]),
    },
    HookSpec {
        name: "kvm_gmem_fault_user_mapping",
        purpose: "guest memory is mapped into a process",
        need: Useful,
        lost: &["host-access-while-mapped"],
        place: Place::Function(Module::Kvm, &[function("kvm_gmem_fault_user_mapping", &[VmFault], &[])]),
    },
    HookSpec {
        name: "kvm_gmem_migrate_folio",
        purpose: "a folio of a guest_memfd is moved, which every known kernel refuses",
        need: Useful,
        lost: &["migrated-while-mapped"],
        place: Place::Function(Module::Kvm, &[function("kvm_gmem_migrate_folio", &[Folio], &[])]),
    },
];

#[cfg(test)]
mod tests {
    use super::HOOKS;
    use septwatch_common::Violation;

    #[test]
    fn what_is_lost_are_violations_of_ours() {
        for hook in HOOKS {
            let unknown = hook.lost.iter().find(|name| Violation::from_name(name).is_none());
            assert_eq!(unknown, None, "{}", hook.name);
        }
    }
}
