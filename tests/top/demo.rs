//! The demo behind the screen: eBPF programs on this kernel, as root.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use septwatch_tests::{
    septwatch,
    support::{PATIENCE, bpf::Objects, process::Run},
};

use crate::screen::{SOON, Top};

/// What it says when another process has the ledger.
const HELD: &str = "another septwatch keeps the ledger";

/// `top --demo`, as soon as nobody else on this host keeps the ledger, once it has found something.
fn demo(more: &[&str]) -> Top {
    let start = Instant::now();
    loop {
        let mut top = Top::start(&[&["--demo", "--seed", "7"], more].concat(), (140, 45));
        let found = top.terminal.until("for a violation", PATIENCE, |output| {
            let text = output.screen().contents();
            let held = text.contains(HELD);
            // The tab counts them.
            (held || text.contains("3 Violations (")).then_some(held)
        });
        if !found.unwrap() {
            return top;
        }
        assert!(start.elapsed() < PATIENCE, "{HELD}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn every_view_of_the_demo() {
    septwatch!();
    let mut top = demo(&[]);
    for (key, shows) in [
        ("1", "Lent memory"),
        ("2", "finalized"),
        ("enter", "Guest frames"),
        ("3", "CONFIDENCE"),
        ("enter", "Kernel stack"),
        ("4", "TDH.MEM.PAGE.AUG"),
        ("5", "HOOK"),
        ("6", "WHAT"),
    ] {
        top.press(key).sees(shows);
    }
    // The last minutes can be gone through, and what happens is followed again.
    top.press("1").sees("Lent memory").press("left").sees("back");
    top.press("}").misses("back");
    top.press("q").ends(0);
}

#[test]
fn what_is_recorded_can_be_replayed() {
    let septwatch = septwatch!();
    let mut top = demo(&[]);
    top.press("R").sees("REC");
    // Something is to be in it.
    std::thread::sleep(Duration::from_secs(3));
    top.press("R").misses("REC");
    top.press("q").ends(0);
    let mut files: Vec<_> =
        fs::read_dir(top.folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "swt"));
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let done = Run::new(&septwatch, &["replay", "--speed", "max", "--json", file.to_str().unwrap()]).finish();
    assert!(matches!(done.code(), Some(0 | 1)), "{done}");
    let lines = done.json();
    let end = lines.last().unwrap();
    assert_eq!(end["page_records"]["lost"], 0, "{end}");
    assert!(end["page_records"]["received"].as_u64().unwrap() > 100, "{end}");
}

#[test]
fn a_signal_detaches_everything_and_gives_the_terminal_back() {
    septwatch!();
    for signal in [Signal::TERM, Signal::HUP] {
        let mut top = demo(&["--pace", "max"]);
        let objects = Objects::of(top.terminal.pid());
        assert!(objects.programs.len() > 16 && objects.links.len() > 30, "{objects:?}");
        top.terminal.signal(signal).unwrap();
        top.ends(0);
        objects.must_go();
    }
}

#[test]
fn a_storm_does_not_change_the_frame_rate() {
    septwatch!();
    let mut top = demo(&["--pace", "max"]);
    let before = top.terminal.output().frames().count;
    std::thread::sleep(Duration::from_secs(5));
    let frames = top.terminal.output().frames().count - before;
    assert!((10..=30).contains(&frames), "{frames} frames in 5 s");
    // Keys are answered all the while.
    let pressed = Instant::now();
    top.terminal.send("2").unwrap();
    top.terminal.wait_for("HKID", SOON).unwrap();
    assert!(pressed.elapsed() < Duration::from_secs(2), "{:?}", pressed.elapsed());
    top.press("q").ends(0);
}
