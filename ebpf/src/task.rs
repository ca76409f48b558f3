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

#[inline(always)]
pub fn comm() -> [u8; 16] {
    helpers::bpf_get_current_comm().unwrap_or_default()
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::generated::bpf_ktime_get_ns() }
}
