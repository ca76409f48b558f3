//! Memory that is real: pages of a guest and of the host, whose frames are known and whose frees reach the page
//! allocator one by one.
//!
//! The backing is a guest_memfd where KVM gives one that can be mapped, else a memfd. Frames are read from
//! `/proc/self/pagemap`, which needs CAP_SYS_ADMIN.
//!
//! A frame must stay where it is while it is lent. Pages of a guest_memfd do: their mapping is marked inaccessible
//! and unevictable, so that the kernel neither migrates, compacts nor swaps them (`virt/kvm/guest_memfd.c`); KSM and
//! NUMA balancing leave shared file mappings alone. Pages of a memfd are locked, which excludes swap, but compaction
//! may still move them (`vm.compact_unevictable_allowed`). So every frame is looked at again before it is lent and
//! before it is freed, and [`MemoryError::Moved`] says when it is another.
//!
//! A page that came in is for a while in a batch of the CPU that brought it in, on its way to the LRU lists, and the
//! batch holds a reference. Freeing it drains the batch of the CPU that frees (`__folio_batch_release`, mm/swap.c)
//! and no other. So that a free is a free at once, a thread stays on one CPU: [`Pinned`].

mod host;
mod pinned;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags};

pub use host::{HostPage, HostPages};
pub use pinned::Pinned;

/// Size of a page, in bytes: the one that the S-EPT's lowest level maps.
pub const PAGE_SIZE: usize = 4096;

/// Why memory cannot be had, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A system call failed.
    #[error("{call}: {source}")]
    Call {
        /// Which, and on what.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Without the capability the kernel shows every frame number as 0.
    #[error("/proc/self/pagemap hides frame numbers: CAP_SYS_ADMIN is needed, run as root")]
    FramesHidden,
    /// The page has no frame.
    #[error("page {page} has no frame: it was not touched, or was freed")]
    Absent {
        /// Index in its memory.
        page: usize,
    },
    /// The kernel moved the page to another frame while it was lent.
    #[error(
        "the kernel moved page {page} from frame {was:#x} to {now:#x}; is vm.compact_unevictable_allowed 0?"
    )]
    Moved {
        /// Index in its memory.
        page: usize,
        /// Where it was lent.
        was: u64,
        /// Where it is; 0 if nowhere.
        now: u64,
    },
    /// All pages are in use.
    #[error("all {0} host pages are in use")]
    Full(usize),
}

fn failed(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> MemoryError {
    move |errno| MemoryError::Call { call, source: errno.into() }
}

/// What the pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A guest_memfd of a KVM virtual machine without vCPUs.
    GuestMemfd,
    /// A memfd.
    Memfd,
}

/// A range of pages, all absent at first. Dropping it frees them all.
#[derive(Debug)]
pub struct Memory {
    file: OwnedFd,
    pagemap: File,
    base: usize,
    pages: usize,
    backing: Backing,
}

impl Memory {
    /// Memory for this many pages: from a guest_memfd if possible.
    pub fn new(pages: usize) -> Result<Self, MemoryError> {
        match guest_memfd(pages * PAGE_SIZE) {
            Some(file) => Self::map(file, pages, Backing::GuestMemfd),
            None => Self::memfd(pages),
        }
    }

    /// Memory for this many pages, from a memfd.
    pub fn memfd(pages: usize) -> Result<Self, MemoryError> {
        let file = memfd_create("septwatch-demo", MemfdFlags::CLOEXEC).map_err(failed("memfd_create"))?;
        ftruncate(&file, (pages * PAGE_SIZE) as u64).map_err(failed("ftruncate of a memfd"))?;
        Self::map(file, pages, Backing::Memfd)
    }

