//! KVM, the TDX module and the walker in the clear.

use std::collections::{BTreeMap, BTreeSet};

use septwatch::model::store::Ledger;
use septwatch_common::{
    Leaf, Level, Life, Line, PageKind, Status, Suspect, Td, Violation,
    tracker::{
        self, Call, Finding, Store,
        walk::{Claim, claim, settle},
    },
    zap::{Answer, PFN_UNKNOWN, Zap, ZapKey},
};

pub(super) const TDR: u64 = 0x100;
/// Frames that can be lent, and guest frames.
pub(super) const FRAMES: u64 = 3;
pub(super) const PFN: u64 = 0x800;
pub(super) const GFN: u64 = 0x400;
pub(super) const CONTROL: u64 = 0x900;

/// What the mirror has at a guest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    None,
    Frozen,
    Present(u64),
}

/// Where the walker is with a guest frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Walking {
    Read,
    Claim(u64),
    Again(u64),
    Settle(u64, bool),
}

/// A ledger whose every look and change is a moment in which the walker may move.
pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) td: u16,
    pub(super) mirror: BTreeMap<u64, Entry>,
    /// Guest frame by frame: what the module maps.
    pub(super) module: BTreeMap<u64, u64>,
    /// The moments, counted from 0, at which the walker makes its next moves.
    pub(super) moves: Vec<u32>,
    pub(super) moment: u32,
    /// Guest frames that the walker has before it, the last first, and where it is with that.
    pub(super) ahead: Vec<u64>,
    pub(super) walking: Walking,
    pub(super) violations: Vec<Violation>,
}

impl World {
    /// These guest frames had frames of the same number before the first hook.
    pub(super) fn new(mapped: &[u64], moves: Vec<u32>) -> Self {
        let mut ledger = Ledger::default();
        let td = ledger.td_begin(TDR, 1, Suspect::LATE.and(Suspect::WALK)).unwrap();
        let record = ledger.record(td).unwrap();
        (record.finalized, record.life) = (1, Life::Finalized as u8);
        let mirror = (0..FRAMES)
            .map(|at| (GFN + at, if mapped.contains(&at) { Entry::Present(PFN + at) } else { Entry::None }));
        Self {
            ledger,
            td,
            mirror: mirror.collect(),
            module: mapped.iter().map(|at| (PFN + at, GFN + at)).collect(),
            moves,
            moment: 0,
            ahead: (0..FRAMES).rev().map(|at| GFN + at).collect(),
            walking: Walking::Read,
            violations: Vec::new(),
        }
    }

    pub(super) fn line(&self, gfn: u64) -> Line {
        Line::open(PageKind::Leaf, self.td, Level::L4K, gfn).walked()
    }

    /// One move of the walker. False: it is through.
    pub(super) fn walk(&mut self) -> bool {
        let Some(gfn) = self.ahead.last().copied() else { return false };
        let again = self.walking;
        self.walking = Walking::Read;
        let line = self.line(gfn);
        match again {
            Walking::Read => match self.mirror[&gfn] {
                Entry::Present(pfn) => self.walking = Walking::Claim(pfn),
                _ => drop(self.ahead.pop()),
            },
            Walking::Claim(pfn) => match claim(&mut self.ledger, pfn, line) {
                Claim::Made => self.walking = Walking::Again(pfn),
                Claim::Known => drop(self.ahead.pop()),
                Claim::Raced | Claim::Other if self.mirror[&gfn] != Entry::Present(pfn) => {
                    self.ahead.pop();
                }
                // Looked at again.
                Claim::Raced | Claim::Other => {}
                Claim::Outside => panic!("there is room"),
            },
            Walking::Again(pfn) => {
                self.walking = Walking::Settle(pfn, self.mirror[&gfn] == Entry::Present(pfn));
            }
            Walking::Settle(pfn, still) => {
                let entered = settle(&mut self.ledger, pfn, line, still);
                if entered || !still || self.mirror[&gfn] != Entry::Present(pfn) {
                    self.ahead.pop();
                }
            }
        }
        true
    }

    /// A moment passes.
    pub(super) fn tick(&mut self) {
        while self.moves.first() == Some(&self.moment) {
            self.moves.remove(0);
            self.walk();
        }
        self.moment += 1;
    }

    pub(super) fn call(&mut self, leaf: Leaf, pfn: u64, gfn: u64) {
        self.tick();
        self.ledger.running.now_ns += 1;
        let names_td = !matches!(leaf, Leaf::PhymemPageWbinvd | Leaf::PhymemPageReclaim);
        let call = Call {
            tdr: if names_td { TDR } else { PFN_UNKNOWN },
            pfn,
            tdvpr: PFN_UNKNOWN,
            gfn,
            level: Level::L4K,
            hkid: 1,
            answer: Answer {
                status: Status(0),
                ext_err1: 0,
                ext_err2: 0,
                now_ns: self.ledger.running.now_ns,
            },
        };
        let mut out = Finding::NONE;
        if tracker::seamcall(self, leaf, &call, &mut out) {
            self.violations.push(out.violation);
        }
    }

