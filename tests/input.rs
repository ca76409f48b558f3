//! Input and hosts that are not right: every word says what would be. None of it needs eBPF to work here.
#![expect(clippy::unwrap_used, reason = "inside of a test, a panic is its failure")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use septwatch_tests::{septwatch, skip, support::process::Run};

/// nobody.
const UNPRIVILEGED: u32 = 65534;

/// The binary; what is tested here needs nothing else.
macro_rules! binary {
    () => {
        match septwatch_tests::support::binary() {
            Ok(path) => path,
            Err(why) => skip!("{why}"),
        }
    };
}

#[test]
fn a_wrong_command_line_is_named_with_what_would_be_right() {
    let binary = binary!();
    let cases: &[(&[&str], &[&str])] = &[
        (&["demo", "freed"], &["'freed'", "[SCENARIO]", "clean", "freed-while-mapped", "storm"]),
        (
            &["demo", "storm", "--seed", "seven"],
            &["'seven'", "--seed <SEED>", "from 0 to 18446744073709551615"],
        ),
        (&["demo", "storm", "--seed", "-1"], &["-1"]),
        (&["demo", "--shape", "6.0"], &["'6.0'", "--shape", "7.1, 7.3"]),
        (&["demo", "--no-such-flag"], &["--no-such-flag", "--help"]),
        (&["demo", "--list", "clean"], &["--list", "[SCENARIO]"]),
        (
            &["demo", "--ring-bytes", "5000"],
            &["'5000'", "--ring-bytes <BYTES>", "power of two from 4096 to 1073741824"],
        ),
        (
            &["demo", "--ring-bytes", "2048"],
            &["'2048'", "--ring-bytes <BYTES>", "power of two from 4096 to 1073741824"],
        ),
        (&["demo", "--ring-bytes", "many"], &["'many'", "--ring-bytes <BYTES>", "4096"]),
        (&["watch", "--ring-bytes", "0"], &["'0'", "--ring-bytes <BYTES>", "4096"]),
        (&["demo", "--ledger-limit", "0"], &["'0'", "--ledger-limit <SIZE>", "4K"]),
        (&["demo", "--ledger-limit", "4095"], &["'4095'", "--ledger-limit <SIZE>", "4K"]),
        (&["watch", "--ledger-limit", "much"], &["'much'", "--ledger-limit <SIZE>", "16M"]),
        (&["demo", "--bpf-log", "loud"], &["'loud'", "--bpf-log <LEVEL>", "error, warn, info, debug, trace"]),
        (&["watch", "--duration", "0"], &["'0'", "--duration <SECONDS>", "from 1 to 31536000"]),
        (&["watch", "--duration", "long"], &["'long'", "--duration <SECONDS>", "from 1 to 31536000"]),
        (&["watch", "clean"], &["'clean'"]),
        (&["wtach"], &["'wtach'", "watch"]),
        (&["doctor", "--btf", "/no/such/folder"], &["--btf", "/no/such/folder"]),
    ];
    for (arguments, words) in cases {
        let done = Run::new(&binary, arguments).finish().exits(2);
        assert_eq!(done.stdout, "", "{done}");
        done.says(words);
    }
    let nothing = Run::new(&binary, &[]).finish().exits(2);
    nothing.says(&["Usage: septwatch", "demo", "watch", "doctor"]);
}

#[test]
fn help_is_there_for_everything() {
    let binary = binary!();
    for command in ["", "demo", "watch", "doctor", "explain"] {
        for flag in ["--help", "-h"] {
            let arguments: Vec<_> = [command, flag].into_iter().filter(|word| !word.is_empty()).collect();
            let done = Run::new(&binary, &arguments).finish().exits(0);
            assert!(
                done.stdout.contains(&format!("Usage: septwatch {command}").trim_end().to_owned()),
                "{done}"
            );
            assert_eq!(done.stderr, "", "{done}");
        }
    }
    let version = Run::new(&binary, &["--version"]).finish().exits(0);
    assert!(version.stdout.starts_with("septwatch "), "{version}");
}

