//! Cases of their own: 2M leaves, the limits of a line's fields, an index that serves a second TD, and each bug that
//! the comparison found.

use septwatch::model::store::Ledger;
use septwatch_common::{
    Leaf, Level, Life, Line, Op, PageKind, State, Status, Suspect, Violation, apply,
    config::{MAX_TDS, TD_PROBES},
    line::MAX_OWNER,
    tracker::{self, Call, Finding, Store},
    zap::{Answer, PFN_UNKNOWN},
};

pub const TDR: u64 = 0x100;
pub const PFN: u64 = 0x800;
pub const GFN: u64 = 0x400;
const REFUSED: u64 = 0xC000_0B0D_0000_0001;
pub const BUSY: u64 = 0x8000_0200_0000_0092;

pub fn seamcall(ledger: &mut Ledger, leaf: Leaf, pfn: u64, at: (u64, Level), status: u64) -> Option<Finding> {
    ledger.running.now_ns += 1;
    let names_td = !matches!(leaf, Leaf::PhymemPageWbinvd | Leaf::PhymemPageReclaim);
    let call = Call {
        tdr: if names_td { TDR } else { PFN_UNKNOWN },
        pfn,
        tdvpr: PFN_UNKNOWN,
        gfn: at.0,
        level: at.1,
        hkid: 5,
        answer: Answer { status: Status(status), ext_err1: 0, ext_err2: 0, now_ns: ledger.running.now_ns },
    };
    let mut out = Finding::NONE;
    tracker::seamcall(ledger, leaf, &call, &mut out).then_some(out)
}

pub fn ok(ledger: &mut Ledger, leaf: Leaf, pfn: u64, at: (u64, Level)) -> Option<Violation> {
    seamcall(ledger, leaf, pfn, at, 0).map(|out| out.violation)
}

pub fn free(ledger: &mut Ledger, pfn: u64) -> Option<Violation> {
    let mut out = Finding::NONE;
    tracker::release(ledger, pfn, false, 99, &mut out).then_some(out.violation)
}

pub const NOWHERE: (u64, Level) = (0, Level::L4K);

/// A TD that can run.
pub fn finalized() -> Ledger {
    let mut ledger = Ledger::default();
    for leaf in [Leaf::MngCreate, Leaf::MngInit, Leaf::MrFinalize] {
        assert_eq!(ok(&mut ledger, leaf, PFN_UNKNOWN, NOWHERE), None);
    }
    ledger
}

/// BLOCK, TRACK, REMOVE of a leaf.
pub fn remove(ledger: &mut Ledger, at: (u64, Level), named: u64) {
    assert_eq!(ok(ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, at), None);
    assert_eq!(ok(ledger, Leaf::MemTrack, PFN_UNKNOWN, NOWHERE), None);
    assert_eq!(ok(ledger, Leaf::MemPageRemove, named, at), None);
}

fn lent(ledger: &Ledger) -> usize {
    ledger.open_lines().filter(|(_, line)| line.kind() == PageKind::Leaf).count()
}

#[test]
fn a_2m_leaf_has_a_line_for_each_frame_and_one_zap() {
    let mut ledger = finalized();
    let at = (GFN, Level::L2M);
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN, at), None);
    assert_eq!(lent(&ledger), 512);
    assert_eq!((ledger.line(PFN + 511).gfn(), ledger.line(PFN + 511).level()), (GFN + 511, Level::L2M));
    assert_eq!(free(&mut ledger, PFN + 7), Some(Violation::FreedWhileMapped), "one frame of it");
    remove(&mut ledger, at, PFN);
    for n in 0..512 {
        assert_eq!(ledger.zaps().count(), 1, "until the last frame is flushed");
        assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN + n, NOWHERE), None);
    }
    assert_eq!((lent(&ledger), ledger.zaps().count(), ledger.windows().count()), (0, 0, 0));
    assert_eq!(free(&mut ledger, PFN), None);
}

