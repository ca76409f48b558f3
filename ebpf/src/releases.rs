//! A TD that begins waits until it is seen which frames come back.
//!
//! While nothing is lent, nothing is attached to the allocator. Userspace hears of the first TD by its record, attaches,
//! and says so in `Control::releases`. TDH.MNG.CREATE is a TD's first SEAMCALL, and its function returns to KVM when the
//! program has ended: until then nothing but the TDR is lent, and KVM cannot give it back. So hooks that are attached
//! within the wait miss nothing; a TD that began without them is counted.
//!
//! When userspace detaches, it takes `releases` back first and waits until no program runs that began before
//! (synchronize_rcu, by membarrier(2)). A TD is numbered, by an atomic addition, before `releases` is read: either its
//! program finds it taken back and waits, or userspace finds the number and does not detach.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use septwatch_common::config::RELEASES_WAIT_NS;

use crate::{
    atomic,
    maps::{control, shared},
    task::now_ns,
};

/// More than the wait has time for, and the most that the helper takes (`BPF_MAX_LOOPS`). The loop reads the clock each
/// time, so that a turn takes some 20 ns.
const TURNS: u32 = 1 << 23;

#[inline(always)]
fn watched() -> bool {
    // SAFETY: points into a map value; volatile, because userspace writes it.
    control().is_some_and(|control| unsafe { (&raw const (*control).releases).read_volatile() } != 0)
}

/// Callback of bpf_loop; 1 ends it.
unsafe extern "C" fn turn(_: u64, end_ns: *mut c_void) -> i64 {
    // SAFETY: `wait` passes a number that outlives the loop.
    let end_ns = unsafe { *end_ns.cast::<u64>() };
    i64::from(watched() || now_ns() >= end_ns)
}

/// Waits, mostly not at all.
#[inline(always)]
pub fn wait() {
    if watched() {
        return;
    }
    let mut end_ns = now_ns() + RELEASES_WAIT_NS;
    // SAFETY: `turn` has the signature that the helper asks for, and `end_ns` outlives the loop.
    unsafe { bpf_loop(TURNS, turn as *mut c_void, (&raw mut end_ns).cast(), 0) };
    if !watched()
        && let Some(shared) = shared()
    {
        // SAFETY: points into a map value.
        unsafe { atomic::fetch_add(&raw mut (*shared).unwatched, 1) };
    }
}
