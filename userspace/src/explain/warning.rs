//! KVM functions that may stand in the head of a WARN splat: what they do, and which SEAMCALLs they make.
//!
//! Source: `arch/x86/kvm/vmx/tdx.c` of 6.17, 6.18, 6.19, 7.1 and 7.3. Which function a splat names depends on what
//! the compiler inlined, so a function stands for the leaves of all that it may have swallowed.

use septwatch_common::Leaf;

/// A function of KVM, as a splat names it.
pub struct Function {
    /// Its name, without compiler suffixes.
    pub name: &'static str,
    /// What it does.
    pub does: &'static str,
    /// The leaves that it, or what is inlined into it, calls.
    pub leaves: &'static [Leaf],
}

const ZAP: &[Leaf] = &[Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove, Leaf::PhymemPageWbinvd];
const MAP: &[Leaf] = &[Leaf::MemPageAdd, Leaf::MemPageAug];
const BUILD: &[Leaf] = &[Leaf::MngCreate, Leaf::MngKeyConfig, Leaf::MngAddcx, Leaf::MngInit];
const VCPU: &[Leaf] = &[Leaf::VpCreate, Leaf::VpAddcx, Leaf::VpInit];
const RECLAIM: &[Leaf] = &[Leaf::PhymemPageReclaim];

const fn function(name: &'static str, does: &'static str, leaves: &'static [Leaf]) -> Function {
    Function { name, does, leaves }
}

const FUNCTIONS: &[Function] = &[
    function("tdx_sept_remove_private_spte", "takes a page back from the TD (up to 7.1)", ZAP),
    function("tdx_sept_remove_leaf_spte", "takes a page back from the TD (7.3)", ZAP),
    function("tdx_sept_zap_private_spte", "blocks an S-EPT entry (up to 6.18)", &[Leaf::MemRangeBlock]),
    function(
        "tdx_sept_drop_private_spte",
        "removes a blocked page and writes its cache lines back (up to 6.18)",
        &[Leaf::MemPageRemove, Leaf::PhymemPageWbinvd],
    ),
    function("tdx_track", "starts a new TLB epoch of the TD", &[Leaf::MemTrack]),
    function(
        "tdx_sept_set_private_spte",
        "maps a page into the TD; in 7.3 it takes pages back as well, and maps S-EPT pages",
        &[
            Leaf::MemPageAdd,
            Leaf::MemPageAug,
            Leaf::MemSeptAdd,
            Leaf::MemRangeBlock,
            Leaf::MemTrack,
            Leaf::MemPageRemove,
            Leaf::PhymemPageWbinvd,
        ],
    ),
    function("tdx_sept_map_leaf_spte", "maps a page into the TD (7.3)", MAP),
    function("tdx_mem_page_add", "adds a page of the TD's initial memory", &[Leaf::MemPageAdd]),
    function("tdx_mem_page_aug", "maps a page into the running TD", &[Leaf::MemPageAug]),
    function("tdx_sept_link_private_spt", "gives the TD an S-EPT page (up to 7.1)", &[Leaf::MemSeptAdd]),
    function("tdx_sept_map_nonleaf_spte", "gives the TD an S-EPT page (7.3)", &[Leaf::MemSeptAdd]),
    function(
        "tdx_gmem_post_populate",
        "adds and measures a page of the TD's initial memory",
        &[Leaf::MemPageAdd, Leaf::MrExtend],
    ),
    function("tdx_sept_free_private_spt", "reclaims an S-EPT page at teardown", RECLAIM),
    function("handle_removed_pt", "frees an S-EPT page at teardown, which could not be reclaimed", RECLAIM),
    function("__tdx_reclaim_page", "reclaims a page at teardown", RECLAIM),
    function("tdx_reclaim_page", "reclaims a page at teardown", RECLAIM),
    function("tdx_reclaim_control_page", "reclaims a control page at teardown", RECLAIM),
    function("tdx_vcpu_free", "reclaims a vCPU's pages", RECLAIM),
    function(
        "tdx_reclaim_td_control_pages",
        "reclaims the TD's control pages, its root page TDR last",
        RECLAIM,
    ),
    function("tdx_vm_destroy", "reclaims the TD's control pages, its root page TDR last", RECLAIM),
    function(
        "tdx_mmu_release_hkid",
        "ends the TD's use of its key, at teardown",
        &[Leaf::VpFlush, Leaf::MngVpflushdone, Leaf::MngKeyFreeid],
    ),
    function("tdx_flush_vp_on_cpu", "takes a vCPU off its CPU", &[Leaf::VpFlush]),
    function(
        "smp_func_do_phymem_cache_wb",
        "writes back the caches of a package, at teardown",
        &[Leaf::PhymemCacheWb],
    ),
    function("__tdx_td_init", "makes a TD", BUILD),
    function("tdx_td_init", "makes a TD", BUILD),
    function("tdx_do_tdh_mng_key_config", "makes the TD's key on a package", &[Leaf::MngKeyConfig]),
    function("tdx_td_vcpu_init", "makes a vCPU", VCPU),
    function("tdx_vcpu_init", "makes a vCPU", VCPU),
    function("tdx_td_finalize", "finalizes the TD", &[Leaf::MrFinalize]),
    function("tdx_handle_exit", "handles an exit of the TD", &[Leaf::VpEnter]),
    function("tdx_vcpu_run", "enters the TD", &[Leaf::VpEnter]),
];

/// The function of this name, if the table has it.
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}
