//! Recordings of the demo: what was seen live is what is in the file, whatever happens to it.
#![expect(clippy::unwrap_used, reason = "inside of a test, a panic is its failure")]

use std::{fs, path::Path};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use septwatch_tests::{
    septwatch, skip,
    support::process::{Done, Run},
};
use serde_json::Value;

/// Violations as they were told, by time: the demo tells them in that order, a replay in that of their arrival.
fn violations(lines: &[Value]) -> Vec<Value> {
    let of_violation = lines.iter().filter(|line| line["type"] == "violation");
    let mut violations: Vec<_> = of_violation.cloned().collect();
    for violation in &mut violations {
        // The demo prints no names of places.
        let object = violation.as_object_mut().unwrap();
        object.remove("kernel_functions");
        object.remove("user_functions");
    }
    violations.sort_by_key(|violation| (violation["time_ns"].as_u64(), violation.to_string()));
    violations
}

fn replay(septwatch: &Path, file: &Path, more: &[&str]) -> Done {
    let arguments = [&["replay", "--speed", "max", "--json", file.to_str().unwrap()], more].concat();
    Run::new(septwatch, &arguments).finish()
}

#[test]
fn a_recorded_storm_is_replayed_as_it_was() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("storm.swt");
    let record = ["demo", "storm", "--seed", "7", "--json", "--record", file.to_str().unwrap()];
    let live = Run::new(&septwatch, &record).finish_in_turn().exits(0);
    let live = live.json();
    let again = replay(&septwatch, &file, &["--all-events"]).exits(1);
    let again = again.json();
    assert_eq!(violations(&live).len(), 100);
    assert_eq!(violations(&live), violations(&again));
    // A second time, and without what a machine's load may change: the very same bytes.
    assert_eq!(again, replay(&septwatch, &file, &["--all-events"]).json());

    let (result, end) = (live.last().unwrap(), again.last().unwrap());
    for key in ["vital_records", "page_records", "frames_outside_the_ledger", "calls_not_read"] {
        assert_eq!(result[key], end[key], "{key}");
    }
    let pages = &end["page_records"];
    assert_eq!((pages["lost"].as_u64(), pages["produced"].as_u64()), (Some(0), pages["received"].as_u64()));
    let calls = again.iter().filter(|line| line["type"] == "seamcall" || line["type"] == "frame").count();
    assert_eq!(Some(calls as u64), pages["received"].as_u64());
    let bytes = fs::metadata(&file).unwrap().len();
    assert!(bytes <= 8 * calls as u64, "{bytes} bytes for {calls} page records");
    // The demo's own words are in it as well.
    let said =
        |lines: &[Value]| lines.iter().filter(|line| line["type"] == "step").cloned().collect::<Vec<_>>();
    assert_eq!(said(&live), said(&again));
}

#[test]
fn every_scenario_is_replayed_as_it_was() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let list = Run::new(&septwatch, &["demo", "--list"]).finish().exits(0);
    let names = list.stdout.lines().filter_map(|line| line.split(' ').next()).filter(|name| *name != "storm");
    let mut found = 0;
    for name in names {
        let file = folder.path().join(format!("{name}.swt"));
        let record = ["demo", name, "--json", "--record", file.to_str().unwrap()];
        let live = Run::new(&septwatch, &record).finish_in_turn().exits(0).json();
        let again = replay(&septwatch, &file, &["--all-events"]);
        let again_lines = again.json();
        let expected = violations(&live);
        assert_eq!(again.code(), Some(i32::from(!expected.is_empty())), "{name}");
        assert_eq!(expected, violations(&again_lines), "{name}");
        found += expected.len();
    }
    assert!(found >= 10, "{found}");
}

#[test]
fn a_replay_can_begin_in_the_middle_and_keeps_time() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.swt");
    let record = ["demo", "zap-failed", "--record", file.to_str().unwrap()];
    Run::new(&septwatch, &record).finish_in_turn().exits(0);
    let all = replay(&septwatch, &file, &[]).json();
    let times: Vec<_> = all.iter().filter_map(|line| line["time_ns"].as_u64()).collect();
    let begin = all[0]["clock"]["monotonic_ns"].as_u64().unwrap();
    let after_ms = times.last().unwrap().saturating_sub(begin) / 1_000_000 + 1;
    let late = replay(&septwatch, &file, &["--at", &format!("{after_ms}ms")]).exits(1);
    let late_lines = late.json();
    let state = late_lines.iter().find(|line| line["type"] == "state").unwrap();
    assert_eq!(state["violations"], all.last().unwrap()["violations"]);
    assert!(!late_lines.iter().any(|line| line["type"] == "violation"), "{late}");
    assert!(late.stderr.contains("the recording ends before that time"), "{late}");

    let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
    let start = std::time::Instant::now();
    Run::new(&septwatch, &["replay", file.to_str().unwrap(), "--speed", "0.1"]).finish().exits(1);
    assert!(start.elapsed().as_nanos() as u64 > 5 * spread, "{spread} ns took {:?}", start.elapsed());
}