    /// KVM maps a frame: the entry is frozen, the module asked, the entry written.
    pub(super) fn map(&mut self, gfn: u64, pfn: u64) {
        let mut out = Finding::NONE;
        if tracker::allocation(self, pfn, 1, &mut out) {
            self.violations.push(out.violation);
        }
        self.tick();
        self.mirror.insert(gfn, Entry::Frozen);
        self.tick();
        self.module.insert(pfn, gfn);
        self.call(Leaf::MemPageAug, pfn, gfn);
        self.tick();
        self.mirror.insert(gfn, Entry::Present(pfn));
        self.tick();
    }

    /// KVM zaps it: the entry is taken out first. The page allocator gets the frame, if `frees`. The module names it in
    /// REMOVE's answer, or does not.
    pub(super) fn zap(&mut self, gfn: u64, pfn: u64, frees: bool, names: bool) {
        self.mirror.insert(gfn, Entry::None);
        self.call(Leaf::MemRangeBlock, PFN_UNKNOWN, gfn);
        self.call(Leaf::MemTrack, PFN_UNKNOWN, 0);
        self.module.remove(&pfn);
        self.call(Leaf::MemPageRemove, if names { pfn } else { PFN_UNKNOWN }, gfn);
        self.call(Leaf::PhymemPageWbinvd, pfn, 0);
        self.tick();
        if frees {
            let mut out = Finding::NONE;
            if tracker::release(self, pfn, false, 1, &mut out) {
                self.violations.push(out.violation);
            }
            self.tick();
        }
    }

    /// The walker goes on to its end; then all must be as the module has it.
    pub(super) fn judge(mut self) -> Result<(), String> {
        for _ in 0..1000 {
            if !self.walk() {
                break;
            }
        }
        let found: BTreeMap<u64, Line> = self.ledger.open_lines().collect();
        let module: BTreeMap<u64, Line> =
            self.module.iter().map(|(pfn, gfn)| (*pfn, self.line(*gfn))).collect();
        let differ = |(pfn, line): (&u64, &Line)| {
            found.get(pfn).is_none_or(|found| !found.is_lending(*line) || !found.is_in_state_of(*line))
        };
        let marked: BTreeSet<u64> = self.ledger.marked().collect();
        let lent = self.ledger.td(self.td).unwrap().lent_as(PageKind::Leaf);
        let count = module.len();
        if !self.ahead.is_empty()
            || found.len() != count
            || module.iter().any(differ)
            // A mark too many costs a look-up; one too few would be a release that nobody sees.
            || !module.keys().all(|pfn| marked.contains(pfn))
            || lent != count as u64
            || !self.violations.is_empty()
        {
            return Err(format!(
                "module {module:?}, ledger {found:?}, filter {marked:?}, TD {lent}, violations {:?}, ahead {:?}",
                self.violations, self.ahead
            ));
        }
        Ok(())
    }
}

/// The store of the hooks: each look at a line and each change of one is a moment.
impl Store for World {
    type Slot = usize;

    fn slot(&mut self, pfn: u64) -> Option<usize> {
        self.ledger.slot(pfn)
    }
    fn slot_or_new(&mut self, pfn: u64) -> Option<usize> {
        self.ledger.slot_or_new(pfn)
    }
    fn read(&mut self, slot: usize) -> Line {
        self.tick();
        self.ledger.read(slot)
    }
    fn replace(&mut self, slot: usize, old: Line, new: Line) -> bool {
        self.tick();
        self.ledger.replace(slot, old, new)
    }
    fn swap(&mut self, slot: usize, new: Line) -> Line {
        self.tick();
        self.ledger.swap(slot, new)
    }
    fn mark(&mut self, pfn: u64, lent: bool) {
        self.tick();
        self.ledger.mark(pfn, lent);
    }
    fn is_marked(&mut self, pfn: u64) -> bool {
        self.ledger.is_marked(pfn)
    }
    fn premap_exempt(&self) -> bool {
        false
    }
    fn td(&mut self, tdr: u64) -> Option<u16> {
        Store::td(&mut self.ledger, tdr)
    }
    fn td_begin(&mut self, tdr: u64, hkid: u16, suspect: Suspect) -> Option<u16> {
        self.ledger.td_begin(tdr, hkid, suspect)
    }
    fn record(&mut self, td: u16) -> Option<&mut Td> {
        self.ledger.record(td)
    }
    fn count(&mut self, td: u16, kind: PageKind, more: bool) {
        self.ledger.count(td, kind, more);
    }
    fn life(&mut self, td: u16, life: Life) {
        Store::life(&mut self.ledger, td, life);
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
        self.ledger.drop_zap(td, key);
    }
    fn window(&mut self, pfn: u64) -> u64 {
        self.ledger.window(pfn)
    }
    fn open_window(&mut self, pfn: u64, now_ns: u64) {
        self.ledger.open_window(pfn, now_ns);
    }
    fn close_window(&mut self, pfn: u64) {
        self.ledger.close_window(pfn);
    }
    fn suspect(&self) -> Suspect {
        self.ledger.suspect
    }
    fn doubt(&mut self, td: u16, reason: Suspect) {
        self.ledger.doubt(td, reason);
    }
}