#[test]
fn nobody_reads_the_output_and_nothing_panics() {
    let septwatch = septwatch!();
    let cases: [&[&str]; 8] = [
        &["--help"],
        &["demo", "--help"],
        &["demo", "--list"],
        &["demo", "clean"],
        &["demo", "zap-failed", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["explain", "--help"],
    ];
    for arguments in cases {
        let mut run = Run::new(&septwatch, arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let command = run.command().stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn one_line_can_be_read_and_the_rest_not() {
    let septwatch = septwatch!();
    let mut run = Run::new(&septwatch, &["demo", "freed-while-mapped", "--json"]);
    let mut child = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    assert!(line.starts_with("{\"") && line.ends_with("}\n"), "{line:?}");
}

/// A copy that anybody may run: the tree may lie where nobody else can go.
fn for_anybody(binary: &Path, folder: &Path) -> PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("septwatch");
    fs::copy(binary, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

#[test]
fn without_privileges_the_capabilities_are_named_and_how_to_give_them() {
    let binary = binary!();
    if !rustix::process::geteuid().is_root() {
        skip!("becomes another user: run as root");
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = for_anybody(&binary, folder.path());
    for arguments in [&["demo"][..], &["demo", "clean", "--json"], &["watch"]] {
        let mut run = Run::new(&copy, arguments);
        // This drops root's other groups too.
        run.command().uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        let done = run.finish().exits(3);
        assert_eq!(done.stdout, "", "{done}");
        done.says(&["CAP_BPF", "CAP_PERFMON", "run as root", "setcap cap_bpf,cap_perfmon"]);
    }
    // What needs no privileges works.
    let mut list = Run::new(&copy, &["demo", "--list"]);
    list.command().uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    list.finish().exits(0);
    let mut doctor = Run::new(&copy, &["doctor", "--json"]);
    doctor.command().uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    let doctor = doctor.finish().exits(3);
    let report = doctor.json_line();
    assert_eq!(report["verdict"]["can_watch"], false, "{doctor}");
    assert!(report["verdict"]["line"].as_str().is_some_and(|line| line.contains("CAP_BPF")), "{doctor}");
}

#[test]
fn watch_names_the_hooks_that_are_missing() {
    let septwatch = septwatch!();
    let report = Run::new(&septwatch, &["doctor", "--json"]).finish().json_line();
    if report["verdict"]["can_watch"] == true {
        // On a TDX host: nothing is missing, and nothing is wrong in a second.
        Run::new(&septwatch, &["watch", "--duration", "1"]).finish_in_turn().exits(0);
        return;
    }
    let missing: Vec<_> = report["plan"]["hooks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|hook| hook["need"] == "required" && hook["state"]["bound"].is_null())
        .map(|hook| hook["name"].as_str().unwrap().to_owned())
        .collect();
    if missing.is_empty() {
        skip!("this host has the hooks and lacks something else: {}", report["verdict"]["line"]);
    }
    let done = Run::new(&septwatch, &["watch"]).finish_in_turn().exits(3);
    assert_eq!(done.stdout, "", "{done}");
    let count = format!("{} of ", missing.len());
    done.says(&missing).says(&[count.as_str(), "hooks that every verdict needs"]);
}

#[test]
fn doctors_exit_code_is_its_verdict() {
    let binary = binary!();
    let json = Run::new(&binary, &["doctor", "--json"]).finish();
    let report = json.json_line();
    let verdict = &report["verdict"];
    let can_watch = verdict["can_watch"].as_bool().unwrap();
    assert_eq!(json.code(), Some(if can_watch { 0 } else { 3 }), "{json}");
    assert_eq!(verdict["problems"].as_array().map(Vec::is_empty), Some(can_watch), "{verdict}");
    let line = verdict["line"].as_str().unwrap();
    let text = Run::new(&binary, &["doctor"]).finish();
    assert_eq!(text.code(), json.code(), "{text}");
    assert!(text.stdout.contains(line), "no {line:?}: {text}");
    assert_eq!((json.stderr.as_str(), text.stderr.as_str()), ("", ""));
}
