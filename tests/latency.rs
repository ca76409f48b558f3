//! How long SEAMCALLs take: each is measured where that is asked for, and none where it is not.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use std::collections::BTreeMap;

use septwatch_tests::{
    septwatch,
    support::{
        output::{number, scenario, scenarios},
        process::Run,
    },
};
use serde_json::{Map, Value};

const FIGURES: [&str; 4] = ["min_ns", "p50_ns", "p99_ns", "max_ns"];

/// What a result says of each leaf; its figures must be in their order.
#[track_caller]
fn latencies(result: &Value) -> &Map<String, Value> {
    let latencies = result["latencies"].as_object().unwrap_or_else(|| panic!("no latencies: {result}"));
    for latency in latencies.values() {
        let figures = FIGURES.map(|key| number(latency, key));
        assert!(figures.is_sorted() && figures[0] > 0, "{latency}");
    }
    latencies
}

#[test]
fn every_call_is_measured() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "clean", "--latency", "--json"]).finish_in_turn().exits(0);
    let scenario = scenario(&done);
    scenario.is_as_expected();
    let mut calls = BTreeMap::<&str, Vec<u64>>::new();
    for call in scenario.of("seamcall") {
        let leaf = call["leaf"].as_str().unwrap_or_else(|| panic!("no leaf: {call}"));
        calls.entry(leaf).or_default().push(number(call, "took_ns"));
    }
    assert!(calls.len() >= 10, "{done}");
    let latencies = latencies(&scenario.result);
    assert_eq!(latencies.len(), calls.len(), "{done}");
    for (leaf, mut took) in calls {
        took.sort_unstable();
        assert_eq!(number(&latencies[leaf], "count"), took.len() as u64, "{leaf}: {done}");
        // Three digits are kept of each.
        let median = took[took.len().div_ceil(2) - 1];
        for (key, exact) in [("min_ns", took[0]), ("p50_ns", median), ("max_ns", took[took.len() - 1])] {
            let told = number(&latencies[leaf], key);
            assert!(told.abs_diff(exact) <= exact / 1000, "{leaf} {key}: {told}, not {exact}: {done}");
        }
    }
}

#[test]
fn a_tour_measures_each_scenario_for_itself() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "--latency", "--json"]).finish_in_turn().exits(0);
    for scenario in scenarios(&done) {
        let counts = latencies(&scenario.result).values().map(|latency| number(latency, "count"));
        assert_eq!(counts.sum::<u64>(), scenario.of("seamcall").count() as u64, "{}", scenario.result);
    }
}

#[test]
fn nobody_asked_and_nothing_is_measured() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "clean", "--json"]).finish_in_turn().exits(0);
    let scenario = scenario(&done);
    assert_eq!(latencies(&scenario.result).len(), 0, "{done}");
    assert!(scenario.of("seamcall").all(|call| call["took_ns"].is_null()), "{done}");
    let done = Run::new(&septwatch, &["demo", "clean"]).finish_in_turn().exits(0);
    assert!(!done.stdout.contains("p99"), "{done}");
}

#[test]
fn a_person_is_shown_bars() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "clean", "--latency"]).finish_in_turn().exits(0);
    let mut lines = done.stdout.lines().skip_while(|line| !line.starts_with("   TDH.MEM.TRACK "));
    let head = lines.next().unwrap_or_default();
    assert!(head.contains(" 5 x  min ") && head.contains(", p50 ") && head.contains(", max "), "{done}");
    let rows = lines.take_while(|line| line.contains(" to ") && line.contains('|'));
    let counts: Vec<u64> =
        rows.filter(|row| row.contains('#')).filter_map(|row| row.rsplit_once(' ')?.1.parse().ok()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 5, "{done}");
}

#[test]
fn a_recording_without_calls_has_no_place_for_latencies() {
    let septwatch = septwatch!();
    let arguments = ["record", "--latency", "--events", "violations", "--output", "/nonexistent/x.swt"];
    let done = Run::new(&septwatch, &arguments).finish().exits(2);
    assert!(done.stderr.contains("--latency") && done.stderr.contains("--events all"), "{done}");
}
