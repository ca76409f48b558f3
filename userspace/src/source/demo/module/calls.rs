//! The module's functions: the kernel's `tdh_*` wrappers by name, argument for argument, in the C calling convention.
//!
//! They are made to be watched: no inlining, names kept, and every address is taken ([`addresses`]), so that the
//! optimiser may not change how arguments are passed. Bodies read operands and nothing else.
//!
//! Argument types: `arch/x86/include/asm/tdx.h`. A kernel pointer to a `struct page` is a `u64` here, and so is the
//! argument that is a pointer in one kernel and a frame number in another ([`super::Shape`]).

use septwatch_common::Leaf;

use super::mem::Place;
use super::{Config, seamcall};

/// The kernel's `struct tdx_td`, as far as the module's functions read it.
#[derive(Debug)]
#[repr(C)]
pub struct TdxTd {
    /// `struct page *` of the TDR.
    pub tdr_page: u64,
    /// Number of control pages; not read here, as in the kernel.
    pub tdcs_nr_pages: i32,
}

/// The kernel's `struct tdx_vp`, as far as the module's functions read it.
#[derive(Debug)]
#[repr(C)]
pub struct TdxVp {
    /// `struct page *` of the TDVPR.
    pub tdvpr_page: u64,
}

/// What all functions demand of their pointers.
macro_rules! seamcalls {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $body:block)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// Pointers must be valid for reads, those to results for writes, until the function returns.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> u64 $body
        )*

        /// Name and address of each function, in no order that matters.
        pub fn addresses() -> [(&'static str, usize); COUNT] {
            // black_box: the address escapes, so the calling convention must be the declared one.
            std::hint::black_box([$((stringify!($name), $name as *const () as usize)),*])
        }

        const COUNT: usize = [$(stringify!($name)),*].len();
    };
}

/// # Safety
/// As for the callers: valid for reads.
unsafe fn tdr(config: &Config, td: *const TdxTd) -> Option<u64> {
    // SAFETY: the caller's promise.
    config.pfn_of(unsafe { (*td).tdr_page })
}

/// # Safety
/// As for the callers: valid for reads.
unsafe fn tdvpr(config: &Config, vp: *const TdxVp) -> Option<u64> {
    // SAFETY: the caller's promise.
    config.pfn_of(unsafe { (*vp).tdvpr_page })
}

/// # Safety
/// As for the callers: valid for writes.
unsafe fn give((status, rcx, rdx): (u64, u64, u64), ext_err1: *mut u64, ext_err2: *mut u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        ext_err1.write(rcx);
        ext_err2.write(rdx);
    }
    status
}

/// A call about a place in a TD's guest address space.
///
/// # Safety
/// `td` valid for reads, `ext_err1` and `ext_err2` for writes.
unsafe fn place_call(
    leaf: Leaf,
    (td, gpa, level): (*const TdxTd, u64, Option<u64>),
    (ext_err1, ext_err2): (*mut u64, *mut u64),
    work: impl FnOnce(&super::Module, Place, super::Given) -> super::Registers,
) -> u64 {
    let answer = seamcall(
        leaf,
        // SAFETY: the caller's promise.
        |config| unsafe { tdr(config, td) },
        |config| {
            let level = match level {
                Some(raw) => config.level_of(raw),
                None => Some(septwatch_common::Level::L4K),
            };
            (Some(gpa >> 12), level)
        },
        |module, tdr, level, how| work(module, Place { tdr, gpa, level }, how),
    );
    // SAFETY: the caller's promise.
    unsafe { give(answer, ext_err1, ext_err2) }
}

/// A call about a TD as a whole, or about one of its control pages.
///
/// # Safety
/// `td` valid for reads.
unsafe fn td_call(
    leaf: Leaf,
    td: *const TdxTd,
    work: impl FnOnce(&super::Module, Option<u64>) -> super::Registers,
) -> u64 {
    // SAFETY: the caller's promise.
    let tdr = |config: &Config| unsafe { tdr(config, td) };
    seamcall(leaf, tdr, |_| (None, None), |module, tdr, _, _| work(module, tdr)).0
}

/// A call about a vCPU. Fault rules find it by the frame of its TDVPR.
///
/// # Safety
/// `vp` valid for reads.
unsafe fn vp_call(
    leaf: Leaf,
    vp: *const TdxVp,
    work: impl FnOnce(&super::Module, Option<u64>) -> super::Registers,
) -> u64 {
    // SAFETY: the caller's promise.
    let find = |config: &Config| unsafe { tdvpr(config, vp) };
    seamcall(
        leaf,
        |_| None,
        |config| (find(config), None),
        |module, _, _, _| work(module, find(&module.config)),
    )
    .0
}

