//! The kernel's SEAMCALL wrappers, `tdh_*` (arch/x86/virt/vmx/tdx/tdx.c).
//!
//! Observed at their return: by fexit, or, where the functions are the demo's or the kernel refuses fexit, by a probe at
//! the entry that keeps the arguments and one at the return.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, kretprobe, uprobe, uretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use septwatch_common::{
    Leaf, Level, Status,
    config::{NO_ARGUMENT, Shape},
    tracker::{self, Call, Finding},
    zap::{Answer, PFN_UNKNOWN},
};

use crate::{
    atomic, config, emit, latency,
    maps::{CALLS, Kept, counters},
    point::{At, Probed, arguments},
    store::Maps,
    task::now_ns,
};

/// The frame of the page that a member at `offset` of the structure in argument `n` points to.
#[inline(always)]
fn root_page(call: &impl At, n: u8, offset: u64) -> Option<u64> {
    if n == NO_ARGUMENT {
        return Some(PFN_UNKNOWN);
    }
    Some(config::pfn_of(config::read_word(call.position(n)? + offset)?))
}

#[inline(always)]
fn ext_err(call: &impl At, n: u8) -> u64 {
    if n == NO_ARGUMENT {
        return 0;
    }
    call.position(n).and_then(config::read_word).unwrap_or(0)
}

/// The frame that TDH.MEM.PAGE.REMOVE took out of the S-EPT: bits 51:12 of RCX (TDX module ABI specification). Zero
/// stands for "not told".
#[inline(always)]
fn removed(returned: &impl At, shape: Shape) -> u64 {
    match ext_err(returned, shape.ext_err1) >> 12 & ((1 << 40) - 1) {
        0 => PFN_UNKNOWN,
        pfn => pfn,
    }
}

#[inline(always)]
fn decode(leaf: Leaf, returned: &impl At, shape: Shape, now_ns: u64) -> Option<Call> {
    let status = Status(returned.ret());
    let failed = !status.is_success();
    let pfn = match shape.page {
        NO_ARGUMENT if matches!(leaf, Leaf::MemPageRemove) && !failed => removed(returned, shape),
        NO_ARGUMENT => PFN_UNKNOWN,
        n => {
            let page = returned.position(n)?;
            if shape.flags & Shape::PFN != 0 { page } else { config::pfn_of(page) }
        }
    };
    let gfn = match shape.gpa {
        NO_ARGUMENT => 0,
        n => returned.position(n)? >> 12,
    };
    let level = match shape.level {
        NO_ARGUMENT => Level::L4K,
        n => shape.to_level(returned.position(n)? & 0xff)?,
    };
    let hkid = match shape.hkid {
        NO_ARGUMENT => 0,
        n => returned.position(n)? as u16,
    };
    Some(Call {
        tdr: root_page(returned, shape.td, config::tdr_page_offset())?,
        tdvpr: root_page(returned, shape.vp, config::tdvpr_page_offset())?,
        pfn,
        gfn,
        level,
        hkid,
        answer: Answer {
            status,
            ext_err1: if failed { ext_err(returned, shape.ext_err1) } else { 0 },
            ext_err2: if failed { ext_err(returned, shape.ext_err2) } else { 0 },
            now_ns,
        },
    })
}

/// A function returned at `now_ns` that was entered at `entered_ns`, if that was measured.
#[inline(always)]
fn returned(leaf: Leaf, returned: &impl At, entered_ns: u64, now_ns: u64) -> Option<()> {
    let counters = counters()?;
    let Some(call) = decode(leaf, returned, config::shape(leaf), now_ns) else {
        // SAFETY: points into this CPU's counters.
        unsafe { atomic::fetch_add(&raw mut (*counters).unread, 1) };
        return None;
    };
    // SAFETY: points into this CPU's counters, and a leaf's number is below SHAPES.
    unsafe {
        let answers = &raw mut (*counters).calls[leaf as usize];
        let status = call.answer.status;
        let answer = if status.is_success() {
            &raw mut (*answers).ok
        } else if status.is_busy() {
            &raw mut (*answers).busy
        } else {
            &raw mut (*answers).error
        };
        atomic::fetch_add(answer, 1);
    }
    emit::seamcall(leaf, &call, latency::took_ns(entered_ns, now_ns));
    let mut finding = Finding::NONE;
    if tracker::seamcall(&mut Maps, leaf, &call, &mut finding) {
        emit::violation(returned.ctx(), leaf as u8, &finding, call.answer.now_ns);
    }
    Some(())
}

