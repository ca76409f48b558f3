//! The ledger in ordinary memory: what BPF maps are to the eBPF programs, for a replay and for tests.
//!
//! Keeps what [`septwatch_common::tracker`] tells it to keep and knows no rule of its own. Tables have the limits and
//! the way of choosing slots that the kernel side has, so that a replay comes to the same indexes and the same doubts.

pub mod snapshot;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use septwatch_common::{
    Life, Line, PageKind, Suspect, Td,
    config::{MAX_TDS, MAX_WINDOWS, MAX_ZAPS, TD_PROBES},
    tracker::{Each, Store},
    zap::{Zap, ZapKey},
};

/// log2 of the lines in one chunk.
const CHUNK_SHIFT: u32 = 9;
const CHUNK: usize = 1 << CHUNK_SHIFT;

type Marks = [u64; CHUNK / 64];

/// Frames that `bpf_loop` goes through, and so the kernel side: of more, none (BPF_MAX_LOOPS, kernel/bpf/bpf_iter.c).
const MAX_EACH: u64 = 1 << 23;

/// What is running while an event happens: it is kept with the TDs that it creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Time, in ns of CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Process.
    pub tgid: u32,
    /// Name of the thread.
    pub comm: [u8; 16],
}

/// A TD reached a stage of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its index.
    pub td: u16,
    /// Which stage.
    pub life: Life,
    /// Its record then.
    pub record: Td,
}

