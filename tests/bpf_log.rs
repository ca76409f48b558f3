//! The programs' own log: there when asked for, and else not even in the programs.

use septwatch_tests::{
    septwatch,
    support::{
        bpf::{ring, sizes},
        output::scenario,
        process::Run,
    },
};

/// The ring buffer of aya-log.
const LOGS: &str = "AYA_LOGS";

/// A run of a storm to its end: the sizes of its programs meanwhile.
fn programs(septwatch: &std::path::Path, more: &[&str]) -> Vec<(String, u32)> {
    let running = Run::new(septwatch, &[&["demo", "storm"], more].concat()).start_acting();
    let sizes = sizes(running.pid());
    assert!(sizes.len() > 16, "{sizes:?}");
    sizes
}

#[test]
fn debug_prints_what_the_programs_do() {
    let septwatch = septwatch!();
    let done = Run::new(&septwatch, &["demo", "freed-while-mapped", "--json", "--bpf-log", "debug"])
        .finish_in_turn();
    let done = done.exits(0);
    scenario(&done).is_as_expected();
    assert!(done.stderr.lines().count() > 10, "{done}");
    for line in done.stderr.lines() {
        assert!(line.starts_with("DEBUG ") || line.starts_with("INFO "), "{line:?}");
    }
    assert!(done.stderr.contains("mm_page_free"), "{done}");
}

#[test]
fn a_level_above_prints_less() {
    let septwatch = septwatch!();
    let done =
        Run::new(&septwatch, &["demo", "clean", "--json", "--bpf-log", "error"]).finish_in_turn().exits(0);
    assert_eq!(done.stderr, "", "nothing went wrong: {done}");
}

#[test]
fn without_it_nothing_is_logged() {
    let septwatch = septwatch!();
    let running = Run::new(&septwatch, &["demo", "storm", "--seed", "7", "--json"]).start_acting();
    let mut logs = ring(running.pid(), LOGS).unwrap_or_else(|| panic!("no map {LOGS}"));
    let done = running.finish().exits(0);
    scenario(&done).is_as_expected();
    assert_eq!(done.stderr, "", "{done}");
    // The map outlived the process: nobody else has read from it.
    assert!(logs.next().is_none(), "somebody logged");
}

#[test]
fn without_it_logging_is_not_in_the_programs() {
    let septwatch = septwatch!();
    let off = programs(&septwatch, &[]);
    let on = programs(&septwatch, &["--bpf-log", "debug"]);
    let names = |sizes: &[(String, u32)]| sizes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&off), names(&on));
    let smaller: Vec<_> =
        off.iter().zip(&on).filter(|((_, off), (_, on))| off < on).map(|((name, _), _)| name).collect();
    assert!(off.iter().zip(&on).all(|((_, off), (_, on))| off <= on), "{off:?}\n{on:?}");
    for name in ["mm_page_free", "ret_mem_page_au"] {
        assert!(smaller.iter().any(|smaller| *smaller == name), "{name}: {off:?}\n{on:?}");
    }
}
