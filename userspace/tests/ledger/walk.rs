//! The walk of a TD that began before septwatch, against its traffic: a mirror page table and a TDX module in the clear,
//! which change in the order in which KVM changes them, and a walker that comes in between wherever it can, also between a
//! hook's look at a line and its change of it. Afterwards each frame has a line if, and only if, the module has it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use septwatch::model::store::Ledger;
use septwatch_common::{
    Leaf, Level, Life, Line, PageKind, Status, Suspect, Td, Violation,
    tracker::{
        self, Call, Finding, Store,
        walk::{Claim, claim, settle},
    },
    walk::is_there,
    zap::{Answer, PFN_UNKNOWN, Zap, ZapKey},
};

const TDR: u64 = 0x100;
/// Frames that can be lent, and guest frames.
const FRAMES: u64 = 3;
const PFN: u64 = 0x800;
const GFN: u64 = 0x400;
const CONTROL: u64 = 0x900;

/// What the mirror has at a guest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    None,
    Frozen,
    Present(u64),
}

/// Where the walker is with a guest frame.
#[derive(Clone, Copy, Debug)]
enum Walking {
    Read,
    Claim(u64),
    Again(u64),
    Settle(u64, bool),
}

/// A ledger whose every look and change is a moment in which the walker may move.
struct World {
    ledger: Ledger,
    td: u16,
    mirror: BTreeMap<u64, Entry>,
    /// Guest frame by frame: what the module maps.
    module: BTreeMap<u64, u64>,
    /// The moments, counted from 0, at which the walker makes its next moves.
    moves: Vec<u32>,
    moment: u32,
    /// Guest frames that the walker has before it, the last first, and where it is with that.
    ahead: Vec<u64>,
    walking: Walking,
    violations: Vec<Violation>,
}

