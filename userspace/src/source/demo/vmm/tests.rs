//! The stand-in held against the module: what it writes down is what the module says.
#![expect(clippy::unwrap_used, reason = "a test ends there")]

use std::sync::MutexGuard;

use super::*;
use crate::source::demo::module::tests::turn;
use crate::source::demo::module::{Action, EntryState, Fault, Frame, PageKind, Shape, status::*};

struct Bench {
    host: Host,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    /// None without the right to see frame numbers.
    fn new(shape: Shape) -> Option<Self> {
        let turn = turn();
        if let Err(MemoryError::FramesHidden) = Memory::memfd(1).unwrap().touch(0) {
            eprintln!("skipped: frame numbers need CAP_SYS_ADMIN");
            return None;
        }
        let config = Config { shape, vmemmap_base: 0xffff_ea00_0000_0000, page_struct_size: 64 };
        Some(Self { host: Host::new(config, 256, true).unwrap(), _turn: turn })
    }

    fn td(&self) -> Td<'_> {
        let mut td = Td::create(&self.host, 16, 1).unwrap();
        td.finalize().unwrap();
        for gfn in G..G + 4 {
            td.fault(gfn).unwrap().unwrap();
        }
        td
    }

    fn fail(&self, leaf: Leaf, status: u64, times: u32) {
        self.host.module().inject(Fault::next(leaf, Action::Fail(status)).times(times));
    }

    fn faults(&self) -> Vec<What> {
        self.host.log().take().into_iter().map(|truth| truth.what).filter(What::is_fault).collect()
    }
}

const G: u64 = FIRST_GFN;

fn state(what: &What) -> Option<EntryState> {
    match what {
        What::Freed { state: Frame::Owned(owned), .. } => owned.state,
        _ => None,
    }
}

#[test]
fn a_clean_life_frees_everything_and_owns_nothing() {
    for shape in [Shape::V7_1, Shape::V7_3] {
        let Some(bench) = Bench::new(shape) else { return };
        let mut td = Td::create(&bench.host, 16, 2).unwrap();
        for gfn in G..G + 3 {
            td.add(gfn).unwrap().unwrap();
        }
        assert_eq!(td.punch(G + 2, 1, Steps::ALL).unwrap(), 0, "before finalize");
        td.finalize().unwrap();
        td.fault(G + 2).unwrap().unwrap();
        let frame = td.frame(G + 2).unwrap().unwrap();
        assert_eq!(td.zap(G + 2, 1, Steps::ALL).unwrap(), 0, "private to shared");
        assert_eq!(td.frame(G + 2).unwrap(), Some(frame), "the page is kept");
        assert_eq!(td.punch(G + 2, 1, Steps::ALL).unwrap(), 0);
        assert_eq!(td.frame(G + 2).unwrap(), None);
        td.fault(G + 5).unwrap().unwrap();
        assert_eq!(td.punch(G, 16, Steps::ALL).unwrap(), 0);
        td.fault(G + 7).unwrap().unwrap();
        assert_eq!(bench.host.module().owned().len(), 1 + 4 + 2 * 6 + 3 + 1);
        td.teardown(None).unwrap();
        assert_eq!(bench.host.module().owned(), []);
        let truths = bench.host.log().take();
        assert!(truths.iter().all(|truth| !truth.what.is_fault()), "{truths:#x?}");
        let freed = |kind| {
            let of = |what: &What| matches!(what, What::Freed { kind: k, .. } if *k == kind);
            truths.iter().filter(|truth| of(&truth.what)).count()
        };
        assert_eq!((freed(PageKind::Leaf), freed(PageKind::Sept), freed(PageKind::Tdvpr)), (6, 3, 2));
        assert_eq!((freed(PageKind::Tdcx), freed(PageKind::Tdr)), (4 + 2 * 5, 1));
        assert_eq!(bench.host.recover().unwrap(), 0);
    }
}

