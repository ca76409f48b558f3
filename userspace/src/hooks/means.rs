//! Means: what this kernel lets reactions do, each with the reason where it does not.

use serde::Serialize;

use super::host::Probe;

/// What reactions can count on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Means {
    /// fallocate on a guest_memfd can be refused: an LSM program at `file_permission`.
    pub refuse_fallocate: Probe,
    /// KVM_CREATE_VM can be refused: an LSM program at `file_ioctl`.
    pub refuse_create_vm: Probe,
    /// Programs can start the crash kernel: the kfunc `crash_kexec`, and CAP_SYS_BOOT.
    pub crash_kexec: Probe,
    /// A crash kernel is loaded.
    pub crash_kernel: Probe,
    /// Userspace can bring the host down: /proc/sysrq-trigger.
    pub sysrq: Probe,
    /// A frame can be taken offline: /sys/devices/system/memory/hard_offline_page.
    pub hard_offline: Probe,
    /// Processes can be frozen: cgroup v2.
    pub freezer: Probe,
    /// An inode can be pinned through /proc/PID/fd: CAP_SYS_PTRACE.
    pub pin_inodes: Probe,
}
