//! Every scenario of the demo, in both shapes of the kernel's functions: what it causes is what is found, and nothing
//! else. How many of which kind it must be stands here, not in the demo.

use septwatch_tests::{
    septwatch,
    support::{
        output::{Kinds, number, scenario, scenarios},
        process::Run,
    },
};

/// Runs a scenario in one shape, and compares with what it must find; 0 stands for "once or more often".
#[track_caller]
fn acts(septwatch: &std::path::Path, name: &str, shape: &str, must: &[(&str, u64)]) {
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
}

macro_rules! scenarios {
    ($($test:ident: $name:literal => [$(($kind:literal, $count:literal)),*];)*) => {
        const NAMES: &[&str] = &[$($name),*];
        mod like_7_1 {
            $(#[test]
            fn $test() {
                super::acts(&septwatch_tests::septwatch!(), $name, "7.1", &[$(($kind, $count)),*]);
            })*
        }
        mod like_7_3 {
            $(#[test]
            fn $test() {
                super::acts(&septwatch_tests::septwatch!(), $name, "7.3", &[$(($kind, $count)),*]);
            })*
        }
    };
}

// Kinds in the order of their names.
scenarios! {
    clean: "clean" => [];
    busy: "busy" => [];
    zap_failed: "zap-failed" => [("zap-failed", 1)];
    freed_while_mapped: "freed-while-mapped" => [("freed-while-mapped", 1)];
    freed_while_blocked: "freed-while-blocked" => [("freed-while-blocked", 1)];
    freed_unflushed: "freed-unflushed" => [("freed-unflushed", 1)];
    freed_while_owned: "freed-while-owned" => [("freed-while-owned", 1)];
    // It tries until the host is given a frame again.
    reused_while_mapped: "reused-while-mapped" =>
        [("freed-while-blocked", 0), ("reused-while-mapped", 1), ("zap-failed", 0)];
    map_failed: "map-failed" => [("map-failed", 1)];
    double_map: "double-map" => [("double-map", 1)];
    out_of_order: "out-of-order" => [("out-of-order", 1)];
    teardown_leak: "teardown-leak" => [("teardown-leak", 1)];
}

#[test]
fn every_scenario_is_tested() {
    let septwatch = septwatch!();
    let list = Run::new(&septwatch, &["demo", "--list"]).finish().exits(0);
    let names: Vec<_> = list.stdout.lines().filter_map(|line| line.split_ascii_whitespace().next()).collect();
    // The storm has its own file.
    assert_eq!(names, NAMES.iter().copied().chain(["storm"]).collect::<Vec<_>>());
}

#[test]
fn busy_is_answered_and_is_no_violation() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "busy", "--json"]).finish_in_turn().exits(0);
    let scenario = scenario(&done);
    let busy: Vec<_> = scenario
        .of("seamcall")
        .filter(|call| call["status_name"].as_str().is_some_and(|name| name.contains("BUSY")))
        .filter_map(|call| call["leaf"].as_str())
        .collect();
    let leaves = ["TDH.MEM.PAGE.AUG", "TDH.MEM.RANGE.BLOCK", "TDH.MEM.TRACK", "TDH.MEM.PAGE.REMOVE"];
    assert_eq!(busy, leaves, "{done}");
    assert_eq!(scenario.column("found"), Kinds::new());
}

#[test]
fn a_free_without_any_zap_has_no_failed_zap_and_one_after_it_has() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "freed-while-mapped", "--json"]).finish_in_turn().exits(0);
    let plain = scenario(&done);
    let freed = plain.of("violation").next().unwrap_or_else(|| panic!("{done}"));
    assert!(freed["since_failed_zap_ns"].is_null(), "{freed}");
    assert_eq!(freed["cause"], "zap-never-tried");
    assert_eq!((freed["state"].as_str(), freed["level"].as_str()), (Some("mapped"), Some("4K")), "{freed}");

    let done = Run::new(&septwatch, &["demo", "reused-while-mapped", "--json"]).finish_in_turn().exits(0);
    let after = scenario(&done);
    let mut failed_ns = 0;
    let mut seen = Vec::new();
    for violation in after.of("violation") {
        let since = &violation["since_failed_zap_ns"];
        match violation["violation"].as_str() {
            Some("zap-failed") => {
                failed_ns = number(violation, "failed_ns");
                assert_eq!(violation["failed_leaf"], "TDH.MEM.PAGE.REMOVE", "{violation}");
                assert!(since.is_null(), "{violation}");
            }
            // The stand-in for the VMM waits 8 ms between the two, as one was seen to.
            Some(kind @ ("freed-while-blocked" | "reused-while-mapped")) => {
                assert_eq!(number(violation, "failed_ns"), failed_ns, "{violation}");
                assert!(since.as_u64().is_some_and(|since| since >= 8_000_000), "{violation}");
                assert_eq!(kind == "freed-while-blocked", violation["cause"] == "zap-failed", "{violation}");
            }
            _ => panic!("{violation}"),
        }
        seen.push(violation["violation"].as_str());
    }
    let last = seen.iter().rposition(|kind| *kind == Some("reused-while-mapped"));
    assert!(last.is_some_and(|last| seen[..last].contains(&Some("freed-while-blocked"))), "{seen:?}");
}

