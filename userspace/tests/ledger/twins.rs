//! The ledger and the naive model side by side.

use std::collections::BTreeMap;

use septwatch::model::store::Ledger;
use septwatch_common::{
    Leaf, Life, Line, PageKind, State, Suspect, Td, Violation,
    tracker::{self, Finding, Store},
    zap::{Zap, ZapKey},
};

use crate::{
    naive::{Expected, Naive},
    steps::{Event, Step},
};

/// How to break the ledger, to see that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    RemoveNotSeen,
    TrackNotSeen,
    FlushNotSeen,
    BatchedTakenForAnother,
    ReleasedNotKept,
    ZapNotDropped,
    WindowNotClosed,
    NotCounted,
    MarkNotCleared,
    WrongGfn,
}

impl Mutation {
    pub const ALL: [Self; 10] = [
        Self::RemoveNotSeen,
        Self::TrackNotSeen,
        Self::FlushNotSeen,
        Self::BatchedTakenForAnother,
        Self::ReleasedNotKept,
        Self::ZapNotDropped,
        Self::WindowNotClosed,
        Self::NotCounted,
        Self::MarkNotCleared,
        Self::WrongGfn,
    ];
}

pub struct Twins {
    pub ledger: Ledger,
    pub naive: Naive,
    /// Operations so far; the same done to each frame of a huge leaf counts once.
    pub operations: u64,
    /// Violations that both found, by kind.
    pub violations: BTreeMap<Violation, u64>,
    mutation: Option<Mutation>,
    now_ns: u64,
}

impl Twins {
    pub fn new(premap_exempt: bool, mutation: Option<Mutation>) -> Self {
        let mut ledger = Ledger::default();
        ledger.premap_exempt = premap_exempt;
        let naive = Naive { premap_exempt, ..Naive::default() };
        Self { ledger, naive, operations: 0, violations: BTreeMap::new(), mutation, now_ns: 0 }
    }