impl World {
    /// These guest frames had frames of the same number before the first hook.
    fn new(mapped: &[u64], moves: Vec<u32>) -> Self {
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

    fn line(&self, gfn: u64) -> Line {
        Line::open(PageKind::Leaf, self.td, Level::L4K, gfn).walked()
    }

    /// One move of the walker. False: it is through.
    fn walk(&mut self) -> bool {
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
    fn tick(&mut self) {
        while self.moves.first() == Some(&self.moment) {
            self.moves.remove(0);
            self.walk();
        }
        self.moment += 1;
    }

    fn call(&mut self, leaf: Leaf, pfn: u64, gfn: u64) {
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
    fn map(&mut self, gfn: u64, pfn: u64) {
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
    fn zap(&mut self, gfn: u64, pfn: u64, frees: bool, names: bool) {
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
    fn judge(mut self) -> Result<(), String> {
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

/// What happens to a TD while it is walked, at the guest frames and with the frames of these numbers.
#[derive(Clone, Copy, Debug)]
enum Traffic {
    Zap { at: u64, frees: bool, names: bool },
    Map { at: u64, frame: u64 },
}

/// Lives through it: what cannot be done is left out.
fn live(mapped: &[u64], traffic: &[Traffic], moves: Vec<u32>) -> Result<u32, String> {
    let mut world = World::new(mapped, moves);
    for event in traffic {
        match *event {
            Traffic::Zap { at, frees, names } => {
                if let Entry::Present(pfn) = world.mirror[&(GFN + at)] {
                    world.zap(GFN + at, pfn, frees, names);
                }
            }
            Traffic::Map { at, frame } => {
                let free = !world.module.contains_key(&(PFN + frame));
                if world.mirror[&(GFN + at)] == Entry::None && free {
                    world.map(GFN + at, PFN + frame);
                }
            }
        }
    }
    world.tick();
    let moments = world.moment;
    world.judge().map(|()| moments)
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

/// Every way in which the walker's first moves can fall into a life, each life once: so many moves at moments that do not
/// go back.
fn every_way(moves: usize, moments: u32, mut each: impl FnMut(Vec<u32>)) {
    fn deeper(chosen: &mut Vec<u32>, left: usize, moments: u32, each: &mut impl FnMut(Vec<u32>)) {
        if left == 0 {
            return each(chosen.clone());
        }
        for moment in chosen.last().copied().unwrap_or(0)..=moments {
            chosen.push(moment);
            deeper(chosen, left - 1, moments, each);
            chosen.pop();
        }
    }
    deeper(&mut Vec::new(), moves, moments, &mut each);
}

/// Lives in which a frame comes back where it was, elsewhere, or not.
fn lives(names: bool) -> Vec<Vec<Traffic>> {
    let zap = |at, frees| Traffic::Zap { at, frees, names };
    let map = |at, frame| Traffic::Map { at, frame };
    vec![
        vec![],
        vec![zap(0, true)],
        vec![zap(0, false), map(0, 0)],
        vec![zap(0, true), map(1, 0)],
        vec![zap(0, true), map(0, 1)],
        vec![zap(0, true), map(0, 0), zap(0, true)],
        vec![map(1, 1), zap(0, true)],
    ]
}

#[test]
fn whenever_the_walker_moves_no_line_is_wrong() {
    const MOVES: usize = 4;
    let mut ways = 0_u64;
    for names in [false, true] {
        for traffic in lives(names) {
            let moments = live(&[0], &traffic, Vec::new()).unwrap();
            every_way(MOVES, moments, |moves| {
                ways += 1;
                if let Err(why) = live(&[0], &traffic, moves.clone()) {
                    panic!("{why}\n{traffic:?} with the walker's moves at {moves:?} of {moments}");
                }
            });
        }
    }
    assert!(ways > 50_000, "{ways}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nor_is_one_after_a_long_life(
        mapped in prop::collection::btree_set(0..FRAMES, 0..=FRAMES as usize),
        traffic in prop::collection::vec(
            prop_oneof![
                (0..FRAMES, any::<bool>(), any::<bool>())
                    .prop_map(|(at, frees, names)| Traffic::Zap { at, frees, names }),
                (0..FRAMES, 0..FRAMES).prop_map(|(at, frame)| Traffic::Map { at, frame }),
            ],
            0..16,
        ),
        mut moves in prop::collection::vec(0_u32..300, 0..40),
    ) {
        moves.sort_unstable();
        let mapped: Vec<u64> = mapped.into_iter().collect();
        if let Err(why) = live(&mapped, &traffic, moves) {
            return Err(TestCaseError::fail(why));
        }
    }
}

/// That the test would see a walker that does not look a second time.
#[test]
fn a_walker_that_looks_once_is_caught() {
    let mut caught = 0;
    every_way(2, 60, |moves| {
        let mut world = World::new(&[0], Vec::new());
        // R1 and C, and S without R2.
        world.moves = vec![moves[0]];
        world.zap_with_careless_walker(moves[1]);
        caught += u32::from(world.judge().is_err());
    });
    assert!(caught > 0);
}

impl World {
    /// A zap, in which somebody opens the line of what he saw at the beginning, at this moment.
    fn zap_with_careless_walker(&mut self, at: u32) {
        let (gfn, pfn) = (GFN, PFN);
        let line = self.line(gfn);
        self.ahead.clear();
        self.zap(gfn, pfn, true, true);
        if self.moment >= at {
            // After the end: the frame is not lent any more.
            if claim(&mut self.ledger, pfn, line) == Claim::Made {
                settle(&mut self.ledger, pfn, line, true);
            }
        }
    }
}

/// Control pages: what makes sure is the TD's stage of life, which changes before the first of them is reclaimed.
#[test]
fn no_control_page_is_left_open_by_a_walk_into_the_end_of_its_td() {
    // The walker claims and settles before or after each of the two: key freed, page reclaimed.
    for claimed in 0..=2 {
        for settled in claimed..=2 {
            let mut world = World::new(&[], Vec::new());
            let id = world.ledger.td(world.td).unwrap().id;
            let line = Line::open(PageKind::Tdcs, world.td, Level::L4K, 0).walked();
            let there = |world: &mut World| {
                let record = *world.ledger.record(world.td).unwrap();
                is_there(&record, id)
            };
            let mut made = Claim::Raced;
            for moment in 0..=2 {
                if moment == claimed && there(&mut world) {
                    made = claim(&mut world.ledger, CONTROL, line);
                }
                if moment == settled && made == Claim::Made {
                    let still = there(&mut world);
                    settle(&mut world.ledger, CONTROL, line, still);
                }
                match moment {
                    0 => world.call(Leaf::MngKeyFreeid, PFN_UNKNOWN, 0),
                    1 => world.call(Leaf::PhymemPageReclaim, CONTROL, 0),
                    _ => {}
                }
            }
            assert_eq!(world.ledger.open_lines().count(), 0, "claimed at {claimed}, settled at {settled}");
            assert_eq!(world.ledger.td(world.td).unwrap().lent(), 0);
        }
    }
}
