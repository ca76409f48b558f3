//! Expectations: blessed they hold, edited they are held against the recording, and what is no such file is told.

use septwatch_common::Leaf;

use crate::{
    Place,
    recording::{BUSY, Making},
};

/// TDX_EPT_ENTRY_STATE_INCORRECT on RCX.
const STATE_INCORRECT: u64 = 0xc000_0b0d_0000_0001;

/// A host on which things go wrong: as many pages that nobody zaps, and as many zaps that fail at BLOCK.
fn host(never_zapped: u64, failed: u64, status: u64) -> Making {
    let mut making = Making::td();
    for n in 0..40 {
        making.map(0x400 + n, 0x10 + n);
        making.zap(0x400 + n, 0x10 + n, n % 2);
    }
    for n in 0..never_zapped {
        making.map(0x500 + n, 0x100 + n);
        making.free(0x500 + n);
    }
    for n in 0..failed {
        making.map(0x600 + n, 0x200 + n);
        making.call(Leaf::MemRangeBlock, septwatch_common::zap::PFN_UNKNOWN, 0x200 + n, status);
        making.now_ns += 50_000;
        making.free(0x600 + n);
    }
    making
}

fn blessed(making: Making) -> Place {
    let place = Place::new();
    place.put("a.swt", making);
    place.run("check a.swt --expect e.toml --bless").exits(0);
    place
}

/// Replaces a text in the expectations that must be there, and checks.
#[track_caller]
fn edited(place: &Place, from: &str, to: &str) -> crate::Done {
    let text = place.read("e.toml");
    assert!(text.contains(from), "no {from:?} in {text}");
    std::fs::write(place.path("edited.toml"), text.replacen(from, to, 1)).unwrap();
    place.run("check a.swt --expect edited.toml")
}

#[test]
fn what_is_blessed_passes() {
    let place = blessed(host(2, 3, STATE_INCORRECT));
    place.run("check a.swt").exits(1);
    place.run("check a.swt --expect e.toml").exits(0).says(&["PASS a.swt: 9 checks"]);
    place.put("clean.swt", host(0, 0, 0));
    place.run("check a.swt clean.swt --expect e.toml").exits(1).says(&["PASS a.swt", "FAIL clean.swt"]);
    // The same file again.
    let text = place.read("e.toml");
    place.run("check a.swt --expect e.toml --bless").exits(0);
    assert_eq!(place.read("e.toml"), text);
}

#[test]
fn kinds_counts_and_statuses_are_exact() {
    let place = blessed(host(2, 3, STATE_INCORRECT));
    place.put("more.swt", host(3, 3, STATE_INCORRECT));
    let done = place.run("check more.swt --expect e.toml").exits(1);
    done.says(&["violations: freed-while-mapped: expected 2, found 3"]);
    place.put("fewer.swt", host(2, 2, STATE_INCORRECT));
    place
        .run("check fewer.swt --expect e.toml")
        .exits(1)
        .says(&["expected 3, found 2", "zap-failed after TDH.MEM.RANGE.BLOCK"]);
    place.put("other.swt", host(2, 3, 0xc000_0b00_0000_0001));
    let done = place.run("check other.swt --expect e.toml").exits(1);
    done.says(&[
        "violations: zap-failed after",
        "expected none, found 3",
        "leaves: TDH.MEM.RANGE.BLOCK: statuses",
    ]);
    // One more that no SEAMCALL announced, one fewer after one that failed: the sum of the kind is the same.
    place.put("swapped.swt", host(3, 2, STATE_INCORRECT));
    place
        .run("check swapped.swt --expect e.toml")
        .exits(1)
        .says(&["violations: freed-while-mapped: expected 2, found 3"]);
}

#[test]
fn what_varies_has_bounds() {
    let place = blessed(host(2, 3, STATE_INCORRECT));
    let mut making = host(2, 3, STATE_INCORRECT);
    for n in 0..15 {
        making.map(0x700 + n, 0x300 + n);
        making.zap(0x700 + n, 0x300 + n, 1);
    }
    place.put("busier.swt", making);
    place.run("check busier.swt --expect e.toml").exits(0);
    let mut making = host(2, 3, STATE_INCORRECT);
    making.map(0x700, 0x300);
    making.zap(0x700, 0x300, 100);
    place.put("storm.swt", making);
    let done = place.run("check storm.swt --expect e.toml").exits(1);
    done.says(&["leaves: TDH.MEM.PAGE.REMOVE: answers of BUSY: expected at most 60, found 120"]);
}

