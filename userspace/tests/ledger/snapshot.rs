//! Snapshots of a ledger: what is restored goes on the same way, and what nobody made is refused.

use std::collections::BTreeSet;

use proptest::prelude::*;
use septwatch::model::store::{
    Ledger,
    snapshot::{Snapshot, SnapshotError},
};
use septwatch_common::Line;

use crate::{
    rerun::{Recorder, events},
    steps,
};

fn lived(life: &[steps::Step]) -> Recorder {
    let mut recorder = Recorder::default();
    recorder.live(&events(life));
    recorder
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_ledger_goes_on_the_same_way(
        life in prop::collection::vec(steps::step(10, 0.01), 2..160),
        at in any::<prop::sample::Index>(),
        exempt in any::<bool>(),
    ) {
        let events = events(&life);
        let (before, after) = events.split_at(at.index(events.len() + 1));
        let mut one = Recorder::default();
        one.ledger.premap_exempt = exempt;
        one.live(before);
        let snapshot = one.ledger.snapshot();
        let bytes = postcard::to_stdvec(&snapshot).unwrap();
        let read: Snapshot = postcard::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read, &snapshot);
        let ledger = Ledger::restore(&read, usize::MAX).unwrap();
        let mut other = Recorder { ledger, now_ns: one.now_ns, ..Recorder::default() };
        for event in after {
            let (one, other) = (one.event(event), other.event(event));
            prop_assert_eq!(format!("{one:?}"), format!("{other:?}"), "{:?}", event);
        }
        prop_assert_eq!(one.ledger.snapshot(), other.ledger.snapshot());
        let marked = |ledger: &Ledger| ledger.marked().collect::<BTreeSet<_>>();
        prop_assert_eq!(marked(&one.ledger), marked(&other.ledger));
    }

    #[test]
    fn damaged_bytes_do_no_harm(
        life in prop::collection::vec(steps::step(10, 0.01), 2..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let recorder = lived(&life);
        let mut bytes = postcard::to_stdvec(&recorder.ledger.snapshot()).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let Ok(snapshot) = postcard::from_bytes::<Snapshot>(bytes) else { continue };
            let Ok(ledger) = Ledger::restore(&snapshot, 64) else { continue };
            prop_assert_eq!(ledger.open_lines().count(), snapshot.lines.len());
            // Whatever it holds, it can go on.
            let mut recorder = Recorder { ledger, ..Recorder::default() };
            recorder.live(&events(&life));
        }
    }

    #[test]
    fn bytes_that_nobody_wrote_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(snapshot) = postcard::from_bytes::<Snapshot>(&bytes) {
            prop_assert!(snapshot.lines.len() <= bytes.len() / 2);
            drop(Ledger::restore(&snapshot, 64));
        }
    }
}

/// A snapshot with a TD, lines and more.
fn sample() -> Snapshot {
    let pfn = steps::SMALL;
    let map = |n| steps::Step::Map { td: 0, gfn: n, pfn: 0, huge: false, late: false };
    let life = [
        steps::Step::Begin { td: 0 },
        steps::Step::Begin { td: 1 },
        steps::Step::Finalize { td: 0 },
        map(3),
        map(4),
        map(5),
        steps::Step::Free { pfn, batched: false },
        steps::Step::Free { pfn: pfn + 1, batched: false },
        steps::Step::Zap {
            leaf: 0,
            fault: steps::Fault::Refused(septwatch_common::Leaf::MemPageRemove),
            free: false,
            reuse: false,
        },
        steps::Step::Zap {
            leaf: 1,
            fault: steps::Fault::Refused(septwatch_common::Leaf::MemPageRemove),
            free: false,
            reuse: false,
        },
    ];
    lived(&life).ledger.snapshot()
}

#[test]
fn every_rule_of_a_snapshot_is_checked() {
    let good = sample();
    let counts = (good.tds.len(), good.lines.len() > 3, good.windows.len(), good.zaps.len());
    assert_eq!(counts, (2, true, 2, 2), "{good:?}");
    let why = |change: fn(&mut Snapshot)| {
        let mut changed = good.clone();
        change(&mut changed);
        Ledger::restore(&changed, 64).err()
    };
    assert_eq!(why(|_| {}), None);
    assert_eq!(why(|s| s.tds[0].index = 0), Some(SnapshotError::Index(0)));
    assert_eq!(why(|s| s.tds[1].index = 4096), Some(SnapshotError::Index(4096)));
    assert_eq!(why(|s| s.tds[0].record.life = 0), Some(SnapshotError::Life { index: 1, life: 0 }));
    assert_eq!(why(|s| s.tds[0].record.life = 6), Some(SnapshotError::Life { index: 1, life: 6 }));
    assert_eq!(why(|s| s.tds[0].record.tdr += 1), Some(SnapshotError::Tdr(steps::TDRS + 1)));
    assert_eq!(why(|s| s.numbered = 1 << 32), Some(SnapshotError::Numbered(1 << 32)));
    assert_eq!(why(|s| s.tds.swap(0, 1)), Some(SnapshotError::Order("TDs")));
    assert_eq!(why(|s| s.lines.swap(0, 1)), Some(SnapshotError::Order("lines")));
    assert_eq!(why(|s| s.lines[1] = s.lines[0]), Some(SnapshotError::Order("lines")));
    assert_eq!(why(|s| s.windows.swap(0, 1)), Some(SnapshotError::Order("windows")));
    assert_eq!(why(|s| s.zaps.swap(0, 1)), Some(SnapshotError::Order("zaps")));
    for line in [Line::FREE, Line(1), Line(1 | 4096 << 11), Line(6 | 1 << 11), Line(4 | 7 << 5 | 1 << 11)] {
        let mut changed = good.clone();
        changed.lines[0].1 = line;
        let pfn = changed.lines[0].0;
        let why = Ledger::restore(&changed, 64).err();
        assert_eq!(why, Some(SnapshotError::Line { pfn, line: line.0 }));
    }
    let chunks = SnapshotError::Many { what: "chunks", count: 2, max: 1 };
    let mut apart = good.clone();
    apart.lines.push((u64::MAX, good.lines[0].1));
    assert_eq!(Ledger::restore(&apart, 64).err(), None);
    assert_eq!(Ledger::restore(&apart, 1).err(), Some(chunks));
}

#[test]
fn frames_that_lie_together_are_two_bytes_each() {
    let mut snapshot = sample();
    let first = Line::open(septwatch_common::PageKind::Leaf, 1, septwatch_common::Level::L4K, 0x1000);
    snapshot.lines = (0..10_000).map(|n| (0x10_0000 + n, first.nth(n))).collect();
    let bytes = postcard::to_stdvec(&snapshot).unwrap();
    assert!(bytes.len() < 2 * 10_000 + 600, "{}", bytes.len());
}
