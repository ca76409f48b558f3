//! Signals in the middle of a storm: nothing stays behind, however the process ends.

use std::path::Path;

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

#[track_caller]
fn ends(signal: Signal) -> Done {
    let septwatch = match septwatch_tests::support::septwatch() {
        Ok(septwatch) => septwatch,
        Err(why) => unreachable!("asked before: {why}"),
    };
    let (running, objects) = storm(&septwatch);
    running.signal(signal);
    let done = running.finish();
    objects.must_go();
    done
}

/// The lock went with the process.
#[track_caller]
fn the_next_one_works() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "clean", "--json"]).finish_in_turn().exits(0);
    scenario(&done).is_as_expected();
}

#[test]
fn sigint_detaches_everything() {
    septwatch!();
    ends(Signal::INT).exits(130).says(&["interrupted; every program is detached"]);
    the_next_one_works();
}

#[test]
fn sigterm_detaches_everything() {
    septwatch!();
    ends(Signal::TERM).exits(130).says(&["interrupted; every program is detached"]);
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