#[test]
fn several_runs_are_blessed_together() {
    let place = Place::new();
    place.put("a.swt", host(2, 3, STATE_INCORRECT));
    place.put("b.swt", host(5, 0, STATE_INCORRECT));
    place.put("c.swt", host(4, 1, STATE_INCORRECT));
    place.run("check a.swt b.swt --expect e.toml --bless").exits(0);
    let text = place.read("e.toml");
    assert!(text.contains("count = { min = 2, max = 5 }") && text.contains("count = { max = 3 }"), "{text}");
    place.run("check a.swt b.swt c.swt --expect e.toml").exits(0);
}

#[test]
fn each_expectation_can_fail() {
    let place = blessed(host(2, 3, STATE_INCORRECT));
    for (from, to, words) in [
        ("tds = 1", "tds = { min = 2 }", "tds: TDs: expected at least 2, found 1"),
        (
            "\"mm_page_free\"",
            "\"mm_page_alloc\"",
            "hooks: hook mm_page_alloc: expected bound, found no such hook",
        ),
        (
            "\"TDX_EPT_ENTRY_STATE_INCORRECT\"]",
            "]",
            "statuses: expected none but success and BUSY, found TDX_EPT_ENTRY",
        ),
        (
            "[leaf.\"TDH.MEM.TRACK\"]\n",
            "[leaf.\"TDH.MEM.TRACK\"]\nerrors = 1\n",
            "TDH.MEM.TRACK: errors: expected 1, found 0",
        ),
        (
            "[leaf.\"TDH.MEM.TRACK\"]\ncalls = ",
            "[leaf.\"TDH.MEM.TRACK\"]\ncalls = 7 #",
            "TDH.MEM.TRACK: calls: expected 7, found 40",
        ),
        (
            "[window.failed-zap-to-release]\n",
            "[window.failed-zap-to-release]\np99 = \"50us\"\n",
            "p99 of the time from the failed step",
        ),
        ("max = \"", "max = \"50us\" # \"", "failed-zap-to-release: max of the time"),
    ] {
        let done = edited(&place, from, to).exits(1).says(&[words]);
        assert!(done.out.contains("1 of 9 checks failed"), "{}", done.out);
    }
    // Bounds that hold, looser and tighter.
    for (from, to) in [
        ("count = 2", "count = { min = 1 }"),
        ("count = 2", "count = { min = 2, max = 9 }"),
        ("leaf = \"none\"\n", ""),
    ] {
        edited(&place, from, to).exits(0);
    }
}

#[test]
fn a_hook_that_is_missing_says_why() {
    let place = blessed(host(0, 0, 0));
    let mut making = host(0, 0, 0);
    (making.header.plan[1].bound, making.header.plan[1].missing) =
        (None, Some("not in this kernel".to_owned()));
    place.put("b.swt", making);
    let done = place.run("check b.swt --expect e.toml").exits(1);
    done.says(&["hooks: hook mm_page_free: expected bound, found missing: not in this kernel"]);
}

#[test]
fn a_recording_that_cannot_be_trusted_is_not_blessed() {
    let place = Place::new();
    let mut making = host(1, 0, 0);
    making.lose(1);
    place.put("a.swt", making);
    place.run("check a.swt --expect e.toml --bless").exits(1).says(&["loss: lost records"]);
    assert!(!place.path("e.toml").exists());
    std::fs::write(place.path("own.toml"), "# my notes\n").unwrap();
    place.run("check a.swt --expect own.toml --bless").complains(&["own.toml", "is not replaced"]);
    assert_eq!(place.read("own.toml"), "# my notes\n");
    place.run("check a.swt --bless").complains(&["--expect"]);
}