    /// Lives through the steps; says where the two differ.
    pub fn live(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut events = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            events.clear();
            step.events(&self.naive, &mut events);
            let mut last = None;
            for event in &events {
                self.event(event).map_err(|why| format!("{why}\nat step {n}, {event:?}"))?;
                let kind = match event {
                    Event::Call(leaf, _) => *leaf as u8,
                    Event::Free { batched, .. } => 0xf0 + u8::from(*batched),
                    Event::Alloc { .. } => 0xf2,
                };
                self.operations += u64::from(last != Some(kind));
                last = Some(kind);
            }
            if n % 16 == 0 || n + 1 == steps.len() {
                self.state().map_err(|why| format!("{why}\nin the state after step {n}"))?;
            }
        }
        Ok(())
    }

    /// One event, and what both say of it.
    pub fn event(&mut self, event: &Event) -> Result<(), String> {
        self.now_ns += 1;
        let now_ns = self.now_ns;
        self.ledger.running.now_ns = now_ns;
        let mutation = self.mutation;
        let mut s = Broken { ledger: &mut self.ledger, mutation };
        let mut out = Finding::NONE;
        let (found, expected) = match *event {
            Event::Call(leaf, mut call) => {
                call.answer.now_ns = now_ns;
                let expected = self.naive.seamcall(leaf, &call);
                let unseen = match mutation {
                    Some(Mutation::RemoveNotSeen) => leaf == Leaf::MemPageRemove,
                    Some(Mutation::TrackNotSeen) => leaf == Leaf::MemTrack,
                    Some(Mutation::FlushNotSeen) => leaf == Leaf::PhymemPageWbinvd,
                    _ => false,
                };
                if mutation == Some(Mutation::WrongGfn) && leaf == Leaf::MemPageAug {
                    call.gfn ^= 0x8000;
                }
                (!unseen && tracker::seamcall(&mut s, leaf, &call, &mut out), expected)
            }
            Event::Free { pfn, batched } => {
                let expected = self.naive.release(pfn, batched, now_ns);
                let batched = batched && mutation != Some(Mutation::BatchedTakenForAnother);
                (tracker::release(&mut s, pfn, batched, now_ns, &mut out), expected)
            }
            Event::Alloc { pfn } => {
                let expected = self.naive.allocation(pfn, now_ns);
                (tracker::allocation(&mut s, pfn, now_ns, &mut out), expected)
            }
        };
        let found = found.then(|| self.found(&out));
        if found != expected {
            return Err(format!("found {found:#?},\nexpected {expected:#?}"));
        }
        if let Some(expected) = expected {
            *self.violations.entry(expected.violation).or_default() += 1;
        }
        Ok(())
    }

    fn found(&self, out: &Finding) -> Expected {
        let id = |td| self.ledger.td(td).map(|record| record.id);
        let failed = Leaf::from_number(u64::from(out.zap.failed_leaf)).unwrap();
        Expected {
            violation: out.violation,
            pfn: out.pfn,
            gfn: out.gfn,
            td: id(out.td),
            other: id(out.other),
            released_ns: out.released_ns,
            frames: out.frames,
            suspect: !out.suspect.is_certain(),
            failed: out.zap.has_failed().then_some((failed, out.zap.failed_status)),
        }
    }

    /// Everything that is kept.
    pub fn state(&self) -> Result<(), String> {
        same("frames", self.frames(), self.naive_frames())?;
        let marked = self.ledger.marked().map(|pfn| (pfn, ()));
        same("marks", marked.collect(), self.naive.frames.keys().map(|pfn| (*pfn, ())).collect())?;
        same("windows", self.ledger.windows().collect(), self.naive.windows.clone())?;
        same("TDs", self.tds(), self.naive_tds())?;
        let zaps = self.ledger.zaps().map(|(key, zap)| {
            let failed = zap.has_failed().then_some((zap.failed_leaf, zap.failed_status));
            let blocked = zap.progress & Zap::BLOCKED != 0;
            ((key.td, key.gfn), (blocked, zap.progress & Zap::REMOVED != 0, failed))
        });
        let attempts = self.naive.attempts.iter().map(|(leaf, attempt)| {
            let failed = attempt.failed.map(|(step, status)| (step as u8, status));
            (*leaf, (attempt.blocked_at.is_some(), attempt.removed, failed))
        });
        same("zaps", zaps.collect(), attempts.collect())
    }

    /// Frames as the ledger and the zaps tell them together.
    fn frames(&self) -> BTreeMap<u64, Kept> {
        let zaps: BTreeMap<_, _> = self.ledger.zaps().map(|(key, zap)| ((key.td, key.gfn), *zap)).collect();
        let open = self.ledger.open_lines();
        open.map(|(pfn, line)| {
            let td = self.ledger.td(line.owner()).map_or(0, |record| record.id);
            let zap = zaps.get(&(td, line.level().head(line.gfn())));
            let known = zap
                .filter(|_| line.kind() == PageKind::Leaf)
                .map_or(line, |zap| Zap::fold(zap.progress, line));
            (
                pfn,
                Kept {
                    td,
                    kind: line.kind(),
                    gfn: line.gfn(),
                    level: line.level() as u8,
                    state: known.state(),
                    released: line.is_released(),
                    reused: line.is_reused(),
                },
            )
        })
        .collect()
    }

    fn naive_frames(&self) -> BTreeMap<u64, Kept> {
        let frames = self.naive.frames.iter();
        frames
            .map(|(pfn, lent)| {
                (
                    *pfn,
                    Kept {
                        td: lent.td,
                        kind: lent.kind,
                        gfn: lent.gfn,
                        level: lent.level as u8,
                        state: lent.state(),
                        released: lent.released,
                        reused: lent.reused,
                    },
                )
            })
            .collect()
    }

    /// By number: TDR, life, whether finalized, epoch, frames lent by kind. TDs that are gone and hold nothing may
    /// have given their index away.
    fn tds(&self) -> BTreeMap<u32, (u64, u8, bool, u32, [u64; 6])> {
        let records = (1..=4095).filter_map(|td| self.ledger.td(td));
        let alive = records.filter(|record| record.life != Life::Gone as u8 || record.lent() != 0);
        alive.map(|td| (td.id, (td.tdr, td.life, td.finalized != 0, td.epoch, td.frames))).collect()
    }

    fn naive_tds(&self) -> BTreeMap<u32, (u64, u8, bool, u32, [u64; 6])> {
        let tds = self.naive.tds.iter().map(|(id, td)| {
            let mut frames = [0; 6];
            for lent in self.naive.frames.values().filter(|lent| lent.td == *id) {
                frames[lent.kind as usize] += 1;
            }
            (*id, (td.tdr, td.life.unwrap() as u8, td.finalized, td.tracked, frames))
        });
        tds.filter(|(_, td)| td.1 != Life::Gone as u8 || td.4 != [0; 6]).collect()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Kept {
    td: u32,
    kind: PageKind,
    gfn: u64,
    level: u8,
    state: State,
    released: bool,
    reused: bool,
}

fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    found: BTreeMap<K, V>,
    expected: BTreeMap<K, V>,
) -> Result<(), String> {
    let wrong = |(key, value): (&K, &V)| {
        let other = expected.get(key);
        (other != Some(value)).then(|| format!("{what}: {key:x?} is {value:x?}, expected {other:x?}"))
    };
    if let Some(why) = found.iter().find_map(wrong) {
        return Err(why);
    }
    match expected.iter().find(|(key, _)| !found.contains_key(*key)) {
        Some((key, value)) => Err(format!("{what}: {key:x?} is missing, expected {value:x?}")),
        None => Ok(()),
    }
}

