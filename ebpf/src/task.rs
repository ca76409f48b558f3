//! Who is running.

use aya_ebpf::helpers;

#[derive(Clone, Copy)]
pub struct Task {
    pub tgid: u32,
    pub tid: u32,
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        let both = helpers::bpf_get_current_pid_tgid();
        Self { tgid: (both >> 32) as u32, tid: both as u32 }
    }
}

/// cgroup v2 id of the running task.
#[inline(always)]
pub fn cgroup() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::generated::bpf_get_current_cgroup_id() }
}

/// Writes the name of the running thread. In place: an array of bytes that is made on the stack is set to zero byte by
/// byte, before the verifier's eyes.
///
/// # Safety
/// `to` must be valid for writing.
#[inline(always)]
pub unsafe fn comm(to: *mut [u8; 16]) {
    // SAFETY: the caller's promise. The helper fails for a size of zero only, and fills all of it.
    unsafe { helpers::generated::bpf_get_current_comm(to.cast(), size_of::<[u8; 16]>() as u32) };
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::generated::bpf_ktime_get_ns() }
}
