//! The kernel's SEAMCALL wrappers, `tdh_*` (arch/x86/virt/vmx/tdx/tdx.c).
//!
//! Observed at their return: by fexit, or, where the functions are the demo's or the kernel refuses fexit, by a probe at
//! the entry that keeps the arguments and one at the return.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, kretprobe, uprobe, uretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use septwatch_common::{
    Leaf, Level, Status,
    config::{NO_ARGUMENT, Shape},
    tracker::{self, Call},
    zap::{Answer, PFN_UNKNOWN},
};

use crate::{
    atomic, config, emit, latency,
    maps::{CALLS, Kept, counters},
    point::{At, Probed, arguments},
    releases,
    store::{self, Maps},
    task::{self, now_ns},
};

/// An argument of a leaf's function, by the field of [`Shape`] that says where it is; `Some(None)` where there is none.
#[inline(always)]
pub fn argument(call: &impl At, leaf: Leaf, field: usize) -> Option<Option<u64>> {
    match config::shape(leaf, field) {
        NO_ARGUMENT => Some(None),
        n => Some(Some(call.position(n)?)),
    }
}

/// The frame that a leaf's function is told of, in the form that this kernel has.
#[inline(always)]
pub fn pfn(leaf: Leaf, page: u64) -> u64 {
    let is_pfn = config::shape(leaf, offset_of!(Shape, flags)) & Shape::PFN != 0;
    if is_pfn { page } else { config::pfn_of(page) }
}

/// What a pointer of a failed call points to; 0 where it has none.
#[inline(always)]
fn ext_err(at: Option<u64>) -> u64 {
    at.and_then(config::read_word).unwrap_or(0)
}

/// The frame that TDH.MEM.PAGE.REMOVE took out of the S-EPT: bits 51:12 of RCX (TDX module ABI specification). Zero
/// stands for "not told".
#[inline(always)]
fn removed(ext_err1: u64) -> u64 {
    match ext_err1 >> 12 & ((1 << 40) - 1) {
        0 => PFN_UNKNOWN,
        pfn => pfn,
    }
}

/// Whether a call's time is asked for although it succeeded and nobody records: reading the clock takes longer than many
/// a step of the ledger.
#[inline(always)]
const fn is_timed(leaf: Leaf) -> bool {
    !matches!(
        leaf,
        Leaf::MemPageAdd
            | Leaf::MemPageAug
            | Leaf::MemSeptAdd
            | Leaf::MemTrack
            | Leaf::MemPageRemove
            | Leaf::PhymemPageWbinvd
    )
}

/// A call that returned at `now_ns`; 0: that was not looked up yet, and is where the call is `recorded` or something else
/// asks for it.
#[inline(always)]
fn decode(leaf: Leaf, returned: &impl At, recorded: bool, mut now_ns: u64) -> Option<Call> {
    let status = Status(returned.ret());
    let failed = !status.is_success();
    let (mut ext_err1, mut ext_err2) = (0, 0);
    if failed || matches!(leaf, Leaf::MemPageRemove) {
        ext_err1 = ext_err(argument(returned, leaf, offset_of!(Shape, ext_err1))?);
    }
    if failed {
        ext_err2 = ext_err(argument(returned, leaf, offset_of!(Shape, ext_err2))?);
    }
    let page = match leaf {
        Leaf::MemRangeBlock | Leaf::MemTrack => None,
        _ => argument(returned, leaf, offset_of!(Shape, page))?,
    };
    let pfn = match page {
        None if matches!(leaf, Leaf::MemPageRemove) && !failed => removed(core::mem::take(&mut ext_err1)),
        None => PFN_UNKNOWN,
        Some(page) => pfn(leaf, page),
    };
    // Not every function is asked for what few have.
    let (is_of_gpa, is_of_vcpu) = (
        matches!(
            leaf,
            Leaf::MemPageAdd
                | Leaf::MemPageAug
                | Leaf::MemSeptAdd
                | Leaf::MemRangeBlock
                | Leaf::MemPageRemove
        ),
        matches!(leaf, Leaf::VpCreate | Leaf::VpAddcx),
    );
    let (mut gfn, mut level) = (0, Level::L4K);
    if is_of_gpa {
        gfn = argument(returned, leaf, offset_of!(Shape, gpa))?.map_or(0, |gpa| gpa >> 12);
        if let Some(given) = argument(returned, leaf, offset_of!(Shape, level))? {
            level = Shape::level_of(config::shape(leaf, offset_of!(Shape, flags)), given & 0xff)?;
        }
    }
    let hkid = match leaf {
        Leaf::MngCreate | Leaf::PhymemPageWbinvd => {
            argument(returned, leaf, offset_of!(Shape, hkid))?.unwrap_or(0) as u16
        }
        _ => 0,
    };
    let tdr = match argument(returned, leaf, offset_of!(Shape, td))? {
        None => PFN_UNKNOWN,
        // What was at this address before, if anything, was another TD.
        Some(at) if matches!(leaf, Leaf::MngCreate) => store::read_tdr(at)?,
        Some(at) => store::tdr_at(at)?,
    };
    let tdvpr = match if is_of_vcpu { argument(returned, leaf, offset_of!(Shape, vp))? } else { None } {
        None => PFN_UNKNOWN,
        Some(at) => config::pfn_of(config::read_word(at + config::tdvpr_page_offset())?),
    };
    if now_ns == 0 && (is_timed(leaf) || failed || recorded) {
        now_ns = task::now_ns();
    }
    Some(Call { tdr, tdvpr, pfn, gfn, level, hkid, answer: Answer { status, ext_err1, ext_err2, now_ns } })
}

/// A function returned that was entered at `entered_ns`, if that was measured; for `now_ns` see [`decode`].
#[inline(always)]
fn returned(leaf: Leaf, returned: &impl At, entered_ns: u64, now_ns: u64) -> Option<()> {
    #[cfg(feature = "least")]
    if crate::least::is_of(leaf) {
        return crate::least::step(leaf, returned);
    }
    let recorded = emit::seamcalls_wanted()?;
    let counters = counters()?;
    let Some(call) = decode(leaf, returned, recorded, now_ns) else {
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
    if recorded {
        emit::seamcall(leaf, &call, latency::took_ns(entered_ns, call.answer.now_ns));
    }
    let mut finding = MaybeUninit::uninit();
    if tracker::seamcall(&mut Maps, leaf, &call, &mut finding) {
        // Its time, unless that is 0. Computed: of a branch on it the verifier would follow both sides from the start.
        let is_unknown = call.answer.now_ns.wrapping_sub(1) >> 63;
        let now_ns = call.answer.now_ns + is_unknown * task::now_ns();
        // SAFETY: it was found, and so written.
        emit::violation(returned.ctx(), leaf as u8, unsafe { finding.assume_init_ref() }, now_ns);
    }
    // Last: userspace has heard of the TD.
    if matches!(leaf, Leaf::MngCreate) && call.answer.status.is_success() {
        releases::wait();
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
            debug!(&ctx, "{} returned", stringify!($fexit));
            let (mut entered_ns, mut ended_ns) = (0, 0);
            if config::latency() {
                ended_ns = now_ns();
                entered_ns = latency::entered_ns(&ctx);
            }
            returned(Leaf::$leaf, &ctx, entered_ns, ended_ns);
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
