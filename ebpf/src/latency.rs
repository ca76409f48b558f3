//! How long SEAMCALLs take: from the entry of the kernel's function to its return, where that was asked for.
//!
//! Where entry and return are probed apart, the probe at the entry keeps the time beside the arguments. Beside fexit
//! stands a program of its own at the entry, the same for every function.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::fentry,
    programs::{FEntryContext, FExitContext},
};

use crate::{
    maps::{ENTERED, Entered},
    task::now_ns,
};

/// The entry of a function that fexit is attached to.
#[fentry]
pub fn tdh_fentry(ctx: FEntryContext) -> i32 {
    empty_ends!();
    let thread = bpf_get_current_pid_tgid();
    let entered = Entered { frame: ctx.as_ptr() as u64, entered_ns: 0 };
    if ENTERED.insert(thread, entered, u64::from(BPF_ANY)).is_err() {
        return 0;
    }
    let Some(entered) = ENTERED.get_ptr_mut(thread) else { return 0 };
    // SAFETY: this thread alone removes its entry. Last, so that as little as can be is measured of this program.
    unsafe { (*entered).entered_ns = now_ns() };
    0
}

/// When the call was entered that returns here; 0 where its entry was not seen.
#[inline(always)]
pub fn entered_ns(ctx: &FExitContext) -> u64 {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the value is copied at once; this thread alone writes it.
    let Some(entered) = (unsafe { ENTERED.get(thread) }).copied() else { return 0 };
    // Entry and return of one call have their arguments at one place of the stack. What another call left there is for
    // that call.
    if entered.frame != ctx.as_ptr() as u64 {
        return 0;
    }
    let _ = ENTERED.remove(thread);
    entered.entered_ns
}

/// What a record says: 0 stands for "not measured", the largest number for anything longer.
#[inline(always)]
pub fn took_ns(entered_ns: u64, now_ns: u64) -> u32 {
    if entered_ns == 0 {
        return 0;
    }
    now_ns.saturating_sub(entered_ns).clamp(1, u64::from(u32::MAX)) as u32
}