/// A ledger in memory.
///
/// Costs 8 bytes for each frame of a chunk that ever had an open line; up to `max_chunks` of them.
#[derive(Debug)]
pub struct Ledger {
    /// Set before each event.
    pub running: Running,
    /// See [`septwatch_common::zap::TdNow::premap_exempt`].
    pub premap_exempt: bool,
    /// Reasons for doubt that concern every TD.
    pub suspect: Suspect,
    /// Frames that found no place.
    pub outside: u64,
    /// Lines of all chunks, one after the other.
    lines: Vec<Line>,
    /// The filter, by chunk: a bit for each line.
    marks: Vec<Marks>,
    /// Place in `lines` of a chunk's first line, by pfn / CHUNK.
    chunks: HashMap<u64, usize, RandomState>,
    /// The chunk asked for last: events come in runs.
    last: (u64, usize),
    max_chunks: usize,
    tds: Vec<Td>,
    /// TDs that were numbered so far.
    numbered: u64,
    td_by_tdr: HashMap<u64, u16, RandomState>,
    zaps: HashMap<ZapKey, Zap, RandomState>,
    windows: HashMap<u64, u64, RandomState>,
    stages: Vec<Stage>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Ledger {
    /// An empty ledger that takes up to `max_chunks` chunks of 512 frames (4 KiB each).
    pub fn new(max_chunks: usize) -> Self {
        Self {
            running: Running::default(),
            premap_exempt: false,
            suspect: Suspect::default(),
            outside: 0,
            lines: Vec::new(),
            marks: Vec::new(),
            chunks: HashMap::default(),
            last: (u64::MAX, 0),
            max_chunks,
            tds: vec![Td::EMPTY; MAX_TDS as usize],
            numbered: 0,
            td_by_tdr: HashMap::default(),
            zaps: HashMap::default(),
            windows: HashMap::default(),
            stages: Vec::new(),
        }
    }

    /// The line of a frame, as it is kept: without what a zap under way knows ([`Zap::fold`]).
    pub fn line(&self, pfn: u64) -> Line {
        let chunk = self.chunks.get(&(pfn >> CHUNK_SHIFT));
        chunk.map_or(Line::FREE, |first| self.lines[first + pfn as usize % CHUNK])
    }

    /// Open lines, and their frames, in no order.
    pub fn open_lines(&self) -> impl Iterator<Item = (u64, Line)> {
        self.chunks
            .iter()
            .flat_map(|(chunk, first)| {
                let frames = (chunk << CHUNK_SHIFT)..;
                frames.zip(&self.lines[*first..first + CHUNK]).filter(|(_, line)| line.is_open())
            })
            .map(|(pfn, line)| (pfn, *line))
    }

    /// Frames that the filter in front of the ledger takes for lent, in no order.
    pub fn marked(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().flat_map(|(chunk, first)| {
            let marks = &self.marks[first / CHUNK];
            let frames = (chunk << CHUNK_SHIFT)..;
            frames.zip(0..CHUNK).filter(|(_, n)| marks[n / 64] & 1 << (n % 64) != 0).map(|(pfn, _)| pfn)
        })
    }

    /// Chunks that it has.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The mark of a frame: its word, and its bit there.
    #[inline]
    fn mark_at(&mut self, pfn: u64) -> Option<(&mut u64, u64)> {
        let (first, n) = (self.chunk(pfn)?, pfn as usize % CHUNK);
        Some((&mut self.marks[first / CHUNK][n / 64], 1 << (n % 64)))
    }

    /// The record of a TD, by its index.
    pub fn td(&self, td: u16) -> Option<&Td> {
        self.tds.get(usize::from(td)).filter(|record| record.life != Life::None as u8)
    }

    /// The records of all TDs that it knows, by their index; also of those that are gone.
    pub fn tds(&self) -> impl Iterator<Item = (u16, &Td)> {
        (0..).zip(self.used()).filter(|(_, record)| record.life != Life::None as u8)
    }

    /// Indexes that were given out: from 1 on.
    fn used(&self) -> &[Td] {
        let used = usize::try_from(self.numbered.saturating_add(TD_PROBES)).unwrap_or(usize::MAX);
        &self.tds[..used.min(self.tds.len())]
    }

    /// The TD that was at this TDR at a time (ns of CLOCK_MONOTONIC), as far as its record is still kept.
    pub fn td_at(&self, tdr: u64, time_ns: u64) -> Option<&Td> {
        let then = |record: &&Td| record.tdr == tdr && record.begun_ns <= time_ns;
        let now = self.td_by_tdr.get(&tdr).and_then(|index| self.td(*index)).filter(then);
        // One that is gone.
        let was = || self.tds().map(|(_, record)| record).filter(then).max_by_key(|record| record.begun_ns);
        now.or_else(was)
    }

    /// Zaps under way, and failed ones, in no order.
    pub fn zaps(&self) -> impl Iterator<Item = (&ZapKey, &Zap)> {
        self.zaps.iter()
    }

    /// Open windows: frame, and when it was released, in no order.
    pub fn windows(&self) -> impl Iterator<Item = (u64, u64)> {
        self.windows.iter().map(|(pfn, released_ns)| (*pfn, *released_ns))
    }

    /// Takes the stages that TDs reached since the last time, oldest first.
    pub fn stages(&mut self) -> impl Iterator<Item = Stage> {
        self.stages.drain(..)
    }

    #[inline]
    fn chunk(&mut self, pfn: u64) -> Option<usize> {
        let chunk = pfn >> CHUNK_SHIFT;
        if self.last.0 != chunk {
            self.last = (chunk, *self.chunks.get(&chunk)?);
        }
        Some(self.last.1)
    }
}

impl Store for Ledger {
    /// Place in `lines`.
    type Slot = usize;

    #[inline]
    fn slot(&mut self, pfn: u64) -> Option<Self::Slot> {
        Some(self.chunk(pfn)? + pfn as usize % CHUNK)
    }

    #[inline]
    fn slot_or_new(&mut self, pfn: u64) -> Option<Self::Slot> {
        if let Some(slot) = self.slot(pfn) {
            return Some(slot);
        }
        if self.marks.len() >= self.max_chunks {
            self.outside += 1;
            return None;
        }
        self.chunks.insert(pfn >> CHUNK_SHIFT, self.lines.len());
        self.lines.resize(self.lines.len() + CHUNK, Line::FREE);
        self.marks.push(Marks::default());
        self.slot(pfn)
    }

    #[inline]
    fn read(&mut self, slot: Self::Slot) -> Line {
        self.lines[slot]
    }

    #[inline]
    fn replace(&mut self, slot: Self::Slot, old: Line, new: Line) -> bool {
        let line = &mut self.lines[slot];
        let is_old = *line == old;
        if is_old {
            *line = new;
        }
        is_old
    }

    #[inline]
    fn swap(&mut self, slot: Self::Slot, new: Line) -> Line {
        std::mem::replace(&mut self.lines[slot], new)
    }

    #[inline]
    fn mark(&mut self, pfn: u64, lent: bool) {
        if let Some((marks, mark)) = self.mark_at(pfn) {
            *marks = if lent { *marks | mark } else { *marks & !mark };
        }
    }

