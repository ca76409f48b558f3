//! The verdicts held against what tracefs saw the page allocator receive: another part of the kernel, and no eBPF.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use std::{collections::BTreeSet, path::Path};

use septwatch_tests::{
    septwatch, skip,
    support::{
        frees::{Freed, Watch},
        output::{Scenario, number, scenario},
        process::Run,
    },
};
use serde_json::Value;

/// The clock of tracefs shows microseconds, rounded down.
const MICROSECOND: u64 = 1000;

fn act(septwatch: &Path, arguments: &[&str]) -> Result<(Scenario, Vec<Freed>), String> {
    let mut run = Run::new(septwatch, &[&["demo", "--json"], arguments].concat());
    let watch = Watch::begin()?;
    let done = run.finish_in_turn().exits(0);
    let freed = watch.end();
    let scenario = scenario(&done);
    scenario.is_as_expected();
    Ok((scenario, freed))
}

/// Whether a verdict is about a frame that the allocator received.
fn is_release(violation: &&Value) -> bool {
    violation["violation"].as_str().is_some_and(|name| name.starts_with("freed-"))
}

/// Frames that the module was given as leaves, and when it had them, by the calls that were recorded.
fn lent(scenario: &Scenario) -> Vec<(u64, u64)> {
    let maps = |call: &&Value| {
        let leaf = call["leaf"].as_str();
        matches!(leaf, Some("TDH.MEM.PAGE.ADD" | "TDH.MEM.PAGE.AUG")) && call["status"] == "0x0"
    };
    scenario.of("seamcall").filter(maps).map(|call| (number(call, "pfn"), number(call, "time_ns"))).collect()
}

/// The frames of `lent` that a thread gave to the allocator in an interval.
fn given_back(freed: &[Freed], lent: &[(u64, u64)], tid: u64, from: u64, to: u64) -> BTreeSet<u64> {
    let freed: Vec<_> =
        freed.iter().filter(|freed| freed.tid == tid && (from..=to).contains(&freed.time_ns)).collect();
    let back = |(pfn, at): &&(u64, u64)| {
        freed.iter().any(|freed| freed.has(*pfn) && freed.time_ns + MICROSECOND > *at)
    };
    lent.iter().filter(back).map(|(pfn, _)| *pfn).collect()
}

/// Scenarios that free one page too early, the shape to try them in, and what they say before and afterwards.
const EARLY: [(&str, &str, &str, &str); 2] = [
    ("freed-while-mapped", "7.3", "A bug:", "Afterwards:"),
    ("freed-unflushed", "7.1", "A bug:", "Afterwards:"),
];

#[test]
fn exactly_the_frames_of_the_verdicts_were_freed_early() {
    let septwatch = septwatch!();
    for (name, shape, before, after) in EARLY {
        let (scenario, freed) = match act(&septwatch, &[name, "--shape", shape]) {
            Ok(acted) => acted,
            Err(why) => skip!("{why}"),
        };
        let verdict = scenario.of("violation").find(is_release).unwrap_or_else(|| panic!("{scenario:#?}"));
        let (from, to) = (scenario.said(before), scenario.said(after));
        assert!((from..=to).contains(&number(verdict, "time_ns")), "{verdict}");
        let lent = lent(&scenario);
        assert!(lent.len() >= 3, "{lent:?}");
        let early = given_back(&freed, &lent, number(verdict, "tid"), from, to);
        assert_eq!(early, BTreeSet::from([number(verdict, "pfn")]), "{name}: {verdict}");
    }
}

#[test]
fn frees_in_good_order_are_seen_and_are_no_violations() {
    let septwatch = septwatch!();
    let (scenario, freed) = match act(&septwatch, &["clean"]) {
        Ok(acted) => acted,
        Err(why) => skip!("{why}"),
    };
    let lent = lent(&scenario);
    let tid = scenario.of("td").map(|td| number(td, "tid")).next().unwrap_or_default();
    let all = lent.iter().map(|(pfn, _)| *pfn).collect::<BTreeSet<_>>();
    assert_eq!(all.len(), 5, "{lent:?}");
    assert_eq!(given_back(&freed, &lent, tid, 0, u64::MAX), all);
    assert_eq!(scenario.of("violation").count(), 0);
}

#[test]
fn every_verdict_of_a_storm_has_its_free() {
    let septwatch = septwatch!();
    let (scenario, freed) = match act(&septwatch, &["storm", "--seed", "7"]) {
        Ok(acted) => acted,
        Err(why) => skip!("{why}"),
    };
    let mut used = BTreeSet::new();
    let mut releases = 0;
    for verdict in scenario.of("violation").filter(is_release) {
        releases += 1;
        let (pfn, tid, time_ns) =
            (number(verdict, "pfn"), number(verdict, "tid"), number(verdict, "time_ns"));
        // The same frame comes and goes in a storm: the free that is nearest in time. The two look at the same
        // moment, one after the other.
        let nearest = freed
            .iter()
            .enumerate()
            .filter(|(_, freed)| freed.tid == tid && freed.has(pfn))
            .min_by_key(|(_, freed)| freed.time_ns.abs_diff(time_ns));
        let (at, _) = nearest.unwrap_or_else(|| panic!("tracefs saw nobody free it: {verdict}"));
        assert!(used.insert((at, pfn)), "two verdicts of one free: {verdict}");
    }
    // 57 of the 100 faults of a storm are releases: which, follows from the kinds' turn, not from the seed.
    assert!(releases > 50, "{}", scenario.result);
    // Tens of thousands of pages were freed in good order meanwhile.
    assert!(freed.len() > 20_000, "{}", freed.len());
}
