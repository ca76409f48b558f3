//! The programs' own log: there when asked for, and else not even in the programs.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use septwatch_tests::{
    septwatch,
    support::{
        bpf::{has_map, sizes},
        output::scenario,
        process::Run,
    },
};

/// The ring buffer of aya-log.
const LOGS: &str = "AYA_LOGS";

#[test]
fn debug_prints_what_the_programs_do_and_without_it_they_do_not_log() {
    let septwatch = septwatch!();
    // A storm lasts long enough to be looked at; its log is of no use.
    let arguments = ["demo", "storm", "--seed", "7", "--json", "--bpf-log", "debug"];
    let running = Run::new(&septwatch, &arguments).start_acting();
    let with = sizes(running.pid());
    assert!(has_map(running.pid(), LOGS), "no map {LOGS}");
    drop(running);

    let arguments = ["demo", "freed-while-mapped", "--json", "--bpf-log", "debug"];
    let done = Run::new(&septwatch, &arguments).finish_in_turn().exits(0);
    let acted = scenario(&done);
    acted.is_as_expected();
    // One line a call, the last ones too.
    let returned = done.stderr.lines().filter(|line| line.ends_with(" returned")).count();
    assert_eq!(returned, acted.of("seamcall").count(), "{done}");
    assert!(done.stderr.lines().all(|line| line.starts_with("DEBUG ")), "{done}");
    for word in ["mm_page_free", "tdh_mem_page_aug returned", "tdh_phymem_page_reclaim returned"] {
        assert!(done.stderr.contains(word), "no {word:?}: {done}");
    }

    let running = Run::new(&septwatch, &["demo", "storm", "--seed", "7", "--json"]).start_acting();
    assert!(!has_map(running.pid(), LOGS), "somewhere to log to, where nobody asked");
    let without = sizes(running.pid());
    let done = running.finish().exits(0);
    scenario(&done).is_as_expected();
    assert_eq!(done.stderr, "", "{done}");

    // It costs nothing.
    let size = |sizes: &[(String, u32)], name: &str| {
        let found = sizes.iter().find(|(program, _)| program == name);
        found.unwrap_or_else(|| panic!("no {name} in {sizes:?}")).1
    };
    // Names end after 15 characters: in order of their sizes, too, those of one name are each other's.
    let mut pairs = [with.clone(), without.clone()];
    pairs.iter_mut().for_each(|sizes| sizes.sort());
    let [larger, smaller] = &pairs;
    assert!(larger.iter().map(|(name, _)| name).eq(smaller.iter().map(|(name, _)| name)));
    for ((name, larger), (_, smaller)) in larger.iter().zip(smaller) {
        assert!(smaller <= larger, "{name}: {with:?} {without:?}");
    }
    for name in ["mm_page_free", "ret_mem_page_au"] {
        assert!(size(&without, name) < size(&with, name), "{name}: {with:?} {without:?}");
    }
}

#[test]
fn a_level_above_prints_less() {
    let septwatch = septwatch!();
    let done =
        Run::new(&septwatch, &["demo", "clean", "--json", "--bpf-log", "error"]).finish_in_turn().exits(0);
    assert_eq!(done.stderr, "", "nothing went wrong: {done}");
}