#[test]
fn busy_gets_one_retry() {
    let Some(bench) = Bench::new(Shape::V7_1) else { return };
    let mut td = bench.td();
    for leaf in [Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove] {
        bench.fail(leaf, busy_of(leaf), 1);
    }
    bench.fail(Leaf::MemPageAug, busy_of(Leaf::MemPageAug), 5);
    td.fault(G + 9).unwrap().unwrap();
    assert_eq!(td.punch(G, 1, Steps::ALL).unwrap(), 0);
    assert_eq!((bench.host.log().busy(), bench.faults()), (8, vec![]));
    bench.fail(Leaf::MemRangeBlock, busy_of(Leaf::MemRangeBlock), 2);
    assert_eq!(td.punch(G + 1, 1, Steps::ALL).unwrap(), 1);
    let faults = bench.faults();
    assert!(matches!(faults[0], What::ZapFailed { failed, .. } if is_busy(failed.status)));
    assert_eq!(state(&faults[1]), Some(EntryState::Mapped));
    td.repair().unwrap();
    td.teardown(None).unwrap();
    assert_eq!((bench.faults(), bench.host.module().owned()), (vec![], vec![]));
}

#[test]
fn a_failing_step_ends_the_zap_but_not_the_free() {
    let Some(bench) = Bench::new(Shape::V7_3) else { return };
    let mut td = bench.td();
    for (gfn, leaf) in
        (G..).zip([Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove, Leaf::PhymemPageWbinvd])
    {
        bench.fail(leaf, TD_ASSOCIATED_PAGES_EXIST, 1);
        let pfn = td.frame(gfn).unwrap().unwrap();
        assert_eq!(td.punch(gfn, 1, Steps::ALL).unwrap(), 1);
        let faults = bench.faults();
        let What::ZapFailed { failed, pfn: zapped, .. } = faults[0] else { unreachable!("{faults:?}") };
        assert_eq!((failed.leaf, zapped, td.bugged().is_some()), (leaf, pfn, true));
        // After TRACK failed KVM goes on, and REMOVE is refused.
        assert_eq!(faults.len(), if leaf == Leaf::MemTrack { 3 } else { 2 });
        let What::Freed { after_failed, state: frame, .. } = faults[faults.len() - 1] else {
            unreachable!("{faults:?}")
        };
        assert_eq!(after_failed, Some(failed));
        match leaf {
            Leaf::MemRangeBlock => {
                assert!(matches!(frame, Frame::Owned(o) if o.state == Some(EntryState::Mapped)))
            }
            Leaf::PhymemPageWbinvd => assert!(matches!(frame, Frame::Unflushed { .. })),
            _ => assert!(matches!(frame, Frame::Owned(o) if o.state == Some(EntryState::Blocked))),
        }
        td.repair().unwrap();
        assert_eq!(bench.host.module().frame(pfn), Frame::Free);
    }
    td.teardown(None).unwrap();
    assert_eq!((bench.faults(), bench.host.module().owned()), (vec![], vec![]));
}

