//! Where the host is: the files that reactions read and write.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::hooks::lock::RUN;

/// The host's file systems. A test has a tree of its own.
#[derive(Clone, Debug)]
pub struct Host {
    /// procfs.
    pub proc: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
    /// Devices.
    pub dev: PathBuf,
    /// Folder of what belongs to a running septwatch.
    pub run: PathBuf,
    /// The journal's socket.
    pub journal: PathBuf,
    /// The demo acts: only this process and its children are reacted to, and its memory counts as guest_memfd.
    pub demo: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self { run: PathBuf::from(RUN), ..Self::under(Path::new("/")) }
    }
}

impl Host {
    /// A host whose file systems are in this folder.
    pub fn under(root: &Path) -> Self {
        Self {
            proc: root.join("proc"),
            sys: root.join("sys"),
            dev: root.join("dev"),
            run: root.join("run"),
            journal: root.join("run/systemd/journal/socket"),
            demo: false,
        }
    }

    /// Where cgroup v2 is mounted; none where it is not.
    pub fn cgroups(&self) -> Option<PathBuf> {
        // `34 24 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw`; octal escapes are for odd places of it.
        let mounts = fs::read_to_string(self.proc.join("self/mountinfo")).ok()?;
        let mut mounts = mounts.lines().filter_map(|line| line.split_once(" - "));
        let (mount, _) = mounts.find(|(_, kind)| kind.starts_with("cgroup2 "))?;
        mount.split(' ').nth(4).map(PathBuf::from)
    }

    /// The cgroup of version 2 that this process is in.
    pub fn own_cgroup(&self) -> Option<PathBuf> {
        cgroup(&fs::read_to_string(self.proc.join("self/cgroup")).ok()?).map(PathBuf::from)
    }
}

/// The cgroup of version 2 in /proc/PID/cgroup.
pub(in super::super) fn cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}
