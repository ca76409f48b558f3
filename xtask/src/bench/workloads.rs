//! Work that gives pages back to the allocator.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Pages of a memfd.
const PAGES: u64 = 8192;
/// Loops of one measurement.
const LOOPS: u32 = 12;
/// Programs of one measurement.
const PROGRAMS: u32 = 300;

/// Time that one turn takes, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// A page punched out of a memfd.
    pub punch: f64,
    /// A page brought into a memfd and punched out of it.
    pub cycle: f64,
    /// A program started and ended, as a build does it all the time.
    pub program: f64,
}

/// Does all of it once.
///
/// # Errors
/// A system call fails.
pub fn all() -> Result<Took> {
    let (mut punch, mut cycle) = (f64::INFINITY, f64::INFINITY);
    let file = memfd_create("septwatch-bench", MemfdFlags::CLOEXEC).context("memfd_create")?;
    ftruncate(&file, PAGES * PAGE).context("ftruncate of a memfd")?;
    for _ in 0..LOOPS {
        let begun = Instant::now();
        fallocate(&file, FallocateFlags::empty(), 0, PAGES * PAGE).context("fallocate of a memfd")?;
        let filled = Instant::now();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, hole, 0, PAGES * PAGE).context("punching a memfd")?;
        // The quickest: what else the machine does only adds.
        punch = punch.min(filled.elapsed().as_nanos() as f64 / PAGES as f64);
        cycle = cycle.min(begun.elapsed().as_nanos() as f64 / PAGES as f64);
    }
    let begun = Instant::now();
    for _ in 0..PROGRAMS {
        let status = Command::new("/bin/true").stdin(Stdio::null()).status().context("/bin/true")?;
        ensure!(status.success(), "/bin/true: {status}");
    }
    let program = begun.elapsed().as_nanos() as f64 / f64::from(PROGRAMS);
    Ok(Took { punch, cycle, program })
}
