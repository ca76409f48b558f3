//! The TD that a policy is about: what tells it from others, beside its number.

/// A TD, as a policy's rules and reactions see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its number; none where the verdict names no TD.
    pub td: Option<u32>,
    /// Process that created it: its VMM.
    pub tgid: Option<u32>,
    /// When it began, in ns of CLOCK_MONOTONIC: a process that is younger is not its VMM, but has its number.
    pub begun_ns: u64,
    /// Its name, where the VMM's command line tells it.
    pub name: Option<String>,
    /// Its UUID, from there too.
    pub uuid: Option<String>,
    /// cgroup v2 path of the VMM, as in /proc/PID/cgroup.
    pub cgroup: Option<String>,
}