#[test]
fn a_demoted_leaf_is_zapped_in_parts() {
    let mut ledger = finalized();
    ok(&mut ledger, Leaf::MemPageAug, PFN, (GFN, Level::L2M));
    for n in 0..512 {
        let slot = ledger.slot(PFN + n).unwrap();
        let line = ledger.read(slot);
        assert!(ledger.replace(slot, line, apply(line, Op::Resize(Level::L4K)).0));
    }
    remove(&mut ledger, (GFN + 9, Level::L4K), PFN + 9);
    assert_eq!(free(&mut ledger, PFN + 8), Some(Violation::FreedWhileMapped), "the neighbour is mapped");
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN + 9, NOWHERE), None);
    assert_eq!(free(&mut ledger, PFN + 9), None);
    assert_eq!((lent(&ledger), ledger.zaps().count()), (511, 0));
}

#[test]
fn the_fields_of_a_line_reach_as_far_as_they_say() {
    let last = (1 << 39) - 1;
    let mut ledger = finalized();
    let at = (last, Level::L4K);
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN, at), None);
    assert_eq!(ledger.line(PFN).gfn(), last);
    remove(&mut ledger, at, PFN);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN, NOWHERE), None);
    assert_eq!((lent(&ledger), ledger.zaps().count()), (0, 0));
    const { assert!(MAX_TDS - 1 <= MAX_OWNER as u32) };
    let line = Line::open(PageKind::Leaf, MAX_OWNER, Level::L1G, last);
    assert_eq!((line.owner(), line.gfn(), line.level()), (MAX_OWNER, last, Level::L1G));
}

#[test]
fn a_full_table_of_tds_is_a_doubt_and_a_freed_index_serves_again_under_another_number() {
    let mut ledger = Ledger::default();
    for tdr in 0..u64::from(MAX_TDS) - 1 {
        let index = ledger.td_begin(tdr, 0, Suspect::default()).unwrap();
        assert_eq!(u64::from(index), tdr + 1);
    }
    assert_eq!(ledger.td_begin(u64::MAX, 0, Suspect::default()), None);
    assert_eq!(ledger.suspect, Suspect::TDS_FULL);
    // The next TD looks from where the last one looked on: this is in its reach.
    let index = TD_PROBES as u16 / 2;
    let before = ledger.td(index).copied().unwrap();
    ledger.count(index, PageKind::Leaf, true);
    ledger.life(index, Life::Gone);
    assert_eq!(ledger.td_begin(u64::MAX, 0, Suspect::default()), None, "a line still names it");
    ledger.count(index, PageKind::Leaf, false);
    assert_eq!(ledger.td_begin(u64::MAX, 0, Suspect::default()), Some(index));
    let after = ledger.td(index).unwrap();
    assert!(after.id > before.id);
    assert_eq!((after.tdr, after.lent(), after.life), (u64::MAX, 0, Life::Created as u8));
}

#[test]
fn zaps_of_a_td_say_nothing_of_the_next_one_with_its_tdr() {
    let mut ledger = finalized();
    let at = (GFN, Level::L4K);
    ok(&mut ledger, Leaf::MemPageAug, PFN, at);
    let failed = seamcall(&mut ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, at, REFUSED).unwrap();
    assert_eq!(failed.violation, Violation::ZapFailed);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageReclaim, TDR, NOWHERE), Some(Violation::TeardownLeak));
    let first = ledger.line(PFN).owner();
    for leaf in [Leaf::MngCreate, Leaf::MngInit, Leaf::MrFinalize] {
        ok(&mut ledger, leaf, PFN_UNKNOWN, NOWHERE);
    }
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN + 1, at), None);
    let second = ledger.line(PFN + 1).owner();
    assert_ne!(ledger.td(first).unwrap().id, ledger.td(second).unwrap().id);
    let mut out = Finding::NONE;
    assert!(tracker::release(&mut ledger, PFN + 1, false, 9, &mut out));
    assert!(!out.zap.has_failed(), "the first TD's failure is not the second's");
    assert!(tracker::release(&mut ledger, PFN, false, 9, &mut out));
    assert!(out.zap.has_failed() && out.td == first);
}