#[test]
fn a_full_disk_costs_what_came_after() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path();
    if let Err(error) = mount("none", disk, "tmpfs", MountFlags::empty(), Some(c"size=256k")) {
        skip!("a small disk cannot be mounted: {error}; run as root");
    }
    let file = disk.join("storm.swt");
    let record = ["demo", "storm", "--seed", "7", "--json", "--record", file.to_str().unwrap()];
    let live = Run::new(&septwatch, &record).finish_in_turn();
    let again = replay(&septwatch, &file, &["--all-events"]);
    let read = fs::read(&file).unwrap();
    unmount(disk, UnmountFlags::empty()).unwrap();
    assert_eq!(live.code(), Some(3), "{live}");
    assert!(live.stderr.contains("No space left on device"), "{live}");
    assert!(live.stderr.contains("records that arrived are in no file"), "{live}");
    assert!(read.len() > 128 << 10, "{} bytes", read.len());
    let end: Value = serde_json::from_str(again.stdout.lines().last().unwrap()).unwrap();
    let received = end["page_records"]["received"].as_u64().unwrap();
    assert!(received > 10_000, "{end}");
    // The demo's verdicts did not suffer.
    assert_eq!(live.json().last().unwrap()["equal"], true);
}

#[test]
fn what_cannot_be_recorded_or_read_is_said() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.txt");
    fs::write(&notes, "do not lose this").unwrap();
    let done = Run::new(&septwatch, &["demo", "clean", "--record", notes.to_str().unwrap()]).finish_in_turn();
    assert_eq!(done.code(), Some(2), "{done}");
    assert!(done.stderr.contains("is no recording: it is not replaced"), "{done}");
    assert_eq!(fs::read_to_string(&notes).unwrap(), "do not lose this");
    let nowhere = folder.path().join("nowhere/a.swt");
    let done =
        Run::new(&septwatch, &["demo", "clean", "--record", nowhere.to_str().unwrap()]).finish_in_turn();
    assert_eq!(done.code(), Some(2), "{done}");
    assert!(done.stderr.contains("--record") && done.stderr.contains("No such file or directory"), "{done}");
    let done = Run::new(&septwatch, &["replay", notes.to_str().unwrap()]).finish();
    assert_eq!(done.code(), Some(2), "{done}");
    assert!(done.stderr.contains("not a recording of septwatch"), "{done}");
    for wrong in [&["--speed", "fast"][..], &["--speed", "0"], &["--at", "noon"]] {
        let done = Run::new(&septwatch, &[&["replay", "a.swt"], wrong].concat()).finish();
        assert_eq!(done.code(), Some(2), "{done}");
    }
}

#[test]
fn a_golden_recording_with_a_violation_fails_a_check() {
    let septwatch = match septwatch_tests::support::binary() {
        Ok(path) => path,
        Err(why) => skip!("{why}"),
    };
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/lab-7.3-zap-failed-remove.swt");
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("check.xml");
    let done = Run::new(&septwatch, &["check", golden, "--junit", junit.to_str().unwrap()]).finish();
    assert_eq!(done.code(), Some(1), "{done}");
    let xml = fs::read_to_string(&junit).unwrap();
    for words in ["freed-while-blocked", "TDX_OPERAND_BUSY", "pfn 0x", "kvm_gmem_"] {
        assert!(xml.contains(words), "{words} is not in {xml}");
    }
    let done =
        Run::new(&septwatch, &["report", golden, "--violation", "freed-while-blocked"]).finish().exits(0);
    for words in ["Linux 7.3", "TDH.MEM.PAGE.REMOVE", "vm-bugged", "punch-hole", "freed-while-blocked"] {
        assert!(done.stdout.contains(words), "{words} is not in {done}");
    }
}
