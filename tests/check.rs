//! Recordings of the demo as regression traces: checked, blessed, compared.
#![expect(clippy::panic, clippy::unwrap_used, reason = "inside of a test, a panic is its failure")]

use std::{fs, path::Path, process::Command};

use septwatch_tests::{
    septwatch, skip,
    support::process::{Done, Run},
};
use tempfile::TempDir;

/// Records a scenario; `code` is what the demo exits with.
#[track_caller]
fn record(septwatch: &Path, folder: &TempDir, name: &str, scenario: &[&str], code: i32) -> String {
    let file = folder.path().join(name).display().to_string();
    let arguments = [&["demo"], scenario, &["--record", &file]].concat();
    Run::new(septwatch, &arguments).finish_in_turn().exits(code);
    file
}

/// Records a page that is freed while it is mapped, and that nobody is given before the recording ends: who gets it is
/// chance, and up to the rest of the host.
#[track_caller]
fn record_freed(septwatch: &Path, folder: &TempDir, name: &str) -> String {
    for _ in 0..10 {
        let file = record(septwatch, folder, name, &["freed-while-mapped"], 0);
        let done = run(septwatch, &["check", &file, "--json"], 1);
        if !done.stdout.contains("reused-while-mapped") {
            return file;
        }
    }
    panic!("the page was given to somebody ten times in a row");
}

#[track_caller]
fn run(septwatch: &Path, arguments: &[&str], code: i32) -> Done {
    Run::new(septwatch, arguments).finish().exits(code)
}

#[test]
fn a_violation_fails_until_it_is_blessed() {
    let septwatch = septwatch!();
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (junit, summary, expect) = (at("j.xml"), at("m.md"), at("e.toml"));
    let file = record_freed(&septwatch, &folder, "a.swt");
    let done = run(&septwatch, &["check", &file, "--json"], 1);
    let object = done.json_line();
    let checks = object["checks"].as_array().unwrap_or_else(|| panic!("{done}"));
    let failed: Vec<_> = checks.iter().filter(|check| check["passed"] == false).collect();
    let [check] = failed[..] else { panic!("{done}") };
    assert_eq!(check["check"], "violations", "{done}");
    let frame = check["failures"][0]["violations"][0]["pfn"].as_u64().unwrap_or_else(|| panic!("{done}"));

    let done = run(&septwatch, &["check", &file, "--junit", &junit, "--markdown", &summary], 1);
    let violation = format!("freed-while-mapped [certain] pfn {frame:#x} ");
    let places = ["kernel stack: ", "kvm_gmem_fallocate", "user stack: ", "guest_memfd inode "];
    let [junit, summary] = [junit, summary].map(|path| fs::read_to_string(path).unwrap());
    let message = format!("message=\"freed-while-mapped: expected none, found 1: {violation}");
    assert!(junit.contains(&message), "{junit}");
    for words in places.iter().copied().chain([&*violation]) {
        assert!(done.stdout.contains(words) && junit.contains(words), "{words}: {done}");
    }
    assert!(summary.contains(&format!("pfn {frame:#x}")), "{summary}");

    run(&septwatch, &["check", &file, "--expect", &expect, "--bless"], 0);
    let again = record_freed(&septwatch, &folder, "b.swt");
    run(&septwatch, &["check", &file, &again, "--expect", &expect], 0);
    let other = record(&septwatch, &folder, "c.swt", &["freed-while-blocked"], 0);
    run(&septwatch, &["check", &other, "--expect", &expect], 1);
}

#[test]
fn two_storms_of_one_seed_differ_in_nothing_that_matters() {
    let septwatch = septwatch!();
    let folder = TempDir::new().unwrap();
    let storm = ["storm", "--seed", "7", "--ring-bytes", "67108864"];
    let expect = folder.path().join("e.toml").display().to_string();
    let a = record(&septwatch, &folder, "a.swt", &storm, 0);
    let b = record(&septwatch, &folder, "b.swt", &storm, 0);
    run(&septwatch, &["diff", &a, &b], 0);
    run(&septwatch, &["check", &a, "--expect", &expect, "--bless"], 0);
    run(&septwatch, &["check", &b, "--expect", &expect], 0);
    // What the example of a workflow checks with.
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/storm-7.toml").display().to_string();
    run(&septwatch, &["check", &a, &b, "--expect", &kept], 0);
    let more = record(&septwatch, &folder, "c.swt", &[&storm[..], &["--one-more"]].concat(), 1);
    let done = run(&septwatch, &["diff", &a, &more], 1);
    let line = done.stdout.lines().find(|line| line.starts_with("! violations freed-while-mapped found"));
    assert!(line.is_some_and(|line| line.contains("tolerated: no change")), "{done}");
    run(&septwatch, &["check", &more, "--expect", &expect], 1);
}

/// Jenkins' own schema, in whose words the file of `--junit` must be: for what passes, what fails, what is damaged, and what
/// is no recording.
#[test]
fn junit_is_valid_for_jenkins() {
    let septwatch = septwatch!();
    let Some(schema) = std::env::var_os("SEPTWATCH_JUNIT_XSD") else {
        skip!("SEPTWATCH_JUNIT_XSD does not name Jenkins' junit-10.xsd: `cargo xtask test 2` fetches it");
    };
    if Command::new("xmllint").arg("--version").output().is_err() {
        skip!("no xmllint: it is in libxml2-utils");
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (junit, expect) = (at("j.xml"), at("e.toml"));
    let clean = record(&septwatch, &folder, "clean.swt", &["clean"], 0);
    let freed = record(&septwatch, &folder, "freed.swt", &["freed-while-mapped"], 0);
    let zap = record(&septwatch, &folder, "zap.swt", &["zap-failed"], 0);
    let bytes = fs::read(&freed).unwrap();
    let (cut, text) = (at("cut.swt"), at("text.swt"));
    fs::write(&cut, &bytes[..bytes.len() - 50]).unwrap();
    fs::write(&text, "<]]> is no recording").unwrap();
    let is_valid = |code: i32, arguments: &[&str]| {
        let done = run(&septwatch, &[&["check", "--junit", &junit], arguments].concat(), code);
        let output = Command::new("xmllint").args(["--noout", "--schema"]).arg(&schema).arg(&junit).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}: {done}: {}", fs::read_to_string(&junit).unwrap());
    };
    is_valid(0, &[&clean]);
    is_valid(1, &[&clean, &freed, &zap, &cut]);
    is_valid(2, &[&clean, &text, &at("none.swt"), &freed]);
    run(&septwatch, &["check", &zap, "--expect", &expect, "--bless"], 0);
    is_valid(1, &[&freed, &zap, &clean, "--expect", &expect]);
    // The schema is not content with anything.
    fs::write(&junit, "<testsuites><testsuite/></testsuites>").unwrap();
    let output = Command::new("xmllint").args(["--noout", "--schema"]).arg(&schema).arg(&junit).output();
    assert!(!output.unwrap().status.success());
}