#[test]
fn a_ledger_at_its_limit_doubts_and_goes_on() {
    let mut ledger = Ledger::new(1);
    ok(&mut ledger, Leaf::MngCreate, PFN_UNKNOWN, NOWHERE);
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN, (GFN, Level::L4K)), None);
    assert_eq!((ledger.outside, lent(&ledger)), (1, 0));
    let td = Store::td(&mut ledger, TDR).unwrap();
    assert_eq!(ledger.td(td).unwrap().suspect, Suspect::OUTSIDE);
}

/// The TDR's line is opened with the TD that began before, so that its RECLAIM can end it.
#[test]
fn a_td_that_began_before_ends_with_its_tdr() {
    let mut ledger = Ledger::default();
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN, (GFN, Level::L4K)), None);
    let td = Store::td(&mut ledger, TDR).unwrap();
    assert_eq!(ledger.td(td).unwrap().suspect, Suspect::LATE);
    assert_eq!((ledger.line(TDR).kind(), ledger.line(TDR).state()), (PageKind::Tdr, State::Owned));
    ok(&mut ledger, Leaf::PhymemPageReclaim, PFN, NOWHERE);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageReclaim, TDR, NOWHERE), None);
    assert_eq!((Store::td(&mut ledger, TDR), ledger.open_lines().count()), (None, 0));
    assert_eq!(ledger.stages().map(|stage| stage.life).last(), Some(Life::Gone));
}

#[test]
fn a_long_row_of_busy_answers_is_one_failure() {
    let mut ledger = finalized();
    let mut failed = 0;
    for _ in 0..600 {
        let out = seamcall(&mut ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, (GFN, Level::L4K), BUSY);
        failed += u32::from(out.is_some());
    }
    assert_eq!(failed, 1);
}

#[test]
fn an_owned_page_that_is_written_back_stays_owned() {
    let mut ledger = finalized();
    // At the same guest frame as a leaf that is just removed: its zap is none of the S-EPT page's business.
    let at = (0, Level::L4K);
    ok(&mut ledger, Leaf::MemPageAug, PFN, at);
    ok(&mut ledger, Leaf::MemSeptAdd, PFN + 1, (0, Level::L2M));
    remove(&mut ledger, at, PFN_UNKNOWN);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN + 1, NOWHERE), None);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, TDR, NOWHERE), None);
    let td = ledger.line(TDR).owner();
    assert_eq!(ledger.td(td).unwrap().frames, [1, 1, 1, 0, 0, 0]);
    assert_eq!(ledger.marked().count(), 3);
    assert_eq!(ledger.zaps().count(), 1);
    assert_eq!(free(&mut ledger, PFN + 1), Some(Violation::FreedWhileOwned));
}

#[test]
fn a_zap_ends_with_its_leaf_however_that_goes() {
    let at = (GFN, Level::L4K);
    type Going = fn(&mut Ledger) -> Option<Violation>;
    let goings: [(Going, Option<Violation>); 4] = [
        (|ledger| free(ledger, PFN), Some(Violation::FreedUnflushed)),
        (|ledger| ok(ledger, Leaf::PhymemPageReclaim, PFN, NOWHERE), None),
        (|ledger| ok(ledger, Leaf::MemPageAug, PFN, (GFN + 1, Level::L4K)), Some(Violation::OutOfOrder)),
        (|ledger| ok(ledger, Leaf::MemPageAug, PFN, (GFN, Level::L4K)), Some(Violation::OutOfOrder)),
    ];
    for (going, violation) in goings {
        let mut ledger = finalized();
        ok(&mut ledger, Leaf::MemPageAug, PFN, at);
        remove(&mut ledger, at, PFN_UNKNOWN);
        assert_eq!(going(&mut ledger), violation);
        assert_eq!(ledger.zaps().count(), 0);
    }
}

#[test]
fn a_premapped_page_leaves_no_zap_behind() {
    let mut ledger = Ledger::default();
    ledger.premap_exempt = true;
    ok(&mut ledger, Leaf::MngCreate, PFN_UNKNOWN, NOWHERE);
    let at = (GFN, Level::L4K);
    for status in [BUSY, REFUSED] {
        assert!(seamcall(&mut ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, at, status).is_none());
    }
    assert_eq!(ledger.zaps().count(), 0);
}

