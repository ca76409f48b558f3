//! What KVM's own functions tell: zaps by frame, zaps without a SEAMCALL, a bugged VM, frames that the host touched.

use septwatch::model::store::Ledger;
use septwatch_common::{
    Leaf, Level, State, Suspect, Violation,
    tracker::{self, Finding, Store},
    zap::Zap,
};

use crate::rules::{BUSY, GFN, NOWHERE, PFN, TDR, finalized, free, ok, remove, seamcall};

const AT: (u64, Level) = (GFN, Level::L4K);
const UNKNOWN: u64 = u64::MAX;

fn mapped() -> Ledger {
    let mut ledger = finalized();
    assert_eq!(ok(&mut ledger, Leaf::MemPageAug, PFN, AT), None);
    ledger
}

fn called(ledger: &mut Ledger) {
    ledger.running.now_ns += 1;
    tracker::zap_called(ledger, TDR, GFN, Level::L4K, PFN);
}

fn returned(ledger: &mut Ledger) -> Option<Finding> {
    let mut out = Finding::NONE;
    ledger.running.now_ns += 1;
    let now_ns = ledger.running.now_ns;
    tracker::zap_returned(ledger, TDR, || now_ns, &mut out).then_some(out)
}

#[test]
fn a_failed_block_names_the_frame_that_kvm_zaps() {
    for told in [true, false] {
        let mut ledger = mapped();
        if told {
            called(&mut ledger);
        }
        assert!(seamcall(&mut ledger, Leaf::MemRangeBlock, UNKNOWN, AT, BUSY).is_none());
        let found = seamcall(&mut ledger, Leaf::MemRangeBlock, UNKNOWN, AT, BUSY).unwrap();
        assert_eq!(found.violation, Violation::ZapFailed);
        assert_eq!(found.pfn, if told { PFN } else { UNKNOWN });
        assert!(returned(&mut ledger).is_none(), "its SEAMCALL has said it");
    }
}

#[test]
fn a_zap_without_a_seamcall_has_failed_and_a_zap_with_one_has_not() {
    let mut ledger = mapped();
    called(&mut ledger);
    let found = returned(&mut ledger).unwrap();
    assert_eq!((found.violation, found.pfn, found.gfn), (Violation::ZapFailed, PFN, GFN));
    assert_eq!(found.zap.failed_leaf, Zap::NO_SEAMCALL);
    assert_eq!(free(&mut ledger, PFN), Some(Violation::FreedWhileMapped));

    let mut ledger = mapped();
    called(&mut ledger);
    remove(&mut ledger, AT, PFN);
    assert_eq!(ok(&mut ledger, Leaf::PhymemPageWbinvd, PFN, NOWHERE), None);
    assert!(returned(&mut ledger).is_none());
    assert!(returned(&mut ledger).is_none(), "a return without a call tells nothing");
    assert_eq!(free(&mut ledger, PFN), None);
}

#[test]
fn a_zap_of_a_frame_that_is_not_lent_is_no_failure() {
    let mut ledger = finalized();
    called(&mut ledger);
    assert!(returned(&mut ledger).is_none());
}

#[test]
fn a_vm_is_bugged_once_and_by_the_seamcall_that_failed() {
    let mut ledger = mapped();
    for _ in 0..2 {
        seamcall(&mut ledger, Leaf::MemRangeBlock, UNKNOWN, AT, BUSY);
    }
    let mut out = Finding::NONE;
    assert!(tracker::vm_bugged(&mut ledger, TDR, 50, &mut out));
    assert_eq!((out.violation, out.zap.failed_status), (Violation::VmBugged, BUSY));
    assert_eq!(out.zap.failed_leaf, Leaf::MemRangeBlock as u8);
    assert!(!tracker::vm_bugged(&mut ledger, TDR, 60, &mut out), "once");
    let mut out = Finding::NONE;
    assert!(
        tracker::vm_bugged(&mut ledger, TDR + 1, 60, &mut out),
        "a TD that is not known, or not any more"
    );
    assert_eq!((out.td, out.pfn, out.suspect), (0, TDR + 1, Suspect::OUTSIDE));
}

#[test]
fn the_host_may_touch_what_no_td_maps() {
    let struck = |ledger: &mut Ledger| {
        let mut out = Finding::NONE;
        tracker::struck(ledger, PFN, Violation::PoisonedWhileMapped, &mut out).then_some(out)
    };
    let mut ledger = mapped();
    let found = struck(&mut ledger).unwrap();
    assert_eq!((found.violation, found.line.state()), (Violation::PoisonedWhileMapped, State::Mapped));
    assert_eq!(ok(&mut ledger, Leaf::MemRangeBlock, UNKNOWN, AT), None);
    assert_eq!(struck(&mut ledger).unwrap().line.state(), State::Blocked);
    assert_eq!(ok(&mut ledger, Leaf::MemTrack, UNKNOWN, NOWHERE), None);
    assert_eq!(ok(&mut ledger, Leaf::MemPageRemove, PFN, AT), None);
    assert!(struck(&mut ledger).is_none(), "removed");
    assert!(struck(&mut finalized()).is_none(), "never lent");
}

#[test]
fn a_release_says_that_an_invalidation_is_under_way() {
    let mut ledger = mapped();
    let td = Store::td(&mut ledger, TDR).unwrap();
    ledger.record(td).unwrap().invalidation_ns = 7;
    let mut out = Finding::NONE;
    assert!(tracker::release(&mut ledger, PFN, false, 99, &mut out));
    assert_eq!(out.invalidation_ns, 7);
}
