#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::view::top::{columns::Kind, examples, rows::table, scene::Scene};

/// The rows that match, by their place.
fn hits(text: &str, view: View, scene: &Scene) -> Vec<usize> {
    let filter = Filter::parse(text, view).map_err(|error| format!("{text}: {error}")).unwrap();
    let table = table(view, scene).unwrap();
    (0..table.len()).filter(|row| filter.matches(&*table, *row)).collect()
}

#[test]
fn terms_choose_rows() {
    let scene = examples::scene();
    for (text, rows) in [
        ("", &[0_usize, 1, 2, 3] as &[usize]),
        ("  ", &[0, 1, 2, 3]),
        ("td=web*", &[0, 1]),
        ("td=WEB-?", &[0, 1]),
        ("td=3", &[2]),
        ("td=3|web-1", &[0, 2]),
        ("td!=3|web-1", &[1, 3]),
        ("td>2", &[2, 3]),
        ("td~we", &[0, 1]),
        ("TD=1", &[0]),
        ("name=qemu*", &[3]),
        ("memory>=2G", &[0, 2]),
        ("memory>=2GiB memory<4096M", &[0]),
        ("memory=1.5G|1g", &[1]),
        ("memory=0", &[3]),
        ("busy>100", &[1]),
        ("busy>=100", &[1, 2]),
        ("busy>0.1k", &[1]),
        ("busy=150.5", &[1]),
        ("held>1", &[2]),
        ("held=40K", &[2]),
        ("held=*", &[2]),
        ("held!=*", &[0, 1, 3]),
        ("held=\"\"", &[0, 1, 3]),
        // What is not known is not less than anything.
        ("held<1G", &[2]),
        ("!held<1G", &[0, 1, 3]),
        ("age=100", &[0, 1, 2, 3]),
        ("age<=1m", &[]),
        ("age>1.5m", &[0, 1, 2, 3]),
        ("tdr=0x10002", &[1]),
        ("tdr=65538", &[1]),
        ("tdr~0002", &[1]),
        ("state=bugged", &[2]),
        ("cgroup=\"*/a b\"", &[3]),
        ("cgroup=*/\"a b\"", &[3]),
        ("web", &[0, 1]),
        ("!web", &[2, 3]),
        ("WEB 2", &[1]),
        ("\"a b\"", &[3]),
        ("web-1|bugged", &[0, 2]),
        ("0x10003", &[2]),
        ("\u{6f22}", &[2]),
        ("\"td=3\"", &[]),
        ("td=web* busy>100 memory>0", &[1]),
    ] {
        assert_eq!(hits(text, View::Tds, &scene), rows, "{text}");
    }
    for (text, rows) in [
        ("violation!=map-failed", &[0_usize, 2] as &[usize]),
        ("violation=freed-*|map-failed", &[0, 1]),
        ("td=web-2", &[1]),
        ("td=\"\"", &[2]),
        ("window=2us", &[1]),
        ("window>=2000ns", &[1]),
    ] {
        assert_eq!(hits(text, View::Violations, &scene), rows, "{text}");
    }
    assert_eq!(hits("lost", View::Log, &scene), [2]);
    assert_eq!(hits("kind=violation|life td=1", View::Log, &scene), [0, 1]);
}

