//! Brings the host down by way of its crash kernel, when a rule has said so.
//!
//! A program that finds a violation writes why into a map; one of these stands behind it at the same point of the kernel
//! and runs when it is done, in the same call. Not one program, because the function that does it, `crash_kexec`
//! (kernel/crash_core.c), is a kfunc: the kernel lends it to tracing programs only, and aya loads no program that calls
//! one. So these are loaded by `hooks::crash`, and the call of a helper that no kernel has is made the call of the kfunc.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit},
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};
use septwatch_common::react::CRASH_KEXEC;

use crate::maps::{CRASH, NO_REGISTERS};

/// Does nothing where no crash kernel is loaded: the host goes on, and userspace is left to bring it down.
#[inline(always)]
fn crash() -> Option<()> {
    let note = CRASH.get_ptr(0)?;
    // SAFETY: points into a map value; volatile, because other programs write it.
    if unsafe { (&raw const (*note).wanted_ns).read_volatile() } == 0 {
        return None;
    }
    let registers = NO_REGISTERS.get_ptr_mut(0)?;
    // SAFETY: helpers are called by their number; this one is put there by who loads the program. It reads a `struct
    // pt_regs`, for which there is room.
    unsafe {
        let crash_kexec: unsafe extern "C" fn(*mut c_void) -> u64 = core::mem::transmute(CRASH_KEXEC);
        crash_kexec(registers.cast());
    }
    Some(())
}

#[fexit]
pub fn crash_fexit(_: FExitContext) -> i32 {
    crash();
    0
}

#[fentry]
pub fn crash_fentry(_: FEntryContext) -> i32 {
    crash();
    0
}

/// At mm_page_free: raw tracepoints may call a kfunc in the newest kernels only.
#[btf_tracepoint]
pub fn crash_tp_btf(_: BtfTracePointContext) -> i32 {
    crash();
    0
}