#[test]
fn expectations_hold_for_counts_alone() {
    let place = Place::new();
    let mut making = host(0, 0, 0);
    making.header.what = septwatch::recording::header::What::Life;
    // Its events were kept with all the others; begin anew.
    let mut life = Making::default();
    life.header = making.header.clone();
    life.call(Leaf::MemTrack, septwatch_common::zap::PFN_UNKNOWN, 0, BUSY);
    place.put("a.swt", life);
    place.run("check a.swt --expect e.toml --bless").exits(0);
    place.run("check a.swt --expect e.toml").exits(0);
    assert!(!place.read("e.toml").contains("statuses = "));
    let done =
        edited(&place, "[leaf.\"TDH.MEM.TRACK\"]\n", "[leaf.\"TDH.MEM.TRACK\"]\nstatuses = []\n").exits(1);
    done.says(&["TDH.MEM.TRACK: statuses", "it needs --events all"]);
    edited(&place, "busy = ", "busy = 0 #").exits(1).says(&["answers of BUSY: expected none, found 1"]);
}

#[test]
fn files_that_are_no_expectations_are_told_with_their_line() {
    let place = blessed(host(1, 0, 0));
    for (text, line, words) in [
        ("version = 1\nviolatoin = 3\n", 2, "violatoin"),
        ("version = 2\n", 1, "this septwatch reads version 1"),
        ("tds = 1\n", 1, "version"),
        ("version = 1\n[[violation]]\nkind = \"freed\"\ncount = 1\n", 3, "freed-while-mapped"),
        ("version = 1\n[[violation]]\nkind = \"zap-failed\"\n", 2, "count"),
        ("version = 1\n[[violation]]\nkind = \"zap-failed\"\ncount = -1\n", 4, "{ min = 1, max = 5 }"),
        ("version = 1\n[[violation]]\nkind = \"zap-failed\"\ncount = \"2..5\"\n", 4, "{ min = 1, max = 5 }"),
        ("version = 1\ntds = { min = 5, max = 2 }\n", 2, "min = 5 is more than max = 2"),
        ("version = 1\ntds = {}\n", 2, "without min and without max"),
        ("version = 1\ntds = { min = 1, least = 2 }\n", 2, "least"),
        ("version = 1\n[leaf.\"TDH.MEM.PAGE.EAT\"]\n", 2, "TDH.MEM.PAGE.REMOVE"),
        ("version = 1\n[leaf.\"TDH.MEM.TRACK\"]\nbussy = 1\n", 3, "bussy"),
        ("version = 1\n[leaf.\"TDH.MEM.TRACK\"]\nstatuses = [\"TDX_FINE\"]\n", 3, "TDX_OPERAND_BUSY"),
        ("version = 1\n[window.failed-zap-to-release]\nmax = \"5 ms\"\n", 3, "5ms"),
        ("version = 1\n[window.failed-zap-to-release]\nmax = 5\n", 3, "string"),
        ("version = 1\n[window.forever]\nmax = \"5ms\"\n", 2, "failed-zap-to-release"),
        (
            "version = 1\n\n[[violation]]\nkind = \"double-map\"\ncount = 1\n[[violation]]\nkind = \"double-map\"\ncount = 2\n",
            6,
            "twice",
        ),
        ("version = 1\ntds = 1\ntds = 2\n", 3, "duplicate"),
        ("version = 1\ntds = \n", 2, ""),
        ("version = 1\nhooks = [1]\n", 2, "string"),
    ] {
        std::fs::write(place.path("bad.toml"), text).unwrap();
        let done = place.run("check a.swt --expect bad.toml").complains(&[words]);
        assert!(done.wrong.starts_with(&format!("bad.toml:{line}: ")), "{text:?}: {}", done.wrong);
        assert_eq!(done.wrong.lines().count(), 1, "{}", done.wrong);
    }
    std::fs::write(place.path("bad.toml"), b"version = 1\n# \xff\n").unwrap();
    place.run("check a.swt --expect bad.toml").complains(&["bad.toml:2: not UTF-8"]);
    std::fs::write(place.path("bad.toml"), "#".repeat(2 << 20)).unwrap();
    place.run("check a.swt --expect bad.toml").complains(&["bad.toml:1: longer than"]);
    let nested = format!("version = 1\ntds = {}\n", "[".repeat(100_000));
    std::fs::write(place.path("bad.toml"), nested).unwrap();
    place.run("check a.swt --expect bad.toml").complains(&["bad.toml:"]);
    place.run("check a.swt --expect none.toml").complains(&["none.toml: No such file"]);
}