/// Keeps the arguments of a probed function for the probe at its return.
#[inline(always)]
fn entered(ctx: &ProbeContext) {
    let thread = bpf_get_current_pid_tgid();
    let kept = Kept { args: arguments(ctx), entered_ns: 0 };
    if CALLS.insert(thread, kept, u64::from(BPF_ANY)).is_err() {
        let Some(counters) = counters() else { return };
        // SAFETY: points into this CPU's counters.
        unsafe { atomic::fetch_add(&raw mut (*counters).unread, 1) };
    } else if config::latency()
        && let Some(kept) = CALLS.get_ptr_mut(thread)
    {
        // SAFETY: this thread alone removes its entry. Last, so that as little as can be is measured of this program.
        unsafe { (*kept).entered_ns = now_ns() };
    }
}

#[uprobe]
pub fn tdh_entry(ctx: ProbeContext) -> u32 {
    empty_ends!();
    entered(&ctx);
    0
}

#[kprobe]
pub fn kernel_entry(ctx: ProbeContext) -> u32 {
    empty_ends!();
    entered(&ctx);
    0
}

/// A probed function returned.
#[inline(always)]
fn probed(leaf: Leaf, ctx: &RetProbeContext) {
    let now_ns = now_ns();
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the value is copied at once; this thread alone writes it.
    let Some(Kept { args, entered_ns }) = (unsafe { CALLS.get(thread) }).copied() else { return };
    let _ = CALLS.remove(thread);
    returned(leaf, &Probed::new(ctx, args), entered_ns, now_ns);
}

macro_rules! seamcalls {
    ($($leaf:ident, $fexit:ident, $return:ident, $kernel_return:ident;)*) => {$(
        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            empty_ends!();
            let now_ns = now_ns();
            debug!(&ctx, "{} returned", stringify!($fexit));
            returned(Leaf::$leaf, &ctx, latency::entered_ns(&ctx), now_ns);
            0
        }

        #[uretprobe]
        pub fn $return(ctx: RetProbeContext) -> u32 {
            empty_ends!();
            debug!(&ctx, "{} returned", stringify!($fexit));
            probed(Leaf::$leaf, &ctx);
            0
        }

        #[kretprobe]
        pub fn $kernel_return(ctx: RetProbeContext) -> u32 {
            empty_ends!();
            debug!(&ctx, "{} returned", stringify!($fexit));
            probed(Leaf::$leaf, &ctx);
            0
        }
    )*};
}

seamcalls! {
    MemPageAdd, tdh_mem_page_add, ret_mem_page_add, kret_mem_page_add;
    MemPageAug, tdh_mem_page_aug, ret_mem_page_aug, kret_mem_page_aug;
    MemSeptAdd, tdh_mem_sept_add, ret_mem_sept_add, kret_mem_sept_add;
    MemRangeBlock, tdh_mem_range_block, ret_mem_range_block, kret_mem_range_block;
    MemTrack, tdh_mem_track, ret_mem_track, kret_mem_track;
    MemPageRemove, tdh_mem_page_remove, ret_mem_page_remove, kret_mem_page_remove;
    PhymemPageWbinvd, tdh_phymem_page_wbinvd_hkid, ret_phymem_page_wbinvd_hkid, kret_phymem_page_wbinvd_hkid;
    PhymemPageReclaim, tdh_phymem_page_reclaim, ret_phymem_page_reclaim, kret_phymem_page_reclaim;
    MngCreate, tdh_mng_create, ret_mng_create, kret_mng_create;
    MngAddcx, tdh_mng_addcx, ret_mng_addcx, kret_mng_addcx;
    MngInit, tdh_mng_init, ret_mng_init, kret_mng_init;
    MngVpflushdone, tdh_mng_vpflushdone, ret_mng_vpflushdone, kret_mng_vpflushdone;
    MngKeyFreeid, tdh_mng_key_freeid, ret_mng_key_freeid, kret_mng_key_freeid;
    VpCreate, tdh_vp_create, ret_vp_create, kret_vp_create;
    VpAddcx, tdh_vp_addcx, ret_vp_addcx, kret_vp_addcx;
    MrFinalize, tdh_mr_finalize, ret_mr_finalize, kret_mr_finalize;
}
