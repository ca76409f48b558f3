//! What the ledger's maps take.

use std::{error::Error, fs, io, thread, time::Duration};

use septwatch::hooks::load::{self, Settings};
use septwatch_common::config::CHUNK;

use crate::{frames::Host, loops::Loops, tell};

/// How long the allocator is watched for what it still takes back.
const SETTLE: Duration = Duration::from_secs(1);
const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;
/// Most of a host with 1 TiB: in MiB while nothing is lent, in GiB while everything is.
const IDLE: f64 = 64.0;
const FULL: f64 = 2.2;
/// Most bytes for each lent frame.
const FRAME: f64 = 8.0;

/// Bytes of each BPF map that this process has open, by id, as the kernel counts them.
fn maps() -> io::Result<Vec<(u32, u64)>> {
    let mut maps = Vec::new();
    for file in fs::read_dir("/proc/self/fdinfo")? {
        // That of the folder itself is gone.
        let Ok(info) = fs::read_to_string(file?.path()) else { continue };
        let number =
            |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            maps.push((id as u32, bytes));
        }
    }
    maps.sort_unstable();
    maps.dedup();
    Ok(maps)
}

/// Bytes of the slabs that chunks come from, as the allocator counts them, whoever has them.
fn slabs() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let of = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let name = words.first()?;
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        // `name active objects size objects-in-a-slab pages-of-a-slab : tunables ... : slabdata active slabs shared`
        ["kmalloc-4k", "kmalloc-cg-4k"].contains(name).then_some(number(5)? * number(14)? * 4096)
    });
    Ok(of.sum())
}

/// All maps of septwatch, with the usual rings, as soon as they are made: of a host without holes, and of this one.
pub fn idle(host: &Host) -> Result<(), Box<dyn Error>> {
    maps_of(host, host.frames - 1, "without holes", (host.tib == 1).then_some(IDLE))?;
    maps_of(host, host.highest_pfn(), "half of all addresses holes", None)
}

fn maps_of(host: &Host, highest_pfn: u64, holes: &str, limit: Option<f64>) -> Result<(), Box<dyn Error>> {
    let before: u64 = maps()?.iter().map(|(_, bytes)| bytes).sum();
    let all = load::load(&Settings::detached(host.frames, highest_pfn), None)?;
    let after: u64 = maps()?.iter().map(|(_, bytes)| bytes).sum();
    drop(all);
    let mib = (after - before) as f64 / MIB;
    let name = host.name();
    tell(&format!("{name}, nothing lent, {holes}: all maps, rings among them"), "MiB", &[mib], limit);
    Ok(())
}

/// What ledger and filter take.
pub struct Ledger {
    /// As the kernel counts maps.
    bytes: u64,
    /// As the allocator counts its slabs.
    slabs: u64,
}

impl Ledger {
    /// At this moment.
    pub fn now() -> Result<Self, Box<dyn Error>> {
        // Chunks of maps that are gone go a while later.
        let mut slabs = slabs()?;
        loop {
            thread::sleep(SETTLE);
            match self::slabs()? {
                fewer if fewer < slabs => slabs = fewer,
                _ => break,
            }
        }
        // All maps that are open: the others do not grow.
        Ok(Self { bytes: maps()?.iter().map(|(_, bytes)| bytes).sum(), slabs })
    }
}

/// What all chunks take that were opened since `before`.
pub fn full(host: &Host, loops: &Loops, before: &Ledger) -> Result<(), Box<dyn Error>> {
    let name = host.name();
    let now = Ledger::now()?;
    let chunks = loops.chunks()?;
    let of_chunks = (now.bytes - before.bytes) as f64;
    let extrapolated = if host.every == 1 { "" } else { ", extrapolated" };
    let full = before.bytes as f64 + of_chunks * host.every as f64;
    let limit = (host.tib == 1).then_some(FULL);
    tell(&format!("{name}, everything lent: maps{extrapolated}"), "GiB", &[full / GIB], limit);
    tell("  chunks that were opened", "", &[chunks as f64], None);
    tell("  as the slab allocator counts them", "GiB", &[(now.slabs - before.slabs) as f64 / GIB], None);
    tell("  for each GiB of memory", "MiB", &[full / MIB / (host.tib << 10) as f64], None);
    let frames = (chunks * CHUNK as u64) as f64;
    tell("  chunks, for each lent frame", "bytes", &[of_chunks / frames], Some(FRAME));
    Ok(())
}
