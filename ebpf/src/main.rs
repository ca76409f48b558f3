//! The eBPF programs of septwatch: they keep the page ledger in the kernel.
//!
//! One file per concept of the kernel. Each program is a thin shell: it reads arguments in the shape that this kernel
//! has, hands them to the shared rules in `septwatch_common::tracker`, counts, and emits.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the bpf target has no atomics but through core::intrinsics")]

/// Logs, in the object that does.
#[cfg(feature = "log")]
macro_rules! debug {
    ($($what:tt)*) => { aya_log_ebpf::debug!($($what)*) };
}
#[cfg(not(feature = "log"))]
macro_rules! debug {
    ($($what:expr),*) => { let _ = ($(&$what),*); };
}

/// Every program that keeps the ledger begins with this: in the object of which the cost of being attached is measured, it
/// is all that there is.
macro_rules! empty_ends {
    () => {
        if cfg!(feature = "empty") {
            return 0;
        }
    };
}

/// The same of programs that the least of a ledger does without: see [`least`].
macro_rules! least_ends {
    () => {
        if cfg!(any(feature = "empty", feature = "least")) {
            return 0;
        }
    };
}

mod atomic;
mod config;
mod crash;
mod emit;
mod gmem;
mod hand;
mod kvm;
mod latency;
#[cfg(feature = "least")]
mod least;
mod lsm;
mod maps;
mod pages;
mod point;
mod react;
mod releases;
mod seamcalls;
mod steps;
mod store;
mod task;
mod walk;

// bpf_probe_read_kernel, bpf_get_stack and others are lent to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
