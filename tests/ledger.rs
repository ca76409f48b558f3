//! A ledger that is too small: what does not fit is counted, and verdicts of its TD are not called certain.
#![expect(clippy::unwrap_used, reason = "inside of a test, a panic is its failure")]

use std::collections::BTreeMap;

use septwatch_tests::{
    septwatch,
    support::{
        output::{number, scenario},
        process::Run,
    },
};

/// The name of the reason for doubt.
const OUTSIDE: &str = "frames-outside-the-ledger";

#[test]
fn frames_without_room_make_their_tds_suspect() {
    let septwatch = septwatch!();
    // Room for 504 frames that lie together; the storm's TDs have some thousand.
    let arguments = ["demo", "storm", "--seed", "7", "--json", "--ledger-limit", "4K"];
    let done = Run::new(&septwatch, &arguments).finish_in_turn().exits(1);
    let storm = scenario(&done);
    assert_eq!(storm.lost(), [0, 0], "{done}");
    assert!(number(&storm.result, "frames_outside_the_ledger") > 1000, "{}", storm.result);
    // By TD: whether it is suspect, and so stays.
    let mut suspect = BTreeMap::new();
    let mut told = 0;
    for line in storm.lines.iter().filter(|line| line["type"] == "violation" || line["type"] == "td") {
        let reasons: Vec<_> =
            line["reasons"].as_array().unwrap().iter().filter_map(|why| why.as_str()).collect();
        assert!(reasons.is_empty() || reasons == [OUTSIDE], "{line}");
        let Some(td) = line["td"].as_u64() else { continue };
        let doubted = suspect.entry(td).or_insert(false);
        assert!(!*doubted || !reasons.is_empty(), "a doubt was dropped: {line}");
        *doubted |= !reasons.is_empty();
        if line["type"] == "violation" {
            let confidence = if reasons.is_empty() { "certain" } else { "suspect" };
            assert_eq!(line["confidence"], confidence, "{line}");
            told += u64::from(!reasons.is_empty());
        }
    }
    assert!(told > 0 && suspect.values().any(|suspect| *suspect), "{suspect:?}");
    // What did not fit is missed, and nothing is made up for it.
    for row in storm.result["rows"].as_array().unwrap() {
        assert!(number(row, "found") - number(row, "consequences") <= number(row, "expected"), "{row}");
    }

    let text = Run::new(&septwatch, &["demo", "storm", "--ledger-limit", "4K"]).finish_in_turn().exits(1);
    assert!(text.stdout.contains("found no room in the ledger"), "{text}");
}

#[test]
fn a_limit_with_room_changes_nothing() {
    let septwatch = septwatch!();
    let arguments = ["demo", "freed-while-mapped", "--json", "--ledger-limit", "1M"];
    // Room for 256 frames, wherever they lie.
    scenario(&Run::new(&septwatch, &arguments).finish_in_turn().exits(0)).is_as_expected();
}
