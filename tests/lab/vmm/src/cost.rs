//! What the kernel's paths cost, by the time stamp counter. The emulated CPU's counts instructions; what comes out is the
//! same to a few of them, run after run.

use std::arch::x86_64::_rdtsc;
use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

use crate::td::{PAGE, Td};

/// Ticks until `work` returns.
fn ticks<T>(work: impl FnOnce() -> T) -> (u64, T) {
    // SAFETY: every x86-64 has the instruction, and Linux lets processes use it unless they asked it not to.
    let begun = unsafe { _rdtsc() };
    let done = work();
    // SAFETY: as above.
    (unsafe { _rdtsc() } - begun, done)
}

/// The least of several rounds, for each page: whatever else the machine does only adds.
fn least(rounds: &[u64], pages: u64) -> Result<u64> {
    Ok(rounds.iter().min().context("no rounds")? / pages)
}

/// Maps pages (a fault each, without the guest) and zaps them (a hole in the guest_memfd), in so many rounds; `each` is what
/// both take on average, with all that comes between.
///
/// # Errors
/// KVM refuses.
pub fn cycle(td: &Td, page: u64, count: u64, rounds: u64) -> Result<String> {
    ensure!(count != 0, "no pages");
    let (mut maps, mut zaps) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, (left, faulted)) = ticks(|| td.pre_fault(page, count));
        faulted.with_context(|| format!("left={left}"))?;
        maps.push(took);
        let (took, punched) = ticks(|| td.punch(page, count));
        punched?;
        zaps.push(took);
    }
    let each = maps.iter().chain(&zaps).sum::<u64>() / (rounds * count).max(1);
    Ok(format!("map={} zap={} each={each}", least(&maps, count)?, least(&zaps, count)?))
}

/// Brings pages of a memfd in and punches them out, in so many rounds: pages that no TD has anything to do with.
///
/// # Errors
/// A system call fails.
pub fn pages(count: u64, rounds: u64) -> Result<String> {
    ensure!(count != 0, "no pages");
    let file = File::from(memfd_create("lab-vmm", MemfdFlags::CLOEXEC).context("memfd_create")?);
    ftruncate(&file, count * PAGE).context("ftruncate")?;
    let fallocate = |flags| fallocate(file.as_fd(), flags, 0, count * PAGE);
    let (mut fills, mut punches) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, filled) = ticks(|| fallocate(FallocateFlags::empty()));
        filled.context("fallocate")?;
        fills.push(took);
        let (took, punched) = ticks(|| fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE));
        punched.context("punching")?;
        punches.push(took);
    }
    Ok(format!("fill={} free={}", least(&fills, count)?, least(&punches, count)?))
}
