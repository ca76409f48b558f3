//! Each check that can fail, fails for its own reason and alone.

use septwatch::recording::header::Note;
use septwatch_common::{
    Leaf, Level, Status, Suspect, Violation,
    tracker::Call,
    wire::ViolationEvent,
    zap::{Answer, PFN_UNKNOWN},
};
use zerocopy::FromZeros as _;

use crate::{
    Place,
    recording::{Making, TDR},
};

/// Pages that live and die as they should.
fn clean() -> Making {
    let mut making = Making::td();
    for n in 0..20 {
        making.map(0x400 + n, 0x10 + n);
        making.zap(0x400 + n, 0x10 + n, 0);
    }
    making
}

/// A page is freed that nobody zapped.
fn freed() -> Making {
    let mut making = clean();
    making.map(0x500, 0x77);
    making.free(0x500);
    making
}

/// Checks a recording without expectations: only this check may fail, with these words.
#[track_caller]
fn fails(making: Making, check: &str, words: &[&str]) {
    let place = Place::new();
    place.put("a.swt", making);
    let done = place.run("check a.swt").exits(1).says(&["FAIL a.swt: 1 of 5 checks failed"]).says(words);
    assert!(done.out.contains(&format!("\n  {check}: ")), "{}", done.out);
    let [object] = place.run("check a.swt --json").exits(1).json().try_into().unwrap();
    let checks = object["checks"].as_array().unwrap();
    let failed: Vec<_> =
        checks.iter().filter(|one| one["passed"] == false).map(|one| &one["check"]).collect();
    assert_eq!(failed, [check], "{object}");
}

#[test]
fn a_clean_recording_passes() {
    let place = Place::new();
    place.put("a.swt", clean());
    let done = place.run("check a.swt").exits(0);
    done.says(&[
        "PASS a.swt: 5 checks; ",
        " 0 violations, 0 lost",
        "Linux 7.3.0-test",
        "1 recordings passed, 0 failed",
    ]);
}

#[test]
fn a_violation_that_nobody_expects_fails() {
    let words = [
        "violations: freed-while-mapped: expected none, found 1",
        "freed-while-mapped [certain] pfn 0x500 gfn 0x77 TD 1",
        "on CPU 0, running qemu",
        "kernel stack: free_unref_folios+0x454 < kvm_gmem_fallocate+0x1a0",
        "user stack: qemu+0x1234",
    ];
    fails(freed(), "violations", &words);
}

#[test]
fn many_violations_are_told_in_part() {
    let mut making = clean();
    for n in 0..50 {
        making.map(0x500 + n, 0x77 + n);
        making.free(0x500 + n);
    }
    fails(making, "violations", &["found 50", "pfn 0x502", "and more, which --junit and --json tell"]);
}

#[test]
fn a_call_that_the_order_of_things_forbids_fails() {
    let mut making = clean();
    making.map(0x500, 0x77);
    making.call(Leaf::MemPageRemove, 0x500, 0x77, 0);
    making.call(Leaf::PhymemPageWbinvd, 0x500, 0, 0);
    making.free(0x500);
    fails(making, "violations", &["out-of-order: expected none, found 1"]);
}

#[test]
fn records_that_the_ring_lost_fail() {
    let lossy = |pages| {
        let mut making = clean();
        making.cpu = 1;
        making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
        making.lose(pages);
        making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
        making
    };
    let words = [
        "lost records: expected none, found 3",
        "CPU 1, SEAMCALLs and frames: 3 numbers are missing, 3 lost by the kernel's count",
    ];
    fails(lossy(3), "loss", &words);
    let place = Place::new();
    place.put("a.swt", lossy(3));
    place.run("check a.swt --max-loss 3").exits(0).says(&["3 lost"]);
    place.run("check a.swt --max-loss 2").exits(1).says(&["expected at most 2, found 3"]);
}

#[test]
fn records_that_were_lost_at_the_end_fail() {
    let mut making = clean();
    making.lose(7);
    fails(making, "loss", &["found 7", "CPU 0, SEAMCALLs and frames: 0 numbers are missing, 7 lost by"]);
}

#[test]
fn records_that_could_not_be_written_fail() {
    let mut making = clean();
    making.note(&Note::Unwritten { records: 5, why: "disk full".to_owned() });
    fails(making, "loss", &["found 5", "5 records arrived and could not be written"]);
}

#[test]
fn numbers_that_come_twice_fail() {
    let mut making = clean();
    making.repeat();
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    fails(making, "order", &["records whose number came before: expected none, found 1", "CPU 0, SEAMCALLs"]);
}

#[test]
fn a_clock_that_is_set_back_fails() {
    let mut making = clean();
    making.now_ns += 5_000_000_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    making.now_ns -= 2_000_000_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    fails(making, "order", &["times that go backwards: expected none, found 1", "lies 2.0 s behind"]);

    let mut making = clean();
    making.now_ns += 1_000_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    making.now_ns -= 500_000;
    for _ in 0..100 {
        making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    }
    fails(making, "order", &["times that go backwards: expected none, found 1"]);
}

#[test]
fn what_an_interrupt_explains_passes() {
    let mut making = clean();
    making.now_ns += 1_000_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    making.now_ns -= 900_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    making.now_ns += 1_000_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    // Other CPUs come in batches of their own.
    making.cpu = 1;
    making.now_ns -= 3_000_000;
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    let place = Place::new();
    place.put("a.swt", making);
    place.run("check a.swt").exits(0);
}

