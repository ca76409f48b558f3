//! All that a ledger holds, to be kept in a file and to go on from.
//!
//! What is read back is checked as a whole before a ledger is made of it: the file may be damaged, or made to do harm.

use std::collections::HashSet;

use septwatch_common::{
    Life, Line, Suspect, Td,
    config::{MAX_TDS, MAX_WINDOWS, MAX_ZAPS},
    tracker::Store,
    zap::{Zap, ZapKey},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CHUNK_SHIFT, Ledger};

/// All that a ledger holds. Everything is in ascending order of its key, without doubles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`Ledger::premap_exempt`].
    pub premap_exempt: bool,
    /// See [`Ledger::suspect`].
    #[serde(with = "SuspectFields")]
    pub suspect: Suspect,
    /// See [`Ledger::outside`].
    pub outside: u64,
    /// TDs that were numbered so far: at most [`u32::MAX`].
    pub numbered: u64,
    /// TDs, by index; one that is gone and holds no frame is nobody's any more, and left out.
    pub tds: Vec<KeptTd>,
    /// Open lines, by frame.
    #[serde(with = "lines")]
    pub lines: Vec<(u64, Line)>,
    /// Zaps under way, and failed ones, by key.
    pub zaps: Vec<KeptZap>,
    /// Open windows: frame, and when it was released, in ns of CLOCK_MONOTONIC; by frame.
    pub windows: Vec<(u64, u64)>,
}

/// A TD in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTd {
    /// Its index, from 1 to MAX_TDS - 1.
    pub index: u16,
    /// Whether it is found by its TDR: not if another TD began at the same TDR since.
    pub by_tdr: bool,
    /// Its record.
    #[serde(with = "TdFields")]
    pub record: Td,
}

/// A zap in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptZap {
    /// Its key.
    #[serde(with = "ZapKeyFields")]
    pub key: ZapKey,
    /// What is known of it.
    #[serde(with = "ZapFields")]
    pub zap: Zap,
}

/// No ledger can be in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// An index is not one of the table.
    #[error("a TD with index {0}: the table of TDs has 1 to {max}", max = MAX_TDS - 1)]
    Index(u16),
    /// A record's stage of life is none.
    #[error("TD {index} is at stage {life} of its life: stages of a TD that exists are 1 to 5")]
    Life {
        /// Index of the TD.
        index: u16,
        /// The stage's number.
        life: u8,
    },
    /// Two TDs are found by one TDR.
    #[error("two TDs are found by the TDR at frame {0:#x}")]
    Tdr(u64),
    /// More TDs than there are numbers.
    #[error("{0} TDs were numbered: there are at most {max} numbers", max = u32::MAX)]
    Numbered(u64),
    /// A line is not one that opens.
    #[error("frame {pfn:#x} has line {line:#x}, which is not that of a lent frame")]
    Line {
        /// The frame.
        pfn: u64,
        /// The line's bits.
        line: u64,
    },
    /// A list is not in order.
    #[error("{0} are not in ascending order")]
    Order(&'static str),
    /// A table would overflow.
    #[error("{count} {what}: a ledger holds at most {max}")]
    Many {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there can be.
        max: usize,
    },
}

impl Ledger {
    /// All that it holds, but what is running and the stages that were not taken.
    pub fn snapshot(&self) -> Snapshot {
        let of = |(index, record): (u16, &Td)| KeptTd {
            index,
            by_tdr: self.td_by_tdr.get(&record.tdr) == Some(&index),
            record: *record,
        };
        let is_somebodys = |record: &Td| {
            let gone = record.life == Life::Gone as u8 && record.lent() == 0;
            record.life != Life::None as u8 && !gone
        };
        let tds = (0..).zip(&self.tds).filter(|(_, record)| is_somebodys(record)).map(of).collect();
        let mut lines: Vec<_> = self.open_lines().collect();
        lines.sort_unstable_by_key(|(pfn, _)| *pfn);
        let mut zaps: Vec<_> = self.zaps.iter().map(|(key, zap)| KeptZap { key: *key, zap: *zap }).collect();
        zaps.sort_unstable_by_key(|kept| kept.key);
        let mut windows: Vec<_> = self.windows().collect();
        windows.sort_unstable();
        let Self { premap_exempt, suspect, outside, numbered, .. } = *self;
        Snapshot { premap_exempt, suspect, outside, numbered, tds, lines, zaps, windows }
    }

    /// A ledger that goes on from there, with up to `max_chunks` chunks of 512 frames (4 KiB each). A single line makes
    /// a chunk: `max_chunks` is what bounds the memory that a snapshot from an unknown hand can ask for.
    ///
    /// # Errors
    /// The snapshot is not that of a ledger, or has more chunks.
    pub fn restore(snapshot: &Snapshot, max_chunks: usize) -> Result<Self, SnapshotError> {
        snapshot.check(max_chunks)?;
        let mut ledger = Self::new(max_chunks);
        ledger.premap_exempt = snapshot.premap_exempt;
        ledger.suspect = snapshot.suspect;
        ledger.outside = snapshot.outside;
        ledger.numbered = snapshot.numbered;
        for KeptTd { index, by_tdr, record } in &snapshot.tds {
            ledger.tds[usize::from(*index)] = *record;
            if *by_tdr {
                ledger.td_by_tdr.insert(record.tdr, *index);
            }
        }
        for (pfn, line) in &snapshot.lines {
            if let Some(slot) = ledger.slot_or_new(*pfn) {
                ledger.mark(*pfn, true);
                ledger.lines[slot] = *line;
            }
        }
        ledger.zaps = snapshot.zaps.iter().map(|kept| (kept.key, kept.zap)).collect();
        ledger.windows = snapshot.windows.iter().copied().collect();
        Ok(ledger)
    }
}

