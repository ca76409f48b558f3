//! Two at the same time: one ledger, one writer.

use septwatch_tests::{
    septwatch,
    support::{bpf::Objects, output::scenario, process::Run},
};

#[test]
fn the_second_is_told_who_is_first_and_the_first_goes_on() {
    let septwatch = septwatch!();
    let first = Run::new(&septwatch, &["demo", "storm", "--seed", "7", "--json"]).start_acting();
    let objects = Objects::of(first.pid());
    assert!(!objects.programs.is_empty() && !objects.links.is_empty(), "{objects:?}");
    let holder = format!("pid {}, `septwatch demo`", first.pid());
    for second in [&["demo", "clean"][..], &["demo", "--json"]] {
        let second = Run::new(&septwatch, second).finish().exits(3);
        assert_eq!(second.stdout, "", "{second}");
        second.says(&["another septwatch keeps the ledger", &holder, "stop it first"]);
    }
    // What needs no ledger runs beside it.
    let doctor = Run::new(&septwatch, &["doctor", "--json"]).finish();
    assert_eq!(doctor.json_line()["demo"], "works", "{doctor}");
    assert_eq!(objects.left(), objects, "the second took something away from the first");
    let first = first.finish().exits(0);
    scenario(&first).is_as_expected();
    objects.must_go();
    // And the ledger is free.
    Run::new(&septwatch, &["demo", "clean"]).finish_in_turn().exits(0);
}
