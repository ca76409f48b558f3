//! Where `struct page` lies: the address of frame 0's, which the kernel randomises at every boot.
//!
//! By name where /proc/kallsyms lists `vmemmap_base` and programs may read the kernel's memory, else by experiment:
//! give back frames whose numbers are known, and see which `struct page` the allocator's tracepoint shows for them.

use std::collections::BTreeSet;

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapError},
    programs::RawTracePoint,
};
use rustix::fs::{MemfdFlags, memfd_create};
use septwatch_common::config::CALIBRATION_PAGES;
use thiserror::Error;

use crate::{
    hooks::load::PageStruct,
    source::demo::memory::{Memory, MemoryError, Pinned},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/septwatch-calibrate"));

/// Pages given back in one try.
const PAGES: usize = 32;
/// Tries: frames that follow each other at regular distances leave more than one answer.
const TRIES: usize = 5;

/// The address is not to be found.
#[derive(Debug, Error)]
pub enum CalibrateError {
    /// The program cannot be loaded.
    #[error("calibration: the eBPF object cannot be loaded")]
    Object(#[from] aya::EbpfError),
    /// The program cannot be attached to mm_page_free.
    #[error("calibration: the program for mm_page_free cannot be attached")]
    Program(#[from] aya::programs::ProgramError),
    /// What it saw cannot be read.
    #[error("calibration: what the program saw cannot be read")]
    Map(#[from] MapError),
    /// The object and this binary do not belong together.
    #[error("calibration: the eBPF object has no {0}")]
    Missing(&'static str),
    /// No frames of known number.
    #[error("calibration: no page of known frame to give back")]
    Memory(#[from] MemoryError),
    /// The frames were given back, and the tracepoint did not show them.
    #[error(
        "calibration: {PAGES} frames were given back {TRIES} times, and mm_page_free never showed them all in one \
         array of struct page; is another program of the kind on this host, or is sizeof(struct page) not {size}?"
    )]
    NotSeen {
        /// What BTF says that it is, in bytes.
        size: u64,
    },
}

/// Reads `vmemmap_base`, whose address kallsyms gave. None: the kernel does not let programs read it.
///
/// # Errors
/// See [`CalibrateError`].
pub fn read(size: u64, address: u64, btf: Option<&Btf>) -> Result<Option<PageStruct>, CalibrateError> {
    let mut program = Program::load(address, btf)?;
    let failed = |call| move |errno: rustix::io::Errno| MemoryError::Call { call, source: errno.into() };
    let file = memfd_create("septwatch-calibrate", MemfdFlags::CLOEXEC).map_err(failed("memfd_create"))?;
    rustix::io::write(&file, &[0]).map_err(failed("write to a memfd"))?;
    program.watch(|| {
        drop(file);
        Ok(())
    })?;
    let base: Array<_, u64> = Array::try_from(program.map("BASE")?)?;
    let base = base.get(&0, 0)?;
    Ok((base != 0).then_some(PageStruct { base, size }))
}

/// Finds the address by experiment; `size` is `sizeof(struct page)` in bytes.
///
/// # Errors
/// See [`CalibrateError`].
pub fn calibrate(size: u64, btf: Option<&Btf>) -> Result<PageStruct, CalibrateError> {
    for _ in 0..TRIES {
        let (pfns, seen) = give_back(btf)?;
        if let Some(base) = solve(&pfns, &seen, size) {
            return Ok(PageStruct { base, size });
        }
    }
    Err(CalibrateError::NotSeen { size })
}

/// Frames that were given back, and the `struct page`s that the tracepoint showed meanwhile.
fn give_back(btf: Option<&Btf>) -> Result<(Vec<u64>, BTreeSet<u64>), CalibrateError> {
    let mut program = Program::load(0, btf)?;
    // A page may wait on the LRU batch of the CPU that it was touched on: the free must come from there.
    let _pinned = Pinned::here()?;
    let memory = Memory::memfd(PAGES)?;
    let pfns = (0..PAGES).map(|page| memory.touch(page)).collect::<Result<Vec<_>, _>>()?;
    program.watch(|| memory.punch(0, PAGES))?;
    let count: Array<_, u64> = Array::try_from(program.map("COUNT")?)?;
    let pages: Array<_, u64> = Array::try_from(program.map("SEEN")?)?;
    let count = count.get(&0, 0)?.min(u64::from(CALIBRATION_PAGES)) as u32;
    let seen = (0..count).map(|n| pages.get(&n, 0)).collect::<Result<_, _>>()?;
    Ok((pfns, seen))
}

struct Program(Ebpf);

impl Program {
    /// `address` is that of `vmemmap_base`, or 0.
    fn load(address: u64, btf: Option<&Btf>) -> Result<Self, CalibrateError> {
        let tgid = std::process::id();
        let mut loader = EbpfLoader::new();
        loader.btf(btf).override_global("TGID", &tgid, true).override_global("BASE_ADDRESS", &address, true);
        Ok(Self(loader.load(OBJECT)?))
    }

    fn map(&self, name: &'static str) -> Result<&Map, CalibrateError> {
        self.0.map(name).ok_or(CalibrateError::Missing(name))
    }

    /// Attached only while `release` gives pages back.
    fn watch(&mut self, release: impl FnOnce() -> Result<(), MemoryError>) -> Result<(), CalibrateError> {
        const NAME: &str = "page_freed";
        let program = self.0.program_mut(NAME).and_then(|program| program.try_into().ok());
        let program: &mut RawTracePoint = program.ok_or(CalibrateError::Missing(NAME))?;
        program.load()?;
        let link = program.attach("mm_page_free")?;
        release()?;
        Ok(program.detach(link)?)
    }
}

/// The one address for which every frame's `struct page` was seen.
fn solve(pfns: &[u64], seen: &BTreeSet<u64>, size: u64) -> Option<u64> {
    let first = *pfns.first()?;
    let mut bases = seen
        .iter()
        .map(|page| page.wrapping_sub(first.wrapping_mul(size)))
        .filter(|base| pfns.iter().all(|pfn| seen.contains(&base.wrapping_add(pfn.wrapping_mul(size)))));
    let base = bases.next()?;
    if bases.next().is_some() { None } else { Some(base) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_ea00_0000_0000;

    fn seen(pfns: &[u64]) -> BTreeSet<u64> {
        pfns.iter().map(|pfn| BASE + pfn * 64).collect()
    }

    #[test]
    fn the_base_is_found_among_foreign_pages() {
        let pfns = [0x1000, 0x1003, 0x2007, 0x1];
        let mut all = seen(&pfns);
        all.extend(seen(&[0x55, 0x1004, 0x3000]));
        assert_eq!(solve(&pfns, &all, 64), Some(BASE));
    }

    #[test]
    fn an_unclear_answer_is_none() {
        // Two runs of three frames in a row fit a block of four.
        assert_eq!(solve(&[1, 2, 3], &seen(&[1, 2, 3, 4]), 64), None);
        assert_eq!(solve(&[1, 2, 3], &seen(&[1, 2]), 64), None);
        assert_eq!(solve(&[1, 2, 3], &seen(&[1, 2, 3]), 56), None);
        assert_eq!(solve(&[], &seen(&[1]), 64), None);
    }
}