/// A ledger that forgets what the mutation says.
struct Broken<'a> {
    ledger: &'a mut Ledger,
    mutation: Option<Mutation>,
}

impl Store for Broken<'_> {
    type Slot = <Ledger as Store>::Slot;

    fn slot(&mut self, pfn: u64) -> Option<Self::Slot> {
        self.ledger.slot(pfn)
    }
    fn slot_or_new(&mut self, pfn: u64) -> Option<Self::Slot> {
        self.ledger.slot_or_new(pfn)
    }
    fn read(&mut self, slot: Self::Slot) -> Line {
        self.ledger.read(slot)
    }
    fn replace(&mut self, slot: Self::Slot, old: Line, new: Line) -> bool {
        let broken = self.mutation == Some(Mutation::ReleasedNotKept);
        self.ledger.replace(slot, old, if broken { Line(new.0 & !(1 << 3)) } else { new })
    }
    fn swap(&mut self, slot: Self::Slot, new: Line) -> Line {
        self.ledger.swap(slot, new)
    }
    fn mark(&mut self, pfn: u64, lent: bool) {
        if lent || self.mutation != Some(Mutation::MarkNotCleared) {
            self.ledger.mark(pfn, lent);
        }
    }
    fn is_marked(&mut self, pfn: u64) -> bool {
        self.ledger.is_marked(pfn)
    }
    fn premap_exempt(&self) -> bool {
        Store::premap_exempt(self.ledger)
    }
    fn td(&mut self, tdr: u64) -> Option<u16> {
        Store::td(self.ledger, tdr)
    }
    fn td_begin(&mut self, tdr: u64, hkid: u16, suspect: Suspect) -> Option<u16> {
        self.ledger.td_begin(tdr, hkid, suspect)
    }
    fn record(&mut self, td: u16) -> Option<&mut Td> {
        self.ledger.record(td)
    }
    fn count(&mut self, td: u16, kind: PageKind, more: bool) {
        if more || self.mutation != Some(Mutation::NotCounted) {
            self.ledger.count(td, kind, more);
        }
    }
    fn life(&mut self, td: u16, life: Life) {
        self.ledger.life(td, life);
    }
    fn zap(&mut self, td: u16, key: ZapKey) -> Option<Zap> {
        self.ledger.zap(td, key)
    }
    fn zap_or_new(&mut self, td: u16, key: ZapKey) -> Option<&mut Zap> {
        self.ledger.zap_or_new(td, key)
    }
    fn zap_of_closed(&mut self, td: u16, key: ZapKey) -> Option<&mut Zap> {
        self.ledger.zap_of_closed(td, key)
    }
    fn drop_zap(&mut self, td: u16, key: ZapKey) {
        if self.mutation != Some(Mutation::ZapNotDropped) {
            self.ledger.drop_zap(td, key);
        }
    }
    fn window(&mut self, pfn: u64) -> u64 {
        self.ledger.window(pfn)
    }
    fn open_window(&mut self, pfn: u64, now_ns: u64) {
        self.ledger.open_window(pfn, now_ns);
    }
    fn close_window(&mut self, pfn: u64) {
        if self.mutation != Some(Mutation::WindowNotClosed) {
            self.ledger.close_window(pfn);
        }
    }
    fn suspect(&self) -> Suspect {
        Store::suspect(self.ledger)
    }
    fn doubt(&mut self, td: u16, reason: Suspect) {
        self.ledger.doubt(td, reason);
    }
}