    fn map(file: OwnedFd, pages: usize, backing: Backing) -> Result<Self, MemoryError> {
        let pagemap = File::open("/proc/self/pagemap")
            .map_err(|source| MemoryError::Call { call: "open /proc/self/pagemap", source })?;
        let length = pages * PAGE_SIZE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing is read or written through it.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0) }
                .map_err(failed("mmap"))?;
        let memory = Self { file, pagemap, base: address.expose_provenance(), pages, backing };
        if backing == Backing::Memfd {
            // A huge page would be freed only as a whole. A kernel without them refuses the advice: just as well.
            // SAFETY: the whole of our own mapping; the advice changes no contents.
            let _ = unsafe { rustix::mm::madvise(address, length, Advice::LinuxNoHugepage) };
            // SAFETY: the same range; locking changes no contents.
            unsafe { rustix::mm::mlock_with(address, length, MlockFlags::ONFAULT) }
                .map_err(failed("mlock2 (CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK is needed)"))?;
        }
        Ok(memory)
    }

    /// Brings in one page after another until one is in this frame, which somebody must have freed: the kernel gives
    /// the frame first that was freed last, to who asks on the same CPU for the same kind of memory. Returns the
    /// page; none if someone else was given the frame. (Make the memory before the frame is freed: that takes
    /// frames too.)
    pub fn hunt(&self, pfn: u64) -> Result<Option<usize>, MemoryError> {
        for page in 0..self.pages {
            if self.touch(page)? == pfn {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// What the pages come from.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Number of pages, present or not.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Makes a page present, and returns its frame.
    pub fn touch(&self, page: usize) -> Result<u64, MemoryError> {
        let address = std::ptr::with_exposed_provenance_mut(self.address(page)?);
        // Not a write: that would be SIGBUS where no page can be had.
        // SAFETY: a page of our own mapping, by the check in `address`; contents are not changed.
        unsafe { rustix::mm::madvise(address, PAGE_SIZE, Advice::LinuxPopulateWrite) }
            .map_err(failed("madvise(MADV_POPULATE_WRITE)"))?;
        self.frame(page)?.ok_or(MemoryError::Absent { page })
    }

    /// The frame of a page, if it is present.
    pub fn frame(&self, page: usize) -> Result<Option<u64>, MemoryError> {
        // Format: Documentation/admin-guide/mm/pagemap.rst.
        const PRESENT: u64 = 1 << 63;
        const PFN: u64 = (1 << 55) - 1;
        let mut entry = [0; size_of::<u64>()];
        let offset = self.address(page)? / PAGE_SIZE * entry.len();
        self.pagemap
            .read_exact_at(&mut entry, offset as u64)
            .map_err(|source| MemoryError::Call { call: "read /proc/self/pagemap", source })?;
        match u64::from_ne_bytes(entry) {
            entry if entry & PRESENT == 0 => Ok(None),
            entry if entry & PFN == 0 => Err(MemoryError::FramesHidden),
            entry => Ok(Some(entry & PFN)),
        }
    }

    /// Checks that a page is still in this frame.
    pub fn verify(&self, page: usize, was: u64) -> Result<(), MemoryError> {
        match self.frame(page)? {
            Some(now) if now == was => Ok(()),
            now => Err(MemoryError::Moved { page, was, now: now.unwrap_or(0) }),
        }
    }

    /// Frees pages for good: they go back to the page allocator before this returns.
    pub fn punch(&self, first: usize, count: usize) -> Result<(), MemoryError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, (first * PAGE_SIZE) as u64, (count * PAGE_SIZE) as u64)
            .map_err(failed("fallocate(FALLOC_FL_PUNCH_HOLE)"))
    }

    fn address(&self, page: usize) -> Result<usize, MemoryError> {
        if page >= self.pages {
            return Err(MemoryError::Absent { page });
        }
        Ok(self.base + page * PAGE_SIZE)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let address = std::ptr::with_exposed_provenance_mut(self.base);
        // SAFETY: the mapping that `map` made, whole; nobody holds a reference into it, as none is ever formed.
        // It cannot fail for a valid mapping, and there is nothing to do if it did.
        let _ = unsafe { rustix::mm::munmap(address, self.pages * PAGE_SIZE) };
    }
}