#[test]
fn the_largest_numbers_are_told_apart() {
    let mut scene = examples::scene();
    let mut td = examples::td(1, None);
    td.failed_zaps = u64::MAX;
    td.violations = u64::MAX - 1;
    td.frames = [u64::MAX; 6];
    scene.tds = vec![td].into();
    for (text, holds) in [
        ("failed=18446744073709551615", true),
        ("failed=0xffffffffffffffff", true),
        ("violations=18446744073709551615", false),
        ("violations<18446744073709551615", true),
        ("failed<18446744073709551616", true),
        ("lent>16777216T", true),
    ] {
        assert_eq!(hits(text, View::Tds, &scene) == [0], holds, "{text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_would_be_right() {
    let tds = "fields: td name state memory maps zaps busy failed violations held lent pid hkid tdr age confidence cgroup";
    for (view, text, told) in [
        (View::Tds, "td=1 bsuy>5", format!("bsuy>5, character 6: no field bsuy: busy?; {tds}")),
        (View::Tds, "xyzzy=5", format!("xyzzy=5, character 1: no field xyzzy; {tds}")),
        (
            View::Log,
            "td=web*",
            "td=web*, character 1: td is a number, as in 100, 0x64 or 10k".to_owned(),
        ),
        (View::Tds, "td=", "td=, character 1: a value belongs after =; \"\" is what is not known".to_owned()),
        (View::Tds, "td=1|", "td=1|, character 1: a value belongs after =; \"\" is what is not known".to_owned()),
        (View::Tds, "  >5", ">5, character 3: a field belongs before >, as in td>...".to_owned()),
        (View::Tds, "name>5", "name>5, character 1: name is a text: compare it by = != or ~".to_owned()),
        (View::Tds, "pid>1|2", "pid>1|2, character 1: > takes one value".to_owned()),
        (View::Tds, "pid=0x", "pid=0x, character 1: pid is a number, as in 100, 0x64 or 10k".to_owned()),
        (
            View::Tds,
            "memory>2X",
            "memory>2X, character 1: memory is a size: bytes, or a number with K, M, G or T, as in 2G".to_owned(),
        ),
        (
            View::Tds,
            "age>5y",
            "age>5y, character 1: age is a span of time: seconds, or a number with ns, us, ms, s, m, h or d, as \
             in 90s"
                .to_owned(),
        ),
        (View::Tds, "tdr=1a", "tdr=1a, character 1: tdr is a number, as in 4096 or 0x1000".to_owned()),
        (View::Tds, "web \"a b", "\\\"a b, character 5: the closing \" is missing".to_owned()),
        (View::Tds, "web !", "!, character 5: a word belongs after !".to_owned()),
        (View::Overview, "web", "web, character 1: this view has no table".to_owned()),
    ] {
        let error = Filter::parse(text, view).unwrap_err();
        assert_eq!(error.to_string(), told, "{text}");
    }
    let long = Filter::parse(&"x".repeat(1_001), View::Tds).unwrap_err();
    assert!(long.to_string().len() < 100, "{long}");
    assert_eq!(long.wrong, Wrong::Long);
}

#[test]
fn ten_thousand_rows_take_milliseconds() {
    let scene = examples::many(10_000);
    let begun = Instant::now();
    let expected =
        (1..=10_000_u64).filter(|number| number % 14 != 6 && (number % 1_000).to_string().starts_with('1'));
    let found = hits("violation!=map-failed td=web-1* comm~WORK", View::Violations, &scene);
    assert_eq!(found.len(), expected.count());
    assert_eq!(hits("not-there", View::Violations, &scene), [0_usize; 0]);
    assert_eq!(hits("0x2abc1", View::Violations, &scene).len(), 1);
    // A tenth of this in a release; loose, because tests run on whatever is there.
    assert!(begun.elapsed().as_millis() < 3_000, "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn whatever_is_typed_is_a_filter_or_an_error(text in "[tdnameheldviolationbusy=!<>~|\"\\\\*? 0-9xKMGsum\u{130}\u{df}\u{6f22}\u{301}\\PC]{0,40}") {
        let scene = examples::scene();
        for view in View::ALL {
            if let Ok(filter) = Filter::parse(&text, view) {
                let Some(table) = table(view, &scene) else { continue };
                let shown = (0..table.len() + 1).filter(|row| filter.matches(&*table, *row)).count();
                prop_assert!(shown <= table.len() + 1);
            }
        }
    }

    #[test]
    fn a_needle_is_found_as_the_slow_way_finds_it(text in "[a-cA-C\u{e4}\u{c4} ]{0,12}", needle in "[a-cA-C\u{e4}\u{c4}]{0,3}") {
        let slow = text.to_lowercase().contains(&needle.to_lowercase());
        prop_assert_eq!(Needle::new(&needle).is_in(&text), slow);
    }

    #[test]
    fn a_number_equals_itself(number in any::<u64>()) {
        for (text, kind) in [(number.to_string(), Kind::Number), (format!("{number:#x}"), Kind::Hex)] {
            let amount = Amount::parse(&text, kind).unwrap();
            prop_assert_eq!(amount.order(&Value::Number(number)), Some(Ordering::Equal));
            prop_assert_eq!(amount.order(&Value::Number(number.wrapping_add(1))) , Some(number.wrapping_add(1).cmp(&number)));
        }
    }
}