#[test]
fn misbehaviour_is_written_down() {
    let Some(bench) = Bench::new(Shape::V7_1) else { return };
    let mut td = bench.td();
    td.punch(G, 1, Steps::NONE).unwrap();
    assert_eq!(bench.faults().iter().map(state).collect::<Vec<_>>(), [Some(EntryState::Mapped)]);
    td.punch(G + 1, 1, Steps::UNTIL_TRACK).unwrap();
    assert_eq!(bench.faults().iter().map(state).collect::<Vec<_>>(), [Some(EntryState::Blocked)]);
    td.punch(G + 2, 1, Steps::UNTIL_REMOVE).unwrap();
    assert!(matches!(bench.faults()[..], [What::Freed { state: Frame::Unflushed { .. }, .. }]));
    td.repair().unwrap();
    // The module refuses what is out of order; and lets it pass only when told to.
    assert_eq!(td.zap(G + 3, 1, Steps { block: false, ..Steps::ALL }).unwrap(), 1);
    let faults = bench.faults();
    assert!(matches!(faults[..], [What::OutOfOrder { status, missing: Leaf::MemRangeBlock, .. },
        What::ZapFailed { .. }] if code(status) == GPA_RANGE_NOT_BLOCKED));
    td.repair().unwrap();
    td.fault(G + 3).unwrap().unwrap();
    bench.host.module().inject(Fault::next(Leaf::MemPageRemove, Action::Unchecked));
    assert_eq!(td.zap(G + 3, 1, Steps { track: false, ..Steps::ALL }).unwrap(), 0);
    assert!(matches!(bench.faults()[..], [What::OutOfOrder { status: 0, missing: Leaf::MemTrack, .. }]));
    td.repair().unwrap();
    // One frame at two guest frames.
    let pfn = td.fault(G + 3).unwrap().unwrap();
    let id = td.id();
    td.map_again(G + 8, pfn, (id, G + 3)).unwrap().unwrap();
    assert!(matches!(bench.faults()[..], [What::DoubleMap { .. }]));
    assert_eq!(td.zap(G + 8, 1, Steps::UNTIL_REMOVE).unwrap(), 0);
    assert!(matches!(bench.host.module().frame(pfn), Frame::Owned(o) if o.gfn == Some(G + 3)));
    bench.fail(Leaf::MemPageAug, PAGE_METADATA_INCORRECT | 8, 1);
    assert!(td.fault(G + 8).unwrap().is_err());
    assert!(matches!(bench.faults()[..], [What::MapFailed { gfn, .. }] if gfn == G + 8));
    assert!(td.fault(G + 8).unwrap().is_ok(), "the page was kept");
    assert!(matches!(td.fault(G + 8), Err(VmmError::Page { .. })));
    assert!(matches!(td.fault(G + 16), Err(VmmError::Gfn { .. })));
    td.free_sept_page(G).unwrap();
    assert!(matches!(bench.faults()[..], [What::Freed { kind: PageKind::Sept, state: Frame::Owned(_), .. }]));
    td.teardown(None).unwrap();
    assert_eq!((bench.faults(), bench.host.module().owned()), (vec![], vec![]));
}

#[test]
fn a_bad_end_leaks_or_frees_owned_pages_and_can_be_recovered() {
    use ControlPage::*;
    let Some(bench) = Bench::new(Shape::V7_1) else { return };
    for which in [VcpuTdcx, Tdvpr, Sept, Tdcs, Tdr] {
        bench.td().teardown(Some(Flaw::SkipReclaim(which))).unwrap();
        let leaked = bench.faults();
        assert!(matches!(leaked[0], What::Leaked { kind, failed: None, .. } if kind == which.kind()));
        if which != Tdr {
            assert!(matches!(leaked[1], What::Leaked { kind: PageKind::Tdr, failed: Some(failed), .. }
                if failed.status == TD_ASSOCIATED_PAGES_EXIST));
        }
        assert_eq!(bench.host.module().owned().len(), leaked.len());
        assert_eq!(bench.host.recover().unwrap(), 0);
        assert_eq!((bench.faults(), bench.host.module().owned()), (vec![], vec![]));

        bench.td().teardown(Some(Flaw::FreeOwned(which))).unwrap();
        assert!(
            matches!(bench.faults()[..], [What::Freed { kind, state: Frame::Owned(_), .. }] if kind == which.kind())
        );
        assert_eq!(bench.host.module().owned(), []);
    }
    // A key that cannot be freed leaks everything; a leaf that was lost keeps the TDR.
    let mut td = bench.td();
    td.punch(G, 1, Steps::NONE).unwrap();
    bench.fail(Leaf::MngKeyFreeid, WBCACHE_NOT_COMPLETE, 1);
    td.teardown(None).unwrap();
    assert_eq!(bench.faults().len(), 1 + 1 + 4 + 6 + 3);
    assert_eq!(bench.host.recover().unwrap(), 0);
    assert_eq!((bench.faults(), bench.host.module().owned()), (vec![], vec![]));
}
