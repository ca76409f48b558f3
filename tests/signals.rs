//! Signals in the middle of a storm: nothing stays behind, however the process ends.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use septwatch_tests::{
    septwatch,
    support::{
        bpf::Objects,
        output::scenario,
        process::{Done, Run, Running},
    },
};

/// A storm under way, and what it has in the kernel.
#[track_caller]
fn storm(septwatch: &Path) -> (Running, Objects) {
    let running = Run::new(septwatch, &["demo", "storm", "--json"]).start_acting();
    let objects = Objects::of(running.pid());
    // An entry and a return program for each of the module's functions, and the allocator's tracepoints.
    assert!(objects.programs.len() > 16 && objects.links.len() > 30 && objects.maps.len() > 8, "{objects:?}");
    assert_eq!(objects.left(), objects);
    (running, objects)
}

/// The binary, of which it is known that it can run.
#[track_caller]
fn binary() -> PathBuf {
    septwatch_tests::support::septwatch().unwrap_or_else(|why| panic!("{why}"))
}

#[track_caller]
fn ends(signal: Signal) -> Done {
    let (running, objects) = storm(&binary());
    running.signal(signal);
    let done = running.finish();
    objects.must_go();
    done
}

/// The lock went with the process.
#[track_caller]
fn the_next_one_works() {
    let septwatch = binary();
    let done = Run::new(&septwatch, &["demo", "clean", "--json"]).finish_in_turn().exits(0);
    scenario(&done).is_as_expected();
}

#[test]
fn sigint_and_sigterm_detach_everything() {
    septwatch!();
    // Each is the next start after the one before it.
    for signal in [Signal::INT, Signal::TERM] {
        ends(signal).exits(130).says(&["interrupted; every program is detached"]);
    }
    the_next_one_works();
}

#[test]
fn sigkill_leaves_nothing_behind() {
    septwatch!();
    // Each storm is the next start after the one that was killed before it.
    for _ in 0..5 {
        let done = ends(Signal::KILL);
        assert_eq!(done.signal(), Some(Signal::KILL.as_raw()), "{done}");
    }
    the_next_one_works();
}