impl Snapshot {
    fn check(&self, max_chunks: usize) -> Result<(), SnapshotError> {
        if self.numbered > u64::from(u32::MAX) {
            return Err(SnapshotError::Numbered(self.numbered));
        }
        let mut tdrs = HashSet::new();
        for KeptTd { index, by_tdr, record } in &self.tds {
            if *index == 0 || u32::from(*index) >= MAX_TDS {
                return Err(SnapshotError::Index(*index));
            }
            if record.life == Life::None as u8 || Life::from_number(record.life).is_none() {
                return Err(SnapshotError::Life { index: *index, life: record.life });
            }
            if *by_tdr && !tdrs.insert(record.tdr) {
                return Err(SnapshotError::Tdr(record.tdr));
            }
        }
        for (pfn, line) in &self.lines {
            let is_of_a_td = line.owner() != 0 && u32::from(line.owner()) < MAX_TDS;
            if !line.is_open() || !line.is_well_formed() || !is_of_a_td {
                return Err(SnapshotError::Line { pfn: *pfn, line: line.0 });
            }
        }
        ascending("TDs", self.tds.iter().map(|td| td.index))?;
        ascending("lines", self.lines.iter().map(|(pfn, _)| *pfn))?;
        ascending("zaps", self.zaps.iter().map(|kept| kept.key))?;
        ascending("windows", self.windows.iter().map(|(pfn, _)| *pfn))?;
        let chunks = self.lines.chunk_by(|(a, _), (b, _)| a >> CHUNK_SHIFT == b >> CHUNK_SHIFT);
        at_most("chunks", chunks.count(), max_chunks)?;
        at_most("zaps", self.zaps.len(), MAX_ZAPS as usize)?;
        at_most("windows", self.windows.len(), MAX_WINDOWS as usize)
    }
}

fn ascending<K: Ord>(what: &'static str, keys: impl Iterator<Item = K>) -> Result<(), SnapshotError> {
    if keys.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(SnapshotError::Order(what)) }
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), SnapshotError> {
    if count <= max { Ok(()) } else { Err(SnapshotError::Many { what, count, max }) }
}

/// Lines in a file: how much further the frame is than the one before, and how the line differs from what it would be
/// in the same leaf. Frames that lie together and are mapped together are two bytes each.
mod lines {
    use septwatch_common::Line;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// The frame after this one, and what its line is in the same leaf.
    fn next((pfn, line): (u64, Line)) -> (u64, Line) {
        (pfn.wrapping_add(1), line.nth(1))
    }

    pub fn serialize<S: Serializer>(lines: &[(u64, Line)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut expected = (0_u64, Line::FREE);
        serializer.collect_seq(lines.iter().map(|at| {
            let (pfn, line) = expected;
            expected = next(*at);
            (at.0.wrapping_sub(pfn), at.1.0.wrapping_sub(line.0) as i64)
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(u64, Line)>, D::Error> {
        let mut expected = (0_u64, Line::FREE);
        // Serde reserves no more than a MiB for what a length claims.
        let lines = Vec::<(u64, i64)>::deserialize(deserializer)?;
        Ok(lines
            .into_iter()
            .map(|(further, other)| {
                let (pfn, line) = expected;
                let at = (pfn.wrapping_add(further), Line(line.0.wrapping_add(other as u64)));
                expected = next(at);
                at
            })
            .collect())
    }
}

// The ledger's own types, field by field: what they are on BPF maps, they need not be in a file.

#[derive(Serialize, Deserialize)]
#[serde(remote = "Suspect")]
struct SuspectFields(u32);

#[derive(Serialize, Deserialize)]
#[serde(remote = "ZapKey")]
struct ZapKeyFields {
    gfn: u64,
    td: u32,
    #[serde(skip)]
    zero: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Zap")]
struct ZapFields {
    begun_ns: u64,
    failed_ns: u64,
    failed_status: u64,
    ext_err1: u64,
    ext_err2: u64,
    pfn: u64,
    epoch: u32,
    closed: u32,
    failed_leaf: u8,
    progress: u8,
    busy: u8,
    busy_leaf: u8,
    level: u8,
    #[serde(skip)]
    zero: [u8; 3],
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Td")]
struct TdFields {
    tdr: u64,
    begun_ns: u64,
    cgroup: u64,
    zap_gfn: u64,
    zap_pfn: u64,
    zap_called: u64,
    invalidation_ns: u64,
    bugged_ns: u64,
    failed_ns: u64,
    failed_status: u64,
    frames: [u64; 6],
    id: u32,
    epoch: u32,
    #[serde(with = "SuspectFields")]
    suspect: Suspect,
    tgid: u32,
    hkid: u16,
    life: u8,
    finalized: u8,
    failed_leaf: u8,
    #[serde(skip)]
    zero: [u8; 3],
    comm: [u8; 16],
}
