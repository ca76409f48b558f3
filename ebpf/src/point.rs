//! Functions of the kernel as points to stand at: their entry and their return, by fentry and fexit, or by probes at
//! both where the kernel refuses those or the function is the demo's.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_func_arg},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use septwatch_common::{config::NO_ARGUMENT, kvm::Point};

use crate::{config, maps::POINT_CALLS};

/// A call of a function, at its entry or at its return.
pub trait At {
    /// The program's context, for stacks.
    fn ctx(&self) -> *mut c_void;
    /// The argument at this position, as it was at entry.
    fn position(&self, n: u64) -> Option<u64>;
    /// What the function returned; at entry, nothing that means anything.
    fn ret(&self) -> u64;

    /// The `n`-th of the arguments that the program at this point reads.
    #[inline(always)]
    fn arg(&self, point: Point, n: usize) -> Option<u64> {
        match config::point_arg(point, n) {
            NO_ARGUMENT => None,
            position => self.position(position),
        }
    }
}

/// An argument of a function that a trampoline calls programs for.
#[inline(always)]
pub fn traced(ctx: *mut c_void, n: u64) -> Option<u64> {
    let mut value = 0;
    // The helper, because arguments read from the context are typed pointers, with which nobody may compute.
    // SAFETY: `value` is valid for writing.
    let err = unsafe { bpf_get_func_arg(ctx, n as u32, &raw mut value) };
    if err == 0 { Some(value) } else { None }
}

impl At for FEntryContext {
    #[inline(always)]
    fn ctx(&self) -> *mut c_void {
        self.as_ptr()
    }

    #[inline(always)]
    fn position(&self, n: u64) -> Option<u64> {
        traced(self.as_ptr(), n)
    }

    #[inline(always)]
    fn ret(&self) -> u64 {
        0
    }
}

impl At for FExitContext {
    #[inline(always)]
    fn ctx(&self) -> *mut c_void {
        self.as_ptr()
    }

    #[inline(always)]
    fn position(&self, n: u64) -> Option<u64> {
        traced(self.as_ptr(), n)
    }

    #[inline(always)]
    fn ret(&self) -> u64 {
        FExitContext::ret::<u64>(self).unwrap_or(u64::MAX)
    }
}

impl At for ProbeContext {
    #[inline(always)]
    fn ctx(&self) -> *mut c_void {
        self.as_ptr()
    }

    #[inline(always)]
    fn position(&self, n: u64) -> Option<u64> {
        ProbeContext::arg::<u64>(self, n as usize)
    }

    #[inline(always)]
    fn ret(&self) -> u64 {
        0
    }
}

/// A probe at a function's return, with the arguments that the one at its entry kept.
pub struct Probed<'a> {
    ctx: &'a RetProbeContext,
    args: [u64; 6],
}

impl<'a> Probed<'a> {
    /// With what was kept.
    #[inline(always)]
    pub fn new(ctx: &'a RetProbeContext, args: [u64; 6]) -> Self {
        Self { ctx, args }
    }
}

impl At for Probed<'_> {
    #[inline(always)]
    fn ctx(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }

    #[inline(always)]
    fn position(&self, n: u64) -> Option<u64> {
        self.args.get(n as usize).copied()
    }

    #[inline(always)]
    fn ret(&self) -> u64 {
        self.ctx.ret::<u64>()
    }
}

#[inline(always)]
fn key(point: Point) -> [u64; 2] {
    [bpf_get_current_pid_tgid(), point as u64]
}

/// The arguments of a probed function, all that come in registers.
#[inline(always)]
pub fn arguments(ctx: &ProbeContext) -> [u64; 6] {
    let mut args = [0; 6];
    let mut n = 0;
    while n < 6 {
        args[n] = ctx.arg::<u64>(n).unwrap_or(0);
        n += 1;
    }
    args
}

/// Keeps the arguments for the probe at the return.
#[inline(always)]
pub fn keep(ctx: &ProbeContext, point: Point) {
    // Where there is no room the return finds nothing, and tells nothing.
    let _ = POINT_CALLS.insert(key(point), arguments(ctx), u64::from(BPF_ANY));
}

/// The call that returns here; `None` where its entry was not seen.
#[inline(always)]
pub fn probed(ctx: &RetProbeContext, point: Point) -> Option<Probed<'_>> {
    let key = key(point);
    // SAFETY: the value is copied at once; this thread alone writes it.
    let args = *unsafe { POINT_CALLS.get(key) }?;
    let _ = POINT_CALLS.remove(key);
    Some(Probed::new(ctx, args))
}

/// Makes the programs of a point: at the entry, at the return, or both. The first name of each is for fentry or fexit,
/// the second for kprobe or kretprobe.
#[macro_export]
macro_rules! point {
    ($point:ident, entry $body:ident: $fentry:ident, $kprobe:ident) => {
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            least_ends!();
            $body(&ctx);
            0
        }

        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            least_ends!();
            $body(&ctx);
            0
        }
    };
    ($point:ident, return $body:ident: $fexit:ident, $kprobe:ident, $kretprobe:ident) => {
        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            least_ends!();
            $body(&ctx);
            0
        }

        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            least_ends!();
            $crate::point::keep(&ctx, Point::$point);
            0
        }

        #[kretprobe]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            least_ends!();
            if let Some(call) = $crate::point::probed(&ctx, Point::$point) {
                $body(&call);
            }
            0
        }
    };
}
