//! `hold`: an `O_PATH` descriptor of each guest_memfd of a TD.
//!
//! Such a descriptor pins the inode and not the file. The VMM's end still closes the file, which zaps and destroys the VM,
//! but the inode is not evicted, and so not one page of it is given back, until the descriptor is closed too. What it
//! cannot stop is fallocate: that is refused by a program in the kernel.
//!
//! A process with several VMs has all of theirs pinned: nothing in procfs tells which is whose.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{OFlags, fstat, fstatfs, readlink},
    io::Errno,
};

use super::{ReactError, call, vmm::Vmm};

/// `f_type` of the file system that guest_memfd have from Linux 6.19 on: GUEST_MEMFD_MAGIC.
const GUEST_MEMFD_MAGIC: u64 = 0x474d_454d;

/// An inode that is pinned as long as this lives.
#[derive(Debug)]
pub struct Pinned {
    /// Device and number of the inode.
    pub inode: (u64, u64),
    /// The descriptor.
    pub file: OwnedFd,
}

/// Pins every guest_memfd that a process has open; with `demo`, also the memory that the demo uses where there is none.
///
/// # Errors
/// Its descriptors cannot be seen: it is gone, or this process lacks CAP_SYS_PTRACE.
pub fn pin(vmm: &Vmm, demo: bool) -> Result<Vec<Pinned>, ReactError> {
    let mut pinned = Vec::<Pinned>::new();
    for number in vmm.numbers("fd")? {
        let file = match vmm.open(&format!("fd/{number}"), OFlags::PATH) {
            // Closed meanwhile.
            Err(ReactError::File { source, .. })
                if source.raw_os_error() == Some(Errno::NOENT.raw_os_error()) =>
            {
                continue;
            }
            file => file?,
        };
        // What was opened is looked at, not what the process has at that number by then.
        if !is_guest_memfd(&file, demo)? {
            continue;
        }
        let stat = fstat(&file).map_err(call("fstat of a guest_memfd"))?;
        let inode = (stat.st_dev, stat.st_ino);
        if pinned.iter().all(|pinned| pinned.inode != inode) {
            pinned.push(Pinned { inode, file });
        }
    }
    Ok(pinned)
}

fn is_guest_memfd(file: &OwnedFd, demo: bool) -> Result<bool, ReactError> {
    let link = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    let name = readlink(&link, Vec::new()).map_err(call("readlink in /proc/self/fd"))?;
    Ok(match name.as_bytes() {
        // Up to Linux 6.18. No path begins like this.
        b"anon_inode:[kvm-gmem]" => true,
        b"/memfd:septwatch-demo (deleted)" => demo,
        // From 6.19 on. A file in the root directory may have the name, but not the file system.
        name if name.starts_with(b"/[kvm-gmem]") => {
            let statfs = fstatfs(file).map_err(call("fstatfs of a guest_memfd"))?;
            statfs.f_type.cast_unsigned() == GUEST_MEMFD_MAGIC
        }
        _ => false,
    })
}