#[test]
fn a_call_that_does_not_exist_fails() {
    let answer = Answer { status: Status(0), ext_err1: 0, ext_err2: 0, now_ns: 0 };
    let call = Call { tdr: TDR, pfn: 1, tdvpr: PFN_UNKNOWN, gfn: 1, level: Level::L4K, hkid: 0, answer };
    for (leaf, level) in [(5, 0), (Leaf::MemPageAug as u8, 9)] {
        let mut making = clean();
        making.record(leaf, level, &call);
        fails(
            making,
            "order",
            &["records of a leaf, level or hook that does not exist: expected none, found 1"],
        );
    }
}

#[test]
fn a_verdict_that_the_ledger_does_not_find_fails() {
    let mut making = clean();
    let mut event = ViolationEvent::new_zeroed();
    (event.violation, event.tdr, event.td_id, event.pfn) = (Violation::FreedWhileMapped as u8, TDR, 1, 0x999);
    event.suspect = Suspect::default().0;
    making.violation(event);
    let place = Place::new();
    place.put("a.swt", making);
    let done =
        place.run("check a.swt").exits(1).says(&["2 of 5 checks failed", "freed-while-mapped pfn 0x999"]);
    done.says(&[
        "ledger: recorded verdicts that a re-run of the ledger does not find: expected none, found 1",
    ]);
}

#[test]
fn a_violation_that_was_not_recorded_fails() {
    let mut making = freed();
    // It happens as before, and its verdict is not written.
    making.map(0x600, 0x88);
    making.keeps_verdicts = false;
    making.free(0x600);
    let place = Place::new();
    place.put("a.swt", making);
    let done = place.run("check a.swt").exits(1);
    done.says(&[
        "ledger: violations that a re-run of the ledger finds and that were not recorded",
        "pfn 0x600",
    ]);
}

#[test]
fn a_recording_without_an_end_fails() {
    let mut making = clean();
    making.end = None;
    fails(making, "whole", &["damaged, or without its end", "the recorder was killed"]);
}

#[test]
fn a_damaged_recording_fails_with_what_is_missing() {
    let place = Place::new();
    let mut making = clean();
    making.flush();
    making.map(0x500, 0x77);
    making.flush();
    making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, 0);
    let mut bytes = making.bytes();
    // In the contents of the frame in the middle.
    let frames: Vec<_> = (0..bytes.len() - 4).filter(|at| &bytes[*at..*at + 4] == b"swtf").collect();
    bytes[frames[2] + 45] ^= 0xff;
    std::fs::write(place.path("a.swt"), bytes).unwrap();
    let done = place.run("check a.swt").exits(1);
    done.says(&[
        "whole: the recording: expected whole",
        "frame 2, at byte",
        "is damaged; 1 records are missing",
    ])
    .says(&["lost records: expected none, found 1", "1 records are missing where the file is damaged"]);
}

#[test]
fn what_is_no_recording_is_bad_input_and_the_rest_is_checked() {
    let place = Place::new();
    place.put("a.swt", clean());
    place.put("b.swt", freed());
    std::fs::write(place.path("empty.swt"), b"").unwrap();
    std::fs::write(place.path("text.swt"), b"no recording at all").unwrap();
    let done = place.run("check empty.swt text.swt none.swt b.swt a.swt --junit j.xml").exits(2);
    done.says(&[
        "UNREADABLE empty.swt: the file is empty",
        "UNREADABLE text.swt: not a recording",
        "none.swt: No such file",
    ])
    .says(&["PASS a.swt", "FAIL b.swt", "check: 1 recordings passed, 1 failed, 3 could not be read"]);
    let junit = place.read("j.xml");
    assert_eq!(junit.matches("<testsuite ").count(), 5);
    assert_eq!(junit.matches("<error ").count(), 3);
    assert!(junit.contains("tests=\"13\" failures=\"1\" errors=\"3\""), "{junit}");
    assert!(!place.run("check a.swt --junit nowhere/j.xml").exits(2).wrong.is_empty());
}

#[test]
fn names_in_a_recording_are_only_text() {
    let mut making = clean();
    making.header.kernel.release = "7.3\n::error::<b>`x`</b>|\u{1b}[31m".to_owned();
    let mut event = ViolationEvent::new_zeroed();
    event.violation = Violation::VmBugged as u8;
    event.comm[..9].copy_from_slice(b"a\n::x|<&\"");
    making.violation(event);
    making.note(&Note::Places { kernel: vec!["]]>\n::error::\u{0}".to_owned()], user: Vec::new() });
    let place = Place::new();
    place.put("a.swt", making);
    let done = place.run("check a.swt --junit j.xml --markdown m.md").exits(1);
    let (junit, markdown) = (place.read("j.xml"), place.read("m.md"));
    for text in [&done.out, &junit, &markdown] {
        assert!(!text.lines().any(|line| line.trim_start().starts_with("::")), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{0}'), "{text}");
    }
    assert!(!markdown.contains("<b>") && !junit.contains("<b>"), "{markdown}");
}

#[test]
fn the_summary_is_appended() {
    let place = Place::new();
    place.put("a.swt", freed());
    std::fs::write(place.path("m.md"), "before\n").unwrap();
    place.run("check a.swt --markdown m.md").exits(1);
    let markdown = place.read("m.md");
    assert!(markdown.starts_with("before\n### septwatch check: 0 recordings passed, 1 failed"), "{markdown}");
    assert!(markdown.contains("freed-while-mapped") && markdown.contains("0x500"), "{markdown}");
}