seamcalls! {
    /// TDH.MNG.CREATE.
    fn tdh_mng_create(td: *mut TdxTd, hkid: u16) {
        // SAFETY: this function's contract.
        unsafe { td_call(Leaf::MngCreate, td, |module, tdr| module.mng_create(tdr, hkid)) }
    }

    /// TDH.MNG.KEY.CONFIG.
    fn tdh_mng_key_config(td: *mut TdxTd) {
        // SAFETY: this function's contract.
        unsafe { td_call(Leaf::MngKeyConfig, td, |module, tdr| module.mng_key_config(tdr)) }
    }

    /// TDH.MNG.ADDCX.
    fn tdh_mng_addcx(td: *mut TdxTd, tdcs_page: u64) {
        // SAFETY: this function's contract.
        unsafe {
            td_call(Leaf::MngAddcx, td, |module, tdr| {
                module.mng_addcx(tdr, module.config.pfn_of(tdcs_page))
            })
        }
    }

    /// TDH.MNG.INIT. The parameters are not looked at.
    fn tdh_mng_init(td: *mut TdxTd, _td_params: u64, extended_err: *mut u64) {
        // SAFETY: this function's contract.
        unsafe {
            extended_err.write(0);
            td_call(Leaf::MngInit, td, |module, tdr| module.mng_init(tdr))
        }
    }

    /// TDH.VP.CREATE.
    fn tdh_vp_create(td: *mut TdxTd, vp: *mut TdxVp) {
        // SAFETY: this function's contract.
        unsafe {
            td_call(Leaf::VpCreate, td, |module, td| module.vp_create(td, tdvpr(&module.config, vp)))
        }
    }

    /// TDH.VP.ADDCX.
    fn tdh_vp_addcx(vp: *mut TdxVp, tdcx_page: u64) {
        // SAFETY: this function's contract.
        unsafe {
            vp_call(Leaf::VpAddcx, vp, |module, vp| {
                module.vp_addcx(vp, module.config.pfn_of(tdcx_page))
            })
        }
    }

    /// TDH.VP.INIT.
    fn tdh_vp_init(vp: *mut TdxVp, _initial_rcx: u64, _x2apicid: u32) {
        // SAFETY: this function's contract.
        unsafe { vp_call(Leaf::VpInit, vp, |module, vp| module.vp_init(vp)) }
    }

    /// TDH.VP.FLUSH.
    fn tdh_vp_flush(vp: *mut TdxVp) {
        // SAFETY: this function's contract.
        unsafe { vp_call(Leaf::VpFlush, vp, |module, vp| module.vp_flush(vp)) }
    }

    /// TDH.MR.FINALIZE.
    fn tdh_mr_finalize(td: *mut TdxTd) {
        // SAFETY: this function's contract.
        unsafe { td_call(Leaf::MrFinalize, td, |module, tdr| module.mr_finalize(tdr)) }
    }

    /// TDH.MEM.PAGE.ADD, of a 4 KiB page.
    fn tdh_mem_page_add(
        td: *mut TdxTd, gpa: u64, page: u64, source: u64, ext_err1: *mut u64, ext_err2: *mut u64
    ) {
        // SAFETY: this function's contract.
        unsafe {
            place_call(Leaf::MemPageAdd, (td, gpa, None), (ext_err1, ext_err2), |module, place, how| {
                let config = &module.config;
                module.mem_page_add(place, config.leaf_pfn(page), config.pfn_of(source), how)
            })
        }
    }

    /// TDH.MEM.PAGE.AUG.
    fn tdh_mem_page_aug(
        td: *mut TdxTd, gpa: u64, level: i32, page: u64, ext_err1: *mut u64, ext_err2: *mut u64
    ) {
        let level = Some(u64::from(level.cast_unsigned()));
        // SAFETY: this function's contract.
        unsafe {
            place_call(Leaf::MemPageAug, (td, gpa, level), (ext_err1, ext_err2), |module, place, how| {
                module.mem_page_aug(place, module.config.leaf_pfn(page), how)
            })
        }
    }

    /// TDH.MEM.SEPT.ADD.
    fn tdh_mem_sept_add(
        td: *mut TdxTd, gpa: u64, level: i32, page: u64, ext_err1: *mut u64, ext_err2: *mut u64
    ) {
        let level = Some(u64::from(level.cast_unsigned()));
        // SAFETY: this function's contract.
        unsafe {
            place_call(Leaf::MemSeptAdd, (td, gpa, level), (ext_err1, ext_err2), |module, place, how| {
                module.mem_sept_add(place, module.config.pfn_of(page), how)
            })
        }
    }

    /// TDH.MEM.RANGE.BLOCK.
    fn tdh_mem_range_block(
        td: *mut TdxTd, gpa: u64, level: i32, ext_err1: *mut u64, ext_err2: *mut u64
    ) {
        let level = Some(u64::from(level.cast_unsigned()));
        // SAFETY: this function's contract.
        unsafe {
            place_call(Leaf::MemRangeBlock, (td, gpa, level), (ext_err1, ext_err2), |module, place, how| {
                module.mem_range_block(place, how)
            })
        }
    }

    /// TDH.MEM.TRACK.
    fn tdh_mem_track(td: *mut TdxTd) {
        // SAFETY: this function's contract.
        unsafe { td_call(Leaf::MemTrack, td, |module, tdr| module.mem_track(tdr)) }
    }

    /// TDH.MEM.PAGE.REMOVE. (`u64 level` up to Linux 7.1, an enum of 32 bits in 7.3.)
    fn tdh_mem_page_remove(
        td: *mut TdxTd, gpa: u64, level: u64, ext_err1: *mut u64, ext_err2: *mut u64
    ) {
        let level = Some(level & u64::from(u32::MAX));
        // SAFETY: this function's contract.
        unsafe {
            place_call(Leaf::MemPageRemove, (td, gpa, level), (ext_err1, ext_err2), |module, place, how| {
                module.mem_page_remove(place, how)
            })
        }
    }

    /// TDH.MNG.VPFLUSHDONE.
    fn tdh_mng_vpflushdone(td: *mut TdxTd) {
        // SAFETY: this function's contract.
        unsafe { td_call(Leaf::MngVpflushdone, td, |module, tdr| module.mng_vpflushdone(tdr)) }
    }

    /// TDH.PHYMEM.CACHE.WB; never interrupted, so there is nothing to resume.
    fn tdh_phymem_cache_wb(_resume: bool) {
        seamcall(
            Leaf::PhymemCacheWb,
            |_| None,
            |_| (None, None),
            |module, _, _, _| module.phymem_cache_wb(),
        )
        .0
    }

    /// TDH.MNG.KEY.FREEID.
    fn tdh_mng_key_freeid(td: *mut TdxTd) {
        // SAFETY: this function's contract.
        unsafe { td_call(Leaf::MngKeyFreeid, td, |module, tdr| module.mng_key_freeid(tdr)) }
    }

    /// TDH.PHYMEM.PAGE.WBINVD, of a leaf's frame.
    fn tdh_phymem_page_wbinvd_hkid(hkid: u64, page: u64) {
        let hkid = u16::try_from(hkid).unwrap_or(u16::MAX);
        seamcall(
            Leaf::PhymemPageWbinvd,
            |_| None,
            |config| (config.leaf_pfn(page), None),
            |module, _, _, how| module.phymem_page_wbinvd(module.config.leaf_pfn(page), hkid, how),
        )
        .0
    }

    /// TDH.PHYMEM.PAGE.WBINVD, of a TDR with the module's own HKID, after its RECLAIM.
    fn tdh_phymem_page_wbinvd_tdr(td: *mut TdxTd) {
        const GLOBAL_HKID: u16 = super::FIRST_PRIVATE_HKID - 1;
        // SAFETY: this function's contract.
        let tdr = |config: &Config| unsafe { tdr(config, td) };
        seamcall(
            Leaf::PhymemPageWbinvd,
            |_| None,
            |config| (tdr(config), None),
            |module, _, _, how| module.phymem_page_wbinvd(tdr(&module.config), GLOBAL_HKID, how),
        )
        .0
    }

    /// TDH.PHYMEM.PAGE.RECLAIM.
    fn tdh_phymem_page_reclaim(
        page: u64, tdx_pt: *mut u64, tdx_owner: *mut u64, tdx_size: *mut u64
    ) {
        let mut said = (0, 0, 0);
        let (status, _, _) = seamcall(
            Leaf::PhymemPageReclaim,
            |_| None,
            |config| (config.pfn_of(page), None),
            |module, _, _, how| {
                let (result, page) = module.phymem_page_reclaim(module.config.pfn_of(page), how);
                said = page;
                result.map(|()| (0, 0))
            },
        );
        // SAFETY: this function's contract.
        unsafe {
            tdx_pt.write(said.0);
            tdx_owner.write(said.1);
            tdx_size.write(said.2);
        }
        status
    }
}
