//! A recorded storm in the formats of other tools, read back by those tools; and each of its violations minimized.
#![expect(clippy::panic, clippy::expect_used, reason = "inside of a test, a panic is its failure")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
};

use septwatch_tests::{
    septwatch, skip,
    support::process::{Done, Run},
};
use serde_json::Value;

/// Records a storm; small, with latencies.
fn recorded(septwatch: &Path, folder: &Path) {
    let storm = ["demo", "storm", "--seed", "7", "--latency", "--record", "a.swt"];
    run(septwatch, folder, &storm, true);
}

fn run(septwatch: &Path, folder: &Path, arguments: &[&str], in_turn: bool) -> Done {
    let mut run = Run::new(septwatch, arguments);
    run.command().current_dir(folder);
    if in_turn { run.finish_in_turn() } else { run.finish() }.exits(0)
}

/// What another tool's reader finds in a file; None where there is no such reader.
fn read(format: &str, file: &Path) -> Option<Value> {
    let python = env::var_os("SEPTWATCH_PYTHON")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("export.py");
    let output = Command::new(python).arg(script).arg(format).arg(file).output().expect("Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{format}: {said}");
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}")))
}

const NO_PYTHON: &str =
    "SEPTWATCH_PYTHON names no Python with pyarrow and perfetto: `cargo xtask test 2` installs them";

#[test]
fn other_tools_read_what_is_exported() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().expect("a folder can be made");
    recorded(&septwatch, folder.path());
    let lines = run(&septwatch, folder.path(), &["export", "a.swt", "--to", "jsonl"], false).json();
    let mut types = BTreeMap::<&str, u64>::new();
    let (mut rows, mut tids, mut tds) = (0, 0, BTreeSet::new());
    for line in &lines {
        let kind = line["type"].as_str().unwrap_or_default();
        if ["recording", "step", "counted", "end"].contains(&kind) {
            continue;
        }
        *types.entry(kind).or_default() += 1;
        rows += 1;
        tids += line["tid"].as_u64().unwrap_or_default();
        tds.extend(line["td"].as_u64());
    }
    assert!(types["seamcall"] > 100_000 && types["violation"] >= 50, "{types:?}");

    let table = run(&septwatch, folder.path(), &["export", "a.swt", "--to", "csv"], false).stdout;
    assert_eq!(table.lines().count(), rows + 1);
    for format in ["parquet", "perfetto"] {
        run(&septwatch, folder.path(), &["export", "a.swt", "--to", format], false);
    }
    let Some(parquet) = read("parquet", &folder.path().join("a.parquet")) else { skip!("{NO_PYTHON}") };
    assert_eq!(parquet["rows"], rows);
    assert_eq!(parquet["types"], serde_json::json!(types));
    assert_eq!(parquet["tid"], tids);
    for (name, kind) in [
        ("time_ns", "uint64"),
        ("realtime", "timestamp[ns, tz=UTC]"),
        ("td", "uint32"),
        ("pfn", "uint64"),
        ("leaf", "string"),
    ] {
        assert_eq!(parquet["schema"][name], kind, "{name}");
    }

    let Some(trace) = read("perfetto", &folder.path().join("a.pftrace")) else { skip!("{NO_PYTHON}") };
    assert_eq!(trace["faults"], serde_json::json!([]), "{trace}");
    let counts = &trace["counts"];
    assert_eq!([&counts["CPU slices"], &counts["CPU ends"]], [types["seamcall"]; 2], "{trace}");
    assert_eq!(counts["CPU instants"], types["frame"], "{trace}");
    assert_eq!(counts["violations instants"], types["violation"], "{trace}");
    assert_eq!(trace["processes"], tds.len(), "{trace}");
    assert!(counts["lent frames values"].as_u64() > Some(100), "{trace}");
    assert!(counts["BUSY answers values"].as_u64() > Some(0), "{trace}");
    assert_eq!(trace["clocks"], serde_json::json!([[1, 3, 6], [1, 3, 6]]), "{trace}");
}

#[test]
fn every_kind_of_violation_in_a_storm_becomes_small() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().expect("a folder can be made");
    recorded(&septwatch, folder.path());
    let whole = run_through(&septwatch, folder.path(), "a.swt");
    let kinds: BTreeSet<_> = whole.iter().filter_map(|line| line["violation"].as_str()).collect();
    assert!(kinds.len() >= 6, "{kinds:?}");
    for kind in kinds {
        let first = whole.iter().find(|line| line["violation"] == kind).expect("it was seen");
        let done = run(
            &septwatch,
            folder.path(),
            &["minimize", "a.swt", "--violation", kind, "--output", "b.swt"],
            false,
        );
        assert!(done.stdout.contains("the ledger finds it again; without any one"), "{done}");
        let bytes = fs::metadata(folder.path().join("b.swt")).expect("it is written").len();
        assert!(bytes < 8_192, "{kind}: {bytes} bytes: {done}");
        let small = run_through(&septwatch, folder.path(), "b.swt");
        assert!(small.len() < 60, "{kind}: {}", small.len());
        assert!(small.contains(first), "{kind}: {first} is not in what was kept");
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let report = run(&septwatch, folder.path(), &["report", "a.swt", "--all"], false).stdout;
    let wide = report.lines().find(|line| line.chars().count() > 76);
    assert_eq!(wide, None);
    let private = [hostname.trim(), "a.swt"].into_iter().find(|word| word.len() > 2 && report.contains(word));
    assert_eq!(private, None);
}

/// All that a replay tells.
fn run_through(septwatch: &Path, folder: &Path, file: &str) -> Vec<Value> {
    let mut run = Run::new(septwatch, &["replay", file, "--speed", "max", "--json"]);
    run.command().current_dir(folder);
    run.finish().exits(1).json()
}