/// A guest_memfd that can be mapped; none where the kernel does not offer it.
///
/// All are of one KVM virtual machine: the kernel tells every machine of each change of this process's memory, and a thousand
/// would make it slow.
///
/// `kvm-ioctls` would do, but knows neither the flags nor the capability that tells of them (Linux 6.18), and brings
/// a second version of a crate that is here already.
fn guest_memfd(size: usize) -> Option<OwnedFd> {
    // include/uapi/linux/kvm.h
    const KVM_CREATE_GUEST_MEMFD: libc::Ioctl = 0xC040_AED4;
    const MMAP_AND_INIT_SHARED: u64 = 0b11;
    #[repr(C)]
    struct KvmCreateGuestMemfd {
        size: u64,
        flags: u64,
        reserved: [u64; 6],
    }
    const _: () = assert!(size_of::<KvmCreateGuestMemfd>() == 64);

    static MACHINE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let vm = MACHINE.get_or_init(|| machine(MMAP_AND_INIT_SHARED)).as_ref()?;
    let request = KvmCreateGuestMemfd { size: size as u64, flags: MMAP_AND_INIT_SHARED, reserved: [0; 6] };
    // SAFETY: the argument points to the structure that this ioctl reads; it lives until the call returns.
    owned(unsafe { libc::ioctl(vm.as_raw_fd(), KVM_CREATE_GUEST_MEMFD, &raw const request) })
}

/// A KVM virtual machine whose guest_memfds can have these flags.
fn machine(wanted: u64) -> Option<OwnedFd> {
    const KVM_CREATE_VM: libc::Ioctl = 0xAE01;
    const KVM_CHECK_EXTENSION: libc::Ioctl = 0xAE03;
    const KVM_CAP_GUEST_MEMFD_FLAGS: libc::c_int = 244;
    let kvm = File::options().read(true).write(true).open("/dev/kvm").ok()?;
    // SAFETY: the argument is a number (the machine's type: the default one).
    let vm = owned(unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) })?;
    // SAFETY: the argument is a number.
    let flags = unsafe { libc::ioctl(vm.as_raw_fd(), KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS) };
    (u64::try_from(flags).ok()? & wanted == wanted).then_some(vm)
}

fn owned(fd: libc::c_int) -> Option<OwnedFd> {
    // SAFETY: a descriptor that the kernel has just made for us alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test ends there")]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Frame numbers need a capability: tests that use them are skipped without it, and say so.
    pub(super) fn skipped() -> bool {
        let hidden = matches!(Memory::memfd(1).unwrap().touch(0), Err(MemoryError::FramesHidden));
        if hidden {
            eprintln!("skipped: frame numbers need CAP_SYS_ADMIN");
        }
        hidden
    }

    fn life(memory: &Memory) {
        let pages = memory.pages();
        assert_eq!(memory.frame(0).unwrap(), None);
        let frames: Vec<_> = (0..pages).map(|page| memory.touch(page).unwrap()).collect();
        let mut distinct = frames.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), pages, "every page has a frame of its own");
        memory.verify(3, frames[3]).unwrap();
        assert!(matches!(memory.verify(3, frames[2]), Err(MemoryError::Moved { page: 3, .. })));
        memory.punch(2, 3).unwrap();
        for (page, frame) in frames.iter().enumerate() {
            let expected = (!(2..5).contains(&page)).then_some(*frame);
            assert_eq!(memory.frame(page).unwrap(), expected, "page {page}");
        }
        assert!(matches!(memory.verify(3, frames[3]), Err(MemoryError::Moved { now: 0, .. })));
        assert!(memory.touch(3).unwrap() > 0);
        assert!(matches!(memory.touch(pages), Err(MemoryError::Absent { .. })));
    }

    #[test]
    fn pages_of_either_backing_come_and_go_one_by_one() {
        if skipped() {
            return;
        }
        life(&Memory::memfd(16).unwrap());
        let memory = Memory::new(16).unwrap();
        match memory.backing() {
            Backing::GuestMemfd => life(&memory),
            Backing::Memfd => eprintln!("skipped: no guest_memfd that can be mapped (Linux 6.18, /dev/kvm)"),
        }
    }

    #[test]
    fn a_freed_frame_is_found_again() {
        if skipped() {
            return;
        }
        let pinned = Pinned::here().unwrap();
        // Anyone on this CPU may get the frame first: then again, for as long as others are that busy.
        let start = Instant::now();
        let mut tries = std::iter::repeat(()).take_while(|()| start.elapsed() < Duration::from_secs(30));
        let found = tries.any(|()| {
            let (memory, hunter) = (Memory::new(4).unwrap(), Memory::new(512).unwrap());
            let pfn = memory.touch(1).unwrap();
            memory.punch(1, 1).unwrap();
            hunter.hunt(pfn).unwrap().is_some_and(|page| hunter.frame(page).unwrap() == Some(pfn))
        });
        assert!(found);
        drop(pinned);
    }
}
