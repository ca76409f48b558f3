//! What the ledger's maps take.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::Duration,
};

use aya::maps::Map;
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

/// A number that the kernel tells of what is behind a descriptor, in its fdinfo.
fn number(info: &str, key: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

/// Bytes of all BPF maps that this process has open, as the kernel counts them.
fn maps() -> io::Result<u64> {
    let mut maps = BTreeMap::new();
    for file in fs::read_dir("/proc/self/fdinfo")? {
        // That of the folder itself is gone.
        let Ok(info) = fs::read_to_string(file?.path()) else { continue };
        if let (Some(id), Some(bytes)) = (number(&info, "map_id:"), number(&info, "memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

/// Bytes of one map.
fn bytes_of(map: &Map) -> Result<u64, Box<dyn Error>> {
    let (Map::Array(data) | Map::HashMap(data)) = map else { return Err("a map of another kind".into()) };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd()))?;
    number(&info, "memlock:").ok_or_else(|| "a map of no size".into())
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

/// Ledger and filter, and all maps of septwatch with the usual rings, as soon as they are made: of a host without holes, and
/// of this one.
pub fn idle(host: &Host) -> Result<(), Box<dyn Error>> {
    maps_of(host, host.frames - 1, "without holes", (host.tib == 1).then_some(IDLE))?;
    maps_of(host, host.highest_pfn(), "half of all addresses holes", None)
}

fn maps_of(host: &Host, highest_pfn: u64, holes: &str, limit: Option<f64>) -> Result<(), Box<dyn Error>> {
    let before = maps()?;
    let all = load::load(&Settings::detached(host.frames, highest_pfn), None)?;
    let every = maps()? - before;
    let of = |name| bytes_of(all.map(name).ok_or_else(|| format!("no map {name}"))?);
    let ledger = of("LEDGER")? + of("MARKS")?;
    let name = host.name();
    tell(&format!("{name}, nothing lent, {holes}: ledger and filter"), "MiB", &[ledger as f64 / MIB], limit);
    tell("  all maps, rings among them", "MiB", &[every as f64 / MIB], None);
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
        Ok(Self { bytes: maps()?, slabs })
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
