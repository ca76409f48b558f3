//! The storm: hundreds of thousands of correct operations, and a hundred faults among them that must all be found.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use std::path::Path;

use septwatch_tests::{
    septwatch,
    support::{
        output::{Kinds, Scenario, number, scenario},
        process::Run,
    },
};

/// Faults that a storm must hold.
const FAULTS: u64 = 100;
/// Correct operations that it must hold.
const OPERATIONS: u64 = 200_000;

#[track_caller]
fn storm(septwatch: &Path, more: &[&str]) -> Scenario {
    let arguments = [&["demo", "storm", "--json"], more].concat();
    let done = Run::new(septwatch, &arguments).finish_in_turn().exits(0);
    let scenario = scenario(&done);
    scenario.is_as_expected();
    scenario
}

/// The numbers in a sentence.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[track_caller]
fn is_a_storm(scenario: &Scenario) -> Kinds {
    let expected = scenario.column("expected");
    assert_eq!(expected.values().sum::<u64>(), FAULTS, "{}", scenario.result);
    assert_eq!(expected.len(), 8, "every kind that a storm can cause: {}", scenario.result);
    let done =
        scenario.of("step").filter_map(|step| step["text"].as_str()).find(|text| text.starts_with("Done: "));
    let [mapped, zapped, freed, _] =
        numbers(done.unwrap_or("")).try_into().unwrap_or_else(|_| panic!("{done:?}"));
    assert!(mapped + zapped + freed >= OPERATIONS, "{done:?}");
    // Both ways that a page is freed too early: after a zap that failed, and without.
    let after =
        scenario.of("violation").filter(|violation| !violation["since_failed_zap_ns"].is_null()).count();
    assert!(after > 0 && after < scenario.of("violation").count());
    expected
}

#[test]
fn all_faults_of_three_storms_are_found_and_no_other() {
    let septwatch = septwatch!();
    let mut storms = Vec::new();
    for seed in ["7", "20261123", "18446744073709551615"] {
        let scenario = storm(&septwatch, &["--seed", seed]);
        is_a_storm(&scenario);
        // What follows from the seed: frames and times do not.
        let mut gfns: Vec<_> = scenario
            .of("violation")
            .map(|violation| (violation["violation"].as_str().map(str::to_owned), violation["gfn"].as_u64()))
            .collect();
        gfns.sort_unstable();
        storms.push(gfns);
    }
    assert!(storms[0] != storms[1] && storms[1] != storms[2], "the seed does nothing");
}

#[test]
fn a_storm_can_be_recorded_call_by_call() {
    let septwatch = septwatch!();
    let scenario =
        storm(&septwatch, &["--all-events", "--seed", "7", "--shape", "7.1", "--ring-bytes", "67108864"]);
    is_a_storm(&scenario);
    // Every page mapped, and every zap's four steps, is a call.
    assert!(number(&scenario.result["page_records"], "received") > OPERATIONS, "{}", scenario.result);
}
