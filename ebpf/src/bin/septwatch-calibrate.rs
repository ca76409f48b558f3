//! Finds out where `struct page` lies, while one process gives pages back.
//!
//! Where /proc/kallsyms tells the address of `vmemmap_base`, it is read. Where it does not, a process that frees frames
//! whose numbers it knows, and sees their `struct page` here, can compute it.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(missing_docs, reason = "the attribute of a program drops its documentation")]
#![expect(internal_features, reason = "the bpf target has no atomics but through core::intrinsics")]

use aya_ebpf::{
    Global,
    btf_maps::Array,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use septwatch_common::config::CALIBRATION_PAGES;

#[path = "../atomic.rs"]
#[expect(dead_code, reason = "shared with the main object, which uses all of it")]
mod atomic;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The process to watch.
#[unsafe(no_mangle)]
static TGID: Global<u32> = Global::new(0);

/// Address of `vmemmap_base`, where the kernel tells it; else 0.
#[unsafe(no_mangle)]
static BASE_ADDRESS: Global<u64> = Global::new(0);

/// The value that is there.
#[btf_map]
static BASE: Array<u64, 1> = Array::new();
/// Pages seen.
#[btf_map]
static COUNT: Array<u64, 1> = Array::new();
/// Their `struct page *`.
#[btf_map]
static SEEN: Array<u64, { CALIBRATION_PAGES as usize }> = Array::new();

/// mm_page_free
#[raw_tracepoint]
pub fn page_freed(ctx: RawTracePointContext) -> i32 {
    if (bpf_get_current_pid_tgid() >> 32) as u32 != TGID.load() {
        return 0;
    }
    let address = BASE_ADDRESS.load();
    if address != 0 {
        // SAFETY: the helper checks the address.
        if let Ok(base) = unsafe { bpf_probe_read_kernel(address as *const u64) } {
            let _ = BASE.set(0, base, 0);
        }
    }
    let Some(count) = COUNT.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into a map value.
    let n = unsafe { atomic::fetch_add(count, 1) };
    if let Some(page) = SEEN.get_ptr_mut(n as u32) {
        // SAFETY: points into a map value, of which this run alone has the number.
        unsafe { *page = ctx.arg::<u64>(0) };
    }
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