#[test]
fn a_frame_flushed_too_early_does_not_end_the_zap_of_a_2m_leaf_early() {
    let mut ledger = finalized();
    let at = (GFN, Level::L2M);
    ok(&mut ledger, Leaf::MemPageAug, PFN, at);
    ok(&mut ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, at);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN, NOWHERE), Some(Violation::OutOfOrder));
    ok(&mut ledger, Leaf::MemTrack, PFN_UNKNOWN, NOWHERE);
    ok(&mut ledger, Leaf::MemPageRemove, PFN, at);
    for n in 0..511 {
        assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN + n, NOWHERE), None);
    }
    assert_eq!(free(&mut ledger, PFN + 511), Some(Violation::FreedUnflushed));
}

#[test]
fn busy_answers_are_in_a_row_only_without_a_success_between() {
    let mut ledger = finalized();
    let at = (GFN, Level::L4K);
    ok(&mut ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, at);
    for status in [BUSY, 0, BUSY, 0] {
        assert!(seamcall(&mut ledger, Leaf::MemTrack, PFN_UNKNOWN, NOWHERE, status).is_none());
    }
}

/// REMOVE's answer names the frame: what is mapped there next does not make the old frame mapped again.
#[test]
fn an_unflushed_frame_is_known_after_its_guest_frame_is_mapped_again() {
    for level in [Level::L4K, Level::L2M] {
        let mut ledger = finalized();
        let at = (GFN, level);
        ok(&mut ledger, Leaf::MemPageAug, PFN, at);
        remove(&mut ledger, at, PFN);
        assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN + 0x200, at), None);
        let last = level.frames() - 1;
        assert_eq!(free(&mut ledger, PFN + last), Some(Violation::FreedUnflushed), "{level:?}");
        ok(&mut ledger, Leaf::MemRangeBlock, PFN_UNKNOWN, at);
        if level == Level::L2M {
            assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN, NOWHERE), None, "late, but done");
            assert_eq!(ledger.line(PFN), Line::FREE);
        }
        assert_eq!(free(&mut ledger, PFN + 0x200), Some(Violation::FreedWhileBlocked));
    }
}

#[test]
fn an_early_remove_names_its_frame() {
    let mut ledger = finalized();
    let at = (GFN, Level::L4K);
    ok(&mut ledger, Leaf::MemPageAug, PFN, at);
    let out = seamcall(&mut ledger, Leaf::MemPageRemove, PFN, at, 0).unwrap();
    assert_eq!((out.violation, out.pfn, out.gfn), (Violation::OutOfOrder, PFN, GFN));
}

/// Of a TD that began before, most frames are not in the ledger: no WBINVD would find the zap.
#[test]
fn zaps_of_frames_that_are_not_in_the_ledger_end_with_remove() {
    let mut ledger = Ledger::default();
    for n in 0..100 {
        remove(&mut ledger, (GFN + n, Level::L4K), PFN + n);
        assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN + n, NOWHERE), None);
    }
    assert_eq!(ledger.zaps().count(), 0);
}

/// KVM asks once, when it destroys the VM: a vCPU that is not flushed then never will be.
#[test]
fn vcpus_that_are_not_flushed_at_the_end_are_a_leak() {
    const FLUSHVP_NOT_DONE: u64 = 0x8000_0824_0000_0000;
    let mut ledger = finalized();
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN, (GFN, Level::L4K)), None);
    let out = seamcall(&mut ledger, Leaf::MngVpflushdone, PFN_UNKNOWN, NOWHERE, FLUSHVP_NOT_DONE).unwrap();
    assert_eq!((out.violation, out.frames), (Violation::TeardownLeak, 2), "the page and the TDR");
    assert_eq!(ok(&mut ledger, Leaf::MngVpflushdone, PFN_UNKNOWN, NOWHERE), None);
}
