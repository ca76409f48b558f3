//! Every scenario of the demo, in both shapes of the kernel's functions: what it causes is what is found, and nothing
//! else. How many of which kind it must be stands here, not in the demo.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use std::{collections::BTreeMap, path::Path};

use septwatch_tests::{
    septwatch,
    support::{
        output::{Scenario, number, scenario, scenarios},
        process::{ACTOR, Run},
    },
};

/// Runs a scenario in one shape, and compares with what it must find; 0 stands for "once or more often".
#[track_caller]
fn acts(septwatch: &Path, name: &str, shape: &str, must: &[(&str, u64)], more: fn(&Scenario)) {
    let done = Run::new(septwatch, &["demo", name, "--shape", shape, "--json"]).finish_in_turn().exits(0);
    let scenario = scenario(&done);
    scenario.is_as_expected();
    assert_eq!(scenario.result["scenario"], name);
    let found = scenario.column("expected");
    let kinds: Vec<_> = must.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), kinds, "{done}");
    for (kind, count) in must {
        assert!(*count == 0 || found[*kind] == *count, "{kind}: {done}");
    }
    // The TD was seen from its creation to its end, by the demo's own process.
    let life: Vec<_> = scenario.of("td").filter_map(|td| td["life"].as_str()).collect();
    assert!(life.starts_with(&["created"]) && life.contains(&"finalized"), "{life:?}");
    assert!(life.ends_with(&["gone"]), "{life:?}");
    more(&scenario);
}

/// Where the kinds and numbers say all.
fn nothing_more(_: &Scenario) {}

macro_rules! scenarios {
    ($($test:ident: $name:literal => [$(($kind:literal, $count:literal)),*], $more:ident;)*) => {
        const NAMES: &[&str] = &[$($name),*];
        mod like_7_1 {
            use super::septwatch;

            $(#[test]
            fn $test() {
                super::acts(&septwatch!(), $name, "7.1", &[$(($kind, $count)),*], super::$more);
            })*
        }
        mod like_7_3 {
            use super::septwatch;

            $(#[test]
            fn $test() {
                super::acts(&septwatch!(), $name, "7.3", &[$(($kind, $count)),*], super::$more);
            })*
        }
    };
}

// Kinds in the order of their names.
scenarios! {
    clean: "clean" => [], nothing_more;
    busy: "busy" => [], each_step_was_busy_once;
    zap_failed: "zap-failed" => [("zap-failed", 1)], nothing_more;
    zap_failed_punch: "zap-failed-punch" => [("freed-while-blocked", 1), ("zap-failed", 1)], nothing_more;
    freed_while_mapped: "freed-while-mapped" => [("freed-while-mapped", 1)], no_zap_was_tried;
    freed_while_blocked: "freed-while-blocked" => [("freed-while-blocked", 1)], nothing_more;
    freed_unflushed: "freed-unflushed" => [("freed-unflushed", 1)], nothing_more;
    freed_while_owned: "freed-while-owned" => [("freed-while-owned", 1)], nothing_more;
    // It tries until the host is given a frame again.
    reused_while_mapped: "reused-while-mapped" =>
        [("freed-while-blocked", 0), ("reused-while-mapped", 1), ("zap-failed", 0)], a_window_after_a_failed_zap;
    map_failed: "map-failed" => [("map-failed", 1)], nothing_more;
    double_map: "double-map" => [("double-map", 1)], nothing_more;
    out_of_order: "out-of-order" => [("out-of-order", 1)], nothing_more;
    teardown_leak: "teardown-leak" => [("teardown-leak", 1)], nothing_more;
}

fn each_step_was_busy_once(scenario: &Scenario) {
    let busy: Vec<_> = scenario
        .of("seamcall")
        .filter(|call| call["status_name"].as_str().is_some_and(|name| name.contains("BUSY")))
        .filter_map(|call| call["leaf"].as_str())
        .collect();
    assert_eq!(busy, ["TDH.MEM.PAGE.AUG", "TDH.MEM.RANGE.BLOCK", "TDH.MEM.TRACK", "TDH.MEM.PAGE.REMOVE"]);
}

fn no_zap_was_tried(scenario: &Scenario) {
    let freed = scenario.of("violation").next().unwrap_or_else(|| panic!("{scenario:#?}"));
    assert!(freed["since_failed_zap_ns"].is_null(), "{freed}");
    assert_eq!(freed["cause"], "zap-never-tried");
    assert_eq!((freed["state"].as_str(), freed["level"].as_str()), (Some("mapped"), Some("4K")), "{freed}");
}

