//! The two file systems that septwatch uses: bpffs holds pinned maps and links, tracefs describes tracepoints.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::by_hand;
use crate::run;
use crate::step::{Outcome, step};

/// A file system and where it belongs.
pub struct Mount {
    name: &'static str,
    kind: &'static str,
    place: &'static str,
}

/// All that are needed.
pub const ALL: [Mount; 2] = [
    Mount { name: "bpffs", kind: "bpf", place: "/sys/fs/bpf" },
    Mount { name: "tracefs", kind: "tracefs", place: "/sys/kernel/tracing" },
];

impl Mount {
    /// Mounts it where it is missing.
    ///
    /// # Errors
    /// The kernel refuses: no privilege, a container's read-only `/sys`, no such file system in this kernel.
    pub fn ensure(&self) -> Result<()> {
        step(self.name, || Ok((self.mount_missing()?, ())))
    }

    fn mount_missing(&self) -> Result<Outcome> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        if self.is_in(&mounts) {
            return Ok(Outcome::Present(format!("mounted on {}", self.place)));
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", self.kind, self.name, self.place]);
        run::quiet(&mut mount).map_err(|why| {
            let what = format!("{} is not mounted on {}", self.name, self.place);
            let command = format!("sudo {}   # on the host, where this is a container", run::line(&mount));
            by_hand(&what, &why, &command)
        })?;
        Ok(Outcome::Done(format!("mounted on {}", self.place)))
    }

    /// Whether the table (`source place kind options ...`) has it. An automount on the same place has another kind.
    fn is_in(&self, mounts: &str) -> bool {
        mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(1);
            fields.next() == Some(self.place) && fields.next() == Some(self.kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_place_and_kind() {
        let table = "sysfs /sys sysfs rw 0 0\nsystemd-1 /sys/kernel/tracing autofs rw 0 0\nnone /sys/fs/bpf bpf rw 0 0\nbpf /mnt bpf rw\n";
        let [bpffs, tracefs] = ALL;
        assert!(bpffs.is_in(table));
        assert!(!tracefs.is_in(table));
        assert!(tracefs.is_in("x /sys/kernel/tracing tracefs rw,nosuid 0 0"));
        assert!(!bpffs.is_in(""));
    }
}