#[test]
fn the_window_is_the_time_from_release_to_reuse() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "reused-while-mapped", "--json"]).finish_in_turn().exits(0);
    let scenario = scenario(&done);
    let reused = scenario.of("violation").filter(|violation| violation["violation"] == "reused-while-mapped");
    let mut own = 0;
    for reused in reused {
        let released = scenario
            .of("violation")
            .filter(|freed| freed["violation"] == "freed-while-blocked" && freed["pfn"] == reused["pfn"])
            .map(|freed| number(freed, "time_ns"))
            .filter(|released| *released <= number(reused, "time_ns"))
            .last()
            .unwrap_or_else(|| panic!("reused without a release: {reused}"));
        assert_eq!(released + number(reused, "window_ns"), number(reused, "time_ns"), "{reused}");
        own += u64::from(reused["comm"] == septwatch_tests::support::process::ACTOR);
    }
    assert_eq!(own, 1, "the demo's own thread is the new owner once: {done}");
}

#[test]
fn the_tour_acts_four_scenarios_out() {
    let septwatch = septwatch!();
    for shape in ["7.1", "7.3"] {
        let done = Run::new(&septwatch, &["demo", "--json", "--shape", shape]).finish_in_turn().exits(0);
        let tour = scenarios(&done);
        let names: Vec<_> = tour.iter().filter_map(|scenario| scenario.result["scenario"].as_str()).collect();
        assert_eq!(names, ["clean", "zap-failed", "freed-while-mapped", "reused-while-mapped"]);
        for scenario in tour {
            scenario.is_as_expected();
        }
    }
}

#[test]
fn the_text_is_what_a_person_needs() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo"]).finish_in_turn().exits(0);
    let text = &done.stdout;
    for word in ["== clean", "== reused-while-mapped", "# ", "! freed-while-mapped", "expected = found"] {
        assert!(text.contains(word), "no {word:?}: {done}");
    }
    assert_eq!(text.matches("   expected = found\n").count(), 4, "{done}");
    assert!(!text.contains("DIFFER") && !text.contains("NOT EXACT"), "{done}");
    assert!(!text.contains('\u{1b}'), "colours into a pipe: {done}");
    assert_eq!(done.stderr, "", "{done}");
}

#[test]
fn what_was_not_announced_is_a_difference() {
    let septwatch = septwatch!();
    for name in ["clean", "zap-failed"] {
        let done = Run::new(&septwatch, &["demo", name, "--one-more", "--json"]).finish_in_turn().exits(1);
        let result = scenario(&done).result;
        assert_eq!(result["equal"], false, "{done}");
        assert_eq!(result["missing"].as_array().map(Vec::len), Some(0), "{done}");
        let [unexpected] = result["unexpected"].as_array().map_or(&[][..], Vec::as_slice) else {
            panic!("{done}")
        };
        assert_eq!(unexpected["violation"], "freed-while-mapped", "{done}");
        let (pfn, gfn) = (number(unexpected, "pfn"), number(unexpected, "gfn"));

        let done = Run::new(&septwatch, &["demo", name, "--one-more"]).finish_in_turn().exits(1);
        assert!(pfn > 0 && done.stdout.contains("not caused: freed-while-mapped pfn 0x"), "{done}");
        assert!(done.stdout.contains(&format!("gfn {gfn:#x}")), "{done}");
        assert!(done.stdout.contains("expected and found DIFFER"), "{done}");
    }
}