/// A zap fails, the frame is released, the demo itself is given it: each points to the one before.
fn a_window_after_a_failed_zap(scenario: &Scenario) {
    let (mut failed_ns, mut own) = (0, 0);
    let mut released = BTreeMap::new();
    for violation in scenario.of("violation") {
        let (kind, since) = (violation["violation"].as_str(), &violation["since_failed_zap_ns"]);
        if kind == Some("zap-failed") {
            failed_ns = number(violation, "failed_ns");
            assert_eq!(violation["failed_leaf"], "TDH.MEM.PAGE.REMOVE", "{violation}");
            continue;
        }
        // The stand-in for the VMM waits 8 ms between the two, as one was seen to.
        assert!(since.as_u64().is_some_and(|since| since >= 8_000_000), "{violation}");
        let (pfn, time_ns) = (number(violation, "pfn"), number(violation, "time_ns"));
        if kind == Some("freed-while-blocked") {
            assert_eq!(number(violation, "failed_ns"), failed_ns, "{violation}");
            assert_eq!(violation["cause"], "zap-failed", "{violation}");
            released.insert(pfn, time_ns);
            continue;
        }
        assert_eq!(kind, Some("reused-while-mapped"));
        let released = released.get(&pfn).unwrap_or_else(|| panic!("reused without a release: {violation}"));
        assert_eq!(released + number(violation, "window_ns"), time_ns, "{violation}");
        own += u64::from(violation["comm"] == ACTOR);
    }
    assert!(own >= 1, "the demo's own thread is the new owner: {scenario:#?}");
}

#[test]
fn every_scenario_is_tested() {
    let septwatch = septwatch!();
    let list = Run::new(&septwatch, &["demo", "--list"]).finish().exits(0);
    let names: Vec<_> = list.stdout.lines().filter_map(|line| line.split_ascii_whitespace().next()).collect();
    // The storm has its own file.
    assert_eq!(names, NAMES.iter().copied().chain(["storm"]).collect::<Vec<_>>());
}

const TOUR: [&str; 4] = ["clean", "zap-failed", "freed-while-mapped", "reused-while-mapped"];

#[test]
fn the_tour_acts_four_scenarios_out() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "--json", "--shape", "7.1"]).finish_in_turn().exits(0);
    let tour = scenarios(&done);
    let names: Vec<_> = tour.iter().filter_map(|scenario| scenario.result["scenario"].as_str()).collect();
    assert_eq!(names, TOUR);
    for scenario in tour {
        scenario.is_as_expected();
    }
}

#[test]
fn the_tour_is_text_for_a_person() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo"]).finish_in_turn().exits(0);
    let text = &done.stdout;
    for name in TOUR {
        assert!(text.contains(&format!("== {name}: ")), "no {name:?}: {done}");
    }
    for word in [
        " # A TD runs.",
        " ! freed-while-mapped [certain] pfn 0x",
        "violation                expected    found",
    ] {
        assert!(text.contains(word), "no {word:?}: {done}");
    }
    assert_eq!(text.matches("   expected = found\n").count(), TOUR.len(), "{done}");
    assert!(!text.contains("DIFFER") && !text.contains("NOT EXACT"), "{done}");
    assert!(!text.contains('\u{1b}'), "colours into a pipe: {done}");
    assert_eq!(done.stderr, "", "{done}");
}

#[test]
fn what_was_not_announced_is_a_difference() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "clean", "--one-more", "--json"]).finish_in_turn().exits(1);
    let one = scenario(&done);
    assert_eq!(one.result["equal"], false, "{done}");
    assert_eq!(one.result["missing"].as_array().map(Vec::len), Some(0), "{done}");
    let [unexpected] = one.result["unexpected"].as_array().map_or(&[][..], Vec::as_slice) else {
        panic!("{done}")
    };
    assert_eq!(unexpected["violation"], "freed-while-mapped", "{done}");
    let verdict = one.of("violation").next().unwrap_or_else(|| panic!("{done}"));
    for key in ["pfn", "gfn", "tdr_pfn"] {
        assert_eq!(number(unexpected, key), number(verdict, key), "{key}: {done}");
    }

    let done = Run::new(&septwatch, &["demo", "zap-failed", "--one-more"]).finish_in_turn().exits(1);
    assert!(done.stdout.contains("not caused: freed-while-mapped pfn 0x"), "{done}");
    assert!(done.stdout.contains("expected and found DIFFER"), "{done}");
}

/// The stand-in for the VMM is held and stopped before it punches the page out that the TD still has; with a policy that
/// only tells, it punches.
#[test]
fn a_policy_keeps_the_page_of_a_failed_zap() {
    let septwatch = septwatch!();
    let run = |policy: &str| {
        let done = Run::new(&septwatch, &["demo", "--json", "--policy", policy]).finish_in_turn().exits(0);
        scenario(&done)
    };
    let contained = run("contain");
    assert!(contained.of("violation").all(|violation| violation["violation"] == "zap-failed"));
    for reaction in ["hold", "stop"] {
        let done = |step: &serde_json::Value| step["reaction"] == reaction && step["result"] == "done";
        assert!(contained.of("reaction").any(done), "{reaction}");
    }
    let still: Vec<_> = contained.of("stopped").collect();
    assert_eq!(still.len(), 1);
    assert_eq!(still[0]["freed"], 0, "{}", still[0]);
    assert!(number(&still[0]["released"], "inodes") >= 1 && number(&still[0]["released"], "frames") >= 1);

    let observed = run("observe");
    assert!(observed.of("violation").any(|violation| violation["violation"] == "freed-while-blocked"));
    assert_eq!(observed.of("stopped").count(), 0);
}