    #[inline]
    fn is_marked(&mut self, pfn: u64) -> bool {
        self.mark_at(pfn).is_some_and(|(marks, mark)| *marks & mark != 0)
    }

    #[inline]
    fn premap_exempt(&self) -> bool {
        self.premap_exempt
    }

    #[inline]
    fn td(&mut self, tdr: u64) -> Option<u16> {
        self.td_by_tdr.get(&tdr).copied()
    }

    fn td_begin(&mut self, tdr: u64, hkid: u16, suspect: Suspect) -> Option<u16> {
        let number = self.numbered;
        self.numbered += 1;
        let slots = u64::from(MAX_TDS - 1);
        let mut probed = (0..TD_PROBES).map(|probe| (1 + (number + probe) % slots) as u16);
        let free = probed.find(|index| {
            let record = &self.tds[usize::from(*index)];
            record.life == Life::None as u8 || record.life == Life::Gone as u8 && record.lent() == 0
        });
        let Some(index) = free else {
            self.suspect = self.suspect.and(Suspect::TDS_FULL);
            return None;
        };
        let Running { now_ns, cgroup, tgid, comm } = self.running;
        self.tds[usize::from(index)] = Td {
            tdr,
            begun_ns: now_ns,
            cgroup,
            id: (number as u32).wrapping_add(1),
            suspect,
            tgid,
            hkid,
            life: Life::Created as u8,
            comm,
            ..Td::EMPTY
        };
        self.td_by_tdr.insert(tdr, index);
        Some(index)
    }

    #[inline]
    fn record(&mut self, td: u16) -> Option<&mut Td> {
        if td == 0 { None } else { self.tds.get_mut(usize::from(td)) }
    }

    #[inline]
    fn count(&mut self, td: u16, kind: PageKind, more: bool) {
        if let Some(record) = self.record(td) {
            let frames = &mut record.frames[kind as usize];
            *frames = frames.wrapping_add(if more { 1 } else { u64::MAX });
        }
    }

    fn life(&mut self, td: u16, life: Life) {
        let Some(record) = self.record(td) else { return };
        record.life = life as u8;
        if life == Life::Finalized {
            record.finalized = 1;
        }
        let record = *record;
        self.stages.push(Stage { td, life, record });
        if life == Life::Gone {
            self.td_by_tdr.remove(&record.tdr);
        }
    }

    #[inline]
    fn zap(&mut self, _: u16, key: ZapKey) -> Option<Zap> {
        // Most releases and maps happen while no zap is under way.
        if self.zaps.is_empty() { None } else { self.zaps.get(&key).copied() }
    }

    #[inline]
    fn zap_or_new(&mut self, _: u16, key: ZapKey) -> Option<&mut Zap> {
        if self.zaps.len() >= MAX_ZAPS as usize {
            return self.zaps.get_mut(&key);
        }
        Some(self.zaps.entry(key).or_default())
    }

    #[inline]
    fn zap_of_closed(&mut self, _: u16, key: ZapKey) -> Option<&mut Zap> {
        self.zaps.get_mut(&key)
    }

    #[inline]
    fn drop_zap(&mut self, _: u16, key: ZapKey) {
        self.zaps.remove(&key);
    }

    #[inline]
    fn window(&mut self, pfn: u64) -> u64 {
        self.windows.get(&pfn).copied().unwrap_or(0)
    }

    fn open_window(&mut self, pfn: u64, now_ns: u64) {
        if self.windows.len() < MAX_WINDOWS as usize || self.windows.contains_key(&pfn) {
            self.windows.insert(pfn, now_ns);
        }
    }

    fn close_window(&mut self, pfn: u64) {
        self.windows.remove(&pfn);
    }

    #[inline]
    fn suspect(&self) -> Suspect {
        self.suspect
    }

    fn doubt(&mut self, td: u16, reason: Suspect) {
        if let Some(record) = self.record(td) {
            record.suspect = record.suspect.and(reason);
        }
    }

    #[inline]
    fn each<E: Each<Self>>(&mut self, frames: u64, each: &mut E) {
        if frames > MAX_EACH {
            return;
        }
        for n in 0..frames {
            each.one(self, n);
        }
    }
}
