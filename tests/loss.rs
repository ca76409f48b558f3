//! Loss: a full ring buffer shows as a figure, exact, and never as silence; and the kernel counts on.
#![expect(clippy::panic, reason = "inside of a test, a panic is its failure")]

use septwatch_tests::{
    septwatch, skip,
    support::{
        output::scenario,
        process::{ACTOR, Run, threads},
        stopped::MainThread,
    },
};

/// Room for some 100 page records, or 7 violations.
const TOO_SMALL: [&str; 2] = ["--ring-bytes", "4096"];

#[test]
fn a_ring_that_is_too_small_loses_records_and_says_how_many() {
    let septwatch = septwatch!();
    let arguments = [&["demo", "storm", "--json", "--all-events", "--seed", "7"], &TOO_SMALL[..]].concat();
    let done = Run::new(&septwatch, &arguments).finish_in_turn();
    let storm = scenario(&done);
    // `lost` holds produced = received + lost for both streams.
    let [vital, pages] = storm.lost();
    assert!(pages > 0, "{done}");
    let mut counted = storm.column("counted");
    // What the host does with frames that were freed too early is nobody's to foresee.
    counted.remove("reused-while-mapped");
    assert_eq!(counted, storm.column("expected"), "{done}");
    // Page records are not what verdicts are made of; violations are, and the reader may have been late for some.
    let missing = storm.result["missing"].as_array().map_or(0, Vec::len);
    assert!(missing as u64 <= vital, "{done}");
    assert_eq!(done.code(), Some(i32::from(missing > 0)), "{done}");
    assert_eq!(storm.result["unexpected"].as_array().map(Vec::len), Some(0), "{done}");
}

#[test]
fn lost_violations_are_counted_in_the_kernel_and_named_as_lost() {
    let septwatch = septwatch!();
    for json in [true, false] {
        let mut arguments = [&["demo", "storm", "--seed", "7"], &TOO_SMALL[..]].concat();
        if json {
            arguments.push("--json");
        }
        let mut running = Run::new(&septwatch, &arguments).start_acting();
        // The main thread reads the rings. While it is held, a storm goes by.
        let held = match MainThread::stop(&running) {
            Ok(held) => held,
            Err(why) => skip!("the reader cannot be held: ptrace: {why}"),
        };
        let over = |pid| threads(pid).iter().all(|(_, name)| name != ACTOR).then_some(());
        running.until("the storm is over", over).unwrap_or_else(|| panic!("it ended while it was held"));
        drop(held);
        let done = running.finish().exits(1);
        if !json {
            assert!(done.stdout.contains("violations were lost"), "{done}");
            assert!(done.stdout.contains("expected and found DIFFER"), "{done}");
            continue;
        }
        let storm = scenario(&done);
        let [lost, _] = storm.lost();
        assert!(lost > 0, "{done}");
        assert_eq!(storm.result["equal"], false, "{done}");
        assert_eq!(storm.result["unexpected"].as_array().map(Vec::len), Some(0), "{done}");
        let count = |column| storm.column(column).values().sum::<u64>();
        assert_eq!(count("expected"), 100, "{done}");
        assert!(count("found") < 100, "{done}");
        assert_eq!(
            storm.result["missing"].as_array().map(Vec::len),
            Some(100 - count("found") as usize),
            "{done}"
        );
        // Nobody reads, and so nobody has allocations watched: no frame is seen to come back.
        assert_eq!(storm.column("counted"), storm.column("expected"), "{done}");
    }
}
