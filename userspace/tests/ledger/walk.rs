//! The walk of a TD that began before septwatch, against its traffic: a mirror page table and a TDX module in the clear,
//! which change in the order in which KVM changes them, and a walker that comes in between wherever it can, also between a
//! hook's look at a line and its change of it. Afterwards each frame has a line if, and only if, the module has it.

mod world;

use proptest::prelude::*;
use septwatch_common::{
    Leaf, Level, Line, PageKind,
    tracker::{
        Store,
        walk::{Claim, claim, settle},
    },
    walk::is_there,
    zap::PFN_UNKNOWN,
};

use world::{CONTROL, Entry, FRAMES, GFN, PFN, World};

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
